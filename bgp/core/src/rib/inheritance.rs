// SPDX-License-Identifier: Apache-2.0
//! What a process leaves to the next one about a neighbour whose session goes on.
//!
//! To the RIB such a session is one that came up: everything is sent again, which changes nothing
//! where it is the same, and the neighbour sends its routes again (RFC 2918). Three things the next
//! process cannot know by itself:
//!
//! - which routes the neighbour was told. Those that are not told again within
//!   [`SELECTION_DEFERRAL`], when all neighbours have sent theirs, are withdrawn then;
//! - the numbers of neighbours in the tables, which path identifiers are made of (RFC 7911 §3);
//! - the VPN routes the neighbour asked for (RFC 4684), so that it is sent them while its
//!   memberships are on their way again.

use std::collections::BTreeMap;
use std::time::Instant;

use bgp_wire::{Nlri, RouteTargetPrefix};
use router_types::Family;
use serde::{Deserialize, Serialize};

use super::keys::DestId;
use super::{PeerId, ROUTE_TARGETS, Rib, slot_of};
use crate::config::PeerName;
use crate::deliveries::SELECTION_DEFERRAL;
use crate::serial;

/// What a process knows of a neighbour and the next one has to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Inheritance {
    /// The neighbour's number in the tables.
    pub number: u16,
    /// The routes it was told.
    pub announced: Vec<Announced>,
    /// The memberships it has sent, as they stand in a message; `None` where it has yet to send them
    /// all.
    #[serde(with = "serial::hex_option")]
    pub memberships: Option<Vec<u8>>,
}

/// Routes of a family that a neighbour was told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Announced {
    /// The family.
    #[serde(with = "serial::family")]
    pub family: Family,
    /// Whether they have path identifiers.
    pub add_path: bool,
    /// The destinations as they stand in a withdrawal.
    #[serde(with = "serial::hex")]
    pub nlri: Vec<u8>,
}

/// What is left to be done of an inheritance.
#[derive(Debug)]
pub(super) struct Unsettled {
    announced: Vec<Announced>,
    /// When the neighbour has been told all there is.
    pub(super) until: Instant,
}

impl Announced {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.list().map_or(0, |list| list.count())
    }

    fn list(&self) -> Option<Nlri<'_>> {
        Nlri::parse(self.family, self.add_path, &self.nlri).ok()
    }
}

impl Rib {
    /// What the next process has to know to go on with a neighbour's session; `None` where it is not
    /// up. Looks at every destination. What waits for the neighbour counts as told.
    pub fn inheritance(&self, peer: &PeerName) -> Option<Inheritance> {
        let id = self.neighbours.id(peer)?;
        let neighbour = self.neighbours.get(id).filter(|neighbour| neighbour.up)?;
        let from = self.sources();
        let mut announced = Vec::new();
        for (slot, table) in self.tables.iter().enumerate() {
            let told = self.exports.told(id, slot, &from);
            let add_path = self.exports.has_path_ids(id, table.family);
            let mut nlri = Vec::new();
            table.keys.put(&told, add_path, usize::MAX, &mut nlri);
            // A process that ends before all is settled leaves what was left to it, too.
            let before = neighbour.unsettled.iter().flat_map(|left| &left.announced);
            let alike =
                |list: &&Announced| list.family == table.family && list.add_path == add_path;
            for before in before.filter(alike) {
                nlri.extend(self.no_longer_told(id, slot, before));
            }
            if !nlri.is_empty() {
                announced.push(Announced {
                    family: table.family,
                    add_path,
                    nlri,
                });
            }
        }
        let says_all = neighbour.has_targets && neighbour.targets_until.is_none();
        Some(Inheritance {
            number: id,
            announced,
            memberships: says_all.then(|| self.memberships(id)),
        })
    }

    /// Gives neighbours the numbers they had, as long as none has been up.
    pub(super) fn renumber(&mut self, numbers: BTreeMap<PeerName, PeerId>) {
        if self.neighbours.iter().any(|n| n.session.is_some()) {
            return;
        }
        self.neighbours.renumber(numbers);
        self.exports.set_views(
            &self.locals,
            &self.aggregated,
            self.neighbours.ids(),
            &self.tables,
        );
    }

    /// Takes what the process before has left about a neighbour that has just come up.
    pub(super) fn inherit(&mut self, peer: &PeerName, left: Inheritance, now: Instant) {
        let Some(id) = self.neighbours.id(peer) else {
            return;
        };
        let Some(neighbour) = self.neighbours.get_mut(id).filter(|n| n.up) else {
            return;
        };
        neighbour.unsettled = Some(Unsettled {
            announced: left.announced,
            until: now + SELECTION_DEFERRAL,
        });
        if let Some(memberships) = left.memberships.filter(|_| neighbour.has_targets) {
            let list = Nlri::parse(Family::ROUTE_TARGET, false, &memberships);
            let targets = list.iter().flat_map(|list| list.route_targets());
            neighbour.asked_before = targets.map(|entry| entry.target).collect();
            neighbour.targets_until = None;
            self.wishing.insert(id);
        }
    }

    /// The neighbour has been told all there is: what it was told before and is not any more is
    /// withdrawn. One that has not said again what it asks for goes on being sent that.
    pub(super) fn settle(&mut self, id: PeerId) {
        let Some(neighbour) = self.neighbours.get_mut(id) else {
            return;
        };
        let Some(left) = neighbour.unsettled.take() else {
            return;
        };
        let memberships = neighbour.accepted.get(&Family::ROUTE_TARGET);
        if memberships.is_some_and(|&count| count > 0) {
            self.forget_what_was_asked_before(id);
        }
        self.flush_exports();
        for list in &left.announced {
            let Some(slot) = slot_of(list.family) else {
                continue;
            };
            let gone = self.no_longer_told(id, slot, list);
            if let Ok(gone) = Nlri::parse(list.family, list.add_path, &gone) {
                self.exports.take_back(id, gone);
            }
        }
    }

    /// A neighbour has said again all it asks for.
    pub(super) fn forget_what_was_asked_before(&mut self, id: PeerId) {
        if let Some(neighbour) = self.neighbours.get_mut(id)
            && !std::mem::take(&mut neighbour.asked_before).is_empty()
        {
            self.wishing.insert(id);
        }
    }

    /// Of a list of routes a neighbour was told, those that it is not told any more.
    fn no_longer_told(&self, id: PeerId, slot: usize, before: &Announced) -> Vec<u8> {
        let mut gone = Vec::new();
        let Some(list) = before.list() else {
            return gone;
        };
        let from = self.sources();
        self.tables[slot]
            .keys
            .look_up(list, |entry, dest, path_id| {
                let is_told =
                    dest.is_some_and(|dest| self.exports.is_told(id, slot, (dest, path_id), &from));
                if !is_told {
                    gone.extend_from_slice(entry);
                }
            });
        gone
    }

    /// The memberships of a neighbour, and those it had, as they stand in a message.
    fn memberships(&self, id: PeerId) -> Vec<u8> {
        let table = &self.tables[ROUTE_TARGETS];
        let of_peer = table.having(|path| path.peer == id && path.rejected.is_none());
        let numbered: Vec<(DestId, u32)> = of_peer.into_iter().map(|dest| (dest, 0)).collect();
        let mut nlri = Vec::new();
        table.keys.put(&numbered, false, usize::MAX, &mut nlri);
        let neighbour = self.neighbours.get(id);
        let before = neighbour
            .iter()
            .flat_map(|neighbour| &neighbour.asked_before);
        before.for_each(|target| RouteTargetPrefix::encode(target, &mut nlri));
        nlri
    }
}
