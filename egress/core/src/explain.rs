// SPDX-License-Identifier: Apache-2.0
//! Why packets of a pod to a destination go where they go.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::context::{Claims, Context, held};
use crate::desired::{Desired, End, RuleEnd, Way};
use crate::destinations::{longest, of_pod, owners};
use crate::finding::{Family, Refusal};
use crate::number::Numbers;
use crate::rule::{Exit, RuleNumber, held_sets};
use crate::world::{Addresses, Pod, PodKey, PolicyId, World};

/// Whose packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Those of a pod of this node.
    Pod(PodKey),
    /// Those from this address.
    Address(IpAddr),
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sender::Pod(key) => write!(f, "pod {key}"),
            Sender::Address(address) => address.fmt(f),
        }
    }
}

/// Why packets go where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Whose packets, as asked.
    pub sender: Sender,
    /// Where to, as asked.
    pub destination: IpAddr,
    /// The pod, if this node has it.
    pub pod: Option<PodKey>,
    /// The policies that select it, in order of precedence.
    pub selected_by: Vec<PolicyId>,
    /// The policies that may select it, in order of precedence.
    pub undecided: Vec<PolicyId>,
    /// What becomes of them.
    pub verdict: Verdict,
}

/// What becomes of packets, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This node has no such pod; ask its node.
    NotHere,
    /// The destination is inside the cluster.
    InCluster {
        /// The prefix that says so.
        prefix: IpNet,
    },
    /// No policy selects the pod.
    NoPolicy,
    /// None of the policies covers the destination.
    NotCovered,
    /// A policy leaves the destination out.
    Excluded {
        /// The policy.
        policy: PolicyId,
        /// Its exclusion.
        prefix: IpNet,
    },
    /// They go to a gateway.
    Through {
        /// The policy.
        policy: PolicyId,
        /// Its destination.
        prefix: IpNet,
        /// The rule.
        rule: RuleNumber,
        /// Where it goes; none if the decision has no end for it, which is a fault.
        end: Option<Box<RuleEnd>>,
        /// The gateway's address they go to as they are; none where they take the tunnel, or nothing
        /// of the kind.
        neighbour: Option<IpAddr>,
        /// The addresses they get there, as far as they are known here: those of an interface are
        /// known to its gateway only.
        addresses: BTreeSet<IpAddr>,
    },
    /// They are dropped.
    Refused {
        /// The policy.
        policy: PolicyId,
        /// Its destination.
        prefix: IpNet,
        /// Why.
        why: Refusal,
    },
    /// The decision is older than the world: it does not have this destination yet.
    Pending {
        /// The policy that will have the say.
        policy: PolicyId,
        /// Its prefix.
        prefix: IpNet,
    },
}

/// Explains what becomes of packets. The verdict is that of `desired`, and the reasons those of
/// `world`; they belong together. Numbers no rules, so it is cheap enough to ask often.
pub fn explain(
    world: &World,
    desired: &Desired,
    sender: Sender,
    destination: IpAddr,
) -> Explanation {
    let pod = world.pods.iter().find(|pod| match &sender {
        Sender::Pod(key) => pod.key == *key,
        Sender::Address(address) => match desired.sources.get(address) {
            Some(source) => pod.key == source.pod,
            None => pod.addresses.contains(address),
        },
    });
    let claims = Claims::new();
    let context = Context::new(world, &claims, Numbers::default());
    let policies = pod.map(|pod| of_pod(&context, pod)).unwrap_or_default();
    let names = |is_decided: bool| {
        let policies = policies.iter().filter(|one| one.is_decided == is_decided);
        policies.map(|one| one.policy.id.clone()).collect()
    };
    let verdict = match pod {
        None => Verdict::NotHere,
        Some(pod) => verdict(&context, desired, pod, &sender, destination),
    };
    Explanation {
        destination,
        pod: pod.map(|pod| pod.key.clone()),
        selected_by: names(true),
        undecided: names(false),
        verdict,
        sender,
    }
}

fn verdict(
    context: &Context<'_>,
    desired: &Desired,
    pod: &Pod,
    sender: &Sender,
    destination: IpAddr,
) -> Verdict {
    let mut inside = context.world.in_cluster.iter();
    if let Some(prefix) = inside.find(|prefix| prefix.contains(&destination)) {
        return Verdict::InCluster { prefix: *prefix };
    }
    if of_pod(context, pod).is_empty() {
        return Verdict::NoPolicy;
    }
    let (owners, _) = owners(context, pod);
    let Some((prefix, owner)) = longest(&owners, destination) else {
        return Verdict::NotCovered;
    };
    let policy = owner.of.policy.id.clone();
    let source = match sender {
        Sender::Address(address) => desired.sources.get(address),
        Sender::Pod(_) => {
            let mut addresses = pod.addresses.iter();
            addresses.find_map(|address| desired.sources.get(address))
        }
    };
    let way = source
        .and_then(|source| desired.sets.get(&source.set))
        .and_then(|set| longest(set, destination));
    match way {
        Some((found, Way::Excluded)) if found == prefix => Verdict::Excluded { policy, prefix },
        Some((found, Way::Refused(why))) if found == prefix => Verdict::Refused {
            policy,
            prefix,
            why: *why,
        },
        Some((found, Way::Through(rule))) if found == prefix => Verdict::Through {
            policy,
            prefix,
            rule: *rule,
            end: desired.ends.get(rule).cloned().map(Box::new),
            neighbour: source.and_then(|source| desired.neighbour(source, *rule, destination)),
            addresses: addresses(context, desired, *rule, Family::of(destination)),
        },
        Some((_, Way::Excluded | Way::Refused(_) | Way::Through(_))) | None => {
            Verdict::Pending { policy, prefix }
        }
    }
}

