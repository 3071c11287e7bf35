// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Source NAT of egress gateways: rules, mappings and what becomes of a packet.
//!
//! # Mappings
//!
//! A mapping is a pair of entries in one hash of its family: the **out** entry, found by the pod's
//! packets, and the **back** entry, found by the answers. The back entry is claimed first and with
//! `BPF_NOEXIST`: who has it has the port. Nothing but the daemon removes entries, and always both;
//! no map here evicts.
//!
//! Each entry holds what its own direction needs and what its own direction has said, so that a
//! packet writes into the one entry it found. A reader puts both together ([`NatEntry::said`]).
//!
//! Protocols without ports (everything but TCP, UDP and ICMP echo, whose identifier counts as a
//! port) are told apart by addresses alone.

use crate::{CachedNextHop, FlowKey, Plain};

/// Most rules on one gateway: a rule is one way out of one policy.
pub const MAX_RULES: u32 = 16_384;

/// Most addresses of one family a rule can have.
pub const MAX_RULE_ADDRESSES: usize = 8;

/// Most addresses of nodes pods' packets come from: 5 000 nodes with both families, and some room.
pub const MAX_NODES: u32 = 16_384;

/// Most addresses a gateway holds at once: arbitrary, each of its rules with some.
pub const MAX_HELD: u32 = 65_536;

/// Most ports of held addresses at which something else is served: arbitrary, one for each rule.
pub const MAX_SERVED: u32 = 16_384;

/// Mappings of a family unless the daemon is told otherwise.
pub const DEFAULT_MAPPINGS: u32 = 1 << 18;

/// Entries of a family's mappings unless the daemon is told otherwise.
pub const DEFAULT_NAT_ENTRIES: u32 = nat_entries(DEFAULT_MAPPINGS);

/// Entries of a table that has room for so many mappings, two for each.
///
/// One more than a power of two. The kernel gives a hash as many places as the next power of two, so
/// that this one entry doubles them, and a full table still has two places for each entry. A new
/// mapping looks at two places, and each entry it finds there is a miss of the cache and of the TLB
/// that no prediction hides: a million mappings in 4 million places cost a new one 1.25 times what
/// it costs in an empty table, in 8 million 1.1 times.
#[must_use]
pub const fn nat_entries(mappings: u32) -> u32 {
    (2 * mappings).next_power_of_two() + 1
}

/// Places for answers of the routing table, on each CPU.
pub const GATEWAY_ROUTE_ENTRIES: u32 = 4_096;

/// Source ports a route is asked for: so many, whatever port a connection got.
const ROUTE_PORTS: u16 = 64;

/// The source port a route is asked for in place of the one a connection got, both in network order.
///
/// Only so many, so that all connections to one port of a server share as many answers and 50 000 of
/// them do not ask 50 000 times; and always the same one for a connection, so that it keeps its way
/// among several equal ones. They are ports that a connection may have as well: the highest ones
/// there are.
///
/// Deviation: a routing rule that selects by *source* port sees this one. The other is the
/// translation's own choice. Where there is nothing to choose (`fib_multipath_hash_policy` of 0) the
/// answer is the same for all.
#[must_use]
#[inline(always)]
pub const fn route_port(port: u16) -> u16 {
    port | !(ROUTE_PORTS - 1).to_be()
}

/// Fragmented packets under way at most, of one family.
pub const MAX_FRAGMENTED: u32 = 4_096;

/// Refusals counted by rule and reason at most; what does not fit is in the totals.
pub const MAX_RULE_REFUSALS: u32 = 4 * MAX_RULES;

/// Bytes of the ring buffer of events: 58 000 of them, half a second at 100 000 new connections a
/// second.
pub const EVENT_BYTES: u32 = 1 << 22;

/// The tunnel's network identifier of answers on their way back to the pod's node.
pub const TUNNEL_BACK: u32 = 1;

/// The mark of packets a gateway has judged, between its program and the next one on the hook:
/// answers to pods of its own node, and what the kernel is to cut.
pub const JUDGED_MARK: u32 = 1 << 24;

/// In the mark of packets of other nodes' pods that came without a tunnel, beside the number of their
/// rule; alone where only their connection can say which one.
pub const NATIVE_MARK: u32 = 1 << 25;

/// The lowest number of a rule; below are numbers with a meaning of their own.
pub const FIRST_RULE: u32 = 4_096;

/// The highest number of a rule: identifiers of VXLAN and Geneve have 24 bits (RFC 7348 §5,
/// RFC 8926 §3.4).
pub const LAST_RULE: u32 = (1 << 24) - 1;

/// MAC address of every node's tunnel device: inside the tunnel only IP counts.
pub const TUNNEL_MAC: [u8; 6] = [0x02, 0xca, 0x05, 0xe0, 0x00, 0x01];

