// SPDX-License-Identifier: Apache-2.0
//! Routes of VPNs: a label, a route distinguisher and a prefix (RFC 4364 §4.3.4, RFC 4659 §3.2,
//! RFC 8277 §2.2).

use alloc::vec::Vec;
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Nlri, octets};

/// Bits of label and route distinguisher, which the length octet counts with the prefix's.
pub(super) const FRONT_BITS: u8 = 24 + 64;

/// Octets of label and route distinguisher.
const FRONT: usize = 3 + 8;

/// An MPLS label: 20 bits. Traffic class and bottom-of-stack bit are not part of it (RFC 8277
/// §2.2: the former is ignored, and a sole label is the bottom whatever the latter says).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Label(u32);

/// What makes equal prefixes of several VPNs different (RFC 4364 §4.2).
///
/// Written `65000:100`, `192.0.2.1:100` or, with a number of four octets, `4200000001:1` (`5L:1`
/// where it would fit two); any other type as 16 hexadecimal digits after `0x`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteDistinguisher(pub [u8; 8]);

/// A text that is no [`RouteDistinguisher`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteDistinguisherParseError;

/// A prefix of a VPN.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VpnPrefix {
    /// Whose it is.
    pub rd: RouteDistinguisher,
    /// The prefix, host bits zero.
    pub prefix: IpNet,
}

/// A prefix of a VPN as it stands in a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VpnEntry {
    /// Path identifier, where add-path was negotiated.
    pub path_id: Option<u32>,
    /// The label. In a withdrawal it says nothing (RFC 8277 §2.4).
    pub label: Label,
    /// The destination.
    pub destination: VpnPrefix,
}

/// Iterator over the prefixes of an [`Nlri`] of a VPN family.
#[derive(Clone, Debug)]
pub struct VpnIter<'a> {
    pub(super) v6: bool,
    pub(super) add_path: bool,
    pub(super) rest: &'a [u8],
}

impl Label {
    /// The label of these 20 bits; higher ones are dropped.
    pub const fn new(value: u32) -> Label {
        Label(value & 0xf_ffff)
    }

    /// Its value, below 2^20.
    pub const fn value(self) -> u32 {
        self.0
    }

    /// What stands in place of a label in withdrawals (RFC 8277 §2.4).
    pub const WITHDRAWN: [u8; 3] = [0x80, 0, 0];

    /// The label in three octets as they stand in NLRI.
    pub const fn from_octets([a, b, c]: [u8; 3]) -> Label {
        Label((a as u32) << 12 | (b as u32) << 4 | (c as u32) >> 4)
    }

    /// Three octets: the label, traffic class 0, bottom of stack.
    pub const fn octets(self) -> [u8; 3] {
        let [_, a, b, c] = (self.0 << 4 | 1).to_be_bytes();
        [a, b, c]
    }
}

impl VpnEntry {
    /// Octets it takes in a message.
    pub fn encoded_len(&self, add_path: bool) -> usize {
        let bits = self.destination.prefix.prefix_len();
        1 + FRONT + octets(bits) + if add_path { 4 } else { 0 }
    }

    /// Appends it as it is announced; with `add_path`, a missing identifier is written as 0.
    pub fn encode(&self, add_path: bool, out: &mut Vec<u8>) {
        self.put(self.label.octets(), add_path, out);
    }

    /// Appends it as it is withdrawn.
    pub fn encode_withdrawn(&self, add_path: bool, out: &mut Vec<u8>) {
        self.put(Label::WITHDRAWN, add_path, out);
    }

    fn put(&self, label: [u8; 3], add_path: bool, out: &mut Vec<u8>) {
        if add_path {
            out.extend_from_slice(&self.path_id.unwrap_or(0).to_be_bytes());
        }
        let prefix = self.destination.prefix;
        let bits = prefix.prefix_len();
        out.push(FRONT_BITS + bits);
        out.extend_from_slice(&label);
        out.extend_from_slice(&self.destination.rd.0);
        match prefix {
            IpNet::V4(net) => out.extend_from_slice(&net.network().octets()[..octets(bits)]),
            IpNet::V6(net) => out.extend_from_slice(&net.network().octets()[..octets(bits)]),
        }
    }
}

