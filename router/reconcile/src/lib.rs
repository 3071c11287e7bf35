// SPDX-License-Identifier: Apache-2.0
//! Makes what is equal to what is wanted, and keeps it so.
//!
//! Everything Causeway applies to the kernel (routes, map entries, peers) is *desired state*: a
//! set of keys with values, owned by the subsystem that computed it. [`Reconciler`] compares it
//! with *actual state* and asks for the difference: an update where a value is missing or
//! different, a deletion where something of ours is there that nobody wants. Both are idempotent,
//! so doing one twice, or after a crash in the middle, is harmless, and a restart of the daemon is
//! one more comparison.
//!
//! # Why not simply apply each change
//!
//! Because changes get lost: the kernel refuses one, drops routes of a device that went down, an
//! operator removes one by hand, the daemon is killed between two of them. With the wanted set at
//! hand each of these is repaired by looking, whatever its cause.
//!
//! # The core and its driver
//!
//! [`Reconciler`] does no I/O and reads no clock. It takes
//!
//! * wishes: [`Reconciler::set`], [`Reconciler::remove`];
//! * facts: [`Reconciler::handle_listing`], [`Reconciler::handle_observed`],
//!   [`Reconciler::handle_result`], [`Reconciler::handle_timeout`];
//! * and [`Reconciler::prune`], the word that what was not wished for by now is unwanted.
//!
//! After any of these call [`Reconciler::poll_output`] until `None`, then wait for
//! [`Reconciler::poll_timeout`] or the next input. [`step`] does that against an
//! [`Operations`]. Outputs come oldest first; nothing is written before the first listing, because
//! only then is it known what is there.
//!
//! # Restarts
//!
//! What a listing shows and nobody has wished for is *stale*: kept, and adopted without a write
//! when an equal wish comes. It is deleted when [`Reconciler::prune`] is called (all sources have
//! delivered: for BGP, End-of-RIB from every peer, RFC 4724 §4.1) or at
//! [`Config::prune_deadline`], whichever is first. From then on unwanted things are deleted at
//! once.
//!
//! # Failures
//!
//! A key that fails is tried again after a delay that doubles from [`Config::retry_min`] to
//! [`Config::retry_max`], without end and without holding up other keys. Its last error, since when
//! and how often are in [`Reconciler::status`]. A new wish for the key is tried at once.

mod drive;
mod operations;
mod reconciler;
mod status;

pub use drive::step;
pub use operations::{Listing, Operation, Operations};
pub use reconciler::{Config, Output, Reconciler};
pub use status::{Failure, KeyState, KeyStatus, Summary};

#[cfg(test)]
mod tests;
