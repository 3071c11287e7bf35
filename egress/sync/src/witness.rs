// SPDX-License-Identifier: Apache-2.0
//! Whether a node that is not heard any more is dead, or only out of reach from here.
//!
//! BFD says that the way to a node is cut, not which end is. So everybody who is linked is asked
//! ([`Witness::ask`]): each says at once that it is there, looks whether the node answers it, and if
//! so says that too. One that has heard it is enough: it lives, and nobody takes anything over from
//! it. If some are there and none has heard it, it is dead to everybody, or as good as that. If none
//! of them is there, it is this node that is cut off.
//!
//! The node in question is asked itself as well, if it is linked still: what BFD misses may be BFD
//! alone.
//!
//! **Polling order.** After each call, [`Witness::poll_output`] until nothing comes, then
//! [`Witness::poll_timeout`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::name::NodeName;
use crate::wire::Message;

/// How long answers may take: two round trips in a data centre take less than one millisecond, so
/// this is for schedulers. It is a part of the time a takeover takes.
pub const PATIENCE: Duration = Duration::from_millis(50);

/// How many nodes are asked at most: arbitrary, more than may reasonably fail at once.
pub const MAX_WITNESSES: usize = 16;

/// How many questions of others wait for an answer at most: more are not passed on.
const MAX_PASSED_ON: usize = 1024;

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Somebody hears the node.
    Alive,
    /// Nobody does, and somebody was there to say so.
    Dead,
    /// Nobody who was asked is there.
    Isolated,
    /// There is nobody to ask.
    Alone,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WitnessOutput {
    /// Send this.
    Send {
        /// To this node, which is linked.
        to: NodeName,
        /// This.
        message: Message,
    },
    /// A question is answered.
    Verdict {
        /// Who was asked about.
        about: NodeName,
        /// The answer.
        verdict: Verdict,
    },
}

#[derive(Debug)]
struct Question {
    nonce: u64,
    has_witnesses: bool,
    is_anybody_there: bool,
    deadline: Instant,
}

#[derive(Debug)]
struct PassedOn {
    about: NodeName,
    asker: NodeName,
    nonce: u64,
    deadline: Instant,
}

/// The questions of one node, and those it answers.
#[derive(Debug, Default)]
pub struct Witness {
    next_nonce: u64,
    own: BTreeMap<NodeName, Question>,
    /// By the nonce of our question to the node. Bounded by [`MAX_PASSED_ON`].
    passed_on: BTreeMap<u64, PassedOn>,
    /// Bounded: callers empty it after each call.
    outputs: VecDeque<WitnessOutput>,
}

impl Witness {
    /// Nobody asks anything.
    pub fn new() -> Witness {
        Witness::default()
    }

    /// Asks those who are linked about a node. A question that is open already goes on.
    pub fn ask(&mut self, about: &NodeName, linked: &BTreeSet<NodeName>, now: Instant) {
        if self.own.contains_key(about) {
            return;
        }
        let nonce = self.nonce();
        if linked.contains(about) {
            self.send(about, Message::Ping { nonce });
        }
        let mut has_witnesses = false;
        let others = linked.iter().filter(|node| *node != about);
        for witness in others.take(MAX_WITNESSES) {
            has_witnesses = true;
            let about = about.clone();
            self.send(witness, Message::Ask { nonce, about });
        }
        let question = Question {
            nonce,
            has_witnesses,
            is_anybody_there: false,
            deadline: now + PATIENCE,
        };
        self.own.insert(about.clone(), question);
    }

    /// Nobody wants to know any more.
    pub fn forget(&mut self, about: &NodeName) {
        self.own.remove(about);
    }

