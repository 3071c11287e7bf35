// SPDX-License-Identifier: Apache-2.0
//! Gateways that die, hang, are cut off or drained, under connections that must not notice, and a
//! firewall that must see one address.

use anyhow::{Context, Result, ensure};
use harness::{
    CONVERGED, Lab, Signal, firewall,
    pod::Pod,
    standby::{self, Cut, has_address, has_copies, holds, linked, one_holds, seen_at, unheard},
    talks::Talks,
    wait_for,
};

#[test]
fn connections_outlive_whatever_happens_to_their_gateway() -> Result<()> {
    let lab = standby::up("survival")?;
    through_it_all(&lab).with_context(|| {
        let nodes = ["gw1", "gw2", "node1", "node2"].map(|node| lab.node(node));
        nodes.map(seen_at).join("\n")
    })
}

fn through_it_all(lab: &Lab) -> Result<()> {
    let pods = [
        Pod::add_to(lab.node("node1"), "shop", "billing-1")?,
        Pod::add_to(lab.node("node2"), "shop", "billing-2")?,
    ];
    let mut talks = Talks::default();
    for pod in &pods {
        talks.add(pod)?;
    }
    holds(lab, "gw1")?;
    has_copies(lab, "gw2", &talks)?;

    // The daemon alone: the kernel goes on, and nobody takes anything over.
    stage("The daemon alone")?;
    lab.node("gw1").kill(Signal::SIGKILL)?;
    talks.go_on("without gw1's daemon")?;
    holds(lab, "gw1")?;
    lab.node("gw1").start()?;
    linked(lab)?;
    holds(lab, "gw1")?;
    has_copies(lab, "gw2", &talks)?;
    talks.go_on("with gw1's next daemon")?;

    // Everything it sends and gets is lost, as of a hung kernel.
    stage("Everything it sends")?;
    let hung = Cut::whole(lab.node("gw1"))?;
    holds(lab, "gw2")?;
    talks.go_on("with gw1 hung")?;
    talks.add(&pods[0])?;
    hung.mend()?;
    linked(lab)?;
    holds(lab, "gw2")?;
    has_copies(lab, "gw1", &talks)?;
    talks.go_on("with gw1 back")?;

    // An operator wants it away.
    stage("An operator")?;
    let gw2 = lab.node("gw2");
    gw2.exec_ok(&["causeway", "drain", "--detach", "--reason", "new disks"])?;
    holds(lab, "gw1")?;
    talks.go_on("with gw2 drained")?;
    gw2.exec_ok(&["causeway", "undrain"])?;
    has_copies(lab, "gw2", &talks)?;
    holds(lab, "gw1")?;

    // The two do not hear each other, and both live: nothing moves.
    stage("The two do not")?;
    let split = Cut::between_gateways(lab)?;
    unheard(lab)?;
    talks.go_on("with gateways that do not hear each other")?;
    holds(lab, "gw1")?;
    // What begins meanwhile is caught up with.
    talks.add(&pods[1])?;
    split.mend()?;
    linked(lab)?;
    has_copies(lab, "gw2", &talks)?;

    // Its cable is pulled.
    stage("Its cable")?;
    let gw1 = lab.node("gw1");
    gw1.link_down("eth1")?;
    holds(lab, "gw2")?;
    talks.go_on("with gw1's link down")?;
    gw1.link_up("eth1")?;
    linked(lab)?;
    has_copies(lab, "gw1", &talks)?;

    // Both, and back.
    stage("Both, and back")?;
    let both = [Cut::whole(lab.node("gw1"))?, Cut::whole(lab.node("gw2"))?];
    unheard(lab)?;
    for cut in both {
        cut.mend()?;
    }
    linked(lab)?;
    let holder = one_holds(lab)?;
    talks.go_on("with both gateways back")?;
    let other = standby::other(&holder);
    has_copies(lab, other, &talks)?;

    // Its power is cut: all its processes and devices are gone at once.
    stage("Its power")?;
    lab.node(&holder).power_off()?;
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

fn stage(what: &str) -> Result<()> {
    println!(
        "{:?} {what}",
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)?
            .as_secs()
            % 86400
    );
    Ok(())
}
