// SPDX-License-Identifier: Apache-2.0
//! The end that stands by.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use crate::mapping::{Key, Mapping};
use crate::name::Rule;
use crate::wire::{Batch, MAX_RULES, Message, Record};

/// What is to be done with the copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apply {
    /// The mapping is so.
    Set(Mapping),
    /// The copy of this rule and key is void. One of the same key and another rule is not meant.
    Remove {
        /// The rule.
        rule: Rule,
        /// The key.
        key: Key,
    },
}

/// What a receiver wants of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiverOutput {
    /// Send this to the holder. An acknowledgement comes after what it acknowledges, so that it is
    /// true when outputs are carried out in order.
    Send(Message),
    /// Change the copies.
    Apply(Apply),
    /// The copies of this rule are complete, and will be kept so.
    Synchronised(Rule),
    /// The holder has given the rule up, and said everything about it until then.
    Ended(Rule),
}

/// What becomes of the copies of rules that are subscribed to no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// They are the owner's now: it holds the rule.
    Keep,
    /// They are removed: another node stands by.
    Remove,
}

/// A subscription of too many rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("subscription of {0} rules: at most {MAX_RULES}")]
pub struct SubscribeError(pub usize);

/// What happened to a receiver. Counted from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverCounters {
    /// Batches taken.
    pub batches: u64,
    /// Copies removed because a snapshot did not have them.
    pub swept: u64,
    /// Batches and records of subscriptions of before.
    pub outdated: u64,
    /// Batches missing, so that everything began anew. Never, over a channel.
    pub gaps: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Subscribed to.
    Awaiting,
    /// Between `Begin` and `End`.
    Snapshot,
    /// Complete.
    Following,
    /// Not held at the other end.
    Unavailable,
}

/// The copies of a rule.
#[derive(Debug)]
struct Copies {
    phase: Phase,
    /// The subscription it came with: what is older is not about this one.
    since: u32,
    /// Counted with each snapshot.
    generation: u32,
    /// Each key with the snapshot that knew it last.
    marks: BTreeMap<Key, u32>,
}

/// What is left to do, in order.
#[derive(Debug)]
enum Work {
    Record {
        epoch: u32,
        record: Record,
    },
    Sweep {
        rule: Rule,
        after: Option<Key>,
    },
    Ack {
        epoch: u32,
        sequence: u64,
    },
    Drop {
        rule: Rule,
        marks: BTreeMap<Key, u32>,
    },
}

/// The standby's end of a link to one holder.
#[derive(Debug, Default)]
pub struct Receiver {
    rules: BTreeMap<Rule, Copies>,
    is_linked: bool,
    epoch: u32,
    /// The subscription that began everything anew.
    restarted: u32,
    next_sequence: u64,
    counters: ReceiverCounters,
    /// Bounded by the holder's window, and a line for each rule dropped.
    work: VecDeque<Work>,
    /// Bounded: a subscription for each call, and one line for each record polled.
    outputs: VecDeque<ReceiverOutput>,
    /// See [`Receiver::take_discarded`].
    discarded: Vec<Discarded>,
}

