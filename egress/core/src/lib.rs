// SPDX-License-Identifier: Apache-2.0
//! Egress gateways, decided: which pod's packets leave the cluster through which node, and under
//! which address. Sans-IO: no clock, socket, task or global.
//!
//! [`World`] is everything that has a say, as values: the policies with their selectors already
//! matched, the cluster's nodes, and this node's pods and interfaces. `egress-config` makes it of
//! what users wrote. [`decide`] turns it into [`Desired`], what the data plane of this node should
//! hold; the caller makes it so, and asks again whenever the world changes.
//!
//! # Rules, sets, ends
//!
//! A *rule* is one way out of a policy: a gateway node with the addresses it has, or addresses that
//! are held by one node or another. Its [`RuleNumber`] travels with the packet from the pod's node
//! to the gateway, and every node computes it by itself. A *set* says for every destination of a
//! pod which rule, if any; pods with the same destinations and rules share one. An *end* says where
//! the gateway of a rule is. The gateway has for each of its rules the addresses packets get.
//!
//! ```text
//! pod's address -> set -> longest prefix -> Through(rule) -> end --- tunnel ---> rule -> addresses
//!                                        -> Excluded: as if there were no policy
//!                                        -> Refused: dropped
//! ```
//!
//! What the caller asks before any set: whether the destination is [inside the
//! cluster](World::in_cluster).
//!
//! # Fail closed
//!
//! A destination a policy covers never leaves under another address than the policy's. Where there
//! is no gateway, no address, or no knowledge whether the policy selects the pod, packets are
//! dropped, and [`Desired::findings`] says why and what to do.
//!
//! # What moves connections, and what does not
//!
//! A number depends on its rule only, except for the few that share a hash. Rendezvous hashing
//! (RFC 2991) moves only the pods and addresses of what goes, and to what comes. A rule that is not
//! chosen any more goes on for the connections it has ([`Life::Draining`]). Held addresses keep
//! their rule when their holder changes, and a holder keeps them until it dies, leaves the group
//! or gives them up ([`Claim`]).
//!
//! # What it leaves to the caller
//!
//! Who is healthy, who claims what, which rules have live connections and for how long they have
//! drained; putting held addresses on and announcing them; and writing ends before the sets that
//! name them, and sets before the sources that use them. Claims must be heard for a while after a
//! start before [`Desired::gateway`] is acted on: without them a node may take itself for a holder.

mod context;
mod decide;
mod desired;
mod destinations;
mod elect;
mod explain;
mod finding;
mod gateway;
mod hash;
mod native;
mod number;
mod plan;
mod rule;
mod sets;
mod state;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod world;

pub use context::Claims;
pub use decide::decide;
pub use desired::{
    Desired, End, Life, Neighbour, Previous, RemoteSource, RuleEnd, SetNumber, Source, Way,
};
pub use elect::{Claim, NAMED_STANDBYS, STANDBYS_WITH_STATE, Seat};
pub use explain::{Explanation, Sender, Verdict, addresses_of, explain};
pub use finding::{Family, Finding, Missing, Refusal};
pub use gateway::{GatewayRule, MAX_ADDRESSES};
pub use rule::{Exit, FIRST_RULE, LAST_RULE, RuleKey, RuleNumber};
pub use state::{PolicyState, state_of, states_of};
pub use world::{
    Addresses, Affinity, Group, Interface, Limits, Node, OnLink, Pod, PodKey, Policy, PolicyId,
    PolicyKind, PortRange, RemotePod, Selection, Timeouts, Transport, World, Zones,
};
