// SPDX-License-Identifier: Apache-2.0
//! Frames to test with, built field by field.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::MacAddr;

/// A UDP packet in an Ethernet frame; every field can be made wrong.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) destination_mac: MacAddr,
    pub(super) source_mac: MacAddr,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) ttl: u8,
    pub(super) payload_bytes: usize,
    pub(super) dont_fragment: bool,
    /// IPv4 options or IPv6 extension headers, before the transport header.
    pub(super) extension: Vec<u8>,
    /// Protocol of what follows the IP header.
    pub(super) protocol: u8,
    /// Bytes behind the IP header and its extension instead of a UDP header.
    pub(super) transport: Option<Vec<u8>>,
}

impl Frame {
    pub(super) fn new(
        source_mac: MacAddr,
        destination_mac: MacAddr,
        source: IpAddr,
        destination: IpAddr,
    ) -> Self {
        Self {
            destination_mac,
            source_mac,
            source,
            destination,
            ttl: 64,
            payload_bytes: 32,
            dont_fragment: true,
            extension: Vec::new(),
            protocol: 17,
            transport: None,
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let transport = self.transport.clone().unwrap_or_else(|| {
            let length = (8 + self.payload_bytes) as u16;
            let mut udp = vec![0x30, 0x39, 0x00, 0x35];
            udp.extend(length.to_be_bytes());
            udp.extend([0, 0]);
            udp.resize(8 + self.payload_bytes, 0xa5);
            udp
        });
        let mut frame = Vec::new();
        frame.extend(self.destination_mac.0);
        frame.extend(self.source_mac.0);
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00]);
                frame.extend(self.ipv4(source, destination, transport.len()));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd]);
                frame.extend(self.ipv6(source, destination, transport.len()));
            }
            other => panic!("two families in one packet: {other:?}"),
        }
        frame.extend(&self.extension);
        frame.extend(transport);
        frame
    }

    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr, transport_bytes: usize) -> Vec<u8> {
        let header_bytes = 20 + self.extension.len();
        let mut header = vec![0x40 | (header_bytes / 4) as u8, 0];
        header.extend(((header_bytes + transport_bytes) as u16).to_be_bytes());
        header.extend([0x12, 0x34, if self.dont_fragment { 0x40 } else { 0 }, 0]);
        header.extend([self.ttl, self.protocol, 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
        let mut whole = header.clone();
        whole.extend(&self.extension);
        header[10..12].copy_from_slice(&checksum(&whole).to_be_bytes());
        header
    }

    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr, transport_bytes: usize) -> Vec<u8> {
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(((self.extension.len() + transport_bytes) as u16).to_be_bytes());
        header.extend([self.protocol, self.ttl]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header
    }
}

/// RFC 1071 over a header; zero for a header that carries its right checksum.
pub(super) fn checksum(header: &[u8]) -> u16 {
    let mut sum: u32 = header
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An ARP request of this sender.
pub(super) fn arp(source_mac: MacAddr, sender_mac: MacAddr, sender: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(source_mac.0);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(sender_mac.0);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend([169, 254, 1, 1]);
    frame
}
