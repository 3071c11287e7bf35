// SPDX-License-Identifier: Apache-2.0
//! Rules this node takes, hands over and lets go.

use std::time::{Duration, Instant};

use egress_core::{Desired, RuleNumber, Seat, World};
use egress_sync::name::{NodeName, Rule};

use super::roles::Roles;
use super::{Heard, Peers};

/// How long after the start a rule that nobody is known to hold waits for those who might. The same
/// when this node was cut off. For one that BFD hears it is waited longer, unless somebody else speaks to
/// this node.
pub(super) const GRACE: Duration = Duration::from_secs(3);

/// How long a rule that leaves may take to be handed over; then it is let go as it is.
pub(super) const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// How often a hand-over is tried.
pub(super) const HAND_OVER_AGAIN: Duration = Duration::from_millis(100);

impl Peers {
    /// Claims, hands over and lets go what the decision says. Whether the claims are others now.
    /// `was_held` says of a rule whether its addresses were here when the daemon started, `is_told`
    /// whether those who stand by have been told of all events there are.
    pub(crate) fn pursue(
        &mut self,
        world: &World,
        desired: &Desired,
        was_held: &dyn Fn(RuleNumber) -> bool,
        is_told: bool,
        now: Instant,
    ) -> bool {
        if !self.is_spoken() {
            return false;
        }
        let mut has_changed = false;
        // Of this decision: after a start there is none before it, and nobody would be one.
        self.roles.rivals = Roles::of(world, desired, self.probes.policies()).rivals;
        self.forget_awaited();
        self.drop_kept(&|rule| {
            let number = RuleNumber::new(rule.get());
            number.is_some_and(|number| {
                let seat = desired.seats.get(&number);
                seat.is_some_and(|seat| seat.is_holder) && was_held(number)
            })
        });
        // Also one whose policy went while it was leaving: nobody is there to take it any more.
        self.leaving.retain(|rule, _| {
            let number = RuleNumber::new(rule.get());
            let seat = number.and_then(|number| desired.seats.get(&number));
            self.table.holds(*rule) && seat.is_some_and(|seat| seat.is_leaving)
        });
        for (number, seat) in &desired.seats {
            let Some(rule) = Rule::new(number.get()) else {
                continue;
            };
            if self.table.holds(rule) {
                if !seat.is_holder {
                    tracing::info!(rule = rule.get(), policy = %seat.key.policy, "let go");
                    self.table.release(rule);
                    has_changed = true;
                } else if seat.is_leaving {
                    has_changed |= self.leave(rule, seat, is_told, now);
                } else {
                    self.leaving.remove(&rule);
                }
            } else if seat.is_holder
                && self.may_claim(rule, world, was_held(*number), now)
                && self.has_leave(rule, now)
            {
                has_changed |= self.claim(rule, seat);
            }
        }
        // While connections of a policy that is gone go on, others who hear of that later must not
        // take its rules for free.
        let is_kept = |number: RuleNumber| {
            desired.seats.contains_key(&number) || desired.gateway.contains_key(&number)
        };
        let gone = self.table.held().map(|claim| claim.rule);
        let gone = gone.filter(|rule| !RuleNumber::new(rule.get()).is_some_and(is_kept));
        for rule in gone.collect::<Vec<_>>() {
            self.table.release(rule);
            has_changed = true;
        }
        has_changed
    }

    fn claim(&mut self, rule: Rule, seat: &Seat) -> bool {
        match self.table.claim(rule) {
            Ok(term) => {
                let policy = &seat.key.policy;
                tracing::info!(rule = rule.get(), %policy, term, "held by this node");
                true
            }
            Err(error) => {
                tracing::error!(rule = rule.get(), %error, "cannot be taken");
                false
            }
        }
    }

    /// Whether this node may take a rule the decision gives it.
    fn may_claim(&self, rule: Rule, world: &World, was_held: bool, now: Instant) -> bool {
        // Another one's that has let go or is dead: the decision has seen to that. What this node
        // let go itself, somebody it does not hear yet may have taken.
        let last = self.table.holder(rule);
        let is_others = last.is_some_and(|last| last.node != self.name);
        if is_others || (was_held && (last.is_none() || self.has_kept(rule))) {
            return true;
        }
        let is_late = now >= self.unsure_since + GRACE;
        let is_no_rival = |rival: &NodeName| {
            let node = world.nodes.get(rival.as_str());
            // One that BFD hears lives, and may hold it: it does not speak to this node, for want of the
            // key perhaps. Then it is this one that nobody speaks to, or a third would know.
            let mut linked = self.linked.keys();
            self.table.has_heard(rival)
                || node.is_none_or(|node| node.is_dead)
                || (is_late
                    && (self.sights.heard(rival) != Some(Heard::Yes)
                        || linked.any(|node| node != rival && self.table.has_heard(node))))
        };
        self.roles.rivals.iter().all(is_no_rival)
    }

    /// Offers a rule to the first who stands by, once that one knows everything.
    fn leave(&mut self, rule: Rule, seat: &Seat, is_told: bool, now: Instant) -> bool {
        let (since, offered) = self.leaving.entry(rule).or_insert((now, now - LEAVE_LIMIT));
        let is_late = now >= *since + LEAVE_LIMIT;
        if now < *offered + HAND_OVER_AGAIN {
            return false;
        }
        if !is_told {
            self.is_stale = true;
            return false;
        }
        *offered = now;
        let next = seat.standbys.first().map(|next| NodeName::new(next));
        let Some(Ok(next)) = next else {
            return false;
        };
        let synchronised = self
            .peers
            .get(&next)
            .filter(|peer| peer.sender.queued() == 0)
            .and_then(|peer| peer.sender.synchronised(rule));
        match synchronised.map(|synchronised| self.table.hand_over(synchronised, now)) {
            Some(Ok(())) => tracing::info!(rule = rule.get(), %next, "offered to the next gateway"),
            Some(Err(error)) => tracing::debug!(%error, "not handed over yet"),
            None => {}
        }
        if is_late {
            tracing::warn!(rule = rule.get(), %next, "let go without its connections");
            self.table.release(rule);
            self.leaving.remove(&rule);
        }
        is_late
    }
}
