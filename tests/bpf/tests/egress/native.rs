// SPDX-License-Identifier: Apache-2.0
//! Pods' packets that reach their gateway as they are, without the tunnel.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use bpf_loader::{DropReason, EgressWay, Gateway, GatewayRule, HookChoice, Mapping, PodNode};
use bpf_tests::{
    connection::Connection,
    egress::{
        BEYOND_V4, BEYOND_V6, EGRESS_V4, EGRESS_V6, EgressLab, RULE, SECOND_V4, SECOND_V6, beside,
    },
    packet::{Capture, TCP, UDP, send_raw, udp},
    traffic::{
        EchoServer, Fate, Probe, echo, leave_cutting_to_routers, ping, reach, transfer, udp_socket,
        wait_for,
    },
};

use crate::{MEGABYTE, WORLD};

const SHORT: Probe = Probe {
    source: None,
    bytes: 64,
    ttl: 64,
    wait: std::time::Duration::from_millis(300),
};

/// A lab whose pods send natively, under this rule.
fn native(hook: HookChoice) -> Result<EgressLab> {
    let mut lab = EgressLab::build(hook)?;
    (lab.native.is_sent, lab.native.is_taken) = (true, true);
    lab.set_up()?;
    Ok(lab)
}

fn of_family(to: IpAddr, v4: impl Into<IpAddr>, v6: impl Into<IpAddr>) -> IpAddr {
    if to.is_ipv4() { v4.into() } else { v6.into() }
}

/// How many packets the pods' node and the gateway have sent into the tunnel.
fn tunnelled(lab: &EgressLab) -> Result<u64> {
    let mut sum = 0;
    for node in [&lab.node, &lab.gateway_node] {
        let output = node.output("ip -s -j link show dev cw-egress")?;
        let text = String::from_utf8(output.stdout)?;
        let (_, sent) = text.split_once("\"tx\":").context("no counters")?;
        let (_, packets) = sent.split_once("\"packets\":").context("no packets")?;
        let digits = packets.split(|c: char| !c.is_ascii_digit()).next();
        sum += digits.unwrap_or_default().parse::<u64>()?;
    }
    Ok(sum)
}

fn everything_goes_without_the_tunnel(hook: HookChoice) -> Result<()> {
    let mut lab = native(hook)?;
    let before = tunnelled(&lab)?;
    for to in WORLD {
        for pod in [&lab.pod, &lab.gateway_pod] {
            // The closed port's ICMP error quotes a translated packet.
            reach(&pod.namespace, to)?;
            ping(&pod.namespace, to, 77)?;
            transfer(&pod.namespace, &lab.world, to, 16 * MEGABYTE)?;
            let server = EchoServer::start(&lab.world, SocketAddr::new(to, 0))?;
            let socket = udp_socket(&pod.namespace, to.is_ipv4(), 0)?;
            // In pieces from 1473 bytes on.
            for bytes in [100, 1_400, 4_000, 60_000, 1_480, 9_001] {
                echo(&socket, server.address, bytes)?;
            }
        }
    }
    ensure!(tunnelled(&lab)? == before, "something took the tunnel");
    for mapping in lab.mappings()? {
        let own = [IpAddr::from(lab.pod.v4), lab.pod.v6.into()];
        let expected = match own.contains(&mapping.pod.ip()) {
            true => PodNode::Native,
            false => PodNode::Here,
        };
        ensure!(mapping.node == expected, "{mapping:?}");
    }
    // In the cluster there is no policy.
    reach(&lab.pod.namespace, lab.gateway_pod.v4.into())?;
    reach(&lab.gateway_pod.namespace, lab.pod.v6.into())?;
    let swept = lab.sweep()?;
    ensure!(swept.halves == 0);
    let seen = lab.witness.seen();
    ensure!(seen.contains(&EGRESS_V4.into()) && seen.contains(&EGRESS_V6.into()));
    lab.witness.saw_nobody_else()
}

#[test]
fn nothing_takes_the_tunnel_where_the_gateway_is_a_neighbour() -> Result<()> {
    everything_goes_without_the_tunnel(HookChoice::Auto)
}

#[test]
fn nothing_takes_the_tunnel_with_clsact_filters() -> Result<()> {
    everything_goes_without_the_tunnel(HookChoice::Clsact)
}

