// SPDX-License-Identifier: Apache-2.0
//! A configured neighbour: its connections, its session and everything remembered about them.
//!
//! A neighbour may have two connections at once, one dialled and one taken; each runs through the
//! states of [`crate::fsm`] by itself until OPEN tells which of them stays (RFC 4271 §6.8).
//!
//! # Driving it
//!
//! Hand every input to [`Peer::handle`], then take outputs with [`Peer::poll_output`] until there
//! are none, then wait for the next input or for [`Peer::poll_timeout`], at which
//! [`PeerInput::Timeout`] is due. Outputs for one connection are in order; [`PeerOutput::Close`]
//! takes effect after what was sent before it. The number of outputs an input makes is bounded by
//! its bytes: a message of 19 bytes or more makes at most five.

mod collision;
mod connection;
mod handover;
mod open;
mod reason;
mod session;
mod status;
mod timers;
mod update;

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp_wire::Notification;
use ipnet::IpNet;
use router_types::{Asn, Family, LinkIndex};
use serde::{Deserialize, Serialize};

use self::connection::Connection;
pub use self::handover::Handover;
use self::open::OpenStyle;
pub use self::open::{LongLived, Negotiated};
pub use self::reason::{DownReason, FailureKind, NotificationText, StopReason, TransportFailure};
use self::status::Record;
pub use self::status::{
    ErrorTreatment, MessageCounts, NotificationRecord, PeerCounters, PeerSnapshot, StateChange,
    TimersSnapshot,
};
use crate::config::{ConnectMode, Effect, PeerConfig, PeerName};
use crate::fsm::{Event, Notice, Reaction, State, react};
use crate::jitter::Jitter;
use crate::routes::RouteBatch;
use crate::serial;

/// A pause with no more than this left is ended by a call: the neighbour has decided to try again,
/// and two sides that pause and refuse each other in turn would not meet. Longer ones follow
/// repeated errors and stand. Deviation: RFC 4271 §8.2.2 refuses every call in Idle.
const IDLE_HOLD_ENDED_BY_CALL: Duration = Duration::from_secs(4);

/// The pause after too many routes, here or there: they do not become fewer by trying again.
const IDLE_HOLD_PREFIX_LIMIT: Duration = Duration::from_secs(300);

/// Who began a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Direction {
    /// This end dialled.
    Outgoing,
    /// The neighbour called.
    Incoming,
}

/// A connection of a neighbour. Serial numbers of outgoing ones are given by [`Peer`], of incoming
/// ones by the caller; neither reuses one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ConnId {
    /// Who began it.
    pub direction: Direction,
    /// Which of them.
    pub serial: u64,
}

/// The ends of a connection, and what the link offers as next hops.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionAddresses {
    /// This end.
    pub local: SocketAddr,
    /// The neighbour's.
    pub remote: SocketAddr,
    /// The device, where it is known: link-local next hops mean nothing without it.
    #[serde(with = "serial::link_option")]
    pub link: Option<LinkIndex>,
    /// An IPv4 address of the device that has the local address.
    pub link_ipv4: Option<Ipv4Addr>,
    /// A global IPv6 address of that device.
    pub link_ipv6: Option<Ipv6Addr>,
    /// The network of the device on which both ends are; `None` where the neighbour is on none of
    /// this node's.
    #[serde(with = "serial::text_option", default)]
    pub network: Option<IpNet>,
}

/// This end, as all sessions of an instance have it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LocalSpeaker {
    /// AS number.
    #[serde(with = "serial::asn")]
    pub asn: Asn,
    /// Identifier.
    pub router_id: Ipv4Addr,
    /// Whether the speaker comes back from a restart (the R bit, RFC 4724 §3). Counts until a
    /// neighbour's session is up once.
    pub restarted: bool,
    /// Whether forwarding went on meanwhile (the F bit).
    pub forwarding_preserved: bool,
}