/// Source MAC address of frames in the tunnel. Not [`TUNNEL_MAC`]: VXLAN and Geneve drop what seems
/// to come from themselves.
pub const TUNNEL_SOURCE_MAC: [u8; 6] = [0x02, 0xca, 0x05, 0xe0, 0x00, 0x02];

/// The side of a [`NatKey`].
pub mod side {
    /// The pod's: `local` is the pod.
    pub const OUT: u8 = 0;
    /// The world's: `local` is the gateway's address.
    pub const BACK: u8 = 1;
}

/// What one direction of a connection has said.
pub mod said {
    /// Anything at all.
    pub const ANYTHING: u32 = 1;
    /// TCP: FIN.
    pub const FIN: u32 = 2;
    /// TCP: RST.
    pub const RST: u32 = 4;
    /// Not said but done: changes of this mapping are told to the standby.
    pub const REPLICATED: u32 = 0x100;
}

/// Key of a mapping's entry. `A` is `[u8; 4]` or `[u8; 16]`; as words, since both sides compare
/// words.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NatKey<A> {
    /// The world's end; zero in mappings that belong to a socket alone.
    pub remote: A,
    /// The pod's or the gateway's end.
    pub local: A,
    /// The world's port, network order; zero where there is none.
    pub remote_port: u16,
    /// The local port, network order; zero where there is none.
    pub local_port: u16,
    /// Protocol number.
    pub protocol: u8,
    /// One of [`side`].
    pub side: u8,
    /// Zero.
    pub reserved: u16,
}

/// An IPv4 address as one word in memory order.
pub type V4 = [u32; 1];
/// An IPv6 address as words in memory order.
pub type V6 = [u32; 4];

/// The addresses of a family, as words in memory order.
///
/// # Safety
/// Only arrays of words, for which the sizes below are asserted.
pub unsafe trait AddressWords: Copy + 'static {}
// SAFETY: an array of words.
unsafe impl AddressWords for V4 {}
// SAFETY: an array of words.
unsafe impl AddressWords for V6 {}

const _: () = assert!(size_of::<NatKey<V4>>() == 16);
const _: () = assert!(size_of::<NatKey<V6>>() == 40);
// SAFETY: `repr(C)`, all aligned like words, and the sizes above are those of the fields: no padding.
unsafe impl<A: AddressWords> Plain for NatKey<A> {}

/// One direction of a mapping.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatEntry<A> {
    /// When its last packet passed: see [`tick`].
    pub last_seen: u32,
    /// The rule it was made by.
    pub rule: u32,
    /// Bits of [`said`].
    pub said: u32,
    /// The rule's place in the counters.
    pub slot: u16,
    /// The pod's node: an index into the table of nodes, [`LOCAL_NODE`] for this one, and
    /// [`NATIVE_NODE`] where the routing table knows the way.
    pub node: u16,
    /// The outer source address of the pod's packets, folded into a word: another one means that
    /// the pod's address has moved to another node.
    pub outer: u32,
    /// The other side's address: the gateway's in an out entry, the pod's in a back entry.
    pub address: A,
    /// The other side's port, network order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
}
const _: () = assert!(size_of::<NatEntry<V4>>() == 28);
const _: () = assert!(size_of::<NatEntry<V6>>() == 40);
// SAFETY: `repr(C)`, all aligned like words, and the sizes above are those of the fields: no padding.
unsafe impl<A: AddressWords> Plain for NatEntry<A> {}

/// The index of this node in the table of nodes: answers stay here.
pub const LOCAL_NODE: u16 = 0;

/// Stands for the nodes of pods that are reached by the routing table, in [`NatEntry::node`]. No
/// index.
pub const NATIVE_NODE: u16 = u16::MAX;

/// Stands for the outer address of packets that came without a tunnel, in [`NatEntry::outer`]: all
/// ones folded, which is no address of a node.
pub const NATIVE_OUTER: u32 = u32::MAX;

/// A moment in steps of 2^20 ns, about a millisecond, from the coarse monotonic clock. It wraps
/// after 52 days, so that of two moments only the distance counts, and distances up to 26 days are
/// told right: no timeout may be longer ([`MAX_TIMEOUT_SECONDS`]).
#[must_use]
#[inline(always)]
pub const fn tick(nanoseconds: u64) -> u32 {
    (nanoseconds >> 20) as u32
}

/// The longest timeout of a mapping: 20 days.
pub const MAX_TIMEOUT_SECONDS: u32 = 20 * 24 * 3600;

/// An address folded into one word, for [`NatEntry::outer`].
#[must_use]
#[inline(always)]
pub const fn fold(address: V6) -> u32 {
    address[0] ^ address[1] ^ address[2] ^ address[3]
}

