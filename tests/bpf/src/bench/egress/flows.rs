// SPDX-License-Identifier: Apache-2.0
//! Packets of many flows, and a sink that counts those that arrive as they should.

use std::{net::Ipv4Addr, os::fd::OwnedFd, thread, time::Duration};

use anyhow::{Result, ensure};

use super::super::{
    before_others, on_one_core,
    xdp::{self, BATCH, EXIT, Sink, Source, Words, XDP_DROP, XDP_PASS, instruction},
};
use crate::namespace::Namespace;

/// Bytes of an injected frame.
const FRAME_BYTES: usize = 64;

const IP_AT: usize = 14;
const IDENTIFICATION_AT: i16 = 18;
const SOURCE_AT: i16 = 26;
const DESTINATION_AT: i16 = 30;
const UDP_AT: usize = 34;
const PAYLOAD_AT: i16 = 42;

/// Ports of flows: 1024 and up, so many for each address.
const PORTS: u64 = 1 << 15;

/// Which end of a packet differs from flow to flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From a pod, whose source port differs, and the destination address.
    Out,
    /// To a pod: the other ends.
    Back,
}

/// Addresses of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub source_mac: [u8; 6],
    pub destination_mac: [u8; 6],
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
}

/// What is around a frame that came through VXLAN. The identifier is that of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tunnel {
    pub source_mac: [u8; 6],
    pub destination_mac: [u8; 6],
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub identifier: u32,
}

/// Packets of so many flows, from the one with this number on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Series {
    first: u64,
    flows: u64,
    packets: u32,
    stride: u64,
}

impl Series {
    /// How far the next of many flows is: a prime, so that all have their turn.
    const STRIDE: u64 = 20_011;

    /// Each of the flows in turn.
    pub(super) fn each(first: u64, flows: u32) -> Self {
        Self {
            first,
            flows: flows.into(),
            packets: flows,
            stride: 1,
        }
    }

    /// So many packets of the first flows, in another order than that of [`Self::each`]: what was
    /// made one after the other often lies so in memory, and the processor would fetch the next one
    /// before it is asked for.
    pub(super) fn all_over(flows: u32, packets: u32) -> Self {
        Self {
            first: 0,
            flows: flows.into(),
            packets,
            stride: if u64::from(flows) > Self::STRIDE {
                Self::STRIDE
            } else {
                1
            },
        }
    }
}

