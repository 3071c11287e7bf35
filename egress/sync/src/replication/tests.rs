// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::mapping::{Change, Endpoint, Key, Mapping};
use crate::name::{NodeName, Rule};
use crate::wire::{Batch, MAX_RECORDS, Message, Record};

fn rule(number: u32) -> Rule {
    Rule::new(number).unwrap()
}

fn key(number: u32) -> Key {
    let pod = Endpoint::new(number.to_be_bytes().into(), 1000);
    Key::new(6, pod, Endpoint::new([192, 0, 2, 1].into(), 443)).unwrap()
}

/// The mapping of a key of rule 1 in its nth version.
fn mapping(number: u32, version: u16) -> Mapping {
    mapping_of(1, number, version)
}

fn mapping_of(of: u32, number: u32, version: u16) -> Mapping {
    let egress = Endpoint::new([198, 51, 100, 1].into(), version);
    Mapping::new(rule(of), key(number), egress, [10, 0, 0, 1].into()).unwrap()
}

fn remove(number: u32) -> Change {
    Change::Remove {
        rule: rule(1),
        key: key(number),
    }
}

fn set(number: u32, version: u16) -> Change {
    Change::Set(mapping(number, version))
}

type Table = BTreeMap<(Rule, Key), Mapping>;

/// A holder, a standby, and the stream between them.
struct Link {
    sender: Sender,
    receiver: Receiver,
    /// What the holder has.
    truth: Table,
    /// What the standby has.
    copies: Table,
    there: VecDeque<Message>,
    back: VecDeque<Message>,
    /// Where the snapshot under way has got to.
    cursor: Option<(u64, Option<(Rule, Key)>)>,
    synchronised: Vec<Rule>,
    ended: Vec<Rule>,
}

impl Link {
    fn new(limits: Limits) -> Link {
        let mut link = Link {
            sender: Sender::new(NodeName::new("b").unwrap(), limits),
            receiver: Receiver::new(),
            truth: Table::new(),
            copies: Table::new(),
            there: VecDeque::new(),
            back: VecDeque::new(),
            cursor: None,
            synchronised: Vec::new(),
            ended: Vec::new(),
        };
        link.sender.handle_held(&BTreeSet::from([rule(1)]));
        link.rules(&[1], Dropped::Keep);
        link
    }

    fn up() -> Link {
        let mut link = Link::new(Limits::default());
        link.receiver.handle_link_up();
        link
    }

    fn rules(&mut self, rules: &[u32], dropped: Dropped) {
        let rules = rules.iter().map(|number| rule(*number)).collect();
        self.receiver.handle_rules(&rules, dropped).unwrap();
    }

    fn cut(&mut self) {
        self.there.clear();
        self.back.clear();
        self.sender.handle_link_down();
        self.receiver.handle_link_down();
    }

    fn change(&mut self, change: Change) {
        let place = (change.rule(), *change.key());
        match change {
            Change::Set(mapping) => self.truth.insert(place, mapping),
            Change::Remove { .. } => self.truth.remove(&place),
        };
        self.sender.handle_change(&change);
    }

    /// What is asked for, of this moment.
    fn read(&mut self, max: usize) -> Option<(Page, Vec<Mapping>, Rest)> {
        let page = self.sender.poll_page()?;
        let after = match self.cursor {
            Some((snapshot, after)) if snapshot == page.snapshot => after,
            _ => None,
        };
        let all = self.truth.iter().filter(|(place, _)| {
            page.rules.contains(&place.0) && after.is_none_or(|after| **place > after)
        });
        let mappings: Vec<Mapping> = all
            .map(|(_, mapping)| *mapping)
            .take(max.min(page.max_records))
            .collect();
        let rest = if mappings.len() < max.min(page.max_records) {
            Rest::End
        } else {
            Rest::More
        };
        Some((page, mappings, rest))
    }

    fn hand_in(&mut self, read: (Page, Vec<Mapping>, Rest)) -> Result<(), PageError> {
        let (page, mappings, rest) = read;
        let result = self.sender.next_batch(&page, &mappings, rest);
        if result.is_ok()
            && let Some(last) = mappings.last()
        {
            self.cursor = Some((page.snapshot, Some((last.rule, *last.key()))));
        }
        result
    }

