// SPDX-License-Identifier: Apache-2.0
//! What happens to a node: a full disk, an address that is taken, an interface that goes, and a
//! daemon that is killed at any moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use harness::{
    CONVERGED, Family, Lab, Node, Signal, causeway,
    fabric::{converged, default_by_both, default_of},
    frr, lab,
    pod::{self, Pod, reachable},
    wait_for,
};
use serde_json::Value;

/// How often the daemon is killed.
const KILLS: u64 = 20;
/// Where the moments of the kills come from. Any number will do; a failure prints it.
const SEED: u64 = 20_261_121;

#[test]
fn a_full_disk_refuses_pods_and_harms_none() -> Result<()> {
    let lab = lab("fabric", "disk")?;
    let node = lab.node("node1");
    converged(&lab)?;
    node.kill(Signal::SIGKILL)?;
    let state = "/var/lib/causeway";
    node.exec_ok(&["mount", "-t", "tmpfs", "-o", "size=256k", "state", state])?;
    node.start()?;
    converged(&lab)?;
    let (early, far) = (
        Pod::add(node, "early")?,
        Pod::add(lab.node("node2"), "far")?,
    );
    reachable(&early, &far)?;

    let filler = format!("{state}/filler");
    let filled = node.exec(&["dd", "if=/dev/zero", &format!("of={filler}"), "bs=512"])?;
    ensure!(
        filled.stderr.contains("No space left"),
        "not full: {}",
        filled.stderr
    );
    // What is left of the journal's last page still serves.
    let mut served = vec!["early".to_owned()];
    loop {
        let name = format!("served{}", served.len());
        match Pod::add(node, &name) {
            Ok(_) => served.push(name),
            Err(_) => {
                node.exec_ok(&["ip", "netns", "delete", &name])?;
                break;
            }
        }
        ensure!(served.len() < 30, "a full disk refuses nothing");
    }
    served.sort();
    // Often, so that what one refusal leaves behind would show.
    for _ in 0..10 {
        let refusal = Pod::refused(node, "late")?;
        let error: Value = serde_json::from_str(&refusal).context(refusal.clone())?;
        let text = format!("{} {}", error["msg"], error["details"]);
        ensure!(
            text.contains("No space left on device") && text.contains(state),
            "{text}"
        );
    }
    assert_eq!(names(node)?, served);
    assert_eq!(pod::devices(node)?.len(), served.len());
    wait_for("the node to say it", CONVERGED, || {
        let status = causeway::ask(node, "status")?;
        ensure!(
            status["issues"].to_string().contains("No space left"),
            "{status:#}"
        );
        Ok(())
    })?;
    ensure!(
        Pod::plugin_serves(node).is_err(),
        "STATUS says that an ADD would be served"
    );
    reachable(&early, &far)?;

    node.exec_ok(&["rm", &filler])?;
    let late = Pod::add(node, "late")?;
    Pod::plugin_serves(node)?;
    wait_for("a healthy node", CONVERGED, || causeway::healthy(node))?;
    // What was said to be durable is.
    node.kill(Signal::SIGKILL)?;
    node.start()?;
    served.push("late".to_owned());
    served.sort();
    wait_for("the pods that were served", CONVERGED, || {
        let found = names(node)?;
        ensure!(found == served, "{found:?}, expected {served:?}");
        Ok(())
    })?;
    reachable(&late, &far)?;
    reachable(&early, &far)?;
    lab.down()
}

#[test]
fn an_address_that_is_taken_is_no_pods() -> Result<()> {
    let lab = lab("fabric", "taken")?;
    let node = lab.node("node1");
    converged(&lab)?;
    let first = Pod::add(node, "first")?;
    let far = Pod::add(lab.node("node2"), "far")?;

    // Somebody uses addresses of the pod CIDR, just those that are next.
    let next = |by: u8| -> Result<String> {
        let mut octets = match first.v4 {
            std::net::IpAddr::V4(address) => address.octets(),
            std::net::IpAddr::V6(_) => return Err(anyhow!("{} is no IPv4 address", first.v4)),
        };
        octets[3] += by;
        Ok(std::net::Ipv4Addr::from(octets).to_string())
    };
    let (by_address, by_route) = (next(1)?, next(2)?);
    node.exec_ok(&[
        "ip",
        "address",
        "add",
        &format!("{by_address}/32"),
        "dev",
        "lo",
    ])?;
    node.exec_ok(&["ip", "route", "add", &by_route, "dev", "shared0"])?;
    let second = Pod::add(node, "second")?;
    for taken in [&by_address, &by_route] {
        assert_ne!(second.v4.to_string(), *taken);
    }
    reachable(&first, &second)?;
    reachable(&second, &far)?;

    // And somebody takes the address of a pod that runs.
    let own = second.v4.to_string();
    node.exec_ok(&["ip", "address", "add", &format!("{own}/32"), "dev", "lo"])?;
    wait_for("the node to say it", CONVERGED * 2, || {
        let status = causeway::ask(node, "status")?;
        let said = format!("{own} is in use on this node");
        ensure!(status["issues"].to_string().contains(&said), "{status:#}");
        Ok(())
    })?;
    node.exec_ok(&["ip", "address", "delete", &format!("{own}/32"), "dev", "lo"])?;
    wait_for("a healthy node", CONVERGED * 2, || causeway::healthy(node))?;
    reachable(&second, &far)?;
    lab.down()
}

