// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Changing an address and a port, and every checksum that covers them.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{bpf_csum_diff, bpf_l4_csum_replace},
    programs::TcContext,
};
use bpf_abi::{DropReason, nat::V6};
use bpf_programs::packet::{self, ETHERNET_BYTES};

use crate::{
    family::{Family, Header},
    transport::{Sum, Transport},
};

/// Tells the checksum helper that no IP header checksum absorbs the change (Linux 6.16).
const BPF_F_IPV6: u64 = 1 << 7;

/// Which end of a packet changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Source,
    Destination,
}

/// A change of one end.
#[derive(Clone, Copy)]
pub struct Change<A> {
    pub end: End,
    pub old: A,
    pub new: A,
    /// Network order, as the next.
    pub old_port: u16,
    pub new_port: u16,
}

/// Writes a change into headers and checksums.
#[inline(never)]
pub fn apply<F: Family>(
    ctx: &TcContext,
    header: &Header<F::Address>,
    transport: &Transport,
    change: &Change<F::Address>,
) -> Result<(), DropReason> {
    let sum_at = header.payload_at + transport.sum_at;
    // An unset checksum of UDP stays unset, and one that comes out as zero is written as 0xffff.
    let udp = if transport.sum == Sum::Udp {
        u64::from(BPF_F_MARK_MANGLED_0)
    } else {
        0
    };
    if transport.sum == Sum::All || transport.sum == Sum::Udp {
        replace_addresses::<F>(ctx, sum_at, change, udp)?;
    }
    if change.old_port != change.new_port && transport.sum != Sum::Nothing {
        l4(
            ctx,
            sum_at,
            u64::from(change.old_port),
            u64::from(change.new_port),
            2 | udp,
        )?;
        let at = match change.end {
            End::Source => transport.source_at,
            End::Destination => transport.destination_at,
        };
        ctx.store((header.payload_at + at) as usize, &change.new_port, 0)
            .map_err(|_| DropReason::RewriteFailed)?;
    }
    write_address::<F>(ctx, change)
}

/// Writes an address, and IPv4's header checksum.
#[inline(always)]
pub fn write_address<F: Family>(
    ctx: &TcContext,
    change: &Change<F::Address>,
) -> Result<(), DropReason> {
    let at = match change.end {
        End::Source => F::SOURCE_AT,
        End::Destination => F::DESTINATION_AT,
    };
    let failed = DropReason::RewriteFailed;
    if F::VERSION == 4 {
        const SUM_AT: u32 = ETHERNET_BYTES + 10;
        let (old, new) = (F::widen(change.old)[0], F::widen(change.new)[0]);
        let sum: u16 = packet::read(ctx, SUM_AT).ok_or(failed)?;
        let sum = bpf_abi::checksum_after_word(u16::from_be(sum), old.to_be(), new.to_be());
        packet::write(ctx, SUM_AT, sum.to_be()).ok_or(failed)?;
        packet::write(ctx, at, new).ok_or(failed)
    } else {
        packet::write(ctx, at, F::widen(change.new)).ok_or(failed)
    }
}

/// Makes up for a change of address in a checksum over a pseudo-header.
#[inline(always)]
fn replace_addresses<F: Family>(
    ctx: &TcContext,
    sum_at: u32,
    change: &Change<F::Address>,
    flags: u64,
) -> Result<(), DropReason> {
    let pseudo = u64::from(BPF_F_PSEUDO_HDR) | flags;
    let (mut old, mut new) = (F::widen(change.old), F::widen(change.new));
    if F::VERSION == 4 {
        return l4(ctx, sum_at, u64::from(old[0]), u64::from(new[0]), 4 | pseudo);
    }
    let difference = difference(&mut old, &mut new);
    // Kernels before 6.16 do not know the flag; what they get wrong is a sum a network card took,
    // which the receiver then takes again.
    l4(ctx, sum_at, 0, difference, pseudo | BPF_F_IPV6)
        .or_else(|_| l4(ctx, sum_at, 0, difference, pseudo))
}

#[inline(always)]
fn difference(old: &mut V6, new: &mut V6) -> u64 {
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
