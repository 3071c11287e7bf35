// SPDX-License-Identifier: Apache-2.0
//! Routes on their way from a session to the RIB.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use router_types::Family;
use serde::{Deserialize, Serialize};

use crate::serial;

/// A next hop as announced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct NextHopAddress {
    /// The address; an IPv6 one also for IPv4 prefixes where RFC 8950 was agreed.
    pub address: IpAddr,
    /// The link-local address beside a global one (RFC 2545 §3).
    pub link_local: Option<Ipv6Addr>,
}

/// One thing an UPDATE says. An UPDATE becomes one to four of these, withdrawals first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RouteChange {
    /// Routes that are there, or there with other attributes.
    Announce {
        /// Family of the prefixes.
        #[serde(with = "serial::family")]
        family: Family,
        /// The path attributes in canonical form: ordered by type, AS numbers of four octets,
        /// without next hop and multiprotocol attributes. Equal bytes are equal attributes.
        #[serde(with = "serial::shared_hex")]
        attributes: Arc<[u8]>,
        /// The next hop.
        next_hop: NextHopAddress,
        /// The destinations.
        #[serde(with = "serial::texts")]
        prefixes: Vec<IpNet>,
    },
    /// Routes that are gone, or must be treated so (RFC 7606 §2).
    Withdraw {
        /// Family of the prefixes.
        #[serde(with = "serial::family")]
        family: Family,
        /// The destinations.
        #[serde(with = "serial::texts")]
        prefixes: Vec<IpNet>,
    },
    /// All routes of the family were sent (RFC 4724 §2).
    EndOfRib {
        /// The family.
        #[serde(with = "serial::family")]
        family: Family,
    },
}

impl RouteChange {
    /// How many prefixes it is about, the measure of work.
    pub fn len(&self) -> usize {
        match self {
            RouteChange::Announce { prefixes, .. } | RouteChange::Withdraw { prefixes, .. } => {
                prefixes.len()
            }
            RouteChange::EndOfRib { .. } => 0,
        }
    }

    /// Whether it is about no prefix.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
