// SPDX-License-Identifier: Apache-2.0
//! `causeway`: what the daemon knows, on a terminal and for scripts.
//!
//! A command asks the daemon through its socket ([`router_api`]) and turns the answer into a
//! [`output::View`], a pure function of answer and time that golden tests pin down; the output
//! formats are common to all. `bgp decode`, `config check`, `explain`, `completion` and `man` need
//! no daemon.
//!
//! Data goes to standard output, everything else to standard error. How the process ends is in
//! [`Exit`] and is a contract.

pub mod args;
pub mod commands;
mod exit;
mod failure;
mod offline;
pub mod output;
mod run;
pub mod suggest;

pub use exit::Exit;
pub use failure::Failure;
pub use run::run;
