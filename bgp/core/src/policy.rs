// SPDX-License-Identifier: Apache-2.0
//! Routing policy: which routes are taken or sent, and what is changed in them.
//!
//! A [`PolicyConfig`] is what the operator says: statements in an order, each with conditions, with
//! changes and with what happens next. [`Policy::compile`] makes it a decision structure:
//!
//! - [`Policy::judge`] looks at everything but the prefix, once for a set of attributes and where
//!   they come from. Each distinct condition is tried once, whatever number of statements share
//!   it. The result is the set of statements that may match.
//! - [`Judgement::decide`] then takes a prefix. One lookup in an index over the ranges of all
//!   statements gives those that match (see `prefix_index`); its cost does not grow with the number
//!   of ranges. Where no prefix can make a difference any more there is no lookup at all.
//! - [`Judgement::apply`] makes the changes. Equal [`Decision`]s make equal changes of equal
//!   attributes, so the outcome may be kept.
//!
//! # Meaning
//!
//! Statements are tried in order. A statement matches when all its conditions hold. Its changes
//! are noted; then it accepts, rejects or has the next one tried. What no final statement matches
//! gets the policy's default. Changes are made only to what is accepted, in the order of
//! statements.
//!
//! Conditions look at the route as it came to the policy, never at what an earlier statement
//! changes. So the order of statements decides what is done, not what is seen.
//!
//! # Left out
//!
//! Validity by RPKI (RFC 6811: there is no source of it yet), calls of policies by policies, and
//! weights.
//!
//! Nothing here panics on any route, and nothing takes longer than its input is long.

mod apply;
mod as_path;
mod community;
mod form;
mod model;
mod prefix_index;
mod statements;
#[cfg(test)]
mod tests;
mod trace;
pub mod well_known;

use std::net::IpAddr;

pub use bgp_wire::Origin;
use bgp_wire::PathAttributes;
use ipnet::IpNet;
use router_types::{Asn, Family};

pub use community::{Administrator, CommunityPattern, CommunityPatternError};
pub use model::{
    Action, AnyCommunity, Change, CommunityKind, Condition, MAX_PREPEND, MAX_STATEMENTS,
    NextHopChange, NumberRange, PolicyConfig, PolicyError, PolicyName, Quantifier, RouteOrigin,
    Statement, Verdict,
};
pub use statements::StatementSet;
pub use trace::{ConditionFailure, StatementOutcome, StatementVerdict};

use as_path::{Matcher, PathText};
use prefix_index::PrefixIndex;

use crate::config::PeerName;

/// LOCAL_PREF where it is absent; the decision process assumes the same.
const DEFAULT_LOCAL_PREF: u32 = 100;

/// What a policy may look at besides attributes and prefix.
#[derive(Clone, Copy, Debug)]
pub struct RouteContext<'a> {
    /// The family of the route.
    pub family: Family,
    /// The next hop as announced; `None` for a route of the node itself.
    pub next_hop: Option<IpAddr>,
    /// Where the route comes from.
    pub source: RouteOrigin,
    /// The neighbour it was learned from; `None` for a route of the node itself.
    pub learned_from: Option<&'a PeerName>,
    /// The AS of the neighbour the policy stands before: on import the one that sent the route, on
    /// export the one it would go to.
    pub peer_asn: Asn,
    /// The AS this speaker has towards that neighbour.
    pub local_asn: Asn,
}

/// What becomes of a route. Small, so that it can be a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Decision {
    /// Not taken, or not sent: by the statement at this place, or by the policy's default.
    Reject(Option<u8>),
    /// Taken, or sent, with the changes of these statements.
    Accept(StatementSet),
}

impl Decision {
    /// Whether the route is taken or sent.
    pub const fn is_accepted(self) -> bool {
        matches!(self, Decision::Accept(_))
    }

