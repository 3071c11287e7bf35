// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! ICMP errors: about a packet of ours from somebody on its way, or about an answer from the pod.
//! The packet they quote is translated as well, so that its owner knows it (RFC 5508 REQ-3 to 6).

use aya_ebpf::{bindings::BPF_F_PSEUDO_HDR, programs::TcContext};
use bpf_abi::{
    DropReason,
    nat::{NatEntry, NatKey, side},
};
use bpf_programs::packet::{ETHERNET_BYTES, Field, PROTOCOL_TCP, PROTOCOL_UDP};

use crate::{
    Refusal,
    back::Pod,
    family::{Family, Header},
    mapping,
    rewrite::{self, l4},
    work::Work,
};

/// Bytes of an ICMP error's own header.
const ICMP_BYTES: u32 = 8;

/// The packet an error quotes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Quoted<A> {
    source: A,
    destination: A,
    /// Offset in the frame of the quoted IP header.
    at: u32,
    /// As the ports of a flow: the same twice for an echo.
    source_port: u16,
    destination_port: u16,
    protocol: u32,
}

/// Translates an error from the world about a pod's packet. The pod it goes to; `None` where it is
/// about nothing of ours.
#[inline(always)]
pub fn back<F: Family>(
    ctx: &TcContext,
    work: &mut Work<F::Address>,
) -> Result<Option<Pod<F::Address>>, Refusal> {
    if quote::<F>(ctx, work).is_err() {
        return Ok(None);
    }
    let quoted = &work.quoted;
    let is_echo = quoted.protocol == u32::from(F::ICMP);
    work.key = NatKey {
        remote: quoted.destination,
        local: quoted.source,
        remote_port: if is_echo { 0 } else { quoted.destination_port },
        local_port: quoted.source_port,
        protocol: quoted.protocol as u8,
        side: side::BACK,
        reserved: 0,
    };
    let Some(entry) = mapping::find_either::<F>(&mut work.key) else {
        return Ok(None);
    };
    let inner = Inner {
        address_at: quoted.at + F::SOURCE_AT - ETHERNET_BYTES,
        port_at: quoted.at + F::HEADER_BYTES + if is_echo { 4 } else { 0 },
        old: quoted.source,
        old_port: quoted.source_port,
        entry,
    };
    translate::<F>(ctx, &work.header, quoted, &inner, work.header.destination).map_err(
        |reason| Refusal {
            reason,
            slot: Some(entry.slot),
        },
    )?;
    Ok(Some(Pod {
        address: entry.address,
        slot: entry.slot,
        node: entry.node,
    }))
}

/// Translates an error from a pod about an answer. The address it leaves under.
#[inline(always)]
pub fn out<F: Family>(
    ctx: &TcContext,
    work: &mut Work<F::Address>,
) -> Result<F::Address, DropReason> {
    quote::<F>(ctx, work)?;
    let quoted = &work.quoted;
    let is_echo = quoted.protocol == u32::from(F::ICMP);
    work.key = NatKey {
        remote: quoted.source,
        local: quoted.destination,
        remote_port: if is_echo { 0 } else { quoted.source_port },
        local_port: quoted.destination_port,
        protocol: quoted.protocol as u8,
        side: side::OUT,
        reserved: 0,
    };
    let Some(entry) = mapping::find_either::<F>(&mut work.key) else {
        return Err(DropReason::NatUnrelated);
    };
    let inner = Inner {
        address_at: quoted.at + F::DESTINATION_AT - ETHERNET_BYTES,
        port_at: quoted.at + F::HEADER_BYTES + if is_echo { 4 } else { 2 },
        old: quoted.destination,
        old_port: quoted.destination_port,
        entry,
    };
    translate::<F>(ctx, &work.header, quoted, &inner, work.header.source)?;
    if work.parcel.is_native != 0 {
        work.parcel.rule = entry.rule;
    }
    Ok(entry.address)
}

/// The translated end of the quoted packet.
struct Inner<'a, A> {
    address_at: u32,
    port_at: u32,
    old: A,
    old_port: u16,
    entry: &'a NatEntry<A>,
}

