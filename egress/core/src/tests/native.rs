// SPDX-License-Identifier: Apache-2.0
//! Gateways that are reached without a tunnel.

use super::*;
use crate::testing::cilium;

const NODES: [&str; 4] = ["a", "b", "c", "w"];

/// Node `w` among neighbours, with these pods that policies select.
fn native(policies: Vec<Policy>, pods: u16) -> World {
    let mut world = world("w", &NODES);
    let ids: Vec<PolicyId> = policies.iter().map(|policy| policy.id.clone()).collect();
    let ids: Vec<&PolicyId> = ids.iter().collect();
    world.pods = (1..=pods).map(|n| pod(n, &ids)).collect();
    world.policies = policies;
    world.transport = Transport::Native;
    let net = |text: &str| text.parse().expect("a prefix");
    world.pod_prefixes = [net("10.244.0.0/16"), net("fd44::/64")].into();
    let nodes = world.nodes.iter().filter(|(name, _)| *name != "w");
    let addresses = nodes.flat_map(|(_, node)| node.addresses.clone());
    world.on_link = addresses
        .map(|address| {
            let on_link = OnLink {
                link: 2,
                mtu: 1_500,
            };
            (address, on_link)
        })
        .collect();
    world
}

/// The same cluster as a gateway sees it, which knows the pods by their objects.
fn at(world: &World, gateway: &str) -> World {
    let remote = world.pods.iter().map(|pod| RemotePod {
        pod: pod.clone(),
        node: world.node.clone(),
    });
    let mut there = seen_from(world, gateway);
    there.remote_pods = remote.collect();
    let on_link = OnLink {
        link: 7,
        mtu: 1_500,
    };
    let node = &world.nodes[&world.node];
    there.on_link = node.addresses.iter().map(|at| (*at, on_link)).collect();
    there
}

/// What becomes of a packet at a gateway.
fn way_there(desired: &Desired, source: IpAddr, destination: IpAddr) -> Option<Way> {
    let set = desired.sets.get(&desired.remote.get(&source)?.set)?;
    set.iter()
        .filter(|(prefix, _)| prefix.contains(&destination))
        .max_by_key(|(prefix, _)| prefix.prefix_len())
        .map(|(_, way)| *way)
}

