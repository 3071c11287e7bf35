// SPDX-License-Identifier: Apache-2.0
//! Path attributes, each distinct set kept once.

use std::hash::{BuildHasher, RandomState};
use std::net::Ipv4Addr;

use bgp_wire::{
    AsSetPolicy, AttributeCode, PathAttributes, PeerKind, RawAttributes, SessionContext,
};
use hashbrown::HashTable;
use router_types::Asn;

use super::keys::{SPREAD, fold};

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
    /// GRACEFUL_SHUTDOWN (RFC 8326).
    pub(super) graceful_shutdown: bool,
    /// NO_PEER (RFC 3765).
    pub(super) no_peer: bool,
    /// BLACKHOLE (RFC 7999).
    pub(super) blackhole: bool,
    /// ONLY_TO_CUSTOMER is there (RFC 9234 §5).
    pub(super) only_to_customer: bool,
    /// LLGR_STALE (RFC 9494 §4.6).
    pub(super) long_lived_stale: bool,
    /// NO_LLGR (RFC 9494 §4.6).
    pub(super) no_long_lived: bool,
    /// Equal for equal AS paths.
    pub(super) path_print: u32,
    /// Octets a second of the link the route is for, in units of 2^16, at least 1; 0 where it does
    /// not say (draft-ietf-idr-link-bandwidth).
    pub(super) bandwidth: u32,
}

#[derive(Debug)]
struct Entry {
    bytes: Box<[u8]>,
    hot: Hot,
    hash: u32,
    refs: u32,
}

impl Entry {
    /// Bytes it takes outside the slab, an estimate.
    fn weight(&self) -> usize {
        self.bytes.len() + 16
    }
}

/// The interner. Ids are slots of a slab, reused when the last reference is gone.
#[derive(Debug)]
pub(super) struct Interner {
    local_asn: Asn,
    index: HashTable<u32>,
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// Bytes of all sets, with what the allocator needs for each.
    held: usize,
    seed: u64,
}

impl Interner {
    pub(super) fn new(local_asn: Asn) -> Interner {
        Interner {
            local_asn,
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            held: 0,
            // A neighbour must not know which attributes collide. Nothing that can be observed
            // depends on it.
            seed: RandomState::new().hash_one(0u8) | 1,
        }
    }

    /// The id of a set. It holds no reference yet: whoever stores it says so with
    /// [`Interner::hold`]; one that nobody stored is freed by [`Interner::settle`].
    pub(super) fn intern(&mut self, bytes: &[u8]) -> AttrId {
        let hash = hash(bytes, self.seed);
        let slots = &self.slots;
        let stored = |slot: u32| slots.get(slot as usize).and_then(Option::as_ref);
        let same = |&slot: &u32| {
            stored(slot).is_some_and(|entry| entry.hash == hash && *entry.bytes == *bytes)
        };
        if let Some(&slot) = self.index.find(spread(hash), same) {
            return AttrId(slot);
        }
        let entry = Entry {
            bytes: bytes.into(),
            hot: Hot::read(bytes, self.local_asn),
            hash,
            refs: 0,
        };
        self.held += entry.weight();
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
        let slots = &self.slots;
        let rehash = |&slot: &u32| {
            let entry = slots.get(slot as usize).and_then(Option::as_ref);
            spread(entry.map_or(0, |entry| entry.hash))
        };
        self.index.insert_unique(spread(hash), slot, rehash);
        AttrId(slot)
    }

    pub(super) fn hold(&mut self, id: AttrId, refs: u32) {
        if let Some(Some(entry)) = self.slots.get_mut(id.0 as usize) {
            entry.refs += refs;
        }
    }

    pub(super) fn release(&mut self, id: AttrId) {
        self.release_many(id, 1);
    }

    pub(super) fn release_many(&mut self, id: AttrId, refs: u32) {
        if let Some(Some(entry)) = self.slots.get_mut(id.0 as usize) {
            entry.refs = entry.refs.saturating_sub(refs);
            if entry.refs == 0 {
                self.settle(id);
            }
        }
    }