#[test]
fn an_interface_that_goes_and_comes_back_is_used_again() -> Result<()> {
    let lab = lab("fabric", "gone")?;
    let (node, tor) = (lab.node("node1"), lab.node("tor1"));
    converged(&lab)?;
    let (a, b) = (Pod::add(node, "a")?, Pod::add(lab.node("node2"), "b")?);
    reachable(&a, &b)?;
    let hooks = hooks(node)?;

    // A cable's both ends, as when a card is pulled.
    node.exec_ok(&["ip", "link", "delete", "eth1"])?;
    wait_for("the other way to be the only one", CONVERGED, || {
        default_of(node, Family::Ipv4, &["172.16.21.1"])?;
        default_of(node, Family::Ipv6, &["fd00:172:16:21::1"])
    })?;
    // The other router does not know the way either, and silence is no question of passwords.
    for name in ["tor1-v4", "tor1-v6"] {
        wait_for("the session to say why it is down", CONVERGED, || {
            let peer = causeway::peer(node, name)?;
            ensure!(peer["session-state"] != "established", "{peer:#}");
            let reason = peer["down-reason"].to_string();
            ensure!(reason.contains("on no network of this node"), "{reason}");
            Ok(())
        })?;
    }
    reachable(&a, &b)?;

    let (here, there) = (node.pid().to_string(), tor.pid().to_string());
    let cable = format!("link add eth1 type veth peer name eth1 netns {there}");
    let mut ip = Command::new("nsenter");
    ip.args(["-t", &here, "-n", "ip"]).args(cable.split(' '));
    ensure!(ip.status()?.success(), "{ip:?}");
    tor.link_up("eth1")?;
    node.link_up("eth1")?;
    for address in ["172.16.11.2/24", "fd00:172:16:11::2/64"] {
        node.exec_ok(&["ip", "address", "add", address, "dev", "eth1"])?;
    }
    wait_for("both ways", CONVERGED, || {
        default_by_both(node)?;
        causeway::healthy(node)
    })?;
    wait_for("the programs on the new device", CONVERGED, || {
        let now = self::hooks(node)?;
        ensure!(now == hooks, "{now:?}, before {hooks:?}");
        Ok(())
    })?;
    for name in ["tor2-v4", "tor2-v6"] {
        let peer = causeway::peer(node, name)?;
        assert_eq!(peer["established-count"], 1, "{peer:#}");
    }
    node.link_down("eth2")?;
    wait_for("the new device to be the only way", CONVERGED, || {
        default_of(node, Family::Ipv4, &["172.16.11.1"])?;
        default_of(node, Family::Ipv6, &["fd00:172:16:11::1"])
    })?;
    reachable(&a, &b)?;
    lab.down()
}

