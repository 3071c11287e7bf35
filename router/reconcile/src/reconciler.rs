// SPDX-License-Identifier: Apache-2.0
//! The comparison of wanted and actual, without I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use crate::operations::{Operation, Operations};
use crate::status::{Failure, KeyState, KeyStatus, Summary};

/// How a reconciler behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Delay before the second attempt at a key.
    pub retry_min: Duration,
    /// Longest delay between attempts.
    pub retry_max: Duration,
    /// How often everything is listed and compared, unasked; `None`: only when asked.
    pub resync_interval: Option<Duration>,
    /// How long after the start stale things are kept when nobody calls [`Reconciler::prune`];
    /// `None`: for ever.
    pub prune_deadline: Option<Duration>,
    /// Most operations in one [`Output::Apply`]. More means fewer, longer interruptions of the
    /// caller.
    pub batch: usize,
}

impl Default for Config {
    /// Retries after 1 s to 60 s; a comparison every ten minutes, cheap insurance against missed
    /// notifications; stale things kept for six minutes: the 120 s a BGP peer gets to come back
    /// (RFC 4724 leaves it to us) and twice that to deliver a full table; batches of 1024.
    fn default() -> Self {
        Config {
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(60),
            resync_interval: Some(Duration::from_secs(600)),
            prune_deadline: Some(Duration::from_secs(360)),
            batch: 1024,
        }
    }
}

/// What the caller is to do.
pub enum Output<O: Operations> {
    /// List everything, then call [`Reconciler::handle_listing`] or
    /// [`Reconciler::handle_listing_failed`]. No operations may be under way meanwhile.
    List,
    /// Carry these out, in order, then call [`Reconciler::handle_result`] for each.
    Apply(Vec<Operation<O::Key, O::Desired>>),
}

impl<O: Operations> fmt::Debug for Output<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::List => f.write_str("List"),
            Output::Apply(batch) => f.debug_tuple("Apply").field(batch).finish(),
        }
    }
}

impl<O: Operations> PartialEq for Output<O> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Output::List, Output::List) => true,
            (Output::Apply(a), Output::Apply(b)) => a == b,
            (Output::List, Output::Apply(_)) | (Output::Apply(_), Output::List) => false,
        }
    }
}

/// Desired state, and how far the world is from it. See the crate's documentation.
pub struct Reconciler<O: Operations> {
    config: Config,
    entries: BTreeMap<O::Key, Entry<O::Desired>>,
    /// Keys whose entry is `Phase::Queued`, oldest first; each entry is in it once. May also hold
    /// keys that left that phase: they are skipped.
    queue: VecDeque<O::Key>,
    /// Keys whose entry is `Phase::Waiting`, by when they are due.
    retries: BTreeSet<(Instant, O::Key)>,
    stale: BTreeMap<O::Key, O::Actual>,
    listing: Listing,
    /// Whether any listing succeeded: before that nothing is written.
    listed: bool,
    listing_failure: Option<Failure>,
    next_resync: Option<Instant>,
    prune_deadline: Option<Instant>,
    pruning: bool,
    wanted: usize,
    repaired: u64,
}

/// Whether everything is to be listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Listing {
    /// Asked for, nobody was told yet.
    Wanted,
    /// Somebody was told.
    InFlight,
    /// Failed; to be tried again then.
    Waiting(Instant),
    /// Not asked for.
    Idle,
}

struct Entry<D> {
    /// `None`: to be deleted.
    desired: Option<D>,
    phase: Phase,
    /// Whether the listing being handled showed it.
    seen: bool,
    failure: Option<Box<Failure>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// In `queue`.
    Queued,
    /// Handed out. `again`: the wish changed meanwhile.
    InFlight { again: bool },
    /// As wanted.
    Applied,
    /// Failed; in `retries` under this time.
    Waiting(Instant),
}

impl<O: Operations> Reconciler<O> {
    /// Starts with no wishes and asks for a listing.
    pub fn new(config: Config, now: Instant) -> Self {
        Reconciler {
            config,
            entries: BTreeMap::new(),
            queue: VecDeque::new(),
            retries: BTreeSet::new(),
            stale: BTreeMap::new(),
            listing: Listing::Wanted,
            listed: false,
            listing_failure: None,
            next_resync: config.resync_interval.map(|interval| now + interval),
            prune_deadline: config.prune_deadline.map(|delay| now + delay),
            pruning: false,
            wanted: 0,
            repaired: 0,
        }
    }

