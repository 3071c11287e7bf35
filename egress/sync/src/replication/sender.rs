// SPDX-License-Identifier: Apache-2.0
//! The end that has the mappings.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Limits;
use crate::mapping::{Change, Key, Mapping};
use crate::name::{NodeName, Rule};
use crate::wire::{Batch, MAX_RECORDS, Message, Record};

/// What a sender wants of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderOutput {
    /// Send this to the standby.
    Send(Message),
    /// Read the mappings from the beginning, as [`Sender::poll_page`] asks for pages. Whatever was
    /// read for another snapshot is void.
    NeedSnapshot {
        /// The number of the snapshot, as in [`Page::snapshot`].
        snapshot: u64,
    },
    /// The standby has everything of this rule, for the first time since the snapshot.
    Synchronised(Rule),
}

/// What is to be read next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Whose mappings: of all these rules, in one walk.
    pub rules: Arc<BTreeSet<Rule>>,
    /// Of which snapshot: another number is another beginning.
    pub snapshot: u64,
    /// How many at most; fewer are as good.
    pub max_records: usize,
    /// How many changes were known before it was read.
    mark: u64,
}

/// Whether a snapshot has more pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// There is more to read.
    More,
    /// That was all.
    End,
}

/// Why a page is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// It is of a snapshot that is over: nothing to do.
    #[error("page of a snapshot that is over")]
    Void,
    /// More has changed since it was asked for than is remembered: take a new page and read the
    /// same mappings again.
    #[error("page is out of date")]
    Stale,
    /// The window is full: two pages were asked for at once. Again, later.
    #[error("window is full")]
    Full,
    /// More records than it asked for.
    #[error("page of {0} mappings: at most {MAX_RECORDS}")]
    TooMany(usize),
    /// A mapping of another rule.
    #[error("mapping of rule {0} in a page of others")]
    WrongRule(Rule),
}

/// That a standby has everything of a rule: what a planned hand-over begins with
/// ([`crate::claims::ClaimTable::hand_over`]).
///
/// The standby has acknowledged a whole snapshot, and every change since is sent. That the last of
/// them are acknowledged too is not waited for, on a busy gateway it may never be so: the hand-over
/// takes the same stream behind them, so that they are applied before it is heard.
#[derive(Debug, PartialEq, Eq)]
pub struct Synchronised {
    pub(crate) rule: Rule,
    pub(crate) standby: NodeName,
}

/// What happened to a sender. Counted from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderCounters {
    /// Snapshots begun.
    pub snapshots: u64,
    /// Times that changes came faster than they left, so that snapshots began anew.
    pub overflows: u64,
    /// Records of pages left out, since a change said more.
    pub superseded: u64,
    /// Pages refused as stale.
    pub stale_pages: u64,
    /// Batches sent.
    pub batches: u64,
    /// Mappings and removals sent.
    pub records: u64,
    /// Messages that make no sense: acknowledgements of what was not sent, subscriptions of before.
    pub unexpected: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The rule is not ours: nothing is said.
    NotHeld,
    /// A snapshot is to be taken; changes need not be told before.
    Waiting,
    /// It is being taken.
    Snapshot,
    /// It has been.
    Following,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    phase: Phase,
    /// Records of it in the queue.
    queued: usize,
    /// The batch with the last `End` of it.
    end_sequence: u64,
}

/// The tables are walked once for all rules that wait, however many they are.
#[derive(Clone, Debug)]
struct Snapshot {
    /// Those that are neither complete nor given up; never empty.
    rules: Arc<BTreeSet<Rule>>,
    number: u64,
    /// Those among them whose `Begin` has not left the queue.
    unbegun: BTreeSet<Rule>,
}

