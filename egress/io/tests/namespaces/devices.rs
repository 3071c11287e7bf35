// SPDX-License-Identifier: Apache-2.0
//! The devices, over changes of mind, of hands and of daemons.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bpf_abi::nat::TUNNEL_MAC;
use egress_io::devices::{
    Change, Failure, HOLDER_DEVICE, PROXY_PROTOCOL, TUNNEL_DEVICE, TunnelWish, Wish, remove_all,
};
use router_netlink::{
    Done, LinkKind, MacAddress, NeighbourProxy, Netlink, Protocol, RouteFilter, RouteKind,
    RouteSpec, Sysctl, TunnelKind,
};
use router_types::{Forwarding, RouteKey, TableId};

use crate::support::{Node, cable, eventually, is_root, up};

const TUNNEL: TunnelWish = TunnelWish {
    may_go_up: true,
    kind: TunnelKind::Vxlan,
    port: 4789,
    mtu: 1430,
};

fn wish(held: &[&str]) -> Wish {
    Wish {
        tunnel: Some(TUNNEL),
        held: held.iter().map(|text| text.parse().unwrap()).collect(),
        ..Wish::default()
    }
}

/// The addresses on the device of held addresses.
fn on_holder(node: &mut Node) -> BTreeSet<IpAddr> {
    let Ok(link) = node.netlink.link_by_name(HOLDER_DEVICE) else {
        return BTreeSet::new();
    };
    let listed = node.netlink.addresses().unwrap();
    let own = listed.into_iter().filter(|a| a.link == link.index);
    own.map(|a| {
        assert!(!a.tentative && a.address.prefix_len() == a.address.max_prefix_len());
        a.address.addr()
    })
    .collect()
}

/// What the kernel does with a packet for an address; nothing where it knows no way.
fn way(node: &mut Node, address: IpAddr) -> Option<RouteKind> {
    if let Ok(route) = node.netlink.lookup_route(address) {
        return Some(route.kind);
    }
    // For one that drops it answers with an error, too.
    let routes = node.netlink.routes(RouteFilter::default()).unwrap();
    let route = routes.iter().find(|r| r.key.prefix == address.into())?;
    Some(route.kind)
}

#[test]
fn what_is_as_wished_is_not_touched() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    let wish = wish(&["198.51.100.7", "198.51.100.8", "2001:db8:e::7"]);
    let first = node.sync(&wish);
    assert!(first.failures.is_empty(), "{first:?}");
    assert!(
        first
            .changes
            .contains(&Change::Device(TUNNEL_DEVICE, Done::Created))
    );
    assert_eq!(on_holder(&mut node), wish.held);
    let tunnel = node.netlink.link_by_name(TUNNEL_DEVICE).unwrap();
    assert_eq!(
        (tunnel.mac, tunnel.mtu),
        (Some(MacAddress(TUNNEL_MAC)), 1430)
    );
    assert!(tunnel.up);
    assert_eq!(first.tunnel, Some(tunnel.index));
    let sysctl = Sysctl::of(&node.netns);
    for (group, setting, value) in [
        ("ipv4", "rp_filter", "0"),
        ("ipv4", "accept_local", "1"),
        ("ipv4", "forwarding", "1"),
        ("ipv6", "forwarding", "1"),
        ("ipv6", "addr_gen_mode", "1"),
    ] {
        let parts = ["net", group, "conf", TUNNEL_DEVICE, setting];
        assert_eq!(sysctl.read(&parts).unwrap(), value, "{parts:?}");
    }

    // A new daemon finds all of it.
    let second = node.sync(&wish);
    assert_eq!((second.tunnel, second.holder), (first.tunnel, first.holder));
    assert!(
        second.changes.is_empty() && second.failures.is_empty(),
        "{second:?}"
    );
}

#[test]
fn what_changed_by_hand_comes_back_and_what_was_added_goes() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    let wish = wish(&["198.51.100.7", "2001:db8:e::7"]);
    node.sync(&wish);
    node.ip(&format!("addr del 198.51.100.7/32 dev {HOLDER_DEVICE}"));
    node.ip(&format!("addr add 198.51.100.99/32 dev {HOLDER_DEVICE}"));
    node.ip(&format!("link set {TUNNEL_DEVICE} down"));
    let report = node.sync(&wish);
    assert_eq!(on_holder(&mut node), wish.held);
    assert_eq!(
        report.changes,
        [
            Change::Up(TUNNEL_DEVICE),
            Change::Taken("198.51.100.99/32".parse().unwrap()),
            Change::Added("198.51.100.7".parse().unwrap()),
        ]
    );
    node.ip(&format!("link del {HOLDER_DEVICE}"));
    node.ip(&format!("link del {TUNNEL_DEVICE}"));
    node.sync(&wish);
    assert_eq!(on_holder(&mut node), wish.held);
    assert!(node.netlink.link_by_name(TUNNEL_DEVICE).unwrap().up);
}

