// SPDX-License-Identifier: Apache-2.0
//! Headers, OPEN, NOTIFICATION and ROUTE-REFRESH, malformed: what they are answered with.

use bgp_wire::frame::{self, HEADER_LEN, MAX_EXTENDED_LEN, MAX_LEN};
use bgp_wire::{Capability, ErrorKind, Notification, Open, RouteRefresh};

/// The OPEN of AS 65002 with these optional parameters, after their length.
fn open(parameters: &[u8]) -> Vec<u8> {
    let mut body = vec![4, 0xfd, 0xea, 0, 90, 10, 0, 0, 2, parameters.len() as u8];
    body.extend_from_slice(parameters);
    body
}

/// The same with the extended length of RFC 9072.
fn extended(parameters: &[u8]) -> Vec<u8> {
    let mut body = open(&[]);
    body[9] = 255;
    body.push(255);
    body.extend((parameters.len() as u16).to_be_bytes());
    body.extend_from_slice(parameters);
    body
}

fn refused(body: &[u8]) -> ErrorKind {
    Open::decode(body).expect_err("it is malformed").kind
}

#[test]
fn every_header_that_cannot_be_is_refused_before_its_body_comes() {
    let header = |len: usize, kind: u8| {
        let mut bytes = vec![0xff; 16];
        bytes.extend((len as u16).to_be_bytes());
        bytes.push(kind);
        bytes
    };
    for octet in 0..16 {
        for bit in 0..8 {
            let mut bytes = header(HEADER_LEN, 4);
            bytes[octet] ^= 1 << bit;
            let refused = frame::next(&bytes, MAX_LEN).expect_err("a marker");
            assert_eq!(refused.kind, ErrorKind::CONNECTION_NOT_SYNCHRONIZED);
        }
    }
    for max_len in [MAX_LEN, MAX_EXTENDED_LEN] {
        for kind in 0..=255u8 {
            for len in [0, 1, 18, 19, 20, 21, 22, 23, 28, 29, 4096, 4097, 65535] {
                let bytes = header(len, kind);
                let answer = frame::next(&bytes, max_len);
                // RFC 8654 §4: OPEN and KEEPALIVE stay short. RFC 7313 §5 has an error of its own
                // for ROUTE-REFRESH.
                let fits = match kind {
                    1 => (29..=MAX_LEN).contains(&len),
                    2 => (23..=max_len).contains(&len),
                    3 => (21..=max_len).contains(&len),
                    4 => len == HEADER_LEN,
                    5 => (HEADER_LEN..=max_len).contains(&len),
                    _ => false,
                };
                match answer {
                    Ok(_) => assert!(fits, "type {kind} of {len}"),
                    Err(notification) => {
                        assert!(!fits, "type {kind} of {len}");
                        let within = (HEADER_LEN..=max_len).contains(&len);
                        let expected = if within && !(1..=5).contains(&kind) {
                            ErrorKind::BAD_MESSAGE_TYPE
                        } else {
                            ErrorKind::BAD_MESSAGE_LENGTH
                        };
                        assert_eq!(notification.kind, expected, "type {kind} of {len}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_open_cut_anywhere_or_with_more_at_its_end_is_refused() {
    let whole = open(&[2, 6, 1, 4, 0, 1, 0, 1, 2, 6, 65, 4, 0, 0, 0xfd, 0xea]);
    assert!(Open::decode(&whole).is_ok());
    for len in 0..whole.len() {
        assert_eq!(refused(&whole[..len]), ErrorKind::OPEN, "cut to {len}");
    }
    for more in [&[0][..], &[2, 0], &[0xff; 30]] {
        let longer = [&whole[..], more].concat();
        assert_eq!(refused(&longer), ErrorKind::OPEN, "{more:?}");
    }
    let long = extended(&[2, 0, 6, 65, 4, 0, 0, 0xfd, 0xea]);
    assert!(Open::decode(&long).is_ok());
    for len in 10..long.len() {
        assert_eq!(refused(&long[..len]), ErrorKind::OPEN, "cut to {len}");
    }
}

#[test]
fn parameters_and_capabilities_that_run_over_are_refused() {
    for parameters in [
        &[2][..],               // no length
        &[2, 1],                // no value
        &[2, 4, 1, 4, 0],       // cut in the capability
        &[2, 1, 1],             // a capability without length
        &[2, 2, 1, 4],          // a capability without value
        &[2, 4, 65, 200, 0, 0], // a capability longer than its parameter
        &[2, 3, 65, 4, 0],      // the same, by one octet
    ] {
        assert_eq!(
            refused(&open(parameters)),
            ErrorKind::OPEN,
            "{parameters:?}"
        );
    }
    for parameters in [
        &[2][..],
        &[2, 0],
        &[2, 0, 1],
        &[2, 0xff, 0xff, 1, 4],
        &[2, 0, 3, 65, 4, 0],
    ] {
        let body = extended(parameters);
        assert_eq!(refused(&body), ErrorKind::OPEN, "extended {parameters:?}");
    }
    // RFC 4271 §6.2: parameters nobody knows; 1 was authentication.
    for kind in [0, 1, 3, 77, 254] {
        let unknown = ErrorKind::UNSUPPORTED_OPTIONAL_PARAMETER;
        assert_eq!(refused(&open(&[kind, 0])), unknown, "{kind}");
        assert_eq!(refused(&open(&[kind, 2, 1, 1])), unknown, "{kind}");
    }
}

/// RFC 5492 §3: what is not understood of capabilities is ignored, and so is one whose value cannot
/// be; all but that of four-octet AS numbers, without which the OPEN says the wrong AS.
#[test]
fn each_capability_of_each_length_harms_no_session() {
    for code in 0..=255u8 {
        for len in (0..40).chain([100, 250]) {
            for filler in [0, 1, 0x7f, 0xff] {
                let mut parameters = vec![2, len + 2, code, len];
                parameters.extend(vec![filler; len.into()]);
                let decoded = Open::decode(&open(&parameters));
                match (code, len) {
                    (65, 4) if filler == 0 => {
                        assert_eq!(decoded.unwrap_err().kind, ErrorKind::BAD_PEER_AS);
                    }
                    (65, 4) => assert!(decoded.is_ok()),
                    (65, _) => assert_eq!(decoded.unwrap_err().kind, ErrorKind::OPEN),
                    _ => {
                        let capabilities = decoded.expect("the session is not ended").capabilities;
                        assert_eq!(capabilities.len(), 1);
                        assert_eq!(capabilities[0].code(), code);
                    }
                }
            }
        }
    }
}

#[test]
fn a_capability_does_not_read_into_the_next_one() {
    // An inner length that reaches into the next capability: software version, then route refresh.
    let body = open(&[2, 8, 75, 2, 4, b'v', 2, 0, 70, 0]);
    let capabilities = Open::decode(&body).unwrap().capabilities;
    assert!(
        matches!(&capabilities[0], Capability::Unknown { code: 75, data } if data == &[4, b'v'])
    );
    assert_eq!(capabilities[1], Capability::RouteRefresh);
    assert_eq!(capabilities[2], Capability::EnhancedRouteRefresh);
}

#[test]
fn values_no_session_can_have_are_refused() {
    let with = |at: usize, octets: &[u8]| {
        let mut body = open(&[]);
        body[at..at + octets.len()].copy_from_slice(octets);
        refused(&body)
    };
    for version in [0, 1, 3, 5, 255] {
        assert_eq!(with(0, &[version]), ErrorKind::UNSUPPORTED_VERSION);
    }
    assert_eq!(with(1, &[0, 0]), ErrorKind::BAD_PEER_AS);
    for seconds in [1, 2] {
        assert_eq!(with(3, &[0, seconds]), ErrorKind::UNACCEPTABLE_HOLD_TIME);
    }
    assert_eq!(with(5, &[0; 4]), ErrorKind::BAD_BGP_IDENTIFIER);
}

/// RFC 4271 §6.4: a NOTIFICATION is never answered, so every one has to be read.
#[test]
fn every_notification_is_read_and_put_into_words() {
    for code in 0..=255u8 {
        for subcode in [0, 1, 2, 9, 10, 255] {
            for data in [
                &[][..],
                &[0],
                &[1],
                &[255],
                &[5, b'h', b'a'],
                &[3, 0xff, 0xfe, 0xfd],
                &[0; 129],
                &[0xff; 4075],
                // RFC 8538 §3.1: a hard reset within a hard reset.
                &[6, 9, 6, 9, 6],
            ] {
                let body = [&[code, subcode][..], data].concat();
                let notification = Notification::decode(&body).expect("two octets are there");
                let text = notification.to_string();
                assert!(!text.is_empty());
                assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
            }
        }
    }
}

#[test]
fn route_refresh_of_every_length() {
    // RFC 7313 §5.
    let invalid = ErrorKind::REFRESH_INVALID_LENGTH;
    for len in 0..4 {
        let refused = RouteRefresh::decode(&[0, 1, 0, 1][..len]).unwrap_err();
        assert_eq!(refused.kind, invalid, "{len}");
    }
    for subtype in 0..=255u8 {
        for len in 4..40 {
            let mut body = vec![0xff; len];
            body[..4].copy_from_slice(&[0, 1, subtype, 1]);
            match (RouteRefresh::decode(&body), subtype, len) {
                (Ok(Some(_)), 0..=2, 4) => {}
                // Filters nobody asked for (RFC 5291), and kinds nobody knows.
                (Ok(None), 0, 5..) | (Ok(None), 3.., _) => {}
                (Err(refused), 1 | 2, 5..) => assert_eq!(refused.kind, invalid),
                (other, ..) => panic!("{subtype} of {len}: {other:?}"),
            }
        }
    }
}
