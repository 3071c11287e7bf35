// SPDX-License-Identifier: Apache-2.0
//! Which gateway, which address, which holder.

use super::*;
use crate::testing::cilium;

const NODES: [&str; 4] = ["a", "b", "c", "w"];

/// Node `w` with this policy and pods 1 to `pods` that it selects.
fn with(policy: Policy, pods: u16) -> World {
    let mut world = world("w", &NODES);
    world.pods = (1..=pods).map(|n| pod(n, &[&policy.id])).collect();
    world.policies = vec![policy];
    world
}

#[test]
fn the_first_by_name_is_taken_healthy_or_not() {
    let mut world = with(cilium("p", &["c", "b", "gone"], Addresses::DefaultRoute), 1);
    set_health(&mut world, "b", false);
    let (_, end) = end_of(&first(&world), 1);
    assert_eq!(
        (end.gateway.as_str(), end.end),
        ("b", End::Remote(ip("10.0.0.2")))
    );
}

#[test]
fn by_pod_uid_is_upstreams_arithmetic() {
    let mut policy = cilium("p", &["c"], Addresses::DefaultRoute);
    policy.selection = Selection::ByPodUid;
    policy
        .groups
        .push(group(&["gone"], Addresses::DefaultRoute));
    policy
        .groups
        .push(group(&["a", "b"], Addresses::DefaultRoute));
    policy.groups.push(group(&["b"], Addresses::DefaultRoute));
    let world = with(policy, 9);
    let desired = first(&world);
    // Sorted by address: a, b, c.
    for n in 1..=9 {
        let uid = format!("uid-{n}");
        let hash = crate::hash::fnv1a_32(uid.as_bytes());
        let expected = ["a", "b", "c"][(hash % 3) as usize];
        assert_eq!(end_of(&desired, n).1.gateway, expected);
    }
}

#[test]
fn the_standby_takes_over_when_the_active_one_is_dead() {
    let mut world = with(policy("p", &["a", "b"], Addresses::DefaultRoute), 2);
    assert_eq!(end_of(&first(&world), 1).1.gateway, "a");
    set_health(&mut world, "a", false);
    let desired = first(&world);
    assert_eq!(end_of(&desired, 1).1.gateway, "b");
    let state = &desired.policies[&id("p")];
    assert_eq!(state.active_gateways, names(&["b"]));
    assert_eq!(state.healthy_gateways, names(&["b"]));
    assert_eq!(state.pods.len(), 2);
}

#[test]
fn all_active_ones_share_the_pods_and_one_that_goes_moves_its_own_only() {
    let mut policy = policy("p", &["a", "b", "c"], Addresses::DefaultRoute);
    policy.selection = Selection::ActiveActive;
    let mut world = with(policy, 60);
    let gateways = |world: &World| -> Vec<String> {
        let desired = first(world);
        (1..=60).map(|n| end_of(&desired, n).1.gateway).collect()
    };
    let before = gateways(&world);
    for name in ["a", "b", "c"] {
        let share = before.iter().filter(|gateway| *gateway == name).count();
        assert!((8..=32).contains(&share), "{name} has {share} of 60");
    }
    set_health(&mut world, "b", false);
    for (before, after) in before.iter().zip(gateways(&world)) {
        assert!(*before == after || before == "b");
        assert_ne!(after, "b");
    }
}

#[test]
fn zones_choose_among_gateways() {
    let mut policy = policy("p", &["a", "b", "c"], Addresses::DefaultRoute);
    policy.zones = Zones::LocalFirst;
    let mut world = with(policy, 1);
    set_zone(&mut world, "w", "east");
    set_zone(&mut world, "b", "east");
    assert_eq!(end_of(&first(&world), 1).1.gateway, "b");
    set_health(&mut world, "b", false);
    assert_eq!(end_of(&first(&world), 1).1.gateway, "a");
    world.policies[0].zones = Zones::LocalOnly;
    let source = pod(1, &[]).addresses[0];
    let refused = |why| Some(Way::Refused(why));
    assert_eq!(
        way(&first(&world), source, ip("8.8.8.8")),
        refused(Refusal::NoGatewayInZone)
    );
    set_health(&mut world, "b", true);
    world.policies[0].selection = Selection::ActiveActive;
    assert_eq!(end_of(&first(&world), 1).1.gateway, "b");
    // No zone is nobody's zone.
    world.nodes.get_mut("w").expect("w").zone = None;
    assert_eq!(
        way(&first(&world), source, ip("8.8.8.8")),
        refused(Refusal::NoGatewayInZone)
    );
}

