// SPDX-License-Identifier: Apache-2.0
//! Aggregates kept up to date against aggregates made afresh, and the merge.

use std::net::Ipv4Addr as V4;

use bgp_wire::ExtendedCommunity;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn aggregates() -> Aggregates {
    Aggregates::new(Asn(65000), Ipv4Addr::new(10, 0, 0, 1))
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn of(prefix: &str, summary_only: bool) -> Aggregate {
    Aggregate {
        prefix: net(prefix),
        summary_only,
    }
}

fn route(origin: Origin, path: &[u32], communities: &[Community]) -> PathAttributes {
    PathAttributes {
        origin: Some(origin),
        as_path: Some(AsPath::from_sequence(path.iter().copied().map(Asn))),
        communities: communities.to_vec(),
        ..PathAttributes::default()
    }
}

#[test]
fn an_aggregate_comes_with_its_first_route_and_goes_with_its_last() {
    let mut all = aggregates();
    assert_eq!(all.configure(&[of("10.0.0.0/8", true)]), (vec![], true));
    assert_eq!(all.take_changes(), []);
    let own = route(Origin::Igp, &[], &[]);
    // The prefix itself is not within it.
    all.set(net("10.0.0.0/8"), Some(&own));
    assert_eq!(all.take_changes(), []);
    all.set(net("10.1.0.0/16"), Some(&own));
    all.set(net("192.168.0.0/16"), Some(&own));
    let changes = all.take_changes();
    assert_eq!(changes.len(), 1);
    let attributes = changes[0].route.as_ref().unwrap();
    assert_eq!(attributes.aggregator.unwrap().asn, Asn(65000));
    assert_eq!(attributes.as_path, Some(AsPath::default()));
    assert!(!attributes.atomic_aggregate, "no path was left out");
    assert!(all.is_suppressed(&net("10.1.0.0/16")));
    assert!(!all.is_suppressed(&net("10.2.0.0/16")), "there is none");
    assert!(!all.is_suppressed(&net("192.168.0.0/16")));

    all.set(net("10.2.0.0/16"), Some(&own));
    assert_eq!(all.take_changes(), [], "nothing new about it");
    all.set(net("10.1.0.0/16"), None);
    all.set(net("10.2.0.0/16"), None);
    let gone = AggregateChange {
        prefix: net("10.0.0.0/8"),
        route: None,
    };
    assert_eq!(all.take_changes(), [gone]);
}

#[test]
fn the_merge_is_the_documented_one() {
    let mut all = aggregates();
    all.configure(&[of("10.0.0.0/8", false)]);
    let (a, b) = (Community::new(65000, 1), Community::new(65000, 2));
    let leaving = Community::GRACEFUL_SHUTDOWN;
    let mut first = route(Origin::Igp, &[65001], &[a, leaving, Community::BLACKHOLE]);
    first.med = Some(5);
    first.extended_communities = vec![
        ExtendedCommunity([0, 2, 0, 1, 0, 0, 0, 1]),
        ExtendedCommunity([0x40, 4, 0, 1, 0, 0, 0, 1]),
    ];
    all.set(net("10.1.0.0/16"), Some(&first));
    all.set(net("10.2.0.0/16"), Some(&route(Origin::Egp, &[], &[b])));
    let merged = all.take_changes().remove(0).route.unwrap();
    assert_eq!(merged.origin, Some(Origin::Egp));
    assert_eq!(merged.communities, [a, b]);
    assert_eq!(merged.extended_communities.len(), 1, "no bandwidth");
    assert!(merged.atomic_aggregate, "a path was left out");
    assert_eq!((merged.med, merged.local_pref), (None, None));
    // All leave: so does the aggregate.
    all.set(net("10.2.0.0/16"), None);
    let merged = all.take_changes().remove(0).route.unwrap();
    assert_eq!(merged.communities, [a, leaving]);
}

#[test]
fn settings_change_while_routes_are_there() {
    let mut all = aggregates();
    all.configure(&[of("10.0.0.0/8", false)]);
    let own = route(Origin::Igp, &[], &[]);
    all.set(net("10.1.1.0/24"), Some(&own));
    all.take_changes();
    assert_eq!(
        all.configure(&[of("10.0.0.0/8", true)]),
        (vec![net("10.1.1.0/24")], false)
    );
    assert_eq!(all.take_changes(), [], "the aggregate is the same");
    // A new one: what is within is set again, and what is not new is not said again.
    let (changed, has_new) = all.configure(&[of("10.0.0.0/8", false), of("10.1.0.0/16", true)]);
    assert!(has_new);
    assert_eq!(changed, []);
    assert!(all.concerns(&net("10.1.1.0/24")));
    all.set(net("10.1.1.0/24"), Some(&own));
    assert!(all.is_suppressed(&net("10.1.1.0/24")));
    let changes = all.take_changes();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].prefix, net("10.1.0.0/16"));
    // None left.
    assert_eq!(all.configure(&[]), (vec![net("10.1.1.0/24")], false));
    assert_eq!(all.take_changes().len(), 2);
    assert!(all.contributors.is_empty() && all.summaries.is_empty());
}

