// SPDX-License-Identifier: Apache-2.0
//! Echoes, and errors of the gateway and of routers behind it.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use bpf_loader::HookChoice;
use bpf_tests::{
    egress::{
        BEYOND_V4, BEYOND_V6, EGRESS_V4, EGRESS_V6, EgressLab, GATEWAY_V4, GATEWAY_V6, WORLD_V4,
        WORLD_V6,
    },
    packet::{Capture, Caught},
    pod::Pod,
    traffic::{Fate, Probe, ping, reach},
};

use crate::WORLD;

#[test]
fn echoes_come_back_to_who_asked_with_the_same_identifier() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    for to in WORLD {
        for pod in [&lab.pod, &lab.gateway_pod] {
            // Both pods ask with the same identifiers at the same time: one gets another outside.
            for identifier in [1, 0x1234, 0xffff] {
                ping(&pod.namespace, to, identifier)?;
            }
        }
    }
    let mappings = lab.mappings()?;
    ensure!(mappings.len() == 12, "{mappings:?}");
    for (index, one) in mappings.iter().enumerate() {
        ensure!(
            one.remote.is_some_and(|remote| remote.port() == 0),
            "{one:?}"
        );
        ensure!(one.said_out.anything && one.said_back.anything, "{one:?}");
        ensure!(
            mappings[index + 1..]
                .iter()
                .all(|other| other.egress != one.egress),
            "{one:?}"
        );
    }
    lab.witness.saw_nobody_else()
}

/// What an error says about, as a pod hears it: outer and quoted packet.
fn hear_error(capture: &Capture, pod: &Pod) -> Result<(Caught, Caught)> {
    capture.find("an ICMP error", |packet| {
        let to_pod = packet.destination == IpAddr::V4(pod.v4) || packet.destination == pod.v6;
        let is_error = match packet.protocol {
            1 => matches!(packet.payload[0], 3 | 11),
            58 => packet.payload[0] < 128,
            _ => false,
        };
        let quoted = Caught::parse(packet.payload.get(8..)?)?;
        (to_pod && is_error).then(|| (packet.clone(), quoted))
    })
}

/// Whether everything in an error is as if there were no gateway.
fn ensure_translated(outer: &Caught, quoted: &Caught, pod: &Pod, to: IpAddr) -> Result<()> {
    let own = if to.is_ipv4() {
        pod.v4.into()
    } else {
        IpAddr::V6(pod.v6)
    };
    ensure!(
        outer.is_header_sum_right && quoted.is_header_sum_right,
        "{outer:?} {quoted:?}"
    );
    ensure!(
        quoted.source == own && quoted.destination == to,
        "{quoted:?}"
    );
    ensure!(
        quoted.protocol == 17 && quoted.ports().is_some_and(|ports| ports[1] == 33434),
        "{quoted:?}"
    );
    if to.is_ipv4() {
        ensure!(
            bpf_tests::packet::checksum(&outer.payload) == 0,
            "{outer:?}"
        );
    } else {
        ensure!(outer.is_transport_sum_right(), "{outer:?}");
    }
    Ok(())
}

#[test]
fn a_trace_of_the_route_shows_the_gateway_and_every_router_behind() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    let _beyond = lab.add_beyond(1500)?;
    let gateway_says = [EGRESS_V4.into(), IpAddr::from(EGRESS_V6)];
    for to in [IpAddr::from(BEYOND_V4), BEYOND_V6.into()] {
        let router = if to.is_ipv4() {
            IpAddr::from(WORLD_V4)
        } else {
            WORLD_V6.into()
        };
        for (pod, first) in [(&lab.pod, 2), (&lab.gateway_pod, 2)] {
            reach(&pod.namespace, to)?;
            let ask = |ttl| {
                Probe {
                    ttl,
                    ..Probe::default()
                }
                .ask(&pod.namespace, to)
            };
            let capture = Capture::start(&pod.namespace, "eth0")?;
            let (fate, by) = ask(first)?;
            ensure!(
                fate == Fate::TimeExceeded && by.is_some_and(|by| gateway_says.contains(&by)),
                "{to}: {fate:?} by {by:?}"
            );
            let (outer, quoted) = hear_error(&capture, pod)?;
            ensure_translated(&outer, &quoted, pod, to)?;
            let capture = Capture::start(&pod.namespace, "eth0")?;
            let (fate, by) = ask(first + 1)?;
            ensure!(
                fate == Fate::TimeExceeded && by == Some(router),
                "{to}: {fate:?} by {by:?}"
            );
            let (outer, quoted) = hear_error(&capture, pod)?;
            ensure_translated(&outer, &quoted, pod, to)?;
            let capture = Capture::start(&pod.namespace, "eth0")?;
            let (fate, by) = ask(first + 2)?;
            ensure!(
                fate == Fate::Reached && by == Some(to),
                "{to}: {fate:?} by {by:?}"
            );
            let (outer, quoted) = hear_error(&capture, pod)?;
            ensure_translated(&outer, &quoted, pod, to)?;
        }
    }
    ensure!(GATEWAY_V4 != EGRESS_V4 && GATEWAY_V6 != EGRESS_V6);
    lab.witness.saw_nobody_else()
}

/// Somebody in the world who sends errors about connections that are none.
#[test]
fn errors_about_nothing_reach_no_pod() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_up()?;
    reach(&lab.pod.namespace, WORLD_V4.into())?;
    let short = Probe {
        wait: Duration::from_millis(300),
        ..Probe::default()
    };
    // The gateway's own address answers for itself: no pod is asked.
    let capture = Capture::start(&lab.pod.namespace, "eth0")?;
    ensure!(short.send(&lab.world, EGRESS_V4.into())? == Fate::Reached);
    ensure!(short.send(&lab.world, EGRESS_V6.into())? == Fate::Reached);
    reach(&lab.pod.namespace, WORLD_V6.into())?;
    // The first packet the pod hears or says after that is of its own connection.
    let first = capture.find("a packet", |packet| {
        (packet.protocol == 17).then(|| packet.clone())
    })?;
    ensure!(first.destination == IpAddr::from(WORLD_V6), "{first:?}");
    lab.witness.saw_nobody_else()
}
