// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Where the kernel's routing table sends a packet, asked once per flow and moment.
//!
//! The cache is a direct-mapped array per CPU: a colliding flow simply takes the place. See
//! `bpf_abi::RouteCacheEntry` for what keeps it right.

use core::mem;

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_BLACKHOLE, BPF_FIB_LKUP_RET_PROHIBIT, BPF_FIB_LKUP_RET_SUCCESS,
        BPF_FIB_LKUP_RET_UNREACHABLE, BPF_FIB_LOOKUP_SKIP_NEIGH, bpf_fib_lookup as FibLookup,
        bpf_fib_lookup__bindgen_ty_1 as LengthOrMtu, bpf_fib_lookup__bindgen_ty_2 as TosOrFlow,
        bpf_fib_lookup__bindgen_ty_3 as Source, bpf_fib_lookup__bindgen_ty_4 as Destination,
        bpf_fib_lookup__bindgen_ty_5 as VlanOrTable, bpf_redir_neigh as Neighbor,
        bpf_redir_neigh__bindgen_ty_1 as NeighborAddress,
    },
    helpers::generated::{bpf_fib_lookup, bpf_ktime_get_coarse_ns, bpf_redirect_neigh},
    programs::TcContext,
};
use bpf_abi::{
    AddressEntry, CachedNextHop, DropReason, FlowKey, ROUTE_CACHE_ENTRIES, ROUTE_CACHE_NANOSECONDS,
    RouteCacheEntry,
};

use crate::{
    Verdict,
    maps::{ROUTE_CACHE, ROUTE_GENERATION},
    packet::{self, IPV4_BYTES, IPV6_BYTES, Ipv4Header, Ipv6Header, MacPair},
};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What the routing table says.
pub enum Route {
    /// Out by this device to this neighbour.
    Forward(CachedNextHop),
    /// For the node itself, or something the programs do not do.
    Kernel,
    /// A route that says no.
    Refused(DropReason),
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

/// One flow's place in the cache.
pub struct Place {
    entry: Option<*mut RouteCacheEntry>,
    generation: u64,
    now: u64,
}

impl Place {
    /// Finds the place of a flow.
    #[inline(always)]
    pub fn of(flow: &FlowKey) -> Self {
        Self {
            entry: ROUTE_CACHE.get_ptr_mut(flow.hash() & (ROUTE_CACHE_ENTRIES - 1)),
            generation: ROUTE_GENERATION.get(0).copied().unwrap_or_default(),
            // SAFETY: a helper without arguments.
            now: unsafe { bpf_ktime_get_coarse_ns() },
        }
    }

    /// What is known about the flow, if this frame has the MAC addresses it must have.
    #[inline(always)]
    pub fn known(&self, flow: &FlowKey, macs: MacPair) -> Option<&'static RouteCacheEntry> {
        // SAFETY: points to this CPU's value, and programs on one CPU run one after another.
        let entry: &'static RouteCacheEntry = unsafe { &*self.entry? };
        (entry.expires_ns > self.now
            && entry.generation == self.generation
            && entry.key.is_same(flow)
            && packet::is_same_mac(macs.source, packet::mac(&entry.pod_mac))
            && packet::is_same_mac(macs.destination, packet::mac(&entry.host_mac)))
        .then_some(entry)
    }

    /// Asks the routing table, and remembers where it says to forward to. The sender is believed,
    /// and the destination is no local endpoint.
    #[inline(always)]
    pub fn find(&self, ctx: &TcContext, flow: &FlowKey, sender: &AddressEntry) -> Route {
        let route = ask(ctx, flow);
        if let (Route::Forward(next_hop), Some(entry)) = (&route, self.entry) {
            let fresh = RouteCacheEntry {
                expires_ns: self.now + ROUTE_CACHE_NANOSECONDS,
                generation: self.generation,
                key: *flow,
                next_hop: *next_hop,
                slot: sender.slot,
                pod_mac: sender.pod_mac,
                host_mac: sender.host_mac,
            };
            // SAFETY: as in `known`.
            unsafe { *entry = fresh };
        }
        route
    }
}

/// Sends the packet out. The kernel finds the neighbour's MAC address, and waits for it if it must.
#[inline(always)]
pub fn leave(next_hop: &CachedNextHop) -> Verdict {
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
    Verdict::Redirected(code as i32)
}

/// One lookup in the kernel's tables, by its rules, as if the packet came in by its device.
#[inline(always)]
fn ask(ctx: &TcContext, key: &FlowKey) -> Route {
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
            BPF_FIB_LOOKUP_SKIP_NEIGH,
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
        // For this node, no route at all (the kernel answers), a tunnel, forwarding switched off,
        // or an error.
        _ => Route::Kernel,
    }
}

/// Both ports, each still in network order.
#[inline(always)]
fn split(ports: u32) -> [u16; 2] {
    let [a, b, c, d] = ports.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}