/// Sends packets from a namespace and returns nanoseconds per packet.
///
/// # Errors
/// Unless they arrived with the right address, but for one in a thousand.
pub(super) fn send(
    at: &Namespace,
    source: &Flows,
    counter: &Counter,
    series: Series,
) -> Result<f64> {
    let before = counter.count()?;
    let ns = at.run(|| {
        on_one_core()?;
        before_others();
        source.inject(series)
    })?;
    let packets = u64::from(series.packets);
    let mut arrived = 0;
    for _ in 0..100 {
        arrived = counter.count()? - before;
        if arrived >= packets {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    ensure!(
        arrived >= packets - packets / 1000,
        "only {arrived} of {packets} packets arrived"
    );
    Ok(ns)
}

/// A source of packets whose flow changes from packet to packet.
#[derive(Debug)]
pub(super) struct Flows {
    source: Source,
    /// The number of the next flow less the first one's, how many there are, the first one's; packets
    /// so far, when the first batch began, when the last one did, how far the next flow is.
    state: Words<7>,
}

impl Flows {
    /// Attaches it to a device of the calling thread's namespace. The last two bytes of the world's
    /// address are the flow's.
    pub(super) fn attach(ifindex: u32, way: Way, addresses: &Addresses) -> Result<Self> {
        Self::of(ifindex, way, frame(way, addresses), 0)
    }

    /// The same as they come out of the network: in VXLAN.
    pub(super) fn attach_in(
        ifindex: u32,
        way: Way,
        addresses: &Addresses,
        tunnel: &Tunnel,
    ) -> Result<Self> {
        let mut whole = outer(tunnel, FRAME_BYTES);
        let inner_at = whole.len() as i16;
        whole.extend(frame(way, addresses));
        // The program writes whole words; what is behind the outer packet is padding.
        whole.resize(whole.len().next_multiple_of(4), 0);
        Self::of(ifindex, way, whole, inner_at)
    }

    fn of(ifindex: u32, way: Way, frame: Vec<u8>, inner_at: i16) -> Result<Self> {
        let state = Words::new()?;
        let program = program(way, &frame, inner_at, &state);
        let source = Source::of(ifindex, frame, &program)?;
        Ok(Self { source, state })
    }

    /// Injects packets. Returns nanoseconds per packet from the beginning of the first batch to that
    /// of the last one: making and removing what the kernel injects with takes longer than thousands
    /// of packets.
    fn inject(&self, series: Series) -> Result<f64> {
        self.state
            .set([0, series.flows, series.first, 0, 0, 0, series.stride])?;
        self.source.inject(series.packets)?;
        let [_, _, _, count, began, last, _] = self.state.get()?;
        let batches = count.saturating_sub(1) / u64::from(BATCH);
        Ok((last - began) as f64 / (batches * u64::from(BATCH)) as f64)
    }
}

/// Drops packets at the end of their way and counts those that have the right address.
#[derive(Debug)]
pub(super) struct Counter {
    count: Words<1>,
    _sink: Held,
}

/// What keeps a counter at its device.
#[derive(Debug)]
enum Held {
    Xdp(#[expect(dead_code, reason = "it is there to live")] Sink),
    Tcx(#[expect(dead_code, reason = "it is there to live")] OwnedFd),
}

impl Counter {
    /// Attaches it to a device of the calling thread's namespace; it counts by the end that is not
    /// the flow's.
    pub(super) fn attach(device: &str, way: Way, expected: Ipv4Addr) -> Result<Self> {
        let ifindex = nix::net::if_::if_nametoindex(device)?;
        let count = Words::new()?;
        let program = Self::program(&count, [0, 4], XDP_DROP, way, expected);
        Ok(Self {
            count,
            _sink: Held::Xdp(Sink::of(ifindex, &program)?),
        })
    }

    /// The same behind the place where XDP of a veth device is, which what is redirected into a pod
    /// does not pass.
    pub(super) fn attach_behind(device: &str, way: Way, expected: Ipv4Addr) -> Result<Self> {
        const DATA_AT: [i16; 2] = [76, 80];
        const TC_ACT_SHOT: i32 = 2;
        let ifindex = nix::net::if_::if_nametoindex(device)?;
        let count = Words::new()?;
        let program = Self::program(&count, DATA_AT, TC_ACT_SHOT, way, expected);
        Ok(Self {
            count,
            _sink: Held::Tcx(xdp::first_at(ifindex, &program)?),
        })
    }

    /// `data_at` are the context's offsets of the frame's begin and end.
    fn program(
        count: &Words<1>,
        data_at: [i16; 2],
        verdict: i32,
        way: Way,
        expected: Ipv4Addr,
    ) -> Vec<u64> {
        let at = match way {
            Way::Out => SOURCE_AT,
            Way::Back => DESTINATION_AT,
        };
        let expected = i32::from_ne_bytes(expected.octets());
        let [data_at, end_at] = data_at;
        let mut program = vec![
            instruction(0x61, 2, 1, data_at, 0),  // r2 = data
            instruction(0x61, 3, 1, end_at, 0),   // r3 = data_end
            instruction(0xbf, 4, 2, 0, 0),        // r4 = r2
            instruction(0x07, 4, 0, 0, 34),       // r4 += Ethernet and IPv4
            instruction(0x2d, 4, 3, 11, 0),       // if r4 > r3 goto drop
            instruction(0x61, 5, 2, at, 0),       // r5 = address
            instruction(0x56, 5, 0, 9, expected), // if w5 != expected goto drop
        ];
        program.extend(count.look_up(2));
        program.extend([
            instruction(0xb7, 1, 0, 0, 1), // r1 = 1
            instruction(0xdb, 0, 1, 0, 0), // lock *(u64 *)(r0 + 0) += r1
            instruction(0xb7, 0, 0, 0, verdict),
            EXIT,
        ]);
        program
    }

    pub(super) fn count(&self) -> Result<u64> {
        Ok(self.count.get()?[0])
    }
}

/// Writes the frame as [`Source`] does, and into it the next flow. What changes is made up for
/// beside it, so that no checksum changes: the address in IPv4's identification and, as the port, in
/// the payload.
fn program(way: Way, frame: &[u8], inner_at: i16, state: &Words<7>) -> Vec<u64> {
    let (port_at, address_at) = match way {
        Way::Out => (UDP_AT as i16, DESTINATION_AT + 2),
        Way::Back => (UDP_AT as i16 + 2, SOURCE_AT + 2),
    };
    let (port_at, address_at) = (inner_at + port_at, inner_at + address_at);
    let (identification_at, payload_at) = (inner_at + IDENTIFICATION_AT, inner_at + PAYLOAD_AT);
    let mut program = vec![
        instruction(0x61, 6, 1, 0, 0),                  // r6 = data
        instruction(0x61, 3, 1, 4, 0),                  // r3 = data_end
        instruction(0xbf, 4, 6, 0, 0),                  // r4 = r6
        instruction(0x07, 4, 0, 0, frame.len() as i32), // r4 += length
        instruction(0x3d, 3, 4, 2, 0),                  // if r3 >= r4 goto on
        instruction(0xb7, 0, 0, 0, XDP_DROP),
        EXIT,
    ];
    for (index, word) in frame.chunks_exact(4).enumerate() {
        let word = i32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
        program.push(instruction(0x62, 6, 0, index as i16 * 4, word)); // *(u32 *)(r6 + …) = word
    }
    let rest = [
        instruction(0xbf, 9, 0, 0, 0),                // r9 = r0
        instruction(0x79, 7, 9, 24, 0),               // r7 = packets
        instruction(0xbf, 1, 7, 0, 0),                // r1 = r7
        instruction(0x57, 1, 0, 0, BATCH as i32 - 1), // r1 &= …
        instruction(0x55, 1, 0, 4, 0),                // if r1 != 0 goto counted
        instruction(0x85, 0, 0, 0, 5),                // bpf_ktime_get_ns
        instruction(0x55, 7, 0, 1, 0),                // if r7 != 0 goto last
        instruction(0x7b, 9, 0, 32, 0),               // began = r0
        instruction(0x7b, 9, 0, 40, 0),               // last: last = r0
        instruction(0x07, 7, 0, 0, 1),                // counted: r7 += 1
        instruction(0x7b, 9, 7, 24, 0),               // packets = r7
        instruction(0xbf, 0, 9, 0, 0),                // r0 = r9
        instruction(0x79, 7, 0, 0, 0),                // r7 = next
        instruction(0x79, 1, 0, 8, 0),                // r1 = flows
        instruction(0x79, 8, 0, 16, 0),               // r8 = first
        instruction(0x0f, 8, 7, 0, 0),                // r8 += r7
        instruction(0x79, 2, 0, 48, 0),               // r2 = how far
        instruction(0x0f, 7, 2, 0, 0),                // r7 += r2
        instruction(0xad, 7, 1, 1, 0),                // if r7 < r1 goto on
        instruction(0x1f, 7, 1, 0, 0),                // r7 -= r1
        instruction(0x7b, 0, 7, 0, 0),                // next = r7
        instruction(0xbf, 1, 8, 0, 0),                // r1 = flow
        instruction(0x57, 1, 0, 0, PORTS as i32 - 1),
        instruction(0x07, 1, 0, 0, 1024),
        instruction(0xdc, 1, 0, 0, 16),      // r1 = network order
        instruction(0x6b, 6, 1, port_at, 0), // port
        instruction(0xa7, 1, 0, 0, 0xffff),
        instruction(0x6b, 6, 1, payload_at, 0),
        instruction(0x77, 8, 0, 0, PORTS.trailing_zeros() as i32), // r8 = flow / ports
        instruction(0x07, 8, 0, 0, 1),
        instruction(0x57, 8, 0, 0, 0x7fff),
        instruction(0xdc, 8, 0, 0, 16),         // r8 = network order
        instruction(0x6b, 6, 8, address_at, 0), // address
        instruction(0xa7, 8, 0, 0, 0xffff),
        instruction(0x6b, 6, 8, identification_at, 0),
        instruction(0x6b, 6, 8, payload_at + 2, 0),
    ];
    program.extend(state.look_up(rest.len() as i16));
    program.extend(rest);
    program.push(instruction(0xb7, 0, 0, 0, XDP_PASS));
    program.push(EXIT);
    program
}

/// A UDP packet of flow 0 with both checksums.
pub(super) fn frame(way: Way, addresses: &Addresses) -> Vec<u8> {
    let total = (FRAME_BYTES - IP_AT) as u8;
    let mut frame = Vec::with_capacity(FRAME_BYTES);
    frame.extend(addresses.destination_mac);
    frame.extend(addresses.source_mac);
    frame.extend([0x08, 0x00, 0x45, 0, 0, total, 0xff, 0xfe, 0x40, 0]);
    frame.extend([64, 17, 0, 0]);
    let (mut source, mut destination) = (addresses.source.octets(), addresses.destination.octets());
    let (world, ports) = match way {
        Way::Out => (&mut destination, [4, 0, 0, 9]),
        Way::Back => (&mut source, [0, 9, 4, 0]),
    };
    world[2..].copy_from_slice(&[0, 1]);
    frame.extend(source);
    frame.extend(destination);
    let length = total - 20;
    frame.extend(ports);
    frame.extend([0, length, 0, 0]);
    // What makes up for port and address.
    frame.extend([0xfb, 0xff, 0xff, 0xfe]);
    frame.resize(FRAME_BYTES, 0);
    let sum = checksum(&frame[IP_AT..UDP_AT], 0);
    frame[IP_AT + 10..IP_AT + 12].copy_from_slice(&sum.to_be_bytes());
    let pseudo = 17 + u32::from(length) + sum_of(&frame[SOURCE_AT as usize..UDP_AT]);
    let sum = checksum(&frame[UDP_AT..], pseudo);
    frame[UDP_AT + 6..UDP_AT + 8].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Makes a frame from a pod one of the flow with this number, as the source's program does.
pub(super) fn set_flow(frame: &mut [u8], flow: u32) {
    let mut put = |at: i16, value: u16| {
        let at = at as usize;
        frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
    };
    let port = (u64::from(flow) % PORTS) as u16 + 1024;
    let address = (u64::from(flow) / PORTS) as u16 + 1;
    put(UDP_AT as i16, port);
    put(PAYLOAD_AT, !port);
    put(DESTINATION_AT + 2, address);
    put(IDENTIFICATION_AT, !address);
    put(PAYLOAD_AT + 2, !address);
}

/// Ethernet, IPv4, UDP without a checksum and VXLAN (RFC 7348 §5) in front of so many bytes.
fn outer(tunnel: &Tunnel, inner_bytes: usize) -> Vec<u8> {
    const VXLAN_PORT: [u8; 2] = 4789_u16.to_be_bytes();
    let udp = (inner_bytes + 16) as u16;
    let mut frame = Vec::new();
    frame.extend(tunnel.destination_mac);
    frame.extend(tunnel.source_mac);
    frame.extend([0x08, 0x00, 0x45, 0]);
    frame.extend((udp + 20).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(tunnel.source.octets());
    frame.extend(tunnel.destination.octets());
    let sum = checksum(&frame[IP_AT..UDP_AT], 0);
    frame[IP_AT + 10..IP_AT + 12].copy_from_slice(&sum.to_be_bytes());
    frame.extend([0xc0, 0]);
    frame.extend(VXLAN_PORT);
    frame.extend(udp.to_be_bytes());
    frame.extend([0, 0, 0x08, 0, 0, 0]);
    frame.extend((tunnel.identifier << 8).to_be_bytes());
    frame
}

fn sum_of(bytes: &[u8]) -> u32 {
    let pairs = bytes.chunks_exact(2);
    pairs
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum()
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8], seed: u32) -> u16 {
    let mut sum = sum_of(bytes) + seed;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
