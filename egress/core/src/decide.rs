// SPDX-License-Identifier: Apache-2.0
//! The decision, put together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::context::{Claims, Context};
use crate::desired::{Desired, End, Life, Previous, RuleEnd, Source, Way};
use crate::destinations::{Owner, Says, owners};
use crate::elect::elect;
use crate::finding::{Family, Finding, Refusal};
use crate::gateway::resolve;
use crate::native;
use crate::number::Numbers;
use crate::plan::{Plan, WayOut};
use crate::rule::{Exit, RuleKey, RuleNumber};
use crate::sets::Sets;
use crate::state::state;
use crate::world::{Addresses, Pod, Policy, Selection, World};

/// Decides what this node does. The same input gives the same output, and no input panics.
///
/// Time: all rules of the cluster are numbered, n log n of their number; then each policy that
/// concerns this node costs the nodes of its groups, and each pod the prefixes of its policies.
/// Memory, of the answer: local pods, the different sets among them, and the rules this node is or
/// may be the gateway of. Neither other nodes nor their pods are in it, but for those this node gets
/// packets of without a tunnel.
pub fn decide(world: &World, claims: &Claims, previous: &Previous) -> Desired {
    let own = claims
        .iter()
        .filter(|(_, claim)| claim.holder == world.node);
    let own: Vec<RuleNumber> = own.map(|(number, _)| *number).collect();
    let asked = previous.live.iter().chain(&own).copied().collect();
    let numbers = Numbers::new(world, &asked);
    let mut decision = Decision {
        context: Context::new(world, claims, numbers),
        desired: Desired::default(),
    };
    let mut concerned = decision.places_of_pods();
    for (place, policy) in world.policies.iter().enumerate() {
        let mut groups = policy.groups.iter();
        if groups.any(|group| group.nodes.contains(&world.node)) {
            concerned.insert(place);
        }
    }
    // What this node holds although it belongs to no group of it any more.
    let held = own.iter().filter_map(|number| {
        let key = decision.context.numbers.key_of(*number)?;
        decision.context.places.get(&key.policy).copied()
    });
    concerned.extend(held);
    let plan = |place| Plan::new(&decision.context, &world.policies[place]);
    let plans: BTreeMap<usize, Plan<'_>> = concerned.into_iter().map(|p| (p, plan(p))).collect();
    let mut sets = Sets::new(&previous.desired.sets);
    decision.pods(&plans, &mut sets);
    decision.desired.remote = native::remote(&decision.context, &plans, &mut sets);
    decision.desired.sets = sets.finish();
    for plan in plans.values() {
        decision.policy(plan);
    }
    decision.drain(previous);
    decision.finish()
}

/// A decision under way.
struct Decision<'a> {
    context: Context<'a>,
    desired: Desired,
}

impl<'a> Decision<'a> {
    /// The places of the policies that have to do with pods of this node.
    fn places_of_pods(&self) -> BTreeSet<usize> {
        let pods = self.context.world.pods.iter();
        pods.flat_map(|pod| pod.policies.union(&pod.undecided))
            .filter_map(|id| self.context.places.get(id).copied())
            .collect()
    }

    /// Gives every pod its set, and the sets' rules their ends.
    fn pods(&mut self, plans: &BTreeMap<usize, Plan<'a>>, sets: &mut Sets<'_>) {
        let mut pods: Vec<&Pod> = self.context.world.pods.iter().collect();
        pods.sort_by(|a, b| (&a.key, &a.uid).cmp(&(&b.key, &b.uid)));
        for pod in pods.into_iter().filter(|pod| !pod.addresses.is_empty()) {
            let (owners, clashes) = owners(&self.context, pod);
            for clash in clashes {
                self.desired.findings.insert(Finding::SamePrefix {
                    prefix: clash.prefix,
                    winner: clash.winner.clone(),
                    loser: clash.loser.clone(),
                });
            }
            if owners.is_empty() {
                continue;
            }
            let mut chosen = BTreeMap::new();
            let table = owners
                .into_iter()
                .map(|(prefix, owner)| {
                    let way = match owner.says {
                        Says::Exclude => Way::Excluded,
                        Says::Wait => Way::Refused(Refusal::Undecided),
                        Says::Gateway => {
                            let place = owner.of.place;
                            let family = Family::of_net(prefix);
                            *chosen
                                .entry((place, family))
                                .or_insert_with(|| self.way(&plans[&place], &owner, pod, family))
                        }
                    };
                    (prefix, way)
                })
                .collect();
            let set = sets.number(table);
            for address in &pod.addresses {
                let source = Source {
                    pod: pod.key.clone(),
                    set,
                    is_known_to_all: native::is_known(self.context.world, pod),
                };
                self.source(*address, source);
            }
        }
    }

