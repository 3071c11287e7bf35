// SPDX-License-Identifier: Apache-2.0
//! What outlives a process, and what is taken away.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use bpf_loader::{
    AttachError, Config, Datapath, EgressTables, Error, HookChoice, OpenError, ReapReport,
};
use bpf_tests::{
    namespace::{Namespace, of_another_layout, private_pins},
    pod::{Pod, index_of, node},
    traffic::{Stream, reach, transfer},
};

/// Packets per second of the streams, and packets a stream must carry between events.
const RATE: u64 = 1000;
const SOME: u64 = 500;

fn config(pin_root: &Path, hook: HookChoice) -> Config {
    Config {
        pin_root: pin_root.to_owned(),
        hook,
    }
}

fn open(node: &Namespace, config: Config, pods: &[&Pod]) -> Result<Datapath> {
    let endpoints: Vec<_> = pods.iter().map(|pod| pod.endpoint.clone()).collect();
    node.run(|| {
        let mut datapath = Datapath::open(config)?;
        let report = datapath.sync_endpoints(&endpoints)?;
        ensure!(report.failed.is_empty(), "{:?}", report.failed);
        Ok(datapath)
    })
}

/// A process that holds the data plane; returns what it said about its endpoints.
fn daemon(node: &Namespace, pin_root: &Path, pods: &[&Pod]) -> Result<(Child, Vec<String>)> {
    let mut command = node.command(env!("CARGO_BIN_EXE_bpf-test-daemon"));
    command
        .arg(pin_root)
        .args(pods.iter().map(|pod| &pod.host_device));
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("piped")?;
    let mut lines = Vec::new();
    for line in BufReader::new(stdout).lines() {
        match line? {
            ready if ready == "ready" => return Ok((child, lines)),
            line => lines.push(line),
        }
    }
    bail!("the daemon ended: {}", child.wait()?)
}

fn sum_of_sent(node: &Namespace, datapath: &Datapath) -> Result<u64> {
    Ok(node
        .run(|| datapath.counters())?
        .iter()
        .map(|(_, traffic)| traffic.tx_packets)
        .sum())
}

#[test]
fn killing_the_daemon_again_and_again_loses_no_packet_and_no_count() -> Result<()> {
    let pin_root = private_pins()?;
    let node = node()?;
    let (one, two) = (Pod::add(&node, 1, 1, 1500)?, Pod::add(&node, 1, 2, 1500)?);
    drop(open(
        &node,
        config(&pin_root, HookChoice::Auto),
        &[&one, &two],
    )?);
    reach(&one.namespace, two.v4.into())?;
    let stream = Stream::start(&one.namespace, &two.namespace, two.v4.into(), RATE)?;
    for _ in 0..3 {
        let (mut child, said) = daemon(&node, &pin_root, &[&one, &two])?;
        ensure!(said.len() == 2, "both endpoints are adopted: {said:?}");
        stream.wait_for_more(SOME)?;
        transfer(&one.namespace, &two.namespace, two.v6.into(), 32 << 20)?;
        child.kill()?;
        child.wait()?;
        stream.wait_for_more(SOME)?;
    }
    let last = open(&node, config(&pin_root, HookChoice::Auto), &[&one, &two])?;
    let (sent, received) = stream.stop()?;
    ensure!(
        sent == received && sent > 6 * SOME,
        "{received} of {sent} arrived"
    );
    let counted = node.run(|| last.counters())?[1].1.rx_packets;
    ensure!(counted >= received, "{counted} counted, {received} arrived");
    ensure!(node.run(|| last.status())?.adopted);
    Ok(())
}

