// SPDX-License-Identifier: Apache-2.0
//! A run of a case, and what has to hold at its end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use bgp_core::peer::{PeerInput, StopReason};
use bgp_core::rib::{PrefixFilter, RibInput, RouteQuery, RouteTable, RouteView};
use ipnet::IpNet;
use router_types::Family;

use crate::case::Case;
use crate::model::{Expected, Route, Routes, Truth};
use crate::node::ForRib;
use crate::topology::name;
use crate::world::World;

/// How long the script may take at most, with everybody back.
const SCRIPT: Duration = Duration::from_secs(3_600);

/// After that long of peace every session must be up, stale routes must be gone and nobody may have
/// anything to say: longer than the longest pause after errors, the hold time of a silent
/// connection before OPEN (4 minutes) and the restart time together.
const PEACE: Duration = Duration::from_secs(400);

/// How long everything must have been quiet by then.
const QUIET: Duration = Duration::from_secs(60);

/// Runs a case. The error says what did not hold.
pub(crate) fn run(case: &Case) -> Result<(), String> {
    let mut world = World::new(case);
    let end = world.now + SCRIPT;
    while !world.is_through() {
        world.run_until(world.now + Duration::from_secs(10))?;
        if world.now > end {
            return Err("the script never ends".into());
        }
    }
    world.heal()?;
    world.run_until(world.now + PEACE)?;
    let down = world.down();
    if !down.is_empty() {
        return Err(format!("links {down:?} have no session after {PEACE:?}"));
    }
    if world.now - world.last_update < QUIET {
        return Err("routes still change".into());
    }
    let truth = truth(&world);
    let Some(expected) = truth.solve() else {
        return Err("the model does not settle".into());
    };
    compare(&world, &truth, &expected)?;
    follow(&truth, &expected)?;
    leave_nothing(world)
}

fn truth(world: &World) -> Truth<'_> {
    let standing = &world.standing;
    let ends = |node: usize| world.topology.links_of(node);
    let closed = standing
        .iter()
        .enumerate()
        .flat_map(|(node, standing)| ends(node).filter(|(link, _)| standing.closed.contains(link)));
    Truth {
        topology: &world.topology,
        locals: standing.iter().map(|s| s.locals.clone()).collect(),
        said: standing.iter().map(|s| s.said.clone()).collect(),
        closed: closed.collect(),
        metrics: standing.iter().map(|s| s.metrics.clone()).collect(),
    }
}

/// Every table beside the model's.
fn compare(world: &World, truth: &Truth<'_>, expected: &Expected) -> Result<(), String> {
    for (number, node) in world.nodes.iter().enumerate() {
        let Some(node) = node else {
            return Err(format!("node {number} is away"));
        };
        let Some(tables) = &node.tables else {
            for (link, end) in world.topology.links_of(number) {
                let told = &node.sessions[&link].told;
                same(told, &expected.told[&(link, end)], number, link)?;
            }
            continue;
        };
        let routes = |table: RouteTable| -> Vec<RouteView> {
            let mut all = Vec::new();
            for family in [Family::IPV4_UNICAST, Family::IPV6_UNICAST] {
                let query = RouteQuery {
                    table: table.clone(),
                    family,
                    filter: PrefixFilter::All,
                    after: None,
                    limit: usize::MAX,
                };
                all.extend(tables.rib.routes(&query, world.now).routes);
            }
            all
        };
        for (link, end) in world.topology.links_of(number) {
            let told = &expected.told[&(link, end)];
            let (taken, refused): (Vec<_>, Vec<_>) = told
                .iter()
                .partition(|(_, route)| truth.takes(link, end, route));
            let mut found = Routes::new();
            for view in routes(RouteTable::Received(name(link))) {
                let (Some(attributes), Some(hop)) = (&view.attributes, view.next_hop) else {
                    return Err(format!("node {number}: {view:?} is not whole"));
                };
                if view.stale {
                    return Err(format!("node {number}, link {link}: {view:?} is stale"));
                }
                let prefix = view.prefix.prefix().ok_or("a route without a prefix")?;
                found.insert(prefix, Route::read(attributes, hop));
            }
            let taken = taken.into_iter().map(|(p, r)| (*p, r.clone())).collect();
            same(&found, &taken, number, link)?;
            let filtered = routes(RouteTable::Filtered(name(link)));
            let filtered: BTreeSet<IpNet> = filtered
                .iter()
                .filter_map(|view| view.prefix.prefix())
                .collect();
            let refused: BTreeSet<IpNet> = refused.into_iter().map(|(p, _)| *p).collect();
            if filtered != refused {
                return Err(format!(
                    "node {number}, link {link}: refused {filtered:?}, not {refused:?}"
                ));
            }
        }
        let mut used = BTreeMap::new();
        for n in 0..crate::case::PREFIXES {
            let prefix = crate::topology::prefix(n);
            let best = tables.rib.best(&prefix);
            // That a route is stale, or is not any more, is not reported: it is used all the same.
            let mut kernel = tables.kernel.get(&prefix).cloned();
            if let (Some(kernel), Some(best)) = (&mut kernel, &best) {
                kernel.stale = best.stale;
            }
            if kernel != best {
                return Err(format!(
                    "node {number}: {prefix} is {kernel:?} in the kernel and {best:?} in the tables"
                ));
            }
            if let Some(best) = best {
                used.insert(prefix, best.peers[0].clone());
            }
        }
        let best = expected.best.iter();
        let best: BTreeMap<IpNet, _> = best
            .filter(|((node, prefix), _)| *node == number && !truth.locals[number].contains(prefix))
            .map(|((_, prefix), link)| (*prefix, name(*link)))
            .collect();
        if used != best {
            return Err(format!("node {number} uses {used:?}, not {best:?}"));
        }
    }
    Ok(())
}

