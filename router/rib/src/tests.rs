// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;
use router_types::{
    Forwarding, IpNet, Ipv4Net, LinkIndex, NextHop, Route, RouteKey, RouteSource, TableId,
};

use crate::{
    Config, FibChange, KernelRoute, Link, NextHopState, OriginId, Refusal, Rib, Rivalry,
    TopologyChange, TrackedNextHop, Unresolved, Verdict,
};

const A: LinkIndex = LinkIndex(2);
const B: LinkIndex = LinkIndex(3);
const BGP: OriginId = OriginId(1);
const BGP2: OriginId = OriginId(2);
const FILE: OriginId = OriginId(3);

#[test]
fn next_hops_of_one_source_are_merged_without_duplicates() {
    let mut rib = two_links();
    rib.set(BGP, ebgp("10.0.0.0/8", &["192.0.2.1", "198.51.100.1"]));
    rib.set(BGP2, ebgp("10.0.0.0/8", &["198.51.100.1", "198.51.100.2"]));
    let expected = [
        hop("192.0.2.1", A),
        hop("198.51.100.1", B),
        hop("198.51.100.2", B),
    ]
    .to_vec();
    assert_eq!(
        fib(&mut rib),
        [("10.0.0.0/8".to_owned(), Some(Forwarding::Via(expected)))]
    );
    rib.withdraw(BGP2, RouteSource::Ebgp, &key("10.0.0.0/8"));
    rib.withdraw(BGP, RouteSource::Ebgp, &key("10.0.0.0/8"));
    assert_eq!(fib(&mut rib), [("10.0.0.0/8".to_owned(), None)]);
    assert_eq!(rib.counts(), (0, 0));
}

#[test]
fn a_better_source_wins_while_it_has_a_way() {
    let mut rib = two_links();
    rib.set(BGP, ebgp("10.0.0.0/8", &["192.0.2.1"]));
    let by_file = route("10.0.0.0/8", RouteSource::Static, via(&["198.51.100.7"]));
    rib.set(FILE, by_file);
    assert_eq!(gateways(&mut rib, "10.0.0.0/8"), ["198.51.100.7"]);
    let why = rib.explain(&key("10.0.0.0/8"));
    let verdicts: Vec<_> = why
        .candidates
        .iter()
        .map(|c| (c.source, c.verdict.clone()))
        .collect();
    assert_eq!(
        verdicts,
        [
            (RouteSource::Static, Verdict::Used),
            (RouteSource::Ebgp, Verdict::Outranked(RouteSource::Static)),
        ]
    );
    rib.handle_topology(TopologyChange::LinkSet(link(B, "b", false)));
    assert_eq!(gateways(&mut rib, "10.0.0.0/8"), ["192.0.2.1"]);
    let why = rib.explain(&key("10.0.0.0/8"));
    assert_eq!(why.candidates[0].verdict, Verdict::Unresolved);
    assert_eq!(
        why.candidates[0].next_hops.as_ref().unwrap()[0].resolved,
        Err(Unresolved::NoCarrier("b".to_owned()))
    );
    assert_eq!(why.candidates[1].verdict, Verdict::Used);
}

#[test]
fn unreachable_counts_only_where_nobody_of_its_source_has_a_way() {
    let mut rib = two_links();
    rib.set(
        FILE,
        route("10.244.0.0/24", RouteSource::Local, Forwarding::Unreachable),
    );
    let unreachable = Some(Forwarding::Unreachable);
    assert_eq!(
        fib(&mut rib),
        [("10.244.0.0/24".to_owned(), unreachable.clone())]
    );
    rib.set(BGP, ebgp("10.244.0.0/24", &["192.0.2.1"]));
    assert_eq!(fib(&mut rib), [], "local before learned");
    rib.set(
        BGP,
        route("10.244.0.0/24", RouteSource::Local, via(&["192.0.2.1"])),
    );
    assert_eq!(gateways(&mut rib, "10.244.0.0/24"), ["192.0.2.1"]);
    let why = rib.explain(&key("10.244.0.0/24"));
    let file = why.candidates.iter().find(|c| c.origin == FILE).unwrap();
    assert_eq!(file.verdict, Verdict::OthersHaveAWay);
}

