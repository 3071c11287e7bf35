// SPDX-License-Identifier: Apache-2.0
//! The routes of an instance: what every neighbour sent, which of it is used, and what each
//! neighbour is sent.
//!
//! # What is kept
//!
//! Adj-RIB-In and Loc-RIB are one table for each family. A destination has a number, under which
//! it holds its best route in place and others beside; routes that are not considered lie there
//! too, with the reason. Path attributes are interned, next hops too. Adj-RIB-Out is one bit for
//! each destination and group of neighbours that are sent the same (an update group): what is
//! announced follows from the best route.
//!
//! # What is sent
//!
//! Local routes, to the neighbours each of them names, with this end as next hop. Learned routes
//! are not passed on unless the configuration allows transit: a node is an edge of the fabric,
//! not a way through it. Routes learned from internal neighbours go to internal ones only by
//! reflection, that is from clients to all and from others to clients (RFC 4456 §6).
//!
//! # Driving it
//!
//! Hand every input to [`Rib::handle`], then take [`Rib::poll_output`], [`Rib::poll_best`] and,
//! for each neighbour of [`Rib::waiting`] whose transport has room, [`Rib::poll_transmit`], each
//! until there is nothing. [`RibInput::Timeout`] is due at [`Rib::poll_timeout`]. What waits is bounded: best
//! path changes by the number of prefixes (the latest state counts), bytes for a neighbour by
//! a mebibyte, after which only prefixes are remembered for it.
//!
//! # Routes of VPNs
//!
//! They are carried for others (RFC 4364, RFC 4659): best by route distinguisher and prefix, and
//! sent on with the label they came with. A label is worth something to the router that gave it
//! alone, and this speaker has none of its own to put in its place (RFC 4364 §10 b). Therefore such
//! a route goes on with its next hop unchanged or not at all: within the AS that is so anyway, to
//! other ASes where [`NextHopMode::Unchanged`](crate::config::NextHopMode::Unchanged) is configured
//! (RFC 4364 §10 c). Neighbours may say which ones they want (RFC 4684).
//!
//! RFC 4271 §9 (decision process), §3.2; RFC 4456; RFC 4724 §4.2 (keeping
//! routes of a neighbour that restarts); RFC 2918; RFC 7313; RFC 7911; RFC 9494 §4.3; RFC 4684 §3, §6.

mod aggregation;
mod attributes;
mod best;
mod bits;
mod decide;
mod explain;
mod export;
mod import;
mod inheritance;
mod intake;
mod keys;
mod neighbour;
mod next_hop;
mod query;
mod rejection;
mod sessions;
mod table;
mod targets;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bgp_wire::RouteTargetPrefix;
use ipnet::IpNet;
use router_types::{Family, Forwarding, NextHop, RouteSource};
use serde::{Deserialize, Serialize};

use self::attributes::Interner;
pub use self::best::{Step, Verdict};
pub use self::explain::{
    Advert, AdvertExplanation, Comparison, Explanation, PathExplanation, PolicyStatement, Silence,
};
use self::export::{Edit, Exports, GroupKey, Outlet, Sources, Target};
pub use self::export::{Transmit, Withheld};
pub use self::inheritance::{Announced, Inheritance};
use self::intake::PolicyUse;
use self::keys::DestId;
use self::neighbour::Neighbours;
pub use self::neighbour::{FamilyCounts, SessionFamily, SessionInfo};
pub use self::next_hop::NextHopState;
use self::next_hop::NextHops;
pub use self::query::{PrefixFilter, RoutePage, RouteQuery, RouteTable, RouteView};
pub use self::rejection::Rejection;
use self::table::Table;
use crate::aggregate::Aggregates;
use crate::config::{InstanceConfig, LocalRoute, LocalRoutes, PeerConfig, PeerName};
use crate::peer::KeepRoutes;
use crate::policy::{Policy, PolicyName};
use crate::routes::RouteBatch;
use crate::serial;

