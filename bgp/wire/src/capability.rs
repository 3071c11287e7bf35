// SPDX-License-Identifier: Apache-2.0
//! Capabilities announced in OPEN (RFC 5492 and the documents named at each variant).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use router_types::{Afi, Asn, Family, Safi};

use crate::cursor::Cursor;

/// Longest value of one capability (RFC 5492 §4).
const MAX_VALUE_LEN: usize = 255;

/// Something a speaker says it can do.
///
/// A known code with a value of the wrong length decodes as [`Capability::Unknown`], so that it
/// does not take part in the negotiation and is still shown; only a broken four-octet AS number
/// capability refuses the OPEN, because nothing after it could be read.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Capability {
    /// Routes of this family (RFC 4760 §8).
    Multiprotocol(Family),
    /// Understands ROUTE-REFRESH (RFC 2918 §2).
    RouteRefresh,
    /// For the NLRI of a family, next hops of another address family are understood (RFC 8950 §4).
    ExtendedNextHop(Vec<ExtendedNextHop>),
    /// Messages up to 65535 octets are accepted (RFC 8654 §3).
    ExtendedMessages,
    /// The speaker's relation to its neighbour (RFC 9234 §4.1).
    Role(Role),
    /// Graceful restart (RFC 4724 §3, RFC 8538 §2).
    GracefulRestart(GracefulRestart),
    /// AS numbers of four octets, and the speaker's own (RFC 6793 §3).
    FourOctetAs(Asn),
    /// Several paths for one prefix (RFC 7911 §4).
    AddPath(Vec<AddPath>),
    /// Marks begin and end of a refresh (RFC 7313 §3.1).
    EnhancedRouteRefresh,
    /// Long-lived graceful restart (RFC 9494 §4.1).
    LongLivedGracefulRestart(Vec<LongLivedStale>),
    /// Name of the router, for people (draft-walton-bgp-hostname-capability).
    Fqdn {
        /// Host name; bytes that are no UTF-8 are replaced.
        host: String,
        /// Domain name, often empty.
        domain: String,
    },
    /// Name and version of the software, for people (draft-abraitis-bgp-version-capability).
    SoftwareVersion(String),
    /// Any other, or a known code whose value has a wrong length.
    Unknown {
        /// Capability code.
        code: u8,
        /// Its value.
        data: Vec<u8>,
    },
}

/// One line of [`Capability::ExtendedNextHop`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ExtendedNextHop {
    /// Family of the prefixes.
    pub family: Family,
    /// Address family a next hop may have for them.
    pub next_hop: Afi,
}

/// Value of [`Capability::GracefulRestart`].
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct GracefulRestart {
    /// R: the speaker has restarted (RFC 4724 §3).
    pub restarted: bool,
    /// N: NOTIFICATION and hold timer expiry also keep routes (RFC 8538 §2).
    pub notification: bool,
    /// Seconds until the session is expected back, 0 to 4095.
    pub restart_time_s: u16,
    /// Families covered; without any, the speaker only helps others and sends End-of-RIB.
    pub families: Vec<GracefulFamily>,
}

/// A family in [`GracefulRestart`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GracefulFamily {
    /// The family.
    pub family: Family,
    /// F: forwarding state was kept over the restart.
    pub forwarding_preserved: bool,
}

/// A family in [`Capability::LongLivedGracefulRestart`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LongLivedStale {
    /// The family.
    pub family: Family,
    /// F: forwarding state was kept over the restart.
    pub forwarding_preserved: bool,
    /// Seconds stale routes may be kept, 24 bits.
    pub stale_time_s: u32,
}

/// A family in [`Capability::AddPath`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AddPath {
    /// The family.
    pub family: Family,
    /// Willing to receive several paths.
    pub receive: bool,
    /// Willing to send several paths.
    pub send: bool,
}

/// A speaker's relation to its neighbour (RFC 9234 §4.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Role {
    /// Gives transit to the neighbour.
    Provider = 0,
    /// Route server.
    RouteServer = 1,
    /// Client of a route server.
    RouteServerClient = 2,
    /// Gets transit from the neighbour.
    Customer = 3,
    /// Exchanges its customers' routes.
    Peer = 4,
}

impl Role {
    /// The role of this code.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Role::Provider),
            1 => Some(Role::RouteServer),
            2 => Some(Role::RouteServerClient),
            3 => Some(Role::Customer),
            4 => Some(Role::Peer),
            _ => None,
        }
    }

    /// Whether the neighbour may have `other` (RFC 9234 §4.2, table 2).
    pub const fn fits(self, other: Role) -> bool {
        matches!(
            (self, other),
            (Role::Provider, Role::Customer)
                | (Role::Customer, Role::Provider)
                | (Role::RouteServer, Role::RouteServerClient)
                | (Role::RouteServerClient, Role::RouteServer)
                | (Role::Peer, Role::Peer)
        )
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Provider => "provider",
            Role::RouteServer => "route-server",
            Role::RouteServerClient => "route-server-client",
            Role::Customer => "customer",
            Role::Peer => "peer",
        })
    }
}

