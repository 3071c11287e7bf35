// SPDX-License-Identifier: Apache-2.0
//! Packets between pods of one node and of two, and the answers senders get.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use bpf_loader::{Config, Datapath, DropReason, HookChoice, HookKind};
use bpf_tests::{
    namespace::{Namespace, private_pins},
    pod::{Pod, index_of, join_nodes, node},
    traffic::{Fate, Probe, reach, transfer, wait_for},
};

const MEGABYTE: usize = 1 << 20;

/// How long to wait for an answer that must not come.
const SHORT: Duration = Duration::from_millis(200);

/// Opens a data plane inside a node with these pods and fabric devices.
fn open(node: &Namespace, hook: HookChoice, pods: &[&Pod], fabric: &[&str]) -> Result<Datapath> {
    let pin_root = private_pins()?;
    let endpoints: Vec<_> = pods.iter().map(|pod| pod.endpoint.clone()).collect();
    let fabric = fabric
        .iter()
        .map(|name| index_of(node, name))
        .collect::<Result<Vec<_>>>()?;
    node.run(|| {
        let mut datapath = Datapath::open(Config { pin_root, hook })?;
        for report in [
            datapath.sync_endpoints(&endpoints)?,
            datapath.sync_fabric(&fabric)?,
        ] {
            ensure!(report.failed.is_empty(), "{:?}", report.failed);
        }
        Ok(datapath)
    })
}

fn drops(datapath: &Datapath, reason: DropReason) -> Result<u64> {
    let drops = datapath.drops()?;
    Ok(drops
        .iter()
        .find(|drop| drop.reason == reason)
        .map_or(0, |drop| drop.packets))
}

fn same_node(hook: HookChoice, kind: HookKind) -> Result<()> {
    let node = node()?;
    let (one, two) = (Pod::add(&node, 1, 1, 1500)?, Pod::add(&node, 1, 2, 1500)?);
    node.ip("addr add 10.244.1.254/32 dev lo")?;
    node.ip("addr add fd00:10:244:1::fe/128 dev lo nodad")?;
    let datapath = open(&node, hook, &[&one, &two], &[])?;
    for to in [IpAddr::V4(two.v4), IpAddr::V6(two.v6)] {
        reach(&one.namespace, to)?;
        transfer(&one.namespace, &two.namespace, to, 64 * MEGABYTE)?;
    }
    let states = node.run(|| datapath.endpoints())?;
    for state in &states {
        ensure!(state.attached, "{state:?}");
        ensure!(
            state.traffic.tx_kernel_packets <= 4,
            "the kernel forwarded: {state:?}"
        );
        ensure!(state.traffic.rx_packets > 100, "{state:?}");
    }
    let status = node.run(|| datapath.status())?;
    ensure!(
        status.hook == kind && status.attached.len() == 4,
        "{status:?}"
    );
    ensure!(
        status.attached.iter().all(|attached| attached.hook == kind),
        "{status:?}"
    );
    // The node itself and the pods reach each other through the kernel.
    reach(&node, one.v4.into())?;
    reach(&node, one.v6.into())?;
    node.run(|| datapath.uninstall())?;
    // After that the kernel forwards.
    reach(&one.namespace, two.v4.into())
}

#[test]
fn pods_of_one_node_reach_each_other_by_tcx() -> Result<()> {
    same_node(HookChoice::Auto, HookKind::Tcx)
}

#[test]
fn pods_of_one_node_reach_each_other_by_clsact() -> Result<()> {
    same_node(HookChoice::Clsact, HookKind::Clsact)
}

