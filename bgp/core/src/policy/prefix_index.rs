// SPDX-License-Identifier: Apache-2.0
//! From a prefix to the statements whose prefix ranges it is in, at a cost that does not grow with
//! the number of ranges.
//!
//! Ranges are kept by the prefix they are under, in one hash table for each length that occurs.
//! Every entry already includes what the shorter prefixes around it say, so the longest entry
//! around an address tells all. It is found by binary search over the lengths: an entry leaves a
//! marker at each length where the search for it turns to longer ones, and a marker carries the
//! answer of the entries around it, so that the search never has to come back. (Waldvogel,
//! Varghese, Turner and Plattner, "Scalable High Speed IP Routing Lookups", SIGCOMM 1997.)
//!
//! So the work is at most as many probes as the number of distinct lengths has binary digits: six
//! for IPv4, eight for IPv6, whether there are 10 ranges or 10 000.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use ipnet::IpNet;

use super::statements::StatementSet;
use crate::config::PrefixRange;

/// Ranges of all statements of a policy.
#[derive(Debug, Default)]
pub(super) struct PrefixIndex {
    v4: Side,
    v6: Side,
    tables: Vec<LengthTable>,
}

/// One address family.
#[derive(Debug, Default)]
struct Side {
    /// The distinct lengths of the prefixes ranges are under, ascending.
    lengths: Vec<u8>,
    /// One for each of them: the leading bits to the number of a table.
    entries: Vec<HashMap<u128, u32, BuildHasherDefault<BitsHasher>>>,
}

/// Which statements match a prefix of a length, for one place in the address space: steps, each
/// from a length on, ascending.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
struct LengthTable(Vec<(u8, StatementSet)>);

impl PrefixIndex {
    pub(super) fn new<'a>(ranges: impl IntoIterator<Item = (&'a PrefixRange, usize)>) -> Self {
        let mut by_prefix: BTreeMap<IpNet, Vec<(PrefixRange, usize)>> = BTreeMap::new();
        for (range, statement) in ranges {
            let list = by_prefix.entry(range.prefix()).or_default();
            list.push((*range, statement));
        }
        for list in by_prefix.values_mut() {
            list.sort_unstable();
            list.dedup();
        }
        let mut index = PrefixIndex::default();
        let mut numbers = BTreeMap::new();
        for is_v4 in [true, false] {
            let of_side: Vec<(IpNet, &Vec<(PrefixRange, usize)>)> = by_prefix
                .iter()
                .filter(|(prefix, _)| prefix.addr().is_ipv4() == is_v4)
                .map(|(prefix, list)| (*prefix, list))
                .collect();
            let tables = accumulated(&of_side);
            let mut number_of = |table: LengthTable| {
                *numbers.entry(table).or_insert_with_key(|table| {
                    index.tables.push(table.clone());
                    (index.tables.len() - 1) as u32
                })
            };
            let numbered: Vec<(IpNet, u32)> = of_side
                .iter()
                .zip(tables)
                .map(|((prefix, _), table)| (*prefix, number_of(table)))
                .collect();
            let nothing = number_of(LengthTable::default());
            let side = Side::new(&numbered, nothing);
            *(if is_v4 { &mut index.v4 } else { &mut index.v6 }) = side;
        }
        index
    }

    /// The statements whose ranges a prefix is in. `steps` is counted up by each probe and
    /// comparison.
    #[inline]
    pub(super) fn lookup(&self, prefix: &IpNet, steps: &mut u32) -> StatementSet {
        let side = match prefix {
            IpNet::V4(_) => &self.v4,
            IpNet::V6(_) => &self.v6,
        };
        let Some(table) = side.longest(bits_of(prefix), prefix.prefix_len(), steps) else {
            return StatementSet::EMPTY;
        };
        self.tables[table as usize].at(prefix.prefix_len(), steps)
    }
}