#[test]
fn an_unresolved_next_hop_says_why() {
    let mut rib = two_links();
    foreign(&mut rib, "0.0.0.0/0", 100, "dhcp", &[hop("192.0.2.254", A)]);
    foreign(&mut rib, "172.16.0.0/12", 0, "static", &[]);
    let cases = [
        (
            "10.1.0.0/16",
            hop_of("203.0.113.1", None),
            Unresolved::OnlyDefaultRoute,
        ),
        (
            "10.2.0.0/16",
            hop_of("192.0.2.100", None),
            Unresolved::OwnAddress,
        ),
        (
            "10.3.0.0/16",
            hop_of("172.16.0.1", None),
            Unresolved::Discarded,
        ),
        ("10.4.0.0/16", hop_of("fe80::1", None), Unresolved::NoDevice),
        (
            "10.5.0.0/16",
            hop_of("fe80::1", Some(LinkIndex(9))),
            Unresolved::DeviceGone,
        ),
        (
            "10.6.0.0/16",
            hop_of("198.51.100.1", Some(A)),
            Unresolved::OnlyDefaultRoute,
        ),
        (
            "10.7.0.0/16",
            hop_of("2001:db8::1", None),
            Unresolved::NoRoute,
        ),
        (
            "2001:db8::/32",
            hop_of("192.0.2.1", None),
            Unresolved::WrongFamily,
        ),
    ];
    for (prefix, next_hop, expected) in cases {
        rib.set(
            BGP,
            route(prefix, RouteSource::Ebgp, Forwarding::Via(vec![next_hop])),
        );
        assert_eq!(fib(&mut rib), [], "{prefix}");
        let why = rib.explain(&key(prefix));
        assert_eq!(why.candidates[0].verdict, Verdict::Unresolved);
        let report = &why.candidates[0].next_hops.as_ref().unwrap()[0];
        assert_eq!(report.resolved, Err(expected), "{prefix}");
    }
}

#[test]
fn next_hops_resolve_over_foreign_routes_and_share_their_ways() {
    let mut rib = two_links();
    let ways = [hop("192.0.2.1", A), hop("198.51.100.1", B)];
    foreign(&mut rib, "203.0.113.0/24", 0, "static", &ways);
    rib.set(BGP, ebgp("10.0.0.0/8", &["203.0.113.9"]));
    assert_eq!(
        gateways(&mut rib, "10.0.0.0/8"),
        ["192.0.2.1", "198.51.100.1"]
    );
    // Never over the RIB's own.
    rib.set(BGP, ebgp("10.9.0.0/16", &["10.0.0.1"]));
    assert_eq!(fib(&mut rib), []);
    rib.handle_topology(TopologyChange::RouteGone {
        key: key("203.0.113.0/24"),
        metric: 0,
        protocol: "static".to_owned(),
    });
    assert_eq!(fib(&mut rib), [("10.0.0.0/8".to_owned(), None)]);
}

#[test]
fn a_default_route_resolves_only_when_configured() {
    let mut rib = Rib::new(Config {
        resolve_via_default: true,
        ..Config::default()
    });
    ground(&mut rib);
    foreign(&mut rib, "0.0.0.0/0", 100, "dhcp", &[hop("192.0.2.254", A)]);
    rib.set(BGP, ebgp("10.0.0.0/8", &["203.0.113.9"]));
    assert_eq!(gateways(&mut rib, "10.0.0.0/8"), ["192.0.2.254"]);
}

#[test]
fn ipv4_goes_over_link_local_next_hops() {
    let mut rib = two_links();
    let hops = vec![hop("fe80::1", A), hop("fe80::1", B)];
    rib.set(
        BGP,
        route("0.0.0.0/0", RouteSource::Ebgp, Forwarding::Via(hops)),
    );
    assert_eq!(gateways(&mut rib, "0.0.0.0/0"), ["fe80::1", "fe80::1"]);
    rib.handle_topology(TopologyChange::LinkGone(A));
    assert_eq!(gateways(&mut rib, "0.0.0.0/0"), ["fe80::1"]);
}

