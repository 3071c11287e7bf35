// SPDX-License-Identifier: Apache-2.0
//! Links between nodes: veth pairs made directly in the two nodes' namespaces, so that no
//! interface of a lab ever has a name in the root namespace.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    node::Node,
    topology::{Endpoint, Link, NodeKind, Topology},
};

/// Makes all links of a topology and sets them up.
pub(crate) fn make(topology: &Topology, nodes: &BTreeMap<String, Node>) -> Result<()> {
    let mut batch = String::new();
    for Link { ends: [a, b], mtu } in &topology.links {
        let end = |end: &Endpoint| -> Result<String> {
            let pid = nodes.get(&end.node).context("links were checked")?.pid();
            let mac = end
                .mac
                .as_ref()
                .map(|mac| format!(" address {mac}"))
                .unwrap_or_default();
            Ok(format!("name {}{mac} mtu {mtu} netns {pid}", end.interface))
        };
        // Writing to a String cannot fail.
        let _ = writeln!(batch, "link add {} type veth peer {}", end(a)?, end(b)?);
    }
    ip_batch(&batch).context("cannot make the links")?;
    for (name, node) in nodes {
        let mut batch = String::new();
        let is_bridge = topology
            .nodes
            .get(name)
            .is_some_and(|node| node.kind == NodeKind::Bridge);
        for end in topology
            .links
            .iter()
            .flat_map(|link| &link.ends)
            .filter(|end| end.node == *name)
        {
            if is_bridge {
                let _ = writeln!(batch, "link set {} master br0", end.interface);
            }
            let _ = writeln!(batch, "link set {} up", end.interface);
        }
        if batch.is_empty() {
            continue;
        }
        let output = node.exec_with_input(&["ip", "-batch", "-"], batch.as_bytes())?;
        ensure!(
            output.success(),
            "cannot set up the links of {name}: {}",
            output.stderr.trim()
        );
    }
    Ok(())
}

fn ip_batch(batch: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run ip (package iproute2)")?;
    let mut stdin = child
        .stdin
        .take()
        .context("ip was started without a pipe")?;
    stdin.write_all(batch.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip -batch: {}", complaint.trim());
    Ok(())
}
