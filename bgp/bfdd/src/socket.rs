// SPDX-License-Identifier: Apache-2.0
//! UDP sockets of sessions: one to send for each session, and one to receive for each port and
//! address family.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use bgp_bfd::profile::Hops;
use bgp_bfd::wire::{PORT_ECHO, PORT_MULTI_HOP, PORT_SINGLE_HOP};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::protocol::SessionKey;

/// RFC 5881 §5: what is sent, and for one hop also what is demanded.
pub(crate) const TTL: u32 = 255;

/// RFC 5881 §4: source ports.
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

/// Source ports tried before giving up. With 10000 sessions on one address one in three is taken.
const PORT_TRIES: u32 = 64;

/// CS6, as other implementations send.
const TOS: u32 = 0xc0;

/// Bytes of received packets that may wait: seconds of a thousand fast sessions.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Which port a socket receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Port {
    Control(Hops),
    Echo,
}

impl Port {
    const ALL: [Port; 3] = [
        Port::Control(Hops::Single),
        Port::Control(Hops::Multi),
        Port::Echo,
    ];

    const fn number(self) -> u16 {
        match self {
            Port::Control(hops) => port(hops),
            Port::Echo => PORT_ECHO,
        }
    }
}

const fn port(hops: Hops) -> u16 {
    match hops {
        Hops::Single => PORT_SINGLE_HOP,
        Hops::Multi => PORT_MULTI_HOP,
    }
}

/// A socket that receives.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) port: Port,
    socket: UdpSocket,
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Where a packet came from, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) from: SocketAddr,
    pub(crate) to: Option<IpAddr>,
    pub(crate) interface: Option<u32>,
    pub(crate) ttl: Option<u8>,
}

/// Opens all sockets that receive.
///
/// # Errors
/// When one cannot be opened; of IPv6 only where the system has it.
pub(crate) fn receivers() -> io::Result<Vec<Receiver>> {
    let mut all = Vec::new();
    for port in Port::ALL {
        all.push(Receiver::open(port, Domain::IPV4)?);
        match Receiver::open(port, Domain::IPV6) {
            Ok(receiver) => all.push(receiver),
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

impl Receiver {
    fn open(port: Port, domain: Domain) -> io::Result<Receiver> {
        let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        let address: IpAddr = if domain == Domain::IPV6 {
            socket.set_only_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
            Ipv4Addr::UNSPECIFIED.into()
        };
        if port == Port::Echo {
            // What is reflected has made one hop already: nobody reflects it again.
            match domain {
                Domain::IPV6 => socket.set_unicast_hops_v6(TTL - 1)?,
                _ => socket.set_ttl_v4(TTL - 1)?,
            }
        }
        // More than rmem_max where we may; what there is where not.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        socket
            .bind(&SocketAddr::new(address, port.number()).into())
            .map_err(|error| {
                let hint = if error.kind() == io::ErrorKind::AddrInUse {
                    ": another BFD daemon runs here; end it, or give it another network namespace"
                } else {
                    ""
                };
                let number = port.number();
                io::Error::new(error.kind(), format!("UDP port {number}: {error}{hint}"))
            })?;
        Ok(Receiver {
            port,
            socket: socket.into(),
        })
    }

    /// Takes one packet; `None` when none waits.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, Arrival)>> {
        let mut control = [0u8; 128];
        let mut slices = [IoSliceMut::new(buffer)];
        let message = match recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        ) {
            Ok(message) => message,
            Err(nix::errno::Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let from = message.address.and_then(|from| {
            if let Some(v4) = from.as_sockaddr_in() {
                Some(SocketAddr::new(v4.ip().into(), v4.port()))
            } else {
                let v6 = from.as_sockaddr_in6()?;
                let (port, scope) = (v6.port(), v6.scope_id());
                Some(SocketAddrV6::new(v6.ip(), port, 0, scope).into())
            }
        });
        let Some(from) = from else {
            return Err(io::Error::other("a packet without a source address"));
        };
        let mut arrival = Arrival {
            from,
            to: None,
            interface: None,
            ttl: None,
        };
        for message in message.cmsgs()? {
            match message {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    arrival.to = Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into());
                    arrival.interface = u32::try_from(info.ipi_ifindex).ok();
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    arrival.to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                    arrival.interface = Some(info.ipi6_ifindex);
                }
                ControlMessageOwned::Ipv4Ttl(ttl) => arrival.ttl = u8::try_from(ttl).ok(),
                ControlMessageOwned::Ipv6HopLimit(ttl) => arrival.ttl = u8::try_from(ttl).ok(),
                _ => {}
            }
        }
        Ok(Some((message.bytes, arrival)))
    }

    /// Sends an echo packet back to where it came from (the neighbour addressed it to us).
    pub(crate) fn reflect(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.socket.send_to(bytes, to).map(drop)
    }
}

/// Opens the socket a session sends by: TTL 255, a source port of its own (RFC 5881 §4), bound to
/// the device for one hop.
///
/// # Errors
/// When an address or a device is not there, or no port is free.
pub(crate) fn sender(key: &SessionKey, mut random: impl FnMut() -> u32) -> io::Result<UdpSocket> {
    let domain = if key.peer.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    match key.peer {
        IpAddr::V4(_) => {
            socket.set_ttl_v4(TTL)?;
            socket.set_tos_v4(TOS)?;
        }
        IpAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_unicast_hops_v6(TTL)?;
            socket.set_tclass_v6(TOS)?;
        }
    }
    // Nothing is received here: the neighbour answers to the port of the protocol.
    socket.set_recv_buffer_size(0)?;
    let scope = match (&key.interface, key.hops) {
        (Some(interface), Hops::Single) => {
            socket.bind_device(Some(interface.as_bytes()))?;
            nix::net::if_::if_nametoindex(interface.as_str())?
        }
        (None, Hops::Single) | (_, Hops::Multi) => 0,
    };
    let at = |ip: IpAddr, port: u16| -> SocketAddr {
        match ip {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                SocketAddrV6::new(v6, port, 0, scope).into()
            }
            IpAddr::V4(_) | IpAddr::V6(_) => SocketAddr::new(ip, port),
        }
    };
    let any: IpAddr = match key.peer {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let ports = u32::from(SOURCE_PORTS.end() - SOURCE_PORTS.start()) + 1;
    let mut tries = 0;
    loop {
        let source = SOURCE_PORTS.start() + (random() % ports) as u16;
        match socket.bind(&at(key.local.unwrap_or(any), source).into()) {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < PORT_TRIES => {
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
    socket.connect(&at(key.peer, port(key.hops)).into())?;
    Ok(socket.into())
}
