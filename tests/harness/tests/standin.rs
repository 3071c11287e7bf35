// SPDX-License-Identifier: Apache-2.0
//! The labs' other sides, with BIRD 3 in the place of our nodes: when an interop test fails and
//! these pass, the fault is not the fabric's or the harness's.

use std::path::Path;

use anyhow::{Result, ensure};
use harness::{BgpPath, CONVERGED, Family, Lab, bird, frr, gobgp, kernel, lab_from, wait_for};

fn standin(topology: &str) -> Result<Lab> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/standin");
    lab_from(&folder.join(format!("{topology}.clab.yml")), "harness")
}

#[test]
fn the_fabric_spreads_what_two_nodes_announce() -> Result<()> {
    let lab = standin("fabric")?;
    let (tor1, spine, node1) = (lab.node("tor1"), lab.node("spine"), lab.node("node1"));
    for peer in [
        "172.16.11.2",
        "fd00:172:16:12::2",
        "172.16.101.1",
        "fd00:172:16:101::1",
    ] {
        wait_for(peer, CONVERGED, || frr::established(tor1, peer))?;
    }
    let one = wait_for("node1's pods on tor1", CONVERGED, || {
        frr::used_paths(tor1, Family::Ipv4, "10.244.1.0/24", 1)
    })?;
    assert_eq!(
        one,
        [BgpPath {
            as_path: vec![65001],
            next_hops: vec!["172.16.11.2".into()],
            communities: vec!["65001:100".into()],
            large_communities: vec![],
            is_used: true,
        }]
    );
    wait_for("node1's IPv6 pods on tor1", CONVERGED, || {
        frr::used_paths(tor1, Family::Ipv6, "fd00:10:244:1::/64", 1)
    })?;
    wait_for("the shared prefix by both nodes", CONVERGED, || {
        frr::used_paths(tor1, Family::Ipv4, "10.255.0.1/32", 2)?;
        kernel::routed_by(
            tor1,
            Family::Ipv4,
            "10.255.0.1",
            &["172.16.11.2", "172.16.12.2"],
        )
    })?;
    wait_for("the shared prefix by both routers", CONVERGED, || {
        let paths = frr::used_paths(spine, Family::Ipv4, "10.255.0.1/32", 2)?;
        ensure!(
            paths.iter().all(|path| path.as_path.len() == 2),
            "{paths:?}"
        );
        Ok(())
    })?;
    for (family, gateways) in [
        (Family::Ipv4, ["172.16.11.1", "172.16.21.1"]),
        (Family::Ipv6, ["fd00:172:16:11::1", "fd00:172:16:21::1"]),
    ] {
        wait_for("a default route by both routers", CONVERGED, || {
            kernel::routed_by(node1, family, "default", &gateways)
        })?;
    }
    wait_for("outside to reach node2", CONVERGED, || {
        lab.node("outside")
            .exec_ok(&["ping", "-c1", "-W1", "172.16.22.2"])
    })?;

    node1.link_down("eth1")?;
    wait_for("tor1 to go around the cut link", CONVERGED, || {
        kernel::routed_by(tor1, Family::Ipv4, "10.244.1.0/24", &["172.16.101.1"])
    })?;
    lab.down()
}

#[test]
fn four_speakers_hold_sessions_and_are_understood() -> Result<()> {
    let lab = standin("peers")?;
    wait_for("frr", CONVERGED, || {
        frr::established(lab.node("frr"), "10.1.1.1")
    })?;
    wait_for("frr, IPv6", CONVERGED, || {
        frr::established(lab.node("frr"), "fd00:10:1:1::1")
    })?;
    wait_for("bird2", CONVERGED, || {
        bird::established(lab.node("bird2"), "node1")
    })?;
    wait_for("bird3", CONVERGED, || {
        bird::established(lab.node("bird3"), "node1")
    })?;
    wait_for("gobgp", CONVERGED, || {
        gobgp::established(lab.node("gobgp"), "10.1.4.1")
    })?;

    let pods = "10.244.1.0/24";
    let expected = |paths: Vec<BgpPath>, next_hop: &str| {
        let [path] = paths.as_slice() else {
            anyhow::bail!("{paths:?}")
        };
        ensure!(
            path.is_used && path.as_path == [65001] && path.next_hops == [next_hop],
            "{path:?}"
        );
        Ok(())
    };
    wait_for("pods on frr", CONVERGED, || {
        expected(frr::paths(lab.node("frr"), Family::Ipv4, pods)?, "10.1.1.1")
    })?;
    wait_for("pods on bird2", CONVERGED, || {
        expected(bird::paths(lab.node("bird2"), pods)?, "10.1.2.1")
    })?;
    wait_for("pods on bird3", CONVERGED, || {
        expected(bird::paths(lab.node("bird3"), pods)?, "10.1.0.1")
    })?;
    wait_for("pods on gobgp", CONVERGED, || {
        expected(
            gobgp::paths(lab.node("gobgp"), Family::Ipv4, pods)?,
            "10.1.4.1",
        )
    })?;
    assert!(bird::paths(lab.node("bird3"), "10.77.0.0/24")?.is_empty());

    let node = lab.node("node1");
    let tagged = wait_for("what gobgp announces", CONVERGED, || {
        let paths = bird::paths(node, "10.14.0.0/24")?;
        paths
            .into_iter()
            .next()
            .ok_or_else(|| anyhow::anyhow!("no path"))
    })?;
    assert_eq!(tagged.communities, ["65014:1"]);
    let tagged = wait_for("what bird3 announces", CONVERGED, || {
        let paths = bird::paths(node, "10.13.0.0/24")?;
        paths
            .into_iter()
            .next()
            .ok_or_else(|| anyhow::anyhow!("no path"))
    })?;
    assert_eq!(tagged.as_path, [4_200_000_013]);
    assert_eq!(tagged.large_communities, ["4200000013:1:2"]);
    lab.down()
}
