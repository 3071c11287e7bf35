// SPDX-License-Identifier: Apache-2.0
//! BFD beside BGP: against FRR on a link with both families and echo both ways, against BIRD 2 with keyed MD5, and
//! against BIRD 3 two hops away with meticulous SHA1.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::{CONVERGED, Lab, Node, Signal, bird, causeway, frr, lab, wait_for};
use serde_json::Value;

/// BGP peers with the addresses BFD knows them by.
const PEERS: [(&str, &str); 4] = [
    ("frr-v4", "10.5.1.2"),
    ("frr-v6", "fd00:10:5:1::2"),
    ("bird2", "10.5.2.2"),
    ("bird3", "10.5.0.13"),
];

/// The addresses of FRR.
const FRR: [&str; 2] = ["10.5.1.2", "fd00:10:5:1::2"];

#[test]
fn sessions_with_frr_and_bird_are_watched() -> Result<()> {
    let lab = lab("bfd", "bfd")?;
    let (node, router) = (lab.node("node1"), lab.node("frr"));
    all_up(&lab)?;

    // What was negotiated, and how.
    for (name, peer) in PEERS {
        let found = wait_for(&format!("{name} to be negotiated"), CONVERGED, || {
            let found = session(node, peer)?;
            ensure!(found["transmitIntervalUs"] == 100_000, "{found:#}");
            ensure!(found["detectionTimeUs"] == 300_000, "{found:#}");
            ensure!(found["polling"] == false, "{found:#}");
            Ok(found)
        })?;
        let hops = if name == "bird3" {
            "multi-hop"
        } else {
            "single-hop"
        };
        assert_eq!(found["hops"], hops, "{found:#}");
    }
    let ours = frr_session(router, "10.5.1.1")?;
    assert_eq!(ours["remote-receive-interval"], 100, "{ours:#}");
    assert_eq!(ours["remote-echo-receive-interval"], 50, "{ours:#}");
    for bird in ["bird2", "bird3"] {
        let table = bird::run(lab.node(bird), "show bfd sessions")?;
        ensure!(table.contains("Up"), "{bird}: {table}");
    }

    // FRR's echo packets come back to it: of IPv4 by the kernel, of IPv6 by us.
    frr::configure(
        router,
        &[
            "bfd",
            "profile fast",
            "echo transmit-interval 60",
            "echo-mode",
        ],
    )?;
    for peer in ["10.5.1.1", "fd00:10:5:1::1"] {
        wait_for(&format!("echo packets of {peer}"), CONVERGED, || {
            let all = frr::show(router, "bfd peers counters")?;
            let all = all.as_array().context("no list")?;
            let found = all.iter().find(|session| session["peer"] == peer);
            let back = found.and_then(|found| found["echo-packet-input"].as_u64());
            ensure!(back.is_some_and(|back| back > 20), "{all:#?}");
            Ok(())
        })?;
    }
    echo_of_ours(&lab)?;
    frr::configure(router, &["bfd", "profile fast", "no echo-mode"])?;

    let before = flaps(node)?;

    // Either end asks for other intervals, and nobody flaps.
    frr::configure(
        router,
        &[
            "bfd",
            "profile fast",
            "transmit-interval 250",
            "receive-interval 200",
        ],
    )?;
    wait_for("FRR's new intervals", CONVERGED, || {
        let found = session(node, "10.5.1.2")?;
        ensure!(found["transmitIntervalUs"] == 200_000, "{found:#}");
        ensure!(found["detectionTimeUs"] == 750_000, "{found:#}");
        Ok(())
    })?;
    let file = lab
        .files()
        .context("a lab of a test has files")?
        .join("resources.d/bfd.yaml");
    let text = fs::read_to_string(&file)?;
    let slower = text.replacen(
        "transmitIntervalMilliseconds: 100",
        "transmitIntervalMilliseconds: 400",
        1,
    );
    fs::write(&file, slower)?;
    wait_for("our new interval at FRR", CONVERGED, || {
        let ours = frr_session(router, "10.5.1.1")?;
        ensure!(ours["remote-transmit-interval"] == 400, "{ours:#}");
        let found = session(node, "10.5.1.2")?;
        ensure!(found["transmitIntervalUs"] == 400_000, "{found:#}");
        Ok(())
    })?;
    assert_eq!(flaps(node)?, before);

    // The daemon is killed: BFD does not notice.
    node.kill(Signal::SIGKILL)?;
    wait_for("FRR to lose BGP", CONVERGED, || {
        ensure!(frr::established(router, "10.5.1.1").is_err(), "established");
        Ok(())
    })?;
    let ours = frr_session(router, "10.5.1.1")?;
    assert_eq!(ours["status"], "up", "{ours:#}");
    node.start()?;
    all_up(&lab)?;
    assert_eq!(flaps(node)?, before, "the same sessions");

    // FRR's BFD falls silent while its BGP is well: the hold time of 90 s is not waited for.
    let heard = notifications(router)?;
    let bfdd = router.exec_ok(&["cat", "/run/frr/bfdd.pid"])?;
    router.exec_ok(&["kill", "-STOP", bfdd.trim()])?;
    // vtysh asks all daemons of FRR, and one is stopped: only we are asked meanwhile.
    wait_for("Cease / BFD Down to FRR", CONVERGED, || {
        let peer = causeway::peer(node, "frr-v4")?;
        let sent = &peer["last-notification-sent"];
        ensure!(sent["code"] == 6 && sent["subcode"] == 10, "{peer:#}");
        Ok(())
    })?;
    let found = session(node, "10.5.1.2")?;
    assert_eq!(found["lastDown"], "control detection time expired");
    // Without strict mode BGP does without BFD meanwhile.
    wait_for("BGP without BFD", CONVERGED, || {
        causeway::established(node, "frr-v4")
    })?;
    assert_eq!(session(node, "10.5.1.2")?["state"], "down");
    router.exec_ok(&["kill", "-CONT", bfdd.trim()])?;
    all_up(&lab)?;
    ensure!(notifications(router)? > heard, "FRR heard nothing of it");

    // An operator's word at the other end is no failure (RFC 5882 §4.3).
    let before = established_count(node, "frr-v4")?;
    frr::configure(router, &["bfd", "profile fast", "shutdown"])?;
    wait_for("AdminDown of FRR", CONVERGED, || {
        let found = session(node, "10.5.1.2")?;
        ensure!(found["remoteState"] == "admin_down", "{found:#}");
        ensure!(found["state"] == "down", "{found:#}");
        Ok(())
    })?;
    frr::configure(router, &["bfd", "profile fast", "no shutdown"])?;
    all_up(&lab)?;
    assert_eq!(established_count(node, "frr-v4")?, before, "BGP stayed");

    // In strict mode BGP waits for BFD.
    bird::run(lab.node("bird2"), "disable bfd1")?;
    wait_for("bird2 to be waited for", CONVERGED, || {
        let found = session(node, "10.5.2.2")?;
        ensure!(found["state"] == "down", "{found:#}");
        Ok(())
    })?;
    bird::run(lab.node("bird2"), "enable bfd1")?;
    all_up(&lab)?;
    lab.down()
}

