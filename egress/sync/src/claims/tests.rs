// SPDX-License-Identifier: Apache-2.0

use super::*;

fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn rule(number: u32) -> Rule {
    Rule::new(number).unwrap()
}

/// Nodes whose messages arrive when the test says so.
struct Cluster {
    now: Instant,
    nodes: BTreeMap<NodeName, ClaimTable>,
    links: BTreeSet<(NodeName, NodeName)>,
    /// What was not about sending.
    events: Vec<(NodeName, ClaimOutput)>,
}

impl Cluster {
    fn new(names: &[&str]) -> Cluster {
        Cluster {
            now: Instant::now(),
            nodes: names
                .iter()
                .map(|node| (name(node), ClaimTable::new(name(node))))
                .collect(),
            links: BTreeSet::new(),
            events: Vec::new(),
        }
    }

    fn linked(names: &[&str]) -> Cluster {
        let mut cluster = Cluster::new(names);
        for (i, a) in names.iter().enumerate() {
            for b in &names[i + 1..] {
                cluster.link(a, b);
            }
        }
        cluster
    }

    fn node(&mut self, node: &str) -> &mut ClaimTable {
        self.nodes.get_mut(&name(node)).unwrap()
    }

    fn link(&mut self, a: &str, b: &str) {
        self.links.insert((name(a), name(b)));
        self.links.insert((name(b), name(a)));
        self.node(a).handle_link_up(&name(b));
        self.node(b).handle_link_up(&name(a));
        self.settle();
    }

    fn cut(&mut self, a: &str, b: &str) {
        self.links.remove(&(name(a), name(b)));
        self.links.remove(&(name(b), name(a)));
        self.node(a).handle_link_down(&name(b));
        self.node(b).handle_link_down(&name(a));
    }

    /// The node starts again and knows nothing.
    fn restart(&mut self, node: &str) {
        let others: Vec<NodeName> = self.nodes.keys().cloned().collect();
        for other in others.iter().filter(|other| **other != name(node)) {
            self.cut(node, other.as_str());
        }
        *self.node(node) = ClaimTable::new(name(node));
    }

