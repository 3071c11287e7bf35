// SPDX-License-Identifier: Apache-2.0
//! Adj-RIB-Out: what neighbours are sent, decided and encoded once for all that are sent the same.
//!
//! Neighbours whose sessions agree in everything that shows in an UPDATE, and which are told the
//! same about local routes, form an update group. A group remembers one bit for each destination:
//! whether it is announced. What is announced follows from the best route; the table says what
//! that was when it changes ([`Dirty`](super::table::Dirty)). A change is encoded once and the
//! bytes shared. No neighbour is sent what it said itself: such bytes pass it by.
//!
//! A neighbour that does not keep up (more than [`QUEUE_LIMIT`] bytes wait for it) leaves the
//! common stream: only the destinations that changed are remembered for it, and their state of
//! the day is encoded for it alone once it reads again. The first dump to a neighbour and answers
//! to ROUTE-REFRESH take the same way. So what waits is bounded by bytes and by the number of
//! prefixes, never by the number of changes.

mod choice;
mod edit;
mod explain;
mod group;
mod limit;
mod local;
mod member;
mod paths;
mod rewrite;
mod segments;
mod told;
mod withheld;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_wire::{Label, PathAttributes, PathNextHop};
use bytes::Bytes;
use router_types::{Asn, Family};

pub(super) use self::edit::Edit;
pub(super) use self::explain::Outgoing;
use self::group::{Group, View};
pub(super) use self::group::{GroupKey, Outlet, Target};
pub(super) use self::local::contribution;
use self::member::Member;
pub use self::withheld::Withheld;
use super::PeerId;
use super::attributes::Interner;
use super::bits::Bits;
use super::keys::DestId;
use super::neighbour::Neighbours;
use super::next_hop::NextHops;
use super::table::{Dirty, Table};
use super::targets::Wanted;
use crate::aggregate::Aggregates;
use crate::config::{LocalRoute, PeerName};

/// Bytes that wait for a neighbour before it leaves the common stream. Neighbours of a group share
/// them, so that it is a bound for the group; arbitrary, what a full table takes in a second.
pub(super) const QUEUE_LIMIT: usize = 4 << 20;

/// Destinations encoded at a time for one that is behind, to keep segments and the time spent
/// small.
const CHUNK: usize = 8192;

/// Messages for a neighbour.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// Whole UPDATE messages, and ROUTE-REFRESH messages that mark the ends of what is sent again
    /// (RFC 7313 §4).
    pub bytes: Bytes,
    /// How many UPDATE messages.
    pub updates: u32,
    /// How many ROUTE-REFRESH messages.
    pub refreshes: u32,
}

/// What export looks at.
pub(super) struct Sources<'a> {
    pub(super) tables: &'a [Table],
    pub(super) attributes: &'a Interner,
    pub(super) next_hops: &'a NextHops,
    pub(super) neighbours: &'a Neighbours,
    pub(super) aggregates: &'a Aggregates,
    /// Whether learned routes are passed on.
    pub(super) transit: bool,
    /// Whether nothing is announced at all.
    pub(super) drained: bool,
    pub(super) local_asn: Asn,
    /// The number this speaker reflects routes by (RFC 4456 §7).
    pub(super) cluster_id: std::net::Ipv4Addr,
    pub(super) router_id: std::net::Ipv4Addr,
}

/// All update groups of an instance.
#[derive(Debug, Default)]
pub(super) struct Exports {
    local_asn: Asn,
    /// Whether local routes were given once, so that a dump of them is complete.
    locals_known: bool,
    /// Whether End-of-RIB has to wait all the same.
    ends_held: bool,
    groups: BTreeMap<u32, Group>,
    next_group: u32,
    members: BTreeMap<PeerId, Member>,
    /// What each neighbour, up or not, is told about local routes; equal ones are one.
    views: BTreeMap<PeerId, Arc<View>>,
}

impl Exports {
    pub(super) fn configure(&mut self, local_asn: Asn) {
        if self.local_asn != local_asn {
            self.local_asn = local_asn;
            self.reconsider_all();
        }
    }

    /// Has everything looked at again by every group.
    pub(super) fn reconsider_all(&mut self) {
        for group in self.groups.values_mut() {
            group.reconsider = true;
        }
    }

    /// Takes all local routes and aggregates. Members of a group that are told different things from then on go
    /// into groups of their own, each with a copy of what they were sent; groups that come to be
    /// alike stay apart until a session comes up again.
    pub(super) fn set_views(
        &mut self,
        locals: &BTreeMap<ipnet::IpNet, LocalRoute>,
        aggregates: &BTreeMap<ipnet::IpNet, Arc<[u8]>>,
        ids: &BTreeMap<PeerName, PeerId>,
        tables: &[Table],
    ) {
        self.views = local::views(locals, aggregates, ids);
        let nothing = Arc::new(View::new());
        for number in self.groups.keys().copied().collect::<Vec<u32>>() {
            let Some(group) = self.groups.get(&number) else {
                continue;
            };
            let mut parts: Vec<(Arc<View>, Vec<PeerId>)> = Vec::new();
            for &member in &group.members {
                let view = self.views.get(&member).unwrap_or(&nothing);
                match parts.iter_mut().find(|(other, _)| other == view) {
                    Some((_, members)) => members.push(member),
                    None => parts.push((view.clone(), vec![member])),
                }
            }
            let mut parts = parts.into_iter();
            let first = parts.next();
            for (view, members) in parts {
                self.split(number, view, members, tables);
            }
            if let (Some((view, _)), Some(group)) = (first, self.groups.get_mut(&number)) {
                group.set_view(view, tables);
            }
        }
    }