    /// Notes the set of an address. Of two pods the first one's applies: dropping too much is
    /// repaired, leaking is not.
    fn source(&mut self, address: IpAddr, source: Source) {
        match self.desired.sources.get(&address) {
            Some(first) if first.pod != source.pod => {
                self.desired.findings.insert(Finding::AddressOfTwoPods {
                    address,
                    winner: first.pod.clone(),
                    loser: source.pod,
                });
            }
            Some(_) | None => {
                self.desired.sources.insert(address, source);
            }
        }
    }

    /// What becomes of a pod's packets to the destinations of a policy.
    fn way(&mut self, plan: &Plan<'a>, owner: &Owner<'a>, pod: &Pod, family: Family) -> Way {
        let chosen = plan.choose(pod, family);
        let chosen = chosen.and_then(|way| Ok((way, way.number.ok_or(Refusal::NoNumber)?)));
        match chosen {
            Ok((way, number)) => {
                if let Some(gateway) = way.gateway {
                    let drain = plan.policy.limits.drain;
                    self.end(number, way.rule.to_key(), gateway, drain, Life::Active);
                }
                self.seat(way);
                Way::Through(number)
            }
            Err(why) => {
                self.desired.findings.insert(Finding::Refused {
                    policy: owner.of.policy.id.clone(),
                    family,
                    why,
                });
                Way::Refused(why)
            }
        }
    }

    /// Notes where the packets of a rule go.
    fn end(
        &mut self,
        number: RuleNumber,
        key: RuleKey,
        gateway: &str,
        drain: Option<Duration>,
        life: Life,
    ) {
        if self.desired.ends.contains_key(&number) {
            return;
        }
        let end = reach(self.context.world, gateway);
        if end == End::Refused {
            self.desired.findings.insert(Finding::Unreachable {
                policy: key.policy.clone(),
                node: self.context.world.node.clone(),
                gateway: gateway.to_owned(),
            });
        }
        let end = RuleEnd {
            key,
            gateway: gateway.to_owned(),
            end,
            neighbours: native::neighbours(self.context.world, gateway, life),
            drain,
            life,
        };
        self.desired.ends.insert(number, end);
    }

    /// Notes who holds a rule, if it is one that can move.
    fn seat(&mut self, way: &WayOut<'_>) {
        if let (Some(number), Some(election)) = (way.number, &way.election) {
            let seat = || election.to_seat(&self.context.world.node, way.rule);
            self.desired.seats.entry(number).or_insert_with(seat);
        }
    }

    /// Notes how a policy stands, and what this node has to do as its gateway.
    fn policy(&mut self, plan: &Plan<'a>) {
        let world = self.context.world;
        let mut state = state(plan, &self.context);
        for way in &plan.ways {
            let group = plan.policy.groups.get(way.rule.group as usize);
            let is_holder = way.gateway == Some(world.node.as_str());
            if is_holder || group.is_some_and(|group| group.nodes.contains(&world.node)) {
                self.seat(way);
            }
            let seat = way.number.and_then(|number| {
                let seat = self.desired.seats.get(&number)?;
                (seat.is_standby && !seat.is_holder).then_some(number)
            });
            if let Some(number) = seat {
                let key = way.rule.to_key();
                // What is missing here is said when it matters.
                let mut findings = BTreeSet::new();
                let rule = resolve(
                    &self.context,
                    plan.policy,
                    &key,
                    Life::Active,
                    &mut findings,
                );
                self.desired.standby.extend(rule.map(|rule| (number, rule)));
            }
            let Some(number) = way
                .number
                .filter(|_| way.gateway == Some(world.node.as_str()))
            else {
                continue;
            };
            let findings = &mut state.findings;
            let key = way.rule.to_key();
            let rule = resolve(&self.context, plan.policy, &key, Life::Active, findings);
            if let Some(rule) = rule {
                state.addresses.extend(rule.addresses());
                self.desired.gateway.insert(number, rule);
            }
        }
        self.desired.findings.extend(state.findings.iter().cloned());
        self.desired.policies.insert(plan.policy.id.clone(), state);
    }

    /// Keeps rules that are not chosen any more and have live connections, as far as the world
    /// still says what they are: the policy is there, the way out is one of its kind, and the
    /// gateway exists, or holds the addresses.
    fn drain(&mut self, previous: &Previous) {
        for number in &previous.live {
            let before = &previous.desired;
            let from_end = before.ends.get(number).map(|end| &end.key);
            let from_gateway = before.gateway.get(number).map(|rule| &rule.key);
            let known = self.context.numbers.key_of(*number);
            let Some(key) = from_end.or(from_gateway).or(known).cloned() else {
                continue;
            };
            // Somebody else has the number by now.
            if known.is_some_and(|known| *known != key) {
                continue;
            }
            if !self.context.places.contains_key(&key.policy) {
                self.drain_removed(*number, before);
                continue;
            }
            let Some((policy, gateway)) = self.gateway_of(*number, &key) else {
                continue;
            };
            let at_most = policy.limits.drain;
            if at_most == Some(Duration::ZERO) {
                continue;
            }
            let life = Life::Draining { at_most };
            // Whether it was used from here; after a restart nobody knows, and an end too many
            // does no harm.
            if from_end.is_some() || from_gateway.is_none() {
                self.end(*number, key.clone(), &gateway, at_most, life);
            }
            if gateway == self.context.world.node && !self.desired.gateway.contains_key(number) {
                let findings = &mut self.desired.findings;
                if let Some(rule) = resolve(&self.context, policy, &key, life, findings) {
                    self.desired.gateway.insert(*number, rule);
                }
            }
        }
    }

