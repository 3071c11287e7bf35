// SPDX-License-Identifier: Apache-2.0
//! A stream of bytes on which only nodes that know a key are heard.
//!
//! **What it gives.** Integrity and authenticity: whatever a [`Channel`] hands out was said by a
//! node that knows one of the keys, to this node, in this connection, in this order, once, with
//! nothing left out. Forged, replayed, reordered, cut off and oversized frames end the channel with
//! an error that says which.
//!
//! **What it does not give.** Secrecy: everything can be read on the way. What is said is which
//! node translates which connections, which is what the wire shows anyway: the translated packets
//! travel the same fabric. Nor does it tell nodes that know the key apart: a node is whom it says
//! it is, among those. Nor perfect forward secrecy, which means nothing without secrecy. A key must
//! be drawn at random: whoever sees a handshake can try words of a dictionary against it.
//!
//! **Handshake.** Three packets, each `"CWES" | kind u8 | length u16 | body`:
//!
//! | kind | from | body |
//! |---|---|---|
//! | 1 | initiator | lowest version u8, highest u8, idle timeout ms u32, nonce (32), name length u8, name |
//! | 2 | responder | version u8, idle timeout ms u32, nonce (32), name length u8, name, proof (32) |
//! | 3 | initiator | proof (32) |
//!
//! A proof is HMAC-SHA256 under the prover's first key over a label of the prover's role and the
//! transcript: packet 1 and packet 2 without its proof. So it binds version, names, roles, timers
//! and both nonces: it cannot be reflected (the label differs), replayed (the own nonce is new) or
//! used to talk an end into an older version. The verifier tries each of its keys.
//!
//! The responder has the last word: what the initiator proves itself by may be a key it does not know.
//! So it sends a keepalive at once, and only with the first good frame is the channel established for the
//! initiator. Otherwise two nodes of which one knows the other's key and not the other way round would
//! be linked and lose each other ten times a second.
//!
//! **Frames.** `length u32 of what follows | kind u8 | sequence u64 | payload | seal (16)`. The
//! seal is HMAC-SHA256, cut to 128 bits (RFC 2104 §5), of everything before it, under a key of this
//! connection and direction: HMAC-SHA256 of the sender's first key over another label of the role
//! and the transcript. The sequence number counts from 0. Kinds: 0 a message, 1 a keepalive, 2
//! goodbye.
//!
//! **Changing keys.** An end proves and seals with its first key and accepts all of its list, and
//! each direction has its own. So a key is replaced without a gap: add the new one behind the old
//! one on all nodes, then make it the first on all nodes, then remove the old one. A channel goes
//! on with the key it began with.
//!
//! **Bounds.** Of what comes, one frame is buffered, at most [`MAX_FRAME`] octets; outputs are
//! bounded by the bytes of one call of [`Channel::handle_bytes`]. Of what goes, at most
//! [`SEND_BUFFER`] octets wait, and [`Channel::send`] says when they are too many.
//!
//! **Polling order.** After each `handle_*`, `send` or `close`: [`Channel::poll_output`] until
//! nothing comes; write [`Channel::pending`] as far as the socket takes it and say so
//! ([`Channel::handle_written`]); set the timer to [`Channel::poll_timeout`]. After
//! [`Output::Ended`] write what is pending and close the socket.

mod frame;
mod handshake;
mod keys;

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

pub use frame::{MAX_FRAME, MAX_MESSAGE};
pub use keys::{Key, KeyError, Keys, MAX_KEYS, MIN_KEY};

use crate::name::NodeName;
use frame::{Kind, Opener, Sealer};
use handshake::{Hello, Packet};

/// The version of the handshake and of the messages that is spoken.
pub const VERSION: u8 = 1;

/// Octets that may wait to be written: 1 MiB, more than the window of a
/// [`crate::replication::Sender`] with the default limits takes (16 batches of 48 KiB).
pub const SEND_BUFFER: usize = 1024 * 1024;