#[test]
fn segments_are_as_large_as_the_link_takes() -> Result<()> {
    let lab = native(HookChoice::Auto)?;
    for to in WORLD {
        let expected = 1_500 - if to.is_ipv4() { 40 } else { 60 };
        let captures = [
            Capture::start(&lab.pod.namespace, "eth0")?,
            Capture::start(&lab.world, "eth0")?,
        ];
        transfer(&lab.pod.namespace, &lab.world, to, 1)?;
        for (capture, flags) in captures.iter().zip([0x12, 0x02]) {
            let segment_bytes = capture.find("a SYN", |packet| {
                let segment = &packet.payload;
                (packet.protocol == TCP && segment[13] & 0x12 == flags && segment[20] == 2)
                    .then(|| u16::from_be_bytes([segment[22], segment[23]]))
            })?;
            ensure!(segment_bytes == expected, "{segment_bytes}");
        }
    }
    lab.witness.saw_nobody_else()
}

#[test]
fn what_does_not_fit_takes_the_tunnel_and_the_connection_lives() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    (lab.native.is_sent, lab.native.is_taken) = (true, true);
    lab.native.mtu = 1_300;
    lab.set_up()?;
    for to in WORLD {
        transfer(&lab.pod.namespace, &lab.world, to, 4 * MEGABYTE)?;
        let server = EchoServer::start(&lab.world, SocketAddr::new(to, 0))?;
        let socket = udp_socket(&lab.pod.namespace, to.is_ipv4(), 0)?;
        leave_cutting_to_routers(&socket)?;
        let before = tunnelled(&lab)?;
        echo(&socket, server.address, 1_200)?;
        ensure!(tunnelled(&lab)? == before);
        for bytes in [1_400, 1_200, 1_450] {
            echo(&socket, server.address, bytes)?;
        }
        ensure!(tunnelled(&lab)? > before);
    }
    lab.witness.saw_nobody_else()
}

#[test]
fn a_trace_of_the_route_shows_the_gateway_and_a_narrow_link_is_told_to_pods() -> Result<()> {
    let lab = native(HookChoice::Auto)?;
    let _beyond = lab.add_beyond(1_300)?;
    for to in [IpAddr::from(BEYOND_V4), BEYOND_V6.into()] {
        reach(&lab.pod.namespace, to)?;
        let ask = |ttl, bytes| {
            let probe = Probe {
                ttl,
                bytes,
                wait: bpf_tests::traffic::PATIENCE,
                ..SHORT
            };
            probe.ask(&lab.pod.namespace, to)
        };
        let (fate, by) = ask(2, 64)?;
        let gateway = of_family(to, EGRESS_V4, EGRESS_V6);
        ensure!(
            fate == Fate::TimeExceeded && by == Some(gateway),
            "{fate:?} by {by:?}"
        );
        let (fate, _) = ask(64, 1_400)?;
        ensure!(fate == Fate::TooBig(1_300), "{fate:?}");
    }
    lab.witness.saw_nobody_else()
}

#[test]
fn pods_the_gateway_does_not_know_are_refused_and_counted() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    (lab.native.is_sent, lab.native.is_taken) = (true, true);
    lab.native.is_known = false;
    lab.set_up()?;
    for (to, count) in WORLD.into_iter().zip(1..) {
        ensure!(SHORT.send(&lab.pod.namespace, to)? == Fate::Silence);
        let refused = lab.refusals(DropReason::NatUnknownRule)?;
        ensure!(refused == count, "{refused} of {count}");
        // What is for the gateway's node itself is none of that.
        reach(
            &lab.other_pod.namespace,
            of_family(to, EGRESS_V4, EGRESS_V6),
        )?;
    }
    // What the gateway's node has no gateway for goes nowhere either.
    (lab.native.is_known, lab.native.is_gateway) = (false, false);
    lab.set_up()?;
    for (to, count) in WORLD.into_iter().zip(1..) {
        ensure!(SHORT.send(&lab.pod.namespace, to)? == Fate::Silence);
        ensure!(lab.gateway_drops(DropReason::EgressNoGateway)? == count);
    }
    lab.witness.saw_nobody_else()
}

#[test]
fn a_node_that_takes_nothing_natively_sends_nothing_on() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.native.is_sent = true;
    lab.set_up()?;
    for to in WORLD {
        // Its kernel says so to the pod: no router forwards what has used up its TTL.
        let fate = Probe::default().send(&lab.pod.namespace, to)?;
        ensure!(fate == Fate::TimeExceeded, "{fate:?}");
    }
    lab.witness.saw_nobody_else()
}

