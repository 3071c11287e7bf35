// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask bench bgp`: builds the generator and ours, and lets the generator measure.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use lab_runner::preflight::is_root;

use crate::setup;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Scenarios by name; all if none is given. `--list` names them.
    scenarios: Vec<String>,
    /// Name the scenarios and end.
    #[arg(long)]
    list: bool,
    /// The rivals, separated by commas: bird2, bird3, frr, gobgp, openbgpd; or none.
    #[arg(long)]
    rivals: Option<String>,
    /// Rounds; medians are shown.
    #[arg(long)]
    runs: Option<u32>,
    /// A hundredth of the prefixes.
    #[arg(long)]
    quick: bool,
    /// Measure this daemon instead of building one.
    #[arg(long, env = "CAUSEWAYD")]
    causewayd: Option<PathBuf>,
    /// Measure the speaker without the daemon around it.
    #[arg(long)]
    speaker: bool,
    /// Minutes of churn, in scenarios that have any; ten are for the record of `storm`.
    #[arg(long)]
    minutes: Option<u32>,
    /// Seconds that a speaker may take for one step of a scenario.
    #[arg(long)]
    limit: Option<u64>,
    /// Write the table to this file, such as docs/bench/bgp.md.
    #[arg(long)]
    write: Option<PathBuf>,
}

/// `cargo xtask profile`.
#[derive(Args)]
pub(crate) struct ProfileArguments {
    #[command(subcommand)]
    what: Profiled,
}

#[derive(Subcommand)]
enum Profiled {
    /// Where the BGP speaker's time goes in a scenario of the bench, by thread, and what it
    /// allocates.
    Bgp {
        /// Scenarios by name.
        #[arg(default_value = "one")]
        scenarios: Vec<String>,
        /// A rival instead of ours: bird2, bird3, frr, gobgp or openbgpd.
        #[arg(long)]
        rival: Option<String>,
        /// A hundredth of the prefixes.
        #[arg(long)]
        quick: bool,
    },
}

/// Frame pointers, so that stacks cost little to record.
const FRAME_POINTERS: &str = "-C force-frame-pointers=yes";

pub(crate) fn profile(arguments: &ProfileArguments) -> Result<ExitCode> {
    let Profiled::Bgp {
        scenarios,
        rival,
        quick,
    } = &arguments.what;
    ensure!(
        is_root(),
        "this makes network namespaces and needs root: sudo -E env PATH=\"$PATH\" cargo xtask \
         profile bgp"
    );
    setup::prepare(&setup::Arguments::default())?;
    setup::install("perf", "linux-perf")?;
    let root = crate::root()?;
    let target = root.join("target/profile");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "-p", "bgp-load", "--bins"])
        .args(["--features", "count-allocations"])
        .env("RUSTFLAGS", FRAME_POINTERS)
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(&root)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the build failed");
    let release = target.join("release");
    let mut command = Command::new(release.join("bgp-bench"));
    command.args(scenarios).args(["--profile", "--runs", "1"]);
    match rival {
        Some(rival) => command.args(["--rivals", rival]),
        None => command
            .args(["--rivals", "none", "--speaker"])
            .arg(release.join("bgp-bench-speaker")),
    };
    if *quick {
        command.arg("--quick");
    }
    let status = command.status().context("cannot run bgp-bench")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = crate::root()?;
    let release = release_dir(&root);
    if !arguments.list {
        ensure!(
            is_root(),
            "the bench makes network namespaces and needs root: sudo -E env PATH=\"$PATH\" cargo \
             xtask bench bgp"
        );
        setup::prepare(&setup::Arguments::default())?;
    }
    build(&root, &["-p", "bgp-load", "-p", "bgp-bfdd", "--bins"])?;
    let mut command = Command::new(release.join("bgp-bench"));
    command.args(&arguments.scenarios);
    if arguments.speaker {
        command
            .arg("--speaker")
            .arg(release.join("bgp-bench-speaker"));
    } else if !arguments.list {
        let daemon = match &arguments.causewayd {
            Some(daemon) => daemon.clone(),
            None => {
                build(&root, &["-p", "causewayd"])?;
                release.join("causewayd")
            }
        };
        command.arg("--causewayd").arg(daemon);
    }
    for (name, is_set) in [("--list", arguments.list), ("--quick", arguments.quick)] {
        if is_set {
            command.arg(name);
        }
    }
    if let Some(rivals) = &arguments.rivals {
        command.args(["--rivals", rivals]);
    }
    if let Some(runs) = arguments.runs {
        command.args(["--runs", &runs.to_string()]);
    }
    if let Some(minutes) = arguments.minutes {
        command.args(["--minutes", &minutes.to_string()]);
    }
    if let Some(limit) = arguments.limit {
        command.args(["--limit", &limit.to_string()]);
    }
    if let Some(file) = &arguments.write {
        command.arg("--write").arg(file);
    }
    let status = command.status().context("cannot run bgp-bench")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Where release builds lie.
pub(crate) fn release_dir(root: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    target
        .map_or_else(|| root.join("target"), PathBuf::from)
        .join("release")
}

/// Builds for release.
pub(crate) fn build(root: &Path, what: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release"])
        .args(what)
        .current_dir(root)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the build of {} failed", what.join(" "));
    Ok(())
}
