// SPDX-License-Identifier: Apache-2.0
//! How long pods hear nothing when something happens to their egress gateway: datagrams of both
//! families through the address of the guide's policy `billing-standby`, in the lab `egress`.
//! `cargo xtask bench egress failover` builds what it needs and runs it.

mod events;
mod phases;
mod report;
mod stream;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Parser;

use events::Event;
use report::Report;

/// Measures what pods notice when something happens to their egress gateway.
#[derive(Parser)]
struct Arguments {
    /// What happens; all of it if nothing is named.
    #[arg(value_enum)]
    events: Vec<Event>,
    /// How often each event happens.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Say of each lost datagram when it was sent, and show the daemons' logs of that time.
    #[arg(long)]
    trace: bool,
    /// Write the page to this file.
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut report = Report::new(arguments.rounds);
    let measured = events::run(
        &arguments.events,
        arguments.rounds,
        arguments.trace,
        &mut report,
    );
    println!("{report}");
    measured?;
    if let Some(page) = arguments.write {
        fs::write(&page, report.page()).with_context(|| format!("write {}", page.display()))?;
    }
    Ok(())
}
