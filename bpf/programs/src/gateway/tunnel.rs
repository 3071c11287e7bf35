// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The tunnel between a pod's node and its gateway: VXLAN (RFC 7348) by a device that takes the
//! other end and the identifier from each packet.
//!
//! A pod of the gateway's own node takes the same way without the tunnel: its program puts the
//! number of the rule into the packet's mark and the packet into the tunnel device.

use core::mem;

use aya_ebpf::{
    bindings::{BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_tunnel_key},
    helpers::generated::{bpf_redirect, bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key},
    programs::TcContext,
};
use bpf_abi::{
    DropReason,
    nat::{FIRST_RULE, LOCAL_NODE, TUNNEL_BACK, TUNNEL_MAC, TUNNEL_SOURCE_MAC, TunnelEnd, V6, fold},
};
use bpf_programs::packet::{self, MacPair};

use crate::maps::{NODE_ADDRESSES, TUNNEL_ENDS};

/// What the tunnel device got.
pub enum Arrival {
    /// A pod's packet for a rule.
    ForRule(Parcel),
    /// A packet for a pod of this node, from its gateway.
    Answer,
}

/// A pod's packet, as it arrived.
pub struct Parcel {
    /// The rule it is for.
    pub rule: u32,
    /// The outer source address; `None` for a pod of this node.
    pub from: Option<V6>,
    /// 4 or 6: of the outer addresses.
    pub ip_version: u8,
}

impl Parcel {
    /// The outer source address in a word, for a mapping.
    #[inline(always)]
    pub fn outer(&self) -> u32 {
        match self.from {
            Some(address) => fold(address),
            None => 0,
        }
    }

    /// The index of the node it came from.
    #[inline(always)]
    pub fn node(&self) -> Result<u16, DropReason> {
        let Some(address) = self.from else {
            return Ok(LOCAL_NODE);
        };
        // SAFETY: read at once; the daemon is the only writer.
        match unsafe { NODE_ADDRESSES.get(address) } {
            Some(index) => Ok(*index as u16),
            None => Err(DropReason::NatUnknownNode),
        }
    }

    /// The way back to the pod's node, without asking whether it is one.
    #[inline(always)]
    pub fn way_back(&self, ctx: &TcContext) -> Option<TunnelEnd> {
        Some(TunnelEnd {
            address: self.from?,
            ifindex: packet::ifindex(ctx),
            ip_version: self.ip_version,
            ..TunnelEnd::default()
        })
    }
}

/// Reads what the tunnel says of a packet; `None` when it is for nobody.
#[inline(always)]
pub fn arrival(ctx: &TcContext) -> Option<Arrival> {
    // Every field is written out: zeroing the whole first would be a call and a loop.
    let mut key = empty_key();
    let mut ip_version = 4;
    if !get_key(ctx, &mut key, 0) {
        ip_version = 6;
        if !get_key(ctx, &mut key, BPF_F_TUNINFO_IPV6.into()) {
            // SAFETY: the context is valid while the program runs.
            let mark = unsafe { (*ctx.skb.skb).mark };
            return (mark >= FIRST_RULE).then_some(Arrival::ForRule(Parcel {
                rule: mark,
                from: None,
                ip_version: 0,
            }));
        }
    }
    if key.tunnel_id == TUNNEL_BACK {
        return Some(Arrival::Answer);
    }
    // SAFETY: the kernel filled the union; every bit pattern is a value.
    let from = unsafe {
        if ip_version == 4 {
            [key.__bindgen_anon_1.remote_ipv4.to_be(), 0, 0, 0]
        } else {
            key.__bindgen_anon_1.remote_ipv6
        }
    };
    (key.tunnel_id >= FIRST_RULE).then_some(Arrival::ForRule(Parcel {
        rule: key.tunnel_id,
        from: Some(from),
        ip_version,
    }))
}

/// Sends a packet to a pod: through the tunnel, or on to the next program on this node.
#[inline(always)]
pub fn to_pod(ctx: &TcContext, node: u16) -> Result<crate::Verdict, DropReason> {
    if node == LOCAL_NODE {
        return Ok(crate::Verdict::Next);
    }
    let Some(end) = TUNNEL_ENDS.get(u32::from(node)) else {
        return Err(DropReason::TunnelFailed);
    };
    through(ctx, end)
}

/// Sends an answer through the tunnel.
#[inline(always)]
pub fn through(ctx: &TcContext, end: &TunnelEnd) -> Result<crate::Verdict, DropReason> {
    let mut key = empty_key();
    key.tunnel_id = TUNNEL_BACK;
    key.tunnel_ttl = 64;
    let mut flags = u64::from(BPF_F_ZERO_CSUM_TX);
    if end.ip_version == 4 {
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be(end.address[0]);
    } else if end.ip_version == 6 {
        key.__bindgen_anon_1.remote_ipv6 = end.address;
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
    packet::set_macs(
        ctx,
        MacPair {
            destination: packet::mac(&TUNNEL_MAC),
            source: packet::mac(&TUNNEL_SOURCE_MAC),
        },
    )?;
    // SAFETY: a plain helper call.
    Ok(crate::Verdict::Redirected(
        unsafe { bpf_redirect(end.ifindex, 0) } as i32,
    ))
}

#[inline(always)]
fn get_key(ctx: &TcContext, key: &mut bpf_tunnel_key, flags: u64) -> bool {
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

#[inline(always)]
fn empty_key() -> bpf_tunnel_key {
    // SAFETY: integers and unions of integers; all zeroes is a value.
    unsafe { mem::zeroed() }
}
