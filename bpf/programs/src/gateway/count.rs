// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Counting. Every map here has a value per CPU, so plain additions are enough.

use aya_ebpf::{bindings::BPF_NOEXIST, programs::TcContext};
use bpf_abi::{DropCounter, DropKey, nat::RuleCounters};

use crate::{
    Refusal,
    maps::{REFUSALS, RULE_COUNTERS, RULE_REFUSALS},
};

/// A pod's packet leaves.
#[inline(always)]
pub fn left(ctx: &TcContext, slot: u16) {
    with_counters(slot, |counters| {
        counters.out_packets += 1;
        counters.out_bytes += u64::from(ctx.len());
    });
}

/// An answer goes back.
#[inline(always)]
pub fn answered(ctx: &TcContext, slot: u16) {
    with_counters(slot, |counters| {
        counters.back_packets += 1;
        counters.back_bytes += u64::from(ctx.len());
    });
}

/// A mapping was made.
#[inline(always)]
pub fn opened(slot: u16) {
    with_counters(slot, |counters| counters.opened += 1);
}

/// A packet was refused.
#[inline(always)]
pub fn refused(ctx: &TcContext, refusal: &Refusal) {
    refused_by_number(ctx, u32::from(refusal.reason.number()), refusal.slot);
}

/// The same by the number of the reason.
#[inline(always)]
pub fn refused_by_number(ctx: &TcContext, reason: u32, slot: Option<u16>) {
    let bytes = u64::from(ctx.len());
    if let Some(total) = REFUSALS.get_ptr_mut(reason) {
        // SAFETY: points to this CPU's value, which only this program touches while it runs.
        let total = unsafe { &mut *total };
        total.packets += 1;
        total.bytes += bytes;
    }
    let Some(slot) = slot else { return };
    let key = DropKey {
        slot: u32::from(slot),
        reason,
    };
    match RULE_REFUSALS.get_ptr_mut(key) {
        Some(counter) => {
            // SAFETY: as above.
            let counter = unsafe { &mut *counter };
            counter.packets += 1;
            counter.bytes += bytes;
        }
        None => {
            // The first of this kind. Full or raced: the total above has it all the same.
            let first = DropCounter { packets: 1, bytes };
            let _ = RULE_REFUSALS.insert(key, first, u64::from(BPF_NOEXIST));
        }
    }
}

#[inline(always)]
fn with_counters(slot: u16, change: impl FnOnce(&mut RuleCounters)) {
    if let Some(counters) = RULE_COUNTERS.get_ptr_mut(u32::from(slot)) {
        // SAFETY: points to this CPU's value, which only this program touches while it runs.
        change(unsafe { &mut *counters });
    }
}
