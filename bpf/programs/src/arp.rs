// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! ARP from pods. Pods have permanent neighbours and need none; the kernel asks pods, and they
//! answer. Whoever claims an address must have it.

use aya_ebpf::programs::TcContext;
use bpf_abi::{DeviceEntry, DropReason};

use bpf_programs::packet::{self, ETHERNET_BYTES, Ipv4, Mac, MacPair};

use crate::maps::ENDPOINTS_V4;

/// Believes an ARP packet, or says why not.
#[inline(always)]
pub fn believe(ctx: &TcContext, device: &DeviceEntry, macs: MacPair) -> Result<(), DropReason> {
    /// Ethernet, IPv4, six and four bytes of address (RFC 826).
    const ETHERNET_AND_IPV4: u32 = u32::from_ne_bytes([0, 1, 8, 0]);
    const SIX_AND_FOUR: u16 = u16::from_ne_bytes([6, 4]);
    const AT: u32 = ETHERNET_BYTES;
    packet::read::<[u32; 7]>(ctx, AT).ok_or(DropReason::Truncated)?;
    let kinds: u32 = packet::read(ctx, AT).ok_or(DropReason::Truncated)?;
    let lengths: u16 = packet::read(ctx, AT + 4).ok_or(DropReason::Truncated)?;
    if kinds != ETHERNET_AND_IPV4 || lengths != SIX_AND_FOUR {
        return Err(DropReason::MalformedHeader);
    }
    let sender_mac: Mac = packet::read(ctx, AT + 8).ok_or(DropReason::Truncated)?;
    let pod_mac = packet::mac(&device.pod_mac);
    if !packet::is_same_mac(macs.source, pod_mac) || !packet::is_same_mac(sender_mac, pod_mac) {
        return Err(DropReason::SpoofedArp);
    }
    let sender: Ipv4 = packet::read(ctx, AT + 14).ok_or(DropReason::Truncated)?;
    if sender == 0 {
        // A probe claims nothing (RFC 5227 §2.1.1).
        return Ok(());
    }
    // SAFETY: read at once; see `count::delivered_by_kernel` about concurrent removal.
    match unsafe { ENDPOINTS_V4.get(sender.to_ne_bytes()) } {
        Some(entry) if entry.ifindex == packet::ifindex(ctx) => Ok(()),
        _ => Err(DropReason::SpoofedArp),
    }
}
