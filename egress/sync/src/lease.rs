// SPDX-License-Identifier: Apache-2.0
//! What a store says of a node nobody else can be asked about.
//!
//! Where there is a store, each gateway keeps a lease in it. A node whose witnesses do not answer
//! ([`Verdict::Isolated`], [`Verdict::Alone`]) asks the store for the lease of the node in question,
//! and gets two answers in one: whether itself is cut off from everything, and whether the other one
//! lives. [`weigh`] and [`judge`] say what follows.
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
    /// What the segment says decides: [`judge`].
    AskSegment,
}

/// What hosts of the segment say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Somebody answers for addresses the node in question held last.
    pub is_answered: bool,
    /// Somebody else answers for addresses that this node holds, or that nobody is known to hold.
    pub is_replaced: bool,
}

/// Weighs a verdict of witnesses, and what the store says.
pub fn weigh(verdict: Verdict, lease: Lease) -> Next {
    match (verdict, lease) {
        (Verdict::Alive | Verdict::Dead, _) | (Verdict::Isolated, Lease::Unreached) => {
            Next::Conclude(verdict)
        }
        (Verdict::Isolated, Lease::Held | Lease::Gone) | (Verdict::Alone, _) => Next::AskSegment,
    }
}

/// What is so of a node, by its lease and what the segment says. `suspect_for`: how long BFD has not
/// heard it; `detection`: how long BFD takes to see a cut.
///
/// Who reaches the store is not cut off, unless others have replaced it without the store: a witness
/// is worth more.
pub fn judge(
    lease: Lease,
    segment: Segment,
    suspect_for: Duration,
    detection: Duration,
) -> Verdict {
    let by_segment = match segment.is_answered {
        true => Verdict::Alive,
        false => Verdict::Dead,
    };
    match lease {
        Lease::Unreached => by_segment,
        Lease::Held | Lease::Gone if segment.is_replaced => Verdict::Isolated,
        Lease::Held => Verdict::Alive,
        // It may not know yet that it is cut off.
        Lease::Gone if suspect_for < let_go_within(detection) => Verdict::Alive,
        Lease::Gone => by_segment,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const QUICK: Duration = Duration::from_millis(150);
    const SILENT: Segment = Segment {
        is_answered: false,
        is_replaced: false,
    };
    const ANSWERED: Segment = Segment {
        is_answered: true,
        is_replaced: false,
    };
    const REPLACED: Segment = Segment {
        is_answered: false,
        is_replaced: true,
    };

    #[test]
    fn witnesses_are_believed_before_the_store() {
        for lease in [Lease::Held, Lease::Gone, Lease::Unreached] {
            for verdict in [Verdict::Alive, Verdict::Dead] {
                assert_eq!(weigh(verdict, lease), Next::Conclude(verdict));
            }
        }
    }

    #[test]
    fn who_reaches_the_store_is_not_cut_off() {
        for lease in [Lease::Held, Lease::Gone] {
            for verdict in [Verdict::Isolated, Verdict::Alone] {
                assert_eq!(weigh(verdict, lease), Next::AskSegment);
            }
        }
        for segment in [SILENT, ANSWERED] {
            assert_eq!(judge(Lease::Held, segment, LONG, QUICK), Verdict::Alive);
        }
        let gone = |segment| judge(Lease::Gone, segment, LONG, QUICK);
        assert_eq!(
            (gone(SILENT), gone(ANSWERED)),
            (Verdict::Dead, Verdict::Alive)
        );
    }

    #[test]
    fn who_was_replaced_without_the_store_lets_go() {
        for lease in [Lease::Held, Lease::Gone] {
            assert_eq!(judge(lease, REPLACED, LONG, QUICK), Verdict::Isolated);
        }
    }

    #[test]
    fn without_the_store_all_is_as_without_one() {
        let isolated = weigh(Verdict::Isolated, Lease::Unreached);
        assert_eq!(isolated, Next::Conclude(Verdict::Isolated));
        assert_eq!(weigh(Verdict::Alone, Lease::Unreached), Next::AskSegment);
        let alone = |segment| judge(Lease::Unreached, segment, Duration::ZERO, QUICK);
        assert_eq!(
            (alone(SILENT), alone(ANSWERED)),
            (Verdict::Dead, Verdict::Alive)
        );
        assert_eq!(alone(REPLACED), Verdict::Dead);
    }

    #[test]
    fn a_slow_session_is_waited_for() {
        let slow = Duration::from_secs(10);
        let gone = |suspect_for| judge(Lease::Gone, SILENT, suspect_for, slow);
        assert_eq!(gone(slow), Verdict::Alive);
        assert_eq!(gone(let_go_within(slow)), Verdict::Dead);
    }
}
