// SPDX-License-Identifier: Apache-2.0
//! The timers of a session (RFC 4271 §10).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// The configured timers of a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Timers {
    connect_retry_s: u32,
    hold_s: u16,
    keepalive_s: u16,
}

impl Timers {
    /// Takes seconds.
    ///
    /// # Errors
    /// A hold time of 1 or 2, a keepalive interval of 0 or above the hold time (any goes with hold
    /// time 0, which sends none), a connect retry time of 0 or above 2147483647.
    pub fn new(connect_retry_s: u32, hold_s: u16, keepalive_s: u16) -> Result<Timers, ConfigError> {
        if connect_retry_s == 0 || connect_retry_s > i32::MAX as u32 {
            return Err(ConfigError::ConnectRetryTime(connect_retry_s.into()));
        }
        if hold_s == 1 || hold_s == 2 {
            return Err(ConfigError::HoldTime(hold_s.into()));
        }
        if hold_s != 0 && (keepalive_s == 0 || keepalive_s > hold_s) {
            return Err(ConfigError::KeepaliveTime {
                keepalive: keepalive_s.into(),
                hold: hold_s.into(),
            });
        }
        Ok(Timers {
            connect_retry_s,
            hold_s,
            keepalive_s,
        })
    }

    /// The time between attempts to connect, before jitter.
    pub fn connect_retry(self) -> Duration {
        Duration::from_secs(self.connect_retry_s.into())
    }

    /// The hold time offered, in seconds; 0 for a session without keepalives.
    pub fn hold_s(self) -> u16 {
        self.hold_s
    }

    /// The keepalive interval, before it is fitted to the negotiated hold time.
    pub fn keepalive(self) -> Duration {
        Duration::from_secs(self.keepalive_s.into())
    }

    /// The interval used under a negotiated hold time: the configured one, at most a third of it
    /// (RFC 4271 §4.4); `None` when the hold time is 0.
    pub fn keepalive_under(self, hold_s: u16) -> Option<Duration> {
        (hold_s > 0).then(|| self.keepalive().min(Duration::from_secs(hold_s.into()) / 3))
    }
}

impl Default for Timers {
    /// Connect retry 5 s, hold 90 s, keepalive 30 s. RFC 4271 §10 suggests 120 s for the first,
    /// from a time when a refused connection was an event; a node that waits two minutes for a ToR
    /// that just came back is down for two minutes.
    fn default() -> Self {
        Timers {
            connect_retry_s: 5,
            hold_s: 90,
            keepalive_s: 30,
        }
    }
}
