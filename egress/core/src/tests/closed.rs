// SPDX-License-Identifier: Apache-2.0
//! What is dropped rather than sent, and what several policies say together.

use super::*;

fn net(text: &str) -> ipnet::IpNet {
    text.parse().expect("a prefix")
}

/// Pod 1 of node `w`, selected by these policies.
fn with(policies: Vec<Policy>) -> World {
    let mut world = world("w", &["a", "b", "w"]);
    let ids: Vec<_> = policies.iter().map(|policy| &policy.id).collect();
    world.pods = vec![pod(1, &ids)];
    world.policies = policies;
    world
}

fn way_of(desired: &Desired, destination: &str) -> Option<Way> {
    way(desired, pod(1, &[]).addresses[0], ip(destination))
}

fn refused(why: Refusal) -> Option<Way> {
    Some(Way::Refused(why))
}

#[test]
fn without_a_gateway_packets_are_dropped() {
    let mut world = with(vec![policy("p", &[], Addresses::DefaultRoute)]);
    let desired = first(&world);
    assert_eq!(way_of(&desired, "8.8.8.8"), refused(Refusal::NoGateway));
    assert_eq!(way_of(&desired, "10.1.1.1"), Some(Way::Excluded));
    assert!(desired.ends.is_empty());
    let findings = &desired.policies[&id("p")].findings;
    assert!(findings.iter().any(|finding| {
        finding
            .to_string()
            .contains("has no gateway in group 0: no node matches")
    }));
    world.policies[0].groups[0].nodes = names(&["a", "unknown"]);
    set_health(&mut world, "a", false);
    assert_eq!(
        way_of(&first(&world), "8.8.8.8"),
        refused(Refusal::NoHealthyGateway)
    );
    for selection in [Selection::FirstByName, Selection::ByPodUid] {
        world.policies[0].selection = selection;
        assert_eq!(end_of(&first(&world), 1).1.gateway, "a");
        let mut without = world.clone();
        without.policies[0].groups[0].nodes.clear();
        assert_eq!(
            way_of(&first(&without), "8.8.8.8"),
            refused(Refusal::NoGateway)
        );
    }
}

#[test]
fn nobody_healthy_holds_nothing() {
    let mut world = with(vec![policy(
        "p",
        &["a"],
        held(&["192.0.2.1"], Affinity::Policy),
    )]);
    set_health(&mut world, "a", false);
    let desired = first(&world);
    assert_eq!(
        way_of(&desired, "8.8.8.8"),
        refused(Refusal::NoHealthyGateway)
    );
    let desired = first(&seen_from(&world, "a"));
    assert!(desired.gateway.is_empty());
    assert!(desired.seats.values().all(|seat| seat.holder.is_none()));
}

#[test]
fn the_other_family_is_dropped_or_has_another_group() {
    let addresses = || Addresses::OnDevice(ip("192.0.2.1"));
    let mut world = with(vec![policy("p", &["a"], addresses())]);
    let desired = first(&world);
    assert!(matches!(way_of(&desired, "8.8.8.8"), Some(Way::Through(_))));
    assert_eq!(way_of(&desired, "2001::1"), refused(Refusal::NoAddress));
    let second = group(&["b"], Addresses::OnDevice(ip("2001:db8::1")));
    world.policies[0].groups.push(second);
    let desired = first(&world);
    let Some(Way::Through(rule)) = way_of(&desired, "2001::1") else {
        panic!("the second group has IPv6");
    };
    assert_eq!(desired.ends[&rule].gateway, "b");
}

