// SPDX-License-Identifier: Apache-2.0
//! Neighbours that come, go and are expected back, and what configuration changes about them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp_wire::Community;
use router_types::Family;

use super::import::{OwnAs, Which};
use super::intake::{Intake, PolicyUse};
use super::neighbour::{Neighbour, SessionInfo};
use super::table::Path;
use super::{PeerId, Rib, slot_of};
use crate::config::{InstanceConfig, PeerName, Transit};
use crate::peer::KeepRoutes;
use crate::policy::{Policy, PolicyName};

/// How long stale routes outlive the session's return without End-of-RIB. RFC 4724 §4.2 asks for
/// an upper bound and leaves it open; 300 s is what large fabrics use for it.
const STALE_LIMIT: Duration = Duration::from_secs(300);

impl Rib {
    pub(super) fn configure(&mut self, config: InstanceConfig) {
        let gone: Vec<(PeerName, PeerId)> = self
            .neighbours
            .ids()
            .iter()
            .filter(|(name, _)| !config.peers().contains_key(*name))
            .map(|(name, id)| (name.clone(), *id))
            .collect();
        for (name, id) in gone {
            self.exports.leave(id);
            self.purge(id, None, Which::All);
            // What was announced of it has to be looked at while its number is its own.
            self.flush_exports();
            self.neighbours.remove(&name);
        }
        let renewed = self.compile_policies(&config);
        let same_for_all = self.config.ebgp_requires_policy == config.ebgp_requires_policy
            && self.config.graceful_shutdown == config.graceful_shutdown
            && self.config.cluster_id == config.cluster_id;
        if self.config.drained != config.drained {
            // What changed before the drain is told as it was then.
            self.flush_exports();
            self.exports.reconsider_all();
        }
        let before = std::mem::replace(&mut self.config, config);
        let config = self.config.clone();
        let mut reflection_differs = false;
        for (name, peer) in config.peers() {
            let id = self.neighbours.add(name, peer);
            let Some(neighbour) = self.neighbours.get_mut(id) else {
                continue;
            };
            let exports_differ = peer
                .families()
                .values()
                .filter_map(|family| family.export_policy.as_ref())
                .any(|name| renewed.contains(name));
            let differs = neighbour.config != *peer;
            let own_as = if peer.allow_own_as < neighbour.config.allow_own_as {
                OwnAs::FewerAllowed
            } else {
                OwnAs::AsBefore
            };
            // Whose routes are reflected, others are sent.
            reflection_differs |=
                neighbour.config.route_reflector_client != peer.route_reflector_client;
            neighbour.config = peer.clone();
            if differs {
                neighbour.over_limit.clear();
                neighbour.near_limit.clear();
            }
            let intakes_differ = self.renew_intakes(id);
            if (differs || !same_for_all || intakes_differ || exports_differ)
                && self
                    .neighbours
                    .get(id)
                    .is_some_and(|neighbour| neighbour.up)
            {
                self.reconsider(id, own_as);
                self.rejoin(id);
            }
            if differs {
                self.check_limits(id);
            }
        }
        let transit = config.transit == Transit::Allowed;
        let aggregates_differ = before.aggregates != config.aggregates;
        let use_of = |config: &InstanceConfig| {
            (
                config.max_paths,
                config.install_routes,
                config.as_path_relax,
                config.weigh_by_link_bandwidth,
            )
        };
        let report = use_of(&before) != use_of(&config);
        if reflection_differs {
            self.exports.reconsider_all();
        }
        if self.transit != transit {
            self.flush_exports();
            self.transit = transit;
            self.exports.reconsider_all();
            self.contribute_all();
        }
        if aggregates_differ {
            self.configure_aggregates();
        }
        self.exports.configure(self.config.local_asn());
        self.renew_membership();
        if report && self.config.install_routes {
            self.report_all();
        }
        self.exports.set_views(
            &self.locals,
            &self.aggregated,
            self.neighbours.ids(),
            &self.tables,
        );
    }

    /// Compiles what has changed, so that what has not stays the same to whoever uses it. Returns
    /// the names of policies that came, changed or went.
    fn compile_policies(&mut self, config: &InstanceConfig) -> BTreeSet<PolicyName> {
        let mut next = BTreeMap::new();
        for policy in &config.policies {
            let name = policy.name();
            let known = self.policies.get(name);
            match known.filter(|known| known.config() == policy) {
                Some(known) => {
                    next.insert(name.clone(), known.clone());
                }
                None => match Policy::compile(policy) {
                    Ok(compiled) => {
                        next.insert(name.clone(), Arc::new(compiled));
                    }
                    // Without it, whoever names it lets nothing pass.
                    Err(error) => tracing::error!(policy = %name.0, %error, "not usable"),
                },
            }
        }
        let before = std::mem::replace(&mut self.policies, next);
        let is_renewed = |name: &&PolicyName| match (before.get(*name), self.policies.get(*name)) {
            (Some(old), Some(new)) => !Arc::ptr_eq(old, new),
            (_, _) => true,
        };
        let names = before.keys().chain(self.policies.keys());
        names.filter(is_renewed).cloned().collect()
    }