/// Aggregates made afresh of the routes within.
fn afresh(
    wanted: &[Aggregate],
    routes: &BTreeMap<IpNet, PathAttributes>,
) -> BTreeMap<IpNet, PathAttributes> {
    let mut made = BTreeMap::new();
    for aggregate in wanted {
        let outer = aggregate.prefix;
        let within: Vec<&PathAttributes> = routes
            .iter()
            .filter(|(prefix, _)| outer.contains(*prefix) && **prefix != outer)
            .map(|(_, attributes)| attributes)
            .collect();
        if within.is_empty() {
            continue;
        }
        let mut communities: Vec<Community> =
            within.iter().flat_map(|r| r.communities.clone()).collect();
        communities.sort();
        communities.dedup();
        communities.retain(|c| {
            let everywhere = within.iter().all(|r| r.communities.contains(c));
            *c != Community::BLACKHOLE && (*c != Community::GRACEFUL_SHUTDOWN || everywhere)
        });
        let is_left_out =
            |r: &&&PathAttributes| r.as_path.as_ref().is_some_and(|p| p.iter().count() > 0);
        let route = PathAttributes {
            origin: within.iter().filter_map(|r| r.origin).max(),
            as_path: Some(AsPath::default()),
            atomic_aggregate: within.iter().filter(is_left_out).count() > 0,
            aggregator: Some(Aggregator {
                asn: Asn(65000),
                router_id: Ipv4Addr::new(10, 0, 0, 1),
            }),
            communities,
            ..PathAttributes::default()
        };
        made.insert(outer, route);
    }
    made
}

#[derive(Clone, Debug)]
enum Step {
    Set(IpNet, Option<Box<PathAttributes>>),
    Configure(Vec<Aggregate>),
}

fn prefix() -> impl Strategy<Value = IpNet> {
    // Few bits that differ, so that prefixes lie within each other.
    (0u32..16, 0u8..=6).prop_map(|(bits, len)| {
        IpNet::new(V4::from_bits(bits << 26).into(), len)
            .unwrap()
            .trunc()
    })
}

