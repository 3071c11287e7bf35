// SPDX-License-Identifier: Apache-2.0
//! From a neighbour's routes to the table: policy, loops, limits.

use std::time::Instant;

use bgp_wire::Nlri;
use router_types::Family;

use super::attributes::AttrId;
use super::keys::DestId;
use super::next_hop::HopId;
use super::table::{Path, Rejection};
use super::{PeerId, Rib, RibOutput, slot_of};
use crate::config::{BeyondLimit, ImportMode, ImportPolicy, PeerName};
use crate::routes::{NextHopAddress, RouteBatch, RouteItem};

impl Rib {
    pub(super) fn take_routes(&mut self, peer: &PeerName, batch: &RouteBatch, now: Instant) {
        let Some(id) = self.neighbours.id(peer) else {
            return;
        };
        // What was on its way when the session ended is not wanted.
        if !self
            .neighbours
            .get(id)
            .is_some_and(|neighbour| neighbour.up)
        {
            return;
        }
        for item in batch.iter() {
            match item {
                RouteItem::Announce {
                    attributes,
                    next_hop,
                    nlri,
                } => self.announce_all(id, attributes, next_hop, nlri, now),
                RouteItem::Withdraw { nlri } => self.withdraw_all(id, nlri),
                RouteItem::EndOfRib { family } => self.purge(id, Some(family), Which::Stale),
            }
        }
    }

    fn announce_all(
        &mut self,
        peer: PeerId,
        bytes: &[u8],
        next_hop: NextHopAddress,
        nlri: Nlri<'_>,
        now: Instant,
    ) {
        let family = nlri.family();
        let (Some(slot), Some(neighbour)) = (slot_of(family), self.neighbours.get(peer)) else {
            return;
        };
        let Some(config) = neighbour.families.get(&family) else {
            return;
        };
        let policy = config.import.clone();
        let limit = config
            .limit
            .filter(|limit| matches!(limit.beyond, BeyondLimit::Restart { .. }))
            .map(|limit| limit.limit());
        let session = neighbour.session.as_ref();
        let link = session.and_then(|session| session.addresses.link);
        // RFC 4271 §5.1.3: a route whose next hop is the receiver's own address is not for it.
        let own_hop = session.is_some_and(|s| s.addresses.local.ip() == next_hop.address);
        let keep_rejected = self.config.keep_rejected;
        // Attributes of what is not wanted are not even looked at, unless they are kept.
        let unwanted = if own_hop {
            Some(Rejection::OwnNextHop)
        } else if policy.mode == ImportMode::None {
            Some(Rejection::Policy)
        } else {
            None
        };
        let mut ids = std::mem::take(&mut self.scratch);
        self.tables[slot].keys.resolve(nlri, &mut ids);
        self.tables[slot].grow();
        // References for all of them at once; what is left over is given back below.
        let refs = ids.len() as u32;
        let mut held: Option<(AttrId, HopId, Option<Rejection>)> = None;
        let (mut used_attributes, mut used_hops) = (0, 0);
        let since_s = self.seconds(now);
        for &(id, path_id) in &ids {
            let mut rejected = unwanted.or_else(|| self.refuses(slot, id, &policy));
            let mut path = Path {
                attributes: AttrId::NONE,
                next_hop: HopId::NONE,
                since_s,
                path_id,
                peer,
                stale: false,
                rejected,
            };
            if rejected.is_none() || keep_rejected {
                let (attributes, hop, flaw) = *held.get_or_insert_with(|| {
                    let attributes = self.attributes.intern(bytes);
                    self.attributes.hold(attributes, refs + 1);
                    let hop = self.next_hops.hold(next_hop, link, refs + 1);
                    (attributes, hop, self.flaw(peer, attributes))
                });
                rejected = rejected.or(flaw);
                if rejected.is_none() && !self.has_room(peer, slot, id, path_id, limit) {
                    rejected = Some(Rejection::Limit);
                }
                path.rejected = rejected;
                if rejected.is_none() || keep_rejected {
                    path.attributes = attributes;
                    path.next_hop = hop;
                    used_attributes += 1;
                    used_hops += 1;
                }
            }
            self.place(slot, id, path);
        }
        if let Some((attributes, hop, _)) = held {
            let left = refs + 1;
            self.attributes
                .release_many(attributes, left - used_attributes);
            self.next_hops.release_many(hop, left - used_hops);
        }
        self.scratch = ids;
    }

    fn withdraw_all(&mut self, peer: PeerId, nlri: Nlri<'_>) {
        let Some(slot) = slot_of(nlri.family()) else {
            return;
        };
        let mut ids = std::mem::take(&mut self.scratch);
        self.tables[slot].keys.find_all(nlri, &mut ids);
        for &(id, path_id) in &ids {
            self.withdraw(slot, id, peer, path_id);
        }
        self.scratch = ids;
    }

    /// Whether import policy takes a prefix.
    #[inline]
    fn refuses(&self, slot: usize, id: DestId, policy: &ImportPolicy) -> Option<Rejection> {
        let takes = match &policy.mode {
            ImportMode::All => true,
            ImportMode::None => false,
            ImportMode::DefaultRoute | ImportMode::Prefixes(_) => {
                policy.accepts(&self.tables[slot].keys.prefix(id))
            }
        };
        (!takes).then_some(Rejection::Policy)
    }

    /// What in the attributes keeps a route from being considered.
    fn flaw(&self, peer: PeerId, attributes: AttrId) -> Option<Rejection> {
        let hot = self.attributes.hot(attributes)?;
        let allowed = self.neighbours.get(peer).map_or(0, |n| n.allow_own_as);
        if hot.own_as > allowed {
            Some(Rejection::OwnAs)
        } else if hot.originator == Some(self.config.router_id()) {
            Some(Rejection::OwnOriginator)
        } else {
            None
        }
    }

