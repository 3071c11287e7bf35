// SPDX-License-Identifier: Apache-2.0
//! What holds in every world.

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const NODES: [&str; 6] = ["n0", "n1", "n2", "n3", "n4", "n5"];

fn nets() -> impl Strategy<Value = BTreeSet<ipnet::IpNet>> {
    let texts = vec![
        "0.0.0.0/0",
        "20.0.0.0/7",
        "20.0.0.0/8",
        "20.1.0.0/16",
        "20.1.1.0/24",
        "20.1.1.1/32",
        "21.0.0.0/8",
        "::/0",
        "2001::/16",
        "2001:db8::/32",
    ];
    btree_set(select(texts), 0..4).prop_map(|texts| {
        let net = |text: &str| text.parse().expect("a prefix");
        texts.into_iter().map(net).collect()
    })
}

fn addresses() -> impl Strategy<Value = Addresses> {
    let held = vec![
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
        "192.0.2.4",
        "2001:db8::1",
        "2001:db8::2",
    ];
    let affinity = select(vec![Affinity::Policy, Affinity::Namespace, Affinity::Pod]);
    prop_oneof![
        Just(Addresses::DefaultRoute),
        select(vec!["eth0", "eth1"]).prop_map(|name| Addresses::Interface(name.to_owned())),
        select(vec!["198.51.100.2", "192.0.2.9", "2001:db8::9"])
            .prop_map(|address| Addresses::OnDevice(ip(address))),
        (btree_set(select(held), 1..5), affinity).prop_map(|(addresses, affinity)| {
            let addresses: Vec<_> = addresses.into_iter().collect();
            crate::testing::held(&addresses, affinity)
        }),
    ]
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let selections = vec![
        Selection::FirstByName,
        Selection::ByPodUid,
        Selection::ActiveStandby,
        Selection::ActiveActive,
    ];
    let zones = vec![
        Zones::Off,
        Zones::LocalOnly,
        Zones::LocalFirst,
        Zones::LocalPriority,
    ];
    let nodes = btree_set(select(NODES.to_vec()), 0..5);
    let groups = vec((nodes, addresses()), 1..4);
    let unanswered = btree_set(select(NODES.to_vec()), 0..3);
    let how = (select(selections), select(zones), unanswered);
    (nets(), nets(), groups, how).prop_map(
        |(destinations, exclusions, groups, (selection, zones, unanswered))| {
            let groups = groups.into_iter().map(|(nodes, addresses)| {
                let nodes: Vec<_> = nodes.into_iter().collect();
                group(&nodes, addresses)
            });
            Policy {
                destinations,
                exclusions,
                groups: groups.collect(),
                selection,
                zones,
                unanswered: unanswered.into_iter().map(str::to_owned).collect(),
                ..policy("", &[], Addresses::DefaultRoute)
            }
        },
    )
}

/// Up to 5 policies, 6 nodes some of which are dead or missing, pods 0 to 4, and claims.
fn any_world() -> impl Strategy<Value = (World, Claims)> {
    let node = (
        option::weighted(0.7, select(vec!["east", "west"])),
        prop::bool::weighted(0.8),
    );
    let nodes = vec(option::weighted(0.9, node), NODES.len());
    let memberships = vec((vec(0..4_u8, 5), Just(())), 5);
    let claims = vec(
        (
            any::<prop::sample::Index>(),
            select(NODES.to_vec()),
            1..9_u64,
        ),
        0..4,
    );
    (vec(any_policy(), 0..6), nodes, memberships, claims).prop_map(
        |(mut policies, nodes, memberships, wanted)| {
            let mut world = world("n0", &NODES);
            for (name, node) in NODES.iter().zip(nodes) {
                match node {
                    Some((zone, is_healthy)) => {
                        let node = world.nodes.get_mut(*name).expect("a node");
                        node.zone = zone.map(str::to_owned);
                        (node.is_healthy, node.is_dead) = (is_healthy, !is_healthy);
                    }
                    None => {
                        world.nodes.remove(*name);
                    }
                }
            }
            for (policy, n) in policies.iter_mut().zip(0..) {
                policy.id = id(&format!("p{}", (n * 3) % 5));
            }
            for ((flags, ()), n) in memberships.into_iter().zip(0..) {
                let mut pod = pod(n, &[]);
                for (flag, policy) in flags.into_iter().zip(&policies) {
                    match flag {
                        0 | 1 => pod.policies.insert(policy.id.clone()),
                        2 => pod.undecided.insert(policy.id.clone()),
                        _ => false,
                    };
                }
                world.pods.push(pod);
            }
            world.policies = policies;
            let mut rules = Vec::new();
            for node in NODES {
                rules.extend(first(&seen_from(&world, node)).seats.into_keys());
            }
            let mut claims = Claims::new();
            for (index, node, term) in wanted {
                if !rules.is_empty() {
                    claims.insert(*index.get(&rules), claim(node, term));
                }
            }
            (world, claims)
        },
    )
}

