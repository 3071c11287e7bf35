// SPDX-License-Identifier: Apache-2.0
//! Devices of the daemon's own: tunnels and those that hold addresses.

use std::process::Command;

use router_netlink::{
    AddressOptions, Done, LinkChange, LinkKind, MacAddress, NeighbourProxy, Netlink, NewHolder,
    NewTunnel, Problem, Protocol, TunnelKind, TunnelOptions,
};
use router_types::IpNet;

use crate::support::{Node, down, is_root};

const TUNNEL: NewTunnel<'static> = NewTunnel {
    name: "tun0",
    alias: "ours",
    kind: TunnelKind::Vxlan,
    port: 4789,
    mac: MacAddress([2, 0, 0, 0, 0, 7]),
    mtu: 1450,
};

fn ensure(netlink: &mut Netlink, wanted: &NewTunnel<'_>) -> Done {
    let ensured = netlink.ensure_tunnel(wanted).unwrap();
    netlink.set_tunnel_up(ensured.link.index, wanted).unwrap();
    let link = netlink.link_by_index(ensured.link.index).unwrap();
    assert_eq!(
        (link.mtu, link.mac, link.alias.as_deref(), link.up),
        (wanted.mtu, Some(wanted.mac), Some(wanted.alias), true)
    );
    assert_eq!(
        link.tunnel,
        Some(TunnelOptions {
            kind: wanted.kind,
            port: wanted.port,
            external: true,
            learning: false,
            zero_checksum6_received: true,
        })
    );
    ensured.done
}

#[test]
fn a_tunnel_is_made_once_and_changed_where_it_differs() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    assert_eq!(ensure(&mut node.netlink, &TUNNEL), Done::Created);
    let seen = &node.ip("-d link show tun0")[0]["linkinfo"];
    assert_eq!(seen["info_kind"], "vxlan");
    let data = &seen["info_data"];
    assert_eq!(
        (&data["external"], &data["port"]),
        (&true.into(), &4789.into())
    );
    assert_eq!(data["learning"], false);
    assert_eq!(data["udp_zero_csum6_rx"], true);
    let index = node.netlink.link_by_name("tun0").unwrap().index;
    assert_eq!(ensure(&mut node.netlink, &TUNNEL), Done::Nothing);

    let other = NewTunnel {
        mtu: 1400,
        mac: MacAddress([2, 0, 0, 0, 0, 8]),
        ..TUNNEL
    };
    assert_eq!(ensure(&mut node.netlink, &other), Done::Changed);
    let link = node.netlink.link_by_name("tun0").unwrap();
    assert_eq!(link.index, index, "what can be changed is changed in place");
    let other = NewTunnel {
        port: 4790,
        ..other
    };
    assert_eq!(ensure(&mut node.netlink, &other), Done::Remade);

    assert!(!node.netlink.delete_own_link("tun0", "theirs").unwrap());
    assert!(node.netlink.delete_own_link("tun0", "ours").unwrap());
    assert!(!node.netlink.delete_own_link("tun0", "ours").unwrap());
}

/// Whether this kernel has Geneve, by another tool than ours.
fn has_geneve(node: &Node) -> bool {
    let add = "link add probe type geneve id 1 remote 192.0.2.1";
    let run = || Command::new("ip").args(add.split(' ')).output();
    let output = node.netns.run(run).unwrap().unwrap();
    if output.status.success() {
        node.ip_do("link del probe");
    }
    output.status.success()
}

