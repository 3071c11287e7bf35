// SPDX-License-Identifier: Apache-2.0
//! Which policies select a pod, as far as its labels are known.

use std::net::IpAddr;

use egress_core::PodKey;
use router_resources::kinds::{EgressSelector, Pod};
use router_resources::selector::{Known, both};
use router_resources::{Entry, Labels, Snapshot};

use crate::facts::Endpoint;

/// The label every namespace has, with its name.
const METADATA_NAME: &str = "kubernetes.io/metadata.name";

/// Upstream's label of a pod with the name of its namespace.
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";

/// Before the key of a namespace's label it is upstream's label of the namespace's pods.
const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";

/// The annotation of a static pod's object with the UID its node gave it; the object has another.
const STATIC_POD_UID: &str = "kubernetes.io/config.hash";

/// A pod and what is known of its labels.
pub(crate) struct Candidate<'a> {
    pub(crate) key: PodKey,
    pub(crate) uid: String,
    pub(crate) addresses: Vec<IpAddr>,
    labels: Option<&'a Labels>,
    namespace_labels: Option<&'a Labels>,
}

impl<'a> Candidate<'a> {
    /// Puts together what the runtime and the objects say. `None` for a pod with the network of its
    /// node, which is no business of egress policies.
    pub(crate) fn of(snapshot: &'a Snapshot, endpoint: &'a Endpoint) -> Option<Self> {
        let object = snapshot.pod(&endpoint.namespace, &endpoint.name);
        let object = object.filter(|object| is_same(object, &endpoint.uid));
        if object
            .as_ref()
            .is_some_and(|object| object.spec.spec.host_network)
        {
            return None;
        }
        let uid = match &object {
            Some(object) if endpoint.uid.is_empty() => object.metadata.uid.clone(),
            _ => Some(endpoint.uid.clone()),
        };
        let addresses = match &object {
            Some(object) if endpoint.addresses.is_empty() => object.spec.addresses(),
            _ => endpoint.addresses.clone(),
        };
        let namespace = snapshot.namespace(&endpoint.namespace);
        Some(Candidate {
            key: PodKey {
                namespace: endpoint.namespace.clone(),
                name: endpoint.name.clone(),
            },
            uid: uid.unwrap_or_default(),
            addresses,
            labels: object
                .as_ref()
                .map(|object| &object.metadata.labels)
                .or(endpoint.labels.as_ref()),
            namespace_labels: namespace.map(|namespace| &namespace.metadata.labels),
        })
    }

    /// The same for a pod of another node, of which there is nothing but the object.
    pub(crate) fn of_object(snapshot: &'a Snapshot, object: &Entry<'a, Pod>) -> Self {
        let metadata = object.metadata;
        let namespace = metadata.namespace.clone().unwrap_or_default();
        Candidate {
            uid: uid_of(object).unwrap_or_default(),
            addresses: object.spec.addresses(),
            labels: Some(&metadata.labels),
            namespace_labels: snapshot
                .namespace(&namespace)
                .map(|namespace| &namespace.metadata.labels),
            key: PodKey {
                namespace,
                name: metadata.name.clone(),
            },
        }
    }

    /// Whether one of the entries selects the pod on a node with these labels. `None`: it depends
    /// on labels that are not known.
    pub(crate) fn is_selected(&self, entries: &[EgressSelector], node: &Labels) -> Option<bool> {
        let mut selected = Some(false);
        for entry in entries {
            match self.entry(entry, node) {
                Some(true) => return Some(true),
                None => selected = None,
                Some(false) => {}
            }
        }
        selected
    }

    fn entry(&self, entry: &EgressSelector, node: &Labels) -> Option<bool> {
        let nodes = entry.node_selector.as_ref();
        if nodes.is_some_and(|selector| !selector.matches(node)) {
            return Some(false);
        }
        let namespaces = entry.namespace_selector.as_ref();
        let pods = entry.pod_selector.as_ref();
        both(
            namespaces.map_or(Some(true), |s| s.decide(|key| self.namespace_label(key))),
            pods.map_or(Some(true), |s| s.decide(|key| self.pod_label(key))),
        )
    }

    fn namespace_label(&self, key: &str) -> Known<'_> {
        if key == METADATA_NAME {
            return Known::Value(&self.key.namespace);
        }
        let labels = self.namespace_labels;
        labels.map_or(Known::Unknown, |labels| Known::of(labels, key))
    }

    fn pod_label(&self, key: &str) -> Known<'_> {
        if key == POD_NAMESPACE {
            return Known::Value(&self.key.namespace);
        }
        if let Some(key) = key.strip_prefix(NAMESPACE_LABELS) {
            return self.namespace_label(key);
        }
        let labels = self.labels;
        labels.map_or(Known::Unknown, |labels| Known::of(labels, key))
    }
}

/// The UID of a pod as its node has it.
pub(crate) fn uid_of(object: &Entry<'_, Pod>) -> Option<String> {
    let metadata = object.metadata;
    let of_static = metadata.annotations.get(STATIC_POD_UID);
    of_static.or(metadata.uid.as_ref()).cloned()
}

/// Whether an object is of the pod with this UID, and not of another one of its name.
fn is_same(object: &Entry<'_, Pod>, uid: &str) -> bool {
    let written = object.metadata.uid.as_deref();
    let of_static = object.metadata.annotations.get(STATIC_POD_UID);
    uid.is_empty()
        || written.is_none_or(|written| written == uid)
        || of_static.is_some_and(|of_static| of_static == uid)
}
