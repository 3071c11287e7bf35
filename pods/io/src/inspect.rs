// SPDX-License-Identifier: Apache-2.0
//! CNI CHECK: what of an endpoint is not as it was left.

use std::net::IpAddr;
use std::sync::Mutex;

use bpf_loader::Datapath;
use pods_core::Endpoint;
use router_netlink::{Link, Netlink, Netns, RouteFilter};
use router_types::TableId;

use crate::plumbing::{self, PlumbingError};

/// Every difference between an endpoint and the kernel, in words.
pub(crate) fn differences(
    netlink: &mut Netlink,
    datapath: &Mutex<Datapath>,
    endpoint: &Endpoint,
    netns: &Netns,
) -> Result<Vec<String>, PlumbingError> {
    let mut found = Vec::new();
    match plumbing::find_host_device(netlink, endpoint) {
        Ok(Some(link)) => {
            host_side(netlink, endpoint, &link, &mut found)?;
            data_plane(datapath, endpoint, &link, &mut found)?;
        }
        Ok(None) => found.push(format!("the node has no device {}", endpoint.host_ifname)),
        Err(error @ PlumbingError::ForeignDevice(_)) => found.push(error.to_string()),
        Err(error) => return Err(error),
    }
    found.extend(netns.run(|| pod_side(endpoint))??);
    Ok(found)
}

fn host_side(
    netlink: &mut Netlink,
    endpoint: &Endpoint,
    link: &Link,
    found: &mut Vec<String>,
) -> Result<(), PlumbingError> {
    device(link, endpoint, plumbing::mac(endpoint.host_mac), found);
    let neighbours = netlink.neighbours(Some(link.index))?;
    for address in &endpoint.addresses {
        let mac = plumbing::mac(endpoint.pod_mac);
        if !neighbours
            .iter()
            .any(|n| n.address == *address && n.permanent && n.mac == Some(mac))
        {
            found.push(format!(
                "{} has no neighbour entry {address} = {mac}",
                link.name
            ));
        }
        if let Err(instead) = plumbing::leads_to(netlink, *address, link.index) {
            found.push(format!(
                "packets of the node to {address} take {instead}, not {}",
                link.name
            ));
        }
    }
    Ok(())
}

fn data_plane(
    datapath: &Mutex<Datapath>,
    endpoint: &Endpoint,
    link: &Link,
    found: &mut Vec<String>,
) -> Result<(), PlumbingError> {
    let wanted = plumbing::datapath_endpoint(endpoint, link.index);
    let states = plumbing::lock(datapath).endpoints()?;
    match states.iter().find(|s| s.endpoint.id == wanted.id) {
        None => found.push(format!(
            "the data plane does not know endpoint {}",
            endpoint.id
        )),
        Some(state) => {
            if !state.attached {
                found.push(format!(
                    "the eBPF programs are not attached to {}",
                    link.name
                ));
            }
            let mut there = state.endpoint.clone();
            let mut wanted = wanted;
            there.addresses.sort_unstable();
            wanted.addresses.sort_unstable();
            if there != wanted {
                found.push(format!(
                    "the data plane has other facts on endpoint {}: {there:?}, expected {wanted:?}",
                    endpoint.id
                ));
            }
        }
    }
    Ok(())
}

fn pod_side(endpoint: &Endpoint) -> Result<Vec<String>, router_netlink::Error> {
    let mut found = Vec::new();
    let mut netlink = Netlink::open()?;
    let ifname = &endpoint.attachment.ifname;
    let link = match netlink.link_by_name(ifname) {
        Ok(link) => link,
        Err(error) if error.is_not_found() => {
            return Ok(vec![format!("the pod has no device {ifname}")]);
        }
        Err(error) => return Err(error),
    };
    device(&link, endpoint, plumbing::mac(endpoint.pod_mac), &mut found);
    let addresses = netlink.addresses()?;
    for address in &endpoint.addresses {
        let wanted = plumbing::host_prefix(*address);
        if !addresses
            .iter()
            .any(|a| a.link == link.index && a.address == wanted)
        {
            found.push(format!("{ifname} has no address {wanted}"));
        }
    }
    let neighbours = netlink.neighbours(Some(link.index))?;
    let routes = netlink.routes(RouteFilter {
        table: Some(TableId::MAIN),
        protocol: None,
    })?;
    for gateway in plumbing::gateways(endpoint) {
        let mac = plumbing::mac(endpoint.host_mac);
        if !neighbours
            .iter()
            .any(|n| n.address == gateway && n.permanent && n.mac == Some(mac))
        {
            found.push(format!("{ifname} has no neighbour entry {gateway} = {mac}"));
        }
        if !routes.iter().any(|r| plumbing::is_default(r, gateway)) {
            found.push(format!("the pod has no {} default route", family(gateway)));
        }
    }
    Ok(found)
}

fn device(
    link: &Link,
    endpoint: &Endpoint,
    mac: router_netlink::MacAddress,
    found: &mut Vec<String>,
) {
    if !link.up {
        found.push(format!("{} is down", link.name));
    }
    if link.mac != Some(mac) {
        let there = link.mac.map_or("none".to_owned(), |m| m.to_string());
        found.push(format!(
            "{} has MAC address {there}, expected {mac}",
            link.name
        ));
    }
    if link.mtu != endpoint.mtu {
        found.push(format!(
            "{} has MTU {}, expected {}",
            link.name, link.mtu, endpoint.mtu
        ));
    }
}

fn family(address: IpAddr) -> pods_core::Family {
    pods_core::Family::of(address)
}
