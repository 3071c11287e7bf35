// SPDX-License-Identifier: Apache-2.0
//! Making the kernel equal to an endpoint, and taking it away again.
//!
//! Every function may be called at any time, any number of times: it looks first and writes what
//! differs.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bpf_loader::{Datapath, MacAddr};
use ipnet::IpNet;
use pods_core::{Endpoint, Mac, cni};
use router_netlink::{
    KernelRoute, Link, LinkChange, MacAddress, Netlink, Netns, NewVeth, Protocol, RouteFilter,
    RouteKind, RouteSpec, Sysctl,
};
use router_types::{Forwarding, LinkIndex, NextHop, RouteKey, TableId};

/// The protocol number on host routes to pods. Above those that `rt_protos` names, and not BGP's,
/// whose routes the RIB prunes.
pub const ROUTE_PROTOCOL: Protocol = Protocol(202);

/// The metric of host routes to pods. Before all others: a pod is where it is.
const ROUTE_METRIC: u32 = 1;
/// The metric of a pod's default routes. Above 0, which IPv6 turns into 1024.
const DEFAULT_METRIC: u32 = 1024;

/// Why the kernel could not be made equal to an endpoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlumbingError {
    /// A device, address, route, neighbour or setting.
    #[error(transparent)]
    Netlink(#[from] router_netlink::Error),
    /// A program or map entry.
    #[error(transparent)]
    Datapath(#[from] bpf_loader::Error),
    /// The name at the host's side is somebody else's.
    #[error(
        "device {0} exists and is not ours: its alias and MAC address are another's; remove or rename it"
    )]
    ForeignDevice(String),
    /// The name in the pod is somebody else's.
    #[error("the pod has a device {0} already, which is not ours")]
    PodDeviceTaken(String),
    /// The device is gone and so is the namespace where the other end would go.
    #[error("device {0} is gone and the pod's namespace cannot be opened")]
    NowhereToCreate(String),
    /// Somebody else's route leads to the address.
    #[error("{address} is in use on this node: packets to it take {route}")]
    AddressInUse { address: IpAddr, route: String },
}

/// A device at the host's side.
pub(crate) struct HostDevice {
    pub(crate) link: LinkIndex,
    pub(crate) was_created: bool,
}

