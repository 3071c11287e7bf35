// SPDX-License-Identifier: Apache-2.0
//! Following a route through a policy, statement by statement and condition by condition, as the
//! policy reads; slow and complete. The compiled policy is checked against it.

use std::net::IpAddr;

use bgp_wire::{AsPath, PathAttributes};
use ipnet::IpNet;
use serde::Serialize;

use super::as_path::{Matcher, PathText};
use super::model::{Action, Condition, NumberRange, Quantifier, Verdict};
use super::{DEFAULT_LOCAL_PREF, Policy, RouteContext};

/// What a statement did with a route.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StatementVerdict {
    /// Its place in the policy, from 0.
    pub at: usize,
    /// Its name.
    pub statement: String,
    /// What it did.
    pub outcome: StatementOutcome,
}

/// What a statement did with a route.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum StatementOutcome {
    /// It matched, and this followed.
    Matched(Action),
    /// It did not match; these conditions did not hold.
    Failed(Vec<ConditionFailure>),
    /// An earlier statement had decided.
    NotReached,
}

/// A condition that did not hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ConditionFailure {
    /// The condition, by its field in manifests.
    pub condition: &'static str,
    /// What the route has.
    pub found: String,
    /// What was asked for.
    pub wanted: String,
}

impl Policy {
    /// Follows a route: what each statement did with it, and what became of it.
    pub fn trace(
        &self,
        attributes: &PathAttributes,
        route: &RouteContext<'_>,
        prefix: &IpNet,
    ) -> (Vec<StatementVerdict>, Verdict) {
        let mut decided = None;
        let mut verdicts = Vec::new();
        for (at, statement) in self.config().statements().iter().enumerate() {
            let outcome = if decided.is_some() {
                StatementOutcome::NotReached
            } else {
                let conditions = statement.conditions.iter();
                let failures: Vec<ConditionFailure> = conditions
                    .filter_map(|condition| failure(condition, attributes, route, prefix))
                    .collect();
                if failures.is_empty() {
                    if let Action::Final(verdict) = statement.action {
                        decided = Some(verdict);
                    }
                    StatementOutcome::Matched(statement.action)
                } else {
                    StatementOutcome::Failed(failures)
                }
            };
            verdicts.push(StatementVerdict {
                at,
                statement: statement.name.clone(),
                outcome,
            });
        }
        (
            verdicts,
            decided.unwrap_or_else(|| self.config().default_verdict()),
        )
    }
}

/// Whether a condition that is not about the prefix holds.
pub(super) fn holds(
    condition: &Condition,
    attributes: &PathAttributes,
    route: &RouteContext<'_>,
) -> bool {
    let empty = AsPath::default();
    let path = attributes.as_path.as_ref().unwrap_or(&empty);
    let has = |ranges: &[NumberRange], number: u32| ranges.iter().any(|r| r.contains(number));
    match condition {
        // Asked for with a prefix only.
        Condition::Prefixes(_) => false,
        Condition::Families(families) => families.contains(&route.family),
        Condition::AsPaths(patterns) => {
            let text = PathText::new(path);
            patterns
                .iter()
                .any(|p| Matcher::unprepared(p).is_match(&text))
        }
        Condition::AsPathLength(range) => {
            range.contains(path.hop_count().try_into().unwrap_or(u32::MAX))
        }
        Condition::OriginAsns(ranges) => path.origin().is_some_and(|asn| has(ranges, asn.0)),
        Condition::NeighbourAsns(ranges) => path.neighbour().is_some_and(|asn| has(ranges, asn.0)),
        Condition::PeerAsns(ranges) => has(ranges, route.peer_asn.0),
        Condition::Communities {
            quantifier,
            patterns,
        } => {
            let mut found = patterns.iter().map(|pattern| pattern.is_in(attributes));
            match quantifier {
                Quantifier::Any => found.any(|is_in| is_in),
                Quantifier::All => found.all(|is_in| is_in),
                Quantifier::None => !found.any(|is_in| is_in),
            }
        }
        Condition::NextHops(prefixes) => route
            .next_hop
            .is_some_and(|hop| prefixes.iter().any(|prefix| prefix.contains(&hop))),
        Condition::Origins(origins) => attributes.origin.is_some_and(|o| origins.contains(&o)),
        Condition::LocalPref(range) => {
            range.contains(attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF))
        }
        Condition::Med(range) => range.contains(attributes.med.unwrap_or(0)),
        Condition::Sources(sources) => sources.contains(&route.source),
        Condition::Peers(peers) => route.learned_from.is_some_and(|peer| peers.contains(peer)),
    }
}

