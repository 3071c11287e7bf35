// SPDX-License-Identifier: Apache-2.0
//! Restarts that lose no route, on either side: FRR and BIRD 2 die and come back, sessions end by
//! NOTIFICATION, the node dies and comes back, and all of it takes too long.
//!
//! Graceful restart is on in FRR, in BIRD 2 and towards both; the other sessions are without.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, ensure};
use harness::{
    BgpPath, CONVERGED, Lab, Signal, bird, causeway, frr, kernel,
    paths::{PEERS, Written, at, established, files, in_kernel, seen, unseen, up, write},
    wait_for,
};
use serde_json::Value;

const OF_FRR: &str = "10.31.0.0/24";
const OF_BIRD2: &str = "10.32.0.0/24";
const OF_BIRD2_V6: &str = "2001:db8:32:1::/64";
const OF_BIRD3: &str = "10.33.0.0/24";
const PODS: &str = "10.244.1.0/24";

/// How long the neighbours wait for the node, in seconds, before they take it for long gone.
const RESTART_S: u32 = 4;

#[test]
fn restarts_of_either_end_lose_no_route() -> Result<()> {
    let lab = up("graceful")?;
    everybody_is_graceful(&lab)?;
    a_router_that_dies_keeps_its_routes_here(&lab)?;
    notifications_keep_routes_unless_they_are_hard(&lab)?;
    a_family_that_is_not_agreed_keeps_nothing(&lab)?;
    the_node_that_dies_keeps_its_routes_there(&lab)?;
    the_end_comes_when_all_is_known_again(&lab)?;
    who_is_long_gone_is_the_last_resort(&lab)?;
    lab.down()
}

fn settings(restart_s: u32) -> String {
    format!("gracefulRestart: {{ enabled: true, restartTimeSeconds: {restart_s} }}")
}

/// Writes the node's side.
fn agree(lab: &Lab, restart_s: u32) -> Result<()> {
    let session = settings(restart_s);
    let family = "longLivedStaleTimeSeconds: 60\n      import: { mode: All }";
    let written = Written {
        peers: &[("frr", &session, family), ("bird2", &session, family)],
        ..Written::default()
    };
    write(lab, &written)
}

fn everybody_is_graceful(lab: &Lab) -> Result<()> {
    // In the file, as FRR dies and reads it again.
    let file = files(lab)?.join("frr/frr.conf");
    let text = fs::read_to_string(&file)?;
    let router = "router bgp 64501\n";
    ensure!(text.contains(router), "{text}");
    let lines = [
        "bgp graceful-restart",
        "bgp graceful-restart preserve-fw-state",
        "bgp graceful-restart notification",
        "bgp long-lived-graceful-restart stale-time 77",
        "no bgp hard-administrative-reset",
    ];
    let more = format!("{router} {}\n", lines.join("\n "));
    fs::write(&file, text.replace(router, &more))?;
    let mut configuration = vec!["router bgp 64501"];
    configuration.extend(lines);
    frr::configure(lab.node("frr"), &configuration)?;

    let file = files(lab)?.join("bird2/bird.conf");
    let text = fs::read_to_string(&file)?;
    let session = "protocol bgp node1 {";
    ensure!(text.contains(session), "{text}");
    let more = format!(
        "{session} graceful restart on; graceful restart time 3; \
         long lived graceful restart on; long lived stale time 60;"
    );
    fs::write(&file, text.replace(session, &more))?;
    bird::run(lab.node("bird2"), "configure")?;
    agree(lab, 120)?;
    wait_for("FRR to agree", CONVERGED, || {
        let seen = graceful(lab)?;
        ensure!(seen["remoteGrMode"] == "Restart", "{seen:#}");
        ensure!(seen["nBit"] == true, "{seen:#}");
        ensure!(seen["rBit"] == false, "{seen:#}");
        ensure!(seen["timers"]["receivedRestartTimer"] == 120, "{seen:#}");
        ensure!(
            seen["ipv4Unicast"]["timers"]["llgrStaleTime"] == 60,
            "{seen:#}"
        );
        Ok(())
    })?;
    wait_for("BIRD 2 to agree", CONVERGED, || {
        let text = bird::run(lab.node("bird2"), "show protocols all node1")?;
        let (_, theirs) = text.split_once("Neighbor capabilities").context("up")?;
        ensure!(theirs.contains("Restart time: 120"), "{text}");
        ensure!(theirs.contains("Long-lived graceful restart"), "{text}");
        Ok(())
    })?;
    established(lab, &PEERS)?;
    seen(lab, "bird3", OF_FRR, &[64501], "10.2.0.2")?;
    seen(lab, "bird3", OF_BIRD2, &[64502], "10.2.0.3")
}