/// Translates the quoted packet, and what the error's checksum covers. `outer_old` is the address
/// of the error itself that changes; that one is left to the caller to write.
#[inline(always)]
fn translate<F: Family>(
    ctx: &TcContext,
    header: &Header<F::Address>,
    quoted: &Quoted<F::Address>,
    inner: &Inner<'_, F::Address>,
    outer_old: F::Address,
) -> Result<(), DropReason> {
    let entry = inner.entry;
    let sum_at = header.payload_at + 2;
    let (old, new) = (F::widen(inner.old), F::widen(entry.address));
    if F::VERSION == 4 {
        // The quoted header's checksum absorbs the address: what covers both sees no change.
        let quoted_sum_at = quoted.at + 10;
        let sum: u16 = load(ctx, quoted_sum_at)?;
        let sum = bpf_abi::checksum_after_word(u16::from_be(sum), old[0].to_be(), new[0].to_be());
        store(ctx, quoted_sum_at, &sum.to_be())?;
        store(ctx, inner.address_at, &new[0])?;
    } else {
        // The address in the quoted packet, and the change of the error's own in the pseudo-header.
        let (mut old, mut new) = (old, new);
        let quoted_change = rewrite::difference(&mut old, &mut new);
        l4(ctx, sum_at, 0, quoted_change, 0)?;
        let mut outer = F::widen(outer_old);
        let own_change = rewrite::difference(&mut outer, &mut new);
        let pseudo = u64::from(BPF_F_PSEUDO_HDR);
        l4(ctx, sum_at, 0, own_change, pseudo | rewrite::BPF_F_IPV6)
            .or_else(|_| l4(ctx, sum_at, 0, own_change, pseudo))?;
        store(ctx, inner.address_at, &new)?;
    }
    if inner.old_port != entry.port {
        let (from, to) = (u64::from(inner.old_port), u64::from(entry.port));
        l4(ctx, sum_at, from, to, 2)?;
        store(ctx, inner.port_at, &entry.port)?;
    }
    if quoted.protocol == u32::from(PROTOCOL_UDP) {
        return translate_udp_sum::<F>(ctx, quoted, inner, sum_at);
    }
    Ok(())
}

/// The quoted UDP checksum, which eight bytes of quotation have. TCP's lies further behind, and
/// nobody looks at it in a quotation.
#[inline(always)]
fn translate_udp_sum<F: Family>(
    ctx: &TcContext,
    quoted: &Quoted<F::Address>,
    inner: &Inner<'_, F::Address>,
    sum_at: u32,
) -> Result<(), DropReason> {
    let at = quoted.at + F::HEADER_BYTES + 6;
    let before: u16 = load(ctx, at)?;
    if before == 0 {
        return Ok(());
    }
    let (old, new) = (F::widen(inner.old), F::widen(inner.entry.address));
    let mut sum = u16::from_be(before);
    sum = bpf_abi::checksum_after_word(sum, old[0].to_be(), new[0].to_be());
    sum = bpf_abi::checksum_after_word(sum, old[1].to_be(), new[1].to_be());
    sum = bpf_abi::checksum_after_word(sum, old[2].to_be(), new[2].to_be());
    sum = bpf_abi::checksum_after_word(sum, old[3].to_be(), new[3].to_be());
    sum = bpf_abi::checksum_after_word(
        sum,
        u32::from(u16::from_be(inner.old_port)),
        u32::from(u16::from_be(inner.entry.port)),
    );
    let after = sum.to_be();
    l4(ctx, sum_at, u64::from(before), u64::from(after), 2)?;
    store(ctx, at, &after)
}

/// Reads the packet an error quotes: a plain header and eight bytes (RFC 792, RFC 4443 §3).
#[inline(always)]
fn quote<F: Family>(ctx: &TcContext, work: &mut Work<F::Address>) -> Result<(), DropReason> {
    let at = work.header.payload_at + ICMP_BYTES;
    let first: u8 = load(ctx, at)?;
    let (protocol, source, destination) = if F::VERSION == 4 {
        // Version 4, five words.
        if first != 0x45 {
            return Err(DropReason::NatUnsupported);
        }
        let fragment: u16 = load(ctx, at + 6)?;
        if u16::from_be(fragment) & 0x1fff != 0 {
            return Err(DropReason::NatUnsupported);
        }
        (load::<u8>(ctx, at + 9)?, at + 12, at + 16)
    } else {
        if first >> 4 != 6 {
            return Err(DropReason::NatUnsupported);
        }
        (load::<u8>(ctx, at + 6)?, at + 8, at + 24)
    };
    let transport = at + F::HEADER_BYTES;
    let ports: [u16; 2] = if protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP {
        load(ctx, transport)?
    } else if protocol == F::ICMP {
        let kind: u8 = load(ctx, transport)?;
        if kind != F::ECHO[0] && kind != F::ECHO[1] {
            return Err(DropReason::NatUnsupported);
        }
        let identifier: u16 = load(ctx, transport + 4)?;
        [identifier, identifier]
    } else {
        [0, 0]
    };
    let truncated = |_| DropReason::Truncated;
    work.quoted.source = ctx.load(source as usize).map_err(truncated)?;
    work.quoted.destination = ctx.load(destination as usize).map_err(truncated)?;
    work.quoted.at = at;
    work.quoted.source_port = ports[0];
    work.quoted.destination_port = ports[1];
    work.quoted.protocol = u32::from(protocol);
    Ok(())
}

#[inline(always)]
fn load<T: Field>(ctx: &TcContext, at: u32) -> Result<T, DropReason> {
    ctx.load(at as usize).map_err(|_| DropReason::Truncated)
}

#[inline(always)]
fn store<T: Field>(ctx: &TcContext, at: u32, value: &T) -> Result<(), DropReason> {
    ctx.store(at as usize, value, 0)
        .map_err(|_| DropReason::RewriteFailed)
}
