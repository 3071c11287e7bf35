// SPDX-License-Identifier: Apache-2.0
//! Which packets leave by a gateway, and what a change of policy means to connections.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Result, ensure};
use bpf_loader::{DropReason, EgressWay, GatewayRule, HookChoice};
use bpf_tests::{
    connection::Connection,
    egress::{EGRESS_V4, EGRESS_V6, EgressLab, RULE, SECOND_V4, SECOND_V6, WORLD_V4, WORLD_V6},
    namespace::of_another_layout,
    packet::Capture,
    pod::Pod,
    traffic::{EchoServer, Fate, Probe, Stream, echo, ping, reach, udp_socket, wait_for},
};

use crate::WORLD;

fn second_rule() -> GatewayRule {
    GatewayRule {
        addresses: vec![SECOND_V4.into(), SECOND_V6.into()],
        ..EgressLab::rule()
    }
}

fn of_family(to: IpAddr, v4: impl Into<IpAddr>, v6: impl Into<IpAddr>) -> IpAddr {
    if to.is_ipv4() { v4.into() } else { v6.into() }
}

#[test]
fn connections_keep_the_address_they_began_with() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    let rules = [(RULE, EgressLab::rule()), (RULE + 1, second_rule())];
    lab.set_rules(rules.clone().into())?;
    lab.select(EgressWay::Through(RULE))?;
    let mut old = Vec::new();
    let mut sockets = Vec::new();
    let servers: Vec<_> = WORLD
        .into_iter()
        .map(|to| EchoServer::start(&lab.world, SocketAddr::new(to, 0)))
        .collect::<Result<_>>()?;
    for (to, server) in WORLD.into_iter().zip(&servers) {
        for pod in [&lab.pod, &lab.gateway_pod] {
            let connection = Connection::open(&pod.namespace, &lab.world, to)?;
            ensure!(connection.seen == of_family(to, EGRESS_V4, EGRESS_V6));
            old.push(connection);
            let socket = udp_socket(&pod.namespace, to.is_ipv4(), 0)?;
            echo(&socket, server.address, 10)?;
            sockets.push((socket, server.address));
        }
    }
    let go_on = |old: &mut [Connection]| -> Result<()> {
        old.iter_mut().try_for_each(Connection::talk)?;
        sockets
            .iter()
            .try_for_each(|(socket, to)| echo(socket, *to, 20))
    };

    lab.select(EgressWay::Through(RULE + 1))?;
    go_on(&mut old)?;
    for to in WORLD {
        for pod in [&lab.pod, &lab.gateway_pod] {
            let mut fresh = Connection::open(&pod.namespace, &lab.world, to)?;
            ensure!(
                fresh.seen == of_family(to, SECOND_V4, SECOND_V6),
                "{}",
                fresh.seen
            );
            fresh.talk()?;
        }
    }
    go_on(&mut old)?;

    // The old way out only finishes.
    let mut draining = rules.clone();
    draining[0].1.is_draining = true;
    lab.set_rules(draining.into())?;
    go_on(&mut old)?;
    lab.select(EgressWay::Through(RULE))?;
    let short = Probe {
        wait: Duration::from_millis(300),
        ..Probe::default()
    };
    for (index, to) in WORLD.into_iter().enumerate() {
        ensure!(short.send(&lab.pod.namespace, to)? == Fate::Silence);
        ensure!(lab.refusals(DropReason::NatDraining)? == index as u64 + 1);
    }
    go_on(&mut old)?;

    // No policy at all: what it began stays until it ends.
    lab.select(EgressWay::Pass)?;
    go_on(&mut old)?;
    let mappings = lab.mappings()?;
    let pinned = mappings.iter().filter(|one| one.rule == RULE).count();
    ensure!(pinned == 8, "{pinned}");
    lab.witness.saw_nobody_else()
}

