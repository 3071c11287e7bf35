// SPDX-License-Identifier: Apache-2.0
//! Which of a destination's routes is the best, and what changes when that does.

use std::net::IpAddr;

use router_types::Forwarding;

use super::best::{self, AsPaths, Candidate, Standing, Verdict};
use super::keys::DestId;
use super::table::{BestKey, Path};
use super::{BestRoute, INSTALLED, NextHop, ROUTE_TARGETS, Rib, RouteSource, Sources};

/// A destination before its routes change.
pub(super) struct Before {
    /// Its best route, with a reference to the attributes where it may have been announced.
    best: Option<BestKey>,
    /// Those in use, where there were several routes and somebody wants to know.
    used: Option<Vec<BestKey>>,
}

impl Rib {
    /// The best learned route of a destination, as the table has it.
    #[inline]
    pub(super) fn best_path(&self, slot: usize, id: DestId) -> Option<&Path> {
        let (first, _) = self.tables[slot].paths(id);
        first.filter(|path| self.is_usable(path))
    }

    #[inline]
    fn is_usable(&self, path: &Path) -> bool {
        path.rejected.is_none() && self.next_hops.metric(path.next_hop).is_some()
    }

    /// Puts the best route of a destination first.
    pub(super) fn elect(&mut self, slot: usize, id: DestId) {
        let (first, more) = self.tables[slot].paths(id);
        if more.is_empty() {
            return;
        }
        let all = first.into_iter().chain(more);
        let candidates = all.enumerate().filter_map(|(at, path)| {
            let candidate = self.candidate(path).filter(|_| path.rejected.is_none())?;
            Some((at, candidate))
        });
        if let Some(best) = best::best(candidates) {
            self.tables[slot].put_first(id, best);
        }
    }

    /// Looks at a destination before its routes change.
    #[inline]
    pub(super) fn before(&mut self, slot: usize, id: DestId) -> Before {
        let best = self.best_path(slot, id).map(BestKey::from);
        if let (Some(best), true) = (best, self.transit) {
            // Whoever announced it has to be able to say how it looked.
            self.attributes.hold(best.attributes, 1);
        }
        let several = self.installs(slot) && !self.tables[slot].is_alone(id);
        let used = several.then(|| self.use_of(slot, id));
        Before { best, used }
    }

    /// Finds the best route after a change, and takes note of what that did.
    #[inline]
    pub(super) fn after(&mut self, slot: usize, id: DestId, before: Before) {
        self.elect(slot, id);
        self.note(slot, id, before);
    }

    /// As [`Rib::after`], where one more route came beside others: mostly the best one stays, and
    /// no other needs to be looked at.
    pub(super) fn after_addition(&mut self, slot: usize, id: DestId, added: &Path, before: Before) {
        let (first, more) = self.tables[slot].paths(id);
        let stays = match first {
            _ if more.is_empty() => true,
            Some(first) => self.stays_best(first, added),
            None => false,
        };
        if !stays {
            self.elect(slot, id);
        }
        self.note(slot, id, before);
    }

    /// Whether the best route is so whatever there is besides it and the one that was added. `false`
    /// where all would have to be looked at to know.
    fn stays_best(&self, best: &Path, added: &Path) -> bool {
        if added.rejected.is_some() {
            return true;
        }
        let (Some(best), Some(added)) = (self.candidate(best), self.candidate(added)) else {
            return false;
        };
        if added.metric.is_none() {
            return true;
        }
        best.metric.is_some() && best.beats_whatever_else(&added)
    }

    /// Takes note of what a change did to the best route.
    #[inline]
    fn note(&mut self, slot: usize, id: DestId, before: Before) {
        let Before { best: was, used } = before;
        let is = self.best_path(slot, id).map(BestKey::from);
        if slot < INSTALLED && was != is && !self.aggregates.is_empty() {
            self.contribute(slot, id);
        }
        if self.installs(slot) {
            let several = !self.tables[slot].is_alone(id);
            let differs = match used {
                Some(used) => used != self.use_of(slot, id),
                None if several => self.use_of(slot, id) != Vec::from_iter(was),
                None => was != is,
            };
            if differs {
                self.tables[slot].report(id);
            }
        }
        if self.transit {
            let mut held = was;
            // Neighbours are told of memberships by other routes than the best one, too.
            if was != is || self.all_paths || slot == ROUTE_TARGETS {
                self.tables[slot].mark(id, || held.take());
            }
            if let Some(was) = held {
                self.attributes.release(was.attributes);
            }
        }
    }

    /// Whether best routes of a table are told to the kernel's side.
    #[inline]
    fn installs(&self, slot: usize) -> bool {
        self.config.install_routes && slot < INSTALLED
    }

    /// What decides whether a destination is used differently.
    fn use_of(&self, slot: usize, id: DestId) -> Vec<BestKey> {
        self.used(slot, id).iter().map(BestKey::from).collect()
    }

