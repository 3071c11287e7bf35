// SPDX-License-Identifier: Apache-2.0
//! All objects in force at one moment, for readers.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::kinds::{
    AdvertisementSpec, BfdProfileSpec, CiliumEgressPolicySpec, ClusterConfigSpec, EgressPolicySpec,
    Namespace, Node, NodeConfigOverrideSpec, PeerConfigSpec, Pod, PolicySpec, Secret,
};
use crate::object::{Body, Kind, Metadata, Object, ObjectKey};

/// Where an object was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// The document in the file, from 1.
    pub document: usize,
    /// The line the object begins at, from 1.
    pub line: usize,
}

impl fmt::Display for Source {
    /// Writes `bgp.yaml:17`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// An object in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The object.
    pub object: Object,
    /// Where it was read.
    pub source: Source,
    /// The generation of its spec: the API server's, or counted from 1 by the store.
    pub generation: i64,
}

/// All objects in force at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(crate) objects: Arc<BTreeMap<ObjectKey, Arc<Stored>>>,
}

/// One object of a known kind, as the accessors of [`Snapshot`] give it.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a, T> {
    /// Its metadata.
    pub metadata: &'a Metadata,
    /// Its body.
    pub spec: &'a T,
    /// Where it was read, and its generation.
    pub stored: &'a Stored,
}

impl<T> Entry<'_, T> {
    /// The object's name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// The object's key.
    pub fn key(&self) -> ObjectKey {
        self.stored.object.key()
    }
}

macro_rules! accessors {
    ($($(#[$doc:meta])* $list:ident, $get:ident => $variant:ident: $spec:ty;)*) => {
        impl Snapshot {
            $(
                $(#[$doc])*
                /// In order of names.
                pub fn $list(&self) -> impl Iterator<Item = Entry<'_, $spec>> {
                    self.of_kind(Kind::$variant).filter_map(|stored| match &stored.object.body {
                        Body::$variant(spec) => {
                            let metadata = &stored.object.metadata;
                            Some(Entry::<$spec> { metadata, spec, stored })
                        }
                        _ => None,
                    })
                }

                $(#[$doc])*
                /// The one of this name.
                pub fn $get(&self, name: &str) -> Option<Entry<'_, $spec>> {
                    let stored = self.get(&ObjectKey::cluster_wide(Kind::$variant, name))?;
                    match &stored.object.body {
                        Body::$variant(spec) => {
                            let metadata = &stored.object.metadata;
                            Some(Entry::<$spec> { metadata, spec, stored })
                        }
                        _ => None,
                    }
                }
            )*
        }
    };
}

// A macro, not a function: each accessor differs in an enum variant, which generics cannot name.
accessors! {
    /// The `CiliumBGPClusterConfig` objects.
    cluster_configs, cluster_config => ClusterConfig: ClusterConfigSpec;
    /// The `CiliumBGPPeerConfig` objects.
    peer_configs, peer_config => PeerConfig: PeerConfigSpec;
    /// The `BGPClusterConfig` objects of `causeway.io`.
    causeway_cluster_configs, causeway_cluster_config => CausewayClusterConfig: ClusterConfigSpec;
    /// The `BGPPeerConfig` objects of `causeway.io`.
    causeway_peer_configs, causeway_peer_config => CausewayPeerConfig: PeerConfigSpec;
    /// The `BGPPolicy` objects of `causeway.io`.
    policies, policy => Policy: PolicySpec;
    /// The `BFDProfile` objects of `causeway.io`.
    bfd_profiles, bfd_profile => BfdProfile: BfdProfileSpec;
    /// The `CiliumBGPAdvertisement` objects.
    advertisements, advertisement => Advertisement: AdvertisementSpec;
    /// The `CiliumBGPNodeConfigOverride` objects.
    node_config_overrides, node_config_override => NodeConfigOverride: NodeConfigOverrideSpec;
    /// The `CiliumEgressGatewayPolicy` objects.
    cilium_egress_policies, cilium_egress_policy => CiliumEgressPolicy: CiliumEgressPolicySpec;
    /// The `EgressGatewayPolicy` objects of `causeway.io`.
    egress_policies, egress_policy => EgressPolicy: EgressPolicySpec;
    /// The `Node` objects.
    nodes, node => Node: Node;
    /// The `Namespace` objects.
    namespaces, namespace => Namespace: Namespace;
}

impl Snapshot {
    /// All objects, in order of keys.
    pub fn iter(&self) -> impl Iterator<Item = &Stored> {
        self.objects.values().map(Arc::as_ref)
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<&Stored> {
        self.objects.get(key).map(Arc::as_ref)
    }

    /// A Secret by namespace and name.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<&Secret> {
        let key = ObjectKey {
            kind: Kind::Secret,
            namespace: Some(namespace.into()),
            name: name.into(),
        };
        match &self.get(&key)?.object.body {
            Body::Secret(secret) => Some(secret),
            _ => None,
        }
    }

    /// The `Pod` objects, in order of namespaces and names.
    pub fn pods(&self) -> impl Iterator<Item = Entry<'_, Pod>> {
        self.of_kind(Kind::Pod).filter_map(as_pod)
    }

    /// The `Pod` of this namespace and name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Entry<'_, Pod>> {
        as_pod(self.get(&ObjectKey {
            kind: Kind::Pod,
            namespace: Some(namespace.into()),
            name: name.into(),
        })?)
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Stored> {
        // The first key of the kind: pods can be many, and are not walked for the sake of others.
        let objects = self.objects.range(ObjectKey::cluster_wide(kind, "")..);
        objects
            .map(|(_, stored)| stored.as_ref())
            .take_while(move |stored| stored.object.kind() == kind)
    }
}

fn as_pod(stored: &Stored) -> Option<Entry<'_, Pod>> {
    match &stored.object.body {
        Body::Pod(spec) => Some(Entry {
            metadata: &stored.object.metadata,
            spec,
            stored,
        }),
        _ => None,
    }
}
