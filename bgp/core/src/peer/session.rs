// SPDX-License-Identifier: Apache-2.0
//! What happens on a connection: messages, timers, collisions and the end.

use std::time::{Duration, Instant};

use bgp_wire::{ErrorKind, MessageKind, Notification, Open, RefreshKind, RouteRefresh, frame};
use router_types::{Asn, Family};

use super::connection::{Agreed, Connection, LARGE_HOLD, Phase};
use super::open::{self, Negotiated, OpenStyle};
use super::reason::{DownReason, FailureKind, NotificationText, TransportFailure};
use super::timers::{IDLE_HOLD_CAP, IDLE_HOLD_FIRST};
use super::{
    CloseHow, ConnId, Direction, IDLE_HOLD_ENDED_BY_CALL, IDLE_HOLD_PREFIX_LIMIT, KeepRoutes,
    Outgoing, Peer, PeerOutput, SessionAddresses,
};
use super::{Event, Notice, Reaction, State, react};
use crate::config::{CapabilityUse, ConnectMode};
use crate::peer::status::NotificationRecord;
use crate::peer::update;
use crate::routes::RouteBatch;

/// A call this soon after the session came up is the neighbour's half of dialling at the same time
/// and no sign of its restart. Arbitrary: twice the default connect retry time.
const LATE_CALL: Duration = Duration::from_secs(10);

impl Direction {
    pub(super) fn other(self) -> Direction {
        match self {
            Direction::Outgoing => Direction::Incoming,
            Direction::Incoming => Direction::Outgoing,
        }
    }
}

impl Peer {
    pub(super) fn connected(&mut self, conn: ConnId, addresses: SessionAddresses, now: Instant) {
        match self.outgoing {
            Outgoing::Connect { conn: ours, .. } if ours == conn => {
                self.send_open(conn, addresses, now);
                self.note(Event::TcpCrAcked, now);
            }
            // Given up meanwhile.
            Outgoing::Idle { .. }
            | Outgoing::Active { .. }
            | Outgoing::Connect { .. }
            | Outgoing::Up(_) => {
                self.outputs.push_back(PeerOutput::Close {
                    conn,
                    how: CloseHow::Abort,
                });
            }
        }
    }

    pub(super) fn called(&mut self, conn: ConnId, addresses: SessionAddresses, now: Instant) {
        let refused = match self.outgoing {
            Outgoing::Idle { restart_at: None } => true,
            Outgoing::Idle {
                restart_at: Some(at),
            } => {
                // A pause that is configured is as long as it says.
                let ended_by_call = match self.is_limited() {
                    true => Duration::ZERO,
                    false => IDLE_HOLD_ENDED_BY_CALL,
                };
                at > now + ended_by_call
            }
            Outgoing::Active { .. } | Outgoing::Connect { .. } | Outgoing::Up(_) => false,
        };
        if refused || self.config.connect == ConnectMode::Active {
            self.refuse_call(conn, ErrorKind::CONNECTION_REJECTED);
            return;
        }
        if let Some(up) = self.established() {
            let settled = self
                .record
                .established_at
                .is_some_and(|at| now >= at + LATE_CALL);
            let restarts = settled
                && up
                    .negotiated()
                    .is_some_and(|n| n.graceful_restart.is_some());
            let direction = up.conn.direction;
            if !restarts && self.config.collision_when_established {
                self.take_second(conn, addresses, now);
                return;
            }
            if !restarts {
                self.refuse_call(conn, ErrorKind::CONNECTION_COLLISION);
                return;
            }
            // RFC 4724 §4.2: the neighbour has restarted and its old connection is dead.
            let failure = TransportFailure {
                kind: FailureKind::Reset,
                text: "the peer restarted and called again".into(),
            };
            let reason = DownReason::ConnectionLost {
                failure,
                state: State::Established,
            };
            self.drop_connection(direction, None, &reason);
            self.record.failed(reason, now);
            if direction == Direction::Outgoing {
                self.outgoing = Outgoing::Active { retry_at: None };
            }
            self.note(Event::TcpConnectionFails, now);
        } else if self.incoming.is_some() {
            // The neighbour gave the first one up, or it would not call again.
            self.drop_connection(Direction::Incoming, None, &DownReason::Collision);
        }
        if let Outgoing::Idle { .. } = self.outgoing {
            self.outgoing = Outgoing::Active { retry_at: None };
        }
        self.send_open(conn, addresses, now);
        self.note(Event::TcpConnectionConfirmed, now);
    }

