// SPDX-License-Identifier: Apache-2.0
//! Speakers against each other over loopback, each on its own 127.0.0.x.

mod support;

use std::time::Duration;

use bgp_core::config::{ConnectMode, ImportMode, Md5Password};
use bgp_core::fsm::State;
use bgp_core::rib::{PrefixFilter, RouteQuery, RouteTable};
use bgp_io::{Options, ResetKind, StopKind};
use router_types::{Asn, Family, RouteSource};
use support::{Side, free_port, local_routes, session, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_speakers_exchange_routes_and_notice_when_one_stops() {
    let port = free_port();
    let a = Side::new("127.0.1.1", 65001, port);
    let b = Side::new("127.0.1.2", 65002, port);
    let left = a.start(&b, |_| ()).await;
    let right = b
        .start(&a, |peer| *peer = support::importing(peer, ImportMode::All))
        .await;
    left.set_local_routes(&"i".into(), local_routes(&["10.1.0.0/24", "10.2.0.0/24"]))
        .await
        .unwrap();

    until("both sessions up", || async {
        session(&left).await.state == State::Established
            && session(&right).await.state == State::Established
    })
    .await;

    let mut changes = right.subscribe().await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let (_, batch) = tokio::time::timeout(Duration::from_secs(20), changes.next())
            .await
            .expect("changes in time")
            .expect("the speaker runs");
        seen.extend(batch);
    }
    let best = seen[0].best.as_ref().unwrap();
    assert_eq!(best.source, RouteSource::Ebgp);
    assert_eq!(
        best.next_hops[0].via,
        Some(support::NEXT_HOP.parse().unwrap())
    );

    let query = |table| RouteQuery {
        table,
        family: Family::IPV4_UNICAST,
        filter: PrefixFilter::All,
        after: None,
        limit: 10,
    };
    let page = right
        .routes(&"i".into(), query(RouteTable::Received("p".into())))
        .await
        .unwrap();
    assert_eq!(page.routes.len(), 2);
    let path = page.routes[0]
        .attributes
        .as_ref()
        .unwrap()
        .as_path
        .clone()
        .unwrap();
    assert_eq!(path.to_string(), "65001");
    let page = left
        .routes(&"i".into(), query(RouteTable::Advertised("p".into())))
        .await
        .unwrap();
    assert_eq!(page.routes.len(), 2);

    left.reset(&"i".into(), &"p".into(), ResetKind::Hard)
        .await
        .unwrap();
    until("up again after a reset", || async {
        let left = session(&left).await;
        left.state == State::Established && left.counters.established == 2
    })
    .await;

    left.stop(StopKind::Shutdown("upgrade".into()))
        .await
        .unwrap();
    until("the other side knows why", || async {
        let snapshot = session(&right).await;
        snapshot.notification_received.is_some_and(|record| {
            record.notification.text.contains("Administrative Shutdown")
                && record.notification.text.contains("upgrade")
        })
    })
    .await;
    right.stop(StopKind::PlannedRestart).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn md5_passwords_must_match() {
    let port = free_port();
    let a = Side::new("127.0.2.1", 65001, port);
    let b = Side::new("127.0.2.2", 65002, port);
    let password = |text: &str| Some(Md5Password::new(text).unwrap());
    let left = a.start(&b, |peer| peer.password = password("right")).await;
    let right = b
        .start(&a, |peer| {
            peer.password = password("wrong");
            peer.connect = ConnectMode::Passive;
        })
        .await;
    until("the password is suspected", || async {
        let snapshot = session(&left).await;
        snapshot.last_error.is_some_and(|(_, reason)| {
            reason.to_string() == "no answer: is the MD5 password right?"
        })
    })
    .await;
    assert_ne!(session(&left).await.state, State::Established);
    // Mended live: the listening socket's key is replaced.
    right
        .apply(vec![b.config(&a, |peer| {
            peer.password = password("right");
            peer.connect = ConnectMode::Passive;
        })])
        .await
        .unwrap();
    until("up with the same password", || async {
        session(&left).await.state == State::Established
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_peer_as_is_told_to_both_sides() {
    let port = free_port();
    let a = Side::new("127.0.3.1", 65001, port);
    let b = Side::new("127.0.3.2", 65002, port);
    let left = a.start(&b, |peer| peer.asn = Some(Asn(65009))).await;
    let right = b.start(&a, |_| ()).await;
    until("the left side says what is wrong", || async {
        session(&left)
            .await
            .last_error
            .is_some_and(|(_, reason)| reason.to_string() == "peer AS is 65002, configured 65009")
    })
    .await;
    until("the right side was told", || async {
        session(&right)
            .await
            .notification_received
            .is_some_and(|record| record.notification.text.contains("Bad Peer AS"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_change_does_not_reset_the_session() {
    let port = free_port();
    let a = Side::new("127.0.4.1", 65001, port);
    let b = Side::new("127.0.4.2", 65002, port);
    let left = a.start(&b, |_| ()).await;
    let right = b.start(&a, |_| ()).await;
    left.set_local_routes(&"i".into(), local_routes(&["10.1.0.0/24"]))
        .await
        .unwrap();
    until("up", || async {
        session(&right).await.state == State::Established
    })
    .await;
    until("the route was rejected by the default policy", || async {
        let counts = support::counts(&right).await;
        counts.received == 1 && counts.rejected == 1
    })
    .await;
    let wide = b.config(&a, |peer| *peer = support::importing(peer, ImportMode::All));
    right.apply(vec![wide]).await.unwrap();
    until("asked for again and accepted", || async {
        let counts = support::counts(&right).await;
        counts.accepted == 1 && counts.rejected == 0
    })
    .await;
    assert_eq!(session(&right).await.counters.established, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_of_a_live_session_replays() {
    let port = free_port();
    let a = Side::new("127.0.5.1", 65001, port);
    let b = Side::new("127.0.5.2", 65002, port);
    let file = std::env::temp_dir().join(format!("bgp-io-recording-{}", std::process::id()));
    let options = Options {
        record_to: Some(file.clone()),
        ..Options::default()
    };
    let left = a.start_with(options, &b, |_| ()).await;
    let right = b.start(&a, |_| ()).await;
    right
        .set_local_routes(&"i".into(), local_routes(&["0.0.0.0/0"]))
        .await
        .unwrap();
    until("the default route is taken", || async {
        support::counts(&left).await.accepted == 1
    })
    .await;
    left.stop(StopKind::Shutdown(String::new())).await.unwrap();
    let recording = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let outputs = bgp_core::record::replay(&recording).unwrap();
    assert!(outputs.contains("p: Up"), "{outputs}");
    assert!(
        outputs.contains("BestChange { prefix: 0.0.0.0/0"),
        "{outputs}"
    );
    assert_eq!(outputs, bgp_core::record::replay(&recording).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_restart_loses_no_route() {
    let port = free_port();
    let a = Side::new("127.0.11.1", 65001, port);
    let b = Side::new("127.0.11.2", 65002, port);
    let graceful = |peer: &mut bgp_core::config::PeerConfig| {
        *peer = support::importing(peer, ImportMode::All);
        peer.graceful_restart = Some(bgp_core::config::GracefulRestart::new(60).unwrap());
    };
    let left = a.start(&b, graceful).await;
    let right = b.start(&a, graceful).await;
    right
        .set_local_routes(&"i".into(), local_routes(&[]))
        .await
        .unwrap();
    left.set_local_routes(&"i".into(), local_routes(&["10.1.0.0/24", "10.2.0.0/24"]))
        .await
        .unwrap();
    until("routes are there", || async {
        support::counts(&right).await.accepted == 2
    })
    .await;
    left.stop(StopKind::PlannedRestart).await.unwrap();
    until("they are stale", || async {
        support::counts(&right).await.stale == 2
    })
    .await;
    assert_eq!(support::counts(&right).await.accepted, 2);

    let back = Options {
        restarted: true,
        forwarding_preserved: true,
        ..Options::default()
    };
    let left = a.start_with(back, &b, graceful).await;
    until("up again", || async {
        session(&right).await.state == State::Established
    })
    .await;
    assert_eq!(
        support::counts(&right).await.accepted,
        2,
        "kept until renewed"
    );
    left.set_local_routes(&"i".into(), local_routes(&["10.1.0.0/24"]))
        .await
        .unwrap();
    until("one renewed, one dropped at End-of-RIB", || async {
        let counts = support::counts(&right).await;
        counts.accepted == 1 && counts.stale == 0
    })
    .await;
}
