// SPDX-License-Identifier: Apache-2.0
//! What a store says of a node nobody else can be asked about.
//!
//! Where there is a store, each gateway keeps a lease in it. A node whose witnesses do not answer
//! ([`Verdict::Isolated`], [`Verdict::Alone`]) asks the store for the lease of the node in question,
//! and gets two answers in one: whether itself is cut off from everything, and whether the other one
//! lives. [`weigh`] says what follows.
//!
//! **The store never overrules witnesses**: they see whether the gateway serves, and it sees whether
//! the daemon lives. And its absence is never taken for anything.
//!
//! **Why two never hold.** A lease that is gone makes its node's rules free. So a node that is cut
//! off from the store as well must have let go before its lease can be over. It was prolonged a
//! third of its life before the cut at the earliest, so that it lasts two thirds of it from then on;
//! letting go takes [`let_go_within`]. For the profiles that are usual, [`MIN_LIFE`] is long enough. A
//! BFD session that takes longer to fail is waited for as well: a lease counts as gone only when the
//! node has been suspect for that long.

use std::time::Duration;

use crate::witness::{PATIENCE, Verdict};

/// How long a store may take to answer for a lease. It is asked in a case in which nothing moves
/// without it, so it has longer than witnesses: a majority writes to disks.
pub const STORE_PATIENCE: Duration = Duration::from_millis(200);

/// How often others are asked about a node whose session is down.
pub const ASK_AGAIN: Duration = Duration::from_millis(200);

/// How many answers in a row that nobody is there mean that this node is cut off.
pub const ALONE_IN_A_ROW: u32 = 2;

/// The shortest life of a lease.
pub const MIN_LIFE: Duration = Duration::from_secs(3);

/// A session that fails within this time is fast enough for the shortest lease.
const USUAL_DETECTION: Duration = Duration::from_secs(1);

const _: () = assert!(
    let_go_within(USUAL_DETECTION).as_millis() < MIN_LIFE.as_millis() * 2 / 3,
    "a node that is cut off holds nothing any more when its lease is over"
);

/// How long after the cut a node that is cut off from everything has let go, where BFD takes so
/// long to see it.
pub const fn let_go_within(detection: Duration) -> Duration {
    let questions = PATIENCE.as_millis() + STORE_PATIENCE.as_millis() + ASK_AGAIN.as_millis();
    let all = questions as u64 * ALONE_IN_A_ROW as u64;
    detection.saturating_add(Duration::from_millis(all))
}

/// What a store says of a node's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// It is there.
    Held,
    /// There is none.
    Gone,
    /// No answer: this node does not reach the store.
    Unreached,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This is so.
    Conclude(Verdict),
    /// Whether somebody still answers for the addresses on the segment decides.
    AskSegment,
}

/// Weighs a verdict of witnesses, and what the store says. `suspect_for`: how long BFD has not heard
/// the node; `detection`: how long BFD takes to see a cut.
pub fn weigh(verdict: Verdict, lease: Lease, suspect_for: Duration, detection: Duration) -> Next {
    match (verdict, lease) {
        (Verdict::Alive | Verdict::Dead, _) => Next::Conclude(verdict),
        (Verdict::Isolated | Verdict::Alone, Lease::Held) => Next::Conclude(Verdict::Alive),
        (Verdict::Isolated | Verdict::Alone, Lease::Gone) => {
            match suspect_for >= let_go_within(detection) {
                true => Next::AskSegment,
                // It may not know yet that it is cut off.
                false => Next::Conclude(Verdict::Alive),
            }
        }
        (Verdict::Isolated, Lease::Unreached) => Next::Conclude(Verdict::Isolated),
        (Verdict::Alone, Lease::Unreached) => Next::AskSegment,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const QUICK: Duration = Duration::from_millis(150);

    #[test]
    fn witnesses_are_believed_before_the_store() {
        for lease in [Lease::Held, Lease::Gone, Lease::Unreached] {
            for verdict in [Verdict::Alive, Verdict::Dead] {
                let next = weigh(verdict, lease, LONG, QUICK);
                assert_eq!(next, Next::Conclude(verdict));
            }
        }
    }

    #[test]
    fn who_reaches_the_store_is_not_cut_off() {
        for verdict in [Verdict::Isolated, Verdict::Alone] {
            let held = weigh(verdict, Lease::Held, LONG, QUICK);
            assert_eq!(held, Next::Conclude(Verdict::Alive));
            assert_eq!(weigh(verdict, Lease::Gone, LONG, QUICK), Next::AskSegment);
        }
    }

    #[test]
    fn without_the_store_all_is_as_without_one() {
        let isolated = weigh(Verdict::Isolated, Lease::Unreached, LONG, QUICK);
        assert_eq!(isolated, Next::Conclude(Verdict::Isolated));
        let alone = weigh(Verdict::Alone, Lease::Unreached, LONG, QUICK);
        assert_eq!(alone, Next::AskSegment);
    }

    #[test]
    fn a_slow_session_is_waited_for() {
        let slow = Duration::from_secs(10);
        let early = weigh(Verdict::Isolated, Lease::Gone, slow, slow);
        assert_eq!(early, Next::Conclude(Verdict::Alive));
        let late = weigh(Verdict::Isolated, Lease::Gone, let_go_within(slow), slow);
        assert_eq!(late, Next::AskSegment);
    }
}