impl Snapshot {
    fn is_begun(&self) -> bool {
        self.unbegun.is_empty()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    Changes,
    Snapshot,
}

/// What is said to one subscriber.
#[derive(Debug)]
struct Stream {
    epoch: u32,
    /// The epoch it began with.
    began: u32,
    next_sequence: u64,
    acked: u64,
    /// Bounded by the window.
    in_flight: VecDeque<(u64, Share)>,
    rules: BTreeMap<Rule, Progress>,
    /// Bounded by the limit, and three marks for each rule.
    queue: VecDeque<Record>,
    snapshot: Option<Snapshot>,
    /// Keys of the snapshot's rules that changed lately, with the numbers of the changes. Bounded by
    /// the limit of the queue; what falls out makes pages of before stale.
    touched: VecDeque<(u64, Rule, Key)>,
    forgotten: u64,
    /// Rules that have not been said to be synchronised.
    unannounced: BTreeSet<Rule>,
}

/// The holder's end of a link to one standby.
#[derive(Debug)]
pub struct Sender {
    standby: NodeName,
    limits: Limits,
    held: BTreeSet<Rule>,
    stream: Option<Stream>,
    /// Changes handled since the beginning.
    changes: u64,
    snapshots: u64,
    counters: SenderCounters,
    /// Bounded: a batch of a page at a time, within the window, and a line for each rule.
    outputs: VecDeque<SenderOutput>,
}

impl Sender {
    /// The sender for one standby, for all links to it. Nothing is sent before it subscribes.
    pub fn new(standby: NodeName, limits: Limits) -> Sender {
        Sender {
            standby,
            limits,
            held: BTreeSet::new(),
            stream: None,
            changes: 0,
            snapshots: 0,
            counters: SenderCounters::default(),
            outputs: VecDeque::new(),
        }
    }

    /// The link is lost. The sender waits for the next subscription.
    pub fn handle_link_down(&mut self) {
        self.stream = None;
        self.outputs.clear();
    }

    /// This node holds these rules. The mappings of a rule that is not among them any more are the
    /// standby's as of this call: what happens to them later is not told.
    pub fn handle_held(&mut self, held: &BTreeSet<Rule>) {
        self.held.clone_from(held);
        let Some(stream) = &mut self.stream else {
            return;
        };
        let rules: Vec<Rule> = stream.rules.keys().copied().collect();
        for rule in rules {
            let phase = stream.rules[&rule].phase;
            match (held.contains(&rule), phase) {
                (true, Phase::NotHeld) => stream.wait(rule),
                (false, Phase::Waiting | Phase::Snapshot | Phase::Following) => {
                    stream.give_up(rule)
                }
                (true, Phase::Waiting | Phase::Snapshot | Phase::Following)
                | (false, Phase::NotHeld) => {}
            }
        }
    }

    /// A mapping is new, is different, or is gone.
    pub fn handle_change(&mut self, change: &Change) {
        self.changes += 1;
        let Some(stream) = &mut self.stream else {
            return;
        };
        let rule = change.rule();
        match stream.rules.get(&rule).map(|progress| progress.phase) {
            None | Some(Phase::NotHeld | Phase::Waiting) => return,
            Some(Phase::Snapshot | Phase::Following) => {}
        }
        if stream.queue.len() >= self.limits.queue {
            self.counters.overflows += 1;
            stream.overflow(rule);
            return;
        }
        let snapshot = stream.snapshot.as_ref();
        if snapshot.is_some_and(|snapshot| snapshot.rules.contains(&rule)) {
            if stream.touched.len() >= self.limits.queue {
                stream.forgotten = stream.touched.pop_front().map_or(0, |(number, ..)| number);
            }
            let touched = (self.changes, rule, *change.key());
            stream.touched.push_back(touched);
        }
        stream.enqueue(match *change {
            Change::Set(mapping) => Record::Set(mapping),
            Change::Remove { rule, key } => Record::Remove { rule, key },
        });
    }

    /// Changes were missed: of every rule the standby gets a new snapshot.
    pub fn handle_gap(&mut self) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        let rules: Vec<Rule> = stream.rules.keys().copied().collect();
        for rule in rules {
            match stream.rules[&rule].phase {
                Phase::Snapshot | Phase::Following => {
                    self.counters.overflows += 1;
                    stream.overflow(rule);
                }
                Phase::NotHeld | Phase::Waiting => {}
            }
        }
    }

    /// The standby wants these rules ([`Message::Subscribe`]).
    pub fn handle_subscribe(&mut self, epoch: u32, is_restart: bool, rules: &[Rule]) {
        let rules: BTreeSet<Rule> = rules.iter().copied().collect();
        if let Some(stream) = &self.stream
            && epoch <= stream.epoch
        {
            self.counters.unexpected += 1;
            return;
        }
        if is_restart {
            self.outputs.clear();
            self.stream = Some(Stream::new(epoch));
        }
        let Some(stream) = &mut self.stream else {
            self.counters.unexpected += 1;
            return;
        };
        stream.epoch = epoch;
        let dropped: Vec<Rule> = stream.rules.keys().copied().collect();
        for rule in dropped {
            if !rules.contains(&rule) {
                stream.forget(rule);
            }
        }
        for rule in rules {
            if !stream.rules.contains_key(&rule) {
                stream.add(rule, self.held.contains(&rule));
            }
        }
    }