/// What FRR says of graceful restart with the node.
fn graceful(lab: &Lab) -> Result<Value> {
    let all = frr::show(lab.node("frr"), "bgp neighbors 10.2.0.1 graceful-restart")?;
    all.get("10.2.0.1")
        .cloned()
        .context("FRR has the neighbour")
}

/// The node helps: what the router announced before stays, in the kernel and at others, until the
/// router has said all; only then what it did not say again goes. Its other session, without graceful
/// restart, loses its routes at once.
fn a_router_that_dies_keeps_its_routes_here(lab: &Lab) -> Result<()> {
    let (node, router) = (lab.node("node1"), lab.node("frr"));
    let (gone, of_other_session) = ("10.31.9.0/24", "2001:db8:31::/48");
    frr::configure(
        router,
        &[
            "router bgp 64501",
            "address-family ipv4 unicast",
            &format!("network {gone}"),
        ],
    )?;
    seen(lab, "bird3", gone, &[64501], "10.2.0.2")?;
    in_kernel(lab, of_other_session, "via")?;
    let text = kernel::watched(node, || {
        router.kill(Signal::SIGKILL)?;
        wait_for("the session to be lost", CONVERGED, || {
            let peer = causeway::peer(node, "frr")?;
            ensure!(peer["session-state"] != "established", "still up");
            let stale = causeway::items(node, &format!("bgp routes ipv4 unicast {OF_FRR}"))?;
            ensure!(
                stale.iter().any(|route| route["stale"] == true),
                "{stale:#?}"
            );
            Ok(())
        })?;
        in_kernel(lab, of_other_session, "")?;
        for prefix in [OF_FRR, gone] {
            in_kernel(lab, prefix, "via 10.2.0.2")?;
            seen(lab, "bird3", prefix, &[64501], "10.2.0.2")?;
        }
        router.start()?;
        established(lab, &["frr"])?;
        unseen(lab, "bird3", gone)?;
        in_kernel(lab, gone, "")
    })?;
    ensure!(!kernel::was_deleted(&text, OF_FRR), "{text}");
    ensure!(kernel::was_deleted(&text, gone), "{text}");
    ensure!(kernel::was_deleted(&text, of_other_session), "{text}");
    seen(lab, "bird3", OF_FRR, &[64501], "10.2.0.2")
}

/// RFC 8538: a reset that is not hard keeps routes on both ends, a hard one does not.
fn notifications_keep_routes_unless_they_are_hard(lab: &Lab) -> Result<()> {
    let (node, router) = (lab.node("node1"), lab.node("frr"));
    for (hard, subcode) in [("no ", 4), ("", 9)] {
        let line = format!("{hard}bgp hard-administrative-reset");
        frr::configure(router, &["router bgp 64501", &line])?;
        let before = causeway::established(node, "frr")?["established-count"].clone();
        let text = kernel::watched(node, || {
            router.exec_ok(&["vtysh", "-c", "clear bgp 10.2.0.1"])?;
            wait_for("the next session", CONVERGED, || {
                let peer = causeway::established(node, "frr")?;
                ensure!(peer["established-count"] != before, "the same");
                let received = &peer["last-notification-received"];
                ensure!(received["code"] == 6, "{peer:#}");
                ensure!(received["subcode"] == subcode, "{peer:#}");
                Ok(())
            })?;
            in_kernel(lab, OF_FRR, "via 10.2.0.2")
        })?;
        ensure!(
            kernel::was_deleted(&text, OF_FRR) == hard.is_empty(),
            "{text}"
        );
    }
    let line = "no bgp hard-administrative-reset";
    frr::configure(router, &["router bgp 64501", line])
}