    fn send(&mut self) {
        while let Some(output) = self.sender.poll_output() {
            match output {
                SenderOutput::Send(message) => self.there.push_back(message),
                SenderOutput::NeedSnapshot { snapshot } => self.cursor = Some((snapshot, None)),
                SenderOutput::Synchronised(rule) => self.synchronised.push(rule),
            }
        }
    }

    /// One message that way, if there is one.
    fn deliver_there(&mut self) {
        if let Some(Message::Batch(batch)) = self.there.pop_front() {
            self.receiver.handle_batch(batch);
        }
        self.apply();
    }

    fn apply(&mut self) {
        while let Some(output) = self.receiver.poll_output() {
            match output {
                ReceiverOutput::Send(message) => self.back.push_back(message),
                ReceiverOutput::Apply(Apply::Set(mapping)) => {
                    self.copies.insert((mapping.rule, *mapping.key()), mapping);
                }
                ReceiverOutput::Apply(Apply::Remove { rule, key }) => {
                    self.copies.remove(&(rule, key)).expect("removed once");
                }
                ReceiverOutput::Synchronised(_) => {}
                ReceiverOutput::Ended(rule) => self.ended.push(rule),
            }
        }
    }

    fn deliver_back(&mut self) {
        match self.back.pop_front() {
            Some(Message::Subscribe {
                epoch,
                is_restart,
                rules,
            }) => self.sender.handle_subscribe(epoch, is_restart, &rules),
            Some(Message::Ack { epoch, sequence }) => self.sender.handle_ack(epoch, sequence),
            Some(other) => panic!("{other:?} from a receiver"),
            None => {}
        }
    }

    /// Until nothing moves.
    fn settle(&mut self) {
        self.settle_with(MAX_RECORDS);
    }

    fn settle_with(&mut self, page: usize) {
        loop {
            self.apply();
            self.send();
            while let Some(read) = self.read(page) {
                self.hand_in(read).unwrap();
                self.send();
            }
            if self.there.is_empty() && self.back.is_empty() {
                return;
            }
            while !self.there.is_empty() {
                self.deliver_there();
            }
            while !self.back.is_empty() {
                self.deliver_back();
            }
        }
    }
}

#[test]
fn a_standby_gets_all_mappings_and_every_change() {
    let mut link = Link::up();
    for i in 0..2000 {
        link.change(set(i, 1));
    }
    assert!(link.sender.synchronised(rule(1)).is_none());
    link.settle();
    assert_eq!(link.copies, link.truth);
    assert_eq!(link.copies.len(), 2000);
    assert!(link.receiver.is_synchronised(rule(1)));
    assert_eq!(link.synchronised, [rule(1)]);
    assert!(link.sender.synchronised(rule(1)).is_some());
    link.change(set(7, 2));
    link.change(remove(8));
    link.change(set(5000, 1));
    assert!(
        link.sender.synchronised(rule(1)).is_none(),
        "a change waits to be sent"
    );
    link.settle();
    assert_eq!(link.copies, link.truth);
    assert_eq!(link.sender.counters().snapshots, 1);
    assert_eq!(link.receiver.counters().swept, 0);
}

#[test]
fn after_a_loss_of_the_link_what_is_gone_meanwhile_is_removed() {
    let mut link = Link::up();
    for i in 0..100 {
        link.change(set(i, 1));
    }
    link.settle();
    link.cut();
    assert!(!link.receiver.is_synchronised(rule(1)));
    for i in 0..50 {
        link.change(remove(i));
    }
    link.change(set(60, 2));
    link.settle();
    assert_eq!(link.copies.len(), 100, "nothing is lost with the link");
    link.receiver.handle_link_up();
    link.settle();
    assert_eq!(link.copies, link.truth);
    assert_eq!(link.receiver.counters().swept, 50);
}

#[test]
fn a_page_that_was_read_before_a_removal_does_not_bring_it_back() {
    let mut link = Link::up();
    for i in 0..10 {
        link.change(set(i, 1));
    }
    link.apply();
    link.deliver_back();
    link.send();
    let read = link.read(100).unwrap();
    assert_eq!(read.1.len(), 10);
    // The page lies around; meanwhile:
    link.change(remove(3));
    link.change(set(4, 2));
    link.change(remove(5));
    link.change(set(5, 3));
    link.send();
    link.hand_in(read).unwrap();
    assert_eq!(link.sender.counters().superseded, 3);
    link.settle();
    assert_eq!(link.copies, link.truth);
    assert_eq!(link.copies.len(), 9);
}