    /// Frees a set without references.
    pub(super) fn settle(&mut self, id: AttrId) {
        let Some(slot) = self.slots.get_mut(id.0 as usize) else {
            return;
        };
        if slot.as_ref().is_some_and(|entry| entry.refs == 0)
            && let Some(entry) = slot.take()
        {
            self.held -= entry.weight();
            if let Ok(found) = self
                .index
                .find_entry(spread(entry.hash), |&slot| slot == id.0)
            {
                found.remove();
            }
            self.free.push(id.0);
            if self.index.is_empty() {
                self.index = HashTable::new();
                self.slots = Vec::new();
                self.free = Vec::new();
            }
        }
    }

    #[inline]
    pub(super) fn hot(&self, id: AttrId) -> Option<&Hot> {
        self.slots
            .get(id.0 as usize)?
            .as_ref()
            .map(|entry| &entry.hot)
    }

    /// A set in canonical form.
    pub(super) fn bytes(&self, id: AttrId) -> Option<&[u8]> {
        self.slots
            .get(id.0 as usize)?
            .as_ref()
            .map(|entry| &*entry.bytes)
    }

    pub(super) fn attributes(&self, id: AttrId) -> Option<PathAttributes> {
        self.bytes(id).map(decode)
    }

    /// Distinct sets held.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes of all sets and of the slab and index around them, an estimate.
    pub(super) fn memory(&self) -> usize {
        self.held
            + self.slots.capacity() * size_of::<Option<Entry>>()
            + self.free.capacity() * 4
            + self.index.allocation_size()
    }
}

/// A number by which equal bytes are known again.
pub(super) fn fingerprint(bytes: &[u8]) -> u64 {
    mix(bytes, SPREAD)
}

fn hash(bytes: &[u8], seed: u64) -> u32 {
    (mix(bytes, seed) >> 32) as u32
}

/// Sixteen bytes at a time.
fn mix(bytes: &[u8], seed: u64) -> u64 {
    let word = |bytes: &[u8]| {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(wide)
    };
    let mut state = seed ^ bytes.len() as u64;
    let (pairs, rest) = bytes.as_chunks::<16>();
    for pair in pairs {
        let (low, high) = pair.split_at(8);
        state = fold(state ^ word(low), SPREAD ^ word(high));
    }
    let (low, high) = rest.split_at(rest.len().min(8));
    fold(state ^ word(low), SPREAD ^ word(high))
}

/// The table looks at the highest bits and at the lowest.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(SPREAD)
}

/// Reads attributes in the canonical form sessions hand over.
pub(super) fn decode(bytes: &[u8]) -> PathAttributes {
    // Internal, so that LOCAL_PREF and the attributes of reflection are read; the session has
    // judged already what this neighbour may send.
    let mut context = SessionContext::plain(PeerKind::Internal, &[]);
    context.as_sets = AsSetPolicy::Accept;
    PathAttributes::decode(bytes, &context).attributes
}

