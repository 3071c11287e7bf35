// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Reading and writing headers. All pointer arithmetic of the programs is in this file.

use core::ptr;

use aya_ebpf::{
    bindings::BPF_F_RECOMPUTE_CSUM, helpers::generated::bpf_csum_diff, programs::TcContext,
};
use bpf_abi::DropReason;

/// Bytes of an Ethernet header, and so the offset of the IP header.
pub const ETHERNET_BYTES: u32 = 14;
/// Bytes of an IPv4 header without options.
pub const IPV4_BYTES: u32 = 20;
/// Bytes of an IPv6 header without extension headers.
pub const IPV6_BYTES: u32 = 40;

/// What is read directly at most: Ethernet, IPv6, and four bytes of ports.
const PARSED_BYTES: u32 = ETHERNET_BYTES + IPV6_BYTES + 4;

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_ARP: u16 = 0x0806;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
pub const ETHERTYPE_VLAN: u16 = 0x8100;
pub const ETHERTYPE_QINQ: u16 = 0x88a8;

pub const PROTOCOL_HOP_BY_HOP: u8 = 0;
pub const PROTOCOL_ICMP: u8 = 1;
pub const PROTOCOL_TCP: u8 = 6;
pub const PROTOCOL_UDP: u8 = 17;
pub const PROTOCOL_FRAGMENT: u8 = 44;
pub const PROTOCOL_ICMPV6: u8 = 58;

/// An address as one word in memory order.
pub type Ipv4 = u32;

/// An address as words in memory order.
pub type Ipv6 = [u32; 4];

/// A MAC address in memory order. Half words, because every MAC address in a frame or in a map
/// value begins at an even offset.
pub type Mac = [u16; 3];

/// Types a header field can be read as: integers and arrays of them, for which any bytes are a
/// value.
pub trait Field: Copy {}
impl Field for u8 {}
impl Field for u16 {}
impl Field for u32 {}
impl<const N: usize> Field for [u8; N] {}
impl<const N: usize> Field for [u16; N] {}
impl<const N: usize> Field for [u32; N] {}

/// The fields of an IPv4 header that decide anything.
pub struct Ipv4Header {
    /// Bytes of the header itself.
    pub header_bytes: u32,
    /// Bytes of the packet; for GSO frames, of all segments together.
    pub total_bytes: u32,
    pub tos: u8,
    pub ttl: u8,
    pub protocol: u8,
    /// May not be fragmented.
    pub dont_fragment: bool,
    /// Part of a fragmented packet, so that ports are not where they seem to be.
    pub is_fragment: bool,
    pub source: Ipv4,
    pub destination: Ipv4,
}

/// The fields of an IPv6 header that decide anything.
pub struct Ipv6Header {
    /// Bytes of the packet; for GSO frames, of all segments together.
    pub total_bytes: u32,
    pub traffic_class: u8,
    pub hop_limit: u8,
    /// Next header: an upper layer or the first extension header.
    pub protocol: u8,
    pub source: Ipv6,
    pub destination: Ipv6,
}

/// Whose device a packet came in by.
#[derive(Clone, Copy)]
pub enum Origin {
    /// A local pod's.
    Pod,
    /// One towards the fabric.
    Fabric,
}

/// Source and destination of the Ethernet header.
#[derive(Clone, Copy)]
pub struct MacPair {
    pub destination: Mac,
    pub source: Mac,
}

/// Makes the headers readable: drivers may leave them in page fragments. Short frames stay short;
/// every read checks for itself.
#[inline(always)]
pub fn pull_headers(ctx: &TcContext) {
    pull(ctx, PARSED_BYTES);
}

/// Makes the first bytes readable, as many as there are up to this number.
#[inline(always)]
pub fn pull(ctx: &TcContext, bytes: u32) {
    let linear = ctx.data_end() - ctx.data();
    if linear < bytes as usize && (linear as u32) < ctx.len() {
        // On failure the reads that follow find too little and refuse the packet as truncated.
        let _ = ctx.pull_data(if ctx.len() < bytes { ctx.len() } else { bytes });
    }
}

