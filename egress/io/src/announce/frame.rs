// SPDX-License-Identifier: Apache-2.0
//! The frames, built and read. Pure functions over bytes.
//!
//! Frames are as short as they can be; drivers pad them to what the medium needs.

use std::net::{Ipv4Addr, Ipv6Addr};

use router_netlink::MacAddress;

use super::{ETHERTYPE_ARP, ETHERTYPE_IPV6};

/// Bytes of an ARP frame without padding: an Ethernet header and RFC 826's packet.
pub const ARP_FRAME: usize = 14 + 28;
/// Bytes of a neighbour advertisement with its option.
pub const ADVERTISEMENT_FRAME: usize = 14 + 40 + 24 + 8;
/// Bytes of a neighbour solicitation without option.
pub const SOLICITATION_FRAME: usize = 14 + 40 + 24;

const BROADCAST: MacAddress = MacAddress([0xff; 6]);
const NO_MAC: MacAddress = MacAddress([0; 6]);

/// Operations of ARP (RFC 826).
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// RFC 4861 §4.3 and §4.4.
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// Flags of an advertisement (RFC 4861 §4.4): a router sends it; it overrides what is known.
const ROUTER_AND_OVERRIDE: u8 = 0x80 | 0x20;

/// An IPv6 packet of neighbour discovery with another hop limit came from beyond the link and does
/// not count (RFC 4861 §7.1).
const HOP_LIMIT: u8 = 255;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// An ARP Announcement (RFC 5227 §3): a broadcast request with the address as sender and target.
#[must_use]
pub fn arp_announcement_request(address: Ipv4Addr, mac: MacAddress) -> [u8; ARP_FRAME] {
    arp(REQUEST, (mac, address), (NO_MAC, address))
}

/// A gratuitous ARP reply: a broadcast reply nobody asked for, the address as sender and target and
/// the hardware address in both places (RFC 5944 §4.6).
#[must_use]
pub fn arp_announcement_reply(address: Ipv4Addr, mac: MacAddress) -> [u8; ARP_FRAME] {
    arp(REPLY, (mac, address), (mac, address))
}

/// An ARP Probe (RFC 5227 §2.1.1): a broadcast request without a sender address, so that nobody
/// learns anything from it.
#[must_use]
pub fn arp_probe(address: Ipv4Addr, mac: MacAddress) -> [u8; ARP_FRAME] {
    arp(REQUEST, (mac, Ipv4Addr::UNSPECIFIED), (NO_MAC, address))
}

/// An unsolicited neighbour advertisement to all nodes (RFC 4861 §7.2.6), with the override flag.
///
/// The router flag is set, as the kernel sets it in its answers on a node that forwards. The source
/// is the address itself, which is one of this node's and there before any link-local address is.
#[must_use]
pub fn neighbour_advertisement(address: Ipv6Addr, mac: MacAddress) -> [u8; ADVERTISEMENT_FRAME] {
    let mut body = [0; 32];
    body[0] = NEIGHBOUR_ADVERTISEMENT;
    body[4] = ROUTER_AND_OVERRIDE;
    body[8..24].copy_from_slice(&address.octets());
    // Target link-layer address, of one unit of eight bytes (RFC 4861 §4.6.1).
    body[24] = 2;
    body[25] = 1;
    body[26..].copy_from_slice(&mac.0);
    icmp6(mac, address, ALL_NODES, body)
}

/// A solicitation as duplicate address detection sends it (RFC 4862 §5.4.2): from the unspecified
/// address and without option, so that nobody learns anything from it.
#[must_use]
pub fn neighbour_probe(address: Ipv6Addr, mac: MacAddress) -> [u8; SOLICITATION_FRAME] {
    let mut body = [0; 24];
    body[0] = NEIGHBOUR_SOLICITATION;
    body[8..].copy_from_slice(&address.octets());
    // The solicited-node address (RFC 4291 §2.7.1).
    let [.., a, b, c] = address.octets();
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(a),
        u16::from_be_bytes([b, c]),
    );
    icmp6(mac, Ipv6Addr::UNSPECIFIED, group, body)
}