#[test]
fn learned_routes_leave_connected_networks_peers_and_own_addresses_alone() {
    let mut rib = two_links();
    rib.set_peers([(TableId::MAIN, ip("192.0.2.1"))]);
    let connected = Refusal::Connected { link: Some(A) };
    let network = Refusal::PeerNetwork {
        network: "192.0.2.0/24".parse().unwrap(),
    };
    let own = Refusal::OwnAddress {
        address: ip("198.51.100.100"),
    };
    let refused = [
        ("192.0.2.0/24", connected),
        ("192.0.2.1/32", network.clone()),
        ("192.0.2.128/25", network),
        ("198.51.100.100/32", own.clone()),
        ("198.51.100.64/26", own),
    ];
    for (prefix, expected) in refused {
        rib.set(BGP, ebgp(prefix, &["198.51.100.9"]));
        assert_eq!(fib(&mut rib), [], "{prefix}");
        let why = rib.explain(&key(prefix));
        assert_eq!(
            why.candidates[0].verdict,
            Verdict::Refused(expected),
            "{prefix}"
        );
    }
    // Wider ones, and parts of networks without a peer or own address in them, are fine.
    for prefix in [
        "192.0.0.0/16",
        "0.0.0.0/0",
        "198.51.100.0/26",
        "198.51.100.7/32",
    ] {
        rib.set(BGP, ebgp(prefix, &["198.51.100.9"]));
        assert_eq!(gateways(&mut rib, prefix), ["198.51.100.9"], "{prefix}");
    }
    // The node's own subsystems know what they do.
    rib.set(
        FILE,
        route("192.0.2.7/32", RouteSource::Static, via(&["198.51.100.9"])),
    );
    assert_eq!(gateways(&mut rib, "192.0.2.7/32"), ["198.51.100.9"]);
}

#[test]
fn a_network_that_becomes_connected_takes_its_learned_route_away() {
    let mut rib = two_links();
    rib.set(BGP, ebgp("203.0.113.0/24", &["192.0.2.1"]));
    assert_eq!(gateways(&mut rib, "203.0.113.0/24"), ["192.0.2.1"]);
    rib.handle_topology(TopologyChange::RouteSet(connected("203.0.113.0/24", B)));
    assert_eq!(fib(&mut rib), [("203.0.113.0/24".to_owned(), None)]);
    rib.handle_topology(TopologyChange::LinkGone(B));
    assert_eq!(gateways(&mut rib, "203.0.113.0/24"), ["192.0.2.1"]);
}

#[test]
fn foreign_routes_to_the_same_prefix_are_shown_with_who_wins() {
    let mut rib = two_links();
    let gateway = [hop("198.51.100.254", B)];
    foreign(&mut rib, "0.0.0.0/0", 100, "dhcp", &gateway);
    rib.set(BGP, ebgp("0.0.0.0/0", &["192.0.2.1"]));
    assert_eq!(gateways(&mut rib, "0.0.0.0/0"), ["192.0.2.1"]);
    let rivals = |rib: &Rib| -> Vec<(String, Rivalry)> {
        let rivals = rib.explain(&key("0.0.0.0/0")).rivals;
        rivals
            .into_iter()
            .map(|r| (r.route.protocol, r.rivalry))
            .collect()
    };
    assert_eq!(rivals(&rib), [("dhcp".to_owned(), Rivalry::Ours)]);
    foreign(&mut rib, "0.0.0.0/0", 0, "boot", &gateway);
    assert_eq!(fib(&mut rib), []);
    assert_eq!(
        rivals(&rib),
        [
            ("boot".to_owned(), Rivalry::Theirs),
            ("dhcp".to_owned(), Rivalry::Ours)
        ]
    );
    // Exactly our metric: the place is taken.
    foreign(&mut rib, "0.0.0.0/0", 20, "static", &gateway);
    assert_eq!(fib(&mut rib), [("0.0.0.0/0".to_owned(), None)]);
    let why = rib.explain(&key("0.0.0.0/0"));
    let taken = Refusal::Taken {
        protocol: "static".to_owned(),
    };
    assert_eq!(why.candidates[0].verdict, Verdict::Refused(taken));
}

