// SPDX-License-Identifier: Apache-2.0
//! The tables: candidates in, the difference of chosen routes out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use router_types::{Forwarding, LinkIndex, NextHop, Route, RouteKey, RouteSource, TableId};

use crate::candidates::{Candidate, Candidates};
use crate::explain::Refusal;
use crate::forwarding::{Context, Forwardings, Unresolved, resolve};
use crate::topology::{Topology, TopologyChange, prefixes_of};

/// Which subsystem instance offers a route, numbered by the caller. Two origins with the same
/// [`RouteSource`] share the traffic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OriginId(pub u16);

/// How a RIB behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// The metric the routes are written with; only compared here, with those of foreign routes.
    pub metric: u32,
    /// Whether next hops may resolve over a default route. Off by default: when a fabric link dies,
    /// its routes should go, not move to the management network.
    pub resolve_via_default: bool,
    /// Most next hops of one route. The kernel's own limit is about 2700 (IPv4, one 64 KiB
    /// attribute); more than a few dozen cost memory and are of little use.
    pub max_next_hops: usize,
}

impl Default for Config {
    /// Metric 20, the administrative distance eBGP has on most routers; 128 next hops, arbitrary.
    fn default() -> Self {
        Config {
            metric: 20,
            resolve_via_default: false,
            max_next_hops: 128,
        }
    }
}

/// A chosen route is new, different or gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FibChange {
    /// Table and destination.
    pub key: RouteKey,
    /// What to write; `None`: delete it. Next hops are complete (each has a device), sorted and
    /// without duplicates; equal sets are one allocation.
    pub forwarding: Option<Arc<Forwarding>>,
}

/// A next hop somebody asked to be told about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TrackedNextHop {
    /// The table of the routes that use it.
    pub table: TableId,
    /// Its address.
    pub address: IpAddr,
    /// Its device; needed for a link-local address.
    pub link: Option<LinkIndex>,
}

/// What is known of a next hop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NextHopState {
    /// It can be used.
    Reachable {
        /// Distance: 0 when directly connected, else the metric of the route to it.
        metric: u32,
        /// Gateways and devices packets to it go by.
        hops: Vec<NextHop>,
    },
    /// It cannot.
    Unreachable(Unresolved),
}

/// A tracked next hop is known for the first time, or differently.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NextHopChange {
    /// Which.
    pub next_hop: TrackedNextHop,
    /// What is known of it.
    pub state: NextHopState,
}

/// The routing information base. See the crate's documentation.
pub struct Rib {
    config: Config,
    pub(crate) topology: Topology,
    pub(crate) forwardings: Forwardings,
    slots: BTreeMap<RouteKey, Slot>,
    /// Keys whose slot is marked `dirty`, or gone since.
    dirty: Vec<RouteKey>,
    topology_changed: bool,
    guards: Guards,
    tracked: BTreeMap<TrackedNextHop, Option<NextHopState>>,
    next_hop_changes: BTreeSet<TrackedNextHop>,
}

struct Slot {
    candidates: Candidates,
    /// What was put out last.
    installed: Option<Arc<Forwarding>>,
    dirty: bool,
}

/// Facts that decide whether a prefix may be learned, besides the routes to exactly that prefix.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Guards {
    own: BTreeSet<IpAddr>,
    peers: BTreeSet<(TableId, IpAddr)>,
    /// Connected networks with a peer in them.
    peer_networks: BTreeSet<RouteKey>,
}

impl Rib {
    /// An empty RIB on an empty topology, on which nothing resolves.
    pub fn new(config: Config) -> Self {
        Rib {
            config,
            topology: Topology::default(),
            forwardings: Forwardings::default(),
            slots: BTreeMap::new(),
            dirty: Vec::new(),
            topology_changed: false,
            guards: Guards::default(),
            tracked: BTreeMap::new(),
            next_hop_changes: BTreeSet::new(),
        }
    }

    /// The configuration it was made with.
    pub fn config(&self) -> Config {
        self.config
    }

