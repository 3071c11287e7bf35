// SPDX-License-Identifier: Apache-2.0
//! What the compiler has to know about the node.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use router_resources::kinds::Attributes;
use router_resources::{Labels, Snapshot};

/// Operational state of a link (RFC 2863 `ifOperStatus`), as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperState {
    /// Up.
    Up,
    /// The driver does not say, as with dummy and loopback devices. Taken as up.
    Unknown,
    /// Anything else.
    Down,
}

/// One network device of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// Whether it is set up (`IFF_UP`).
    pub is_admin_up: bool,
    /// Its operational state.
    pub oper_state: OperState,
    /// Its addresses, in the kernel's order.
    pub addresses: Vec<IpAddr>,
}

impl InterfaceFacts {
    /// Whether packets can use it.
    pub fn is_up(&self) -> bool {
        self.is_admin_up && self.oper_state != OperState::Down
    }

    /// Its addresses that mean something beyond the link: neither unspecified, loopback range,
    /// multicast, IPv6 link-local nor IPv4-mapped.
    pub fn usable_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied().filter(|address| {
            let is_special = address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || match address {
                    IpAddr::V4(_) => false,
                    IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
                };
            !is_special
        })
    }
}

/// A gateway of the node's default route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DefaultGateway {
    /// Its address.
    pub address: IpAddr,
    /// The interface it is on.
    pub interface: String,
}

/// An address this node holds as an egress gateway, or stands by for, with what its policy says of
/// announcing it.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldAddress {
    /// The address; peers are told a host route.
    pub address: IpAddr,
    /// Communities and local preference.
    pub attributes: Attributes,
    /// MULTI_EXIT_DISC; `None` sends none.
    pub med: Option<u32>,
}

/// The node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its own addresses, the preferred one of each family first.
    pub addresses: Vec<IpAddr>,
    /// Its pod prefixes.
    pub pod_cidrs: Vec<IpNet>,
    /// Whether its Node object says that no new pods are put on it.
    pub is_cordoned: bool,
    /// Its network devices by name.
    pub interfaces: BTreeMap<String, InterfaceFacts>,
    /// The gateways of its default routes of the lowest metric, by family, that no BGP speaker
    /// wrote; in order, each once.
    pub default_gateways: Vec<DefaultGateway>,
    /// The addresses this node holds as an egress gateway, or stands by for, and tells its peers of.
    pub held_addresses: Vec<HeldAddress>,
    /// The router heard on a link by IPv6 neighbour discovery: its link-local address, by the name
    /// of the interface.
    pub link_routers: BTreeMap<String, Ipv6Addr>,
}

impl NodeFacts {
    /// Puts together what settings, the Node object and the kernel say. What the settings give
    /// wins over the Node object; without a Node object the only label is
    /// `kubernetes.io/hostname`. Without addresses from either, those of `lo` are taken, and no
    /// others: the router identifier comes from here, and one that followed an interface up and
    /// down would reset every session when a link is cut.
    pub fn gather(
        name: &str,
        configured_addresses: &[IpAddr],
        configured_pod_cidrs: &[IpNet],
        snapshot: &Snapshot,
        interfaces: BTreeMap<String, InterfaceFacts>,
    ) -> Self {
        let node = snapshot.node(name);
        let labels = match &node {
            Some(node) => node.metadata.labels.clone(),
            None => Labels::from([("kubernetes.io/hostname".to_owned(), name.to_owned())]),
        };
        let mut pod_cidrs = configured_pod_cidrs.to_vec();
        let mut addresses = configured_addresses.to_vec();
        if let Some(node) = &node {
            if pod_cidrs.is_empty() {
                pod_cidrs = node.spec.pod_prefixes();
            }
            if addresses.is_empty() {
                addresses = node.spec.internal_addresses();
            }
        }
        if addresses.is_empty() {
            let loopback = interfaces.get("lo").into_iter();
            addresses = loopback
                .flat_map(InterfaceFacts::usable_addresses)
                .collect();
        }
        NodeFacts {
            name: name.to_owned(),
            labels,
            addresses,
            pod_cidrs,
            is_cordoned: node.is_some_and(|node| node.spec.spec.unschedulable),
            interfaces,
            default_gateways: Vec::new(),
            held_addresses: Vec::new(),
            link_routers: BTreeMap::new(),
        }
    }

