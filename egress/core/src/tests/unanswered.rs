// SPDX-License-Identifier: Apache-2.0
//! Gateways that do not reach what one policy asks for.

use super::*;

const NODES: [&str; 4] = ["a", "b", "c", "w"];

/// Policies `p` and `q` with one held address each, claimed by `a`.
fn two() -> (World, Claims) {
    let mut world = world("w", &NODES);
    let with =
        |name, address: &str| policy(name, &["a", "b", "c"], held(&[address], Affinity::Policy));
    world.policies = vec![with("p", "192.0.2.1"), with("q", "192.0.2.2")];
    let rules = first(&seen_from(&world, "a")).seats;
    let claims = rules.keys().map(|rule| (*rule, claim("a", 1)));
    let claims = claims.collect();
    (world, claims)
}

fn seat(world: &World, claims: &Claims, name: &str) -> Seat {
    let desired = decide(&seen_from(world, "a"), claims, &Previous::default());
    let mut seats = desired.seats.into_values();
    seats
        .find(|seat| seat.key.policy == id(name))
        .expect("a seat")
}

#[test]
fn a_holder_without_an_answer_leaves_the_rules_of_that_policy_alone() {
    let (mut world, claims) = two();
    world.policies[0].unanswered = names(&["a", "b"]);
    let left = seat(&world, &claims, "p");
    assert_eq!(left.holder.as_deref(), Some("a"));
    assert!(left.is_claimed && left.is_leaving);
    assert_eq!(left.standbys, ["c", "b"], "who has an answer is next");
    let kept = seat(&world, &claims, "q");
    assert!(!kept.is_leaving);
    assert_eq!(kept.standbys, ["b", "c"]);
    // The others see the same and take nothing before it is given to them.
    let other = decide(&seen_from(&world, "c"), &claims, &Previous::default());
    assert!(other.gateway.is_empty());
    assert_eq!(other.standby.len(), 1);
}

#[test]
fn nothing_moves_for_a_target_nobody_reaches() {
    let (mut world, claims) = two();
    world.policies[0].unanswered = names(&["a", "b", "c"]);
    let kept = seat(&world, &claims, "p");
    assert_eq!(kept.holder.as_deref(), Some("a"));
    assert!(kept.is_claimed && !kept.is_leaving);
    assert_eq!(kept.standbys, ["b", "c"]);
    // Nor is anybody left without a gateway who begins like this.
    let fresh = seat(&world, &Claims::new(), "p");
    assert_eq!(fresh.holder.as_deref(), Some("a"));
    let none = Finding::NoneAnswered { policy: id("p") };
    let state = |world: &World| first(&seen_from(world, "a")).policies[&id("p")].clone();
    assert_eq!(state(&world).findings, [none].into());
    assert!(state(&world).healthy_gateways.is_empty());
    assert_eq!(state(&world).active_gateways, names(&["a"]));
    world.policies[0].unanswered = names(&["a"]);
    let unanswered = Finding::Unanswered {
        policy: id("p"),
        node: "a".to_owned(),
    };
    assert_eq!(state(&world).findings, [unanswered].into());
    assert_eq!(state(&world).healthy_gateways, names(&["b", "c"]));
}

#[test]
fn who_gets_an_answer_takes_what_nobody_holds_and_who_gets_it_back_takes_nothing() {
    let (mut world, claims) = two();
    world.policies[0].unanswered = names(&["a"]);
    let elected = seat(&world, &Claims::new(), "p");
    assert_eq!(elected.holder.as_deref(), Some("b"));
    assert_eq!(elected.standbys, ["c", "a"]);
    let claims: Claims = claims.keys().map(|rule| (*rule, claim("b", 2))).collect();
    world.policies[0].unanswered.clear();
    let kept = seat(&world, &claims, "p");
    assert_eq!(kept.holder.as_deref(), Some("b"));
    assert!(!kept.is_leaving);
}

#[test]
fn a_drained_holder_leaves_to_whoever_is_there() {
    let (mut world, claims) = two();
    world.policies[0].unanswered = names(&["b", "c"]);
    world.nodes.get_mut("a").expect("a").is_healthy = false;
    let left = seat(&world, &claims, "p");
    assert!(left.is_leaving);
    assert_eq!(left.standbys, ["b", "c"]);
}

#[test]
fn pods_choose_a_gateway_with_addresses_of_its_own_that_has_an_answer() {
    for selection in [Selection::ActiveStandby, Selection::ActiveActive] {
        let mut world = world("w", &NODES);
        let mut policy = policy("p", &["a", "b"], Addresses::DefaultRoute);
        policy.selection = selection;
        world.pods = (1..=9).map(|n| pod(n, &[&policy.id])).collect();
        world.policies = vec![policy];
        let gateways = |world: &World| -> BTreeSet<String> {
            let desired = first(world);
            (1..=9).map(|n| end_of(&desired, n).1.gateway).collect()
        };
        let before = gateways(&world);
        world.policies[0].unanswered = names(&["a"]);
        assert_eq!(gateways(&world), names(&["b"]));
        world.policies[0].unanswered = names(&["a", "b"]);
        assert_eq!(gateways(&world), before, "as if nobody was asked");
    }
}
