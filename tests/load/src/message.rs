// SPDX-License-Identifier: Apache-2.0
//! The messages a generator sends, as bytes made beforehand (RFC 4271 §4).

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use crate::table::{Attributes, Family, Key, Table};

/// OPEN.
pub const OPEN: u8 = 1;
/// UPDATE.
pub const UPDATE: u8 = 2;
/// NOTIFICATION.
pub const NOTIFICATION: u8 = 3;
/// KEEPALIVE.
pub const KEEPALIVE: u8 = 4;
/// Octets of the header.
pub const HEADER: usize = 19;
/// The most octets of a message.
pub const LONGEST: usize = 4096;

/// A message of a type with a body.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + body.len());
    append(&mut message, kind, body);
    message
}

fn append(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    let length = HEADER + body.len();
    assert!(length <= LONGEST, "a message of {length} octets");
    out.extend([0xff; 16]);
    out.extend((length as u16).to_be_bytes());
    out.push(kind);
    out.extend(body);
}

/// An OPEN with four-octet AS numbers (RFC 6793), route refresh (RFC 2918) and one family.
pub fn open(asn: u32, hold_s: u16, identifier: Ipv4Addr, family: Family) -> Vec<u8> {
    let (afi, safi) = family.numbers();
    let mut capabilities = vec![1, 4];
    capabilities.extend(afi.to_be_bytes());
    capabilities.extend([0, safi, 2, 0, 65, 4]);
    capabilities.extend(asn.to_be_bytes());
    let mut body = vec![4];
    body.extend(u16::try_from(asn).unwrap_or(23456).to_be_bytes());
    body.extend(hold_s.to_be_bytes());
    body.extend(identifier.octets());
    let length = capabilities.len() as u8;
    body.extend([length + 2, 2, length]);
    body.extend(capabilities);
    message(OPEN, &body)
}

/// End-of-RIB (RFC 4724 §2).
pub fn end_of_rib(family: Family) -> Vec<u8> {
    let (afi, safi) = family.numbers();
    match family {
        Family::Ipv4 => message(UPDATE, &[0; 4]),
        Family::Ipv6 | Family::Vpnv4 => {
            let [high, low] = afi.to_be_bytes();
            message(UPDATE, &[0, 0, 0, 6, 0x80, 15, 3, high, low, safi])
        }
    }
}

/// Who announces.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The AS in front of the path.
    pub asn: u32,
    /// The next hop, of the family.
    pub next_hop: IpAddr,
}

/// The UPDATEs of some sets of a table, as few as the length of a message allows.
pub fn updates(table: &Table, sets: Range<usize>, origin: Origin) -> Vec<u8> {
    let mut out = Vec::new();
    for set in &table.sets[sets] {
        let mut keys = &table.prefixes[set.prefixes.clone()];
        while !keys.is_empty() {
            let taken = update(&mut out, table.family, keys, &set.attributes, origin);
            keys = &keys[taken..];
        }
    }
    out
}

/// Appends one UPDATE with the first of the prefixes, as many as it holds; returns how many.
pub fn update(
    out: &mut Vec<u8>,
    family: Family,
    keys: &[Key],
    attributes: &Attributes,
    origin: Origin,
) -> usize {
    let common = common(attributes, origin, family);
    let mut nlri = Vec::new();
    let mut taken = 0;
    // Of MP_REACH_NLRI, what is not NLRI has at most 4 + 5 + 24 + 1 octets.
    let room = LONGEST - HEADER - 4 - common.len() - 40;
    for key in keys {
        let before = nlri.len();
        prefix(&mut nlri, family, *key);
        if nlri.len() > room {
            nlri.truncate(before);
            break;
        }
        taken += 1;
    }
    let mut list = Vec::new();
    if family != Family::Ipv4 {
        let (afi, safi) = family.numbers();
        let mut value = Vec::from(afi.to_be_bytes());
        value.push(safi);
        match (family, origin.next_hop) {
            (Family::Vpnv4, IpAddr::V4(address)) => {
                value.push(12);
                value.extend([0; 8]);
                value.extend(address.octets());
            }
            (_, IpAddr::V4(address)) => {
                value.push(16);
                value.extend(address.to_ipv6_mapped().octets());
            }
            (_, IpAddr::V6(address)) => {
                value.push(16);
                value.extend(address.octets());
            }
        }
        value.push(0);
        value.append(&mut nlri);
        list.extend([0x90, 14]);
        list.extend((value.len() as u16).to_be_bytes());
        list.append(&mut value);
    }
    list.extend(common);
    let mut body = vec![0, 0];
    body.extend((list.len() as u16).to_be_bytes());
    body.append(&mut list);
    body.append(&mut nlri);
    append(out, UPDATE, &body);
    taken
}

/// The path attributes but MP_REACH_NLRI, by ascending type.
fn common(attributes: &Attributes, origin: Origin, family: Family) -> Vec<u8> {
    let mut list = vec![0x40, 1, 1, attributes.origin];
    let hops = attributes.tail.len() as u8 + 1;
    list.extend([0x40, 2, 2 + 4 * hops, 2, hops]);
    list.extend(origin.asn.to_be_bytes());
    for hop in &attributes.tail {
        list.extend(hop.to_be_bytes());
    }
    if family == Family::Ipv4
        && let IpAddr::V4(next_hop) = origin.next_hop
    {
        list.extend([0x40, 3, 4]);
        list.extend(next_hop.octets());
    }
    if !attributes.communities.is_empty() {
        list.extend([0xc0, 8, 4 * attributes.communities.len() as u8]);
        let octets = attributes.communities.iter().flat_map(|c| c.to_be_bytes());
        list.extend(octets);
    }
    if !attributes.extended.is_empty() {
        list.extend([0xc0, 16, 8 * attributes.extended.len() as u8]);
        let octets = attributes.extended.iter().flat_map(|c| c.to_be_bytes());
        list.extend(octets);
    }
    if !attributes.large.is_empty() {
        list.extend([0xc0, 32, 12 * attributes.large.len() as u8]);
        let octets = attributes.large.iter().flatten();
        list.extend(octets.flat_map(|part| part.to_be_bytes()));
    }
    list
}

/// One prefix as NLRI.
fn prefix(out: &mut Vec<u8>, family: Family, key: Key) {
    let length = (key & 0xff) as u8;
    let octets = usize::from(length.div_ceil(8));
    match family {
        Family::Ipv4 => {
            out.push(length);
            out.extend(&((key >> 8) as u32).to_be_bytes()[..octets]);
        }
        Family::Ipv6 => {
            out.push(length);
            out.extend(&(key << 8).to_be_bytes()[..octets]);
        }
        Family::Vpnv4 => {
            let distinguisher = (key >> 40) as u32;
            out.push(length + 88);
            // The label, with the bottom of its stack (RFC 8277 §2.2), and RD type 0.
            let label = (16 + distinguisher) << 4 | 1;
            out.extend(&label.to_be_bytes()[1..]);
            out.extend([0, 0, 0xfb, 0xf0]);
            out.extend(distinguisher.to_be_bytes());
            out.extend(&((key >> 8) as u32).to_be_bytes()[..octets]);
        }
    }
}
