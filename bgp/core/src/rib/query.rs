// SPDX-License-Identifier: Apache-2.0
//! Looking at routes, a page at a time.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bgp_wire::{Origin, PathAttributes};
use ipnet::IpNet;
use router_types::Family;

use super::attributes::AttrId;
use super::{Path, Rib, Verdict};
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
    fn matches(&self, prefix: &IpNet) -> bool {
        match self {
            PrefixFilter::All => true,
            PrefixFilter::Exact(wanted) => prefix == wanted,
            PrefixFilter::Longer(wanted) => wanted.contains(prefix),
            PrefixFilter::For(address) => prefix.contains(address),
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
    /// Continue after this prefix.
    pub after: Option<IpNet>,
    /// Stop once this many routes are on the page; a page ends with a whole destination.
    pub limit: usize,
}

/// Destinations looked at for one page, so that a filter which matches nothing cannot hold the RIB
/// up for long.
const SCAN_LIMIT: usize = 65_536;

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RoutePage {
    /// The routes, by prefix.
    pub routes: Vec<RouteView>,
    /// Where the next page begins; `None` when this is the last.
    pub next: Option<IpNet>,
}

/// A route to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteView {
    /// The destination.
    pub prefix: IpNet,
    /// The neighbour it is from, or is sent to; `None` for the node's own.
    pub peer: Option<PeerName>,
    /// The next hop; `None` for the node's own and where it was not kept.
    pub next_hop: Option<IpAddr>,
    /// The attributes; `None` for rejected routes whose attributes are not kept.
    pub attributes: Option<PathAttributes>,
    /// How long it is there; `None` where it is not known.
    pub age: Option<Duration>,
    /// What it is used for or why not; `None` outside of [`RouteTable::Available`] and
    /// [`RouteTable::Received`].
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

impl Rib {
    /// Answers a question about routes.
    pub fn routes(&self, query: &RouteQuery, now: Instant) -> RoutePage {
        match &query.table {
            RouteTable::Available => self.available(query, None, now),
            RouteTable::Received(peer) => self.available(query, Some(peer), now),
            RouteTable::Filtered(peer) => self.filtered(query, peer),
            RouteTable::Advertised(peer) => self.advertised_page(query, peer),
        }
    }

    fn available(&self, query: &RouteQuery, peer: Option<&PeerName>, now: Instant) -> RoutePage {
        let id = peer.map(|peer| self.ids.get(peer).copied());
        if id == Some(None) {
            return RoutePage::default();
        }
        let id = id.flatten();
        let mut page = RoutePage::default();
        let mut locals = self.locals.values().filter(|route| {
            peer.is_none()
                && route.family() == query.family
                && query.after.is_none_or(|after| route.prefix() > after)
        });
        let mut next_local = locals.next();
        let mut scanned = 0;
        for (prefix, paths) in self.table.after(query.family, query.after) {
            while let Some(local) = next_local.filter(|local| local.prefix() < prefix) {
                self.push_local(&mut page, query, local.prefix());
                next_local = locals.next();
            }
            let own = next_local.filter(|local| local.prefix() == prefix);
            if own.is_some() {
                self.push_local(&mut page, query, prefix);
                next_local = locals.next();
            }
            if query.filter.matches(&prefix) {
                let paths = paths.as_slice();
                let (verdicts, _) = self.judge(paths);
                for (path, verdict) in paths.iter().zip(verdicts) {
                    if id.is_none_or(|id| id == path.peer) {
                        let beaten = self.locals.contains_key(&prefix);
                        let verdict = if beaten { Verdict::LocalRoute } else { verdict };
                        page.routes.push(self.view(prefix, path, verdict, now));
                    }
                }
            }
            scanned += 1;
            if page.routes.len() >= query.limit || scanned >= SCAN_LIMIT {
                page.next = Some(prefix);
                return page;
            }
        }
        while let Some(local) = next_local {
            self.push_local(&mut page, query, local.prefix());
            next_local = locals.next();
        }
        page
    }

    fn filtered(&self, query: &RouteQuery, peer: &PeerName) -> RoutePage {
        let neighbour = self.ids.get(peer).and_then(|id| self.neighbours.get(id));
        let Some(neighbour) = neighbour else {
            return RoutePage::default();
        };
        let routes = neighbour.rejected.after(query.family, query.after);
        page_of(
            query,
            routes.map(|(prefix, &kept)| RouteView {
                prefix,
                peer: Some(peer.clone()),
                next_hop: None,
                attributes: if kept == AttrId::NONE {
                    None
                } else {
                    self.attributes.attributes(kept)
                },
                age: None,
                verdict: None,
                stale: false,
            }),
        )
    }

    fn advertised_page(&self, query: &RouteQuery, peer: &PeerName) -> RoutePage {
        let Some(&id) = self.ids.get(peer) else {
            return RoutePage::default();
        };
        let routes = self.exports.sent(id, query.family, query.after);
        page_of(
            query,
            routes.map(|(prefix, attributes, next_hop)| RouteView {
                prefix,
                peer: Some(peer.clone()),
                next_hop: Some(next_hop),
                attributes: Some(attributes),
                age: None,
                verdict: None,
                stale: false,
            }),
        )
    }

    fn push_local(&self, page: &mut RoutePage, query: &RouteQuery, prefix: IpNet) {
        if query.filter.matches(&prefix) {
            page.routes.push(RouteView {
                prefix,
                peer: None,
                next_hop: None,
                attributes: Some(PathAttributes {
                    origin: Some(Origin::Igp),
                    as_path: Some(bgp_wire::AsPath::default()),
                    ..PathAttributes::default()
                }),
                age: None,
                verdict: Some(Verdict::Best),
                stale: false,
            });
        }
    }

    fn view(&self, prefix: IpNet, path: &Path, verdict: Verdict, now: Instant) -> RouteView {
        let since = self.began + Duration::from_secs(path.since_s.into());
        RouteView {
            prefix,
            peer: self
                .neighbours
                .get(&path.peer)
                .map(|neighbour| neighbour.name.clone()),
            next_hop: self.next_hops.address(path.next_hop).map(|hop| hop.address),
            attributes: self.attributes.attributes(path.attributes),
            age: Some(now.saturating_duration_since(since)),
            verdict: Some(verdict),
            stale: path.stale,
        }
    }
}

fn page_of(query: &RouteQuery, routes: impl Iterator<Item = RouteView>) -> RoutePage {
    let mut page = RoutePage::default();
    for (scanned, route) in routes.enumerate() {
        let prefix = route.prefix;
        if query.filter.matches(&prefix) {
            page.routes.push(route);
        }
        if page.routes.len() >= query.limit || scanned + 1 >= SCAN_LIMIT {
            page.next = Some(prefix);
            break;
        }
    }
    page
}
