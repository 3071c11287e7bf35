// SPDX-License-Identifier: Apache-2.0
//! One connection to an etcd cluster.
//!
//! etcd is where nodes agree when they cannot, or need not, speak to each other. This gives the rest
//! of the daemon as much of it as is needed, and knows nothing of what is kept there:
//!
//! * [`Store`]: the connection. It tries the endpoints in turn, holds on to one that answers, leaves
//!   it when it does not any more, and comes back by itself. Everything asked of it has a time limit.
//! * [`Store::get`], [`Store::put_if`]: reading what the majority agrees on, and writing only if
//!   nobody else has meanwhile.
//! * [`Session`]: a lease that is kept alive, and keys that last as long as it does.
//! * [`Watch`]: all keys below a prefix, then every change of them, over lost connections and
//!   compactions.
//!
//! **Two that are one.** The number of the cluster that was connected to first is kept; an endpoint of
//! another cluster is refused. Data that is older than what was seen (a restored backup) begins
//! watches anew.
//!
//! **TLS.** An endpoint with `https://` is spoken to by TLS or not at all. The files are read for
//! each connection, so that new ones count without a restart; a file that cannot be read is a
//! [`Status::problem`], never a connection without it.
//!
//! **What is left to the caller.** What keys mean; whether to wait. Nothing here is on the way of
//! packets.
//!
//! The stubs are our own subset of etcd's API, compiled without `protoc`.

mod connection;
mod error;
mod request;
mod session;
mod watch;
mod wire;

pub use connection::{Config, Status, Store, TlsFiles};
pub use error::Error;
pub use request::{Entry, Put};
pub use session::Session;
pub use watch::{Watch, WatchEvent};
