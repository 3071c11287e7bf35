// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Egress policies on the pods' side: which destinations of which pods leave by a gateway, and what
//! connections were begun with.
//!
//! Pods with equal tables share a **set**, whose number stands in their
//! [`AddressEntry`](crate::AddressEntry). The longest prefix of the set that has the destination
//! says the [`way`]. What is inside the cluster never leaves by a gateway, whatever a set says.
//!
//! A connection keeps the way it began with: it is noted by its first packet, in whichever
//! direction that goes, and a change of policy is for new connections.

use crate::Plain;

/// Prefixes of one family over all sets at most.
pub const MAX_EGRESS_PREFIXES: u32 = 65_536;

/// Prefixes of one family inside the cluster at most.
pub const MAX_CLUSTER_PREFIXES: u32 = 32_768;

/// Rules the pods of one node use at most.
pub const MAX_EGRESS_RULES: u32 = 16_384;

/// Connections of pods under egress policies whose way is noted at most. One that does not fit goes
/// by what the policies say at each packet.
pub const MAX_EGRESS_FLOWS: u32 = 262_144;

/// Addresses of pods of other nodes a gateway knows at most.
pub const MAX_REMOTE_PODS: u32 = 1 << 17;

/// Key of `EGRESS_ENDS` on gateways that take packets without a tunnel: the tunnel device such
/// packets enter. No number of a rule.
pub const NATIVE_END: u32 = 2;

/// The TTL or hop limit of packets on their way to a gateway without a tunnel. No router forwards such
/// a packet: one that gets to a node which does not take it goes nowhere, and cannot leave under the
/// pod's address.
pub const NATIVE_TTL: u8 = 1;

/// What they have again at the gateway, before it counts as a router itself: what is left of 64, the
/// usual value, behind the pod's node.
pub const NATIVE_TTL_AFTER: u8 = 63;

/// Packets that have less left behind the pod's node take the tunnel, which changes nothing: whoever
/// sends them wants to know who is on the way.
pub const NATIVE_TTL_BEFORE: u8 = 32;

/// Bits of [`AddressEntry::egress_flags`](crate::AddressEntry).
pub mod source_flags {
    /// Gateways know the pod, so that its packets need not say their rule.
    pub const KNOWN_TO_GATEWAYS: u32 = 1;
}

/// Ways out, beside the numbers of rules ([`FIRST_RULE`](crate::nat::FIRST_RULE) and up).
pub mod way {
    /// As if there were no policy.
    pub const PASS: u32 = 0;
    /// A policy selects it and has no gateway.
    pub const NO_GATEWAY: u32 = 1;
    /// A policy may select it: the pod's labels are not known.
    pub const UNDECIDED: u32 = 2;
    /// It has the address of a pod that does not live where the packet came from.
    pub const SPOOFED: u32 = 3;
}

/// Values of `CLUSTER_V4` and `CLUSTER_V6`.
pub mod inside {
    /// A prefix inside the cluster.
    pub const PREFIX: u32 = 1;
    /// An address of a node: the tunnel's packets come from such addresses alone. A pod may send
    /// whatever it likes to the tunnel's port, but not from there.
    pub const NODE: u32 = 2;
    /// A prefix of pods, on nodes that take packets for their gateway without a tunnel: what comes
    /// from there for the world by [`NATIVE_TTL`](super::NATIVE_TTL) is for the gateway, or for nobody.
    pub const PODS: u32 = 3;
}

/// Key of `EGRESS_V4` and `EGRESS_V6` behind the prefix length: the set's number in network order,
/// then the destination. The set's 32 bits count for the length.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EgressPrefix<const WORDS: usize> {
    /// The set's number, big endian.
    pub set: u32,
    /// The destination as words in memory order.
    pub destination: [u32; WORDS],
}
const _: () = assert!(size_of::<EgressPrefix<1>>() == 8);
const _: () = assert!(size_of::<EgressPrefix<4>>() == 20);
// SAFETY: `repr(C)`, words only: no padding.
unsafe impl<const WORDS: usize> Plain for EgressPrefix<WORDS> {}

/// Which packets of a rule go to its gateway without a tunnel. Key of `EGRESS_NATIVE`, whose values
/// say by which neighbour.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EgressNativeKey {
    /// The rule.
    pub rule: u32,
    /// 4 or 6.
    pub ip_version: u32,
}
const _: () = assert!(size_of::<EgressNativeKey>() == 8);
// SAFETY: `repr(C)`, two u32: no padding.
unsafe impl Plain for EgressNativeKey {}

/// An address of a pod of another node. Key of `EGRESS_REMOTE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemotePodKey {
    /// The address, IPv4 in the first word.
    pub address: [u32; 4],
    /// 4 or 6.
    pub ip_version: u32,
}
const _: () = assert!(size_of::<RemotePodKey>() == 20);
// SAFETY: `repr(C)`, five u32: no padding.
unsafe impl Plain for RemotePodKey {}

/// A pod of another node whose packets this node is the gateway of. Value of `EGRESS_REMOTE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemotePod {
    /// The set of destinations, as in [`AddressEntry`](crate::AddressEntry).
    pub set: u32,
    /// The device its node is behind.
    pub ifindex: u32,
}
const _: () = assert!(size_of::<RemotePod>() == 8);
// SAFETY: `repr(C)`, two u32: no padding.
unsafe impl Plain for RemotePod {}

/// A connection of a pod. Key of `EGRESS_FLOWS`. IPv4 addresses are in the first word.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EgressFlowKey {
    /// The pod.
    pub pod: [u32; 4],
    /// The other end.
    pub remote: [u32; 4],
    /// The pod's port, network order; zero for fragments and protocols without ports.
    pub pod_port: u16,
    /// The other end's.
    pub remote_port: u16,
    /// Protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// Zero.
    pub reserved: u16,
}
const _: () = assert!(size_of::<EgressFlowKey>() == 40);
// SAFETY: `repr(C)`; 32 + 2 + 2 + 1 + 1 + 2 = 40: no padding.
unsafe impl Plain for EgressFlowKey {}

/// The way a connection began with. Value of `EGRESS_FLOWS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EgressFlow {
    /// A rule, or [`way::PASS`].
    pub way: u32,
    /// When the pod's last packet passed: see [`tick`](crate::nat::tick).
    pub last_seen: u32,
    /// Bits of [`said`](crate::nat::said): what the pod has said.
    pub said: u32,
}
const _: () = assert!(size_of::<EgressFlow>() == 12);
// SAFETY: `repr(C)`, three u32: no padding.
unsafe impl Plain for EgressFlow {}
