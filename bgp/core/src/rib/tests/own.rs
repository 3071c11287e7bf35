// SPDX-License-Identifier: Apache-2.0
//! Aggregates, routes to be dropped, next hops of third parties, and refreshes with marks.

use bgp_wire::{Community, RefreshKind, RouteRefresh};
use router_types::Forwarding;

use super::*;
use crate::config::{Aggregate, NextHopMode};

/// An instance that passes routes on, with a change to the families of all neighbours.
fn transit(names: &[&'static str], change: impl Fn(&mut FamilyConfig)) -> InstanceConfig {
    let plain = all(names);
    let mut config = InstanceConfig::new("i".into(), Asn(65001), plain.router_id()).unwrap();
    config.transit = Transit::Allowed;
    for (name, peer) in plain.peers() {
        let mut families = peer.families().clone();
        families.values_mut().for_each(&change);
        let peer = peer.clone().with_families(families).unwrap();
        config.add_peer(name.clone(), peer).unwrap();
    }
    config
}

/// What a neighbour has been sent once it has read everything.
fn advertised(rib: &mut Rib, peer: &str, now: Instant) -> Vec<RouteView> {
    sent(rib, peer);
    let query = RouteQuery {
        table: RouteTable::Advertised(peer.into()),
        family: Family::IPV4_UNICAST,
        filter: PrefixFilter::All,
        after: None,
        limit: 100,
    };
    rib.routes(&query, now).routes
}

#[test]
fn an_aggregate_is_announced_and_its_remainder_dropped_while_something_is_within() {
    let now = Instant::now();
    let mut config = transit(&["a", "b"], |_| {});
    config.aggregates.push(Aggregate {
        prefix: "10.0.0.0/8".parse().unwrap(),
        summary_only: true,
    });
    let mut rib = ready(config.clone(), now);
    up(&mut rib, "a", 10, 65010, now);
    up(&mut rib, "b", 11, 65011, now);
    let aggregate = "10.0.0.0/8".parse().unwrap();
    let inner = "10.1.0.0/16".parse().unwrap();
    assert!(advertised(&mut rib, "b", now).is_empty());
    announce(
        &mut rib,
        "a",
        &["10.1.0.0/16", "192.0.2.0/24"],
        &[65010],
        "10.0.0.10",
        now,
    );
    let (announced, withdrawn, _) = sent(&mut rib, "b");
    assert_eq!(announced, ["192.0.2.0/24", "10.0.0.0/8"].map(str::to_owned));
    assert!(withdrawn.is_empty());
    let shown = advertised(&mut rib, "b", now);
    let attributes = shown[0].attributes.as_ref().unwrap();
    assert_eq!(attributes.as_path.as_ref().unwrap().to_string(), "65001");
    assert!(attributes.atomic_aggregate);
    let aggregator = attributes.aggregator.unwrap();
    assert_eq!(
        (aggregator.asn, aggregator.router_id),
        (Asn(65001), config.router_id())
    );
    assert_eq!(
        rib.best(&aggregate).unwrap().discard,
        Some(Forwarding::Unreachable)
    );
    assert_eq!(
        rib.best(&inner).unwrap().discard,
        None,
        "what is within goes on"
    );
    assert_eq!(rib.suppressed_by(&inner), Some(aggregate));
    assert_eq!(rib.suppressed_by(&aggregate), None);

    // Live: without summary-only, both; then none.
    config.aggregates[0].summary_only = false;
    rib.handle(RibInput::Configure(Box::new(config.clone())), now);
    assert_eq!(sent(&mut rib, "b").0, ["10.1.0.0/16"]);
    config.aggregates.clear();
    rib.handle(RibInput::Configure(Box::new(config.clone())), now);
    assert_eq!(sent(&mut rib, "b").1, ["10.0.0.0/8"]);
    assert_eq!(rib.best(&aggregate), None);

    // A node that passes nothing on does not stand for what it learned.
    config.transit = Transit::Never;
    config.aggregates.push(Aggregate {
        prefix: aggregate,
        summary_only: false,
    });
    rib.handle(RibInput::Configure(Box::new(config)), now);
    assert!(advertised(&mut rib, "b", now).is_empty());
    rib.handle(local(&[("10.2.0.0/16", &["b"])]), now);
    let shown: Vec<String> = advertised(&mut rib, "b", now)
        .iter()
        .map(|route| route.prefix.to_string())
        .collect();
    assert_eq!(shown, ["10.0.0.0/8", "10.2.0.0/16"]);
}

#[test]
fn a_route_that_asks_for_it_is_dropped_and_stays_where_that_was_agreed_on() {
    let now = Instant::now();
    for agreed in [false, true] {
        let config = transit(&["a", "b"], |family| family.blackhole = agreed);
        let mut rib = ready(config, now);
        up(&mut rib, "a", 10, 65010, now);
        up(&mut rib, "b", 11, 65011, now);
        let attributes = PathAttributes {
            origin: Some(Origin::Igp),
            as_path: Some(AsPath::from_sequence([Asn(65010)])),
            communities: vec![Community::BLACKHOLE],
            ..PathAttributes::default()
        };
        announce_with(
            &mut rib,
            "a",
            &["192.0.2.1/32"],
            &attributes,
            "10.0.0.10",
            now,
        );
        let best = rib.best(&"192.0.2.1/32".parse().unwrap()).unwrap();
        assert_eq!(best.discard, agreed.then_some(Forwarding::Blackhole));
        assert_eq!(best.next_hops.is_empty(), agreed);
        assert_eq!(advertised(&mut rib, "b", now).is_empty(), agreed);
    }
}

#[test]
fn a_router_on_the_shared_network_stays_the_next_hop() {
    let now = Instant::now();
    let shared = "10.0.0.0/24".parse().ok();
    // Route by its next hop; what b is to be sent.
    let cases = [
        ("10.0.0.10", "10.0.0.10"),
        // A router nobody has a session with.
        ("10.0.0.99", "10.0.0.99"),
        // Another neighbour, and b itself.
        ("10.0.0.12", "10.0.0.1"),
        ("10.0.0.11", "10.0.0.1"),
        // Elsewhere.
        ("10.9.0.1", "10.0.0.1"),
    ];
    for mode in [NextHopMode::Auto, NextHopMode::ToSelf] {
        let config = transit(&["a", "b", "c"], |family| family.next_hop_mode = mode);
        let mut rib = ready(config, now);
        for (name, number) in [("a", 10), ("b", 11), ("c", 12)] {
            let mut info = session(number, 65000 + u32::from(number));
            info.addresses.network = shared;
            let peer = name.into();
            rib.handle(
                RibInput::PeerUp {
                    peer,
                    session: info,
                },
                now,
            );
        }
        for (hop, wanted) in cases {
            announce(&mut rib, "a", &["192.0.2.0/24"], &[65010], hop, now);
            let shown = advertised(&mut rib, "b", now);
            let found = shown[0].next_hop.map(|hop| hop.to_string());
            let wanted = if mode == NextHopMode::Auto {
                wanted
            } else {
                "10.0.0.1"
            };
            assert_eq!(found.as_deref(), Some(wanted), "{hop} {mode:?}");
        }
    }
}

#[test]
fn a_refresh_is_marked_both_ways_and_what_does_not_come_again_is_gone() {
    let now = Instant::now();
    let mut rib = ready(transit(&["a", "b"], |_| {}), now);
    for (name, number) in [("a", 10), ("b", 11)] {
        let mut info = session(number, 65000 + u32::from(number));
        info.enhanced_refresh = true;
        let peer = name.into();
        rib.handle(
            RibInput::PeerUp {
                peer,
                session: info,
            },
            now,
        );
    }
    announce(
        &mut rib,
        "a",
        &["10.1.0.0/16", "10.2.0.0/16"],
        &[65010],
        "10.0.0.10",
        now,
    );
    while rib.poll_transmit(&"b".into()).is_some() {}

    let family = Family::IPV4_UNICAST;
    rib.handle(
        RibInput::Resend {
            peer: "b".into(),
            family,
        },
        now,
    );
    let mut kinds = Vec::new();
    while let Some(transmit) = rib.poll_transmit(&"b".into()) {
        let mut rest = &transmit.bytes[..];
        while let Some(frame) = bgp_wire::frame::next(rest, 4096).unwrap() {
            kinds.push(match frame.kind {
                bgp_wire::MessageKind::RouteRefresh => RouteRefresh::decode(frame.body)
                    .unwrap()
                    .map(|refresh| refresh.kind),
                _ => None,
            });
            rest = &rest[frame.len..];
        }
    }
    let (first, last) = (kinds.first().copied(), kinds.last().copied());
    assert_eq!(first, Some(Some(RefreshKind::Begin)));
    assert_eq!(last, Some(Some(RefreshKind::End)));
    assert_eq!(kinds.len(), 3, "one UPDATE between");

    // The other way: one of the two does not come again.
    let peer = || "a".into();
    rib.handle(
        RibInput::RefreshBegins {
            peer: peer(),
            family,
        },
        now,
    );
    assert_eq!(rib.counts(&peer())[&family].stale, 2);
    announce(&mut rib, "a", &["10.1.0.0/16"], &[65010], "10.0.0.10", now);
    assert_eq!(rib.counts(&peer())[&family].received, 2, "kept meanwhile");
    rib.handle(
        RibInput::RefreshEnds {
            peer: peer(),
            family,
        },
        now,
    );
    assert_eq!(rib.counts(&peer())[&family].received, 1);
    assert_eq!(sent(&mut rib, "b").1, ["10.2.0.0/16"]);
    // An end without a beginning means nothing, and a beginning without an end is over some day.
    rib.handle(
        RibInput::RefreshEnds {
            peer: peer(),
            family,
        },
        now,
    );
    assert_eq!(rib.counts(&peer())[&family].received, 1);
    rib.handle(
        RibInput::RefreshBegins {
            peer: peer(),
            family,
        },
        now,
    );
    let (at, _) = rib.poll_timeout().unwrap();
    rib.handle(RibInput::Timeout, at);
    assert_eq!(rib.counts(&peer())[&family].received, 0);
}
