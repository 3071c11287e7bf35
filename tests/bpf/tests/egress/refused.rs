// SPDX-License-Identifier: Apache-2.0
//! Packets nobody should send, and what becomes of them.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use bpf_loader::{DropReason, HookChoice};
use bpf_tests::{
    connection::Connection,
    egress::{EGRESS_V4, EGRESS_V6, EgressLab, RULE, WORLD_V4, WORLD_V6},
    packet::{Capture, Caught, SCTP, TCP, UDP, ip, ipv4, send_from, send_raw, udp},
    traffic::{EchoServer, echo, reach, udp_socket, wait_for},
};

/// The pod's node and the gateway's, to each other.
const NODE: &str = "192.0.2.1";
const GATEWAY: &str = "192.0.2.2";

/// A pod's address, the world's, and what the world sees.
fn ends(lab: &EgressLab) -> [(IpAddr, IpAddr, IpAddr); 2] {
    [
        (lab.pod.v4.into(), WORLD_V4.into(), EGRESS_V4.into()),
        (lab.pod.v6.into(), WORLD_V6.into(), EGRESS_V6.into()),
    ]
}

fn datagram(own: IpAddr, to: IpAddr, port: u16) -> Vec<u8> {
    udp(
        SocketAddr::new(own, port),
        SocketAddr::new(to, ANSWER_PORT),
        b"datagram",
    )
}

/// Waits for the world to see a packet of this protocol.
fn seen_by_world(capture: &Capture, protocol: u8, to: IpAddr) -> Result<Caught> {
    capture.find("a packet in the world", |packet| {
        (packet.protocol == protocol && packet.destination == to).then(|| packet.clone())
    })
}

#[test]
fn what_cannot_be_translated_is_refused_and_counted() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    let [(v4, world_v4, _), (v6, world_v6, _)] = ends(&lab);
    // A record-route option.
    let options = [7, 7, 4, 0, 0, 0, 0, 0];
    let optional = ipv4(
        v4,
        world_v4,
        UDP,
        &options,
        [0; 4],
        &datagram(v4, world_v4, 1),
    );
    // An extension header with nothing in it but padding, for each kind.
    let extended = |kind: u8| {
        let mut payload = vec![UDP, 0, 1, 4, 0, 0, 0, 0];
        payload.extend(datagram(v6, world_v6, 1));
        ip(v6, world_v6, kind, &payload)
    };
    for (packet, at_pods_node) in [
        (optional, true),
        (extended(0), true),
        (extended(43), false),
        (extended(60), false),
        (extended(51), false),
        (ip(v4, world_v4, 89, &[0; 32]), false),
        (ip(v6, world_v6, 89, &[0; 32]), false),
        (ip(v6, world_v6, 59, &[]), false),
        // Timestamp request, router renumbering: no echo and no error.
        (ip(v4, world_v4, 1, &[13, 0, 0, 0, 0, 0, 0, 0]), false),
        (ip(v6, world_v6, 58, &[138, 0, 0, 0, 0, 0, 0, 0]), false),
    ] {
        let count = || {
            if at_pods_node {
                lab.drops(DropReason::EgressUnsupported)
            } else {
                lab.refusals(DropReason::NatUnsupported)
            }
        };
        let before = count()?;
        send_from(&lab.pod, &packet)?;
        wait_for("the refusal", || {
            let now = count()?;
            ensure!(now == before + 1, "{now} of {packet:?}");
            Ok(())
        })?;
    }
    ensure!(lab.mappings()?.is_empty());
    // An error about no connection.
    let mut error = vec![3, 3, 0, 0, 0, 0, 0, 0];
    error.extend(ip(world_v4, v4, UDP, &datagram(world_v4, v4, 9)));
    send_from(&lab.pod, &ip(v4, world_v4, 1, &error))?;
    wait_for("the refusal", || {
        ensure!(lab.refusals(DropReason::NatUnrelated)? == 1);
        Ok(())
    })?;
    lab.witness.saw_nobody_else()
}

