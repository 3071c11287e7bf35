// SPDX-License-Identifier: Apache-2.0
//! `Node`, `Namespace`, `Pod` and `Secret` of Kubernetes: the few fields Causeway reads. Others are accepted as they
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
        self.addresses_of_type("InternalIP")
    }

    /// The addresses of type `ExternalIP`, in the order they are listed.
    pub fn external_addresses(&self) -> Vec<IpAddr> {
        self.addresses_of_type("ExternalIP")
    }

    /// Whether somebody has declared the node dead by the taint
    /// `node.kubernetes.io/out-of-service`.
    pub fn is_out_of_service(&self) -> bool {
        let mut taints = self.spec.taints.iter();
        taints.any(|taint| taint.key == "node.kubernetes.io/out-of-service")
    }

    fn addresses_of_type(&self, address_type: &str) -> Vec<IpAddr> {
        let addresses = self.status.addresses.iter();
        addresses
            .filter(|a| a.address_type == address_type)
            .filter_map(|a| a.address.parse().ok())
            .collect()
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
    /// What keeps pods off the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
}

/// What keeps pods off a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Taint {
    /// Its name.
    pub key: String,
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

/// A namespace. Its labels are in its metadata; nothing else is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Namespace {}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// What is wanted of the pod.
    #[serde(default)]
    pub spec: PodSpec,
    /// What its node says of it.
    #[serde(default)]
    pub status: PodStatus,
}

impl Pod {
    /// Its addresses: the list, or the single field where only that is there.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let list = self.status.pod_ips.iter().map(|entry| entry.ip.as_str());
        let addresses: Vec<IpAddr> = list.filter_map(|text| text.parse().ok()).collect();
        if addresses.is_empty() {
            let single = self.status.pod_ip.iter();
            return single.filter_map(|text| text.parse().ok()).collect();
        }
        addresses
    }

    /// Whether it has ended: its addresses may be another's by now.
    pub fn has_ended(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }
}

/// What is wanted of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct PodSpec {
    /// The node it runs on; absent until it is put on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Whether it has the network of its node, and no address of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_network: bool,
}

/// What a node says of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct PodStatus {
    /// Where it is in its life; one that ended keeps its addresses here and has none any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The first address; kept by Kubernetes beside the list.
    #[serde(rename = "podIP", default, skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<String>,
    /// The addresses, at most one of each family.
    #[serde(rename = "podIPs", default, skip_serializing_if = "Vec::is_empty")]
    pub pod_ips: Vec<PodIp>,
}

/// One address of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodIp {
    /// The address.
    pub ip: String,
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
