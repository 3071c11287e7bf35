// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask setup`: what this machine lacks to build, test and run the lab.

mod toolchain;

use std::{
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use lab_runner::{preflight::find_program, rootfs};

#[derive(Args, Default)]
pub(crate) struct Arguments {
    /// Leave the lab's root file system out.
    #[arg(long)]
    no_rootfs: bool,
}

impl Arguments {
    /// For what needs no lab.
    pub(crate) fn without_rootfs() -> Self {
        Self { no_rootfs: true }
    }
}

/// Programs by the Debian package that brings them.
const PROGRAMS: &[(&str, &str)] = &[
    ("unshare", "util-linux"),
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("mmdebstrap", "mmdebstrap"),
    ("iperf3", "iperf3"),
    ("tshark", "tshark"),
    ("ping", "iputils-ping"),
    ("cc", "gcc"),
    ("dpkg-deb", "dpkg"),
];

/// Files that packages bring without a program.
const FILES: &[(&str, &str)] = &[(
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "debian-archive-keyring",
)];

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    prepare(arguments)?;
    Ok(ExitCode::SUCCESS)
}

/// Does everything that is not done yet; takes no time when all is.
pub(crate) fn prepare(arguments: &Arguments) -> Result<()> {
    packages()?;
    toolchain::install(&|step| println!("{step}"))?;
    if arguments.no_rootfs {
        println!("root file system: left out");
    } else {
        ensure_root("build the lab's root file system")?;
        let path = rootfs::ensure(|step| println!("root file system: {step}"))?;
        println!("root file system: ready ({})", path.display());
    }
    println!("setup is complete");
    Ok(())
}

/// Installs what only some tasks need.
pub(crate) fn install(program: &str, package: &str) -> Result<()> {
    if find_program(program).is_some() {
        return Ok(());
    }
    missing_packages(vec![package])
}

fn packages() -> Result<()> {
    let programs = PROGRAMS
        .iter()
        .filter(|(program, _)| find_program(program).is_none());
    let files = FILES.iter().filter(|(file, _)| fs::metadata(file).is_err());
    missing_packages(programs.chain(files).map(|(_, package)| *package).collect())
}

fn missing_packages(mut missing: Vec<&str>) -> Result<()> {
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        println!("packages: all there");
        return Ok(());
    }
    println!("packages: installing {}", missing.join(", "));
    if find_program("apt-get").is_none() {
        bail!(
            "this machine has no apt-get; install the equivalents of {} by its own means and run \
             this again",
            missing.join(", ")
        );
    }
    ensure_root("install packages")?;
    let lists = fs::read_dir("/var/lib/apt/lists").map(|dir| {
        dir.flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    });
    if !lists.unwrap_or(false) {
        apt(&["update"])?;
    }
    let install: Vec<&str> = ["install", "--yes", "--no-install-recommends"]
        .into_iter()
        .chain(missing)
        .collect();
    if apt(&install).is_err() {
        println!("packages: the lists may be old; fetching them and trying again");
        apt(&["update"])?;
        apt(&install)?;
    }
    Ok(())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .context("cannot run apt-get")?;
    ensure!(
        status.success(),
        "apt-get {} failed ({status})",
        arguments.join(" ")
    );
    Ok(())
}

fn ensure_root(what: &str) -> Result<()> {
    ensure!(
        lab_runner::preflight::is_root(),
        "to {what} this must run as root (sudo)"
    );
    Ok(())
}
