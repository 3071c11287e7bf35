// SPDX-License-Identifier: Apache-2.0
//! UDP datagrams with their IP headers, as they are on a link: no clock, no socket.
//!
//! Echo packets are addressed to who sends them (RFC 5881 §4), so no ordinary socket can send ours,
//! and the kernel keeps them from an ordinary socket when they are back: their source address is
//! one of its own. [`parse`] takes any bytes and never panics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest that is encoded: more than any echo packet that is known of.
pub(crate) const MAX: usize = 1500;

const UDP: u8 = 17;
const HEADER_V4: usize = 20;
const HEADER_V6: usize = 40;
const HEADER_UDP: usize = 8;

/// CS6, as for control packets.
const TRAFFIC_CLASS: u8 = 0xc0;

/// A datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Datagram<'a> {
    /// Of the family of `destination`.
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// TTL or hop limit.
    pub(crate) ttl: u8,
    pub(crate) payload: &'a [u8],
}

/// Takes an IP packet apart; `None` for what is no whole, plain UDP datagram: fragments, IPv4
/// headers with a wrong checksum, and IPv6 with extension headers are none.
pub(crate) fn parse(bytes: &[u8]) -> Option<Datagram<'_>> {
    match bytes.first()? >> 4 {
        4 => parse_v4(bytes),
        6 => parse_v6(bytes),
        _ => None,
    }
}

fn parse_v4(bytes: &[u8]) -> Option<Datagram<'_>> {
    let header_length = usize::from(bytes[0] & 0x0f) * 4;
    let header = bytes.get(..header_length)?;
    if header_length < HEADER_V4 || header[9] != UDP || sum([header]) != 0xffff {
        return None;
    }
    let is_fragment = word(header, 6)? & 0x3fff != 0;
    let total = usize::from(word(header, 2)?);
    if is_fragment || total < header_length {
        return None;
    }
    let address = |at: usize| Some(Ipv4Addr::from(*header.get(at..)?.first_chunk::<4>()?));
    let udp = bytes.get(header_length..total)?;
    udp_part(udp, address(12)?.into(), address(16)?.into(), header[8])
}

fn parse_v6(bytes: &[u8]) -> Option<Datagram<'_>> {
    let header = bytes.get(..HEADER_V6)?;
    if header[6] != UDP {
        return None;
    }
    let length = usize::from(word(header, 4)?);
    let address = |at: usize| Some(Ipv6Addr::from(*header.get(at..)?.first_chunk::<16>()?));
    let udp = bytes.get(HEADER_V6..HEADER_V6 + length)?;
    udp_part(udp, address(8)?.into(), address(24)?.into(), header[7])
}

fn udp_part(udp: &[u8], source: IpAddr, destination: IpAddr, ttl: u8) -> Option<Datagram<'_>> {
    Some(Datagram {
        source,
        destination,
        source_port: word(udp, 0)?,
        destination_port: word(udp, 2)?,
        ttl,
        payload: udp.get(HEADER_UDP..usize::from(word(udp, 4)?))?,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Datagram<'_> {
    /// The IP packet; `None` for addresses of two families, and a payload that makes it longer than
    /// [`MAX`].
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let udp_length = HEADER_UDP + self.payload.len();
        let (mut bytes, header, pseudo) = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total = u16::try_from(HEADER_V4 + udp_length).ok()?;
                let mut ip = vec![0x45, TRAFFIC_CLASS];
                ip.extend(total.to_be_bytes());
                // Identification 0 with "do not fragment": RFC 6864 §4.1.
                ip.extend([0, 0, 0x40, 0, self.ttl, UDP, 0, 0]);
                ip.extend(source.octets());
                ip.extend(destination.octets());
                let checksum = !sum([&ip[..]]);
                ip[10..12].copy_from_slice(&checksum.to_be_bytes());
                (ip, HEADER_V4, 12)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let length = u16::try_from(udp_length).ok()?;
                let mut ip = vec![0x60 | TRAFFIC_CLASS >> 4, TRAFFIC_CLASS << 4, 0, 0];
                ip.extend(length.to_be_bytes());
                ip.extend([UDP, self.ttl]);
                ip.extend(source.octets());
                ip.extend(destination.octets());
                (ip, HEADER_V6, 8)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        if header + udp_length > MAX {
            return None;
        }
        bytes.extend(self.source_port.to_be_bytes());
        bytes.extend(self.destination_port.to_be_bytes());
        bytes.extend((udp_length as u16).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.payload);
        // The pseudo header (RFC 768, RFC 8200 §8.1): addresses, protocol, length.
        let rest = (u32::from(UDP) + udp_length as u32).to_be_bytes();
        let checksum = match !sum([&bytes[pseudo..], &rest]) {
            0 => 0xffff, // 0 would say that there is none
            checksum => checksum,
        };
        bytes[header + 6..header + 8].copy_from_slice(&checksum.to_be_bytes());
        Some(bytes)
    }
}

