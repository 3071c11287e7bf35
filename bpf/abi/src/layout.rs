// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every map's shape in one table, and the one number that stands for all of them.
//!
//! A pinned map is taken over by the next daemon as it is; neither the kernel nor the loader's
//! library compares its shape with what the new programs expect. So the pins live in a folder
//! named by [`LAYOUT_HASH`]: daemons that agree on every shape share it, others never meet.

use crate::{
    AddressEntry, CachedNextHop, DeviceEntry, DropCounter, DropKey, DropReason, EndpointCounters,
    FlowKey, MAX_ADDRESSES, MAX_ENDPOINT_REASONS, MAX_ENDPOINTS, ROUTE_CACHE_ENTRIES,
    RouteCacheEntry,
    egress::{
        EgressFlow, EgressFlowKey, EgressNativeKey, EgressPrefix, MAX_CLUSTER_PREFIXES,
        MAX_EGRESS_FLOWS, MAX_EGRESS_PREFIXES, MAX_EGRESS_RULES, MAX_REMOTE_PODS, RemotePod,
        RemotePodKey,
    },
    map_names as name,
    nat::TunnelEnd,
};

/// Marks types that may cross the boundary as bytes.
///
/// # Safety
/// The type is `repr(C)`, has no padding, and every bit pattern is a value of it.
pub unsafe trait Plain: Copy + 'static {}

/// Kinds of maps in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MapKind {
    /// Preallocated hash.
    Hash = 1,
    /// Array.
    Array = 2,
    /// Array with a value per CPU.
    PerCpuArray = 3,
    /// Hash with a value per CPU, allocated as it grows.
    PerCpuHash = 4,
    /// Preallocated hash that makes room by removing what was used least lately.
    LruHash = 5,
    /// Longest-prefix-match trie, allocated as it grows.
    LpmTrie = 6,
    /// Ring buffer; its entries are bytes.
    RingBuf = 7,
    /// Hash, allocated as it grows.
    GrowingHash = 8,
}

/// The shape of one map.
#[derive(Clone, Copy, Debug)]
pub struct MapLayout {
    /// Its name in the object file.
    pub name: &'static str,
    /// Its kind.
    pub kind: MapKind,
    /// Bytes of a key.
    pub key_bytes: u32,
    /// Bytes of a value (on one CPU).
    pub value_bytes: u32,
    /// Entries at most.
    pub max_entries: u32,
}

/// Every map. A test of the loader compares this table with what the kernel made of the object.
pub const MAPS: &[MapLayout] = &[
    map(
        name::ENDPOINTS_V4,
        MapKind::Hash,
        4,
        size_of::<AddressEntry>(),
        MAX_ADDRESSES,
    ),
    map(
        name::ENDPOINTS_V6,
        MapKind::Hash,
        16,
        size_of::<AddressEntry>(),
        MAX_ADDRESSES,
    ),
    map(
        name::DEVICES,
        MapKind::Hash,
        4,
        size_of::<DeviceEntry>(),
        MAX_ENDPOINTS,
    ),
    map(
        name::COUNTERS,
        MapKind::PerCpuArray,
        4,
        size_of::<EndpointCounters>(),
        MAX_ENDPOINTS,
    ),
    map(
        name::ENDPOINT_DROPS,
        MapKind::PerCpuHash,
        size_of::<DropKey>(),
        size_of::<DropCounter>(),
        MAX_ENDPOINTS * MAX_ENDPOINT_REASONS,
    ),
    map(
        name::DROPS,
        MapKind::PerCpuArray,
        4,
        size_of::<DropCounter>(),
        DropReason::COUNT,
    ),
    map(
        name::ROUTE_CACHE,
        MapKind::PerCpuArray,
        4,
        size_of::<RouteCacheEntry>(),
        ROUTE_CACHE_ENTRIES,
    ),
    map(name::ROUTE_GENERATION, MapKind::Array, 4, 8, 1),
    map(
        name::EGRESS_V4,
        MapKind::LpmTrie,
        4 + size_of::<EgressPrefix<1>>(),
        4,
        MAX_EGRESS_PREFIXES,
    ),
    map(
        name::EGRESS_V6,
        MapKind::LpmTrie,
        4 + size_of::<EgressPrefix<4>>(),
        4,
        MAX_EGRESS_PREFIXES,
    ),
    map(
        name::CLUSTER_V4,
        MapKind::LpmTrie,
        8,
        4,
        MAX_CLUSTER_PREFIXES,
    ),
    map(
        name::CLUSTER_V6,
        MapKind::LpmTrie,
        20,
        4,
        MAX_CLUSTER_PREFIXES,
    ),
    map(
        name::EGRESS_ENDS,
        MapKind::GrowingHash,
        4,
        size_of::<TunnelEnd>(),
        MAX_EGRESS_RULES,
    ),
    map(
        name::EGRESS_NATIVE,
        MapKind::GrowingHash,
        size_of::<EgressNativeKey>(),
        size_of::<CachedNextHop>(),
        2 * MAX_EGRESS_RULES,
    ),
    map(
        name::EGRESS_REMOTE,
        MapKind::GrowingHash,
        size_of::<RemotePodKey>(),
        size_of::<RemotePod>(),
        MAX_REMOTE_PODS,
    ),
    map(
        name::EGRESS_FLOWS,
        MapKind::GrowingHash,
        size_of::<EgressFlowKey>(),
        size_of::<EgressFlow>(),
        MAX_EGRESS_FLOWS,
    ),
    map(name::OWNER, MapKind::Array, 4, 8, 1),
];

