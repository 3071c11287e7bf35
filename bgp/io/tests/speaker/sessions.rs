// SPDX-License-Identifier: Apache-2.0
//! Sessions between two speakers: how they come up, what they carry, what ends them.

use bgp_core::config::{ConnectMode, ExportAttributes, LocalRoutes, Timers};
use bgp_core::fsm::State;
use bgp_core::peer::StopReason;
use bgp_core::rib::RouteTable;
use bgp_io::{Reset, RouteEvent};
use bgp_wire::{Community, LargeCommunity};
use router_types::{Asn, Family, RouteSource};

use crate::node::{Node, counts, next_hop, pair, until};

#[tokio::test]
async fn sessions_come_up_whoever_dials() {
    use ConnectMode::{Active, Both, Passive};
    for (first, second) in [(Both, Both), (Active, Passive), (Passive, Both)] {
        let mut left = Node::start(65001).await;
        let mut right = Node::start(65002).await;
        let (mut to_right, mut to_left) = (left.towards(&right), right.towards(&left));
        to_right.connect = first;
        to_left.connect = second;
        left.set("peer", to_right).await;
        right.set("peer", to_left).await;
        for node in [&left, &right] {
            let counters = node.until_up("peer").await.counters;
            assert_eq!(counters.flaps, 0, "{first:?} {second:?}: {counters:?}");
            assert_eq!(counters.established, 1);
        }
    }
}

#[tokio::test]
async fn of_two_connections_at_once_one_stays() {
    // Both dial at the same time, so that most rounds have two connections.
    for _ in 0..20 {
        let mut left = Node::start(65001).await;
        let mut right = Node::start(65002).await;
        let (to_right, to_left) = (left.towards(&right), right.towards(&left));
        tokio::join!(left.set("peer", to_right), right.set("peer", to_left));
        left.announce("peer", &["10.1.0.0/24"]).await;
        right.until_accepted("peer", 1).await;
        for node in [&left, &right] {
            let session = node.until_up("peer").await;
            assert_eq!(session.counters.flaps, 0, "{session:#?}");
        }
        let ends = left.session("peer").await.addresses.unwrap();
        let seen = right.session("peer").await.addresses.unwrap();
        assert_eq!((ends.local, ends.remote), (seen.remote, seen.local));
    }
}

#[tokio::test]
async fn routes_carry_communities_and_internal_ones_their_preference() {
    for right_asn in [65002, 65001] {
        let (mut left, right) = pair(65001, right_asn).await;
        let mut routes = LocalRoutes::default();
        let attributes = ExportAttributes {
            communities: [Community::new(65001, 7).0, Community::NO_EXPORT.0].into(),
            large_communities: [(65001, 1, 2)].into(),
            local_pref: Some(300),
            ..ExportAttributes::default()
        };
        routes.add("10.1.0.0/24".parse().unwrap(), "peer".into(), attributes);
        left.locals = routes;
        left.apply().await;
        right.until_accepted("peer", 1).await;
        let received = right
            .routes(RouteTable::Received("peer".into()), Family::IPV4_UNICAST)
            .await;
        let route = &received[0];
        assert_eq!(route.next_hop, Some(next_hop(left.ip).into()));
        let attributes = route.attributes.as_ref().unwrap();
        assert_eq!(
            attributes.communities,
            [Community::new(65001, 7), Community::NO_EXPORT]
        );
        let large = LargeCommunity {
            global: 65001,
            local_1: 1,
            local_2: 2,
        };
        assert_eq!(attributes.large_communities, [large]);
        let path = attributes.as_path.clone().unwrap();
        if right_asn == 65001 {
            assert_eq!(attributes.local_pref, Some(300));
            assert_eq!(path.hop_count(), 0);
        } else {
            assert_eq!(attributes.local_pref, None);
            assert_eq!(path.iter().collect::<Vec<_>>(), [Asn(65001)]);
        }
        let source = if right_asn == 65001 {
            RouteSource::Ibgp
        } else {
            RouteSource::Ebgp
        };
        until("the best route is told", async || {
            right.has_event(|event| match event {
                RouteEvent::Best { changes, .. } => changes.iter().any(|change| {
                    let best = change.best.as_ref();
                    change.prefix == "10.1.0.0/24".parse().unwrap()
                        && best.is_some_and(|best| best.source == source)
                }),
                _ => false,
            })
        })
        .await;
    }
}

