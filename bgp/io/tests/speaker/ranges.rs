// SPDX-License-Identifier: Apache-2.0
//! Listen ranges: who calls from a prefix is a neighbour while its session lasts.

use std::net::IpAddr;

use bgp_core::config::{
    AsnRange, ConnectMode, ExportAttributes, ImportMode, ListenRange, LocalRoutes, Md5Password,
    PeerConfig, Timers,
};
use bgp_core::fsm::State;
use bgp_core::peer::StopReason;
use ipnet::IpNet;
use router_types::Family;

use crate::node::{Node, address, importing, next_hop, until};
use crate::raw::{Raw, open};

/// A prefix in which nobody of other tests is, and addresses in it.
fn prefix() -> (IpNet, [IpAddr; 3]) {
    let IpAddr::V4(first) = address() else {
        panic!("the addresses of tests are IPv4");
    };
    // Tests count up from the bottom of a /16: its upper half is free for prefixes.
    let [a, b, c, d] = first.octets();
    let at = |last: u8| IpAddr::from([a, b, c | 0x80, d.wrapping_mul(8) & 0xf8 | last]);
    let net = IpNet::new(at(0), 29).expect("a prefix");
    (net, [at(1), at(2), at(3)])
}

pub(crate) fn template() -> PeerConfig {
    let mut template = PeerConfig::template();
    template.timers = Timers::new(1, 9, 3).unwrap();
    importing(template, ImportMode::All, None)
}

/// A speaker with one range.
pub(crate) async fn with_range(max: u16, template: PeerConfig) -> (Node, [IpAddr; 3]) {
    let (net, ips) = prefix();
    let mut node = Node::start(65001).await;
    let mut families = template.families().clone();
    families.entry(Family::IPV4_UNICAST).or_default().next_hop = Some(next_hop(node.ip).into());
    let template = template.with_families(families).unwrap();
    let mut range = ListenRange::new(net, max, template).unwrap();
    range.asns = vec![AsnRange::new(65100..=65199)];
    node.ranges = vec![("rack".into(), range)];
    node.apply().await;
    (node, ips)
}

pub(crate) async fn dialler(ip: IpAddr, asn: u32, node: &Node, password: Option<&str>) -> Node {
    let mut caller = Node::start_with(ip, asn, bgp_io::Options::default()).await;
    let mut config = caller.towards(node);
    config.connect = ConnectMode::Active;
    config.password = password.map(|text| Md5Password::new(text).unwrap());
    caller.set("peer", config).await;
    caller
}

pub(crate) fn name(ip: IpAddr) -> String {
    format!("rack:{ip}")
}

#[tokio::test]
async fn callers_of_a_range_become_neighbours_and_leave_again() {
    let (mut node, ips) = with_range(2, template()).await;
    let mut routes = LocalRoutes::default();
    let prefix = "10.1.0.0/24".parse().unwrap();
    routes.add(prefix, "rack".into(), ExportAttributes::default());
    node.locals = routes;
    node.apply().await;

    let first = dialler(ips[0], 65101, &node, None).await;
    let second = dialler(ips[1], 65102, &node, None).await;
    // What the range is told its neighbours are told.
    first.until_accepted("peer", 1).await;
    second.until_accepted("peer", 1).await;
    let report = node.report(&name(ips[0])).await.expect("a neighbour");
    assert_eq!(report.range, Some("rack".into()));

    // There is no third place, and the others do not notice.
    let mut raw = Raw::call(ips[2], node.socket()).await;
    raw.send(&open(65103, 9)).await;
    let refusal = raw.notification().await.expect("a reason");
    assert_eq!((refusal.kind.code, refusal.kind.subcode), (6, 5));
    let snapshot = node.snapshot().await;
    assert_eq!(snapshot.refused_by_ranges[&"rack".into()], 1);
    assert_eq!(snapshot.strangers, 0);

    // Who goes is forgotten, and its place is free.
    first.stop(StopReason::Deconfigured).await;
    until("the neighbour has left", async || {
        node.report(&name(ips[0])).await.is_none()
    })
    .await;
    let third = dialler(ips[2], 65103, &node, None).await;
    third.until_accepted("peer", 1).await;
    assert_eq!(node.session(&name(ips[1])).await.counters.flaps, 0);

    // Without the range nobody is left.
    node.ranges.clear();
    node.apply().await;
    second.until_down("peer", "removed from the").await;
    assert_eq!(node.snapshot().await.peers.len(), 0);
}

#[tokio::test]
async fn a_range_takes_only_its_as_numbers_and_changes_them_live() {
    let (mut node, ips) = with_range(2, template()).await;
    let caller = dialler(ips[0], 65200, &node, None).await;
    caller.until_down("peer", "Bad Peer AS").await;
    let (_, range) = &mut node.ranges[0];
    range.asns.push(AsnRange::new(65200..=65200));
    node.apply().await;
    caller.until_up("peer").await;
    let (_, range) = &mut node.ranges[0];
    range.asns.pop();
    node.apply().await;
    caller
        .until("peer", "sent away", |p| {
            p.session.state != State::Established
        })
        .await;
}

#[tokio::test]
async fn a_range_has_one_password_for_all_and_changes_it_live() {
    let mut signed = template();
    signed.password = Some(Md5Password::new("rack").unwrap());
    let (mut node, ips) = with_range(3, signed.clone()).await;
    let mut caller = dialler(ips[0], 65101, &node, Some("rack")).await;
    caller.until_up("peer").await;
    let unsigned = Raw::try_call(ips[1], node.socket());
    let waited = tokio::time::timeout(std::time::Duration::from_secs(1), unsigned).await;
    assert!(waited.is_err(), "an unsigned call is not answered");

    // Another one for the whole range, and for the session that is up.
    let (_, range) = &mut node.ranges[0];
    signed.password = Some(Md5Password::new("row").unwrap());
    *range = ListenRange::new(range.prefix(), range.max(), signed).unwrap();
    node.apply().await;
    let mut config = caller.config("peer");
    config.password = Some(Md5Password::new("row").unwrap());
    caller.set("peer", config).await;
    caller.announce("peer", &["10.2.0.0/24"]).await;
    node.until_accepted(&name(ips[0]), 1).await;
    let late = dialler(ips[2], 65103, &node, Some("row")).await;
    late.until_up("peer").await;
    assert_eq!(caller.session("peer").await.counters.flaps, 0);
}
