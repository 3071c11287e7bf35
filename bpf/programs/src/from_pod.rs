// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! From a pod: antispoof, then another local pod, the fabric, or the kernel.
//!
//! A source address is believed when the endpoint map says that it lives behind the very device
//! the packet came in by: one lookup proves address, device and MAC address, and finds the
//! counters. A flow towards the fabric that was believed and routed a moment ago skips that: see
//! `route::Place`.

use aya_ebpf::programs::TcContext;
use bpf_abi::{AddressEntry, DeviceEntry, DropReason, FlowKey, egress::way};
use bpf_programs::{
    fib::{self, Route},
    forward::{self, Obstacle},
    packet::{self, IPV6_BYTES, Ipv4, Ipv6, Ipv6Header, MacPair, Origin, PROTOCOL_ICMPV6},
};

use crate::{
    Refusal, Verdict, arp,
    count::{self, Taker},
    deliver,
    egress::{self, Size},
    maps::{DEVICES, ENDPOINTS_V4, ENDPOINTS_V6},
    route::Place,
};

/// Judges a packet from a pod.
#[inline(always)]
pub fn judge(ctx: &TcContext) -> Result<Verdict, Refusal> {
    packet::pull_headers(ctx);
    let (Some(macs), Some(ethertype)) = (packet::macs(ctx), packet::ethertype(ctx)) else {
        return Err(refuse(ctx, DropReason::Truncated));
    };
    if packet::has_vlan_tag(ctx) {
        return Err(refuse(ctx, DropReason::VlanTagged));
    }
    match ethertype {
        packet::ETHERTYPE_IPV4 => judge_ipv4(ctx, macs),
        packet::ETHERTYPE_IPV6 => judge_ipv6(ctx, macs),
        packet::ETHERTYPE_ARP => {
            let device = device(ctx)?;
            match arp::believe(ctx, device, macs) {
                Ok(()) => Ok(to_kernel(ctx, device.slot)),
                Err(reason) => Err(Refusal {
                    reason,
                    slot: Some(device.slot),
                }),
            }
        }
        packet::ETHERTYPE_VLAN | packet::ETHERTYPE_QINQ => Err(refuse(ctx, DropReason::VlanTagged)),
        _ => Err(refuse(ctx, DropReason::UnsupportedEthertype)),
    }
}

#[inline(always)]
fn judge_ipv4(ctx: &TcContext, macs: MacPair) -> Result<Verdict, Refusal> {
    let header = match packet::ipv4(ctx) {
        Ok(header) => header,
        Err(reason) => return Err(refuse(ctx, reason)),
    };
    let flow = fib::flow_ipv4(ctx, &header);
    let place = Place::of(&flow);
    if header.header_bytes == packet::IPV4_BYTES
        && let Some(known) = place.known(&flow, macs)
    {
        return match forward::forward_ipv4(ctx, &header, known.next_hop.mtu) {
            Ok(()) => {
                count::sent(ctx, known.slot, Taker::Programs);
                Ok(Verdict::Redirected(fib::leave(&known.next_hop)))
            }
            Err(Obstacle::Fragment) => Ok(to_kernel(ctx, known.slot)),
            Err(Obstacle::Refused(reason)) => Err(Refusal {
                reason,
                slot: Some(known.slot),
            }),
        };
    }
    // SAFETY: read at once; see `count::delivered_by_kernel` about concurrent removal.
    let sender = believe(
        ctx,
        unsafe { ENDPOINTS_V4.get(header.source.to_ne_bytes()) },
        macs,
    )?;
    let refused = |reason| Refusal {
        reason,
        slot: Some(sender.slot),
    };

    if is_multicast_ipv4(header.destination) {
        return Err(refused(DropReason::Multicast));
    }
    if !packet::is_same_mac(macs.destination, packet::mac(&sender.host_mac)) {
        return Err(refused(DropReason::ForeignMac));
    }
    // SAFETY: as above.
    let local = unsafe { ENDPOINTS_V4.get(header.destination.to_ne_bytes()) };
    if sender.egress_set != 0 && local.is_none() {
        let chosen = egress::choose(ctx, sender, &flow);
        if chosen != way::PASS {
            if header.header_bytes != packet::IPV4_BYTES {
                return Err(refused(DropReason::EgressUnsupported));
            }
            // Whether it is too large is asked when its way is known.
            let checked = forward::forward_ipv4(ctx, &header, u32::MAX);
            let size = Size {
                bytes: header.total_bytes,
                may_be_cut: !header.dont_fragment,
            };
            return leave_by_gateway(ctx, sender, &flow, size, chosen, checked);
        }
    }
    if header.header_bytes != packet::IPV4_BYTES {
        // Options: what they mean, and which are refused, is the kernel's to say.
        return Ok(to_kernel(ctx, sender.slot));
    }
    if let Some(pod) = local {
        return match forward::forward_ipv4(ctx, &header, pod.mtu) {
            Ok(()) => {
                count::sent(ctx, sender.slot, Taker::Programs);
                deliver::into_pod(ctx, pod).map_err(refused)
            }
            Err(Obstacle::Fragment) => Ok(to_kernel(ctx, sender.slot)),
            Err(Obstacle::Refused(reason)) => Err(refused(reason)),
        };
    }
    match place.find(ctx, &flow, sender) {
        Route::Forward(next_hop) => match forward::forward_ipv4(ctx, &header, next_hop.mtu) {
            Ok(()) => {
                count::sent(ctx, sender.slot, Taker::Programs);
                Ok(Verdict::Redirected(fib::leave(&next_hop)))
            }
            Err(Obstacle::Fragment) => Ok(to_kernel(ctx, sender.slot)),
            Err(Obstacle::Refused(reason)) => Err(refused(reason)),
        },
        Route::Here | Route::Kernel => Ok(to_kernel(ctx, sender.slot)),
        Route::Refused(reason) => Err(refused(reason)),
    }
}