    /// Keeps a rule of a policy that is not there any more, as it was: its connections go on as
    /// after any other change. Addresses another policy wants are its own from now on.
    fn drain_removed(&mut self, number: RuleNumber, before: &Desired) {
        let world = self.context.world;
        let is_kept = |drain: Option<Duration>| drain != Some(Duration::ZERO);
        if let Some(end) = before.ends.get(&number).filter(|end| is_kept(end.drain))
            && world.nodes.contains_key(&end.gateway)
        {
            let (key, at_most) = (end.key.clone(), end.drain);
            let life = Life::Draining { at_most };
            self.end(number, key, &end.gateway, at_most, life);
        }
        if let Some(rule) = before
            .gateway
            .get(&number)
            .filter(|rule| is_kept(rule.drain))
        {
            let is_wanted = |address| self.context.is_wanted(address);
            if rule.is_held && rule.addresses().any(is_wanted) {
                return;
            }
            let mut rule = rule.clone();
            rule.life = Life::Draining {
                at_most: rule.drain,
            };
            self.desired.gateway.entry(number).or_insert(rule);
        }
    }

    /// The policy of a rule and the node that is its gateway, chosen or not.
    fn gateway_of(&self, number: RuleNumber, key: &RuleKey) -> Option<(&'a Policy, String)> {
        let world = self.context.world;
        let policy = &world.policies[*self.context.places.get(&key.policy)?];
        let group = policy.groups.get(usize::try_from(key.group).ok()?)?;
        let node = match (&group.addresses, &key.exit) {
            (
                Addresses::DefaultRoute | Addresses::Interface(_) | Addresses::OnDevice(_),
                Exit::Node(node),
            ) => Some(node.as_str()),
            (Addresses::Held { .. }, Exit::Shared | Exit::Address(_)) => {
                // An address that is not the policy's any more is nobody's to hold.
                self.context.numbers.key_of(number)?;
                match policy.selection {
                    Selection::FirstByName | Selection::ByPodUid => {
                        let mut nodes = group.nodes.iter().map(String::as_str);
                        nodes.find(|node| world.nodes.contains_key(*node))
                    }
                    Selection::ActiveStandby | Selection::ActiveActive => {
                        let claim = self.context.claims.get(&number);
                        let rule = key.as_ref();
                        elect(world, policy, group, rule, claim).holder
                    }
                }
            }
            (
                Addresses::DefaultRoute | Addresses::Interface(_) | Addresses::OnDevice(_),
                Exit::Shared | Exit::Address(_),
            )
            | (Addresses::Held { .. }, Exit::Node(_)) => None,
        };
        let node = node.filter(|node| world.nodes.contains_key(*node))?;
        Some((policy, node.to_owned()))
    }

    /// Adds what is known only at the end: pods and findings of each policy.
    fn finish(mut self) -> Desired {
        let desired = &mut self.desired;
        for pod in &self.context.world.pods {
            for id in pod.undecided.difference(&pod.policies) {
                if let Some(state) = desired.policies.get_mut(id) {
                    state.undecided.insert(pod.key.clone());
                    desired.findings.insert(Finding::Undecided {
                        policy: id.clone(),
                        pod: pod.key.clone(),
                    });
                }
            }
            for id in &pod.policies {
                if let Some(state) = desired.policies.get_mut(id) {
                    state.pods.insert(pod.key.clone());
                }
            }
        }
        for collision in &self.context.numbers.collisions {
            let concerns = |key: &RuleKey| desired.policies.contains_key(&key.policy);
            if concerns(&collision.first) || concerns(&collision.later) {
                desired.findings.insert(Finding::NumberCollision {
                    first: collision.first.clone(),
                    later: collision.later.clone(),
                });
            }
        }
        for finding in &desired.findings {
            for id in finding.policies() {
                if let Some(state) = desired.policies.get_mut(id) {
                    state.findings.insert(finding.clone());
                }
            }
        }
        self.desired
    }
}

/// Where a node is, seen from this one.
fn reach(world: &World, gateway: &str) -> End {
    if gateway == world.node {
        return End::Local;
    }
    let addresses = |name: &str| match world.nodes.get(name) {
        Some(node) => node.addresses.as_slice(),
        None => &[],
    };
    let (here, there) = (addresses(&world.node), addresses(gateway));
    [Family::V4, Family::V6]
        .into_iter()
        .filter(|family| here.iter().any(|address| Family::of(*address) == *family))
        .find_map(|family| {
            let mut there = there.iter();
            there.find(|address| Family::of(**address) == family)
        })
        .map_or(End::Refused, |address| End::Remote(*address))
}
