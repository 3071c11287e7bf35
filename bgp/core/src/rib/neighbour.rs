// SPDX-License-Identifier: Apache-2.0
//! What the RIB knows of a neighbour.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Instant;

use bgp_wire::FamilyContext;
use router_types::{Asn, Family};
use serde::{Deserialize, Serialize};

use super::attributes::AttrId;
use super::prefix_map::PrefixMap;
use crate::config::{FamilyConfig, PeerName};
use crate::peer::{Negotiated, SessionAddresses};
use crate::serial;

/// A family of a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct SessionFamily {
    /// The family.
    #[serde(with = "serial::family")]
    pub family: Family,
    /// Whether IPv4 prefixes may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// Whether routes are kept while the neighbour restarts (RFC 4724 §3).
    pub graceful: bool,
    /// Whether the neighbour kept forwarding over its restart (RFC 4724 §3, the F bit).
    pub forwarding_preserved: bool,
}

impl SessionFamily {
    pub(super) fn context(&self) -> FamilyContext {
        FamilyContext {
            extended_next_hop: self.extended_next_hop,
            ..FamilyContext::plain(self.family)
        }
    }
}

/// What matters to the RIB about a session that came up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionInfo {
    /// The neighbour's AS number.
    #[serde(with = "serial::asn")]
    pub peer_asn: Asn,
    /// Its identifier.
    pub peer_router_id: Ipv4Addr,
    /// Whether it is of the own AS.
    pub internal: bool,
    /// Whether AS numbers have four octets.
    pub four_octet_as: bool,
    /// The longest message.
    pub max_len: usize,
    /// The families.
    pub families: Vec<SessionFamily>,
    /// The ends of the connection.
    pub addresses: SessionAddresses,
}

impl From<&Negotiated> for SessionInfo {
    fn from(negotiated: &Negotiated) -> Self {
        let listed = |family: Family| {
            let restart = negotiated.graceful_restart.as_ref()?;
            let entry = restart
                .families
                .iter()
                .find(|entry| entry.family == family)?;
            Some(entry.forwarding_preserved)
        };
        SessionInfo {
            peer_asn: negotiated.peer_asn,
            peer_router_id: negotiated.peer_router_id,
            internal: negotiated.is_internal(),
            four_octet_as: negotiated.context.four_octet_as,
            max_len: negotiated.context.max_len(),
            families: negotiated
                .context
                .families
                .iter()
                .map(|context| SessionFamily {
                    family: context.family,
                    extended_next_hop: context.extended_next_hop,
                    graceful: listed(context.family).is_some(),
                    forwarding_preserved: listed(context.family) == Some(true),
                })
                .collect(),
            addresses: negotiated.addresses.clone(),
        }
    }
}

/// Routes of a neighbour in one family.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FamilyCounts {
    /// Sent by the neighbour and not withdrawn: accepted and rejected.
    pub received: u64,
    /// Of these, accepted by policy.
    pub accepted: u64,
    /// Of these, rejected: by policy, as loops, or beyond the limit.
    pub rejected: u64,
    /// Accepted ones kept from the session before (RFC 4724).
    pub stale: u64,
    /// Sent to the neighbour.
    pub advertised: u64,
}

#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) name: PeerName,
    /// Policies; of the last configuration that named it.
    pub(super) families: BTreeMap<Family, FamilyConfig>,
    pub(super) allow_own_as: u8,
    /// The session, while up; the last one's while routes of it are stale.
    pub(super) session: Option<SessionInfo>,
    pub(super) up: bool,
    /// Rejected routes; with attributes where they are kept.
    pub(super) rejected: PrefixMap<AttrId>,
    pub(super) accepted: BTreeMap<Family, u64>,
    pub(super) stale: BTreeMap<Family, u64>,
    pub(super) stale_until: Option<Instant>,
    /// Families over their limit in this session.
    pub(super) over_limit: BTreeSet<Family>,
}

impl Neighbour {
    pub(super) fn new(name: PeerName) -> Neighbour {
        Neighbour {
            name,
            families: BTreeMap::new(),
            allow_own_as: 0,
            session: None,
            up: false,
            rejected: PrefixMap::default(),
            accepted: BTreeMap::new(),
            stale: BTreeMap::new(),
            stale_until: None,
            over_limit: BTreeSet::new(),
        }
    }

    pub(super) fn is_external(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| !session.internal)
    }

    pub(super) fn counts(&self) -> BTreeMap<Family, FamilyCounts> {
        let session = self.session.iter().flat_map(|session| &session.families);
        let families: BTreeSet<Family> = session.map(|f| f.family).collect();
        let of = |counts: &BTreeMap<Family, u64>, family| counts.get(&family).copied().unwrap_or(0);
        families
            .into_iter()
            .map(|family| {
                let accepted = of(&self.accepted, family);
                let rejected = self.rejected.len_of(family) as u64;
                let counts = FamilyCounts {
                    received: accepted + rejected,
                    accepted,
                    rejected,
                    stale: of(&self.stale, family),
                    advertised: 0,
                };
                (family, counts)
            })
            .collect()
    }
}
