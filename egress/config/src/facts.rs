// SPDX-License-Identifier: Apache-2.0
//! What is known about this node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use egress_core::{Interface, Transport};
use ipnet::IpNet;
use router_resources::Labels;

/// This node, and what it knows of the others beyond their objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The name of this node.
    pub node: String,
    /// Its addresses as its settings say, the preferred one of each family first; for a node that
    /// has no Node object.
    pub addresses: Vec<IpAddr>,
    /// Its network devices by name, with all their addresses in the kernel's order.
    pub interfaces: BTreeMap<String, Interface>,
    /// The pod prefixes its settings name.
    pub pod_cidrs: Vec<IpNet>,
    /// How packets get from pods' nodes to gateways, as its settings say.
    pub transport: Transport,
    /// Its pods that have a network of their own.
    pub endpoints: Vec<Endpoint>,
}

/// A pod of this node, as the container runtime knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID; empty where the runtime did not give one.
    pub uid: String,
    /// Its addresses; those of its Pod object where there are none.
    pub addresses: Vec<IpAddr>,
    /// Its labels, if the runtime gave them.
    pub labels: Option<Labels>,
}
