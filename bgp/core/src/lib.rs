// SPDX-License-Identifier: Apache-2.0
//! The BGP speaker without sockets, clocks, tasks or globals.
//!
//! Two machines, apart so that a busy RIB cannot delay keepalives: [`peer::Peer`], one for each
//! neighbour, runs the session (FSM, timers, OPEN, message checks); [`rib::Rib`], one for an
//! instance, holds the routes. Both take inputs with the time they happened at and leave outputs
//! to be polled; the caller moves bytes, waits and carries outputs between them. All inputs can be
//! recorded and replayed ([`record`]).
//!
//! # Implemented
//!
//! RFC 4271 §6.8, §8, §9, §10 (sessions, collisions, decision process, jitter), 2918 (refresh),
//! 4724 and 8538 (graceful restart, both roles; a restarting speaker advertises its own routes at
//! once and holds End-of-RIB back until they are known; how long learned ones wait: [`deliveries`]), 4486 and 9003 (reasons), 5492 §3 (retry
//! without capabilities), 6286 (identifiers), 6793 (AS numbers), 7606 (errors), 8654 (long
//! messages), 8950 (IPv4 over IPv6 next hops), 9687 (send hold timer, measured by the caller).
//!
//! Not implemented: DelayOpen, route reflection (4456, but for its tie-breaks), confederations
//! (5065), add-path (7911), enhanced refresh (7313), long-lived stale routes (9494), roles (9234),
//! aggregation of routes, dynamic neighbours, BFD.

pub mod aggregate;
pub mod config;
pub mod deliveries;
pub mod fsm;
mod jitter;
pub mod peer;
pub mod policy;
pub mod record;
pub mod rib;
pub mod routes;
mod serial;
