// SPDX-License-Identifier: Apache-2.0
//! What waits to be written to a connection.

use std::collections::VecDeque;
use std::io;

use bgp_core::peer::TransportFailure;
use bytes::{Buf, Bytes};
use tokio::net::TcpStream;

use crate::failure::transport_failure;

/// What waits to be written, in whole messages.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The chunk that was begun; it must be finished before another starts.
    begun: Option<(Bytes, Kind)>,
    session: VecDeque<Bytes>,
    routes: VecDeque<Bytes>,
    /// What writing failed with. Reading goes on: the neighbour may have said why before it closed.
    failure: Option<TransportFailure>,
    /// Nothing is taken in any more.
    closed: bool,
}

/// Bytes the kernel took.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Progress {
    pub(super) all: usize,
    /// Of these, routes.
    pub(super) routes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Session,
    Routes,
}

impl Outbox {
    /// Takes the session's own message, to go before routes that wait.
    pub(super) fn push(&mut self, message: Vec<u8>) {
        if !self.closed {
            self.session.push_back(message.into());
        }
    }

    /// Takes routes.
    pub(super) fn push_routes(&mut self, messages: Bytes) {
        if !self.closed {
            self.routes.push_back(messages);
        }
    }

    /// What waits. Nothing is taken in from then on.
    pub(super) fn close(&mut self) -> Outbox {
        let closed = Outbox {
            failure: self.failure.clone(),
            closed: true,
            ..Outbox::default()
        };
        std::mem::replace(self, closed)
    }

    /// Forgets routes that were not begun.
    pub(super) fn drop_routes(&mut self) {
        self.routes.clear();
    }

    pub(super) fn failure(&self) -> Option<&TransportFailure> {
        self.failure.as_ref()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.begun.is_none() && self.session.is_empty() && self.routes.is_empty()
    }

    /// What is left, in the order it would go.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        let begun = self.begun.into_iter().map(|(bytes, _)| bytes);
        let all = begun.chain(self.session).chain(self.routes);
        all.fold(Vec::new(), |mut left, bytes| {
            left.extend_from_slice(&bytes);
            left
        })
    }

    /// Writes until the kernel takes no more or nothing is left. Returns how many bytes went. After
    /// a failure nothing waits any more.
    pub(super) fn write_what_goes(&mut self, stream: &TcpStream) -> Progress {
        self.write(stream).unwrap_or_else(|error| {
            *self = Outbox {
                failure: Some(transport_failure(&error)),
                closed: true,
                ..Outbox::default()
            };
            Progress::default()
        })
    }

    /// The same, with the failure.
    pub(super) fn write(&mut self, stream: &TcpStream) -> io::Result<Progress> {
        let mut progress = Progress::default();
        loop {
            let next = self
                .begun
                .take()
                .or_else(|| self.session.pop_front().map(|bytes| (bytes, Kind::Session)))
                .or_else(|| self.routes.pop_front().map(|bytes| (bytes, Kind::Routes)));
            let Some((mut bytes, kind)) = next else {
                return Ok(progress);
            };
            if bytes.is_empty() {
                continue;
            }
            match stream.try_write(&bytes) {
                Ok(written) => {
                    bytes.advance(written);
                    progress.all += written;
                    if kind == Kind::Routes {
                        progress.routes += written;
                    }
                    if !bytes.is_empty() {
                        self.begun = Some((bytes, kind));
                    }
                }
                Err(error) => {
                    self.begun = Some((bytes, kind));
                    // What went before the kernel was full did go.
                    return if error.kind() == io::ErrorKind::WouldBlock {
                        Ok(progress)
                    } else {
                        Err(error)
                    };
                }
            }
        }
    }
}
