// SPDX-License-Identifier: Apache-2.0
//! The daemon's gRPC API: messages and services of `causeway.v1alpha1`, and how the two ends meet
//! on a unix socket.
//!
//! The proto files under `proto/` are the contract and carry the documentation of each field.
//! Fields are only added; a number is never used twice. Times are Unix times in nanoseconds and
//! durations say their unit; what is not known is 0 or empty.
//!
//! [`connect`] gives a [`Connection`] from which every client is made. [`Listener`] is the
//! daemon's end: it makes the socket, replaces one that a killed daemon left behind, and lets in
//! only root, the daemon's own user and the members of one group. The permissions of the socket say
//! the same; the check of the caller's credentials holds where the folder or the mode were changed.
//!
//! Whoever may open the socket may do everything. Roles that may only read come with the TCP
//! listener.

mod client;
pub mod cni;
pub mod explain;
mod server;

/// Messages, clients and servers of package `causeway.v1alpha1`, generated from the proto files.
pub mod v1alpha1 {
    #![allow(
        missing_docs,
        unreachable_pub,
        rust_2018_idioms,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )]
    tonic::include_proto!("causeway.v1alpha1");
}

pub use client::{ConnectError, Connection, connect};
pub use server::{Access, ListenError, Listener, serve_unix};

/// Where the daemon listens unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/causeway/causeway.sock";

/// The `apiVersion` of everything `causeway -o json` writes.
pub const API_VERSION: &str = "causeway.io/v1alpha1";
