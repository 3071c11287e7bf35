// SPDX-License-Identifier: Apache-2.0
//! Where the peers of an entry are: as written, at the node's default gateways, or on an interface.

use std::net::IpAddr;

use bgp_core::config::PeerAddress;
use router_resources::kinds::{AddressFamily, AutoDiscoveryMode, BgpPeer};
use router_resources::parse_address;

use crate::facts::NodeFacts;

/// A peer that is there.
pub(crate) struct Found {
    /// Its name: as written, with the address behind it where several may be found.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) address: PeerAddress,
}

/// Finds the peers an entry means.
///
/// # Errors
/// There is none at the moment, or the entry says nowhere: in words.
pub(crate) fn find(peer: &BgpPeer, facts: &NodeFacts) -> Result<Vec<Found>, String> {
    if let Some(interface) = interface(peer) {
        return on_interface(peer, interface, facts).map(|found| vec![found]);
    }
    if let Some(discovery) = &peer.auto_discovery {
        let settings = discovery.default_gateway.as_ref();
        let settings = settings.ok_or("autoDiscovery says no defaultGateway")?;
        return at_gateways(peer, settings.address_family, facts);
    }
    let text = peer
        .peer_address
        .as_deref()
        .ok_or("it has no peerAddress")?;
    let (ip, zone) = parse_address(text).ok_or_else(|| format!("'{text}' is not an IP address"))?;
    let address = PeerAddress::new(ip, zone.map(str::to_owned)).map_err(|e| e.to_string())?;
    Ok(vec![Found {
        name: peer.name.clone(),
        address,
    }])
}

/// The interface of an unnumbered peer.
pub(crate) fn interface(peer: &BgpPeer) -> Option<&str> {
    let discovery = peer.auto_discovery.as_ref();
    let unnumbered = discovery
        .filter(|discovery| discovery.mode == AutoDiscoveryMode::Unnumbered)
        .and_then(|discovery| discovery.unnumbered.as_ref());
    let interface = peer.ours.interface.as_deref();
    interface.or(unnumbered.map(|unnumbered| unnumbered.interface.as_str()))
}

/// One peer at each gateway of the default route. Its name has the address in it, so that a session
/// does not depend on how many other gateways there are.
fn at_gateways(
    peer: &BgpPeer,
    family: AddressFamily,
    facts: &NodeFacts,
) -> Result<Vec<Found>, String> {
    let (is_ipv4, word) = match family {
        AddressFamily::Ipv4 => (true, "IPv4"),
        AddressFamily::Ipv6 => (false, "IPv6"),
    };
    let mut found = Vec::new();
    for gateway in &facts.default_gateways {
        if gateway.address.is_ipv4() != is_ipv4 {
            continue;
        }
        let is_link_local = matches!(gateway.address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let zone = is_link_local.then(|| gateway.interface.clone());
        let address = PeerAddress::new(gateway.address, zone).map_err(|e| e.to_string())?;
        found.push(Found {
            name: format!("{}:{address}", peer.name),
            address,
        });
    }
    if found.is_empty() {
        return Err(format!(
            "there is no {word} default route with a gateway on a link that is up; routes \
             learned by BGP do not count"
        ));
    }
    Ok(found)
}

fn on_interface(peer: &BgpPeer, interface: &str, facts: &NodeFacts) -> Result<Found, String> {
    let Some(link) = facts.interfaces.get(interface) else {
        return Err(format!("interface {interface} does not exist on this node"));
    };
    if !link.is_up() {
        return Err(format!("interface {interface} is down"));
    }
    let router = facts.link_routers.get(interface).ok_or_else(|| {
        format!(
            "no router was heard on interface {interface} yet; the other end has to send router \
             advertisements, too"
        )
    })?;
    let zone = Some(interface.to_owned());
    let address = PeerAddress::new((*router).into(), zone).map_err(|e| e.to_string())?;
    Ok(Found {
        name: peer.name.clone(),
        address,
    })
}
