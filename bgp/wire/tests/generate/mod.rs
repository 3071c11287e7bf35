// SPDX-License-Identifier: Apache-2.0
//! Random valid messages, as values of this crate.

use std::net::{Ipv4Addr, Ipv6Addr};

use bgp_wire::{
    AddPath, Aggregator, AsPath, Capability, Community, ExtendedCommunity, ExtendedNextHop,
    FamilyContext, GracefulFamily, GracefulRestart, LargeCommunity, LongLivedStale, NlriEntry,
    Open, Origin, PathAttributes, PathNextHop, Role, Segment, SegmentKind,
};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use router_types::{Afi, Asn, Family, Ipv4Net, Ipv6Net};

/// One announcement: what goes into the packer.
#[derive(Clone, Debug)]
pub(crate) struct Announcement {
    pub(crate) family: FamilyContext,
    pub(crate) attributes: PathAttributes,
    pub(crate) next_hop: PathNextHop,
    pub(crate) entries: Vec<NlriEntry>,
}

pub(crate) fn announcement() -> impl Strategy<Value = Announcement> {
    prop_oneof![
        announcement_of(Family::IPV4_UNICAST, ipv4_next_hop().boxed()),
        announcement_of(Family::IPV4_UNICAST, ipv6_next_hop().boxed()),
        announcement_of(Family::IPV6_UNICAST, ipv6_next_hop().boxed()),
    ]
}

fn announcement_of(
    family: Family,
    next_hop: BoxedStrategy<PathNextHop>,
) -> impl Strategy<Value = Announcement> {
    (any::<bool>(), next_hop).prop_flat_map(move |(add_path, next_hop)| {
        let entries = vec(entry(family.afi, add_path), 1..40);
        (attributes(), entries).prop_map(move |(attributes, entries)| Announcement {
            family: FamilyContext {
                family,
                add_path_receive: add_path,
                add_path_send: add_path,
                extended_next_hop: true,
            },
            attributes,
            next_hop,
            entries,
        })
    })
}

pub(crate) fn entry(afi: Afi, add_path: bool) -> impl Strategy<Value = NlriEntry> {
    (any::<u128>(), 0..=128u8, any::<u32>()).prop_map(move |(bits, len, id)| NlriEntry {
        path_id: add_path.then_some(id),
        prefix: if afi == Afi::IPV4 {
            Ipv4Net::new(Ipv4Addr::from_bits(bits as u32), len % 33)
                .expect("len <= 32")
                .trunc()
                .into()
        } else {
            Ipv6Net::new(Ipv6Addr::from_bits(bits), len)
                .expect("len <= 128")
                .trunc()
                .into()
        },
    })
}

fn ipv4_next_hop() -> impl Strategy<Value = PathNextHop> {
    any::<u16>().prop_map(|low| {
        let [a, b] = low.to_be_bytes();
        PathNextHop::V4(Ipv4Addr::new(192, 0, a, b))
    })
}

fn ipv6_next_hop() -> impl Strategy<Value = PathNextHop> {
    (any::<u64>(), option::of(any::<u64>())).prop_map(|(low, link_local)| PathNextHop::V6 {
        global: Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(low)),
        link_local: link_local.map(|low| Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(low))),
    })
}

/// Attributes with four-octet AS numbers, everything but what is not read.
pub(crate) fn attributes() -> impl Strategy<Value = PathAttributes> {
    let numbers = (
        option::of(any::<u32>()),
        option::of(any::<u32>()),
        any::<bool>(),
    );
    let aggregator = option::of((asn(), any::<u32>()).prop_map(|(asn, id)| Aggregator {
        asn,
        router_id: Ipv4Addr::from_bits(id),
    }));
    let communities = (
        btree_set(any::<u32>().prop_map(Community), 0..6),
        btree_set(any::<[u8; 8]>().prop_map(ExtendedCommunity), 0..4),
        btree_set(
            any::<[u8; 12]>().prop_map(LargeCommunity::from_octets),
            0..4,
        ),
    );
    let reflection = (option::of(any::<u32>()), vec(any::<u32>(), 0..4));
    let otc = option::of(asn());
    let origin = prop_oneof![
        Just(Origin::Igp),
        Just(Origin::Egp),
        Just(Origin::Incomplete)
    ];
    (
        origin,
        as_path(),
        numbers,
        aggregator,
        communities,
        reflection,
        otc,
    )
        .prop_map(
            |(
                origin,
                as_path,
                (med, local_pref, atomic_aggregate),
                aggregator,
                sets,
                reflection,
                otc,
            )| {
                PathAttributes {
                    origin: Some(origin),
                    as_path: Some(as_path),
                    med,
                    local_pref,
                    atomic_aggregate,
                    aggregator,
                    communities: sets.0.into_iter().collect(),
                    originator_id: reflection.0.map(Ipv4Addr::from_bits),
                    cluster_list: reflection.1.into_iter().map(Ipv4Addr::from_bits).collect(),
                    extended_communities: sets.1.into_iter().collect(),
                    large_communities: sets.2.into_iter().collect(),
                    only_to_customer: otc,
                    prefix_sid: None,
                    opaque: Vec::new(),
                }
            },
        )
}

