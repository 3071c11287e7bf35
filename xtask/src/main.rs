// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask`: what one does with a checkout besides building it.

mod bench;
mod bgp_bench;
mod crds;
mod demo;
mod egress_bench;
mod lab;
mod setup;
mod suite;
mod vm;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Tasks of the Causeway workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building, testing and the lab need; safe to run twice.
    Setup(setup::Arguments),
    /// Show the main job: two nodes, a real fabric, pods that talk through it.
    Demo(demo::Arguments),
    /// Run topologies of lab/containerlab on this machine, without Docker.
    Lab(lab::Arguments),
    /// Run a command on a distribution's kernel in a virtual machine, with this machine's files.
    Vm(vm::Arguments),
    /// Run every check and test, and count them.
    Test(suite::Arguments),
    /// Measure speed, beside the rival and in one run.
    Bench(bench::Arguments),
    /// Show where time and allocations go.
    Profile(bgp_bench::ProfileArguments),
    /// Write deploy/crds from the types that read the resources.
    Crds,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Setup(arguments) => setup::run(&arguments),
        Task::Lab(arguments) => lab::run(&arguments),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Vm(arguments) => vm::run(&arguments),
        Task::Test(arguments) => suite::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Profile(arguments) => bgp_bench::profile(&arguments),
        Task::Crds => crds::run(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the checkout that this program was built from.
fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let root = root.context("xtask lies in the root of a checkout")?;
    anyhow::ensure!(
        root.join("Cargo.toml").is_file(),
        "the checkout {} is gone; run this in the new one",
        root.display()
    );
    Ok(root.to_owned())
}
