// SPDX-License-Identifier: Apache-2.0
//! What an operator should know: every finding names its objects and what to do about them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::rule::RuleKey;
use crate::world::{PodKey, PolicyId};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// The family of a prefix.
    pub fn of_net(net: IpNet) -> Self {
        Family::of(net.addr())
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// Why packets to a destination are dropped rather than sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Whether the policy selects the pod is not known.
    Undecided,
    /// No node of the cluster matches.
    NoGateway,
    /// Nodes match, and none is healthy.
    NoHealthyGateway,
    /// The policy wants gateways of the pod's zone, and none of the healthy ones is there.
    NoGatewayInZone,
    /// The policy has no address of the destination's family.
    NoAddress,
    /// All rule numbers are used up.
    NoNumber,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Undecided => "the labels of the pod or its namespace are not known",
            Refusal::NoGateway => "no node matches the policy",
            Refusal::NoHealthyGateway => "no gateway is healthy",
            Refusal::NoGatewayInZone => "no gateway in the pod's zone is healthy",
            Refusal::NoAddress => "the policy has no address of the destination's family",
            Refusal::NoNumber => "the cluster has more egress rules than there are numbers",
        })
    }
}

/// Why a gateway has no address to give.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// No device has a default route of the family.
    DefaultRoute,
    /// The device does not exist.
    Interface(String),
    /// The device has no address of the family.
    AddressOn(String),
    /// No device has the address.
    Address(IpAddr),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::DefaultRoute => f.write_str(
                "no device has a default route with an address; add one, or name an \
                     interface in the policy",
            ),
            Missing::Interface(name) => write!(
                f,
                "there is no interface {name}; add it, or correct the policy"
            ),
            Missing::AddressOn(name) => write!(
                f,
                "interface {name} has no usable address; add one, or correct the policy"
            ),
            Missing::Address(address) => write!(
                f,
                "{address} is on none of its interfaces; add it, or correct the policy"
            ),
        }
    }
}

/// Something an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// Two policies of a pod name the same prefix.
    SamePrefix {
        /// The prefix.
        prefix: IpNet,
        /// The older policy, which applies.
        winner: PolicyId,
        /// The other one.
        loser: PolicyId,
    },
    /// What a pod's labels are is not known.
    Undecided {
        /// The policy that may select it.
        policy: PolicyId,
        /// The pod.
        pod: PodKey,
    },
    /// A gateway group without nodes.
    NoGateway {
        /// The policy.
        policy: PolicyId,
        /// The group, from 0.
        group: u32,
    },
    /// Pods of this node have no gateway.
    Refused {
        /// The policy.
        policy: PolicyId,
        /// The family of the destinations.
        family: Family,
        /// Why.
        why: Refusal,
    },
    /// This node is a gateway, and has no address of a family the policy has destinations of.
    GatewayWithout {
        /// The policy.
        policy: PolicyId,
        /// The group, from 0.
        group: u32,
        /// This node.
        node: String,
        /// The family of the destinations.
        family: Family,
        /// What is missing.
        missing: Missing,
    },
    /// The device packets leave by is down.
    InterfaceDown {
        /// The policy.
        policy: PolicyId,
        /// This node.
        node: String,
        /// The device.
        interface: String,
    },
    /// More addresses of a family than one rule can have.
    TooManyAddresses {
        /// The policy.
        policy: PolicyId,
        /// The group, from 0.
        group: u32,
        /// The family.
        family: Family,
        /// How many there are.
        given: usize,
        /// How many are used, the first ones.
        limit: usize,
    },
    /// Two gateway groups hold the same address.
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// The policy that has it: the older one.
        owner: PolicyId,
        /// The policy that does not get it; the same one if both groups are its own.
        policy: PolicyId,
    },
    /// This node has no address in common with a gateway.
    Unreachable {
        /// The policy.
        policy: PolicyId,
        /// This node.
        node: String,
        /// The gateway.
        gateway: String,
    },
    /// This node may be a gateway, and does not reach what the policy asks for.
    Unanswered {
        /// The policy.
        policy: PolicyId,
        /// This node.
        node: String,
    },
    /// No gateway is known to reach what the policy asks for.
    NoneAnswered {
        /// The policy.
        policy: PolicyId,
    },
    /// Two rules have the same hash.
    NumberCollision {
        /// The one that has the number.
        first: RuleKey,
        /// The one that got another number.
        later: RuleKey,
    },
    /// Two pods of this node have the same address.
    AddressOfTwoPods {
        /// The address.
        address: IpAddr,
        /// The pod whose policies apply.
        winner: PodKey,
        /// The other one.
        loser: PodKey,
    },
}

