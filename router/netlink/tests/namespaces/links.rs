// SPDX-License-Identifier: Apache-2.0
//! Links, addresses, neighbours, sysctls and namespaces.

use router_netlink::{LinkChange, LinkKind, MacAddress, Netlink, Netns, NewVeth, Sysctl};
use router_types::IpNet;

use crate::support::{Node, is_root};

#[test]
fn a_veth_pair_is_made_across_namespaces_changed_and_deleted() {
    if !is_root() {
        return;
    }
    let (mut host, mut pod) = (Node::new(), Node::new());
    let mac = MacAddress([2, 0, 0, 0, 0, 1]);
    let link = host
        .netlink
        .create_veth(&NewVeth {
            name: "lxc1",
            peer_name: "eth0",
            peer_netns: Some(&pod.netns),
            mtu: Some(1400),
            mac: Some(mac),
            peer_mac: None,
        })
        .unwrap();
    assert_eq!(
        (link.mtu, link.mac, link.kind.as_deref()),
        (1400, Some(mac), Some("veth"))
    );
    assert!(!link.up && link.peer_netns_id.is_some());
    let inside = pod.netlink.link_by_name("eth0").unwrap();
    assert_eq!(
        (link.peer, inside.peer),
        (Some(inside.index), Some(link.index))
    );
    assert_eq!(inside.mtu, 1400);

    let change = LinkChange {
        up: Some(true),
        mtu: Some(1300),
        mac: Some(MacAddress([2, 0, 0, 0, 0, 9])),
        alias: Some("pod default/web"),
        ..LinkChange::default()
    };
    host.netlink.change_link(link.index, &change).unwrap();
    let changed = host.netlink.link_by_index(link.index).unwrap();
    assert!(
        changed.up && !changed.is_usable(),
        "the other end is down: {changed:?}"
    );
    assert_eq!((changed.mtu, changed.mac), (1300, change.mac));
    assert_eq!(changed.alias.as_deref(), Some("pod default/web"));
    pod.netlink
        .change_link(
            inside.index,
            &LinkChange {
                up: Some(true),
                ..LinkChange::default()
            },
        )
        .unwrap();
    assert!(host.netlink.link_by_index(link.index).unwrap().is_usable());

    let rename = LinkChange {
        name: Some("lxc2"),
        up: Some(false),
        ..LinkChange::default()
    };
    host.netlink.change_link(link.index, &rename).unwrap();
    assert_eq!(host.netlink.link_by_name("lxc2").unwrap().index, link.index);
    assert!(
        host.netlink
            .link_by_name("lxc1")
            .unwrap_err()
            .is_not_found()
    );

    // The end in the pod moves home again.
    let home = LinkChange {
        netns: Some(&host.netns),
        ..LinkChange::default()
    };
    pod.netlink.change_link(inside.index, &home).unwrap();
    assert!(host.netlink.link_by_name("eth0").is_ok());
    host.netlink.delete_link(link.index).unwrap();
    assert!(
        host.netlink
            .link_by_name("eth0")
            .unwrap_err()
            .is_not_found()
    );
    assert_eq!(host.netlink.links().unwrap().len(), 1, "only lo is left");
    let gone = host.netlink.delete_link(link.index).unwrap_err();
    assert!(gone.is_not_found(), "{gone}");
}

#[test]
fn a_taken_or_impossible_name_is_an_error_that_says_so() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    node.wire("one", &[]);
    let taken = node
        .netlink
        .create_link("one", LinkKind::Bridge)
        .unwrap_err();
    assert!(taken.is_exists(), "{taken}");
    assert!(
        taken.to_string().starts_with("cannot create link one: "),
        "{taken}"
    );
    for name in ["", "a/b", "..", "sixteen-letters-"] {
        node.netlink.create_link(name, LinkKind::Dummy).unwrap_err();
    }
}

#[test]
fn addresses_come_and_go_once() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    let link = node.wire("d", &[]);
    for text in [
        "192.0.2.1/24",
        "10.1.1.1/32",
        "2001:db8::1/64",
        "2001:db8:1::1/128",
    ] {
        let address: IpNet = text.parse().unwrap();
        for _ in 0..2 {
            node.netlink.add_address(link, address).unwrap();
        }
        let listed = node.netlink.addresses().unwrap();
        let mine: Vec<_> = listed.iter().filter(|a| a.address == address).collect();
        assert_eq!(mine.len(), 1, "{listed:?}");
        assert!(!mine[0].tentative && mine[0].link == link);
        for _ in 0..2 {
            node.netlink.delete_address(link, address).unwrap();
        }
        assert!(
            node.netlink
                .addresses()
                .unwrap()
                .iter()
                .all(|a| a.address != address)
        );
    }
}

#[test]
fn permanent_neighbours_are_set_replaced_and_forgotten() {
    if !is_root() {
        return;
    }
    let (mut node, mut other) = (Node::new(), Node::new());
    let (link, _) = node.cable("n", &mut other, "o");
    for text in ["169.254.1.1", "fe80::1"] {
        let address = text.parse().unwrap();
        for last in [1, 2] {
            let mac = MacAddress([2, 0, 0, 0, 0, last]);
            node.netlink.set_neighbour(link, address, mac).unwrap();
            let listed = node.netlink.neighbours(Some(link)).unwrap();
            let found = listed.iter().find(|n| n.address == address).unwrap();
            assert!(found.permanent);
            assert_eq!(found.mac, Some(mac));
        }
        node.netlink.delete_neighbour(link, address).unwrap();
        node.netlink.delete_neighbour(link, address).unwrap();
    }
}

#[test]
fn sysctls_are_those_of_the_namespace_asked_for() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    node.wire("d.100", &[]);
    let sysctl = Sysctl::of(&node.netns);
    let parts = ["net", "ipv4", "conf", "d.100", "proxy_arp"];
    assert!(sysctl.write(&parts, "1").unwrap());
    assert!(!sysctl.write(&parts, "1").unwrap(), "it has that value");
    assert_eq!(sysctl.read(&parts).unwrap(), "1");
    let missing = Sysctl::current().read(&parts).unwrap_err();
    assert!(missing.to_string().contains("d.100"), "{missing}");
    sysctl.read(&["net", "..", "kernel"]).unwrap_err();
}

#[test]
fn namespaces_have_names_identities_and_ends() {
    if !is_root() {
        return;
    }
    let name = format!("cw-netlink-{}", std::process::id());
    let netns = Netns::create_named(&name).unwrap();
    assert!(Netns::create_named(&name).is_err(), "the name is taken");
    let again = Netns::named(&name).unwrap();
    assert_eq!(again.id().unwrap(), netns.id().unwrap());
    assert_ne!(Netns::current().unwrap().id().unwrap(), netns.id().unwrap());
    let inside = netns
        .run(|| Netns::current().unwrap().id().unwrap())
        .unwrap();
    assert_eq!(inside, netns.id().unwrap());
    assert_eq!(Netlink::open_in(&netns).unwrap().links().unwrap().len(), 1);
    Netns::delete_named(&name).unwrap();
    Netns::named(&name).unwrap_err();
    // The handle still works; only the name is gone.
    netns.run(|| ()).unwrap();

    let own = Netns::of_pid(std::process::id()).unwrap();
    assert_eq!(own.id().unwrap(), Netns::current().unwrap().id().unwrap());
    Netns::open("/etc/hostname").unwrap_err();
    for bad in ["", "..", "a/b"] {
        Netns::create_named(bad).unwrap_err();
    }
}
