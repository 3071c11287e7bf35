// SPDX-License-Identifier: Apache-2.0
//! Patterns over communities: `65000:100`, `65000:*`, `65000:100-199:*`, `rt:65000:*`.

use std::fmt;
use std::net::Ipv4Addr;

use bgp_wire::{Community, ExtendedCommunity, LargeCommunity, PathAttributes};

use super::model::{CommunityKind, NumberRange};

/// Which communities are meant. Every number may be a range (`100-199`) or any (`*`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommunityPattern {
    /// Standard ones, by their halves. A well-known name or a single number means one.
    Standard(NumberRange, NumberRange),
    /// Large ones, by their three numbers.
    Large([NumberRange; 3]),
    /// Route targets or route origins (RFC 4360 §4, §5) of any of the three layouts.
    Extended {
        /// The subtype: 2 for route targets, 3 for route origins.
        subtype: u8,
        /// The AS or the address before the last number.
        administrator: Administrator,
        /// The last number.
        number: NumberRange,
    },
    /// Extended ones by their first octets, up to eight, of any type: `0x4004*`.
    ExtendedOctets(Vec<u8>),
}

/// The part of an extended community that names who gave it its meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Administrator {
    /// Any AS and any address.
    Any,
    /// An AS, in two octets or in four.
    Asns(NumberRange),
    /// An address.
    Address(Ipv4Addr),
}

/// Why a text is no pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a community pattern: expected {expected}")]
pub struct CommunityPatternError {
    expected: &'static str,
}

/// The largest number of 16 bits.
const U16: u32 = u16::MAX as u32;

/// The well-known name of RFC 8326, beside the registry's older one for the same number.
pub(super) const GRACEFUL_SHUTDOWN: &str = "graceful-shutdown";

impl CommunityPattern {
    /// Reads a pattern for communities of a kind.
    ///
    /// # Errors
    /// Says what is expected of a pattern of the kind.
    pub fn parse(kind: CommunityKind, text: &str) -> Result<Self, CommunityPatternError> {
        let (pattern, expected) = match kind {
            CommunityKind::Standard => (
                standard(text),
                "two numbers 0-65535, ranges or `*` such as 65000:100, 65000:100-199 or 65000:*, or a well-known name",
            ),
            CommunityKind::Large => (
                large(text),
                "three numbers 0-4294967295, ranges or `*` such as 65000:1:*",
            ),
            CommunityKind::Extended => (
                extended(text),
                "rt: or soo: with an AS number or IPv4 address and a number, such as rt:65000:100, rt:65000:* or soo:192.0.2.1:7, or the first octets such as 0x4004*",
            ),
        };
        pattern.ok_or(CommunityPatternError { expected })
    }

    /// The kind of communities it is for.
    pub fn kind(&self) -> CommunityKind {
        match self {
            CommunityPattern::Standard(..) => CommunityKind::Standard,
            CommunityPattern::Large(_) => CommunityKind::Large,
            CommunityPattern::Extended { .. } | CommunityPattern::ExtendedOctets(_) => {
                CommunityKind::Extended
            }
        }
    }

    /// Whether a set of attributes has a community of the pattern.
    pub fn is_in(&self, attributes: &PathAttributes) -> bool {
        match self.kind() {
            CommunityKind::Standard => attributes.communities.iter().any(|c| self.matches(*c)),
            CommunityKind::Large => {
                let communities = &attributes.large_communities;
                communities.iter().any(|c| self.matches_large(*c))
            }
            CommunityKind::Extended => {
                let communities = &attributes.extended_communities;
                communities.iter().any(|c| self.matches_extended(*c))
            }
        }
    }

    /// Whether a standard community is meant.
    pub fn matches(&self, community: Community) -> bool {
        match self {
            CommunityPattern::Standard(high, low) => {
                high.contains(community.high().into()) && low.contains(community.low().into())
            }
            _ => false,
        }
    }

    /// Whether a large community is meant.
    pub fn matches_large(&self, community: LargeCommunity) -> bool {
        match self {
            CommunityPattern::Large([global, local_1, local_2]) => {
                global.contains(community.global)
                    && local_1.contains(community.local_1)
                    && local_2.contains(community.local_2)
            }
            _ => false,
        }
    }