/// Lets the world reach pods by their own addresses.
fn publish_pods(lab: &EgressLab) -> Result<()> {
    for line in [
        "route add 10.244.0.0/16 via 198.51.100.1",
        "route add fd00:10:244::/48 via 2001:db8:100::1",
    ] {
        lab.world.ip(line)?;
    }
    Ok(())
}

#[test]
fn who_calls_a_pod_is_answered_by_the_pods_own_address_and_nothing_else_is() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    publish_pods(&lab)?;
    lab.set_up()?;
    for to in WORLD {
        for pod in [&lab.pod, &lab.gateway_pod] {
            let own = of_family(to, pod.v4, pod.v6);
            let mut called = Connection::open(&lab.world, &pod.namespace, own)?;
            ensure!(called.seen == to, "{}", called.seen);
            called.talk()?;
            // UDP, an echo, and the error of a closed port.
            let server = EchoServer::start(&pod.namespace, SocketAddr::new(own, 0))?;
            let caller = udp_socket(&lab.world, to.is_ipv4(), 0)?;
            echo(&caller, server.address, 100)?;
            ping(&lab.world, own, 77)?;
            reach(&lab.world, own)?;

            // The pod's own connections to the very same host, at the same time.
            let mut calls = Connection::open(&pod.namespace, &lab.world, to)?;
            ensure!(
                calls.seen == of_family(to, EGRESS_V4, EGRESS_V6),
                "{}",
                calls.seen
            );
            calls.talk()?;
            called.talk()?;
            let world = lab.world.run(|| UdpSocket::bind(SocketAddr::new(to, 0)))?;
            world.set_read_timeout(Some(Duration::from_millis(300)))?;
            let socket = udp_socket(&pod.namespace, to.is_ipv4(), 0)?;
            let seen = wait_for("a datagram", || {
                socket.send_to(b"x", world.local_addr()?)?;
                Ok(world.recv_from(&mut [0; 8])?.1)
            })?;
            ensure!(seen.ip() == of_family(to, EGRESS_V4, EGRESS_V6), "{seen}");
            own_echoes_leave_by_the_gateway(&lab, pod, to, own)?;
        }
    }
    Ok(())
}

/// Right between echoes the world asks the pod for, with the same identifier.
fn own_echoes_leave_by_the_gateway(
    lab: &EgressLab,
    pod: &Pod,
    to: IpAddr,
    own: IpAddr,
) -> Result<()> {
    let capture = Capture::start(&lab.world, "eth0")?;
    ping(&lab.world, own, 77)?;
    ping(&pod.namespace, to, 77)?;
    ping(&lab.world, own, 77)?;
    let request = if to.is_ipv4() { 8 } else { 128 };
    let from = capture.find("an echo request to the world", |packet| {
        let is_echo = matches!(packet.protocol, 1 | 58) && packet.payload[0] == request;
        (is_echo && packet.destination == to).then_some(packet.source)
    })?;
    ensure!(from == of_family(to, EGRESS_V4, EGRESS_V6), "{from}");
    Ok(())
}

