// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask demo`: the main job on real input, from nothing to pods that talk through a fabric.

use std::{
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use lab_runner::{Lab, Lifetime, Node, Options, preflight::is_root, wait_for};

use crate::setup;

/// How long sessions and routes may take on a slow machine.
const CONVERGED: Duration = Duration::from_secs(120);

/// What the TCP transfers carry, in bytes.
const TRANSFER: u64 = 200 << 20;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Leave the lab running.
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(
        is_root(),
        "the demo makes network namespaces and needs root: sudo -E env PATH=\"$PATH\" cargo xtask demo"
    );
    heading("what this machine lacks");
    setup::prepare(&setup::Arguments::default())?;

    heading("building");
    build()?;

    heading("two nodes, two ToRs (FRR), a spine (FRR), a host outside");
    let root = crate::root()?;
    let file = lab_runner::find_topology(&root, "fabric")?;
    let suffix = if arguments.keep { None } else { Some("demo") };
    let options = Options {
        suffix: suffix.map(str::to_owned),
        lifetime: if arguments.keep {
            Lifetime::Detached
        } else {
            Lifetime::Attached
        },
        private_copy: !arguments.keep,
        programs: Some(root.join("target/debug")),
    };
    let lab = Lab::up(&file, &options, |step| println!("  {step}"))?;
    let outcome = tour(&lab);
    if arguments.keep {
        let name = lab.name();
        println!("\nThe lab runs on. `cargo xtask lab down {name}` ends it. Try:");
        for (node, command) in [
            ("node1", "causeway status"),
            ("node1", "causeway bgp neighbor tor1-v4"),
            ("node1", "causeway bgp routes for 192.168.100.10"),
            ("node1", "causeway fib explain 0.0.0.0/0"),
            ("tor1", "vtysh"),
        ] {
            println!("  cargo xtask lab exec {name} {node} {command}");
        }
    } else {
        lab.down()?;
        println!("\nEverything is taken down again. Try:");
        println!("  cargo xtask demo --keep       the same, and the lab stays up to play with");
        println!("  cargo xtask lab up peers      one node against FRR, BIRD 2, BIRD 3 and GoBGP");
        println!("  cargo xtask test              everything CI runs");
        println!("  docs/guide/src/               the operator's guide");
    }
    outcome?;
    Ok(ExitCode::SUCCESS)
}

fn build() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "-p",
            "causewayd",
            "-p",
            "causeway",
            "-p",
            "causeway-cni",
            "-p",
            "bgp-bfdd",
        ])
        .env("CARGO_TARGET_DIR", crate::root()?.join("target"))
        .current_dir(crate::root()?)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the build failed");
    Ok(())
}

/// A pod, reached through the node it is on.
struct Pod<'a> {
    node: &'a Node,
    name: &'static str,
    v4: String,
    v6: String,
}

impl Pod<'_> {
    /// A command line that runs something in the pod.
    fn argv<'b>(&self, command: &[&'b str]) -> Vec<&'b str>
    where
        Self: 'b,
    {
        let mut argv = vec!["ip", "netns", "exec", self.name];
        argv.extend(command);
        argv
    }
}

