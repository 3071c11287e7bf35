// SPDX-License-Identifier: Apache-2.0
//! How many destinations a group announces at most. Those beyond wait until others are withdrawn,
//! so that a neighbour with a limit of its own does not end the session.
//!
//! A group with a limit has one member. What came from that one is not announced in it, so that it
//! takes no place.

use crate::rib::bits::Bits;
use crate::rib::keys::DestId;

/// The limit of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Limit {
    most: Option<usize>,
    held: Bits,
    /// Whether it was said that some wait.
    is_said: bool,
}

impl Limit {
    pub(super) fn new(most: Option<u32>) -> Limit {
        Limit {
            most: most.map(|most| most as usize),
            ..Limit::default()
        }
    }

    /// The limit itself.
    pub(super) fn most(&self) -> Option<usize> {
        self.most
    }

    /// Whether a destination is announced, among those that are; else it waits.
    #[inline]
    pub(super) fn admits(&mut self, id: DestId, announced: &Bits) -> bool {
        let Some(most) = self.most else {
            return true;
        };
        if announced.contains(id) || announced.len() < most {
            self.held.remove(id);
            return true;
        }
        self.held.insert(id);
        false
    }

    /// There is nothing to announce for a destination any more.
    #[inline]
    pub(super) fn forget(&mut self, id: DestId) {
        if self.most.is_some() {
            self.held.remove(id);
        }
    }

    /// Those for which there is room again, the lowest numbers first.
    pub(super) fn due(&self, announced: &Bits) -> Vec<DestId> {
        let room = self
            .most
            .map_or(0, |most| most.saturating_sub(announced.len()));
        self.held.iter().take(room).collect()
    }

    /// Whether a destination waits.
    pub(super) fn holds(&self, id: DestId) -> bool {
        self.held.contains(id)
    }

    /// How many wait.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether it has to be said that some wait: once, until none does.
    pub(super) fn take_news(&mut self) -> bool {
        if self.held.is_empty() {
            self.is_said = false;
            return false;
        }
        !std::mem::replace(&mut self.is_said, true)
    }

    pub(super) fn memory(&self) -> usize {
        self.held.memory()
    }
}
