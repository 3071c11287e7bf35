// SPDX-License-Identifier: Apache-2.0
//! Claims as they are written in a store everybody reaches.
//!
//! There is one record for each rule: the best claim, as in [`crate::claims`], and so two holders
//! that share no link end as soon as either of them reaches the store. A record is changed only by
//! whom it names, over exactly what it replaces ([`LedgerOutput::Write`]); of two who write at once
//! one is told what the other wrote.
//!
//! **Before the answer.** Who is about to claim a rule asks for leave first ([`Ledger::ask`]): the
//! record is written, and then the rule is taken. Of two who want it at once the second is refused,
//! and never holds it. That takes a round trip and a write to the disks of a majority; a store
//! that is slower than [`PATIENCE`], or not reached, is not waited for.
//!
//! **After it.** What was claimed without leave, handed over or let go is written when it can be
//! ([`Ledger::note`]): over what is worse than it. If the record is better, this node learns it
//! ([`LedgerOutput::Learned`]) as if its holder had said it, and steps down.
//!
//! Records are never deleted: they say which term comes next, about 50 octets for each rule
//! there ever was.
//!
//! **What is left to the caller.** The store: to say whether it is reached, what is written in it,
//! and what became of each write.
//!
//! **Polling order.** After each call, [`Ledger::poll_output`] until nothing comes, then
//! [`Ledger::poll_timeout`].

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use crate::name::{NodeName, Rule};

/// How long leave is waited for. It is a part of the time a takeover takes; etcd on good disks takes
/// a tenth of it.
pub const PATIENCE: Duration = Duration::from_millis(50);

/// How long leave that is given stays unused before it is given back.
const UNUSED: Duration = Duration::from_secs(1);

/// When a write that failed is tried again, if nothing happens before.
const AGAIN: Duration = Duration::from_secs(1);

/// What is written of a rule: the best claim anybody has made.
///
/// As a text: the term, the holder, and `released` if it has let go. Words behind that are not
/// looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose claim.
    pub holder: NodeName,
    /// Under which term.
    pub term: u64,
    /// Whether it has let go since.
    pub is_released: bool,
}

impl Record {
    /// Reads a record; nothing if it is none.
    pub fn read(text: &[u8]) -> Option<Record> {
        let mut words = str::from_utf8(text).ok()?.split_ascii_whitespace();
        let term = words.next()?.parse().ok()?;
        let holder = NodeName::new(words.next()?).ok()?;
        let is_released = words.next() == Some("released");
        Some(Record {
            holder,
            term,
            is_released,
        })
    }

    /// The higher, the better, as in [`crate::claims`].
    fn rank(&self) -> (u64, std::cmp::Reverse<&NodeName>) {
        (self.term, std::cmp::Reverse(&self.holder))
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.term, self.holder)?;
        if self.is_released {
            f.write_str(" released")?;
        }
        Ok(())
    }
}

/// What a place in the store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The record; nothing if it cannot be read.
    pub record: Option<Record>,
    /// Which version of the place this is: higher for each change.
    pub revision: i64,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is written, as this revision.
    Done(i64),
    /// There is something else, or nothing.
    Conflict(Option<Written>),
    /// It may be written or not.
    Failed,
}

/// Whether a rule may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Under this term at once: it is written, or there is nobody to ask.
    Given,
    /// Not yet: ask again when [`LedgerOutput::Decide`] comes.
    Awaited,
}

/// What a ledger wants of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerOutput {
    /// Write this if the place is of this revision, 0 for one that is empty, and tell
    /// ([`Ledger::handle_outcome`]). One for each rule at a time.
    Write {
        /// Of this rule.
        rule: Rule,
        /// The record.
        record: Record,
        /// What it replaces.
        revision: i64,
    },
    /// This is what is written of a rule: [`crate::claims::ClaimTable::handle_record`].
    Learned {
        /// The rule.
        rule: Rule,
        /// The record.
        record: Record,
    },
    /// Leave is given or not waited for any longer.
    Decide,
}

#[derive(Debug)]
struct Proposal {
    term: u64,
    deadline: Instant,
    is_given: bool,
}

/// What one node knows of the records, and what it wants them to be.
#[derive(Debug)]
pub struct Ledger {
    name: NodeName,
    is_reached: bool,
    /// Whether all records have been told once.
    has_all: bool,
    known: BTreeMap<Rule, Written>,
    /// This node's claims: the last of each rule.
    own: BTreeMap<Rule, Record>,
    proposals: BTreeMap<Rule, Proposal>,
    writing: BTreeMap<Rule, Record>,
    again: Option<Instant>,
    /// What may be to be written.
    due: BTreeSet<Rule>,
    /// Bounded: a few for each call and rule, and callers empty it.
    outputs: VecDeque<LedgerOutput>,
}

