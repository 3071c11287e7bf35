// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Changing an address and a port, and every checksum that covers them.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{bpf_csum_diff, bpf_l4_csum_replace},
    programs::TcContext,
};
use bpf_abi::{
    DropReason,
    nat::{NatEntry, V6},
};
use bpf_programs::packet::{self, ETHERNET_BYTES};

use crate::{
    family::{Family, Header},
    transport::{Transport, sum},
};

/// Tells the checksum helper that no IP header checksum absorbs the change (Linux 6.16).
pub const BPF_F_IPV6: u64 = 1 << 7;

/// Which end of a packet changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Source,
    Destination,
}

/// Writes the other side's address and port over one end of a packet, and into every checksum that
/// covers them.
#[inline(always)]
pub fn apply<F: Family>(
    ctx: &TcContext,
    header: &Header<F::Address>,
    transport: &Transport,
    end: End,
    entry: &NatEntry<F::Address>,
) -> Result<(), DropReason> {
    let sum_at = header.payload_at + transport.sum_at;
    let (old, old_port, at) = match end {
        End::Source => (header.source, transport.source, transport.source_at),
        End::Destination => (
            header.destination,
            transport.destination,
            transport.destination_at,
        ),
    };
    // An unset checksum of UDP stays unset, and one that comes out as zero is written as 0xffff.
    let udp = if transport.sum == sum::UDP {
        u64::from(BPF_F_MARK_MANGLED_0)
    } else {
        0
    };
    if transport.sum == sum::ALL || transport.sum == sum::UDP {
        replace_addresses::<F>(ctx, sum_at, old, entry.address, udp)?;
    }
    if old_port != entry.port && transport.sum != sum::NOTHING {
        l4(
            ctx,
            sum_at,
            u64::from(old_port),
            u64::from(entry.port),
            2 | udp,
        )?;
        ctx.store((header.payload_at + at) as usize, &entry.port, 0)
            .map_err(|_| DropReason::RewriteFailed)?;
    }
    write_address::<F>(ctx, header, end, entry.address)
}

/// Writes an address, and IPv4's header checksum.
#[inline(always)]
pub fn write_address<F: Family>(
    ctx: &TcContext,
    header: &Header<F::Address>,
    end: End,
    new: F::Address,
) -> Result<(), DropReason> {
    let (at, old) = match end {
        End::Source => (F::SOURCE_AT, header.source),
        End::Destination => (F::DESTINATION_AT, header.destination),
    };
    let failed = DropReason::RewriteFailed;
    if F::VERSION == 4 {
        const SUM_AT: u32 = ETHERNET_BYTES + 10;
        let (old, new) = (F::widen(old)[0], F::widen(new)[0]);
        let sum: u16 = packet::read(ctx, SUM_AT).ok_or(failed)?;
        let sum = bpf_abi::checksum_after_word(u16::from_be(sum), old.to_be(), new.to_be());
        packet::write(ctx, SUM_AT, sum.to_be()).ok_or(failed)?;
        match end {
            End::Source => packet::write(ctx, F::SOURCE_AT, new),
            End::Destination => packet::write(ctx, F::DESTINATION_AT, new),
        }
        .ok_or(failed)
    } else {
        ctx.store(at as usize, &F::widen(new), 0)
            .map_err(|_| failed)
    }
}

/// Makes up for a change of address in a checksum over a pseudo-header.
#[inline(always)]
fn replace_addresses<F: Family>(
    ctx: &TcContext,
    sum_at: u32,
    old: F::Address,
    new: F::Address,
    flags: u64,
) -> Result<(), DropReason> {
    let pseudo = u64::from(BPF_F_PSEUDO_HDR) | flags;
    let (mut old, mut new) = (F::widen(old), F::widen(new));
    if F::VERSION == 4 {
        return l4(
            ctx,
            sum_at,
            u64::from(old[0]),
            u64::from(new[0]),
            4 | pseudo,
        );
    }
    let difference = difference(&mut old, &mut new);
    // Kernels before 6.16 do not know the flag; what they get wrong is a sum a network card took,
    // which the receiver then takes again.
    l4(ctx, sum_at, 0, difference, pseudo | BPF_F_IPV6)
        .or_else(|_| l4(ctx, sum_at, 0, difference, pseudo))
}

/// What a change of sixteen bytes adds to a sum.
#[inline(always)]
pub fn difference(old: &mut V6, new: &mut V6) -> u64 {
    // SAFETY: both pointers are to sixteen live bytes.
    let difference = unsafe { bpf_csum_diff(old.as_mut_ptr(), 16, new.as_mut_ptr(), 16, 0) };
    difference as u64 & 0xffff_ffff
}

/// Replaces what a checksum covers.
#[inline(always)]
pub fn l4(ctx: &TcContext, at: u32, from: u64, to: u64, flags: u64) -> Result<(), DropReason> {
    // SAFETY: a helper call with numbers and the live context.
    let code = unsafe { bpf_l4_csum_replace(ctx.skb.skb, at, from, to, flags) };
    if code == 0 {
        Ok(())
    } else {
        Err(DropReason::RewriteFailed)
    }
}