/// What the RIB is told. Every input there is, so that a recording of them is complete.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RibInput {
    /// The configuration of the instance.
    Configure(Box<InstanceConfig>),
    /// All local routes, in place of those before. End-of-RIB is sent to nobody before this came
    /// once: until then what neighbours were sent is not all (RFC 4724 §4.1).
    LocalRoutes(LocalRoutes),
    /// After a restart: End-of-RIB is sent to nobody until [`RibInput::SendEnds`], as neighbours that
    /// kept routes drop then what was not announced again (RFC 4724 §4.1).
    HoldEnds,
    /// What neighbours had announced is known again, and the kernel has it.
    SendEnds,
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
        /// How long its routes are kept (RFC 4724, RFC 9494); `None` drops them.
        keep_routes: Option<KeepRoutes>,
    },
    /// Routes from a neighbour.
    Routes {
        /// The neighbour.
        peer: PeerName,
        /// The changes, in order.
        changes: RouteBatch,
    },
    /// A neighbour wants a family again (RFC 2918).
    Resend {
        /// The neighbour.
        peer: PeerName,
        /// The family.
        #[serde(with = "serial::family")]
        family: Family,
    },
    /// A neighbour begins to send a family again: what it does not send until
    /// [`RibInput::RefreshEnds`] is gone then (RFC 7313 §4).
    RefreshBegins {
        /// The neighbour.
        peer: PeerName,
        /// The family.
        #[serde(with = "serial::family")]
        family: Family,
    },
    /// It has sent the family again.
    RefreshEnds {
        /// The neighbour.
        peer: PeerName,
        /// The family.
        #[serde(with = "serial::family")]
        family: Family,
    },
    /// The numbers neighbours had in the tables of the process before this one: told first of all,
    /// as path identifiers are made of them.
    Numbers(BTreeMap<PeerName, u16>),
    /// A neighbour came up with a session of the process before: told right behind
    /// [`RibInput::PeerUp`].
    Inherit {
        /// The neighbour.
        peer: PeerName,
        /// What is left about it.
        left: Box<Inheritance>,
    },
    /// The time of [`Rib::poll_timeout`] has come.
    Timeout,
}

/// What the caller has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RibOutput {
    /// A neighbour has sent nearly as many routes as it may, or more where that only warns.
    LimitNear {
        /// The neighbour.
        peer: PeerName,
        /// The family.
        family: Family,
        /// How many are taken.
        routes: u64,
        /// The limit.
        limit: u32,
    },
    /// A neighbour is sent as many routes as it may be, and others wait.
    ExportLimit {
        /// The neighbour.
        peer: PeerName,
        /// The family.
        family: Family,
        /// The limit.
        limit: u32,
    },
    /// A neighbour sent more routes than it may: end its session.
    LimitExceeded {
        /// The neighbour.
        peer: PeerName,
        /// The family.
        family: Family,
        /// The limit.
        limit: u32,
        /// After how many seconds it may come back; 0 waits for an operator. As the tables know it,
        /// who hear of a change before the session does.
        restart_s: u32,
    },
}

/// What is used for a destination from now on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BestChange {
    /// The destination.
    pub prefix: IpNet,
    /// The best route, learned or an aggregate; `None` when there is none any more, or the prefix is
    /// the node's own.
    pub best: Option<BestRoute>,
}

/// A best route with everything used beside it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BestRoute {
    /// Whether the best one came from an external or an internal neighbour, or is an aggregate
    /// (local).
    pub source: RouteSource,
    /// Where packets go: sorted, without duplicates; empty where they are dropped.
    pub next_hops: Vec<NextHop>,
    /// How packets are dropped in place of being sent anywhere: an aggregate's that no route within
    /// it takes (RFC 4632 §5.1), and those to a route with BLACKHOLE (RFC 7999).
    pub discard: Option<Forwarding>,
    /// The neighbours it was learned from, the best one first.
    pub peers: Vec<PeerName>,
    /// Whether all of them are down and expected back (RFC 4724). As it was when this was made: the
    /// route is used all the same, so a change of it alone is not reported by [`Rib::poll_best`].
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

