// SPDX-License-Identifier: Apache-2.0
//! The units as they are shipped, under systemd itself: reloads are upgrades that FRR does not see,
//! mistakes in the settings leave the daemon that runs, a crash and a restart keep FRR's routes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use harness::{CONVERGED, Family, Lab, Node, causeway, frr, lab, wait_for};
use serde_json::Value;

const DAEMON: &str = "causewayd.service";
const BFDD: &str = "causeway-bfdd.service";

/// Reloads one after the other: the second is done by a daemon that itself came by a reload.
const RELOADS: usize = 3;

/// What a container runtime gives the plugin.
const NETWORK: &str = r#"{"cniVersion":"1.1.0","name":"causeway","type":"causeway-cni"}"#;

/// The most that systemd may have to say against a unit: 10 is a service with every right.
const EXPOSURE: f64 = 4.0;

#[test]
fn the_units_start_reload_restart_and_stop() -> Result<()> {
    let lab = lab("systemd", "units")?;
    let node1 = lab.node("node1");
    let system = System::new(node1)?;
    wait_for("the daemon to be active", CONVERGED, || {
        system.is_active(DAEMON)?;
        system.is_active(BFDD)
    })?;
    wait_for("the session", CONVERGED, || pods_are_there(&lab))?;
    wait_for("BFD with all it may use", CONVERGED, || bfd_is_well(node1))?;
    let found = bfd_counts(node1)?;
    let pods = [system.pod("a")?, system.pod("b")?];
    system.reaches("a", &pods[1])?;

    let before = opens(&lab)?;
    for _ in 0..RELOADS {
        let old = system.show(DAEMON)?;
        system.systemctl(&["reload", DAEMON])?;
        wait_for("the next daemon to be the service", CONVERGED, || {
            let new = system.show(DAEMON)?;
            ensure!(new["MainPID"] != old["MainPID"], "still {old:?}");
            ensure!(new["StatusText"] == "serving", "{new:?}");
            let peer = causeway::established(node1, "frr")?;
            ensure!(peer["received"]["open"] == 0, "{peer:#}");
            Ok(())
        })?;
    }
    the_watchdog_hears_the_heir(&system)?;
    mistakes_leave_the_daemon(&system)?;
    assert_eq!(before, opens(&lab)?, "FRR saw something of a reload");

    // A crash. FRR keeps the routes meanwhile: graceful restart is agreed.
    let old = system.show(DAEMON)?;
    system.systemctl(&["kill", "--kill-whom=main", "--signal=KILL", DAEMON])?;
    wait_for("the daemon to be started again", CONVERGED, || {
        let new = system.show(DAEMON)?;
        ensure!(new["NRestarts"] == "1", "{new:?}");
        ensure!(new["MainPID"] != old["MainPID"], "{new:?}");
        frr::used_paths(lab.node("frr"), Family::Ipv4, "10.244.1.0/24", 1)?;
        causeway::established(node1, "frr").map(drop)
    })?;
    wait_for("the routes again", CONVERGED, || pods_are_there(&lab))?;
    system.reaches("a", &pods[1])?;
    system.pod_goes("a")?;

    system.systemctl(&["restart", DAEMON])?;
    wait_for("the session after a restart", CONVERGED, || {
        frr::used_paths(lab.node("frr"), Family::Ipv4, "10.244.1.0/24", 1)?;
        causeway::established(node1, "frr").map(drop)
    })?;
    let bfdd = system.show(BFDD)?;
    assert_eq!(bfdd["NRestarts"], "0", "{bfdd:?}");
    wait_for("BFD as before", CONVERGED, || bfd_is_well(node1))?;
    assert_eq!(bfd_counts(node1)?, found, "BFD saw something of the daemon");

    system.systemctl(&["stop", DAEMON])?;
    let stopped = system.show(DAEMON)?;
    assert_eq!(stopped["ActiveState"], "inactive", "{stopped:?}");
    assert_eq!(stopped["Result"], "success", "{stopped:?}");

    for unit in [DAEMON, BFDD] {
        let exposure = system.exposure(unit)?;
        assert!(exposure <= EXPOSURE, "{unit}: {exposure}");
    }
    system.power_off()?;
    lab.down()
}

