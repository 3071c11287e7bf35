// SPDX-License-Identifier: Apache-2.0
//! One session (RFC 5880 §6), without clock and socket.
//!
//! Names of fields are the state variables of §6.8.1. The caller finds the session of a packet and
//! checks TTL and addresses; the session authenticates, negotiates, detects and answers.
//!
//! Deviations: a Poll Sequence is run for changes while Up only (§6.8.3 demands it always): in other
//! states changes take effect at once, since both ends send once a second anyway. The echo function
//! detects failures, and control packets slow down, from the first echo packet that came back on: a
//! neighbour that asks for echo packets and does not return any is guarded by control packets, and
//! never flaps.

mod echo_run;
mod status;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use status::{EchoState, EchoStatus, SessionStatus};

use echo_run::EchoRun;

use crate::jitter::Random;
use crate::profile::{Hops, Profile};
use crate::wire::{Diagnostic, Encoded, Packet, Received, State};

/// The slowest a session that is not up may want to send (RFC 5880 §6.8.3).
const SLOW_US: u32 = 1_000_000;

/// What a session is told to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send this control packet.
    Transmit(Encoded),
    /// Send an echo packet.
    TransmitEcho {
        /// Its number, for [`crate::echo::Echo`].
        sequence: u64,
    },
    /// The state has changed.
    State {
        /// What it was.
        from: State,
        /// What it is.
        to: State,
        /// Why, on the way down.
        diagnostic: Diagnostic,
    },
}

/// Why a session discards a packet (RFC 5880 §6.8.6, §6.7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
pub enum Discard {
    /// The session is authenticated, the packet is not.
    #[error("packet without authentication")]
    Unauthenticated,
    /// The packet is authenticated, the session is not.
    #[error("packet with authentication")]
    UnwantedAuthentication,
    /// Another type, key number, password or digest.
    #[error("authentication failed")]
    WrongKey,
    /// The sequence number is not among the next.
    #[error("authentication sequence number out of range")]
    Replayed,
    /// The session is shut.
    #[error("session is administratively down")]
    AdminDown,
    /// An echo packet of ours that is not under way: it has been back, or it is too late.
    #[error("echo packet is not awaited")]
    StaleEcho,
}

/// A Poll Sequence (RFC 5880 §6.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Poll {
    Idle,
    /// Packets have P set until F comes.
    Running,
    /// As `Running`; what is asked for has changed meanwhile, so F starts the next.
    Outdated,
}

/// What is known of the neighbour.
#[derive(Clone, Copy, Debug)]
struct Remote {
    discriminator: u32,
    state: State,
    diagnostic: Diagnostic,
    demand: bool,
    control_plane_independent: bool,
    multiplier: u8,
    min_tx_us: u32,
    min_rx_us: u32,
    min_echo_rx_us: u32,
}

impl Default for Remote {
    fn default() -> Remote {
        Remote {
            discriminator: 0,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            demand: false,
            control_plane_independent: false,
            multiplier: 0,
            min_tx_us: 0,
            // RFC 5880 §6.8.1: "initially 1".
            min_rx_us: 1,
            min_echo_rx_us: 0,
        }
    }
}

/// A session.
#[derive(Debug)]
pub struct Session {
    profile: Profile,
    hops: Hops,
    discriminator: u32,
    random: Random,
    state: State,
    diagnostic: Diagnostic,
    remote: Remote,
    /// `bfd.DesiredMinTxInterval`, as sent.
    desired_min_tx_us: u32,
    /// `bfd.RequiredMinRxInterval`, as sent.
    required_min_rx_us: u32,
    /// As above, as used: what gets slower waits for the end of the Poll Sequence (§6.8.3).
    used_min_tx_us: u32,
    used_min_rx_us: u32,
    poll: Poll,
    /// The last packet sent, P and F cleared, and when the next periodic one is due.
    sent: Option<Packet>,
    transmitted_at: Option<Instant>,
    next_transmit: Option<Instant>,
    /// When the last packet that counted came.
    heard: Option<Instant>,
    echo: EchoRun,
    /// `bfd.XmitAuthSeq`.
    sequence_sent: u32,
    /// `bfd.RcvAuthSeq`, while `bfd.AuthSeqKnown`.
    sequence_received: Option<u32>,
    record: status::Record,
    /// Bounded: each call adds at most four, and callers empty it after each.
    outputs: VecDeque<Output>,
}

