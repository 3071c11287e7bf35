// SPDX-License-Identifier: Apache-2.0
//! Communities of four octets (RFC 1997).

use core::fmt;
use core::str::FromStr;

use super::CommunityParseError;

/// A community. The high half is by custom the AS that defined the low half; 0 and 65535 in the
/// high half are reserved, the latter for the well-known ones.
///
/// Written `65000:100`, a well-known one by its name; read in either form or as one decimal
/// number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// Stale by graceful shutdown: give it the lowest preference (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Community = Community(0xffff_0000);
    /// RFC 7611.
    pub const ACCEPT_OWN: Community = Community(0xffff_0001);
    /// Kept by long-lived graceful restart (RFC 9494).
    pub const LLGR_STALE: Community = Community(0xffff_0006);
    /// Not to be kept by long-lived graceful restart (RFC 9494).
    pub const NO_LLGR: Community = Community(0xffff_0007);
    /// Drop the traffic (RFC 7999).
    pub const BLACKHOLE: Community = Community(0xffff_029a);
    /// Not to leave the AS or confederation (RFC 1997).
    pub const NO_EXPORT: Community = Community(0xffff_ff01);
    /// Not to be sent to anybody (RFC 1997).
    pub const NO_ADVERTISE: Community = Community(0xffff_ff02);
    /// Not to leave the member AS (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Community = Community(0xffff_ff03);
    /// Not to be sent to peers over bilateral peering (RFC 3765).
    pub const NO_PEER: Community = Community(0xffff_ff04);

    /// The well-known names, as manifests write them.
    pub const WELL_KNOWN: [(&'static str, Community); 14] = [
        ("internet", Community(0)),
        ("planned-shut", Community::GRACEFUL_SHUTDOWN),
        ("accept-own", Community::ACCEPT_OWN),
        ("route-filter-translated-v4", Community(0xffff_0002)),
        ("route-filter-v4", Community(0xffff_0003)),
        ("route-filter-translated-v6", Community(0xffff_0004)),
        ("route-filter-v6", Community(0xffff_0005)),
        ("llgr-stale", Community::LLGR_STALE),
        ("no-llgr", Community::NO_LLGR),
        ("blackhole", Community::BLACKHOLE),
        ("no-export", Community::NO_EXPORT),
        ("no-advertise", Community::NO_ADVERTISE),
        ("no-export-subconfed", Community::NO_EXPORT_SUBCONFED),
        ("no-peer", Community::NO_PEER),
    ];

    /// Made of its halves.
    pub const fn new(high: u16, low: u16) -> Self {
        Community((high as u32) << 16 | low as u32)
    }

    /// The upper 16 bits.
    pub const fn high(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The lower 16 bits.
    pub const fn low(self) -> u16 {
        self.0 as u16
    }

    /// The well-known name, if it has one.
    pub fn name(self) -> Option<&'static str> {
        Self::WELL_KNOWN
            .iter()
            .find(|(_, c)| *c == self)
            .map(|(name, _)| *name)
    }

    /// The community of a well-known name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::WELL_KNOWN
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, c)| *c)
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}:{}", self.high(), self.low()),
        }
    }
}

impl fmt::Debug for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Community {
    type Err = CommunityParseError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let error = CommunityParseError {
            expected: "two numbers 0-65535 such as 65000:100, one number, or a well-known name",
        };
        if let Some(known) = Self::from_name(s) {
            return Ok(known);
        }
        match s.split_once(':') {
            Some((high, low)) => {
                let high = super::decimal(high).ok_or(error)?;
                let low = super::decimal(low).ok_or(error)?;
                Ok(Community::new(
                    u16::try_from(high).map_err(|_| error)?,
                    u16::try_from(low).map_err(|_| error)?,
                ))
            }
            None => super::decimal(s).map(Community).ok_or(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn names_and_numbers_read_back() {
        for (name, community) in Community::WELL_KNOWN {
            assert_eq!(name.parse(), Ok(community));
            assert_eq!(community.to_string(), name);
        }
        assert_eq!("65000:100".parse(), Ok(Community::new(65000, 100)));
        assert_eq!("4259840100".parse(), Ok(Community::new(65000, 100)));
        assert_eq!(Community::new(65000, 100).to_string(), "65000:100");
        assert_eq!("65535:65281".parse(), Ok(Community::NO_EXPORT));
    }

    #[test]
    fn nonsense_is_refused() {
        for s in [
            "",
            ":",
            "1:",
            ":1",
            "65536:1",
            "1:2:3",
            "-1:2",
            "+1:2",
            "No-Export",
            "1 :2",
        ] {
            assert!(s.parse::<Community>().is_err(), "{s}");
        }
    }
}
