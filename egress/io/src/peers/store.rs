// SPDX-License-Identifier: Apache-2.0
//! The store as one of those who are spoken to: claims are written in it, and it says whose lease is
//! there.
//!
//! A task of the daemon's runtime asks and waits ([`begin`]); the thread of egress hands it what is
//! to be asked and hears of the answers as of any other event. A store that hangs delays nobody, and
//! a thread that is busy lets no lease end. What follows from answers is in [`egress_sync::ledger`]
//! and [`egress_sync::lease`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use egress_sync::lease::{Lease, MIN_LIFE, Next, STORE_PATIENCE, Segment, judge, weigh};
use egress_sync::ledger::{Leave, LedgerOutput, Outcome, Record, Written};
use egress_sync::name::{NodeName, Rule};
use egress_sync::wire::Claim;
use egress_sync::witness::Verdict;
use router_store::{Entry, Put, Session, Store, WatchEvent};
use router_types::LinkIndex;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::{Event, Peers};
use crate::announce::is_claimed_by_other;

/// Where the records are, below the store's prefix; version 1 of what is written there.
const RULES: &str = "egress/v1/rules/";

/// Where the leases are.
const GATEWAYS: &str = "egress/v1/gateways/";

/// How long a write may take before it is tried again.
const WRITE_LIMIT: Duration = Duration::from_secs(1);

/// Writes under way at most.
const WRITES: usize = 64;

/// How long hosts of a segment have to answer for an address.
const PROBE_PATIENCE: Duration = Duration::from_millis(50);

/// The store claims are written in.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The connection.
    pub store: Store,
    /// How long this node is taken for alive when it says nothing; [`MIN_LIFE`] at least.
    pub lease: Duration,
}

/// What is asked of the store.
#[derive(Debug)]
pub(super) enum Ask {
    /// Write this if the place is of this revision.
    Write {
        rule: Rule,
        record: Record,
        revision: i64,
    },
    /// Is a node's lease there, whom witnesses say this of?
    Lease { node: NodeName, verdict: Verdict },
    /// Whether this node is to have a lease itself.
    Stand(bool),
}

/// What the store says.
#[derive(Debug)]
pub(crate) enum Said {
    Reached(bool),
    All(BTreeMap<Rule, Written>),
    Written(Rule, Written),
    Deleted(Rule),
    Outcome(Rule, Outcome),
    Lease {
        node: NodeName,
        verdict: Verdict,
        lease: Lease,
    },
}

/// What is known of the store here.
#[derive(Debug)]
pub(super) struct Stored {
    /// Bounded by what is asked: one write for each rule, one question for each node.
    asks: mpsc::UnboundedSender<Ask>,
    is_reached: bool,
    /// Verdicts with what the store said, to be acted on.
    pub(super) leases: Vec<(NodeName, Verdict, Lease)>,
    /// Rules whose record was this node's and not let go, when it was read for the first time.
    kept: BTreeSet<Rule>,
    /// Rules whose leave was awaited at the last decision.
    awaited: BTreeSet<Rule>,
    is_standing: bool,
}

/// Begins to speak to a store, as a task of the calling runtime.
pub(super) fn begin(config: &StoreConfig, name: &NodeName, events: mpsc::Sender<Event>) -> Stored {
    let (asks, queue) = mpsc::unbounded_channel();
    let speaker = Speaker {
        store: config.store.clone(),
        life: config.lease.max(MIN_LIFE),
        key: format!("{GATEWAYS}{name}"),
        session: None,
        writes: Arc::new(Semaphore::new(WRITES)),
        answers: JoinSet::new(),
    };
    tokio::spawn(speaker.run(queue, events));
    Stored {
        asks,
        is_reached: false,
        leases: Vec::new(),
        kept: BTreeSet::new(),
        awaited: BTreeSet::new(),
        is_standing: false,
    }
}

impl Stored {
    fn ask(&self, ask: Ask) {
        // The runtime ends.
        let _ = self.asks.send(ask);
    }

