// SPDX-License-Identifier: Apache-2.0
//! Several routes for a destination (RFC 7911): which ones a group announces.

use std::collections::BTreeMap;

use super::choice::Choice;
use super::group::{GroupKey, Plan, View};
use super::limit::Limit;
use super::member::Member;
use super::{PeerId, Sources};
use crate::rib::attributes::fingerprint;
use crate::rib::bits::Bits;
use crate::rib::keys::DestId;
use crate::rib::targets::Wanted;

/// A route that is announced: its identifier, who it came from, and a fingerprint of what was said.
type Said = (u32, Option<PeerId>, u64);

/// The routes announced, by table and destination.
#[derive(Clone, Debug, Default)]
pub(super) struct PathsOut {
    by_table: Vec<BTreeMap<DestId, Vec<Said>>>,
}

impl PathsOut {
    /// For a group for which everything it announces is announced.
    pub(super) fn new(
        key: &GroupKey,
        view: &View,
        wanting: &Wanted,
        announced: &[Bits],
        from: &Sources<'_>,
    ) -> PathsOut {
        let mut by_table = Vec::new();
        for (table, announced) in from.tables.iter().zip(announced) {
            let mut paths = BTreeMap::new();
            if let Some(mut choice) = Choice::new(key, view, wanting, table, from)
                && choice.sends_several()
            {
                for id in announced.iter() {
                    paths.insert(id, wanted(&mut choice, id));
                }
            }
            by_table.push(paths);
        }
        PathsOut { by_table }
    }

    /// Works out what of some destinations has to be said.
    pub(super) fn work<'g>(
        &mut self,
        slot: usize,
        ids: &[DestId],
        (announced, held): &mut (&mut Bits, &mut Limit),
        choice: &mut Choice<'g>,
        plan: &mut Plan<'g>,
    ) {
        let paths = &mut self.by_table[slot];
        for &id in ids {
            let mut runs = choice.runs(id);
            if runs.is_empty() {
                held.forget(id);
            } else if !held.admits(id, announced) {
                runs.clear();
            }
            let before = paths.remove(&id).unwrap_or_default();
            let mut after = Vec::with_capacity(runs.len());
            for (run, path_id) in runs {
                let print = said(choice, &run);
                let is_said = |other: &Said| (other.0, other.2) == (path_id, print);
                if !before.iter().any(is_said) {
                    plan.announce.push((run, (id, path_id)));
                }
                after.push((path_id, run.peer(), print));
            }
            for (gone, ..) in before {
                if after.iter().all(|(path_id, ..)| *path_id != gone) {
                    plan.withdraw.push((id, gone));
                }
            }
            if after.is_empty() {
                announced.remove(id);
            } else {
                announced.insert(id);
                paths.insert(id, after);
            }
        }
    }

    /// The state of some destinations, for a member that is behind with them.
    pub(super) fn state<'g>(
        &self,
        slot: usize,
        ids: &[DestId],
        announced: &Bits,
        (peer, member): (PeerId, &mut Member),
        choice: &mut Choice<'g>,
        plan: &mut Plan<'g>,
    ) {
        for &id in ids {
            let runs = if announced.contains(id) {
                choice.runs(id)
            } else {
                Vec::new()
            };
            let gone = member.gone.range((slot, id, 0)..=(slot, id, u32::MAX));
            for entry in gone.copied().collect::<Vec<_>>() {
                member.gone.remove(&entry);
                if runs.iter().all(|(_, path_id)| *path_id != entry.2) {
                    plan.withdraw.push((id, entry.2));
                }
            }
            let others = runs.into_iter().filter(|(run, _)| run.peer() != Some(peer));
            plan.announce
                .extend(others.map(|(run, path_id)| (run, (id, path_id))));
        }
    }

    /// All of them, by table, destination and identifier.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, DestId, u32)> {
        let tables = self.by_table.iter().enumerate();
        tables.flat_map(|(slot, paths)| {
            let ids = paths.iter().flat_map(|(id, said)| {
                let path_ids = said.iter().map(|(path_id, ..)| *path_id);
                path_ids.map(|path_id| (*id, path_id))
            });
            ids.map(move |(id, path_id)| (slot, id, path_id))
        })
    }

    /// Those of a table that are announced to a member: all but its own, with identifiers.
    pub(super) fn told(&self, slot: usize, peer: PeerId) -> impl Iterator<Item = (DestId, u32)> {
        self.by_table[slot].iter().flat_map(move |(id, said)| {
            let others = said.iter().filter(move |(_, from, _)| *from != Some(peer));
            others.map(|(path_id, ..)| (*id, *path_id))
        })
    }

    /// Whether a route is announced to a member.
    pub(super) fn is_told(&self, slot: usize, peer: PeerId, id: DestId, path_id: u32) -> bool {
        let said = self.by_table[slot].get(&id);
        let mut said = said.into_iter().flatten();
        said.any(|(known, from, _)| *known == path_id && *from != Some(peer))
    }

    /// How many routes of a table are announced.
    pub(super) fn count(&self, slot: usize) -> u64 {
        let all = self.by_table[slot].values();
        all.map(|paths| paths.len() as u64).sum()
    }

    /// How many of them came from each neighbour.
    pub(super) fn own_counts(&self, slot: usize, counts: &mut BTreeMap<PeerId, u64>) {
        let all = self.by_table[slot].values().flatten();
        for peer in all.filter_map(|(_, peer, _)| *peer) {
            *counts.entry(peer).or_default() += 1;
        }
    }

    pub(super) fn memory(&self) -> usize {
        // A B-tree node of eleven entries is two thirds full on average; most have two routes.
        let entries: usize = self.by_table.iter().map(BTreeMap::len).sum();
        entries * (size_of::<(DestId, Vec<u8>)>() * 3 / 2 + 2 * size_of::<Said>())
    }
}

fn wanted(choice: &mut Choice<'_>, id: DestId) -> Vec<Said> {
    let runs = choice.runs(id);
    runs.into_iter()
        .map(|(run, path_id)| (path_id, run.peer(), said(choice, &run)))
        .collect()
}

/// A fingerprint of how a run reads.
fn said(choice: &Choice<'_>, run: &super::choice::Run<'_>) -> u64 {
    let mut bytes = Vec::new();
    let hop = choice.encode(run, true, &mut bytes);
    if let Some(label) = choice.label(run) {
        bytes.extend_from_slice(&label.octets());
    }
    if let Some(hop) = hop {
        bytes.extend_from_slice(hop.to_string().as_bytes());
    }
    fingerprint(&bytes)
}
