// SPDX-License-Identifier: Apache-2.0
//! What a node tells its neighbours (RFC 4271 §9.2, §5.1; RFC 1997; RFC 4456 §6, §8; RFC 4364 §10;
//! RFC 4684 §3; RFC 7911; RFC 9494 §4.3).

use bgp_wire::RouteTargetPrefix;
use router_types::Asn;

use super::*;

impl Truth<'_> {
    /// What a node tells its neighbour on a link.
    pub(super) fn told_by(
        &self,
        expected: &Expected,
        node: usize,
        link: usize,
        end: usize,
    ) -> Table {
        let here = &self.topology.links[link][end];
        let plan = &self.topology.plans[link];
        let several = here.sends_several.filter(|_| plan.takes_several);
        let families = plan.families();
        let mut table = Table::new();
        let mut tell = |destination: Destination, route: Route| {
            if families.contains(&destination.family()) {
                table.entry(destination).or_default().push(route);
            }
        };
        for ((number, id), said) in &self.said[node] {
            let destination = destination(*number);
            if *id == 0 || several.is_some() {
                let hop = here.next_hop(&destination);
                let asn = self.topology.nodes[node].asn;
                tell(destination, strange(asn, said, &destination, hop));
            }
        }
        let tells_own = !self.hidden[node].contains(&link);
        for prefix in self.locals[node].iter().filter(|_| tells_own) {
            let destination = Destination::Ip(*prefix);
            if let Some(route) = self.own(link, end, &destination) {
                tell(destination, route);
            }
        }
        let learned = expected.used.range((node, destination(0))..);
        for ((_, destination), used) in learned.take_while(|((who, _), _)| *who == node) {
            let own = destination.prefix();
            let is_own = matches!(destination, Destination::Ip(_))
                && own.is_some_and(|own| self.locals[node].contains(&own));
            // Its own destinations are the node's, whatever others say; who is told nothing of them is
            // told what others say.
            if is_own && tells_own {
                continue;
            }
            let passes = |candidate: &Candidate| {
                let route = self.passed_on(expected, (link, end), destination, candidate)?;
                Some((candidate.link, route))
            };
            let told: Vec<(usize, Route)> = match several {
                None => used.first().and_then(passes).into_iter().collect(),
                Some(most) => used.iter().filter_map(passes).take(most.into()).collect(),
            };
            // Nobody is told what it said itself.
            for (_, route) in told.into_iter().filter(|(from, _)| *from != link) {
                tell(*destination, route);
            }
        }
        if plan.has_targets {
            for (destination, route) in self.memberships(expected, node, link, end) {
                tell(destination, route);
            }
        }
        table
    }

    /// A destination of the node itself.
    fn own(&self, link: usize, end: usize, destination: &Destination) -> Option<Route> {
        let here = &self.topology.links[link][end];
        let internal = self.topology.is_internal(link);
        let route = Route {
            path: Vec::new(),
            origin: 0,
            med: None,
            local_pref: internal.then_some(DEFAULT_PREFERENCE),
            communities: BTreeSet::new(),
            extended: BTreeSet::new(),
            originator: None,
            clusters: Vec::new(),
            next_hop: here.next_hop(destination),
            label: None,
        };
        // RFC 8212 is about what is learned: who is told of these is configured for each neighbour.
        let mut route = match self.filters.get(&(link, end, Way::Out)) {
            None => route,
            Some(_) => self.filtered((link, end, Way::Out), destination, &route)?,
        };
        if !internal {
            route.path.insert(0, self.topology.nodes[here.node].asn);
        }
        Some(route)
    }

    /// A learned route as a neighbour is told it, if it is.
    fn passed_on(
        &self,
        expected: &Expected,
        (link, end): (usize, usize),
        destination: &Destination,
        from: &Candidate,
    ) -> Option<Route> {
        let here = &self.topology.links[link][end];
        let plan = &self.topology.nodes[here.node];
        let internal = self.topology.is_internal(link);
        let from_internal = self.topology.is_internal(from.link);
        let from_client = self.topology.links[from.link][from.end].has_client;
        let route = &from.route;
        let has = |community| route.communities.contains(&community);
        let is_vpn = destination.family() == Family::VPNV4;
        if has(NO_ADVERTISE)
            || (!internal && has(NO_EXPORT))
            || (internal && from_internal && !from_client && !here.has_client)
            || (has(LLGR_STALE) && !self.topology.plans[link].long_lived)
            || (is_vpn && !internal && !self.topology.keeps_next_hops(link))
            || (is_vpn && !self.is_wanted(expected, link, end, route))
        {
            return None;
        }
        let mut bare = route.clone();
        if !internal {
            bare.med = None;
            bare.local_pref = None;
        }
        let mut route = self.filtered((link, end, Way::Out), destination, &bare)?;
        if internal {
            route.local_pref = Some(route.local_pref.unwrap_or(DEFAULT_PREFERENCE));
            if from_internal {
                let source = &self.topology.links[from.link][1 - from.end];
                let source = self.topology.nodes[source.node].router_id;
                route.originator = route.originator.or(Some(source));
                route.clusters.insert(0, plan.router_id);
            }
        } else {
            route.path.insert(0, plan.asn);
            route.originator = None;
            route.clusters.clear();
            if !is_vpn {
                route.next_hop = here.next_hop(destination);
            }
        }
        Some(route)
    }

    /// Whether a neighbour asks for a route of a VPN.
    fn is_wanted(&self, expected: &Expected, link: usize, end: usize, route: &Route) -> bool {
        if !self.topology.plans[link].has_targets {
            return true;
        }
        let Some(told) = expected.told.get(&(link, end)) else {
            return false;
        };
        told.iter().any(|(destination, routes)| {
            let Destination::RouteTarget(wanted) = destination else {
                return false;
            };
            let is_taken = |route: &Route| self.takes(link, end, destination, route).is_some();
            let is_one = wanted.is_default()
                || route
                    .extended
                    .iter()
                    .any(|target| wanted.octets()[4..] == *target);
            is_one && routes.iter().any(is_taken)
        })
    }

    /// What a node tells a neighbour of what is asked for (RFC 4684 §3).
    fn memberships(
        &self,
        expected: &Expected,
        node: usize,
        link: usize,
        end: usize,
    ) -> Vec<(Destination, Route)> {
        let here = &self.topology.links[link][end];
        let plan = &self.topology.nodes[node];
        let internal = self.topology.is_internal(link);
        let own: BTreeSet<RouteTargetPrefix> = match &self.targets[node] {
            None => BTreeSet::from([RouteTargetPrefix::DEFAULT]),
            Some(numbers) => {
                let asn = Asn(plan.asn);
                let of = |number: &u8| RouteTargetPrefix::new(asn, target(*number));
                numbers.iter().map(of).collect()
            }
        };
        let mut known: BTreeSet<Destination> = BTreeSet::new();
        for at in self.topology.links_of(node) {
            let told = expected.told.get(&at).into_iter().flatten();
            let destinations = told.map(|(destination, _)| *destination);
            known.extend(destinations.filter(|d| matches!(d, Destination::RouteTarget(_))));
        }
        known.extend(own.iter().copied().map(Destination::RouteTarget));
        let mut all = Vec::new();
        for destination in known {
            let Destination::RouteTarget(wanted) = destination else {
                continue;
            };
            if own.contains(&wanted) {
                all.push((destination, self.own_membership(link, end)));
                continue;
            }
            let mut candidates = self.candidates(node, &destination, expected);
            // §3.2 ii: to those that are not reflected to, what goes to them, though another is the
            // best.
            let from_client = |c: &Candidate| self.topology.links[c.link][c.end].has_client;
            candidates.retain(|candidate| {
                let external = !self.topology.is_internal(candidate.link);
                !internal || here.has_client || external || from_client(candidate)
            });
            let Some(best) = self.best(node, &candidates) else {
                continue;
            };
            let from_internal = self.topology.is_internal(best.link);
            let Some(mut route) = self.passed_on(expected, (link, end), &destination, &best) else {
                continue;
            };
            if from_internal && here.has_client {
                // §3.2 i: a client is told of its own ones, too, since others may want the same.
                route.originator = Some(plan.router_id);
                route.next_hop = here.v4.into();
            } else if best.link == link {
                continue;
            }
            all.push((destination, route));
        }
        all
    }

    /// What a node itself asks for, whatever policies say.
    fn own_membership(&self, link: usize, end: usize) -> Route {
        let here = &self.topology.links[link][end];
        let internal = self.topology.is_internal(link);
        let asn = self.topology.nodes[here.node].asn;
        Route {
            path: Vec::from_iter((!internal).then_some(asn)),
            origin: 0,
            med: None,
            local_pref: internal.then_some(DEFAULT_PREFERENCE),
            communities: BTreeSet::new(),
            extended: BTreeSet::new(),
            originator: None,
            clusters: Vec::new(),
            next_hop: here.v4.into(),
            label: None,
        }
    }
}
