// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! ICMP errors made of the packets they are about.

use aya_ebpf::{helpers::generated::bpf_skb_change_tail, programs::TcContext};
use bpf_abi::{
    DropReason, fold_checksum,
    nat::{ANSWERS_AT_ONCE, AnswerLimit, V6},
};

use crate::packet::{
    self, ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP,
};

/// The bytes go between the Ethernet and the IP header (`enum bpf_adj_room_mode`).
const BPF_ADJ_ROOM_MAC: u32 = 1;

/// What is wrong.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Complaint {
    /// Type and code of the answer to IPv4.
    v4: u32,
    /// Type and code of the answer to IPv6.
    v6: u32,
    /// What the way takes, in bytes; zero where that is not the point.
    mtu: u32,
    /// The number of what it is counted as.
    pub reason: u32,
}

impl Complaint {
    /// No address or port is left.
    #[inline(always)]
    pub fn exhausted(reason: DropReason) -> Self {
        Self {
            v4: kind(3, 1),
            v6: kind(1, 3),
            mtu: 0,
            reason: u32::from(reason.number()),
        }
    }

    /// TTL or hop limit used up.
    #[inline(always)]
    pub fn ttl_exceeded() -> Self {
        Self {
            v4: kind(11, 0),
            v6: kind(3, 0),
            mtu: 0,
            reason: u32::from(DropReason::TtlExceeded.number()),
        }
    }

    /// Larger than the way takes (RFC 1191 §4, RFC 4443 §3.2).
    #[inline(always)]
    pub fn too_big(mtu: u32) -> Self {
        Self {
            v4: kind(3, 4),
            v6: kind(2, 0),
            mtu,
            reason: u32::from(DropReason::TooBig.number()),
        }
    }
}

/// Type and code as an ICMP header begins.
const fn kind(kind: u8, code: u8) -> u32 {
    u32::from_ne_bytes([kind, code, 0, 0])
}

/// Whether this CPU may send one more, which is noted.
#[inline(always)]
pub fn may_answer(limit: &mut AnswerLimit, now: u32) -> bool {
    limit.sent = limit.sent.saturating_sub(now.wrapping_sub(limit.tick));
    limit.tick = now;
    if limit.sent >= ANSWERS_AT_ONCE {
        return false;
    }
    limit.sent += 1;
    true
}

/// How much of the packet's payload is quoted: eight bytes, of TCP the whole header, and behind a
/// fragment header the ports. The kernel does not cut a packet before the end of a checksum that is
/// still to be filled in.
pub struct Quotation {
    is_long: bool,
}

impl Quotation {
    const BYTES: usize = 8;
    const LONG_BYTES: usize = 20;

    /// Of a packet of this protocol, which begins behind an extension header or not.
    #[inline(always)]
    pub fn of(protocol: u8, is_extended: bool) -> Self {
        Self {
            is_long: protocol == PROTOCOL_TCP || is_extended,
        }
    }

    #[inline(always)]
    fn bytes(&self) -> u32 {
        if self.is_long {
            Self::LONG_BYTES as u32
        } else {
            Self::BYTES as u32
        }
    }
}

/// Bytes of an error's own header.
const ICMP_BYTES: usize = 8;

/// Keeps an IP header and what is quoted, and puts this many bytes in front of them.
#[inline(always)]
fn make_room(ctx: &TcContext, quoted: u32, room: u32) -> Option<()> {
    // SAFETY: a helper call with numbers and the live context.
    let cut = unsafe { bpf_skb_change_tail(ctx.skb.skb, ETHERNET_BYTES + quoted, 0) };
    if cut != 0 {
        return None;
    }
    ctx.adjust_room(room as i32, BPF_ADJ_ROOM_MAC, 0).ok()?;
    packet::pull(ctx, ETHERNET_BYTES + quoted + room);
    Some(())
}

/// Makes an IPv4 packet the error about it (RFC 792).
#[inline(always)]
pub fn make_ipv4(
    ctx: &TcContext,
    quotation: &Quotation,
    source: u32,
    destination: u32,
    complaint: &Complaint,
) -> Option<()> {
    const IP: usize = IPV4_BYTES as usize;
    const ROOM: u32 = IPV4_BYTES + ICMP_BYTES as u32;
    const ICMP_AT: u32 = ETHERNET_BYTES + IPV4_BYTES;
    let rest = complaint.mtu & 0xffff;
    let quoted = IPV4_BYTES + quotation.bytes();
    make_room(ctx, quoted, ROOM)?;
    let head = [
        u32::from_ne_bytes([0x45, 0xc0, 0, (ROOM + quoted) as u8]),
        0,
        u32::from_ne_bytes([64, PROTOCOL_ICMP, 0, 0]),
        source,
        destination,
    ];
    packet::write(ctx, ETHERNET_BYTES, head)?;
    packet::write(ctx, ICMP_AT, [complaint.v4, rest.to_be()])?;
    let head_sum = packet::sum::<IP>(ctx, ETHERNET_BYTES, 0)?;
    let sum = if quotation.is_long {
        packet::sum::<{ ICMP_BYTES + IP + Quotation::LONG_BYTES }>(ctx, ICMP_AT, 0)?
    } else {
        packet::sum::<{ ICMP_BYTES + IP + Quotation::BYTES }>(ctx, ICMP_AT, 0)?
    };
    packet::write(ctx, ETHERNET_BYTES + 10, !fold_checksum(head_sum))?;
    packet::write(ctx, ICMP_AT + 2, !fold_checksum(sum))
}

/// Makes an IPv6 packet the error about it (RFC 4443 §3).
#[inline(always)]
pub fn make_ipv6(
    ctx: &TcContext,
    quotation: &Quotation,
    source: V6,
    destination: V6,
    complaint: &Complaint,
) -> Option<()> {
    const IP: usize = IPV6_BYTES as usize;
    const ROOM: u32 = IPV6_BYTES + ICMP_BYTES as u32;
    const ICMP_AT: u32 = ETHERNET_BYTES + IPV6_BYTES;
    const ADDRESSES_AT: u32 = ETHERNET_BYTES + 8;
    const ADDRESSES: usize = 32;
    let rest = complaint.mtu;
    let quoted = IPV6_BYTES + quotation.bytes();
    let payload = ICMP_BYTES as u32 + quoted;
    make_room(ctx, quoted, ROOM)?;
    let head = [
        u32::from_ne_bytes([0x60, 0, 0, 0]),
        u32::from_ne_bytes([0, payload as u8, PROTOCOL_ICMPV6, 64]),
    ];
    packet::write(ctx, ETHERNET_BYTES, head)?;
    packet::write(ctx, ADDRESSES_AT, source)?;
    packet::write(ctx, ADDRESSES_AT + 16, destination)?;
    packet::write(ctx, ICMP_AT, [complaint.v6, rest.to_be()])?;
    // The pseudo-header (RFC 8200 §8.1): the addresses stand before the error, the rest is here.
    let seed = payload.to_be() + u32::from(PROTOCOL_ICMPV6).to_be();
    let sum = if quotation.is_long {
        const ALL: usize = ADDRESSES + ICMP_BYTES + IP + Quotation::LONG_BYTES;
        packet::sum::<ALL>(ctx, ADDRESSES_AT, seed)?
    } else {
        const ALL: usize = ADDRESSES + ICMP_BYTES + IP + Quotation::BYTES;
        packet::sum::<ALL>(ctx, ADDRESSES_AT, seed)?
    };
    packet::write(ctx, ICMP_AT + 2, !fold_checksum(sum))
}
