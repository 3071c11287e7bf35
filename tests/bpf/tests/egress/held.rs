// SPDX-License-Identifier: Apache-2.0
//! Addresses that nobody but pods has: what strangers learn of them, and what becomes of a connection
//! whose gateway does not know it for a while.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use bpf_loader::{DropReason, HookChoice, Service};
use bpf_tests::{
    egress::{EGRESS_V4, EGRESS_V6, EgressLab, RULE},
    traffic::{ping, reach, udp_socket, wait_for},
};

use crate::WORLD;

const HELD: [IpAddr; 2] = [IpAddr::V4(EGRESS_V4), IpAddr::V6(EGRESS_V6)];

/// A port nobody listens at.
const PORT: u16 = 9;

/// Enough for the kernel to say that nobody is there.
const PATIENCE: Duration = Duration::from_millis(300);

/// What a call from the world by TCP and one by UDP come to.
fn calls(lab: &EgressLab, to: IpAddr) -> Result<[ErrorKind; 2]> {
    let target = SocketAddr::new(to, PORT);
    let connected = lab
        .world
        .run(|| TcpStream::connect_timeout(&target, PATIENCE));
    let Err(refused) = connected else {
        bail!("somebody listens at {target}");
    };
    let socket = udp_socket(&lab.world, to.is_ipv4(), 0)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(target)?;
    socket.send(b"is there anybody?")?;
    let Err(unheard) = socket.recv(&mut [0; 16]) else {
        bail!("somebody answers at {target}");
    };
    Ok([refused.kind(), unheard.kind()])
}

#[test]
fn strangers_hear_nothing_of_an_address_but_its_echo() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    let told = [ErrorKind::ConnectionRefused; 2];
    let untold = [ErrorKind::TimedOut, ErrorKind::WouldBlock];
    for address in HELD {
        let heard = calls(&lab, address)?;
        ensure!(heard == told, "of a node's own address: {heard:?}");
    }
    ensure!(lab.refusals(DropReason::NatUnsolicited)? == 0);
    lab.gateway.sync_held(HELD.into_iter())?;
    // Who adopts the gateway's maps need not say it again.
    lab.restart_gateway()?;
    for (address, world) in HELD.into_iter().zip(WORLD) {
        let before = lab.refusals(DropReason::NatUnsolicited)?;
        let heard = calls(&lab, address)?;
        ensure!(heard == untold, "of a held address: {heard:?}");
        let refused = lab.refusals(DropReason::NatUnsolicited)?;
        ensure!(refused >= before + 2, "{before} refused, then {refused}");
        ping(&lab.world, address, 7)?;
        reach(&lab.pod.namespace, world)?;
    }
    lab.gateway.sync_held([HELD[1]].into_iter())?;
    ensure!(calls(&lab, HELD[0])? == told && calls(&lab, HELD[1])? == untold);
    lab.gateway.sync_held(std::iter::empty())?;
    ensure!(calls(&lab, HELD[1])? == told);
    Ok(())
}

#[test]
fn what_is_served_at_a_held_address_is_the_kernels() -> Result<()> {
    const SERVICE: u16 = 443;
    let [tcp, udp] = [6, 17].map(|protocol| Service {
        protocol,
        port: SERVICE,
    });
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    lab.gateway.sync_held(HELD.into_iter())?;
    let both = HELD.map(|address| [(address, tcp), (address, udp)]);
    lab.gateway.sync_served(both.into_iter().flatten())?;
    // Who adopts the gateway's maps need not say it again.
    lab.restart_gateway()?;
    for (address, world) in HELD.into_iter().zip(WORLD) {
        let target = SocketAddr::new(address, SERVICE);
        let listener = lab.gateway_node.run(|| TcpListener::bind(target))?;
        let mut here = lab.world.run(|| TcpStream::connect(target))?;
        let (mut there, _) = listener.accept()?;
        here.write_all(b"hello")?;
        there.set_read_timeout(Some(Duration::from_secs(60)))?;
        there.read_exact(&mut [0; 5])?;
        let served = lab.gateway_node.run(|| UdpSocket::bind(target))?;
        served.set_read_timeout(Some(Duration::from_secs(60)))?;
        let asking = udp_socket(&lab.world, address.is_ipv4(), 0)?;
        asking.send_to(b"hello", target)?;
        served.recv(&mut [0; 16])?;

        // All others are refused as before, and pods leave under the address.
        let untold = [ErrorKind::TimedOut, ErrorKind::WouldBlock];
        ensure!(calls(&lab, address)? == untold);
        reach(&lab.pod.namespace, world)?;
        lab.gateway.sync_served([(address, udp)].into_iter())?;
        let before = lab.refusals(DropReason::NatUnsolicited)?;
        here.write_all(b"still there?")?;
        wait_for("the word to be refused", || {
            ensure!(lab.refusals(DropReason::NatUnsolicited)? > before);
            Ok(())
        })?;
        lab.gateway.sync_served(both.into_iter().flatten())?;
    }
    lab.witness.saw_nobody_else()
}

#[test]
fn a_connection_that_its_gateway_forgets_goes_on_when_the_pod_speaks() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    lab.gateway.sync_held(HELD.into_iter())?;
    let rules: BTreeMap<_, _> = [(RULE, EgressLab::rule())].into();
    for world in WORLD {
        let listener = lab.world.run(|| TcpListener::bind((world, 0)))?;
        let target = listener.local_addr()?;
        let mut here = lab.pod.namespace.run(|| TcpStream::connect(target))?;
        let (mut there, _) = listener.accept()?;
        lab.set_rules(BTreeMap::new())?;
        lab.sweep()?;
        ensure!(lab.mappings()?.is_empty());
        let before = lab.refusals(DropReason::NatUnsolicited)?;
        there.write_all(b"still there?")?;
        wait_for("the server's word to come", || {
            ensure!(lab.refusals(DropReason::NatUnsolicited)? > before);
            Ok(())
        })?;
        lab.set_rules(rules.clone())?;
        here.write_all(b"yes")?;
        let (mut answer, mut question) = ([0; 3], [0; 12]);
        there.set_read_timeout(Some(Duration::from_secs(60)))?;
        there.read_exact(&mut answer)?;
        here.set_read_timeout(Some(Duration::from_secs(60)))?;
        here.read_exact(&mut question)?;
        ensure!(&question == b"still there?" && &answer == b"yes");
    }
    lab.witness.saw_nobody_else()
}
