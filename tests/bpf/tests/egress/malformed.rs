// SPDX-License-Identifier: Apache-2.0
//! Packets with every wrong length and every wrong checksum: they leak nothing, leave no half of a
//! mapping, are counted each, and nobody makes a wrong checksum right.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use bpf_loader::{DropReason, HookChoice};
use bpf_tests::{
    egress::{EGRESS_V4, EGRESS_V6, EgressLab, WORLD_V4, WORLD_V6, Witness},
    packet::{
        Capture, Caught, SCTP, TCP, UDP, checksum, ip, ipv4, send_all, send_all_from,
        transport_checksum,
    },
    pod::Pod,
    traffic::{EchoServer, echo, reach, udp_socket, wait_for},
};

use crate::{WORLD, refused::mac_of};

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Udp,
    Tcp,
    Echo,
    /// An ICMP error about a UDP packet.
    ErrorUdp,
    /// The same about TCP.
    ErrorTcp,
    Sctp,
}

const KINDS: [Kind; 6] = [
    Kind::Udp,
    Kind::Tcp,
    Kind::Echo,
    Kind::ErrorUdp,
    Kind::ErrorTcp,
    Kind::Sctp,
];

/// What is wrong with a packet's checksums: bits that are turned over in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wrong {
    /// IPv4's header.
    header: u16,
    /// UDP, TCP or ICMP.
    transport: u16,
    /// The header of the packet an error quotes.
    quoted_header: u16,
    /// UDP in the packet an error quotes.
    quoted_transport: u16,
}

fn flip(bytes: &mut [u8], at: usize, bits: u16) {
    let [high, low] = bits.to_be_bytes();
    bytes[at] ^= high;
    bytes[at + 1] ^= low;
}

/// A packet from one end to the other that ends with a number to know it by. An error quotes what it
/// answers: a packet from the other end. `echo` is the type of an echo.
fn packet(kind: Kind, [from, to]: [SocketAddr; 2], echo: u8, number: u16, wrong: Wrong) -> Vec<u8> {
    let ends = [from.ip(), to.ip()];
    let is_ipv4 = from.is_ipv4();
    let number = number.to_be_bytes();
    let (protocol, mut payload, sum_at) = match kind {
        Kind::Udp => {
            let mut payload = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
            payload.extend([0, 14, 0, 0, 1, 2, 3, 4]);
            payload.extend(number);
            (UDP, payload, Some(6))
        }
        Kind::Tcp => {
            let mut payload = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
            // SYN, with options: the largest segment, and nothing.
            payload.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x70, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
            payload.extend([2, 4, 0x05, 0x00, 1, 1, 1, 0]);
            payload.extend(number);
            (TCP, payload, Some(16))
        }
        Kind::Echo => {
            let identifier = if echo == 0 || echo == 129 { to } else { from };
            let [high, low] = identifier.port().to_be_bytes();
            let mut payload = vec![echo, 0, 0, 0, high, low, 0, 1, 1, 2, 3, 4];
            payload.extend(number);
            (if is_ipv4 { 1 } else { 58 }, payload, Some(2))
        }
        Kind::ErrorUdp | Kind::ErrorTcp => {
            let inner = if kind == Kind::ErrorUdp {
                Kind::Udp
            } else {
                Kind::Tcp
            };
            let quoted = Wrong {
                header: wrong.quoted_header,
                transport: wrong.quoted_transport,
                ..Wrong::default()
            };
            let mut payload = vec![if is_ipv4 { 3 } else { 1 }, 1, 0, 0, 0, 0, 0, 0];
            let number = u16::from_be_bytes(number);
            payload.extend(packet(inner, [to, from], 0, number, quoted));
            (if is_ipv4 { 1 } else { 58 }, payload, Some(2))
        }
        Kind::Sctp => {
            let mut payload = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
            payload.extend([1, 2, 3, 4, 5, 6, 7, 8, 1, 0, 0, 6]);
            payload.extend(number);
            (SCTP, payload, None)
        }
    };
    if let Some(at) = sum_at {
        let sum = match protocol {
            1 => checksum(&payload),
            _ => transport_checksum(ends[0], ends[1], protocol, &payload),
        };
        payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        flip(&mut payload, at, wrong.transport);
    }
    let mut packet = ip(ends[0], ends[1], protocol, &payload);
    if is_ipv4 {
        flip(&mut packet, 10, wrong.header);
    }
    packet
}

