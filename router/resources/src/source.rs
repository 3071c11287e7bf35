// SPDX-License-Identifier: Apache-2.0
//! A directory of resource files, watched.
//!
//! What counts is what a scan of the directory finds: which files there are and their bytes. The
//! kernel's notifications only say when to scan, and a scan every [`WatchOptions::rescan`] makes up
//! for what they miss (network file systems, exhausted watches, a directory that is replaced). So
//! every way of changing a file works: in place, by an atomic rename, by the swapped symbolic link
//! of a mounted ConfigMap.
//!
//! A program that writes in place empties the file first. A file found empty that was not is
//! therefore looked at again before its objects are taken as removed (two seconds). Of a file
//! that is written slowly a beginning may still be read, and a beginning may be valid: rename a
//! complete file into place where that matters.
//!
//! A directory that disappears takes its objects along, as deleting every file would; one that is
//! not there yet is waited for. A directory that cannot be read (permissions, an I/O error) changes
//! nothing: what was read stays in force.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::check::{list_directory, read_file};
use crate::store::{FileContent, FileEvent};

/// How a directory is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchOptions {
    /// How long the directory must be quiet before it is scanned, so that a file being written is
    /// read once it is complete. Default 100 ms; a stream of changes is scanned at the latest after
    /// ten times this.
    pub debounce: Duration,
    /// How often the directory is scanned without being told. Default 30 s.
    pub rescan: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        WatchOptions {
            debounce: Duration::from_millis(100),
            rescan: Duration::from_secs(30),
        }
    }
}

/// How long a file must be empty before that is believed: 2 s, arbitrary; an editor takes
/// milliseconds.
const EMPTY_GRACE: Duration = Duration::from_secs(2);

/// What wakes a waiting source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    Touched,
    Stop,
}

/// Stops a [`DirectorySource`] that waits in another thread.
#[derive(Clone, Debug)]
pub struct StopHandle(SyncSender<Wake>);

impl StopHandle {
    /// Makes [`DirectorySource::wait`] return `None` soon.
    pub fn stop(&self) {
        // Fails when the source is gone, which is what is wanted.
        if self.0.send(Wake::Stop).is_err() {
            tracing::trace!("the directory source is already gone");
        }
    }
}

/// Watches a directory. Own it in a thread and call [`wait`](Self::wait) in a loop.
pub struct DirectorySource {
    directory: PathBuf,
    options: WatchOptions,
    /// Hash of what was last told about each file.
    told: BTreeMap<PathBuf, u64>,
    watcher: Option<RecommendedWatcher>,
    wakes: Receiver<Wake>,
    wake: SyncSender<Wake>,
    /// Whether the last scan left something for soon.
    has_pending: bool,
    /// Why the directory could not be read, if that was already logged.
    complaint: Option<String>,
}

