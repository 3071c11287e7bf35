// SPDX-License-Identifier: Apache-2.0
//! Every attribute, malformed in every way, from every kind of neighbour, with two-octet and with
//! four-octet AS numbers.

use std::collections::BTreeMap;

use bgp_wire::{AttributeCode, ErrorKind, Fault, PeerKind, SessionContext};

use crate::judge::{
    AS_PATH, Accepted, Discarded, NEXT_HOP, ORIGIN, Outcome, PREFIX, Reset, Withdrawn, attribute,
    body, context, judge,
};

const OPTIONAL: u8 = 0x80;
const TRANSITIVE: u8 = 0x40;

/// An attribute as the registry and its own RFC have it.
struct Row {
    code: u8,
    flags: u8,
    good: &'static [u8],
    /// Lengths of the value that are impossible.
    lengths: &'static [usize],
    /// What an impossible length leads to.
    length: Outcome,
    /// What the rest of the message says of the same, which is left out: an attribute is not to come
    /// twice.
    replaces: Option<&'static [u8]>,
    /// What a good one leads to from another AS.
    from_outside: Outcome,
}

/// Attributes that this speaker reads (RFC 7606 §7 unless named).
fn rows() -> Vec<Row> {
    let row = |code, flags, good, lengths, length| Row {
        code,
        flags,
        good,
        lengths,
        length,
        replaces: None,
        from_outside: Accepted,
    };
    vec![
        Row {
            replaces: Some(ORIGIN),
            ..row(1, TRANSITIVE, &[0], &[0, 2, 255], Withdrawn)
        },
        Row {
            replaces: Some(AS_PATH),
            // A length of 0 is an empty path, of a neighbour within the AS; the rest are segments
            // that do not fill the attribute.
            ..row(
                2,
                TRANSITIVE,
                &[2, 1, 0, 0, 0xfd, 0xe9],
                &[1, 2, 3, 5, 7],
                Withdrawn,
            )
        },
        Row {
            replaces: Some(NEXT_HOP),
            ..row(
                3,
                TRANSITIVE,
                &[192, 0, 2, 1],
                &[0, 1, 2, 3, 5, 16],
                Withdrawn,
            )
        },
        row(4, OPTIONAL, &[0, 0, 0, 1], &[0, 1, 3, 5, 8], Withdrawn),
        Row {
            from_outside: Discarded,
            ..row(5, TRANSITIVE, &[0, 0, 0, 1], &[0, 1, 3, 5, 8], Withdrawn)
        },
        row(6, TRANSITIVE, &[], &[1, 4], Discarded),
        row(
            7,
            OPTIONAL | TRANSITIVE,
            &[0, 0, 0, 1, 10, 0, 0, 1],
            &[0, 1, 5, 6, 7, 9],
            Discarded,
        ),
        row(
            8,
            OPTIONAL | TRANSITIVE,
            &[0, 1, 0, 1],
            &[0, 1, 2, 3, 5, 6, 7],
            Withdrawn,
        ),
        Row {
            from_outside: Discarded,
            ..row(9, OPTIONAL, &[1, 1, 1, 1], &[0, 1, 3, 5, 8], Withdrawn)
        },
        Row {
            from_outside: Discarded,
            ..row(10, OPTIONAL, &[1, 1, 1, 1], &[0, 1, 2, 3, 5], Withdrawn)
        },
        row(
            16,
            OPTIONAL | TRANSITIVE,
            &[0, 2, 0, 1, 0, 0, 0, 1],
            &[0, 1, 4, 7, 9, 12],
            Withdrawn,
        ),
        // RFC 8092 §6.
        row(
            32,
            OPTIONAL | TRANSITIVE,
            &[1; 12],
            &[0, 1, 4, 8, 11, 13],
            Withdrawn,
        ),
        // RFC 9234 §5.
        row(
            35,
            OPTIONAL | TRANSITIVE,
            &[0, 0, 0, 1],
            &[0, 1, 3, 5, 1024],
            Withdrawn,
        ),
        // RFC 8669 §6: TLVs that do not fill the attribute.
        row(
            40,
            OPTIONAL | TRANSITIVE,
            &[1, 0, 7, 0, 0, 0, 0, 0, 0, 1],
            &[1, 2, 4, 9, 11],
            Discarded,
        ),
    ]
}

