// SPDX-License-Identifier: Apache-2.0
//! The main job: two nodes, two top-of-rack routers in ASes of their own, a spine, a host outside.
//! What the routers know is read from their own vtysh, what packets do from packets.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use harness::{
    BgpPath, CONVERGED, Family, Lab, Node, causeway, frr, kernel, lab, pod::Pod, traffic::Transfer,
    wait_for,
};

/// Every session between a node and a router: the node's name of the peer, the router, and the
/// node's address there.
const SESSIONS: [(&str, &str, &str, &str); 8] = [
    ("node1", "tor1-v4", "tor1", "172.16.11.2"),
    ("node1", "tor1-v6", "tor1", "fd00:172:16:11::2"),
    ("node1", "tor2-v4", "tor2", "172.16.21.2"),
    ("node1", "tor2-v6", "tor2", "fd00:172:16:21::2"),
    ("node2", "tor1-v4", "tor1", "172.16.12.2"),
    ("node2", "tor1-v6", "tor1", "fd00:172:16:12::2"),
    ("node2", "tor2-v4", "tor2", "172.16.22.2"),
    ("node2", "tor2-v6", "tor2", "fd00:172:16:22::2"),
];

/// A node's next hops for the default route.
const NODE1_GATEWAYS: [(Family, [&str; 2]); 2] = [
    (Family::Ipv4, ["172.16.11.1", "172.16.21.1"]),
    (Family::Ipv6, ["fd00:172:16:11::1", "fd00:172:16:21::1"]),
];

#[test]
fn the_fabric_learns_the_cluster_and_the_nodes_learn_the_way_out() -> Result<()> {
    let lab = lab("fabric", "routes")?;
    sessions_are_up(&lab)?;

    let (tor1, spine) = (lab.node("tor1"), lab.node("spine"));
    for (family, prefix, next_hop, at_spine) in [
        (Family::Ipv4, "10.244.1.0/24", "172.16.11.2", "172.16.101.2"),
        (Family::Ipv4, "10.244.2.0/24", "172.16.12.2", "172.16.101.2"),
        (
            Family::Ipv6,
            "fd00:10:244:1::/64",
            "fd00:172:16:11::2",
            "fd00:172:16:101::2",
        ),
        (
            Family::Ipv6,
            "fd00:10:244:2::/64",
            "fd00:172:16:12::2",
            "fd00:172:16:101::2",
        ),
    ] {
        let paths = wait_for(prefix, CONVERGED, || {
            frr::used_paths(tor1, family, prefix, 1)
        })?;
        assert_eq!(paths[0].as_path, [65001], "{prefix} on tor1: {paths:?}");
        assert_eq!(
            paths[0].next_hops[0], next_hop,
            "{prefix} on tor1: {paths:?}"
        );
        assert_eq!(paths[0].communities, ["65001:100"], "{prefix} on tor1");
        assert_eq!(
            paths[0].large_communities,
            ["65001:1:100"],
            "{prefix} on tor1"
        );
        // Both routers pass it on, so the spine spreads over both.
        let paths = wait_for(prefix, CONVERGED, || {
            frr::used_paths(spine, family, prefix, 2)
        })?;
        let by_tor1 = by_next_hop(&paths, at_spine)?;
        assert_eq!(by_tor1.as_path, [65101, 65001], "{prefix} on the spine");
        assert_eq!(by_tor1.communities, ["65001:100"], "{prefix} on the spine");
        assert_eq!(
            by_tor1.large_communities,
            ["65001:1:100"],
            "{prefix} on the spine"
        );
    }

    for (family, prefix, hops) in [
        (
            Family::Ipv4,
            "10.255.0.1/32",
            ["172.16.11.2", "172.16.12.2"],
        ),
        (
            Family::Ipv6,
            "fd00:10:255::1/128",
            ["fd00:172:16:11::2", "fd00:172:16:12::2"],
        ),
    ] {
        let paths = wait_for("the shared prefix by both nodes", CONVERGED, || {
            frr::used_paths(tor1, family, prefix, 2)
        })?;
        for hop in hops {
            let path = by_next_hop(&paths, hop)?;
            assert_eq!(path.as_path, [65001]);
            assert_eq!(path.communities, ["65001:300"]);
            assert_eq!(path.large_communities, ["65001:1:300"]);
        }
    }
    wait_for("the shared prefix in tor1's kernel", CONVERGED, || {
        kernel::routed_by(
            tor1,
            Family::Ipv4,
            "10.255.0.1",
            &["172.16.11.2", "172.16.12.2"],
        )
    })?;

    let node1 = lab.node("node1");
    for (family, gateways) in NODE1_GATEWAYS {
        let route = wait_for("the default route", CONVERGED, || {
            kernel::routed_by(node1, family, "default", &gateways)
        })?;
        assert_eq!(route.protocol, "bgp", "{family:?}");
    }
    the_cli_agrees(&lab)?;
    lab.down()
}

