// SPDX-License-Identifier: Apache-2.0
//! IPv4 packets over an IPv6-only link, by routes with IPv6 next hops (RFC 8950).

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use router_netlink::{Ownership, RouteTable};
use router_reconcile::{Operation, Operations};
use router_types::{IpNet, LinkIndex};

use crate::support::{Node, gateways, hop, is_root, key, via};

#[tokio::test]
async fn ipv4_packets_cross_a_link_that_has_only_ipv6() {
    if !is_root() {
        return;
    }
    let (mut left, mut right) = (Node::new(), Node::new());
    let (l, r) = left.cable("left", &mut right, "right");
    left.netlink
        .add_address(LinkIndex(1), "10.0.0.1/32".parse::<IpNet>().unwrap())
        .unwrap();
    right
        .netlink
        .add_address(LinkIndex(1), "10.0.0.2/32".parse::<IpNet>().unwrap())
        .unwrap();
    left.netlink
        .add_address(l, "fe80::a/64".parse::<IpNet>().unwrap())
        .unwrap();
    right
        .netlink
        .add_address(r, "fe80::b/64".parse::<IpNet>().unwrap())
        .unwrap();

    let mut there = RouteTable::open_in(&left.netns, Ownership::default()).unwrap();
    let mut back = RouteTable::open_in(&right.netns, Ownership::default()).unwrap();
    let to_right = Operation::Update(key("10.0.0.2/32"), via(vec![hop("fe80::b", l)]));
    let to_left = Operation::Update(key("10.0.0.1/32"), via(vec![hop("fe80::a", r)]));
    there.apply(&[to_right]).await.pop().unwrap().unwrap();
    back.apply(&[to_left]).await.pop().unwrap().unwrap();
    assert_eq!(
        gateways(&left.ip("route show exact 10.0.0.2/32")[0]),
        ["inet6 fe80::b"]
    );

    let socket = |node: &Node, address: &str| {
        let bound = node
            .netns
            .run(|| UdpSocket::bind((address, 0)))
            .unwrap()
            .unwrap();
        bound
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        bound
    };
    let client = socket(&left, "10.0.0.1");
    let server = socket(&right, "10.0.0.2");
    let target = server.local_addr().unwrap();
    let mut buffer = [0; 16];
    // The first packets may go while the neighbours are still being found.
    let (length, from) = (0..50)
        .find_map(|_| {
            client.send_to(b"over", target).unwrap();
            server.recv_from(&mut buffer).ok()
        })
        .expect("a packet arrives");
    assert_eq!(
        (&buffer[..length], from.ip()),
        (&b"over"[..], IpAddr::from([10, 0, 0, 1]))
    );
    server.send_to(b"back", from).unwrap();
    let (length, _) = client.recv_from(&mut buffer).expect("the answer arrives");
    assert_eq!(&buffer[..length], b"back");
}
