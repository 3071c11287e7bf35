// SPDX-License-Identifier: Apache-2.0
//! From what users write to what the BGP speaker does, and back to status.
//!
//! [`compile`] is a pure function of the objects in force, the facts about this node and a few
//! settings. It gives, for each BGP instance of the node, a [`bgp_core::config::InstanceConfig`]
//! and the local routes with what each peer is told; the peers that are not run and why; and
//! statements about every BGP object, used or not. Called again after any change, it gives the
//! whole answer anew: the speaker computes what that changes.
//!
//! [`status`] goes the other way: a plain snapshot of the sessions becomes the status of the
//! node's `CiliumBGPNodeConfig`.
//!
//! # Selection
//!
//! A `CiliumBGPClusterConfig` or a `BGPClusterConfig` of `causeway.io` is for a node when its `nodeSelector` is absent or matches the
//! node's labels. Of several, the oldest (`creationTimestamp`, then name) is used and the others
//! are `cilium.io/ConflictingClusterConfig`. The `CiliumBGPNodeConfigOverride` named like the node
//! changes router id, port, AS number and source addresses, by instance and peer names.
//!
//! A peer's configuration is looked up by the name in `peerConfigRef`: `CiliumBGPPeerConfig`
//! first, then `BGPPeerConfig` of `causeway.io`, unless the reference names the kind. A peer
//! without a reference gets the defaults, which advertise nothing.
//!
//! Advertisements are selected per peer and family by the labels of `CiliumBGPAdvertisement`
//! objects. Selected twice, a prefix gets the communities of both and the higher local preference.
//!
//! # Where the unsafe half of upstream is refused
//!
//! - A missing Secret, a Secret without `password` and an empty password: the session is not
//!   tried, instead of being tried without a password (`cilium.io/MissingAuthSecret`).
//! - A family without a selector advertises nothing, as upstream; a statement says so.
//! - Nothing but the default route is imported unless a `BGPPeerConfig` says otherwise.
//!
//! # Discovery
//!
//! A peer with `autoDiscovery` of mode `DefaultGateway` becomes one session with each gateway of the
//! node's default route of the family, called by the peer's name and the address. Default routes
//! learned by BGP do not count: a speaker must not choose whom it speaks with by what it was told.
//! One with `interface`, or mode `Unnumbered`, becomes one with the router heard on the link.
//!
//! # Router identifiers
//!
//! The override's `routerID`; else the first IPv4 address of the settings, of the Node object or of
//! `lo`; else, as on a node with IPv6 alone, a number derived from the node's name ([`derived_router_id`]): stable over restarts and the
//! same whoever computes it. RFC 6286 asks only that it is not 0 and differs within the AS.
//!
//! # Not provided yet
//!
//! `bmpServers`, `vrf`, `Service` and `CiliumPodIPPool` advertisements, and families other than
//! unicast, aggregates, limits of routes sent: each gets a statement, and nothing else is disturbed.

mod advertise;
mod bfd;
mod cluster;
mod compile;
mod diff;
mod discovery;
mod expand;
mod facts;
mod families;
mod gateways;
mod instance;
mod peer;
mod policy;
mod session;
mod statements;
pub mod status;

pub use bfd::bfd_profile;
pub use compile::{Compiled, CompiledInstance, NodeConfig, Options, SkippedPeer, compile};
pub use diff::{Difference, diff};
pub use facts::{
    DefaultGateway, HeldAddress, InterfaceFacts, NodeFacts, OperState, derived_router_id,
};
pub use gateways::DefaultRoute;
pub use policy::{Policies, policy_config};
pub use statements::condition_type;
pub use status::{SessionStatus, node_config_status};
