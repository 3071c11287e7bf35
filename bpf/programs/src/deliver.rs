// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Into a local pod, and the checks every forwarding router makes.

use aya_ebpf::{helpers::generated::bpf_redirect_peer, programs::TcContext};
use bpf_abi::{AddressEntry, DropReason};

use crate::{
    Verdict, count,
    packet::{self, Ipv4Header, Ipv6Header, MacPair, Origin},
};

/// What stops a packet that has a way to go.
pub enum Obstacle {
    /// It is refused.
    Refused(DropReason),
    /// The kernel must do it: it may be fragmented.
    Fragment,
}

/// Checks and lowers the TTL of a packet that goes on over a link with this MTU.
#[inline(always)]
pub fn forward_ipv4(ctx: &TcContext, header: &Ipv4Header, mtu: u32) -> Result<(), Obstacle> {
    if header.ttl <= 1 {
        return Err(Obstacle::Refused(DropReason::TtlExceeded));
    }
    let bytes = header.total_bytes;
    if bytes > mtu && packet::wire_bytes(ctx, header.protocol, header.header_bytes, bytes) > mtu {
        return Err(if header.dont_fragment {
            Obstacle::Refused(DropReason::TooBig)
        } else {
            Obstacle::Fragment
        });
    }
    packet::decrement_ttl(ctx, header.ttl).map_err(Obstacle::Refused)
}

/// Checks and lowers the hop limit of a packet that goes on over a link with this MTU.
#[inline(always)]
pub fn forward_ipv6(
    ctx: &TcContext,
    header: &Ipv6Header,
    mtu: u32,
    origin: Origin,
) -> Result<(), Obstacle> {
    if header.hop_limit <= 1 {
        return Err(Obstacle::Refused(DropReason::TtlExceeded));
    }
    let bytes = header.total_bytes;
    if bytes > mtu && packet::wire_bytes(ctx, header.protocol, packet::IPV6_BYTES, bytes) > mtu {
        // Routers do not fragment (RFC 8200 §4.5).
        return Err(Obstacle::Refused(DropReason::TooBig));
    }
    packet::decrement_hop_limit(ctx, header.hop_limit, origin).map_err(Obstacle::Refused)
}

/// Gives the packet to the pod that has this address.
#[inline(always)]
pub fn into_pod(ctx: &TcContext, pod: &AddressEntry) -> Result<Verdict, DropReason> {
    packet::set_macs(
        ctx,
        MacPair {
            destination: packet::mac(&pod.pod_mac),
            source: packet::mac(&pod.host_mac),
        },
    )?;
    count::received(ctx, pod.slot);
    // SAFETY: a plain helper call; both arguments are numbers.
    Ok(Verdict::Redirected(
        unsafe { bpf_redirect_peer(pod.ifindex, 0) } as i32,
    ))
}
