// SPDX-License-Identifier: Apache-2.0
//! What the systemd units leave their processes to do is little.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The most that a unit may be exposed, of 10: what systemd calls OK ends at 4.9.
const EXPOSED: f64 = 4.0;

#[test]
fn units_are_hardened() -> Result<()> {
    let folder = harness::root()?.join("deploy/systemd");
    let mut found = 0;
    for entry in std::fs::read_dir(&folder)? {
        let unit = entry?.path();
        if unit
            .extension()
            .is_none_or(|extension| extension != "service")
        {
            continue;
        }
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(&unit)
            .output()
            .context("running systemd-analyze: install the package systemd")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let level = text
            .lines()
            .rev()
            .find_map(|line| line.split_once("Overall exposure level for "))
            .and_then(|(_, rest)| rest.split_once(": "))
            .and_then(|(_, rest)| rest.split_whitespace().next())
            .with_context(|| {
                let errors = String::from_utf8_lossy(&output.stderr);
                format!("{}: no level in: {text}{errors}", unit.display())
            })?;
        let level: f64 = level.parse().with_context(|| level.to_owned())?;
        ensure!(
            level <= EXPOSED,
            "{}: exposed by {level}, more than {EXPOSED}:\n{text}",
            unit.display()
        );
        found += 1;
    }
    ensure!(found >= 2, "{found} units in {}", folder.display());
    Ok(())
}
