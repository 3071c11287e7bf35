// SPDX-License-Identifier: Apache-2.0
//! What this node is to do: the decision, with what other gateways hold and let it hold.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use egress_core::{Desired, GatewayRule, Life, RuleNumber, World, decide};

use super::Worker;
use crate::holdings::left_here;
use crate::links;

/// How often a decision is made anew because of what it led to. Each time something is claimed or
/// let go, of which there is an end.
const MAX_ROUNDS: usize = 8;

impl Worker {
    /// The decision, with what this node claims and lets go because of it.
    pub(super) fn decide(&mut self) -> Desired {
        let mut world = self.wish.world.clone();
        self.peers.set_probes(&self.wish.probes, &world);
        self.peers.adjust(&mut world);
        let (netlink, fabric) = (&mut self.netlink, &self.wish.fabric);
        let ask = || links::ways(netlink, &world, fabric);
        world.on_link = self.ways.get_or_insert_with(ask).on_link.clone();
        self.presume_live();
        let mut claims = self.peers.claims();
        let is_first = self.world.node.is_empty();
        if is_first && self.peers.is_spoken() {
            let left = left_here(&world, &claims, &self.previous, &self.found);
            claims.extend(left);
        }
        let mut desired = decide(&world, &claims, &self.previous);
        for _ in 0..MAX_ROUNDS {
            let found = &self.found;
            let was_held = |number: RuleNumber| {
                let rule = desired.gateway.get(&number);
                rule.is_some_and(|rule| rule.addresses().all(|address| found.contains(&address)))
            };
            let now = Instant::now();
            let is_told = self.is_told;
            if !self.peers.pursue(&world, &desired, &was_held, is_told, now) {
                break;
            }
            claims = self.peers.claims();
            desired = decide(&world, &claims, &self.previous);
        }
        // Before anything of them is deleted.
        self.peers.tell_held();
        // Elected is not enough: it may be somebody else's still. Of a policy that is gone nobody is
        // elected, and who had its addresses keeps them for its connections.
        let (peers, seats) = (&self.peers, &desired.seats);
        let must_wait = |number: &RuleNumber, rule: &mut GatewayRule| {
            rule.is_held && seats.contains_key(number) && !peers.may_hold(*number)
        };
        let waiting = desired.gateway.extract_if(.., must_wait);
        let waiting: BTreeSet<RuleNumber> = waiting.map(|(number, _)| number).collect();
        self.keep_copies(&world, &mut desired, |number| waiting.contains(number));
        for rule in self.peers.awaited() {
            let number = RuleNumber::new(rule.get());
            if let Some(number) = number.filter(|number| !self.peers.may_hold(*number)) {
                self.leave_as_it_was(number, &mut desired);
            }
        }
        if self.peers.is_isolated() {
            self.keep_copies(&world, &mut desired, |_| true);
        }
        self.world = Arc::new(world);
        self.claims = Arc::new(claims);
        desired
    }

    /// A rule that was in use may have connections that began since the last look: until the next one
    /// it is taken to have some.
    fn presume_live(&mut self) {
        let desired = &self.previous.desired;
        let ends = desired.ends.iter().map(|(number, end)| (number, end.life));
        let rules = desired.gateway.iter();
        let used = ends.chain(rules.map(|(number, rule)| (number, rule.life)));
        let used = used.filter(|(_, life)| *life == Life::Active);
        let used: Vec<RuleNumber> = used.map(|(number, _)| *number).collect();
        self.previous.live.extend(used);
        // A look under way may have passed by what is new.
        if self.give_up_sweep() {
            self.sweep_at = Instant::now();
        }
    }

    /// A node that is cut off serves nobody and stands by for nobody, and one that waits for others to
    /// say what they hold has nothing yet; but what it has of connections may be all that is left of
    /// them. Copies of rules stay of which `is_kept`.
    fn keep_copies(
        &self,
        world: &World,
        desired: &mut Desired,
        is_kept: impl Fn(&RuleNumber) -> bool,
    ) {
        let before = &self.previous.desired;
        let held = before.gateway.iter().filter(|(_, rule)| rule.is_held);
        let all = before.standby.iter().chain(held);
        for (number, rule) in all.filter(|(number, _)| is_kept(number)) {
            let is_there = world.policies.iter().any(|p| p.id == rule.key.policy);
            if is_there && !desired.gateway.contains_key(number) {
                let kept = desired.standby.entry(*number);
                kept.or_insert_with(|| rule.clone());
            }
        }
    }

    /// A rule that this node is about to take: what it has of it stays until then.
    fn leave_as_it_was(&self, number: RuleNumber, desired: &mut Desired) {
        let before = &self.previous.desired;
        if let (Some(rule), Some(seat)) = (before.standby.get(&number), before.seats.get(&number)) {
            desired.gateway.remove(&number);
            desired.standby.insert(number, rule.clone());
            desired.seats.insert(number, seat.clone());
        }
    }
}
