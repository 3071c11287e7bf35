// SPDX-License-Identifier: Apache-2.0
//! Which address and port connections get, until none is left.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bpf_loader::{DropReason, EgressWay, GatewayRule, HookChoice};
use bpf_tests::{
    egress::{EGRESS_V4, EGRESS_V6, EgressLab, RULE, SECOND_V4, SECOND_V6, WORLD_V4},
    namespace::Namespace,
    traffic::{EchoServer, PATIENCE, echo, hear_errors, udp_socket, wait_for},
};

use crate::WORLD;

/// Ports of the narrow rule: no kernel takes one of them by itself.
const FIRST: u16 = 20_000;

fn rule(addresses: Vec<IpAddr>, ports: u16) -> GatewayRule {
    GatewayRule {
        addresses,
        first_port: FIRST,
        last_port: FIRST + ports - 1,
        ..EgressLab::rule()
    }
}

fn connect(from: &Namespace, to: SocketAddr) -> std::io::Result<TcpStream> {
    from.run(|| TcpStream::connect_timeout(&to, PATIENCE))
}

/// Opens as many connections as there are ports, from three pods, and one more.
fn exhaust(addresses: [Vec<IpAddr>; 2], expected: usize) -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    let third = lab.add_pod(7)?;
    lab.set_rules([(RULE, rule(addresses.concat(), 100))].into())?;
    let way = EgressWay::Through(RULE);
    let third = [third];
    lab.select_set(&[("0.0.0.0/0", way), ("::/0", way)], None, &third)?;
    let pods = [&lab.pod, &lab.gateway_pod, &third[0]];
    for to in WORLD {
        let listener = lab.world.run(|| TcpListener::bind((to, 0)))?;
        let address = listener.local_addr()?;
        let mut open = Vec::new();
        let mut seen = BTreeSet::new();
        for index in 0..expected {
            let stream = connect(&pods[index % 3].namespace, address)
                .with_context(|| format!("connection {index} to {to}"))?;
            let (accepted, from) = listener.accept()?;
            ensure!(seen.insert(from), "{from} twice");
            open.push((stream, accepted));
        }
        let ports: BTreeSet<u16> = seen.iter().map(SocketAddr::port).collect();
        ensure!(
            ports.len() == 100
                && ports.first() == Some(&FIRST)
                && ports.last() == Some(&(FIRST + 99)),
            "{ports:?}"
        );
        let before = lab.refusals(DropReason::NatPortsExhausted)?;
        for pod in pods {
            let started = Instant::now();
            let refused = connect(&pod.namespace, address);
            let error = refused.err().context("one connection too many")?;
            ensure!(
                error.raw_os_error() == Some(libc::EHOSTUNREACH)
                    && started.elapsed() < Duration::from_secs(5),
                "{error} after {:?}",
                started.elapsed()
            );
        }
        let refused = lab.refusals(DropReason::NatPortsExhausted)?;
        // Linux does not take an error while it is still busy with connect(2), and asks once more.
        ensure!((3..=6).contains(&(refused - before)), "{refused}");
        // UDP has ports of its own.
        let server = EchoServer::start(&lab.world, SocketAddr::new(to, 0))?;
        echo(
            &udp_socket(&pods[0].namespace, to.is_ipv4(), 0)?,
            server.address,
            10,
        )?;
    }
    lab.witness.saw_nobody_else()
}

#[test]
fn all_ports_of_an_address_are_used_and_then_senders_are_told() -> Result<()> {
    exhaust([vec![EGRESS_V4.into()], vec![EGRESS_V6.into()]], 100)
}

#[test]
fn the_ports_of_a_second_address_come_after_those_of_the_first() -> Result<()> {
    exhaust(
        [
            vec![EGRESS_V4.into(), SECOND_V4.into()],
            vec![EGRESS_V6.into(), SECOND_V6.into()],
        ],
        200,
    )
}

#[test]
fn a_port_is_kept_where_it_is_free_and_in_the_range() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    for to in WORLD {
        let server = EchoServer::start(&lab.world, SocketAddr::new(to, 0))?;
        for (pod, port) in [
            (&lab.pod, 40_000),
            (&lab.gateway_pod, 40_000),
            (&lab.pod, 1_000),
            // The tunnel's: what came back to it would not be looked at.
            (&lab.pod, 4_789),
        ] {
            echo(
                &udp_socket(&pod.namespace, to.is_ipv4(), port)?,
                server.address,
                10,
            )?;
        }
    }
    let mappings = lab.mappings()?;
    for (port, version_4) in [
        (40_000, true),
        (1_000, true),
        (40_000, false),
        (1_000, false),
        (4_789, true),
        (4_789, false),
    ] {
        let kept = mappings
            .iter()
            .filter(|one| one.pod.port() == port && one.pod.is_ipv4() == version_4)
            .filter(|one| one.egress.port() == port)
            .count();
        ensure!(kept == usize::from(port == 40_000), "{port}: {mappings:?}");
    }
    ensure!(
        mappings.iter().all(|one| one.egress.port() >= 1024),
        "{mappings:?}"
    );
    Ok(())
}

