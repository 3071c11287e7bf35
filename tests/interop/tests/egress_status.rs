// SPDX-License-Identifier: Apache-2.0
//! What an operator sees of egress when it does not work: the status and its codes, and a flow that
//! is followed from the pod's node to its gateway.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use harness::{
    CONVERGED, Lab, Node, Signal, causeway,
    clock::{self, Clocks},
    egress::{self, SERVER, connect},
    firewall, guide, keys,
    pod::Pod,
    wait_for,
};
use serde_json::Value;

/// Ports of the policy.
const PORTS: usize = 10;

/// Ports from which on they are nearly used up: four fifths.
const NEARLY: usize = 8;

/// Time in which a daemon has looked at its connections more than once.
const LOOKS: Duration = Duration::from_secs(3);

/// As the lab's policy for IPv4, with few ports and connections that are forgotten soon after they
/// ended.
const NARROW: &str = "apiVersion: causeway.io/v1alpha1
kind: EgressGatewayPolicy
metadata:
  name: narrow
spec:
  selectors:
    - podSelector:
        matchLabels: { app: billing, io.kubernetes.pod.namespace: shop }
  destinationCIDRs: [192.168.70.0/24]
  egressGateway:
    nodeSelector:
      matchLabels: { kubernetes.io/hostname: gw1 }
    egressIP: 192.168.60.100
  connections:
    sourcePorts: { first: 20000, last: 20009 }
    timeouts: { tcpOpeningSeconds: 5, tcpClosingSeconds: 1 }
";

#[test]
fn ports_that_run_out_are_told_and_a_flow_is_followed_to_its_gateway() -> Result<()> {
    let lab = egress::up("status")?;
    let (node, gw1) = (lab.node("node1"), lab.node("gw1"));
    for name in ["node1", "node2", "gw1", "gw2"] {
        wait_for(&format!("{name} to be healthy"), CONVERGED, || {
            causeway::healthy(lab.node(name))?;
            let egress = component(lab.node(name))?;
            ensure!(egress["counts"]["policies"] == 2, "{egress:#}");
            ensure!(egress["counts"]["healthy gateways"] == 1, "{egress:#}");
            let rules = if name == "gw1" { 2 } else { 0 };
            ensure!(egress["counts"]["rules"] == rules, "{egress:#}");
            Ok(())
        })?;
    }
    narrow(&lab)?;

    let pod = Pod::add_to(node, "shop", "billing-1")?;
    let mut held = open(&pod, NEARLY)?;
    let nearly = alarm(gw1, "CW0701")?;
    ensure!(nearly["severity"] == "warning", "{nearly:#}");
    ensure!(nearly["object"] == "address 192.168.60.100", "{nearly:#}");
    says(&nearly, "of 10 tcp ports")?;
    says(&nearly, "EgressGatewayPolicy/narrow")?;

    held.extend(open(&pod, PORTS - NEARLY)?);
    wait_for("refusals to be told", CONVERGED, || {
        ensure!(pod.within(|| connect(SERVER[0])).is_err(), "let through");
        issue(gw1, "CW0702").map(drop)
    })?;
    let out = issue(gw1, "CW0702")?;
    ensure!(out["severity"] == "error", "{out:#}");
    ensure!(out["object"] == "EgressGatewayPolicy/narrow", "{out:#}");
    says(&out, "192.168.60.100 between 20000 and 20009")?;
    // What it says to look at has them.
    let users = run(gw1, &out["nextCommand"])?;
    ensure!(users["matching"] == PORTS, "{users:#}");
    metrics_say_it(node, gw1)?;
    // Nothing is wrong on the pod's node, which knows nothing of ports.
    causeway::healthy(node)?;

    follow(&pod, gw1, &held[0])?;
    clocks_jump(&pod, gw1, &mut held)?;

    drop(held);
    // The daemon that began since has refused nothing, and by its clocks too they are over.
    wait_for("the alarm to end", 3 * CONVERGED, || causeway::healthy(gw1))?;
    open(&pod, 1)?;
    without_a_tunnel(&lab, &pod).context("without a tunnel")?;
    lab.down()
}

