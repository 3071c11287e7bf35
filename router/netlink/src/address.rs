// SPDX-License-Identifier: Apache-2.0
//! Addresses of network devices.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use router_types::LinkIndex;

/// An address configured on a device, as it was when it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// The device.
    pub link: LinkIndex,
    /// The address and the length of the network it connects to; host bits are the address's.
    pub address: IpNet,
    /// The other end of a point-to-point link, where that is set.
    pub peer: Option<IpAddr>,
    /// Not yet usable: duplicate address detection is running (IPv6).
    pub tentative: bool,
    /// Duplicate address detection found another holder (IPv6): not in use.
    pub duplicate: bool,
}

impl Address {
    pub(crate) fn from_message(message: AddressMessage) -> Option<Self> {
        let mut local = None;
        let mut address = None;
        let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(ip),
                AddressAttribute::Address(ip) => address = Some(ip),
                AddressAttribute::Flags(all) => flags = all,
                _ => {}
            }
        }
        // With a peer, IFA_LOCAL is ours and IFA_ADDRESS the peer's; IPv6 leaves IFA_LOCAL out
        // when there is none.
        let own = local.or(address)?;
        Some(Address {
            link: LinkIndex(message.header.index),
            address: IpNet::new(own, message.header.prefix_len).ok()?,
            peer: address.filter(|ip| *ip != own),
            tentative: flags.contains(AddressFlags::Tentative),
            duplicate: flags.contains(AddressFlags::Dadfailed),
        })
    }
}

/// Duplicate address detection is skipped for IPv6: our addresses are handed out by an allocator
/// and must be usable at once.
pub(crate) fn message(link: LinkIndex, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = link.0;
    message.header.prefix_len = address.prefix_len();
    message.header.scope = AddressScope::Universe;
    message
        .attributes
        .push(AddressAttribute::Local(address.addr()));
    message
        .attributes
        .push(AddressAttribute::Address(address.addr()));
    match address {
        IpNet::V4(net) => {
            message.header.family = AddressFamily::Inet;
            if net.addr().is_loopback() {
                message.header.scope = AddressScope::Host;
            }
            if net.prefix_len() < 31 {
                message
                    .attributes
                    .push(AddressAttribute::Broadcast(net.broadcast()));
            }
        }
        IpNet::V6(net) => {
            message.header.family = AddressFamily::Inet6;
            if net.addr().is_unicast_link_local() {
                message.header.scope = AddressScope::Link;
            }
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    message
}