    /// Whether an extended community is meant.
    pub fn matches_extended(&self, community: ExtendedCommunity) -> bool {
        let octets = community.0;
        match self {
            CommunityPattern::ExtendedOctets(first) => octets.starts_with(first),
            CommunityPattern::Extended {
                subtype,
                administrator,
                number,
            } => {
                let [layout, sub, a, b, c, d, e, f] = octets;
                if sub != *subtype {
                    return false;
                }
                let (who, what) = match layout {
                    0 => (
                        Ok(u32::from(u16::from_be_bytes([a, b]))),
                        u32::from_be_bytes([c, d, e, f]),
                    ),
                    1 => (
                        Err(Ipv4Addr::new(a, b, c, d)),
                        u16::from_be_bytes([e, f]).into(),
                    ),
                    2 => (
                        Ok(u32::from_be_bytes([a, b, c, d])),
                        u16::from_be_bytes([e, f]).into(),
                    ),
                    _ => return false,
                };
                let is_meant = match (administrator, who) {
                    (Administrator::Any, _) => true,
                    (Administrator::Asns(asns), Ok(asn)) => asns.contains(asn),
                    (Administrator::Address(wanted), Err(address)) => *wanted == address,
                    (Administrator::Asns(_), Err(_)) | (Administrator::Address(_), Ok(_)) => false,
                };
                is_meant && number.contains(what)
            }
            CommunityPattern::Standard(..) | CommunityPattern::Large(_) => false,
        }
    }
}

impl fmt::Display for CommunityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommunityPattern::Standard(high, low) => {
                let one = Community::new(high.min() as u16, low.min() as u16);
                let is_one = high.min() == high.max() && low.min() == low.max();
                if let (true, Some(name)) = (is_one, one.name()) {
                    return f.write_str(name);
                }
                write!(f, "{}:{}", Narrow(*high), Narrow(*low))
            }
            CommunityPattern::Large([a, b, c]) => write!(f, "{a}:{b}:{c}"),
            CommunityPattern::Extended {
                subtype,
                administrator,
                number,
            } => {
                let name = if *subtype == 2 { "rt" } else { "soo" };
                match administrator {
                    Administrator::Any => write!(f, "{name}:*:{number}"),
                    // `*` would mean addresses too.
                    Administrator::Asns(NumberRange::ALL) => {
                        write!(f, "{name}:0-{}:{number}", u32::MAX)
                    }
                    Administrator::Asns(asns) => write!(f, "{name}:{asns}:{number}"),
                    Administrator::Address(address) => write!(f, "{name}:{address}:{number}"),
                }
            }
            CommunityPattern::ExtendedOctets(octets) => {
                f.write_str("0x")?;
                for octet in octets {
                    write!(f, "{octet:02x}")?;
                }
                f.write_str(if octets.len() < 8 { "*" } else { "" })
            }
        }
    }
}

/// A range of 16-bit numbers; all of them are `*`.
struct Narrow(NumberRange);

impl fmt::Display for Narrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if (self.0.min(), self.0.max()) == (0, U16) {
            f.write_str("*")
        } else {
            self.0.fmt(f)
        }
    }
}

fn standard(text: &str) -> Option<CommunityPattern> {
    let known = match text {
        GRACEFUL_SHUTDOWN => Some(Community::GRACEFUL_SHUTDOWN),
        _ => Community::from_name(text),
    };
    let known = known.or_else(|| number(text).map(Community));
    if let Some(community) = known {
        return Some(CommunityPattern::Standard(
            NumberRange::only(community.high().into()),
            NumberRange::only(community.low().into()),
        ));
    }
    let (high, low) = text.split_once(':')?;
    Some(CommunityPattern::Standard(
        range(high, U16)?,
        range(low, U16)?,
    ))
}

fn large(text: &str) -> Option<CommunityPattern> {
    let mut parts = text.split(':').map(|part| range(part, u32::MAX));
    let mut next = || parts.next().flatten();
    let ranges = [next()?, next()?, next()?];
    if parts.next().is_some() {
        return None;
    }
    Some(CommunityPattern::Large(ranges))
}

fn extended(text: &str) -> Option<CommunityPattern> {
    if let Some(digits) = text.strip_prefix("0x") {
        let (digits, is_whole) = match digits.strip_suffix('*') {
            Some(digits) => (digits, false),
            None => (digits, true),
        };
        let count = digits.len() / 2;
        if digits.len() % 2 != 0 || count > 8 || (count < 8) == is_whole {
            return None;
        }
        let octet = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair).ok()?;
            let is_hex = pair.bytes().all(|b| b.is_ascii_hexdigit());
            is_hex.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
        };
        let octets: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(octet).collect();
        return octets.map(CommunityPattern::ExtendedOctets);
    }
    let (name, rest) = text.split_once(':')?;
    let subtype = match name {
        "rt" => 2,
        "soo" => 3,
        _ => return None,
    };
    let (administrator, number) = rest.split_once(':')?;
    let administrator = match administrator {
        "*" => Administrator::Any,
        text => match text.parse() {
            Ok(address) => Administrator::Address(address),
            Err(_) => Administrator::Asns(range(text, u32::MAX)?),
        },
    };
    Some(CommunityPattern::Extended {
        subtype,
        administrator,
        number: range(number, u32::MAX)?,
    })
}

