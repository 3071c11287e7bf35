// SPDX-License-Identifier: Apache-2.0
//! The file with the keys gateways prove themselves to each other with.
//!
//! One key a line, as text; the first is used, all are accepted, so that a key is replaced without a
//! gap. Empty lines and those that begin with `#` say nothing.

use std::path::{Path, PathBuf};

use egress_sync::channel::{Key, KeyError, Keys};

/// Why there are no keys. Nobody is linked then: a missing key is never an empty one.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A line is no key.
    #[error("{path}, line {line}: {error}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        error: KeyError,
    },
    /// There is no key, or there are too many.
    #[error("{path}: {error}")]
    Count {
        /// The file.
        path: PathBuf,
        /// How many.
        error: KeyError,
    },
}

/// Reads the keys.
///
/// # Errors
/// There is a line that is no key, or no line, or no file.
pub(super) fn read(path: &Path) -> Result<Keys, SecretError> {
    let owned = || path.to_owned();
    let text = std::fs::read_to_string(path).map_err(|error| SecretError::Read {
        path: owned(),
        error,
    })?;
    let mut keys = Vec::new();
    for (line, text) in (1..).zip(text.lines().map(str::trim)) {
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let key = Key::new(text.as_bytes()).map_err(|error| SecretError::Line {
            path: owned(),
            line,
            error,
        })?;
        keys.push(key);
    }
    Keys::new(keys).map_err(|error| SecretError::Count {
        path: owned(),
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_good_key_is_no_empty_key() {
        let folder = std::env::temp_dir().join(format!("egress-secret-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("key");
        let error = |text: &str| {
            std::fs::write(&path, text).expect("a file");
            read(&path).expect_err(text).to_string()
        };
        assert!(error("").ends_with("key: no key"));
        assert!(error("# nothing\n\n").ends_with("key: no key"));
        let short = error("\n# the key\nshort\n");
        assert!(
            short.ends_with("key, line 3: key of 5 octets: at least 16"),
            "{short}"
        );
        assert!(!short.contains("short"), "the key is not shown");
        let many = "0123456789abcdef\n".repeat(9);
        assert!(error(&many).ends_with("key: 9 keys: at most 8"));
        std::fs::write(&path, "0123456789abcdef\nfedcba9876543210").expect("a file");
        read(&path).expect("two keys");
        std::fs::remove_dir_all(&folder).expect("a removal");
        assert!(matches!(read(&path), Err(SecretError::Read { .. })));
    }
}
