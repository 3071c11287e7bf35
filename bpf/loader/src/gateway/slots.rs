// SPDX-License-Identifier: Apache-2.0
//! Which place in the counters a rule has. A place is given again only after its rule's mappings
//! are gone, since they carry it.

use std::collections::{BTreeMap, BTreeSet};

use bpf_abi::nat::MAX_RULES;

/// Places of rules.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    by_number: BTreeMap<u32, u16>,
    used: BTreeSet<u16>,
    /// No place below is free.
    lowest: u16,
    /// Places of rules that are gone, with the count of sweeps after which they are free.
    retired: Vec<(u16, u64)>,
}

/// Sweeps after which nothing of a rule is left.
const SWEEPS_TO_FORGET: u64 = 2;

impl Slots {
    /// The places that are taken.
    pub(crate) fn of(taken: impl IntoIterator<Item = (u32, u16)>) -> Self {
        let by_number: BTreeMap<u32, u16> = taken.into_iter().collect();
        Self {
            used: by_number.values().copied().collect(),
            by_number,
            lowest: 0,
            retired: Vec::new(),
        }
    }

    /// The numbers of the rules that have one.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.by_number.keys().copied().collect()
    }

    /// The place of a rule.
    pub(crate) fn get(&self, number: u32) -> Option<u16> {
        self.by_number.get(&number).copied()
    }

    /// Gives a rule a place; `None` when all are taken.
    pub(crate) fn take(&mut self, number: u32) -> Option<u16> {
        let slot = (self.lowest..MAX_RULES as u16).find(|slot| !self.used.contains(slot))?;
        self.lowest = slot + 1;
        self.used.insert(slot);
        self.by_number.insert(number, slot);
        Some(slot)
    }

    /// The rule is gone.
    pub(crate) fn retire(&mut self, number: u32, sweeps: u64) {
        if let Some(slot) = self.by_number.remove(&number) {
            self.retired.push((slot, sweeps + SWEEPS_TO_FORGET));
        }
    }

    /// Gives places free whose time has come.
    pub(crate) fn release(&mut self, sweeps: u64) {
        let (used, lowest) = (&mut self.used, &mut self.lowest);
        self.retired.retain(|(slot, due)| {
            let is_due = sweeps >= *due;
            if is_due {
                used.remove(slot);
                *lowest = (*lowest).min(*slot);
            }
            !is_due
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_again_only_after_two_sweeps() {
        let mut slots = Slots::of([(5000, 0)]);
        assert_eq!(slots.get(5000), Some(0));
        assert_eq!(slots.take(6000), Some(1));
        slots.retire(5000, 7);
        slots.release(8);
        assert_eq!(slots.take(7000), Some(2), "the first place rests");
        slots.release(9);
        assert_eq!(slots.take(8000), Some(0));
        assert_eq!(slots.numbers(), [6000, 7000, 8000]);
    }

    #[test]
    fn all_places_can_be_taken() {
        let mut slots = Slots::default();
        for number in 0..MAX_RULES {
            assert!(slots.take(number).is_some(), "{number}");
        }
        assert_eq!(slots.take(MAX_RULES), None);
    }
}