#[inline(always)]
fn judge_ipv6(ctx: &TcContext, macs: MacPair) -> Result<Verdict, Refusal> {
    let header = match packet::ipv6(ctx) {
        Ok(header) => header,
        Err(reason) => return Err(refuse(ctx, reason)),
    };
    if is_link_local_or_unspecified(&header.source) {
        return judge_link_local(ctx, &header, macs);
    }
    let flow = fib::flow_ipv6(ctx, &header);
    let place = Place::of(&flow);
    if header.protocol != packet::PROTOCOL_HOP_BY_HOP
        && let Some(known) = place.known(&flow, macs)
    {
        return match forward::forward_ipv6(ctx, &header, known.next_hop.mtu, Origin::Pod) {
            Ok(()) => {
                count::sent(ctx, known.slot, Taker::Programs);
                Ok(Verdict::Redirected(fib::leave(&known.next_hop)))
            }
            Err(Obstacle::Fragment) => Ok(to_kernel(ctx, known.slot)),
            Err(Obstacle::Refused(reason)) => Err(Refusal {
                reason,
                slot: Some(known.slot),
            }),
        };
    }
    // SAFETY: read at once; see `count::delivered_by_kernel` about concurrent removal.
    let sender = believe(ctx, unsafe { ENDPOINTS_V6.get(bytes(header.source)) }, macs)?;
    let refused = |reason| Refusal {
        reason,
        slot: Some(sender.slot),
    };

    if is_multicast_ipv6(&header.destination) || is_link_local(&header.destination) {
        return match refusal_of_link_scope(ctx, &header) {
            None => Ok(to_kernel(ctx, sender.slot)),
            Some(reason) => Err(refused(reason)),
        };
    }
    if !packet::is_same_mac(macs.destination, packet::mac(&sender.host_mac)) {
        return Err(refused(DropReason::ForeignMac));
    }
    // SAFETY: as above.
    let local = unsafe { ENDPOINTS_V6.get(bytes(header.destination)) };
    if sender.egress_set != 0 && local.is_none() {
        let chosen = egress::choose(ctx, sender, &flow);
        if chosen != way::PASS {
            if header.protocol == packet::PROTOCOL_HOP_BY_HOP {
                return Err(refused(DropReason::EgressUnsupported));
            }
            let checked = forward::forward_ipv6(ctx, &header, u32::MAX, Origin::Pod);
            let size = Size {
                bytes: header.total_bytes,
                may_be_cut: header.protocol == packet::PROTOCOL_FRAGMENT,
            };
            return leave_by_gateway(ctx, sender, &flow, size, chosen, checked);
        }
    }
    if header.protocol == packet::PROTOCOL_HOP_BY_HOP {
        // Options every router must look at (RFC 8200 §4.3): router alert, jumbo payload.
        return Ok(to_kernel(ctx, sender.slot));
    }
    if let Some(pod) = local {
        return match forward::forward_ipv6(ctx, &header, pod.mtu, Origin::Pod) {
            Ok(()) => {
                count::sent(ctx, sender.slot, Taker::Programs);
                deliver::into_pod(ctx, pod).map_err(refused)
            }
            Err(Obstacle::Fragment) => Ok(to_kernel(ctx, sender.slot)),
            Err(Obstacle::Refused(reason)) => Err(refused(reason)),
        };
    }
    match place.find(ctx, &flow, sender) {
        Route::Forward(next_hop) => {
            match forward::forward_ipv6(ctx, &header, next_hop.mtu, Origin::Pod) {
                Ok(()) => {
                    count::sent(ctx, sender.slot, Taker::Programs);
                    Ok(Verdict::Redirected(fib::leave(&next_hop)))
                }
                Err(Obstacle::Fragment) => Ok(to_kernel(ctx, sender.slot)),
                Err(Obstacle::Refused(reason)) => Err(refused(reason)),
            }
        }
        Route::Here | Route::Kernel => Ok(to_kernel(ctx, sender.slot)),
        Route::Refused(reason) => Err(refused(reason)),
    }
}