/// Raised by hand when the *meaning* of a field changes and its shape does not.
const MEANING: u64 = 1;

/// One number for every shape above: FNV-1a over names, kinds, sizes and field offsets.
pub const LAYOUT_HASH: u64 = layout_hash(MEANING, MAPS, FIELD_OFFSETS);

/// Bytes the kernel holds for all maps when full, on a machine with `cpus` possible CPUs. An
/// estimate: entry headers of hashes are counted with 48 bytes and places with 16, as in Linux 6.18.
#[must_use]
pub fn memory_bytes(maps: &[MapLayout], cpus: u64) -> u64 {
    const HASH_ENTRY_HEADER: u64 = 48;
    const HASH_PLACE: u64 = 16;
    const TRIE_NODE_HEADER: u64 = 64;
    let round = |bytes: u32| u64::from(bytes).next_multiple_of(8);
    maps.iter()
        .map(|m| {
            let entries = u64::from(m.max_entries);
            let places = HASH_PLACE * entries.next_power_of_two();
            let (key, value) = (round(m.key_bytes), round(m.value_bytes));
            match m.kind {
                MapKind::Hash | MapKind::LruHash | MapKind::GrowingHash => {
                    places + entries * (HASH_ENTRY_HEADER + key + value)
                }
                MapKind::PerCpuHash => {
                    places + entries * (HASH_ENTRY_HEADER + key + 8 + cpus * value)
                }
                MapKind::LpmTrie => entries * (TRIE_NODE_HEADER + key + value),
                MapKind::RingBuf => entries,
                MapKind::Array => entries * value,
                MapKind::PerCpuArray => entries * (8 + cpus * value),
            }
        })
        .sum()
}

pub(crate) const fn map(
    name: &'static str,
    kind: MapKind,
    key_bytes: usize,
    value_bytes: usize,
    max_entries: u32,
) -> MapLayout {
    MapLayout {
        name,
        kind,
        key_bytes: key_bytes as u32,
        value_bytes: value_bytes as u32,
        max_entries,
    }
}

pub(crate) const fn layout_hash(meaning: u64, maps: &[MapLayout], offsets: &[usize]) -> u64 {
    let mut hash = mix(0xcbf2_9ce4_8422_2325, meaning);
    let mut index = 0;
    while index < maps.len() {
        let map = &maps[index];
        let name = map.name.as_bytes();
        let mut at = 0;
        while at < name.len() {
            hash = mix(hash, name[at] as u64);
            at += 1;
        }
        hash = mix(hash, map.kind as u64);
        hash = mix(hash, map.key_bytes as u64);
        hash = mix(hash, map.value_bytes as u64);
        hash = mix(hash, map.max_entries as u64);
        index += 1;
    }
    let mut index = 0;
    while index < offsets.len() {
        hash = mix(hash, offsets[index] as u64);
        index += 1;
    }
    hash
}

