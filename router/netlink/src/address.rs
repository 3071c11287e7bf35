// SPDX-License-Identifier: Apache-2.0
//! Addresses of network devices.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo,
};
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

/// How an address is put on a device. The default is what most addresses want: usable at once,
/// reachable from wherever its text says, and with a route to its network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressOptions {
    /// Whether the kernel adds a route to the network the address connects to. Default: yes.
    pub prefix_route: bool,
    /// Whether the kernel first asks if another has the address (RFC 4862 §5.4; IPv6 only).
    /// Default: no, as our addresses are handed out by an allocator and must be usable at once.
    pub duplicate_detection: bool,
    /// Whether this node may choose the address as the source of its own packets where it has
    /// another. If not: IPv4 addresses get scope `link`, which keeps the kernel from taking them for
    /// packets by other devices; IPv6 addresses are deprecated (RFC 6724 §5, rule 3). Default: yes.
    pub chosen_as_source: bool,
}

impl Default for AddressOptions {
    fn default() -> Self {
        AddressOptions {
            prefix_route: true,
            duplicate_detection: false,
            chosen_as_source: true,
        }
    }
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

pub(crate) fn message(link: LinkIndex, address: IpNet, options: AddressOptions) -> AddressMessage {
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
    let mut flags = AddressFlags::empty();
    flags.set(AddressFlags::Noprefixroute, !options.prefix_route);
    match address {
        IpNet::V4(net) => {
            message.header.family = AddressFamily::Inet;
            if net.addr().is_loopback() {
                message.header.scope = AddressScope::Host;
            } else if !options.chosen_as_source {
                message.header.scope = AddressScope::Link;
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
            flags.set(AddressFlags::Nodad, !options.duplicate_detection);
            if !options.chosen_as_source {
                let mut lifetime = CacheInfo::default();
                lifetime.ifa_preferred = 0;
                lifetime.ifa_valid = u32::MAX;
                message
                    .attributes
                    .push(AddressAttribute::CacheInfo(lifetime));
            }
        }
    }
    if !flags.is_empty() {
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    message
}