/// The one's complement sum (RFC 1071); each part but the last is of an even length.
fn sum<const N: usize>(parts: [&[u8]; N]) -> u16 {
    let pairs = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = pairs
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram<'a>(source: &str, destination: &str, payload: &'a [u8]) -> Datagram<'a> {
        Datagram {
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
            source_port: 49152,
            destination_port: 3785,
            ttl: 255,
            payload,
        }
    }

    #[test]
    fn what_is_made_is_read_again() {
        for payload in [&b""[..], b"x", b"even", b"odd bytes"] {
            for (source, destination) in [
                ("192.0.2.1", "192.0.2.1"),
                ("198.51.100.7", "192.0.2.1"),
                ("fe80::1", "fe80::1"),
                ("2001:db8::1", "fe80::2"),
            ] {
                let sent = datagram(source, destination, payload);
                let bytes = sent.encode().expect("one family");
                assert_eq!(parse(&bytes), Some(sent));
                // The padding of short frames is not part of it.
                let padded = [&bytes[..], &[0; 9]].concat();
                assert_eq!(parse(&padded), Some(sent));
            }
        }
        assert_eq!(datagram("192.0.2.1", "fe80::1", b"").encode(), None);
        assert_eq!(datagram("fe80::1", "fe80::1", &[0; MAX]).encode(), None);
    }

    #[test]
    fn the_headers_have_the_layout_of_the_rfcs() {
        // Checksums by another program.
        let bytes = datagram("10.0.0.1", "10.0.0.2", b"hi")
            .encode()
            .expect("one family");
        let expected = [
            0x45, 0xc0, 0x00, 0x1e, 0x00, 0x00, 0x40, 0x00, 0xff, 0x11, 0x67, 0x0c, 10, 0, 0, 1,
            10, 0, 0, 2, 0xc0, 0x00, 0x0e, 0xc9, 0x00, 0x0a, 0xb4, 0xa4, b'h', b'i',
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn damaged_and_other_packets_are_none() {
        let good = datagram("192.0.2.1", "192.0.2.1", b"payload")
            .encode()
            .expect("one family");
        for length in 0..good.len() {
            assert_eq!(parse(&good[..length]), None, "{length} octets");
        }
        for (at, octet) in [
            (0, 0x44),
            (0, 0x15),
            (6, 0x20),
            (7, 1),
            (9, 6),
            (8, 1),
            (2, 0xff),
        ] {
            let mut bytes = good.clone();
            bytes[at] = octet;
            assert_eq!(parse(&bytes), None, "octet {at} is {octet}");
        }
        let good = datagram("fe80::1", "fe80::1", b"payload")
            .encode()
            .expect("one family");
        for length in 0..good.len() {
            assert_eq!(parse(&good[..length]), None, "{length} octets");
        }
        let mut bytes = good;
        bytes[6] = 44;
        assert_eq!(parse(&bytes), None, "a fragment");
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        let mut random: u32 = 7;
        for length in 0..200 {
            for version in [0x45, 0x4f, 0x60, 0x00] {
                let mut bytes: Vec<u8> = (0..length)
                    .map(|_| {
                        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (random >> 24) as u8
                    })
                    .collect();
                if let Some(first) = bytes.first_mut() {
                    *first = version;
                }
                for next in [6, 9] {
                    if let Some(octet) = bytes.get_mut(next) {
                        *octet = UDP;
                    }
                }
                parse(&bytes);
            }
        }
    }
}
