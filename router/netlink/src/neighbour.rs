// SPDX-License-Identifier: Apache-2.0
//! Link-layer addresses of neighbours: ARP and neighbour discovery tables.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteProtocol, RouteType};
use router_types::LinkIndex;

use crate::link::MacAddress;
use crate::route::Protocol;

/// A neighbour as it was when it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// The device it is reached by.
    pub link: LinkIndex,
    /// Its address.
    pub address: IpAddr,
    /// Its link-layer address, once known.
    pub mac: Option<MacAddress>,
    /// Written by an operator or daemon: never expires.
    pub permanent: bool,
    /// Did not answer when asked.
    pub failed: bool,
}

impl Neighbour {
    pub(crate) fn from_message(message: NeighbourMessage) -> Option<Self> {
        let mut address = None;
        let mut mac = None;
        for attribute in message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                    address = Some(IpAddr::V4(ip));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                    address = Some(IpAddr::V6(ip));
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = bytes.try_into().ok().map(MacAddress);
                }
                _ => {}
            }
        }
        Some(Neighbour {
            link: LinkIndex(message.header.ifindex),
            address: address?,
            mac,
            permanent: message.header.state == NeighbourState::Permanent,
            failed: message.header.state == NeighbourState::Failed,
        })
    }
}

/// An address the kernel answers for on a device, though it is not configured there
/// (`ip neighbour add proxy`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NeighbourProxy {
    /// The device.
    pub link: LinkIndex,
    /// The address.
    pub address: IpAddr,
    /// Who wrote it.
    pub protocol: Protocol,
}

impl NeighbourProxy {
    pub(crate) fn from_message(message: NeighbourMessage) -> Option<Self> {
        let link = LinkIndex(message.header.ifindex);
        let protocol = message.attributes.iter().find_map(|a| match a {
            NeighbourAttribute::Protocol(protocol) => Some(Protocol(u8::from(*protocol))),
            _ => None,
        });
        Some(NeighbourProxy {
            link,
            address: Neighbour::from_message(message)?.address,
            protocol: protocol.unwrap_or(Protocol(0)),
        })
    }

    pub(crate) fn message(&self) -> NeighbourMessage {
        let mut message = message(self.link, self.address, None);
        message.header.flags = NeighbourFlags::Proxy;
        message
            .attributes
            .push(NeighbourAttribute::Protocol(RouteProtocol::from(
                self.protocol.0,
            )));
        message
    }

    pub(crate) fn dump_message() -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.flags = NeighbourFlags::Proxy;
        message
    }
}

pub(crate) fn dump_message(link: Option<LinkIndex>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message
        .attributes
        .extend(link.map(|link| NeighbourAttribute::IfIndex(link.0)));
    message
}

pub(crate) fn message(
    link: LinkIndex,
    address: IpAddr,
    mac: Option<MacAddress>,
) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = link.0;
    message.header.kind = RouteType::Unicast;
    message
        .attributes
        .push(NeighbourAttribute::Destination(address.into()));
    if let Some(mac) = mac {
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    }
    message
}
