// SPDX-License-Identifier: Apache-2.0
//! Datagrams in pieces.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use bpf_loader::{DropReason, HookChoice};
use bpf_tests::{
    egress::{EgressLab, WORLD_V4},
    packet::{UDP, ipv4, send_from},
    traffic::{EchoServer, echo, udp_socket, wait_for},
};

use crate::WORLD;

fn large_datagrams(hook: HookChoice) -> Result<()> {
    let mut lab = EgressLab::build(hook)?;
    lab.set_up()?;
    for to in WORLD {
        let server = EchoServer::start(&lab.world, SocketAddr::new(to, 0))?;
        for pod in [&lab.pod, &lab.gateway_pod] {
            let socket = udp_socket(&pod.namespace, to.is_ipv4(), 0)?;
            // Small first: the answers in pieces to come belong to a connection that is known.
            echo(&socket, server.address, 100)?;
            for bytes in [4_000, 60_000, 1_480, 1_472, 1_452, 9_001] {
                echo(&socket, server.address, bytes)?;
            }
        }
    }
    ensure!(lab.refusals(DropReason::NatOrphanFragment)? == 0);
    lab.witness.saw_nobody_else()
}

#[test]
fn large_datagrams_go_both_ways() -> Result<()> {
    large_datagrams(HookChoice::Auto)
}

#[test]
fn large_datagrams_go_both_ways_with_clsact() -> Result<()> {
    large_datagrams(HookChoice::Clsact)
}

#[test]
fn a_small_request_may_be_answered_in_pieces_and_large_ones_follow() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    for to in WORLD {
        let server = lab
            .world
            .run(|| std::net::UdpSocket::bind(SocketAddr::new(to, 0)))?;
        for pod in [&lab.pod, &lab.gateway_pod] {
            let socket = udp_socket(&pod.namespace, to.is_ipv4(), 0)?;
            server.set_read_timeout(Some(std::time::Duration::from_millis(200)))?;
            let from = wait_for("a request", || {
                socket.send_to(b"please", server.local_addr()?)?;
                Ok(server.recv_from(&mut [0; 16])?.1)
            })?;
            wait_for("a large answer", || {
                server.send_to(&[7; 4_000], from)?;
                ensure!(socket.recv(&mut [0; 5_000])? == 4_000);
                Ok(())
            })?;
            wait_for("a large request", || {
                socket.send_to(&[8; 4_000], server.local_addr()?)?;
                ensure!(server.recv(&mut [0; 5_000])? == 4_000);
                Ok(())
            })?;
        }
    }
    lab.witness.saw_nobody_else()
}

#[test]
fn a_fragment_without_its_first_one_is_refused() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    let before = lab.refusals(DropReason::NatOrphanFragment)?;
    // Offset 1480, the last one.
    let orphan = ipv4(
        lab.pod.v4.into(),
        IpAddr::V4(WORLD_V4),
        UDP,
        &[],
        [0x12, 0x34, 0, 185],
        &[0x5a; 64],
    );
    send_from(&lab.pod, &orphan)?;
    let mut later = vec![UDP, 0, 0x05, 0xc8, 1, 2, 3, 4];
    later.extend([0x5a; 64]);
    let orphan = bpf_tests::packet::ip(
        lab.pod.v6.into(),
        bpf_tests::egress::WORLD_V6.into(),
        44,
        &later,
    );
    send_from(&lab.pod, &orphan)?;
    wait_for("the refusals", || {
        let now = lab.refusals(DropReason::NatOrphanFragment)?;
        ensure!(now == before + 2, "{now}");
        Ok(())
    })?;
    let rules = lab.gateway_node.run(|| lab.gateway.rules())?;
    ensure!(
        rules[0].refusals.len() == 1 && rules[0].refusals[0].packets == 2,
        "{rules:?}"
    );
    lab.witness.saw_nobody_else()
}
