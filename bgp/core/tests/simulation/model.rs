// SPDX-License-Identifier: Apache-2.0
//! The slow model: what everybody has to know in the end, computed from what is originated and
//! nothing else. Written from RFC 4271 §9.1 and §9.2, RFC 1997 and RFC 4456, by elimination, with
//! none of the speaker's code.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use bgp_wire::PathAttributes;
use ipnet::IpNet;

use crate::case::Said;
use crate::topology::{STRANGER_ASN, Topology, prefix};

const NO_EXPORT: u32 = 0xffff_ff01;
const NO_ADVERTISE: u32 = 0xffff_ff02;
const DEFAULT_PREFERENCE: u32 = 100;

/// Rounds after which the model itself counts as never settling.
const ROUNDS: usize = 100;

/// A route as a neighbour is told it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Route {
    pub(crate) path: Vec<u32>,
    pub(crate) origin: u8,
    pub(crate) med: Option<u32>,
    pub(crate) local_pref: Option<u32>,
    pub(crate) communities: Vec<u32>,
    pub(crate) originator: Option<Ipv4Addr>,
    pub(crate) clusters: Vec<Ipv4Addr>,
    pub(crate) next_hop: IpAddr,
}

impl Route {
    /// A route as it was read.
    pub(crate) fn read(attributes: &PathAttributes, next_hop: IpAddr) -> Route {
        let path = attributes.as_path.iter().flat_map(|path| &path.segments);
        Route {
            path: path
                .flat_map(|segment| segment.asns.iter().map(|asn| asn.0))
                .collect(),
            origin: attributes.origin.map_or(0, |origin| origin as u8),
            med: attributes.med,
            local_pref: attributes.local_pref,
            communities: attributes.communities.iter().map(|c| c.0).collect(),
            originator: attributes.originator_id,
            clusters: attributes.cluster_list.clone(),
            next_hop,
        }
    }
}

/// Routes by destination.
pub(crate) type Routes = BTreeMap<IpNet, Route>;

/// What is so in the end, whatever came before.
#[derive(Debug)]
pub(crate) struct Truth<'t> {
    pub(crate) topology: &'t Topology,
    /// The own destinations of each node; only speakers have any.
    pub(crate) locals: Vec<BTreeSet<IpNet>>,
    /// What each node says without being asked; only scripted neighbours do.
    pub(crate) said: Vec<BTreeMap<u8, Said>>,
    /// The ends that take nothing, by link and end.
    pub(crate) closed: BTreeSet<(usize, usize)>,
    /// What each node knows of the way to an address.
    pub(crate) metrics: Vec<BTreeMap<IpAddr, Option<u32>>>,
}

/// What everybody has to know.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Expected {
    /// What an end of a link is told by the other one.
    pub(crate) told: BTreeMap<(usize, usize), Routes>,
    /// The link a speaker uses for a destination it does not have itself.
    pub(crate) best: BTreeMap<(usize, IpNet), usize>,
}