/// Who says in an ARP frame, request or reply, that it has the address.
pub(super) fn arp_claim(frame: &[u8], address: Ipv4Addr) -> Option<MacAddress> {
    let packet = packet(frame, ETHERTYPE_ARP)?.first_chunk::<28>()?;
    // Ethernet and IPv4, addresses of six and four bytes.
    if packet[..6] != [0, 1, 8, 0, 6, 4] || packet[14..18] != address.octets() {
        return None;
    }
    Some(MacAddress(packet[8..14].try_into().ok()?))
}

/// Who says in a neighbour advertisement that it has the address: the hardware address of its
/// option, or of its frame where it has none (RFC 4861 §4.4).
pub(super) fn neighbour_claim(frame: &[u8], address: Ipv6Addr) -> Option<MacAddress> {
    let packet = packet(frame, ETHERTYPE_IPV6)?;
    let (header, rest) = packet.split_first_chunk::<40>()?;
    let is_neighbour_discovery = header[6] == 58 && header[7] == HOP_LIMIT;
    let (body, mut options) = rest.split_first_chunk::<24>()?;
    let is_advertisement = body[0] == NEIGHBOUR_ADVERTISEMENT && body[1] == 0;
    if !is_neighbour_discovery || !is_advertisement || body[8..] != address.octets() {
        return None;
    }
    while let [kind, units, ..] = options {
        let length = usize::from(*units) * 8;
        if length == 0 {
            return None;
        }
        if let (2, 8, Some(value)) = (kind, length, options.get(2..8)) {
            return Some(MacAddress(value.try_into().ok()?));
        }
        options = options.get(length..)?;
    }
    Some(MacAddress(frame[6..12].try_into().ok()?))
}

fn packet(frame: &[u8], ethertype: u16) -> Option<&[u8]> {
    let (header, packet) = frame.split_first_chunk::<14>()?;
    (header[12..] == ethertype.to_be_bytes()).then_some(packet)
}

fn arp(
    operation: u16,
    sender: (MacAddress, Ipv4Addr),
    target: (MacAddress, Ipv4Addr),
) -> [u8; ARP_FRAME] {
    let mut frame = [0; ARP_FRAME];
    ethernet(&mut frame, BROADCAST, sender.0, ETHERTYPE_ARP);
    frame[14..20].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame[20..22].copy_from_slice(&operation.to_be_bytes());
    frame[22..28].copy_from_slice(&sender.0.0);
    frame[28..32].copy_from_slice(&sender.1.octets());
    frame[32..38].copy_from_slice(&target.0.0);
    frame[38..42].copy_from_slice(&target.1.octets());
    frame
}

/// A multicast ICMPv6 packet in its frame: `body` with its checksum still zero.
fn icmp6<const BODY: usize, const FRAME: usize>(
    mac: MacAddress,
    source: Ipv6Addr,
    group: Ipv6Addr,
    mut body: [u8; BODY],
) -> [u8; FRAME] {
    const { assert!(FRAME == 14 + 40 + BODY && BODY.is_multiple_of(2)) };
    let sum = checksum(source, group, &body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [0; FRAME];
    // RFC 2464 §7: the last four bytes of the group.
    let [.., a, b, c, d] = group.octets();
    ethernet(
        &mut frame,
        MacAddress([0x33, 0x33, a, b, c, d]),
        mac,
        ETHERTYPE_IPV6,
    );
    frame[14] = 0x60;
    frame[18..20].copy_from_slice(&(BODY as u16).to_be_bytes());
    frame[20] = 58;
    frame[21] = HOP_LIMIT;
    frame[22..38].copy_from_slice(&source.octets());
    frame[38..54].copy_from_slice(&group.octets());
    frame[54..].copy_from_slice(&body);
    frame
}

fn ethernet(frame: &mut [u8], to: MacAddress, from: MacAddress, ethertype: u16) {
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&from.0);
    frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
}

