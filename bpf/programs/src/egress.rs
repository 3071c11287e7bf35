// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Egress policies: packets of selected pods to the world go to a gateway, or nowhere.
//!
//! What a policy selects is never left to the kernel, which would send it under the pod's own
//! address.

use aya_ebpf::{
    bindings::BPF_NOEXIST, btf_maps::lpm_trie::Key, helpers::generated::bpf_ktime_get_coarse_ns,
    programs::TcContext,
};
use bpf_abi::{
    AddressEntry, DropReason, FlowKey,
    egress::{EgressFlow, EgressFlowKey, EgressPrefix, way},
    nat::{said, tick},
};
use bpf_programs::{
    mss,
    packet::{self, ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, PROTOCOL_TCP},
    tunnel,
};

use crate::maps::{CLUSTER_V4, CLUSTER_V6, EGRESS_ENDS, EGRESS_FLOWS, EGRESS_V4, EGRESS_V6};

/// What TCP says in a packet.
#[derive(Clone, Copy)]
struct Segment {
    /// Bits of [`said`].
    says: u32,
    /// SYN without ACK.
    begins: bool,
}

/// The way of a packet that is not for a pod of this node: `None` when no policy says anything.
#[inline(never)]
pub fn choose(ctx: &TcContext, sender: &AddressEntry, flow: &FlowKey) -> u32 {
    let key = key_of(flow);
    let segment = segment(ctx, flow);
    // SAFETY: a helper without arguments.
    let now = tick(unsafe { bpf_ktime_get_coarse_ns() });
    if let Some(known) = EGRESS_FLOWS.get_ptr_mut(key) {
        // SAFETY: the element stays readable and writable while the program runs; words are
        // written one by one.
        let known = unsafe { &mut *known };
        let is_over = known.said & (said::FIN | said::RST) != 0 || known.way == way::PASS;
        if !(segment.begins && is_over) {
            if known.last_seen != now {
                known.last_seen = now;
            }
            if known.said & segment.says != segment.says {
                known.said |= segment.says;
            }
            return known.way;
        }
    }
    let chosen = by_policy(sender.egress_set, flow);
    if chosen != way::PASS && chosen != way::NO_GATEWAY && chosen != way::UNDECIDED {
        let fresh = EgressFlow {
            way: chosen,
            last_seen: now,
            said: segment.says,
        };
        // Where there is no room the policies say it again at the next packet.
        let _ = EGRESS_FLOWS.insert(key, fresh, 0);
    }
    chosen
}

/// Notes that somebody outside has begun to talk to a pod: what the pod answers is no connection
/// of its own.
#[inline(always)]
pub fn note_caller(ctx: &TcContext, flow: &FlowKey) {
    // The same connection, seen from the pod.
    let [remote_port, pod_port] = split(flow.ports);
    let key = EgressFlowKey {
        pod: flow.destination,
        remote: flow.source,
        pod_port,
        remote_port,
        protocol: flow.protocol,
        ip_version: flow.ip_version,
        reserved: 0,
    };
    if flow.protocol == PROTOCOL_TCP && !segment(ctx, flow).begins {
        return;
    }
    // SAFETY: only whether it is there counts.
    if unsafe { EGRESS_FLOWS.get(key) }.is_some() {
        return;
    }
    let caller = EgressFlow {
        way: way::PASS,
        // SAFETY: a helper without arguments.
        last_seen: tick(unsafe { bpf_ktime_get_coarse_ns() }),
        said: 0,
    };
    let _ = EGRESS_FLOWS.insert(key, caller, u64::from(BPF_NOEXIST));
}

/// Sends a packet to the gateway of a rule. TTL and hop limit are lowered by now.
#[inline(always)]
pub fn send(ctx: &TcContext, rule: u32, flow: &FlowKey) -> Result<i32, DropReason> {
    // SAFETY: read at once; a removed element stays readable while the program runs.
    let Some(end) = (unsafe { EGRESS_ENDS.get(rule) }) else {
        return Err(DropReason::EgressNoGateway);
    };
    if end.ip_version == 0 && end.is_local == 0 {
        return Err(DropReason::EgressNoGateway);
    }
    if flow.protocol == PROTOCOL_TCP && flow.ports != 0 {
        if flow.ip_version == 4 {
            mss::clamp(ctx, IPV4_BYTES, end.mtu);
        } else {
            mss::clamp(ctx, IPV6_BYTES, end.mtu);
        }
    }
    tunnel::send(ctx, end, rule)
}

/// What the policies say of a new connection.
#[inline(always)]
fn by_policy(set: u32, flow: &FlowKey) -> u32 {
    let set = set.to_be();
    if flow.ip_version == 4 {
        let destination = [flow.destination[0]];
        let key = Key::new(64, EgressPrefix { set, destination });
        let Some(chosen) = EGRESS_V4.get(&key).copied() else {
            return way::PASS;
        };
        if chosen == way::PASS || CLUSTER_V4.get(&Key::new(32, destination)).is_some() {
            return way::PASS;
        }
        chosen
    } else {
        let destination = flow.destination;
        let key = Key::new(160, EgressPrefix { set, destination });
        let Some(chosen) = EGRESS_V6.get(&key).copied() else {
            return way::PASS;
        };
        if chosen == way::PASS || CLUSTER_V6.get(&Key::new(128, destination)).is_some() {
            return way::PASS;
        }
        chosen
    }
}

#[inline(always)]
fn key_of(flow: &FlowKey) -> EgressFlowKey {
    let [pod_port, remote_port] = split(flow.ports);
    EgressFlowKey {
        pod: flow.source,
        remote: flow.destination,
        pod_port,
        remote_port,
        protocol: flow.protocol,
        ip_version: flow.ip_version,
        reserved: 0,
    }
}

/// What TCP says; fragments, which have no ports here, say nothing.
#[inline(always)]
fn segment(ctx: &TcContext, flow: &FlowKey) -> Segment {
    let mut segment = Segment {
        says: said::ANYTHING,
        begins: false,
    };
    if flow.protocol != PROTOCOL_TCP || flow.ports == 0 {
        return segment;
    }
    let flags: Option<u8> = if flow.ip_version == 4 {
        packet::read(ctx, ETHERNET_BYTES + IPV4_BYTES + 13)
    } else {
        packet::read(ctx, ETHERNET_BYTES + IPV6_BYTES + 13)
    };
    let flags = flags.unwrap_or_default();
    if flags & 0x01 != 0 {
        segment.says |= said::FIN;
    }
    if flags & 0x04 != 0 {
        segment.says |= said::RST;
    }
    segment.begins = flags & 0x12 == 0x02;
    segment
}

/// Both ports, each still in network order.
#[inline(always)]
fn split(ports: u32) -> [u16; 2] {
    [ports as u16, (ports >> 16) as u16]
}
