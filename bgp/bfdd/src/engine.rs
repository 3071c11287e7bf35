// SPDX-License-Identifier: Apache-2.0
//! The thread of the sessions: it waits for packets, timers and commands, and for nothing else.
//!
//! It never blocks on a lock, a file or a client: what it tells clients goes into bounded queues,
//! and a client whose queue is full is let go; it comes back and is told everything anew.

mod drops;
mod echo;
mod entry;
mod links;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Inbox, Sender, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use bgp_bfd::echo::EchoKey;
use bgp_bfd::profile::{Hops, Profile};
use bgp_bfd::session::Session;
use bgp_bfd::wire;
use nix::poll::{PollFd, PollFlags};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;

use drops::{Drop, Drops};
use entry::Entry;
pub(crate) use links::loopback_addresses;
use links::{Links, Place};

use crate::link_socket::LinkSocket;
use crate::protocol::{Event, LATENESS_US, Report, SessionKey};
use crate::socket::{Arrival, Port, Receiver, TTL};

/// Packets taken from one socket before others are looked at.
const BATCH: usize = 512;

/// How long a session that nobody wants any more says AdminDown: three packets at the slow rate.
const FAREWELL: Duration = Duration::from_millis(2500);

/// How often absent owners are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// A connected client.
pub(crate) type ClientId = u64;

/// What the control socket asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Connected(ClientId, String, SyncSender<Event>),
    Disconnected(ClientId),
    /// With the addresses of the node that are on no link, where the profile asks for them.
    Want(ClientId, SessionKey, Box<Profile>, Option<Vec<IpAddr>>),
    Release(ClientId, SessionKey),
    Retain(ClientId),
    Report(ClientId, u64),
    /// Shut all sessions, say so, and end.
    End,
}

#[derive(Debug)]
struct Client {
    owner: String,
    events: SyncSender<Event>,
    wanted: BTreeSet<SessionKey>,
}

/// All sessions and what they need.
pub(crate) struct Engine {
    sessions: BTreeMap<u32, Entry>,
    by_key: BTreeMap<SessionKey, u32>,
    timers: BTreeSet<(Instant, u32)>,
    receivers: Vec<Receiver>,
    links: Links,
    /// Whether the kernel forwards, where a session wants echo packets.
    forwarding: BTreeMap<Place, bool>,
    loopback_addresses: Vec<IpAddr>,
    echo_key: EchoKey,
    clients: BTreeMap<ClientId, Client>,
    /// Owners without a client, and since when.
    absent: BTreeMap<String, Instant>,
    linger: Duration,
    housekeeping_at: Instant,
    random: u64,
    drops: Drops,
    warnings: Vec<String>,
    lateness: [u64; 7],
    lateness_sum_us: u64,
    lateness_max_us: u64,
    ending: Option<Instant>,
}

impl Engine {
    pub(crate) fn new(
        receivers: Vec<Receiver>,
        linger: Duration,
        seed: u64,
        echo_key: EchoKey,
        closing: Sender<LinkSocket>,
        warnings: Vec<String>,
    ) -> Engine {
        Engine {
            sessions: BTreeMap::new(),
            by_key: BTreeMap::new(),
            timers: BTreeSet::new(),
            receivers,
            links: Links::new(closing),
            forwarding: BTreeMap::new(),
            loopback_addresses: Vec::new(),
            echo_key,
            clients: BTreeMap::new(),
            absent: BTreeMap::new(),
            linger,
            housekeeping_at: Instant::now(),
            random: seed | 1,
            drops: Drops::default(),
            warnings,
            lateness: [0; 7],
            lateness_sum_us: 0,
            lateness_max_us: 0,
            ending: None,
        }
    }