#[test]
fn a_range_is_filled_to_the_last_hundredth_without_a_failure() -> Result<()> {
    const PORTS: u16 = 10_000;
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    let pods: Vec<_> = (10..20).map(|n| lab.add_pod(n)).collect::<Result<_>>()?;
    lab.set_rules([(RULE, rule(vec![EGRESS_V4.into()], PORTS))].into())?;
    lab.select_set(&[("0.0.0.0/0", EgressWay::Through(RULE))], None, &pods)?;
    let sink = lab.world.run(|| UdpSocket::bind((WORLD_V4, 0)))?;
    let to = sink.local_addr()?;
    let flows = u32::from(PORTS) * 99 / 100;
    for index in 0..flows {
        // Below the range, so that none is kept.
        let port = 1_100 + (index / 10) as u16;
        let pod = &pods[index as usize % 10];
        udp_socket(&pod.namespace, true, port)?.send_to(b"x", to)?;
    }
    let rules = || lab.gateway_node.run(|| lab.gateway.rules());
    wait_for("all of them", || {
        let opened = rules()?[0].traffic.opened;
        ensure!(opened == u64::from(flows), "{opened}");
        Ok(())
    })?;
    ensure!(rules()?[0].refusals.is_empty(), "{:?}", rules()?);
    let ports: BTreeSet<_> = lab.mappings()?.iter().map(|one| one.egress).collect();
    ensure!(ports.len() as u32 == flows, "{}", ports.len());
    Ok(())
}

#[test]
fn a_full_table_refuses_and_leaves_no_halves() -> Result<()> {
    let mut lab = EgressLab::build_for(HookChoice::Auto, 128)?;
    lab.set_up()?;
    let server = EchoServer::start(&lab.world, SocketAddr::new(WORLD_V4.into(), 0))?;
    let mut refused = 0;
    let mut sockets = Vec::new();
    for _ in 0..200 {
        let socket = udp_socket(&lab.pod.namespace, true, 0)?;
        hear_errors(&socket)?;
        socket.connect(server.address)?;
        socket.send(b"x")?;
        let outcome = wait_for("an answer or a refusal", || {
            match socket.recv(&mut [0; 8]) {
                Ok(_) => Ok(true),
                Err(error) if error.raw_os_error() == Some(libc::EHOSTUNREACH) => Ok(false),
                Err(error) => {
                    socket.send(b"x")?;
                    Err(error.into())
                }
            }
        })?;
        refused += usize::from(!outcome);
        sockets.push((socket, outcome));
    }
    let mappings = lab.mappings()?;
    ensure!(
        (100..=128).contains(&mappings.len()),
        "{} mappings",
        mappings.len()
    );
    ensure!(
        refused == 200 - mappings.len(),
        "{refused} of {}",
        mappings.len()
    );
    ensure!(lab.refusals(DropReason::NatTableFull)? >= refused as u64);
    // Those that are there go on.
    for (socket, _) in sockets.iter().filter(|(_, is_open)| *is_open) {
        socket.send(b"y")?;
        wait_for("an answer", || Ok(socket.recv(&mut [0; 8])?))?;
    }
    let swept = lab.sweep()?;
    ensure!(swept.halves == 0 && swept.removed == 0, "{swept:?}");
    ensure!(swept.live[&RULE] as usize == mappings.len(), "{swept:?}");
    lab.witness.saw_nobody_else()
}

/// A host of the world that was not asked.
const THIRD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);

fn third_party(is_udp_endpoint_independent: bool) -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    let rule = GatewayRule {
        is_udp_endpoint_independent,
        ..EgressLab::rule()
    };
    lab.set_rules([(RULE, rule)].into())?;
    lab.select(EgressWay::Through(RULE))?;
    let (third_v4, third_v6) = (IpAddr::from(THIRD), "2001:db8:100::11".parse::<IpAddr>()?);
    lab.world.ip(&format!("addr add {third_v4}/24 dev eth0"))?;
    lab.world
        .ip(&format!("addr add {third_v6}/64 dev eth0 nodad"))?;
    for (to, third) in WORLD.into_iter().zip([third_v4, third_v6]) {
        let world = |address| {
            lab.world
                .run(|| UdpSocket::bind(SocketAddr::new(address, 0)))
        };
        for pod in [&lab.pod, &lab.gateway_pod] {
            let (one, two, three) = (world(to)?, world(to)?, world(third)?);
            // Below the range: what it gets is not what it has.
            let socket = udp_socket(&pod.namespace, to.is_ipv4(), 1_000)?;
            let mut seen = Vec::new();
            for world in [&one, &two] {
                world.set_read_timeout(Some(Duration::from_millis(300)))?;
                seen.push(wait_for("a datagram", || {
                    socket.send_to(b"x", world.local_addr()?)?;
                    Ok(world.recv_from(&mut [0; 8])?.1)
                })?);
            }
            three.send_to(b"from a third party", seen[0])?;
            one.send_to(b"last", seen[0])?;
            let mut heard = Vec::new();
            while !heard.contains(&one.local_addr()?) {
                heard.push(wait_for("an answer", || {
                    Ok(socket.recv_from(&mut [0; 32])?.1)
                })?);
            }
            ensure!(
                (seen[0] == seen[1]) == is_udp_endpoint_independent,
                "{seen:?}"
            );
            ensure!(
                heard.contains(&three.local_addr()?) == is_udp_endpoint_independent,
                "{heard:?}"
            );
            if is_udp_endpoint_independent {
                // Once the socket is gone, the third party is told so.
                drop(socket);
                three.connect(seen[0])?;
                three.set_read_timeout(Some(Duration::from_millis(300)))?;
                wait_for("an error", || {
                    let told = three.send(b"x").and_then(|_| three.recv(&mut [0; 8]));
                    let code = told.err().and_then(|error| error.raw_os_error());
                    ensure!(code == Some(libc::ECONNREFUSED), "{code:?}");
                    Ok(())
                })?;
            }
        }
    }
    lab.witness.saw_nobody_else()
}

#[test]
fn a_socket_that_keeps_its_port_hears_third_parties() -> Result<()> {
    third_party(true)
}

#[test]
fn other_sockets_hear_who_they_asked() -> Result<()> {
    third_party(false)
}