    /// Works out how routes come in from a neighbour. Returns whether it differs in policy. What
    /// packets are dropped for is told anew where that differs.
    fn renew_intakes(&mut self, id: PeerId) -> bool {
        let Some(neighbour) = self.neighbours.get(id) else {
            return false;
        };
        let required = self.config.ebgp_requires_policy
            && neighbour
                .session
                .as_ref()
                .is_none_or(|session| !session.internal);
        let (mut differs, mut drops_differ) = (false, false);
        let intakes = self.tables.iter().enumerate().map(|(slot, table)| {
            let family = neighbour.config.families().get(&table.family)?;
            let policy = PolicyUse::of(family.import_policy.as_ref(), &self.policies, required);
            let before = neighbour.intake(slot);
            let drops = before.as_ref().is_some_and(|before| before.blackhole);
            drops_differ |= drops != family.blackhole;
            differs |= before.is_none_or(|before| before.policy != policy);
            let intake = Intake::new(&neighbour.name, &neighbour.config, family, policy);
            Some(Arc::new(intake))
        });
        let intakes = intakes.collect();
        if let Some(neighbour) = self.neighbours.get_mut(id) {
            neighbour.intakes = intakes;
        }
        if drops_differ && self.config.install_routes {
            let from_it = |path: &Path| path.peer == id;
            for table in &mut self.tables {
                for dest in table.having(from_it) {
                    table.report(dest);
                }
            }
        }
        differs
    }

    pub(super) fn peer_up(&mut self, peer: &PeerName, session: SessionInfo, now: Instant) {
        let Some(id) = self.neighbours.id(peer) else {
            return;
        };
        let preserved = |family: Family| {
            session
                .families
                .iter()
                .any(|f| f.family == family && f.forwarding_preserved)
        };
        // RFC 4724 §4.2: without the F bit for a family its stale routes go at once.
        let families: Vec<Family> = self.tables.iter().map(|table| table.family).collect();
        for family in families {
            if !preserved(family) {
                self.purge(id, Some(family), Which::Stale);
            }
        }
        self.purge(id, None, Which::Rejected);
        let Some(neighbour) = self.neighbours.get_mut(id) else {
            return;
        };
        let stale = neighbour.stale.values().any(|&count| count > 0);
        neighbour.stale_until = stale.then(|| now + STALE_LIMIT);
        neighbour.lingers_until.clear();
        neighbour.near_limit.clear();
        neighbour.over_limit.clear();
        neighbour.up = true;
        neighbour.up_since = Some(now);
        neighbour.synced.clear();
        neighbour.asked_before.clear();
        neighbour.unsettled = None;
        neighbour.session = Some(session);
        self.renew_intakes(id);
        self.await_targets(id, now);
        // What is announced already is announced to this one by the way of its own, below.
        self.flush_exports();
        self.join(id);
    }

    pub(super) fn peer_down(&mut self, peer: &PeerName, keep: Option<KeepRoutes>, now: Instant) {
        let Some(id) = self.neighbours.id(peer) else {
            return;
        };
        self.exports.leave(id);
        self.purge(id, None, Which::Rejected);
        let Some(neighbour) = self.neighbours.get_mut(id) else {
            return;
        };
        neighbour.up = false;
        neighbour.asked_before.clear();
        neighbour.unsettled = None;
        let refreshing = std::mem::take(&mut neighbour.refreshing);
        neighbour.targets_until = None;
        let Some(keep) = keep else {
            neighbour.stale_until = None;
            neighbour.lingers_until.clear();
            self.purge(id, None, Which::All);
            return;
        };
        neighbour.stale_until = Some(now + keep.restart_time);
        neighbour.long_lived = keep.long_lived;
        // What was stale before this session and not renewed in it is gone for good
        // (RFC 4724 §4.2).
        neighbour.lingers_until.clear();
        // What was being sent again is as good as what came again.
        for family in refreshing {
            self.set_stale(id, family, false);
        }
        self.purge(id, None, Which::Stale);
        let session = self.neighbours.get(id).and_then(|n| n.session.clone());
        let families = session.map_or_else(Vec::new, |session| session.families);
        for family in families.iter().filter(|family| !family.graceful) {
            self.purge(id, Some(family.family), Which::All);
        }
        let mut stale = BTreeMap::<Family, u64>::new();
        for table in &mut self.tables {
            let count = stale.entry(table.family).or_default();
            table.for_each_mut(|_, path| {
                if path.peer == id {
                    path.stale = true;
                    *count += 1;
                }
            });
        }
        if let Some(neighbour) = self.neighbours.get_mut(id) {
            neighbour.stale = stale;
        }
    }

