// SPDX-License-Identifier: Apache-2.0
//! Destinations by number: a prefix is looked up once, and all else goes by its number.
//!
//! Numbers are dense and reused, so that whatever is kept for each destination is a vector or a
//! bit set. The index holds numbers only; the prefixes lie in a vector of their own, in which a
//! run of numbers is a run of memory.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, Ipv6Addr};

use bgp_wire::{Destination, Label, Nlri, RouteTargetPrefix};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use router_types::Family;

use self::index::Index;
use self::vpn::{VpnV4, VpnV6};

mod index;
mod vpn;

/// A destination's number in the table of its family.
pub(super) type DestId = u32;

/// What a family's destinations are told apart by.
pub(super) trait Key: Copy + Eq + Ord {
    const ZERO: Self;
    fn hash(self, seed: u64) -> u64;
    /// Takes a key off the front of a list that was checked, `None` at its end.
    fn take(bytes: &mut &[u8]) -> Option<Self>;
    fn put(self, out: &mut Vec<u8>);
    fn prefix(self) -> IpNet;
    /// All that tells it apart.
    fn destination(self) -> Destination {
        Destination::Ip(self.prefix())
    }
}

/// An IPv4 prefix, host bits zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct V4 {
    address: u32,
    bits: u8,
}

/// An IPv6 prefix, host bits zero. Octets, so that it is seventeen bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct V6 {
    address: [u8; 16],
    bits: u8,
}

/// The prefixes of a family and their numbers.
#[derive(Debug)]
pub(super) enum Keys {
    V4(KeyTable<V4>),
    V6(KeyTable<V6>),
    VpnV4(KeyTable<VpnV4>),
    VpnV6(KeyTable<VpnV6>),
    RouteTarget(KeyTable<RouteTargetPrefix>),
}

#[derive(Debug)]
pub(super) struct KeyTable<K> {
    index: Index,
    keys: Vec<K>,
    free: Vec<DestId>,
    seed: u64,
}

/// Calls a method of whichever table it is.
macro_rules! each {
    ($keys:expr, $table:ident => $call:expr) => {
        match $keys {
            Keys::V4($table) => $call,
            Keys::V6($table) => $call,
            Keys::VpnV4($table) => $call,
            Keys::VpnV6($table) => $call,
            Keys::RouteTarget($table) => $call,
        }
    };
}

impl Keys {
    pub(super) fn new(family: Family) -> Keys {
        match family {
            Family::IPV6_UNICAST => Keys::V6(KeyTable::new()),
            Family::VPNV4 => Keys::VpnV4(KeyTable::new()),
            Family::VPNV6 => Keys::VpnV6(KeyTable::new()),
            Family::ROUTE_TARGET => Keys::RouteTarget(KeyTable::new()),
            _ => Keys::V4(KeyTable::new()),
        }
    }

    /// One more than the highest number in use.
    pub(super) fn end(&self) -> usize {
        each!(self, table => table.keys.len())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        each!(self, table => table.index.len())
    }

    /// The numbers of a received list with the path identifiers, new ones where needed.
    pub(super) fn resolve(&mut self, nlri: Nlri<'_>, out: &mut Vec<(DestId, u32)>) {
        out.clear();
        each!(self, table => table.resolve(nlri, out));
    }

    /// The numbers of those of a received list that are known.
    pub(super) fn find_all(&self, nlri: Nlri<'_>, out: &mut Vec<(DestId, u32)>) {
        out.clear();
        each!(self, table => table.find_all(nlri, out));
    }

    /// Each destination of a list as it stands there, with its number where it has one, and its
    /// path identifier.
    pub(super) fn look_up<'n>(
        &self,
        nlri: Nlri<'n>,
        found: impl FnMut(&'n [u8], Option<DestId>, u32),
    ) {
        each!(self, table => table.look_up(nlri, found));
    }

    /// The number of a plain prefix; `None` in a table of another kind.
    pub(super) fn find(&self, prefix: &IpNet) -> Option<DestId> {
        self.find_destination(&Destination::Ip(*prefix))
    }

    pub(super) fn find_destination(&self, destination: &Destination) -> Option<DestId> {
        match (self, destination) {
            (Keys::V4(table), Destination::Ip(IpNet::V4(net))) => table.find((*net).into()),
            (Keys::V6(table), Destination::Ip(IpNet::V6(net))) => table.find((*net).into()),
            (Keys::VpnV4(table), Destination::Vpn(vpn)) => table.find(vpn.try_into().ok()?),
            (Keys::VpnV6(table), Destination::Vpn(vpn)) => table.find(vpn.try_into().ok()?),
            (Keys::RouteTarget(table), Destination::RouteTarget(target)) => table.find(*target),
            (
                Keys::V4(_) | Keys::V6(_) | Keys::VpnV4(_) | Keys::VpnV6(_) | Keys::RouteTarget(_),
                _,
            ) => None,
        }
    }