#[test]
fn what_a_gateway_only_routes_for_other_nodes_stays_as_it_is() -> Result<()> {
    let lab = native(HookChoice::Auto)?;
    lab.world.ip("route add 10.244.0.0/16 via 198.51.100.1")?;
    lab.world
        .ip("route add fd00:10:244::/48 via 2001:db8:100::1")?;
    for to in WORLD {
        // No policy selects it, and its node's way to the world leads over the gateway.
        let own = of_family(to, lab.other_pod.v4, lab.other_pod.v6);
        let mut connection = Connection::open(&lab.other_pod.namespace, &lab.world, to)?;
        ensure!(connection.seen == own, "{}", connection.seen);
        connection.talk()?;
        // Somebody outside calls one that a policy selects.
        let own = of_family(to, lab.pod.v4, lab.pod.v6);
        let mut called = Connection::open(&lab.world, &lab.pod.namespace, own)?;
        called.talk()?;
    }
    Ok(())
}

/// A packet as pods' nodes send it to a gateway.
fn for_nobody_else(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[8] = 1;
        packet[10..12].fill(0);
        let sum = bpf_tests::packet::checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        packet[7] = 1;
    }
    packet
}

#[test]
fn a_pods_address_from_where_its_node_is_not_is_refused() -> Result<()> {
    let lab = native(HookChoice::Auto)?;
    let to = crate::refused::mac_of(&lab, "out")?;
    for (own, remote) in [
        (IpAddr::from(lab.pod.v4), IpAddr::from(BEYOND_V4)),
        (lab.pod.v6.into(), BEYOND_V6.into()),
    ] {
        let before = lab.gateway_drops(DropReason::SpoofedAddress)?;
        let data = udp(SocketAddr::new(own, 9), SocketAddr::new(remote, 9), b"x");
        let packet = bpf_tests::packet::ip(own, remote, UDP, &data);
        send_raw(&lab.world, "eth0", to, &for_nobody_else(packet))?;
        wait_for("the refusal", || {
            let now = lab.gateway_drops(DropReason::SpoofedAddress)?;
            ensure!(now == before + 1, "{now}");
            Ok(())
        })?;
    }
    ensure!(lab.mappings()?.is_empty());
    Ok(())
}

#[test]
fn connections_keep_their_address_whatever_becomes_of_policy_and_transport() -> Result<()> {
    let mut lab = native(HookChoice::Auto)?;
    let second = GatewayRule {
        addresses: vec![SECOND_V4.into(), SECOND_V6.into()],
        is_udp_endpoint_independent: true,
        ..EgressLab::rule()
    };
    lab.set_rules([(RULE, EgressLab::rule()), (RULE + 1, second)].into())?;
    let servers: Vec<_> = WORLD
        .into_iter()
        .map(|to| EchoServer::start(&lab.world, SocketAddr::new(to, 0)))
        .collect::<Result<_>>()?;
    let mut old = Vec::new();
    let mut sockets = Vec::new();
    for (to, server) in WORLD.into_iter().zip(&servers) {
        let connection = Connection::open(&lab.pod.namespace, &lab.world, to)?;
        ensure!(connection.seen == of_family(to, EGRESS_V4, EGRESS_V6));
        old.push(connection);
        let socket = udp_socket(&lab.pod.namespace, to.is_ipv4(), 0)?;
        echo(&socket, server.address, 10)?;
        sockets.push((socket, server.address));
    }
    let mut go_on = || -> Result<()> {
        old.iter_mut().try_for_each(Connection::talk)?;
        let mut sockets = sockets.iter();
        sockets.try_for_each(|(socket, to)| echo(socket, *to, 20))
    };
    // By the tunnel, and back.
    lab.native.is_sent = false;
    lab.select(EgressWay::Through(RULE))?;
    let before = tunnelled(&lab)?;
    go_on()?;
    ensure!(tunnelled(&lab)? > before);
    lab.native.is_sent = true;
    // Another rule, for what begins now.
    lab.select(EgressWay::Through(RULE + 1))?;
    let before = tunnelled(&lab)?;
    go_on()?;
    for to in WORLD {
        let mut fresh = Connection::open(&lab.pod.namespace, &lab.world, to)?;
        ensure!(
            fresh.seen == of_family(to, SECOND_V4, SECOND_V6),
            "{}",
            fresh.seen
        );
        fresh.talk()?;
    }
    // No policy at all, and a gateway that does not know the pod any more.
    lab.select(EgressWay::Pass)?;
    go_on()?;
    lab.native.is_known = false;
    lab.select(EgressWay::Pass)?;
    go_on()?;
    ensure!(tunnelled(&lab)? == before);
    let mappings = lab.mappings()?;
    let pinned = mappings.iter().filter(|one| one.rule == RULE).count();
    ensure!(pinned == 4, "{mappings:?}");
    // What comes without a connection is for nobody.
    lab.select(EgressWay::Through(RULE))?;
    for (to, count) in WORLD.into_iter().zip(1..) {
        ensure!(SHORT.send(&lab.pod.namespace, to)? == Fate::Silence);
        ensure!(lab.refusals(DropReason::NatUnknownRule)? == count);
    }
    lab.witness.saw_nobody_else()
}