#[test]
fn a_mapping_that_changes_during_the_snapshot_is_never_missing() {
    let mut link = Link::up();
    link.change(set(1, 1));
    link.settle();
    link.cut();
    link.receiver.handle_link_up();
    link.apply();
    link.deliver_back();
    link.send();
    let read = link.read(100).unwrap();
    link.change(set(1, 2));
    link.hand_in(read).unwrap();
    // The record is left out, the change is in front of the end.
    while !link.there.is_empty() || link.sender.queued() > 0 {
        link.send();
        link.deliver_there();
        assert!(link.copies.contains_key(&(rule(1), key(1))));
    }
    assert_eq!(link.copies, link.truth);
}

#[test]
fn pages_of_another_snapshot_or_too_old_are_refused() {
    let mut link = Link::new(Limits::new(2, 512).unwrap());
    link.receiver.handle_link_up();
    link.change(set(1, 1));
    link.apply();
    link.deliver_back();
    link.send();
    let (page, mappings, rest) = link.read(100).unwrap();
    assert_eq!(
        link.sender.next_batch(&page, &[mapping_of(2, 1, 1)], rest),
        Err(PageError::WrongRule(rule(2)))
    );
    assert_eq!(
        link.sender.next_batch(&page, &vec![mappings[0]; 513], rest),
        Err(PageError::TooMany(513))
    );
    // More changes than the sender remembers keys of; the queue is emptied in between.
    for i in 0..600 {
        link.change(set(i % 7, 9));
        link.send();
        while !link.there.is_empty() {
            link.deliver_there();
        }
        while !link.back.is_empty() {
            link.deliver_back();
        }
    }
    assert_eq!(link.sender.counters().overflows, 0);
    assert_eq!(
        link.sender.next_batch(&page, &mappings, rest),
        Err(PageError::Stale)
    );
    link.cut();
    link.receiver.handle_link_up();
    link.apply();
    link.deliver_back();
    link.send();
    assert_eq!(
        link.sender.next_batch(&page, &mappings, rest),
        Err(PageError::Void)
    );
    link.settle();
    assert_eq!(link.copies, link.truth);
}

#[test]
fn changes_that_come_too_fast_end_in_a_new_snapshot() {
    let mut link = Link::new(Limits::new(2, 512).unwrap());
    link.receiver.handle_link_up();
    link.settle();
    for i in 0..5000 {
        link.change(set(i, 1));
        if i > 100 {
            link.change(remove(i - 100));
        }
        link.send();
        assert!(link.sender.queued() <= 512 + 2);
        assert!(link.sender.in_flight() <= 2);
    }
    assert!(link.sender.counters().overflows > 0);
    link.settle();
    assert_eq!(link.copies, link.truth);
    assert!(link.receiver.is_synchronised(rule(1)));
}

#[test]
fn a_snapshot_and_changes_share_the_window() {
    let mut link = Link::new(Limits::new(8, 65_536).unwrap());
    for i in 0..10_000 {
        link.change(set(i, 1));
    }
    link.receiver.handle_link_up();
    link.apply();
    link.deliver_back();
    link.send();
    for i in 0..10_000 {
        link.change(set(i, 2));
    }
    link.send();
    assert_eq!(link.sender.in_flight(), 4, "half is left to the snapshot");
    while let Some(read) = link.read(MAX_RECORDS) {
        link.hand_in(read).unwrap();
    }
    link.send();
    assert_eq!(link.sender.in_flight(), 8);
    link.settle();
    assert_eq!(link.copies, link.truth);
}

#[test]
fn a_rule_nobody_holds_removes_nothing() {
    let mut link = Link::up();
    for i in 0..10 {
        link.change(set(i, 1));
    }
    link.settle();
    link.cut();
    // The holder is back without its mappings, and does not hold the rule.
    link.truth.clear();
    link.sender.handle_held(&BTreeSet::new());
    link.receiver.handle_link_up();
    link.settle();
    assert_eq!(link.copies.len(), 10);
    assert_eq!(link.ended, [rule(1)]);
    assert!(!link.receiver.is_synchronised(rule(1)));
    assert!(link.sender.synchronised(rule(1)).is_none());
    // It takes the rule up again.
    link.sender.handle_held(&BTreeSet::from([rule(1)]));
    link.change(set(3, 2));
    link.settle();
    assert_eq!(link.copies, link.truth);
    assert_eq!(link.copies.len(), 1);
}

