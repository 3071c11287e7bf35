// SPDX-License-Identifier: Apache-2.0
//! The slow model: what everybody has to know in the end, computed from what is originated and
//! nothing else. Written from RFC 4271 §9.1 and §9.2, RFC 1997, RFC 4456, RFC 4364, RFC 4684, RFC
//! 4724, RFC 7911 and RFC 9494, by elimination, with none of the speaker's code.

mod export;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use bgp_wire::{Destination, PathAttributes};
use ipnet::IpNet;
use router_types::Family;

use crate::case::Said;
use crate::filter::{DROPPED, Filter, MARKED, MARKS, PICKED, PREFERRED, Way};
use crate::node::label;
use crate::told::Told;
use crate::topology::{LONG_LIVED, Topology, destination, prefix, target};

const NO_EXPORT: u32 = 0xffff_ff01;
const NO_ADVERTISE: u32 = 0xffff_ff02;
const LLGR_STALE: u32 = 0xffff_0006;
const NO_LLGR: u32 = 0xffff_0007;
const DEFAULT_PREFERENCE: u32 = 100;

/// Rounds after which the model itself counts as never settling.
const ROUNDS: usize = 100;

/// A route as a neighbour is told it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Route {
    pub(crate) path: Vec<u32>,
    pub(crate) origin: u8,
    pub(crate) med: Option<u32>,
    pub(crate) local_pref: Option<u32>,
    pub(crate) communities: BTreeSet<u32>,
    pub(crate) extended: BTreeSet<[u8; 8]>,
    pub(crate) originator: Option<Ipv4Addr>,
    pub(crate) clusters: Vec<Ipv4Addr>,
    pub(crate) next_hop: IpAddr,
    pub(crate) label: Option<u32>,
}

impl Route {
    /// A route as it was read, without label.
    pub(crate) fn read(attributes: &PathAttributes, next_hop: IpAddr) -> Route {
        let path = attributes.as_path.iter().flat_map(|path| &path.segments);
        let extended = attributes.extended_communities.iter();
        Route {
            path: path
                .flat_map(|segment| segment.asns.iter().map(|asn| asn.0))
                .collect(),
            origin: attributes.origin.map_or(0, |origin| origin as u8),
            med: attributes.med,
            local_pref: attributes.local_pref,
            communities: attributes.communities.iter().map(|c| c.0).collect(),
            extended: extended.map(|community| community.0).collect(),
            originator: attributes.originator_id,
            clusters: attributes.cluster_list.clone(),
            next_hop,
            label: None,
        }
    }
}

/// Routes by destination; several where several are told.
pub(crate) type Table = BTreeMap<Destination, Vec<Route>>;

/// What is left of a node that is away.
#[derive(Clone, Debug)]
pub(crate) struct Away {
    /// What it had told, by the end that was told it.
    pub(crate) told: BTreeMap<(usize, usize), Table>,
    pub(crate) phase: Phase,
}

/// How long a node is away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Shorter than its restart time (RFC 4724 §4.2).
    Restarting,
    /// Longer, and shorter than the long-lived stale time (RFC 9494 §4.3).
    LongGone,
    /// Longer than everything.
    Forgotten,
}

/// What is so in the end, whatever came before.
#[derive(Debug)]
pub(crate) struct Truth<'t> {
    pub(crate) topology: &'t Topology,
    /// Whether sessions have graceful restart.
    pub(crate) restarts: bool,
    /// Whether scripted neighbours have it for all families but IPv6.
    pub(crate) partial: bool,
    /// Whether external sessions need policies (RFC 8212).
    pub(crate) strict: bool,
    /// The own destinations of each node; only speakers have any.
    pub(crate) locals: Vec<BTreeSet<IpNet>>,
    /// What each node says without being asked; only scripted neighbours do.
    pub(crate) said: Vec<BTreeMap<(u8, u8), Said>>,
    /// The ends that take nothing, by link and end.
    pub(crate) closed: BTreeSet<(usize, usize)>,
    /// What each node knows of the way to an address.
    pub(crate) metrics: Vec<BTreeMap<IpAddr, Option<u32>>>,
    /// Policies by link and end.
    pub(crate) filters: BTreeMap<(usize, usize, Way), Filter>,
    /// The revision of each node's policies.
    pub(crate) revisions: Vec<usize>,
    /// The links whose neighbours each node tells nothing of its own destinations.
    pub(crate) hidden: Vec<BTreeSet<usize>>,
    /// The route targets each node asks for.
    pub(crate) targets: Vec<Option<BTreeSet<u8>>>,
    /// Who is away.
    pub(crate) away: BTreeMap<usize, Away>,
    /// What came off the wire, by who was told: the identifiers that tell equal routes apart.
    pub(crate) wire: BTreeMap<(usize, usize), &'t Told>,
}

