// SPDX-License-Identifier: Apache-2.0
//! What holds in the `fabric` topology once everybody has spoken.

use anyhow::Result;
use lab_runner::{Lab, Node, wait_for};

use crate::{CONVERGED, Family, causeway, frr, kernel, pod::Pod};

/// The sessions of node1: its name of the peer, the router, and node1's address there.
pub const SESSIONS: [(&str, &str, &str); 4] = [
    ("tor1-v4", "tor1", "172.16.11.2"),
    ("tor1-v6", "tor1", "fd00:172:16:11::2"),
    ("tor2-v4", "tor2", "172.16.21.2"),
    ("tor2-v6", "tor2", "fd00:172:16:21::2"),
];

/// Waits until node1 and node2 are healthy, tor1 and tor2 know the pods of each, and node1 has both
/// ways out.
///
/// # Errors
/// When that does not come about.
pub fn converged(lab: &Lab) -> Result<()> {
    for node in ["node1", "node2"] {
        wait_for(&format!("{node} to be healthy"), CONVERGED, || {
            causeway::healthy(lab.node(node))
        })?;
        wait_for("the plugin to serve", CONVERGED, || {
            Pod::plugin_serves(lab.node(node))
        })?;
    }
    for router in ["tor1", "tor2"] {
        for (family, prefix) in [
            (Family::Ipv4, "10.244.1.0/24"),
            (Family::Ipv4, "10.244.2.0/24"),
            (Family::Ipv6, "fd00:10:244:1::/64"),
            (Family::Ipv6, "fd00:10:244:2::/64"),
        ] {
            wait_for(prefix, CONVERGED, || {
                frr::used_paths(lab.node(router), family, prefix, 1)
            })?;
        }
    }
    wait_for("both ways out of node1", CONVERGED, || {
        default_by_both(lab.node("node1"))
    })
}

/// Succeeds when node1 has both ways out, by both families.
///
/// # Errors
/// When it has not.
pub fn default_by_both(node1: &Node) -> Result<()> {
    default_of(node1, Family::Ipv4, &["172.16.11.1", "172.16.21.1"])?;
    default_of(
        node1,
        Family::Ipv6,
        &["fd00:172:16:11::1", "fd00:172:16:21::1"],
    )
}

/// Succeeds when a node's default route has exactly these gateways.
///
/// # Errors
/// When it has others.
pub fn default_of(node: &Node, family: Family, gateways: &[&str]) -> Result<()> {
    kernel::routed_by(node, family, "default", gateways).map(drop)
}
