// SPDX-License-Identifier: Apache-2.0
//! What a receiver was told: of every prefix the hash of its attributes, by the place that the
//! prefix has in the table.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use crate::random::mix;
use crate::table::{AttributeHash, Family, Key, Table};

/// Finds the place of a prefix. One look at memory where the slot is the right one.
pub struct Index {
    slots: Vec<(Key, u32)>,
    mask: usize,
}

impl Index {
    /// Of all prefixes of a table.
    pub fn new(table: &Table) -> Index {
        let size = (table.prefixes.len() * 2).next_power_of_two();
        let mut index = Index {
            slots: vec![(0, 0); size],
            mask: size - 1,
        };
        for (place, key) in table.prefixes.iter().enumerate() {
            let mut slot = index.slot(*key);
            while index.slots[slot].0 != 0 {
                slot = (slot + 1) & index.mask;
            }
            index.slots[slot] = (*key, place as u32);
        }
        index
    }

    fn slot(&self, key: Key) -> usize {
        mix(key) as usize & self.mask
    }

    /// The places of prefixes. All slots are looked at once before any is compared, so that the
    /// waits for memory overlap.
    fn find_all(&self, keys: &[Key], places: &mut Vec<Option<u32>>) {
        let touched = keys.iter().fold(0, |sum: u64, key| {
            sum.wrapping_add(self.slots[self.slot(*key)].0)
        });
        std::hint::black_box(touched);
        places.clear();
        places.extend(keys.iter().map(|key| Some(self.find(*key)? as u32)));
    }

    /// The place, if the table has the prefix.
    pub fn find(&self, key: Key) -> Option<usize> {
        let mut slot = self.slot(key);
        loop {
            match self.slots[slot] {
                (found, place) if found == key => return Some(place as usize),
                (0, _) => return None,
                _ => slot = (slot + 1) & self.mask,
            }
        }
    }
}

/// Why an UPDATE cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// Times from writing a prefix to receiving it.
pub struct Stamps {
    /// When a prefix was written and the hash by which its arrival is known.
    pub written: Vec<Option<(Instant, u32)>>,
    /// The times of those that arrived, in nanoseconds.
    pub latencies_ns: Vec<u64>,
}

/// A receiver's table.
pub struct Received {
    index: Rc<Index>,
    family: Family,
    /// The AS that must be in front of every path.
    speaker_asn: u32,
    /// The next hop that every route must have.
    next_hop: IpAddr,
    /// Those it may have instead: a speaker without labels of its own leaves the next hop of a VPN
    /// route as it is.
    unchanged: Vec<IpAddr>,
    /// By place; 0 where there is no route.
    hashes: Vec<u32>,
    /// How many routes there are.
    pub count: usize,
    /// UPDATEs read.
    pub updates: u64,
    /// Prefixes announced, repeated ones too.
    pub announced: u64,
    /// Prefixes withdrawn, unknown ones too.
    pub withdrawn: u64,
    /// Prefixes nobody announced.
    pub strangers: u64,
    /// Routes without the speaker's AS in front, or with another next hop than the speaker.
    pub misled: u64,
    /// Where latencies are measured.
    pub stamps: Option<Stamps>,
    /// Those of the message that is read, kept for their room.
    keys: Vec<Key>,
    places: Vec<Option<u32>>,
}

