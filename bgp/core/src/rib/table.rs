// SPDX-License-Identifier: Apache-2.0
//! The routes of a family: Adj-RIB-In of every neighbour and Loc-RIB in one table.
//!
//! A destination holds its best route in place; nearly all have no other. Rejected routes lie
//! there too, marked with the reason, so that counts stay right when they are withdrawn and an
//! operator can be told why. Two lists say what is to be looked at: destinations whose best route
//! differs from what was announced ([`Table::dirty`]), with the route it was, and destinations the
//! kernel's side has not been told about ([`Table::changed`]).

use std::collections::VecDeque;

use router_types::Family;

use super::PeerId;
use super::attributes::AttrId;
use super::bits::Bits;
use super::keys::{DestId, Keys};
use super::next_hop::HopId;
use super::rejection::Rejected;

/// A neighbour nobody is: the place of a route is empty.
const NOBODY: PeerId = PeerId::MAX;

/// Changes whose memory is kept for the next ones.
const KEPT: usize = 64;

/// No further routes.
const ALONE: u32 = u32::MAX;

/// A route as it lies in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Path {
    pub(super) attributes: AttrId,
    pub(super) next_hop: HopId,
    /// Seconds since the RIB began.
    pub(super) since_s: u32,
    /// Tells several routes of a neighbour apart (RFC 7911 §3); 0 without add-path.
    pub(super) path_id: u32,
    pub(super) peer: PeerId,
    pub(super) stale: bool,
    /// Why it is not used, whatever others there are.
    pub(super) rejected: Option<Rejected>,
}

/// What export needs of a best route, and what tells whether it is another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BestKey {
    pub(super) attributes: AttrId,
    pub(super) next_hop: HopId,
    pub(super) peer: PeerId,
}

/// A destination whose best route differs from what was announced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dirty {
    pub(super) id: DestId,
    /// The route that was announced, with references to its attributes and next hop.
    pub(super) was: Option<BestKey>,
}

const _: () = assert!(size_of::<Path>() == 20);

#[derive(Clone, Copy, Debug)]
struct Dest {
    first: Path,
    more: u32,
}

/// The routes of a family.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) family: Family,
    pub(super) keys: Keys,
    dests: Vec<Dest>,
    /// All but the first route of destinations that have several.
    more: Vec<Vec<Path>>,
    more_free: Vec<u32>,
    /// Destinations of the node itself.
    pub(super) local: Bits,
    dirty: Vec<Dirty>,
    is_dirty: Bits,
    changed: VecDeque<DestId>,
    is_changed: Bits,
    /// Destinations without routes whose number is still in use somewhere.
    graveyard: Vec<DestId>,
    /// When to look at them again.
    next_burial: usize,
    /// Destinations with an accepted route.
    pub(super) used: usize,
    /// Accepted routes.
    pub(super) accepted: usize,
}

impl From<&Path> for BestKey {
    fn from(path: &Path) -> BestKey {
        BestKey {
            attributes: path.attributes,
            next_hop: path.next_hop,
            peer: path.peer,
        }
    }
}

impl Path {
    fn is(&self, peer: PeerId, path_id: u32) -> bool {
        self.peer == peer && self.path_id == path_id
    }
}

const EMPTY: Dest = Dest {
    first: Path {
        attributes: AttrId::NONE,
        next_hop: HopId::NONE,
        since_s: 0,
        path_id: 0,
        peer: NOBODY,
        stale: false,
        rejected: None,
    },
    more: ALONE,
};

impl Table {
    pub(super) fn new(family: Family) -> Table {
        Table {
            family,
            keys: Keys::new(family),
            dests: Vec::new(),
            more: Vec::new(),
            more_free: Vec::new(),
            local: Bits::default(),
            dirty: Vec::new(),
            is_dirty: Bits::default(),
            changed: VecDeque::new(),
            is_changed: Bits::default(),
            graveyard: Vec::new(),
            next_burial: 0,
            used: 0,
            accepted: 0,
        }
    }

    /// Makes room for every number there is.
    pub(super) fn grow(&mut self) {
        let end = self.keys.end();
        if self.dests.len() < end {
            self.dests.resize(end, EMPTY);
        }
    }

    /// The routes of a destination: the first one, which is the best where one can be used, and
    /// the others.
    #[inline]
    pub(super) fn paths(&self, id: DestId) -> (Option<&Path>, &[Path]) {
        let Some(dest) = self.dests.get(id as usize) else {
            return (None, &[]);
        };
        let first = (dest.first.peer != NOBODY).then_some(&dest.first);
        let more = self.more.get(dest.more as usize);
        (first, more.map_or(&[], Vec::as_slice))
    }

