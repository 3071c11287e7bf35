// SPDX-License-Identifier: Apache-2.0
//! The daemon dies, or is stopped, under running traffic: nobody notices, and the next one takes
//! over what is there and removes what is no longer wanted.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, ensure};
use harness::{
    CONVERGED, Family, Lab, Node, Signal, causeway,
    fabric::{self, converged, default_by_both},
    frr, kernel, lab,
    pod::{self, Pod, reachable},
    traffic::{Stream, Transfer},
    wait_for,
};

/// Datagrams a second of each stream.
const RATE: u32 = 1000;
#[test]
fn nothing_is_lost_when_the_daemon_is_killed() -> Result<()> {
    let lab = lab("fabric", "kill")?;
    let (node1, node2) = (lab.node("node1"), lab.node("node2"));
    converged(&lab)?;
    let (a, neighbour, b) = (
        Pod::add(node1, "a")?,
        Pod::add(node1, "a2")?,
        Pod::add(node2, "b")?,
    );
    reachable(&a, &b)?;

    let streams = [
        Stream::start(&a, &b, Family::Ipv4, RATE)?,
        Stream::start(&b, &a, Family::Ipv6, RATE)?,
        Stream::start(&a, &neighbour, Family::Ipv4, RATE)?,
    ];
    let across = Transfer::start(&a, &b, Family::Ipv4)?;
    let local = Transfer::start(&neighbour, &a, Family::Ipv6)?;
    let flows = |count: u64| -> Result<()> {
        streams.iter().try_for_each(|stream| stream.more(count))?;
        across.more(1 << 20)?;
        local.more(1 << 20)
    };
    flows(500)?;
    let counted = packets(node1)?;
    let established = established_counts(&lab)?;

    node1.kill(Signal::SIGKILL)?;
    // Dead, and for a while: the kernel keeps the routes, the routers keep theirs, traffic flows.
    for session in fabric::SESSIONS {
        wait_for("the routers to lose the session", CONVERGED, || {
            ensure!(
                frr::established(lab.node(session.1), session.2).is_err(),
                "still established"
            );
            Ok(())
        })?;
    }
    flows(3000)?;
    default_by_both(node1)?;
    wait_for("tor1 to keep node1's pods", CONVERGED, || {
        frr::used_paths(lab.node("tor1"), Family::Ipv4, "10.244.1.0/24", 1)
    })?;

    node1.start()?;
    flows(1000)?;
    converged(&lab)?;
    default_by_both(node1)?;
    for (session, (before, after)) in fabric::SESSIONS
        .iter()
        .zip(established.iter().zip(established_counts(&lab)?))
    {
        assert_eq!(after, before + 1, "{session:?}: established once more");
    }
    wait_for("nothing stale to be left", CONVERGED, || {
        let fib = causeway::items(node1, "fib")?;
        ensure!(
            fib.iter().all(|route| route["state"] == "installed"),
            "{fib:?}"
        );
        Ok(())
    })?;
    let datapath = causeway::ask(node1, "datapath")?;
    assert_eq!(
        datapath["adopted"], true,
        "the new daemon adopts: {datapath}"
    );
    flows(1000)?;

    let after = packets(node1)?;
    assert_eq!(
        counted.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>(),
        "the same pods"
    );
    for (pod, before) in &counted {
        // More than since the start alone: the counters were not begun anew.
        ensure!(
            after[pod] >= before + 5000,
            "packets of {pod} went from {before} to {}",
            after[pod]
        );
    }
    across.finish()?;
    local.finish()?;
    for stream in streams {
        let report = stream.finish()?;
        eprintln!(
            "{} sent, {} lost, {} twice, longest silence {:?}",
            report.sent,
            report.lost.len(),
            report.duplicates,
            report.longest_silence
        );
        ensure!(
            report.lost.is_empty() && report.duplicates == 0,
            "{report:?}"
        );
    }
    // It still serves.
    Pod::add(node1, "a3")?.remove()?;
    lab.down()
}

