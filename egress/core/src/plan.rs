// SPDX-License-Identifier: Apache-2.0
//! The ways out of a policy, and which of them a pod takes.
//!
//! | [`Selection`] | ways out | a pod takes |
//! |---|---|---|
//! | `FirstByName` | the first node by name of all groups | that |
//! | `ByPodUid` | the first node by name of each group | the group at FNV-1a (32 bits) of its UID modulo their number, sorted by the nodes' addresses |
//! | `ActiveStandby` | every node of every group; for held addresses every set of them, where its holder is | the first healthy one, by group and name |
//! | `ActiveActive` | the same | the healthy one of the highest random weight |
//!
//! Of several sets of held addresses in one group, each pod or namespace takes the one of the
//! highest random weight (RFC 2991 §3): one address more moves one in n+1 of them, and one less
//! only its own. Ways out that are known to have no address of the destination's family do not
//! count; addresses of interfaces are known to nobody but their node.
//!
//! In the last two selections ways out whose gateway does not reach what the policy asks for
//! ([`Policy::unanswered`]) count only where there are no others.
//!
//! Zones apply to the last two selections, and to held addresses by the zone of their holder. With
//! [`Zones::LocalPriority`] `ActiveActive` takes all healthy ones alike.

use std::net::IpAddr;

use crate::context::{Context, zone_of};
use crate::elect::{Election, elect};
use crate::finding::{Family, Refusal};
use crate::hash::fnv1a_32;
use crate::rule::{ExitRef, RuleNumber, RuleRef, held_sets};
use crate::world::{Addresses, Affinity, Group, Node, Pod, Policy, Selection, Zones};

/// By whom one of several held addresses is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Pod,
    Namespace,
}

/// One way out of a policy.
#[derive(Clone, Debug)]
pub(crate) struct WayOut<'a> {
    pub(crate) rule: RuleRef<'a>,
    pub(crate) number: Option<RuleNumber>,
    /// The gateway; none where nobody can hold the rule.
    pub(crate) gateway: Option<&'a str>,
    /// The election, where the rule can move.
    pub(crate) election: Option<Election<'a>>,
    /// Whether the gateway is healthy.
    pub(crate) is_healthy: bool,
    /// Whether it reaches what the policy asks for, or who does takes its place.
    is_answered: bool,
    /// Whether the gateway is in the zone of this node.
    is_local: bool,
    /// Whether it may have an address of the family, as far as is known here.
    has_v4: bool,
    has_v6: bool,
    unit: Unit,
}

impl WayOut<'_> {
    pub(crate) fn serves(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.has_v4,
            Family::V6 => self.has_v6,
        }
    }
}

/// The ways out of one policy.
pub(crate) struct Plan<'a> {
    pub(crate) policy: &'a Policy,
    /// By group, and in a group by name or in the order of its addresses.
    pub(crate) ways: Vec<WayOut<'a>>,
    /// The groups in the order upstream's selections count them.
    turns: Vec<u32>,
}