impl Ledger {
    /// A ledger of a node that has claimed nothing, and whose store is not reached.
    pub fn new(name: NodeName) -> Ledger {
        Ledger {
            name,
            is_reached: false,
            has_all: false,
            known: BTreeMap::new(),
            own: BTreeMap::new(),
            proposals: BTreeMap::new(),
            writing: BTreeMap::new(),
            again: None,
            due: BTreeSet::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Whether the store is reached, and all its records have been told.
    pub fn is_reached(&self) -> bool {
        self.is_reached
    }

    /// How many claims of this node are not written yet.
    pub fn unwritten(&self) -> usize {
        let rules = self.own.keys();
        rules.filter(|rule| self.wanted(**rule).is_some()).count()
    }

    /// Asks for leave to claim a rule under a term.
    pub fn ask(&mut self, rule: Rule, term: u64, now: Instant) -> Leave {
        if let Some(proposal) = self.proposals.get(&rule)
            && proposal.term == term
        {
            if !proposal.is_given && now < proposal.deadline && self.is_reached {
                return Leave::Awaited;
            }
            self.proposals.remove(&rule);
            return Leave::Given;
        }
        if !self.is_reached {
            return Leave::Given;
        }
        let proposal = Proposal {
            term,
            deadline: now + PATIENCE,
            is_given: false,
        };
        self.proposals.insert(rule, proposal);
        self.due.insert(rule);
        Leave::Awaited
    }

    /// This node has claimed a rule or let it go.
    pub fn note(&mut self, rule: Rule, term: u64, is_released: bool) {
        let record = self.record(term, is_released);
        self.own.insert(rule, record);
        if self.proposals.get(&rule).is_some_and(|p| p.term <= term) {
            self.proposals.remove(&rule);
        }
        self.due.insert(rule);
    }

    /// The store is not reached any more. What is being written may be or not.
    pub fn handle_lost(&mut self) {
        self.is_reached = false;
        if self.proposals.values().any(|proposal| !proposal.is_given) {
            self.outputs.push_back(LedgerOutput::Decide);
        }
    }

    /// The store is reached, and these are all records there are.
    pub fn handle_all(&mut self, all: BTreeMap<Rule, Written>) {
        (self.is_reached, self.has_all) = (true, true);
        self.due.extend(self.own.keys().copied());
        let gone = self.known.keys().filter(|rule| !all.contains_key(rule));
        for rule in gone.copied().collect::<Vec<_>>() {
            self.known.remove(&rule);
        }
        for (rule, written) in all {
            // As of a backup, it may be older than what was known.
            self.known.remove(&rule);
            self.handle_written(rule, written);
        }
    }

    /// The store is reached again, and what was missed comes as changes. The first time it is of no
    /// use before [`Ledger::handle_all`].
    pub fn handle_reached(&mut self) {
        self.is_reached = self.has_all;
        self.due.extend(self.own.keys().copied());
    }

    /// A record is another.
    pub fn handle_written(&mut self, rule: Rule, written: Written) {
        let known = self.known.get(&rule);
        if known.is_some_and(|known| known.revision >= written.revision) {
            return;
        }
        self.due.insert(rule);
        if let Some(record) = &written.record
            && self.is_news(rule, record)
        {
            let record = record.clone();
            self.outputs
                .push_back(LedgerOutput::Learned { rule, record });
        }
        self.known.insert(rule, written);
        self.refuse_beaten(rule);
    }

    /// Somebody has deleted a record.
    pub fn handle_deleted(&mut self, rule: Rule) {
        self.known.remove(&rule);
        self.due.insert(rule);
    }

    /// What became of the write of a rule.
    pub fn handle_outcome(&mut self, rule: Rule, outcome: Outcome, now: Instant) {
        let Some(record) = self.writing.remove(&rule) else {
            return;
        };
        match outcome {
            Outcome::Done(revision) => {
                if let Some(proposal) = self.proposals.get_mut(&rule)
                    && proposal.term == record.term
                {
                    proposal.is_given = true;
                    self.outputs.push_back(LedgerOutput::Decide);
                }
                let record = Some(record);
                self.handle_written(rule, Written { record, revision });
                self.due.insert(rule);
            }
            Outcome::Conflict(Some(written)) => {
                self.handle_written(rule, written);
                self.due.insert(rule);
            }
            Outcome::Conflict(None) => self.handle_deleted(rule),
            Outcome::Failed => {
                self.due.insert(rule);
                self.again.get_or_insert(now + AGAIN);
            }
        }
    }

    /// The time of [`Ledger::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.again.is_some_and(|at| at <= now) {
            self.again = None;
        }
        let is_late = |p: &Proposal| !p.is_given && p.deadline <= now;
        if self.proposals.values().any(is_late) {
            self.outputs.push_back(LedgerOutput::Decide);
        }
        // Nobody came back for it: others must not wait for a holder that is none.
        let is_unused = |p: &Proposal| p.deadline + UNUSED <= now;
        let unused = self.proposals.iter().filter(|(_, p)| is_unused(p));
        for (rule, term) in unused.map(|(rule, p)| (*rule, p.term)).collect::<Vec<_>>() {
            self.proposals.remove(&rule);
            let record = self.record(term, true);
            let is_newer = |own: &Record| own.term >= term;
            if !self.own.get(&rule).is_some_and(is_newer) {
                self.note(rule, term, true);
                self.outputs
                    .push_back(LedgerOutput::Learned { rule, record });
            }
        }
    }