#[test]
fn what_went_away_meanwhile_is_pruned() -> Result<()> {
    let lab = lab("fabric", "prune")?;
    let (node1, tor1) = (lab.node("node1"), lab.node("tor1"));
    converged(&lab)?;
    let (kept, gone) = (Pod::add(node1, "kept")?, Pod::add(node1, "gone")?);
    let devices = pod::devices(node1)?;
    assert_eq!(devices.len(), 2, "{devices:?}");

    node1.kill(Signal::SIGKILL)?;
    gone.vanish()?;
    let resources = lab
        .files()
        .context("the lab has a private copy")?
        .join("resources.d");
    // A peer less.
    let cluster = resources.join("cluster.yaml");
    let text = fs::read_to_string(&cluster)?;
    let peer = "        - name: tor2-v4\n          peerAddress: 172.16.21.1\n          \
                peerASN: 65102\n          peerConfigRef: { name: fabric-v4 }\n";
    ensure!(text.contains(peer), "{text}");
    fs::write(&cluster, text.replace(peer, ""))?;
    // And an advertisement less.
    let advertisements = resources.join("advertisements.yaml");
    let text = fs::read_to_string(&advertisements)?;
    let (others, shared) = text
        .split_once("    - advertisementType: Interface\n      interface: { name: shared0 }")
        .context("the shared address is advertised")?;
    ensure!(!shared.is_empty());
    fs::write(&advertisements, others)?;

    node1.start()?;
    wait_for("the session with tor1", CONVERGED, || {
        causeway::established(node1, "tor1-v4")?;
        causeway::established(node1, "tor1-v6")
    })?;
    wait_for(
        "the next hop of the peer that went to go",
        CONVERGED,
        || kernel::routed_by(node1, Family::Ipv4, "default", &["172.16.11.1"]),
    )?;
    wait_for("the other family to have both", CONVERGED, || {
        fabric::default_of(
            node1,
            Family::Ipv6,
            &["fd00:172:16:11::1", "fd00:172:16:21::1"],
        )
    })?;
    // Both nodes read the same files: node2 has withdrawn it at once, and tor1 kept what node1 had
    // announced until node1 was back and had announced everything else. tor2 keeps it for the rest
    // of the restart time, because there node1 does not come back.
    wait_for("the prefix that is not advertised to go", CONVERGED, || {
        let paths = frr::paths(tor1, Family::Ipv4, "10.255.0.1/32")?;
        ensure!(
            paths.iter().all(|path| path.as_path != [65001]),
            "{paths:?}"
        );
        Ok(())
    })?;
    frr::used_paths(tor1, Family::Ipv4, "10.244.1.0/24", 1)?;
    wait_for("the pod that went to be forgotten", CONVERGED, || {
        let datapath = causeway::ask(node1, "datapath")?;
        let endpoints = datapath["endpoints"].as_array().context("endpoints")?;
        let names: Vec<&str> = endpoints.iter().filter_map(|e| e["pod"].as_str()).collect();
        ensure!(names == ["kept"], "{names:?}");
        ensure!(
            pod::devices(node1)?.len() == 1,
            "{:?}",
            pod::devices(node1)?
        );
        Ok(())
    })?;
    wait_for("the pod that stayed to be reached", CONVERGED, || {
        node1.exec_ok(&["ping", "-c1", "-W1", &kept.v4.to_string()])
    })?;
    lab.down()
}

#[test]
fn a_stop_is_clean_and_quiet() -> Result<()> {
    let lab = lab("fabric", "term")?;
    let (node1, node2, tor1) = (lab.node("node1"), lab.node("node2"), lab.node("tor1"));
    converged(&lab)?;
    let (a, b) = (Pod::add(node1, "a")?, Pod::add(node2, "b")?);
    reachable(&a, &b)?;
    let stream = Stream::start(&b, &a, Family::Ipv4, RATE)?;

    // A daemon that is this test's child, so that its exit code is seen.
    node1.kill(Signal::SIGKILL)?;
    let daemon = node1.spawn(&["causewayd", "--config", "/etc/causeway/causeway.yaml"])?;
    converged(&lab)?;
    daemon.signal(Signal::SIGTERM)?;
    daemon
        .wait(CONVERGED)
        .context("a stop ends with exit code 0")?;
    wait_for("tor1 to see the session end", CONVERGED, || {
        ensure!(
            frr::established(tor1, "172.16.11.2").is_err(),
            "still established"
        );
        Ok(())
    })?;
    // Graceful restart is agreed: no NOTIFICATION, and the routes stay.
    let answer = frr::show(tor1, "bgp neighbors 172.16.11.2")?;
    assert_eq!(
        answer["172.16.11.2"]["messageStats"]["notificationsRecv"],
        0
    );
    stream.more(2000)?;
    default_by_both(node1)?;
    frr::used_paths(tor1, Family::Ipv4, "10.244.1.0/24", 1)?;
    node1.start()?;
    converged(&lab)?;
    stream.more(1000)?;
    let report = stream.finish()?;
    ensure!(report.lost.is_empty(), "{report:?}");
    lab.down()
}

/// How often each session was established, as the routers count.
fn established_counts(lab: &Lab) -> Result<Vec<u64>> {
    let mut counts = Vec::new();
    for (_, router, address) in fabric::SESSIONS {
        let answer = frr::show(lab.node(router), &format!("bgp neighbors {address}"))?;
        let count = answer[address]["connectionsEstablished"].as_u64();
        counts.push(count.with_context(|| format!("no count: {answer}"))?);
    }
    Ok(counts)
}

/// Packets to and from each pod of a node, by name.
fn packets(node: &Node) -> Result<BTreeMap<String, u64>> {
    let datapath = causeway::ask(node, "datapath")?;
    let endpoints = datapath["endpoints"].as_array().context("endpoints")?;
    let count = |endpoint: &serde_json::Value| {
        let name = endpoint["pod"].as_str()?.to_owned();
        Some((
            name,
            endpoint["rxPackets"].as_u64()? + endpoint["txPackets"].as_u64()?,
        ))
    };
    Ok(endpoints.iter().filter_map(count).collect())
}
