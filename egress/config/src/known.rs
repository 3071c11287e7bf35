// SPDX-License-Identifier: Apache-2.0
//! The pods that every node knows: those whose object says all there is to know.
//!
//! A gateway that gets packets without a tunnel knows pods of other nodes by their objects alone, and
//! believes their source addresses. So what two objects claim is nobody's, and a pod's own node has to
//! see it the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use egress_core::{Pod, PodKey, Policy, PolicyId, RemotePod};
use router_resources::{Entry, Labels, Snapshot, kinds};

use crate::cluster::Cluster;
use crate::policy::Read;
use crate::select::{Candidate, uid_of};

/// The pods that every node knows.
#[derive(Default)]
pub(crate) struct Known {
    /// The pod of each address; none where two claim it.
    owners: BTreeMap<IpAddr, Option<PodKey>>,
}

impl Known {
    pub(crate) fn gather(snapshot: &Snapshot) -> Self {
        let mut known = Known::default();
        for object in snapshot.pods().filter(is_alive) {
            for address in object.spec.addresses() {
                let owner = known.owners.entry(address);
                owner
                    .and_modify(|other| *other = None)
                    .or_insert_with(|| Some(key(&object)));
            }
        }
        known
    }

    /// Whether gateways see a pod of this node as this node does.
    pub(crate) fn has(&self, snapshot: &Snapshot, node: &str, pod: &Candidate<'_>) -> bool {
        let PodKey { namespace, name } = &pod.key;
        let object = snapshot.pod(namespace, name);
        object.is_some_and(|object| {
            is_alive(&object)
                && object.spec.spec.node_name.as_deref() == Some(node)
                && uid_of(&object).unwrap_or_default() == pod.uid
                && pod.addresses.iter().all(|at| self.is_of(*at, &pod.key))
        })
    }

    /// The pods of other nodes that policies this node may be a gateway of select.
    pub(crate) fn remote(
        &self,
        snapshot: &Snapshot,
        cluster: &Cluster,
        read: &[Read<'_>],
        node: &str,
    ) -> Vec<RemotePod> {
        let is_ours = |policy: &Policy| policy.groups.iter().any(|g| g.nodes.contains(node));
        let ours: BTreeSet<&PolicyId> = read
            .iter()
            .filter(|read| is_ours(&read.policy))
            .map(|read| &read.policy.id)
            .collect();
        if ours.is_empty() {
            return Vec::new();
        }
        let no_labels = Labels::new();
        let remote = snapshot.pods().filter(is_alive).filter_map(|object| {
            let at = object.spec.spec.node_name.clone()?;
            let node_labels = cluster.labels(&at).unwrap_or(&no_labels);
            let mut pod = pod(Candidate::of_object(snapshot, &object), read, node_labels);
            let selecting = pod.policies.iter().chain(&pod.undecided);
            if at == node || !selecting.into_iter().any(|id| ours.contains(id)) {
                return None;
            }
            let key = pod.key.clone();
            pod.addresses.retain(|address| self.is_of(*address, &key));
            pod.is_known_to_all = true;
            Some(RemotePod { pod, node: at })
        });
        remote.collect()
    }

    fn is_of(&self, address: IpAddr, key: &PodKey) -> bool {
        matches!(self.owners.get(&address), Some(Some(owner)) if owner == key)
    }
}

/// A pod with the policies that select it, or may, on a node with these labels.
pub(crate) fn pod(candidate: Candidate<'_>, read: &[Read<'_>], node_labels: &Labels) -> Pod {
    let (mut policies, mut undecided) = (BTreeSet::new(), BTreeSet::new());
    for read in read {
        let id = || read.policy.id.clone();
        match candidate.is_selected(read.selectors, node_labels) {
            Some(true) => _ = policies.insert(id()),
            None => _ = undecided.insert(id()),
            Some(false) => {}
        }
    }
    Pod {
        key: candidate.key,
        uid: candidate.uid,
        addresses: candidate.addresses,
        policies,
        undecided,
        is_known_to_all: false,
    }
}

/// Whether an object's pod has addresses of its own.
fn is_alive(object: &Entry<'_, kinds::Pod>) -> bool {
    !object.spec.spec.host_network && !object.spec.has_ended()
}

fn key(object: &Entry<'_, kinds::Pod>) -> PodKey {
    PodKey {
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        name: object.metadata.name.clone(),
    }
}