    /// What a linked node says. Whether it was a question or an answer.
    pub fn handle_message(
        &mut self,
        from: &NodeName,
        message: &Message,
        linked: &BTreeSet<NodeName>,
        now: Instant,
    ) -> bool {
        match message {
            Message::Ask { nonce, about } => {
                self.send(from, Message::Pong { nonce: *nonce });
                if linked.contains(about) && self.passed_on.len() < MAX_PASSED_ON {
                    let ours = self.nonce();
                    let passed_on = PassedOn {
                        about: about.clone(),
                        asker: from.clone(),
                        nonce: *nonce,
                        deadline: now + PATIENCE,
                    };
                    self.passed_on.insert(ours, passed_on);
                    self.send(about, Message::Ping { nonce: ours });
                }
            }
            Message::Ping { nonce } => self.send(from, Message::Pong { nonce: *nonce }),
            Message::Pong { nonce } => self.handle_pong(from, *nonce, linked),
            Message::Heard { nonce } => {
                if let Some(about) = self.asked(*nonce) {
                    self.conclude(about, Verdict::Alive);
                }
            }
            _ => return false,
        }
        true
    }

    /// The time of [`Witness::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.passed_on.retain(|_, question| question.deadline > now);
        let late = self.own.iter().filter(|(_, q)| q.deadline <= now);
        let late: Vec<(NodeName, Verdict)> = late
            .map(|(about, question)| {
                let verdict = match (question.has_witnesses, question.is_anybody_there) {
                    (false, _) => Verdict::Alone,
                    (true, false) => Verdict::Isolated,
                    (true, true) => Verdict::Dead,
                };
                (about.clone(), verdict)
            })
            .collect();
        for (about, verdict) in late {
            self.conclude(about, verdict);
        }
    }

    /// When [`Witness::handle_timeout`] is to be called, and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let own = self.own.values().map(|question| question.deadline);
        let others = self.passed_on.values().map(|question| question.deadline);
        own.chain(others).min().map(|at| (at, "witness"))
    }

    /// What there is to do.
    pub fn poll_output(&mut self) -> Option<WitnessOutput> {
        self.outputs.pop_front()
    }

    fn handle_pong(&mut self, from: &NodeName, nonce: u64, linked: &BTreeSet<NodeName>) {
        if let Some(passed_on) = self.passed_on.get(&nonce)
            && passed_on.about == *from
        {
            let (asker, nonce) = (passed_on.asker.clone(), passed_on.nonce);
            self.passed_on
                .retain(|_, q| q.nonce != nonce || q.asker != asker);
            if linked.contains(&asker) {
                self.send(&asker, Message::Heard { nonce });
            }
            return;
        }
        let Some(about) = self.asked(nonce) else {
            return;
        };
        if about == *from {
            self.conclude(about, Verdict::Alive);
        } else if let Some(question) = self.own.get_mut(&about) {
            question.is_anybody_there = true;
        }
    }

    fn asked(&self, nonce: u64) -> Option<NodeName> {
        let mut own = self.own.iter();
        let (about, _) = own.find(|(_, question)| question.nonce == nonce)?;
        Some(about.clone())
    }

    fn conclude(&mut self, about: NodeName, verdict: Verdict) {
        self.own.remove(&about);
        self.outputs
            .push_back(WitnessOutput::Verdict { about, verdict });
    }

    fn nonce(&mut self) -> u64 {
        self.next_nonce += 1;
        self.next_nonce
    }

    fn send(&mut self, to: &NodeName, message: Message) {
        let to = to.clone();
        self.outputs.push_back(WitnessOutput::Send { to, message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> NodeName {
        NodeName::new(name).expect("a name")
    }

    /// Nodes and the links between them.
    struct Net {
        nodes: BTreeMap<NodeName, Witness>,
        links: BTreeSet<(NodeName, NodeName)>,
        /// Nodes that are linked and say nothing.
        hung: BTreeSet<NodeName>,
        now: Instant,
    }

    impl Net {
        /// Everybody linked with everybody.
        fn new(names: &[&str]) -> Net {
            let names: Vec<NodeName> = names.iter().map(|n| name(n)).collect();
            let pairs = |a: &NodeName| {
                let a = a.clone();
                let others = names.iter().filter(|b| **b != a).cloned();
                others.map(|b| (a.clone(), b)).collect::<Vec<_>>()
            };
            Net {
                links: names.iter().flat_map(pairs).collect(),
                nodes: names.iter().map(|n| (n.clone(), Witness::new())).collect(),
                hung: BTreeSet::new(),
                now: Instant::now(),
            }
        }

        fn cut(&mut self, a: &str, b: &str) {
            self.links.remove(&(name(a), name(b)));
            self.links.remove(&(name(b), name(a)));
        }

        fn linked(&self, node: &NodeName) -> BTreeSet<NodeName> {
            let own = self.links.iter().filter(|(a, _)| a == node);
            own.map(|(_, b)| b.clone()).collect()
        }

        /// Asks, and lets everybody answer.
        fn ask(&mut self, who: &str, about: &str) -> Verdict {
            let (who, about) = (name(who), name(about));
            let linked = self.linked(&who);
            let now = self.now;
            let asker = self.nodes.get_mut(&who).expect("a node");
            asker.ask(&about, &linked, now);
            loop {
                if let Some(verdict) = self.deliver(&about) {
                    return verdict;
                }
                let timers = self.nodes.values().filter_map(Witness::poll_timeout);
                let (at, _) = timers.min().expect("a timer runs until there is a verdict");
                self.now = at;
                for node in self.nodes.values_mut() {
                    node.handle_timeout(at);
                }
            }
        }

        fn deliver(&mut self, asked: &NodeName) -> Option<Verdict> {
            let mut said = None;
            loop {
                let mut sent = Vec::new();
                for (from, node) in &mut self.nodes {
                    while let Some(output) = node.poll_output() {
                        match output {
                            WitnessOutput::Send { to, message } => {
                                sent.push((from.clone(), to, message));
                            }
                            WitnessOutput::Verdict { about, verdict } => {
                                assert_eq!(about, *asked);
                                assert_eq!(said.replace(verdict), None, "said twice");
                            }
                        }
                    }
                }
                if sent.is_empty() {
                    return said;
                }
                for (from, to, message) in sent {
                    let is_lost = self.hung.contains(&from) || self.hung.contains(&to);
                    let linked = self.linked(&to);
                    if !is_lost && self.links.contains(&(from.clone(), to.clone())) {
                        let node = self.nodes.get_mut(&to).expect("a node");
                        assert!(node.handle_message(&from, &message, &linked, self.now));
                    }
                }
            }
        }
    }

    #[test]
    fn a_node_that_only_bfd_does_not_hear_says_so_itself() {
        assert_eq!(Net::new(&["a", "b"]).ask("b", "a"), Verdict::Alive);
    }

    #[test]
    fn one_who_hears_it_is_enough() {
        let mut net = Net::new(&["a", "b", "p", "q", "r"]);
        for unheard in ["b", "p", "q"] {
            net.cut("a", unheard);
        }
        assert_eq!(net.ask("b", "a"), Verdict::Alive);
    }

    #[test]
    fn whom_nobody_hears_is_dead() {
        let mut net = Net::new(&["a", "b", "p", "q"]);
        net.hung.insert(name("a"));
        assert_eq!(net.ask("b", "a"), Verdict::Dead);
        // Also when the links are gone by then.
        for other in ["b", "p", "q"] {
            net.cut("a", other);
        }
        assert_eq!(net.ask("b", "a"), Verdict::Dead);
    }

    #[test]
    fn who_hears_nobody_is_cut_off() {
        let mut net = Net::new(&["a", "b", "p", "q"]);
        net.hung.extend([name("a")]);
        assert_eq!(net.ask("a", "b"), Verdict::Isolated);
    }

    #[test]
    fn of_two_nodes_nobody_can_say() {
        let mut net = Net::new(&["a", "b"]);
        net.hung.insert(name("a"));
        assert_eq!(net.ask("b", "a"), Verdict::Alone);
        net.cut("a", "b");
        assert_eq!(net.ask("b", "a"), Verdict::Alone);
    }

    #[test]
    fn a_question_is_forgotten_with_its_time() {
        let mut net = Net::new(&["a", "b", "p"]);
        net.hung.insert(name("a"));
        net.ask("b", "a");
        for node in net.nodes.values_mut() {
            node.handle_timeout(net.now + PATIENCE);
            assert!(node.own.is_empty() && node.passed_on.is_empty());
        }
        // What comes too late says nothing.
        let linked = net.linked(&name("b"));
        let asker = net.nodes.get_mut(&name("b")).expect("a node");
        asker.handle_message(&name("p"), &Message::Heard { nonce: 1 }, &linked, net.now);
        assert_eq!(asker.poll_output(), None);
    }
}