impl Received {
    /// An empty table.
    pub fn new(index: Rc<Index>, table: &Table, speaker_asn: u32, next_hop: IpAddr) -> Received {
        Received {
            index,
            family: table.family,
            speaker_asn,
            next_hop,
            unchanged: Vec::new(),
            hashes: vec![0; table.prefixes.len()],
            count: 0,
            updates: 0,
            announced: 0,
            withdrawn: 0,
            strangers: 0,
            misled: 0,
            stamps: None,
            keys: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Takes routes with these next hops, too.
    pub fn or_unchanged(mut self, next_hops: Vec<IpAddr>) -> Received {
        self.unchanged = next_hops;
        self
    }

    /// The hash of the route to the prefix at a place; 0 where there is none.
    pub fn hash(&self, place: usize) -> u32 {
        self.hashes[place]
    }

    /// Takes the body of an UPDATE.
    ///
    /// # Errors
    /// When lengths contradict each other.
    pub fn update(&mut self, body: &[u8], now: Instant) -> Result<(), Malformed> {
        self.updates += 1;
        let mut body = Bytes(body);
        let length = body.number(2)?;
        let withdrawn = body.take(length)?;
        let length = body.number(2)?;
        let mut list = Bytes(body.take(length)?);
        let announced = body.0;
        let mut hash = AttributeHash::new(0);
        let mut is_misled = true;
        let mut next_hop = None;
        let (mut reach, mut unreach): (&[u8], &[u8]) = (&[], &[]);
        while !list.0.is_empty() {
            let flags = list.number(1)?;
            let kind = list.number(1)?;
            let length = list.number(if flags & 0x10 == 0 { 1 } else { 2 })?;
            let value = list.take(length)?;
            match kind {
                // AttributeHash begins with the origin, which is the first attribute, but for
                // MP_REACH_NLRI.
                1 => hash = AttributeHash::new(*value.first().ok_or(Malformed)?),
                2 => is_misled = self.path(value, &mut hash)?,
                3 => next_hop = address(value),
                8 => numbers(value).for_each(|[c]| hash.community(c)),
                16 => numbers(value)
                    .for_each(|[high, low]| hash.extended(u64::from(high) << 32 | u64::from(low))),
                32 => numbers(value).for_each(|parts| hash.large(parts)),
                14 => {
                    let mut value = Bytes(value);
                    value.take(3)?;
                    let length = value.number(1)?;
                    let mut hop = value.take(length)?;
                    if self.family == Family::Vpnv4 {
                        hop = hop.get(8..).ok_or(Malformed)?;
                    }
                    // Of two addresses the first is the global one (RFC 2545 §3).
                    next_hop = address(if hop.len() == 32 { &hop[..16] } else { hop });
                    value.take(1)?;
                    reach = value.0;
                }
                15 => unreach = value.get(3..).ok_or(Malformed)?,
                _ => {}
            }
        }
        is_misled |= next_hop != Some(self.next_hop)
            && next_hop.is_none_or(|next_hop| !self.unchanged.contains(&next_hop));
        let hash = hash.finish();
        let announced = if self.family == Family::Ipv4 {
            announced
        } else {
            reach
        };
        for nlri in [withdrawn, unreach] {
            self.each(nlri, |own, place| {
                own.withdrawn += 1;
                if let Some(place) = place
                    && std::mem::take(&mut own.hashes[place]) != 0
                {
                    own.count -= 1;
                }
            })?;
        }
        self.each(announced, |own, place| {
            own.announced += 1;
            own.misled += u64::from(is_misled);
            let Some(place) = place else {
                own.strangers += 1;
                return;
            };
            if std::mem::replace(&mut own.hashes[place], hash) == 0 {
                own.count += 1;
            }
            if let Some(stamps) = &mut own.stamps
                && let Some((written, wanted)) = stamps.written[place]
                && wanted == hash
            {
                stamps.written[place] = None;
                let latency = now.saturating_duration_since(written);
                stamps.latencies_ns.push(latency.as_nanos() as u64);
            }
        })
    }

    /// Hashes what is behind the speaker and the sender; says whether the speaker is missing.
    fn path(&self, value: &[u8], hash: &mut AttributeHash) -> Result<bool, Malformed> {
        let mut place = 0;
        let mut is_misled = true;
        let mut value = Bytes(value);
        while !value.0.is_empty() {
            value.take(1)?;
            let hops = value.number(1)?;
            for [hop] in numbers(value.take(4 * hops)?) {
                match place {
                    0 => is_misled = hop != self.speaker_asn,
                    1 => {}
                    _ => hash.hop(hop),
                }
                place += 1;
            }
        }
        Ok(is_misled)
    }

    /// Calls for every prefix with its place.
    fn each(
        &mut self,
        nlri: &[u8],
        mut act: impl FnMut(&mut Self, Option<usize>),
    ) -> Result<(), Malformed> {
        let index = self.index.clone();
        let mut keys = std::mem::take(&mut self.keys);
        keys.clear();
        let mut nlri = Bytes(nlri);
        while !nlri.0.is_empty() {
            let mut length = nlri.number(1)?;
            let mut above = 0;
            if self.family == Family::Vpnv4 {
                let head = nlri.take(11)?;
                above = u64::from(u16::from_be_bytes([head[9], head[10]])) << 40;
                length = length.checked_sub(88).ok_or(Malformed)?;
            }
            let octets = nlri.take(length.div_ceil(8))?;
            let mut network = [0; 8];
            let key = match self.family {
                Family::Ipv4 | Family::Vpnv4 => {
                    network
                        .get_mut(3..3 + octets.len())
                        .ok_or(Malformed)?
                        .copy_from_slice(octets);
                    u64::from_be_bytes(network) | above | length as u64
                }
                Family::Ipv6 if octets.len() <= 6 => {
                    network[1..=octets.len()].copy_from_slice(octets);
                    u64::from_be_bytes(network) | length as u64
                }
                // No table has one.
                Family::Ipv6 => u64::MAX,
            };
            keys.push(key);
        }
        let mut places = std::mem::take(&mut self.places);
        index.find_all(&keys, &mut places);
        for place in &places {
            act(self, place.map(|place| place as usize));
        }
        (self.keys, self.places) = (keys, places);
        Ok(())
    }
}

/// What is left to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    /// A number of one or two octets.
    fn number(&mut self, octets: usize) -> Result<usize, Malformed> {
        let head = self.take(octets)?;
        Ok(head
            .iter()
            .fold(0, |sum, octet| sum << 8 | usize::from(*octet)))
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Groups of four-octet numbers.
fn numbers<const N: usize>(value: &[u8]) -> impl Iterator<Item = [u32; N]> {
    value.chunks_exact(4 * N).map(|group| {
        std::array::from_fn(|place| {
            let octets = &group[4 * place..4 * place + 4];
            u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]])
        })
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::message::{HEADER, Origin, updates};

    /// What the speaker would send, if its AS were that of the generator's peers.
    fn told(family: Family, next_hop: IpAddr) {
        let table = Table::new(family, 3000, 5);
        let origin = Origin {
            asn: 65001,
            next_hop,
        };
        let bytes = updates(&table, 0..table.sets.len(), origin);
        let index = Rc::new(Index::new(&table));
        // As VPN routes are that come through unchanged.
        let mut received = if family == Family::Vpnv4 {
            let speaker = Ipv4Addr::new(10, 99, 255, 1).into();
            Received::new(index, &table, 65001, speaker).or_unchanged(vec![next_hop])
        } else {
            Received::new(index, &table, 65001, next_hop)
        };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = usize::from(u16::from_be_bytes([rest[16], rest[17]]));
            let body = &rest[HEADER..length];
            received.update(body, Instant::now()).expect("well-formed");
            assert!(
                received
                    .update(&body[..body.len() - 1], Instant::now())
                    .is_err()
            );
            rest = &rest[length..];
        }
        assert_eq!(received.count, 3000);
        assert_eq!((received.strangers, received.misled), (0, 0));
        for set in &table.sets {
            // The first hop behind the "speaker" passes for the sender and is not looked at.
            let mut attributes = set.attributes.clone();
            if !attributes.tail.is_empty() {
                attributes.tail.remove(0);
            }
            for place in set.prefixes.clone() {
                assert_eq!(received.hash(place), attributes.hash());
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let v4 = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));
        told(Family::Ipv4, v4);
        told(Family::Vpnv4, v4);
        told(Family::Ipv6, "fd99::1".parse().expect("an address"));
    }
}
