// SPDX-License-Identifier: Apache-2.0
//! Which gateways reach what a policy asks for, by this node's own questions and what others say of
//! theirs.
//!
//! A target that dies is found by one gateway first, and its rules must not move for that. So to one
//! that gets no answer, the answers others had before count no more: each of them asks anew at once
//! when it hears of the failure and says what came of it, and only who has said so since is better.
//! The same the other way round: when somebody who had no answer either gets one again, a node that
//! still has none asks once more before it takes the other for better than itself.
//!
//! Other nodes take every word as it comes: what two gateways say to a third node has no order, so
//! that it cannot know whether an answer is of before or after a failure. They hand nothing over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use egress_core::{Addresses, PolicyId, World};
use egress_sync::name::{NodeName, Policy};
use egress_sync::wire::{MAX_REACHED, Message, Reached};
use tokio::sync::mpsc;

use super::{Event, Peers};
use crate::probe::{Asked, Asking, Probe};

/// Policies others may speak of, known here or not: arbitrary, more than a cluster has.
const MAX_POLICIES: usize = 65_536;

/// What this node asks for one policy.
#[derive(Debug)]
struct Own {
    probe: Probe,
    device: Option<String>,
    asking: Asking,
    /// Tells its answers from those of the one before.
    number: u64,
    /// Questions without an answer in a row.
    failures: u32,
    /// Whether the target is reached; nothing before that is known.
    is_answered: Option<bool>,
    /// Since when others wait for the answer to a question that is asked after that.
    owed: Option<Instant>,
}

/// What is known of the gateways of one policy.
#[derive(Debug, Default)]
struct Known {
    /// Those that get no answer.
    failed: BTreeSet<NodeName>,
    /// Others that have said that they get one, since this node failed if it did.
    answered: BTreeSet<NodeName>,
    /// Others that get one again, which this node does not: from when on it asks itself once more.
    waiting: BTreeMap<NodeName, Instant>,
}

/// Which gateways reach what their policies ask for.
#[derive(Debug)]
pub(super) struct Probes {
    name: NodeName,
    own: BTreeMap<PolicyId, Own>,
    /// The policies with a probe.
    numbers: BTreeMap<PolicyId, Policy>,
    known: BTreeMap<Policy, Known>,
    next_number: u64,
}

/// A question of this node that has ended.
#[derive(Debug)]
pub(crate) struct OwnAsked {
    policy: PolicyId,
    number: u64,
    asked: Asked,
}

impl Probes {
    pub(super) fn new(name: NodeName) -> Probes {
        Probes {
            name,
            own: BTreeMap::new(),
            numbers: BTreeMap::new(),
            known: BTreeMap::new(),
            next_number: 0,
        }
    }

    /// Asks for these policies, as far as this node may be their gateway, and for no others.
    pub(super) fn set(
        &mut self,
        wanted: &BTreeMap<PolicyId, Probe>,
        world: &World,
        events: &mpsc::Sender<Event>,
    ) {
        let number = |id: &PolicyId| (id.clone(), Policy::named(&id.to_string()));
        self.numbers = wanted.keys().map(number).collect();
        let mut asked = BTreeMap::new();
        for policy in &world.policies {
            let mut groups = policy.groups.iter();
            let group = groups.find(|group| group.nodes.contains(&world.node));
            if let (Some(group), Some(probe)) = (group, wanted.get(&policy.id)) {
                asked.insert(&policy.id, (probe, device(&group.addresses)));
            }
        }
        let is_same = |policy: &PolicyId, own: &Own| {
            let wanted = asked.get(policy);
            wanted.is_some_and(|(probe, device)| **probe == own.probe && *device == own.device)
        };
        let (name, known) = (&self.name, &mut self.known);
        self.own.retain(|policy, own| {
            let is_kept = is_same(policy, own);
            if !is_kept && let Some(known) = known.get_mut(&Policy::named(&policy.to_string())) {
                known.failed.remove(name);
            }
            is_kept
        });
        for (policy, (probe, device)) in asked {
            if self.own.contains_key(policy) {
                continue;
            }
            self.next_number += 1;
            let number = self.next_number;
            let (events, id) = (events.clone(), policy.clone());
            let tell = move |asked| {
                let (events, policy) = (events.clone(), id.clone());
                let own = OwnAsked {
                    policy,
                    number,
                    asked,
                };
                async move { events.send(Event::Asked(own)).await.is_ok() }
            };
            let own = Own {
                probe: probe.clone(),
                asking: Asking::start(probe.clone(), device.clone(), tell),
                device,
                number,
                failures: 0,
                is_answered: None,
                owed: None,
            };
            self.own.insert(policy.clone(), own);
        }
    }