#[test]
fn another_wish_changes_what_differs_and_no_wish_removes_all() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    let first = node.sync(&wish(&["198.51.100.7", "198.51.100.8"]));
    let mut other = wish(&["198.51.100.8", "2001:db8:e::9"]);
    other.tunnel = Some(TunnelWish {
        port: 4790,
        mtu: 8930,
        ..TUNNEL
    });
    let second = node.sync(&other);
    assert!(second.failures.is_empty(), "{second:?}");
    assert_eq!(second.holder, first.holder);
    assert!(
        second
            .changes
            .contains(&Change::Device(TUNNEL_DEVICE, Done::Remade))
    );
    assert_eq!(on_holder(&mut node), other.held);

    let gone = node
        .netns
        .run(|| remove_all(&mut Netlink::open().unwrap()))
        .unwrap();
    assert_eq!(
        gone.changes,
        [
            Change::Removed(TUNNEL_DEVICE),
            Change::Removed(HOLDER_DEVICE)
        ]
    );
    assert_eq!(node.netlink.links().unwrap().len(), 1, "only lo is left");
    assert!(node.sync(&Wish::default()).changes.is_empty());
}

#[test]
fn a_tunnel_the_kernel_cannot_make_is_told_and_the_rest_is_done() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    let mut wish = wish(&["198.51.100.7"]);
    node.sync(&wish);
    wish.tunnel = Some(TunnelWish {
        kind: TunnelKind::Geneve,
        port: 6081,
        ..TUNNEL
    });
    wish.held.insert("198.51.100.8".parse().unwrap());
    let report = node.sync(&wish);
    assert_eq!(on_holder(&mut node), wish.held);
    let Some(problem) = &report.tunnel_problem else {
        // A kernel that can: the same device, speaking otherwise, and the next daemon finds it so.
        assert!(report.failures.is_empty(), "{report:?}");
        let remade = Change::Device(TUNNEL_DEVICE, Done::Remade);
        assert!(report.changes.contains(&remade), "{report:?}");
        let link = node.netlink.link_by_name(TUNNEL_DEVICE).unwrap();
        assert_eq!(link.kind.as_deref(), Some("geneve"));
        assert!(link.up && node.sync(&wish).changes.is_empty());
        return;
    };
    assert!(
        problem.contains("this kernel has no driver for Geneve"),
        "{problem}"
    );
    assert_eq!((report.tunnel, report.failures.len()), (None, 1));
    // Nothing is left of the one that speaks otherwise, and it comes back when it is wished for.
    assert!(node.netlink.link_by_name(TUNNEL_DEVICE).is_err());
    wish.tunnel = Some(TUNNEL);
    let report = node.sync(&wish);
    assert_eq!(report.tunnel_problem, None);
    assert!(node.netlink.link_by_name(TUNNEL_DEVICE).unwrap().up);
}

#[test]
fn devices_of_somebody_else_are_refused_and_the_rest_is_done() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    let theirs = node
        .netlink
        .create_link(TUNNEL_DEVICE, LinkKind::Bridge)
        .unwrap();
    up(&mut node.netlink, theirs.index);
    let wish = wish(&["198.51.100.7"]);
    let report = node.sync(&wish);
    let [failure] = &report.failures[..] else {
        panic!("{report:?}");
    };
    assert_eq!(
        failure.to_string(),
        "cannot use device cw-egress: there is one of that name already that is not ours (type \
         bridge, no alias); remove it with `ip link delete` or rename it"
    );
    assert_eq!(report.tunnel, None);
    assert_eq!(on_holder(&mut node), wish.held);
    // Nor is it deleted.
    assert!(node.sync(&Wish::default()).failures.is_empty());
    assert_eq!(
        node.netlink.link_by_name(TUNNEL_DEVICE).unwrap().index,
        theirs.index
    );
}

#[test]
fn a_daemon_that_died_half_way_is_finished_by_the_next() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    let holder = node
        .netlink
        .create_link(HOLDER_DEVICE, LinkKind::Bridge)
        .unwrap();
    let wish = wish(&["198.51.100.7"]);
    let report = node.sync(&wish);
    assert!(report.failures.is_empty(), "{report:?}");
    assert_eq!(report.holder, Some(holder.index));
    assert_eq!(on_holder(&mut node), wish.held);
}

