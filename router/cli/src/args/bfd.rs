// SPDX-License-Identifier: Apache-2.0
//! The verbs of `bfd`.

use clap::Subcommand;

/// The verbs of `bfd`.
#[derive(Debug, Subcommand)]
pub enum BfdCommand {
    /// All sessions
    #[command(visible_alias = "ls")]
    Sessions,
    /// All that is known of the sessions with one peer
    Session {
        /// The peer's address
        peer: String,
    },
}
