// SPDX-License-Identifier: Apache-2.0
//! The addresses a node holds, and those it is ready to hold: what BGP peers may be told of.
//!
//! A node that stands by is ready once it has had all connections of the rule, and stays so for as
//! long as it stands by: it loses the link with the holder just when the holder dies, and a way that
//! is withdrawn then is none. One that never had them all is not ready. A fabric that does not heed
//! what tells the two ways apart would send it answers of connections it does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use egress_core::{
    Claim, Claims, Desired, GatewayRule, PolicyId, Previous, RuleNumber, World, decide,
};

/// The addresses of egress this node has to do with, each with the policy it is or was for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Those it holds: of new connections, and those old ones still have.
    pub held: BTreeMap<IpAddr, PolicyId>,
    /// Those another node holds and this one could take over with all their connections.
    pub ready: BTreeMap<IpAddr, PolicyId>,
}

/// How the world learns where a policy's addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Neighbours on the segments of this node are told, and get an answer.
    pub is_on_segments: bool,
    /// BGP peers are told. Whoever has [`Holdings`] does it; here it means that packets for an
    /// address may come to a node that does not hold it.
    pub is_by_bgp: bool,
}

impl Default for Announcement {
    /// On segments alone.
    fn default() -> Self {
        Announcement {
            is_on_segments: true,
            is_by_bgp: false,
        }
    }
}

/// The addresses of rules that Causeway holds, with their policies.
pub(crate) fn held_by<'a>(
    rules: impl Iterator<Item = &'a GatewayRule>,
) -> BTreeMap<IpAddr, PolicyId> {
    let held = rules.filter(|rule| rule.is_held);
    let addresses = held.flat_map(|rule| {
        let policy = &rule.key.policy;
        rule.addresses().map(|address| (address, policy.clone()))
    });
    addresses.collect()
}

/// The rules this node stands by for that it is ready to take over: those of before that it still
/// stands by for, those it has handed over, and those whose copies `is_complete`.
pub(crate) fn ready(
    before: &BTreeSet<RuleNumber>,
    decided_before: &Desired,
    desired: &Desired,
    is_complete: impl Fn(RuleNumber) -> bool,
) -> BTreeSet<RuleNumber> {
    let stands_by = |number: &RuleNumber| {
        // Who is cut off keeps copies and stands by for nobody.
        let seat = desired.seats.get(number);
        seat.is_some_and(|seat| seat.is_standby && !seat.is_holder)
    };
    let was_held = |number: &RuleNumber| {
        let rule = decided_before.gateway.get(number);
        rule.is_some_and(|rule| rule.is_held)
    };
    let numbers = desired.standby.keys().copied();
    numbers
        .filter(stands_by)
        .filter(|number| before.contains(number) || was_held(number) || is_complete(*number))
        .collect()
}

/// What a node that has just started may take to be its own: the rules whose addresses a daemon before
/// this one has left here, as long as nobody is heard to hold them. Otherwise one that is not the first
/// by name would put them down, and take them again once others say that it holds them; and not at all,
/// if they do not speak to it.
pub(crate) fn left_here(
    world: &World,
    claims: &Claims,
    previous: &Previous,
    found: &BTreeSet<IpAddr>,
) -> Claims {
    if found.is_empty() {
        return Claims::new();
    }
    let seats = decide(world, claims, previous).seats;
    let free = seats.keys().filter(|number| !claims.contains_key(number));
    let own = |number: &RuleNumber| {
        let holder = world.node.clone();
        (*number, Claim { holder, term: 0 })
    };
    let mut assumed = claims.clone();
    assumed.extend(free.map(own));
    let rules = decide(world, &assumed, previous).gateway;
    let mut left = assumed;
    left.retain(|number, _| {
        let rule = rules.get(number).filter(|rule| rule.is_held);
        let is_here = rule.is_some_and(|rule| rule.addresses().all(|a| found.contains(&a)));
        is_here && !claims.contains_key(number)
    });
    left
}

#[cfg(test)]
mod tests {
    use egress_core::{
        Addresses, Affinity, Group, Limits, Node, Policy, PolicyKind, Selection, Zones,
    };

    use super::*;