    /// Wishes for a thing. The same wish again changes nothing.
    pub fn set(&mut self, key: O::Key, desired: O::Desired) {
        match self.entries.get_mut(&key) {
            Some(entry) => {
                if entry.desired.as_ref() == Some(&desired) {
                    return;
                }
                self.wanted += usize::from(entry.desired.is_none());
                entry.desired = Some(desired);
                self.mark_changed(&key);
            }
            None => {
                let adopted = self
                    .stale
                    .remove(&key)
                    .is_some_and(|actual| O::is_as_desired(&desired, &actual));
                self.wanted += 1;
                let phase = if adopted {
                    Phase::Applied
                } else {
                    Phase::Queued
                };
                if !adopted {
                    self.queue.push_back(key.clone());
                }
                let entry = Entry {
                    desired: Some(desired),
                    phase,
                    seen: false,
                    failure: None,
                };
                self.entries.insert(key, entry);
            }
        }
    }

    /// Takes a wish back: the thing is deleted. Nothing happens to things nobody wished for.
    pub fn remove(&mut self, key: &O::Key) {
        if let Some(entry) = self.entries.get_mut(key)
            && entry.desired.take().is_some()
        {
            self.wanted -= 1;
            self.mark_changed(key);
        }
    }

    /// Takes back all wishes `keep` does not hold for.
    pub fn retain(&mut self, mut keep: impl FnMut(&O::Key) -> bool) {
        let unwanted: Vec<O::Key> = self
            .entries
            .keys()
            .filter(|key| !keep(key))
            .cloned()
            .collect();
        unwanted.iter().for_each(|key| self.remove(key));
    }

    /// Says that all wishes are known: what is stale is deleted, as is from here on anything found
    /// that nobody wants.
    pub fn prune(&mut self) {
        self.pruning = true;
        self.prune_deadline = None;
        for key in std::mem::take(&mut self.stale).into_keys() {
            self.enqueue_unwanted(key);
        }
    }

    /// Whether [`Reconciler::prune`] was called or its deadline passed.
    pub fn is_pruning(&self) -> bool {
        self.pruning
    }

    /// Asks for a listing: something may have changed behind our back.
    pub fn resync(&mut self) {
        if self.listing != Listing::InFlight {
            self.listing = Listing::Wanted;
        }
    }

