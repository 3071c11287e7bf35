// SPDX-License-Identifier: Apache-2.0
//! Mappings over time: through restarts, until they end, and in another gateway's hands.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bpf_abi::nat::{EVENT_BYTES, NatEvent};
use bpf_loader::{
    DropReason, EgressWay, Gateway, GatewayRule, HookChoice, Mapping, PodNode, Timeouts,
};
use bpf_tests::{
    connection::Connection,
    egress::{EGRESS_V4, EgressLab, RULE, SECOND_V4, SECOND_V6, beside},
    traffic::{EchoServer, Stream, echo, ping, udp_socket, wait_for},
};

use crate::{MEGABYTE, WORLD};

const RATE: u64 = 1_000;
const SOME: u64 = 300;

fn restart_under_traffic(hook: HookChoice) -> Result<()> {
    let mut lab = EgressLab::build(hook)?;
    lab.set_up()?;
    let rules: BTreeMap<_, _> = [(RULE, EgressLab::rule())].into();
    for (to, from_gateways_node) in [(WORLD[0], false), (WORLD[1], true)] {
        let pod = if from_gateways_node {
            &lab.gateway_pod
        } else {
            &lab.pod
        };
        let stream = Stream::start(&pod.namespace, &lab.world, to, RATE)?;
        let connection = Connection::open(&pod.namespace, &lab.world, to)?;
        let transfer = connection.transfer_in_background(256 * MEGABYTE);
        let before = lab.mappings()?.len();
        let mut counted = 0;
        for _ in 0..3 {
            lab.restart_gateway()?;
            ensure!(lab.gateway.is_adopted());
            stream.wait_for_more(SOME)?;
            // Before anybody says the rules again as well as after.
            lab.set_rules(rules.clone())?;
            stream.wait_for_more(SOME)?;
            let state = lab.gateway_node.run(|| lab.gateway.rules())?.remove(0);
            ensure!(state.traffic.out_packets >= counted + 2 * SOME, "{state:?}");
            counted = state.traffic.out_packets;
            ensure!(state.refusals.is_empty(), "{state:?}");
        }
        let (sent, received) = stream.stop()?;
        ensure!(sent == received, "{received} of {sent} arrived");
        transfer.finish()?;
        ensure!(lab.mappings()?.len() == before);
    }
    lab.witness.saw_nobody_else()
}

#[test]
fn a_restart_of_the_daemon_loses_nothing() -> Result<()> {
    restart_under_traffic(HookChoice::Auto)
}

#[test]
fn a_restart_of_the_daemon_loses_nothing_with_clsact() -> Result<()> {
    restart_under_traffic(HookChoice::Clsact)
}

/// Which of the timeouts.
type TimeoutOf = fn(&mut Timeouts) -> &mut Duration;

#[test]
fn a_limit_to_drain_goes_on_over_a_restart() -> Result<()> {
    const HOUR: Duration = Duration::from_secs(3600);
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    let mut connection = Connection::open(&lab.pod.namespace, &lab.world, WORLD[0])?;
    let changed = GatewayRule {
        addresses: vec![SECOND_V4.into(), SECOND_V6.into()],
        drain: Some(HOUR),
        ..EgressLab::rule()
    };
    let rules: BTreeMap<_, _> = [(RULE, changed)].into();
    lab.set_rules(rules.clone())?;
    ensure!(lab.sweep()?.removed == 0, "it has an hour");
    let left: Vec<_> = lab.gateway.left().collect();
    let [(of, ago)] = left[..] else {
        anyhow::bail!("{left:?}");
    };
    ensure!(of == (RULE, EGRESS_V4.into()) && ago < HOUR, "{left:?}");
    // With half of it over, and with all of it.
    for (known, removed) in [(ago + HOUR / 2, 0), (ago + HOUR, 1)] {
        connection.talk()?;
        lab.restart_gateway()?;
        lab.gateway.restore_left([(of, known)]);
        lab.set_rules(rules.clone())?;
        let swept = lab.sweep()?;
        ensure!(swept.removed == removed, "after {known:?}: {swept:?}");
    }
    // An address the rule has again has not left.
    lab.set_rules([(RULE, EgressLab::rule())].into())?;
    ensure!(lab.gateway.left().count() == 0);
    Ok(())
}

