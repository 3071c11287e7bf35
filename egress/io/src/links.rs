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
    /// its own table says.
    pub(crate) on_link: BTreeMap<IpAddr, OnLink>,
    /// The MTU of the ways that leave by another device, one that encrypts for example, in bytes.
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
    let has_native = world.transport.takes_native();
    if has_native {
        asked.extend(world.remote_pods.iter().map(|other| &other.node));
    }
    let others = asked.into_iter().filter(|name| **name != world.node);
    let mut ways = Ways::default();
    for node in others.filter_map(|name| world.nodes.get(name)) {
        for is_v4 in [true, false] {
            let first = node.addresses.iter().find(|a| a.is_ipv4() == is_v4);
            let Some(address) = first else {
                continue;
            };
            match way_to(netlink, *address, fabric) {
                Some(Way::Neighbour(on_link)) if has_native => {
                    ways.on_link.insert(*address, on_link);
                }
                Some(Way::Elsewhere(mtu)) => {
                    ways.elsewhere.insert(*address, mtu);
                }
                Some(Way::Neighbour(_)) | None => {}
            }
        }
    }
    ways
}

enum Way {
    Neighbour(OnLink),
    Elsewhere(u32),
}

fn way_to(netlink: &mut Netlink, address: IpAddr, fabric: &[(LinkIndex, u32)]) -> Option<Way> {
    let route = netlink.lookup_route(address).ok()?;
    let [hop] = route.next_hops.as_slice() else {
        return None;
    };
    let link = hop.next_hop.link?;
    let Some((_, mtu)) = fabric.iter().find(|(index, _)| *index == link) else {
        let link = netlink.link_by_index(link).ok()?;
        return Some(Way::Elsewhere(link.mtu));
    };
    let is_direct = route.kind == RouteKind::Unicast && hop.next_hop.via.is_none();
    is_direct.then_some(Way::Neighbour(OnLink {
        link: link.0,
        mtu: *mtu,
    }))
}
