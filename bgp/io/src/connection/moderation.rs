// SPDX-License-Identifier: Apache-2.0
//! How much the kernel gathers before it wakes a reader: one message where few come, several where
//! they come in quick succession. Network cards call it interrupt moderation.

use std::time::{Duration, Instant};

/// How long a message may wait for others, where they come that fast.
const WAIT: Duration = Duration::from_micros(750);

/// After how long without a read what there is has to do. It is more than a tick of 250 Hz, so that the
/// timer is not the processor's next one and costs next to nothing to take back.
const PATIENCE: Duration = Duration::from_millis(5);

/// Reads from which the pace is told.
const WINDOW: u32 = 32;

/// The same for a neighbour that itself waits: one that holds back what it writes until we
/// acknowledge what came before (RFC 896), which the kernel does when that is read.
const LONGEST_WINDOW: u32 = 4096;

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
    window: u32,
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
            window: WINDOW,
        }
    }

    /// Takes note of a read. Returns the low-water mark to set, where it is another.
    pub(super) fn read(&mut self, bytes: usize, now: Instant) -> Option<i32> {
        self.last = now;
        self.reads += 1;
        self.bytes += bytes as u128;
        if self.reads < self.window {
            return None;
        }
        let elapsed = now.saturating_duration_since(self.since);
        let meanwhile = self.bytes * WAIT.as_nanos() / elapsed.as_nanos().max(1);
        // What is gathered is read later.
        let gathers = self.mark > Moderation::NONE;
        let gap = if gathers { WAIT * 2 } else { WAIT };
        let pays = elapsed < gap * self.reads && meanwhile <= LARGE;
        if gathers {
            self.window = WINDOW;
        }
        let mark = i32::try_from(meanwhile).ok().filter(|_| pays);
        self.begin(
            now,
            mark.map_or(Moderation::NONE, |mark| mark.max(Moderation::NONE)),
        )
    }

    /// When what there is has to be read, however little. `None` if it is without that.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.mark > Moderation::NONE).then(|| self.last + PATIENCE)
    }

    /// Nothing was read for long enough: begins anew, with every byte. If something waited in vain,
    /// it takes longer until that is tried again. Returns the low-water mark to set.
    pub(super) fn hasten(&mut self, waited: bool, now: Instant) -> Option<i32> {
        if waited {
            self.window = (self.window * 2).min(LONGEST_WINDOW);
        }
        self.begin(now, Moderation::NONE)
    }

    fn begin(&mut self, now: Instant, mark: i32) -> Option<i32> {
        let before = self.mark;
        *self = Moderation {
            mark,
            window: self.window,
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

    /// How many reads it takes until more is gathered.
    fn reads_until_gathered(moderation: &mut Moderation) -> u32 {
        (1..)
            .find(|_| {
                let now = moderation.last + Duration::from_micros(500);
                moderation.read(MESSAGE, now).is_some()
            })
            .expect("some read is the one")
    }

    #[test]
    fn who_waits_in_vain_begins_anew_and_tries_more_seldom() {
        let mut moderation = Moderation::new(Instant::now());
        assert_eq!(reads_until_gathered(&mut moderation), WINDOW);
        let due = moderation.last + PATIENCE;
        assert_eq!(moderation.due(), Some(due));
        assert_eq!(moderation.hasten(false, due), Some(1));
        assert_eq!(moderation.due(), None);
        assert_eq!(
            reads_until_gathered(&mut moderation),
            WINDOW,
            "a burst's end"
        );
        for times in [2, 4] {
            let due = moderation.last + PATIENCE;
            assert_eq!(moderation.hasten(true, due), Some(1));
            assert_eq!(reads_until_gathered(&mut moderation), times * WINDOW);
        }
        for _ in 0..4 * WINDOW {
            let now = moderation.last + 2 * Duration::from_micros(500);
            moderation.read(2 * MESSAGE, now);
        }
        let due = moderation.last + PATIENCE;
        moderation.hasten(false, due);
        assert_eq!(reads_until_gathered(&mut moderation), WINDOW);
    }
}