    /// The standby has applied everything up to a batch ([`Message::Ack`]).
    pub fn handle_ack(&mut self, epoch: u32, sequence: u64) {
        let Some(stream) = &mut self.stream else {
            self.counters.unexpected += 1;
            return;
        };
        if !(stream.began..=stream.epoch).contains(&epoch) || sequence >= stream.next_sequence {
            self.counters.unexpected += 1;
            return;
        }
        stream.acked = stream.acked.max(sequence);
        while stream
            .in_flight
            .front()
            .is_some_and(|(sent, _)| *sent <= sequence)
        {
            stream.in_flight.pop_front();
        }
        let done: Vec<Rule> = stream
            .unannounced
            .iter()
            .copied()
            .filter(|rule| stream.is_synchronised(*rule))
            .collect();
        for rule in done {
            stream.unannounced.remove(&rule);
            self.outputs.push_back(SenderOutput::Synchronised(rule));
        }
    }

    /// What there is to do. To be polled while the channel has room for a message
    /// ([`crate::channel::Channel::room`]).
    pub fn poll_output(&mut self) -> Option<SenderOutput> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let stream = self.stream.as_mut()?;
        if stream.snapshot.is_none() {
            let waiting = stream.waiting();
            if !waiting.is_empty() {
                self.snapshots += 1;
                self.counters.snapshots += 1;
                stream.begin(waiting, self.snapshots);
                let snapshot = self.snapshots;
                return Some(SenderOutput::NeedSnapshot { snapshot });
            }
        }
        if stream.queue.is_empty() || !stream.has_room(Share::Changes, self.limits.window) {
            return None;
        }
        let records = stream.take_queued();
        Some(SenderOutput::Send(stream.batch(
            records,
            Share::Changes,
            &mut self.counters,
        )))
    }

    /// What of the snapshot to read next; nothing if there is none, or it is to wait for
    /// acknowledgements. To be asked before the mappings are read, after each
    /// [`Sender::handle_ack`] and each page.
    pub fn poll_page(&self) -> Option<Page> {
        let stream = self.stream.as_ref()?;
        let snapshot = stream.snapshot.as_ref()?;
        if !snapshot.is_begun() {
            return None;
        }
        stream
            .has_room(Share::Snapshot, self.limits.window)
            .then_some(Page {
                rules: Arc::clone(&snapshot.rules),
                snapshot: snapshot.number,
                max_records: MAX_RECORDS,
                mark: self.changes,
            })
    }

    /// Takes what was read for a page. One page at a time.
    ///
    /// # Errors
    /// It comes too late, or is not what was asked for.
    pub fn next_batch(
        &mut self,
        page: &Page,
        mappings: &[Mapping],
        rest: Rest,
    ) -> Result<(), PageError> {
        let stream = self.stream.as_mut().ok_or(PageError::Void)?;
        let snapshot = stream.snapshot.as_ref();
        let snapshot = snapshot.filter(|snapshot| snapshot.number == page.snapshot);
        let Some(snapshot) = snapshot.filter(|snapshot| snapshot.is_begun()) else {
            return Err(PageError::Void);
        };
        // Fewer than the page has where a rule was given up meanwhile.
        let rules = Arc::clone(&snapshot.rules);
        if mappings.len() > MAX_RECORDS {
            return Err(PageError::TooMany(mappings.len()));
        }
        let mut own = mappings.iter();
        if let Some(other) = own.find(|mapping| !page.rules.contains(&mapping.rule)) {
            return Err(PageError::WrongRule(other.rule));
        }
        if page.mark < stream.forgotten {
            self.counters.stale_pages += 1;
            return Err(PageError::Stale);
        }
        if !stream.has_room(Share::Snapshot, self.limits.window) {
            return Err(PageError::Full);
        }
        let since: BTreeSet<(Rule, &Key)> = stream
            .touched
            .iter()
            .rev()
            .take_while(|(number, ..)| *number > page.mark)
            .map(|(_, rule, key)| (*rule, key))
            .collect();
        let is_current = |mapping: &&Mapping| {
            rules.contains(&mapping.rule) && !since.contains(&(mapping.rule, mapping.key()))
        };
        let records: Vec<Record> = mappings
            .iter()
            .filter(is_current)
            .map(|mapping| Record::Set(*mapping))
            .collect();
        self.counters.superseded += (mappings.len() - records.len()) as u64;
        if !records.is_empty() {
            let batch = stream.batch(records, Share::Snapshot, &mut self.counters);
            self.outputs.push_back(SenderOutput::Send(batch));
        }
        if rest == Rest::End {
            stream.end();
        }
        Ok(())
    }

    /// That the standby has everything of a rule that has been told until this moment, if it has.
    /// To be asked when [`Sender::poll_output`] has nothing more.
    pub fn synchronised(&self, rule: Rule) -> Option<Synchronised> {
        let stream = self.stream.as_ref()?;
        stream.is_synchronised(rule).then(|| Synchronised {
            rule,
            standby: self.standby.clone(),
        })
    }

    /// The rules the standby wants, in order.
    pub fn subscribed(&self) -> impl Iterator<Item = Rule> {
        self.stream
            .iter()
            .flat_map(|stream| stream.rules.keys().copied())
    }

    /// Batches without acknowledgement, at most the window.
    pub fn in_flight(&self) -> usize {
        self.stream
            .as_ref()
            .map_or(0, |stream| stream.in_flight.len())
    }

    /// Changes and marks that wait.
    pub fn queued(&self) -> usize {
        self.stream.as_ref().map_or(0, |stream| stream.queue.len())
    }

    /// What happened so far.
    pub fn counters(&self) -> SenderCounters {
        self.counters
    }
}