fn same(found: &Routes, expected: &Routes, node: usize, link: usize) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    let differing = expected.keys().chain(found.keys());
    let differing = differing.filter(|prefix| found.get(prefix) != expected.get(prefix));
    let lines: BTreeSet<String> = differing
        .map(|p| format!("\n  {p}: {:?}\n  not {:?}", found.get(p), expected.get(p)))
        .collect();
    let lines: String = lines.into_iter().collect();
    Err(format!("node {node} was told on link {link}:{lines}"))
}

/// Packets arrive: from every speaker, along the next hops it uses, without going round.
fn follow(truth: &Truth<'_>, expected: &Expected) -> Result<(), String> {
    for (start, prefix) in expected.best.keys() {
        let mut at = *start;
        let mut passed = BTreeSet::new();
        loop {
            let is_there = truth.locals[at].contains(prefix)
                || truth.said[at]
                    .keys()
                    .any(|n| crate::topology::prefix(*n) == *prefix);
            if is_there {
                break;
            }
            if !passed.insert(at) {
                return Err(format!("{prefix} goes round from node {start}: {passed:?}"));
            }
            let Some(link) = expected.best.get(&(at, *prefix)) else {
                return Err(format!("{prefix} ends at node {at} from node {start}"));
            };
            let end = usize::from(truth.topology.links[*link][0].node != at);
            let hop: IpAddr = expected.told[&(*link, end)][prefix].next_hop;
            let owner = truth
                .topology
                .links
                .iter()
                .flatten()
                .find(|end| IpAddr::V4(end.v4) == hop || IpAddr::V6(end.v6) == hop);
            match owner {
                // A next hop that leads back is an end of the own link.
                Some(end) if end.node != at => at = end.node,
                Some(_) | None => return Err(format!("{prefix}: next hop {hop} of node {at}")),
            }
        }
    }
    Ok(())
}

/// When all sessions have ended for good and nothing is originated any more, nothing is kept.
fn leave_nothing(mut world: World) -> Result<(), String> {
    for number in 0..world.topology.speakers() {
        let links: Vec<usize> = world.topology.links_of(number).map(|(l, _)| l).collect();
        for link in links {
            world.tell(number, link, PeerInput::Stop(StopReason::Deconfigured))?;
        }
        let none = RibInput::LocalRoutes(Default::default());
        world.push(number, ForRib::Input(none));
    }
    world.run_until(world.now + PEACE)?;
    for (number, node) in world.nodes.iter().enumerate() {
        let Some(tables) = node.as_ref().and_then(|node| node.tables.as_ref()) else {
            continue;
        };
        let stats = tables.rib.stats();
        let left = [
            stats.destinations,
            stats.routes,
            stats.rejected,
            stats.attribute_sets,
            stats.next_hops,
            stats.local_routes,
            stats.changes_waiting,
            tables.queue.len(),
            tables.kernel.len(),
        ];
        if left != [0; 9] {
            return Err(format!("node {number} keeps something: {stats:?}"));
        }
    }
    Ok(())
}
