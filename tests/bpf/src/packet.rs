// SPDX-License-Identifier: Apache-2.0
//! IP packets made by hand, sent past the kernel's own checks, and caught at devices.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use bpf_loader::{LinkIndex, MacAddr};

use crate::{
    namespace::Namespace,
    pod::{Pod, index_of},
    traffic::PATIENCE,
};

/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of SCTP.
pub const SCTP: u8 = 132;

/// The Internet checksum as it is written (RFC 1071).
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or_default();
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The checksum of a payload with its pseudo-header; zero when the one it carries is right.
#[must_use]
pub fn transport_checksum(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: &[u8],
) -> u16 {
    let mut covered = octets(source);
    covered.extend(octets(destination));
    covered.extend((payload.len() as u32).to_be_bytes());
    covered.extend([0, 0, 0, protocol]);
    covered.extend(payload);
    checksum(&covered)
}

/// An IPv4 packet without options or an IPv6 packet without extension headers, with TTL 64.
#[must_use]
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            ipv4(source, destination, protocol, &[], [0, 0, 0, 0], payload)
        }
        _ => ipv6(source, destination, protocol, payload),
    }
}

/// An IPv4 packet with options (a multiple of four bytes) and these four bytes of identification,
/// flags and fragment offset.
#[must_use]
pub fn ipv4(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    options: &[u8],
    fragment: [u8; 4],
    payload: &[u8],
) -> Vec<u8> {
    let header_bytes = 20 + options.len();
    let mut packet = vec![0x40 | (header_bytes / 4) as u8, 0];
    packet.extend(((header_bytes + payload.len()) as u16).to_be_bytes());
    packet.extend(fragment);
    packet.extend([64, protocol, 0, 0]);
    packet.extend(octets(source));
    packet.extend(octets(destination));
    packet.extend(options);
    let sum = checksum(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet.extend(payload);
    packet
}

fn ipv6(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([protocol, 64]);
    packet.extend(octets(source));
    packet.extend(octets(destination));
    packet.extend(payload);
    packet
}

/// A UDP datagram with its checksum.
#[must_use]
pub fn udp(source: SocketAddr, destination: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend(source.port().to_be_bytes());
    payload.extend(destination.port().to_be_bytes());
    payload.extend((8 + data.len() as u16).to_be_bytes());
    payload.extend([0, 0]);
    payload.extend(data);
    let sum = transport_checksum(source.ip(), destination.ip(), UDP, &payload).to_be_bytes();
    payload[6..8].copy_from_slice(&sum);
    payload
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A caught packet, from its IP header on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caught {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol of the payload: the next header in IPv6.
    pub protocol: u8,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// Whether IPv4's header checksum is right; true for IPv6.
    pub is_header_sum_right: bool,
}

impl Caught {
    /// Reads a packet, or one that an ICMP error quotes; `None` for what is no IP.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let version = packet.first()? >> 4;
        if version == 4 {
            let header_bytes = usize::from(packet[0] & 0x0f) * 4;
            let header = packet.get(..header_bytes).filter(|h| h.len() >= 20)?;
            let address = |at: usize| {
                IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]])
            };
            return Some(Self {
                source: address(12),
                destination: address(16),
                protocol: header[9],
                payload: packet[header_bytes..].to_vec(),
                is_header_sum_right: checksum(header) == 0,
            });
        }
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(packet.get(at..at + 16)?);
            Some(IpAddr::from(octets))
        };
        (version == 6).then_some(())?;
        Some(Self {
            source: address(8)?,
            destination: address(24)?,
            protocol: packet[6],
            payload: packet.get(40..)?.to_vec(),
            is_header_sum_right: true,
        })
    }

    /// Whether the checksum of a UDP, TCP or ICMPv6 payload is right.
    #[must_use]
    pub fn is_transport_sum_right(&self) -> bool {
        transport_checksum(self.source, self.destination, self.protocol, &self.payload) == 0
    }

    /// Source and destination port.
    #[must_use]
    pub fn ports(&self) -> Option<[u16; 2]> {
        let bytes = self.payload.get(..4)?;
        Some([
            u16::from_be_bytes([bytes[0], bytes[1]]),
            u16::from_be_bytes([bytes[2], bytes[3]]),
        ])
    }
}