/// What the policies of a pod say to a destination, one by one: the longest prefix and what it is.
fn naive(policy: &Policy, destination: IpAddr) -> Option<(u8, bool)> {
    let longest = |nets: &BTreeSet<ipnet::IpNet>| {
        let nets = nets.iter().filter(|net| net.contains(&destination));
        nets.map(|net| net.prefix_len()).max()
    };
    let (to, out) = (longest(&policy.destinations), longest(&policy.exclusions));
    match (to, out) {
        (Some(to), Some(out)) if out >= to => Some((out, false)),
        (Some(to), _) => Some((to, true)),
        (None, Some(out)) => Some((out, false)),
        (None, None) => None,
    }
}

/// What some policies, oldest first, say together: whether it goes to a gateway, and whose.
fn together<'a>(
    policies: impl Iterator<Item = &'a Policy>,
    destination: IpAddr,
) -> Option<(bool, &'a PolicyId)> {
    let mut best: Option<(u8, bool, &PolicyId)> = None;
    for policy in policies {
        if let Some((len, is_sent)) = naive(policy, destination)
            && best.is_none_or(|(longest, ..)| len > longest)
        {
            best = Some((len, is_sent, &policy.id));
        }
    }
    best.map(|(_, is_sent, id)| (is_sent, id))
}

