// SPDX-License-Identifier: Apache-2.0
//! Connections of others that have not proved themselves: how many there may be, and how often the log
//! hears of those that did not come to it.
//!
//! Anybody who reaches the port can be one, pods among them. Neither memory nor the log may be theirs to
//! fill, and they must not keep a gateway out: what comes from an address of a node, which pods cannot
//! send under, is counted apart from what does not.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Most of them from addresses that are no node's, together. Arbitrary: each may stay for the handshake's
/// 5 s, with 64 KiB read and not handed on.
const MAX_OF_NOBODY: usize = 64;

/// Most of them from one address of a node. It begins one at a time; ones of before may not have timed out.
const MAX_OF_NODE: usize = 8;

/// Most lines the log gets of them in [`WINDOW`].
const TOLD: u32 = 5;

/// How often the rest is summed up.
const WINDOW: Duration = Duration::from_secs(60);

/// Whether one more may come from an address; `there` are those that have not proved themselves.
pub(super) fn may_come(
    from: IpAddr,
    there: impl Iterator<Item = IpAddr>,
    is_of_node: impl Fn(IpAddr) -> bool,
) -> bool {
    let mut counts: BTreeMap<Option<IpAddr>, usize> = BTreeMap::new();
    let counted_as = |address: IpAddr| is_of_node(address).then_some(address);
    for address in there {
        *counts.entry(counted_as(address)).or_default() += 1;
    }
    let as_whom = counted_as(from);
    let count = counts.get(&as_whom).copied().unwrap_or(0);
    count < as_whom.map_or(MAX_OF_NOBODY, |_| MAX_OF_NODE)
}

/// What the log hears.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Since when is counted.
    since: Option<Instant>,
    told: u32,
    untold: u64,
}

impl Refusals {
    /// One was refused. Whether it is told by itself.
    pub(super) fn is_told(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now >= since + WINDOW) && self.untold == 0 {
            (self.since, self.told) = (Some(now), 0);
        }
        if self.told < TOLD {
            self.told += 1;
            return true;
        }
        self.untold += 1;
        false
    }

    /// How many were not told, when it is time to say so.
    pub(super) fn take_untold(&mut self, now: Instant) -> Option<u64> {
        self.next_timeout().filter(|at| now >= *at)?;
        (self.since, self.told) = (Some(now), 0);
        Some(std::mem::take(&mut self.untold))
    }

    /// When [`Refusals::take_untold`] is to be called.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let since = self.since.filter(|_| self.untold > 0)?;
        Some(since + WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_do_not_keep_nodes_out_nor_one_node_another() {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let (stranger, node, other) = (ip("10.244.1.9"), ip("10.0.0.1"), ip("10.0.0.2"));
        let is_of_node = |address| address == node || address == other;
        let may = |from, strangers: usize, of_node: usize| {
            let there = std::iter::repeat_n(stranger, strangers);
            may_come(
                from,
                there.chain(std::iter::repeat_n(node, of_node)),
                is_of_node,
            )
        };
        assert!(may(stranger, MAX_OF_NOBODY - 1, 5));
        assert!(!may(stranger, MAX_OF_NOBODY, 0));
        assert!(
            !may(ip("10.244.1.10"), MAX_OF_NOBODY, 0),
            "all of them together"
        );
        assert!(may(node, MAX_OF_NOBODY, MAX_OF_NODE - 1));
        assert!(!may(node, 0, MAX_OF_NODE));
        assert!(may(other, MAX_OF_NOBODY, MAX_OF_NODE));
    }

    #[test]
    fn the_log_hears_of_some_and_how_many_more_there_were() {
        let start = Instant::now();
        let mut refusals = Refusals::default();
        for _ in 0..TOLD {
            assert!(refusals.is_told(start));
        }
        assert_eq!(refusals.next_timeout(), None, "all were told");
        for _ in 0..1000 {
            assert!(!refusals.is_told(start + WINDOW / 2));
        }
        assert_eq!(refusals.take_untold(start + WINDOW / 2), None);
        assert_eq!(refusals.next_timeout(), Some(start + WINDOW));
        // Not yet summed up: nothing is told before that.
        assert!(!refusals.is_told(start + WINDOW));
        assert_eq!(refusals.take_untold(start + WINDOW), Some(1001));
        assert_eq!(refusals.take_untold(start + WINDOW * 2), None);
        assert!(refusals.is_told(start + WINDOW));
        // A quiet time later it begins anew.
        for _ in 0..TOLD {
            assert!(refusals.is_told(start + WINDOW * 5));
        }
        assert!(!refusals.is_told(start + WINDOW * 5));
    }
}
