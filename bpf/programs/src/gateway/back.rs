// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! From the world to a pod: answers of mappings, and nothing else. What belongs to no mapping is
//! not judged here, unless it is for an address that pods alone have: the kernel would answer that
//! nobody is there, and end a connection whose mapping another gateway has or this one will have.

use aya_ebpf::programs::TcContext;
use bpf_abi::{
    CachedNextHop, DropReason, excess,
    nat::{JUDGED_MARK, LOCAL_NODE, NATIVE_NODE, NatKey, ServedPort, TunnelEnd, side},
};
use bpf_programs::{fib, forward::Obstacle, icmp::Complaint, mss, packet::Origin};

use crate::{
    Refusal, Verdict, count, errors,
    family::{self, Family, Header, part},
    fragments, mapping,
    maps::{HELD, SERVED},
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
        return unsolicited::<F>(&work.header, work.key.local_port);
    };
    if mapping::note(entry, transport.says, mapping::now()) {
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
    if work.header.ttl <= 1 {
        return Err(refused(DropReason::TtlExceeded));
    }
    let pod = entry.address;
    let way = Way::find::<F>(ctx, work, pod, node).map_err(refused)?;
    let excess = way.excess::<F>(ctx, &work.header);
    if excess > excess::LOST {
        // Said before anything is changed: it quotes what the sender sent.
        work.complaint = Complaint::too_big(excess);
        work.slot = u32::from(slot);
        return Ok(Verdict::Answer);
    }
    if excess != excess::GOES_ON {
        return Err(refused(DropReason::TooBig));
    }
    let (header, transport) = (&work.header, &work.transport);
    rewrite::apply::<F>(ctx, header, transport, End::Destination, entry).map_err(refused)?;
    if transport.is_syn != 0 {
        mss::clamp(ctx, F::HEADER_BYTES, way.tunnel_mtu());
    }
    hand_over::<F>(ctx, &work.header, &way, slot, node).map_err(refused)
}

/// A packet of no mapping. Echo requests are the kernel's to answer, for whoever looks for the address,
/// and so is what is for a port at which something is served.
#[inline(always)]
fn unsolicited<F: Family>(header: &Header<F::Address>, port: u16) -> Result<Verdict, Refusal> {
    let address = F::widen(header.destination);
    // SAFETY: only asked whether it is there.
    let is_held = || unsafe { HELD.get(address) }.is_some();
    let is_served = || {
        let key = ServedPort {
            address,
            port,
            protocol: header.protocol,
            reserved: 0,
        };
        // SAFETY: as above.
        unsafe { SERVED.get(key) }.is_some()
    };
    if header.protocol != F::ICMP && is_held() && !is_served() {
        return Err(Refusal::of(DropReason::NatUnsolicited));
    }
    Ok(Verdict::Next)
}

/// Sends a packet back of which only the destination address changes: an error, or a fragment that is
/// not the first. Nobody is told when it is too large (RFC 1812 §4.3.2.7).
#[inline(always)]
fn go_back<F: Family>(
    ctx: &TcContext,
    work: &mut Work<F::Address>,
    pod: &Pod<F::Address>,
) -> Result<Verdict, Refusal> {
    let refused = |reason| Refusal {
        reason,
        slot: Some(pod.slot),
    };
    if work.header.ttl <= 1 {
        return Err(refused(DropReason::TtlExceeded));
    }
    let way = Way::find::<F>(ctx, work, pod.address, pod.node).map_err(refused)?;
    let header = &work.header;
    if way.excess::<F>(ctx, header) != excess::GOES_ON {
        return Err(refused(DropReason::TooBig));
    }
    rewrite::write_address::<F>(ctx, header, End::Destination, pod.address).map_err(refused)?;
    hand_over::<F>(ctx, header, &way, pod.slot, pod.node).map_err(refused)
}

/// The way to a pod's node.
#[derive(Clone, Copy)]
enum Way {
    /// Through the tunnel, or to the next program on this node.
    Tunnel(&'static TunnelEnd),
    /// By the routing table.
    Route(&'static CachedNextHop),
}

impl Way {
    #[inline(always)]
    fn find<F: Family>(
        ctx: &TcContext,
        work: &mut Work<F::Address>,
        pod: F::Address,
        node: u16,
    ) -> Result<Self, DropReason> {
        if node == NATIVE_NODE {
            let (source, protocol) = (work.header.source, work.header.protocol);
            route::to_pod::<F>(ctx, work, source, pod, protocol).map(Way::Route)
        } else {
            tunnel::end_at(node).map(Way::Tunnel)
        }
    }

    /// What becomes of a packet that may be too large: see [`excess`]. One that the kernel cuts on a
    /// route is not too large.
    #[inline(always)]
    fn excess<F: Family>(&self, ctx: &TcContext, header: &Header<F::Address>) -> u32 {
        match self {
            Way::Tunnel(end) => {
                // Cut outside where it can be: firewalls drop errors, and who sends from out there
                // would wait in vain.
                let is_cut_outside = end.ip_version == 4;
                if is_cut_outside || end.mtu == 0 || header.total_bytes <= u32::from(end.mtu) {
                    return excess::GOES_ON;
                }
                let bytes = family::wire_bytes::<F>(ctx, header);
                let is_piece = F::VERSION == 6 && header.part != part::WHOLE;
                let may_be_cut = header.dont_fragment == 0 || is_piece;
                excess::of(end, F::VERSION, bytes, may_be_cut, 0)
            }
            Way::Route(next_hop) => match family::check::<F>(ctx, header, next_hop.mtu) {
                Err(Obstacle::Refused(_)) if F::VERSION == 4 => next_hop.mtu,
                Err(Obstacle::Refused(_)) => next_hop.mtu.max(excess::IPV6_MIN_MTU),
                Ok(()) | Err(Obstacle::Fragment) => excess::GOES_ON,
            },
        }
    }

    /// The largest packet a tunnel takes whole; zero where there is none or nobody knows.
    #[inline(always)]
    fn tunnel_mtu(&self) -> u16 {
        match self {
            Way::Tunnel(end) => end.mtu,
            Way::Route(_) => 0,
        }
    }
}

/// Gives a packet that is rewritten to the pod's node.
#[inline(always)]
fn hand_over<F: Family>(
    ctx: &TcContext,
    header: &Header<F::Address>,
    way: &Way,
    slot: u16,
    node: u16,
) -> Result<Verdict, DropReason> {
    count::answered(ctx, slot);
    let next_hop = match way {
        Way::Tunnel(end) => {
            if node != LOCAL_NODE {
                // On this node the next program lowers it.
                F::lower(ctx, header.ttl, Origin::Fabric)?;
            }
            return tunnel::to_pod(ctx, node, end);
        }
        Way::Route(next_hop) => next_hop,
    };
    // Not by the kernel, whose connection tracking has seen no packet of the pod and whose filters may
    // refuse what belongs to nothing; it only cuts what does not fit.
    if family::check::<F>(ctx, header, next_hop.mtu).is_err() {
        ctx.set_mark(JUDGED_MARK);
        return Ok(Verdict::Next);
    }
    F::lower(ctx, header.ttl, Origin::Fabric)?;
    Ok(Verdict::Redirected(fib::leave(next_hop)))
}
