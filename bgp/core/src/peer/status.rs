// SPDX-License-Identifier: Apache-2.0
//! What is remembered about a session and shown about it.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp_wire::{Capability, MessageKind};
use router_types::Asn;

use super::reason::{DownReason, NotificationText};
use super::{Negotiated, SessionAddresses};
use crate::config::{PeerAddress, PeerName, Timers};
use crate::fsm::{Event, State};

/// State changes remembered of each neighbour. Arbitrary: an afternoon of a bad link.
const HISTORY_LEN: usize = 32;

/// A state change of a neighbour (the further one of its two connections counts).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StateChange {
    /// When.
    pub at: Instant,
    /// From which state.
    pub from: State,
    /// To which state.
    pub to: State,
    /// By which event.
    pub event: Event,
    /// Why, when it was a step back.
    pub reason: Option<DownReason>,
}

/// A NOTIFICATION and when it was sent or received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotificationRecord {
    /// When.
    pub at: Instant,
    /// What.
    pub notification: NotificationText,
}

/// Messages by type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MessageCounts {
    /// OPEN.
    pub open: u64,
    /// UPDATE.
    pub update: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// ROUTE-REFRESH.
    pub route_refresh: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl MessageCounts {
    /// Counts messages of a kind.
    pub fn count(&mut self, kind: MessageKind, messages: u64, bytes: u64) {
        let counter = match kind {
            MessageKind::Open => &mut self.open,
            MessageKind::Update => &mut self.update,
            MessageKind::Notification => &mut self.notification,
            MessageKind::Keepalive => &mut self.keepalive,
            MessageKind::RouteRefresh => &mut self.route_refresh,
        };
        *counter += messages;
        self.bytes += bytes;
    }

    /// All messages.
    pub fn total(&self) -> u64 {
        self.open + self.update + self.notification + self.keepalive + self.route_refresh
    }
}

/// How an erroneous attribute was dealt with (RFC 7606 §2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ErrorTreatment {
    /// The attribute was dropped, the route taken.
    AttributeDiscard,
    /// The route was treated as withdrawn.
    TreatAsWithdraw,
    /// The session was reset.
    SessionReset,
}

impl ErrorTreatment {
    /// The word for programs.
    pub fn name(self) -> &'static str {
        match self {
            ErrorTreatment::AttributeDiscard => "attribute-discard",
            ErrorTreatment::TreatAsWithdraw => "treat-as-withdraw",
            ErrorTreatment::SessionReset => "session-reset",
        }
    }
}

/// Counters of a neighbour since it was configured.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PeerCounters {
    /// Messages sent.
    pub sent: MessageCounts,
    /// Messages received.
    pub received: MessageCounts,
    /// NOTIFICATIONs sent, by error code and subcode.
    pub notifications_sent: BTreeMap<(u8, u8), u64>,
    /// NOTIFICATIONs received, by error code and subcode.
    pub notifications_received: BTreeMap<(u8, u8), u64>,
    /// Errors in attributes by attribute type and treatment.
    pub attribute_errors: BTreeMap<(u8, ErrorTreatment), u64>,
    /// Times the session came up.
    pub established: u64,
    /// Times it went down again.
    pub flaps: u64,
    /// Attempts to connect.
    pub attempts: u64,
    /// Calls refused: while idle, while up, or because this side does not take calls.
    pub calls_refused: u64,
}

/// The timers of a session as they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimersSnapshot {
    /// As configured.
    pub configured: Timers,
    /// The negotiated hold time, while up.
    pub hold_s: Option<u16>,
    /// The keepalive interval used, while up; `None` also when no keepalives are sent.
    pub keepalive: Option<Duration>,
    /// Until the next attempt to connect.
    pub connect_retry_in: Option<Duration>,
    /// Until the pause after an error is over.
    pub idle_hold_in: Option<Duration>,
    /// Until the neighbour is given up.
    pub hold_in: Option<Duration>,
    /// Until the next keepalive.
    pub keepalive_in: Option<Duration>,
}

