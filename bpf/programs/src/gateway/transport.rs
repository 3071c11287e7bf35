// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Ports, or what stands for them.

use aya_ebpf::programs::TcContext;
use bpf_abi::{DropReason, nat::said};
use bpf_programs::packet::{self, ETHERNET_BYTES, Field, IPV6_BYTES, PROTOCOL_TCP, PROTOCOL_UDP};

use crate::family::{Family, Header};

/// What is read directly: Ethernet, IPv6, a fragment header and a TCP header.
pub const READ_BYTES: u32 = ETHERNET_BYTES + IPV6_BYTES + 8 + 20;

/// How a protocol's checksum covers addresses and ports.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// Addresses and ports (TCP, ICMPv6).
    All,
    /// The same, and zero means that there is none (UDP over IPv4, RFC 768).
    Udp,
    /// Only what stands for the port (ICMP).
    Port,
    /// Nothing that changes.
    Nothing,
}

/// The payload of an IP packet, as far as it is translated.
#[derive(Clone, Copy)]
pub struct Transport {
    /// Source port, network order.
    pub source: u16,
    /// Destination port, network order.
    pub destination: u16,
    /// Offset in the payload of what is translated at the source; ICMP echo has one field for both.
    pub source_at: u32,
    /// The same for the destination.
    pub destination_at: u32,
    /// Offset in the payload of the checksum.
    pub sum_at: u32,
    pub sum: Sum,
    /// What the packet says of its connection: bits of [`said`].
    pub says: u32,
    /// A TCP segment with SYN and without ACK: a new connection, whatever was there before.
    pub begins: bool,
}

/// What a payload is to address translation.
pub enum Payload {
    /// Something with a flow of its own.
    Flow(Transport),
    /// An ICMP error about another packet.
    Error,
}

const PORTLESS: Transport = Transport {
    source: 0,
    destination: 0,
    source_at: 0,
    destination_at: 0,
    sum_at: 0,
    sum: Sum::Nothing,
    says: said::ANYTHING,
    begins: false,
};

/// Reads the payload's head.
#[inline(always)]
pub fn read<F: Family>(
    ctx: &TcContext,
    header: &Header<F::Address>,
) -> Result<Payload, DropReason> {
    if header.protocol == PROTOCOL_TCP {
        let ports: [u16; 2] = load::<F, _>(ctx, header, 0)?;
        let flags: u8 = load::<F, _>(ctx, header, 13)?;
        let mut says = said::ANYTHING;
        if flags & 0x01 != 0 {
            says |= said::FIN;
        }
        if flags & 0x04 != 0 {
            says |= said::RST;
        }
        return Ok(Payload::Flow(Transport {
            source: ports[0],
            destination: ports[1],
            source_at: 0,
            destination_at: 2,
            sum_at: 16,
            sum: Sum::All,
            says,
            begins: flags & 0x12 == 0x02,
        }));
    }
    if header.protocol == PROTOCOL_UDP {
        let ports: [u16; 2] = load::<F, _>(ctx, header, 0)?;
        return Ok(Payload::Flow(Transport {
            source: ports[0],
            destination: ports[1],
            source_at: 0,
            destination_at: 2,
            sum_at: 6,
            sum: Sum::Udp,
            ..PORTLESS
        }));
    }
    if header.protocol == F::ICMP {
        let kind: u8 = load::<F, _>(ctx, header, 0)?;
        if kind == F::ECHO[0] || kind == F::ECHO[1] {
            let identifier: u16 = load::<F, _>(ctx, header, 4)?;
            return Ok(Payload::Flow(Transport {
                source: identifier,
                destination: identifier,
                source_at: 4,
                destination_at: 4,
                sum_at: 2,
                sum: if F::VERSION == 4 { Sum::Port } else { Sum::All },
                ..PORTLESS
            }));
        }
        return if F::is_error(kind) {
            Ok(Payload::Error)
        } else {
            Err(DropReason::NatUnsupported)
        };
    }
    // Protocols whose checksum does not cover addresses, or that have none: IP in IP, GRE, ESP,
    // EtherIP, SCTP (RFC 9260 §6.8: the checksum covers its own packet alone).
    const PORTLESS_PROTOCOLS: [u8; 6] = [4, 41, 47, 50, 97, 132];
    if header.protocol == PORTLESS_PROTOCOLS[0]
        || header.protocol == PORTLESS_PROTOCOLS[1]
        || header.protocol == PORTLESS_PROTOCOLS[2]
        || header.protocol == PORTLESS_PROTOCOLS[3]
        || header.protocol == PORTLESS_PROTOCOLS[4]
        || header.protocol == PORTLESS_PROTOCOLS[5]
    {
        return Ok(Payload::Flow(PORTLESS));
    }
    Err(DropReason::NatUnsupported)
}

/// Whether a protocol has ports to give.
#[inline(always)]
pub fn has_ports<F: Family>(protocol: u8) -> bool {
    protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP || protocol == F::ICMP
}

/// Reads a field of the payload. Behind a fragment header it is a helper's work: the verifier
/// follows constant offsets best.
#[inline(always)]
fn load<F: Family, T: Field>(
    ctx: &TcContext,
    header: &Header<F::Address>,
    offset: u32,
) -> Result<T, DropReason> {
    let plain = ETHERNET_BYTES + F::HEADER_BYTES;
    if header.payload_at == plain {
        packet::read(ctx, plain + offset).ok_or(DropReason::Truncated)
    } else {
        ctx.load((header.payload_at + offset) as usize)
            .map_err(|_| DropReason::Truncated)
    }
}