#[test]
fn tracked_next_hops_are_told_once_and_when_they_change() {
    let mut rib = two_links();
    let next_hop = TrackedNextHop {
        table: TableId::MAIN,
        address: ip("192.0.2.1"),
        link: None,
    };
    rib.track(next_hop);
    rib.track(next_hop);
    let told = rib.take_next_hop_changes();
    let reachable = NextHopState::Reachable {
        metric: 0,
        hops: vec![hop("192.0.2.1", A)],
    };
    assert_eq!((told.len(), &told[0].state), (1, &reachable));
    assert_eq!(rib.take_next_hop_changes(), []);
    rib.handle_topology(TopologyChange::LinkSet(link(B, "b", false)));
    assert_eq!(rib.take_next_hop_changes(), [], "another device");
    rib.handle_topology(TopologyChange::LinkSet(link(A, "a", false)));
    let told = rib.take_next_hop_changes();
    let expected = NextHopState::Unreachable(Unresolved::NoCarrier("a".to_owned()));
    assert_eq!((told.len(), &told[0].state), (1, &expected));
    rib.untrack(&next_hop);
    rib.handle_topology(TopologyChange::LinkSet(link(A, "a", true)));
    assert_eq!(rib.take_next_hop_changes(), []);
}

#[test]
fn an_origin_that_ends_takes_only_its_own_along() {
    let mut rib = two_links();
    for n in 0..100 {
        rib.set(BGP, ebgp(&format!("10.{n}.0.0/16"), &["192.0.2.1"]));
    }
    rib.set(BGP2, ebgp("10.7.0.0/16", &["198.51.100.1"]));
    assert_eq!(fib(&mut rib).len(), 100);
    rib.withdraw_origin(BGP);
    assert_eq!(fib(&mut rib).len(), 100);
    assert_eq!(rib.counts(), (1, 1));
    assert_eq!(
        rib.lookup(TableId::MAIN, ip("10.7.1.1")),
        Some(key("10.7.0.0/16"))
    );
    assert_eq!(rib.lookup(TableId::MAIN, ip("10.8.1.1")), None);
}

#[test]
fn tables_are_apart() {
    let mut rib = two_links();
    let mut other = ebgp("10.0.0.0/8", &["192.0.2.1"]);
    other.key.table = TableId(1000);
    rib.set(BGP, other.clone());
    rib.set(BGP, ebgp("10.0.0.0/8", &["198.51.100.1"]));
    let changes = rib.take_changes(usize::MAX);
    assert_eq!(changes.len(), 2);
    rib.withdraw(BGP, RouteSource::Ebgp, &other.key);
    let changes = rib.take_changes(usize::MAX);
    assert_eq!(
        changes,
        [FibChange {
            key: other.key,
            forwarding: None
        }]
    );
}

/// Time is printed, not asserted: the machine may be busy.
#[test]
fn two_hundred_thousand_routes_move_together() {
    const ROUTES: u32 = 200_000;
    let mut rib = two_links();
    let prefix = |n: u32| IpNet::V4(Ipv4Net::new_assert((0x0a00_0000 + (n << 6)).into(), 26));
    let start = Instant::now();
    for n in 0..ROUTES {
        let forwarding = via(&["192.0.2.1", "198.51.100.1"]);
        let key = RouteKey {
            table: TableId::MAIN,
            prefix: prefix(n),
        };
        rib.set(
            BGP,
            Route {
                key,
                source: RouteSource::Ebgp,
                forwarding,
            },
        );
    }
    let mut changes = Vec::new();
    loop {
        let batch = rib.take_changes(4096);
        if batch.is_empty() {
            break;
        }
        assert!(batch.len() <= 4096);
        changes.extend(batch);
    }
    println!("{ROUTES} routes in and out in {:?}", start.elapsed());
    assert_eq!(changes.len(), ROUTES as usize);
    let first = changes[0].forwarding.as_ref().unwrap();
    let shared = |c: &FibChange| Arc::ptr_eq(c.forwarding.as_ref().unwrap(), first);
    assert!(
        changes.iter().all(shared),
        "equal next hops are one allocation"
    );

    let start = Instant::now();
    rib.handle_topology(TopologyChange::LinkSet(link(A, "a", false)));
    let changes = rib.take_changes(usize::MAX);
    println!(
        "{ROUTES} routes moved off a dead link in {:?}",
        start.elapsed()
    );
    assert_eq!(changes.len(), ROUTES as usize);
    let one = Forwarding::Via(vec![hop("198.51.100.1", B)]);
    assert!(
        changes
            .iter()
            .all(|c| c.forwarding.as_deref() == Some(&one))
    );

    let start = Instant::now();
    rib.withdraw_origin(BGP);
    assert_eq!(rib.take_changes(usize::MAX).len(), ROUTES as usize);
    println!("{ROUTES} routes withdrawn in {:?}", start.elapsed());
    assert_eq!(rib.counts(), (0, 0));
}

