// SPDX-License-Identifier: Apache-2.0
use proptest::prelude::*;

use super::*;
use crate::profile::AuthType;

fn packet() -> Packet {
    Packet {
        diagnostic: Diagnostic::NEIGHBOR_DOWN,
        state: State::Up,
        poll: true,
        last: false,
        control_plane_independent: true,
        demand: false,
        multiplier: 3,
        my_discriminator: 0x0102_0304,
        your_discriminator: 0x0506_0708,
        desired_min_tx_us: 50_000,
        required_min_rx_us: 300_000,
        required_min_echo_rx_us: 0,
    }
}

#[test]
fn a_packet_has_the_layout_of_the_rfc() {
    let bytes = packet().encode(None);
    let expected = [
        0x23, 0xe8, 3, 24, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0xc3, 0x50, 0, 4, 0x93, 0xe0, 0, 0, 0, 0,
    ];
    assert_eq!(bytes.as_slice(), expected);
    let received = decode(bytes.as_slice()).expect("well-formed");
    assert_eq!(received.packet, packet());
    assert_eq!(received.auth, None);
}

#[test]
fn what_the_rfc_discards_is_discarded() {
    let good = packet().encode(None);
    let with = |at: usize, value: u8| {
        let mut bytes = good.as_slice().to_vec();
        bytes[at] = value;
        decode(&bytes).map(|_| ()).expect_err("must be discarded")
    };
    assert_eq!(with(0, 0x43), DecodeError::Version);
    assert_eq!(with(1, 0xe9), DecodeError::Multipoint);
    assert_eq!(with(2, 0), DecodeError::Multiplier);
    assert_eq!(with(3, 23), DecodeError::Length);
    assert_eq!(with(3, 25), DecodeError::Truncated);
    let of = |packet: Packet| decode(packet.encode(None).as_slice()).map(|_| ());
    let unnumbered = Packet {
        my_discriminator: 0,
        ..packet()
    };
    assert_eq!(of(unnumbered), Err(DecodeError::Discriminator));
    for (state, taken) in [
        (State::AdminDown, true),
        (State::Down, true),
        (State::Init, false),
        (State::Up, false),
    ] {
        let packet = Packet {
            your_discriminator: 0,
            state,
            ..packet()
        };
        assert_eq!(of(packet).is_ok(), taken, "{state}");
    }
    // A set without a section.
    let mut bytes = good.as_slice().to_vec();
    bytes[1] |= 0x04;
    assert_eq!(decode(&bytes).map(|_| ()), Err(DecodeError::Length));
}

#[test]
fn every_authentication_type_seals_and_detects_change() {
    for kind in AuthType::ALL {
        let auth = Auth::new(kind, 7, *b"swordfish").expect("a key");
        let sealed = packet().encode(Some((&auth, 42)));
        let received = decode(sealed.as_slice()).expect("well-formed");
        let section = received.auth.expect("has one");
        assert_eq!((section.kind, section.key_id), (kind, 7));
        assert!(section.is_genuine(received.bytes, &auth), "{kind:?}");
        let other = Auth::new(kind, 7, *b"swordfisk").expect("a key");
        assert!(!section.is_genuine(received.bytes, &other), "{kind:?}");
        let renamed = Auth::new(kind, 8, *b"swordfish").expect("a key");
        assert!(!section.is_genuine(received.bytes, &renamed), "{kind:?}");
        if kind != AuthType::SimplePassword {
            assert_eq!(section.sequence, 42);
            for at in 4..sealed.as_slice().len() {
                if at == HEADER || at == HEADER + 1 {
                    continue;
                }
                let mut bytes = sealed.as_slice().to_vec();
                bytes[at] ^= 1;
                let genuine = decode(&bytes).is_ok_and(|received| {
                    received
                        .auth
                        .is_some_and(|section| section.is_genuine(received.bytes, &auth))
                });
                assert!(!genuine, "{kind:?}: octet {at} changed unseen");
            }
        }
    }
}

#[test]
fn a_digest_is_the_one_other_implementations_compute() {
    // md5 over the packet with the padded key in the digest's place, computed with coreutils.
    let auth = Auth::new(AuthType::KeyedMd5, 1, *b"swordfish").expect("a key");
    let sealed = packet().encode(Some((&auth, 1)));
    let hex: String = sealed.as_slice()[32..]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hex, MD5_BY_COREUTILS);
    let auth = Auth::new(AuthType::MeticulousKeyedSha1, 1, *b"swordfish").expect("a key");
    let sealed = packet().encode(Some((&auth, 1)));
    let hex: String = sealed.as_slice()[32..]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hex, SHA1_BY_COREUTILS);
}

const MD5_BY_COREUTILS: &str = "78b9385c1ea6d76611cd6babd6de8fda";
const SHA1_BY_COREUTILS: &str = "1fa2a3884bbff16eb60e0bc2a76d823c9cb8cdf6";

proptest! {
    #[test]
    fn decoding_never_panics_and_what_is_taken_can_be_made(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        check(&bytes);
    }

    #[test]
    fn nor_with_a_plausible_header(mut bytes in proptest::collection::vec(any::<u8>(), 24..80)) {
        bytes[0] = 0x20 | (bytes[0] & 0x1f);
        bytes[1] &= 0xfe;
        bytes[3] = bytes.len() as u8;
        check(&bytes);
    }
}

fn check(bytes: &[u8]) {
    let Ok(received) = decode(bytes) else {
        return;
    };
    if received.auth.is_none() {
        let again = received.packet.encode(None);
        let again = decode(again.as_slice()).expect("own packets are well-formed");
        assert_eq!(again.packet, received.packet);
    }
}