impl<'a> Plan<'a> {
    /// Finds the ways out of a policy. Takes time in proportion to the nodes and addresses of its
    /// groups; where rules can move, to their product.
    pub(crate) fn new(context: &Context<'a>, policy: &'a Policy) -> Self {
        let nodes = &context.world.nodes;
        let first = |group: &'a Group| {
            let mut names = group.nodes.iter().map(String::as_str);
            names.find(|name| nodes.contains_key(*name))
        };
        let numbered = || (0_u32..).zip(&policy.groups);
        let firsts = numbered().filter_map(|(number, group)| Some((number, first(group)?)));
        let turns: Vec<u32> = match policy.selection {
            Selection::FirstByName => firsts
                .min_by_key(|(number, name)| (*name, *number))
                .map(|(number, _)| number)
                .into_iter()
                .collect(),
            Selection::ByPodUid => {
                let mut turns: Vec<_> = firsts
                    .map(|(number, name)| (nodes.get(name).and_then(address), number))
                    .collect();
                turns.sort_unstable();
                turns.into_iter().map(|(_, number)| number).collect()
            }
            Selection::ActiveStandby | Selection::ActiveActive => {
                numbered().map(|(number, _)| number).collect()
            }
        };
        let mut ways = Vec::new();
        for (number, group) in numbered().filter(|(number, _)| turns.contains(number)) {
            let existing = group.nodes.iter().map(String::as_str);
            let existing = existing.filter(|name| nodes.contains_key(*name));
            match (&group.addresses, policy.selection) {
                (Addresses::Held { .. }, _) => {
                    ways.extend(held_ways(context, policy, number, group, first(group)));
                }
                (_, Selection::FirstByName | Selection::ByPodUid) => {
                    ways.extend(first(group).map(|node| way(context, policy, number, group, node)));
                }
                (_, Selection::ActiveStandby | Selection::ActiveActive) => {
                    ways.extend(existing.map(|node| way(context, policy, number, group, node)));
                }
            }
        }
        Plan {
            policy,
            ways,
            turns,
        }
    }

    /// The way out a pod of this node takes to destinations of a family.
    pub(crate) fn choose(&self, pod: &Pod, family: Family) -> Result<&WayOut<'a>, Refusal> {
        let pool = self.pool(pod, family)?;
        self.pick(pool, pod).ok_or(Refusal::NoGateway)
    }

    /// The way out by a node that a pod takes if it takes one by that node at all. Which one by
    /// several nodes it takes is not asked: its own node knows, and sent the packet.
    pub(crate) fn choose_by(&self, node: &str, pod: &Pod, family: Family) -> Option<&WayOut<'a>> {
        let ways = self
            .ways
            .iter()
            .filter(|way| way.gateway == Some(node) && way.serves(family) && way.number.is_some());
        let mut pool: Vec<_> = ways.collect();
        self.keep_turn(&mut pool, pod).ok()?;
        self.pick(pool, pod)
    }

    /// The one of some ways out that a pod takes.
    fn pick<'p>(&self, pool: Vec<&'p WayOut<'a>>, pod: &Pod) -> Option<&'p WayOut<'a>> {
        let head = *pool.first()?;
        match (self.policy.selection, head.rule.exit) {
            (Selection::ActiveStandby, ExitRef::Node(_)) => Some(head),
            (Selection::ActiveStandby, ExitRef::Shared | ExitRef::Address(_)) => pool
                .into_iter()
                .filter(|way| way.rule.group == head.rule.group)
                .max_by_key(|way| way.weight(pod)),
            (Selection::FirstByName | Selection::ByPodUid | Selection::ActiveActive, _) => {
                pool.into_iter().max_by_key(|way| way.weight(pod))
            }
        }
    }

    /// Leaves the ways out of the group whose turn a pod is, where groups take turns.
    fn keep_turn(&self, pool: &mut Vec<&WayOut<'a>>, pod: &Pod) -> Result<(), Refusal> {
        match self.policy.selection {
            Selection::ByPodUid => {
                let count = u32::try_from(self.turns.len()).unwrap_or(u32::MAX);
                let turn = fnv1a_32(pod.uid.as_bytes())
                    .checked_rem(count)
                    .ok_or(Refusal::NoGateway)?;
                let group = self.turns[turn as usize];
                pool.retain(|way| way.rule.group == group);
            }
            Selection::FirstByName | Selection::ActiveStandby | Selection::ActiveActive => {}
        }
        Ok(())
    }

    /// The ways out that are open to a pod.
    fn pool(&self, pod: &Pod, family: Family) -> Result<Vec<&WayOut<'a>>, Refusal> {
        let mut pool: Vec<_> = self
            .ways
            .iter()
            .filter(|way| way.has_candidates())
            .collect();
        // Upstream's selections take a group first, and see later whether it serves the family.
        self.keep_turn(&mut pool, pod)?;
        keep(&mut pool, |_| true, Refusal::NoGateway)?;
        keep(&mut pool, |way| way.serves(family), Refusal::NoAddress)?;
        keep(&mut pool, |way| way.number.is_some(), Refusal::NoNumber)?;
        self.open_of(pool)
    }

    /// The ways out that are open to pods of this node, whatever they send.
    pub(crate) fn open(&self) -> Vec<&WayOut<'a>> {
        self.open_of(self.ways.iter().collect()).unwrap_or_default()
    }

    /// Those of some ways that health and zones leave.
    fn open_of<'p>(&self, mut pool: Vec<&'p WayOut<'a>>) -> Result<Vec<&'p WayOut<'a>>, Refusal> {
        match self.policy.selection {
            Selection::FirstByName | Selection::ByPodUid => return Ok(pool),
            Selection::ActiveStandby | Selection::ActiveActive => {}
        }
        keep(&mut pool, |way| way.is_healthy, Refusal::NoHealthyGateway)?;
        if pool.iter().any(|way| way.is_answered) {
            pool.retain(|way| way.is_answered);
        }
        let has_local = pool.iter().any(|way| way.is_local);
        match (self.policy.zones, self.policy.selection) {
            (Zones::Off, _) | (Zones::LocalPriority, Selection::ActiveActive) => {}
            (Zones::LocalOnly, _) if !has_local => return Err(Refusal::NoGatewayInZone),
            (Zones::LocalOnly | Zones::LocalFirst | Zones::LocalPriority, _) => {
                if has_local {
                    pool.retain(|way| way.is_local);
                }
            }
        }
        Ok(pool)
    }
}