    /// The ground it stands on.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// An origin offers a route, in place of the one it offered for the same key and source.
    pub fn set(&mut self, origin: OriginId, route: Route) {
        let context = Context {
            table: route.key.table,
            ipv6: matches!(route.key.prefix, IpNet::V6(_)),
        };
        let forwarding = self.forwardings.acquire(
            &self.topology,
            self.config.resolve_via_default,
            context,
            route.forwarding,
        );
        let slot = self.slots.entry(route.key).or_insert(Slot {
            candidates: Candidates::none(),
            installed: None,
            dirty: false,
        });
        let candidate = Candidate {
            source: route.source,
            origin,
            forwarding,
        };
        if let Some(replaced) = slot.candidates.insert(candidate) {
            self.forwardings.release(replaced);
        }
        mark(slot, route.key, &mut self.dirty);
    }

    /// An origin offers a route no longer.
    pub fn withdraw(&mut self, origin: OriginId, source: RouteSource, key: &RouteKey) {
        if let Some(slot) = self.slots.get_mut(key) {
            let forwardings = &mut self.forwardings;
            slot.candidates.remove(
                |c| c.origin == origin && c.source == source,
                |forwarding| forwardings.release(forwarding),
            );
            mark(slot, *key, &mut self.dirty);
        }
    }

    /// An origin offers nothing any longer. Walks all prefixes.
    pub fn withdraw_origin(&mut self, origin: OriginId) {
        let forwardings = &mut self.forwardings;
        for (key, slot) in &mut self.slots {
            let mut removed = false;
            slot.candidates.remove(
                |c| c.origin == origin,
                |forwarding| {
                    forwardings.release(forwarding);
                    removed = true;
                },
            );
            if removed {
                mark(slot, *key, &mut self.dirty);
            }
        }
    }

    /// The ground changed. Several changes in a row cost one evaluation, at the next `take_`.
    pub fn handle_topology(&mut self, change: TopologyChange) {
        for key in self.topology.apply(change) {
            if let Some(slot) = self.slots.get_mut(&key) {
                mark(slot, key, &mut self.dirty);
            }
        }
        self.topology_changed = true;
    }

    /// The ground was surveyed afresh: after the start, and when changes were lost.
    pub fn replace_topology(&mut self, topology: Topology) {
        self.topology = topology;
        self.topology_changed = true;
        self.mark_all();
    }

    /// Says where the BGP peers are, whose networks learned routes must not touch.
    pub fn set_peers(&mut self, peers: impl IntoIterator<Item = (TableId, IpAddr)>) {
        self.guards.peers = peers.into_iter().collect();
        self.topology_changed = true;
        self.mark_all();
    }

    /// Asks to be told about a next hop: once soon, then at each change.
    pub fn track(&mut self, next_hop: TrackedNextHop) {
        self.tracked.entry(next_hop).or_insert(None);
        self.update_tracked(next_hop);
    }

    /// Asks not to be told any more.
    pub fn untrack(&mut self, next_hop: &TrackedNextHop) {
        self.tracked.remove(next_hop);
        self.next_hop_changes.remove(next_hop);
    }

    /// What changed about tracked next hops since the last call.
    pub fn take_next_hop_changes(&mut self) -> Vec<NextHopChange> {
        self.absorb_topology();
        std::mem::take(&mut self.next_hop_changes)
            .into_iter()
            .filter_map(|next_hop| {
                let state = self.tracked.get(&next_hop)?.clone()?;
                Some(NextHopChange { next_hop, state })
            })
            .collect()
    }

    /// What changed about chosen routes since the last call, up to `limit` of them: call again
    /// until it returns none.
    pub fn take_changes(&mut self, limit: usize) -> Vec<FibChange> {
        self.absorb_topology();
        let mut changes = Vec::new();
        while changes.len() < limit
            && let Some(key) = self.dirty.pop()
        {
            let Some(slot) = self.slots.get_mut(&key) else {
                continue;
            };
            if !std::mem::take(&mut slot.dirty) {
                continue;
            }
            let slot = &self.slots[&key];
            let chosen = Self::decide(
                &self.config,
                &self.topology,
                &self.guards,
                &mut self.forwardings,
                &key,
                slot.candidates.as_slice(),
            );
            let empty = slot.candidates.as_slice().is_empty();
            if chosen != slot.installed {
                changes.push(FibChange {
                    key,
                    forwarding: chosen.clone(),
                });
            }
            if empty {
                self.slots.remove(&key);
            } else if let Some(slot) = self.slots.get_mut(&key) {
                slot.installed = chosen;
            }
        }
        changes
    }

