// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! ICMP errors of the gateway's own: the packet they are about is turned into the answer. The kernel
//! cannot do it, since it must not see such a packet.

use aya_ebpf::{helpers::generated::bpf_redirect, programs::TcContext};
use bpf_abi::DropReason;
use bpf_programs::{
    fib,
    icmp::{self, Complaint, Quotation},
    packet::{self, ETHERNET_BYTES, MacPair},
};

use crate::{
    Refusal, Verdict, count,
    family::{Family, Header},
    mapping,
    maps::{ANSWER_LIMIT, RULES},
    route, tunnel,
};

/// Sends a pod the answer that the work has instead of its packet, and counts the packet as refused.
/// Where there can be no answer, it is only refused.
#[inline(always)]
pub fn to_pod<F: Family>(ctx: &TcContext) -> Result<Verdict, Refusal> {
    let gone = || Refusal::of(DropReason::NatUnknownRule);
    let work = F::work().ok_or_else(gone)?;
    // SAFETY: a removed element stays readable while the program runs.
    let rule = unsafe { RULES.get(work.parcel.rule) }.ok_or_else(gone)?;
    let complaint = work.complaint;
    count::refused_by_number(ctx, complaint.reason, Some(rule.slot));
    let (count, addresses) = F::addresses(rule);
    if count == 0 || !may_answer() {
        return Ok(Verdict::Silence);
    }
    let source = addresses[0];
    make::<F>(ctx, &work.header, source, &complaint)?;
    if work.parcel.is_native != 0 {
        let pod = work.header.source;
        let next_hop = route::to_pod::<F>(ctx, work, source, pod, F::ICMP).map_err(Refusal::of)?;
        return Ok(Verdict::Redirected(fib::leave(next_hop)));
    }
    if work.parcel.ip_version == 0 {
        return Ok(Verdict::Next);
    }
    tunnel::through(ctx, &work.parcel.way_back(ctx)).map_err(Refusal::of)
}

/// The same for somebody in the world, from the address it sent to. The packet is as it came. The
/// answer goes back to the neighbour that brought it: whatever way the routing table has from that
/// address, it need not lead out of this device.
#[inline(always)]
pub fn to_world<F: Family>(ctx: &TcContext) -> Result<Verdict, Refusal> {
    let work = F::work().ok_or_else(|| Refusal::of(DropReason::RewriteFailed))?;
    let complaint = work.complaint;
    count::refused_by_number(ctx, complaint.reason, Some(work.slot as u16));
    let Some(macs) = packet::macs(ctx) else {
        return Ok(Verdict::Silence);
    };
    if !may_answer() {
        return Ok(Verdict::Silence);
    }
    make::<F>(ctx, &work.header, work.header.destination, &complaint)?;
    let back = MacPair {
        destination: macs.source,
        source: macs.destination,
    };
    packet::set_macs(ctx, back).map_err(Refusal::of)?;
    // SAFETY: a plain helper call.
    let code = unsafe { bpf_redirect(packet::ifindex(ctx), 0) };
    Ok(Verdict::Redirected(code as i32))
}

/// Makes the packet an error from this address to its sender.
#[inline(always)]
fn make<F: Family>(
    ctx: &TcContext,
    header: &Header<F::Address>,
    source: F::Address,
    complaint: &Complaint,
) -> Result<(), Refusal> {
    let is_extended = header.payload_at != ETHERNET_BYTES + F::HEADER_BYTES;
    let quoted = Quotation::of(header.protocol, is_extended);
    let (source, to) = (F::widen(source), F::widen(header.source));
    let made = if F::VERSION == 4 {
        icmp::make_ipv4(ctx, &quoted, source[0], to[0], complaint)
    } else {
        icmp::make_ipv6(ctx, &quoted, source, to, complaint)
    };
    made.ok_or_else(|| Refusal::of(DropReason::RewriteFailed))
}

#[inline(always)]
fn may_answer() -> bool {
    let Some(limit) = ANSWER_LIMIT.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: points to this CPU's value, which only this program touches while it runs.
    icmp::may_answer(unsafe { &mut *limit }, mapping::now())
}
