// SPDX-License-Identifier: Apache-2.0
//! The route table under a reconciler.

use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use router_netlink::{Ownership, Protocol, RouteFilter, RouteSpec, RouteTable};
use router_reconcile::{Config, KeyState, Operation, Operations, Reconciler};
use router_types::{Forwarding, LinkIndex, TableId};

use crate::support::{Node, gateways, hop, is_root, key, settle, via};

#[tokio::test]
async fn routes_of_both_families_are_written_replaced_and_deleted() {
    if !is_root() {
        return;
    }
    let (mut node, a, b) = two_ways();
    let mut table = RouteTable::open_in(&node.netns, Ownership::default()).unwrap();
    let mut reconciler = Reconciler::new(Config::default(), Instant::now());

    let cases = [
        ("10.0.0.0/8", ["192.0.2.1", "198.51.100.1"]),
        ("0.0.0.0/0", ["192.0.2.1", "198.51.100.1"]),
        ("2001:db8:ffff::/48", ["2001:db8:a::1", "2001:db8:b::1"]),
        ("::/0", ["fe80::1", "fe80::2"]),
    ];
    for (prefix, [first, second]) in cases {
        let show = |node: &Node| {
            let family = if prefix.contains(':') { "-6" } else { "-4" };
            let exact = if prefix.ends_with("/0") {
                "default"
            } else {
                prefix
            };
            node.ip(&format!("{family} route show exact {exact}"))
        };
        // one way, two, the other one, weights, unreachable, two again: each in place of the last
        reconciler.set(key(prefix), via(vec![hop(first, a)]));
        settle(&mut reconciler, &mut table).await;
        assert_eq!(gateways(&show(&node)[0]), [first], "{prefix}");

        reconciler.set(key(prefix), via(vec![hop(first, a), hop(second, b)]));
        settle(&mut reconciler, &mut table).await;
        let shown = show(&node);
        assert_eq!(shown.len(), 1, "{prefix}: {shown:?}");
        assert_eq!(gateways(&shown[0]), [first, second], "{prefix}");
        assert_eq!(shown[0]["metric"], 20);
        assert_eq!(shown[0]["protocol"], "bgp");

        reconciler.set(key(prefix), via(vec![hop(second, b)]));
        settle(&mut reconciler, &mut table).await;
        let shown = show(&node);
        assert_eq!(
            (shown.len(), gateways(&shown[0])),
            (1, vec![second.to_owned()]),
            "{prefix}"
        );

        let mut heavy = hop(first, a);
        heavy.weight = 200;
        reconciler.set(key(prefix), via(vec![heavy, hop(second, b)]));
        settle(&mut reconciler, &mut table).await;
        let shown = show(&node);
        let mut weights: Vec<u64> = shown[0]["nexthops"]
            .as_array()
            .unwrap()
            .iter()
            .map(|hop| hop["weight"].as_u64().unwrap())
            .collect();
        weights.sort_unstable();
        assert_eq!(weights, [1, 200], "{prefix}");

        reconciler.set(key(prefix), Arc::new(Forwarding::Unreachable));
        settle(&mut reconciler, &mut table).await;
        let shown = show(&node);
        assert_eq!(
            (shown.len(), &shown[0]["type"]),
            (1, &"unreachable".into()),
            "{prefix}"
        );

        reconciler.set(key(prefix), via(vec![hop(first, a), hop(second, b)]));
        settle(&mut reconciler, &mut table).await;
        let shown = show(&node);
        assert_eq!(gateways(&shown[0]), [first, second], "{prefix}");
    }

    // What was written reads back as what was wanted: a comparison finds nothing to do.
    reconciler.resync();
    settle(&mut reconciler, &mut table).await;
    let summary = reconciler.summary();
    assert_eq!(
        (summary.applied, summary.repaired, summary.failed),
        (4, 0, 0)
    );

    for (prefix, _) in cases {
        reconciler.remove(&key(prefix));
    }
    settle(&mut reconciler, &mut table).await;
    assert!(ours(&mut node).is_empty());
    assert_eq!(reconciler.summary().wanted, 0);
}

