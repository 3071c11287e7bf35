// SPDX-License-Identifier: Apache-2.0
//! An update group: what it announces, and to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_wire::{PathAttributes, PathNextHop};
use ipnet::IpNet;
use router_types::Family;

use super::member::Member;
use super::rewrite::{Reflected, pass_on};
use super::segments::{Segment, Writer};
use super::{CHUNK, Sources, address, local};
use crate::config::ExportAttributes;
use crate::rib::PeerId;
use crate::rib::attributes::{AttrId, decode};
use crate::rib::bits::Bits;
use crate::rib::keys::DestId;
use crate::rib::neighbour::SessionFamily;
use crate::rib::next_hop::HopId;
use crate::rib::table::{BestKey, Dirty, Table};

/// What neighbours are told about local routes, by prefix.
pub(super) type View = BTreeMap<IpNet, ExportAttributes>;

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
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::rib) struct GroupKey {
    pub(in crate::rib) target: Target,
    pub(in crate::rib) four_octet_as: bool,
    pub(in crate::rib) max_len: usize,
    /// Families with the next hop announced; a family without a possible next hop is not sent.
    pub(in crate::rib) families: Vec<(SessionFamily, PathNextHop)>,
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) key: GroupKey,
    pub(super) view: Arc<View>,
    pub(super) members: BTreeSet<PeerId>,
    /// Whether everything has to be looked at again, whatever the tables say.
    pub(super) reconsider: bool,
    /// Destinations announced, by table.
    announced: Vec<Bits>,
    /// Destinations to look at whatever the tables say, by table.
    forced: Vec<Vec<DestId>>,
}

/// What destinations have in common that are announced with equal attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Run<'v> {
    Learned(BestKey),
    Local(&'v ExportAttributes),
}

impl Group {
    /// A group nobody is in, for which everything it announces is announced: who joins is sent it
    /// by the way of those who are behind.
    pub(super) fn new(key: GroupKey, view: Arc<View>, from: &Sources<'_>) -> Group {
        let mut group = Group {
            key,
            view,
            members: BTreeSet::new(),
            reconsider: false,
            announced: vec![Bits::default(); from.tables.len()],
            forced: vec![Vec::new(); from.tables.len()],
        };
        for (slot, table) in from.tables.iter().enumerate() {
            if group.key.hop(table.family).is_none() {
                continue;
            }
            let mut announced = Bits::default();
            let mut choice = Choice::default();
            for id in table.ids() {
                if choice.run(&group, table, id, from).is_some() {
                    announced.insert(id);
                }
            }
            group.announced[slot] = announced;
        }
        group
    }

