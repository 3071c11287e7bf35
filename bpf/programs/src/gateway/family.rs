// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What differs between IPv4 and IPv6.

use aya_ebpf::{
    btf_maps::{HashMap, LruHashMap},
    programs::TcContext,
};
use bpf_abi::{
    DropReason,
    nat::{
        DEFAULT_NAT_ENTRIES, FragmentEntry, FragmentKey, MAX_FRAGMENTED, NatEntry, NatKey, NatRule,
        V4, V6,
    },
};
use bpf_programs::{
    forward::{self, Obstacle},
    packet::{self, ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, Origin},
};

use crate::{
    maps::{FRAGMENTS_V4, FRAGMENTS_V6, NAT_V4, NAT_V6, WORK_V4, WORK_V6},
    work::Work,
};

/// The mappings of a family.
pub type Mappings<A> = HashMap<NatKey<A>, NatEntry<A>, { DEFAULT_NAT_ENTRIES as usize }>;
/// The fragmented packets of a family.
pub type Fragmented<A> = LruHashMap<FragmentKey<A>, FragmentEntry<A>, { MAX_FRAGMENTED as usize }>;

/// Which part of a packet this is, as a number: the verifier follows numbers in memory as one case.
pub mod part {
    /// All of it.
    pub const WHOLE: u32 = 0;
    /// The first fragment, which has the ports.
    pub const FIRST: u32 = 1;
    /// Another fragment.
    pub const LATER: u32 = 2;
}

/// What decides anything about a packet.
#[derive(Clone, Copy)]
pub struct Header<A> {
    pub source: A,
    pub destination: A,
    /// Protocol of the payload, behind a fragment header.
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub traffic_class: u8,
    /// Bytes of the packet; for GSO frames, of all segments together.
    pub total_bytes: u32,
    /// Not zero: may not be fragmented.
    pub dont_fragment: u32,
    /// One of [`part`].
    pub part: u32,
    /// What all fragments of a packet carry; IPv4's in the first half of memory.
    pub identification: u32,
    /// Offset of the payload in the frame.
    pub payload_at: u32,
}

/// IPv4.
pub struct Ipv4;
/// IPv6.
pub struct Ipv6;

/// What differs.
pub trait Family {
    /// An address as words in memory order.
    type Address: Copy + 'static;
    const VERSION: u8;
    /// Bytes of the header without extensions.
    const HEADER_BYTES: u32;
    /// Offset of the source address in the frame.
    const SOURCE_AT: u32;
    /// Offset of the destination address in the frame.
    const DESTINATION_AT: u32;
    /// Protocol number of the family's ICMP.
    const ICMP: u8;
    /// ICMP types of echo requests and replies.
    const ECHO: [u8; 2];
    /// The address that stands for any.
    const ANY: Self::Address;

    fn header(ctx: &TcContext) -> Result<Header<Self::Address>, DropReason>;
    fn mappings() -> &'static Mappings<Self::Address>;
    fn fragmented() -> &'static Fragmented<Self::Address>;
    fn work() -> Option<&'static mut Work<Self::Address>>;
    fn addresses(rule: &NatRule) -> (u8, &[Self::Address; 8]);
    fn widen(address: Self::Address) -> V6;
    /// Whether the family's ICMP says something about another packet (RFC 792, RFC 4443).
    fn is_error(icmp_type: u8) -> bool;
    /// Lowers TTL or hop limit by one.
    fn lower(ctx: &TcContext, ttl: u8, origin: Origin) -> Result<(), DropReason>;
}

impl Family for Ipv4 {
    type Address = V4;
    const VERSION: u8 = 4;
    const HEADER_BYTES: u32 = IPV4_BYTES;
    const SOURCE_AT: u32 = ETHERNET_BYTES + 12;
    const DESTINATION_AT: u32 = ETHERNET_BYTES + 16;
    const ICMP: u8 = 1;
    const ECHO: [u8; 2] = [8, 0];
    const ANY: V4 = [0];

    #[inline(always)]
    fn header(ctx: &TcContext) -> Result<Header<V4>, DropReason> {
        let header = packet::ipv4(ctx)?;
        if header.header_bytes != IPV4_BYTES {
            return Err(DropReason::NatUnsupported);
        }
        let at = ETHERNET_BYTES;
        let identification: u16 = packet::read(ctx, at + 4).ok_or(DropReason::Truncated)?;
        let offset: u16 = packet::read(ctx, at + 6).ok_or(DropReason::Truncated)?;
        let part = if !header.is_fragment {
            part::WHOLE
        } else if u16::from_be(offset) & 0x1fff == 0 {
            part::FIRST
        } else {
            part::LATER
        };
        Ok(Header {
            source: [header.source],
            destination: [header.destination],
            protocol: header.protocol,
            ttl: header.ttl,
            traffic_class: header.tos,
            total_bytes: header.total_bytes,
            dont_fragment: u32::from(header.dont_fragment),
            part,
            identification: u32::from(identification),
            payload_at: ETHERNET_BYTES + IPV4_BYTES,
        })
    }

