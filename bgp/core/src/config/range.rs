// SPDX-License-Identifier: Apache-2.0
//! Neighbours that are not named: whoever calls from a prefix.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use router_types::Asn;
use serde::{Deserialize, Serialize};

use super::{ConfigError, ConnectMode, PeerAddress, PeerConfig, PeerName};
use crate::serial;

/// A prefix whose addresses may call and become neighbours while their sessions last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListenRange {
    #[serde(with = "serial::text")]
    prefix: IpNet,
    max: u16,
    /// The AS numbers that are taken; empty takes any that the template takes.
    pub asns: Vec<AsnRange>,
    template: Box<PeerConfig>,
}

/// AS numbers from one to another, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AsnRange {
    first: u32,
    last: u32,
}

impl AsnRange {
    /// The numbers of a range.
    pub fn new(range: RangeInclusive<u32>) -> AsnRange {
        AsnRange {
            first: *range.start(),
            last: *range.end(),
        }
    }

    /// Whether a number is among them.
    pub fn contains(self, asn: Asn) -> bool {
        (self.first..=self.last).contains(&asn.0)
    }
}

impl ListenRange {
    /// Takes a prefix (host bits are dropped), the most neighbours there may be at once, and what
    /// they are like: see [`PeerConfig::template`]. They call and are never dialled.
    ///
    /// # Errors
    /// A maximum of 0.
    pub fn new(prefix: IpNet, max: u16, template: PeerConfig) -> Result<ListenRange, ConfigError> {
        if max == 0 {
            return Err(ConfigError::RangeWithoutRoom(prefix.to_string()));
        }
        Ok(ListenRange {
            prefix: prefix.trunc(),
            max,
            asns: Vec::new(),
            template: Box::new(template),
        })
    }

    /// The prefix.
    pub fn prefix(&self) -> IpNet {
        self.prefix
    }

    /// The most neighbours at once.
    pub fn max(&self) -> u16 {
        self.max
    }

    /// What its neighbours are like; the address in it means nothing.
    pub fn template(&self) -> &PeerConfig {
        &self.template
    }

    /// The configuration of the neighbour that calls from an address, with the link for a
    /// link-local one; `None` where the address is none of the range.
    pub fn neighbour(&self, ip: IpAddr, zone: Option<String>) -> Option<PeerConfig> {
        if !self.prefix.contains(&ip) {
            return None;
        }
        let address = PeerAddress::new(ip, zone).ok()?;
        Some(PeerConfig {
            address,
            connect: ConnectMode::Passive,
            asns: self.asns.clone(),
            ..(*self.template).clone()
        })
    }

    /// The name such a neighbour has: that of the range and the address.
    pub fn neighbour_name(range: &PeerName, address: &PeerAddress) -> PeerName {
        PeerName::from(format!("{range}:{address}"))
    }
}
