// SPDX-License-Identifier: Apache-2.0
//! OPEN: what is offered, and whether the neighbour's offer can be agreed with (RFC 4271 §6.2).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use bgp_wire::{
    AddPath, Capability, ErrorKind, ExtendedNextHop, GracefulFamily, GracefulRestart,
    LongLivedStale, Notification, Open, PeerKind, Role, SessionContext,
};
use router_types::{Afi, Asn, Family};
use serde::{Deserialize, Serialize};

use super::reason::{DownReason, NotificationText};
use super::{LocalSpeaker, SessionAddresses};
use crate::config::{CapabilityUse, PeerConfig};

/// Code of the role capability (RFC 9234 §4.1).
const ROLE_CODE: u8 = 9;

/// What the two ends agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Negotiated {
    /// The neighbour's AS number.
    pub peer_asn: Asn,
    /// The neighbour's identifier.
    pub peer_router_id: Ipv4Addr,
    /// The AS number this end has in the session: its own, or the one of
    /// [`LocalAs`](crate::config::LocalAs).
    pub local_asn: Asn,
    /// The hold time in seconds, the lower of both; 0 means the session never expires.
    pub hold_s: u16,
    /// The keepalive interval; `None` when none are sent.
    pub keepalive: Option<Duration>,
    /// How messages are read and written: session kind, AS number width, families.
    pub context: SessionContext,
    /// Whether the neighbour takes ROUTE-REFRESH.
    pub route_refresh: bool,
    /// Whether begin and end of a refresh are marked (RFC 7313).
    pub enhanced_refresh: bool,
    /// The neighbour's graceful restart capability, when this end offered its own; its families are
    /// among the negotiated ones.
    pub graceful_restart: Option<GracefulRestart>,
    /// Whether NOTIFICATION and hold timer expiry keep routes, both ways, but for a Hard Reset (RFC
    /// 8538): both ends set the N bit.
    pub notification_restart: bool,
    /// How long routes of a family are kept as the last resort after the restart time (RFC 9494):
    /// the families both ends offered, each with the shorter of the neighbour's time and this end's.
    pub long_lived: BTreeMap<Family, LongLived>,
    /// The role this end has towards the external neighbour, where one is configured and the
    /// neighbour's does not contradict it (RFC 9234); it decides over ONLY_TO_CUSTOMER.
    pub role: Option<Role>,
    /// The ends of the connection.
    pub addresses: SessionAddresses,
}

impl Negotiated {
    /// Whether the neighbour is of the own AS.
    pub fn is_internal(&self) -> bool {
        self.context.peer == PeerKind::Internal
    }

    /// The families of the session.
    pub fn families(&self) -> impl Iterator<Item = Family> + '_ {
        self.context.families.iter().map(|family| family.family)
    }
}

/// What was agreed about long-lived stale routes of a family (RFC 9494 §4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LongLived {
    /// How long the neighbour's routes are kept beyond its restart time.
    pub stale_time: Duration,
    /// F: the neighbour kept forwarding while it was away. Routes of a family without it are
    /// dropped when its session comes back.
    pub forwarding_preserved: bool,
}

/// How much an OPEN offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OpenStyle {
    /// All capabilities.
    Full,
    /// None, for a neighbour that refused them (RFC 5492 §3).
    Bare,
}

/// The OPEN to send, as the AS given.
pub(super) fn offer(config: &PeerConfig, local: &LocalSpeaker, asn: Asn, style: OpenStyle) -> Open {
    let capabilities = match (style, config.capabilities) {
        (OpenStyle::Full, CapabilityUse::Fallback | CapabilityUse::Always) => {
            capabilities(config, local, asn)
        }
        (OpenStyle::Bare, _) | (_, CapabilityUse::Never) => Vec::new(),
    };
    Open {
        asn,
        hold_time_s: config.timers.hold_s(),
        router_id: local.router_id,
        capabilities,
    }
}

