// SPDX-License-Identifier: Apache-2.0
//! Sockets as BGP wants them: MD5, TTL, device, class, and what the links around them offer.
//!
//! Sockets are made in the network namespace of the thread that asks, the process's own.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::time::Duration;

use bgp_core::config::{Md5Password, PeerConfig};
use bgp_core::peer::{FailureKind, SessionAddresses, TransportFailure};
use router_types::LinkIndex;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// DSCP CS6, "network control" (RFC 4594 §3.1), as the TOS byte.
const TOS_CS6: u32 = 0xc0;

/// Pending calls on a listening socket. Arbitrary: every neighbour of a node at once.
const BACKLOG: i32 = 64;

/// `struct tcp_md5sig` of the kernel's `linux/tcp.h`.
#[repr(C)]
struct TcpMd5Sig {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    interface: i32,
    key: [u8; 80],
}

const _: () = assert!(size_of::<TcpMd5Sig>() == 216);

/// Connects to a neighbour as configured.
pub(crate) async fn dial(config: &PeerConfig, ttl: u8) -> Result<TcpStream, TransportFailure> {
    let remote = remote_address(config).map_err(failure)?;
    let socket = prepare(config, remote, ttl).map_err(failure)?;
    let stream = TcpSocket::from_std_stream(socket.into())
        .connect(remote)
        .await;
    stream.map_err(failure)
}

/// Options of a connection that is there, dialled or taken.
pub(crate) fn tune(stream: &TcpStream, config: &PeerConfig, ttl: u8) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    set_ttl(&socket, stream.peer_addr()?.ip(), ttl)?;
    // What the neighbour does not acknowledge for the hold time is lost with it. Keepalives come
    // often enough that a half-open connection is noticed by this, too.
    let hold_s = u64::from(config.timers.hold_s());
    let timeout = Duration::from_secs(if hold_s == 0 { 240 } else { hold_s });
    socket.set_tcp_user_timeout(Some(timeout))
}

/// Sets the TTL or hop limit of a socket.
pub(crate) fn set_ttl(socket: &SockRef<'_>, remote: IpAddr, ttl: u8) -> io::Result<()> {
    match remote {
        IpAddr::V4(_) => socket.set_ttl_v4(ttl.into()),
        IpAddr::V6(_) => socket.set_unicast_hops_v6(ttl.into()),
    }
}

/// Sets, replaces or (with `None`) removes the MD5 key for an address (RFC 2385).
pub(crate) fn set_md5(
    socket: &impl AsRawFd,
    remote: SocketAddr,
    password: Option<&Md5Password>,
) -> io::Result<()> {
    let address = socket2::SockAddr::from(match remote {
        // The port does not take part.
        SocketAddr::V4(v4) => SocketAddr::new(IpAddr::V4(*v4.ip()), 0),
        SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), 0, 0, v6.scope_id()).into(),
    });
    let key = password.map_or(&[][..], Md5Password::reveal);
    let mut option = TcpMd5Sig {
        // SAFETY: all-zero bytes are a valid sockaddr_storage, a struct of integers.
        address: unsafe { std::mem::zeroed() },
        flags: 0,
        prefix_len: 0,
        key_len: key.len() as u16,
        interface: 0,
        key: [0; 80],
    };
    option.key[..key.len()].copy_from_slice(key);
    // SAFETY: the source is a socket address of `len()` valid bytes, at most the size of
    // sockaddr_storage, and the destination is one.
    unsafe {
        std::ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            (&raw mut option.address).cast::<u8>(),
            address.len() as usize,
        );
    }
    // SAFETY: the descriptor is open for the borrow's life, and the pointer and length are those
    // of a live value of the layout the option asks for.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_MD5SIG,
            (&raw const option).cast(),
            size_of::<TcpMd5Sig>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // There was no key to remove.
            error if password.is_none() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            error => Err(error),
        },
    }
}