    /// All routes of a destination in the order of neighbours.
    pub(super) fn sorted(&self, id: DestId) -> Vec<Path> {
        let (first, more) = self.paths(id);
        let mut all: Vec<Path> = first.into_iter().chain(more).copied().collect();
        all.sort_by_key(|path| (path.peer, path.path_id));
        all
    }

    /// Whether a destination has one route at most.
    #[inline]
    pub(super) fn is_alone(&self, id: DestId) -> bool {
        self.dests
            .get(id as usize)
            .is_none_or(|dest| dest.more == ALONE)
    }

    pub(super) fn find(&self, id: DestId, peer: PeerId, path_id: u32) -> Option<&Path> {
        let (first, more) = self.paths(id);
        let mut all = first.into_iter().chain(more);
        all.find(|path| path.is(peer, path_id))
    }

    /// Puts a route in, in place of the neighbour's own before, which is returned. Which one is
    /// best is for the caller to say with [`Table::put_first`].
    pub(super) fn put(&mut self, id: DestId, path: Path) -> Option<Path> {
        let accepts = path.rejected.is_none();
        let before = self.has_accepted(id);
        let dest = &mut self.dests[id as usize];
        let old = if dest.first.peer == NOBODY {
            dest.first = path;
            None
        } else if dest.first.is(path.peer, path.path_id) {
            Some(std::mem::replace(&mut dest.first, path))
        } else {
            if dest.more == ALONE {
                dest.more = match self.more_free.pop() {
                    Some(slot) => slot,
                    None => {
                        self.more.push(Vec::new());
                        (self.more.len() - 1) as u32
                    }
                };
            }
            let more = &mut self.more[dest.more as usize];
            match more.iter_mut().find(|old| old.is(path.peer, path.path_id)) {
                Some(old) => Some(std::mem::replace(old, path)),
                None => {
                    more.push(path);
                    None
                }
            }
        };
        self.accepted += usize::from(accepts);
        self.accepted -= usize::from(old.is_some_and(|old| old.rejected.is_none()));
        self.recount(id, before);
        old
    }

    /// Takes a route out.
    pub(super) fn take(&mut self, id: DestId, peer: PeerId, path_id: u32) -> Option<Path> {
        self.find(id, peer, path_id)?;
        let before = self.has_accepted(id);
        let dest = &mut self.dests[id as usize];
        let path = if dest.first.is(peer, path_id) {
            let old = dest.first;
            dest.first = match self.more.get_mut(dest.more as usize).and_then(Vec::pop) {
                Some(next) => next,
                None => EMPTY.first,
            };
            old
        } else {
            let more = self.more.get_mut(dest.more as usize)?;
            let at = more.iter().position(|path| path.is(peer, path_id))?;
            more.swap_remove(at)
        };
        if self.more.get(dest.more as usize).is_some_and(Vec::is_empty) {
            self.more[dest.more as usize] = Vec::new();
            self.more_free.push(dest.more);
            dest.more = ALONE;
        }
        let empty = dest.first.peer == NOBODY;
        self.accepted -= usize::from(path.rejected.is_none());
        self.recount(id, before);
        if empty {
            self.graveyard.push(id);
        }
        Some(path)
    }

    /// Makes one of a destination's routes the first: 0 is the first one, the others follow.
    pub(super) fn put_first(&mut self, id: DestId, which: usize) {
        let dest = &mut self.dests[id as usize];
        if let Some(at) = which.checked_sub(1)
            && let Some(more) = self.more.get_mut(dest.more as usize)
        {
            std::mem::swap(&mut dest.first, &mut more[at]);
        }
    }

    /// Changes every route in place. What decides which one is best must not change.
    pub(super) fn for_each_mut(&mut self, mut change: impl FnMut(DestId, &mut Path)) {
        for (id, dest) in self.dests.iter_mut().enumerate() {
            if dest.first.peer == NOBODY {
                continue;
            }
            change(id as DestId, &mut dest.first);
            if let Some(more) = self.more.get_mut(dest.more as usize) {
                more.iter_mut().for_each(|path| change(id as DestId, path));
            }
        }
    }