impl Capability {
    /// The registered code.
    pub const fn code(&self) -> u8 {
        match self {
            Capability::Multiprotocol(_) => 1,
            Capability::RouteRefresh => 2,
            Capability::ExtendedNextHop(_) => 5,
            Capability::ExtendedMessages => 6,
            Capability::Role(_) => 9,
            Capability::GracefulRestart(_) => 64,
            Capability::FourOctetAs(_) => 65,
            Capability::AddPath(_) => 69,
            Capability::EnhancedRouteRefresh => 70,
            Capability::LongLivedGracefulRestart(_) => 71,
            Capability::Fqdn { .. } => 73,
            Capability::SoftwareVersion(_) => 75,
            Capability::Unknown { code, .. } => *code,
        }
    }

    /// The name of a code, also of codes this crate does not read; `None` if unassigned.
    pub const fn name_of(code: u8) -> Option<&'static str> {
        match code {
            1 => Some("multiprotocol"),
            2 => Some("route-refresh"),
            3 => Some("outbound-route-filtering"),
            5 => Some("extended-next-hop"),
            6 => Some("extended-messages"),
            7 => Some("bgpsec"),
            8 => Some("multiple-labels"),
            9 => Some("role"),
            64 => Some("graceful-restart"),
            65 => Some("four-octet-as"),
            67 => Some("dynamic-capability"),
            68 => Some("multisession"),
            69 => Some("add-path"),
            70 => Some("enhanced-route-refresh"),
            71 => Some("long-lived-graceful-restart"),
            72 => Some("routing-policy-distribution"),
            73 => Some("fqdn"),
            74 => Some("bfd-strict"),
            75 => Some("software-version"),
            76 => Some("paths-limit"),
            77 => Some("link-local-next-hop"),
            128 => Some("route-refresh-cisco"),
            131 => Some("multisession-cisco"),
            _ => None,
        }
    }

    /// Reads the value of a capability.
    pub fn decode(code: u8, data: &[u8]) -> Self {
        Self::decode_known(code, data).unwrap_or_else(|| Capability::Unknown {
            code,
            data: data.to_vec(),
        })
    }

    fn decode_known(code: u8, data: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(data);
        let capability = match code {
            1 => {
                let afi = cursor.u16()?;
                // The middle octet is reserved and ignored (RFC 4760 §8).
                let [_, safi] = cursor.array()?;
                Capability::Multiprotocol(Family {
                    afi: Afi(afi),
                    safi: Safi(safi),
                })
            }
            2 => Capability::RouteRefresh,
            5 => Capability::ExtendedNextHop(entries(&mut cursor, |c| {
                let (afi, safi, next_hop) = (c.u16()?, c.u16()?, c.u16()?);
                let safi = Safi(u8::try_from(safi).ok()?);
                let family = Family {
                    afi: Afi(afi),
                    safi,
                };
                Some(ExtendedNextHop {
                    family,
                    next_hop: Afi(next_hop),
                })
            })?),
            6 => Capability::ExtendedMessages,
            9 => Capability::Role(Role::from_code(cursor.u8()?)?),
            64 => {
                let word = cursor.u16()?;
                Capability::GracefulRestart(GracefulRestart {
                    restarted: word & 0x8000 != 0,
                    notification: word & 0x4000 != 0,
                    restart_time_s: word & 0x0fff,
                    families: entries(&mut cursor, |c| {
                        let family = family(c)?;
                        Some(GracefulFamily {
                            family,
                            forwarding_preserved: c.u8()? & 0x80 != 0,
                        })
                    })?,
                })
            }
            65 => Capability::FourOctetAs(Asn(cursor.u32()?)),
            69 => Capability::AddPath(entries(&mut cursor, |c| {
                let family = family(c)?;
                let mode = c.u8()?;
                // RFC 7911 §4: other values make the receiver ignore the entry, not the rest.
                let known = matches!(mode, 1..=3);
                Some(AddPath {
                    family,
                    receive: known && mode & 1 != 0,
                    send: known && mode & 2 != 0,
                })
            })?),
            70 => Capability::EnhancedRouteRefresh,
            71 => Capability::LongLivedGracefulRestart(entries(&mut cursor, |c| {
                let family = family(c)?;
                let [flags, a, b, d] = c.array()?;
                Some(LongLivedStale {
                    family,
                    forwarding_preserved: flags & 0x80 != 0,
                    stale_time_s: u32::from_be_bytes([0, a, b, d]),
                })
            })?),
            73 => Capability::Fqdn {
                host: text(&mut cursor)?,
                domain: text(&mut cursor)?,
            },
            75 => Capability::SoftwareVersion(text(&mut cursor)?),
            _ => return None,
        };
        cursor.is_empty().then_some(capability)
    }

    /// Appends code, length and value. A value over 255 octets, which only lists of dozens of
    /// families or overlong names could have, is cut at an entry or character boundary.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.code(), 0]);
        let start = out.len();
        match self {
            Capability::Multiprotocol(family) => {
                out.extend_from_slice(&family.afi.0.to_be_bytes());
                out.extend_from_slice(&[0, family.safi.0]);
            }
            Capability::RouteRefresh
            | Capability::ExtendedMessages
            | Capability::EnhancedRouteRefresh => {}
            Capability::ExtendedNextHop(list) => {
                for entry in list.iter().take(MAX_VALUE_LEN / 6) {
                    out.extend_from_slice(&entry.family.afi.0.to_be_bytes());
                    out.extend_from_slice(&[0, entry.family.safi.0]);
                    out.extend_from_slice(&entry.next_hop.0.to_be_bytes());
                }
            }
            Capability::Role(role) => out.push(*role as u8),
            Capability::GracefulRestart(value) => {
                let word = u16::from(value.restarted) << 15
                    | u16::from(value.notification) << 14
                    | value.restart_time_s.min(0x0fff);
                out.extend_from_slice(&word.to_be_bytes());
                for entry in value.families.iter().take((MAX_VALUE_LEN - 2) / 4) {
                    push_family(out, entry.family);
                    out.push(u8::from(entry.forwarding_preserved) << 7);
                }
            }
            Capability::FourOctetAs(asn) => out.extend_from_slice(&asn.0.to_be_bytes()),
            Capability::AddPath(list) => {
                for entry in list.iter().take(MAX_VALUE_LEN / 4) {
                    push_family(out, entry.family);
                    out.push(u8::from(entry.receive) | u8::from(entry.send) << 1);
                }
            }
            Capability::LongLivedGracefulRestart(list) => {
                for entry in list.iter().take(MAX_VALUE_LEN / 7) {
                    push_family(out, entry.family);
                    out.push(u8::from(entry.forwarding_preserved) << 7);
                    out.extend_from_slice(&entry.stale_time_s.min(0xff_ffff).to_be_bytes()[1..]);
                }
            }
            Capability::Fqdn { host, domain } => {
                push_text(out, host, MAX_VALUE_LEN - 2);
                let left = (start + MAX_VALUE_LEN - 1).saturating_sub(out.len());
                push_text(out, domain, left);
            }
            Capability::SoftwareVersion(version) => push_text(out, version, MAX_VALUE_LEN - 1),
            Capability::Unknown { data, .. } => {
                out.extend_from_slice(&data[..data.len().min(MAX_VALUE_LEN)]);
            }
        }
        out[start - 1] = (out.len() - start) as u8;
    }
}

