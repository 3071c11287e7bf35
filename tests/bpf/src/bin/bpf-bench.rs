// SPDX-License-Identifier: Apache-2.0
//! Measures the data plane and prints the ratios. `bpf-bench [rounds]`.

use anyhow::{Context as _, Result};
use bpf_tests::bench::{Options, run};

fn main() -> Result<()> {
    let mut options = Options::default();
    if let Some(rounds) = std::env::args().nth(1) {
        options.rounds = rounds.parse().context("rounds is a number")?;
    }
    let report = run(&options, &mut |step| eprintln!("{step}"))?;
    print!("{report}");
    Ok(())
}
