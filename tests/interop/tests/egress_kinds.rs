// SPDX-License-Identifier: Apache-2.0
//! What a policy says of several gateways and of pools: who leaves by which gateway, under which
//! address, and what becomes of that when gateways, daemons and other pods go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use harness::{
    CONVERGED, Lab, Signal,
    causeway::{self, text},
    egress::{self, SERVER, connect_within, seen_as},
    firewall,
    pod::Pod,
    standby::{self, Cut, GATEWAYS, copied, linked, seen_at},
    talks::Talks,
    wait_for,
};
use ipnet::IpNet;
use serde_json::Value;

/// Enough for a connection to come about: where it is too short, the server has seen it all the same.
const SHORT: Duration = Duration::from_millis(500);

/// Sessions that find a dead gateway, and lose none because the machine is busy.
const GATEWAYS_BFD: &str = "---
apiVersion: causeway.io/v1alpha1
kind: BFDProfile
metadata:
  name: gateways
spec:
  transmitIntervalMilliseconds: 300
  receiveIntervalMilliseconds: 300
  detectMultiplier: 4
";

/// Who may pass the firewall: gateways under their own addresses, and those of the pools here.
const PASS: [[&str; 2]; 2] = [
    [
        "192.168.60.11-192.168.60.12",
        "192.168.60.104-192.168.60.127",
    ],
    [
        "fd00:192:168:60::11-fd00:192:168:60::12",
        "fd00:192:168:60::104-fd00:192:168:60::11f",
    ],
];

/// A pool of four.
const SPREAD_POOL: [&str; 2] = ["192.168.60.104/30", "fd00:192:168:60::104/126"];

/// A pool that has enough for all.
const NAMESPACE_POOL: [&str; 2] = ["192.168.60.112/30", "fd00:192:168:60::110/126"];

/// A pool of two.
const SMALL_POOL: [&str; 2] = ["192.168.60.116/31", "fd00:192:168:60::114/127"];

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

/// Each pod by one of both gateways.
const ACTIVE: &str = r#"apiVersion: causeway.io/v1alpha1
kind: EgressGatewayPolicy
metadata:
  name: active
spec:
  selectors:
    - podSelector:
        matchLabels: { app: active }
  destinationCIDRs: [192.168.70.0/24, "fd00:192:168:70::/64"]
  mode: ActiveActive
  egressGateway:
    nodeSelector:
      matchLabels: { role: egress-gateway }
    interface: eth2
  health:
    bfdProfileRef: { name: gateways }
"#;

/// Addresses that all pods have in common.
const TOGETHER: &str = "apiVersion: causeway.io/v1alpha1
kind: EgressGatewayPolicy
metadata:
  name: together
spec:
  selectors:
    - podSelector:
        matchLabels: { app: nobody }
  destinationCIDRs: [192.168.70.0/24]
  mode: ActiveActive
  egressGateway:
    nodeSelector:
      matchLabels: { role: egress-gateway }
    egressIPs: [192.168.60.118, 192.168.60.119]
  health:
    bfdProfileRef: { name: gateways }
";

