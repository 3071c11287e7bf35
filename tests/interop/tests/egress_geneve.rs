// SPDX-License-Identifier: Apache-2.0
//! The tunnel by Geneve, which not every kernel has: the lab of egress gateways runs as a whole on
//! Debian's kernel in a virtual machine. What is in the packets a router between the nodes says.

use std::{collections::BTreeSet, env};

use anyhow::{Context, Result, ensure};
use harness::{
    CONVERGED, Lab, Node, Signal, causeway,
    egress::{self, SERVER, connect, echoed_by_tcp, goes_on, leaves},
    firewall,
    pod::Pod,
    rootfs,
    standby::EGRESS,
    wait_for,
};
use lab_vm::{Kernel, Vm, is_guest};
use serde_json::Value;

/// The tunnel's device.
const DEVICE: &str = "cw-egress";

/// Counts at the router what is between node1 and gw1. Geneve (RFC 8926 §3.4) without options begins
/// with a zero octet, and says that there is Ethernet inside.
const COUNTERS: &str = "table inet tunnels {
  counter by-vxlan { }
  counter to-gateway { }
  counter from-gateway { }
  counter to-gateway6 { }
  counter from-gateway6 { }
  chain forward {
    type filter hook forward priority 0
    udp dport 4789 counter name by-vxlan
    udp dport 6081 @th,64,8 0 @th,80,16 0x6558 ip saddr 10.0.0.1 ip daddr 10.0.0.11 counter name to-gateway
    udp dport 6081 @th,64,8 0 @th,80,16 0x6558 ip saddr 10.0.0.11 ip daddr 10.0.0.1 counter name from-gateway
    udp dport 6081 @th,64,8 0 @th,80,16 0x6558 ip6 saddr fd00:10::1 ip6 daddr fd00:10::11 counter name to-gateway6
    udp dport 6081 @th,64,8 0 @th,80,16 0x6558 ip6 saddr fd00:10::11 ip6 daddr fd00:10::1 counter name from-gateway6
  }
}
";

#[test]
fn pods_leave_through_geneve_where_the_kernel_has_it() -> Result<()> {
    // The guest has no mirror to make it from.
    rootfs::ensure(|step| eprintln!("{step}"))?;
    let vm = Vm {
        memory: 3072,
        ..Vm::default()
    };
    let own = env::current_exe()?;
    let test = "the_tunnel_becomes_geneve_and_connections_go_on";
    let command = format!(
        "'{}' --exact {test} --ignored --nocapture 2>&1",
        own.display()
    );
    let output = vm.run(Kernel::Debian13, &command)?;
    ensure!(output.code == 0, "{output}");
    ensure!(output.text.contains("1 passed"), "{output}");
    println!("{output}");
    Ok(())
}