/// Packets with every length that is not theirs, and headers that say what is not so.
fn lying(from: SocketAddr, to: SocketAddr) -> Vec<Vec<u8>> {
    let mut segment = vec![0; 24];
    segment[..2].copy_from_slice(&from.port().to_be_bytes());
    segment[2..4].copy_from_slice(&to.port().to_be_bytes());
    // SYN, with a header that ends behind the packet.
    segment[12..14].copy_from_slice(&[0xf0, 0x02]);
    let (is_v4, end, other) = (from.is_ipv4(), from.ip(), to.ip());
    let icmp = if is_v4 { 1 } else { 58 };
    let mut error = vec![if is_v4 { 3 } else { 1 }, 0, 0, 0, 0, 0, 0, 0];
    error.extend(ip(other, end, UDP, &udp(to, from, b"quoted")));
    let mut packets = Vec::new();
    for (protocol, payload) in [
        (UDP, udp(from, to, b"datagram")),
        (TCP, segment),
        (icmp, error),
        (icmp, vec![if is_v4 { 8 } else { 128 }, 0, 0, 0, 1, 2, 0, 0]),
        (44, vec![UDP, 0, 0, 1, 1, 2, 3, 4]),
        (SCTP, vec![1, 2, 3, 4]),
    ] {
        let whole = ip(end, other, protocol, &payload);
        // Cut without the header's knowing it, and with its knowing it.
        packets.extend((1..=whole.len()).map(|length| whole[..length].to_vec()));
        let cut = 0..payload.len();
        packets.extend(cut.map(|length| ip(end, other, protocol, &payload[..length])));
        if is_v4 {
            // A first fragment without all of its ports, and every length of a header.
            packets.extend((0..payload.len().min(24)).map(|length| {
                let first = [0x77, length as u8, 0x20, 0];
                ipv4(end, other, protocol, &[], first, &payload[..length])
            }));
            packets.extend((0..16).map(|words| {
                let mut packet = whole.clone();
                packet[0] = 0x40 | words;
                packet
            }));
        }
    }
    packets
}

#[test]
fn lengths_that_lie_leak_nothing() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    let tunnel = lab.node.run(|| UdpSocket::bind((NODE, 0)))?;
    let gateway_mac = mac_of(&lab, "out")?;
    for (own, to, _) in ends(&lab) {
        // Connections that are there meanwhile.
        let mut connection = Connection::open(&lab.pod.namespace, &lab.world, to)?;
        let server = EchoServer::start(&lab.world, SocketAddr::new(to, 0))?;
        let socket = udp_socket(&lab.pod.namespace, to.is_ipv4(), 0)?;
        echo(&socket, server.address, 10)?;
        let end = socket.local_addr()?;
        let mappings = lab.mappings()?;
        let mapping = mappings.iter().find(|one| one.pod.port() == end.port());
        let egress = mapping.with_context(|| format!("{mappings:?}"))?.egress;

        // From the pod, from its node in the tunnel, and from the world as answers.
        let (from, at) = (SocketAddr::new(own, 5_000), SocketAddr::new(to, 80));
        for packet in lying(from, at) {
            send_from(&lab.pod, &packet)?;
        }
        let before = lab.refusals(DropReason::Truncated)?;
        for packet in lying(from, at) {
            tunnel.send_to(&encapsulated(RULE, &packet), (GATEWAY, 4789))?;
        }
        wait_for("the gateway to refuse some", || {
            let refused = lab.refusals(DropReason::Truncated)?;
            ensure!(refused > before + 20, "{before} before, {refused} now");
            Ok(())
        })?;
        for packet in lying(server.address, egress) {
            send_raw(&lab.world, "eth0", gateway_mac, &packet)?;
        }

        // After all of that connections are as ever, new ones and those that were there.
        reach(&lab.pod.namespace, to)?;
        connection.talk()?;
        connection.talk_back()?;
        echo(&socket, server.address, 4_000)?;
        let mappings = lab.mappings()?;
        let mut of_socket = mappings.iter().filter(|one| one.egress == egress);
        let same = of_socket.next().with_context(|| format!("{mappings:?}"))?;
        ensure!(same.pod == SocketAddr::new(own, end.port()), "{same:?}");
    }
    lab.witness.saw_nobody_else()
}

