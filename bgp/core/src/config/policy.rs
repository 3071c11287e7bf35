// SPDX-License-Identifier: Apache-2.0
//! Which of a neighbour's routes are taken.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::serial;

/// Prefixes under one prefix, by length: `10.0.0.0/8` from 16 to 24.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct PrefixRange {
    #[serde(with = "serial::text")]
    prefix: IpNet,
    min: u8,
    max: u8,
}

impl PrefixRange {
    /// Takes a prefix (host bits are dropped) and the lengths that match under it; the defaults
    /// are the prefix's own length, that is the prefix itself.
    ///
    /// # Errors
    /// Lengths not in `prefix length <= minimum <= maximum <= address width`.
    pub fn new(
        prefix: IpNet,
        min: Option<u8>,
        max: Option<u8>,
    ) -> Result<PrefixRange, ConfigError> {
        let prefix = prefix.trunc();
        let (len, bits) = (prefix.prefix_len(), prefix.max_prefix_len());
        let lowest = min.unwrap_or(len);
        let highest = max.unwrap_or(lowest);
        if len <= lowest && lowest <= highest && highest <= bits {
            Ok(PrefixRange {
                prefix,
                min: lowest,
                max: highest,
            })
        } else {
            Err(ConfigError::PrefixRange {
                prefix,
                min: lowest,
                max: highest,
                len,
                bits,
            })
        }
    }

    /// The prefix itself and nothing under it.
    pub fn exact(prefix: IpNet) -> PrefixRange {
        let prefix = prefix.trunc();
        PrefixRange {
            prefix,
            min: prefix.prefix_len(),
            max: prefix.prefix_len(),
        }
    }

    /// The prefix the range is under.
    pub fn prefix(&self) -> IpNet {
        self.prefix
    }

    /// The shortest length in the range.
    pub fn min_len(&self) -> u8 {
        self.min
    }

    /// The longest length in the range.
    pub fn max_len(&self) -> u8 {
        self.max
    }

    /// Whether a prefix is in the range.
    pub fn contains(&self, prefix: &IpNet) -> bool {
        (self.min..=self.max).contains(&prefix.prefix_len()) && self.prefix.contains(prefix)
    }
}

impl fmt::Display for PrefixRange {
    /// `10.0.0.0/8`, `10.0.0.0/8 length 16`, `10.0.0.0/8 length 16-24`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.prefix)?;
        match (self.min, self.max) {
            (min, max) if min == max && min == self.prefix.prefix_len() => Ok(()),
            (min, max) if min == max => write!(f, " length {min}"),
            (min, max) => write!(f, " length {min}-{max}"),
        }
    }
}

/// The part of an import policy that looks at the prefix.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum ImportMode {
    /// `0.0.0.0/0` or `::/0` and nothing else. The default: what a node at the edge of a fabric
    /// needs, and nothing that could draw its own prefixes away.
    #[default]
    DefaultRoute,
    /// Prefixes in any of these ranges.
    Prefixes(Vec<PrefixRange>),
    /// Everything.
    All,
    /// Nothing.
    None,
}

/// Which of a neighbour's routes are taken.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ImportPolicy {
    /// By prefix.
    pub mode: ImportMode,
}

impl ImportPolicy {
    /// Whether the policy takes a prefix.
    pub fn accepts(&self, prefix: &IpNet) -> bool {
        match &self.mode {
            ImportMode::DefaultRoute => prefix.prefix_len() == 0,
            ImportMode::Prefixes(ranges) => ranges.iter().any(|range| range.contains(prefix)),
            ImportMode::All => true,
            ImportMode::None => false,
        }
    }
}
