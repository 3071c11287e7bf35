// SPDX-License-Identifier: Apache-2.0
//! Announcements as a neighbour's kernel hears them, and probes as it answers them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use egress_io::announce::{
    LinkProblem, Schedule, announce, arp_announcement_reply, arp_announcement_request, claimant,
    is_claimed_by_other, neighbour_advertisement,
};
use egress_io::devices::Wish;
use router_types::LinkIndex;
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::{LIMIT, Node, cable, eventually, is_root, up};

const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(V4), IpAddr::V6(V6)];

/// How long nobody must answer to be nobody; where an answer comes it ends sooner.
const PATIENCE: Duration = Duration::from_millis(300);

/// A gateway and its neighbour on a segment.
fn segment() -> (Node, LinkIndex, Node, LinkIndex) {
    let (mut gateway, mut neighbour) = (Node::new(), Node::new());
    let (here, there) = cable((&mut gateway, "seg"), (&mut neighbour, "seg"));
    for (node, link, last) in [(&mut gateway, here, 1), (&mut neighbour, there, 2)] {
        for text in [format!("192.0.2.{last}/24"), format!("2001:db8::{last}/64")] {
            node.netlink
                .add_address(link, text.parse().unwrap())
                .unwrap();
        }
    }
    (gateway, here, neighbour, there)
}

#[test]
fn neighbours_forget_the_old_holder() {
    if !is_root() {
        return;
    }
    let (mut gateway, here, mut neighbour, there) = segment();
    for address in ADDRESSES {
        neighbour.ip(&format!(
            "neigh add {address} lladdr 02:00:00:00:00:ee dev seg nud reachable"
        ));
    }
    let mac = gateway.mac(here);
    let announced = gateway
        .run(async { announce(&ADDRESSES, &[here], &Schedule::new(vec![Duration::ZERO])).await });
    assert!(announced.failures.is_empty(), "{announced:?}");
    assert_eq!(announced.frames, 3);
    for address in ADDRESSES {
        eventually("the neighbour knows the new holder", || {
            let known = neighbour.netlink.neighbours(Some(there)).unwrap();
            known
                .iter()
                .any(|n| n.address == address && n.mac == Some(mac))
        });
    }
}

#[test]
fn frames_arrive_in_both_forms_as_often_as_scheduled() {
    if !is_root() {
        return;
    }
    let (mut gateway, here, neighbour, _) = segment();
    let mac = gateway.mac(here);
    // Every protocol, in network order.
    let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
    let heard = neighbour
        .netns
        .run(|| Socket::new(Domain::PACKET, Type::RAW, Some(all)).unwrap())
        .unwrap();
    heard.set_read_timeout(Some(LIMIT)).unwrap();
    let schedule = Schedule::new(vec![Duration::from_millis(30), Duration::ZERO]);
    let start = Instant::now();
    let announced = gateway.run(async { announce(&ADDRESSES, &[here], &schedule).await });
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!(announced.frames, 6);

    let forms: [Vec<u8>; 3] = [
        arp_announcement_request(V4, mac).to_vec(),
        arp_announcement_reply(V4, mac).to_vec(),
        neighbour_advertisement(V6, mac).to_vec(),
    ];
    let expected: Vec<usize> = vec![0, 1, 2, 0, 1, 2];
    let mut found = Vec::new();
    while found.len() < expected.len() {
        let mut bytes = Vec::with_capacity(2048);
        heard
            .recv(bytes.spare_capacity_mut())
            .map(|length| {
                // SAFETY: the kernel has written the first `length` octets.
                unsafe { bytes.set_len(length) }
            })
            .expect("the announcements arrive");
        found.extend(forms.iter().position(|form| *form == bytes));
    }
    assert_eq!(found, expected);
}

