// SPDX-License-Identifier: Apache-2.0
//! Worlds for tests.

use std::net::IpAddr;

use crate::world::{
    Addresses, Affinity, Group, Interface, Limits, Node, Pod, PodKey, Policy, PolicyId, PolicyKind,
    Selection, World, Zones,
};

/// A world of these nodes, seen from one of them: healthy, with an address of each family, and
/// this one with `eth0` and the default routes.
pub(crate) fn world(node: &str, nodes: &[&str]) -> World {
    let mut world = World {
        node: node.to_owned(),
        ..World::default()
    };
    for (name, n) in nodes.iter().zip(1..) {
        world.nodes.insert((*name).to_owned(), self::node(n));
    }
    world.interfaces.insert(
        "eth0".to_owned(),
        Interface {
            index: 2,
            is_up: true,
            addresses: vec![ip("198.51.100.1"), ip("198.51.100.2"), ip("2001:db8:51::1")],
            has_default_route_v4: true,
            has_default_route_v6: true,
        },
    );
    world
}

/// The n-th node.
pub(crate) fn node(n: u16) -> Node {
    Node {
        addresses: vec![
            IpAddr::from([10, 0, (n >> 8) as u8, n as u8]),
            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n]),
        ],
        zone: None,
        is_healthy: true,
        is_dead: false,
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn id(name: &str) -> PolicyId {
    PolicyId {
        kind: PolicyKind::Causeway,
        name: name.to_owned(),
    }
}

/// A policy of ours for everything but 10.0.0.0/8: one group, one gateway at a time.
pub(crate) fn policy(name: &str, nodes: &[&str], addresses: Addresses) -> Policy {
    let net = |text: &str| text.parse().expect("a prefix");
    Policy {
        id: id(name),
        destinations: [net("0.0.0.0/0"), net("::/0")].into(),
        exclusions: [net("10.0.0.0/8")].into(),
        groups: vec![group(nodes, addresses)],
        selection: Selection::ActiveStandby,
        zones: Zones::Off,
        limits: Limits::default(),
        unanswered: [].into(),
    }
}

/// The same of upstream's kind.
pub(crate) fn cilium(name: &str, nodes: &[&str], addresses: Addresses) -> Policy {
    let mut policy = policy(name, nodes, addresses);
    policy.id.kind = PolicyKind::Cilium;
    policy.selection = Selection::FirstByName;
    policy
}

pub(crate) fn group(nodes: &[&str], addresses: Addresses) -> Group {
    Group {
        nodes: nodes.iter().map(|name| (*name).to_owned()).collect(),
        addresses,
    }
}

pub(crate) fn held(addresses: &[&str], affinity: Affinity) -> Addresses {
    Addresses::Held {
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        affinity,
        interface: None,
    }
}

/// The n-th pod, selected by these policies.
pub(crate) fn pod(n: u16, policies: &[&PolicyId]) -> Pod {
    Pod {
        key: PodKey {
            namespace: format!("ns-{}", n % 4),
            name: format!("pod-{n}"),
        },
        uid: format!("uid-{n}"),
        addresses: vec![
            IpAddr::from([10, 244, (n >> 8) as u8, n as u8]),
            IpAddr::from([0xfd44, 0, 0, 0, 0, 0, 0, n]),
        ],
        policies: policies.iter().map(|id| (*id).clone()).collect(),
        undecided: [].into(),
        is_known_to_all: true,
    }
}
