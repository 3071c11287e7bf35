// SPDX-License-Identifier: Apache-2.0
//! All valid objects, wherever they come from, and what is said about them.
//!
//! The store takes whole files. A file with an error changes nothing: the objects of its last good
//! version stay in force, and their `Accepted` condition says so. A file's objects never depend on
//! another file being right. Where two files (or two documents) hold an object of one kind and
//! name, the first in path and document order is in force and the other's condition names it.
//!
//! Readers get a [`Snapshot`], which is cheap to clone and never changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::condition::{Condition, Statement, Timestamp};
use crate::diagnostic::Diagnostic;
use crate::object::ObjectKey;
use crate::parse::{ParsedObject, parse_file};
use crate::snapshot::{Snapshot, Source, Stored};

/// The type of the condition by which the store says whether an object is in force as written.
pub const ACCEPTED: &str = "causeway.io/Accepted";

/// What became of a file.
#[derive(Clone, PartialEq, Eq)]
pub enum FileContent {
    /// It has these bytes.
    Bytes(Vec<u8>),
    /// It is there and cannot be read, for this reason. Treated as a broken file.
    Unreadable(String),
    /// It is larger than [`crate::parse::MAX_FILE_BYTES`]: this many bytes. Treated as a broken file.
    TooLarge(u64),
    /// It is gone, and its objects with it.
    Removed,
}

impl fmt::Debug for FileContent {
    /// Shows the number of bytes and not the bytes: there may be a Secret among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileContent::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            FileContent::Unreadable(why) => write!(f, "Unreadable({why:?})"),
            FileContent::TooLarge(size) => write!(f, "TooLarge({size})"),
            FileContent::Removed => f.write_str("Removed"),
        }
    }
}

/// A change of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEvent {
    /// The file.
    pub path: PathBuf,
    /// What became of it.
    pub content: FileContent,
}

/// Which objects changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Objects that came into force.
    pub added: BTreeSet<ObjectKey>,
    /// Objects in force with another content.
    pub updated: BTreeSet<ObjectKey>,
    /// Objects no longer in force.
    pub removed: BTreeSet<ObjectKey>,
    /// Findings in the files that were read, errors and warnings.
    pub diagnostics: Vec<Diagnostic>,
}

impl Change {
    /// Whether no object changed. Findings do not count.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.updated.is_empty() && self.removed.is_empty()
    }
}

/// What there is to say about one object.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectStatus {
    /// The object.
    pub key: ObjectKey,
    /// The `apiVersion` it was written in.
    pub api_version: &'static str,
    /// Where it was read.
    pub source: Source,
    /// The generation of its spec.
    pub generation: i64,
    /// Whether this is the object in force under its name.
    pub in_force: bool,
    /// The statements about it; `causeway.io/Accepted` first.
    pub conditions: Vec<Condition>,
}

/// What there is to say about one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// The file.
    pub path: PathBuf,
    /// Findings in its newest version.
    pub diagnostics: Vec<Diagnostic>,
    /// Objects the file contributes, of the newest version or of the last good one.
    pub objects: usize,
    /// Whether the newest version is broken, so that an older one, or nothing, is in force.
    pub is_stale: bool,
}

#[derive(Clone, Debug, Default)]
struct FileEntry {
    /// Objects of the last good version.
    objects: Vec<ParsedObject>,
    /// Findings in the newest version.
    diagnostics: Vec<Diagnostic>,
    is_stale: bool,
}

/// An object that is not in force because of another of the same name.
#[derive(Clone, Debug)]
struct Shadowed {
    key: ObjectKey,
    api_version: &'static str,
    source: Source,
    winner: Source,
}

/// The store. See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Store {
    files: BTreeMap<PathBuf, FileEntry>,
    snapshot: Snapshot,
    shadowed: Vec<Shadowed>,
    /// Conditions made by subsystems, with the time of their last transition.
    conditions: BTreeMap<ObjectKey, Vec<Condition>>,
    /// The store's own conditions, kept for their transition times, by file and document.
    accepted: BTreeMap<(ObjectKey, Source), Condition>,
}

impl Store {
    /// An empty store.
    pub fn new() -> Self {
        Store::default()
    }

