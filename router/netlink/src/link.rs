// SPDX-License-Identifier: Apache-2.0
//! Network devices.

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::link::{
    InfoData, InfoGeneve, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags,
    LinkInfo, LinkMessage, State,
};
use router_types::LinkIndex;

use crate::netns::Netns;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A network device as it was when it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Index in its namespace.
    pub index: LinkIndex,
    /// Name in its namespace, at most 15 bytes.
    pub name: String,
    /// The operator's or owner's note on it (`ip link set .. alias`).
    pub alias: Option<String>,
    /// The driver, `veth` or `bridge`; `None` for hardware and loopback.
    pub kind: Option<String>,
    /// Hardware address, where it has one of six bytes.
    pub mac: Option<MacAddress>,
    /// Largest packet in bytes, without the link-layer header.
    pub mtu: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// The other end is there (`IFF_LOWER_UP`, and no operational state that says otherwise).
    pub carrier: bool,
    /// The loopback device.
    pub loopback: bool,
    /// The bridge, bond or VRF it is a port of.
    pub controller: Option<LinkIndex>,
    /// The device below or, for a veth, the other end; in `peer_netns_id` if that is set.
    pub peer: Option<LinkIndex>,
    /// The namespace of `peer` as this namespace numbers others, when it is another one.
    pub peer_netns_id: Option<i32>,
    /// How it sends and receives, if it is a VXLAN or Geneve device.
    pub tunnel: Option<TunnelOptions>,
}

/// What a tunnel speaks between its ends. Both headers have a number of 24 bits for each packet, and
/// eight bytes as long as Geneve has no options.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TunnelKind {
    /// RFC 7348.
    Vxlan,
    /// RFC 8926. Not every kernel has it.
    Geneve,
}

impl fmt::Display for TunnelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TunnelKind::Vxlan => "VXLAN",
            TunnelKind::Geneve => "Geneve",
        })
    }
}

/// The options of a tunnel's device that cannot be changed once it is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TunnelOptions {
    /// What it speaks.
    pub kind: TunnelKind,
    /// UDP port it listens on and sends to.
    pub port: u16,
    /// Each packet brings identifier and addresses along: collect-metadata mode.
    pub external: bool,
    /// It remembers from which other end frames of a hardware address came. Geneve never does.
    pub learning: bool,
    /// It takes packets over IPv6 without a UDP checksum.
    pub zero_checksum6_received: bool,
}

impl Link {
    /// Whether packets can leave by it: up, with a carrier.
    pub fn is_usable(&self) -> bool {
        self.up && self.carrier
    }

    pub(crate) fn from_message(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Link {
            index: LinkIndex(message.header.index),
            name: String::new(),
            alias: None,
            kind: None,
            mac: None,
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            loopback: flags.contains(LinkFlags::Loopback),
            controller: None,
            peer: None,
            peer_netns_id: None,
            tunnel: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Address(bytes) => {
                    link.mac = bytes.try_into().ok().map(MacAddress);
                }
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::OperState(
                    State::Down | State::LowerLayerDown | State::NotPresent | State::Dormant,
                ) => link.carrier = false,
                LinkAttribute::Controller(index) if index != 0 => {
                    link.controller = Some(LinkIndex(index));
                }
                LinkAttribute::Link(index) if index != 0 => link.peer = Some(LinkIndex(index)),
                LinkAttribute::LinkNetNsId(id) => link.peer_netns_id = Some(id),
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        match info {
                            LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
                            LinkInfo::Data(InfoData::Vxlan(options)) => {
                                link.tunnel = Some(vxlan_options(&options));
                            }
                            LinkInfo::Data(InfoData::Geneve(options)) => {
                                link.tunnel = Some(geneve_options(&options));
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        link
    }
}

/// What devices can be made besides veth pairs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkKind {
    /// Drops what is sent to it; holds addresses.
    Dummy,
    /// An Ethernet switch.
    Bridge,
}

/// A pair of devices to make: what goes into one comes out of the other.
#[derive(Clone, Debug)]
pub struct NewVeth<'a> {
    /// Name of the end in this namespace.
    pub name: &'a str,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// Where the other end is made; `None`: here. Making it there, rather than moving it, is one
    /// request and no name can collide on the way.
    pub peer_netns: Option<&'a Netns>,
    /// MTU of both ends; `None`: the kernel's 1500.
    pub mtu: Option<u32>,
    /// Address of the end here; `None`: a random one.
    pub mac: Option<MacAddress>,
    /// Address of the other end; `None`: a random one.
    pub peer_mac: Option<MacAddress>,
}

/// What to change about a device. `Default` changes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkChange<'a> {
    /// Up or down.
    pub up: Option<bool>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Hardware address.
    pub mac: Option<MacAddress>,
    /// New name. Most devices must be down for it on kernels before 6.2.
    pub name: Option<&'a str>,
    /// Note on the device, up to 255 bytes; empty to clear.
    pub alias: Option<&'a str>,
    /// Make it a port of this bridge or VRF.
    pub controller: Option<LinkIndex>,
    /// Move it to this namespace.
    pub netns: Option<&'a Netns>,
}

