// SPDX-License-Identifier: Apache-2.0
//! What people and networks get wrong: the node says so, in words, and goes on with the rest.

use std::{fs, os::unix::net::UnixDatagram, time::Duration};

use anyhow::{Context, Result, ensure};
use harness::{CONVERGED, Lab, Node, Signal, causeway, frr, lab, wait_for};
use serde_json::Value;

#[test]
fn a_session_that_cannot_be_says_why_and_harms_no_other() -> Result<()> {
    let lab = lab("peers", "bad")?;
    let node = lab.node("node1");
    for name in ["frr-v4", "frr-v6", "bird2", "bird3", "gobgp"] {
        wait_for(name, CONVERGED, || causeway::established(node, name))?;
    }

    // A Secret that is not there is no empty password: the session is not tried.
    edit(
        &lab,
        "resources.d/peers.yaml",
        "authSecretRef: frr",
        "authSecretRef: gone",
    )?;
    says(node, "frr-v4", "Secret")?;
    let config = resource(node, "BGPPeerConfig", "frr-v4")?;
    ensure!(
        config.to_string().contains("MissingAuthSecret"),
        "{config:#}"
    );
    in_status(node, "frr-v4", "Secret")?;
    edit(
        &lab,
        "resources.d/peers.yaml",
        "authSecretRef: gone",
        "authSecretRef: frr",
    )?;
    wait_for("the session to be back", CONVERGED, || {
        causeway::established(node, "frr-v4")
    })?;

    // A wrong password looks like silence on the wire; the node knows what to suspect.
    edit(
        &lab,
        "resources.d/peers.yaml",
        "password: peers-frr",
        "password: wrong",
    )?;
    node.exec_ok(&["causeway", "bgp", "reset", "frr-v4", "--yes"])?;
    says(node, "frr-v4", "is the MD5 password right?")?;
    in_status(node, "frr-v4", "is the MD5 password right?")?;
    edit(
        &lab,
        "resources.d/peers.yaml",
        "password: wrong",
        "password: peers-frr",
    )?;
    wait_for("the session to be back", CONVERGED, || {
        causeway::established(node, "frr-v4")
    })?;

    // Another AS than configured.
    edit(
        &lab,
        "resources.d/cluster.yaml",
        "peerASN: 65012",
        "peerASN: 65099",
    )?;
    says(node, "bird2", "peer AS is 65012, configured 65099")?;
    edit(
        &lab,
        "resources.d/cluster.yaml",
        "peerASN: 65099",
        "peerASN: 65012",
    )?;
    wait_for("the session to be back", CONVERGED, || {
        causeway::established(node, "bird2")
    })?;

    // A speaker that hangs: half-open until the hold time of three seconds is over.
    let router = lab.node("frr");
    let bgpd = router.exec_ok(&["cat", "/var/run/frr/bgpd.pid"])?;
    router.exec_ok(&["kill", "-STOP", bgpd.trim()])?;
    says(node, "frr-v4", "hold time of 3 s")?;
    router.exec_ok(&["kill", "-CONT", bgpd.trim()])?;
    wait_for("the session to be back", CONVERGED, || {
        causeway::established(node, "frr-v4")
    })?;

    // An interface that is renamed under a session.
    for line in [
        ["ip", "link", "set", "eth1", "down"].as_slice(),
        &["ip", "link", "set", "eth1", "name", "moved"],
        &["ip", "link", "set", "moved", "up"],
    ] {
        node.exec_ok(line)?;
    }
    wait_for("FRR over the renamed interface", CONVERGED, || {
        causeway::established(node, "frr-v4")?;
        frr::established(lab.node("frr"), "10.1.1.1")?;
        let route = node.exec_ok(&["ip", "route", "show", "10.11.0.0/24"])?;
        ensure!(route.contains("dev moved"), "{route}");
        Ok(())
    })?;

    // All that happened to others, and nothing to these.
    for name in ["bird3", "gobgp"] {
        let peer = causeway::peer(node, name)?;
        assert_eq!(peer["established-count"], 1, "{peer:#}");
    }
    lab.down()
}