impl Session {
    /// A session in Down that begins to speak at once, unless it is passive. `discriminator` is
    /// unique on this system and not 0.
    pub fn new(
        discriminator: u32,
        hops: Hops,
        profile: Profile,
        seed: u64,
        now: Instant,
    ) -> Session {
        let mut random = Random::new(seed);
        let sequence_sent = random.next();
        let mut session = Session {
            hops,
            discriminator,
            random,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            remote: Remote::default(),
            desired_min_tx_us: profile.transmit.us().max(SLOW_US),
            required_min_rx_us: profile.receive.us(),
            used_min_tx_us: profile.transmit.us().max(SLOW_US),
            used_min_rx_us: profile.receive.us(),
            poll: Poll::Idle,
            sent: None,
            transmitted_at: None,
            next_transmit: None,
            heard: None,
            echo: EchoRun::default(),
            sequence_sent,
            sequence_received: None,
            record: status::Record::new(now),
            outputs: VecDeque::with_capacity(8),
            profile,
        };
        if session.transmit_interval().is_some() {
            session.next_transmit = Some(now);
        }
        session
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Our number of the session.
    pub fn discriminator(&self) -> u32 {
        self.discriminator
    }

    /// The profile in force.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Session::handle_timeout`] is due, and for what.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        [
            (self.next_transmit, "transmit"),
            (self.detect_at(), "detection"),
            (self.echo.next_transmit, "echo transmit"),
            (self.echo_detect_at(), "echo detection"),
        ]
        .into_iter()
        .filter_map(|(at, why)| Some((at?, why)))
        .min()
    }

    /// Takes a packet for this session.
    ///
    /// # Errors
    /// Why it is discarded.
    pub fn handle_packet(&mut self, received: &Received<'_>, now: Instant) -> Result<(), Discard> {
        self.authenticate(received, now)?;
        let packet = &received.packet;
        // RFC 5880 §6.8.6, in its order.
        self.remote = Remote {
            discriminator: packet.my_discriminator,
            state: packet.state,
            diagnostic: packet.diagnostic,
            demand: packet.demand,
            control_plane_independent: packet.control_plane_independent,
            multiplier: packet.multiplier,
            min_tx_us: packet.desired_min_tx_us,
            min_rx_us: packet.required_min_rx_us,
            min_echo_rx_us: packet.required_min_echo_rx_us,
        };
        self.record.packets_in += 1;
        self.heard = Some(now);
        if packet.last {
            self.end_poll();
        }
        if self.state == State::AdminDown {
            return Err(Discard::AdminDown);
        }
        self.step(packet.state, now);
        self.adjust();
        if packet.poll {
            self.transmit(true, now);
        } else {
            self.tell_changes(now);
        }
        self.schedule(now);
        Ok(())
    }

    /// One of our echo packets has come back: the caller has checked its seal
    /// ([`crate::echo::EchoKey`]), that it came over the link of the session, and from one hop away.
    ///
    /// # Errors
    /// It does not count: each counts once, and only while it is under way.
    pub fn handle_echo(&mut self, sequence: u64, now: Instant) -> Result<(), Discard> {
        let is_first = self.echo.heard.is_none();
        let lost = self.echo.receive(sequence, now).ok_or(Discard::StaleEcho)?;
        self.record.echoes_in += 1;
        // Those that never came back before the first did say nothing of losses.
        if !is_first {
            self.record.echoes_lost += lost;
        }
        if is_first {
            // Control packets may be slower from here on.
            self.adjust();
            self.tell_changes(now);
        }
        self.schedule(now);
        Ok(())
    }

    /// Does what [`Session::poll_timeout`] is due for.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.detect_at().is_some_and(|at| at <= now) {
            self.neighbour_is_silent(now);
        }
        if self.echo_detect_at().is_some_and(|at| at <= now) {
            self.record.echoes_lost += self.echo.stop();
            self.go(State::Down, Diagnostic::ECHO_FAILED, now);
            self.adjust();
            self.tell_changes(now);
        }
        if self.next_transmit.is_some_and(|at| at <= now) {
            self.transmit(false, now);
        }
        if let Some(at) = self.echo.next_transmit
            && at <= now
        {
            let (sequence, lost) = self.echo.send(now);
            self.outputs.push_back(Output::TransmitEcho { sequence });
            self.record.echoes_out += 1;
            self.record.echoes_lost += lost;
        }
        self.schedule(now);
    }

    /// Another profile; takes effect without a flap. A changed key does, too, where both ends
    /// change within the detection time.
    pub fn handle_profile(&mut self, profile: Profile, now: Instant) {
        if self.profile == profile {
            return;
        }
        if self.profile.auth != profile.auth {
            self.sequence_received = None;
        }
        self.profile = profile;
        self.adjust();
        self.tell_changes(now);
        self.schedule(now);
    }

    /// Shuts the session, or opens it again (RFC 5880 §6.8.16).
    pub fn handle_admin(&mut self, shut: bool, now: Instant) {
        match (shut, self.state) {
            (true, State::Down | State::Init | State::Up) => {
                self.go(State::AdminDown, Diagnostic::ADMIN_DOWN, now);
            }
            (false, State::AdminDown) => self.go(State::Down, Diagnostic::NONE, now),
            (true, State::AdminDown) | (false, State::Down | State::Init | State::Up) => return,
        }
        self.adjust();
        self.tell_changes(now);
        self.schedule(now);
    }

    /// Everything there is to say.
    pub fn status(&self, now: Instant) -> SessionStatus {
        let us = |d: Duration| d.as_micros() as u64;
        SessionStatus {
            state: self.state,
            diagnostic: self.diagnostic,
            local_discriminator: self.discriminator,
            remote_discriminator: self.remote.discriminator,
            remote_state: self.remote.state,
            remote_diagnostic: self.remote.diagnostic,
            remote_control_plane_independent: self.remote.control_plane_independent,
            remote_demand: self.remote.demand,
            remote_multiplier: self.remote.multiplier,
            remote_min_tx_us: self.remote.min_tx_us,
            remote_min_rx_us: self.remote.min_rx_us,
            remote_min_echo_rx_us: self.remote.min_echo_rx_us,
            multiplier: self.profile.multiplier.get(),
            desired_min_tx_us: self.desired_min_tx_us,
            required_min_rx_us: self.required_min_rx_us,
            required_min_echo_rx_us: self.required_min_echo_rx_us(),
            transmit_interval_us: self.transmit_interval().map_or(0, us),
            detection_time_us: self.detection_time().map_or(0, us),
            polling: self.poll != Poll::Idle,
            echo_state: self.echo_state(),
            echo: self.is_echoing().then(|| EchoStatus {
                interval_us: us(self.echo_interval()),
                returning: self.echo.heard.is_some(),
                detection_time_us: us(
                    self.echo_interval() * u32::from(self.profile.multiplier.get())
                ),
                round_trip_us: self.echo.round_trip.map_or(0, us),
            }),
            packets_in: self.record.packets_in,
            packets_out: self.record.packets_out,
            echoes_in: self.record.echoes_in,
            echoes_out: self.record.echoes_out,
            echoes_lost: self.record.echoes_lost,
            up_count: self.record.up_count,
            down_count: self.record.down_count,
            last_down: self.record.last_down,
            failures: self.record.failures,
            in_state: now.saturating_duration_since(self.record.since),
        }
    }

    /// RFC 5880 §6.7.
    fn authenticate(&mut self, received: &Received<'_>, now: Instant) -> Result<(), Discard> {
        let (auth, section) = match (&self.profile.auth, &received.auth) {
            (None, None) => return Ok(()),
            (None, Some(_)) => return Err(Discard::UnwantedAuthentication),
            (Some(_), None) => return Err(Discard::Unauthenticated),
            (Some(auth), Some(section)) => (auth, section),
        };
        if !section.is_genuine(received.bytes, auth) {
            return Err(Discard::WrongKey);
        }
        if section.kind == crate::profile::AuthType::SimplePassword {
            return Ok(());
        }
        // RFC 5880 §6.8.1 `bfd.AuthSeqKnown`: forgotten after twice the detection time.
        let forgotten = match (self.heard, self.detection_time()) {
            (Some(heard), Some(time)) => now.saturating_duration_since(heard) >= time * 2,
            (Some(_), None) | (None, _) => true,
        };
        if let Some(last) = self.sequence_received.filter(|_| !forgotten) {
            let ahead = section.sequence.wrapping_sub(last);
            let least = u32::from(section.kind.is_meticulous());
            let most = 3 * u32::from(received.packet.multiplier);
            if !(least..=most).contains(&ahead) {
                return Err(Discard::Replayed);
            }
        }
        self.sequence_received = Some(section.sequence);
        Ok(())
    }

    /// The state machine (RFC 5880 §6.2, §6.8.6).
    fn step(&mut self, theirs: State, now: Instant) {
        match (self.state, theirs) {
            (State::AdminDown, _) => {}
            (State::Down, State::Down) => self.go(State::Init, Diagnostic::NONE, now),
            (State::Down | State::Init, State::Init) | (State::Init, State::Up) => {
                self.go(State::Up, Diagnostic::NONE, now);
            }
            (State::Init | State::Up, State::AdminDown) | (State::Up, State::Down) => {
                self.go(State::Down, Diagnostic::NEIGHBOR_DOWN, now);
            }
            (State::Down, State::AdminDown | State::Up)
            | (State::Init, State::Down)
            | (State::Up, State::Init | State::Up) => {}
        }
    }

    fn go(&mut self, to: State, diagnostic: Diagnostic, now: Instant) {
        let from = self.state;
        self.state = to;
        // The reason of the last failure is told until the session is up again.
        if diagnostic != Diagnostic::NONE || to == State::Up || from == State::AdminDown {
            self.diagnostic = diagnostic;
        }
        self.record
            .went((from, to), diagnostic, self.remote.state, now);
        if from == State::Up {
            self.poll = Poll::Idle;
            self.echo.stop();
        }
        self.outputs.push_back(Output::State {
            from,
            to,
            diagnostic,
        });
    }

    /// Nothing came for the detection time (§6.8.4); what is known of the neighbour is void
    /// (§6.8.1 `bfd.RemoteDiscr`).
    fn neighbour_is_silent(&mut self, now: Instant) {
        match self.state {
            State::Init | State::Up => {
                self.go(State::Down, Diagnostic::DETECTION_TIME_EXPIRED, now);
            }
            State::AdminDown | State::Down => {}
        }
        self.remote = Remote {
            // What the silence means is decided by it (RFC 5882 §4.3).
            control_plane_independent: self.remote.control_plane_independent,
            ..Remote::default()
        };
        self.heard = None;
        self.adjust();
        self.tell_changes(now);
    }

    /// Asks for the intervals that the profile and the state want (§6.8.3).
    fn adjust(&mut self) {
        if !self.is_echoing() {
            self.echo.stop();
        }
        let slow = if self.state == State::Up { 0 } else { SLOW_US };
        let tx = self.profile.transmit.us().max(slow);
        // While echo packets guard the path, control packets may come once a second.
        let relaxed = if self.echo.heard.is_some() {
            SLOW_US
        } else {
            0
        };
        let rx = self.profile.receive.us().max(relaxed);
        if (tx, rx) != (self.desired_min_tx_us, self.required_min_rx_us) {
            self.desired_min_tx_us = tx;
            self.required_min_rx_us = rx;
            if self.state == State::Up {
                self.poll = match self.poll {
                    Poll::Idle => Poll::Running,
                    Poll::Running | Poll::Outdated => Poll::Outdated,
                };
            }
        }
        match self.state {
            // Sending more slowly and expecting more often wait for the neighbour's word.
            State::Up => {
                self.used_min_tx_us = self.used_min_tx_us.min(tx);
                self.used_min_rx_us = self.used_min_rx_us.max(rx);
            }
            State::AdminDown | State::Down | State::Init => {
                self.used_min_tx_us = tx;
                self.used_min_rx_us = rx;
            }
        }
    }

    /// F has come.
    fn end_poll(&mut self) {
        match self.poll {
            Poll::Idle => {}
            Poll::Running => {
                self.poll = Poll::Idle;
                self.used_min_tx_us = self.desired_min_tx_us;
                self.used_min_rx_us = self.required_min_rx_us;
            }
            Poll::Outdated => self.poll = Poll::Running,
        }
    }

    fn required_min_echo_rx_us(&self) -> u32 {
        match (self.hops, self.profile.echo.receive) {
            (Hops::Single, Some(interval)) => interval.us(),
            (Hops::Single, None) | (Hops::Multi, _) => 0,
        }
    }

    /// How often packets go, before jitter (§6.8.7); `None` for not at all.
    fn transmit_interval(&self) -> Option<Duration> {
        let is_waiting = self.profile.passive && self.remote.discriminator == 0;
        let is_demanded = self.remote.demand
            && self.state == State::Up
            && self.remote.state == State::Up
            && self.poll == Poll::Idle;
        if is_waiting || is_demanded || self.remote.min_rx_us == 0 {
            return None;
        }
        let us = self.used_min_tx_us.max(self.remote.min_rx_us);
        Some(Duration::from_micros(u64::from(us)))
    }

    /// §6.8.4; `None` before the neighbour was heard.
    fn detection_time(&self) -> Option<Duration> {
        self.heard?;
        let us = self.used_min_rx_us.max(self.remote.min_tx_us);
        Some(Duration::from_micros(u64::from(us)) * u32::from(self.remote.multiplier))
    }

    fn detect_at(&self) -> Option<Instant> {
        Some(self.heard? + self.detection_time()?)
    }

    /// Whether echo packets of ours go (§6.8.9).
    fn is_echoing(&self) -> bool {
        self.profile.echo.transmit.is_some()
            && self.hops == Hops::Single
            && self.state == State::Up
            && self.remote.state == State::Up
            && self.remote.min_echo_rx_us != 0
    }

    /// How far our echo packets get.
    pub fn echo_state(&self) -> EchoState {
        let is_wanted = self.profile.echo.transmit.is_some();
        match self.hops {
            Hops::Single if is_wanted => {}
            Hops::Single | Hops::Multi => return EchoState::Off,
        }
        if self.state != State::Up || self.remote.state != State::Up {
            EchoState::Waiting
        } else if self.remote.min_echo_rx_us == 0 {
            EchoState::Refused
        } else if self.echo.heard.is_none() {
            EchoState::Unreturned
        } else {
            EchoState::Returning
        }
    }

    fn echo_interval(&self) -> Duration {
        let ours = self
            .profile
            .echo
            .transmit
            .map_or(0, |interval| interval.us());
        Duration::from_micros(u64::from(ours.max(self.remote.min_echo_rx_us)))
    }

    fn echo_detect_at(&self) -> Option<Instant> {
        self.echo
            .detect_at(self.echo_interval(), self.profile.multiplier)
    }

    /// What a packet says.
    fn contents(&self) -> Packet {
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: false,
            last: false,
            control_plane_independent: true,
            demand: false,
            multiplier: self.profile.multiplier.get(),
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx_us: self.desired_min_tx_us,
            required_min_rx_us: self.required_min_rx_us,
            required_min_echo_rx_us: self.required_min_echo_rx_us(),
        }
    }

    /// Sends between the periodic packets what the last one did not say (§6.8.7).
    fn tell_changes(&mut self, now: Instant) {
        if self.transmit_interval().is_some() && self.sent != Some(self.contents()) {
            self.transmit(false, now);
        }
    }

    fn transmit(&mut self, last: bool, now: Instant) {
        let contents = self.contents();
        let packet = Packet {
            // §6.8.7: never both.
            poll: self.poll != Poll::Idle && !last,
            last,
            ..contents
        };
        let auth = self.profile.auth.as_ref().map(|auth| {
            self.sequence_sent = self.sequence_sent.wrapping_add(1);
            (auth, self.sequence_sent)
        });
        self.outputs
            .push_back(Output::Transmit(packet.encode(auth)));
        self.record.packets_out += 1;
        self.sent = Some(contents);
        if last {
            return; // an answer, not one of the periodic packets
        }
        self.transmitted_at = Some(now);
        self.next_transmit = None;
    }

    /// Sets the timers that are not set, and moves those that are too late.
    fn schedule(&mut self, now: Instant) {
        let multiplier = self.profile.multiplier.get();
        self.next_transmit = self.transmit_interval().map(|interval| {
            let latest = self.transmitted_at.map_or(now, |at| at + interval);
            match self.next_transmit {
                Some(at) if at <= latest => at,
                Some(_) | None => {
                    let from = self.transmitted_at.unwrap_or(now);
                    (from + self.random.spread(interval, multiplier)).max(now)
                }
            }
        });
        if self.is_echoing() {
            let interval = self.echo_interval();
            let (multiplier, random) = (self.profile.multiplier, &mut self.random);
            self.echo.schedule(interval, multiplier, random, now);
        } else {
            self.echo.stop();
        }
    }
}

#[cfg(test)]
mod tests;