    /// The router identifier of instances that are given none.
    pub fn default_router_id(&self) -> Ipv4Addr {
        let ipv4 = self.addresses.iter().find_map(|address| match address {
            IpAddr::V4(v4) if !v4.is_unspecified() => Some(*v4),
            _ => None,
        });
        ipv4.unwrap_or_else(|| derived_router_id(&self.name))
    }
}

/// A router identifier for a node without an IPv4 address: FNV-1a (32 bits) of the node's name,
/// and 1 where that is 0. Among 1000 nodes two are equal with a chance of about 1 in 8600; an
/// override's `routerID` settles it.
pub fn derived_router_id(node_name: &str) -> Ipv4Addr {
    let hash = node_name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    Ipv4Addr::from(hash.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_router_id_is_fnv_1a_of_the_name() {
        // The published test vector of FNV-1a for "a" is 0xe40c292c.
        assert_eq!(derived_router_id("a"), Ipv4Addr::from(0xe40c_292c));
        assert_ne!(derived_router_id("node-1"), derived_router_id("node-2"));
    }

    #[test]
    fn the_first_ipv4_address_is_the_router_id() {
        let mut facts = NodeFacts {
            name: "n".into(),
            ..NodeFacts::default()
        };
        assert_eq!(facts.default_router_id(), derived_router_id("n"));
        facts.addresses = vec!["fd00::1".parse().unwrap(), "10.0.0.1".parse().unwrap()];
        assert_eq!(facts.default_router_id(), Ipv4Addr::new(10, 0, 0, 1));
    }

    #[test]
    fn the_router_id_does_not_follow_links() {
        let interface = |address: &str| InterfaceFacts {
            is_admin_up: true,
            oper_state: OperState::Up,
            addresses: vec![address.parse().unwrap()],
        };
        let gather = |interfaces: &[(&str, &str)]| {
            let interfaces = interfaces
                .iter()
                .map(|(n, a)| (n.to_string(), interface(a)))
                .collect();
            NodeFacts::gather("n", &[], &[], &Snapshot::default(), interfaces).default_router_id()
        };
        assert_eq!(gather(&[("eth0", "10.0.0.1")]), derived_router_id("n"));
        assert_eq!(gather(&[]), derived_router_id("n"));
        let loopback = gather(&[("eth0", "10.0.0.1"), ("lo", "192.0.2.1")]);
        assert_eq!(loopback, Ipv4Addr::new(192, 0, 2, 1));
    }

    #[test]
    fn usable_addresses_leave_out_what_means_nothing_beyond_the_link() {
        let text = [
            "127.0.0.1",
            "10.0.0.1",
            "224.0.0.1",
            "fe80::1",
            "::1",
            "fd00::1",
            "::ffff:1.2.3.4",
        ];
        let facts = InterfaceFacts {
            is_admin_up: true,
            oper_state: OperState::Unknown,
            addresses: text.iter().map(|t| t.parse().unwrap()).collect(),
        };
        let usable: Vec<String> = facts.usable_addresses().map(|a| a.to_string()).collect();
        assert_eq!(usable, ["10.0.0.1", "fd00::1"]);
        assert!(facts.is_up());
        assert!(
            !InterfaceFacts {
                oper_state: OperState::Down,
                ..facts.clone()
            }
            .is_up()
        );
        assert!(
            !InterfaceFacts {
                is_admin_up: false,
                ..facts
            }
            .is_up()
        );
    }
}
