// SPDX-License-Identifier: Apache-2.0

use proptest::prelude::*;

use super::*;
use crate::claims::{ClaimOutput, ClaimTable};
use crate::wire::Claim;

const RULE: Rule = Rule::new(1).unwrap();

fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

/// A node with its table and its ledger; no links to others.
struct Node {
    table: ClaimTable,
    ledger: Ledger,
    is_wanted: bool,
    /// The write under way.
    sent: Option<(Record, i64)>,
    steps_down: usize,
}

/// A store with one place, and nodes that share nothing else.
struct World {
    now: Instant,
    nodes: BTreeMap<NodeName, Node>,
    place: Option<Written>,
    revision: i64,
}

impl World {
    fn new(names: &[&str]) -> World {
        let node = |node: &&str| {
            let node = name(node);
            let made = Node {
                table: ClaimTable::new(node.clone()),
                ledger: Ledger::new(node.clone()),
                is_wanted: false,
                sent: None,
                steps_down: 0,
            };
            (node, made)
        };
        World {
            now: Instant::now(),
            nodes: names.iter().map(node).collect(),
            place: None,
            revision: 0,
        }
    }

    fn reached(names: &[&str]) -> World {
        let mut world = World::new(names);
        names.iter().for_each(|node| world.reach(node));
        world
    }

    fn node(&mut self, node: &str) -> &mut Node {
        self.nodes.get_mut(&name(node)).unwrap()
    }

    fn reach(&mut self, node: &str) {
        // Before anything is told it is of no use.
        let ledger = &mut self.node(node).ledger;
        let has_all = ledger.has_all;
        ledger.handle_reached();
        assert_eq!(ledger.is_reached(), has_all);
        let all = self.place.clone().map(|written| (RULE, written));
        self.node(node).ledger.handle_all(all.into_iter().collect());
        self.think(node);
    }

    /// `is_written` says of a write under way whether it got there.
    fn lose(&mut self, node: &str, is_written: bool) {
        self.node(node).ledger.handle_lost();
        self.serve(node, is_written, false);
        self.think(node);
    }

    /// Wants the rule, or does not any more.
    fn want(&mut self, node: &str, is_wanted: bool) {
        self.node(node).is_wanted = is_wanted;
        self.think(node);
    }

    /// The store carries the node's write out, if there is one, and the answer comes or not.
    fn serve(&mut self, node: &str, is_written: bool, is_answered: bool) {
        let Some((record, revision)) = self.node(node).sent.take() else {
            return;
        };
        let outcome = match is_written {
            true => self.carry_out(record, revision),
            false => Outcome::Failed,
        };
        let outcome = match is_answered {
            true => outcome,
            false => Outcome::Failed,
        };
        let now = self.now;
        self.node(node).ledger.handle_outcome(RULE, outcome, now);
        self.think(node);
    }

    fn carry_out(&mut self, record: Record, revision: i64) -> Outcome {
        let before = self.place.as_ref().map_or(0, |written| written.revision);
        if before != revision {
            return Outcome::Conflict(self.place.clone());
        }
        self.revision += 1;
        let revision = self.revision;
        let record = Some(record);
        let written = Written { record, revision };
        self.place = Some(written.clone());
        // Whoever watches hears it, the writer as well and before the answer.
        for node in self.names() {
            if self.node(&node).ledger.is_reached() {
                let written = written.clone();
                self.node(&node).ledger.handle_written(RULE, written);
                self.think(&node);
            }
        }
        Outcome::Done(revision)
    }

    /// Lets time pass, and everybody look at the clock.
    fn wait(&mut self, time: Duration) {
        self.now += time;
        let now = self.now;
        for node in self.names() {
            self.node(&node).ledger.handle_timeout(now);
            self.think(&node);
        }
    }

