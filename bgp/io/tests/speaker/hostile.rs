// SPDX-License-Identifier: Apache-2.0
//! Neighbours that break off, send rubbish, or stop reading.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bgp_core::config::{ConnectMode, SendHold, Timers};
use bgp_core::fsm::State;
use bgp_wire::{Aggregator, Community, LargeCommunity, MessageKind, PathAttributes};
use ipnet::{IpNet, Ipv4Net};
use router_types::{Asn, Family};

use crate::node::{Node, address, counts};
use crate::raw::{Raw, attributes, call_until_open, keepalive, open, update};

pub(crate) const ASN: u32 = 65002;

/// A speaker that waits to be called by one neighbour, and that neighbour's address.
pub(crate) async fn waiting(hold_s: u16) -> (Node, IpAddr) {
    let mut node = Node::start(65001).await;
    let neighbour = address();
    let mut config = node.neighbour((neighbour, 179).into(), ASN);
    config.connect = ConnectMode::Passive;
    config.timers = Timers::new(1, hold_s, (hold_s / 3).max(1)).unwrap();
    node.set("peer", config).await;
    (node, neighbour)
}

pub(crate) async fn established(node: &Node, neighbour: IpAddr, hold_s: u16) -> Raw {
    let mut raw = call_until_open(neighbour, node.socket()).await;
    raw.establish(ASN, hold_s).await;
    node.until_up("peer").await;
    raw
}

/// A message with any header and body.
pub(crate) fn message(len: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 16];
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes
}

#[tokio::test]
async fn a_neighbour_may_close_in_every_state() {
    #[derive(Clone, Copy, Debug)]
    enum Until {
        Connected,
        HalfAnOpen,
        OpenSent,
        OpenConfirm,
        Established,
        HalfAnUpdate,
    }
    use Until::*;
    for stage in [
        Connected,
        HalfAnOpen,
        OpenSent,
        OpenConfirm,
        Established,
        HalfAnUpdate,
    ] {
        for with_reset in [false, true] {
            let (node, neighbour) = waiting(9).await;
            let mut raw = Raw::call(neighbour, node.socket()).await;
            match stage {
                Connected => {}
                HalfAnOpen => raw.send(&open(ASN, 9)[..23]).await,
                OpenSent => assert_eq!(raw.next().await.unwrap().0, MessageKind::Open),
                OpenConfirm => {
                    raw.send(&open(ASN, 9)).await;
                    raw.next().await.unwrap();
                    assert_eq!(raw.next().await.unwrap().0, MessageKind::Keepalive);
                }
                Established => raw.establish(ASN, 9).await,
                HalfAnUpdate => {
                    raw.establish(ASN, 9).await;
                    let prefix = ["10.0.0.0/24".parse().unwrap()];
                    let bytes = update(&attributes(ASN), neighbour, &prefix);
                    raw.send(&bytes[..bytes.len() - 3]).await;
                }
            }
            if with_reset {
                raw.stream.set_zero_linger().unwrap();
            }
            drop(raw);
            // Whatever it was, the next call gets its session.
            let mut raw = established(&node, neighbour, 9).await;
            raw.keepalive().await;
            let session = node.session("peer").await;
            assert_eq!(session.state, State::Established, "{stage:?} {with_reset}");
        }
    }
}

