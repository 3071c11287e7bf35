// SPDX-License-Identifier: Apache-2.0
//! The whole decision, by what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::testing::{group, held, id, ip, pod, policy, world};
use crate::*;

mod choice;
mod closed;
mod drained;
mod explained;
mod native;
mod numbered;
mod properties;
mod scale;
mod unanswered;

/// Decides for the first time.
fn first(world: &World) -> Desired {
    decide(world, &Claims::new(), &Previous::default())
}

/// What becomes of a packet, as the data plane looks it up.
fn way(desired: &Desired, source: IpAddr, destination: IpAddr) -> Option<Way> {
    let set = desired.sets.get(&desired.sources.get(&source)?.set)?;
    set.iter()
        .filter(|(prefix, _)| prefix.contains(&destination))
        .max_by_key(|(prefix, _)| prefix.prefix_len())
        .map(|(_, way)| *way)
}

/// The rule of the n-th pod's packets to 8.8.8.8 and its end.
fn end_of(desired: &Desired, n: u16) -> (RuleNumber, RuleEnd) {
    match way(desired, pod(n, &[]).addresses[0], ip("8.8.8.8")) {
        Some(Way::Through(rule)) => (rule, desired.ends[&rule].clone()),
        other => panic!("pod {n} has {other:?}"),
    }
}

/// The same from another node.
fn seen_from(world: &World, node: &str) -> World {
    World {
        node: node.to_owned(),
        pods: Vec::new(),
        interfaces: BTreeMap::new(),
        ..world.clone()
    }
}

fn set_zone(world: &mut World, node: &str, zone: &str) {
    world.nodes.get_mut(node).expect("a node").zone = Some(zone.to_owned());
}

fn set_health(world: &mut World, node: &str, is_healthy: bool) {
    let node = world.nodes.get_mut(node).expect("a node");
    (node.is_healthy, node.is_dead) = (is_healthy, !is_healthy);
}

fn claim(holder: &str, term: u64) -> Claim {
    Claim {
        holder: holder.to_owned(),
        term,
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