impl Finding {
    /// The policies it is about.
    pub fn policies(&self) -> Vec<&PolicyId> {
        match self {
            Finding::SamePrefix { winner, loser, .. } => vec![winner, loser],
            Finding::AddressTaken { owner, policy, .. } => vec![owner, policy],
            Finding::NumberCollision { first, later } => vec![&first.policy, &later.policy],
            Finding::Undecided { policy, .. }
            | Finding::NoGateway { policy, .. }
            | Finding::Refused { policy, .. }
            | Finding::GatewayWithout { policy, .. }
            | Finding::InterfaceDown { policy, .. }
            | Finding::TooManyAddresses { policy, .. }
            | Finding::Unanswered { policy, .. }
            | Finding::NoneAnswered { policy }
            | Finding::Unreachable { policy, .. } => vec![policy],
            Finding::AddressOfTwoPods { .. } => Vec::new(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::SamePrefix {
                prefix,
                winner,
                loser,
            } => write!(
                f,
                "{winner} and {loser} both name {prefix} and select the same pods; the older one, \
                 {winner}, applies: take the prefix out of one of them"
            ),
            Finding::Undecided { policy, pod } => write!(
                f,
                "{policy} may select pod {pod}, whose labels are not known; what it sends to the \
                 destinations of the policy is dropped until they are: check that the API server \
                 answers"
            ),
            Finding::NoGateway { policy, group } => write!(
                f,
                "{policy} has no gateway in group {group}: no node matches; label a node, or \
                 correct the node selector"
            ),
            Finding::Refused {
                policy,
                family,
                why,
            } => {
                write!(
                    f,
                    "{policy}: what pods of this node send to its {family} destinations is \
                     dropped, because {why}: "
                )?;
                f.write_str(match why {
                    Refusal::Undecided => "check that the API server answers",
                    Refusal::NoGateway => "label a node, or correct the node selector",
                    Refusal::NoHealthyGateway => "repair one of the gateways, or label more nodes",
                    Refusal::NoGatewayInZone => {
                        "label a node of the zone, or let the policy use other zones"
                    }
                    Refusal::NoAddress => "add an address, or take the destinations out",
                    Refusal::NoNumber => "use fewer policies, or fewer gateways in each",
                })
            }
            Finding::GatewayWithout {
                policy,
                group,
                node,
                family,
                missing,
            } => write!(
                f,
                "{policy} group {group}: gateway {node} drops {family}: {missing}"
            ),
            Finding::InterfaceDown {
                policy,
                node,
                interface,
            } => write!(
                f,
                "{policy}: interface {interface} of gateway {node} is down; set it up"
            ),
            Finding::TooManyAddresses {
                policy,
                group,
                family,
                given,
                limit,
            } => write!(
                f,
                "{policy} group {group} has {given} {family} addresses for every pod, and the \
                 first {limit} are used; take some out, give them to another group, or share \
                 them by namespace or pod"
            ),
            Finding::AddressTaken {
                address,
                owner,
                policy,
            } if owner == policy => write!(
                f,
                "{policy} holds {address} in two groups; the first one has it: take it out of the \
                 other"
            ),
            Finding::AddressTaken {
                address,
                owner,
                policy,
            } => write!(
                f,
                "{policy} does not get {address}, because {owner} is older and holds it: take it \
                 out of one of them"
            ),
            Finding::Unreachable {
                policy,
                node,
                gateway,
            } => write!(
                f,
                "{policy}: node {node} has no address of a family that gateway {gateway} has, so \
                 its pods' packets are dropped: give both nodes one of the same family"
            ),
            Finding::Unanswered { policy, node } => write!(
                f,
                "{policy}: the probe of gateway {node} is not answered, and another one takes its \
                 place: repair its way to the target"
            ),
            Finding::NoneAnswered { policy } => write!(
                f,
                "{policy}: no gateway is known to have an answer to its probe, so that everything \
                 stays where it is: repair the target or the ways there, or correct health.probe"
            ),
            Finding::NumberCollision { first, later } => write!(
                f,
                "rules \"{first}\" and \"{later}\" have the same hash; the later one has the next \
                 free number, and its connections may break when the other goes: rename policy \
                 {} if that matters",
                later.policy
            ),
            Finding::AddressOfTwoPods {
                address,
                winner,
                loser,
            } => write!(
                f,
                "pods {winner} and {loser} both have {address}; the policies of {winner} apply: \
                 remove the pod that ended"
            ),
        }
    }
}
