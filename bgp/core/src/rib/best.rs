// SPDX-License-Identifier: Apache-2.0
//! Best path selection (RFC 4271 §9.1.2, RFC 4456 §9).
//!
//! Done as RFC 4271 writes it, by elimination: each step drops the routes that are worse than some
//! other one still in. MED is compared among routes of the same neighbour AS only, which makes
//! pairwise comparison depend on the order of comparing; elimination does not ("deterministic
//! MED"). Every step but MED keeps the minimum of a key, and the last key is unique, so that the
//! result is one best route whatever the order of arrival.
//!
//! Each step compares in one place, [`Candidate::compare_by`]: what is elected when routes change,
//! what lists show and what [`Rib::explain`](super::Rib::explain) says is the same by construction.
//!
//! Routes that are equal up to and including the metric to the next hop may be used together.
//! With "as-path multipath-relax" their AS paths need the same length, not the same content: two
//! ToRs in different ASes must both carry traffic.

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use super::attributes::Hot;
use super::rejection::Rejection;

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

/// A step of selection, in the order they are taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Step {
    /// Not kept for a neighbour that is long gone (RFC 9494 §4.3).
    LongLivedStale,
    /// The higher LOCAL_PREF (RFC 4271 §9.1.1).
    LocalPreference,
    /// The shorter AS path (RFC 4271 §9.1.2.2 a).
    AsPathLength,
    /// The lower ORIGIN (RFC 4271 §9.1.2.2 b).
    Origin,
    /// The lower MULTI_EXIT_DISC, among routes of one neighbour AS (RFC 4271 §9.1.2.2 c).
    Med,
    /// From an external neighbour (RFC 4271 §9.1.2.2 d).
    ExternalOverInternal,
    /// The nearer next hop (RFC 4271 §9.1.2.2 e).
    NextHopMetric,
    /// The lower identifier of the speaker or of ORIGINATOR_ID (RFC 4271 §9.1.2.2 f, RFC 4456 §9).
    RouterId,
    /// The shorter CLUSTER_LIST (RFC 4456 §9).
    ClusterListLength,
    /// The lower address of the neighbour (RFC 4271 §9.1.2.2 g).
    PeerAddress,
    /// The neighbour that has been here longer: nothing of the protocol tells them apart.
    Peer,
    /// The lower path identifier (RFC 7911 §3).
    PathId,
}

impl Step {
    /// What decides before MED.
    const BEFORE_MED: [Step; 4] = [
        Step::LongLivedStale,
        Step::LocalPreference,
        Step::AsPathLength,
        Step::Origin,
    ];

    /// What decides after MED.
    const AFTER_MED: [Step; 7] = [
        Step::ExternalOverInternal,
        Step::NextHopMetric,
        Step::RouterId,
        Step::ClusterListLength,
        Step::PeerAddress,
        Step::Peer,
        Step::PathId,
    ];

    /// Whether routes that it tells apart may still be used together.
    fn breaks_a_tie(self) -> bool {
        self > Step::NextHopMetric
    }

    /// The word for programs.
    pub fn name(self) -> &'static str {
        match self {
            Step::LongLivedStale => "long-lived-stale",
            Step::LocalPreference => "local-preference",
            Step::AsPathLength => "as-path-length",
            Step::Origin => "origin",
            Step::Med => "med",
            Step::ExternalOverInternal => "external-over-internal",
            Step::NextHopMetric => "next-hop-metric",
            Step::RouterId => "router-id",
            Step::ClusterListLength => "cluster-list-length",
            Step::PeerAddress => "peer-address",
            Step::Peer => "peer",
            Step::PathId => "path-id",
        }
    }

    /// Where it is written.
    pub fn rule(self) -> &'static str {
        match self {
            Step::LongLivedStale => "RFC 9494 §4.3",
            Step::LocalPreference => "RFC 4271 §9.1.1",
            Step::AsPathLength => "RFC 4271 §9.1.2.2 a",
            Step::Origin => "RFC 4271 §9.1.2.2 b",
            Step::Med => "RFC 4271 §9.1.2.2 c",
            Step::ExternalOverInternal => "RFC 4271 §9.1.2.2 d",
            Step::NextHopMetric => "RFC 4271 §9.1.2.2 e",
            Step::RouterId => "RFC 4271 §9.1.2.2 f",
            Step::ClusterListLength => "RFC 4456 §9",
            Step::PeerAddress => "RFC 4271 §9.1.2.2 g",
            Step::Peer => "no RFC: the order of neighbours",
            Step::PathId => "RFC 7911 §3",
        }
    }
}