    /// Three gateways, seen from one of them.
    fn world(node: &str, dead: &[&str]) -> World {
        let nodes = ["a", "b", "c"].map(|name| {
            let node = Node {
                is_healthy: !dead.contains(&name),
                is_dead: dead.contains(&name),
                ..Node::default()
            };
            (name.to_owned(), node)
        });
        World {
            node: node.to_owned(),
            nodes: nodes.into(),
            policies: vec![Policy {
                id: PolicyId {
                    kind: PolicyKind::Causeway,
                    name: "bank".to_owned(),
                },
                destinations: ["0.0.0.0/0".parse().unwrap()].into(),
                exclusions: BTreeSet::new(),
                groups: vec![Group {
                    nodes: ["a", "b", "c"].map(str::to_owned).into(),
                    addresses: Addresses::Held {
                        addresses: vec!["203.0.113.10".parse().unwrap()],
                        affinity: Affinity::Policy,
                        interface: None,
                    },
                }],
                selection: Selection::ActiveStandby,
                zones: Zones::Off,
                limits: Limits::default(),
                unanswered: BTreeSet::new(),
            }],
            ..World::default()
        }
    }

    /// What a node decides of a rule that a node holds, unless that is dead.
    fn seen_by(node: &str, holder: &str, dead: &[&str]) -> (RuleNumber, Desired) {
        let world = world(node, dead);
        let first = decide(&world, &Claims::new(), &Previous::default());
        let number = *first.seats.keys().next().unwrap();
        let claim = Claim {
            holder: holder.to_owned(),
            term: 1,
        };
        let claims = [(number, claim)].into();
        let desired = decide(&world, &claims, &Previous::default());
        (number, desired)
    }

    #[test]
    fn a_node_is_ready_from_when_it_has_everything_until_it_stands_by_no_more() {
        let nothing = (BTreeSet::new(), Desired::default());
        let (number, desired) = seen_by("b", "a", &[]);
        let update = |before: &BTreeSet<_>, last: &Desired, now: &Desired, is_complete| {
            ready(before, last, now, |_| is_complete)
        };
        let copying = update(&nothing.0, &nothing.1, &desired, false);
        assert!(copying.is_empty());
        let complete = update(&copying, &desired, &desired, true);
        assert_eq!(complete, [number].into());
        // The link is lost, and what it said with it: the copies are there all the same.
        assert_eq!(update(&complete, &desired, &desired, false), complete);
        // Then it holds the rule itself, and hands it over later.
        let (_, holding) = seen_by("b", "b", &[]);
        assert!(update(&complete, &desired, &holding, false).is_empty());
        assert_eq!(
            update(&BTreeSet::new(), &holding, &desired, false),
            complete
        );
        // Cut off, or drained: not ready, whatever it has.
        let (_, dead) = seen_by("b", "a", &["b"]);
        assert!(update(&complete, &desired, &dead, true).is_empty());
        let (_, third) = seen_by("c", "a", &[]);
        assert!(update(&complete, &desired, &third, true).is_empty());
    }

    #[test]
    fn what_a_daemon_before_has_left_here_is_held_here() {
        let (world, previous) = (world("b", &[]), Previous::default());
        let found = ["203.0.113.10".parse().unwrap()].into();
        let nobody = Claims::new();
        assert!(
            decide(&world, &nobody, &previous).gateway.is_empty(),
            "a is the first"
        );
        let left = left_here(&world, &nobody, &previous, &found);
        let numbers: Vec<&RuleNumber> = left.keys().collect();
        let (number, _) = seen_by("b", "b", &[]);
        assert_eq!(numbers, [&number]);
        assert!(
            decide(&world, &left, &previous)
                .gateway
                .contains_key(&number)
        );
        let other = ["203.0.113.11".parse().unwrap()].into();
        assert!(left_here(&world, &nobody, &previous, &other).is_empty());
        assert!(left_here(&world, &nobody, &previous, &BTreeSet::new()).is_empty());
        // Who is heard to hold it holds it.
        let claim = Claim {
            holder: "c".to_owned(),
            term: 4,
        };
        let claims = [(number, claim)].into();
        assert!(left_here(&world, &claims, &previous, &found).is_empty());
    }

    #[test]
    fn only_what_is_held_is_an_address_of_ours() {
        let (number, desired) = seen_by("a", "a", &[]);
        let mut rule = desired.gateway[&number].clone();
        let address = "203.0.113.10".parse().unwrap();
        let policy = rule.key.policy.clone();
        assert_eq!(held_by([&rule].into_iter()), [(address, policy)].into());
        rule.is_held = false;
        assert!(held_by([&rule].into_iter()).is_empty());
    }
}