    /// Whether it is so without any change.
    pub fn is_unchanged(self) -> bool {
        self == Decision::Accept(StatementSet::EMPTY)
    }
}

/// A condition and the statements that need it.
#[derive(Debug)]
struct Test {
    condition: Condition,
    /// The patterns of [`Condition::AsPaths`], ready to use.
    matchers: Vec<Matcher>,
    needed_by: StatementSet,
}

/// A compiled policy. Immutable; users share it.
#[derive(Debug)]
pub struct Policy {
    config: PolicyConfig,
    /// Each distinct condition that is not about the prefix.
    tests: Vec<Test>,
    looks_at_path: bool,
    prefixes: PrefixIndex,
    /// Statements with a condition about the prefix.
    prefix_bound: StatementSet,
    all: StatementSet,
    accepting: StatementSet,
    rejecting: StatementSet,
    changing: StatementSet,
}

/// What a policy has to say of a set of attributes, before any prefix is known.
#[derive(Clone, Copy, Debug)]
pub struct Judgement<'p> {
    policy: &'p Policy,
    local_asn: Asn,
    /// The statements that match as far as the prefix lets them.
    possible: StatementSet,
    /// The decision, where no prefix makes a difference.
    settled: Option<Decision>,
}

impl Policy {
    /// Compiles a policy. Takes time in proportion to its size, and for each AS path pattern some
    /// milliseconds at most.
    ///
    /// # Errors
    /// What [`PolicyConfig::new`] refuses; a policy that was read from a recording may have it.
    pub fn compile(config: &PolicyConfig) -> Result<Policy, PolicyError> {
        config.check()?;
        let mut policy = Policy {
            config: config.clone(),
            tests: Vec::new(),
            looks_at_path: false,
            prefixes: PrefixIndex::default(),
            prefix_bound: StatementSet::EMPTY,
            all: StatementSet::first_ones(config.statements().len()),
            accepting: StatementSet::EMPTY,
            rejecting: StatementSet::EMPTY,
            changing: StatementSet::EMPTY,
        };
        let mut ranges = Vec::new();
        for (at, statement) in config.statements().iter().enumerate() {
            match statement.action {
                Action::Final(Verdict::Accept) => policy.accepting.insert(at),
                Action::Final(Verdict::Reject) => policy.rejecting.insert(at),
                Action::Continue => {}
            }
            if !statement.changes.is_empty() {
                policy.changing.insert(at);
            }
            for condition in &statement.conditions {
                match condition {
                    Condition::Prefixes(list) => {
                        policy.prefix_bound.insert(at);
                        ranges.extend(list.iter().map(|range| (range, at)));
                    }
                    other => policy.need(other, at),
                }
            }
        }
        policy.prefixes = PrefixIndex::new(ranges);
        Ok(policy)
    }

    fn need(&mut self, condition: &Condition, at: usize) {
        if let Some(test) = self.tests.iter_mut().find(|t| t.condition == *condition) {
            return test.needed_by.insert(at);
        }
        let matchers = match condition {
            Condition::AsPaths(patterns) => patterns.iter().map(Matcher::new).collect(),
            _ => Vec::new(),
        };
        self.looks_at_path |= !matchers.is_empty();
        let mut needed_by = StatementSet::EMPTY;
        needed_by.insert(at);
        self.tests.push(Test {
            condition: condition.clone(),
            matchers,
            needed_by,
        });
    }

    /// What was compiled.
    pub fn config(&self) -> &PolicyConfig {
        &self.config
    }

    /// Whether any statement looks at the prefix. Where none does, one decision goes for all
    /// prefixes of a set of attributes.
    pub fn depends_on_prefix(&self) -> bool {
        !self.prefix_bound.is_empty()
    }

    /// Whether any statement looks at the AS of the neighbour the policy stands before. Where none
    /// does, neighbours of different ASes may share what it decides.
    pub fn depends_on_peer_asn(&self) -> bool {
        let looks = |test: &Test| matches!(test.condition, Condition::PeerAsns(_));
        self.tests.iter().any(looks)
    }