impl fmt::Display for Step {
    /// What is wrong with the one that lost.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::LongLivedStale => "kept for a neighbour that is long gone",
            Step::LocalPreference => "lower local preference",
            Step::AsPathLength => "longer AS path",
            Step::Origin => "worse origin",
            Step::Med => "higher MED",
            Step::ExternalOverInternal => "an external route is preferred",
            Step::NextHopMetric => "next hop is further away",
            Step::RouterId => "higher router id",
            Step::ClusterListLength => "longer cluster list",
            Step::PeerAddress => "higher address of the neighbour",
            Step::Peer => "a later neighbour",
            Step::PathId => "higher path identifier",
        })
    }
}

/// What a route is used for, or why not.
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
    /// Another one won at this step.
    Lost(Step),
    /// It is not considered at all.
    Rejected(Rejection),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Rejected(why) => return why.fmt(f),
            Verdict::Lost(step) => return step.fmt(f),
            Verdict::Best => "best",
            Verdict::Multipath => "used beside the best",
            Verdict::BeyondPathLimit => "as good as the best, beyond the path limit",
            Verdict::OtherAsPath => "as good as the best, by another AS path",
            Verdict::LocalRoute => "the node itself has this prefix",
            Verdict::NextHopUnreachable => "no way to the next hop",
        })
    }
}

/// How a route stands beside the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    pub(super) verdict: Verdict,
    /// The route it lost to, and where; `None` for the best one and where there is no way to the
    /// next hop.
    pub(super) lost: Option<(usize, Step)>,
}

/// The best of some routes. `None` when there is no way to the next hop of any.
pub(super) fn best(candidates: impl Iterator<Item = (usize, Candidate)> + Clone) -> Option<usize> {
    let reachable = candidates.filter(|(_, candidate)| candidate.metric.is_some());
    let (_, first) = reachable
        .clone()
        .min_by(|(_, a), (_, b)| a.compare(b, &Step::BEFORE_MED))?;
    let left = reachable.filter(move |(_, c)| c.compare(&first, &Step::BEFORE_MED).is_eq());
    let beaten_by_med = |candidate: &Candidate| {
        candidate.hot.med > 0
            && left
                .clone()
                .any(|(_, other)| other.has_lower_med(candidate))
    };
    // Every step after MED keeps the least of a key: so does the least of all keys in turn.
    let rest = left.clone().filter(|(_, c)| !beaten_by_med(c));
    let (at, _) = rest.min_by(|(_, a), (_, b)| a.compare(b, &Step::AFTER_MED))?;
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
    /// Whether this one, the best of some routes, stays so beside one more. `false` where it does
    /// not, and where MED makes the answer depend on the others.
    pub(super) fn beats_whatever_else(&self, added: &Candidate) -> bool {
        match self.compare(added, &Step::BEFORE_MED) {
            Ordering::Less => return true,
            Ordering::Greater => return false,
            Ordering::Equal => {}
        }
        if self.hot.neighbour == added.hot.neighbour && self.hot.med != added.hot.med {
            // The added one is out, or this one is and perhaps others with it.
            return self.has_lower_med(added);
        }
        self.compare(added, &Step::AFTER_MED).is_lt()
    }

    /// A value of a step, in words.
    pub(super) fn value(&self, step: Step) -> String {
        match step {
            Step::LongLivedStale if self.hot.long_lived_stale => "LLGR_STALE".to_owned(),
            Step::LongLivedStale => "fresh".to_owned(),
            Step::LocalPreference => self.hot.local_pref.to_string(),
            Step::AsPathLength => self.hot.path_len.to_string(),
            Step::Origin => match self.hot.origin {
                0 => "igp".to_owned(),
                1 => "egp".to_owned(),
                _ => "incomplete".to_owned(),
            },
            Step::Med => self.hot.med.to_string(),
            Step::ExternalOverInternal if self.external => "external".to_owned(),
            Step::ExternalOverInternal => "internal".to_owned(),
            Step::NextHopMetric => match self.metric {
                Some(metric) => metric.to_string(),
                None => "unreachable".to_owned(),
            },
            Step::RouterId => self.identifier().to_string(),
            Step::ClusterListLength => self.hot.cluster_len.to_string(),
            Step::PeerAddress => self.address.to_string(),
            Step::Peer => self.peer.to_string(),
            Step::PathId => self.path_id.to_string(),
        }
    }

    /// Compares by one step; the lesser one is preferred. By MED only where
    /// [`Candidate::has_lower_med`] makes sense of it.
    #[inline]
    fn compare_by(&self, other: &Candidate, step: Step) -> Ordering {
        let (a, b) = (&self.hot, &other.hot);
        match step {
            Step::LongLivedStale => a.long_lived_stale.cmp(&b.long_lived_stale),
            Step::LocalPreference => b.local_pref.cmp(&a.local_pref),
            Step::AsPathLength => a.path_len.cmp(&b.path_len),
            Step::Origin => a.origin.cmp(&b.origin),
            Step::Med => a.med.cmp(&b.med),
            Step::ExternalOverInternal => other.external.cmp(&self.external),
            Step::NextHopMetric => self.metric.cmp(&other.metric),
            Step::RouterId => self.identifier().cmp(&other.identifier()),
            Step::ClusterListLength => a.cluster_len.cmp(&b.cluster_len),
            Step::PeerAddress => self.address.cmp(&other.address),
            Step::Peer => self.peer.cmp(&other.peer),
            Step::PathId => self.path_id.cmp(&other.path_id),
        }
    }

    /// Compares by some steps, in their order.
    #[inline]
    fn compare<const N: usize>(&self, other: &Candidate, steps: &[Step; N]) -> Ordering {
        let mut all = steps.iter().map(|step| self.compare_by(other, *step));
        all.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }

    /// The first of some steps at which another one is preferred.
    fn loses_at<const N: usize>(&self, other: &Candidate, steps: &[Step; N]) -> Option<Step> {
        let mut all = steps.iter().copied();
        let step = all.find(|step| self.compare_by(other, *step).is_ne())?;
        self.compare_by(other, step).is_gt().then_some(step)
    }

    /// MED says something among routes of one neighbour AS only (RFC 4271 §9.1.2.2 c).
    #[inline]
    fn has_lower_med(&self, other: &Candidate) -> bool {
        self.hot.neighbour == other.hot.neighbour && self.compare_by(other, Step::Med).is_lt()
    }

    /// RFC 4456 §9: ORIGINATOR_ID in place of the neighbour's identifier.
    #[inline]
    fn identifier(&self) -> Ipv4Addr {
        self.hot.originator.unwrap_or(self.router_id)
    }
}