/// Sends a packet the way an egress policy says.
#[inline(always)]
fn leave_by_gateway(
    ctx: &TcContext,
    sender: &AddressEntry,
    flow: &FlowKey,
    size: Size,
    chosen: u32,
    checked: Result<(), Obstacle>,
) -> Result<Verdict, Refusal> {
    let refused = |reason| Refusal {
        reason,
        slot: Some(sender.slot),
    };
    match chosen {
        way::NO_GATEWAY => return Err(refused(DropReason::EgressNoGateway)),
        way::UNDECIDED => return Err(refused(DropReason::EgressUndecided)),
        _ => {}
    }
    match checked {
        Ok(()) => {}
        Err(Obstacle::Refused(reason)) => return Err(refused(reason)),
        // Nothing is larger than the largest MTU.
        Err(Obstacle::Fragment) => return Err(refused(DropReason::EgressUnsupported)),
    }
    let code = egress::send(ctx, sender, chosen, flow, size).map_err(refused)?;
    Ok(Verdict::Redirected(code))
}

/// A packet whose source is link-local or not yet known never leaves the link: neighbour discovery
/// and echoes reach the kernel, all else is refused.
#[inline(always)]
fn judge_link_local(
    ctx: &TcContext,
    header: &Ipv6Header,
    macs: MacPair,
) -> Result<Verdict, Refusal> {
    let device = device(ctx)?;
    let refused = |reason| Refusal {
        reason,
        slot: Some(device.slot),
    };
    if !packet::is_same_mac(macs.source, packet::mac(&device.pod_mac)) {
        return Err(refused(DropReason::SpoofedMac));
    }
    match refusal_of_link_scope(ctx, header) {
        None => Ok(to_kernel(ctx, device.slot)),
        Some(reason) => Err(refused(reason)),
    }
}

/// Why a packet that stays on the link is refused, if it is.
#[inline(always)]
fn refusal_of_link_scope(ctx: &TcContext, header: &Ipv6Header) -> Option<DropReason> {
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;
    const NEIGHBOR_SOLICITATION: u8 = 135;
    const NEIGHBOR_ADVERTISEMENT: u8 = 136;
    let icmp_type = match header.protocol {
        PROTOCOL_ICMPV6 => packet::read::<u8>(ctx, packet::ETHERNET_BYTES + IPV6_BYTES),
        _ => None,
    };
    let multicast = is_multicast_ipv6(&header.destination);
    match icmp_type {
        Some(NEIGHBOR_SOLICITATION | NEIGHBOR_ADVERTISEMENT)
            if multicast || is_link_local(&header.destination) =>
        {
            None
        }
        Some(ECHO_REQUEST | ECHO_REPLY) if is_link_local(&header.destination) => None,
        _ if multicast => Some(DropReason::Multicast),
        _ => Some(DropReason::LinkLocal),
    }
}

/// Believes the sender, or says why not.
#[inline(always)]
fn believe<'a>(
    ctx: &TcContext,
    entry: Option<&'a AddressEntry>,
    macs: MacPair,
) -> Result<&'a AddressEntry, Refusal> {
    match entry {
        Some(entry) if entry.ifindex == packet::ifindex(ctx) => {
            if packet::is_same_mac(macs.source, packet::mac(&entry.pod_mac)) {
                Ok(entry)
            } else {
                Err(Refusal {
                    reason: DropReason::SpoofedMac,
                    slot: Some(entry.slot),
                })
            }
        }
        _ => Err(refuse(ctx, DropReason::SpoofedAddress)),
    }
}

/// A refusal of a packet whose sender is known by its device alone.
#[inline(always)]
fn refuse(ctx: &TcContext, reason: DropReason) -> Refusal {
    match device(ctx) {
        Ok(device) => Refusal {
            reason,
            slot: Some(device.slot),
        },
        Err(unknown) => unknown,
    }
}

/// The endpoint behind the device the packet came in by.
#[inline(always)]
fn device(ctx: &TcContext) -> Result<&'static DeviceEntry, Refusal> {
    // SAFETY: see `count::delivered_by_kernel` about concurrent removal.
    unsafe { DEVICES.get(packet::ifindex(ctx)) }.ok_or(Refusal {
        reason: DropReason::UnknownDevice,
        slot: None,
    })
}

#[inline(always)]
fn to_kernel(ctx: &TcContext, slot: u32) -> Verdict {
    count::sent(ctx, slot, Taker::Kernel);
    Verdict::ToKernel
}

/// 224.0.0.0/4, and 240.0.0.0/4 with the limited broadcast in it (RFC 1112 §4).
#[inline(always)]
fn is_multicast_ipv4(address: Ipv4) -> bool {
    u32::from_be(address) >= 0xe000_0000
}

#[inline(always)]
fn is_multicast_ipv6(address: &Ipv6) -> bool {
    u32::from_be(address[0]) >= 0xff00_0000
}

#[inline(always)]
fn is_link_local(address: &Ipv6) -> bool {
    let first = u32::from_be(address[0]);
    first >> 22 == 0xfe80 >> 6
}

#[inline(always)]
fn is_link_local_or_unspecified(address: &Ipv6) -> bool {
    is_link_local(address) || (address[0] | address[1] | address[2] | address[3]) == 0
}

#[inline(always)]
fn bytes(address: Ipv6) -> [u8; 16] {
    // SAFETY: both are sixteen plain bytes.
    unsafe { core::mem::transmute(address) }
}
