// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the programs know about a local endpoint.

use crate::Plain;

/// The address every pod knows as its router. Nobody has it: there is a neighbour entry.
pub const POD_ROUTER_V4: [u8; 4] = [169, 254, 1, 1];

/// The same for IPv6: fe80::1.
pub const POD_ROUTER_V6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Value of `ENDPOINTS_V4` and `ENDPOINTS_V6`: everything needed to deliver to, or to believe,
/// one address of a local endpoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressEntry {
    /// Host-side device of the endpoint; also the only device the address may send from.
    pub ifindex: u32,
    /// Index into `COUNTERS`.
    pub slot: u32,
    /// Largest IP packet the endpoint's device takes, in bytes.
    pub mtu: u32,
    /// MAC address inside the pod.
    pub pod_mac: [u8; 6],
    /// MAC address of the host-side device: the gateway as the pod sees it.
    pub host_mac: [u8; 6],
    /// The set of destinations that leave by a gateway; zero for none.
    pub egress_set: u32,
    /// Bits of [`source_flags`](crate::egress::source_flags).
    pub egress_flags: u32,
}
const _: () = assert!(size_of::<AddressEntry>() == 32);
// SAFETY: `repr(C)`, integers and byte arrays only, 32 = 5 * 4 + 2 * 6: no padding.
unsafe impl Plain for AddressEntry {}

/// Value of `DEVICES`: which endpoint is behind a host-side device. Read by the programs only when
/// something is wrong with a packet, and by a starting loader to learn what its predecessor had.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceEntry {
    /// The endpoint's number, given by whoever owns endpoints.
    pub endpoint_id: u32,
    /// Index into `COUNTERS`.
    pub slot: u32,
    /// Largest IP packet the endpoint's device takes, in bytes.
    pub mtu: u32,
    /// MAC address inside the pod.
    pub pod_mac: [u8; 6],
    /// MAC address of the host-side device, to notice that an interface index was reused.
    pub host_mac: [u8; 6],
}
const _: () = assert!(size_of::<DeviceEntry>() == 24);
// SAFETY: `repr(C)`, integers and byte arrays only, 24 = 3 * 4 + 2 * 6: no padding.
unsafe impl Plain for DeviceEntry {}