/// Everything there is to say about a neighbour's session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerSnapshot {
    /// Its name.
    pub name: PeerName,
    /// Its address.
    pub address: PeerAddress,
    /// Its port.
    pub port: u16,
    /// Own AS number.
    pub local_asn: Asn,
    /// Own identifier.
    pub router_id: Ipv4Addr,
    /// Its AS number as configured; `None` takes any.
    pub configured_asn: Option<Asn>,
    /// Its AS number as it said in its last OPEN.
    pub remote_asn: Option<Asn>,
    /// Its identifier as it said in its last OPEN.
    pub remote_router_id: Option<Ipv4Addr>,
    /// The state, of the further one of two connections.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// Since when the session is up.
    pub established_at: Option<Instant>,
    /// Why it is down; `None` while up.
    pub down: Option<DownReason>,
    /// The last error, also of the past, and when.
    pub last_error: Option<(Instant, DownReason)>,
    /// Timers.
    pub timers: TimersSnapshot,
    /// The ends of the connection, while there is one.
    pub addresses: Option<SessionAddresses>,
    /// What was offered in the last OPEN sent.
    pub capabilities_sent: Vec<Capability>,
    /// What was offered in the last OPEN received.
    pub capabilities_received: Vec<Capability>,
    /// What was agreed, while up.
    pub negotiated: Option<Negotiated>,
    /// Whether OPEN is sent without capabilities, since the neighbour refused them.
    pub without_capabilities: bool,
    /// TTL of sent packets.
    pub ttl: u8,
    /// Whether an MD5 password is set.
    pub password: bool,
    /// The address configured to call from.
    pub local_address: Option<IpAddr>,
    /// Graceful restart time configured, in seconds.
    pub graceful_restart_s: Option<u16>,
    /// Counters.
    pub counters: PeerCounters,
    /// The last NOTIFICATION sent.
    pub notification_sent: Option<NotificationRecord>,
    /// The last NOTIFICATION received.
    pub notification_received: Option<NotificationRecord>,
    /// The last state changes, oldest first.
    pub history: Vec<StateChange>,
}

impl PeerSnapshot {
    /// This end of the connection.
    pub fn local_endpoint(&self) -> Option<SocketAddr> {
        self.addresses.as_ref().map(|addresses| addresses.local)
    }
}

/// The memory behind the snapshot.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) state: State,
    pub(super) since: Instant,
    pub(super) established_at: Option<Instant>,
    pub(super) down: Option<DownReason>,
    pub(super) last_error: Option<(Instant, DownReason)>,
    pub(super) remote_asn: Option<Asn>,
    pub(super) remote_router_id: Option<Ipv4Addr>,
    pub(super) capabilities_sent: Vec<Capability>,
    pub(super) capabilities_received: Vec<Capability>,
    pub(super) counters: PeerCounters,
    pub(super) notification_sent: Option<NotificationRecord>,
    pub(super) notification_received: Option<NotificationRecord>,
    /// When the last input came.
    pub(super) last_event: Instant,
    history: VecDeque<StateChange>,
}

impl Record {
    pub(super) fn new(now: Instant) -> Record {
        Record {
            state: State::Idle,
            since: now,
            established_at: None,
            down: Some(DownReason::NotStarted),
            last_error: None,
            remote_asn: None,
            remote_router_id: None,
            capabilities_sent: Vec::new(),
            capabilities_received: Vec::new(),
            counters: PeerCounters::default(),
            notification_sent: None,
            notification_received: None,
            last_event: now,
            history: VecDeque::new(),
        }
    }

    pub(super) fn failed(&mut self, reason: DownReason, now: Instant) {
        self.down = Some(reason.clone());
        self.last_error = Some((now, reason));
    }

    /// Notes the neighbour's state after an event; the one place state changes are logged.
    pub(super) fn state_is(&mut self, peer: &PeerName, state: State, event: Event, now: Instant) {
        if state == self.state {
            return;
        }
        let reason = if state < self.state {
            self.down.clone()
        } else {
            None
        };
        if let (State::Established, Some(reason)) = (self.state, &reason) {
            tracing::info!(%peer, from = %self.state, to = %state, ?event, %reason, "session down");
        } else {
            tracing::debug!(%peer, from = %self.state, to = %state, ?event, "session state");
        }
        if state == State::Established {
            tracing::info!(%peer, "session up");
            self.established_at = Some(now);
            self.down = None;
            self.counters.established += 1;
        } else if self.state == State::Established {
            self.established_at = None;
            self.counters.flaps += 1;
        }
        if self.history.len() == HISTORY_LEN {
            self.history.pop_front();
        }
        self.history.push_back(StateChange {
            at: now,
            from: self.state,
            to: state,
            event,
            reason,
        });
        self.state = state;
        self.since = now;
    }

    pub(super) fn history(&self) -> Vec<StateChange> {
        self.history.iter().cloned().collect()
    }
}
