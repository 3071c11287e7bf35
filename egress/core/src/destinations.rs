// SPDX-License-Identifier: Apache-2.0
//! Which policy has the say about a destination of a pod.
//!
//! The longest prefix of all policies of the pod counts, destination or exclusion; of one prefix,
//! the older policy; of one policy, the exclusion.
//!
//! A policy whose selector may match, for all that is known, stands among them with everything it
//! names, and where its word would be the strongest, it depends on what else there may be: if
//! packets would go to a gateway in any case of such policies selecting the pod or not, they are
//! refused, and if they would in none, they are left alone.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use ipnet::IpNet;

use crate::context::Context;
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

/// A policy of a pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PodPolicy<'a> {
    pub(crate) policy: &'a Policy,
    /// Its place in the order of precedence, the oldest at 0.
    pub(crate) place: usize,
    /// Whether it is known to select the pod.
    pub(crate) is_decided: bool,
}

/// The policy that has the say about a prefix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Owner<'a> {
    pub(crate) of: PodPolicy<'a>,
    pub(crate) says: Says,
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
    let decided = policies.iter().filter(|policy| policy.is_decided);
    let certain = merge(decided, &mut clashes);
    if policies.iter().all(|policy| policy.is_decided) {
        return (certain, clashes);
    }
    let mut all = merge(&policies, &mut Vec::new());
    let undecided = policies.iter().filter(|policy| !policy.is_decided);
    let singles: Vec<_> = undecided.map(|one| merge([one], &mut Vec::new())).collect();
    for (prefix, owner) in &mut all {
        if owner.of.is_decided {
            continue;
        }
        // Without any of the undecided ones this applies, and with one or more of them the
        // strongest; each that is stronger than this may be it.
        let without = longest_of_net(&certain, *prefix);
        let strength = |found: Option<(IpNet, &Owner<'a>)>| {
            found.map(|(net, owner)| (net.prefix_len(), Reverse(owner.of.place)))
        };
        let may_be_sent = singles
            .iter()
            .map(|single| longest_of_net(single, *prefix))
            .filter(|found| strength(*found) > strength(without))
            .chain([without])
            .flatten()
            .any(|(_, owner)| owner.says == Says::Gateway);
        if may_be_sent {
            owner.says = Says::Wait;
        }
    }
    (all, clashes)
}

/// The policies of a pod in order of precedence. Policies the world does not have are none: they
/// were removed, or are not valid.
pub(crate) fn of_pod<'a>(context: &Context<'a>, pod: &Pod) -> Vec<PodPolicy<'a>> {
    let decided = pod.policies.iter().map(|id| (id, true));
    let undecided = pod.undecided.difference(&pod.policies);
    let mut policies: Vec<_> = decided
        .chain(undecided.map(|id| (id, false)))
        .filter_map(|(id, is_decided)| {
            let place = *context.places.get(id)?;
            Some(PodPolicy {
                policy: &context.world.policies[place],
                place,
                is_decided,
            })
        })
        .collect();
    policies.sort_unstable_by_key(|policy| policy.place);
    policies
}

/// Lays the prefixes of policies, oldest first, over each other.
fn merge<'a, 'p>(
    policies: impl IntoIterator<Item = &'p PodPolicy<'a>>,
    clashes: &mut Vec<Clash<'a>>,
) -> Owners<'a>
where
    'a: 'p,
{
    let mut owners = Owners::new();
    for of in policies {
        let exclusions = of.policy.exclusions.iter().map(|net| (net, Says::Exclude));
        let destinations = of
            .policy
            .destinations
            .iter()
            .map(|net| (net, Says::Gateway));
        for (net, says) in exclusions.chain(destinations) {
            let prefix = net.trunc();
            match owners.entry(prefix) {
                Entry::Vacant(entry) => {
                    entry.insert(Owner { of: *of, says });
                }
                Entry::Occupied(entry) => {
                    let older = entry.get();
                    let is_other = older.of.place != of.place;
                    let is_same = older.says == Says::Exclude && says == Says::Exclude;
                    if is_other && !is_same {
                        clashes.push(Clash {
                            prefix,
                            winner: &older.of.policy.id,
                            loser: &of.policy.id,
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