#[test]
fn wrong_files_are_shown_with_their_place_and_change_nothing() -> Result<()> {
    let lab = lab("peers", "files")?;
    let node = lab.node("node1");
    for name in ["frr-v4", "bird3"] {
        wait_for(name, CONVERGED, || causeway::established(node, name))?;
    }
    let files = lab
        .files()
        .context("the lab has a copy of its files")?
        .join("resources.d");

    let unknown_field = "apiVersion: cilium.io/v2\nkind: CiliumBGPPeerConfig\n\
                         metadata: { name: other }\nspec:\n  ebgpMultihops: 2\n";
    fs::write(files.join("a-typo.yaml"), unknown_field)?;
    wait_for("the typo to be shown", CONVERGED, || {
        let status = causeway::ask(node, "status")?.to_string();
        ensure!(status.contains("a-typo.yaml:5:3"), "{status}");
        ensure!(status.contains("ebgpMultihop"), "no suggestion: {status}");
        Ok(())
    })?;
    fs::remove_file(files.join("a-typo.yaml"))?;

    // No YAML at all.
    fs::write(files.join("b-broken.yaml"), "spec: [1, 2\nkind: }\n")?;
    wait_for("the broken file to be shown", CONVERGED, || {
        let status = causeway::ask(node, "status")?.to_string();
        ensure!(status.contains("b-broken.yaml:2:"), "{status}");
        let health = node.exec_ok(&["curl", "-sS", "http://127.0.0.1:9962/healthz"])?;
        ensure!(health.contains("b-broken.yaml:2:"), "{health}");
        Ok(())
    })?;
    fs::remove_file(files.join("b-broken.yaml"))?;

    // The same name in a later file: the first one stays in force, the other says so.
    let double = "apiVersion: causeway.io/v1alpha1\nkind: BGPPeerConfig\n\
                  metadata: { name: frr-v4 }\nspec: { ebgpMultihop: 9 }\n";
    fs::write(files.join("z-double.yaml"), double)?;
    wait_for("the duplicate to be shown", CONVERGED, || {
        let all = causeway::items(node, "resources")?;
        let double = all
            .iter()
            .find(|object| object.to_string().contains("z-double.yaml"));
        let double = double
            .with_context(|| format!("not listed: {all:?}"))?
            .to_string();
        ensure!(
            double.contains("peers.yaml"),
            "does not name the other file: {double}"
        );
        Ok(())
    })?;
    fs::remove_file(files.join("z-double.yaml"))?;

    // A second configuration for this node: the first one counts, the other says so.
    let second = "apiVersion: cilium.io/v2\nkind: CiliumBGPClusterConfig\n\
                  metadata: { name: zz-second }\nspec:\n  bgpInstances:\n\
                  \x20   - { name: other, localASN: 65999 }\n";
    fs::write(files.join("z-second.yaml"), second)?;
    wait_for("the conflict to be shown", CONVERGED, || {
        let second = resource(node, "CiliumBGPClusterConfig", "zz-second")?.to_string();
        ensure!(second.contains("ConflictingClusterConfig"), "{second}");
        ensure!(
            second.contains("peers"),
            "does not name the other: {second}"
        );
        Ok(())
    })?;
    fs::remove_file(files.join("z-second.yaml"))?;
    wait_for("a healthy node", CONVERGED, || causeway::healthy(node))?;
    for name in ["frr-v4", "bird3"] {
        let peer = causeway::peer(node, name)?;
        assert_eq!(peer["established-count"], 1, "{peer:#}");
    }

    // Settings are checked before anything starts.
    node.exec_ok(&[
        "sh",
        "-c",
        "printf 'nodeName: n\\nlog:\\n  level: 7\\npodCIDR: x\\n' > /tmp/bad.yaml",
    ])?;
    let output = node.exec(&["causewayd", "--check", "--config", "/tmp/bad.yaml"])?;
    assert_eq!(
        output.status.code(),
        Some(2),
        "{}{}",
        output.stdout,
        output.stderr
    );
    ensure!(
        output.stderr.contains("/tmp/bad.yaml:4:1"),
        "{}",
        output.stderr
    );
    ensure!(
        output.stderr.contains("podCIDRs"),
        "no suggestion: {}",
        output.stderr
    );
    lab.down()
}