/// Which checksums of a packet are wrong, as far as anybody looks at them.
fn look(kind: Kind, caught: &Caught) -> Result<[bool; 4]> {
    let is_sum_right = |packet: &Caught| match packet.protocol {
        1 => checksum(&packet.payload) == 0,
        SCTP => true,
        _ => packet.is_transport_sum_right(),
    };
    let mut wrong = [
        !caught.is_header_sum_right,
        !is_sum_right(caught),
        false,
        false,
    ];
    if kind == Kind::ErrorUdp || kind == Kind::ErrorTcp {
        let quoted = Caught::parse(&caught.payload[8..]).context("no packet is quoted")?;
        wrong[2] = !quoted.is_header_sum_right;
        wrong[3] = kind == Kind::ErrorUdp && !is_sum_right(&quoted);
    }
    Ok(wrong)
}

/// The ends of a pod's connections to the world.
fn ends(pod: &Pod, to: IpAddr) -> [SocketAddr; 2] {
    let own = if to.is_ipv4() {
        IpAddr::from(pod.v4)
    } else {
        pod.v6.into()
    };
    [SocketAddr::new(own, 5_000), SocketAddr::new(to, 7)]
}

fn egress(to: IpAddr) -> IpAddr {
    if to.is_ipv4() {
        EGRESS_V4.into()
    } else {
        EGRESS_V6.into()
    }
}

fn echoes(to: IpAddr) -> [u8; 2] {
    if to.is_ipv4() { [8, 0] } else { [128, 129] }
}

/// How many packets of pods were refused, or left the gateway.
fn accounted(lab: &EgressLab) -> Result<u64> {
    let mut sum = 0;
    for (node, datapath) in [
        (&lab.node, &lab.datapath),
        (&lab.gateway_node, &lab.gateway_datapath),
    ] {
        let drops = node.run(|| datapath.drops())?;
        // What pods' kernels say by themselves.
        let own = [DropReason::Multicast, DropReason::LinkLocal];
        let drops = drops.iter().filter(|drop| !own.contains(&drop.reason));
        sum += drops.map(|drop| drop.packets).sum::<u64>();
    }
    let refusals = lab.gateway_node.run(|| lab.gateway.refusals())?;
    sum += refusals.iter().map(|count| count.packets).sum::<u64>();
    let rules = lab.gateway_node.run(|| lab.gateway.rules())?;
    Ok(sum
        + rules
            .iter()
            .map(|rule| rule.traffic.out_packets)
            .sum::<u64>())
}

