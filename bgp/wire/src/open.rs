// SPDX-License-Identifier: Apache-2.0
//! OPEN: who a speaker is and what it can do (RFC 4271 §4.2 and §6.2, RFC 5492, RFC 9072).

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use router_types::{Asn, Family};

use crate::capability::Capability;
use crate::cursor::Cursor;
use crate::frame::{self, MessageKind};
use crate::notification::{ErrorKind, Notification};

/// The only version there is (RFC 4271 §4.2).
pub const VERSION: u8 = 4;

/// Optional parameter type of capabilities (RFC 5492 §4).
const PARAMETER_CAPABILITIES: u8 = 2;

/// Announces optional parameters with lengths of two octets (RFC 9072 §2).
const PARAMETER_EXTENDED: u8 = 255;

/// The first message of a session.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Open {
    /// The sender's AS number: that of the four-octet capability where there is one, else of the
    /// two-octet field.
    pub asn: Asn,
    /// Proposed hold time in seconds: 0 (never expire) or at least 3.
    pub hold_time_s: u16,
    /// The sender's BGP identifier, not zero.
    pub router_id: Ipv4Addr,
    /// Everything it offers, in the order found.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// Reads the body of an OPEN message, in either of the two styles of capability parameters
    /// and with or without the extended length of RFC 9072.
    ///
    /// Whether the AS number, the identifier and the hold time are the expected ones is for the
    /// session to decide.
    ///
    /// # Errors
    ///
    /// The NOTIFICATION of RFC 4271 §6.2 to answer with.
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        let malformed = || Notification::new(ErrorKind::OPEN);
        let mut cursor = Cursor::new(body);
        let version = cursor.u8().ok_or_else(malformed)?;
        if version != VERSION {
            let supported = u16::from(VERSION).to_be_bytes();
            return Err(Notification::with_data(
                ErrorKind::UNSUPPORTED_VERSION,
                supported,
            ));
        }
        let my_as = cursor.u16().ok_or_else(malformed)?;
        let hold_time_s = cursor.u16().ok_or_else(malformed)?;
        let router_id = Ipv4Addr::from_bits(cursor.u32().ok_or_else(malformed)?);
        let capabilities = decode_parameters(&mut cursor)?;

        let asn = capabilities
            .iter()
            .find_map(|c| {
                if let Capability::FourOctetAs(asn) = c {
                    Some(*asn)
                } else {
                    None
                }
            })
            .unwrap_or(Asn(my_as.into()));
        // RFC 7607 §2: AS 0 is answered like any other wrong AS.
        if asn.0 == 0 {
            return Err(Notification::new(ErrorKind::BAD_PEER_AS));
        }
        if matches!(hold_time_s, 1 | 2) {
            let data = hold_time_s.to_be_bytes();
            return Err(Notification::with_data(
                ErrorKind::UNACCEPTABLE_HOLD_TIME,
                data,
            ));
        }
        // RFC 6286 §2.1: any four octets but zero.
        if router_id.is_unspecified() {
            return Err(Notification::new(ErrorKind::BAD_BGP_IDENTIFIER));
        }
        Ok(Open {
            asn,
            hold_time_s,
            router_id,
            capabilities,
        })
    }

    /// Appends the whole message, all capabilities in one optional parameter, with the extended
    /// length of RFC 9072 when 255 octets do not hold them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = frame::begin(out, MessageKind::Open);
        out.push(VERSION);
        out.extend_from_slice(&self.asn.to_two_octet().to_be_bytes());
        out.extend_from_slice(&self.hold_time_s.to_be_bytes());
        out.extend_from_slice(&self.router_id.octets());

        let mut capabilities = Vec::new();
        for capability in &self.capabilities {
            capability.encode(&mut capabilities);
        }
        let room = frame::MAX_LEN - frame::HEADER_LEN - 16;
        let capabilities = &capabilities[..whole_capabilities(&capabilities, room)];
        let len = capabilities.len();
        if len == 0 {
            out.push(0);
        } else if len + 2 < usize::from(PARAMETER_EXTENDED) {
            out.extend_from_slice(&[len as u8 + 2, PARAMETER_CAPABILITIES, len as u8]);
        } else {
            out.extend_from_slice(&[255, PARAMETER_EXTENDED]);
            out.extend_from_slice(&(len as u16 + 3).to_be_bytes());
            out.push(PARAMETER_CAPABILITIES);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        out.extend_from_slice(capabilities);
        frame::finish(out, start);
    }

    /// The families offered, in order. Without any multiprotocol capability a speaker means IPv4
    /// unicast (RFC 4760 §8).
    pub fn families(&self) -> Vec<Family> {
        let mut families: Vec<Family> = Vec::new();
        for capability in &self.capabilities {
            if let Capability::Multiprotocol(family) = capability
                && !families.contains(family)
            {
                families.push(*family);
            }
        }
        if families.is_empty() {
            families.push(Family::IPV4_UNICAST);
        }
        families
    }
}

fn decode_parameters(cursor: &mut Cursor<'_>) -> Result<Vec<Capability>, Notification> {
    let malformed = || Notification::new(ErrorKind::OPEN);
    let short_len = cursor.u8().ok_or_else(malformed)?;
    // RFC 9072 §2: "the value of the Non-Ext OP Len field SHOULD be 255", and any but 0 is taken.
    let extended = short_len != 0 && cursor.rest().first() == Some(&PARAMETER_EXTENDED);
    let len = if extended {
        cursor.u8();
        cursor.u16().ok_or_else(malformed)?.into()
    } else {
        usize::from(short_len)
    };
    if len != cursor.len() {
        return Err(malformed());
    }
    let mut capabilities = Vec::new();
    while !cursor.is_empty() {
        let kind = cursor.u8().ok_or_else(malformed)?;
        let len = if extended {
            cursor.u16().ok_or_else(malformed)?.into()
        } else {
            usize::from(cursor.u8().ok_or_else(malformed)?)
        };
        let value = cursor.take(len).ok_or_else(malformed)?;
        if kind != PARAMETER_CAPABILITIES {
            return Err(Notification::new(ErrorKind::UNSUPPORTED_OPTIONAL_PARAMETER));
        }
        decode_capabilities(value, &mut capabilities).ok_or_else(malformed)?;
    }
    Ok(capabilities)
}

fn decode_capabilities(value: &[u8], capabilities: &mut Vec<Capability>) -> Option<()> {
    let mut cursor = Cursor::new(value);
    while !cursor.is_empty() {
        let (code, len) = (cursor.u8()?, cursor.u8()?);
        let capability = Capability::decode(code, cursor.take(len.into())?);
        if matches!(capability, Capability::Unknown { code: 65, .. }) {
            return None;
        }
        capabilities.push(capability);
    }
    Some(())
}

/// Length of the capabilities that fit `room`, none cut in two.
fn whole_capabilities(encoded: &[u8], room: usize) -> usize {
    let mut end = 0;
    while let Some(&len) = encoded.get(end + 1) {
        let next = end + 2 + usize::from(len);
        if next > room {
            break;
        }
        end = next;
    }
    end
}
