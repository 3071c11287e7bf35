// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The shapes of a gateway's maps: an object of its own, with a folder of pins of its own, since
//! few nodes are gateways.

use core::mem::offset_of;

use crate::{
    DropCounter, DropKey, DropReason, MapKind, MapLayout,
    layout::{layout_hash, map},
    map_names as name,
    nat::{
        AnswerLimit, DEFAULT_NAT_ENTRIES, EVENT_BYTES, FragmentEntry, FragmentKey,
        GATEWAY_ROUTE_ENTRIES, GatewayRoute, MAX_FRAGMENTED, MAX_HELD, MAX_NODES,
        MAX_RULE_REFUSALS, MAX_RULES, MAX_SERVED, NatEntry, NatEvent, NatKey, NatRule,
        RuleCounters, ServedPort, TunnelEnd, V4, V6,
    },
};

/// Every map of a gateway. The sizes of the two tables of mappings are the daemon's to choose; the
/// defaults stand here.
pub const GATEWAY_MAPS: &[MapLayout] = &[
    map(
        name::RULES,
        MapKind::Hash,
        4,
        size_of::<NatRule>(),
        MAX_RULES,
    ),
    map(
        name::NAT_V4,
        MapKind::Hash,
        size_of::<NatKey<V4>>(),
        size_of::<NatEntry<V4>>(),
        DEFAULT_NAT_ENTRIES,
    ),
    map(
        name::NAT_V6,
        MapKind::Hash,
        size_of::<NatKey<V6>>(),
        size_of::<NatEntry<V6>>(),
        DEFAULT_NAT_ENTRIES,
    ),
    map(
        name::FRAGMENTS_V4,
        MapKind::LruHash,
        size_of::<FragmentKey<V4>>(),
        size_of::<FragmentEntry<V4>>(),
        MAX_FRAGMENTED,
    ),
    map(
        name::FRAGMENTS_V6,
        MapKind::LruHash,
        size_of::<FragmentKey<V6>>(),
        size_of::<FragmentEntry<V6>>(),
        MAX_FRAGMENTED,
    ),
    map(name::NODE_ADDRESSES, MapKind::Hash, 16, 4, 2 * MAX_NODES),
    map(name::HELD, MapKind::GrowingHash, 16, 4, MAX_HELD),
    map(
        name::SERVED,
        MapKind::GrowingHash,
        size_of::<ServedPort>(),
        4,
        MAX_SERVED,
    ),
    map(
        name::TUNNEL_ENDS,
        MapKind::Array,
        4,
        size_of::<TunnelEnd>(),
        MAX_NODES,
    ),
    map(
        name::RULE_COUNTERS,
        MapKind::PerCpuArray,
        4,
        size_of::<RuleCounters>(),
        MAX_RULES,
    ),
    map(
        name::RULE_REFUSALS,
        MapKind::PerCpuHash,
        size_of::<DropKey>(),
        size_of::<DropCounter>(),
        MAX_RULE_REFUSALS,
    ),
    map(
        name::REFUSALS,
        MapKind::PerCpuArray,
        4,
        size_of::<DropCounter>(),
        DropReason::COUNT,
    ),
    map(
        name::GATEWAY_ROUTES,
        MapKind::PerCpuArray,
        4,
        size_of::<GatewayRoute>(),
        GATEWAY_ROUTE_ENTRIES,
    ),
    map(
        name::ANSWER_LIMIT,
        MapKind::PerCpuArray,
        4,
        size_of::<AnswerLimit>(),
        1,
    ),
    map(name::NAT_EVENTS, MapKind::RingBuf, 0, 0, EVENT_BYTES),
    map(name::EVENTS_LOST, MapKind::PerCpuArray, 4, 8, 1),
    map(name::OWNER, MapKind::Array, 4, 8, 1),
];

/// Raised by hand when the *meaning* of a field changes and its shape does not.
const MEANING: u64 = 1;

/// One number for every shape above.
pub const GATEWAY_LAYOUT_HASH: u64 = layout_hash(MEANING, GATEWAY_MAPS, FIELD_OFFSETS);

/// Offsets of the fields that could be swapped without changing a size.
const FIELD_OFFSETS: &[usize] = &[
    offset_of!(NatKey<V4>, remote),
    offset_of!(NatKey<V4>, local),
    offset_of!(NatKey<V4>, remote_port),
    offset_of!(NatKey<V4>, local_port),
    offset_of!(NatKey<V4>, protocol),
    offset_of!(NatKey<V4>, side),
    offset_of!(NatEntry<V4>, last_seen),
    offset_of!(NatEntry<V4>, rule),
    offset_of!(NatEntry<V4>, said),
    offset_of!(NatEntry<V4>, slot),
    offset_of!(NatEntry<V4>, node),
    offset_of!(NatEntry<V4>, outer),
    offset_of!(NatEntry<V4>, address),
    offset_of!(NatEntry<V4>, port),
    offset_of!(NatRule, ifindex),
    offset_of!(NatRule, flags),
    offset_of!(NatRule, slot),
    offset_of!(NatRule, first_port),
    offset_of!(NatRule, last_port),
    offset_of!(NatRule, count_v4),
    offset_of!(NatRule, count_v6),
    offset_of!(NatRule, v4),
    offset_of!(NatRule, v6),
    offset_of!(TunnelEnd, address),
    offset_of!(TunnelEnd, source),
    offset_of!(TunnelEnd, ifindex),
    offset_of!(TunnelEnd, ip_version),
    offset_of!(TunnelEnd, is_local),
    offset_of!(TunnelEnd, mtu),
    offset_of!(ServedPort, address),
    offset_of!(ServedPort, port),
    offset_of!(ServedPort, protocol),
    offset_of!(FragmentKey<V4>, source),
    offset_of!(FragmentKey<V4>, destination),
    offset_of!(FragmentEntry<V4>, address),
    offset_of!(FragmentEntry<V4>, slot),
    offset_of!(FragmentEntry<V4>, node),
    offset_of!(RuleCounters, out_packets),
    offset_of!(RuleCounters, out_bytes),
    offset_of!(RuleCounters, back_packets),
    offset_of!(RuleCounters, back_bytes),
    offset_of!(RuleCounters, opened),
    offset_of!(NatEvent, remote),
    offset_of!(NatEvent, pod),
    offset_of!(NatEvent, address),
    offset_of!(NatEvent, rule),
    offset_of!(NatEvent, said_out),
    offset_of!(NatEvent, said_back),
    offset_of!(NatEvent, node),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_bytes;

    /// The promise to the operator: a gateway with the default sizes costs at most 168 MiB plus
    /// 4 MiB per CPU.
    #[test]
    fn a_gateways_maps_stay_within_the_memory_budget() {
        const MIB: u64 = 1024 * 1024;
        for cpus in [1, 2, 16, 64, 256] {
            let bytes = memory_bytes(GATEWAY_MAPS, cpus);
            assert!(
                bytes <= 168 * MIB + cpus * 4 * MIB,
                "{cpus} CPUs: {} MiB",
                bytes / MIB
            );
        }
    }

    #[test]
    fn names_fit_into_the_kernel_and_are_unique() {
        for (index, map) in GATEWAY_MAPS.iter().enumerate() {
            assert!(map.name.len() <= 16, "{}", map.name);
            assert!(
                GATEWAY_MAPS[index + 1..]
                    .iter()
                    .all(|other| other.name != map.name)
            );
        }
    }
}