#[test]
fn held_addresses_of_the_policy_are_one_rule() {
    let addresses = held(&["192.0.2.1", "192.0.2.2", "2001:db8::1"], Affinity::Policy);
    let world = with(policy("p", &["a", "b"], addresses), 3);
    let desired = first(&world);
    let rules: BTreeSet<_> = (1..=3).map(|n| end_of(&desired, n).0).collect();
    assert_eq!(rules.len(), 1);
    let seat = desired.seats.values().next().expect("a seat");
    assert_eq!(seat.holder.as_deref(), Some("a"));
    assert_eq!(seat.standbys, ["b"]);
    assert_eq!((seat.term, seat.is_claimed), (1, false));
    assert_eq!((seat.is_holder, seat.is_standby), (false, false));

    let holder = first(&seen_from(&world, "a"));
    let rule = holder.gateway.values().next().expect("a rule");
    assert_eq!(
        rule.v4,
        [[192, 0, 2, 1], [192, 0, 2, 2]].map(std::net::Ipv4Addr::from)
    );
    assert_eq!((rule.v6.len(), rule.is_held, rule.output), (1, true, None));
    let standby = first(&seen_from(&world, "b"));
    assert!(standby.gateway.is_empty());
    assert!(standby.seats.values().all(|seat| seat.is_standby));
}

#[test]
fn a_namespace_has_one_address_and_all_namespaces_share_them() {
    let addresses: Vec<_> = (1..=8).map(|n| format!("192.0.2.{n}")).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let world = with(
        policy("p", &["a"], held(&addresses, Affinity::Namespace)),
        64,
    );
    let desired = first(&world);
    let mut by_namespace: BTreeMap<u16, BTreeSet<RuleNumber>> = BTreeMap::new();
    for n in 1..=64 {
        let rule = end_of(&desired, n).0;
        by_namespace.entry(n % 4).or_default().insert(rule);
    }
    assert!(by_namespace.values().all(|rules| rules.len() == 1));
    let world = with(policy("p", &["a"], held(&addresses, Affinity::Pod)), 64);
    assert!(first(&world).ends.len() > 4);
}

#[test]
fn an_address_more_moves_few_pods() {
    let texts: Vec<_> = (1..=9).map(|n| format!("192.0.2.{n}")).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let rules = |addresses: &[&str]| -> Vec<RuleNumber> {
        let world = with(policy("p", &["a"], held(addresses, Affinity::Pod)), 180);
        let desired = first(&world);
        (1..=180).map(|n| end_of(&desired, n).0).collect()
    };
    let (before, after) = (rules(&texts[..8]), rules(&texts));
    let known: BTreeSet<_> = before.iter().collect();
    let mut moved = 0;
    for (before, after) in before.iter().zip(&after) {
        if before != after {
            moved += 1;
            assert!(
                !known.contains(after),
                "moved from an old address to another"
            );
        }
    }
    assert!(
        (5..=40).contains(&moved),
        "{moved} of 180 moved; 20 expected"
    );
    // One in the middle less: its own pods only.
    let less: Vec<_> = texts
        .iter()
        .copied()
        .filter(|text| *text != "192.0.2.4")
        .collect();
    let without = rules(&less);
    let gone: BTreeSet<_> = after.iter().collect::<BTreeSet<_>>();
    let gone: BTreeSet<_> = gone
        .into_iter()
        .filter(|rule| !without.contains(rule))
        .collect();
    assert_eq!(gone.len(), 1);
    for (before, after) in after.iter().zip(&without) {
        assert!(before == after || gone.contains(before));
    }
}

#[test]
fn a_claim_holds_until_its_holder_dies_or_leaves() {
    let mut world = with(
        policy(
            "p",
            &["a", "b", "c"],
            held(&["192.0.2.1"], Affinity::Policy),
        ),
        1,
    );
    let rule = end_of(&first(&world), 1).0;
    let claims: Claims = [(rule, claim("b", 7))].into();
    let seat = |world: &World| {
        let desired = decide(world, &claims, &Previous::default());
        assert_eq!(end_of(&desired, 1).0, rule, "the rule stays");
        let seat = desired.seats[&rule].clone();
        (
            seat.holder.expect("a holder"),
            seat.term,
            seat.is_claimed,
            seat.standbys,
        )
    };
    let row = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(seat(&world), ("b".to_owned(), 7, true, row(&["a", "c"])));
    set_health(&mut world, "b", false);
    assert_eq!(seat(&world), ("a".to_owned(), 8, false, row(&["c"])));
    set_health(&mut world, "b", true);
    world.nodes.remove("b");
    assert_eq!(seat(&world), ("a".to_owned(), 8, false, row(&["c"])));
}