/// The routes of an instance. See the module's documentation for how it is driven.
#[derive(Debug)]
pub struct Rib {
    config: InstanceConfig,
    began: Instant,
    neighbours: Neighbours,
    attributes: Interner,
    next_hops: NextHops,
    /// One for each family of [`FAMILIES`], in that order.
    tables: Vec<Table>,
    /// Whether learned routes are passed on.
    transit: bool,
    /// Whether export looks at more than best routes (RFC 7911).
    all_paths: bool,
    policies: BTreeMap<PolicyName, Arc<Policy>>,
    locals: BTreeMap<IpNet, LocalRoute>,
    aggregates: Aggregates,
    /// The aggregates there are, with their attributes in canonical form.
    aggregated: BTreeMap<IpNet, Arc<[u8]>>,
    exports: Exports,
    outputs: VecDeque<RibOutput>,
    /// The route targets this speaker asks for (RFC 4684).
    membership: BTreeSet<RouteTargetPrefix>,
    /// Neighbours whose wishes for VPN routes have changed.
    wishing: BTreeSet<PeerId>,
    /// Whether an input came after the last look at what it changes for neighbours.
    is_stirred: bool,
    /// Numbers of the prefixes of an UPDATE, kept for its memory.
    scratch: Vec<(DestId, u32)>,
}

/// The families there are tables for, those whose routes the kernel can have first.
const FAMILIES: [Family; 5] = PeerConfig::CARRIED;

/// How many of them the kernel can have.
const INSTALLED: usize = 2;

/// The place of route target membership among them.
const ROUTE_TARGETS: usize = 4;

/// The table of a family.
fn slot_of(family: Family) -> Option<usize> {
    FAMILIES.iter().position(|other| *other == family)
}

// A macro because exports are changed while all else is looked at: the borrow checker has to see
// the fields.
macro_rules! sources {
    ($rib:ident) => {
        Sources {
            tables: &$rib.tables,
            attributes: &$rib.attributes,
            next_hops: &$rib.next_hops,
            neighbours: &$rib.neighbours,
            aggregates: &$rib.aggregates,
            transit: $rib.transit,
            drained: $rib.config.drained,
            local_asn: $rib.config.local_asn(),
            cluster_id: cluster_id(&$rib.config),
            router_id: $rib.config.router_id(),
        }
    };
}

impl Rib {
    /// An empty RIB.
    pub fn new(config: InstanceConfig, now: Instant) -> Rib {
        let mut rib = Rib {
            attributes: Interner::new(config.local_asn()),
            config: config.clone(),
            began: now,
            neighbours: Neighbours::default(),
            next_hops: NextHops::default(),
            tables: FAMILIES.into_iter().map(Table::new).collect(),
            transit: false,
            all_paths: false,
            policies: BTreeMap::new(),
            locals: BTreeMap::new(),
            aggregates: Aggregates::new(config.local_asn(), config.router_id()),
            aggregated: BTreeMap::new(),
            exports: Exports::default(),
            outputs: VecDeque::new(),
            membership: BTreeSet::new(),
            wishing: BTreeSet::new(),
            is_stirred: true,
            scratch: Vec::new(),
        };
        rib.configure(config);
        rib.configure_aggregates();
        rib
    }

    /// Takes an input.
    pub fn handle(&mut self, input: RibInput, now: Instant) {
        self.is_stirred = true;
        match input {
            RibInput::Configure(config) => self.configure(*config),
            RibInput::LocalRoutes(routes) => self.set_local_routes(&routes),
            RibInput::HoldEnds => self.exports.hold_ends(true),
            RibInput::SendEnds => self.exports.hold_ends(false),
            RibInput::NextHops(states) => self.set_next_hops(&states),
            RibInput::PeerUp { peer, session } => self.peer_up(&peer, *session, now),
            RibInput::PeerDown { peer, keep_routes } => self.peer_down(&peer, keep_routes, now),
            RibInput::Routes { peer, changes } => self.take_routes(&peer, &changes, now),
            RibInput::Resend { peer, family } => {
                if let Some(id) = self.neighbours.id(&peer) {
                    self.flush_exports();
                    self.with_exports(|exports, from| exports.resend(id, family, from));
                }
            }
            RibInput::RefreshBegins { peer, family } => self.refresh_begins(&peer, family, now),
            RibInput::RefreshEnds { peer, family } => self.refresh_ends(&peer, family),
            RibInput::Numbers(numbers) => self.renumber(numbers),
            RibInput::Inherit { peer, left } => self.inherit(&peer, *left, now),
            RibInput::Timeout => self.drop_overdue(now),
        }
        self.settle_aggregates();
    }

    /// The next output.
    pub fn poll_output(&mut self) -> Option<RibOutput> {
        self.outputs.pop_front()
    }