    pub(super) fn find_or_add(&mut self, destination: impl Into<Destination>) -> Option<DestId> {
        match (self, destination.into()) {
            (Keys::V4(table), Destination::Ip(IpNet::V4(net))) => {
                Some(table.find_or_add(net.into()))
            }
            (Keys::V6(table), Destination::Ip(IpNet::V6(net))) => {
                Some(table.find_or_add(net.into()))
            }
            (Keys::VpnV4(table), Destination::Vpn(vpn)) => {
                Some(table.find_or_add((&vpn).try_into().ok()?))
            }
            (Keys::VpnV6(table), Destination::Vpn(vpn)) => {
                Some(table.find_or_add((&vpn).try_into().ok()?))
            }
            (Keys::RouteTarget(table), Destination::RouteTarget(target)) => {
                Some(table.find_or_add(target))
            }
            (
                Keys::V4(_) | Keys::V6(_) | Keys::VpnV4(_) | Keys::VpnV6(_) | Keys::RouteTarget(_),
                _,
            ) => None,
        }
    }

    /// The prefix of a destination, without what else tells it apart: what policies look at.
    pub(super) fn prefix(&self, id: DestId) -> IpNet {
        each!(self, table => table.keys[id as usize].prefix())
    }

    pub(super) fn destination(&self, id: DestId) -> Destination {
        each!(self, table => table.keys[id as usize].destination())
    }

    /// Writes prefixes as they stand in a message, with path identifiers or without, as long as
    /// they fit, and returns how many did.
    pub(super) fn put(
        &self,
        ids: &[(DestId, u32)],
        add_path: bool,
        end: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        each!(self, table => table.put(ids, add_path, end, out))
    }

    /// As [`Keys::put`], for prefixes of VPNs, each with its label.
    pub(super) fn put_labelled(
        &self,
        ids: &[(DestId, u32)],
        labels: &[Label],
        add_path: bool,
        end: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        let mut at = out.len();
        let done = self.put(ids, add_path, end, out);
        for label in labels.iter().take(done) {
            at += if add_path { 4 } else { 0 };
            let bits = usize::from(out[at]);
            out[at + 1..at + 4].copy_from_slice(&label.octets());
            at += 1 + bits.div_ceil(8);
        }
        done
    }

    /// Forgets a destination. Its number comes back for another one.
    pub(super) fn remove(&mut self, id: DestId) {
        each!(self, table => table.remove(id));
    }

    pub(super) fn memory(&self) -> usize {
        each!(self, table => table.memory())
    }
}

impl<K: Key> KeyTable<K> {
    fn new() -> Self {
        KeyTable {
            index: Index::default(),
            keys: Vec::new(),
            free: Vec::new(),
            // A neighbour must not know which prefixes collide. Nothing that can be observed
            // depends on it.
            seed: RandomState::new().hash_one(0u8) | 1,
        }
    }

    fn find(&self, key: K) -> Option<DestId> {
        self.find_tagged(key, self.tag(key))
    }

    #[inline]
    fn find_tagged(&self, key: K, tag: u32) -> Option<DestId> {
        self.index.find(tag, |id| self.keys[id as usize] == key)
    }

    fn find_or_add(&mut self, key: K) -> DestId {
        self.find_or_add_tagged(key, self.tag(key))
    }

    #[inline]
    fn find_or_add_tagged(&mut self, key: K, tag: u32) -> DestId {
        if let Some(id) = self.find_tagged(key, tag) {
            return id;
        }
        let id = match self.free.pop() {
            Some(id) => {
                self.keys[id as usize] = key;
                id
            }
            None => {
                self.keys.push(key);
                // The highest number stands for none.
                let id = DestId::try_from(self.keys.len() - 1).ok();
                id.filter(|id| *id < DestId::MAX)
                    .expect("fewer than 2^32 destinations")
            }
        };
        self.index.insert(tag, id);
        id
    }

    fn resolve(&mut self, nlri: Nlri<'_>, out: &mut Vec<(DestId, u32)>) {
        let mut rest = nlri.as_bytes();
        let mut ahead = Ahead::new();
        while ahead.fill(&mut rest, nlri.has_path_ids(), self) {
            for &(path_id, key, tag) in ahead.entries() {
                out.push((self.find_or_add_tagged(key, tag), path_id));
            }
        }
    }

