// SPDX-License-Identifier: Apache-2.0
//! What is known about keys, for people.

use std::time::Instant;

/// Where a key is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyState {
    /// Wanted and there.
    Applied,
    /// To be written, or written and not yet confirmed.
    Pending,
    /// Refused; waiting for the next attempt.
    Failed,
    /// Not wanted; to be deleted, or the deletion is not yet confirmed.
    Deleting,
    /// Found after a restart; nobody has wished for it yet, and it is kept until pruning.
    Stale,
}

/// Failures of one key in a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What the last attempt said.
    pub last_error: String,
    /// When the first of them failed.
    pub since: Instant,
    /// How many failed.
    pub attempts: u32,
}

/// What is known about one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyStatus<'a> {
    /// Where it is on its way.
    pub state: KeyState,
    /// The failures since it last succeeded.
    pub failure: Option<&'a Failure>,
}

/// Counts over all keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Wished for.
    pub wanted: usize,
    /// Of those, known to be there.
    pub applied: usize,
    /// Failed and waiting for another attempt, wanted or to be deleted.
    pub failed: usize,
    /// Kept over a restart without anybody having wished for them.
    pub stale: usize,
    /// Things that were found missing or different and written again, since the start.
    pub repaired: u64,
}