fn tour(lab: &Lab) -> Result<()> {
    let (node1, node2) = (lab.get("node1")?, lab.get("node2")?);
    let (tor1, outside) = (lab.get("tor1")?, lab.get("outside")?);

    heading("a pod on each node, by the CNI plugin");
    let pod1 = add_pod(node1, "pod1")?;
    let pod2 = add_pod(node2, "pod2")?;
    for pod in [&pod1, &pod2] {
        println!(
            "  {} on {}: {} and {}",
            pod.name,
            pod.node.name(),
            pod.v4,
            pod.v6
        );
    }

    heading("sessions, as node1 sees them");
    for node in [node1, node2] {
        wait_for(
            &format!("the sessions of {}", node.name()),
            CONVERGED,
            || {
                let status = node.exec(&["causeway", "status", "-o", "json"])?;
                let json: serde_json::Value =
                    serde_json::from_str(&status.stdout).with_context(|| {
                        format!("causeway status: {}{}", status.stdout, status.stderr)
                    })?;
                ensure!(status.success(), "causeway status: {json:#}");
                Ok(())
            },
        )?;
    }
    show(node1, &["causeway", "status"])?;
    show(node1, &["causeway", "bgp", "peers"])?;

    heading("the pods' prefixes on tor1, as FRR sees them");
    wait_for("both pod prefixes on tor1", CONVERGED, || {
        let table = tor1.exec_ok(&["vtysh", "-c", "show ip route bgp"])?;
        ensure!(
            table.contains("10.244.1.0/24") && table.contains("10.244.2.0/24"),
            "{table}"
        );
        Ok(())
    })?;
    show(
        tor1,
        &["vtysh", "-c", "show bgp ipv4 unicast 10.244.1.0/24"],
    )?;
    show(tor1, &["vtysh", "-c", "show ip route 10.255.0.1/32"])?;

    heading("what node1 learned, in its kernel");
    show(node1, &["ip", "route", "show", "proto", "bgp"])?;
    show(node1, &["causeway", "fib"])?;

    heading("packets: pod to pod, and from outside");
    for (what, node, argv) in [
        (
            "pod1 → pod2",
            node1,
            pod1.argv(&["ping", "-c", "5", "-i", "0.2", &pod2.v4]),
        ),
        (
            "pod1 → pod2, IPv6",
            node1,
            pod1.argv(&["ping", "-c", "5", "-i", "0.2", &pod2.v6]),
        ),
        (
            "outside → pod1",
            outside,
            vec!["ping", "-c", "5", "-i", "0.2", &pod1.v4],
        ),
    ] {
        wait_for(what, CONVERGED, || {
            let output = node.exec(&argv)?;
            ensure!(output.success(), "{}{}", output.stdout, output.stderr);
            Ok(())
        })?;
        let text = node.exec_ok(&argv)?;
        println!("  {what}: {}", summary(&text));
    }
    transfer("pod1 → pod2", &pod2, node1, |command| pod1.argv(command))?;
    transfer("outside → pod1", &pod1, outside, |command| {
        command.to_vec()
    })?;

    heading("tor1's links to both nodes are cut while a transfer runs");
    let server = pod2
        .node
        .spawn(&pod2.argv(&["iperf3", "-s", "-1", "-p", "5300"]))?;
    await_listener(&pod2, "5300")?;
    let ping =
        node1.spawn(&pod1.argv(&["ping", "-i", "0.01", "-c", "1000", "-W", "1", &pod2.v4]))?;
    let client = node1.spawn(&pod1.argv(&[
        "iperf3", "-c", &pod2.v4, "-p", "5300", "-t", "10", "-b", "200M", "-f", "m",
    ]))?;
    // In the middle of it: once some packets have arrived.
    wait_for("the transfer to run", CONVERGED, || {
        let lines = client
            .text()
            .lines()
            .filter(|line| line.contains("Mbits/sec"))
            .count();
        ensure!(lines >= 2, "{}", client.text());
        Ok(())
    })?;
    let cut = Instant::now();
    node1.link_down("eth1")?;
    node2.link_down("eth1")?;
    println!("  cut: eth1 of node1 and node2");
    wait_for("one next hop left", CONVERGED, || {
        let route = node1.exec_ok(&["ip", "route", "show", "default", "proto", "bgp"])?;
        ensure!(!route.contains("eth1") && route.contains("eth2"), "{route}");
        Ok(())
    })?;
    println!(
        "  node1 uses the other one after {} ms",
        cut.elapsed().as_millis()
    );
    let text = client.wait(CONVERGED)?;
    let rate = text
        .lines()
        .rfind(|line| line.contains("receiver"))
        .unwrap_or_default();
    println!("  the transfer went on: {}", rate.trim());
    println!("  pings meanwhile: {}", summary(&ping.wait(CONVERGED)?));
    server.wait(CONVERGED)?;
    show(node1, &["ip", "route", "show", "proto", "bgp"])?;
    show_any(node1, &["causeway", "status"])?;

    heading("and back");
    node1.link_up("eth1")?;
    node2.link_up("eth1")?;
    readdress(node1, "11")?;
    readdress(node2, "12")?;
    both_ways(node1)?;
    show(node1, &["causeway", "bgp", "peers"])
}

