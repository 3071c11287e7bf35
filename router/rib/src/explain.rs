// SPDX-License-Identifier: Apache-2.0
//! Why a prefix is routed the way it is.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use router_types::{Forwarding, LinkIndex, NextHop, RouteKey, RouteSource};

use crate::forwarding::{Unresolved, resolve};
use crate::rib::{OriginId, Rib};
use crate::topology::KernelRoute;

/// Everything that bears on one prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// Table and destination.
    pub key: RouteKey,
    /// What was put out for it.
    pub installed: Option<Arc<Forwarding>>,
    /// Who offers a route, most preferred first.
    pub candidates: Vec<CandidateReport>,
    /// Foreign routes to exactly this prefix, most preferred first.
    pub rivals: Vec<Rival>,
}

/// One candidate and its fate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CandidateReport {
    /// Who offers it.
    pub origin: OriginId,
    /// As what.
    pub source: RouteSource,
    /// Its next hops; `None`: it offers to drop packets.
    pub next_hops: Option<Vec<NextHopReport>>,
    /// How it drops packets, where it does.
    pub discard: Option<Forwarding>,
    /// Why it is used or not.
    pub verdict: Verdict,
}

/// One next hop of a candidate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NextHopReport {
    /// As it was offered.
    pub offered: NextHop,
    /// The gateways and devices it resolves to, or why it does not.
    pub resolved: Result<Vec<NextHop>, Unresolved>,
}

/// Why a candidate is used or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Its next hops are used, alone or merged with those of others of the same source.
    Used,
    /// A candidate of a better source is used.
    Outranked(RouteSource),
    /// It offers to drop packets while others of the same source have a way.
    OthersHaveAWay,
    /// None of its next hops can be used; the reason is at each.
    Unresolved,
    /// It must not be written.
    Refused(Refusal),
}

/// Why a route must not be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The node is attached to this network.
    Connected {
        /// The device it is on.
        link: Option<LinkIndex>,
    },
    /// Somebody else's route has the same metric.
    Taken {
        /// Who wrote it.
        protocol: String,
    },
    /// It is inside a connected network that holds a BGP peer.
    PeerNetwork {
        /// That network.
        network: IpNet,
    },
    /// It would lead one of the node's own addresses away.
    OwnAddress {
        /// Which.
        address: IpAddr,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Connected { .. } => f.write_str("this node is attached to that network"),
            Refusal::Taken { protocol } => write!(
                f,
                "a {protocol} route with the same metric is there; remove it or configure another \
                 metric"
            ),
            Refusal::PeerNetwork { network } => {
                write!(
                    f,
                    "it is inside the connected network {network} that holds a BGP peer"
                )
            }
            Refusal::OwnAddress { address } => {
                write!(f, "it would lead this node's own address {address} away")
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Used => f.write_str("used"),
            Verdict::Outranked(source) => write!(f, "a {source} route is preferred"),
            Verdict::OthersHaveAWay => f.write_str("others of its source have a way there"),
            Verdict::Unresolved => f.write_str("no next hop can be used"),
            Verdict::Refused(refusal) => write!(f, "refused: {refusal}"),
        }
    }
}

/// A foreign route to the same prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rival {
    /// The route.
    pub route: KernelRoute,
    /// Which of the two the kernel uses.
    pub rivalry: Rivalry,
}

/// Which of two routes to a prefix the kernel uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rivalry {
    /// Ours is not there.
    Alone,
    /// The foreign one: its metric is lower.
    Theirs,
    /// Ours: its metric is lower.
    Ours,
}

impl Rib {
    /// Explains a prefix, as of the last [`Rib::take_changes`].
    pub fn explain(&self, key: &RouteKey) -> Explanation {
        let installed = self.installed(key).cloned();
        let candidates = self.candidates(key);
        let used_source = candidates
            .iter()
            .find(|c| {
                self.refusal(key, c.source).is_none()
                    && self.forwardings.get(c.forwarding).outcome.is_some()
            })
            .map(|c| c.source);
        let used_has_way = candidates.iter().any(|c| {
            Some(c.source) == used_source
                && matches!(
                    self.forwardings.get(c.forwarding).outcome.as_deref(),
                    Some(Forwarding::Via(_))
                )
        });
        let reports = candidates.iter().map(|candidate| {
            let interned = self.forwardings.get(candidate.forwarding);
            let via_default = self.config().resolve_via_default;
            let (hops, discard) = match &interned.wanted {
                Forwarding::Via(hops) => (Some(hops), None),
                discard => (None, Some(discard.clone())),
            };
            let next_hops = hops.map(|hops| {
                hops.iter()
                    .map(|hop| {
                        let resolved = resolve(&self.topology, via_default, interned.context, *hop);
                        NextHopReport {
                            offered: *hop,
                            resolved: resolved.map(|resolved| resolved.hops),
                        }
                    })
                    .collect()
            });
            let verdict = match (self.refusal(key, candidate.source), used_source) {
                (Some(refusal), _) => Verdict::Refused(refusal),
                (None, Some(used)) if used < candidate.source => Verdict::Outranked(used),
                (None, _) => match interned.outcome.as_deref() {
                    None => Verdict::Unresolved,
                    Some(Forwarding::Unreachable | Forwarding::Blackhole) if used_has_way => {
                        Verdict::OthersHaveAWay
                    }
                    Some(_) => Verdict::Used,
                },
            };
            CandidateReport {
                origin: candidate.origin,
                source: candidate.source,
                next_hops,
                discard,
                verdict,
            }
        });
        let rivalry = |route: &KernelRoute| {
            if installed.is_none() {
                Rivalry::Alone
            } else if effective_metric(key, route.metric)
                <= effective_metric(key, self.config().metric)
            {
                Rivalry::Theirs
            } else {
                Rivalry::Ours
            }
        };
        let rivals = self.topology.routes_to(key).iter();
        Explanation {
            key: *key,
            candidates: reports.collect(),
            rivals: rivals
                .map(|route| Rival {
                    route: route.clone(),
                    rivalry: rivalry(route),
                })
                .collect(),
            installed,
        }
    }
}

/// The kernel reads metric 0 of an IPv6 route as 1024.
fn effective_metric(key: &RouteKey, metric: u32) -> u32 {
    match (key.prefix, metric) {
        (IpNet::V6(_), 0) => 1024,
        (IpNet::V4(_) | IpNet::V6(_), metric) => metric,
    }
}
