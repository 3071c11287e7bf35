// SPDX-License-Identifier: Apache-2.0
//! The BGP speaker with sockets, clocks and threads around the cores of `bgp-core`.
//!
//! # Threads
//!
//! * `bgp`: all sessions of all instances, one task each, on a single-threaded runtime. It reads,
//!   checks and writes messages and keeps the timers. Nothing on it waits for a table.
//! * `rib-<instance>`: the tables of an instance. Fed by a bounded queue: when it is full, sessions
//!   stop reading (TCP tells the neighbours) and go on sending keepalives.
//!
//! # What flows
//!
//! connection → [`Peer`](bgp_core::peer::Peer) → RIB → [`RouteEvent`]s to the owner; RIB →
//! messages encoded once → connections. Bytes under way to a neighbour are limited; beyond that the
//! RIB remembers prefixes, not messages.
//!
//! RFC 4271 §8 (as the core has it), RFC 2385 (MD5: a call without its key is refused; a password
//! is replaced while the session stays; a listen range has one key), RFC 5082 (GTSM), RFC 9687 (a
//! neighbour that takes nothing for the send hold time is given up, by this crate for what waits
//! here and by `TCP_USER_TIMEOUT` for what waits in the kernel). Not implemented: TCP-AO (RFC 5925).

mod adopted;
mod alarm;
mod bfd;
mod connection;
pub mod drain;
mod failure;
pub mod handover;
mod instance;
mod interface;
mod lines;
mod listener;
mod md5;
mod members;
mod recorder;
mod rib_thread;
mod session;
mod socket;
mod speaker;
mod unnumbered;

pub use handover::HandedSession;
pub use instance::{Backlog, InstanceSnapshot, PeerReport};
pub use recorder::Recorder;
pub use rib_thread::RouteEvent;
pub use speaker::{Options, Reset, Speaker};
pub use unnumbered::RouterDiscovery;
