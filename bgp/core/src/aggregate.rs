// SPDX-License-Identifier: Apache-2.0
//! Aggregation of routes (RFC 4271 §9.2.2.2): one route for a prefix as long as there are routes
//! within it.
//!
//! [`Aggregates`] is told of every route that is used ([`Aggregates::set`]) and says which aggregates
//! come, change and go ([`Aggregates::take_changes`]), and which routes an aggregate stands for so
//! that they need not be advertised ([`Aggregates::is_suppressed`]). The caller hands in the routes
//! of its tables, local and learned, but no aggregates: an aggregate contributes to no other. The
//! next hop is the caller's work: this speaker itself.
//!
//! # The merge
//!
//! | attribute | of the aggregate |
//! |---|---|
//! | ORIGIN | the worst of the contributors': INCOMPLETE before EGP before IGP |
//! | AS_PATH | empty, so that this AS is the origin. AS_SETs are not made (RFC 9774), and a common beginning of the contributors' paths would name an origin that changes as they do |
//! | ATOMIC_AGGREGATE | when a contributor has it, or a path that the aggregate leaves out |
//! | AGGREGATOR | this speaker |
//! | LOCAL_PREF, MULTI_EXIT_DISC | absent, as for any route of the node itself. Deviation: routes of different MULTI_EXIT_DISC are aggregated (the RFC forbids it), because whoever configures an aggregate means all that is within |
//! | communities | those of all contributors together (RFC 1997, RFC 8092 §6, RFC 4360), see below |
//! | ONLY_TO_CUSTOMER | when every contributor has it: their AS number where it is one, else this AS's |
//! | everything else | absent |
//!
//! Deviation from "those of all": GRACEFUL_SHUTDOWN, LLGR_STALE and NO_LLGR stay only if every
//! contributor has them, as one leaving contributor does not make the aggregate leave; so do
//! NO_EXPORT, NO_ADVERTISE, NO_EXPORT_SUBCONFED and NO_PEER, as one route that is to stay must not
//! keep the others, which the aggregate stands for, from being reached. The same holds for
//! ONLY_TO_CUSTOMER, of which RFC 9234 says nothing for aggregates: one of routes that are all for
//! customers must not reach providers and peers by losing the mark (§5: it "MUST be preserved
//! unchanged"), and a customer's route within must not be hidden from them. BLACKHOLE
//! and ACCEPT_OWN never stay: an aggregate that is dropped would drop more than was asked for. The
//! link bandwidth is a contributor's own.
//!
//! # Cost
//!
//! Every route within an aggregate is kept with a shared summary of its attributes. A change costs
//! its communities times the number of aggregates around it, and nothing depends on the number of
//! contributors.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use bgp_wire::{Aggregator, AsPath, Community, Origin, PathAttributes};
use ipnet::IpNet;
use router_types::Asn;

use crate::config::Aggregate;
use crate::policy::AnyCommunity;

/// Communities that stay only if all contributors have them.
const IF_ALL: [Community; 7] = [
    Community::GRACEFUL_SHUTDOWN,
    Community::LLGR_STALE,
    Community::NO_LLGR,
    Community::NO_EXPORT,
    Community::NO_ADVERTISE,
    Community::NO_EXPORT_SUBCONFED,
    Community::NO_PEER,
];

/// Communities that never stay.
const NEVER: [Community; 2] = [Community::BLACKHOLE, Community::ACCEPT_OWN];

/// What is new about an aggregate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AggregateChange {
    /// Its destination.
    pub prefix: IpNet,
    /// Its attributes; `None` when there is nothing within it any more.
    pub route: Option<PathAttributes>,
}

/// The aggregates of an instance.
#[derive(Debug)]
pub struct Aggregates {
    aggregator: Aggregator,
    aggregates: BTreeMap<IpNet, Counts>,
    /// The distinct lengths of their prefixes, ascending; IPv4 and IPv6 together.
    lengths: Vec<u8>,
    contributors: BTreeMap<IpNet, Arc<Summary>>,
    summaries: BTreeSet<Arc<Summary>>,
    /// Aggregates that may have changed since [`Aggregates::take_changes`].
    dirty: BTreeSet<IpNet>,
    /// What was last said of aggregates that are there.
    told: BTreeMap<IpNet, PathAttributes>,
}

/// One aggregate and what its contributors have, counted.
#[derive(Debug, Default)]
struct Counts {
    summary_only: bool,
    contributors: u32,
    /// By the codes of ORIGIN.
    origins: [u32; 3],
    /// Contributors with ATOMIC_AGGREGATE or a path that the aggregate leaves out.
    atomic: u32,
    /// Contributors with ONLY_TO_CUSTOMER, by its AS number.
    only_to_customer: BTreeMap<Asn, u32>,
    communities: BTreeMap<AnyCommunity, u32>,
}

/// What an aggregate takes from a contributor.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Summary {
    origin: Origin,
    atomic: bool,
    only_to_customer: Option<Asn>,
    communities: Vec<AnyCommunity>,
}

