// SPDX-License-Identifier: Apache-2.0
//! Any message, read as far as it can be read without knowing the session.

use crate::frame::{Frame, MessageKind};
use crate::notification::{ErrorKind, Notification};
use crate::open::Open;
use crate::refresh::RouteRefresh;
use crate::update::UpdateView;

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// RFC 4271 §4.2.
    Open(Open),
    /// RFC 4271 §4.3. Reading on needs the session's parameters: [`Update::parse`](crate::Update).
    Update(UpdateView<'a>),
    /// RFC 4271 §4.5.
    Notification(Notification),
    /// RFC 4271 §4.4.
    Keepalive,
    /// RFC 2918 §3; `None` for a subtype to be ignored (RFC 7313 §5).
    RouteRefresh(Option<RouteRefresh>),
}

impl<'a> Message<'a> {
    /// Reads the message of a frame.
    ///
    /// # Errors
    ///
    /// The NOTIFICATION to end the session with.
    pub fn decode(frame: &Frame<'a>) -> Result<Self, Notification> {
        Ok(match frame.kind {
            MessageKind::Open => Message::Open(Open::decode(frame.body)?),
            MessageKind::Update => Message::Update(UpdateView::split(frame.body)?),
            MessageKind::Notification => Message::Notification(
                Notification::decode(frame.body)
                    .ok_or_else(|| Notification::new(ErrorKind::BAD_MESSAGE_LENGTH))?,
            ),
            MessageKind::Keepalive => Message::Keepalive,
            MessageKind::RouteRefresh => Message::RouteRefresh(RouteRefresh::decode(frame.body)?),
        })
    }
}
