// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Counters. All of them live in per-CPU maps, so the programs add without atomics and the reader
//! sums over the CPUs.

use crate::Plain;

/// Traffic of one endpoint, as the pod sees it: `tx` left the pod, `rx` went into it. Bytes are
/// whole frames with their Ethernet header; a GSO frame counts as one packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointCounters {
    /// Frames from the pod that were accepted.
    pub tx_packets: u64,
    /// Bytes of those frames.
    pub tx_bytes: u64,
    /// Frames given to the pod.
    pub rx_packets: u64,
    /// Bytes of those frames.
    pub rx_bytes: u64,
    /// Of `tx_packets`, those left to the kernel: for the node itself, or beyond what the
    /// programs forward (IP options, unresolved routes, an ICMP answer needed).
    pub tx_kernel_packets: u64,
}
const _: () = assert!(size_of::<EndpointCounters>() == 40);
// SAFETY: `repr(C)`, five u64: no padding.
unsafe impl Plain for EndpointCounters {}

/// Key of `ENDPOINT_DROPS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropKey {
    /// Slot of the endpoint.
    pub slot: u32,
    /// A [`DropReason`](crate::DropReason) as number.
    pub reason: u32,
}
const _: () = assert!(size_of::<DropKey>() == 8);
// SAFETY: `repr(C)`, two u32: no padding.
unsafe impl Plain for DropKey {}

/// Frames and bytes refused for one reason.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropCounter {
    /// Refused frames.
    pub packets: u64,
    /// Bytes of those frames, with their Ethernet header.
    pub bytes: u64,
}
const _: () = assert!(size_of::<DropCounter>() == 16);
// SAFETY: `repr(C)`, two u64: no padding.
unsafe impl Plain for DropCounter {}
