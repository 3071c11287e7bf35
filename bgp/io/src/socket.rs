// SPDX-License-Identifier: Apache-2.0
//! Sockets with what BGP wants of them: MD5 keys, TTL, segment size, source, class of service.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use bgp_core::config::{PeerAddress, PeerConfig, TcpMss, TtlSecurity};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::md5;

/// Class selector 6, "network control" (RFC 4594 §3.1), where the fabric looks for it first.
const TRAFFIC_CLASS: u32 = 0xc0;

/// `IP_MINTTL` of `linux/in.h`.
const IP_MINTTL: i32 = 21;

/// `IPV6_MINHOPCOUNT` of `linux/in6.h`.
const IPV6_MINHOPCOUNT: i32 = 73;

/// Calls that may wait to be taken. Arbitrary: a rack of neighbours that call at once.
const BACKLOG: i32 = 128;

/// Opens a listening socket on one address, for calls by one device if one is given. An IPv6 one takes
/// IPv6 only, so that both families can be bound side by side. `set_keys` sets MD5 keys on it before
/// it takes calls.
pub(crate) fn listen(
    address: SocketAddr,
    device: Option<&str>,
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
    // Answers to calls: neighbours that count hops take no others (RFC 5082 §3).
    set_ttl(&socket, address.ip(), u8::MAX)?;
    socket.set_nonblocking(true)?;
    if let Some(device) = device {
        bind_device(&socket, device)?;
    }
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
        md5::set(socket.as_fd(), remote.ip(), Some(password))?;
    }
    if let Some(mss) = peer.tcp_mss {
        set_mss(socket.as_fd(), mss)?;
    }
    prepare(&socket, remote.ip(), peer, ttl)?;
    if let Some(device) = &peer.interface {
        bind_device(&socket, device)?;
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
        if !md5::remove(stream.as_fd(), remote)? {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the call is not signed with the MD5 password",
            ));
        }
        md5::set(stream.as_fd(), remote, Some(password))?;
    }
    let socket = socket2::SockRef::from(stream);
    if let Some(device) = &peer.interface {
        // From here on what comes by another device finds no connection: the kernel resets it.
        bind_device(&socket, device)?;
    }
    prepare(&socket, remote, peer, ttl)
}

/// Sets on a connection what its neighbour's configuration says by now: TTL, TTL security, and the
/// password where there was one before.
pub(crate) fn renew(stream: &TcpStream, peer: &PeerConfig, ttl: u8) -> io::Result<()> {
    let remote = stream.peer_addr()?.ip();
    if let Some(password) = &peer.password {
        md5::set(stream.as_fd(), remote, Some(password))?;
    }
    prepare(&socket2::SockRef::from(stream), remote, peer, ttl)
}

/// Has the kernel drop packets whose TTL is lower (RFC 5082); 0 for none.
pub(crate) fn set_least_ttl(socket: BorrowedFd<'_>, remote: IpAddr, ttl: u8) -> io::Result<()> {
    let (level, name) = match remote {
        IpAddr::V4(_) => (libc::IPPROTO_IP, IP_MINTTL),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT),
    };
    set_number(socket, level, name, ttl.into())
}

/// Limits the segments a socket sends, and announces the limit when set before the connection is
/// there. Calls inherit it from the listening socket.
pub(crate) fn set_mss(socket: BorrowedFd<'_>, mss: TcpMss) -> io::Result<()> {
    let octets = i32::from(mss.octets());
    set_number(socket, libc::IPPROTO_TCP, libc::TCP_MAXSEG, octets)
}

/// Has a reader woken when there are so many bytes, or the end.
pub(crate) fn set_low_water(socket: BorrowedFd<'_>, octets: i32) -> io::Result<()> {
    set_number(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, octets)
}

fn set_number(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: `value` is a live integer of the length given, and the kernel only reads it. The
    // descriptor is borrowed, so it is open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

fn bind_device(socket: &Socket, device: &str) -> io::Result<()> {
    let bound = socket.bind_device(Some(device.as_bytes()));
    bound.map_err(|error| io::Error::new(error.kind(), format!("interface {device}: {error}")))
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

fn prepare(socket: &Socket, remote: IpAddr, peer: &PeerConfig, ttl: u8) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    set_traffic_class(socket, remote)?;
    set_ttl(socket, remote, ttl)?;
    let least_ttl = peer.ttl_security.map_or(0, TtlSecurity::least_ttl);
    set_least_ttl(socket.as_fd(), remote, least_ttl)?;
    // The part of the send hold timer only the kernel can tell: what it has taken and the
    // neighbour does not acknowledge, or has no room for.
    socket.set_tcp_user_timeout(peer.send_hold.under(peer.timers.hold_s()))?;
    Ok(())
}

fn set_ttl(socket: &Socket, address: IpAddr, ttl: u8) -> io::Result<()> {
    match address {
        IpAddr::V4(_) => socket.set_ttl_v4(u32::from(ttl)),
        IpAddr::V6(_) => socket.set_unicast_hops_v6(u32::from(ttl)),
    }
}

fn set_traffic_class(socket: &Socket, address: IpAddr) -> io::Result<()> {
    match address {
        IpAddr::V4(_) => socket.set_tos_v4(TRAFFIC_CLASS),
        IpAddr::V6(_) => socket.set_tclass_v6(TRAFFIC_CLASS),
    }
}
