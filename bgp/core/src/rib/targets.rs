// SPDX-License-Identifier: Apache-2.0
//! Which routes of VPNs a neighbour wants, and which this speaker does (RFC 4684).
//!
//! A neighbour that agreed on the family of route target membership is sent the VPN routes that
//! have a route target it asked for, and no other. Where graceful restart was agreed on, and with it
//! End-of-RIB, it is sent none until it has said all it asks for, or [`PATIENCE`] is over, and no
//! End-of-RIB of VPN families either (RFC 4684 §6).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp_wire::{AttributeCode, Destination, ExtendedCommunity, RawAttributes, RouteTargetPrefix};
use router_types::{Family, Safi};

use super::{PeerId, ROUTE_TARGETS, Rib};

/// How long a neighbour may take to say which routes it wants. RFC 4684 §6: by default 60 s.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The route targets a neighbour wants.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Targets {
    /// Every route, with targets or without.
    all: bool,
    exact: BTreeSet<[u8; 8]>,
    /// Those of fewer bits.
    prefixes: BTreeSet<RouteTargetPrefix>,
}

/// What is known of a neighbour's wishes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Wanted {
    /// The family was not agreed on: every route goes.
    #[default]
    Everything,
    /// Nothing goes before it has said what it wants.
    Waiting,
    /// What it asked for.
    Targets(Arc<Targets>),
}

impl Targets {
    fn add(&mut self, target: RouteTargetPrefix) {
        if target.is_default() {
            self.all = true;
        } else if target.bits() == 96 {
            // Of which AS the members are makes no difference to the routes they want.
            let [_, _, _, _, exact @ ..] = target.octets();
            self.exact.insert(exact);
        } else {
            self.prefixes.insert(target);
        }
    }

    fn wants(&self, target: ExtendedCommunity) -> bool {
        self.exact.contains(&target.0) || self.prefixes.iter().any(|p| p.covers(target))
    }
}

impl Wanted {
    /// Whether a route of a VPN goes, by its attributes.
    pub(super) fn takes(&self, attributes: &[u8]) -> bool {
        let targets = match self {
            Wanted::Everything => return true,
            Wanted::Waiting => return false,
            Wanted::Targets(targets) if targets.all => return true,
            Wanted::Targets(targets) => targets,
        };
        let mut lists = RawAttributes::new(attributes)
            .flatten()
            .filter(|attribute| attribute.code == AttributeCode::EXTENDED_COMMUNITIES);
        lists.any(|list| {
            let communities = list.value.as_chunks::<8>().0;
            let mut communities = communities.iter().copied().map(ExtendedCommunity);
            communities.any(|c| c.is_route_target() && targets.wants(c))
        })
    }
}

impl Rib {
    /// A session came up: says how long its VPN routes wait.
    pub(super) fn await_targets(&mut self, id: PeerId, now: Instant) {
        let Some(neighbour) = self.neighbours.get_mut(id) else {
            return;
        };
        let session = neighbour.session.as_ref();
        let families = session.map_or(&[][..], |session| &session.families);
        let asks = families.iter().find(|f| f.family == Family::ROUTE_TARGET);
        neighbour.has_targets = asks.is_some();
        // RFC 4684 §6 wants the marker whatever was agreed on; those who know it from graceful
        // restart alone send none without.
        let marks_end = asks.is_some_and(|family| family.graceful);
        neighbour.targets_until = marks_end.then(|| now + PATIENCE);
    }

    /// The neighbour has said all it wants, or had its time.
    pub(super) fn targets_are_known(&mut self, id: PeerId) {
        if let Some(neighbour) = self.neighbours.get_mut(id)
            && neighbour.targets_until.take().is_some()
        {
            self.wishing.insert(id);
        }
        self.forget_what_was_asked_before(id);
    }

