// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Where the kernel's routing table sends a packet, asked once per flow and moment.
//!
//! The cache is a direct-mapped array per CPU: a colliding flow simply takes the place. See
//! `bpf_abi::RouteCacheEntry` for what keeps it right.

use aya_ebpf::{helpers::generated::bpf_ktime_get_coarse_ns, programs::TcContext};
use bpf_abi::{
    AddressEntry, FlowKey, ROUTE_CACHE_ENTRIES, ROUTE_CACHE_NANOSECONDS, RouteCacheEntry,
};
use bpf_programs::{
    fib::{self, Route, Through},
    packet::{self, MacPair},
};

use crate::maps::{ROUTE_CACHE, ROUTE_GENERATION};

/// One flow's place in the cache.
pub struct Place {
    entry: Option<*mut RouteCacheEntry>,
    generation: u64,
    now: u64,
}

impl Place {
    /// Finds the place of a flow.
    #[inline(always)]
    pub fn of(flow: &FlowKey) -> Self {
        Self {
            entry: ROUTE_CACHE.get_ptr_mut(flow.hash() & (ROUTE_CACHE_ENTRIES - 1)),
            generation: ROUTE_GENERATION.get(0).copied().unwrap_or_default(),
            // SAFETY: a helper without arguments.
            now: unsafe { bpf_ktime_get_coarse_ns() },
        }
    }

    /// What is known about the flow, if this frame has the MAC addresses it must have.
    #[inline(always)]
    pub fn known(&self, flow: &FlowKey, macs: MacPair) -> Option<&'static RouteCacheEntry> {
        // SAFETY: points to this CPU's value, and programs on one CPU run one after another.
        let entry: &'static RouteCacheEntry = unsafe { &*self.entry? };
        (entry.expires_ns > self.now
            && entry.generation == self.generation
            && entry.key.is_same(flow)
            && packet::is_same_mac(macs.source, packet::mac(&entry.pod_mac))
            && packet::is_same_mac(macs.destination, packet::mac(&entry.host_mac)))
        .then_some(entry)
    }

    /// Asks the routing table, and remembers where it says to forward to. The sender is believed,
    /// and the destination is no local endpoint.
    #[inline(always)]
    pub fn find(&self, ctx: &TcContext, flow: &FlowKey, sender: &AddressEntry) -> Route {
        let route = fib::ask(ctx, flow, Through::Arrived);
        // Without ports a flow is all that two addresses say to each other, and egress policies let
        // through only what answers.
        let is_told_apart = sender.egress_set == 0 || flow.ports != 0;
        if let (Route::Forward(next_hop), Some(entry), true) = (&route, self.entry, is_told_apart) {
            let fresh = RouteCacheEntry {
                expires_ns: self.now + ROUTE_CACHE_NANOSECONDS,
                generation: self.generation,
                key: *flow,
                next_hop: *next_hop,
                slot: sender.slot,
                pod_mac: sender.pod_mac,
                host_mac: sender.host_mac,
            };
            // SAFETY: as in `known`.
            unsafe { *entry = fresh };
        }
        route
    }
}
