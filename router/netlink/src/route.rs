// SPDX-License-Identifier: Apache-2.0
//! Routes: as the kernel shows them and as they are written.
//!
//! IPv4 and IPv6 differ more than their messages do; what matters here:
//!
//! * A route is identified by table, prefix and metric. Metric 0 of an IPv6 route means 1024.
//! * An IPv4 route may have IPv6 next hops (RFC 8950, `RTA_VIA`), not the other way round.
//! * An IPv6 multipath route is a list of sibling routes inside the kernel, shown as one. Each of
//!   its next hops needs a gateway.
//! * When a device goes down the kernel drops IPv4 routes over it without telling listeners.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop,
    RouteNextHopFlags, RouteProtocol, RouteScope, RouteType, RouteVia,
};
use router_types::{Forwarding, LinkIndex, NextHop, RouteKey, TableId};

/// Who wrote a route (`rtm_protocol`, names as in iproute2's `rt_protos`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// The kernel itself: connected networks and the `local` table.
    pub const KERNEL: Protocol = Protocol(2);
    /// `ip route add` without a protocol.
    pub const BOOT: Protocol = Protocol(3);
    /// An administrator.
    pub const STATIC: Protocol = Protocol(4);
    /// Router advertisements, handled by the kernel.
    pub const RA: Protocol = Protocol(9);
    /// A DHCP client.
    pub const DHCP: Protocol = Protocol(16);
    /// A BGP daemon: ours, but FRR's too. Two BGP daemons in one namespace and table would prune
    /// each other's routes; give one of them another number.
    pub const BGP: Protocol = Protocol(186);
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "unspec",
            1 => "redirect",
            2 => "kernel",
            3 => "boot",
            4 => "static",
            9 => "ra",
            11 => "zebra",
            12 => "bird",
            16 => "dhcp",
            18 => "keepalived",
            42 => "babel",
            186 => "bgp",
            187 => "isis",
            188 => "ospf",
            189 => "rip",
            192 => "eigrp",
            n => return write!(f, "{n}"),
        })
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a route does with packets (`rtm_type`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RouteKind {
    /// Forwards to its next hops.
    Unicast,
    /// Delivers to this node.
    Local,
    /// Broadcast, anycast or multicast.
    Group,
    /// Drops silently.
    Blackhole,
    /// Drops with "destination unreachable".
    Unreachable,
    /// Drops with "administratively prohibited".
    Prohibit,
    /// Anything else, such as `throw`.
    Other(u8),
}

/// One next hop of a route in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KernelNextHop {
    /// Gateway, device and weight.
    pub next_hop: NextHop,
    /// The gateway is taken to be on the link whatever the addresses say.
    pub onlink: bool,
    /// The kernel does not use it: its device is down.
    pub dead: bool,
    /// Its device has no carrier.
    pub linkdown: bool,
}

/// A route as the kernel shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelRoute {
    /// Table and destination.
    pub key: RouteKey,
    /// Preference among routes with the same key: the lowest is used.
    pub metric: u32,
    /// Who wrote it.
    pub protocol: Protocol,
    /// What it does.
    pub kind: RouteKind,
    /// Its next hops, sorted; empty unless `kind` forwards or delivers.
    pub next_hops: Vec<KernelNextHop>,
    /// Source address of packets this node sends by it.
    pub preferred_source: Option<IpAddr>,
    /// Path MTU in bytes that whoever wrote it has set; `None`: the device's.
    pub mtu: Option<u32>,
}

impl KernelRoute {
    /// Its effect in the words the RIB uses; `None` for kinds the RIB does not write.
    pub fn forwarding(&self) -> Option<Forwarding> {
        match self.kind {
            RouteKind::Unicast => {
                let mut hops: Vec<NextHop> = self.next_hops.iter().map(|h| h.next_hop).collect();
                hops.sort_unstable();
                Some(Forwarding::Via(hops))
            }
            RouteKind::Unreachable => Some(Forwarding::Unreachable),
            RouteKind::Blackhole => Some(Forwarding::Blackhole),
            RouteKind::Local | RouteKind::Group | RouteKind::Prohibit | RouteKind::Other(_) => None,
        }
    }

