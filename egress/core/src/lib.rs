// SPDX-License-Identifier: Apache-2.0
//! Egress gateways, decided: which pod's packets leave the cluster through which node, and under
//! which address. Sans-IO: no clock, socket, task or global.
//!
//! [`World`] is everything that has a say, as values: the policies with their selectors already
//! matched, the cluster's nodes, and this node's pods and interfaces. `egress-config` makes it of
//! what users wrote.

mod world;

pub use world::{
    Addresses, Affinity, Group, Interface, Limits, Node, Pod, PodKey, Policy, PolicyId, PolicyKind,
    PortRange, Selection, Timeouts, World, Zones,
};
