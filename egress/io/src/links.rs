// SPDX-License-Identifier: Apache-2.0
//! Which nodes are neighbours, as the routing table has it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use egress_core::{OnLink, World};
use router_netlink::{Netlink, RouteKind};
use router_types::LinkIndex;

/// The addresses of other nodes that packets reach without a router in between, by one of the devices
/// towards the fabric; only where it matters. A router would send a pod's packet wherever its own
/// table says. What cannot be found out is taken to be behind one.
pub(crate) fn on_link(
    netlink: &mut Netlink,
    world: &World,
    fabric: &[(LinkIndex, u32)],
) -> BTreeMap<IpAddr, OnLink> {
    let mut found = BTreeMap::new();
    if !world.transport.takes_native() {
        return found;
    }
    // Gateways, and the nodes of pods this one may be a gateway of.
    let groups = world.policies.iter().flat_map(|policy| &policy.groups);
    let gateways = groups.flat_map(|group| &group.nodes);
    let pods = world.remote_pods.iter().map(|other| &other.node);
    let names: BTreeSet<&String> = gateways.chain(pods).collect();
    let others = names.into_iter().filter(|name| **name != world.node);
    for node in others.filter_map(|name| world.nodes.get(name)) {
        for is_v4 in [true, false] {
            let first = node.addresses.iter().find(|a| a.is_ipv4() == is_v4);
            if let Some(address) = first
                && let Some(on_link) = way_to(netlink, *address, fabric)
            {
                found.insert(*address, on_link);
            }
        }
    }
    found
}

fn way_to(netlink: &mut Netlink, address: IpAddr, fabric: &[(LinkIndex, u32)]) -> Option<OnLink> {
    let route = netlink.lookup_route(address).ok()?;
    let [hop] = route.next_hops.as_slice() else {
        return None;
    };
    let is_direct = route.kind == RouteKind::Unicast && hop.next_hop.via.is_none();
    let link = hop.next_hop.link.filter(|_| is_direct)?;
    let (_, mtu) = fabric.iter().find(|(index, _)| *index == link)?;
    Some(OnLink {
        link: link.0,
        mtu: *mtu,
    })
}