/// Turns of a watchdog of two seconds, after the daemon was replaced.
fn the_watchdog_hears_the_heir(system: &System<'_>) -> Result<()> {
    let heir = system.show(DAEMON)?;
    let mut turns = vec![heir["WatchdogTimestamp"].clone()];
    wait_for("three turns of the watchdog", CONVERGED, || {
        let now = system.show(DAEMON)?;
        ensure!(
            now["MainPID"] == heir["MainPID"] && now["NRestarts"] == "0",
            "{now:?}"
        );
        if turns.last() != Some(&now["WatchdogTimestamp"]) {
            turns.push(now["WatchdogTimestamp"].clone());
        }
        ensure!(turns.len() > 3, "{turns:?}");
        Ok(())
    })
}

fn mistakes_leave_the_daemon(system: &System<'_>) -> Result<()> {
    let file = system.node.path("/etc/causeway/causeway.yaml");
    let good = std::fs::read_to_string(&file)?;
    std::fs::write(&file, format!("{good}devcies: [eth1]\n"))?;
    let before = system.show(DAEMON)?;
    let refused = system.run(&["systemctl", "reload", DAEMON])?;
    assert!(!refused.success(), "a mistake was taken: {refused:?}");
    let after = system.show(DAEMON)?;
    assert_eq!(before["MainPID"], after["MainPID"], "{after:?}");
    assert_eq!(after["ActiveState"], "active", "{after:?}");
    wait_for("the journal to name the mistake", CONVERGED, || {
        let journal = system.run(&["journalctl", "--unit", DAEMON, "--lines=20"])?;
        let said = &journal.stdout;
        ensure!(
            said.contains("causeway.yaml:") && said.contains("devcies"),
            "{journal:?}"
        );
        Ok(())
    })?;
    std::fs::write(&file, good)?;
    Ok(())
}

/// FRR has the session and the node's pods.
fn pods_are_there(lab: &Lab) -> Result<()> {
    frr::established(lab.node("frr"), "10.6.0.1")?;
    frr::used_paths(lab.node("frr"), Family::Ipv4, "10.244.1.0/24", 1)?;
    causeway::established(lab.node("node1"), "frr").map(drop)
}

/// `causeway-bfdd` has its real-time priority, its locked memory and its packet socket.
fn bfd_is_well(node: &Node) -> Result<()> {
    let all = causeway::ask(node, "bfd sessions")?;
    let warnings = all["warnings"].as_array().context("no list")?;
    ensure!(warnings.is_empty(), "{warnings:?}");
    let session = &causeway::items(node, "bfd session 10.6.0.2")?[0];
    ensure!(session["echoState"] == "returning", "{session:#}");
    Ok(())
}

/// The number of the session with FRR, and its flaps.
fn bfd_counts(node: &Node) -> Result<(Value, Value)> {
    let session = &causeway::items(node, "bfd session 10.6.0.2")?[0];
    let field = |name: &str| session[name].clone();
    Ok((field("localDiscriminator"), field("downCount")))
}

/// What FRR counts when a session ends and begins.
fn opens(lab: &Lab) -> Result<String> {
    let answer = frr::show(lab.node("frr"), "bgp neighbors 10.6.0.1")?;
    let peer = &answer["10.6.0.1"];
    let messages = &peer["messageStats"];
    ensure!(messages["opensRecv"].is_number(), "{peer:#}");
    Ok(format!(
        "{} {} {} {}",
        peer["bgpState"],
        peer["connectionsEstablished"],
        messages["opensRecv"],
        messages["notificationsRecv"]
    ))
}

/// systemd of a node, in the namespaces that the node's boot script made for it.
struct System<'a> {
    node: &'a Node,
    /// Its pid in the node.
    pid: String,
}