    /// A network this node is attached to: written by the kernel for an address, without gateway.
    pub fn is_connected(&self) -> bool {
        self.protocol == Protocol::KERNEL
            && self.kind == RouteKind::Unicast
            && self.next_hops.iter().all(|h| h.next_hop.via.is_none())
    }

    /// `None` for what is no route of a table: cached exceptions, other families, source routes.
    pub(crate) fn from_message(message: RouteMessage) -> Option<Self> {
        let header = message.header;
        if header.flags.contains(RouteFlags::Cloned) || header.source_prefix_length != 0 {
            return None;
        }
        let any = match header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let mut destination = any;
        let mut table = u32::from(header.table);
        let mut metric = 0;
        let mut preferred_source = None;
        let mut mtu = None;
        let mut hops = Vec::new();
        let mut via = None;
        let mut link = None;
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Destination(a) => destination = address(&a)?,
                RouteAttribute::Table(id) => table = id,
                RouteAttribute::Priority(n) => metric = n,
                RouteAttribute::PrefSource(a) => preferred_source = address(&a),
                RouteAttribute::Oif(index) => link = Some(LinkIndex(index)),
                RouteAttribute::Gateway(a) => via = address(&a),
                RouteAttribute::Via(a) => via = via_address(&a),
                RouteAttribute::MultiPath(list) => hops.extend(list.iter().map(multipath_hop)),
                RouteAttribute::Metrics(list) => mtu = list.iter().find_map(mtu_metric),
                _ => {}
            }
        }
        let kind = match header.kind {
            RouteType::Unicast => RouteKind::Unicast,
            RouteType::Local => RouteKind::Local,
            RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast => RouteKind::Group,
            RouteType::BlackHole => RouteKind::Blackhole,
            RouteType::Unreachable => RouteKind::Unreachable,
            RouteType::Prohibit => RouteKind::Prohibit,
            other => RouteKind::Other(other.into()),
        };
        let forwards = matches!(
            kind,
            RouteKind::Unicast | RouteKind::Local | RouteKind::Group
        );
        if !forwards {
            hops.clear();
        } else if hops.is_empty() {
            hops.push(KernelNextHop {
                next_hop: NextHop {
                    via,
                    link,
                    weight: 1,
                },
                onlink: header.flags.contains(RouteFlags::Onlink),
                dead: header.flags.contains(RouteFlags::Dead),
                linkdown: header.flags.contains(RouteFlags::Linkdown),
            });
        }
        hops.sort_unstable();
        let prefix = IpNet::new(destination, header.destination_prefix_length)
            .ok()?
            .trunc();
        Some(KernelRoute {
            key: RouteKey {
                table: TableId(table),
                prefix,
            },
            metric,
            protocol: Protocol(header.protocol.into()),
            kind,
            next_hops: hops,
            preferred_source,
            mtu,
        })
    }
}

/// Which routes to list. Filtered by the kernel, so that asking for ours among a million costs
/// little. `Default` lists all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RouteFilter {
    /// Only this table.
    pub table: Option<TableId>,
    /// Only those written by this protocol.
    pub protocol: Option<Protocol>,
}

impl RouteFilter {
    pub(crate) fn messages(self) -> [RouteMessage; 2] {
        [AddressFamily::Inet, AddressFamily::Inet6].map(|family| {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.header.protocol = self.protocol.map_or(RouteProtocol::Unspec, |p| p.0.into());
            message
                .attributes
                .extend(self.table.map(|t| RouteAttribute::Table(t.0)));
            message
        })
    }

    /// Whether a listed route is wanted: old kernels ignore filters.
    pub(crate) fn accepts(self, route: &KernelRoute) -> bool {
        self.table.is_none_or(|t| t == route.key.table)
            && self.protocol.is_none_or(|p| p == route.protocol)
    }
}

/// A route to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteSpec {
    /// Table and destination.
    pub key: RouteKey,
    /// What happens to packets.
    pub forwarding: Forwarding,
    /// Who writes it.
    pub protocol: Protocol,
    /// Preference; lower wins. 0 becomes 1024 for IPv6.
    pub metric: u32,
    /// Take gateways to be on their link whatever the addresses say.
    pub onlink: bool,
    /// Source address of packets this node sends by it.
    pub preferred_source: Option<IpAddr>,
    /// Path MTU in bytes for this destination; `None`: the device's.
    pub mtu: Option<u32>,
}