    fn claim(&mut self, node: &str, number: u32) -> u64 {
        let term = self.node(node).claim(rule(number)).unwrap();
        self.settle();
        term
    }

    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 1000, "nodes talk forever");
            let mut is_quiet = true;
            let names: Vec<NodeName> = self.nodes.keys().cloned().collect();
            for from in names {
                while let Some(output) = self.nodes.get_mut(&from).unwrap().poll_output() {
                    let ClaimOutput::Send { to, message } = output else {
                        self.events.push((from.clone(), output));
                        continue;
                    };
                    is_quiet = false;
                    assert!(self.links.contains(&(from.clone(), to.clone())));
                    assert!(
                        self.nodes
                            .get_mut(&to)
                            .unwrap()
                            .handle_message(&from, &message)
                    );
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    /// Every node's view of a rule: holder, term, whether released.
    #[track_caller]
    fn all_see(&self, number: u32, node: &str, term: u64, is_released: bool) {
        for (at, table) in &self.nodes {
            assert_eq!(
                table.holder(rule(number)),
                Some(&Holder {
                    node: name(node),
                    term,
                    is_released
                }),
                "at {at}"
            );
            let holds = at.as_str() == node && !is_released;
            assert_eq!(table.holds(rule(number)), holds, "at {at}");
        }
    }

    fn steps_down(&self) -> Vec<(&str, &str, u64)> {
        self.events
            .iter()
            .filter_map(|(at, event)| match event {
                ClaimOutput::StepDown { to, term, .. } => Some((at.as_str(), to.as_str(), *term)),
                _ => None,
            })
            .collect()
    }

    fn hand_over_ends(&self) -> Vec<HandOverEnd> {
        self.events
            .iter()
            .filter_map(|(_, event)| match event {
                ClaimOutput::HandOverEnded { end, .. } => Some(*end),
                _ => None,
            })
            .collect()
    }

    fn hand_over(&mut self, from: &str, to: &str) -> Result<(), HandOverError> {
        let synchronised = Synchronised {
            rule: rule(1),
            standby: name(to),
        };
        let now = self.now;
        self.node(from).hand_over(synchronised, now)
    }
}

#[test]
fn a_claim_is_known_everywhere_and_the_next_is_higher() {
    let mut cluster = Cluster::linked(&["a", "b", "c"]);
    assert_eq!(cluster.claim("b", 1), 1);
    cluster.all_see(1, "b", 1, false);
    assert_eq!(cluster.claim("b", 1), 1, "held already");
    assert_eq!(cluster.claim("c", 1), 2);
    cluster.all_see(1, "c", 2, false);
    assert_eq!(cluster.steps_down(), [("b", "c", 2)]);
    cluster.node("c").release(rule(1));
    cluster.settle();
    cluster.all_see(1, "c", 2, true);
    assert_eq!(cluster.claim("c", 1), 3, "a term is never used again");
}

#[test]
fn a_lost_holder_stays_known_until_another_claims() {
    let mut cluster = Cluster::linked(&["a", "b", "c"]);
    cluster.claim("a", 1);
    cluster.cut("a", "b");
    cluster.cut("a", "c");
    cluster.all_see(1, "a", 1, false);
    cluster.claim("b", 1);
    assert!(cluster.node("a").holds(rule(1)), "it cannot know");
    cluster.link("a", "c");
    cluster.all_see(1, "b", 2, false);
    assert_eq!(
        cluster.steps_down(),
        [("a", "b", 2)],
        "by hearsay, without a link to b"
    );
}

#[test]
fn who_steps_down_says_for_whom() {
    let mut cluster = Cluster::new(&["a", "c", "d"]);
    cluster.link("a", "c");
    cluster.link("a", "d");
    cluster.claim("a", 1);
    cluster.claim("c", 1);
    // d has no link to c.
    cluster.all_see(1, "c", 2, false);
}

#[test]
fn two_claims_of_one_term_have_one_winner() {
    let mut cluster = Cluster::linked(&["a", "b", "c"]);
    cluster.node("b").claim(rule(1)).unwrap();
    cluster.node("a").claim(rule(1)).unwrap();
    cluster.settle();
    cluster.all_see(1, "a", 1, false);
    assert_eq!(cluster.steps_down(), [("b", "a", 1)]);
}

#[test]
fn two_halves_have_two_holders_until_one_link_joins_them() {
    let mut cluster = Cluster::new(&["a", "b", "c", "d"]);
    cluster.link("a", "b");
    cluster.link("c", "d");
    cluster.claim("b", 1);
    cluster.claim("c", 1);
    assert!(cluster.node("b").holds(rule(1)) && cluster.node("c").holds(rule(1)));
    // Of the two links that could join them, the one between nodes that do not hold it.
    cluster.link("a", "d");
    assert_eq!(cluster.steps_down(), [("c", "b", 1)]);
    cluster.all_see(1, "b", 1, false);
}

#[test]
fn what_a_list_does_not_name_is_let_go() {
    let mut cluster = Cluster::linked(&["a", "b"]);
    cluster.claim("a", 1);
    cluster.claim("a", 2);
    cluster.restart("a");
    cluster.link("a", "b");
    let b = cluster.node("b");
    assert!(b.holder(rule(1)).unwrap().is_released);
    assert!(b.holder(rule(2)).unwrap().is_released);
    // It claims as if nobody ever had; b remembers.
    cluster.claim("a", 1);
    cluster.all_see(1, "a", 2, false);
}

#[test]
fn a_list_counts_when_it_is_complete() {
    let mut table = ClaimTable::new(name("a"));
    table.handle_link_up(&name("b"));
    let claim = |number| Claim {
        rule: rule(number),
        term: 1,
    };
    let list = |is_first, is_last, numbers: &[u32]| Message::ClaimList {
        is_first,
        is_last,
        claims: numbers.iter().map(|number| claim(*number)).collect(),
    };
    let released = |table: &ClaimTable| -> Vec<Rule> {
        let all = table.holders().filter(|(_, best)| best.is_released);
        all.map(|(rule, _)| rule).collect()
    };
    table.handle_message(&name("b"), &list(true, true, &[1, 2, 3]));
    assert_eq!(released(&table), []);
    // A list that is cut off says nothing about what it does not name.
    table.handle_message(&name("b"), &list(true, false, &[1]));
    table.handle_link_up(&name("b"));
    table.handle_message(&name("b"), &list(true, false, &[2]));
    assert_eq!(released(&table), []);
    table.handle_message(&name("b"), &list(false, true, &[3]));
    assert_eq!(released(&table), [rule(1)]);
}

#[test]
fn a_list_may_take_several_messages() {
    let mut cluster = Cluster::new(&["a", "b"]);
    let many = MAX_CLAIMS as u32 * 2 + 1;
    for number in 0..many {
        cluster.node("a").claim(rule(number)).unwrap();
    }
    cluster.settle();
    cluster.link("a", "b");
    for number in [0, many - 1] {
        cluster.all_see(number, "a", 1, false);
    }
    for number in 0..many {
        cluster.node("a").release(rule(number));
    }
    cluster.settle();
    for number in [0, many - 1] {
        cluster.all_see(number, "a", 1, true);
    }
}

#[test]
fn a_better_claim_that_was_let_go_takes_nothing_away() {
    let mut cluster = Cluster::new(&["a", "b", "c"]);
    cluster.link("b", "c");
    cluster.claim("b", 1);
    cluster.claim("c", 1);
    cluster.node("c").release(rule(1));
    cluster.settle();
    cluster.claim("a", 1);
    cluster.link("a", "b");
    cluster.link("a", "c");
    cluster.all_see(1, "a", 3, false);
    assert_eq!(cluster.steps_down(), [("b", "c", 2)], "a never did");
}

#[test]
fn hearsay_about_a_node_that_is_there_is_put_to_it() {
    let mut cluster = Cluster::linked(&["a", "b", "c"]);
    cluster.claim("a", 1);
    cluster.claim("c", 1);
    // All but a begin anew; a has not heard that c did.
    cluster.restart("b");
    cluster.restart("c");
    cluster.link("b", "c");
    cluster.claim("b", 1);
    cluster.link("a", "b");
    assert_eq!(cluster.steps_down(), [("a", "c", 2), ("b", "c", 2)]);
    // c was asked, and does not hold it.
    assert!(cluster.node("b").holder(rule(1)).unwrap().is_released);
    cluster.link("a", "c");
    cluster.all_see(1, "c", 2, true);
    assert_eq!(cluster.claim("b", 1), 3);
}

#[test]
fn a_planned_hand_over_has_no_gap() {
    let mut cluster = Cluster::linked(&["a", "b", "c"]);
    cluster.claim("a", 1);
    assert_eq!(
        cluster.hand_over("b", "a"),
        Err(HandOverError::NotHeld(rule(1)))
    );
    cluster.hand_over("a", "b").unwrap();
    assert_eq!(
        cluster.hand_over("a", "b"),
        Err(HandOverError::UnderWay(rule(1)))
    );
    cluster.settle();
    assert!(cluster.node("a").holds(rule(1)), "until b does");
    let asked = ClaimOutput::HandOverRequested {
        rule: rule(1),
        from: name("a"),
    };
    assert!(cluster.events.contains(&(name("b"), asked)));
    assert_eq!(cluster.node("b").claim(rule(1)), Ok(2));
    assert!(cluster.node("a").holds(rule(1)), "both, for a moment");
    cluster.settle();
    cluster.all_see(1, "b", 2, false);
    assert_eq!(cluster.steps_down(), [("a", "b", 2)]);
    assert_eq!(cluster.hand_over_ends(), [HandOverEnd::Done]);
    assert_eq!(cluster.node("a").poll_timeout(), None);
}

#[test]
fn a_hand_over_that_is_not_taken_leaves_the_holder_as_it_was() {
    let mut cluster = Cluster::linked(&["a", "b", "c"]);
    cluster.claim("a", 1);
    cluster.hand_over("a", "b").unwrap();
    cluster.settle();
    cluster.node("b").refuse(rule(1), &name("a"));
    cluster.settle();
    assert_eq!(cluster.hand_over_ends(), [HandOverEnd::Refused]);

    cluster.hand_over("a", "b").unwrap();
    cluster.settle();
    let late = cluster.now + HAND_OVER_TIMEOUT;
    assert_eq!(cluster.node("a").poll_timeout(), Some((late, "hand_over")));
    cluster
        .node("a")
        .handle_timeout(late - Duration::from_millis(1));
    cluster.settle();
    assert_eq!(cluster.hand_over_ends().len(), 1);
    cluster.node("a").handle_timeout(late);
    cluster.settle();
    assert_eq!(cluster.hand_over_ends()[1..], [HandOverEnd::TimedOut]);
    cluster.all_see(1, "a", 1, false);

    cluster.hand_over("a", "b").unwrap();
    cluster.cut("a", "b");
    cluster.settle();
    assert_eq!(cluster.hand_over_ends()[2..], [HandOverEnd::LinkLost]);
    assert_eq!(
        cluster.hand_over("a", "b"),
        Err(HandOverError::NotLinked(rule(1)))
    );
    cluster.all_see(1, "a", 1, false);

    cluster.hand_over("a", "c").unwrap();
    cluster.node("a").release(rule(1));
    cluster.settle();
    assert_eq!(cluster.hand_over_ends()[3..], [HandOverEnd::Overtaken]);
}

#[test]
fn a_hand_over_answered_too_late_still_leaves_one_holder() {
    let mut cluster = Cluster::linked(&["a", "b"]);
    cluster.claim("a", 1);
    cluster.hand_over("a", "b").unwrap();
    cluster.settle();
    let late = cluster.now + HAND_OVER_TIMEOUT;
    cluster.node("a").handle_timeout(late);
    cluster.claim("b", 1);
    cluster.all_see(1, "b", 2, false);
    assert_eq!(cluster.hand_over_ends(), [HandOverEnd::TimedOut]);
}

#[test]
fn a_hand_over_of_what_is_another_nodes_is_refused() {
    let mut cluster = Cluster::linked(&["a", "b"]);
    cluster.claim("a", 1);
    let old = Claim {
        rule: rule(1),
        term: 7,
    };
    cluster
        .node("b")
        .handle_message(&name("a"), &Message::HandOver(old));
    let output = cluster.node("b").poll_output();
    let message = Message::HandOverRefused(old);
    let to = name("a");
    assert_eq!(output, Some(ClaimOutput::Send { to, message }));
}

#[test]
fn the_last_term_is_not_the_end_of_the_world() {
    let mut cluster = Cluster::linked(&["a", "b", "c"]);
    let last = Claim {
        rule: rule(1),
        term: u64::MAX,
    };
    for node in ["a", "c"] {
        cluster
            .node(node)
            .handle_message(&name("b"), &Message::Claimed(vec![last]));
    }
    assert_eq!(
        cluster.node("a").claim(rule(1)),
        Err(TermsExhausted(u64::MAX))
    );
    cluster.settle();
}

#[test]
fn who_is_not_linked_is_not_heard_and_replication_is_not_ours() {
    let mut table = ClaimTable::new(name("a"));
    let claimed = Message::Claimed(vec![Claim {
        rule: rule(1),
        term: 1,
    }]);
    assert!(table.handle_message(&name("b"), &claimed));
    assert_eq!(table.holder(rule(1)), None);
    let ack = Message::Ack {
        epoch: 1,
        sequence: 1,
    };
    assert!(!table.handle_message(&name("b"), &ack));
}