#[test]
fn another_gateway_answers_by_its_own_routes() -> Result<()> {
    let mut lab = native(HookChoice::Auto)?;
    let mut connections = Vec::new();
    for to in WORLD {
        connections.push(Connection::open(&lab.pod.namespace, &lab.world, to)?);
    }
    let copied: Vec<Mapping> = lab.mappings()?;
    ensure!(copied.iter().all(|one| one.node == PodNode::Native));
    // The other gateway: empty tables in the same place.
    let old_pins = lab.gateway_pins.clone();
    lab.gateway_node
        .run(|| Gateway::uninstall_pins(&old_pins))?;
    lab.open_gateway_at(beside(&old_pins, "other"))?;
    lab.set_rules([(RULE, EgressLab::rule())].into())?;
    let EgressLab {
        gateway,
        gateway_node,
        ..
    } = &mut lab;
    for mapping in &copied {
        gateway_node.run(|| gateway.set_mapping(mapping))?;
    }
    let before = tunnelled(&lab)?;
    for connection in &mut connections {
        // The world speaks first: nothing has told the gateway where the pod is.
        connection.talk_back()?;
        connection.talk()?;
    }
    ensure!(tunnelled(&lab)? == before);
    let after = lab.mappings()?;
    ensure!(after.len() == copied.len(), "{after:?}");
    lab.witness.saw_nobody_else()
}

#[test]
fn nothing_leaves_where_the_gateways_programs_are_gone() -> Result<()> {
    let mut lab = native(HookChoice::Auto)?;
    let EgressLab {
        gateway,
        gateway_node,
        ..
    } = &mut lab;
    let report = gateway_node.run(|| gateway.sync_devices(None, &[]))?;
    ensure!(report.failed.is_empty(), "{report:?}");
    let mut count = 0;
    for to in WORLD {
        for pod in [&lab.pod, &lab.gateway_pod] {
            ensure!(SHORT.send(&pod.namespace, to)? == Fate::Silence);
            count += 1;
            let refused = lab.gateway_drops(DropReason::TunnelFailed)?;
            ensure!(refused == count, "{refused} of {count}");
        }
    }
    lab.witness.saw_nobody_else()
}

#[test]
fn a_restart_keeps_the_way_until_somebody_says_otherwise() -> Result<()> {
    let mut lab = native(HookChoice::Auto)?;
    let mut connections = Vec::new();
    for to in WORLD {
        connections.push(Connection::open(&lab.pod.namespace, &lab.world, to)?);
    }
    let before = tunnelled(&lab)?;
    lab.restart_node()?;
    lab.restart_gateway()?;
    for (connection, to) in connections.iter_mut().zip(WORLD) {
        connection.talk_back()?;
        connection.talk()?;
        // The gateway's rules are there while nobody has given it any.
        reach(&lab.pod.namespace, to)?;
    }
    ensure!(tunnelled(&lab)? == before);
    // The other setting, at the next start.
    lab.restart_node()?;
    lab.restart_gateway()?;
    lab.native.is_sent = false;
    lab.set_up()?;
    connections.iter_mut().try_for_each(Connection::talk)?;
    ensure!(tunnelled(&lab)? > before);
    for mapping in lab.mappings()?.iter().filter(|one| one.protocol == 6) {
        ensure!(matches!(mapping.node, PodNode::Tunnel(_)), "{mapping:?}");
    }
    lab.witness.saw_nobody_else()
}

#[test]
fn a_large_answer_that_may_be_cut_is_cut_for_the_way_to_the_pod() -> Result<()> {
    let lab = native(HookChoice::Auto)?;
    lab.gateway_node.ip("link set fab mtu 1300")?;
    let to = WORLD[0];
    let server = lab.world.run(|| UdpSocket::bind(SocketAddr::new(to, 0)))?;
    leave_cutting_to_routers(&server)?;
    server.set_read_timeout(Some(bpf_tests::traffic::PATIENCE))?;
    let socket = udp_socket(&lab.pod.namespace, true, 0)?;
    socket.set_read_timeout(Some(bpf_tests::traffic::PATIENCE))?;
    socket.send_to(b"please", server.local_addr()?)?;
    let (_, from) = server.recv_from(&mut [0; 16])?;
    server.send_to(&[7; 1_400], from)?;
    ensure!(socket.recv(&mut [0; 2_000])? == 1_400);
    lab.witness.saw_nobody_else()
}
