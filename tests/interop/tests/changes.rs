// SPDX-License-Identifier: Apache-2.0
//! What `causeway config diff` says of a change is what FRR sees of it: the change is made right
//! after it was asked about, for nearly every setting there is.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, ensure};
use harness::{
    CONVERGED, Lab, causeway, frr,
    paths::{self, PEERS, Written, established},
    wait_for,
};
use serde_json::Value;

/// Where a line is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// The instance.
    Instance,
    /// The session with FRR.
    Session,
    /// The IPv4 family of that session.
    Family,
}

use Place::{Family, Instance, Session};

/// A line that is added, or takes the place of an earlier one of the same field; what it is called,
/// and what it costs.
const CHANGES: [(Place, &str, &str, &str); 34] = [
    (
        Session,
        "timers: { connectRetryTimeSeconds: 2 }",
        "connect retry time",
        "live",
    ),
    (
        Session,
        "timers: { connectRetryTimeSeconds: 2, keepAliveTimeSeconds: 20 }",
        "keepalive time",
        "live",
    ),
    (
        Session,
        "timers: { connectRetryTimeSeconds: 2, holdTimeSeconds: 60, keepAliveTimeSeconds: 20 }",
        "hold time",
        "session-reset",
    ),
    (
        Session,
        "sendHoldTimeSeconds: 600",
        "send hold time",
        "live",
    ),
    (Session, "tcpMSS: 1000", "MSS", "next-session"),
    (
        Session,
        "capabilities: Always",
        "capabilities",
        "next-session",
    ),
    (
        Session,
        "extendedMessages: false",
        "extended messages",
        "session-reset",
    ),
    (Session, "role: { name: Customer }", "role", "session-reset"),
    (
        Session,
        "gracefulRestart: { enabled: true }",
        "graceful restart",
        "session-reset",
    ),
    (Session, "bindInterface: eth1", "interface", "session-reset"),
    (Session, "allowOwnAS: 1", "allowed own AS", "route-refresh"),
    (
        Session,
        "enforceFirstAS: false",
        "first AS of paths",
        "route-refresh",
    ),
    (Session, "asOverride: true", "AS override", "live"),
    (Session, "privateAS: Remove", "private AS numbers", "live"),
    (
        Session,
        "fastFailover: false",
        "fail-over on link loss",
        "live",
    ),
    (
        Session,
        "collisionDetectEstablished: true",
        "collision with an established session",
        "live",
    ),
    (Session, "ebgpMultihop: 2", "TTL", "live"),
    (Session, "passive: true", "who dials", "live"),
    (
        Family,
        "import: { mode: All, maxRoutes: 100 }",
        "route limit",
        "live",
    ),
    (
        Family,
        "import: { mode: None, maxRoutes: 100 }",
        "import policy",
        "route-refresh",
    ),
    (
        Family,
        "import: { mode: None, maxRoutes: 100, honorBlackhole: true }",
        "blackholes",
        "route-refresh",
    ),
    (Family, "export: { nextHop: Self }", "next hop", "live"),
    (
        Family,
        "export: { nextHop: Self, maxRoutes: 100 }",
        "limit of routes sent",
        "live",
    ),
    (
        Family,
        "longLivedStaleTimeSeconds: 60",
        "long-lived stale time",
        "session-reset",
    ),
    (
        Family,
        "addPath: { receive: true }",
        "add-path",
        "session-reset",
    ),
    (Instance, "maxPaths: 4", "path limit", "live"),
    (Instance, "asPathRelax: false", "as-path relax", "live"),
    (
        Instance,
        "weighByLinkBandwidth: false",
        "weights by link bandwidth",
        "live",
    ),
    (
        Instance,
        "keepRejected: true",
        "keeping rejected routes",
        "live",
    ),
    (
        Instance,
        "installRoutes: false",
        "installing routes",
        "live",
    ),
    (
        Instance,
        "clusterID: 192.0.2.7",
        "cluster id",
        "route-refresh",
    ),
    (
        Instance,
        "ebgpRequiresPolicy: true",
        "policies required",
        "route-refresh",
    ),
    (
        Instance,
        "gracefulShutdown: true",
        "graceful shutdown",
        "live",
    ),
    (
        Instance,
        "aggregates: [{ prefix: 10.32.0.0/16 }]",
        "aggregates",
        "live",
    ),
];

#[test]
fn what_a_change_is_said_to_cost_is_what_it_costs() -> Result<()> {
    let lab = paths::up("changes")?;
    let mut lines: BTreeMap<Place, Vec<&str>> = BTreeMap::new();
    let mut sessions = 1;
    for (place, line, what, effect) in CHANGES {
        let of_place = lines.entry(place).or_default();
        let field = |line: &str| line.split_once(':').map(|(name, _)| name.to_owned());
        of_place.retain(|other| field(other) != field(line));
        of_place.push(line);
        let joined = |place, indent| {
            let of_place: &[&str] = lines.get(&place).map_or(&[], Vec::as_slice);
            of_place.join(indent)
        };
        let written = Written {
            instance: &joined(Instance, "\n      "),
            peers: &[("frr", &joined(Session, "\n  "), &joined(Family, "\n      "))],
            ..Written::default()
        };
        let peer = if place == Instance { "" } else { "frr" };
        step(&lab, &paths::texts(&written)?, (peer, what, effect))?;
        if effect == "session-reset" {
            sessions += 1;
        }
        all_have(&lab, sessions).context(line)?;
    }
    a_shutdown_and_a_new_peer_are_told(&lab)?;
    lab.down()
}