impl Stream {
    fn new(epoch: u32) -> Stream {
        Stream {
            epoch,
            began: epoch,
            next_sequence: 1,
            acked: 0,
            in_flight: VecDeque::new(),
            rules: BTreeMap::new(),
            queue: VecDeque::new(),
            snapshot: None,
            touched: VecDeque::new(),
            forgotten: 0,
            unannounced: BTreeSet::new(),
        }
    }

    fn add(&mut self, rule: Rule, is_held: bool) {
        let phase = if is_held {
            Phase::Waiting
        } else {
            Phase::NotHeld
        };
        self.rules.insert(
            rule,
            Progress {
                phase,
                queued: 0,
                end_sequence: 0,
            },
        );
        if is_held {
            self.unannounced.insert(rule);
        } else {
            self.enqueue(Record::Unavailable(rule));
        }
    }

    /// The standby wants a rule no more.
    fn forget(&mut self, rule: Rule) {
        self.rules.remove(&rule);
        self.unannounced.remove(&rule);
        self.queue.retain(|record| record.rule() != rule);
        self.abort_snapshot(rule);
    }

    /// A rule is ours.
    fn wait(&mut self, rule: Rule) {
        self.set_phase(rule, Phase::Waiting);
        self.unannounced.insert(rule);
    }

    /// A rule is ours no more. What is in the queue goes first.
    fn give_up(&mut self, rule: Rule) {
        self.set_phase(rule, Phase::NotHeld);
        self.unannounced.remove(&rule);
        self.abort_snapshot(rule);
        self.drop_marks(rule);
        self.enqueue(Record::Unavailable(rule));
    }

    /// Takes marks of a rule out of the queue: without an `End` nothing is swept, and the last mark
    /// says it all.
    fn drop_marks(&mut self, rule: Rule) {
        let Some(progress) = self.rules.get_mut(&rule) else {
            return;
        };
        if progress.queued == 0 {
            return;
        }
        let before = self.queue.len();
        self.queue.retain(|record| match record {
            Record::Begin(of) | Record::End(of) | Record::Unavailable(of) => *of != rule,
            Record::Set(_) | Record::Remove { .. } => true,
        });
        progress.queued -= before - self.queue.len();
    }

    fn waiting(&self) -> BTreeSet<Rule> {
        // A rule that waits has not been announced.
        self.unannounced
            .iter()
            .copied()
            .filter(|rule| self.rules[rule].phase == Phase::Waiting)
            .collect()
    }

