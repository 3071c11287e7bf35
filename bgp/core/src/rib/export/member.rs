// SPDX-License-Identifier: Apache-2.0
//! A neighbour of an update group: what waits for it.

use std::collections::{BTreeSet, VecDeque};

use bgp_wire::{RefreshKind, RouteRefresh};
use router_types::Family;

use super::Transmit;
use crate::rib::bits::Bits;
use crate::rib::keys::DestId;
use crate::rib::targets::is_vpn;

#[derive(Debug)]
pub(super) struct Member {
    pub(super) group: u32,
    pub(super) queue: VecDeque<Transmit>,
    pub(super) queued_bytes: usize,
    /// Destinations by table whose state it has to be sent outside the common stream.
    pub(super) behind: Vec<Bits>,
    /// Routes of those that were withdrawn meanwhile, with path identifiers.
    pub(super) gone: BTreeSet<(usize, DestId, u32)>,
    /// End-of-RIB markers due once it is not behind.
    end_of_rib: BTreeSet<Family>,
    /// Families that are sent again, whose end has to be marked once it is not behind.
    refreshing: BTreeSet<Family>,
    /// Whether it has yet to say which VPN routes it wants.
    pub(super) waits: bool,
}

impl Member {
    pub(super) fn new(group: u32, end_of_rib: BTreeSet<Family>) -> Member {
        Member {
            group,
            queue: VecDeque::new(),
            queued_bytes: 0,
            behind: Vec::new(),
            gone: BTreeSet::new(),
            end_of_rib,
            refreshing: BTreeSet::new(),
            waits: false,
        }
    }

    pub(super) fn push(&mut self, segment: Transmit) {
        self.queued_bytes += segment.bytes.len();
        self.queue.push_back(segment);
    }

    pub(super) fn pop(&mut self) -> Option<Transmit> {
        let next = self.queue.pop_front()?;
        self.queued_bytes -= next.bytes.len();
        Some(next)
    }

    /// Whether there is something to send; End-of-RIB counts where it `may_end`.
    pub(super) fn has_something(&self, may_end: bool) -> bool {
        !self.queue.is_empty()
            || self.is_behind_at_all()
            || (may_end && !self.end_of_rib.is_empty())
    }

    pub(super) fn is_behind_at_all(&self) -> bool {
        self.behind.iter().any(|bits| !bits.is_empty())
    }

    pub(super) fn is_behind(&self, slot: usize, id: DestId) -> bool {
        self.behind.get(slot).is_some_and(|bits| bits.contains(id))
    }

    /// Whether it takes part in the common stream.
    pub(super) fn keeps_up(&self, limit: usize) -> bool {
        self.queued_bytes < limit && !self.is_behind_at_all()
    }

    /// Remembers destinations by table.
    pub(super) fn fall_behind(&mut self, more: Vec<Bits>) {
        for (slot, bits) in more.into_iter().enumerate() {
            if self.behind.get(slot).is_none_or(Bits::is_empty) {
                self.resize(slot);
                self.behind[slot] = bits;
            } else {
                self.behind[slot].extend(bits.iter());
            }
        }
    }

    /// Takes some of the destinations it is behind with.
    pub(super) fn take_behind(&mut self, slot: usize, most: usize) -> Vec<DestId> {
        let behind = &mut self.behind[slot];
        let part: Vec<DestId> = behind.iter().take(most).collect();
        if part.len() == behind.len() {
            *behind = Bits::default();
        } else {
            part.iter().for_each(|&id| {
                behind.remove(id);
            });
        }
        part
    }

    /// Remembers a destination.
    pub(super) fn miss(&mut self, slot: usize, id: DestId) {
        self.resize(slot);
        self.behind[slot].insert(id);
    }

    /// Marks that a family is sent again from here on (RFC 7313 §4). Not before its End-of-RIB, and
    /// not again before it is done: all of it is sent once more then, under the one mark.
    pub(super) fn begin_refresh(&mut self, family: Family) {
        if !self.end_of_rib.contains(&family) && self.refreshing.insert(family) {
            self.push_refresh(family, RefreshKind::Begin);
        }
    }

    /// Queues the End-of-RIB markers and the ends of refreshes that are due.
    pub(super) fn finish(&mut self) {
        for family in std::mem::take(&mut self.refreshing) {
            self.push_refresh(family, RefreshKind::End);
        }
        let waits = self.waits;
        let is_due = |family: &Family| !(waits && is_vpn(*family));
        if !self.end_of_rib.iter().any(is_due) {
            return;
        }
        let due: Vec<Family> = self.end_of_rib.extract_if(.., is_due).collect();
        let updates = due.len() as u32;
        let mut bytes = Vec::new();
        due.into_iter()
            .for_each(|family| bgp_wire::end_of_rib(&mut bytes, family));
        self.push(Transmit {
            bytes: bytes.into(),
            updates,
            refreshes: 0,
        });
    }

    pub(super) fn memory(&self) -> usize {
        let behind: usize = self.behind.iter().map(Bits::memory).sum();
        behind + self.queue.capacity() * size_of::<Transmit>()
    }

    fn push_refresh(&mut self, family: Family, kind: RefreshKind) {
        let mut bytes = Vec::new();
        RouteRefresh { family, kind }.encode(&mut bytes);
        self.push(Transmit {
            bytes: bytes.into(),
            updates: 0,
            refreshes: 1,
        });
    }

    fn resize(&mut self, slot: usize) {
        if self.behind.len() <= slot {
            self.behind.resize_with(slot + 1, Bits::default);
        }
    }
}