/// What a neighbour is told. Every input there is, so that a recording of them is complete.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PeerInput {
    /// Begin, and keep trying until stopped.
    Start,
    /// End the session. [`StopReason::Reset`], [`StopReason::ConfigurationChange`],
    /// [`StopReason::PrefixLimit`] and [`StopReason::SendHoldTimer`] come back by themselves, the
    /// others wait for a start.
    Stop(StopReason),
    /// The configuration is another one. Ends the session where
    /// [`PeerConfig::changes_to`] says so.
    Configure(Box<PeerConfig>),
    /// An attempt of [`PeerOutput::Connect`] succeeded.
    Connected {
        /// Which one.
        conn: ConnId,
        /// Its ends.
        addresses: SessionAddresses,
    },
    /// An attempt failed.
    ConnectFailed {
        /// Which one.
        conn: ConnId,
        /// Why.
        failure: TransportFailure,
    },
    /// The neighbour called.
    Called {
        /// The connection.
        conn: ConnId,
        /// Its ends.
        addresses: SessionAddresses,
    },
    /// The process before has passed on a session that is up. Comes before [`PeerInput::Start`].
    Adopt {
        /// The connection, incoming whoever dialled it.
        conn: ConnId,
        /// Its ends.
        addresses: SessionAddresses,
        /// The session.
        handover: Box<Handover>,
    },
    /// Bytes came.
    Bytes {
        /// On which connection.
        conn: ConnId,
        /// The bytes, cut anywhere.
        #[serde(with = "serial::hex")]
        bytes: Vec<u8>,
    },
    /// Bytes wait that the caller does not hand in yet, since the RIB is busy: the neighbour is
    /// alive, and its HoldTimer restarts.
    Alive {
        /// On which connection.
        conn: ConnId,
    },
    /// A connection is gone.
    Closed {
        /// Which one.
        conn: ConnId,
        /// Why.
        failure: TransportFailure,
    },
    /// A link is down. Ends the session of an external neighbour on it, where
    /// [`PeerConfig::fast_failover`] says so.
    LinkDown {
        /// The device.
        #[serde(with = "serial::link")]
        link: LinkIndex,
        /// Its name.
        interface: String,
    },
    /// The neighbour shall send a family again, for instance since the import policy changed.
    AskForRoutes {
        /// The family.
        #[serde(with = "serial::family")]
        family: Family,
    },
    /// The time of [`Peer::poll_timeout`] has come.
    Timeout,
}

/// What the caller has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerOutput {
    /// Dial as configured.
    Connect {
        /// The name of the attempt.
        conn: ConnId,
    },
    /// Give up an attempt under way, or close a connection after what was sent on it.
    Close {
        /// Which one.
        conn: ConnId,
        /// How.
        how: CloseHow,
    },
    /// Send whole messages.
    Send {
        /// On which connection.
        conn: ConnId,
        /// The messages.
        bytes: Vec<u8>,
    },
    /// The session is up: its routes may be sent, on this connection.
    Up {
        /// The connection of the session.
        conn: ConnId,
        /// What was agreed.
        negotiated: Box<Negotiated>,
    },
    /// The session is down.
    Down {
        /// Why.
        reason: DownReason,
        /// How long routes are to be kept for a neighbour that restarts; `None` drops them at once.
        keep_routes: Option<KeepRoutes>,
    },
    /// Routes came.
    Routes(RouteBatch),
    /// The neighbour wants a family sent again (RFC 2918).
    Resend {
        /// The family.
        family: Family,
    },
    /// The neighbour begins to send a family again (RFC 7313 §4).
    RefreshBegins {
        /// The family.
        family: Family,
    },
    /// It has sent the family again.
    RefreshEnds {
        /// The family.
        family: Family,
    },
}

/// How long the routes of a session that is down are kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeepRoutes {
    /// As they are, for the families of [`Negotiated::graceful_restart`] (RFC 4724 §4.2).
    pub restart_time: Duration,
    /// From then on as the last resort, with LLGR_STALE and without those that carry NO_LLGR (RFC
    /// 9494 §4.3), by family. A family that is not here is dropped after the restart time.
    #[serde(with = "serial::by_family")]
    pub long_lived: BTreeMap<Family, Duration>,
}

