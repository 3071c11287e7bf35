// SPDX-License-Identifier: Apache-2.0
//! What the decision says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::elect::Seat;
use crate::finding::{Finding, Refusal};
use crate::gateway::GatewayRule;
use crate::rule::{RuleKey, RuleNumber};
use crate::state::PolicyState;
use crate::world::{OnLink, PodKey, PolicyId};

/// What this node's data plane should do, and what people should know about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// The set of each address of a pod that a policy selects, or may. What is
    /// [inside the cluster](crate::World::in_cluster) comes before any set.
    pub sources: BTreeMap<IpAddr, Source>,
    /// What becomes of a destination; the longest prefix counts, and what has none is no affair
    /// of egress.
    pub sets: BTreeMap<SetNumber, BTreeMap<IpNet, Way>>,
    /// The pods of other nodes this node is a gateway of, and may get packets of without a tunnel.
    pub remote: BTreeMap<IpAddr, RemoteSource>,
    /// Where the packets of a rule go: every rule the sets name, and those that drain.
    pub ends: BTreeMap<RuleNumber, RuleEnd>,
    /// The rules this node is the gateway of, whoever uses them.
    pub gateway: BTreeMap<RuleNumber, GatewayRule>,
    /// The rules this node gets the connections of, to take them over: as it would have them then.
    pub standby: BTreeMap<RuleNumber, GatewayRule>,
    /// Who holds the rules that can move: those this node uses and those it may hold.
    pub seats: BTreeMap<RuleNumber, Seat>,
    /// The policies that concern this node: they select a pod here, or it may be their gateway.
    pub policies: BTreeMap<PolicyId, PolicyState>,
    /// What an operator should know.
    pub findings: BTreeSet<Finding>,
}

impl Desired {
    /// The neighbour that packets of a pod go to as they are; none where they take the tunnel, or
    /// nothing of the kind.
    pub fn neighbour(
        &self,
        source: &Source,
        rule: RuleNumber,
        destination: IpAddr,
    ) -> Option<IpAddr> {
        let end = self.ends.get(&rule).filter(|_| source.is_known_to_all)?;
        let mut neighbours = end.neighbours.iter().map(|one| one.address);
        neighbours.find(|address| address.is_ipv4() == destination.is_ipv4())
    }
}

/// The last decision, and what came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Previous {
    /// The last decision; an empty one after a start, or with the sets that were found.
    pub desired: Desired,
    /// The rules that have live connections here and whose time to drain has not passed.
    pub live: BTreeSet<RuleNumber>,
}

/// The number of a destination set, from 1; it means something on this node only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetNumber(pub NonZeroU32);

impl fmt::Display for SetNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An address of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The pod.
    pub pod: PodKey,
    /// Its destinations.
    pub set: SetNumber,
    /// Whether gateways know the pod, so that its packets may go to them without a tunnel.
    pub is_known_to_all: bool,
}

/// An address of a pod of another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSource {
    /// The pod.
    pub pod: PodKey,
    /// Its destinations, as far as they are this gateway's: all others are refused here.
    pub set: SetNumber,
    /// The kernel's number of the device its node is behind.
    pub link: u32,
}

/// What becomes of packets to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// They go to the gateway of this rule.
    Through(RuleNumber),
    /// They go as if there were no policy.
    Excluded,
    /// They are dropped: they may not go under another address.
    Refused(Refusal),
}

/// Where the packets of a rule go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleEnd {
    /// The rule.
    pub key: RuleKey,
    /// The gateway.
    pub gateway: String,
    /// Where that is.
    pub end: End,
    /// Where packets go as they are, by their family: at most one of each. Those of pods gateways do
    /// not know take the tunnel, and those of connections that only end: the tunnel says their rule.
    /// Not written down: it is true for the moment.
    #[serde(skip)]
    pub neighbours: Vec<Neighbour>,
    /// How long connections go on when new ones may not begin any more, as in
    /// [`crate::Limits::drain`].
    pub drain: Option<Duration>,
    /// Whether new connections may begin.
    pub life: Life,
}

/// A gateway that is reached without a router in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// The way there.
    pub on_link: OnLink,
}

/// Where a gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// At this address, by the tunnel: IPv4 if both nodes have it, else IPv6.
    Remote(IpAddr),
    /// Here.
    Local,
    /// At no address this node can send to; packets are dropped.
    Refused,
}

/// Whether new connections may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// They may.
    Active,
    /// They may not: connections that live go on, and when none does the caller lets it go, by
    /// taking the rule out of [`Previous::live`].
    Draining {
        /// How long at most, from when the caller first sees it drain; until the last connection
        /// ends where there is none ([`crate::Limits::drain`]).
        at_most: Option<Duration>,
    },
}
