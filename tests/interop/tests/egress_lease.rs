// SPDX-License-Identifier: Apache-2.0
//! Gateways that cannot ask each other nor anybody else, and an etcd that tells which of them has
//! the addresses.

use anyhow::{Context, Result, ensure};
use harness::{
    CONVERGED, Lab, Signal, causeway, firewall,
    pod::Pod,
    standby::{
        self, Cut, GATEWAYS, copied, has_address, holder, holds, linked, one_holds, seen_at,
        unheard,
    },
    store::{self, Answers, all_reach, reached, written, written_as},
    talks::Talks,
    wait_for,
};

/// How often the segment is asked: more than a cut-off gateway needs to let go.
const ROUNDS: usize = 10;

#[test]
fn exactly_one_gateway_answers_whoever_hears_whom() -> Result<()> {
    let lab = store::up("lease")?;
    through_it_all(&lab).with_context(|| {
        let nodes = ["gw1", "gw2", "node1"].map(|node| seen_at(lab.node(node)));
        let written = written(&lab).unwrap_or_else(|error| error.to_string());
        format!("{}\n== etcd\n{written}", nodes.join("\n"))
    })
}

fn through_it_all(lab: &Lab) -> Result<()> {
    let pod = Pod::add_to(lab.node("node1"), "shop", "billing-1")?;
    let mut talks = Talks::default();
    talks.add(&pod)?;
    let first = settled(lab, &talks)?;
    for (gateway, _) in GATEWAYS {
        leased(lab, gateway)?;
    }

    // The daemon alone: who comes back within its lease goes on with what etcd says it had.
    lab.node(&first).kill(Signal::SIGKILL)?;
    talks.go_on("without the holder's daemon")?;
    lab.node(&first).start()?;
    linked(lab)?;
    let first = settled(lab, &talks)?;
    talks.go_on("with the holder's next daemon")?;

    // Nobody hears anybody: without etcd both would let go.
    let mut answers = Answers::begin(lab)?;
    let silence = Cut::words(lab)?;
    unheard(lab)?;
    for round in 0..ROUNDS {
        let heard = answers.ask()?;
        ensure!(heard.len() == 1, "{heard:?} in round {round}");
        talks.go_on("with nobody who hears anybody")?;
    }
    one_holds(lab)?;
    silence.mend()?;
    linked(lab)?;
    let now = settled(lab, &talks)?;
    eprintln!("{first} had the addresses, and {now} has them");

    // The holder reaches etcd and nobody else. Witnesses replace it, and etcd tells it so.
    let deaf = Cut::whole(lab.node(&now))?;
    holds(lab, standby::other(&now)).with_context(|| format!("{now} was cut off"))?;
    reached(lab.node(&now), true)?;
    talks.go_on("with the holder cut off from all but etcd")?;
    copied(lab, &now, &talks).context("who lets go forgets nothing")?;
    written_as(lab, standby::other(&now))?;
    deaf.mend()?;
    linked(lab)?;
    let now = settled(lab, &talks)?;

    // The same, and its replacer does not reach etcd: the segment they share tells the first one.
    let other = standby::other(&now);
    let away = Cut::of(lab.node(other), &["eth3"])?;
    let deaf = Cut::of(lab.node(&now), &["eth1"])?;
    holds(lab, other).with_context(|| format!("{now} was cut off from all but etcd"))?;
    talks.go_on("with each gateway reaching what the other one does not")?;
    away.mend()?;
    // Its lease has ended meanwhile, and it may not have another yet when the first one is back.
    copied(lab, &now, &talks).context("who lets go forgets nothing")?;
    written_as(lab, other)?;
    deaf.mend()?;
    linked(lab)?;
    let now = settled(lab, &talks)?;

    // An etcd that hangs is not waited for, and without one everything is as if there were none.
    let etcd = lab.node("etcd");
    etcd.kill(Signal::SIGSTOP)?;
    let hung = Cut::whole(lab.node(&now))?;
    holds(lab, standby::other(&now))?;
    talks.go_on("with the holder hung, and etcd")?;
    all_reach(lab, false)?;
    etcd.kill(Signal::SIGKILL)?;
    hung.mend()?;
    linked(lab)?;
    let before = settled(lab, &talks)?;
    talks.go_on("without etcd")?;
    let now = one_holds(lab)?;
    // Where they are, not that they stayed: on a slow machine BFD may lose who lives.
    eprintln!("{before} had the addresses, and without etcd {now} has them");
    etcd.start()?;
    all_reach(lab, true)?;
    written_as(lab, &now)?;
    talks.go_on("with etcd back")?;

    // Nobody is there to say that the holder is dead, but its lease; nor to tell pods' nodes who has
    // its addresses next, but etcd.
    answers = Answers::begin(lab)?;
    let _silence = Cut::words(lab)?;
    unheard(lab)?;
    let now = one_holds(lab)?;
    let other = standby::other(&now);
    let heard = answers.ask()?;
    ensure!(heard.len() == 1, "{heard:?}");
    lab.node(&now).power_off()?;
    wait_for("the other gateway", CONVERGED, || {
        ensure!(has_address(lab.node(other))?, "{other} has no address");
        Ok(())
    })?;
    talks.go_on("without the gateway's power")?;
    written_as(lab, other)?;
    let lease = format!("/gateways/{now}\n");
    let written = written(lab)?;
    ensure!(!written.contains(&lease), "{written}");
    talks.finish()?;
    let refused = firewall::refused(lab.node("firewall"))?;
    ensure!(refused.is_empty(), "the firewall refused {refused:?}");
    Ok(())
}

/// Waits until etcd has a gateway's lease.
fn leased(lab: &Lab, gateway: &str) -> Result<()> {
    let lease = format!("/causeway/egress/v1/gateways/{gateway}\n");
    wait_for(&format!("{gateway}'s lease"), CONVERGED, || {
        let written = written(lab)?;
        ensure!(written.contains(&lease), "{written}");
        Ok(())
    })
}

/// Waits until one gateway has the addresses, which is what etcd says, and the other every
/// connection, and the pod's node is a witness of both. Which has them.
fn settled(lab: &Lab, talks: &Talks) -> Result<String> {
    wait_for("the links of node1", CONVERGED, || {
        let gateways = causeway::items(lab.node("node1"), "egress gateways")?;
        let mut links = gateways.iter().map(|gateway| &gateway["isLinked"]);
        ensure!(
            links.len() == 2 && links.all(|is| *is == true),
            "{gateways:#?}"
        );
        Ok(())
    })?;
    let holder = wait_for("a holder, and copies at the other", CONVERGED, || {
        let holder = holder(lab)?.context("nobody has the addresses, or both")?;
        copied(lab, standby::other(&holder), talks)?;
        Ok(holder)
    })?;
    if lab.node("etcd").main_process().is_some() {
        written_as(lab, &holder)?;
    }
    Ok(holder)
}
