// SPDX-License-Identifier: Apache-2.0
//! Graceful restart of either end, and long-lived stale routes, for routes of VPNs.

use anyhow::{Context, Result, ensure};
use harness::{CONVERGED, Lab, Signal, bird, causeway, frr, wait_for};

use crate::{
    FOURS, PEERS, RED, SIXES, at_bird, at_frr, everybody_has_the_others_routes, gobgp_has, stored,
};

/// LLGR_STALE (RFC 9494 §5), as BIRD writes it.
const LLGR_STALE: &str = "(65535,6)";

/// BIRD 2 dies: its routes are kept at the reflector and at everybody, become the last choice once
/// its restart time is over, and are its own again when it is back.
pub(crate) fn of_a_neighbour(lab: &Lab) -> Result<()> {
    let (node, bird2) = (lab.node("node1"), lab.node("bird2"));
    bird2.kill(Signal::SIGKILL)?;
    wait_for("BIRD 2's routes to be kept", CONVERGED, || {
        ensure!(causeway::established(node, "bird2").is_err(), "still up");
        are_stale(lab, true)
    })?;
    // Sent on as before.
    at_bird(lab, "bird3", "vpn4s", FOURS[1])?;
    at_bird(lab, "bird3", "vpn6s", SIXES[0])?;
    at_frr(lab, "ipv4", FOURS[1])?;
    wait_for("them to be long-lived stale routes", CONVERGED, || {
        ensure!(is_long_lived_stale(lab)? == [true, true], "not yet");
        are_stale(lab, true)
    })?;
    // GoBGP has not said that it knows them (RFC 9494 §4.3); FRR has.
    wait_for("GoBGP not to be sent those", CONVERGED, || {
        gobgp_has(lab, &[RED[0], RED[2], RED[3]])
    })?;
    at_frr(lab, "ipv4", FOURS[1])?;
    bird2.start()?;
    wait_for("BIRD 2's routes again", CONVERGED, || {
        causeway::established(node, "bird2")?;
        are_stale(lab, false)?;
        ensure!(is_long_lived_stale(lab)? == [false, false], "still marked");
        at_frr(lab, "ipv4", FOURS[1])
    })
}

/// The reflector dies and comes back: neighbours keep what it has sent.
pub(crate) fn of_the_reflector(lab: &Lab) -> Result<()> {
    let node = lab.node("node1");
    node.kill(Signal::SIGKILL)?;
    wait_for("the neighbours to lose the session", CONVERGED, || {
        for speaker in ["bird2", "bird3"] {
            let text = bird::run(lab.node(speaker), "show protocols node1")?;
            ensure!(!text.contains("Established"), "{text}");
        }
        ensure!(frr::established(lab.node("frr"), "10.2.1.1").is_err());
        Ok(())
    })?;
    at_bird(lab, "bird3", "vpn4s", FOURS[1])?;
    at_bird(lab, "bird3", "vpn6s", SIXES[0])?;
    at_bird(lab, "bird2", "vpn4s", FOURS[0])?;
    at_frr(lab, "ipv4", FOURS[3])?;
    node.start()?;
    for peer in PEERS {
        wait_for(peer, CONVERGED, || causeway::established(node, peer))?;
    }
    everybody_has_the_others_routes(lab)
}

/// Whether the reflector keeps all of BIRD 2's routes for a session that is gone.
fn are_stale(lab: &Lab, expected: bool) -> Result<()> {
    for (family, route) in [
        ("vpnv4", FOURS[1]),
        ("vpnv4", FOURS[2]),
        ("vpnv6", SIXES[0]),
    ] {
        stored(lab, family, route)?;
        let items = causeway::items(lab.node("node1"), &format!("bgp routes {family}"))?;
        let found = items
            .iter()
            .find(|item| item["route-distinguisher"] == route.0 && item["prefix"] == route.1);
        let found = found.with_context(|| format!("no {}", route.1))?;
        ensure!(found["stale"] == expected, "{found:#}");
    }
    Ok(())
}

/// Whether BIRD 3 has the mark on BIRD 2's routes of each family.
fn is_long_lived_stale(lab: &Lab) -> Result<[bool; 2]> {
    let marked = |table: &str, rd: &str, prefix: &str| -> Result<bool> {
        let command = format!("show route all table {table} {rd} {prefix}");
        Ok(bird::run(lab.node("bird3"), &command)?.contains(LLGR_STALE))
    };
    Ok([
        marked("vpn4s", "65000:12", "10.12.0.0/24")?,
        marked("vpn6s", "65000:12", "fd00:12::/64")?,
    ])
}