    pub(super) fn closed(&mut self, conn: ConnId, failure: TransportFailure, now: Instant) {
        let Some(connection) = self.connection(conn.direction).filter(|c| c.conn == conn) else {
            return;
        };
        let reason = DownReason::ConnectionLost {
            failure,
            state: connection.state(),
        };
        self.end(conn.direction, Event::TcpConnectionFails, None, reason, now);
    }

    pub(super) fn bytes(&mut self, conn: ConnId, bytes: &[u8], now: Instant) {
        let Some(connection) = self
            .connection_mut(conn.direction)
            .filter(|c| c.conn == conn)
        else {
            return;
        };
        let mut unread = std::mem::take(&mut connection.unread);
        unread.extend_from_slice(bytes);
        let mut read = 0;
        // A message may end the connection; what follows it is then not looked at.
        while let Some(connection) = self.connection(conn.direction).filter(|c| c.conn == conn) {
            match frame::next(&unread[read..], connection.max_len()) {
                Ok(Some(message)) => {
                    read += message.len;
                    let len = message.len as u64;
                    self.record.counters.received.count(message.kind, 1, len);
                    self.message(conn.direction, message.kind, message.body, now);
                }
                Ok(None) => {
                    unread.drain(..read);
                    if let Some(connection) = self.connection_mut(conn.direction) {
                        connection.unread = unread;
                    }
                    return;
                }
                Err(notification) => {
                    let reason = DownReason::NotificationSent((&notification).into());
                    let event = Event::BgpHeaderErr;
                    self.end(conn.direction, event, Some(notification), reason, now);
                    return;
                }
            }
        }
    }

    pub(super) fn ask_for_routes(&mut self, family: Family, now: Instant) {
        let Some(connection) = self.established() else {
            return;
        };
        let Some(negotiated) = connection.negotiated() else {
            return;
        };
        if negotiated.context.family(family).is_none() {
            return;
        }
        if negotiated.route_refresh {
            let conn = connection.conn;
            let mut bytes = Vec::new();
            RouteRefresh {
                family,
                kind: RefreshKind::Request,
            }
            .encode(&mut bytes);
            self.send(conn, MessageKind::RouteRefresh, bytes);
        } else {
            // RFC 2918 §1: without it only a new session brings the routes again.
            self.stop(super::StopReason::ConfigurationChange, now);
        }
    }

    fn message(&mut self, direction: Direction, kind: MessageKind, body: &[u8], now: Instant) {
        match kind {
            MessageKind::Open => match Open::decode(body) {
                Ok(open) => self.open_received(direction, open, now),
                Err(notification) => {
                    let reason = DownReason::NotificationSent((&notification).into());
                    self.end(
                        direction,
                        Event::BgpOpenMsgErr,
                        Some(notification),
                        reason,
                        now,
                    );
                }
            },
            MessageKind::Keepalive => self.event(direction, Event::KeepAliveMsg, now),
            MessageKind::Notification => self.notification_received(direction, body, now),
            MessageKind::Update => self.update_received(direction, body, now),
            MessageKind::RouteRefresh => self.refresh_received(direction, body, now),
        }
    }

    fn open_received(&mut self, direction: Direction, theirs: Open, now: Instant) {
        let Some(connection) = self.connection(direction) else {
            return;
        };
        if connection.state() != State::OpenSent {
            self.event(direction, Event::BgpOpen, now);
            return;
        }
        self.record.remote_asn = Some(theirs.asn);
        self.record.remote_router_id = Some(theirs.router_id);
        let Some(connection) = self.connection(direction) else {
            return;
        };
        let (ours, addresses) = (&connection.offered, &connection.addresses);
        let judged = open::judge(&self.config, &self.local, ours, &theirs, addresses);
        self.record.capabilities_received = theirs.capabilities.clone();
        let negotiated = match judged {
            Ok(negotiated) => negotiated,
            Err(refusal) => {
                let open::Refusal {
                    notification,
                    reason,
                } = refusal;
                self.end(
                    direction,
                    Event::BgpOpenMsgErr,
                    Some(notification),
                    reason,
                    now,
                );
                return;
            }
        };
        if self.resolve_collision(direction, &theirs, now) == Some(direction) {
            return;
        }
        self.confirm(direction, negotiated, theirs, now);
    }

