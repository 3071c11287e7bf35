// SPDX-License-Identifier: Apache-2.0
//! An update group: what it announces, and to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroU32};
use std::sync::Arc;

use bgp_wire::{Label, PathAttributes, PathNextHop};
use ipnet::IpNet;
use router_types::{Asn, Family};
use smallvec::SmallVec;

use super::choice::{Choice, Run, Source};
use super::edit::Edit;
use super::limit::Limit;
use super::local::Told;
use super::member::Member;
use super::paths::PathsOut;
use super::segments::{Segments, Writer};
use super::{CHUNK, Sources, address};
use crate::config::NextHopMode;
use crate::rib::attributes::decode;
use crate::rib::bits::Bits;
use crate::rib::intake::PolicyUse;
use crate::rib::keys::DestId;
use crate::rib::neighbour::SessionFamily;
use crate::rib::table::{BestKey, Dirty, Table};
use crate::rib::targets::{Wanted, is_vpn};
use crate::rib::{PeerId, slot_of};

/// What neighbours are told about local routes, by prefix.
pub(super) type View = BTreeMap<IpNet, Told>;

/// Whom a route goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::rib) enum Target {
    /// A neighbour of another AS.
    External,
    /// A neighbour of the own AS.
    Internal {
        /// Whether routes are reflected to it whoever sent them (RFC 4456 §5).
        client: bool,
    },
}

/// All that makes a difference in an UPDATE.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::rib) struct GroupKey {
    pub(in crate::rib) target: Target,
    pub(in crate::rib) four_octet_as: bool,
    pub(in crate::rib) max_len: usize,
    /// How each family goes out; one without a possible next hop does not.
    pub(in crate::rib) outlets: Vec<Outlet>,
    pub(in crate::rib) edit: Edit,
    /// The neighbour itself, where it is sent a limited number of routes: it shares them with nobody,
    /// as what it said itself takes no place.
    pub(in crate::rib) alone: Option<PeerId>,
    /// The neighbour's AS, where a policy looks at it.
    pub(in crate::rib) peer_asn: Option<Asn>,
}

/// How a family goes out.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::rib) struct Outlet {
    pub(in crate::rib) family: SessionFamily,
    /// This end, or what is configured.
    pub(in crate::rib) own_hop: PathNextHop,
    /// Whether the next hop is configured, and announced whatever the route.
    pub(in crate::rib) fixed_hop: bool,
    pub(in crate::rib) next_hop: NextHopMode,
    /// The network shared with an external neighbour, whose routers are announced as they are.
    pub(in crate::rib) network: Option<IpNet>,
    pub(in crate::rib) policy: PolicyUse,
    /// How many routes are sent for a destination, where add-path was agreed.
    pub(in crate::rib) paths: Option<NonZeroU8>,
    /// How many destinations are announced at most.
    pub(in crate::rib) limit: Option<NonZeroU32>,
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) key: GroupKey,
    pub(super) view: Arc<View>,
    /// The VPN routes that go (RFC 4684).
    pub(super) wanted: Wanted,
    pub(super) members: BTreeSet<PeerId>,
    /// Whether everything has to be looked at again, whatever the tables say.
    pub(super) reconsider: bool,
    /// Destinations announced, by table.
    pub(super) announced: Vec<Bits>,
    /// The routes announced of each, where several may be.
    pub(super) paths: PathsOut,
    /// How many destinations are announced at most, by table, and which ones wait.
    pub(super) limits: Vec<Limit>,
    /// Destinations to look at whatever the tables say, by table.
    forced: Vec<Vec<DestId>>,
}

