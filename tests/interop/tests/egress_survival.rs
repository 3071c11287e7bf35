// SPDX-License-Identifier: Apache-2.0
//! Gateways that die, hang, are cut off or drained, under connections that must not notice, and a
//! firewall that must see one address.

use anyhow::{Context, Result, ensure};
use harness::{
    CONVERGED, Lab, Node, Signal, causeway, firewall,
    pod::Pod,
    standby::{
        self, Cut, GATEWAYS, copied, has_address, holder, holds, linked, one_holds, seen_at,
        unheard,
    },
    store::Answers,
    talks::Talks,
    wait_for,
};

/// How often the segment is asked: longer than a gateway needs to take what nobody answers for.
const ROUNDS: usize = 10;

#[test]
fn connections_outlive_whatever_happens_to_their_gateway() -> Result<()> {
    let lab = standby::up("survival")?;
    through_it_all(&lab).with_context(|| {
        let nodes = ["gw1", "gw2", "node1", "node2"].map(|node| lab.node(node));
        nodes.map(seen_at).join("\n")
    })
}

/// On a slow machine BFD may lose a gateway that lives, and the addresses move: that is its right, and
/// connections must survive it. So what is asked for is where they are, not that they stayed; the
/// bench says that they do.
fn through_it_all(lab: &Lab) -> Result<()> {
    two_without_a_third(lab)?;
    let pods = [
        Pod::add_to(lab.node("node1"), "shop", "billing-1")?,
        Pod::add_to(lab.node("node2"), "shop", "billing-2")?,
    ];
    let mut talks = Talks::default();
    for pod in &pods {
        talks.add(pod)?;
    }
    talks.transfer(&pods[0])?;
    let mut now = settled(lab, &talks)?;

    // The daemon alone: the kernel goes on.
    lab.node(&now).kill(Signal::SIGKILL)?;
    talks.go_on("without the holder's daemon")?;
    lab.node(&now).start()?;
    linked(lab)?;
    now = settled(lab, &talks)?;
    talks.go_on("with the holder's next daemon")?;

    // Everything it sends and gets is lost, as of a hung kernel.
    let hung = Cut::whole(lab.node(&now))?;
    holds(lab, standby::other(&now))?;
    talks.go_on("with the holder hung")?;
    let failovers =
        "causeway_egress_failovers_total{policy=\"EgressGatewayPolicy/billing-standby\"}";
    wait_for("the failover to be counted", CONVERGED, || {
        let counted = causeway::metric(lab.node("node1"), failovers)?;
        ensure!(counted.is_some_and(|count| count >= 1.0), "{counted:?}");
        Ok(())
    })?;
    talks.add(&pods[0])?;
    hung.mend()?;
    linked(lab)?;
    now = settled(lab, &talks)?;
    talks.go_on("with the former holder back")?;

    // An operator wants it away.
    let drained = lab.node(&now);
    drained.exec_ok(&["causeway", "drain", "--detach", "--reason", "new disks"])?;
    holds(lab, standby::other(&now))?;
    talks.go_on("with the holder drained")?;
    // Another version, whose tables have another shape: connections are not in them.
    of_another_layout(drained, "/sys/fs/bpf/causeway/gateway")?;
    drained.exec_ok(&["causeway", "undrain"])?;
    settled(lab, &talks)?;
    talks.go_on("with the drained gateway's next version")?;
    of_another_layout(lab.node("node1"), "/sys/fs/bpf/causeway")?;
    linked(lab)?;
    now = settled(lab, &talks)?;
    talks.go_on("with the next version on the pods' node")?;

    // The two do not hear each other, and both live.
    let split = Cut::between_gateways(lab)?;
    unheard(lab)?;
    talks.go_on("with gateways that do not hear each other")?;
    one_holds(lab)?;
    // What begins meanwhile is caught up with.
    talks.add(&pods[1])?;
    split.mend()?;
    linked(lab)?;
    talks.go_on("with gateways that hear each other again")?;
    now = settled(lab, &talks).with_context(|| format!("{now} held them"))?;

    // Its cable is pulled.
    lab.node(&now).link_down("eth1")?;
    holds(lab, standby::other(&now))?;
    talks.go_on("with the holder's link down")?;
    lab.node(&now).link_up("eth1")?;
    linked(lab)?;
    settled(lab, &talks)?;

    // Both, and back.
    let both = [Cut::whole(lab.node("gw1"))?, Cut::whole(lab.node("gw2"))?];
    unheard(lab)?;
    for cut in both {
        cut.mend()?;
    }
    linked(lab)?;
    now = settled(lab, &talks)?;
    talks.go_on("with both gateways back")?;

    // Its power is cut: all its processes and devices are gone at once.
    let other = standby::other(&now);
    lab.node(&now).power_off()?;
    wait_for("the other gateway", CONVERGED, || {
        ensure!(has_address(lab.node(other))?, "{other} has no address");
        Ok(())
    })?;
    talks.go_on("without the gateway's power")?;
    talks.finish()?;

    let refused = firewall::refused(lab.node("firewall"))?;
    ensure!(refused.is_empty(), "the firewall refused {refused:?}");
    Ok(())
}

/// Ends a daemon and starts it, as if the pins in a folder were of a version whose tables have another
/// shape, and waits until they are gone.
fn of_another_layout(node: &Node, folder: &str) -> Result<()> {
    let layouts = || -> Result<Vec<String>> {
        let found = node.exec_ok(&["ls", folder])?;
        let mut found: Vec<String> = found.lines().map(str::to_owned).collect();
        found.retain(|name| name.len() == 16);
        Ok(found)
    };
    let before = layouts()?;
    ensure!(before.len() == 1, "{before:?}");
    node.kill(Signal::SIGKILL)?;
    let other = "0123456789abcdef";
    let paths = [&before[0], other].map(|name| format!("{folder}/{name}"));
    node.exec_ok(&["mv", &paths[0], &paths[1]])?;
    node.start()?;
    wait_for("the other version's tables to go", CONVERGED, || {
        let now = layouts()?;
        ensure!(now == before, "{now:?} in {folder}");
        Ok(())
    })?;
    wait_for("the daemon to answer", CONVERGED, || {
        causeway::ask(node, "status").map(drop)
    })
}

/// While no pod is there, nobody but the gateways is linked: of two that do not hear each other nobody
/// can say which one is dead, and there is no etcd. What the segment shows decides.
fn two_without_a_third(lab: &Lab) -> Result<()> {
    for (gateway, _) in GATEWAYS {
        let linked = causeway::items(lab.node(gateway), "egress gateways")?;
        ensure!(
            linked.len() == 1,
            "{gateway} is linked with others: {linked:#?}"
        );
    }
    let answers = Answers::begin(lab)?;
    let before = one_holds(lab)?;
    let split = Cut::between_gateways(lab)?;
    unheard(lab)?;
    for round in 0..ROUNDS {
        let heard = answers.ask()?;
        ensure!(heard.len() == 1, "{heard:?} in round {round}");
    }
    let now = one_holds(lab)?;
    eprintln!("{before} had the addresses, and {now} has them");
    split.mend()?;
    linked(lab)
}

/// Waits until one gateway has the addresses and the other every connection. Which has them.
fn settled(lab: &Lab, talks: &Talks) -> Result<String> {
    wait_for("a holder, and copies at the other", CONVERGED, || {
        let holder = holder(lab)?.context("nobody has the addresses, or both")?;
        copied(lab, standby::other(&holder), talks)?;
        Ok(holder)
    })
}
