// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The maps. Their shapes are described once more in `bpf_abi::MAPS`; a test of the loader keeps
//! the two equal.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, PerCpuHashMap},
    macros::btf_map,
};
use bpf_abi::{
    AddressEntry, CachedNextHop, DeviceEntry, DropCounter, DropKey, DropReason, EndpointCounters,
    MAX_ADDRESSES, MAX_ENDPOINT_REASONS, MAX_ENDPOINTS, ROUTE_CACHE_ENTRIES, RouteCacheEntry,
    egress::{
        EgressFlow, EgressFlowKey, EgressNativeKey, EgressPrefix, MAX_CLUSTER_PREFIXES,
        MAX_EGRESS_FLOWS, MAX_EGRESS_PREFIXES, MAX_EGRESS_RULES, MAX_REMOTE_PODS, RemotePod,
        RemotePodKey,
    },
    nat::{AnswerLimit, TunnelEnd},
};

const ADDRESSES: usize = MAX_ADDRESSES as usize;
const ENDPOINTS: usize = MAX_ENDPOINTS as usize;
const REASONS: usize = DropReason::COUNT as usize;

#[btf_map]
pub static ENDPOINTS_V4: HashMap<[u8; 4], AddressEntry, ADDRESSES> = HashMap::new();

#[btf_map]
pub static ENDPOINTS_V6: HashMap<[u8; 16], AddressEntry, ADDRESSES> = HashMap::new();

#[btf_map]
pub static DEVICES: HashMap<u32, DeviceEntry, ENDPOINTS> = HashMap::new();

#[btf_map]
pub static COUNTERS: PerCpuArray<EndpointCounters, ENDPOINTS> = PerCpuArray::new();

#[btf_map]
pub static ENDPOINT_DROPS: PerCpuHashMap<
    DropKey,
    DropCounter,
    { ENDPOINTS * MAX_ENDPOINT_REASONS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = PerCpuHashMap::new();

#[btf_map]
pub static DROPS: PerCpuArray<DropCounter, REASONS> = PerCpuArray::new();

#[btf_map]
pub static ROUTE_CACHE: PerCpuArray<RouteCacheEntry, { ROUTE_CACHE_ENTRIES as usize }> =
    PerCpuArray::new();

#[btf_map]
pub static ROUTE_GENERATION: Array<u64, 1> = Array::new();

#[btf_map]
pub static EGRESS_V4: LpmTrie<EgressPrefix<1>, u32, { MAX_EGRESS_PREFIXES as usize }> =
    LpmTrie::new();

#[btf_map]
pub static EGRESS_V6: LpmTrie<EgressPrefix<4>, u32, { MAX_EGRESS_PREFIXES as usize }> =
    LpmTrie::new();

#[btf_map]
pub static CLUSTER_V4: LpmTrie<[u32; 1], u32, { MAX_CLUSTER_PREFIXES as usize }> = LpmTrie::new();

#[btf_map]
pub static CLUSTER_V6: LpmTrie<[u32; 4], u32, { MAX_CLUSTER_PREFIXES as usize }> = LpmTrie::new();

#[btf_map]
pub static EGRESS_ENDS: HashMap<
    u32,
    TunnelEnd,
    { MAX_EGRESS_RULES as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

#[btf_map]
pub static EGRESS_NATIVE: HashMap<
    EgressNativeKey,
    CachedNextHop,
    { 2 * MAX_EGRESS_RULES as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

#[btf_map]
pub static EGRESS_REMOTE: HashMap<
    RemotePodKey,
    RemotePod,
    { MAX_REMOTE_PODS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

#[btf_map]
pub static EGRESS_FLOWS: HashMap<
    EgressFlowKey,
    EgressFlow,
    { MAX_EGRESS_FLOWS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// Not pinned: each load may say as much as the kernel's own limit allows.
#[btf_map]
pub static ANSWER_LIMIT: PerCpuArray<AnswerLimit, 1> = PerCpuArray::new();

// Not read by any program; it is here so that it is made and pinned with the others.
#[btf_map]
pub static OWNER: Array<u64, 1> = Array::new();
