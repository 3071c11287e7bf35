// SPDX-License-Identifier: Apache-2.0
//! What is written down about running labs, so that other processes find them and a crash leaves
//! nothing that `down` cannot remove.
//!
//! `/run/causeway-lab/<lab>/.lab.json` describes the lab, `<node>.json` one node each (node names
//! cannot begin with a dot). A node is recorded before anything is set up in it.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::image::MainProcess;

/// Where labs are recorded.
pub const STATE_ROOT: &str = "/run/causeway-lab";

/// A process, told apart from a later one with the same number by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Number as seen from the root namespace.
    pub pid: i32,
    /// Start time in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub start_time: u64,
}

impl ProcessId {
    /// Identifies a running process; none when there is no such process.
    pub fn of(pid: i32) -> Option<Self> {
        let (state, _, start_time) = stat(pid)?;
        (state != 'Z').then_some(Self { pid, start_time })
    }

    /// Whether this very process still runs.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal, if the process still runs.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than the process being gone.
    pub fn signal(self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot signal pid {}", self.pid)),
        }
    }
}

/// State letter, parent and start time of a process.
pub(crate) fn stat(pid: i32) -> Option<(char, i32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may contain spaces and parentheses; what follows the last one does not.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some((
        fields.first()?.chars().next()?,
        fields.get(1)?.parse().ok()?,
        fields.get(19)?.parse().ok()?,
    ))
}

/// Every process number in `/proc`.
pub(crate) fn all_pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// How long a lab lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifetime {
    /// Until somebody takes it down.
    Detached,
    /// At most as long as the process that made it: the kernel tells the nodes when it ends.
    Attached,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LabRecord {
    pub(crate) topology: PathBuf,
    pub(crate) lifetime: Lifetime,
    /// Set when everything is up.
    pub(crate) complete: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeRecord {
    /// The process that keeps the node's namespaces; pid 1 inside.
    pub(crate) init: ProcessId,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) main: Option<MainProcess>,
}

/// Held while a lab is changed.
pub(crate) type LabLock = Flock<fs::File>;

/// The folder of one lab.
#[derive(Debug, Clone)]
pub(crate) struct LabDir {
    pub(crate) path: PathBuf,
}

impl LabDir {
    pub(crate) fn of(name: &str) -> Self {
        Self {
            path: Path::new(STATE_ROOT).join(name),
        }
    }

    fn lock_path(&self) -> PathBuf {
        self.path.with_added_extension("lock")
    }

    /// Keeps other processes from changing this lab until the lock is dropped.
    pub(crate) fn lock(&self) -> Result<LabLock> {
        fs::create_dir_all(STATE_ROOT).with_context(|| format!("cannot create {STATE_ROOT}"))?;
        let path = self.lock_path();
        loop {
            let lock = lock_file(&path)?;
            // Whoever took the lab down before us removed the file that we waited for.
            let current = fs::metadata(&path).map(|file| file.ino()).ok();
            if current == Some(lock.metadata()?.ino()) {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock only if nobody has it.
    pub(crate) fn try_lock(&self) -> Option<LabLock> {
        let file = fs::File::create(self.lock_path()).ok()?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()
    }

    pub(crate) fn write_lab(&self, record: &LabRecord) -> Result<()> {
        fs::create_dir_all(&self.path)
            .with_context(|| format!("cannot create {}", self.path.display()))?;
        write_json(&self.path.join(".lab.json"), record)
    }

    pub(crate) fn read_lab(&self) -> Option<LabRecord> {
        serde_json::from_slice(&fs::read(self.path.join(".lab.json")).ok()?).ok()
    }

    pub(crate) fn write_node(&self, name: &str, record: &NodeRecord) -> Result<()> {
        write_json(&self.path.join(format!("{name}.json")), record)
    }

    pub(crate) fn read_nodes(&self) -> BTreeMap<String, NodeRecord> {
        let Ok(entries) = fs::read_dir(&self.path) else {
            return BTreeMap::new();
        };
        let mut nodes = BTreeMap::new();
        for entry in entries.flatten() {
            let file = entry.file_name();
            let Some(name) = file.to_str().and_then(|file| file.strip_suffix(".json")) else {
                continue;
            };
            if name.starts_with('.') {
                continue;
            }
            if let Some(record) = fs::read(entry.path())
                .ok()
                .and_then(|text| serde_json::from_slice(&text).ok())
            {
                nodes.insert(name.to_owned(), record);
            }
        }
        nodes
    }

    /// Removes the records, and the lock file that the caller holds.
    pub(crate) fn remove(&self, _lock: &LabLock) -> Result<()> {
        for result in [
            fs::remove_dir_all(&self.path),
            fs::remove_file(self.lock_path()),
        ] {
            match result {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error)
                        .with_context(|| format!("cannot remove {}", self.path.display()));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// Names of all recorded labs.
pub(crate) fn lab_names() -> Vec<String> {
    let Ok(entries) = fs::read_dir(STATE_ROOT) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Takes an exclusive lock on a file, creating it; waits for whoever holds it.
///
/// # Errors
/// When it cannot be created or locked.
pub fn lock_file(path: &Path) -> Result<Flock<fs::File>> {
    let file = fs::File::create(path)
        .with_context(|| format!("cannot create lock file {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(|| format!("cannot lock {}", path.display()))
}

/// Writes beside the target and renames, so that a reader never sees half a record.
fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).context("a record always serialises")?;
    let beside = path.with_added_extension("new");
    fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_number_and_start_time() {
        let own = i32::try_from(std::process::id()).expect("pids are positive");
        let this = ProcessId::of(own).expect("we run");
        assert!(this.is_alive());
        assert!(
            !ProcessId {
                start_time: this.start_time + 1,
                ..this
            }
            .is_alive()
        );
        assert_eq!(stat(own).expect("we run").2, this.start_time);
    }
}
