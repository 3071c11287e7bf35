// SPDX-License-Identifier: Apache-2.0
//! Large communities (RFC 8092).

use core::fmt;
use core::str::FromStr;

use super::CommunityParseError;

/// A community with room for a four-octet AS number, written `4200000001:1:2`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// The AS whose meaning applies.
    pub global: u32,
    /// First part of that AS's value.
    pub local_1: u32,
    /// Second part.
    pub local_2: u32,
}

impl LargeCommunity {
    /// Made of its three numbers.
    pub const fn new(global: u32, local_1: u32, local_2: u32) -> Self {
        LargeCommunity {
            global,
            local_1,
            local_2,
        }
    }

    /// From its octets.
    pub fn from_octets(octets: [u8; 12]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = octets;
        LargeCommunity {
            global: u32::from_be_bytes([a, b, c, d]),
            local_1: u32::from_be_bytes([e, f, g, h]),
            local_2: u32::from_be_bytes([i, j, k, l]),
        }
    }

    /// Its octets.
    pub fn octets(self) -> [u8; 12] {
        let mut octets = [0; 12];
        octets[..4].copy_from_slice(&self.global.to_be_bytes());
        octets[4..8].copy_from_slice(&self.local_1.to_be_bytes());
        octets[8..].copy_from_slice(&self.local_2.to_be_bytes());
        octets
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local_1, self.local_2)
    }
}

impl fmt::Debug for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LargeCommunity {
    type Err = CommunityParseError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let error = CommunityParseError {
            expected: "three numbers 0-4294967295 such as 65000:1:2",
        };
        let mut parts = s.split(':').map(super::decimal);
        let mut next = || parts.next().flatten().ok_or(error);
        let community = LargeCommunity::new(next()?, next()?, next()?);
        if parts.next().is_some() {
            Err(error)
        } else {
            Ok(community)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn text_and_octets_read_back() {
        let community = LargeCommunity::new(4_200_000_001, 7, u32::MAX);
        assert_eq!(community.to_string().parse(), Ok(community));
        assert_eq!(LargeCommunity::from_octets(community.octets()), community);
        for s in ["", "1:2", "1:2:3:4", "1:2:4294967296", "1:2:x", "1:+2:3"] {
            assert!(s.parse::<LargeCommunity>().is_err(), "{s}");
        }
    }
}