    /// When [`Ledger::handle_timeout`] is to be called, and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let unused = self.proposals.values().map(|p| p.deadline + UNUSED);
        let awaited = self.proposals.values().filter(|p| !p.is_given);
        let leave = awaited.map(|p| (p.deadline, "leave"));
        leave
            .chain(unused.map(|at| (at, "unused leave")))
            .chain(self.again.map(|at| (at, "write again")))
            .min()
    }

    /// What there is to do.
    pub fn poll_output(&mut self) -> Option<LedgerOutput> {
        if self.outputs.is_empty() && self.is_reached && self.again.is_none() {
            for rule in std::mem::take(&mut self.due) {
                self.write(rule);
            }
        }
        self.outputs.pop_front()
    }

    fn write(&mut self, rule: Rule) {
        // The outcome makes it due again.
        if self.writing.contains_key(&rule) {
            return;
        }
        let Some(record) = self.wanted(rule) else {
            return;
        };
        let revision = self.known.get(&rule).map_or(0, |known| known.revision);
        self.writing.insert(rule, record.clone());
        self.outputs.push_back(LedgerOutput::Write {
            rule,
            record,
            revision,
        });
    }

    /// What is to be written of a rule, if it is not yet.
    fn wanted(&self, rule: Rule) -> Option<Record> {
        let known = self
            .known
            .get(&rule)
            .and_then(|known| known.record.as_ref());
        let proposed = self.proposals.get(&rule);
        if let Some(proposal) = proposed.filter(|proposal| !proposal.is_given) {
            let is_free = known.is_none_or(|known| known.term < proposal.term);
            return is_free.then(|| self.record(proposal.term, false));
        }
        let own = self.own.get(&rule)?;
        let is_wanted = match known.map(|known| own.rank().cmp(&known.rank())) {
            None | Some(Ordering::Greater) => true,
            Some(Ordering::Equal) => {
                known.is_some_and(|known| known.is_released != own.is_released)
            }
            Some(Ordering::Less) => false,
        };
        is_wanted.then(|| own.clone())
    }

    /// Whether the owner does not know a record already. What this node wrote it knows, unless that
    /// was before a restart.
    fn is_news(&self, rule: Rule, record: &Record) -> bool {
        if record.holder != self.name {
            return true;
        }
        let own = self.own.get(&rule).map(|own| own.term);
        let proposed = self.proposals.get(&rule).map(|proposal| proposal.term);
        own.max(proposed).is_none_or(|term| record.term > term)
    }

    /// Ends a proposal whose term somebody else has: it would take a higher one.
    fn refuse_beaten(&mut self, rule: Rule) {
        let known = self
            .known
            .get(&rule)
            .and_then(|known| known.record.as_ref());
        let Some(known) = known.filter(|known| known.holder != self.name) else {
            return;
        };
        let proposed = self.proposals.get(&rule);
        if proposed.is_some_and(|proposal| proposal.term <= known.term) {
            self.proposals.remove(&rule);
            self.outputs.push_back(LedgerOutput::Decide);
        }
    }

    fn record(&self, term: u64, is_released: bool) -> Record {
        Record {
            holder: self.name.clone(),
            term,
            is_released,
        }
    }
}

#[cfg(test)]
mod tests;
