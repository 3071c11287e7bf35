// SPDX-License-Identifier: Apache-2.0
//! Why etcd did not do what was asked of it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// Why etcd did not do what was asked of it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection.
    #[error("etcd is not reached")]
    NotConnected,
    /// Nothing came within the time given.
    #[error("{endpoint} does not answer within {} ms", .limit.as_millis())]
    TimedOut {
        /// Who was asked.
        endpoint: String,
        /// The time given.
        limit: Duration,
    },
    /// A file of the settings cannot be read.
    #[error("{setting}: cannot read {}: {reason}", .path.display())]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        reason: String,
    },
    /// No connection can be made.
    #[error("cannot connect to {endpoint}: {reason}")]
    Connect {
        /// To whom.
        endpoint: String,
        /// What the transport said.
        reason: String,
    },
    /// The endpoint is of another cluster than those before.
    #[error(
        "{endpoint} is of another etcd cluster ({found:x}) than the one connected to before \
         ({known:x}): correct store.endpoints, or restart causewayd if the cluster was replaced"
    )]
    OtherCluster {
        /// Who was connected to.
        endpoint: String,
        /// The number of its cluster.
        found: u64,
        /// The number known.
        known: u64,
    },
    /// etcd refused.
    #[error("{endpoint} refuses: {reason}")]
    Refused {
        /// Who.
        endpoint: String,
        /// In its words.
        reason: String,
    },
    /// What it said makes no sense.
    #[error("{endpoint} answers what was not asked: {what}")]
    Nonsense {
        /// Who.
        endpoint: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// An error with its causes, in one line.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            // Writing to a text cannot fail.
            let _ = write!(words, ": {text}");
        }
        cause = error.source();
    }
    words
}

/// What a failed request says, in one line: etcd's own words, or why there are none.
pub(crate) fn status_words(status: &tonic::Status) -> String {
    match std::error::Error::source(status) {
        Some(cause) => words(cause),
        None if status.message().is_empty() => status.code().description().to_owned(),
        None => status.message().to_owned(),
    }
}
