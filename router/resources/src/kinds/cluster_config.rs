// SPDX-License-Identifier: Apache-2.0
//! `CiliumBGPClusterConfig`: which nodes run which BGP instances with which peers; and what
//! `BGPClusterConfig` of `causeway.io` has in common with it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::causeway_instance::{CausewayInstance, CausewayPeer};
use crate::pattern;
use crate::selector::LabelSelector;

/// Which nodes speak BGP, as which autonomous systems, and with whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterConfigSpec {
    /// The nodes this configuration is for, by their labels. Absent: all nodes. Two
    /// configurations that select one node are a conflict; the older one wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// The BGP speakers each selected node runs.
    #[schemars(length(min = 1, max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub bgp_instances: Vec<BgpInstance>,
}

/// One BGP speaker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpInstance {
    /// The name of the instance, by which overrides refer to it.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
    /// The autonomous system number of this speaker. May be left to a node's override.
    #[serde(rename = "localASN", default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub local_asn: Option<i64>,
    /// The TCP port to listen on. Absent: the speaker connects and does not listen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub local_port: Option<i32>,
    /// The neighbours of this speaker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub peers: Vec<BgpPeer>,
    /// Monitoring stations this speaker reports to (RFC 7854).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub bmp_servers: Vec<BmpServer>,
    /// What only `BGPClusterConfig` of `causeway.io` has.
    #[serde(flatten)]
    pub ours: CausewayInstance,
}

/// One neighbour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeer {
    /// The name of the peer, unique in its instance.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
    /// The address of the peer; an IPv6 link-local address takes a zone, `fe80::1%eth0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = pattern::peer_address()))]
    pub peer_address: Option<String>,
    /// The autonomous system number of the peer. 0: whatever the peer's OPEN says.
    #[serde(rename = "peerASN", default)]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub peer_asn: i64,
    /// How to find the peer when its address is not written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_discovery: Option<AutoDiscovery>,
    /// The peer configuration to use. Absent: the defaults, which advertise nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_config_ref: Option<PeerConfigRef>,
    /// What only `BGPClusterConfig` of `causeway.io` has.
    #[serde(flatten)]
    pub ours: CausewayPeer,
}

/// How a peer is found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.mode != 'DefaultGateway' || has(self.defaultGateway)",
        "message": "defaultGateway is required with mode DefaultGateway"
    },
    {
        "rule": "self.mode != 'Unnumbered' || has(self.unnumbered)",
        "message": "unnumbered is required with mode Unnumbered"
    }
]))]
pub struct AutoDiscovery {
    /// The way of discovery.
    pub mode: AutoDiscoveryMode,
    /// Settings of mode `DefaultGateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_gateway: Option<DefaultGateway>,
    /// Settings of mode `Unnumbered`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unnumbered: Option<Unnumbered>,
}

/// A way of discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AutoDiscoveryMode {
    /// The gateway of the node's default route.
    DefaultGateway,
    /// The router heard on an interface by IPv6 neighbour discovery.
    Unnumbered,
}

/// Settings of discovery by default gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefaultGateway {
    /// The family of the default route to follow.
    pub address_family: AddressFamily,
}

/// An address family by its short name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AddressFamily {
    /// IP version 4.
    Ipv4,
    /// IP version 6.
    Ipv6,
}

/// Settings of unnumbered discovery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unnumbered {
    /// The interface the router is on.
    #[schemars(length(min = 1, max = 255))]
    pub interface: String,
}

/// The name of a peer configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerConfigRef {
    /// The group of the kind: `cilium.io` or `causeway.io`. Absent: as `kind` says, or both in
    /// this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The kind: `CiliumBGPPeerConfig` or `BGPPeerConfig`. Absent: the first, and where no such
    /// object exists the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The name of the object.
    #[schemars(length(min = 1))]
    pub name: String,
}

/// A monitoring station.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BmpServer {
    /// The name of the station, unique in its instance.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
    /// The address of the station.
    #[schemars(regex(pattern = pattern::peer_address()))]
    pub peer_address: String,
    /// The TCP port of the station.
    #[serde(default = "default_bmp_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub peer_port: i32,
    /// Which tables are reported.
    #[serde(default)]
    pub monitoring_policy: MonitoringPolicy,
    /// Seconds between statistics reports. Absent: none are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 15, max = 65535))]
    pub statistics_timeout: Option<i32>,
}

/// Which tables a monitoring station hears about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MonitoringPolicy {
    /// Adj-RIB-In before policy.
    #[default]
    Pre,
    /// Adj-RIB-In after policy.
    Post,
    /// Both of these.
    Both,
    /// Loc-RIB (RFC 9069).
    Local,
    /// All of them.
    All,
}

fn default_bmp_port() -> i32 {
    11019
}