/// Octets of the send buffer that are kept for a keepalive and a goodbye.
const RESERVED: usize = 2 * frame::OVERHEAD;

/// The shortest idle timeout: below it the keepalives of many nodes are a load.
const MIN_IDLE: Duration = Duration::from_millis(300);

/// The longest idle timeout.
const MAX_IDLE: Duration = Duration::from_secs(600);

/// A time that cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// Keepalives too fast or too slow.
    #[error("keepalive interval {0:?}: use 100 ms to 200 s")]
    Keepalive(Duration),
    /// An idle timeout that two lost wakeups would end, or that ends nothing.
    #[error("idle timeout {0:?}: use 300 ms to 600 s, at least three keepalive intervals")]
    Idle(Duration),
    /// A handshake that is never through, or never ends.
    #[error("handshake timeout {0:?}: use 100 ms to 60 s")]
    Handshake(Duration),
}

/// When a channel speaks, and when it gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    keepalive: Duration,
    idle: Duration,
    handshake: Duration,
}

impl Timing {
    /// `keepalive`: a frame at least this often, 100 ms to 200 s; more often where the other end
    /// gives up earlier than after three of them. `idle`: the end when no frame has come for so
    /// long, 300 ms to 600 s and at least three keepalive intervals. `handshake`: the end when it
    /// is not through by then, 100 ms to 60 s.
    ///
    /// # Errors
    /// One of them is out of range.
    pub fn new(
        keepalive: Duration,
        idle: Duration,
        handshake: Duration,
    ) -> Result<Timing, TimingError> {
        if !(Duration::from_millis(100)..=Duration::from_secs(200)).contains(&keepalive) {
            return Err(TimingError::Keepalive(keepalive));
        }
        if !(MIN_IDLE..=MAX_IDLE).contains(&idle) || idle < keepalive * 3 {
            return Err(TimingError::Idle(idle));
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&handshake) {
            return Err(TimingError::Handshake(handshake));
        }
        Ok(Timing {
            keepalive,
            idle,
            handshake,
        })
    }
}

impl Default for Timing {
    /// Keepalives each second, idle for 3 s, 5 s for the handshake. Dead nodes are found by BFD;
    /// these find a dead process, and begin anew soon enough for who comes back and is needed again.
    fn default() -> Timing {
        Timing {
            keepalive: Duration::from_secs(1),
            idle: Duration::from_secs(3),
            handshake: Duration::from_secs(5),
        }
    }
}

/// Who this end is.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of this node.
    pub name: NodeName,
    /// When it speaks, and when it gives up.
    pub timing: Timing,
    /// What it proves itself by.
    pub keys: Keys,
}

