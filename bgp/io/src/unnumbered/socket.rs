// SPDX-License-Identifier: Apache-2.0
//! A raw ICMPv6 socket on one link.

use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::message::{HOP_LIMIT, Message};

/// All nodes of the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// All routers of the link.
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// The largest message looked at: no link sends larger packets without fragments, which RFC 6980
/// forbids here.
const LARGEST: usize = 9216;

/// A raw ICMPv6 socket bound to a link.
pub(super) struct LinkSocket {
    socket: AsyncFd<Socket>,
    index: u32,
}

impl LinkSocket {
    /// Opens one in the calling thread's namespace.
    ///
    /// # Errors
    /// No such interface, or no `CAP_NET_RAW`.
    pub(super) fn open(interface: &str) -> io::Result<LinkSocket> {
        let index = crate::socket::interface_index(interface)?;
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_multicast_hops_v6(HOP_LIMIT.into())?;
        socket.set_unicast_hops_v6(HOP_LIMIT.into())?;
        socket.set_multicast_loop_v6(false)?;
        socket.set_multicast_if_v6(index)?;
        socket.set_recv_hoplimit_v6(true)?;
        socket.join_multicast_v6(&ALL_ROUTERS, index)?;
        // SAFETY: the socket owns its descriptor and always gives out the same one; nothing takes it
        // out of the `AsyncFd` or replaces it.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(LinkSocket { socket, index })
    }

    /// Sends to whom it concerns.
    ///
    /// # Errors
    /// When the link is down or gone, or has no link-local address yet.
    pub(super) async fn send(&self, message: Message) -> io::Result<()> {
        let group = match message {
            Message::Solicitation => ALL_ROUTERS,
            Message::Advertisement => ALL_NODES,
        };
        let to = SocketAddrV6::new(group, 0, 0, self.index).into();
        let octets = message.encode();
        loop {
            let mut ready = self.socket.writable().await?;
            match ready.try_io(|socket| socket.get_ref().send_to(&octets, &to)) {
                Ok(sent) => return sent.map(drop),
                Err(_would_block) => {}
            }
        }
    }

    /// Waits for any ICMPv6 message; `None` for one that is not router discovery or not to be
    /// believed.
    ///
    /// # Errors
    /// When the link is gone.
    pub(super) async fn receive(&self) -> io::Result<Option<(Ipv6Addr, Message)>> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| receive(socket.get_ref())) {
                Ok(received) => return received,
                Err(_would_block) => {}
            }
        }
    }
}

fn receive(socket: &Socket) -> io::Result<Option<(Ipv6Addr, Message)>> {
    let mut buffer = [0; LARGEST];
    let mut control = nix::cmsg_space!(libc::c_int);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let received = recvmsg::<SockaddrIn6>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let hop_limit = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv6HopLimit(limit) => u8::try_from(limit).ok(),
        _ => None,
    });
    let (length, from) = (received.bytes, received.address.map(|address| address.ip()));
    let (Some(from), Some(hop_limit)) = (from, hop_limit) else {
        return Ok(None);
    };
    let message = Message::decode(&buffer[..length], from, hop_limit);
    Ok(message.map(|message| (from, message)))
}
