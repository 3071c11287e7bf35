// SPDX-License-Identifier: Apache-2.0
//! Echo packets, ours and the neighbours' (RFC 5880 §6.4, RFC 5881 §4).
//!
//! Ours are addressed to ourselves and go to the link address of the neighbour, whose forwarding
//! returns them. A packet socket sends them and takes them back, so no setting of this host is in
//! their way: a packet from one of its own addresses is none that its IP layer takes. The link
//! address and our own are those of the neighbour's control packets that know our discriminator.
//!
//! The source address shall preclude redirects of the neighbour: it SHOULD NOT be of the link
//! (RFC 5881 §4). That is an address of the loopback device, where there is one. A neighbour that
//! checks where packets come from may have no route to it there, and drop them: while none comes
//! back, that address and the session's own take turns, and what came back stays.
//!
//! A neighbour's that is addressed to itself is returned by the kernel where that forwards, and
//! by us where it does not; one that is addressed to us is returned by us.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bgp_bfd::echo::{Echo, EchoError};
use bgp_bfd::profile::Hops;
use bgp_bfd::session::EchoState;
use bgp_bfd::wire::{self, PORT_ECHO, PORT_SINGLE_HOP};

use super::drops::Drop;
use super::links::{Place, forwards};
use super::{BATCH, Engine};
use crate::datagram::{self, Datagram};
use crate::link_socket::{Family, LinkAddress};
use crate::socket::{Arrival, TTL};

/// Echo packets sent from one address before the other is tried: more than loss explains.
const TRIES: u32 = 10;

/// The TTL of what we sent, after one router; some data planes return packets as they are.
const RETURNED_TTL: u8 = TTL as u8 - 1;

/// What a session needs for echo packets.
#[derive(Debug, Default)]
pub(crate) struct EchoWay {
    /// The device its control packets come over.
    pub(crate) interface: Option<u32>,
    /// Where ours go.
    path: Option<Path>,
    /// Which of the source addresses is used, and how often in vain.
    source: usize,
    pub(crate) last_source: Option<IpAddr>,
    tries: u32,
    /// The neighbour's that we have returned.
    pub(crate) reflected: u64,
    /// Why there is no packet socket.
    no_socket: Option<String>,
    /// Why the last one was not sent.
    not_sent: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Path {
    place: Place,
    local: IpAddr,
    neighbour: LinkAddress,
}

impl EchoWay {
    /// Why there are none, where they are wanted.
    pub(crate) fn failure(&self) -> Option<&String> {
        self.no_socket.as_ref().or(self.not_sent.as_ref())
    }
}

impl Engine {
    /// Has a session run with what its owner wants and this node can do.
    pub(super) fn fit(&mut self, number: u32, now: Instant) {
        let Some(entry) = self.sessions.get_mut(&number) else {
            return;
        };
        let mut profile = entry.wanted.clone();
        let place = entry.place();
        entry.echo.no_socket = None;
        if let Some(place) = place
            && entry.wants_echo()
        {
            let is_forwarding = *self
                .forwarding
                .entry(place)
                .or_insert_with(|| forwards(place));
            let is_needed = profile.echo.transmit.is_some() || !is_forwarding;
            if is_needed && let Err(error) = self.links.open(place) {
                // What we say we take we return.
                profile.echo.transmit = None;
                profile.echo.receive = profile.echo.receive.filter(|_| is_forwarding);
                entry.echo.no_socket = Some(format!("no packet socket: {error}"));
            }
        }
        if profile.echo.transmit.is_none() {
            entry.echo.not_sent = None;
        }
        entry.session.handle_profile(profile, now);
    }

    /// A session's neighbour was heard over this device.
    pub(super) fn note_interface(&mut self, number: u32, interface: Option<u32>, now: Instant) {
        let Some(entry) = self.sessions.get_mut(&number) else {
            return;
        };
        if interface.is_some() && entry.echo.interface != interface {
            entry.echo.interface = interface;
            if entry.wants_echo() {
                self.fit(number, now);
            }
        }
    }

