// SPDX-License-Identifier: Apache-2.0
//! RIB, reconciler, route table and watcher together, as the daemon wires them.

use std::time::Instant;

use router_netlink::{Event, KernelRoute, Netlink, Ownership, RouteFilter, RouteTable, Watcher};
use router_reconcile::{Config, Reconciler};
use router_rib::{OriginId, Rib, Topology, TopologyChange, Unresolved, Verdict};
use router_types::{Forwarding, LinkIndex, NextHop, Route, RouteSource, TableId};

use crate::support::{LIMIT, Node, down, gateways, is_root, key, settle, up};

const BGP: OriginId = OriginId(1);

#[tokio::test]
async fn routes_follow_their_devices_down_and_up_again() {
    if !is_root() {
        return;
    }
    let (mut node, mut tor1, mut tor2) = (Node::new(), Node::new(), Node::new());
    let (a, a_far) = node.cable("a", &mut tor1, "swp1");
    let (b, _) = node.cable("b", &mut tor2, "swp1");
    for (link, net) in [(a, "192.0.2.0/31"), (b, "192.0.2.2/31")] {
        node.netlink
            .add_address(link, net.parse().unwrap())
            .unwrap();
    }
    for (link, net) in [(a, "fe80::a/64"), (b, "fe80::b/64")] {
        node.netlink
            .add_address(link, net.parse().unwrap())
            .unwrap();
    }
    let mut fib = Fib::new(&node).await;
    fib.rib.set(
        BGP,
        learned("10.0.0.0/8", &["192.0.2.1", "192.0.2.3"], None),
    );
    fib.rib
        .set(BGP, learned("10.9.0.0/16", &["192.0.2.1"], None));
    fib.rib
        .set(BGP, learned("2001:db8::/32", &["fe80::1"], Some(a)));
    fib.settle().await;
    fib.expect(&node, "10.0.0.0/8", &["192.0.2.1", "192.0.2.3"])
        .await;
    fib.expect(&node, "10.9.0.0/16", &["192.0.2.1"]).await;
    fib.expect(&node, "2001:db8::/32", &["fe80::1"]).await;

    // The other end goes away: no carrier.
    down(&mut tor1.netlink, a_far);
    fib.expect(&node, "10.0.0.0/8", &["192.0.2.3"]).await;
    fib.expect(&node, "10.9.0.0/16", &[]).await;
    fib.expect(&node, "2001:db8::/32", &[]).await;
    let why = fib.rib.explain(&key("10.9.0.0/16"));
    assert_eq!(why.candidates[0].verdict, Verdict::Unresolved);
    assert_eq!(
        why.candidates[0].next_hops.as_ref().unwrap()[0].resolved,
        Err(Unresolved::NoCarrier("a".to_owned()))
    );

    // And comes back.
    up(&mut tor1.netlink, a_far);
    fib.expect(&node, "10.0.0.0/8", &["192.0.2.1", "192.0.2.3"])
        .await;
    fib.expect(&node, "10.9.0.0/16", &["192.0.2.1"]).await;
    fib.expect(&node, "2001:db8::/32", &["fe80::1"]).await;

    // Our own end is set down and up: the kernel forgets IPv4 routes and addresses' networks.
    down(&mut node.netlink, a);
    fib.expect(&node, "10.9.0.0/16", &[]).await;
    up(&mut node.netlink, a);
    fib.expect(&node, "10.0.0.0/8", &["192.0.2.1", "192.0.2.3"])
        .await;
    fib.expect(&node, "10.9.0.0/16", &["192.0.2.1"]).await;

    // The device is gone for good.
    node.netlink.delete_link(a).unwrap();
    fib.expect(&node, "10.0.0.0/8", &["192.0.2.3"]).await;
    fib.expect(&node, "10.9.0.0/16", &[]).await;
    assert_eq!(fib.reconciler.failures().count(), 0);
}

#[tokio::test]
async fn connected_networks_and_the_way_to_the_peers_stay() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    node.wire("a", &["192.0.2.100/24", "2001:db8:a::100/64"]);
    // Except fe80::/64, which comes when duplicate address detection is through.
    let routes = |node: &mut Node| {
        let main = RouteFilter {
            table: Some(TableId::MAIN),
            protocol: None,
        };
        let mut routes = node.netlink.routes(main).unwrap();
        routes.retain(|route| route.key != key("fe80::/64"));
        routes
    };
    let before = routes(&mut node);
    let mut fib = Fib::new(&node).await;
    fib.rib.set_peers([
        (key("0.0.0.0/0").table, "192.0.2.1".parse().unwrap()),
        (key("::/0").table, "2001:db8:a::1".parse().unwrap()),
    ]);
    for prefix in [
        "192.0.2.0/24",
        "192.0.2.0/25",
        "192.0.2.1/32",
        "192.0.2.100/32",
    ] {
        fib.rib.set(BGP, learned(prefix, &["192.0.2.9"], None));
    }
    for prefix in [
        "2001:db8:a::/64",
        "2001:db8:a::1/128",
        "2001:db8:a::100/128",
    ] {
        fib.rib.set(BGP, learned(prefix, &["2001:db8:a::9"], None));
    }
    fib.settle().await;
    assert_eq!(routes(&mut node), before);
    assert_eq!(fib.reconciler.summary().wanted, 0);
    // A default route and anything wider or elsewhere is fine.
    for prefix in ["0.0.0.0/0", "192.0.0.0/16", "198.51.100.0/24"] {
        fib.rib.set(BGP, learned(prefix, &["192.0.2.9"], None));
    }
    fib.settle().await;
    assert_eq!(fib.reconciler.summary().applied, 3);
}