    /// Every destination with a route or of the node itself, in the order of numbers.
    pub(super) fn ids(&self) -> impl Iterator<Item = DestId> + '_ {
        let ids = 0..self.dests.len() as DestId;
        ids.filter(|&id| self.dests[id as usize].first.peer != NOBODY || self.local.contains(id))
    }

    /// Destinations with a route one of whose routes the function wants.
    pub(super) fn having(&self, mut wanted: impl FnMut(&Path) -> bool) -> Vec<DestId> {
        let ids = 0..self.dests.len() as DestId;
        ids.filter(|&id| {
            let (first, more) = self.paths(id);
            first.is_some_and(&mut wanted) || more.iter().any(&mut wanted)
        })
        .collect()
    }

    /// Notes that what is announced has to be looked at. The function is asked once, for a
    /// reference to the route that was announced.
    #[inline]
    pub(super) fn mark(&mut self, id: DestId, was: impl FnOnce() -> Option<BestKey>) {
        if self.is_dirty.insert(id) {
            let was = was();
            self.dirty.push(Dirty { id, was });
        }
    }

    /// What has to be looked at, in the order it changed. Nothing is any more.
    pub(super) fn take_dirty(&mut self) -> Vec<Dirty> {
        let dirty = std::mem::take(&mut self.dirty);
        // Clearing all is a walk along the memory of all destinations.
        if dirty.len() > self.is_dirty.memory() / 64 {
            self.is_dirty.clear();
        } else {
            dirty.iter().for_each(|dirty| {
                self.is_dirty.remove(dirty.id);
            });
        }
        dirty
    }

    /// Takes back what was taken, for its memory.
    pub(super) fn give_back(&mut self, mut dirty: Vec<Dirty>) {
        if self.dirty.capacity() == 0 && dirty.capacity() <= KEPT {
            dirty.clear();
            self.dirty = dirty;
        }
    }

    /// Whether what is announced of a destination has to be looked at.
    pub(super) fn is_dirty(&self, id: DestId) -> bool {
        self.is_dirty.contains(id)
    }

    pub(super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Notes that the kernel's side has to be told.
    #[inline]
    pub(super) fn report(&mut self, id: DestId) {
        if self.is_changed.insert(id) {
            self.changed.push_back(id);
        }
    }

    /// The next destination the kernel's side has to be told about.
    pub(super) fn next_report(&mut self) -> Option<DestId> {
        let id = self.changed.pop_front()?;
        self.is_changed.remove(id);
        if self.changed.is_empty() && self.changed.capacity() > 1 << 16 {
            self.changed = VecDeque::new();
        }
        Some(id)
    }

    pub(super) fn reports_waiting(&self) -> usize {
        self.changed.len()
    }

    /// Whether enough destinations without routes have come together.
    pub(super) fn is_burial_due(&self) -> bool {
        let few = self.graveyard.is_empty() || self.graveyard.len() < self.next_burial;
        !few && self.dirty.is_empty()
    }

    /// Gives back the numbers of destinations without routes that nobody refers to any more. Looks
    /// at them when there are twice as many as after the last time, so that ones which have to
    /// wait cost little.
    pub(super) fn bury(&mut self, is_referred_to: impl Fn(DestId) -> bool) {
        let mut graveyard = std::mem::take(&mut self.graveyard);
        graveyard
            .retain(|&id| self.dests[id as usize].first.peer == NOBODY && !self.local.contains(id));
        // One that was empty twice is there twice.
        graveyard.sort_unstable();
        graveyard.dedup();
        let (waiting, dead): (Vec<DestId>, Vec<DestId>) = graveyard
            .into_iter()
            .partition(|&id| self.is_changed.contains(id) || is_referred_to(id));
        if dead.len() == self.keys.len() {
            *self = Table::new(self.family);
            return;
        }
        dead.into_iter().for_each(|id| self.keys.remove(id));
        self.next_burial = waiting.len() * 2;
        self.graveyard = waiting;
    }

    /// Looks at destinations without routes at the next opportunity.
    pub(super) fn may_bury(&mut self) {
        self.next_burial = 0;
    }

    /// Notes that a destination of the node itself is so no more.
    pub(super) fn dismiss(&mut self, id: DestId) {
        self.graveyard.push(id);
    }

    pub(super) fn memory(&self) -> usize {
        let more: usize = self
            .more
            .iter()
            .map(|more| more.capacity() * size_of::<Path>())
            .sum();
        self.keys.memory()
            + self.dests.capacity() * size_of::<Dest>()
            + self.more.capacity() * size_of::<Vec<Path>>()
            + more
            + self.dirty.capacity() * size_of::<Dirty>()
            + (self.changed.capacity() + self.graveyard.capacity()) * size_of::<DestId>()
            + self.is_dirty.memory()
            + self.is_changed.memory()
            + self.local.memory()
    }

    fn has_accepted(&self, id: DestId) -> bool {
        let (first, more) = self.paths(id);
        first.is_some_and(|path| path.rejected.is_none())
            || more.iter().any(|path| path.rejected.is_none())
    }

    fn recount(&mut self, id: DestId, before: bool) {
        let after = self.has_accepted(id);
        self.used += usize::from(after && !before);
        self.used -= usize::from(before && !after);
    }
}