/// What is wrong with a route in the eyes of a condition; `None` when it holds.
fn failure(
    condition: &Condition,
    attributes: &PathAttributes,
    route: &RouteContext<'_>,
    prefix: &IpNet,
) -> Option<ConditionFailure> {
    let holds = match condition {
        Condition::Prefixes(ranges) => ranges.iter().any(|range| range.contains(prefix)),
        other => holds(other, attributes, route),
    };
    if holds {
        return None;
    }
    let path = attributes.as_path.as_ref();
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
    let (condition, found, wanted) = match condition {
        Condition::Prefixes(ranges) => ("prefixes", prefix.to_string(), list(ranges)),
        Condition::Families(families) => ("families", route.family.to_string(), list(families)),
        Condition::AsPaths(patterns) => {
            let path = path.map_or(String::new(), ToString::to_string);
            ("asPaths", format!("\"{path}\""), list(patterns))
        }
        Condition::AsPathLength(range) => {
            let length = path.map_or(0, AsPath::hop_count);
            ("asPathLength", length.to_string(), range.to_string())
        }
        Condition::OriginAsns(ranges) => {
            let asn = path.and_then(AsPath::origin).map(|asn| asn.to_string());
            ("originASNs", or_none(asn), list(ranges))
        }
        Condition::NeighbourAsns(ranges) => {
            let asn = path.and_then(AsPath::neighbour).map(|asn| asn.to_string());
            ("neighborASNs", or_none(asn), list(ranges))
        }
        Condition::PeerAsns(ranges) => ("peerASNs", route.peer_asn.to_string(), list(ranges)),
        Condition::Communities {
            quantifier,
            patterns,
        } => {
            let name = match quantifier {
                Quantifier::Any => "communities.any",
                Quantifier::All => "communities.all",
                Quantifier::None => "communities.none",
            };
            (name, communities(attributes), list(patterns))
        }
        Condition::NextHops(prefixes) => {
            let hop = route.next_hop.map(|hop: IpAddr| hop.to_string());
            ("nextHops", or_none(hop), list(prefixes))
        }
        Condition::Origins(origins) => {
            let origin = attributes.origin.map(|origin| origin.to_string());
            ("origins", or_none(origin), list(origins))
        }
        Condition::LocalPref(range) => {
            let found = match attributes.local_pref {
                Some(value) => value.to_string(),
                None => format!("none, taken as {DEFAULT_LOCAL_PREF}"),
            };
            ("localPreference", found, range.to_string())
        }
        Condition::Med(range) => {
            let found = match attributes.med {
                Some(value) => value.to_string(),
                None => "none, taken as 0".to_owned(),
            };
            ("med", found, range.to_string())
        }
        Condition::Sources(sources) => ("sources", route.source.to_string(), list(sources)),
        Condition::Peers(peers) => {
            let peer = route.learned_from.map(ToString::to_string);
            ("peers", or_none(peer), list(peers))
        }
    };
    Some(ConditionFailure {
        condition,
        found,
        wanted,
    })
}

/// Most entries of a list that are shown.
const SHOWN: usize = 5;

fn list<T: ToString>(entries: &[T]) -> String {
    let mut shown: Vec<String> = entries
        .iter()
        .take(SHOWN)
        .map(ToString::to_string)
        .collect();
    if entries.len() > SHOWN {
        shown.push(format!("and {} more", entries.len() - SHOWN));
    }
    shown.join(", ")
}

fn communities(attributes: &PathAttributes) -> String {
    let standard = attributes.communities.iter().map(ToString::to_string);
    let large = attributes.large_communities.iter().map(ToString::to_string);
    let extended = attributes.extended_communities.iter();
    let all: Vec<String> = standard
        .chain(large)
        .chain(extended.map(ToString::to_string))
        .collect();
    if all.is_empty() {
        "none".to_owned()
    } else {
        all.join(" ")
    }
}