/// The neighbour the n-th pod's packets to a destination go to.
fn neighbour(desired: &Desired, n: u16, destination: &str) -> Option<IpAddr> {
    let to = ip(destination);
    let addresses = pod(n, &[]).addresses;
    let source = *addresses.iter().find(|a| a.is_ipv4() == to.is_ipv4())?;
    match way(desired, source, to)? {
        Way::Through(rule) => desired.neighbour(&desired.sources[&source], rule, to),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_gateway_that_is_a_neighbour_gets_the_packets_of_known_pods_as_they_are() {
    let policy = cilium("p", &["a"], Addresses::DefaultRoute);
    let mut world = native(vec![policy], 2);
    world.pods[1].is_known_to_all = false;
    let desired = first(&world);
    assert_eq!(neighbour(&desired, 1, "8.8.8.8"), Some(ip("10.0.0.1")));
    assert_eq!(neighbour(&desired, 1, "2001:db8::8"), Some(ip("fd00::1")));
    assert_eq!(neighbour(&desired, 2, "8.8.8.8"), None, "its node knows it");
    assert_eq!(end_of(&desired, 2).1.end, End::Remote(ip("10.0.0.1")));

    // A router in between, for one family.
    let mut routed = world.clone();
    routed.on_link.remove(&ip("10.0.0.1"));
    let desired = first(&routed);
    assert_eq!(neighbour(&desired, 1, "8.8.8.8"), None);
    assert_eq!(neighbour(&desired, 1, "2001:db8::8"), Some(ip("fd00::1")));

    for transport in [Transport::Either, Transport::Tunnel] {
        let other = World {
            transport,
            ..world.clone()
        };
        assert_eq!(neighbour(&first(&other), 1, "8.8.8.8"), None);
        let taken = first(&at(&other, "a")).remote.len();
        assert_eq!(taken > 0, transport == Transport::Either);
    }
    let explained = explain(
        &world,
        &first(&world),
        Sender::Pod(pod(1, &[]).key),
        ip("8.8.8.8"),
    );
    let text = explained.to_string();
    assert!(
        text.contains("to gateway a at 10.0.0.1 without a tunnel"),
        "{text}"
    );
}

#[test]
fn what_only_finishes_takes_the_tunnel_which_says_its_rule() {
    let mut world = native(vec![policy("p", &["a", "b"], Addresses::DefaultRoute)], 1);
    let before = first(&world);
    let (old, end) = end_of(&before, 1);
    assert_eq!((end.gateway.as_str(), end.neighbours.len()), ("a", 2));
    set_health(&mut world, "a", false);
    let previous = Previous {
        desired: before,
        live: [old].into(),
    };
    let after = decide(&world, &Claims::new(), &previous);
    assert_eq!(end_of(&after, 1).1.gateway, "b");
    assert_eq!(neighbour(&after, 1, "8.8.8.8"), Some(ip("10.0.0.2")));
    let draining = &after.ends[&old];
    assert!(matches!(draining.life, Life::Draining { .. }));
    assert!(draining.neighbours.is_empty());
}

#[test]
fn the_gateway_finds_the_rule_the_pods_node_has_chosen() {
    let addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"];
    let all: BTreeSet<&str> = ["a", "b", "c"].into();
    let mut met = BTreeSet::new();
    for selection in [
        Selection::FirstByName,
        Selection::ByPodUid,
        Selection::ActiveStandby,
        Selection::ActiveActive,
    ] {
        for kind in [
            Addresses::DefaultRoute,
            held(&addresses, Affinity::Policy),
            held(&addresses, Affinity::Namespace),
            held(&addresses, Affinity::Pod),
        ] {
            let mut policy = policy("p", &["a", "b", "c"], kind.clone());
            policy.selection = selection;
            let second = match &kind {
                Addresses::Held { .. } => held(&["192.0.2.9", "2001:db8::9"], Affinity::Policy),
                other => other.clone(),
            };
            policy.groups.push(group(&["b", "c"], second));
            let world = native(vec![policy], 40);
            // Whoever holds what: each rule somebody else.
            let mut claims = Claims::new();
            for ((number, seat), n) in first(&world).seats.iter().zip(0..) {
                let nodes: &[&str] = match seat.key.group {
                    0 => &["c", "a", "b"],
                    _ => &["c", "b"],
                };
                claims.insert(*number, claim(nodes[n % nodes.len()], 1));
            }
            let here = decide(&world, &claims, &Previous::default());
            let there: BTreeMap<&str, Desired> = all
                .iter()
                .map(|name| {
                    // Each knows of its own claims only, and finds the others sick.
                    let mut seen = at(&world, name);
                    let others = all.iter().filter(|other| *other != name);
                    others.for_each(|other| set_health(&mut seen, other, false));
                    let own = claims.iter().filter(|(_, claim)| claim.holder == *name);
                    let own = own.map(|(rule, claim)| (*rule, claim.clone())).collect();
                    (*name, decide(&seen, &own, &Previous::default()))
                })
                .collect();
            for pod in &world.pods {
                for (source, to) in pod.addresses.iter().zip(["8.8.8.8", "2001:db8:8::8"]) {
                    let Some(Way::Through(rule)) = way(&here, *source, ip(to)) else {
                        continue;
                    };
                    let gateway = here.ends[&rule].gateway.as_str();
                    let found = way_there(&there[gateway], *source, ip(to));
                    assert_eq!(
                        found,
                        Some(Way::Through(rule)),
                        "{selection:?} {kind:?} {source} by {gateway}"
                    );
                    assert_eq!(there[gateway].remote[source].link, 7);
                    met.insert(gateway.to_owned());
                }
            }
        }
    }
    assert_eq!(met, names(&["a", "b", "c"]));
}

#[test]
fn a_gateway_refuses_what_is_for_another_one_and_knows_no_other_pods() {
    let mut far = policy("far", &["b"], Addresses::DefaultRoute);
    far.destinations = ["203.0.113.0/24".parse().expect("a prefix")].into();
    far.exclusions.clear();
    let near = policy("near", &["a"], Addresses::DefaultRoute);
    let mut world = native(vec![near, far], 2);
    world.pods[1].policies = [id("far")].into();
    let there = first(&at(&world, "a"));
    let source = pod(1, &[]).addresses[0];
    assert!(matches!(
        way_there(&there, source, ip("8.8.8.8")),
        Some(Way::Through(_))
    ));
    // The longer prefix is another gateway's.
    assert_eq!(
        way_there(&there, source, ip("203.0.113.9")),
        Some(Way::Refused(Refusal::NoGateway))
    );
    assert_eq!(
        way_there(&there, source, ip("10.99.0.1")),
        Some(Way::Excluded)
    );
    let other = pod(2, &[]).addresses[0];
    assert!(!there.remote.contains_key(&other), "nothing of it is here");
    // A node that is not seen on the link can be told from nobody.
    let mut routed = at(&world, "a");
    routed.on_link.clear();
    assert!(first(&routed).remote.is_empty());
}
