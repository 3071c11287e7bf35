// SPDX-License-Identifier: Apache-2.0
//! From a neighbour's routes to the table: policy, loops, limits.

use std::time::Instant;

use bgp_wire::{Label, Nlri};
use router_types::{Family, LinkIndex};
use smallvec::SmallVec;

use super::attributes::{AttrId, decode};
use super::intake::{Intake, Judged, Source};
use super::keys::DestId;
use super::next_hop::HopId;
use super::rejection::Rejection;
use super::table::Path;
use super::{PeerId, ROUTE_TARGETS, Rib, RibOutput, cluster_id, slot_of};
use crate::config::{BeyondLimit, PeerName, PrefixLimit};
use crate::policy::Decision;
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
                RouteItem::EndOfRib { family } => {
                    if let Some(neighbour) = self.neighbours.get_mut(id)
                        && let Some(since) = neighbour.up_since
                    {
                        let after = now.saturating_duration_since(since);
                        neighbour.synced.entry(family).or_insert(after);
                    }
                    self.purge(id, Some(family), Which::Stale);
                    if family == Family::ROUTE_TARGET {
                        self.targets_are_known(id);
                    }
                }
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
        let (Some(intake), Some(session)) = (neighbour.intake(slot), &neighbour.session) else {
            return;
        };
        let link = session.addresses.link;
        let from = Source {
            name: &intake.name,
            family,
            internal: session.internal,
            peer_asn: session.peer_asn,
            local_asn: self.config.local_asn(),
            role: session.role,
            router_id: self.config.router_id(),
            cluster_id: cluster_id(&self.config),
        };
        // RFC 4271 §5.1.3: a route whose next hop is the receiver's own address is not for it.
        let own_hop = session.addresses.local.ip() == next_hop.address;
        let unwanted = if own_hop {
            Some(Rejection::OwnNextHop)
        } else {
            intake.closed()
        };
        let mut ids = std::mem::take(&mut self.scratch);
        self.tables[slot].keys.resolve(nlri, &mut ids);
        self.tables[slot].grow();
        // None but for VPN families.
        let labels: Vec<Label> = nlri.vpn().map(|entry| entry.label).collect();
        let mut arrival = Arrival {
            bytes,
            next_hop,
            link,
            from,
            intake: &intake,
            judged: None,
            outcomes: SmallVec::new(),
        };
        let template = Path {
            attributes: AttrId::NONE,
            next_hop: HopId::NONE,
            since_s: self.seconds(now),
            path_id: 0,
            peer,
            stale: false,
            rejected: None,
        };
        for (at, &(id, path_id)) in ids.iter().enumerate() {
            let keys = &self.tables[slot].keys;
            let refused = unwanted.or_else(|| intake.refuses(|| keys.prefix(id)));
            let (mut outcome, mut rejected) = match refused {
                // Attributes of what is not wanted are not even looked at, unless they are kept.
                Some(_) if !self.config.keep_rejected => (None, refused),
                Some(_) => (Some(arrival.as_it_came(self)), refused),
                None => arrival.outcome(self, slot, id),
            };
            if rejected.is_none() && !self.has_room(peer, slot, id, path_id, intake.limit) {
                rejected = Some(Rejection::Limit);
            }
            if rejected.is_some() && !self.config.keep_rejected {
                outcome = None;
            }
            let mut path = Path {
                path_id,
                rejected: rejected.map(Into::into),
                ..template
            };
            if let Some((attributes, hop)) = outcome {
                self.attributes.hold(attributes, 1);
                path.attributes = attributes;
                path.next_hop = match labels.get(at) {
                    Some(label) => self.next_hops.hold_labelled(hop, *label),
                    None => {
                        self.next_hops.hold_again(hop);
                        hop
                    }
                };
            }
            self.place(slot, id, path);
        }
        for (_, outcome, _) in arrival.outcomes {
            if let Some((attributes, hop)) = outcome {
                self.attributes.release(attributes);
                self.next_hops.release(hop);
            }
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

    /// Whether one more route stays within the limit. Says once that the limit is near, and once
    /// that it is passed.
    fn has_room(
        &mut self,
        peer: PeerId,
        slot: usize,
        id: DestId,
        path_id: u32,
        limit: Option<PrefixLimit>,
    ) -> bool {
        let Some(limit) = limit else {
            return true;
        };
        let family = self.tables[slot].family;
        let Some(neighbour) = self.neighbours.get_mut(peer) else {
            return false;
        };
        let routes = neighbour.accepted.get(&family).copied().unwrap_or(0) + 1;
        if routes < limit.warn_at().into() {
            return true;
        }
        let known = self.tables[slot]
            .find(id, peer, path_id)
            .is_some_and(|path| path.rejected.is_none());
        if known {
            return true;
        }
        let peer = || neighbour.name.clone();
        let most = limit.limit();
        if routes <= most.into() {
            if neighbour.near_limit.insert(family) {
                self.outputs.push_back(RibOutput::LimitNear {
                    peer: peer(),
                    family,
                    routes,
                    limit: most,
                });
            }
            return true;
        }
        let is_first = neighbour.over_limit.insert(family);
        match limit.beyond {
            BeyondLimit::WarnOnly => {
                if is_first {
                    self.outputs.push_back(RibOutput::LimitNear {
                        peer: peer(),
                        family,
                        routes,
                        limit: most,
                    });
                }
                true
            }
            BeyondLimit::Restart { after_s } => {
                if is_first {
                    self.outputs.push_back(RibOutput::LimitExceeded {
                        peer: peer(),
                        family,
                        limit: most,
                        restart_s: after_s,
                    });
                }
                false
            }
        }
    }

    /// Looks whether what is taken already is within limits that may have become other ones.
    pub(super) fn check_limits(&mut self, peer: PeerId) {
        for slot in 0..self.tables.len() {
            let family = self.tables[slot].family;
            let Some(neighbour) = self.neighbours.get_mut(peer).filter(|n| n.up) else {
                return;
            };
            let config = neighbour.config.families().get(&family);
            let Some(limit) = config.and_then(|config| config.limit) else {
                continue;
            };
            let routes = neighbour.accepted.get(&family).copied().unwrap_or(0);
            let (name, most) = (neighbour.name.clone(), limit.limit());
            if routes < limit.warn_at().into() {
                continue;
            }
            if let BeyondLimit::Restart { after_s } = limit.beyond
                && routes > most.into()
            {
                neighbour.over_limit.insert(family);
                self.outputs.push_back(RibOutput::LimitExceeded {
                    peer: name,
                    family,
                    limit: most,
                    restart_s: after_s,
                });
                continue;
            }
            neighbour.near_limit.insert(family);
            if routes > most.into() {
                neighbour.over_limit.insert(family);
            }
            self.outputs.push_back(RibOutput::LimitNear {
                peer: name,
                family,
                routes,
                limit: most,
            });
        }
    }

    /// Puts a route in the table. It brings references to its attributes and next hop along.
    pub(super) fn place(&mut self, slot: usize, id: DestId, mut path: Path) {
        let known = self.tables[slot].find(id, path.peer, path.path_id);
        // Sent again, it is the same route.
        if let Some(old) = known.filter(|old| {
            Path {
                since_s: path.since_s,
                stale: path.stale,
                ..**old
            } == path
        }) {
            path.since_s = old.since_s;
        }
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
        match replaced {
            Some(old) => {
                self.let_go(slot, &old);
                self.after(slot, id, before);
            }
            None => self.after_addition(slot, id, &path, before),
        }
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
        if slot == ROUTE_TARGETS {
            self.wishing.insert(path.peer);
        }
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
                if self.tables[slot].is_alone(id) {
                    let (only, _) = self.tables[slot].paths(id);
                    if let Some(path_id) = only.map(|path| path.path_id) {
                        self.withdraw(slot, id, peer, path_id);
                    }
                    continue;
                }
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

    /// Applies a changed configuration to what is there, as far as that can be known: routes that
    /// were rejected, or that a policy changed, have to be sent again; the session asks for them.
    ///
    /// The own AS in a path is looked at only where it is allowed less often than before: what is in
    /// the table may have been prepended by policy.
    pub(super) fn reconsider(&mut self, peer: PeerId, own_as: OwnAs) {
        for slot in 0..self.tables.len() {
            let neighbour = self.neighbours.get(peer);
            let Some(intake) = neighbour.and_then(|neighbour| neighbour.intake(slot)) else {
                continue;
            };
            let accepted = |path: &Path| path.peer == peer && path.rejected.is_none();
            for id in self.tables[slot].having(accepted) {
                let paths = self.tables[slot].sorted(id);
                for mut path in paths.into_iter().filter(|path| accepted(path)) {
                    let keys = &self.tables[slot].keys;
                    let times = self
                        .attributes
                        .hot(path.attributes)
                        .map_or(0, |hot| hot.own_as);
                    let loops = own_as == OwnAs::FewerAllowed && times > intake.allow_own_as;
                    let rejected = if let Some(why) = intake.closed() {
                        Some(why)
                    } else if loops {
                        Some(Rejection::OwnAs)
                    } else {
                        intake.refuses(|| keys.prefix(id))
                    };
                    path.rejected = rejected.map(Into::into);
                    if path.rejected.is_none() {
                        continue;
                    }
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

/// Attributes and next hop as a route has them in the table.
type Stored = (AttrId, HopId);

/// The attributes of an UPDATE on their way into the table. Each outcome holds a reference until
/// all prefixes are placed.
struct Arrival<'a> {
    bytes: &'a [u8],
    next_hop: NextHopAddress,
    link: Option<LinkIndex>,
    from: Source<'a>,
    intake: &'a Intake,
    judged: Option<Judged<'a>>,
    /// Mostly one.
    outcomes: SmallVec<[Outcome; 1]>,
}

/// What a decision of policy led to; `None` is the one for all prefixes.
type Outcome = (Option<Decision>, Option<Stored>, Option<Rejection>);

impl Arrival<'_> {
    /// The attributes as they came, for a route that is kept although it is not wanted.
    fn as_it_came(&mut self, rib: &mut Rib) -> Stored {
        let came = self
            .outcomes
            .iter()
            .find_map(|(decision, stored, rejected)| {
                stored.filter(|_| decision.is_none() && rejected.is_some())
            });
        came.unwrap_or_else(|| {
            let stored = self.store(rib, self.bytes, self.next_hop);
            let outcome = (None, Some(stored), Some(Rejection::Import));
            self.outcomes.push(outcome);
            stored
        })
    }

    /// What becomes of a prefix with these attributes.
    fn outcome(
        &mut self,
        rib: &mut Rib,
        slot: usize,
        id: DestId,
    ) -> (Option<Stored>, Option<Rejection>) {
        let decision = match &self.judged {
            Some(Judged::Policy(_, judgement)) => {
                let settled = judgement.settled();
                Some(settled.unwrap_or_else(|| judgement.decide(&rib.tables[slot].keys.prefix(id))))
            }
            Some(_) => None,
            None => {
                self.judge(rib);
                return self.outcome(rib, slot, id);
            }
        };
        let known = self
            .outcomes
            .iter()
            .find(|(other, _, _)| *other == decision);
        if let Some(&(_, stored, rejected)) = known {
            return (stored, rejected);
        }
        let changed = match (&self.judged, decision) {
            (Some(Judged::Changed(attributes)), _) => Some(((**attributes).clone(), self.next_hop)),
            (Some(Judged::Policy(attributes, judgement)), Some(decision)) => {
                let (hop, from) = (self.next_hop, &self.from);
                self.intake
                    .apply(attributes, judgement, decision, hop, from)
            }
            (_, _) => None,
        };
        let (stored, rejected) = match (changed, &self.judged) {
            (Some((attributes, hop)), _) => {
                let mut bytes = Vec::new();
                attributes.encode(true, &mut bytes);
                (Some(self.store(rib, &bytes, hop)), None)
            }
            (None, Some(Judged::Rejected(why))) => (Some(self.store_as_it_came(rib)), Some(*why)),
            (None, Some(Judged::Policy(..))) => {
                let by = match decision {
                    Some(Decision::Reject(by)) => by,
                    Some(Decision::Accept(_)) | None => None,
                };
                let stored = self.store_as_it_came(rib);
                (Some(stored), Some(Rejection::Policy(by)))
            }
            (None, _) => (Some(self.store_as_it_came(rib)), None),
        };
        self.outcomes.push((decision, stored, rejected));
        (stored, rejected)
    }

    fn judge(&mut self, rib: &mut Rib) {
        let (id, bytes) = (rib.attributes.intern(self.bytes), self.bytes);
        let Some(hot) = rib.attributes.hot(id).copied() else {
            return;
        };
        let judged = self
            .intake
            .judge(&hot, || decode(bytes), self.next_hop, &self.from);
        if matches!(judged, Judged::Plain) {
            rib.attributes.hold(id, 1);
            let stored = (id, rib.next_hops.hold(self.next_hop, self.link, 1));
            self.outcomes.push((None, Some(stored), None));
        } else {
            rib.attributes.settle(id);
        }
        self.judged = Some(judged);
    }

    fn store_as_it_came(&self, rib: &mut Rib) -> Stored {
        self.store(rib, self.bytes, self.next_hop)
    }

    fn store(&self, rib: &mut Rib, bytes: &[u8], next_hop: NextHopAddress) -> Stored {
        let attributes = rib.attributes.intern(bytes);
        rib.attributes.hold(attributes, 1);
        (attributes, rib.next_hops.hold(next_hop, self.link, 1))
    }
}

/// How often the own AS may be in a path of a neighbour whose configuration changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OwnAs {
    AsBefore,
    FewerAllowed,
}

/// Which routes of a neighbour are dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Which {
    All,
    Stale,
    Rejected,
}
