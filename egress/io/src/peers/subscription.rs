// SPDX-License-Identifier: Apache-2.0
//! Which rules' copies this node asks for, and which it has already.
//!
//! Copies may be in the tables before: of the time when this node held the rule, or of before a
//! restart. The holder's snapshot removes those that are over, and must know of them for that
//! ([`egress_sync::replication::Receiver::adopt`]). So the tables are walked before a rule is
//! subscribed to, in portions: with a million mappings that takes seconds, in which others must
//! be answered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bpf_loader::{Cursor, Gateway};
use egress_sync::mapping::Key;
use egress_sync::name::{NodeName, Rule};
use egress_sync::replication::Dropped;

use super::{Peers, copies};

/// A walk through the tables for copies of before.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Those that are looked for now.
    rules: BTreeSet<Rule>,
    cursor: Cursor,
    found: BTreeMap<Rule, Vec<Key>>,
    /// Those whose copies are all found, and that are not subscribed to yet.
    done: BTreeSet<Rule>,
}

impl Peers {
    /// Tells the receivers what this node stands by for, as far as its own copies are known.
    /// `has_tables`: whether there can be any.
    pub(super) fn subscribe(&mut self, has_tables: bool, now: Instant) {
        let holders: Vec<NodeName> = self.roles.standby.keys().cloned().collect();
        for holder in holders {
            self.peer(&holder, now);
        }
        let mut unknown = BTreeSet::new();
        for (node, peer) in &mut self.peers {
            let nothing = BTreeSet::new();
            let all = self.roles.standby.get(node).unwrap_or(&nothing);
            let is_known = |rule: &Rule| {
                !has_tables || peer.subscribed.contains(rule) || self.walk.done.contains(rule)
            };
            let (wanted, later): (BTreeSet<Rule>, BTreeSet<Rule>) =
                all.iter().copied().partition(is_known);
            unknown.extend(later);
            if peer.subscribed == wanted {
                continue;
            }
            // What this node holds now stays; what others stand by for goes.
            let kept: BTreeSet<Rule> = peer
                .subscribed
                .iter()
                .copied()
                .filter(|rule| wanted.contains(rule) || !self.table.holds(*rule))
                .collect();
            let told = peer.receiver.handle_rules(&kept, Dropped::Keep);
            let told = told.and_then(|()| peer.receiver.handle_rules(&wanted, Dropped::Remove));
            let discarded = peer.receiver.take_discarded();
            if !discarded.is_empty() {
                // A takeover must not wait for it.
                tokio::task::spawn_blocking(move || drop(discarded));
            }
            if let Err(error) = told {
                tracing::error!(%node, %error, "connections are not copied");
                continue;
            }
            for rule in wanted.difference(&peer.subscribed) {
                let keys = self.walk.found.remove(rule).unwrap_or_default();
                peer.receiver.adopt(*rule, keys);
            }
            peer.subscribed = wanted;
        }
        // What was found for a rule that another node stands by for by now may be out of date when
        // it is this one's turn again.
        self.walk.done.clear();
        self.walk.found.retain(|rule, _| unknown.contains(rule));
        if self.walk.rules.is_empty() && !unknown.is_empty() {
            self.walk = Walk {
                rules: unknown,
                ..Walk::default()
            };
        }
    }

    /// Goes on looking for copies of before; whether there is more to look at.
    pub(crate) fn walk_on(&mut self, gateway: Option<&mut Gateway>, now: Instant) -> bool {
        if self.walk.rules.is_empty() {
            return false;
        }
        let walk = &mut self.walk;
        if let Some(gateway) = gateway {
            let is_wanted = |rule| Rule::new(rule).is_some_and(|rule| walk.rules.contains(&rule));
            match gateway.next_mappings(&is_wanted, &mut walk.cursor) {
                Ok(found) => {
                    for mapping in found {
                        let (rule, key) = (Rule::new(mapping.rule), copies::key(&mapping));
                        if let (Some(rule), Some(key)) = (rule, key) {
                            walk.found.entry(rule).or_default().push(key);
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "copies of before are not known");
                    walk.cursor = Cursor::end();
                }
            }
        } else {
            walk.cursor = Cursor::end();
        }
        if !walk.cursor.is_at_end() {
            return true;
        }
        walk.done = std::mem::take(&mut walk.rules);
        // A node that was cut off meanwhile asks when it is back: its walk begins anew then.
        if !self.sights.is_isolated() {
            self.subscribe(true, now);
        }
        !self.walk.rules.is_empty()
    }
}