#[test]
fn the_longest_prefix_of_all_policies_counts_and_then_the_older_one() {
    let mut old = policy("old", &["a"], Addresses::DefaultRoute);
    old.destinations = [net("20.0.0.0/8"), net("30.0.0.0/8")].into();
    old.exclusions = [net("20.1.0.0/16")].into();
    let mut new = policy("new", &["b"], Addresses::DefaultRoute);
    // With bits past its length, as users write it.
    new.destinations = [net("20.1.2.0/24"), net("30.1.1.1/8"), net("40.0.0.0/8")].into();
    new.exclusions = [net("20.0.0.0/8")].into();
    let desired = first(&with(vec![old, new]));
    let gateway = |destination: &str| match way_of(&desired, destination) {
        Some(Way::Through(rule)) => desired.ends[&rule].gateway.clone(),
        other => format!("{other:?}"),
    };
    assert_eq!(gateway("20.2.0.1"), "a");
    assert_eq!(gateway("20.1.0.1"), "Some(Excluded)");
    assert_eq!(gateway("20.1.2.1"), "b");
    assert_eq!(gateway("30.0.0.1"), "a");
    assert_eq!(gateway("40.0.0.1"), "b");
    assert_eq!(gateway("50.0.0.1"), "None");
    let clashes: Vec<_> = desired.findings.iter().map(ToString::to_string).collect();
    assert_eq!(clashes.len(), 2);
    assert_eq!(
        clashes[1],
        "EgressGatewayPolicy/old and EgressGatewayPolicy/new both name 30.0.0.0/8 and select the \
         same pods; the older one, EgressGatewayPolicy/old, applies: take the prefix out of one \
         of them"
    );
}

#[test]
fn what_is_not_known_is_dropped_where_it_matters() {
    let mut known = policy("known", &["a"], Addresses::DefaultRoute);
    known.destinations = [net("20.0.0.0/8")].into();
    known.exclusions = [net("20.9.0.0/16")].into();
    let mut maybe = policy("maybe", &["b"], Addresses::DefaultRoute);
    maybe.destinations = [net("0.0.0.0/0"), net("20.9.9.0/24")].into();
    maybe.exclusions = [net("20.8.0.0/16"), net("30.0.0.0/8"), net("20.9.9.9/32")].into();
    let mut world = with(vec![maybe, known]);
    world.pods[0].policies = [id("known")].into();
    world.pods[0].undecided = [id("known"), id("maybe")].into();
    let desired = first(&world);
    let undecided = refused(Refusal::Undecided);
    // Covered by the maybe only: dropped, but for its exclusions.
    assert_eq!(way_of(&desired, "8.8.8.8"), undecided);
    assert_eq!(way_of(&desired, "30.1.1.1"), Some(Way::Excluded));
    // Covered by the known one in both cases, or excluded by it.
    assert!(matches!(
        way_of(&desired, "20.1.1.1"),
        Some(Way::Through(_))
    ));
    assert_eq!(way_of(&desired, "20.9.1.1"), Some(Way::Excluded));
    // To the gateway if it does not select, and not if it does.
    assert_eq!(way_of(&desired, "20.8.1.1"), undecided);
    assert_eq!(way_of(&desired, "20.9.9.1"), undecided);
    assert_eq!(way_of(&desired, "20.9.9.9"), Some(Way::Excluded));
    assert_eq!(
        desired.policies[&id("maybe")].undecided,
        [world.pods[0].key.clone()].into()
    );
    assert!(desired.policies[&id("known")].undecided.is_empty());

    // Another maybe that would send what this one leaves out.
    let mut other = policy("other", &["b"], Addresses::DefaultRoute);
    other.destinations = [net("30.0.0.0/7")].into();
    world.policies.push(other);
    world.pods[0].undecided.insert(id("other"));
    assert_eq!(way_of(&first(&world), "30.1.1.1"), undecided);
}

#[test]
fn equal_pods_share_a_set_and_unselected_ones_have_none() {
    let mut world = with(vec![policy("p", &["a"], Addresses::DefaultRoute)]);
    world.pods.push(pod(2, &[&id("p")]));
    world.pods.push(pod(3, &[]));
    world.pods.push(pod(4, &[&id("was-removed")]));
    let desired = first(&world);
    assert_eq!(desired.sets.len(), 1);
    assert_eq!(desired.sources.len(), 4);
    assert!(!desired.sources.contains_key(&pod(3, &[]).addresses[0]));
}

#[test]
fn of_two_pods_with_one_address_the_first_has_it() {
    let mut world = with(vec![policy("p", &["a"], Addresses::DefaultRoute)]);
    let mut ended = pod(2, &[&id("p")]);
    ended.addresses = world.pods[0].addresses.clone();
    world.pods.insert(0, ended);
    let desired = first(&world);
    let findings: Vec<_> = desired.findings.iter().map(ToString::to_string).collect();
    assert_eq!(findings.len(), 2);
    assert_eq!(
        findings[0],
        "pods ns-1/pod-1 and ns-2/pod-2 both have 10.244.0.1; the policies of ns-1/pod-1 apply: \
         remove the pod that ended"
    );
}