fn reopen_under_traffic(hook: HookChoice) -> Result<()> {
    let pin_root = private_pins()?;
    let node = node()?;
    let (one, two) = (Pod::add(&node, 1, 1, 1500)?, Pod::add(&node, 1, 2, 1500)?);
    let mut datapath = open(&node, config(&pin_root, hook), &[&one, &two])?;
    reach(&one.namespace, two.v6.into())?;
    let stream = Stream::start(&one.namespace, &two.namespace, two.v6.into(), RATE)?;
    let mut counted = 0;
    for _ in 0..10 {
        datapath = open(&node, config(&pin_root, hook), &[&one, &two])?;
        stream.wait_for_more(SOME / 5)?;
        let now = sum_of_sent(&node, &datapath)?;
        ensure!(
            now >= counted + SOME / 5,
            "counters went from {counted} to {now}"
        );
        counted = now;
        let status = node.run(|| datapath.status())?;
        for attached in &status.attached {
            let own = status
                .program_ids
                .iter()
                .find(|(role, _)| *role == attached.role);
            ensure!(
                own.is_some_and(|(_, id)| *id == attached.program_id),
                "{status:?}"
            );
        }
    }
    let (sent, received) = stream.stop()?;
    ensure!(sent == received, "{received} of {sent} arrived");
    node.run(|| datapath.uninstall())?;
    ensure!(!pin_root.exists(), "uninstalling leaves nothing");
    Ok(())
}

#[test]
fn programs_are_replaced_under_traffic_by_tcx() -> Result<()> {
    reopen_under_traffic(HookChoice::Auto)
}

#[test]
fn programs_are_replaced_under_traffic_by_clsact() -> Result<()> {
    reopen_under_traffic(HookChoice::Clsact)
}

#[test]
fn another_layout_is_taken_over_under_traffic_and_its_folder_reaped() -> Result<()> {
    let pin_root = private_pins()?;
    let node = node()?;
    let (one, two) = (Pod::add(&node, 1, 1, 1500)?, Pod::add(&node, 1, 2, 1500)?);
    let datapath = open(&node, config(&pin_root, HookChoice::Auto), &[&one, &two])?;
    let own = node.run(|| datapath.status())?.pin_path;
    reach(&one.namespace, two.v4.into())?;
    let stream = Stream::start(&one.namespace, &two.namespace, two.v4.into(), RATE)?;
    drop(datapath);
    let old = of_another_layout(&own)?;
    let mut datapath = open(&node, config(&pin_root, HookChoice::Auto), &[&one, &two])?;
    stream.wait_for_more(SOME)?;
    // Its programs serve until it is known what pods may send.
    let report = node.run(|| datapath.reap())?;
    ensure!(report.kept_layouts == [old.clone()], "{report:?}");
    node.run(|| datapath.sync_egress(&EgressTables::default()))?;
    stream.wait_for_more(SOME)?;
    ensure!(!old.exists(), "what serves nobody any more is still there");
    let report = node.run(|| datapath.reap())?;
    ensure!(report == ReapReport::default(), "{report:?}");
    stream.wait_for_more(SOME)?;
    let (sent, received) = stream.stop()?;
    ensure!(sent == received, "{received} of {sent} arrived");
    ensure!(
        sum_of_sent(&node, &datapath)? >= 2 * SOME,
        "the new maps count"
    );
    ensure!(node.run(|| datapath.status())?.attached.len() == 4);
    Ok(())
}

#[test]
fn a_layout_that_is_still_attached_elsewhere_is_kept_until_it_is_pruned() -> Result<()> {
    let pin_root = private_pins()?;
    let node = node()?;
    let one = Pod::add(&node, 1, 1, 1500)?;
    let datapath = open(&node, config(&pin_root, HookChoice::Auto), &[&one])?;
    let own = node.run(|| datapath.status())?.pin_path;
    drop(datapath);
    let old = of_another_layout(&own)?;
    let mut datapath = node.run(|| Datapath::open(config(&pin_root, HookChoice::Auto)))?;
    let report = node.run(|| datapath.reap())?;
    ensure!(
        report.kept_layouts == [old.clone()],
        "nothing was synced: {report:?}"
    );
    let report = node.run(|| datapath.sync_endpoints(&[]))?;
    ensure!(report.failed.is_empty(), "{report:?}");
    let report = node.run(|| datapath.reap())?;
    ensure!(report.old_layouts == [old], "{report:?}");
    ensure!(node.run(|| datapath.status())?.attached.is_empty());
    Ok(())
}