#[test]
fn what_was_told_before_a_rule_is_given_up_arrives_and_what_is_told_after_does_not() {
    let mut link = Link::up();
    link.change(set(1, 1));
    link.settle();
    link.change(set(2, 1));
    link.sender.handle_held(&BTreeSet::new());
    link.change(remove(1));
    link.change(remove(2));
    link.settle();
    assert_eq!(link.copies.len(), 2);
    assert_eq!(link.ended, [rule(1)]);
}

#[test]
fn a_rule_that_comes_later_gets_its_own_snapshot_and_the_others_go_on() {
    let mut link = Link::up();
    let held = BTreeSet::from([rule(1), rule(2)]);
    link.sender.handle_held(&held);
    link.change(set(1, 1));
    link.change(Change::Set(mapping_of(2, 2, 1)));
    link.settle();
    assert_eq!(link.copies.len(), 1, "rule 2 is not subscribed to");
    link.rules(&[1, 2], Dropped::Keep);
    link.settle();
    assert_eq!(link.copies, link.truth);
    assert_eq!(link.sender.counters().snapshots, 2);
    // A key moves from one rule to the other.
    link.change(remove(1));
    link.change(Change::Set(mapping_of(2, 1, 1)));
    link.settle();
    assert_eq!(link.copies, link.truth);
    link.rules(&[2], Dropped::Remove);
    link.settle();
    assert!(link.copies.keys().all(|(of, _)| *of == rule(2)));
    link.rules(&[], Dropped::Keep);
    link.settle();
    assert_eq!(link.copies.len(), 2);
    assert_eq!(link.sender.subscribed().count(), 0);
}

#[test]
fn all_rules_that_wait_are_read_in_one_walk() {
    let mut link = Link::up();
    let all: Vec<u32> = (1..=100).collect();
    let held = all.iter().map(|number| rule(*number)).collect();
    link.sender.handle_held(&held);
    for number in 1..=300 {
        link.change(Change::Set(mapping_of(1 + number % 100, number, 1)));
    }
    link.rules(&all, Dropped::Keep);
    link.apply();
    while !link.back.is_empty() {
        link.deliver_back();
    }
    link.send();
    // One is given up during the walk, and another is new.
    let read = link.read(10).unwrap();
    assert!(read.1.iter().any(|mapping| mapping.rule == rule(1)));
    let without: BTreeSet<Rule> = all[1..].iter().map(|number| rule(*number)).collect();
    link.sender.handle_held(&without);
    link.truth.retain(|(of, _), _| *of != rule(1));
    link.hand_in(read).unwrap();
    let more: Vec<u32> = (1..=101).collect();
    link.sender
        .handle_held(&without.union(&[rule(101)].into()).copied().collect());
    link.change(Change::Set(mapping_of(101, 5000, 1)));
    link.rules(&more, Dropped::Keep);
    link.settle_with(10);
    assert_eq!(link.copies, link.truth);
    assert_eq!(link.copies.len(), 298);
    assert_eq!(link.ended, [rule(1)]);
    let synchronised: BTreeSet<Rule> = link.synchronised.iter().copied().collect();
    assert_eq!(synchronised.len(), 100);
    // The first rule of all links, the hundred, and the new one.
    assert!(link.sender.counters().snapshots <= 3);
}

#[test]
fn a_rule_dropped_and_taken_again_believes_nothing_of_before() {
    let mut link = Link::up();
    link.change(set(1, 1));
    link.apply();
    link.deliver_back();
    link.send();
    let read = link.read(100).unwrap();
    link.hand_in(read).unwrap();
    link.send();
    // The whole of the snapshot is on its way.
    link.rules(&[], Dropped::Remove);
    link.rules(&[1], Dropped::Remove);
    link.apply();
    while !link.there.is_empty() {
        link.deliver_there();
    }
    assert!(!link.receiver.is_synchronised(rule(1)));
    assert!(link.copies.is_empty());
    link.settle();
    assert!(link.receiver.is_synchronised(rule(1)));
    assert_eq!(link.copies, link.truth);
}

#[test]
fn what_a_former_holder_has_is_swept_as_well() {
    let mut link = Link::new(Limits::default());
    for i in 0..3 {
        link.copies.insert((rule(1), key(i)), mapping(i, 1));
    }
    link.receiver.adopt(rule(1), (0..3).map(key));
    assert_eq!(link.receiver.copies(rule(1)), 3);
    link.change(set(1, 5));
    link.receiver.handle_link_up();
    link.settle();
    assert_eq!(link.copies, link.truth);
    assert_eq!(link.receiver.counters().swept, 2);
}

