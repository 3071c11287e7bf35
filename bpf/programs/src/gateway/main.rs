// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The kernel side of an egress gateway: two programs, attached by `bpf-loader` on nodes that are
//! gateways.
//!
//! Packets of pods come out of the tunnel with the number of their rule as its identifier, get the
//! rule's address and a port of their own, and leave by the routing table. Answers come in from
//! the fabric, find their mapping, and go back through the tunnel to the pod's node. What is no
//! answer to anything is left to whoever is next on the hook.
//!
//! A packet of a rule is translated or refused: the kernel never sees it, since it would forward
//! it under the pod's address. Refusals that a sender should hear of are answered here.

#![no_std]
#![no_main]

mod answer;
mod back;
mod claim;
mod count;
mod errors;
mod family;
mod fragments;
mod mapping;
mod maps;
mod out;
mod rewrite;
mod route;
mod transport;
mod tunnel;
mod work;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use bpf_abi::DropReason;
use bpf_programs::packet;

use crate::family::{Family, Ipv4, Ipv6};

/// Where a packet goes.
enum Verdict {
    /// Already redirected; the helper's own return code.
    Redirected(i32),
    /// On to the next program on the hook, or the kernel.
    Next,
    /// It becomes the answer that the work has.
    Answer,
    /// Nowhere, and it is counted already.
    Silence,
}

/// Between the programs' functions: the packet becomes an answer. No return code of a hook.
const ANSWER: i32 = 1 << 16;

/// A refused packet: why, and whose counters know it.
struct Refusal {
    reason: DropReason,
    slot: Option<u16>,
}

impl Refusal {
    /// A refusal no rule is known for.
    #[inline(always)]
    fn of(reason: DropReason) -> Self {
        Self { reason, slot: None }
    }
}

/// Ingress of the tunnel device: from pods to the world.
#[classifier]
pub fn egress_out(ctx: TcContext) -> i32 {
    packet::pull(&ctx, transport::READ_BYTES);
    match packet::ethertype(&ctx) {
        Some(packet::ETHERTYPE_IPV4) => match judge_out::<Ipv4>(&ctx) {
            ANSWER => answer_out::<Ipv4>(&ctx),
            code => code,
        },
        Some(packet::ETHERTYPE_IPV6) => match judge_out::<Ipv6>(&ctx) {
            ANSWER => answer_out::<Ipv6>(&ctx),
            code => code,
        },
        _ => TC_ACT_UNSPEC,
    }
}

/// Ingress of a device towards the fabric: answers to pods.
#[classifier]
pub fn egress_back(ctx: TcContext) -> i32 {
    packet::pull(&ctx, transport::READ_BYTES);
    if packet::has_vlan_tag(&ctx) || !packet::is_for_this_host(&ctx) {
        return TC_ACT_UNSPEC;
    }
    match packet::ethertype(&ctx) {
        Some(packet::ETHERTYPE_IPV4) if tunnel::is_wrapped(&ctx, true) => TC_ACT_UNSPEC,
        Some(packet::ETHERTYPE_IPV6) if tunnel::is_wrapped(&ctx, false) => TC_ACT_UNSPEC,
        Some(packet::ETHERTYPE_IPV4) => match judge_back::<Ipv4>(&ctx) {
            ANSWER => answer_back::<Ipv4>(&ctx),
            code => code,
        },
        Some(packet::ETHERTYPE_IPV6) => match judge_back::<Ipv6>(&ctx) {
            ANSWER => answer_back::<Ipv6>(&ctx),
            code => code,
        },
        _ => TC_ACT_UNSPEC,
    }
}

// Functions of their own, here and where else it is said: a program's stack has 512 bytes, and the
// compiler does not let two families share them.
#[inline(never)]
fn judge_out<F: Family>(ctx: &TcContext) -> i32 {
    finish(ctx, out::judge::<F>(ctx))
}

#[inline(never)]
fn answer_out<F: Family>(ctx: &TcContext) -> i32 {
    finish(ctx, answer::to_pod::<F>(ctx))
}

#[inline(never)]
fn judge_back<F: Family>(ctx: &TcContext) -> i32 {
    finish(ctx, back::judge::<F>(ctx))
}

#[inline(never)]
fn answer_back<F: Family>(ctx: &TcContext) -> i32 {
    finish(ctx, answer::to_world::<F>(ctx))
}

#[inline(always)]
fn finish(ctx: &TcContext, judgement: Result<Verdict, Refusal>) -> i32 {
    match judgement {
        Ok(Verdict::Redirected(code)) => code,
        Ok(Verdict::Next) => TC_ACT_UNSPEC,
        Ok(Verdict::Answer) => ANSWER,
        Ok(Verdict::Silence) => TC_ACT_SHOT,
        Err(refusal) => {
            count::refused(ctx, &refusal);
            TC_ACT_SHOT
        }
    }
}

/// The kernel lends its GPL-only helpers to programs that carry this.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual BSD/GPL\0";
