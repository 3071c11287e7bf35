// SPDX-License-Identifier: Apache-2.0
//! What a group announces for a destination, and how it reads.

use std::collections::BTreeSet;

use bgp_wire::{Label, PathAttributes, PathNextHop};
use ipnet::IpNet;
use router_types::{Family, Safi};

use super::group::{GroupKey, Outlet, View};
use super::local::Told;
use super::rewrite::{Reflected, is_passed_on_alike, pass_on};
use super::{PeerId, Sources, Target, Withheld, local};
use crate::config::{ExportAttributes, NextHopMode};
use crate::policy::{Decision, Judgement, NextHopChange, Policy, RouteContext, RouteOrigin};
use crate::rib::attributes::{AttrId, Hot, decode};
use crate::rib::best::{Candidate, best};
use crate::rib::intake::PolicyUse;
use crate::rib::keys::{DestId, SPREAD, fold};
use crate::rib::neighbour::Neighbour;
use crate::rib::next_hop::HopId;
use crate::rib::table::{BestKey, Path, Table};
use crate::rib::targets::{Wanted, is_vpn};

/// What destinations have in common that are announced with equal attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run<'v> {
    pub(super) source: Source<'v>,
    /// What policy decided, where there is one.
    decision: Option<Decision>,
}

/// The identifier of a route of the node itself.
const LOCAL_PATH: u32 = 1;

/// The identifier a neighbour's route is announced with (RFC 7911 §3): the neighbour's number, or
/// for one of several a number out of both, whatever identifiers the neighbour gives.
fn identifier(path: &Path) -> u32 {
    const SEVERAL: u32 = 1 << 31;
    match path.path_id {
        0 => u32::from(path.peer) + 2,
        id => fold(u64::from(id) << 16 | u64::from(path.peer), SPREAD) as u32 | SEVERAL,
    }
}

/// Where a route is from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source<'v> {
    Learned(BestKey),
    Local(&'v Told),
    /// A membership as clients are told of it, the one it came from as well: others may want the
    /// same (RFC 4684 §3.2 i).
    Reflected(BestKey),
}

/// What neighbours are told of this speaker's own memberships.
static MEMBERSHIP: Told = Told::Own(ExportAttributes {
    communities: BTreeSet::new(),
    large_communities: BTreeSet::new(),
    local_pref: None,
    med: None,
    source: RouteOrigin::Internal,
});

/// Decides for the destinations of a table, remembering the last decision: what changes together
/// mostly has equal attributes.
pub(super) struct Choice<'g> {
    key: &'g GroupKey,
    view: &'g View,
    wanted: &'g Wanted,
    table: &'g Table,
    outlet: &'g Outlet,
    from: &'g Sources<'g>,
    last: Option<(BestKey, Passage<'g>)>,
}

/// Whether a set of attributes goes out.
#[derive(Clone, Copy)]
struct Passage<'g> {
    gate: Gate<'g>,
    /// Whether it may be too long for a message, so that it has to be looked at as it goes.
    is_long: bool,
}

#[derive(Clone, Copy)]
enum Gate<'g> {
    Open,
    Closed(Withheld),
    ByPolicy(Judgement<'g>),
}

/// How far down the routes for a destination are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Depth {
    /// To the last one that is announced.
    Announced,
    /// To the last one.
    All,
}

impl<'v> Run<'v> {
    /// Who said it, unless the node itself.
    pub(super) fn peer(&self) -> Option<PeerId> {
        match self.source {
            Source::Learned(best) => Some(best.peer),
            Source::Local(_) | Source::Reflected(_) => None,
        }
    }
}

