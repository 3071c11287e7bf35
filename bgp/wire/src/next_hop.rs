// SPDX-License-Identifier: Apache-2.0
//! Next hops as messages carry them (RFC 4271 §5.1.3, RFC 2545 §3, RFC 4364 §4.3.2, RFC 4659
//! §3.2.1, RFC 8950 §3).

use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use router_types::{Afi, Family, Safi};

/// Octets of a route distinguisher.
const DISTINGUISHER: usize = 8;

/// Where a path leads next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PathNextHop {
    /// NEXT_HOP, or an IPv4 address in MP_REACH_NLRI.
    V4(Ipv4Addr),
    /// One or two IPv6 addresses in MP_REACH_NLRI, for IPv6 prefixes and, where negotiated, for
    /// IPv4 prefixes.
    V6 {
        /// The global address. A speaker without one puts its link-local address here.
        global: Ipv6Addr,
        /// The link-local address, on a shared link.
        link_local: Option<Ipv6Addr>,
    },
}

impl PathNextHop {
    /// The next hop with this address and no other.
    pub const fn from_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => PathNextHop::V4(address),
            IpAddr::V6(global) => PathNextHop::V6 {
                global,
                link_local: None,
            },
        }
    }

    /// The address to judge and to show: the global one.
    pub const fn address(self) -> IpAddr {
        match self {
            PathNextHop::V4(address) => IpAddr::V4(address),
            PathNextHop::V6 { global, .. } => IpAddr::V6(global),
        }
    }

    /// Whether a packet could be sent there at all: no unspecified, loopback, multicast or
    /// reserved address.
    pub fn is_host(self) -> bool {
        match self {
            PathNextHop::V4(a) => {
                let [first, ..] = a.octets();
                !matches!(first, 0 | 127 | 224..)
            }
            PathNextHop::V6 { global: a, .. } => {
                !(a.is_unspecified() || a.is_loopback() || a.is_multicast())
            }
        }
    }

    /// Reads the next hop field of MP_REACH_NLRI for a family. Those of VPN families have a route
    /// distinguisher before each address, which is to be zero and says nothing.
    pub(crate) fn decode_for(family: Family, octets: &[u8]) -> Option<Self> {
        if family.safi != Safi::MPLS_VPN {
            return Self::decode(octets);
        }
        let (_, address) = octets.split_at_checked(DISTINGUISHER)?;
        match address.len() {
            4 | 16 => Self::decode(address),
            40 => {
                let (global, rest) = address.split_at_checked(16)?;
                let (_, link_local) = rest.split_at_checked(DISTINGUISHER)?;
                let mut both = [0u8; 32];
                both[..16].copy_from_slice(global);
                both[16..].copy_from_slice(link_local);
                Self::decode(&both)
            }
            _ => None,
        }
    }

    /// Appends the next hop field of MP_REACH_NLRI for a family.
    pub(crate) fn encode_for(self, family: Family, out: &mut Vec<u8>) {
        if family.safi != Safi::MPLS_VPN {
            return self.encode(out);
        }
        match self {
            PathNextHop::V4(_) => {
                out.extend_from_slice(&[0; DISTINGUISHER]);
                self.encode(out);
            }
            PathNextHop::V6 { global, link_local } => {
                for address in core::iter::once(global).chain(link_local) {
                    out.extend_from_slice(&[0; DISTINGUISHER]);
                    out.extend_from_slice(&address.octets());
                }
            }
        }
    }

    /// Octets [`PathNextHop::encode_for`] appends.
    pub(crate) const fn encoded_len_for(self, family: Family) -> usize {
        let distinguishers = match self {
            _ if family.safi.0 != Safi::MPLS_VPN.0 => 0,
            PathNextHop::V4(_)
            | PathNextHop::V6 {
                link_local: None, ..
            } => 1,
            PathNextHop::V6 {
                link_local: Some(_),
                ..
            } => 2,
        };
        self.encoded_len() + distinguishers * DISTINGUISHER
    }

    /// Whether the prefixes of a family can lead there on a session.
    pub(crate) fn fits(self, family: Family, extended_next_hop: bool) -> bool {
        match (self, family.afi) {
            // RFC 4684 §4: told apart by the length.
            _ if family.safi == Safi::ROUTE_TARGET => true,
            (PathNextHop::V4(_), Afi::IPV4) | (PathNextHop::V6 { .. }, Afi::IPV6) => true,
            (PathNextHop::V6 { .. }, Afi::IPV4) => extended_next_hop,
            _ => false,
        }
    }

    /// Reads a next hop without route distinguisher. A second IPv6 address that is not link-local
    /// is dropped, as speakers without one fill it with zeros.
    pub(crate) fn decode(octets: &[u8]) -> Option<Self> {
        if let Ok(v4) = <[u8; 4]>::try_from(octets) {
            return Some(PathNextHop::V4(v4.into()));
        }
        let (global, rest) = octets.split_first_chunk::<16>()?;
        let link_local = match rest.len() {
            0 => None,
            16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(rest).ok()?)),
            _ => return None,
        };
        let link_local = link_local.filter(Ipv6Addr::is_unicast_link_local);
        Some(PathNextHop::V6 {
            global: Ipv6Addr::from(*global),
            link_local,
        })
    }

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        match self {
            PathNextHop::V4(address) => out.extend_from_slice(&address.octets()),
            PathNextHop::V6 { global, link_local } => {
                out.extend_from_slice(&global.octets());
                if let Some(link_local) = link_local {
                    out.extend_from_slice(&link_local.octets());
                }
            }
        }
    }

    /// Octets in the next hop field.
    pub(crate) const fn encoded_len(self) -> usize {
        match self {
            PathNextHop::V4(_) => 4,
            PathNextHop::V6 {
                link_local: None, ..
            } => 16,
            PathNextHop::V6 {
                link_local: Some(_),
                ..
            } => 32,
        }
    }
}

impl fmt::Display for PathNextHop {
    /// `192.0.2.1`, `2001:db8::1`, `2001:db8::1 fe80::1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address())?;
        match self {
            PathNextHop::V6 {
                link_local: Some(address),
                ..
            } => write!(f, " {address}"),
            PathNextHop::V6 {
                link_local: None, ..
            }
            | PathNextHop::V4(_) => Ok(()),
        }
    }
}