impl Iterator for VpnIter<'_> {
    type Item = VpnEntry;

    #[inline]
    fn next(&mut self) -> Option<VpnEntry> {
        let path_id = super::take_path_id(&mut self.rest, self.add_path)?;
        let (&bits, rest) = self.rest.split_first()?;
        let bits = bits.checked_sub(FRONT_BITS)?;
        let (front, rest) = rest.split_first_chunk::<FRONT>()?;
        let (address, rest) = rest.split_at_checked(octets(bits))?;
        self.rest = rest;
        let [a, b, c, rd @ ..] = *front;
        Some(VpnEntry {
            path_id,
            label: Label::from_octets([a, b, c]),
            destination: VpnPrefix {
                rd: RouteDistinguisher(rd),
                prefix: prefix(self.v6, bits, address)?,
            },
        })
    }
}

impl<'a> Nlri<'a> {
    /// The prefixes of a VPN family in order; none for another family.
    pub fn vpn(&self) -> VpnIter<'a> {
        VpnIter {
            v6: self.is_v6(),
            add_path: self.add_path,
            rest: if self.family.safi == router_types::Safi::MPLS_VPN {
                self.bytes
            } else {
                &[]
            },
        }
    }
}

/// A prefix out of its significant octets, host bits cleared.
#[inline]
pub(super) fn prefix(v6: bool, bits: u8, address: &[u8]) -> Option<IpNet> {
    Some(if v6 {
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
    })
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for RouteDistinguisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [high, low, a, b, c, d, e, g] = self.0;
        let asn = u32::from_be_bytes([a, b, c, d]);
        let number = u16::from_be_bytes([e, g]);
        match u16::from_be_bytes([high, low]) {
            0 => write!(
                f,
                "{}:{}",
                u16::from_be_bytes([a, b]),
                u32::from_be_bytes([c, d, e, g])
            ),
            1 => write!(f, "{}:{number}", Ipv4Addr::new(a, b, c, d)),
            2 if asn <= 0xffff => write!(f, "{asn}L:{number}"),
            2 => write!(f, "{asn}:{number}"),
            _ => write!(f, "0x{:016x}", u64::from_be_bytes(self.0)),
        }
    }
}

impl fmt::Debug for RouteDistinguisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RouteDistinguisher {
    type Err = RouteDistinguisherParseError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        parse(s).ok_or(RouteDistinguisherParseError)
    }
}

fn parse(s: &str) -> Option<RouteDistinguisher> {
    if let Some(hex) = s.strip_prefix("0x") {
        let digits = hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        let value = digits
            .then(|| u64::from_str_radix(hex, 16).ok())
            .flatten()?;
        return Some(RouteDistinguisher(value.to_be_bytes()));
    }
    let decimal = |text: &str| -> Option<u32> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    let (administrator, number) = s.split_once(':')?;
    let number = decimal(number)?;
    let mut rd = [0u8; 8];
    if let Ok(address) = administrator.parse::<Ipv4Addr>() {
        rd[1] = 1;
        rd[2..6].copy_from_slice(&address.octets());
        rd[6..].copy_from_slice(&u16::try_from(number).ok()?.to_be_bytes());
        return Some(RouteDistinguisher(rd));
    }
    let wide = administrator.strip_suffix('L');
    let asn = decimal(wide.unwrap_or(administrator))?;
    match u16::try_from(asn) {
        Ok(asn) if wide.is_none() => {
            rd[2..4].copy_from_slice(&asn.to_be_bytes());
            rd[4..].copy_from_slice(&number.to_be_bytes());
        }
        _ => {
            rd[1] = 2;
            rd[2..6].copy_from_slice(&asn.to_be_bytes());
            rd[6..].copy_from_slice(&u16::try_from(number).ok()?.to_be_bytes());
        }
    }
    Some(RouteDistinguisher(rd))
}

