// SPDX-License-Identifier: Apache-2.0
//! One socket, in one namespace, and everything that can be asked through it.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use nix::errno::Errno;
use router_types::{LinkIndex, RouteKey};

use crate::address::{self, Address, AddressOptions};
use crate::error::{Error, Problem};
use crate::link::{self, Link, LinkChange, LinkKind, MacAddress, NewVeth};
use crate::neighbour::{self, Neighbour, NeighbourProxy};
use crate::netns::Netns;
use crate::route::{self, KernelRoute, Protocol, RouteFilter, RouteSpec};
use crate::socket::Socket;

/// Longest device name in bytes (`IFNAMSIZ` less the terminator).
const LINK_NAME_MAX: usize = 15;

/// A netlink socket. It stays in the namespace it was opened in, wherever it is used.
pub struct Netlink {
    pub(crate) socket: Socket,
}

impl Netlink {
    /// Opens a socket in the calling thread's namespace.
    pub fn open() -> Result<Self, Error> {
        let socket = Socket::open().map_err(|e| Error::new("open a netlink socket", e.into()))?;
        Ok(Netlink { socket })
    }

    /// Opens a socket in another namespace.
    pub fn open_in(netns: &Netns) -> Result<Self, Error> {
        netns.run(Self::open)?
    }

