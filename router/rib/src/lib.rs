// SPDX-License-Identifier: Apache-2.0
//! Where packets go: merges what the node's subsystems offer, per table and prefix, into one route
//! each, with next hops the kernel can use.
//!
//! # What it does
//!
//! * Takes candidates from several *origins* (a BGP instance, the pods, the operator's file), each
//!   with a [`RouteSource`](router_types::RouteSource): [`Rib::set`], [`Rib::withdraw`],
//!   [`Rib::withdraw_origin`].
//! * Chooses by source: local before static before mesh before eBGP before iBGP. Candidates of the
//!   *same* source share: their next hops are merged, duplicates removed, the greater weight kept.
//!   `unreachable` counts only if no candidate of that source has a usable next hop. A source whose
//!   candidates are all refused or unresolved is passed over for the next one.
//! * Resolves next hops against the node's [`Topology`]: which device, which gateway. See below.
//! * Puts out the difference as desired state for a reconciler: [`Rib::take_changes`].
//! * Explains: [`Rib::explain`] names every candidate of a prefix and why it is used or not.
//! * Tracks next hops for others (BGP's best path needs to know which are reachable and how far):
//!   [`Rib::track`], [`Rib::take_next_hop_changes`].
//!
//! No sockets, no clock, no threads: the caller owns it, best on a thread of its own, and feeds it
//! batches. One prefix with one candidate takes some
//! 110 bytes (a million: 150 MB at the peak, measured); equal next-hop sets are stored once.
//!
//! # Next hops (RFC 4271 §5.1.3, §9.1.2.1; RFC 8950)
//!
//! A next hop with an address is looked up among the routes *others* wrote into the kernel:
//! connected networks, static routes, DHCP; never among our own, so no loop of routes resolving
//! each other can arise. Routes of the candidate's table come first, those of `main` second. The
//! longest match decides, also when its device is down: the next hop is then unresolved, rather
//! than sent the wrong way round by a shorter match. A default route does not resolve next hops
//! unless [`Config::resolve_via_default`] says so: when a link to the fabric dies, its routes must
//! go, not move to the management network. A link-local next hop (RFC 4291 §2.5.6) means
//! nothing without its device. IPv4 destinations may have IPv6 next hops, IPv6 ones not IPv4.
//!
//! # What learned routes must not do
//!
//! * *Connected networks win.* A prefix this node is attached to is not written, from no source:
//!   in IPv6 it would beat the kernel's own route, whose metric is 256.
//! * *The way to the peers stays.* Mesh and BGP candidates inside a connected network that holds a
//!   BGP peer ([`Rib::set_peers`]) are refused: a more specific route could lead the session, and
//!   everything learned by it, astray.
//! * *The node stays itself.* Mesh and BGP candidates for one of the node's addresses, or for a part
//!   of a connected network around it, are refused.
//!
//! # Other daemons' routes to the same prefix
//!
//! The kernel uses the lowest metric. Ours is [`Config::metric`], 20 unless configured: before DHCP
//! clients (100 and up), after a default route an operator wrote without a metric (0 for IPv4). So
//! a learned default route takes traffic from DHCP's, and yields to a plain `ip route add default`.
//! Both are visible as [`Rivalry`]. A foreign route with *exactly* our metric keeps its place and
//! ours is not written.

mod candidates;
mod explain;
mod forwarding;
mod rib;
mod topology;

pub use explain::{CandidateReport, Explanation, NextHopReport, Refusal, Rival, Rivalry, Verdict};
pub use forwarding::Unresolved;
pub use rib::{Config, FibChange, NextHopChange, NextHopState, OriginId, Rib, TrackedNextHop};
pub use topology::{KernelRoute, Link, Topology, TopologyChange};

#[cfg(test)]
mod tests;
