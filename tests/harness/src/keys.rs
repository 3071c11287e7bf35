// SPDX-License-Identifier: Apache-2.0
//! The files of keys that nodes of the egress lab prove themselves with, each node's its own.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use lab_runner::{Lab, Node, Signal, wait_for};
use serde_json::Value;

use crate::{CONVERGED, causeway, root};

/// Where a node reads its keys.
pub const FILE: &str = "/etc/causeway/egress.key";

/// The nodes that have a file.
const NODES: [&str; 4] = ["gw1", "gw2", "node1", "node2"];

/// The key of the lab, which is no secret.
///
/// # Errors
/// When the lab's file cannot be read.
pub fn of_the_lab() -> Result<String> {
    let path = root()?.join("lab/containerlab/egress/egress.key");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut lines = text.lines();
    let key = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    key.map(str::to_owned).context("a key in the lab's file")
}

/// Gives each node a file of its own in the place of the lab's, with the same key.
///
/// # Errors
/// When a node's file cannot be replaced.
pub fn apart(lab: &Lab) -> Result<()> {
    let key = of_the_lab()?;
    for node in NODES {
        let node = lab.node(node);
        // The daemon never sees a moment without one: it reads the file at each connection.
        let replaced = format!("umount {FILE} && printf '%s\\n' '{key}' >{FILE}");
        node.exec_ok(&["sh", "-c", &replaced])?;
    }
    Ok(())
}

/// Writes a node's file.
///
/// # Errors
/// When it cannot be written.
pub fn write(node: &Node, text: &str) -> Result<()> {
    let path = path(node);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

/// Removes a node's file.
///
/// # Errors
/// When it is not there.
pub fn remove(node: &Node) -> Result<()> {
    let path = path(node);
    fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
}

fn path(node: &Node) -> PathBuf {
    node.path(FILE)
}

/// Kills a node's daemon and starts it again: its links begin anew.
///
/// # Errors
/// When it does not start.
pub fn restart(node: &Node) -> Result<()> {
    node.kill(Signal::SIGKILL)?;
    node.start()
}

/// What a node knows of another gateway.
///
/// # Errors
/// When it does not say, or knows of none of this name.
pub fn seen(node: &Node, other: &str) -> Result<Value> {
    let peers = causeway::items(node, "egress gateways")?;
    let found = peers.iter().find(|peer| peer["name"] == other);
    found
        .cloned()
        .with_context(|| format!("{other} is not in {peers:#?}"))
}

/// Waits until a node says of another one that they are not linked, and why: in the list of gateways,
/// in the status, and in the log.
///
/// # Errors
/// When it does not say this.
pub fn says(node: &Node, other: &str, why: &str) -> Result<()> {
    let what = format!("{} to say of {other}: {why}", node.name());
    wait_for(&what, CONVERGED, || {
        let peer = seen(node, other)?;
        let problem = peer["problem"].as_str().unwrap_or_default();
        ensure!(
            peer["isLinked"] == false && problem.contains(why),
            "{peer:#}"
        );
        let complete = |field: &str| peer[field].as_u64();
        let copies = (complete("copiedFromComplete"), complete("copiedToComplete"));
        ensure!(copies == (Some(0), Some(0)), "{peer:#}");
        let status = causeway::ask(node, "status")?;
        let issues = status["issues"].as_array().into_iter().flatten();
        let about = |issue: &&Value| {
            let is_meant = issue["object"] == format!("gateway {other}");
            let message = issue["message"].as_str().unwrap_or_default();
            is_meant && issue["code"] == "CW0711" && message.contains(why)
        };
        ensure!(issues.into_iter().any(|issue| about(&issue)), "{status:#}");
        let log = node.log();
        let is_told = log
            .lines()
            .any(|line| line.contains("no link") && line.contains(why));
        ensure!(is_told, "not in the log: {}", node.log_tail());
        Ok(())
    })
}
