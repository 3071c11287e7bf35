// SPDX-License-Identifier: Apache-2.0
//! Many routes, and neighbours that take them slowly.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bgp_core::config::{ConnectMode, ExportAttributes, ImportMode, LocalRoutes, Timers};
use bgp_core::fsm::State;
use bgp_wire::{Community, PathAttributes};
use ipnet::{IpNet, Ipv4Net};
use router_types::Family;

use crate::hostile::prefix;
use crate::node::{Node, address, counts, importing};
use crate::raw::{attributes, call_until_open, update};

/// Local routes of which each has a community of its own, so that none shares a message.
pub(crate) fn distinct_routes(count: u32, generation: u16, peer: &str) -> LocalRoutes {
    let mut routes = LocalRoutes::default();
    for number in 0..count {
        let attributes = ExportAttributes {
            communities: [number + 0x10000, Community::new(1, generation).0].into(),
            ..ExportAttributes::default()
        };
        routes.add(prefix(number), peer.into(), attributes);
    }
    routes
}

#[tokio::test]
async fn a_full_table_for_a_node_that_wants_none_holds_up_nobody() {
    const ROUTES: u32 = 1_000_000;
    const PER_ATTRIBUTES: u32 = 100;
    let mut node = Node::start(65001).await;
    let neighbour = address();
    let mut config = node.neighbour((neighbour, 179).into(), 65002);
    config.connect = ConnectMode::Passive;
    config = importing(config, ImportMode::DefaultRoute, None);
    node.set("peer", config).await;
    // A second neighbour with the shortest hold time there is.
    let mut other = Node::start(65003).await;
    let mut to_other = node.towards(&other);
    to_other.timers = Timers::new(1, 3, 1).unwrap();
    // One dials, so that no collision ends a session at the beginning.
    let mut to_node = other.towards(&node);
    to_node.connect = ConnectMode::Passive;
    other.set("peer", to_node).await;
    node.set("other", to_other).await;
    other.until_up("peer").await;

    let mut raw = call_until_open(neighbour, node.socket()).await;
    raw.establish(65002, 90).await;
    node.until_up("peer").await;
    let before = resident_kib();
    let began = Instant::now();
    let mut table = Vec::new();
    for first in (0..ROUTES).step_by(PER_ATTRIBUTES as usize) {
        let prefixes: Vec<IpNet> = (first..first + PER_ATTRIBUTES)
            .map(|n| {
                let network = Ipv4Addr::from(0x1000_0000 + (n << 8));
                Ipv4Net::new(network, 24).unwrap().into()
            })
            .collect();
        let attributes = PathAttributes {
            med: Some(first),
            ..attributes(65002)
        };
        table.extend(update(&attributes, neighbour, &prefixes));
        if table.len() > 1 << 16 {
            raw.send(&table).await;
            table.clear();
        }
    }
    table.extend(update(
        &attributes(65002),
        neighbour,
        &["0.0.0.0/0".parse().unwrap()],
    ));
    raw.send(&table).await;
    let sent = began.elapsed();
    let alive = tokio::spawn(raw.live());
    let report = node
        .until("peer", "the default route, after all others", |p| {
            counts(p, Family::IPV4_UNICAST).accepted == 1
        })
        .await;
    let counts = counts(&report, Family::IPV4_UNICAST);
    assert_eq!(counts.rejected, u64::from(ROUTES));
    let after = resident_kib();
    println!(
        "{ROUTES} routes rejected: sent in {sent:?}, in the tables after {:?}; \
         VmRSS {before} KiB before, {after} KiB after",
        began.elapsed()
    );
    for session in [node.session("other").await, other.session("peer").await] {
        assert_eq!(session.state, State::Established);
        assert_eq!(session.counters.flaps, 0);
        assert_eq!(session.timers.hold_s, Some(3));
    }
    assert_eq!(node.session("peer").await.counters.flaps, 0);
    alive.abort();
}

#[tokio::test]
async fn what_waits_for_a_slow_reader_is_bounded_and_ends_in_the_latest_state() {
    const ROUTES: u32 = 10_000;
    const GENERATIONS: u16 = 40;
    let mut node = Node::start(65001).await;
    let neighbour = address();
    let mut config = node.neighbour((neighbour, 179).into(), 65002);
    config.connect = ConnectMode::Passive;
    // Without hold time it may be as slow as it likes.
    config.timers = Timers::new(1, 0, 1).unwrap();
    node.set("peer", config).await;
    let mut raw = call_until_open(neighbour, node.socket()).await;
    raw.establish(65002, 0).await;
    node.until_up("peer").await;
    for generation in 0..GENERATIONS {
        node.locals = distinct_routes(ROUTES, generation, "peer");
        node.apply().await;
        // The tables have taken it once they answer.
        node.snapshot().await;
    }
    let last = Community::new(1, GENERATIONS - 1);
    let mut current: BTreeMap<IpNet, bool> = BTreeMap::new();
    let mut bytes = 0;
    while current.len() < ROUTES as usize || current.values().any(|latest| !latest) {
        let (kind, body) = raw.next().await.expect("the session goes on");
        bytes += body.len() + 19;
        assert_eq!(kind, bgp_wire::MessageKind::Update);
        let latest = body.windows(4).any(|w| w == last.0.to_be_bytes());
        for number in body.windows(4).filter(|w| w[..2] == [24, 10]) {
            let net = Ipv4Addr::new(10, number[2], number[3], 0);
            current.insert(Ipv4Net::new(net, 24).unwrap().into(), latest);
        }
        if bytes % 50 == 0 {
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
    }
    let state = ROUTES as usize * 70;
    println!("{bytes} bytes for {GENERATIONS} generations of at most {state} bytes");
    assert!(
        bytes < state * usize::from(GENERATIONS) / 2,
        "{bytes} bytes: every change was kept for it"
    );
}

pub(crate) fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.expect("VmRSS").parse().unwrap()
}