/// A packet cut and its lengths changed in every way.
fn lengths(kind: Kind, whole: &[u8]) -> Vec<Vec<u8>> {
    let is_ipv4 = whole[0] >> 4 == 4;
    let header = if is_ipv4 { 20 } else { 40 };
    let mut all: Vec<Vec<u8>> = Vec::new();
    // Cut without the header's knowing it.
    all.extend((1..=whole.len()).map(|length| whole[..length].to_vec()));
    // Cut with its knowing it.
    let protocol = whole[if is_ipv4 { 9 } else { 6 }];
    let caught = Caught::parse(whole).map(|caught| (caught.source, caught.destination));
    if let Some((from, to)) = caught {
        for end in header..whole.len() {
            let cut = &whole[header..end];
            all.push(ip(from, to, protocol, cut));
            // The same as the first fragment of something.
            let number = end as u8;
            if is_ipv4 {
                let first = [0x77, number, 0x20, 0];
                all.push(ipv4(from, to, protocol, &[], first, cut));
            } else {
                let first = [protocol, 0, 0, 1, 0x77, 0, 0, number];
                all.push(ip(from, to, 44, &[&first, cut].concat()));
            }
        }
    }
    let mut set = |at: usize, value: &[u8]| {
        let mut packet = whole.to_vec();
        packet[at..at + value.len()].copy_from_slice(value);
        if is_ipv4 {
            packet[10..12].fill(0);
            let words = usize::from(packet[0] & 0xf).max(5) * 4;
            let sum = checksum(&packet[..words.min(packet.len())]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        all.push(packet);
    };
    // Lengths of two bytes: all around the right one, and what a sign or a carry could make of it.
    let near = 0..=whole.len() as u16 + 40;
    let two_bytes: Vec<u16> = near
        .chain((8..16).map(|bit| 1 << bit))
        .chain([0x7fff, 0xfffe, 0xffff])
        .collect();
    let mut fields = vec![if is_ipv4 { 2 } else { 4 }];
    // Lengths of half a byte, beside something else.
    let mut halves = vec![0];
    match kind {
        Kind::Udp => fields.push(header + 4),
        Kind::Tcp => halves.push(header + 12),
        Kind::ErrorUdp | Kind::ErrorTcp => {
            let quoted = header + 8;
            halves.push(quoted);
            fields.push(quoted + if is_ipv4 { 2 } else { 4 });
            if kind == Kind::ErrorUdp {
                fields.push(quoted + header + 4);
            } else {
                halves.push(quoted + header + 12);
            }
        }
        Kind::Sctp => fields.push(header + 14),
        Kind::Echo => {}
    }
    for at in fields {
        for value in &two_bytes {
            set(at, &value.to_be_bytes());
        }
    }
    for at in halves {
        for value in 0..=255 {
            // Version and header length, or TCP's data offset: every value of the byte.
            set(at, &[value]);
        }
    }
    // TCP's options say lengths as well.
    if kind == Kind::Tcp {
        for value in 0..=255 {
            set(header + 21, &[value]);
        }
    }
    all
}

/// Fragments of every kind of overlap: of the ports, of each other, and behind the end.
fn fragments([from, to]: [SocketAddr; 2], whole: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut identification = 0_u16;
    let header = if from.is_ipv4() { 20 } else { 40 };
    let payload = &whole[header..];
    for first_bytes in [4, 6, 8, 12, payload.len()] {
        for offset in [0_u16, 1, 2, 100, 8_190, 8_191] {
            for has_more in [false, true] {
                identification += 1;
                let id = identification.to_be_bytes();
                for (offset, has_more, bytes) in [
                    (0, true, first_bytes),
                    (offset, has_more, payload.len()),
                    (offset, has_more, 1),
                ] {
                    let data = &payload[..bytes];
                    if from.is_ipv4() {
                        let word: u16 = offset | if has_more { 0x2000 } else { 0 };
                        let [high, low] = word.to_be_bytes();
                        let fragment = [id[0], id[1], high, low];
                        all.push(ipv4(from.ip(), to.ip(), UDP, &[], fragment, data));
                    } else {
                        let word = offset << 3 | u16::from(has_more);
                        let mut piece = vec![UDP, 0];
                        piece.extend(word.to_be_bytes());
                        piece.extend([0, 0, id[0], id[1]]);
                        piece.extend(data);
                        all.push(ip(from.ip(), to.ip(), 44, &piece));
                    }
                }
            }
        }
    }
    all
}

#[test]
fn every_wrong_length_is_counted_and_leaks_nothing() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    let fabric = Witness::start(&lab.gateway_node, "fab")?;
    for to in WORLD {
        for pod in [&lab.pod, &lab.gateway_pod] {
            let ends = ends(pod, to);
            let [request, _] = echoes(to);
            for kind in KINDS {
                let whole = packet(kind, ends, request, 1, Wrong::default());
                let mut sent = lengths(kind, &whole);
                if kind == Kind::Udp {
                    sent.extend(fragments(ends, &whole));
                }
                let before = accounted(&lab)?;
                send_all_from(pod, sent.iter().map(Vec::as_slice))?;
                let expected = sent.len() as u64;
                wait_for("every packet to be accounted for", || {
                    let now = accounted(&lab)? - before;
                    ensure!(now == expected, "{kind:?} to {to}: {now} of {expected}");
                    Ok(())
                })?;
                lab.has_no_halves()?;
            }
        }
        // After all of that connections are as ever.
        reach(&lab.pod.namespace, to)?;
        let server = EchoServer::start(&lab.world, SocketAddr::new(to, 0))?;
        let socket = udp_socket(&lab.pod.namespace, to.is_ipv4(), 0)?;
        echo(&socket, server.address, 4_000)?;
    }
    ensure!(lab.drops(DropReason::Truncated)? > 0);
    ensure!(lab.drops(DropReason::MalformedHeader)? > 0);
    ensure!(lab.refusals(DropReason::Truncated)? > 0);
    for pod in [&lab.pod, &lab.gateway_pod] {
        for own in [IpAddr::from(pod.v4), pod.v6.into()] {
            ensure!(
                !fabric.seen().contains(&own),
                "{own} was seen in the fabric"
            );
        }
    }
    lab.witness.saw_nobody_else()
}

/// The mapping's port of a connection of each kind.
fn open(lab: &EgressLab, kind: Kind, ends: [SocketAddr; 2]) -> Result<u16> {
    let [request, _] = echoes(ends[1].ip());
    let (kind, protocol) = match kind {
        Kind::Udp | Kind::ErrorUdp => (Kind::Udp, UDP),
        Kind::Tcp | Kind::ErrorTcp => (Kind::Tcp, TCP),
        Kind::Echo => (Kind::Echo, if ends[0].is_ipv4() { 1 } else { 58 }),
        Kind::Sctp => (Kind::Sctp, SCTP),
    };
    let packet = packet(kind, ends, request, 0, Wrong::default());
    send_all_from(&lab.pod, [packet.as_slice()])?;
    wait_for("the mapping", || {
        let mappings = lab.mappings()?;
        let found = mappings
            .iter()
            .find(|one| one.protocol == protocol && one.pod.ip() == ends[0].ip());
        Ok(found.context("none")?.egress.port())
    })
}

/// Every way to be wrong by one bit, and none.
fn wrongs(kind: Kind, is_ipv4: bool) -> Vec<Wrong> {
    let mut all = vec![Wrong::default()];
    for bits in (0..16).map(|bit| 1 << bit) {
        let none = Wrong::default();
        if is_ipv4 {
            all.push(Wrong {
                header: bits,
                ..none
            });
        }
        if kind != Kind::Sctp {
            all.push(Wrong {
                transport: bits,
                ..none
            });
        }
        if is_ipv4 && (kind == Kind::ErrorUdp || kind == Kind::ErrorTcp) {
            all.push(Wrong {
                quoted_header: bits,
                ..none
            });
        }
        if kind == Kind::ErrorUdp {
            all.push(Wrong {
                quoted_transport: bits,
                ..none
            });
        }
    }
    all
}

/// Waits for each of these packets and compares.
fn arrives(
    capture: &Capture,
    kind: Kind,
    [from, to]: [IpAddr; 2],
    sent: &[(Vec<u8>, Wrong)],
) -> Result<()> {
    for (number, (_, wrong)) in sent.iter().enumerate() {
        let end = (number as u16).to_be_bytes();
        let caught = capture.find(&format!("packet {number}: {kind:?} {wrong:?}"), |packet| {
            let is_it =
                packet.source == from && packet.destination == to && packet.payload.ends_with(&end);
            is_it.then(|| packet.clone())
        })?;
        let expected = [
            wrong.header,
            wrong.transport,
            wrong.quoted_header,
            wrong.quoted_transport,
        ]
        .map(|bits| bits != 0);
        let found = look(kind, &caught)?;
        ensure!(
            found == expected,
            "{kind:?} {wrong:?}: {found:?} in {caught:?}"
        );
    }
    Ok(())
}

#[test]
fn a_wrong_checksum_stays_wrong_and_a_right_one_right() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    let gateway_mac = mac_of(&lab, "out")?;
    for to in WORLD {
        let inside = ends(&lab.pod, to);
        let [request, reply] = echoes(to);
        for kind in KINDS {
            let outside = [
                inside[1],
                SocketAddr::new(egress(to), open(&lab, kind, inside)?),
            ];
            for (ends, echo) in [(inside, request), (outside, reply)] {
                let wrongs = wrongs(kind, to.is_ipv4());
                let sent: Vec<_> = (0_u16..)
                    .zip(wrongs)
                    .map(|(number, wrong)| (packet(kind, ends, echo, number, wrong), wrong))
                    .collect();
                let packets = sent.iter().map(|(packet, _)| packet.as_slice());
                if echo == request {
                    let capture = Capture::start(&lab.world, "eth0")?;
                    send_all_from(&lab.pod, packets)?;
                    arrives(&capture, kind, [egress(to), to], &sent)?;
                } else {
                    let capture = Capture::start(&lab.pod.namespace, "eth0")?;
                    send_all(&lab.world, "eth0", gateway_mac, packets)?;
                    arrives(&capture, kind, [to, inside[0].ip()], &sent)?;
                }
            }
        }
    }
    lab.has_no_halves()?;
    lab.witness.saw_nobody_else()
}