    /// Whether [`Rib::take_changes`] or [`Rib::take_next_hop_changes`] may have something.
    pub fn has_changes(&self) -> bool {
        self.topology_changed || !self.dirty.is_empty() || !self.next_hop_changes.is_empty()
    }

    /// All prefixes in order, with what was put out for them.
    pub fn routes(&self) -> impl Iterator<Item = (&RouteKey, Option<&Arc<Forwarding>>)> {
        self.slots
            .iter()
            .map(|(key, slot)| (key, slot.installed.as_ref()))
    }

    /// How many prefixes have candidates, and for how many a route was put out. Walks all.
    pub fn counts(&self) -> (usize, usize) {
        (
            self.slots.len(),
            self.slots
                .values()
                .filter(|s| s.installed.is_some())
                .count(),
        )
    }

    /// The longest prefix around an address that has candidates.
    pub fn lookup(&self, table: TableId, address: IpAddr) -> Option<RouteKey> {
        prefixes_of(address)
            .map(|prefix| RouteKey { table, prefix })
            .find(|key| self.slots.contains_key(key))
    }

    pub(crate) fn candidates(&self, key: &RouteKey) -> &[Candidate] {
        self.slots
            .get(key)
            .map_or(&[], |slot| slot.candidates.as_slice())
    }

    pub(crate) fn installed(&self, key: &RouteKey) -> Option<&Arc<Forwarding>> {
        self.slots.get(key)?.installed.as_ref()
    }

    pub(crate) fn refusal(&self, key: &RouteKey, source: RouteSource) -> Option<Refusal> {
        Self::refuse(&self.config, &self.topology, &self.guards, key, source)
    }

    /// Chooses among the candidates of a prefix.
    fn decide(
        config: &Config,
        topology: &Topology,
        guards: &Guards,
        forwardings: &mut Forwardings,
        key: &RouteKey,
        candidates: &[Candidate],
    ) -> Option<Arc<Forwarding>> {
        for group in candidates.chunk_by(|a, b| a.source == b.source) {
            let source = group[0].source;
            if Self::refuse(config, topology, guards, key, source).is_some() {
                continue;
            }
            let chosen = match group {
                [one] => forwardings.get(one.forwarding).outcome.clone(),
                several => merge(forwardings, several),
            };
            let chosen = chosen.map(|forwarding| limit(forwardings, config, forwarding));
            if chosen.is_some() {
                return chosen;
            }
        }
        None
    }

    /// Why routes of a source to this prefix must not be written.
    fn refuse(
        config: &Config,
        topology: &Topology,
        guards: &Guards,
        key: &RouteKey,
        source: RouteSource,
    ) -> Option<Refusal> {
        for route in topology.routes_to(key) {
            if route.connected {
                let link = route.next_hops.first().and_then(|hop| hop.link);
                return Some(Refusal::Connected { link });
            }
            if route.metric == config.metric {
                return Some(Refusal::Taken {
                    protocol: route.protocol.clone(),
                });
            }
        }
        match source {
            RouteSource::Local | RouteSource::Static => return None,
            RouteSource::Mesh | RouteSource::Ebgp | RouteSource::Ibgp => {}
        }
        if let Some(network) = guards
            .peer_networks
            .iter()
            .find(|n| n.table == key.table && n.prefix.contains(&key.prefix))
        {
            return Some(Refusal::PeerNetwork {
                network: network.prefix,
            });
        }
        let last = match key.prefix {
            IpNet::V4(net) => IpAddr::V4(net.broadcast()),
            IpNet::V6(net) => IpAddr::V6(net.broadcast()),
        };
        let own = guards
            .own
            .range(key.prefix.network()..=last)
            .next()
            .copied()?;
        let host = key.prefix.prefix_len() == key.prefix.max_prefix_len();
        let inside = || {
            topology
                .connected_around(key.table, own)
                .is_some_and(|network| network.key.prefix.contains(&key.prefix))
        };
        (host || inside()).then_some(Refusal::OwnAddress { address: own })
    }

