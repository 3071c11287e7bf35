// SPDX-License-Identifier: Apache-2.0
//! Compiled and read policies agree on every route.

use std::net::{IpAddr, Ipv4Addr};

use bgp_wire::{AsPath, ExtendedCommunity, LargeCommunity, Origin, Segment, SegmentKind};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::config::{PeerName, PrefixRange};

/// All a policy looks at.
#[derive(Clone, Debug)]
struct Route {
    attributes: PathAttributes,
    family: Family,
    next_hop: Option<IpAddr>,
    source: RouteOrigin,
    peer: Option<PeerName>,
    peer_asn: Asn,
    prefix: IpNet,
}

impl Route {
    fn context(&self) -> RouteContext<'_> {
        RouteContext {
            family: self.family,
            next_hop: self.next_hop,
            source: self.source,
            learned_from: self.peer.as_ref(),
            peer_asn: self.peer_asn,
            local_asn: Asn(65000),
        }
    }
}

/// Few values, so that conditions and routes meet.
fn small() -> impl Strategy<Value = u32> {
    0u32..6
}

fn range() -> impl Strategy<Value = NumberRange> {
    (small(), small()).prop_map(|(a, b)| NumberRange::new(a.min(b), a.max(b)).unwrap())
}

fn prefix() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<[bool; 8]>(), 0u8..=32).prop_map(|(bits, len)| {
        let bits = bits
            .iter()
            .enumerate()
            .fold(0u32, |n, (at, bit)| n | u32::from(*bit) << (at * 4));
        IpNet::new(Ipv4Addr::from_bits(bits).into(), len)
    });
    let v6 = (any::<[bool; 8]>(), 0u8..=128).prop_map(|(bits, len)| {
        let bits = bits
            .iter()
            .enumerate()
            .fold(0u128, |n, (at, bit)| n | u128::from(*bit) << (at * 16));
        IpNet::new(std::net::Ipv6Addr::from_bits(bits).into(), len)
    });
    prop_oneof![3 => v4, 1 => v6].prop_map(|net| net.unwrap().trunc())
}

fn prefix_range() -> impl Strategy<Value = PrefixRange> {
    (prefix(), 0u8..=128, 0u8..=128).prop_map(|(prefix, a, b)| {
        let width = prefix.max_prefix_len();
        let clamp = |len: u8| len.clamp(prefix.prefix_len(), width);
        let (a, b) = (clamp(a), clamp(b));
        PrefixRange::new(prefix, Some(a.min(b)), Some(a.max(b))).unwrap()
    })
}

fn community_pattern() -> impl Strategy<Value = CommunityPattern> {
    let standard = prop_oneof!["[0-3]:[0-3]", "[0-3]:\\*", "\\*:[0-3]", "[01]:[01]-[23]"];
    let large = prop_oneof!["[0-2]:[0-2]:[0-2]", "[0-2]:\\*:[0-2]"];
    let extended = prop_oneof![
        "rt:[0-2]:[0-2]",
        "rt:\\*:[0-2]",
        "soo:0\\.0\\.0\\.[0-2]:\\*",
        Just("0x00*".to_owned())
    ];
    let read = |kind| move |text: String| CommunityPattern::parse(kind, &text).unwrap();
    prop_oneof![
        3 => standard.prop_map(read(CommunityKind::Standard)),
        1 => large.prop_map(read(CommunityKind::Large)),
        1 => extended.prop_map(read(CommunityKind::Extended)),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let quantifier = prop_oneof![
        Just(Quantifier::Any),
        Just(Quantifier::All),
        Just(Quantifier::None)
    ];
    let pattern = prop_oneof![
        "_[0-5]_",
        "\\^[0-5]",
        "[0-5]\\$",
        "\\^\\$",
        "\\^[0-5] [0-5]"
    ];
    let source = || proptest::sample::select(RouteOrigin::NAMES.map(|(origin, _)| origin).to_vec());
    let family = || prop_oneof![Just(Family::IPV4_UNICAST), Just(Family::IPV6_UNICAST)];
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp)];
    prop_oneof![
        vec(family(), 0..2).prop_map(Condition::Families),
        vec(pattern.prop_map(|p| p.parse().unwrap()), 0..3).prop_map(Condition::AsPaths),
        range().prop_map(Condition::AsPathLength),
        vec(range(), 0..3).prop_map(Condition::OriginAsns),
        vec(range(), 0..3).prop_map(Condition::NeighbourAsns),
        vec(range(), 0..3).prop_map(Condition::PeerAsns),
        (quantifier, vec(community_pattern(), 0..3)).prop_map(|(quantifier, patterns)| {
            Condition::Communities {
                quantifier,
                patterns,
            }
        }),
        vec(prefix(), 0..3).prop_map(Condition::NextHops),
        vec(origin, 0..2).prop_map(Condition::Origins),
        range().prop_map(Condition::LocalPref),
        range().prop_map(Condition::Med),
        vec(source(), 0..3).prop_map(Condition::Sources),
        vec("[ab]".prop_map(PeerName::from), 0..2).prop_map(Condition::Peers),
    ]
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        small().prop_map(Change::LocalPref),
        small().prop_map(Change::AddMed),
        (0u8..3).prop_map(Change::PrependOwn),
        vec(community_pattern(), 0..2).prop_map(Change::RemoveCommunities),
        Just(Change::NextHop(NextHopChange::Unchanged)),
    ];
    vec(change, 0..3)
}