/// What a receiver knew of copies that are the owner's now.
#[derive(Debug)]
pub struct Discarded(#[expect(dead_code, reason = "it is only to be freed")] BTreeMap<Key, u32>);

impl Receiver {
    /// A receiver without rules or copies.
    pub fn new() -> Receiver {
        Receiver::default()
    }

    /// The link is there: everything is subscribed to anew. Copies stay.
    pub fn handle_link_up(&mut self) {
        self.is_linked = true;
        self.restart();
    }

    /// The link is lost. Copies stay; what has come of the holder is still applied, if outputs are
    /// polled before the link is back or rules change: who takes over does so first.
    pub fn handle_link_down(&mut self) {
        self.is_linked = false;
        self.outputs
            .retain(|output| !matches!(output, ReceiverOutput::Send(_)));
        self.work.retain(|work| !matches!(work, Work::Ack { .. }));
    }

    /// This node stands by for these rules at this holder; `dropped` is about those that it did
    /// before.
    ///
    /// # Errors
    /// There are more than [`MAX_RULES`]; nothing has changed.
    pub fn handle_rules(
        &mut self,
        rules: &BTreeSet<Rule>,
        dropped: Dropped,
    ) -> Result<(), SubscribeError> {
        if rules.len() > MAX_RULES {
            return Err(SubscribeError(rules.len()));
        }
        if self.rules.keys().eq(rules.iter()) {
            return Ok(());
        }
        self.epoch += 1;
        let gone: Vec<Rule> = self.rules.keys().copied().collect();
        for rule in gone.into_iter().filter(|rule| !rules.contains(rule)) {
            let Some(Copies { marks, .. }) = self.rules.remove(&rule) else {
                continue;
            };
            match dropped {
                Dropped::Keep => self.discarded.push(Discarded(marks)),
                Dropped::Remove => self.work.push_back(Work::Drop { rule, marks }),
            }
        }
        for rule in rules {
            self.rules.entry(*rule).or_insert_with(|| Copies {
                phase: Phase::Awaiting,
                since: self.epoch,
                generation: 0,
                marks: BTreeMap::new(),
            });
        }
        if self.is_linked {
            self.subscribe(false);
        }
        Ok(())
    }

    /// The owner has these mappings of a rule already: of the time when it held the rule itself, or
    /// of before a restart. They count as copies of before the next snapshot, which sets them as
    /// the holder has them or removes them; if one runs or has been, a new one is asked for. To be
    /// called after [`Receiver::handle_rules`]; nothing happens for a rule that is not subscribed
    /// to.
    pub fn adopt(&mut self, rule: Rule, keys: impl IntoIterator<Item = Key>) {
        let Some(mut copies) = self.rules.remove(&rule) else {
            return;
        };
        let is_renewed = match copies.phase {
            Phase::Awaiting | Phase::Unavailable => false,
            Phase::Snapshot | Phase::Following => {
                // To the holder the rule goes and comes.
                self.epoch += 1;
                if self.is_linked {
                    self.subscribe(false);
                }
                self.epoch += 1;
                copies.since = self.epoch;
                copies.phase = Phase::Awaiting;
                true
            }
        };
        let mark = copies.generation;
        for key in keys {
            copies.marks.entry(key).or_insert(mark);
        }
        self.rules.insert(rule, copies);
        if is_renewed && self.is_linked {
            self.subscribe(false);
        }
    }

    /// What the holder sends ([`Message::Batch`]).
    pub fn handle_batch(&mut self, batch: Batch) {
        if !self.is_linked || batch.epoch < self.restarted || batch.epoch > self.epoch {
            self.counters.outdated += 1;
            return;
        }
        if batch.sequence < self.next_sequence {
            self.counters.outdated += 1;
            return;
        }
        if batch.sequence > self.next_sequence {
            self.counters.gaps += 1;
            self.restart();
            return;
        }
        self.next_sequence += 1;
        self.counters.batches += 1;
        let epoch = batch.epoch;
        self.work.extend(
            batch
                .records
                .into_iter()
                .map(|record| Work::Record { epoch, record }),
        );
        self.work.push_back(Work::Ack {
            epoch,
            sequence: batch.sequence,
        });
    }

    /// What there is to do. Each call does one thing, so that a snapshot that removes a million
    /// copies makes no list of them.
    pub fn poll_output(&mut self) -> Option<ReceiverOutput> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            match self.work.pop_front()? {
                Work::Record { epoch, record } => self.handle_record(epoch, record),
                Work::Sweep { rule, after } => self.sweep(rule, after),
                Work::Ack { epoch, sequence } => {
                    let ack = Message::Ack { epoch, sequence };
                    self.outputs.push_back(ReceiverOutput::Send(ack));
                }
                Work::Drop { rule, mut marks } => {
                    if let Some((key, _)) = marks.pop_first() {
                        self.work.push_front(Work::Drop { rule, marks });
                        return Some(ReceiverOutput::Apply(Apply::Remove { rule, key }));
                    }
                }
            }
        }
    }

    /// What is to be freed, where that disturbs nobody: of a million copies it takes a while, and
    /// they become the owner's at a takeover.
    pub fn take_discarded(&mut self) -> Vec<Discarded> {
        std::mem::take(&mut self.discarded)
    }

    /// Whether the copies of a rule are what the holder has, but for what is on the way.
    pub fn is_synchronised(&self, rule: Rule) -> bool {
        self.is_linked
            && self
                .rules
                .get(&rule)
                .is_some_and(|copies| copies.phase == Phase::Following)
    }

    /// How many copies of a rule there are.
    pub fn copies(&self, rule: Rule) -> usize {
        self.rules.get(&rule).map_or(0, |copies| copies.marks.len())
    }

    /// What happened so far.
    pub fn counters(&self) -> ReceiverCounters {
        self.counters
    }

    fn restart(&mut self) {
        self.epoch += 1;
        self.restarted = self.epoch;
        self.next_sequence = 1;
        for copies in self.rules.values_mut() {
            copies.phase = Phase::Awaiting;
            copies.since = self.epoch;
        }
        self.work.retain(|work| !matches!(work, Work::Ack { .. }));
        self.subscribe(true);
    }

    fn subscribe(&mut self, is_restart: bool) {
        // Each is sent, even if the next follows at once: a rule that goes and comes is a new one.
        if is_restart {
            self.outputs
                .retain(|output| !matches!(output, ReceiverOutput::Send(_)));
        }
        self.outputs
            .push_back(ReceiverOutput::Send(Message::Subscribe {
                epoch: self.epoch,
                is_restart,
                rules: self.rules.keys().copied().collect(),
            }));
    }

    fn handle_record(&mut self, epoch: u32, record: Record) {
        let rule = record.rule();
        let copies = match self.rules.get_mut(&rule) {
            Some(copies) if epoch >= copies.since => copies,
            Some(_) | None => {
                self.counters.outdated += 1;
                return;
            }
        };
        match record {
            Record::Set(mapping) => {
                copies.marks.insert(*mapping.key(), copies.generation);
                let apply = Apply::Set(mapping);
                self.outputs.push_back(ReceiverOutput::Apply(apply));
            }
            Record::Remove { rule, key } => {
                if copies.marks.remove(&key).is_some() {
                    let apply = Apply::Remove { rule, key };
                    self.outputs.push_back(ReceiverOutput::Apply(apply));
                }
            }
            Record::Begin(_) => {
                copies.phase = Phase::Snapshot;
                copies.generation = copies.generation.wrapping_add(1);
            }
            Record::End(rule) => {
                if copies.phase == Phase::Snapshot {
                    self.work.push_front(Work::Sweep { rule, after: None });
                }
            }
            Record::Unavailable(rule) => {
                copies.phase = Phase::Unavailable;
                self.outputs.push_back(ReceiverOutput::Ended(rule));
            }
        }
    }

    /// Removes the next copy that the snapshot did not have.
    fn sweep(&mut self, rule: Rule, after: Option<Key>) {
        // The rule may have been dropped or begun anew since.
        let Some(copies) = self
            .rules
            .get_mut(&rule)
            .filter(|copies| copies.phase == Phase::Snapshot)
        else {
            return;
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let next = copies
            .marks
            .range((from, Bound::Unbounded))
            .find(|(_, mark)| **mark != copies.generation)
            .map(|(key, _)| *key);
        if let Some(key) = next {
            copies.marks.remove(&key);
            self.counters.swept += 1;
            let apply = Apply::Remove { rule, key };
            self.outputs.push_back(ReceiverOutput::Apply(apply));
            let after = Some(key);
            self.work.push_front(Work::Sweep { rule, after });
        } else {
            copies.phase = Phase::Following;
            self.outputs.push_back(ReceiverOutput::Synchronised(rule));
        }
    }
}
