// SPDX-License-Identifier: Apache-2.0
//! Next hops, each kept once, and whether there is a way to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp_wire::Label;
use router_types::{LinkIndex, NextHop};
use serde::{Deserialize, Serialize};

use self::labelled::Labelled;
use crate::routes::NextHopAddress;

mod labelled;

/// What is known about the way to a next hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NextHopState {
    /// The next hop.
    pub address: IpAddr,
    /// The metric of the way to it; `None` when there is none.
    pub metric: Option<u32>,
}

/// A next hop in the table, for a route of a VPN with the label it wants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct HopId(u32);

impl HopId {
    /// The next hop of a route that was not kept.
    pub(super) const NONE: HopId = HopId(u32::MAX);
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    address: NextHopAddress,
    link: Option<u32>,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    refs: u32,
    metric: Option<u32>,
}

/// The next hops of all routes. One that nothing was said about counts as reachable with metric 0:
/// a node's neighbours are on its links, and the kernel's own resolution comes after.
#[derive(Debug, Default)]
pub(super) struct NextHops {
    ids: BTreeMap<Key, u32>,
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// Next hops with labels. Each refers to one without.
    labelled: Labelled,
    known: BTreeMap<IpAddr, Option<u32>>,
    /// Counts next hops that come and go.
    version: u64,
}

impl NextHops {
    /// The id of a next hop, with so many more references. The link counts for link-local ones
    /// only.
    pub(super) fn hold(
        &mut self,
        address: NextHopAddress,
        link: Option<LinkIndex>,
        refs: u32,
    ) -> HopId {
        let local = matches!(address.address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let key = Key {
            address,
            link: link.filter(|_| local).map(|link| link.0),
        };
        if let Some(&slot) = self.ids.get(&key) {
            if let Some(entry) = &mut self.slots[slot as usize] {
                entry.refs += refs;
            }
            return HopId(slot);
        }
        let metric = self
            .known
            .get(&tracked(key.address.address))
            .copied()
            .unwrap_or(Some(0));
        let entry = Some(Entry { key, refs, metric });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = entry;
                slot
            }
            None => {
                self.slots.push(entry);
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 next hops")
            }
        };
        self.ids.insert(key, slot);
        self.version += 1;
        HopId(slot)
    }

    /// The id of a next hop with a label, with one more reference.
    pub(super) fn hold_labelled(&mut self, id: HopId, label: Label) -> HopId {
        let (labelled, is_new) = self.labelled.hold(id, label);
        if is_new {
            self.hold_again(id);
        }
        labelled
    }

    /// One more reference to a next hop.
    pub(super) fn hold_again(&mut self, id: HopId) {
        if id.is_labelled() {
            self.labelled.hold_again(id);
        } else if let Some(Some(entry)) = self.slots.get_mut(id.0 as usize) {
            entry.refs += 1;
        }
    }

    pub(super) fn release(&mut self, id: HopId) {
        self.release_many(id, 1);
    }

    pub(super) fn release_many(&mut self, id: HopId, refs: u32) {
        if id.is_labelled() {
            if let Some(hop) = self.labelled.release(id, refs) {
                self.release_many(hop, 1);
            }
            return;
        }
        let Some(slot) = self.slots.get_mut(id.0 as usize) else {
            return;
        };
        let Some(entry) = slot else { return };
        entry.refs = entry.refs.saturating_sub(refs);
        if entry.refs == 0 {
            self.ids.remove(&entry.key);
            self.version += 1;
            *slot = None;
            self.free.push(id.0);
        }
    }

    /// The next hop without its label.
    #[inline]
    pub(super) fn plain(&self, id: HopId) -> HopId {
        if id.is_labelled() {
            self.labelled.hop(id).unwrap_or(id)
        } else {
            id
        }
    }

    /// The label, where there is one.
    pub(super) fn label(&self, id: HopId) -> Option<Label> {
        self.labelled.label(id).filter(|_| id.is_labelled())
    }

    pub(super) fn metric(&self, id: HopId) -> Option<u32> {
        self.entry(id)?.metric
    }

    pub(super) fn address(&self, id: HopId) -> Option<NextHopAddress> {
        self.entry(id).map(|entry| entry.key.address)
    }

    /// The next hop as the kernel's side wants it.
    pub(super) fn forwarding(&self, id: HopId) -> NextHop {
        let entry = self.entry(id);
        NextHop {
            via: entry.map(|entry| entry.key.address.address),
            link: entry.and_then(|entry| entry.key.link).map(LinkIndex),
            weight: 1,
        }
    }

    /// The next hops for which it is news.
    pub(super) fn differing(&self, states: &[NextHopState]) -> BTreeSet<HopId> {
        let mut differing = BTreeSet::new();
        for state in states {
            for (slot, entry) in self.slots.iter().enumerate() {
                if let Some(entry) = entry
                    && tracked(entry.key.address.address) == state.address
                    && entry.metric != state.metric
                {
                    differing.insert(HopId(slot as u32));
                }
            }
        }
        differing
    }

    /// Takes what is known.
    pub(super) fn update(&mut self, states: &[NextHopState]) {
        for state in states {
            self.known.insert(state.address, state.metric);
            for entry in self.slots.iter_mut().flatten() {
                if tracked(entry.key.address.address) == state.address {
                    entry.metric = state.metric;
                }
            }
        }
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.ids.keys().map(|key| tracked(key.address.address))
    }

    /// Differs when other next hops are there.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Bytes labels take.
    pub(super) fn memory(&self) -> usize {
        self.labelled.memory()
    }

    fn entry(&self, id: HopId) -> Option<&Entry> {
        let id = self.plain(id);
        self.slots.get(id.0 as usize)?.as_ref()
    }
}

/// The address there has to be a way to: routes of IPv6 VPNs over IPv4 have an IPv4 address in the
/// form of an IPv6 one (RFC 4659 §3.2.1.2).
fn tracked(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
