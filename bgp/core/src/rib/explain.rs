// SPDX-License-Identifier: Apache-2.0
//! Why a destination is routed and announced as it is.
//!
//! Nothing is decided here: the steps come from selection ([`Step`]), what is not considered from
//! the table ([`Rejection`]), what goes out from export ([`Withheld`]), each by the same code that
//! the tables run on.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Instant;

use bgp_wire::{Destination, PathAttributes, RouteDistinguisher, VpnPrefix};
use ipnet::IpNet;
use router_types::Family;

use super::best::{Standing, Step, Verdict};
use super::export::{Outgoing, Withheld};
use super::keys::DestId;
use super::neighbour::Neighbour;
use super::query::RouteView;
use super::rejection::Rejection;
use super::table::Path;
use super::{PeerId, Rib, slot_of};
use crate::config::PeerName;
use crate::policy::PolicyName;

/// All there is to say about a destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// The destination.
    pub destination: Destination,
    /// Its routes: the best one first, those that are not considered last.
    pub paths: Vec<PathExplanation>,
    /// The neighbours that have no route for it here.
    pub silent: Vec<(PeerName, Silence)>,
    /// The nearest prefix around it with a route that can be used, of the same route distinguisher
    /// where it has one.
    pub covering: Option<IpNet>,
    /// The aggregate that is announced in its place.
    pub suppressed_by: Option<IpNet>,
    /// What each neighbour is sent.
    pub adverts: Vec<AdvertExplanation>,
}

/// A route for a destination, with what its verdict rests on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathExplanation {
    /// The route and its verdict.
    pub route: RouteView,
    /// The comparison that it lost; `None` for the best one and for those that were not compared.
    /// Routes that are used together lose by what breaks the tie.
    pub lost: Option<Comparison>,
    /// The policy that decided, where one did.
    pub policy: Option<PolicyStatement>,
}

/// Two routes at the step of selection that told them apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// The step.
    pub step: Step,
    /// What the route has.
    pub value: String,
    /// What the other one has.
    pub other: String,
    /// The neighbour the other one is from.
    pub against: PeerName,
}

/// A statement of a policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyStatement {
    /// The policy.
    pub policy: PolicyName,
    /// The statement's name; `None` for the policy's default.
    pub statement: Option<String>,
}

/// Why a neighbour has no route for a destination here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Silence {
    /// The session is not established.
    NotEstablished,
    /// The session does not carry the family.
    FamilyNotNegotiated,
    /// It has not sent one, or has withdrawn it.
    NotSent,
}

/// What a neighbour is sent for a destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdvertExplanation {
    /// The neighbour.
    pub peer: PeerName,
    /// Each route looked at for it: one, or more where it takes several (RFC 7911).
    pub routes: Vec<Advert>,
    /// Whether it has yet to be told of a change.
    pub is_pending: bool,
    /// Bytes that are not written to it yet.
    pub waiting_bytes: usize,
}

/// A route on its way to a neighbour.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advert {
    /// The neighbour it is from; `None` for the node's own, and where there is no route.
    pub from: Option<PeerName>,
    /// The attributes and next hop it is sent with, or why it is not.
    pub outcome: Result<(PathAttributes, IpAddr), Withheld>,
    /// The policy that decided, where one did.
    pub policy: Option<PolicyStatement>,
}

impl Silence {
    /// The word for programs.
    pub fn name(self) -> &'static str {
        match self {
            Silence::NotEstablished => "not-established",
            Silence::FamilyNotNegotiated => "family-not-negotiated",
            Silence::NotSent => "not-sent",
        }
    }
}

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Silence::NotEstablished => "the session is not established",
            Silence::FamilyNotNegotiated => "the session does not carry the family",
            Silence::NotSent => "it has sent no route for the prefix",
        })
    }
}

impl Rib {
    /// Explains a destination: why each route for it is used or not, and why each neighbour, or the
    /// one named, is sent it or not. Costs some microseconds for each neighbour.
    pub fn explain(
        &self,
        destination: impl Into<Destination>,
        peer: Option<&PeerName>,
        now: Instant,
    ) -> Explanation {
        let destination = trunc(destination.into());
        let plain = match destination {
            Destination::Ip(prefix) => Some(prefix),
            Destination::Vpn(_) | Destination::RouteTarget(_) => None,
        };
        let mut explanation = Explanation {
            destination,
            paths: Vec::new(),
            silent: Vec::new(),
            covering: self.covering(&destination),
            suppressed_by: plain.and_then(|prefix| self.aggregates.suppressing(&prefix)),
            adverts: Vec::new(),
        };
        let family = destination.family();
        let Some(slot) = slot_of(family) else {
            return explanation;
        };
        let id = self.tables[slot].keys.find_destination(&destination);
        let mut heard: Vec<PeerId> = Vec::new();
        if let Some(id) = id {
            let paths = self.tables[slot].sorted(id);
            heard.extend(paths.iter().map(|path| path.peer));
            explanation.paths = self.paths_of(slot, id, &paths, destination, now);
        }
        let named = self
            .neighbours
            .ids()
            .iter()
            .filter(|(name, _)| peer.is_none_or(|peer| peer == *name));
        for (name, &number) in named {
            let Some(neighbour) = self.neighbours.get(number) else {
                continue;
            };
            if !heard.contains(&number) {
                let why = silence(neighbour, family);
                explanation.silent.push((name.clone(), why));
            }
            explanation
                .adverts
                .push(self.advert(number, neighbour, slot, id));
        }
        explanation
    }

