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
    egress::{
        EgressFlow, EgressFlowKey, EgressNativeKey, EgressPrefix, NATIVE_END, NATIVE_TTL,
        NATIVE_TTL_AFTER, NATIVE_TTL_BEFORE, RemotePodKey, inside, source_flags, way,
    },
    excess,
    nat::{FIRST_RULE, JUDGED_MARK, NATIVE_MARK, TUNNEL_BACK, TUNNEL_MAC, said, tick},
};
use bpf_programs::{
    fib::{self, Route, Through},
    mss,
    packet::{
        self, ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, Mac, Origin, PROTOCOL_ICMP, PROTOCOL_ICMPV6,
        PROTOCOL_TCP, PROTOCOL_UDP,
    },
    tunnel,
};

use crate::{
    count::{self, Taker},
    maps::{
        CLUSTER_V4, CLUSTER_V6, EGRESS_ENDS, EGRESS_FLOWS, EGRESS_NATIVE, EGRESS_REMOTE, EGRESS_V4,
        EGRESS_V6,
    },
    too_big,
};

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
    let mut key = key_of(flow);
    if is_icmp(flow) {
        // What is about a connection goes its way; everything else is a matter of its own, which
        // no note tells from what the other end asked for.
        return match about(ctx, flow, &mut key).then(|| EGRESS_FLOWS.get_ptr_mut(key)) {
            // SAFETY: the element stays readable while the program runs.
            Some(Some(known)) => unsafe { (*known).way },
            _ => by_policy(sender.egress_set, flow),
        };
    }
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
    // Answers to what the pod began.
    if is_judged(ctx) || came_by_tunnel(ctx) {
        return;
    }
    // The same connection, seen from the pod.
    let [remote_port, pod_port] = split(flow.ports);
    let mut key = EgressFlowKey {
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
    if is_icmp(flow) {
        match echo(ctx, flow) {
            Some((kind, identifier)) if kind == echo_types(flow)[0] => {
                key.remote_port = identifier;
            }
            _ => return,
        }
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

/// Sends a packet to the gateway of a rule, or its sender the answer that it is too large. TTL and hop
/// limit are lowered by now.
#[inline(always)]
pub fn send(
    ctx: &TcContext,
    sender: &AddressEntry,
    rule: u32,
    flow: &FlowKey,
    size: Size,
) -> Result<i32, DropReason> {
    let mut native_mtu = 0;
    if sender.egress_flags & source_flags::KNOWN_TO_GATEWAYS != 0 {
        match natively(ctx, rule, flow, size) {
            Ok(code) => {
                count::sent(ctx, sender.slot, Taker::Programs);
                return Ok(code);
            }
            Err(mtu) => native_mtu = mtu,
        }
    }
    // SAFETY: read at once; a removed element stays readable while the program runs.
    let Some(end) = (unsafe { EGRESS_ENDS.get(rule) }) else {
        return Err(DropReason::EgressNoGateway);
    };
    if end.ip_version == 0 && end.is_local == 0 {
        return Err(DropReason::EgressNoGateway);
    }
    if size.bytes > u32::from(end.mtu) && end.mtu != 0 {
        let bytes = size.on_wire(ctx, flow);
        let excess = excess::of(end, flow.ip_version, bytes, size.may_be_cut, native_mtu);
        if excess != excess::GOES_ON {
            return Ok(too_big::answer(ctx, sender, flow, excess));
        }
    }
    if flow.protocol == PROTOCOL_TCP && flow.ports != 0 {
        if flow.ip_version == 4 {
            mss::clamp(ctx, IPV4_BYTES, end.mtu);
        } else {
            mss::clamp(ctx, IPV6_BYTES, end.mtu);
        }
    }
    let code = tunnel::send(ctx, end, rule)?;
    count::sent(ctx, sender.slot, Taker::Programs);
    Ok(code)
}

/// How large a packet is.
#[derive(Clone, Copy)]
pub struct Size {
    /// Its bytes; for GSO frames, those of all segments together.
    pub bytes: u32,
    /// Whether it may be cut: see [`excess::of`].
    pub may_be_cut: bool,
}

impl Size {
    /// Bytes of the largest packet this one will be on a wire.
    #[inline(always)]
    fn on_wire(self, ctx: &TcContext, flow: &FlowKey) -> u32 {
        let header_bytes = if flow.ip_version == 4 {
            IPV4_BYTES
        } else {
            IPV6_BYTES
        };
        packet::wire_bytes(ctx, flow.protocol, header_bytes, self.bytes)
    }
}

/// Sends a packet to its gateway as it is, if that is a neighbour, but for its TTL. One that is too
/// large for the way takes the tunnel, which may be wider: what the way takes is the error then. The
/// kernel's own answer or cut would go by its table.
#[inline(always)]
fn natively(ctx: &TcContext, rule: u32, flow: &FlowKey, size: Size) -> Result<i32, u32> {
    let is_ipv4 = flow.ip_version == 4;
    let key = EgressNativeKey {
        rule,
        ip_version: u32::from(flow.ip_version),
    };
    // SAFETY: read at once; a removed element stays readable while the program runs.
    let next_hop = unsafe { EGRESS_NATIVE.get(key) }.ok_or(0_u32)?;
    let ttl_at = if is_ipv4 {
        ETHERNET_BYTES + 8
    } else {
        ETHERNET_BYTES + 7
    };
    if packet::read::<u8>(ctx, ttl_at).ok_or(0_u32)? < NATIVE_TTL_BEFORE {
        return Err(0);
    }
    if size.bytes > next_hop.mtu && size.on_wire(ctx, flow) > next_hop.mtu {
        return Err(next_hop.mtu);
    }
    let set = if is_ipv4 {
        packet::set_ttl(ctx, NATIVE_TTL)
    } else {
        packet::set_hop_limit(ctx, NATIVE_TTL, Origin::Pod)
    };
    set.map_err(|_| 0_u32)?;
    Ok(fib::leave(next_hop))
}

/// What becomes of a packet from the fabric that is for no pod of this node and that no router forwards
/// ([`NATIVE_TTL`]): one of [`way`], or the mark it gets on its way to the gateway's programs. It is a
/// matter of egress where it comes from a pod of another node and is for the world.
///
/// A rule of this gateway is named where the pod's policies do. Where they do not, the packet may
/// still be of a connection that began under other ones: the gateway's programs know, and refuse it
/// if it is of none.
#[inline(never)]
pub fn of_other_node(ctx: &TcContext, flow: &FlowKey) -> u32 {
    let key = RemotePodKey {
        address: flow.source,
        ip_version: u32::from(flow.ip_version),
    };
    // SAFETY: read at once; a removed element stays readable while the program runs.
    if let Some(pod) = unsafe { EGRESS_REMOTE.get(key) } {
        // Inside the cluster there is no rule.
        let chosen = by_policy(pod.set, flow);
        if chosen >= FIRST_RULE {
            return if pod.ifindex == flow.ifindex {
                NATIVE_MARK | chosen
            } else {
                way::SPOOFED
            };
        }
    }
    let is_pods = if flow.ip_version == 4 {
        let source = Key::new(32, [flow.source[0]]);
        let destination = Key::new(32, [flow.destination[0]]);
        CLUSTER_V4.get(&source).copied() == Some(inside::PODS)
            && CLUSTER_V4.get(&destination).is_none()
    } else {
        let source = Key::new(128, flow.source);
        let destination = Key::new(128, flow.destination);
        CLUSTER_V6.get(&source).copied() == Some(inside::PODS)
            && CLUSTER_V6.get(&destination).is_none()
    };
    if !is_pods {
        return way::PASS;
    }
    if let Route::Here = fib::ask(ctx, flow, Through::Arrived) {
        return way::PASS;
    }
    NATIVE_MARK
}

/// Hands a packet of another node's pod to the gateway's programs, if there are any here.
#[inline(always)]
pub fn to_gateway(ctx: &TcContext, flow: &FlowKey, mark: u32) -> Result<i32, DropReason> {
    // SAFETY: read at once; a removed element stays readable while the program runs.
    let Some(end) = (unsafe { EGRESS_ENDS.get(NATIVE_END) }) else {
        return Err(DropReason::EgressNoGateway);
    };
    if flow.ip_version == 4 {
        packet::set_ttl(ctx, NATIVE_TTL_AFTER)?;
    } else {
        packet::set_hop_limit(ctx, NATIVE_TTL_AFTER, Origin::Fabric)?;
    }
    tunnel::enter(ctx, end.ifindex, mark)
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

/// Whether a gateway of this node has judged the packet. Asked once: nobody else's rules are to see
/// the mark.
#[inline(always)]
pub fn is_judged(ctx: &TcContext) -> bool {
    // SAFETY: the context is valid while the program runs.
    let is_judged = unsafe { (*ctx.skb.skb).mark } == JUDGED_MARK;
    if is_judged {
        ctx.set_mark(0);
    }
    is_judged
}

/// Whether a packet came out of the tunnel and was put in by somebody who is no node: pods may send
/// to the tunnel's port, but from their own addresses alone.
#[inline(always)]
pub fn is_forged(ctx: &TcContext) -> bool {
    // Only the tunnel's device has this address, and only what is addressed to it gets here.
    let at: Option<Mac> = packet::read(ctx, 0);
    at.is_some_and(|at| packet::is_same_mac(at, packet::mac(&TUNNEL_MAC))) && !is_from_node(ctx)
}

/// Whether a packet in the tunnel's device came from a node, or from this one.
#[inline(never)]
fn is_from_node(ctx: &TcContext) -> bool {
    // A gateway's own pod: nothing but our programs puts packets in without the tunnel.
    let Some(arrival) = tunnel::arrival(ctx) else {
        return true;
    };
    let from = if arrival.ip_version == 4 {
        CLUSTER_V4.get(&Key::new(32, [arrival.from[0]])).copied()
    } else {
        CLUSTER_V6.get(&Key::new(128, arrival.from)).copied()
    };
    from == Some(inside::NODE)
}

/// Whether a packet was put into the tunnel device for a gateway's programs and none have seen it:
/// they are gone. They take the mark away.
#[inline(always)]
pub fn is_unseen(ctx: &TcContext) -> bool {
    let at: Option<Mac> = packet::read(ctx, 0);
    // SAFETY: the context is valid while the program runs.
    let mark = unsafe { (*ctx.skb.skb).mark };
    mark != 0 && at.is_some_and(|at| packet::is_same_mac(at, packet::mac(&TUNNEL_MAC)))
}

/// Whether a packet came out of the tunnel between pods and gateways.
#[inline(always)]
pub fn came_by_tunnel(ctx: &TcContext) -> bool {
    tunnel::identifier(ctx).is_some_and(|id| id == TUNNEL_BACK || id >= FIRST_RULE)
}

#[inline(always)]
fn is_icmp(flow: &FlowKey) -> bool {
    if flow.ip_version == 4 {
        flow.protocol == PROTOCOL_ICMP
    } else {
        flow.protocol == PROTOCOL_ICMPV6
    }
}

/// Types of echo requests and replies.
#[inline(always)]
fn echo_types(flow: &FlowKey) -> [u8; 2] {
    if flow.ip_version == 4 {
        [8, 0]
    } else {
        [128, 129]
    }
}

#[inline(always)]
fn icmp_at(flow: &FlowKey) -> u32 {
    if flow.ip_version == 4 {
        ETHERNET_BYTES + IPV4_BYTES
    } else {
        ETHERNET_BYTES + IPV6_BYTES
    }
}

/// Type and identifier of an ICMP packet; only echoes have an identifier that counts.
#[inline(always)]
fn echo(ctx: &TcContext, flow: &FlowKey) -> Option<(u8, u16)> {
    let at = icmp_at(flow) as usize;
    Some((ctx.load(at).ok()?, ctx.load(at + 4).ok()?))
}

/// Finds the connection an ICMP packet of a pod is about: the echo somebody outside asked for, or
/// the packet an error quotes. False where it is about none.
#[inline(always)]
fn about(ctx: &TcContext, flow: &FlowKey, key: &mut EgressFlowKey) -> bool {
    let Some((kind, identifier)) = echo(ctx, flow) else {
        return false;
    };
    let [request, reply] = echo_types(flow);
    if kind == reply {
        key.remote_port = identifier;
        return true;
    }
    // RFC 792 and RFC 4443 §2.1; the quoted packet begins after eight bytes.
    let is_error = if flow.ip_version == 4 {
        matches!(kind, 3 | 11 | 12)
    } else {
        kind < request
    };
    if !is_error {
        return false;
    }
    let quoted = icmp_at(flow) + 8;
    let (protocol_at, ports_at) = if flow.ip_version == 4 {
        (quoted + 9, quoted + IPV4_BYTES)
    } else {
        (quoted + 6, quoted + IPV6_BYTES)
    };
    let (Ok(protocol), Ok(ports)) = (
        ctx.load::<u8>(protocol_at as usize),
        ctx.load::<[u16; 2]>(ports_at as usize),
    ) else {
        return false;
    };
    key.protocol = protocol;
    if protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP {
        key.remote_port = ports[0];
        key.pod_port = ports[1];
    }
    true
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
