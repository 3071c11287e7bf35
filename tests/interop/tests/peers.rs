// SPDX-License-Identifier: Apache-2.0
//! One node against FRR, BIRD 2, BIRD 3 and GoBGP at once, each session different: MD5, multihop,
//! timers, AS numbers of two and of four octets, either side waiting.

use anyhow::{Context, Result, ensure};
use harness::{CONVERGED, Family, Lab, Signal, bird, causeway, frr, gobgp, lab, wait_for};
use serde_json::Value;

/// The sessions by name, with the hold time that both ends' settings give.
const SESSIONS: [(&str, u64); 5] = [
    ("frr-v4", 3),
    ("frr-v6", 90),
    ("bird2", 30),
    ("bird3", 12),
    ("gobgp", 15),
];

#[test]
fn four_other_speakers_hold_sessions_that_differ() -> Result<()> {
    let lab = lab("peers", "peers")?;
    let node = lab.node("node1");
    all_established(&lab)?;

    for (name, hold_s) in SESSIONS {
        let peer = causeway::peer(node, name)?;
        assert_eq!(peer["applied-hold-time-seconds"], hold_s, "{peer:#}");
        assert_eq!(
            peer["applied-keep-alive-time-seconds"],
            hold_s / 3,
            "{peer:#}"
        );
        // Whatever is offered, the four-octet number is (RFC 6793 §3), by us at least.
        ensure!(has_capability(&peer, "local-capabilities", 65), "{peer:#}");
        let offers_four_octets = has_capability(&peer, "remote-capabilities", 65);
        assert_eq!(offers_four_octets, name != "bird2", "{peer:#}");
        assert_eq!(
            peer["tcp-password-enabled"],
            name == "frr-v4" || name == "bird3",
            "{peer:#}"
        );
        assert_eq!(
            peer["connect-mode"],
            if name == "gobgp" { "passive" } else { "both" }
        );
        assert_eq!(
            peer["ebgp-multihop-ttl"],
            if name == "bird3" { 2 } else { 1 },
            "{peer:#}"
        );
    }
    // Who waits was called, and who dials came from a port of its own.
    let endpoint = |name: &str| -> Result<String> {
        let peer = causeway::peer(node, name)?;
        let text = peer["local-endpoint"].as_str().context("no local end")?;
        Ok(text.to_owned())
    };
    ensure!(
        endpoint("gobgp")?.ends_with(":179"),
        "gobgp dials: {}",
        endpoint("gobgp")?
    );
    ensure!(
        !endpoint("bird2")?.ends_with(":179"),
        "bird2 waits: {}",
        endpoint("bird2")?
    );
    ensure!(
        endpoint("bird3")?.starts_with("10.1.0.1:"),
        "{}",
        endpoint("bird3")?
    );

    what_they_say_of_us(&lab)?;
    what_we_say_of_them(&lab)?;
    lab.down()
}

#[test]
fn speakers_that_are_killed_come_back() -> Result<()> {
    let lab = lab("peers", "killed")?;
    let node = lab.node("node1");
    all_established(&lab)?;
    for (speaker, session) in [("bird2", "bird2"), ("bird3", "bird3"), ("gobgp", "gobgp")] {
        let other = lab.node(speaker);
        let before = established_count(node, session)?;
        other.kill(Signal::SIGKILL)?;
        wait_for(&format!("{session} to be down"), CONVERGED, || {
            let peer = causeway::peer(node, session)?;
            ensure!(peer["session-state"] != "established", "still up");
            let reason = peer["down-reason"].as_str().unwrap_or_default();
            ensure!(!reason.is_empty(), "no reason: {peer:#}");
            Ok(())
        })?;
        other.start()?;
        wait_for(&format!("{session} to be back"), CONVERGED, || {
            causeway::established(node, session)
        })?;
        assert_eq!(established_count(node, session)?, before + 1, "{session}");
    }
    // Nobody else was touched.
    assert_eq!(established_count(node, "frr-v4")?, 1);
    assert_eq!(established_count(node, "frr-v6")?, 1);
    lab.down()
}

#[test]
fn a_neighbour_is_asked_for_its_routes_again() -> Result<()> {
    let lab = lab("peers", "refresh")?;
    let node = lab.node("node1");
    all_established(&lab)?;
    let updates = || -> Result<u64> {
        let peer = causeway::peer(node, "frr-v4")?;
        peer["received"]["update"].as_u64().context("no count")
    };
    wait_for("FRR's route", CONVERGED, || {
        received(node, "frr-v4", "10.11.0.0/24")
    })?;
    let before = updates()?;
    node.exec_ok(&["causeway", "bgp", "refresh", "frr-v4"])?;
    wait_for("the routes to come again", CONVERGED, || {
        ensure!(updates()? > before, "{before} UPDATEs before and after");
        Ok(())
    })?;
    // And back: FRR asks us.
    let peer = causeway::peer(node, "frr-v4")?;
    let asked = peer["received"]["route-refresh"]
        .as_u64()
        .context("no count")?;
    lab.node("frr")
        .exec_ok(&["vtysh", "-c", "clear bgp ipv4 unicast 10.1.1.1 soft in"])?;
    wait_for("FRR's question", CONVERGED, || {
        let peer = causeway::peer(node, "frr-v4")?;
        ensure!(
            peer["received"]["route-refresh"].as_u64() > Some(asked),
            "not asked"
        );
        Ok(())
    })?;
    assert_eq!(established_count(node, "frr-v4")?, 1, "no reset");
    lab.down()
}

