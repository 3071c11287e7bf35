// SPDX-License-Identifier: Apache-2.0
//! Which of a neighbour's routes are taken.

use bgp_core::config::{ImportMode, PrefixRange};
use router_types::Family;

use crate::node::{Node, counts, importing, pair};

const SENT: [&str; 4] = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/24", "192.0.2.0/24"];

async fn until_split(node: &Node, accepted: u64, rejected: u64) {
    let what = format!("{accepted} accepted, {rejected} rejected");
    node.until("peer", &what, |p| {
        let counts = counts(p, Family::IPV4_UNICAST);
        (counts.accepted, counts.rejected) == (accepted, rejected)
    })
    .await;
}

#[tokio::test]
async fn the_policy_changes_without_a_reset() {
    let (mut left, mut right) = pair(65001, 65002).await;
    left.announce("peer", &SENT).await;
    until_split(&right, 4, 0).await;
    let ten = PrefixRange::new("10.0.0.0/8".parse().unwrap(), Some(8), Some(24)).unwrap();
    for (mode, accepted) in [
        (ImportMode::DefaultRoute, 1),
        (ImportMode::Prefixes(vec![ten]), 2),
        (ImportMode::None, 0),
        (ImportMode::All, 4),
    ] {
        let config = importing(right.config("peer"), mode, None);
        right.set("peer", config).await;
        until_split(&right, accepted, 4 - accepted).await;
    }
    assert_eq!(right.session("peer").await.counters.established, 1);
    assert_eq!(left.session("peer").await.counters.established, 1);
}

#[tokio::test]
async fn too_many_routes_end_the_session_with_the_reason() {
    let (mut left, mut right) = pair(65001, 65002).await;
    right.until_up("peer").await;
    let config = importing(right.config("peer"), ImportMode::All, Some(3));
    right.set("peer", config.clone()).await;
    left.announce("peer", &SENT[..3]).await;
    until_split(&right, 3, 0).await;
    left.announce("peer", &SENT).await;
    right
        .until_down("peer", "more ipv4/unicast routes than the limit of 3")
        .await;
    let told = left
        .until_down("peer", "Maximum Number of Prefixes Reached")
        .await;
    let notification = told.notification_received.unwrap().notification;
    assert_eq!((notification.code, notification.subcode), (6, 1));
    until_split(&right, 0, 0).await;
}
