// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The route cache: what was found out about a flow towards the fabric, kept for a moment: that its
//! source address is believed, that its destination is no local endpoint, and the answer of the
//! kernel's routing table.
//!
//! `bpf_fib_lookup` walks rules and tables for each packet; its answer for one flow changes when a
//! route, a link or a rule changes, and the loader raises the generation whenever it changes an
//! endpoint. An entry is used only while the generation it was made under is
//! the current one and it is younger than [`ROUTE_CACHE_NANOSECONDS`]. The first lets a live
//! daemon make a change effective at once; the second bounds how wrong the cache can be when the
//! daemon is dead and the kernel removes routes of a failed link by itself.

use crate::Plain;

/// How long an answer of the routing table is believed, at most. One lookup per flow and CPU in
/// that time costs nothing measurable, and a failed link is noticed faster than BFD at 3 × 50 ms.
pub const ROUTE_CACHE_NANOSECONDS: u64 = 100_000_000;

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

impl FlowKey {
    /// A number to choose a place in the cache by. Quick rather than strong: a sender that aims at
    /// collisions only makes its own packets as slow as they are without a cache.
    #[must_use]
    #[inline(always)]
    pub fn hash(&self) -> u32 {
        let source = self.source[0] ^ self.source[1] ^ self.source[2] ^ self.source[3];
        let destination =
            self.destination[0] ^ self.destination[1] ^ self.destination[2] ^ self.destination[3];
        // Multiplicative hashing, one odd constant per field (the fractions of the golden ratio and
        // of two square roots); the well mixed bits of a product are the high ones.
        let hash = u64::from(source).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ u64::from(destination).wrapping_mul(0x6a09_e667_f3bc_c909)
            ^ (u64::from(self.ports) << 8 | u64::from(self.protocol))
                .wrapping_mul(0xbb67_ae85_84ca_a73b);
        (hash >> 40) as u32
    }

    /// Whether both are the same flow. Written out, since a comparison of byte strings is a call
    /// and a loop in eBPF.
    #[must_use]
    #[inline(always)]
    pub fn is_same(&self, other: &FlowKey) -> bool {
        self.source[0] == other.source[0]
            && self.destination[0] == other.destination[0]
            && self.ports == other.ports
            && self.protocol == other.protocol
            && self.ip_version == other.ip_version
            && self.traffic_class == other.traffic_class
            && self.ifindex == other.ifindex
            && self.source[3] == other.source[3]
            && self.destination[3] == other.destination[3]
            && self.source[1] == other.source[1]
            && self.source[2] == other.source[2]
            && self.destination[1] == other.destination[1]
            && self.destination[2] == other.destination[2]
    }
}

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
    /// Until when the answer may be used, by the coarse monotonic clock.
    pub expires_ns: u64,
    /// Generation under which it was asked.
    pub generation: u64,
    /// The flow it belongs to.
    pub key: FlowKey,
    /// The answer.
    pub next_hop: CachedNextHop,
    /// Slot of the endpoint that sent the flow.
    pub slot: u32,
    /// The endpoint's MAC address, which every packet must carry as its source.
    pub pod_mac: [u8; 6],
    /// MAC address of the host-side device, which every packet must carry as its destination.
    pub host_mac: [u8; 6],
}
const _: () = assert!(size_of::<RouteCacheEntry>() == 104);
// SAFETY: `repr(C)`, 16 + 44 + 28 + 4 + 12 = 104, a multiple of 8: no padding.
unsafe impl Plain for RouteCacheEntry {}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(source: u32, destination: u32, ports: u32) -> FlowKey {
        FlowKey {
            source: [source, 0, 0, 0],
            destination: [destination, 0, 0, 0],
            ports,
            protocol: 6,
            ip_version: 4,
            traffic_class: 0,
            reserved: 0,
            ifindex: 3,
        }
    }

    #[test]
    fn flows_differ_when_any_field_differs() {
        let flow = flow(1, 2, 3);
        assert!(flow.is_same(&flow.clone()));
        let mut others = [flow; 13];
        for word in 0..4 {
            others[word].source[word] ^= 1;
            others[4 + word].destination[word] ^= 1;
        }
        others[8].ports ^= 1;
        others[9].protocol ^= 1;
        others[10].ip_version = 6;
        others[11].traffic_class = 4;
        others[12].ifindex ^= 1;
        for other in others {
            assert!(!flow.is_same(&other), "{other:?}");
        }
    }

    #[test]
    fn flows_spread_over_the_cache() {
        let mut places = [0_u32; 1024];
        for host in 0..32_u32 {
            for port in 0..32_u32 {
                let key = flow(
                    0x0a00_f40a,
                    0x0a00_f400 + (host << 24),
                    0x5000_0000 | port << 8,
                );
                places[(key.hash() & 1023) as usize] += 1;
            }
        }
        let used = places.iter().filter(|count| **count > 0).count();
        // 1024 flows thrown at 1024 places at random use 647 of them (1 - 1/e).
        assert!(used > 550, "{used}");
    }
}
