// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Counting. Every map here has a value per CPU, so plain additions are enough.

use aya_ebpf::{bindings::BPF_NOEXIST, programs::TcContext};
use bpf_abi::{DropCounter, DropKey, EndpointCounters};
use bpf_programs::packet;

use crate::{
    Refusal,
    maps::{COUNTERS, DEVICES, DROPS, ENDPOINT_DROPS},
};

/// Who takes an accepted packet on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Taker {
    /// These programs.
    Programs,
    /// The kernel.
    Kernel,
}

/// A packet of the endpoint was accepted.
#[inline(always)]
pub fn sent(ctx: &TcContext, slot: u32, taker: Taker) {
    with_counters(slot, |counters| {
        counters.tx_packets += 1;
        counters.tx_bytes += u64::from(ctx.len());
        counters.tx_kernel_packets += u64::from(taker == Taker::Kernel);
    });
}

/// A packet goes into the endpoint.
#[inline(always)]
pub fn received(ctx: &TcContext, slot: u32) {
    with_counters(slot, |counters| {
        counters.rx_packets += 1;
        counters.rx_bytes += u64::from(ctx.len());
    });
}

/// The kernel delivers a packet to the pod behind this device.
#[inline(always)]
pub fn delivered_by_kernel(ctx: &TcContext) {
    // SAFETY: the reference is used before anything could change the map on this CPU; a
    // concurrent removal by the loader leaves readable memory (the element is reused, not freed),
    // at worst one packet is counted for another slot.
    if let Some(device) = unsafe { DEVICES.get(packet::ifindex(ctx)) } {
        received(ctx, device.slot);
    }
}

/// A packet was refused.
#[inline(always)]
pub fn refused(ctx: &TcContext, refusal: &Refusal) {
    let reason = u32::from(refusal.reason.number());
    let bytes = u64::from(ctx.len());
    if let Some(total) = DROPS.get_ptr_mut(reason) {
        // SAFETY: points to this CPU's value, which only this program touches while it runs.
        let total = unsafe { &mut *total };
        total.packets += 1;
        total.bytes += bytes;
    }
    let Some(slot) = refusal.slot else { return };
    let key = DropKey { slot, reason };
    match ENDPOINT_DROPS.get_ptr_mut(key) {
        Some(counter) => {
            // SAFETY: as above.
            let counter = unsafe { &mut *counter };
            counter.packets += 1;
            counter.bytes += bytes;
        }
        None => {
            // The first drop of this kind. Full or raced: the total above has it all the same.
            let first = DropCounter { packets: 1, bytes };
            let _ = ENDPOINT_DROPS.insert(key, first, u64::from(BPF_NOEXIST));
        }
    }
}

#[inline(always)]
fn with_counters(slot: u32, change: impl FnOnce(&mut EndpointCounters)) {
    if let Some(counters) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: points to this CPU's value, which only this program touches while it runs.
        change(unsafe { &mut *counters });
    }
}