#[test]
fn checksums_stay_unset_wrong_or_right() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    for (own, to, egress) in ends(&lab) {
        let right = datagram(own, to, 1_000);
        let mut wrong = datagram(own, to, 1_001);
        wrong[6] ^= 0x55;
        let mut unset = datagram(own, to, 1_002);
        unset[6..8].copy_from_slice(&[0, 0]);
        for (payload, kind) in [(right, "right"), (wrong, "wrong"), (unset, "unset")] {
            let capture = Capture::start(&lab.world, "eth0")?;
            send_from(&lab.pod, &ip(own, to, UDP, &payload))?;
            let seen = seen_by_world(&capture, UDP, to)?;
            ensure!(
                seen.source == egress && seen.is_header_sum_right,
                "{seen:?}"
            );
            ensure!(
                seen.is_transport_sum_right() == (kind == "right"),
                "{kind}: {seen:?}"
            );
            let is_unset = seen.payload[6..8] == [0, 0];
            ensure!(is_unset == (kind == "unset"), "{kind}: {seen:?}");
            // And back.
            let [port, _] = seen.ports().unwrap_or_default();
            let mut answer = udp(
                SocketAddr::new(to, 7),
                SocketAddr::new(egress, port),
                b"answer",
            );
            match kind {
                "wrong" => answer[6] ^= 0x55,
                "unset" => answer[6..8].copy_from_slice(&[0, 0]),
                _ => {}
            }
            let capture = Capture::start(&lab.pod.namespace, "eth0")?;
            let gateway_mac = mac_of(&lab, "out")?;
            send_raw(
                &lab.world,
                "eth0",
                gateway_mac,
                &ip(to, egress, UDP, &answer),
            )?;
            let heard = capture.find("the answer", |packet| {
                (packet.protocol == UDP && packet.destination == own).then(|| packet.clone())
            })?;
            ensure!(heard.source == to && heard.is_header_sum_right, "{heard:?}");
            ensure!(
                heard.is_transport_sum_right() == (kind == "right"),
                "{kind}: {heard:?}"
            );
            let is_unset = heard.payload[6..8] == [0, 0];
            ensure!(is_unset == (kind == "unset"), "{kind}: {heard:?}");
        }
    }
    lab.witness.saw_nobody_else()
}

pub(crate) fn mac_of(lab: &EgressLab, device: &str) -> Result<bpf_loader::MacAddr> {
    let shown = lab
        .gateway_node
        .output(&format!("ip -br link show dev {device}"))?;
    let text = String::from_utf8(shown.stdout)?;
    let word = text.split_whitespace().nth(2).unwrap_or_default();
    Ok(word.parse()?)
}

#[test]
fn protocols_without_ports_are_translated_by_addresses() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    for (own, to, egress) in ends(&lab) {
        for protocol in [SCTP, 47, 50] {
            let capture = Capture::start(&lab.world, "eth0")?;
            let payload: Vec<u8> = (0..64).collect();
            send_from(&lab.pod, &ip(own, to, protocol, &payload))?;
            let seen = seen_by_world(&capture, protocol, to)?;
            ensure!(seen.source == egress && seen.payload == payload, "{seen:?}");
            let capture = Capture::start(&lab.pod.namespace, "eth0")?;
            let answer = ip(to, egress, protocol, &payload);
            send_raw(&lab.world, "eth0", mac_of(&lab, "out")?, &answer)?;
            let heard = capture.find("the answer", |packet| {
                (packet.protocol == protocol && packet.destination == own).then(|| packet.clone())
            })?;
            ensure!(heard.source == to && heard.payload == payload, "{heard:?}");
        }
    }
    lab.witness.saw_nobody_else()
}

