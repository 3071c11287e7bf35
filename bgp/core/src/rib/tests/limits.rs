// SPDX-License-Identifier: Apache-2.0
//! How many routes a neighbour may send.

use super::*;
use crate::config::PrefixLimit;

#[test]
fn a_limit_is_said_to_be_near_and_one_that_only_warns_takes_all() {
    let now = Instant::now();
    let mut config = config(&[("a", ImportMode::All, Some(4))]);
    let peer = config.peers()[&PeerName::from("a")].clone();
    let mut families = peer.families().clone();
    for family in families.values_mut() {
        let mut limit = PrefixLimit::new(4).unwrap().with_warning(50).unwrap();
        limit.beyond = crate::config::BeyondLimit::WarnOnly;
        family.limit = Some(limit);
    }
    let mut next = InstanceConfig::new("i".into(), Asn(65001), config.router_id()).unwrap();
    next.add_peer("a".into(), peer.with_families(families).unwrap())
        .unwrap();
    config = next;
    let mut rib = Rib::new(config, now);
    up(&mut rib, "a", 10, 65002, now);
    for n in 0..8 {
        for _ in 0..2 {
            announce(
                &mut rib,
                "a",
                &[&format!("10.{n}.0.0/16")],
                &[65002],
                "10.0.0.10",
                now,
            );
        }
    }
    let said: Vec<u64> = std::iter::from_fn(|| rib.poll_output())
        .map(|output| match output {
            RibOutput::LimitNear { routes, .. } => routes,
            RibOutput::ExportLimit { .. } | RibOutput::LimitExceeded { .. } => {
                panic!("it only warns")
            }
        })
        .collect();
    assert_eq!((said, rib.stats().routes), (vec![2, 5], 8));
}

#[test]
fn one_route_too_many_is_reported_once() {
    let now = Instant::now();
    let mut rib = Rib::new(config(&[("a", ImportMode::All, Some(1))]), now);
    up(&mut rib, "a", 10, 65002, now);
    announce(
        &mut rib,
        "a",
        &["10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"],
        &[65002],
        "10.0.0.10",
        now,
    );
    assert!(matches!(
        rib.poll_output(),
        Some(RibOutput::LimitNear { routes: 1, .. })
    ));
    assert!(matches!(
        rib.poll_output(),
        Some(RibOutput::LimitExceeded { limit: 1, .. })
    ));
    assert_eq!(rib.poll_output(), None);
    assert_eq!(rib.counts(&"a".into())[&Family::IPV4_UNICAST].accepted, 1);
}

#[test]
fn a_limit_that_becomes_lower_counts_at_once() {
    let now = Instant::now();
    let mut rib = Rib::new(all(&["a"]), now);
    up(&mut rib, "a", 10, 65002, now);
    let prefixes = ["10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16"];
    announce(&mut rib, "a", &prefixes, &[65002], "10.0.0.10", now);
    assert_eq!(rib.poll_output(), None);
    let limited = config(&[("a", ImportMode::All, Some(2))]);
    rib.handle(RibInput::Configure(Box::new(limited)), now);
    let said = rib.poll_output();
    assert!(
        matches!(said, Some(RibOutput::LimitExceeded { limit: 2, .. })),
        "{said:?}"
    );
    assert_eq!(rib.poll_output(), None, "once");
}

