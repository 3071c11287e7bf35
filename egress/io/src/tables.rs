// SPDX-License-Identifier: Apache-2.0
//! What is decided, in the words of the data plane.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bpf_loader::{
    EgressEnd, EgressNeighbour, EgressTables, EgressWay, GatewayRule, NativeTables, RemoteSource,
    Timeouts,
};
use egress_core::{Desired, End, Life, Node, Refusal, Way, World};
use ipnet::IpNet;
use router_types::LinkIndex;

use crate::devices::{OVERHEAD_V4, OVERHEAD_V6};

/// The smallest MTU of IPv6 (RFC 8200 §5).
const IPV6_MIN_MTU: u32 = 1280;

/// The set of pods nobody has decided about yet. No decision's number comes so far.
const NEWCOMERS: u32 = u32::MAX;

/// The set of pods no policy selects any more. It has no destination: what they begin now is
/// nobody's, and what they began before goes on as it is noted.
const LEAVERS: u32 = u32::MAX - 1;

/// The tunnel as the tables need it.
#[derive(Clone)]
pub(crate) struct Tunnel {
    pub(crate) link: LinkIndex,
    /// Largest packet it takes whole over IPv4, in bytes.
    pub(crate) mtu_v4: u16,
    /// The same over IPv6.
    pub(crate) mtu_v6: u16,
    /// The MTU of the ways to nodes that may take less than the devices towards the fabric.
    pub(crate) elsewhere: BTreeMap<IpAddr, u32>,
}

impl Tunnel {
    /// Largest packet it takes whole to the node at an address.
    pub(crate) fn mtu(&self, to: IpAddr) -> u16 {
        let (mtu, overhead) = match to {
            IpAddr::V4(_) => (self.mtu_v4, OVERHEAD_V4),
            IpAddr::V6(_) => (self.mtu_v6, OVERHEAD_V6),
        };
        let way = self.elsewhere.get(&to);
        let there = way.and_then(|way| u16::try_from(way.saturating_sub(overhead)).ok());
        there.map_or(mtu, |there| there.min(mtu))
    }
}

/// What an operator must know of a tunnel that is too narrow: over IPv6 nothing is cut, neither what is
/// wrapped nor what wraps it, and senders of IPv6 cannot be told less than its smallest MTU. `ends` are
/// where this node sends to; a gateway answers all other nodes.
pub(crate) fn too_narrow(
    world: &World,
    mut ends: impl Iterator<Item = End>,
    is_gateway: bool,
    tunnel: &Tunnel,
) -> Option<String> {
    let ways = tunnel.elsewhere.keys().filter(|to| to.is_ipv6());
    let ways = ways.map(|to| tunnel.mtu(*to));
    let mtu = u32::from(ways.fold(tunnel.mtu_v6, u16::min));
    if mtu >= IPV6_MIN_MTU {
        return None;
    }
    let has_v4 = |node: &Node| node.addresses.iter().any(IpAddr::is_ipv4);
    let here = world.nodes.get(&world.node).is_some_and(has_v4);
    let is_used = ends.any(|end| matches!(end, End::Remote(IpAddr::V6(_))))
        || is_gateway && world.nodes.values().any(|node| !(here && has_v4(node)));
    let needed = IPV6_MIN_MTU + OVERHEAD_V6;
    is_used.then(|| {
        format!(
            "the tunnel over IPv6 takes {mtu} bytes whole and IPv6 needs {IPV6_MIN_MTU}: larger packets of \
             IPv6 are refused as too-big; give the devices towards the fabric an MTU of at least \
             {needed}, or the nodes IPv4 addresses"
        )
    })
}

/// The pods' side. `strangers` are addresses of containers that are no pods: no policy can select
/// them. `leavers` are those of pods that may have connections of when a policy did.
pub(crate) fn pods_side(
    world: &World,
    desired: &Desired,
    strangers: &[IpAddr],
    leavers: &BTreeSet<IpAddr>,
    tunnel: Option<&Tunnel>,
) -> EgressTables {
    let decided = world.pods.iter().flat_map(|pod| &pod.addresses);
    let set_of = |address: &IpAddr| match leavers.contains(address) {
        true => LEAVERS,
        false => 0,
    };
    let mut sources: BTreeMap<IpAddr, u32> = decided
        .map(|address| (*address, set_of(address)))
        .chain(strangers.iter().map(|address| (*address, 0)))
        .collect();
    for (address, source) in &desired.sources {
        sources.insert(*address, source.set.0.get());
    }
    let mut sets: BTreeMap<u32, BTreeMap<IpNet, EgressWay>> = desired
        .sets
        .iter()
        .map(|(number, set)| {
            let set = set.iter().map(|(prefix, leads)| (*prefix, way(*leads)));
            (number.0.get(), set.collect())
        })
        .collect();
    let destinations = world.policies.iter().flat_map(|p| &p.destinations);
    let destinations: Vec<IpNet> = destinations.copied().collect();
    let newcomers = (!destinations.is_empty()).then(|| {
        let all = IpNet::aggregate(&destinations).into_iter();
        sets.insert(
            NEWCOMERS,
            all.map(|prefix| (prefix, EgressWay::Undecided)).collect(),
        );
        NEWCOMERS
    });
    let ends = desired.ends.iter().map(|(number, rule)| {
        let end = match (rule.end, tunnel) {
            (End::Remote(address), Some(tunnel)) => EgressEnd::Remote {
                address,
                tunnel: tunnel.link,
                mtu: tunnel.mtu(address),
            },
            (End::Local, Some(tunnel)) => EgressEnd::Local {
                tunnel: tunnel.link,
            },
            (End::Refused, _) | (_, None) => EgressEnd::Nowhere,
        };
        (number.get(), end)
    });
    EgressTables {
        sources,
        newcomers,
        own: own_addresses(world),
        native: native(world, desired, tunnel),
        nodes: if tunnel.is_some() {
            let nodes = world.nodes.values();
            nodes
                .flat_map(|node| node.addresses.iter().copied())
                .collect()
        } else {
            BTreeSet::new()
        },
        ends: ends.collect(),
        in_cluster: if sets.is_empty() && !world.transport.takes_native() {
            BTreeSet::new()
        } else {
            world.in_cluster.clone()
        },
        sets,
    }
}