    /// A group of some of the members, with a copy of what they were sent.
    pub(super) fn part(&mut self, members: BTreeSet<PeerId>) -> Group {
        self.members.retain(|member| !members.contains(member));
        Group {
            key: self.key.clone(),
            view: self.view.clone(),
            members,
            reconsider: self.reconsider,
            announced: self.announced.clone(),
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

    pub(super) fn has_own_work(&self) -> bool {
        self.reconsider || self.forced.iter().any(|ids| !ids.is_empty())
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
            forced = table.ids().collect();
            self.reconsider = slot + 1 < from.tables.len();
        }
        if (forced.is_empty() && dirty.is_empty()) || self.key.hop(table.family).is_none() {
            return;
        }
        let view = self.view.clone();
        let mut plan = Plan::default();
        let mut announced = std::mem::take(&mut self.announced[slot]);
        let mut choice = Choice::default();
        let unknown = forced.into_iter().map(|id| (id, None));
        let known = dirty.iter().map(|dirty| (dirty.id, Some(dirty.was)));
        for (id, was) in unknown.chain(known) {
            let run = choice.run_of(&view, &self.key, table, id, from);
            match run {
                Some(run) => {
                    let new = announced.insert(id);
                    if !new && was.is_some_and(|was| self.is_same(was, run, from)) {
                        continue;
                    }
                    plan.announce.push((run, id));
                    let was_own = |peer| matches!(was, Some(Some(BestKey { peer: before, .. })) if before == peer);
                    if let Run::Learned(best) = run
                        && !new
                        && self.members.contains(&best.peer)
                        && !was_own(best.peer)
                    {
                        plan.own.entry(best.peer).or_default().push(id);
                    }
                }
                None => {
                    if announced.remove(id) {
                        plan.withdraw.push(id);
                    }
                }
            }
        }
        self.announced[slot] = announced;
        self.tell(slot, plan, from, members, limit);
    }

    fn tell(
        &self,
        slot: usize,
        plan: Plan<'_>,
        from: &Sources<'_>,
        members: &mut BTreeMap<PeerId, Member>,
        limit: usize,
    ) {
        let (mut keeping_up, mut behind) = (Vec::new(), Vec::new());
        for &id in &self.members {
            match members.get(&id) {
                Some(member) if member.keeps_up(limit) => keeping_up.push(id),
                Some(_) => behind.push(id),
                None => {}
            }
        }
        for id in behind {
            let Some(member) = members.get_mut(&id) else {
                continue;
            };
            let changed = plan.announce.iter().map(|(_, id)| id).chain(&plan.withdraw);
            changed.for_each(|&id| member.miss(slot, id));
        }
        if keeping_up.is_empty() {
            return;
        }
        for (peer, ids) in &plan.own {
            if let Some(member) = members.get_mut(peer)
                && keeping_up.contains(peer)
            {
                let mut writer = self.writer(slot, from);
                writer.withdraw(ids);
                writer
                    .finish()
                    .into_iter()
                    .for_each(|segment| member.push(segment.transmit));
            }
        }
        let segments = self.segments(slot, plan.announce, &plan.withdraw, from);
        for id in keeping_up {
            let Some(member) = members.get_mut(&id) else {
                continue;
            };
            for segment in segments.iter().filter(|segment| segment.except != Some(id)) {
                member.push(segment.transmit.clone());
            }
        }
    }

    /// Encodes the state of some of the destinations a member is behind with.
    pub(super) fn catch_up(&self, peer: PeerId, member: &mut Member, from: &Sources<'_>) {
        for slot in 0..member.behind.len() {
            let table = &from.tables[slot];
            let part: Vec<DestId> = member.behind[slot].iter().take(CHUNK).collect();
            if part.is_empty() {
                continue;
            }
            if part.len() == member.behind[slot].len() {
                member.behind[slot] = Bits::default();
            } else {
                part.iter().for_each(|&id| {
                    member.behind[slot].remove(id);
                });
            }
            if self.key.hop(table.family).is_none() {
                continue;
            }
            let mut choice = Choice::default();
            let mut plan = Plan::default();
            for id in part {
                let run = choice
                    .run(self, table, id, from)
                    .filter(|_| self.announced[slot].contains(id))
                    .filter(|run| !matches!(run, Run::Learned(best) if best.peer == peer));
                match run {
                    Some(run) => plan.announce.push((run, id)),
                    None => plan.withdraw.push(id),
                }
            }
            let segments = self.segments(slot, plan.announce, &plan.withdraw, from);
            segments
                .into_iter()
                .for_each(|segment| member.push(segment.transmit));
            return;
        }
    }

    /// The destinations announced to a member: all but what it said itself.
    pub(super) fn all_but(
        &self,
        peer: PeerId,
        family: Option<Family>,
        from: &Sources<'_>,
    ) -> Vec<Bits> {
        let of = |(slot, announced): (usize, &Bits)| {
            let table = &from.tables[slot];
            if family.is_some_and(|family| family != table.family) {
                return Bits::default();
            }
            if !from.transit {
                return announced.clone();
            }
            let mut all = Bits::default();
            all.extend(
                announced
                    .iter()
                    .filter(|&id| !self.is_own(peer, table, id, from)),
            );
            all
        };
        self.announced.iter().enumerate().map(of).collect()
    }

    /// How many routes of a family a member is sent.
    pub(super) fn count(&self, peer: PeerId, family: Family, from: &Sources<'_>) -> u64 {
        let mut tables = from.tables.iter().zip(&self.announced);
        let Some((table, announced)) = tables.find(|(table, _)| table.family == family) else {
            return 0;
        };
        if !from.transit {
            return announced.len() as u64;
        }
        let own = announced
            .iter()
            .filter(|&id| self.is_own(peer, table, id, from));
        (announced.len() - own.count()) as u64
    }

    /// With what a destination is announced to a member, if it is.
    pub(super) fn announced(
        &self,
        peer: PeerId,
        slot: usize,
        id: DestId,
        from: &Sources<'_>,
    ) -> Option<(PathAttributes, IpAddr)> {
        let table = &from.tables[slot];
        if !self.is_announced(slot, id) || self.is_own(peer, table, id, from) {
            return None;
        }
        let mut choice = Choice::default();
        let run = choice.run(self, table, id, from)?;
        let mut bytes = Vec::new();
        let hop = self.encode(run, table.family, true, from, &mut bytes)?;
        Some((decode(&bytes), address(hop)))
    }

    pub(super) fn memory(&self) -> usize {
        self.announced.iter().map(Bits::memory).sum()
    }

    /// Whether a destination's best route came from a member.
    fn is_own(&self, peer: PeerId, table: &Table, id: DestId, from: &Sources<'_>) -> bool {
        let local = table.local.contains(id) && self.view.contains_key(&table.keys.prefix(id));
        !local && from.best(table, id).is_some_and(|best| best.peer == peer)
    }

    /// Whether a member would see no difference.
    fn is_same(&self, was: Option<BestKey>, run: Run<'_>, from: &Sources<'_>) -> bool {
        let (Some(was), Run::Learned(is)) = (was, run) else {
            // What is said of a local route is looked at when that changes.
            return matches!(run, Run::Local(_));
        };
        if was == is {
            return true;
        }
        if was.peer != is.peer {
            // One of them may be a member, who is told otherwise.
            return false;
        }
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let family = Family::IPV4_UNICAST;
        let was = self.encode(Run::Learned(was), family, true, from, &mut before);
        let is = self.encode(Run::Learned(is), family, true, from, &mut after);
        was == is && before == after
    }

    /// Runs as messages, withdrawals first.
    fn segments(
        &self,
        slot: usize,
        mut announce: Vec<(Run<'_>, DestId)>,
        withdraw: &[DestId],
        from: &Sources<'_>,
    ) -> Vec<Segment> {
        let mut writer = self.writer(slot, from);
        writer.withdraw(withdraw);
        // What changed together mostly has equal attributes and is in a run already.
        let same = |a: &Run<'_>, b: &Run<'_>| a == b;
        let runs = announce.chunk_by(|a, b| same(&a.0, &b.0)).count();
        if runs * 4 > announce.len() {
            announce.sort_by(|(a, _), (b, _)| a.order().cmp(&b.order()));
        }
        let (mut attributes, mut ids) = (Vec::new(), Vec::new());
        let family = from.tables[slot].family;
        for chunk in announce.chunk_by(|a, b| same(&a.0, &b.0)) {
            let (run, _) = chunk[0];
            attributes.clear();
            let width = self.key.four_octet_as;
            let Some(hop) = self.encode(run, family, width, from, &mut attributes) else {
                continue;
            };
            ids.clear();
            ids.extend(chunk.iter().map(|(_, id)| *id));
            let except = match run {
                Run::Learned(best) if self.members.contains(&best.peer) => Some(best.peer),
                Run::Learned(_) | Run::Local(_) => None,
            };
            writer.announce(&attributes, hop, except, &ids);
        }
        writer.finish()
    }

    fn writer<'a>(&self, slot: usize, from: &Sources<'a>) -> Writer<'a> {
        let table = &from.tables[slot];
        let hop = self.key.hop(table.family);
        let context = hop.map_or(
            bgp_wire::FamilyContext::plain(table.family),
            |(family, _)| family.context(),
        );
        Writer::new(&table.keys, context, self.key.max_len)
    }