    /// Lists all devices.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let mut links = Vec::new();
        self.socket
            .dump(
                &RouteNetlinkMessage::GetLink(link::dump_message()),
                |message| {
                    if let RouteNetlinkMessage::NewLink(message) = message {
                        links.push(Link::from_message(message));
                    }
                },
            )
            .map_err(|p| Error::new("list links", p))?;
        Ok(links)
    }

    /// Reads a device by its name.
    ///
    /// # Errors
    ///
    /// [`Error::is_not_found`] when there is none.
    pub fn link_by_name(&mut self, name: &str) -> Result<Link, Error> {
        let action = || format!("read link {name}");
        check_name(name).map_err(|p| Error::new(action(), p))?;
        self.link(link::by_name_message(name))
            .map_err(|p| Error::new(action(), p))
    }

    /// Reads a device by its index.
    ///
    /// # Errors
    ///
    /// [`Error::is_not_found`] when there is none.
    pub fn link_by_index(&mut self, index: LinkIndex) -> Result<Link, Error> {
        self.link(link::by_index_message(index))
            .map_err(|p| Error::new(format!("read link #{}", index.0), p))
    }

    /// Makes a device, down and without addresses, and returns it.
    pub fn create_link(&mut self, name: &str, kind: LinkKind) -> Result<Link, Error> {
        check_name(name)
            .and_then(|()| {
                self.socket.request(
                    RouteNetlinkMessage::NewLink(link::new_message(name, kind)),
                    NLM_F_CREATE | NLM_F_EXCL,
                )
            })
            .map_err(|p| Error::new(format!("create link {name}"), p))?;
        self.link_by_name(name)
    }

    /// Makes a veth pair, both ends down, and returns the end in this namespace.
    pub fn create_veth(&mut self, new: &NewVeth<'_>) -> Result<Link, Error> {
        check_name(new.name)
            .and_then(|()| check_name(new.peer_name))
            .and_then(|()| {
                self.socket.request(
                    RouteNetlinkMessage::NewLink(link::veth_message(new)),
                    NLM_F_CREATE | NLM_F_EXCL,
                )
            })
            .map_err(|p| {
                Error::new(
                    format!("create veth pair {} and {}", new.name, new.peer_name),
                    p,
                )
            })?;
        self.link_by_name(new.name)
    }

    /// Changes a device. All or, if the kernel refuses a later part, some of it: read it again.
    pub fn change_link(&mut self, index: LinkIndex, change: &LinkChange<'_>) -> Result<(), Error> {
        change
            .name
            .map_or(Ok(()), check_name)
            .and_then(|()| {
                self.socket.request(
                    RouteNetlinkMessage::SetLink(link::change_message(index, change)),
                    0,
                )
            })
            .map_err(|p| Error::new(format!("change link #{} ({change:?})", index.0), p))
    }

    /// Deletes a device, and with it its other end if it is a veth.
    pub fn delete_link(&mut self, index: LinkIndex) -> Result<(), Error> {
        let mut message = netlink_packet_route::link::LinkMessage::default();
        message.header.index = index.0;
        self.socket
            .request(RouteNetlinkMessage::DelLink(message), 0)
            .map_err(|p| Error::new(format!("delete link #{}", index.0), p))
    }

    /// Lists the addresses of all devices.
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let mut addresses = Vec::new();
        self.socket
            .dump(
                &RouteNetlinkMessage::GetAddress(AddressMessage::default()),
                |message| {
                    if let RouteNetlinkMessage::NewAddress(message) = message {
                        addresses.extend(Address::from_message(message));
                    }
                },
            )
            .map_err(|p| Error::new("list addresses", p))?;
        Ok(addresses)
    }

    /// Gives a device an address; no error if it has it. IPv6 addresses are usable at once:
    /// duplicate address detection is skipped.
    pub fn add_address(&mut self, link: LinkIndex, address: IpNet) -> Result<(), Error> {
        self.add_address_with(link, address, AddressOptions::default())
    }

    /// Gives a device an address; no error if it has it, though its options stay as they were.
    pub fn add_address_with(
        &mut self,
        link: LinkIndex,
        address: IpNet,
        options: AddressOptions,
    ) -> Result<(), Error> {
        self.socket
            .request(
                RouteNetlinkMessage::NewAddress(address::message(link, address, options)),
                NLM_F_CREATE | NLM_F_REPLACE,
            )
            .map_err(|p| Error::new(format!("add address {address} to link #{}", link.0), p))
    }

    /// Takes an address from a device; no error if it has none such.
    pub fn delete_address(&mut self, link: LinkIndex, address: IpNet) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelAddress(address::message(
            link,
            address,
            AddressOptions::default(),
        ));
        absent_is_fine(self.socket.request(message, 0), Errno::EADDRNOTAVAIL)
            .map_err(|p| Error::new(format!("delete address {address} of link #{}", link.0), p))
    }

    /// Lists routes of both families.
    pub fn routes(&mut self, filter: RouteFilter) -> Result<Vec<KernelRoute>, Error> {
        let mut routes = Vec::new();
        for message in filter.messages() {
            let family = message.header.address_family;
            let request = RouteNetlinkMessage::GetRoute(message);
            let listed = self.socket.dump(&request, |message| {
                if let RouteNetlinkMessage::NewRoute(message) = message
                    // A kernel without IPv6 answers with all families it has.
                    && message.header.address_family == family
                {
                    routes.extend(KernelRoute::from_message(message).filter(|r| filter.accepts(r)));
                }
            });
            // ENOENT: the table has no routes yet.
            absent_is_fine(listed, Errno::ENOENT).map_err(|p| Error::new("list routes", p))?;
        }
        Ok(routes)
    }

    /// Writes a route, whether or not one with the same table, prefix and metric is there.
    ///
    /// The kernel does not look at who wrote the one that is replaced. Where that matters use
    /// [`Netlink::add_route`].
    pub fn replace_route(&mut self, route: &RouteSpec) -> Result<(), Error> {
        self.write_route(route, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Writes a route unless one with the same table, prefix and metric is there.
    ///
    /// # Errors
    ///
    /// [`Error::is_exists`] when there is one.
    pub fn add_route(&mut self, route: &RouteSpec) -> Result<(), Error> {
        self.write_route(route, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Deletes a route of this protocol and metric with all its next hops; no error if there is
    /// none.
    pub fn delete_route(
        &mut self,
        key: RouteKey,
        protocol: Protocol,
        metric: u32,
    ) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelRoute(route::key_message(key, protocol, metric));
        absent_is_fine(self.socket.request(message, 0), Errno::ESRCH)
            .map_err(|p| Error::new(format!("delete {protocol} route {}", key.prefix), p))
    }

    /// The route this node uses for an address, of whichever table its rules lead to.
    ///
    /// # Errors
    ///
    /// When there is none the kernel answers `ENETUNREACH`.
    pub fn lookup_route(&mut self, address: IpAddr) -> Result<KernelRoute, Error> {
        let error = |p| Error::new(format!("look up the route to {address}"), p);
        let message = RouteNetlinkMessage::GetRoute(route::lookup_message(address));
        match self.socket.get(message).map_err(error)? {
            RouteNetlinkMessage::NewRoute(message) => {
                KernelRoute::from_message(message).ok_or(error(Problem::Garbled))
            }
            _ => Err(error(Problem::Garbled)),
        }
    }

    /// Lists neighbours, of one device or all.
    pub fn neighbours(&mut self, link: Option<LinkIndex>) -> Result<Vec<Neighbour>, Error> {
        let mut neighbours = Vec::new();
        let message = RouteNetlinkMessage::GetNeighbour(neighbour::dump_message(link));
        self.socket
            .dump(&message, |message| {
                if let RouteNetlinkMessage::NewNeighbour(message) = message {
                    neighbours.extend(Neighbour::from_message(message));
                }
            })
            .map_err(|p| Error::new("list neighbours", p))?;
        neighbours.retain(|n: &Neighbour| link.is_none_or(|link| link == n.link));
        Ok(neighbours)
    }

    /// Writes a neighbour that never expires, in place of whatever is known of it.
    pub fn set_neighbour(
        &mut self,
        link: LinkIndex,
        address: IpAddr,
        mac: MacAddress,
    ) -> Result<(), Error> {
        let message = neighbour::message(link, address, Some(mac));
        self.socket
            .request(
                RouteNetlinkMessage::NewNeighbour(message),
                NLM_F_CREATE | NLM_F_REPLACE,
            )
            .map_err(|p| {
                Error::new(
                    format!("set neighbour {address} ({mac}) of link #{}", link.0),
                    p,
                )
            })
    }

    /// Forgets a neighbour; no error if it is unknown.
    pub fn delete_neighbour(&mut self, link: LinkIndex, address: IpAddr) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelNeighbour(neighbour::message(link, address, None));
        absent_is_fine(self.socket.request(message, 0), Errno::ENOENT)
            .map_err(|p| Error::new(format!("delete neighbour {address} of link #{}", link.0), p))
    }

    /// Lists the addresses the kernel answers for on devices they are not configured on.
    pub fn proxies(&mut self) -> Result<Vec<NeighbourProxy>, Error> {
        let mut proxies = Vec::new();
        let message = RouteNetlinkMessage::GetNeighbour(NeighbourProxy::dump_message());
        self.socket
            .dump(&message, |message| {
                if let RouteNetlinkMessage::NewNeighbour(message) = message {
                    proxies.extend(NeighbourProxy::from_message(message));
                }
            })
            .map_err(|p| Error::new("list neighbour proxies", p))?;
        Ok(proxies)
    }

    /// Lets the kernel answer for an address on a device; no error if it does. For IPv6 it does so
    /// while `forwarding` and `proxy_ndp` of the device are 1.
    pub fn set_proxy(&mut self, proxy: &NeighbourProxy) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewNeighbour(proxy.message());
        self.socket
            .request(message, NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(|p| {
                let NeighbourProxy { link, address, .. } = proxy;
                Error::new(format!("answer for {address} on link #{}", link.0), p)
            })
    }

    /// Lets the kernel no longer answer for an address on a device; no error if it does not.
    pub fn delete_proxy(&mut self, proxy: &NeighbourProxy) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelNeighbour(proxy.message());
        absent_is_fine(self.socket.request(message, 0), Errno::ENOENT).map_err(|p| {
            let NeighbourProxy { link, address, .. } = proxy;
            Error::new(
                format!("no longer answer for {address} on link #{}", link.0),
                p,
            )
        })
    }

    fn link(&mut self, message: netlink_packet_route::link::LinkMessage) -> Result<Link, Problem> {
        match self.socket.get(RouteNetlinkMessage::GetLink(message))? {
            RouteNetlinkMessage::NewLink(message) => Ok(Link::from_message(message)),
            _ => Err(Problem::Garbled),
        }
    }

    fn write_route(&mut self, route: &RouteSpec, flags: u16) -> Result<(), Error> {
        self.socket
            .request(RouteNetlinkMessage::NewRoute(route.message()), flags)
            .map_err(|p| Error::new(format!("write {} route {route}", route.protocol), p))
    }
}

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netlink").finish_non_exhaustive()
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), Problem> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0';
    if name.is_empty()
        || name.len() > LINK_NAME_MAX
        || name == "."
        || name == ".."
        || name.contains(bad)
    {
        return Err(Problem::Invalid(
            "a device name has 1 to 15 bytes, no slash, colon or white space, and is not . or ..",
        ));
    }
    Ok(())
}

/// Deleting what is not there has succeeded.
fn absent_is_fine(result: Result<(), Problem>, absent: Errno) -> Result<(), Problem> {
    match result {
        Err(Problem::Refused { errno, .. }) if errno == absent => Ok(()),
        other => other,
    }
}