/// `*`, a number, or two with a `-` between; none above `most`.
fn range(text: &str, most: u32) -> Option<NumberRange> {
    let (min, max) = match text.split_once('-') {
        _ if text == "*" => (0, most),
        Some((min, max)) => (number(min)?, number(max)?),
        None => (number(text)?, number(text)?),
    };
    NumberRange::new(min, max).filter(|range| range.max() <= most)
}

/// Digits only: `u32::from_str` would take a sign.
fn number(text: &str) -> Option<u32> {
    let is_decimal = text.bytes().all(|b| b.is_ascii_digit());
    is_decimal.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(kind: CommunityKind, text: &str) -> CommunityPattern {
        CommunityPattern::parse(kind, text).unwrap()
    }

    #[test]
    fn patterns_are_shown_as_they_are_read() {
        for (kind, text) in [
            (CommunityKind::Standard, "65000:100"),
            (CommunityKind::Standard, "65000:100-199"),
            (CommunityKind::Standard, "*:666"),
            (CommunityKind::Standard, "*:*"),
            (CommunityKind::Large, "4200000001:*:1-2"),
            (CommunityKind::Extended, "rt:65000:*"),
            (CommunityKind::Extended, "soo:192.0.2.1:7"),
            (CommunityKind::Extended, "rt:*:*"),
            (CommunityKind::Extended, "rt:0-4294967295:1"),
            (CommunityKind::Extended, "0x4004*"),
            (CommunityKind::Extended, "0x030b000000000064"),
        ] {
            let read = pattern(kind, text);
            assert_eq!(read.to_string(), text);
            assert_eq!(read.kind(), kind);
        }
        let named = pattern(CommunityKind::Standard, "no-export");
        assert!(named.matches(Community::NO_EXPORT));
        assert_eq!(named.to_string(), "no-export");
        let named = pattern(CommunityKind::Standard, "graceful-shutdown");
        assert_eq!(named, pattern(CommunityKind::Standard, "65535:0"));
        assert_eq!(named.to_string(), "planned-shut");
    }

    #[test]
    fn nonsense_is_refused() {
        for (kind, text) in [
            (CommunityKind::Standard, ""),
            (CommunityKind::Standard, "65536:1"),
            (CommunityKind::Standard, "1:2:3"),
            (CommunityKind::Standard, "1:9-3"),
            (CommunityKind::Standard, "1:+3"),
            (CommunityKind::Standard, "1:*-3"),
            (CommunityKind::Large, "1:2"),
            (CommunityKind::Large, "1:2:3:4"),
            (CommunityKind::Large, "1:2:4294967296"),
            (CommunityKind::Extended, "rt:1"),
            (CommunityKind::Extended, "xx:1:2"),
            (CommunityKind::Extended, "0x4*"),
            (CommunityKind::Extended, "0x4004"),
            (CommunityKind::Extended, "0x+1*"),
            (CommunityKind::Extended, "0x030b000000000064*"),
            (CommunityKind::Extended, "0xäö*"),
        ] {
            assert!(CommunityPattern::parse(kind, text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_as_number_means_both_layouts_and_no_address() {
        let target = pattern(CommunityKind::Extended, "rt:5:100");
        for text in ["rt:5:100", "rt:5L:100"] {
            assert!(target.matches_extended(text.parse().unwrap()), "{text}");
        }
        for text in ["rt:0.0.0.5:100", "soo:5:100", "rt:5:101", "rt:6:100"] {
            assert!(!target.matches_extended(text.parse().unwrap()), "{text}");
        }
        let bandwidth = pattern(CommunityKind::Extended, "0x4004*");
        assert!(bandwidth.matches_extended(ExtendedCommunity([0x40, 4, 1, 2, 3, 4, 5, 6])));
        assert!(!bandwidth.matches_extended(ExtendedCommunity([0, 4, 1, 2, 3, 4, 5, 6])));
    }
}
