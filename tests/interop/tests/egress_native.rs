// SPDX-License-Identifier: Apache-2.0
//! Nodes and gateways on one segment, which need no tunnel: the same lab with one more cable for
//! each, and a gateway that dies.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use harness::{
    CONVERGED, Lab, Node, causeway, egress, firewall,
    guide::adapted,
    pod::Pod,
    standby::{self, copied, has_address, holder, other, seen_at},
    talks::Talks,
    wait_for,
};

/// The nodes, the device each gets on the segment, and their number there.
const NODES: [(&str, &str, u8); 4] = [
    ("node1", "eth2", 1),
    ("node2", "eth2", 2),
    ("gw1", "eth3", 11),
    ("gw2", "eth3", 12),
];

#[test]
fn connections_without_a_tunnel_outlive_their_gateway() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let topology = with_a_segment(folder.path())?;
    let lab = egress::up_from(&topology, "native")?;
    standby::in_force(&lab)?;
    through_it_all(&lab).with_context(|| {
        let nodes = NODES.map(|(node, _, _)| seen_at(lab.node(node)));
        nodes.join("\n")
    })?;
    lab.down()
}

fn through_it_all(lab: &Lab) -> Result<()> {
    let node1 = lab.node("node1");
    let pods = [
        Pod::add_to(node1, "shop", "billing-1")?,
        Pod::add_to(lab.node("node2"), "shop", "billing-2")?,
    ];
    // Nobody but their nodes knows them: by the tunnel.
    egress::ways(node1, "tunnel")?;
    let mut early = Talks::default();
    early.add(&pods[0])?;
    let now = settled(lab, &early)?;
    reached(lab, &now, &early, "tunnel")?;

    // Everybody does: as they are, and so do the connections that are there.
    egress::known(lab, &pods)?;
    egress::ways(node1, "native")?;
    let mut talks = Talks::default();
    for pod in &pods {
        talks.add(pod)?;
    }
    early.go_on("without the tunnel")?;
    let now = settled(lab, &talks)?;
    reached(lab, &now, &talks, "native")?;
    reached(lab, other(&now), &talks, "native")?;
    let said = pods[0].v4.to_string();
    let said = node1.exec_ok(&["causeway", "egress", "explain", &said, "192.168.70.10"])?;
    ensure!(said.contains("without a tunnel"), "{said}");

    // A router in between, and none again.
    through_a_router(node1, &now, "add")?;
    egress::ways(node1, "tunnel")?;
    talks.go_on("with a router in between")?;
    through_a_router(node1, &now, "delete")?;
    egress::ways(node1, "native")?;
    talks.go_on("without the router")?;

    // Its power is cut.
    let now = settled(lab, &talks)?;
    let before = tunnelled(node1)?;
    let heir = other(&now);
    lab.node(&now).power_off()?;
    wait_for("the other gateway", CONVERGED, || {
        ensure!(has_address(lab.node(heir))?, "{heir} has no address");
        Ok(())
    })?;
    talks.go_on("without the gateway's power")?;
    reached(lab, heir, &talks, "native")?;
    ensure!(tunnelled(node1)? == before, "the tunnel is used");
    early.finish()?;
    talks.finish()?;
    let refused = firewall::refused(lab.node("firewall"))?;
    ensure!(refused.is_empty(), "the firewall refused {refused:?}");
    Ok(())
}

