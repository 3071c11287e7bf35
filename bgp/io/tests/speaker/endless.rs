// SPDX-License-Identifier: Apache-2.0
//! Neighbours that send forever: what is kept for them is bounded, and others notice nothing.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bgp_core::config::{
    BeyondLimit, ConnectMode, ExportAttributes, ImportMode, PrefixLimit, Timers,
};
use bgp_core::fsm::State;
use bgp_core::rib::RibStats;
use bgp_wire::{Community, PathAttributes, RefreshKind, RouteRefresh};
use ipnet::IpNet;
use router_types::Family;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use crate::hostile::{ASN, established, prefix, waiting};
use crate::load::{distinct_routes, resident_kib};
use crate::node::{Node, counts, importing};
use crate::raw::{Raw, attributes, keepalive, update};

/// How long a neighbour sends as fast as it is read.
const FOREVER: Duration = Duration::from_secs(4);

/// What memory may grow by meanwhile. Generous: the other tests of this binary run beside it, and a
/// queue without bound would be past it all the same.
const GROWTH_KIB: u64 = 512 * 1024;

async fn stats(node: &Node) -> RibStats {
    let stats = node.speaker.ask(&node.name, |rib, _| rib.stats()).await;
    stats.expect("an instance")
}

/// A second neighbour with the shortest hold time there is, which notices delays.
async fn with_bystander(node: &mut Node) -> Node {
    let mut other = Node::start(65003).await;
    let mut to_other = node.towards(&other);
    to_other.timers = Timers::new(1, 3, 1).unwrap();
    let mut to_node = other.towards(node);
    to_node.connect = ConnectMode::Passive;
    other.set("peer", to_node).await;
    node.set("other", to_other).await;
    node.until_up("other").await;
    other
}

/// Sends what it is given, one chunk after another, until the time is over or nobody takes it;
/// returns how much went.
fn sends_forever(
    raw: Raw,
    mut chunk: impl FnMut(u32) -> Vec<u8> + Send + 'static,
) -> JoinHandle<(Raw, u64)> {
    tokio::spawn(async move {
        let mut raw = raw;
        let (end, mut sent) = (Instant::now() + FOREVER, 0);
        for round in 0.. {
            if Instant::now() > end {
                break;
            }
            let bytes = chunk(round);
            let write = raw.stream.write_all(&bytes);
            match tokio::time::timeout(FOREVER, write).await {
                Ok(Ok(())) => sent += bytes.len() as u64,
                Ok(Err(_)) | Err(_) => break,
            }
        }
        (raw, sent)
    })
}

/// Announcements reach the bystander while somebody else sends.
async fn bystander_is_served(node: &mut Node, other: &Node, sending: &JoinHandle<(Raw, u64)>) {
    let others = node.locals.clone();
    let mut round = 0;
    let mut slowest = Duration::ZERO;
    while !sending.is_finished() {
        round += 1;
        let expected: IpNet = format!("192.0.2.{}/32", round % 250).parse().unwrap();
        node.locals = others.clone();
        node.locals
            .add(expected, "other".into(), ExportAttributes::default());
        let before = Instant::now();
        node.apply().await;
        crate::node::until("the announcement arrives", async || {
            let table = bgp_core::rib::RouteTable::Received("peer".into());
            let routes = other.routes(table, Family::IPV4_UNICAST).await;
            routes.iter().any(|route| route.prefix == expected)
        })
        .await;
        slowest = slowest.max(before.elapsed());
    }
    assert!(round > 1, "nothing arrived meanwhile");
    println!("{round} announcements arrived, the slowest after {slowest:?}");
    for session in [node.session("other").await, other.session("peer").await] {
        assert_eq!(session.state, State::Established);
        assert_eq!(session.counters.flaps, 0);
    }
}

/// The same routes with other attributes each time, of all kinds and never the same twice.
fn ever_new(neighbour: IpAddr) -> impl FnMut(u32) -> Vec<u8> {
    move |round| {
        let mut bytes = Vec::new();
        for place in 0..200 {
            let number = round * 200 + place;
            let attributes = PathAttributes {
                med: Some(number),
                communities: (0..20).map(|n| Community(number * 20 + n)).collect(),
                ..attributes(ASN)
            };
            bytes.extend(update(&attributes, neighbour, &[prefix(place)]));
        }
        bytes
    }
}

