// SPDX-License-Identifier: Apache-2.0
//! Extended communities (RFC 4360, RFC 5668, RFC 7153).

use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;

use super::CommunityParseError;

/// A community of eight octets: a type, mostly with a subtype, and a value.
///
/// Route targets and route origins are written `rt:65000:100`, `rt:192.0.2.1:100`,
/// `soo:4200000001:1`; every other as 16 hexadecimal digits after `0x`. Both forms are read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub [u8; 8]);

const ROUTE_TARGET: u8 = 2;
const ROUTE_ORIGIN: u8 = 3;

impl ExtendedCommunity {
    /// Whether it stays inside the AS (RFC 4360 §2: T bit set).
    pub const fn is_non_transitive(self) -> bool {
        self.0[0] & 0x40 != 0
    }

    /// Type, with the authority and transitivity bits.
    pub const fn kind(self) -> u8 {
        self.0[0]
    }

    /// Second octet, the subtype of most types.
    pub const fn subkind(self) -> u8 {
        self.0[1]
    }

    /// Whether it is a route target of any of the three layouts (RFC 4360 §4).
    pub const fn is_route_target(self) -> bool {
        self.0[0] <= 2 && self.0[1] == ROUTE_TARGET
    }

    /// The link bandwidth in bytes per second (draft-ietf-idr-link-bandwidth), if that is what it
    /// is.
    pub fn link_bandwidth(self) -> Option<f32> {
        let [0x00 | 0x40, 4, _, _, a, b, c, d] = self.0 else {
            return None;
        };
        Some(f32::from_be_bytes([a, b, c, d]))
    }
}

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, subkind, a, b, c, d, e, g] = self.0;
        let name = match subkind {
            ROUTE_TARGET => "rt",
            ROUTE_ORIGIN => "soo",
            _ => "",
        };
        match kind {
            0 if !name.is_empty() => write!(
                f,
                "{name}:{}:{}",
                u16::from_be_bytes([a, b]),
                u32::from_be_bytes([c, d, e, g])
            ),
            1 if !name.is_empty() => {
                write!(
                    f,
                    "{name}:{}:{}",
                    Ipv4Addr::new(a, b, c, d),
                    u16::from_be_bytes([e, g])
                )
            }
            // The `L` tells a four-octet AS number that would fit two from a two-octet one.
            2 if !name.is_empty() => {
                let asn = u32::from_be_bytes([a, b, c, d]);
                let mark = if asn <= 0xffff { "L" } else { "" };
                write!(f, "{name}:{asn}{mark}:{}", u16::from_be_bytes([e, g]))
            }
            _ => write!(f, "0x{:016x}", u64::from_be_bytes(self.0)),
        }
    }
}

impl fmt::Debug for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ExtendedCommunity {
    type Err = CommunityParseError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        parse(s).ok_or(CommunityParseError {
            expected: "rt:65000:100, soo:65000:100, an IPv4 address in place of the AS number, or 0x and 16 hexadecimal digits",
        })
    }
}

fn parse(s: &str) -> Option<ExtendedCommunity> {
    if let Some(hex) = s.strip_prefix("0x") {
        let digits = hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        let value = digits
            .then(|| u64::from_str_radix(hex, 16).ok())
            .flatten()?;
        return Some(ExtendedCommunity(value.to_be_bytes()));
    }
    let (name, rest) = s.split_once(':')?;
    let subkind = match name {
        "rt" => ROUTE_TARGET,
        "soo" => ROUTE_ORIGIN,
        _ => return None,
    };
    let (administrator, number) = rest.split_once(':')?;
    let number = super::decimal(number)?;
    let mut octets = [0, subkind, 0, 0, 0, 0, 0, 0];
    if let Ok(address) = administrator.parse::<Ipv4Addr>() {
        octets[0] = 1;
        octets[2..6].copy_from_slice(&address.octets());
        octets[6..].copy_from_slice(&u16::try_from(number).ok()?.to_be_bytes());
        return Some(ExtendedCommunity(octets));
    }
    let wide = administrator.strip_suffix('L');
    let asn = super::decimal(wide.unwrap_or(administrator))?;
    match u16::try_from(asn) {
        Ok(asn) if wide.is_none() => {
            octets[2..4].copy_from_slice(&asn.to_be_bytes());
            octets[4..].copy_from_slice(&number.to_be_bytes());
        }
        _ => {
            octets[0] = 2;
            octets[2..6].copy_from_slice(&asn.to_be_bytes());
            octets[6..].copy_from_slice(&u16::try_from(number).ok()?.to_be_bytes());
        }
    }
    Some(ExtendedCommunity(octets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn known_layouts_read_back() {
        for (text, octets) in [
            ("rt:65000:100", [0, 2, 0xfd, 0xe8, 0, 0, 0, 100]),
            ("soo:192.0.2.1:7", [1, 3, 192, 0, 2, 1, 0, 7]),
            ("rt:4200000001:1", [2, 2, 0xfa, 0x56, 0xea, 0x01, 0, 1]),
            ("rt:5L:1", [2, 2, 0, 0, 0, 5, 0, 1]),
            ("0x030b000000000064", [3, 11, 0, 0, 0, 0, 0, 100]),
        ] {
            assert_eq!(text.parse(), Ok(ExtendedCommunity(octets)), "{text}");
            assert_eq!(ExtendedCommunity(octets).to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for s in [
            "",
            "rt:1",
            "rt:1:2:3",
            "xx:1:2",
            "rt:4200000001:65536",
            "0x12",
            "0x+12345678901234",
        ] {
            assert!(s.parse::<ExtendedCommunity>().is_err(), "{s}");
        }
    }
}