/// Offsets of the fields that could be swapped without changing a size.
const FIELD_OFFSETS: &[usize] = &[
    core::mem::offset_of!(AddressEntry, ifindex),
    core::mem::offset_of!(AddressEntry, slot),
    core::mem::offset_of!(AddressEntry, mtu),
    core::mem::offset_of!(AddressEntry, pod_mac),
    core::mem::offset_of!(AddressEntry, host_mac),
    core::mem::offset_of!(AddressEntry, egress_set),
    core::mem::offset_of!(AddressEntry, egress_flags),
    core::mem::offset_of!(EgressNativeKey, rule),
    core::mem::offset_of!(EgressNativeKey, ip_version),
    core::mem::offset_of!(RemotePodKey, address),
    core::mem::offset_of!(RemotePodKey, ip_version),
    core::mem::offset_of!(RemotePod, set),
    core::mem::offset_of!(RemotePod, ifindex),
    core::mem::offset_of!(EgressPrefix<1>, set),
    core::mem::offset_of!(EgressPrefix<1>, destination),
    core::mem::offset_of!(EgressFlowKey, pod),
    core::mem::offset_of!(EgressFlowKey, remote),
    core::mem::offset_of!(EgressFlowKey, pod_port),
    core::mem::offset_of!(EgressFlowKey, remote_port),
    core::mem::offset_of!(EgressFlowKey, protocol),
    core::mem::offset_of!(EgressFlowKey, ip_version),
    core::mem::offset_of!(EgressFlow, way),
    core::mem::offset_of!(EgressFlow, last_seen),
    core::mem::offset_of!(EgressFlow, said),
    core::mem::offset_of!(TunnelEnd, address),
    core::mem::offset_of!(TunnelEnd, source),
    core::mem::offset_of!(TunnelEnd, ifindex),
    core::mem::offset_of!(TunnelEnd, ip_version),
    core::mem::offset_of!(TunnelEnd, is_local),
    core::mem::offset_of!(TunnelEnd, mtu),
    core::mem::offset_of!(DeviceEntry, endpoint_id),
    core::mem::offset_of!(DeviceEntry, slot),
    core::mem::offset_of!(DeviceEntry, mtu),
    core::mem::offset_of!(DeviceEntry, pod_mac),
    core::mem::offset_of!(DeviceEntry, host_mac),
    core::mem::offset_of!(EndpointCounters, tx_packets),
    core::mem::offset_of!(EndpointCounters, tx_bytes),
    core::mem::offset_of!(EndpointCounters, rx_packets),
    core::mem::offset_of!(EndpointCounters, rx_bytes),
    core::mem::offset_of!(EndpointCounters, tx_kernel_packets),
    core::mem::offset_of!(DropKey, slot),
    core::mem::offset_of!(DropKey, reason),
    core::mem::offset_of!(DropCounter, packets),
    core::mem::offset_of!(DropCounter, bytes),
    core::mem::offset_of!(FlowKey, source),
    core::mem::offset_of!(FlowKey, destination),
    core::mem::offset_of!(FlowKey, ports),
    core::mem::offset_of!(FlowKey, protocol),
    core::mem::offset_of!(FlowKey, ip_version),
    core::mem::offset_of!(FlowKey, traffic_class),
    core::mem::offset_of!(FlowKey, ifindex),
    core::mem::offset_of!(CachedNextHop, ifindex),
    core::mem::offset_of!(CachedNextHop, family),
    core::mem::offset_of!(CachedNextHop, address),
    core::mem::offset_of!(CachedNextHop, mtu),
    core::mem::offset_of!(RouteCacheEntry, expires_ns),
    core::mem::offset_of!(RouteCacheEntry, generation),
    core::mem::offset_of!(RouteCacheEntry, key),
    core::mem::offset_of!(RouteCacheEntry, next_hop),
    core::mem::offset_of!(RouteCacheEntry, slot),
    core::mem::offset_of!(RouteCacheEntry, pod_mac),
    core::mem::offset_of!(RouteCacheEntry, host_mac),
];

const fn mix(mut hash: u64, value: u64) -> u64 {
    let bytes = value.to_le_bytes();
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise to the operator: the maps of a node cost at most 3 MiB plus 512 KiB per CPU, and
    /// up to 64 MiB more as egress policies, the connections under them and the pods of other nodes
    /// fill theirs.
    #[test]
    fn all_maps_together_stay_within_the_memory_budget() {
        const KIB: u64 = 1024;
        let is_growing = |kind| matches!(kind, MapKind::LpmTrie | MapKind::GrowingHash);
        for cpus in [1, 2, 16, 64, 256] {
            let (mut growing, mut fixed) = (0, 0);
            for map in MAPS {
                let bytes = memory_bytes(core::slice::from_ref(map), cpus);
                *if is_growing(map.kind) {
                    &mut growing
                } else {
                    &mut fixed
                } += bytes;
            }
            assert!(
                fixed <= 3 * KIB * KIB + cpus * 512 * KIB,
                "{cpus} CPUs: {} KiB",
                fixed / KIB
            );
            assert!(growing <= 64 * KIB * KIB, "{} KiB", growing / KIB);
        }
    }

    #[test]
    fn map_names_fit_into_the_kernel_and_are_unique() {
        for (index, map) in MAPS.iter().enumerate() {
            assert!(map.name.len() <= 16, "{}", map.name);
            assert!(MAPS[index + 1..].iter().all(|other| other.name != map.name));
        }
    }

    #[test]
    fn the_route_cache_can_be_indexed_by_mask() {
        assert!(ROUTE_CACHE_ENTRIES.is_power_of_two());
    }

    #[test]
    fn the_hash_depends_on_every_number() {
        let base = mix(mix(1, 2), 3);
        assert_ne!(base, mix(mix(1, 3), 2));
        assert_ne!(base, mix(mix(1, 2), 4));
        assert_ne!(LAYOUT_HASH, 0);
    }
}
