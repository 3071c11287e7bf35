// SPDX-License-Identifier: Apache-2.0
//! What is exchanged of one family: policies, limits, several paths, next hops.

use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroU32};

use serde::{Deserialize, Serialize};

use super::{ConfigError, ImportPolicy, StaleTime};
use crate::policy::PolicyName;

/// One family of a session.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FamilyConfig {
    /// Which of the neighbour's routes are taken. The default takes the default route only.
    pub import: ImportPolicy,
    /// The policy received routes go through after [`FamilyConfig::import`]; `None` for none.
    pub import_policy: Option<PolicyName>,
    /// The policy routes go through before they are sent; `None` for none.
    pub export_policy: Option<PolicyName>,
    /// Whether traffic to received routes with BLACKHOLE is dropped, and the routes stay in this AS
    /// (RFC 7999). Default false: without an agreement with the neighbour they are routes like others.
    pub blackhole: bool,
    /// How many routes are taken; `None` for no limit.
    pub limit: Option<PrefixLimit>,
    /// How many routes are sent: those beyond wait until others are withdrawn, and the status says
    /// so. `None` for no limit.
    pub limit_out: Option<NonZeroU32>,
    /// The next hop to announce instead of what [`FamilyConfig::next_hop_mode`] gives.
    pub next_hop: Option<IpAddr>,
    /// Which next hop is announced.
    pub next_hop_mode: NextHopMode,
    /// Several paths for one prefix (RFC 7911).
    pub add_path: AddPathConfig,
    /// Long-lived graceful restart (RFC 9494); counts only where graceful restart is configured.
    pub long_lived: Option<StaleTime>,
}

/// Which next hop routes are announced with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum NextHopMode {
    /// As RFC 4271 §5.1.3 has it: this end towards other ASes, but a router on a network shared
    /// with the neighbour stays what it is; unchanged within the AS. The default.
    #[default]
    Auto,
    /// Always this end of the session.
    ToSelf,
    /// Always as it came.
    Unchanged,
}

/// Several paths for one prefix, by direction (RFC 7911).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AddPathConfig {
    /// Whether the neighbour may send several.
    pub receive: bool,
    /// How many are sent at most; `None` sends the best one, without an identifier.
    pub send: Option<NonZeroU8>,
}

/// How many routes a neighbour may send, and what happens beyond.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PrefixLimit {
    limit: u32,
    warn_percent: u8,
    /// What one route more does.
    pub beyond: BeyondLimit,
}

/// What happens when a neighbour sends more routes than it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum BeyondLimit {
    /// The session ends with Cease "maximum number of prefixes reached" (RFC 4486 §4) and comes
    /// back after so many seconds; 0 waits for an operator.
    Restart {
        /// The pause in seconds.
        after_s: u32,
    },
    /// A warning, once; all routes are taken.
    WarnOnly,
}

impl PrefixLimit {
    /// The default of [`PrefixLimit::warn_percent`], as most routers have it.
    pub const WARN_PERCENT: u8 = 75;

    /// The default pause of [`BeyondLimit::Restart`]: routes do not become fewer by trying again.
    pub const RESTART_S: u32 = 300;

    /// A limit that ends the session, with a warning at 75 % and a pause of five minutes.
    ///
    /// # Errors
    /// A limit of 0.
    pub fn new(limit: u32) -> Result<PrefixLimit, ConfigError> {
        if limit == 0 {
            return Err(ConfigError::PrefixLimitZero);
        }
        Ok(PrefixLimit {
            limit,
            warn_percent: Self::WARN_PERCENT,
            beyond: BeyondLimit::Restart {
                after_s: Self::RESTART_S,
            },
        })
    }

    /// Sets at how many percent of the limit a warning is given, 1 to 100.
    ///
    /// # Errors
    /// Anything else.
    pub fn with_warning(mut self, percent: u8) -> Result<PrefixLimit, ConfigError> {
        if !(1..=100).contains(&percent) {
            return Err(ConfigError::WarningPercent(percent));
        }
        self.warn_percent = percent;
        Ok(self)
    }

    /// The most routes.
    pub fn limit(self) -> u32 {
        self.limit
    }

    /// At how many percent of the limit a warning is given.
    pub fn warn_percent(self) -> u8 {
        self.warn_percent
    }

    /// The number of routes at which the warning is given.
    pub fn warn_at(self) -> u32 {
        let at = u64::from(self.limit) * u64::from(self.warn_percent) / 100;
        u32::try_from(at).unwrap_or(u32::MAX).max(1)
    }
}
