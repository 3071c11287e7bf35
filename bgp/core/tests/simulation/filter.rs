// SPDX-License-Identifier: Apache-2.0
//! Policies of neighbours: a few that differ in everything a policy can look at and change. What
//! they mean the model says by itself.

use bgp_core::config::{PolicyConfig, PolicyName, PrefixRange};
use bgp_core::policy::{
    Action, AnyCommunity, Change, CommunityKind, CommunityPattern, Condition, Quantifier,
    Statement, Verdict,
};
use serde::{Deserialize, Serialize};

use crate::topology::prefix;

/// A policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Filter {
    /// Takes everything as it is.
    Open,
    /// Marks routes for [`MARKED`] prefixes with one of [`MARKS`].
    Mark,
    /// The same, and prefers them.
    Prefer,
    /// Rejects routes with the community [`PICKED`].
    Pick,
    /// Rejects routes for [`DROPPED`] prefixes.
    Drop,
    /// Marks everything, and makes paths longer towards other ASes.
    Tag,
}

/// The direction a policy is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) enum Way {
    In,
    Out,
}

/// The prefixes that are marked, by number.
pub(crate) const MARKED: [u8; 2] = [0, 1];
/// The prefixes that are dropped, by revision.
pub(crate) const DROPPED: [[u8; 2]; 2] = [[2, 3], [0, 3]];
/// What routes are picked out by.
pub(crate) const PICKED: u32 = 64_701 << 16 | 7;
/// What is added to those for marked prefixes by revision, and to all that are tagged.
pub(crate) const MARKS: [u32; 2] = [64_701 << 16 | 9, 64_701 << 16 | 10];
pub(crate) const TAG: u32 = 64_701 << 16 | 11;
/// The LOCAL_PREF of those that are preferred.
pub(crate) const PREFERRED: u32 = 200;

impl Filter {
    /// Every one there is, in the form of a configuration of this revision.
    pub(crate) fn all(revision: usize) -> Vec<PolicyConfig> {
        let mut all = Vec::new();
        for filter in [
            Filter::Open,
            Filter::Mark,
            Filter::Prefer,
            Filter::Pick,
            Filter::Drop,
            Filter::Tag,
        ] {
            for inside in [false, true] {
                all.push(filter.policy(inside, revision));
            }
        }
        all
    }

    /// Its name, for a neighbour of the own AS or another.
    pub(crate) fn name(self, inside: bool) -> PolicyName {
        let place = if inside { "inside" } else { "outside" };
        PolicyName(format!("{self:?} {place}"))
    }

    fn policy(self, inside: bool, revision: usize) -> PolicyConfig {
        let add = |value| {
            Change::AddCommunities(vec![AnyCommunity::Standard(bgp_wire::Community(value))])
        };
        let prefixes = |numbers: [u8; 2]| {
            let ranges = numbers.map(|number| PrefixRange::exact(prefix(number)));
            vec![Condition::Prefixes(ranges.into())]
        };
        let accepted = Action::Final(Verdict::Accept);
        let rejected = Action::Final(Verdict::Reject);
        let (conditions, changes, action) = match self {
            Filter::Open => (Vec::new(), Vec::new(), accepted),
            Filter::Mark => (prefixes(MARKED), vec![add(MARKS[revision])], accepted),
            Filter::Prefer => {
                let changes = vec![Change::LocalPref(PREFERRED), add(MARKS[revision])];
                (prefixes(MARKED), changes, accepted)
            }
            Filter::Pick => {
                let text = format!("{}:{}", PICKED >> 16, PICKED & 0xffff);
                let pattern = CommunityPattern::parse(CommunityKind::Standard, &text);
                let has = Condition::Communities {
                    quantifier: Quantifier::Any,
                    patterns: vec![pattern.expect("two numbers")],
                };
                (vec![has], Vec::new(), rejected)
            }
            Filter::Drop => (prefixes(DROPPED[revision]), Vec::new(), rejected),
            Filter::Tag if inside => (Vec::new(), vec![add(TAG)], Action::Continue),
            Filter::Tag => {
                let changes = vec![add(TAG), Change::PrependOwn(2)];
                (Vec::new(), changes, Action::Continue)
            }
        };
        let statement = Statement {
            name: "the only one".into(),
            conditions,
            changes,
            action,
        };
        PolicyConfig::new(self.name(inside), vec![statement], Verdict::Accept)
            .expect("one statement that does one thing")
    }
}
