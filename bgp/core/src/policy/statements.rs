// SPDX-License-Identifier: Apache-2.0
//! Sets of statements of one policy.

use std::fmt;

use super::model::MAX_STATEMENTS;

/// A set of statements, by their places in the policy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StatementSet([u64; 2]);

const _: () = assert!(size_of::<StatementSet>() * 8 == MAX_STATEMENTS);

impl StatementSet {
    pub(super) const EMPTY: StatementSet = StatementSet([0; 2]);

    /// The first `count` statements.
    pub(super) fn first_ones(count: usize) -> StatementSet {
        let mut set = StatementSet::EMPTY;
        (0..count.min(MAX_STATEMENTS)).for_each(|at| set.insert(at));
        set
    }

    pub(super) fn insert(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    /// Whether a statement is in the set.
    pub fn has(self, at: usize) -> bool {
        self.0
            .get(at / 64)
            .is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Whether no statement is in the set.
    pub fn is_empty(self) -> bool {
        self == StatementSet::EMPTY
    }

    /// The places of its statements, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_STATEMENTS).filter(move |at| self.has(*at))
    }

    /// The place of the first one.
    pub(super) fn first(self) -> Option<usize> {
        let [low, high] = self.0;
        match (low, high) {
            (0, 0) => None,
            (0, _) => Some(64 + high.trailing_zeros() as usize),
            _ => Some(low.trailing_zeros() as usize),
        }
    }

    pub(super) const fn and(self, other: StatementSet) -> StatementSet {
        StatementSet([self.0[0] & other.0[0], self.0[1] & other.0[1]])
    }

    pub(super) const fn or(self, other: StatementSet) -> StatementSet {
        StatementSet([self.0[0] | other.0[0], self.0[1] | other.0[1]])
    }

    pub(super) const fn without(self, other: StatementSet) -> StatementSet {
        StatementSet([self.0[0] & !other.0[0], self.0[1] & !other.0[1]])
    }
}

impl fmt::Debug for StatementSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