impl KeepRoutes {
    /// How long any of them are kept.
    pub fn longest(&self) -> Duration {
        let long_lived = self.long_lived.values().max().copied();
        self.restart_time + long_lived.unwrap_or_default()
    }
}

/// How a connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseHow {
    /// After everything was sent: the last message says why.
    AfterSending,
    /// At once, with a TCP reset: there is nobody to tell, or nothing must be said.
    Abort,
}

/// A neighbour. See the module's documentation for how it is driven.
#[derive(Debug)]
pub struct Peer {
    name: PeerName,
    config: PeerConfig,
    local: LocalSpeaker,
    jitter: Jitter,
    outgoing: Outgoing,
    incoming: Option<Connection>,
    /// Errors in a row, for the pause after the next one.
    errors: u32,
    style: OpenStyle,
    /// Whether the real AS number is offered instead of [`LocalAs::asn`](crate::config::LocalAs),
    /// since the neighbour refused that one.
    real_as: bool,
    next_serial: u64,
    record: Record,
    outputs: VecDeque<PeerOutput>,
}

/// The connection this end dials, or its absence.
#[derive(Debug)]
enum Outgoing {
    /// Neither dials nor takes calls; `None` until started.
    Idle { restart_at: Option<Instant> },
    /// Takes calls; dials at that time, if ever.
    Active { retry_at: Option<Instant> },
    /// Dials.
    Connect { conn: ConnId, retry_at: Instant },
    /// Connected.
    Up(Connection),
}

impl Peer {
    /// A neighbour that is not started. The seed spreads its timers.
    pub fn new(
        name: PeerName,
        config: PeerConfig,
        local: LocalSpeaker,
        seed: u64,
        now: Instant,
    ) -> Peer {
        Peer {
            name,
            config,
            local,
            jitter: Jitter::new(seed),
            outgoing: Outgoing::Idle { restart_at: None },
            incoming: None,
            errors: 0,
            style: OpenStyle::Full,
            real_as: false,
            next_serial: 0,
            record: Record::new(now),
            outputs: VecDeque::new(),
        }
    }

    /// Takes an input. Outputs it makes wait in [`Peer::poll_output`].
    pub fn handle(&mut self, input: PeerInput, now: Instant) {
        self.record.last_event = now;
        match input {
            PeerInput::Start => self.start(Event::ManualStart, now),
            PeerInput::Stop(reason) => self.stop(reason, now),
            PeerInput::Configure(config) => self.configure(*config, now),
            PeerInput::Connected { conn, addresses } => self.connected(conn, addresses, now),
            PeerInput::ConnectFailed { conn, failure } => self.connect_failed(conn, failure, now),
            PeerInput::Called { conn, addresses } => self.called(conn, addresses, now),
            PeerInput::Adopt {
                conn,
                addresses,
                handover,
            } => self.adopt(conn, addresses, &handover, now),
            PeerInput::Bytes { conn, bytes } => self.bytes(conn, &bytes, now),
            PeerInput::Alive { conn } => {
                if let Some(connection) = self.connection_mut(conn.direction)
                    && connection.conn == conn
                {
                    connection.heard(now);
                }
            }
            PeerInput::Closed { conn, failure } => self.closed(conn, failure, now),
            PeerInput::LinkDown { link, interface } => self.link_down(link, interface, now),
            PeerInput::AskForRoutes { family } => self.ask_for_routes(family, now),
            PeerInput::Timeout => self.timeout(now),
        }
        self.release(now);
    }

    /// The next output.
    pub fn poll_output(&mut self) -> Option<PeerOutput> {
        self.outputs.pop_front()
    }

    /// The state, of the further one of two connections.
    pub fn state(&self) -> State {
        let outgoing = match &self.outgoing {
            Outgoing::Idle { .. } => State::Idle,
            Outgoing::Active { .. } => State::Active,
            Outgoing::Connect { .. } => State::Connect,
            Outgoing::Up(connection) => connection.state(),
        };
        self.incoming
            .iter()
            .map(Connection::state)
            .fold(outgoing, State::max)
    }

    /// The configuration in force.
    pub fn config(&self) -> &PeerConfig {
        &self.config
    }

