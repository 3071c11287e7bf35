// SPDX-License-Identifier: Apache-2.0
//! Best path selection (RFC 4271 §9.1.2, RFC 4456 §9).
//!
//! Done as RFC 4271 writes it, by elimination: each step drops the routes that are worse than some
//! other one still in. MED is compared among routes of the same neighbour AS only, which makes
//! pairwise comparison depend on the order of comparing; elimination does not ("deterministic
//! MED"). Every step but MED keeps the minimum of a key, and the last key is unique, so that the
//! result is one best route whatever the order of arrival.
//!
//! Routes that are equal up to and including the metric to the next hop may be used together.
//! With "as-path multipath-relax" their AS paths need the same length, not the same content: two
//! ToRs in different ASes must both carry traffic.

use std::cmp::{Ordering, Reverse};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use router_types::Asn;

use super::attributes::Hot;
use super::table::Rejection;

/// What selection knows of a route.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) hot: Hot,
    pub(super) external: bool,
    /// Metric to the next hop; `None` when there is no way to it.
    pub(super) metric: Option<u32>,
    pub(super) router_id: Ipv4Addr,
    pub(super) address: IpAddr,
    /// Tells routes apart when all else is equal.
    pub(super) peer: u16,
    /// Tells routes of one neighbour apart (RFC 7911 §3).
    pub(super) path_id: u32,
}

/// The step at which a route lost, or what it is used for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verdict {
    /// The best route.
    Best,
    /// Used together with the best one.
    Multipath,
    /// As good as the best one, beyond the path limit.
    BeyondPathLimit,
    /// As good as the best one, by another AS path.
    OtherAsPath,
    /// A route of the node itself has the prefix.
    LocalRoute,
    /// There is no way to the next hop (RFC 4271 §9.1.2.1).
    NextHopUnreachable,
    /// It is kept for a neighbour that is long gone (RFC 9494 §4.3).
    LongLivedStale,
    /// Another one has a higher local preference.
    LocalPreference,
    /// Another one has a shorter AS path.
    AsPathLength,
    /// Another one has a lower origin.
    Origin,
    /// Another one from the same neighbour AS has a lower MED.
    Med,
    /// Another one comes from an external neighbour.
    ExternalOverInternal,
    /// Another one's next hop is nearer.
    NextHopMetric,
    /// It is not considered at all.
    Rejected(Rejection),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Rejected(why) => return why.fmt(f),
            Verdict::Best => "best",
            Verdict::Multipath => "used beside the best",
            Verdict::BeyondPathLimit => "as good as the best, beyond the path limit",
            Verdict::OtherAsPath => "as good as the best, by another AS path",
            Verdict::LocalRoute => "the node itself has this prefix",
            Verdict::NextHopUnreachable => "no way to the next hop",
            Verdict::LongLivedStale => "kept for a neighbour that is long gone",
            Verdict::LocalPreference => "lower local preference",
            Verdict::AsPathLength => "longer AS path",
            Verdict::Origin => "worse origin",
            Verdict::Med => "higher MED",
            Verdict::ExternalOverInternal => "an external route is preferred",
            Verdict::NextHopMetric => "next hop is further away",
        })
    }
}

/// The best of some routes, by the same steps as [`select`], without saying why. `None` when there
/// is no way to the next hop of any.
pub(super) fn best(candidates: impl Iterator<Item = (usize, Candidate)> + Clone) -> Option<usize> {
    let reachable = candidates.filter(|(_, candidate)| candidate.metric.is_some());
    let least = reachable.clone().map(|(_, c)| c.rank()).min()?;
    let left = reachable.filter(move |(_, c)| c.rank() == least);
    let beaten_by_med = |candidate: &Candidate| {
        let hot = &candidate.hot;
        hot.med > 0
            && left
                .clone()
                .any(|(_, c)| c.hot.neighbour == hot.neighbour && c.hot.med < hot.med)
    };
    // Every step after MED keeps the least of a key: so does the least of all keys in turn.
    let rest = left.clone().filter(|(_, c)| !beaten_by_med(c));
    let (at, _) = rest.min_by_key(|(_, c)| (!c.external, c.metric, c.last_resort()))?;
    Some(at)
}

/// Which AS paths may be used together with that of the best route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AsPaths {
    /// Those of the same length.
    SameLength,
    /// The same only.
    Equal,
}

