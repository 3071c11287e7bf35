// SPDX-License-Identifier: Apache-2.0
//! What the node is attached to, and the routes others wrote: the ground next hops stand on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use router_types::{LinkIndex, NextHop, RouteKey, TableId};

/// A network device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its index.
    pub index: LinkIndex,
    /// Its name, for messages.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// Somebody is at the other end.
    pub carrier: bool,
}

/// A route somebody else wrote into the kernel. The caller leaves out the RIB's own, and those of
/// the kernel's `local` table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelRoute {
    /// Table and destination.
    pub key: RouteKey,
    /// Preference; lowest wins.
    pub metric: u32,
    /// Who wrote it, as `ip route` names it: `kernel`, `dhcp`.
    pub protocol: String,
    /// Its next hops; empty for one that drops packets. A hop without gateway: the destination is
    /// on that device's link.
    pub next_hops: Vec<NextHop>,
    /// A network the node is attached to: written by the kernel for an address.
    pub connected: bool,
}

/// One change of the ground.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TopologyChange {
    /// A device is there, or changed.
    LinkSet(Link),
    /// A device is gone. Its addresses and routes go with it, told or not.
    LinkGone(LinkIndex),
    /// A device has an address.
    AddressSet(LinkIndex, IpNet),
    /// A device has an address no longer.
    AddressGone(LinkIndex, IpNet),
    /// A route is there, or changed.
    RouteSet(KernelRoute),
    /// A route is gone.
    RouteGone {
        /// Table and destination.
        key: RouteKey,
        /// Its metric.
        metric: u32,
        /// Who wrote it.
        protocol: String,
    },
}

/// The node's devices, addresses and foreign routes. Built from changes, or whole from a listing:
/// begin with `Topology::default()` and [`Topology::apply`] everything listed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Topology {
    links: BTreeMap<LinkIndex, Link>,
    addresses: BTreeSet<(IpAddr, LinkIndex, u8)>,
    /// Routes of a prefix by metric, lowest first.
    routes: BTreeMap<RouteKey, Vec<KernelRoute>>,
}

impl Topology {
    /// Takes a change in. Returns the prefixes whose routes changed.
    pub fn apply(&mut self, change: TopologyChange) -> Vec<RouteKey> {
        match change {
            TopologyChange::LinkSet(link) => {
                self.links.insert(link.index, link);
                Vec::new()
            }
            TopologyChange::LinkGone(index) => {
                self.links.remove(&index);
                self.addresses.retain(|(_, link, _)| *link != index);
                self.remove_ways_over(index)
            }
            TopologyChange::AddressSet(link, net) => {
                self.addresses.insert((net.addr(), link, net.prefix_len()));
                Vec::new()
            }
            TopologyChange::AddressGone(link, net) => {
                self.addresses.remove(&(net.addr(), link, net.prefix_len()));
                Vec::new()
            }
            TopologyChange::RouteSet(route) => {
                let key = route.key;
                let routes = self.routes.entry(key).or_default();
                routes.retain(|r| (r.metric, &r.protocol) != (route.metric, &route.protocol));
                let position = routes.partition_point(|r| r.metric <= route.metric);
                routes.insert(position, route);
                vec![key]
            }
            TopologyChange::RouteGone {
                key,
                metric,
                protocol,
            } => {
                if let Some(routes) = self.routes.get_mut(&key) {
                    routes.retain(|r| (r.metric, &r.protocol) != (metric, &protocol));
                    if routes.is_empty() {
                        self.routes.remove(&key);
                    }
                }
                vec![key]
            }
        }
    }

    /// All devices, by index.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// A device by its index.
    pub fn link(&self, index: LinkIndex) -> Option<&Link> {
        self.links.get(&index)
    }

    /// Whether an address is the node's own.
    pub fn is_own_address(&self, address: IpAddr) -> bool {
        let from = (address, LinkIndex(0), 0);
        self.addresses
            .range(from..)
            .next()
            .is_some_and(|(own, ..)| *own == address)
    }

    /// The node's addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|(address, ..)| *address)
    }

    /// The foreign routes to exactly this prefix, most preferred first.
    pub fn routes_to(&self, key: &RouteKey) -> &[KernelRoute] {
        self.routes.get(key).map_or(&[], Vec::as_slice)
    }

    /// The connected network that is exactly this prefix.
    pub fn connected(&self, key: &RouteKey) -> Option<&KernelRoute> {
        self.routes_to(key).iter().find(|route| route.connected)
    }

    /// The longest connected network of a table around an address.
    pub fn connected_around(&self, table: TableId, address: IpAddr) -> Option<&KernelRoute> {
        prefixes_of(address).find_map(|prefix| self.connected(&RouteKey { table, prefix }))
    }

    /// The preferred route of the longest match for an address, in one table. With a device, only
    /// routes over it count.
    pub fn lookup(
        &self,
        table: TableId,
        address: IpAddr,
        link: Option<LinkIndex>,
    ) -> Option<&KernelRoute> {
        let over = |route: &&KernelRoute| {
            link.is_none() || route.next_hops.iter().any(|hop| hop.link == link)
        };
        prefixes_of(address).find_map(|prefix| {
            self.routes_to(&RouteKey { table, prefix })
                .iter()
                .find(over)
        })
    }

    /// The kernel takes a device's next hops out of all routes, and routes without any left away.
    fn remove_ways_over(&mut self, index: LinkIndex) -> Vec<RouteKey> {
        let mut changed = Vec::new();
        self.routes.retain(|key, routes| {
            let mut touched = false;
            routes.retain_mut(|route| {
                let ways = route.next_hops.len();
                route.next_hops.retain(|hop| hop.link != Some(index));
                touched |= route.next_hops.len() < ways;
                ways == 0 || !route.next_hops.is_empty()
            });
            if touched {
                changed.push(*key);
            }
            !routes.is_empty()
        });
        changed
    }
}

/// All prefixes around an address, longest first.
pub(crate) fn prefixes_of(address: IpAddr) -> impl Iterator<Item = IpNet> {
    let longest = match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    (0..=longest)
        .rev()
        .filter_map(move |n| IpNet::new(address, n).ok().map(|net| net.trunc()))
}
