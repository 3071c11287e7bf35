// SPDX-License-Identifier: Apache-2.0
//! The journal on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};
use pods_core::Registry;
use pods_core::journal::{self, Header, Record, Replay, ReplayError};

const JOURNAL: &str = "endpoints.journal";
const REWRITTEN: &str = "endpoints.journal.new";
const LOCK: &str = "lock";

/// A rewrite pays when the past outweighs the present: so many records per endpoint, and so many
/// besides. Arbitrary; a record is some 500 octets.
const RECORDS_PER_ENDPOINT: usize = 4;
const RECORDS_BESIDES: usize = 256;

/// How often a folder that somebody has is tried. Arbitrary.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another daemon has it.
    #[error(
        "{0} is in use by another causewayd: two of them would hand out the same addresses; stop \
         the other or give this one its own state directory"
    )]
    InUse(PathBuf),
    /// Written by another version.
    #[error(
        "{path}: {source}; start the version that wrote it, or remove the file while no pod runs"
    )]
    Format {
        /// The journal.
        path: PathBuf,
        /// What is wrong.
        source: ReplayError,
    },
}

impl StoreError {
    fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_owned();
        move |source| StoreError::File {
            action,
            path,
            source,
        }
    }
}

/// The journal, open for appending. Nobody else has it open: its folder is locked.
#[derive(Debug)]
pub(crate) struct Store {
    header: Header,
    file: File,
    /// Octets of whole records.
    length: u64,
    records: usize,
    /// Records that could not be written yet. All of them are drops or repeats of what the
    /// journal holds, so there are at most a few per endpoint.
    pending: Vec<Record>,
    /// What is on disk may not be what was written: it must be written anew before anything is
    /// appended.
    is_broken: bool,
    /// Why the last attempt to write failed.
    failure: Option<String>,
    folder: StateFolder,
}

/// The folder of the journal, which nobody else has while this lives.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    _lock: Flock<File>,
}

impl StateFolder {
    /// Makes the folder when it is missing, and takes it. To be done before anything else of the
    /// node is touched: two daemons on one node would undo each other's work.
    ///
    /// Blocks for up to `patience` while another has it: the last threads of a daemon that was
    /// killed may hold it for some milliseconds more.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] when another daemon has it, [`StoreError::File`] when it cannot be
    /// made.
    pub fn take(path: &Path, patience: Duration) -> Result<StateFolder, StoreError> {
        fs::create_dir_all(path).map_err(StoreError::at("make folder", path))?;
        let limit = Instant::now() + patience;
        loop {
            match lock(path) {
                Err(StoreError::InUse(_)) if Instant::now() < limit => thread::sleep(LOCK_RETRY),
                outcome => {
                    return Ok(StateFolder {
                        path: path.to_owned(),
                        _lock: outcome?,
                    });
                }
            }
        }
    }
}

