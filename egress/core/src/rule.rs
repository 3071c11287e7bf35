// SPDX-License-Identifier: Apache-2.0
//! A rule: one way out of a policy, and its name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::hash::Fnv64;
use crate::world::{Addresses, Affinity, Policy, PolicyId, PolicyKind};

/// The lowest rule number: 4096, a bound between numbers of 12 bits, which are left to other
/// users of the tunnel, and rules.
pub const FIRST_RULE: u32 = 4096;

/// The highest rule number, 2^24-1: a network identifier of VXLAN or Geneve has 24 bits (RFC 7348 §5).
pub const LAST_RULE: u32 = (1 << 24) - 1;

/// The number of a rule, [`FIRST_RULE`] to [`LAST_RULE`]. It travels as the tunnel's network
/// identifier from the pod's node to the gateway, and is the same on every node of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct RuleNumber(u32);

impl RuleNumber {
    /// The number, if it is one of a rule.
    pub fn new(number: u32) -> Option<Self> {
        (FIRST_RULE..=LAST_RULE)
            .contains(&number)
            .then_some(RuleNumber(number))
    }

    /// The number as the tunnel carries it.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// A number that is not one of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no number of a rule: {FIRST_RULE} to {LAST_RULE}")]
pub struct NoRuleNumber(u32);

impl TryFrom<u32> for RuleNumber {
    type Error = NoRuleNumber;

    fn try_from(number: u32) -> Result<Self, NoRuleNumber> {
        RuleNumber::new(number).ok_or(NoRuleNumber(number))
    }
}

impl From<RuleNumber> for u32 {
    fn from(number: RuleNumber) -> u32 {
        number.0
    }
}

impl fmt::Display for RuleNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What makes a rule itself. Connections live as long as their rule keeps its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleKey {
    /// The policy.
    pub policy: PolicyId,
    /// The gateway group, counted from 0 in the order of the policy.
    pub group: u32,
    /// Which way out of the group.
    pub exit: Exit,
}

/// Which way out of a gateway group a rule is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Exit {
    /// This node with the addresses it has itself. Another node is another rule: connections
    /// cannot move, because the address cannot.
    Node(String),
    /// All held addresses of the group. Whoever holds them, the rule stays.
    Shared,
    /// One of the held addresses (of each family), named by its IPv4 address or, without one, its
    /// IPv6 address. Whoever holds it, the rule stays.
    Address(IpAddr),
}

impl fmt::Display for RuleKey {
    /// Writes `EgressGatewayPolicy/web group 0 by node gw-1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} group {} ", self.policy, self.group)?;
        match &self.exit {
            Exit::Node(node) => write!(f, "by node {node}"),
            Exit::Shared => write!(f, "by its held addresses"),
            Exit::Address(address) => write!(f, "by held address {address}"),
        }
    }
}

impl RuleKey {
    /// The key, borrowed.
    pub(crate) fn as_ref(&self) -> RuleRef<'_> {
        RuleRef {
            policy: &self.policy,
            group: self.group,
            exit: match &self.exit {
                Exit::Node(node) => ExitRef::Node(node),
                Exit::Shared => ExitRef::Shared,
                Exit::Address(address) => ExitRef::Address(*address),
            },
        }
    }
}

/// [`RuleKey`], borrowed from a world: a cluster may have very many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RuleRef<'a> {
    pub(crate) policy: &'a PolicyId,
    pub(crate) group: u32,
    pub(crate) exit: ExitRef<'a>,
}

/// [`Exit`], borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ExitRef<'a> {
    Node(&'a str),
    Shared,
    Address(IpAddr),
}

impl RuleRef<'_> {
    /// The key, owned.
    pub(crate) fn to_key(self) -> RuleKey {
        RuleKey {
            policy: self.policy.clone(),
            group: self.group,
            exit: match self.exit {
                ExitRef::Node(node) => Exit::Node(node.to_owned()),
                ExitRef::Shared => Exit::Shared,
                ExitRef::Address(address) => Exit::Address(address),
            },
        }
    }

    /// The key, hashed. Two versions of the program that disagree here send packets to the wrong
    /// rule: `number::tests::numbers_are_those_of_every_version` holds it fast.
    pub(crate) fn hash(self) -> Fnv64 {
        let kind = match self.policy.kind {
            PolicyKind::Cilium => 1,
            PolicyKind::Causeway => 2,
        };
        let hash = Fnv64::new()
            .octets(&[kind])
            .name(&self.policy.name)
            .octets(&self.group.to_be_bytes());
        match self.exit {
            ExitRef::Node(node) => hash.octets(&[1]).name(node),
            ExitRef::Shared => hash.octets(&[2]),
            ExitRef::Address(IpAddr::V4(address)) => hash.octets(&[3]).octets(&address.octets()),
            ExitRef::Address(IpAddr::V6(address)) => hash.octets(&[4]).octets(&address.octets()),
        }
    }

    /// The number the key has when no other key has the same: the hash, folded to the range.
    pub(crate) fn home(self) -> RuleNumber {
        let count = u64::from(LAST_RULE - FIRST_RULE) + 1;
        let offset = u32::try_from(self.hash().finish() % count).expect("count fits 24 bits");
        RuleNumber(FIRST_RULE + offset)
    }
}

/// Addresses that are held together, as one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldSet {
    /// [`ExitRef::Shared`] or [`ExitRef::Address`].
    pub(crate) exit: ExitRef<'static>,
    pub(crate) v4: Vec<Ipv4Addr>,
    pub(crate) v6: Vec<Ipv6Addr>,
}

/// The rules that held addresses make: one of all, or pairs of the n-th of each family.
pub(crate) fn held_sets(addresses: &[IpAddr], affinity: Affinity) -> Vec<HeldSet> {
    let mut v4 = Vec::new();
    let mut v6 = Vec::new();
    for address in addresses {
        match address {
            IpAddr::V4(address) => v4.push(*address),
            IpAddr::V6(address) => v6.push(*address),
        }
    }
    match affinity {
        Affinity::Policy => vec![HeldSet {
            exit: ExitRef::Shared,
            v4,
            v6,
        }],
        Affinity::Namespace | Affinity::Pod => (0..v4.len().max(v6.len()))
            .filter_map(|at| {
                let (v4, v6) = (v4.get(at).copied(), v6.get(at).copied());
                let anchor = v4.map(IpAddr::V4).or(v6.map(IpAddr::V6))?;
                Some(HeldSet {
                    exit: ExitRef::Address(anchor),
                    v4: v4.into_iter().collect(),
                    v6: v6.into_iter().collect(),
                })
            })
            .collect(),
    }
}

/// Calls `each` with every rule a policy can have, those of nodes that are no gateway at the
/// moment among them: a number is taken or free whoever is healthy.
pub(crate) fn each_rule<'a>(policy: &'a Policy, mut each: impl FnMut(RuleRef<'a>)) {
    for (group, number) in policy.groups.iter().zip(0..) {
        let mut rule = |exit| {
            each(RuleRef {
                policy: &policy.id,
                group: number,
                exit,
            });
        };
        match &group.addresses {
            Addresses::DefaultRoute | Addresses::Interface(_) | Addresses::OnDevice(_) => {
                for node in &group.nodes {
                    rule(ExitRef::Node(node));
                }
            }
            Addresses::Held {
                addresses,
                affinity,
                interface: _,
            } => {
                for set in held_sets(addresses, *affinity) {
                    rule(set.exit);
                }
            }
        }
    }
}
