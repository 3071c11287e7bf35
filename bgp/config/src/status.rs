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
    let (afi, safi) = match family {
        Family::IPV4_UNICAST => (Afi::Ipv4, Safi::Unicast),
        Family::IPV6_UNICAST => (Afi::Ipv6, Safi::Unicast),
        Family::VPNV4 => (Afi::Ipv4, Safi::MplsVpn),
        Family::VPNV6 => (Afi::Ipv6, Safi::MplsVpn),
        Family::ROUTE_TARGET => (Afi::Ipv4, Safi::RouteTargetConstraints),
        _ => return None,
    };
    let count = |n: u64| Some(i32::try_from(n).unwrap_or(i32::MAX));
    Some(RouteCount {
        afi,
        safi,
        received: count(received),
        advertised: count(advertised),
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use router_resources::kinds::{NodeConfigInstance, NodeConfigPeer, NodeConfigSpec};
    use router_resources::{Kind, ObjectKey};

    use super::*;
    use crate::compile::NodeConfig;

    fn compiled() -> Compiled {
        let peer = |name: &str, peer_asn| NodeConfigPeer {
            name: name.into(),
            peer_address: Some("10.0.0.1".into()),
            peer_asn,
            auto_discovery: None,
            local_address: None,
            peer_interface: None,
            peer_config_ref: None,
        };
        let instance = NodeConfigInstance {
            name: "main".into(),
            local_asn: Some(65001),
            router_id: None,
            local_port: None,
            peers: vec![peer("up", 0), peer("not-run", 65100)],
        };
        Compiled {
            node_config: Some(NodeConfig {
                owner: ObjectKey::cluster_wide(Kind::ClusterConfig, "c"),
                spec: NodeConfigSpec {
                    bgp_instances: vec![instance],
                },
            }),
            ..Compiled::default()
        }
    }

    fn session(state: PeeringState) -> SessionStatus {
        SessionStatus {
            instance: "main".into(),
            peer: "up".into(),
            peer_asn: Some(65200),
            state,
            hold_time_s: Some(9),
            keepalive_s: Some(3),
            established_since: Some(UNIX_EPOCH + Duration::from_secs(60)),
            routes: vec![
                (Family::IPV4_UNICAST, 5_000_000_000, 2),
                (
                    Family {
                        afi: router_types::Afi(25),
                        safi: router_types::Safi(70),
                    },
                    1,
                    1,
                ),
            ],
        }
    }

    #[test]
    fn an_established_session_shows_what_was_agreed() {
        let status = node_config_status(&compiled(), &[session(PeeringState::Established)]);
        let peer = &status.bgp_instances[0].peers[0];
        assert_eq!(peer.peer_asn, Some(65200));
        assert_eq!(
            peer.established_time.as_deref(),
            Some("1970-01-01T00:01:00Z")
        );
        assert_eq!(
            peer.timers.as_ref().unwrap().applied_hold_time_seconds,
            Some(9)
        );
        assert_eq!(peer.route_count.len(), 1);
        assert_eq!(peer.route_count[0].received, Some(i32::MAX));
    }

    #[test]
    fn other_sessions_show_their_state_and_no_leftovers() {
        let status = node_config_status(&compiled(), &[session(PeeringState::OpenSent)]);
        let peer = &status.bgp_instances[0].peers[0];
        assert_eq!(peer.peering_state, Some(PeeringState::OpenSent));
        assert!(peer.timers.is_none() && peer.established_time.is_none());
        assert!(peer.route_count.is_empty());
        let not_run = &status.bgp_instances[0].peers[1];
        assert_eq!(not_run.peering_state, Some(PeeringState::Idle));
        assert_eq!(not_run.peer_asn, Some(65100));
    }

    #[test]
    fn without_a_cluster_configuration_there_is_nothing_to_show() {
        let status = node_config_status(&Compiled::default(), &[]);
        assert_eq!(status, NodeConfigStatus::default());
    }
}