/// What is to be said.
#[derive(Default)]
pub(super) struct Plan<'v> {
    /// Routes with destination and path identifier.
    pub(super) announce: SmallVec<[(Run<'v>, (DestId, u32)); 1]>,
    pub(super) withdraw: Vec<(DestId, u32)>,
    /// Destinations whose best route is a member's own now, and were announced to it before.
    own: BTreeMap<PeerId, Vec<(DestId, u32)>>,
}

impl GroupKey {
    pub(super) fn outlet(&self, family: Family) -> Option<&Outlet> {
        let mut outlets = self.outlets.iter();
        outlets.find(|outlet| outlet.family.family == family)
    }
}

impl Outlet {
    /// Whether several routes are sent for a destination.
    pub(super) fn sends_several(&self) -> bool {
        self.paths.is_some()
    }

    /// How many routes are sent for a destination.
    pub(super) fn most_paths(&self) -> usize {
        self.paths.map_or(1, |most| usize::from(most.get()))
    }

    /// Whether a next hop is possible for the family on the session.
    pub(super) fn takes(&self, hop: &PathNextHop) -> bool {
        let ipv4 = self.family.family.afi == router_types::Afi::IPV4;
        match hop {
            _ if self.family.family == Family::ROUTE_TARGET => true,
            PathNextHop::V4(_) => ipv4,
            PathNextHop::V6 { .. } => !ipv4 || self.family.extended_next_hop,
        }
    }
}

impl Group {
    /// A group nobody is in, for which everything it announces is announced: who joins is sent it
    /// by the way of those who are behind.
    pub(super) fn new(key: GroupKey, view: Arc<View>, wanted: Wanted, from: &Sources<'_>) -> Group {
        let mut announced: Vec<Bits> = Vec::new();
        let mut limits: Vec<Limit> = Vec::new();
        for table in from.tables {
            let mut all = Bits::default();
            let most = key.outlet(table.family).and_then(|outlet| outlet.limit);
            let mut limit = Limit::new(most.map(NonZeroU32::get));
            if let Some(mut choice) = Choice::new(&key, &view, &wanted, table, from) {
                let goes = table.ids().filter(|id| choice.announces(*id));
                for id in goes {
                    if limit.admits(id, &all) {
                        all.insert(id);
                    }
                }
            }
            announced.push(all);
            limits.push(limit);
        }
        Group {
            paths: PathsOut::new(&key, &view, &wanted, &announced, from),
            announced,
            limits,
            key,
            view,
            wanted,
            members: BTreeSet::new(),
            reconsider: false,
            forced: vec![Vec::new(); from.tables.len()],
        }
    }

    /// A group of some of the members, with a copy of what they were sent.
    pub(super) fn part(&mut self, members: BTreeSet<PeerId>) -> Group {
        self.members.retain(|member| !members.contains(member));
        Group {
            key: self.key.clone(),
            view: self.view.clone(),
            wanted: self.wanted.clone(),
            members,
            reconsider: self.reconsider,
            announced: self.announced.clone(),
            limits: self.limits.clone(),
            paths: self.paths.clone(),
            forced: self.forced.clone(),
        }
    }

    pub(super) fn set_view(&mut self, view: Arc<View>, tables: &[Table]) {
        let old = std::mem::replace(&mut self.view, view);
        let differs = |prefix: &&IpNet| old.get(*prefix) != self.view.get(*prefix);
        for prefix in old.keys().chain(self.view.keys()).filter(differs) {
            for (slot, table) in tables.iter().enumerate() {
                if let Some(id) = table.keys.find(prefix) {
                    self.forced[slot].push(id);
                }
            }
        }
    }

    /// Has a destination looked at again.
    pub(super) fn force(&mut self, slot: usize, id: DestId) {
        self.forced[slot].push(id);
    }

    /// Takes what members want from now on. Only VPN routes that go and did not, or the reverse,
    /// are looked at.
    pub(super) fn set_wanted(&mut self, wanted: Wanted, from: &Sources<'_>) {
        let old = std::mem::replace(&mut self.wanted, wanted);
        for (slot, table) in from.tables.iter().enumerate() {
            if !is_vpn(table.family) {
                continue;
            }
            let mut last = None;
            for id in table.ids() {
                let all = self
                    .key
                    .outlet(table.family)
                    .is_some_and(|o| o.paths.is_some());
                let Some(best) = from.best(table, id) else {
                    continue;
                };
                let differs = match last {
                    Some((attributes, differs)) if attributes == best.attributes => differs,
                    Some(_) | None => {
                        let bytes = from.attributes.bytes(best.attributes).unwrap_or(&[]);
                        let differs = old.takes(bytes) != self.wanted.takes(bytes);
                        last = Some((best.attributes, differs));
                        differs
                    }
                };
                // Where several go, others than the best one may come and go as well.
                if differs || all {
                    self.forced[slot].push(id);
                }
            }
        }
    }

    pub(super) fn has_own_work(&self) -> bool {
        self.reconsider || self.forced.iter().any(|ids| !ids.is_empty())
    }

    /// The destinations announced in a table.
    pub(super) fn announced_in(&self, slot: usize) -> &Bits {
        &self.announced[slot]
    }

    pub(super) fn is_announced(&self, slot: usize, id: DestId) -> bool {
        self.announced[slot].contains(id)
    }

    /// Works changes into what is announced, and tells the members.
    pub(super) fn flush(
        &mut self,
        slot: usize,
        dirty: &[Dirty],
        from: &Sources<'_>,
        members: &mut BTreeMap<PeerId, Member>,
        limit: usize,
    ) {
        let table = &from.tables[slot];
        let mut forced = std::mem::take(&mut self.forced[slot]);
        if self.reconsider {
            // What is announced may be nobody's by now.
            forced.extend(table.ids().chain(self.announced[slot].iter()));
            forced.sort_unstable();
            forced.dedup();
            self.reconsider = slot + 1 < from.tables.len();
        }
        if forced.is_empty() && dirty.is_empty() {
            return;
        }
        let Some(mut choice) = Choice::new(&self.key, &self.view, &self.wanted, table, from) else {
            return;
        };
        let is_membership = table.family == Family::ROUTE_TARGET;
        let unknown = forced.into_iter().map(|id| (id, None));
        // Of memberships the best route is not what everybody is told.
        let known = dirty
            .iter()
            .map(|dirty| (dirty.id, (!is_membership).then_some(dirty.was)));
        let changes = unknown.chain(known);
        let mut announced = std::mem::take(&mut self.announced[slot]);
        let mut held = std::mem::take(&mut self.limits[slot]);
        // Told by and by, so that no plan for a full table has to be held.
        if choice.sends_several() {
            let mut ids: Vec<DestId> = changes.map(|(id, _)| id).collect();
            while !ids.is_empty() {
                for part in ids.chunks(CHUNK) {
                    let mut plan = Plan::default();
                    let mut out = (&mut announced, &mut held);
                    self.paths
                        .work(slot, part, &mut out, &mut choice, &mut plan);
                    self.tell(slot, plan, &choice, from, members, limit);
                }
                ids = held.due(&announced);
            }
        } else {
            let mut plan = Plan::default();
            for (id, was) in changes {
                if plan.announce.len() + plan.withdraw.len() >= CHUNK {
                    let full = std::mem::take(&mut plan);
                    self.tell(slot, full, &choice, from, members, limit);
                }
                self.consider(id, was, &mut announced, &mut held, &mut choice, &mut plan);
            }
            for id in held.due(&announced) {
                self.consider(id, None, &mut announced, &mut held, &mut choice, &mut plan);
            }
            self.tell(slot, plan, &choice, from, members, limit);
        }
        self.limits[slot] = held;
        self.announced[slot] = announced;
    }

    /// Works out what of a destination has to be said, where one route may be.
    #[inline]
    fn consider<'g>(
        &self,
        id: DestId,
        was: Option<Option<BestKey>>,
        announced: &mut Bits,
        held: &mut Limit,
        choice: &mut Choice<'g>,
        plan: &mut Plan<'g>,
    ) {
        let Some(run) = choice.run(id) else {
            held.forget(id);
            if announced.remove(id) {
                plan.withdraw.push((id, 0));
            }
            return;
        };
        if !held.admits(id, announced) {
            return;
        }
        let new = announced.insert(id);
        if !new && was.is_some_and(|was| is_same(choice, was, &run)) {
            return;
        }
        plan.announce.push((run, (id, 0)));
        if let (Source::Learned(best), false) = (run.source, new)
            && self.members.contains(&best.peer)
            && !matches!(was, Some(Some(BestKey { peer, .. })) if peer == best.peer)
        {
            plan.own.entry(best.peer).or_default().push((id, 0));
        }
    }

    fn tell(
        &self,
        slot: usize,
        plan: Plan<'_>,
        choice: &Choice<'_>,
        from: &Sources<'_>,
        members: &mut BTreeMap<PeerId, Member>,
        limit: usize,
    ) {
        let mut keeping_up: SmallVec<[PeerId; 8]> = SmallVec::new();
        for &id in &self.members {
            match members.get_mut(&id) {
                Some(member) if member.keeps_up(limit) => keeping_up.push(id),
                Some(member) => {
                    let announced = plan.announce.iter().map(|(_, (id, _))| *id);
                    announced.for_each(|id| member.miss(slot, id));
                    for &(id, path_id) in &plan.withdraw {
                        member.miss(slot, id);
                        if path_id != 0 {
                            member.gone.insert((slot, id, path_id));
                        }
                    }
                }
                None => {}
            }
        }
        let Some((&last, others)) = keeping_up.split_last() else {
            return;
        };
        for (peer, ids) in plan
            .own
            .iter()
            .filter(|(peer, _)| keeping_up.contains(peer))
        {
            let mut writer = self.writer(slot, from);
            writer.withdraw(ids);
            for segment in writer.finish() {
                if let Some(member) = members.get_mut(peer) {
                    member.push(segment.transmit);
                }
            }
        }
        let segments = self.segments(slot, plan, choice, from);
        for &id in others {
            let Some(member) = members.get_mut(&id) else {
                continue;
            };
            for segment in segments.iter().filter(|segment| segment.except != Some(id)) {
                member.push(segment.transmit.clone());
            }
        }
        // Bytes that go to one alone need not be shared.
        if let Some(member) = members.get_mut(&last) {
            for segment in segments {
                if segment.except != Some(last) {
                    member.push(segment.transmit);
                }
            }
        }
    }

    /// Encodes the state of some of the destinations a member is behind with.
    pub(super) fn catch_up(&self, peer: PeerId, member: &mut Member, from: &Sources<'_>) {
        let behind = member.behind.iter().position(|bits| !bits.is_empty());
        let Some(slot) = behind else { return };
        let part = member.take_behind(slot, CHUNK);
        let table = &from.tables[slot];
        let Some(mut choice) = Choice::new(&self.key, &self.view, &self.wanted, table, from) else {
            return;
        };
        let mut plan = Plan::default();
        if choice.sends_several() {
            self.paths.state(
                slot,
                &part,
                &self.announced[slot],
                (peer, member),
                &mut choice,
                &mut plan,
            );
            for segment in self.segments(slot, plan, &choice, from) {
                member.push(segment.transmit);
            }
            return;
        }
        for id in part {
            let run = choice
                .run(id)
                .filter(|run| self.announced[slot].contains(id) && run.peer() != Some(peer));
            match run {
                Some(run) => plan.announce.push((run, (id, 0))),
                None => plan.withdraw.push((id, 0)),
            }
        }
        for segment in self.segments(slot, plan, &choice, from) {
            member.push(segment.transmit);
        }
    }

    /// The destinations announced to a member: all but what it said itself. Where several routes are
    /// sent, others may be beside its own.
    pub(super) fn all_but(
        &self,
        peer: PeerId,
        family: Option<Family>,
        from: &Sources<'_>,
    ) -> Vec<Bits> {
        let of = |(announced, table): (&Bits, &Table)| {
            if family.is_some_and(|family| family != table.family) {
                return Bits::default();
            }
            let outlet = self.key.outlet(table.family);
            if !from.transit || outlet.is_some_and(|outlet| outlet.paths.is_some()) {
                return announced.clone();
            }
            let mut all = Bits::default();
            let others = announced
                .iter()
                .filter(|&id| !self.is_own(peer, table, id, from));
            all.extend(others);
            all
        };
        self.announced.iter().zip(from.tables).map(of).collect()
    }

    /// The routes of a table announced to a member, with path identifiers.
    pub(super) fn told(&self, peer: PeerId, slot: usize, from: &Sources<'_>) -> Vec<(DestId, u32)> {
        let table = &from.tables[slot];
        if self
            .key
            .outlet(table.family)
            .is_some_and(Outlet::sends_several)
        {
            return self.paths.told(slot, peer).collect();
        }
        let all = self.all_but(peer, Some(table.family), from);
        all[slot].iter().map(|id| (id, 0)).collect()
    }

    /// Whether a route of a table is announced to a member.
    pub(super) fn is_told(
        &self,
        peer: PeerId,
        slot: usize,
        (id, path_id): (DestId, u32),
        from: &Sources<'_>,
    ) -> bool {
        let table = &from.tables[slot];
        if self
            .key
            .outlet(table.family)
            .is_some_and(Outlet::sends_several)
        {
            return self.paths.is_told(slot, peer, id, path_id);
        }
        self.is_announced(slot, id) && !(from.transit && self.is_own(peer, table, id, from))
    }

    /// How many destinations of a table are announced whose route is a neighbour's own, by
    /// neighbour. Walks what is announced.
    pub(super) fn own_counts(&self, slot: usize, from: &Sources<'_>) -> BTreeMap<PeerId, u64> {
        let mut counts = BTreeMap::new();
        let table = &from.tables[slot];
        let Some(mut choice) = Choice::new(&self.key, &self.view, &self.wanted, table, from) else {
            return counts;
        };
        if choice.sends_several() {
            self.paths.own_counts(slot, &mut counts);
            return counts;
        }
        for id in self.announced[slot].iter() {
            let peer = if table.family == Family::ROUTE_TARGET {
                choice.run(id).and_then(|run| run.peer())
            } else {
                let local =
                    table.local.contains(id) && self.view.contains_key(&table.keys.prefix(id));
                let best = from.best(table, id).filter(|_| !local);
                best.map(|best| best.peer)
            };
            if let Some(peer) = peer {
                *counts.entry(peer).or_default() += 1;
            }
        }
        counts
    }

    /// How many routes of a table are announced, whoever they came from.
    pub(super) fn count(&self, slot: usize) -> u64 {
        let family = self
            .key
            .outlets
            .iter()
            .find(|o| slot_of(o.family.family) == Some(slot));
        match family.and_then(|outlet| outlet.paths) {
            Some(_) => self.paths.count(slot),
            None => self.announced[slot].len() as u64,
        }
    }

    /// With what a destination is announced to a member, if it is.
    pub(super) fn announced(
        &self,
        peer: PeerId,
        slot: usize,
        id: DestId,
        from: &Sources<'_>,
    ) -> Option<(PathAttributes, IpAddr, Option<Label>)> {
        let table = &from.tables[slot];
        if !self.is_announced(slot, id) {
            return None;
        }
        let mut choice = Choice::new(&self.key, &self.view, &self.wanted, table, from)?;
        let run = if choice.sends_several() {
            let mut runs = choice.runs(id).into_iter();
            runs.find(|(run, _)| run.peer() != Some(peer))
                .map(|(run, _)| run)?
        } else {
            choice.run(id).filter(|run| run.peer() != Some(peer))?
        };
        let mut bytes = Vec::new();
        let hop = choice.encode(&run, true, &mut bytes)?;
        Some((decode(&bytes), address(hop), choice.label(&run)))
    }

    pub(super) fn memory(&self) -> usize {
        let announced: usize = self.announced.iter().map(Bits::memory).sum();
        let held: usize = self.limits.iter().map(Limit::memory).sum();
        announced + held + self.paths.memory()
    }

    /// Whether a destination's best route came from a member.
    fn is_own(&self, peer: PeerId, table: &Table, id: DestId, from: &Sources<'_>) -> bool {
        if table.family == Family::ROUTE_TARGET {
            let choice = Choice::new(&self.key, &self.view, &self.wanted, table, from);
            let run = choice.and_then(|mut choice| choice.run(id));
            return run.is_some_and(|run| run.peer() == Some(peer));
        }
        let local = table.local.contains(id) && self.view.contains_key(&table.keys.prefix(id));
        !local && from.best(table, id).is_some_and(|best| best.peer == peer)
    }

    /// What is planned as messages, withdrawals first.
    fn segments(
        &self,
        slot: usize,
        plan: Plan<'_>,
        choice: &Choice<'_>,
        from: &Sources<'_>,
    ) -> Segments {
        let Plan {
            mut announce,
            withdraw,
            ..
        } = plan;
        let mut writer = self.writer(slot, from);
        writer.withdraw(&withdraw);
        // What changed together mostly has equal attributes and is in a run already.
        let runs = announce
            .chunk_by(|(a, _), (b, _)| choice.reads_alike(a, b))
            .count();
        if runs * 4 > announce.len() {
            announce.sort_by(|(a, _), (b, _)| choice.order(a).cmp(&choice.order(b)));
        }
        let mut attributes = Vec::new();
        let mut ids: SmallVec<[(DestId, u32); 4]> = SmallVec::new();
        let mut labels = Vec::new();
        for chunk in announce.chunk_by(|(a, _), (b, _)| choice.reads_alike(a, b)) {
            let (run, _) = &chunk[0];
            attributes.clear();
            let Some(hop) = choice.encode(run, self.key.four_octet_as, &mut attributes) else {
                continue;
            };
            ids.clear();
            ids.extend(chunk.iter().map(|(_, id)| *id));
            labels.clear();
            labels.extend(chunk.iter().filter_map(|(run, _)| choice.label(run)));
            let except = run.peer().filter(|peer| self.members.contains(peer));
            writer.announce(&attributes, hop, except, &ids, &labels);
        }
        writer.finish()
    }

    fn writer<'a>(&self, slot: usize, from: &Sources<'a>) -> Writer<'a> {
        let table = &from.tables[slot];
        let outlet = self.key.outlet(table.family);
        let context = outlet.map_or(bgp_wire::FamilyContext::plain(table.family), |outlet| {
            outlet.family.context()
        });
        Writer::new(&table.keys, context, self.key.max_len)
    }
}

/// Whether members would see no difference.
fn is_same(choice: &Choice<'_>, was: Option<BestKey>, is: &Run<'_>) -> bool {
    let (Some(was), Source::Learned(best)) = (was, is.source) else {
        // What is said of a local route is looked at when that changes.
        return matches!(is.source, Source::Local(_));
    };
    if was == best {
        return true;
    }
    if was.peer != best.peer {
        // One of them may be a member, who is told otherwise.
        return false;
    }
    let before = choice.former(was);
    before.is_some_and(|before| {
        choice.label(&before) == choice.label(is) && choice.is_sent_alike(&before, is)
    })
}