const DESTINATIONS: [&str; 9] = [
    "8.8.8.8",
    "20.0.0.1",
    "20.1.0.1",
    "20.1.1.7",
    "20.1.1.1",
    "21.0.0.1",
    "2001::1",
    "2001:db8::1",
    "3000::1",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_destination_is_that_of_a_naive_model_and_none_falls_through(
        (world, claims) in any_world(),
    ) {
        let desired = decide(&world, &claims, &Previous::default());
        for pod in &world.pods {
            for destination in DESTINATIONS.map(ip) {
                let found = way(&desired, pod.addresses[0], destination);
                prop_assert_eq!(found, way(&desired, pod.addresses[1], destination));
                // All the worlds there may be: each undecided policy selects the pod or not.
                let maybe: Vec<_> = pod.undecided.iter().collect();
                let mut outcomes = BTreeSet::new();
                for choice in 0..1_u32 << maybe.len() {
                    let applies = |policy: &&Policy| {
                        let at = maybe.iter().position(|id| **id == policy.id);
                        pod.policies.contains(&policy.id)
                            || at.is_some_and(|at| choice >> at & 1 == 1)
                    };
                    let policies = world.policies.iter().filter(applies);
                    outcomes.insert(together(policies, destination));
                }
                let is_sent = |outcome: &Option<(bool, _)>| matches!(outcome, Some((true, _)));
                match found {
                    None => prop_assert!(outcomes.iter().all(Option::is_none)),
                    Some(Way::Excluded) => prop_assert!(!outcomes.iter().any(is_sent)),
                    Some(Way::Through(rule)) => {
                        prop_assert_eq!(outcomes.len(), 1);
                        let expected = outcomes.first().copied().flatten().map(|(_, id)| id);
                        prop_assert_eq!(Some(&desired.ends[&rule].key.policy), expected);
                    }
                    Some(Way::Refused(Refusal::Undecided)) => {
                        prop_assert!(!maybe.is_empty());
                        prop_assert!(outcomes.iter().any(is_sent));
                    }
                    Some(Way::Refused(_)) => prop_assert!(outcomes.iter().all(is_sent)),
                }
            }
        }
    }

    #[test]
    fn nodes_agree((world, claims) in any_world()) {
        let previous = Previous::default();
        let desired = decide(&world, &claims, &previous);
        prop_assert_eq!(&desired, &decide(&world, &claims, &previous));
        let mut holders = BTreeMap::new();
        for node in NODES.iter().filter(|node| world.nodes.contains_key(**node)) {
            let there = decide(&seen_from(&world, node), &claims, &previous);
            for (number, seat) in &there.seats {
                if let Some(here) = desired.seats.get(number) {
                    prop_assert_eq!(&here.key, &seat.key);
                    prop_assert_eq!(&here.holder, &seat.holder);
                    prop_assert_eq!(&here.standbys, &seat.standbys);
                    prop_assert_eq!(here.term, seat.term);
                }
                if seat.is_holder {
                    prop_assert_eq!(holders.insert(*number, *node), None);
                }
                prop_assert_eq!(seat.is_holder, there.gateway.contains_key(number));
            }
            // Whoever sends here finds the rule here.
            for (number, end) in &desired.ends {
                prop_assert_eq!(
                    end.gateway == **node,
                    there.gateway.get(number).is_some_and(|rule| rule.key == end.key)
                );
            }
            // An address is put on by one node only.
        }
        let mut addresses = BTreeMap::new();
        for node in NODES.iter().filter(|node| world.nodes.contains_key(**node)) {
            let there = decide(&seen_from(&world, node), &claims, &previous);
            for rule in there.gateway.values().filter(|rule| rule.is_held) {
                for address in rule.addresses() {
                    prop_assert_eq!(addresses.insert(address, *node), None);
                }
            }
        }
    }

    #[test]
    fn what_others_do_changes_nothing((world, claims) in any_world(), extra in any_policy()) {
        let before = decide(&world, &claims, &Previous::default());
        let mut after = world.clone();
        // Younger, of pods elsewhere, and a node that is no gateway.
        after.policies.push(Policy { id: id("extra"), ..extra });
        after.nodes.insert("n9".to_owned(), crate::testing::node(9));
        let previous = Previous { desired: before.clone(), live: [].into() };
        let after = decide(&after, &claims, &previous);
        prop_assert_eq!(&before.sources, &after.sources);
        prop_assert_eq!(&before.sets, &after.sets);
        prop_assert_eq!(&before.ends, &after.ends);
        for (number, seat) in &before.seats {
            prop_assert_eq!(after.seats.get(number), Some(seat));
        }
        for (number, rule) in &before.gateway {
            prop_assert_eq!(after.gateway.get(number), Some(rule));
        }
    }

    #[test]
    fn a_standby_that_follows_has_the_connections((mut world, claims) in any_world()) {
        let before = decide(&world, &claims, &Previous::default());
        for (number, seat) in before.seats.iter().filter(|(_, seat)| seat.holder.is_some()) {
            let holder = seat.holder.clone().expect("filtered");
            // The holder has said so, as it does at once.
            let mut claims = claims.clone();
            claims.insert(*number, claim(&holder, seat.term));
            set_health(&mut world, &holder, false);
            let after = decide(&world, &claims, &Previous::default());
            set_health(&mut world, &holder, true);
            if let Some(after) = after.seats.get(number) {
                prop_assert_eq!(after.holder.as_ref(), seat.standbys.first());
                prop_assert_eq!(after.term, seat.term + 1);
            }
        }
    }

    #[test]
    fn it_is_explained_as_it_is((world, claims) in any_world()) {
        let desired = decide(&world, &claims, &Previous::default());
        for pod in &world.pods {
            for destination in DESTINATIONS.map(ip) {
                let found = way(&desired, pod.addresses[0], destination);
                let told = explain(&world, &desired, Sender::Pod(pod.key.clone()), destination);
                let verdict = match told.verdict {
                    Verdict::NoPolicy | Verdict::NotCovered => None,
                    Verdict::Excluded { .. } => Some(Way::Excluded),
                    Verdict::Refused { why, .. } => Some(Way::Refused(why)),
                    Verdict::Through { rule, end, policy, .. } => {
                        prop_assert_eq!(end.map(|end| end.key.policy), Some(policy));
                        Some(Way::Through(rule))
                    }
                    Verdict::NotHere | Verdict::InCluster { .. } | Verdict::Pending { .. } => {
                        return Err(TestCaseError::fail("not here, inside or pending"));
                    }
                };
                prop_assert_eq!(found, verdict);
            }
        }
        for finding in &desired.findings {
            prop_assert!(!finding.to_string().is_empty());
        }
    }
}
