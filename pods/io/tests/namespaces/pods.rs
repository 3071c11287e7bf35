// SPDX-License-Identifier: Apache-2.0
//! Real pods, made through the manager.

use std::fs;
use std::slice::from_ref;
use std::time::Duration;

use crate::support::{LIMIT, Node, Pod, Stream, assert_same, ip, net, ping, tcp_round_trip};
use bpf_loader::DropReason;
use pods_core::{Code, Endpoint};
use router_netlink::{LinkChange, LinkKind, Netlink, Protocol, RouteSpec};
use router_types::{Forwarding, NextHop, RouteKey, TableId};

const BOTH: [&str; 2] = ["10.201.0.0/24", "fd00:201::/64"];

#[test]
fn two_pods_reach_each_other_and_the_node() {
    let node = Node::started(&BOTH);
    let (a, b) = (Pod::new(), Pod::new());
    let (at_a, at_b) = (node.add(&a), node.add(&b));
    assert_eq!(at_a.addresses, [ip("10.201.0.2"), ip("fd00:201::2")]);
    assert_eq!(at_b.addresses, [ip("10.201.0.3"), ip("fd00:201::3")]);
    assert_eq!(at_a.mtu, 1500);
    for address in &at_b.addresses {
        assert!(a.pings(*address, LIMIT), "a pod does not reach {address}");
        tcp_round_trip(&a.netns.netns, &b.netns.netns, *address);
        assert!(
            ping(&node.netns.netns, *address, LIMIT),
            "the node does not reach {address}"
        );
    }
    for address in ["192.0.2.1", "2001:db8::1"] {
        assert!(
            a.pings(ip(address), LIMIT),
            "a pod does not reach the node's {address}"
        );
    }
    assert!(node.traffic(at_a.id).tx_packets > 0);
    let links = node.netns.netlink().links().unwrap();
    let pods = links.iter().filter(|l| pods_io::is_pod_device(l)).count();
    assert_eq!((pods, links.len()), (2, 5));
    node.check(&a).unwrap();
    node.check(&b).unwrap();
}

#[test]
fn a_pod_cannot_use_an_address_that_is_not_its_own() {
    let node = Node::started(&BOTH);
    let (a, b) = (Pod::new(), Pod::new());
    let (at_a, at_b) = (node.add(&a), node.add(&b));
    assert!(a.pings(at_b.addresses[0], LIMIT));
    let mut inside = a.netns.netlink();
    let eth0 = inside.link_by_name("eth0").unwrap().index;
    inside.add_address(eth0, net("10.201.0.99/32")).unwrap();
    inside.delete_address(eth0, net("10.201.0.2/32")).unwrap();
    assert!(!a.pings(at_b.addresses[0], Duration::from_millis(300)));
    let drops = node.traffic(at_a.id).drops;
    assert!(
        drops.iter().any(|d| d.reason == DropReason::SpoofedAddress),
        "{drops:?}"
    );
    let failure = node.check(&a).unwrap_err();
    assert_eq!(failure.code, Code::Mismatch);
    assert!(
        failure
            .details
            .contains("eth0 has no address 10.201.0.2/32"),
        "{failure}"
    );
}

#[test]
fn add_and_del_may_be_repeated() {
    let node = Node::started(&BOTH);
    let before = node.traces();
    let pod = Pod::new();
    let first = node.add(&pod);
    // A new device says a few things of its own accord, which are refused and counted.
    let quiet = |traces: Vec<String>| -> Vec<String> {
        traces
            .into_iter()
            .filter(|t| !t.starts_with("ENDPOINT_DROPS"))
            .collect()
    };
    let with_pod = quiet(node.traces());
    assert_eq!(node.add(&pod), first);
    assert_same(&quiet(node.traces()), &with_pod);
    let other = Pod {
        attachment: pod.attachment.clone(),
        ..Pod::new()
    };
    let failure = node.add_to(&other, &[]).unwrap_err();
    assert_eq!(failure.code, Code::InvalidEnvironment);
    for _ in 0..2 {
        node.del(&pod);
        assert_same(&node.traces(), &before);
    }
    node.del(&Pod::new());
    assert_eq!(node.check(&pod).unwrap_err().code, Code::UnknownContainer);
    // The other container's turn, with the same names.
    node.add(&other);
}