#[tokio::test]
async fn after_a_restart_equal_routes_are_adopted_and_the_rest_is_pruned() {
    if !is_root() {
        return;
    }
    let (mut node, a, b) = two_ways();
    let both = via(vec![hop("192.0.2.1", a), hop("198.51.100.1", b)]);
    let both6 = via(vec![hop("2001:db8:a::1", a), hop("2001:db8:b::1", b)]);
    {
        let mut table = RouteTable::open_in(&node.netns, Ownership::default()).unwrap();
        let mut reconciler = Reconciler::new(Config::default(), Instant::now());
        for prefix in ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"] {
            reconciler.set(key(prefix), Arc::clone(&both));
        }
        for prefix in ["2001:db8:1::/64", "2001:db8:2::/64"] {
            reconciler.set(key(prefix), Arc::clone(&both6));
        }
        settle(&mut reconciler, &mut table).await;
        assert_eq!(reconciler.summary().applied, 5);
        // and the daemon is killed
    }
    let before = ours(&mut node);
    assert_eq!(before.len(), 5);

    let mut table = RouteTable::open_in(&node.netns, Ownership::default()).unwrap();
    let mut reconciler = Reconciler::new(Config::default(), Instant::now());
    settle(&mut reconciler, &mut table).await;
    assert_eq!(reconciler.summary().stale, 5);

    // Adopted: nothing to apply.
    reconciler.set(key("10.1.0.0/16"), Arc::clone(&both));
    reconciler.set(key("2001:db8:1::/64"), Arc::clone(&both6));
    assert_eq!(reconciler.poll_output(), None);
    // Different: written over the old one, which is known to be ours.
    reconciler.set(key("10.2.0.0/16"), via(vec![hop("192.0.2.1", a)]));
    settle(&mut reconciler, &mut table).await;
    assert_eq!(reconciler.failures().count(), 0);
    assert_eq!(ours(&mut node).len(), 5, "stale ones stay until pruning");
    assert_eq!(
        reconciler.status(&key("10.3.0.0/16")).unwrap().state,
        KeyState::Stale
    );

    reconciler.prune();
    settle(&mut reconciler, &mut table).await;
    assert_eq!(
        ours(&mut node),
        ["10.1.0.0/16", "10.2.0.0/16", "2001:db8:1::/64"]
    );
}

#[tokio::test]
async fn routes_of_others_are_never_touched() {
    if !is_root() {
        return;
    }
    let (mut node, a, _) = two_ways();
    // Same prefix and metric by another protocol; another metric; another table; FRR's own number
    // in a table we do not manage.
    for foreign in [
        "route add 10.1.0.0/16 via 192.0.2.9 metric 20 proto static",
        "-6 route add 2001:db8:1::/64 via 2001:db8:a::9 metric 20 proto static",
        "route add 10.2.0.0/16 via 192.0.2.9 metric 100 proto dhcp",
        "route add 10.3.0.0/16 via 192.0.2.9 metric 20 proto bgp table 1000",
        "route add 10.4.0.0/16 via 192.0.2.9 metric 77 proto bgp",
        "-6 route add 2001:db8:3::/64 via 2001:db8:a::9 metric 20 proto bgp table 1000",
    ] {
        node.ip_do(foreign);
    }
    let others = |node: &mut Node| {
        let mut routes = node.netlink.routes(RouteFilter::default()).unwrap();
        routes.retain(|route| {
            !(route.protocol == Protocol::BGP
                && route.metric == 20
                && route.key.table == TableId::MAIN)
        });
        routes
    };
    let before = others(&mut node);

    let mut table = RouteTable::open_in(&node.netns, Ownership::default()).unwrap();
    let mut reconciler = Reconciler::new(Config::default(), Instant::now());
    reconciler.prune();
    for prefix in ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16"] {
        reconciler.set(key(prefix), via(vec![hop("192.0.2.1", a)]));
    }
    for prefix in ["2001:db8:1::/64", "2001:db8:3::/64"] {
        reconciler.set(key(prefix), via(vec![hop("2001:db8:a::1", a)]));
    }
    settle(&mut reconciler, &mut table).await;
    assert_eq!(others(&mut node), before);
    let failing: Vec<String> = reconciler
        .failures()
        .map(|(k, _)| k.prefix.to_string())
        .collect();
    assert_eq!(failing, ["10.1.0.0/16", "2001:db8:1::/64"]);
    let (_, failure) = reconciler.failures().next().unwrap();
    assert!(
        failure.last_error.contains("made by somebody else"),
        "{}",
        failure.last_error
    );

    // Trying again, deleting and comparing leaves them alone too.
    let (due, _) = reconciler.poll_timeout().unwrap();
    reconciler.handle_timeout(due);
    settle(&mut reconciler, &mut table).await;
    reconciler.resync();
    settle(&mut reconciler, &mut table).await;
    reconciler.retain(|_| false);
    settle(&mut reconciler, &mut table).await;
    assert_eq!(others(&mut node), before);
    assert!(ours(&mut node).is_empty());
}