#[test]
fn answers_of_every_wrong_length_reach_only_who_they_are_for() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    let gateway_mac = mac_of(&lab, "out")?;
    let heard = [
        Witness::start(&lab.pod.namespace, "eth0")?,
        Witness::start(&lab.other_pod.namespace, "eth0")?,
    ];
    for to in WORLD {
        let inside = ends(&lab.pod, to);
        let [_, reply] = echoes(to);
        for kind in KINDS {
            let outside = [
                inside[1],
                SocketAddr::new(egress(to), open(&lab, kind, inside)?),
            ];
            let before = lab.mappings()?.len();
            let whole = packet(kind, outside, reply, 1, Wrong::default());
            let mut sent = lengths(kind, &whole);
            if kind == Kind::Udp {
                sent.extend(fragments(outside, &whole));
            }
            let capture = Capture::start(&lab.pod.namespace, "eth0")?;
            // The last one is as it should be, and arrives.
            sent.push(packet(kind, outside, reply, 0x7777, Wrong::default()));
            let packets = sent.iter().map(Vec::as_slice);
            send_all(&lab.world, "eth0", gateway_mac, packets)?;
            capture.find(&format!("{kind:?}"), |packet| {
                packet.payload.ends_with(&[0x77, 0x77]).then_some(())
            })?;
            ensure!(lab.mappings()?.len() == before, "answers made mappings");
            lab.has_no_halves()?;
        }
        reach(&lab.pod.namespace, to)?;
    }
    let world = [IpAddr::from(WORLD_V4), WORLD_V6.into()];
    let others: Vec<_> = heard[0].seen().into_iter().collect();
    ensure!(others.iter().all(|from| world.contains(from)), "{others:?}");
    ensure!(heard[1].seen().is_empty(), "{:?}", heard[1].seen());
    lab.witness.saw_nobody_else()
}
