// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The maps of a gateway. Their shapes are described once more in `bpf_abi::GATEWAY_MAPS`; a test
//! of the loader keeps the two equal.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
    macros::btf_map,
};
use bpf_abi::{
    DropCounter, DropKey, DropReason,
    nat::{
        AnswerLimit, DEFAULT_NAT_ENTRIES, EVENT_BYTES, FragmentEntry, FragmentKey,
        GATEWAY_ROUTE_ENTRIES, GatewayRoute, MAX_FRAGMENTED, MAX_HELD, MAX_NODES,
        MAX_RULE_REFUSALS, MAX_RULES, MAX_SERVED, NatEntry, NatEvent, NatKey, NatRule,
        RuleCounters, ServedPort, TunnelEnd, V4, V6,
    },
};

use crate::work::Work;

const ENTRIES: usize = DEFAULT_NAT_ENTRIES as usize;
const FRAGMENTED: usize = MAX_FRAGMENTED as usize;
const NODES: usize = MAX_NODES as usize;

#[btf_map]
pub static RULES: HashMap<u32, NatRule, { MAX_RULES as usize }> = HashMap::new();

// Their sizes are the daemon's to change; these are the defaults.
#[btf_map]
pub static NAT_V4: HashMap<NatKey<V4>, NatEntry<V4>, ENTRIES> = HashMap::new();

#[btf_map]
pub static NAT_V6: HashMap<NatKey<V6>, NatEntry<V6>, ENTRIES> = HashMap::new();

#[btf_map]
pub static FRAGMENTS_V4: LruHashMap<FragmentKey<V4>, FragmentEntry<V4>, FRAGMENTED> =
    LruHashMap::new();

#[btf_map]
pub static FRAGMENTS_V6: LruHashMap<FragmentKey<V6>, FragmentEntry<V6>, FRAGMENTED> =
    LruHashMap::new();

/// Outer address of a node's packets → its index.
#[btf_map]
pub static NODE_ADDRESSES: HashMap<V6, u32, { 2 * NODES }> = HashMap::new();

/// Addresses that Causeway holds for its pods: nobody on this node is behind them.
#[btf_map]
pub static HELD: HashMap<V6, u32, { MAX_HELD as usize }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// Ports of such addresses at which something else is served.
#[btf_map]
pub static SERVED: HashMap<
    ServedPort,
    u32,
    { MAX_SERVED as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// Index of a node → where the tunnel to it ends.
#[btf_map]
pub static TUNNEL_ENDS: Array<TunnelEnd, NODES> = Array::new();

#[btf_map]
pub static RULE_COUNTERS: PerCpuArray<RuleCounters, { MAX_RULES as usize }> = PerCpuArray::new();

#[btf_map]
pub static RULE_REFUSALS: PerCpuHashMap<
    DropKey,
    DropCounter,
    { MAX_RULE_REFUSALS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = PerCpuHashMap::new();

#[btf_map]
pub static REFUSALS: PerCpuArray<DropCounter, { DropReason::COUNT as usize }> = PerCpuArray::new();

#[btf_map]
pub static GATEWAY_ROUTES: PerCpuArray<GatewayRoute, { GATEWAY_ROUTE_ENTRIES as usize }> =
    PerCpuArray::new();

#[btf_map]
pub static ANSWER_LIMIT: PerCpuArray<AnswerLimit, 1> = PerCpuArray::new();

#[btf_map]
pub static NAT_EVENTS: RingBuf<NatEvent, { EVENT_BYTES as usize }> = RingBuf::new();

/// Events that found the buffer full.
#[btf_map]
pub static EVENTS_LOST: PerCpuArray<u64, 1> = PerCpuArray::new();

/// See `work`. Not pinned: nothing in it outlives a packet.
#[btf_map]
pub static WORK_V4: PerCpuArray<Work<V4>, 1> = PerCpuArray::new();

/// See `work`.
#[btf_map]
pub static WORK_V6: PerCpuArray<Work<V6>, 1> = PerCpuArray::new();

// Not read by any program; it is here so that it is made and pinned with the others.
#[btf_map]
pub static OWNER: Array<u64, 1> = Array::new();
