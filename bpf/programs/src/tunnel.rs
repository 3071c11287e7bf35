// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Into the tunnel between a pod's node and its gateway: VXLAN (RFC 7348) by a device that takes
//! the other end and the identifier from each packet.
//!
//! Where the other end is this node the packet takes the same way without the tunnel: the
//! identifier goes into its mark, and it into the tunnel device.

use core::mem;

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_tunnel_key},
    helpers::generated::{bpf_redirect, bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key},
    programs::TcContext,
};
use bpf_abi::{
    DropReason,
    nat::{TUNNEL_MAC, TUNNEL_SOURCE_MAC, TunnelEnd},
};

use crate::packet::{self, MacPair};

/// Sends a packet; the return code for the hook.
#[inline(always)]
pub fn send(ctx: &TcContext, end: &TunnelEnd, identifier: u32) -> Result<i32, DropReason> {
    packet::set_macs(
        ctx,
        MacPair {
            destination: packet::mac(&TUNNEL_MAC),
            source: packet::mac(&TUNNEL_SOURCE_MAC),
        },
    )?;
    if end.is_local != 0 {
        ctx.set_mark(identifier);
        // SAFETY: a plain helper call.
        return Ok(unsafe { bpf_redirect(end.ifindex, u64::from(BPF_F_INGRESS)) } as i32);
    }
    let mut key = empty_key();
    key.tunnel_id = identifier;
    key.tunnel_ttl = 64;
    let mut flags = u64::from(BPF_F_ZERO_CSUM_TX);
    if end.ip_version == 4 {
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be(end.address[0]);
        key.__bindgen_anon_3.local_ipv4 = u32::from_be(end.source[0]);
    } else if end.ip_version == 6 {
        key.__bindgen_anon_1.remote_ipv6 = end.address;
        key.__bindgen_anon_3.local_ipv6 = end.source;
        flags = u64::from(BPF_F_TUNINFO_IPV6);
    } else {
        return Err(DropReason::TunnelFailed);
    }
    // SAFETY: context and pointer are live, the size is the pointee's.
    let set = unsafe {
        bpf_skb_set_tunnel_key(
            ctx.skb.skb,
            &mut key,
            mem::size_of::<bpf_tunnel_key>() as u32,
            flags,
        )
    };
    if set != 0 {
        return Err(DropReason::TunnelFailed);
    }
    // SAFETY: a plain helper call.
    Ok(unsafe { bpf_redirect(end.ifindex, 0) } as i32)
}

/// The identifier of the tunnel a packet came out of; `None` where it came out of none.
#[inline(always)]
pub fn identifier(ctx: &TcContext) -> Option<u32> {
    let mut key = empty_key();
    (get_key(ctx, &mut key, 0) || get_key(ctx, &mut key, BPF_F_TUNINFO_IPV6.into()))
        .then_some(key.tunnel_id)
}

/// Reads what the tunnel says of a packet, if it came by one of this family.
#[inline(always)]
pub fn get_key(ctx: &TcContext, key: &mut bpf_tunnel_key, flags: u64) -> bool {
    // SAFETY: context and pointer are live, the size is the pointee's.
    let got = unsafe {
        bpf_skb_get_tunnel_key(
            ctx.skb.skb,
            key,
            mem::size_of::<bpf_tunnel_key>() as u32,
            flags,
        )
    };
    got == 0
}

/// What the tunnel is told about a packet, and tells.
#[inline(always)]
pub fn empty_key() -> bpf_tunnel_key {
    // SAFETY: integers and unions of integers; all zeroes is a value.
    unsafe { mem::zeroed() }
}
