// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Packets of pods that are larger than their way to an egress gateway takes: the pod is told, from
//! the address it knows as its router. The kernel cannot do it: it would forward the packet.

use aya_ebpf::{
    bindings::TC_ACT_SHOT, helpers::generated::bpf_ktime_get_coarse_ns, programs::TcContext,
};
use bpf_abi::{
    AddressEntry, DropReason, FlowKey, POD_ROUTER_V4, POD_ROUTER_V6, excess,
    nat::{V6, tick},
};
use bpf_programs::{
    icmp::{self, Complaint, Quotation},
    packet::{
        self, ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, PROTOCOL_FRAGMENT, PROTOCOL_ICMP,
        PROTOCOL_ICMPV6,
    },
};

use crate::{Refusal, Verdict, count, deliver, maps::ANSWER_LIMIT};

/// Refuses a packet, and tells the pod that sent it what its way takes, as [`excess::of`] says. The
/// return code for the hook.
#[inline(never)]
pub fn answer(ctx: &TcContext, sender: &AddressEntry, flow: &FlowKey, mtu: u32) -> i32 {
    count::refused(
        ctx,
        &Refusal {
            reason: DropReason::TooBig,
            slot: Some(sender.slot),
        },
    );
    if mtu == excess::LOST || is_not_answered(ctx, flow) || !may_answer() {
        return TC_ACT_SHOT;
    }
    let made = if flow.ip_version == 4 {
        make_ipv4(ctx, flow, mtu)
    } else {
        make_ipv6(ctx, flow, mtu)
    };
    if !made {
        return TC_ACT_SHOT;
    }
    match deliver::into_pod(ctx, sender) {
        Ok(Verdict::Redirected(code)) => code,
        _ => TC_ACT_SHOT,
    }
}

// Functions of their own, so that two families do not share a stack.
#[inline(never)]
fn make_ipv4(ctx: &TcContext, flow: &FlowKey, mtu: u32) -> bool {
    let router = u32::from_ne_bytes(POD_ROUTER_V4);
    let quoted = Quotation::of(flow.protocol, false);
    let complaint = Complaint::too_big(mtu);
    icmp::make_ipv4(ctx, &quoted, router, flow.source[0], &complaint).is_some()
}

#[inline(never)]
fn make_ipv6(ctx: &TcContext, flow: &FlowKey, mtu: u32) -> bool {
    // SAFETY: both are sixteen plain bytes.
    let router: V6 = unsafe { core::mem::transmute(POD_ROUTER_V6) };
    let quoted = Quotation::of(flow.protocol, flow.protocol == PROTOCOL_FRAGMENT);
    let complaint = Complaint::too_big(mtu);
    icmp::make_ipv6(ctx, &quoted, router, flow.source, &complaint).is_some()
}

/// Whether nobody is told about such a packet: a fragment that is not the first, or an ICMP error
/// (RFC 1812 §4.3.2.7, RFC 4443 §2.4).
#[inline(always)]
fn is_not_answered(ctx: &TcContext, flow: &FlowKey) -> bool {
    let (ip_bytes, offset_at, offset_bits) = if flow.ip_version == 4 {
        (IPV4_BYTES, ETHERNET_BYTES + 6, 0x1fff)
    } else {
        (IPV6_BYTES, ETHERNET_BYTES + IPV6_BYTES + 2, 0xfff8)
    };
    if flow.ip_version == 4 || flow.protocol == PROTOCOL_FRAGMENT {
        let offset = packet::read::<u16>(ctx, offset_at).map_or(u16::MAX, u16::from_be);
        if offset & offset_bits != 0 {
            return true;
        }
    }
    let kind: u8 = packet::read(ctx, ETHERNET_BYTES + ip_bytes).unwrap_or_default();
    match flow.protocol {
        PROTOCOL_ICMP => flow.ip_version == 4 && matches!(kind, 3 | 4 | 5 | 11 | 12),
        PROTOCOL_ICMPV6 => flow.ip_version == 6 && kind < 128,
        _ => false,
    }
}

#[inline(always)]
fn may_answer() -> bool {
    let Some(limit) = ANSWER_LIMIT.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: a helper without arguments.
    let now = tick(unsafe { bpf_ktime_get_coarse_ns() });
    // SAFETY: points to this CPU's value, which only this program touches while it runs.
    icmp::may_answer(unsafe { &mut *limit }, now)
}
