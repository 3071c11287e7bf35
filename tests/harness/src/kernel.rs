// SPDX-License-Identifier: Apache-2.0
//! A node's kernel, by `ip -j`.

use anyhow::{Context, Result, ensure};
use lab_runner::Node;
use serde_json::Value;

use crate::{CONVERGED, Family, wait_for};

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Who installed it, by name or number (`bgp`, `kernel`, `201`).
    pub protocol: String,
    /// Gateways of its next hops, sorted; a next hop without a gateway is its device's name.
    pub next_hops: Vec<String>,
}

/// The routes to exactly this prefix (`default` for the default route).
///
/// # Errors
/// When ip fails or its answer has another form.
pub fn routes(node: &Node, family: Family, prefix: &str) -> Result<Vec<Route>> {
    let family = match family {
        Family::Ipv4 => "-4",
        Family::Ipv6 => "-6",
    };
    let argv = ["ip", "-j", "-d", family, "route", "show", "exact", prefix];
    // ip prints nothing at all, not an empty list, where a table is empty.
    let text = node.exec_ok(&argv)?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let answer: Value = serde_json::from_str(&text).context("ip printed no JSON")?;
    let routes = answer.as_array().context("ip prints a list of routes")?;
    Ok(routes.iter().map(route).collect())
}

/// What the kernel of a node does with routes while something happens, as `ip monitor` prints it.
///
/// # Errors
/// When the monitor does not start, and what happens fails with.
pub fn watched(node: &Node, what: impl FnOnce() -> Result<()>) -> Result<String> {
    let monitor = node.spawn(&["ip", "monitor", "route"])?;
    // It hears what is done from here on: a route of no use is the sign that it does.
    wait_for("the monitor to hear", CONVERGED, || {
        node.exec_ok(&["ip", "route", "replace", "blackhole", "192.0.2.255/32"])?;
        node.exec_ok(&["ip", "route", "delete", "blackhole", "192.0.2.255/32"])?;
        ensure!(monitor.text().contains("192.0.2.255"), "nothing");
        Ok(())
    })?;
    what()?;
    monitor.stop()
}

/// Whether a route to exactly this prefix was deleted, by what [`watched`] brought.
pub fn was_deleted(text: &str, prefix: &str) -> bool {
    let line = format!("Deleted {prefix} ");
    text.lines().any(|l| l.starts_with(&line))
}

/// The only route to this prefix, when it has exactly these gateways, in any order.
///
/// # Errors
/// When there is none, more than one, or another; the message has all there are.
pub fn routed_by(node: &Node, family: Family, prefix: &str, gateways: &[&str]) -> Result<Route> {
    let all = routes(node, family, prefix)?;
    let mut wanted: Vec<&str> = gateways.to_vec();
    wanted.sort_unstable();
    match all.as_slice() {
        [route] => {
            ensure!(
                route.next_hops == wanted,
                "{}: {prefix} goes by {route:?}",
                node.name()
            );
            Ok(route.clone())
        }
        _ => anyhow::bail!(
            "{}: {prefix} has {} routes: {all:?}",
            node.name(),
            all.len()
        ),
    }
}

fn route(value: &Value) -> Route {
    let hops: Vec<&Value> = match value["nexthops"].as_array() {
        Some(hops) => hops.iter().collect(),
        None => vec![value],
    };
    let mut next_hops: Vec<String> = hops
        .into_iter()
        .filter_map(|hop| {
            let gateway = hop["gateway"].as_str().or(hop["via"]["host"].as_str());
            gateway.or(hop["dev"].as_str()).map(str::to_owned)
        })
        .collect();
    next_hops.sort();
    let protocol = value["protocol"].as_str().unwrap_or_default().to_owned();
    Route {
        protocol,
        next_hops,
    }
}
