// SPDX-License-Identifier: Apache-2.0
//! A load generator for BGP speakers, and the bench that compares them.
//!
//! # How it measures
//!
//! From outside and by the protocol alone: peers of this process, each with an address and an AS of
//! its own, send a table that a seed makes ([`table`]) and read what the speaker tells others
//! ([`received`]). The clock stops when every receiver has every prefix; CPU time and memory are
//! read from `/proc`. Then every receiver's table is compared with what was sent: prefix by prefix,
//! the attributes without what an external session changes (the AS in front, the next hop), which
//! must be the speaker's own.
//!
//! The generator must not be what is measured. Messages are made before the clock starts; all peers
//! are served by one loop on one thread ([`generator`]); of what comes, an UPDATE's attributes are
//! hashed once and each prefix costs one look into a table. TCP_NODELAY is set. Each peer sends a
//! KEEPALIVE a second: FRR 10 leaves what it has read in a buffer until something more comes.
//!
//! # What it leaves out
//!
//! It is no speaker: it offers one family, never answers a ROUTE-REFRESH, and calls but does not
//! listen. It reads only what it needs to, and an UPDATE that cannot be read ends the session.

pub mod bfd;
pub mod counting;
pub mod generator;
pub mod message;
pub mod peer;
pub mod process;
pub mod profile;
pub mod random;
pub mod received;
pub mod report;
pub mod run;
pub mod scenario;
pub mod subject;
pub mod table;
pub mod world;
