// SPDX-License-Identifier: Apache-2.0
//! Who holds a rule that can move: one whose addresses the gateway puts on itself.
//!
//! The candidates are the nodes of the group that exist. They stand in a row that is the same on
//! every node: by name for one gateway at a time, by highest random weight (RFC 2991 §3) of rule
//! and node for all at once, so that rules spread over the nodes and only the rules of a node that
//! goes are moved. The first healthy one is elected.
//!
//! Whoever holds the rule already, by its [`Claim`], keeps it while it exists and lives: a node that
//! comes back does not take its rules back, as that would cost its connections a second time. If
//! it belongs to the group no more or is not healthy, it is leaving: it holds the rule until the
//! first of the row has taken it over. Those that do not reach what the policy asks for
//! ([`Policy::unanswered`]) stand behind the others, and hand over if there are others; where nobody
//! reaches it, nothing moves. Everybody else of the row stands by, in order. The first of
//! them gets the connections of the holder and is the one elected when the holder dies.
//!
//! Where a policy prefers zones, those of the holder's zone stand by first, so that the addresses
//! stay in the zone whose pods use them.

use std::cmp::Reverse;

use crate::rule::{RuleKey, RuleRef};
use crate::world::{Group, Policy, Selection, World, Zones};

/// How many nodes that stand by get the connections of the holder.
pub const STANDBYS_WITH_STATE: usize = 1;

/// How many nodes that stand by are named: 8, arbitrary. A group may be all nodes of a cluster.
pub const NAMED_STANDBYS: usize = 8;

/// Who holds a rule, as the holders themselves say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The node.
    pub holder: String,
    /// How often the rule changed hands until then. Of two claims the higher one is right.
    pub term: u64,
}

/// Who holds a rule that can move, and who stands by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The rule.
    pub key: RuleKey,
    /// The holder; none while no candidate is healthy.
    pub holder: Option<String>,
    /// Whether the holder said so itself. Otherwise it is elected, and says so next.
    pub is_claimed: bool,
    /// The term of the claim that holds, or the one an elected holder claims with: one more than
    /// the last, from 1.
    pub term: u64,
    /// Whether the holder should hand the rule to the first who stands by.
    pub is_leaving: bool,
    /// Who stands by, the next one first; at most [`NAMED_STANDBYS`]. The first
    /// [`STANDBYS_WITH_STATE`] get the connections.
    pub standbys: Vec<String>,
    /// Whether this node is the holder.
    pub is_holder: bool,
    /// Whether this node gets the connections of the holder.
    pub is_standby: bool,
}

/// The outcome of an election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Election<'a> {
    pub(crate) holder: Option<&'a str>,
    pub(crate) is_claimed: bool,
    pub(crate) is_leaving: bool,
    pub(crate) term: u64,
    pub(crate) standbys: Vec<&'a str>,
}

/// Elects the holder of a rule of this group. Takes time in proportion to the nodes of the group.
pub(crate) fn elect<'a>(
    world: &'a World,
    policy: &'a Policy,
    group: &'a Group,
    rule: RuleRef<'_>,
    claim: Option<&Claim>,
) -> Election<'a> {
    let mut row: Vec<&str> = group
        .nodes
        .iter()
        .map(String::as_str)
        .filter(|node| world.nodes.contains_key(*node))
        .collect();
    match policy.selection {
        // These two never move; the caller takes the first of the group.
        Selection::FirstByName | Selection::ByPodUid => {}
        Selection::ActiveStandby => {}
        Selection::ActiveActive => {
            let hash = rule.hash();
            row.sort_by_cached_key(|node| (Reverse(hash.name(node).finish()), *node));
        }
    }
    let is_eligible = |node: &crate::world::Node| node.is_healthy && !node.is_dead;
    row.retain(|node| world.nodes.get(*node).is_some_and(is_eligible));
    let is_unanswered = |node: &str| policy.unanswered.contains(node);
    row.sort_by_key(|node| is_unanswered(node));
    let is_reached = row.iter().any(|node| !is_unanswered(node));
    let zone = |node: &str| world.nodes.get(node).and_then(|node| node.zone.as_deref());
    let near = |row: &mut Vec<&str>, node: &str| match policy.zones {
        Zones::Off => {}
        Zones::LocalOnly | Zones::LocalFirst | Zones::LocalPriority => {
            if let Some(home) = zone(node) {
                row.sort_by_key(|node| (is_unanswered(node), zone(node) != Some(home)));
            }
        }
    };
    let last = claim.map(|claim| claim.holder.as_str());
    let claimed = last.filter(|last| {
        let lives = world.nodes.get(*last).is_some_and(|node| !node.is_dead);
        // Who belongs to nobody's group any more keeps it only for somebody.
        lives && (group.nodes.contains(*last) || !row.is_empty())
    });
    let claimed = claimed.and_then(|last| world.nodes.get_key_value(last));
    let claimed = claimed.map(|(name, _)| name.as_str());
    let is_leaving = claimed.is_some_and(|node| match row.contains(&node) {
        true => is_unanswered(node) && is_reached,
        false => !row.is_empty(),
    });
    let holder = claimed.or_else(|| {
        // As the dead holder's standbys stood, so that its first one follows it.
        let mut row = row.clone();
        if let Some(last) = last {
            near(&mut row, last);
        }
        row.first().copied()
    });
    row.retain(|node| Some(*node) != holder);
    if let Some(holder) = holder {
        near(&mut row, holder);
    }
    row.truncate(NAMED_STANDBYS);
    let term = claim.map_or(0, |claim| claim.term);
    Election {
        holder,
        is_claimed: claimed.is_some(),
        is_leaving,
        term: match claimed {
            Some(_) => term,
            None => term.saturating_add(1),
        },
        standbys: row,
    }
}

impl Election<'_> {
    /// The outcome as this node sees it.
    pub(crate) fn to_seat(&self, this_node: &str, rule: RuleRef<'_>) -> Seat {
        Seat {
            key: rule.to_key(),
            holder: self.holder.map(str::to_owned),
            is_claimed: self.is_claimed,
            term: self.term,
            is_leaving: self.is_leaving,
            standbys: self
                .standbys
                .iter()
                .map(|node| (*node).to_owned())
                .collect(),
            is_holder: self.holder == Some(this_node),
            is_standby: self
                .standbys
                .iter()
                .take(STANDBYS_WITH_STATE)
                .any(|node| *node == this_node),
        }
    }
}
