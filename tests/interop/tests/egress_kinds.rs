// SPDX-License-Identifier: Apache-2.0
//! What a policy says of several gateways and of pools: who leaves by which gateway, under which
//! address, and what becomes of that when gateways, daemons and other pods go.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
};

use anyhow::{Context, Result, ensure};
use harness::{
    CONVERGED, Lab, Signal, causeway,
    egress::{self, SERVER, connect, seen_as},
    firewall, guide,
    pod::Pod,
    standby::{self, Cut, GATEWAYS, copied, linked, seen_at},
    talks::Talks,
    wait_for,
};
use serde_json::Value;

/// Sessions that find a dead gateway, and lose none because the machine is busy.
const GATEWAYS_BFD: &str = "---
apiVersion: causeway.io/v1alpha1
kind: BFDProfile
metadata:
  name: gateways
spec:
  transmitIntervalMilliseconds: 500
  receiveIntervalMilliseconds: 500
  detectMultiplier: 4
";

/// Who may pass the firewall: gateways under their own addresses, and those of the pools here.
const PASS: [[&str; 2]; 2] = [
    ["192.168.60.11-192.168.60.12", "192.168.60.104-192.168.60.127"],
    ["fd00:192:168:60::11-fd00:192:168:60::12", "fd00:192:168:60::104-fd00:192:168:60::127"],
];

/// Each pod has an address of four, and the gateways share those.
const SPREAD: &str = r#"apiVersion: causeway.io/v1alpha1
kind: EgressGatewayPolicy
metadata:
  name: spread
spec:
  selectors:
    - podSelector:
        matchLabels: { app: spread }
  destinationCIDRs: [192.168.70.0/24, "fd00:192:168:70::/64"]
  mode: ActiveActive
  egressGateway:
    nodeSelector:
      matchLabels: { role: egress-gateway }
    interface: eth2
    addressPool:
      cidrs: [192.168.60.104/30, "fd00:192:168:60::104/126"]
      assign: Pod
  health:
    bfdProfileRef: { name: gateways }
"#;

#[test]
fn pods_keep_their_gateway_and_address_whatever_happens_to_others() -> Result<()> {
    let lab = standby::up_with("kinds", &(SPREAD.to_owned() + GATEWAYS_BFD))?;
    for sources in PASS {
        firewall::allow(lab.node("firewall"), &sources)?;
    }
    let run = || -> Result<()> {
        spread(&lab)?;
        Ok(())
    };
    run().with_context(|| {
        let nodes = ["gw1", "gw2", "node1", "node2"].map(|node| lab.node(node));
        nodes.map(seen_at).join("\n")
    })?;
    lab.down()
}

/// Every pod by a gateway of its own, until that dies.
fn spread(lab: &Lab) -> Result<()> {
    let mut pods = pods(lab, "spread", 4)?;
    let before = ways(&pods)?;
    let used: BTreeSet<&str> = before.values().map(|way| way.gateway.as_str()).collect();
    ensure!(used == BTreeSet::from(["gw1", "gw2"]), "{before:#?}");

    // Other pods go, and daemons are started anew.
    pods.pop().context("a pod of node2")?.remove()?;
    pods.remove(0).remove()?;
    for node in ["node1", "gw1"] {
        lab.node(node).kill(Signal::SIGKILL)?;
        lab.node(node).start()?;
    }
    linked(lab)?;
    same(&pods, &before).context("with other pods gone and daemons restarted")?;

    let mut talks = Talks::default();
    for pod in &pods {
        talks.add(pod)?;
    }
    for (gateway, _) in GATEWAYS {
        let what = format!("{gateway} to have all connections, its own or as copies");
        wait_for(&what, CONVERGED, || copied(lab, gateway, &talks))?;
    }
    let terms = terms(lab, "gw2")?;
    let hung = Cut::whole(lab.node("gw1"))?;
    for pod in &pods {
        let way = wait_for("the other gateway", CONVERGED, || {
            let way = way(pod)?;
            ensure!(way.gateway == "gw2", "{way:?}");
            Ok(way)
        })?;
        ensure!(way.addresses == before[pod.name()].addresses, "{way:?}");
    }
    talks.go_on("with one of two gateways hung")?;
    let now = self::terms(lab, "gw2")?;
    for (rule, term) in &terms {
        ensure!(now.get(rule) == Some(term), "{rule} has moved: {now:?}");
    }
    hung.mend()?;
    linked(lab)?;
    talks.go_on("with the gateway back")?;
    talks.finish()?;
    let refused = firewall::refused(lab.node("firewall"))?;
    ensure!(refused.is_empty(), "the firewall refused {refused:?}");
    pods.into_iter().try_for_each(Pod::remove)
}