    /// Looks at everything but the prefix: once for each set of attributes and context.
    pub fn judge<'p>(
        &'p self,
        attributes: &PathAttributes,
        route: &RouteContext<'_>,
    ) -> Judgement<'p> {
        let path = match (&attributes.as_path, self.looks_at_path) {
            (Some(path), true) => PathText::new(path),
            _ => PathText::default(),
        };
        let mut possible = self.all;
        for test in &self.tests {
            if possible.and(test.needed_by).is_empty() {
                continue;
            }
            let holds = match test.condition {
                Condition::AsPaths(_) => test.matchers.iter().any(|m| m.is_match(&path)),
                _ => trace::holds(&test.condition, attributes, route),
            };
            if !holds {
                possible = possible.without(test.needed_by);
            }
        }
        // Behind a final statement that needs no prefix nothing is looked at.
        let sure = possible.without(self.prefix_bound);
        if let Some(last) = sure.and(self.accepting.or(self.rejecting)).first() {
            possible = possible.and(StatementSet::first_ones(last + 1));
        }
        let settled = possible
            .and(self.prefix_bound)
            .is_empty()
            .then(|| self.conclude(possible));
        Judgement {
            policy: self,
            local_asn: route.local_asn,
            possible,
            settled,
        }
    }

    /// [`Judgement::apply`] for a decision that was made before. `local_asn` is the AS this speaker
    /// has towards the neighbour.
    pub fn apply(
        &self,
        decision: Decision,
        attributes: PathAttributes,
        local_asn: Asn,
    ) -> (PathAttributes, Option<NextHopChange>) {
        let statements = self.config.statements();
        match decision {
            Decision::Reject(_) => (attributes, None),
            Decision::Accept(applied) => {
                let changes = applied.iter().filter_map(|at| statements.get(at));
                apply::apply(
                    changes.flat_map(|statement| &statement.changes),
                    attributes,
                    local_asn,
                )
            }
        }
    }

    /// The decision when exactly these statements match.
    fn conclude(&self, matched: StatementSet) -> Decision {
        let last = matched.and(self.accepting.or(self.rejecting)).first();
        let is_accepted = match last {
            Some(at) => self.accepting.has(at),
            None => self.config.default_verdict() == Verdict::Accept,
        };
        if !is_accepted {
            return Decision::Reject(last.map(|at| at as u8));
        }
        let reached = match last {
            Some(at) => matched.and(StatementSet::first_ones(at + 1)),
            None => matched,
        };
        Decision::Accept(reached.and(self.changing))
    }
}

impl<'p> Judgement<'p> {
    /// What becomes of a route to `prefix`.
    #[inline]
    pub fn decide(&self, prefix: &IpNet) -> Decision {
        self.decide_counting(prefix, &mut 0)
    }

    /// The decision for every prefix, where the prefix makes no difference.
    #[inline]
    pub fn settled(&self) -> Option<Decision> {
        self.settled
    }

    /// As [`Judgement::decide`], and counts the steps of the search.
    #[inline]
    pub(super) fn decide_counting(&self, prefix: &IpNet, steps: &mut u32) -> Decision {
        if let Some(decision) = self.settled {
            return decision;
        }
        let policy = self.policy;
        let within = policy.prefixes.lookup(prefix, steps);
        let matched = self
            .possible
            .and(within.or(policy.all.without(policy.prefix_bound)));
        policy.conclude(matched)
    }

    /// The attributes an accepted decision leads to, and what becomes of the next hop (`None`: the
    /// session's own rule). For a rejected route nothing changes.
    pub fn apply(
        &self,
        decision: Decision,
        attributes: PathAttributes,
    ) -> (PathAttributes, Option<NextHopChange>) {
        self.policy.apply(decision, attributes, self.local_asn)
    }
}
