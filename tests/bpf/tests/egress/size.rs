// SPDX-License-Identifier: Apache-2.0
//! What does not fit into the tunnel: who is told, and what gets through all the same.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bpf_loader::{DropReason, HookChoice};
use bpf_tests::{
    connection::Connection,
    egress::{EGRESS_V4, EGRESS_V6, EgressLab, TUNNEL_MTU, TUNNEL_MTU_V6, Tunnel},
    packet::{Capture, Caught, SCTP, TCP, UDP, ip, ipv4, send_all_from, send_from},
    pod::Pod,
    traffic::{
        EchoServer, Fate, PATIENCE, Probe, echo, hear_errors, leave_cutting_to_routers, never_cut,
        path_mtu, reach, send_in_segments, transfer, udp_socket, wait_for, who_said,
    },
};

use crate::{MEGABYTE, WORLD};

/// Both kinds of tunnel over a link of 1500 bytes.
const TUNNELS: [Tunnel; 2] = [
    Tunnel {
        is_over_ipv6: false,
        mtu: TUNNEL_MTU,
    },
    Tunnel {
        is_over_ipv6: true,
        mtu: TUNNEL_MTU_V6,
    },
];

const SHORT: Duration = Duration::from_millis(300);

fn lab(tunnel: Tunnel) -> Result<EgressLab> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_tunnel(tunnel)?;
    Ok(lab)
}

/// Runs with each kind of tunnel, of whose size nobody has heard yet.
fn with_each_tunnel(mut body: impl FnMut(&mut EgressLab, Tunnel) -> Result<()>) -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    for tunnel in TUNNELS {
        lab.set_tunnel(tunnel)?;
        forget(&lab)?;
        body(&mut lab, tunnel).with_context(|| format!("{tunnel:?}"))?;
    }
    lab.witness.saw_nobody_else()
}

/// Makes everybody forget what they were told.
fn forget(lab: &EgressLab) -> Result<()> {
    for at in [&lab.pod.namespace, &lab.world] {
        at.ip("-4 route flush cache")?;
        at.ip("-6 route flush cache")?;
    }
    Ok(())
}

/// How many packets were too large so far: at the pods' node and at the gateway.
fn too_large(lab: &EgressLab) -> Result<(u64, u64)> {
    let reason = DropReason::TooBig;
    Ok((lab.drops(reason)?, lab.refusals(reason)?))
}

/// What a UDP packet of so many bytes carries.
fn payload(of: u16, to: IpAddr) -> usize {
    usize::from(of) - if to.is_ipv4() { 28 } else { 48 }
}

/// A probe of so many bytes with its headers.
fn probe(bytes: u16, to: IpAddr, wait: Duration) -> Probe {
    Probe {
        bytes: payload(bytes, to),
        wait,
        ..Probe::default()
    }
}

/// The pods' router, as pods know it.
fn router(to: IpAddr) -> IpAddr {
    if to.is_ipv4() {
        Ipv4Addr::new(169, 254, 1, 1).into()
    } else {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into()
    }
}

fn egress(to: IpAddr) -> IpAddr {
    if to.is_ipv4() {
        EGRESS_V4.into()
    } else {
        EGRESS_V6.into()
    }
}

fn own(pod: &Pod, to: IpAddr) -> IpAddr {
    if to.is_ipv4() {
        pod.v4.into()
    } else {
        pod.v6.into()
    }
}

/// The MTU an error says, and what it quotes; everything in it must be right.
fn read_error(packet: &Caught) -> Result<Option<(u32, Caught)>> {
    let kind = match packet.protocol {
        1 => [3, 4],
        58 => [2, 0],
        _ => return Ok(None),
    };
    if packet.payload.get(..2) != Some(&kind) {
        return Ok(None);
    }
    let mtu = &packet.payload[4..8];
    let mtu = u32::from_be_bytes([mtu[0], mtu[1], mtu[2], mtu[3]]);
    let is_sum_right = match packet.protocol {
        1 => bpf_tests::packet::checksum(&packet.payload) == 0,
        _ => packet.is_transport_sum_right(),
    };
    ensure!(is_sum_right && packet.is_header_sum_right, "{packet:?}");
    let quoted = Caught::parse(&packet.payload[8..]).context("no packet is quoted")?;
    ensure!(quoted.is_header_sum_right, "{quoted:?}");
    Ok(Some((mtu, quoted)))
}

