// SPDX-License-Identifier: Apache-2.0
//! The data of a NOTIFICATION: written for the kinds that define it, and told in words.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use router_types::{Afi, Family, Safi};

use super::{ErrorKind, Notification};
use crate::attribute::AttributeCode;
use crate::capability::Capability;
use crate::cursor::Cursor;

impl Notification {
    /// More prefixes than allowed, with the family and the limit (RFC 4486 §4).
    pub fn maximum_prefixes(family: Family, limit: u32) -> Self {
        let mut data = family.afi.0.to_be_bytes().to_vec();
        data.push(family.safi.0);
        data.extend_from_slice(&limit.to_be_bytes());
        Notification {
            kind: ErrorKind::MAXIMUM_PREFIXES,
            data,
        }
    }

    /// Capabilities that are demanded and were not offered (RFC 5492 §5).
    pub fn unsupported_capabilities<'a>(
        capabilities: impl IntoIterator<Item = &'a Capability>,
    ) -> Self {
        let mut data = Vec::new();
        capabilities
            .into_iter()
            .for_each(|capability| capability.encode(&mut data));
        Notification {
            kind: ErrorKind::UNSUPPORTED_CAPABILITY,
            data,
        }
    }

    /// A reason that ends the session for good, without graceful restart (RFC 8538 §3.1).
    pub fn hard_reset(reason: &Notification) -> Self {
        let mut data = [reason.kind.code, reason.kind.subcode].to_vec();
        data.extend_from_slice(&reason.data);
        Notification {
            kind: ErrorKind::HARD_RESET,
            data,
        }
    }

    /// The reason inside a Hard Reset (RFC 8538 §3.1).
    pub fn hard_reset_reason(&self) -> Option<Notification> {
        if self.kind == ErrorKind::HARD_RESET {
            Notification::decode(&self.data)
        } else {
            None
        }
    }

    /// What the data says beyond the kind, in words; `None` if it says nothing that is known.
    pub fn detail(&self) -> Option<String> {
        let mut cursor = Cursor::new(&self.data);
        match self.kind {
            ErrorKind::BAD_MESSAGE_LENGTH => Some(format!("length {}", cursor.u16()?)),
            ErrorKind::BAD_MESSAGE_TYPE => Some(format!("type {}", cursor.u8()?)),
            ErrorKind::UNSUPPORTED_VERSION => Some(format!("version {} at most", cursor.u16()?)),
            ErrorKind::BAD_PEER_AS => match self.data.len() {
                2 => Some(format!("AS {}", cursor.u16()?)),
                4 => Some(format!("AS {}", cursor.u32()?)),
                _ => None,
            },
            ErrorKind::UNACCEPTABLE_HOLD_TIME => Some(format!("{} s", cursor.u16()?)),
            ErrorKind::UNSUPPORTED_CAPABILITY => {
                let mut words = Vec::new();
                while let Some([code, len]) = cursor.array() {
                    let name = Capability::name_of(code).unwrap_or("unknown");
                    let capability = Capability::decode(code, cursor.take(len.into())?);
                    words.push(match capability {
                        Capability::Multiprotocol(family) => format!("{name} {family}"),
                        _ => format!("{name} ({code})"),
                    });
                }
                (!words.is_empty()).then(|| words.join(", "))
            }
            ErrorKind::MAXIMUM_PREFIXES => {
                let afi = Afi(cursor.u16()?);
                let safi = Safi(cursor.u8()?);
                Some(format!(
                    "{} at most {}",
                    Family { afi, safi },
                    cursor.u32()?
                ))
            }
            ErrorKind::ADMINISTRATIVE_SHUTDOWN | ErrorKind::ADMINISTRATIVE_RESET => {
                self.communication().map(|text| format!("\"{text}\""))
            }
            ErrorKind::HARD_RESET => {
                let reason = self.hard_reset_reason()?;
                // One inside the other means nothing, and may be thousands deep.
                let nested = reason.kind == ErrorKind::HARD_RESET;
                Some(if nested {
                    reason.kind.to_string()
                } else {
                    reason.to_string()
                })
            }
            // RFC 4271 §6.3: the offending attribute, or for a missing one its type alone.
            ErrorKind { code: 3, .. } => match self.data[..] {
                [] => None,
                [code] | [_, code, ..] => Some(AttributeCode(code).to_string()),
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_told_in_words() {
        let shutdown =
            Notification::with_communication(ErrorKind::ADMINISTRATIVE_SHUTDOWN, "until 4");
        let v6 = Capability::Multiprotocol(Family::IPV6_UNICAST);
        for (notification, words) in [
            (
                Notification::maximum_prefixes(Family::IPV4_UNICAST, 20_000),
                "ipv4/unicast at most 20000",
            ),
            (
                Notification::unsupported_capabilities([&v6, &Capability::RouteRefresh]),
                "multiprotocol ipv6/unicast, route-refresh (2)",
            ),
            (
                Notification::hard_reset(&shutdown),
                "Cease / Administrative Shutdown (6/2): \"until 4\"",
            ),
            (
                Notification::with_data(ErrorKind::BAD_PEER_AS, [0, 1, 0, 0]),
                "AS 65536",
            ),
            (
                Notification::with_data(ErrorKind::OPTIONAL_ATTRIBUTE, [0x80, 14, 0]),
                "MP_REACH_NLRI",
            ),
            (
                Notification::with_data(ErrorKind::MISSING_WELL_KNOWN_ATTRIBUTE, [2]),
                "AS_PATH",
            ),
        ] {
            assert_eq!(notification.detail().as_deref(), Some(words));
        }
        assert_eq!(
            Notification::new(ErrorKind::MAXIMUM_PREFIXES).detail(),
            None
        );
        assert_eq!(
            Notification::with_data(ErrorKind::UNSUPPORTED_CAPABILITY, [1, 4]).detail(),
            None
        );
    }
}
