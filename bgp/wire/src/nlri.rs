// SPDX-License-Identifier: Apache-2.0
//! Prefixes as they stand in messages (RFC 4271 §4.3, RFC 4760 §5, RFC 7911 §3).

use alloc::vec::Vec;
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use router_types::{Afi, Family, Safi};

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
        let max_bits = max_bits(family).ok_or(NlriError::UnknownFamily)?;
        let id_len = if add_path { 4 } else { 0 };
        let (mut offset, mut count) = (0, 0);
        while offset < bytes.len() {
            let Some(&bits) = bytes.get(offset + id_len) else {
                return Err(NlriError::Truncated { offset });
            };
            if bits > max_bits {
                return Err(NlriError::PrefixTooLong { offset, len: bits });
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

    /// The prefixes in order.
    pub const fn iter(&self) -> NlriIter<'a> {
        NlriIter {
            v6: self.family.afi.0 == Afi::IPV6.0,
            add_path: self.add_path,
            rest: self.bytes,
        }
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
        f.debug_list().entries(self.iter()).finish()
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
        let mut path_id = None;
        if self.add_path {
            let (id, rest) = self.rest.split_first_chunk::<4>()?;
            path_id = Some(u32::from_be_bytes(*id));
            self.rest = rest;
        }
        let (&bits, rest) = self.rest.split_first()?;
        let (address, rest) = rest.split_at_checked(octets(bits))?;
        self.rest = rest;
        let prefix = if self.v6 {
            let mut wide = [0u8; 16];
            wide.get_mut(..address.len())?.copy_from_slice(address);
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            let address = Ipv6Addr::from_bits(u128::from_be_bytes(wide) & mask);
            IpNet::V6(Ipv6Net::new(address, bits).ok()?)
        } else {
            let mut wide = [0u8; 4];
            wide.get_mut(..address.len())?.copy_from_slice(address);
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            let address = Ipv4Addr::from_bits(u32::from_be_bytes(wide) & mask);
            IpNet::V4(Ipv4Net::new(address, bits).ok()?)
        };
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
            NlriError::Truncated { offset } => {
                write!(f, "the list ends inside the prefix at octet {offset}")
            }
            NlriError::UnknownFamily => f.write_str("prefixes of this family cannot be read"),
        }
    }
}

impl core::error::Error for NlriError {}

/// Bits of an address, for the families whose NLRI is a plain prefix.
const fn max_bits(family: Family) -> Option<u8> {
    match (family.afi, family.safi) {
        (Afi::IPV4, Safi::UNICAST | Safi::MULTICAST) => Some(32),
        (Afi::IPV6, Safi::UNICAST | Safi::MULTICAST) => Some(128),
        _ => None,
    }
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