/// Waits for the error about a packet that is too large.
fn hear(capture: &Capture) -> Result<(Caught, u32, Caught)> {
    capture.find("an error", |packet| match read_error(packet) {
        Ok(None) => None,
        Ok(Some((mtu, quoted))) => Some(Ok((packet.clone(), mtu, quoted))),
        Err(error) => Some(Err(error)),
    })?
}

/// A socket of the world and one of a pod that have spoken to each other.
fn in_touch(lab: &EgressLab, pod: &Pod, to: IpAddr) -> Result<(UdpSocket, UdpSocket)> {
    let server = lab.world.run(|| UdpSocket::bind((to, 0)))?;
    server.set_read_timeout(Some(Duration::from_millis(200)))?;
    let socket = udp_socket(&pod.namespace, to.is_ipv4(), 0)?;
    socket.connect(server.local_addr()?)?;
    let from = wait_for("a request", || {
        socket.send(b"please")?;
        Ok(server.recv_from(&mut [0; 16])?.1)
    })?;
    server.connect(from)?;
    Ok((server, socket))
}

/// Sends until the kernel says that it is too large; what it believes in then.
fn refused_as_too_large(socket: &UdpSocket, bytes: usize) -> Result<u32> {
    wait_for("to be told", || {
        let told = socket.send(&vec![7; bytes]).and_then(|_| {
            // The error comes as the answer.
            socket.recv(&mut [0; 1])
        });
        let error = told.err().and_then(|error| error.raw_os_error());
        ensure!(error == Some(libc::EMSGSIZE), "{error:?}");
        path_mtu(socket)
    })
}

#[test]
fn a_pod_is_told_what_the_tunnel_takes_and_uses_it_to_the_full() -> Result<()> {
    with_each_tunnel(|lab, tunnel| {
        for to in WORLD {
            let before = too_large(lab)?;
            let capture = Capture::start(&lab.pod.namespace, "eth0")?;
            let ask = |bytes| probe(bytes, to, PATIENCE).ask(&lab.pod.namespace, to);
            let (fate, by) = ask(tunnel.mtu + 1)?;
            ensure!(
                fate == Fate::TooBig(tunnel.mtu.into()) && by == Some(router(to)),
                "{to}: {fate:?} by {by:?}"
            );
            let (error, _, quoted) = hear(&capture)?;
            ensure!(error.destination == own(&lab.pod, to), "{error:?}");
            ensure!(
                quoted.source == own(&lab.pod, to) && quoted.destination == to,
                "{quoted:?}"
            );
            let (fate, by) = ask(tunnel.mtu)?;
            ensure!(
                fate == Fate::Reached && by == Some(to),
                "{fate:?} by {by:?}"
            );
            // A pod of the gateway's node does not take the tunnel.
            let fate = probe(1_500, to, PATIENCE).send(&lab.gateway_pod.namespace, to)?;
            ensure!(fate == Fate::Reached, "{fate:?}");
            ensure!(too_large(lab)? == (before.0 + 1, before.1));
        }
        Ok(())
    })
}

#[test]
fn who_answers_is_told_what_the_tunnel_takes_in_words_it_knows() -> Result<()> {
    let tunnel = TUNNELS[1];
    let lab = lab(tunnel)?;
    for to in WORLD {
        let before = too_large(&lab)?;
        let (server, socket) = in_touch(&lab, &lab.pod, to)?;
        never_cut(&server)?;
        hear_errors(&server)?;
        let capture = Capture::start(&lab.world, "eth0")?;
        let mtu = refused_as_too_large(&server, payload(tunnel.mtu + 1, to))?;
        ensure!(mtu == u32::from(tunnel.mtu), "{to}: {mtu}");
        ensure!(who_said(&server) == Some(egress(to)));
        let (error, _, quoted) = hear(&capture)?;
        ensure!(
            error.source == egress(to) && error.destination == to,
            "{error:?}"
        );
        let ports = [server.local_addr()?.port(), server.peer_addr()?.port()];
        ensure!(
            quoted.source == to
                && quoted.destination == egress(to)
                && quoted.ports() == Some(ports),
            "{quoted:?}"
        );
        ensure!(too_large(&lab)? == (before.0, before.1 + 1));
        // What fits arrives.
        let bytes = payload(tunnel.mtu, to);
        server.send(&vec![7; bytes])?;
        socket.set_read_timeout(Some(PATIENCE))?;
        ensure!(socket.recv(&mut [0; 2_000])? == bytes);
    }
    lab.witness.saw_nobody_else()
}

