// SPDX-License-Identifier: Apache-2.0
//! `CiliumEgressGatewayPolicy`: which pods leave the cluster through which node, and under which
//! address.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pattern;
use crate::selector::LabelSelector;

/// Which pods reach destinations outside the cluster through a gateway node, and under which
/// address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CiliumEgressPolicySpec {
    /// Which pods: those that an entry selects. Empty: none.
    pub selectors: Vec<EgressSelector>,
    /// Where the policy applies: prefixes of destinations outside the cluster. Pods and nodes are
    /// reached directly, whatever stands here.
    #[serde(rename = "destinationCIDRs")]
    #[schemars(inner(regex(pattern = pattern::cidr())))]
    pub destination_cidrs: Vec<String>,
    /// Where it does not, within the destinations; of the prefixes that match, the longest decides.
    #[serde(
        rename = "excludedCIDRs",
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(inner(regex(pattern = pattern::cidr())))]
    pub excluded_cidrs: Vec<String>,
    /// The gateway; not used where `egressGateways` has an entry.
    pub egress_gateway: EgressGateway,
    /// Several gateways, each pod bound to one of them by its UID, whether that is alive or not.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub egress_gateways: Vec<EgressGateway>,
}

/// Which pods. All three must hold; at least one of `podSelector` and `namespaceSelector` is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressSelector {
    /// By the labels of the pod's namespace. Absent or empty: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// By the labels of the pod; `io.kubernetes.pod.namespace` and
    /// `io.cilium.k8s.namespace.labels.` with the key of a namespace's label are among them.
    /// Absent or empty: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// By the labels of the node the pod runs on. Needs `podSelector`. Absent or empty: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
}

/// A gateway node and the address packets get there. With neither `interface` nor `egressIP` it is
/// the first address of the device with the default route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressGateway {
    /// Which nodes may be the gateway.
    pub node_selector: LabelSelector,
    /// The device packets leave by, with its first address of each family. Not together with
    /// `egressIP`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interface: String,
    /// The address packets get, which must be on a device of the gateway already. Not together
    /// with `interface`.
    #[serde(rename = "egressIP", default, skip_serializing_if = "String::is_empty")]
    #[schemars(
        length(max = 39),
        extend("x-kubernetes-validations" = [{
            "rule": "self == '' || isIP(self)",
            "message": "egressIP must be empty or an IP address"
        }])
    )]
    pub egress_ip: String,
}

impl EgressGateway {
    /// The device, if one is written.
    pub fn device(&self) -> Option<&str> {
        Some(self.interface.as_str()).filter(|name| !name.is_empty())
    }

    /// The address, if one is written. A parsed object has been checked for one that is none.
    pub fn address(&self) -> Option<IpAddr> {
        self.egress_ip.parse().ok()
    }
}
