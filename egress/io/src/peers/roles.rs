// SPDX-License-Identifier: Apache-2.0
//! What this node has to do with which others, as far as rules that can move or gateways that ask
//! for an answer are concerned.

use std::collections::{BTreeMap, BTreeSet};

use egress_core::{Desired, PolicyId, World};
use egress_sync::name::{self, NodeName, Rule};

/// Whom to speak to, and about what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Roles {
    /// Whether others may connect: this node may hold a rule, or be a gateway that asks.
    pub(super) is_candidate: bool,
    /// Whom this node connects to.
    pub(super) dialled: BTreeSet<NodeName>,
    /// The gateways this node shares a policy with, which it must have heard before it takes what
    /// nobody holds.
    pub(super) rivals: BTreeSet<NodeName>,
    /// The rules this node stands by for, by their holder.
    pub(super) standby: BTreeMap<NodeName, BTreeSet<Rule>>,
}

impl Roles {
    /// `asking` are the policies with a probe.
    pub(super) fn of(
        world: &World,
        desired: &Desired,
        asking: &BTreeMap<PolicyId, name::Policy>,
    ) -> Roles {
        let mut roles = Roles::default();
        let concerned = world.policies.iter();
        let concerned = concerned.filter(|policy| desired.policies.contains_key(&policy.id));
        for policy in concerned {
            let can_move = policy.can_move();
            // Who chooses among gateways must hear which of them are drained.
            if !can_move && !policy.can_choose() && !asking.contains_key(&policy.id) {
                continue;
            }
            let nodes: BTreeSet<&String> = policy
                .groups
                .iter()
                .flat_map(|group| &group.nodes)
                .filter(|node| world.nodes.contains_key(*node))
                .collect();
            let is_candidate = nodes.contains(&world.node);
            roles.is_candidate |= is_candidate;
            let others = nodes.into_iter().filter(|node| **node != world.node);
            for other in others {
                let Ok(name) = NodeName::new(other) else {
                    continue;
                };
                // Of two gateways the one of the lower name connects.
                if !is_candidate || world.node < *other {
                    roles.dialled.insert(name.clone());
                }
                if is_candidate && can_move {
                    roles.rivals.insert(name);
                }
            }
        }
        for (number, seat) in &desired.seats {
            let (true, false, Some(holder)) = (seat.is_standby, seat.is_holder, &seat.holder)
            else {
                continue;
            };
            if let (Some(rule), Ok(holder)) = (Rule::new(number.get()), NodeName::new(holder))
                && desired.standby.contains_key(number)
            {
                roles.standby.entry(holder).or_default().insert(rule);
            }
        }
        roles
    }
}