/// Judges all routes for a prefix. Returns how each of them stands, and the indexes of those in
/// use, the best one first.
pub(super) fn select(
    candidates: &[Candidate],
    max_paths: u16,
    relaxed: AsPaths,
) -> (Vec<Standing>, Vec<usize>) {
    let mut standings = vec![
        Standing {
            verdict: Verdict::NextHopUnreachable,
            lost: None,
        };
        candidates.len()
    ];
    let Some(best) = best(candidates.iter().copied().enumerate()) else {
        return (standings, Vec::new());
    };
    let mut used = Vec::new();
    for (at, candidate) in candidates.iter().enumerate() {
        if candidate.metric.is_none() {
            continue;
        }
        let lost = lost_to(candidates, at, best);
        let verdict = match lost {
            None => Verdict::Best,
            Some((_, step)) if !step.breaks_a_tie() => Verdict::Lost(step),
            Some(_)
                if relaxed == AsPaths::Equal
                    && candidate.hot.path_print != candidates[best].hot.path_print =>
            {
                Verdict::OtherAsPath
            }
            Some(_) => Verdict::Multipath,
        };
        if matches!(verdict, Verdict::Best | Verdict::Multipath) {
            used.push(at);
        }
        standings[at] = Standing { verdict, lost };
    }
    used.sort_by(|&a, &b| candidates[a].compare(&candidates[b], &Step::AFTER_MED));
    for &beyond in used.iter().skip(max_paths.max(1).into()) {
        standings[beyond].verdict = Verdict::BeyondPathLimit;
    }
    used.truncate(max_paths.max(1).into());
    (standings, used)
}

/// The route that another one lost to and the step that decided it; `None` for the best one.
fn lost_to(candidates: &[Candidate], at: usize, best: usize) -> Option<(usize, Step)> {
    let (this, winner) = (&candidates[at], &candidates[best]);
    if let Some(step) = this.loses_at(winner, &Step::BEFORE_MED) {
        return Some((best, step));
    }
    // Where MED decides it need not be the best one that has the lower: that may have another
    // neighbour AS.
    let still_in = |other: &Candidate| {
        other.metric.is_some() && other.compare(winner, &Step::BEFORE_MED).is_eq()
    };
    let lower = candidates.iter().enumerate();
    let lower = lower.filter(|(_, other)| this.hot.med > 0 && still_in(other));
    let lower = lower.filter(|(_, other)| other.has_lower_med(this));
    if let Some((least, _)) = lower.min_by_key(|(_, other)| other.hot.med) {
        return Some((least, Step::Med));
    }
    let step = this.loses_at(winner, &Step::AFTER_MED)?;
    Some((best, step))
}

#[cfg(test)]
mod tests;
