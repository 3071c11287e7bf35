// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask bench`: speed, side by side with the rival in one run, as ratios.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use lab_runner::preflight::is_root;

use crate::{bgp_bench, setup};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    bgp: Option<Bgp>,
    /// What is measured.
    #[arg(default_value = "datapath")]
    what: What,
    /// Rounds of each way, one way after the other in each round. More rounds, less noise.
    #[arg(long, default_value_t = 6)]
    rounds: u32,
}

#[derive(Subcommand)]
enum Bgp {
    /// BGP speakers by the protocol alone, beside BIRD, FRR, GoBGP and OpenBGPD.
    Bgp(bgp_bench::Arguments),
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Pod to pod on one node and across nodes, against plain kernel routing and a bridge.
    Datapath,
    /// Reading and writing BGP messages, in nanoseconds a prefix.
    Codec,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(Bgp::Bgp(arguments)) = &arguments.bgp {
        return bgp_bench::run(arguments);
    }
    let rounds = arguments.rounds.to_string();
    let command: &[&str] = match arguments.what {
        What::Datapath => {
            ensure!(
                is_root(),
                "the bench makes network namespaces and needs root: sudo -E env PATH=\"$PATH\" \
                 cargo xtask bench"
            );
            setup::prepare(&setup::Arguments::without_rootfs())?;
            &[
                "run",
                "--release",
                "-p",
                "bpf-tests",
                "--bin",
                "bpf-bench",
                "--",
                &rounds,
            ]
        }
        What::Codec => &["bench", "-p", "bgp-wire"],
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(command)
        .current_dir(crate::root()?)
        .status()
        .context("cannot run cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