    /// What was agreed, while the session is up.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.established().and_then(Connection::negotiated)
    }

    /// Counts UPDATE and ROUTE-REFRESH messages the caller sent for the RIB, and the bytes of both.
    pub fn count_routes_sent(&mut self, updates: u64, refreshes: u64, bytes: u64) {
        let sent = &mut self.record.counters.sent;
        sent.count(bgp_wire::MessageKind::Update, updates, bytes);
        sent.count(bgp_wire::MessageKind::RouteRefresh, refreshes, 0);
    }

    /// Everything there is to say about the session.
    pub fn snapshot(&self, now: Instant) -> PeerSnapshot {
        let until = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(now));
        let best = self
            .connections()
            .max_by_key(|connection| connection.state());
        let (restart_at, retry_at) = match &self.outgoing {
            Outgoing::Idle { restart_at } => (*restart_at, None),
            Outgoing::Active { retry_at } => (None, *retry_at),
            Outgoing::Connect { retry_at, .. } => (None, Some(*retry_at)),
            Outgoing::Up(_) => (None, None),
        };
        let negotiated = self.negotiated().cloned();
        PeerSnapshot {
            name: self.name.clone(),
            address: self.config.address.clone(),
            port: self.config.port,
            local_asn: self.local.asn,
            router_id: self.local.router_id,
            configured_asn: self.config.asn,
            remote_asn: self.record.remote_asn,
            remote_router_id: self.record.remote_router_id,
            state: self.record.state,
            since: self.record.since,
            established_at: self.record.established_at,
            down: self.record.down.clone(),
            last_error: self.record.last_error.clone(),
            timers: TimersSnapshot {
                configured: self.config.timers,
                hold_s: negotiated.as_ref().map(|n| n.hold_s),
                keepalive: negotiated.as_ref().and_then(|n| n.keepalive),
                connect_retry_in: until(retry_at),
                idle_hold_in: until(restart_at),
                hold_in: until(best.and_then(Connection::hold_at)),
                keepalive_in: until(best.and_then(Connection::keepalive_at)),
            },
            addresses: best.map(|connection| connection.addresses.clone()),
            capabilities_sent: self.record.capabilities_sent.clone(),
            capabilities_received: self.record.capabilities_received.clone(),
            negotiated,
            without_capabilities: self.style == OpenStyle::Bare,
            ttl: self.ttl(),
            password: self.config.password.is_some(),
            local_address: self.config.local_address,
            graceful_restart_s: self.config.graceful_restart.map(|gr| gr.restart_time_s()),
            counters: self.record.counters.clone(),
            notification_sent: self.record.notification_sent.clone(),
            notification_received: self.record.notification_received.clone(),
            history: self.record.history(),
        }
    }

    /// The TTL of sent packets: as configured to another AS, 255 within the own one, whose
    /// members may be hops away, and 255 where the neighbour counts hops (RFC 5082 §3).
    pub fn ttl(&self) -> u8 {
        if self.config.asn == Some(self.local.asn) || self.config.ttl_security.is_some() {
            255
        } else {
            self.config.ttl()
        }
    }

    fn start(&mut self, event: Event, now: Instant) {
        if let Some(message) = &self.config.shutdown {
            let message = message.clone();
            self.record
                .failed(DownReason::Stopped(StopReason::Shutdown { message }), now);
            self.outgoing = Outgoing::Idle { restart_at: None };
            return;
        }
        if let Outgoing::Idle { .. } = self.outgoing
            && react(State::Idle, event) == Reaction::Start
        {
            if event == Event::ManualStart {
                self.errors = 0;
            }
            self.begin(now);
        }
        self.note(event, now);
    }

    /// Dials, or waits where the neighbour is the one to call.
    fn begin(&mut self, now: Instant) {
        self.outgoing = match self.config.connect {
            ConnectMode::Passive => Outgoing::Active { retry_at: None },
            ConnectMode::Both | ConnectMode::Active => {
                self.next_serial += 1;
                let conn = ConnId {
                    direction: Direction::Outgoing,
                    serial: self.next_serial,
                };
                self.record.counters.attempts += 1;
                self.outputs.push_back(PeerOutput::Connect { conn });
                Outgoing::Connect {
                    conn,
                    retry_at: self.retry_at(now),
                }
            }
        };
    }

    fn retry_at(&mut self, now: Instant) -> Instant {
        now + self.jitter.spread(self.config.timers.connect_retry())
    }

    /// Whether the last session brought more routes than it may.
    fn is_limited(&self) -> bool {
        let down = &self.record.down;
        matches!(
            down,
            Some(DownReason::Stopped(StopReason::PrefixLimit { .. }))
        )
    }

    fn stop(&mut self, reason: StopReason, now: Instant) {
        if matches!(reason, StopReason::Reset | StopReason::Shutdown { .. }) {
            // The neighbour may take by now what it refused.
            self.style = OpenStyle::Full;
        }
        let was_idle =
            matches!(self.outgoing, Outgoing::Idle { restart_at: None }) && !self.is_limited();
        let event = match reason {
            StopReason::PrefixLimit { .. }
            | StopReason::SendHoldTimer
            | StopReason::BfdDown { .. } => Event::AutomaticStop,
            StopReason::Shutdown { .. }
            | StopReason::Deconfigured
            | StopReason::ConfigurationChange
            | StopReason::Reset
            | StopReason::LinkDown { .. }
            | StopReason::PlannedRestart
            | StopReason::Other { .. } => Event::ManualStop,
        };
        let pause = match &reason {
            StopReason::Reset | StopReason::ConfigurationChange => Some(Duration::ZERO),
            StopReason::PrefixLimit { restart_s, .. } => {
                (*restart_s > 0).then(|| Duration::from_secs((*restart_s).into()))
            }
            StopReason::BfdDown { waits: true, .. } => None,
            StopReason::SendHoldTimer
            | StopReason::LinkDown { .. }
            | StopReason::BfdDown { waits: false, .. } => Some(self.next_pause()),
            StopReason::Shutdown { .. }
            | StopReason::Deconfigured
            | StopReason::PlannedRestart
            | StopReason::Other { .. } => None,
        };
        let resumes = reason == StopReason::PlannedRestart
            && self
                .established()
                .and_then(Connection::negotiated)
                .is_some_and(|negotiated| negotiated.graceful_restart.is_some());
        // RFC 8538 §3.1: without it the neighbour would keep routes to what is gone.
        let is_hard = reason.is_final()
            && self
                .negotiated()
                .is_some_and(|negotiated| negotiated.notification_restart);
        let notification = (!resumes).then(|| match reason.notification() {
            notification if is_hard => Notification::hard_reset(&notification),
            notification => notification,
        });
        let down = DownReason::Stopped(reason);
        for direction in [Direction::Outgoing, Direction::Incoming] {
            self.drop_connection(direction, notification.clone(), &down);
        }
        // A reset of what was never started starts nothing.
        let restart_at = pause.filter(|_| !was_idle).map(|pause| now + pause);
        self.outgoing = Outgoing::Idle { restart_at };
        self.record.failed(down, now);
        self.note(event, now);
    }

    fn configure(&mut self, config: PeerConfig, now: Instant) {
        let changes = self.config.changes_to(&config);
        let resets = changes
            .iter()
            .any(|(_, effect)| *effect == Effect::SessionReset);
        let mode_changed = self.config.connect != config.connect;
        let was_shut_down = self.config.shutdown.is_some();
        self.config = config;
        if resets {
            self.style = OpenStyle::Full;
            self.real_as = false;
            self.errors = 0;
        }
        match &self.config.shutdown {
            Some(message) if !was_shut_down => {
                let message = message.clone();
                self.stop(StopReason::Shutdown { message }, now);
                return;
            }
            Some(_) => return,
            None if was_shut_down => {
                self.start(Event::ManualStart, now);
                return;
            }
            None => {}
        }
        let running = !matches!(self.outgoing, Outgoing::Idle { restart_at: None });
        let unwelcome = self
            .established()
            .and_then(Connection::negotiated)
            .is_some_and(|up| {
                !self.config.asns.is_empty()
                    && !self
                        .config
                        .asns
                        .iter()
                        .any(|range| range.contains(up.peer_asn))
            });
        if resets || unwelcome {
            self.stop(StopReason::ConfigurationChange, now);
        } else if running && mode_changed {
            self.change_mode(now);
        }
    }

    /// Fast external fail-over: packets of a neighbour on the link have no other way, so waiting for
    /// the hold timer only loses traffic. Sessions over several hops may find another way.
    fn link_down(&mut self, link: LinkIndex, interface: String, now: Instant) {
        let one_hop = match self.config.ttl_security {
            Some(security) => security.hops() == 1,
            None => self.config.ttl() == 1,
        };
        let concerned = self.connections().any(|connection| {
            connection.addresses.link == Some(link)
                && connection.negotiated().is_none_or(|up| !up.is_internal())
        });
        if self.config.fast_failover && one_hop && concerned {
            self.stop(StopReason::LinkDown { interface }, now);
        }
    }

    /// Who dials has changed; a session that is up does not mind.
    fn change_mode(&mut self, now: Instant) {
        match (&self.outgoing, self.config.connect) {
            (Outgoing::Active { retry_at: None }, ConnectMode::Both | ConnectMode::Active)
                if self.incoming.is_none() =>
            {
                self.begin(now);
            }
            (Outgoing::Connect { conn, .. }, ConnectMode::Passive) => {
                let conn = *conn;
                self.outputs.push_back(PeerOutput::Close {
                    conn,
                    how: CloseHow::Abort,
                });
                self.outgoing = Outgoing::Active { retry_at: None };
            }
            (Outgoing::Active { .. }, ConnectMode::Passive) => {
                self.outgoing = Outgoing::Active { retry_at: None };
            }
            (Outgoing::Idle { .. } | Outgoing::Up(_), _)
            | (Outgoing::Active { .. } | Outgoing::Connect { .. }, _) => {}
        }
        self.note(Event::ManualStart, now);
    }

    fn connect_failed(&mut self, conn: ConnId, failure: TransportFailure, now: Instant) {
        let Outgoing::Connect { conn: ours, .. } = self.outgoing else {
            return;
        };
        if ours != conn {
            return;
        }
        match react(State::Connect, Event::TcpConnectionFails) {
            Reaction::WaitForRetry => {
                let password = self.config.password.is_some();
                self.record
                    .failed(DownReason::ConnectFailed { failure, password }, now);
                let retry_at = self.retry_at(now);
                self.outgoing = Outgoing::Active {
                    retry_at: Some(retry_at),
                };
            }
            other => unreachable!("the table has no {other:?} for a failed attempt"),
        }
        self.note(Event::TcpConnectionFails, now);
    }

    /// Notes the state reached, after an event.
    fn note(&mut self, event: Event, now: Instant) {
        let state = self.state();
        self.record.state_is(&self.name, state, event, now);
    }

    fn connections(&self) -> impl Iterator<Item = &Connection> {
        let outgoing = match &self.outgoing {
            Outgoing::Up(connection) => Some(connection),
            Outgoing::Idle { .. } | Outgoing::Active { .. } | Outgoing::Connect { .. } => None,
        };
        outgoing.into_iter().chain(&self.incoming)
    }

    fn connection(&self, direction: Direction) -> Option<&Connection> {
        match (direction, &self.outgoing) {
            (Direction::Incoming, _) => self.incoming.as_ref(),
            (Direction::Outgoing, Outgoing::Up(connection)) => Some(connection),
            (Direction::Outgoing, _) => None,
        }
    }

    fn connection_mut(&mut self, direction: Direction) -> Option<&mut Connection> {
        match (direction, &mut self.outgoing) {
            (Direction::Incoming, _) => self.incoming.as_mut(),
            (Direction::Outgoing, Outgoing::Up(connection)) => Some(connection),
            (Direction::Outgoing, _) => None,
        }
    }

    fn established(&self) -> Option<&Connection> {
        self.connections()
            .find(|connection| connection.state() == State::Established)
    }
}

#[cfg(test)]
mod tests;