/// Reads a `T` at `offset`, if the frame's readable part reaches so far.
///
/// Headers begin at odd multiples of two, so words are not aligned. The kernel's verifier allows
/// such loads where the machine has them (x86-64, arm64), and the eBPF target has one load
/// instruction per size; `read_unaligned` would make four of it.
#[inline(always)]
pub fn read<T: Field>(ctx: &TcContext, offset: u32) -> Option<T> {
    let at = ctx.data() + offset as usize;
    if at + size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: `at .. at + size_of::<T>()` is inside `data .. data_end`, checked above and by the
    // verifier; any bytes are a `T`; about alignment see above.
    Some(unsafe { ptr::read(at as *const T) })
}

/// Writes a `T` at `offset`, if the frame's readable part reaches so far.
#[inline(always)]
pub fn write<T: Field>(ctx: &TcContext, offset: u32, value: T) -> Option<()> {
    let at = ctx.data() + offset as usize;
    if at + size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: as in `read`; direct writes are allowed since the kernel unshares the header of a
    // frame before it runs a program that contains them.
    unsafe { ptr::write(at as *mut T, value) };
    Some(())
}

/// The sum of so many bytes from `offset` on, a multiple of four, on top of another one (RFC 1071). In
/// place: a copy would take room on the stack.
#[inline(always)]
pub fn sum<const BYTES: usize>(ctx: &TcContext, offset: u32, seed: u32) -> Option<u32> {
    let at = ctx.data() + offset as usize;
    if at + BYTES > ctx.data_end() {
        return None;
    }
    // SAFETY: the pointer is to as many readable bytes, checked above and by the verifier, and no
    // bytes are taken away.
    let sum = unsafe { bpf_csum_diff(ptr::null_mut(), 0, at as *mut u32, BYTES as u32, seed) };
    Some(sum as u32)
}

/// The ethertype in host order.
#[inline(always)]
pub fn ethertype(ctx: &TcContext) -> Option<u16> {
    read::<u16>(ctx, 12).map(u16::from_be)
}

/// A MAC address out of a map value.
#[inline(always)]
pub fn mac(bytes: &[u8; 6]) -> Mac {
    let [a, b, c, d, e, f] = *bytes;
    [
        u16::from_ne_bytes([a, b]),
        u16::from_ne_bytes([c, d]),
        u16::from_ne_bytes([e, f]),
    ]
}

/// Whether two MAC addresses are the same.
#[inline(always)]
pub fn is_same_mac(one: Mac, other: Mac) -> bool {
    one[0] == other[0] && one[1] == other[1] && one[2] == other[2]
}

/// Both MAC addresses.
#[inline(always)]
pub fn macs(ctx: &TcContext) -> Option<MacPair> {
    Some(MacPair {
        destination: read(ctx, 0)?,
        source: read(ctx, 6)?,
    })
}

/// Bytes of the frame behind its Ethernet header.
#[inline(always)]
pub fn network_bytes(ctx: &TcContext) -> u32 {
    ctx.len().saturating_sub(ETHERNET_BYTES)
}

/// Bytes of payload in each segment of a GSO frame, zero for a plain frame.
#[inline(always)]
pub fn gso_bytes(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid while the program runs, and the field is readable for tc.
    unsafe { (*ctx.skb.skb).gso_size }
}

/// Whether the frame carries a VLAN tag that was taken out of its bytes.
#[inline(always)]
pub fn has_vlan_tag(ctx: &TcContext) -> bool {
    // SAFETY: as in `gso_bytes`.
    unsafe { (*ctx.skb.skb).vlan_present != 0 }
}

/// Whether the frame is addressed to the device it came in by.
#[inline(always)]
pub fn is_for_this_host(ctx: &TcContext) -> bool {
    const PACKET_HOST: u32 = 0;
    // SAFETY: as in `gso_bytes`.
    unsafe { (*ctx.skb.skb).pkt_type == PACKET_HOST }
}