#[test]
fn what_is_adopted_late_is_compared_to_a_new_snapshot() {
    let mut link = Link::up();
    link.change(set(1, 1));
    link.settle();
    // The standby held the rule in between, in another half of the cluster.
    link.copies.insert((rule(1), key(1)), mapping(1, 7));
    link.copies.insert((rule(1), key(2)), mapping(2, 7));
    link.receiver.adopt(rule(1), [key(1), key(2)]);
    assert!(!link.receiver.is_synchronised(rule(1)));
    link.settle();
    assert_eq!(link.copies, link.truth);
    assert_eq!(link.sender.counters().snapshots, 2);
    assert_eq!(link.sender.counters().unexpected, 0);
    link.receiver.adopt(rule(9), [key(1)]);
    assert!(link.receiver.poll_output().is_none(), "not subscribed to");
}

#[test]
fn a_standby_has_everything_only_once_it_said_so() {
    let mut link = Link::up();
    link.change(set(1, 1));
    link.apply();
    link.deliver_back();
    link.send();
    let read = link.read(100).unwrap();
    link.hand_in(read).unwrap();
    link.send();
    while !link.there.is_empty() {
        assert!(link.sender.synchronised(rule(1)).is_none());
        link.deliver_there();
    }
    assert!(link.receiver.is_synchronised(rule(1)));
    assert!(link.sender.synchronised(rule(1)).is_none());
    link.settle();
    assert!(link.sender.synchronised(rule(1)).is_some());
}

#[test]
fn pages_wait_for_the_beginning_of_their_own_snapshot() {
    let mut link = Link::new(Limits::new(2, 4096).unwrap());
    let both = BTreeSet::from([rule(1), rule(2)]);
    link.sender.handle_held(&both);
    link.rules(&[1], Dropped::Keep);
    link.receiver.handle_link_up();
    link.settle();
    // The window is full of changes, then a snapshot of rule 2 begins and is given up.
    link.rules(&[1, 2], Dropped::Keep);
    link.apply();
    for i in 0..600 {
        link.change(set(i, 1));
        if i < 2 {
            link.send();
        }
    }
    link.deliver_back();
    link.send();
    link.sender.handle_held(&BTreeSet::from([rule(1)]));
    for i in 0..600 {
        link.change(set(i, 2));
    }
    link.sender.handle_held(&both);
    link.change(Change::Set(mapping_of(2, 7, 1)));
    link.settle();
    assert_eq!(link.copies, link.truth);
    assert_eq!(link.ended, [rule(2)]);
    assert_eq!(link.receiver.counters().swept, 0);
}

#[test]
fn a_rule_given_up_and_taken_again_does_not_fill_the_queue() {
    let mut link = Link::up();
    let held = BTreeSet::from([rule(1)]);
    link.change(set(1, 1));
    link.apply();
    link.deliver_back();
    for _ in 0..1000 {
        link.sender.handle_held(&BTreeSet::new());
        link.sender.handle_held(&held);
        // Nothing leaves; a snapshot is asked for each time.
        assert!(matches!(
            link.sender.poll_output(),
            Some(SenderOutput::NeedSnapshot { .. })
        ));
        assert!(link.sender.queued() <= 3);
    }
    link.settle();
    assert_eq!(link.copies, link.truth);
}

#[test]
fn records_are_as_large_as_the_documents_say() {
    assert!(size_of::<Record>() <= 128, "{}", size_of::<Record>());
    assert!(size_of::<Key>() + size_of::<u32>() <= 48);
}

#[test]
fn a_missing_batch_begins_everything_anew() {
    let mut link = Link::up();
    link.change(set(1, 1));
    link.settle();
    link.change(set(2, 1));
    link.send();
    link.there.clear();
    link.change(set(3, 1));
    link.settle();
    assert_eq!(link.receiver.counters().gaps, 1);
    assert_eq!(link.copies, link.truth);
}

