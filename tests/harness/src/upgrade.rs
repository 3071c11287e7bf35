// SPDX-License-Identifier: Apache-2.0
//! Upgrades of the daemon under a lab's sessions, and what neighbours saw of them: nothing, if what
//! is returned here is the same before and after.

use anyhow::{Context, Result, ensure};
use lab_runner::{Node, Spawned, wait_for};
use serde_json::Value;

use crate::{CONVERGED, bird, causeway, frr};

/// Starts a daemon that takes the sessions of the one that runs, and waits until it has them. The
/// settings are `path=value`.
///
/// # Errors
/// When a session is another one than before, or not up in time.
pub fn take_over(node: &Node, sessions: &[&str], settings: &[&str]) -> Result<Spawned> {
    let before = pid(node)?;
    let mut argv = vec!["causewayd", "--take-over"];
    for setting in settings {
        argv.extend(["--set", setting]);
    }
    let daemon = node.spawn(&argv)?;
    wait_for("the next daemon with the sessions", CONVERGED, || {
        ensure!(pid(node)? != before, "still the daemon with pid {before}");
        for session in sessions {
            goes_on(node, session)?;
        }
        Ok(())
    })?;
    Ok(daemon)
}

/// Succeeds when a session is up and was so before the daemon that runs.
///
/// # Errors
/// When it is not.
pub fn goes_on(node: &Node, session: &str) -> Result<()> {
    let peer = causeway::established(node, session)?;
    // Of this daemon's own life: it got no OPEN.
    let opens = &peer["received"]["open"];
    ensure!(*opens == 0, "{session}: {opens} OPENs");
    Ok(())
}

/// The process of the daemon that runs.
///
/// # Errors
/// When none answers.
pub fn pid(node: &Node) -> Result<u64> {
    let answer = causeway::ask(node, "status")?;
    answer["pid"].as_u64().context("the pid of the daemon")
}

/// What would differ if FRR's session had ended: its state and counters.
///
/// # Errors
/// When FRR has no such neighbour.
pub fn seen_by_frr(node: &Node, peer: &str) -> Result<String> {
    let answer = frr::show(node, &format!("bgp neighbors {peer}"))?;
    let peer = &answer[peer];
    let messages = &peer["messageStats"];
    let count = |name: &str| -> Result<Value> {
        let found = messages
            .get(name)
            .with_context(|| format!("no {name}: {messages}"))?;
        Ok(found.clone())
    };
    Ok(format!(
        "{} {} {} {} {}",
        peer["bgpState"],
        peer["connectionsEstablished"],
        count("opensRecv")?,
        count("notificationsRecv")?,
        count("notificationsSent")?,
    ))
}

/// What would differ if BIRD's session had ended: since when it is up.
///
/// # Errors
/// When it is not up.
pub fn seen_by_bird(node: &Node, protocol: &str) -> Result<String> {
    let text = bird::run(node, &format!("show protocols {protocol}"))?;
    let line = text.lines().find(|line| line.contains("Established"));
    Ok(line
        .with_context(|| format!("{}: {text}", node.name()))?
        .to_owned())
}

/// What would differ if GoBGP's session had ended: counters of messages and of flaps.
///
/// # Errors
/// When GoBGP has no such neighbour.
pub fn seen_by_gobgp(node: &Node, peer: &str) -> Result<String> {
    let answer = node.exec_json(&["gobgp", "--json", "neighbor", peer])?;
    let state = &answer["state"];
    let received = &state["messages"]["received"];
    ensure!(received["open"].is_u64(), "no count of OPENs: {state}");
    Ok(format!(
        "{} opens {} notifications {} flops {}",
        state["session_state"], received["open"], received["notification"], state["flops"]
    ))
}
