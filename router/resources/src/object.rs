// SPDX-License-Identifier: Apache-2.0
//! The envelope around every object: which kind it is, its name, its labels.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::condition::Timestamp;
use crate::kinds::{
    AdvertisementSpec, BfdProfileSpec, CiliumEgressPolicySpec, ClusterConfigSpec, EgressPolicySpec,
    Namespace, Node, NodeConfigOverrideSpec, NodeConfigSpec, PeerConfigSpec, Pod, PolicySpec,
    Secret,
};
use crate::selector::Labels;

/// A kind of object Causeway knows, whatever the version it is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `CiliumBGPClusterConfig`.
    ClusterConfig,
    /// `CiliumBGPPeerConfig`.
    PeerConfig,
    /// `CiliumBGPAdvertisement`.
    Advertisement,
    /// `CiliumBGPNodeConfigOverride`.
    NodeConfigOverride,
    /// `CiliumBGPNodeConfig`.
    NodeConfig,
    /// `BGPClusterConfig` of `causeway.io`.
    CausewayClusterConfig,
    /// `BGPPeerConfig` of `causeway.io`.
    CausewayPeerConfig,
    /// `BGPPolicy` of `causeway.io`.
    Policy,
    /// `BFDProfile` of `causeway.io`.
    BfdProfile,
    /// `CiliumEgressGatewayPolicy`.
    CiliumEgressPolicy,
    /// `EgressGatewayPolicy` of `causeway.io`.
    EgressPolicy,
    /// `Node` of Kubernetes.
    Node,
    /// `Namespace` of Kubernetes.
    Namespace,
    /// `Pod` of Kubernetes.
    Pod,
    /// `Secret` of Kubernetes.
    Secret,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 15] = [
        Kind::ClusterConfig,
        Kind::PeerConfig,
        Kind::Advertisement,
        Kind::NodeConfigOverride,
        Kind::NodeConfig,
        Kind::CausewayClusterConfig,
        Kind::CausewayPeerConfig,
        Kind::Policy,
        Kind::BfdProfile,
        Kind::CiliumEgressPolicy,
        Kind::EgressPolicy,
        Kind::Node,
        Kind::Namespace,
        Kind::Pod,
        Kind::Secret,
    ];

    /// The kind of an `apiVersion` and `kind`, if it is one of ours to read.
    pub fn from_api(api_version: &str, kind: &str) -> Option<Kind> {
        Kind::ALL
            .into_iter()
            .find(|k| k.name() == kind && k.api_versions().contains(&api_version))
    }

    /// The name of the kind as manifests write it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::ClusterConfig => "CiliumBGPClusterConfig",
            Kind::PeerConfig => "CiliumBGPPeerConfig",
            Kind::Advertisement => "CiliumBGPAdvertisement",
            Kind::NodeConfigOverride => "CiliumBGPNodeConfigOverride",
            Kind::NodeConfig => "CiliumBGPNodeConfig",
            Kind::CausewayClusterConfig => "BGPClusterConfig",
            Kind::CausewayPeerConfig => "BGPPeerConfig",
            Kind::Policy => "BGPPolicy",
            Kind::BfdProfile => "BFDProfile",
            Kind::CiliumEgressPolicy => "CiliumEgressGatewayPolicy",
            Kind::EgressPolicy => "EgressGatewayPolicy",
            Kind::Node => "Node",
            Kind::Namespace => "Namespace",
            Kind::Pod => "Pod",
            Kind::Secret => "Secret",
        }
    }

    /// The API group; empty for the core group of Kubernetes.
    pub fn group(self) -> &'static str {
        match self {
            Kind::ClusterConfig
            | Kind::PeerConfig
            | Kind::Advertisement
            | Kind::NodeConfigOverride
            | Kind::NodeConfig
            | Kind::CiliumEgressPolicy => "cilium.io",
            Kind::CausewayClusterConfig
            | Kind::CausewayPeerConfig
            | Kind::Policy
            | Kind::BfdProfile
            | Kind::EgressPolicy => "causeway.io",
            Kind::Node | Kind::Namespace | Kind::Pod | Kind::Secret => "",
        }
    }

    /// The accepted `apiVersion` values, the one to write first.
    pub fn api_versions(self) -> &'static [&'static str] {
        match self {
            Kind::ClusterConfig
            | Kind::PeerConfig
            | Kind::Advertisement
            | Kind::NodeConfigOverride
            | Kind::NodeConfig => &["cilium.io/v2", "cilium.io/v2alpha1"],
            Kind::CausewayClusterConfig
            | Kind::CausewayPeerConfig
            | Kind::Policy
            | Kind::BfdProfile
            | Kind::EgressPolicy => &["causeway.io/v1alpha1"],
            Kind::CiliumEgressPolicy => &["cilium.io/v2"],
            Kind::Node | Kind::Namespace | Kind::Pod | Kind::Secret => &["v1"],
        }
    }

    /// The plural of resource paths, lower case.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::ClusterConfig => "ciliumbgpclusterconfigs",
            Kind::PeerConfig => "ciliumbgppeerconfigs",
            Kind::Advertisement => "ciliumbgpadvertisements",
            Kind::NodeConfigOverride => "ciliumbgpnodeconfigoverrides",
            Kind::NodeConfig => "ciliumbgpnodeconfigs",
            Kind::CausewayClusterConfig => "bgpclusterconfigs",
            Kind::CausewayPeerConfig => "bgppeerconfigs",
            Kind::Policy => "bgppolicies",
            Kind::BfdProfile => "bfdprofiles",
            Kind::CiliumEgressPolicy => "ciliumegressgatewaypolicies",
            Kind::EgressPolicy => "egressgatewaypolicies",
            Kind::Node => "nodes",
            Kind::Namespace => "namespaces",
            Kind::Pod => "pods",
            Kind::Secret => "secrets",
        }
    }

    /// The short name for command lines.
    pub fn short_name(self) -> &'static str {
        match self {
            Kind::ClusterConfig => "cbgpcluster",
            Kind::PeerConfig => "cbgppeer",
            Kind::Advertisement => "cbgpadvert",
            Kind::NodeConfigOverride => "cbgpnodeoverride",
            Kind::NodeConfig => "cbgpnode",
            Kind::CausewayClusterConfig => "cwbgpcluster",
            Kind::CausewayPeerConfig => "cwbgppeer",
            Kind::Policy => "cwbgppolicy",
            Kind::BfdProfile => "cwbfd",
            Kind::CiliumEgressPolicy => "cegp",
            Kind::EgressPolicy => "cwegp",
            Kind::Node => "no",
            Kind::Namespace => "ns",
            Kind::Pod => "po",
            Kind::Secret => "secret",
        }
    }

    /// Whether objects of this kind live in namespaces.
    pub fn is_namespaced(self) -> bool {
        matches!(self, Kind::Secret | Kind::Pod)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What identifies an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; `None` for kinds outside namespaces.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// The key of an object outside namespaces.
    pub fn cluster_wide(kind: Kind, name: impl Into<String>) -> Self {
        ObjectKey {
            kind,
            namespace: None,
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    /// Writes `CiliumBGPPeerConfig/tor`, `Secret/kube-system/bgp-auth`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

/// The parts of an object's metadata that are read. The others are accepted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The name, unique within kind and namespace.
    pub name: String,
    /// The namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Labels, by which others select the object.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Remarks for tools.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub annotations: Labels,
    /// Counts changes of the spec. The API server sets it; in files the store counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// What the API server knows the object by: another one of the same name has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// When the API server made the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Timestamp>,
}

/// The body of an object, by kind.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant is the kind of its name")]
pub enum Body {
    ClusterConfig(ClusterConfigSpec),
    PeerConfig(PeerConfigSpec),
    Advertisement(AdvertisementSpec),
    NodeConfigOverride(NodeConfigOverrideSpec),
    NodeConfig(NodeConfigSpec),
    CausewayClusterConfig(ClusterConfigSpec),
    CausewayPeerConfig(PeerConfigSpec),
    Policy(PolicySpec),
    BfdProfile(BfdProfileSpec),
    CiliumEgressPolicy(CiliumEgressPolicySpec),
    EgressPolicy(Box<EgressPolicySpec>),
    Node(Node),
    Namespace(Namespace),
    Pod(Pod),
    Secret(Secret),
}

/// One valid object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// The `apiVersion` it was written in.
    pub api_version: &'static str,
    /// Its metadata.
    pub metadata: Metadata,
    /// Its body.
    pub body: Body,
}

impl Object {
    /// The kind of the object.
    pub fn kind(&self) -> Kind {
        match &self.body {
            Body::ClusterConfig(_) => Kind::ClusterConfig,
            Body::PeerConfig(_) => Kind::PeerConfig,
            Body::Advertisement(_) => Kind::Advertisement,
            Body::NodeConfigOverride(_) => Kind::NodeConfigOverride,
            Body::NodeConfig(_) => Kind::NodeConfig,
            Body::CausewayClusterConfig(_) => Kind::CausewayClusterConfig,
            Body::CausewayPeerConfig(_) => Kind::CausewayPeerConfig,
            Body::Policy(_) => Kind::Policy,
            Body::BfdProfile(_) => Kind::BfdProfile,
            Body::CiliumEgressPolicy(_) => Kind::CiliumEgressPolicy,
            Body::EgressPolicy(_) => Kind::EgressPolicy,
            Body::Node(_) => Kind::Node,
            Body::Namespace(_) => Kind::Namespace,
            Body::Pod(_) => Kind::Pod,
            Body::Secret(_) => Kind::Secret,
        }
    }

    /// The key of the object. A namespaced object without a namespace is in `default`.
    pub fn key(&self) -> ObjectKey {
        let kind = self.kind();
        let namespace = kind.is_namespaced().then(|| {
            self.metadata
                .namespace
                .clone()
                .unwrap_or_else(|| "default".into())
        });
        ObjectKey {
            kind,
            namespace,
            name: self.metadata.name.clone(),
        }
    }

    /// The object as JSON, defaults filled in, to be shown to people. Of a Secret the keys are
    /// there and the values are not; nor are its annotations, in which kubectl keeps a copy.
    pub fn to_redacted_json(&self) -> Json {
        let mut json = match &self.body {
            Body::ClusterConfig(spec) | Body::CausewayClusterConfig(spec) => {
                json!({ "spec": spec })
            }
            Body::PeerConfig(spec) | Body::CausewayPeerConfig(spec) => json!({ "spec": spec }),
            Body::Advertisement(spec) => json!({ "spec": spec }),
            Body::Policy(spec) => json!({ "spec": spec }),
            Body::BfdProfile(spec) => json!({ "spec": spec }),
            Body::CiliumEgressPolicy(spec) => json!({ "spec": spec }),
            Body::EgressPolicy(spec) => json!({ "spec": spec }),
            Body::NodeConfigOverride(spec) => json!({ "spec": spec }),
            Body::NodeConfig(spec) => json!({ "spec": spec }),
            Body::Node(node) => json!(node),
            Body::Namespace(namespace) => json!(namespace),
            Body::Pod(pod) => json!(pod),
            Body::Secret(secret) => {
                let keys = secret.data.keys().chain(secret.string_data.keys());
                let data: serde_json::Map<String, Json> =
                    keys.map(|key| (key.clone(), "(redacted)".into())).collect();
                json!({ "type": secret.secret_type, "data": data })
            }
        };
        let mut metadata = self.metadata.clone();
        if self.kind() == Kind::Secret {
            metadata.annotations.clear();
        }
        json["apiVersion"] = self.api_version.into();
        json["kind"] = self.kind().name().into();
        json["metadata"] = json!(metadata);
        json
    }
}