/// The device the frame is at.
#[inline(always)]
pub fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: as in `gso_bytes`.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// Reads and checks an IPv4 header (RFC 791 §3.1).
#[inline(always)]
pub fn ipv4(ctx: &TcContext) -> Result<Ipv4Header, DropReason> {
    const AT: u32 = ETHERNET_BYTES;
    // One look at the whole header, so that the fields below need no check of their own.
    read::<[u32; 5]>(ctx, AT).ok_or(DropReason::Truncated)?;
    let version_and_length = read::<u8>(ctx, AT).ok_or(DropReason::Truncated)?;
    let header_bytes = u32::from(version_and_length & 0x0f) * 4;
    if version_and_length >> 4 != 4 || header_bytes < IPV4_BYTES {
        return Err(DropReason::MalformedHeader);
    }
    let available = network_bytes(ctx);
    if header_bytes > available {
        return Err(DropReason::Truncated);
    }
    let stated = u32::from(u16::from_be(
        read(ctx, AT + 2).ok_or(DropReason::Truncated)?,
    ));
    let total_bytes = if gso_bytes(ctx) != 0 {
        // A GSO frame may be larger than the field can say.
        available
    } else if stated < header_bytes {
        return Err(DropReason::MalformedHeader);
    } else if stated > available {
        return Err(DropReason::Truncated);
    } else {
        stated
    };
    let fragment = u16::from_be(read(ctx, AT + 6).ok_or(DropReason::Truncated)?);
    Ok(Ipv4Header {
        header_bytes,
        total_bytes,
        tos: read(ctx, AT + 1).ok_or(DropReason::Truncated)?,
        ttl: read(ctx, AT + 8).ok_or(DropReason::Truncated)?,
        protocol: read(ctx, AT + 9).ok_or(DropReason::Truncated)?,
        dont_fragment: fragment & 0x4000 != 0,
        is_fragment: fragment & 0x3fff != 0,
        source: read(ctx, AT + 12).ok_or(DropReason::Truncated)?,
        destination: read(ctx, AT + 16).ok_or(DropReason::Truncated)?,
    })
}

/// Reads and checks an IPv6 header (RFC 8200 §3).
#[inline(always)]
pub fn ipv6(ctx: &TcContext) -> Result<Ipv6Header, DropReason> {
    const AT: u32 = ETHERNET_BYTES;
    read::<[u32; 10]>(ctx, AT).ok_or(DropReason::Truncated)?;
    let first = u16::from_be(read(ctx, AT).ok_or(DropReason::Truncated)?);
    if first >> 12 != 6 {
        return Err(DropReason::MalformedHeader);
    }
    let available = network_bytes(ctx);
    let stated = u32::from(u16::from_be(
        read(ctx, AT + 4).ok_or(DropReason::Truncated)?,
    ));
    let protocol = read(ctx, AT + 6).ok_or(DropReason::Truncated)?;
    // A payload length of zero before a hop-by-hop header is a jumbogram (RFC 2675), whose length
    // the kernel checks.
    let total_bytes = if gso_bytes(ctx) != 0 || (stated == 0 && protocol == PROTOCOL_HOP_BY_HOP) {
        available
    } else if IPV6_BYTES + stated > available {
        return Err(DropReason::Truncated);
    } else {
        IPV6_BYTES + stated
    };
    Ok(Ipv6Header {
        total_bytes,
        traffic_class: (first >> 4) as u8,
        hop_limit: read(ctx, AT + 7).ok_or(DropReason::Truncated)?,
        protocol,
        source: read(ctx, AT + 8).ok_or(DropReason::Truncated)?,
        destination: read(ctx, AT + 24).ok_or(DropReason::Truncated)?,
    })
}

/// Source and destination port as they are in memory, or zero where there are none.
#[inline(always)]
pub fn ports(ctx: &TcContext, protocol: u8, ip_header_bytes: u32) -> u32 {
    match protocol {
        PROTOCOL_TCP | PROTOCOL_UDP => {
            read(ctx, ETHERNET_BYTES + ip_header_bytes).unwrap_or_default()
        }
        _ => 0,
    }
}