/// Forwarding for all, and router advertisements for those that had them: the kernel stops
/// listening to them when a node becomes a router unless `accept_ra` is 2.
pub(crate) fn enable_forwarding(netlink: &mut Netlink) -> Result<(), router_netlink::Error> {
    let sysctl = Sysctl::current();
    sysctl.write(&["net", "ipv4", "ip_forward"], "1")?;
    let all = ["net", "ipv6", "conf", "all", "forwarding"];
    match sysctl.read(&all) {
        Err(error) if error.is_not_found() => return Ok(()),
        Ok(value) if value == "1" => return Ok(()),
        _ => {}
    }
    for link in netlink.links()? {
        let accept_ra = ["net", "ipv6", "conf", &link.name, "accept_ra"];
        match sysctl.read(&accept_ra) {
            Ok(value) if value == "1" => sysctl.write(&accept_ra, "2").map(drop)?,
            Ok(_) => {}
            // Devices come and go, and some have no IPv6.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    sysctl.write(&all, "1").map(drop)
}

/// The device pair and everything of it at the host's side. Without `netns` a missing device
/// cannot be made.
pub(crate) fn host_side(
    netlink: &mut Netlink,
    endpoint: &Endpoint,
    netns: Option<&Netns>,
) -> Result<HostDevice, PlumbingError> {
    let (link, was_created) = match find_host_device(netlink, endpoint)? {
        Some(link) if !is_orphan(&link, netns)? => (link, false),
        Some(link) => {
            netlink.delete_link(link.index).or_else(ignore_missing)?;
            (create(netlink, endpoint, netns)?, true)
        }
        None => (create(netlink, endpoint, netns)?, true),
    };
    let alias = endpoint.alias();
    let change = LinkChange {
        alias: (link.alias.as_deref() != Some(&alias)).then_some(&alias),
        mtu: (link.mtu != endpoint.mtu).then_some(endpoint.mtu),
        ..LinkChange::default()
    };
    if change.alias.is_some() || change.mtu.is_some() {
        netlink.change_link(link.index, &change)?;
    }
    set_device_options(&Sysctl::current(), &endpoint.host_ifname, endpoint)?;
    if !link.up {
        let up = LinkChange {
            up: Some(true),
            ..LinkChange::default()
        };
        netlink.change_link(link.index, &up)?;
    }
    let neighbours = netlink.neighbours(Some(link.index))?;
    for address in &endpoint.addresses {
        let mac = mac(endpoint.pod_mac);
        let is_set = neighbours
            .iter()
            .any(|n| n.address == *address && n.permanent && n.mac == Some(mac));
        if !is_set {
            netlink.set_neighbour(link.index, *address, mac)?;
        }
        host_route(netlink, *address, link.index)?;
    }
    Ok(HostDevice {
        link: link.index,
        was_created,
    })
}

/// Everything of an endpoint inside the pod. For ADD, and for a device that was made again: what
/// a pod does in its own namespace afterwards is its own affair.
pub(crate) fn pod_side(endpoint: &Endpoint, netns: &Netns) -> Result<(), router_netlink::Error> {
    netns.run(|| {
        let mut netlink = Netlink::open()?;
        let link = netlink.link_by_name(&endpoint.attachment.ifname)?;
        set_device_options(&Sysctl::current(), &link.name, endpoint)?;
        if link.mtu != endpoint.mtu {
            let change = LinkChange {
                mtu: Some(endpoint.mtu),
                ..LinkChange::default()
            };
            netlink.change_link(link.index, &change)?;
        }
        let present = netlink.addresses()?;
        for address in &endpoint.addresses {
            let wanted = host_prefix(*address);
            if !present
                .iter()
                .any(|a| a.link == link.index && a.address == wanted)
            {
                netlink.add_address(link.index, wanted)?;
            }
        }
        if !link.up {
            let up = LinkChange {
                up: Some(true),
                ..LinkChange::default()
            };
            netlink.change_link(link.index, &up)?;
        }
        let neighbours = netlink.neighbours(Some(link.index))?;
        let routes = netlink.routes(RouteFilter {
            table: Some(TableId::MAIN),
            protocol: None,
        })?;
        for gateway in gateways(endpoint) {
            let mac = mac(endpoint.host_mac);
            let is_set = neighbours
                .iter()
                .any(|n| n.address == gateway && n.permanent && n.mac == Some(mac));
            if !is_set {
                netlink.set_neighbour(link.index, gateway, mac)?;
            }
            // A pod with several networks has its default route where it was first given one.
            if !routes.iter().any(|r| is_default(r, gateway)) {
                netlink.replace_route(&default_route(gateway, link.index))?;
            }
        }
        Ok(())
    })?
}

/// Takes the device away, and with it the other end, the addresses and the routes; then the
/// programs and map entries.
pub(crate) fn remove(
    netlink: &mut Netlink,
    datapath: &Mutex<Datapath>,
    endpoint: &Endpoint,
) -> Result<(), PlumbingError> {
    match find_host_device(netlink, endpoint) {
        Ok(Some(link)) => netlink.delete_link(link.index).or_else(ignore_missing)?,
        Ok(None) => {}
        // Not ours to take away; our half of it is gone already.
        Err(PlumbingError::ForeignDevice(name)) => {
            tracing::warn!(name, pod = %endpoint.attachment, "left alone: the device is not ours any more");
        }
        Err(error) => return Err(error),
    }
    let mut datapath = lock(datapath);
    datapath.remove_endpoint(bpf_loader::EndpointId(endpoint.id.0))?;
    datapath.routes_changed()?;
    Ok(())
}

/// The endpoint in the words of the data plane.
pub(crate) fn datapath_endpoint(endpoint: &Endpoint, link: LinkIndex) -> bpf_loader::Endpoint {
    bpf_loader::Endpoint {
        id: bpf_loader::EndpointId(endpoint.id.0),
        link,
        host_mac: MacAddr(endpoint.host_mac.0),
        pod_mac: MacAddr(endpoint.pod_mac.0),
        addresses: endpoint.addresses.clone(),
        mtu: endpoint.mtu,
    }
}

/// The data plane, whoever panicked while holding it: its state is the kernel's.
pub(crate) fn lock(datapath: &Mutex<Datapath>) -> MutexGuard<'_, Datapath> {
    datapath.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The endpoint's device at the host's side, if it is there.
pub(crate) fn find_host_device(
    netlink: &mut Netlink,
    endpoint: &Endpoint,
) -> Result<Option<Link>, PlumbingError> {
    match netlink.link_by_name(&endpoint.host_ifname) {
        Ok(link) if is_ours(&link, endpoint) => Ok(Some(link)),
        Ok(link) => Err(PlumbingError::ForeignDevice(link.name)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a device of the node is the host's side of a pod: by our mark, or by the form of its
/// name in the moment between being made and being marked.
pub fn is_pod_device(link: &Link) -> bool {
    let is_pods_name = |digits: &str| {
        digits.len() == 10
            && digits
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    link.kind.as_deref() == Some("veth")
        && (link
            .alias
            .as_deref()
            .is_some_and(|a| a.starts_with(Endpoint::ALIAS_PREFIX))
            || link.name.strip_prefix("cw").is_some_and(is_pods_name))
}

/// The gateways of the families an endpoint has.
pub(crate) fn gateways(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    endpoint.addresses.iter().map(|a| cni::gateway(*a))
}

/// The whole-length prefix of an address.
pub(crate) fn host_prefix(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

/// Whether a route is a default route of a gateway's family, whoever wrote it.
pub(crate) fn is_default(route: &KernelRoute, gateway: IpAddr) -> bool {
    route.kind == RouteKind::Unicast
        && route.key.prefix.prefix_len() == 0
        && route.key.prefix.network().is_ipv4() == gateway.is_ipv4()
}

pub(crate) fn mac(mac: Mac) -> MacAddress {
    MacAddress(mac.0)
}

fn is_ours(link: &Link, endpoint: &Endpoint) -> bool {
    // Between making a device and marking it a crash may happen: then its MAC address tells.
    link.kind.as_deref() == Some("veth")
        && (link.mac == Some(mac(endpoint.host_mac))
            || link
                .alias
                .as_deref()
                .is_some_and(|a| a.starts_with(Endpoint::ALIAS_PREFIX)))
}

/// Whether the other end of a device is elsewhere than in the pod's namespace. Its name and MAC
/// address do not matter: the pod may have changed them.
fn is_orphan(host: &Link, netns: Option<&Netns>) -> Result<bool, router_netlink::Error> {
    let Some(netns) = netns else { return Ok(false) };
    let inside = Netlink::open_in(netns)?.links()?;
    let is_other_end = |l: &Link| {
        l.kind.as_deref() == Some("veth")
            && Some(l.index) == host.peer
            && l.peer == Some(host.index)
    };
    Ok(!inside.iter().any(is_other_end))
}

fn create(
    netlink: &mut Netlink,
    endpoint: &Endpoint,
    netns: Option<&Netns>,
) -> Result<Link, PlumbingError> {
    let netns =
        netns.ok_or_else(|| PlumbingError::NowhereToCreate(endpoint.host_ifname.clone()))?;
    let new = NewVeth {
        name: &endpoint.host_ifname,
        peer_name: &endpoint.attachment.ifname,
        peer_netns: Some(netns),
        mtu: Some(endpoint.mtu),
        mac: Some(mac(endpoint.host_mac)),
        peer_mac: Some(mac(endpoint.pod_mac)),
    };
    netlink.create_veth(&new).map_err(|error| {
        if error.is_exists() {
            PlumbingError::PodDeviceTaken(endpoint.attachment.ifname.clone())
        } else {
            error.into()
        }
    })
}

/// Options of both ends: addresses are ours to give, and spoofing is the eBPF program's to stop.
fn set_device_options(
    sysctl: &Sysctl<'_>,
    name: &str,
    endpoint: &Endpoint,
) -> Result<(), router_netlink::Error> {
    for (option, value) in [
        ("rp_filter", "0"),
        ("proxy_arp", "0"),
        ("accept_redirects", "0"),
    ] {
        sysctl.write(&["net", "ipv4", "conf", name, option], value)?;
    }
    if endpoint.addresses.iter().any(IpAddr::is_ipv6) {
        let options = [
            ("disable_ipv6", "0"),
            ("accept_ra", "0"),
            ("accept_dad", "0"),
            ("proxy_ndp", "0"),
            ("accept_redirects", "0"),
        ];
        for (option, value) in options {
            sysctl.write(&["net", "ipv6", "conf", name, option], value)?;
        }
    }
    Ok(())
}

/// The route to an address. That the kernel follows it is asked, not assumed: somebody else's
/// route, or the address on a device of the node, may come first.
fn host_route(
    netlink: &mut Netlink,
    address: IpAddr,
    link: LinkIndex,
) -> Result<(), PlumbingError> {
    if leads_to(netlink, address, link).is_ok() {
        return Ok(());
    }
    let spec = host_route_spec(address, link);
    match netlink.add_route(&spec) {
        Ok(()) => {}
        Err(error) if error.is_exists() => {
            let ours = RouteFilter {
                table: Some(TableId::MAIN),
                protocol: Some(ROUTE_PROTOCOL),
            };
            if netlink.routes(ours)?.iter().any(|r| r.key == spec.key) {
                // Left over from an endpoint whose device went without its routes.
                netlink.replace_route(&spec)?;
            }
        }
        Err(error) => return Err(error.into()),
    }
    leads_to(netlink, address, link).map_err(|route| {
        if let Err(error) = netlink.delete_route(spec.key, ROUTE_PROTOCOL, ROUTE_METRIC) {
            tracing::warn!(%error, %address, "a useless route stays until its device goes");
        }
        PlumbingError::AddressInUse { address, route }
    })
}

/// Whether packets for an address leave by a device; if not, what becomes of them.
pub(crate) fn leads_to(
    netlink: &mut Netlink,
    address: IpAddr,
    link: LinkIndex,
) -> Result<(), String> {
    match netlink.lookup_route(address) {
        Ok(route)
            if route
                .next_hops
                .iter()
                .any(|h| h.next_hop.link == Some(link)) =>
        {
            Ok(())
        }
        Ok(route) if route.kind == RouteKind::Local => Err(format!(
            "an address of the node (`ip address show to {address}` says where)"
        )),
        Ok(route) => {
            let index = route.next_hops.iter().find_map(|h| h.next_hop.link);
            let name = index
                .and_then(|i| netlink.link_by_index(i).ok())
                .map(|l| l.name);
            Err(format!(
                "a route by {}",
                name.as_deref().unwrap_or("no device")
            ))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn host_route_spec(address: IpAddr, link: LinkIndex) -> RouteSpec {
    let key = RouteKey {
        table: TableId::MAIN,
        prefix: host_prefix(address),
    };
    let hop = NextHop {
        via: None,
        link: Some(link),
        weight: 1,
    };
    RouteSpec::new(
        key,
        Forwarding::Via(vec![hop]),
        ROUTE_PROTOCOL,
        ROUTE_METRIC,
    )
}

fn default_route(gateway: IpAddr, link: LinkIndex) -> RouteSpec {
    let key = RouteKey {
        table: TableId::MAIN,
        prefix: cni::everything(gateway),
    };
    let hop = NextHop {
        via: Some(gateway),
        link: Some(link),
        weight: 1,
    };
    let route = RouteSpec::new(
        key,
        Forwarding::Via(vec![hop]),
        Protocol::STATIC,
        if gateway.is_ipv4() { 0 } else { DEFAULT_METRIC },
    );
    RouteSpec {
        onlink: true,
        ..route
    }
}

fn ignore_missing(error: router_netlink::Error) -> Result<(), router_netlink::Error> {
    if error.is_not_found() {
        Ok(())
    } else {
        Err(error)
    }
}