    /// Takes changes of files and says which objects changed by them.
    pub fn apply(&mut self, events: Vec<FileEvent>, now: SystemTime) -> Change {
        let mut diagnostics = Vec::new();
        for event in events {
            self.take_file(event, &mut diagnostics);
        }
        let mut change = self.rebuild();
        change.diagnostics = diagnostics;
        self.restate(now);
        change
    }

    /// The objects in force.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// Replaces what subsystems say about objects. Objects not named lose their statements; a
    /// condition whose status is the same keeps its transition time. Statements about objects
    /// that are not in force are dropped.
    pub fn set_conditions(
        &mut self,
        statements: impl IntoIterator<Item = (ObjectKey, Statement)>,
        now: SystemTime,
    ) {
        let mut fresh: BTreeMap<ObjectKey, Vec<Condition>> = BTreeMap::new();
        for (key, statement) in statements {
            let Some(stored) = self.snapshot.get(&key) else {
                continue;
            };
            let old = self.conditions.get(&key).into_iter().flatten();
            let condition = condition(statement, stored.generation, old, now);
            fresh.entry(key).or_default().push(condition);
        }
        for conditions in fresh.values_mut() {
            conditions.sort_by(|a, b| {
                (&a.condition_type, &a.reason, &a.message).cmp(&(
                    &b.condition_type,
                    &b.reason,
                    &b.message,
                ))
            });
            merge_same_type(conditions);
        }
        self.conditions = fresh;
    }

    /// What there is to say about each object, in force or shadowed, in order of keys.
    pub fn statuses(&self) -> Vec<ObjectStatus> {
        let mut statuses: Vec<ObjectStatus> = self
            .snapshot
            .iter()
            .map(|stored| {
                let key = stored.object.key();
                let own = self
                    .accepted
                    .get(&(key.clone(), stored.source.clone()))
                    .cloned();
                let others = self.conditions.get(&key).into_iter().flatten().cloned();
                ObjectStatus {
                    api_version: stored.object.api_version,
                    source: stored.source.clone(),
                    generation: stored.generation,
                    in_force: true,
                    conditions: own.into_iter().chain(others).collect(),
                    key,
                }
            })
            .chain(self.shadowed.iter().map(|shadowed| {
                let own = self
                    .accepted
                    .get(&(shadowed.key.clone(), shadowed.source.clone()));
                ObjectStatus {
                    key: shadowed.key.clone(),
                    api_version: shadowed.api_version,
                    source: shadowed.source.clone(),
                    generation: 1,
                    in_force: false,
                    conditions: own.cloned().into_iter().collect(),
                }
            }))
            .collect();
        statuses.sort_by(|a, b| {
            (&a.key, !a.in_force, &a.source).cmp(&(&b.key, !b.in_force, &b.source))
        });
        statuses
    }

    /// What there is to say about each file, in path order.
    pub fn files(&self) -> Vec<FileStatus> {
        self.files
            .iter()
            .map(|(path, entry)| FileStatus {
                path: path.clone(),
                diagnostics: entry.diagnostics.clone(),
                objects: entry.objects.len(),
                is_stale: entry.is_stale,
            })
            .collect()
    }

    fn take_file(&mut self, event: FileEvent, diagnostics: &mut Vec<Diagnostic>) {
        let parsed = match event.content {
            FileContent::Removed => {
                self.files.remove(&event.path);
                return;
            }
            FileContent::Bytes(bytes) => parse_file(&event.path, &bytes),
            FileContent::Unreadable(why) => crate::parse::unreadable(&event.path, &why),
            FileContent::TooLarge(size) => crate::parse::too_large(&event.path, size),
        };
        diagnostics.extend(parsed.diagnostics.iter().cloned());
        let entry = self.files.entry(event.path).or_default();
        entry.is_stale = parsed.diagnostics.iter().any(Diagnostic::is_error);
        if !entry.is_stale {
            entry.objects = parsed.objects;
        }
        entry.diagnostics = parsed.diagnostics;
    }