    /// The destination an address is routed by: the most specific one with a route in use, of a route
    /// distinguisher where one is named.
    pub fn longest_match(
        &self,
        address: IpAddr,
        rd: Option<RouteDistinguisher>,
    ) -> Option<Destination> {
        let host = with_prefix(rd, IpNet::from(address));
        if self.is_routed(&host) {
            return Some(host);
        }
        self.covering(&host).map(|prefix| with_prefix(rd, prefix))
    }

    fn covering(&self, destination: &Destination) -> Option<IpNet> {
        let rd = match destination {
            Destination::Vpn(vpn) => Some(vpn.rd),
            Destination::Ip(_) | Destination::RouteTarget(_) => None,
        };
        let prefix = destination.prefix()?;
        let mut wider = std::iter::successors(prefix.supernet(), IpNet::supernet);
        wider.find(|wider| self.is_routed(&with_prefix(rd, *wider)))
    }

    fn is_routed(&self, destination: &Destination) -> bool {
        let Some(slot) = slot_of(destination.family()) else {
            return false;
        };
        let table = &self.tables[slot];
        let id = table.keys.find_destination(destination);
        id.is_some_and(|id| table.local.contains(id) || self.best_path(slot, id).is_some())
    }

    fn paths_of(
        &self,
        slot: usize,
        id: DestId,
        paths: &[Path],
        destination: Destination,
        now: Instant,
    ) -> Vec<PathExplanation> {
        let is_local = self.tables[slot].local.contains(id);
        let (standings, _) = self.judge(paths);
        let mut all: Vec<PathExplanation> = Vec::with_capacity(paths.len() + 1);
        if is_local {
            all.push(PathExplanation {
                route: self.own_view(destination),
                lost: None,
                policy: None,
            });
        }
        for (path, standing) in paths.iter().zip(&standings) {
            let Standing { verdict, lost } = *standing;
            let beside_local = is_local && path.rejected.is_none();
            let verdict = if beside_local {
                Verdict::LocalRoute
            } else {
                verdict
            };
            let lost = lost.filter(|_| !beside_local);
            all.push(PathExplanation {
                route: self.view(destination, path, verdict, now),
                lost: lost.and_then(|(to, step)| self.comparison(path, &paths[to], step)),
                policy: match verdict {
                    Verdict::Rejected(Rejection::Policy(at)) => {
                        let neighbour = self.neighbours.get(path.peer);
                        let family = self.tables[slot].family;
                        neighbour.and_then(|neighbour| {
                            let config = neighbour.config.families().get(&family)?;
                            self.statement(config.import_policy.as_ref()?, at)
                        })
                    }
                    _ => None,
                },
            });
        }
        all.sort_by_key(|path| match path.route.verdict {
            // Who came far is near the best one.
            Some(Verdict::Lost(step)) => (1, None, Some(Reverse(step))),
            Some(verdict @ (Verdict::NextHopUnreachable | Verdict::Rejected(_))) => {
                (2, Some(verdict), None)
            }
            verdict => (0, verdict, None),
        });
        all
    }

    fn comparison(&self, path: &Path, other: &Path, step: Step) -> Option<Comparison> {
        let from = self.sources();
        let against = self.neighbours.get(other.peer)?;
        Some(Comparison {
            step,
            value: from.candidate(path)?.value(step),
            other: from.candidate(other)?.value(step),
            against: against.name.clone(),
        })
    }

    fn advert(
        &self,
        number: PeerId,
        neighbour: &Neighbour,
        slot: usize,
        id: Option<DestId>,
    ) -> AdvertExplanation {
        let family = self.tables[slot].family;
        let outgoing = self.exports.explain(number, slot, id, &self.sources());
        let Outgoing {
            routes,
            is_pending,
            waiting_bytes,
        } = outgoing;
        let routes = routes.into_iter().map(|(from, outcome)| Advert {
            from: from
                .and_then(|from| self.neighbours.get(from))
                .map(|neighbour| neighbour.name.clone()),
            policy: match &outcome {
                Err(Withheld::Policy(at)) => {
                    let config = neighbour.config.families().get(&family);
                    let name = config.and_then(|config| config.export_policy.as_ref());
                    name.and_then(|name| self.statement(name, *at))
                }
                Err(_) | Ok(_) => None,
            },
            outcome,
        });
        AdvertExplanation {
            peer: neighbour.name.clone(),
            routes: routes.collect(),
            is_pending,
            waiting_bytes,
        }
    }

    /// A statement of a policy by its place.
    fn statement(&self, name: &PolicyName, at: Option<u8>) -> Option<PolicyStatement> {
        let policy = self.policies.get(name)?;
        let statements = policy.config().statements();
        let statement = at.and_then(|at| statements.get(usize::from(at)));
        Some(PolicyStatement {
            policy: name.clone(),
            statement: statement.map(|statement| statement.name.clone()),
        })
    }
}

/// A prefix, of a VPN where there is a distinguisher.
fn with_prefix(rd: Option<RouteDistinguisher>, prefix: IpNet) -> Destination {
    match rd {
        Some(rd) => Destination::Vpn(VpnPrefix { rd, prefix }),
        None => Destination::Ip(prefix),
    }
}

/// Without host bits.
fn trunc(destination: Destination) -> Destination {
    match destination {
        Destination::Ip(prefix) => Destination::Ip(prefix.trunc()),
        Destination::Vpn(vpn) => with_prefix(Some(vpn.rd), vpn.prefix.trunc()),
        Destination::RouteTarget(target) => Destination::RouteTarget(target),
    }
}

fn silence(neighbour: &Neighbour, family: Family) -> Silence {
    let session = neighbour.session.as_ref().filter(|_| neighbour.up);
    match session {
        None => Silence::NotEstablished,
        Some(session) if session.families.iter().any(|f| f.family == family) => Silence::NotSent,
        Some(_) => Silence::FamilyNotNegotiated,
    }
}
