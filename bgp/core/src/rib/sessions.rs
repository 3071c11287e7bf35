// SPDX-License-Identifier: Apache-2.0
//! Neighbours that come, go and are expected back, and what configuration changes about them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use router_types::Family;

use super::import::Which;
use super::neighbour::{Neighbour, SessionInfo};
use super::{PeerId, Rib};
use crate::config::{InstanceConfig, PeerName, Transit};

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
        for (name, peer) in config.peers() {
            let id = self.neighbours.add(name);
            let Some(neighbour) = self.neighbours.get_mut(id) else {
                continue;
            };
            let stricter = neighbour.families != *peer.families()
                || neighbour.allow_own_as > peer.allow_own_as;
            let next_hops_differ = peer.families().iter().any(|(family, new)| {
                let old = neighbour.families.get(family);
                old.is_some_and(|old| old.next_hop != new.next_hop)
            });
            neighbour.families = peer.families().clone();
            neighbour.allow_own_as = peer.allow_own_as;
            if stricter {
                neighbour.over_limit.clear();
            }
            if next_hops_differ && neighbour.up {
                self.rejoin(id);
            }
            if stricter {
                self.reconsider(id);
            }
        }
        let transit = config.transit == Transit::Allowed;
        let report = self.config.max_paths != config.max_paths
            || self.config.install_routes != config.install_routes;
        self.config = config;
        if self.transit != transit {
            self.flush_exports();
            self.transit = transit;
            self.exports.reconsider_all();
        }
        self.exports.configure(self.config.local_asn());
        if report && self.config.install_routes {
            self.report_all();
        }
        self.exports
            .set_views(&self.locals, self.neighbours.ids(), &self.tables);
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
        neighbour.over_limit.clear();
        neighbour.up = true;
        neighbour.session = Some(session);
        // What is announced already is announced to this one by the way of its own, below.
        self.flush_exports();
        self.join(id);
    }

    pub(super) fn peer_down(&mut self, peer: &PeerName, keep: Option<Duration>, now: Instant) {
        let Some(id) = self.neighbours.id(peer) else {
            return;
        };
        self.exports.leave(id);
        self.purge(id, None, Which::Rejected);
        let Some(neighbour) = self.neighbours.get_mut(id) else {
            return;
        };
        neighbour.up = false;
        let Some(keep) = keep else {
            neighbour.stale_until = None;
            self.purge(id, None, Which::All);
            return;
        };
        neighbour.stale_until = Some(now + keep);
        // What was stale before this session and not renewed in it is gone for good
        // (RFC 4724 §4.2).
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

    /// Drops the routes of neighbours that did not come back, or did not renew them, in time.
    pub(super) fn drop_overdue(&mut self, now: Instant) {
        let is_overdue = |neighbour: &Neighbour| neighbour.stale_until.is_some_and(|at| at <= now);
        let overdue: Vec<PeerId> = self
            .neighbours
            .iter_mut()
            .filter(|(_, neighbour)| is_overdue(neighbour))
            .map(|(id, neighbour)| {
                neighbour.stale_until = None;
                id
            })
            .collect();
        for id in overdue {
            self.purge(id, None, Which::Stale);
        }
    }
}
