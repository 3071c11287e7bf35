// SPDX-License-Identifier: Apache-2.0
//! How long pods hear nothing when something happens to their egress gateway: datagrams of both
//! families through the address of the guide's policy `billing-standby`, in the lab `egress`.
//! `cargo xtask bench egress failover` builds what it needs and runs it.

mod events;
mod live;
mod phases;
mod report;
mod stream;

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Parser;

use events::{Event, Plan};
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
    /// Also measure with so many other connections alive.
    #[arg(long, default_value_t = 0)]
    live: u32,
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
    let mut measured = Ok(());
    for live in BTreeSet::from([0, arguments.live]) {
        let plan = Plan {
            events: &arguments.events,
            rounds: arguments.rounds,
            live,
            trace: arguments.trace,
        };
        measured = measured.and_then(|()| events::run(&plan, &mut report));
    }
    println!("{report}");
    measured?;
    if let Some(page) = arguments.write {
        fs::write(&page, report.page()).with_context(|| format!("write {}", page.display()))?;
    }
    Ok(())
}
