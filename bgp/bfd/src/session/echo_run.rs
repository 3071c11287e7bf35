// SPDX-License-Identifier: Apache-2.0
//! Our own echo packets under way (RFC 5880 §6.8.5, §6.8.9).

use std::collections::VecDeque;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use crate::jitter::Random;

/// Packets under way while none has come back yet: more than any that detection looks at, with the
/// greatest multiplier and all of the jitter.
const UNDER_WAY: usize = 512;

/// The echo packets of a session, and what became of them.
#[derive(Clone, Debug, Default)]
pub(super) struct EchoRun {
    /// When the next one is due; `None` while none are sent.
    pub(super) next_transmit: Option<Instant>,
    /// When the last one came back; `None` where none ever has since they are sent.
    pub(super) heard: Option<Instant>,
    /// How long the last one took.
    pub(super) round_trip: Option<Duration>,
    sent_at: Option<Instant>,
    /// Sent and not back. Bounded by [`UNDER_WAY`].
    under_way: VecDeque<(u64, Instant)>,
    /// The number of the next packet. Goes on over stops, so that no packet counts later.
    sequence: u64,
}

impl EchoRun {
    /// Sends no more and awaits none. Says how many were lost.
    pub(super) fn stop(&mut self) -> u64 {
        let lost = self.under_way.len() as u64;
        *self = EchoRun {
            sequence: self.sequence,
            ..EchoRun::default()
        };
        lost
    }

    /// A packet goes: its number, and how many are given up for it.
    pub(super) fn send(&mut self, now: Instant) -> (u64, u64) {
        let sequence = self.sequence;
        self.sequence += 1;
        let mut lost = 0;
        if self.under_way.len() == UNDER_WAY {
            self.under_way.pop_front();
            lost = 1;
        }
        self.under_way.push_back((sequence, now));
        self.sent_at = Some(now);
        self.next_transmit = None;
        (sequence, lost)
    }

    /// A packet is back: how many before it are not, and count as lost; `None` where this one is not
    /// awaited, since it was never sent, has been back, or was given up.
    pub(super) fn receive(&mut self, sequence: u64, now: Instant) -> Option<u64> {
        let found = self
            .under_way
            .binary_search_by_key(&sequence, |(number, _)| *number);
        let index = found.ok()?;
        let (_, sent_at) = self.under_way[index];
        self.under_way.drain(..=index);
        self.round_trip = Some(now.saturating_duration_since(sent_at));
        self.heard = Some(now);
        Some(index as u64)
    }

    /// Sets when the next packet is due, and brings it forward where the interval has become less.
    pub(super) fn schedule(
        &mut self,
        interval: Duration,
        multiplier: NonZeroU8,
        random: &mut Random,
        now: Instant,
    ) {
        let from = self.sent_at.unwrap_or(now);
        if self.next_transmit.is_none_or(|at| at > from + interval) {
            let at = from + random.spread(interval, multiplier.get());
            self.next_transmit = Some(at.max(now));
        }
    }

    /// When their absence means that the path has failed; `None` while none is awaited, or none has
    /// ever come back.
    ///
    /// As for control packets that is the multiplier times the interval after the last one came,
    /// but never before the first that is missing has had all but one of these intervals: where
    /// this process did not get to run, nothing was sent and nothing is missing.
    pub(super) fn detect_at(&self, interval: Duration, multiplier: NonZeroU8) -> Option<Instant> {
        let heard = self.heard?;
        let (_, first) = self.under_way.front()?;
        let times = u32::from(multiplier.get());
        Some((heard + interval * times).max(*first + interval * (times - 1).max(1)))
    }
}
