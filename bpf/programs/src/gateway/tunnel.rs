// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What comes out of the tunnel, and the way back into it.

use core::ptr;

use aya_ebpf::programs::TcContext;
use bpf_abi::{
    DropReason,
    nat::{
        JUDGED_MARK, LAST_RULE, LOCAL_NODE, NATIVE_MARK, NATIVE_NODE, NATIVE_OUTER, TUNNEL_BACK,
        TunnelEnd, V6, fold,
    },
};
use bpf_programs::{
    packet::{self, ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, PROTOCOL_UDP},
    tunnel,
};

use crate::{
    Verdict,
    maps::{NODE_ADDRESSES, TUNNEL_ENDS},
};

/// The UDP port of the tunnel, network order; zero where it is not known. Written by the daemon before
/// the programs are loaded, and constant for them.
#[unsafe(no_mangle)]
static TUNNEL_PORT: u16 = 0;

/// The tunnel's port, network order. No new mapping gets it (`claim`); one of before, when the tunnel had
/// another port, may have it, and hears nothing more.
#[inline(always)]
pub fn port() -> u16 {
    // SAFETY: a live value; volatile, since the compiler does not know who writes it.
    unsafe { ptr::read_volatile(&raw const TUNNEL_PORT) }
}

/// Whether a packet from the fabric is one of the tunnel's, to be unwrapped: none of a mapping's.
/// Half of what a gateway gets are, and each would be looked for in vain among mappings.
#[inline(always)]
pub fn is_wrapped(ctx: &TcContext, is_ipv4: bool) -> bool {
    let (protocol_at, header_bytes) = if is_ipv4 {
        (ETHERNET_BYTES + 9, IPV4_BYTES)
    } else {
        (ETHERNET_BYTES + 6, IPV6_BYTES)
    };
    if is_ipv4 {
        // Options, and fragments but the first.
        let Some(first) = packet::read::<u8>(ctx, ETHERNET_BYTES) else {
            return false;
        };
        let Some(fragment) = packet::read::<u16>(ctx, ETHERNET_BYTES + 6) else {
            return false;
        };
        if first != 0x45 || fragment & 0x1fff_u16.to_be() != 0 {
            return false;
        }
    }
    let is_udp = packet::read::<u8>(ctx, protocol_at) == Some(PROTOCOL_UDP);
    let port = port();
    is_udp && port != 0 && packet::read::<u16>(ctx, ETHERNET_BYTES + header_bytes + 2) == Some(port)
}

/// A pod's packet, as it arrived.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Parcel {
    /// The rule it is for.
    pub rule: u32,
    /// 4 or 6: of the outer addresses; 0 where there are none, as for a pod of this node.
    pub ip_version: u32,
    /// Not zero: a pod of another node that is reached by the routing table; there is nothing outer.
    pub is_native: u32,
    /// The outer source address; zero where there is none.
    pub from: V6,
}

impl Parcel {
    /// The outer source address in a word, for a mapping.
    #[inline(always)]
    pub fn outer(&self) -> u32 {
        if self.is_native != 0 {
            return NATIVE_OUTER;
        }
        fold(self.from)
    }

    /// The index of the node it came from.
    #[inline(always)]
    pub fn node(&self) -> Result<u16, DropReason> {
        if self.is_native != 0 {
            return Ok(NATIVE_NODE);
        }
        if self.ip_version == 0 {
            return Ok(LOCAL_NODE);
        }
        // SAFETY: read at once; the daemon is the only writer.
        match unsafe { NODE_ADDRESSES.get(self.from) } {
            Some(index) => Ok(*index as u16),
            None => Err(DropReason::NatUnknownNode),
        }
    }

    /// The way back to the pod's node, without asking whether it is one.
    #[inline(always)]
    pub fn way_back(&self, ctx: &TcContext) -> TunnelEnd {
        TunnelEnd {
            address: self.from,
            ifindex: packet::ifindex(ctx),
            ip_version: self.ip_version as u8,
            ..TunnelEnd::default()
        }
    }
}

/// Reads what the tunnel says of a packet. False for packets to pods of this node from their
/// gateway, which are not judged here. The rule of what is for nobody is none: 0, and so is that of
/// packets without a tunnel that only their connection tells the rule of.
#[inline(always)]
pub fn arrival(ctx: &TcContext, parcel: &mut Parcel) -> bool {
    if let Some(arrival) = tunnel::arrival(ctx) {
        *parcel = Parcel {
            rule: arrival.identifier,
            ip_version: arrival.ip_version,
            is_native: 0,
            from: arrival.from,
        };
        return arrival.identifier != TUNNEL_BACK;
    }
    // SAFETY: the context is valid while the program runs.
    let mark = unsafe { (*ctx.skb.skb).mark };
    // Nothing outer; zero is the address of nobody, and stands in mappings of this node's pods.
    *parcel = Parcel {
        rule: mark & LAST_RULE,
        ip_version: 0,
        is_native: mark & NATIVE_MARK,
        from: [0; 4],
    };
    // The kernel may get the packet: its rules are not to take the number for theirs.
    ctx.set_mark(0);
    true
}

/// Sends a packet to a pod: through the tunnel that ends there, or on to the next program on this
/// node.
#[inline(always)]
pub fn to_pod(ctx: &TcContext, node: u16, end: &TunnelEnd) -> Result<Verdict, DropReason> {
    if node == LOCAL_NODE {
        ctx.set_mark(JUDGED_MARK);
        return Ok(Verdict::Next);
    }
    through(ctx, end)
}

/// Where the tunnel to a node ends.
#[inline(always)]
pub fn end_at(node: u16) -> Result<&'static TunnelEnd, DropReason> {
    let end = TUNNEL_ENDS.get(u32::from(node));
    end.ok_or(DropReason::TunnelFailed)
}

/// Sends an answer through the tunnel.
#[inline(always)]
pub fn through(ctx: &TcContext, end: &TunnelEnd) -> Result<Verdict, DropReason> {
    tunnel::send(ctx, end, TUNNEL_BACK).map(Verdict::Redirected)
}