fn capabilities(config: &PeerConfig, local: &LocalSpeaker, asn: Asn) -> Vec<Capability> {
    let families = config.families();
    let mut list: Vec<Capability> = families
        .keys()
        .map(|family| Capability::Multiprotocol(*family))
        .collect();
    list.push(Capability::RouteRefresh);
    list.push(Capability::EnhancedRouteRefresh);
    let extended: Vec<ExtendedNextHop> = [Family::IPV4_UNICAST, Family::VPNV4]
        .into_iter()
        .filter(|family| families.contains_key(family))
        .map(|family| ExtendedNextHop {
            family,
            next_hop: Afi::IPV6,
        })
        .collect();
    if !extended.is_empty() {
        list.push(Capability::ExtendedNextHop(extended));
    }
    if config.extended_messages {
        list.push(Capability::ExtendedMessages);
    }
    // RFC 9234 §4.1: roles are for external sessions.
    if let Some(role) = config.role
        && config.asn != Some(asn)
    {
        list.push(Capability::Role(role.role));
    }
    let add_path: Vec<AddPath> = families
        .iter()
        .map(|(family, config)| AddPath {
            family: *family,
            receive: config.add_path.receive,
            send: config.add_path.send.is_some(),
        })
        .filter(|entry| entry.receive || entry.send)
        .collect();
    if !add_path.is_empty() {
        list.push(Capability::AddPath(add_path));
    }
    if let Some(restart) = config.graceful_restart {
        let family = |family: &Family| GracefulFamily {
            family: *family,
            forwarding_preserved: local.forwarding_preserved,
        };
        list.push(Capability::GracefulRestart(GracefulRestart {
            restarted: local.restarted,
            notification: restart.notification,
            restart_time_s: restart.restart_time_s(),
            families: families.keys().map(family).collect(),
        }));
        // RFC 9494 §4.2: only beside graceful restart.
        let stale: Vec<LongLivedStale> = families
            .iter()
            .filter_map(|(family, config)| {
                Some(LongLivedStale {
                    family: *family,
                    forwarding_preserved: local.forwarding_preserved,
                    stale_time_s: config.long_lived?.seconds(),
                })
            })
            .collect();
        if !stale.is_empty() {
            list.push(Capability::LongLivedGracefulRestart(stale));
        }
    }
    list.push(Capability::FourOctetAs(asn));
    list
}

/// Why an OPEN cannot be agreed with: what to answer, and what to tell the operator.
pub(super) struct Refusal {
    pub(super) notification: Notification,
    pub(super) reason: DownReason,
}

/// Judges the neighbour's OPEN.
pub(super) fn judge(
    config: &PeerConfig,
    local: &LocalSpeaker,
    ours: &Open,
    theirs: &Open,
    addresses: &SessionAddresses,
) -> Result<Negotiated, Refusal> {
    check_asn(config, theirs)?;
    // RFC 6286 §2.2: identifiers are unique within an AS, not across them.
    if theirs.router_id == local.router_id && theirs.asn == ours.asn {
        return Err(Refusal {
            notification: Notification::new(ErrorKind::BAD_BGP_IDENTIFIER),
            reason: DownReason::SameRouterId,
        });
    }
    let context = SessionContext::negotiate(ours, theirs);
    if context.families.is_empty() {
        return Err(no_common_family(ours, theirs));
    }
    let role = if context.peer == PeerKind::External {
        check_role(config, theirs)?
    } else {
        None
    };
    let hold_s = config.timers.hold_s().min(theirs.hold_time_s);
    let negotiated: BTreeSet<Family> = context.families.iter().map(|f| f.family).collect();
    let graceful_restart = ours_and_theirs_restart(ours, theirs, &negotiated);
    Ok(Negotiated {
        peer_asn: theirs.asn,
        peer_router_id: theirs.router_id,
        local_asn: ours.asn,
        hold_s,
        keepalive: config.timers.keepalive_under(hold_s),
        route_refresh: offers_refresh(ours) && offers_refresh(theirs),
        enhanced_refresh: marks_refresh(ours) && marks_refresh(theirs),
        notification_restart: graceful_restart
            .as_ref()
            .is_some_and(|(ours, theirs)| ours.notification && theirs.notification),
        long_lived: if graceful_restart.is_some() {
            long_lived(ours, theirs, &negotiated)
        } else {
            BTreeMap::new()
        },
        graceful_restart: graceful_restart.map(|(_, theirs)| theirs),
        role,
        context,
        addresses: addresses.clone(),
    })
}

fn check_asn(config: &PeerConfig, theirs: &Open) -> Result<(), Refusal> {
    let refuse = |reason| {
        Err(Refusal {
            notification: Notification::with_data(
                ErrorKind::BAD_PEER_AS,
                theirs.asn.to_two_octet().to_be_bytes(),
            ),
            reason,
        })
    };
    if let Some(configured) = config.asn
        && configured != theirs.asn
    {
        return refuse(DownReason::PeerAs {
            found: theirs.asn,
            configured,
        });
    }
    if !config.asns.is_empty() && !config.asns.iter().any(|range| range.contains(theirs.asn)) {
        return refuse(DownReason::PeerAsNotInRange { found: theirs.asn });
    }
    Ok(())
}