#[test]
fn proxies_follow_the_wish_and_those_of_others_stay() {
    if !is_root() {
        return;
    }
    let (mut node, mut other) = (Node::new(), Node::new());
    let (link, _) = cable((&mut node, "seg"), (&mut other, "seg"));
    let theirs = NeighbourProxy {
        link,
        address: "2001:db8:e::1".parse().unwrap(),
        protocol: Protocol::BOOT,
    };
    node.netlink.set_proxy(&theirs).unwrap();
    let mut wish = wish(&["198.51.100.7", "2001:db8:e::7", "2001:db8:e::8"]);
    wish.answer_on.insert(link);
    wish.answered = wish.held.clone();
    let proxies = |node: &mut Node| -> Vec<(IpAddr, Protocol)> {
        let mut list = node.netlink.proxies().unwrap();
        list.sort();
        list.into_iter().map(|p| (p.address, p.protocol)).collect()
    };
    let ours = |text: &str| (text.parse().unwrap(), PROXY_PROTOCOL);
    assert!(node.sync(&wish).failures.is_empty());
    assert_eq!(
        proxies(&mut node),
        [
            (theirs.address, Protocol::BOOT),
            ours("2001:db8:e::7"),
            ours("2001:db8:e::8")
        ]
    );
    let again = node.sync(&wish);
    assert!(again.changes.is_empty(), "{again:?}");
    // One that is announced by BGP alone is held and not answered for.
    wish.answered.remove(&"2001:db8:e::8".parse().unwrap());
    node.sync(&wish);
    assert_eq!(
        proxies(&mut node),
        [(theirs.address, Protocol::BOOT), ours("2001:db8:e::7")]
    );
    wish.answer_on.clear();
    node.sync(&wish);
    assert_eq!(proxies(&mut node), [(theirs.address, Protocol::BOOT)]);
    node.netlink.delete_proxy(&theirs).unwrap();
    node.netlink.delete_proxy(&theirs).unwrap();
}

#[test]
fn settings_that_keep_neighbours_from_an_answer_are_said() {
    if !is_root() {
        return;
    }
    let (mut node, mut other) = (Node::new(), Node::new());
    let (link, _) = cable((&mut node, "seg"), (&mut other, "seg"));
    let sysctl = Sysctl::of(&node.netns);
    sysctl
        .write(&["net", "ipv4", "conf", "all", "arp_ignore"], "1")
        .unwrap();
    sysctl
        .write(&["net", "ipv4", "conf", "all", "rp_filter"], "1")
        .unwrap();
    let mut wish = wish(&["198.51.100.7"]);
    wish.answer_on.insert(link);
    assert!(node.sync(&wish).failures.is_empty(), "nobody asks for it");
    wish.answered = wish.held.clone();
    let report = node.sync(&wish);
    assert!(
        matches!(&report.failures[..], [Failure::ArpIgnored { device, value: 1 }] if device == "seg"),
        "{report:?}"
    );
    assert_eq!(on_holder(&mut node), wish.held, "all else is done");
    // Strict for all devices: loose is the most this one can have.
    let sysctl = Sysctl::of(&node.netns);
    let rp_filter = ["net", "ipv4", "conf", TUNNEL_DEVICE, "rp_filter"];
    assert_eq!(sysctl.read(&rp_filter).unwrap(), "2");
}

#[test]
fn what_comes_for_an_address_that_is_held_elsewhere_goes_nowhere() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    let (v4, v6) = ("198.51.100.7", "2001:db8:e::7");
    let addresses: [IpAddr; 2] = [v4, v6].map(|text| text.parse().unwrap());
    let way = |node: &mut Node| addresses.map(|address| way(node, address));
    let standby = Wish {
        dropped: addresses.into(),
        ..wish(&[])
    };
    assert!(node.sync(&standby).failures.is_empty());
    assert_eq!(way(&mut node), [Some(RouteKind::Blackhole); 2]);
    let again = node.sync(&standby);
    assert!(again.changes.is_empty(), "{again:?}");
    // Taken over, and handed back: there is no moment in which the fabric gets it back.
    let holder = Wish {
        dropped: addresses.into(),
        ..wish(&[v4, v6])
    };
    assert!(node.sync(&holder).failures.is_empty());
    // The kernel writes the route of an IPv6 address a moment after the address; until then the route
    // that drops counts.
    eventually("both are the node's own", || {
        let ways = way(&mut node);
        let is_kept = |way: &_| matches!(way, Some(RouteKind::Local | RouteKind::Blackhole));
        assert!(ways.iter().all(is_kept), "{ways:?}");
        ways == [Some(RouteKind::Local); 2]
    });
    assert!(node.sync(&standby).failures.is_empty());
    assert_eq!(way(&mut node), [Some(RouteKind::Blackhole); 2]);
    // A route of somebody else stays.
    let theirs = RouteSpec::new(
        RouteKey {
            table: TableId::MAIN,
            prefix: "198.51.100.9/32".parse().unwrap(),
        },
        Forwarding::Blackhole,
        Protocol::BOOT,
        1,
    );
    node.netlink.add_route(&theirs).unwrap();
    assert!(node.sync(&wish(&[])).failures.is_empty());
    assert_eq!(way(&mut node), [None; 2]);
    let kept = node.netlink.routes(RouteFilter::default()).unwrap();
    assert!(kept.iter().any(|route| route.key == theirs.key));
}
