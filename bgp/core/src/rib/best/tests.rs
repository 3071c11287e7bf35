// SPDX-License-Identifier: Apache-2.0
use proptest::prelude::*;
use router_types::Asn;

use super::*;

fn candidate() -> impl Strategy<Value = Candidate> {
    // Few values for each, so that every step has ties.
    let attributes = (99u32..101, 1u16..3, 0u8..2, 0u32..3, 65001u32..65004);
    let rest = (
        any::<bool>(),
        prop::option::weighted(0.9, 0u32..2),
        1u8..4,
        0u16..2,
        0u8..3,
    );
    (attributes, rest).prop_map(
        |((local_pref, path_len, origin, med, neighbour), (external, metric, id, cluster, ip))| {
            Candidate {
                hot: Hot {
                    local_pref,
                    med,
                    neighbour: Asn(neighbour),
                    originator: None,
                    path_len,
                    cluster_len: cluster,
                    origin,
                    own_as: 0,
                    no_advertise: false,
                    no_export: false,
                    graceful_shutdown: false,
                    only_to_customer: false,
                    long_lived_stale: false,
                    no_peer: false,
                    blackhole: false,
                    no_long_lived: false,
                    path_print: 0,
                    bandwidth: 0,
                },
                external,
                metric,
                router_id: Ipv4Addr::new(10, 0, 0, id),
                address: IpAddr::V4(Ipv4Addr::new(10, 1, 0, ip)),
                peer: 0,
                path_id: 0,
            }
        },
    )
}

/// RFC 4271 §9.1.2.2 once more, slowly: a route is dropped while some other one still in beats it
/// at the step.
fn reference(candidates: &[Candidate]) -> Option<u16> {
    let mut left: Vec<&Candidate> = candidates.iter().filter(|c| c.metric.is_some()).collect();
    let beats: [fn(&Candidate, &Candidate) -> bool; 9] = [
        |a, b| a.hot.local_pref > b.hot.local_pref,
        |a, b| a.hot.path_len < b.hot.path_len,
        |a, b| a.hot.origin < b.hot.origin,
        |a, b| a.hot.neighbour == b.hot.neighbour && a.hot.med < b.hot.med,
        |a, b| a.external && !b.external,
        |a, b| a.metric < b.metric,
        |a, b| a.router_id < b.router_id,
        |a, b| a.hot.cluster_len < b.hot.cluster_len,
        |a, b| (a.address, a.peer) < (b.address, b.peer),
    ];
    for beats in beats {
        let all = left.clone();
        left.retain(|b| !all.iter().any(|a| beats(a, b)));
    }
    assert!(left.len() <= 1, "the last step leaves one");
    left.first().map(|c| c.peer)
}

proptest! {
    #[test]
    fn selection_agrees_with_the_rfc_whatever_the_order(
        mut candidates in prop::collection::vec(candidate(), 0..8),
        turn in 0usize..8,
    ) {
        for (number, candidate) in candidates.iter_mut().enumerate() {
            candidate.peer = number as u16;
        }
        let wanted = reference(&candidates);
        let turn = if candidates.is_empty() { 0 } else { turn % candidates.len() };
        candidates.rotate_left(turn);
        let (standings, used) = select(&candidates, 4, AsPaths::SameLength);
        prop_assert_eq!(used.first().map(|&i| candidates[i].peer), wanted);
        prop_assert!(used.len() <= 4);
        // The best of the others stays best beside the last one, if it says so.
        if let Some((last, others)) = candidates.split_last()
            && let Some(of_others) = best(others.iter().copied().enumerate())
            && last.metric.is_some()
            && others[of_others].beats_whatever_else(last)
        {
            prop_assert_eq!(Some(others[of_others].peer), wanted);
        }
        let without_reasons = best(candidates.iter().copied().enumerate());
        prop_assert_eq!(without_reasons.map(|i| candidates[i].peer), wanted);
        let best = standings.iter().filter(|s| s.verdict == Verdict::Best).count();
        prop_assert_eq!(best, usize::from(wanted.is_some()));
        for (at, standing) in standings.iter().enumerate() {
            let Some((other, step)) = standing.lost else {
                let unreachable = candidates[at].metric.is_none();
                prop_assert!(unreachable || standing.verdict == Verdict::Best);
                continue;
            };
            // The other one is preferred there, and not before.
            let (this, other) = (&candidates[at], &candidates[other]);
            prop_assert!(other.compare_by(this, step).is_lt(), "{step:?}");
            prop_assert_ne!(other.value(step), this.value(step), "{:?}", step);
            for earlier in Step::BEFORE_MED.iter().chain(&Step::AFTER_MED) {
                if *earlier < step {
                    prop_assert!(other.compare_by(this, *earlier).is_eq(), "{earlier:?}");
                }
            }
        }
        for &i in &used {
            // Used together: equal up to the metric, MED only within a neighbour AS.
            let (a, b) = (&candidates[i], &candidates[used[0]]);
            let key = |c: &Candidate| {
                (c.hot.local_pref, c.hot.path_len, c.hot.origin, c.external, c.metric)
            };
            prop_assert_eq!(key(a), key(b));
        }
    }
}
