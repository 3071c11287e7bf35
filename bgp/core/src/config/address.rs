// SPDX-License-Identifier: Apache-2.0
//! Where a neighbour is, and the secret shared with it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Where a neighbour is: an address, with the link for a link-local one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PeerAddress {
    ip: IpAddr,
    zone: Option<String>,
}

impl PeerAddress {
    /// Takes an address and, for a link-local one, the name of its interface.
    ///
    /// # Errors
    /// Addresses nobody can have, and link-local addresses without a zone.
    pub fn new(ip: IpAddr, zone: Option<String>) -> Result<PeerAddress, ConfigError> {
        if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(ConfigError::NotUnicast(ip));
        }
        if zone.is_none() && matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
            return Err(ConfigError::ZoneMissing(ip));
        }
        Ok(PeerAddress { ip, zone })
    }

    /// No address: that of a template.
    pub(super) fn unset() -> PeerAddress {
        PeerAddress {
            ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            zone: None,
        }
    }

    /// The address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The name of the interface the address is on, where it was given.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.zone {
            Some(zone) => write!(f, "{}%{zone}", self.ip),
            None => fmt::Display::fmt(&self.ip, f),
        }
    }
}

/// A TCP MD5 password (RFC 2385). Never shown: not by `Debug`, not in recordings.
#[derive(Clone, PartialEq, Eq)]
pub struct Md5Password(Vec<u8>);

impl Md5Password {
    /// Takes 1 to 80 bytes, the length the kernel takes.
    ///
    /// # Errors
    /// Any other length. An empty password is no password and is refused.
    pub fn new(password: impl Into<Vec<u8>>) -> Result<Md5Password, ConfigError> {
        let password = password.into();
        if password.is_empty() || password.len() > 80 {
            return Err(ConfigError::Md5Length(password.len()));
        }
        Ok(Md5Password(password))
    }

    /// The secret itself, for the socket option and nothing else.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Md5Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Password(redacted)")
    }
}

impl Serialize for Md5Password {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("redacted")
    }
}

impl<'de> Deserialize<'de> for Md5Password {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Md5Password::new(text).map_err(serde::de::Error::custom)
    }
}
