// SPDX-License-Identifier: Apache-2.0
//! How much the kernel gathers before it wakes a reader: one message where few come, several where
//! they come in quick succession. Network cards call it interrupt moderation.

use std::time::{Duration, Instant};

/// How long a message may wait for others, where they come that fast.
const WAIT: Duration = Duration::from_micros(750);

/// After how long without a read what there is has to do.
const PATIENCE: Duration = WAIT.saturating_mul(2);

/// Reads from which the pace is told.
const WINDOW: u32 = 32;

/// Who gets more than this at a time has enough of it already.
const LARGE: u128 = 4096;

/// The pace of a connection's reads, and the low-water mark that follows from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moderation {
    /// Where the window begins, and what was read in it.
    since: Instant,
    reads: u32,
    bytes: u128,
    last: Instant,
    mark: i32,
}

impl Moderation {
    /// The low-water mark of a socket that is woken for every byte.
    pub(super) const NONE: i32 = 1;

    pub(super) fn new(now: Instant) -> Moderation {
        Moderation {
            since: now,
            reads: 0,
            bytes: 0,
            last: now,
            mark: Moderation::NONE,
        }
    }

    /// Takes note of a read. Returns the low-water mark to set, where it is another.
    pub(super) fn read(&mut self, bytes: usize, now: Instant) -> Option<i32> {
        self.last = now;
        self.reads += 1;
        self.bytes += bytes as u128;
        if self.reads < WINDOW {
            return None;
        }
        let elapsed = now.saturating_duration_since(self.since);
        let gap = if self.mark == Moderation::NONE {
            WAIT
        } else {
            PATIENCE
        };
        let meanwhile = self.bytes * WAIT.as_nanos() / elapsed.as_nanos().max(1);
        let pays = elapsed < gap * WINDOW && meanwhile <= LARGE;
        let mark = i32::try_from(meanwhile).ok().filter(|_| pays);
        let mark = mark.map_or(Moderation::NONE, |mark| mark.max(Moderation::NONE));
        self.begin(now, mark)
    }

    /// When what there is has to be read, however little. `None` if it is without that.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.mark > Moderation::NONE).then(|| self.last + PATIENCE)
    }

    /// Begins anew, with every byte. Returns the low-water mark to set, where it is another.
    pub(super) fn hasten(&mut self, now: Instant) -> Option<i32> {
        self.begin(now, Moderation::NONE)
    }

    fn begin(&mut self, now: Instant, mark: i32) -> Option<i32> {
        let before = self.mark;
        *self = Moderation {
            mark,
            ..Moderation::new(now)
        };
        (mark != before).then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An UPDATE with one prefix.
    const MESSAGE: usize = 62;

    /// Reads of so many bytes at a pace, for three windows. Returns the last mark.
    fn mark_of(bytes: usize, gap: Duration) -> i32 {
        let begin = Instant::now();
        let mut moderation = Moderation::new(begin);
        let mut mark = Moderation::NONE;
        for number in 1..=3 * WINDOW {
            // Where more is gathered, a read brings it, and comes later.
            let messages = usize::try_from(mark).unwrap().div_ceil(bytes);
            let now = moderation.last + gap * u32::try_from(messages).unwrap();
            mark = moderation.read(bytes * messages, now).unwrap_or(mark);
            assert_eq!(moderation.due().is_some(), mark > 1, "read {number}");
        }
        mark
    }

    #[test]
    fn two_messages_are_gathered_where_two_come_within_a_millisecond() {
        let mark = mark_of(MESSAGE, Duration::from_micros(500));
        assert!((63..=124).contains(&mark), "{mark}");
    }

    #[test]
    fn as_many_are_gathered_as_come_within_the_wait() {
        let mark = mark_of(MESSAGE, Duration::from_micros(50));
        assert_eq!(mark, 15 * 62);
    }

    #[test]
    fn messages_that_come_one_by_one_wait_for_nothing() {
        for millis in [1, 10, 1000] {
            assert_eq!(mark_of(MESSAGE, Duration::from_millis(millis)), 1);
        }
    }

    #[test]
    fn full_reads_are_not_made_fuller() {
        assert_eq!(mark_of(64 * 1024, Duration::from_micros(200)), 1);
    }

    #[test]
    fn who_waits_in_vain_begins_anew() {
        let begin = Instant::now();
        let mut moderation = Moderation::new(begin);
        let mut now = begin;
        for _ in 0..WINDOW {
            now += Duration::from_micros(500);
            moderation.read(MESSAGE, now);
        }
        assert_eq!(moderation.due(), Some(now + PATIENCE));
        assert_eq!(moderation.hasten(now + PATIENCE), Some(1));
        assert_eq!(moderation.due(), None);
        assert_eq!(moderation.hasten(now + PATIENCE), None, "it is set already");
    }
}
