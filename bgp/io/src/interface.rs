// SPDX-License-Identifier: Apache-2.0
//! What the device of a connection offers as next hops.

use std::net::{IpAddr, SocketAddr};

use bgp_core::peer::SessionAddresses;
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use router_types::LinkIndex;

/// Completes the ends of a connection with the device that has the local one, and the other
/// addresses of that device: an IPv6 session can then announce IPv4 prefixes with an IPv4 next hop,
/// and the other way round.
pub(crate) fn session_addresses(local: SocketAddr, remote: SocketAddr) -> SessionAddresses {
    let mut addresses = SessionAddresses {
        local,
        remote,
        link: None,
        link_ipv4: None,
        link_ipv6: None,
        network: None,
    };
    let Ok(all) = getifaddrs() else {
        return addresses;
    };
    let all: Vec<(String, IpAddr)> = all
        .filter_map(|entry| {
            let address = entry.address?;
            let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
                (Some(v4), _) => IpAddr::V4(v4.ip()),
                (_, Some(v6)) => IpAddr::V6(v6.ip()),
                _ => return None,
            };
            Some((entry.interface_name, ip))
        })
        .collect();
    let name = match local {
        // The same link-local address may be on several devices: the scope says which.
        SocketAddr::V6(v6) if v6.scope_id() != 0 => nix::net::if_::if_indextoname(v6.scope_id())
            .ok()
            .and_then(|name| name.into_string().ok()),
        _ => all
            .iter()
            .find(|(_, ip)| *ip == local.ip())
            .map(|(name, _)| name.clone()),
    };
    let Some(name) = name else {
        return addresses;
    };
    addresses.link = crate::socket::interface_index(&name).ok().map(LinkIndex);
    for (_, ip) in all.iter().filter(|(of, _)| *of == name) {
        match ip {
            IpAddr::V4(v4) if !v4.is_loopback() || local.ip().is_loopback() => {
                addresses.link_ipv4.get_or_insert(*v4);
            }
            IpAddr::V6(v6) if !v6.is_unicast_link_local() && !v6.is_loopback() => {
                addresses.link_ipv6.get_or_insert(*v6);
            }
            _ => {}
        }
    }
    // The end of the session itself comes first where it fits.
    match local.ip() {
        IpAddr::V4(v4) => addresses.link_ipv4 = Some(v4),
        IpAddr::V6(v6) if !v6.is_unicast_link_local() => addresses.link_ipv6 = Some(v6),
        IpAddr::V6(_) => {}
    }
    addresses.network = network_of(local.ip(), remote.ip());
    addresses
}

/// The network of an own address that another one is on, too. Link-local addresses are on none: all
/// links have the same prefix.
fn network_of(local: IpAddr, remote: IpAddr) -> Option<IpNet> {
    let is_of_link = matches!(local, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if local.is_loopback() || is_of_link {
        return None;
    }
    getifaddrs().ok()?.find_map(|entry| {
        let (address, mask) = (entry.address?, entry.netmask?);
        let (own, mask): (IpAddr, IpAddr) = match local {
            IpAddr::V4(_) => (
                address.as_sockaddr_in()?.ip().into(),
                mask.as_sockaddr_in()?.ip().into(),
            ),
            IpAddr::V6(_) => (
                address.as_sockaddr_in6()?.ip().into(),
                mask.as_sockaddr_in6()?.ip().into(),
            ),
        };
        let network = IpNet::with_netmask(own, mask).ok()?.trunc();
        (own == local && network.contains(&remote)).then_some(network)
    })
}

/// The device on whose network an address is; `None` for one behind routers.
pub(crate) fn device_towards(peer: IpAddr) -> Option<String> {
    let width = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
    getifaddrs().ok()?.find_map(|entry| {
        let (address, mask) = (entry.address?, entry.netmask?);
        let is_on_it = match peer {
            IpAddr::V4(peer) => {
                let (own, mask) = (address.as_sockaddr_in()?.ip(), mask.as_sockaddr_in()?.ip());
                let bits = u32::from(mask);
                width(&mask.octets()) < 32 && u32::from(own) & bits == u32::from(peer) & bits
            }
            IpAddr::V6(peer) => {
                let own = address.as_sockaddr_in6()?.ip();
                let mask = mask.as_sockaddr_in6()?.ip();
                let bits = u128::from(mask);
                width(&mask.octets()) < 128 && u128::from(own) & bits == u128::from(peer) & bits
            }
        };
        is_on_it.then_some(entry.interface_name)
    })
}