fn family(cursor: &mut Cursor<'_>) -> Option<Family> {
    Some(Family {
        afi: Afi(cursor.u16()?),
        safi: Safi(cursor.u8()?),
    })
}

fn push_family(out: &mut Vec<u8>, family: Family) {
    out.extend_from_slice(&family.afi.0.to_be_bytes());
    out.push(family.safi.0);
}

fn entries<T>(
    cursor: &mut Cursor<'_>,
    mut read: impl FnMut(&mut Cursor<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut list = Vec::new();
    while !cursor.is_empty() {
        list.push(read(cursor)?);
    }
    Some(list)
}

fn text(cursor: &mut Cursor<'_>) -> Option<String> {
    let len = usize::from(cursor.u8()?);
    Some(String::from_utf8_lossy(cursor.take(len)?).into_owned())
}

fn push_text(out: &mut Vec<u8>, text: &str, max: usize) {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.push(end as u8);
    out.extend_from_slice(&text.as_bytes()[..end]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_codes_with_wrong_lengths_are_kept_as_bytes() {
        for (code, data) in [
            (1, &[0, 1, 0][..]),
            (2, &[0]),
            (5, &[0, 1, 0, 1, 0]),
            (9, &[5]),
            (64, &[0]),
            (64, &[0, 0, 0, 1, 1]),
            (69, &[0, 1, 1]),
            (71, &[0, 1, 1, 0]),
            (73, &[3, b'a']),
        ] {
            let capability = Capability::decode(code, data);
            assert_eq!(
                capability,
                Capability::Unknown {
                    code,
                    data: data.to_vec()
                }
            );
        }
    }

    #[test]
    fn long_texts_are_cut_to_what_a_capability_holds() {
        let mut out = Vec::new();
        Capability::Fqdn {
            host: "h".repeat(300),
            domain: "d".repeat(300),
        }
        .encode(&mut out);
        assert_eq!(out.len(), 2 + usize::from(out[1]));
        let Capability::Fqdn { host, domain } = Capability::decode(73, &out[2..]) else {
            panic!("not read back");
        };
        assert_eq!((host.len(), domain.len()), (253, 0));
    }

    #[test]
    fn roles_fit_as_the_table_says() {
        use Role::{Customer, Peer, Provider, RouteServer, RouteServerClient};
        let all = [Provider, RouteServer, RouteServerClient, Customer, Peer];
        let fitting = all
            .iter()
            .flat_map(|a| all.iter().filter(|b| a.fits(**b)))
            .count();
        assert_eq!(fitting, 5);
        assert!(Provider.fits(Customer) && Peer.fits(Peer) && !Customer.fits(Customer));
    }
}