/// Asks about a change, makes it, and waits until it is made.
fn step(
    lab: &Lab,
    texts: &[(&str, String)],
    (peer, what, effect): (&str, &str, &str),
) -> Result<()> {
    let node = lab.node("node1");
    fs::create_dir_all(node.path("/tmp/next"))?;
    for (file, text) in texts {
        fs::write(node.path(format!("/tmp/next/{file}")), text)?;
    }
    let differences = || -> Result<(Option<i32>, Value)> {
        let argv = ["causeway", "config", "diff", "/tmp/next", "-o", "json"];
        let output = node.exec(&argv)?;
        let items: Value = serde_json::from_str(&output.stdout)
            .with_context(|| format!("{}{}", output.stdout, output.stderr))?;
        Ok((output.status.code(), items["items"].clone()))
    };
    let (code, items) = differences()?;
    let found: Vec<(&str, &str, &str)> = items
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| {
            let word = |name: &str| item[name].as_str().unwrap_or_default();
            (word("peer"), word("what"), word("effect"))
        })
        .collect();
    ensure!(found == [(peer, what, effect)], "{what}: {items:#}");
    let ends = ["session-reset", "session-removed"].contains(&effect);
    ensure!(code == Some(i32::from(ends)), "{what}: exit code {code:?}");

    let folder = paths::files(lab)?.join("resources.d");
    for (file, text) in texts {
        let path = folder.join(file);
        let beside = path.with_extension("new");
        fs::write(&beside, text)?;
        fs::rename(&beside, &path)?;
    }
    wait_for(&format!("{what} to be taken up"), CONVERGED, || {
        let (code, items) = differences()?;
        ensure!(
            code == Some(0) && items == serde_json::json!([]),
            "{items:#}"
        );
        Ok(())
    })
}

/// Waits for so many sessions with FRR to have been, by both ends' counts; the others have one.
fn all_have(lab: &Lab, sessions: u64) -> Result<()> {
    wait_for(&format!("session {sessions} with FRR"), CONVERGED, || {
        let peer = causeway::established(lab.node("node1"), "frr")?;
        ensure!(peer["established-count"] == sessions, "{peer:#}");
        let shown = frr::show(lab.node("frr"), "bgp neighbors 10.2.0.1")?;
        let shown = &shown["10.2.0.1"];
        ensure!(shown["bgpState"] == "Established", "{shown:#}");
        ensure!(shown["connectionsEstablished"] == sessions, "{shown:#}");
        Ok(())
    })?;
    for peer in PEERS.into_iter().filter(|peer| *peer != "frr") {
        let found = causeway::peer(lab.node("node1"), peer)?;
        ensure!(found["established-count"] == 1, "{found:#}");
    }
    Ok(())
}

/// Peers that come, go, and are told to stay away.
fn a_shutdown_and_a_new_peer_are_told(lab: &Lab) -> Result<()> {
    let with = |edit: &dyn Fn(&str) -> String| -> Result<Vec<(&'static str, String)>> {
        let mut texts = paths::texts(&Written::default())?;
        for (file, text) in &mut texts {
            if *file == "cluster.yaml" {
                let edited = edit(text);
                ensure!(edited != *text, "{text}");
                *text = edited;
            }
        }
        Ok(texts)
    };
    paths::write(lab, &Written::default())?;
    // All that was written is taken back, with one reset of FRR's session.
    established(lab, &PEERS)?;
    let shut = "peerASN: 64502\n          shutdown: { message: cable 7 }\n";
    let shut = with(&|text| text.replacen("peerASN: 64502\n", shut, 1))?;
    wait_for("everything as it was", CONVERGED, || {
        step(lab, &shut, ("bird2", "shutdown", "session-removed"))
    })?;
    wait_for("BIRD 2 to hear of it", CONVERGED, || {
        let peer = causeway::peer(lab.node("node1"), "bird2")?;
        let sent = &peer["last-notification-sent"];
        ensure!(sent["code"] == 6 && sent["subcode"] == 2, "{peer:#}");
        let text = harness::bird::run(lab.node("bird2"), "show protocols all node1")?;
        ensure!(text.contains("Administrative shutdown"), "{text}");
        Ok(())
    })?;
    let back = paths::texts(&Written::default())?;
    step(lab, &back, ("bird2", "shutdown", "session-added"))?;
    established(lab, &["bird2"])?;

    let second =
        "      peers:\n        - { name: spare, peerAddress: 10.2.0.99, peerASN: 64599 }\n";
    let more = with(&|text| text.replace("      peers:\n", second))?;
    step(lab, &more, ("spare", "peer", "session-added"))?;
    step(lab, &back, ("spare", "peer", "session-removed"))?;
    established(lab, &PEERS)
}
