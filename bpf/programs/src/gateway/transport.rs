// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Ports, or what stands for them.

use aya_ebpf::programs::TcContext;
use bpf_abi::{DropReason, nat::said};
use bpf_programs::packet::{self, ETHERNET_BYTES, Field, IPV6_BYTES, PROTOCOL_TCP, PROTOCOL_UDP};

use crate::family::{Family, Header};

/// What is read directly: Ethernet, IPv6, a fragment header and a TCP header.
pub const READ_BYTES: u32 = ETHERNET_BYTES + IPV6_BYTES + 8 + 20;

/// How a protocol's checksum covers addresses and ports.
pub mod sum {
    /// Nothing that changes.
    pub const NOTHING: u32 = 0;
    /// Only what stands for the port (ICMP).
    pub const PORT: u32 = 1;
    /// Addresses and ports (TCP, ICMPv6).
    pub const ALL: u32 = 2;
    /// The same, and zero means that there is none (UDP over IPv4, RFC 768).
    pub const UDP: u32 = 3;
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
    /// One of [`sum`].
    pub sum: u32,
    /// What the packet says of its connection: bits of [`said`].
    pub says: u32,
    /// Not zero: a TCP segment with SYN and without ACK, a new connection, whatever was there before.
    pub begins: u32,
    /// Not zero: a TCP segment with SYN.
    pub is_syn: u32,
    /// Not zero: an ICMP error about another packet, and nothing else here counts.
    pub is_error: u32,
}

const PORTLESS: Transport = Transport {
    source: 0,
    destination: 0,
    source_at: 0,
    destination_at: 0,
    sum_at: 0,
    sum: sum::NOTHING,
    says: said::ANYTHING,
    begins: 0,
    is_syn: 0,
    is_error: 0,
};

/// Reads the payload's head.
#[inline(always)]
pub fn read<F: Family>(
    ctx: &TcContext,
    header: &Header<F::Address>,
) -> Result<Transport, DropReason> {
    if header.protocol == PROTOCOL_TCP {
        let ports: [u16; 2] = load::<F, _>(ctx, header, 0)?;
        let flags: u8 = load::<F, _>(ctx, header, 13)?;
        // FIN is bit 0 of the flags and bit 1 of what is said, RST bit 2 of both: no branches for
        // the verifier to follow.
        let says = said::ANYTHING | u32::from(flags & 0x01) << 1 | u32::from(flags & 0x04);
        return Ok(Transport {
            source: ports[0],
            destination: ports[1],
            source_at: 0,
            destination_at: 2,
            sum_at: 16,
            sum: sum::ALL,
            says,
            begins: u32::from(flags & 0x12 == 0x02),
            is_syn: u32::from(flags & 0x02),
            is_error: 0,
        });
    }
    if header.protocol == PROTOCOL_UDP {
        let ports: [u16; 2] = load::<F, _>(ctx, header, 0)?;
        return Ok(Transport {
            source: ports[0],
            destination: ports[1],
            source_at: 0,
            destination_at: 2,
            sum_at: 6,
            sum: sum::UDP,
            ..PORTLESS
        });
    }
    if header.protocol == F::ICMP {
        let kind: u8 = load::<F, _>(ctx, header, 0)?;
        if kind == F::ECHO[0] || kind == F::ECHO[1] {
            let identifier: u16 = load::<F, _>(ctx, header, 4)?;
            return Ok(Transport {
                source: identifier,
                destination: identifier,
                source_at: 4,
                destination_at: 4,
                sum_at: 2,
                sum: if F::VERSION == 4 { sum::PORT } else { sum::ALL },
                ..PORTLESS
            });
        }
        return if F::is_error(kind) {
            Ok(Transport {
                is_error: 1,
                ..PORTLESS
            })
        } else {
            Err(DropReason::NatUnsupported)
        };
    }
    // Protocols whose checksum does not cover addresses, or that have none: IP in IP, GRE, ESP,
    // EtherIP, SCTP (RFC 9260 §6.8: the checksum covers its own packet alone).
    const PORTLESS_PROTOCOLS: [u8; 6] = [4, 41, 47, 50, 97, 132];
    if PORTLESS_PROTOCOLS.contains(&header.protocol) {
        return Ok(PORTLESS);
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
