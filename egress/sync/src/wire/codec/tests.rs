// SPDX-License-Identifier: Apache-2.0

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::channel::MAX_MESSAGE;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn rule(number: u32) -> Rule {
    Rule::new(number).unwrap()
}

fn mapping() -> Mapping {
    let key = Key::new(
        6,
        Endpoint::new([10, 1, 2, 3].into(), 40_000),
        Endpoint::new([192, 0, 2, 1].into(), 443),
    )
    .unwrap();
    let egress = Endpoint::new([198, 51, 100, 7].into(), 1024);
    let mut mapping = Mapping::new(rule(0x0a_0b0c), key, egress, [172, 16, 0, 9].into()).unwrap();
    mapping.state_out = 0x1f;
    mapping.state_in = 0x2e;
    mapping.age_ms = 0x0102;
    mapping.idle_ms = 3;
    mapping
}

#[test]
fn a_batch_is_these_octets() {
    let batch = Message::Batch(Batch {
        epoch: 2,
        sequence: 3,
        records: vec![
            Record::Begin(rule(1)),
            Record::Set(mapping()),
            Record::Remove {
                rule: rule(1),
                key: *mapping().key(),
            },
            Record::End(rule(1)),
            Record::Unavailable(rule(5)),
        ],
    });
    let key = "0406".to_owned() + "0a010203" + "9c40" + "c0000201" + "01bb";
    let set = "01000a0b0c".to_owned()
        + &key
        + "c6336407"
        + "0400"
        + "1f2e"
        + "04ac100009"
        + "0000000000000102"
        + "0000000000000003";
    let expected = "1100".to_owned()
        + "00000002"
        + "0000000000000003"
        + "0005"
        + "0300000001"
        + &set
        + "0200000001"
        + &key
        + "0400000001"
        + "0500000005";
    let bytes = encode(&batch).unwrap();
    assert_eq!(hex(&bytes), expected);
    assert_eq!(decode(&bytes), Ok(Decoded::Message(batch)));
}

#[test]
fn what_is_reached_is_these_octets() {
    let reached = |policy, is_answered| Reached {
        policy: Policy::new(policy),
        is_answered,
    };
    let message = Message::Reached(vec![reached(0x0102, true), reached(u64::MAX, false)]);
    let bytes = encode(&message).unwrap();
    let expected = "25000002".to_owned() + "000000000000010201" + "ffffffffffffffff00";
    assert_eq!(hex(&bytes), expected);
    assert_eq!(decode(&bytes), Ok(Decoded::Message(message)));
    let neither = [&bytes[..12], &[2], &bytes[13..]].concat();
    assert_eq!(decode(&neither), Err(DecodeError::Flag(2)));
}

#[test]
fn a_kind_of_a_newer_version_is_skipped_where_it_says_so() {
    assert_eq!(decode(&[200, 0, 1, 2]), Err(DecodeError::Kind(200)));
    assert_eq!(
        decode(&[200, SKIPPABLE, 1, 2]),
        Ok(Decoded::Skipped { kind: 200 })
    );
    assert_eq!(
        decode(&[200, SKIPPABLE | 1]),
        Err(DecodeError::Flags(SKIPPABLE | 1))
    );
}

#[test]
fn a_message_has_an_end() {
    let ack = Message::Ack {
        epoch: 1,
        sequence: 2,
    };
    let mut bytes = encode(&ack).unwrap();
    for length in 0..bytes.len() {
        assert_eq!(decode(&bytes[..length]), Err(DecodeError::Truncated));
    }
    bytes.push(0);
    assert_eq!(decode(&bytes), Err(DecodeError::Trailing(1)));
}