#[test]
fn who_leaves_holds_a_rule_until_the_next_has_taken_it() {
    let policy = policy("p", &["a", "b"], held(&["192.0.2.1"], Affinity::Policy));
    let mut world = with(policy, 1);
    let rule = end_of(&first(&world), 1).0;
    let claims: Claims = [(rule, claim("b", 7))].into();
    // Not in the group any more, or not willing.
    let leaves: [fn(&mut World); 2] = [
        |world| _ = world.policies[0].groups[0].nodes.remove("b"),
        |world| world.nodes.get_mut("b").expect("b").is_healthy = false,
    ];
    for leave in leaves {
        let mut world = world.clone();
        leave(&mut world);
        for node in ["w", "a", "b"] {
            let mut world = seen_from(&world, node);
            world.interfaces.clear();
            let desired = decide(&world, &claims, &Previous::default());
            // The node of the pods has none any more in this view.
            let Some(seat) = desired.seats.get(&rule) else {
                assert_eq!(node, "w");
                continue;
            };
            assert_eq!(seat.holder.as_deref(), Some("b"));
            assert!(seat.is_claimed && seat.is_leaving, "{seat:?}");
            assert_eq!(seat.standbys, ["a"]);
            assert_eq!(desired.gateway.contains_key(&rule), node == "b");
            assert_eq!(desired.standby.contains_key(&rule), node == "a");
        }
        // With the next one's claim it is over.
        let claims: Claims = [(rule, claim("a", 8))].into();
        let desired = decide(&seen_from(&world, "b"), &claims, &Previous::default());
        assert!(!desired.gateway.contains_key(&rule));
    }
    // Where nobody can take it, somebody's own nodes keep it and others' do not.
    world.nodes.get_mut("a").expect("a").is_healthy = false;
    world.nodes.get_mut("b").expect("b").is_healthy = false;
    let desired = decide(&seen_from(&world, "b"), &claims, &Previous::default());
    assert!(desired.gateway.contains_key(&rule));
    assert!(!desired.seats[&rule].is_leaving);
    world.policies[0].groups[0].nodes.remove("b");
    let desired = decide(&seen_from(&world, "b"), &claims, &Previous::default());
    assert!(!desired.gateway.contains_key(&rule));
}

#[test]
fn the_first_standby_is_the_next_holder_in_zones_too() {
    let mut policy = policy(
        "p",
        &["a", "b", "c"],
        held(&["192.0.2.1"], Affinity::Policy),
    );
    policy.zones = Zones::LocalPriority;
    for selection in [Selection::ActiveStandby, Selection::ActiveActive] {
        policy.selection = selection;
        let mut world = with(policy.clone(), 1);
        set_zone(&mut world, "b", "east");
        set_zone(&mut world, "c", "east");
        set_zone(&mut world, "a", "west");
        let rule = end_of(&first(&world), 1).0;
        let claims: Claims = [(rule, claim("c", 1))].into();
        let seat =
            |world: &World| decide(world, &claims, &Previous::default()).seats[&rule].clone();
        assert_eq!(seat(&world).standbys, ["b", "a"]);
        set_health(&mut world, "c", false);
        assert_eq!(seat(&world).holder.as_deref(), Some("b"));
    }
}

#[test]
fn pods_prefer_addresses_held_in_their_zone() {
    let mut policy = policy("p", &["a"], held(&["192.0.2.1"], Affinity::Policy));
    policy
        .groups
        .push(group(&["b"], held(&["192.0.2.2"], Affinity::Policy)));
    policy.zones = Zones::LocalFirst;
    let mut world = with(policy, 1);
    set_zone(&mut world, "w", "east");
    set_zone(&mut world, "b", "east");
    assert_eq!(end_of(&first(&world), 1).1.gateway, "b");
    set_health(&mut world, "b", false);
    assert_eq!(end_of(&first(&world), 1).1.gateway, "a");
}

