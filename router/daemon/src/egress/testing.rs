// SPDX-License-Identifier: Apache-2.0
//! A made-up node for tests: `node-a`, gateway of its own pod and of one of `node-b`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bpf_loader::{DropCount, DropReason, Mapping, PodNode, RuleTraffic, Said};
use egress_core::{
    Addresses, Affinity, Claims, Group, Interface, Limits, Node, Pod, PodKey, Policy, PolicyId,
    PolicyKind, Previous, Selection, World, Zones, decide,
};

use egress_io::node::{Heard, PeerView};

use super::{EgressSource, EgressView, RuleReport};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn id(name: &str) -> PolicyId {
    PolicyId {
        kind: PolicyKind::Causeway,
        name: name.to_owned(),
    }
}

pub(crate) fn key(namespace: &str, name: &str) -> PodKey {
    PodKey {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn node(address: &str) -> Node {
    Node {
        addresses: vec![ip(address)],
        zone: None,
        is_healthy: true,
        is_dead: false,
    }
}

fn policy(name: &str, destinations: &[&str], groups: Vec<Group>) -> Policy {
    Policy {
        id: id(name),
        destinations: destinations
            .iter()
            .map(|net| net.parse().expect("a prefix"))
            .collect(),
        exclusions: ["192.0.2.0/24".parse().expect("a prefix")].into(),
        groups,
        selection: Selection::ActiveStandby,
        zones: Zones::Off,
        limits: Limits::default(),
        unanswered: [].into(),
    }
}

fn held(nodes: &[&str], address: &str) -> Group {
    Group {
        nodes: nodes.iter().map(|name| (*name).to_owned()).collect(),
        addresses: Addresses::Held {
            addresses: vec![ip(address)],
            affinity: Affinity::Policy,
            interface: None,
        },
    }
}

fn pod(namespace: &str, name: &str, address: &str, policies: &[&str]) -> Pod {
    Pod {
        key: key(namespace, name),
        uid: String::new(),
        addresses: vec![ip(address)],
        policies: policies.iter().map(|name| id(name)).collect(),
        undecided: [].into(),
        is_known_to_all: true,
    }
}

/// `web` goes by this node, `far` by `node-b`, `lost` has no gateway, and `idle` concerns nobody
/// here.
pub(crate) fn world() -> World {
    let mut world = World {
        node: "node-a".to_owned(),
        nodes: [
            ("node-a".to_owned(), node("10.0.0.1")),
            ("node-b".to_owned(), node("10.0.0.2")),
        ]
        .into(),
        policies: vec![
            policy(
                "web",
                &["0.0.0.0/0"],
                vec![held(&["node-a", "node-b"], "198.51.100.7")],
            ),
            policy(
                "far",
                &["203.0.113.0/24"],
                vec![held(&["node-b"], "198.51.100.8")],
            ),
            policy("lost", &["233.252.0.0/24"], vec![held(&[], "198.51.100.9")]),
            policy(
                "idle",
                &["0.0.0.0/0"],
                vec![held(&["node-b"], "198.51.100.10")],
            ),
        ],
        pods: vec![
            pod("shop", "web-0", "10.1.0.2", &["web"]),
            pod("shop", "api-0", "10.1.0.3", &["far", "lost"]),
            pod("ops", "web-0", "10.1.0.4", &[]),
        ],
        in_cluster: ["10.1.0.0/16".parse().expect("a prefix")].into(),
        ..World::default()
    };
    world.pods[2].undecided.insert(id("far"));
    world.interfaces.insert(
        "eth0".to_owned(),
        Interface {
            index: 2,
            is_up: true,
            addresses: vec![ip("198.51.100.1")],
            has_default_route_v4: true,
            has_default_route_v6: false,
        },
    );
    world
}

/// The node with what its data plane has counted.
pub(crate) fn view() -> EgressView {
    let world = world();
    let claims = Claims::new();
    let desired = decide(&world, &claims, &Previous::default());
    let report = RuleReport {
        connections: 3,
        traffic: RuleTraffic {
            out_packets: 1000,
            out_bytes: 80_000,
            back_packets: 900,
            back_bytes: 900_000,
            opened: 40,
        },
        refusals: vec![DropCount {
            reason: DropReason::NatPortsExhausted,
            packets: 7,
            bytes: 420,
        }],
    };
    let rules: BTreeMap<_, _> = desired
        .gateway
        .keys()
        .map(|number| (*number, report.clone()))
        .collect();
    EgressView {
        world: Arc::new(world),
        claims: Arc::new(claims),
        desired: Arc::new(desired),
        rules,
        refusals: vec![
            DropCount {
                reason: DropReason::NatUnknownNode,
                packets: 2,
                bytes: 120,
            },
            DropCount {
                reason: DropReason::NatTableFull,
                packets: 0,
                bytes: 0,
            },
        ],
        ports_used: [((ip("198.51.100.7"), 6), 3)].into(),
        ready: BTreeSet::new(),
        failovers: [(id("web"), 1)].into(),
        tunnel_problem: None,
        peers: vec![PeerView {
            name: "node-b".to_owned(),
            is_linked: true,
            is_wanted: true,
            problem: None,
            mismatch: None,
            bfd: Some(Heard::Yes),
            is_dead: false,
            standby_for: (0, 0),
            stood_by: (2, 1),
        }],
    }
}

/// A mapping of the only rule this node is the gateway of.
pub(crate) fn mapping(
    protocol: u8,
    pod: &str,
    remote: Option<&str>,
    node: Option<&str>,
) -> Mapping {
    let rule = view().desired.gateway.keys().next().expect("a rule").get();
    let heard = Said {
        anything: true,
        ..Said::default()
    };
    Mapping {
        rule,
        protocol,
        pod: pod.parse().expect("a socket address"),
        remote: remote.map(|text| text.parse().expect("a socket address")),
        egress: "198.51.100.7:1024".parse().expect("a socket address"),
        node: node.map_or(PodNode::Here, |node| PodNode::Tunnel(ip(node))),
        said_out: heard,
        said_back: heard,
        idle: Duration::from_millis(1500),
    }
}

/// The node as a source, with some mappings.
pub(crate) struct Fixture(pub(crate) Vec<Mapping>);

impl EgressSource for Fixture {
    fn view(&self) -> anyhow::Result<EgressView> {
        Ok(view())
    }

    fn each_mapping(&self, visit: &mut dyn FnMut(&Mapping)) -> anyhow::Result<()> {
        self.0.iter().for_each(visit);
        Ok(())
    }
}
