// SPDX-License-Identifier: Apache-2.0
//! A gateway that lives and does not reach what the policy asks for: it hands over, and nobody does
//! when the target is dead.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use harness::{
    CONVERGED, Lab, causeway, firewall, guide,
    pod::Pod,
    standby::{self, Cut, GATEWAYS, has_copies, holder, holds, linked, seen_at},
    talks::Talks,
    wait_for,
};

/// The addresses gateways ask from.
const ASKERS: [&str; 2] = ["192.168.60.11", "192.168.60.12"];

/// What they ask: an address of the server that no connection of the test uses, so that it can go.
const TARGET: &str = "192.168.70.11/24";

/// A policy of gateways with addresses of their own, which do not move: pods' nodes choose.
const OWN: &str = r#"---
apiVersion: causeway.io/v1alpha1
kind: EgressGatewayPolicy
metadata:
  name: billing-own
spec:
  selectors:
    - podSelector:
        matchLabels: { app: billing, io.kubernetes.pod.namespace: shop }
  destinationCIDRs:
    - 192.168.70.12/32
  egressGateway:
    nodeSelector:
      matchLabels: { role: egress-gateway }
    interface: eth2
  health:
    probe: { target: 192.168.70.11, protocol: ICMP, intervalSeconds: 1, timeoutSeconds: 1 }
"#;

#[test]
fn addresses_move_to_who_reaches_the_target_and_stay_when_nobody_does() -> Result<()> {
    let policy = guide::manifest("egress.md", "billing-standby")?;
    let bfd = "    bfdProfileRef: { name: gateways }\n";
    let probe = "    probe: { target: 192.168.70.11, port: 7, intervalSeconds: 1, timeoutSeconds: 1, \
                 failureThreshold: 2 }\n";
    // Slow enough that a busy machine loses no gateway by it: what moves is to move by the probe.
    let policy = guide::adapted(
        &policy,
        &[
            (bfd, &format!("{bfd}{probe}")),
            ("IntervalMilliseconds: 50\n", "IntervalMilliseconds: 2000\n"),
        ],
    )?;
    let lab = standby::up_with("probe", &(policy + OWN))?;
    through_it_all(&lab).with_context(|| {
        let nodes = ["gw1", "gw2", "node1"].map(|node| lab.node(node));
        nodes.map(seen_at).join("\n")
    })
}

fn through_it_all(lab: &Lab) -> Result<()> {
    let (gw1, server) = (lab.node("gw1"), lab.node("server"));
    let pod = Pod::add_to(lab.node("node1"), "shop", "billing-1")?;
    // The firewall has refused what they asked so far, and there was nobody to answer: so nothing
    // has moved from the first by name.
    healthy(lab, &[])?;
    holds(lab, "gw1")?;
    let askers = ASKERS.join(", ");
    let own = format!("insert rule inet firewall forward ip saddr {{ {askers} }} accept");
    let own = lab
        .node("firewall")
        .exec_with_input(&["nft", "-f", "-"], own.as_bytes())?;
    ensure!(own.success(), "{}", own.stderr);
    for set in ["refused4", "refused6"] {
        let flush = ["nft", "flush", "set", "inet", "firewall", set];
        lab.node("firewall").exec_ok(&flush)?;
    }
    server.exec_ok(&["ip", "address", "add", TARGET, "dev", "eth1"])?;
    healthy(lab, &["gw1", "gw2"])?;
    asked(lab)?;

    let mut talks = Talks::default();
    talks.add(&pod)?;
    holds(lab, "gw1")?;
    has_copies(lab, "gw2", &talks)?;
    let before = terms(lab)?;
    chosen(lab, "gw1")?;

    // The target is dead: nothing moves, neither then nor when it is back.
    server.exec_ok(&["ip", "address", "delete", TARGET, "dev", "eth1"])?;
    healthy(lab, &[])?;
    talks.go_on("without the target")?;
    server.exec_ok(&["ip", "address", "add", TARGET, "dev", "eth1"])?;
    healthy(lab, &["gw1", "gw2"])?;
    talks.go_on("with the target back")?;
    ensure!(holder(lab)?.as_deref() == Some("gw1"), "it has moved");
    ensure!(terms(lab)? == before, "it has moved, and back");

    // One gateway does not reach it: its rules go to the other, which nothing takes them from.
    let cut = Cut::of(gw1, &["eth2"])?;
    holds(lab, "gw2")?;
    healthy(lab, &["gw2"])?;
    chosen(lab, "gw2")?;
    talks.go_on("with gw1's way cut")?;
    talks.add(&pod)?;
    cut.mend()?;
    healthy(lab, &["gw1", "gw2"])?;
    linked(lab)?;
    has_copies(lab, "gw1", &talks)?;
    talks.go_on("with gw1's way back")?;
    ensure!(holder(lab)?.as_deref() == Some("gw2"), "it has moved back");
    chosen(lab, "gw1")?;
    talks.finish()?;

    let refused = firewall::refused(lab.node("firewall"))?;
    ensure!(refused.is_empty(), "the firewall refused {refused:?}");
    Ok(())
}

/// Waits until the gateways and the pod's node take these for healthy, and no other.
fn healthy(lab: &Lab, gateways: &[&str]) -> Result<()> {
    for node in GATEWAYS
        .map(|(gateway, _)| gateway)
        .into_iter()
        .chain(["node1"])
    {
        let what = format!("{node} to take {gateways:?} for healthy");
        wait_for(&what, CONVERGED, || {
            let policies = causeway::items(lab.node(node), "egress policies")?;
            ensure!(policies.len() == 2, "{policies:#?}");
            for policy in &policies {
                let found = &policy["healthyGateways"];
                ensure!(*found == serde_json::json!(gateways), "{policy:#}");
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Waits until the pod's node sends what begins by this one of the gateways with addresses of their
/// own.
fn chosen(lab: &Lab, gateway: &str) -> Result<()> {
    wait_for(&format!("node1 to choose {gateway}"), CONVERGED, || {
        let policies = causeway::items(lab.node("node1"), "egress policies")?;
        let policy = policies.iter().find(|one| one["name"] == "billing-own");
        let policy = policy.with_context(|| format!("{policies:#?}"))?;
        let active = &policy["activeGateways"];
        ensure!(*active == serde_json::json!([gateway]), "{active}");
        Ok(())
    })
}

/// Waits until the server has heard the gateways.
fn asked(lab: &Lab) -> Result<()> {
    wait_for("the server to be asked", CONVERGED, || {
        let clients = firewall::clients(lab.node("server"))?;
        let clients: BTreeSet<String> = clients.iter().map(|(_, ip)| ip.to_string()).collect();
        ensure!(
            ASKERS.iter().all(|own| clients.contains(*own)),
            "{clients:?}"
        );
        Ok(())
    })
}

/// How often each rule of the first gateway has changed hands.
fn terms(lab: &Lab) -> Result<Vec<(u64, u64)>> {
    let rules = causeway::items(lab.node("gw1"), "egress rules")?;
    let terms = rules.iter().map(|rule| {
        let number = |field: &str| rule[field].as_u64();
        let term = number("rule").zip(number("term"));
        term.with_context(|| format!("a rule: {rule:#}"))
    });
    terms.collect()
}
