// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The checks every forwarding router makes.

use aya_ebpf::programs::TcContext;
use bpf_abi::DropReason;

use crate::packet::{self, Ipv4Header, Ipv6Header, Origin};

/// What stops a packet that has a way to go.
pub enum Obstacle {
    /// It is refused.
    Refused(DropReason),
    /// The kernel must do it: it may be fragmented.
    Fragment,
}

/// Whether a packet may go on over a link with this MTU, and its TTL or hop limit allows it.
///
/// `header_bytes` are those of the IP header with its extensions, `total_bytes` those of the
/// packet.
#[inline(always)]
pub fn check(
    ctx: &TcContext,
    ttl: u8,
    protocol: u8,
    header_bytes: u32,
    total_bytes: u32,
    dont_fragment: bool,
    mtu: u32,
) -> Result<(), Obstacle> {
    if ttl <= 1 {
        return Err(Obstacle::Refused(DropReason::TtlExceeded));
    }
    if total_bytes > mtu && packet::wire_bytes(ctx, protocol, header_bytes, total_bytes) > mtu {
        return Err(if dont_fragment {
            Obstacle::Refused(DropReason::TooBig)
        } else {
            Obstacle::Fragment
        });
    }
    Ok(())
}

/// Checks and lowers the TTL of a packet that goes on over a link with this MTU.
#[inline(always)]
pub fn forward_ipv4(ctx: &TcContext, header: &Ipv4Header, mtu: u32) -> Result<(), Obstacle> {
    check(
        ctx,
        header.ttl,
        header.protocol,
        header.header_bytes,
        header.total_bytes,
        header.dont_fragment,
        mtu,
    )?;
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
    check(
        ctx,
        header.hop_limit,
        header.protocol,
        packet::IPV6_BYTES,
        header.total_bytes,
        // Routers do not fragment (RFC 8200 §4.5).
        true,
        mtu,
    )?;
    packet::decrement_hop_limit(ctx, header.hop_limit, origin).map_err(Obstacle::Refused)
}