/// One way out, as its gateway knows it. Value of `RULES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatRule {
    /// The device packets leave by; zero: the routing table decides.
    pub ifindex: u32,
    /// Bits of [`rule_flags`].
    pub flags: u32,
    /// Its place in the counters.
    pub slot: u16,
    /// The lowest port connections get, host order.
    pub first_port: u16,
    /// The highest port connections get, host order.
    pub last_port: u16,
    /// How many of `v4` count.
    pub count_v4: u8,
    /// How many of `v6` count.
    pub count_v6: u8,
    /// IPv4 addresses connections get, filled one after the other.
    pub v4: [V4; MAX_RULE_ADDRESSES],
    /// The same for IPv6.
    pub v6: [V6; MAX_RULE_ADDRESSES],
}
const _: () = assert!(size_of::<NatRule>() == 176);
// SAFETY: `repr(C)`; 2 * 4 + 3 * 2 + 2 + 32 + 128 = 176: no padding.
unsafe impl Plain for NatRule {}

impl Default for NatRule {
    fn default() -> Self {
        Self {
            ifindex: 0,
            flags: 0,
            slot: 0,
            first_port: 1024,
            last_port: u16::MAX,
            count_v4: 0,
            count_v6: 0,
            v4: [[0; 1]; MAX_RULE_ADDRESSES],
            v6: [[0; 4]; MAX_RULE_ADDRESSES],
        }
    }
}

/// Bits of [`NatRule::flags`].
pub mod rule_flags {
    /// A UDP socket keeps one mapping whomever it sends to (RFC 4787 §4.1).
    pub const UDP_INDEPENDENT: u32 = 1;
    /// Changes of mappings are told to the standby.
    pub const REPLICATED: u32 = 2;
    /// Connections that are there go on, new ones are refused: they belong elsewhere.
    pub const DRAINING: u32 = 4;
}

/// Where a tunnel ends. Value of `TUNNEL_ENDS`, by the index of the node, and of `EGRESS_ENDS` on
/// the pod's node, by the number of the rule.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelEnd {
    /// Outer destination address; an IPv4 address in the first word.
    pub address: V6,
    /// Outer source address, by which the other end knows this node; zero to leave it to the
    /// routing table.
    pub source: V6,
    /// The tunnel device.
    pub ifindex: u32,
    /// 4 or 6; 0 where nothing is known, and packets are refused.
    pub ip_version: u8,
    /// 1 where the gateway is this node, and the packet only enters the tunnel device.
    pub is_local: u8,
    /// Largest IP packet the tunnel takes whole, in bytes: TCP is told of it. Larger ones are
    /// fragmented outside. Zero where the tunnel's way is not known.
    pub mtu: u16,
}
const _: () = assert!(size_of::<TunnelEnd>() == 40);
// SAFETY: `repr(C)`; 2 * 16 + 4 + 2 + 2 = 40: no padding.
unsafe impl Plain for TunnelEnd {}

/// A port of a held address at which something other than pods' connections is served. Key of
/// `SERVED`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedPort {
    /// The held address; IPv4's in the first word.
    pub address: V6,
    /// The port, network order.
    pub port: u16,
    /// Protocol number: of TCP or UDP.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
}
const _: () = assert!(size_of::<ServedPort>() == 20);
// SAFETY: `repr(C)`; 16 + 2 + 1 + 1 = 20: no padding.
unsafe impl Plain for ServedPort {}

/// A packet of which only the first fragment says the ports. Key of `FRAGMENTS_V4` and
/// `FRAGMENTS_V6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentKey<A> {
    /// Source of the fragments as they arrive.
    pub source: A,
    /// Destination of the fragments as they arrive.
    pub destination: A,
    /// The identification all of them carry, network order; IPv4's in the first half of memory.
    pub identification: u32,
    /// Protocol number.
    pub protocol: u8,
    /// One of [`side`].
    pub side: u8,
    /// Zero.
    pub reserved: u16,
}
const _: () = assert!(size_of::<FragmentKey<V4>>() == 16);
const _: () = assert!(size_of::<FragmentKey<V6>>() == 40);
// SAFETY: `repr(C)`, all aligned like words, and the sizes above are those of the fields: no padding.
unsafe impl<A: AddressWords> Plain for FragmentKey<A> {}

/// What later fragments get: the address the first one got. Value of `FRAGMENTS_V4` and
/// `FRAGMENTS_V6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentEntry<A> {
    /// The new address of the translated end.
    pub address: A,
    /// The rule's place in the counters.
    pub slot: u16,
    /// The pod's node.
    pub node: u16,
}
const _: () = assert!(size_of::<FragmentEntry<V4>>() == 8);
const _: () = assert!(size_of::<FragmentEntry<V6>>() == 20);
// SAFETY: `repr(C)`, all aligned like words, and the sizes above are those of the fields: no padding.
unsafe impl<A: AddressWords> Plain for FragmentEntry<A> {}