/// Takes ways out that do not meet a condition; when none is left, that is why.
fn keep<'a>(
    pool: &mut Vec<&WayOut<'a>>,
    condition: impl Fn(&WayOut<'a>) -> bool,
    why: Refusal,
) -> Result<(), Refusal> {
    pool.retain(|way| condition(way));
    if pool.is_empty() { Err(why) } else { Ok(()) }
}

impl<'a> WayOut<'a> {
    /// Whether a node could be the gateway, healthy or not.
    fn has_candidates(&self) -> bool {
        self.gateway.is_some() || self.election.is_some()
    }

    /// The weight of this way for a pod; of several ways the one of the highest counts.
    fn weight(&self, pod: &Pod) -> (u64, RuleRef<'a>) {
        let hash = self.rule.hash();
        let hash = match self.unit {
            Unit::Namespace => hash.octets(&[1]).name(&pod.key.namespace),
            Unit::Pod if pod.uid.is_empty() => hash
                .octets(&[2])
                .name(&pod.key.namespace)
                .name(&pod.key.name),
            Unit::Pod => hash.octets(&[3]).name(&pod.uid),
        };
        (hash.finish(), self.rule)
    }
}

/// The address a node is sorted by, and reached at by a node that has both families.
pub(crate) fn address(node: &Node) -> Option<IpAddr> {
    let v4 = node.addresses.iter().find(|address| address.is_ipv4());
    v4.or(node.addresses.first()).copied()
}

/// The way out by a node with the addresses it has itself.
fn way<'a>(
    context: &Context<'a>,
    policy: &'a Policy,
    group_number: u32,
    group: &Group,
    node: &'a str,
) -> WayOut<'a> {
    let rule = RuleRef {
        policy: &policy.id,
        group: group_number,
        exit: ExitRef::Node(node),
    };
    let (has_v4, has_v6) = match &group.addresses {
        Addresses::OnDevice(address) => (address.is_ipv4(), address.is_ipv6()),
        // What a device has is known to its node only.
        Addresses::DefaultRoute | Addresses::Interface(_) | Addresses::Held { .. } => (true, true),
    };
    let zone = context.zone();
    WayOut {
        rule,
        number: context.numbers.of(rule),
        gateway: Some(node),
        election: None,
        is_healthy: context
            .world
            .nodes
            .get(node)
            .is_some_and(|node| node.is_healthy),
        is_answered: !policy.unanswered.contains(node),
        is_local: zone.is_some() && zone_of(context.world, node) == zone,
        has_v4,
        has_v6,
        unit: Unit::Pod,
    }
}

/// The ways out by the held addresses of a group.
fn held_ways<'a>(
    context: &Context<'a>,
    policy: &'a Policy,
    group_number: u32,
    group: &'a Group,
    first: Option<&'a str>,
) -> Vec<WayOut<'a>> {
    let Addresses::Held {
        addresses,
        affinity,
        interface: _,
    } = &group.addresses
    else {
        return Vec::new();
    };
    let is_mine = |address: IpAddr| {
        let other = context.other_owner(address, &policy.id, group_number);
        other.is_none()
    };
    let zone = context.zone();
    let make = |set: crate::rule::HeldSet| {
        let rule = RuleRef {
            policy: &policy.id,
            group: group_number,
            exit: set.exit,
        };
        let number = context.numbers.of(rule);
        let election = match policy.selection {
            Selection::FirstByName | Selection::ByPodUid => None,
            Selection::ActiveStandby | Selection::ActiveActive => {
                let claim = number.and_then(|number| context.claims.get(&number));
                first.map(|_| elect(context.world, policy, group, rule, claim))
            }
        };
        let gateway = match &election {
            Some(election) => election.holder,
            None => first,
        };
        let node = gateway.and_then(|name| context.world.nodes.get(name));
        let can_move = election.is_some();
        let is_unanswered = gateway.is_some_and(|name| policy.unanswered.contains(name));
        let is_leaving = election.as_ref().is_some_and(|e| e.is_leaving);
        WayOut {
            rule,
            number,
            gateway,
            is_answered: !is_unanswered || is_leaving,
            election,
            // Who holds it serves it, until somebody else does.
            is_healthy: node.is_some_and(|node| !node.is_dead && (can_move || node.is_healthy)),
            is_local: zone.is_some() && node.is_some_and(|node| node.zone.as_deref() == zone),
            has_v4: set.v4.iter().any(|address| is_mine((*address).into())),
            has_v6: set.v6.iter().any(|address| is_mine((*address).into())),
            unit: match affinity {
                Affinity::Namespace => Unit::Namespace,
                Affinity::Policy | Affinity::Pod => Unit::Pod,
            },
        }
    };
    held_sets(addresses, *affinity)
        .into_iter()
        .map(make)
        .collect()
}