/// How many mappings there are of each protocol and phase.
fn phases(mappings: &[Mapping]) -> BTreeMap<(u8, &'static str), usize> {
    let mut phases = BTreeMap::new();
    for mapping in mappings {
        *phases
            .entry((mapping.protocol, mapping.phase().name()))
            .or_default() += 1;
    }
    phases
}

#[test]
fn mappings_end_by_the_timeout_of_their_phase() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    // One of each: established, closed, without an answer to its SYN, answered and not, an echo.
    let to = WORLD[0];
    let pod = &lab.pod.namespace;
    let mut open = Connection::open(pod, &lab.world, to)?;
    let closed = Connection::open(pod, &lab.world, to)?;
    drop(closed);
    lab.world.ip("route add blackhole 203.0.113.0/24")?;
    lab.gateway_node
        .ip("route add 203.0.113.0/24 via 198.51.100.10")?;
    let opening = pod.run(|| {
        std::net::TcpStream::connect_timeout(
            &SocketAddr::from(([203, 0, 113, 1], 80)),
            Duration::from_millis(100),
        )
    });
    ensure!(opening.is_err());
    let server = EchoServer::start(&lab.world, SocketAddr::new(to, 0))?;
    echo(&udp_socket(pod, true, 0)?, server.address, 10)?;
    udp_socket(pod, true, 0)?.send_to(b"x", SocketAddr::from(([203, 0, 113, 1], 53)))?;
    ping(pod, to, 7)?;
    let all = [
        ((1, "active"), 1),
        ((6, "closing"), 1),
        ((6, "established"), 1),
        ((6, "opening"), 1),
        ((17, "active"), 1),
        ((17, "unanswered"), 1),
    ];
    wait_for("all phases", || {
        let mappings = lab.mappings()?;
        ensure!(phases(&mappings) == all.into(), "{mappings:?}");
        Ok(())
    })?;
    let ages: [(_, TimeoutOf); 6] = [
        ((6, "opening"), |all| &mut all.tcp_opening),
        ((6, "closing"), |all| &mut all.tcp_closing),
        ((17, "unanswered"), |all| &mut all.udp_unanswered),
        ((17, "active"), |all| &mut all.udp),
        ((1, "active"), |all| &mut all.icmp),
        ((6, "established"), |all| &mut all.tcp_established),
    ];
    let mut rule = EgressLab::rule();
    let mut left: BTreeMap<_, _> = all.into();
    for (phase, timeout) in ages {
        ensure!(lab.sweep()?.removed == 0, "nothing ends before its time");
        if phase.1 == "established" {
            open.talk()?;
        }
        *timeout(&mut rule.timeouts) = Duration::from_millis(50);
        lab.set_rules([(RULE, rule.clone())].into())?;
        left.remove(&phase);
        wait_for("its end", || {
            let swept = lab.sweep()?;
            ensure!(swept.removed == 1, "{swept:?}");
            let live = swept.live.get(&RULE).copied().unwrap_or_default();
            ensure!(live as usize == left.len(), "{swept:?}");
            Ok(())
        })?;
        let mappings = lab.mappings()?;
        ensure!(phases(&mappings) == left, "{phase:?}: {mappings:?}");
    }
    lab.witness.saw_nobody_else()
}

#[test]
fn a_rule_that_is_gone_takes_its_mappings_with_it() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    for to in WORLD {
        ping(&lab.pod.namespace, to, 1)?;
    }
    lab.set_rules([(RULE + 1, EgressLab::rule())].into())?;
    let swept = lab.sweep()?;
    ensure!(swept.removed == 2 && swept.live.is_empty(), "{swept:?}");
    ensure!(lab.mappings()?.is_empty());
    // Pods still send by it.
    let refused = ping_once(&lab)?;
    ensure!(refused == 1, "{refused}");
    // Nothing of the old rule is in the counters of a new one.
    lab.sweep()?;
    lab.sweep()?;
    lab.set_rules([(RULE, EgressLab::rule()), (RULE + 1, EgressLab::rule())].into())?;
    let states = lab.gateway_node.run(|| lab.gateway.rules())?;
    ensure!(
        states
            .iter()
            .all(|state| state.traffic == Default::default() && state.refusals.is_empty()),
        "{states:?}"
    );
    lab.witness.saw_nobody_else()
}

