// SPDX-License-Identifier: Apache-2.0
//! A hash index of numbers: open addressing, a slot of eight bytes with number and tag.
//!
//! The tag is the hash, and the place of an entry is its share of the tags: so entries lie nearly
//! in the order of their tags whatever the size, growing is a walk along both tables, and neither
//! it nor removal looks at a key. A table of a million prefixes is mostly cache misses: whoever
//! looks up many touches all their places first ([`Index::touch`]), so that the misses overlap.

/// A number and its tag in one word; 0 is an empty slot, therefore numbers count from 1 here.
type Slot = u64;

/// How full the table may be, in eighths.
const FULL: usize = 6;

/// The smallest table.
const SMALLEST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Index {
    slots: Vec<Slot>,
    len: usize,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Reads the place where a tag would be, for the cache alone.
    #[inline]
    pub(super) fn touch(&self, tag: u32) -> u64 {
        self.slots.get(self.home(tag)).copied().unwrap_or(0)
    }

    /// The number with a tag that the function takes for the one wanted.
    #[inline]
    pub(super) fn find(&self, tag: u32, mut is_wanted: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(tag);
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return None;
            }
            if tag_of(slot) == tag && is_wanted(number_of(slot)) {
                return Some(number_of(slot));
            }
            at = self.next(at);
        }
    }

    /// Adds a number that is not there.
    #[inline]
    pub(super) fn insert(&mut self, tag: u32, number: u32) {
        if (self.len + 1) * 8 > self.slots.len() * FULL {
            self.grow();
        }
        let mut at = self.home(tag);
        while self.slots[at] != 0 {
            at = self.next(at);
        }
        self.slots[at] = slot(tag, number);
        self.len += 1;
    }

    /// Takes a number out and says whether it was there. Entries behind it move up, so that none
    /// is cut off from its place.
    pub(super) fn remove(&mut self, tag: u32, number: u32) -> bool {
        if self.slots.is_empty() {
            return false;
        }
        let wanted = slot(tag, number);
        let mut at = self.home(tag);
        while self.slots[at] != wanted {
            if self.slots[at] == 0 {
                return false;
            }
            at = self.next(at);
        }
        let mut hole = at;
        loop {
            at = self.next(at);
            let moved = self.slots[at];
            if moved == 0 {
                break;
            }
            // It may move into the hole unless its own place lies behind the hole.
            let home = self.home(tag_of(moved));
            let from_home = self.distance(home, at);
            if from_home >= self.distance(hole, at) {
                self.slots[hole] = moved;
                hole = at;
            }
        }
        self.slots[hole] = 0;
        self.len -= 1;
        true
    }

    pub(super) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 8 / 5).max(SMALLEST);
        let old = std::mem::replace(&mut self.slots, vec![0; size]);
        for entry in old.into_iter().filter(|slot| *slot != 0) {
            let mut at = self.home(tag_of(entry));
            while self.slots[at] != 0 {
                at = self.next(at);
            }
            self.slots[at] = entry;
        }
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        ((u64::from(tag) * self.slots.len() as u64) >> 32) as usize
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() {
            0
        } else {
            at + 1
        }
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from {
            to - from
        } else {
            to + self.slots.len() - from
        }
    }
}

#[inline]
fn slot(tag: u32, number: u32) -> Slot {
    u64::from(tag) << 32 | u64::from(number + 1)
}

#[inline]
fn tag_of(slot: Slot) -> u32 {
    (slot >> 32) as u32
}

#[inline]
fn number_of(slot: Slot) -> u32 {
    (slot as u32).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_map_would(
            // Few tags, so that they collide, at both ends, so that runs go around the end.
            steps in prop::collection::vec((any::<bool>(), 0u32..40, 0u32..200), 0..800),
        ) {
            let mut index = Index::default();
            let mut map = BTreeMap::new();
            for (add, step, number) in steps {
                let tag = if step < 20 { step } else { u32::MAX - step };
                if add && !map.contains_key(&number) {
                    index.insert(tag, number);
                    map.insert(number, tag);
                } else if !add {
                    let there = map.remove(&number);
                    let tag = there.unwrap_or(tag);
                    prop_assert_eq!(index.remove(tag, number), there.is_some());
                }
                prop_assert_eq!(index.len(), map.len());
            }
            for (&number, &tag) in &map {
                prop_assert_eq!(index.find(tag, |found| found == number), Some(number));
            }
            for number in (0..200).filter(|number| !map.contains_key(number)) {
                for tag in [0, 7, u32::MAX - 30] {
                    prop_assert_eq!(index.find(tag, |found| found == number), None);
                }
            }
        }
    }
}
