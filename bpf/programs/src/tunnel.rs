// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Into the tunnel between a pod's node and its gateway: VXLAN (RFC 7348) or Geneve (RFC 8926) by a
//! device that takes the other end and the identifier from each packet. Which of them it is makes no
//! difference here.
//!
//! Where the other end is this node the packet takes the same way without the tunnel: the
//! identifier goes into its mark, and it into the tunnel device.

use core::mem::{self, MaybeUninit};

use aya_ebpf::{
    bindings::{
        BPF_F_INGRESS, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_tunnel_key,
        bpf_tunnel_key__bindgen_ty_1 as Remote, bpf_tunnel_key__bindgen_ty_2 as Options,
        bpf_tunnel_key__bindgen_ty_3 as Local,
    },
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
    if end.is_local != 0 {
        return enter(ctx, end.ifindex, identifier);
    }
    set_macs(ctx)?;
    let (mut remote, mut local) = (end.address, end.source);
    let flags = if end.ip_version == 4 {
        // The helper wants IPv4 addresses in host order, and does not look at the words behind.
        remote[0] = u32::from_be(remote[0]);
        local[0] = u32::from_be(local[0]);
        u64::from(BPF_F_ZERO_CSUM_TX)
    } else if end.ip_version == 6 {
        u64::from(BPF_F_TUNINFO_IPV6)
    } else {
        return Err(DropReason::TunnelFailed);
    };
    // Every field is written out: zeroing the whole first would be a call and a loop.
    let mut key = bpf_tunnel_key {
        tunnel_id: identifier,
        __bindgen_anon_1: Remote {
            remote_ipv6: remote,
        },
        tunnel_tos: 0,
        tunnel_ttl: 64,
        __bindgen_anon_2: Options { tunnel_ext: 0 },
        tunnel_label: 0,
        __bindgen_anon_3: Local { local_ipv6: local },
    };
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

/// Puts a packet for a gateway of this node into the tunnel's device.
#[inline(always)]
pub fn enter(ctx: &TcContext, ifindex: u32, mark: u32) -> Result<i32, DropReason> {
    set_macs(ctx)?;
    ctx.set_mark(mark);
    // SAFETY: a plain helper call.
    Ok(unsafe { bpf_redirect(ifindex, u64::from(BPF_F_INGRESS)) } as i32)
}

#[inline(always)]
fn set_macs(ctx: &TcContext) -> Result<(), DropReason> {
    packet::set_macs(
        ctx,
        MacPair {
            destination: packet::mac(&TUNNEL_MAC),
            source: packet::mac(&TUNNEL_SOURCE_MAC),
        },
    )
}

/// The identifier of the tunnel a packet came out of; `None` where it came out of none.
#[inline(always)]
pub fn identifier(ctx: &TcContext) -> Option<u32> {
    arrival(ctx).map(|arrival| arrival.identifier)
}

/// What the tunnel says of a packet.
#[derive(Clone, Copy)]
pub struct Arrival {
    /// The tunnel's identifier.
    pub identifier: u32,
    /// 4 or 6: of the outer addresses.
    pub ip_version: u32,
    /// Outer source address, as words in memory order; IPv4 in the first one.
    pub from: [u32; 4],
}

/// Reads what the tunnel says of a packet; `None` where it came out of none.
#[inline(always)]
pub fn arrival(ctx: &TcContext) -> Option<Arrival> {
    let mut key = MaybeUninit::<bpf_tunnel_key>::uninit();
    let mut ip_version = 4;
    let mut got = get_key(ctx, &mut key, 0);
    if got == OTHER_FAMILY {
        ip_version = 6;
        got = get_key(ctx, &mut key, BPF_F_TUNINFO_IPV6.into());
    }
    if got != 0 {
        return None;
    }
    // SAFETY: the helper has filled it; integers and unions of integers, of which every bit pattern
    // is a value.
    let (key, mut from) = unsafe {
        let key = key.assume_init_ref();
        (key, key.__bindgen_anon_1.remote_ipv6)
    };
    if ip_version == 4 {
        from[0] = from[0].to_be();
    }
    Some(Arrival {
        identifier: key.tunnel_id,
        ip_version,
        from,
    })
}

/// The helper's answer for a packet that came by a tunnel, but over the other IP (`EPROTO`). For one
/// that came by none it has another, and need not be asked twice.
const OTHER_FAMILY: i64 = -71;

/// Not zeroed before: the helper writes all of it, whatever it answers.
#[inline(always)]
fn get_key(ctx: &TcContext, key: &mut MaybeUninit<bpf_tunnel_key>, flags: u64) -> i64 {
    // SAFETY: context and pointer are live, the size is the pointee's.
    unsafe {
        bpf_skb_get_tunnel_key(
            ctx.skb.skb,
            key.as_mut_ptr(),
            mem::size_of::<bpf_tunnel_key>() as u32,
            flags,
        )
    }
}
