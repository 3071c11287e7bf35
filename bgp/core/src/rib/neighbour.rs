// SPDX-License-Identifier: Apache-2.0
//! What the RIB knows of a neighbour.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp_wire::{FamilyContext, PathNextHop, Role, RouteTargetPrefix};
use router_types::{Asn, Family, Safi};
use serde::{Deserialize, Serialize};

use super::PeerId;
use super::inheritance::Unsettled;
use super::intake::Intake;
use crate::config::{PeerConfig, PeerName};
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
    /// Whether the neighbour may send several paths for a prefix (RFC 7911).
    #[serde(default)]
    pub add_path_receive: bool,
    /// Whether it may be sent several.
    #[serde(default)]
    pub add_path_send: bool,
}

impl SessionFamily {
    pub(super) fn context(&self) -> FamilyContext {
        FamilyContext {
            extended_next_hop: self.extended_next_hop,
            add_path_receive: self.add_path_receive,
            add_path_send: self.add_path_send,
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
    /// The AS number this end has in the session, where it is not that of the instance.
    #[serde(with = "serial::asn_option", default)]
    pub local_asn: Option<Asn>,
    /// The role this end has (RFC 9234 §4.1).
    #[serde(with = "serial::role_option", default)]
    pub role: Option<Role>,
    /// Whether the neighbour knows long-lived stale routes (RFC 9494 §4.3).
    #[serde(default)]
    pub long_lived: bool,
    /// Whether begin and end of refreshes are marked (RFC 7313).
    #[serde(default)]
    pub enhanced_refresh: bool,
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
                    add_path_receive: context.add_path_receive,
                    add_path_send: context.add_path_send,
                })
                .collect(),
            addresses: negotiated.addresses.clone(),
            local_asn: Some(negotiated.local_asn),
            role: negotiated.role,
            long_lived: !negotiated.long_lived.is_empty(),
            enhanced_refresh: negotiated.enhanced_refresh,
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
    /// Not sent to it, since it is sent as many as it may be.
    pub held: u64,
    /// How long after the session came up the neighbour had sent all its routes (End-of-RIB);
    /// `None` before.
    pub synced_after: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) name: PeerName,
    /// The last configuration that named it.
    pub(super) config: PeerConfig,
    /// How routes come in, by table.
    pub(super) intakes: Vec<Option<Arc<Intake>>>,
    /// The session, while up; the last one's while routes of it are stale.
    pub(super) session: Option<SessionInfo>,
    pub(super) up: bool,
    /// When the session came up.
    pub(super) up_since: Option<Instant>,
    /// How long after it the neighbour had sent all its routes, by family.
    pub(super) synced: BTreeMap<Family, Duration>,
    pub(super) accepted: BTreeMap<Family, u64>,
    pub(super) rejected: BTreeMap<Family, u64>,
    pub(super) stale: BTreeMap<Family, u64>,
    pub(super) stale_until: Option<Instant>,
    /// How long its routes are kept beyond that (RFC 9494), by family.
    pub(super) long_lived: BTreeMap<Family, Duration>,
    /// Until when those that are kept beyond that are.
    pub(super) lingers_until: BTreeMap<Family, Instant>,
    /// Families that are being sent again (RFC 7313 §4): what is stale was there before.
    pub(super) refreshing: BTreeSet<Family>,
    /// Families over their limit in this session.
    pub(super) over_limit: BTreeSet<Family>,
    /// Families whose limit was said to be near in this session.
    pub(super) near_limit: BTreeSet<Family>,
    /// Whether it is sent the VPN routes alone that it asks for (RFC 4684).
    pub(super) has_targets: bool,
    /// Until when it is waited for to say what it asks for.
    pub(super) targets_until: Option<Instant>,
    /// What it asked for before a handover, until it has said so again.
    pub(super) asked_before: Vec<RouteTargetPrefix>,
    /// What is left to be done after a handover.
    pub(super) unsettled: Option<Unsettled>,
}

impl Neighbour {
    pub(super) fn new(name: PeerName, config: PeerConfig) -> Neighbour {
        Neighbour {
            name,
            config,
            intakes: Vec::new(),
            session: None,
            up: false,
            up_since: None,
            synced: BTreeMap::new(),
            accepted: BTreeMap::new(),
            rejected: BTreeMap::new(),
            stale: BTreeMap::new(),
            stale_until: None,
            long_lived: BTreeMap::new(),
            lingers_until: BTreeMap::new(),
            refreshing: BTreeSet::new(),
            over_limit: BTreeSet::new(),
            near_limit: BTreeSet::new(),
            has_targets: false,
            targets_until: None,
            asked_before: Vec::new(),
            unsettled: None,
        }
    }

    /// How routes of a table's family come in.
    pub(super) fn intake(&self, slot: usize) -> Option<Arc<Intake>> {
        self.intakes.get(slot)?.clone()
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
                let rejected = of(&self.rejected, family);
                let counts = FamilyCounts {
                    received: accepted + rejected,
                    accepted,
                    rejected,
                    stale: of(&self.stale, family),
                    advertised: 0,
                    held: 0,
                    synced_after: self.synced.get(&family).copied(),
                };
                (family, counts)
            })
            .collect()
    }
}