/// By which gateway a pod leaves, and under which address of each family.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Way {
    gateway: String,
    addresses: [IpAddr; 2],
}

/// Asks the pod's node, the server and the gateway, which must agree.
fn way(pod: &Pod<'_>) -> Result<Way> {
    let paths = causeway::items(pod.node(), "egress list")?;
    let mut gateways = BTreeSet::new();
    let mut addresses = Vec::new();
    for (own, target) in [pod.v4, pod.v6].into_iter().zip(SERVER) {
        let path = paths.iter().find(|path| {
            let is_v6 = text(&path["destinationCIDR"]).contains(':');
            path["sourceIP"] == own.to_string() && is_v6 == target.is_ipv6()
        });
        let path = path.with_context(|| format!("{own} is not in {paths:#?}"))?;
        ensure!(path["action"] == "gateway", "{path:#}");
        let seen = seen_as(pod, target)?;
        let told = &path["egressIPs"];
        ensure!(*told == serde_json::json!([seen.to_string()]), "seen as {seen}: {path:#}");
        gateways.insert(text(&path["gateway"]));
        addresses.push(seen);
    }
    let [gateway] = Vec::from_iter(gateways).try_into().map_err(|all| anyhow::anyhow!("{all:?}"))?;
    let [v4, v6] = addresses[..] else {
        anyhow::bail!("{addresses:?}");
    };
    Ok(Way { gateway, addresses: [v4, v6] })
}

/// The ways of all, by name of the pod.
fn ways(pods: &[Pod<'_>]) -> Result<BTreeMap<String, Way>> {
    let way = |pod: &Pod<'_>| {
        let what = format!("{} to leave as its node says", pod.name());
        Ok((pod.name().to_owned(), wait_for(&what, CONVERGED, || way(pod))?))
    };
    pods.iter().map(way).collect()
}

fn same(pods: &[Pod<'_>], before: &BTreeMap<String, Way>) -> Result<()> {
    for (pod, way) in ways(pods)? {
        ensure!(before[&pod] == way, "{pod}: {way:?}, before {:?}", before[&pod]);
    }
    Ok(())
}

/// How often each rule a gateway serves has changed hands.
fn terms(lab: &Lab, gateway: &str) -> Result<BTreeMap<u64, u64>> {
    let rules = causeway::items(lab.node(gateway), "egress rules")?;
    let terms = rules.iter().map(|rule| {
        let numbers = rule["rule"].as_u64().zip(rule["term"].as_u64());
        numbers.with_context(|| format!("{rule:#}"))
    });
    terms.collect()
}

/// So many pods of an app on each node, with their objects.
fn pods<'a>(lab: &'a Lab, app: &str, count: usize) -> Result<Vec<Pod<'a>>> {
    let names = |node: &'static str| (1..=count).map(move |n| (node, format!("{app}-{node}-{n}")));
    let all: Vec<_> = names("node1").chain(names("node2")).collect();
    let objects: Vec<String> = all
        .iter()
        .map(|(node, name)| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: shop\n  \
                 labels: {{ app: {app} }}\nspec: {{ nodeName: {node} }}\n"
            )
        })
        .collect();
    egress::write(lab, &format!("{app}-pods.yaml"), &objects.join("---\n"))?;
    let pod = |(node, name): (&str, String)| Pod::add_to(lab.node(node), "shop", &name);
    all.into_iter().map(pod).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
