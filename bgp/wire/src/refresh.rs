// SPDX-License-Identifier: Apache-2.0
//! ROUTE-REFRESH (RFC 2918 §3, RFC 7313 §3.2).

use alloc::vec::Vec;

use router_types::{Afi, Family, Safi};

use crate::frame::{self, MessageKind};
use crate::notification::{ErrorKind, Notification};

/// What a ROUTE-REFRESH says about its family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum RefreshKind {
    /// Please send all routes again.
    Request = 0,
    /// All routes follow (BoRR).
    Begin = 1,
    /// All routes were sent; what did not come is gone (EoRR).
    End = 2,
}

/// A ROUTE-REFRESH message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RouteRefresh {
    /// The family concerned.
    pub family: Family,
    /// Request or demarcation.
    pub kind: RefreshKind,
}

impl RouteRefresh {
    /// Reads the body of a ROUTE-REFRESH. `None` for a subtype that is not known, or for one with
    /// outbound route filters this speaker never offered: the message is to be ignored (RFC 7313
    /// §5, RFC 5291 §5).
    ///
    /// # Errors
    ///
    /// The NOTIFICATION to answer with when the length is wrong. Its data is the whole message
    /// (RFC 7313 §5).
    pub fn decode(body: &[u8]) -> Result<Option<Self>, Notification> {
        let Some((&[high, low, subtype, safi], filters)) = body.split_first_chunk::<4>() else {
            return Err(invalid_length(body));
        };
        let afi = Afi(u16::from_be_bytes([high, low]));
        let family = Family {
            afi,
            safi: Safi(safi),
        };
        let kind = match subtype {
            0 if filters.is_empty() => RefreshKind::Request,
            1 | 2 if !filters.is_empty() => return Err(invalid_length(body)),
            1 => RefreshKind::Begin,
            2 => RefreshKind::End,
            _ => return Ok(None),
        };
        Ok(Some(RouteRefresh { family, kind }))
    }

    /// Appends the whole message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = frame::begin(out, MessageKind::RouteRefresh);
        out.extend_from_slice(&self.family.afi.0.to_be_bytes());
        out.extend_from_slice(&[self.kind as u8, self.family.safi.0]);
        frame::finish(out, start);
    }
}

fn invalid_length(body: &[u8]) -> Notification {
    let mut message = Vec::with_capacity(frame::HEADER_LEN + body.len());
    let start = frame::begin(&mut message, MessageKind::RouteRefresh);
    message.extend_from_slice(body);
    frame::finish(&mut message, start);
    Notification::with_data(ErrorKind::REFRESH_INVALID_LENGTH, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_survives_the_wire() {
        for kind in [RefreshKind::Request, RefreshKind::Begin, RefreshKind::End] {
            let sent = RouteRefresh {
                family: Family::IPV6_UNICAST,
                kind,
            };
            let mut bytes = Vec::new();
            sent.encode(&mut bytes);
            let frame = frame::next(&bytes, frame::MAX_LEN).unwrap().unwrap();
            assert_eq!(RouteRefresh::decode(frame.body), Ok(Some(sent)));
        }
    }

    #[test]
    fn unknown_subtypes_are_ignored_and_wrong_lengths_answered() {
        assert_eq!(RouteRefresh::decode(&[0, 1, 9, 1]), Ok(None));
        assert_eq!(RouteRefresh::decode(&[0, 1, 0, 1, 1, 64, 0, 0]), Ok(None));
        for body in [&[0, 1, 0][..], &[0, 1, 1, 1, 0]] {
            let error = RouteRefresh::decode(body).unwrap_err();
            assert_eq!(error.kind, ErrorKind::REFRESH_INVALID_LENGTH);
            assert_eq!(&error.data[19..], body);
        }
    }
}
