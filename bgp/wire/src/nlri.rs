// SPDX-License-Identifier: Apache-2.0
//! Prefixes as they stand in messages (RFC 4271 §4.3, RFC 4760 §5, RFC 7911 §3).
//!
//! An [`Nlri`] of any family that is read has one of three layouts: plain prefixes
//! ([`Nlri::iter`]), prefixes of VPNs ([`Nlri::vpn`]) and memberships ([`Nlri::route_targets`]).

use alloc::vec::Vec;
use core::fmt;

use ipnet::IpNet;
use router_types::{Afi, Family, Safi};

mod destination;
mod route_target;
mod vpn;

pub use destination::Destination;
pub use route_target::{RouteTargetEntry, RouteTargetIter, RouteTargetPrefix};
pub use vpn::{
    Label, RouteDistinguisher, RouteDistinguisherParseError, VpnEntry, VpnIter, VpnPrefix,
};

/// A checked list of prefixes inside a received message.
///
/// Made by [`Nlri::parse`], which walks the list once; iterating then cannot fail and does not
/// allocate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Nlri<'a> {
    family: Family,
    add_path: bool,
    bytes: &'a [u8],
    count: usize,
}

/// A prefix, with the identifier that tells several paths for it apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NlriEntry {
    /// Path identifier, where add-path was negotiated.
    pub path_id: Option<u32>,
    /// The prefix, host bits zero.
    pub prefix: IpNet,
}

/// Why a list of prefixes cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NlriError {
    /// A prefix is longer than the family's addresses.
    PrefixTooLong {
        /// Where it stands in the list.
        offset: usize,
        /// Its length in bits.
        len: u8,
    },
    /// A prefix has no room for its label and route distinguisher.
    PrefixTooShort {
        /// Where it stands in the list.
        offset: usize,
        /// Its length in bits.
        len: u8,
    },
    /// The list ends inside a prefix or path identifier.
    Truncated {
        /// Where the prefix starts in the list.
        offset: usize,
    },
    /// The family is none whose prefixes this crate reads.
    UnknownFamily,
}

impl<'a> Nlri<'a> {
    /// Walks `bytes` and checks that it is a whole number of prefixes of the family.
    ///
    /// # Errors
    ///
    /// Says where and how the list is broken. RFC 7606 §5.3: what was to be read is then unknown
    /// and the session or family cannot go on.
    pub fn parse(family: Family, add_path: bool, bytes: &'a [u8]) -> Result<Self, NlriError> {
        let (min_bits, max_bits) = bounds(family).ok_or(NlriError::UnknownFamily)?;
        let id_len = if add_path { 4 } else { 0 };
        let (mut offset, mut count) = (0, 0);
        while offset < bytes.len() {
            let Some(&bits) = bytes.get(offset + id_len) else {
                return Err(NlriError::Truncated { offset });
            };
            if bits > max_bits {
                return Err(NlriError::PrefixTooLong { offset, len: bits });
            }
            if bits < min_bits {
                return Err(NlriError::PrefixTooShort { offset, len: bits });
            }
            let next = offset + id_len + 1 + octets(bits);
            if next > bytes.len() {
                return Err(NlriError::Truncated { offset });
            }
            offset = next;
            count += 1;
        }
        Ok(Nlri {
            family,
            add_path,
            bytes,
            count,
        })
    }

    /// No prefixes.
    pub const fn empty(family: Family) -> Self {
        Nlri {
            family,
            add_path: false,
            bytes: &[],
            count: 0,
        }
    }

    /// The family of the prefixes.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Number of prefixes.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes as received, to hand on without decoding; [`Nlri::parse`] with the same family
    /// and [`Nlri::has_path_ids`] reads them again.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether the prefixes carry path identifiers.
    pub const fn has_path_ids(&self) -> bool {
        self.add_path
    }

    /// As many prefixes from the front as take no more than so many octets, and the others.
    pub fn split_at_octets(&self, most: usize) -> (Nlri<'a>, Nlri<'a>) {
        let id_len = if self.add_path { 4 } else { 0 };
        let (mut end, mut count) = (0, 0);
        while let Some(&bits) = self.bytes.get(end + id_len) {
            let next = end + id_len + 1 + octets(bits);
            if next > most {
                break;
            }
            end = next;
            count += 1;
        }
        // The list was checked: no prefix goes beyond its end.
        let (front, rest) = self.bytes.split_at(end.min(self.bytes.len()));
        let part = |bytes, count| Nlri {
            bytes,
            count,
            ..*self
        };
        (part(front, count), part(rest, self.count - count))
    }

    /// The prefixes in order; none for a family whose destinations are more than prefixes, which
    /// [`Nlri::vpn`] and [`Nlri::route_targets`] read.
    pub const fn iter(&self) -> NlriIter<'a> {
        NlriIter {
            v6: self.is_v6(),
            add_path: self.add_path,
            rest: match self.family.safi {
                Safi::UNICAST | Safi::MULTICAST => self.bytes,
                _ => &[],
            },
        }
    }

    const fn is_v6(&self) -> bool {
        self.family.afi.0 == Afi::IPV6.0
    }
}

impl<'a> IntoIterator for Nlri<'a> {
    type Item = NlriEntry;
    type IntoIter = NlriIter<'a>;

    fn into_iter(self) -> NlriIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Nlri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.destinations()).finish()
    }
}

/// Iterator over the prefixes of an [`Nlri`].
#[derive(Clone, Debug)]
pub struct NlriIter<'a> {
    v6: bool,
    add_path: bool,
    rest: &'a [u8],
}