/// Our echo packets are returned by FRR's kernel while FRR's go, too; when they alone are lost the
/// session is down, and BGP with it.
fn echo_of_ours(lab: &Lab) -> Result<()> {
    let (node, router) = (lab.node("node1"), lab.node("frr"));
    let file = lab
        .files()
        .context("a lab of a test has files")?
        .join("resources.d/bfd.yaml");
    let without = fs::read_to_string(&file)?;
    let (own, both) = (
        "echo: { receiveIntervalMilliseconds: 50 }",
        "echo: { transmitIntervalMilliseconds: 50, receiveIntervalMilliseconds: 50 }",
    );
    let before = flaps(node)?;
    fs::write(&file, without.replacen(own, both, 1))?;
    for peer in FRR {
        echo_returns(node, peer)?;
        wait_for("FRR to slow down", CONVERGED, || {
            let found = session(node, peer)?;
            ensure!(found["echoIntervalUs"] == 50_000, "{found:#}");
            ensure!(found["echoDetectionTimeUs"] == 150_000, "{found:#}");
            ensure!(found["requiredMinRxUs"] == 1_000_000, "{found:#}");
            ensure!(found["polling"] == false, "{found:#}");
            Ok(())
        })?;
    }
    // Off the link, as RFC 5881 §4 asks, where the node has such an address of the family.
    assert_eq!(session(node, FRR[0])?["echoSource"], "10.5.0.1");
    assert_eq!(session(node, FRR[1])?["echoSource"], "fd00:10:5:1::1");
    assert_eq!(flaps(node)?, before, "started without a flap");
    let bird = session(node, "10.5.2.2")?;
    assert_eq!(bird["echoState"], "refused", "{bird:#}");
    assert_eq!(bird["state"], "up", "{bird:#}");

    // FRR's data plane drops echo packets, its BFD and BGP are well.
    for (family, peer) in [("-4", FRR[0]), ("-6", FRR[1])] {
        let downs = |found: &Value| found["downCount"].as_u64().context("no count");
        let before = downs(&session(node, peer)?)?;
        let echo = "pref 1 ipproto 17 dport 3785 blackhole".split(' ');
        let rule: Vec<&str> = ["ip", family, "rule", "add"]
            .into_iter()
            .chain(echo)
            .collect();
        router.exec_ok(&rule)?;
        let begin = Instant::now();
        wait_for("echo packets to be missed", CONVERGED, || {
            let found = session(node, peer)?;
            ensure!(found["lastDown"] == "echo function failed", "{found:#}");
            Ok(())
        })?;
        // 150 ms, and what asking takes. Control packets would have taken three seconds.
        let took = begin.elapsed();
        ensure!(took < Duration::from_secs(2), "{took:?}");
        // Control packets guard the path from there on, and nothing flaps again.
        wait_for("control packets as before", CONVERGED, || {
            let found = session(node, peer)?;
            ensure!(found["echoState"] == "unreturned", "{found:#}");
            ensure!(found["detectionTimeUs"] == 300_000, "{found:#}");
            ensure!(downs(&found)? == before + 1, "{found:#}");
            Ok(())
        })?;
        router.exec_ok(&["ip", family, "rule", "del", "pref", "1"])?;
        echo_returns(node, peer)?;
    }
    wait_for("Cease / BFD Down to FRR", CONVERGED, || {
        let peer = causeway::peer(node, "frr-v4")?;
        let sent = &peer["last-notification-sent"];
        ensure!(sent["code"] == 6 && sent["subcode"] == 10, "{peer:#}");
        Ok(())
    })?;
    all_up(lab)?;

    let before = flaps(node)?;
    fs::write(&file, without)?;
    for peer in FRR {
        wait_for("echo packets to end", CONVERGED, || {
            let found = session(node, peer)?;
            ensure!(found["echoState"] == "off", "{found:#}");
            ensure!(found["detectionTimeUs"] == 300_000, "{found:#}");
            Ok(())
        })?;
    }
    assert_eq!(flaps(node)?, before, "ended without a flap");
    Ok(())
}