fn all_established(lab: &Lab) -> Result<()> {
    for (name, _) in SESSIONS {
        wait_for(name, CONVERGED, || {
            causeway::established(lab.node("node1"), name)
        })?;
    }
    wait_for("frr v4", CONVERGED, || {
        frr::established(lab.node("frr"), "10.1.1.1")
    })?;
    wait_for("frr v6", CONVERGED, || {
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
    })
}

/// The pod prefix with its communities, as each of them prints it.
fn what_they_say_of_us(lab: &Lab) -> Result<()> {
    let prefix = "10.244.1.0/24";
    for (speaker, next_hop) in [
        ("frr", "10.1.1.1"),
        ("bird2", "10.1.2.1"),
        ("bird3", "10.1.0.1"),
        ("gobgp", "10.1.4.1"),
    ] {
        wait_for(&format!("{prefix} at {speaker}"), CONVERGED, || {
            let node = lab.node(speaker);
            let paths = match speaker {
                "frr" => frr::paths(node, Family::Ipv4, prefix)?,
                "gobgp" => gobgp::paths(node, Family::Ipv4, prefix)?,
                _ => bird::paths(node, prefix)?,
            };
            ensure!(paths.len() == 1, "{paths:?}");
            let path = &paths[0];
            ensure!(path.as_path == [65001], "{path:?}");
            ensure!(path.next_hops.iter().any(|hop| hop == next_hop), "{path:?}");
            ensure!(path.communities == ["65001:100"], "{path:?}");
            ensure!(path.large_communities == ["65001:1:100"], "{path:?}");
            Ok(())
        })?;
    }
    let paths = wait_for("the IPv6 prefix at FRR", CONVERGED, || {
        frr::used_paths(lab.node("frr"), Family::Ipv6, "fd00:10:244:1::/64", 1)
    })?;
    assert_eq!(paths[0].as_path, [65001]);
    Ok(())
}

/// Their prefixes with attributes, in our tables and in the kernel.
fn what_we_say_of_them(lab: &Lab) -> Result<()> {
    let node = lab.node("node1");
    for (name, prefix, as_path, field, community) in [
        ("frr-v4", "10.11.0.0/24", "65011", "communities", None),
        ("frr-v6", "fd00:11::/64", "65011", "communities", None),
        (
            "bird2",
            "10.12.0.0/24",
            "65012",
            "communities",
            Some("65012:1"),
        ),
        (
            "bird3",
            "10.13.0.0/24",
            "4200000013",
            "large-communities",
            Some("4200000013:1:2"),
        ),
        (
            "gobgp",
            "10.14.0.0/24",
            "65014",
            "communities",
            Some("65014:1"),
        ),
    ] {
        let route = wait_for(prefix, CONVERGED, || received(node, name, prefix))?;
        assert_eq!(route["attributes"]["as-path"], as_path, "{route:#}");
        if let Some(community) = community {
            let found = route["attributes"][field].as_array().into_iter().flatten();
            ensure!(found.into_iter().any(|c| c == community), "{route:#}");
        }
        wait_for(&format!("{prefix} in the kernel"), CONVERGED, || {
            let family = if prefix.contains(':') { "-6" } else { "-4" };
            let kernel = node.exec_ok(&["ip", family, "route", "show", prefix, "proto", "bgp"])?;
            ensure!(!kernel.is_empty(), "not there");
            Ok(())
        })?;
    }
    Ok(())
}

fn received(node: &harness::Node, peer: &str, prefix: &str) -> Result<Value> {
    let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
    let routes = causeway::items(
        node,
        &format!("bgp routes received {family} unicast peer {peer}"),
    )?;
    let found = routes.iter().find(|route| route["prefix"] == prefix);
    found
        .cloned()
        .with_context(|| format!("no {prefix} of {peer}: {routes:?}"))
}

fn has_capability(peer: &Value, side: &str, code: u64) -> bool {
    peer[side]
        .as_array()
        .into_iter()
        .flatten()
        .any(|capability| capability["code"] == code)
}

fn established_count(node: &harness::Node, name: &str) -> Result<u64> {
    causeway::peer(node, name)?["established-count"]
        .as_u64()
        .context("no count")
}
