// SPDX-License-Identifier: Apache-2.0
//! Upgrades of the daemon under a lab's sessions, and what neighbours saw of them: nothing, if what
//! is returned here is the same before and after.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab_runner::{Node, Spawned, wait_for};
use serde_json::Value;

use crate::{CONVERGED, bird, causeway, frr};

/// What a neighbour shows of a session.
#[derive(Debug)]
pub enum Seen {
    /// States and counters.
    Counts(String),
    /// When it came up, as time of the day.
    Since(Duration),
}

impl PartialEq for Seen {
    /// Whether both are of one session. BIRD reckons the time from two clocks whenever it is asked,
    /// so that the last digits vary; a tenth of a second apart is the same, as no session ends and
    /// comes back within that.
    fn eq(&self, other: &Seen) -> bool {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        match (self, other) {
            (Seen::Counts(one), Seen::Counts(other)) => one == other,
            (Seen::Since(one), Seen::Since(other)) => {
                let apart = one.abs_diff(*other);
                apart.min(DAY.saturating_sub(apart)) < Duration::from_millis(100)
            }
            (Seen::Counts(_), Seen::Since(_)) | (Seen::Since(_), Seen::Counts(_)) => false,
        }
    }
}

/// Starts a daemon that takes the sessions of the one that runs, and waits until it has them. The
/// settings are `path=value`.
///
/// # Errors
/// When a session is another one than before, or not up in time.
pub fn take_over(node: &Node, sessions: &[&str], settings: &[&str]) -> Result<Spawned> {
    let before = pid(node)?;
    let mut argv = vec!["causewayd", "--take-over"];
    for setting in settings {
        argv.extend(["--set", setting]);
    }
    let daemon = node.spawn(&argv)?;
    wait_for("the next daemon with the sessions", CONVERGED, || {
        ensure!(pid(node)? != before, "still the daemon with pid {before}");
        for session in sessions {
            goes_on(node, session)?;
        }
        Ok(())
    })?;
    Ok(daemon)
}

/// Succeeds when a session is up and was so before the daemon that runs.
///
/// # Errors
/// When it is not.
pub fn goes_on(node: &Node, session: &str) -> Result<()> {
    let peer = causeway::established(node, session)?;
    // Of this daemon's own life: it got no OPEN.
    let opens = &peer["received"]["open"];
    ensure!(*opens == 0, "{session}: {opens} OPENs");
    Ok(())
}

/// The process of the daemon that runs.
///
/// # Errors
/// When none answers.
pub fn pid(node: &Node) -> Result<u64> {
    let answer = causeway::ask(node, "status")?;
    answer["pid"].as_u64().context("the pid of the daemon")
}

/// What would differ if FRR's session had ended: its state and counters.
///
/// # Errors
/// When FRR has no such neighbour.
pub fn seen_by_frr(node: &Node, peer: &str) -> Result<Seen> {
    let answer = frr::show(node, &format!("bgp neighbors {peer}"))?;
    let peer = &answer[peer];
    let messages = &peer["messageStats"];
    let count = |name: &str| -> Result<Value> {
        let found = messages
            .get(name)
            .with_context(|| format!("no {name}: {messages}"))?;
        Ok(found.clone())
    };
    Ok(Seen::Counts(format!(
        "{} {} {} {} {}",
        peer["bgpState"],
        peer["connectionsEstablished"],
        count("opensRecv")?,
        count("notificationsRecv")?,
        count("notificationsSent")?,
    )))
}

/// What would differ if BIRD's session had ended: since when it is up.
///
/// # Errors
/// When it is not up.
pub fn seen_by_bird(node: &Node, protocol: &str) -> Result<Seen> {
    let text = bird::run(node, &format!("show protocols {protocol}"))?;
    let line = text.lines().find(|line| line.contains("Established"));
    let line = line.with_context(|| format!("{}: {text}", node.name()))?;
    let time = line.split_whitespace().find_map(time_of_day);
    let time = time.with_context(|| format!("{}: no time: {line}", node.name()))?;
    Ok(Seen::Since(time))
}

/// What would differ if GoBGP's session had ended: counters of messages and of flaps.
///
/// # Errors
/// When GoBGP has no such neighbour.
pub fn seen_by_gobgp(node: &Node, peer: &str) -> Result<Seen> {
    let answer = node.exec_json(&["gobgp", "--json", "neighbor", peer])?;
    let state = &answer["state"];
    let received = &state["messages"]["received"];
    ensure!(received["open"].is_u64(), "no count of OPENs: {state}");
    Ok(Seen::Counts(format!(
        "{} opens {} notifications {} flops {}",
        state["session_state"], received["open"], received["notification"], state["flops"]
    )))
}

/// `08:33:05.142` as time since midnight.
fn time_of_day(text: &str) -> Option<Duration> {
    let mut parts = text.split(':');
    let (hours, minutes) = (parts.next()?.parse::<u64>(), parts.next()?.parse::<u64>());
    let seconds: f64 = parts.next()?.parse().ok()?;
    let whole = Duration::from_secs((hours.ok()? * 60 + minutes.ok()?) * 60);
    Some(whole + Duration::try_from_secs_f64(seconds).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(text: &str) -> Seen {
        Seen::Since(time_of_day(text).expect("a time"))
    }

    #[test]
    fn a_session_is_the_same_but_for_the_last_digits_of_its_time() {
        assert_eq!(since("08:33:05.142"), since("08:33:05.141"));
        assert_eq!(since("23:59:59.999"), since("00:00:00.001"));
        assert_ne!(since("08:33:05.142"), since("08:33:05.342"));
        assert_ne!(since("08:33:05.142"), since("20:33:05.142"));
        for text in ["2026-11-22", "Established", "1:2", "1:2:x", "-1:2:3"] {
            assert_eq!(time_of_day(text), None, "{text}");
        }
    }
}
