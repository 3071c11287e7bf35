// SPDX-License-Identifier: Apache-2.0
//! What a session was told, as it came off the wire.

use std::collections::{BTreeMap, BTreeSet};

use bgp_core::routes::{RouteBatch, RouteItem};
use bgp_wire::{Destination, Nlri, PathAttributes, PeerKind, SessionContext};
use router_types::Family;

use crate::model::{Route, Table};

/// A route's destination and identifier.
type Key = (Destination, u32);

/// Routes by destination and identifier (0 where there are none).
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    routes: BTreeMap<Key, Route>,
    /// Families that are being sent again, and what of them has not come again.
    renewed: BTreeMap<Family, BTreeSet<Key>>,
}

impl Told {
    /// Takes note of what came.
    pub(crate) fn note(&mut self, changes: &RouteBatch) {
        let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
        let context = SessionContext::plain(PeerKind::Internal, &families);
        for item in changes.iter() {
            match item {
                RouteItem::Announce {
                    attributes,
                    next_hop,
                    nlri,
                } => {
                    let decoded = PathAttributes::decode(attributes, &context);
                    let route = Route::read(&decoded.attributes, next_hop.address);
                    let labels = nlri.vpn().map(|entry| Some(entry.label.value()));
                    let labels = labels.chain(std::iter::repeat(None));
                    for (key, label) in keys(nlri).zip(labels) {
                        self.renewed_by(&key);
                        let route = route.clone();
                        self.routes.insert(key, Route { label, ..route });
                    }
                }
                RouteItem::Withdraw { nlri } => {
                    for key in keys(nlri) {
                        self.routes.remove(&key);
                    }
                }
                RouteItem::EndOfRib { .. } => {}
            }
        }
    }

    fn renewed_by(&mut self, key: &Key) {
        if let Some(missing) = self.renewed.get_mut(&key.0.family()) {
            missing.remove(key);
        }
    }

    /// A family begins to come again (RFC 7313 §4).
    pub(crate) fn begin(&mut self, family: Family) {
        let keys = self.routes.keys();
        let keys = keys.filter(|(destination, _)| destination.family() == family);
        self.renewed.insert(family, keys.copied().collect());
    }

    /// It has come again.
    pub(crate) fn end(&mut self, family: Family) {
        for gone in self.renewed.remove(&family).unwrap_or_default() {
            self.routes.remove(&gone);
        }
    }

    /// By destination.
    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new();
        for ((destination, _), route) in &self.routes {
            table.entry(*destination).or_default().push(route.clone());
        }
        table
    }

    /// The identifiers of a route.
    pub(crate) fn ids(&self, destination: &Destination, route: &Route) -> Vec<u32> {
        let of = self
            .routes
            .range((*destination, 0)..=(*destination, u32::MAX));
        let ids = of.filter(|(_, other)| *other == route);
        ids.map(|((_, id), _)| *id).collect()
    }
}

fn keys(nlri: Nlri<'_>) -> impl Iterator<Item = Key> {
    let all: Vec<Key> = nlri
        .destinations()
        .map(|(id, destination)| (destination, id.unwrap_or(0)))
        .collect();
    all.into_iter()
}
