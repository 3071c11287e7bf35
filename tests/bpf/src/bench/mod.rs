// SPDX-License-Identifier: Apache-2.0
//! How the data plane compares with plain kernel forwarding and with a bridge.
//!
//! Only ratios inside one run mean anything: the modes take turns, round by round, and each says
//! its best round, so that a busy machine slows them alike. Two questions:
//!
//! - **Pods of one node**: throughput of one TCP stream, and half the round trip of one-byte
//!   requests over TCP, by kernel routing, by our programs, and over a Linux bridge. Both ends share
//!   a core, so that the whole cost of a byte counts and the scheduler's choices do not.
//! - **Pods of two nodes**: nanoseconds the sending node spends per forwarded 64-byte packet, by
//!   kernel routing and by our programs. Packets are injected at the pod's device with XDP live
//!   frames, so that no generator's cost is in the number.

pub mod egress;
mod forwarding;
mod pods;
mod xdp;

use std::fmt;

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Turns a mode takes in one round of forwarding: short ones, so that some fall between the
/// disturbances of a busy machine.
const TURNS: u32 = 4;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Rounds of every mode. At least four, or neighbours decide.
    pub rounds: u32,
    /// Seconds of TCP per mode and round.
    pub seconds: f64,
    /// Injected packets per mode and round.
    pub packets: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rounds: 6,
            seconds: 1.0,
            packets: 1_000_000,
        }
    }
}

/// What was measured: the best round of each mode.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Pods of one node by kernel routing.
    pub kernel: PodToPod,
    /// Pods of one node by our programs.
    pub programs: PodToPod,
    /// Pods of one node over a bridge.
    pub bridge: PodToPod,
    /// Cost of a packet forwarded by the kernel.
    pub kernel_forward_ns: Forward,
    /// Cost of a packet forwarded by our programs.
    pub programs_forward_ns: Forward,
}

/// One mode between pods of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PodToPod {
    /// One TCP stream.
    pub gigabits_per_second: f64,
    /// Half the median round trip of a one-byte request.
    pub half_round_trip_us: f64,
}

/// Nanoseconds per forwarded packet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Forward {
    /// IPv4.
    pub v4_ns: f64,
    /// IPv6.
    pub v6_ns: f64,
}

impl Report {
    /// Throughput of our programs over that of kernel routing; the goal is 1.1 or more.
    #[must_use]
    pub fn throughput_ratio(&self) -> f64 {
        self.programs.gigabits_per_second / self.kernel.gigabits_per_second
    }

    /// Latency of our programs over that of kernel routing; the goal is 1.0 or less.
    #[must_use]
    pub fn latency_ratio(&self) -> f64 {
        self.programs.half_round_trip_us / self.kernel.half_round_trip_us
    }

    /// Cost of an IPv4 packet by our programs over the kernel's; the goal is 0.9 or less.
    #[must_use]
    pub fn forward_ratio(&self) -> f64 {
        self.programs_forward_ns.v4_ns / self.kernel_forward_ns.v4_ns
    }

    /// The same for IPv6.
    #[must_use]
    pub fn forward_ratio_v6(&self) -> f64 {
        self.programs_forward_ns.v6_ns / self.kernel_forward_ns.v6_ns
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pods of one node     Gbit/s  half RTT us")?;
        let rows = [
            ("kernel routing", self.kernel),
            ("eBPF", self.programs),
            ("bridge", self.bridge),
        ];
        for (name, row) in rows {
            let PodToPod {
                gigabits_per_second,
                half_round_trip_us,
            } = row;
            writeln!(
                f,
                "  {name:<16} {gigabits_per_second:>8.1} {half_round_trip_us:>12.1}"
            )?;
        }
        writeln!(
            f,
            "pods of two nodes   IPv4 ns   IPv6 ns  per forwarded packet"
        )?;
        let rows = [
            ("kernel routing", self.kernel_forward_ns),
            ("eBPF", self.programs_forward_ns),
        ];
        for (name, Forward { v4_ns, v6_ns }) in rows {
            writeln!(f, "  {name:<16} {v4_ns:>8.0} {v6_ns:>9.0}")?;
        }
        writeln!(f, "ratios, eBPF to kernel routing")?;
        for (name, ratio, goal) in [
            ("throughput", self.throughput_ratio(), ">= 1.1"),
            ("latency", self.latency_ratio(), "<= 1.0"),
            ("cost per packet", self.forward_ratio(), "<= 0.9"),
            ("the same, IPv6", self.forward_ratio_v6(), "<= 0.9"),
        ] {
            writeln!(f, "  {name:<16} {ratio:>8.2}   goal {goal}")?;
        }
        Ok(())
    }
}

/// Measures. Says each round by `progress`. Needs root; makes namespaces that vanish afterwards.
///
/// # Errors
/// When namespaces, programs or sockets cannot be made.
pub fn run(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    let mut report = Report::default();
    let mut pods = pods::Bench::set_up()?;
    for round in 1..=options.rounds {
        progress(&format!(
            "pods of one node, round {round} of {}",
            options.rounds
        ));
        pods.round(options.seconds, &mut report)?;
    }
    drop(pods);
    let mut forwarding = forwarding::Bench::set_up()?;
    for round in 1..=options.rounds {
        progress(&format!(
            "pods of two nodes, round {round} of {}",
            options.rounds
        ));
        for _ in 0..TURNS {
            forwarding.round(options.packets / TURNS, &mut report)?;
        }
    }
    Ok(report)
}

/// The best of two rounds, where zero is none yet.
fn least(best: &mut f64, new: f64) {
    if *best == 0.0 || new < *best {
        *best = new;
    }
}

/// Keeps the calling thread on the first core it may use.
fn on_one_core() -> Result<()> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let first = (0..CpuSet::count()).find(|&core| allowed.is_set(core) == Ok(true));
    let mut core = CpuSet::new();
    core.set(first.context("no core is allowed")?)?;
    sched_setaffinity(Pid::from_raw(0), &core).context("stay on one core")
}

/// Puts the calling thread before all others, as far as allowed.
fn before_others() {
    let priority = libc::sched_param { sched_priority: 50 };
    // SAFETY: the call reads a number it is given.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
}
