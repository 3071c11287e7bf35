// SPDX-License-Identifier: Apache-2.0
//! From the sessions as they are to the status of the node's `CiliumBGPNodeConfig`.

use std::time::SystemTime;

use router_resources::Timestamp;
use router_resources::kinds::{
    Afi, NodeConfigStatus, NodeInstanceStatus, NodePeerStatus, NodePeerTimers, PeeringState,
    RouteCount, Safi,
};
use router_types::Family;

use crate::compile::Compiled;

/// One session at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// The name of the instance.
    pub instance: String,
    /// The name of the peer.
    pub peer: String,
    /// The AS number of the peer: what its OPEN said, else as configured.
    pub peer_asn: Option<u32>,
    /// The state.
    pub state: PeeringState,
    /// The agreed hold time in seconds, once established.
    pub hold_time_s: Option<u16>,
    /// The keepalive interval in seconds, once established.
    pub keepalive_s: Option<u16>,
    /// Since when it is established.
    pub established_since: Option<SystemTime>,
    /// Routes by family: received and advertised.
    pub routes: Vec<(Family, u64, u64)>,
}

/// Makes the status. Peers that are not run, and peers there is no session of yet, are `idle`.
pub fn node_config_status(compiled: &Compiled, sessions: &[SessionStatus]) -> NodeConfigStatus {
    let spec = compiled.node_config.as_ref().map(|config| &config.spec);
    let instances = spec
        .into_iter()
        .flat_map(|spec| &spec.bgp_instances)
        .map(|instance| {
            let peers = instance.peers.iter().map(|peer| {
                let session = sessions
                    .iter()
                    .find(|session| session.instance == instance.name && session.peer == peer.name);
                let address = peer.peer_address.clone().unwrap_or_default();
                let configured = u32::try_from(peer.peer_asn).ok().filter(|asn| *asn != 0);
                peer_status(&peer.name, address, configured, session)
            });
            NodeInstanceStatus {
                name: instance.name.clone(),
                local_asn: instance.local_asn,
                peers: peers.collect(),
            }
        });
    NodeConfigStatus {
        bgp_instances: instances.collect(),
        conditions: Vec::new(),
    }
}

fn peer_status(
    name: &str,
    peer_address: String,
    configured_asn: Option<u32>,
    session: Option<&SessionStatus>,
) -> NodePeerStatus {
    let established = session.filter(|s| s.state == PeeringState::Established);
    NodePeerStatus {
        name: name.to_owned(),
        peer_address,
        peer_asn: session
            .and_then(|s| s.peer_asn)
            .or(configured_asn)
            .map(i64::from),
        peering_state: Some(session.map_or(PeeringState::Idle, |s| s.state)),
        timers: established.map(|s| NodePeerTimers {
            applied_hold_time_seconds: s.hold_time_s.map(i32::from),
            applied_keepalive_seconds: s.keepalive_s.map(i32::from),
        }),
        established_time: established
            .and_then(|s| s.established_since)
            .map(|since| Timestamp::from(since).to_string()),
        route_count: established.map_or_else(Vec::new, |s| {
            s.routes
                .iter()
                .filter_map(|(family, r, a)| route_count(*family, *r, *a))
                .collect()
        }),
    }
}

/// The counts of one family; `None` for a family the manifests have no name for.
fn route_count(family: Family, received: u64, advertised: u64) -> Option<RouteCount> {
    let afi = match family {
        Family::IPV4_UNICAST => Afi::Ipv4,
        Family::IPV6_UNICAST => Afi::Ipv6,
        _ => return None,
    };
    let count = |n: u64| Some(i32::try_from(n).unwrap_or(i32::MAX));
    Some(RouteCount {
        afi,
        safi: Safi::Unicast,
        received: count(received),
        advertised: count(advertised),
    })
}
