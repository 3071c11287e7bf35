// SPDX-License-Identifier: Apache-2.0
//! Peers that are written nowhere: at the gateways of the default routes, which move, and alone on an
//! interface without addresses.

use std::fs;

use anyhow::{Context, Result, ensure};
use harness::{CONVERGED, Family, Node, causeway, frr, kernel, lab, upgrade, wait_for};
use serde_json::Value;

const GATEWAYS_V6: [&str; 2] = ["gateway6:fd00:172:16:1::1", "gateway6:fd00:172:16:2::1"];

#[test]
fn peers_are_found_at_gateways_and_on_interfaces() -> Result<()> {
    let lab = lab("discovery", "disc")?;
    let node1 = lab.node("node1");
    let (gw1, gw2, tor) = (lab.node("gw1"), lab.node("gw2"), lab.node("tor"));
    let pods = "10.244.1.0/24";

    // Unnumbered: neither end knows an address of the other, both families go over the session.
    wait_for("the session without addresses", CONVERGED, || {
        causeway::established(node1, "tor")
    })?;
    for (family, own, theirs) in [
        (Family::Ipv4, pods, "198.51.100.0/24"),
        (Family::Ipv6, "fd00:10:244:1::/64", "2001:db8:100::/48"),
    ] {
        wait_for(own, CONVERGED, || frr::used_paths(tor, family, own, 1))?;
        let routes = wait_for(theirs, CONVERGED, || {
            let routes = kernel::routes(node1, family, theirs)?;
            ensure!(!routes.is_empty(), "node1 has no route to {theirs}");
            Ok(routes)
        })?;
        let gateway = &routes[0].next_hops[0];
        ensure!(gateway.starts_with("fe80:"), "{theirs} goes by {gateway}");
    }
    wait_for("FRR to use the way in", CONVERGED, || {
        let routes = kernel::routes(tor, Family::Ipv4, pods)?;
        ensure!(!routes.is_empty(), "tor has no route to {pods}");
        Ok(())
    })?;

    // The gateways of both families, one session with each.
    for name in ["gateway:172.16.1.1", "gateway6:fd00:172:16:1::1"] {
        wait_for(name, CONVERGED, || causeway::established(node1, name))?;
    }
    wait_for("gw1 to know the pods by both sessions", CONVERGED, || {
        frr::used_paths(gw1, Family::Ipv4, pods, 2)
    })?;

    // The default route moves, and the session with it. What gw1 announced does not hold it.
    node1.exec_ok(&["ip", "route", "replace", "default", "via", "172.16.2.1"])?;
    wait_for("the session with gw2", CONVERGED, || {
        causeway::established(node1, "gateway:172.16.2.1")
    })?;
    ensure!(
        gone(node1, "gateway:172.16.1.1")?,
        "the old session is kept"
    );
    wait_for("gw2 to know the pods", CONVERGED, || {
        frr::used_paths(gw2, Family::Ipv4, pods, 1)
    })?;

    // Two gateways at once: the session there is stays as it is.
    let before = causeway::established(node1, "gateway:172.16.2.1")?;
    node1.exec_ok(&[
        "ip",
        "route",
        "replace",
        "default",
        "nexthop",
        "via",
        "172.16.1.1",
        "nexthop",
        "via",
        "172.16.2.1",
    ])?;
    wait_for("the session with gw1 again", CONVERGED, || {
        causeway::established(node1, "gateway:172.16.1.1")
    })?;
    let after = causeway::established(node1, "gateway:172.16.2.1")?;
    assert_eq!(before["state-since"], after["state-since"]);
    gateways_of_ipv6(node1, gw2)?;

    // The next daemon finds them again and goes on with their sessions.
    let saw = || -> Result<[upgrade::Seen; 2]> {
        let gw2 = upgrade::seen_by_frr(gw2, "172.16.2.2")?;
        Ok([upgrade::seen_by_frr(tor, "eth1")?, gw2])
    };
    let seen = saw()?;
    let sessions = ["tor", "gateway:172.16.2.1"];
    let _daemon = upgrade::take_over(node1, &sessions, &[])?;
    assert_eq!(seen, saw()?);
    let before = causeway::established(node1, "gateway:172.16.2.1")?;

    // A cordoned node asks to be left (RFC 8326) as its configuration says, by a live change.
    let files = lab.files().context("the lab has a copy of its files")?;
    let node =
        "apiVersion: v1\nkind: Node\nmetadata: { name: node1 }\nspec: { unschedulable: true }\n";
    fs::write(files.join("resources.d/node.yaml"), node)?;
    wait_for(
        "the pods to be announced for the last choice",
        CONVERGED,
        || {
            let paths = frr::used_paths(tor, Family::Ipv4, pods, 1)?;
            ensure!(
                paths[0].communities == ["gracefulShutdown"],
                "tor has {paths:?}"
            );
            Ok(())
        },
    )?;
    let still = causeway::established(node1, "gateway:172.16.2.1")?;
    assert_eq!(before["state-since"], still["state-since"]);

    // Without a default route there is no peer, and the status says why.
    node1.exec_ok(&["ip", "-4", "route", "delete", "default", "metric", "0"])?;
    wait_for("no gateway to be left", CONVERGED, || {
        ensure!(gone(node1, "gateway:172.16.1.1")?, "gw1 is still a peer");
        ensure!(gone(node1, "gateway:172.16.2.1")?, "gw2 is still a peer");
        let said = causeway::ask(node1, "status")?.to_string();
        ensure!(said.contains("no IPv4 default route"), "{said}");
        Ok(())
    })?;
    node1.exec_ok(&["ip", "-6", "route", "delete", "default"])?;
    wait_for("no gateway of IPv6 to be left", CONVERGED, || {
        ensure!(gone(node1, GATEWAYS_V6[0])?, "gw1 is still a peer");
        ensure!(gone(node1, GATEWAYS_V6[1])?, "gw2 is still a peer");
        let said = causeway::ask(node1, "status")?.to_string();
        ensure!(said.contains("no IPv6 default route"), "{said}");
        Ok(())
    })?;
    causeway::established(node1, "tor")?;
    lab.down()
}

