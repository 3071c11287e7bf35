// SPDX-License-Identifier: Apache-2.0
//! Numbers of rules in a world where two of them share a hash.

use super::*;

/// Two names, in order, whose policies' only rules have one home.
fn twins() -> [String; 2] {
    let mut names = BTreeMap::new();
    for n in 0..50_000 {
        let name = format!("p{n:05}");
        let key = RuleKey {
            policy: id(&name),
            group: 0,
            exit: Exit::Node("a".to_owned()),
        };
        if let Some(first) = names.insert(key.as_ref().home(), name.clone()) {
            return [first, name];
        }
    }
    panic!("50 000 hashes of 24 bits have about 75 pairs");
}

#[test]
fn of_two_rules_with_one_hash_the_later_gives_way_and_says_so() {
    let [first_name, later] = twins();
    let mut world = world("w", &["a", "w"]);
    let make = |name: &str| policy(name, &["a"], Addresses::DefaultRoute);
    // The later one in order of keys is the older policy: age has no say here.
    world.policies = vec![make(&later), make(&first_name)];
    world.pods = vec![pod(1, &[&id(&later)]), pod(2, &[&id(&first_name)])];
    let desired = first(&world);
    let (displaced, home) = (end_of(&desired, 1).0, end_of(&desired, 2).0);
    assert_eq!(displaced.get(), home.get() + 1);
    let collision = desired.policies[&id(&later)].findings.iter().next();
    assert!(matches!(
        collision,
        Some(Finding::NumberCollision { first, later: other })
            if first.policy.name == first_name && other.policy.name == later
    ));
    let gateway = first(&seen_from(&world, "a"));
    assert_eq!(gateway.gateway[&displaced].key.policy.name, later);
    assert_eq!(gateway.gateway[&home].key.policy.name, first_name);

    // The number of a rule that lives belongs to another one then: nothing is mixed up.
    let previous = Previous {
        desired,
        live: [displaced, home].into(),
    };
    world.policies.pop();
    let after = decide(&world, &Claims::new(), &previous);
    assert_eq!(end_of(&after, 1).0, home);
    assert_eq!(after.ends[&home].key.policy.name, later);
    assert_eq!(
        after.ends[&displaced].life,
        Life::Draining { at_most: None }
    );
}
