// SPDX-License-Identifier: Apache-2.0
//! The routes of an instance: what every neighbour sent, which of it is used, and what each
//! neighbour is sent.
//!
//! # What is kept
//!
//! Adj-RIB-In and Loc-RIB are one table: a destination holds a 16-byte record for each accepted
//! route. Path attributes are interned, next hops too. Routes that import policy rejects are
//! counted and remembered by prefix, so that counts stay right when they are withdrawn; their
//! attributes are kept only if configured. Adj-RIB-Out is kept once for all neighbours that are
//! sent the same (an update group).
//!
//! # What is sent
//!
//! Local routes, to the neighbours each of them names, with this end as next hop. Learned routes
//! are not passed on unless the configuration allows transit: a node is an edge of the fabric,
//! not a way through it. Routes learned from internal neighbours never go to internal ones: there
//! is no reflection.
//!
//! # Driving it
//!
//! Hand every input to [`Rib::handle`], then take [`Rib::poll_output`], [`Rib::poll_best`] and,
//! for each neighbour whose transport has room, [`Rib::poll_transmit`], each until there is
//! nothing. [`RibInput::Timeout`] is due at [`Rib::poll_timeout`]. What waits is bounded: best
//! path changes by the number of prefixes (the latest state counts), bytes for a neighbour by
//! a mebibyte, after which only prefixes are remembered for it.
//!
//! RFC 4271 §9 (decision process, without route aggregation), §3.2; RFC 4456 §9 (tie-breaks only);
//! RFC 4724 §4.2 (keeping routes of a neighbour that restarts); RFC 2918. Add-path and route
//! reflection are not implemented.

mod attributes;
mod best;
mod export;
mod import;
mod neighbour;
mod next_hop;
mod prefix_map;
mod query;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use router_types::{Family, NextHop, RouteSource};
use serde::{Deserialize, Serialize};

use self::attributes::{AttrId, Interner};
pub use self::best::Verdict;
use self::export::Exports;
pub use self::export::Transmit;
use self::neighbour::Neighbour;
pub use self::neighbour::{FamilyCounts, SessionFamily, SessionInfo};
pub use self::next_hop::NextHopState;
use self::next_hop::{HopId, NextHops};
use self::prefix_map::PrefixMap;
pub use self::query::{PrefixFilter, RoutePage, RouteQuery, RouteTable, RouteView};
use crate::config::{InstanceConfig, LocalRoute, LocalRoutes, PeerName};
use crate::routes::RouteChange;
use crate::serial;

/// What the RIB is told. Every input there is, so that a recording of them is complete.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RibInput {
    /// The configuration of the instance.
    Configure(Box<InstanceConfig>),
    /// All local routes, in place of those before. End-of-RIB is sent to nobody before this came
    /// once: until then what neighbours were sent is not all (RFC 4724 §4.1).
    LocalRoutes(LocalRoutes),
    /// What is known about next hops; those not named stay as they are.
    NextHops(Vec<NextHopState>),
    /// A session came up.
    PeerUp {
        /// The neighbour.
        peer: PeerName,
        /// What matters about the session.
        session: Box<SessionInfo>,
    },
    /// A session went down.
    PeerDown {
        /// The neighbour.
        peer: PeerName,
        /// How long its routes are kept (RFC 4724); `None` drops them.
        keep_routes: Option<Duration>,
    },
    /// Routes from a neighbour.
    Routes {
        /// The neighbour.
        peer: PeerName,
        /// The changes, in order.
        changes: Vec<RouteChange>,
    },
    /// A neighbour wants a family again (RFC 2918).
    Resend {
        /// The neighbour.
        peer: PeerName,
        /// The family.
        #[serde(with = "serial::family")]
        family: Family,
    },
    /// The time of [`Rib::poll_timeout`] has come.
    Timeout,
}

/// What the caller has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RibOutput {
    /// A neighbour sent more routes than it may: end its session.
    LimitExceeded {
        /// The neighbour.
        peer: PeerName,
        /// The family.
        family: Family,
        /// The limit.
        limit: u32,
    },
}

/// What is used for a destination from now on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BestChange {
    /// The destination.
    pub prefix: IpNet,
    /// The best learned route; `None` when there is none any more, or the prefix is the node's own.
    pub best: Option<BestRoute>,
}

/// A best route with everything used beside it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BestRoute {
    /// Whether the best one came from an external or an internal neighbour.
    pub source: RouteSource,
    /// Where packets go: sorted, without duplicates, never empty.
    pub next_hops: Vec<NextHop>,
    /// The neighbours it was learned from, the best one first.
    pub peers: Vec<PeerName>,
    /// Whether all of them are down and expected back (RFC 4724).
    pub stale: bool,
}

