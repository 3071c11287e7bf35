// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask bench`: speed, side by side with the rival in one run, as ratios.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use lab_runner::preflight::is_root;

use crate::{bgp_bench, setup};

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
    /// An egress gateway, beside plain forwarding, nftables and iptables.
    Egress {
        /// Rounds of each way, one way after the other in each round.
        #[arg(long, default_value_t = 12)]
        rounds: u32,
        /// Write the page to this file, such as docs/bench/egress.md.
        #[arg(long)]
        write: Option<PathBuf>,
    },
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
        Some(Other::Egress { rounds, write }) => return egress(*rounds, write.as_deref()),
        None => {}
    }
    match arguments.what {
        What::Datapath => bpf_bench(&[arguments.rounds.to_string().into()]),
        What::Codec => cargo(&["bench", "-p", "bgp-wire"], &[]),
    }
}

fn egress(rounds: u32, write: Option<&Path>) -> Result<ExitCode> {
    setup::install("nft", "nftables")?;
    setup::install("iptables", "iptables")?;
    let mut arguments: Vec<OsString> = vec!["egress".into(), "--rounds".into()];
    arguments.push(rounds.to_string().into());
    if let Some(file) = write {
        // The bench runs in the root of the checkout.
        arguments.extend(["--write".into(), std::path::absolute(file)?.into()]);
    }
    bpf_bench(&arguments)
}

fn bpf_bench(arguments: &[OsString]) -> Result<ExitCode> {
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