/// The lab's folder with a segment that all nodes are on, and whose addresses they know each other
/// by. The file of the topology.
fn with_a_segment(to: &Path) -> Result<PathBuf> {
    let from = harness::root()?.join("lab/containerlab/egress");
    copy(&from, to)?;
    let file = to.join("egress.clab.yml");
    let mut topology = fs::read_to_string(&file)?;
    let bridge = "    segment: { kind: bridge }\n";
    ensure!(topology.contains(bridge), "the topology has no segment");
    topology = topology.replace(
        bridge,
        &format!("{bridge}    cluster: {{ kind: bridge }}\n"),
    );
    for (node, device, number) in NODES {
        topology.push_str(&format!(
            "    - {{ endpoints: [\"{node}:{device}\", \"cluster:{node}\"], mtu: 1500 }}\n"
        ));
        let mut exec = format!(
            "      exec:\n        - ip address add 172.16.50.{number}/24 dev {device}\n        \
             - ip address add fd00:172:16:50::{number}/64 dev {device} nodad\n"
        );
        for (_, _, other) in NODES.iter().filter(|(name, _, _)| *name != node) {
            exec += &format!(
                "        - ip route add 10.244.{other}.0/24 via 172.16.50.{other}\n        \
                 - ip route add fd00:10:244:{other}::/64 via fd00:172:16:50::{other}\n"
            );
        }
        let head = format!("    {node}:\n      group: nodes\n      exec:\n");
        ensure!(topology.contains(&head), "the topology has no {node}");
        let new = format!("    {node}:\n      group: nodes\n{exec}");
        topology = topology.replace(&head, &new);

        let settings = to.join(node).join("causeway.yaml");
        let text = adapted(
            &fs::read_to_string(&settings)?,
            &[
                (
                    &format!("nodeAddresses: [\"10.0.0.{number}\", \"fd00:10::{number}\"]"),
                    &format!(
                        "nodeAddresses: [\"172.16.50.{number}\", \"fd00:172:16:50::{number}\"]"
                    ),
                ),
                ("devices: [", &format!("devices: [\"{device}\", ")),
                ("egress:\n", "egress:\n  transport: native\n"),
            ],
        )?;
        fs::write(settings, text)?;
        let nodes = to.join("resources.d/nodes.yaml");
        let text = adapted(
            &fs::read_to_string(&nodes)?,
            &[
                (
                    &format!("address: 10.0.0.{number} }}"),
                    &format!("address: 172.16.50.{number} }}"),
                ),
                (
                    &format!("\"fd00:10::{number}\""),
                    &format!("\"fd00:172:16:50::{number}\""),
                ),
            ],
        )?;
        fs::write(nodes, text)?;
    }
    fs::write(&file, topology)?;
    Ok(file)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Waits until a gateway answers the pods of some connections this way.
fn reached(lab: &Lab, gateway: &str, talks: &Talks, transport: &str) -> Result<()> {
    wait_for(&format!("{gateway} to use {transport}"), CONVERGED, || {
        let mappings = causeway::items(lab.node(gateway), "egress nat --protocol tcp")?;
        // Those that say nothing go on as they began.
        for talk in talks.all() {
            let own = talk.own().to_string();
            let found = mappings.iter().find(|mapping| mapping["pod"] == own);
            let mapping = found.with_context(|| format!("{own} is not in {mappings:#?}"))?;
            ensure!(mapping["transport"] == transport, "{mapping:#}");
        }
        Ok(())
    })
}

/// Makes the other gateway the way to a gateway.
fn through_a_router(node: &Node, gateway: &str, action: &str) -> Result<()> {
    let number = |name| NODES.iter().find(|(node, _, _)| *node == name);
    let (to, via) = (number(gateway), number(other(gateway)));
    let ((_, _, to), (_, _, via)) = (to.context("a node")?, via.context("a node")?);
    for (net, length) in [("172.16.50.", 32), ("fd00:172:16:50::", 128)] {
        let (to, via) = (format!("{net}{to}/{length}"), format!("{net}{via}"));
        node.exec_ok(&["ip", "route", action, &to, "via", &via])?;
    }
    Ok(())
}

/// Waits until one gateway has the addresses and the other every connection. Which has them.
fn settled(lab: &Lab, talks: &Talks) -> Result<String> {
    wait_for("a holder, and copies at the other", CONVERGED, || {
        let holder = holder(lab)?.context("nobody has the addresses, or both")?;
        copied(lab, other(&holder), talks)?;
        Ok(holder)
    })
}

/// How many packets a node has sent into the tunnel.
fn tunnelled(node: &Node) -> Result<u64> {
    let listed = node.exec_ok(&["ip", "-s", "-j", "link", "show", "dev", "cw-egress"])?;
    let links: serde_json::Value = serde_json::from_str(&listed)?;
    let packets = links[0]["stats64"]["tx"]["packets"].as_u64();
    packets.with_context(|| format!("no counter in {listed}"))
}
