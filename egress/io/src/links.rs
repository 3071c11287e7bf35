// SPDX-License-Identifier: Apache-2.0
//! The ways to other nodes, as the routing table has them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use egress_core::{Node, OnLink, World};
use router_netlink::{Netlink, RouteKind};
use router_types::LinkIndex;

/// What of the ways to other nodes matters here. What cannot be found out is taken to be behind a
/// router, and as wide as the devices towards the fabric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ways {
    /// The addresses that packets reach without a router in between, by one of the devices towards the
    /// fabric; none where nothing goes without the tunnel. A router would send a pod's packet wherever
    /// its own table says, and so does a device that carries no Ethernet frames: WireGuard chooses its
    /// peer by the packet's destination.
    pub(crate) on_link: BTreeMap<IpAddr, OnLink>,
    /// The MTU of the ways that leave by another device, one that encrypts for example, or have one of
    /// their own, in bytes.
    pub(crate) elsewhere: BTreeMap<IpAddr, u32>,
}

/// The ways to the nodes this one sends to: to gateways, to nodes of pods that may come without the
/// tunnel, and from a gateway to those that the tunnel reaches by IPv6. By IPv4 answers are cut outside
/// where they must, so that thousands of nodes need not be asked for.
pub(crate) fn ways(netlink: &mut Netlink, world: &World, fabric: &[(LinkIndex, u32)]) -> Ways {
    let groups = world.policies.iter().flat_map(|policy| &policy.groups);
    let mut asked: BTreeSet<&String> = groups.flat_map(|group| &group.nodes).collect();
    let has_v4 = |node: &Node| node.addresses.iter().any(IpAddr::is_ipv4);
    if asked.contains(&world.node) {
        let here = world.nodes.get(&world.node).is_some_and(has_v4);
        let by_v6 = world
            .nodes
            .iter()
            .filter(|(_, node)| !(here && has_v4(node)));
        asked.extend(by_v6.map(|(name, _)| name));
    }
    let mut framed = BTreeSet::new();
    if world.transport.takes_native() {
        asked.extend(world.remote_pods.iter().map(|other| &other.node));
        let links = fabric.iter().filter_map(|(link, _)| {
            let link = netlink.link_by_index(*link).ok()?;
            link.mac.map(|_| link.index.0)
        });
        framed.extend(links);
    }
    let others = asked.into_iter().filter(|name| **name != world.node);
    let mut ways = Ways::default();
    for node in others.filter_map(|name| world.nodes.get(name)) {
        for is_v4 in [true, false] {
            let first = node.addresses.iter().find(|a| a.is_ipv4() == is_v4);
            let Some(address) = first else {
                continue;
            };
            let way = way_to(netlink, *address, fabric);
            let neighbour = way
                .neighbour
                .filter(|on_link| framed.contains(&on_link.link));
            ways.on_link
                .extend(neighbour.map(|on_link| (*address, on_link)));
            ways.elsewhere
                .extend(way.elsewhere.map(|mtu| (*address, mtu)));
        }
    }
    ways
}

/// A way to an address.
#[derive(Default)]
struct Way {
    neighbour: Option<OnLink>,
    /// What it takes, in bytes, where that is not what the devices towards the fabric take.
    elsewhere: Option<u32>,
}

fn way_to(netlink: &mut Netlink, address: IpAddr, fabric: &[(LinkIndex, u32)]) -> Way {
    let Ok(route) = netlink.lookup_route(address) else {
        return Way::default();
    };
    let [hop] = route.next_hops.as_slice() else {
        return Way {
            neighbour: None,
            elsewhere: route.mtu,
        };
    };
    let Some(link) = hop.next_hop.link else {
        return Way::default();
    };
    let Some((_, mtu)) = fabric.iter().find(|(index, _)| *index == link) else {
        let link = netlink.link_by_index(link).ok().map(|link| link.mtu);
        return Way {
            neighbour: None,
            elsewhere: link.into_iter().chain(route.mtu).min(),
        };
    };
    let is_direct = route.kind == RouteKind::Unicast && hop.next_hop.via.is_none();
    Way {
        neighbour: is_direct.then_some(OnLink {
            link: link.0,
            mtu: route.mtu.map_or(*mtu, |whole| whole.min(*mtu)),
        }),
        elsewhere: route.mtu,
    }
}