    fn confirm(
        &mut self,
        direction: Direction,
        negotiated: Negotiated,
        theirs: Open,
        now: Instant,
    ) {
        debug_assert_eq!(react(State::OpenSent, Event::BgpOpen), Reaction::Confirm);
        let first_keepalive = negotiated
            .keepalive
            .map(|time| now + self.jitter.spread(time));
        let Some(connection) = self.connection_mut(direction) else {
            return;
        };
        connection.phase = Phase::OpenConfirm(Agreed {
            negotiated: Box::new(negotiated),
            theirs: Box::new(theirs),
            hold_at: None,
            keepalive_at: first_keepalive,
            held_back_until: None,
        });
        connection.heard(now);
        let conn = connection.conn;
        let mut bytes = Vec::new();
        frame::encode_keepalive(&mut bytes);
        self.send(conn, MessageKind::Keepalive, bytes);
        self.note(Event::BgpOpen, now);
    }

    pub(super) fn establish(&mut self, direction: Direction, now: Instant) {
        self.vacate(
            direction.other(),
            Some(Notification::new(ErrorKind::CONNECTION_COLLISION)),
            &DownReason::Collision,
        );
        let Some(connection) = self.connection_mut(direction) else {
            return;
        };
        let phase = std::mem::replace(&mut connection.phase, Phase::OpenSent { hold_at: now });
        let agreed = match phase {
            Phase::OpenConfirm(agreed) | Phase::Established(agreed) => agreed,
            Phase::OpenSent { .. } => unreachable!("the table establishes from OpenConfirm only"),
        };
        let negotiated = agreed.negotiated.clone();
        connection.phase = Phase::Established(agreed);
        connection.heard(now);
        let conn = connection.conn;
        self.local.restarted = false;
        // RFC 4724 §3: from here on this end forwards, whatever becomes of the session. Without the
        // F bit the neighbour would drop what it kept as soon as the session is back.
        self.local.forwarding_preserved = true;
        self.outputs.push_back(PeerOutput::Up { conn, negotiated });
        self.note(Event::KeepAliveMsg, now);
    }

    fn notification_received(&mut self, direction: Direction, body: &[u8], now: Instant) {
        let Some(notification) = Notification::decode(body) else {
            return;
        };
        let text = NotificationText::from(&notification);
        let counts = &mut self.record.counters.notifications_received;
        *counts.entry((text.code, text.subcode)).or_default() += 1;
        self.record.notification_received = Some(NotificationRecord {
            at: now,
            notification: text.clone(),
        });
        let event = if notification.kind == ErrorKind::UNSUPPORTED_VERSION {
            Event::NotifMsgVerErr
        } else {
            Event::NotifMsg
        };
        let early = self
            .connection(direction)
            .is_some_and(|c| c.state() < State::Established);
        if early {
            let can_do_without = self.config.families().contains_key(&Family::IPV4_UNICAST);
            let may_fall_back =
                can_do_without && self.config.capabilities == CapabilityUse::Fallback;
            self.style = match self.style {
                OpenStyle::Full if may_fall_back && open::refuses_capabilities(&text) => {
                    tracing::warn!(
                        peer = %self.name, notification = %text.text,
                        "the peer refuses capabilities: OPEN is sent without them from now on, and \
                         only IPv4 unicast is left"
                    );
                    OpenStyle::Bare
                }
                OpenStyle::Full | OpenStyle::Bare => OpenStyle::Full,
            };
            let dual = self.config.local_as.is_some_and(|local_as| local_as.dual);
            if dual && notification.kind == ErrorKind::BAD_PEER_AS {
                self.real_as = !self.real_as;
            }
        }
        let collision = notification.kind == ErrorKind::CONNECTION_COLLISION;
        if collision && early && self.connection(direction.other()).is_some() {
            self.vacate(direction, None, &DownReason::Collision);
            self.note(event, now);
            return;
        }
        self.end(
            direction,
            event,
            None,
            DownReason::NotificationReceived(text),
            now,
        );
    }