/// A listening socket with its MD5 keys set before the first call can come.
pub(crate) fn listen(
    address: SocketAddr,
    keys: &[(SocketAddr, Md5Password)],
) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_tclass_v6(TOS_CS6)?;
    } else {
        socket.set_tos_v4(TOS_CS6)?;
    }
    socket.bind(&address.into())?;
    for (remote, password) in keys
        .iter()
        .filter(|(r, _)| r.is_ipv6() == address.is_ipv6())
    {
        set_md5(&socket, *remote, Some(password))?;
    }
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The neighbour's address with the scope of its zone.
pub(crate) fn remote_address(config: &PeerConfig) -> io::Result<SocketAddr> {
    let address = config.socket_address();
    match (address, config.address.zone()) {
        (SocketAddr::V6(v6), Some(zone)) => {
            let index = nix::net::if_::if_nametoindex(zone).map_err(|errno| {
                let text = format!("interface {zone} of the peer's address: {}", errno.desc());
                io::Error::new(io::ErrorKind::AddrNotAvailable, text)
            })?;
            Ok(SocketAddrV6::new(*v6.ip(), v6.port(), 0, index).into())
        }
        (address, _) => Ok(address),
    }
}

/// Both ends of a connection, and what the device with the local address offers as next hops.
pub(crate) fn addresses(stream: &TcpStream) -> io::Result<SessionAddresses> {
    let local = unmapped(stream.local_addr()?);
    let remote = unmapped(stream.peer_addr()?);
    let mut found = SessionAddresses {
        local,
        remote,
        link: None,
        link_ipv4: None,
        link_ipv6: None,
    };
    let scope = match remote {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => Some(v6.scope_id()),
        SocketAddr::V6(_) | SocketAddr::V4(_) => None,
    };
    let all: Vec<(String, IpAddr)> = nix::ifaddrs::getifaddrs()?
        .filter_map(|entry| Some((entry.interface_name, ip_of(&entry.address?)?)))
        .collect();
    let name = match scope {
        Some(index) => all.iter().map(|(name, _)| name).find(|name| {
            nix::net::if_::if_nametoindex(name.as_str()).is_ok_and(|found| found == index)
        }),
        None => all
            .iter()
            .find(|(_, ip)| *ip == local.ip())
            .map(|(name, _)| name),
    };
    let Some(name) = name else { return Ok(found) };
    found.link = nix::net::if_::if_nametoindex(name.as_str())
        .ok()
        .map(LinkIndex);
    for (_, ip) in all
        .iter()
        .filter(|(other, ip)| other == name && !ip.is_loopback())
    {
        match ip {
            IpAddr::V4(v4) => {
                found.link_ipv4.get_or_insert(*v4);
            }
            IpAddr::V6(v6) if !v6.is_unicast_link_local() => {
                found.link_ipv6.get_or_insert(*v6);
            }
            IpAddr::V6(_) => {}
        }
    }
    Ok(found)
}

/// A transport error by what an operator has to look at.
pub(crate) fn failure(error: io::Error) -> TransportFailure {
    let kind = match error.kind() {
        io::ErrorKind::ConnectionRefused => FailureKind::Refused,
        io::ErrorKind::TimedOut => FailureKind::TimedOut,
        io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkDown => FailureKind::Unreachable,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => FailureKind::Reset,
        io::ErrorKind::AddrNotAvailable => FailureKind::NoLocalAddress,
        _ if error.raw_os_error() == Some(libc::ENODEV) => FailureKind::NoLocalAddress,
        _ => FailureKind::Other,
    };
    TransportFailure {
        kind,
        text: error.to_string(),
    }
}

fn prepare(config: &PeerConfig, remote: SocketAddr, ttl: u8) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(remote),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    set_ttl(&SockRef::from(&socket), remote.ip(), ttl)?;
    if remote.is_ipv6() {
        socket.set_tclass_v6(TOS_CS6)?;
    } else {
        socket.set_tos_v4(TOS_CS6)?;
    }
    if let Some(interface) = &config.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    if let Some(local) = config.local_address {
        let scope = match remote {
            SocketAddr::V6(v6) => v6.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        let local = match local {
            IpAddr::V4(_) => SocketAddr::new(local, 0),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, 0, 0, scope).into(),
        };
        socket.bind(&local.into())?;
    }
    if let Some(password) = &config.password {
        set_md5(&socket, remote, Some(password))?;
    }
    Ok(socket)
}

fn unmapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), v6.port()),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

fn ip_of(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}
