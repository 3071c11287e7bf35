// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask crds`: the CRD files, made from the types that read the resources.

use std::{
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};

pub(crate) fn run() -> Result<ExitCode> {
    let root = crate::root()?;
    // The test that keeps them equal writes them when it is told to. So this program need not link
    // the parsers, and `cargo xtask setup` starts quickly on a fresh machine.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["test", "--quiet", "-p", "router-resources", "crd"])
        .env("UPDATE_GOLDEN", "1")
        .current_dir(&root)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the CRDs could not be made");
    for entry in fs::read_dir(root.join("deploy/crds"))? {
        println!("{}", entry?.path().display());
    }
    Ok(ExitCode::SUCCESS)
}