struct Fib {
    rib: Rib,
    reconciler: Reconciler<RouteTable>,
    table: RouteTable,
    watcher: Watcher,
}

impl Fib {
    async fn new(node: &Node) -> Self {
        let ownership = Ownership::default();
        let table = RouteTable::open_in(&node.netns, ownership).unwrap();
        let mut watcher = Watcher::open_in(&node.netns).unwrap();
        watcher.ignore_port(table.port().unwrap());
        let mut rib = Rib::new(router_rib::Config::default());
        rib.replace_topology(survey(&mut Netlink::open_in(&node.netns).unwrap(), &table));
        let reconciler = Reconciler::new(Config::default(), Instant::now());
        Fib {
            rib,
            reconciler,
            table,
            watcher,
        }
    }

    async fn settle(&mut self) {
        for change in self.rib.take_changes(usize::MAX) {
            match change.forwarding {
                Some(forwarding) => self.reconciler.set(change.key, forwarding),
                None => self.reconciler.remove(&change.key),
            }
        }
        settle(&mut self.reconciler, &mut self.table).await;
    }

    /// Lives on until iproute2 shows a route of ours with these gateways; none: no such route.
    async fn expect(&mut self, node: &Node, prefix: &str, expected: &[&str]) {
        loop {
            self.settle().await;
            let family = if prefix.contains(':') { "-6" } else { "-4" };
            let routes = node.ip(&format!("{family} route show exact {prefix} proto bgp"));
            assert!(routes.len() <= 1, "{routes:?}");
            let shown = routes.first().map(gateways).unwrap_or_default();
            if shown == expected {
                return;
            }
            let event = tokio::time::timeout(LIMIT, self.watcher.next())
                .await
                .unwrap_or_else(|_| panic!("{prefix}: {shown:?} should be {expected:?}"))
                .unwrap();
            if let Some((key, actual)) = self.table.note(&event) {
                self.reconciler.handle_observed(key, actual);
            }
            if event.unusable_link().is_some() {
                self.reconciler.resync();
            }
            if let Some(change) = translate(&event, &self.table) {
                self.rib.handle_topology(change);
            }
        }
    }
}

fn survey(netlink: &mut Netlink, table: &RouteTable) -> Topology {
    let mut topology = Topology::default();
    for link in netlink.links().unwrap() {
        topology.apply(translate(&Event::LinkSet(link), table).unwrap());
    }
    for address in netlink.addresses().unwrap() {
        topology.apply(translate(&Event::AddressSet(address), table).unwrap());
    }
    for route in netlink.routes(RouteFilter::default()).unwrap() {
        if let Some(change) = translate(&Event::RouteSet(route), table) {
            topology.apply(change);
        }
    }
    topology
}

fn translate(event: &Event, table: &RouteTable) -> Option<TopologyChange> {
    const LOCAL: u32 = 255;
    let foreign =
        |route: &KernelRoute| !table.ownership().includes(route) && route.key.table.0 != LOCAL;
    Some(match event {
        Event::LinkSet(link) => TopologyChange::LinkSet(router_rib::Link {
            index: link.index,
            name: link.name.clone(),
            up: link.up,
            carrier: link.carrier,
        }),
        Event::LinkGone(link) => TopologyChange::LinkGone(link.index),
        Event::AddressSet(a) => TopologyChange::AddressSet(a.link, a.address),
        Event::AddressGone(a) => TopologyChange::AddressGone(a.link, a.address),
        Event::RouteSet(route) if foreign(route) => {
            TopologyChange::RouteSet(router_rib::KernelRoute {
                key: route.key,
                metric: route.metric,
                protocol: route.protocol.to_string(),
                next_hops: route.next_hops.iter().map(|hop| hop.next_hop).collect(),
                connected: route.is_connected(),
            })
        }
        Event::RouteGone(route) if foreign(route) => TopologyChange::RouteGone {
            key: route.key,
            metric: route.metric,
            protocol: route.protocol.to_string(),
        },
        Event::RouteSet(_) | Event::RouteGone(_) | Event::Lost => return None,
    })
}

fn learned(prefix: &str, hops: &[&str], link: Option<LinkIndex>) -> Route {
    let hops = hops.iter().map(|via| NextHop {
        via: Some(via.parse().unwrap()),
        link,
        weight: 1,
    });
    Route {
        key: key(prefix),
        source: RouteSource::Ebgp,
        forwarding: Forwarding::Via(hops.collect()),
    }
}