#[test]
fn a_tunnel_that_speaks_otherwise_is_made_again_or_what_lacks_is_said() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    ensure(&mut node.netlink, &TUNNEL);
    let geneve = NewTunnel {
        kind: TunnelKind::Geneve,
        port: 6081,
        ..TUNNEL
    };
    if has_geneve(&node) {
        assert_eq!(ensure(&mut node.netlink, &geneve), Done::Remade);
        let seen = &node.ip("-d link show tun0")[0]["linkinfo"];
        assert_eq!(seen["info_kind"], "geneve");
        let data = &seen["info_data"];
        assert_eq!(
            (&data["external"], &data["port"]),
            (&true.into(), &6081.into())
        );
        assert_eq!(data["udp_zero_csum6_rx"], true);
        assert_eq!(ensure(&mut node.netlink, &geneve), Done::Nothing);
        // Who has the port is said, whatever the kernel calls it.
        let taken_by = |netlink: &mut Netlink, name| {
            let second = NewTunnel { name, ..geneve };
            let error = netlink.ensure_tunnel(&second).unwrap_err();
            match error.problem() {
                Problem::PortTaken { device } => device.clone(),
                other => panic!("{other}"),
            }
        };
        let holder = taken_by(&mut node.netlink, "tun1");
        assert_eq!(holder.as_deref(), Some("tun0"));
        assert_eq!(ensure(&mut node.netlink, &TUNNEL), Done::Remade);
        node.ip_do("link add theirs type geneve id 1 remote 192.0.2.1 dstport 6081");
        let holder = taken_by(&mut node.netlink, "tun1");
        assert_eq!(holder.as_deref(), Some("theirs"));
    } else {
        let error = node.netlink.ensure_tunnel(&geneve).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot create tunnel tun0: this kernel has no driver for Geneve (EOPNOTSUPP); try \
             `modprobe geneve`, use a kernel that has it, or configure another tunnel protocol on \
             every node"
        );
        // What spoke otherwise is gone all the same, and comes back when it is wished for.
        assert!(node.netlink.link_by_name("tun0").is_err());
        assert_eq!(ensure(&mut node.netlink, &TUNNEL), Done::Created);
    }
}

#[test]
fn a_tunnel_left_half_made_is_ours() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    node.netlink.create_tunnel(&TUNNEL).unwrap();
    assert_eq!(ensure(&mut node.netlink, &TUNNEL), Done::Changed);
}

#[test]
fn a_device_of_somebody_else_is_refused() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    // Another alias, then the right one on another kind, then none on a device in use.
    let theirs = NewTunnel {
        alias: "theirs",
        ..TUNNEL
    };
    ensure(&mut node.netlink, &theirs);
    let error = node.netlink.ensure_tunnel(&TUNNEL).unwrap_err();
    assert!(error.is_foreign());
    assert_eq!(
        error.to_string(),
        "cannot use device tun0: there is one of that name already that is not ours (type vxlan, \
         alias \"theirs\"); remove it with `ip link delete` or rename it"
    );
    node.netlink.delete_own_link("tun0", "theirs").unwrap();
    let bridge = node.netlink.create_link("tun0", LinkKind::Bridge).unwrap();
    let alias = LinkChange {
        alias: Some("ours"),
        ..LinkChange::default()
    };
    node.netlink.change_link(bridge.index, &alias).unwrap();
    assert!(
        node.netlink
            .ensure_tunnel(&TUNNEL)
            .unwrap_err()
            .is_foreign()
    );

    node.wire("hold0", &[]);
    let holder = NewHolder {
        name: "hold0",
        alias: "ours",
    };
    let error = node.netlink.ensure_holder(&holder).unwrap_err();
    assert!(
        error.to_string().contains("(type veth, no alias)"),
        "{error}"
    );
}

#[test]
fn a_port_that_is_taken_is_said_with_who_has_it() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    let taken_by = |netlink: &mut Netlink| {
        let result = netlink
            .ensure_tunnel(&TUNNEL)
            .and_then(|e| netlink.set_tunnel_up(e.link.index, &TUNNEL));
        match result.unwrap_err().problem() {
            Problem::PortTaken { device } => device.clone(),
            other => panic!("{other}"),
        }
    };
    // Another device of the same mode cannot be made; one of another mode keeps ours from going up.
    node.ip_do("link add flannel type vxlan external dstport 4789 nolearning udp6zerocsumrx");
    assert_eq!(taken_by(&mut node.netlink).as_deref(), Some("flannel"));
    node.ip_do("link del flannel");
    node.ip_do("link add flannel type vxlan id 1 dstport 4789");
    node.ip_do("link set flannel up");
    assert_eq!(taken_by(&mut node.netlink).as_deref(), Some("flannel"));
    node.ip_do("link del flannel");

    let socket = node
        .netns
        .run(|| std::net::UdpSocket::bind("0.0.0.0:4789").unwrap())
        .unwrap();
    assert_eq!(taken_by(&mut node.netlink), None);
    drop(socket);
    ensure(&mut node.netlink, &TUNNEL);
}

