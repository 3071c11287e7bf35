// SPDX-License-Identifier: Apache-2.0
//! Pods that leave by an egress gateway: what they reach, what the world sees of them, and what
//! never leaves.

mod clock;
mod fragments;
mod held;
mod icmp;
mod life;
mod malformed;
mod native;
mod path;
mod policy;
mod ports;
mod refused;
mod size;
mod ways;

use std::net::IpAddr;

use anyhow::{Result, ensure};
use bpf_loader::{DropReason, EgressWay, HookChoice, PodNode};
use bpf_tests::{
    egress::{EGRESS_V4, EGRESS_V6, EgressLab, RULE, WORLD_V4, WORLD_V6},
    traffic::{reach, transfer},
};

const MEGABYTE: usize = 1 << 20;

const WORLD: [IpAddr; 2] = [IpAddr::V4(WORLD_V4), IpAddr::V6(WORLD_V6)];

fn pods_reach_the_world(hook: HookChoice) -> Result<()> {
    let mut lab = EgressLab::build(hook)?;
    lab.set_up()?;
    for to in WORLD {
        // The closed port's ICMP error quotes a translated packet.
        reach(&lab.pod.namespace, to)?;
        reach(&lab.gateway_pod.namespace, to)?;
        for pod in [&lab.pod, &lab.gateway_pod] {
            transfer(&pod.namespace, &lab.world, to, 16 * MEGABYTE)?;
        }
    }
    lab.witness.saw_nobody_else()?;
    let seen = lab.witness.seen();
    ensure!(seen.contains(&EGRESS_V4.into()) && seen.contains(&EGRESS_V6.into()));
    let mappings = lab.gateway_node.run(|| lab.gateway.mappings())?;
    ensure!(
        mappings
            .iter()
            .filter(|mapping| mapping.protocol == 6)
            .count()
            == 4,
        "{mappings:?}"
    );
    for mapping in &mappings {
        ensure!(
            // The closed port answers UDP by an ICMP error, which says nothing of its own.
            mapping.rule == RULE && (mapping.said_back.anything || mapping.protocol == 17),
            "{mapping:?}"
        );
        let from_here = mapping.pod.ip() == IpAddr::V4(lab.gateway_pod.v4)
            || mapping.pod.ip() == IpAddr::V6(lab.gateway_pod.v6);
        ensure!(from_here == (mapping.node == PodNode::Here), "{mapping:?}");
    }
    Ok(())
}

#[test]
fn pods_reach_the_world_under_the_gateways_address() -> Result<()> {
    pods_reach_the_world(HookChoice::Auto)
}

#[test]
fn with_clsact_filters_as_well() -> Result<()> {
    pods_reach_the_world(HookChoice::Clsact)
}

#[test]
fn nothing_leaves_where_there_is_no_gateway() -> Result<()> {
    let mut lab = EgressLab::build(HookChoice::Auto)?;
    lab.set_rules([(RULE, EgressLab::rule())].into())?;
    lab.select(EgressWay::NoGateway)?;
    for to in WORLD {
        ensure!(
            bpf_tests::traffic::Probe {
                wait: std::time::Duration::from_millis(300),
                ..Default::default()
            }
            .send(&lab.pod.namespace, to)?
                == bpf_tests::traffic::Fate::Silence
        );
    }
    let seen = lab.witness.seen();
    ensure!(
        !seen.contains(&lab.pod.v4.into()) && !seen.contains(&lab.pod.v6.into()),
        "{seen:?}"
    );
    // In the cluster there is no policy.
    reach(&lab.pod.namespace, lab.other_pod.v4.into())?;
    reach(&lab.pod.namespace, lab.gateway_pod.v6.into())?;
    ensure!(lab.refusals(DropReason::NatUnknownRule)? == 0);
    Ok(())
}
