// SPDX-License-Identifier: Apache-2.0
//! Looking at routes, a page at a time.

use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bgp_wire::{Destination, Label, Origin, PathAttributes};
use ipnet::IpNet;
use router_types::Family;

use super::attributes::decode;
use super::best::Standing;
use super::keys::DestId;
use super::table::Path;
use super::{BestChange, INSTALLED, PeerId, Rib, Verdict, slot_of};
use crate::config::PeerName;

/// The table looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RouteTable {
    /// All accepted routes and the node's own (Loc-RIB).
    Available,
    /// What a neighbour sent and policy accepted (Adj-RIB-In).
    Received(PeerName),
    /// What a neighbour sent and policy rejected.
    Filtered(PeerName),
    /// What a neighbour is sent (Adj-RIB-Out).
    Advertised(PeerName),
}

/// The prefixes looked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum PrefixFilter {
    /// All.
    #[default]
    All,
    /// One prefix.
    Exact(IpNet),
    /// A prefix and everything under it.
    Longer(IpNet),
    /// All prefixes that contain an address; the last one is the one it is routed by.
    For(IpAddr),
}

impl PrefixFilter {
    /// Of a VPN's destination the prefix counts, whatever the route distinguisher; memberships
    /// have none.
    fn matches(&self, destination: &Destination) -> bool {
        let prefix = destination.prefix();
        match self {
            PrefixFilter::All => true,
            PrefixFilter::Exact(wanted) => prefix == Some(*wanted),
            PrefixFilter::Longer(wanted) => prefix.is_some_and(|prefix| wanted.contains(&prefix)),
            PrefixFilter::For(address) => destination.contains(address),
        }
    }
}

/// A question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteQuery {
    /// Where.
    pub table: RouteTable,
    /// Which family.
    pub family: Family,
    /// Which prefixes.
    pub filter: PrefixFilter,
    /// Continue after this destination.
    pub after: Option<Destination>,
    /// Stop once this many routes are on the page; a page ends with a whole destination.
    pub limit: usize,
}

/// Destinations on one page at most, so that a page cannot hold the RIB up for long.
const PAGE_LIMIT: usize = 65_536;

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RoutePage {
    /// The routes, by prefix.
    pub routes: Vec<RouteView>,
    /// Where the next page begins; `None` when this is the last.
    pub next: Option<Destination>,
}

/// A route to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteView {
    /// The destination.
    pub prefix: Destination,
    /// The label of a route of a VPN.
    pub label: Option<Label>,
    /// The neighbour it is from, or is sent to; `None` for the node's own.
    pub peer: Option<PeerName>,
    /// The next hop; `None` for the node's own and where it was not kept.
    pub next_hop: Option<IpAddr>,
    /// The attributes; `None` for rejected routes whose attributes are not kept.
    pub attributes: Option<PathAttributes>,
    /// How long it is there; `None` where it is not known.
    pub age: Option<Duration>,
    /// What it is used for or why not; `None` outside of [`RouteTable::Available`] and
    /// [`RouteTable::Received`] and [`RouteTable::Filtered`].
    pub verdict: Option<Verdict>,
    /// Whether it is kept for a neighbour that restarts.
    pub stale: bool,
}

impl RouteView {
    /// Whether it is the best route for its destination.
    pub fn is_best(&self) -> bool {
        self.verdict == Some(Verdict::Best)
    }
}

/// A destination on a page.
struct Entry {
    slot: usize,
    id: DestId,
    prefix: Destination,
}

impl Rib {
    /// Answers a question about routes.
    pub fn routes(&self, query: &RouteQuery, now: Instant) -> RoutePage {
        let peer = match &query.table {
            RouteTable::Available => None,
            RouteTable::Received(peer)
            | RouteTable::Filtered(peer)
            | RouteTable::Advertised(peer) => match self.neighbours.id(peer) {
                Some(id) => Some(id),
                None => return RoutePage::default(),
            },
        };
        let mut page = RoutePage::default();
        let (entries, more) = self.entries(query, peer);
        for entry in entries {
            match &query.table {
                RouteTable::Available => self.available(&mut page, &entry, None, now),
                RouteTable::Received(_) => self.available(&mut page, &entry, peer, now),
                RouteTable::Filtered(_) => self.filtered(&mut page, &entry, peer, now),
                RouteTable::Advertised(name) => self.advertised(&mut page, &entry, name, peer),
            }
            page.next = Some(entry.prefix);
            if page.routes.len() >= query.limit {
                return page;
            }
        }
        if !more {
            page.next = None;
        }
        page
    }

    /// Every destination with a best learned route, a page at a time, in order.
    pub fn best_routes(
        &self,
        family: Family,
        after: Option<IpNet>,
        limit: usize,
    ) -> Vec<BestChange> {
        let query = RouteQuery {
            table: RouteTable::Available,
            family,
            filter: PrefixFilter::All,
            after: after.map(Destination::Ip),
            limit,
        };
        let (entries, _) = self.entries(&query, None);
        entries
            .into_iter()
            .filter_map(|entry| {
                Some(BestChange {
                    prefix: entry.prefix.prefix()?,
                    best: self.best_route(entry.slot, entry.id),
                })
            })
            .filter(|change| change.best.is_some())
            .collect()
    }