#[tokio::test]
async fn one_bad_route_in_a_batch_fails_alone_and_says_why() {
    if !is_root() {
        return;
    }
    let (mut node, a, _) = two_ways();
    let mut table = RouteTable::open_in(&node.netns, Ownership::default()).unwrap();
    let good = via(vec![hop("192.0.2.1", a)]);
    let mut batch: Vec<_> = (0..1000u32)
        .map(|n| {
            let prefix = format!("10.{}.{}.0/24", n / 256, n % 256);
            Operation::Update(key(&prefix), Arc::clone(&good))
        })
        .collect();
    batch.insert(
        300,
        Operation::Update(key("172.16.0.0/12"), via(vec![hop("203.0.113.1", a)])),
    );
    batch.insert(
        600,
        Operation::Update(
            key("172.17.0.0/16"),
            via(vec![hop("192.0.2.1", LinkIndex(9999))]),
        ),
    );
    let results = table.apply(&batch).await;
    assert_eq!(results.len(), 1002);
    let bad: Vec<usize> = results
        .iter()
        .enumerate()
        .filter(|(_, r)| r.is_err())
        .map(|(n, _)| n)
        .collect();
    assert_eq!(bad, [300, 600]);
    let error = results[300].as_ref().unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENETUNREACH));
    let text = error.to_string();
    for part in [
        "172.16.0.0/12",
        "203.0.113.1",
        "not reachable",
        "Nexthop has invalid gateway",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(
        results[600]
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("dev #9999")
    );
    assert_eq!(ours(&mut node).len(), 1000);
}

#[tokio::test]
async fn a_failed_ipv6_replacement_is_cleaned_up_by_the_next() {
    if !is_root() {
        return;
    }
    let (mut node, a, b) = two_ways();
    let mut table = RouteTable::open_in(&node.netns, Ownership::default()).unwrap();
    let key = key("2001:db8:ffff::/48");
    let apply = async |table: &mut RouteTable, hops| {
        table
            .apply(&[Operation::Update(key, via(hops))])
            .await
            .pop()
            .unwrap()
    };
    let (one, two) = (hop("2001:db8:a::1", a), hop("2001:db8:b::1", b));
    apply(&mut table, vec![one, two]).await.unwrap();
    let nowhere = hop("2001:db8:dead::1", b);
    apply(&mut table, vec![hop("2001:db8:a::2", a), nowhere])
        .await
        .unwrap_err();
    apply(&mut table, vec![one, two]).await.unwrap();
    let shown = node.ip("-6 route show exact 2001:db8:ffff::/48");
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(gateways(&shown[0]), ["2001:db8:a::1", "2001:db8:b::1"]);
    assert_eq!(ours(&mut node), ["2001:db8:ffff::/48"]);
}