#[tokio::test]
async fn rubbish_is_answered_with_the_error_the_rfc_has_for_it() {
    let mut bad_marker = keepalive();
    bad_marker[3] = 0;
    let with_body = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = open(ASN, 9);
        change(&mut bytes);
        bytes
    };
    let before_open: Vec<(&str, Vec<u8>, (u8, u8))> = vec![
        ("bad marker", bad_marker, (1, 1)),
        ("length 18", message(18, 4, &[]), (1, 2)),
        ("length 0", message(0, 4, &[]), (1, 2)),
        ("length 4097", message(4097, 2, &[0; 100]), (1, 2)),
        ("length 65535", message(65535, 2, &[0; 100]), (1, 2)),
        ("KEEPALIVE of 20", message(20, 4, &[0]), (1, 2)),
        ("OPEN of 28", message(28, 1, &[0; 9]), (1, 2)),
        ("type 0", message(19, 0, &[]), (1, 3)),
        ("type 200", message(19, 200, &[]), (1, 3)),
        ("version 3", with_body(&|open| open[19] = 3), (2, 1)),
        (
            "AS 0",
            with_body(&|open| {
                let at = open.windows(6).rposition(|w| w[..2] == [65, 4]).unwrap();
                open[20..22].fill(0);
                open[at + 2..at + 6].fill(0);
            }),
            (2, 2),
        ),
        (
            "hold time 1",
            with_body(&|open| open[22..24].copy_from_slice(&[0, 1])),
            (2, 6),
        ),
        (
            "identifier 0",
            with_body(&|open| open[24..28].fill(0)),
            (2, 3),
        ),
        ("another AS", open(64999, 9), (2, 2)),
        ("KEEPALIVE first", keepalive(), (5, 1)),
        ("UPDATE first", message(23, 2, &[0; 4]), (5, 1)),
    ];
    for (what, bytes, expected) in before_open {
        let (node, neighbour) = waiting(9).await;
        let mut raw = Raw::call(neighbour, node.socket()).await;
        raw.send(&bytes).await;
        let answer = raw
            .notification()
            .await
            .unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!((answer.kind.code, answer.kind.subcode), expected, "{what}");
        drop(raw);
        established(&node, neighbour, 9).await;
    }
    let afterwards: Vec<(&str, Vec<u8>, (u8, u8))> = vec![
        ("a second OPEN", open(ASN, 9), (5, 3)),
        ("length 18", message(18, 4, &[]), (1, 2)),
        ("type 77", message(19, 77, &[]), (1, 3)),
        (
            "UPDATE that ends in its lengths",
            message(21, 2, &[0, 0]),
            (1, 2),
        ),
        (
            "withdrawn routes beyond the end",
            message(23, 2, &[0, 9, 0, 0]),
            (3, 1),
        ),
        (
            "attributes beyond the end",
            message(23, 2, &[0, 0, 0, 9]),
            (3, 1),
        ),
        (
            "a prefix of 33 bits",
            message(24, 2, &[0, 0, 0, 0, 33]),
            (3, 10),
        ),
    ];
    for (what, bytes, expected) in afterwards {
        let (node, neighbour) = waiting(9).await;
        let mut raw = established(&node, neighbour, 9).await;
        raw.send(&bytes).await;
        let answer = raw
            .notification()
            .await
            .unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!((answer.kind.code, answer.kind.subcode), expected, "{what}");
        let told = node.until_down("peer", "the peer was sent");
        // An error of the state has a sentence of its own.
        if expected.0 != 5 {
            told.await;
        }
    }
}

#[tokio::test]
async fn noise_never_brings_the_speaker_down() {
    let (node, neighbour) = waiting(9).await;
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..60 {
        let mut noise = Vec::new();
        for _ in 0..round * 7 {
            // xorshift64: the same noise in each run.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            noise.push(seed as u8);
        }
        if round % 2 == 0 && noise.len() > 18 {
            noise[..16].fill(0xff);
            let len = noise.len() as u16;
            noise[16..18].copy_from_slice(&len.to_be_bytes());
            noise[18] = noise[18] % 5 + 1;
        }
        let mut raw = Raw::call(neighbour, node.socket()).await;
        raw.send(&noise).await;
    }
    established(&node, neighbour, 9).await;
}

/// One of every attribute there is, valid between external neighbours.
fn every_attribute() -> PathAttributes {
    PathAttributes {
        med: Some(77),
        atomic_aggregate: true,
        aggregator: Some(Aggregator {
            asn: Asn(65010),
            router_id: Ipv4Addr::new(192, 0, 2, 1),
        }),
        communities: vec![Community::new(65002, 100), Community::new(65002, 200)],
        extended_communities: Vec::new(),
        large_communities: vec![LargeCommunity {
            global: 65002,
            local_1: 100,
            local_2: 200,
        }],
        only_to_customer: Some(Asn(65002)),
        ..attributes(ASN)
    }
}

