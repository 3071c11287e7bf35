// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! ARP from pods. Pods have permanent neighbours and need none; the kernel asks pods, and they
//! answer. Whoever claims an address must have it.

use aya_ebpf::programs::TcContext;
use bpf_abi::{DeviceEntry, DropReason};

use crate::{
    maps::ENDPOINTS_V4,
    packet::{self, ETHERNET_BYTES, MacPair},
};

/// Believes an ARP packet, or says why not.
#[inline(always)]
pub fn believe(ctx: &TcContext, device: &DeviceEntry, macs: MacPair) -> Result<(), DropReason> {
    /// Ethernet, IPv4, six and four bytes of address (RFC 826).
    const ETHERNET_AND_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
    const AT: u32 = ETHERNET_BYTES;
    packet::read::<[u8; 28]>(ctx, AT).ok_or(DropReason::Truncated)?;
    let shape: [u8; 6] = packet::read(ctx, AT).ok_or(DropReason::Truncated)?;
    if shape != ETHERNET_AND_IPV4 {
        return Err(DropReason::MalformedHeader);
    }
    let sender_mac: [u8; 6] = packet::read(ctx, AT + 8).ok_or(DropReason::Truncated)?;
    if macs.source != device.pod_mac || sender_mac != device.pod_mac {
        return Err(DropReason::SpoofedArp);
    }
    let sender: [u8; 4] = packet::read(ctx, AT + 14).ok_or(DropReason::Truncated)?;
    if sender == [0; 4] {
        // A probe claims nothing (RFC 5227 §2.1.1).
        return Ok(());
    }
    // SAFETY: read at once; see `count::delivered_by_kernel` about concurrent removal.
    match unsafe { ENDPOINTS_V4.get(sender) } {
        Some(entry) if entry.ifindex == packet::ifindex(ctx) => Ok(()),
        _ => Err(DropReason::SpoofedArp),
    }
}