/// A packet in the tunnel.
fn encapsulated(identifier: u32, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![8, 0, 0, 0];
    frame.extend((identifier << 8).to_be_bytes());
    frame.extend([2, 0xca, 5, 0xe0, 0, 1, 2, 0xca, 5, 0xe0, 0, 2]);
    frame.extend(if packet[0] >> 4 == 4 {
        [8, 0]
    } else {
        [0x86, 0xdd]
    });
    frame.extend(packet);
    frame
}

#[test]
fn tunnel_packets_of_strangers_go_nowhere() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    lab.world.ip("route add 192.0.2.0/30 via 198.51.100.1")?;
    let stranger = lab.world.run(|| UdpSocket::bind((WORLD_V4, 0)))?;
    for (own, to, _) in ends(&lab) {
        for (index, (identifier, reason)) in [
            (RULE, DropReason::NatUnknownNode),
            (RULE + 77, DropReason::NatUnknownRule),
            (0, DropReason::NatUnknownRule),
        ]
        .into_iter()
        .enumerate()
        {
            let packet = ip(own, to, UDP, &datagram(own, to, 3_000 + index as u16));
            let before = lab.refusals(reason)?;
            stranger.send_to(&encapsulated(identifier, &packet), ("198.51.100.1", 4789))?;
            wait_for("the refusal", || {
                let now = lab.refusals(reason)?;
                ensure!(now == before + 1, "{reason}: {now}");
                Ok(())
            })?;
        }
        // As if it were an answer, to a gateway's node and to another, where no pod is.
        let packet = ip(own, to, UDP, &datagram(own, to, 4_000));
        let drops = || {
            let here = lab.gateway_node.run(|| lab.gateway_datapath.drops())?;
            let here = here
                .iter()
                .find(|drop| drop.reason == DropReason::TunnelFailed);
            anyhow::Ok([
                here.map_or(0, |drop| drop.packets),
                lab.drops(DropReason::TunnelFailed)?,
            ])
        };
        let before = drops()?;
        stranger.send_to(&encapsulated(1, &packet), ("198.51.100.1", 4789))?;
        stranger.send_to(&encapsulated(1, &packet), ("192.0.2.1", 4789))?;
        stranger.send_to(&encapsulated(RULE, &packet), ("192.0.2.1", 4789))?;
        wait_for("the refusals", || {
            let now = drops()?;
            ensure!(now == [before[0] + 1, before[1] + 2], "{before:?} {now:?}");
            Ok(())
        })?;
    }
    ensure!(lab.mappings()?.is_empty());
    lab.witness.saw_nobody_else()
}

/// Where [`datagram`] goes.
const ANSWER_PORT: u16 = 7;

#[test]
fn a_pod_cannot_speak_for_the_tunnel() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    let (forger, victim) = (lab.pod.v4, lab.other_pod.v4);
    let socket = lab.pod.namespace.run(|| UdpSocket::bind((forger, 0)))?;
    let ear = lab
        .other_pod
        .namespace
        .run(|| UdpSocket::bind((victim, ANSWER_PORT)))?;
    // An answer the gateway never sent, to a pod of the same node.
    let forged = ip(
        WORLD_V4.into(),
        victim.into(),
        UDP,
        &datagram(WORLD_V4.into(), victim.into(), 3_000),
    );
    let before = lab.drops(DropReason::TunnelFailed)?;
    socket.send_to(&encapsulated(1, &forged), ("192.0.2.1", 4789))?;
    wait_for("the refusal", || {
        let now = lab.drops(DropReason::TunnelFailed)?;
        ensure!(now == before + 1, "{now}");
        Ok(())
    })?;
    ear.set_nonblocking(true)?;
    ensure!(ear.recv(&mut [0; 64]).is_err(), "the forged answer arrived");
    Ok(())
}