/// The addresses packets of a rule get, of both families, as far as they are known here: those of
/// an interface are known to its gateway only.
pub fn addresses_of(world: &World, desired: &Desired, rule: RuleNumber) -> BTreeSet<IpAddr> {
    let claims = Claims::new();
    let context = Context::new(world, &claims, Numbers::default());
    let of = |family| addresses(&context, desired, rule, family);
    of(Family::V4).into_iter().chain(of(Family::V6)).collect()
}

/// The addresses of a rule, as far as they are known here.
fn addresses(
    context: &Context<'_>,
    desired: &Desired,
    rule: RuleNumber,
    family: Family,
) -> BTreeSet<IpAddr> {
    let of_family = |address: &IpAddr| Family::of(*address) == family;
    if let Some(rule) = desired.gateway.get(&rule) {
        return rule.addresses().filter(of_family).collect();
    }
    let configured = || {
        let key = &desired.ends.get(&rule)?.key;
        let policy = &context.world.policies[*context.places.get(&key.policy)?];
        let group = policy.groups.get(usize::try_from(key.group).ok()?)?;
        let addresses = match (&group.addresses, &key.exit) {
            (Addresses::OnDevice(address), Exit::Node(_)) => vec![*address],
            (Addresses::Held { affinity, .. }, Exit::Shared | Exit::Address(_)) => {
                let mut sets = held_sets(held(group), *affinity).into_iter();
                let set = sets.find(|set| set.exit == key.as_ref().exit)?;
                let v4 = set.v4.into_iter().map(IpAddr::V4);
                v4.chain(set.v6.into_iter().map(IpAddr::V6)).collect()
            }
            (Addresses::DefaultRoute | Addresses::Interface(_), _)
            | (Addresses::OnDevice(_), Exit::Shared | Exit::Address(_))
            | (Addresses::Held { .. }, Exit::Node(_)) => Vec::new(),
        };
        let mine = |address: &IpAddr| {
            let other = context.other_owner(*address, &key.policy, key.group);
            other.is_none() || matches!(group.addresses, Addresses::OnDevice(_))
        };
        let addresses = addresses.into_iter().filter(of_family).filter(mine);
        Some(addresses.take(crate::MAX_ADDRESSES).collect())
    };
    configured().unwrap_or_default()
}

/// Writes names with commas between them.
fn list<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    items: impl IntoIterator<Item = T>,
) -> fmt::Result {
    for (item, n) in items.into_iter().zip(0..) {
        if n > 0 {
            f.write_str(", ")?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

impl fmt::Display for Explanation {
    /// Writes a line for the verdict, and one each for the policies that select the pod and those
    /// that may.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} to {}: {}",
            self.sender, self.destination, self.verdict
        )?;
        if let (Sender::Address(_), Some(pod)) = (&self.sender, &self.pod) {
            write!(f, "\npod: {pod}")?;
        }
        if !self.selected_by.is_empty() {
            f.write_str("\nselected by: ")?;
            list(f, &self.selected_by)?;
        }
        if !self.undecided.is_empty() {
            f.write_str("\nmay be selected by: ")?;
            list(f, &self.undecided)?;
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::NotHere => f.write_str("this node has no such pod; ask the node it runs on"),
            Verdict::InCluster { prefix } => write!(
                f,
                "not sent to a gateway, because {prefix} is inside the cluster"
            ),
            Verdict::NoPolicy => {
                f.write_str("not sent to a gateway, because no policy selects the pod")
            }
            Verdict::NotCovered => f.write_str(
                "not sent to a gateway, because no policy of the pod covers the destination",
            ),
            Verdict::Excluded { policy, prefix } => write!(
                f,
                "not sent to a gateway, because {policy} excludes {prefix}"
            ),
            Verdict::Through {
                policy,
                prefix,
                rule,
                end,
                neighbour,
                addresses,
            } => {
                write!(f, "by {policy} for {prefix} through rule {rule}")?;
                match end {
                    None => f.write_str(", which has no end: dropped")?,
                    Some(end) => {
                        write!(f, " to gateway {}", end.gateway)?;
                        match (end.end, neighbour) {
                            (_, Some(address)) => write!(f, " at {address} without a tunnel")?,
                            (End::Remote(address), None) => write!(f, " at {address}")?,
                            (End::Local, None) => f.write_str(", this node")?,
                            (End::Refused, None) => f.write_str(
                                ", which has no address this node can send to: dropped",
                            )?,
                        }
                    }
                }
                if addresses.is_empty() {
                    match end.as_ref().map(|end| end.end) {
                        Some(End::Local) => f.write_str(", which has no address to give: dropped"),
                        Some(End::Remote(_)) => f.write_str(", which knows its address"),
                        Some(End::Refused) | None => Ok(()),
                    }
                } else {
                    f.write_str(", as ")?;
                    list(f, addresses)
                }
            }
            Verdict::Refused {
                policy,
                prefix,
                why,
            } => write!(f, "dropped by {policy} for {prefix}, because {why}"),
            Verdict::Pending { policy, prefix } => write!(
                f,
                "about to change: {policy} for {prefix} is not decided yet"
            ),
        }
    }
}