/// A gateway that cannot make its tunnel: its kernel lacks the driver or, where it has it, somebody
/// else has the port. It says so once, nothing leaves otherwise, and the rest goes on.
fn without_a_tunnel(lab: &Lab, pod: &Pod<'_>) -> Result<()> {
    let (gw1, firewall) = (lab.node("gw1"), lab.node("firewall"));
    let add = "ip link add theirs type geneve id 1 remote 192.0.2.1";
    let has_driver = gw1.exec(&["sh", "-c", add])?.success();
    let why = match has_driver {
        true => "device theirs has it",
        false => "this kernel has no driver for Geneve",
    };
    let files = lab.files().context("the lab has a copy of its files")?;
    let settings = files.join("gw1/causeway.yaml");
    let text = fs::read_to_string(&settings)?;
    let words = [("egress:\n", "egress:\n  tunnelProtocol: geneve\n")];
    fs::write(&settings, guide::adapted(&text, &words)?)?;
    firewall::forget(firewall)?;
    keys::restart(gw1)?;
    let told = alarm(gw1, "CW0712")?;
    ensure!(told["severity"] == "error", "{told:#}");
    ensure!(told["object"] == "device cw-egress", "{told:#}");
    says(&told, why)?;
    let status = causeway::ask(gw1, "status")?;
    let issues = status["issues"].as_array().into_iter().flatten();
    let same = issues.filter(|issue| issue.to_string().contains(why));
    ensure!(same.count() == 1, "{status:#}");
    wait_for("sessions of gw1", CONVERGED, || {
        ["tor-v4", "tor-v6"]
            .iter()
            .try_for_each(|peer| causeway::established(gw1, peer).map(drop))
    })?;
    ensure!(pod.within(|| connect(SERVER[0])).is_err(), "let through");
    let refused = firewall::refused(firewall)?;
    ensure!(refused.is_empty(), "the firewall refused {refused:?}");

    fs::write(&settings, text)?;
    keys::restart(gw1)?;
    open(pod, 1)?;
    wait_for("gw1 to be healthy", CONVERGED, || causeway::healthy(gw1))
}

/// Replaces the policies by one with few ports, and waits until it is in force.
fn narrow(lab: &Lab) -> Result<()> {
    egress::write(lab, "policies.yaml", NARROW)?;
    wait_for("the policy at the gateway", CONVERGED, || {
        let rules = causeway::items(lab.node("gw1"), "egress rules")?;
        let [rule] = rules.as_slice() else {
            anyhow::bail!("{rules:#?}");
        };
        ensure!(rule["policy"] == "EgressGatewayPolicy/narrow", "{rule:#}");
        ensure!(rule["traffic"].is_object(), "{rule:#}");
        Ok(())
    })?;
    wait_for("the policy at the pod's node", CONVERGED, || {
        let policies = causeway::items(lab.node("node1"), "egress policies")?;
        ensure!(policies.len() == 1, "{policies:#?}");
        ensure!(policies[0]["name"] == "narrow", "{policies:#?}");
        Ok(())
    })
}

