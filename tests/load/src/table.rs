// SPDX-License-Identifier: Apache-2.0
//! A routing table of the Internet's shape, the same for one seed.
//!
//! 60 % of IPv4 prefixes are /24, the rest spread as in the default-free zone; prefixes lie in runs
//! of up to eight neighbours. Sets of attributes are about 13 % as many as prefixes, with a heavy
//! tail: most are used once or twice, few by thousands. Paths have one to eight hops; communities
//! are on 70 % of the sets.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use crate::random::{Random, mix};

/// What the table is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Family {
    /// IPv4 unicast.
    Ipv4,
    /// IPv6 unicast.
    Ipv6,
    /// IPv4 with route distinguisher and label (RFC 4364).
    Vpnv4,
}

impl Family {
    /// AFI and SAFI (RFC 4760 §7).
    pub fn numbers(self) -> (u16, u8) {
        match self {
            Family::Ipv4 => (1, 1),
            Family::Ipv6 => (2, 1),
            Family::Vpnv4 => (1, 128),
        }
    }
}

/// A prefix in 64 bits: the length in the lowest eight; above it 32 bits of IPv4 address and, of
/// VPN routes, 16 bits of route distinguisher; or the first 48 bits of an IPv6 address.
pub type Key = u64;

/// What many prefixes have in common, without what an external session changes.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// 0 IGP, 1 EGP, 2 INCOMPLETE.
    pub origin: u8,
    /// The AS path behind the sender: zero to seven hops.
    pub tail: Vec<u32>,
    /// RFC 1997.
    pub communities: Vec<u32>,
    /// RFC 8092.
    pub large: Vec<[u32; 3]>,
    /// RFC 4360: route targets of VPN routes.
    pub extended: Vec<u64>,
}

impl Attributes {
    /// What a receiver must find; the order of communities does not count.
    pub fn hash(&self) -> u32 {
        let mut hash = AttributeHash::new(self.origin);
        self.tail.iter().for_each(|hop| hash.hop(*hop));
        self.communities.iter().for_each(|c| hash.community(*c));
        self.large.iter().for_each(|c| hash.large(*c));
        self.extended.iter().for_each(|c| hash.extended(*c));
        hash.finish()
    }
}

/// The hash of a set of attributes while they are read.
#[derive(Clone, Copy, Debug)]
pub struct AttributeHash {
    path: u64,
    bag: u64,
}

impl AttributeHash {
    /// Begins with the origin.
    pub fn new(origin: u8) -> AttributeHash {
        AttributeHash {
            path: mix(u64::from(origin) + 1),
            bag: 0,
        }
    }

    /// The next hop of the path.
    pub fn hop(&mut self, asn: u32) {
        self.path = mix(self.path ^ u64::from(asn));
    }

    /// A community.
    pub fn community(&mut self, community: u32) {
        self.bag = self.bag.wrapping_add(mix(1 << 32 | u64::from(community)));
    }

    /// A large community.
    pub fn large(&mut self, [global, first, second]: [u32; 3]) {
        let low = u64::from(first) << 32 | u64::from(second);
        let hash = mix(mix(2 << 32 | u64::from(global)) ^ low);
        self.bag = self.bag.wrapping_add(hash);
    }

    /// An extended community.
    pub fn extended(&mut self, community: u64) {
        self.bag = self.bag.wrapping_add(mix(mix(3 << 32) ^ community));
    }

    /// The hash, which is never 0.
    pub fn finish(self) -> u32 {
        let hash = mix(self.path ^ self.bag);
        (hash >> 32) as u32 | 1
    }
}

/// One set of attributes and the prefixes that have it.
#[derive(Clone, Debug)]
pub struct Set {
    /// The attributes.
    pub attributes: Attributes,
    /// Which prefixes, by their places in [`Table::prefixes`].
    pub prefixes: Range<usize>,
}

/// The table.
#[derive(Clone, Debug)]
pub struct Table {
    /// What the prefixes are.
    pub family: Family,
    /// All prefixes, each once, ordered by set.
    pub prefixes: Vec<Key>,
    /// All sets.
    pub sets: Vec<Set>,
}

/// First octets of which no prefix is made: special purposes (RFC 6890), and the bench's own link.
const SPECIAL_OCTETS: [u32; 9] = [0, 10, 100, 127, 169, 172, 192, 198, 203];
/// Weights of IPv4 lengths from /12 to /24, in thousandths: 60 % /24.
const IPV4_LENGTHS: [u32; 13] = [1, 1, 1, 2, 14, 8, 14, 26, 47, 52, 130, 104, 600];
/// Weights of IPv6 lengths from /28 to /48.
const IPV6_LENGTHS: [u32; 21] = [
    2, 26, 6, 3, 120, 8, 6, 6, 24, 3, 4, 3, 90, 5, 22, 4, 105, 8, 24, 11, 520,
];
/// The exponent of the sizes of sets: with [`LARGEST_SET`], sets are 13 % as many as prefixes.
const TAIL: f64 = 1.04;
const LARGEST_SET: f64 = 3000.0;
/// VPN routes are spread over so many route distinguishers.
const VRFS: u32 = 200;

impl Table {
    /// A table of `count` prefixes.
    pub fn new(family: Family, count: usize, seed: u64) -> Table {
        let mut random = Random::new(seed);
        let prefixes = prefixes(family, count, &mut random);
        let mut sets = Vec::with_capacity(count / 7);
        let mut first = 0;
        while first < count {
            let size = random.unit().powf(-1.0 / TAIL).min(LARGEST_SET) as usize;
            let last = (first + size).min(count);
            sets.push(Set {
                attributes: attributes(family, sets.len() as u32, &mut random),
                prefixes: first..last,
            });
            first = last;
        }
        Table {
            family,
            prefixes,
            sets,
        }
    }