    /// Has End-of-RIB sent from then on.
    pub(super) fn locals_are_known(&mut self) {
        self.locals_known = true;
    }

    /// Holds End-of-RIB back, or no longer.
    pub(super) fn hold_ends(&mut self, held: bool) {
        self.ends_held = held;
    }

    fn may_end(&self) -> bool {
        self.locals_known && !self.ends_held
    }

    /// A session came up: the neighbour is sent everything, then End-of-RIB.
    pub(super) fn join(
        &mut self,
        id: PeerId,
        key: GroupKey,
        wanted: Wanted,
        families: Vec<Family>,
        from: &Sources<'_>,
    ) {
        self.leave(id);
        let view = self.views.get(&id).cloned().unwrap_or_default();
        let found = self
            .groups
            .iter()
            .find(|(_, group)| group.key == key && group.view == view && group.wanted == wanted);
        let number = match found {
            Some((&number, _)) => number,
            None => {
                self.next_group += 1;
                let group = Group::new(key, view, wanted.clone(), from);
                self.groups.insert(self.next_group, group);
                self.next_group
            }
        };
        let Some(group) = self.groups.get_mut(&number) else {
            return;
        };
        group.members.insert(id);
        let mut member = Member::new(number, families.into_iter().collect());
        member.waits = wanted == Wanted::Waiting;
        member.behind = group.all_but(id, None, from);
        self.members.insert(id, member);
    }

    /// Whether somebody is sent more than the best route of a destination.
    pub(super) fn sends_several(&self) -> bool {
        let mut outlets = self.groups.values().flat_map(|group| &group.key.outlets);
        outlets.any(|outlet| outlet.paths.is_some())
    }

    /// What a neighbour that is up is sent by.
    pub(super) fn key(&self, id: PeerId) -> Option<&GroupKey> {
        let member = self.members.get(&id)?;
        self.groups.get(&member.group).map(|group| &group.key)
    }

    /// What is announced to a neighbour that is up has to be announced differently: all of it is
    /// sent again, and what waits stays in its place.
    pub(super) fn rejoin(&mut self, id: PeerId, key: GroupKey, wanted: Wanted, from: &Sources<'_>) {
        let Some(mut old) = self.members.remove(&id) else {
            return;
        };
        if let Some(group) = self.groups.get(&old.group) {
            old.fall_behind(group.all_but(id, None, from));
            // Which of several routes are not sent any more only this group knows.
            old.gone.extend(group.paths.all());
        }
        self.leave_group(id, old.group);
        self.join(id, key, wanted, Vec::new(), from);
        if let Some(member) = self.members.get_mut(&id) {
            old.group = member.group;
            old.fall_behind(std::mem::take(&mut member.behind));
            *member = old;
        }
    }

    pub(super) fn leave(&mut self, id: PeerId) {
        if let Some(member) = self.members.remove(&id) {
            self.leave_group(id, member.group);
        }
    }

    /// Has a destination looked at again by every group.
    pub(super) fn force(&mut self, slot: usize, id: DestId) {
        for group in self.groups.values_mut() {
            group.force(slot, id);
        }
    }

    /// A neighbour wants other VPN routes than before. It goes into a group of its own, with a copy
    /// of what it was sent, unless it is alone in its group.
    pub(super) fn set_wanted(&mut self, id: PeerId, wanted: Wanted, from: &Sources<'_>) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.waits = wanted == Wanted::Waiting;
        let number = member.group;
        let Some(group) = self.groups.get(&number) else {
            return;
        };
        if group.wanted == wanted {
            return;
        }
        let number = if group.members.len() > 1 {
            let view = group.view.clone();
            self.split(number, view, vec![id], from.tables);
            self.next_group
        } else {
            number
        };
        if let Some(group) = self.groups.get_mut(&number) {
            group.set_wanted(wanted, from);
        }
    }

    /// Sends a family again (RFC 2918), between marks where those were agreed on (RFC 7313).
    pub(super) fn resend(&mut self, id: PeerId, family: Family, from: &Sources<'_>) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let session = from.neighbours.get(id).and_then(|n| n.session.as_ref());
        if session.is_some_and(|session| session.enhanced_refresh) {
            member.begin_refresh(family);
        }
        if let Some(group) = self.groups.get(&member.group) {
            member.fall_behind(group.all_but(id, Some(family), from));
        }
    }

