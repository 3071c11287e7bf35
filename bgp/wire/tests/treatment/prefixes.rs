// SPDX-License-Identifier: Apache-2.0
//! Every list of prefixes, malformed in every way: the two fields of IPv4, MP_REACH_NLRI and
//! MP_UNREACH_NLRI of each family, with and without path identifiers.

use bgp_wire::{ErrorKind, PeerKind, SessionContext};
use router_types::{Afi, Family, Safi};

use crate::judge::{
    AS_PATH, Accepted, Disabled, Discarded, GLOBAL, NEXT_HOP, ORIGIN, Outcome, Reset, Withdrawn,
    attribute, body, context, judge,
};

const V4: Family = Family::IPV4_UNICAST;
const V6: Family = Family::IPV6_UNICAST;

/// A prefix list that cannot be read, with path identifiers where they were agreed.
fn unreadable(family: Family, add_path: bool) -> Vec<Vec<u8>> {
    let id: &[u8] = if add_path { &[0, 0, 0, 7] } else { &[] };
    let longest = if family == V4 { 32u8 } else { 128 };
    let with = |rest: &[u8]| [id, rest].concat();
    let mut lists = vec![
        with(&[longest + 1, 1, 2, 3, 4, 5]),
        with(&[[longest + 1].as_slice(), &[0; 17]].concat()),
        with(&[[255].as_slice(), &[0; 32]].concat()),
        with(&[8]),
        with(&[24, 10, 0]),
        with(&[longest]),
        // A good one first.
        [with(&[8, 10]), with(&[16, 10])].concat(),
        [with(&[0]), with(&[255])].concat(),
    ];
    if add_path {
        // The list ends in an identifier, or after it.
        lists.extend([vec![0], vec![0, 0, 0], vec![0, 0, 0, 7]]);
        lists.push([with(&[8, 10]), vec![0, 0]].concat());
    }
    lists
}

/// Lists that can be read, however odd, and how many prefixes they have.
fn readable(add_path: bool) -> Vec<(Vec<u8>, usize)> {
    let id: &[u8] = if add_path { &[0, 0, 0, 7] } else { &[] };
    let with = |rest: &[u8]| [id, rest].concat();
    vec![
        (with(&[0]), 1),
        // RFC 4271 §4.3: "the value of trailing bits is irrelevant".
        (with(&[9, 10, 0xff]), 1),
        (with(&[1, 0xff]), 1),
        // Said twice in a message.
        ([with(&[8, 10]), with(&[8, 10])].concat(), 2),
        (with(&[32, 10, 0, 0, 1]), 1),
    ]
}

fn agreed(add_path: bool) -> SessionContext {
    let mut context = context(PeerKind::External);
    for family in &mut context.families {
        family.add_path_receive = add_path;
    }
    context
}

fn reach(family: Family, next_hop: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut value = family.afi.0.to_be_bytes().to_vec();
    value.push(family.safi.0);
    value.push(next_hop.len() as u8);
    value.extend_from_slice(next_hop);
    value.push(0);
    value.extend_from_slice(nlri);
    attribute(0x80, 14, &value)
}

fn unreach(family: Family, nlri: &[u8]) -> Vec<u8> {
    let mut value = family.afi.0.to_be_bytes().to_vec();
    value.push(family.safi.0);
    value.extend_from_slice(nlri);
    attribute(0x80, 15, &value)
}

fn hop(family: Family) -> &'static [u8] {
    if family == V4 {
        &[192, 0, 2, 1]
    } else {
        &GLOBAL
    }
}

fn outcome(attributes: &[&[u8]], context: &SessionContext) -> Outcome {
    judge(&body(&[], attributes, &[]), context).outcome
}