    /// A neighbour begins to send a family again (RFC 7313 §4): its routes are stale until they come.
    pub(super) fn refresh_begins(&mut self, peer: &PeerName, family: Family, now: Instant) {
        let Some(id) = self.neighbours.id(peer) else {
            return;
        };
        let Some(neighbour) = self.neighbours.get_mut(id).filter(|n| n.up) else {
            return;
        };
        neighbour.refreshing.insert(family);
        neighbour.stale_until = Some(now + STALE_LIMIT);
        self.set_stale(id, family, true);
    }

    /// It has sent the family again: what did not come is gone. Without a beginning it means nothing.
    pub(super) fn refresh_ends(&mut self, peer: &PeerName, family: Family) {
        let Some(id) = self.neighbours.id(peer) else {
            return;
        };
        let Some(neighbour) = self.neighbours.get_mut(id) else {
            return;
        };
        if neighbour.refreshing.remove(&family) {
            if neighbour.refreshing.is_empty() {
                neighbour.stale_until = None;
            }
            self.purge(id, Some(family), Which::Stale);
            if family == Family::ROUTE_TARGET {
                self.forget_what_was_asked_before(id);
            }
        }
    }

    /// Marks all routes of a neighbour's family, or none of them.
    fn set_stale(&mut self, peer: PeerId, family: Family, stale: bool) {
        let Some(slot) = slot_of(family) else { return };
        let mut count = 0;
        self.tables[slot].for_each_mut(|_, path| {
            if path.peer == peer {
                path.stale = stale;
                count += u64::from(stale);
            }
        });
        if let Some(neighbour) = self.neighbours.get_mut(peer) {
            neighbour.stale.insert(family, count);
        }
    }

    /// Drops the routes of neighbours that did not come back, or did not renew them, in time; those
    /// of families with long-lived graceful restart become the last choice first.
    pub(super) fn drop_overdue(&mut self, now: Instant) {
        let is_overdue = |neighbour: &Neighbour| neighbour.stale_until.is_some_and(|at| at <= now);
        let overdue: Vec<(PeerId, bool)> = self
            .neighbours
            .iter_mut()
            .filter(|(_, neighbour)| is_overdue(neighbour))
            .map(|(id, neighbour)| {
                neighbour.stale_until = None;
                neighbour.refreshing.clear();
                (id, neighbour.up)
            })
            .collect();
        let had_their_time: Vec<PeerId> = self
            .neighbours
            .iter_mut()
            .filter(|(_, neighbour)| neighbour.targets_until.is_some_and(|at| at <= now))
            .map(|(id, _)| id)
            .collect();
        for id in had_their_time {
            self.targets_are_known(id);
        }
        let unsettled: Vec<PeerId> = self
            .neighbours
            .iter_mut()
            .filter(|(_, n)| n.unsettled.as_ref().is_some_and(|left| left.until <= now))
            .map(|(id, _)| id)
            .collect();
        for id in unsettled {
            self.settle(id);
        }
        let families: Vec<Family> = self.tables.iter().map(|table| table.family).collect();
        for (id, up) in overdue {
            for &family in &families {
                let neighbour = self.neighbours.get(id);
                let time = neighbour.and_then(|neighbour| neighbour.long_lived.get(&family));
                match time.copied() {
                    Some(time) if !up && !time.is_zero() => self.linger(id, family, now + time),
                    Some(_) | None => self.purge(id, Some(family), Which::Stale),
                }
            }
        }
        let mut ended = Vec::new();
        for (id, neighbour) in self.neighbours.iter_mut() {
            neighbour.lingers_until.retain(|family, at| {
                let is_over = *at <= now;
                ended.extend(is_over.then_some((id, *family)));
                !is_over
            });
        }
        for (id, family) in ended {
            self.purge(id, Some(family), Which::Stale);
        }
    }

    /// Makes stale routes the last choice (RFC 9494 §4.3): those with NO_LLGR go, the others are
    /// marked with LLGR_STALE.
    fn linger(&mut self, peer: PeerId, family: Family, until: Instant) {
        let Some(slot) = slot_of(family) else { return };
        let wanted = |path: &Path| path.peer == peer && path.stale && path.rejected.is_none();
        for id in self.tables[slot].having(wanted) {
            for mut path in self.tables[slot].sorted(id).into_iter().filter(wanted) {
                let Some(mut attributes) = self.attributes.attributes(path.attributes) else {
                    continue;
                };
                if attributes.communities.contains(&Community::NO_LLGR) {
                    self.withdraw(slot, id, peer, path.path_id);
                    continue;
                }
                if let Err(at) = attributes.communities.binary_search(&Community::LLGR_STALE) {
                    attributes.communities.insert(at, Community::LLGR_STALE);
                }
                let mut bytes = Vec::new();
                attributes.encode(true, &mut bytes);
                path.attributes = self.attributes.intern(&bytes);
                self.attributes.hold(path.attributes, 1);
                self.next_hops.hold_again(path.next_hop);
                self.place(slot, id, path);
            }
        }
        if let Some(neighbour) = self.neighbours.get_mut(peer) {
            neighbour.lingers_until.insert(family, until);
        }
    }
}
