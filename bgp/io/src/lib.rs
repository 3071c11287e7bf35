// SPDX-License-Identifier: Apache-2.0
//! The BGP speaker on a real network: sockets, tasks and threads around `bgp-core`.
//!
//! [`spawn`] begins a speaker and returns its [`Handle`]. Each neighbour has a task that owns its
//! session's machine; each connection has a reading and a writing task; each instance has a thread
//! for its RIB, fed by bounded batches. A busy RIB makes sessions read more slowly and nothing
//! else: keepalives are sent by the neighbours' tasks, and a neighbour whose bytes wait counts as
//! alive.
//!
//! Connections have `TCP_NODELAY`, DSCP CS6, the configured TTL (255 to internal neighbours),
//! `TCP_MD5SIG` where a password is set, and `TCP_USER_TIMEOUT` at the hold time, so that half-open
//! ones are noticed. GTSM (RFC 5082) and TCP-AO (RFC 5925) are not implemented.

mod connection;
mod instance;
mod listener;
mod peer_task;
mod recorder;
mod rib_thread;
mod socket;
mod speaker;

pub use instance::{InstanceSnapshot, PeerStatus};
pub use listener::ListenStatus;
pub use speaker::{
    Applied, BestChanges, Handle, Options, ResetKind, Snapshot, SpeakerError, StopKind, spawn,
};