    fn update_received(&mut self, direction: Direction, body: &[u8], now: Instant) {
        self.settle(direction, now);
        // What one read brings goes over together.
        let last = self
            .outputs
            .pop_back_if(|last| matches!(last, PeerOutput::Routes(_)));
        let mut batch = match last {
            Some(PeerOutput::Routes(batch)) => batch,
            Some(_) | None => RouteBatch::new(),
        };
        let read = self
            .connection(direction)
            .filter(|connection| connection.state() == State::Established)
            .and_then(Connection::negotiated)
            .map(|negotiated| update::read(body, &negotiated.context, &mut batch));
        if !batch.is_empty() {
            self.outputs.push_back(PeerOutput::Routes(batch));
        }
        let Some(read) = read else {
            self.event(direction, Event::UpdateMsg, now);
            return;
        };
        for (code, treatment) in read.errors {
            *self
                .record
                .counters
                .attribute_errors
                .entry((code, treatment))
                .or_default() += 1;
        }
        match read.result {
            Ok(()) => self.event(direction, Event::UpdateMsg, now),
            Err(notification) => {
                let reason = DownReason::NotificationSent((&notification).into());
                self.end(
                    direction,
                    Event::UpdateMsgErr,
                    Some(notification),
                    reason,
                    now,
                );
            }
        }
    }

    fn refresh_received(&mut self, direction: Direction, body: &[u8], now: Instant) {
        self.settle(direction, now);
        match RouteRefresh::decode(body) {
            Ok(refresh) => {
                self.event(direction, Event::RouteRefreshMsg, now);
                let Some(negotiated) = self.negotiated() else {
                    return;
                };
                // RFC 2918 §4: other families are ignored. RFC 7313 §5: so are marks nobody offered.
                let marks = negotiated.enhanced_refresh;
                let Some(RouteRefresh { family, kind }) = refresh
                    .filter(|refresh| negotiated.context.family(refresh.family).is_some())
                    .filter(|refresh| marks || refresh.kind == RefreshKind::Request)
                else {
                    return;
                };
                self.outputs.push_back(match kind {
                    RefreshKind::Request => PeerOutput::Resend { family },
                    RefreshKind::Begin => PeerOutput::RefreshBegins { family },
                    RefreshKind::End => PeerOutput::RefreshEnds { family },
                });
            }
            Err(notification) => {
                let reason = DownReason::NotificationSent((&notification).into());
                let event = Event::RouteRefreshMsgErr;
                self.end(direction, event, Some(notification), reason, now);
            }
        }
    }

    /// An event that carries nothing.
    pub(super) fn event(&mut self, direction: Direction, event: Event, now: Instant) {
        let Some(connection) = self.connection_mut(direction) else {
            return;
        };
        let (state, conn) = (connection.state(), connection.conn);
        match react(state, event) {
            Reaction::Ignore => {}
            Reaction::SendKeepalive => {
                let interval = connection.negotiated().and_then(|n| n.keepalive);
                let next = interval.map(|time| now + self.jitter.spread(time));
                if let Some(agreed) = self
                    .connection_mut(direction)
                    .and_then(Connection::agreed_mut)
                {
                    agreed.keepalive_at = next;
                }
                let mut bytes = Vec::new();
                frame::encode_keepalive(&mut bytes);
                self.send(conn, MessageKind::Keepalive, bytes);
            }
            Reaction::Establish => self.confirmed(direction, now),
            Reaction::Heard | Reaction::TakeRoutes | Reaction::Resend => connection.heard(now),
            Reaction::Close(notice) => {
                let hold_s = connection.hold_s();
                let password = self.config.password.is_some();
                let (notification, reason) = match notice {
                    Notice::HoldTimerExpired => (
                        Some(Notification::new(ErrorKind::HOLD_TIMER_EXPIRED)),
                        DownReason::HoldTimerExpired {
                            state,
                            hold_s,
                            password,
                        },
                    ),
                    Notice::FsmError => {
                        let message = format!("{event:?}");
                        let reason = DownReason::UnexpectedMessage { state, message };
                        (Some(Notification::new(fsm_error(state))), reason)
                    }
                    Notice::Silent | Notice::Given => (None, DownReason::Collision),
                };
                self.end(direction, event, notification, reason, now);
            }
            // The table keeps these for states without a connection.
            Reaction::Start
            | Reaction::Dial
            | Reaction::WaitForRetry
            | Reaction::SendOpen
            | Reaction::Confirm => {
                debug_assert!(false, "{event:?} in {state:?} is handled where it arises");
            }
        }
    }

