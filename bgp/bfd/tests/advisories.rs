// SPDX-License-Identifier: Apache-2.0
//! What BFD speakers have stumbled over since 2019, octet by octet, sent to a session that is up: it
//! stays up, and nothing is answered.

use std::time::Instant;

use bgp_bfd::profile::{Auth, AuthType, Hops, Profile};
use bgp_bfd::session::{Discard, Session};
use bgp_bfd::wire::{self, DecodeError, Packet, State};

/// A good packet of a neighbour whose number is 7, to our number 1, in state Up.
const GOOD: [u8; 24] = [
    0x20, 0xc0, 3, 24, 0, 0, 0, 7, 0, 0, 0, 1, 0, 4, 0x93, 0xe0, 0, 4, 0x93, 0xe0, 0, 0, 0, 0,
];

/// The packet with some octets changed, cut or made longer.
fn changed(changes: &[(usize, u8)], len: usize) -> Vec<u8> {
    let mut bytes = GOOD.to_vec();
    for (at, value) in changes {
        bytes[*at] = *value;
    }
    bytes.resize(len, 0);
    bytes
}

fn with_auth(section: &[u8]) -> Vec<u8> {
    let len = 24 + section.len();
    let mut bytes = changed(&[(1, 0xc4), (3, len as u8)], 24);
    bytes.extend_from_slice(section);
    bytes
}

/// Where it was reported, what it did, the packet, and why it is discarded.
fn inputs() -> Vec<(&'static str, &'static str, Vec<u8>, DecodeError)> {
    vec![
        (
            "FRRouting/frr#21004",
            "the session was looked for before the length: numbers were read behind the packet",
            changed(&[], 8),
            DecodeError::Truncated,
        ),
        (
            "FRRouting/frr#21004, one octet less",
            "the same at the edge",
            changed(&[], 23),
            DecodeError::Truncated,
        ),
        (
            "frr 10.5.4, length",
            "a length field beyond the datagram was trusted",
            changed(&[(3, 255)], 24),
            DecodeError::Truncated,
        ),
        (
            "frr 10.5.4, short length",
            "a length field below the least was taken",
            changed(&[(3, 3)], 24),
            DecodeError::Length,
        ),
        (
            "frr 10.5.4, authentication",
            "the A bit without a section: its head was read behind the packet",
            changed(&[(1, 0xc4)], 24),
            DecodeError::Length,
        ),
        (
            "frr 10.5.4, authentication of no octets",
            "a section whose own length is 0 was walked",
            with_auth(&[1, 0]),
            DecodeError::Auth,
        ),
        (
            "frr 10.5.4, authentication that runs over",
            "a section longer than the packet was read",
            with_auth(&[1, 200, 1]),
            DecodeError::Auth,
        ),
        (
            "password of no octets",
            "a simple password with nothing behind its key number",
            with_auth(&[1, 3, 1]),
            DecodeError::Auth,
        ),
        (
            "digest that is short",
            "a SHA1 section with an MD5 digest",
            with_auth(&[[4u8, 24, 1, 0].as_slice(), &[0; 20]].concat()),
            DecodeError::Auth,
        ),
        (
            "unknown authentication",
            "a type nobody has",
            with_auth(&[255, 4, 1, 0]),
            DecodeError::Auth,
        ),
        (
            "multiplier 0",
            "a detection time of nothing: the session went down at once, again and again",
            changed(&[(2, 0)], 24),
            DecodeError::Multiplier,
        ),
        (
            "discriminator 0",
            "a neighbour without a number was given a session",
            changed(&[(7, 0)], 24),
            DecodeError::Discriminator,
        ),
        (
            "your discriminator 0 while up",
            "a packet for nobody was given to whoever had the address",
            changed(&[(11, 0)], 24),
            DecodeError::NoDiscriminator(State::Up),
        ),
        (
            "multipoint",
            "the M bit must not be set (RFC 5880 §4.1)",
            changed(&[(1, 0xc1)], 24),
            DecodeError::Multipoint,
        ),
        (
            "version",
            "a packet of version 0 was read as one of version 1",
            changed(&[(0, 0)], 24),
            DecodeError::Version,
        ),
    ]
}

