// SPDX-License-Identifier: Apache-2.0
//! What `BGPClusterConfig` of `causeway.io` adds to an instance and to a peer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bgp_policy::AsnRange;
use super::cluster_config::PeerConfigRef;
use crate::pattern;

/// What an instance of a `BGPClusterConfig` has beyond one of a `CiliumBGPClusterConfig`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CausewayInstance {
    /// Whether routes learned from one peer are announced to others. Absent: false, since a node
    /// between two switches would become a way around the fabric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transit: Option<bool>,
    /// Whether the best learned routes are put into the kernel. Absent: true. Route reflectors and
    /// route servers do without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install_routes: Option<bool>,
    /// The addresses to listen on, with `localPort`. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 64),
        inner(regex(pattern = pattern::address()))
    )]
    pub listen_addresses: Option<Vec<String>>,
    /// Prefixes whose addresses may call and become peers. Needs `localPort`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub listen_ranges: Vec<ListenRange>,
    /// The most next hops of one destination. Absent: 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub max_paths: Option<i32>,
    /// Whether paths of one length through different neighbouring ASes are used together. Absent:
    /// true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_path_relax: Option<bool>,
    /// Whether paths used together are weighed by their link bandwidth communities. Absent: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weigh_by_link_bandwidth: Option<bool>,
    /// Whether an external session without an import and an export policy exchanges nothing
    /// (RFC 8212). Absent: false, since import takes the default route only and nothing is
    /// announced that no advertisement names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebgp_requires_policy: Option<bool>,
    /// The cluster of this route reflector (RFC 4456). Absent: the router identifier.
    #[serde(rename = "clusterID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "ipv4"), regex(pattern = pattern::ipv4()))]
    pub cluster_id: Option<String>,
    /// The route targets of the VPN routes this instance asks its peers for, those with which it
    /// exchanges the family `ipv4`/`route_target_constraints` (RFC 4684), such as `rt:65000:100`.
    /// Absent: all. Empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 4096),
        inner(regex(pattern = pattern::route_target()))
    )]
    pub route_targets: Option<Vec<String>>,
    /// Whether everything is announced with GRACEFUL_SHUTDOWN (RFC 8326), before maintenance of
    /// all nodes this configuration is for. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_shutdown: Option<bool>,
    /// Whether the same is done on a node that is cordoned (`spec.unschedulable` of its Node).
    /// Absent: false, since a cordoned node keeps its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_shutdown_on_cordon: Option<bool>,
    /// Prefixes announced while something more specific is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["prefix"])
    )]
    pub aggregates: Vec<AggregateRoute>,
    /// Whether routes that policies reject are kept to be looked at, at the cost of their memory.
    /// Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_rejected: Option<bool>,
    /// The VRF the instance is in. Reserved: VRFs are not provided yet, and an instance that names
    /// one is not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub vrf: Option<String>,
}

/// A prefix whose addresses may call and become peers while their sessions last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenRange {
    /// The name of the range, unique among the peers and ranges of its instance. Its peers are
    /// called by it and their address, `servers:192.0.2.7`.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
    /// The prefix, host bits zero. Of several the most specific one counts.
    #[schemars(regex(pattern = pattern::cidr()))]
    pub prefix: String,
    /// The most peers of the range at once.
    #[serde(default = "default_max_peers")]
    #[schemars(range(min = 1, max = 65535))]
    pub max_peers: i32,
    /// The AS numbers peers may have. Absent: any.
    #[serde(rename = "peerASNs", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub peer_asns: Option<Vec<AsnRange>>,
    /// The peer configuration of its peers. Absent: the defaults, which advertise nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_config_ref: Option<PeerConfigRef>,
}

/// A prefix announced while something more specific is known (RFC 4271 §9.2.2.2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AggregateRoute {
    /// The prefix, host bits zero.
    #[schemars(regex(pattern = pattern::cidr()))]
    pub prefix: String,
    /// Whether the more specific ones are not announced then.
    #[serde(default)]
    pub summary_only: bool,
}

/// What a peer of a `BGPClusterConfig` has beyond one of a `CiliumBGPClusterConfig`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CausewayPeer {
    /// The interface the peer is alone on, in place of an address ("unnumbered"): short for
    /// `autoDiscovery` of mode `Unnumbered`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub interface: Option<String>,
    /// Shuts the session down while it is there (RFC 9003).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown: Option<Shutdown>,
    /// Whether all routes sent to the peer carry GRACEFUL_SHUTDOWN and all of it are the last
    /// choice (RFC 8326), before maintenance of this link. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_shutdown: Option<bool>,
}

/// An administrative shutdown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shutdown {
    /// What the peer's operator is told, up to 255 octets.
    #[serde(default)]
    #[schemars(length(max = 255))]
    pub message: String,
}

fn default_max_peers() -> i32 {
    100
}
