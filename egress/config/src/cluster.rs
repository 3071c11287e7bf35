// SPDX-License-Identifier: Apache-2.0
//! The nodes of the cluster, and what is inside of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use egress_core::{Interface, Node};
use ipnet::IpNet;
use router_resources::{LabelSelector, Labels, Snapshot};

use crate::facts::Facts;

/// The nodes of the cluster, with the labels by which policies select them.
pub(crate) struct Cluster {
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) in_cluster: BTreeSet<IpNet>,
    pub(crate) pod_prefixes: BTreeSet<IpNet>,
    labels: BTreeMap<String, Labels>,
}

impl Cluster {
    pub(crate) fn gather(snapshot: &Snapshot, facts: &Facts) -> Self {
        let mut cluster = Cluster {
            nodes: BTreeMap::new(),
            in_cluster: BTreeSet::new(),
            pod_prefixes: facts.pod_cidrs.iter().map(IpNet::trunc).collect(),
            labels: BTreeMap::new(),
        };
        cluster.add_inside(&facts.addresses);
        for entry in snapshot.nodes() {
            let name = entry.name().to_owned();
            let internal = entry.spec.internal_addresses();
            let external = entry.spec.external_addresses();
            let prefixes = entry.spec.pod_prefixes();
            let prefixes = prefixes.iter().map(IpNet::trunc);
            cluster.pod_prefixes.extend(prefixes);
            cluster.add_inside(&internal);
            cluster.add_inside(&external);
            let mut addresses = if internal.is_empty() {
                external
            } else {
                internal
            };
            if addresses.is_empty() && name == facts.node {
                addresses.clone_from(&facts.addresses);
            }
            let labels = &entry.metadata.labels;
            let node = Node {
                addresses,
                zone: labels.get("topology.kubernetes.io/zone").cloned(),
                is_healthy: !entry.spec.is_out_of_service(),
                is_dead: entry.spec.is_out_of_service(),
            };
            cluster.labels.insert(name.clone(), labels.clone());
            cluster.nodes.insert(name, node);
        }
        if !cluster.nodes.contains_key(&facts.node) {
            let node = Node {
                addresses: facts.addresses.clone(),
                zone: None,
                is_healthy: true,
                is_dead: false,
            };
            let hostname = ("kubernetes.io/hostname".to_owned(), facts.node.clone());
            let labels = Labels::from([hostname]);
            cluster.labels.insert(facts.node.clone(), labels);
            cluster.nodes.insert(facts.node.clone(), node);
        }
        cluster.in_cluster.extend(&cluster.pod_prefixes);
        cluster
    }

    /// The nodes whose labels match, by name.
    pub(crate) fn matching(&self, selector: &LabelSelector) -> BTreeSet<String> {
        let matching = self.labels.iter().filter(|(_, l)| selector.matches(l));
        matching.map(|(name, _)| name.clone()).collect()
    }

    /// The labels of a node.
    pub(crate) fn labels(&self, node: &str) -> Option<&Labels> {
        self.labels.get(node)
    }

    fn add_inside(&mut self, addresses: &[IpAddr]) {
        self.in_cluster
            .extend(addresses.iter().map(|address| IpNet::from(*address)));
    }
}

/// The devices with the addresses that mean something beyond the link.
pub(crate) fn usable(interfaces: &BTreeMap<String, Interface>) -> BTreeMap<String, Interface> {
    let is_usable = |address: &IpAddr| {
        let is_special = match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
        };
        !(is_special || address.is_unspecified() || address.is_loopback() || address.is_multicast())
    };
    let mut interfaces = interfaces.clone();
    for interface in interfaces.values_mut() {
        interface.addresses.retain(is_usable);
    }
    interfaces
}