/// A route a node may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    pub(crate) link: usize,
    /// The node's end of it.
    pub(crate) end: usize,
    /// The route, as policy made it.
    pub(crate) route: Route,
    /// Its identifier, where several came.
    id: u32,
}

/// What everybody has to know.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Expected {
    /// What an end of a link is told by the other one.
    pub(crate) told: BTreeMap<(usize, usize), Table>,
    /// What a speaker uses for a destination it does not have itself, the best one first.
    pub(crate) used: BTreeMap<(usize, Destination), Vec<Candidate>>,
}

impl Truth<'_> {
    /// The state nothing leads out of. `None` where there is none to be found.
    pub(crate) fn solve(&self) -> Option<Expected> {
        let mut expected = Expected::default();
        for _ in 0..ROUNDS {
            let before = expected.clone();
            for node in 0..self.topology.nodes.len() {
                if let Some(away) = self.away.get(&node) {
                    let told = away.told.iter();
                    let left = told.map(|(at, table)| (*at, self.left_of(*at, away, table)));
                    expected.told.extend(left);
                    continue;
                }
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

    /// What is kept of what a node that is away had told.
    fn left_of(&self, (link, end): (usize, usize), away: &Away, table: &Table) -> Table {
        let plan = &self.topology.plans[link];
        let there = self.topology.links[link][1 - end].node;
        let is_partial = self.partial && !self.topology.nodes[there].is_speaker;
        let restarts = |family| self.restarts && !(is_partial && family == Family::IPV6_UNICAST);
        let mut left = Table::new();
        for (destination, routes) in table {
            let long_lived = plan.long_lived && LONG_LIVED.contains(&destination.family());
            let kept: Vec<Route> = match away.phase {
                Phase::Restarting if restarts(destination.family()) => routes.clone(),
                Phase::LongGone if self.restarts && long_lived => {
                    let lasting = routes.iter().filter(|r| !r.communities.contains(&NO_LLGR));
                    let mark = |route: &Route| {
                        let mut route = route.clone();
                        route.communities.insert(LLGR_STALE);
                        route
                    };
                    lasting.map(mark).collect()
                }
                Phase::Restarting | Phase::LongGone | Phase::Forgotten => Vec::new(),
            };
            if !kept.is_empty() {
                left.insert(*destination, kept);
            }
        }
        left
    }

    /// A route of a neighbour as a node takes it, if it does.
    pub(crate) fn takes(
        &self,
        link: usize,
        end: usize,
        destination: &Destination,
        route: &Route,
    ) -> Option<Route> {
        let here = &self.topology.links[link][end];
        let node = &self.topology.nodes[here.node];
        let refused = self.closed.contains(&(link, end))
            || route.path.contains(&node.asn)
            || route.originator == Some(node.router_id)
            || route.clusters.contains(&node.router_id)
            || route.next_hop == IpAddr::V4(here.v4);
        if refused {
            return None;
        }
        self.filtered((link, end, Way::In), destination, route)
    }

    /// What policy makes of a learned route, if it passes.
    fn filtered(
        &self,
        at: (usize, usize, Way),
        destination: &Destination,
        route: &Route,
    ) -> Option<Route> {
        let mut route = route.clone();
        if matches!(destination, Destination::RouteTarget(_)) {
            return Some(route);
        }
        let filter = self.filters.get(&at);
        let revision = self.revisions[self.topology.links[at.0][at.1].node];
        let is_one_of = |numbers: [u8; 2]| {
            let of = destination.prefix();
            numbers.into_iter().any(|n| of == Some(prefix(n)))
        };
        match filter {
            // RFC 8212 §3.
            None if self.strict && !self.topology.is_internal(at.0) => return None,
            None | Some(Filter::Open) => {}
            Some(Filter::Mark) | Some(Filter::Prefer) if !is_one_of(MARKED) => {}
            Some(Filter::Mark) => {
                route.communities.insert(MARKS[revision]);
            }
            Some(Filter::Prefer) => {
                route.communities.insert(MARKS[revision]);
                route.local_pref = Some(PREFERRED);
            }
            Some(Filter::Pick) if route.communities.contains(&PICKED) => return None,
            Some(Filter::Drop) if is_one_of(DROPPED[revision]) => return None,
            Some(Filter::Pick) | Some(Filter::Drop) => {}
            Some(Filter::Tag) => {
                route.communities.insert(crate::filter::TAG);
                if !self.topology.is_internal(at.0) {
                    let here = self.topology.links[at.0][at.1].node;
                    let own = self.topology.nodes[here].asn;
                    route.path.splice(0..0, [own, own]);
                }
            }
        }
        Some(route)
    }

    fn decide(&self, node: usize, expected: &mut Expected) {
        if !self.topology.nodes[node].is_speaker {
            return;
        }
        expected.used.retain(|(other, _), _| *other != node);
        for number in 0..crate::case::DESTINATIONS {
            let destination = destination(number);
            let order = self.in_order(node, self.candidates(node, &destination, expected));
            if !order.is_empty() {
                expected.used.insert((node, destination), order);
            }
        }
    }

    /// The routes a node may use for a destination.
    fn candidates(
        &self,
        node: usize,
        destination: &Destination,
        expected: &Expected,
    ) -> Vec<Candidate> {
        let reachable = |hop: &IpAddr| self.metrics[node].get(hop) != Some(&None);
        let mut all = Vec::new();
        for (link, end) in self.topology.links_of(node) {
            let told = expected.told.get(&(link, end));
            let routes = told.and_then(|table| table.get(destination));
            for told in routes.into_iter().flatten() {
                let taken = self.takes(link, end, destination, told);
                if let Some(route) = taken.filter(|route| reachable(&route.next_hop)) {
                    let id = self.identifier(link, end, destination, told);
                    all.push(Candidate {
                        link,
                        end,
                        route,
                        id,
                    });
                }
            }
        }
        all
    }

    /// The identifier of a route, where several came: as it was told, before it was marked as stale.
    fn identifier(&self, link: usize, end: usize, destination: &Destination, told: &Route) -> u32 {
        let Some(wire) = self.wire.get(&(link, end)) else {
            return 0;
        };
        let mut before = told.clone();
        before.communities.remove(&LLGR_STALE);
        let ids = wire.ids(destination, told);
        let ids = ids.into_iter().chain(wire.ids(destination, &before));
        ids.into_iter().next().unwrap_or(0)
    }

    /// The best one first, then the best one of the rest, and so on.
    fn in_order(&self, node: usize, mut left: Vec<Candidate>) -> Vec<Candidate> {
        let mut order = Vec::new();
        while let Some(best) = self.best(node, &left) {
            let at = left.iter().position(|candidate| *candidate == best);
            order.push(left.remove(at.expect("the best one is one of them")));
        }
        order
    }

    /// RFC 4271 §9.1.2.2, RFC 4456 §9 and RFC 9494 §4.3, a step at a time.
    fn best(&self, node: usize, all: &[Candidate]) -> Option<Candidate> {
        let mut left = all.to_vec();
        let keep_least = |left: &mut Vec<Candidate>, key: &dyn Fn(&Candidate) -> u64| {
            let least = left.iter().map(key).min();
            left.retain(|candidate| Some(key(candidate)) == least);
        };
        let far = |candidate: &Candidate| {
            let there = &self.topology.links[candidate.link][1 - candidate.end];
            (there, &self.topology.nodes[there.node])
        };
        keep_least(&mut left, &|c| {
            c.route.communities.contains(&LLGR_STALE).into()
        });
        keep_least(&mut left, &|c| {
            let preference = c.route.local_pref.unwrap_or(DEFAULT_PREFERENCE);
            (u32::MAX - preference).into()
        });
        keep_least(&mut left, &|c| c.route.path.len() as u64);
        keep_least(&mut left, &|c| c.route.origin.into());
        let before = left.clone();
        let med = |route: &Route| route.med.unwrap_or(0);
        left.retain(|candidate| {
            let route = &candidate.route;
            let beaten = |other: &Candidate| {
                other.route.path.first() == route.path.first() && med(&other.route) < med(route)
            };
            !before.iter().any(beaten)
        });
        keep_least(&mut left, &|c| self.topology.is_internal(c.link).into());
        keep_least(&mut left, &|c| {
            let metric = self.metrics[node].get(&c.route.next_hop);
            metric.copied().flatten().unwrap_or(0).into()
        });
        keep_least(&mut left, &|c| {
            let id = c.route.originator.unwrap_or(far(c).1.router_id);
            id.to_bits().into()
        });
        keep_least(&mut left, &|c| c.route.clusters.len() as u64);
        keep_least(&mut left, &|c| far(c).0.v4.to_bits().into());
        keep_least(&mut left, &|c| c.id.into());
        left.into_iter().next()
    }
}

/// What a scripted neighbour says.
fn strange(asn: u32, said: &Said, destination: &Destination, next_hop: IpAddr) -> Route {
    let mut path = vec![asn];
    path.extend(&said.path);
    let is_vpn = destination.family() == Family::VPNV4;
    let targets = said.targets.iter().filter(|_| is_vpn);
    Route {
        path,
        origin: said.origin,
        med: said.med,
        local_pref: None,
        communities: said.communities.iter().copied().collect(),
        extended: targets.map(|number| target(*number).0).collect(),
        originator: None,
        clusters: Vec::new(),
        next_hop,
        label: is_vpn.then(|| label(said)),
    }
}
