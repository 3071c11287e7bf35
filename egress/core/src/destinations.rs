// SPDX-License-Identifier: Apache-2.0
//! Which policy has the say about a destination of a pod.
//!
//! The longest prefix of all policies of the pod counts, destination or exclusion; of one prefix,
//! the older policy; of one policy, the exclusion.
//!
//! A policy whose selector may match, for all that is known, stands among them with everything it
//! names, and whatever differs between "it does" and "it does not" is refused: its destinations
//! always, and its exclusions where something else would send the packets to a gateway.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use ipnet::IpNet;

use crate::plan::Context;
use crate::world::{Pod, Policy, PolicyId};

/// What a policy says about a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// Send it to the gateway.
    Gateway,
    /// Leave it alone.
    Exclude,
    /// Drop it: nobody knows yet.
    Wait,
}

/// The policy that has the say about a prefix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Owner<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) says: Says,
    is_decided: bool,
}

/// Who has the say about the destinations of a pod.
pub(crate) type Owners<'a> = BTreeMap<IpNet, Owner<'a>>;

/// Two policies that say different things about one prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clash<'a> {
    pub(crate) prefix: IpNet,
    pub(crate) winner: &'a PolicyId,
    pub(crate) loser: &'a PolicyId,
}

/// Finds who has the say, and where two of the decided policies of the pod name the same prefix.
pub(crate) fn owners<'a>(context: &Context<'a>, pod: &Pod) -> (Owners<'a>, Vec<Clash<'a>>) {
    let policies = of_pod(context, pod);
    let mut clashes = Vec::new();
    let decided = policies.iter().filter(|(_, is_decided)| *is_decided);
    let certain = merge(decided.copied(), &mut clashes);
    if policies.iter().all(|(_, is_decided)| *is_decided) {
        return (certain, clashes);
    }
    let mut all = merge(policies.iter().copied(), &mut Vec::new());
    let singles: Vec<_> = policies
        .iter()
        .filter(|(_, is_decided)| !is_decided)
        .map(|one| (&one.0.id, merge([*one], &mut Vec::new())))
        .collect();
    for (prefix, owner) in &mut all {
        if owner.is_decided {
            continue;
        }
        let sends = |table: &Owners<'a>| {
            let found = longest_of_net(table, *prefix);
            found.is_some_and(|(_, owner)| owner.says == Says::Gateway)
        };
        let is_sent = || {
            let mut others = singles.iter().filter(|(id, _)| **id != owner.policy.id);
            sends(&certain) || others.any(|(_, table)| sends(table))
        };
        if owner.says == Says::Gateway || is_sent() {
            owner.says = Says::Wait;
        }
    }
    (all, clashes)
}

/// The policies of a pod in order of precedence, each with whether it is known to select the pod.
/// Policies the world does not have are none: they were removed, or are not valid.
pub(crate) fn of_pod<'a>(context: &Context<'a>, pod: &Pod) -> Vec<(&'a Policy, bool)> {
    let decided = pod.policies.iter().map(|id| (id, true));
    let undecided = pod.undecided.difference(&pod.policies);
    let mut places: Vec<_> = decided
        .chain(undecided.map(|id| (id, false)))
        .filter_map(|(id, is_decided)| Some((*context.places.get(id)?, is_decided)))
        .collect();
    places.sort_unstable();
    places
        .into_iter()
        .map(|(place, is_decided)| (&context.world.policies[place], is_decided))
        .collect()
}

/// Lays the prefixes of policies, oldest first, over each other.
fn merge<'a>(
    policies: impl IntoIterator<Item = (&'a Policy, bool)>,
    clashes: &mut Vec<Clash<'a>>,
) -> Owners<'a> {
    let mut owners = Owners::new();
    for (policy, is_decided) in policies {
        let exclusions = policy.exclusions.iter().map(|net| (net, Says::Exclude));
        let destinations = policy.destinations.iter().map(|net| (net, Says::Gateway));
        for (net, says) in exclusions.chain(destinations) {
            let prefix = net.trunc();
            match owners.entry(prefix) {
                Entry::Vacant(entry) => {
                    entry.insert(Owner {
                        policy,
                        says,
                        is_decided,
                    });
                }
                Entry::Occupied(entry) => {
                    let older = entry.get();
                    let is_other = older.policy.id != policy.id;
                    let is_same = older.says == Says::Exclude && says == Says::Exclude;
                    if is_other && !is_same {
                        clashes.push(Clash {
                            prefix,
                            winner: &older.policy.id,
                            loser: &policy.id,
                        });
                    }
                }
            }
        }
    }
    owners
}

/// The longest prefix of a table that contains all of another, itself maybe. At most 129 look-ups.
pub(crate) fn longest_of_net<T>(table: &BTreeMap<IpNet, T>, net: IpNet) -> Option<(IpNet, &T)> {
    let mut at = Some(net.trunc());
    while let Some(net) = at {
        if let Some(found) = table.get(&net) {
            return Some((net, found));
        }
        at = net.supernet();
    }
    None
}

/// The longest prefix of a table that contains an address.
pub(crate) fn longest<T>(
    table: &BTreeMap<IpNet, T>,
    address: std::net::IpAddr,
) -> Option<(IpNet, &T)> {
    longest_of_net(table, address.into())
}