/// Optional attributes this speaker does not read: whatever they say, the route is taken, and
/// transitive ones go on as they came (RFC 4271 §5).
const UNREAD: [(u8, u8); 12] = [
    (22, OPTIONAL | TRANSITIVE),  // PMSI_TUNNEL
    (23, OPTIONAL | TRANSITIVE),  // tunnel encapsulation
    (24, OPTIONAL),               // traffic engineering
    (25, OPTIONAL | TRANSITIVE),  // IPv6 address specific extended communities
    (26, OPTIONAL),               // AIGP
    (27, OPTIONAL | TRANSITIVE),  // PE distinguisher labels
    (28, OPTIONAL | TRANSITIVE),  // entropy label capability
    (29, OPTIONAL),               // BGP-LS
    (33, OPTIONAL | TRANSITIVE),  // BGPsec path
    (37, OPTIONAL | TRANSITIVE),  // SFP
    (128, OPTIONAL | TRANSITIVE), // ATTR_SET
    (255, OPTIONAL | TRANSITIVE), // for development
];

const PEERS: [PeerKind; 3] = [
    PeerKind::External,
    PeerKind::Internal,
    PeerKind::Confederation,
];

/// A message with one attribute as it is given, at the place of its like.
fn message(row: &Row, bytes: &[u8]) -> Vec<u8> {
    let rest: Vec<&[u8]> = [ORIGIN, AS_PATH, NEXT_HOP]
        .into_iter()
        .filter(|other| row.replaces != Some(*other))
        .collect();
    body(&[], &[&rest[..], &[bytes]].concat(), PREFIX)
}

fn outcome(row: &Row, bytes: &[u8], context: &SessionContext) -> Outcome {
    let judged = judge(&message(row, bytes), context);
    assert_eq!(judged.announced, 1, "{} {bytes:?}: the prefix", row.code);
    judged.outcome
}

/// With a length of one or of two octets.
fn encoded(flags: u8, code: u8, value: &[u8]) -> Vec<Vec<u8>> {
    let mut long = vec![flags | 0x10, code];
    long.extend((value.len() as u16).to_be_bytes());
    long.extend_from_slice(value);
    let mut all = vec![long];
    if value.len() < 256 {
        all.push(attribute(flags, code, value));
    }
    all
}

#[test]
fn good_ones_are_taken_where_they_belong() {
    for row in rows() {
        for peer in PEERS {
            let expected = match peer {
                PeerKind::External => row.from_outside.clone(),
                PeerKind::Internal | PeerKind::Confederation => Accepted,
            };
            for bytes in encoded(row.flags, row.code, row.good) {
                let found = outcome(&row, &bytes, &context(peer));
                assert_eq!(found, expected, "{} from {peer:?}", row.code);
            }
        }
    }
}

#[test]
fn impossible_lengths_get_the_treatment_of_the_attribute() {
    for row in rows() {
        for &len in row.lengths {
            let mut value = row.good.to_vec();
            value.resize(len, 1);
            for peer in PEERS {
                // What has no business there is dropped before anybody looks at it.
                let expected = match (peer, &row.from_outside) {
                    (PeerKind::External, Discarded) => Discarded,
                    _ => row.length.clone(),
                };
                for bytes in encoded(row.flags, row.code, &value) {
                    let found = outcome(&row, &bytes, &context(peer));
                    assert_eq!(found, expected, "{} of {len} from {peer:?}", row.code);
                }
            }
        }
    }
}

#[test]
fn every_octet_of_flags_gets_its_treatment() {
    for row in rows() {
        for flags in 0..=255u8 {
            let mut bytes = vec![flags, row.code];
            if flags & 0x10 == 0 {
                bytes.push(row.good.len() as u8);
            } else {
                bytes.extend((row.good.len() as u16).to_be_bytes());
            }
            bytes.extend_from_slice(row.good);
            // RFC 7606 §3 c: optional and transitive count; RFC 4271 §4.3: the low bits do not.
            let expected = if flags & 0xc0 == row.flags {
                Accepted
            } else {
                Withdrawn
            };
            let found = outcome(&row, &bytes, &context(PeerKind::Internal));
            assert_eq!(found, expected, "{} with flags {flags:#04x}", row.code);
        }
    }
}