impl fmt::Display for RouteDistinguisherParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected 65000:100, 192.0.2.1:100, or 0x and 16 hexadecimal digits")
    }
}

impl core::error::Error for RouteDistinguisherParseError {}

impl fmt::Display for VpnPrefix {
    /// `65000:100:10.0.0.0/8`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.rd, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use router_types::Family;

    use super::*;
    use crate::NlriError;

    fn entry(rd: &str, prefix: &str, label: u32) -> VpnEntry {
        VpnEntry {
            path_id: None,
            label: Label::new(label),
            destination: VpnPrefix {
                rd: rd.parse().unwrap(),
                prefix: prefix.parse().unwrap(),
            },
        }
    }

    #[test]
    fn entries_are_what_the_rfcs_draw() {
        let mut out = Vec::new();
        entry("65000:100", "10.1.0.0/16", 16).encode(false, &mut out);
        assert_eq!(
            out,
            [104, 0, 1, 1, 0, 0, 0xfd, 0xe8, 0, 0, 0, 100, 10, 1],
            "length, label with the bottom of the stack, distinguisher, prefix"
        );
        let nlri = Nlri::parse(Family::VPNV4, false, &out).unwrap();
        let read: Vec<VpnEntry> = nlri.vpn().collect();
        assert_eq!(read, [entry("65000:100", "10.1.0.0/16", 16)]);
        out.clear();
        entry("192.0.2.1:7", "2001:db8::/32", 0xf_ffff).encode_withdrawn(true, &mut out);
        assert_eq!(out[..8], [0, 0, 0, 0, 120, 0x80, 0, 0]);
        let nlri = Nlri::parse(Family::VPNV6, true, &out).unwrap();
        let read = nlri.vpn().next().unwrap();
        assert_eq!(read.path_id, Some(0));
        assert_eq!(read.destination.to_string(), "192.0.2.1:7:2001:db8::/32");
    }

    #[test]
    fn host_bits_traffic_class_and_the_stack_bit_do_not_matter() {
        let bytes = [88 + 9, 0, 1, 0x0e, 0, 0, 0, 1, 0, 0, 0, 2, 10, 255];
        let nlri = Nlri::parse(Family::VPNV4, false, &bytes).unwrap();
        let read = nlri.vpn().next().unwrap();
        assert_eq!(read, entry("1:2", "10.128.0.0/9", 16));
    }

    #[test]
    fn broken_lists_say_where() {
        let parse = |bytes| Nlri::parse(Family::VPNV4, false, bytes).unwrap_err();
        let short = NlriError::PrefixTooShort { offset: 0, len: 87 };
        assert_eq!(parse(&[87; 12]), short);
        let long = NlriError::PrefixTooLong {
            offset: 0,
            len: 121,
        };
        assert_eq!(parse(&[121; 17]), long);
        assert_eq!(parse(&[112; 14]), NlriError::Truncated { offset: 0 });
    }

    #[test]
    fn distinguishers_of_every_type_read_back() {
        for (text, octets) in [
            ("65000:100", [0, 0, 0xfd, 0xe8, 0, 0, 0, 100]),
            ("192.0.2.1:7", [0, 1, 192, 0, 2, 1, 0, 7]),
            ("4200000001:1", [0, 2, 0xfa, 0x56, 0xea, 0x01, 0, 1]),
            ("5L:1", [0, 2, 0, 0, 0, 5, 0, 1]),
            ("0xffff000000000064", [0xff, 0xff, 0, 0, 0, 0, 0, 100]),
        ] {
            assert_eq!(text.parse(), Ok(RouteDistinguisher(octets)), "{text}");
            assert_eq!(RouteDistinguisher(octets).to_string(), text);
        }
        for text in ["", "1", "1:", "1:2:3", "4200000001:65536", "0x1"] {
            assert!(text.parse::<RouteDistinguisher>().is_err(), "{text}");
        }
    }
}