#[test]
#[ignore = "runs in the virtual machine of the test above"]
fn the_tunnel_becomes_geneve_and_connections_go_on() -> Result<()> {
    ensure!(is_guest(), "this one runs in a virtual machine");
    let lab = egress::up_without(&["node2", "gw2"], "geneve")?;
    let (node, gw1, tor) = (lab.node("node1"), lab.node("gw1"), lab.node("tor"));
    count(tor)?;
    let pod = Pod::add_to(node, "shop", "billing-1")?;
    leaves(&pod)?;
    let mut lasting = pod.within(|| connect(SERVER[0]))?;
    goes_on(&mut lasting).context("by VXLAN")?;
    let before = [device(node, "vxlan")?, device(gw1, "vxlan")?];
    ensure!(counted(tor, "by-vxlan")? > 0, "nothing goes by VXLAN");
    ensure!(counted(tor, "to-gateway")? == 0, "something goes by Geneve");

    // One end alone: nothing arrives, and nothing leaves otherwise.
    speak(&lab, node, "geneve")?;
    device(node, "geneve")?;
    ensure!(
        pod.within(|| connect(SERVER[0])).is_err(),
        "it is let through"
    );
    speak(&lab, gw1, "geneve")?;
    let now = [device(node, "geneve")?, device(gw1, "geneve")?];
    leaves(&pod)?;
    count(tor)?;
    goes_on(&mut lasting).context("from VXLAN to Geneve")?;
    leaves(&pod)?;
    for target in SERVER {
        echoed_by_tcp(&pod, target, 64 << 10)?;
    }
    ensure!(counted(tor, "by-vxlan")? == 0, "something goes by VXLAN");
    for way in ["to-gateway", "from-gateway"] {
        ensure!(counted(tor, way)? > 20, "{way} is not by Geneve");
    }
    for (node, (before, now)) in [node, gw1].into_iter().zip(before.into_iter().zip(now)) {
        ensure!(before != now, "one device is the other");
        wait_for(
            "what was attached to the old device to go",
            CONVERGED,
            || {
                let pins = node.exec_ok(&["find", "/sys/fs/bpf/causeway", "-name", "*_*_*"])?;
                let of = |index: u64| pins.lines().any(|pin| pin.ends_with(&format!("_{index}")));
                ensure!(of(now) && !of(before), "{before} before, {now} now: {pins}");
                Ok(())
            },
        )?;
    }

    // The next daemon finds the device as it should be.
    gw1.kill(Signal::SIGKILL)?;
    gw1.start()?;
    wait_for("gw1 to be healthy", CONVERGED, || causeway::healthy(gw1))?;
    ensure!(device(gw1, "geneve")? == now[1], "it was made again");
    goes_on(&mut lasting).context("after a restart of the gateway")?;

    over_ipv6(&lab, &pod)?;
    let refused = firewall::refused(lab.node("firewall"))?;
    ensure!(refused.is_empty(), "the firewall refused {refused:?}");
    let clients = firewall::clients(lab.node("server"))?;
    let clients: BTreeSet<_> = clients.into_iter().map(|(_, address)| address).collect();
    ensure!(clients == EGRESS.into(), "the server has seen {clients:?}");
    lab.down()
}

/// The same between nodes that have IPv6 addresses alone.
fn over_ipv6(lab: &Lab, pod: &Pod<'_>) -> Result<()> {
    egress::nodes_have_ipv6_alone(lab, pod)?;
    leaves(pod)?;
    for target in SERVER {
        echoed_by_tcp(pod, target, 64 << 10)?;
    }
    for way in ["to-gateway6", "from-gateway6"] {
        ensure!(
            counted(lab.node("tor"), way)? > 20,
            "{way} is not by Geneve"
        );
    }
    Ok(())
}

/// Restarts a node's daemon with another protocol of the tunnel.
fn speak(lab: &Lab, node: &Node, protocol: &str) -> Result<()> {
    let words = format!("egress:\n  tunnelProtocol: {protocol}\n");
    egress::restart_with(lab, node, &[("egress:\n", &words)])
}

/// Waits until the tunnel's device is of a kind, up, and the only one; its index.
fn device(node: &Node, kind: &str) -> Result<u64> {
    wait_for(&format!("{kind} on {}", node.name()), CONVERGED, || {
        let links = node.exec_json(&["ip", "-j", "-d", "link", "show"])?;
        let links = links.as_array().into_iter().flatten();
        let tunnels = links.filter(|link| link["linkinfo"]["info_data"]["external"] == true);
        let tunnels: Vec<&Value> = tunnels.collect();
        let [tunnel] = tunnels[..] else {
            anyhow::bail!("{tunnels:#?}");
        };
        let is_up = tunnel["flags"]
            .as_array()
            .is_some_and(|all| all.contains(&"UP".into()));
        ensure!(
            tunnel["ifname"] == DEVICE && tunnel["linkinfo"]["info_kind"] == kind && is_up,
            "{tunnel:#}"
        );
        tunnel["ifindex"].as_u64().context("an index")
    })
}

/// Begins to count anew.
fn count(tor: &Node) -> Result<()> {
    let rules = format!("table inet tunnels\ndelete table inet tunnels\n{COUNTERS}");
    let output = tor.exec_with_input(&["nft", "-f", "-"], rules.as_bytes())?;
    ensure!(output.success(), "{rules}: {}", output.stderr);
    Ok(())
}

fn counted(tor: &Node, counter: &str) -> Result<u64> {
    let answer = tor.exec_json(&["nft", "-j", "list", "counter", "inet", "tunnels", counter])?;
    let objects = answer["nftables"].as_array().into_iter().flatten();
    let mut packets = objects.filter_map(|object| object["counter"]["packets"].as_u64());
    packets
        .next()
        .with_context(|| format!("{counter}: {answer}"))
}
