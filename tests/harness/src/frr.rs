// SPDX-License-Identifier: Apache-2.0
//! FRR, by `vtysh … json`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lab_runner::Node;
use serde_json::Value;

use crate::{BgpPath, Family, sorted};

/// Runs a `show` command; ` json` is added.
///
/// # Errors
/// When vtysh fails or prints no JSON.
pub fn show(node: &Node, command: &str) -> Result<Value> {
    node.exec_json(&["vtysh", "-c", &format!("show {command} json")])
}

/// Runs configuration lines, as after `configure terminal`.
///
/// # Errors
/// When vtysh refuses one.
pub fn configure(node: &Node, lines: &[&str]) -> Result<()> {
    let mut argv = vec!["vtysh", "-c", "configure terminal"];
    argv.extend(lines.iter().flat_map(|line| ["-c", *line]));
    node.exec_ok(&argv).map(drop)
}

/// Succeeds when the session with a peer is established; else says in which state it is and why.
///
/// # Errors
/// When it is not.
pub fn established(node: &Node, peer: &str) -> Result<()> {
    let answer = show(node, &format!("bgp neighbors {peer}"))?;
    let neighbor = &answer[peer];
    ensure!(
        neighbor["bgpState"] == "Established",
        "{}: session with {peer} is {}, last reset: {}",
        node.name(),
        neighbor["bgpState"],
        neighbor["lastResetDueTo"]
    );
    Ok(())
}

/// All paths that FRR knows for a prefix; none when it has no such prefix.
///
/// # Errors
/// When vtysh fails or its answer has another form.
pub fn paths(node: &Node, family: Family, prefix: &str) -> Result<Vec<BgpPath>> {
    let answer = answer(node, family, prefix)?;
    let Some(paths) = answer["paths"].as_array() else {
        return Ok(Vec::new());
    };
    paths.iter().map(path).collect()
}

/// A path with what it is chosen by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// MULTI_EXIT_DISC, if it has one.
    pub med: Option<u64>,
    /// As in [`BgpPath`].
    pub communities: Vec<String>,
    /// As in [`BgpPath`].
    pub is_used: bool,
}

/// The paths FRR knows for a prefix, by the peer they are from.
///
/// # Errors
/// As [`paths`].
pub fn offers(node: &Node, family: Family, prefix: &str) -> Result<BTreeMap<String, Offer>> {
    let answer = answer(node, family, prefix)?;
    let paths = answer["paths"].as_array().into_iter().flatten();
    let offers = paths.map(|value| {
        let from = text(&value["peer"]["peerId"]).context("a path has a peer")?;
        let BgpPath {
            communities,
            is_used,
            ..
        } = path(value)?;
        let offer = Offer {
            med: value["metric"].as_u64(),
            communities,
            is_used,
        };
        Ok((from, offer))
    });
    offers.collect()
}

/// The prefix's paths, when FRR uses exactly `count` of them.
///
/// # Errors
/// When it uses another number; the message has all it knows.
pub fn used_paths(node: &Node, family: Family, prefix: &str, count: usize) -> Result<Vec<BgpPath>> {
    let all = paths(node, family, prefix)?;
    let used: Vec<BgpPath> = all.iter().filter(|path| path.is_used).cloned().collect();
    ensure!(
        used.len() == count,
        "{}: {prefix} uses {} paths, wanted {count}; all: {all:?}",
        node.name(),
        used.len()
    );
    Ok(used)
}

fn answer(node: &Node, family: Family, prefix: &str) -> Result<Value> {
    let family = match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    };
    show(node, &format!("bgp {family} unicast {prefix}"))
}

fn path(value: &Value) -> Result<BgpPath> {
    let list = |key: &str| {
        sorted(
            value[key]["list"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(text),
        )
    };
    let as_path = value["aspath"]["string"]
        .as_str()
        .context("a path has an AS path")?;
    Ok(BgpPath {
        as_path: as_path
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect(),
        next_hops: value["nexthops"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|hop| text(&hop["ip"]))
            .collect(),
        communities: list("community"),
        large_communities: list("largeCommunity"),
        is_used: value["bestpath"]["overall"] == true || value["multipath"] == true,
    })
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}