pub(crate) fn dump_message() -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

pub(crate) fn by_index_message(index: LinkIndex) -> LinkMessage {
    let mut message = dump_message();
    message.header.index = index.0;
    message
}

pub(crate) fn by_name_message(name: &str) -> LinkMessage {
    let mut message = dump_message();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
}

pub(crate) fn new_message(name: &str, kind: LinkKind) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    let kind = match kind {
        LinkKind::Dummy => InfoKind::Dummy,
        LinkKind::Bridge => InfoKind::Bridge,
    };
    message
        .attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
    message
}

pub(crate) fn veth_message(new: &NewVeth<'_>) -> LinkMessage {
    let mut peer = named_message(new.peer_name, new.mtu, new.peer_mac);
    if let Some(netns) = new.peer_netns {
        peer.attributes.push(netns_attribute(netns));
    }
    let mut message = named_message(new.name, new.mtu, new.mac);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    message
}

pub(crate) fn tunnel_message(
    name: &str,
    mac: MacAddress,
    mtu: u32,
    options: TunnelOptions,
) -> LinkMessage {
    let mut message = named_message(name, Some(mtu), Some(mac));
    let (kind, data) = match options.kind {
        TunnelKind::Vxlan => {
            let list = vec![
                InfoVxlan::CollectMetadata(options.external),
                InfoVxlan::Learning(options.learning),
                InfoVxlan::Port(options.port),
                InfoVxlan::UDPZeroCsumRX(options.zero_checksum6_received),
            ];
            (InfoKind::Vxlan, InfoData::Vxlan(list))
        }
        TunnelKind::Geneve => {
            let mut list = vec![
                InfoGeneve::Port(options.port),
                InfoGeneve::UdpZeroCsum6Rx(options.zero_checksum6_received),
            ];
            // A flag: being there is what it says.
            list.extend(options.external.then_some(InfoGeneve::CollectMetadata));
            (InfoKind::Geneve, InfoData::Geneve(list))
        }
    };
    let info = vec![LinkInfo::Kind(kind), LinkInfo::Data(data)];
    message.attributes.push(LinkAttribute::LinkInfo(info));
    message
}

pub(crate) fn change_message(index: LinkIndex, change: &LinkChange<'_>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index.0;
    if let Some(up) = change.up {
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up {
            LinkFlags::Up
        } else {
            LinkFlags::empty()
        };
    }
    let attributes = &mut message.attributes;
    attributes.extend(change.mtu.map(LinkAttribute::Mtu));
    attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    attributes.extend(
        change
            .name
            .map(|name| LinkAttribute::IfName(name.to_owned())),
    );
    attributes.extend(
        change
            .alias
            .map(|alias| LinkAttribute::IfAlias(alias.to_owned())),
    );
    attributes.extend(
        change
            .controller
            .map(|index| LinkAttribute::Controller(index.0)),
    );
    attributes.extend(change.netns.map(netns_attribute));
    message
}

fn named_message(name: &str, mtu: Option<u32>, mac: Option<MacAddress>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message
        .attributes
        .extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message
}

fn no_options(kind: TunnelKind) -> TunnelOptions {
    TunnelOptions {
        kind,
        port: 0,
        external: false,
        learning: false,
        zero_checksum6_received: false,
    }
}

fn vxlan_options(list: &[InfoVxlan]) -> TunnelOptions {
    let mut options = no_options(TunnelKind::Vxlan);
    for option in list {
        match option {
            InfoVxlan::Port(port) => options.port = *port,
            InfoVxlan::CollectMetadata(on) => options.external = *on,
            InfoVxlan::Learning(on) => options.learning = *on,
            InfoVxlan::UDPZeroCsumRX(on) => options.zero_checksum6_received = *on,
            _ => {}
        }
    }
    options
}

fn geneve_options(list: &[InfoGeneve]) -> TunnelOptions {
    let mut options = no_options(TunnelKind::Geneve);
    for option in list {
        match option {
            InfoGeneve::Port(port) => options.port = *port,
            InfoGeneve::CollectMetadata => options.external = true,
            InfoGeneve::UdpZeroCsum6Rx(on) => options.zero_checksum6_received = *on,
            _ => {}
        }
    }
    options
}

fn netns_attribute(netns: &Netns) -> LinkAttribute {
    let fd: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(netns);
    LinkAttribute::NetNsFd(fd.as_raw_fd())
}