/// The checksum of ICMPv6 over pseudo-header and message (RFC 4443 §2.3, RFC 8200 §8.1).
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, body: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes
            .chunks_exact(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum()
    };
    // At most 16 + 16 + 2 and a few words: no overflow.
    let sum = words(&source.octets())
        + words(&destination.octets())
        + words(body)
        + body.len() as u32
        + 58;
    !bpf_abi::fold_checksum(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x0a]);
    const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3456);

    #[test]
    fn an_arp_announcement_is_a_request_for_what_one_has() {
        assert_eq!(
            arp_announcement_request(V4, MAC),
            [
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0x0a, 8, 6, // Ethernet
                0, 1, 8, 0, 6, 4, 0, 1, // request
                2, 0, 0, 0, 0, 0x0a, 192, 0, 2, 7, // sender
                0, 0, 0, 0, 0, 0, 192, 0, 2, 7, // target
            ]
        );
    }

    #[test]
    fn the_reply_form_has_the_hardware_address_twice() {
        assert_eq!(
            arp_announcement_reply(V4, MAC),
            [
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0x0a, 8, 6, // Ethernet
                0, 1, 8, 0, 6, 4, 0, 2, // reply
                2, 0, 0, 0, 0, 0x0a, 192, 0, 2, 7, // sender
                2, 0, 0, 0, 0, 0x0a, 192, 0, 2, 7, // target
            ]
        );
    }

    #[test]
    fn a_probe_has_no_sender_address() {
        assert_eq!(
            arp_probe(V4, MAC)[14..],
            [
                0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0,
                2, 7
            ]
        );
    }

    #[test]
    fn an_advertisement_overrides_for_all_nodes() {
        assert_eq!(
            neighbour_advertisement(V6, MAC),
            [
                0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x0a, 0x86, 0xdd, // Ethernet
                0x60, 0, 0, 0, 0, 32, 58, 255, // IPv6
                0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56, // source
                0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // destination
                136, 0, 0x10, 0x53, 0xa0, 0, 0, 0, // router, override
                0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56, // target
                2, 1, 2, 0, 0, 0, 0, 0x0a, // its hardware address
            ]
        );
    }

    #[test]
    fn a_solicitation_goes_to_the_group_of_the_address() {
        assert_eq!(
            neighbour_probe(V6, MAC),
            [
                0x33, 0x33, 0xff, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 0x0a, 0x86,
                0xdd, // Ethernet
                0x60, 0, 0, 0, 0, 24, 58, 255, // IPv6
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // source
                0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x12, 0x34,
                0x56, // destination
                135, 0, 0xe4, 0x1e, 0, 0, 0, 0, //
                0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56, // target
            ]
        );
    }

    #[test]
    fn claims_are_read_from_announcements_and_not_from_probes() {
        let others = Ipv4Addr::new(192, 0, 2, 8);
        assert_eq!(arp_claim(&arp_announcement_request(V4, MAC), V4), Some(MAC));
        assert_eq!(arp_claim(&arp_announcement_reply(V4, MAC), V4), Some(MAC));
        assert_eq!(arp_claim(&arp_announcement_reply(others, MAC), V4), None);
        assert_eq!(arp_claim(&arp_probe(V4, MAC), V4), None);
        assert_eq!(
            neighbour_claim(&neighbour_advertisement(V6, MAC), V6),
            Some(MAC)
        );
        assert_eq!(neighbour_claim(&neighbour_probe(V6, MAC), V6), None);
        // From beyond the link.
        let mut far = neighbour_advertisement(V6, MAC);
        far[21] = 254;
        assert_eq!(neighbour_claim(&far, V6), None);
        // Without its option the frame's source counts.
        let bare = &neighbour_advertisement(V6, MAC)[..78];
        assert_eq!(neighbour_claim(bare, V6), Some(MAC));
    }

    #[test]
    fn cut_frames_claim_nothing_and_do_not_panic() {
        let arp = arp_announcement_reply(V4, MAC);
        let advertisement = neighbour_advertisement(V6, MAC);
        for length in 0..arp.len() {
            assert_eq!(arp_claim(&arp[..length], V4), None);
        }
        for length in 0..78 {
            assert_eq!(neighbour_claim(&advertisement[..length], V6), None);
        }
        let mut endless = advertisement;
        endless[79] = 0;
        assert_eq!(neighbour_claim(&endless, V6), None);
    }
}