#[test]
fn pins_and_endpoints_of_vanished_devices_are_reaped() -> Result<()> {
    for hook in [HookChoice::Auto, HookChoice::Clsact] {
        let pin_root = private_pins()?;
        let node = node()?;
        let (one, two) = (Pod::add(&node, 1, 1, 1500)?, Pod::add(&node, 1, 2, 1500)?);
        let mut datapath = open(&node, config(&pin_root, hook), &[&one, &two])?;
        node.ip("link del cw1")?;
        let report = node.run(|| datapath.reap())?;
        ensure!(report.vanished_devices == [one.endpoint.link], "{report:?}");
        let left = node.run(|| datapath.endpoints())?;
        ensure!(
            left.len() == 1 && left[0].endpoint == two.endpoint,
            "{left:?}"
        );
        let status = node.run(|| datapath.status())?;
        ensure!(status.attached.len() == 2, "{status:?}");
        let fill = |name| {
            status
                .maps
                .iter()
                .find(|m| m.name == name)
                .and_then(|m| m.entries)
        };
        ensure!(
            fill("DEVICES") == Some(1) && fill("ENDPOINTS_V4") == Some(1),
            "{status:?}"
        );
        let pins = std::fs::read_dir(&status.pin_path)?.count();
        ensure!(pins == status.maps.len() + 2, "{pins} pins");
        ensure!(node.run(|| datapath.reap())? == bpf_loader::ReapReport::default());
    }
    Ok(())
}

#[test]
fn the_desired_state_is_reached_from_any_other() -> Result<()> {
    let pin_root = private_pins()?;
    let node = node()?;
    let pods = (1..=4)
        .map(|n| Pod::add(&node, 1, n, 1500))
        .collect::<Result<Vec<_>>>()?;
    let all: Vec<_> = pods.iter().map(|pod| pod.endpoint.clone()).collect();
    let mut datapath = open(&node, config(&pin_root, HookChoice::Auto), &[])?;
    let mut sync = |wanted: &[bpf_loader::Endpoint]| -> Result<(u32, u32, u32, u32, usize)> {
        let report = node.run(|| datapath.sync_endpoints(wanted))?;
        let held: Vec<_> = node.run(|| datapath.endpoints())?.into_iter().collect();
        for state in &held {
            ensure!(
                wanted.contains(&state.endpoint) && state.attached,
                "{state:?}"
            );
        }
        let failed = report.failed.len();
        Ok((
            report.added,
            report.changed,
            report.unchanged,
            report.pruned,
            failed,
        ))
    };
    assert_eq!(sync(&all)?, (4, 0, 0, 0, 0));
    assert_eq!(sync(&all)?, (0, 0, 4, 0, 0));
    assert_eq!(sync(&all[1..])?, (0, 0, 3, 1, 0));
    // Another address and MTU: changed in place.
    let mut moved = all[1].clone();
    moved.addresses = vec!["10.244.1.77".parse()?];
    moved.mtu = 1300;
    assert_eq!(sync(&[moved.clone(), all[2].clone()])?, (0, 1, 1, 1, 0));
    // The address of one that goes is free for one that comes.
    let mut heir = all[3].clone();
    heir.addresses = moved.addresses.clone();
    assert_eq!(sync(&[heir.clone()])?, (1, 0, 0, 2, 0));
    // Two that want one address: the first gets it.
    let mut rival = all[0].clone();
    rival.addresses = heir.addresses.clone();
    assert_eq!(sync(&[heir, rival])?, (0, 0, 1, 0, 1));
    assert_eq!(sync(&[])?, (0, 0, 0, 1, 0));
    Ok(())
}