impl Aggregates {
    /// None yet, made by this speaker.
    pub fn new(asn: Asn, router_id: Ipv4Addr) -> Aggregates {
        Aggregates {
            aggregator: Aggregator { asn, router_id },
            aggregates: BTreeMap::new(),
            lengths: Vec::new(),
            contributors: BTreeMap::new(),
            summaries: BTreeSet::new(),
            dirty: BTreeSet::new(),
            told: BTreeMap::new(),
        }
    }

    /// Takes the aggregates to make, in place of those before. Returns the known contributors whose
    /// being suppressed may have changed, and whether there is an aggregate that was not there: the
    /// caller then goes through its routes again and sets those that [`Aggregates::concerns`]
    /// names, and looks anew at whether they are suppressed.
    pub fn configure(&mut self, wanted: &[Aggregate]) -> (Vec<IpNet>, bool) {
        let before: BTreeSet<IpNet> = self.suppressed().collect();
        let wanted: BTreeMap<IpNet, bool> = wanted
            .iter()
            .map(|aggregate| (aggregate.prefix.trunc(), aggregate.summary_only))
            .collect();
        let gone = self.aggregates.keys().filter(|p| !wanted.contains_key(*p));
        self.dirty.extend(gone);
        self.aggregates.retain(|p, _| wanted.contains_key(p));
        let mut has_new = false;
        for (prefix, summary_only) in wanted {
            let counts = self.aggregates.entry(prefix).or_insert_with(|| {
                has_new = true;
                Counts::default()
            });
            counts.summary_only = summary_only;
        }
        self.lengths = self.aggregates.keys().map(IpNet::prefix_len).collect();
        self.lengths.sort_unstable();
        self.lengths.dedup();
        let after: BTreeSet<IpNet> = self.suppressed().collect();
        let changed = before.symmetric_difference(&after).copied().collect();
        if has_new {
            // Contributors are set again by the caller; counted from nothing, none counts twice.
            self.contributors.clear();
            self.summaries.clear();
            for (prefix, counts) in &mut self.aggregates {
                let summary_only = counts.summary_only;
                *counts = Counts {
                    summary_only,
                    ..Counts::default()
                };
                self.dirty.insert(*prefix);
            }
        } else {
            let outside: Vec<IpNet> = self
                .contributors
                .keys()
                .filter(|prefix| self.around(prefix).next().is_none())
                .copied()
                .collect();
            for prefix in outside {
                self.contributors.remove(&prefix);
            }
            self.forget_unused();
        }
        (changed, has_new)
    }

    /// Whether a route to `prefix` is within an aggregate, so that [`Aggregates::set`] has to know.
    #[inline]
    pub fn concerns(&self, prefix: &IpNet) -> bool {
        !self.lengths.is_empty() && self.around(prefix).next().is_some()
    }

    /// A route is used with these attributes, or none is any more. Of a prefix with several paths,
    /// the best one's.
    pub fn set(&mut self, prefix: IpNet, attributes: Option<&PathAttributes>) {
        let around: Vec<IpNet> = self.around(&prefix).collect();
        if around.is_empty() {
            return;
        }
        let new = attributes.map(|attributes| self.shared(Summary::new(attributes)));
        let old = match &new {
            Some(new) => self.contributors.insert(prefix, new.clone()),
            None => self.contributors.remove(&prefix),
        };
        if old == new {
            return;
        }
        for outer in around {
            if let Some(counts) = self.aggregates.get_mut(&outer) {
                if let Some(new) = &new {
                    counts.add(new);
                }
                if let Some(old) = &old {
                    counts.remove(old);
                }
                self.dirty.insert(outer);
            }
        }
        if let Some(old) = old
            && Arc::strong_count(&old) <= 2
        {
            // The set's and the one at hand.
            self.summaries.remove(&old);
        }
    }

    /// Whether an aggregate is advertised in place of a route.
    #[inline]
    pub fn is_suppressed(&self, prefix: &IpNet) -> bool {
        self.suppressing(prefix).is_some()
    }

    /// The aggregate that is advertised in place of a route, the widest one.
    #[inline]
    pub fn suppressing(&self, prefix: &IpNet) -> Option<IpNet> {
        if self.lengths.is_empty() || !self.contributors.contains_key(prefix) {
            return None;
        }
        self.around(prefix).find(|outer| {
            let counts = self.aggregates.get(outer);
            counts.is_some_and(|counts| counts.summary_only)
        })
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.aggregates.is_empty()
    }