/// The default route of IPv6 moves, and then has two gateways; the sessions of IPv4 do not notice.
fn gateways_of_ipv6(node1: &Node, gw2: &Node) -> Result<()> {
    let [first, second] = GATEWAYS_V6;
    let since = |name: &str| -> Result<Value> {
        Ok(causeway::established(node1, name)?["state-since"].clone())
    };
    let of_ipv4 = since("gateway:172.16.1.1")?;
    let route = |hops: &[&str]| {
        let mut argv = vec!["ip", "-6", "route", "replace", "default"];
        argv.extend(hops);
        node1.exec_ok(&argv)
    };
    route(&["via", "fd00:172:16:2::1"])?;
    wait_for("the IPv6 session with gw2", CONVERGED, || {
        frr::established(gw2, "fd00:172:16:2::2")?;
        causeway::established(node1, second)
    })?;
    ensure!(gone(node1, first)?, "the old session is kept");
    let of_second = since(second)?;
    let (gw1, gw2) = ("fd00:172:16:1::1", "fd00:172:16:2::1");
    route(&["nexthop", "via", gw1, "nexthop", "via", gw2])?;
    wait_for("the IPv6 session with gw1 again", CONVERGED, || {
        causeway::established(node1, first)
    })?;
    assert_eq!(since(second)?, of_second);
    assert_eq!(since("gateway:172.16.1.1")?, of_ipv4);
    Ok(())
}

fn gone(node: &Node, name: &str) -> Result<bool> {
    let peers = causeway::items(node, "bgp peers")?;
    Ok(peers.iter().all(|peer| peer["name"] != name))
}
