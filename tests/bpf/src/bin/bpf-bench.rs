// SPDX-License-Identifier: Apache-2.0
//! Measures the data plane and prints the ratios. `bpf-bench [rounds]`, or
//! `bpf-bench egress [--rounds N] [--write FILE]`.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use bpf_tests::bench::{Options, egress, run};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("egress") {
        return gateways(arguments);
    }
    let mut options = Options::default();
    if let Some(rounds) = first {
        options.rounds = rounds.parse().context("rounds is a number")?;
    }
    let report = run(&options, &mut |step| eprintln!("{step}"))?;
    print!("{report}");
    Ok(())
}

fn gateways(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let mut options = egress::Options::default();
    let mut page: Option<PathBuf> = None;
    while let Some(argument) = arguments.next() {
        let value = arguments
            .next()
            .with_context(|| format!("{argument} needs a value"))?;
        match argument.as_str() {
            "--rounds" => options.rounds = value.parse().context("rounds is a number")?,
            "--write" => page = Some(value.into()),
            _ => bail!("unknown option {argument}"),
        }
    }
    let report = egress::run(&options, &mut |step| eprintln!("{step}"))?;
    println!("{report}");
    if let Some(page) = page {
        fs::write(&page, report.page()).with_context(|| format!("write {}", page.display()))?;
    }
    Ok(())
}
