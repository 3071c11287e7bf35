// SPDX-License-Identifier: Apache-2.0
//! Connections that are alive beside those that are looked at.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use harness::{
    CONVERGED, Lab, causeway, egress, guide,
    pod::Pod,
    standby::{self, GATEWAYS},
    wait_for,
};

/// Where they lead: behind the firewall, which drops what goes there.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(192, 168, 71, 10);

/// The sockets they are of.
const SOCKETS: u32 = 16;

/// Datagrams sent before the others have a turn.
const BURST: u32 = 10_000;

/// The lab with the guide's policy, in which so many connections find room.
pub(crate) fn lab(live: u32) -> Result<Lab> {
    let policy = guide::manifest("egress.md", "billing-standby")?;
    if live == 0 {
        return standby::up("failover");
    }
    let policy = replaced(
        &policy,
        "    - 192.168.70.0/24\n",
        "    - 192.168.70.0/24\n    - 192.168.71.0/24\n",
    )?;
    let policy = replaced(
        &policy,
        "timeouts: { ",
        "timeouts: { udpUnansweredSeconds: 86400, ",
    )?;
    let folder = tempfile::tempdir()?;
    let original = harness::root()?.join("lab/containerlab/egress");
    copy(&original, folder.path())?;
    for (gateway, _) in GATEWAYS {
        let file = folder.path().join(gateway).join("causeway.yaml");
        let text = fs::read_to_string(&file)?;
        let room = format!("egress:\n  maxMappings: {}\n", u64::from(live) * 5 / 4);
        fs::write(&file, replaced(&text, "egress:\n", &room)?)?;
    }
    let lab = egress::up_from(&folder.path().join("egress.clab.yml"), "failover")?;
    let net = format!("{NOWHERE}/32");
    for (gateway, _) in GATEWAYS {
        let there = ["ip", "route", "add", &net, "via", "192.168.60.254"];
        lab.node(gateway).exec_ok(&there)?;
    }
    // Before its own rules: they would remember each connection.
    let rules = format!(
        "table ip nowhere {{\nchain first {{\ntype filter hook prerouting priority -500\n\
         ip daddr {NOWHERE} drop\n}}\n}}\n"
    );
    let output = lab
        .node("firewall")
        .exec_with_input(&["nft", "-f", "-"], rules.as_bytes())?;
    ensure!(output.success(), "{rules}: {}", output.stderr);
    standby::put_in_force(&lab, &policy)?;
    Ok(lab)
}

/// Begins so many connections, and waits until the gateway has them.
pub(crate) fn fill(lab: &Lab, pod: &Pod<'_>, live: u32) -> Result<()> {
    if live == 0 {
        return Ok(());
    }
    let each = live.div_ceil(SOCKETS);
    ensure!(
        each < 64_000,
        "{live} connections: at most {}",
        64_000 * SOCKETS
    );
    pod.within(|| {
        for _ in 0..SOCKETS {
            let socket = UdpSocket::bind(SocketAddr::new(pod.v4, 0))?;
            for number in 0..each {
                let port = u16::try_from(1024 + number)?;
                socket.send_to(b"alive", (NOWHERE, port))?;
                if number % BURST == 0 {
                    thread::sleep(Duration::from_millis(50));
                }
            }
        }
        Ok(())
    })?;
    let holder = standby::one_holds(lab)?;
    wait_for(&format!("{live} connections"), CONVERGED, || {
        let rules = causeway::items(lab.node(&holder), "egress rules")?;
        let opened = |rule: &serde_json::Value| rule["traffic"]["opened"].as_u64();
        let count: u64 = rules.iter().filter_map(opened).sum();
        // Some may have been lost on a busy machine.
        ensure!(count >= u64::from(live) / 100 * 99, "{count}");
        Ok(())
    })
}

fn replaced(text: &str, what: &str, with: &str) -> Result<String> {
    ensure!(text.contains(what), "{what:?} is not in {text}");
    Ok(text.replacen(what, with, 1))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