#[test]
fn who_has_an_address_says_so_when_asked() {
    if !is_root() {
        return;
    }
    let (gateway, here, mut neighbour, there) = segment();
    for address in ADDRESSES {
        let nobody = gateway.run(claimant(address, here, PATIENCE)).unwrap();
        assert_eq!(nobody, None, "{address}");
        let known = neighbour.netlink.neighbours(Some(there)).unwrap();
        assert!(
            known.iter().all(|n| n.address != address),
            "a probe teaches nobody: {known:?}"
        );
    }
    let mac = neighbour.mac(there);
    for address in ["192.0.2.2", "2001:db8::2"] {
        let address: IpAddr = address.parse().unwrap();
        let other = gateway.run(claimant(address, here, LIMIT)).unwrap();
        assert_eq!(other, Some(mac), "{address}");
        assert!(
            gateway
                .run(is_claimed_by_other(address, here, LIMIT))
                .unwrap()
        );
    }
}

#[test]
fn held_addresses_are_answered_for_until_they_are_given_up() {
    if !is_root() {
        return;
    }
    let (mut gateway, here, neighbour, there) = segment();
    gateway.forward();
    let mac = gateway.mac(here);
    let wish = Wish {
        held: ADDRESSES.into(),
        answered: ADDRESSES.into(),
        answer_on: [here].into(),
        ..Wish::default()
    };
    let report = gateway.sync(&wish);
    assert!(report.failures.is_empty(), "{report:?}");
    for address in ADDRESSES {
        let holder = neighbour.run(claimant(address, there, LIMIT)).unwrap();
        assert_eq!(holder, Some(mac), "{address}");
    }
    let report = gateway.sync(&Wish::default());
    assert!(report.failures.is_empty(), "{report:?}");
    for address in ADDRESSES {
        let holder = neighbour.run(claimant(address, there, PATIENCE)).unwrap();
        assert_eq!(holder, None, "{address}");
    }
}

#[test]
fn what_this_node_itself_answers_is_no_claim() {
    if !is_root() {
        return;
    }
    // Two links of one node on one segment: the kernel answers on one for what is asked by the other.
    let (mut gateway, mut switch) = (Node::new(), Node::new());
    let (first, port1) = cable((&mut gateway, "a"), (&mut switch, "a"));
    let (second, port2) = cable((&mut gateway, "b"), (&mut switch, "b"));
    switch.bridge(&[port1, port2]);
    gateway
        .netlink
        .add_address(second, "192.0.2.7/24".parse().unwrap())
        .unwrap();
    assert_eq!(
        gateway.run(claimant(V4.into(), first, PATIENCE)).unwrap(),
        None
    );
    // The way is there: a host with another hardware address is heard.
    let mut other = Node::new();
    let (link, port3) = cable((&mut other, "c"), (&mut switch, "c"));
    switch.ip("link set c master br");
    up(&mut switch.netlink, port3);
    other
        .netlink
        .add_address(link, "192.0.2.9/24".parse().unwrap())
        .unwrap();
    let mac = other.mac(link);
    let address = Ipv4Addr::new(192, 0, 2, 9).into();
    assert_eq!(
        gateway.run(claimant(address, first, LIMIT)).unwrap(),
        Some(mac)
    );
}

#[test]
fn a_link_that_cannot_is_named_and_the_others_go_on() {
    if !is_root() {
        return;
    }
    // The neighbour stays: with its namespace the link would go.
    let (gateway, here, _neighbour, _) = segment();
    let links = [LinkIndex(1), LinkIndex(4711), here];
    let schedule = Schedule::new(vec![Duration::ZERO; 2]);
    let announced = gateway.run(async { announce(&ADDRESSES, &links, &schedule).await });
    assert_eq!(announced.frames, 6);
    let [loopback, missing] = &announced.failures[..] else {
        panic!("{announced:?}");
    };
    assert_eq!(
        loopback.to_string(),
        "link lo: it has no Ethernet address: nobody on it remembers one"
    );
    assert!(matches!(missing.problem, LinkProblem::Netlink(_)));
    assert!(missing.to_string().starts_with("link #4711: "), "{missing}");
    let asked = gateway.run(claimant(V4.into(), LinkIndex(1), PATIENCE));
    asked.unwrap_err();
}