#[test]
fn a_length_beyond_the_end_withdraws_whatever_the_attribute() {
    for row in rows() {
        let good = attribute(row.flags, row.code, row.good);
        for beyond in [1u8, 2, 100, 255 - row.good.len() as u8] {
            let mut bytes = good.clone();
            bytes[2] += beyond;
            let found = outcome(&row, &bytes, &context(PeerKind::Internal));
            assert_eq!(found, Withdrawn, "{} runs over by {beyond}", row.code);
        }
        // The last octets are less than an attribute's head.
        for cut in 1..good.len() {
            let found = outcome(&row, &good[..cut], &context(PeerKind::Internal));
            assert_eq!(found, Withdrawn, "{} cut to {cut}", row.code);
        }
    }
}

#[test]
fn of_two_the_first_counts_even_where_it_is_malformed() {
    for row in rows() {
        let good = attribute(row.flags, row.code, row.good);
        let mut bad = row.good.to_vec();
        bad.resize(row.lengths[row.lengths.len() - 1].min(255), 1);
        let bad = attribute(row.flags, row.code, &bad);
        let internal = context(PeerKind::Internal);
        let twice = [&good[..], &good[..]].concat();
        assert_eq!(outcome(&row, &twice, &internal), Discarded, "{}", row.code);
        let good_first = [&good[..], &bad[..]].concat();
        let found = outcome(&row, &good_first, &internal);
        assert_eq!(found, Discarded, "{}: good first", row.code);
        let bad_first = [&bad[..], &good[..]].concat();
        let found = outcome(&row, &bad_first, &internal);
        assert_eq!(found, row.length, "{}: bad first", row.code);
    }
}

#[test]
fn a_mandatory_attribute_that_is_missing_withdraws() {
    for row in rows().iter().filter(|row| row.replaces.is_some()) {
        for peer in PEERS {
            let judged = judge(&message(row, &[]), &context(peer));
            assert_eq!(judged.outcome, Withdrawn, "without {}", row.code);
            let attribute = judged.faults[0].attribute;
            assert_eq!(attribute, Some(AttributeCode(row.code)));
        }
    }
}

