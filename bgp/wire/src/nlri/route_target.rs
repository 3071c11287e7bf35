// SPDX-License-Identifier: Apache-2.0
//! Route target membership (RFC 4684 §4): which routes of VPNs a speaker wants.

use alloc::vec::Vec;
use core::fmt;

use router_types::{Asn, Safi};

use super::{Nlri, octets};
use crate::community::ExtendedCommunity;

/// Bits of origin AS and route target.
pub(super) const MAX_BITS: u8 = 96;

/// Bits of the origin AS.
const ORIGIN_BITS: u8 = 32;

/// An AS whose members want routes, and the front of the route targets they want.
///
/// Written `65000:rt:65000:100`; with fewer bits of the route target `65000:0x0002fde8/32`; and
/// `default` for the one of no bits, which wants every route.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteTargetPrefix {
    octets: [u8; 12],
    bits: u8,
}

/// A membership as it stands in a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RouteTargetEntry {
    /// Path identifier, where add-path was negotiated.
    pub path_id: Option<u32>,
    /// The membership.
    pub target: RouteTargetPrefix,
}

/// Iterator over the memberships of an [`Nlri`].
#[derive(Clone, Debug)]
pub struct RouteTargetIter<'a> {
    add_path: bool,
    rest: &'a [u8],
}

impl RouteTargetPrefix {
    /// Every route target.
    pub const DEFAULT: RouteTargetPrefix = RouteTargetPrefix {
        octets: [0; 12],
        bits: 0,
    };

    /// One route target, wanted in an AS.
    pub fn new(origin: Asn, target: ExtendedCommunity) -> RouteTargetPrefix {
        let mut octets = [0; 12];
        octets[..4].copy_from_slice(&origin.0.to_be_bytes());
        octets[4..].copy_from_slice(&target.0);
        RouteTargetPrefix {
            octets,
            bits: MAX_BITS,
        }
    }

    /// Out of the significant bits, at most 96; `None` for more, or too few octets for them.
    pub fn from_bits(bits: u8, significant: &[u8]) -> Option<RouteTargetPrefix> {
        if bits > MAX_BITS {
            return None;
        }
        let mut wide = [0u8; 12];
        wide.get_mut(..octets(bits))?
            .copy_from_slice(significant.get(..octets(bits))?);
        if !bits.is_multiple_of(8) {
            wide[octets(bits) - 1] &= u8::MAX << (8 - bits % 8);
        }
        Some(RouteTargetPrefix { octets: wide, bits })
    }

    /// How many bits count, 0 to 96.
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// Origin AS and route target; bits that do not count are 0.
    pub const fn octets(&self) -> [u8; 12] {
        self.octets
    }

    /// Whether it wants every route.
    pub const fn is_default(&self) -> bool {
        self.bits == 0
    }

    /// Whether a route with a route target is wanted. RFC 4684 §4: the origin AS is no prefix, so
    /// that one of 1 to 31 bits means nothing and wants nothing.
    pub fn covers(&self, target: ExtendedCommunity) -> bool {
        if self.bits == 0 {
            return true;
        }
        let Some(bits) = self.bits.checked_sub(ORIGIN_BITS) else {
            return false;
        };
        let [_, _, _, _, front @ ..] = self.octets;
        let mask = u64::MAX.checked_shl(64 - u32::from(bits)).unwrap_or(0);
        (u64::from_be_bytes(front) ^ u64::from_be_bytes(target.0)) & mask == 0
    }

    /// Appends it as it stands in a message, without path identifier.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.bits);
        out.extend_from_slice(&self.octets[..octets(self.bits)]);
    }
}

impl<'a> Nlri<'a> {
    /// The memberships in order; none for another family.
    pub fn route_targets(&self) -> RouteTargetIter<'a> {
        RouteTargetIter {
            add_path: self.add_path,
            rest: if self.family.safi == Safi::ROUTE_TARGET {
                self.bytes
            } else {
                &[]
            },
        }
    }
}

impl Iterator for RouteTargetIter<'_> {
    type Item = RouteTargetEntry;

    fn next(&mut self) -> Option<RouteTargetEntry> {
        let path_id = super::take_path_id(&mut self.rest, self.add_path)?;
        let (&bits, rest) = self.rest.split_first()?;
        let (significant, rest) = rest.split_at_checked(octets(bits))?;
        self.rest = rest;
        Some(RouteTargetEntry {
            path_id,
            target: RouteTargetPrefix::from_bits(bits, significant)?,
        })
    }
}

impl fmt::Display for RouteTargetPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bits == 0 {
            return f.write_str("default");
        }
        let [a, b, c, d, target @ ..] = self.octets;
        let origin = u32::from_be_bytes([a, b, c, d]);
        let Some(bits) = self.bits.checked_sub(ORIGIN_BITS) else {
            return write!(f, "{origin}/{}", self.bits);
        };
        if self.bits == MAX_BITS {
            return write!(f, "{origin}:{}", ExtendedCommunity(target));
        }
        write!(f, "{origin}:0x")?;
        for octet in &target[..octets(bits)] {
            write!(f, "{octet:02x}")?;
        }
        write!(f, "/{bits}")
    }
}

impl fmt::Debug for RouteTargetPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use router_types::Family;

    use super::*;
    use crate::NlriError;

    fn rt(text: &str) -> ExtendedCommunity {
        text.parse().unwrap()
    }

    #[test]
    fn memberships_read_back_and_say_what_they_want() {
        let bytes = [
            0, // Everything.
            96, 0, 0, 0xfd, 0xe9, 0, 2, 0xfd, 0xe8, 0, 0, 0, 100, // One target.
            66, 0, 0, 0xfd, 0xe9, 0, 2, 0xfd, 0xe8, 0xff, // The front of some.
        ];
        let nlri = Nlri::parse(Family::ROUTE_TARGET, false, &bytes).unwrap();
        assert_eq!(nlri.count(), 3);
        let read: Vec<RouteTargetPrefix> = nlri.route_targets().map(|entry| entry.target).collect();
        let texts: Vec<_> = read.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["default", "65001:rt:65000:100", "65001:0x0002fde8c0/34"]
        );
        let covers = |text: &str| {
            let of = |target: &RouteTargetPrefix| target.covers(rt(text));
            read.iter().map(of).collect::<Vec<bool>>()
        };
        assert_eq!(covers("rt:65000:100"), [true, true, false]);
        assert_eq!(covers("rt:65000:101"), [true, false, false]);
        assert_eq!(covers("rt:65000:3221225472"), [true, false, true]);
        let mut out = Vec::new();
        read.iter().for_each(|target| target.encode(&mut out));
        let again = Nlri::parse(Family::ROUTE_TARGET, false, &out).unwrap();
        assert!(again.route_targets().map(|e| e.target).eq(read));
    }

    #[test]
    fn part_of_an_as_number_wants_nothing_and_more_than_96_bits_cannot_be() {
        let nlri = Nlri::parse(Family::ROUTE_TARGET, false, &[16, 0, 0]).unwrap();
        let target = nlri.route_targets().next().unwrap().target;
        assert!(!target.covers(rt("rt:1:1")));
        assert_eq!(target.to_string(), "0/16");
        assert_eq!(
            Nlri::parse(Family::ROUTE_TARGET, false, &[97; 20]).unwrap_err(),
            NlriError::PrefixTooLong { offset: 0, len: 97 }
        );
    }
}