/// One place of `GATEWAY_ROUTES`: as [`RouteCacheEntry`](crate::RouteCacheEntry), for translated
/// packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewayRoute {
    /// Until when the answer may be used, by the coarse monotonic clock.
    pub expires_ns: u64,
    /// Generation under which it was asked.
    pub generation: u64,
    /// What was asked, with a [`route_port`].
    pub key: FlowKey,
    /// The answer.
    pub next_hop: CachedNextHop,
}
const _: () = assert!(size_of::<GatewayRoute>() == 88);
// SAFETY: `repr(C)`, 16 + 44 + 28 = 88, a multiple of 8: no padding.
unsafe impl Plain for GatewayRoute {}

/// How many ICMP errors a CPU has sent of late: one is forgotten with each tick.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerLimit {
    /// When it last sent one: see [`tick`].
    pub tick: u32,
    /// Errors that are not forgotten.
    pub sent: u32,
}
const _: () = assert!(size_of::<AnswerLimit>() == 8);
// SAFETY: `repr(C)`, two u32: no padding.
unsafe impl Plain for AnswerLimit {}

/// ICMP errors of one CPU at once, and after those one in a tick, so about a thousand in a second:
/// Linux' own limits (`icmp_msgs_burst`, `icmp_msgs_per_sec`). The clock of ticks may go in steps of
/// ten.
pub const ANSWERS_AT_ONCE: u32 = 50;

/// Traffic of one rule on one CPU. Bytes are whole frames with their Ethernet header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCounters {
    /// Frames of pods that left.
    pub out_packets: u64,
    /// Their bytes.
    pub out_bytes: u64,
    /// Answers that went back.
    pub back_packets: u64,
    /// Their bytes.
    pub back_bytes: u64,
    /// Mappings made.
    pub opened: u64,
}
const _: () = assert!(size_of::<RuleCounters>() == 40);
// SAFETY: `repr(C)`, five u64: no padding.
unsafe impl Plain for RuleCounters {}

/// What happened to a mapping, told through the ring buffer `NAT_EVENTS`. Addresses are as in
/// [`NatKey`] and [`NatEntry`], IPv4 in the first word.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatEvent {
    /// The world's end.
    pub remote: V6,
    /// The pod.
    pub pod: V6,
    /// The gateway's address.
    pub address: V6,
    /// The world's port, network order.
    pub remote_port: u16,
    /// The pod's port, network order.
    pub pod_port: u16,
    /// The gateway's port, network order.
    pub port: u16,
    /// Protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// The rule.
    pub rule: u32,
    /// Bits of [`said`] of the out entry.
    pub said_out: u32,
    /// Bits of [`said`] of the back entry.
    pub said_back: u32,
    /// The pod's node, as in [`NatEntry::node`].
    pub node: u32,
}
const _: () = assert!(size_of::<NatEvent>() == 72);
// SAFETY: `repr(C)`; 48 + 4 * 2 + 4 * 4 = 72: no padding.
unsafe impl Plain for NatEvent {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_about_a_millisecond_and_distances_survive_the_wrap() {
        assert_eq!(tick(1 << 20), 1);
        let before = tick(u64::from(u32::MAX) << 20);
        let after = tick((u64::from(u32::MAX) + 5) << 20);
        assert_eq!(after.wrapping_sub(before), 5);
        assert!((u64::from(MAX_TIMEOUT_SECONDS) * 1_000_000_000) >> 20 < u64::from(u32::MAX / 2));
    }

    #[test]
    fn routes_are_asked_for_few_source_ports_and_each_stands_for_as_many() {
        let mut asked = [0_u32; 1 << 16];
        for port in 0..=u16::MAX {
            let again = u16::from_be(route_port(port.to_be()));
            asked[usize::from(again)] += 1;
        }
        let (others, these) = asked.split_at(asked.len() - usize::from(ROUTE_PORTS));
        assert!(others.iter().all(|count| *count == 0));
        assert!(these.iter().all(|count| *count == 1 << 10));
    }

    #[test]
    fn a_full_table_has_two_places_for_each_entry() {
        for mappings in [128, 1_000, DEFAULT_MAPPINGS, 1_200_000, 1 << 23] {
            let entries = nat_entries(mappings);
            assert!(entries >= 2 * mappings);
            assert!(entries.next_power_of_two() >= 2 * (entries - 1));
        }
    }

    #[test]
    fn a_tunnel_identifier_holds_every_rule() {
        const { assert!(TUNNEL_BACK < FIRST_RULE && LAST_RULE < 1 << 24) };
        const { assert!(NATIVE_MARK & (LAST_RULE | JUDGED_MARK) == 0) };
        const { assert!(NATIVE_NODE as u32 >= MAX_NODES) };
    }
}