    /// The routes in use, the best one first.
    pub(super) fn used(&self, slot: usize, id: DestId) -> Vec<Path> {
        let table = &self.tables[slot];
        if table.is_alone(id) {
            return self.best_path(slot, id).copied().into_iter().collect();
        }
        let paths = table.sorted(id);
        let (_, used) = self.judge(&paths);
        used.into_iter().map(|at| paths[at]).collect()
    }

    /// How each route stands, and those in use.
    pub(super) fn judge(&self, paths: &[Path]) -> (Vec<Standing>, Vec<usize>) {
        let accepted: Vec<usize> = (0..paths.len())
            .filter(|&at| paths[at].rejected.is_none())
            .collect();
        let candidates: Vec<Candidate> = accepted
            .iter()
            .filter_map(|&at| self.candidate(&paths[at]))
            .collect();
        debug_assert_eq!(
            candidates.len(),
            accepted.len(),
            "every accepted route has attributes and neighbour"
        );
        let as_paths = if self.config.as_path_relax {
            AsPaths::SameLength
        } else {
            AsPaths::Equal
        };
        let (standings, used) = best::select(&candidates, self.config.max_paths, as_paths);
        let rejected = |path: &Path| Standing {
            verdict: path
                .rejected
                .map_or(Verdict::Best, |why| Verdict::Rejected(why.into())),
            lost: None,
        };
        let mut all: Vec<Standing> = paths.iter().map(rejected).collect();
        for (&at, standing) in accepted.iter().zip(standings) {
            let lost = standing.lost.map(|(to, step)| (accepted[to], step));
            all[at] = Standing { lost, ..standing };
        }
        (all, used.into_iter().map(|at| accepted[at]).collect())
    }

    #[inline]
    fn candidate(&self, path: &Path) -> Option<Candidate> {
        self.sources().candidate(path)
    }

    /// The share of each route in use: by link bandwidth where all of them say it, else equal.
    fn weights(&self, used: &[Path]) -> Vec<u16> {
        /// The greatest weight the kernel takes.
        const GREATEST: u64 = 256;
        let of = |path: &Path| {
            self.attributes
                .hot(path.attributes)
                .map_or(0, |hot| hot.bandwidth)
        };
        let bandwidths: Vec<u64> = used.iter().map(|path| of(path).into()).collect();
        let most = bandwidths.iter().copied().max().unwrap_or(0);
        let known = self.config.weigh_by_link_bandwidth && !bandwidths.contains(&0);
        if !known || bandwidths.iter().all(|bandwidth| *bandwidth == most) {
            return vec![1; used.len()];
        }
        let share = |bandwidth: u64| ((bandwidth * GREATEST + most / 2) / most).max(1);
        bandwidths
            .into_iter()
            .map(|bandwidth| share(bandwidth) as u16)
            .collect()
    }

    /// Whether packets to a route are dropped: it asks for it, and this was agreed on with the
    /// neighbour (RFC 7999 §3.3).
    fn discards(&self, slot: usize, path: &Path) -> bool {
        let hot = self.attributes.hot(path.attributes);
        let neighbour = self.neighbours.get(path.peer);
        let intake = neighbour.and_then(|neighbour| neighbour.intake(slot));
        hot.is_some_and(|hot| hot.blackhole) && intake.is_some_and(|intake| intake.blackhole)
    }

    /// What the kernel's side is to know of a destination.
    pub(super) fn best_route(&self, slot: usize, id: DestId) -> Option<BestRoute> {
        if self.tables[slot].local.contains(id) {
            return self.own_route(slot, id);
        }
        let used = self.used(slot, id);
        let first = used.first()?;
        let external = self
            .neighbours
            .get(first.peer)
            .is_some_and(|neighbour| neighbour.is_external());
        let weights = self.weights(&used);
        let mut next_hops: Vec<NextHop> = used
            .iter()
            .zip(weights)
            .map(|(path, weight)| NextHop {
                weight,
                ..self.next_hops.forwarding(path.next_hop)
            })
            .collect();
        next_hops.sort();
        next_hops.dedup();
        let mut peers = Vec::with_capacity(used.len());
        for path in &used {
            if let Some(neighbour) = self.neighbours.get(path.peer)
                && !peers.contains(&neighbour.name)
            {
                peers.push(neighbour.name.clone());
            }
        }
        let discard = self.discards(slot, first).then_some(Forwarding::Blackhole);
        if discard.is_some() {
            next_hops.clear();
        }
        Some(BestRoute {
            source: if external {
                RouteSource::Ebgp
            } else {
                RouteSource::Ibgp
            },
            next_hops,
            discard,
            peers,
            stale: used.iter().all(|path| path.stale),
        })
    }
}

impl Sources<'_> {
    /// What selection looks at.
    #[inline]
    pub(super) fn candidate(&self, path: &Path) -> Option<Candidate> {
        let session = self.neighbours.get(path.peer)?.session.as_ref()?;
        let address: IpAddr = session.addresses.remote.ip();
        Some(Candidate {
            hot: *self.attributes.hot(path.attributes)?,
            external: !session.internal,
            metric: self.next_hops.metric(path.next_hop),
            router_id: session.peer_router_id,
            address,
            peer: path.peer,
            path_id: path.path_id,
        })
    }
}