    /// Whether this node may come to hold rules, and others must know whether it lives.
    pub(super) fn stand(&mut self, is_candidate: bool) {
        if std::mem::replace(&mut self.is_standing, is_candidate) != is_candidate {
            self.ask(Ask::Stand(is_candidate));
        }
    }
}

impl Peers {
    /// Takes what the store said.
    pub(super) fn handle_said(&mut self, said: Said, now: Instant) {
        let Some(stored) = &mut self.stored else {
            return;
        };
        match said {
            Said::Reached(true) => {
                stored.is_reached = true;
                self.ledger.handle_reached();
            }
            Said::Reached(false) => {
                stored.is_reached = false;
                self.ledger.handle_lost();
            }
            Said::All(all) => {
                self.ledger.handle_all(all);
                if !stored.is_reached {
                    self.ledger.handle_lost();
                }
            }
            Said::Written(rule, written) => self.ledger.handle_written(rule, written),
            Said::Deleted(rule) => self.ledger.handle_deleted(rule),
            Said::Outcome(rule, outcome) => self.ledger.handle_outcome(rule, outcome, now),
            Said::Lease {
                node,
                verdict,
                lease,
            } => stored.leases.push((node, verdict, lease)),
        }
    }

    /// Carries out what the ledger has.
    pub(super) fn poll_ledger(&mut self) -> bool {
        let mut is_busy = false;
        while let Some(output) = self.ledger.poll_output() {
            is_busy = true;
            match output {
                LedgerOutput::Write {
                    rule,
                    record,
                    revision,
                } => {
                    if let Some(stored) = &self.stored {
                        stored.ask(Ask::Write {
                            rule,
                            record,
                            revision,
                        });
                    }
                }
                LedgerOutput::Learned { rule, record } => self.learn(rule, &record),
                LedgerOutput::Decide => self.is_stale = true,
            }
        }
        is_busy
    }

    fn learn(&mut self, rule: Rule, record: &Record) {
        let term = record.term;
        tracing::debug!(rule = rule.get(), %record, "learned from the store");
        if record.holder == self.name
            && !record.is_released
            && self.table.holder(rule).is_none()
            && let Some(stored) = &mut self.stored
        {
            stored.kept.insert(rule);
        }
        let claim = Claim { rule, term };
        self.table
            .handle_record(claim, &record.holder, record.is_released);
    }

    /// Whether the store says that this node held a rule last, before a restart.
    pub(super) fn has_kept(&self, rule: Rule) -> bool {
        let stored = self.stored.as_ref();
        stored.is_some_and(|stored| stored.kept.contains(&rule))
    }

    /// This node has taken a rule or let it go.
    pub(super) fn note_own(&mut self, rule: Rule, term: u64, is_released: bool) {
        // What it held before a restart it is about to take again: nobody else is to.
        let is_kept = is_released && self.has_kept(rule);
        if self.stored.is_some() && !is_kept {
            self.ledger.note(rule, term, is_released);
        }
    }

    /// Lets go, in the store, of what this node held before a restart and does not go on with.
    pub(super) fn drop_kept(&mut self, goes_on: &dyn Fn(Rule) -> bool) {
        let Some(stored) = &mut self.stored else {
            return;
        };
        let dropped = stored.kept.extract_if(.., |rule| !goes_on(*rule));
        for rule in dropped.collect::<Vec<_>>() {
            if let Some(best) = self.table.holder(rule)
                && best.node == self.name
            {
                self.ledger.note(rule, best.term, best.is_released);
            }
        }
    }

    pub(super) fn forget_awaited(&mut self) {
        if let Some(stored) = &mut self.stored {
            stored.awaited.clear();
        }
    }

    /// Whether a rule may be claimed now: it is written in the store, or that is not waited for.
    pub(super) fn has_leave(&mut self, rule: Rule, now: Instant) -> bool {
        let (Some(stored), Some(term)) = (&mut self.stored, self.table.next_term(rule)) else {
            return true;
        };
        let has_leave = self.ledger.ask(rule, term, now) == Leave::Given;
        if has_leave {
            stored.kept.remove(&rule);
        } else {
            stored.awaited.insert(rule);
        }
        has_leave
    }

