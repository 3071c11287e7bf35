// SPDX-License-Identifier: Apache-2.0
//! What an operator wants of a session, valid by construction.

use std::fmt;
use std::num::NonZeroU8;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What cannot be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProfileError {
    /// Faster than a host can keep up, or so slow that it detects nothing.
    #[error("interval {0} ms: use 10 to 60000 ms")]
    Interval(u64),
    /// A multiplier of 0 would be down at once.
    #[error("multiplier 0: use 1 to 255")]
    Multiplier,
    /// RFC 5880 §4.2 to §4.4: 1 to 16 octets, for SHA1 up to 20.
    #[error("authentication key of {length} octets: use 1 to {max}")]
    KeyLength {
        /// The length found.
        length: usize,
        /// The longest of the type.
        max: usize,
    },
}

/// Time between packets, 10 ms to 60 s.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Interval(u32);

impl Interval {
    /// Takes milliseconds, 10 to 60000.
    ///
    /// # Errors
    /// Another number.
    pub fn from_ms(ms: u64) -> Result<Interval, ProfileError> {
        match ms {
            10..=60_000 => Ok(Interval(ms as u32)),
            _ => Err(ProfileError::Interval(ms)),
        }
    }

    /// In milliseconds.
    pub fn ms(self) -> u32 {
        self.0
    }

    /// In microseconds, the unit of the protocol.
    pub fn us(self) -> u32 {
        self.0 * 1000
    }
}

impl TryFrom<u32> for Interval {
    type Error = ProfileError;

    fn try_from(ms: u32) -> Result<Interval, ProfileError> {
        Interval::from_ms(u64::from(ms))
    }
}

impl From<Interval> for u32 {
    fn from(interval: Interval) -> u32 {
        interval.0
    }
}

impl From<Interval> for Duration {
    fn from(interval: Interval) -> Duration {
        Duration::from_millis(u64::from(interval.0))
    }
}

/// How packets are authenticated (RFC 5880 §4.2 to §4.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthType {
    /// The key itself in every packet: against mistakes, not against anybody.
    SimplePassword,
    /// MD5, the sequence number counted up now and then.
    KeyedMd5,
    /// MD5, the sequence number counted up with every packet.
    MeticulousKeyedMd5,
    /// SHA1, the sequence number counted up now and then.
    KeyedSha1,
    /// SHA1, the sequence number counted up with every packet.
    MeticulousKeyedSha1,
}

impl AuthType {
    /// All types, in the order of their codes.
    pub const ALL: [AuthType; 5] = [
        AuthType::SimplePassword,
        AuthType::KeyedMd5,
        AuthType::MeticulousKeyedMd5,
        AuthType::KeyedSha1,
        AuthType::MeticulousKeyedSha1,
    ];

    /// The longest key in octets.
    pub const fn max_key(self) -> usize {
        match self {
            AuthType::SimplePassword | AuthType::KeyedMd5 | AuthType::MeticulousKeyedMd5 => 16,
            AuthType::KeyedSha1 | AuthType::MeticulousKeyedSha1 => 20,
        }
    }

    /// Whether the sequence number goes up with every packet.
    pub const fn is_meticulous(self) -> bool {
        matches!(
            self,
            AuthType::MeticulousKeyedMd5 | AuthType::MeticulousKeyedSha1
        )
    }
}

/// A key with its number. Never shown: not by `Debug`, not where it is serialised.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    kind: AuthType,
    key_id: u8,
    key: Vec<u8>,
}

impl Auth {
    /// Takes a key of 1 to 16 octets, for SHA1 to 20, and the number both ends call it by.
    ///
    /// # Errors
    /// Another length.
    pub fn new(kind: AuthType, key_id: u8, key: impl Into<Vec<u8>>) -> Result<Auth, ProfileError> {
        let key = key.into();
        if key.is_empty() || key.len() > kind.max_key() {
            return Err(ProfileError::KeyLength {
                length: key.len(),
                max: kind.max_key(),
            });
        }
        Ok(Auth { kind, key_id, key })
    }

    /// The type.
    pub fn kind(&self) -> AuthType {
        self.kind
    }

    /// The number of the key.
    pub fn key_id(&self) -> u8 {
        self.key_id
    }

    /// The secret itself, for packets and for the process that makes them.
    pub fn reveal(&self) -> &[u8] {
        &self.key
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Auth({:?}, key {}, redacted)", self.kind, self.key_id)
    }
}

/// The echo function of a session (RFC 5880 §6.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Echo {
    /// Echo packets of our own, as often as this; `None` sends none. One hop only.
    pub transmit: Option<Interval>,
    /// How often the neighbour may send us its own; `None` refuses them.
    pub receive: Option<Interval>,
}

/// What is wanted of a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// How often we would like to send once the session is up (`bfd.DesiredMinTxInterval`).
    /// Default 300 ms.
    pub transmit: Interval,
    /// How often the neighbour may send (`bfd.RequiredMinRxInterval`). Default 300 ms.
    pub receive: Interval,
    /// Lost packets in a row that mean down (`bfd.DetectMult`). Default 3.
    pub multiplier: NonZeroU8,
    /// The echo function. Default off.
    pub echo: Echo,
    /// Whether the neighbour has to speak first (RFC 5880 §6.1). Default no.
    pub passive: bool,
    /// The lowest TTL taken over several hops. Default 254, one router between. One hop always
    /// demands 255 (RFC 5881 §5).
    pub minimum_ttl: u8,
    /// Authentication. Not part of any serialised form.
    #[serde(skip)]
    pub auth: Option<Auth>,
}

impl Default for Profile {
    fn default() -> Profile {
        Profile {
            transmit: Interval(300),
            receive: Interval(300),
            multiplier: NonZeroU8::new(3).expect("3 is not 0"),
            echo: Echo::default(),
            passive: false,
            minimum_ttl: 254,
            auth: None,
        }
    }
}

/// How far a neighbour is.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Hops {
    /// On a link (RFC 5881): UDP port 3784, TTL 255 both ways.
    #[default]
    Single,
    /// Behind routers (RFC 5883): UDP port 4784, [`Profile::minimum_ttl`].
    Multi,
}
