// SPDX-License-Identifier: Apache-2.0
//! Sockets with what BGP wants of them: MD5 keys, TTL, source, class of service.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use bgp_core::config::{Md5Password, PeerAddress, PeerConfig};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Class selector 6, "network control" (RFC 4594 §3.1), where the fabric looks for it first.
const TRAFFIC_CLASS: u32 = 0xc0;

/// Calls that may wait to be taken. Arbitrary: a rack of neighbours that call at once.
const BACKLOG: i32 = 128;

/// Opens a listening socket on one address. An IPv6 one takes IPv6 only, so that both families can
/// be bound side by side. `set_keys` sets MD5 keys on it before it takes calls.
pub(crate) fn listen(
    address: SocketAddr,
    set_keys: impl FnOnce(BorrowedFd<'_>),
) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    set_traffic_class(&socket, address.ip())?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    set_keys(socket.as_fd());
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Dials a neighbour: password, TTL and source are set before the first packet.
pub(crate) async fn dial(peer: &PeerConfig, ttl: u8) -> io::Result<TcpStream> {
    let remote = socket_address(&peer.address, peer.port)?;
    let socket = Socket::new(
        Domain::for_address(remote),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    if let Some(password) = &peer.password {
        set_md5(socket.as_fd(), remote.ip(), Some(password))?;
    }
    prepare(&socket, remote.ip(), ttl, peer.timers.hold_s())?;
    if let Some(interface) = &peer.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    if let Some(local) = peer.local_address {
        // The port is the kernel's choice, and stays so when another session has this address.
        socket.set_reuse_address(true)?;
        let link_local = matches!(local, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let local = match (local, remote) {
            (IpAddr::V6(v6), SocketAddr::V6(remote)) if link_local => {
                SocketAddrV6::new(v6, 0, 0, remote.scope_id()).into()
            }
            (local, _) => SocketAddr::new(local, 0),
        };
        socket.bind(&local.into())?;
    }
    TcpSocket::from_std_stream(socket.into())
        .connect(remote)
        .await
}

/// Sets on a taken connection what a dialled one has.
///
/// # Errors
/// Also when a password is configured and the call came without one: one that was taken just before
/// the key was set, or that a listening socket without the key took.
pub(crate) fn adopt(stream: &TcpStream, peer: &PeerConfig, ttl: u8) -> io::Result<()> {
    let remote = stream.peer_addr()?.ip();
    if let Some(password) = &peer.password {
        // The kernel tells whether a connection has a key only when the key is taken away.
        if !remove_md5(stream.as_fd(), remote)? {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the call is not signed with the MD5 password",
            ));
        }
        set_md5(stream.as_fd(), remote, Some(password))?;
    }
    prepare(
        &socket2::SockRef::from(stream),
        remote,
        ttl,
        peer.timers.hold_s(),
    )
}

/// The address to dial, with the scope a link-local one needs.
pub(crate) fn socket_address(address: &PeerAddress, port: u16) -> io::Result<SocketAddr> {
    match (address.ip(), address.zone()) {
        (IpAddr::V6(ip), Some(zone)) => {
            Ok(SocketAddrV6::new(ip, port, 0, interface_index(zone)?).into())
        }
        (ip, _) => Ok(SocketAddr::new(ip, port)),
    }
}

/// The index of a device, or an error that says which device is missing.
pub(crate) fn interface_index(name: &str) -> io::Result<u32> {
    let c_name = CString::new(name)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "interface name with a zero"))?;
    nix::net::if_::if_nametoindex(c_name.as_c_str()).map_err(|errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("interface {name}: {error}"))
    })
}

fn prepare(socket: &Socket, remote: IpAddr, ttl: u8, hold_s: u16) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    set_traffic_class(socket, remote)?;
    match remote {
        IpAddr::V4(_) => socket.set_ttl_v4(u32::from(ttl))?,
        IpAddr::V6(_) => socket.set_unicast_hops_v6(u32::from(ttl))?,
    }
    if hold_s > 0 {
        // A peer that vanished is found out by its silence; this ends the kernel's part of waiting
        // for acknowledgements at the same time, so that no half-open connection stays behind.
        socket.set_tcp_user_timeout(Some(Duration::from_secs(u64::from(hold_s))))?;
    }
    Ok(())
}

fn set_traffic_class(socket: &Socket, address: IpAddr) -> io::Result<()> {
    match address {
        IpAddr::V4(_) => socket.set_tos_v4(TRAFFIC_CLASS),
        IpAddr::V6(_) => socket.set_tclass_v6(TRAFFIC_CLASS),
    }
}

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

/// Sets the TCP MD5 key (RFC 2385) a socket uses with one address, or removes it.
///
/// On a listening socket it decides which calls are answered: those of the address with the key,
/// and nothing else of that address.
///
/// # Errors
/// Kernels without `CONFIG_TCP_MD5SIG`, keys beyond `net.core.optmem_max`, and removal of a key
/// that is not there.
pub(crate) fn set_md5(
    socket: BorrowedFd<'_>,
    remote: IpAddr,
    password: Option<&Md5Password>,
) -> io::Result<()> {
    let key = password.map_or(&[][..], Md5Password::reveal);
    let mut option = TcpMd5Sig {
        address: storage(remote),
        flags: 0,
        prefix_len: 0,
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
            libc::TCP_MD5SIG,
            (&raw const option).cast(),
            size_of::<TcpMd5Sig>() as libc::socklen_t,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// Removes the key for an address. Returns whether there was one.
pub(crate) fn remove_md5(socket: BorrowedFd<'_>, remote: IpAddr) -> io::Result<bool> {
    match set_md5(socket, remote, None) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}