#[test]
fn routes_beyond_the_limit_of_what_is_sent_wait_until_others_go() {
    let now = Instant::now();
    let limited = |limit: Option<u32>| {
        let plain = all(&["a"]);
        let mut next = InstanceConfig::new("i".into(), Asn(65001), plain.router_id()).unwrap();
        let peer = plain.peers()[&PeerName::from("a")].clone();
        let mut families = peer.families().clone();
        for family in families.values_mut() {
            family.limit_out = limit.and_then(std::num::NonZeroU32::new);
        }
        let peer = peer.with_families(families).unwrap();
        next.add_peer("a".into(), peer).unwrap();
        next
    };
    let mut rib = Rib::new(limited(Some(2)), now);
    let prefix = |n: usize| format!("10.{n}.0.0/16");
    let locals = |range: std::ops::Range<usize>| {
        let prefixes: Vec<String> = range.map(prefix).collect();
        let told: Vec<(&str, &[&str])> =
            prefixes.iter().map(|p| (p.as_str(), &["a"][..])).collect();
        local(&told)
    };
    rib.handle(locals(0..4), now);
    up(&mut rib, "a", 10, 65002, now);
    let (announced, ..) = sent(&mut rib, "a");
    assert_eq!(announced, ["10.0.0.0/16", "10.1.0.0/16"]);
    let news = |rib: &mut Rib| std::iter::from_fn(|| rib.poll_output()).collect::<Vec<_>>();
    let reached = RibOutput::ExportLimit {
        peer: "a".into(),
        family: Family::IPV4_UNICAST,
        limit: 2,
    };
    assert_eq!(news(&mut rib), [reached]);
    let counts = rib.counts(&"a".into())[&Family::IPV4_UNICAST];
    assert_eq!((counts.advertised, counts.held), (2, 2));
    let waits = rib.explain(prefix(3).parse::<IpNet>().unwrap(), None, now);
    let why = waits.adverts[0].routes[0].outcome.as_ref().unwrap_err();
    assert_eq!(*why, Withheld::Limit);

    // One goes, the next one takes its place; that is no news.
    rib.handle(locals(1..4), now);
    let (announced, withdrawn, _) = sent(&mut rib, "a");
    assert_eq!((announced, withdrawn), (vec![prefix(2)], vec![prefix(0)]));
    assert_eq!(news(&mut rib), []);

    // A higher limit, by a live change.
    rib.handle(RibInput::Configure(Box::new(limited(None))), now);
    let (announced, withdrawn, _) = sent(&mut rib, "a");
    assert!(announced.contains(&prefix(3)), "{announced:?}");
    assert_eq!(withdrawn, Vec::<String>::new());
    assert_eq!(rib.counts(&"a".into())[&Family::IPV4_UNICAST].held, 0);
}

#[test]
fn what_a_neighbour_said_itself_takes_no_place_among_what_it_is_sent() {
    let now = Instant::now();
    for several in [false, true] {
        let plain = all(&["a", "b", "c"]);
        let mut config = InstanceConfig::new("i".into(), Asn(65001), plain.router_id()).unwrap();
        config.transit = Transit::Allowed;
        for (name, peer) in plain.peers() {
            let mut families = peer.families().clone();
            for family in families.values_mut() {
                family.limit_out = std::num::NonZeroU32::new(2).filter(|_| &*name.0 != "b");
                family.add_path.send = std::num::NonZeroU8::new(2).filter(|_| several);
            }
            let peer = peer.clone().with_families(families).unwrap();
            config.add_peer(name.clone(), peer).unwrap();
        }
        let mut rib = Rib::new(config, now);
        rib.handle(local(&[]), now);
        for (name, number) in [("a", 10), ("b", 11), ("c", 12)] {
            let mut session = session(number, 65000 + u32::from(number));
            for family in &mut session.families {
                family.add_path_send = several;
            }
            let peer = name.into();
            rib.handle(RibInput::PeerUp { peer, session }, now);
        }
        let own = ["10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16"];
        announce(&mut rib, "a", &own, &[65010], "10.0.0.10", now);
        let others = ["10.6.0.0/16", "10.7.0.0/16", "10.8.0.0/16"];
        announce(&mut rib, "b", &others, &[65011], "10.0.0.11", now);
        while ["a", "b", "c"]
            .iter()
            .any(|name| rib.poll_transmit(&(*name).into()).is_some())
        {}
        let counts = |rib: &Rib, peer: &str| {
            let counts = rib.counts(&peer.into())[&Family::IPV4_UNICAST];
            (counts.advertised, counts.held)
        };
        assert_eq!(counts(&rib, "a"), (2, 1), "several: {several}");
        assert_eq!(counts(&rib, "b"), (3, 0));
        assert_eq!(counts(&rib, "c"), (2, 4));
        // Better than its own from then on: it has no place for it.
        announce(&mut rib, "b", &own[..1], &[65011], "10.0.0.11", now);
        withdraw(&mut rib, "a", own[0], now);
        while rib.poll_transmit(&"a".into()).is_some() {}
        assert_eq!(counts(&rib, "a"), (2, 2), "several: {several}");
    }
}