    /// Divides the sets into parts of about as many prefixes each.
    pub fn parts(&self, count: usize) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        let mut first = 0;
        for part in 1..=count {
            let until = self.prefixes.len() * part / count;
            let last = self.sets.partition_point(|set| set.prefixes.start < until);
            parts.push(first..last);
            first = last;
        }
        parts
    }
}

fn prefixes(family: Family, count: usize, random: &mut Random) -> Vec<Key> {
    let mut taken =
        HashSet::with_capacity_and_hasher(count, BuildHasherDefault::<Mixed>::default());
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut all: Vec<Key> = Vec::with_capacity(count);
    while all.len() < count {
        let (mut network, length, bits) = match family {
            Family::Ipv4 | Family::Vpnv4 => {
                let length = 12 + random.weighted(&IPV4_LENGTHS) as u32;
                let mut first = random.below(223) + 1;
                while SPECIAL_OCTETS.contains(&first) {
                    first = random.below(223) + 1;
                }
                (u64::from(first << 24 | random.below(1 << 24)), length, 32)
            }
            Family::Ipv6 => {
                let length = 28 + random.weighted(&IPV6_LENGTHS) as u32;
                let top = [0x2400, 0x2600, 0x2800, 0x2a00, 0x2c00][random.below(5) as usize];
                let top = u64::from(top + random.below(0x20)) << 32;
                (top | u64::from(random.below(u32::MAX)), length, 48)
            }
        };
        let above = match family {
            Family::Vpnv4 => u64::from(random.below(VRFS) + 1) << 40,
            Family::Ipv4 | Family::Ipv6 => 0,
        };
        network = network >> (bits - length) << (bits - length);
        let begin = all.len();
        for number in 0..u64::from(random.below(8) + 1) {
            let next = network + (number << (bits - length));
            // A run does not leave the block of its first octets.
            if next >> (bits - 8) != network >> (bits - 8) || all.len() == count {
                break;
            }
            let key = above | next << 8 | u64::from(length);
            if taken.insert(key) {
                all.push(key);
            }
        }
        if all.len() > begin {
            runs.push(begin..all.len());
        }
    }
    random.shuffle(&mut runs);
    runs.into_iter().flat_map(|run| all[run].to_vec()).collect()
}

fn attributes(family: Family, number: u32, random: &mut Random) -> Attributes {
    let hops = random.weighted(&[1, 6, 22, 30, 22, 12, 5, 2]);
    // Transit providers are few and big, origins are many.
    let mut tail: Vec<u32> = (0..hops)
        .map(|hop| match hop {
            0 | 1 => 1000 + random.below(60),
            2 | 3 => 2000 + random.below(2000),
            _ => 131_072 + random.below(80_000),
        })
        .collect();
    let mut attributes = Attributes {
        origin: [0, 0, 0, 0, 0, 0, 0, 2][random.below(8) as usize],
        ..Attributes::default()
    };
    if random.below(10) < 7 {
        let count = 1 + random.below(4) + random.below(2) * random.below(8);
        for _ in 0..count {
            let authority = 1000 + random.below(60);
            attributes
                .communities
                .push(authority << 16 | random.below(2000));
        }
        attributes.communities.sort_unstable();
        attributes.communities.dedup();
        if random.below(8) == 0 {
            let number = random.below(500);
            attributes.large.push([2000 + number, 1, number]);
        }
    }
    // Sets are sets: each differs from all others in its origin AS, or else in a community.
    match tail.last_mut() {
        Some(origin) => *origin = 400_000 + number,
        None => attributes.large = vec![[400_000 + number, 0, 0]],
    }
    attributes.tail = tail;
    if family == Family::Vpnv4 {
        let target = 0x0002_fbf0_0000_0000 | u64::from(number % VRFS + 1);
        attributes.extended.push(target);
    }
    attributes
}

/// A hasher of keys.
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = mix(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = mix(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_shape_of_the_internet() {
        let table = Table::new(Family::Ipv4, 200_000, 1);
        let count = table.prefixes.len() as f64;
        let long = table.prefixes.iter().filter(|key| *key & 0xff == 24);
        let share = long.count() as f64 / count;
        assert!((0.57..0.63).contains(&share), "{share} are /24");
        let sets = table.sets.len() as f64 / count;
        assert!((0.11..0.15).contains(&sets), "{sets} sets a prefix");
        let with = table
            .sets
            .iter()
            .filter(|set| !set.attributes.communities.is_empty());
        let share = with.count() as f64 / table.sets.len() as f64;
        assert!((0.65..0.75).contains(&share), "{share} with communities");
    }

    #[test]
    fn one_seed_is_one_table_and_its_prefixes_differ() {
        for family in [Family::Ipv4, Family::Ipv6, Family::Vpnv4] {
            let (one, same) = (Table::new(family, 5000, 7), Table::new(family, 5000, 7));
            assert_eq!(one.prefixes, same.prefixes);
            assert_ne!(one.prefixes, Table::new(family, 5000, 8).prefixes);
            let distinct: HashSet<Key> = one.prefixes.iter().copied().collect();
            assert_eq!(distinct.len(), 5000);
        }
    }

    #[test]
    fn parts_are_the_whole() {
        let table = Table::new(Family::Ipv4, 10_000, 3);
        let parts = table.parts(10);
        assert_eq!(parts.len(), 10);
        assert_eq!(parts[0].start, 0);
        assert_eq!(parts[9].end, table.sets.len());
        assert!(parts.windows(2).all(|two| two[0].end == two[1].start));
    }
}
