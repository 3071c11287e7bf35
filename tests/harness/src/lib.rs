// SPDX-License-Identifier: Apache-2.0
//! What interop tests ask the peers and the kernel of a lab's nodes.
//!
//! A test brings a topology of `lab/containerlab` up with [`lab`], waits with [`wait_for`] and asks
//! each speaker in its own tongue: [`frr`], [`bird`], [`gobgp`], [`kernel`]. Answers are small
//! plain structs, so that one expectation can be held against all of them.

pub mod bird;
pub mod causeway;
pub mod clock;
pub mod egress;
pub mod fabric;
pub mod firewall;
pub mod flood;
pub mod frr;
pub mod gobgp;
pub mod guide;
pub mod kernel;
pub mod keys;
pub mod page;
pub mod paths;
pub mod pod;
pub mod routed;
pub mod standby;
pub mod store;
pub mod talks;
pub mod traffic;
pub mod upgrade;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
pub use lab_runner::{Lab, Lifetime, Node, Options, Output, Signal, Spawned, rootfs, wait_for};

/// How long sessions and routes may take. Generous: the labs' timers make it a few seconds, and a
/// busy machine some more; only a failing test waits this long.
pub const CONVERGED: Duration = Duration::from_secs(90);

/// An address family, as the speakers' commands name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 unicast.
    Ipv4,
    /// IPv6 unicast.
    Ipv6,
}

/// One way to a prefix, as a BGP speaker knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BgpPath {
    /// AS numbers, nearest first.
    pub as_path: Vec<u32>,
    /// Next hops, as given.
    pub next_hops: Vec<String>,
    /// Standard communities (`65001:100`), sorted.
    pub communities: Vec<String>,
    /// Large communities (`65001:1:100`), sorted.
    pub large_communities: Vec<String>,
    /// Whether the speaker uses it: the best path, or one that shares the load with it.
    pub is_used: bool,
}

/// Brings up a topology of `lab/containerlab` for one test: under a name of its own, with a private
/// copy of the files ([`Lab::files`]), and gone with the test.
///
/// # Errors
/// As [`Lab::up`].
pub fn lab(topology: &str, test: &str) -> Result<Lab> {
    let file = lab_runner::find_topology(&root()?, topology)?;
    lab_from(&file, test)
}

/// As [`lab`], for a topology file anywhere.
///
/// # Errors
/// As [`Lab::up`].
pub fn lab_from(file: &Path, test: &str) -> Result<Lab> {
    Lab::up(file, &Options::for_test(test), |step| {
        eprintln!("lab: {step}")
    })
}

/// The root of the checkout.
///
/// # Errors
/// When this crate was moved elsewhere.
pub fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.map(Path::to_owned)
        .context("tests/harness lies two folders below the root")
}

/// Words of a speaker's list, sorted.
fn sorted(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut words: Vec<String> = words.collect();
    words.sort();
    words
}
