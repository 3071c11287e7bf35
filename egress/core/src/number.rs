// SPDX-License-Identifier: Apache-2.0
//! Numbers of rules: the same on every node, without a word between them.
//!
//! A rule's number is the hash of its key, folded to the range: its home. Where several keys have
//! one home, the first in order of keys gets it, and the others, in that order too, the next
//! number up (round the end of the range) that is neither home of any key nor given yet. So a rule
//! whose home is its own keeps it whatever else comes or goes, and only a rule that shares its home
//! may change its number with the others; that is rare (n rules make about n²/2^25 such pairs: 3
//! of 10 000) and reported.

use std::collections::{BTreeMap, BTreeSet};

use crate::rule::{FIRST_RULE, LAST_RULE, RuleKey, RuleNumber, RuleRef, each_rule};
use crate::world::World;

/// Which keys have other numbers than their homes.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    /// The keys that had to give way, and the numbers they got; none when there was none left.
    displaced: BTreeMap<RuleKey, Option<RuleNumber>>,
    /// Each of them with the key that has its home.
    pub(crate) collisions: Vec<Collision>,
    /// The keys of the numbers that were asked for.
    known: BTreeMap<RuleNumber, RuleKey>,
}

/// Two rules with one home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Collision {
    pub(crate) first: RuleKey,
    pub(crate) later: RuleKey,
}

impl Numbers {
    /// Numbers all rules of all policies, and remembers the keys of `asked`. Takes time in
    /// proportion to the rules of the cluster (n log n), and memory while it runs.
    pub(crate) fn new(world: &World, asked: &BTreeSet<RuleNumber>) -> Self {
        Self::with_homes(world, asked, |rule| rule.home())
    }