    #[inline(always)]
    fn mappings() -> &'static Mappings<V4> {
        &NAT_V4
    }

    #[inline(always)]
    fn fragmented() -> &'static Fragmented<V4> {
        &FRAGMENTS_V4
    }

    #[inline(always)]
    fn work() -> Option<&'static mut Work<V4>> {
        let work = WORK_V4.get_ptr_mut(0)?;
        // SAFETY: points to this CPU's value, and programs on one CPU run one after another; every
        // bit pattern is a value.
        Some(unsafe { &mut *work })
    }

    #[inline(always)]
    fn addresses(rule: &NatRule) -> (u8, &[V4; 8]) {
        (rule.count_v4, &rule.v4)
    }

    #[inline(always)]
    fn widen(address: V4) -> V6 {
        [address[0], 0, 0, 0]
    }

    #[inline(always)]
    fn is_error(icmp_type: u8) -> bool {
        // Unreachable, source quench, time exceeded, parameter problem; redirects are the link's.
        matches!(icmp_type, 3 | 4 | 11 | 12)
    }

    #[inline(always)]
    fn lower(ctx: &TcContext, ttl: u8, _origin: Origin) -> Result<(), DropReason> {
        packet::decrement_ttl(ctx, ttl)
    }
}

impl Family for Ipv6 {
    type Address = V6;
    const VERSION: u8 = 6;
    const HEADER_BYTES: u32 = IPV6_BYTES;
    const SOURCE_AT: u32 = ETHERNET_BYTES + 8;
    const DESTINATION_AT: u32 = ETHERNET_BYTES + 24;
    const ICMP: u8 = packet::PROTOCOL_ICMPV6;
    const ECHO: [u8; 2] = [128, 129];
    const ANY: V6 = [0; 4];

    #[inline(always)]
    fn header(ctx: &TcContext) -> Result<Header<V6>, DropReason> {
        let header = packet::ipv6(ctx)?;
        let mut protocol = header.protocol;
        let mut part = part::WHOLE;
        let mut identification = 0;
        let mut payload_at = ETHERNET_BYTES + IPV6_BYTES;
        if protocol == packet::PROTOCOL_FRAGMENT {
            // RFC 8200 §4.5.
            let at = payload_at;
            protocol = packet::read(ctx, at).ok_or(DropReason::Truncated)?;
            let offset: u16 = packet::read(ctx, at + 2).ok_or(DropReason::Truncated)?;
            identification = packet::read(ctx, at + 4).ok_or(DropReason::Truncated)?;
            payload_at += 8;
            part = if u16::from_be(offset) & 0xfff8 == 0 {
                part::FIRST
            } else {
                part::LATER
            };
        }
        Ok(Header {
            source: header.source,
            destination: header.destination,
            protocol,
            ttl: header.hop_limit,
            traffic_class: header.traffic_class,
            total_bytes: header.total_bytes,
            dont_fragment: 1,
            part,
            identification,
            payload_at,
        })
    }

    #[inline(always)]
    fn mappings() -> &'static Mappings<V6> {
        &NAT_V6
    }

    #[inline(always)]
    fn fragmented() -> &'static Fragmented<V6> {
        &FRAGMENTS_V6
    }

    #[inline(always)]
    fn work() -> Option<&'static mut Work<V6>> {
        let work = WORK_V6.get_ptr_mut(0)?;
        // SAFETY: points to this CPU's value, and programs on one CPU run one after another; every
        // bit pattern is a value.
        Some(unsafe { &mut *work })
    }

    #[inline(always)]
    fn addresses(rule: &NatRule) -> (u8, &[V6; 8]) {
        (rule.count_v6, &rule.v6)
    }

    #[inline(always)]
    fn widen(address: V6) -> V6 {
        address
    }

    #[inline(always)]
    fn is_error(icmp_type: u8) -> bool {
        // Everything below 128 is an error (RFC 4443 §2.1); four of them are defined.
        matches!(icmp_type, 1..=4)
    }

    #[inline(always)]
    fn lower(ctx: &TcContext, ttl: u8, origin: Origin) -> Result<(), DropReason> {
        packet::decrement_hop_limit(ctx, ttl, origin)
    }
}

/// Whether a packet may go on over a link with this MTU, and its TTL allows it.
#[inline(always)]
pub fn check<F: Family>(
    ctx: &TcContext,
    header: &Header<F::Address>,
    mtu: u32,
) -> Result<(), Obstacle> {
    forward::check(
        ctx,
        header.ttl,
        header.protocol,
        header.payload_at - ETHERNET_BYTES,
        header.total_bytes,
        header.dont_fragment != 0,
        mtu,
    )
}

/// Bytes of the largest packet this one will be on a wire: of one segment for GSO frames.
#[inline(always)]
pub fn wire_bytes<F: Family>(ctx: &TcContext, header: &Header<F::Address>) -> u32 {
    packet::wire_bytes(
        ctx,
        header.protocol,
        header.payload_at - ETHERNET_BYTES,
        header.total_bytes,
    )
}