impl Truth<'_> {
    /// The state nothing leads out of. `None` where there is none to be found.
    pub(crate) fn solve(&self) -> Option<Expected> {
        let mut expected = Expected::default();
        for _ in 0..ROUNDS {
            let before = expected.clone();
            for node in 0..self.topology.nodes.len() {
                self.decide(node, &mut expected);
                for (link, end) in self.topology.links_of(node) {
                    let told = self.told_by(&expected, node, link, end);
                    expected.told.insert((link, 1 - end), told);
                }
            }
            if expected == before {
                return Some(expected);
            }
        }
        None
    }

    /// Whether a node takes a route of a neighbour.
    pub(crate) fn takes(&self, link: usize, end: usize, route: &Route) -> bool {
        let here = &self.topology.links[link][end];
        let node = &self.topology.nodes[here.node];
        !self.closed.contains(&(link, end))
            && !route.path.contains(&node.asn)
            && route.originator != Some(node.router_id)
            && !route.clusters.contains(&node.router_id)
            && route.next_hop != IpAddr::V4(here.v4)
    }

    fn decide(&self, node: usize, expected: &mut Expected) {
        if !self.topology.nodes[node].is_speaker {
            return;
        }
        expected.best.retain(|(other, _), _| *other != node);
        for number in 0..crate::case::PREFIXES {
            let prefix = prefix(number);
            if let Some(link) = self.best(node, &prefix, expected) {
                expected.best.insert((node, prefix), link);
            }
        }
    }

    /// RFC 4271 §9.1.2.2 and RFC 4456 §9, a step at a time.
    fn best(&self, node: usize, prefix: &IpNet, expected: &Expected) -> Option<usize> {
        let reachable = |hop: &IpAddr| self.metrics[node].get(hop) != Some(&None);
        let mut left: Vec<(usize, usize, &Route)> = Vec::new();
        for (link, end) in self.topology.links_of(node) {
            let told = expected.told.get(&(link, end));
            if let Some(route) = told.and_then(|routes| routes.get(prefix))
                && self.takes(link, end, route)
                && reachable(&route.next_hop)
            {
                left.push((link, end, route));
            }
        }
        let internal = |link: usize| self.topology.is_internal(link);
        let far = |link: usize, end: usize| {
            let there = &self.topology.links[link][1 - end];
            (there, &self.topology.nodes[there.node])
        };
        let preference = |route: &Route| route.local_pref.unwrap_or(DEFAULT_PREFERENCE);
        let most = left.iter().map(|(_, _, route)| preference(route)).max()?;
        left.retain(|(_, _, route)| preference(route) == most);
        let least = left.iter().map(|(_, _, route)| route.path.len()).min()?;
        left.retain(|(_, _, route)| route.path.len() == least);
        let least = left.iter().map(|(_, _, route)| route.origin).min()?;
        left.retain(|(_, _, route)| route.origin == least);
        let before = left.clone();
        let med = |route: &Route| route.med.unwrap_or(0);
        left.retain(|(_, _, route)| {
            let beaten = |(_, _, other): &(usize, usize, &Route)| {
                other.path.first() == route.path.first() && med(other) < med(route)
            };
            !before.iter().any(beaten)
        });
        if left.iter().any(|(link, _, _)| !internal(*link)) {
            left.retain(|(link, _, _)| !internal(*link));
        }
        let metric = |route: &Route| self.metrics[node].get(&route.next_hop).copied().flatten();
        let metric = |route: &Route| metric(route).unwrap_or(0);
        let least = left.iter().map(|(_, _, route)| metric(route)).min()?;
        left.retain(|(_, _, route)| metric(route) == least);
        let id = |link, end, route: &Route| route.originator.unwrap_or(far(link, end).1.router_id);
        let least = left.iter().map(|(l, e, route)| id(*l, *e, route)).min()?;
        left.retain(|(l, e, route)| id(*l, *e, route) == least);
        let least = left
            .iter()
            .map(|(_, _, route)| route.clusters.len())
            .min()?;
        left.retain(|(_, _, route)| route.clusters.len() == least);
        left.sort_by_key(|(link, end, _)| far(*link, *end).0.v4);
        left.first().map(|(link, _, _)| *link)
    }

    /// What a node tells its neighbour on a link.
    fn told_by(&self, expected: &Expected, node: usize, link: usize, end: usize) -> Routes {
        let plan = &self.topology.nodes[node];
        let here = &self.topology.links[link][end];
        let internal = self.topology.is_internal(link);
        let mut routes = Routes::new();
        for (number, said) in &self.said[node] {
            let prefix = prefix(*number);
            routes.insert(prefix, strange(said, here.next_hop(&prefix)));
        }
        for prefix in &self.locals[node] {
            let route = Route {
                path: Vec::from_iter((!internal).then_some(plan.asn)),
                origin: 0,
                med: None,
                local_pref: internal.then_some(DEFAULT_PREFERENCE),
                communities: Vec::new(),
                originator: None,
                clusters: Vec::new(),
                next_hop: here.next_hop(prefix),
            };
            routes.insert(*prefix, route);
        }
        let learned = expected.best.iter().filter(|((who, _), _)| *who == node);
        for ((_, prefix), from) in learned {
            // Its own destinations are the node's, whatever others say; and nobody is told what it
            // said itself.
            if self.locals[node].contains(prefix) || *from == link {
                continue;
            }
            let source_end = usize::from(self.topology.links[*from][0].node != node);
            let source_is_client = self.topology.links[*from][source_end].has_client;
            let from_internal = self.topology.is_internal(*from);
            let route = &expected.told[&(*from, source_end)][prefix];
            let stays = |community| route.communities.contains(&community);
            if stays(NO_ADVERTISE)
                || (!internal && stays(NO_EXPORT))
                || (internal && from_internal && !source_is_client && !here.has_client)
            {
                continue;
            }
            let mut route = route.clone();
            if internal {
                route.local_pref = Some(route.local_pref.unwrap_or(DEFAULT_PREFERENCE));
                if from_internal {
                    let source = &self.topology.links[*from][1 - source_end];
                    let source = self.topology.nodes[source.node].router_id;
                    route.originator = route.originator.or(Some(source));
                    route.clusters.insert(0, plan.router_id);
                }
            } else {
                route.path.insert(0, plan.asn);
                route.med = None;
                route.local_pref = None;
                route.originator = None;
                route.clusters.clear();
                route.next_hop = here.next_hop(prefix);
            }
            routes.insert(*prefix, route);
        }
        routes
    }
}

/// What a scripted neighbour says.
pub(crate) fn strange(said: &Said, next_hop: IpAddr) -> Route {
    let mut path = vec![STRANGER_ASN];
    path.extend(&said.path);
    Route {
        path,
        origin: said.origin,
        med: said.med,
        local_pref: None,
        communities: said.communities.clone(),
        originator: None,
        clusters: Vec::new(),
        next_hop,
    }
}