#[tokio::test]
async fn attributes_broken_byte_by_byte_do_not_end_the_session() {
    let (node, neighbour) = waiting(90).await;
    let mut raw = established(&node, neighbour, 90).await;
    let good: IpNet = "192.0.2.0/24".parse().unwrap();
    let bad: IpNet = "10.0.0.0/24".parse().unwrap();
    let good = update(&attributes(ASN), neighbour, &[good]);
    raw.send(&good).await;
    node.until_accepted("peer", 1).await;
    let whole = update(&every_attribute(), neighbour, &[bad]);
    raw.send(&whole).await;
    node.until_accepted("peer", 2).await;

    let end = whole.len() - 4; // the prefix: a length and three bytes
    let mut sent = 0;
    for at in 23..end {
        for change in [0x01, 0x40, 0x80, 0xff] {
            let mut broken = whole.clone();
            broken[at] ^= change;
            if needs_a_reset(&broken[23..end]) {
                continue;
            }
            raw.send(&broken).await;
            sent += 1;
        }
    }
    raw.send(&whole).await;
    let report = node
        .until("peer", "all of them were read", |p| {
            p.session.counters.received.update == sent + 3
                && counts(p, Family::IPV4_UNICAST).accepted == 2
        })
        .await;
    assert_eq!(report.session.counters.established, 1);
    assert_eq!(report.session.counters.flaps, 0);
    assert_eq!(report.session.notification_sent, None);
    let noticed: u64 = report.session.counters.attribute_errors.values().sum();
    assert!(sent > 200, "{sent} were sent");
    assert!(noticed > sent / 4, "{noticed} of {sent} were noticed");
}

/// Whether a session cannot survive these attributes: RFC 7606 §5.3 wants a reset where prefixes
/// cannot be read (MP_REACH_NLRI, MP_UNREACH_NLRI), and leaves the one of RFC 4271 §6.3 for
/// well-known attributes that are not known.
fn needs_a_reset(mut attributes: &[u8]) -> bool {
    while let [flags, code, rest @ ..] = attributes {
        let known = matches!(code, 1..=8 | 16 | 32 | 35);
        if matches!(code, 14 | 15) || (!known && flags & 0x80 == 0) {
            return true;
        }
        let (header, len) = match (flags & 0x10, rest) {
            (0, [len, ..]) => (1, usize::from(*len)),
            (_, [high, low, ..]) => (2, usize::from(u16::from_be_bytes([*high, *low]))),
            _ => return false,
        };
        match rest.get(header + len..) {
            Some(next) => attributes = next,
            None => return false,
        }
    }
    false
}

#[tokio::test]
async fn a_neighbour_that_stops_reading_is_given_up_and_disturbs_nobody() {
    let (mut node, neighbour) = waiting(3).await;
    let mut config = node.config("peer");
    config.send_hold = SendHold::After(4);
    node.set("peer", config).await;
    let mut other = Node::start(65003).await;
    let mut to_other = node.towards(&other);
    to_other.timers = Timers::new(1, 3, 1).unwrap();
    // One dials, so that no collision ends a session at the beginning.
    let mut to_node = other.towards(&node);
    to_node.connect = ConnectMode::Passive;
    other.set("peer", to_node).await;
    node.set("other", to_other).await;
    node.until_up("other").await;

    let mut raw = established(&node, neighbour, 3).await;
    // Each with a community of its own: they do not fit in one message, nor in the socket.
    node.locals = crate::load::distinct_routes(40_000, 0, "peer");
    node.apply().await;
    // It speaks, but does not read.
    let speaks = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        loop {
            tick.tick().await;
            let message = keepalive();
            let said = tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &message);
            if said.await.is_err() {
                return;
            }
        }
    });
    // RFC 9687: not by the hold timer, since it speaks. The kernel takes all of it and notices that
    // nothing arrives.
    node.until_down("peer", "what was sent was not acknowledged")
        .await;
    speaks.await.unwrap();
    let session = node.session("other").await;
    assert_eq!(session.state, State::Established);
    assert_eq!(session.counters.flaps, 0);
}

#[tokio::test]
async fn a_silent_neighbour_is_given_up_after_the_hold_time() {
    let (node, neighbour) = waiting(3).await;
    let mut raw = established(&node, neighbour, 3).await;
    let answer = raw.notification().await.expect("a reason");
    assert_eq!((answer.kind.code, answer.kind.subcode), (4, 0));
    node.until_down(
        "peer",
        "nothing was heard from the peer for the hold time of 3 s",
    )
    .await;
}

/// Prefixes 10.0.0.0/24, 10.0.1.0/24, … for the tests of load.
pub(crate) fn prefix(number: u32) -> IpNet {
    let network = Ipv4Addr::from(0x0a00_0000 + (number << 8));
    Ipv4Net::new(network, 24).unwrap().into()
}
