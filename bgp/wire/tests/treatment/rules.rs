// SPDX-License-Identifier: Apache-2.0
//! RFC 7606, rule by rule: which error gets which treatment, and what survives it.

use bgp_wire::{AsSetPolicy, AttributeCode, ErrorKind, FamilyContext, Fault, PeerKind, Treatment};
use router_types::{Asn, Family};

use crate::judge::{
    AS_PATH, Accepted, Disabled, Discarded, GLOBAL, NEXT_HOP, ORIGIN, Outcome, PREFIX, Reset,
    Withdrawn, attribute, body, context, judge, mp_reach, with_attribute,
};

#[test]
fn a_plain_route_is_accepted() {
    for peer in [
        PeerKind::External,
        PeerKind::Internal,
        PeerKind::Confederation,
    ] {
        let judged = with_attribute(peer, &[]);
        assert_eq!((judged.outcome, judged.announced), (Accepted, 1));
    }
}

/// Code, proper flags, a good value, bad values, and what a bad length or value and a bad flag
/// lead to.
type Row = (u8, u8, &'static [u8], &'static [&'static [u8]], Outcome);

fn rows() -> Vec<Row> {
    vec![
        (
            4,
            0x80,
            &[0, 0, 0, 1],
            &[&[], &[1, 2, 3], &[1, 2, 3, 4, 5]],
            Withdrawn,
        ),
        (
            5,
            0x40,
            &[0, 0, 0, 1],
            &[&[], &[1, 2, 3], &[1, 2, 3, 4, 5]],
            Withdrawn,
        ),
        (6, 0x40, &[], &[&[0]], Discarded),
        (
            7,
            0xc0,
            &[0, 0, 0, 1, 10, 0, 0, 1],
            &[&[], &[0, 1, 10, 0, 0, 1], &[0; 8]],
            Discarded,
        ),
        (
            8,
            0xc0,
            &[0, 1, 0, 1],
            &[&[], &[0, 1, 0], &[0, 1, 0, 1, 0]],
            Withdrawn,
        ),
        (
            9,
            0x80,
            &[1, 1, 1, 1],
            &[&[], &[1, 1, 1], &[1; 5]],
            Withdrawn,
        ),
        (
            10,
            0x80,
            &[1, 1, 1, 1],
            &[&[], &[1, 1, 1], &[1; 5]],
            Withdrawn,
        ),
        (
            16,
            0xc0,
            &[0, 2, 0, 1, 0, 0, 0, 1],
            &[&[], &[0; 7], &[0; 9]],
            Withdrawn,
        ),
        (32, 0xc0, &[1; 12], &[&[], &[1; 4], &[1; 13]], Withdrawn),
        (
            35,
            0xc0,
            &[0, 0, 0, 1],
            &[&[], &[1, 2, 3], &[1; 5]],
            Withdrawn,
        ),
        (40, 0xc0, &[1, 0, 1, 9], &[&[1], &[1, 0, 2, 9]], Discarded),
    ]
}

#[test]
fn every_optional_attribute_gets_its_treatment() {
    for (code, flags, good, bad, treatment) in rows() {
        let judge =
            |flags, value| with_attribute(PeerKind::Internal, &attribute(flags, code, value));
        assert_eq!(judge(flags, good).outcome, Accepted, "{code}");
        for value in bad {
            let judged = judge(flags, value);
            assert_eq!(judged.outcome, treatment, "{code} {value:?}");
            assert_eq!(judged.faults.len(), 1, "{code} {value:?}");
            assert_eq!(judged.faults[0].attribute, Some(AttributeCode(code)));
            assert_eq!(judged.announced, 1, "the prefix is still known");
        }
        for wrong in [0x80, 0x40] {
            let judged = judge(flags ^ wrong, good);
            assert_eq!(
                judged.outcome,
                Withdrawn,
                "{code} flags {:#x}",
                flags ^ wrong
            );
        }
        // Partial and the unused bits do not matter.
        assert_eq!(judge(flags | 0x2f, good).outcome, Accepted, "{code}");
        let twice = [attribute(flags, code, good), attribute(flags, code, good)].concat();
        let judged = with_attribute(PeerKind::Internal, &twice);
        assert_eq!(judged.outcome, Discarded, "{code} twice");
    }
}

#[test]
fn the_first_of_a_repeated_attribute_counts() {
    let twice = [
        attribute(0x80, 4, &[0, 0, 0, 7]),
        attribute(0x80, 4, &[0, 0, 0, 9]),
    ]
    .concat();
    assert_eq!(
        with_attribute(PeerKind::Internal, &twice).attributes.med,
        Some(7)
    );
}

#[test]
fn attributes_of_the_own_as_are_dropped_from_another_as() {
    for (code, flags) in [(5, 0x40), (9, 0x80), (10, 0x80)] {
        for value in [&[1, 1, 1, 1][..], &[1]] {
            let judged = with_attribute(PeerKind::External, &attribute(flags, code, value));
            assert_eq!(judged.outcome, Discarded, "{code}");
            assert_eq!(judged.attributes.local_pref, None);
        }
    }
}

#[test]
fn origin_and_as_path_errors_withdraw() {
    let context = context(PeerKind::External);
    for origin in [
        &[0x40, 1, 1, 3][..],
        &[0x40, 1, 2, 0, 0],
        &[0x40, 1, 0],
        &[0xc0, 1, 1, 0],
    ] {
        let judged = judge(&body(&[], &[origin, AS_PATH, NEXT_HOP], PREFIX), &context);
        assert_eq!(
            (judged.outcome, judged.faults.len()),
            (Withdrawn, 1),
            "{origin:?}"
        );
    }
    for path in [
        &[5, 1, 0, 0, 0, 1][..], // unknown segment
        &[0, 1, 0, 0, 0, 1],
        &[2, 0],             // no numbers
        &[2, 2, 0, 0, 0, 1], // overrun
        &[2, 1, 0, 0, 0],
        &[2],                                  // half a header
        &[2, 1, 0, 0, 0, 1, 9],                // a stray octet
        &[2, 1, 0, 0, 0, 0],                   // AS 0
        &[3, 1, 0, 0, 0, 1],                   // not our confederation
        &[2, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 2], // AS set
    ] {
        let path = attribute(0x40, 2, path);
        let judged = judge(&body(&[], &[ORIGIN, &path, NEXT_HOP], PREFIX), &context);
        assert_eq!(
            (judged.outcome, judged.faults.len()),
            (Withdrawn, 1),
            "{path:?}"
        );
    }
}

#[test]
fn as_sets_are_taken_where_configured() {
    let mut context = context(PeerKind::External);
    context.as_sets = AsSetPolicy::Accept;
    let path = attribute(0x40, 2, &[2, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 2]);
    let judged = judge(&body(&[], &[ORIGIN, &path, NEXT_HOP], PREFIX), &context);
    assert_eq!(judged.outcome, Accepted);
    assert_eq!(judged.attributes.as_path.unwrap().to_string(), "1 {2}");
}

#[test]
fn next_hop_matters_only_for_the_nlri_field() {
    let context = context(PeerKind::External);
    let bad_hops: [&[u8]; 7] = [
        &[0x40, 3, 3, 192, 0, 2],
        &[0x40, 3, 5, 192, 0, 2, 1, 1],
        &[0xc0, 3, 4, 192, 0, 2, 1],
        &[0x40, 3, 4, 0, 0, 0, 0],
        &[0x40, 3, 4, 127, 0, 0, 1],
        &[0x40, 3, 4, 224, 0, 0, 5],
        &[0x40, 3, 4, 255, 255, 255, 255],
    ];
    let mp = mp_reach(2, &GLOBAL, &[32, 0x20, 1, 0xd, 0xb8]);
    for hop in bad_hops {
        let judged = judge(&body(&[], &[ORIGIN, AS_PATH, hop], PREFIX), &context);
        assert_eq!(
            (judged.outcome, judged.faults.len()),
            (Withdrawn, 1),
            "{hop:?}"
        );
        let judged = judge(&body(&[], &[&mp, ORIGIN, AS_PATH, hop], &[]), &context);
        assert_eq!((judged.outcome, judged.announced), (Accepted, 1), "{hop:?}");
    }
}

#[test]
fn missing_mandatory_attributes_withdraw() {
    let context = context(PeerKind::External);
    for (attributes, missing) in [
        ([AS_PATH, NEXT_HOP], AttributeCode::ORIGIN),
        ([ORIGIN, NEXT_HOP], AttributeCode::AS_PATH),
        ([ORIGIN, AS_PATH], AttributeCode::NEXT_HOP),
    ] {
        let judged = judge(&body(&[], &attributes, PREFIX), &context);
        assert_eq!(judged.outcome, Withdrawn);
        assert_eq!(judged.faults[0].attribute, Some(missing));
    }
    // Withdrawals need none.
    assert_eq!(judge(&body(PREFIX, &[], &[]), &context).outcome, Accepted);
}

#[test]
fn unknown_attributes_follow_their_flags() {
    let judged = with_attribute(PeerKind::External, &attribute(0xc0, 99, b"x"));
    assert_eq!(judged.outcome, Accepted);
    assert_eq!(
        judged.attributes.opaque[0].flags.bits(),
        0xe0,
        "handed on as partial"
    );
    let judged = with_attribute(PeerKind::External, &attribute(0x80, 99, b"x"));
    assert_eq!(
        (judged.outcome, judged.attributes.opaque.len()),
        (Accepted, 0)
    );
    let judged = with_attribute(PeerKind::External, &attribute(0x40, 99, b"x"));
    assert_eq!(
        judged.outcome,
        Reset(ErrorKind::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE)
    );
    let Some(Treatment::SessionReset(notification)) = Fault::strongest(&judged.faults) else {
        panic!("{:?}", judged.faults);
    };
    assert_eq!(notification.data, [0x40, 99, 1, b'x']);
}

#[test]
fn an_attribute_overrun_withdraws_and_the_prefixes_are_still_found() {
    for tail in [
        &[0xc0, 8, 8, 0, 1, 0, 1][..],
        &[0xc0],
        &[0xc0, 8],
        &[0xd0, 8, 0],
    ] {
        let judged = with_attribute(PeerKind::External, tail);
        assert_eq!(
            (judged.outcome, judged.announced),
            (Withdrawn, 1),
            "{tail:?}"
        );
    }
}

#[test]
fn contradicting_lengths_reset() {
    let context = context(PeerKind::External);
    for body in [
        &[0, 5, 0, 0][..],
        &[0, 0, 0, 5, 1],
        &[0, 0, 0],
        &[0, 1, 0, 0],
    ] {
        let outcome = judge(body, &context).outcome;
        assert_eq!(
            outcome,
            Reset(ErrorKind::MALFORMED_ATTRIBUTE_LIST),
            "{body:?}"
        );
    }
}

#[test]
fn unreadable_ipv4_prefixes_reset() {
    let context = context(PeerKind::External);
    for prefixes in [&[33, 1, 2, 3, 4, 5][..], &[24, 1, 2], &[8]] {
        let attributes = [ORIGIN, AS_PATH, NEXT_HOP];
        let announced = judge(&body(&[], &attributes, prefixes), &context);
        assert_eq!(announced.outcome, Reset(ErrorKind::INVALID_NETWORK_FIELD));
        let withdrawn = judge(&body(prefixes, &[], &[]), &context);
        assert_eq!(withdrawn.outcome, Reset(ErrorKind::INVALID_NETWORK_FIELD));
    }
}

fn mp_outcome(attributes: &[&[u8]]) -> Outcome {
    judge(
        &body(&[], &[attributes, &[ORIGIN, AS_PATH]].concat(), &[]),
        &context(PeerKind::External),
    )
    .outcome
}

#[test]
fn multiprotocol_errors_disable_the_family_or_reset() {
    let good = mp_reach(2, &GLOBAL, &[16, 0x20, 1]);
    assert_eq!(mp_outcome(&[&good]), Accepted);
    assert_eq!(
        mp_outcome(&[&mp_reach(2, &[GLOBAL, GLOBAL].concat(), &[0])]),
        Accepted
    );
    let v6 = Family::IPV6_UNICAST;
    for next_hop in [&[][..], &[192, 0, 2, 1], &GLOBAL[..15], &[0; 17]] {
        assert_eq!(
            mp_outcome(&[&mp_reach(2, next_hop, &[0])]),
            Disabled(v6),
            "{next_hop:?}"
        );
    }
    for nlri in [&[129][..], &[16, 0x20], &[64, 1, 2, 3, 4, 5, 6, 7]] {
        assert_eq!(
            mp_outcome(&[&mp_reach(2, &GLOBAL, nlri)]),
            Disabled(v6),
            "{nlri:?}"
        );
        let unreach = attribute(0x80, 15, &[&[0, 2, 1], nlri].concat());
        assert_eq!(
            mp_outcome(&[&unreach]),
            Reset(ErrorKind::MALFORMED_ATTRIBUTE_LIST)
        );
        let alone = judge(&body(&[], &[&unreach], &[]), &context(PeerKind::External));
        assert_eq!(alone.outcome, Disabled(v6), "{nlri:?}");
    }
    for short in [&[][..], &[0, 2], &[0, 2, 1], &[0, 2, 1, 16, 1, 2]] {
        let reset = Reset(ErrorKind::OPTIONAL_ATTRIBUTE);
        assert_eq!(
            mp_outcome(&[&attribute(0x80, 14, short)]),
            reset,
            "{short:?}"
        );
    }
    let twice = Reset(ErrorKind::MALFORMED_ATTRIBUTE_LIST);
    assert_eq!(mp_outcome(&[&good, &good]), twice);
    let mut flags = good.clone();
    flags[0] = 0xc0;
    assert_eq!(mp_outcome(&[&flags]), Withdrawn);
    for hop in [
        [0; 16],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        [0xff; 16],
    ] {
        assert_eq!(
            mp_outcome(&[&mp_reach(2, &hop, &[0])]),
            Withdrawn,
            "{hop:?}"
        );
    }
}

#[test]
fn the_place_of_mp_reach_does_not_matter() {
    let mp = mp_reach(2, &GLOBAL, &[16, 0x20, 1]);
    let context = context(PeerKind::External);
    for order in [
        [&mp[..], ORIGIN, AS_PATH],
        [ORIGIN, &mp, AS_PATH],
        [AS_PATH, ORIGIN, &mp],
    ] {
        let judged = judge(&body(&[], &order, &[]), &context);
        assert_eq!((judged.outcome, judged.announced), (Accepted, 1));
        assert_eq!(
            judged.attributes.as_path.unwrap().neighbour(),
            Some(Asn(65001))
        );
    }
}

#[test]
fn ipv4_over_ipv6_needs_to_be_negotiated() {
    let mp = mp_reach(1, &GLOBAL, PREFIX);
    let bytes = body(&[], &[&mp, ORIGIN, AS_PATH], &[]);
    let mut context = context(PeerKind::External);
    assert_eq!(
        judge(&bytes, &context).outcome,
        Disabled(Family::IPV4_UNICAST)
    );
    context.families[0].extended_next_hop = true;
    let judged = judge(&bytes, &context);
    assert_eq!((judged.outcome, judged.announced), (Accepted, 1));
}

#[test]
fn routes_of_other_families_are_passed_over() {
    let mut context = context(PeerKind::External);
    let mp = mp_reach(2, &GLOBAL, &[16, 0x20, 1]);
    context.families = vec![FamilyContext::plain(Family::IPV4_UNICAST)];
    let judged = judge(&body(&[], &[&mp, ORIGIN, AS_PATH], &[]), &context);
    assert_eq!((judged.outcome, judged.announced), (Discarded, 0));
    context.families = vec![FamilyContext::plain(Family::IPV6_UNICAST)];
    let judged = judge(&body(&[], &[ORIGIN, AS_PATH, NEXT_HOP], PREFIX), &context);
    assert_eq!((judged.outcome, judged.announced), (Discarded, 0));
}

#[test]
fn errors_without_routes_reset_because_routes_may_be_lost() {
    let context = context(PeerKind::External);
    let communities = attribute(0xc0, 8, &[1]);
    let outcome = judge(
        &body(PREFIX, &[ORIGIN, AS_PATH, &communities], &[]),
        &context,
    )
    .outcome;
    assert_eq!(outcome, Reset(ErrorKind::MALFORMED_ATTRIBUTE_LIST));
    // What is only discarded does not.
    let atomic = attribute(0x40, 6, &[1]);
    let outcome = judge(&body(PREFIX, &[ORIGIN, AS_PATH, &atomic], &[]), &context).outcome;
    assert_eq!(outcome, Discarded);
}

#[test]
fn the_strongest_of_several_treatments_wins() {
    let atomic = attribute(0x40, 6, &[1]);
    let communities = attribute(0xc0, 8, &[1]);
    let judged = with_attribute(PeerKind::External, &[atomic, communities].concat());
    assert_eq!((judged.outcome, judged.faults.len()), (Withdrawn, 2));
}

#[test]
fn four_octet_attributes_are_dropped_from_four_octet_speakers() {
    for (code, value) in [
        (17, &[2, 1, 0, 0, 0, 1][..]),
        (18, &[0, 0, 0, 1, 10, 0, 0, 1]),
    ] {
        let judged = with_attribute(PeerKind::External, &attribute(0xc0, code, value));
        assert_eq!(judged.outcome, Discarded, "{code}");
    }
}

/// The attributes of a route corrupted at every octet with every value: the session survives
/// unless the corruption made an attribute that is well-known and unknown, the one case RFC 7606
/// leaves to RFC 4271, or the prefixes' own attribute.
#[test]
fn a_session_survives_any_corrupted_octet_of_the_attributes() {
    let mut attributes = [ORIGIN, AS_PATH, NEXT_HOP].concat();
    for (code, flags, good, ..) in rows() {
        attributes.extend(attribute(flags, code, good));
    }
    let context = context(PeerKind::External);
    for at in 0..attributes.len() {
        for value in 0..=255 {
            let mut corrupted = attributes.clone();
            corrupted[at] = value;
            let judged = judge(&body(&[], &[&corrupted], PREFIX), &context);
            let multiprotocol = |f: &Fault| matches!(f.attribute, Some(c) if c == AttributeCode::MP_REACH_NLRI || c == AttributeCode::MP_UNREACH_NLRI);
            match judged.outcome {
                Accepted | Discarded | Withdrawn => assert_eq!(judged.announced, 1),
                Reset(ErrorKind::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE) => {}
                Reset(ErrorKind::OPTIONAL_ATTRIBUTE | ErrorKind::MALFORMED_ATTRIBUTE_LIST)
                | Disabled(_) => {
                    assert!(
                        judged.faults.iter().any(multiprotocol),
                        "{at} {value} {:?}",
                        judged.faults
                    );
                }
                Reset(kind) => panic!("octet {at} = {value}: {kind}"),
            }
        }
    }
}
