// SPDX-License-Identifier: Apache-2.0
//! Every table beside the model's.

use std::collections::{BTreeMap, BTreeSet};

use bgp_core::rib::{PrefixFilter, RouteQuery, RouteTable, RouteView};
use bgp_wire::Destination;

use crate::model::{Away, Expected, Route, Table, Truth};
use crate::node::Tables;
use crate::topology::name;
use crate::world::World;

/// What is originated and configured, and who is away.
pub(crate) fn truth<'w>(world: &'w World, away: &BTreeMap<usize, Away>) -> Truth<'w> {
    let standing = &world.standing;
    let mut truth = Truth {
        topology: &world.topology,
        restarts: world.case.restart_s.is_some(),
        partial: world.case.more.partial,
        strict: world.case.more.strict,
        locals: standing.iter().map(|s| s.locals.clone()).collect(),
        said: standing.iter().map(|s| s.said.clone()).collect(),
        closed: BTreeSet::new(),
        metrics: standing.iter().map(|s| s.metrics.clone()).collect(),
        filters: BTreeMap::new(),
        revisions: standing.iter().map(|s| s.revision).collect(),
        hidden: standing.iter().map(|s| s.hidden.clone()).collect(),
        targets: standing.iter().map(|s| s.targets.clone()).collect(),
        away: away.clone(),
        wire: BTreeMap::new(),
    };
    for (number, standing) in standing.iter().enumerate() {
        for (link, end) in world.topology.links_of(number) {
            if standing.closed.contains(&link) {
                truth.closed.insert((link, end));
            }
            let filters = standing.filters.iter().filter(|((at, _), _)| *at == link);
            let filters = filters.map(|((_, way), filter)| ((link, end, *way), *filter));
            truth.filters.extend(filters);
            if let Some(node) = &world.nodes[number] {
                truth.wire.insert((link, end), &node.sessions[&link].told);
            }
        }
    }
    truth
}

/// Every table of every node that is there.
pub(crate) fn compare(world: &World, truth: &Truth<'_>, expected: &Expected) -> Result<(), String> {
    let mut wrong = Vec::new();
    for (number, node) in world.nodes.iter().enumerate() {
        let Some(node) = node else {
            if truth.away.contains_key(&number) {
                continue;
            }
            return Err(format!("node {number} is away"));
        };
        let is_away = |link: usize, end: usize| {
            let there = world.topology.links[link][1 - end].node;
            truth.away.contains_key(&there)
        };
        let Some(tables) = &node.tables else {
            for (link, end) in world.topology.links_of(number) {
                if !is_away(link, end) {
                    let told = node.sessions[&link].told.table();
                    wrong.extend(same(told, &expected.told[&(link, end)], number, link).err());
                }
            }
            continue;
        };
        for (link, end) in world.topology.links_of(number) {
            let stale = is_away(link, end);
            let there = (number, tables);
            wrong.extend(received(world, there, truth, expected, (link, end), stale).err());
        }
        wrong.extend(used(number, tables, truth, expected).err());
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n")),
    }
}

/// What is taken of a neighbour's routes, and what is not.
fn received(
    world: &World,
    (number, tables): (usize, &Tables),
    truth: &Truth<'_>,
    expected: &Expected,
    (link, end): (usize, usize),
    stale: bool,
) -> Result<(), String> {
    let routes = |table: RouteTable| -> Vec<RouteView> {
        let families = world.topology.plans[link].families();
        let of = |family| {
            let query = RouteQuery {
                table: table.clone(),
                family,
                filter: PrefixFilter::All,
                after: None,
                limit: usize::MAX,
            };
            tables.rib.routes(&query, world.now).routes
        };
        families.into_iter().flat_map(of).collect()
    };
    let (mut taken, mut refused) = (Table::new(), BTreeMap::<Destination, usize>::new());
    for (destination, told) in &expected.told[&(link, end)] {
        for route in told {
            match truth.takes(link, end, destination, route) {
                Some(route) => taken.entry(*destination).or_default().push(route),
                None => *refused.entry(*destination).or_default() += 1,
            }
        }
    }
    let mut found = Table::new();
    for view in routes(RouteTable::Received(name(link))) {
        let (Some(attributes), Some(hop)) = (&view.attributes, view.next_hop) else {
            return Err(format!("node {number}: {view:?} is not whole"));
        };
        if view.stale != stale {
            let is = if view.stale { "is" } else { "is not" };
            return Err(format!("node {number}, link {link}: {view:?} {is} stale"));
        }
        let route = Route {
            label: view.label.map(|label| label.value()),
            ..Route::read(attributes, hop)
        };
        found.entry(view.prefix).or_default().push(route);
    }
    same(found, &taken, number, link)?;
    let mut filtered = BTreeMap::<Destination, usize>::new();
    for view in routes(RouteTable::Filtered(name(link))) {
        *filtered.entry(view.prefix).or_default() += 1;
    }
    // Of a neighbour that is away nothing is kept that was refused.
    let refused = if stale { BTreeMap::new() } else { refused };
    if filtered != refused {
        return Err(format!(
            "node {number}, link {link}: refused {filtered:?}, not {refused:?}"
        ));
    }
    Ok(())
}

/// What is used, in the tables and the kernel.
fn used(
    number: usize,
    tables: &Tables,
    truth: &Truth<'_>,
    expected: &Expected,
) -> Result<(), String> {
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
        let used = expected.used.get(&(number, Destination::Ip(prefix)));
        let used = used.filter(|_| !truth.locals[number].contains(&prefix));
        let first = used.and_then(|used| used.first());
        let found = best.as_ref().map(|best| &best.peers[0]);
        let wanted = first.map(|first| name(first.link));
        if found != wanted.as_ref() {
            return Err(format!(
                "node {number} uses {found:?} for {prefix}, not {wanted:?}"
            ));
        }
        if let (Some(best), Some(first)) = (best, first) {
            let hop = first.route.next_hop;
            if !best.next_hops.iter().any(|next| next.via == Some(hop)) {
                return Err(format!(
                    "node {number}: {prefix} goes to {best:?}, not to {hop}"
                ));
            }
        }
    }
    Ok(())
}

fn same(mut found: Table, expected: &Table, node: usize, link: usize) -> Result<(), String> {
    let mut expected = expected.clone();
    for routes in found.values_mut().chain(expected.values_mut()) {
        routes.sort();
    }
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