/// Bytes of the largest IP packet this frame will be on a wire: of one segment for GSO frames.
#[inline(always)]
pub fn wire_bytes(ctx: &TcContext, protocol: u8, ip_header_bytes: u32, total_bytes: u32) -> u32 {
    /// The kernel's mark for GSO frames whose segments are given one by one (SCTP).
    const GSO_BY_FRAGS: u32 = 0xffff;
    let gso = gso_bytes(ctx);
    if gso == 0 {
        return total_bytes;
    }
    let transport_bytes = match protocol {
        PROTOCOL_UDP => 8,
        PROTOCOL_TCP => {
            // May be outside the directly readable part, and a GSO frame can afford the call.
            let offset = ETHERNET_BYTES + ip_header_bytes + 12;
            u32::from(ctx.load::<u8>(offset as usize).unwrap_or(0) >> 4) * 4
        }
        _ => 0,
    };
    if gso == GSO_BY_FRAGS || transport_bytes == 0 {
        // Segments of a tunnel or of SCTP: their owner sized them by the pod's own MTU.
        return 0;
    }
    ip_header_bytes + transport_bytes + gso
}

/// Writes both MAC addresses.
#[inline(always)]
pub fn set_macs(ctx: &TcContext, macs: MacPair) -> Result<(), DropReason> {
    write(ctx, 0, macs.destination).ok_or(DropReason::RewriteFailed)?;
    write(ctx, 6, macs.source).ok_or(DropReason::RewriteFailed)
}

/// Lowers the TTL by one and adjusts the checksum (RFC 1812 §5.3.1, RFC 1624).
#[inline(always)]
pub fn decrement_ttl(ctx: &TcContext, ttl: u8) -> Result<(), DropReason> {
    const AT: u32 = ETHERNET_BYTES;
    let checksum: u16 = read(ctx, AT + 10).ok_or(DropReason::RewriteFailed)?;
    let checksum = bpf_abi::checksum_after_ttl_decrement(u16::from_be(checksum)).to_be();
    write(ctx, AT + 8, ttl - 1).ok_or(DropReason::RewriteFailed)?;
    write(ctx, AT + 10, checksum).ok_or(DropReason::RewriteFailed)
}

/// Sets the TTL and adjusts the checksum, both or nothing.
#[inline(always)]
pub fn set_ttl(ctx: &TcContext, ttl: u8) -> Result<(), DropReason> {
    const AT: u32 = ETHERNET_BYTES + 8;
    let word: u32 = read(ctx, AT).ok_or(DropReason::RewriteFailed)?;
    let [before, protocol, high, low] = word.to_ne_bytes();
    let half = |ttl| u32::from(u16::from_be_bytes([ttl, protocol]));
    let sum = u16::from_be_bytes([high, low]);
    let sum = bpf_abi::checksum_after_word(sum, half(before), half(ttl));
    let [high, low] = sum.to_be_bytes();
    let word = u32::from_ne_bytes([ttl, protocol, high, low]);
    write(ctx, AT, word).ok_or(DropReason::RewriteFailed)
}

/// Lowers the hop limit by one. IPv6 has no header checksum to absorb the change, so a sum over
/// the packet that a network card took (`CHECKSUM_COMPLETE`) is corrected.
///
/// Such a sum comes with packets from the fabric only: a pod's kernel drops it when it forwards,
/// and makes none for packets of its own. Should a pod's program redirect one all the same, the
/// receiver finds the sum wrong and takes its own.
#[inline(always)]
pub fn decrement_hop_limit(
    ctx: &TcContext,
    hop_limit: u8,
    origin: Origin,
) -> Result<(), DropReason> {
    set_hop_limit(ctx, hop_limit - 1, origin)
}

/// Sets the hop limit; see [`decrement_hop_limit`].
#[inline(always)]
pub fn set_hop_limit(ctx: &TcContext, hop_limit: u8, origin: Origin) -> Result<(), DropReason> {
    const AT: u32 = ETHERNET_BYTES + 7;
    match origin {
        Origin::Pod => write(ctx, AT, hop_limit).ok_or(DropReason::RewriteFailed),
        Origin::Fabric => ctx
            .store(AT as usize, &hop_limit, u64::from(BPF_F_RECOMPUTE_CSUM))
            .map_err(|_| DropReason::RewriteFailed),
    }
}
