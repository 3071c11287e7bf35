// SPDX-License-Identifier: Apache-2.0
//! `causewayd`: the daemon. It wires the subsystems and decides nothing.
//!
//! Threads: the main runtime (API, metrics, intent), `bgp` (sessions), `rib-*` (one per BGP
//! instance), `routes` (RIB and kernel), `pods`, `resources` (file watching).

#![expect(
    unreachable_pub,
    reason = "a program: `pub` says which items other modules use"
)]

mod bfd;
mod egress;
mod gateways;
mod grpc;
mod handover;
mod health;
mod intent;
mod learned;
mod logging;
mod memory;
mod metrics;
mod privileges;
mod readiness;
mod routes;
mod run;
mod store;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use router_resources::settings::{LogFormat, Settings};

/// The routing daemon of a Causeway node.
#[derive(Parser, Debug)]
#[command(name = "causewayd", version, max_term_width = 100)]
struct Args {
    /// Node settings. Default: /etc/causeway/causeway.yaml, where it exists.
    #[arg(long, value_name = "FILE", env = "CAUSEWAY_CONFIG")]
    config: Option<PathBuf>,

    /// Sets one setting, as `log.level=debug`; outranks the file and the environment. Repeatable.
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,

    /// Prints a commented settings file with all defaults, and ends.
    #[arg(long)]
    print_default_config: bool,

    /// Checks the settings, says what is wrong, and ends.
    #[arg(long)]
    check: bool,

    /// Records every input of the BGP speaker into a file, to be replayed by its tests. Addresses
    /// and routes are in it, passwords are not.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,

    /// Takes the BGP sessions over from the daemon that runs, which then ends: a restart or an
    /// upgrade that neighbours do not notice.
    #[arg(long)]
    take_over: bool,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((path, value)) if !path.is_empty() => Ok((path.to_owned(), value.to_owned())),
        _ => Err("expected PATH=VALUE, as log.level=debug".to_owned()),
    }
}

fn main() -> ExitCode {
    memory::tune();
    let args = Args::parse();
    if args.print_default_config {
        print!("{}", router_resources::settings::DEFAULT_FILE);
        return ExitCode::SUCCESS;
    }
    let effective = match Settings::load(args.config.as_deref(), args.set.clone()) {
        Ok(effective) => effective,
        Err(findings) => {
            for finding in findings {
                eprintln!("{finding}");
            }
            return ExitCode::from(2);
        }
    };
    if args.check {
        for warning in &effective.warnings {
            eprintln!("{warning}");
        }
        return ExitCode::SUCCESS;
    }
    let format = match effective.settings.log_format {
        LogFormat::Json => logging::Format::Json,
        LogFormat::Text => logging::Format::Human,
    };
    if let Err(error) = logging::init(&effective.settings.log_level, format) {
        eprintln!("causewayd: {error:#}");
        return ExitCode::from(2);
    }
    for warning in &effective.warnings {
        tracing::warn!("{warning}");
    }
    match run::run(
        args.config,
        args.set,
        args.record,
        args.take_over,
        effective,
    ) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
