// SPDX-License-Identifier: Apache-2.0
//! GoBGP, by `gobgp --json`.

use anyhow::{Context, Result, ensure};
use lab_runner::Node;
use serde_json::Value;

use crate::{BgpPath, Family, sorted};

/// `session_state` of an established session in GoBGP's API.
const ESTABLISHED: u64 = 6;
/// Path attribute types in GoBGP's JSON (RFC 4271 §5, RFC 1997, RFC 4760, RFC 8092).
const AS_PATH: u64 = 2;
const NEXT_HOP: u64 = 3;
const COMMUNITIES: u64 = 8;
const MP_REACH_NLRI: u64 = 14;
const LARGE_COMMUNITY: u64 = 32;

/// Succeeds when the session with a peer is established.
///
/// # Errors
/// When it is not; the message has GoBGP's state of it.
pub fn established(node: &Node, peer: &str) -> Result<()> {
    let answer = node.exec_json(&["gobgp", "--json", "neighbor", peer])?;
    let state = &answer["state"];
    ensure!(
        state["session_state"] == ESTABLISHED,
        "{}: session with {peer} is in state {} (6 is established)",
        node.name(),
        state["session_state"]
    );
    Ok(())
}

/// All paths for a prefix; none when GoBGP has no such prefix.
///
/// # Errors
/// When gobgp fails or its answer has another form.
pub fn paths(node: &Node, family: Family, prefix: &str) -> Result<Vec<BgpPath>> {
    let family = match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    };
    let answer = node.exec_json(&["gobgp", "--json", "global", "rib", "-a", family])?;
    let table = answer
        .as_object()
        .context("the table is an object keyed by prefix")?;
    let Some(paths) = table.get(prefix).and_then(Value::as_array) else {
        return Ok(Vec::new());
    };
    Ok(paths.iter().map(path).collect())
}

fn path(value: &Value) -> BgpPath {
    let mut path = BgpPath {
        is_used: value["best"] == true,
        ..BgpPath::default()
    };
    for attribute in value["attrs"].as_array().into_iter().flatten() {
        match attribute["type"].as_u64() {
            Some(AS_PATH) => {
                path.as_path = attribute["as_paths"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .flat_map(|segment| segment["asns"].as_array().into_iter().flatten())
                    .filter_map(|asn| asn.as_u64()?.try_into().ok())
                    .collect();
            }
            Some(NEXT_HOP | MP_REACH_NLRI) => {
                path.next_hops = attribute["nexthop"]
                    .as_str()
                    .map(str::to_owned)
                    .into_iter()
                    .collect();
            }
            Some(COMMUNITIES) => {
                let numbers = attribute["communities"].as_array().into_iter().flatten();
                path.communities = sorted(
                    numbers
                        .filter_map(Value::as_u64)
                        .map(|number| format!("{}:{}", number >> 16, number & 0xffff)),
                );
            }
            Some(LARGE_COMMUNITY) => {
                let values = attribute["value"].as_array().into_iter().flatten();
                path.large_communities = sorted(values.map(|value| {
                    format!(
                        "{}:{}:{}",
                        value["ASN"], value["LocalData1"], value["LocalData2"]
                    )
                }));
            }
            _ => {}
        }
    }
    path
}