    /// What a neighbour wants, out of what it said. Looks at every membership.
    pub(super) fn wanted(&self, id: PeerId) -> Wanted {
        let Some(neighbour) = self.neighbours.get(id) else {
            return Wanted::Everything;
        };
        if !neighbour.has_targets {
            return Wanted::Everything;
        }
        if neighbour.targets_until.is_some() {
            return Wanted::Waiting;
        }
        let table = &self.tables[ROUTE_TARGETS];
        let mut targets = Targets::default();
        for target in &neighbour.asked_before {
            targets.add(*target);
        }
        for dest in table.having(|path| path.peer == id && path.rejected.is_none()) {
            if let Destination::RouteTarget(target) = table.keys.destination(dest) {
                targets.add(target);
            }
        }
        Wanted::Targets(Arc::new(targets))
    }

    /// Has neighbours sent what they have come to want, and what they do not any more withdrawn.
    pub(super) fn grant_wishes(&mut self) {
        for id in std::mem::take(&mut self.wishing) {
            let waits = self
                .neighbours
                .get(id)
                .is_some_and(|n| n.targets_until.is_some());
            if !waits {
                let wanted = self.wanted(id);
                self.with_exports(|exports, from| exports.set_wanted(id, wanted, from));
            }
        }
    }

    /// Asks for the routes this speaker wants, as configured.
    pub(super) fn renew_membership(&mut self) {
        let asn = self.config.local_asn();
        let wanted: BTreeSet<RouteTargetPrefix> = match &self.config.route_targets {
            None => BTreeSet::from([RouteTargetPrefix::DEFAULT]),
            Some(targets) => {
                let targets = targets.iter().map(|octets| ExtendedCommunity(*octets));
                targets.map(|t| RouteTargetPrefix::new(asn, t)).collect()
            }
        };
        if wanted == self.membership {
            return;
        }
        let before = std::mem::replace(&mut self.membership, wanted);
        self.flush_exports();
        let table = &mut self.tables[ROUTE_TARGETS];
        for target in self.membership.difference(&before) {
            if let Some(id) = table.keys.find_or_add(Destination::RouteTarget(*target)) {
                table.grow();
                table.local.insert(id);
                self.exports.force(ROUTE_TARGETS, id);
            }
        }
        for target in before.difference(&self.membership) {
            let destination = Destination::RouteTarget(*target);
            if let Some(id) = table.keys.find_destination(&destination) {
                table.local.remove(id);
                self.exports.force(ROUTE_TARGETS, id);
                if table.paths(id).0.is_none() {
                    table.dismiss(id);
                }
            }
        }
    }
}

/// Whether routes of a family go to those alone who ask for them.
pub(super) fn is_vpn(family: Family) -> bool {
    family.safi == Safi::MPLS_VPN
}

#[cfg(test)]
mod tests {
    use bgp_wire::PathAttributes;
    use router_types::Asn;

    use super::*;

    fn bytes(targets: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        PathAttributes {
            extended_communities: targets.iter().map(|t| t.parse().unwrap()).collect(),
            ..PathAttributes::default()
        }
        .encode(true, &mut out);
        out
    }

    #[test]
    fn a_route_goes_where_one_of_its_targets_is_wanted() {
        let mut targets = Targets::default();
        targets.add(RouteTargetPrefix::new(
            Asn(65001),
            "rt:65000:1".parse().unwrap(),
        ));
        let wanted = Wanted::Targets(Arc::new(targets.clone()));
        assert!(wanted.takes(&bytes(&["rt:65000:1"])));
        assert!(wanted.takes(&bytes(&["soo:65000:9", "rt:65000:2", "rt:65000:1"])));
        assert!(!wanted.takes(&bytes(&["soo:65000:1", "rt:65000:2"])));
        assert!(!wanted.takes(&bytes(&[])));
        assert!(Wanted::Everything.takes(&bytes(&[])));
        assert!(!Wanted::Waiting.takes(&bytes(&["rt:65000:1"])));
        targets.add(RouteTargetPrefix::DEFAULT);
        assert!(Wanted::Targets(Arc::new(targets)).takes(&bytes(&[])));
    }
}