#[test]
fn what_has_no_meaning_is_refused() {
    let mut bytes = encode(&Message::HandOver(Claim {
        rule: rule(1),
        term: 1,
    }))
    .unwrap();
    bytes[2] = 1;
    assert_eq!(decode(&bytes), Err(DecodeError::Rule(0x0100_0001)));
    let list = [CLAIM_LIST, 0, 2, 0, 0, 0];
    assert_eq!(decode(&list), Err(DecodeError::Flag(2)));
    let batch = |record: &[u8]| {
        let mut bytes = vec![BATCH, 0];
        bytes.extend([0; 12]);
        bytes.extend([0, 1]);
        bytes.extend(record);
        decode(&bytes)
    };
    assert_eq!(batch(&[9]), Err(DecodeError::Record(9)));
    assert_eq!(batch(&[REMOVE, 0, 0, 0, 1, 5]), Err(DecodeError::Family(5)));
    let seen = [&[SEEN, 0, 0, 1][..], &[0; 12], &[0, 1, b' ']].concat();
    assert_eq!(decode(&seen), Err(NameError::Octet(b' ').into()));
}

#[test]
fn lists_are_bounded_and_the_longest_messages_fit_a_frame() {
    let claim = Claim {
        rule: rule(1),
        term: 1,
    };
    assert_eq!(
        encode(&Message::Claimed(vec![claim; MAX_CLAIMS + 1])),
        Err(EncodeError::Count {
            count: MAX_CLAIMS + 1,
            max: MAX_CLAIMS
        })
    );
    let many = [&[CLAIMED, 0][..], &(MAX_CLAIMS as u16 + 1).to_be_bytes()].concat();
    assert_eq!(
        decode(&many),
        Err(DecodeError::Count {
            count: MAX_CLAIMS + 1,
            max: MAX_CLAIMS
        })
    );
    let v6 = Endpoint::new([0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), 1);
    let key = Key::new(6, v6, v6).unwrap();
    let mapping = Mapping::new(rule(1), key, v6, v6.address).unwrap();
    let reached = Reached {
        policy: Policy::named("p"),
        is_answered: true,
    };
    let seen = Seen {
        claim,
        holder: NodeName::new(&"n".repeat(253)).unwrap(),
        is_released: true,
    };
    for message in [
        Message::Claimed(vec![claim; MAX_CLAIMS]),
        Message::Seen(vec![seen; MAX_SEEN]),
        Message::Subscribe {
            epoch: 1,
            is_restart: true,
            rules: vec![rule(1); MAX_RULES],
        },
        Message::Batch(Batch {
            epoch: 1,
            sequence: 1,
            records: vec![Record::Set(mapping); MAX_RECORDS],
        }),
        Message::Reached(vec![reached; MAX_REACHED]),
    ] {
        let bytes = encode(&message).unwrap();
        assert!(bytes.len() <= MAX_MESSAGE, "{} octets", bytes.len());
        assert_eq!(decode(&bytes), Ok(Decoded::Message(message)));
    }
}

fn rules() -> impl Strategy<Value = Rule> {
    (0..=Rule::MAX).prop_map(rule)
}

fn claims() -> impl Strategy<Value = Claim> {
    (rules(), any::<u64>()).prop_map(|(rule, term)| Claim { rule, term })
}

fn names() -> impl Strategy<Value = NodeName> {
    "[!-~]{1,253}".prop_map(|name| NodeName::new(&name).unwrap())
}

fn reached() -> impl Strategy<Value = Reached> {
    (any::<u64>(), any::<bool>()).prop_map(|(policy, is_answered)| Reached {
        policy: Policy::new(policy),
        is_answered,
    })
}

fn endpoints(is_ipv4: bool) -> BoxedStrategy<Endpoint> {
    if is_ipv4 {
        any::<([u8; 4], u16)>()
            .prop_map(|(address, port)| Endpoint::new(address.into(), port))
            .boxed()
    } else {
        any::<([u8; 16], u16)>()
            .prop_map(|(address, port)| Endpoint::new(address.into(), port))
            .boxed()
    }
}

