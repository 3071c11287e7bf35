// SPDX-License-Identifier: Apache-2.0
//! The kernel's network configuration: links, addresses, routes, neighbours, sysctls and network
//! namespaces. The only crate of Causeway that speaks rtnetlink (`man 7 rtnetlink`).
//!
//! What it offers, outermost first:
//!
//! * [`RouteTable`]: the routes this daemon owns (one route protocol, one metric), as
//!   [`router_reconcile::Operations`]: listed, written and deleted in batches.
//! * [`Watcher`]: a stream of link, address and route changes, with an explicit
//!   [`Event::Lost`] when the kernel dropped some and everything must be read again.
//! * [`Netlink`]: one socket in one namespace, with a method for each thing one can ask.
//! * [`NewTunnel`], [`NewHolder`]: devices of the daemon's own, made, changed or refused by
//!   [`Netlink::ensure_tunnel`] and [`Netlink::ensure_holder`].
//! * [`Netns`]: a handle on a namespace, and code run inside it on a thread of its own.
//! * [`Sysctl`]: `/proc/sys/net` of a namespace.
//!
//! # Blocking
//!
//! Requests on [`Netlink`] are plain blocking calls. The kernel carries a request out before
//! `sendmsg` returns, so a call takes microseconds unless another process holds the kernel's
//! configuration lock; an answer that stays out for ten seconds is [`Problem::Silent`]. Tasks may
//! call them for a few objects at a time. Whoever writes thousands uses [`RouteTable`], which
//! yields between batches.
//!
//! # Why not the `rtnetlink` crate
//!
//! The codec is `netlink-packet-route`; the conversation is our own ([`Netlink`] and
//! [`RouteTable`] share one socket type). `rtnetlink` sends each message by itself, allocates a
//! channel per request, and drops the kernel's extended acknowledgement, the one place that says
//! *which* attribute was wrong. Batches of 128 messages with one acknowledgement, and the kernel's
//! own words in every error, need less code than wrapping it would.
//!
//! # Privileges
//!
//! `CAP_NET_ADMIN` in the namespace's owning user namespace; entering another namespace
//! ([`Netns::run`]) needs `CAP_SYS_ADMIN` as `setns(2)` says. Reading needs nothing.

mod address;
mod device;
mod error;
mod link;
mod neighbour;
mod netlink;
mod netns;
mod route;
mod route_table;
mod socket;
mod sysctl;
mod watch;

pub use address::{Address, AddressOptions};
pub use device::{Done, Ensured, NewHolder, NewTunnel};
pub use error::{Error, Problem};
pub use link::{Link, LinkChange, LinkKind, MacAddress, NewVeth, TunnelKind, TunnelOptions};
pub use neighbour::{Neighbour, NeighbourProxy};
pub use netlink::Netlink;
pub use netns::Netns;
pub use route::{KernelNextHop, KernelRoute, Protocol, RouteFilter, RouteKind, RouteSpec};
pub use route_table::{Ownership, RouteTable};
pub use sysctl::Sysctl;
pub use watch::{Event, Watcher};