#[test]
fn pods_of_two_nodes_reach_each_other_through_the_fabric() -> Result<()> {
    let (a, b) = (node()?, node()?);
    join_nodes(&a, 1, &b, 2)?;
    let (one, two) = (Pod::add(&a, 1, 1, 1500)?, Pod::add(&b, 2, 1, 1500)?);
    let at_a = open(&a, HookChoice::Auto, &[&one], &["fab"])?;
    let at_b = open(&b, HookChoice::Auto, &[&two], &["fab"])?;
    let both_ways = || -> Result<()> {
        for (from, to, address) in [
            (&one, &two, IpAddr::V4(two.v4)),
            (&one, &two, IpAddr::V6(two.v6)),
            (&two, &one, IpAddr::V4(one.v4)),
            (&two, &one, IpAddr::V6(one.v6)),
        ] {
            reach(&from.namespace, address)?;
            transfer(&from.namespace, &to.namespace, address, 16 * MEGABYTE)?;
        }
        Ok(())
    };
    both_ways()?;
    for (node, datapath) in [(&a, &at_a), (&b, &at_b)] {
        let (_, traffic) = node.run(|| datapath.counters())?.remove(0);
        ensure!(
            traffic.tx_packets > 100 && traffic.rx_packets > 100,
            "{traffic:?}"
        );
        ensure!(
            traffic.tx_kernel_packets <= 4,
            "the kernel forwarded: {traffic:?}"
        );
    }
    // The same with IPv4 by IPv6 neighbours (RFC 8950).
    a.ip("addr del 192.0.2.1/30 dev fab")?;
    b.ip("addr del 192.0.2.2/30 dev fab")?;
    a.ip("route add 10.244.2.0/24 via inet6 2001:db8::2 dev fab")?;
    b.ip("route add 10.244.1.0/24 via inet6 2001:db8::1 dev fab")?;
    both_ways()
}

#[test]
fn a_sender_learns_that_its_packet_was_too_old_or_too_big() -> Result<()> {
    let (a, b) = (node()?, node()?);
    join_nodes(&a, 1, &b, 2)?;
    a.ip("addr add 10.244.1.254/32 dev lo")?;
    let one = Pod::add(&a, 1, 1, 1500)?;
    let small = Pod::add(&a, 1, 2, 1400)?;
    let far = Pod::add(&b, 2, 1, 1500)?;
    a.ip("link set fab mtu 1450")?;
    b.ip("link set fab mtu 1450")?;
    let datapath = open(&a, HookChoice::Auto, &[&one, &small], &["fab"])?;
    for (address, mtu) in [
        (IpAddr::V4(small.v4), 1400),
        (IpAddr::V6(small.v6), 1400),
        (IpAddr::V4(far.v4), 1450),
        (IpAddr::V6(far.v6), 1450),
    ] {
        reach(&one.namespace, address)?;
        let fate = Probe {
            ttl: 1,
            ..Probe::default()
        }
        .send(&one.namespace, address)?;
        ensure!(fate == Fate::TimeExceeded, "{address}: {fate:?}");
        let fate = Probe {
            bytes: 1430,
            ..Probe::default()
        }
        .send(&one.namespace, address)?;
        ensure!(fate == Fate::TooBig(mtu), "{address}: {fate:?}");
        // Bulk traffic then fits.
        let to = if address == small.v4 || address == small.v6 {
            &small
        } else {
            &far
        };
        transfer(&one.namespace, &to.namespace, address, 4 * MEGABYTE)?;
    }
    ensure!(drops(&datapath, DropReason::TtlExceeded)? == 4);
    ensure!(drops(&datapath, DropReason::TooBig)? >= 4);
    Ok(())
}

#[test]
fn packets_from_the_fabric_that_do_not_fit_are_answered_to_their_sender() -> Result<()> {
    let (a, b) = (node()?, node()?);
    join_nodes(&a, 1, &b, 2)?;
    let small = Pod::add(&a, 1, 2, 1400)?;
    let datapath = open(&a, HookChoice::Auto, &[&small], &["fab"])?;
    b.ip("route add 10.244.1.2/32 via 192.0.2.1")?;
    for address in [IpAddr::V4(small.v4), IpAddr::V6(small.v6)] {
        reach(&b, address)?;
        let fate = Probe {
            bytes: 1430,
            ..Probe::default()
        }
        .send(&b, address)?;
        ensure!(fate == Fate::TooBig(1400), "{address}: {fate:?}");
        let fate = Probe {
            ttl: 1,
            ..Probe::default()
        }
        .send(&b, address)?;
        ensure!(fate == Fate::TimeExceeded, "{address}: {fate:?}");
    }
    ensure!(drops(&datapath, DropReason::TooBig)? == 2);
    ensure!(drops(&datapath, DropReason::TtlExceeded)? == 2);
    Ok(())
}

