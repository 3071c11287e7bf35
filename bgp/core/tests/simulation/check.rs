// SPDX-License-Identifier: Apache-2.0
//! A run of a case, and what has to hold in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use bgp_core::peer::{PeerInput, StopReason};
use bgp_core::rib::RibInput;
use bgp_wire::Destination;

use crate::case::{Act, Back, Case};
use crate::compare::{compare, truth};
use crate::model::{Away, Expected, Phase, Truth};
use crate::node::ForRib;
use crate::world::{Event, World};

/// After that long of peace every session must be up, stale routes must be gone and nobody may have
/// anything to say: longer than the longest pause after errors, that after too many routes at the
/// other end (5 minutes) and the hold time of a silent connection before OPEN (4 minutes).
const PEACE: Duration = Duration::from_secs(600);

/// How long everything must have been quiet by then: shorter than any timer that hides something.
const QUIET: Duration = Duration::from_secs(20);

/// How long it takes at most until what happened at one node is known to all.
const WORD: Duration = Duration::from_secs(15);

/// How long a limit is looked at: until a session that ended for it is up again, and passes it
/// again. The other end waits five minutes before that.
const LIMITED: Duration = Duration::from_secs(330);

/// Runs a case. The error says what did not hold.
pub(crate) fn run(case: &Case) -> Result<(), String> {
    let mut world = World::new(case);
    for (number, step) in case.steps.iter().enumerate() {
        let at = |why: String| format!("step {number}: {why}");
        let until = world.now + Duration::from_millis(step.after_ms);
        world.run_until(until).map_err(at)?;
        match &step.act {
            Act::Rest => drop(settle(&mut world).map_err(at)?),
            Act::Away {
                node,
                back,
                forwards,
            } => {
                let node = node % world.nodes.len();
                leave(&mut world, node, *back, *forwards).map_err(at)?;
            }
            act => {
                world.act(act.clone()).map_err(at)?;
                if let Act::Limit { .. } = act {
                    world.run_until(world.now + LIMITED).map_err(at)?;
                }
            }
        }
    }
    settle(&mut world).map_err(|why| format!("in the end: {why}"))?;
    leave_nothing(world)
}

/// Waits until everything has settled, and looks at it.
fn settle(world: &mut World) -> Result<Expected, String> {
    let end = world.now + PEACE;
    world.heal()?;
    loop {
        world.run_until(world.now + Duration::from_secs(5))?;
        let down = world.down();
        let is_quiet = world.now - world.last_update >= QUIET;
        if world.is_through() && down.is_empty() && is_quiet && !world.has_mail() {
            break;
        }
        if world.now > end {
            return Err(match down.is_empty() {
                true => format!("routes still change after {PEACE:?}"),
                false => format!("links {down:?} have no session after {PEACE:?}"),
            });
        }
    }
    look(world, &BTreeMap::new())
}

/// Everything beside the model, with some nodes away.
fn look(world: &World, away: &BTreeMap<usize, Away>) -> Result<Expected, String> {
    let truth = truth(world, away);
    let Some(expected) = truth.solve() else {
        return Err("the model does not settle".into());
    };
    compare(world, &truth, &expected)?;
    if away.is_empty() {
        follow(&truth, &expected)?;
    }
    Ok(expected)
}

/// A node goes and comes back; its neighbours keep what they were told as long as they should.
fn leave(world: &mut World, node: usize, back: Back, forwards: bool) -> Result<(), String> {
    let expected = settle(world)?;
    let links = world.topology.links_of(node);
    let told = links.map(|(link, end)| {
        let at = (link, 1 - end);
        (at, expected.told[&at].clone())
    });
    let told: BTreeMap<_, _> = told.collect();
    let look = |world: &World, phase, when: &str| {
        let told = told.clone();
        look(world, &BTreeMap::from([(node, Away { told, phase })]))
            .map_err(|why| format!("{when}: {why}"))
    };
    world.crash(node, false, forwards);
    let restart_s = u64::from(world.case.restart_s.unwrap_or(0));
    let stale_s = u64::from(world.case.more.long_lived_s.unwrap_or(0));
    let gone = world.now;
    world.run_until(gone + WORD)?;
    look(world, Phase::Restarting, "within the restart time")?;
    let waits = [Back::Late, Back::VeryLate].contains(&back);
    if waits {
        world.run_until(gone + Duration::from_secs(restart_s) + WORD)?;
        look(world, Phase::LongGone, "after the restart time")?;
    }
    if back == Back::VeryLate && stale_s > 0 {
        world.run_until(gone + Duration::from_secs(restart_s + stale_s) + WORD)?;
        look(world, Phase::Forgotten, "after the long-lived stale time")?;
    }
    // What it has forgotten must be gone when it is back.
    let standing = &mut world.standing[node];
    let forgotten = standing.said.keys().next().copied();
    forgotten.map(|key| standing.said.remove(&key));
    standing.locals.pop_first();
    world.after(0, Event::Back(node));
    settle(world).map_err(|why| format!("node {node} is back: {why}"))?;
    Ok(())
}

/// Packets arrive: from every speaker, along the next hops it uses, without going round.
fn follow(truth: &Truth<'_>, expected: &Expected) -> Result<(), String> {
    for (start, destination) in expected.used.keys() {
        // Routes of VPNs lead to who gave the label, by other routes.
        let Destination::Ip(prefix) = destination else {
            continue;
        };
        let mut at = *start;
        let mut passed = BTreeSet::new();
        loop {
            let says = |number: &u8| crate::topology::destination(*number) == *destination;
            let is_there = truth.locals[at].contains(prefix)
                || truth.said[at].keys().any(|(number, _)| says(number));
            if is_there {
                break;
            }
            if !passed.insert(at) {
                return Err(format!("{prefix} goes round from node {start}: {passed:?}"));
            }
            let used = expected.used.get(&(at, *destination));
            let Some(used) = used.and_then(|used| used.first()) else {
                return Err(format!("{prefix} ends at node {at} from node {start}"));
            };
            let hop: IpAddr = used.route.next_hop;
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
