// SPDX-License-Identifier: Apache-2.0
//! Endpoints that a damaged journal lost, read back from their devices.

use std::collections::BTreeSet;
use std::net::IpAddr;

use pods_core::{Endpoint, Mac, NetnsRef, Phase};
use router_netlink::{Link, Netlink, RouteFilter};
use router_types::TableId;

use crate::plumbing::ROUTE_PROTOCOL;

/// What a device with our mark says of its endpoint: names and number in its alias, addresses in
/// the host routes, the pod's MAC address in the neighbour entries. `None` when a part is missing.
///
/// Not to be had are the namespace's path, the pod's name and the network's: DEL needs none of
/// them, and GC leaves an endpoint without a network alone.
pub(super) fn endpoint_of(
    netlink: &mut Netlink,
    link: &Link,
) -> Result<Option<Endpoint>, router_netlink::Error> {
    let Some((id, attachment)) = link.alias.as_deref().and_then(Endpoint::read_alias) else {
        return Ok(None);
    };
    let addresses = addresses(netlink, link)?;
    let macs: BTreeSet<_> = netlink
        .neighbours(Some(link.index))?
        .into_iter()
        .filter(|n| n.permanent && addresses.contains(&n.address))
        .filter_map(|n| n.mac)
        .collect();
    let (Some(host_mac), Some(pod_mac), 1) = (link.mac, macs.first(), macs.len()) else {
        return Ok(None);
    };
    Ok(Some(Endpoint {
        id,
        attachment,
        network: String::new(),
        netns: NetnsRef {
            path: String::new(),
            device: 0,
            inode: 0,
        },
        pod: None,
        host_ifname: link.name.clone(),
        host_mac: Mac(host_mac.0),
        pod_mac: Mac(pod_mac.0),
        addresses,
        mtu: link.mtu,
        phase: Phase::Ready,
    }))
}

/// The addresses our host routes lead to by a device, IPv4 first.
pub(super) fn addresses(
    netlink: &mut Netlink,
    link: &Link,
) -> Result<Vec<IpAddr>, router_netlink::Error> {
    let ours = RouteFilter {
        table: Some(TableId::MAIN),
        protocol: Some(ROUTE_PROTOCOL),
    };
    let mut addresses: Vec<IpAddr> = netlink
        .routes(ours)?
        .into_iter()
        .filter(|r| {
            r.next_hops
                .iter()
                .any(|h| h.next_hop.link == Some(link.index))
        })
        .map(|r| r.key.prefix.addr())
        .collect();
    addresses.sort_unstable();
    Ok(addresses)
}