    /// Ends a connection after an event that the table answers with Close or WaitForRetry.
    fn end(
        &mut self,
        direction: Direction,
        event: Event,
        notification: Option<Notification>,
        reason: DownReason,
        now: Instant,
    ) {
        let Some(connection) = self.connection(direction) else {
            return;
        };
        let state = connection.state();
        // Where the table answers an event with its own NOTIFICATION, that one is sent.
        let notification = match react(state, event) {
            Reaction::Close(Notice::FsmError) => Some(Notification::new(fsm_error(state))),
            Reaction::Close(Notice::Silent) => None,
            _ => notification,
        };
        if state == State::Established
            && self
                .record
                .established_at
                .is_some_and(|at| now >= at + IDLE_HOLD_CAP)
        {
            self.errors = 0;
        }
        let other = self.connection(direction.other()).map(Connection::state);
        if other != Some(State::Established) {
            self.record.failed(reason.clone(), now);
        }
        self.vacate(direction, notification, &reason);
        let retries = react(state, event) == Reaction::WaitForRetry || asks_to_wait(&reason);
        match (&self.outgoing, &self.incoming) {
            // The other connection goes on.
            (Outgoing::Up(_), _) | (_, Some(_)) => {}
            (Outgoing::Connect { .. } | Outgoing::Active { retry_at: Some(_) }, None) => {}
            (Outgoing::Idle { .. }, None) => {}
            (Outgoing::Active { retry_at: None }, None) if retries => {
                if self.config.connect != ConnectMode::Passive {
                    let retry_at = self.retry_at(now);
                    self.outgoing = Outgoing::Active {
                        retry_at: Some(retry_at),
                    };
                }
            }
            (Outgoing::Active { retry_at: None }, None) => {
                let pause = self.pause_after(&reason);
                self.outgoing = Outgoing::Idle {
                    restart_at: Some(now + pause),
                };
            }
        }
        self.note(event, now);
    }

    fn pause_after(&mut self, reason: &DownReason) -> Duration {
        match reason {
            // RFC 4486 §4: maximum number of prefixes reached, at the neighbour.
            DownReason::NotificationReceived(text) if (text.code, text.subcode) == (6, 1) => {
                IDLE_HOLD_PREFIX_LIMIT
            }
            // RFC 4486 §4, administrative reset to collision: nothing is wrong with the session.
            DownReason::NotificationReceived(text)
                if text.code == 6 && (4..=7).contains(&text.subcode) =>
            {
                self.jitter.spread(IDLE_HOLD_FIRST)
            }
            _ => self.next_pause(),
        }
    }

    /// Drops a connection, or the attempt at one; the neighbour's other one goes on.
    pub(super) fn vacate(
        &mut self,
        direction: Direction,
        notification: Option<Notification>,
        reason: &DownReason,
    ) {
        self.drop_connection(direction, notification, reason);
        if direction == Direction::Outgoing && !matches!(self.outgoing, Outgoing::Idle { .. }) {
            self.outgoing = Outgoing::Active { retry_at: None };
        }
    }