    /// Computes the objects in force from the files, and what changed.
    fn rebuild(&mut self) -> Change {
        let mut change = Change::default();
        let mut objects: BTreeMap<ObjectKey, Arc<Stored>> = BTreeMap::new();
        self.shadowed.clear();
        for entry in self.files.values() {
            for parsed in &entry.objects {
                let key = parsed.object.key();
                if let Some(winner) = objects.get(&key) {
                    self.shadowed.push(Shadowed {
                        key,
                        api_version: parsed.object.api_version,
                        source: parsed.source.clone(),
                        winner: winner.source.clone(),
                    });
                    continue;
                }
                let old = self.snapshot.objects.get(&key);
                let stored = match old {
                    None => {
                        change.added.insert(key.clone());
                        Arc::new(Stored {
                            generation: parsed.object.metadata.generation.unwrap_or(1),
                            object: parsed.object.clone(),
                            source: parsed.source.clone(),
                        })
                    }
                    Some(old) if old.object == parsed.object && old.source == parsed.source => {
                        Arc::clone(old)
                    }
                    Some(old) => {
                        let is_moved_only = old.object == parsed.object;
                        let counted =
                            old.generation + i64::from(old.object.body != parsed.object.body);
                        if !is_moved_only {
                            change.updated.insert(key.clone());
                        }
                        Arc::new(Stored {
                            generation: parsed.object.metadata.generation.unwrap_or(counted),
                            object: parsed.object.clone(),
                            source: parsed.source.clone(),
                        })
                    }
                };
                objects.insert(key, stored);
            }
        }
        for key in self.snapshot.objects.keys() {
            if !objects.contains_key(key) {
                change.removed.insert(key.clone());
            }
        }
        self.conditions.retain(|key, _| objects.contains_key(key));
        self.snapshot = Snapshot {
            objects: Arc::new(objects),
        };
        change
    }

    /// Renews the store's own conditions.
    fn restate(&mut self, now: SystemTime) {
        let mut fresh = BTreeMap::new();
        for stored in self.snapshot.iter() {
            let id = (stored.object.key(), stored.source.clone());
            let statement = match self.stale_reason(&stored.source.file) {
                Some(why) => Statement::is_false(
                    ACCEPTED,
                    "LastGoodVersion",
                    format!("the file has an error, its last good version stays in force: {why}"),
                ),
                None => Statement::is_true(ACCEPTED, "Valid", "in force as written"),
            };
            let old = self.accepted.get(&id);
            fresh.insert(id, condition(statement, stored.generation, old, now));
        }
        for shadowed in &self.shadowed {
            let id = (shadowed.key.clone(), shadowed.source.clone());
            let statement = Statement::is_false(
                ACCEPTED,
                "DuplicateObject",
                format!(
                    "{} is already in {}, which is first in path order and is used; \
                     remove or rename one of the two",
                    shadowed.key, shadowed.winner
                ),
            );
            let old = self.accepted.get(&id);
            fresh.insert(id, condition(statement, 1, old, now));
        }
        self.accepted = fresh;
    }

    fn stale_reason(&self, file: &Path) -> Option<String> {
        let entry = self.files.get(file).filter(|entry| entry.is_stale)?;
        entry
            .diagnostics
            .iter()
            .find(|d| d.is_error())
            .map(ToString::to_string)
    }
}

/// A condition from a statement; its transition time is the old one's where the status is the same.
fn condition<'a>(
    statement: Statement,
    generation: i64,
    old: impl IntoIterator<Item = &'a Condition>,
    now: SystemTime,
) -> Condition {
    let since = old
        .into_iter()
        .find(|c| c.condition_type == statement.condition_type && c.status == statement.status)
        .map_or_else(|| Timestamp::from(now), |c| c.last_transition_time);
    Condition {
        condition_type: statement.condition_type.into(),
        status: statement.status,
        reason: statement.reason.into(),
        message: statement.message,
        observed_generation: Some(generation),
        last_transition_time: since,
    }
}

/// Kubernetes allows one condition of each type: several are joined, their messages in order.
fn merge_same_type(conditions: &mut Vec<Condition>) {
    conditions.dedup_by(|later, first| {
        let is_same = later.condition_type == first.condition_type;
        if is_same && later.message != first.message {
            first.message.push_str("; ");
            first.message.push_str(&later.message);
        }
        is_same
    });
}
