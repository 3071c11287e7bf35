// SPDX-License-Identifier: Apache-2.0
//! Routes of the node itself: local ones, and aggregates of what is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bgp_wire::PathAttributes;
use ipnet::IpNet;
use router_types::{Forwarding, RouteSource};

use super::export::contribution;
use super::keys::DestId;
use super::table::BestKey;
use super::{BestRoute, FAMILIES, Rib, table_of};
use crate::config::{LocalRoute, LocalRoutes};

impl Rib {
    /// The aggregate that is announced in place of a prefix, where one is (`summaryOnly`).
    pub fn suppressed_by(&self, prefix: &IpNet) -> Option<IpNet> {
        let is_aggregate =
            self.aggregated.contains_key(prefix) && !self.locals.contains_key(prefix);
        self.aggregates
            .suppressing(prefix)
            .filter(|_| !is_aggregate)
    }

    pub(super) fn set_local_routes(&mut self, routes: &LocalRoutes) {
        let next: BTreeMap<IpNet, LocalRoute> = routes
            .iter()
            .map(|route| (route.prefix(), route.clone()))
            .collect();
        // What is announced of routes that are to be replaced is known from here on by the groups
        // alone.
        self.flush_exports();
        let own = self.own_prefixes();
        let before = std::mem::replace(&mut self.locals, next);
        let both = before.keys().chain(self.locals.keys());
        let differing: BTreeSet<IpNet> = both
            .filter(|prefix| before.get(*prefix) != self.locals.get(*prefix))
            .copied()
            .collect();
        self.renew_own(&own);
        for prefix in differing {
            if let Some((slot, id)) = self.find(&prefix) {
                self.contribute(slot, id);
            } else {
                self.aggregates.set(prefix, None);
            }
            if self.aggregated.contains_key(&prefix) {
                self.report_own(&prefix);
            }
        }
        self.exports.locals_are_known();
    }

    /// Takes the aggregates of the configuration.
    pub(super) fn configure_aggregates(&mut self) {
        let (changed, has_new) = self.aggregates.configure(&self.config.aggregates);
        for prefix in changed {
            if let Some((slot, id)) = self.find(&prefix) {
                self.look_again(slot, id);
            }
        }
        if has_new {
            self.contribute_all();
        }
    }

    /// Counts every route anew.
    pub(super) fn contribute_all(&mut self) {
        for slot in 0..FAMILIES.len() {
            for id in self.tables[slot].ids().collect::<Vec<DestId>>() {
                if self.contribute(slot, id) {
                    self.look_again(slot, id);
                }
            }
        }
    }

    /// Tells the aggregates what is used for a destination. Returns whether it is within one.
    /// Learned routes count where they are passed on: else the aggregate would draw what the node
    /// does not offer to carry.
    pub(super) fn contribute(&mut self, slot: usize, id: DestId) -> bool {
        let prefix = self.tables[slot].keys.prefix(id);
        if !self.aggregates.concerns(&prefix) {
            return false;
        }
        let attributes = match self.locals.get(&prefix) {
            Some(route) => Some(contribution(route)),
            None if self.transit => self
                .best_path(slot, id)
                .and_then(|path| self.attributes.attributes(path.attributes)),
            None => None,
        };
        self.aggregates.set(prefix, attributes.as_ref());
        true
    }

    /// Takes over which aggregates came, changed and went.
    pub(super) fn settle_aggregates(&mut self) {
        if !self.aggregates.has_changes() {
            return;
        }
        let changes = self.aggregates.take_changes();
        if changes.is_empty() {
            return;
        }
        self.flush_exports();
        let own = self.own_prefixes();
        for change in &changes {
            match &change.route {
                Some(route) => self.aggregated.insert(change.prefix, canonical(route)),
                None => self.aggregated.remove(&change.prefix),
            };
        }
        self.renew_own(&own);
        for change in changes {
            self.report_own(&change.prefix);
        }
    }

    /// What the kernel's side is to know of a destination of the node: of an aggregate, that what
    /// no route within it takes is dropped, since it would come back by the default route (RFC 4632
    /// §5.1). Local routes are somebody else's work.
    pub(super) fn own_route(&self, slot: usize, id: DestId) -> Option<BestRoute> {
        let prefix = self.tables[slot].keys.prefix(id);
        let is_aggregate =
            self.aggregated.contains_key(&prefix) && !self.locals.contains_key(&prefix);
        is_aggregate.then(|| BestRoute {
            source: RouteSource::Local,
            next_hops: Vec::new(),
            discard: Some(Forwarding::Unreachable),
            peers: Vec::new(),
            stale: false,
        })
    }

    /// The attributes of an aggregate that is there.
    pub(super) fn aggregate(&self, prefix: &IpNet) -> Option<&[u8]> {
        self.aggregated.get(prefix).map(|bytes| &**bytes)
    }

    /// Has it looked at again what is announced of a destination.
    fn look_again(&mut self, slot: usize, id: DestId) {
        let was = self
            .best_path(slot, id)
            .map(BestKey::from)
            .filter(|_| self.transit);
        let attributes = &mut self.attributes;
        self.tables[slot].mark(id, || {
            if let Some(was) = was {
                attributes.hold(was.attributes, 1);
            }
            was
        });
    }

    fn own_prefixes(&self) -> BTreeSet<IpNet> {
        let aggregates = self.aggregated.keys();
        self.locals.keys().chain(aggregates).copied().collect()
    }

    /// Works other local routes or aggregates into the tables and what is announced, in place of
    /// the prefixes there were.
    fn renew_own(&mut self, before: &BTreeSet<IpNet>) {
        let now = self.own_prefixes();
        for prefix in now.difference(before) {
            let Some(table) = table_of(&mut self.tables, prefix) else {
                continue;
            };
            if let Some(id) = table.keys.find_or_add(*prefix) {
                table.grow();
                table.local.insert(id);
                if table.paths(id).0.is_some() && self.config.install_routes {
                    table.report(id);
                }
            }
        }
        // The groups find what is gone by its number, which therefore goes last.
        self.exports.set_views(
            &self.locals,
            &self.aggregated,
            self.neighbours.ids(),
            &self.tables,
        );
        for prefix in before.difference(&now) {
            let Some(table) = table_of(&mut self.tables, prefix) else {
                continue;
            };
            if let Some(id) = table.keys.find(prefix) {
                table.local.remove(id);
                if table.paths(id).0.is_none() {
                    table.dismiss(id);
                } else if self.config.install_routes {
                    table.report(id);
                }
            }
        }
    }

    fn report_own(&mut self, prefix: &IpNet) {
        if let Some((slot, id)) = self.find(prefix)
            && self.config.install_routes
        {
            self.tables[slot].report(id);
        }
    }
}

fn canonical(attributes: &PathAttributes) -> Arc<[u8]> {
    let mut bytes = Vec::new();
    attributes.encode(true, &mut bytes);
    bytes.into()
}