#[test]
fn a_gateway_finds_its_addresses() {
    let resolve = |addresses: Addresses| {
        let mut world = world("a", &NODES);
        let lo = Interface {
            index: 1,
            is_up: true,
            addresses: vec![ip("192.0.2.9")],
            ..Interface::default()
        };
        world.interfaces.insert("lo".to_owned(), lo);
        let eth1 = Interface {
            index: 3,
            addresses: vec![ip("203.0.113.3")],
            ..Interface::default()
        };
        world.interfaces.insert("eth1".to_owned(), eth1);
        world.policies = vec![policy("p", &["a"], addresses)];
        let desired = first(&world);
        let rule = desired.gateway.values().next().expect("a rule").clone();
        let addresses: Vec<_> = rule
            .addresses()
            .map(|address| address.to_string())
            .collect();
        let findings: Vec<_> = desired.findings.iter().map(ToString::to_string).collect();
        (addresses.join(" "), rule.output, findings.join("; "))
    };
    let none = String::new;
    assert_eq!(
        resolve(Addresses::DefaultRoute),
        ("198.51.100.1 2001:db8:51::1".to_owned(), Some(2), none())
    );
    assert_eq!(
        resolve(Addresses::OnDevice(ip("198.51.100.2"))),
        ("198.51.100.2".to_owned(), Some(2), none())
    );
    assert_eq!(
        resolve(Addresses::OnDevice(ip("192.0.2.9"))),
        ("192.0.2.9".to_owned(), None, none())
    );
    let (addresses, output, findings) = resolve(Addresses::Interface("eth1".to_owned()));
    assert_eq!((addresses.as_str(), output), ("203.0.113.3", Some(3)));
    assert_eq!(
        findings,
        "EgressGatewayPolicy/p group 0: gateway a drops IPv6: interface eth1 has no usable \
         address; add one, or correct the policy; EgressGatewayPolicy/p: interface eth1 of \
         gateway a is down; set it up"
    );
    let (addresses, output, findings) = resolve(Addresses::OnDevice(ip("192.0.2.77")));
    assert_eq!((addresses.as_str(), output), ("", None));
    assert!(findings.contains("192.0.2.77 is on none of its interfaces"));
    let (addresses, _, findings) = resolve(Addresses::Interface("bond7".to_owned()));
    assert_eq!(addresses, "");
    assert!(findings.contains("there is no interface bond7"));
    let many: Vec<_> = (1..=9).map(|n| format!("192.0.2.{n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let (addresses, _, findings) = resolve(held(&many, Affinity::Policy));
    assert_eq!(addresses.split(' ').count(), MAX_ADDRESSES);
    assert!(findings.contains("has 9 IPv4 addresses for every pod, and the first 8 are used"));
}

#[test]
fn an_address_is_held_once() {
    let mut world = with(
        policy("old", &["a"], held(&["192.0.2.1"], Affinity::Policy)),
        1,
    );
    let addresses = held(&["192.0.2.1", "192.0.2.2"], Affinity::Policy);
    world.policies.push(policy("new", &["b"], addresses));
    let desired = first(&seen_from(&world, "b"));
    let rule = desired.gateway.values().next().expect("a rule");
    assert_eq!(rule.v4, [std::net::Ipv4Addr::new(192, 0, 2, 2)]);
    let findings: Vec<_> = desired.findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        findings,
        [
            "EgressGatewayPolicy/new does not get 192.0.2.1, because EgressGatewayPolicy/old is \
          older and holds it: take it out of one of them"
        ]
    );
    let concerned = desired.policies.keys().collect::<Vec<_>>();
    assert_eq!(concerned, [&id("new")]);
    let other = state_of(&world, &Claims::new(), &desired, &id("old")).expect("a policy");
    assert_eq!(other.active_gateways, names(&["a"]));
    assert_eq!(other.addresses, [ip("192.0.2.1")].into());
    let all = states_of(&world, &Claims::new(), &desired);
    assert_eq!(all.len(), 2);
    assert_eq!(all[&id("old")], other);
    assert_eq!(all[&id("new")], desired.policies[&id("new")]);
}

#[test]
fn ends_prefer_ipv4_and_want_a_common_family() {
    let mut world = with(policy("p", &["a"], Addresses::DefaultRoute), 1);
    world.nodes.get_mut("w").expect("w").addresses.reverse();
    assert_eq!(end_of(&first(&world), 1).1.end, End::Remote(ip("10.0.0.1")));
    world.nodes.get_mut("w").expect("w").addresses.truncate(1);
    assert_eq!(end_of(&first(&world), 1).1.end, End::Remote(ip("fd00::1")));
    world.nodes.get_mut("a").expect("a").addresses.truncate(1);
    let desired = first(&world);
    assert_eq!(end_of(&desired, 1).1.end, End::Refused);
    assert!(desired.findings.iter().any(|finding| matches!(
        finding,
        Finding::Unreachable { gateway, .. } if gateway == "a"
    )));
    let here = World {
        node: "a".to_owned(),
        ..world
    };
    assert_eq!(end_of(&first(&here), 1).1.end, End::Local);
}