    /// Compares everything there is with everything wanted.
    pub fn handle_listing(&mut self, listing: impl IntoIterator<Item = (O::Key, O::Actual)>) {
        self.listing = Listing::Idle;
        self.listed = true;
        self.listing_failure = None;
        self.stale.clear();
        for (key, actual) in listing {
            self.compare(key.clone(), Some(actual));
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.seen = true;
            }
        }
        let mut missing = Vec::new();
        self.entries.retain(|key, entry| {
            if std::mem::take(&mut entry.seen) {
                return true;
            }
            if entry.desired.is_none() && !matches!(entry.phase, Phase::InFlight { .. }) {
                if let Phase::Waiting(due) = entry.phase {
                    self.retries.remove(&(due, key.clone()));
                }
                return false;
            }
            if entry.phase == Phase::Applied {
                missing.push(key.clone());
            }
            true
        });
        for key in missing {
            self.repaired += 1;
            self.mark_changed(&key);
        }
    }

    /// A listing failed; it is tried again with the delays of a key.
    pub fn handle_listing_failed(&mut self, error: String, now: Instant) {
        let failure = next_failure(self.listing_failure.take(), error, now);
        self.listing = Listing::Waiting(now + self.config.delay(failure.attempts));
        tracing::warn!(error = %failure.last_error, attempts = failure.attempts, "listing failed");
        self.listing_failure = Some(failure);
    }

    /// Somebody else made, changed or (with `None`) deleted a thing of ours.
    pub fn handle_observed(&mut self, key: O::Key, actual: Option<O::Actual>) {
        self.compare(key, actual);
    }

    /// An operation was carried out, or failed for the given reason. For keys not handed out by
    /// [`Output::Apply`] nothing happens.
    pub fn handle_result(&mut self, key: &O::Key, result: Result<(), String>, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let Phase::InFlight { again } = entry.phase else {
            return;
        };
        match result {
            Ok(()) => {
                entry.failure = None;
                if again {
                    entry.phase = Phase::Queued;
                    self.queue.push_back(key.clone());
                } else if entry.desired.is_some() {
                    entry.phase = Phase::Applied;
                } else {
                    self.entries.remove(key);
                }
            }
            Err(error) => {
                let failure = next_failure(entry.failure.take().map(|f| *f), error, now);
                if failure.attempts == 1 {
                    tracing::warn!(?key, error = %failure.last_error, "cannot apply");
                } else {
                    tracing::debug!(
                        ?key, error = %failure.last_error, attempts = failure.attempts,
                        "still cannot apply"
                    );
                }
                if again {
                    entry.phase = Phase::Queued;
                    self.queue.push_back(key.clone());
                } else {
                    let due = now + self.config.delay(failure.attempts);
                    entry.phase = Phase::Waiting(due);
                    self.retries.insert((due, key.clone()));
                }
                entry.failure = Some(Box::new(failure));
            }
        }
    }

    /// Lets time pass: due retries, the regular comparison, the deadline for pruning.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((due, _)) = self.retries.first()
            && *due <= now
            && let Some((_, key)) = self.retries.pop_first()
        {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.phase = Phase::Queued;
                self.queue.push_back(key);
            }
        }
        if let Listing::Waiting(due) = self.listing
            && due <= now
        {
            self.listing = Listing::Wanted;
        }
        if self.next_resync.is_some_and(|due| due <= now) {
            self.next_resync = self.config.resync_interval.map(|interval| now + interval);
            self.resync();
        }
        if self.prune_deadline.is_some_and(|due| due <= now) {
            if !self.stale.is_empty() {
                tracing::warn!(
                    count = self.stale.len(),
                    "pruning what was kept over the restart: its sources did not report in time"
                );
            }
            self.prune();
        }
    }

    /// When to call [`Reconciler::handle_timeout`] at the latest, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let listing = match self.listing {
            Listing::Waiting(due) => Some(due),
            Listing::Wanted | Listing::InFlight | Listing::Idle => None,
        };
        [
            (
                self.retries.first().map(|(due, _)| *due),
                "retry of a failed key",
            ),
            (listing, "retry of a failed listing"),
            (self.next_resync, "regular comparison"),
            (self.prune_deadline, "deadline for pruning"),
        ]
        .into_iter()
        .filter_map(|(due, why)| due.map(|due| (due, why)))
        .min()
    }

    /// The next thing to do, if any. Listings come before operations.
    pub fn poll_output(&mut self) -> Option<Output<O>> {
        match self.listing {
            Listing::Wanted => {
                self.listing = Listing::InFlight;
                return Some(Output::List);
            }
            Listing::InFlight => return None,
            Listing::Waiting(_) if !self.listed => return None,
            Listing::Waiting(_) | Listing::Idle => {}
        }
        let mut batch = Vec::new();
        while batch.len() < self.config.batch
            && let Some(key) = self.queue.pop_front()
        {
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            if entry.phase != Phase::Queued {
                continue;
            }
            entry.phase = Phase::InFlight { again: false };
            batch.push(match &entry.desired {
                Some(desired) => Operation::Update(key, desired.clone()),
                None => Operation::Delete(key),
            });
        }
        (!batch.is_empty()).then_some(Output::Apply(batch))
    }

    /// What is known about a key; `None` for one nobody wished for and nobody found.
    pub fn status(&self, key: &O::Key) -> Option<KeyStatus<'_>> {
        match self.entries.get(key) {
            Some(entry) => Some(entry.status()),
            None => self.stale.contains_key(key).then_some(KeyStatus {
                state: KeyState::Stale,
                failure: None,
            }),
        }
    }

    /// All wishes and where they are, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&O::Key, Option<&O::Desired>, KeyStatus<'_>)> {
        self.entries
            .iter()
            .map(|(key, entry)| (key, entry.desired.as_ref(), entry.status()))
    }

    /// The keys that fail.
    pub fn failures(&self) -> impl Iterator<Item = (&O::Key, &Failure)> {
        self.entries
            .iter()
            .filter_map(|(key, e)| e.failure.as_deref().map(|f| (key, f)))
    }

    /// What was kept over a restart without anybody having wished for it.
    pub fn stale(&self) -> impl Iterator<Item = (&O::Key, &O::Actual)> {
        self.stale.iter()
    }

    /// The failures of listing in a row, if the last one failed.
    pub fn listing_failure(&self) -> Option<&Failure> {
        self.listing_failure.as_ref()
    }

    /// Counts. Walks all entries.
    pub fn summary(&self) -> Summary {
        let applied = |e: &&Entry<O::Desired>| e.phase == Phase::Applied;
        Summary {
            wanted: self.wanted,
            applied: self.entries.values().filter(applied).count(),
            failed: self
                .entries
                .values()
                .filter(|e| e.failure.is_some())
                .count(),
            stale: self.stale.len(),
            repaired: self.repaired,
        }
    }

    /// Compares one thing as found with what is wanted of it.
    fn compare(&mut self, key: O::Key, actual: Option<O::Actual>) {
        let Some(entry) = self.entries.get_mut(&key) else {
            match actual {
                None => {
                    self.stale.remove(&key);
                }
                Some(_) if self.pruning => self.enqueue_unwanted(key),
                Some(actual) => {
                    self.stale.insert(key, actual);
                }
            }
            return;
        };
        let as_desired = match (&entry.desired, &actual) {
            (Some(desired), Some(actual)) => O::is_as_desired(desired, actual),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        match entry.phase {
            Phase::Applied if !as_desired => {
                self.repaired += 1;
                self.mark_changed(&key);
            }
            // Found as wanted before it was written: by an earlier run, or by the operator.
            Phase::Queued if as_desired && entry.desired.is_some() => {
                entry.phase = Phase::Applied;
                entry.failure = None;
            }
            Phase::Waiting(due) if as_desired => {
                self.retries.remove(&(due, key.clone()));
                if entry.desired.is_some() {
                    entry.phase = Phase::Applied;
                    entry.failure = None;
                } else {
                    self.entries.remove(&key);
                }
            }
            Phase::Applied | Phase::Queued | Phase::InFlight { .. } | Phase::Waiting(_) => {}
        }
    }

    fn enqueue_unwanted(&mut self, key: O::Key) {
        let entry = Entry {
            desired: None,
            phase: Phase::Queued,
            seen: false,
            failure: None,
        };
        self.queue.push_back(key.clone());
        self.entries.insert(key, entry);
    }

    /// Puts an existing entry back on the way.
    fn mark_changed(&mut self, key: &O::Key) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        match entry.phase {
            Phase::Queued => return,
            Phase::InFlight { .. } => {
                entry.phase = Phase::InFlight { again: true };
                return;
            }
            Phase::Waiting(due) => {
                self.retries.remove(&(due, key.clone()));
            }
            Phase::Applied => {}
        }
        entry.phase = Phase::Queued;
        self.queue.push_back(key.clone());
    }
}

impl<O: Operations> fmt::Debug for Reconciler<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconciler")
            .field("summary", &self.summary())
            .field("listing", &self.listing)
            .field("pruning", &self.pruning)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// The delay after this many failures in a row.
    fn delay(&self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(16);
        self.retry_min
            .saturating_mul(1 << doublings)
            .min(self.retry_max)
    }
}

impl<D> Entry<D> {
    fn status(&self) -> KeyStatus<'_> {
        let state = match (self.phase, &self.desired) {
            (Phase::Applied, _) => KeyState::Applied,
            (Phase::Waiting(_), _) => KeyState::Failed,
            (Phase::Queued | Phase::InFlight { .. }, Some(_)) => KeyState::Pending,
            (Phase::Queued | Phase::InFlight { .. }, None) => KeyState::Deleting,
        };
        KeyStatus {
            state,
            failure: self.failure.as_deref(),
        }
    }
}

fn next_failure(previous: Option<Failure>, error: String, now: Instant) -> Failure {
    Failure {
        last_error: error,
        since: previous.as_ref().map_or(now, |f| f.since),
        attempts: previous.map_or(0, |f| f.attempts).saturating_add(1),
    }
}
