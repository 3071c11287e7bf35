// SPDX-License-Identifier: Apache-2.0
//! One peer: a connection, as much of a session as there must be, and what waits to be written.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::message;
use crate::received::Received;
use crate::table::Family;

/// FRR looks at what it has read only when more comes (see the crate's documentation).
const KEEPALIVE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(100);

/// Who the peer is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The address it calls from.
    pub address: IpAddr,
    /// Its AS.
    pub asn: u32,
    /// Its BGP identifier.
    pub identifier: Ipv4Addr,
    /// The hold time it offers, in seconds.
    pub hold_s: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Not connected; the next call is due then.
    Idle(Instant),
    Connecting,
    /// OPEN is sent.
    OpenSent,
    /// Its OPEN has come, and KEEPALIVE is sent.
    OpenConfirm,
    Established,
    /// Ended by this end.
    Closed,
}

/// A peer.
pub struct Peer {
    /// Who it is.
    pub identity: Identity,
    speaker: SocketAddr,
    family: Family,
    state: State,
    socket: Option<TcpStream>,
    input: Vec<u8>,
    output: VecDeque<(Rc<[u8]>, usize)>,
    last_written: Instant,
    last_heard: Instant,
    negotiated_hold: Duration,
    /// Whether it reads what comes.
    pub is_reading: bool,
    /// What it was told, of a receiver.
    pub received: Option<Received>,
    /// Sessions that ended against this end's will.
    pub losses: u32,
    /// Times that nothing came for the hold time.
    pub expiries: u32,
    /// Why the last session ended.
    pub last_loss: Option<String>,
    /// Whether the speaker does not carry the family: calling again is of no use.
    pub is_refused: bool,
}

impl Peer {
    /// A peer that will call the speaker.
    pub fn new(identity: Identity, speaker: SocketAddr, family: Family, now: Instant) -> Peer {
        Peer {
            identity,
            speaker,
            family,
            state: State::Idle(now),
            socket: None,
            input: Vec::new(),
            output: VecDeque::new(),
            last_written: now,
            last_heard: now,
            negotiated_hold: Duration::ZERO,
            is_reading: true,
            received: None,
            losses: 0,
            expiries: 0,
            last_loss: None,
            is_refused: false,
        }
    }

    /// Whether it has called and the session is not up yet.
    pub fn is_calling(&self) -> bool {
        matches!(
            self.state,
            State::Connecting | State::OpenSent | State::OpenConfirm
        )
    }

    /// The family it offers.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether the session is up.
    pub fn is_established(&self) -> bool {
        self.state == State::Established
    }

    /// Whether all was written.
    pub fn is_written(&self) -> bool {
        self.output.is_empty()
    }

    /// Queues whole messages.
    pub fn send(&mut self, messages: Rc<[u8]>) {
        self.output.push_back((messages, 0));
    }

    /// Ends the session as a peer that dies does: the connection closes.
    pub fn close(&mut self) {
        self.state = State::Closed;
        self.socket = None;
        self.output.clear();
    }

