// SPDX-License-Identifier: Apache-2.0
//! Namespaces with devices between them.

use std::future::Future;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use egress_io::devices::{Report, Wish, sync};
use router_netlink::{LinkChange, LinkKind, MacAddress, Netlink, Netns, NewVeth, Sysctl};
use router_types::LinkIndex;

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

/// A namespace. Nothing holds it but this.
pub(crate) struct Node {
    pub(crate) netns: Netns,
    pub(crate) netlink: Netlink,
}

impl Node {
    pub(crate) fn new() -> Self {
        let netns = Netns::anonymous().unwrap();
        let mut netlink = Netlink::open_in(&netns).unwrap();
        up(&mut netlink, LinkIndex(1));
        Node { netns, netlink }
    }

    /// Forwards, as every node of a cluster does.
    pub(crate) fn forward(&self) {
        let sysctl = Sysctl::of(&self.netns);
        for parts in [
            ["net", "ipv4", "conf", "all", "forwarding"],
            ["net", "ipv6", "conf", "all", "forwarding"],
        ] {
            sysctl.write(&parts, "1").unwrap();
        }
    }

    /// Runs the daemon's part once, as a new daemon would.
    pub(crate) fn sync(&self, wish: &Wish) -> Report {
        self.netns
            .run(|| sync(&mut Netlink::open().unwrap(), wish))
            .unwrap()
    }

    /// Runs a future inside.
    pub(crate) fn run<T: Send>(&self, future: impl Future<Output = T> + Send) -> T {
        self.netns
            .run(|| {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap()
                    .block_on(future)
            })
            .unwrap()
    }

    /// Runs an `ip` command inside.
    pub(crate) fn ip(&self, arguments: &str) {
        let status = self
            .netns
            .run(|| Command::new("ip").args(arguments.split(' ')).status())
            .unwrap()
            .expect("iproute2 is installed");
        assert!(status.success(), "ip {arguments}");
    }

    /// A new bridge with these ports.
    pub(crate) fn bridge(&mut self, ports: &[LinkIndex]) {
        let bridge = self.netlink.create_link("br", LinkKind::Bridge).unwrap();
        up(&mut self.netlink, bridge.index);
        for port in ports {
            let change = LinkChange {
                controller: Some(bridge.index),
                ..LinkChange::default()
            };
            self.netlink.change_link(*port, &change).unwrap();
        }
    }

    pub(crate) fn mac(&mut self, link: LinkIndex) -> MacAddress {
        self.netlink.link_by_index(link).unwrap().mac.unwrap()
    }
}

/// A cable between two nodes, both ends up and usable.
pub(crate) fn cable(near: (&mut Node, &str), far: (&mut Node, &str)) -> (LinkIndex, LinkIndex) {
    let ((near, near_name), (far, far_name)) = (near, far);
    let near_index = near
        .netlink
        .create_veth(&NewVeth {
            name: near_name,
            peer_name: far_name,
            peer_netns: Some(&far.netns),
            mtu: None,
            mac: None,
            peer_mac: None,
        })
        .unwrap()
        .index;
    let far_index = far.netlink.link_by_name(far_name).unwrap().index;
    up(&mut near.netlink, near_index);
    up(&mut far.netlink, far_index);
    eventually("both ends have a carrier", || {
        near.netlink.link_by_index(near_index).unwrap().is_usable()
            && far.netlink.link_by_index(far_index).unwrap().is_usable()
    });
    (near_index, far_index)
}

pub(crate) fn up(netlink: &mut Netlink, link: LinkIndex) {
    let change = LinkChange {
        up: Some(true),
        ..LinkChange::default()
    };
    netlink.change_link(link, &change).unwrap();
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