#[test]
fn a_pod_cannot_send_with_an_address_or_mac_that_is_not_its_own() -> Result<()> {
    let node = node()?;
    let (one, two) = (Pod::add(&node, 1, 1, 1500)?, Pod::add(&node, 1, 2, 1500)?);
    let datapath = open(&node, HookChoice::Auto, &[&one, &two], &[])?;
    reach(&one.namespace, two.v4.into())?;
    let received = || -> Result<u64> { Ok(node.run(|| datapath.counters())?[1].1.rx_packets) };
    let before = received()?;
    one.namespace.ip("addr add 10.9.9.9/32 dev eth0")?;
    one.namespace.ip("addr add fd99::9/128 dev eth0 nodad")?;
    let silent = |source: IpAddr, to: IpAddr| -> Result<()> {
        let probe = Probe {
            source: Some(source),
            wait: SHORT,
            ..Probe::default()
        };
        for _ in 0..3 {
            let fate = probe.send(&one.namespace, to)?;
            ensure!(fate == Fate::Silence, "{source}: {fate:?}");
        }
        Ok(())
    };
    silent("10.9.9.9".parse()?, two.v4.into())?;
    silent("fd99::9".parse()?, two.v6.into())?;
    ensure!(drops(&datapath, DropReason::SpoofedAddress)? == 6);
    let mine = node.run(|| datapath.counters())?.remove(0).1;
    let spoofed = mine
        .drops
        .iter()
        .find(|drop| drop.reason == DropReason::SpoofedAddress);
    ensure!(spoofed.is_some_and(|drop| drop.packets == 6), "{mine:?}");
    one.namespace.ip("link set eth0 down")?;
    one.namespace
        .ip("link set eth0 address 02:00:00:00:be:ef")?;
    one.namespace.ip("link set eth0 up")?;
    let host_mac = one.endpoint.host_mac;
    for line in [
        "route replace 169.254.1.1 dev eth0 scope link".to_owned(),
        "route replace default via 169.254.1.1 dev eth0".to_owned(),
        format!("neigh replace 169.254.1.1 lladdr {host_mac} dev eth0 nud permanent"),
    ] {
        one.namespace.ip(&line)?;
    }
    silent(one.v4.into(), two.v4.into())?;
    ensure!(drops(&datapath, DropReason::SpoofedMac)? >= 3);
    let link_chatter = received()? - before;
    ensure!(
        link_chatter <= 10,
        "{link_chatter} packets reached the other pod"
    );
    Ok(())
}

#[test]
fn frames_of_every_length_from_a_pod_are_survived_and_counted() -> Result<()> {
    let node = node()?;
    let (one, two) = (Pod::add(&node, 1, 1, 1500)?, Pod::add(&node, 1, 2, 1500)?);
    let datapath = open(&node, HookChoice::Auto, &[&one, &two], &[])?;
    let index = index_of(&one.namespace, "eth0")?.0;
    for ethertype in [[0x08, 0x00], [0x86, 0xdd], [0x08, 0x06]] {
        let before = drops(&datapath, DropReason::Truncated)?;
        let mut frame = Vec::new();
        frame.extend(one.endpoint.host_mac.0);
        frame.extend(one.endpoint.pod_mac.0);
        frame.extend(ethertype);
        // The beginning of a right header; a socket sends no frame without at least one byte.
        frame.push(if ethertype == [0x86, 0xdd] {
            0x60
        } else {
            0x45
        });
        let header = if ethertype == [0x08, 0x00] { 20 } else { 28 };
        for _ in 1..header {
            one.namespace.run(|| send_frame(index, &frame))?;
            frame.push(0);
        }
        wait_for("every frame to be counted", || {
            let counted = drops(&datapath, DropReason::Truncated)? - before;
            ensure!(counted == header - 1, "{counted} of {}", header - 1);
            Ok(())
        })?;
    }
    reach(&one.namespace, two.v4.into())
}

/// Sends a frame as it is.
fn send_frame(index: u32, frame: &[u8]) -> Result<()> {
    use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
    ensure!(socket >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: a descriptor made just now, owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: plain numbers; all zero is a value.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = index as i32;
    // SAFETY: pointers and sizes describe live values.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of_val(&to) as u32,
        )
    };
    ensure!(
        sent == frame.len() as isize,
        "{}",
        std::io::Error::last_os_error()
    );
    Ok(())
}