impl DirectorySource {
    /// A source that has told nothing yet: the first [`wait`](Self::wait) or
    /// [`scan`](Self::scan) tells about every file. The directory need not exist.
    pub fn new(directory: impl Into<PathBuf>, options: WatchOptions) -> Self {
        // Wakes carry no data: a few are enough, more are the same as these.
        let (wake, wakes) = sync_channel(16);
        DirectorySource {
            directory: directory.into(),
            options,
            told: BTreeMap::new(),
            watcher: None,
            wakes,
            wake,
            has_pending: false,
            complaint: None,
        }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A handle that ends waiting, for another thread.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.wake.clone())
    }

    /// Reads the directory and tells what is different from what was told before.
    pub fn scan(&mut self) -> Vec<FileEvent> {
        let files = match list_directory(&self.directory) {
            Ok(files) => files,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                self.complain(error.to_string());
                return Vec::new();
            }
        };
        self.complaint = None;
        self.has_pending = false;
        let mut events = Vec::new();
        let mut seen = BTreeMap::new();
        for path in files {
            let content = read_file(&path);
            if content == FileContent::Removed {
                continue;
            }
            let hash = hash_of(&content);
            if let Some(old) = self.told.get(&path)
                && *old != hash
                && content == FileContent::Bytes(Vec::new())
                && is_fresh(&path)
            {
                self.has_pending = true;
                seen.insert(path, *old);
                continue;
            }
            if self.told.get(&path) != Some(&hash) {
                events.push(FileEvent {
                    path: path.clone(),
                    content,
                });
            }
            seen.insert(path, hash);
        }
        for path in self.told.keys().filter(|path| !seen.contains_key(*path)) {
            events.push(FileEvent {
                path: path.clone(),
                content: FileContent::Removed,
            });
        }
        self.told = seen;
        events
    }

    /// Blocks until something in the directory is different from what was told before, and tells
    /// it. `None` after [`StopHandle::stop`].
    pub fn wait(&mut self) -> Option<Vec<FileEvent>> {
        loop {
            // Watch first, scan second: a change between the two is then seen twice, never missed.
            self.watch();
            let events = self.scan();
            if !events.is_empty() {
                return Some(events);
            }
            let patience = if self.has_pending {
                EMPTY_GRACE.min(self.options.rescan)
            } else {
                self.options.rescan
            };
            match self.wakes.recv_timeout(patience) {
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Wake::Touched) => self.settle()?,
            }
        }
    }

    /// Waits until the directory is quiet. `None` when stopped.
    fn settle(&mut self) -> Option<()> {
        let deadline = Instant::now() + self.options.debounce * 10;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.wakes.recv_timeout(self.options.debounce.min(left)) {
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => return Some(()),
                Ok(Wake::Touched) if left.is_zero() => return Some(()),
                Ok(Wake::Touched) => {}
            }
        }
    }

    /// Sees to it that the directory as it is there at the moment is watched, and its parent, so
    /// that a directory made or replaced is noticed. The watches are set anew each time: whether
    /// the directory is still the one that was watched cannot be told, since inode numbers are
    /// reused.
    fn watch(&mut self) {
        let mut watcher = match self.watcher.take().map_or_else(|| self.new_watcher(), Ok) {
            Ok(watcher) => watcher,
            Err(error) => return self.complain(format!("cannot be watched: {error}")),
        };
        let parent = self
            .directory
            .parent()
            .filter(|p| !p.as_os_str().is_empty());
        for path in [Some(self.directory.as_path()), parent]
            .into_iter()
            .flatten()
        {
            if let Err(error) = watcher.unwatch(path) {
                tracing::trace!(path = %path.display(), %error, "was not watched");
            }
            if let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive) {
                tracing::debug!(path = %path.display(), %error, "not watched, scanned regularly");
            }
        }
        self.watcher = Some(watcher);
    }

    fn new_watcher(&self) -> notify::Result<RecommendedWatcher> {
        let wake = self.wake.clone();
        notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file must not wake the reader again.
            if event.as_ref().is_ok_and(|event| event.kind.is_access()) {
                return;
            }
            match wake.try_send(Wake::Touched) {
                Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
            }
        })
    }

    fn complain(&mut self, why: String) {
        if self.complaint.as_ref() != Some(&why) {
            let directory = self.directory.display();
            tracing::warn!(%directory, why, "resources directory: what was read stays in force");
            self.complaint = Some(why);
        }
    }
}

/// Whether a file was written within [`EMPTY_GRACE`]. A time in the future is not fresh: it would
/// stay so.
fn is_fresh(path: &Path) -> bool {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    #[expect(
        clippy::disallowed_methods,
        reason = "files are dated by it; with a jump one counts as old and is read at once"
    )]
    let age = modified.ok().and_then(|modified| modified.elapsed().ok());
    age.is_some_and(|age| age < EMPTY_GRACE)
}

/// A hash to notice changes by. Within one run only: `DefaultHasher` is not stable over versions.
fn hash_of(content: &FileContent) -> u64 {
    let mut hasher = DefaultHasher::new();
    match content {
        FileContent::Bytes(bytes) => (0, bytes).hash(&mut hasher),
        FileContent::Unreadable(why) => (1, why).hash(&mut hasher),
        FileContent::TooLarge(size) => (2, size).hash(&mut hasher),
        FileContent::Removed => 3.hash(&mut hasher),
    }
    hasher.finish()
}
