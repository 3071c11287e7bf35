// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The largest segment a TCP end asks for, lowered to what a tunnel takes whole (as RFC 4459 §3.2
//! describes it). Without it a connection works as well, in fragments.

use aya_ebpf::{helpers::generated::bpf_l4_csum_replace, programs::TcContext};

use crate::packet::{self, ETHERNET_BYTES};

/// Bytes of a TCP header without options.
const TCP_BYTES: u32 = 20;

/// Lowers the maximum segment size of a SYN (RFC 9293 §3.7.1). `ip_bytes` are those of the IP header
/// before TCP. Every stack puts the option first; elsewhere it is not looked for.
#[inline(always)]
pub fn clamp(ctx: &TcContext, ip_bytes: u32, tunnel_mtu: u16) {
    const KIND_AND_LENGTH: u16 = u16::from_ne_bytes([2, 4]);
    let at = ETHERNET_BYTES + ip_bytes;
    if tunnel_mtu == 0 {
        return;
    }
    let (Some(offset), Some(flags)) = (
        packet::read::<u8>(ctx, at + 12),
        packet::read::<u8>(ctx, at + 13),
    ) else {
        return;
    };
    if flags & 0x02 == 0 || offset >> 4 < 6 {
        return;
    }
    let option = at + TCP_BYTES;
    let (Some(head), Some(asked)) = (
        packet::read::<u16>(ctx, option),
        packet::read::<u16>(ctx, option + 2),
    ) else {
        return;
    };
    let limit = u32::from(tunnel_mtu).saturating_sub(ip_bytes + TCP_BYTES) as u16;
    if head != KIND_AND_LENGTH || u16::from_be(asked) <= limit {
        return;
    }
    let limit = limit.to_be();
    // SAFETY: a helper call with numbers and the live context.
    let replaced =
        unsafe { bpf_l4_csum_replace(ctx.skb.skb, at + 16, u64::from(asked), u64::from(limit), 2) };
    if replaced == 0 {
        let _ = ctx.store((option + 2) as usize, &limit, 0);
    }
}
