// SPDX-License-Identifier: Apache-2.0
//! How many routes of VPNs a neighbour may send.

use std::fs;

use anyhow::{Result, ensure};
use harness::{CONVERGED, Lab, bird, causeway, wait_for};

use crate::{FOURS, at_bird, resources, stored, with_bird2};

/// BIRD 2 sends two routes of VPNv4 and one of VPNv6.
pub(crate) fn of_routes_of_vpns(lab: &Lab) -> Result<()> {
    let node = lab.node("node1");
    let file = resources(lab)?.join("reflector.yaml");
    let pristine = fs::read_to_string(&file)?;
    let before = causeway::peer(node, "bird2")?["established-count"].clone();
    let warns = "import: { maxRoutes: 1, onMaxRoutes: Warn }";
    for (afi, family) in [("ipv4", "ipv4/mpls_vpn"), ("ipv6", "ipv6/mpls_vpn")] {
        fs::write(&file, with_bird2(afi, warns)?)?;
        wait_for("the warning", CONVERGED, || {
            let log = node.log_tail();
            let mut lines = log.lines();
            let said = lines
                .any(|line| line.contains("maxRoutes is near or passed") && line.contains(family));
            ensure!(said, "nothing of {family}: {log}");
            Ok(())
        })?;
    }
    stored(lab, "vpnv4", FOURS[2])?;
    let after = causeway::peer(node, "bird2")?["established-count"].clone();
    ensure!(
        before == after,
        "a warning ends no session: {before} {after}"
    );

    let ends = "import: { maxRoutes: 1, restartAfterSeconds: 3 }";
    fs::write(&file, with_bird2("ipv4", ends)?)?;
    wait_for("BIRD 2 to hear why", CONVERGED, || {
        let text = bird::run(lab.node("bird2"), "show protocols all node1")?;
        ensure!(
            text.contains("Maximum number of prefixes reached"),
            "{text}"
        );
        Ok(())
    })?;
    // It comes back by itself after the time, and goes again; with a higher limit it stays.
    wait_for("another session after the pause", CONVERGED, || {
        let count = causeway::peer(node, "bird2")?["established-count"].clone();
        ensure!(count.as_u64() > after.as_u64(), "{count}");
        Ok(())
    })?;
    fs::write(&file, pristine)?;
    wait_for("both routes again", CONVERGED, || {
        causeway::established(node, "bird2")?;
        at_bird(lab, "bird3", "vpn4s", FOURS[1])?;
        at_bird(lab, "bird3", "vpn4s", FOURS[2])
    })
}