    /// The connection, and whether it waits to be written to.
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, bool, bool)> {
        let socket = self.socket.as_ref()?;
        let writes = self.state == State::Connecting || !self.output.is_empty();
        Some((socket.as_fd(), self.is_reading, writes))
    }

    /// Does what is due by the clock; calls only if it may.
    pub fn tick(&mut self, now: Instant, may_call: bool) {
        match self.state {
            State::Idle(due) if due <= now && may_call => match self.call() {
                Ok(socket) => {
                    self.socket = Some(socket);
                    self.state = State::Connecting;
                }
                Err(error) => self.lost(format!("cannot call: {error}"), now),
            },
            State::Established => {
                if self.output.is_empty() && now - self.last_written >= KEEPALIVE {
                    self.send(message::message(message::KEEPALIVE, &[]).into());
                    self.write(now);
                }
                let silence = now - self.last_heard;
                if self.is_reading
                    && !self.negotiated_hold.is_zero()
                    && silence > self.negotiated_hold
                {
                    self.expiries += 1;
                    self.last_heard = now;
                }
            }
            State::Idle(_)
            | State::Connecting
            | State::OpenSent
            | State::OpenConfirm
            | State::Closed => {}
        }
    }

    fn call(&self) -> io::Result<TcpStream> {
        let domain = Domain::for_address(self.speaker);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(self.identity.address, 0).into())?;
        match socket.connect(&self.speaker.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            Ok(()) | Err(_) => Ok(socket.into()),
        }
    }

    fn lost(&mut self, why: String, now: Instant) {
        if self.state == State::Established {
            self.losses += 1;
        }
        self.last_loss = Some(why);
        self.socket = None;
        self.input.clear();
        self.output.clear();
        self.state = State::Idle(now + RETRY);
    }

    /// Writes what it can.
    pub fn write(&mut self, now: Instant) {
        if self.state == State::Connecting {
            let Some(socket) = &self.socket else { return };
            match socket.take_error() {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => {
                    return self.lost(format!("cannot connect: {error}"), now);
                }
            }
            let own = &self.identity;
            let open = message::open(own.asn, own.hold_s, own.identifier, self.family);
            self.send(open.into());
            self.state = State::OpenSent;
        }
        while let Some((bytes, written)) = self.output.front_mut() {
            let Some(socket) = &mut self.socket else {
                return;
            };
            match socket.write(&bytes[*written..]) {
                Ok(count) => {
                    *written += count;
                    self.last_written = now;
                    if *written == bytes.len() {
                        self.output.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.lost(format!("cannot write: {error}"), now),
            }
        }
    }

    /// Reads what there is, once, into a buffer for all peers.
    pub fn read(&mut self, buffer: &mut [u8], now: Instant) {
        let Some(socket) = &mut self.socket else {
            return;
        };
        let count = match socket.read(buffer) {
            Ok(0) => return self.lost("the speaker closed the connection".to_owned(), now),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => return self.lost(format!("cannot read: {error}"), now),
        };
        self.last_heard = now;
        let result = if self.input.is_empty() {
            self.messages(&buffer[..count], now).map(|used| {
                self.input.extend_from_slice(&buffer[used..count]);
            })
        } else {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(&buffer[..count]);
            self.messages(&input, now).map(|used| {
                input.drain(..used);
                self.input = input;
            })
        };
        if let Err(why) = result {
            self.lost(why, now);
        }
    }

    /// Takes whole messages; returns the octets they had.
    fn messages(&mut self, input: &[u8], now: Instant) -> Result<usize, String> {
        let mut used = 0;
        while let Some(header) = input.get(used..used + message::HEADER) {
            let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
            if !(message::HEADER..=message::LONGEST).contains(&length) {
                return Err(format!("a message of {length} octets"));
            }
            let Some(whole) = input.get(used..used + length) else {
                break;
            };
            self.take(header[18], &whole[message::HEADER..], now)?;
            used += length;
        }
        Ok(used)
    }

    fn take(&mut self, kind: u8, body: &[u8], now: Instant) -> Result<(), String> {
        match (kind, self.state) {
            (message::UPDATE, State::Established) => {
                if let Some(received) = &mut self.received {
                    let result = received.update(body, now);
                    result.map_err(|_| "an UPDATE that cannot be read".to_owned())?;
                }
            }
            (message::OPEN, State::OpenSent) => {
                let &[_, _, _, high, low, ..] = body else {
                    return Err("an OPEN that is too short".to_owned());
                };
                if !offers(body, self.family) {
                    self.is_refused = true;
                    return Err("its OPEN lacks the family".to_owned());
                }
                let theirs = u16::from_be_bytes([high, low]);
                let hold_s = theirs.min(self.identity.hold_s);
                self.negotiated_hold = Duration::from_secs(hold_s.into());
                self.send(message::message(message::KEEPALIVE, &[]).into());
                self.state = State::OpenConfirm;
                self.write(now);
            }
            (message::KEEPALIVE, State::OpenConfirm) => self.state = State::Established,
            (message::NOTIFICATION, _) => {
                let code = body.first().copied().unwrap_or(0);
                let subcode = body.get(1).copied().unwrap_or(0);
                return Err(format!("NOTIFICATION {code}/{subcode}"));
            }
            // KEEPALIVEs of an established session, and ROUTE-REFRESH, which nobody answers here.
            _ => {}
        }
        Ok(())
    }
}

/// Whether an OPEN has the multiprotocol capability for a family (RFC 4760 §8). Of parameters and
/// capabilities only what lies as usual is understood.
fn offers(open: &[u8], family: Family) -> bool {
    let (afi, safi) = family.numbers();
    let [high, low] = afi.to_be_bytes();
    let mut parameters = open.get(10..).unwrap_or_default();
    while let [kind, length, rest @ ..] = parameters {
        let Some((mut value, rest)) = rest.split_at_checked(usize::from(*length)) else {
            return false;
        };
        parameters = rest;
        while let (2, [code, length, rest @ ..]) = (*kind, value) {
            let Some((capability, rest)) = rest.split_at_checked(usize::from(*length)) else {
                return false;
            };
            if *code == 1 && capability == [high, low, 0, safi] {
                return true;
            }
            value = rest;
        }
    }
    false
}