    /// The next destination whose use has changed, in its state of now.
    pub fn poll_best(&mut self) -> Option<BestChange> {
        for slot in 0..INSTALLED {
            let Some(id) = self.tables[slot].next_report() else {
                continue;
            };
            let change = BestChange {
                prefix: self.tables[slot].keys.prefix(id),
                best: self.best_route(slot, id),
            };
            if self.tables[slot].reports_waiting() == 0 {
                self.tables[slot].may_bury();
                self.bury(slot);
            }
            return Some(change);
        }
        None
    }

    /// The next bytes for a neighbour: whole messages, a few dozen kilobytes at most.
    pub fn poll_transmit(&mut self, peer: &PeerName) -> Option<Transmit> {
        let id = self.neighbours.id(peer)?;
        self.settle_exports();
        self.with_exports(|exports, from| exports.poll_transmit(id, from))
    }

    /// The neighbours for whom [`Rib::poll_transmit`] has something.
    pub fn waiting(&mut self) -> Vec<PeerName> {
        self.settle_exports();
        let ids = self.exports.waiting();
        let neighbours = ids.filter_map(|id| self.neighbours.get(id));
        neighbours.map(|neighbour| neighbour.name.clone()).collect()
    }

    /// Whether nothing is left to be done of what came before: nobody is to be sent anything, and
    /// no best path is to be told. What a few prefixes lead to is little then.
    pub fn is_quiet(&self) -> bool {
        self.is_everybody_told() && self.pressure() == 0
    }