fn mappings() -> impl Strategy<Value = Mapping> {
    any::<bool>()
        .prop_flat_map(|is_ipv4| {
            let ends = (endpoints(is_ipv4), endpoints(is_ipv4), endpoints(is_ipv4));
            let node = any::<bool>().prop_flat_map(endpoints);
            let rest = any::<(u8, u8, u8, u64, u64)>();
            (rules(), ends, node, rest)
        })
        .prop_map(|(rule, (pod, remote, egress), node, rest)| {
            let key = Key::new(rest.0, pod, remote).unwrap();
            let mut mapping = Mapping::new(rule, key, egress, node.address).unwrap();
            mapping.state_out = rest.1;
            mapping.state_in = rest.2;
            mapping.age_ms = rest.3;
            mapping.idle_ms = rest.4;
            mapping
        })
}

fn records() -> impl Strategy<Value = Record> {
    prop_oneof![
        mappings().prop_map(Record::Set),
        mappings().prop_map(|mapping| Record::Remove {
            rule: mapping.rule,
            key: *mapping.key()
        }),
        rules().prop_map(Record::Begin),
        rules().prop_map(Record::End),
        rules().prop_map(Record::Unavailable),
    ]
}

fn messages() -> impl Strategy<Value = Message> {
    let seen = (claims(), names(), any::<bool>()).prop_map(|(claim, holder, is_released)| Seen {
        claim,
        holder,
        is_released,
    });
    prop_oneof![
        (any::<bool>(), any::<bool>(), vec(claims(), 0..20)).prop_map(
            |(is_first, is_last, claims)| Message::ClaimList {
                is_first,
                is_last,
                claims
            }
        ),
        vec(claims(), 0..20).prop_map(Message::Claimed),
        vec(claims(), 0..20).prop_map(Message::Released),
        vec(seen, 0..5).prop_map(Message::Seen),
        claims().prop_map(Message::HandOver),
        claims().prop_map(Message::HandOverRefused),
        (any::<u32>(), any::<bool>(), vec(rules(), 0..20)).prop_map(
            |(epoch, is_restart, rules)| Message::Subscribe {
                epoch,
                is_restart,
                rules
            }
        ),
        (any::<u32>(), any::<u64>(), vec(records(), 0..20)).prop_map(
            |(epoch, sequence, records)| Message::Batch(Batch {
                epoch,
                sequence,
                records
            })
        ),
        any::<(u32, u64)>().prop_map(|(epoch, sequence)| Message::Ack { epoch, sequence }),
        (any::<u64>(), names()).prop_map(|(nonce, about)| Message::Ask { nonce, about }),
        any::<u64>().prop_map(|nonce| Message::Heard { nonce }),
        any::<u64>().prop_map(|nonce| Message::Ping { nonce }),
        any::<u64>().prop_map(|nonce| Message::Pong { nonce }),
        any::<bool>().prop_map(|is_available| Message::Standing { is_available }),
        vec(reached(), 0..20).prop_map(Message::Reached),
        vec(names(), 0..20).prop_map(Message::Missed),
        any::<(u8, u16)>().prop_map(|(protocol, port)| Message::Tunnel(Tunnel { protocol, port })),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_and_nothing_less_of_it(message in messages(), cut: prop::sample::Index) {
        let bytes = encode(&message).unwrap();
        prop_assert_eq!(decode(&bytes), Ok(Decoded::Message(message)));
        prop_assert_eq!(decode(&bytes[..cut.index(bytes.len())]), Err(DecodeError::Truncated));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn any_body_of_a_known_kind_is_a_message_that_encodes_to_itself_or_an_error(
        kind in prop::sample::select(vec![1u8, 2, 3, 4, 5, 6, 16, 17, 18, 37]),
        body in vec(0u8..8, 0..120),
    ) {
        let bytes = [&[kind, 0], &body[..]].concat();
        if let Ok(Decoded::Message(message)) = decode(&bytes) {
            prop_assert_eq!(encode(&message).unwrap(), bytes);
        }
    }

    #[test]
    fn a_damaged_message_does_not_panic(
        message in messages(),
        at: prop::sample::Index,
        octet: u8,
    ) {
        let mut bytes = encode(&message).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = octet;
        let _ = decode(&bytes);
    }
}