#[test]
fn the_longest_prefix_decides_and_the_cluster_is_never_redirected() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    publish_pods(&lab)?;
    lab.set_rules([(RULE, EgressLab::rule()), (RULE + 1, second_rule())].into())?;
    lab.select_set(
        &[
            ("0.0.0.0/0", EgressWay::Through(RULE)),
            ("198.51.100.0/24", EgressWay::Pass),
            ("198.51.100.8/29", EgressWay::Through(RULE + 1)),
            ("198.51.100.12/32", EgressWay::NoGateway),
            ("::/0", EgressWay::Through(RULE)),
            ("2001:db8:100::/64", EgressWay::Pass),
            ("2001:db8:100::10/125", EgressWay::Through(RULE + 1)),
            ("2001:db8:100::12/128", EgressWay::NoGateway),
            // The cluster itself, by a way that cannot be.
            ("10.244.0.0/16", EgressWay::NoGateway),
            ("fd00:10:244::/48", EgressWay::NoGateway),
        ],
        None,
        &[],
    )?;
    let _beyond = lab.add_beyond(1_500)?;
    for address in [
        "198.51.100.12/24",
        "198.51.100.20/24",
        "2001:db8:100::12/64",
        "2001:db8:100::20/64",
    ] {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        lab.world
            .ip(&format!("addr add {address} dev eth0 {nodad}"))?;
    }
    for pod in [&lab.pod, &lab.gateway_pod] {
        for (to, sees) in [
            (IpAddr::from(WORLD_V4), IpAddr::from(SECOND_V4)),
            (WORLD_V6.into(), SECOND_V6.into()),
            ("198.51.100.20".parse()?, pod.v4.into()),
            ("2001:db8:100::20".parse()?, pod.v6.into()),
        ] {
            let mut connection = Connection::open(&pod.namespace, &lab.world, to)?;
            ensure!(connection.seen == sees, "{to} sees {}", connection.seen);
            connection.talk()?;
        }
        for to in ["198.51.100.12", "2001:db8:100::12"] {
            let short = Probe {
                wait: Duration::from_millis(300),
                ..Probe::default()
            };
            ensure!(
                short.send(&pod.namespace, to.parse()?)? == Fate::Silence,
                "{to}"
            );
        }
        for to in [IpAddr::from(lab.other_pod.v4), lab.other_pod.v6.into()] {
            reach(&pod.namespace, to)?;
        }
    }
    for to in [IpAddr::from(lab.gateway_pod.v4), lab.gateway_pod.v6.into()] {
        let own = of_family(to, lab.pod.v4, lab.pod.v6);
        let connection = Connection::open(&lab.pod.namespace, &lab.gateway_pod.namespace, to)?;
        ensure!(connection.seen == own, "{}", connection.seen);
    }
    ensure!(lab.drops(DropReason::EgressNoGateway)? == 2);
    Ok(())
}

#[test]
fn a_version_with_other_tables_serves_pods_when_it_knows_their_policies() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    let stream = Stream::start(&lab.pod.namespace, &lab.world, WORLD[0], 1_000)?;
    stream.wait_for_more(100)?;
    let own = lab.node.run(|| lab.datapath.status())?.pin_path;
    let old = of_another_layout(&own)?;
    lab.restart_node()?;
    stream.wait_for_more(100)?;
    lab.select(EgressWay::Through(RULE))?;
    stream.wait_for_more(100)?;
    ensure!(!old.exists() && own.exists());
    let (sent, received) = stream.stop()?;
    ensure!(sent == received, "{received} of {sent} arrived");
    lab.witness.saw_nobody_else()
}

#[test]
fn pods_nobody_has_decided_about_send_nothing_to_the_world() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_rules([(RULE, EgressLab::rule())].into())?;
    let all = |way| [("0.0.0.0/0", way), ("::/0", way)];
    let through = all(EgressWay::Through(RULE));
    lab.select_set(&through, Some(&all(EgressWay::Undecided)), &[])?;
    // It sends from its first moment on, before and while the programs come to its device.
    let pod = Pod::add(&lab.node, 1, 9, 1500)?;
    let EgressLab { datapath, node, .. } = &mut lab;
    node.run(|| datapath.set_endpoint(&pod.endpoint))?;
    let short = Probe {
        wait: Duration::from_millis(300),
        ..Probe::default()
    };
    for (index, to) in WORLD.into_iter().enumerate() {
        ensure!(short.send(&pod.namespace, to)? == Fate::Silence);
        let undecided = lab.drops(DropReason::EgressUndecided)?;
        ensure!(undecided == index as u64 + 1, "{undecided}");
    }
    reach(&pod.namespace, lab.gateway_pod.v4.into())?;
    lab.witness.saw_nobody_else()?;
    let pods = [pod];
    lab.select_set(&through, Some(&all(EgressWay::Undecided)), &pods)?;
    for to in WORLD {
        reach(&pods[0].namespace, to)?;
    }
    lab.witness.saw_nobody_else()
}
