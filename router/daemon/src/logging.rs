// SPDX-License-Identifier: Apache-2.0
//! Where log lines go and what they look like.

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// How a log line is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// For people and the journal.
    Human,
    /// One JSON object a line, for collectors.
    Json,
}

/// Starts logging to standard error.
///
/// `filter` is a level (`info`) or directives (`info,bgp_core=debug`).
///
/// # Errors
/// When `filter` cannot be read.
pub fn init(filter: &str, format: Format) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| {
        format!("log level {filter:?}: expected e.g. info or info,bgp_core=debug")
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match format {
        Format::Human => builder.with_target(true).init(),
        Format::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