fn config() -> impl Strategy<Value = PolicyConfig> {
    let action = prop_oneof![
        1 => Just(Action::Final(Verdict::Accept)),
        1 => Just(Action::Final(Verdict::Reject)),
        3 => Just(Action::Continue),
    ];
    let prefixes = option::of(vec(prefix_range(), 0..8).prop_map(Condition::Prefixes));
    let statement = (prefixes, vec(condition(), 0..3), changes(), action).boxed();
    let default = prop_oneof![Just(Verdict::Accept), Just(Verdict::Reject)];
    // Up to more statements than one word of a set has bits.
    let statements = prop_oneof![9 => vec(statement.clone(), 0..8), 1 => vec(statement, 63..68)];
    (statements, default).prop_map(|(parts, default)| {
        let statements = parts.into_iter().enumerate();
        let statements = statements.map(|(at, (prefixes, others, changes, action))| Statement {
            name: format!("s{at}"),
            conditions: prefixes.into_iter().chain(others).collect(),
            changes: match action {
                Action::Final(Verdict::Reject) => Vec::new(),
                _ => changes,
            },
            action,
        });
        PolicyConfig::new("test".into(), statements.collect(), default).unwrap()
    })
}

fn path() -> impl Strategy<Value = AsPath> {
    let kind = prop_oneof![4 => Just(SegmentKind::Sequence), 1 => Just(SegmentKind::Set)];
    let segment =
        (kind, vec(small().prop_map(Asn), 1..4)).prop_map(|(kind, asns)| Segment { kind, asns });
    vec(segment, 0..3).prop_map(|segments| AsPath { segments })
}

fn route() -> impl Strategy<Value = Route> {
    let communities = vec((0u16..4, 0u16..4), 0..4);
    let large = vec((0u32..3, 0u32..3, 0u32..3), 0..3);
    let extended = vec((0u8..2, 2u8..4, 0u8..3, 0u8..3), 0..3);
    let attributes = (
        option::of(path()),
        communities,
        large,
        extended,
        option::of(small()),
        option::of(small()),
        option::of(Just(Origin::Igp)),
    )
        .prop_map(
            |(as_path, standard, large, extended, med, local_pref, origin)| {
                let standard = standard.iter().map(|(a, b)| Community::new(*a, *b));
                let large = large
                    .iter()
                    .map(|(a, b, c)| LargeCommunity::new(*a, *b, *c));
                let extended = extended
                    .iter()
                    .map(|(t, s, a, b)| ExtendedCommunity([*t, *s, 0, *a, 0, *a, 0, *b]));
                PathAttributes {
                    as_path,
                    communities: standard.collect(),
                    large_communities: large.collect(),
                    extended_communities: extended.collect(),
                    med,
                    local_pref,
                    origin,
                    ..PathAttributes::default()
                }
            },
        );
    let source = proptest::sample::select(RouteOrigin::NAMES.map(|(origin, _)| origin).to_vec());
    (
        attributes,
        option::of(prefix().prop_map(|net| net.addr())),
        source,
        option::of("[ab]".prop_map(PeerName::from)),
        small().prop_map(Asn),
        prefix(),
    )
        .prop_map(
            |(attributes, next_hop, source, peer, peer_asn, prefix)| Route {
                attributes,
                family: crate::config::family_of(&prefix),
                next_hop,
                source,
                peer,
                peer_asn,
                prefix,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_compiled_policy_decides_as_it_reads(config in config(), routes in vec(route(), 1..12)) {
        let policy = Policy::compile(&config).unwrap();
        for route in routes {
            let context = route.context();
            let (verdicts, verdict) = policy.trace(&route.attributes, &context, &route.prefix);
            let judgement = policy.judge(&route.attributes, &context);
            let decision = judgement.decide(&route.prefix);
            prop_assert_eq!(decision.is_accepted(), verdict == Verdict::Accept);
            let matched = |v: &&StatementVerdict| matches!(v.outcome, StatementOutcome::Matched(_));
            match decision {
                Decision::Reject(by) => {
                    let last = verdicts.iter().find(|v| {
                        v.outcome == StatementOutcome::Matched(Action::Final(Verdict::Reject))
                    });
                    prop_assert_eq!(by.map(usize::from), last.map(|v| v.at));
                }
                Decision::Accept(applied) => {
                    let changing: Vec<usize> = verdicts
                        .iter()
                        .filter(matched)
                        .map(|v| v.at)
                        .filter(|at| !config.statements()[*at].changes.is_empty())
                        .collect();
                    prop_assert_eq!(applied.iter().collect::<Vec<_>>(), changing);
                }
            }
            if !policy.depends_on_prefix() {
                prop_assert_eq!(judgement.settled(), Some(decision));
            }
        }
    }

    #[test]
    fn a_policy_survives_a_recording(config in config()) {
        let text = serde_json::to_string(&config).unwrap();
        let read: PolicyConfig = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(read, config);
    }
}