/// Between them and the gateway may be a firewall that drops every error.
#[test]
fn who_answers_need_not_listen_where_nodes_have_ipv4() -> Result<()> {
    let lab = lab(TUNNELS[0])?;
    for to in WORLD {
        let (server, socket) = in_touch(&lab, &lab.pod, to)?;
        never_cut(&server)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        for bytes in [TUNNEL_MTU, TUNNEL_MTU + 1, 1_500].map(|bytes| payload(bytes, to)) {
            server.send(&vec![7; bytes])?;
            ensure!(socket.recv(&mut [0; 2_000])? == bytes);
        }
    }
    ensure!(too_large(&lab)? == (0, 0));
    lab.witness.saw_nobody_else()
}

#[test]
fn what_may_be_cut_is_cut_outside_the_tunnel_over_ipv4() -> Result<()> {
    let lab = lab(TUNNELS[0])?;
    let to = WORLD[0];
    let (server, socket) = in_touch(&lab, &lab.pod, to)?;
    for socket in [&server, &socket] {
        leave_cutting_to_routers(socket)?;
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    // In one piece up to the pod's own MTU, and in several.
    for bytes in [1_422, 1_423, 1_472, 1_473, 4_000] {
        let data = vec![7; bytes];
        let mut buffer = vec![0; 5_000];
        socket.send(&data)?;
        ensure!(server.recv(&mut buffer)? == bytes);
        server.send(&data)?;
        ensure!(socket.recv(&mut buffer)? == bytes);
    }
    ensure!(too_large(&lab)? == (0, 0));
    lab.witness.saw_nobody_else()
}

/// Over IPv6 the kernel cuts nothing: who may be cut is told as well, and most cut for themselves
/// then.
#[test]
fn what_may_be_cut_is_cut_by_its_sender_over_ipv6() -> Result<()> {
    let lab = lab(TUNNELS[1])?;
    for to in WORLD {
        let server = EchoServer::start(&lab.world, SocketAddr::new(to, 0))?;
        let socket = udp_socket(&lab.pod.namespace, to.is_ipv4(), 0)?;
        for bytes in [1_472, 100, 4_000, 60_000] {
            echo(&socket, server.address, bytes)?;
        }
    }
    // One that cuts nothing itself and does not listen.
    let (server, socket) = in_touch(&lab, &lab.pod, WORLD[0])?;
    leave_cutting_to_routers(&socket)?;
    leave_cutting_to_routers(&server)?;
    let before = too_large(&lab)?;
    let capture = Capture::start(&lab.pod.namespace, "eth0")?;
    socket.send(&[7; 1_450])?;
    let (_, mtu, _) = hear(&capture)?;
    ensure!(mtu == u32::from(TUNNEL_MTU_V6), "{mtu}");
    let capture = Capture::start(&lab.world, "eth0")?;
    server.send(&[7; 1_450])?;
    let (_, mtu, _) = hear(&capture)?;
    ensure!(mtu == u32::from(TUNNEL_MTU_V6), "{mtu}");
    ensure!(too_large(&lab)? == (before.0 + 1, before.1 + 1));
    lab.witness.saw_nobody_else()
}

#[test]
fn segments_that_fit_are_not_refused_for_what_they_are_together() -> Result<()> {
    with_each_tunnel(|lab, tunnel| {
        let before = too_large(lab)?;
        for to in WORLD {
            transfer(&lab.pod.namespace, &lab.world, to, 16 * MEGABYTE)?;
            let (server, socket) = in_touch(lab, &lab.pod, to)?;
            never_cut(&socket)?;
            hear_errors(&socket)?;
            let fits = payload(tunnel.mtu, to);
            server.set_read_timeout(Some(PATIENCE))?;
            send_in_segments(&socket, fits as i32)?;
            socket.send(&vec![7; 20 * fits])?;
            for _ in 0..20 {
                ensure!(server.recv(&mut [0; 2_000])? == fits);
            }
        }
        ensure!(too_large(lab)? == before);
        for to in WORLD {
            let before = too_large(lab)?;
            let (_server, socket) = in_touch(lab, &lab.pod, to)?;
            never_cut(&socket)?;
            hear_errors(&socket)?;
            let large = payload(tunnel.mtu + 1, to);
            send_in_segments(&socket, large as i32)?;
            let mtu = refused_as_too_large(&socket, 20 * large)?;
            ensure!(mtu == u32::from(tunnel.mtu), "{mtu}");
            ensure!(too_large(lab)? == (before.0 + 1, before.1));
        }
        Ok(())
    })
}

/// Segments were agreed on for a wider way, as when an option got lost.
#[test]
fn a_connection_whose_segments_are_too_large_goes_on() -> Result<()> {
    with_each_tunnel(|lab, tunnel| {
        let narrow = Tunnel {
            mtu: 1_300,
            ..tunnel
        };
        for is_turned in [false, true] {
            lab.set_tunnel(tunnel)?;
            forget(lab)?;
            let open = |to| Connection::open(&lab.pod.namespace, &lab.world, to);
            let connections = WORLD.map(open);
            lab.set_tunnel(narrow)?;
            let before = too_large(lab)?;
            for connection in connections {
                let mut connection = connection?;
                if is_turned {
                    connection = connection.turned();
                }
                connection.talk()?;
                connection.transfer_in_background(8 * MEGABYTE).finish()?;
            }
            let (at_node, at_gateway) = too_large(lab)?;
            let told = (at_node - before.0, at_gateway - before.1);
            let is_right = match (is_turned, tunnel.is_over_ipv6) {
                (false, _) => told.0 >= 2,
                (true, true) => told.1 >= 2,
                // Cut outside.
                (true, false) => told.1 == 0,
            };
            ensure!(is_right, "{told:?} were told");
        }
        Ok(())
    })
}

#[test]
fn ipv6_is_never_told_less_than_its_minimum() -> Result<()> {
    let [v4, v6] = WORLD;
    with_each_tunnel(|lab, tunnel| {
        lab.set_tunnel(Tunnel {
            mtu: 1_200,
            ..tunnel
        })?;
        let fate = probe(1_201, v4, PATIENCE).send(&lab.pod.namespace, v4)?;
        ensure!(fate == Fate::TooBig(1_200), "{fate:?}");
        let fate = probe(1_281, v6, PATIENCE).send(&lab.pod.namespace, v6)?;
        ensure!(fate == Fate::TooBig(1_280), "{fate:?}");
        let before = too_large(lab)?;
        if tunnel.is_over_ipv6 {
            // Nobody could send less, and nothing cuts it: the daemon says so.
            let fate = probe(1_280, v6, SHORT).send(&lab.pod.namespace, v6)?;
            ensure!(fate == Fate::Silence, "{fate:?}");
            ensure!(too_large(lab)? == (before.0 + 1, before.1));
        } else {
            let fate = probe(1_280, v6, PATIENCE).send(&lab.pod.namespace, v6)?;
            ensure!(fate == Fate::Reached, "{fate:?}");
        }
        Ok(())
    })
}

/// A packet of so many bytes that may not be cut.
fn whole(from: IpAddr, to: IpAddr, protocol: u8, head: &[u8], bytes: u16) -> Vec<u8> {
    let header = if from.is_ipv4() { 20 } else { 40 };
    let mut payload = head.to_vec();
    payload.resize(usize::from(bytes) - header, 0x5a);
    if from.is_ipv4() {
        ipv4(from, to, protocol, &[], [0x12, 0x34, 0x40, 0], &payload)
    } else {
        ip(from, to, protocol, &payload)
    }
}

#[test]
fn every_protocol_is_told_but_errors_and_later_fragments() -> Result<()> {
    let lab = lab(TUNNELS[1])?;
    let mut count = 0;
    for to in WORLD {
        let from = own(&lab.pod, to);
        let echo = if to.is_ipv4() { (1, 8) } else { (58, 128) };
        for (protocol, head) in [
            (UDP, vec![1, 2, 3, 4, 0, 0, 0, 0]),
            (TCP, vec![1, 2, 3, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10]),
            (echo.0, vec![echo.1, 0, 0, 0, 1, 2, 0, 1]),
            (SCTP, vec![1, 2, 3, 4, 5, 6, 7, 8]),
            (47, vec![0; 4]),
            // Refused by the gateway, but not before.
            (89, vec![0; 4]),
        ] {
            let capture = Capture::start(&lab.pod.namespace, "eth0")?;
            let packet = whole(from, to, protocol, &head, TUNNEL_MTU_V6 + 1);
            send_from(&lab.pod, &packet)?;
            let (error, mtu, quoted) = hear(&capture)?;
            ensure!(error.source == router(to) && error.destination == from);
            ensure!(mtu == u32::from(TUNNEL_MTU_V6), "{mtu}");
            ensure!(quoted.source == from && quoted.destination == to);
            ensure!(quoted.protocol == protocol);
            ensure!(
                quoted.payload.len() >= 8 && packet.ends_with(&[0x5a; 8]),
                "{quoted:?}"
            );
            ensure!(quoted.payload[..head.len().min(8)] == head[..head.len().min(8)]);
            count += 1;
            ensure!(lab.drops(DropReason::TooBig)? == count);
        }
        // An error, and a fragment that is not the first.
        let error = if to.is_ipv4() {
            whole(from, to, 1, &[3, 3, 0, 0], TUNNEL_MTU_V6 + 1)
        } else {
            whole(from, to, 58, &[1, 4, 0, 0], TUNNEL_MTU_V6 + 1)
        };
        let later = if to.is_ipv4() {
            ipv4(from, to, UDP, &[], [1, 2, 0x40, 100], &[7; 1_480])
        } else {
            whole(from, to, 44, &[UDP, 0, 1, 0, 1, 2, 3, 4], 1_500)
        };
        for packet in [error, later] {
            let capture = Capture::start(&lab.pod.namespace, "eth0")?;
            send_from(&lab.pod, &packet)?;
            count += 1;
            wait_for("the refusal", || {
                let now = lab.drops(DropReason::TooBig)?;
                ensure!(now == count, "{now} of {count}");
                Ok(())
            })?;
            // The next error the pod hears is about the next packet.
            let next = whole(from, to, UDP, &[9, 9, 9, 9], TUNNEL_MTU_V6 + 1);
            send_from(&lab.pod, &next)?;
            count += 1;
            let (_, _, quoted) = hear(&capture)?;
            ensure!(quoted.ports() == Some([0x909, 0x909]), "{quoted:?}");
        }
    }
    // A first fragment's ports are behind its header.
    let (from, to) = (lab.pod.v6.into(), WORLD[1]);
    let capture = Capture::start(&lab.pod.namespace, "eth0")?;
    let head = [UDP, 0, 0, 1, 1, 2, 3, 4, 9, 8, 7, 6, 0, 0, 0, 0];
    send_from(&lab.pod, &whole(from, to, 44, &head, 1_500))?;
    let (_, _, quoted) = hear(&capture)?;
    ensure!(quoted.payload.starts_with(&head), "{quoted:?}");
    ensure!(lab.mappings()?.is_empty());
    lab.witness.saw_nobody_else()
}

/// As the kernel's own: so many at once, and then about one in a millisecond, on each processor.
#[test]
fn errors_are_few_however_many_packets_are_too_large() -> Result<()> {
    const SENT: u64 = 4_000;
    let lab = lab(TUNNELS[0])?;
    let (from, to) = (lab.pod.v4.into(), WORLD[0]);
    let packet = whole(from, to, UDP, &[1, 2, 3, 4], TUNNEL_MTU + 1);
    let errors = || -> Result<u64> {
        let said = lab
            .pod
            .namespace
            .run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))?;
        // `Icmp:` names its columns, and `IcmpMsg:` counts by type.
        let lines: Vec<&str> = said.lines().filter(|l| l.starts_with("IcmpMsg:")).collect();
        let [names, counts] = lines.as_slice() else {
            return Ok(0);
        };
        let mut both = names.split_whitespace().zip(counts.split_whitespace());
        let found = both.find(|(name, _)| *name == "InType3");
        Ok(found.map_or(Ok(0), |(_, count)| count.parse())?)
    };
    let started = Instant::now();
    send_all_from(&lab.pod, (0..SENT).map(|_| packet.as_slice()))?;
    wait_for("all refusals", || {
        let now = lab.drops(DropReason::TooBig)?;
        ensure!(now == SENT, "{now}");
        Ok(())
    })?;
    // A step of the clock may be ten milliseconds.
    let milliseconds = started.elapsed().as_millis() as u64 + 10;
    let processors = std::thread::available_parallelism()?.get() as u64;
    let heard = errors()?;
    ensure!(
        heard >= 50 && heard <= processors * (50 + milliseconds),
        "{heard} errors in {milliseconds} ms"
    );
    lab.witness.saw_nobody_else()
}

