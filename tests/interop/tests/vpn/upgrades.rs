// SPDX-License-Identifier: Apache-2.0
//! Upgrades of the reflector that neighbours with routes of VPNs and memberships do not notice.

use std::fs;

use anyhow::{Result, ensure};
use harness::{CONVERGED, Lab, Spawned, bird, upgrade, wait_for};

use crate::{FOURS, PEERS, RED, Route, at_bird, gobgp_has, resources, stored, with_bird2};

/// Upgrades of the reflector, the last one to a daemon that does not take BIRD 2's IPv4 routes.
pub(crate) fn are_no_event(lab: &Lab) -> Result<Spawned> {
    let node = lab.node("node1");
    let before = what_neighbours_saw(lab)?;
    let everybodys: Vec<Route> = FOURS.into_iter().filter(|r| r.0 != "65000:13").collect();
    let mut daemons = Vec::new();
    for _ in 0..3 {
        daemons.push(upgrade::take_over(node, &PEERS, &[])?);
        for route in &everybodys {
            at_bird(lab, "bird3", "vpn4s", *route)?;
        }
    }
    wait_for("the routes at the next daemon", CONVERGED, || {
        FOURS
            .into_iter()
            .try_for_each(|route| stored(lab, "vpnv4", route))
    })?;
    let next = node.path("/tmp/next.d");
    fs::create_dir(&next)?;
    fs::copy(resources(lab)?.join("node.yaml"), next.join("node.yaml"))?;
    let closed = with_bird2("ipv4", "import: { mode: None }")?;
    fs::write(next.join("reflector.yaml"), closed)?;
    daemons.push(upgrade::take_over(
        node,
        &PEERS,
        &["resourcesDirectory=/tmp/next.d"],
    )?);
    wait_for(
        "what the next daemon does not have to be withdrawn",
        CONVERGED,
        || {
            let text = bird::run(lab.node("bird3"), "show route table vpn4s")?;
            ensure!(!text.contains("10.12."), "{text}");
            Ok(())
        },
    )?;
    at_bird(lab, "bird3", "vpn4s", FOURS[0])?;
    gobgp_has(lab, &[RED[0], RED[2], RED[3]])?;
    let last = upgrade::take_over(node, &PEERS, &[])?;
    wait_for("all routes again", CONVERGED, || {
        for route in &everybodys {
            at_bird(lab, "bird3", "vpn4s", *route)?;
        }
        Ok(())
    })?;
    assert_eq!(before, what_neighbours_saw(lab)?);
    Ok(last)
}

fn what_neighbours_saw(lab: &Lab) -> Result<Vec<upgrade::Seen>> {
    Ok(vec![
        upgrade::seen_by_frr(lab.node("frr"), "10.2.1.1")?,
        upgrade::seen_by_bird(lab.node("bird2"), "node1")?,
        upgrade::seen_by_bird(lab.node("bird3"), "node1")?,
        upgrade::seen_by_gobgp(lab.node("gobgp"), "10.2.4.1")?,
    ])
}
