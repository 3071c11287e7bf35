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
//! A `CiliumBGPClusterConfig` is for a node when its `nodeSelector` is absent or matches the
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
//! # Router identifiers
//!
//! The override's `routerID`; else the first IPv4 address of the settings, of the Node object or of
//! `lo`; else, as on a node with IPv6 alone, a number derived from the node's name ([`derived_router_id`]): stable over restarts and the
//! same whoever computes it. RFC 6286 asks only that it is not 0 and differs within the AS.
//!
//! # Not provided yet
//!
//! `autoDiscovery`, `bmpServers`, `Service` and `CiliumPodIPPool` advertisements, and families
//! other than IPv4 and IPv6 unicast: each gets a statement, and nothing else is disturbed.

mod advertise;
mod cluster;
mod compile;
mod diff;
mod facts;
mod peer;
mod policy;
mod statements;
pub mod status;

pub use compile::{Compiled, CompiledInstance, NodeConfig, Options, SkippedPeer, compile};
pub use diff::{Difference, diff};
pub use facts::{InterfaceFacts, NodeFacts, OperState, derived_router_id};
pub use policy::{Policies, policy_config};
pub use statements::condition_type;
pub use status::{SessionStatus, node_config_status};