/// Waits until echo packets come back.
fn echo_returns(node: &Node, peer: &str) -> Result<()> {
    wait_for(&format!("echo packets from {peer}"), CONVERGED, || {
        let found = session(node, peer)?;
        ensure!(found["echoState"] == "returning", "{found:#}");
        Ok(())
    })
}

/// Waits until BGP and BFD are up with everybody.
fn all_up(lab: &Lab) -> Result<()> {
    let node = lab.node("node1");
    for (name, peer) in PEERS {
        wait_for(&format!("BFD with {name}"), CONVERGED, || {
            let found = session(node, peer)?;
            ensure!(found["state"] == "up", "{found:#}");
            Ok(())
        })?;
        wait_for(name, CONVERGED, || causeway::established(node, name))?;
    }
    wait_for("node1 to be healthy", CONVERGED, || causeway::healthy(node))
}

fn session(node: &Node, peer: &str) -> Result<Value> {
    let mut found = causeway::items(node, &format!("bfd session {peer}"))?;
    ensure!(found.len() == 1, "{peer}: {found:#?}");
    found.pop().context("there is one")
}

fn frr_session(router: &Node, peer: &str) -> Result<Value> {
    let all = frr::show(router, "bfd peers")?;
    let mut found = all.as_array().into_iter().flatten();
    found
        .find(|session| session["peer"] == peer)
        .cloned()
        .with_context(|| format!("no session with {peer}: {all:#}"))
}

/// How many NOTIFICATIONs FRR has got from us.
fn notifications(router: &Node) -> Result<u64> {
    let neighbor = frr::show(router, "bgp neighbors 10.5.1.1")?;
    neighbor["10.5.1.1"]["messageStats"]["notificationsRecv"]
        .as_u64()
        .with_context(|| format!("no count: {neighbor:#}"))
}

/// The number of each session with FRR, with its flaps: the same as long as it is the same session,
/// and well. BIRD has BFD only while it has BGP.
fn flaps(node: &Node) -> Result<Vec<(u64, u64)>> {
    let sessions = causeway::items(node, "bfd sessions")?;
    let field = |session: &Value, name: &str| session[name].as_u64().context("no number");
    sessions
        .iter()
        .filter(|session| session["interface"] == "eth1")
        .map(|session| {
            Ok((
                field(session, "localDiscriminator")?,
                field(session, "downCount")?,
            ))
        })
        .collect()
}

fn established_count(node: &Node, name: &str) -> Result<u64> {
    causeway::peer(node, name)?["established-count"]
        .as_u64()
        .context("no count")
}