/// Sizes, for status and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RibStats {
    /// Destinations with at least one accepted route.
    pub destinations: usize,
    /// Accepted routes.
    pub routes: usize,
    /// Rejected routes.
    pub rejected: usize,
    /// Distinct attribute sets.
    pub attribute_sets: usize,
    /// Distinct next hops.
    pub next_hops: usize,
    /// Local routes.
    pub local_routes: usize,
    /// Update groups.
    pub update_groups: usize,
    /// Best path changes not yet taken.
    pub changes_waiting: usize,
    /// Bytes the tables take, an estimate.
    pub memory_bytes: usize,
}

/// A neighbour's number in the tables.
pub(crate) type PeerId = u16;

/// A route as it lies in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Path {
    attributes: AttrId,
    next_hop: HopId,
    /// Seconds since the RIB began.
    since_s: u32,
    peer: PeerId,
    stale: bool,
}

/// The routes for a destination. Nearly all destinations have one or two.
#[derive(Clone, Debug)]
enum Paths {
    One(Path),
    #[expect(
        clippy::box_collection,
        reason = "a bare Vec would make every destination larger"
    )]
    Many(Box<Vec<Path>>),
}

impl Paths {
    fn as_slice(&self) -> &[Path] {
        match self {
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(paths) => paths,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Path] {
        match self {
            Paths::One(path) => std::slice::from_mut(path),
            Paths::Many(paths) => paths,
        }
    }
}

/// The routes of an instance. See the module's documentation for how it is driven.
#[derive(Debug)]
pub struct Rib {
    config: InstanceConfig,
    began: Instant,
    neighbours: BTreeMap<PeerId, Neighbour>,
    ids: BTreeMap<PeerName, PeerId>,
    attributes: Interner,
    next_hops: NextHops,
    table: PrefixMap<Paths>,
    routes: usize,
    locals: BTreeMap<IpNet, LocalRoute>,
    /// Destinations whose use has changed and was not reported yet.
    changed: BTreeSet<IpNet>,
    exports: Exports,
    outputs: VecDeque<RibOutput>,
}

impl Rib {
    /// An empty RIB.
    pub fn new(config: InstanceConfig, now: Instant) -> Rib {
        let mut rib = Rib {
            attributes: Interner::new(config.local_asn()),
            config: config.clone(),
            began: now,
            neighbours: BTreeMap::new(),
            ids: BTreeMap::new(),
            next_hops: NextHops::default(),
            table: PrefixMap::default(),
            routes: 0,
            locals: BTreeMap::new(),
            changed: BTreeSet::new(),
            exports: Exports::default(),
            outputs: VecDeque::new(),
        };
        rib.configure(config);
        rib
    }

    /// Takes an input.
    pub fn handle(&mut self, input: RibInput, now: Instant) {
        match input {
            RibInput::Configure(config) => self.configure(*config),
            RibInput::LocalRoutes(routes) => self.set_local_routes(&routes),
            RibInput::NextHops(states) => self.set_next_hops(&states),
            RibInput::PeerUp { peer, session } => self.peer_up(&peer, *session, now),
            RibInput::PeerDown { peer, keep_routes } => self.peer_down(&peer, keep_routes, now),
            RibInput::Routes { peer, changes } => self.take_routes(&peer, changes, now),
            RibInput::Resend { peer, family } => {
                if let Some(&id) = self.ids.get(&peer) {
                    self.exports.resend(id, family);
                }
            }
            RibInput::Timeout => self.drop_overdue(now),
        }
    }

    /// The next output.
    pub fn poll_output(&mut self) -> Option<RibOutput> {
        self.outputs.pop_front()
    }

    /// The next destination whose use has changed, in its state of now.
    pub fn poll_best(&mut self) -> Option<BestChange> {
        let prefix = self.changed.pop_first()?;
        Some(BestChange {
            prefix,
            best: self.best(&prefix),
        })
    }

    /// The next bytes for a neighbour: whole messages, a few dozen kilobytes at most.
    pub fn poll_transmit(&mut self, peer: &PeerName) -> Option<Transmit> {
        let id = *self.ids.get(peer)?;
        self.flush_exports();
        self.exports.poll_transmit(id)
    }

    /// When [`RibInput::Timeout`] is due, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let stale = self
            .neighbours
            .values()
            .filter_map(|neighbour| neighbour.stale_until);
        stale.min().map(|at| (at, "stale routes"))
    }

    /// How much waits to be taken: best path changes and neighbours with bytes waiting. A caller
    /// takes outputs before it hands in more.
    pub fn pressure(&self) -> usize {
        self.changed.len()
    }

    /// Has every destination reported again by [`Rib::poll_best`], to somebody who begins to
    /// listen.
    pub fn report_all(&mut self) {
        self.changed
            .extend(self.table.iter().map(|(prefix, _)| prefix));
    }