/// Of a session with two families BIRD 2 names one in its capability: when it dies, routes of that
/// one stay, and those of the other go at once (RFC 4724 §4.2).
fn a_family_that_is_not_agreed_keeps_nothing(lab: &Lab) -> Result<()> {
    let (node, router) = (lab.node("node1"), lab.node("bird2"));
    let file = files(lab)?.join("bird2/bird.conf");
    let before = fs::read_to_string(&file)?;
    let (time, channel) = ("restart time 3;", "ipv4 { import all;");
    ensure!(
        before.contains(time) && before.contains(channel),
        "{before}"
    );
    let second = format!(
        "ipv6 {{ graceful restart off; next hop address fd00:10:2::3; \
         import all; export where source = RTS_STATIC; }};\n{channel}"
    );
    // Longer than anything here waits.
    let text = before.replace(time, "restart time 600;");
    fs::write(&file, text.replace(channel, &second))?;
    bird::run(router, "configure")?;
    let session = settings(120);
    let ipv4 = "longLivedStaleTimeSeconds: 60\n      import: { mode: All }";
    let both =
        format!("{ipv4}\n    - afi: ipv6\n      safi: unicast\n      import: {{ mode: All }}");
    let written = Written {
        peers: &[("frr", &session, ipv4), ("bird2", &session, &both)],
        ..Written::default()
    };
    write(lab, &written)?;
    // Its routes of a family, and whether they are stale.
    let routes = |family: &str| -> Result<BTreeMap<String, bool>> {
        let all = causeway::items(node, &format!("bgp routes {family} unicast"))?;
        let its = all.iter().filter(|route| route["peer"] == "bird2");
        let stale = |route: &Value| {
            let prefix = route["prefix"].as_str().unwrap_or_default();
            (prefix.to_owned(), route["stale"] == true)
        };
        Ok(its.map(stale).collect())
    };
    let complete = || {
        let peer = causeway::established(node, "bird2")?;
        let told = peer["remote-capabilities"].as_array().context("a list")?;
        let told = told.iter().find(|told| told["name"] == "graceful-restart");
        let told = told.context("graceful restart")?["value"].to_string();
        ensure!(told.contains("ipv4") && !told.contains("ipv6"), "{told}");
        let (ipv4, ipv6) = (routes("ipv4")?, routes("ipv6")?);
        ensure!(ipv4.contains_key(OF_BIRD2), "{ipv4:?}");
        ensure!(ipv6.contains_key(OF_BIRD2_V6), "{ipv6:?}");
        let fresh = ipv4.values().chain(ipv6.values()).all(|stale| !stale);
        ensure!(fresh, "{ipv4:?} {ipv6:?}");
        Ok(())
    };
    wait_for(
        "two families, one with graceful restart",
        CONVERGED,
        complete,
    )?;
    in_kernel(lab, OF_BIRD2_V6, "via")?;
    seen(lab, "bird3", OF_BIRD2, &[64502], "10.2.0.3")?;
    let text = kernel::watched(node, || {
        router.kill(Signal::SIGKILL)?;
        wait_for("one family to be stale, the other gone", CONVERGED, || {
            let peer = causeway::peer(node, "bird2")?;
            ensure!(peer["session-state"] != "established", "still up");
            let (kept, gone) = (routes("ipv4")?, routes("ipv6")?);
            ensure!(gone.is_empty(), "{gone:?}");
            ensure!(
                !kept.is_empty() && kept.values().all(|stale| *stale),
                "{kept:?}"
            );
            Ok(())
        })?;
        in_kernel(lab, OF_BIRD2_V6, "")?;
        in_kernel(lab, OF_BIRD2, "via 10.2.0.3")?;
        seen(lab, "bird3", OF_BIRD2, &[64502], "10.2.0.3")?;
        router.start()?;
        wait_for("both families again", CONVERGED, complete)?;
        in_kernel(lab, OF_BIRD2_V6, "via")
    })?;
    ensure!(!kernel::was_deleted(&text, OF_BIRD2), "{text}");
    ensure!(kernel::was_deleted(&text, OF_BIRD2_V6), "{text}");

    fs::write(&file, before)?;
    bird::run(router, "configure")?;
    agree(lab, 120)?;
    established(lab, &PEERS)
}