    /// Whether one more route stays within the limit; says so once when it does not.
    fn has_room(
        &mut self,
        peer: PeerId,
        slot: usize,
        id: DestId,
        path_id: u32,
        limit: Option<u32>,
    ) -> bool {
        let Some(limit) = limit else {
            return true;
        };
        let family = self.tables[slot].family;
        let Some(neighbour) = self.neighbours.get_mut(peer) else {
            return false;
        };
        let accepted = neighbour.accepted.get(&family).copied().unwrap_or(0);
        if accepted < limit.into() {
            return true;
        }
        let known = self.tables[slot]
            .find(id, peer, path_id)
            .is_some_and(|path| path.rejected.is_none());
        if !known && neighbour.over_limit.insert(family) {
            let peer = neighbour.name.clone();
            self.outputs.push_back(RibOutput::LimitExceeded {
                peer,
                family,
                limit,
            });
        }
        known
    }

    /// Puts a route in the table. It brings references to its attributes and next hop along.
    fn place(&mut self, slot: usize, id: DestId, path: Path) {
        let known = self.tables[slot].find(id, path.peer, path.path_id);
        // Said again, it is as old as it was.
        if known.is_some_and(|old| {
            Path {
                since_s: old.since_s,
                ..path
            } == *old
        }) {
            self.attributes.release(path.attributes);
            self.next_hops.release(path.next_hop);
            return;
        }
        let before = self.before(slot, id);
        let replaced = self.tables[slot].put(id, path);
        self.count(slot, &path, 1);
        if let Some(old) = replaced {
            self.let_go(slot, &old);
        }
        self.after(slot, id, before);
    }

    /// Takes a neighbour's route out of the table, if it is there.
    pub(super) fn withdraw(&mut self, slot: usize, id: DestId, peer: PeerId, path_id: u32) {
        if self.tables[slot].find(id, peer, path_id).is_none() {
            return;
        }
        let before = self.before(slot, id);
        if let Some(old) = self.tables[slot].take(id, peer, path_id) {
            self.let_go(slot, &old);
        }
        self.after(slot, id, before);
    }

    fn let_go(&mut self, slot: usize, old: &Path) {
        self.count(slot, old, -1);
        self.attributes.release(old.attributes);
        self.next_hops.release(old.next_hop);
    }

    fn count(&mut self, slot: usize, path: &Path, by: i64) {
        let family = self.tables[slot].family;
        let Some(neighbour) = self.neighbours.get_mut(path.peer) else {
            return;
        };
        let counts = if path.rejected.is_some() {
            &mut neighbour.rejected
        } else {
            &mut neighbour.accepted
        };
        let count = counts.entry(family).or_default();
        *count = count.saturating_add_signed(by);
        if path.stale {
            let stale = neighbour.stale.entry(family).or_default();
            *stale = stale.saturating_add_signed(by);
        }
    }

    /// Drops routes of a neighbour. Walks the whole table: what it costs is paid once a session.
    pub(super) fn purge(&mut self, peer: PeerId, family: Option<Family>, which: Which) {
        let Some(neighbour) = self.neighbours.get(peer) else {
            return;
        };
        let some = |counts: &std::collections::BTreeMap<Family, u64>| {
            counts.values().any(|&count| count > 0)
        };
        let any = match which {
            Which::All => some(&neighbour.accepted) || some(&neighbour.rejected),
            Which::Stale => some(&neighbour.stale),
            Which::Rejected => some(&neighbour.rejected),
        };
        if !any {
            return;
        }
        let wanted = |path: &Path| {
            path.peer == peer
                && match which {
                    Which::All => true,
                    Which::Stale => path.stale,
                    Which::Rejected => path.rejected.is_some(),
                }
        };
        for slot in 0..self.tables.len() {
            let table = &self.tables[slot];
            if family.is_some_and(|family| family != table.family) {
                continue;
            }
            for id in table.having(wanted) {
                for path in self.tables[slot]
                    .sorted(id)
                    .iter()
                    .filter(|path| wanted(path))
                {
                    self.withdraw(slot, id, peer, path.path_id);
                }
            }
        }
    }

    /// Applies a changed policy to what is there. Routes rejected before that it would take now
    /// have to be sent again; the session asks for them.
    pub(super) fn reconsider(&mut self, peer: PeerId) {
        let Some(neighbour) = self.neighbours.get(peer) else {
            return;
        };
        let families = neighbour.families.clone();
        for slot in 0..self.tables.len() {
            let Some(config) = families.get(&self.tables[slot].family) else {
                continue;
            };
            let accepted = |path: &Path| path.peer == peer && path.rejected.is_none();
            for id in self.tables[slot].having(accepted) {
                let paths = self.tables[slot].sorted(id);
                for mut path in paths.into_iter().filter(|path| accepted(path)) {
                    let refused = self.refuses(slot, id, &config.import);
                    let rejected = refused.or_else(|| self.flaw(peer, path.attributes));
                    if rejected.is_some() {
                        path.rejected = rejected;
                        if self.config.keep_rejected {
                            self.attributes.hold(path.attributes, 1);
                            self.next_hops.hold_again(path.next_hop);
                        } else {
                            path.attributes = AttrId::NONE;
                            path.next_hop = HopId::NONE;
                        }
                        self.place(slot, id, path);
                    }
                }
            }
        }
    }
}

/// Which routes of a neighbour are dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Which {
    All,
    Stale,
    Rejected,
}
