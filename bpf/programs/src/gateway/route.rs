// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The way out of a translated packet, asked once per moment for flows that may differ in nothing
//! but their source ports.

use core::ptr;

use aya_ebpf::programs::TcContext;
use bpf_abi::{
    CachedNextHop, DropReason, FlowKey, ROUTE_CACHE_NANOSECONDS,
    nat::{GATEWAY_ROUTE_ENTRIES, GatewayRoute, NatRule},
};
use bpf_programs::{
    fib::{self, Route, Through},
    packet,
};

use crate::{family::Family, mapping, maps::GATEWAY_ROUTES, work::Work};

/// Raised by the daemon when routes changed: what is older is asked again. A variable and not a map,
/// since a packet reads it.
#[unsafe(no_mangle)]
static mut ROUTE_GENERATION: u64 = 0;

/// Where a packet goes that will have this source and these ports, at this moment of the coarse clock.
#[inline(always)]
pub fn find<F: Family>(
    ctx: &TcContext,
    rule: &NatRule,
    work: &mut Work<F::Address>,
    source: F::Address,
    ports: u32,
    now: u64,
) -> Result<&'static CachedNextHop, DropReason> {
    let (ifindex, through) = if rule.ifindex == 0 {
        (packet::ifindex(ctx), Through::Arrived)
    } else {
        (rule.ifindex, Through::Leaves)
    };
    let header = &work.header;
    work.flow = FlowKey {
        source: F::widen(source),
        destination: F::widen(header.destination),
        ports,
        protocol: header.protocol,
        ip_version: F::VERSION,
        traffic_class: header.traffic_class,
        reserved: 0,
        ifindex,
    };
    ask(ctx, &work.flow, through, now)
}

/// Where a packet goes that came for a pod of another node which the routing table knows the way to.
/// Its ports are left out: what comes from one address for one pod keeps one way.
#[inline(always)]
pub fn to_pod<F: Family>(
    ctx: &TcContext,
    work: &mut Work<F::Address>,
    source: F::Address,
    pod: F::Address,
    protocol: u8,
) -> Result<&'static CachedNextHop, DropReason> {
    work.flow = FlowKey {
        source: F::widen(source),
        destination: F::widen(pod),
        ports: 0,
        protocol,
        ip_version: F::VERSION,
        traffic_class: work.header.traffic_class,
        reserved: 0,
        ifindex: packet::ifindex(ctx),
    };
    ask(ctx, &work.flow, Through::Arrived, mapping::clock())
}

#[inline(always)]
fn ask(
    ctx: &TcContext,
    flow: &FlowKey,
    through: Through,
    now: u64,
) -> Result<&'static CachedNextHop, DropReason> {
    let Some(place) = GATEWAY_ROUTES.get_ptr_mut(flow.hash() & (GATEWAY_ROUTE_ENTRIES - 1)) else {
        return Err(DropReason::NoRoute);
    };
    // SAFETY: a word that only the daemon writes, by a system call.
    let generation = unsafe { ptr::read_volatile(&raw const ROUTE_GENERATION) };
    // SAFETY: points to this CPU's value, and programs on one CPU run one after another.
    let place: &'static mut GatewayRoute = unsafe { &mut *place };
    if place.expires_ns > now && place.generation == generation && place.key.is_same(flow) {
        return Ok(&place.next_hop);
    }
    match fib::ask(ctx, flow, through) {
        Route::Forward(next_hop) => {
            place.expires_ns = now + ROUTE_CACHE_NANOSECONDS;
            place.generation = generation;
            place.key = *flow;
            place.next_hop = next_hop;
            Ok(&place.next_hop)
        }
        Route::Here | Route::Kernel => Err(DropReason::NoRoute),
        Route::Refused(reason) => Err(reason),
    }
}