impl<'a> System<'a> {
    fn new(node: &'a Node) -> Result<System<'a>> {
        let mut pid = String::new();
        wait_for("systemd to run", CONVERGED, || {
            let argv = ["pgrep", "--full", "^/lib/systemd/systemd --system"];
            pid = node.exec_ok(&argv)?.trim().to_owned();
            let system = System {
                node,
                pid: pid.clone(),
            };
            system.systemctl(&["list-jobs"])
        })?;
        Ok(System { node, pid })
    }

    fn run(&self, argv: &[&str]) -> Result<harness::Output> {
        let mut all = vec!["nsenter", "--target", &self.pid];
        all.extend(["--mount", "--pid", "--cgroup", "--"]);
        all.extend(argv);
        self.node.exec(&all)
    }

    fn systemctl(&self, argv: &[&str]) -> Result<()> {
        let mut all = vec!["systemctl", "--no-pager"];
        all.extend(argv);
        let output = self.run(&all)?;
        ensure!(output.success(), "{all:?}: {output:?}");
        Ok(())
    }

    fn is_active(&self, unit: &str) -> Result<()> {
        let shown = self.show(unit)?;
        ensure!(shown["ActiveState"] == "active", "{unit}: {shown:?}");
        Ok(())
    }

    fn show(&self, unit: &str) -> Result<BTreeMap<String, String>> {
        let names = "--property=MainPID,ActiveState,Result,NRestarts,StatusText,WatchdogTimestamp";
        let output = self.run(&["systemctl", "show", unit, names])?;
        ensure!(output.success(), "{output:?}");
        let lines = output.stdout.lines();
        let shown: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        ensure!(shown.contains_key("MainPID"), "{unit}: {shown:?}");
        Ok(shown)
    }

    /// Makes a pod as a container runtime does, which runs beside the daemon and not in its unit.
    /// Returns its address.
    fn pod(&self, name: &str) -> Result<String> {
        let made = self.run(&["ip", "netns", "add", name])?;
        ensure!(made.success(), "{made:?}");
        let added = self.plugin(name, "ADD")?;
        let answer: Value = serde_json::from_str(&added.stdout)
            .with_context(|| format!("CNI ADD of {name}: {added:?}"))?;
        let address = answer["ips"][0]["address"].as_str();
        let address = address.and_then(|address| address.split('/').next());
        let address = address.with_context(|| format!("no address: {answer}"))?;
        Ok(address.to_owned())
    }

    /// Takes a pod away as a container runtime does.
    fn pod_goes(&self, name: &str) -> Result<()> {
        let gone = self.plugin(name, "DEL")?;
        ensure!(gone.success(), "CNI DEL of {name}: {gone:?}");
        let gone = self.run(&["ip", "netns", "delete", name])?;
        ensure!(gone.success(), "{gone:?}");
        Ok(())
    }

    fn plugin(&self, pod: &str, verb: &str) -> Result<harness::Output> {
        let call = format!(
            "printf %s '{NETWORK}' | env CNI_COMMAND={verb} CNI_CONTAINERID={pod} \
             CNI_NETNS=/run/netns/{pod} CNI_IFNAME=eth0 \
             'CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}' /opt/cni/bin/causeway-cni"
        );
        self.run(&["sh", "-c", &call])
    }

    fn reaches(&self, pod: &str, address: &str) -> Result<()> {
        wait_for("an answer from the other pod", CONVERGED, || {
            let ping = ["ip", "netns", "exec", pod, "ping", "-c1", "-W1", address];
            let answered = self.run(&ping)?;
            ensure!(answered.success(), "{answered:?}");
            Ok(())
        })
    }

    /// As `systemd-analyze security` rates a unit.
    fn exposure(&self, unit: &str) -> Result<f64> {
        let output = self.run(&["systemd-analyze", "security", "--no-pager", unit])?;
        let last = output.stdout.lines().last().unwrap_or_default();
        let level = last
            .split_once(": ")
            .and_then(|(_, rest)| rest.split(' ').next());
        let level = level.with_context(|| format!("no level: {output:?}"))?;
        level.parse().with_context(|| last.to_owned())
    }

    /// Lets systemd end by itself, so that its control groups go too.
    fn power_off(&self) -> Result<()> {
        self.run(&["systemctl", "poweroff", "--force"])?;
        wait_for("systemd to end", CONVERGED, || {
            ensure!(self.node.main_process().is_none(), "it still runs");
            Ok(())
        })
    }
}
