// SPDX-License-Identifier: Apache-2.0
//! What is reconciled: the things, and how to list and change them.

use std::fmt::{Debug, Display};
use std::future::Future;

/// A change asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation<K, D> {
    /// Make it there and equal to this, whatever is there.
    Update(K, D),
    /// Make it not there. Succeeds when it is not there already.
    Delete(K),
}

impl<K, D> Operation<K, D> {
    /// What is to be changed.
    pub fn key(&self) -> &K {
        match self {
            Operation::Update(key, _) | Operation::Delete(key) => key,
        }
    }
}

/// Everything there is of a kind.
pub type Listing<K, A> = Vec<(K, A)>;

/// A kind of thing that can be listed, written and deleted, in batches.
///
/// Implementations see only what they own: a listing leaves out what others made, and no operation
/// touches it.
pub trait Operations {
    /// Identifies a thing.
    type Key: Ord + Clone + Debug;
    /// What is wanted of it.
    type Desired: Clone + Eq + Debug;
    /// How it was found.
    type Actual;
    /// Why something failed, in words for an operator.
    type Error: Display;

    /// Whether what was found is what is wanted.
    fn is_as_desired(desired: &Self::Desired, actual: &Self::Actual) -> bool;

    /// Lists all things there are.
    fn list(
        &mut self,
    ) -> impl Future<Output = Result<Listing<Self::Key, Self::Actual>, Self::Error>> + Send;

    /// Carries out operations in order, going on after failures. One result for each.
    fn apply(
        &mut self,
        batch: &[Operation<Self::Key, Self::Desired>],
    ) -> impl Future<Output = Vec<Result<(), Self::Error>>> + Send;
}
