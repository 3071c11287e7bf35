// SPDX-License-Identifier: Apache-2.0
//! What sockets are told: TTL security, segment size, and administrative shutdown in both ways.

use std::net::IpAddr;

use bgp_core::config::{CapabilityUse, ConnectMode, RoleConfig, TcpMss, TtlSecurity};
use bgp_core::fsm::State;
use bgp_core::peer::DownReason;
use bgp_wire::Role;
use socket2::SockRef;

use crate::node::{Node, address, pair};
use crate::raw::{Raw, call_until_open};

/// A speaker that waits for a call with TTL security, and the address that may call.
async fn guarded() -> (Node, IpAddr) {
    let mut node = Node::start(65001).await;
    let neighbour = address();
    let mut config = node.neighbour((neighbour, 179).into(), 65002);
    config.connect = ConnectMode::Passive;
    config.ttl_security = Some(TtlSecurity::new(1).unwrap());
    node.set("peer", config).await;
    (node, neighbour)
}

#[tokio::test]
async fn packets_from_afar_are_not_heard() {
    // Who does not send with 255 does not even get a connection.
    let (mut node, neighbour) = guarded().await;
    let call = Raw::try_call(neighbour, node.socket());
    let waited = tokio::time::timeout(std::time::Duration::from_secs(1), call).await;
    assert!(waited.is_err(), "a call with TTL 64 is not answered");
    // Live: with more hops allowed the same call is taken.
    let mut config = node.config("peer");
    config.ttl_security = Some(TtlSecurity::new(254).unwrap());
    node.set("peer", config.clone()).await;
    let mut raw = call_until_open(neighbour, node.socket()).await;
    raw.establish(65002, 9).await;
    node.until_up("peer").await;
    // And counts again for the session that is up: its neighbour falls silent.
    config.ttl_security = Some(TtlSecurity::new(1).unwrap());
    node.set("peer", config).await;
    let lives = tokio::spawn(raw.live());
    node.until_down("peer", "hold time").await;
    drop(lives);
}

#[tokio::test]
async fn two_ends_with_ttl_security_meet_whoever_dials() {
    for connect in [ConnectMode::Active, ConnectMode::Passive] {
        let mut left = Node::start(65001).await;
        let mut right = Node::start(65002).await;
        let mut to_right = left.towards(&right);
        to_right.connect = connect;
        to_right.ttl_security = Some(TtlSecurity::new(1).unwrap());
        let mut to_left = right.towards(&left);
        to_left.ttl_security = to_right.ttl_security;
        right.set("peer", to_left).await;
        left.set("peer", to_right).await;
        assert_eq!(left.until_up("peer").await.ttl, 255);
        right.until_up("peer").await;
    }
}

#[tokio::test]
async fn segments_are_as_small_as_configured() {
    let mut node = Node::start(65001).await;
    let neighbour = address();
    let mut config = node.neighbour((neighbour, 179).into(), 65002);
    config.connect = ConnectMode::Passive;
    config.tcp_mss = Some(TcpMss::new(600).unwrap());
    node.set("peer", config).await;
    let raw = call_until_open(neighbour, node.socket()).await;
    // What the other end may send at once is what this end has announced.
    let mss = SockRef::from(&raw.stream).tcp_mss().unwrap();
    assert!(mss <= 600, "{mss}");
}

#[tokio::test]
async fn a_shutdown_is_told_with_its_words_and_taken_back_live() {
    let (mut left, right) = pair(65001, 65002).await;
    left.until_up("peer").await;
    right.until_up("peer").await;
    let mut config = left.config("peer");
    config.shutdown = Some("rack 7 moves, back at 16:00".into());
    left.set("peer", config.clone()).await;
    let words = "\"rack 7 moves, back at 16:00\"";
    right.until_down("peer", words).await;
    // It stays down: calls of the other end are refused.
    right.until_down("peer", "Connection Rejected").await;
    let session = left.session("peer").await;
    assert_eq!(session.state, State::Idle);
    let text = session.down.expect("a reason").to_string();
    assert_eq!(
        text,
        "shut down by the operator: rack 7 moves, back at 16:00"
    );
    config.shutdown = None;
    left.set("peer", config).await;
    left.until_up("peer").await;
    right.until_up("peer").await;
}

#[tokio::test]
async fn roles_must_fit_and_strict_mode_wants_one() {
    let (mut left, mut right) = pair(65001, 65002).await;
    let role = |role, strict| Some(RoleConfig { role, strict });
    let mut to_right = left.config("peer");
    to_right.role = role(Role::Customer, true);
    left.set("peer", to_right).await;
    let session = left.until_down("peer", "names no BGP role").await;
    let down = session.last_error.map(|(_, reason)| reason);
    assert!(matches!(down, Some(DownReason::RoleMismatch { .. })) || session.history.len() > 1);
    let mut to_left = right.config("peer");
    to_left.role = role(Role::Peer, false);
    right.set("peer", to_left.clone()).await;
    right.until_down("peer", "Role Mismatch").await;
    to_left.role = role(Role::Provider, false);
    right.set("peer", to_left).await;
    let up = left.until_up("peer").await.negotiated.expect("up");
    assert_eq!(up.role, Some(Role::Customer));
    let up = right.until_up("peer").await.negotiated.expect("up");
    assert_eq!(up.role, Some(Role::Provider));
}

#[tokio::test]
async fn without_capabilities_there_is_ipv4_and_nothing_else() {
    let (mut left, right) = pair(65001, 65002).await;
    let mut config = left.config("peer");
    config.capabilities = CapabilityUse::Never;
    left.set("peer", config).await;
    left.reset("peer", bgp_io::Reset::Hard).await;
    left.until("peer", "a session without capabilities", |p| {
        p.session.state == State::Established && p.session.capabilities_sent.is_empty()
    })
    .await;
    left.announce("peer", &["10.1.0.0/24"]).await;
    right.until_accepted("peer", 1).await;
    let up = right.session("peer").await.negotiated.expect("up");
    assert_eq!(up.families().count(), 1);
    assert!(!up.context.four_octet_as);
}
