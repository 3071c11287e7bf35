// SPDX-License-Identifier: Apache-2.0
//! Our own daemon, by `causeway … -o json`.

use anyhow::{Context, Result, ensure};
use lab_runner::Node;
use serde_json::Value;

/// Exit code of `causeway status` on a node that is not healthy.
const FOUND_UNHEALTHY: i32 = 1;

/// Runs a `causeway` command that prints JSON; `-o json` is added.
///
/// # Errors
/// When it fails, other than by finding the node unhealthy, or prints no JSON.
pub fn ask(node: &Node, command: &str) -> Result<Value> {
    let mut argv = vec!["causeway"];
    argv.extend(command.split_whitespace());
    argv.extend(["-o", "json"]);
    let output = node.exec(&argv)?;
    ensure!(
        output.success() || output.status.code() == Some(FOUND_UNHEALTHY),
        "on {}: `{}` failed ({}): {}{}",
        node.name(),
        argv.join(" "),
        output.status,
        output.stderr,
        output.stdout
    );
    serde_json::from_str(&output.stdout).with_context(|| {
        format!(
            "on {}: `{}` printed no JSON but: {}{}",
            node.name(),
            argv.join(" "),
            output.stdout,
            output.stderr
        )
    })
}

/// The `items` of a list that a command prints.
///
/// # Errors
/// As [`ask`], and when the answer is no list.
pub fn items(node: &Node, command: &str) -> Result<Vec<Value>> {
    let mut answer = ask(node, command)?;
    match answer["items"].take() {
        Value::Array(items) => Ok(items),
        _ => anyhow::bail!(
            "on {}: `causeway {command}` has no items: {answer}",
            node.name()
        ),
    }
}

/// Succeeds when the node says of itself that nothing is wrong.
///
/// # Errors
/// When it does not; the message has what it says.
pub fn healthy(node: &Node) -> Result<()> {
    let status = ask(node, "status")?;
    ensure!(
        status["health"] == "ok",
        "{}: {}: {}",
        node.name(),
        status["health"],
        status["issues"]
    );
    Ok(())
}

/// What `bgp peers` says of the peer of this name.
///
/// # Errors
/// As [`ask`], and when there is no such peer.
pub fn peer(node: &Node, name: &str) -> Result<Value> {
    let peers = items(node, "bgp peers")?;
    let found = peers.into_iter().find(|peer| peer["name"] == name);
    found.with_context(|| format!("{} has no peer {name}", node.name()))
}

/// Succeeds when the session with the peer of this name is established; else says why not.
///
/// # Errors
/// When it is not.
pub fn established(node: &Node, name: &str) -> Result<Value> {
    let peer = peer(node, name)?;
    ensure!(
        peer["session-state"] == "established",
        "{}: session with {name} is {}: {}",
        node.name(),
        peer["session-state"],
        peer["down-reason"]
    );
    Ok(peer)
}

/// The text of an answer's field; empty where it is none.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The value of a metric, by its name with the labels as they are written; none if it is not there.
///
/// # Errors
/// When the node has no metrics, or the value is no number.
pub fn metric(node: &Node, metric: &str) -> Result<Option<f64>> {
    let metrics = node.exec_ok(&["curl", "-sS", "http://127.0.0.1:9962/metrics"])?;
    let begin = format!("{metric} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&begin));
    let value = value.map(|value| value.parse().with_context(|| format!("{metric} {value}")));
    value.transpose()
}
