// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The kernel side of the data plane: three programs, attached by `bpf-loader`.
//!
//! A packet is parsed once, judged once, and leaves by one of four ways: into another local pod
//! (`bpf_redirect_peer`), towards the fabric (`bpf_redirect_neigh`), to the kernel, or nowhere.
//! What a program does not understand goes to the kernel once its sender is believed; what it
//! cannot believe is refused and counted.
//!
//! ICMP errors (TTL exceeded, too big, unreachable) and IPv4 fragmentation are left to the kernel:
//! such a packet is counted under its reason and handed over, and the kernel, which sees the same
//! routing table, answers by RFC 1812 and RFC 4443, with its own rate limits and source address. But
//! not of what leaves by an egress gateway, which the kernel knows nothing of: `too_big`.
//!
//! Handing over means `TC_ACT_UNSPEC`, so that programs of others on the same hook still run.

#![no_std]
#![no_main]

mod arp;
mod count;
mod deliver;
mod egress;
mod from_fabric;
mod from_pod;
mod maps;
mod route;
mod too_big;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use bpf_abi::DropReason;

/// Where a believed packet goes.
enum Verdict {
    /// Already redirected; the helper's own return code.
    Redirected(i32),
    /// The kernel continues with it.
    ToKernel,
}

/// A refused packet: why, and whose counters know it.
struct Refusal {
    reason: DropReason,
    slot: Option<u32>,
}

/// Ingress of a pod's host-side device.
#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    verdict_code(&ctx, from_pod::judge(&ctx))
}

/// Egress of a pod's host-side device: the kernel delivers, this counts.
#[classifier]
pub fn to_pod(ctx: TcContext) -> i32 {
    count::delivered_by_kernel(&ctx);
    TC_ACT_UNSPEC
}

/// Ingress of a device towards the fabric.
#[classifier]
pub fn from_fabric(ctx: TcContext) -> i32 {
    verdict_code(&ctx, from_fabric::judge(&ctx))
}

/// The one place where a judgement becomes a return code.
#[inline(always)]
fn verdict_code(ctx: &TcContext, judgement: Result<Verdict, Refusal>) -> i32 {
    match judgement {
        Ok(Verdict::Redirected(code)) => code,
        Ok(Verdict::ToKernel) => TC_ACT_UNSPEC,
        Err(refusal) => {
            count::refused(ctx, &refusal);
            if refusal.reason.is_answered() {
                TC_ACT_UNSPEC
            } else {
                TC_ACT_SHOT
            }
        }
    }
}

/// The kernel lends its GPL-only helpers to programs that carry this.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual BSD/GPL\0";