#[test]
fn what_makes_no_sense_is_counted_and_nothing_else() {
    let mut link = Link::up();
    link.sender.handle_ack(1, 1);
    link.sender.handle_subscribe(1, false, &[rule(1)]);
    assert_eq!(link.sender.counters().unexpected, 2);
    link.settle();
    link.sender.handle_ack(1, 1000);
    link.sender.handle_subscribe(0, true, &[]);
    assert_eq!(link.sender.counters().unexpected, 4);
    let batch = |epoch, sequence| Batch {
        epoch,
        sequence,
        records: vec![Record::End(rule(1))],
    };
    link.receiver.handle_batch(batch(0, 9));
    link.receiver.handle_batch(batch(99, 9));
    link.receiver.handle_batch(batch(2, 1));
    assert_eq!(link.receiver.counters().outdated, 3);
    assert!(link.receiver.poll_output().is_none());
    let many = (0..16_001).map(rule).collect();
    assert_eq!(
        link.receiver.handle_rules(&many, Dropped::Keep),
        Err(SubscribeError(16_001))
    );
    assert_eq!(Limits::new(1, 512), Err(LimitsError::Window(1)));
    assert_eq!(Limits::new(2, 511), Err(LimitsError::Queue(511)));
}

#[derive(Clone, Debug)]
enum Step {
    Change(u32, u32, Option<u16>),
    Subscribe(Vec<u32>),
    Held(Vec<u32>),
    Send,
    Read(usize),
    HandIn,
    There,
    Back,
    Cut,
    Up,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1u32..4, 0u32..12, proptest::option::of(1u16..99))
            .prop_map(|(of, number, version)| Step::Change(of, number, version)),
        1 => vec(1u32..4, 0..4).prop_map(Step::Subscribe),
        1 => vec(1u32..4, 0..4).prop_map(Step::Held),
        4 => Just(Step::Send),
        3 => (1usize..5).prop_map(Step::Read),
        3 => Just(Step::HandIn),
        6 => Just(Step::There),
        6 => Just(Step::Back),
        1 => Just(Step::Cut),
        1 => Just(Step::Up),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_on_the_way_copies_end_equal(steps in vec(steps(), 0..250)) {
        let mut link = Link::new(Limits::new(2, 512).unwrap());
        link.receiver.handle_link_up();
        let mut is_up = true;
        let mut held = BTreeSet::from([rule(1)]);
        let mut pages: VecDeque<(Page, Vec<Mapping>, Rest)> = VecDeque::new();
        for step in steps {
            match step {
                // A mapping of a rule that is not held is nobody's.
                Step::Change(of, ..) if !held.contains(&rule(of)) => {}
                Step::Change(of, number, Some(version)) => {
                    link.change(Change::Set(mapping_of(of, number, version)));
                }
                Step::Change(of, number, None) => {
                    link.change(Change::Remove { rule: rule(of), key: key(number) });
                }
                Step::Subscribe(rules) => link.rules(&rules, Dropped::Remove),
                Step::Held(rules) => {
                    held = rules.iter().map(|number| rule(*number)).collect();
                    link.sender.handle_held(&held);
                    link.truth.retain(|(of, _), _| held.contains(of));
                }
                Step::Send => link.send(),
                Step::Read(max) if pages.is_empty() => pages.extend(link.read(max)),
                Step::Read(_) => {}
                Step::HandIn => {
                    if let Some(read) = pages.pop_front() {
                        let result = link.hand_in(read);
                        prop_assert!(matches!(
                            result,
                            Ok(()) | Err(PageError::Void | PageError::Full)
                        ), "{result:?}");
                    }
                }
                Step::There => link.deliver_there(),
                Step::Back => link.deliver_back(),
                Step::Cut => {
                    link.cut();
                    is_up = false;
                }
                Step::Up if is_up => {}
                Step::Up => {
                    link.receiver.handle_link_up();
                    is_up = true;
                }
            }
            link.apply();
            prop_assert!(link.sender.in_flight() <= 2);
        }
        if !is_up {
            link.receiver.handle_link_up();
        }
        // Everything is held and subscribed to again, but for what nobody holds.
        let rules = [1, 2, 3];
        link.rules(&rules, Dropped::Remove);
        link.sender.handle_held(&rules.map(rule).into());
        link.settle_with(3);
        for number in rules {
            prop_assert!(link.receiver.is_synchronised(rule(number)));
            prop_assert!(link.sender.synchronised(rule(number)).is_some());
        }
        prop_assert_eq!(&link.copies, &link.truth);
        prop_assert_eq!(link.receiver.counters().gaps, 0);
    }
}
