// SPDX-License-Identifier: Apache-2.0
//! Bidirectional Forwarding Detection (RFC 5880), for one hop (RFC 5881) and several (RFC 5883).
//!
//! Sans-IO: no clock, socket, thread or global. [`wire`] is the codec of control packets with their
//! authentication; [`session::Session`] is one session's state machine; [`profile::Profile`] what
//! an operator wants of it. The caller owns sockets and time: it checks TTL and addresses (RFC 5881
//! §5), finds the session of a packet (RFC 5880 §6.3) and calls
//!
//! - [`session::Session::handle_packet`] with what came,
//! - [`session::Session::handle_timeout`] when [`session::Session::poll_timeout`] is due,
//! - [`session::Session::handle_echo`] with those of our echo packets ([`echo`]) that come back,
//! - [`session::Session::poll_output`] until it is empty, after each of these.
//!
//! Implemented: asynchronous mode, the echo function in both roles, Poll and Final with all rules
//! of changing intervals (§6.8.3), jitter (§6.8.7), all five authentication types (§6.7), the
//! answer to a neighbour in demand mode (§6.6), administrative down (§6.8.16), the passive role
//! (§6.1). Not implemented: demand mode of our own, since an edge gains nothing from it, and
//! point-to-multipoint (RFC 8562).

pub mod echo;
pub mod profile;
pub mod session;
pub mod wire;

mod jitter;
