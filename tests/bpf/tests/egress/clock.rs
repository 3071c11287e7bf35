// SPDX-License-Identifier: Apache-2.0
//! Clocks that jump: connections end by the kernel's, whatever the daemon's own says.

use std::{
    env,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bpf_loader::HookChoice;
use bpf_tests::{
    connection::Connection,
    egress::{EgressLab, RULE, timeouts},
    traffic::wait_for,
};

use super::WORLD;

/// How long connections may be silent.
const LIMIT: Duration = Duration::from_secs(1);

#[test]
fn connections_end_when_nobody_has_spoken_for_long_and_not_before() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    let rule = bpf_loader::GatewayRule {
        timeouts: timeouts(LIMIT),
        ..EgressLab::rule()
    };
    // Whose ends speak once more when they are closed, and are told that they are over.
    let mut over = Vec::new();
    for to in WORLD {
        let mut connection = Connection::open(&lab.pod.namespace, &lab.world, to)?;
        // A daemon that begins anew: what is there is judged by what was noted before.
        lab.restart_gateway()?;
        lab.set_rules([(RULE, rule.clone())].into())?;
        let mut began = Instant::now();
        // Where time is counted from the restart it is over by then.
        while began.elapsed() < LIMIT * 3 / 2 {
            let spoke = Instant::now();
            connection.talk()?;
            let live = sweep(&mut lab)?;
            let idle: Vec<_> = lab.mappings()?.iter().map(|one| one.idle).collect();
            if spoke.elapsed() >= LIMIT {
                // The machine did something else meanwhile, and nothing can be said.
                wait_for("its end", || {
                    ensure!(sweep(&mut lab)? == [0, 0]);
                    Ok(())
                })?;
                let another = Connection::open(&lab.pod.namespace, &lab.world, to)?;
                over.push(std::mem::replace(&mut connection, another));
                began = Instant::now();
                continue;
            }
            ensure!(live == [1, 1], "{live:?} at the gateway and the pod's node");
            ensure!(idle.iter().all(|idle| *idle < LIMIT), "{idle:?}");
        }
        wait_for("its end at both", || {
            let live = sweep(&mut lab)?;
            ensure!(live == [0, 0], "{live:?} at the gateway and the pod's node");
            Ok(())
        })?;
        over.push(connection);
    }
    lab.witness.saw_nobody_else()
}

/// Forgets what is over. What is left at the gateway and at the pod's node.
fn sweep(lab: &mut EgressLab) -> Result<[u64; 2]> {
    let at_gateway = lab.sweep()?.live.get(&RULE).copied();
    let EgressLab { datapath, node, .. } = lab;
    let flows = node.run(|| datapath.sweep_egress(&|_| Some(timeouts(LIMIT))))?;
    let at_node = flows.live.get(&RULE).copied();
    Ok([at_gateway, at_node].map(Option::unwrap_or_default))
}

/// The same in a process whose clocks are ahead of the kernel's, and in one whose are behind: as in
/// a container with offsets, or one that was restored from a checkpoint.
#[test]
fn the_clock_of_a_time_namespace_ends_nothing_and_keeps_nothing() -> Result<()> {
    let uptime = bpf_loader::clock::monotonic().as_secs();
    // A clock below zero is refused.
    let behind = i64::try_from(uptime / 2)?;
    ensure!(behind > 10, "the machine is up for {uptime} s only");
    for offset in [36_000, -behind] {
        let offset = offset.to_string();
        let output = Command::new("unshare")
            .args(["--time", "--fork", "--kill-child"])
            .args(["--monotonic", &offset, "--boottime", &offset])
            .arg(env::current_exe()?)
            .args([
                "--exact",
                "clock::connections_end_when_nobody_has_spoken_for_long_and_not_before",
            ])
            .output()
            .context("unshare")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() && said.contains("1 passed"),
            "with clocks moved by {offset} s:\n{said}{errors}"
        );
    }
    Ok(())
}