/// What Prometheus hears of the policy, while all its ports are used.
fn metrics_say_it(node: &Node, gateway: &Node) -> Result<()> {
    const POLICY: &str = "policy=\"EgressGatewayPolicy/narrow\"";
    const ADDRESS: &str = "address=\"192.168.60.100\"";
    let ports = PORTS as f64;
    for (at, metric, least, most) in [
        (gateway, format!("connections{{{POLICY}}}"), ports, ports),
        // Those before are over, or the policy's too.
        (
            gateway,
            format!("connections_opened_total{{{POLICY}}}"),
            ports,
            f64::MAX,
        ),
        (
            gateway,
            format!("packets_total{{direction=\"out\",{POLICY}}}"),
            ports,
            f64::MAX,
        ),
        (
            gateway,
            format!("packets_total{{direction=\"back\",{POLICY}}}"),
            ports,
            f64::MAX,
        ),
        (gateway, format!("ports{{{ADDRESS}}}"), ports, ports),
        (
            gateway,
            format!("ports_used{{{ADDRESS},protocol=\"tcp\"}}"),
            ports,
            ports,
        ),
        (
            gateway,
            format!("policy_refused_packets_total{{{POLICY},reason=\"nat-ports-exhausted\"}}"),
            1.0,
            f64::MAX,
        ),
        (
            gateway,
            format!("policy_gateways{{{POLICY},which=\"healthy\"}}"),
            1.0,
            1.0,
        ),
        (
            node,
            format!("policy_gateways{{{POLICY},which=\"active\"}}"),
            1.0,
            1.0,
        ),
        (
            node,
            format!("policy_pods{{{POLICY},which=\"selected\"}}"),
            1.0,
            1.0,
        ),
    ] {
        let metric = format!("causeway_egress_{metric}");
        wait_for(&metric, CONVERGED, || {
            let value = causeway::metric(at, &metric)?.context("it is not there")?;
            ensure!((least..=most).contains(&value), "{value}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Starts the daemons anew with other clocks than the kernel's: what is there is neither over by
/// that, nor will it live for ever.
fn clocks_jump(pod: &Pod<'_>, gateway: &Node, held: &mut [TcpStream]) -> Result<()> {
    for (node, clocks) in [(pod.node(), Clocks::Ahead), (gateway, Clocks::Behind)] {
        node.kill(Signal::SIGKILL)?;
        clock::start(node, clocks)?;
    }
    wait_for("the plugin", CONVERGED, || Pod::plugin_serves(pod.node()))?;
    let restarted = Instant::now();
    wait_for("looks at all connections", CONVERGED, || {
        for stream in &mut *held {
            echoed(stream)?;
        }
        // Each second there is one.
        ensure!(restarted.elapsed() > LOOKS, "not enough of them");
        let mappings = causeway::items(gateway, "egress nat --protocol tcp")?;
        ensure!(mappings.len() == PORTS, "{mappings:#?}");
        Ok(())
    })?;
    follow(pod, gateway, &held[0]).context("with other clocks")
}

/// Says something, and hears it.
fn echoed(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"there?")?;
    let mut heard = [0; 6];
    stream.read_exact(&mut heard)?;
    ensure!(&heard == b"there?", "{heard:?}");
    Ok(())
}

/// Follows a connection that lives: at its pod's node, and at the gateway by what that says.
fn follow(pod: &Pod<'_>, gateway: &Node, connection: &TcpStream) -> Result<()> {
    let own = connection.local_addr()?;
    let command = format!(
        "egress trace shop/{} {} --protocol tcp --port {} --source-port {}",
        pod.name(),
        SERVER[0],
        egress::ECHO,
        own.port()
    );
    let trace = causeway::ask(pod.node(), &command)?;
    ensure!(trace["decision"]["verdict"] == "gateway", "{trace:#}");
    ensure!(trace["matchingNotes"] == 1, "{trace:#}");
    let note = &trace["notes"][0];
    ensure!(note["pod"] == own.to_string(), "{trace:#}");
    ensure!(note["remote"] == "192.168.70.10:7", "{trace:#}");
    let rule = &trace["rules"][0];
    ensure!(note["rule"] == rule["rule"], "{trace:#}");
    ensure!(trace["decision"]["rule"] == rule["rule"], "{trace:#}");
    ensure!(rule["gateway"] == "gw1", "{trace:#}");
    ensure!(rule["gatewayIP"] == "10.0.0.11", "{trace:#}");
    ensure!(rule["atGateway"].is_null(), "{trace:#}");

    let there = run(gateway, &rule["nextCommand"])?;
    ensure!(there["decision"].is_null(), "{there:#}");
    let found = &there["rules"][0];
    ensure!(found["rule"] == rule["rule"], "{there:#}");
    ensure!(found["matching"] == 1, "{there:#}");
    let mapping = &found["mappings"][0];
    ensure!(mapping["pod"] == own.to_string(), "{there:#}");
    ensure!(mapping["remote"] == "192.168.70.10:7", "{there:#}");
    ensure!(mapping["state"] == "established", "{there:#}");
    ensure!(mapping["node"] == "node1", "{there:#}");
    let egress = mapping["egress"].as_str().unwrap_or_default();
    ensure!(egress.starts_with("192.168.60.100:2000"), "{there:#}");
    let refusals = found["atGateway"]["traffic"]["refusals"].as_array();
    let mut refusals = refusals.into_iter().flatten();
    ensure!(
        refusals.any(|one| one["reason"] == "nat-ports-exhausted"),
        "{there:#}"
    );
    Ok(())
}

/// Opens so many connections of a pod to the server.
fn open(pod: &Pod<'_>, count: usize) -> Result<Vec<TcpStream>> {
    let one = |_| {
        wait_for("a connection", CONVERGED, || {
            pod.within(|| connect(SERVER[0]))
        })
    };
    (0..count).map(one).collect()
}

/// Runs what an answer says to run.
fn run(node: &Node, command: &Value) -> Result<Value> {
    let text = command.as_str().unwrap_or_default();
    let command = text.strip_prefix("causeway ");
    causeway::ask(node, command.with_context(|| format!("{text:?}"))?)
}

/// Waits until the status has an issue with this code.
fn alarm(node: &Node, code: &str) -> Result<Value> {
    wait_for(
        &format!("{} to tell {code}", node.name()),
        CONVERGED,
        || issue(node, code),
    )
}

/// The issue of the status with this code.
fn issue(node: &Node, code: &str) -> Result<Value> {
    let status = causeway::ask(node, "status")?;
    let issues = status["issues"].as_array().into_iter().flatten();
    let mut with_code = issues.filter(|issue| issue["code"] == code);
    let found = with_code.next().cloned();
    found.with_context(|| format!("no {code} in {status:#}"))
}

/// What the status says of egress as a whole.
fn component(node: &Node) -> Result<Value> {
    let status = causeway::ask(node, "status")?;
    let components = status["components"].as_array().into_iter().flatten();
    let mut egress = components.filter(|one| one["name"] == "egress");
    let found = egress.next().cloned();
    found.with_context(|| format!("no egress in {status:#}"))
}

/// Succeeds when the message of an issue has these words.
fn says(issue: &Value, words: &str) -> Result<()> {
    let message = issue["message"].as_str().unwrap_or_default();
    ensure!(message.contains(words), "no {words:?} in {issue:#}");
    Ok(())
}
