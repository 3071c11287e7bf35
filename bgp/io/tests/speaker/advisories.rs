// SPDX-License-Identifier: Apache-2.0
//! What made other speakers crash, sent over real sessions: what becomes of the session, of the
//! route, and what an operator sees.

#[path = "../../../../tests/advisories/inputs.rs"]
mod inputs;

use std::net::IpAddr;

use bgp_core::fsm::State;
use bgp_core::rib::RouteTable;
use bgp_wire::{Capability, MessageKind, Open};
use ipnet::IpNet;
use router_types::{Asn, Family};

use self::inputs::{Advisory, Answer, Input};
use crate::hostile::{established, message, waiting};
use crate::node::Node;
use crate::raw::{Raw, attributes, call_until_open, update};

const ASN: u32 = inputs::ASN as u32;

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    message(19 + body.len() as u16, kind, body)
}

fn announced() -> IpNet {
    "198.51.100.0/24".parse().unwrap()
}

/// Whether the route of the advisories is in the tables.
async fn is_there(node: &Node) -> bool {
    let table = RouteTable::Received("peer".into());
    let routes = node.routes(table, Family::IPV4_UNICAST).await;
    routes.iter().any(|route| route.prefix == announced())
}

async fn until_read(node: &Node, updates: u64) {
    node.until("peer", &format!("{updates} UPDATEs were read"), |p| {
        p.session.counters.received.update >= updates
    })
    .await;
}

#[tokio::test]
async fn opens_that_made_others_crash() {
    for advisory in inputs::all() {
        let Input::Open(body) = &advisory.input else {
            continue;
        };
        let (node, neighbour) = waiting(90).await;
        let mut raw = Raw::call(neighbour, node.socket()).await;
        raw.send(&framed(1, body)).await;
        match advisory.answer {
            Answer::Taken => {
                raw.establish_rest().await;
                node.until_up("peer").await;
            }
            Answer::Reset(code, subcode) => {
                let answer = raw.notification().await;
                let answer = answer.unwrap_or_else(|| panic!("{}: no answer", advisory.id));
                let found = (answer.kind.code, answer.kind.subcode);
                assert_eq!(found, (code, subcode), "{}", advisory.id);
                node.until_down("peer", "the peer was sent").await;
                drop(raw);
                // The next one gets its session.
                established(&node, neighbour, 90).await;
            }
            Answer::Withdrawn | Answer::Nothing | Answer::Ends => {
                panic!("{}: an OPEN has no such answer", advisory.id)
            }
        }
    }
}

#[tokio::test]
async fn updates_that_made_others_crash_leave_the_session_and_other_routes() {
    let (node, neighbour) = waiting(90).await;
    let mut raw = established(&node, neighbour, 90).await;
    let other: IpNet = "192.0.2.0/24".parse().unwrap();
    raw.send(&update(&attributes(ASN), neighbour, &[other]))
        .await;
    let mut sent = 1;
    for advisory in inputs::all() {
        let Input::Update(body) = &advisory.input else {
            continue;
        };
        if !matches!(
            advisory.answer,
            Answer::Taken | Answer::Withdrawn | Answer::Nothing
        ) {
            continue;
        }
        let before = node.session("peer").await;
        let errors = |session: &bgp_core::peer::PeerSnapshot| -> u64 {
            session.counters.attribute_errors.values().sum()
        };
        // What must go is there before; what must come is not.
        let was_there = advisory.answer != Answer::Taken;
        let first = if was_there {
            update(&attributes(ASN), neighbour, &[announced()])
        } else {
            framed(2, &[0, 4, 24, 198, 51, 100, 0, 0])
        };
        raw.send(&first).await;
        raw.send(&framed(2, body)).await;
        sent += 2;
        until_read(&node, sent).await;
        let expected = advisory.answer != Answer::Withdrawn;
        assert_eq!(is_there(&node).await, expected, "{}", advisory.id);
        let after = node.session("peer").await;
        assert_eq!(after.state, State::Established, "{}", advisory.id);
        // An operator sees it counted, by attribute and treatment; but for a path that is well
        // formed and another AS's, which is among the rejected routes.
        if advisory.answer == Answer::Withdrawn && advisory.id != "GHSA-frrj-87jh-2772" {
            assert!(errors(&after) > errors(&before), "{}", advisory.id);
        }
    }
    let session = node.session("peer").await;
    assert_eq!(
        (session.counters.established, session.counters.flaps),
        (1, 0)
    );
    assert!(sent > 50, "{sent}");
    let table = RouteTable::Received("peer".into());
    let routes = node.routes(table, Family::IPV4_UNICAST).await;
    assert!(routes.iter().any(|route| route.prefix == other));
}

#[tokio::test]
async fn messages_that_have_to_end_the_session_end_only_that() {
    let ends = |advisory: &Advisory| match &advisory.input {
        Input::Message(kind, body) => Some(framed(*kind, body)),
        Input::Update(body) if matches!(advisory.answer, Answer::Reset(..)) => {
            Some(framed(2, body))
        }
        Input::Open(_) | Input::Update(_) | Input::OldUpdate(_) => None,
    };
    for advisory in inputs::all() {
        let Some(bytes) = ends(&advisory) else {
            continue;
        };
        let (node, neighbour) = waiting(90).await;
        let mut raw = established(&node, neighbour, 90).await;
        raw.send(&bytes).await;
        match advisory.answer {
            Answer::Reset(code, subcode) => {
                let answer = raw.notification().await;
                let answer = answer.unwrap_or_else(|| panic!("{}: no answer", advisory.id));
                let found = (answer.kind.code, answer.kind.subcode);
                assert_eq!(found, (code, subcode), "{}", advisory.id);
                node.until_down("peer", "the peer was sent").await;
            }
            Answer::Ends => {
                // RFC 4271 §6.4: it is not answered.
                assert_eq!(raw.notification().await, None, "{}", advisory.id);
                let seen = format!("{} is seen ({})", advisory.id, advisory.harm);
                node.until("peer", &seen, |p| {
                    p.session.notification_received.is_some() && p.session.counters.flaps == 1
                })
                .await;
            }
            Answer::Taken | Answer::Withdrawn | Answer::Nothing => {
                raw.send(&update(&attributes(ASN), neighbour, &[announced()]))
                    .await;
                node.until_accepted("peer", 1).await;
                continue;
            }
        }
        drop(raw);
        established(&node, neighbour, 90).await;
    }
}

async fn old_session(node: &Node, neighbour: IpAddr) -> Raw {
    let mut raw = call_until_open(neighbour, node.socket()).await;
    let mut open = Vec::new();
    Open {
        asn: Asn(ASN),
        hold_time_s: 90,
        router_id: [10, 0, 0, 9].into(),
        capabilities: vec![Capability::Multiprotocol(Family::IPV4_UNICAST)],
    }
    .encode(&mut open);
    raw.send(&open).await;
    raw.establish_rest().await;
    node.until_up("peer").await;
    raw
}

#[tokio::test]
async fn updates_of_two_octet_speakers_that_made_others_crash() {
    let mut sent = 0;
    for advisory in inputs::all() {
        let Input::OldUpdate(body) = &advisory.input else {
            continue;
        };
        let (node, neighbour) = waiting(90).await;
        let mut raw = old_session(&node, neighbour).await;
        raw.send(&framed(MessageKind::Update as u8, body)).await;
        until_read(&node, 1).await;
        let expected = advisory.answer == Answer::Taken;
        assert_eq!(is_there(&node).await, expected, "{}", advisory.id);
        sent += 1;
    }
    assert!(sent > 0);
}