/// Catches every IP packet at a device, in both directions.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
}

impl Capture {
    /// Starts catching.
    ///
    /// # Errors
    /// Without the privilege to.
    pub fn start(at: &Namespace, device: &str) -> Result<Self> {
        let index = index_of(at, device)?;
        let socket = at.run(|| packet_socket(index)).context("watch a device")?;
        Ok(Self { socket })
    }

    /// Waits for a packet for which the closure says something.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn find<T>(&self, what: &str, mut pick: impl FnMut(&Caught) -> Option<T>) -> Result<T> {
        let limit = Instant::now() + PATIENCE;
        while Instant::now() < limit {
            let mut packet = vec![0; 65_536];
            // SAFETY: pointer and length describe a live buffer.
            let got = unsafe {
                libc::recv(
                    self.socket.as_raw_fd(),
                    packet.as_mut_ptr().cast(),
                    packet.len(),
                    0,
                )
            };
            let Ok(got) = usize::try_from(got) else {
                continue;
            };
            packet.truncate(got);
            if let Some(found) = Caught::parse(&packet).as_ref().and_then(&mut pick) {
                return Ok(found);
            }
        }
        bail!("waited {PATIENCE:?} for {what}")
    }
}

/// Sends a packet out of a device as it is, to this MAC address.
///
/// # Errors
/// When the device does not take it.
pub fn send_raw(from: &Namespace, device: &str, to: MacAddr, packet: &[u8]) -> Result<()> {
    send_all(from, device, to, [packet])
}

/// Sends packets out of a pod as they are.
///
/// # Errors
/// When the device does not take one.
pub fn send_all_from<'a>(pod: &Pod, packets: impl IntoIterator<Item = &'a [u8]>) -> Result<()> {
    send_all(&pod.namespace, "eth0", pod.endpoint.host_mac, packets)
}

/// Sends a packet out of a pod as it is.
///
/// # Errors
/// When the device does not take it.
pub fn send_from(pod: &Pod, packet: &[u8]) -> Result<()> {
    send_all_from(pod, [packet])
}

/// Sends packets out of a device one after another by one socket: to close one takes the kernel a
/// while.
///
/// # Errors
/// When the device does not take one.
pub fn send_all<'a>(
    from: &Namespace,
    device: &str,
    to: MacAddr,
    packets: impl IntoIterator<Item = &'a [u8]>,
) -> Result<()> {
    let index = index_of(from, device)?;
    let socket = from.run(|| packet_socket(index))?;
    let mut address = link_address(index);
    address.sll_halen = 6;
    address.sll_addr[..6].copy_from_slice(&to.0);
    for packet in packets {
        let is_ipv6 = packet.first().is_some_and(|first| first >> 4 == 6);
        let protocol: u16 = if is_ipv6 { 0x86dd } else { 0x0800 };
        address.sll_protocol = protocol.to_be();
        // SAFETY: pointers and sizes describe live values.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                size_of_val(&address) as u32,
            )
        };
        ensure!(
            sent == packet.len() as isize,
            "send {} bytes: {}",
            packet.len(),
            io::Error::last_os_error()
        );
    }
    Ok(())
}

/// A socket that sees every packet at a device.
pub(crate) fn packet_socket(device: LinkIndex) -> io::Result<OwnedFd> {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM, i32::from(protocol)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor this call made, owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let address = link_address(device);
    let wait = libc::timeval {
        tv_sec: 0,
        tv_usec: 50_000,
    };
    // What is sent at once is not lost before anybody reads it.
    let room: libc::c_int = 16 << 20;
    // SAFETY: pointers and sizes describe live values.
    let code = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as u32,
        ) | libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const wait).cast(),
            size_of_val(&wait) as u32,
        ) | libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const room).cast(),
            size_of_val(&room) as u32,
        )
    };
    if code != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

fn link_address(device: LinkIndex) -> libc::sockaddr_ll {
    // SAFETY: plain numbers; all zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = device.0 as i32;
    address
}