impl Candidate {
    /// What is compared before MED, the least first.
    fn rank(&self) -> (bool, Reverse<u32>, u16, u8) {
        let hot = &self.hot;
        let preference = Reverse(hot.local_pref);
        (hot.long_lived_stale, preference, hot.path_len, hot.origin)
    }

    /// Whether this one, the best of some routes, stays so beside one more. `false` where it does
    /// not, and where MED makes the answer depend on the others.
    pub(super) fn beats_whatever_else(&self, added: &Candidate) -> bool {
        match self.rank().cmp(&added.rank()) {
            Ordering::Less => return true,
            Ordering::Greater => return false,
            Ordering::Equal => {}
        }
        if self.hot.neighbour == added.hot.neighbour && self.hot.med != added.hot.med {
            // The added one is out, or this one is and perhaps others with it.
            return self.hot.med < added.hot.med;
        }
        let last = |c: &Candidate| (!c.external, c.metric, c.last_resort());
        last(self) < last(added)
    }

    /// RFC 4456 §9: ORIGINATOR_ID in place of the identifier, then the shorter CLUSTER_LIST.
    fn last_resort(&self) -> (Ipv4Addr, u16, IpAddr, u16, u32) {
        let id = self.hot.originator.unwrap_or(self.router_id);
        (
            id,
            self.hot.cluster_len,
            self.address,
            self.peer,
            self.path_id,
        )
    }
}

/// Judges all routes for a prefix. Returns a verdict for each, and the indexes of those in use,
/// the best one first.
pub(super) fn select(
    candidates: &[Candidate],
    max_paths: u16,
    relaxed: AsPaths,
) -> (Vec<Verdict>, Vec<usize>) {
    let mut verdicts = vec![Verdict::Multipath; candidates.len()];
    let mut left: Vec<usize> = (0..candidates.len()).collect();
    drop_losers(&mut left, &mut verdicts, Verdict::NextHopUnreachable, |i| {
        candidates[i].metric.is_some()
    });
    let c = |i: usize| &candidates[i];
    keep_least(&mut left, &mut verdicts, Verdict::LongLivedStale, |i| {
        c(i).hot.long_lived_stale
    });
    keep_least(&mut left, &mut verdicts, Verdict::LocalPreference, |i| {
        Reverse(c(i).hot.local_pref)
    });
    keep_least(&mut left, &mut verdicts, Verdict::AsPathLength, |i| {
        c(i).hot.path_len
    });
    keep_least(&mut left, &mut verdicts, Verdict::Origin, |i| {
        c(i).hot.origin
    });
    let still = left.clone();
    let least_med = |neighbour: Asn| {
        let group = still.iter().filter(|&&i| c(i).hot.neighbour == neighbour);
        group.map(|&i| c(i).hot.med).min()
    };
    drop_losers(&mut left, &mut verdicts, Verdict::Med, |i| {
        Some(c(i).hot.med) == least_med(c(i).hot.neighbour)
    });
    keep_least(
        &mut left,
        &mut verdicts,
        Verdict::ExternalOverInternal,
        |i| !c(i).external,
    );
    keep_least(&mut left, &mut verdicts, Verdict::NextHopMetric, |i| {
        c(i).metric
    });
    left.sort_by_key(|&i| c(i).last_resort());
    if let Some(&best) = left.first() {
        verdicts[best] = Verdict::Best;
    }
    if let (AsPaths::Equal, Some(&best)) = (relaxed, left.first()) {
        drop_losers(&mut left, &mut verdicts, Verdict::OtherAsPath, |i| {
            c(i).hot.path_print == c(best).hot.path_print
        });
    }
    for &beyond in left.iter().skip(max_paths.max(1).into()) {
        verdicts[beyond] = Verdict::BeyondPathLimit;
    }
    left.truncate(max_paths.max(1).into());
    (verdicts, left)
}

fn keep_least<K: Ord>(
    left: &mut Vec<usize>,
    verdicts: &mut [Verdict],
    verdict: Verdict,
    key: impl Fn(usize) -> K,
) {
    if left.len() > 1
        && let Some(least) = left.iter().map(|&i| key(i)).min()
    {
        drop_losers(left, verdicts, verdict, |i| key(i) == least);
    }
}

fn drop_losers(
    left: &mut Vec<usize>,
    verdicts: &mut [Verdict],
    verdict: Verdict,
    stays: impl Fn(usize) -> bool,
) {
    left.retain(|&i| {
        let stays = stays(i);
        if !stays {
            verdicts[i] = verdict;
        }
        stays
    });
}

#[cfg(test)]
mod tests;
