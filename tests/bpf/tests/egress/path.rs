// SPDX-License-Identifier: Apache-2.0
//! How large packets may be on the way.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
};

use anyhow::{Result, ensure};
use bpf_loader::HookChoice;
use bpf_tests::{
    egress::{BEYOND_V4, BEYOND_V6, EgressLab, RULE, TUNNEL_MTU},
    namespace::Namespace,
    packet::{Capture, TCP},
    pod::Pod,
    traffic::{
        EchoServer, Fate, Probe, echo, leave_cutting_to_routers, reach, transfer, udp_socket,
    },
};

use crate::{MEGABYTE, WORLD};

const LARGE: Probe = Probe {
    source: None,
    bytes: 1_400,
    ttl: 64,
    wait: std::time::Duration::from_secs(10),
};

fn all_fits(pod: &Pod, there: &Namespace, to: IpAddr) -> Result<()> {
    reach(&pod.namespace, to)?;
    // TCP finds out by itself, and then forgets.
    transfer(&pod.namespace, there, to, 8 * MEGABYTE)?;
    let family = if to.is_ipv4() { "-4" } else { "-6" };
    pod.namespace.ip(&format!("{family} route flush cache"))?;
    let fate = LARGE.send(&pod.namespace, to)?;
    ensure!(fate == Fate::TooBig(1_300), "{to}: {fate:?}");
    download(&pod.namespace, there, to, 8 * MEGABYTE)?;
    // What may be cut is cut.
    let server = EchoServer::start(there, SocketAddr::new(to, 0))?;
    let socket = udp_socket(&pod.namespace, to.is_ipv4(), 0)?;
    echo(&socket, server.address, 1_400)?;
    echo(&socket, server.address, 4_000)?;
    if to.is_ipv4() {
        leave_cutting_to_routers(&socket)?;
        echo(&socket, server.address, 1_400)?;
        echo(&socket, server.address, 4_000)?;
    }
    Ok(())
}

/// Takes so many bytes from there.
fn download(from: &Namespace, there: &Namespace, to: IpAddr, bytes: usize) -> Result<()> {
    let listener = there.run(|| TcpListener::bind(SocketAddr::new(to, 0)))?;
    let target = listener.local_addr()?;
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || -> Result<()> {
            let (mut stream, _) = listener.accept()?;
            stream.write_all(&vec![0x5a; bytes])?;
            Ok(())
        });
        let mut stream =
            from.run(|| TcpStream::connect_timeout(&target, bpf_tests::traffic::PATIENCE))?;
        stream.set_read_timeout(Some(bpf_tests::traffic::PATIENCE))?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        ensure!(all.len() == bytes, "{} of {bytes}", all.len());
        sender
            .join()
            .map_err(|_| anyhow::anyhow!("the sender panicked"))?
    })
}

#[test]
fn a_narrow_link_behind_the_gateway_is_told_to_pods_and_used_to_the_full() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.gateway_node.ip("link set out mtu 1300")?;
    lab.world.ip("link set eth0 mtu 1300")?;
    // What the kernel cuts for the gateway carries no mark of the gateway's.
    lab.gateway_node
        .ip(&format!("rule add fwmark {RULE} unreachable"))?;
    lab.set_up()?;
    for to in WORLD {
        for pod in [&lab.pod, &lab.gateway_pod] {
            all_fits(pod, &lab.world, to)?;
        }
    }
    lab.witness.saw_nobody_else()
}

#[test]
fn a_narrow_link_further_behind_as_well() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    let beyond = lab.add_beyond(1_300)?;
    for to in [IpAddr::from(BEYOND_V4), BEYOND_V6.into()] {
        for pod in [&lab.pod, &lab.gateway_pod] {
            all_fits(pod, &beyond, to)?;
        }
    }
    lab.witness.saw_nobody_else()
}

#[test]
fn both_ends_of_tcp_are_told_segments_that_fit_into_the_tunnel() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    for to in WORLD {
        let expected = TUNNEL_MTU - if to.is_ipv4() { 40 } else { 60 };
        let captures = [
            Capture::start(&lab.pod.namespace, "eth0")?,
            Capture::start(&lab.world, "eth0")?,
        ];
        transfer(&lab.pod.namespace, &lab.world, to, 1)?;
        for (capture, flags) in captures.iter().zip([0x12, 0x02]) {
            let (segment_bytes, is_right) = capture.find("a SYN", |packet| {
                let segment = &packet.payload;
                (packet.protocol == TCP && segment[13] & 0x12 == flags && segment[20] == 2).then(
                    || {
                        let bytes = u16::from_be_bytes([segment[22], segment[23]]);
                        (bytes, packet.source == to || flags == 0x02)
                    },
                )
            })?;
            ensure!(is_right && segment_bytes == expected, "{segment_bytes}");
        }
    }
    lab.witness.saw_nobody_else()
}