#[test]
fn a_device_that_is_not_the_one_meant_is_refused_and_nothing_stays() -> Result<()> {
    let pin_root = private_pins()?;
    let node = node()?;
    let one = Pod::add(&node, 1, 1, 1500)?;
    let mut datapath = open(&node, config(&pin_root, HookChoice::Auto), &[])?;
    let mut other = one.endpoint.clone();
    other.host_mac = "02:00:00:00:00:99".parse()?;
    let refused = node.run(|| datapath.set_endpoint(&other));
    ensure!(
        matches!(refused, Err(Error::Attach(AttachError::OtherDevice { .. }))),
        "{refused:?}"
    );
    other.link = bpf_loader::LinkIndex(4_000_000);
    let refused = node.run(|| datapath.set_endpoint(&other));
    ensure!(
        matches!(refused, Err(Error::Attach(AttachError::NoDevice { .. }))),
        "{refused:?}"
    );
    let report = node.run(|| datapath.sync_fabric(&[other.link]))?;
    ensure!(report.failed.len() == 1, "{report:?}");
    ensure!(node.run(|| datapath.endpoints())?.is_empty());
    ensure!(node.run(|| datapath.status())?.attached.is_empty());
    Ok(())
}

#[test]
fn a_reused_interface_index_does_not_inherit_an_endpoint() -> Result<()> {
    let pin_root = private_pins()?;
    let node = node()?;
    let one = Pod::add(&node, 1, 1, 1500)?;
    let mut datapath = open(&node, config(&pin_root, HookChoice::Auto), &[&one])?;
    let index = one.endpoint.link.0;
    node.ip("link del cw1")?;
    node.ip(&format!(
        "link add new index {index} type veth peer name newp"
    ))?;
    let report = node.run(|| datapath.reap())?;
    ensure!(report.vanished_devices == [one.endpoint.link], "{report:?}");
    ensure!(node.run(|| datapath.endpoints())?.is_empty());
    let output = node.output("ip link show new")?;
    ensure!(output.status.success(), "the new device is left alone");
    // The new device may become an endpoint of its own.
    node.ip("link set new address 02:00:00:00:00:77")?;
    let mut heir = one.endpoint.clone();
    heir.id = bpf_loader::EndpointId(9);
    heir.host_mac = "02:00:00:00:00:77".parse()?;
    ensure!(index_of(&node, "new")? == heir.link);
    node.run(|| datapath.set_endpoint(&heir))?;
    Ok(())
}

#[test]
fn pins_of_another_network_namespace_are_respected_while_it_lives() -> Result<()> {
    let pin_root = private_pins()?;
    let first = node()?;
    let one = Pod::add(&first, 1, 1, 1500)?;
    let held = open(&first, config(&pin_root, HookChoice::Auto), &[&one])?;
    let second = node()?;
    let refused = second.run(|| Datapath::open(config(&pin_root, HookChoice::Auto)).map(|_| ()));
    ensure!(
        matches!(refused, Err(OpenError::OwnedElsewhere { .. })),
        "{refused:?}"
    );
    drop(held);
    first.ip("link del cw1")?;
    let taken: PathBuf = second.run(|| -> Result<_> {
        let datapath = Datapath::open(config(&pin_root, HookChoice::Auto))?;
        ensure!(datapath.endpoints()?.is_empty());
        Ok(datapath.status()?.pin_path)
    })?;
    ensure!(taken.exists());
    Ok(())
}

#[test]
fn fabric_devices_are_added_and_pruned() -> Result<()> {
    let pin_root = private_pins()?;
    let node = node()?;
    node.ip("link add fab1 type veth peer name fab1p")?;
    node.ip("link add fab2 type veth peer name fab2p")?;
    let (one, two) = (index_of(&node, "fab1")?, index_of(&node, "fab2")?);
    let mut datapath = open(&node, config(&pin_root, HookChoice::Auto), &[])?;
    let mut sync = |wanted: &[bpf_loader::LinkIndex]| -> Result<(u32, u32, u32)> {
        let report = node.run(|| datapath.sync_fabric(wanted))?;
        ensure!(report.failed.is_empty(), "{report:?}");
        Ok((report.added, report.unchanged, report.pruned))
    };
    assert_eq!(sync(&[one, two])?, (2, 0, 0));
    assert_eq!(sync(&[two, one, two])?, (0, 2, 0));
    assert_eq!(sync(&[two])?, (0, 1, 1));
    assert_eq!(sync(&[])?, (0, 0, 1));
    Ok(())
}
