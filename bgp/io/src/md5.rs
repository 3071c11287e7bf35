// SPDX-License-Identifier: Apache-2.0
//! TCP MD5 signatures (RFC 2385): keys of sockets, for one address or for a prefix.

use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use bgp_core::config::Md5Password;
use ipnet::IpNet;

/// `TCP_MD5SIG_EXT` of `linux/tcp.h`: the flags of the structure count.
const TCP_MD5SIG_EXT: i32 = 32;

/// `TCP_MD5SIG_FLAG_PREFIX` of `linux/tcp.h`: the key is for a prefix.
const FLAG_PREFIX: u8 = 1;

/// `struct tcp_md5sig` of `linux/tcp.h`.
#[repr(C, align(8))]
struct TcpMd5Sig {
    /// A `struct sockaddr_storage`.
    address: [u8; 128],
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    interface_index: i32,
    key: [u8; 80],
}

const _: () = assert!(size_of::<TcpMd5Sig>() == 128 + 8 + 80);

/// An address as `struct sockaddr_in` or `sockaddr_in6` in a `sockaddr_storage`, port 0.
fn storage(ip: IpAddr) -> [u8; 128] {
    let mut bytes = [0; 128];
    let family = match ip {
        IpAddr::V4(v4) => {
            bytes[4..8].copy_from_slice(&v4.octets());
            libc::AF_INET
        }
        IpAddr::V6(v6) => {
            bytes[8..24].copy_from_slice(&v6.octets());
            libc::AF_INET6
        }
    };
    bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
    bytes
}

/// Sets the TCP MD5 key a socket uses with one address, in place of the one it has, or removes it.
/// Segments that are under way with another key are dropped and sent again.
///
/// On a listening socket it decides which calls are answered: those of the address with the key,
/// and nothing else of that address.
///
/// # Errors
/// Kernels without `CONFIG_TCP_MD5SIG`, keys beyond `net.core.optmem_max`, and removal of a key
/// that is not there.
pub(crate) fn set(
    socket: BorrowedFd<'_>,
    remote: IpAddr,
    password: Option<&Md5Password>,
) -> io::Result<()> {
    set_option(socket, libc::TCP_MD5SIG, remote, None, password)
}

/// Removes the key for an address. Returns whether there was one.
///
/// # Errors
/// As [`set`], but for a key that is not there.
pub(crate) fn remove(socket: BorrowedFd<'_>, remote: IpAddr) -> io::Result<bool> {
    match set(socket, remote, None) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sets or removes the key of a listening socket for all addresses of a prefix. The key of a longer
/// prefix, or of the address itself, comes first.
///
/// # Errors
/// As [`set`]; kernels before 4.13 have no keys for prefixes.
pub(crate) fn set_prefix(
    socket: BorrowedFd<'_>,
    prefix: IpNet,
    password: Option<&Md5Password>,
) -> io::Result<()> {
    let len = prefix.prefix_len();
    set_option(
        socket,
        TCP_MD5SIG_EXT,
        prefix.network(),
        Some(len),
        password,
    )
}

fn set_option(
    socket: BorrowedFd<'_>,
    name: i32,
    address: IpAddr,
    prefix_len: Option<u8>,
    password: Option<&Md5Password>,
) -> io::Result<()> {
    let key = password.map_or(&[][..], Md5Password::reveal);
    let mut option = TcpMd5Sig {
        address: storage(address),
        flags: prefix_len.map_or(0, |_| FLAG_PREFIX),
        prefix_len: prefix_len.unwrap_or(0),
        key_len: u16::try_from(key.len()).expect("a password has at most 80 bytes"),
        interface_index: 0,
        key: [0; 80],
    };
    option.key[..key.len()].copy_from_slice(key);
    // SAFETY: `option` is a live, fully initialised `struct tcp_md5sig` of the length given, and
    // the kernel only reads it. The descriptor is borrowed, so it is open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            name,
            (&raw const option).cast(),
            size_of::<TcpMd5Sig>() as libc::socklen_t,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}