#[derive(Clone, Debug)]
enum Event {
    Set(OriginId, Route),
    Withdraw(OriginId, RouteSource, RouteKey),
    WithdrawOrigin(OriginId),
    Carrier(LinkIndex, bool),
    Foreign(bool),
    Take,
}

fn event() -> impl Strategy<Value = Event> {
    let origin = (1u16..4).prop_map(OriginId);
    let source = prop::sample::select(vec![RouteSource::Local, RouteSource::Ebgp]);
    let prefix = prop::sample::select(vec!["10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24"]);
    let gateway = prop::sample::select(vec!["192.0.2.1", "198.51.100.1", "203.0.113.1"]);
    let forwarding = prop_oneof![
        1 => Just(Forwarding::Unreachable),
        4 => prop::collection::vec(gateway, 1..3).prop_map(|hops| via(&hops)),
    ];
    let link = prop::sample::select(vec![A, B]);
    prop_oneof![
        4 => (origin.clone(), source.clone(), prefix.clone(), forwarding)
            .prop_map(|(o, s, p, f)| Event::Set(o, route(p, s, f))),
        2 => (origin.clone(), source, prefix).prop_map(|(o, s, p)| Event::Withdraw(o, s, key(p))),
        1 => origin.prop_map(Event::WithdrawOrigin),
        2 => (link, any::<bool>()).prop_map(|(l, c)| Event::Carrier(l, c)),
        1 => any::<bool>().prop_map(Event::Foreign),
        2 => Just(Event::Take),
    ]
}

proptest! {
    /// The differences put out add up to what a fresh RIB fed with the final state chooses, and
    /// what `explain` calls used is what is put out.
    #[test]
    fn differences_add_up(events in prop::collection::vec(event(), 0..50)) {
        let mut rib = two_links();
        let mut written = BTreeMap::new();
        let mut candidates = BTreeMap::new();
        let (mut carriers, mut routed) = (BTreeMap::new(), false);
        let mut apply = |rib: &mut Rib| {
            for change in rib.take_changes(usize::MAX) {
                match change.forwarding {
                    Some(forwarding) => written.insert(change.key, forwarding),
                    None => written.remove(&change.key),
                };
            }
            written.clone()
        };
        for event in events {
            match event {
                Event::Set(origin, route) => {
                    candidates.insert((origin, route.source, route.key), route.clone());
                    rib.set(origin, route);
                }
                Event::Withdraw(origin, source, key) => {
                    candidates.remove(&(origin, source, key));
                    rib.withdraw(origin, source, &key);
                }
                Event::WithdrawOrigin(origin) => {
                    candidates.retain(|(o, ..), _| *o != origin);
                    rib.withdraw_origin(origin);
                }
                Event::Carrier(index, carrier) => {
                    carriers.insert(index, carrier);
                    rib.handle_topology(TopologyChange::LinkSet(link(index, "x", carrier)));
                }
                Event::Foreign(there) => {
                    routed = there;
                    set_foreign(&mut rib, there);
                }
                Event::Take => {
                    apply(&mut rib);
                }
            }
        }
        let written = apply(&mut rib);

        let mut fresh = two_links();
        for (index, carrier) in carriers {
            fresh.handle_topology(TopologyChange::LinkSet(link(index, "x", carrier)));
        }
        set_foreign(&mut fresh, routed);
        for ((origin, ..), route) in &candidates {
            fresh.set(*origin, route.clone());
        }
        let expected: BTreeMap<_, _> = fresh
            .take_changes(usize::MAX)
            .into_iter()
            .filter_map(|c| c.forwarding.map(|f| (c.key, f)))
            .collect();
        prop_assert_eq!(&written, &expected);
        for key in candidates.keys().map(|(.., key)| key) {
            let why = rib.explain(key);
            let used = why.candidates.iter().any(|c| c.verdict == Verdict::Used);
            prop_assert_eq!(used, written.contains_key(key), "{:?}", why);
            prop_assert_eq!(why.installed.as_ref(), written.get(key));
        }
    }
}