#[test]
fn the_fields_of_ipv4_reset() {
    for add_path in [false, true] {
        let context = agreed(add_path);
        for list in unreadable(V4, add_path) {
            let reset = Reset(ErrorKind::INVALID_NETWORK_FIELD);
            let announced = body(&[], &[ORIGIN, AS_PATH, NEXT_HOP], &list);
            assert_eq!(judge(&announced, &context).outcome, reset, "{list:?}");
            let withdrawn = body(&list, &[], &[]);
            assert_eq!(judge(&withdrawn, &context).outcome, reset, "{list:?}");
            // Whatever else is in the message.
            let both = body(&list, &[ORIGIN, AS_PATH, NEXT_HOP], &list);
            assert_eq!(judge(&both, &context).outcome, reset, "{list:?}");
        }
        for (list, count) in readable(add_path) {
            let announced = body(&[], &[ORIGIN, AS_PATH, NEXT_HOP], &list);
            let judged = judge(&announced, &context);
            assert_eq!((judged.outcome, judged.announced), (Accepted, count));
            let withdrawn = judge(&body(&list, &[], &[]), &context);
            assert_eq!(withdrawn.outcome, Accepted, "{list:?}");
        }
    }
}

#[test]
fn multiprotocol_lists_disable_their_family() {
    for family in [V4, V6] {
        for add_path in [false, true] {
            let context = agreed(add_path);
            for list in unreadable(family, add_path) {
                let mp = reach(family, hop(family), &list);
                let found = outcome(&[&mp, ORIGIN, AS_PATH], &context);
                assert_eq!(found, Disabled(family), "{family} {list:?}");
                let found = outcome(&[&unreach(family, &list)], &context);
                assert_eq!(found, Disabled(family), "{family} {list:?}");
            }
            for (list, count) in readable(add_path) {
                let mp = reach(family, hop(family), &list);
                let whole = body(&[], &[&mp, ORIGIN, AS_PATH], &[]);
                let judged = judge(&whole, &context);
                assert_eq!((judged.outcome, judged.announced), (Accepted, count));
                let found = outcome(&[&unreach(family, &list)], &context);
                assert_eq!(found, Accepted, "{family} {list:?}");
            }
        }
    }
}

#[test]
fn next_hops_of_every_length_and_kind() {
    let context = agreed(false);
    let mut shared = agreed(false);
    shared.families[0].extended_next_hop = true;
    for len in 0..=64usize {
        let next_hop = [GLOBAL, GLOBAL, GLOBAL, GLOBAL].concat();
        let next_hop = &next_hop[..len];
        let v6 = reach(V6, next_hop, &[8, 0x20]);
        // RFC 2545 §3: one address or two.
        let expected = match len {
            16 | 32 => Accepted,
            _ => Disabled(V6),
        };
        assert_eq!(
            outcome(&[&v6, ORIGIN, AS_PATH], &context),
            expected,
            "{len}"
        );
        // RFC 8950 §4: of IPv4 as well, where it was agreed.
        let v4 = reach(V4, next_hop, &[8, 10]);
        let expected = match len {
            4 => Accepted,
            _ => Disabled(V4),
        };
        assert_eq!(
            outcome(&[&v4, ORIGIN, AS_PATH], &context),
            expected,
            "{len}"
        );
        let expected = match len {
            4 | 16 | 32 => Accepted,
            _ => Disabled(V4),
        };
        assert_eq!(outcome(&[&v4, ORIGIN, AS_PATH], &shared), expected, "{len}");
    }
    let nobody: [[u8; 16]; 4] = [
        [0; 16],
        std::net::Ipv6Addr::LOCALHOST.octets(),
        [0xff; 16],
        "ff02::1".parse::<std::net::Ipv6Addr>().unwrap().octets(),
    ];
    for address in nobody {
        let mp = reach(V6, &address, &[8, 0x20]);
        assert_eq!(outcome(&[&mp, ORIGIN, AS_PATH], &context), Withdrawn);
    }
}