    fn find_all(&self, nlri: Nlri<'_>, out: &mut Vec<(DestId, u32)>) {
        let mut rest = nlri.as_bytes();
        let mut ahead = Ahead::new();
        while ahead.fill(&mut rest, nlri.has_path_ids(), self) {
            for &(path_id, key, tag) in ahead.entries() {
                out.extend(self.find_tagged(key, tag).map(|id| (id, path_id)));
            }
        }
    }

    fn look_up<'n>(&self, nlri: Nlri<'n>, mut found: impl FnMut(&'n [u8], Option<DestId>, u32)) {
        let mut rest = nlri.as_bytes();
        loop {
            let from = rest;
            let Some((path_id, key)) = take_entry::<K>(&mut rest, nlri.has_path_ids()) else {
                return;
            };
            let (entry, _) = from.split_at(from.len() - rest.len());
            found(entry, self.find(key), path_id);
        }
    }

    #[inline]
    fn tag(&self, key: K) -> u32 {
        (key.hash(self.seed) >> 32) as u32
    }

    fn put(&self, ids: &[(DestId, u32)], add_path: bool, end: usize, out: &mut Vec<u8>) -> usize {
        for (done, &(id, path_id)) in ids.iter().enumerate() {
            let before = out.len();
            if add_path {
                out.extend_from_slice(&path_id.to_be_bytes());
            }
            self.keys[id as usize].put(out);
            if out.len() > end {
                out.truncate(before);
                return done;
            }
        }
        ids.len()
    }

    fn remove(&mut self, id: DestId) {
        if self.index.remove(self.tag(self.keys[id as usize]), id) {
            self.free.push(id);
        }
    }

    fn memory(&self) -> usize {
        self.index.memory()
            + self.keys.capacity() * size_of::<K>()
            + self.free.capacity() * size_of::<DestId>()
    }
}

/// Prefixes read ahead of their being looked up, with their places in the index touched.
struct Ahead<K> {
    entries: [(u32, K, u32); AHEAD],
    len: usize,
}

/// About as many cache misses as a core has under way at a time.
const AHEAD: usize = 16;

impl<K: Key> Ahead<K> {
    fn new() -> Self {
        Ahead {
            entries: [(0, K::ZERO, 0); AHEAD],
            len: 0,
        }
    }

    /// Reads the next ones. `false` at the end.
    #[inline]
    fn fill(&mut self, rest: &mut &[u8], add_path: bool, table: &KeyTable<K>) -> bool {
        self.len = 0;
        let mut touched = 0;
        while self.len < AHEAD
            && let Some((path_id, key)) = take_entry::<K>(rest, add_path)
        {
            let tag = table.tag(key);
            touched |= table.index.touch(tag);
            self.entries[self.len] = (path_id, key, tag);
            self.len += 1;
        }
        // Used, or the compiler would not read.
        std::hint::black_box(touched);
        self.len > 0
    }

    fn entries(&self) -> &[(u32, K, u32)] {
        &self.entries[..self.len]
    }
}

#[inline]
fn take_entry<K: Key>(rest: &mut &[u8], add_path: bool) -> Option<(u32, K)> {
    let path_id = if add_path {
        let (id, tail) = rest.split_first_chunk::<4>()?;
        *rest = tail;
        u32::from_be_bytes(*id)
    } else {
        0
    };
    Some((path_id, K::take(rest)?))
}

impl Key for V4 {
    const ZERO: V4 = V4 {
        address: 0,
        bits: 0,
    };

    #[inline]
    fn hash(self, seed: u64) -> u64 {
        // Twice: prefixes come in regular steps, which one multiplication would keep.
        let once = fold(
            (u64::from(self.address) << 8 | u64::from(self.bits)) ^ seed,
            SPREAD,
        );
        fold(once, SPREAD)
    }

    #[inline]
    fn take(bytes: &mut &[u8]) -> Option<V4> {
        let (&bits, rest) = bytes.split_first()?;
        let octets = usize::from(bits).div_ceil(8);
        let (address, tail) = rest.split_at_checked(octets)?;
        let mut wide = [0; 4];
        wide.get_mut(..octets)?.copy_from_slice(address);
        *bytes = tail;
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        Some(V4 {
            address: u32::from_be_bytes(wide) & mask,
            bits,
        })
    }

    #[inline]
    fn put(self, out: &mut Vec<u8>) {
        let octets = usize::from(self.bits).div_ceil(8);
        out.push(self.bits);
        out.extend_from_slice(&self.address.to_be_bytes()[..octets.min(4)]);
    }

    fn prefix(self) -> IpNet {
        IpNet::V4(self.into())
    }
}

