// SPDX-License-Identifier: Apache-2.0
//! What a neighbour is sent for a destination, and why not, by the decisions that export takes.

use std::net::IpAddr;

use bgp_wire::PathAttributes;

use super::choice::{Choice, Depth, Run};
use super::group::Group;
use super::{Exports, PeerId, Sources, Withheld, address};
use crate::rib::attributes::decode;
use crate::rib::keys::DestId;

/// A route as a neighbour is sent it.
pub(in crate::rib) type Sent = (PathAttributes, IpAddr);

/// What becomes of the routes for a destination on the way to a neighbour.
pub(in crate::rib) struct Outgoing {
    /// Whose route each is (`None` for the node's own, and for none at all), and what becomes of it.
    pub(in crate::rib) routes: Vec<(Option<PeerId>, Result<Sent, Withheld>)>,
    /// Whether the neighbour has yet to be told.
    pub(in crate::rib) is_pending: bool,
    /// Bytes that wait for the neighbour.
    pub(in crate::rib) waiting_bytes: usize,
}

impl Outgoing {
    /// Nothing, for one reason.
    pub(in crate::rib) fn nothing(why: Withheld) -> Outgoing {
        Outgoing {
            routes: vec![(None, Err(why))],
            is_pending: false,
            waiting_bytes: 0,
        }
    }
}

impl Exports {
    /// What a neighbour is sent for a destination of a table; `None` is a destination without a
    /// number, so without routes.
    pub(in crate::rib) fn explain(
        &self,
        peer: PeerId,
        slot: usize,
        id: Option<DestId>,
        from: &Sources<'_>,
    ) -> Outgoing {
        let Some(member) = self.members.get(&peer) else {
            return Outgoing::nothing(Withheld::NotEstablished);
        };
        let Some(group) = self.groups.get(&member.group) else {
            return Outgoing::nothing(Withheld::NotEstablished);
        };
        let family = from.tables[slot].family;
        let neighbour = from.neighbours.get(peer);
        let session = neighbour.and_then(|neighbour| neighbour.session.as_ref());
        if !session.is_some_and(|s| s.families.iter().any(|f| f.family == family)) {
            return Outgoing::nothing(Withheld::FamilyNotNegotiated);
        }
        let (routes, is_pending) = match id {
            Some(id) => {
                let routes = group.explain(peer, slot, id, from);
                let sent = routes.iter().any(|(_, outcome)| outcome.is_ok());
                let own = routes
                    .iter()
                    .any(|(_, outcome)| matches!(outcome, Err(Withheld::SplitHorizon)));
                let agrees = own || sent == group.is_announced(slot, id);
                let waits = member.is_behind(slot, id) || from.tables[slot].is_dirty(id);
                (routes, waits || !agrees)
            }
            None => (vec![(None, Err(Withheld::NoRoute))], false),
        };
        Outgoing {
            routes,
            is_pending,
            waiting_bytes: member.queued_bytes,
        }
    }
}

impl Group {
    fn explain(
        &self,
        peer: PeerId,
        slot: usize,
        id: DestId,
        from: &Sources<'_>,
    ) -> Vec<(Option<PeerId>, Result<Sent, Withheld>)> {
        let table = &from.tables[slot];
        let Some(mut choice) = Choice::new(&self.key, &self.view, &self.wanted, table, from) else {
            return vec![(None, Err(Withheld::NoNextHop))];
        };
        let runs: Vec<(Option<PeerId>, Result<Run<'_>, Withheld>)> = if choice.sends_several() {
            let all = choice.try_runs(id, Depth::All).into_iter();
            all.map(|(source, _, run)| (source, run)).collect()
        } else {
            let best = from.best(table, id).map(|best| best.peer);
            match choice.try_run(id) {
                Ok(run) => vec![(run.peer(), Ok(run))],
                Err(why) => vec![(best, Err(why))],
            }
        };
        let is_local = table.local.contains(id);
        let mut routes = Vec::with_capacity(runs.len());
        for (source, run) in runs {
            let outcome = match run {
                Ok(run) if run.peer() == Some(peer) => Err(Withheld::SplitHorizon),
                Ok(_) if self.limits[slot].holds(id) => Err(Withheld::Limit),
                Ok(run) => {
                    let mut bytes = Vec::new();
                    let hop = choice.encode(&run, true, &mut bytes);
                    hop.map(|hop| (decode(&bytes), address(hop)))
                        .ok_or(Withheld::NoNextHop)
                }
                // What the node has itself is not looked for among neighbours.
                Err(Withheld::NoTransit | Withheld::NoRoute) if is_local => {
                    Err(Withheld::NotAdvertised)
                }
                Err(Withheld::NoTransit) if source.is_none() => Err(Withheld::NoRoute),
                Err(why) => Err(why),
            };
            routes.push((source, outcome));
        }
        if routes.is_empty() {
            let best = from.best(table, id).map(|best| best.peer);
            let why = match (is_local, best) {
                (true, _) => Withheld::NotAdvertised,
                (false, Some(_)) => Withheld::NoTransit,
                (false, None) => Withheld::NoRoute,
            };
            routes.push((best, Err(why)));
        }
        routes
    }
}
