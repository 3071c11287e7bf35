// SPDX-License-Identifier: Apache-2.0
//! What a node has to do grows with its own pods.

use super::*;

/// `nodes` nodes, `policies` policies of 3 gateways each, and 3 pods here of 2 policies each.
fn cluster(nodes: u16, policies: u16) -> World {
    let name = |n: u16| format!("node-{n:05}");
    let mut world = world("node-00000", &[]);
    for n in 0..nodes {
        world.nodes.insert(name(n), crate::testing::node(n));
    }
    for n in 0..policies {
        let at = |k: u16| name(1 + (n % 300 * 7 + k) % (nodes - 1));
        let gateways = [at(0), at(1), at(2)];
        let gateways = gateways.each_ref().map(String::as_str);
        let octets = n.to_be_bytes();
        let addresses = match n % 3 {
            0 => Addresses::DefaultRoute,
            1 => Addresses::Interface("eth0".to_owned()),
            _ => Addresses::Held {
                addresses: vec![IpAddr::from([192, 0, octets[0], octets[1]])],
                affinity: Affinity::Namespace,
                interface: None,
            },
        };
        let mut policy = policy(&format!("policy-{n:05}"), &gateways, addresses);
        if n % 2 == 0 {
            policy.selection = Selection::ActiveActive;
        }
        world.policies.push(policy);
    }
    let ids: Vec<_> = (0..4).map(|n| world.policies[n].id.clone()).collect();
    world.pods = (0..3_u16)
        .map(|n| pod(n, &[&ids[n as usize], &ids[n as usize + 1]]))
        .collect();
    world
}

fn size(desired: &Desired) -> [usize; 7] {
    [
        desired.sources.len(),
        desired.sets.values().map(BTreeMap::len).sum(),
        desired.ends.len(),
        desired.gateway.len(),
        desired.seats.len(),
        desired.policies.len(),
        // Not the collisions, which are a matter of luck.
        desired
            .findings
            .iter()
            .filter(|finding| !matches!(finding, Finding::NumberCollision { .. }))
            .count(),
    ]
}

#[test]
fn the_size_depends_on_local_pods_and_not_on_the_cluster() {
    let small = size(&first(&cluster(10, 10)));
    assert_eq!(small, size(&first(&cluster(5_000, 10_000))));
    assert_eq!(small, [6, 9, 3, 0, 1, 4, 7]);
    let mut world = cluster(5_000, 10_000);
    world.pods.truncate(1);
    assert_eq!(size(&first(&world))[..2], [2, 3]);
}
