// SPDX-License-Identifier: Apache-2.0
//! `Node` and `Secret` of Kubernetes: the few fields Causeway reads. Others are accepted as they
//! are, so that an exported object can be put into the directory unchanged.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// What is wanted of the node.
    #[serde(default)]
    pub spec: NodeSpec,
    /// What the node says of itself.
    #[serde(default)]
    pub status: NodeStatus,
}

impl Node {
    /// The pod prefixes: the list, or the single field where only that is there.
    pub fn pod_prefixes(&self) -> Vec<IpNet> {
        let list = &self.spec.pod_cidrs;
        let texts = if list.is_empty() {
            self.spec.pod_cidr.as_slice()
        } else {
            list
        };
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    }

    /// The addresses of type `InternalIP`, in the order they are listed.
    pub fn internal_addresses(&self) -> Vec<IpAddr> {
        let internal = self
            .status
            .addresses
            .iter()
            .filter(|a| a.address_type == "InternalIP");
        internal.filter_map(|a| a.address.parse().ok()).collect()
    }
}

/// What is wanted of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct NodeSpec {
    /// The first pod prefix; kept by Kubernetes beside the list.
    #[serde(rename = "podCIDR", default, skip_serializing_if = "Option::is_none")]
    pub pod_cidr: Option<String>,
    /// The pod prefixes of the node, at most one of each family.
    #[serde(rename = "podCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    pub pod_cidrs: Vec<String>,
    /// Whether the node is cordoned: no new pods are put on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unschedulable: bool,
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct NodeStatus {
    /// The addresses of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<NodeAddress>,
}

/// One address of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname` and others.
    #[serde(rename = "type")]
    pub address_type: String,
    /// The address.
    pub address: String,
}

/// Key material. Its `Debug` shows key names only.
#[derive(Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// What the Secret is for; not read.
    #[serde(rename = "type", default)]
    pub secret_type: Option<String>,
    /// Whether the Secret may be changed; not read.
    #[serde(default)]
    pub immutable: Option<bool>,
    /// Values in base64 (RFC 4648 §4).
    #[serde(default)]
    pub data: BTreeMap<String, String>,
    /// Values in plain text; they win over `data`.
    #[serde(default)]
    pub string_data: BTreeMap<String, String>,
}

impl Secret {
    /// The bytes of one key. `None` when there is no such key, or when its base64 is broken,
    /// which a parsed Secret has been checked for.
    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        if let Some(text) = self.string_data.get(key) {
            return Some(text.clone().into_bytes());
        }
        crate::base64::decode(self.data.get(key)?).ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.data.keys().chain(self.string_data.keys()).collect();
        f.debug_struct("Secret")
            .field("keys", &keys)
            .finish_non_exhaustive()
    }
}
