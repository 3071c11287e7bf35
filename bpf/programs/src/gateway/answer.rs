// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! ICMP errors of the gateway's own, to pods: the packet they are about is turned into the answer.
//! The kernel cannot do it, since it must not see such a packet.

use core::ptr;

use aya_ebpf::{
    helpers::generated::{bpf_csum_diff, bpf_skb_change_tail},
    programs::TcContext,
};
use bpf_abi::{
    DropReason, fold_checksum,
    nat::{ANSWERS_AT_ONCE, V6},
};
use bpf_programs::{
    fib,
    packet::{self, ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, PROTOCOL_ICMPV6, PROTOCOL_TCP},
};

use crate::{
    Refusal, Verdict, count,
    family::Family,
    mapping,
    maps::{ANSWER_LIMIT, RULES},
    route, transport, tunnel,
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
    /// What the way out takes, in bytes; zero where that is not the point.
    mtu: u32,
    /// The number of what it is counted as.
    reason: u32,
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

    /// Larger than the way out takes.
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

/// Sends the answer that the work has instead of the packet, and counts the packet as refused.
/// Where there can be no answer, it is only refused.
#[inline(always)]
pub fn send<F: Family>(ctx: &TcContext) -> Result<Verdict, Refusal> {
    let gone = || Refusal::of(DropReason::NatUnknownRule);
    let work = F::work().ok_or_else(gone)?;
    // SAFETY: a removed element stays readable while the program runs.
    let rule = unsafe { RULES.get(work.parcel.rule) }.ok_or_else(gone)?;
    let complaint = work.complaint;
    count::refused_by_number(ctx, complaint.reason, Some(rule.slot));
    let (count, addresses) = F::addresses(rule);
    let failed = |_| Refusal::of(DropReason::RewriteFailed);
    if count == 0 || !may_answer() {
        return Ok(Verdict::Silence);
    }
    let source = addresses[0];
    let quoted = Quotation::of(work.header.protocol);
    if F::VERSION == 4 {
        make_ipv4(
            ctx,
            &quoted,
            F::widen(source)[0],
            F::widen(work.header.source)[0],
            &complaint,
        )
        .map_err(failed)?;
    } else {
        make_ipv6(
            ctx,
            &quoted,
            F::widen(source),
            F::widen(work.header.source),
            &complaint,
        )
        .map_err(failed)?;
    }
    if work.parcel.is_native != 0 {
        let pod = work.header.source;
        let next_hop = route::to_pod::<F>(ctx, work, source, pod, F::ICMP).map_err(Refusal::of)?;
        return Ok(Verdict::Redirected(fib::leave(next_hop)));
    }
    if work.parcel.ip_version == 0 {
        return Ok(Verdict::Next);
    }
    tunnel::through(ctx, &work.parcel.way_back(ctx)).map_err(Refusal::of)
}

#[inline(always)]
fn may_answer() -> bool {
    let Some(limit) = ANSWER_LIMIT.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: points to this CPU's value, which only this program touches while it runs.
    let limit = unsafe { &mut *limit };
    let now = mapping::now();
    limit.sent = limit.sent.saturating_sub(now.wrapping_sub(limit.tick));
    limit.tick = now;
    if limit.sent >= ANSWERS_AT_ONCE {
        return false;
    }
    limit.sent += 1;
    true
}

/// How much of the packet's payload is quoted: eight bytes, and of TCP the whole header. The kernel
/// does not cut a packet before the end of a checksum that is still to be filled in.
struct Quotation {
    is_tcp: bool,
}

impl Quotation {
    const BYTES: u32 = 8;
    const MORE_BYTES: u32 = 12;

    #[inline(always)]
    fn of(protocol: u8) -> Self {
        Self {
            is_tcp: protocol == PROTOCOL_TCP,
        }
    }

    #[inline(always)]
    fn bytes(&self) -> u32 {
        if self.is_tcp {
            Self::BYTES + Self::MORE_BYTES
        } else {
            Self::BYTES
        }
    }

    /// What is quoted behind the first eight bytes, which end here.
    #[inline(always)]
    fn more(&self, ctx: &TcContext, at: u32) -> Result<[u32; 3], ()> {
        if self.is_tcp {
            packet::read(ctx, at).ok_or(())
        } else {
            Ok([0; 3])
        }
    }
}

/// Keeps an IP header and what is quoted, and puts this many bytes in front of them.
#[inline(always)]
fn make_room(ctx: &TcContext, quoted: u32, room: u32) -> Result<(), ()> {
    // SAFETY: a helper call with numbers and the live context.
    let cut = unsafe { bpf_skb_change_tail(ctx.skb.skb, ETHERNET_BYTES + quoted, 0) };
    if cut != 0 {
        return Err(());
    }
    ctx.adjust_room(room as i32, BPF_ADJ_ROOM_MAC, 0)
        .map_err(|_| ())?;
    packet::pull(ctx, transport::READ_BYTES + room);
    Ok(())
}

/// RFC 792.
#[inline(always)]
fn make_ipv4(
    ctx: &TcContext,
    quotation: &Quotation,
    source: u32,
    destination: u32,
    complaint: &Complaint,
) -> Result<(), ()> {
    const ROOM: u32 = 28;
    let rest = complaint.mtu & 0xffff;
    let quoted = IPV4_BYTES + quotation.bytes();
    make_room(ctx, quoted, ROOM)?;
    let quote: [u32; 7] = packet::read(ctx, ETHERNET_BYTES + ROOM).ok_or(())?;
    let more = quotation.more(ctx, ETHERNET_BYTES + ROOM + 28)?;
    let mut icmp = [
        complaint.v4,
        rest.to_be(),
        quote[0],
        quote[1],
        quote[2],
        quote[3],
        quote[4],
        quote[5],
        quote[6],
        more[0],
        more[1],
        more[2],
    ];
    let sum = sum_of(&mut icmp, 0);
    let mut ip: [u32; 5] = [
        u32::from_ne_bytes([0x45, 0xc0, 0, (ROOM + quoted) as u8]),
        0,
        u32::from_ne_bytes([64, 1, 0, 0]),
        source,
        destination,
    ];
    let ip_sum = sum_of(&mut ip, 0);
    packet::write(ctx, ETHERNET_BYTES, ip).ok_or(())?;
    packet::write(ctx, ETHERNET_BYTES + 10, ip_sum).ok_or(())?;
    packet::write(ctx, ETHERNET_BYTES + 20, [icmp[0], icmp[1]]).ok_or(())?;
    packet::write(ctx, ETHERNET_BYTES + 22, sum).ok_or(())
}

/// RFC 4443 §3.
#[inline(always)]
fn make_ipv6(
    ctx: &TcContext,
    quotation: &Quotation,
    source: V6,
    destination: V6,
    complaint: &Complaint,
) -> Result<(), ()> {
    const ROOM: u32 = 48;
    let rest = complaint.mtu;
    let quoted = IPV6_BYTES + quotation.bytes();
    let payload = 8 + quoted;
    make_room(ctx, quoted, ROOM)?;
    let mut quote: [u32; 12] = packet::read(ctx, ETHERNET_BYTES + ROOM).ok_or(())?;
    let mut more = quotation.more(ctx, ETHERNET_BYTES + ROOM + 48)?;
    let icmp = [complaint.v6, rest.to_be()];
    // The pseudo-header (RFC 8200 §8.1) and the error's own header.
    let mut covered: [u32; 12] = [
        source[0],
        source[1],
        source[2],
        source[3],
        destination[0],
        destination[1],
        destination[2],
        destination[3],
        payload.to_be(),
        u32::from(PROTOCOL_ICMPV6).to_be(),
        icmp[0],
        icmp[1],
    ];
    let seed = raw_sum(&mut covered, 0);
    let seed = raw_sum(&mut quote, seed);
    let sum = sum_of(&mut more, seed);
    let head = [
        u32::from_ne_bytes([0x60, 0, 0, 0]),
        u32::from_ne_bytes([0, payload as u8, PROTOCOL_ICMPV6, 64]),
    ];
    packet::write(ctx, ETHERNET_BYTES, head).ok_or(())?;
    packet::write(ctx, ETHERNET_BYTES + 8, source).ok_or(())?;
    packet::write(ctx, ETHERNET_BYTES + 24, destination).ok_or(())?;
    packet::write(ctx, ETHERNET_BYTES + 40, icmp).ok_or(())?;
    packet::write(ctx, ETHERNET_BYTES + 42, sum).ok_or(())
}

/// The Internet checksum of words in memory order, as it is written (RFC 1071).
#[inline(always)]
fn sum_of<const N: usize>(words: &mut [u32; N], seed: u32) -> u16 {
    !fold_checksum(raw_sum(words, seed))
}

#[inline(always)]
fn raw_sum<const N: usize>(words: &mut [u32; N], seed: u32) -> u32 {
    // SAFETY: the pointer is to as many live bytes, and no bytes are taken away.
    let sum = unsafe { bpf_csum_diff(ptr::null_mut(), 0, words.as_mut_ptr(), N as u32 * 4, seed) };
    sum as u32
}