#[tokio::test]
async fn ever_new_attributes_take_no_more_memory_than_the_latest() {
    let (mut node, neighbour) = waiting(90).await;
    let other = with_bystander(&mut node).await;
    let raw = established(&node, neighbour, 90).await;
    let before = resident_kib();
    let sending = sends_forever(raw, ever_new(neighbour));
    bystander_is_served(&mut node, &other, &sending).await;
    let (raw, sent) = sending.await.unwrap();
    let alive = tokio::spawn(raw.live());
    let report = node.until_accepted("peer", 200).await;
    assert_eq!(report.session.counters.flaps, 0);
    let grown = resident_kib().saturating_sub(before);
    println!("{} MiB were sent, memory grew by {grown} KiB", sent >> 20);
    assert!(grown < GROWTH_KIB, "{grown} KiB after {sent} bytes");
    let mut stats = self::stats(&node).await;
    crate::node::until("only the latest attributes are kept", async || {
        stats = self::stats(&node).await;
        stats.attribute_sets <= 200
    })
    .await;
    // As much as two thousand octets a route, and what an empty table has.
    assert!(stats.memory_bytes < 1 << 20, "{stats:?}");
    alive.abort();
}

#[tokio::test]
async fn routes_beyond_the_limit_are_not_kept_however_many_come() {
    let (mut node, neighbour) = waiting(90).await;
    let other = with_bystander(&mut node).await;
    let mut config = importing(node.config("peer"), ImportMode::All, Some(1000));
    let mut families = config.families().clone();
    for family in families.values_mut() {
        let mut limit = PrefixLimit::new(1000).unwrap();
        limit.beyond = BeyondLimit::Restart { after_s: 0 };
        family.limit = Some(limit);
    }
    config = config.with_families(families).unwrap();
    node.set("peer", config).await;
    let raw = established(&node, neighbour, 90).await;
    let before = resident_kib();
    let sending = sends_forever(raw, move |round| {
        let mut bytes = Vec::new();
        for place in 0..200 {
            let number = (round * 200 + place) % 0xff_0000;
            bytes.extend(update(&attributes(ASN), neighbour, &[prefix(number)]));
        }
        bytes
    });
    node.until_down("peer", "more ipv4/unicast routes than the limit of 1000")
        .await;
    let (_, sent) = sending.await.unwrap();
    let report = node.report("peer").await.unwrap();
    assert_eq!(counts(&report, Family::IPV4_UNICAST).received, 0);
    let stats = stats(&node).await;
    assert_eq!((stats.routes, stats.attribute_sets), (0, 0), "{stats:?}");
    let grown = resident_kib().saturating_sub(before);
    println!("{} KiB were sent, memory grew by {grown} KiB", sent >> 10);
    assert!(grown < GROWTH_KIB, "{grown} KiB after {sent} bytes");
    assert_eq!(node.session("other").await.counters.flaps, 0);
    assert_eq!(other.session("peer").await.counters.flaps, 0);
}

/// Each asks for the whole table again; the neighbour reads nothing of it.
#[tokio::test]
async fn requests_for_all_routes_without_end_hold_up_nobody() {
    let (mut node, neighbour) = waiting(90).await;
    let other = with_bystander(&mut node).await;
    let raw = established(&node, neighbour, 90).await;
    node.locals = distinct_routes(20_000, 0, "peer");
    node.apply().await;
    let before = resident_kib();
    let mut chunk = Vec::new();
    for _ in 0..5000 {
        RouteRefresh {
            family: Family::IPV4_UNICAST,
            kind: RefreshKind::Request,
        }
        .encode(&mut chunk);
    }
    let sending = sends_forever(raw, move |_| chunk.clone());
    bystander_is_served(&mut node, &other, &sending).await;
    let (raw, sent) = sending.await.unwrap();
    let grown = resident_kib().saturating_sub(before);
    println!("{} requests, memory grew by {grown} KiB", sent / 23);
    assert!(sent > 100_000, "{sent} bytes were taken");
    assert!(grown < GROWTH_KIB, "{grown} KiB after {sent} bytes");
    drop(raw);
}

/// Messages that say nothing.
#[tokio::test]
async fn keepalives_without_end_hold_up_nobody() {
    let (mut node, neighbour) = waiting(90).await;
    let other = with_bystander(&mut node).await;
    let raw = established(&node, neighbour, 90).await;
    let before = resident_kib();
    let chunk: Vec<u8> = std::iter::repeat_with(keepalive)
        .take(3000)
        .flatten()
        .collect();
    let sending = sends_forever(raw, move |_| chunk.clone());
    bystander_is_served(&mut node, &other, &sending).await;
    let (raw, sent) = sending.await.unwrap();
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{grown} KiB after {sent} bytes");
    let alive = tokio::spawn(raw.live());
    let session = node.session("peer").await;
    assert_eq!(
        (session.state, session.counters.flaps),
        (State::Established, 0)
    );
    alive.abort();
}