    /// What the owner does after each call.
    fn think(&mut self, who: &str) {
        let now = self.now;
        let node = self.node(who);
        for round in 0.. {
            assert!(round < 100, "it never ends");
            let mut is_busy = false;
            while let Some(output) = node.table.poll_output() {
                is_busy = true;
                match output {
                    ClaimOutput::Holder { rule, holder } if holder.node == name(who) => {
                        node.ledger.note(rule, holder.term, holder.is_released);
                    }
                    ClaimOutput::StepDown { .. } => {
                        node.steps_down += 1;
                        // The decision: it is somebody else's.
                        node.is_wanted = false;
                    }
                    _ => {}
                }
            }
            while let Some(output) = node.ledger.poll_output() {
                is_busy = true;
                match output {
                    LedgerOutput::Write {
                        rule,
                        record,
                        revision,
                    } => {
                        assert_eq!((rule, &node.sent), (RULE, &None), "one at a time");
                        node.sent = Some((record, revision));
                    }
                    LedgerOutput::Learned { rule, record } => {
                        let term = record.term;
                        let claim = Claim { rule, term };
                        let released = record.is_released;
                        node.table.handle_record(claim, &record.holder, released);
                    }
                    LedgerOutput::Decide => {}
                }
            }
            // The decision: what somebody holds is not taken from it.
            let best = node.table.holder(RULE);
            let is_free = best.is_none_or(|best| best.is_released || best.node == name(who));
            if !node.is_wanted && node.table.holds(RULE) {
                node.table.release(RULE);
                is_busy = true;
            } else if node.is_wanted && is_free && !node.table.holds(RULE) {
                let term = node.table.next_term(RULE).unwrap();
                if node.ledger.ask(RULE, term, now) == Leave::Given {
                    assert_eq!(node.table.claim(RULE), Ok(term));
                    is_busy = true;
                }
            }
            if !is_busy && node.ledger.due.is_empty() {
                return;
            }
            if !is_busy && (!node.ledger.is_reached || node.ledger.again.is_some()) {
                return;
            }
        }
    }

    fn names(&self) -> Vec<String> {
        self.nodes.keys().map(|n| n.as_str().to_owned()).collect()
    }

    fn holders(&self) -> Vec<&str> {
        let holds = |(_, node): &(&NodeName, &Node)| node.table.holds(RULE);
        let holding = self.nodes.iter().filter(holds);
        holding.map(|(name, _)| name.as_str()).collect()
    }

    fn record(&self) -> String {
        let record = self.place.as_ref().and_then(|w| w.record.as_ref());
        record.map_or("none".to_owned(), ToString::to_string)
    }

    /// Everybody reaches the store, and everything is carried out.
    fn settle(&mut self) {
        for node in self.names() {
            self.reach(&node);
        }
        for _ in 0..20 {
            for node in self.names() {
                self.serve(&node, true, true);
            }
            self.wait(AGAIN);
        }
    }
}

#[test]
fn records_are_read_as_they_are_written() {
    for text in ["7 gw1", "18446744073709551615 gw-2.example released"] {
        let record = Record::read(text.as_bytes()).unwrap();
        assert_eq!(record.to_string(), text);
    }
    let later = Record::read(b"7 gw1 released since yesterday").unwrap();
    assert_eq!(later.to_string(), "7 gw1 released");
    for text in [
        &b""[..],
        b"7",
        b"gw1 7",
        b"-1 gw1",
        b"\xff gw1",
        b"7 gw\x01",
    ] {
        assert_eq!(Record::read(text), None);
    }
}

#[test]
fn leave_comes_before_the_claim() {
    let mut world = World::reached(&["a", "b"]);
    world.want("a", true);
    assert!(world.holders().is_empty());
    world.serve("a", true, true);
    assert_eq!(world.holders(), ["a"]);
    assert_eq!(world.record(), "1 a");
    let known = world.node("b").table.holder(RULE).unwrap();
    assert_eq!((known.node.as_str(), known.term), ("a", 1));
    world.want("a", false);
    world.serve("a", true, true);
    assert_eq!(world.record(), "1 a released");
}

#[test]
fn of_two_who_ask_at_once_the_second_never_holds() {
    let mut world = World::reached(&["a", "b"]);
    world.want("a", true);
    world.want("b", true);
    // Not the one of the lower name, which would win if both had claimed.
    world.serve("b", true, true);
    world.serve("a", true, true);
    world.settle();
    assert_eq!(world.holders(), ["b"]);
    assert_eq!(world.record(), "1 b");
    assert_eq!(world.node("a").steps_down + world.node("b").steps_down, 0);
}

#[test]
fn a_slow_store_is_not_waited_for() {
    let mut world = World::reached(&["a", "b"]);
    world.want("a", true);
    world.wait(PATIENCE - Duration::from_millis(1));
    assert!(world.holders().is_empty());
    world.wait(Duration::from_millis(1));
    assert_eq!(world.holders(), ["a"]);
    world.serve("a", true, true);
    assert_eq!(world.record(), "1 a");
    let now = world.now;
    world.node("b").ledger.handle_timeout(now);
    // One that is not reached, not at all.
    world.lose("b", false);
    world.want("a", false);
    world.want("b", true);
    let elsewhere = world.node("b").table.claim(RULE).unwrap();
    world.think("b");
    assert_eq!((world.holders(), elsewhere), (vec!["b"], 2));
    world.reach("b");
    assert_eq!(world.node("b").ledger.unwritten(), 1);
    world.serve("b", true, true);
    assert_eq!(world.record(), "2 b");
}