/// All neighbours by number.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    slots: Vec<Option<Box<Neighbour>>>,
    ids: BTreeMap<PeerName, PeerId>,
    /// The numbers some had in the process before, which nobody else gets.
    kept: BTreeMap<PeerName, PeerId>,
}

impl Neighbours {
    #[inline]
    pub(super) fn get(&self, id: PeerId) -> Option<&Neighbour> {
        self.slots.get(usize::from(id))?.as_deref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: PeerId) -> Option<&mut Neighbour> {
        self.slots.get_mut(usize::from(id))?.as_deref_mut()
    }

    pub(super) fn id(&self, name: &PeerName) -> Option<PeerId> {
        self.ids.get(name).copied()
    }

    pub(super) fn ids(&self) -> &BTreeMap<PeerName, PeerId> {
        &self.ids
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Neighbour> {
        self.slots.iter().flatten().map(|neighbour| &**neighbour)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (PeerId, &mut Neighbour)> {
        let numbered = self.slots.iter_mut().enumerate();
        numbered.filter_map(|(id, slot)| Some((id as PeerId, slot.as_deref_mut()?)))
    }

    /// The number of a neighbour, a new one where needed.
    pub(super) fn add(&mut self, name: &PeerName, config: &PeerConfig) -> PeerId {
        if let Some(id) = self.id(name) {
            return id;
        }
        let neighbour = Neighbour::new(name.clone(), config.clone());
        self.place(Box::new(neighbour))
    }

    /// Gives all of them new numbers: those named the ones they had. Nothing must refer to the
    /// numbers before.
    pub(super) fn renumber(&mut self, numbers: BTreeMap<PeerName, PeerId>) {
        self.kept = numbers;
        self.ids.clear();
        for neighbour in std::mem::take(&mut self.slots).into_iter().flatten() {
            self.place(neighbour);
        }
    }

    fn place(&mut self, neighbour: Box<Neighbour>) -> PeerId {
        let is_empty = |id: &PeerId| {
            let slot = self.slots.get(usize::from(*id));
            *id < PeerId::MAX && slot.is_none_or(Option::is_none)
        };
        let had = self.kept.get(&neighbour.name).copied();
        let id = had.filter(is_empty).unwrap_or_else(|| {
            let kept: BTreeSet<PeerId> = self.kept.values().copied().collect();
            let mut numbers = 0..PeerId::MAX;
            let free = numbers.find(|id| is_empty(id) && !kept.contains(id));
            free.expect("an instance has fewer than 65535 neighbours")
        });
        let at = usize::from(id);
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        self.ids.insert(neighbour.name.clone(), id);
        self.slots[at] = Some(neighbour);
        id
    }

    pub(super) fn remove(&mut self, name: &PeerName) {
        if let Some(id) = self.ids.remove(name) {
            self.kept.remove(name);
            self.slots[usize::from(id)] = None;
        }
    }
}

/// The next hop for a family: the configured one, else this end of the session or an address of
/// its link in the family that can be announced. `None` when there is no such address.
pub(super) fn own_next_hop(
    family: &SessionFamily,
    session: &SessionInfo,
    wanted: Option<IpAddr>,
) -> Option<PathNextHop> {
    let addresses = &session.addresses;
    let v6 = |global: std::net::Ipv6Addr| {
        // RFC 2545 §3: the link-local address goes along where the neighbour shares the link.
        // A session on link-local addresses is where that is known.
        let local = match addresses.local.ip() {
            IpAddr::V6(local) if local.is_unicast_link_local() && local != global => Some(local),
            IpAddr::V6(_) | IpAddr::V4(_) => None,
        };
        PathNextHop::V6 {
            global,
            link_local: local,
        }
    };
    if family.family.safi != Safi::UNICAST {
        // Of VPN routes this end is never the next hop, and of memberships it may be either.
        return Some(PathNextHop::from_address(addresses.local.ip()));
    }
    let ipv4 = family.family == Family::IPV4_UNICAST;
    let own_v6 = |local: std::net::Ipv6Addr| {
        if local.is_unicast_link_local() {
            addresses.link_ipv6.unwrap_or(local)
        } else {
            local
        }
    };
    match (wanted.unwrap_or(addresses.local.ip()), ipv4) {
        (IpAddr::V4(address), true) => Some(PathNextHop::V4(address)),
        (IpAddr::V6(address), true) if family.extended_next_hop => Some(v6(own_v6(address))),
        (IpAddr::V6(_), true) => addresses.link_ipv4.map(PathNextHop::V4),
        (IpAddr::V6(address), false) => Some(v6(own_v6(address))),
        (IpAddr::V4(_), false) => addresses.link_ipv6.map(v6),
    }
}
