// SPDX-License-Identifier: Apache-2.0
//! Several ways to the same place: connections share answers of the routing table, and each of them
//! keeps its way.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use bpf_loader::{HookChoice, MacAddr};
use bpf_tests::{
    egress::{BEYOND_V4, BEYOND_V6, EgressLab},
    packet::{Capture, UDP, ip, send_from, send_raw, udp},
};

/// Devices of the world, and those of the gateway they are the other ends of.
const DEVICES: [(&str, &str); 2] = [("eth0", "out"), ("eth1", "second")];
/// As many as the buffer of a packet socket holds, with the answers.
const FLOWS: u16 = 48;
/// The port of the first of them.
const FIRST_FLOW: u16 = 20_000;
/// No more at once than wait for a neighbour's address.
const AT_ONCE: usize = 32;
/// When all have arrived at the latest.
const LIMIT: Duration = Duration::from_secs(30);
/// A port for which there is a routing rule.
const RULED_PORT: u16 = 4_242;
const OTHER_PORT: u16 = 9;
/// Longer than an answer of the routing table is believed.
const STALE: Duration = Duration::from_millis(150);

/// Gives gateway and world a second link, and places beyond the world a route over both.
fn second_way(lab: &EgressLab) -> Result<()> {
    let (gateway, world) = (&lab.gateway_node, &lab.world);
    gateway.ip(&format!(
        "link add second type veth peer name eth1 netns {}",
        world.path()
    ))?;
    for (at, device, last) in [(gateway, "second", 1), (world, "eth1", 2)] {
        at.ip(&format!("link set {device} up"))?;
        at.ip(&format!("addr add 192.0.2.{}/30 dev {device}", 4 + last))?;
        at.ip(&format!(
            "addr add 2001:db8:300::{last}/64 dev {device} nodad"
        ))?;
    }
    world.ip("link set lo up")?;
    world.ip(&format!("addr add {BEYOND_V4}/32 dev lo"))?;
    world.ip(&format!("addr add {BEYOND_V6}/128 dev lo nodad"))?;
    for family in ["ipv4", "ipv6"] {
        gateway.sysctl(&format!("net/{family}/fib_multipath_hash_policy"), "1")?;
    }
    for device in ["all", "eth1"] {
        world.sysctl(&format!("net/ipv4/conf/{device}/rp_filter"), "0")?;
    }
    Ok(())
}

/// Routes places beyond the world, in a table of the gateway's.
fn route(lab: &EgressLab, table: &str, ways: [bool; 2]) -> Result<()> {
    for (family, to, neighbors) in [
        (
            "-4",
            IpAddr::from(BEYOND_V4),
            ["198.51.100.10", "192.0.2.6"],
        ),
        (
            "-6",
            BEYOND_V6.into(),
            ["2001:db8:100::10", "2001:db8:300::2"],
        ),
    ] {
        let hops: String = neighbors
            .iter()
            .zip(DEVICES)
            .zip(ways)
            .filter(|(_, used)| *used)
            .map(|((neighbor, (_, device)), _)| format!(" nexthop via {neighbor} dev {device}"))
            .collect();
        lab.gateway_node
            .ip(&format!("{family} route replace {to} table {table}{hops}"))?;
    }
    Ok(())
}

/// Sends a packet of each flow, and again of those that have not arrived: while a neighbour is asked
/// for, some are lost. Returns which of [`DEVICES`] each came by.
fn ways(lab: &EgressLab, to: IpAddr, port: u16) -> Result<BTreeMap<u16, usize>> {
    let from = if to.is_ipv4() {
        IpAddr::from(lab.pod.v4)
    } else {
        lab.pod.v6.into()
    };
    let to = SocketAddr::new(to, port);
    let packet = |source: u16| {
        let datagram = udp(SocketAddr::new(from, source), to, b"a way");
        ip(from, to.ip(), UDP, &datagram)
    };
    let captures = [
        Capture::start(&lab.world, DEVICES[0].0)?,
        Capture::start(&lab.world, DEVICES[1].0)?,
    ];
    let mut ways = BTreeMap::new();
    let until = Instant::now() + LIMIT;
    for last in 1..FIRST_FLOW {
        let missing = (FIRST_FLOW..FIRST_FLOW + FLOWS).filter(|flow| !ways.contains_key(flow));
        for flow in missing.take(AT_ONCE) {
            send_from(&lab.pod, &packet(flow))?;
        }
        for (index, (capture, (_, device))) in captures.iter().zip(DEVICES).enumerate() {
            // The last one of this time: nobody takes it.
            send_raw(&lab.gateway_node, device, MacAddr([2; 6]), &packet(last))?;
            let mut twice = None;
            capture.find(&format!("the last packet by {device}"), |caught| {
                let [source, port] = caught.ports()?;
                if caught.protocol != UDP || caught.destination != to.ip() || port != to.port() {
                    return None;
                }
                if source >= FIRST_FLOW && ways.insert(source, index).is_some_and(|w| w != index) {
                    twice = Some(source);
                }
                (source == last).then_some(())
            })?;
            ensure!(twice.is_none(), "{twice:?} came by both ways");
        }
        if ways.len() == usize::from(FLOWS) {
            return Ok(ways);
        }
        ensure!(Instant::now() < until, "{} arrived", ways.len());
        // Somebody has to answer for the neighbour.
        sleep(Duration::from_millis(1));
    }
    bail!("{} arrived", ways.len());
}

fn all_by(ways: &BTreeMap<u16, usize>, index: usize) -> bool {
    ways.values().all(|way| *way == index)
}

#[test]
fn connections_spread_over_equal_ways_and_each_keeps_its_own() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    second_way(&lab)?;
    lab.set_up()?;
    for to in [IpAddr::from(BEYOND_V4), BEYOND_V6.into()] {
        route(&lab, "main", [true, true])?;
        let first = ways(&lab, to, OTHER_PORT)?;
        for index in 0..DEVICES.len() {
            let count = first.values().filter(|way| **way == index).count();
            // Of 64 ports that are asked for, about a half each.
            ensure!(count > usize::from(FLOWS) / 8, "{count} by {index}");
        }
        sleep(STALE);
        ensure!(ways(&lab, to, OTHER_PORT)? == first);
        // A change is seen by itself, and at once when it is told.
        route(&lab, "main", [false, true])?;
        sleep(STALE);
        ensure!(all_by(&ways(&lab, to, OTHER_PORT)?, 1));
        route(&lab, "main", [true, false])?;
        lab.gateway_node.run(|| lab.gateway.routes_changed())?;
        ensure!(all_by(&ways(&lab, to, OTHER_PORT)?, 0));
    }
    Ok(())
}

#[test]
fn a_routing_rule_may_select_by_destination_port() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    second_way(&lab)?;
    lab.set_up()?;
    route(&lab, "main", [true, false])?;
    route(&lab, "100", [false, true])?;
    for family in ["-4", "-6"] {
        lab.gateway_node.ip(&format!(
            "{family} rule add ipproto udp dport {RULED_PORT} table 100"
        ))?;
    }
    for to in [IpAddr::from(BEYOND_V4), BEYOND_V6.into()] {
        ensure!(all_by(&ways(&lab, to, OTHER_PORT)?, 0));
        ensure!(all_by(&ways(&lab, to, RULED_PORT)?, 1));
        ensure!(all_by(&ways(&lab, to, OTHER_PORT)?, 0));
    }
    Ok(())
}