#[test]
fn a_hundred_pods_leave_nothing() {
    let node = Node::started(&BOTH);
    let before = node.traces();
    let pods: Vec<Pod> = (0..100).map(|_| Pod::new()).collect();
    let endpoints: Vec<Endpoint> = pods.iter().map(|p| node.add(p)).collect();
    let mut addresses: Vec<_> = endpoints.iter().flat_map(|e| &e.addresses).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 200);
    assert!(pods[0].pings(endpoints[99].addresses[0], LIMIT));
    assert!(pods[99].pings(endpoints[0].addresses[1], LIMIT));
    for pod in &pods {
        node.del(pod);
    }
    assert_same(&node.traces(), &before);
}

#[test]
fn a_restarted_daemon_takes_over_what_is_there() {
    let mut node = Node::started(&BOTH);
    let (a, b) = (Pod::new(), Pod::new());
    let (at_a, at_b) = (node.add(&a), node.add(&b));
    assert!(a.pings(at_b.addresses[0], LIMIT));
    let traces = node.traces();
    let index = node
        .netns
        .netlink()
        .link_by_name(&at_a.host_ifname)
        .unwrap()
        .index;
    let counted = node.traffic(at_a.id).tx_packets;

    node.stop();
    // Pods need no daemon.
    assert!(a.pings(at_b.addresses[1], LIMIT));
    let report = node.start();
    assert_eq!(
        (report.resync.adopted, report.resync.recreated.len()),
        (2, 0)
    );
    assert_eq!(report.resync.failed, []);
    assert_eq!(
        node.netns
            .netlink()
            .link_by_name(&at_a.host_ifname)
            .unwrap()
            .index,
        index
    );
    assert!(
        node.traffic(at_a.id).tx_packets > counted,
        "the counters started anew"
    );
    assert_eq!(node.add(&a), at_a);
    node.check(&b).unwrap();
    assert!(b.pings(at_a.addresses[0], LIMIT));
    let names = |traces: Vec<String>| -> Vec<String> {
        traces
            .into_iter()
            .filter(|t| t.starts_with("link "))
            .collect()
    };
    assert_same(&names(node.traces()), &names(traces));
    let c = node.add(&Pod::new());
    assert_eq!(c.addresses[0], ip("10.201.0.4"));
}

#[test]
fn an_add_that_a_crash_broke_off_is_taken_back() {
    let mut node = Node::started(&BOTH);
    let before = node.traces();
    let pod = Pod::new();
    node.add(&pod);
    node.stop();
    // The journal as it was before the endpoint was ready.
    let path = node.state_directory.join("endpoints.journal");
    let journal = fs::read_to_string(&path).unwrap();
    assert!(journal.lines().last().unwrap().contains("\"ready\""));
    let cut = journal.trim_end().rfind('\n').unwrap() + 1;
    fs::write(&path, &journal[..cut]).unwrap();
    let report = node.start();
    assert_eq!(report.interrupted, from_ref(&pod.attachment));
    assert_eq!(report.resync.reclaimed, from_ref(&pod.attachment));
    assert_same(&node.traces(), &before);
    node.add(&pod);
    node.check(&pod).unwrap();
}

#[test]
fn what_nobody_claims_is_removed_and_foreign_devices_stay() {
    let mut node = Node::started(&BOTH);
    let pod = Pod::new();
    let endpoint = node.add(&pod);
    node.stop();
    fs::remove_file(node.state_directory.join("endpoints.journal")).unwrap();
    let mut netlink = node.netns.netlink();
    netlink
        .create_link("cw0000000000", LinkKind::Bridge)
        .unwrap();
    let report = node.start();
    assert_eq!(
        report.resync.removed_devices,
        from_ref(&endpoint.host_ifname)
    );
    assert!(
        netlink
            .link_by_name(&endpoint.host_ifname)
            .unwrap_err()
            .is_not_found()
    );
    netlink.link_by_name("cw0000000000").unwrap();
    netlink.link_by_name("fabric").unwrap();
}

