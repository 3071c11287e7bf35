// SPDX-License-Identifier: Apache-2.0
//! Daemons whose clocks are not the kernel's.

use std::fs;

use anyhow::{Context, Result, ensure};
use lab_runner::{Node, wait_for};

use crate::CONVERGED;

/// Which way the clocks of a process are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clocks {
    /// Ten hours ahead.
    Ahead,
    /// Behind, as far as half the time the machine is up: a clock below zero is refused.
    Behind,
}

/// Starts a node's main process in a time namespace, as one that is restored from a checkpoint.
///
/// # Errors
/// As [`Node::start`], and when the process has the clocks of all others.
pub fn start(node: &Node, clocks: Clocks) -> Result<()> {
    let offset = match clocks {
        Clocks::Ahead => 36_000,
        Clocks::Behind => {
            let uptime = fs::read_to_string("/proc/uptime")?;
            let seconds = uptime.split('.').next().unwrap_or_default();
            -seconds.parse::<i64>().context(uptime.clone())? / 2
        }
    };
    let offset = offset.to_string();
    let under = ["unshare", "--time", "--fork", "--monotonic", &offset];
    node.start_under(&[&under[..], &["--boottime", &offset]].concat())?;
    wait_for("the daemon in its time namespace", CONVERGED, || {
        let process = node.main_process().context("it does not run")?;
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/time"));
        let its = of(&process.pid.to_string())?;
        ensure!(its != of("self")?, "it has the clocks of all others");
        Ok(())
    })
}