#[tokio::test]
async fn local_routes_change_while_the_session_stays() {
    let (mut left, right) = pair(65001, 65002).await;
    left.announce("peer", &["10.1.0.0/24", "10.2.0.0/24"]).await;
    right.until_accepted("peer", 2).await;
    left.announce("peer", &["10.2.0.0/24", "10.3.0.0/24", "10.4.0.0/24"])
        .await;
    right.until_accepted("peer", 3).await;
    let received = right
        .routes(RouteTable::Received("peer".into()), Family::IPV4_UNICAST)
        .await;
    let prefixes: Vec<String> = received.iter().map(|r| r.prefix.to_string()).collect();
    assert_eq!(prefixes, ["10.2.0.0/24", "10.3.0.0/24", "10.4.0.0/24"]);
    let advertised = left
        .routes(RouteTable::Advertised("peer".into()), Family::IPV4_UNICAST)
        .await;
    assert_eq!(advertised.len(), 3);
    left.announce("peer", &[]).await;
    right.until_accepted("peer", 0).await;
    assert_eq!(right.session("peer").await.counters.established, 1);
}

#[tokio::test]
async fn neighbours_are_added_and_removed_alone() {
    let (mut left, right) = pair(65001, 65002).await;
    let mut third = Node::start(65003).await;
    right.until_up("peer").await;
    third.set("peer", third.towards(&left)).await;
    // Not configured yet at the other end: refused, and tried again.
    third.until_down("peer", "Connection Rejected").await;
    left.set("third", left.towards(&third)).await;
    third.until_up("peer").await;
    left.announce("peer", &["10.1.0.0/24"]).await;
    right.until_accepted("peer", 1).await;

    left.remove("peer").await;
    assert!(left.report("peer").await.is_none());
    let told = right.until_down("peer", "Peer De-configured").await;
    assert_eq!(told.notification_received.unwrap().notification.code, 6);
    right.until_accepted("peer", 0).await;
    left.set("peer", left.towards(&right)).await;
    right.until_accepted("peer", 1).await;
    assert_eq!(third.session("peer").await.counters.established, 1);
    assert_eq!(left.session("third").await.counters.established, 1);
}

#[tokio::test]
async fn another_hold_time_resets_the_session_it_is_for() {
    let (mut left, right) = pair(65001, 65002).await;
    let mut third = Node::start(65003).await;
    third.set("peer", third.towards(&left)).await;
    left.set("third", left.towards(&third)).await;
    right.until_up("peer").await;
    left.until_up("peer").await;
    left.until_up("third").await;
    assert_eq!(left.session("peer").await.timers.hold_s, Some(9));

    let mut changed = left.config("peer");
    changed.timers = Timers::new(1, 6, 2).unwrap();
    left.set("peer", changed).await;
    right.until_down("peer", "Other Configuration Change").await;
    let again = left
        .until("peer", "up with the new hold time", |p| {
            p.session.counters.established == 2 && p.session.timers.hold_s == Some(6)
        })
        .await;
    assert_eq!(again.session.state, State::Established);
    assert_eq!(left.session("third").await.counters.established, 1);
}

#[tokio::test]
async fn another_as_number_than_configured_is_told_to_both_ends() {
    let mut left = Node::start(65001).await;
    let mut right = Node::start(65002).await;
    let mut to_right = left.towards(&right);
    to_right.asn = Some(Asn(65009));
    left.set("peer", to_right).await;
    right.set("peer", right.towards(&left)).await;
    left.until_down("peer", "peer AS is 65002, configured 65009")
        .await;
    right.until_down("peer", "Bad Peer AS").await;
    // Mended live.
    left.set("peer", left.towards(&right)).await;
    left.until_up("peer").await;
    right.until_up("peer").await;
}