/// Why a channel ended by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The handshake was not through in time.
    #[error("handshake timed out")]
    HandshakeTimeout,
    /// No frame for the idle timeout.
    #[error("nothing heard for the idle timeout")]
    Idle,
    /// The other end speaks another protocol.
    #[error("other end speaks another protocol")]
    Protocol,
    /// A packet of the handshake that is too long, too short, or does not hold what it says.
    #[error("malformed handshake")]
    Malformed,
    /// Another packet of the handshake than it is the turn of.
    #[error("handshake packet {0} out of turn")]
    OutOfTurn(u8),
    /// No common version.
    #[error("other end speaks versions {lowest} to {highest}, this one {VERSION}")]
    Version {
        /// The other end's lowest.
        lowest: u8,
        /// Its highest.
        highest: u8,
    },
    /// The other end wants keepalives faster than anybody should.
    #[error("other end gives up after {0:?}: too short")]
    Impatient(Duration),
    /// The other end has this end's name: a connection to itself, or two nodes of one name.
    #[error("other end has the name of this node")]
    OwnName,
    /// The node that was connected to has another name than expected.
    #[error("other end is {found}, not {expected}")]
    WrongPeer {
        /// Who was expected.
        expected: NodeName,
        /// Who it is.
        found: NodeName,
    },
    /// The other end's nonce is this end's: it only sends back what it hears.
    #[error("other end reflects")]
    Reflected,
    /// A proof under none of the keys.
    #[error("other end knows none of the keys")]
    WrongKey,
    /// A frame that is longer than any.
    #[error("frame of {length} octets: at most {MAX_FRAME}")]
    Oversized {
        /// What its length field says.
        length: u32,
    },
    /// A frame that is shorter than any.
    #[error("frame of {length} octets: too short")]
    Undersized {
        /// What its length field says.
        length: u32,
    },
    /// A frame under a wrong seal: forged, damaged, or of another connection or direction.
    #[error("forged or damaged frame")]
    Forged,
    /// A good frame again.
    #[error("frame {found} replayed; {expected} is next")]
    Replayed {
        /// The number of the next frame.
        expected: u64,
        /// Its number.
        found: u64,
    },
    /// A good frame before its turn: reordered, or frames before it are left out.
    #[error("frame {found} out of order; {expected} is next")]
    Reordered {
        /// The number of the next frame.
        expected: u64,
        /// Its number.
        found: u64,
    },
    /// A good frame of a kind that does not exist in this version.
    #[error("unknown kind of frame {0}")]
    UnknownFrame(u8),
    /// The stream ended within a frame or a packet of the handshake.
    #[error("stream ended within a frame")]
    Truncated,
    /// The stream ended without a goodbye. In a handshake: the other end refused, and says why in
    /// its log.
    #[error("stream ended without a goodbye")]
    EndOfStream,
}

/// How a channel ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// This end closed it.
    Here,
    /// The other end said goodbye.
    There,
    /// Something was wrong.
    Failed(ChannelError),
}

/// What a channel has to say to its owner.
#[derive(Clone, PartialEq, Eq)]
pub enum Output {
    /// The other end has proved itself; messages can be sent.
    Established {
        /// Its name.
        peer: NodeName,
        /// The version that is spoken.
        version: u8,
    },
    /// It said this.
    Message(Vec<u8>),
    /// That was all.
    Ended(End),
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Established { peer, version } => write!(f, "Established({peer}, {version})"),
            Output::Message(message) => write!(f, "Message({} octets)", message.len()),
            Output::Ended(end) => write!(f, "Ended({end:?})"),
        }
    }
}

/// Why a message cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The other end has not proved itself, or the channel has ended.
    #[error("channel is not established")]
    NotEstablished,
    /// The message is longer than [`MAX_MESSAGE`].
    #[error("message of {0} octets: at most {MAX_MESSAGE}")]
    TooLong(usize),
    /// The other end does not read fast enough: later.
    #[error("send buffer is full")]
    Full,
}

enum State {
    /// Packet 1 is said.
    AwaitAnswer {
        hello: Vec<u8>,
        expected: Option<NodeName>,
    },
    /// Nothing is said.
    AwaitHello,
    /// Packet 2 is said.
    AwaitProof { transcript: Vec<u8>, hello: Hello },
    /// Both have proved themselves.
    Established(Box<Established>),
    /// Over.
    Ended,
}

struct Established {
    peer: NodeName,
    sealer: Sealer,
    opener: Opener,
    /// Whether the other end is known to have taken our proof.
    is_confirmed: bool,
    /// The shorter of our interval and a third of the other end's patience.
    keepalive: Duration,
    heard: Instant,
    said: Instant,
}