#[test]
fn multiprotocol_attributes_too_short_for_a_family_reset() {
    let context = agreed(false);
    let reset = Reset(ErrorKind::OPTIONAL_ATTRIBUTE);
    let good = reach(V6, &GLOBAL, &[8, 0x20]);
    // Everything before the prefixes: family, next hop, the reserved octet.
    for len in 0..(good.len() - 3 - 2) {
        let short = attribute(0x80, 14, &good[3..3 + len]);
        let found = outcome(&[&short, ORIGIN, AS_PATH], &context);
        assert_eq!(found, reset, "MP_REACH_NLRI of {len}");
    }
    for len in 0..3 {
        let short = attribute(0x80, 15, &[0, 2, 1][..len]);
        let found = outcome(&[&short], &context);
        assert_eq!(found, reset, "MP_UNREACH_NLRI of {len}");
    }
    // The next hop's own length runs over the attribute.
    let mut over = good.clone();
    over[6] = 200;
    assert_eq!(outcome(&[&over, ORIGIN, AS_PATH], &context), reset);
    // RFC 7606 §3 j: without MP_UNREACH_NLRI nothing but the end; with the family, End-of-RIB.
    assert_eq!(outcome(&[&unreach(V6, &[])], &context), Accepted);
}

#[test]
fn twice_the_same_multiprotocol_attribute_resets() {
    let context = agreed(false);
    let twice = Reset(ErrorKind::MALFORMED_ATTRIBUTE_LIST);
    let good = reach(V6, &GLOBAL, &[8, 0x20]);
    let found = outcome(&[&good, ORIGIN, AS_PATH, &good], &context);
    assert_eq!(found, twice, "MP_REACH_NLRI");
    let other = reach(V4, &[192, 0, 2, 1], &[8, 10]);
    let found = outcome(&[&good, &other, ORIGIN, AS_PATH], &context);
    assert_eq!(found, twice, "MP_REACH_NLRI of another family");
    let gone = unreach(V6, &[8, 0x20]);
    assert_eq!(outcome(&[&gone, &gone], &context), twice, "MP_UNREACH_NLRI");
    // One of each is a good message.
    let found = outcome(&[&gone, &good, ORIGIN, AS_PATH], &context);
    assert_eq!(found, Accepted);
}

#[test]
fn families_nobody_agreed_on_are_passed_over_whatever_they_say() {
    let context = agreed(false);
    let strangers = [
        (1, 2),   // IPv4 multicast
        (1, 4),   // labelled IPv4
        (1, 128), // VPNv4
        (1, 132), // route target constraints
        (1, 133), // flow specifications
        (2, 133),
        (25, 65),    // VPLS
        (25, 70),    // EVPN
        (16388, 71), // BGP-LS
        (0, 0),
        (0, 1),
        (1, 0),
        (65535, 255),
    ];
    for (afi, safi) in strangers {
        let family = Family {
            afi: Afi(afi),
            safi: Safi(safi),
        };
        for nlri in [&[][..], &[0], &[0xff; 40], &[240, 1], &[32, 1, 2, 3, 4]] {
            for next_hop in [&[][..], &[0; 4], &[0; 12], &GLOBAL, &[0; 24], &[0; 48]] {
                let mp = reach(family, next_hop, nlri);
                let found = outcome(&[&mp, ORIGIN, AS_PATH], &context);
                assert_eq!(found, Discarded, "{afi}/{safi} {next_hop:?} {nlri:?}");
            }
            let found = outcome(&[&unreach(family, nlri)], &context);
            assert_eq!(found, Discarded, "{afi}/{safi} {nlri:?}");
        }
        // Beside prefixes that were agreed on, which are taken.
        let mp = reach(family, &[0; 4], &[0xff; 9]);
        let whole = body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &mp], &[8, 10]);
        let judged = judge(&whole, &context);
        assert_eq!((judged.outcome, judged.announced), (Discarded, 1));
    }
}

/// RFC 7606 §5.2: an error in a message that announces nothing may have cost announcements.
#[test]
fn errors_in_messages_without_announcements_reset() {
    let context = agreed(false);
    let reset = Reset(ErrorKind::MALFORMED_ATTRIBUTE_LIST);
    let bad: [&[u8]; 4] = [
        &[0xc0, 8, 3, 1, 2, 3],
        &[0x40, 1, 1, 9],
        &[0x40, 1, 32, 0],
        &[0x80, 4, 0],
    ];
    for attribute in bad {
        assert_eq!(outcome(&[attribute], &context), reset, "{attribute:?}");
        let withdraws = body(&[8, 10], &[AS_PATH, attribute], &[]);
        assert_eq!(judge(&withdraws, &context).outcome, reset);
    }
}