    /// Works out what topology changes mean, if there were any.
    fn absorb_topology(&mut self) {
        if !std::mem::take(&mut self.topology_changed) {
            return;
        }
        let changed = self
            .forwardings
            .resolve_all(&self.topology, self.config.resolve_via_default);
        let guards = Guards {
            own: self.topology.addresses().collect(),
            peer_networks: self
                .guards
                .peers
                .iter()
                .filter_map(|(table, peer)| self.topology.connected_around(*table, *peer))
                .map(|network| network.key)
                .collect(),
            peers: self.guards.peers.clone(),
        };
        if guards != self.guards {
            self.guards = guards;
            self.mark_all();
        } else if changed.contains(&true) {
            let uses_changed =
                |c: &Candidate| changed.get(c.forwarding.index()).copied().unwrap_or(false);
            for (key, slot) in &mut self.slots {
                if slot.candidates.as_slice().iter().any(uses_changed) {
                    mark(slot, *key, &mut self.dirty);
                }
            }
        }
        let tracked: Vec<TrackedNextHop> = self.tracked.keys().copied().collect();
        tracked
            .into_iter()
            .for_each(|next_hop| self.update_tracked(next_hop));
    }

    fn update_tracked(&mut self, next_hop: TrackedNextHop) {
        let context = Context {
            table: next_hop.table,
            ipv6: next_hop.address.is_ipv6(),
        };
        let hop = NextHop {
            via: Some(next_hop.address),
            link: next_hop.link,
            weight: 1,
        };
        let resolved = resolve(
            &self.topology,
            self.config.resolve_via_default,
            context,
            hop,
        );
        let state = match resolved {
            Ok(resolved) => NextHopState::Reachable {
                metric: resolved.metric,
                hops: resolved.hops,
            },
            Err(unresolved) => NextHopState::Unreachable(unresolved),
        };
        if let Some(known) = self.tracked.get_mut(&next_hop)
            && known.as_ref() != Some(&state)
        {
            *known = Some(state);
            self.next_hop_changes.insert(next_hop);
        }
    }

    fn mark_all(&mut self) {
        for (key, slot) in &mut self.slots {
            mark(slot, *key, &mut self.dirty);
        }
    }
}

impl fmt::Debug for Rib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rib")
            .field("config", &self.config)
            .field("prefixes", &self.slots.len())
            .finish_non_exhaustive()
    }
}

fn mark(slot: &mut Slot, key: RouteKey, dirty: &mut Vec<RouteKey>) {
    if !std::mem::replace(&mut slot.dirty, true) {
        dirty.push(key);
    }
}

fn merge(forwardings: &mut Forwardings, group: &[Candidate]) -> Option<Arc<Forwarding>> {
    let mut hops = Vec::new();
    let (mut unreachable, mut blackhole) = (false, false);
    for candidate in group {
        match forwardings.get(candidate.forwarding).outcome.as_deref() {
            Some(Forwarding::Via(more)) => hops.extend_from_slice(more),
            Some(Forwarding::Unreachable) => unreachable = true,
            Some(Forwarding::Blackhole) => blackhole = true,
            None => {}
        }
    }
    match (hops.is_empty(), blackhole, unreachable) {
        (false, _, _) => Some(forwardings.share(hops)),
        (true, true, _) => Some(forwardings.blackhole()),
        (true, false, true) => Some(forwardings.unreachable()),
        (true, false, false) => None,
    }
}

fn limit(
    forwardings: &mut Forwardings,
    config: &Config,
    forwarding: Arc<Forwarding>,
) -> Arc<Forwarding> {
    match &*forwarding {
        Forwarding::Via(hops) if hops.len() > config.max_next_hops => {
            forwardings.share(hops[..config.max_next_hops].to_vec())
        }
        Forwarding::Via(_) | Forwarding::Unreachable | Forwarding::Blackhole => forwarding,
    }
}