/// Waits until a node's default routes, of both families, lead by both ToRs.
fn both_ways(node: &Node) -> Result<()> {
    wait_for(
        &format!("two next hops on {}", node.name()),
        CONVERGED,
        || {
            for family in ["-4", "-6"] {
                let route =
                    node.exec_ok(&["ip", family, "route", "show", "default", "proto", "bgp"])?;
                ensure!(
                    route.contains("eth1") && route.contains("eth2"),
                    "{family}: {route}"
                );
            }
            Ok(())
        },
    )
}

/// The kernel drops the IPv6 addresses of a link that is set down; an operator's network
/// configuration would bring them back.
fn readdress(node: &Node, net: &str) -> Result<()> {
    let address = format!("fd00:172:16:{net}::2/64");
    node.exec_ok(&["ip", "address", "replace", &address, "dev", "eth1"])
        .map(drop)
}

fn add_pod<'a>(node: &'a Node, name: &'static str) -> Result<Pod<'a>> {
    node.exec_ok(&["ip", "netns", "add", name])?;
    let netns = format!("CNI_NETNS=/var/run/netns/{name}");
    let container = format!("CNI_CONTAINERID={name}");
    let args = format!("CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}");
    let argv = [
        "env",
        "CNI_COMMAND=ADD",
        &container,
        &netns,
        "CNI_IFNAME=eth0",
        &args,
        "/opt/cni/bin/causeway-cni",
    ];
    let config = br#"{"cniVersion":"1.1.0","name":"causeway","type":"causeway-cni"}"#;
    let output = node.exec_with_input(&argv, config)?;
    ensure!(
        output.success(),
        "CNI ADD: {}{}",
        output.stdout,
        output.stderr
    );
    let answer: serde_json::Value = serde_json::from_str(&output.stdout)?;
    let address = |at: usize| -> Result<String> {
        let text = answer["ips"][at]["address"]
            .as_str()
            .context("the answer has no address")?;
        Ok(text.split('/').next().unwrap_or(text).to_owned())
    };
    Ok(Pod {
        node,
        name,
        v4: address(0)?,
        v6: address(1)?,
    })
}

/// Sends bytes by TCP and says how fast they came.
fn transfer<'a>(
    what: &str,
    to: &'a Pod<'_>,
    from: &Node,
    client: impl Fn(&[&'a str]) -> Vec<&'a str>,
) -> Result<()> {
    let server = to
        .node
        .spawn(&to.argv(&["iperf3", "-s", "-1", "-p", "5201"]))?;
    await_listener(to, "5201")?;
    let bytes: &'static str = TRANSFER.to_string().leak();
    let text = from.exec_ok(&client(&[
        "iperf3", "-c", &to.v4, "-p", "5201", "-n", bytes, "-f", "g",
    ]))?;
    server.wait(CONVERGED)?;
    let rate = text
        .lines()
        .rfind(|line| line.contains("receiver"))
        .unwrap_or_default();
    println!("  TCP {what}: {}", rate.trim());
    Ok(())
}

fn await_listener(pod: &Pod<'_>, port: &str) -> Result<()> {
    let filter = format!("sport = :{port}");
    wait_for("iperf3 to listen", CONVERGED, || {
        let listening = pod.node.exec_ok(&pod.argv(&["ss", "-Hltn", &filter]))?;
        ensure!(
            !listening.trim().is_empty(),
            "nothing listens on port {port} yet"
        );
        Ok(())
    })
}

/// The line of a ping that counts.
fn summary(text: &str) -> &str {
    text.lines()
        .find(|line| line.contains("packets transmitted"))
        .unwrap_or(text)
        .trim()
}

fn heading(text: &str) {
    println!("\n== {text}");
}

/// Runs a command in a node and shows it with what it printed.
fn show(node: &Node, argv: &[&str]) -> Result<()> {
    println!("\n{}$ {}", node.name(), argv.join(" "));
    print!("{}", indent(&node.exec_ok(argv)?));
    Ok(())
}

/// As [`show`], for a command whose exit code says how the node is.
fn show_any(node: &Node, argv: &[&str]) -> Result<()> {
    println!("\n{}$ {}", node.name(), argv.join(" "));
    print!("{}", indent(&node.exec(argv)?.stdout));
    Ok(())
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
