// SPDX-License-Identifier: Apache-2.0
//! A fabric with IPv6 alone on its links: one session per router carries both families, and IPv4
//! goes by IPv6 next hops (RFC 8950) from the routers' tables down to the kernels.

use anyhow::{Result, ensure};
use harness::{
    CONVERGED, Family, Signal, causeway, frr, kernel, lab, pod::Pod, traffic::Transfer, wait_for,
};

#[test]
fn ipv4_goes_by_ipv6_next_hops() -> Result<()> {
    let lab = lab("fabric-v6", "v6")?;
    let (node1, node2) = (lab.node("node1"), lab.node("node2"));
    let (tor1, spine) = (lab.node("tor1"), lab.node("spine"));
    for (router, peer) in [
        ("tor1", "fd00:172:16:11::2"),
        ("tor1", "fd00:172:16:12::2"),
        ("tor2", "fd00:172:16:21::2"),
        ("tor2", "fd00:172:16:22::2"),
    ] {
        wait_for(peer, CONVERGED, || frr::established(lab.node(router), peer))?;
    }
    for node in [node1, node2] {
        wait_for("a healthy node", CONVERGED, || causeway::healthy(node))?;
        let peer = causeway::established(node, "tor1")?;
        let families = peer["families"].as_array().into_iter().flatten();
        let negotiated = families.filter(|family| family["negotiated"] == true);
        assert_eq!(
            negotiated.count(),
            2,
            "both families on one session: {peer}"
        );
    }

    for (family, prefix, next_hop) in [
        (Family::Ipv4, "10.244.1.0/24", "fd00:172:16:11::2"),
        (Family::Ipv4, "10.244.2.0/24", "fd00:172:16:12::2"),
        (Family::Ipv6, "fd00:10:244:1::/64", "fd00:172:16:11::2"),
        (Family::Ipv6, "fd00:10:244:2::/64", "fd00:172:16:12::2"),
    ] {
        let paths = wait_for(prefix, CONVERGED, || {
            frr::used_paths(tor1, family, prefix, 1)
        })?;
        assert_eq!(paths[0].as_path, [65001], "{paths:?}");
        assert_eq!(paths[0].communities, ["65001:100"], "{paths:?}");
        ensure!(
            paths[0].next_hops.iter().any(|hop| hop == next_hop),
            "{prefix} on tor1 goes by {next_hop}: {paths:?}"
        );
        wait_for("the spine to use both routers", CONVERGED, || {
            frr::used_paths(spine, family, prefix, 2)
        })?;
    }
    let gateways = ["fd00:172:16:11::1", "fd00:172:16:21::1"];
    for family in [Family::Ipv4, Family::Ipv6] {
        let route = wait_for("the default route by both routers", CONVERGED, || {
            kernel::routed_by(node1, family, "default", &gateways)
        })?;
        assert_eq!(route.protocol, "bgp");
    }

    for node in [node1, node2] {
        wait_for("the plugin to serve", CONVERGED, || {
            Pod::plugin_serves(node)
        })?;
    }
    let (a, b) = (Pod::add(node1, "a")?, Pod::add(node2, "b")?);
    for target in [
        b.v4.to_string(),
        b.v6.to_string(),
        "192.168.100.10".to_owned(),
        "fd00:192:168:100::10".to_owned(),
    ] {
        wait_for(&format!("pod a to reach {target}"), CONVERGED, || {
            a.exec_ok(&["ping", "-c1", "-W1", &target])
        })?;
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        let transfer = Transfer::start(&a, &b, family)?;
        transfer.more(4 << 20)?;
        transfer.finish()?;
    }

    // Without graceful restart a daemon that is stopped says so (Cease), and the routes go at once.
    node1.kill(Signal::SIGTERM)?;
    wait_for("tor1 to be told", CONVERGED, || {
        let answer = frr::show(tor1, "bgp neighbors fd00:172:16:11::2")?;
        let neighbor = &answer["fd00:172:16:11::2"];
        ensure!(
            neighbor["lastNotificationReason"] == "Cease/Administrative Shutdown"
                && neighbor["lastShutdownDescription"] == "the speaker stops",
            "no such notification: {neighbor}"
        );
        frr::used_paths(tor1, Family::Ipv4, "10.244.1.0/24", 0)
    })?;
    lab.down()
}