    /// Works changes into every group and encodes them, once for each group.
    pub(super) fn flush(&mut self, slot: usize, dirty: &[Dirty], from: &Sources<'_>) {
        let groups = self.groups.len().max(1);
        let limit = (QUEUE_LIMIT * 8 / groups).clamp(256 << 10, QUEUE_LIMIT);
        for group in self.groups.values_mut() {
            group.flush(slot, dirty, from, &mut self.members, limit);
        }
    }

    /// Whether a group has something to look at besides what the tables say.
    pub(super) fn has_own_work(&self) -> bool {
        self.groups.values().any(Group::has_own_work)
    }

    /// Bytes and destinations that wait for a neighbour.
    pub(super) fn backlog(&self, id: PeerId) -> (usize, usize) {
        let member = self.members.get(&id);
        member.map_or((0, 0), |member| {
            let behind = member.behind.iter().map(Bits::len).sum();
            (member.queued_bytes, behind)
        })
    }

    /// The destinations of a table whose numbers somebody has: a set for each of them, so that who
    /// has none costs nothing however many destinations are asked for.
    pub(super) fn references(&self, slot: usize) -> Vec<&Bits> {
        let announced = self.groups.values().map(|group| group.announced_in(slot));
        let behind = self
            .members
            .values()
            .filter_map(|member| member.behind.get(slot));
        announced
            .chain(behind)
            .filter(|bits| !bits.is_empty())
            .collect()
    }

    /// The neighbours for whom there is something to send.
    pub(super) fn waiting(&self) -> impl Iterator<Item = PeerId> + '_ {
        let members = self.members.iter();
        members
            .filter(|(_, member)| member.has_something(self.may_end()))
            .map(|(id, _)| *id)
    }

    /// The next bytes for a neighbour, and whether it has caught up with them.
    pub(super) fn poll_transmit(&mut self, id: PeerId, from: &Sources<'_>) -> Option<Transmit> {
        let may_end = self.may_end();
        let member = self.members.get_mut(&id)?;
        let group = self.groups.get(&member.group)?;
        // A part of what it is behind with may be its own altogether, and nothing is sent of it.
        while member.queue.is_empty() && member.is_behind_at_all() {
            group.catch_up(id, member, from);
        }
        if may_end && member.queue.is_empty() && !member.is_behind_at_all() {
            member.finish();
        }
        member.pop()
    }

    /// How many routes of a table each neighbour that is up is sent, and how many wait for its limit.
    /// `says` is asked whether a neighbour sends routes of the table itself: only groups with one of
    /// those are walked, each once.
    pub(super) fn counts(
        &self,
        slot: usize,
        from: &Sources<'_>,
        says: impl Fn(PeerId) -> bool,
    ) -> BTreeMap<PeerId, (u64, u64)> {
        let mut counts = BTreeMap::new();
        for group in self.groups.values() {
            let own = if group.members.iter().any(|id| says(*id)) {
                group.own_counts(slot, from)
            } else {
                BTreeMap::new()
            };
            let all = group.count(slot);
            let held = group.limits[slot].held() as u64;
            for id in &group.members {
                let own = own.get(id).copied().unwrap_or(0);
                counts.insert(*id, (all - own, held));
            }
        }
        counts
    }

    /// Neighbours for which routes have begun to wait, since the last time: with the table and the
    /// limit.
    pub(super) fn take_limit_news(&mut self) -> Vec<(PeerId, usize, usize)> {
        let mut news = Vec::new();
        for group in self.groups.values_mut() {
            for (slot, limit) in group.limits.iter_mut().enumerate() {
                if let Some(most) = limit.most()
                    && limit.take_news()
                {
                    news.extend(group.members.iter().map(|id| (*id, slot, most)));
                }
            }
        }
        news
    }

    /// Whether a destination is announced to a neighbour, with which attributes and next hop.
    pub(super) fn announced(
        &self,
        peer: PeerId,
        slot: usize,
        id: DestId,
        from: &Sources<'_>,
    ) -> Option<(PathAttributes, IpAddr, Option<Label>)> {
        let member = self.members.get(&peer)?;
        let group = self.groups.get(&member.group)?;
        group.announced(peer, slot, id, from)
    }

    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn memory(&self) -> usize {
        let groups: usize = self.groups.values().map(Group::memory).sum();
        let members: usize = self.members.values().map(Member::memory).sum();
        groups + members
    }

    fn leave_group(&mut self, id: PeerId, number: u32) {
        if let Some(group) = self.groups.get_mut(&number) {
            group.members.remove(&id);
            if group.members.is_empty() {
                self.groups.remove(&number);
            }
        }
    }

    fn split(&mut self, number: u32, view: Arc<View>, members: Vec<PeerId>, tables: &[Table]) {
        let Some(group) = self.groups.get_mut(&number) else {
            return;
        };
        let mut part = group.part(members.iter().copied().collect::<BTreeSet<PeerId>>());
        part.set_view(view, tables);
        self.next_group += 1;
        self.groups.insert(self.next_group, part);
        for member in members {
            if let Some(member) = self.members.get_mut(&member) {
                member.group = self.next_group;
            }
        }
    }
}

/// The address part of a next hop.
fn address(hop: PathNextHop) -> IpAddr {
    hop.address()
}
