// SPDX-License-Identifier: Apache-2.0
//! What must be true before a lab can start, looked at all together, so that one run tells all.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{rootfs, topology::Topology};

/// Programs of this machine that the runner calls, with their Debian packages.
const PROGRAMS: &[(&str, &str)] = &[
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("pivot_root", "util-linux"),
    ("ip", "iproute2"),
];

/// Looks at everything; `programs` is where our own programs are built.
///
/// # Errors
/// One message with every problem and what to do about it.
pub fn check(topology: &Topology, programs: &Path) -> Result<()> {
    let mut problems = Vec::new();
    if !is_root() {
        problems.push("a lab makes namespaces and mounts: run it as root (sudo)".to_owned());
    }
    for (program, package) in PROGRAMS {
        if find_program(program).is_none() {
            problems.push(format!(
                "`{program}` is missing (package {package}): cargo xtask setup"
            ));
        }
    }
    if !rootfs::path()?.is_dir() && find_program("mmdebstrap").is_none() {
        problems.push(
            "the lab's root file system is not built and mmdebstrap is missing: cargo xtask setup"
                .to_owned(),
        );
    }
    for (name, node) in &topology.nodes {
        for (program, _) in node
            .image()
            .into_iter()
            .flat_map(|image| image.own_programs())
        {
            if !programs.join(program).is_file() {
                problems.push(format!(
                    "node {name} runs `{program}`, which is not built in {}: cargo build",
                    programs.display()
                ));
            }
        }
    }
    problems.sort();
    problems.dedup();
    if !problems.is_empty() {
        bail!(
            "this machine cannot run the lab:\n  - {}",
            problems.join("\n  - ")
        );
    }
    Ok(())
}

/// Whether this process may make namespaces, mounts and packages.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Finds a program in `PATH`, or in the administrator's folders that a user's `PATH` may lack.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Folder of the running program's build (`target/debug` for a debug test), where our own programs
/// are built too. `CAUSEWAY_PROGRAMS` names another.
///
/// # Errors
/// When the running program's own path is unknown.
pub fn programs_dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("CAUSEWAY_PROGRAMS") {
        return fs::canonicalize(&dir)
            .with_context(|| format!("CAUSEWAY_PROGRAMS={} is no folder", dir.display()));
    }
    let own = env::current_exe().context("the running program's path is unknown")?;
    let dir = own
        .parent()
        .context("the running program lies in no folder")?;
    Ok(if dir.ends_with("deps") {
        dir.parent().unwrap_or(dir)
    } else {
        dir
    }
    .to_owned())
}