#[tokio::test]
async fn large_table_numbers_work_and_a_missing_table_is_empty() {
    if !is_root() {
        return;
    }
    let (mut node, a, _) = two_ways();
    let ownership = Ownership {
        tables: [TableId(100_000)].into(),
        ..Ownership::default()
    };
    let mut table = RouteTable::open_in(&node.netns, ownership).unwrap();
    assert_eq!(table.list().await.unwrap(), []);
    let mut big = key("10.0.0.0/8");
    big.table = TableId(100_000);
    let route = via(vec![hop("192.0.2.1", a)]);
    table
        .apply(&[Operation::Update(big, route)])
        .await
        .pop()
        .unwrap()
        .unwrap();
    assert_eq!(table.list().await.unwrap()[0].0, big);
    assert_eq!(node.ip("route show table 100000").len(), 1);
    assert!(ours(&mut node).is_empty());
}

#[test]
fn a_route_can_be_looked_up_and_written_onlink_with_source_and_mtu() {
    if !is_root() {
        return;
    }
    let (mut node, a, _) = two_ways();
    let forwarding = Forwarding::Via(vec![hop("169.254.1.1", a)]);
    let mut spec = RouteSpec::new(key("0.0.0.0/0"), forwarding, Protocol::BOOT, 0);
    let refused = node.netlink.add_route(&spec).unwrap_err();
    assert_eq!(refused.errno(), Some(Errno::ENETUNREACH));
    spec.onlink = true;
    spec.mtu = Some(1400);
    spec.preferred_source = Some("192.0.2.100".parse().unwrap());
    node.netlink.add_route(&spec).unwrap();
    assert!(node.netlink.add_route(&spec).unwrap_err().is_exists());
    node.netlink.replace_route(&spec).unwrap();

    let found = node
        .netlink
        .lookup_route("8.8.8.8".parse().unwrap())
        .unwrap();
    assert_eq!(found.key, key("0.0.0.0/0"));
    assert!(found.next_hops[0].onlink);
    assert_eq!(found.preferred_source, spec.preferred_source);
    assert_eq!(found.mtu, Some(1400));
    assert_eq!(node.ip("route show default")[0]["metrics"][0]["mtu"], 1400);
    let connected = node
        .netlink
        .lookup_route("192.0.2.7".parse().unwrap())
        .unwrap();
    assert!(connected.is_connected());
    assert_eq!(connected.mtu, None);

    node.netlink
        .delete_route(key("0.0.0.0/0"), Protocol::BOOT, 0)
        .unwrap();
    node.netlink
        .delete_route(key("0.0.0.0/0"), Protocol::BOOT, 0)
        .unwrap();
    let gone = node
        .netlink
        .lookup_route("8.8.8.8".parse().unwrap())
        .unwrap_err();
    assert_eq!(gone.errno(), Some(Errno::ENETUNREACH));
}

/// A node with two devices on different networks.
fn two_ways() -> (Node, LinkIndex, LinkIndex) {
    let mut node = Node::new();
    let a = node.wire("a", &["192.0.2.100/24", "2001:db8:a::100/64"]);
    let b = node.wire("b", &["198.51.100.100/24", "2001:db8:b::100/64"]);
    (node, a, b)
}

/// Prefixes of our routes in `main`.
fn ours(node: &mut Node) -> Vec<String> {
    let filter = RouteFilter {
        table: Some(TableId::MAIN),
        protocol: Some(Protocol::BGP),
    };
    let mut routes = node.netlink.routes(filter).unwrap();
    routes.retain(|route| route.metric == 20);
    let mut prefixes: Vec<String> = routes.iter().map(|r| r.key.prefix.to_string()).collect();
    prefixes.sort();
    prefixes
}