fn ping_once(lab: &EgressLab) -> Result<u64> {
    let before = lab.refusals(DropReason::NatUnknownRule)?;
    udp_socket(&lab.pod.namespace, true, 0)?.send_to(b"x", (WORLD[0], 9))?;
    wait_for("a refusal", || {
        let now = lab.refusals(DropReason::NatUnknownRule)?;
        ensure!(now > before);
        Ok(now - before)
    })
}

#[test]
fn events_nobody_reads_are_counted() -> Result<()> {
    let mut lab = EgressLab::build_for(HookChoice::Auto, 1 << 17)?;
    let rule = GatewayRule {
        is_replicated: true,
        ..EgressLab::rule()
    };
    lab.set_rules([(RULE, rule)].into())?;
    lab.select(EgressWay::Through(RULE))?;
    ensure!(lab.gateway.missed()? == 0, "nothing has happened");
    // More connections than the buffer has room for.
    let room = EVENT_BYTES / u32::try_from(size_of::<NatEvent>())?;
    let socket = udp_socket(&lab.pod.namespace, true, 0)?;
    let opened = |lab: &EgressLab| -> Result<u64> {
        let rules = lab.gateway_node.run(|| lab.gateway.rules())?;
        Ok(rules.iter().map(|rule| rule.traffic.opened).sum())
    };
    for port in 1..=u16::try_from(room + 1_000)? {
        // A port nobody listens at makes the next call fail, which sends nothing.
        (0..10)
            .find(|_| socket.send_to(b"x", (WORLD[0], port)).is_ok())
            .with_context(|| format!("cannot send to port {port}"))?;
    }
    wait_for("the connections", || {
        let opened = opened(&lab)?;
        ensure!(opened > u64::from(room), "{opened}");
        Ok(())
    })?;
    let opened = usize::try_from(opened(&lab)?)?;
    let told = lab.gateway.changes(usize::MAX).len();
    let missed = usize::try_from(lab.gateway.missed()?)?;
    ensure!(
        missed > 0 && told + missed >= opened,
        "{told} {missed} {opened}"
    );
    ensure!(lab.gateway.missed()? == 0, "told once");
    // With room in it nothing is.
    let before = lab.gateway.changes(10).len();
    socket
        .send_to(b"x", (WORLD[0], 65_000))
        .or_else(|_| socket.send_to(b"x", (WORLD[0], 65_000)))?;
    wait_for("one more", || {
        let told = lab.gateway.changes(10).len();
        ensure!(before + told > 0, "nothing is told");
        Ok(())
    })?;
    ensure!(lab.gateway.missed()? == 0, "something was missed");
    Ok(())
}