#[test]
fn without_the_tunnel_the_wider_way_is_told() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    (lab.native.is_sent, lab.native.is_taken) = (true, true);
    lab.native.mtu = 1_470;
    lab.set_up()?;
    for to in WORLD {
        let fate = probe(1_471, to, PATIENCE).send(&lab.pod.namespace, to)?;
        ensure!(fate == Fate::TooBig(1_470), "{to}: {fate:?}");
        let fate = probe(1_470, to, PATIENCE).send(&lab.pod.namespace, to)?;
        ensure!(fate == Fate::Reached, "{to}: {fate:?}");
    }
    ensure!(lab.drops(DropReason::TooBig)? == 2);
    lab.witness.saw_nobody_else()
}

#[test]
fn who_answers_hears_of_a_narrow_link_to_the_pods() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    (lab.native.is_sent, lab.native.is_taken) = (true, true);
    lab.set_up()?;
    lab.gateway_node.ip("link set fab mtu 1300")?;
    for to in WORLD {
        let (server, socket) = in_touch(&lab, &lab.pod, to)?;
        never_cut(&server)?;
        hear_errors(&server)?;
        let mtu = refused_as_too_large(&server, payload(1_400, to))?;
        ensure!(mtu == 1_300, "{to}: {mtu}");
        ensure!(who_said(&server) == Some(egress(to)));
        let bytes = payload(1_300, to);
        server.send(&vec![7; bytes])?;
        socket.set_read_timeout(Some(PATIENCE))?;
        ensure!(socket.recv(&mut [0; 2_000])? == bytes);
    }
    ensure!(lab.refusals(DropReason::TooBig)? == 2);
    reach(&lab.pod.namespace, WORLD[0])?;
    lab.witness.saw_nobody_else()
}

#[test]
fn who_answers_hears_what_a_pod_of_the_gateway_takes() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    lab.set_gateway_pod_mtu(1_400)?;
    for to in WORLD {
        let (server, socket) = in_touch(&lab, &lab.gateway_pod, to)?;
        never_cut(&server)?;
        hear_errors(&server)?;
        let capture = Capture::start(&lab.world, "eth0")?;
        let mtu = refused_as_too_large(&server, payload(1_401, to))?;
        ensure!(mtu == 1_400, "{to}: {mtu}");
        let (error, _, quoted) = hear(&capture)?;
        ensure!(error.source == egress(to), "{error:?}");
        ensure!(quoted.destination == egress(to), "{quoted:?}");
        socket.set_read_timeout(Some(PATIENCE))?;
        for bytes in [payload(1_400, to), 4_000] {
            if to.is_ipv4() && bytes == 4_000 {
                leave_cutting_to_routers(&server)?;
            } else if bytes == 4_000 {
                continue;
            }
            server.send(&vec![7; bytes])?;
            ensure!(socket.recv(&mut [0; 5_000])? == bytes);
        }
    }
    ensure!(too_large(&lab)? == (0, 2));
    lab.witness.saw_nobody_else()
}
