// SPDX-License-Identifier: Apache-2.0
//! Checking files without a daemon, for `causeway config check`.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::diagnostic::{Code, Diagnostic};
use crate::parse::MAX_FILE_BYTES;
use crate::snapshot::Snapshot;
use crate::store::{ACCEPTED, FileContent, FileEvent, Store};

/// What the check found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The files that were read, in path order.
    pub files: Vec<PathBuf>,
    /// All findings, in order of files and places.
    pub diagnostics: Vec<Diagnostic>,
    /// The valid objects, for checks that go further.
    pub snapshot: Snapshot,
}

impl Report {
    /// Whether a file would be refused.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Reads files and directories (their `.yaml`, `.yml` and `.json` files, not those below) as the
/// daemon would, and reports. A path that does not exist is a finding.
pub fn check(paths: &[PathBuf]) -> Report {
    let mut files = Vec::new();
    let mut diagnostics = Vec::new();
    for path in paths {
        if path.is_dir() {
            match list_directory(path) {
                Ok(found) => files.extend(found),
                Err(error) => diagnostics.push(Diagnostic::about_file(
                    path,
                    Code::Unreadable,
                    format!("the directory cannot be read: {error}"),
                )),
            }
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    files.dedup();
    let events = files
        .iter()
        .map(|path| {
            let content = match read_file(path) {
                FileContent::Removed => FileContent::Unreadable("no such file".into()),
                content => content,
            };
            FileEvent {
                path: path.clone(),
                content,
            }
        })
        .collect();
    let mut store = Store::new();
    #[expect(clippy::disallowed_methods, reason = "for people to read")]
    let now = SystemTime::now();
    let change = store.apply(events, now);
    diagnostics.extend(change.diagnostics);
    diagnostics.extend(duplicates(&store));
    Report {
        files,
        diagnostics,
        snapshot: store.snapshot(),
    }
}

/// A duplicate object is an error here: whoever checks wants to know before it is ignored.
fn duplicates(store: &Store) -> Vec<Diagnostic> {
    let statuses = store.statuses();
    let shadowed = statuses.iter().filter(|status| !status.in_force);
    shadowed
        .map(|status| {
            let accepted = status
                .conditions
                .iter()
                .find(|c| c.condition_type == ACCEPTED);
            let message = accepted.map(|c| c.message.clone()).unwrap_or_default();
            let place = crate::Place {
                line: status.source.line,
                column: 1,
                bytes: 0..0,
            };
            Diagnostic {
                document: Some(status.source.document),
                place: Some(place),
                object: Some(status.key.to_string()),
                ..Diagnostic::about_file(&status.source.file, Code::DuplicateObject, message)
            }
        })
        .collect()
}

/// The files of a directory that are read: by extension, hidden ones left out, in path order.
pub(crate) fn list_directory(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let is_hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_wanted = matches!(extension, Some("yaml" | "yml" | "json"));
        // Follows symbolic links: in a mounted ConfigMap every file is one.
        if is_wanted && !is_hidden && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a file within bounds. Anything but a regular file is refused: reading a pipe would block.
pub(crate) fn read_file(path: &Path) -> FileContent {
    let read = || -> std::io::Result<FileContent> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Ok(FileContent::Unreadable("not a regular file".into()));
        }
        let mut bytes = Vec::new();
        fs::File::open(path)?
            .take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Ok(FileContent::TooLarge(
                metadata.len().max(bytes.len() as u64),
            ));
        }
        Ok(FileContent::Bytes(bytes))
    };
    match read() {
        Ok(content) => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.is_symlink() => {
            FileContent::Removed
        }
        Err(error) => FileContent::Unreadable(error.to_string()),
    }
}