#[test]
fn another_gateway_takes_connections_over() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    let rules: BTreeMap<_, _> = [(
        RULE,
        GatewayRule {
            // Ports that are kept by chance prove nothing.
            first_port: 61_000,
            is_replicated: true,
            is_copy: false,
            drain: None,
            ..EgressLab::rule()
        },
    )]
    .into();
    lab.set_rules(rules.clone())?;
    lab.select(EgressWay::Through(RULE))?;
    let mut connections = Vec::new();
    let mut sockets = Vec::new();
    let mut servers = Vec::new();
    for to in WORLD {
        let server = EchoServer::start(&lab.world, SocketAddr::new(to, 0))?;
        for pod in [&lab.pod, &lab.gateway_pod] {
            connections.push(Connection::open(&pod.namespace, &lab.world, to)?);
            let socket = udp_socket(&pod.namespace, to.is_ipv4(), 0)?;
            echo(&socket, server.address, 10)?;
            sockets.push((socket, server.address));
        }
        servers.push(server);
    }
    connections.iter_mut().try_for_each(Connection::talk)?;
    let exported = lab.mappings()?;
    ensure!(exported.len() == 8, "{exported:?}");
    // What was told as it happened is the same, as it was last told.
    let mut told = BTreeMap::new();
    for change in lab.gateway.changes(1_000) {
        told.insert((change.protocol, change.pod, change.remote), change);
    }
    for mapping in &exported {
        let heard = told.get(&(mapping.protocol, mapping.pod, mapping.remote));
        let heard = heard.with_context(|| format!("{mapping:?}"))?;
        let idle = mapping.idle;
        ensure!(
            Mapping { idle, ..*heard } == *mapping,
            "{heard:?} {mapping:?}"
        );
    }

    let old_pins = lab.gateway_pins.clone();
    lab.gateway_node
        .run(|| Gateway::uninstall_pins(&old_pins))?;
    lab.open_gateway_at(beside(&old_pins, "heir"))?;
    ensure!(!lab.gateway.is_adopted() && lab.mappings()?.is_empty());
    lab.set_rules(rules)?;
    for mapping in &exported {
        lab.gateway.set_mapping(mapping)?;
    }
    let imported = lab.mappings()?;
    for mapping in &exported {
        let found = imported
            .iter()
            .find(|one| one.pod == mapping.pod && one.protocol == mapping.protocol)
            .with_context(|| format!("{mapping:?}"))?;
        let idle = mapping.idle;
        ensure!(
            Mapping { idle, ..*found } == *mapping,
            "{found:?} {mapping:?}"
        );
        ensure!(found.idle >= mapping.idle, "{found:?} {mapping:?}");
    }
    // The world speaks first to some and the pod to others.
    connections
        .iter_mut()
        .rev()
        .try_for_each(Connection::talk_back)?;
    connections.iter_mut().try_for_each(Connection::talk)?;
    for (socket, server) in &sockets {
        echo(socket, *server, 20)?;
    }
    ensure!(
        lab.mappings()?.len() == 8,
        "no connection got another mapping"
    );
    let swept = lab.sweep()?;
    ensure!(
        swept.live == [(RULE, 8)].into() && swept.halves == 0,
        "{swept:?}"
    );
    lab.witness.saw_nobody_else()
}

#[test]
fn a_mapping_put_in_takes_its_port_from_whoever_has_it() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    let to = WORLD[0];
    let world = lab.world.run(|| UdpSocket::bind(SocketAddr::new(to, 0)))?;
    let socket = udp_socket(&lab.pod.namespace, true, 0)?;
    socket.send_to(b"x", world.local_addr()?)?;
    world.set_read_timeout(Some(bpf_tests::traffic::PATIENCE))?;
    let (_, seen) = world.recv_from(&mut [0; 8])?;
    let own = lab.mappings()?.remove(0);
    let mut other = own;
    other.pod.set_ip(lab.gateway_pod.v4.into());
    other.node = PodNode::Here;
    lab.gateway.set_mapping(&other)?;
    let mappings = lab.mappings()?;
    ensure!(
        mappings.len() == 1 && mappings[0].pod == other.pod,
        "{mappings:?}"
    );
    // The first one goes on with another port, since this one is taken.
    socket.send_to(b"x", world.local_addr()?)?;
    let (_, now) = world.recv_from(&mut [0; 8])?;
    ensure!(now != seen, "{now}");
    // The other way round: the pod's end has another port now, and the old one is free.
    let mut moved = lab
        .mappings()?
        .into_iter()
        .find(|one| one.pod == own.pod)
        .context("its mapping")?;
    moved.egress.set_port(2_000);
    lab.gateway.set_mapping(&moved)?;
    ensure!(lab.mappings()?.len() == 2);
    let swept = lab.sweep()?;
    ensure!(swept.live == [(RULE, 2)].into(), "{swept:?}");
    world.send_to(b"to the port that is free", now)?;
    world.send_to(b"y", moved.egress)?;
    socket.set_read_timeout(Some(bpf_tests::traffic::PATIENCE))?;
    let (count, _) = socket.recv_from(&mut [0; 64])?;
    ensure!(count == 1, "a datagram of {count} bytes to the free port");
    Ok(())
}
