// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask bench egress`: builds what is measured and what measures, and runs it.

use std::{
    ffi::OsString,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use lab_runner::preflight::is_root;

use crate::{
    bench::bpf_bench,
    bgp_bench::{build, release_dir},
    setup,
};

#[derive(Args)]
pub(crate) struct Arguments {
    /// What is measured; all of it if nothing is named.
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// Rounds of each way of `translation`, one way after the other in each round.
    #[arg(long, default_value_t = 12)]
    rounds: u32,
    /// Rounds of each event of `failover`.
    #[arg(long, default_value_t = 5)]
    failover_rounds: u32,
    /// Other connections alive in the second part of `failover`; 0 leaves it out.
    #[arg(long, default_value_t = 1_000_000)]
    live: u32,
    /// Events of `failover`, separated by commas: nothing, daemon, split, drain, link, hung, both,
    /// power; all if none is named.
    #[arg(long, value_delimiter = ',')]
    events: Vec<String>,
    /// Write the page of `translation` to this file, such as docs/bench/egress.md.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Write the page of `failover` to this file, such as docs/bench/egress-failover.md.
    #[arg(long)]
    write_failover: Option<PathBuf>,
    /// Have `failover` tell of each lost datagram, and show the daemons' logs.
    #[arg(long)]
    trace: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// What a packet costs, beside plain forwarding, nftables and iptables.
    Translation,
    /// How long pods hear nothing, and what they lose, when a gateway dies, is cut off or is moved
    /// away from.
    Failover,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let wanted = |scenario| {
        let named = &arguments.scenarios;
        named.is_empty() || named.contains(&scenario)
    };
    if wanted(Scenario::Translation) {
        let code = translation(arguments)?;
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
    }
    if wanted(Scenario::Failover) {
        return failover(arguments);
    }
    Ok(ExitCode::SUCCESS)
}

fn translation(arguments: &Arguments) -> Result<ExitCode> {
    setup::install("nft", "nftables")?;
    setup::install("iptables", "iptables")?;
    let mut words: Vec<OsString> = vec!["egress".into(), "--rounds".into()];
    words.push(arguments.rounds.to_string().into());
    if let Some(file) = &arguments.write {
        // The bench runs in the root of the checkout.
        words.extend(["--write".into(), std::path::absolute(file)?.into()]);
    }
    bpf_bench(&words)
}

fn failover(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(
        is_root(),
        "the bench makes a lab and needs root: sudo -E env PATH=\"$PATH\" cargo xtask bench egress"
    );
    setup::prepare(&setup::Arguments::default())?;
    let root = crate::root()?;
    let release = release_dir(&root);
    let ours = ["causewayd", "bgp-bfdd", "causeway", "causeway-cni"];
    let mut what: Vec<&str> = ours.iter().flat_map(|package| ["-p", package]).collect();
    what.extend(["-p", "interop", "--bins"]);
    build(&root, &what)?;
    let mut command = Command::new(release.join("egress-failover"));
    command
        .args(&arguments.events)
        .args(["--rounds", &arguments.failover_rounds.to_string()])
        .args(["--live", &arguments.live.to_string()])
        .env("CAUSEWAY_PROGRAMS", &release);
    if arguments.trace {
        command.arg("--trace");
    }
    if let Some(file) = &arguments.write_failover {
        command.arg("--write").arg(file);
    }
    let status = command.status().context("cannot run egress-failover")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