/// Devices a (192.0.2.0/24) and b (198.51.100.0/24), the node being .100 on both.
fn two_links() -> Rib {
    let mut rib = Rib::new(Config::default());
    ground(&mut rib);
    rib
}

fn ground(rib: &mut Rib) {
    for (index, name, net) in [(A, "a", "192.0.2.100/24"), (B, "b", "198.51.100.100/24")] {
        let net: IpNet = net.parse().unwrap();
        rib.handle_topology(TopologyChange::LinkSet(link(index, name, true)));
        rib.handle_topology(TopologyChange::AddressSet(index, net));
        rib.handle_topology(TopologyChange::RouteSet(connected(
            &net.trunc().to_string(),
            index,
        )));
    }
}

fn connected(prefix: &str, link: LinkIndex) -> KernelRoute {
    KernelRoute {
        key: key(prefix),
        metric: 0,
        protocol: "kernel".to_owned(),
        next_hops: vec![NextHop {
            via: None,
            link: Some(link),
            weight: 1,
        }],
        connected: true,
    }
}

fn foreign(rib: &mut Rib, prefix: &str, metric: u32, protocol: &str, next_hops: &[NextHop]) {
    rib.handle_topology(TopologyChange::RouteSet(KernelRoute {
        key: key(prefix),
        metric,
        protocol: protocol.to_owned(),
        next_hops: next_hops.to_vec(),
        connected: false,
    }));
}

fn set_foreign(rib: &mut Rib, there: bool) {
    if there {
        foreign(
            rib,
            "203.0.113.0/24",
            5,
            "static",
            &[hop("198.51.100.5", B)],
        );
    } else {
        rib.handle_topology(TopologyChange::RouteGone {
            key: key("203.0.113.0/24"),
            metric: 5,
            protocol: "static".to_owned(),
        });
    }
}

fn link(index: LinkIndex, name: &str, carrier: bool) -> Link {
    Link {
        index,
        name: name.to_owned(),
        up: true,
        carrier,
    }
}

fn key(prefix: &str) -> RouteKey {
    RouteKey {
        table: TableId::MAIN,
        prefix: prefix.parse().unwrap(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn hop_of(via: &str, link: Option<LinkIndex>) -> NextHop {
    NextHop {
        via: Some(ip(via)),
        link,
        weight: 1,
    }
}

fn hop(via: &str, link: LinkIndex) -> NextHop {
    hop_of(via, Some(link))
}

fn via(hops: &[&str]) -> Forwarding {
    Forwarding::Via(hops.iter().map(|via| hop_of(via, None)).collect())
}

fn route(prefix: &str, source: RouteSource, forwarding: Forwarding) -> Route {
    Route {
        key: key(prefix),
        source,
        forwarding,
    }
}

fn ebgp(prefix: &str, hops: &[&str]) -> Route {
    route(prefix, RouteSource::Ebgp, via(hops))
}

/// All changes, as text and value.
fn fib(rib: &mut Rib) -> Vec<(String, Option<Forwarding>)> {
    let changes = rib.take_changes(usize::MAX).into_iter();
    changes
        .map(|c| (c.key.prefix.to_string(), c.forwarding.map(|f| (*f).clone())))
        .collect()
}

/// Takes the changes, of which there must be one for the prefix, and returns its gateways.
fn gateways(rib: &mut Rib, prefix: &str) -> Vec<String> {
    let changes = fib(rib);
    match changes.as_slice() {
        [(changed, Some(Forwarding::Via(hops)))] if changed == prefix => hops
            .iter()
            .map(|hop| hop.via.unwrap().to_string())
            .collect(),
        _ => panic!("{prefix} should have changed alone: {changes:?}"),
    }
}
