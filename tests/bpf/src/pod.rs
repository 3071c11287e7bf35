// SPDX-License-Identifier: Apache-2.0
//! Nodes and pods as the data plane expects them: `/32` and `/128` addresses, a gateway that is
//! only a neighbour entry, and host routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use bpf_loader::{Endpoint, EndpointId, LinkIndex, MacAddr};

use crate::namespace::Namespace;

/// A pod on a node.
#[derive(Debug)]
pub struct Pod {
    /// Its namespace; the device inside is `eth0`.
    pub namespace: Namespace,
    /// As the loader wants it.
    pub endpoint: Endpoint,
    /// Name of its device on the node.
    pub host_device: String,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

/// A namespace that forwards.
///
/// # Errors
/// When namespaces cannot be made.
pub fn node() -> Result<Namespace> {
    let node = Namespace::new()?;
    node.sysctl("net/ipv4/ip_forward", "1")?;
    node.sysctl("net/ipv4/conf/all/rp_filter", "0")?;
    node.sysctl("net/ipv4/conf/default/rp_filter", "0")?;
    node.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    node.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
    allow_errors(&node)?;
    Ok(node)
}

/// Switches the rate limits of ICMP errors off: one per second and destination would hide the
/// second of two.
///
/// # Errors
/// When the kernel refuses.
pub fn allow_errors(namespace: &Namespace) -> Result<()> {
    namespace.sysctl("net/ipv4/icmp_ratelimit", "0")?;
    namespace.sysctl("net/ipv6/icmp/ratelimit", "0")
}

impl Pod {
    /// Adds pod `number` (1 to 250) to a node whose pods are 10.244.`network`.0/24 and
    /// fd00:10:244:`network`::/64.
    ///
    /// # Errors
    /// When `ip` refuses something.
    pub fn add(node: &Namespace, network: u8, number: u8, mtu: u32) -> Result<Self> {
        let namespace = Namespace::new()?;
        allow_errors(&namespace)?;
        let host_device = format!("cw{number}");
        let host_mac = MacAddr([2, 0, 0, network, number, 1]);
        let pod_mac = MacAddr([2, 0, 0, network, number, 2]);
        let v4 = Ipv4Addr::new(10, 244, network, number);
        let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, network.into(), 0, 0, 0, number.into());
        let inside = namespace.path();
        node.ip(&format!(
            "link add {host_device} address {host_mac} mtu {mtu} type veth \
             peer name eth0 address {pod_mac} mtu {mtu} netns {inside}"
        ))?;
        node.ip(&format!("link set {host_device} up"))?;
        node.ip(&format!("route add {v4}/32 dev {host_device}"))?;
        node.ip(&format!("route add {v6}/128 dev {host_device}"))?;
        for line in [
            "link set eth0 up".to_owned(),
            format!("addr add {v4}/32 dev eth0"),
            format!("addr add {v6}/128 dev eth0 nodad"),
            format!("neigh add 169.254.1.1 lladdr {host_mac} dev eth0 nud permanent"),
            format!("neigh add fe80::1 lladdr {host_mac} dev eth0 nud permanent"),
            "route add 169.254.1.1 dev eth0 scope link".to_owned(),
            "route add default via 169.254.1.1 dev eth0".to_owned(),
            "-6 route add default via fe80::1 dev eth0".to_owned(),
        ] {
            namespace.ip(&line)?;
        }
        let endpoint = Endpoint {
            id: EndpointId(number.into()),
            link: index_of(node, &host_device)?,
            host_mac,
            pod_mac,
            addresses: vec![IpAddr::V4(v4), IpAddr::V6(v6)],
            mtu,
        };
        Ok(Self {
            namespace,
            endpoint,
            host_device,
            v4,
            v6,
        })
    }
}

/// Index of a device inside a namespace.
///
/// # Errors
/// When there is no such device.
pub fn index_of(namespace: &Namespace, device: &str) -> Result<LinkIndex> {
    let index = namespace.run(|| nix::net::if_::if_nametoindex(device));
    index
        .map(LinkIndex)
        .with_context(|| format!("look up {device}"))
}

/// Joins two nodes by a fabric link with a /30 and a /64, and routes to each other's pods.
///
/// # Errors
/// When `ip` refuses something.
pub fn join_nodes(a: &Namespace, a_network: u8, b: &Namespace, b_network: u8) -> Result<()> {
    let far = b.path();
    a.ip(&format!("link add fab type veth peer name fab netns {far}"))?;
    for (node, own, other, network) in [(a, 1, 2, b_network), (b, 2, 1, a_network)] {
        node.ip("link set fab up")?;
        node.ip(&format!("addr add 192.0.2.{own}/30 dev fab"))?;
        node.ip(&format!("addr add 2001:db8::{own}/64 dev fab nodad"))?;
        node.ip(&format!(
            "route add 10.244.{network}.0/24 via 192.0.2.{other}"
        ))?;
        node.ip(&format!(
            "route add fd00:10:244:{network}::/64 via 2001:db8::{other}"
        ))?;
    }
    Ok(())
}