#[test]
fn pods_reach_each_other_and_the_outside_also_with_a_link_cut() -> Result<()> {
    let lab = lab("fabric", "pods")?;
    let (node1, node2, outside) = (lab.node("node1"), lab.node("node2"), lab.node("outside"));
    sessions_are_up(&lab)?;
    let (a, b) = (add_pod(node1, "a")?, add_pod(node2, "b")?);
    let neighbour = add_pod(node1, "a2")?;

    for (from, to) in [(&a, &b), (&b, &a), (&a, &neighbour)] {
        for family in [Family::Ipv4, Family::Ipv6] {
            ping(from, address(to, family))?;
            let transfer = Transfer::start(from, to, family)?;
            transfer.more(4 << 20)?;
            transfer.finish()?;
        }
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        let target = address(&a, family);
        wait_for("a ping from outside", CONVERGED, || {
            outside.exec_ok(&["ping", "-c1", "-W1", &target])
        })?;
        let server = a.spawn(&["iperf3", "-s", "-1", "-p", "5201"])?;
        wait_for("TCP from outside", CONVERGED, || {
            outside.exec_ok(&["iperf3", "-c", &target, "-p", "5201", "-n", "4M"])
        })?;
        server.wait(CONVERGED)?;
    }
    ping(&a, "192.168.100.10".into())?;
    ping(&a, "fd00:192:168:100::10".into())?;

    let pods = causeway::items(node1, "pods")?;
    for pod in [&a, &neighbour] {
        let listed = pods.iter().find(|listed| listed["name"] == pod.name());
        let listed = listed.with_context(|| format!("{} is not in {pods:?}", pod.name()))?;
        ensure!(
            listed["state"] == "ready" && listed["addresses"][0] == pod.v4.to_string(),
            "{listed}"
        );
    }
    let datapath = causeway::ask(node1, "datapath")?;
    let counted = datapath["endpoints"].as_array().into_iter().flatten();
    let counted = counted
        .filter(|e| e["txPackets"].as_u64() > Some(0))
        .count();
    ensure!(
        counted == 2,
        "two pods of node1 have sent packets: {datapath}"
    );

    // The link to tor1 is cut under a running transfer: it goes on over tor2.
    let transfer = Transfer::start(&a, &b, Family::Ipv4)?;
    transfer.more(1 << 20)?;
    node1.link_down("eth1")?;
    wait_for("one next hop left", CONVERGED, || {
        kernel::routed_by(node1, Family::Ipv4, "default", &["172.16.21.1"])
    })?;
    wait_for("tor1 to go around the cut link", CONVERGED, || {
        kernel::routed_by(
            lab.node("tor1"),
            Family::Ipv4,
            "10.244.1.0/24",
            &["172.16.101.1"],
        )
    })?;
    transfer.more(4 << 20)?;
    ping(&a, address(&b, Family::Ipv4))?;
    ping(&a, address(&b, Family::Ipv6))?;
    let down = wait_for("the daemon to see the session down", CONVERGED, || {
        let peer = causeway::peer(node1, "tor1-v4")?;
        ensure!(
            peer["session-state"] != "established",
            "{}",
            peer["session-state"]
        );
        Ok(peer)
    })?;
    ensure!(
        down["down-reason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty()),
        "a session that is down says why: {down}"
    );
    ensure!(
        causeway::ask(node1, "status")?["health"] != "ok",
        "a node with a dead session is not healthy"
    );

    node1.link_up("eth1")?;
    // The kernel has dropped the IPv6 address with the link.
    node1.exec_ok(&[
        "ip",
        "address",
        "replace",
        "fd00:172:16:11::2/64",
        "dev",
        "eth1",
    ])?;
    for (family, gateways) in NODE1_GATEWAYS {
        wait_for("both next hops again", CONVERGED, || {
            kernel::routed_by(node1, family, "default", &gateways)
        })?;
    }
    transfer.more(1 << 20)?;
    transfer.finish()?;
    sessions_are_up(&lab)?;
    lab.down()
}

#[test]
fn a_changed_resource_changes_that_and_nothing_else() -> Result<()> {
    let lab = lab("fabric", "live")?;
    sessions_are_up(&lab)?;
    let (node1, tor1, tor2) = (lab.node("node1"), lab.node("tor1"), lab.node("tor2"));
    let pods = "10.244.1.0/24";
    wait_for(pods, CONVERGED, || {
        frr::used_paths(tor1, Family::Ipv4, pods, 1)
    })?;
    let resources = lab
        .files()
        .context("the lab has a private copy")?
        .join("resources.d");
    let before = established_times(&lab)?;

    // A community: only the routes that carry it are sent again.
    edit(
        &resources.join("advertisements.yaml"),
        "65001:100",
        "65001:111",
    )?;
    wait_for("the new community", CONVERGED, || {
        let paths = frr::used_paths(tor1, Family::Ipv4, pods, 1)?;
        ensure!(paths[0].communities == ["65001:111"], "{paths:?}");
        Ok(())
    })?;
    let own = frr::used_paths(tor1, Family::Ipv4, "10.0.0.1/32", 1)?;
    assert_eq!(own[0].communities, ["65001:200"]);
    assert_eq!(before, established_times(&lab)?, "no session was reset");

    // A broken file: everything stays, and the node says where the mistake is.
    let peers = resources.join("peers.yaml");
    let good = fs::read_to_string(&peers)?;
    fs::write(
        &peers,
        good.replace("holdTimeSeconds: 9", "holdTimeSeconds: nine"),
    )?;
    let status = wait_for("the mistake to be shown", CONVERGED, || {
        let status = causeway::ask(node1, "status")?;
        let text = status["issues"].to_string();
        ensure!(
            status["health"] != "ok" && text.contains("peers.yaml"),
            "{status}"
        );
        Ok(status)
    })?;
    ensure!(
        status["issues"].to_string().contains("holdTimeSeconds"),
        "the field is named: {status}"
    );
    assert_eq!(before, established_times(&lab)?, "no session was reset");
    fs::write(&peers, good)?;
    wait_for("the node to be well again", CONVERGED, || {
        causeway::healthy(node1)
    })?;
    assert_eq!(before, established_times(&lab)?, "no session was reset");

    // A peer less: that session ends with a word, the others stay.
    let cluster = resources.join("cluster.yaml");
    let peer = "        - name: tor2-v4\n          peerAddress: 172.16.21.1\n          \
                peerASN: 65102\n          peerConfigRef: { name: fabric-v4 }\n";
    edit(&cluster, peer, "")?;
    wait_for("tor2 to lose the session", CONVERGED, || {
        ensure!(
            frr::established(tor2, "172.16.21.2").is_err(),
            "still established"
        );
        let neighbor = frr::show(tor2, "bgp neighbors 172.16.21.2")?;
        let received = &neighbor["172.16.21.2"]["messageStats"]["notificationsRecv"];
        ensure!(received.as_u64() > Some(0), "no notification: {neighbor}");
        Ok(())
    })?;
    wait_for("one next hop left", CONVERGED, || {
        kernel::routed_by(node1, Family::Ipv4, "default", &["172.16.11.1"])
    })?;
    ensure!(
        causeway::peer(node1, "tor2-v4").is_err(),
        "the peer is gone"
    );
    let now = established_times(&lab)?;
    for (session, (was, is)) in SESSIONS.iter().zip(before.iter().zip(&now)) {
        ensure!(
            was == is || (session.0, session.1) == ("node1", "tor2-v4"),
            "{session:?} was reset: {was} then {is}"
        );
    }
    lab.down()
}

/// Waits until both ends of every session say it is established.
fn sessions_are_up(lab: &Lab) -> Result<()> {
    for (node, peer, router, address) in SESSIONS {
        wait_for(
            &format!("{router}'s session with {node}"),
            CONVERGED,
            || frr::established(lab.node(router), address),
        )?;
        wait_for(&format!("{node}'s session with {peer}"), CONVERGED, || {
            causeway::established(lab.node(node), peer)
        })?;
    }
    Ok(())
}

/// When each session was established, as the router has it.
fn established_times(lab: &Lab) -> Result<Vec<String>> {
    let mut times = Vec::new();
    for (_, _, router, address) in SESSIONS {
        let answer = frr::show(lab.node(router), &format!("bgp neighbors {address}"))?;
        let neighbor = &answer[address];
        times.push(format!(
            "{} established, {} dropped",
            neighbor["connectionsEstablished"], neighbor["connectionsDropped"]
        ));
    }
    Ok(times)
}

/// What `causeway` says of node1 is what FRR and the kernel say.
fn the_cli_agrees(lab: &Lab) -> Result<()> {
    let node1 = lab.node("node1");
    wait_for("node1 to be healthy", CONVERGED, || {
        causeway::healthy(node1)
    })?;
    for (node, name, router, address) in SESSIONS {
        let peer = causeway::established(lab.node(node), name)?;
        let answer = frr::show(lab.node(router), &format!("bgp neighbors {address}"))?;
        let families = answer[address]["addressFamilyInfo"].as_object();
        let accepted = families
            .into_iter()
            .flatten()
            .find_map(|(_, family)| family["acceptedPrefixCounter"].as_u64());
        assert_eq!(
            peer["families"][0]["advertised"].as_u64(),
            accepted,
            "{node}, {name}: what it sent and what {router} took: {answer}"
        );
        assert_eq!(
            peer["families"][0]["accepted"], 1,
            "the default route: {peer}"
        );
        assert_eq!(
            peer["tcp-password-enabled"],
            (node, name) == ("node1", "tor1-v4")
        );
    }
    let routes = causeway::items(node1, "bgp routes available ipv4 unicast 0.0.0.0/0")?;
    let used = routes
        .iter()
        .filter(|r| r["best"] == true || r["multipath"] == true);
    assert_eq!(used.count(), 2, "{routes:?}");
    let advertised = causeway::items(node1, "bgp routes advertised ipv4 unicast peer tor1-v4")?;
    let mut prefixes: Vec<&str> = advertised
        .iter()
        .filter_map(|r| r["prefix"].as_str())
        .collect();
    prefixes.sort_unstable();
    assert_eq!(prefixes, ["10.0.0.1/32", "10.244.1.0/24", "10.255.0.1/32"]);
    let fib = causeway::items(node1, "fib")?;
    for (prefix, gateways) in [
        ("0.0.0.0/0", NODE1_GATEWAYS[0].1),
        ("::/0", NODE1_GATEWAYS[1].1),
    ] {
        let route = fib.iter().find(|route| route["prefix"] == prefix);
        let route = route.with_context(|| format!("{prefix} is not in {fib:?}"))?;
        let hops = route["nextHops"].as_array().into_iter().flatten();
        let mut hops: Vec<&str> = hops.filter_map(|hop| hop["via"].as_str()).collect();
        hops.sort_unstable();
        assert_eq!(hops, gateways);
        assert_eq!(route["state"], "installed");
    }
    let datapath = causeway::ask(node1, "datapath")?;
    let hooks = datapath["hooks"].as_array().into_iter().flatten();
    let mut devices: Vec<&str> = hooks.filter_map(|hook| hook["device"].as_str()).collect();
    devices.sort_unstable();
    assert_eq!(devices, ["eth1", "eth2"]);
    Ok(())
}

fn by_next_hop<'a>(paths: &'a [BgpPath], next_hop: &str) -> Result<&'a BgpPath> {
    let found = paths
        .iter()
        .find(|path| path.next_hops.iter().any(|hop| hop == next_hop));
    found.with_context(|| format!("no path by {next_hop}: {paths:?}"))
}

fn add_pod<'a>(node: &'a Node, name: &str) -> Result<Pod<'a>> {
    wait_for("the plugin to serve", CONVERGED, || {
        Pod::plugin_serves(node)
    })?;
    Pod::add(node, name)
}

fn address(pod: &Pod<'_>, family: Family) -> String {
    match family {
        Family::Ipv4 => pod.v4.to_string(),
        Family::Ipv6 => pod.v6.to_string(),
    }
}

fn ping(from: &Pod<'_>, target: String) -> Result<()> {
    let what = format!("{} to reach {target}", from.name());
    wait_for(&what, CONVERGED, || {
        from.exec_ok(&["ping", "-c1", "-W1", &target])
    })
    .map(drop)
}

fn edit(file: &Path, from: &str, to: &str) -> Result<()> {
    let text = fs::read_to_string(file)?;
    ensure!(text.contains(from), "{} has no {from:?}", file.display());
    fs::write(file, text.replace(from, to))?;
    Ok(())
}
