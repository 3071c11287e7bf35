// SPDX-License-Identifier: Apache-2.0
//! Looks at connections: which live, which are over, and what follows from that.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bpf_loader::{Gateway, Swept};
use egress_core::{Life, RuleNumber};

use super::{SWEEP_INTERVAL, Worker, live, lock, timeouts_by_rule};
use crate::holdings::held_by;
use crate::tables;

/// Looks take a twentieth of the time at most.
pub(super) const SWEEP_SHARE: u32 = 20;

/// What is nearer is one moment: far more than a tick of mappings' clock, far less than a drain.
const MOMENT: Duration = Duration::from_millis(500);

impl Worker {
    /// Goes on with the look at connections; at its end forgets what is over, and decides anew when
    /// a rule has drained.
    pub(super) fn sweep_on(&mut self) {
        let Some((mut sweep, taken)) = self.sweep.take() else {
            return;
        };
        let began = Instant::now();
        let swept = match &mut self.gateway {
            Some(gateway) => gateway.sweep_on(&mut sweep),
            None => Ok(true),
        };
        let taken = taken + began.elapsed();
        let ended = match swept {
            Ok(false) => {
                self.sweep = Some((sweep, taken));
                return;
            }
            Ok(true) => {
                self.looked(sweep.swept);
                self.forget()
            }
            Err(error) => {
                self.peers.tell_gone(&sweep.swept.replicated);
                Err(error)
            }
        };
        if let Err(error) = ended {
            tracing::warn!(%error, "connections of egress gateways cannot be looked at");
        }
        let pause = (taken * SWEEP_SHARE).max(SWEEP_INTERVAL);
        self.sweep_at = Instant::now() + pause;
    }

    /// Looks at the gateway's connections at once, and forgets those that are over.
    pub(super) fn look(&mut self) -> Result<(), bpf_loader::Error> {
        // A look that is half done would not know what this one removes.
        self.give_up_sweep();
        if let Some(gateway) = &mut self.gateway {
            let swept = gateway.sweep()?;
            self.looked(swept);
        }
        Ok(())
    }

    /// Ends a look under way, if there is one. What it has removed is gone all the same.
    pub(super) fn give_up_sweep(&mut self) -> bool {
        let Some((sweep, _)) = self.sweep.take() else {
            return false;
        };
        self.peers.tell_gone(&sweep.swept.replicated);
        true
    }

    pub(super) fn looked(&mut self, swept: Swept) {
        if swept.halves > 0 {
            tracing::warn!(
                halves = swept.halves,
                "halves of mappings without the other half were removed"
            );
        }
        self.peers.tell_gone(&swept.replicated);
        self.note_left();
        self.ports_used = swept.ports_used().collect();
        self.connections = swept.live;
    }

    /// Notes since when rules have addresses no more, for the next process.
    fn note_left(&mut self) {
        let gateway = self.gateway.iter();
        let now = Instant::now();
        let left = gateway
            .flat_map(Gateway::left)
            .filter_map(|(of, ago)| Some((of, now.checked_sub(ago)?)));
        let left: BTreeMap<_, _> = left.collect();
        // What is a tick off is the same moment; an address that came back and went again is not.
        let is_same = |(of, at): (&(u32, IpAddr), &Instant)| {
            let known = self.left.get(of);
            known.is_some_and(|known| at.max(known).duration_since(*at.min(known)) < MOMENT)
        };
        if left.len() != self.left.len() || !left.iter().all(is_same) {
            self.is_unwritten = true;
            self.left = left;
        }
    }

    /// What is over in the pods' tables, and what follows from both.
    pub(super) fn forget(&mut self) -> Result<(), bpf_loader::Error> {
        let timeouts = timeouts_by_rule(&self.world, &self.previous.desired);
        let usual = tables::timeouts(&egress_core::Timeouts::default());
        let ends = &self.previous.desired.ends;
        let is_known =
            |rule| rule == 0 || RuleNumber::new(rule).is_some_and(|n| ends.contains_key(&n));
        let flows = lock(&self.datapath).sweep_egress(&|rule| {
            is_known(rule).then(|| timeouts.get(&rule).copied().unwrap_or(usual))
        })?;
        self.previous.live = live(flows.live.keys().chain(self.connections.keys()));
        self.end_drains();
        let is_over = |number: &RuleNumber| !self.previous.live.contains(number);
        let drained = self.drains.keys().any(is_over);
        let decided = held_by(self.previous.desired.gateway.values());
        let is_used = |address: &IpAddr| self.ports_used.keys().any(|(used, _)| used == address);
        let is_left = |address: &IpAddr| !decided.contains_key(address) && !is_used(address);
        let left = lock(&self.holdings).held.keys().any(is_left);
        let desired = &self.previous.desired;
        let is_idle = !self.peers.is_candidate()
            && desired.gateway.is_empty()
            && desired.standby.is_empty()
            && self.connections.is_empty();
        if drained || left {
            self.settle_again();
        }
        if is_idle && let Some(gateway) = self.gateway.take() {
            tracing::info!("this node is no egress gateway any more");
            self.events = None;
            gateway.uninstall()?;
        }
        Ok(())
    }

    /// Takes rules out of what lives whose time to drain has passed.
    pub(super) fn end_drains(&mut self) {
        let desired = &self.previous.desired;
        let ends = desired.ends.iter().map(|(number, end)| (*number, end.life));
        let rules = desired.gateway.iter();
        let rules = rules.map(|(number, rule)| (*number, rule.life));
        let draining: BTreeMap<RuleNumber, Option<Duration>> = ends
            .chain(rules)
            .filter_map(|(number, life)| match life {
                Life::Active => None,
                Life::Draining { at_most } => Some((number, at_most)),
            })
            .collect();
        self.drains
            .retain(|number, _| draining.contains_key(number));
        let now = Instant::now();
        for (number, at_most) in draining {
            let since = *self.drains.entry(number).or_insert_with(|| {
                self.is_unwritten = true;
                now
            });
            if at_most.is_some_and(|limit| now.duration_since(since) >= limit) {
                self.previous.live.remove(&number);
            }
        }
    }
}