    /// The first destinations after the last page that can have something to show, in order, and
    /// whether there may be more. Looks at every number once: numbers have no order of prefixes.
    fn entries(&self, query: &RouteQuery, peer: Option<PeerId>) -> (Vec<Entry>, bool) {
        let Some(slot) = slot_of(query.family) else {
            return (Vec::new(), false);
        };
        let table = &self.tables[slot];
        let entry = |id| Entry {
            slot,
            id,
            prefix: table.keys.destination(id),
        };
        if let (PrefixFilter::Exact(prefix), 0..INSTALLED) = (&query.filter, slot) {
            let known = table.keys.find(prefix).filter(|_| query.after.is_none());
            return (known.map(entry).into_iter().collect(), false);
        }
        let shows = |id: DestId| {
            let (first, more) = table.paths(id);
            let mut paths = first.into_iter().chain(more);
            match &query.table {
                RouteTable::Available => {
                    table.local.contains(id) || paths.any(|path| path.rejected.is_none())
                }
                RouteTable::Received(_) => {
                    paths.any(|path| Some(path.peer) == peer && path.rejected.is_none())
                }
                RouteTable::Filtered(_) => {
                    paths.any(|path| Some(path.peer) == peer && path.rejected.is_some())
                }
                RouteTable::Advertised(_) => true,
            }
        };
        let wanted = |prefix: &Destination| {
            query.after.is_none_or(|after| *prefix > after) && query.filter.matches(prefix)
        };
        // The smallest so many: a heap of those, the greatest on top.
        let limit = query.limit.clamp(1, PAGE_LIMIT);
        let mut page: BinaryHeap<(Destination, DestId)> = BinaryHeap::with_capacity(limit + 1);
        let mut more = false;
        for id in table.ids() {
            let prefix = table.keys.destination(id);
            let full = page.len() == limit;
            if full && page.peek().is_some_and(|(last, _)| prefix > *last) {
                more |= wanted(&prefix) && shows(id);
                continue;
            }
            if wanted(&prefix) && shows(id) {
                page.push((prefix, id));
                if full {
                    page.pop();
                    more = true;
                }
            }
        }
        let sorted = page.into_sorted_vec();
        (sorted.into_iter().map(|(_, id)| entry(id)).collect(), more)
    }

    fn available(&self, page: &mut RoutePage, entry: &Entry, peer: Option<PeerId>, now: Instant) {
        let table = &self.tables[entry.slot];
        let local = table.local.contains(entry.id);
        if local && peer.is_none() {
            page.routes.push(self.own_view(entry.prefix));
        }
        let paths = table.sorted(entry.id);
        let (standings, _) = self.judge(&paths);
        for (path, Standing { verdict, .. }) in paths.iter().zip(standings) {
            if path.rejected.is_none() && peer.is_none_or(|peer| peer == path.peer) {
                let verdict = if local { Verdict::LocalRoute } else { verdict };
                page.routes
                    .push(self.view(entry.prefix, path, verdict, now));
            }
        }
    }

    fn filtered(&self, page: &mut RoutePage, entry: &Entry, peer: Option<PeerId>, now: Instant) {
        for path in self.tables[entry.slot].sorted(entry.id) {
            if let Some(why) = path.rejected
                && Some(path.peer) == peer
            {
                let view = self.view(entry.prefix, &path, Verdict::Rejected(why.into()), now);
                page.routes.push(view);
            }
        }
    }

    fn advertised(
        &self,
        page: &mut RoutePage,
        entry: &Entry,
        name: &PeerName,
        peer: Option<PeerId>,
    ) {
        let from = self.sources();
        let announced =
            peer.and_then(|peer| self.exports.announced(peer, entry.slot, entry.id, &from));
        if let Some((attributes, next_hop, label)) = announced {
            page.routes.push(RouteView {
                prefix: entry.prefix,
                label,
                peer: Some(name.clone()),
                next_hop: Some(next_hop),
                attributes: Some(attributes),
                age: None,
                verdict: None,
                stale: false,
            });
        }
    }

    /// A local route or an aggregate.
    pub(super) fn own_view(&self, prefix: impl Into<Destination>) -> RouteView {
        let prefix = prefix.into();
        let plain = match prefix {
            Destination::Ip(prefix) => Some(prefix),
            Destination::Vpn(_) | Destination::RouteTarget(_) => None,
        };
        let local = plain.is_some_and(|prefix| self.locals.contains_key(&prefix));
        let aggregate = plain
            .and_then(|prefix| self.aggregate(&prefix))
            .filter(|_| !local);
        let attributes = aggregate.map_or_else(
            || PathAttributes {
                origin: Some(Origin::Igp),
                as_path: Some(bgp_wire::AsPath::default()),
                ..PathAttributes::default()
            },
            decode,
        );
        RouteView {
            prefix,
            label: None,
            peer: None,
            next_hop: None,
            attributes: Some(attributes),
            age: None,
            verdict: Some(Verdict::Best),
            stale: false,
        }
    }

    pub(super) fn view(
        &self,
        prefix: impl Into<Destination>,
        path: &Path,
        verdict: Verdict,
        now: Instant,
    ) -> RouteView {
        let since = self.began + Duration::from_secs(path.since_s.into());
        RouteView {
            prefix: prefix.into(),
            label: self.next_hops.label(path.next_hop),
            peer: self
                .neighbours
                .get(path.peer)
                .map(|neighbour| neighbour.name.clone()),
            next_hop: self.next_hops.address(path.next_hop).map(|hop| hop.address),
            attributes: self.attributes.attributes(path.attributes),
            age: Some(now.saturating_duration_since(since)),
            verdict: Some(verdict),
            stale: path.stale,
        }
    }
}
