// SPDX-License-Identifier: Apache-2.0
//! Notifications.

use router_netlink::{Event, Ownership, RouteTable, Watcher};
use router_reconcile::{Operation, Operations};
use router_types::IpNet;
use std::cell::Cell;

use crate::support::{LIMIT, Node, down, hop, is_root, key, up, via};

#[tokio::test]
async fn changes_by_others_are_told_and_our_own_are_not() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    let mut watcher = Watcher::open_in(&node.netns).unwrap();
    let mut table = RouteTable::open_in(&node.netns, Ownership::default()).unwrap();
    watcher.ignore_port(table.port().unwrap());

    let link = node.wire("d", &["192.0.2.100/24"]);
    // In either order: the carrier is noticed later.
    let address: IpNet = "192.0.2.100/24".parse().unwrap();
    let (usable, addressed) = (Cell::new(false), Cell::new(false));
    until(&mut watcher, |e| {
        match e {
            Event::LinkSet(l) if l.name == "d" && l.is_usable() => usable.set(true),
            Event::AddressSet(a) if a.address == address => addressed.set(true),
            _ => {}
        }
        usable.get() && addressed.get()
    })
    .await;

    let ours = key("10.1.0.0/16");
    let write = Operation::Update(ours, via(vec![hop("192.0.2.1", link)]));
    table.apply(&[write]).await.pop().unwrap().unwrap();
    node.ip_do("route add 10.2.0.0/16 via 192.0.2.1 proto static");
    let seen = until(
        &mut watcher,
        |e| matches!(e, Event::RouteSet(r) if r.key == key("10.2.0.0/16")),
    )
    .await;
    let own = |e: &Event| matches!(e, Event::RouteSet(r) if r.key == ours);
    assert!(!seen.iter().any(own), "{seen:?}");

    // Somebody deletes ours: the reconciler is to hear of it.
    node.ip_do("route del 10.1.0.0/16 proto bgp");
    let seen = until(
        &mut watcher,
        |e| matches!(e, Event::RouteGone(r) if r.key == ours),
    )
    .await;
    assert_eq!(table.note(seen.last().unwrap()), Some((ours, None)));
    assert_eq!(
        table.note(&seen[0]),
        if seen.len() == 1 {
            Some((ours, None))
        } else {
            None
        }
    );

    down(&mut node.netlink, link);
    let seen = until(&mut watcher, |e| e.unusable_link() == Some(link)).await;
    assert!(matches!(seen.last(), Some(Event::LinkSet(_))));
    up(&mut node.netlink, link);
    node.netlink.delete_link(link).unwrap();
    until(
        &mut watcher,
        |e| matches!(e, Event::LinkGone(l) if l.index == link),
    )
    .await;
}

#[tokio::test]
async fn lost_notifications_are_admitted() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    let link = node.wire("d", &["192.0.2.100/24"]);
    let mut watcher = Watcher::open_in(&node.netns).unwrap();
    let mut table = RouteTable::open_in(&node.netns, Ownership::default()).unwrap();
    let forwarding = via(vec![hop("192.0.2.1", link)]);
    let batch: Vec<_> = (0..65_536u32)
        .map(|n| {
            let prefix = format!("10.{}.{}.0/24", n / 256, n % 256);
            Operation::Update(key(&prefix), forwarding.clone())
        })
        .collect();
    assert!(table.apply(&batch).await.iter().all(Result::is_ok));
    let seen = until(&mut watcher, |e| *e == Event::Lost).await;
    assert!(seen.len() < batch.len());
    // It goes on working.
    node.ip_do("route add 172.16.0.0/12 via 192.0.2.1");
    until(
        &mut watcher,
        |e| matches!(e, Event::RouteSet(r) if r.key == key("172.16.0.0/12")),
    )
    .await;
}

async fn until(watcher: &mut Watcher, done: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut seen = Vec::new();
    loop {
        let event = tokio::time::timeout(LIMIT, watcher.next())
            .await
            .unwrap_or_else(|_| panic!("not told; seen last: {:?}", seen.last()))
            .unwrap();
        let last = done(&event);
        seen.push(event);
        if last {
            return seen;
        }
    }
}
