// SPDX-License-Identifier: Apache-2.0
//! From what users write to what the egress decision is made of.
//!
//! [`compile`] is a pure function of the objects in force and the facts about this node. It gives
//! the [`egress_core::World`], what the world does not hold of a policy (how gateways are watched,
//! how addresses are announced), and statements about every policy. Called again after any
//! change, it gives the whole answer anew. What a policy means is the same on every node, since
//! all have the same objects; only pods and devices are this node's.
//!
//! # Which pods
//!
//! Those with a network of their own on this node, as the runtime knows them. An entry of
//! `selectors` selects a pod when its `namespaceSelector`, `podSelector` and `nodeSelector` all do;
//! a policy does when one entry does. Absent selectors select all, empty ones too.
//!
//! A pod's labels are those of its Pod object, else those the runtime gives. A Pod object of
//! another UID is of an earlier or later pod of the name and is not read; the UID of a static
//! pod is the one in the annotation `kubernetes.io/config.hash`. Beside them there are
//! `io.kubernetes.pod.namespace` and, with the prefix `io.cilium.k8s.namespace.labels.`, the
//! labels of the namespace. A namespace has the label `kubernetes.io/metadata.name` whether its
//! object is there or not.
//!
//! What is not known counts only where it matters: a pod is *undecided* about a policy that would
//! select it with some labels and not with others. It sends nothing to the destinations until its
//! labels are there, rather than leaking under another address (Cilium #24791).
//!
//! Deviation: upstream matches the labels that are relevant to identities and collects the
//! `nodeSelector`s of all entries into one list; here all labels count, and each `nodeSelector`
//! belongs to its entry.
//!
//! # Which gateways
//!
//! The nodes whose objects match `nodeSelector`; this node without an object has the label
//! `kubernetes.io/hostname` alone. Health comes with the facts; beside that, a node with the taint
//! `node.kubernetes.io/out-of-service` is dead, as an operator has said so. The `Ready` condition
//! is not read: a control plane that loses sight of nodes must not take their egress away.
//!
//! # Order
//!
//! Policies take precedence by `creationTimestamp`, those without one first, then by kind
//! (`CiliumEgressGatewayPolicy` first), then by name.
//!
//! # Addresses of pools
//!
//! `assign: Policy` draws one address of each family for the policy: of those that no policy writes
//! down and no earlier one draws, the one of the highest random weight (RFC 2991 §3) of policy and
//! address. It is the same on every node and after a restart. It changes when the pool loses it,
//! when another policy takes it (by `egressIPs`, or by a draw of higher precedence), and when a
//! policy that kept it from an address of higher weight goes. With `Namespace` and `Pod` the world
//! holds all addresses of the pool, as many of each family where there are both, and the decision
//! shares them out in pairs. The rules of the resources bound a pool to
//! [`router_resources::kinds::MAX_POOL_ADDRESSES`]; more are not taken here either.

mod cluster;
mod compile;
mod facts;
mod health;
mod known;
mod policy;
mod pool;
mod report;
mod select;
mod statements;
mod status;

pub use compile::{Compiled, compile};
pub use facts::{Endpoint, Facts};
pub use health::{Health, Probe, ProbeTarget};
pub use statements::{condition_type, key};
pub use status::policy_status;