    /// Rules that wait for the store, some milliseconds: until then nothing of them changes.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = Rule> {
        let stored = self.stored.iter();
        stored.flat_map(|stored| stored.awaited.iter().copied())
    }

    /// What follows from a verdict of witnesses. The store is asked where they cannot say.
    pub(super) fn conclude(&mut self, about: NodeName, verdict: Verdict, fabric: &[LinkIndex]) {
        let is_open = weigh(verdict, Lease::Held) == Next::AskSegment;
        match &self.stored {
            Some(stored) if is_open && stored.is_reached => {
                let node = about;
                stored.ask(Ask::Lease { node, verdict });
            }
            _ => self.weigh(about, verdict, Lease::Unreached, fabric),
        }
    }

    /// Acts on what the store said of leases.
    pub(super) fn poll_leases(&mut self, fabric: &[LinkIndex]) -> bool {
        let leases = self.stored.as_mut().map(|s| std::mem::take(&mut s.leases));
        let leases = leases.unwrap_or_default();
        let is_busy = !leases.is_empty();
        for (node, verdict, lease) in leases {
            self.weigh(node, verdict, lease, fabric);
        }
        is_busy
    }

    fn weigh(&mut self, node: NodeName, verdict: Verdict, lease: Lease, fabric: &[LinkIndex]) {
        match weigh(verdict, lease) {
            Next::Conclude(verdict) => self.take_verdict(&node, verdict),
            Next::AskSegment => self.probe(node, lease, fabric),
        }
    }

    pub(super) fn take_verdict(&mut self, node: &NodeName, verdict: Verdict) {
        let was_isolated = self.sights.is_isolated();
        self.is_stale |= self.sights.handle_verdict(node, verdict);
        self.has_lost_all |= !was_isolated && self.sights.is_isolated();
    }

    /// Asks the segments whether somebody still answers for what a node held, and somebody else for
    /// what this one holds.
    fn probe(&self, node: NodeName, lease: Lease, fabric: &[LinkIndex]) {
        // Who has been replaced stays so while anybody answers for what it had.
        let is_replaced = self.sights.is_isolated() && lease != Lease::Unreached;
        let theirs = self.probed.get(&node).into_iter().flatten();
        let theirs = theirs.map(|address| (*address, is_replaced));
        let ours = self.probed_own.iter().map(|address| (*address, true));
        let addresses: Vec<_> = match lease {
            Lease::Unreached => theirs.collect(),
            Lease::Held if !is_replaced => ours.collect(),
            Lease::Held | Lease::Gone => theirs.chain(ours).collect(),
        };
        let fabric = fabric.to_vec();
        let events = self.events.clone();
        tokio::spawn(async move {
            let mut probes = JoinSet::new();
            for (address, is_ours) in addresses {
                for link in &fabric {
                    let asked = is_claimed_by_other(address, *link, PROBE_PATIENCE);
                    probes.spawn(async move { (asked.await, is_ours) });
                }
            }
            let mut segment = Segment::default();
            while let Some(answer) = probes.join_next().await {
                match answer {
                    Ok((Ok(true), true)) => segment.is_replaced = true,
                    Ok((Ok(true), false)) => segment.is_answered = true,
                    Ok((Ok(false) | Err(_), _)) | Err(_) => {}
                }
            }
            let probed = Event::Probed {
                node,
                lease,
                segment,
            };
            // The thread ends: nobody wants to know.
            let _ = events.send(probed).await;
        });
    }

    /// Takes what the segments said.
    pub(super) fn handle_probed(
        &mut self,
        node: &NodeName,
        lease: Lease,
        segment: Segment,
        now: Instant,
    ) {
        let (suspect_for, detection) = self.sights.suspect_for(node, now);
        let verdict = judge(lease, segment, suspect_for, detection);
        if segment.is_replaced && verdict == Verdict::Isolated {
            tracing::warn!(
                "another gateway answers for an address of this one, unknown to the store"
            );
        }
        self.take_verdict(node, verdict);
    }
}

/// The task that speaks to the store.
struct Speaker {
    store: Store,
    life: Duration,
    /// What hangs on this node's lease.
    key: String,
    session: Option<Session>,
    writes: Arc<Semaphore>,
    answers: JoinSet<Said>,
}