#[test]
fn after_damage_a_running_pod_is_read_back_from_its_device() {
    let mut node = Node::started(&BOTH);
    let (lost, kept) = (Pod::new(), Pod::new());
    let lost_endpoint = node.add(&lost);
    let kept_endpoint = node.add(&kept);
    node.stop();
    let path = node.state_directory.join("endpoints.journal");
    let journal = fs::read_to_string(&path).unwrap();
    let damaged: Vec<String> = journal
        .lines()
        .map(|line| {
            let is_lost = line.contains(&lost.attachment.container_id);
            if is_lost {
                line.replace("10.201", "10.202")
            } else {
                line.to_owned()
            }
        })
        .collect();
    fs::write(&path, damaged.join("\n") + "\n").unwrap();
    let report = node.start();
    assert_eq!(report.damage.len(), 2);
    assert_eq!(report.resync.recovered, from_ref(&lost.attachment));
    assert_eq!(
        (report.resync.adopted, report.resync.removed_devices.len()),
        (1, 0)
    );
    node.check(&lost).unwrap();
    assert!(lost.pings(kept_endpoint.addresses[0], LIMIT));
    let other = Pod::new();
    let next = node.add(&other);
    assert_eq!(next.addresses, [ip("10.201.0.4"), ip("fd00:201::4")]);
    // It is in the new journal, with the addresses it had.
    node.stop();
    let report = node.start();
    assert_eq!((report.damage.len(), report.resync.adopted), (0, 3));
    let views = node.wait(node.manager().list()).unwrap();
    let recovered = views
        .iter()
        .find(|v| v.endpoint.attachment == lost.attachment)
        .unwrap();
    assert_eq!(recovered.endpoint.addresses, lost_endpoint.addresses);
    assert_eq!(recovered.endpoint.id, lost_endpoint.id);
    node.del(&lost);
    assert!(
        !lost
            .netns
            .netlink()
            .links()
            .unwrap()
            .iter()
            .any(|l| l.name == "eth0")
    );
}

#[test]
fn after_a_reboot_all_pods_are_gone() {
    let mut node = Node::started(&BOTH);
    let pod = Pod::new();
    let endpoint = node.add(&pod);
    node.stop();
    node.config.boot_id = "another".to_owned();
    let report = node.start();
    assert_eq!(report.dropped_by_reboot, 1);
    // No reboot took the device away here; it is nobody's.
    assert_eq!(report.resync.removed_devices, [endpoint.host_ifname]);
    assert_eq!(node.add(&pod).addresses[0], ip("10.201.0.3"));
}

