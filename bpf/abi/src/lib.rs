// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Plain data shared by the eBPF programs and the loader.
//!
//! Every type here is `#[repr(C)]`, has no padding, no pointers, no `bool`, no `enum` and no
//! `Option`: what one side wrote as bytes, the other reads as bytes. Numbers are in the byte order
//! of the machine, **addresses, ports and MAC addresses are byte arrays in network order**. Sizes
//! are asserted beside each type, so that a change of shape is a compile error before it is a
//! misread map; [`LAYOUT_HASH`] turns every shape into one number that names the folder of pins.
//!
//! The crate knows nobody: it is `no_std`, has no dependency, and builds for the host and for the
//! eBPF target alike.

#![no_std]

mod checksum;
mod counters;
mod drop_reason;
pub mod egress;
mod endpoint;
pub mod excess;
mod flow;
mod gateway_layout;
mod layout;
pub mod nat;

pub use checksum::{checksum_after_ttl_decrement, checksum_after_word, fold as fold_checksum};
pub use counters::{DropCounter, DropKey, EndpointCounters};
pub use drop_reason::{DropReason, UnknownDropReason};
pub use endpoint::{AddressEntry, DeviceEntry, POD_ROUTER_V4, POD_ROUTER_V6};
pub use flow::{CachedNextHop, FlowKey, ROUTE_CACHE_NANOSECONDS, RouteCacheEntry};
pub use gateway_layout::{GATEWAY_LAYOUT_HASH, GATEWAY_MAPS};
pub use layout::{LAYOUT_HASH, MAPS, MapKind, MapLayout, Plain, memory_bytes};

/// Names of the maps, as they are in the object file and in the pin folder.
pub mod map_names {
    /// IPv4 address of a local endpoint → [`AddressEntry`](crate::AddressEntry).
    pub const ENDPOINTS_V4: &str = "ENDPOINTS_V4";
    /// IPv6 address of a local endpoint → [`AddressEntry`](crate::AddressEntry).
    pub const ENDPOINTS_V6: &str = "ENDPOINTS_V6";
    /// Host-side interface index → [`DeviceEntry`](crate::DeviceEntry).
    pub const DEVICES: &str = "DEVICES";
    /// Slot of an endpoint → [`EndpointCounters`](crate::EndpointCounters), per CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// Slot and reason → [`DropCounter`](crate::DropCounter), per CPU.
    pub const ENDPOINT_DROPS: &str = "ENDPOINT_DROPS";
    /// Reason → [`DropCounter`](crate::DropCounter), per CPU.
    pub const DROPS: &str = "DROPS";
    /// Answers of the kernel's routing table, per CPU, short-lived.
    pub const ROUTE_CACHE: &str = "ROUTE_CACHE";
    /// One number: raising it makes every cached route stale at once.
    pub const ROUTE_GENERATION: &str = "ROUTE_GENERATION";
    /// Set and IPv4 prefix → way, of egress policies.
    pub const EGRESS_V4: &str = "EGRESS_V4";
    /// Set and IPv6 prefix → way, of egress policies.
    pub const EGRESS_V6: &str = "EGRESS_V6";
    /// IPv4 prefixes inside the cluster.
    pub const CLUSTER_V4: &str = "CLUSTER_V4";
    /// IPv6 prefixes inside the cluster.
    pub const CLUSTER_V6: &str = "CLUSTER_V6";
    /// Number of a rule → where its gateway is.
    pub const EGRESS_ENDS: &str = "EGRESS_ENDS";
    /// Rule and family → neighbour, of rules whose gateway is reached without a tunnel.
    pub const EGRESS_NATIVE: &str = "EGRESS_NATIVE";
    /// Address of a pod of another node → its set, on its gateway.
    pub const EGRESS_REMOTE: &str = "EGRESS_REMOTE";
    /// Connection → the way it began with.
    pub const EGRESS_FLOWS: &str = "EGRESS_FLOWS";
    /// One number: the network namespace that owns this folder of pins.
    pub const OWNER: &str = "OWNER";
    /// Number of a rule → [`NatRule`](crate::nat::NatRule).
    pub const RULES: &str = "RULES";
    /// Both halves of IPv4 mappings.
    pub const NAT_V4: &str = "NAT_V4";
    /// Both halves of IPv6 mappings.
    pub const NAT_V6: &str = "NAT_V6";
    /// Fragmented IPv4 packets under way.
    pub const FRAGMENTS_V4: &str = "FRAGMENTS_V4";
    /// Fragmented IPv6 packets under way.
    pub const FRAGMENTS_V6: &str = "FRAGMENTS_V6";
    /// Outer source address → index of the node.
    pub const NODE_ADDRESSES: &str = "NODE_ADDRESSES";
    /// Address that Causeway holds for its pods → 1.
    pub const HELD: &str = "HELD";
    /// [`ServedPort`](crate::nat::ServedPort) of such an address → 1.
    pub const SERVED: &str = "SERVED";
    /// Index of a node → [`TunnelEnd`](crate::nat::TunnelEnd).
    pub const TUNNEL_ENDS: &str = "TUNNEL_ENDS";
    /// Slot of a rule → [`RuleCounters`](crate::nat::RuleCounters), per CPU.
    pub const RULE_COUNTERS: &str = "RULE_COUNTERS";
    /// Slot and reason → [`DropCounter`](crate::DropCounter), per CPU.
    pub const RULE_REFUSALS: &str = "RULE_REFUSALS";
    /// Reason → [`DropCounter`](crate::DropCounter), per CPU.
    pub const REFUSALS: &str = "REFUSALS";
    /// Answers of the kernel's routing table for translated packets, per CPU, short-lived.
    pub const GATEWAY_ROUTES: &str = "GATEWAY_ROUTES";
    /// ICMP errors sent in this moment, per CPU.
    pub const ANSWER_LIMIT: &str = "ANSWER_LIMIT";
    /// Ring buffer of [`NatEvent`](crate::nat::NatEvent).
    pub const NAT_EVENTS: &str = "NAT_EVENTS";
    /// Events that found it full, per CPU.
    pub const EVENTS_LOST: &str = "EVENTS_LOST";
}

/// Names of the programs in the object file. Kept to the kernel's 15 characters.
pub mod program_names {
    /// TCX ingress on the host-side device of a pod.
    pub const FROM_POD: &str = "from_pod";
    /// TCX egress on the host-side device of a pod: counts what the kernel itself delivers.
    pub const TO_POD: &str = "to_pod";
    /// TCX ingress on a device towards the fabric.
    pub const FROM_FABRIC: &str = "from_fabric";
    /// TCX ingress on a gateway's tunnel device.
    pub const EGRESS_OUT: &str = "egress_out";
    /// TCX ingress on a gateway's device towards the fabric, before [`FROM_FABRIC`].
    pub const EGRESS_BACK: &str = "egress_back";
}

/// Most endpoints on one node. Kubernetes suggests 110 pods per node and large sites run 500;
/// this leaves a factor of two. Raising it costs memory per CPU, see `layout::tests`.
pub const MAX_ENDPOINTS: u32 = 1024;

/// Most addresses of one family over all endpoints: four per endpoint on average.
pub const MAX_ADDRESSES: u32 = 4 * MAX_ENDPOINTS;

/// Reasons one endpoint's packets are counted by at most: those of gateways are no endpoint's.
pub const MAX_ENDPOINT_REASONS: u32 = 22;

/// Entries of the route cache of one CPU. A power of two, because the index is masked.
pub const ROUTE_CACHE_ENTRIES: u32 = 1024;