fn as_path() -> impl Strategy<Value = AsPath> {
    let segment = |kind| vec(asn(), 1..6).prop_map(move |asns| Segment { kind, asns });
    let front = option::of(segment(SegmentKind::ConfedSequence));
    let rest = vec(
        prop_oneof![segment(SegmentKind::Sequence), segment(SegmentKind::Set)],
        0..4,
    );
    (front, rest).prop_map(|(front, rest)| AsPath {
        segments: front.into_iter().chain(rest).collect(),
    })
}

fn asn() -> impl Strategy<Value = Asn> {
    prop_oneof![1..=u32::MAX, 1..=65535u32].prop_map(Asn)
}

pub(crate) fn open() -> impl Strategy<Value = Open> {
    (
        asn(),
        prop_oneof![Just(0u16), 3..=u16::MAX],
        1..=u32::MAX,
        vec(capability(), 0..12),
    )
        .prop_map(|(asn, hold_time_s, id, mut capabilities)| {
            capabilities.push(Capability::FourOctetAs(asn));
            Open {
                asn,
                hold_time_s,
                router_id: Ipv4Addr::from_bits(id),
                capabilities,
            }
        })
}

fn capability() -> impl Strategy<Value = Capability> {
    let family = || prop_oneof![Just(Family::IPV4_UNICAST), Just(Family::IPV6_UNICAST)];
    prop_oneof![
        family().prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        vec(family(), 1..4).prop_map(|list| Capability::ExtendedNextHop(
            list.into_iter()
                .map(|family| ExtendedNextHop {
                    family,
                    next_hop: Afi::IPV6
                })
                .collect()
        )),
        Just(Capability::ExtendedMessages),
        (0..=4u8).prop_map(|r| Capability::Role(Role::from_code(r).expect("0 to 4 are roles"))),
        (
            any::<[bool; 2]>(),
            0..4096u16,
            vec((family(), any::<bool>()), 0..3)
        )
            .prop_map(|([restarted, notification], restart_time_s, list)| {
                Capability::GracefulRestart(GracefulRestart {
                    restarted,
                    notification,
                    restart_time_s,
                    families: list
                        .into_iter()
                        .map(|(family, forwarding_preserved)| GracefulFamily {
                            family,
                            forwarding_preserved,
                        })
                        .collect(),
                })
            }),
        vec((family(), 1..4u8), 1..3).prop_map(|list| Capability::AddPath(
            list.into_iter()
                .map(|(family, mode)| AddPath {
                    family,
                    receive: mode & 1 != 0,
                    send: mode & 2 != 0
                })
                .collect()
        )),
        Just(Capability::EnhancedRouteRefresh),
        vec((family(), any::<bool>(), 0..1u32 << 24), 1..3).prop_map(|list| {
            Capability::LongLivedGracefulRestart(
                list.into_iter()
                    .map(
                        |(family, forwarding_preserved, stale_time_s)| LongLivedStale {
                            family,
                            forwarding_preserved,
                            stale_time_s,
                        },
                    )
                    .collect(),
            )
        }),
        Just(Capability::Fqdn {
            host: "tor-1".into(),
            domain: "example.net".into()
        }),
        Just(Capability::SoftwareVersion("causeway 0.1.0".into())),
    ]
}