    /// Follows what the kernel forwards, and closes the sockets nobody needs any more.
    pub(super) fn keep_echo(&mut self, now: Instant) {
        let echoing = self.sessions.values().filter(|entry| entry.wants_echo());
        let places: BTreeSet<Place> = echoing.filter_map(super::Entry::place).collect();
        self.forwarding = places
            .iter()
            .map(|place| (*place, forwards(*place)))
            .collect();
        let mut needed = BTreeSet::new();
        for number in self.sessions.keys().copied().collect::<Vec<_>>() {
            let entry = self.sessions.get(&number);
            let Some(place) = entry
                .filter(|e| e.wants_echo())
                .and_then(super::Entry::place)
            else {
                continue;
            };
            self.fit(number, now);
            self.after(number, now);
            let is_forwarding = self.forwarding.get(&place) == Some(&true);
            let entry = self.sessions.get(&number);
            if entry.is_some_and(|e| e.wanted.echo.transmit.is_some()) || !is_forwarding {
                needed.insert(place);
            }
        }
        self.links.retain(&needed);
    }

    /// Sends an echo packet of ours.
    pub(super) fn send_echo(&mut self, number: u32, sequence: u64) {
        let Some(entry) = self.sessions.get_mut(&number) else {
            return;
        };
        let Some(path) = entry.echo.path else {
            let why = "the neighbour's link address is not known yet";
            entry.echo.not_sent = Some(why.to_owned());
            return;
        };
        let off_link = self
            .loopback_addresses
            .iter()
            .find(|address| address.is_ipv4() == path.local.is_ipv4());
        let sources: Vec<IpAddr> = off_link.copied().into_iter().chain([path.local]).collect();
        if entry.session.echo_state() == EchoState::Unreturned {
            entry.echo.tries += 1;
            if entry.echo.tries > TRIES {
                entry.echo.tries = 1;
                entry.echo.source += 1;
            }
        } else {
            entry.echo.tries = 0;
        }
        let source = sources[entry.echo.source % sources.len()];
        entry.echo.last_source = Some(source);
        let payload = self.echo_key.encode(Echo {
            discriminator: number,
            sequence,
        });
        let datagram = Datagram {
            source,
            destination: path.local,
            source_port: PORT_ECHO,
            destination_port: PORT_ECHO,
            ttl: TTL as u8,
            payload: &payload,
        };
        entry.echo.not_sent = match (datagram.encode(), self.links.get(path.place)) {
            (Some(packet), Some(socket)) => match socket.send(&packet, path.neighbour) {
                Ok(()) => None,
                Err(error) => Some(format!("cannot send: {error}")),
            },
            (None, _) | (_, None) => Some("no packet socket on the neighbour's device".to_owned()),
        };
    }

    /// Reads a packet socket; `false` when there is more.
    pub(super) fn receive_link(&mut self, place: Place) -> bool {
        let mut buffer = [MaybeUninit::uninit(); datagram::MAX];
        for _ in 0..BATCH {
            let Some(socket) = self.links.get(place) else {
                return true;
            };
            match socket.receive(&mut buffer) {
                Ok(Some((bytes, Some(from)))) => {
                    if let Some(datagram) = datagram::parse(bytes) {
                        self.link_packet(place, &datagram, from, Instant::now());
                    }
                }
                Ok(Some((_, None))) => {} // for another host
                Ok(None) => return true,
                Err(error) => {
                    tracing::debug!(%error, "a packet could not be read");
                    return true;
                }
            }
        }
        false
    }

    fn link_packet(
        &mut self,
        place: Place,
        datagram: &Datagram<'_>,
        from: LinkAddress,
        now: Instant,
    ) {
        match datagram.destination_port {
            PORT_SINGLE_HOP => self.learn_path(place, datagram, from),
            PORT_ECHO => match self.echo_key.decode(datagram.payload) {
                Ok(echo) => self.own_echo(place, datagram, echo, now),
                // Under another key may be forged, and may be a neighbour's that runs this, too.
                Err(error) => {
                    if !self.reflect(place, datagram, from) && error == EchoError::Seal {
                        self.drops.count(Drop::Echo);
                    }
                }
            },
            _ => {}
        }
    }

