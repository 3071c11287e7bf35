// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask test`: exactly what CI runs, ending with a line of counts.
//!
//! Every stage runs even after one failed, so that one run shows all there is to mend.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use lab_runner::preflight::{find_program, is_root};

use crate::setup;

/// Version of cargo-deny that is installed where there is none.
const CARGO_DENY: &str = "~0.20";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Run only the stages whose names contain this (format, lints, licences, tests, interop).
    #[arg(long)]
    stage: Option<String>,
}

/// What a stage counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// A stage that is one check.
    fn one(success: bool) -> Self {
        Self {
            passed: u64::from(success),
            failed: u64::from(!success),
            skipped: 0,
        }
    }
}

/// A stage: its name and the cargo command lines that make it up.
struct Stage {
    name: &'static str,
    commands: &'static [&'static [&'static str]],
}

/// Packages whose tests bring up whole labs or load programs into the kernel run last and one at a
/// time: they share the machine's processors with real daemons, whose timers keep running.
const STAGES: &[Stage] = &[
    Stage {
        name: "format",
        commands: &[&["fmt", "--all", "--check"]],
    },
    Stage {
        name: "lints",
        commands: &[&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]],
    },
    Stage {
        name: "licences",
        commands: &[&["deny", "check", "licenses", "bans", "sources"]],
    },
    Stage {
        name: "tests",
        commands: &[
            &["build", "--workspace", "--bins"],
            &[
                "test",
                "--workspace",
                "--no-fail-fast",
                "--exclude",
                "interop",
            ],
        ],
    },
    Stage {
        name: "interop",
        commands: &[&[
            "test",
            "-p",
            "interop",
            "--no-fail-fast",
            "--",
            "--test-threads=1",
        ]],
    },
];

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(
        is_root(),
        "the namespace, eBPF and interop tests need root: sudo -E env PATH=\"$PATH\" cargo xtask test"
    );
    let root = crate::root()?;
    let start = Instant::now();
    println!("== setup");
    setup::prepare(&setup::Arguments::default())?;
    let mut total = Counts::default();
    let mut failed_stages = Vec::new();
    for stage in STAGES {
        if arguments
            .stage
            .as_ref()
            .is_some_and(|wanted| !stage.name.contains(wanted.as_str()))
        {
            continue;
        }
        if stage.name == "interop" && !root.join("tests/interop/Cargo.toml").is_file() {
            continue;
        }
        println!("== {}", stage.name);
        let stage_start = Instant::now();
        let counts = run_stage(stage, &root)?;
        let seconds = stage_start.elapsed().as_secs();
        println!(
            "== {}: {} passed, {} failed, {} skipped, {seconds} s",
            stage.name, counts.passed, counts.failed, counts.skipped
        );
        if counts.failed > 0 {
            failed_stages.push(stage.name);
        }
        total.add(counts);
    }
    if !failed_stages.is_empty() {
        println!("failed: {}", failed_stages.join(", "));
    }
    println!("took {} s", start.elapsed().as_secs());
    println!(
        "{} passed, {} failed, {} skipped",
        total.passed, total.failed, total.skipped
    );
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn run_stage(stage: &Stage, root: &Path) -> Result<Counts> {
    if stage.name == "licences" && find_program("cargo-deny").is_none() && !has_cargo_deny(root) {
        println!("installing cargo-deny {CARGO_DENY} (once)");
        let install = ["install", "--locked", "cargo-deny", "--version", CARGO_DENY];
        ensure!(
            cargo(&install, root)?.0,
            "cargo-deny could not be installed"
        );
    }
    let mut total = Counts::default();
    for command in stage.commands {
        let (success, counts) = cargo(command, root)?;
        let counts = match counts {
            // A test command that failed without a failed test did not compile or crashed.
            Some(counts) if success || counts.failed > 0 => counts,
            Some(counts) => Counts {
                failed: 1,
                ..counts
            },
            None => Counts::one(success),
        };
        total.add(counts);
        if !success && command[0] == "build" {
            break;
        }
    }
    Ok(total)
}

fn has_cargo_deny(root: &Path) -> bool {
    Command::new(cargo_program())
        .args(["deny", "--version"])
        .current_dir(root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn cargo_program() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs cargo, passing its output through; returns its success and, of `test`, the counts.
fn cargo(arguments: &[&str], root: &Path) -> Result<(bool, Option<Counts>)> {
    let mut child = Command::new(cargo_program())
        .args(arguments)
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let stdout = child
        .stdout
        .take()
        .context("cargo was started without a pipe")?;
    let mut counts = None;
    let mut own = std::io::stdout().lock();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        own.write_all(&line)?;
        own.write_all(b"\n")?;
        if let Some(found) = parse_result(&String::from_utf8_lossy(&line)) {
            counts.get_or_insert_with(Counts::default).add(found);
        }
    }
    let success = child.wait()?.success();
    let is_test = arguments.first() == Some(&"test");
    Ok((
        success,
        if is_test {
            Some(counts.unwrap_or_default())
        } else {
            None
        },
    ))
}

/// Reads libtest's closing line.
fn parse_result(line: &str) -> Option<Counts> {
    let rest = line.trim_start().strip_prefix("test result:")?;
    let number = |word: &str| -> u64 {
        rest.split([';', '.'])
            .filter_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
            .next()
            .unwrap_or(0)
    };
    Some(Counts {
        passed: number("passed"),
        failed: number("failed"),
        skipped: number("ignored"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_test_programs_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; \
                    finished in 0.02s";
        assert_eq!(
            parse_result(line),
            Some(Counts {
                passed: 12,
                failed: 3,
                skipped: 1
            })
        );
        let line = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(parse_result(line), Some(Counts::default()));
        assert_eq!(parse_result("test result_is_parsed ... ok"), None);
    }
}