    fn begin(&mut self, rules: BTreeSet<Rule>, number: u64) {
        for rule in &rules {
            self.set_phase(*rule, Phase::Snapshot);
            self.enqueue(Record::Begin(*rule));
        }
        self.snapshot = Some(Snapshot {
            unbegun: rules.clone(),
            rules: Arc::new(rules),
            number,
        });
        self.touched.clear();
        self.forgotten = 0;
    }

    fn end(&mut self) {
        let Some(snapshot) = self.snapshot.take() else {
            return;
        };
        self.touched.clear();
        for rule in snapshot.rules.iter() {
            self.set_phase(*rule, Phase::Following);
            self.enqueue(Record::End(*rule));
        }
    }

    /// A rule has no part in the snapshot any more; the others go on.
    fn abort_snapshot(&mut self, rule: Rule) {
        let Some(snapshot) = &mut self.snapshot else {
            return;
        };
        if !snapshot.rules.contains(&rule) {
            return;
        }
        snapshot.unbegun.remove(&rule);
        Arc::make_mut(&mut snapshot.rules).remove(&rule);
        if snapshot.rules.is_empty() {
            self.snapshot = None;
            self.touched.clear();
        }
    }

    fn set_phase(&mut self, rule: Rule, phase: Phase) {
        if let Some(progress) = self.rules.get_mut(&rule) {
            progress.phase = phase;
        }
    }

    fn enqueue(&mut self, record: Record) {
        if let Some(progress) = self.rules.get_mut(&record.rule()) {
            progress.queued += 1;
            self.queue.push_back(record);
        }
    }

    /// The change of this rule has no room. All rules with changes in the queue begin anew, but for
    /// those given up: theirs is the last that is said of them.
    fn overflow(&mut self, rule: Rule) {
        let mut lost = BTreeSet::from([rule]);
        for (rule, progress) in &self.rules {
            match progress.phase {
                Phase::Snapshot | Phase::Following if progress.queued > 0 => {
                    lost.insert(*rule);
                }
                Phase::NotHeld | Phase::Waiting | Phase::Snapshot | Phase::Following => {}
            }
        }
        self.queue.retain(|record| !lost.contains(&record.rule()));
        for rule in lost {
            self.abort_snapshot(rule);
            if let Some(progress) = self.rules.get_mut(&rule) {
                progress.queued = 0;
            }
            self.wait(rule);
        }
    }

    /// Whether a batch may be sent: the window is shared while a snapshot runs.
    fn has_room(&self, share: Share, window: usize) -> bool {
        if self.in_flight.len() >= window {
            return false;
        }
        let of_snapshot = self
            .in_flight
            .iter()
            .filter(|(_, share)| *share == Share::Snapshot)
            .count();
        match (share, &self.snapshot) {
            (Share::Snapshot, _) => of_snapshot < window.div_ceil(2),
            (Share::Changes, Some(_)) => self.in_flight.len() - of_snapshot < window / 2,
            (Share::Changes, None) => true,
        }
    }

    /// The front of the queue.
    fn take_queued(&mut self) -> Vec<Record> {
        let count = self.queue.len().min(MAX_RECORDS);
        let records: Vec<Record> = self.queue.drain(..count).collect();
        for record in &records {
            if let Some(progress) = self.rules.get_mut(&record.rule()) {
                progress.queued -= 1;
            }
            if let (Record::Begin(rule), Some(snapshot)) = (record, &mut self.snapshot) {
                snapshot.unbegun.remove(rule);
            }
        }
        records
    }

    fn batch(
        &mut self,
        records: Vec<Record>,
        share: Share,
        counters: &mut SenderCounters,
    ) -> Message {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.in_flight.push_back((sequence, share));
        counters.batches += 1;
        counters.records += records.len() as u64;
        for record in &records {
            if let Record::End(rule) = record
                && let Some(progress) = self.rules.get_mut(rule)
            {
                progress.end_sequence = sequence;
            }
        }
        Message::Batch(Batch {
            epoch: self.epoch,
            sequence,
            records,
        })
    }

    fn is_synchronised(&self, rule: Rule) -> bool {
        self.rules.get(&rule).is_some_and(|progress| {
            progress.phase == Phase::Following
                && progress.queued == 0
                && progress.end_sequence <= self.acked
        })
    }
}
