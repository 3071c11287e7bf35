// SPDX-License-Identifier: Apache-2.0
//! How a session is opened, kept and ended.

use std::time::Duration;

use bgp_wire::Role;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::serial;

/// Who opens the TCP connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum ConnectMode {
    /// Dials, and takes a call where the instance listens.
    #[default]
    Both,
    /// Dials; refuses calls.
    Active,
    /// Waits to be called (RFC 4271 §8.1.1 `PassiveTcpEstablishment`).
    Passive,
}

/// Graceful restart of this speaker (RFC 4724), asked for by configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GracefulRestart {
    restart_time_s: u16,
    /// Whether sessions that end by NOTIFICATION or by the hold timer keep their routes, too (RFC
    /// 8538). Default true.
    #[serde(default = "super::yes")]
    pub notification: bool,
}

impl GracefulRestart {
    /// Takes the time the neighbour shall wait for this speaker to be back, 1 to 4095 seconds.
    ///
    /// # Errors
    /// A time outside that range.
    pub fn new(restart_time_s: u16) -> Result<GracefulRestart, ConfigError> {
        match restart_time_s {
            1..=4095 => Ok(GracefulRestart {
                restart_time_s,
                notification: true,
            }),
            _ => Err(ConfigError::RestartTime(restart_time_s)),
        }
    }

    /// The restart time in seconds.
    pub fn restart_time_s(self) -> u16 {
        self.restart_time_s
    }
}

/// How long routes of a neighbour that did not come back within its restart time are kept as the
/// last resort (RFC 9494), and how long it is asked to keep ours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct StaleTime(u32);

impl StaleTime {
    /// Takes seconds, 1 to 16777215 (194 days).
    ///
    /// # Errors
    /// A time outside that range.
    pub fn new(seconds: u32) -> Result<StaleTime, ConfigError> {
        match seconds {
            1..=0xff_ffff => Ok(StaleTime(seconds)),
            _ => Err(ConfigError::StaleTime(seconds)),
        }
    }

    /// The time in seconds.
    pub fn seconds(self) -> u32 {
        self.0
    }
}

/// The relation to an external neighbour (RFC 9234).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoleConfig {
    /// What this speaker is to the neighbour.
    #[serde(with = "serial::role")]
    pub role: Role,
    /// Whether a neighbour that names no role is refused (RFC 9234 §4.2, strict mode).
    pub strict: bool,
}

/// The largest TCP segment sent, for paths that lose larger ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct TcpMss(u16);

impl TcpMss {
    /// Takes octets, 88 to 32767: what Linux takes for `TCP_MAXSEG`.
    ///
    /// # Errors
    /// Any other size.
    pub fn new(octets: u16) -> Result<TcpMss, ConfigError> {
        match octets {
            88..=32767 => Ok(TcpMss(octets)),
            _ => Err(ConfigError::TcpMss(octets)),
        }
    }

    /// The size in octets.
    pub fn octets(self) -> u16 {
        self.0
    }
}

/// How long nothing may leave before the session is given up (RFC 9687).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum SendHold {
    /// Eight minutes, or twice the negotiated hold time where that is longer (RFC 9687 §4); never
    /// with a hold time of 0. The default.
    #[default]
    Auto,
    /// Never.
    Off,
    /// This long, in seconds; never with a hold time of 0.
    After(u32),
}

impl SendHold {
    /// The time under a negotiated hold time.
    pub fn under(self, hold_s: u16) -> Option<Duration> {
        if hold_s == 0 {
            return None;
        }
        let hold = Duration::from_secs(hold_s.into());
        match self {
            SendHold::Auto => Some((hold * 2).max(Duration::from_secs(480))),
            SendHold::Off => None,
            SendHold::After(seconds) => Some(Duration::from_secs(seconds.into()).max(hold)),
        }
    }
}

/// Which capabilities OPEN has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum CapabilityUse {
    /// All that are configured; a neighbour that refuses the OPEN for them (2/4, 2/7 or 2/0) is
    /// sent one without at the next attempt, and the status says so (RFC 5492 §3). The default.
    #[default]
    Fallback,
    /// All that are configured, whatever the neighbour says.
    Always,
    /// None: for old routers that fall over them. Only IPv4 unicast is left then.
    Never,
}

/// How far a neighbour may be by the TTL of its packets (RFC 5082).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct TtlSecurity {
    hops: u8,
}

impl TtlSecurity {
    /// Takes the most hops there may be, 1 (a neighbour on the link) to 254.
    ///
    /// # Errors
    /// 0 and 255, which would let everything through.
    pub fn new(hops: u8) -> Result<TtlSecurity, ConfigError> {
        match hops {
            1..=254 => Ok(TtlSecurity { hops }),
            _ => Err(ConfigError::TtlZero),
        }
    }

    /// The most hops.
    pub fn hops(self) -> u8 {
        self.hops
    }

    /// The lowest TTL that is taken: 255 for a neighbour on the link.
    pub fn least_ttl(self) -> u8 {
        u8::MAX - (self.hops - 1)
    }
}
