// SPDX-License-Identifier: Apache-2.0
//! The BGP speaker without sockets, clocks, tasks or globals.
pub mod config;
mod serial;
