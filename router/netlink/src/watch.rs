// SPDX-License-Identifier: Apache-2.0
//! News of links, addresses and routes as they change.

use std::collections::VecDeque;
use std::fmt;
use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use router_types::LinkIndex;
use tokio::io::unix::AsyncFd;

use crate::address::Address;
use crate::error::Error;
use crate::link::Link;
use crate::netns::Netns;
use crate::route::{KernelRoute, Protocol};
use crate::socket::frames;

/// Receive buffer asked for, in bytes: some 10 000 route notifications. The kernel gives it to
/// `CAP_NET_ADMIN` whatever `net.core.rmem_max` says; others get what that allows.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;

/// Largest notification.
const DATAGRAM: usize = 64 * 1024;

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`,
/// `RTMGRP_IPV6_ROUTE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// A change somebody made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A link is new or changed.
    LinkSet(Link),
    /// A link is gone.
    LinkGone(Link),
    /// A link has an address, or its state changed.
    AddressSet(Address),
    /// A link has an address no longer.
    AddressGone(Address),
    /// A route is new or changed. One an IPv4 route took the place of is not reported.
    RouteSet(KernelRoute),
    /// A route is gone. Not reported for IPv4 routes that go because their device went down:
    /// take a [`Event::LinkSet`] that is down, or [`Event::LinkGone`], as a reason to look.
    RouteGone(KernelRoute),
    /// The kernel dropped notifications: everything must be listed anew.
    Lost,
}

/// Listens to changes in one namespace. Begin to listen, then list: nothing is missed that way.
pub struct Watcher {
    socket: AsyncFd<netlink_sys::Socket>,
    pending: VecDeque<Event>,
    buffer: Vec<u8>,
    ignored_protocol: Option<Protocol>,
    ignored_port: Option<u32>,
    /// Notifications were dropped, and the backlog is being thrown away: until it is empty the
    /// kernel drops more without saying so again.
    lost: bool,
}

impl Watcher {
    /// Listens in the calling thread's namespace.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    pub fn open() -> Result<Self, Error> {
        Self::from_socket(open_socket())
    }

    /// Listens in another namespace.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    pub fn open_in(netns: &Netns) -> Result<Self, Error> {
        Self::from_socket(netns.run(open_socket)?)
    }

    /// Leaves out changes made through the socket with this port, such as our own
    /// [`RouteTable::port`](crate::RouteTable::port): a million routes written need not be heard
    /// of again.
    pub fn ignore_port(&mut self, port: u32) {
        self.ignored_port = Some(port);
    }

    /// Leaves out routes with this protocol, whoever made them.
    pub fn ignore_protocol(&mut self, protocol: Protocol) {
        self.ignored_protocol = Some(protocol);
    }

    /// Waits for the next change. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            let error = |e: io::Error| Error::new("listen to network changes", e.into());
            let mut ready = self.socket.readable().await.map_err(error)?;
            self.buffer.clear();
            let buffer = &mut self.buffer;
            match ready.try_io(|socket| socket.get_ref().recv(buffer, 0)) {
                Err(_would_block) => {
                    if std::mem::take(&mut self.lost) {
                        tracing::warn!("the kernel dropped notifications; list everything anew");
                        return Ok(Event::Lost);
                    }
                }
                Ok(Ok(_)) if self.lost => {}
                Ok(Ok(_)) => self.take_in(),
                Ok(Err(e)) => match e.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EINTR) => {}
                    Some(Errno::ENOBUFS) => self.lost = true,
                    _ => return Err(error(e)),
                },
            }
        }
    }

    fn from_socket(socket: io::Result<netlink_sys::Socket>) -> Result<Self, Error> {
        let socket = socket
            .and_then(|socket| {
                // SAFETY: a netlink socket owns its descriptor, hands out the same one each time
                // and closes it when it is dropped, which is after the AsyncFd let go of it.
                let registered = unsafe { AsyncFd::register(socket) };
                registered.map_err(|error| error.into_parts().1)
            })
            .map_err(|e| Error::new("listen to network changes", e.into()))?;
        Ok(Watcher {
            socket,
            pending: VecDeque::new(),
            buffer: Vec::with_capacity(DATAGRAM),
            ignored_protocol: None,
            ignored_port: None,
            lost: false,
        })
    }

    /// Decodes one datagram, which bounds `pending`.
    fn take_in(&mut self) {
        for frame in frames(&self.buffer) {
            if self.ignored_port.is_some_and(|port| port == frame.port) {
                continue;
            }
            let Some(event) = frame.decode().and_then(to_event) else {
                continue;
            };
            let ignored = match &event {
                Event::RouteSet(route) | Event::RouteGone(route) => {
                    self.ignored_protocol == Some(route.protocol)
                }
                Event::LinkSet(_)
                | Event::LinkGone(_)
                | Event::AddressSet(_)
                | Event::AddressGone(_)
                | Event::Lost => false,
            };
            if !ignored {
                self.pending.push_back(event);
            }
        }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

impl Event {
    /// The device an event is about, if it says that the device can no longer be used: the kernel
    /// may have dropped routes over it without a word.
    pub fn unusable_link(&self) -> Option<LinkIndex> {
        match self {
            Event::LinkGone(link) => Some(link.index),
            Event::LinkSet(link) if !link.is_usable() => Some(link.index),
            Event::LinkSet(_)
            | Event::AddressSet(_)
            | Event::AddressGone(_)
            | Event::RouteSet(_)
            | Event::RouteGone(_)
            | Event::Lost => None,
        }
    }
}

fn open_socket() -> io::Result<netlink_sys::Socket> {
    let mut socket = netlink_sys::Socket::new(NETLINK_ROUTE)?;
    socket.set_non_blocking(true)?;
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
    }
    socket.bind(&SocketAddr::new(0, GROUPS))?;
    Ok(socket)
}

fn to_event(message: RouteNetlinkMessage) -> Option<Event> {
    Some(match message {
        RouteNetlinkMessage::NewLink(m) => Event::LinkSet(Link::from_message(m)),
        RouteNetlinkMessage::DelLink(m) => Event::LinkGone(Link::from_message(m)),
        RouteNetlinkMessage::NewAddress(m) => Event::AddressSet(Address::from_message(m)?),
        RouteNetlinkMessage::DelAddress(m) => Event::AddressGone(Address::from_message(m)?),
        RouteNetlinkMessage::NewRoute(m) => Event::RouteSet(KernelRoute::from_message(m)?),
        RouteNetlinkMessage::DelRoute(m) => Event::RouteGone(KernelRoute::from_message(m)?),
        _ => return None,
    })
}
