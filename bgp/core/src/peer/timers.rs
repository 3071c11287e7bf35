// SPDX-License-Identifier: Apache-2.0
//! What time brings about.

use std::time::{Duration, Instant};

use super::reason::{DownReason, FailureKind, TransportFailure};
use super::{CloseHow, Direction, Outgoing, Peer, PeerOutput};
use crate::fsm::Event;

/// The first pause after an error. Arbitrary; long enough not to be a storm, short enough not to
/// be noticed after a mistake that was mended.
pub(super) const IDLE_HOLD_FIRST: Duration = Duration::from_secs(1);

/// The longest pause after repeated errors. Each doubles the pause; RFC 4271 §8.1.1
/// `DampPeerOscillations` leaves the function to the implementation.
pub(super) const IDLE_HOLD_CAP: Duration = Duration::from_secs(30);

impl Peer {
    /// When [`PeerInput::Timeout`] is due, and which timer it is for.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let own = match &self.outgoing {
            Outgoing::Idle { restart_at } => restart_at.map(|at| (at, "idle hold")),
            Outgoing::Active { retry_at } => retry_at.map(|at| (at, "connect retry")),
            Outgoing::Connect { retry_at, .. } => Some((*retry_at, "connect retry")),
            Outgoing::Up(_) => None,
        };
        // Asked after everything that happens.
        self.connections().fold(own, |first, connection| {
            let timers = [
                (connection.hold_at(), "hold"),
                (connection.keepalive_at(), "keepalive"),
                (connection.held_back_until(), "collision"),
            ];
            timers
                .into_iter()
                .fold(first, |first, (at, name)| match at {
                    Some(at) if first.is_none_or(|(first, _)| at < first) => Some((at, name)),
                    Some(_) | None => first,
                })
        })
    }

    /// Does what is due.
    pub(super) fn timeout(&mut self, now: Instant) {
        for direction in [Direction::Outgoing, Direction::Incoming] {
            if self
                .connection(direction)
                .is_some_and(|c| c.hold_at().is_some_and(|at| at <= now))
            {
                self.event(direction, Event::HoldTimerExpires, now);
            }
            if self
                .connection(direction)
                .is_some_and(|c| c.keepalive_at().is_some_and(|at| at <= now))
            {
                self.event(direction, Event::KeepaliveTimerExpires, now);
            }
        }
        match &self.outgoing {
            Outgoing::Idle {
                restart_at: Some(at),
            } if *at <= now => {
                self.start(Event::IdleHoldTimerExpires, now);
            }
            Outgoing::Active { retry_at: Some(at) } if *at <= now => {
                self.begin(now);
                self.note(Event::ConnectRetryTimerExpires, now);
            }
            Outgoing::Connect { conn, retry_at } if *retry_at <= now => {
                let conn = *conn;
                self.outputs.push_back(PeerOutput::Close {
                    conn,
                    how: CloseHow::Abort,
                });
                let failure = TransportFailure {
                    kind: FailureKind::TimedOut,
                    text: "no answer within the connect retry time".into(),
                };
                let password = self.config.password.is_some();
                self.record
                    .failed(DownReason::ConnectFailed { failure, password }, now);
                self.begin(now);
                self.note(Event::ConnectRetryTimerExpires, now);
            }
            Outgoing::Idle { .. }
            | Outgoing::Active { .. }
            | Outgoing::Connect { .. }
            | Outgoing::Up(_) => {}
        }
    }

    /// The pause after an error, doubled with each in a row.
    pub(super) fn next_pause(&mut self) -> Duration {
        let doubled = IDLE_HOLD_FIRST * 2u32.saturating_pow(self.errors.min(16));
        self.errors = self.errors.saturating_add(1);
        self.jitter.spread(doubled.min(IDLE_HOLD_CAP))
    }
}
