// SPDX-License-Identifier: Apache-2.0
//! Namespaces, pairs of devices, and iproute2's view of them.

use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use router_netlink::{LinkChange, Netlink, Netns, NewVeth};
use router_reconcile::{Operations, Reconciler};
use router_types::{Forwarding, IpNet, LinkIndex, NextHop, RouteKey, TableId};
use serde_json::Value;

/// How long anything may take; generous, the machine may be busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// True when the test can run; says why when not.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root for network namespaces");
    }
    root
}

/// A namespace with devices in it. Nothing holds it but this.
pub(crate) struct Node {
    pub(crate) netns: Netns,
    pub(crate) netlink: Netlink,
    outside: Vec<Node>,
}

impl Node {
    pub(crate) fn new() -> Self {
        let netns = Netns::anonymous().unwrap();
        let mut netlink = Netlink::open_in(&netns).unwrap();
        up(&mut netlink, LinkIndex(1));
        Node {
            netns,
            netlink,
            outside: Vec::new(),
        }
    }

    /// A device that swallows packets, up, with these addresses: one end of a cable whose other
    /// end is in a namespace without addresses. (Not every kernel has dummy devices.)
    pub(crate) fn wire(&mut self, name: &str, addresses: &[&str]) -> LinkIndex {
        let mut outside = Node::new();
        let (index, _) = self.cable(name, &mut outside, name);
        for address in addresses {
            self.netlink
                .add_address(index, address.parse().unwrap())
                .unwrap();
        }
        self.outside.push(outside);
        index
    }

    /// A cable between two nodes, both ends up and usable.
    pub(crate) fn cable(
        &mut self,
        name: &str,
        other: &mut Node,
        other_name: &str,
    ) -> (LinkIndex, LinkIndex) {
        let near = self
            .netlink
            .create_veth(&NewVeth {
                name,
                peer_name: other_name,
                peer_netns: Some(&other.netns),
                mtu: None,
                mac: None,
                peer_mac: None,
            })
            .unwrap()
            .index;
        let far = other.netlink.link_by_name(other_name).unwrap().index;
        up(&mut self.netlink, near);
        up(&mut other.netlink, far);
        // The kernel notices a carrier some time later.
        wait_usable(&mut self.netlink, near);
        wait_usable(&mut other.netlink, far);
        (near, far)
    }

    /// What `ip -j <arguments>` says inside.
    pub(crate) fn ip(&self, arguments: &str) -> Vec<Value> {
        let output = self
            .netns
            .run(|| {
                Command::new("ip")
                    .arg("-j")
                    .args(arguments.split(' '))
                    .output()
            })
            .unwrap()
            .expect("iproute2 is installed");
        assert!(output.status.success(), "ip {arguments}: {output:?}");
        if output.stdout.is_empty() {
            return Vec::new();
        }
        match serde_json::from_slice(&output.stdout).unwrap() {
            Value::Array(list) => list,
            other => panic!("ip {arguments}: {other}"),
        }
    }

    /// Runs an `ip` command inside.
    pub(crate) fn ip_do(&self, arguments: &str) {
        let status = self
            .netns
            .run(|| Command::new("ip").args(arguments.split(' ')).status())
            .unwrap()
            .expect("iproute2 is installed");
        assert!(status.success(), "ip {arguments}");
    }
}

pub(crate) fn up(netlink: &mut Netlink, link: LinkIndex) {
    netlink
        .change_link(
            link,
            &LinkChange {
                up: Some(true),
                ..LinkChange::default()
            },
        )
        .unwrap();
}

fn wait_usable(netlink: &mut Netlink, link: LinkIndex) {
    let start = Instant::now();
    while !netlink.link_by_index(link).unwrap().is_usable() {
        assert!(
            start.elapsed() < LIMIT,
            "link #{} never has a carrier",
            link.0
        );
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn down(netlink: &mut Netlink, link: LinkIndex) {
    netlink
        .change_link(
            link,
            &LinkChange {
                up: Some(false),
                ..LinkChange::default()
            },
        )
        .unwrap();
}

pub(crate) fn key(prefix: &str) -> RouteKey {
    RouteKey {
        table: TableId::MAIN,
        prefix: prefix.parse::<IpNet>().unwrap(),
    }
}

pub(crate) fn hop(via: &str, link: LinkIndex) -> NextHop {
    NextHop {
        via: Some(via.parse::<IpAddr>().unwrap()),
        link: Some(link),
        weight: 1,
    }
}

pub(crate) fn via(mut hops: Vec<NextHop>) -> Arc<Forwarding> {
    hops.sort_unstable();
    Arc::new(Forwarding::Via(hops))
}

/// Carries out everything that is due.
pub(crate) async fn settle<O: Operations>(reconciler: &mut Reconciler<O>, operations: &mut O) {
    while router_reconcile::step(reconciler, operations, Instant::now).await {}
}

/// The gateways iproute2 shows of a route, sorted: `192.0.2.1`, `inet6 fe80::1`.
pub(crate) fn gateways(route: &Value) -> Vec<String> {
    let one = |hop: &Value| match (&hop["gateway"], &hop["via"]) {
        (Value::String(ip), _) => ip.clone(),
        (_, Value::Object(via)) => {
            format!(
                "{} {}",
                via["family"].as_str().unwrap(),
                via["host"].as_str().unwrap()
            )
        }
        _ => panic!("no gateway: {hop}"),
    };
    let mut list = match &route["nexthops"] {
        Value::Array(hops) => hops.iter().map(one).collect(),
        _ => vec![one(route)],
    };
    list.sort();
    list
}