    /// A question of this node has ended. What to tell the others, and whether the decision may be
    /// another now.
    pub(super) fn handle_asked(&mut self, own_asked: OwnAsked) -> (Option<Reached>, bool) {
        let OwnAsked {
            policy: id,
            number,
            asked,
        } = own_asked;
        let own = self.own.get_mut(&id).filter(|own| own.number == number);
        let Some(own) = own else {
            return (None, false);
        };
        let policy = Policy::named(&id.to_string());
        let known = self.known.entry(policy).or_default();
        let target = own.probe.target;
        let say = |is_answered| Reached {
            policy,
            is_answered,
        };
        match asked.result {
            Ok(()) => {
                own.failures = 0;
                let before = own.is_answered.replace(true);
                let is_owed = own.owed.take_if(|since| *since <= asked.at).is_some();
                if before == Some(false) {
                    tracing::info!(policy = %id, %target, "the probe is answered again");
                    known.failed.remove(&self.name);
                    let waiting = std::mem::take(&mut known.waiting);
                    known.answered.extend(waiting.into_keys());
                }
                let is_news = before != Some(true);
                ((is_news || is_owed).then_some(say(true)), is_news)
            }
            Err(reason) => {
                own.failures = own.failures.saturating_add(1);
                if own.is_answered == Some(false) {
                    let is_over = |since: &Instant| *since <= asked.at;
                    let before = known.waiting.len();
                    known.waiting.retain(|node, since| {
                        let is_over = is_over(since);
                        if is_over {
                            known.answered.insert(node.clone());
                        }
                        !is_over
                    });
                    return (None, known.waiting.len() != before);
                }
                let failures = own.failures;
                if failures < own.probe.failure_threshold {
                    tracing::debug!(policy = %id, %target, %reason, failures, "no answer");
                    return (None, false);
                }
                tracing::warn!(policy = %id, %target, %reason, failures, "the probe is not answered");
                (own.is_answered, own.owed) = (Some(false), None);
                known.answered.clear();
                known.waiting.clear();
                known.failed.insert(self.name.clone());
                (Some(say(false)), true)
            }
        }
    }

    /// A peer says what came of its questions. Whether the decision may be another now.
    pub(super) fn handle_said(&mut self, from: &NodeName, said: &[Reached], now: Instant) -> bool {
        let ids: BTreeMap<Policy, &PolicyId> =
            self.own.keys().map(|id| (self.numbers[id], id)).collect();
        let mut again: Vec<PolicyId> = Vec::new();
        for reached in said {
            if !self.known.contains_key(&reached.policy) && self.known.len() >= MAX_POLICIES {
                tracing::warn!(node = %from, "more policies than there is room for");
                break;
            }
            let known = self.known.entry(reached.policy).or_default();
            let own = ids.get(&reached.policy).copied();
            if reached.is_answered {
                let had_failed = known.failed.remove(from);
                if had_failed && known.failed.contains(&self.name) {
                    known.waiting.insert(from.clone(), now);
                    again.extend(own.cloned());
                } else {
                    known.answered.insert(from.clone());
                }
                continue;
            }
            known.waiting.remove(from);
            known.answered.remove(from);
            known.failed.insert(from.clone());
            again.extend(own.cloned());
        }
        for id in again {
            let own = self.own.get_mut(&id).expect("it is of the list");
            if own.is_answered != Some(false) {
                own.owed = Some(now);
            }
            own.asking.again();
        }
        true
    }

    /// A link has come up: what was said on the one before is old, but for failures, which are
    /// taken back in words.
    pub(super) fn handle_link_up(&mut self, node: &NodeName) {
        for known in self.known.values_mut() {
            known.answered.remove(node);
        }
    }

    /// What there is to say on a new link.
    pub(super) fn reached(&self) -> Vec<Reached> {
        let own = self.own.iter().filter(|(_, own)| own.owed.is_none());
        let reached = own.filter_map(|(id, own)| {
            Some(Reached {
                policy: Policy::named(&id.to_string()),
                is_answered: own.is_answered?,
            })
        });
        reached.collect()
    }

    /// The policies whose gateways ask.
    pub(super) fn policies(&self) -> &BTreeMap<PolicyId, Policy> {
        &self.numbers
    }

    /// Adds to a world which nodes are not known to reach what policies ask for.
    pub(super) fn adjust(&self, world: &mut World) {
        let World {
            node,
            nodes,
            policies,
            ..
        } = world;
        for policy in policies {
            let number = self.numbers.get(&policy.id);
            let Some(known) = number.and_then(|number| self.known.get(number)) else {
                continue;
            };
            let groups = policy.groups.iter().flat_map(|group| &group.nodes);
            let candidates: BTreeMap<NodeName, &String> = groups
                .filter(|name| nodes.contains_key(*name))
                .filter_map(|name| Some((NodeName::new(name).ok()?, name)))
                .collect();
            if !known
                .failed
                .iter()
                .any(|name| candidates.contains_key(name))
            {
                continue;
            }
            let is_unanswered = |name: &NodeName| match name.as_str() == *node {
                true => known.failed.contains(name),
                false => !known.answered.contains(name),
            };
            let unanswered = candidates.iter().filter(|(name, _)| is_unanswered(name));
            policy.unanswered = unanswered.map(|(_, name)| (*name).clone()).collect();
        }
    }
}

