// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask bench`: speed, side by side with the rival in one run, as ratios.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use lab_runner::preflight::is_root;

use crate::{bgp_bench, egress_bench, setup};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    /// What is measured.
    #[arg(default_value = "datapath")]
    what: What,
    /// Rounds of each way, one way after the other in each round. More rounds, less noise.
    #[arg(long, default_value_t = 6)]
    rounds: u32,
}

#[derive(Subcommand)]
enum Other {
    /// BGP speakers by the protocol alone, beside BIRD, FRR, GoBGP and OpenBGPD.
    Bgp(bgp_bench::Arguments),
    /// Egress gateways: what one costs, and what pods notice when one fails.
    Egress(egress_bench::Arguments),
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Pod to pod on one node and across nodes, against plain kernel routing and a bridge.
    Datapath,
    /// Reading and writing BGP messages, in nanoseconds a prefix.
    Codec,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.other {
        Some(Other::Bgp(arguments)) => return bgp_bench::run(arguments),
        Some(Other::Egress(arguments)) => return egress_bench::run(arguments),
        None => {}
    }
    match arguments.what {
        What::Datapath => bpf_bench(&[arguments.rounds.to_string().into()]),
        What::Codec => cargo(&["bench", "-p", "bgp-wire"], &[]),
    }
}

pub(crate) fn bpf_bench(arguments: &[OsString]) -> Result<ExitCode> {
    ensure!(
        is_root(),
        "the bench makes network namespaces and needs root: sudo -E env PATH=\"$PATH\" \
         cargo xtask bench"
    );
    setup::prepare(&setup::Arguments::without_rootfs())?;
    let command = [
        "run",
        "--release",
        "-p",
        "bpf-tests",
        "--bin",
        "bpf-bench",
        "--",
    ];
    cargo(&command, arguments)
}

fn cargo(command: &[&str], arguments: &[OsString]) -> Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(command)
        .args(arguments)
        .current_dir(crate::root()?)
        .status()
        .context("cannot run cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
