// SPDX-License-Identifier: Apache-2.0
//! The message header and how a byte stream is cut into messages (RFC 4271 §4.1 and §6.1).

use alloc::vec::Vec;
use core::fmt;

use crate::notification::{ErrorKind, Notification};

/// Marker, length and type.
pub const HEADER_LEN: usize = 19;

/// Longest message without extended messages (RFC 4271 §4.1). OPEN and KEEPALIVE keep this limit
/// with them (RFC 8654 §4).
pub const MAX_LEN: usize = 4096;

/// Longest message with extended messages (RFC 8654 §4).
pub const MAX_EXTENDED_LEN: usize = 65535;

const MARKER: [u8; 16] = [0xff; 16];

/// Type of a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum MessageKind {
    /// RFC 4271 §4.2.
    Open = 1,
    /// RFC 4271 §4.3.
    Update = 2,
    /// RFC 4271 §4.5.
    Notification = 3,
    /// RFC 4271 §4.4.
    Keepalive = 4,
    /// RFC 2918 §3.
    RouteRefresh = 5,
}

impl MessageKind {
    /// All types, in the order of their codes.
    pub const ALL: [MessageKind; 5] = [
        MessageKind::Open,
        MessageKind::Update,
        MessageKind::Notification,
        MessageKind::Keepalive,
        MessageKind::RouteRefresh,
    ];

    /// The type of this code.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(MessageKind::Open),
            2 => Some(MessageKind::Update),
            3 => Some(MessageKind::Notification),
            4 => Some(MessageKind::Keepalive),
            5 => Some(MessageKind::RouteRefresh),
            _ => None,
        }
    }

    /// Least and greatest whole length (RFC 4271 §6.1, RFC 8654 §4). A ROUTE-REFRESH of a wrong
    /// length has its own error (RFC 7313 §5) and is let through up to the message limit.
    const fn lengths(self, max_len: usize) -> (usize, usize) {
        match self {
            MessageKind::Open => (29, MAX_LEN),
            MessageKind::Update => (23, max_len),
            MessageKind::Notification => (21, max_len),
            MessageKind::Keepalive => (HEADER_LEN, HEADER_LEN),
            MessageKind::RouteRefresh => (HEADER_LEN, max_len),
        }
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MessageKind::Open => "OPEN",
            MessageKind::Update => "UPDATE",
            MessageKind::Notification => "NOTIFICATION",
            MessageKind::Keepalive => "KEEPALIVE",
            MessageKind::RouteRefresh => "ROUTE-REFRESH",
        })
    }
}

/// One whole message at the front of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// Its type.
    pub kind: MessageKind,
    /// What follows the header.
    pub body: &'a [u8],
    /// Its length with the header: what to drop from the buffer once it is dealt with.
    pub len: usize,
}

/// Finds the first message in `buf`; `None` while it is incomplete.
///
/// `max_len` is [`MAX_LEN`] or, once both sides offered extended messages, [`MAX_EXTENDED_LEN`].
/// The header is judged as soon as it is there, so a peer cannot make the reader wait for a
/// message that will be refused.
///
/// # Errors
///
/// The NOTIFICATION to answer with; the stream cannot be read further.
pub fn next(buf: &[u8], max_len: usize) -> Result<Option<Frame<'_>>, Notification> {
    let Some((marker, rest)) = buf.split_first_chunk::<16>() else {
        return Ok(None);
    };
    if *marker != MARKER {
        return Err(Notification::new(ErrorKind::CONNECTION_NOT_SYNCHRONIZED));
    }
    let Some((&[high, low, code], _)) = rest.split_first_chunk::<3>() else {
        return Ok(None);
    };
    let bad_length = || Notification::with_data(ErrorKind::BAD_MESSAGE_LENGTH, [high, low]);
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len < HEADER_LEN || len > max_len {
        return Err(bad_length());
    }
    let Some(kind) = MessageKind::from_code(code) else {
        return Err(Notification::with_data(ErrorKind::BAD_MESSAGE_TYPE, [code]));
    };
    let (min, max) = kind.lengths(max_len);
    if len < min || len > max {
        return Err(bad_length());
    }
    Ok(buf
        .get(HEADER_LEN..len)
        .map(|body| Frame { kind, body, len }))
}

/// Appends a KEEPALIVE.
pub fn encode_keepalive(out: &mut Vec<u8>) {
    let start = begin(out, MessageKind::Keepalive);
    finish(out, start);
}

/// Appends a header with an open length and returns where it starts.
pub(crate) fn begin(out: &mut Vec<u8>, kind: MessageKind) -> usize {
    let start = out.len();
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&[0, 0, kind as u8]);
    start
}

/// Writes the length of the message that started at `start` and ends where `out` ends.
pub(crate) fn finish(out: &mut [u8], start: usize) {
    let len = out.len() - start;
    debug_assert!(len <= MAX_EXTENDED_LEN);
    out[start + 16..start + 18].copy_from_slice(&(len as u16).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn header(len: u16, code: u8) -> Vec<u8> {
        let mut bytes = vec![0xff; 16];
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.push(code);
        bytes
    }

    #[test]
    fn messages_are_cut_one_after_the_other() {
        let mut bytes = Vec::new();
        encode_keepalive(&mut bytes);
        bytes.extend(header(23, 2));
        bytes.extend([0, 0, 0, 0]);
        let first = next(&bytes, MAX_LEN).unwrap().unwrap();
        assert_eq!((first.kind, first.len), (MessageKind::Keepalive, 19));
        let second = next(&bytes[first.len..], MAX_LEN).unwrap().unwrap();
        assert_eq!(
            (second.kind, second.body),
            (MessageKind::Update, &[0u8; 4][..])
        );
        for end in first.len..bytes.len() {
            assert_eq!(next(&bytes[first.len..end], MAX_LEN), Ok(None), "{end}");
        }
    }

    #[test]
    fn a_wrong_marker_is_refused_as_soon_as_it_is_there() {
        let mut bytes = header(19, 4);
        bytes[7] = 0;
        assert_eq!(
            next(&bytes[..16], MAX_LEN).unwrap_err().kind,
            ErrorKind::CONNECTION_NOT_SYNCHRONIZED
        );
    }

    #[test]
    fn lengths_are_checked_by_type_and_sent_back() {
        for (len, code, max) in [
            (18, 4, MAX_LEN),
            (20, 4, MAX_LEN),
            (28, 1, MAX_LEN),
            (22, 2, MAX_LEN),
            (20, 3, MAX_LEN),
            (4097, 2, MAX_LEN),
            (4097, 1, MAX_EXTENDED_LEN),
        ] {
            let error = next(&header(len, code), max).unwrap_err();
            assert_eq!(error.kind, ErrorKind::BAD_MESSAGE_LENGTH, "{len} {code}");
            assert_eq!(error.data, len.to_be_bytes());
        }
        assert_eq!(next(&header(4097, 2), MAX_EXTENDED_LEN), Ok(None));
        let error = next(&header(19, 9), MAX_LEN).unwrap_err();
        assert_eq!(
            (error.kind, &error.data[..]),
            (ErrorKind::BAD_MESSAGE_TYPE, &[9][..])
        );
    }
}
