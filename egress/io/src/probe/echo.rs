// SPDX-License-Identifier: Apache-2.0
//! ICMP echo (RFC 792, RFC 4443 §4), by a raw socket: unprivileged ones depend on
//! `net.ipv4.ping_group_range`, and the daemon has `CAP_NET_RAW` anyway.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

use crate::peers::nonce;

/// Octets of a request: type, code, checksum, identifier, sequence, and what comes back.
const REQUEST: usize = 8 + NONCE;

/// Octets that tell an answer from those to others.
const NONCE: usize = 16;

/// The types of a request and of its answer.
const V4: (u8, u8) = (8, 0);
const V6: (u8, u8) = (128, 129);

/// Asks, and waits for the answer for as long as it takes.
///
/// # Errors
/// Without `CAP_NET_RAW`, without the device, and when there is no way to the address.
pub(super) async fn ask(address: IpAddr, device: Option<&str>) -> io::Result<()> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(protocol))?;
    socket.bind_device(device.map(str::as_bytes))?;
    // Only what comes from there, and errors about it.
    socket.connect(&SocketAddr::new(address, 0).into())?;
    // SAFETY: the socket owns its descriptor and always gives out the same one; nothing takes it
    // out of the `AsyncFd` or replaces it.
    let socket = unsafe { AsyncFd::register(socket) }?;
    let nonce = nonce()?;
    let nonce = &nonce[..NONCE];
    socket.get_ref().send(&request(address.is_ipv4(), nonce))?;
    loop {
        let mut ready = socket.readable().await?;
        let received = ready.try_io(|socket| {
            let mut bytes = [MaybeUninit::uninit(); 256];
            let length = socket.get_ref().recv(&mut bytes)?;
            // SAFETY: the kernel has written the first `length` octets.
            let packet = unsafe { bytes[..length].assume_init_ref() };
            Ok(is_answer(address.is_ipv4(), packet, nonce))
        });
        match received {
            Ok(Ok(true)) => return Ok(()),
            // Somebody else's answer, or nothing after all.
            Ok(Ok(false)) | Err(_) => {}
            Ok(Err(error)) => return Err(error),
        }
    }
}

/// A request. The kernel fills in the checksum of ICMPv6 (RFC 3542 §3.1).
fn request(is_ipv4: bool, nonce: &[u8]) -> [u8; REQUEST] {
    let mut request = [0; REQUEST];
    request[0] = if is_ipv4 { V4.0 } else { V6.0 };
    request[4..6].copy_from_slice(&nonce[..2]);
    request[8..].copy_from_slice(nonce);
    if is_ipv4 {
        let sum = checksum(&request);
        request[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    request
}

/// Whether what a raw socket gave is the answer: of IPv4 with its header.
fn is_answer(is_ipv4: bool, packet: &[u8], nonce: &[u8]) -> bool {
    let message = match is_ipv4 {
        true => {
            let header = packet
                .first()
                .map_or(0, |first| usize::from(first & 15) * 4);
            packet.get(header..).unwrap_or_default()
        }
        false => packet,
    };
    let answer = if is_ipv4 { V4.1 } else { V6.1 };
    message.first() == Some(&answer) && message.get(8..) == Some(nonce)
}

/// The Internet checksum (RFC 1071).
fn checksum(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // It fits after the loop.
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_a_checksum_and_its_answer_is_known() {
        let nonce = [7; NONCE];
        let request = request(true, &nonce);
        assert_eq!(checksum(&request), 0, "whole with its checksum");
        let mut answer = [&[0x46][..], &[0; 23], &request].concat();
        assert!(!is_answer(true, &answer, &nonce), "a request is none");
        answer[24] = 0;
        assert!(is_answer(true, &answer, &nonce));
        assert!(!is_answer(true, &answer, &[8; NONCE]), "somebody else's");
        for length in 0..answer.len() {
            assert!(!is_answer(true, &answer[..length], &nonce));
        }
        let v6 = [&[129, 0, 0, 0, 0, 0, 0, 0][..], &nonce].concat();
        assert!(is_answer(false, &v6, &nonce));
        assert!(!is_answer(false, &[], &nonce));
    }
}