    /// A control packet, which the UDP socket gets, too: where echo packets of its session go.
    fn learn_path(&mut self, place: Place, datagram: &Datagram<'_>, from: LinkAddress) {
        let Ok(received) = wire::decode(datagram.payload) else {
            return;
        };
        let arrival = arrival(place, datagram);
        let number = received.packet.your_discriminator;
        if let Some(entry) = self.sessions.get_mut(&number)
            && datagram.ttl == TTL as u8
            && entry.is_met_by(arrival, Hops::Single)
        {
            entry.echo.path = Some(Path {
                place,
                local: datagram.destination,
                neighbour: from,
            });
        }
    }

    /// One of ours is back.
    fn own_echo(&mut self, place: Place, datagram: &Datagram<'_>, echo: Echo, now: Instant) {
        let Some(entry) = self.sessions.get_mut(&echo.discriminator) else {
            return self.drops.count(Drop::NoSession);
        };
        if datagram.ttl < RETURNED_TTL {
            return entry.drops.count(Drop::Ttl);
        }
        if entry.echo.path.map(|path| path.place) != Some(place) {
            return entry.drops.count(Drop::NoSession);
        }
        if let Err(discard) = entry.session.handle_echo(echo.sequence, now) {
            tracing::debug!(peer = %entry.key.peer, %discard, "packet discarded");
            entry.drops.count(Drop::of_session(discard));
        }
        self.after(echo.discriminator, now);
    }

    /// A neighbour's, addressed to itself: forwarded as the kernel would, where that does not. Says
    /// whether it is one.
    fn reflect(&mut self, place: Place, datagram: &Datagram<'_>, from: LinkAddress) -> bool {
        let entry = self.sessions.values_mut().find(|entry| {
            entry.key.hops == Hops::Single
                && entry.key.peer == datagram.destination
                && entry.place() == Some(place)
                && entry.session.profile().echo.receive.is_some()
        });
        let Some(entry) = entry else {
            return false; // addressed to us, or to nobody we know: not for here
        };
        if self.forwarding.get(&place) != Some(&false) {
            return true;
        }
        if datagram.ttl < 2 {
            entry.drops.count(Drop::Ttl);
            return true;
        }
        let returned = Datagram {
            ttl: datagram.ttl - 1,
            ..*datagram
        };
        let sent = match (returned.encode(), self.links.get(place)) {
            (Some(packet), Some(socket)) => socket.send(&packet, from),
            (None, _) | (_, None) => return true,
        };
        match sent {
            Ok(()) => entry.echo.reflected += 1,
            Err(error) => {
                tracing::debug!(%error, peer = %entry.key.peer, "an echo packet could not be returned");
            }
        }
        true
    }

    /// A neighbour's, addressed to us, of a UDP socket: it wants it back.
    pub(super) fn echo(&mut self, index: usize, bytes: &[u8], arrival: Arrival) {
        if self.echo_key.decode(bytes).is_ok() {
            return; // Ours: the packet socket has it, too.
        }
        if arrival.ttl.map(u32::from) != Some(TTL) {
            return self.drops.count(Drop::Ttl);
        }
        let entry = self.sessions.values_mut().find(|entry| {
            entry.is_met_by(arrival, Hops::Single) && entry.session.profile().echo.receive.is_some()
        });
        let Some(entry) = entry else {
            return self.drops.count(Drop::NoSession);
        };
        let mut to = arrival.from;
        to.set_port(PORT_ECHO);
        match self.receivers[index].reflect(bytes, to) {
            Ok(()) => entry.echo.reflected += 1,
            Err(error) => tracing::debug!(%error, %to, "an echo packet could not be returned"),
        }
    }
}

impl super::Entry {
    /// Whether its owner wants echo packets, either way, and RFC 5883 §4 does not forbid them.
    pub(super) fn wants_echo(&self) -> bool {
        let echo = self.wanted.echo;
        self.key.hops == Hops::Single && (echo.transmit.is_some() || echo.receive.is_some())
    }

    /// Where its packets come from.
    pub(super) fn place(&self) -> Option<Place> {
        Some((self.echo.interface?, Family::of(self.key.peer)))
    }
}

fn arrival((interface, _): Place, datagram: &Datagram<'_>) -> Arrival {
    Arrival {
        from: SocketAddr::new(datagram.source, datagram.source_port),
        to: Some(datagram.destination),
        interface: Some(interface),
        ttl: Some(datagram.ttl),
    }
}