    /// Appends the attributes of a run as members are sent them, and returns the next hop.
    fn encode(
        &self,
        run: Run<'_>,
        family: Family,
        four_octet_as: bool,
        from: &Sources<'_>,
        out: &mut Vec<u8>,
    ) -> Option<PathNextHop> {
        let own_hop = self.key.hop(family).map(|(_, hop)| *hop);
        match run {
            Run::Local(told) => {
                local::attributes(told, &self.key, from.local_asn).encode(four_octet_as, out);
                own_hop
            }
            Run::Learned(best) => {
                let bytes = from.attributes.bytes(best.attributes)?;
                let reflected = self.reflected(best.peer, from);
                let target = self.key.target;
                pass_on(bytes, target, four_octet_as, from.local_asn, reflected, out);
                if reflected.is_some() {
                    // RFC 4456 §10: a reflector does not change the next hop.
                    let hop = from.next_hops.address(best.next_hop)?;
                    Some(hop.into())
                } else {
                    own_hop
                }
            }
        }
    }

    fn reflected(&self, source: PeerId, from: &Sources<'_>) -> Option<Reflected> {
        let neighbour = from.neighbours.get(source)?;
        let session = neighbour.session.as_ref()?;
        let reflects = session.internal && self.key.target != Target::External;
        reflects.then_some(Reflected {
            originator: session.peer_router_id,
            cluster: from.cluster_id,
        })
    }
}

