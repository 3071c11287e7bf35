// SPDX-License-Identifier: Apache-2.0
//! A set of destination numbers.

use super::keys::DestId;

/// A set of numbers, one bit each.
#[derive(Clone, Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
    count: usize,
}

impl Bits {
    #[inline]
    pub(super) fn contains(&self, id: DestId) -> bool {
        let word = self.words.get(id as usize / 64);
        word.is_some_and(|word| word & mask(id) != 0)
    }

    /// Adds a number and says whether it was not there.
    #[inline]
    pub(super) fn insert(&mut self, id: DestId) -> bool {
        let at = id as usize / 64;
        if at >= self.words.len() {
            self.words.resize((at + 1).next_power_of_two().max(16), 0);
        }
        let word = &mut self.words[at];
        let new = *word & mask(id) == 0;
        *word |= mask(id);
        self.count += usize::from(new);
        new
    }

    /// Takes a number out and says whether it was there.
    #[inline]
    pub(super) fn remove(&mut self, id: DestId) -> bool {
        let Some(word) = self.words.get_mut(id as usize / 64) else {
            return false;
        };
        let there = *word & mask(id) != 0;
        *word &= !mask(id);
        self.count -= usize::from(there);
        there
    }

    pub(super) fn clear(&mut self) {
        self.words.fill(0);
        self.count = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = DestId> + '_ {
        self.from(0)
    }

    /// Those not below a number, in order.
    pub(super) fn from(&self, first: DestId) -> impl Iterator<Item = DestId> + '_ {
        let start = first as usize / 64;
        let words = self.words.iter().copied().enumerate().skip(start);
        words.flat_map(move |(at, mut word)| {
            if at == start {
                word &= !(mask(first) - 1);
            }
            std::iter::from_fn(move || {
                if word == 0 {
                    return None;
                }
                let bit = word.trailing_zeros();
                word &= word - 1;
                Some((at * 64) as DestId + bit)
            })
        })
    }

    pub(super) fn memory(&self) -> usize {
        self.words.capacity() * 8
    }
}

impl Extend<DestId> for Bits {
    fn extend<T: IntoIterator<Item = DestId>>(&mut self, ids: T) {
        for id in ids {
            self.insert(id);
        }
    }
}

#[inline]
fn mask(id: DestId) -> u64 {
    1 << (id % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_comes_out_in_order_and_once() {
        let mut bits = Bits::default();
        for id in [700, 3, 64, 63, 3] {
            bits.insert(id);
        }
        assert_eq!(bits.len(), 4);
        assert_eq!(bits.iter().collect::<Vec<_>>(), [3, 63, 64, 700]);
        assert_eq!(bits.from(64).collect::<Vec<_>>(), [64, 700]);
        assert_eq!(bits.from(65).collect::<Vec<_>>(), [700]);
        assert!(bits.remove(64) && !bits.remove(64) && !bits.contains(64));
        assert!(!bits.remove(100_000));
        assert_eq!(bits.len(), 3);
    }
}