    /// The best learned route for a destination.
    pub fn best(&self, prefix: &IpNet) -> Option<BestRoute> {
        if self.locals.contains_key(prefix) {
            return None;
        }
        let paths = self.table.get(prefix)?.as_slice();
        let used = self.used(paths);
        let &first = used.first()?;
        let external = |path: &Path| {
            self.neighbours
                .get(&path.peer)
                .is_some_and(Neighbour::is_external)
        };
        let mut next_hops: Vec<NextHop> = used
            .iter()
            .map(|&i| self.next_hops.forwarding(paths[i].next_hop))
            .collect();
        next_hops.sort();
        next_hops.dedup();
        Some(BestRoute {
            source: if external(&paths[first]) {
                RouteSource::Ebgp
            } else {
                RouteSource::Ibgp
            },
            next_hops,
            peers: used
                .iter()
                .filter_map(|&i| self.neighbours.get(&paths[i].peer))
                .map(|neighbour| neighbour.name.clone())
                .collect(),
            stale: used.iter().all(|&i| paths[i].stale),
        })
    }

    /// Every destination with a best learned route, a page at a time, in order.
    pub fn best_routes(
        &self,
        family: Family,
        after: Option<IpNet>,
        limit: usize,
    ) -> Vec<BestChange> {
        self.table
            .after(family, after)
            .take(limit)
            .map(|(prefix, _)| BestChange {
                prefix,
                best: self.best(&prefix),
            })
            .collect()
    }

    /// The next hops routes lead to, for whoever tracks them.
    pub fn next_hops(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.next_hops.addresses()
    }

    /// Counts of a neighbour by family.
    pub fn counts(&self, peer: &PeerName) -> BTreeMap<Family, FamilyCounts> {
        let Some(id) = self.ids.get(peer) else {
            return BTreeMap::new();
        };
        let mut counts = self
            .neighbours
            .get(id)
            .map_or_else(BTreeMap::new, Neighbour::counts);
        for (family, counts) in &mut counts {
            counts.advertised = self.exports.advertised(*id, *family);
        }
        counts
    }

    /// Sizes. Walks the attribute sets once.
    pub fn stats(&self) -> RibStats {
        let rejected: usize = self.neighbours.values().map(|n| n.rejected.len()).sum();
        // A B-tree node of eleven entries is two thirds full on average.
        let filled = |entries: usize, key: usize, value: usize| entries * (key + value) * 3 / 2;
        let many: usize = self.routes.saturating_sub(self.table.len()) * size_of::<Path>();
        RibStats {
            destinations: self.table.len(),
            routes: self.routes,
            rejected,
            attribute_sets: self.attributes.len(),
            next_hops: self.next_hops.len(),
            local_routes: self.locals.len(),
            update_groups: self.exports.groups(),
            changes_waiting: self.changed.len(),
            memory_bytes: filled(self.table.len(), 5, size_of::<Paths>())
                + many
                + filled(rejected, 5, size_of::<AttrId>())
                + filled(self.changed.len(), size_of::<IpNet>(), 0)
                + self.attributes.memory(),
        }
    }

    fn set_next_hops(&mut self, states: &[NextHopState]) {
        let flipped = self.next_hops.update(states);
        if flipped.is_empty() {
            return;
        }
        let affected = self.table.iter().filter(|(_, paths)| {
            paths
                .as_slice()
                .iter()
                .any(|path| flipped.contains(&path.next_hop))
        });
        let affected: Vec<IpNet> = affected.map(|(prefix, _)| prefix).collect();
        for prefix in affected {
            self.mark(prefix);
        }
    }

    fn set_local_routes(&mut self, routes: &LocalRoutes) {
        let next: BTreeMap<IpNet, LocalRoute> = routes
            .iter()
            .map(|route| (route.prefix(), route.clone()))
            .collect();
        let before = std::mem::replace(&mut self.locals, next);
        let appeared = self
            .locals
            .keys()
            .filter(|prefix| !before.contains_key(*prefix));
        let gone = before
            .keys()
            .filter(|prefix| !self.locals.contains_key(*prefix));
        let moved: Vec<IpNet> = appeared.chain(gone).copied().collect();
        for prefix in moved {
            if self.table.get(&prefix).is_some() {
                self.mark(prefix);
            }
        }
        self.exports.set_local_routes(&self.locals, &self.ids);
        self.exports.locals_are_known();
    }

    /// Notes that the use of a destination has changed.
    fn mark(&mut self, prefix: IpNet) {
        self.changed.insert(prefix);
        self.exports.mark(prefix);
    }

    fn flush_exports(&mut self) {
        let mut exports = std::mem::take(&mut self.exports);
        exports.flush(|prefix| self.transit_route(prefix));
        self.exports = exports;
    }
}

#[cfg(test)]
mod tests;
