// SPDX-License-Identifier: Apache-2.0
//! BFD beside BGP: against FRR on a link with both families and echo both ways, against BIRD 2 with keyed MD5, and
//! against BIRD 3 two hops away with meticulous SHA1.

use std::fs;

use anyhow::{Context, Result, ensure};
use harness::{CONVERGED, Lab, Node, Signal, bird, causeway, frr, kernel, lab, wait_for};
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
    // What FRR's data plane drops below are its own as well, and it would see that as soon as we.
    frr::configure(router, &["bfd", "profile fast", "no echo-mode"])?;
    echo_of_ours(&lab)?;

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
    packets_say_what_they_mean(&lab)?;
    what_comes_from_afar_or_with_another_key_is_refused(&lab)?;
    failures_are_told_from_restarts(&lab)?;
    lab.down()
}

/// Changes a file of the resources at once.
fn edit(lab: &Lab, file: &str, from: &str, to: &str) -> Result<()> {
    let files = lab.files().context("a lab of a test has files")?;
    let path = files.join("resources.d").join(file);
    let text = fs::read_to_string(&path)?;
    ensure!(text.contains(from), "{file} has no {from:?}");
    let beside = path.with_extension("new");
    fs::write(&beside, text.replacen(from, to, 1))?;
    fs::rename(&beside, &path)?;
    Ok(())
}

/// Flags in packets: Poll and Final around a change (RFC 5880 §6.5), and always C, since BFD outlives
/// the daemon.
fn packets_say_what_they_mean(lab: &Lab) -> Result<()> {
    let capture = "tcpdump -l -n -v -i eth1 -Z root udp port 3784 and host 10.5.1.2";
    let argv: Vec<&str> = capture.split(' ').collect();
    let heard = lab.node("node1").spawn(&argv)?;
    wait_for("tcpdump to listen", CONVERGED, || {
        ensure!(heard.text().contains("listening on"), "{}", heard.text());
        Ok(())
    })?;
    let field = "transmitIntervalMilliseconds";
    let (from, to) = (format!("{field}: 400"), format!("{field}: 150"));
    edit(lab, "bfd.yaml", &from, &to)?;
    wait_for("Poll and Final", CONVERGED, || {
        let text = heard.text();
        let (ours, theirs) = (flags(&text, "10.5.1.1"), flags(&text, "10.5.1.2"));
        ensure!(ours.iter().any(|flags| flags.contains("Poll")), "{text}");
        ensure!(theirs.iter().any(|flags| flags.contains("Final")), "{text}");
        let all = ours.iter().all(|f| f.contains("Control Plane Independent"));
        ensure!(all, "{text}");
        Ok(())
    })?;
    heard.stop().map(drop)
}

/// The flags of packets from an address, as tcpdump prints them.
fn flags<'a>(text: &'a str, from: &str) -> Vec<&'a str> {
    let (mut found, mut is_from) = (Vec::new(), false);
    for line in text.lines() {
        if line.contains(" > ") {
            is_from = line.trim().starts_with(&format!("{from}."));
        } else if let Some((_, flags)) = line.split_once("Flags: [")
            && is_from
        {
            found.extend(flags.split_once(']').map(|(flags, _)| flags));
        }
    }
    found
}

/// RFC 5881 §5: one hop is 255; over several hops what the profile says; keys must be equal.
fn what_comes_from_afar_or_with_another_key_is_refused(lab: &Lab) -> Result<()> {
    let (node, router) = (lab.node("node1"), lab.node("frr"));
    let dropped = |reason: &str| -> Result<f64> {
        let metrics = node.exec_ok(&["curl", "-sS", "http://127.0.0.1:9962/metrics"])?;
        let name = format!("causeway_bfd_dropped_packets_total{{reason=\"{reason}\"}} ");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
        count.map_or(Ok(0.0), |count| Ok(count.parse()?))
    };
    let refused = |peer: &str, reason: &str, before: f64| {
        wait_for(&format!("{peer} to be refused"), CONVERGED, || {
            let found = session(node, peer)?;
            ensure!(found["state"] != "up", "{found:#}");
            let now = dropped(reason)?;
            ensure!(now > before, "{reason}: {before} before, {now} now");
            Ok(())
        })
    };
    // As if a router were in between.
    let before = dropped("ttl")?;
    for rule in [
        "add table ip far",
        "add chain ip far out { type filter hook output priority 0 ; }",
        "add rule ip far out udp dport 3784 ip ttl set 254",
    ] {
        router.exec_ok(&["nft", rule])?;
    }
    refused("10.5.1.2", "ttl", before)?;
    assert_eq!(session(node, "fd00:10:5:1::2")?["state"], "up");
    router.exec_ok(&["nft", "delete table ip far"])?;
    all_up(lab)?;

    // BIRD 3 sends 64.
    let before = dropped("ttl")?;
    edit(lab, "bfd.yaml", "minimumTTL: 64", "minimumTTL: 65")?;
    refused("10.5.0.13", "ttl", before)?;
    edit(lab, "bfd.yaml", "minimumTTL: 65", "minimumTTL: 64")?;
    all_up(lab)?;

    let before = dropped("authentication")?;
    let (right, wrong) = ("password: bfd-bird2 }", "password: another }");
    edit(lab, "bfd.yaml", right, wrong)?;
    refused("10.5.2.2", "authentication", before)?;
    edit(lab, "bfd.yaml", wrong, right)?;
    all_up(lab)?;

    let metrics = node.exec_ok(&["curl", "-sS", "http://127.0.0.1:9962/metrics"])?;
    for line in [
        "causeway_bfd_process_up 1",
        r#"causeway_bfd_session_state{hops="multi",interface="",peer="10.5.0.13"} 3"#,
        r#"causeway_bfd_session_transitions_total{hops="single",interface="eth2",peer="10.5.2.2",to="down"} "#,
        r#"causeway_bfd_packets_total{direction="in",hops="single",interface="eth1",peer="10.5.1.2"} "#,
        "causeway_bfd_timers_total{",
    ] {
        ensure!(metrics.contains(line), "no {line} in {metrics}");
    }
    Ok(())
}