#[test]
fn a_holder_is_made_once() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    let wanted = NewHolder {
        name: "hold0",
        alias: "ours",
    };
    let made = node.netlink.ensure_holder(&wanted).unwrap();
    assert_eq!(made.done, Done::Created);
    assert_eq!(made.link.alias.as_deref(), Some("ours"));
    let again = node.netlink.ensure_holder(&wanted).unwrap();
    assert_eq!(
        (again.done, again.link.index),
        (Done::Nothing, made.link.index)
    );
}

#[test]
fn an_address_is_put_on_without_route_and_not_chosen_as_source() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    let link = node.wire("w", &["192.0.2.1/24", "2001:db8::1/64"]);
    let options = AddressOptions {
        prefix_route: false,
        duplicate_detection: false,
        chosen_as_source: false,
    };
    for text in ["198.51.100.7/32", "2001:db8:1::7/128", "2001:db8:2::7/64"] {
        let address: IpNet = text.parse().unwrap();
        for _ in 0..2 {
            node.netlink
                .add_address_with(link, address, options)
                .unwrap();
        }
        let seen = node.ip("addr show dev w");
        let list = seen[0]["addr_info"].as_array().unwrap();
        let local = address.addr().to_string();
        let one = list.iter().find(|a| a["local"] == *local).unwrap();
        assert_eq!(one["noprefixroute"], true, "{one}");
        match address {
            IpNet::V4(_) => assert_eq!(one["scope"], "link"),
            IpNet::V6(_) => {
                assert_eq!(
                    (&one["nodad"], &one["deprecated"]),
                    (&true.into(), &true.into())
                );
            }
        }
        let main = node.ip("-6 route show table main");
        assert!(
            !main
                .iter()
                .any(|r| r["dst"].as_str().unwrap().starts_with("2001:db8:2:")),
            "{main:?}"
        );
        node.netlink.delete_address(link, address).unwrap();
        let left = node.netlink.addresses().unwrap();
        assert!(left.iter().all(|a| a.address != address));
    }

    // Detection runs where it is asked for, on a device with a carrier.
    let careful = AddressOptions {
        duplicate_detection: true,
        ..AddressOptions::default()
    };
    let address: IpNet = "2001:db8:3::7/128".parse().unwrap();
    node.netlink
        .add_address_with(link, address, careful)
        .unwrap();
    let listed = node.netlink.addresses().unwrap();
    assert!(listed.iter().any(|a| a.address == address && a.tentative));
    down(&mut node.netlink, link);
}

#[test]
fn proxies_are_set_listed_with_their_writer_and_taken_away() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    let link = node.wire("w", &[]);
    for text in ["192.0.2.7", "2001:db8::7"] {
        let proxy = NeighbourProxy {
            link,
            address: text.parse().unwrap(),
            protocol: Protocol(203),
        };
        for _ in 0..2 {
            node.netlink.set_proxy(&proxy).unwrap();
            assert_eq!(node.netlink.proxies().unwrap(), [proxy]);
        }
        assert!(node.ip("neigh show proxy")[0]["dst"] == text);
        let neighbours = node.netlink.neighbours(Some(link)).unwrap();
        assert!(neighbours.iter().all(|n| n.address != proxy.address));
        for _ in 0..2 {
            node.netlink.delete_proxy(&proxy).unwrap();
            assert_eq!(node.netlink.proxies().unwrap(), []);
        }
    }
}
