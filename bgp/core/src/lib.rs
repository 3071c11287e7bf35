// SPDX-License-Identifier: Apache-2.0
//! The BGP speaker without sockets, clocks, tasks or globals.
//!
//! Two machines, apart so that a busy RIB cannot delay keepalives: [`peer::Peer`], one for each
//! neighbour, runs the session (FSM, timers, OPEN, message checks); [`rib::Rib`], one for an
//! instance, holds the routes. Both take inputs with the time they happened at and leave outputs
//! to be polled; the caller moves bytes, waits and carries outputs between them.
pub mod config;
pub mod fsm;
mod jitter;
pub mod peer;
pub mod record;
pub mod rib;
pub mod routes;
mod serial;
