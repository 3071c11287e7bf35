// SPDX-License-Identifier: Apache-2.0
//! The process that runs BFD sessions, and the client of those who want some.
//!
//! BFD runs in a process of its own, `causeway-bfdd`, so that sessions outlive the daemon: when
//! `causewayd` is restarted or killed, neighbours see BFD stay up, and the C bit it sends (RFC 5880
//! §4.1) is true. Its one thread that matters has real-time priority, and talks to nobody it could
//! have to wait for.
//!
//! [`client::Client`] is how the daemon asks for sessions: by neighbour, with a profile, getting a
//! watch on the state. [`protocol`] is what goes over the control socket, [`server`] the process.

pub mod client;
pub mod private_socket;
pub mod protocol;
pub mod server;

mod datagram;
mod engine;
mod link_socket;
mod realtime;
mod socket;