impl Iterator for NlriIter<'_> {
    type Item = NlriEntry;

    #[inline]
    fn next(&mut self) -> Option<NlriEntry> {
        let path_id = take_path_id(&mut self.rest, self.add_path)?;
        let (&bits, rest) = self.rest.split_first()?;
        let (address, rest) = rest.split_at_checked(octets(bits))?;
        self.rest = rest;
        let prefix = vpn::prefix(self.v6, bits, address)?;
        Some(NlriEntry { path_id, prefix })
    }
}

impl NlriEntry {
    /// A prefix without path identifier.
    pub fn new(prefix: impl Into<IpNet>) -> Self {
        NlriEntry {
            path_id: None,
            prefix: prefix.into(),
        }
    }

    /// Octets it takes in a message.
    pub fn encoded_len(&self, add_path: bool) -> usize {
        1 + octets(self.prefix.prefix_len()) + if add_path { 4 } else { 0 }
    }

    /// Appends it; with `add_path`, a missing identifier is written as 0.
    #[inline]
    pub fn encode(&self, add_path: bool, out: &mut Vec<u8>) {
        if add_path {
            out.extend_from_slice(&self.path_id.unwrap_or(0).to_be_bytes());
        }
        let bits = self.prefix.prefix_len();
        out.push(bits);
        match self.prefix {
            IpNet::V4(net) => {
                out.extend_from_slice(&net.network().octets()[..octets(bits)]);
            }
            IpNet::V6(net) => {
                out.extend_from_slice(&net.network().octets()[..octets(bits)]);
            }
        }
    }
}

impl fmt::Display for NlriEntry {
    /// `10.0.0.0/8`, with a path identifier `10.0.0.0/8 path 7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.prefix)?;
        match self.path_id {
            Some(id) => write!(f, " path {id}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for NlriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NlriError::PrefixTooLong { offset, len } => {
                write!(
                    f,
                    "prefix length {len} at octet {offset} exceeds the address"
                )
            }
            NlriError::PrefixTooShort { offset, len } => write!(
                f,
                "prefix length {len} at octet {offset} has no room for label and distinguisher"
            ),
            NlriError::Truncated { offset } => {
                write!(f, "the list ends inside the prefix at octet {offset}")
            }
            NlriError::UnknownFamily => f.write_str("prefixes of this family cannot be read"),
        }
    }
}

impl core::error::Error for NlriError {}

/// The least and the greatest length octet of a destination, for the families that are read.
const fn bounds(family: Family) -> Option<(u8, u8)> {
    match (family.afi, family.safi) {
        (Afi::IPV4, Safi::UNICAST | Safi::MULTICAST) => Some((0, 32)),
        (Afi::IPV6, Safi::UNICAST | Safi::MULTICAST) => Some((0, 128)),
        (Afi::IPV4, Safi::MPLS_VPN) => Some((vpn::FRONT_BITS, vpn::FRONT_BITS + 32)),
        (Afi::IPV6, Safi::MPLS_VPN) => Some((vpn::FRONT_BITS, vpn::FRONT_BITS + 128)),
        (Afi::IPV4, Safi::ROUTE_TARGET) => Some((0, route_target::MAX_BITS)),
        _ => None,
    }
}

/// Takes the path identifier off the front, where there are any. `None` at the end of the list.
#[inline]
#[expect(
    clippy::option_option,
    reason = "the end of the list, and a list without identifiers"
)]
fn take_path_id(rest: &mut &[u8], add_path: bool) -> Option<Option<u32>> {
    if !add_path {
        return Some(None);
    }
    let (id, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(Some(u32::from_be_bytes(*id)))
}

const fn octets(bits: u8) -> usize {
    (bits as usize).div_ceil(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(nlri: Nlri<'_>) -> Vec<alloc::string::String> {
        nlri.iter().map(|entry| alloc::format!("{entry}")).collect()
    }

    #[test]
    fn host_bits_are_cleared_and_every_length_is_read() {
        let bytes = [0, 9, 10, 255, 32, 10, 0, 0, 1];
        let nlri = Nlri::parse(Family::IPV4_UNICAST, false, &bytes).unwrap();
        assert_eq!(texts(nlri), ["0.0.0.0/0", "10.128.0.0/9", "10.0.0.1/32"]);
        assert_eq!(nlri.count(), 3);
        let nlri =
            Nlri::parse(Family::IPV6_UNICAST, true, &[0, 0, 0, 7, 19, 0x20, 1, 0xff]).unwrap();
        assert_eq!(texts(nlri), ["2001:e000::/19 path 7"]);
    }

    #[test]
    fn broken_lists_say_where() {
        let parse = |bytes| Nlri::parse(Family::IPV4_UNICAST, false, bytes).unwrap_err();
        assert_eq!(
            parse(&[8, 10, 33, 0]),
            NlriError::PrefixTooLong { offset: 2, len: 33 }
        );
        assert_eq!(
            parse(&[8, 10, 24, 1, 2]),
            NlriError::Truncated { offset: 2 }
        );
        let with_ids = Nlri::parse(Family::IPV4_UNICAST, true, &[0, 0, 0, 1]);
        assert_eq!(with_ids.unwrap_err(), NlriError::Truncated { offset: 0 });
        let evpn = Family {
            afi: Afi(25),
            safi: Safi(70),
        };
        assert_eq!(
            Nlri::parse(evpn, false, &[]).unwrap_err(),
            NlriError::UnknownFamily
        );
    }
}