impl RouteSpec {
    /// A route with nothing special about it.
    pub fn new(key: RouteKey, forwarding: Forwarding, protocol: Protocol, metric: u32) -> Self {
        RouteSpec {
            key,
            forwarding,
            protocol,
            metric,
            onlink: false,
            preferred_source: None,
            mtu: None,
        }
    }

    pub(crate) fn message(&self) -> RouteMessage {
        let mut message = write_message(self.key, &self.forwarding, self.protocol, self.metric);
        if self.onlink {
            message.header.flags |= RouteFlags::Onlink;
            for attribute in &mut message.attributes {
                if let RouteAttribute::MultiPath(hops) = attribute {
                    hops.iter_mut()
                        .for_each(|h| h.flags |= RouteNextHopFlags::Onlink);
                }
            }
        }
        let attributes = &mut message.attributes;
        attributes.extend(
            self.preferred_source
                .map(|ip| RouteAttribute::PrefSource(ip.into())),
        );
        attributes.extend(
            self.mtu
                .map(|n| RouteAttribute::Metrics(vec![RouteMetric::Mtu(n)])),
        );
        message
    }
}

/// Writes `unicast 10.0.0.0/8 via 192.0.2.1 dev #3, via 192.0.2.2 dev #4 weight 2`.
impl fmt::Display for RouteSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Described(self.key, &self.forwarding))
    }
}

/// A route in the words of `ip route`, devices by index.
pub(crate) struct Described<'a>(pub(crate) RouteKey, pub(crate) &'a Forwarding);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Described(key, forwarding) = self;
        match forwarding {
            Forwarding::Unreachable => write!(f, "unreachable {}", key.prefix)?,
            Forwarding::Blackhole => write!(f, "blackhole {}", key.prefix)?,
            Forwarding::Via(hops) => {
                write!(f, "{}", key.prefix)?;
                for (n, hop) in hops.iter().enumerate() {
                    f.write_str(if n == 0 { "" } else { "," })?;
                    if let Some(via) = hop.via {
                        write!(f, " via {via}")?;
                    }
                    if let Some(link) = hop.link {
                        write!(f, " dev #{}", link.0)?;
                    }
                    if hop.weight != 1 {
                        write!(f, " weight {}", hop.weight)?;
                    }
                }
            }
        }
        if key.table != TableId::MAIN {
            write!(f, " table {}", key.table.0)?;
        }
        Ok(())
    }
}

pub(crate) fn write_message(
    key: RouteKey,
    forwarding: &Forwarding,
    protocol: Protocol,
    metric: u32,
) -> RouteMessage {
    let mut message = key_message(key, protocol, metric);
    let header = &mut message.header;
    match forwarding {
        Forwarding::Unreachable => {
            header.kind = RouteType::Unreachable;
            header.scope = RouteScope::Universe;
        }
        Forwarding::Blackhole => {
            header.kind = RouteType::BlackHole;
            header.scope = RouteScope::Universe;
        }
        Forwarding::Via(hops) => {
            header.kind = RouteType::Unicast;
            // The kernel takes a gateway only over a route of narrower scope, so a destination on
            // the link has link scope. IPv6 has no scopes.
            header.scope = match key.prefix {
                IpNet::V4(_) if hops.iter().all(|h| h.via.is_none()) => RouteScope::Link,
                _ => RouteScope::Universe,
            };
            match hops.as_slice() {
                [hop] => {
                    message
                        .attributes
                        .extend(hop.via.map(|via| gateway(key.prefix, via)));
                    message
                        .attributes
                        .extend(hop.link.map(|link| RouteAttribute::Oif(link.0)));
                }
                hops => {
                    let list = hops.iter().map(|hop| {
                        let mut next_hop = RouteNextHop::default();
                        next_hop.hops =
                            u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
                        next_hop.interface_index = hop.link.map_or(0, |link| link.0);
                        next_hop
                            .attributes
                            .extend(hop.via.map(|via| gateway(key.prefix, via)));
                        next_hop
                    });
                    message
                        .attributes
                        .push(RouteAttribute::MultiPath(list.collect()));
                }
            }
        }
    }
    message
}

