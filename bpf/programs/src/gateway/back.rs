// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! From the world to a pod: answers of mappings, and nothing else. What belongs to no mapping is
//! not judged here.

use aya_ebpf::programs::TcContext;
use bpf_abi::{
    DropReason,
    nat::{JUDGED_MARK, LOCAL_NODE, NATIVE_NODE, NatKey, side},
};
use bpf_programs::{fib, forward::Obstacle, mss, packet::Origin};

use crate::{
    Refusal, Verdict, count, errors,
    family::{self, Family, part},
    fragments, mapping,
    rewrite::{self, End},
    route, transport, tunnel,
    work::{self, Work},
};

/// The pod a packet goes back to.
#[derive(Clone, Copy)]
pub struct Pod<A> {
    pub address: A,
    pub slot: u16,
    pub node: u16,
}

/// Judges a packet from the fabric.
#[inline(always)]
pub fn judge<F: Family>(ctx: &TcContext) -> Result<Verdict, Refusal> {
    let (Some(work), Ok(header)) = (F::work(), F::header(ctx)) else {
        return Ok(Verdict::Next);
    };
    work.header = header;
    if work.header.part != part::LATER {
        match transport::read::<F>(ctx, &work.header) {
            Ok(transport) => work.transport = transport,
            Err(_) => return Ok(Verdict::Next),
        }
    }
    let work = work::forget(work);
    if work.header.part == part::LATER {
        return match fragments::recall::<F>(work, side::BACK) {
            Some(known) => {
                let pod = Pod {
                    address: known.address,
                    slot: known.slot,
                    node: known.node,
                };
                go_back::<F>(ctx, work, &pod)
            }
            None => Ok(Verdict::Next),
        };
    }
    if work.transport.is_error != 0 {
        return match errors::back::<F>(ctx, work)? {
            Some(pod) => go_back::<F>(ctx, work, &pod),
            None => Ok(Verdict::Next),
        };
    }
    flow::<F>(ctx, work)
}

#[inline(always)]
fn flow<F: Family>(
    ctx: &TcContext,
    work: &'static mut Work<F::Address>,
) -> Result<Verdict, Refusal> {
    let (header, transport) = (&work.header, &work.transport);
    work.key = NatKey {
        remote: header.source,
        local: header.destination,
        remote_port: if transport.source_at == transport.destination_at {
            0
        } else {
            transport.source
        },
        local_port: transport.destination,
        protocol: header.protocol,
        side: side::BACK,
        reserved: 0,
    };
    let Some(entry) = mapping::find_either::<F>(&mut work.key) else {
        return Ok(Verdict::Next);
    };
    if mapping::note(entry, transport.says) {
        work.other = mapping::other_half::<F>(&work.key, entry);
        let other = mapping::find::<F>(&work.other);
        mapping::tell::<F>(&work.key, entry, other.map_or(0, |other| other.said));
    }
    let (slot, node) = (entry.slot, entry.node);
    let refused = |reason| Refusal {
        reason,
        slot: Some(slot),
    };
    fragments::remember::<F>(work, entry, side::BACK);
    let (header, transport) = (&work.header, &work.transport);
    if header.ttl <= 1 {
        return Err(refused(DropReason::TtlExceeded));
    }
    rewrite::apply::<F>(ctx, header, transport, End::Destination, entry).map_err(refused)?;
    if transport.is_syn != 0 {
        mss::clamp(ctx, F::HEADER_BYTES, tunnel::mtu_to(node));
    }
    let pod = entry.address;
    hand_over::<F>(ctx, work, pod, slot, node).map_err(refused)
}

/// Sends a packet back of which only the destination address changes.
#[inline(always)]
fn go_back<F: Family>(
    ctx: &TcContext,
    work: &mut Work<F::Address>,
    pod: &Pod<F::Address>,
) -> Result<Verdict, Refusal> {
    let header = &work.header;
    let refused = |reason| Refusal {
        reason,
        slot: Some(pod.slot),
    };
    if header.ttl <= 1 {
        return Err(refused(DropReason::TtlExceeded));
    }
    rewrite::write_address::<F>(ctx, header, End::Destination, pod.address).map_err(refused)?;
    hand_over::<F>(ctx, work, pod.address, pod.slot, pod.node).map_err(refused)
}

/// Gives a packet that is rewritten to the pod's node.
#[inline(always)]
fn hand_over<F: Family>(
    ctx: &TcContext,
    work: &mut Work<F::Address>,
    pod: F::Address,
    slot: u16,
    node: u16,
) -> Result<Verdict, DropReason> {
    if node == NATIVE_NODE {
        return by_route::<F>(ctx, work, pod, slot);
    }
    let header = &work.header;
    count::answered(ctx, slot);
    if node != LOCAL_NODE {
        // On this node the next program lowers it.
        F::lower(ctx, header.ttl, Origin::Fabric)?;
    }
    tunnel::to_pod(ctx, node)
}

/// The same without a tunnel. Not by the kernel, whose connection tracking has seen no packet of the
/// pod and whose filters may refuse what belongs to nothing; it only cuts what does not fit.
#[inline(always)]
fn by_route<F: Family>(
    ctx: &TcContext,
    work: &mut Work<F::Address>,
    pod: F::Address,
    slot: u16,
) -> Result<Verdict, DropReason> {
    let (source, protocol) = (work.header.source, work.header.protocol);
    let next_hop = route::to_pod::<F>(ctx, work, source, pod, protocol)?;
    let header = &work.header;
    match family::check::<F>(ctx, header, next_hop.mtu) {
        Ok(()) => {}
        Err(Obstacle::Fragment) => {
            count::answered(ctx, slot);
            ctx.set_mark(JUDGED_MARK);
            return Ok(Verdict::Next);
        }
        Err(Obstacle::Refused(reason)) => return Err(reason),
    }
    count::answered(ctx, slot);
    F::lower(ctx, header.ttl, Origin::Fabric)?;
    Ok(Verdict::Redirected(fib::leave(next_hop)))
}
