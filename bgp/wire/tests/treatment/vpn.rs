// SPDX-License-Identifier: Apache-2.0
//! Routes of VPNs (RFC 4364 §4.3.4, RFC 4659) and memberships (RFC 4684 §4), malformed in every way.

use bgp_wire::{ErrorKind, PeerKind, SessionContext};
use router_types::Family;

use crate::judge::{
    AS_PATH, Accepted, Disabled, GLOBAL, ORIGIN, Outcome, Reset, Withdrawn, attribute, body, judge,
};

const FAMILIES: [Family; 3] = [Family::VPNV4, Family::VPNV6, Family::ROUTE_TARGET];

/// Bits of a label and a route distinguisher.
const FRONT: u8 = 24 + 64;

fn agreed(add_path: bool) -> SessionContext {
    let mut context = SessionContext::plain(PeerKind::Internal, &FAMILIES);
    for family in &mut context.families {
        family.add_path_receive = add_path && family.family != Family::ROUTE_TARGET;
    }
    context
}

fn bits(family: Family) -> (u8, u8) {
    match family {
        Family::VPNV4 => (FRONT, FRONT + 32),
        Family::VPNV6 => (FRONT, FRONT + 128),
        _ => (0, 96),
    }
}

/// A prefix of so many bits, its octets whatever.
fn prefix(family: Family, add_path: bool, bits: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    if add_path && family != Family::ROUTE_TARGET {
        bytes.extend([0, 0, 0, 7]);
    }
    bytes.push(bits);
    bytes.extend(vec![1; usize::from(bits).div_ceil(8)]);
    bytes
}

fn value(family: Family) -> Vec<u8> {
    let mut value = family.afi.0.to_be_bytes().to_vec();
    value.push(family.safi.0);
    value
}

fn reach(family: Family, next_hop: &[u8], nlri: &[u8]) -> Vec<u8> {
    let front = [&value(family)[..], &[next_hop.len() as u8], next_hop, &[0]].concat();
    attribute(0x80, 14, &[&front[..], nlri].concat())
}

fn unreach(family: Family, nlri: &[u8]) -> Vec<u8> {
    attribute(0x80, 15, &[&value(family)[..], nlri].concat())
}

/// A next hop the family takes: a route distinguisher of zeros before the address of VPNs.
fn hop(family: Family) -> Vec<u8> {
    match family {
        Family::VPNV4 => vec![0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1],
        Family::VPNV6 => [&[0; 8][..], &GLOBAL].concat(),
        _ => vec![192, 0, 2, 1],
    }
}

fn announced(family: Family, nlri: &[u8], context: &SessionContext) -> Outcome {
    let mp = reach(family, &hop(family), nlri);
    judge(&body(&[], &[&mp, ORIGIN, AS_PATH], &[]), context).outcome
}

fn withdrawn(family: Family, nlri: &[u8], context: &SessionContext) -> Outcome {
    judge(&body(&[], &[&unreach(family, nlri)], &[]), context).outcome
}

#[test]
fn prefixes_of_every_length() {
    for family in FAMILIES {
        for add_path in [false, true] {
            let context = agreed(add_path);
            let (least, most) = bits(family);
            for len in 0..=255u8 {
                let list = prefix(family, add_path, len);
                let expected = if (least..=most).contains(&len) {
                    Accepted
                } else {
                    Disabled(family)
                };
                let found = announced(family, &list, &context);
                assert_eq!(found, expected, "{family} of {len} bits announced");
                let found = withdrawn(family, &list, &context);
                assert_eq!(found, expected, "{family} of {len} bits withdrawn");
            }
        }
    }
}

#[test]
fn a_list_that_ends_inside_a_prefix_disables_the_family() {
    for family in FAMILIES {
        for add_path in [false, true] {
            let context = agreed(add_path);
            let (_, most) = bits(family);
            let good = prefix(family, add_path, most);
            assert_eq!(announced(family, &good, &context), Accepted);
            for cut in 1..good.len() {
                for list in [good[..cut].to_vec(), [&good[..], &good[..cut]].concat()] {
                    let found = announced(family, &list, &context);
                    assert_eq!(found, Disabled(family), "{family} cut to {cut}");
                    let found = withdrawn(family, &list, &context);
                    assert_eq!(found, Disabled(family), "{family} cut to {cut}");
                }
            }
        }
    }
}

/// RFC 7606 §7.11: a next hop of the wrong length hides where the prefixes begin.
#[test]
fn next_hops_of_every_length() {
    let context = agreed(false);
    for family in FAMILIES {
        let (_, most) = bits(family);
        let nlri = prefix(family, false, most);
        for len in 0..=64usize {
            let mut next_hop = vec![0; 8];
            next_hop.extend([GLOBAL, GLOBAL, GLOBAL, GLOBAL].concat());
            let next_hop = match family {
                Family::ROUTE_TARGET => &[GLOBAL, GLOBAL, GLOBAL, GLOBAL].concat()[..len],
                _ => &next_hop[..len],
            };
            let fits = match family {
                Family::VPNV4 => len == 12,
                // RFC 4659 §3.2.1: one address or two, each behind a route distinguisher.
                Family::VPNV6 => matches!(len, 24 | 48),
                _ => matches!(len, 4 | 16 | 32),
            };
            let mp = reach(family, next_hop, &nlri);
            let found = judge(&body(&[], &[&mp, ORIGIN, AS_PATH], &[]), &context).outcome;
            let expected = if fits { Accepted } else { Disabled(family) };
            assert_eq!(found, expected, "{family} with a next hop of {len}");
        }
        // Zeros are nobody's address.
        let nobody = vec![0; hop(family).len()];
        let mp = reach(family, &nobody, &nlri);
        let found = judge(&body(&[], &[&mp, ORIGIN, AS_PATH], &[]), &context).outcome;
        assert_eq!(found, Withdrawn, "{family} to nobody");
    }
}

#[test]
fn attributes_too_short_and_twice_reset() {
    let context = agreed(false);
    let outcome = |attributes: &[&[u8]]| judge(&body(&[], attributes, &[]), &context).outcome;
    for family in FAMILIES {
        let (_, most) = bits(family);
        let good = reach(family, &hop(family), &prefix(family, false, most));
        let front = 3 + 1 + hop(family).len();
        for len in 0..=front {
            let short = attribute(0x80, 14, &good[3..3 + len]);
            let reset = Reset(ErrorKind::OPTIONAL_ATTRIBUTE);
            assert_eq!(
                outcome(&[&short, ORIGIN, AS_PATH]),
                reset,
                "{family} of {len}"
            );
        }
        let twice = Reset(ErrorKind::MALFORMED_ATTRIBUTE_LIST);
        assert_eq!(outcome(&[&good, ORIGIN, AS_PATH, &good]), twice, "{family}");
        // End-of-RIB.
        assert_eq!(outcome(&[&unreach(family, &[])]), Accepted, "{family}");
    }
}
