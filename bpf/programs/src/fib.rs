// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The kernel's routing table, asked, and packets sent where it says.

use core::mem;

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_BLACKHOLE, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NOT_FWDED,
        BPF_FIB_LKUP_RET_PROHIBIT, BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LKUP_RET_UNREACHABLE,
        BPF_FIB_LOOKUP_OUTPUT, BPF_FIB_LOOKUP_SKIP_NEIGH, bpf_fib_lookup as FibLookup,
        bpf_fib_lookup__bindgen_ty_1 as LengthOrMtu, bpf_fib_lookup__bindgen_ty_2 as TosOrFlow,
        bpf_fib_lookup__bindgen_ty_3 as Source, bpf_fib_lookup__bindgen_ty_4 as Destination,
        bpf_fib_lookup__bindgen_ty_5 as VlanOrTable, bpf_redir_neigh as Neighbor,
        bpf_redir_neigh__bindgen_ty_1 as NeighborAddress,
    },
    helpers::generated::{bpf_fib_lookup, bpf_redirect_neigh},
    programs::TcContext,
};
use bpf_abi::{CachedNextHop, DropReason, FlowKey};

use crate::packet::{self, IPV4_BYTES, IPV6_BYTES, Ipv4Header, Ipv6Header};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What the routing table says.
pub enum Route {
    /// Out by this device to this neighbour.
    Forward(CachedNextHop),
    /// For the node itself or for nobody: the kernel forwards it nowhere.
    Here,
    /// Something the programs do not do.
    Kernel,
    /// A route that says no.
    Refused(DropReason),
}

/// Which device a question is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Through {
    /// The packet came in by the flow's device; any way out will do.
    Arrived,
    /// The packet leaves by the flow's device.
    Leaves,
}

/// The flow of an IPv4 packet without options.
#[inline(always)]
pub fn flow_ipv4(ctx: &TcContext, header: &Ipv4Header) -> FlowKey {
    FlowKey {
        source: [header.source, 0, 0, 0],
        destination: [header.destination, 0, 0, 0],
        ports: if header.is_fragment {
            0
        } else {
            packet::ports(ctx, header.protocol, IPV4_BYTES)
        },
        protocol: header.protocol,
        ip_version: 4,
        traffic_class: header.tos,
        reserved: 0,
        ifindex: packet::ifindex(ctx),
    }
}

/// The flow of an IPv6 packet.
#[inline(always)]
pub fn flow_ipv6(ctx: &TcContext, header: &Ipv6Header) -> FlowKey {
    FlowKey {
        source: header.source,
        destination: header.destination,
        ports: packet::ports(ctx, header.protocol, IPV6_BYTES),
        protocol: header.protocol,
        ip_version: 6,
        traffic_class: header.traffic_class,
        reserved: 0,
        ifindex: packet::ifindex(ctx),
    }
}

/// Sends the packet out. The kernel finds the neighbour's MAC address, and waits for it if it must.
#[inline(always)]
pub fn leave(next_hop: &CachedNextHop) -> i32 {
    let mut neighbor = Neighbor {
        nh_family: next_hop.family,
        __bindgen_anon_1: NeighborAddress {
            ipv6_nh: next_hop.address,
        },
    };
    // SAFETY: the pointer and size describe a live local value.
    let code = unsafe {
        bpf_redirect_neigh(
            next_hop.ifindex,
            &mut neighbor,
            mem::size_of::<Neighbor>() as i32,
            0,
        )
    };
    code as i32
}

/// One lookup in the kernel's tables, by its rules.
#[inline(always)]
pub fn ask(ctx: &TcContext, key: &FlowKey, through: Through) -> Route {
    let [source_port, destination_port] = split(key.ports);
    let is_ipv4 = key.ip_version == 4;
    // Every field is written out: zeroing the whole first would be a call and a loop.
    let mut question = FibLookup {
        family: if is_ipv4 { AF_INET } else { AF_INET6 },
        l4_protocol: key.protocol,
        sport: source_port,
        dport: destination_port,
        // A length of one byte fits everywhere: the answer then carries the route's MTU, and the
        // caller compares, since it knows about GSO.
        __bindgen_anon_1: LengthOrMtu { tot_len: 1 },
        ifindex: key.ifindex,
        __bindgen_anon_2: TosOrFlow {
            flowinfo: if is_ipv4 {
                u32::from_ne_bytes([key.traffic_class, 0, 0, 0])
            } else {
                (u32::from(key.traffic_class) << 20).to_be()
            },
        },
        __bindgen_anon_3: Source {
            ipv6_src: key.source,
        },
        __bindgen_anon_4: Destination {
            ipv6_dst: key.destination,
        },
        __bindgen_anon_5: VlanOrTable { tbid: 0 },
        smac: [0; 6],
        dmac: [0; 6],
    };
    // SAFETY: the context is live, pointer and size describe a live local value.
    let answer = unsafe {
        bpf_fib_lookup(
            ctx.skb.skb.cast(),
            &mut question,
            mem::size_of::<FibLookup>() as i32,
            match through {
                Through::Arrived => BPF_FIB_LOOKUP_SKIP_NEIGH,
                Through::Leaves => BPF_FIB_LOOKUP_SKIP_NEIGH | BPF_FIB_LOOKUP_OUTPUT,
            },
        )
    };
    match u32::try_from(answer) {
        Ok(BPF_FIB_LKUP_RET_SUCCESS) => {
            // SAFETY: on success the kernel filled these; every bit pattern is a value.
            let (address, mtu) = unsafe {
                (
                    question.__bindgen_anon_4.ipv6_dst,
                    question.__bindgen_anon_1.mtu_result,
                )
            };
            let family = u32::from(question.family);
            let address = if family == u32::from(AF_INET) {
                [address[0], 0, 0, 0]
            } else {
                address
            };
            Route::Forward(CachedNextHop {
                ifindex: question.ifindex,
                family,
                address,
                // A loopback device's 65536 does not fit into the field and reads as zero.
                mtu: if mtu == 0 {
                    u32::from(u16::MAX)
                } else {
                    u32::from(mtu)
                },
            })
        }
        Ok(BPF_FIB_LKUP_RET_BLACKHOLE) => Route::Refused(DropReason::Blackhole),
        Ok(BPF_FIB_LKUP_RET_UNREACHABLE) => Route::Refused(DropReason::Unreachable),
        Ok(BPF_FIB_LKUP_RET_PROHIBIT) => Route::Refused(DropReason::Prohibited),
        // For this node, no route at all (the kernel answers), or forwarding switched off.
        Ok(BPF_FIB_LKUP_RET_NOT_FWDED | BPF_FIB_LKUP_RET_FWD_DISABLED) => Route::Here,
        // A tunnel, or an error.
        _ => Route::Kernel,
    }
}

/// Both ports, each still in network order.
#[inline(always)]
fn split(ports: u32) -> [u16; 2] {
    let [a, b, c, d] = ports.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}