    /// Runs until told to end, or until nobody can tell any more.
    pub(crate) fn run(mut self, commands: &Inbox<Command>, wake: &Arc<EventFd>) -> io::Result<()> {
        loop {
            let readable = self.wait(wake)?;
            if readable.first() == Some(&true) {
                wake.read()?;
            }
            let mut drained = true;
            for index in 0..self.receivers.len() {
                if readable.get(index + 1) == Some(&true) {
                    drained &= self.receive(index);
                }
            }
            for (index, place) in self.links.places().into_iter().enumerate() {
                if readable.get(index + 1 + self.receivers.len()) == Some(&true) {
                    drained &= self.receive_link(place);
                }
            }
            let now = Instant::now();
            // Packets that wait are proof of life: nobody is declared dead before they are read.
            if drained {
                self.serve_timers(now);
            }
            loop {
                match commands.try_recv() {
                    Ok(command) => self.command(command, Instant::now()),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            if self.housekeeping_at <= now {
                self.housekeeping_at = now + HOUSEKEEPING;
                self.keep_house(now);
            }
            if self.ending.is_some_and(|at| at <= now) {
                return Ok(());
            }
        }
    }

    /// Waits for the first of: a command, a packet, a timer. Says which descriptors can be read.
    fn wait(&self, wake: &EventFd) -> io::Result<Vec<bool>> {
        let mut fds = Vec::with_capacity(1 + self.receivers.len());
        fds.push(PollFd::new(wake.as_fd(), PollFlags::POLLIN));
        for receiver in &self.receivers {
            fds.push(PollFd::new(receiver.as_fd(), PollFlags::POLLIN));
        }
        for link in self.links.fds() {
            fds.push(PollFd::new(link, PollFlags::POLLIN));
        }
        let next = self.timers.first().map(|(at, _)| *at);
        let next = next.into_iter().chain(self.ending).min();
        let until = next.map_or(self.housekeeping_at, |at| at.min(self.housekeeping_at));
        let wait = until.saturating_duration_since(Instant::now());
        match nix::poll::ppoll(&mut fds, Some(TimeSpec::from_duration(wait)), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(fds.iter().map(|fd| fd.any().unwrap_or(false)).collect())
    }

    /// Reads a socket; `false` when there is more.
    fn receive(&mut self, index: usize) -> bool {
        let mut buffer = [0; 256];
        for _ in 0..BATCH {
            match self.receivers[index].receive(&mut buffer) {
                Ok(Some((length, arrival))) => {
                    let bytes = &buffer[..length];
                    match self.receivers[index].port {
                        Port::Control(hops) => self.packet(bytes, arrival, hops, Instant::now()),
                        Port::Echo => self.echo(index, bytes, arrival),
                    }
                }
                Ok(None) => return true,
                Err(error) => {
                    tracing::debug!(%error, "a packet could not be read");
                    return true;
                }
            }
        }
        false
    }

    fn packet(&mut self, bytes: &[u8], arrival: Arrival, hops: Hops, now: Instant) {
        // RFC 5881 §5: before anything else is looked at.
        if hops == Hops::Single && arrival.ttl.map(u32::from) != Some(TTL) {
            return self.drops.count(Drop::Ttl);
        }
        let received = match wire::decode(bytes) {
            Ok(received) => received,
            Err(error) => {
                tracing::trace!(from = %arrival.from, %error, "malformed packet");
                return self.drops.count(Drop::of_decoding(error));
            }
        };
        let found = match received.packet.your_discriminator {
            0 => self.find(arrival, hops),
            number => self
                .sessions
                .get(&number)
                .filter(|entry| entry.is_met_by(arrival, hops))
                .map(|_| number),
        };
        let Some(number) = found else {
            tracing::trace!(from = %arrival.from, "a packet of no session");
            return self.drops.count(Drop::NoSession);
        };
        let Some(entry) = self.sessions.get_mut(&number) else {
            return;
        };
        let minimum = u32::from(entry.session.profile().minimum_ttl);
        if hops == Hops::Multi && arrival.ttl.is_none_or(|ttl| u32::from(ttl) < minimum) {
            return entry.drops.count(Drop::Ttl);
        }
        if let Err(discard) = entry.session.handle_packet(&received, now) {
            tracing::debug!(peer = %entry.key.peer, %discard, "packet discarded");
            entry.drops.count(Drop::of_session(discard));
        } else if hops == Hops::Single {
            self.note_interface(number, arrival.interface, now);
        }
        self.after(number, now);
    }

    /// The session of a packet that does not know our number yet (RFC 5880 §6.3).
    fn find(&self, arrival: Arrival, hops: Hops) -> Option<u32> {
        let least = SessionKey {
            peer: arrival.from.ip(),
            local: None,
            interface: None,
            hops: Hops::Single,
        };
        self.by_key
            .range(least..)
            .take_while(|(key, _)| key.peer == arrival.from.ip())
            .map(|(_, number)| *number)
            .find(|number| {
                self.sessions
                    .get(number)
                    .is_some_and(|entry| entry.is_met_by(arrival, hops))
            })
    }

    fn serve_timers(&mut self, now: Instant) {
        while let Some(&(at, number)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, number));
            self.note_lateness(now - at);
            let Some(entry) = self.sessions.get_mut(&number) else {
                continue;
            };
            entry.scheduled = None;
            if entry.removed_at.is_some_and(|at| at <= now) {
                self.remove(number);
                continue;
            }
            entry.session.handle_timeout(now);
            self.after(number, now);
        }
    }

    fn note_lateness(&mut self, late: Duration) {
        let us = late.as_micros() as u64;
        let bucket = LATENESS_US
            .iter()
            .position(|upper| us <= *upper)
            .unwrap_or(LATENESS_US.len());
        self.lateness[bucket] += 1;
        self.lateness_sum_us += us;
        self.lateness_max_us = self.lateness_max_us.max(us);
    }

    /// Carries out what a session wants, and sets its timer.
    fn after(&mut self, number: u32, now: Instant) {
        let Some(entry) = self.sessions.get_mut(&number) else {
            return;
        };
        let random = &mut self.random;
        let changed = entry.carry_out(now, || next(random));
        let echo_due = entry.echo_due.take();
        if changed {
            let event = Event::State {
                key: entry.key.clone(),
                status: Box::new(entry.session.status(now)),
            };
            let owners = entry.owners.clone();
            self.tell(&owners, &event);
        }
        if let Some(sequence) = echo_due {
            self.send_echo(number, sequence);
        }
        self.schedule(number);
    }

    fn schedule(&mut self, number: u32) {
        let Some(entry) = self.sessions.get_mut(&number) else {
            return;
        };
        let due = entry.session.poll_timeout().map(|(at, _)| at);
        let due = due.into_iter().chain(entry.removed_at).min();
        if due != entry.scheduled {
            if let Some(at) = entry.scheduled {
                self.timers.remove(&(at, number));
            }
            if let Some(at) = due {
                self.timers.insert((at, number));
            }
            entry.scheduled = due;
        }
    }

    fn tell(&mut self, owners: &BTreeSet<String>, event: &Event) {
        let mut stuck = Vec::new();
        for (id, client) in &self.clients {
            if owners.contains(&client.owner) && client.events.try_send(event.clone()).is_err() {
                stuck.push(*id);
            }
        }
        for id in stuck {
            tracing::warn!(
                "a client does not read: it is let go, and told everything when it is back"
            );
            self.disconnected(id, Instant::now());
        }
    }

    fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Connected(id, owner, events) => self.connected(id, owner, events),
            Command::Disconnected(id) => self.disconnected(id, now),
            Command::Want(id, key, profile, addresses) => {
                self.loopback_addresses =
                    addresses.unwrap_or_else(|| std::mem::take(&mut self.loopback_addresses));
                self.want(id, key, *profile, now);
            }
            Command::Release(id, key) => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.wanted.remove(&key);
                    let owner = client.owner.clone();
                    self.release(&key, &owner, now);
                }
            }
            Command::Retain(id) => self.retain(id, now),
            Command::Report(id, question) => {
                let report = Box::new(self.report(now));
                let Some(client) = self.clients.get(&id) else {
                    return;
                };
                let answer = Event::Report {
                    id: question,
                    report,
                };
                if client.events.try_send(answer).is_err() {
                    self.disconnected(id, now);
                }
            }
            Command::End => {
                for number in self.by_key.values().copied().collect::<Vec<_>>() {
                    if let Some(entry) = self.sessions.get_mut(&number) {
                        entry.session.handle_admin(true, now);
                    }
                    self.after(number, now);
                }
                // Long enough for the packets to leave, short enough for a restart.
                self.ending = Some(now + Duration::from_millis(50));
            }
        }
    }

    fn connected(&mut self, id: ClientId, owner: String, events: SyncSender<Event>) {
        let hello = Event::Hello {
            version: crate::protocol::VERSION,
            pid: std::process::id(),
            warnings: self.warnings.clone(),
        };
        // The queue is new and empty.
        if events.try_send(hello).is_err() {
            return;
        }
        if self.absent.remove(&owner).is_some() {
            tracing::info!(%owner, "is back; its sessions went on");
        }
        let client = Client {
            owner,
            events,
            wanted: BTreeSet::new(),
        };
        self.clients.insert(id, client);
    }

    fn disconnected(&mut self, id: ClientId, now: Instant) {
        let Some(client) = self.clients.remove(&id) else {
            return;
        };
        if !self.clients.values().any(|c| c.owner == client.owner) {
            tracing::info!(owner = %client.owner, linger = ?self.linger, "is gone; its sessions go on");
            self.absent.insert(client.owner, now);
        }
    }

    fn want(&mut self, id: ClientId, key: SessionKey, profile: Profile, now: Instant) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        client.wanted.insert(key.clone());
        let owner = client.owner.clone();
        let number = match self.by_key.get(&key) {
            Some(number) => *number,
            None => self.create(key.clone(), &profile, now),
        };
        let Some(entry) = self.sessions.get_mut(&number) else {
            return;
        };
        entry.owners.insert(owner.clone());
        if entry.removed_at.take().is_some() {
            entry.session.handle_admin(false, now);
        }
        entry.wanted = profile;
        self.fit(number, now);
        let Some(entry) = self.sessions.get(&number) else {
            return;
        };
        let status = Box::new(entry.session.status(now));
        self.tell(&[owner].into(), &Event::State { key, status });
        self.after(number, now);
    }

    fn create(&mut self, key: SessionKey, profile: &Profile, now: Instant) -> u32 {
        let number = loop {
            let number = next(&mut self.random);
            if number != 0 && !self.sessions.contains_key(&number) {
                break number;
            }
        };
        tracing::info!(peer = %key.peer, hops = ?key.hops, interface = key.interface, "session begins");
        let seed = u64::from(next(&mut self.random)) << 32 | u64::from(next(&mut self.random));
        let session = Session::new(number, key.hops, profile.clone(), seed, now);
        self.sessions
            .insert(number, Entry::new(key.clone(), session));
        self.by_key.insert(key, number);
        number
    }

    fn release(&mut self, key: &SessionKey, owner: &str, now: Instant) {
        let Some(number) = self.by_key.get(key).copied() else {
            return;
        };
        let Some(entry) = self.sessions.get_mut(&number) else {
            return;
        };
        if entry.owners.remove(owner) && entry.owners.is_empty() {
            tracing::info!(peer = %key.peer, "session ends: nobody wants it any more");
            entry.session.handle_admin(true, now);
            entry.removed_at = Some(now + FAREWELL);
            self.after(number, now);
        }
    }

    fn retain(&mut self, id: ClientId, now: Instant) {
        let Some(client) = self.clients.get(&id) else {
            return;
        };
        let owner = client.owner.clone();
        let unwanted: Vec<SessionKey> = self
            .sessions
            .values()
            .filter(|entry| entry.owners.contains(&owner) && !client.wanted.contains(&entry.key))
            .map(|entry| entry.key.clone())
            .collect();
        for key in unwanted {
            self.release(&key, &owner, now);
        }
    }

    fn remove(&mut self, number: u32) {
        if let Some(entry) = self.sessions.remove(&number) {
            self.by_key.remove(&entry.key);
        }
    }

    /// Sessions of owners that are away for too long end.
    fn keep_house(&mut self, now: Instant) {
        self.keep_echo(now);
        let linger = self.linger;
        let gone: Vec<String> = self
            .absent
            .iter()
            .filter(|(_, since)| now.saturating_duration_since(**since) >= linger)
            .map(|(owner, _)| owner.clone())
            .collect();
        for owner in gone {
            tracing::warn!(%owner, ?linger, "is gone for too long: its sessions end");
            self.absent.remove(&owner);
            let keys: Vec<SessionKey> = self.by_key.keys().cloned().collect();
            for key in keys {
                self.release(&key, &owner, now);
            }
        }
    }

    fn report(&self, now: Instant) -> Report {
        Report {
            pid: std::process::id(),
            warnings: self.warnings.clone(),
            sessions: self
                .by_key
                .values()
                .filter_map(|number| Some(self.sessions.get(number)?.report(now)))
                .collect(),
            drops: self.drops.list(),
            lateness: self.lateness,
            lateness_sum_us: self.lateness_sum_us,
            lateness_max_us: self.lateness_max_us,
        }
    }
}

/// xorshift64*, for discriminators and ports: unlikely to repeat, not secret.
fn next(state: &mut u64) -> u32 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
}
