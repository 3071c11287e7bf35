// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! From the fabric: into a local pod, to this node as an egress gateway, or to the kernel.
//!
//! Nothing is refused here that the kernel would not refuse: it owns what is not for a pod, and
//! what is malformed or needs an ICMP answer. But what comes out of the tunnel of egress gateways
//! is for a pod, or for a gateway this node is not any more, and never the kernel's.

use aya_ebpf::programs::TcContext;
use bpf_abi::{
    AddressEntry, DropReason, FlowKey,
    egress::{NATIVE_TTL, way},
};
use bpf_programs::{
    fib,
    forward::{self, Obstacle},
    packet::{self, Origin},
};

use crate::{
    Refusal, Verdict, deliver, egress,
    maps::{ENDPOINTS_V4, ENDPOINTS_V6},
};

/// Judges a packet from the fabric.
#[inline(always)]
pub fn judge(ctx: &TcContext) -> Result<Verdict, Refusal> {
    packet::pull_headers(ctx);
    if packet::has_vlan_tag(ctx) || !packet::is_for_this_host(ctx) {
        return Ok(Verdict::ToKernel);
    }
    if egress::is_forged(ctx) {
        return Err(Refusal {
            reason: DropReason::TunnelFailed,
            slot: None,
        });
    }
    match packet::ethertype(ctx) {
        Some(packet::ETHERTYPE_IPV4) => judge_ipv4(ctx),
        Some(packet::ETHERTYPE_IPV6) => judge_ipv6(ctx),
        _ => Ok(Verdict::ToKernel),
    }
}

#[inline(always)]
fn judge_ipv4(ctx: &TcContext) -> Result<Verdict, Refusal> {
    let Ok(header) = packet::ipv4(ctx) else {
        return Ok(Verdict::ToKernel);
    };
    // SAFETY: read at once; see `count::delivered_by_kernel` about concurrent removal.
    let Some(pod) = (unsafe { ENDPOINTS_V4.get(header.destination.to_ne_bytes()) }) else {
        return match is_kernels(ctx)? || header.ttl != NATIVE_TTL {
            true => Ok(Verdict::ToKernel),
            false => of_other_node(ctx, &fib::flow_ipv4(ctx, &header)),
        };
    };
    if header.header_bytes != packet::IPV4_BYTES {
        return Ok(Verdict::ToKernel);
    }
    if pod.egress_set != 0 {
        egress::note_caller(ctx, &fib::flow_ipv4(ctx, &header));
    }
    let checked = forward::forward_ipv4(ctx, &header, pod.mtu);
    finish(ctx, pod, checked)
}

#[inline(always)]
fn judge_ipv6(ctx: &TcContext) -> Result<Verdict, Refusal> {
    let Ok(header) = packet::ipv6(ctx) else {
        return Ok(Verdict::ToKernel);
    };
    // SAFETY: both are sixteen plain bytes.
    let destination: [u8; 16] = unsafe { core::mem::transmute(header.destination) };
    // SAFETY: read at once; see `count::delivered_by_kernel` about concurrent removal.
    let Some(pod) = (unsafe { ENDPOINTS_V6.get(destination) }) else {
        return match is_kernels(ctx)? || header.hop_limit != NATIVE_TTL {
            true => Ok(Verdict::ToKernel),
            false => of_other_node(ctx, &fib::flow_ipv6(ctx, &header)),
        };
    };
    if header.protocol == packet::PROTOCOL_HOP_BY_HOP {
        return Ok(Verdict::ToKernel);
    }
    if pod.egress_set != 0 {
        egress::note_caller(ctx, &fib::flow_ipv6(ctx, &header));
    }
    let checked = forward::forward_ipv6(ctx, &header, pod.mtu, Origin::Fabric);
    finish(ctx, pod, checked)
}

/// Whether what is for no pod is surely the kernel's: a gateway has judged it. What came out of the
/// tunnel and no gateway has judged is refused: it would go on under the address of whoever sent it.
#[inline(always)]
fn is_kernels(ctx: &TcContext) -> Result<bool, Refusal> {
    if egress::is_judged(ctx) {
        return Ok(true);
    }
    if egress::came_by_tunnel(ctx) || egress::is_unseen(ctx) {
        return Err(Refusal {
            reason: DropReason::TunnelFailed,
            slot: None,
        });
    }
    Ok(false)
}

/// The kernel's, unless a pod of another node sent it for this gateway to send on.
#[inline(always)]
fn of_other_node(ctx: &TcContext, flow: &FlowKey) -> Result<Verdict, Refusal> {
    let refused = |reason| Refusal { reason, slot: None };
    match egress::of_other_node(ctx, flow) {
        way::PASS => Ok(Verdict::ToKernel),
        way::SPOOFED => Err(refused(DropReason::SpoofedAddress)),
        mark => egress::to_gateway(ctx, flow, mark)
            .map(Verdict::Redirected)
            .map_err(refused),
    }
}

#[inline(always)]
fn finish(
    ctx: &TcContext,
    pod: &AddressEntry,
    checked: Result<(), Obstacle>,
) -> Result<Verdict, Refusal> {
    let refused = |reason: DropReason| Refusal {
        reason,
        slot: Some(pod.slot),
    };
    match checked {
        Ok(()) => deliver::into_pod(ctx, pod).map_err(refused),
        Err(Obstacle::Fragment) => Ok(Verdict::ToKernel),
        Err(Obstacle::Refused(reason)) => Err(refused(reason)),
    }
}