fn step() -> impl Strategy<Value = Step> {
    let community = prop_oneof![
        (0u16..3).prop_map(|low| Community::new(65000, low)),
        Just(Community::GRACEFUL_SHUTDOWN),
        Just(Community::BLACKHOLE),
    ];
    let attributes = (0u8..3, vec(1u32..3, 0..2), vec(community, 0..3)).prop_map(
        |(origin, path, mut communities): (u8, Vec<u32>, Vec<Community>)| {
            communities.sort();
            communities.dedup();
            route(Origin::from_code(origin).unwrap(), &path, &communities)
        },
    );
    let aggregate = (prefix(), any::<bool>()).prop_map(|(prefix, summary_only)| Aggregate {
        prefix,
        summary_only,
    });
    let distinct = |mut list: Vec<Aggregate>| {
        list.sort_by_key(|aggregate| aggregate.prefix);
        list.dedup_by_key(|aggregate| aggregate.prefix);
        list
    };
    prop_oneof![
        8 => (prefix(), option::weighted(0.7, attributes)).prop_map(|(p, a)| Step::Set(p, a.map(Box::new))),
        1 => vec(aggregate, 0..5).prop_map(move |list| Step::Configure(distinct(list))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn kept_up_to_date_is_as_made_afresh(steps in vec(step(), 1..60)) {
        let mut all = aggregates();
        let mut wanted: Vec<Aggregate> = Vec::new();
        let mut routes: BTreeMap<IpNet, PathAttributes> = BTreeMap::new();
        let mut known: BTreeMap<IpNet, PathAttributes> = BTreeMap::new();
        for step in steps {
            let suppressed_before: BTreeSet<IpNet> =
                routes.keys().filter(|p| all.is_suppressed(p)).copied().collect();
            match step {
                Step::Set(prefix, Some(attributes)) => {
                    all.set(prefix, Some(&attributes));
                    routes.insert(prefix, *attributes);
                }
                Step::Set(prefix, None) => {
                    all.set(prefix, None);
                    routes.remove(&prefix);
                }
                Step::Configure(list) => {
                    let (changed, has_new) = all.configure(&list);
                    if has_new {
                        for (prefix, attributes) in &routes {
                            if all.concerns(prefix) {
                                all.set(*prefix, Some(attributes));
                            }
                        }
                    } else {
                        let now = routes.keys().filter(|p| all.is_suppressed(p)).copied();
                        let now: BTreeSet<IpNet> = now.collect();
                        let differs: Vec<IpNet> =
                            suppressed_before.symmetric_difference(&now).copied().collect();
                        prop_assert_eq!(changed, differs);
                    }
                    wanted = list;
                }
            }
            for change in all.take_changes() {
                let before = known.get(&change.prefix);
                prop_assert_ne!(before, change.route.as_ref(), "nothing is said twice");
                match change.route {
                    Some(route) => known.insert(change.prefix, route),
                    None => known.remove(&change.prefix),
                };
            }
            prop_assert_eq!(&known, &afresh(&wanted, &routes));
            for prefix in routes.keys() {
                let expected = wanted.iter().any(|aggregate| {
                    let outer = aggregate.prefix;
                    aggregate.summary_only && outer.contains(prefix) && outer != *prefix
                });
                prop_assert_eq!(all.is_suppressed(prefix), expected, "{}", prefix);
            }
            let shared: BTreeSet<_> = all.contributors.values().cloned().collect();
            prop_assert_eq!(shared.len(), all.summaries.len(), "no summary outlives its routes");
        }
    }
}

#[test]
fn an_aggregate_is_for_customers_alone_where_all_within_it_is() {
    let mut all = aggregates();
    all.configure(&[of("10.0.0.0/8", true)]);
    let marked = |asn: Option<u32>| PathAttributes {
        only_to_customer: asn.map(Asn),
        ..route(Origin::Igp, &[65010], &[])
    };
    let mut mark = |prefix: &str, asn: Option<Option<u32>>| {
        all.set(net(prefix), asn.map(marked).as_ref());
        all.take_changes();
        all.told[&net("10.0.0.0/8")].only_to_customer
    };
    assert_eq!(mark("10.1.0.0/16", Some(Some(65010))), Some(Asn(65010)));
    assert_eq!(mark("10.2.0.0/16", Some(Some(65010))), Some(Asn(65010)));
    // By this AS, where several have set it.
    assert_eq!(mark("10.3.0.0/16", Some(Some(65020))), Some(Asn(65000)));
    assert_eq!(mark("10.4.0.0/16", Some(None)), None, "a customer's own");
    assert_eq!(mark("10.4.0.0/16", None), Some(Asn(65000)));
    assert_eq!(mark("10.3.0.0/16", None), Some(Asn(65010)));
}
