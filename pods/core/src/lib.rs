// SPDX-License-Identifier: Apache-2.0
//! Local pods: who holds which address, and what must survive the daemon.
//!
//! This crate decides and remembers; it touches neither kernel nor disk. `pods-io` gives it
//! facts (a request, the bytes of a journal, the addresses already on the node) and carries out
//! what it answers.
//!
//! # Parts
//!
//! * [`Ipam`] hands out addresses of the node's pod CIDRs: the lowest free one, recently released
//!   ones last, never the network, gateway or broadcast address, never one twice.
//! * [`Endpoint`] is one pod interface: its names, addresses, MACs and MTU, all of them fixed when
//!   it is created, so that the same request gets the same answer for as long as it lives.
//! * [`Registry`] is the state machine over both: ADD, DEL and GC of the Container Network
//!   Interface, version 1.1.0. Each step yields a [`journal::Record`]; the caller makes it durable
//!   *before* it acts on it.
//! * [`journal`] is the format of the file those records live in, and its replay.
//! * [`cni`] is what the runtime's JSON and arguments mean, and what it is answered.
//! * [`Failure`] is what a container runtime is told when something is refused, with the codes of
//!   the CNI specification.
//!
//! # Life of an endpoint
//!
//! ```text
//!            ADD: record is durable          links, routes, maps are in
//!  (nothing) ----------------------> Creating -------------------------> Ready
//!      ^                                 |                                 |
//!      +---------------------------------+---------------------------------+
//!              roll-back, DEL, GC, namespace gone, or another boot
//! ```
//!
//! The runtime has no answer yet while an endpoint is `Creating`. A daemon that finds one after a
//! restart takes it back: the runtime sees its call broken off, and repeats ADD or sends DEL, and
//! both are right.
//!
//! # Crashes, full disks, reboots
//!
//! A record that is not in the journal was never acted on, so cutting the journal at any byte
//! gives a state the node really was in. A release that could not be written (disk full) is kept
//! and goes out in front of the next record; an address cannot be handed to somebody else before
//! its release is on disk, and a restart in between finds the pod's namespace gone and takes the
//! address back. The journal names the boot it belongs to: after a reboot no pod namespace exists
//! any more, so every endpoint is dropped and its addresses are handed out last.

pub mod cni;
mod endpoint;
mod failure;
mod ipam;
pub mod journal;
mod labels;
mod pool;
mod registry;

pub use endpoint::{Attachment, Endpoint, EndpointId, Mac, NetnsRef, Phase, PodRef};
pub use failure::{Code, Failure};
pub use ipam::{AllocateError, Family, Ipam, PoolUsage};
pub use pool::{Pool, PoolError};
pub use registry::{AddRequest, Addition, Opened, Registry};
