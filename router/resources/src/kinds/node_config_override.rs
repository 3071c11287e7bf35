// SPDX-License-Identifier: Apache-2.0
//! `CiliumBGPNodeConfigOverride`: what is different on one node. The object is named like the node.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pattern;

/// What is different on one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfigOverrideSpec {
    /// Instances of the cluster configuration, by their names.
    #[schemars(length(min = 1))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub bgp_instances: Vec<OverrideInstance>,
}

/// What is different for one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OverrideInstance {
    /// The name of the instance in the cluster configuration.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
    /// The router identifier, written as an IPv4 address.
    #[serde(rename = "routerID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "ipv4"), regex(pattern = pattern::ipv4()))]
    pub router_id: Option<String>,
    /// The TCP port to listen on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub local_port: Option<i32>,
    /// The autonomous system number of this speaker.
    #[serde(rename = "localASN", default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub local_asn: Option<i64>,
    /// Peers of the instance, by their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub peers: Vec<OverridePeer>,
}

/// What is different for one peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OverridePeer {
    /// The name of the peer in the cluster configuration.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
    /// The source address of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = pattern::peer_address()))]
    pub local_address: Option<String>,
    /// Has no effect: source ports are ephemeral.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub local_port: Option<i32>,
}