/// What is to be said.
#[derive(Default)]
struct Plan<'v> {
    announce: Vec<(Run<'v>, DestId)>,
    withdraw: Vec<DestId>,
    /// Destinations whose best route is now a member's own, which was announced to it before.
    own: BTreeMap<PeerId, Vec<DestId>>,
}

/// Decides what is announced, remembering the last decision: what changes together mostly has
/// equal attributes.
#[derive(Default)]
struct Choice {
    last: Option<(BestKey, bool)>,
}

impl Choice {
    fn run<'v>(
        &mut self,
        group: &'v Group,
        table: &Table,
        id: DestId,
        from: &Sources<'_>,
    ) -> Option<Run<'v>> {
        self.run_of(&group.view, &group.key, table, id, from)
    }

    #[inline]
    fn run_of<'v>(
        &mut self,
        view: &'v View,
        key: &GroupKey,
        table: &Table,
        id: DestId,
        from: &Sources<'_>,
    ) -> Option<Run<'v>> {
        if table.local.contains(id)
            && let Some(told) = view.get(&table.keys.prefix(id))
        {
            return Some(Run::Local(told));
        }
        if !from.transit {
            return None;
        }
        let best = from.best(table, id)?;
        let goes = match self.last {
            Some((last, goes)) if last == best => goes,
            Some(_) | None => {
                let goes = key.goes(best, from);
                self.last = Some((best, goes));
                goes
            }
        };
        goes.then_some(Run::Learned(best))
    }
}

impl<'v> Run<'v> {
    /// An order in which equal ones are neighbours.
    fn order(
        &self,
    ) -> (
        Option<&'v ExportAttributes>,
        Option<(PeerId, AttrId, HopId)>,
    ) {
        match self {
            Run::Learned(best) => (None, Some((best.peer, best.attributes, best.next_hop))),
            Run::Local(told) => (Some(told), None),
        }
    }
}

impl GroupKey {
    pub(super) fn hop(&self, family: Family) -> Option<&(SessionFamily, PathNextHop)> {
        self.families.iter().find(|(f, _)| f.family == family)
    }

    /// Whether a learned route is passed on (RFC 4271 §9.2, RFC 1997, RFC 4456 §6).
    fn goes(&self, best: BestKey, from: &Sources<'_>) -> bool {
        let (Some(hot), Some(source)) = (
            from.attributes.hot(best.attributes),
            from.neighbours.get(best.peer),
        ) else {
            return false;
        };
        match self.target {
            _ if hot.no_advertise => false,
            Target::External => !hot.no_export,
            Target::Internal { client } => source.is_external() || source.client || client,
        }
    }
}

impl Sources<'_> {
    /// The best learned route of a destination.
    #[inline]
    fn best(&self, table: &Table, id: DestId) -> Option<BestKey> {
        let (first, _) = table.paths(id);
        first
            .filter(|path| {
                path.rejected.is_none() && self.next_hops.metric(path.next_hop).is_some()
            })
            .map(BestKey::from)
    }
}