#[test]
fn there_is_no_bad_moment_for_a_kill() -> Result<()> {
    let lab = lab("fabric", "kills")?;
    let node = lab.node("node1");
    converged(&lab)?;
    let far = Pod::add(lab.node("node2"), "far")?;
    let mut pods: BTreeMap<String, Pod<'_>> = BTreeMap::new();
    let mut community = String::new();
    let mut moments = Moments(SEED);

    for round in 0..KILLS {
        let moment = Duration::from_millis(moments.next() % 120);
        let about = format!("seed {SEED}, round {round}, killed after {moment:?}");
        thread::scope(|scope| -> Result<()> {
            let killer = scope.spawn(|| {
                thread::sleep(moment);
                node.kill(Signal::SIGKILL)
            });
            match round % 4 {
                // A pod's end.
                3 => {
                    let (name, pod) = pods.pop_first().context("there are pods")?;
                    if let Err(error) = pod.remove() {
                        eprintln!("{about}: DEL: {error:#}");
                        restarted(node, killer).context(about.clone())?;
                        return Pod::take_back(node, &name).context(about);
                    }
                }
                // New pods, and meanwhile other communities.
                _ => {
                    community = format!("65001:{}", 1000 + round);
                    advertise(&lab, &community)?;
                    let name = format!("pod{round}");
                    match Pod::add(node, &name) {
                        Ok(pod) => drop(pods.insert(name, pod)),
                        Err(error) => {
                            eprintln!("{about}: ADD: {error:#}");
                            restarted(node, killer).context(about.clone())?;
                            Pod::take_back(node, &name).context(about.clone())?;
                            let pod = Pod::add(node, &name).context(about)?;
                            pods.insert(name, pod);
                            return Ok(());
                        }
                    }
                }
            }
            restarted(node, killer).context(about)
        })?;
    }

    converged(&lab)?;
    wait_for(
        "the pods that were promised, and no other",
        CONVERGED,
        || {
            let expected: Vec<&String> = pods.keys().collect();
            let found = names(node)?;
            ensure!(
                found.iter().eq(expected.iter().copied()),
                "{found:?}, expected {expected:?}"
            );
            let devices = pod::devices(node)?;
            ensure!(devices.len() == pods.len(), "{devices:?}");
            let datapath = causeway::ask(node, "datapath")?;
            let endpoints = datapath["endpoints"].as_array().map(Vec::len);
            ensure!(endpoints == Some(pods.len()), "{datapath:#}");
            for family in ["-4", "-6"] {
                let routes = node.exec_ok(&["ip", family, "route", "show", "proto", "202"])?;
                ensure!(routes.lines().count() == pods.len(), "{routes}");
            }
            Ok(())
        },
    )?;
    let addresses: BTreeSet<_> = pods.values().flat_map(|pod| [pod.v4, pod.v6]).collect();
    assert_eq!(addresses.len(), 2 * pods.len(), "an address twice");
    for pod in pods.values() {
        reachable(pod, &far)?;
    }
    for router in ["tor1", "tor2"] {
        wait_for("the communities that were written last", CONVERGED, || {
            let paths = frr::paths(lab.node(router), Family::Ipv4, "10.244.1.0/24")?;
            ensure!(
                paths
                    .iter()
                    .any(|path| path.communities == [community.as_str()]),
                "{community} is not in {paths:?}"
            );
            Ok(())
        })?;
    }
    let programs = node.exec_ok(&["ls", "/sys/fs/bpf/causeway"])?;
    assert_eq!(programs.lines().count(), 1, "one layout: {programs}");
    for pod in std::mem::take(&mut pods).into_values() {
        pod.remove()?;
    }
    assert_eq!(pod::devices(node)?, Vec::<String>::new());
    lab.down()
}

/// Waits for the kill, starts the daemon and waits until it serves.
fn restarted(node: &Node, killer: thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    killer
        .join()
        .map_err(|_| anyhow!("the killer panicked"))??;
    node.start()?;
    wait_for("the plugin to serve", CONVERGED, || {
        Pod::plugin_serves(node)
    })
}

/// Numbers that look random and are the same in each run (splitmix64).
struct Moments(u64);

impl Moments {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Gives the pod prefixes another community.
fn advertise(lab: &Lab, community: &str) -> Result<()> {
    let files = lab.files().context("the lab has a copy of its files")?;
    let path = files.join("resources.d/advertisements.yaml");
    let text = fs::read_to_string(&path)?;
    let (before, rest) = text.split_once("standard: [\"").context("a community")?;
    let (_, after) = rest.split_once('"').context("a community's end")?;
    let beside = path.with_extension("new");
    fs::write(
        &beside,
        format!("{before}standard: [\"{community}\"{after}"),
    )?;
    Ok(fs::rename(&beside, &path)?)
}

/// The pods the daemon knows, sorted.
fn names(node: &Node) -> Result<Vec<String>> {
    let pods = causeway::items(node, "pods")?;
    let mut names: Vec<String> = pods
        .iter()
        .map(|pod| pod["name"].as_str().unwrap_or_default().to_owned())
        .collect();
    names.sort();
    Ok(names)
}

/// Which device has which program, sorted.
fn hooks(node: &Node) -> Result<Vec<String>> {
    let datapath = causeway::ask(node, "datapath")?;
    let hooks = datapath["hooks"].as_array().context("hooks")?;
    let mut named: Vec<String> = hooks
        .iter()
        .map(|hook| format!("{} {}", hook["device"], hook["role"]))
        .collect();
    named.sort();
    Ok(named)
}
