// SPDX-License-Identifier: Apache-2.0
//! Path attributes, each distinct set kept once.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bgp_wire::{AsSetPolicy, Community, PathAttributes, PeerKind, SessionContext};
use router_types::Asn;

/// A set of attributes in the interner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct AttrId(u32);

impl AttrId {
    /// Attributes that were not kept.
    pub(super) const NONE: AttrId = AttrId(u32::MAX);
}

/// What best path selection and export look at, so that they need not decode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hot {
    /// LOCAL_PREF, 100 where it was not sent (RFC 4271 §9.1.1 leaves the default to policy).
    pub(super) local_pref: u32,
    pub(super) med: u32,
    /// The AS the path came from; 0 for a path of the own AS.
    pub(super) neighbour: Asn,
    pub(super) originator: Option<Ipv4Addr>,
    pub(super) path_len: u16,
    pub(super) cluster_len: u16,
    pub(super) origin: u8,
    /// How often the own AS is in the path.
    pub(super) own_as: u8,
    /// NO_ADVERTISE, NO_EXPORT or NO_EXPORT_SUBCONFED (RFC 1997).
    pub(super) no_advertise: bool,
    pub(super) no_export: bool,
}

#[derive(Debug)]
struct Entry {
    bytes: Arc<[u8]>,
    hot: Hot,
    refs: u32,
}

/// The interner. Ids are slots of a slab, reused when the last reference is gone.
#[derive(Debug)]
pub(super) struct Interner {
    local_asn: Asn,
    by_bytes: HashMap<Arc<[u8]>, u32>,
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
}

impl Interner {
    pub(super) fn new(local_asn: Asn) -> Interner {
        Interner {
            local_asn,
            by_bytes: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// The id of a set. It holds no reference yet: whoever stores it says so with
    /// [`Interner::hold`]; one that nobody stored is freed by [`Interner::settle`].
    pub(super) fn intern(&mut self, bytes: &Arc<[u8]>) -> AttrId {
        if let Some(&slot) = self.by_bytes.get(bytes) {
            return AttrId(slot);
        }
        let hot = hot(&decode(bytes), self.local_asn);
        let entry = Entry {
            bytes: bytes.clone(),
            hot,
            refs: 0,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(entry);
                slot
            }
            None => {
                self.slots.push(Some(entry));
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 attribute sets")
            }
        };
        self.by_bytes.insert(bytes.clone(), slot);
        AttrId(slot)
    }

    pub(super) fn hold(&mut self, id: AttrId) {
        if let Some(Some(entry)) = self.slots.get_mut(id.0 as usize) {
            entry.refs += 1;
        }
    }

    pub(super) fn release(&mut self, id: AttrId) {
        if let Some(Some(entry)) = self.slots.get_mut(id.0 as usize) {
            entry.refs = entry.refs.saturating_sub(1);
        }
        self.settle(id);
    }

    /// Frees a set without references.
    pub(super) fn settle(&mut self, id: AttrId) {
        let Some(slot) = self.slots.get_mut(id.0 as usize) else {
            return;
        };
        if slot.as_ref().is_some_and(|entry| entry.refs == 0)
            && let Some(entry) = slot.take()
        {
            self.by_bytes.remove(&entry.bytes);
            self.free.push(id.0);
        }
    }

    pub(super) fn hot(&self, id: AttrId) -> Option<&Hot> {
        self.slots
            .get(id.0 as usize)?
            .as_ref()
            .map(|entry| &entry.hot)
    }

    pub(super) fn attributes(&self, id: AttrId) -> Option<PathAttributes> {
        self.slots
            .get(id.0 as usize)?
            .as_ref()
            .map(|entry| decode(&entry.bytes))
    }

    /// Distinct sets held.
    pub(super) fn len(&self) -> usize {
        self.by_bytes.len()
    }

    /// Bytes of all sets and of the slab and index around them, an estimate.
    pub(super) fn memory(&self) -> usize {
        let bytes: usize = self
            .slots
            .iter()
            .flatten()
            .map(|entry| entry.bytes.len() + 16)
            .sum();
        bytes
            + self.slots.capacity() * size_of::<Option<Entry>>()
            + self.by_bytes.capacity() * (size_of::<(Arc<[u8]>, u32)>() + 1)
    }
}

/// Reads attributes in the canonical form sessions hand over.
pub(super) fn decode(bytes: &[u8]) -> PathAttributes {
    // Internal, so that LOCAL_PREF and the attributes of reflection are read; the session has
    // judged already what this neighbour may send.
    let mut context = SessionContext::plain(PeerKind::Internal, &[]);
    context.as_sets = AsSetPolicy::Accept;
    PathAttributes::decode(bytes, &context).attributes
}

fn hot(attributes: &PathAttributes, local_asn: Asn) -> Hot {
    let path = attributes.as_path.as_ref();
    let own_as = path.map_or(0, |path| {
        path.iter().filter(|asn| *asn == local_asn).count()
    });
    let has = |community: Community| attributes.communities.contains(&community);
    Hot {
        local_pref: attributes.local_pref.unwrap_or(100),
        // RFC 4271 §9.1.2.2 c: without MED the lowest possible value is assumed.
        med: attributes.med.unwrap_or(0),
        neighbour: path.and_then(|path| path.neighbour()).unwrap_or(Asn(0)),
        originator: attributes.originator_id,
        path_len: path.map_or(0, |path| path.hop_count()).min(u16::MAX.into()) as u16,
        cluster_len: attributes.cluster_list.len().min(u16::MAX.into()) as u16,
        origin: attributes.origin.map_or(2, |origin| origin as u8),
        own_as: own_as.min(u8::MAX.into()) as u8,
        no_advertise: has(Community(0xffff_ff02)),
        no_export: has(Community(0xffff_ff01)) || has(Community(0xffff_ff03)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(med: u32) -> Arc<[u8]> {
        let mut out = Vec::new();
        PathAttributes {
            med: Some(med),
            ..PathAttributes::default()
        }
        .encode(true, &mut out);
        out.into()
    }

    #[test]
    fn equal_attributes_are_kept_once_and_freed_with_the_last_reference() {
        let mut interner = Interner::new(Asn(1));
        let a = interner.intern(&bytes(1));
        interner.hold(a);
        let b = interner.intern(&bytes(1));
        interner.hold(b);
        assert_eq!(a, b);
        assert_eq!(interner.len(), 1);
        interner.release(a);
        assert_eq!(interner.hot(a).unwrap().med, 1);
        interner.release(a);
        assert_eq!(interner.len(), 0);
        let c = interner.intern(&bytes(2));
        assert_eq!(c, a, "the slot is used again");
    }
}
