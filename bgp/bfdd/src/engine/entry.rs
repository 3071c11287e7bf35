// SPDX-License-Identifier: Apache-2.0
//! A session with its socket.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use bgp_bfd::profile::{Hops, Profile};
use bgp_bfd::session::{Output, Session};

use super::drops::Drops;
use super::echo::EchoWay;
use crate::protocol::{SessionKey, SessionReport};
use crate::socket::{self, Arrival};

/// How soon a socket that cannot be opened is tried again.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: SessionKey,
    pub(crate) session: Session,
    /// As wanted; the session runs with what this node can do of it.
    pub(crate) wanted: Profile,
    pub(crate) echo: EchoWay,
    /// The echo packet the session wants sent.
    pub(crate) echo_due: Option<u64>,
    pub(crate) owners: BTreeSet<String>,
    pub(crate) drops: Drops,
    /// The timer that is set.
    pub(crate) scheduled: Option<Instant>,
    /// When it is gone, once nobody wants it.
    pub(crate) removed_at: Option<Instant>,
    interface: Option<u32>,
    sender: Option<UdpSocket>,
    retry_at: Option<Instant>,
    failure: Option<String>,
    send_failures: u64,
}

impl Entry {
    pub(crate) fn new(key: SessionKey, session: Session) -> Entry {
        Entry {
            key,
            wanted: session.profile().clone(),
            session,
            echo: EchoWay::default(),
            echo_due: None,
            owners: BTreeSet::new(),
            drops: Drops::default(),
            scheduled: None,
            removed_at: None,
            interface: None,
            sender: None,
            retry_at: None,
            failure: None,
            send_failures: 0,
        }
    }

    /// Whether a packet comes from this session's neighbour, over its device and to its address.
    pub(crate) fn is_met_by(&self, arrival: Arrival, hops: Hops) -> bool {
        let interface = match (&self.key.interface, hops) {
            (Some(_), Hops::Single) => {
                self.interface.is_none() || self.interface == arrival.interface
            }
            (None, Hops::Single) | (_, Hops::Multi) => true,
        };
        hops == self.key.hops
            && arrival.from.ip() == self.key.peer
            && interface
            && (self.key.local.is_none() || self.key.local == arrival.to)
    }

    /// Sends what the session wants sent. Says whether the state has changed.
    pub(crate) fn carry_out(&mut self, now: Instant, mut random: impl FnMut() -> u32) -> bool {
        let mut changed = false;
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Transmit(bytes) => self.send(bytes.as_slice(), now, &mut random),
                Output::TransmitEcho { sequence } => self.echo_due = Some(sequence),
                Output::State {
                    from,
                    to,
                    diagnostic,
                } => {
                    changed = true;
                    tracing::info!(
                        peer = %self.key.peer, %from, %to, %diagnostic, "session state"
                    );
                }
            }
        }
        changed
    }

    fn send(&mut self, bytes: &[u8], now: Instant, random: impl FnMut() -> u32) {
        if self.sender.is_none() {
            if self.retry_at.is_some_and(|at| at > now) {
                self.send_failures += 1;
                return;
            }
            self.retry_at = Some(now + RETRY);
            let interface = self.key.interface.as_deref();
            self.interface = interface.and_then(|name| nix::net::if_::if_nametoindex(name).ok());
            match socket::sender(&self.key, random) {
                Ok(socket) => self.sender = Some(socket),
                Err(error) => {
                    self.fail(format!("no socket: {error}"));
                    return;
                }
            }
        }
        let Some(sender) = &self.sender else {
            return;
        };
        // The first error may be an ICMP message about an earlier packet: it is taken by reporting.
        match sender.send(bytes).or_else(|_| sender.send(bytes)) {
            Ok(_) => self.failure = None,
            Err(error) => {
                // The address or the device may be another by now.
                if error.kind() != std::io::ErrorKind::ConnectionRefused {
                    self.sender = None;
                }
                self.fail(format!("cannot send: {error}"));
            }
        }
    }

    fn fail(&mut self, failure: String) {
        self.send_failures += 1;
        if self.failure.as_ref() != Some(&failure) {
            tracing::warn!(peer = %self.key.peer, failure, "nothing can be sent");
            self.failure = Some(failure);
        }
    }

    pub(crate) fn report(&self, now: Instant) -> SessionReport {
        SessionReport {
            key: self.key.clone(),
            source: self.sender.as_ref().and_then(|s| s.local_addr().ok()),
            owners: self.owners.iter().cloned().collect(),
            status: self.session.status(now),
            drops: self.drops.list(),
            failure: self.failure.clone(),
            send_failures: self.send_failures,
            echo_source: self.echo.last_source,
            echo_failure: self.echo.failure().cloned(),
            echoes_reflected: self.echo.reflected,
        }
    }
}
