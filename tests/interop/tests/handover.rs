// SPDX-License-Identifier: Apache-2.0
//! A hundred upgrades of the daemon under changing routes, seen from FRR, BIRD 2, BIRD 3 and GoBGP:
//! there is nothing to see, and nothing in their logs. `causewayd --take-over` gets the TCP sessions
//! of the daemon that runs.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use harness::{CONVERGED, Lab, bird, causeway, frr, lab, upgrade, wait_for};

const UPGRADES: u32 = 100;

const SESSIONS: [&str; 5] = ["frr-v4", "frr-v6", "bird2", "bird3", "gobgp"];

#[test]
fn a_hundred_upgrades_are_no_event_for_neighbours() -> Result<()> {
    let lab = lab("peers", "handover")?;
    let node1 = lab.node("node1");
    let lines = ["router bgp 65011", "bgp log-neighbor-changes"];
    frr::configure(lab.node("frr"), &lines)?;
    bird::run(lab.node("bird2"), "debug node1 { states }")?;
    bird::run(lab.node("bird3"), "debug node1 { states }")?;
    for session in SESSIONS {
        wait_for(session, CONVERGED, || {
            causeway::established(node1, session).map(drop)
        })?;
    }
    let (before, logs) = (what_neighbours_saw(&lab)?, events(&lab)?);
    let started = std::time::Instant::now();
    let done = AtomicBool::new(false);
    let (daemons, changes) = thread::scope(|scope| -> Result<_> {
        let churn = scope.spawn(|| churn(&lab, &done));
        let daemons = upgrades(&lab);
        done.store(true, Ordering::Relaxed);
        let changes = churn.join().expect("it does not panic")?;
        Ok((daemons?, changes))
    })?;
    println!(
        "{UPGRADES} upgrades under {changes} changes in {:?}",
        started.elapsed()
    );
    ensure!(changes > UPGRADES, "{changes} changes");
    by_signal(node1)?;
    assert_eq!(before, what_neighbours_saw(&lab)?);
    assert_eq!(logs, events(&lab)?);

    // What is an event is seen there.
    node1.exec_ok(&["causeway", "bgp", "reset", "frr-v4", "--yes"])?;
    node1.exec_ok(&["causeway", "bgp", "reset", "bird2", "--yes"])?;
    node1.exec_ok(&["causeway", "bgp", "reset", "bird3", "--yes"])?;
    wait_for("the logs to say so", CONVERGED, || {
        let after = events(&lab)?;
        let differ = logs.iter().zip(&after).all(|(one, other)| one != other);
        ensure!(differ, "{after:#?}");
        Ok(())
    })?;
    drop(daemons);
    lab.down()
}

/// Upgrades the daemon, with a route of FRR that comes and one that goes each time.
fn upgrades(lab: &Lab) -> Result<Vec<harness::Spawned>> {
    let (node1, frr) = (lab.node("node1"), lab.node("frr"));
    let mut daemons = Vec::new();
    for round in 0..UPGRADES {
        let (new, old) = (network(round), network(round.wrapping_sub(1)));
        let new = format!("network {new}");
        let old = format!("no network {old}");
        let mut lines = vec!["router bgp 65011", "address-family ipv4 unicast", &new];
        if round > 0 {
            lines.push(&old);
        }
        frr::configure(frr, &lines)?;
        let daemon = node1.spawn(&["causewayd", "--take-over"])?;
        wait_for(
            "the next daemon with the sessions and FRR's route",
            CONVERGED,
            || {
                for session in SESSIONS {
                    upgrade::goes_on(node1, session)?;
                }
                received(node1, &network(round))
            },
        )?;
        daemons.push(daemon);
    }
    Ok(daemons)
}

/// Withdraws and announces BIRD 3's routes all the while. Returns how often.
fn churn(lab: &Lab, done: &AtomicBool) -> Result<u32> {
    let mut changes = 0;
    while !done.load(Ordering::Relaxed) {
        bird::run(lab.node("bird3"), "disable own")?;
        bird::run(lab.node("bird3"), "enable own")?;
        changes += 2;
    }
    Ok(changes)
}

/// Lines about sessions in the logs of FRR and both BIRDs; that routes are asked for again is none.
fn events(lab: &Lab) -> Result<[Vec<String>; 3]> {
    let about = |text: &str, word: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.contains(word));
        lines.map(str::to_owned).collect()
    };
    let of_frr = fs::read_to_string(lab.node("frr").path("/var/log/frr/frr.log"))?;
    Ok([
        about(&of_frr, "ADJCHANGE"),
        about(&lab.node("bird2").log(), "node1: "),
        about(&lab.node("bird3").log(), "node1: "),
    ])
}

/// As `systemctl reload` does it: the daemon starts its successor itself, and tells the service
/// manager, which here is a socket, who is the daemon from then on.
fn by_signal(node1: &harness::Node) -> Result<()> {
    let path = node1.path("/tmp/notify.sock");
    let manager = std::os::unix::net::UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(CONVERGED))?;
    let pid = || upgrade::pid(node1);
    let taken_over = |before: u64| {
        wait_for("the next daemon with the sessions", CONVERGED, || {
            ensure!(pid()? != before, "still {before}");
            let mut sessions = SESSIONS.iter();
            sessions.try_for_each(|session| upgrade::goes_on(node1, session))
        })
    };
    let first = pid()?;
    let argv = [
        "env",
        "NOTIFY_SOCKET=/tmp/notify.sock",
        "causewayd",
        "--take-over",
    ];
    let _daemon = node1.spawn(&argv)?;
    taken_over(first)?;
    let second = pid()?;
    node1.exec_ok(&["kill", "-USR2", &second.to_string()])?;
    taken_over(second)?;
    let third = format!("MAINPID={}", pid()?);
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    while !said.contains(&third) {
        let len = manager
            .recv(&mut buffer)
            .with_context(|| format!("no {third}: {said:?}"))?;
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        said.extend(text.lines().map(str::to_owned));
    }
    ensure!(!said.iter().any(|line| line == "STOPPING=1"), "{said:?}");
    Ok(())
}

fn network(round: u32) -> String {
    format!("10.11.{}.0/24", 100 + round % 100)
}

fn received(node: &harness::Node, prefix: &str) -> Result<()> {
    let argv = [
        "causeway", "bgp", "routes", "received", "peer", "frr-v4", "-o", "json",
    ];
    let answer = node.exec_json(&argv)?;
    ensure!(answer.to_string().contains(prefix), "no {prefix}");
    Ok(())
}

fn what_neighbours_saw(lab: &Lab) -> Result<Vec<upgrade::Seen>> {
    let frr = lab.node("frr");
    Ok(vec![
        upgrade::seen_by_frr(frr, "10.1.1.1")?,
        upgrade::seen_by_frr(frr, "fd00:10:1:1::1")?,
        upgrade::seen_by_bird(lab.node("bird2"), "node1")?,
        upgrade::seen_by_bird(lab.node("bird3"), "node1")?,
        upgrade::seen_by_gobgp(lab.node("gobgp"), "10.1.4.1")?,
    ])
}