/// One end of a connection.
pub struct Channel {
    config: Config,
    nonce: [u8; 32],
    state: State,
    began: Instant,
    /// Of one packet or frame what has come. At most [`MAX_FRAME`].
    input: Vec<u8>,
    /// What waits to be written. At most [`SEND_BUFFER`].
    pending: VecDeque<u8>,
    /// Bounded: a call adds at most one for each 29 octets it is given, and callers empty it.
    outputs: VecDeque<Output>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("name", &self.config.name)
            .field("peer", &self.peer())
            .field("state", &self.state_name())
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

impl Channel {
    /// The end that has connected. `expected` is the name the other end must have, if it matters.
    /// `nonce` must be new and unpredictable each time (32 octets of the system's generator): one
    /// used before lets old handshakes be replayed.
    pub fn initiator(
        config: Config,
        expected: Option<NodeName>,
        nonce: [u8; 32],
        now: Instant,
    ) -> Channel {
        let hello = handshake::hello(&config.name, config.timing.idle, &nonce);
        let mut channel = Channel::new(config, nonce, State::AwaitHello, now);
        channel.pending.extend(&hello);
        channel.state = State::AwaitAnswer { hello, expected };
        channel
    }

    /// The end that has been connected to; `nonce` as for the other.
    pub fn responder(config: Config, nonce: [u8; 32], now: Instant) -> Channel {
        Channel::new(config, nonce, State::AwaitHello, now)
    }

    fn new(config: Config, nonce: [u8; 32], state: State, now: Instant) -> Channel {
        Channel {
            config,
            nonce,
            state,
            began: now,
            input: Vec::new(),
            pending: VecDeque::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes what was read from the stream, in any pieces.
    pub fn handle_bytes(&mut self, mut bytes: &[u8], now: Instant) {
        while !bytes.is_empty() && !self.is_ended() {
            if let Err(error) = self.handle_some(&mut bytes, now) {
                self.fail(error);
            }
        }
    }

    /// The stream has ended, or was reset.
    pub fn handle_end_of_stream(&mut self) {
        if !self.is_ended() {
            self.fail(if self.input.is_empty() {
                ChannelError::EndOfStream
            } else {
                ChannelError::Truncated
            });
        }
    }

    /// The time of [`Channel::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::AwaitAnswer { .. } | State::AwaitHello | State::AwaitProof { .. } => {
                if now >= self.began + self.config.timing.handshake {
                    self.fail(ChannelError::HandshakeTimeout);
                }
            }
            State::Established(established) => {
                if now >= established.heard + self.config.timing.idle {
                    self.fail(ChannelError::Idle);
                } else if now >= established.said + established.keepalive {
                    established.said = now;
                    // What waits is as good as a keepalive, once it is written.
                    if self.pending.is_empty() {
                        established
                            .sealer
                            .seal(Kind::Keepalive, &[], &mut self.pending);
                    }
                }
            }
            State::Ended => {}
        }
    }