/// A session that is up.
fn up(auth: Option<&Auth>, now: Instant) -> Session {
    let profile = Profile {
        auth: auth.cloned(),
        ..Profile::default()
    };
    let mut session = Session::new(1, Hops::Single, profile, 1, now);
    let said = [(State::Down, 0), (State::Init, 1), (State::Up, 1)];
    for (number, (state, your_discriminator)) in (1..).zip(said) {
        let packet = Packet {
            state,
            multiplier: 3,
            my_discriminator: 7,
            your_discriminator,
            desired_min_tx_us: 300_000,
            required_min_rx_us: 300_000,
            ..Packet::default()
        };
        let encoded = packet.encode(auth.map(|auth| (auth, number)));
        let received = wire::decode(encoded.as_slice()).expect("a good packet");
        session.handle_packet(&received, now).expect("it is taken");
    }
    assert_eq!(session.status(now).state, State::Up);
    while session.poll_output().is_some() {}
    session
}

#[test]
fn each_input_is_discarded_and_the_session_stays() {
    let now = Instant::now();
    let mut session = up(None, now);
    for (id, harm, bytes, why) in inputs() {
        let found = wire::decode(&bytes).map(|received| received.packet);
        assert_eq!(found, Err(why), "{id}: {harm}");
    }
    let good = wire::decode(&GOOD).expect("the packet all of them were made from");
    session.handle_packet(&good, now).expect("it is taken");
    assert_eq!(session.status(now).state, State::Up);
}

#[test]
fn a_packet_cut_or_changed_anywhere_ends_no_session_and_is_not_read_beyond() {
    let now = Instant::now();
    for len in 0..GOOD.len() {
        assert!(wire::decode(&GOOD[..len]).is_err(), "cut to {len}");
    }
    for len in 25..256 {
        // RFC 5880 §6.8.6: what follows the length field is not part of the packet.
        let longer = changed(&[], len);
        assert_eq!(wire::decode(&longer).expect("taken").bytes.len(), 24);
    }
    for at in 0..GOOD.len() {
        for value in 0..=255 {
            let mut session = up(None, now);
            let bytes = changed(&[(at, value)], 24);
            if let Ok(received) = wire::decode(&bytes)
                // Its word for "down" ends the session, as it should.
                && matches!(received.packet.state, State::Up | State::Init)
            {
                session.handle_packet(&received, now).expect("it is taken");
                assert_eq!(session.status(now).state, State::Up, "{at} {value}");
            }
        }
    }
}

/// FRRouting/frr#13085 and #23276: packets with and without authentication were taken for each
/// other.
#[test]
fn authentication_is_neither_ignored_nor_waived() {
    let now = Instant::now();
    let plain = wire::decode(&GOOD).expect("a good packet");
    for kind in AuthType::ALL {
        let auth = Auth::new(kind, 1, *b"key").expect("a key");
        let mut session = up(Some(&auth), now);
        let discarded = session.handle_packet(&plain, now);
        assert_eq!(discarded, Err(Discard::Unauthenticated), "{kind:?}");
        let other = Auth::new(kind, 1, *b"yek").expect("a key");
        let packet = plain.packet.encode(Some((&other, 4)));
        let received = wire::decode(packet.as_slice()).expect("a good packet");
        let discarded = session.handle_packet(&received, now);
        assert!(
            matches!(discarded, Err(Discard::WrongKey | Discard::Replayed)),
            "{kind:?}: {discarded:?}"
        );
        assert_eq!(session.status(now).state, State::Up);
        // And the other way round.
        let mut open = up(None, now);
        let discarded = open.handle_packet(&received, now);
        assert_eq!(discarded, Err(Discard::UnwantedAuthentication));
        assert_eq!(open.status(now).state, State::Up);
    }
}