impl Store {
    /// Opens the journal in a folder, made when missing, and reads it.
    pub(crate) fn open(folder: StateFolder, boot_id: &str) -> Result<(Store, Replay), StoreError> {
        let path = folder.path.join(JOURNAL);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::at("open", &path))?;
        let bytes = fs::read(&path).map_err(StoreError::at("read", &path))?;
        let replay = journal::replay(&bytes).map_err(|source| StoreError::Format {
            path: path.clone(),
            source,
        })?;
        if !replay.damage.is_empty() {
            keep_damaged(&path, &bytes);
        }
        let header = Header {
            causeway_pods: journal::VERSION,
            boot_id: boot_id.to_owned(),
        };
        let is_as_written = replay.boot_id.as_deref() == Some(boot_id)
            && replay.damage.is_empty()
            && replay.torn_length == 0;
        let store = Store {
            header,
            file,
            length: replay.whole_length as u64,
            records: replay.records,
            pending: Vec::new(),
            is_broken: !is_as_written,
            failure: None,
            folder,
        };
        Ok((store, replay))
    }

    /// Makes the addition of an endpoint durable. `registry` holds it already.
    ///
    /// When it fails the caller takes the endpoint back; a record of it that is on disk all the
    /// same says that it was being created, and a restart takes it back too.
    pub(crate) fn put(&mut self, record: &Record, registry: &Registry) -> Result<(), StoreError> {
        let result = if self.is_broken {
            self.rewrite(registry)
        } else {
            self.append(Some(record), true)
        };
        self.remember(&result);
        result?;
        self.rewrite_if_long(registry);
        Ok(())
    }

    /// Writes a change that loses nothing when it is lost: a release (the endpoint's namespace is
    /// gone, and a restart finds that), or that an endpoint became ready. What cannot be written
    /// goes out in front of the next record.
    pub(crate) fn note(&mut self, record: Record, registry: &Registry) {
        self.pending.push(record);
        let result = if self.is_broken {
            self.rewrite(registry)
        } else {
            self.append(None, false)
        };
        self.remember(&result);
        match result {
            Ok(()) => self.rewrite_if_long(registry),
            Err(error) => {
                tracing::warn!(%error, waiting = self.pending.len(), "a pod's release is not on disk yet");
            }
        }
    }

    /// Writes the journal anew if what is on disk is not what it should be.
    pub(crate) fn repair(&mut self, registry: &Registry) -> Result<(), StoreError> {
        let result = if self.is_broken {
            self.rewrite(registry)
        } else if self.pending.is_empty() {
            Ok(())
        } else {
            self.append(None, true)
        };
        self.remember(&result);
        result
    }

    /// Why the last write failed, if it did.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    fn path(&self) -> PathBuf {
        self.folder.path.join(JOURNAL)
    }

    fn remember(&mut self, result: &Result<(), StoreError>) {
        self.failure = result.as_ref().err().map(ToString::to_string);
    }

    fn append(&mut self, record: Option<&Record>, is_durable: bool) -> Result<(), StoreError> {
        let records = self.pending.iter().chain(record);
        let bytes: Vec<u8> = records.flat_map(journal::encode).collect();
        if let Err(error) = self.file.write_all_at(&bytes, self.length) {
            // A part may be there; it must not be read as the beginning of what comes next.
            self.is_broken = self.file.set_len(self.length).is_err();
            return Err(StoreError::at("write", &self.path())(error));
        }
        if is_durable && let Err(error) = self.file.sync_data() {
            // What is on disk after a failed fsync is anybody's guess (man 2 fsync, EIO).
            self.is_broken = true;
            return Err(StoreError::at("write to disk", &self.path())(error));
        }
        self.length += bytes.len() as u64;
        self.records += self.pending.len() + usize::from(record.is_some());
        self.pending.clear();
        Ok(())
    }

    fn rewrite_if_long(&mut self, registry: &Registry) {
        let present = registry.endpoints().len();
        if self.records > present * RECORDS_PER_ENDPOINT + RECORDS_BESIDES
            && let Err(error) = self.rewrite(registry)
        {
            // The long one is as good.
            tracing::warn!(%error, "the journal of pods could not be shortened");
        }
    }

    /// Replaces the journal by one that says what `registry` holds.
    fn rewrite(&mut self, registry: &Registry) -> Result<(), StoreError> {
        let temporary = self.folder.path.join(REWRITTEN);
        let mut bytes = journal::encode_header(&self.header);
        for endpoint in registry.endpoints() {
            bytes.extend(journal::encode(&Record::Put(Box::new(endpoint.clone()))));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(StoreError::at("make", &temporary))?;
        let written = (&file).write_all(&bytes).and_then(|()| file.sync_all());
        if let Err(error) = written {
            if let Err(error) = fs::remove_file(&temporary) {
                tracing::warn!(%error, path = %temporary.display(), "a half-written journal is left over");
            }
            return Err(StoreError::at("write", &temporary)(error));
        }
        let path = self.path();
        fs::rename(&temporary, &path).map_err(StoreError::at("replace", &path))?;
        self.file = file;
        self.length = bytes.len() as u64;
        self.records = registry.endpoints().len();
        self.pending.clear();
        let synced = File::open(&self.folder.path).and_then(|d| d.sync_all());
        self.is_broken = synced.is_err();
        synced.map_err(StoreError::at("write to disk", &self.folder.path))
    }
}

fn lock(directory: &Path) -> Result<Flock<File>, StoreError> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(StoreError::at("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => StoreError::InUse(directory.to_owned()),
        other => StoreError::at("lock", &path)(other.into()),
    })
}

fn keep_damaged(path: &Path, bytes: &[u8]) {
    #[expect(clippy::disallowed_methods, reason = "a name for people to read")]
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let copy = path.with_extension(format!("journal.damaged-{seconds}"));
    match fs::write(&copy, bytes) {
        Ok(()) => {
            tracing::error!(copy = %copy.display(), "the journal of pods is damaged; a copy was kept")
        }
        Err(error) => {
            tracing::error!(%error, "the journal of pods is damaged and could not be copied")
        }
    }
}

#[cfg(test)]
mod tests;