    /// When [`Channel::handle_timeout`] is to be called, and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        match &self.state {
            State::AwaitAnswer { .. } | State::AwaitHello | State::AwaitProof { .. } => {
                Some((self.began + self.config.timing.handshake, "handshake"))
            }
            State::Established(established) => {
                let idle = established.heard + self.config.timing.idle;
                let keepalive = established.said + established.keepalive;
                Some(if idle <= keepalive {
                    (idle, "idle")
                } else {
                    (keepalive, "keepalive")
                })
            }
            State::Ended => None,
        }
    }

    /// What there is to know.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Bytes to write to the stream next; empty if there are none for the time being.
    pub fn pending(&self) -> &[u8] {
        let (first, second) = self.pending.as_slices();
        if first.is_empty() { second } else { first }
    }

    /// So many bytes of [`Channel::pending`] are written.
    pub fn handle_written(&mut self, count: usize) {
        self.pending.drain(..count.min(self.pending.len()));
    }

    /// Says something.
    ///
    /// # Errors
    /// Not now ([`SendError::Full`]), or not at all.
    pub fn send(&mut self, message: &[u8], now: Instant) -> Result<(), SendError> {
        if message.len() > MAX_MESSAGE {
            return Err(SendError::TooLong(message.len()));
        }
        let room = self.room();
        let State::Established(established) = &mut self.state else {
            return Err(SendError::NotEstablished);
        };
        if !established.is_confirmed {
            return Err(SendError::NotEstablished);
        }
        if message.len() > room {
            return Err(SendError::Full);
        }
        established.said = now;
        established
            .sealer
            .seal(Kind::Message, message, &mut self.pending);
        Ok(())
    }

    /// The octets a message may have to be sent at once; 0 unless established. Who polls a state
    /// machine for messages does so while this is at least [`MAX_MESSAGE`].
    pub fn room(&self) -> usize {
        match &self.state {
            State::Established(established) if established.is_confirmed => {
                SEND_BUFFER.saturating_sub(self.pending.len() + RESERVED + frame::OVERHEAD)
            }
            State::Established(_)
            | State::AwaitAnswer { .. }
            | State::AwaitHello
            | State::AwaitProof { .. }
            | State::Ended => 0,
        }
    }

    /// Says goodbye. What waits is still to be written.
    pub fn close(&mut self) {
        match &mut self.state {
            State::Established(established) => {
                established
                    .sealer
                    .seal(Kind::Goodbye, &[], &mut self.pending);
            }
            State::AwaitAnswer { .. } | State::AwaitHello | State::AwaitProof { .. } => {}
            State::Ended => return,
        }
        self.end(End::Here);
    }

    /// The other end's name, once it has proved itself and while the channel lasts.
    pub fn peer(&self) -> Option<&NodeName> {
        match &self.state {
            State::Established(established) if established.is_confirmed => Some(&established.peer),
            State::Established(_)
            | State::AwaitAnswer { .. }
            | State::AwaitHello
            | State::AwaitProof { .. }
            | State::Ended => None,
        }
    }

    /// Whether it is over.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    fn state_name(&self) -> &'static str {
        match &self.state {
            State::AwaitAnswer { .. } => "await_answer",
            State::AwaitHello => "await_hello",
            State::AwaitProof { .. } => "await_proof",
            State::Established(_) => "established",
            State::Ended => "ended",
        }
    }

    fn fail(&mut self, error: ChannelError) {
        // Who does not keep to the protocol is told nothing more.
        self.pending.clear();
        self.end(End::Failed(error));
    }

    fn end(&mut self, end: End) {
        self.state = State::Ended;
        self.input = Vec::new();
        self.outputs.push_back(Output::Ended(end));
    }

    /// Takes at most one packet or frame from the front of the bytes.
    fn handle_some(&mut self, bytes: &mut &[u8], now: Instant) -> Result<(), ChannelError> {
        let is_established = matches!(self.state, State::Established(_));
        let (header, length) = if is_established {
            (frame::HEADER, frame::length(&self.input)?)
        } else {
            (handshake::HEADER, handshake::length(&self.input)?)
        };
        let wanted = length.unwrap_or(header) - self.input.len();
        let (some, rest) = bytes.split_at(wanted.min(bytes.len()));
        self.input.extend_from_slice(some);
        *bytes = rest;
        // Lengths are checked as soon as they are known, before anything is buffered for them.
        let whole = if is_established {
            frame::length(&self.input)?
        } else {
            handshake::length(&self.input)?
        };
        if whole != Some(self.input.len()) {
            return Ok(());
        }
        let input = std::mem::take(&mut self.input);
        if is_established {
            self.handle_frame(&input, now)
        } else {
            self.handle_packet(&input, now)
        }
    }

    fn handle_frame(&mut self, bytes: &[u8], now: Instant) -> Result<(), ChannelError> {
        let State::Established(established) = &mut self.state else {
            return Ok(());
        };
        let (kind, payload) = established.opener.open(bytes)?;
        established.heard = now;
        if !established.is_confirmed {
            established.is_confirmed = true;
            self.outputs.push_back(Output::Established {
                peer: established.peer.clone(),
                version: VERSION,
            });
        }
        match kind {
            Kind::Message => self.outputs.push_back(Output::Message(payload.to_vec())),
            Kind::Keepalive => {}
            Kind::Goodbye => {
                self.pending.clear();
                self.end(End::There);
            }
        }
        Ok(())
    }

    fn handle_packet(&mut self, bytes: &[u8], now: Instant) -> Result<(), ChannelError> {
        let packet = handshake::parse(bytes)?;
        match (std::mem::replace(&mut self.state, State::Ended), packet) {
            (State::AwaitHello, Packet::Hello(hello)) => {
                self.check(&hello, None)?;
                let config = &self.config;
                let answer = handshake::answer(&config.name, config.timing.idle, &self.nonce);
                let transcript = handshake::transcript(bytes, &answer);
                let proof = config
                    .keys
                    .first()
                    .proof(keys::Role::Responder, &transcript);
                self.pending.extend(answer);
                self.pending.extend(proof);
                self.state = State::AwaitProof { transcript, hello };
                Ok(())
            }
            (State::AwaitAnswer { hello, expected }, Packet::Answer(answer, proof)) => {
                let said = &bytes[..bytes.len() - proof.len()];
                let transcript = handshake::transcript(&hello, said);
                let keys = &self.config.keys;
                // Nothing of what it says counts before it has proved itself, but for what
                // makes for a better error.
                if answer.nonce == self.nonce {
                    return Err(ChannelError::Reflected);
                }
                let theirs = keys
                    .find(keys::Role::Responder, &transcript, &proof)
                    .ok_or(ChannelError::WrongKey)?;
                self.check(&answer, expected)?;
                if answer.lowest != VERSION {
                    return Err(ChannelError::Version {
                        lowest: answer.lowest,
                        highest: answer.highest,
                    });
                }
                let ours = keys.first();
                let packet = handshake::proof(&ours.proof(keys::Role::Initiator, &transcript));
                let sealer = Sealer::new(ours.frames(keys::Role::Initiator, &transcript));
                let opener = Opener::new(theirs.frames(keys::Role::Responder, &transcript));
                self.pending.extend(packet);
                self.state = self.established(answer, sealer, opener, now);
                Ok(())
            }
            (State::AwaitProof { transcript, hello }, Packet::Proof(proof)) => {
                let keys = &self.config.keys;
                let theirs = keys
                    .find(keys::Role::Initiator, &transcript, &proof)
                    .ok_or(ChannelError::WrongKey)?;
                let ours = keys.first();
                let sealer = Sealer::new(ours.frames(keys::Role::Responder, &transcript));
                let opener = Opener::new(theirs.frames(keys::Role::Initiator, &transcript));
                let mut state = self.established(hello, sealer, opener, now);
                if let State::Established(established) = &mut state {
                    established.is_confirmed = true;
                    let (sealer, pending) = (&mut established.sealer, &mut self.pending);
                    sealer.seal(Kind::Keepalive, &[], pending);
                    self.outputs.push_back(Output::Established {
                        peer: established.peer.clone(),
                        version: VERSION,
                    });
                }
                self.state = state;
                Ok(())
            }
            (_, packet) => Err(ChannelError::OutOfTurn(packet.kind())),
        }
    }

    fn check(&self, hello: &Hello, expected: Option<NodeName>) -> Result<(), ChannelError> {
        if hello.nonce == self.nonce {
            return Err(ChannelError::Reflected);
        }
        if hello.name == self.config.name {
            return Err(ChannelError::OwnName);
        }
        if let Some(expected) = expected.filter(|expected| *expected != hello.name) {
            return Err(ChannelError::WrongPeer {
                expected,
                found: hello.name.clone(),
            });
        }
        if hello.idle < MIN_IDLE {
            return Err(ChannelError::Impatient(hello.idle));
        }
        Ok(())
    }

    fn established(&self, hello: Hello, sealer: Sealer, opener: Opener, now: Instant) -> State {
        State::Established(Box::new(Established {
            peer: hello.name,
            sealer,
            opener,
            is_confirmed: false,
            keepalive: self.config.timing.keepalive.min(hello.idle / 3),
            heard: now,
            said: now,
        }))
    }
}

#[cfg(test)]
mod tests;