impl<'g> Choice<'g> {
    /// `None` where the group is sent nothing of the family.
    pub(super) fn new(
        key: &'g GroupKey,
        view: &'g View,
        wanted: &'g Wanted,
        table: &'g Table,
        from: &'g Sources<'g>,
    ) -> Option<Choice<'g>> {
        Some(Choice {
            key,
            view,
            wanted,
            table,
            outlet: key.outlet(table.family)?,
            from,
            last: None,
        })
    }

    /// Whether several routes are sent for a destination.
    pub(super) fn sends_several(&self) -> bool {
        self.outlet.paths.is_some()
    }

    /// Whether anything is announced for a destination.
    pub(super) fn announces(&mut self, id: DestId) -> bool {
        if self.sends_several() {
            !self.runs(id).is_empty()
        } else {
            self.run(id).is_some()
        }
    }

    /// What is announced for a destination; `None` for nothing.
    #[inline]
    pub(super) fn run(&mut self, id: DestId) -> Option<Run<'g>> {
        self.try_run(id).ok()
    }

    /// What is announced for a destination, or why nothing is.
    #[inline]
    pub(super) fn try_run(&mut self, id: DestId) -> Result<Run<'g>, Withheld> {
        if self.from.drained && !self.is_membership() {
            return Err(Withheld::Drained);
        }
        if self.is_suppressed(id) {
            return Err(Withheld::Suppressed);
        }
        if self.is_membership() && self.table.local.contains(id) {
            // What is asked for is configured; no policy keeps it back.
            return Ok(Run {
                source: Source::Local(&MEMBERSHIP),
                decision: None,
            });
        }
        if self.table.local.contains(id)
            && let Some(told) = self.view.get(&self.table.keys.prefix(id))
        {
            return self.local_run(told, id);
        }
        if !self.from.transit {
            return Err(Withheld::NoTransit);
        }
        let best = if self.is_membership() {
            self.best_membership(id)
        } else {
            self.from.best(self.table, id)
        };
        let best = best.ok_or(Withheld::NoRoute)?;
        let passage = match self.last {
            Some((last, passage)) if last == best => passage,
            Some(_) | None => {
                let passage = self.passage(best);
                self.last = Some((best, passage));
                passage
            }
        };
        self.through(passage, best, id)
    }

    fn through(
        &self,
        passage: Passage<'g>,
        best: BestKey,
        id: DestId,
    ) -> Result<Run<'g>, Withheld> {
        let decision = match passage.gate {
            Gate::Closed(why) => return Err(why),
            Gate::Open => None,
            Gate::ByPolicy(judgement) => Some(self.decide(&judgement, id)?),
        };
        let source = self.source(best);
        let run = Run { source, decision };
        if self.key.alone.is_some() && run.peer() == self.key.alone {
            return Err(Withheld::SplitHorizon);
        }
        if passage.is_long && !self.fits(&run) {
            return Err(Withheld::TooLong);
        }
        Ok(run)
    }

    /// Whether a run goes into a message.
    fn fits(&self, run: &Run<'_>) -> bool {
        let mut bytes = Vec::new();
        let hop = self.encode(run, self.key.four_octet_as, &mut bytes);
        hop.is_none_or(|hop| {
            let context = self.outlet.family.context();
            bgp_wire::fits(&context, self.key.max_len, bytes.len(), hop)
        })
    }

    /// Whether attributes leave little room in a message. What is added on the way out is much less
    /// than half of one; where a policy adds more, the route is left out when it is written.
    fn is_long(&self, attributes: &[u8]) -> bool {
        attributes.len() > self.key.max_len / 2
    }

    fn is_membership(&self) -> bool {
        self.table.family == Family::ROUTE_TARGET
    }

    /// The route a membership is told of by: to those that are not reflected to, one that goes to
    /// them where there is any, though another is the best (RFC 4684 §3.2 ii).
    fn best_membership(&self, id: DestId) -> Option<BestKey> {
        let (first, more) = self.table.paths(id);
        let goes = |path: &&Path| {
            let source = self.from.neighbours.get(path.peer);
            match (self.key.target, source) {
                (_, None) => false,
                (Target::Internal { client: false }, Some(source)) => {
                    source.is_external() || source.config.route_reflector_client
                }
                (Target::Internal { client: true } | Target::External, Some(_)) => true,
            }
        };
        let paths = first.into_iter().chain(more).filter(goes);
        let usable: Vec<(Candidate, &Path)> = paths
            .filter(|path| path.rejected.is_none())
            .filter_map(|path| Some((self.from.candidate(path)?, path)))
            .collect();
        let at = best(usable.iter().map(|(candidate, _)| *candidate).enumerate())?;
        usable.get(at).map(|(_, path)| BestKey::from(*path))
    }

    fn source(&self, best: BestKey) -> Source<'g> {
        let from = self.from.neighbours.get(best.peer);
        let internal = from.is_some_and(|source| !source.is_external());
        let to_client = self.key.target == Target::Internal { client: true };
        if self.is_membership() && internal && to_client {
            Source::Reflected(best)
        } else {
            Source::Learned(best)
        }
    }

    /// The routes announced for a destination where several may be, the best one first, with
    /// identifiers.
    pub(super) fn runs(&mut self, id: DestId) -> Vec<(Run<'g>, u32)> {
        let mut runs: Vec<(Run<'g>, u32)> = Vec::new();
        for (_, path_id, run) in self.try_runs(id, Depth::Announced) {
            runs.extend(run.ok().map(|run| (run, path_id)));
        }
        runs
    }

    /// What becomes of the routes for a destination where several may be announced, the best one
    /// first, with who said them and identifiers.
    pub(super) fn try_runs(
        &mut self,
        id: DestId,
        depth: Depth,
    ) -> Vec<(Option<PeerId>, u32, Result<Run<'g>, Withheld>)> {
        if self.from.drained && !self.is_membership() {
            return vec![(None, LOCAL_PATH, Err(Withheld::Drained))];
        }
        if self.is_suppressed(id) {
            return vec![(None, LOCAL_PATH, Err(Withheld::Suppressed))];
        }
        if self.is_membership() {
            let run = self.try_run(id);
            let peer = run.as_ref().ok().and_then(Run::peer);
            return vec![(peer, LOCAL_PATH, run)];
        }
        if self.table.local.contains(id)
            && let Some(told) = self.view.get(&self.table.keys.prefix(id))
        {
            return vec![(None, LOCAL_PATH, self.local_run(told, id))];
        }
        if !self.from.transit {
            return Vec::new();
        }
        let (first, more) = self.table.paths(id);
        let paths = first.into_iter().chain(more);
        let mut left: Vec<(usize, Candidate, &Path)> = paths
            .filter(|path| path.rejected.is_none())
            .filter_map(|path| Some((self.from.candidate(path)?, path)))
            .enumerate()
            .map(|(at, (candidate, path))| (at, candidate, path))
            .collect();
        let mut all: Vec<(Option<PeerId>, u32, Result<Run<'g>, Withheld>)> = Vec::new();
        let mut announced: Vec<u32> = Vec::new();
        while let Some(best) = best(left.iter().map(|(at, candidate, _)| (*at, *candidate))) {
            let is_full = announced.len() >= self.outlet.most_paths();
            if is_full && depth == Depth::Announced {
                break;
            }
            let Some(place) = left.iter().position(|(at, _, _)| *at == best) else {
                break;
            };
            let (_, _, path) = left.remove(place);
            let key = BestKey::from(path);
            let path_id = identifier(path);
            let run = match self.through(self.passage(key), key, id) {
                Ok(_) if is_full => Err(Withheld::PathsTaken),
                // Two of a neighbour's identifiers came to the same one: vanishingly rare.
                Ok(_) if announced.contains(&path_id) => Err(Withheld::PathsTaken),
                other => other,
            };
            // Its own takes a place, with a limit of routes or without.
            if matches!(run, Ok(_) | Err(Withheld::SplitHorizon)) {
                announced.push(path_id);
            }
            all.push((Some(path.peer), path_id, run));
        }
        all
    }

    /// Appends the attributes of a run as members are sent them, and returns the next hop.
    pub(super) fn encode(
        &self,
        run: &Run<'_>,
        four_octet_as: bool,
        out: &mut Vec<u8>,
    ) -> Option<PathNextHop> {
        let plain = self.key.edit.is_plain() && run.decision.is_none();
        let (mut attributes, source) = match run.source {
            Source::Local(told) => {
                let attributes = local::attributes(told, self.key);
                (attributes, None)
            }
            Source::Reflected(best) => {
                let mut attributes = decode(self.from.attributes.bytes(best.attributes)?);
                attributes.originator_id = Some(self.from.router_id);
                (attributes, Some((best, self.reflected(best.peer))))
            }
            Source::Learned(best) => {
                let bytes = self.from.attributes.bytes(best.attributes)?;
                let reflected = self.reflected(best.peer);
                if plain {
                    let (target, asn) = (self.key.target, self.from.local_asn);
                    pass_on(bytes, target, four_octet_as, asn, reflected, out);
                    return self.next_hop(Some(best), None);
                }
                (decode(bytes), Some((best, reflected)))
            }
        };
        // The policy saw the route as it is, and changes what of it may go out.
        if source.is_some() {
            self.key.edit.strip(&mut attributes, self.key.target);
        }
        let mut change = None;
        if let (Some(decision), PolicyUse::Policy(policy)) = (run.decision, &self.outlet.policy) {
            (attributes, change) = policy.apply(decision, attributes, self.from.local_asn);
        }
        let reflected = source.and_then(|(_, reflected)| reflected);
        let (target, own) = (self.key.target, self.from.local_asn);
        self.key
            .edit
            .finish(&mut attributes, target, own, reflected);
        attributes.encode(four_octet_as, out);
        if matches!(run.source, Source::Reflected(_)) {
            return Some(self.outlet.own_hop);
        }
        self.next_hop(source.map(|(best, _)| best), change)
    }

    /// Whether two runs of one neighbour are sent with equal attributes and next hop.
    pub(super) fn is_sent_alike(&self, a: &Run<'_>, b: &Run<'_>) -> bool {
        let plain = self.key.edit.is_plain() && (a.decision, b.decision) == (None, None);
        if let (Source::Learned(x), Source::Learned(y), true) = (a.source, b.source, plain)
            && self.reflected(x.peer).is_none()
            && let Some(old) = self.from.attributes.bytes(x.attributes)
            && let Some(new) = self.from.attributes.bytes(y.attributes)
        {
            return is_passed_on_alike(old, new, self.key.target)
                && self.next_hop(Some(x), None) == self.next_hop(Some(y), None);
        }
        let (mut old, mut new) = (Vec::new(), Vec::new());
        let hops = (
            self.encode(a, true, &mut old),
            self.encode(b, true, &mut new),
        );
        hops.0 == hops.1 && old == new
    }

    /// A route that was announced, where no policy had a say: what that decided is not known.
    pub(super) fn former(&self, was: BestKey) -> Option<Run<'g>> {
        matches!(self.outlet.policy, PolicyUse::None).then_some(Run {
            source: Source::Learned(was),
            decision: None,
        })
    }

    /// An order in which runs that read alike are neighbours.
    #[expect(
        clippy::type_complexity,
        reason = "a tuple to compare by, used in one place"
    )]
    pub(super) fn order<'v>(
        &self,
        run: &Run<'v>,
    ) -> (
        Option<&'v Told>,
        Option<(PeerId, AttrId, HopId)>,
        Option<Decision>,
    ) {
        match run.source {
            Source::Learned(best) | Source::Reflected(best) => {
                let hop = self.from.next_hops.plain(best.next_hop);
                (None, Some((best.peer, best.attributes, hop)), run.decision)
            }
            Source::Local(told) => (Some(told), None, run.decision),
        }
    }

    /// Whether runs go in one message: labels stand with the destinations.
    #[inline]
    pub(super) fn reads_alike(&self, a: &Run<'_>, b: &Run<'_>) -> bool {
        match (a.source, b.source) {
            (Source::Learned(x), Source::Learned(y)) => {
                let plain = |best: BestKey| BestKey {
                    next_hop: self.from.next_hops.plain(best.next_hop),
                    ..best
                };
                plain(x) == plain(y) && a.decision == b.decision
            }
            (_, _) => a == b,
        }
    }

    /// The label a run is announced with, where its family has labels.
    #[inline]
    pub(super) fn label(&self, run: &Run<'_>) -> Option<Label> {
        match run.source {
            Source::Learned(best) => self.from.next_hops.label(best.next_hop),
            Source::Local(_) | Source::Reflected(_) => None,
        }
    }

    /// Whether an aggregate is announced in place of a destination. Aggregates stand for no other
    /// aggregate.
    #[inline]
    fn is_suppressed(&self, id: DestId) -> bool {
        if self.from.aggregates.is_empty() || self.table.family.safi != Safi::UNICAST {
            return false;
        }
        let prefix = self.table.keys.prefix(id);
        self.from.aggregates.is_suppressed(&prefix)
            && !matches!(self.view.get(&prefix), Some(Told::Aggregate(_)))
    }

    fn local_run(&self, told: &'g Told, id: DestId) -> Result<Run<'g>, Withheld> {
        if let Told::Aggregate(bytes) = told {
            let hot = Hot::read(bytes, self.from.local_asn);
            let external = self.key.target == Target::External;
            // RFC 1997: an aggregate obeys the communities it has.
            let withheld = match () {
                () if hot.no_advertise => Some(Withheld::NoAdvertise),
                () if external && hot.no_export => Some(Withheld::NoExport),
                () => self.key.edit.withholds(&hot),
            };
            if let Some(why) = withheld {
                return Err(why);
            }
        }
        let decision = match &self.outlet.policy {
            PolicyUse::None | PolicyUse::Deny => None,
            PolicyUse::Missing => return Err(Withheld::PolicyMissing),
            PolicyUse::Policy(policy) => {
                let attributes = local::attributes(told, self.key);
                let judgement = self.judge(policy, &attributes, Source::Local(told));
                Some(self.decide(&judgement, id)?)
            }
        };
        let run = Run {
            source: Source::Local(told),
            decision,
        };
        match told {
            Told::Aggregate(bytes) if self.is_long(bytes) && !self.fits(&run) => {
                Err(Withheld::TooLong)
            }
            Told::Aggregate(_) | Told::Own(_) => Ok(run),
        }
    }

    fn decide(&self, judgement: &Judgement<'_>, id: DestId) -> Result<Decision, Withheld> {
        let settled = judgement.settled();
        let prefix = || -> IpNet { self.table.keys.prefix(id) };
        match settled.unwrap_or_else(|| judgement.decide(&prefix())) {
            Decision::Reject(by) => Err(Withheld::Policy(by)),
            decision @ Decision::Accept(_) => Ok(decision),
        }
    }

    /// Whether a learned route is passed on (RFC 4271 §9.2, RFC 1997, RFC 4456 §6, RFC 9234 §5).
    fn passage(&self, best: BestKey) -> Passage<'g> {
        let bytes = self.from.attributes.bytes(best.attributes);
        Passage {
            gate: self.gate(best),
            is_long: bytes.is_some_and(|bytes| self.is_long(bytes)),
        }
    }

    fn gate(&self, best: BestKey) -> Gate<'g> {
        let (Some(hot), Some(source)) = (
            self.from.attributes.hot(best.attributes),
            self.from.neighbours.get(best.peer),
        ) else {
            return Gate::Closed(Withheld::NoRoute);
        };
        let withheld = match self.key.target {
            _ if hot.no_advertise => Some(Withheld::NoAdvertise),
            Target::External if hot.no_export => Some(Withheld::NoExport),
            Target::Internal { client } => {
                let reflects =
                    source.is_external() || source.config.route_reflector_client || client;
                (!reflects).then_some(Withheld::NotReflected)
            }
            Target::External => None,
        };
        let withheld = withheld.or_else(|| self.key.edit.withholds(hot));
        let withheld = withheld.or_else(|| self.withholds_vpn(best));
        if let Some(why) = withheld {
            return Gate::Closed(why);
        }
        match &self.outlet.policy {
            PolicyUse::Deny => Gate::Closed(Withheld::NoPolicy),
            PolicyUse::Missing => Gate::Closed(Withheld::PolicyMissing),
            PolicyUse::None => Gate::Open,
            PolicyUse::Policy(policy) => match self.from.attributes.attributes(best.attributes) {
                Some(attributes) => {
                    Gate::ByPolicy(self.judge(policy, &attributes, Source::Learned(best)))
                }
                None => Gate::Closed(Withheld::NoRoute),
            },
        }
    }

    /// Why a route of a VPN does not go: it goes with its next hop unchanged or not at all, and only
    /// to who wants it.
    fn withholds_vpn(&self, best: BestKey) -> Option<Withheld> {
        if !is_vpn(self.table.family) {
            return None;
        }
        let external = self.key.target == Target::External;
        let unchanged = match self.outlet.next_hop {
            _ if self.outlet.fixed_hop => false,
            NextHopMode::ToSelf => false,
            NextHopMode::Unchanged => true,
            NextHopMode::Auto => !external,
        };
        let hop = self.from.next_hops.address(best.next_hop);
        let possible = hop.is_some_and(|hop| self.outlet.takes(&hop.into()));
        let bytes = || self.from.attributes.bytes(best.attributes).unwrap_or(&[]);
        match () {
            () if !unchanged || !possible => Some(Withheld::NoLabel),
            () if !self.wanted.takes(bytes()) => Some(Withheld::NotWanted),
            () => None,
        }
    }

    fn judge<'p>(
        &self,
        policy: &'p Policy,
        attributes: &PathAttributes,
        source: Source<'_>,
    ) -> Judgement<'p> {
        let (best, own) = match source {
            Source::Learned(best) | Source::Reflected(best) => (Some(best), RouteOrigin::default()),
            Source::Local(told) => (None, told.origin()),
        };
        let source = best.and_then(|best| self.from.neighbours.get(best.peer));
        let hop = best.and_then(|best| self.from.next_hops.address(best.next_hop));
        let context = RouteContext {
            family: self.table.family,
            next_hop: hop.map(|hop| hop.address),
            source: match source {
                Some(source) if source.is_external() => RouteOrigin::External,
                Some(_) => RouteOrigin::Internal,
                None => own,
            },
            learned_from: source.map(|source| &source.name),
            peer_asn: self.key.peer_asn.unwrap_or(self.key.edit.session_asn),
            local_asn: self.from.local_asn,
        };
        policy.judge(attributes, &context)
    }

    /// The next hop to announce (RFC 4271 §5.1.3, RFC 4456 §10): what policy says, what is
    /// configured, else what was received within the own AS, and this end to others, unless the
    /// route leads to another router on the network shared with them.
    fn next_hop(
        &self,
        best: Option<BestKey>,
        change: Option<NextHopChange>,
    ) -> Option<PathNextHop> {
        let own = self.outlet.own_hop;
        let received = best
            .and_then(|best| self.from.next_hops.address(best.next_hop))
            .map(PathNextHop::from)
            .filter(|hop| self.outlet.takes(hop));
        let internal = self.key.target != Target::External;
        match (change, self.outlet.next_hop) {
            // The label is of the next hop it came with, whatever a policy says.
            (_, _) if is_vpn(self.table.family) => received,
            (Some(NextHopChange::Address(address)), _) => {
                let hop = PathNextHop::from_address(address);
                Some(if self.outlet.takes(&hop) { hop } else { own })
            }
            (Some(NextHopChange::Own), _) => Some(own),
            (Some(NextHopChange::Unchanged), _) => received.or(Some(own)),
            (None, _) if self.outlet.fixed_hop => Some(own),
            (None, NextHopMode::ToSelf) => Some(own),
            (None, NextHopMode::Unchanged) => received.or(Some(own)),
            (None, NextHopMode::Auto) if internal => received.or(Some(own)),
            (None, NextHopMode::Auto) => match (best, received) {
                (Some(best), Some(hop)) if self.is_third_party(best.peer, &hop) => Some(hop),
                (_, _) => Some(own),
            },
        }
    }

    /// Whether a next hop is one that members of the group reach as this speaker does (RFC 4271
    /// §5.1.3 2 b): on the network shared with them, and either the neighbour that sent the route
    /// or nobody there is a session with. Another neighbour would be sent itself as next hop.
    fn is_third_party(&self, sender: PeerId, hop: &PathNextHop) -> bool {
        let address = hop.address();
        if !self
            .outlet
            .network
            .is_some_and(|net| net.contains(&address))
        {
            return false;
        }
        let remote = |neighbour: &Neighbour| {
            let session = neighbour.session.as_ref();
            session.map(|session| session.addresses.remote.ip())
        };
        let neighbours = self.from.neighbours;
        neighbours.get(sender).and_then(remote) == Some(address)
            || neighbours
                .iter()
                .all(|other| remote(other) != Some(address))
    }

    fn reflected(&self, source: PeerId) -> Option<Reflected> {
        let session = self.from.neighbours.get(source)?.session.as_ref()?;
        let reflects = session.internal && self.key.target != Target::External;
        reflects.then_some(Reflected {
            originator: session.peer_router_id,
            cluster: self.from.cluster_id,
        })
    }
}

impl Sources<'_> {
    /// The best learned route of a destination.
    #[inline]
    pub(super) fn best(&self, table: &Table, id: DestId) -> Option<BestKey> {
        let (first, _) = table.paths(id);
        first
            .filter(|path| {
                path.rejected.is_none() && self.next_hops.metric(path.next_hop).is_some()
            })
            .map(BestKey::from)
    }
}