    /// Closes a connection or gives up an attempt. The slot of an outgoing one is for the caller
    /// to fill.
    pub(super) fn drop_connection(
        &mut self,
        direction: Direction,
        notification: Option<Notification>,
        reason: &DownReason,
    ) {
        if direction == Direction::Outgoing
            && let Outgoing::Connect { conn, .. } = self.outgoing
        {
            self.outputs.push_back(PeerOutput::Close {
                conn,
                how: CloseHow::Abort,
            });
            return;
        }
        let Some(connection) = self.connection(direction) else {
            return;
        };
        let (conn, state) = (connection.conn, connection.state());
        let keep_routes = connection.negotiated().and_then(|negotiated| {
            let restart = negotiated.graceful_restart.as_ref()?;
            let some = !restart.families.is_empty() || !negotiated.long_lived.is_empty();
            let kept = some && reason.keeps_routes(negotiated.notification_restart);
            kept.then(|| KeepRoutes {
                restart_time: Duration::from_secs(restart.restart_time_s.into()),
                long_lived: negotiated
                    .long_lived
                    .iter()
                    .map(|(family, agreed)| (*family, agreed.stale_time))
                    .collect(),
            })
        });
        let how = match notification {
            Some(notification) => {
                self.send_notification(conn, &notification);
                CloseHow::AfterSending
            }
            None => CloseHow::Abort,
        };
        self.outputs.push_back(PeerOutput::Close { conn, how });
        if state == State::Established {
            self.outputs.push_back(PeerOutput::Down {
                reason: reason.clone(),
                keep_routes,
            });
        }
        match direction {
            Direction::Incoming => self.incoming = None,
            Direction::Outgoing => self.outgoing = Outgoing::Active { retry_at: None },
        }
    }

    /// The AS number to be in OPEN.
    pub(super) fn session_asn(&self) -> Asn {
        match self.config.local_as {
            Some(local_as) if !self.real_as => local_as.asn,
            Some(_) | None => self.local.asn,
        }
    }

    pub(super) fn send_open(&mut self, conn: ConnId, addresses: SessionAddresses, now: Instant) {
        let offered = open::offer(&self.config, &self.local, self.session_asn(), self.style);
        let mut bytes = Vec::new();
        offered.encode(&mut bytes);
        self.record.capabilities_sent = offered.capabilities.clone();
        let phase = Phase::OpenSent {
            hold_at: now + LARGE_HOLD,
        };
        let connection = Connection {
            conn,
            addresses,
            offered: Box::new(offered),
            unread: Vec::new(),
            phase,
        };
        match conn.direction {
            Direction::Outgoing => self.outgoing = Outgoing::Up(connection),
            Direction::Incoming => self.incoming = Some(connection),
        }
        self.send(conn, MessageKind::Open, bytes);
    }

    pub(super) fn send(&mut self, conn: ConnId, kind: MessageKind, bytes: Vec<u8>) {
        self.record.counters.sent.count(kind, 1, bytes.len() as u64);
        self.outputs.push_back(PeerOutput::Send { conn, bytes });
    }

    fn send_notification(&mut self, conn: ConnId, notification: &Notification) {
        let mut bytes = Vec::new();
        notification.encode(&mut bytes);
        self.send(conn, MessageKind::Notification, bytes);
        let kind = notification.kind;
        let counts = &mut self.record.counters.notifications_sent;
        *counts.entry((kind.code, kind.subcode)).or_default() += 1;
        self.record.notification_sent = Some(NotificationRecord {
            at: self.record.last_event,
            notification: notification.into(),
        });
    }

    pub(super) fn refuse_call(&mut self, conn: ConnId, kind: ErrorKind) {
        self.record.counters.calls_refused += 1;
        let mut bytes = Vec::new();
        Notification::new(kind).encode(&mut bytes);
        self.outputs.push_back(PeerOutput::Send { conn, bytes });
        self.outputs.push_back(PeerOutput::Close {
            conn,
            how: CloseHow::AfterSending,
        });
    }
}

/// Whether the neighbour has nothing against the session but is not ready for this connection:
/// Connection Rejected and Connection Collision Resolution (RFC 4486 §4).
///
/// Deviation: RFC 4271 §8.2.2 goes to Idle after any NOTIFICATION. Two ends that both pause in
/// Idle, where calls are refused, would refuse each other in turns and hardly ever meet; in Active
/// the one that pauses takes the other's call.
fn asks_to_wait(reason: &DownReason) -> bool {
    matches!(reason, DownReason::NotificationReceived(text)
        if text.code == 6 && matches!(text.subcode, 5 | 7))
}

/// The FSM error of a state (RFC 6608 §3).
fn fsm_error(state: State) -> ErrorKind {
    match state {
        State::Idle | State::Active | State::Connect => ErrorKind::FSM,
        State::OpenSent => ErrorKind::UNEXPECTED_IN_OPEN_SENT,
        State::OpenConfirm => ErrorKind::UNEXPECTED_IN_OPEN_CONFIRM,
        State::Established => ErrorKind::UNEXPECTED_IN_ESTABLISHED,
    }
}
