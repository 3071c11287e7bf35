// SPDX-License-Identifier: Apache-2.0
//! Next hops with labels (RFC 4364 §4.3.2): routes of a VPN have a label each, which says nothing
//! without the next hop it is of.
//!
//! They are interned as next hops are, so that a route has one number for both, and routes of
//! families without labels are no larger for those with.

use bgp_wire::Label;
use hashbrown::HashTable;

use super::HopId;
use crate::rib::keys::{SPREAD, fold};

/// The bit that tells their numbers from those of next hops without labels.
const LABELLED: u32 = 1 << 31;

#[derive(Clone, Copy, Debug)]
struct Entry {
    hop: HopId,
    label: Label,
    refs: u32,
}

#[derive(Debug, Default)]
pub(super) struct Labelled {
    index: HashTable<u32>,
    slots: Vec<Entry>,
    free: Vec<u32>,
}

impl HopId {
    #[inline]
    pub(super) fn is_labelled(self) -> bool {
        self.0 & LABELLED != 0
    }
}

impl Labelled {
    /// The number of a next hop with a label, with one more reference, and whether it is new.
    pub(super) fn hold(&mut self, hop: HopId, label: Label) -> (HopId, bool) {
        let slots = &self.slots;
        let same = |&slot: &u32| {
            let entry = &slots[slot as usize];
            (entry.hop, entry.label) == (hop, label)
        };
        if let Some(&slot) = self.index.find(hash(hop, label), same) {
            self.slots[slot as usize].refs += 1;
            return (HopId(slot | LABELLED), false);
        }
        let entry = Entry {
            hop,
            label,
            refs: 1,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = entry;
                slot
            }
            None => {
                self.slots.push(entry);
                // The highest number stands for a next hop that was not kept.
                let slot = u32::try_from(self.slots.len() - 1).ok();
                slot.filter(|slot| *slot < LABELLED - 1)
                    .expect("fewer than 2^31 labels of next hops")
            }
        };
        let slots = &self.slots;
        self.index.insert_unique(hash(hop, label), slot, |&slot| {
            let entry = &slots[slot as usize];
            hash(entry.hop, entry.label)
        });
        (HopId(slot | LABELLED), true)
    }

    pub(super) fn hold_again(&mut self, id: HopId) {
        if let Some(entry) = self.slots.get_mut(slot(id)) {
            entry.refs += 1;
        }
    }

    /// Drops references. Returns the next hop that is to lose one, with the last.
    pub(super) fn release(&mut self, id: HopId, refs: u32) -> Option<HopId> {
        let entry = self
            .slots
            .get_mut(slot(id))
            .filter(|entry| entry.refs > 0)?;
        entry.refs = entry.refs.saturating_sub(refs);
        if entry.refs > 0 {
            return None;
        }
        let entry = *entry;
        let number = slot(id) as u32;
        let hash = hash(entry.hop, entry.label);
        if let Ok(found) = self.index.find_entry(hash, |&slot| slot == number) {
            found.remove();
        }
        self.free.push(number);
        if self.index.is_empty() {
            *self = Labelled::default();
        }
        Some(entry.hop)
    }

    pub(super) fn hop(&self, id: HopId) -> Option<HopId> {
        self.slots.get(slot(id)).map(|entry| entry.hop)
    }

    pub(super) fn label(&self, id: HopId) -> Option<Label> {
        self.slots.get(slot(id)).map(|entry| entry.label)
    }

    pub(super) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<Entry>()
            + self.free.capacity() * size_of::<u32>()
            + self.index.allocation_size()
    }
}

fn slot(id: HopId) -> usize {
    (id.0 & !LABELLED) as usize
}

/// The table looks at the highest bits and at the lowest; labels mostly come in order.
fn hash(hop: HopId, label: Label) -> u64 {
    fold(
        u64::from(hop.0) << 32 | u64::from(label.value()) | 1 << 20,
        SPREAD,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_of_a_next_hop_is_kept_once_and_goes_with_its_last_reference() {
        let mut labelled = Labelled::default();
        let (hop, other) = (HopId(3), HopId(4));
        let (a, new) = labelled.hold(hop, Label::new(16));
        assert!(new && a.is_labelled());
        let (b, new) = labelled.hold(hop, Label::new(16));
        assert_eq!((a, false), (b, new));
        let (c, _) = labelled.hold(other, Label::new(16));
        let (d, _) = labelled.hold(hop, Label::new(17));
        assert!(a != c && a != d && c != d);
        assert_eq!(labelled.hop(c), Some(other));
        assert_eq!(labelled.label(d), Some(Label::new(17)));
        assert_eq!(labelled.release(a, 1), None);
        assert_eq!(labelled.release(a, 1), Some(hop));
        let (e, new) = labelled.hold(other, Label::new(99));
        assert!(new);
        assert_eq!(e, a, "the number is used again");
        assert_eq!(labelled.release(HopId::NONE, 1), None);
    }
}
