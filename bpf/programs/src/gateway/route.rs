// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The way out of a translated packet, asked once per flow and moment.

use aya_ebpf::{helpers::generated::bpf_ktime_get_coarse_ns, programs::TcContext};
use bpf_abi::{
    CachedNextHop, DropReason, FlowKey, ROUTE_CACHE_ENTRIES, ROUTE_CACHE_NANOSECONDS,
    nat::GatewayRoute,
};
use bpf_programs::{
    fib::{self, Route, Through},
    packet,
};

use crate::{
    family::{Family, Header},
    maps::{GATEWAY_ROUTES, ROUTE_GENERATION},
};

/// The translated end of a packet that leaves.
pub struct Translated<A> {
    pub address: A,
    /// Its port and the world's as they will be in the packet, or zero.
    pub ports: [u16; 2],
}

/// Where a packet goes that has got its new source.
#[inline(never)]
pub fn find<F: Family>(
    ctx: &TcContext,
    rule_ifindex: u32,
    header: &Header<F::Address>,
    translated: &Translated<F::Address>,
) -> Result<CachedNextHop, DropReason> {
    let (ifindex, through) = if rule_ifindex == 0 {
        (packet::ifindex(ctx), Through::Arrived)
    } else {
        (rule_ifindex, Through::Leaves)
    };
    let [own, remote] = translated.ports;
    let flow = FlowKey {
        source: F::widen(translated.address),
        destination: F::widen(header.destination),
        ports: u32::from(own) | u32::from(remote) << 16,
        protocol: header.protocol,
        ip_version: F::VERSION,
        traffic_class: header.traffic_class,
        reserved: 0,
        ifindex,
    };
    let place = GATEWAY_ROUTES.get_ptr_mut(flow.hash() & (ROUTE_CACHE_ENTRIES - 1));
    let generation = ROUTE_GENERATION.get(0).copied().unwrap_or_default();
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    if let Some(place) = place {
        // SAFETY: points to this CPU's value, and programs on one CPU run one after another.
        let known = unsafe { &*place };
        if known.expires_ns > now && known.generation == generation && known.key.is_same(&flow) {
            return Ok(known.next_hop);
        }
    }
    match fib::ask(ctx, &flow, through) {
        Route::Forward(next_hop) => {
            if let Some(place) = place {
                let fresh = GatewayRoute {
                    expires_ns: now + ROUTE_CACHE_NANOSECONDS,
                    generation,
                    key: flow,
                    next_hop,
                };
                // SAFETY: as above.
                unsafe { *place = fresh };
            }
            Ok(next_hop)
        }
        Route::Kernel => Err(DropReason::NoRoute),
        Route::Refused(reason) => Err(reason),
    }
}
