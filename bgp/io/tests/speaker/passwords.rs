// SPDX-License-Identifier: Apache-2.0
//! TCP MD5 signatures (RFC 2385): the kernel's, with our keys.

use std::net::{IpAddr, Ipv6Addr};

use bgp_core::config::{ConnectMode, Md5Password};
use bgp_core::fsm::State;
use bgp_io::{Options, Reset};

use crate::node::{Node, address};
use crate::raw::{Raw, open};

const SUSPICION: &str = "no answer: is the MD5 password right?";

fn password(text: &str) -> Option<Md5Password> {
    Some(Md5Password::new(text).unwrap())
}

/// Two speakers with passwords, of which the left one dials.
async fn with_passwords(ips: [IpAddr; 2], passwords: [&str; 2]) -> (Node, Node) {
    let mut left = Node::start_with(ips[0], 65001, Options::default()).await;
    let mut right = Node::start_with(ips[1], 65002, Options::default()).await;
    let mut to_right = left.towards(&right);
    to_right.connect = ConnectMode::Active;
    to_right.password = password(passwords[0]);
    let mut to_left = right.towards(&left);
    to_left.connect = ConnectMode::Passive;
    to_left.password = password(passwords[1]);
    right.set("peer", to_left).await;
    left.set("peer", to_right).await;
    (left, right)
}

#[tokio::test]
async fn equal_passwords_bring_a_session_up() {
    let localhost = IpAddr::V6(Ipv6Addr::LOCALHOST);
    for ips in [[address(), address()], [localhost, localhost]] {
        let (left, right) = with_passwords(ips, ["fabric", "fabric"]).await;
        assert!(left.until_up("peer").await.password);
        right.until_up("peer").await;
    }
}

#[tokio::test]
async fn a_wrong_password_is_suspected_and_can_be_mended_live() {
    let (mut left, mut right) = with_passwords([address(), address()], ["right", "wrong"]).await;
    left.until_down("peer", SUSPICION).await;
    assert_ne!(left.session("peer").await.state, State::Established);
    let mut mended = right.config("peer");
    mended.password = password("right");
    right.set("peer", mended).await;
    left.until_up("peer").await;
    right.until_up("peer").await;

    // Only one end has a password.
    let mut without = right.config("peer");
    without.password = None;
    right.set("peer", without).await;
    left.until_down("peer", SUSPICION).await;
    let mut without = left.config("peer");
    without.password = None;
    left.set("peer", without).await;
    right.until_up("peer").await;
}

#[tokio::test]
async fn a_password_is_replaced_while_the_session_stays() {
    let (mut left, mut right) = with_passwords([address(), address()], ["old", "old"]).await;
    left.until_up("peer").await;
    right.until_up("peer").await;
    for node in [&mut left, &mut right] {
        let mut config = node.config("peer");
        config.password = password("new");
        node.set("peer", config).await;
    }
    // The session goes on with the new one: an hour later it would have to, and it shows at once
    // where one end alone has changed it.
    left.announce("peer", &["10.1.0.0/24"]).await;
    right.announce("peer", &["10.2.0.0/24"]).await;
    right.until_accepted("peer", 1).await;
    left.until_accepted("peer", 1).await;
    assert_eq!(left.session("peer").await.counters.established, 1);
    // The next one has the new password on both ends.
    left.reset("peer", Reset::Hard).await;
    left.until("peer", "up again", |p| p.session.counters.established == 2)
        .await;
    left.until_up("peer").await;
    // And one end alone with another one stays without answer.
    let mut config = right.config("peer");
    config.password = password("newer");
    right.set("peer", config).await;
    left.reset("peer", Reset::Hard).await;
    left.until_down("peer", SUSPICION).await;
}

#[tokio::test]
async fn calls_without_the_password_are_not_taken() {
    let mut node = Node::start(65001).await;
    let neighbour = address();
    let mut config = node.neighbour((neighbour, 1).into(), 65002);
    config.connect = ConnectMode::Passive;
    // A call that was taken before the password was there is refused as well.
    let mut early = Raw::call(neighbour, node.socket()).await;
    config.password = password("fabric");
    node.set("peer", config.clone()).await;
    // As a stranger's when it comes first, as an unsigned one otherwise.
    let refusal = early.notification().await;
    let refusal = refusal.map(|n| (n.kind.code, n.kind.subcode));
    assert!(matches!(refusal, None | Some((6, 5))), "{refusal:?}");
    assert_eq!(node.session("peer").await.counters.received.open, 0);
    let call = Raw::try_call(neighbour, node.socket());
    let waited = tokio::time::timeout(std::time::Duration::from_secs(2), call).await;
    assert!(waited.is_err(), "an unsigned call is not answered");
    config.password = None;
    node.set("peer", config).await;
    let mut raw = Raw::call(neighbour, node.socket()).await;
    raw.send(&open(65002, 9)).await;
    raw.establish_rest().await;
    node.until_up("peer").await;
}