/// RFC 5882 §4.3: where graceful restart is agreed on, BFD that dies with the control plane may mean
/// a restart, and routes are kept; BFD that does not (the C bit) means that the path is dead.
fn failures_are_told_from_restarts(lab: &Lab) -> Result<()> {
    const PREFIX: &str = "10.51.0.0/24";
    let (node, router) = (lab.node("node1"), lab.node("frr"));
    let plain = "name: on-link\nspec:\n  bfdProfileRef: { name: fast }\n  \
                 timers: { connectRetryTimeSeconds: 1 }\n  families:\n    \
                 - { afi: ipv4, safi: unicast }\n";
    let graceful = plain
        .replace("spec:\n", "spec:\n  gracefulRestart: { enabled: true }\n")
        .replace("unicast }", "unicast, import: { mode: All } }");
    edit(lab, "peers.yaml", plain, &graceful)?;
    frr::configure(
        router,
        &[
            "router bgp 65051",
            "bgp graceful-restart",
            "bgp graceful-restart preserve-fw-state",
            "no bgp network import-check",
            "address-family ipv4 unicast",
            &format!("network {PREFIX}"),
        ],
    )?;
    let has_route = || {
        wait_for("FRR's route in the kernel", CONVERGED, || {
            let text = node.exec_ok(&["ip", "route", "show", "exact", PREFIX])?;
            ensure!(text.contains("via 10.5.1.2"), "{text}");
            Ok(())
        })
    };
    let bfdd = router.exec_ok(&["cat", "/run/frr/bfdd.pid"])?;
    for independent in [false, true] {
        // FRR sets the bit for a session it begins, and for no other.
        let word = if independent {
            " check-control-plane-failure"
        } else {
            ""
        };
        frr::configure(
            router,
            &[
                "router bgp 65051",
                "no neighbor 10.5.1.1 bfd",
                &format!("neighbor 10.5.1.1 bfd{word}"),
                "neighbor 10.5.1.1 bfd profile fast",
            ],
        )?;
        wait_for("FRR's C bit", CONVERGED, || {
            let found = session(node, "10.5.1.2")?;
            let bit = &found["remoteControlPlaneIndependent"];
            ensure!(*bit == independent && found["state"] == "up", "{found:#}");
            Ok(())
        })?;
        all_up(lab)?;
        has_route()?;
        let before = established_count(node, "frr-v4")?;
        // Ended before FRR notices that it was away, and ends the session itself.
        let text = kernel::watched(node, || {
            router.exec_ok(&["kill", "-STOP", bfdd.trim()])?;
            wait_for("BGP anew without BFD", CONVERGED, || {
                causeway::established(node, "frr-v4")?;
                ensure!(
                    established_count(node, "frr-v4")? > before,
                    "the same session"
                );
                Ok(())
            })?;
            has_route()
        })?;
        router.exec_ok(&["kill", "-CONT", bfdd.trim()])?;
        let was_deleted = kernel::was_deleted(&text, PREFIX);
        ensure!(was_deleted == independent, "{independent}: {text}");
        all_up(lab)?;
    }
    Ok(())
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
        wait_for("echo packets to be missed", CONVERGED, || {
            let found = session(node, peer)?;
            ensure!(found["lastDown"] == "echo function failed", "{found:#}");
            Ok(())
        })?;
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