/// The node restarts: its neighbours keep what it announced, and learn that it kept forwarding.
fn the_node_that_dies_keeps_its_routes_there(lab: &Lab) -> Result<()> {
    let node = lab.node("node1");
    node.kill(Signal::SIGKILL)?;
    wait_for("FRR to lose the session", CONVERGED, || {
        ensure!(frr::established(lab.node("frr"), "10.2.0.1").is_err(), "up");
        Ok(())
    })?;
    seen(lab, "frr", PODS, &[64500], "10.2.0.1")?;
    seen(lab, "frr", OF_BIRD2, &[64500, 64502], "10.2.0.3")?;
    seen(lab, "bird2", PODS, &[64500], "10.2.0.1")?;
    unseen(lab, "bird3", PODS)?;
    node.start()?;
    wait_for("FRR to hear of the restart", CONVERGED, || {
        let seen = graceful(lab)?;
        ensure!(seen["rBit"] == true && seen["nBit"] == true, "{seen:#}");
        let family = &seen["ipv4Unicast"];
        ensure!(family["fBit"] == true, "{seen:#}");
        ensure!(family["endOfRibStatus"]["endOfRibRecv"] == true, "{seen:#}");
        Ok(())
    })?;
    established(lab, &PEERS)?;
    seen(lab, "frr", OF_BIRD2, &[64500, 64502], "10.2.0.3")
}

/// RFC 4724 §4.1: a neighbour of the node is slow to come back, and the routes of it that FRR keeps
/// are not given up for that. When FRR is told the end, the kernel has everything.
fn the_end_comes_when_all_is_known_again(lab: &Lab) -> Result<()> {
    let (node, slow) = (lab.node("node1"), lab.node("bird3"));
    seen(lab, "frr", OF_BIRD3, &[64500], "10.2.0.4")?;
    node.kill(Signal::SIGKILL)?;
    let pid = slow.main_process().context("BIRD 3 runs")?;
    pid.signal(Signal::SIGSTOP)?;
    node.exec_ok(&["ip", "route", "flush", "proto", "bgp"])?;
    node.start()?;
    wait_for("FRR's session with the node", CONVERGED, || {
        frr::established(lab.node("frr"), "10.2.0.1")?;
        causeway::established(node, "frr")?;
        let text = frr::show(lab.node("frr"), &format!("bgp ipv4 unicast {OF_BIRD2}"))?;
        ensure!(!text.to_string().contains("\"stale\""), "{text:#}");
        Ok(())
    })?;
    let told = || -> Result<bool> {
        let end = &graceful(lab)?["ipv4Unicast"]["endOfRibStatus"]["endOfRibRecv"];
        end.as_bool().context("whether the end was received")
    };
    ensure!(!told()?, "the end before BIRD 3 was heard");
    let kept = at(lab, "frr", OF_BIRD3)?;
    ensure!(kept.len() == 1, "{kept:?}");
    pid.signal(Signal::SIGCONT)?;
    wait_for("the end", CONVERGED, || {
        let kept = at(lab, "frr", OF_BIRD3)?;
        ensure!(kept.len() == 1, "{kept:?}");
        ensure!(told()?, "not yet");
        // By then, and not some time after.
        for prefix in [OF_FRR, OF_BIRD2, OF_BIRD3] {
            let argv = ["ip", "route", "show", "exact", prefix];
            assert_ne!(node.exec_ok(&argv)?, "", "{prefix} is not in the kernel");
        }
        Ok(())
    })?;
    established(lab, &PEERS)
}