    /// Whether [`Aggregates::take_changes`] may have something.
    #[inline]
    pub fn has_changes(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// What is new since the last call, in the order of prefixes.
    pub fn take_changes(&mut self) -> Vec<AggregateChange> {
        let mut changes = Vec::new();
        for prefix in std::mem::take(&mut self.dirty) {
            let counts = self.aggregates.get(&prefix);
            let route = counts.and_then(|counts| counts.route(self.aggregator));
            if route.as_ref() == self.told.get(&prefix) {
                continue;
            }
            match &route {
                Some(route) => self.told.insert(prefix, route.clone()),
                None => self.told.remove(&prefix),
            };
            changes.push(AggregateChange { prefix, route });
        }
        changes
    }

    /// How many routes are within an aggregate; `None` for a prefix that is none.
    pub fn contributors(&self, aggregate: &IpNet) -> Option<u32> {
        self.aggregates.get(aggregate).map(|c| c.contributors)
    }

    /// The aggregates a prefix is within, the widest first; not the prefix itself.
    fn around(&self, prefix: &IpNet) -> impl Iterator<Item = IpNet> {
        let lengths = self
            .lengths
            .iter()
            .take_while(|len| **len < prefix.prefix_len());
        lengths.filter_map(|len| {
            let outer = IpNet::new(prefix.addr(), *len).ok()?.trunc();
            self.aggregates.contains_key(&outer).then_some(outer)
        })
    }

    fn suppressed(&self) -> impl Iterator<Item = IpNet> {
        let contributors = self.contributors.keys().copied();
        contributors.filter(|prefix| self.is_suppressed(prefix))
    }

    /// The one copy of a summary.
    fn shared(&mut self, summary: Summary) -> Arc<Summary> {
        match self.summaries.get(&summary) {
            Some(known) => known.clone(),
            None => {
                let new = Arc::new(summary);
                self.summaries.insert(new.clone());
                new
            }
        }
    }

    fn forget_unused(&mut self) {
        self.summaries
            .retain(|summary| Arc::strong_count(summary) > 1);
    }
}

impl Summary {
    fn new(attributes: &PathAttributes) -> Summary {
        let has_path = |path: &AsPath| !path.segments.is_empty();
        let standard = attributes.communities.iter().copied();
        let large = attributes.large_communities.iter().copied();
        let extended = attributes.extended_communities.iter().copied();
        let mut communities: Vec<AnyCommunity> = standard
            .filter(|community| !NEVER.contains(community))
            .map(AnyCommunity::Standard)
            .collect();
        communities.extend(large.map(AnyCommunity::Large));
        communities.extend(
            extended
                .filter(|community| community.link_bandwidth().is_none())
                .map(AnyCommunity::Extended),
        );
        communities.sort_unstable();
        communities.dedup();
        Summary {
            origin: attributes.origin.unwrap_or(Origin::Incomplete),
            atomic: attributes.atomic_aggregate
                || attributes.as_path.as_ref().is_some_and(has_path),
            only_to_customer: attributes.only_to_customer,
            communities,
        }
    }
}

impl Counts {
    fn add(&mut self, summary: &Summary) {
        self.contributors += 1;
        self.origins[summary.origin as usize] += 1;
        self.atomic += u32::from(summary.atomic);
        if let Some(asn) = summary.only_to_customer {
            *self.only_to_customer.entry(asn).or_default() += 1;
        }
        for community in &summary.communities {
            *self.communities.entry(*community).or_default() += 1;
        }
    }

    /// Takes out what was added before.
    fn remove(&mut self, summary: &Summary) {
        self.contributors -= 1;
        self.origins[summary.origin as usize] -= 1;
        self.atomic -= u32::from(summary.atomic);
        if let Some(asn) = summary.only_to_customer
            && let Some(count) = self.only_to_customer.get_mut(&asn)
        {
            *count -= 1;
            if *count == 0 {
                self.only_to_customer.remove(&asn);
            }
        }
        for community in &summary.communities {
            if let Some(count) = self.communities.get_mut(community) {
                *count -= 1;
                if *count == 0 {
                    self.communities.remove(community);
                }
            }
        }
    }

    /// The mark of an aggregate of this AS.
    fn only_to_customer(&self, own: Asn) -> Option<Asn> {
        let marked: u32 = self.only_to_customer.values().sum();
        if marked < self.contributors {
            return None;
        }
        let mut asns = self.only_to_customer.keys();
        asns.next().map(|first| match asns.next() {
            Some(_) => own,
            None => *first,
        })
    }

    /// The aggregate's attributes; `None` without a contributor.
    fn route(&self, aggregator: Aggregator) -> Option<PathAttributes> {
        if self.contributors == 0 {
            return None;
        }
        let worst = self.origins.iter().rposition(|count| *count > 0)?;
        let mut route = PathAttributes {
            origin: Origin::from_code(worst as u8),
            as_path: Some(AsPath::default()),
            atomic_aggregate: self.atomic > 0,
            aggregator: Some(aggregator),
            only_to_customer: self.only_to_customer(aggregator.asn),
            ..PathAttributes::default()
        };
        // In the order of the map, which is that of each list.
        for (community, count) in &self.communities {
            match community {
                AnyCommunity::Standard(c) if IF_ALL.contains(c) && *count < self.contributors => {}
                AnyCommunity::Standard(c) => route.communities.push(*c),
                AnyCommunity::Large(c) => route.large_communities.push(*c),
                AnyCommunity::Extended(c) => route.extended_communities.push(*c),
            }
        }
        Some(route)
    }
}