#[test]
fn pods_keep_their_gateway_and_address_whatever_happens_to_others() -> Result<()> {
    let lab = standby::up_with("kinds", &(SPREAD.to_owned() + GATEWAYS_BFD))?;
    for sources in PASS {
        firewall::allow(lab.node("firewall"), &sources)?;
    }
    let run = || -> Result<()> {
        spread(&lab)?;
        zones(&lab)?;
        pools(&lab)?;
        at_once(&lab)
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
    let before = ways(lab, &pods)?;
    let used: BTreeSet<&str> = before.values().map(|way| way.gateway.as_str()).collect();
    ensure!(used == BTreeSet::from(["gw1", "gw2"]), "{before:#?}");
    for way in before.values() {
        ensure!(drawn(SPREAD_POOL, [way.addresses])?, "{way:?}");
    }

    // Other pods go, and daemons are started anew.
    pods.pop().context("a pod of node2")?.remove()?;
    pods.remove(0).remove()?;
    for node in ["node1", "gw1"] {
        lab.node(node).kill(Signal::SIGKILL)?;
        lab.node(node).start()?;
    }
    linked(lab)?;
    same(lab, &pods, &before).context("with other pods gone and daemons restarted")?;

    let mut talks = Talks::default();
    for pod in &pods {
        talks.add(pod)?;
    }
    for (gateway, _) in GATEWAYS {
        let what = format!("{gateway} to have all connections, its own or as copies");
        wait_for(&what, CONVERGED, || copied(lab, gateway, &talks))?;
        says_whose(lab, gateway, &pods, &before)?;
    }
    let terms = terms(lab, "gw2")?;
    let hung = Cut::whole(lab.node("gw1"))?;
    for pod in &pods {
        let way = wait_for("the other gateway", CONVERGED, || {
            let way = way(lab, pod)?;
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

    // It has taken nothing back. Without the other one it has everything.
    let drained = lab.node("gw2");
    drained.exec_ok(&["causeway", "drain", "--detach", "--reason", "new disks"])?;
    for pod in &pods {
        let way = wait_for("the former gateway", CONVERGED, || {
            let way = way(lab, pod)?;
            ensure!(way.gateway == "gw1", "{way:?}");
            Ok(way)
        })?;
        ensure!(way.addresses == before[pod.name()].addresses, "{way:?}");
    }
    drained.exec_ok(&["causeway", "undrain"])?;
    talks.go_on("with the other gateway drained")?;
    talks.finish()?;
    let refused = firewall::refused(lab.node("firewall"))?;
    ensure!(refused.is_empty(), "the firewall refused {refused:?}");
    pods.into_iter().try_for_each(Pod::remove)
}

/// Succeeds when a gateway says of each connection whose it is.
fn says_whose(
    lab: &Lab,
    gateway: &str,
    pods: &[Pod<'_>],
    ways: &BTreeMap<String, Way>,
) -> Result<()> {
    for mapping in causeway::items(lab.node(gateway), "egress nat --protocol tcp")? {
        let end: SocketAddr = text(&mapping["pod"]).parse()?;
        // Those that were there for a moment are of pods that are gone.
        let Some(pod) = pods.iter().find(|pod| [pod.v4, pod.v6].contains(&end.ip())) else {
            continue;
        };
        let holder = ways[pod.name()].gateway.as_str();
        let copy_of = if holder == gateway { "" } else { holder };
        ensure!(mapping["copyOf"] == copy_of, "{mapping:#}");
    }
    Ok(())
}

/// The ways to prefer zones, each with a destination of its own, and by which gateway pods of node1
/// and node2 get there. The zone of node1 is that of gw1, and the zone of node2 that of gw2.
const ZONES: [(&str, &str, [&str; 2]); 4] = [
    ("None", "21", ["gw1", "gw1"]),
    ("LocalOnly", "22", ["gw1", "gw2"]),
    ("LocalFirst", "23", ["gw1", "gw2"]),
    ("LocalPriority", "24", ["gw1", "gw2"]),
];

/// Who leaves by which gateway as zones want it, with all gateways and without one.
fn zones(lab: &Lab) -> Result<()> {
    let mut policies = String::new();
    for (preference, last, _) in ZONES {
        policies += &zone_policy(preference, last);
        for target in at(last)? {
            let length = if target.is_ipv4() { 24 } else { 64 };
            let address = format!("{target}/{length}");
            let add = ["ip", "address", "add", &address, "dev", "eth1", "nodad"];
            lab.node("server").exec_ok(&add)?;
        }
    }
    egress::write(lab, "policies.yaml", &(policies + GATEWAYS_BFD))?;
    let pods = pods(lab, "zoned", 1)?;
    for (preference, last, gateways) in ZONES {
        for (pod, gateway) in pods.iter().zip(gateways) {
            leaves_by(pod, last, gateway).with_context(|| format!("zones {preference}"))?;
        }
    }

    // An operator wants the gateway of node2's zone away, then it is dead.
    let gw2 = lab.node("gw2");
    gw2.exec_ok(&["causeway", "drain", "--detach", "--reason", "new disks"])?;
    without_gw2(lab, &pods).context("with gw2 drained")?;
    gw2.exec_ok(&["causeway", "undrain"])?;
    for (pod, (_, last, gateways)) in pods.iter().skip(1).zip(&ZONES[1..2]) {
        leaves_by(pod, last, gateways[1]).context("with gw2 undrained")?;
    }
    linked(lab)?;
    let hung = Cut::whole(gw2)?;
    without_gw2(lab, &pods).context("with gw2 hung")?;
    hung.mend()?;
    for (pod, (_, last, gateways)) in pods.iter().skip(1).zip(&ZONES[1..2]) {
        leaves_by(pod, last, gateways[1]).context("with gw2 back")?;
    }
    pods.into_iter().try_for_each(Pod::remove)
}

/// What becomes of the pods' packets without the gateway of node2's zone.
fn without_gw2(lab: &Lab, pods: &[Pod<'_>]) -> Result<()> {
    let (node, firewall) = (lab.node("node2"), lab.node("firewall"));
    for (preference, last, _) in ZONES {
        for pod in pods {
            if preference != "LocalOnly" || pod.node().name() == "node1" {
                leaves_by(pod, last, "gw1").with_context(|| format!("zones {preference}"))?;
            }
        }
    }
    let refusal = "no gateway in the pod's zone is healthy";
    for target in at("22")? {
        wait_for("the pod's node to say why it is dropped", CONVERGED, || {
            let command = format!("egress explain shop/{} {target}", pods[1].name());
            let explained = causeway::ask(node, &command)?;
            ensure!(explained["dropped"] == true, "{explained:#}");
            ensure!(explained.to_string().contains(refusal), "{explained:#}");
            Ok(())
        })?;
    }
    firewall::forget(firewall)?;
    let seen = firewall::clients(lab.node("server"))?.len();
    for target in at("22")? {
        ensure!(
            pods[1].within(|| connect_within(target, SHORT)).is_err(),
            "let through"
        );
    }
    let refused = firewall::refused(firewall)?;
    ensure!(refused.is_empty(), "the firewall refused {refused:?}");
    let now = firewall::clients(lab.node("server"))?;
    ensure!(now.len() == seen, "the server has seen {:?}", &now[seen..]);
    let policies = causeway::items(node, "egress policies zone-localonly")?;
    ensure!(
        policies[0]["findings"].to_string().contains(refusal),
        "{policies:#?}"
    );
    let status = causeway::ask(node, "status")?;
    let issues = status["issues"].as_array().into_iter().flatten();
    let mut issues = issues.filter(|issue| issue["object"] == "EgressGatewayPolicy/zone-localonly");
    ensure!(issues.any(|issue| issue["code"] == "CW0703"), "{status:#}");
    Ok(())
}

/// Waits until the server sees a pod come by a gateway, under its own address, and the pod's node
/// says the same.
fn leaves_by(pod: &Pod<'_>, last: &str, gateway: &str) -> Result<()> {
    let own = standby::own(gateway);
    for (target, own) in at(last)?.into_iter().zip(own) {
        let what = format!("{} to reach {target} by {gateway}", pod.name());
        wait_for(&what, CONVERGED, || {
            let command = format!("egress explain shop/{} {target}", pod.name());
            let explained = causeway::ask(pod.node(), &command)?;
            ensure!(explained["gateway"] == gateway, "{explained:#}");
            let seen = seen_as(pod, target)?;
            ensure!(seen == own, "seen as {seen}");
            Ok(())
        })?;
    }
    Ok(())
}

/// The addresses of the server that end so.
fn at(last: &str) -> Result<[IpAddr; 2]> {
    let (v4, v6) = (
        format!("192.168.70.{last}"),
        format!("fd00:192:168:70::{last}"),
    );
    Ok([v4.parse()?, v6.parse()?])
}

fn zone_policy(preference: &str, last: &str) -> String {
    let name = preference.to_lowercase();
    format!(
        r#"apiVersion: causeway.io/v1alpha1
kind: EgressGatewayPolicy
metadata:
  name: zone-{name}
spec:
  selectors:
    - podSelector:
        matchLabels: {{ app: zoned }}
  destinationCIDRs: [192.168.70.{last}/32, "fd00:192:168:70::{last}/128"]
  zonePreference: {preference}
  egressGateway:
    nodeSelector:
      matchLabels: {{ role: egress-gateway }}
    interface: eth2
  health:
    bfdProfileRef: {{ name: gateways }}
---
"#
    )
}

/// Pools of which each namespace or each policy has an address, and one that is too small.
fn pools(lab: &Lab) -> Result<()> {
    let names = ["own-1", "own-2", "own-3"];
    let selector = "{ app: shared }";
    let mut policies = pool_policy("by-namespace", selector, NAMESPACE_POOL, "Namespace");
    for name in names {
        policies += &pool_policy(name, &format!("{{ app: {name} }}"), SMALL_POOL, "Policy");
    }
    egress::write(lab, "policies.yaml", &(policies + GATEWAYS_BFD))?;

    // Two pods of one namespace on two nodes are one to the server, those of the other another one.
    let mut shared = Vec::new();
    for (namespace, node) in [("shop", "node1"), ("shop", "node2"), ("ops", "node1")] {
        let name = format!("shared-{namespace}-{node}");
        shared.push(pod(lab, node, namespace, &name, "shared")?);
    }
    let ways = ways(lab, &shared)?;
    let [one, same, other] = ["shop-node1", "shop-node2", "ops-node1"]
        .map(|name| ways[&format!("shared-{name}")].addresses);
    ensure!(
        one == same && one[0] != other[0] && one[1] != other[1],
        "{ways:#?}"
    );
    ensure!(drawn(NAMESPACE_POOL, [one, other])?, "{ways:#?}");

    // The first two have what there is. The third has nothing, and says so.
    let mut own = Vec::new();
    for name in names {
        own.push(pod(lab, "node1", "shop", &format!("pod-{name}"), name)?);
    }
    let ways = self::ways(lab, &own[..2])?;
    let [first, second] = ["pod-own-1", "pod-own-2"].map(|name| ways[name].addresses);
    ensure!(first[0] != second[0] && first[1] != second[1], "{ways:#?}");
    ensure!(drawn(SMALL_POOL, [first, second])?, "{ways:#?}");
    let told = egress::condition(lab.node("node1"), "own-3", "causeway.io/PoolExhausted")?;
    ensure!(told.contains("192.168.60.116/31"), "{told}");
    firewall::forget(lab.node("firewall"))?;
    let seen = firewall::clients(lab.node("server"))?.len();
    for target in SERVER {
        ensure!(
            own[2].within(|| connect_within(target, SHORT)).is_err(),
            "let through"
        );
        let command = format!("egress explain shop/pod-own-3 {target}");
        let explained = causeway::ask(lab.node("node1"), &command)?;
        ensure!(explained["dropped"] == true, "{explained:#}");
        ensure!(
            explained["policy"] == "EgressGatewayPolicy/own-3",
            "{explained:#}"
        );
    }
    let refused = firewall::refused(lab.node("firewall"))?;
    ensure!(refused.is_empty(), "the firewall refused {refused:?}");
    let now = firewall::clients(lab.node("server"))?;
    ensure!(now.len() == seen, "the server has seen {:?}", &now[seen..]);

    // With one policy less there is enough for all.
    let policies = names[1..]
        .iter()
        .map(|name| pool_policy(name, &format!("{{ app: {name} }}"), SMALL_POOL, "Policy"));
    let policies: String = policies.collect();
    egress::write(lab, "policies.yaml", &(policies + GATEWAYS_BFD))?;
    let ways = self::ways(lab, &own[1..])?;
    let [second, third] = ["pod-own-2", "pod-own-3"].map(|name| ways[name].addresses);
    ensure!(drawn(SMALL_POOL, [second, third])?, "{ways:#?}");
    Ok(())
}

/// Whether all addresses are of a pool.
fn drawn<const N: usize>(pool: [&str; 2], addresses: [[IpAddr; 2]; N]) -> Result<bool> {
    let pool: [IpNet; 2] = [pool[0].parse()?, pool[1].parse()?];
    let mut all = addresses.iter();
    Ok(all.all(|pair| {
        pool.iter()
            .zip(pair)
            .all(|(net, address)| net.contains(address))
    }))
}

fn pool_policy(name: &str, selector: &str, [v4, v6]: [&str; 2], assign: &str) -> String {
    format!(
        r#"apiVersion: causeway.io/v1alpha1
kind: EgressGatewayPolicy
metadata:
  name: {name}
spec:
  selectors:
    - podSelector:
        matchLabels: {selector}
  destinationCIDRs: [192.168.70.0/24, "fd00:192:168:70::/64"]
  egressGateway:
    nodeSelector:
      matchLabels: {{ role: egress-gateway }}
    interface: eth2
    addressPool: {{ cidrs: [{v4}, "{v6}"], assign: {assign} }}
  health:
    bfdProfileRef: {{ name: gateways }}
---
"#
    )
}

/// Both gateways at once with the addresses they have themselves, and held ones that belong
/// together.
fn at_once(lab: &Lab) -> Result<()> {
    let policies = format!("{ACTIVE}---\n{TOGETHER}{GATEWAYS_BFD}");
    egress::write(lab, "policies.yaml", &policies)?;
    let pods = pods(lab, "active", 3)?;
    let before = ways(lab, &pods)?;
    for way in before.values() {
        ensure!(way.addresses == standby::own(&way.gateway), "{way:?}");
    }
    let used: BTreeSet<&str> = before.values().map(|way| way.gateway.as_str()).collect();
    ensure!(used == BTreeSet::from(["gw1", "gw2"]), "{before:#?}");
    same(lab, &pods, &before).context("a moment later")?;

    wait_for("one gateway to have all of them", CONVERGED, || {
        let mut held = Vec::new();
        for (gateway, _) in GATEWAYS {
            let rules = causeway::items(lab.node(gateway), "egress rules")?;
            let of_policy = |rule: &&Value| {
                rule["policy"] == "EgressGatewayPolicy/together" && rule["standsBy"] == false
            };
            held.extend(
                rules
                    .iter()
                    .filter(of_policy)
                    .map(|rule| rule["egressIPs"].clone()),
            );
        }
        ensure!(
            held == [serde_json::json!(["192.168.60.118", "192.168.60.119"])],
            "{held:?}"
        );
        Ok(())
    })
}

/// By which gateway a pod leaves, and under which address of each family.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Way {
    gateway: String,
    addresses: [IpAddr; 2],
}

/// Asks the pod's node, the server and the gateway, which must agree.
fn way(lab: &Lab, pod: &Pod<'_>) -> Result<Way> {
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
        // What a gateway has itself is known to it alone.
        let told = path["egressIPs"].as_array().into_iter().flatten();
        let mut others = told.filter(|told| **told != seen.to_string());
        ensure!(others.next().is_none(), "seen as {seen}: {path:#}");
        let gateway = text(&path["gateway"]);
        let rules = causeway::items(lab.node(&gateway), "egress rules")?;
        let rule = rules.iter().find(|rule| rule["rule"] == path["rule"]);
        let rule = rule.with_context(|| format!("{path:#} in {rules:#?}"))?;
        let has = rule["egressIPs"].as_array().into_iter().flatten();
        ensure!(
            has.into_iter().any(|has| *has == seen.to_string()),
            "seen as {seen}: {rule:#}"
        );
        gateways.insert(gateway);
        addresses.push(seen);
    }
    let [gateway] = Vec::from_iter(gateways)
        .try_into()
        .map_err(|all| anyhow::anyhow!("{all:?}"))?;
    let [v4, v6] = addresses[..] else {
        anyhow::bail!("{addresses:?}");
    };
    Ok(Way {
        gateway,
        addresses: [v4, v6],
    })
}

/// The ways of all, by name of the pod.
fn ways(lab: &Lab, pods: &[Pod<'_>]) -> Result<BTreeMap<String, Way>> {
    let way = |pod: &Pod<'_>| {
        let what = format!("{} to leave as its node says", pod.name());
        Ok((
            pod.name().to_owned(),
            wait_for(&what, CONVERGED, || way(lab, pod))?,
        ))
    };
    pods.iter().map(way).collect()
}

fn same(lab: &Lab, pods: &[Pod<'_>], before: &BTreeMap<String, Way>) -> Result<()> {
    for (pod, way) in ways(lab, pods)? {
        ensure!(
            before[&pod] == way,
            "{pod}: {way:?}, before {:?}",
            before[&pod]
        );
    }
    Ok(())
}

/// How often each rule a gateway serves has changed hands.
fn terms(lab: &Lab, gateway: &str) -> Result<BTreeMap<u64, u64>> {
    let rules = causeway::items(lab.node(gateway), "egress rules")?;
    let own = rules.iter().filter(|rule| rule["standsBy"] == false);
    let terms = own.map(|rule| {
        let numbers = rule["rule"].as_u64().zip(rule["term"].as_u64());
        numbers.with_context(|| format!("{rule:#}"))
    });
    terms.collect()
}

/// So many pods of an app on each node.
fn pods<'a>(lab: &'a Lab, app: &str, count: usize) -> Result<Vec<Pod<'a>>> {
    let mut pods = Vec::new();
    for node in ["node1", "node2"] {
        for number in 1..=count {
            pods.push(pod(
                lab,
                node,
                "shop",
                &format!("{app}-{node}-{number}"),
                app,
            )?);
        }
    }
    Ok(pods)
}

/// A pod of an app, with its object.
fn pod<'a>(lab: &'a Lab, node: &str, namespace: &str, name: &str, app: &str) -> Result<Pod<'a>> {
    let object = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  \
         labels: {{ app: {app} }}\nspec: {{ nodeName: {node} }}\n"
    );
    egress::write(lab, &format!("pod-{name}.yaml"), &object)?;
    Pod::add_to(lab.node(node), namespace, name)
}