#[test]
fn gc_and_vanished_namespaces_are_reclaimed() {
    let node = Node::started(&BOTH);
    let before = node.traces();
    let (a, b, c) = (Pod::new(), Pod::new(), Pod::new());
    for pod in [&a, &b, &c] {
        node.add(pod);
    }
    let removed = node.gc(&[&b, &c]);
    assert_eq!(removed, from_ref(&a.attachment));
    node.check(&b).unwrap();
    let gone = b.attachment.clone();
    let device = gone.host_ifname(0);
    drop(b);
    // The kernel takes the device away when it gets to it.
    let mut netlink = node.netns.netlink();
    let deadline = std::time::Instant::now() + LIMIT;
    while netlink.link_by_name(&device).is_ok() {
        assert!(
            std::time::Instant::now() < deadline,
            "the device outlives its namespace"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    let resync = node.wait(node.manager().resync()).unwrap();
    assert_eq!(resync.reclaimed, [gone]);
    node.del(&c);
    assert_same(&node.traces(), &before);
}

#[test]
fn addresses_in_use_are_stepped_over() {
    let node = Node::started(&["10.201.0.0/29"]);
    let mut netlink = node.netns.netlink();
    let fabric = netlink.link_by_name("fabric").unwrap().index;
    netlink.add_address(fabric, net("10.201.0.2/32")).unwrap();
    let hop = NextHop {
        via: None,
        link: Some(fabric),
        weight: 1,
    };
    let key = RouteKey {
        table: TableId::MAIN,
        prefix: net("10.201.0.3/32"),
    };
    let foreign = RouteSpec::new(key, Forwarding::Via(vec![hop]), Protocol::STATIC, 0);
    netlink.add_route(&foreign).unwrap();
    let (a, b) = (Pod::new(), Pod::new());
    let endpoint = node.add(&a);
    assert_eq!(endpoint.addresses, [ip("10.201.0.4")]);
    node.check(&a).unwrap();
    let failure = node.add_to(&b, &["10.201.0.2"]).unwrap_err();
    assert_eq!(failure.code, Code::AddressRefused);
    assert!(failure.message.contains("address of fabric"), "{failure}");
    assert_eq!(
        node.add_to(&b, &["10.201.0.6"]).unwrap().addresses,
        [ip("10.201.0.6")]
    );
    node.add(&Pod::new());
    let failure = node.add_to(&Pod::new(), &[]).unwrap_err();
    assert!(
        matches!(failure.code, Code::Exhausted | Code::AddressRefused),
        "{failure}"
    );
    assert!(
        netlink.lookup_route(ip("10.201.0.3")).unwrap().next_hops[0]
            .next_hop
            .link
            == Some(fabric)
    );
}

#[test]
fn a_pods_address_that_the_node_takes_is_said_until_it_is_given_back() {
    let node = Node::started(&BOTH);
    let pod = Pod::new();
    let endpoint = node.add(&pod);
    let mut netlink = node.netns.netlink();
    let fabric = netlink.link_by_name("fabric").unwrap().index;
    let taken = ipnet::IpNet::from(endpoint.addresses[0]);
    netlink.add_address(fabric, taken).unwrap();
    let resync = node.wait(node.manager().resync()).unwrap();
    let (attachment, problem) = &resync.failed[0];
    assert_eq!(*attachment, endpoint.attachment);
    let address = endpoint.addresses[0];
    let expected = format!("{address} is in use on this node");
    assert!(problem.contains(&expected), "{problem}");
    netlink.delete_address(fabric, taken).unwrap();
    let resync = node.wait(node.manager().resync()).unwrap();
    assert_eq!(resync.failed, []);
    assert!(pod.pings(ip("192.0.2.1"), LIMIT));
}

#[test]
fn exhaustion_is_said_in_numbers_and_in_status() {
    let node = Node::started(&["10.201.0.0/30"]);
    let pod = Pod::new();
    node.add(&pod);
    let failure = node.add_to(&Pod::new(), &[]).unwrap_err();
    assert_eq!(failure.code, Code::Exhausted);
    assert!(
        failure
            .message
            .contains("1 of 1 usable addresses of 10.201.0.0/30"),
        "{failure}"
    );
    let status = node.wait(node.manager().status()).unwrap();
    assert_eq!(status.not_ready.unwrap().code, Code::NotAvailable);
    node.wait(node.manager().set_pod_cidrs(vec![net("10.202.0.0/24")]))
        .unwrap();
    let status = node.wait(node.manager().status()).unwrap();
    assert_eq!((status.not_ready, status.stranded.len()), (None, 1));
    let next = Pod::new();
    assert_eq!(node.add(&next).addresses, [ip("10.202.0.2")]);
    assert!(
        next.pings(ip("10.201.0.2"), LIMIT),
        "pods of the former CIDR go on"
    );
    let overlap = vec![net("10.0.0.0/8"), net("10.1.0.0/16")];
    let failure = node
        .wait(node.manager().set_pod_cidrs(overlap))
        .unwrap_err();
    assert_eq!(failure.code, Code::InvalidConfig);
}

#[test]
fn a_lost_device_is_made_again() {
    let node = Node::started(&BOTH);
    let (a, b) = (Pod::new(), Pod::new());
    let (at_a, at_b) = (node.add(&a), node.add(&b));
    let mut netlink = node.netns.netlink();
    let link = netlink.link_by_name(&at_a.host_ifname).unwrap();
    netlink.delete_link(link.index).unwrap();
    assert_eq!(node.check(&a).unwrap_err().code, Code::Mismatch);
    let resync = node.wait(node.manager().resync()).unwrap();
    assert_eq!(
        (resync.recreated, resync.adopted),
        (vec![a.attachment.clone()], 1)
    );
    node.check(&a).unwrap();
    for address in &at_b.addresses {
        assert!(a.pings(*address, LIMIT));
    }
}

#[test]
fn what_somebody_changed_is_found_and_put_right() {
    let node = Node::started(&BOTH);
    let pod = Pod::new();
    let endpoint = node.add(&pod);
    let mut netlink = node.netns.netlink();
    let link = netlink.link_by_name(&endpoint.host_ifname).unwrap().index;
    let down = LinkChange {
        up: Some(false),
        mtu: Some(1400),
        ..LinkChange::default()
    };
    netlink.change_link(link, &down).unwrap();
    let mut inside = Netlink::open_in(&pod.netns.netns).unwrap();
    let eth0 = inside.link_by_name("eth0").unwrap().index;
    inside
        .delete_neighbour(eth0, pods_core::cni::GATEWAY_V4.into())
        .unwrap();
    let failure = node.check(&pod).unwrap_err();
    let device = &endpoint.host_ifname;
    for expected in [
        format!("{device} is down"),
        format!("{device} has MTU 1400, expected 1500"),
        format!(
            "eth0 has no neighbour entry 169.254.1.1 = {}",
            endpoint.host_mac
        ),
    ] {
        assert!(
            failure.details.contains(&expected),
            "{expected:?} is not in {failure}"
        );
    }
    let resync = node.wait(node.manager().resync()).unwrap();
    assert_eq!((resync.adopted, resync.failed), (1, vec![]));
    let failure = node.check(&pod).unwrap_err();
    assert!(
        !failure.details.contains(device),
        "the host's side is right again: {failure}"
    );
    // The pod's side is the pod's, until the runtime says otherwise.
    node.add(&pod);
    node.check(&pod).unwrap();
    assert!(pod.pings(ip("192.0.2.1"), LIMIT));
    assert!(pod.pings(ip("2001:db8::1"), LIMIT));
}

#[test]
fn a_refused_add_leaves_nothing() {
    let node = Node::started(&BOTH);
    let before = node.traces();
    let pod = Pod::new();
    pod.netns
        .netlink()
        .create_link("eth0", LinkKind::Bridge)
        .unwrap();
    let failure = node.add_to(&pod, &[]).unwrap_err();
    assert_eq!(failure.code, Code::InvalidEnvironment);
    assert!(failure.message.contains("eth0 already"), "{failure}");
    assert_same(&node.traces(), &before);
    let own = node.wait(node.manager().add(
        pod.attachment.clone(),
        "causeway".to_owned(),
        node.netns.path(),
        None,
        Vec::new(),
    ));
    assert!(
        own.unwrap_err()
            .message
            .contains("the node's own namespace")
    );
    let nowhere = node.wait(node.manager().add(
        pod.attachment.clone(),
        "causeway".to_owned(),
        "/run/netns/cwpods-nowhere".into(),
        None,
        Vec::new(),
    ));
    assert_eq!(nowhere.unwrap_err().code, Code::InvalidEnvironment);
    assert_same(&node.traces(), &before);
}

#[test]
fn the_mtu_is_the_fabrics_and_enough_for_ipv6() {
    let node = Node::started(&BOTH);
    let mut netlink = node.netns.netlink();
    let fabric = netlink.link_by_name("fabric").unwrap().index;
    let mut set = |mtu| {
        let change = LinkChange {
            mtu: Some(mtu),
            ..LinkChange::default()
        };
        netlink.change_link(fabric, &change).unwrap();
    };
    set(9000);
    let (a, b) = (Pod::new(), Pod::new());
    assert_eq!(node.add(&a).mtu, 9000);
    assert_eq!(a.netns.netlink().link_by_name("eth0").unwrap().mtu, 9000);
    set(1200);
    let failure = node.add_to(&b, &[]).unwrap_err();
    assert_eq!(failure.code, Code::InvalidConfig);
    node.wait(node.manager().set_pod_cidrs(vec![net("10.201.0.0/24")]))
        .unwrap();
    assert_eq!(node.add(&b).mtu, 1200);
    node.check(&a).unwrap();
    node.check(&b).unwrap();
}

#[test]
fn what_a_pod_does_inside_is_left_alone_by_a_restart() {
    let mut node = Node::started(&BOTH);
    let pod = Pod::new();
    let endpoint = node.add(&pod);
    let index = node
        .netns
        .netlink()
        .link_by_name(&endpoint.host_ifname)
        .unwrap()
        .index;
    let mut inside = pod.netns.netlink();
    let eth0 = inside.link_by_name("eth0").unwrap().index;
    for change in [
        LinkChange {
            up: Some(false),
            ..LinkChange::default()
        },
        LinkChange {
            name: Some("uplink"),
            ..LinkChange::default()
        },
    ] {
        inside.change_link(eth0, &change).unwrap();
    }
    node.stop();
    let report = node.start();
    assert_eq!(
        (
            report.resync.adopted,
            report.resync.recreated,
            report.resync.failed
        ),
        (1, vec![], vec![])
    );
    assert_eq!(
        node.netns
            .netlink()
            .link_by_name(&endpoint.host_ifname)
            .unwrap()
            .index,
        index
    );
    assert_eq!(inside.link_by_name("uplink").unwrap().index, eth0);
    assert!(
        node.check(&pod)
            .unwrap_err()
            .details
            .contains("the pod has no device eth0")
    );
}

#[test]
fn no_packet_is_lost_while_the_manager_is_replaced() {
    const RESTARTS: usize = 3;
    let mut node = Node::started(&BOTH);
    let (a, b) = (Pod::new(), Pod::new());
    node.add(&a);
    let at_b = node.add(&b);
    assert!(a.pings(at_b.addresses[0], LIMIT));
    let stream = Stream::start(&a.netns.netns, &b.netns.netns, at_b.addresses[0]);
    for _ in 0..RESTARTS {
        stream.wait_for(200);
        node.stop();
        let report = node.start();
        assert_eq!((report.resync.adopted, report.resync.failed), (2, vec![]));
    }
    stream.wait_for(200);
    let (sent, received) = stream.finish();
    assert_eq!(sent, received, "{} packets were lost", sent - received);
    assert!(node.traffic(at_b.id).rx_packets >= u64::from(received));
}

#[test]
fn a_renamed_device_gets_its_name_back_and_loses_nothing() {
    let node = Node::started(&BOTH);
    let (a, b) = (Pod::new(), Pod::new());
    let (at_a, at_b) = (node.add(&a), node.add(&b));
    assert!(a.pings(at_b.addresses[0], LIMIT));
    let mut netlink = node.netns.netlink();
    let index = netlink.link_by_name(&at_a.host_ifname).unwrap().index;
    let counted = node.traffic(at_a.id).tx_packets;
    let rename = LinkChange {
        name: Some("lost0"),
        ..LinkChange::default()
    };
    netlink.change_link(index, &rename).unwrap();
    let resync = node.wait(node.manager().resync()).unwrap();
    assert_eq!(
        (resync.adopted, resync.recreated, resync.removed_devices),
        (2, vec![], vec![])
    );
    assert_eq!(
        netlink.link_by_name(&at_a.host_ifname).unwrap().index,
        index
    );
    assert!(node.traffic(at_a.id).tx_packets >= counted);
    node.check(&a).unwrap();
    assert!(a.pings(at_b.addresses[1], LIMIT));
}