/// What goes to gateways, and comes to this one, without the tunnel. What comes so and is for no
/// gateway is counted on every node: nodes learn of changes at different times.
fn native(world: &World, desired: &Desired, tunnel: Option<&Tunnel>) -> NativeTables {
    let known = desired.sources.iter();
    let known = known.filter(|(_, source)| source.is_known_to_all);
    let gateways = desired.ends.iter().map(|(number, end)| {
        let neighbours = end.neighbours.iter().map(|neighbour| EgressNeighbour {
            address: neighbour.address,
            link: LinkIndex(neighbour.on_link.link),
            mtu: neighbour.on_link.mtu,
        });
        (number.get(), neighbours.collect())
    });
    let remote = desired.remote.iter().map(|(address, source)| {
        let link = LinkIndex(source.link);
        let set = source.set.0.get();
        (*address, RemoteSource { set, link })
    });
    let is_gateway = !desired.gateway.is_empty() || !desired.standby.is_empty();
    NativeTables {
        known: known.map(|(address, _)| *address).collect(),
        gateways: gateways.collect(),
        pods: world.pod_prefixes.clone(),
        remote: remote.collect(),
        gateway: tunnel
            .map(|tunnel| tunnel.link)
            .filter(|_| is_gateway && world.transport.takes_native()),
    }
}

/// The addresses other nodes know this one by.
pub(crate) fn own_addresses(world: &World) -> Vec<IpAddr> {
    let node = world.nodes.get(&world.node);
    node.map(|node| node.addresses.clone()).unwrap_or_default()
}

/// The rules of a gateway: those it serves, and those it has copies for. Changes of mappings whose
/// rule can move are told if `is_told`.
pub(crate) fn gateway_side(desired: &Desired, is_told: bool) -> BTreeMap<u32, GatewayRule> {
    let served = desired.gateway.iter().map(|rule| (rule, false));
    let copied = desired.standby.iter().map(|rule| (rule, true));
    let rules = copied.chain(served).map(|((number, rule), is_copy)| {
        let v4 = rule.v4.iter().map(|address| IpAddr::V4(*address));
        let v6 = rule.v6.iter().map(|address| IpAddr::V6(*address));
        let rule = GatewayRule {
            interface: rule.output.map(LinkIndex),
            addresses: v4.chain(v6).collect(),
            first_port: rule.ports.first,
            last_port: rule.ports.last,
            is_udp_endpoint_independent: rule.is_udp_endpoint_independent,
            is_replicated: rule.is_held && is_told,
            is_copy,
            drain: rule.drain,
            is_draining: matches!(rule.life, Life::Draining { .. }),
            timeouts: timeouts(&rule.timeouts),
        };
        (number.get(), rule)
    });
    rules.collect()
}

/// Timeouts, field by field.
pub(crate) fn timeouts(of: &egress_core::Timeouts) -> Timeouts {
    Timeouts {
        tcp_opening: of.tcp_opening,
        tcp_established: of.tcp_established,
        tcp_closing: of.tcp_closing,
        udp_unanswered: of.udp_unanswered,
        udp: of.udp,
        icmp: of.icmp,
        other: of.other,
    }
}

fn way(leads: Way) -> EgressWay {
    match leads {
        Way::Through(rule) => EgressWay::Through(rule.get()),
        Way::Excluded => EgressWay::Pass,
        Way::Refused(Refusal::Undecided) => EgressWay::Undecided,
        Way::Refused(_) => EgressWay::NoGateway,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(here: &[&str], there: &[&str]) -> World {
        let node = |addresses: &[&str]| Node {
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            zone: None,
            is_healthy: true,
            is_dead: false,
        };
        World {
            node: "here".into(),
            nodes: [("here", here), ("there", there)]
                .map(|(name, addresses)| (name.into(), node(addresses)))
                .into(),
            ..World::default()
        }
    }

    fn tunnel(mtu_v6: u16) -> Tunnel {
        Tunnel {
            link: LinkIndex(1),
            mtu_v4: mtu_v6 + 20,
            mtu_v6,
            elsewhere: BTreeMap::new(),
        }
    }

    #[test]
    fn a_tunnel_over_ipv6_that_is_too_narrow_for_ipv6_is_reported_where_it_is_used() {
        let both = ["192.0.2.1", "2001:db8::1"];
        let only_v6 = ["2001:db8::2"];
        let remote = |address: &str| [End::Remote(address.parse().unwrap())].into_iter();
        let world_v6 = world(&both, &only_v6);
        let said = too_narrow(&world_v6, remote("2001:db8::2"), false, &tunnel(1_230));
        let said = said.expect("it is used");
        assert!(said.contains("1230") && said.contains("1350"), "{said}");
        assert!(too_narrow(&world_v6, std::iter::empty(), true, &tunnel(1_279)).is_some());
        assert!(too_narrow(&world_v6, std::iter::empty(), false, &tunnel(1_279)).is_none());
        assert!(too_narrow(&world_v6, remote("2001:db8::2"), true, &tunnel(1_280)).is_none());
        let world_v4 = world(&both, &both);
        assert!(too_narrow(&world_v4, remote("192.0.2.1"), true, &tunnel(1_230)).is_none());
    }
}
