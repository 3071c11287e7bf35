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
pub const MAX_EGRESS_FLOWS: u32 = 65_536;

/// Ways out, beside the numbers of rules ([`FIRST_RULE`](crate::nat::FIRST_RULE) and up).
pub mod way {
    /// As if there were no policy.
    pub const PASS: u32 = 0;
    /// A policy selects it and has no gateway.
    pub const NO_GATEWAY: u32 = 1;
    /// A policy may select it: the pod's labels are not known.
    pub const UNDECIDED: u32 = 2;
}

/// Values of `CLUSTER_V4` and `CLUSTER_V6`.
pub mod inside {
    /// A prefix inside the cluster.
    pub const PREFIX: u32 = 1;
    /// An address of a node: the tunnel's packets come from such addresses alone. A pod may send
    /// whatever it likes to the tunnel's port, but not from there.
    pub const NODE: u32 = 2;
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