/// RFC 9494: marked, and worse than all others; for neighbours that know the mark only.
fn who_is_long_gone_is_the_last_resort(lab: &Lab) -> Result<()> {
    let node = lab.node("node1");
    let shared = "10.100.0.0/24";
    let marked = |path: &BgpPath| {
        let marks = ["llgr-stale", "llgrStale", "65535:6"];
        path.communities.iter().any(|c| marks.contains(&c.as_str()))
    };
    // BIRD 2 goes, and stays away for longer than it said.
    in_kernel(lab, shared, "nexthop via 10.2.0.3")?;
    lab.node("bird2").kill(Signal::SIGKILL)?;
    wait_for("the mark at FRR", CONVERGED, || {
        let paths = at(lab, "frr", OF_BIRD2)?;
        ensure!(paths.iter().any(marked), "{paths:?}");
        Ok(())
    })?;
    in_kernel(lab, OF_BIRD2, "via 10.2.0.3")?;
    in_kernel(lab, shared, "via 10.2.0.2")?;
    unseen(lab, "bird3", OF_BIRD2)?;
    let argv = ["causeway", "bgp", "explain", OF_BIRD2, "bird3"];
    let said = node.exec_ok(&argv)?;
    ensure!(said.contains("LLGR_STALE"), "{said}");
    let metrics = node.exec_ok(&["curl", "-sS", "http://127.0.0.1:9962/metrics"])?;
    let kept =
        r#"causeway_bgp_stale_routes{afi="ipv4",instance="main",peer="bird2",safi="unicast"} "#;
    let count = metrics.lines().find_map(|line| line.strip_prefix(kept));
    ensure!(count.is_some_and(|count| count != "0"), "{metrics}");
    let agreed = r#"causeway_bgp_graceful_restart{instance="main",mode="long-lived",peer="frr"} 1"#;
    ensure!(metrics.contains(agreed), "{metrics}");
    lab.node("bird2").start()?;
    established(lab, &["bird2"])?;
    wait_for("no mark at FRR", CONVERGED, || {
        let paths = at(lab, "frr", OF_BIRD2)?;
        ensure!(paths.len() == 1 && !paths.iter().any(marked), "{paths:?}");
        Ok(())
    })?;
    in_kernel(lab, shared, "nexthop via 10.2.0.3")?;
    seen(lab, "bird3", OF_BIRD2, &[64502], "10.2.0.3")?;

    // The node goes, and stays away for longer than it said.
    agree(lab, RESTART_S)?;
    wait_for("FRR to know the shorter time", CONVERGED, || {
        let seen = graceful(lab)?;
        let time = &seen["timers"]["receivedRestartTimer"];
        ensure!(*time == RESTART_S, "{seen:#}");
        frr::established(lab.node("frr"), "10.2.0.1")
    })?;
    established(lab, &PEERS)?;
    wait_for("BIRD 2's session", CONVERGED, || {
        bird::established(lab.node("bird2"), "node1")
    })?;
    seen(lab, "bird2", PODS, &[64500], "10.2.0.1")?;
    node.kill(Signal::SIGKILL)?;
    for speaker in ["frr", "bird2"] {
        wait_for(&format!("the mark at {speaker}"), CONVERGED, || {
            let paths = at(lab, speaker, PODS)?;
            ensure!(paths.iter().any(marked), "{paths:?}");
            Ok(())
        })?;
    }
    node.start()?;
    for speaker in ["frr", "bird2"] {
        wait_for(&format!("no mark at {speaker}"), CONVERGED, || {
            let paths = at(lab, speaker, PODS)?;
            ensure!(paths.len() == 1 && !paths.iter().any(marked), "{paths:?}");
            Ok(())
        })?;
    }
    established(lab, &PEERS)
}
