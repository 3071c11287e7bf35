// SPDX-License-Identifier: Apache-2.0
//! What becomes of rules that live connections still use.

use std::time::Duration;

use super::*;

fn before(selection: Selection) -> (World, RuleNumber, Previous) {
    let mut world = world("w", &["a", "b", "w"]);
    let mut policy = policy("p", &["a", "b"], Addresses::DefaultRoute);
    policy.selection = selection;
    world.pods = vec![pod(1, &[&policy.id])];
    world.policies = vec![policy];
    let desired = first(&world);
    let (rule, end) = end_of(&desired, 1);
    assert_eq!((end.gateway.as_str(), end.life), ("a", Life::Active));
    let live = [rule].into();
    (world, rule, Previous { desired, live })
}

fn again(world: &World, previous: &Previous) -> Desired {
    decide(world, &Claims::new(), previous)
}

#[test]
fn a_rule_that_is_not_chosen_any_more_drains() {
    let (mut world, rule, previous) = before(Selection::ActiveStandby);
    set_health(&mut world, "a", false);
    world.policies[0].limits.drain = Some(Duration::from_secs(60));
    let desired = again(&world, &previous);
    assert_eq!(end_of(&desired, 1).1.gateway, "b");
    let at_most = Some(Duration::from_secs(60));
    assert_eq!(desired.ends[&rule].life, Life::Draining { at_most });
    assert_eq!(desired.ends[&rule].end, End::Remote(ip("10.0.0.1")));
    // Still in the next decision, and not when its last connection is gone.
    let mut previous = Previous {
        desired,
        live: previous.live,
    };
    let desired = again(&world, &previous);
    assert!(desired.ends.contains_key(&rule));
    previous.live.clear();
    assert!(!again(&world, &previous).ends.contains_key(&rule));
    previous.live.insert(rule);
    world.policies[0].limits.drain = Some(Duration::ZERO);
    assert!(!again(&world, &previous).ends.contains_key(&rule));
}

#[test]
fn a_rule_is_known_by_its_number_after_a_restart() {
    let (mut world, rule, mut previous) = before(Selection::ActiveStandby);
    set_health(&mut world, "a", false);
    previous.desired = Desired::default();
    let desired = again(&world, &previous);
    assert_eq!(desired.ends[&rule].gateway, "a");
    assert_eq!(desired.ends[&rule].life, Life::Draining { at_most: None });
}

#[test]
fn a_gateway_that_leaves_the_group_drains_on_both_sides() {
    let (mut world, rule, previous) = before(Selection::FirstByName);
    let gateway = World {
        node: "a".to_owned(),
        pods: Vec::new(),
        ..world.clone()
    };
    let at_gateway = Previous {
        desired: first(&gateway),
        live: [rule].into(),
    };
    assert_eq!(at_gateway.desired.gateway[&rule].life, Life::Active);
    world.policies[0].groups[0].nodes.remove("a");
    let desired = again(&world, &previous);
    assert_eq!(end_of(&desired, 1).1.gateway, "b");
    let life = Life::Draining { at_most: None };
    assert_eq!(desired.ends[&rule].life, life);
    let gateway = World {
        policies: world.policies.clone(),
        ..gateway
    };
    let desired = again(&gateway, &at_gateway);
    assert_eq!(desired.gateway[&rule].life, life);
    assert_eq!(desired.gateway[&rule].v4.len(), 1);
    assert!(desired.ends.is_empty());
}

#[test]
fn connections_outlive_their_policy() {
    let (mut world, rule, previous) = before(Selection::FirstByName);
    let gateway = World {
        node: "a".to_owned(),
        pods: Vec::new(),
        ..world.clone()
    };
    let at_gateway = Previous {
        desired: first(&gateway),
        live: [rule].into(),
    };
    world.policies.clear();
    let gone = World {
        policies: Vec::new(),
        ..gateway.clone()
    };
    let life = Life::Draining { at_most: None };
    let desired = again(&world, &previous);
    assert!(desired.sources.is_empty(), "new connections are nobody's");
    assert_eq!(desired.ends[&rule].life, life);
    assert_eq!(desired.ends[&rule].end, End::Remote(ip("10.0.0.1")));
    let at_it = again(&gone, &at_gateway);
    assert_eq!(at_it.gateway[&rule].life, life);
    assert_eq!(
        at_it.gateway[&rule].v4,
        at_gateway.desired.gateway[&rule].v4
    );
    // As long as they last, and it does not forget from one decision to the next.
    let mut next = Previous {
        desired,
        live: previous.live.clone(),
    };
    assert!(again(&world, &next).ends.contains_key(&rule));
    next.live.clear();
    assert!(again(&world, &next).ends.is_empty());
    // Nothing of it is left where the policy wanted that, or without the gateway.
    let mut short = gateway;
    short.policies[0].limits.drain = Some(Duration::ZERO);
    let at_gateway = Previous {
        desired: first(&short),
        ..at_gateway
    };
    assert!(again(&gone, &at_gateway).gateway.is_empty());
    world.nodes.remove("a");
    assert!(again(&world, &previous).ends.is_empty());
}

#[test]
fn an_address_another_policy_wants_is_not_kept_for_one_that_is_gone() {
    let address = || held(&["192.0.2.1"], Affinity::Policy);
    let mut world = world("a", &["a", "b"]);
    world.policies = vec![policy("p", &["a", "b"], address())];
    let desired = first(&world);
    let rule = *desired.gateway.keys().next().expect("a rule");
    let previous = Previous {
        desired,
        live: [rule].into(),
    };
    let mut gone = world.clone();
    gone.policies.clear();
    assert!(again(&gone, &previous).gateway[&rule].is_held);
    gone.policies = vec![policy("q", &["b"], address())];
    assert!(!again(&gone, &previous).gateway.contains_key(&rule));
}

#[test]
fn a_holder_that_loses_its_rule_keeps_nothing_of_it() {
    let mut world = world("a", &["a", "b"]);
    world.policies = vec![policy(
        "p",
        &["a", "b"],
        held(&["192.0.2.1"], Affinity::Policy),
    )];
    let desired = first(&world);
    let rule = *desired.gateway.keys().next().expect("a rule");
    let live = [rule].into();
    let claims: Claims = [(rule, claim("b", 2))].into();
    let after = decide(&world, &claims, &Previous { desired, live });
    assert!(after.gateway.is_empty());
    assert!(after.seats[&rule].is_standby);
}

#[test]
fn a_held_rule_that_pods_do_not_choose_any_more_drains_to_its_holder() {
    let mut world = world("w", &["a", "b", "w"]);
    let mut policy = policy("p", &["a"], held(&["192.0.2.1"], Affinity::Policy));
    policy
        .groups
        .push(group(&["b"], held(&["192.0.2.2"], Affinity::Policy)));
    world.pods = vec![pod(1, &[&policy.id])];
    world.policies = vec![policy];
    let desired = first(&world);
    let rule = end_of(&desired, 1).0;
    let previous = Previous {
        desired,
        live: [rule].into(),
    };
    set_zone(&mut world, "w", "east");
    set_zone(&mut world, "b", "east");
    world.policies[0].zones = Zones::LocalFirst;
    let desired = again(&world, &previous);
    assert_ne!(end_of(&desired, 1).0, rule);
    assert_eq!(desired.ends[&rule].gateway, "a");
    // Its address taken out of the policy: there is nothing to go on with.
    world.policies[0].groups[0].addresses = held(&["192.0.2.3"], Affinity::Namespace);
    assert!(!again(&world, &previous).ends.contains_key(&rule));
}
