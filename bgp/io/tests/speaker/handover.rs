// SPDX-License-Identifier: Apache-2.0
//! A session that goes on in the next process, and a neighbour that does not notice.

use bgp_core::config::{
    ConnectMode, ExportAttributes, ImportMode, LocalRoutes, Md5Password, Timers,
};
use bgp_core::fsm::State;
use bgp_core::peer::StopReason;
use bgp_core::rib::RouteTable;
use router_types::Family;

use crate::node::{Node, importing, until};
use crate::ranges::{dialler, name, template, with_range};

/// Two speakers with a session that has a password; the left one dials.
async fn signed_pair() -> (Node, Node) {
    let mut left = Node::start(65001).await;
    let mut right = Node::start(65002).await;
    let password = Some(Md5Password::new("handed over").unwrap());
    let mut to_right = left.towards(&right);
    to_right.connect = ConnectMode::Active;
    to_right.password = password.clone();
    let mut to_left = right.towards(&left);
    to_left.password = password;
    to_left.connect = ConnectMode::Passive;
    right.set("peer", to_left).await;
    left.set("peer", to_right).await;
    (left, right)
}

#[tokio::test]
async fn a_neighbour_does_not_notice_ten_new_processes() {
    let (mut left, mut right) = signed_pair().await;
    left.announce("peer", &["10.1.0.0/24"]).await;
    right
        .announce("peer", &["10.2.0.0/24", "10.3.0.0/24"])
        .await;
    right.until_accepted("peer", 1).await;
    left.until_accepted("peer", 2).await;
    for round in 0..10 {
        // Routes come and go meanwhile.
        let extra = format!("10.4.{round}.0/24");
        right.announce("peer", &["10.2.0.0/24", &extra]).await;
        left = left.succeeded().await;
        left.until_accepted("peer", 2).await;
        let received = left
            .routes(RouteTable::Received("peer".into()), Family::IPV4_UNICAST)
            .await;
        let prefixes: Vec<String> = received.iter().map(|r| r.prefix.to_string()).collect();
        assert_eq!(prefixes, ["10.2.0.0/24", extra.as_str()]);
        let session = left.session("peer").await;
        assert_eq!(
            (session.state, session.counters.received.open),
            (State::Established, 0)
        );
    }
    left.announce("peer", &["10.1.0.0/24", "10.5.0.0/24"]).await;
    right.until_accepted("peer", 2).await;
    let session = right.session("peer").await;
    assert_eq!(session.counters.established, 1);
    assert_eq!(session.counters.flaps, 0);
    assert_eq!(session.counters.received.open, 1);
    assert_eq!(session.notification_received, None);
}

#[tokio::test]
async fn a_large_table_under_way_arrives_whole() {
    let (mut left, mut right) = signed_pair().await;
    right.until_up("peer").await;
    // Both directions at once: half-written and half-read messages are handed over.
    right.locals = crate::load::distinct_routes(20_000, 0, "peer");
    right.apply().await;
    left.locals = crate::load::distinct_routes(20_000, 1, "peer");
    left.apply().await;
    for _ in 0..3 {
        left = left.succeeded().await;
    }
    right.until_accepted("peer", 20_000).await;
    left.until_accepted("peer", 20_000).await;
    let session = right.session("peer").await;
    assert_eq!(
        (session.counters.established, session.counters.flaps),
        (1, 0)
    );
}

#[tokio::test]
async fn what_is_gone_in_the_next_process_is_withdrawn() {
    let (mut left, right) = signed_pair().await;
    left.announce("peer", &["10.1.0.0/24", "10.2.0.0/24"]).await;
    right.until_accepted("peer", 2).await;
    let mut less = LocalRoutes::default();
    let prefix = "10.1.0.0/24".parse().unwrap();
    less.add(prefix, "peer".into(), ExportAttributes::default());
    left.locals = less;
    left = left.succeeded().await;
    right.until_accepted("peer", 1).await;
    assert_eq!(left.session("peer").await.state, State::Established);
    assert_eq!(right.session("peer").await.counters.flaps, 0);
}

#[tokio::test]
async fn a_session_that_would_be_another_one_is_reset() {
    let (mut left, right) = signed_pair().await;
    left.until_up("peer").await;
    let mut config = left.config("peer");
    config.timers = Timers::new(1, 6, 2).unwrap();
    let config = importing(config, ImportMode::All, None);
    left.replace("peer", config);
    left = left.succeeded().await;
    right.until_down("peer", "Other Configuration Change").await;
    until("the new hold time is agreed on", async || {
        right.session("peer").await.timers.hold_s == Some(6)
    })
    .await;
    left.until_up("peer").await;
}

#[tokio::test]
async fn neighbours_of_a_listen_range_do_not_notice_new_processes() {
    let (mut node, ips) = with_range(2, template()).await;
    let mut routes = LocalRoutes::default();
    for prefix in ["10.1.0.0/24", "10.2.0.0/24"] {
        let prefix = prefix.parse().unwrap();
        routes.add(prefix, "rack".into(), ExportAttributes::default());
    }
    node.locals = routes;
    node.apply().await;
    let first = dialler(ips[0], 65101, &node, None).await;
    let second = dialler(ips[1], 65102, &node, None).await;
    for caller in [&first, &second] {
        caller.until_accepted("peer", 2).await;
    }
    let mut less = LocalRoutes::default();
    let prefix = "10.1.0.0/24".parse().unwrap();
    less.add(prefix, "rack".into(), ExportAttributes::default());
    node.locals = less;
    for _ in 0..3 {
        node = node.succeeded().await;
    }
    for (caller, ip) in [(&first, ips[0]), (&second, ips[1])] {
        caller.until_accepted("peer", 1).await;
        let counters = caller.session("peer").await.counters;
        assert_eq!((counters.established, counters.flaps), (1, 0));
        let report = node.report(&name(ip)).await.expect("still a neighbour");
        assert_eq!(report.range, Some("rack".into()));
        assert_eq!(report.session.counters.received.open, 0);
    }
    // They take the places of the range, and leave them like others.
    let third = dialler(ips[2], 65103, &node, None).await;
    third.until_down("peer", "Connection Rejected").await;
    first.stop(StopReason::Deconfigured).await;
    third.until_up("peer").await;
}

#[tokio::test]
async fn a_neighbour_that_is_found_later_gets_its_session() {
    let (mut left, right) = signed_pair().await;
    left.announce("peer", &["10.1.0.0/24"]).await;
    right.until_accepted("peer", 1).await;
    let config = left.config("peer");
    left.forget("peer");
    left = left.succeeded().await;
    left.set("peer", config).await;
    left.until_up("peer").await;
    let counters = left.session("peer").await.counters;
    assert_eq!(counters.received.open, 0, "it is the same session");
    assert_eq!(right.session("peer").await.counters.flaps, 0);
}

#[tokio::test]
async fn a_session_whose_neighbour_is_gone_is_ended_with_a_word() {
    let (mut left, right) = signed_pair().await;
    left.until_up("peer").await;
    left.forget("peer");
    let left = left.succeeded().await;
    right.until_down("peer", "Peer De-configured").await;
    drop(left);
}