#[tokio::test]
async fn a_shutdown_says_why() {
    let (left, right) = pair(65001, 65002).await;
    right.until_up("peer").await;
    left.until_up("peer").await;
    let message = "maintenance until 10:00".to_owned();
    left.stop(StopReason::Shutdown { message }).await;
    let told = right.until_down("peer", "maintenance until 10:00").await;
    let notification = told.notification_received.unwrap().notification;
    assert_eq!((notification.code, notification.subcode), (6, 2));
}

#[tokio::test]
async fn a_planned_restart_is_told_where_no_graceful_restart_was_agreed() {
    let (left, right) = pair(65001, 65002).await;
    right.until_up("peer").await;
    left.until_up("peer").await;
    left.stop(StopReason::PlannedRestart).await;
    let told = right.until_down("peer", "the speaker stops").await;
    let notification = told.notification_received.unwrap().notification;
    assert_eq!((notification.code, notification.subcode), (6, 2));
}

#[tokio::test]
async fn resets_come_back_and_soft_ones_do_not_end_anything() {
    let (mut left, right) = pair(65001, 65002).await;
    left.announce("peer", &["10.1.0.0/24"]).await;
    right.until_accepted("peer", 1).await;
    right.reset("peer", Reset::SoftIn).await;
    left.until("peer", "asked for its routes again", |p| {
        p.session.counters.received.route_refresh == 2
    })
    .await;
    // Begin and end of each family (RFC 7313), counted at both ends.
    right
        .until("peer", "the marks", |p| {
            p.session.counters.received.route_refresh == 4
        })
        .await;
    let answered = left.session("peer").await.counters.sent.route_refresh;
    assert_eq!(answered, 4);
    assert_eq!(right.session("peer").await.counters.established, 1);
    right.reset("peer", Reset::Hard).await;
    left.until_down("peer", "Administrative Reset").await;
    right
        .until("peer", "up again with its route", |p| {
            p.session.counters.established == 2 && counts(p, Family::IPV4_UNICAST).accepted == 1
        })
        .await;
    let nobody = "nobody".into();
    assert!(!right.speaker.reset(&right.name, &nobody, Reset::Hard).await);
}

#[tokio::test]
async fn the_end_of_a_neighbours_routes_and_of_an_instance_are_told() {
    let (mut left, right) = pair(65001, 65002).await;
    left.announce("peer", &["10.1.0.0/24"]).await;
    right.until_accepted("peer", 1).await;
    until("End-of-RIB is told", async || {
        right.has_event(|event| {
            matches!(event, RouteEvent::EndOfRib { peer, family, .. }
                if &*peer.0 == "peer" && *family == Family::IPV4_UNICAST)
        })
    })
    .await;
    assert_eq!(right.speaker.apply(Vec::new()).await, [] as [String; 0]);
    assert!(right.speaker.snapshot().await.is_empty());
    until("the instance's end is told", async || {
        right.has_event(
            |event| matches!(event, RouteEvent::InstanceGone(name) if *name == right.name),
        )
    })
    .await;
    left.until_down("peer", "Peer De-configured").await;
}

#[tokio::test]
async fn another_router_id_needs_another_instance_at_the_same_address() {
    let (mut left, mut right) = pair(65001, 65002).await;
    right.until_up("peer").await;
    // A port of its own choice now, so that the new instance must have the old one's.
    left.listen_port = left.port;
    left.apply().await;
    left.router_id = "192.0.2.1".parse().unwrap();
    left.apply().await;
    let snapshot = left.snapshot().await;
    assert_eq!(snapshot.listen_failures, []);
    assert_eq!(snapshot.listening, [left.socket()]);
    right
        .until("peer", "up with the new router id", |p| {
            p.session.state == State::Established
                && p.session.remote_router_id == Some("192.0.2.1".parse().unwrap())
        })
        .await;
    right.announce("peer", &["10.1.0.0/24"]).await;
    left.until_accepted("peer", 1).await;
}