fn no_common_family(ours: &Open, theirs: &Open) -> Refusal {
    let mut wanted = Vec::new();
    for capability in &ours.capabilities {
        if matches!(capability, Capability::Multiprotocol(_)) {
            capability.encode(&mut wanted);
        }
    }
    let names = |families: Vec<Family>| families.iter().map(ToString::to_string).collect();
    Refusal {
        notification: Notification::with_data(ErrorKind::UNSUPPORTED_CAPABILITY, wanted),
        reason: DownReason::NoCommonFamily {
            offered: names(theirs.families()),
            configured: names(ours.families()),
        },
    }
}

/// RFC 9234 §4.2. A role of a code this version does not know fits none, and several different
/// ones fit none either.
fn check_role(config: &PeerConfig, theirs: &Open) -> Result<Option<Role>, Refusal> {
    let Some(configured) = config.role else {
        return Ok(None);
    };
    let offered: Vec<&Capability> = theirs
        .capabilities
        .iter()
        .filter(|capability| capability.code() == ROLE_CODE)
        .collect();
    let fits = offered.iter().all(|capability| {
        matches!(capability, Capability::Role(theirs) if configured.role.fits(*theirs))
    });
    if fits && !(offered.is_empty() && configured.strict) {
        return Ok(Some(configured.role));
    }
    let names: Vec<String> = offered
        .iter()
        .map(|capability| match capability {
            Capability::Role(role) => role.to_string(),
            _ => "an unknown role".to_owned(),
        })
        .collect();
    Err(Refusal {
        notification: Notification::new(ErrorKind::ROLE_MISMATCH),
        reason: DownReason::RoleMismatch {
            ours: configured.role.to_string(),
            theirs: names.join(" and "),
        },
    })
}

/// Both graceful restart capabilities, the neighbour's cut to the negotiated families: waiting for
/// End-of-RIB of any other would be waiting for nothing.
fn ours_and_theirs_restart(
    ours: &Open,
    theirs: &Open,
    negotiated: &BTreeSet<Family>,
) -> Option<(GracefulRestart, GracefulRestart)> {
    let find = |open: &Open| {
        open.capabilities.iter().find_map(|capability| {
            if let Capability::GracefulRestart(restart) = capability {
                Some(restart.clone())
            } else {
                None
            }
        })
    };
    let (ours, mut theirs) = (find(ours)?, find(theirs)?);
    theirs
        .families
        .retain(|family| negotiated.contains(&family.family));
    Some((ours, theirs))
}

fn long_lived(
    ours: &Open,
    theirs: &Open,
    negotiated: &BTreeSet<Family>,
) -> BTreeMap<Family, LongLived> {
    let entries = |open: &Open| -> Vec<LongLivedStale> {
        let lists = open.capabilities.iter().filter_map(|capability| {
            if let Capability::LongLivedGracefulRestart(list) = capability {
                Some(list.clone())
            } else {
                None
            }
        });
        lists.flatten().collect()
    };
    let ours = entries(ours);
    entries(theirs)
        .into_iter()
        .filter(|entry| negotiated.contains(&entry.family))
        .filter_map(|entry| {
            let own = ours.iter().find(|own| own.family == entry.family)?;
            let seconds = entry.stale_time_s.min(own.stale_time_s);
            let long_lived = LongLived {
                stale_time: Duration::from_secs(seconds.into()),
                forwarding_preserved: entry.forwarding_preserved,
            };
            Some((entry.family, long_lived))
        })
        .collect()
}

/// Whether a refusal of our OPEN may come from a neighbour that does not know capabilities
/// (RFC 5492 §3) or chokes on an unknown one: Unsupported Optional Parameter, Unsupported
/// Capability, or an OPEN error without subcode.
pub(super) fn refuses_capabilities(notification: &NotificationText) -> bool {
    matches!((notification.code, notification.subcode), (2, 0 | 4 | 7))
}

fn marks_refresh(open: &Open) -> bool {
    let marks = |capability: &Capability| *capability == Capability::EnhancedRouteRefresh;
    open.capabilities.iter().any(marks)
}

fn offers_refresh(open: &Open) -> bool {
    open.capabilities
        .iter()
        .any(|capability| matches!(capability, Capability::RouteRefresh))
}
