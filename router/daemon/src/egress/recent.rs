// SPDX-License-Identifier: Apache-2.0
//! What gateways refused of late: the data plane counts from its beginning on, and an alarm is about
//! what still goes on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bpf_loader::DropReason;
use egress_core::RuleNumber;
use tokio::time::MissedTickBehavior;

use super::{EgressSource, EgressView};
use crate::intent::lock;

/// What counts as of late: longer than the pauses between a client's first attempts to connect
/// (RFC 6298 §5.5: 1, 2, 4, 8, 16 s).
pub const WINDOW: Duration = Duration::from_secs(60);

/// Between two looks. What is told of the last [`WINDOW`] may be older by as much.
const INTERVAL: Duration = Duration::from_secs(10);

/// Refused packets of each rule by reason; without a rule, of the whole gateway.
pub type Refusals = BTreeMap<(Option<RuleNumber>, DropReason), u64>;

/// Looks of the last [`WINDOW`], and one from before, oldest first.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<(Instant, Refusals)>>);

impl Recent {
    /// Looks now and then, for as long as the daemon runs.
    pub async fn watch(self: Arc<Self>, source: Arc<dyn EgressSource>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let source = Arc::clone(&source);
            match tokio::task::spawn_blocking(move || source.view()).await {
                Ok(Ok(view)) => self.note(Instant::now(), &view),
                Ok(Err(error)) => tracing::debug!(%error, "egress cannot be looked at"),
                Err(_) => return,
            }
        }
    }

    fn note(&self, now: Instant, view: &EgressView) {
        let mut looks = lock(&self.0);
        looks.push_back((now, counts(view)));
        let is_old = |(at, _): &(Instant, Refusals)| now.duration_since(*at) >= WINDOW;
        while looks.get(1).is_some_and(is_old) {
            looks.pop_front();
        }
    }

    /// What was refused since [`WINDOW`] ago, or since the first look; only what was.
    pub fn refused(&self, now: Instant, view: &EgressView) -> Refusals {
        let looks = lock(&self.0);
        let is_old = |(at, _): &&(Instant, Refusals)| now.duration_since(*at) >= WINDOW;
        let before = looks.iter().rev().find(is_old).or(looks.front());
        let Some((_, before)) = before else {
            // How much of it is old nobody knows.
            return Refusals::new();
        };
        let refused = counts(view).into_iter().filter_map(|(key, count)| {
            let old = before.get(&key).copied().unwrap_or(0);
            // A rule that went and came begins anew.
            let fresh = count.checked_sub(old).unwrap_or(count);
            (fresh > 0).then_some((key, fresh))
        });
        refused.collect()
    }
}

fn counts(view: &EgressView) -> Refusals {
    let rules = view.rules.iter().map(|(number, rule)| {
        let refusals = rule.refusals.as_slice();
        (Some(*number), refusals)
    });
    let all = rules.chain([(None, view.refusals.as_slice())]);
    all.flat_map(|(rule, refusals)| {
        let counts = refusals.iter().filter(|count| count.packets > 0);
        counts.map(move |count| ((rule, count.reason), count.packets))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::testing;

    fn with(packets: u64) -> EgressView {
        let mut view = testing::view();
        for rule in view.rules.values_mut() {
            rule.refusals[0].packets = packets;
        }
        view
    }

    #[test]
    fn what_was_refused_before_the_window_is_not_of_late() {
        let (recent, start) = (Recent::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let refused = |seconds, packets| {
            let refused = recent.refused(at(seconds), &with(packets));
            refused.into_values().sum::<u64>()
        };
        assert_eq!(refused(0, 7), 0, "nothing is known of before");
        recent.note(at(0), &with(7));
        assert_eq!(refused(1, 7), 0);
        assert_eq!(refused(1, 9), 2);
        for seconds in (10..60).step_by(10) {
            recent.note(at(seconds), &with(9));
        }
        assert_eq!(refused(59, 9), 2);
        for seconds in (60..=90).step_by(10) {
            recent.note(at(seconds), &with(9));
        }
        assert_eq!(refused(90, 9), 0);
        assert_eq!(refused(90, 3), 3, "the rule went and came");
        assert!(lock(&recent.0).len() <= 7, "looks that are over are gone");
    }
}
