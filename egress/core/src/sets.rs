// SPDX-License-Identifier: Apache-2.0
//! Numbers of destination sets: equal sets share one, and a set keeps its own as long as it is
//! the same.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use ipnet::IpNet;

use crate::desired::{SetNumber, Way};

/// What becomes of every destination of a pod.
pub(crate) type Table = BTreeMap<IpNet, Way>;

/// Numbers the sets of one decision.
pub(crate) struct Sets<'a> {
    before: BTreeMap<&'a Table, SetNumber>,
    /// The numbers of the last decision are not given again in this one: a set is never changed
    /// under the pods that still use it, but written under a new number, and they follow.
    taken: BTreeSet<SetNumber>,
    numbers: BTreeMap<Table, SetNumber>,
    next: NonZeroU32,
}

impl<'a> Sets<'a> {
    pub(crate) fn new(before: &'a BTreeMap<SetNumber, Table>) -> Self {
        Sets {
            // The lowest number of equal ones: the last one inserted.
            before: before.iter().rev().map(|(n, table)| (table, *n)).collect(),
            taken: before.keys().copied().collect(),
            numbers: BTreeMap::new(),
            next: NonZeroU32::MIN,
        }
    }

    /// The number of a set.
    pub(crate) fn number(&mut self, table: Table) -> SetNumber {
        if let Some(number) = self.numbers.get(&table) {
            return *number;
        }
        let number = match self.before.get(&table) {
            Some(number) => *number,
            None => {
                while self.taken.contains(&SetNumber(self.next)) {
                    self.next = self.next.saturating_add(1);
                }
                SetNumber(self.next)
            }
        };
        self.taken.insert(number);
        self.numbers.insert(table, number);
        number
    }

    /// The sets that are used.
    pub(crate) fn finish(self) -> BTreeMap<SetNumber, Table> {
        self.numbers
            .into_iter()
            .map(|(table, number)| (number, table))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Refusal;

    fn table(prefix: &str, way: Way) -> Table {
        [(prefix.parse().expect("prefix"), way)].into()
    }

    fn number(n: u32) -> SetNumber {
        SetNumber(NonZeroU32::new(n).expect("from 1"))
    }

    #[test]
    fn equal_sets_share_a_number_and_keep_it() {
        let (one, two) = (
            table("10.0.0.0/8", Way::Excluded),
            table("10.0.0.0/8", Way::Refused(Refusal::NoGateway)),
        );
        let nothing = BTreeMap::new();
        let mut sets = Sets::new(&nothing);
        assert_eq!(sets.number(one.clone()), number(1));
        assert_eq!(sets.number(two.clone()), number(2));
        assert_eq!(sets.number(one), number(1));
        let before = sets.finish();
        let mut sets = Sets::new(&before);
        // 1 was used a moment ago, so a new set is 3.
        let new = table("10.0.0.0/9", Way::Excluded);
        assert_eq!(sets.number(new.clone()), number(3));
        assert_eq!(sets.number(two.clone()), number(2));
        let before = sets.finish();
        assert_eq!(
            before.keys().copied().collect::<Vec<_>>(),
            [number(2), number(3)]
        );
        let mut sets = Sets::new(&before);
        assert_eq!(sets.number(table("::/0", Way::Excluded)), number(1));
    }
}
