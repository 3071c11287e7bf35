// SPDX-License-Identifier: Apache-2.0
//! BIRD 2 and 3, by `birdc`, which has no JSON.

use anyhow::{Context, Result, ensure};
use lab_runner::Node;

use crate::{BgpPath, sorted};

/// Runs a birdc command.
///
/// # Errors
/// When birdc fails.
pub fn run(node: &Node, command: &str) -> Result<String> {
    let mut argv = vec!["birdc"];
    argv.extend(command.split_whitespace());
    node.exec_ok(&argv)
}

/// Succeeds when a protocol is established; else gives BIRD's line about it.
///
/// # Errors
/// When it is not.
pub fn established(node: &Node, protocol: &str) -> Result<()> {
    let text = run(node, &format!("show protocols {protocol}"))?;
    let line = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(protocol))
        .with_context(|| format!("{}: no protocol {protocol}: {text}", node.name()))?;
    ensure!(line.contains("Established"), "{}: {line}", node.name());
    Ok(())
}

/// All BGP paths for a prefix; none when BIRD has no such prefix.
///
/// # Errors
/// When birdc fails.
pub fn paths(node: &Node, prefix: &str) -> Result<Vec<BgpPath>> {
    let output = node.exec(&["birdc", "show", "route", "all", prefix])?;
    if output.stdout.contains("Network not found") {
        return Ok(Vec::new());
    }
    ensure!(
        output.success(),
        "{}: birdc: {}{}",
        node.name(),
        output.stdout,
        output.stderr
    );
    Ok(parse(&output.stdout))
}

/// A route is a line with its protocol in brackets; its attributes follow, indented.
fn parse(text: &str) -> Vec<BgpPath> {
    let mut paths: Vec<BgpPath> = Vec::new();
    for line in text.lines() {
        if line.contains(" [") && !line.starts_with('\t') {
            let is_used = line.contains("] * ");
            paths.push(BgpPath {
                is_used,
                ..BgpPath::default()
            });
        }
        let (Some(path), Some((name, value))) = (paths.last_mut(), line.trim().split_once(':'))
        else {
            continue;
        };
        // BIRD 2 writes `BGP.as_path`, BIRD 3 `bgp_path`.
        match name {
            "BGP.as_path" | "bgp_path" => {
                path.as_path = value
                    .split_whitespace()
                    .filter_map(|number| number.parse().ok())
                    .collect();
            }
            "BGP.next_hop" | "bgp_next_hop" => {
                path.next_hops = value.split_whitespace().map(str::to_owned).collect();
            }
            "BGP.community" | "bgp_community" => path.communities = communities(value),
            "BGP.large_community" | "bgp_large_community" => {
                path.large_communities = communities(value);
            }
            _ => {}
        }
    }
    paths.retain(|path| !path.as_path.is_empty() || !path.next_hops.is_empty());
    paths
}

/// `(65001,100) (65001,200)` as `65001:100` and `65001:200`; large ones have spaces after commas.
fn communities(text: &str) -> Vec<String> {
    sorted(
        text.split(')')
            .map(|part| part.trim().trim_start_matches('('))
            .filter(|part| !part.is_empty())
            .map(|part| part.split(',').map(str::trim).collect::<Vec<_>>().join(":")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_both_versions_are_read() {
        let text = "BIRD 2.17.5 ready.\nTable master4:\n\
            10.244.1.0/24        unicast [node1 03:41:21.848] * (100) [AS65001i]\n\
            \tvia 10.1.2.1 on eth1\n\
            \tType: BGP univ\n\
            \tBGP.origin: IGP\n\
            \tBGP.as_path: 65101 65001\n\
            \tBGP.next_hop: 10.1.2.1\n\
            \tBGP.community: (65001,300) (65001,100)\n\
            \tbgp_large_community: (65001, 1, 100)\n\
            \x20                    unicast [other 03:41:21.848] (100) [AS65001i]\n\
            \tbgp_path: 65001\n";
        let paths = parse(text);
        assert_eq!(paths.len(), 2);
        assert_eq!(paths[0].as_path, [65101, 65001]);
        assert_eq!(paths[0].next_hops, ["10.1.2.1"]);
        assert_eq!(paths[0].communities, ["65001:100", "65001:300"]);
        assert_eq!(paths[0].large_communities, ["65001:1:100"]);
        assert!(paths[0].is_used && !paths[1].is_used);
    }
}