/// What identifies a route for deletion. The protocol is part of it: the kernel then leaves a
/// route somebody else wrote alone.
pub(crate) fn key_message(key: RouteKey, protocol: Protocol, metric: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = match key.prefix {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = key.prefix.prefix_len();
    message.header.protocol = protocol.0.into();
    message.header.scope = RouteScope::NoWhere;
    message.header.table = u8::try_from(key.table.0).unwrap_or(0);
    message.attributes.push(RouteAttribute::Table(key.table.0));
    message
        .attributes
        .push(RouteAttribute::Destination(key.prefix.network().into()));
    message.attributes.push(RouteAttribute::Priority(metric));
    message
}

/// The question `ip route get fibmatch` asks: which route of the tables is used for an address.
pub(crate) fn lookup_message(address: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    (
        message.header.address_family,
        message.header.destination_prefix_length,
    ) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.header.flags = RouteFlags::FibMatch;
    message
        .attributes
        .push(RouteAttribute::Destination(address.into()));
    message
}

fn gateway(prefix: IpNet, via: IpAddr) -> RouteAttribute {
    match (prefix, via) {
        (IpNet::V4(_), IpAddr::V6(_)) => RouteAttribute::Via(RouteVia::from(via)),
        _ => RouteAttribute::Gateway(via.into()),
    }
}

fn mtu_metric(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    }
}

fn multipath_hop(hop: &RouteNextHop) -> KernelNextHop {
    let via = hop.attributes.iter().find_map(|a| match a {
        RouteAttribute::Gateway(a) => address(a),
        RouteAttribute::Via(a) => via_address(a),
        _ => None,
    });
    KernelNextHop {
        next_hop: NextHop {
            via,
            link: Some(LinkIndex(hop.interface_index)),
            weight: u16::from(hop.hops) + 1,
        },
        onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
        dead: hop.flags.contains(RouteNextHopFlags::Dead),
        linkdown: hop.flags.contains(RouteNextHopFlags::Linkdown),
    }
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn via_address(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteVia::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(prefix: &str) -> RouteKey {
        RouteKey {
            table: TableId(1000),
            prefix: prefix.parse().unwrap(),
        }
    }

    fn hop(via: &str, link: u32, weight: u16) -> NextHop {
        NextHop {
            via: Some(via.parse().unwrap()),
            link: Some(LinkIndex(link)),
            weight,
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let cases = [
            ("10.0.0.0/8", vec![hop("192.0.2.1", 3, 1)]),
            (
                "10.0.0.0/8",
                vec![hop("192.0.2.1", 3, 1), hop("192.0.2.2", 4, 256)],
            ),
            (
                "0.0.0.0/0",
                vec![hop("fe80::1", 3, 1), hop("fe80::1", 4, 1)],
            ),
            (
                "2001:db8::/32",
                vec![hop("2001:db8:1::1", 4, 7), hop("fe80::1", 3, 1)],
            ),
        ];
        for (prefix, hops) in cases {
            let forwarding = Forwarding::Via(hops);
            let message = write_message(key(prefix), &forwarding, Protocol::BGP, 20);
            let route = KernelRoute::from_message(message).unwrap();
            assert_eq!(route.key, key(prefix));
            assert_eq!((route.protocol, route.metric), (Protocol::BGP, 20));
            assert_eq!(route.forwarding(), Some(forwarding), "{prefix}");
        }
    }

    #[test]
    fn routes_are_described_as_ip_route_writes_them() {
        let forwarding = Forwarding::Via(vec![hop("192.0.2.1", 3, 1), hop("192.0.2.2", 4, 2)]);
        let spec = RouteSpec::new(key("10.0.0.0/8"), forwarding, Protocol::BGP, 20);
        assert_eq!(
            spec.to_string(),
            "10.0.0.0/8 via 192.0.2.1 dev #3, via 192.0.2.2 dev #4 weight 2 table 1000"
        );
    }
}