#[test]
fn the_service_manager_is_told_and_nothing_is_kept_that_is_not_needed() -> Result<()> {
    let lab = lab("peers", "service")?;
    let node = lab.node("node1");
    wait_for("a session", CONVERGED, || {
        causeway::established(node, "bird3")
    })?;

    // The capabilities the documentation names, and no other.
    let pid = node.main_process().context("causewayd runs")?.pid;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(effective.context("CapEff")?.trim(), 16)?;
    // NET_BIND_SERVICE, NET_ADMIN, NET_RAW, SYS_ADMIN, PERFMON, BPF by their numbers, and IPC_LOCK
    // and SYS_NICE for causeway-bfdd, which the daemon starts here.
    let documented = [10, 12, 13, 14, 21, 23, 38, 39]
        .iter()
        .map(|bit| 1_u64 << bit)
        .sum::<u64>();
    assert_eq!(
        effective, documented,
        "{effective:#x}, documented {documented:#x}"
    );

    let metrics = node.exec_ok(&["curl", "-sS", "http://127.0.0.1:9962/metrics"])?;
    let up = metrics.lines().filter(|line| {
        line.starts_with("cilium_bgp_control_plane_session_state{") && line.ends_with(" 1")
    });
    ensure!(up.count() >= 1, "{metrics}");
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let value = line.rsplit(' ').next().unwrap_or_default();
        ensure!(value.parse::<f64>().is_ok(), "no sample: {line}");
    }

    // A second one on the same node ends at once and harms nothing.
    let daemon = ["causewayd", "--config", "/etc/causeway/causeway.yaml"];
    let second = node.exec(&daemon)?;
    assert_eq!(second.status.code(), Some(1), "{}", second.stderr);
    ensure!(
        second.stderr.contains("in use by another causewayd"),
        "{}",
        second.stderr
    );
    assert_eq!(causeway::peer(node, "bird3")?["established-count"], 1);

    // Without its rights it says which are missing.
    let mut weak = vec!["setpriv", "--bounding-set=-net_admin", "--"];
    weak.extend(daemon);
    let weak = node.exec(&weak)?;
    assert_eq!(weak.status.code(), Some(1), "{}", weak.stderr);
    ensure!(
        weak.stderr.contains("CAP_NET_ADMIN is missing"),
        "{}",
        weak.stderr
    );

    // Ready when it serves, alive while it does, stopping when told to.
    node.kill(Signal::SIGTERM)?;
    wait_for("the daemon to end", CONVERGED, || {
        ensure!(node.main_process().is_none(), "still running");
        Ok(())
    })?;
    let manager = UnixDatagram::bind(node.path("/run/notify.sock"))?;
    manager.set_read_timeout(Some(CONVERGED))?;
    let daemon = node.spawn(&[
        "env",
        "NOTIFY_SOCKET=/run/notify.sock",
        "WATCHDOG_USEC=2000000",
        "causewayd",
        "--config",
        "/etc/causeway/causeway.yaml",
    ])?;
    let hear = |what: &str| -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let length = manager
                .recv(&mut buffer)
                .with_context(|| format!("waiting for {what}"))?;
            if String::from_utf8_lossy(&buffer[..length])
                .lines()
                .any(|line| line == what)
            {
                return Ok(());
            }
        }
    };
    hear("READY=1")?;
    causeway::ask(node, "status")?;
    hear("WATCHDOG=1")?;
    hear("WATCHDOG=1")?;
    daemon.signal(Signal::SIGTERM)?;
    hear("STOPPING=1")?;
    daemon.wait(CONVERGED + Duration::from_secs(10))?;
    lab.down()
}

/// Changes a file of the lab's copy at once: written beside it and renamed.
fn edit(lab: &Lab, file: &str, from: &str, to: &str) -> Result<()> {
    let path = lab
        .files()
        .context("the lab has a copy of its files")?
        .join(file);
    let text = fs::read_to_string(&path)?;
    // Line by line: `authSecretRef: frr` must not change `authSecretRef: frr-other`.
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let is_it = line.trim() == from || line.contains(&format!("{from} }}"));
            if is_it {
                line.replace(from, to)
            } else {
                line.to_owned()
            }
        })
        .collect();
    let changed = lines.join("\n") + "\n";
    ensure!(changed != text, "{file} has no {from:?}");
    let beside = path.with_extension("new");
    fs::write(&beside, changed)?;
    fs::rename(&beside, &path)?;
    Ok(())
}

/// Waits until the reason of a session that is down contains some words.
fn says(node: &Node, peer: &str, words: &str) -> Result<()> {
    wait_for(&format!("{peer} to say {words:?}"), CONVERGED, || {
        let peer = causeway::peer(node, peer)?;
        ensure!(peer["session-state"] != "established", "established");
        let text = format!("{} {}", peer["down-reason"], peer["down-hint"]);
        ensure!(text.contains(words), "{text}");
        Ok(())
    })
}

/// Waits until `causeway status` names a peer and some words about it.
fn in_status(node: &Node, peer: &str, words: &str) -> Result<()> {
    wait_for(&format!("the status to say {words:?}"), CONVERGED, || {
        let status = causeway::ask(node, "status")?;
        let issues = status["issues"].as_array().into_iter().flatten();
        let mut found = issues
            .map(Value::to_string)
            .filter(|issue| issue.contains(peer));
        ensure!(found.any(|issue| issue.contains(words)), "{status:#}");
        Ok(())
    })
}

fn resource(node: &Node, kind: &str, name: &str) -> Result<Value> {
    let all = causeway::items(node, "resources")?;
    let found = all
        .iter()
        .find(|object| object["objectKind"] == kind && object["name"] == name);
    found
        .cloned()
        .with_context(|| format!("no {kind} {name}: {all:?}"))
}
