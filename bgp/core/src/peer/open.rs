// SPDX-License-Identifier: Apache-2.0
//! OPEN: what is offered, and whether the neighbour's offer can be agreed with (RFC 4271 §6.2).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use bgp_wire::{
    Capability, ErrorKind, ExtendedNextHop, GracefulFamily, GracefulRestart, Notification, Open,
    PeerKind, SessionContext,
};
use router_types::{Afi, Asn, Family};

use super::reason::{DownReason, NotificationText};
use super::{LocalSpeaker, SessionAddresses};
use crate::config::PeerConfig;

/// What the two ends agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Negotiated {
    /// The neighbour's AS number.
    pub peer_asn: Asn,
    /// The neighbour's identifier.
    pub peer_router_id: Ipv4Addr,
    /// The hold time in seconds, the lower of both; 0 means the session never expires.
    pub hold_s: u16,
    /// The keepalive interval; `None` when none are sent.
    pub keepalive: Option<Duration>,
    /// How messages are read and written: session kind, AS number width, families.
    pub context: SessionContext,
    /// Whether the neighbour takes ROUTE-REFRESH.
    pub route_refresh: bool,
    /// The neighbour's graceful restart capability, when this end offered its own.
    pub graceful_restart: Option<GracefulRestart>,
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

    /// Whether the neighbour would rather keep routes on NOTIFICATION, too (RFC 8538).
    pub fn notification_support(&self) -> bool {
        self.graceful_restart
            .as_ref()
            .is_some_and(|gr| gr.notification)
    }
}

/// How much an OPEN offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OpenStyle {
    /// All capabilities.
    Full,
    /// None, for a neighbour that refused them (RFC 5492 §3).
    Bare,
}

/// The OPEN to send.
pub(super) fn offer(config: &PeerConfig, local: &LocalSpeaker, style: OpenStyle) -> Open {
    let mut capabilities = Vec::new();
    if style == OpenStyle::Full {
        capabilities.extend(
            config
                .families()
                .keys()
                .map(|f| Capability::Multiprotocol(*f)),
        );
        capabilities.push(Capability::RouteRefresh);
        if config.families().contains_key(&Family::IPV4_UNICAST) {
            capabilities.push(Capability::ExtendedNextHop(vec![ExtendedNextHop {
                family: Family::IPV4_UNICAST,
                next_hop: Afi::IPV6,
            }]));
        }
        capabilities.push(Capability::ExtendedMessages);
        if let Some(restart) = config.graceful_restart {
            let family = |family: &Family| GracefulFamily {
                family: *family,
                forwarding_preserved: local.forwarding_preserved,
            };
            capabilities.push(Capability::GracefulRestart(GracefulRestart {
                restarted: local.restarted,
                notification: true,
                restart_time_s: restart.restart_time_s(),
                families: config.families().keys().map(family).collect(),
            }));
        }
        capabilities.push(Capability::FourOctetAs(local.asn));
    }
    Open {
        asn: local.asn,
        hold_time_s: config.timers.hold_s(),
        router_id: local.router_id,
        capabilities,
    }
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
    if let Some(configured) = config.asn
        && configured != theirs.asn
    {
        return Err(Refusal {
            notification: Notification::with_data(
                ErrorKind::BAD_PEER_AS,
                theirs.asn.to_two_octet().to_be_bytes(),
            ),
            reason: DownReason::PeerAs {
                found: theirs.asn,
                configured,
            },
        });
    }
    // RFC 6286 §2.2: identifiers are unique within an AS, not across them.
    if theirs.router_id == local.router_id && theirs.asn == local.asn {
        return Err(Refusal {
            notification: Notification::new(ErrorKind::BAD_BGP_IDENTIFIER),
            reason: DownReason::SameRouterId,
        });
    }
    let context = SessionContext::negotiate(ours, theirs);
    if context.families.is_empty() {
        let mut wanted = Vec::new();
        for capability in &ours.capabilities {
            if matches!(capability, Capability::Multiprotocol(_)) {
                capability.encode(&mut wanted);
            }
        }
        let names = |families: Vec<Family>| families.iter().map(ToString::to_string).collect();
        return Err(Refusal {
            notification: Notification::with_data(ErrorKind::UNSUPPORTED_CAPABILITY, wanted),
            reason: DownReason::NoCommonFamily {
                offered: names(theirs.families()),
                configured: names(ours.families()),
            },
        });
    }
    let hold_s = config.timers.hold_s().min(theirs.hold_time_s);
    let offered_restart = config.graceful_restart.is_some();
    let negotiated: BTreeSet<Family> = context.families.iter().map(|f| f.family).collect();
    let graceful_restart = theirs
        .capabilities
        .iter()
        .find_map(|capability| match capability {
            Capability::GracefulRestart(restart) if offered_restart => Some(restart.clone()),
            _ => None,
        })
        .map(|mut restart| {
            restart
                .families
                .retain(|family| negotiated.contains(&family.family));
            restart
        });
    Ok(Negotiated {
        peer_asn: theirs.asn,
        peer_router_id: theirs.router_id,
        hold_s,
        keepalive: config.timers.keepalive_under(hold_s),
        route_refresh: offers_refresh(ours) && offers_refresh(theirs),
        context,
        graceful_restart,
        addresses: addresses.clone(),
    })
}

/// Whether a refusal of our OPEN may come from a neighbour that does not know capabilities
/// (RFC 5492 §3) or chokes on an unknown one: Unsupported Optional Parameter, Unsupported
/// Capability, or an OPEN error without subcode.
pub(super) fn refuses_capabilities(notification: &NotificationText) -> bool {
    matches!((notification.code, notification.subcode), (2, 0 | 4 | 7))
}

fn offers_refresh(open: &Open) -> bool {
    open.capabilities
        .iter()
        .any(|capability| matches!(capability, Capability::RouteRefresh))
}