    /// The same with another hash, so that tests can make collisions.
    pub(crate) fn with_homes(
        world: &World,
        asked: &BTreeSet<RuleNumber>,
        home: impl Fn(RuleRef<'_>) -> RuleNumber,
    ) -> Self {
        let mut homes = Vec::new();
        for policy in &world.policies {
            each_rule(policy, |rule| homes.push((home(rule), rule)));
        }
        homes.sort_unstable();
        homes.dedup();
        let mut later = Vec::new();
        let mut taken = Vec::with_capacity(homes.len());
        let mut known = BTreeMap::new();
        let mut first: Option<(RuleNumber, RuleRef<'_>)> = None;
        for (home, rule) in homes {
            match first {
                Some((number, first)) if number == home => later.push((rule, first, home)),
                Some(_) | None => {
                    first = Some((home, rule));
                    taken.push(home);
                    if asked.contains(&home) {
                        known.insert(home, rule.to_key());
                    }
                }
            }
        }
        later.sort_unstable();
        let mut given = BTreeSet::new();
        let mut displaced = BTreeMap::new();
        let mut collisions = Vec::new();
        for (rule, first, home) in later {
            let is_full = taken.len() + given.len() > (LAST_RULE - FIRST_RULE) as usize;
            let number = (!is_full).then(|| {
                let mut number = next(home);
                while taken.binary_search(&number).is_ok() || given.contains(&number) {
                    number = next(number);
                }
                number
            });
            if let Some(number) = number {
                given.insert(number);
                if asked.contains(&number) {
                    known.insert(number, rule.to_key());
                }
            }
            displaced.insert(rule.to_key(), number);
            collisions.push(Collision {
                first: first.to_key(),
                later: rule.to_key(),
            });
        }
        Numbers {
            displaced,
            collisions,
            known,
        }
    }

    /// The number of a rule of the world; none when the range is used up.
    pub(crate) fn of(&self, rule: RuleRef<'_>) -> Option<RuleNumber> {
        if self.displaced.is_empty() {
            return Some(rule.home());
        }
        match self.displaced.get(&rule.to_key()) {
            Some(number) => *number,
            None => Some(rule.home()),
        }
    }

    /// The rule that has a number that was asked for.
    pub(crate) fn key_of(&self, number: RuleNumber) -> Option<&RuleKey> {
        self.known.get(&number)
    }
}

/// The number after, round the end of the range.
fn next(number: RuleNumber) -> RuleNumber {
    RuleNumber::new(number.get() + 1)
        .or(RuleNumber::new(FIRST_RULE))
        .expect("the first is in range")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cilium, policy, world};
    use crate::world::{Addresses, PolicyId, PolicyKind};

    fn number(n: u32) -> RuleNumber {
        RuleNumber::new(n).expect("in range")
    }

    fn key(policy: &str, node: &str) -> RuleKey {
        RuleKey {
            policy: PolicyId {
                kind: PolicyKind::Causeway,
                name: policy.to_owned(),
            },
            group: 0,
            exit: crate::Exit::Node(node.to_owned()),
        }
    }

    #[test]
    fn numbers_are_those_of_every_version() {
        let home = |key: &RuleKey| key.as_ref().home().get();
        let mut upstream = key("web", "gw-1");
        upstream.policy.kind = PolicyKind::Cilium;
        let mut shared = key("web", "");
        shared.exit = crate::Exit::Shared;
        let mut v4 = key("web", "");
        v4.exit = crate::Exit::Address("192.0.2.1".parse().expect("address"));
        let mut v6 = key("web", "");
        v6.exit = crate::Exit::Address("2001:db8::1".parse().expect("address"));
        let numbers = [
            &key("web", "gw-1"),
            &key("web", "gw-2"),
            &upstream,
            &shared,
            &v4,
            &v6,
        ];
        // Computed by another program, from the description of the key.
        assert_eq!(
            numbers.map(home),
            [
                5_871_447, 12_750_213, 1_387_222, 1_174_718, 2_866_201, 5_365_982
            ]
        );
    }

    #[test]
    fn one_home_for_all_gives_the_next_in_order_of_keys() {
        let mut world = world("gw-1", &["gw-1", "gw-2"]);
        world.policies = vec![
            policy("b", &["gw-1"], Addresses::DefaultRoute),
            policy("a", &["gw-1", "gw-2"], Addresses::DefaultRoute),
            cilium("c", &["gw-1"], Addresses::DefaultRoute),
        ];
        let asked = [number(LAST_RULE), number(FIRST_RULE)].into();
        let numbers = Numbers::with_homes(&world, &asked, |_| number(LAST_RULE));
        // Upstream's kind is the first; of the others nobody asks `of` for the home here.
        let mut upstream = key("c", "gw-1");
        upstream.policy.kind = PolicyKind::Cilium;
        assert_eq!(numbers.key_of(number(LAST_RULE)), Some(&upstream));
        assert_eq!(numbers.key_of(number(FIRST_RULE)), Some(&key("a", "gw-1")));
        assert_eq!(
            numbers.of(key("a", "gw-2").as_ref()),
            Some(number(FIRST_RULE + 1))
        );
        assert_eq!(
            numbers.of(key("b", "gw-1").as_ref()),
            Some(number(FIRST_RULE + 2))
        );
        assert_eq!(numbers.collisions.len(), 3);
        assert!(numbers.collisions.iter().all(|c| c.first == upstream));
    }

    #[test]
    fn who_gives_way_takes_nobodys_home() {
        let mut world = world("gw-1", &["gw-1"]);
        for name in ["a", "b", "c"] {
            world
                .policies
                .push(policy(name, &["gw-1"], Addresses::DefaultRoute));
        }
        // a and b at 5000, c at 5001: b goes to 5002, and c stays.
        let home = |rule: RuleRef<'_>| number(if rule.policy.name == "c" { 5001 } else { 5000 });
        let asked = [number(5000), number(5001), number(5002)].into();
        let numbers = Numbers::with_homes(&world, &asked, home);
        let names: Vec<_> = (5000..5003)
            .map(|n| {
                numbers
                    .key_of(number(n))
                    .map(|key| key.policy.name.as_str())
            })
            .collect();
        assert_eq!(names, [Some("a"), Some("c"), Some("b")]);
    }
}
