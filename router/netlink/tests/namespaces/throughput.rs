// SPDX-License-Identifier: Apache-2.0
//! A hundred thousand routes: correct, and how fast.

use std::sync::Arc;
use std::time::Instant;

use router_netlink::{Ownership, RouteTable};
use router_reconcile::{Config, Operation, Operations, Reconciler};
use router_types::{IpNet, Ipv4Net, Ipv6Net, RouteKey, TableId};

use crate::support::{Node, hop, is_root, settle, via};

/// The nth prefix.
type Numbered<'a> = &'a dyn Fn(u32) -> IpNet;

const ROUTES: u32 = 100_000;

#[tokio::test]
async fn a_hundred_thousand_routes_are_written_listed_and_deleted() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    let link = node.wire("d", &["192.0.2.100/24", "2001:db8:a::100/64"]);
    let v4 = |n: u32| IpNet::V4(Ipv4Net::new_assert((0x0a00_0000 + (n << 8)).into(), 24));
    let v6 = |n: u32| {
        IpNet::V6(Ipv6Net::new_assert(
            ((0x2001_0db8_0001u128 << 80) + (u128::from(n) << 64)).into(),
            64,
        ))
    };
    let cases: [(&str, Numbered<'_>, [&str; 2]); 2] = [
        ("IPv4", &v4, ["192.0.2.1", "192.0.2.2"]),
        ("IPv6", &v6, ["2001:db8:a::1", "2001:db8:a::2"]),
    ];
    for (family, prefix, gateways) in cases {
        for ways in [1, 2] {
            let mut table = RouteTable::open_in(&node.netns, Ownership::default()).unwrap();
            let hops = gateways[..ways].iter().map(|ip| hop(ip, link)).collect();
            let forwarding = via(hops);
            let key = |n| RouteKey {
                table: TableId::MAIN,
                prefix: prefix(n),
            };
            let batch: Vec<_> = (0..ROUTES)
                .map(|n| Operation::Update(key(n), Arc::clone(&forwarding)))
                .collect();
            let start = Instant::now();
            assert!(table.apply(&batch).await.iter().all(Result::is_ok));
            let written = start.elapsed();

            // A new owner lists and adopts all of them.
            let start = Instant::now();
            let mut table = RouteTable::open_in(&node.netns, Ownership::default()).unwrap();
            let mut reconciler = Reconciler::new(Config::default(), Instant::now());
            settle(&mut reconciler, &mut table).await;
            for n in 0..ROUTES {
                reconciler.set(key(n), Arc::clone(&forwarding));
            }
            assert_eq!(reconciler.poll_output(), None, "all adopted");
            let adopted = start.elapsed();

            let start = Instant::now();
            reconciler.retain(|_| false);
            settle(&mut reconciler, &mut table).await;
            let deleted = start.elapsed();
            assert_eq!(table.list().await.unwrap().len(), 0);
            let rate = |time: std::time::Duration| f64::from(ROUTES) / time.as_secs_f64();
            println!(
                "{family}, {ways} next hop(s): written {:.0}/s, listed and adopted {:.0}/s, \
                 deleted {:.0}/s",
                rate(written),
                rate(adopted),
                rate(deleted)
            );
        }
    }
}