impl From<Ipv4Net> for V4 {
    fn from(net: Ipv4Net) -> V4 {
        V4 {
            address: net.network().to_bits(),
            bits: net.prefix_len(),
        }
    }
}

impl Key for V6 {
    const ZERO: V6 = V6 {
        address: [0; 16],
        bits: 0,
    };

    #[inline]
    fn hash(self, seed: u64) -> u64 {
        let wide = u128::from_be_bytes(self.address);
        let (high, low) = ((wide >> 64) as u64, wide as u64);
        fold(
            fold(high ^ seed, SPREAD) ^ low,
            SPREAD ^ u64::from(self.bits),
        )
    }

    #[inline]
    fn take(bytes: &mut &[u8]) -> Option<V6> {
        let (&bits, rest) = bytes.split_first()?;
        let (octets, tail) = rest.split_at_checked(usize::from(bits).div_ceil(8))?;
        *bytes = tail;
        V6::cut(bits, octets)
    }

    #[inline]
    fn put(self, out: &mut Vec<u8>) {
        let octets = usize::from(self.bits).div_ceil(8);
        out.push(self.bits);
        out.extend_from_slice(&self.address[..octets.min(16)]);
    }

    fn prefix(self) -> IpNet {
        let net = Ipv6Net::new(Ipv6Addr::from(self.address), self.bits);
        IpNet::V6(net.expect("made from a prefix"))
    }
}

impl V6 {
    /// Out of the significant octets, host bits cleared.
    #[inline]
    fn cut(bits: u8, octets: &[u8]) -> Option<V6> {
        let mut wide = [0; 16];
        wide.get_mut(..octets.len())?.copy_from_slice(octets);
        let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
        let address = (u128::from_be_bytes(wide) & mask).to_be_bytes();
        Some(V6 { address, bits })
    }
}

impl From<V4> for Ipv4Net {
    fn from(key: V4) -> Ipv4Net {
        let net = Ipv4Net::new(Ipv4Addr::from_bits(key.address), key.bits);
        net.expect("made from a prefix")
    }
}

impl From<Ipv6Net> for V6 {
    fn from(net: Ipv6Net) -> V6 {
        V6 {
            address: net.network().octets(),
            bits: net.prefix_len(),
        }
    }
}

/// An odd number with about as many ones as zeros; the fractional part of the golden ratio.
pub(super) const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Multiplies to twice the width and folds the halves, so that every bit of the result depends on
/// every bit of the arguments.
#[inline]
pub(super) fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ ((wide >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_prefix_until_it_is_removed_and_then_another_one() {
        let mut keys = Keys::new(Family::IPV4_UNICAST);
        let bytes = [8, 10, 24, 192, 0, 2, 9, 10, 255];
        let nlri = Nlri::parse(Family::IPV4_UNICAST, false, &bytes).unwrap();
        let mut ids = Vec::new();
        keys.resolve(nlri, &mut ids);
        let prefixes: Vec<String> = ids
            .iter()
            .map(|(id, _)| keys.prefix(*id).to_string())
            .collect();
        assert_eq!(prefixes, ["10.0.0.0/8", "192.0.2.0/24", "10.128.0.0/9"]);
        let again = ids.clone();
        keys.resolve(nlri, &mut ids);
        assert_eq!(ids, again);
        keys.remove(again[1].0);
        assert_eq!(keys.find(&"192.0.2.0/24".parse().unwrap()), None);
        assert_eq!(keys.len(), 2);
        let other = keys.find_or_add("198.51.100.0/24".parse::<IpNet>().unwrap());
        assert_eq!(other, Some(again[1].0));
        let mut out = Vec::new();
        assert_eq!(
            keys.put(&[(again[0].0, 0), (again[2].0, 0)], false, 4, &mut out),
            1
        );
        assert_eq!(out, [8, 10]);
    }

    #[test]
    fn ipv6_prefixes_of_every_length_come_back() {
        let mut keys = Keys::new(Family::IPV6_UNICAST);
        for bits in 0..=128 {
            let text = format!("2001:db8:1234:5678:9abc:def0:1234:5678/{bits}");
            let prefix: IpNet = text.parse::<IpNet>().unwrap().trunc();
            let id = keys.find_or_add(prefix).unwrap();
            assert_eq!(keys.prefix(id), prefix);
            let mut out = Vec::new();
            keys.put(&[(id, 0)], false, usize::MAX, &mut out);
            let nlri = Nlri::parse(Family::IPV6_UNICAST, false, &out).unwrap();
            assert_eq!(nlri.iter().next().unwrap().prefix, prefix);
        }
    }
}