impl Hot {
    /// Reads attributes in canonical form without decoding them. The session has checked them.
    pub(super) fn read(bytes: &[u8], local_asn: Asn) -> Hot {
        let mut hot = Hot {
            // RFC 4271 §9.1.2.2 c: without MED the lowest possible value is assumed.
            med: 0,
            local_pref: 100,
            neighbour: Asn(0),
            originator: None,
            path_len: 0,
            cluster_len: 0,
            origin: 2,
            own_as: 0,
            no_advertise: false,
            no_export: false,
            graceful_shutdown: false,
            no_peer: false,
            blackhole: false,
            only_to_customer: false,
            long_lived_stale: false,
            no_long_lived: false,
            path_print: 0,
            bandwidth: 0,
        };
        for attribute in RawAttributes::new(bytes).flatten() {
            let value = attribute.value;
            let number = || value.first_chunk().map(|four| u32::from_be_bytes(*four));
            match attribute.code {
                AttributeCode::ORIGIN => hot.origin = value.first().copied().unwrap_or(2),
                AttributeCode::AS_PATH => {
                    hot.path_print = fingerprint(value) as u32;
                    hot.read_path(value, local_asn);
                }
                AttributeCode::MULTI_EXIT_DISC => hot.med = number().unwrap_or(0),
                AttributeCode::LOCAL_PREF => hot.local_pref = number().unwrap_or(100),
                AttributeCode::COMMUNITIES => hot.read_communities(value),
                AttributeCode::EXTENDED_COMMUNITIES => hot.read_extended(value),
                AttributeCode::ORIGINATOR_ID => {
                    hot.originator = number().map(Ipv4Addr::from_bits);
                }
                AttributeCode::ONLY_TO_CUSTOMER => hot.only_to_customer = true,
                AttributeCode::CLUSTER_LIST => {
                    hot.cluster_len = (value.len() / 4).min(u16::MAX.into()) as u16;
                }
                _ => {}
            }
        }
        hot
    }

    /// Segments of four-octet AS numbers (RFC 4271 §4.3 b, §9.1.2.2 a; RFC 5065 §5.3).
    fn read_path(&mut self, mut rest: &[u8], local_asn: Asn) {
        const SET: u8 = 1;
        const SEQUENCE: u8 = 2;
        let mut first = true;
        let mut own_as = 0usize;
        let mut hops = 0usize;
        while let Some((&[kind, count], tail)) = rest.split_first_chunk::<2>() {
            let len = usize::from(count) * 4;
            let Some((members, tail)) = tail.split_at_checked(len) else {
                break;
            };
            rest = tail;
            let (members, _) = members.as_chunks::<4>();
            match kind {
                SEQUENCE => hops += members.len(),
                SET => hops += 1,
                _ => {}
            }
            // The first AS of the path, if a sequence of this AS or beyond begins it.
            if first && kind == SEQUENCE {
                self.neighbour = Asn(members.first().map_or(0, |asn| u32::from_be_bytes(*asn)));
            }
            first &= kind != SEQUENCE && kind != SET;
            let own = |asn: &&[u8; 4]| u32::from_be_bytes(**asn) == local_asn.0;
            own_as += members.iter().filter(own).count();
        }
        self.path_len = hops.min(u16::MAX.into()) as u16;
        self.own_as = own_as.min(u8::MAX.into()) as u8;
    }

    fn read_extended(&mut self, value: &[u8]) {
        for community in value.as_chunks::<8>().0 {
            // Link bandwidth, transitive or not: an AS of two octets and a number of IEEE 754.
            if let [0x00 | 0x40, 0x04, _, _, number @ ..] = *community {
                let octets = f32::from_be_bytes(number);
                if octets.is_finite() && octets > 0.0 {
                    self.bandwidth = (octets / 65_536.0).clamp(1.0, 4e9) as u32;
                }
            }
        }
    }

    fn read_communities(&mut self, value: &[u8]) {
        for community in value.as_chunks::<4>().0 {
            match u32::from_be_bytes(*community) {
                0xffff_ff01 | 0xffff_ff03 => self.no_export = true,
                0xffff_ff02 => self.no_advertise = true,
                0xffff_0000 => self.graceful_shutdown = true,
                0xffff_0006 => self.long_lived_stale = true,
                0xffff_0007 => self.no_long_lived = true,
                0xffff_029a => self.blackhole = true,
                0xffff_ff04 => self.no_peer = true,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(med: u32) -> Vec<u8> {
        let mut out = Vec::new();
        PathAttributes {
            med: Some(med),
            ..PathAttributes::default()
        }
        .encode(true, &mut out);
        out
    }

    #[test]
    fn equal_attributes_are_kept_once_and_freed_with_the_last_reference() {
        let mut interner = Interner::new(Asn(1));
        let a = interner.intern(&bytes(1));
        interner.hold(a, 1);
        let b = interner.intern(&bytes(1));
        interner.hold(b, 1);
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