#[test]
fn holders_of_two_halves_end_with_the_store() {
    let mut world = World::new(&["a", "b"]);
    for node in ["a", "b"] {
        world.want(node, true);
    }
    assert_eq!(world.holders(), ["a", "b"]);
    world.reach("b");
    world.serve("b", true, true);
    assert_eq!(world.record(), "1 b");
    world.reach("a");
    assert_eq!(world.holders(), ["a", "b"]);
    world.serve("a", true, true);
    assert_eq!((world.record(), world.holders()), ("1 a".into(), vec!["a"]));
    assert_eq!(world.node("b").steps_down, 1);
}

#[test]
fn leave_nobody_uses_is_given_back() {
    let mut world = World::reached(&["a", "b"]);
    world.want("a", true);
    world.node("a").is_wanted = false;
    world.serve("a", true, true);
    assert_eq!((world.record(), world.holders()), ("1 a".into(), vec![]));
    world.wait(PATIENCE + UNUSED);
    world.serve("a", true, true);
    assert_eq!(world.record(), "1 a released");
    assert!(world.node("b").table.holder(RULE).unwrap().is_released);
    world.want("b", true);
    world.settle();
    assert_eq!(world.record(), "2 b");
}

#[test]
fn who_starts_anew_learns_its_terms() {
    let mut world = World::reached(&["a", "b"]);
    world.want("a", true);
    world.settle();
    let node = world.node("a");
    node.table = ClaimTable::new(name("a"));
    node.ledger = Ledger::new(name("a"));
    world.reach("a");
    world.settle();
    assert_eq!((world.record(), world.holders()), ("2 a".into(), vec!["a"]));
}

#[test]
fn what_is_no_record_or_is_deleted_is_written_over() {
    let mut world = World::reached(&["a"]);
    world.revision = 5;
    let (record, revision) = (None, 5);
    world.place = Some(Written { record, revision });
    world.reach("a");
    world.want("a", true);
    world.settle();
    assert_eq!(world.record(), "1 a");
    world.place = None;
    world.node("a").ledger.handle_deleted(RULE);
    world.think("a");
    world.settle();
    assert_eq!((world.record(), world.holders()), ("1 a".into(), vec!["a"]));
}

#[derive(Clone, Debug)]
enum Step {
    Want(usize, bool),
    Serve(usize, bool, bool),
    Reach(usize),
    Lose(usize, bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..3_usize;
    prop_oneof![
        (node.clone(), any::<bool>()).prop_map(|(n, is)| Step::Want(n, is)),
        (node.clone(), any::<bool>(), any::<bool>()).prop_map(|(n, w, a)| Step::Serve(n, w, a)),
        node.clone().prop_map(Step::Reach),
        (node, any::<bool>()).prop_map(|(n, w)| Step::Lose(n, w)),
        (0..1500_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_one_holder_is_left_and_written(
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        const NAMES: [&str; 3] = ["a", "b", "c"];
        let mut world = World::new(&NAMES);
        for step in steps {
            match step {
                Step::Want(node, is_wanted) => world.want(NAMES[node], is_wanted),
                Step::Serve(node, is_written, is_answered) => {
                    world.serve(NAMES[node], is_written, is_answered);
                }
                Step::Reach(node) => world.reach(NAMES[node]),
                Step::Lose(node, is_written) => world.lose(NAMES[node], is_written),
                Step::Wait(ms) => world.wait(Duration::from_millis(ms)),
            }
        }
        world.settle();
        let holders = world.holders();
        prop_assert!(holders.len() <= 1, "{:?}", holders);
        let wanting = world.nodes.values().filter(|node| node.is_wanted).count();
        prop_assert_eq!(holders.is_empty(), wanting == 0);
        let record = world.place.as_ref().and_then(|written| written.record.clone());
        let written = record.filter(|record| !record.is_released);
        let written = written.as_ref().map(|record| record.holder.as_str());
        prop_assert_eq!(written, holders.first().copied());
        for node in world.nodes.values() {
            prop_assert_eq!(node.ledger.unwritten(), 0);
            let best = node.table.holder(RULE).filter(|best| !best.is_released);
            prop_assert_eq!(best.map(|best| best.node.as_str()), holders.first().copied());
        }
    }
}