impl Speaker {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Ask>, events: mpsc::Sender<Event>) {
        let mut status = self.store.watch_status();
        let mut rules = self.store.watch(RULES);
        let mut was_reached = None;
        loop {
            let is_reached = status.borrow_and_update().endpoint.is_some();
            let said = if was_reached.replace(is_reached) != Some(is_reached) {
                Some(Said::Reached(is_reached))
            } else {
                tokio::select! {
                    ask = queue.recv() => match ask {
                        Some(ask) => {
                            self.ask(ask);
                            None
                        }
                        // The thread has ended, and with it this node's lease.
                        None => return,
                    },
                    Some(answer) = self.answers.join_next() => answer.ok(),
                    event = rules.next() => read(event),
                    _ = status.changed() => None,
                }
            };
            if let Some(said) = said
                && events.send(Event::Store(said)).await.is_err()
            {
                return;
            }
        }
    }

    fn ask(&mut self, ask: Ask) {
        let store = self.store.clone();
        match ask {
            Ask::Write {
                rule,
                record,
                revision,
            } => {
                let writes = Arc::clone(&self.writes);
                self.answers.spawn(async move {
                    // Never closed.
                    let _one = writes.acquire().await;
                    let key = format!("{RULES}{rule}");
                    let text = record.to_string();
                    let put = store.put_if(&key, text.as_bytes(), revision, WRITE_LIMIT);
                    Said::Outcome(rule, outcome(put.await))
                });
            }
            Ask::Lease { node, verdict } => {
                self.answers.spawn(async move {
                    let key = format!("{GATEWAYS}{node}");
                    let lease = match store.get(&key, STORE_PATIENCE).await {
                        Ok(Some(_)) => Lease::Held,
                        Ok(None) => Lease::Gone,
                        Err(error) => {
                            tracing::debug!(%node, %error, "the store is asked in vain");
                            Lease::Unreached
                        }
                    };
                    Said::Lease {
                        node,
                        verdict,
                        lease,
                    }
                });
            }
            Ask::Stand(true) => {
                let session = store.session(self.life);
                session.keep(&self.key, b"");
                self.session = Some(session);
            }
            // Its lease ends by itself: what it held it has until then.
            Ask::Stand(false) => self.session = None,
        }
    }
}

fn outcome(put: Result<Put, router_store::Error>) -> Outcome {
    match put {
        Ok(Put::Done { revision }) => Outcome::Done(revision),
        Ok(Put::Conflict(entry)) => Outcome::Conflict(entry.map(|entry| written(&entry))),
        Err(error) => {
            tracing::debug!(%error, "a claim is not written");
            Outcome::Failed
        }
    }
}

fn written(entry: &Entry) -> Written {
    let record = Record::read(&entry.value);
    if record.is_none() {
        let value = String::from_utf8_lossy(&entry.value);
        tracing::warn!(key = entry.key, %value, "not written by a gateway");
    }
    Written {
        record,
        revision: entry.revision,
    }
}

/// The rule of a key; none of what is not ours.
fn rule_of(key: &str) -> Option<Rule> {
    Rule::new(key.strip_prefix(RULES)?.parse().ok()?)
}

fn read(event: WatchEvent) -> Option<Said> {
    Some(match event {
        WatchEvent::Snapshot(entries) => {
            let all = entries.iter();
            Said::All(
                all.filter_map(|entry| Some((rule_of(&entry.key)?, written(entry))))
                    .collect(),
            )
        }
        WatchEvent::Put(entry) => Said::Written(rule_of(&entry.key)?, written(&entry)),
        WatchEvent::Deleted { key } => Said::Deleted(rule_of(&key)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let rule = Rule::new(70_000);
        assert_eq!(rule_of("egress/v1/rules/70000"), rule);
        for key in [
            "egress/v1/rules/",
            "egress/v1/rules/x",
            "egress/v1/rules/16777216",
            "egress/v1/gateways/7",
        ] {
            assert_eq!(rule_of(key), None, "{key}");
        }
    }
}