#[test]
fn what_is_not_read_harms_nobody() {
    for (code, flags) in UNREAD {
        for len in [0, 1, 2, 3, 4, 5, 7, 8, 23, 255, 3000] {
            for filler in [0, 0xff] {
                let value = vec![filler; len];
                for bytes in encoded(flags, code, &value) {
                    for peer in PEERS {
                        let whole = body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &bytes], PREFIX);
                        let judged = judge(&whole, &context(peer));
                        assert_eq!(judged.outcome, Accepted, "{code} of {len}");
                        let passed: Vec<_> = judged.attributes.opaque.iter().collect();
                        if flags & TRANSITIVE == 0 {
                            assert_eq!(passed.len(), 0, "{code}");
                        } else {
                            assert_eq!(passed[0].value, value, "{code}");
                            assert_eq!(passed[0].flags.bits(), 0xe0, "{code}: partial");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn what_claims_to_be_well_known_and_is_not_known_resets() {
    let known: Vec<u8> = rows()
        .iter()
        .map(|row| row.code)
        .chain([14, 15, 17, 18])
        .collect();
    for code in 0..=255u8 {
        if known.contains(&code) {
            continue;
        }
        for flags in [0x00, 0x40, 0x60] {
            let bytes = attribute(flags, code, b"?");
            let whole = body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &bytes], PREFIX);
            let judged = judge(&whole, &context(PeerKind::External));
            let reset = Reset(ErrorKind::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE);
            assert_eq!(judged.outcome, reset, "{code} with {flags:#04x}");
        }
    }
}

/// RFC 6793 §4.2.3 and §6, from a speaker with two-octet AS numbers.
#[test]
fn two_octet_speakers_split_paths_and_aggregators() {
    let mut context = context(PeerKind::External);
    context.four_octet_as = false;
    // 23456 65001, the first of which is 70000.
    let short = attribute(TRANSITIVE, 2, &[2, 2, 0x5b, 0xa0, 0xfd, 0xe9]);
    let with = |more: &[u8]| {
        let whole = body(&[], &[ORIGIN, &short, NEXT_HOP, more], PREFIX);
        let judged = judge(&whole, &context);
        (
            judged.outcome,
            judged.attributes.as_path.unwrap().to_string(),
        )
    };
    let both = OPTIONAL | TRANSITIVE;
    let as4 = |value: &[u8]| attribute(both, 17, value);
    let wide = [2, 2, 0, 1, 0x11, 0x70, 0, 0, 0xfd, 0xe9];
    let (whole, halved) = ("70000 65001".to_owned(), "23456 65001".to_owned());
    assert_eq!(with(&[]), (Accepted, halved.clone()));
    assert_eq!(with(&as4(&wide)), (Accepted, whole));
    // Shorter than AS_PATH: what is missing is taken from there.
    let tail = [2, 1, 0, 0, 0xfd, 0xe9];
    assert_eq!(with(&as4(&tail)), (Accepted, halved.clone()));
    // Longer than AS_PATH: ignored.
    let longer = [&[2, 3][..], &wide[2..], &[0, 0, 0, 9]].concat();
    assert_eq!(with(&as4(&longer)), (Accepted, halved.clone()));
    for bad in [
        &[][..],
        &[2],
        &[2, 0],
        &[2, 1, 0, 0, 0],
        &[2, 2, 0, 0, 0, 1],
        &[9, 1, 0, 0, 0, 1],
        &[2, 1, 0, 0, 0, 0],
        &[2, 1, 0, 0, 0, 1, 7],
    ] {
        let (outcome, path) = with(&as4(bad));
        // Nothing at all says nothing.
        let expected = if bad.is_empty() { Accepted } else { Discarded };
        assert_eq!((outcome, path), (expected, halved.clone()), "{bad:?}");
    }
    // Confederation segments are dropped from it, and the rest is used.
    let confederation = [&[3, 1, 0, 0, 0, 7][..], &wide].concat();
    assert_eq!(with(&as4(&confederation)).0, Accepted);
    for bad in [&[][..], &[0, 0, 0, 1], &[0; 8], &[1; 9]] {
        let (outcome, _) = with(&attribute(both, 18, bad));
        assert_eq!(outcome, Discarded, "AS4_AGGREGATOR {bad:?}");
    }
    // An AGGREGATOR that is not AS_TRANS: AS4_AGGREGATOR and AS4_PATH are ignored.
    let aggregator = attribute(both, 7, &[0xfd, 0xe9, 10, 0, 0, 1]);
    let as4_aggregator = attribute(both, 18, &[0, 1, 0x11, 0x70, 10, 0, 0, 1]);
    let more = [aggregator, as4_aggregator, as4(&wide)].concat();
    assert_eq!(with(&more), (Accepted, halved));
    // Four-octet values in attributes of a two-octet session.
    let (outcome, _) = with(&attribute(both, 7, &[0, 0, 0, 1, 10, 0, 0, 1]));
    assert_eq!(outcome, Discarded);
}

/// What is counted and logged names the attribute and the rule, for every malformation above.
#[test]
fn every_fault_says_where_and_why() {
    let mut rules: BTreeMap<u8, Vec<&str>> = BTreeMap::new();
    for row in rows() {
        for &len in row.lengths {
            let mut value = row.good.to_vec();
            value.resize(len, 1);
            for bytes in encoded(row.flags, row.code, &value) {
                let judged = judge(&message(&row, &bytes), &context(PeerKind::Internal));
                let fault: &Fault = &judged.faults[0];
                assert_eq!(fault.attribute, Some(AttributeCode(row.code)));
                assert!(fault.rule.starts_with("RFC "), "{fault}");
                let text = fault.to_string();
                assert!(text.contains(fault.rule), "{text}");
                assert!(text.contains(fault.treatment.name()), "{text}");
                rules.entry(row.code).or_default().push(fault.rule);
            }
        }
    }
    assert_eq!(rules.len(), rows().len());
}
