// SPDX-License-Identifier: Apache-2.0
//! What people are told.

use super::*;

fn told(world: &World, desired: &Desired, sender: Sender, destination: &str) -> String {
    explain(world, desired, sender, ip(destination)).to_string()
}

#[test]
fn every_verdict_is_a_sentence() {
    let mut world = world("w", &["a", "w"]);
    let mut other = policy("six", &["a"], Addresses::OnDevice(ip("192.0.2.6")));
    other.destinations = ["2001::/16".parse().expect("a prefix")].into();
    let mut held_policy = policy("held", &["a", "w"], held(&["192.0.2.1"], Affinity::Policy));
    held_policy.destinations = ["0.0.0.0/0".parse().expect("a prefix")].into();
    world.policies = vec![held_policy, other];
    world.pods = vec![pod(1, &[&id("held")]), pod(2, &[])];
    world.pods[0].undecided = [id("six")].into();
    world.in_cluster = ["10.244.0.0/16".parse().expect("a prefix")].into();
    let desired = first(&world);
    let one = || Sender::Pod(world.pods[0].key.clone());
    let tail = "\nselected by: EgressGatewayPolicy/held\nmay be selected by: \
                EgressGatewayPolicy/six";
    let rule = end_of(&desired, 1).0;
    assert_eq!(
        told(&world, &desired, one(), "8.8.8.8"),
        format!(
            "pod ns-1/pod-1 to 8.8.8.8: by EgressGatewayPolicy/held for 0.0.0.0/0 through rule \
             {rule} to gateway a at 10.0.0.1, as 192.0.2.1{tail}"
        )
    );
    assert_eq!(
        told(&world, &desired, one(), "10.1.1.1"),
        format!(
            "pod ns-1/pod-1 to 10.1.1.1: not sent to a gateway, because EgressGatewayPolicy/held \
             excludes 10.0.0.0/8{tail}"
        )
    );
    assert_eq!(
        told(&world, &desired, one(), "10.244.7.7"),
        format!(
            "pod ns-1/pod-1 to 10.244.7.7: not sent to a gateway, because 10.244.0.0/16 is inside \
             the cluster{tail}"
        )
    );
    assert_eq!(
        told(&world, &desired, one(), "2001::1"),
        format!(
            "pod ns-1/pod-1 to 2001::1: dropped by EgressGatewayPolicy/six for 2001::/16, because \
             the labels of the pod or its namespace are not known{tail}"
        )
    );
    assert_eq!(
        told(&world, &desired, one(), "fd00::1"),
        format!(
            "pod ns-1/pod-1 to fd00::1: not sent to a gateway, because no policy of the pod \
             covers the destination{tail}"
        )
    );
    assert_eq!(
        told(
            &world,
            &desired,
            Sender::Address(ip("10.244.0.2")),
            "8.8.8.8"
        ),
        "10.244.0.2 to 8.8.8.8: not sent to a gateway, because no policy selects the pod\n\
         pod: ns-2/pod-2"
    );
    assert_eq!(
        told(
            &world,
            &desired,
            Sender::Address(ip("10.244.9.9")),
            "8.8.8.8"
        ),
        "10.244.9.9 to 8.8.8.8: this node has no such pod; ask the node it runs on"
    );
    assert!(
        told(&world, &Desired::default(), one(), "8.8.8.8")
            .contains("about to change: EgressGatewayPolicy/held for 0.0.0.0/0")
    );
}

#[test]
fn a_dead_gateway_is_named_by_what_is_wrong() {
    let mut world = world("w", &["a", "w"]);
    world.policies = vec![policy("p", &["a"], Addresses::Interface("eth1".to_owned()))];
    world.pods = vec![pod(1, &[&id("p")])];
    let sender = || Sender::Address(world.pods[0].addresses[0]);
    let text = told(&world, &first(&world), sender(), "8.8.8.8");
    assert!(
        text.contains("to gateway a at 10.0.0.1, which knows its address"),
        "{text}"
    );
    let mut dead = world.clone();
    set_health(&mut dead, "a", false);
    let text = told(&dead, &first(&dead), sender(), "8.8.8.8");
    assert!(
        text.contains(
            "dropped by EgressGatewayPolicy/p for 0.0.0.0/0, because no gateway is healthy"
        ),
        "{text}"
    );
}

#[test]
fn addresses_of_a_rule_are_known_as_far_as_they_are_written() {
    let mut world = world("w", &["a", "w"]);
    let two = held(&["192.0.2.1", "2001:db8::1"], Affinity::Policy);
    world.policies = vec![
        policy("held", &["a"], two),
        policy("theirs", &["a"], Addresses::Interface("eth0".to_owned())),
    ];
    world.pods = vec![pod(1, &[&id("held")]), pod(2, &[&id("theirs")])];
    let desired = first(&world);
    let of = |n| addresses_of(&world, &desired, end_of(&desired, n).0);
    assert_eq!(of(1), [ip("192.0.2.1"), ip("2001:db8::1")].into());
    // Those of an interface are known to its node.
    assert_eq!(of(2), [].into());
    let gateway = World {
        interfaces: world.interfaces.clone(),
        ..seen_from(&world, "a")
    };
    let desired = first(&gateway);
    assert_eq!(desired.gateway.len(), 2);
    for (number, rule) in &desired.gateway {
        let addresses = addresses_of(&gateway, &desired, *number);
        assert_eq!(addresses, rule.addresses().collect());
    }
}