/// The device packets to the target leave by; the routing table decides where there is none.
fn device(addresses: &Addresses) -> Option<String> {
    match addresses {
        Addresses::Interface(name) => Some(name.clone()),
        Addresses::Held { interface, .. } => interface.clone(),
        Addresses::DefaultRoute | Addresses::OnDevice(_) => None,
    }
}

impl Peers {
    /// Asks what policies ask for, and nothing else.
    pub(crate) fn set_probes(&mut self, wanted: &BTreeMap<PolicyId, Probe>, world: &World) {
        self.probes.set(wanted, world, &self.events);
    }

    pub(super) fn handle_asked(&mut self, asked: OwnAsked, now: Instant) {
        let (reached, is_stale) = self.probes.handle_asked(asked);
        self.is_stale |= is_stale;
        let Some(reached) = reached else {
            return;
        };
        let message = Message::Reached(vec![reached]);
        for peer in self.linked.keys().cloned().collect::<Vec<_>>() {
            self.send(&peer, &message, now);
        }
    }

    /// Tells a peer on a new link what came of the questions so far.
    pub(super) fn tell_reached(&mut self, to: &NodeName, now: Instant) {
        self.probes.handle_link_up(to);
        for part in self.probes.reached().chunks(MAX_REACHED) {
            self.send(to, &Message::Reached(part.to_vec()), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use egress_core::{Affinity, Group, Limits, Node, PolicyKind, Selection, Zones};

    use super::*;
    use crate::probe::Target;

    const GATEWAYS: [&str; 3] = ["a", "b", "c"];

    fn name(node: &str) -> NodeName {
        NodeName::new(node).expect("a name")
    }

    fn id() -> PolicyId {
        PolicyId {
            kind: PolicyKind::Causeway,
            name: "p".to_owned(),
        }
    }

    fn said(is_answered: bool) -> Vec<Reached> {
        let policy = Policy::named(&id().to_string());
        vec![Reached {
            policy,
            is_answered,
        }]
    }

    /// One node, the policy of three gateways, and nobody who asks by himself.
    struct Fixture {
        probes: Probes,
        world: World,
        _events: mpsc::Receiver<Event>,
    }

    impl Fixture {
        fn new(node: &str) -> Fixture {
            let nodes = GATEWAYS.iter().chain(&["w"]);
            let known = nodes.map(|name| ((*name).to_owned(), Node::default()));
            let policy = egress_core::Policy {
                id: id(),
                destinations: BTreeSet::new(),
                exclusions: BTreeSet::new(),
                groups: vec![Group {
                    nodes: GATEWAYS.map(str::to_owned).into(),
                    addresses: Addresses::Held {
                        addresses: Vec::new(),
                        affinity: Affinity::Policy,
                        interface: Some("lo".to_owned()),
                    },
                }],
                selection: Selection::ActiveStandby,
                zones: Zones::Off,
                limits: Limits::default(),
                unanswered: BTreeSet::new(),
            };
            let world = World {
                node: node.to_owned(),
                nodes: known.collect(),
                policies: vec![policy],
                ..World::default()
            };
            let mut probes = Probes::new(name(node));
            let (sender, events) = mpsc::channel(1);
            let probe = Probe {
                target: Target::Tcp("127.0.0.1:1".parse().expect("an address")),
                interval: Duration::from_secs(3600),
                timeout: Duration::from_secs(1),
                failure_threshold: 3,
            };
            probes.set(&[(id(), probe)].into(), &world, &sender);
            Fixture {
                probes,
                world,
                _events: events,
            }
        }

        /// This node's question of this time is answered, or not. What it tells the others.
        fn ask(&mut self, at: Instant, is_answered: bool) -> Option<bool> {
            let result = match is_answered {
                true => Ok(()),
                false => Err("silence".to_owned()),
            };
            let asked = OwnAsked {
                policy: id(),
                number: 1,
                asked: Asked { at, result },
            };
            let (reached, _) = self.probes.handle_asked(asked);
            reached.map(|reached| reached.is_answered)
        }

        fn hear(&mut self, from: &str, is_answered: bool, now: Instant) {
            self.probes
                .handle_said(&name(from), &said(is_answered), now);
        }

        fn unanswered(&self) -> Vec<String> {
            let mut world = self.world.clone();
            self.probes.adjust(&mut world);
            world.policies[0].unanswered.iter().cloned().collect()
        }
    }

    #[tokio::test]
    async fn failures_count_in_a_row_and_one_answer_ends_them() {
        let mut a = Fixture::new("a");
        let now = Instant::now();
        assert_eq!(a.ask(now, true), Some(true), "the first is news");
        for is_answered in [false, false, true, false, false] {
            assert_eq!(a.ask(now, is_answered), None);
        }
        assert!(a.unanswered().is_empty());
        assert_eq!(a.ask(now, false), Some(false));
        assert_eq!(a.ask(now, false), None, "said once");
        assert_eq!(a.unanswered(), ["a", "b", "c"], "nobody has said anything");
        assert_eq!(a.ask(now, true), Some(true));
        assert!(a.unanswered().is_empty());
    }

    #[tokio::test]
    async fn to_who_fails_answers_from_before_do_not_count() {
        let mut a = Fixture::new("a");
        let now = Instant::now();
        a.hear("b", true, now);
        a.hear("c", true, now);
        for _ in 0..3 {
            a.ask(now, false);
        }
        assert_eq!(a.unanswered(), ["a", "b", "c"]);
        a.hear("c", true, now);
        assert_eq!(a.unanswered(), ["a", "b"]);
        a.hear("b", false, now);
        assert_eq!(
            a.unanswered(),
            ["a", "b"],
            "the answer of c is of after that"
        );
        // A node of pods may hear of the failure after the answer to it.
        let mut w = Fixture::new("w");
        for gateway in GATEWAYS {
            w.hear(gateway, true, now);
        }
        assert!(w.unanswered().is_empty());
        w.hear("a", false, now);
        assert_eq!(w.unanswered(), ["a"]);
        w.hear("b", false, now);
        assert_eq!(w.unanswered(), ["a", "b"]);
    }

    #[tokio::test]
    async fn who_hears_of_a_failure_owes_an_answer_to_a_question_of_after_that() {
        let mut b = Fixture::new("b");
        let heard = Instant::now();
        let (before, after) = (heard, heard + Duration::from_secs(1));
        assert_eq!(b.ask(before, true), Some(true));
        b.hear("a", false, after);
        assert!(b.probes.reached().is_empty(), "it is not known");
        assert_eq!(b.ask(before, true), None, "asked before");
        assert_eq!(b.ask(after, false), None, "one failure is none");
        assert_eq!(b.ask(after, true), Some(true));
        assert_eq!(b.ask(after, true), None);
        assert_eq!(b.probes.reached(), said(true));
        assert_eq!(b.unanswered(), ["a", "c"]);
    }

    #[tokio::test]
    async fn of_two_that_failed_the_first_to_recover_is_no_better_before_the_other_has_asked() {
        let mut a = Fixture::new("a");
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        for _ in 0..3 {
            a.ask(now, false);
        }
        a.hear("b", false, now);
        a.hear("b", true, later);
        assert_eq!(a.unanswered(), ["a", "b", "c"]);
        a.ask(now, false);
        assert_eq!(a.unanswered(), ["a", "b", "c"], "asked before");
        // It does not recover: the other one is better.
        a.ask(later, false);
        assert_eq!(a.unanswered(), ["a", "c"]);
        // It does: nothing has moved.
        a.hear("b", false, later);
        a.hear("b", true, later);
        assert_eq!(a.ask(later, true), Some(true));
        assert!(a.unanswered().is_empty());
    }

    #[tokio::test]
    async fn what_is_said_on_a_new_link_takes_nobodys_answers_away() {
        let mut w = Fixture::new("w");
        let now = Instant::now();
        w.hear("b", true, now);
        w.hear("a", false, now);
        assert_eq!(w.unanswered(), ["a", "c"]);
        w.probes.handle_link_up(&name("b"));
        assert_eq!(w.unanswered(), ["a", "b", "c"]);
        w.hear("b", true, now);
        w.probes.handle_link_up(&name("a"));
        assert_eq!(w.unanswered(), ["a", "c"], "a failure stays");
        w.hear("a", true, now);
        assert!(w.unanswered().is_empty());
    }

    #[tokio::test]
    async fn a_gateway_that_is_none_any_more_matters_to_nobody() {
        let mut w = Fixture::new("w");
        w.hear("a", false, Instant::now());
        w.world.nodes.remove("a");
        assert!(w.unanswered().is_empty());
        let (sender, _events) = mpsc::channel(1);
        let mut a = Fixture::new("a");
        for _ in 0..3 {
            a.ask(Instant::now(), false);
        }
        a.probes.set(&BTreeMap::new(), &a.world, &sender);
        assert!(a.unanswered().is_empty());
        assert_eq!(a.ask(Instant::now(), false), None, "a question of before");
    }
}