    /// When [`RibInput::Timeout`] is due, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let neighbours = self.neighbours.iter();
        let stale = neighbours.filter_map(|neighbour| neighbour.stale_until);
        let stale = stale.min().map(|at| (at, "stale routes"));
        let neighbours = self.neighbours.iter();
        let lingering = neighbours.flat_map(|neighbour| neighbour.lingers_until.values().copied());
        let lingering = lingering.min().map(|at| (at, "long-lived stale routes"));
        let neighbours = self.neighbours.iter();
        let wishes = neighbours.filter_map(|neighbour| neighbour.targets_until);
        let wishes = wishes.min().map(|at| (at, "route target membership"));
        let neighbours = self.neighbours.iter();
        let left = neighbours.filter_map(|neighbour| neighbour.unsettled.as_ref());
        let left = left.map(|left| (left.until, "what a handover left")).min();
        let all = stale.into_iter().chain(lingering).chain(wishes).chain(left);
        all.min()
    }

    /// How many destinations wait to be told by [`Rib::poll_best`].
    pub fn pressure(&self) -> usize {
        self.tables.iter().map(Table::reports_waiting).sum()
    }

    /// Has every destination reported again by [`Rib::poll_best`], to somebody who begins to
    /// listen.
    pub fn report_all(&mut self) {
        for table in &mut self.tables[..INSTALLED] {
            for id in table.ids().collect::<Vec<DestId>>() {
                table.report(id);
            }
        }
    }

    /// The best learned route for a destination.
    pub fn best(&self, prefix: &IpNet) -> Option<BestRoute> {
        let (slot, id) = self.find(prefix)?;
        self.best_route(slot, id)
    }

    /// The next hops routes lead to, for whoever tracks them.
    pub fn next_hops(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.next_hops.addresses()
    }

    /// A number that differs when [`Rib::next_hops`] does. Whoever tracks them has to look then,
    /// also where no best route changed: one that leads to a next hop last known to be away is not
    /// used before it is tracked again.
    pub fn next_hops_version(&self) -> u64 {
        self.next_hops.version()
    }

    /// Whether every neighbour that is up has been handed all there is for it.
    pub fn is_everybody_told(&self) -> bool {
        let changed = self.tables.iter().any(Table::has_dirty) || self.exports.has_own_work();
        !changed && self.exports.waiting().next().is_none()
    }

    /// Counts of a neighbour by family. To count several, ask for [`Rib::all_counts`].
    pub fn counts(&self, peer: &PeerName) -> BTreeMap<Family, FamilyCounts> {
        self.all_counts().remove(peer).unwrap_or_default()
    }

    /// Counts of every neighbour by family. Where learned routes are passed on it walks what is
    /// announced to groups of neighbours one of which sends routes, each once.
    pub fn all_counts(&self) -> BTreeMap<PeerName, BTreeMap<Family, FamilyCounts>> {
        let ids = self.neighbours.ids().iter();
        let neighbour = |(name, id): (&PeerName, &PeerId)| {
            let counts = self.neighbours.get(*id)?.counts();
            Some((name.clone(), (*id, counts)))
        };
        let mut all: BTreeMap<_, _> = ids.filter_map(neighbour).collect();
        let from = self.sources();
        for (slot, table) in self.tables.iter().enumerate() {
            let says = |id: PeerId| {
                let neighbour = self.neighbours.get(id).filter(|_| self.transit);
                neighbour.is_some_and(|n| n.accepted.get(&table.family).is_some_and(|&n| n > 0))
            };
            let sent = self.exports.counts(slot, &from, says);
            for (id, counts) in all.values_mut() {
                if let (Some(&(advertised, held)), Some(counts)) =
                    (sent.get(id), counts.get_mut(&table.family))
                {
                    counts.advertised = advertised;
                    counts.held = held;
                }
            }
        }
        let named = all.into_iter();
        named.map(|(name, (_, counts))| (name, counts)).collect()
    }

    /// What waits for a neighbour: bytes of messages, and destinations that are not encoded yet.
    pub fn backlog(&self, peer: &PeerName) -> (usize, usize) {
        let id = self.neighbours.id(peer);
        id.map_or((0, 0), |id| self.exports.backlog(id))
    }

    /// Sizes.
    pub fn stats(&self) -> RibStats {
        let rejected: u64 = self
            .neighbours
            .iter()
            .flat_map(|n| n.rejected.values())
            .sum();
        let tables: usize = self.tables.iter().map(Table::memory).sum();
        RibStats {
            destinations: self.tables.iter().map(|table| table.used).sum(),
            routes: self.tables.iter().map(|table| table.accepted).sum(),
            rejected: rejected as usize,
            attribute_sets: self.attributes.len(),
            next_hops: self.next_hops.len(),
            local_routes: self.locals.len(),
            update_groups: self.exports.groups(),
            changes_waiting: self.pressure(),
            memory_bytes: tables
                + self.attributes.memory()
                + self.next_hops.memory()
                + self.exports.memory(),
        }
    }

    fn find(&self, prefix: &IpNet) -> Option<(usize, DestId)> {
        let slot = slot_of(crate::config::family_of(prefix))?;
        Some((slot, self.tables[slot].keys.find(prefix)?))
    }

    fn set_next_hops(&mut self, states: &[NextHopState]) {
        let differing = self.next_hops.differing(states);
        let mut affected = Vec::new();
        if !differing.is_empty() {
            for slot in 0..self.tables.len() {
                let hops = &self.next_hops;
                let leads = |path: &table::Path| differing.contains(&hops.plain(path.next_hop));
                for id in self.tables[slot].having(leads) {
                    affected.push((slot, id, self.before(slot, id)));
                }
            }
        }
        self.next_hops.update(states);
        for (slot, id, before) in affected {
            self.after(slot, id, before);
        }
    }

    /// Works what has changed into what is announced, once after each input.
    fn settle_exports(&mut self) {
        if std::mem::take(&mut self.is_stirred) {
            self.flush_exports();
        }
    }

    /// Works what has changed into what is announced.
    fn flush_exports(&mut self) {
        self.grant_wishes();
        let own_work = self.exports.has_own_work();
        for slot in 0..self.tables.len() {
            if !own_work && !self.tables[slot].has_dirty() {
                self.bury(slot);
                continue;
            }
            let dirty = self.tables[slot].take_dirty();
            self.with_exports(|exports, from| exports.flush(slot, &dirty, from));
            for was in dirty.iter().filter_map(|dirty| dirty.was) {
                self.attributes.release(was.attributes);
                self.next_hops.release(was.next_hop);
            }
            self.tables[slot].give_back(dirty);
            self.bury(slot);
        }
        for (id, slot, limit) in self.exports.take_limit_news() {
            if let Some(neighbour) = self.neighbours.get(id) {
                self.outputs.push_back(RibOutput::ExportLimit {
                    peer: neighbour.name.clone(),
                    family: self.tables[slot].family,
                    limit: u32::try_from(limit).unwrap_or(u32::MAX),
                });
            }
        }
    }

    fn bury(&mut self, slot: usize) {
        if !self.tables[slot].is_burial_due() {
            return;
        }
        let references = self.exports.references(slot);
        self.tables[slot].bury(|id| references.iter().any(|bits| bits.contains(id)));
    }

    fn join(&mut self, id: PeerId) {
        if let Some((key, families)) = self.group_key(id) {
            let wanted = self.wanted(id);
            self.with_exports(|exports, from| exports.join(id, key, wanted, families, from));
            self.all_paths = self.exports.sends_several();
        }
    }

    /// Sends a neighbour that is up everything again, where it is sent it differently from now on.
    fn rejoin(&mut self, id: PeerId) {
        let Some((key, _)) = self.group_key(id) else {
            return;
        };
        if self.exports.key(id) != Some(&key) {
            self.flush_exports();
            let wanted = self.wanted(id);
            self.with_exports(|exports, from| exports.rejoin(id, key, wanted, from));
            self.all_paths = self.exports.sends_several();
        }
    }

    /// What decides with whom a neighbour is sent the same, and the families of its session.
    fn group_key(&self, id: PeerId) -> Option<(GroupKey, Vec<Family>)> {
        let neighbour = self.neighbours.get(id)?;
        let session = neighbour.session.as_ref()?;
        let required = self.config.ebgp_requires_policy && !session.internal;
        let outlets = session.families.iter().filter_map(|family| {
            let config = neighbour.config.families().get(&family.family);
            let fixed = config.and_then(|config| config.next_hop);
            let name = config.and_then(|config| config.export_policy.as_ref());
            Some(Outlet {
                family: SessionFamily {
                    graceful: false,
                    forwarding_preserved: false,
                    add_path_receive: false,
                    ..*family
                },
                own_hop: neighbour::own_next_hop(family, session, fixed)?,
                fixed_hop: fixed.is_some(),
                next_hop: config
                    .map(|config| config.next_hop_mode)
                    .unwrap_or_default(),
                network: session.addresses.network.filter(|_| !session.internal),
                policy: PolicyUse::of(name, &self.policies, required),
                paths: config
                    .and_then(|config| config.add_path.send)
                    .filter(|_| family.add_path_send),
                limit: config.and_then(|config| config.limit_out),
            })
        });
        let outlets: Vec<Outlet> = outlets.collect();
        let target = if session.internal {
            Target::Internal {
                client: neighbour.config.route_reflector_client,
            }
        } else {
            Target::External
        };
        let looks_at_asn = |outlet: &Outlet| match &outlet.policy {
            PolicyUse::Policy(policy) => policy.depends_on_peer_asn(),
            PolicyUse::None | PolicyUse::Deny | PolicyUse::Missing => false,
        };
        let key = GroupKey {
            target,
            four_octet_as: session.four_octet_as,
            max_len: session.max_len,
            peer_asn: outlets.iter().any(looks_at_asn).then_some(session.peer_asn),
            alone: outlets.iter().any(|o| o.limit.is_some()).then_some(id),
            outlets,
            edit: Edit::new(
                &neighbour.config,
                self.config.local_asn(),
                session,
                self.config.graceful_shutdown,
            ),
        };
        let all = session.families.iter().map(|family| family.family);
        Some((key, all.collect()))
    }

    fn with_exports<T>(&mut self, work: impl FnOnce(&mut Exports, &Sources<'_>) -> T) -> T {
        work(&mut self.exports, &sources!(self))
    }

    fn sources(&self) -> Sources<'_> {
        sources!(self)
    }

    /// Seconds since the RIB began.
    fn seconds(&self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.began).as_secs();
        since.min(u32::MAX.into()) as u32
    }
}

/// The number a speaker reflects routes by (RFC 4456 §7).
fn cluster_id(config: &InstanceConfig) -> std::net::Ipv4Addr {
    config.cluster_id.unwrap_or(config.router_id())
}

fn table_of<'t>(tables: &'t mut [Table], prefix: &IpNet) -> Option<&'t mut Table> {
    tables.get_mut(slot_of(crate::config::family_of(prefix))?)
}

#[cfg(test)]
mod tests;
