// SPDX-License-Identifier: Apache-2.0
//! How a policy stands, as this node sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::context::{Claims, Context, held};
use crate::desired::Desired;
use crate::finding::Finding;
use crate::number::Numbers;
use crate::plan::{Plan, WayOut};
use crate::rule::ExitRef;
use crate::world::{Addresses, PodKey, Policy, PolicyId, Selection, World};

/// How a policy stands, as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyState {
    /// The nodes of its groups that are healthy, and reach what the policy asks for.
    pub healthy_gateways: BTreeSet<String>,
    /// The nodes that carry its traffic, or would if there were some: of one gateway at a time the
    /// first, for pods of this node's zone where zones count.
    pub active_gateways: BTreeSet<String>,
    /// The addresses its packets get, as far as they are known here: those of an interface are
    /// known to its gateway only.
    pub addresses: BTreeSet<IpAddr>,
    /// The pods of this node it selects.
    pub pods: BTreeSet<PodKey>,
    /// The pods of this node it may select: their labels are not known.
    pub undecided: BTreeSet<PodKey>,
    /// What an operator should know about it.
    pub findings: BTreeSet<Finding>,
}

/// How any policy of the world stands, also one that does not concern this node; none if the world
/// does not have it.
pub fn state_of(
    world: &World,
    claims: &Claims,
    desired: &Desired,
    policy: &PolicyId,
) -> Option<PolicyState> {
    if let Some(state) = desired.policies.get(policy) {
        return Some(state.clone());
    }
    let context = Context::new(world, claims, Numbers::new(world, &BTreeSet::new()));
    let policy = &world.policies[*context.places.get(policy)?];
    Some(state(&Plan::new(&context, policy), &context))
}

/// How every policy of the world stands, also those that do not concern this node. Numbers the
/// rules once, and costs for each of the others the nodes of its groups.
pub fn states_of(
    world: &World,
    claims: &Claims,
    desired: &Desired,
) -> BTreeMap<PolicyId, PolicyState> {
    let context = Context::new(world, claims, Numbers::new(world, &BTreeSet::new()));
    let policies = world.policies.iter();
    policies
        .map(|policy| {
            let decided = desired.policies.get(&policy.id).cloned();
            let state = decided.unwrap_or_else(|| state(&Plan::new(&context, policy), &context));
            (policy.id.clone(), state)
        })
        .collect()
}

/// The state of a policy but for what this node has to do with it.
pub(crate) fn state(plan: &Plan<'_>, context: &Context<'_>) -> PolicyState {
    let (world, policy) = (context.world, plan.policy);
    let nodes = policy.groups.iter().flat_map(|group| &group.nodes);
    let healthy_gateways = nodes
        .filter(|name| world.nodes.get(*name).is_some_and(|node| node.is_healthy))
        .filter(|name| !policy.unanswered.contains(*name))
        .cloned()
        .collect();
    let mut state = PolicyState {
        healthy_gateways,
        active_gateways: active(plan),
        ..PolicyState::default()
    };
    state.findings.extend(unanswered(world, policy));
    for (number, group) in (0..).zip(&policy.groups) {
        if !group
            .nodes
            .iter()
            .any(|name| world.nodes.contains_key(name))
        {
            state.findings.insert(Finding::NoGateway {
                policy: policy.id.clone(),
                group: number,
            });
        }
        if let Addresses::OnDevice(address) = group.addresses {
            state.addresses.insert(address);
        }
        for address in held(group) {
            match context.other_owner(*address, &policy.id, number) {
                None => state.addresses.insert(*address),
                Some(owner) => state.findings.insert(Finding::AddressTaken {
                    address: *address,
                    owner: owner.clone(),
                    policy: policy.id.clone(),
                }),
            };
        }
    }
    state
}

/// What there is to say about gateways that do not reach what a policy asks for.
fn unanswered(world: &World, policy: &Policy) -> Option<Finding> {
    let groups = policy.groups.iter().flat_map(|group| &group.nodes);
    let mut nodes = groups.filter(|name| world.nodes.contains_key(*name));
    let is_here = policy.unanswered.contains(&world.node);
    let id = policy.id.clone();
    if policy.unanswered.is_empty() {
        None
    } else if nodes.all(|name| policy.unanswered.contains(name)) {
        Some(Finding::NoneAnswered { policy: id })
    } else {
        is_here.then(|| Finding::Unanswered {
            policy: id,
            node: world.node.clone(),
        })
    }
}

/// The gateways that carry the traffic of a policy.
fn active(plan: &Plan<'_>) -> BTreeSet<String> {
    let ways = || {
        plan.open()
            .into_iter()
            .filter_map(|way| Some((way, way.gateway?)))
    };
    let names = |(_, name): (_, &str)| name.to_owned();
    match plan.policy.selection {
        Selection::FirstByName | Selection::ByPodUid | Selection::ActiveActive => {
            ways().map(names).collect()
        }
        Selection::ActiveStandby => {
            let Some((head, _)) = ways().next() else {
                return BTreeSet::new();
            };
            let is_alike = |way: &WayOut<'_>| match head.rule.exit {
                ExitRef::Node(_) => way.rule == head.rule,
                ExitRef::Shared | ExitRef::Address(_) => way.rule.group == head.rule.group,
            };
            ways().filter(|(way, _)| is_alike(way)).map(names).collect()
        }
    }
}
