// SPDX-License-Identifier: Apache-2.0
//! NOTIFICATION: why a speaker ends a session (RFC 4271 §4.5 and §6, with the later registries).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::frame::{self, MessageKind};

mod detail;
mod registry;

pub use registry::ErrorKind;

/// Longest Shutdown Communication (RFC 9003 §2); RFC 8203 allowed 128.
pub const MAX_SHUTDOWN_COMMUNICATION: usize = 255;

/// The reason for ending a session, as sent or received.
///
/// Doubles as the error type of everything whose only answer is to end the session: the header,
/// OPEN and ROUTE-REFRESH decoders return it ready to be sent.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Notification {
    /// Code and subcode.
    pub kind: ErrorKind,
    /// What the receiver needs for its diagnosis; the layout depends on the kind.
    pub data: Vec<u8>,
}

impl Notification {
    /// A reason without data.
    pub const fn new(kind: ErrorKind) -> Self {
        Notification {
            kind,
            data: Vec::new(),
        }
    }

    /// A reason with data.
    pub fn with_data(kind: ErrorKind, data: impl Into<Vec<u8>>) -> Self {
        Notification {
            kind,
            data: data.into(),
        }
    }

    /// Administrative Shutdown or Administrative Reset with a message to the other operator
    /// (RFC 9003 §2). The message is cut at a character boundary to
    /// [`MAX_SHUTDOWN_COMMUNICATION`] octets.
    pub fn with_communication(kind: ErrorKind, message: &str) -> Self {
        let mut end = message.len().min(MAX_SHUTDOWN_COMMUNICATION);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let mut data = Vec::with_capacity(1 + end);
        data.push(end as u8);
        data.extend_from_slice(&message.as_bytes()[..end]);
        Notification { kind, data }
    }

    /// The Shutdown Communication of a received Cease, if it carries a well-formed one
    /// (RFC 9003 §2). Control characters are replaced, so that it can be logged.
    pub fn communication(&self) -> Option<String> {
        if !self.kind.carries_communication() {
            return None;
        }
        let (&len, text) = self.data.split_first()?;
        let text = core::str::from_utf8(text.get(..usize::from(len))?).ok()?;
        if text.is_empty() {
            return None;
        }
        Some(
            text.chars()
                .map(|c| if c.is_control() { '\u{fffd}' } else { c })
                .collect(),
        )
    }

    /// Reads the body of a NOTIFICATION message.
    ///
    /// `None` when it is shorter than its two fixed octets, which framing has already ruled out.
    /// A NOTIFICATION is never answered by a NOTIFICATION (RFC 4271 §6.4).
    pub fn decode(body: &[u8]) -> Option<Self> {
        let (&[code, subcode], data) = body.split_first_chunk::<2>()?;
        Some(Notification {
            kind: ErrorKind { code, subcode },
            data: data.to_vec(),
        })
    }

    /// Appends the whole message to `out`. Data beyond what fits 4096 octets is cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = frame::begin(out, MessageKind::Notification);
        out.extend_from_slice(&[self.kind.code, self.kind.subcode]);
        let room = frame::MAX_LEN - frame::HEADER_LEN - 2;
        out.extend_from_slice(&self.data[..self.data.len().min(room)]);
        frame::finish(out, start);
    }
}

impl fmt::Display for Notification {
    /// `Cease / Administrative Shutdown (6/2): "maintenance until 4"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        match self.detail() {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for Notification {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_shutdown_communication_survives_the_wire() {
        let sent =
            Notification::with_communication(ErrorKind::ADMINISTRATIVE_SHUTDOWN, "Wartung bis 4 ✓");
        let mut bytes = Vec::new();
        sent.encode(&mut bytes);
        let received = Notification::decode(&bytes[frame::HEADER_LEN..]).unwrap();
        assert_eq!(received, sent);
        assert_eq!(
            received.to_string(),
            "Cease / Administrative Shutdown (6/2): \"Wartung bis 4 ✓\""
        );
    }

    #[test]
    fn a_communication_is_cut_between_characters() {
        let long = "é".repeat(200);
        let cut = Notification::with_communication(ErrorKind::ADMINISTRATIVE_RESET, &long);
        assert_eq!(cut.data[0], 254);
        assert_eq!(cut.communication().unwrap().chars().count(), 127);
    }

    #[test]
    fn a_broken_communication_is_not_shown() {
        for data in [&[5, b'a'][..], &[2, 0xff, 0xfe], &[0], &[]] {
            let n = Notification::with_data(ErrorKind::ADMINISTRATIVE_SHUTDOWN, data);
            assert_eq!(n.communication(), None, "{data:?}");
        }
        let other = Notification::with_data(ErrorKind::HOLD_TIMER_EXPIRED, [1, b'x']);
        assert_eq!(other.communication(), None);
    }

    #[test]
    fn every_known_kind_has_its_own_name_and_a_meaning() {
        for code in 0..=8u8 {
            for subcode in 0..=20u8 {
                let kind = ErrorKind { code, subcode };
                assert!(!kind.meaning().is_empty(), "{kind}");
                assert!(kind.meaning().ends_with('.'), "{kind}");
            }
        }
        assert_eq!(
            ErrorKind {
                code: 6,
                subcode: 77
            }
            .to_string(),
            "Cease / subcode 77 (6/77)"
        );
        assert_eq!(
            ErrorKind {
                code: 99,
                subcode: 0
            }
            .to_string(),
            "code 99 (99/0)"
        );
    }
}