impl Side {
    /// Takes prefixes, each before those within it, and their tables.
    fn new(prefixes: &[(IpNet, u32)], nothing: u32) -> Side {
        let mut lengths: Vec<u8> = prefixes.iter().map(|(p, _)| p.prefix_len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let mut side = Side {
            entries: lengths.iter().map(|_| HashMap::default()).collect(),
            lengths,
        };
        // The prefixes around the one at hand, longest last.
        let mut around: Vec<(IpNet, u32)> = Vec::new();
        for (prefix, table) in prefixes {
            while around
                .last()
                .is_some_and(|(outer, _)| !outer.contains(prefix))
            {
                around.pop();
            }
            let bits = bits_of(prefix);
            let (mut low, mut high) = (0, side.lengths.len());
            while low < high {
                let middle = low + (high - low) / 2;
                let len = side.lengths[middle];
                let key = masked(bits, len);
                if len == prefix.prefix_len() {
                    side.entries[middle].insert(key, *table);
                    break;
                }
                if len < prefix.prefix_len() {
                    // An entry of this key came before: it is around this prefix.
                    side.entries[middle].entry(key).or_insert_with(|| {
                        let mut answers = around.iter().rev();
                        let answer = answers.find(|(outer, _)| outer.prefix_len() <= len);
                        answer.map_or(nothing, |(_, table)| *table)
                    });
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            around.push((*prefix, *table));
        }
        side
    }

    /// The table of the longest entry around an address that is no longer than `most`.
    #[inline]
    fn longest(&self, bits: u128, most: u8, steps: &mut u32) -> Option<u32> {
        let mut best = None;
        let (mut low, mut high) = (0, self.lengths.len());
        while low < high {
            *steps += 1;
            let middle = low + (high - low) / 2;
            let len = self.lengths[middle];
            let found = if len <= most {
                self.entries[middle].get(&masked(bits, len))
            } else {
                None
            };
            match found {
                Some(table) => {
                    best = Some(*table);
                    low = middle + 1;
                }
                None => high = middle,
            }
        }
        best
    }
}

/// For each prefix the ranges of it and of all prefixes around it, as a table by length. The
/// prefixes are in order, each before those within it.
fn accumulated(prefixes: &[(IpNet, &Vec<(PrefixRange, usize)>)]) -> Vec<LengthTable> {
    // The prefixes around the one at hand, with the places of their tables, longest last.
    let mut around: Vec<(IpNet, usize)> = Vec::new();
    let mut tables: Vec<LengthTable> = Vec::with_capacity(prefixes.len());
    for (at, (prefix, own)) in prefixes.iter().enumerate() {
        while around
            .last()
            .is_some_and(|(outer, _)| !outer.contains(prefix))
        {
            around.pop();
        }
        let outer = around.last().map(|(_, at)| &tables[*at]);
        let table = LengthTable::new(outer, own, prefix.max_prefix_len());
        around.push((*prefix, at));
        tables.push(table);
    }
    tables
}

impl LengthTable {
    /// What the next prefix around says, and the prefix's own ranges.
    fn new(outer: Option<&LengthTable>, own: &[(PrefixRange, usize)], width: u8) -> LengthTable {
        let own_edges = own
            .iter()
            .flat_map(|(range, _)| [range.min_len(), range.max_len().saturating_add(1)]);
        let outer_edges = outer.iter().flat_map(|table| table.0.iter());
        let mut edges: Vec<u8> = own_edges
            .chain(outer_edges.map(|(from, _)| *from))
            .filter(|edge| *edge <= width)
            .collect();
        edges.sort_unstable();
        edges.dedup();
        let mut steps: Vec<(u8, StatementSet)> = Vec::with_capacity(edges.len());
        for from in edges {
            let mut set = outer.map_or(StatementSet::EMPTY, |table| table.at(from, &mut 0));
            for (range, statement) in own {
                if (range.min_len()..=range.max_len()).contains(&from) {
                    set.insert(*statement);
                }
            }
            if steps.last().is_none_or(|(_, last)| *last != set) {
                steps.push((from, set));
            }
        }
        LengthTable(steps)
    }

    /// The statements for a length.
    #[inline]
    fn at(&self, len: u8, steps: &mut u32) -> StatementSet {
        let above = self.0.partition_point(|(from, _)| {
            *steps += 1;
            *from <= len
        });
        match above.checked_sub(1) {
            Some(at) => self.0[at].1,
            None => StatementSet::EMPTY,
        }
    }
}

/// The address in the upper bits.
#[inline]
fn bits_of(prefix: &IpNet) -> u128 {
    match prefix {
        IpNet::V4(net) => u128::from(net.addr().to_bits()) << 96,
        IpNet::V6(net) => net.addr().to_bits(),
    }
}

#[inline]
fn masked(bits: u128, len: u8) -> u128 {
    match len {
        0 => 0,
        len => bits & (u128::MAX << (128 - u32::from(len))),
    }
}

/// A hash of one number. The keys are the operator's, so nobody else can make them collide.
#[derive(Default)]
struct BitsHasher(u64);

impl Hasher for BitsHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0.rotate_left(8) ^ u64::from(*byte)).wrapping_mul(Self::FACTOR);
        }
    }

    fn write_u128(&mut self, bits: u128) {
        let folded = (bits >> 64) as u64 ^ (bits as u64).rotate_left(31);
        let product = u128::from(folded).wrapping_mul(u128::from(Self::FACTOR));
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

impl BitsHasher {
    /// 2^64 divided by the golden ratio: odd, and without pattern in its bits.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
}
