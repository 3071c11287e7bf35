// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The route cache: answers of the kernel's routing table, kept for a moment.
//!
//! `bpf_fib_lookup` walks rules and tables for each packet; its answer for one flow changes when a
//! route, a link or a rule changes. An entry is used only while the generation it was made under is
//! the current one and it is younger than [`ROUTE_CACHE_MILLISECONDS`]. The first lets a live
//! daemon make a change effective at once; the second bounds how wrong the cache can be when the
//! daemon is dead and the kernel removes routes of a failed link by itself.

use crate::Plain;

/// How long an answer of the routing table is believed, at most. One lookup per flow and CPU in
/// that time costs nothing measurable, and a failed link is noticed faster than BFD at 3 × 50 ms.
pub const ROUTE_CACHE_MILLISECONDS: u64 = 100;

/// What selects a path: the fields the kernel hashes for ECMP at layer 4. IPv4 addresses are in
/// the first four bytes, the rest zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowKey {
    /// Source address.
    pub source: [u32; 4],
    /// Destination address.
    pub destination: [u32; 4],
    /// Source port in the low half of memory, destination port in the high one, network order;
    /// zero for fragments and protocols without ports.
    pub ports: u32,
    /// IP protocol number of the payload.
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// Traffic class or TOS, since rules may select by it.
    pub traffic_class: u8,
    /// Zero.
    pub reserved: u8,
    /// Device the packet came in by, since rules may select by it.
    pub ifindex: u32,
}
const _: () = assert!(size_of::<FlowKey>() == 44);
// SAFETY: `repr(C)`, 32 + 4 + 4 * 1 + 4 = 44: no padding.
unsafe impl Plain for FlowKey {}

/// Where a packet goes: device and neighbour.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CachedNextHop {
    /// Outgoing device.
    pub ifindex: u32,
    /// `AF_INET` or `AF_INET6`: the family of the *neighbour*, which for an IPv4 packet may be
    /// IPv6 (RFC 8950).
    pub family: u32,
    /// Address of the neighbour; IPv4 in the first word.
    pub address: [u32; 4],
    /// Largest IP packet for this route, in bytes.
    pub mtu: u32,
}
const _: () = assert!(size_of::<CachedNextHop>() == 28);
// SAFETY: `repr(C)`, seven u32: no padding.
unsafe impl Plain for CachedNextHop {}

/// One entry of `ROUTE_CACHE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteCacheEntry {
    /// Until when the answer may be used, in jiffies.
    pub expires_jiffies: u64,
    /// Generation under which it was asked.
    pub generation: u64,
    /// The flow it belongs to.
    pub key: FlowKey,
    /// The answer.
    pub next_hop: CachedNextHop,
}
const _: () = assert!(size_of::<RouteCacheEntry>() == 88);
// SAFETY: `repr(C)`, 16 + 44 + 28 = 88, a multiple of 8: no padding.
unsafe impl Plain for RouteCacheEntry {}
