// SPDX-License-Identifier: Apache-2.0
//! Adj-RIB-Out: what neighbours are sent, kept and encoded once for all that are sent the same.
//!
//! Neighbours whose sessions agree in everything that shows in an UPDATE, and which are told the
//! same about local routes, form an update group. A change is encoded once and the bytes shared.
//! A neighbour that does not keep up (more than [`QUEUE_LIMIT`] bytes wait for it) leaves the
//! common stream: only the prefixes that changed are remembered for it, and their state of the day
//! is encoded for it alone once it reads again. The first dump to a neighbour and answers to
//! ROUTE-REFRESH take the same way. So what waits is bounded by bytes and by the number of
//! prefixes, never by the number of changes.
//!
//! There is no split horizon: a route that goes back to the AS it came from is refused there for
//! its own AS in the path, and routes of internal neighbours do not go to internal ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_wire::{AsPath, Community, LargeCommunity, NlriEntry, Origin, PathAttributes, PathNextHop};
use bytes::Bytes;
use ipnet::IpNet;
use router_types::{Asn, Family};

use super::PeerId;
use super::neighbour::{SessionFamily, SessionInfo};
use super::prefix_map::PrefixMap;
use crate::config::{ExportAttributes, FamilyConfig, LocalRoute, PeerName, family_of};

/// Bytes that wait for a neighbour before it leaves the common stream. Arbitrary: a few TCP
/// windows.
pub(super) const QUEUE_LIMIT: usize = 1 << 20;

/// Prefixes encoded at a time, to keep segments and the time spent small.
const CHUNK: usize = 2048;

/// Messages for a neighbour.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// Whole UPDATE messages.
    pub bytes: Bytes,
    /// How many.
    pub updates: u32,
}

/// A learned route that may be passed on.
pub(super) struct Learned {
    pub(super) attributes: PathAttributes,
    pub(super) external: bool,
    pub(super) no_advertise: bool,
    pub(super) no_export: bool,
}

type View = BTreeMap<IpNet, ExportAttributes>;

/// All update groups of an instance.
#[derive(Debug)]
pub(super) struct Exports {
    local_asn: Asn,
    transit: bool,
    /// Whether local routes were given once, so that a dump of them is complete.
    locals_known: bool,
    groups: BTreeMap<u32, Group>,
    next_group: u32,
    members: BTreeMap<PeerId, Member>,
    /// What each neighbour, up or not, is told about local routes; equal ones are one.
    views: BTreeMap<PeerId, Arc<View>>,
    /// Destinations learned routes exist for, to fill a new group with.
    learned: PrefixMap<()>,
}

impl Default for Exports {
    fn default() -> Self {
        Exports {
            local_asn: Asn(0),
            transit: false,
            locals_known: false,
            groups: BTreeMap::new(),
            next_group: 0,
            members: BTreeMap::new(),
            views: BTreeMap::new(),
            learned: PrefixMap::default(),
        }
    }
}

/// All that makes a difference in an UPDATE.
#[derive(Clone, PartialEq, Eq, Debug)]
struct GroupKey {
    internal: bool,
    four_octet_as: bool,
    max_len: usize,
    /// Families with the next hop announced; a family without a possible next hop is not sent.
    families: Vec<(SessionFamily, PathNextHop)>,
}

#[derive(Debug)]
struct Group {
    key: GroupKey,
    view: Arc<View>,
    adj_out: PrefixMap<Arc<[u8]>>,
    dirty: BTreeSet<IpNet>,
    members: BTreeSet<PeerId>,
}

#[derive(Debug)]
struct Member {
    group: u32,
    queue: VecDeque<Transmit>,
    queued_bytes: usize,
    /// Prefixes whose state it has to be sent outside the common stream.
    behind: BTreeSet<IpNet>,
    /// End-of-RIB markers due once it is not behind.
    end_of_rib: BTreeSet<Family>,
}

impl Exports {
    pub(super) fn configure(&mut self, local_asn: Asn, transit: bool) {
        self.local_asn = local_asn;
        if self.transit != transit {
            self.transit = transit;
            for group in self.groups.values_mut() {
                group
                    .dirty
                    .extend(group.adj_out.iter().map(|(prefix, _)| prefix));
            }
            if !transit {
                self.learned = PrefixMap::default();
            }
        }
    }

    /// A learned destination is used differently.
    pub(super) fn mark(&mut self, prefix: IpNet) {
        if self.transit {
            self.learned.insert(prefix, ());
            for group in self.groups.values_mut() {
                group.dirty.insert(prefix);
            }
        }
    }

    /// Takes all local routes. Members of a group that are told different things from now on go
    /// into groups of their own, each with a copy of what they were sent; groups that come to be
    /// alike stay apart until a session comes up again.
    pub(super) fn set_local_routes(
        &mut self,
        locals: &BTreeMap<IpNet, LocalRoute>,
        ids: &BTreeMap<PeerName, PeerId>,
    ) {
        self.views = views(locals, ids);
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
                self.split(number, view, members);
            }
            if let (Some((view, _)), Some(group)) = (first, self.groups.get_mut(&number)) {
                group.set_view(view);
            }
        }
    }

    /// A session came up: the neighbour is sent everything, then End-of-RIB.
    pub(super) fn join(
        &mut self,
        id: PeerId,
        session: &SessionInfo,
        config: &BTreeMap<Family, FamilyConfig>,
    ) {
        self.leave(id);
        let key = GroupKey {
            internal: session.internal,
            four_octet_as: session.four_octet_as,
            max_len: session.max_len,
            families: session
                .families
                .iter()
                .filter_map(|family| {
                    let wanted = config
                        .get(&family.family)
                        .and_then(|config| config.next_hop);
                    let hop = next_hop(family, session, wanted)?;
                    let plain = SessionFamily {
                        graceful: false,
                        forwarding_preserved: false,
                        ..*family
                    };
                    Some((plain, hop))
                })
                .collect(),
        };
        let view = self.views.get(&id).cloned().unwrap_or_default();
        let found = self
            .groups
            .iter()
            .find(|(_, g)| g.key == key && g.view == view);
        let number = match found {
            Some((&number, _)) => number,
            None => {
                self.next_group += 1;
                let mut dirty: BTreeSet<IpNet> = view.keys().copied().collect();
                dirty.extend(self.learned.iter().map(|(prefix, ())| prefix));
                let group = Group {
                    key,
                    view,
                    adj_out: PrefixMap::default(),
                    dirty,
                    members: BTreeSet::new(),
                };
                self.groups.insert(self.next_group, group);
                self.next_group
            }
        };
        let Some(group) = self.groups.get_mut(&number) else {
            return;
        };
        group.members.insert(id);
        let member = Member {
            group: number,
            queue: VecDeque::new(),
            queued_bytes: 0,
            behind: group.adj_out.iter().map(|(prefix, _)| prefix).collect(),
            end_of_rib: session
                .families
                .iter()
                .map(|family| family.family)
                .collect(),
        };
        self.members.insert(id, member);
    }

    /// Has End-of-RIB sent from now on.
    pub(super) fn locals_are_known(&mut self) {
        self.locals_known = true;
    }

    /// What is announced to a neighbour that is up has to be announced differently: all of it is
    /// sent again, and what waits stays in its place.
    pub(super) fn rejoin(
        &mut self,
        id: PeerId,
        session: &SessionInfo,
        config: &BTreeMap<Family, FamilyConfig>,
    ) {
        let Some(member) = self.members.get(&id) else {
            return;
        };
        let group = self.groups.get(&member.group);
        let sent: Vec<IpNet> = group
            .into_iter()
            .flat_map(|group| group.adj_out.iter().map(|(prefix, _)| prefix))
            .collect();
        let Some(old) = self.members.remove(&id) else {
            return;
        };
        self.leave_group(id, old.group);
        self.join(id, session, config);
        if let Some(member) = self.members.get_mut(&id) {
            member.behind.extend(old.behind);
            member.behind.extend(sent);
            member.end_of_rib = old.end_of_rib;
            member.queue = old.queue;
            member.queued_bytes = old.queued_bytes;
        }
    }

    pub(super) fn leave(&mut self, id: PeerId) {
        let Some(member) = self.members.remove(&id) else {
            return;
        };
        if let Some(group) = self.groups.get_mut(&member.group) {
            group.members.remove(&id);
            if group.members.is_empty() {
                self.groups.remove(&member.group);
            }
        }
    }

    /// Sends a family again (RFC 2918).
    pub(super) fn resend(&mut self, id: PeerId, family: Family) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let Some(group) = self.groups.get(&member.group) else {
            return;
        };
        member
            .behind
            .extend(group.adj_out.after(family, None).map(|(prefix, _)| prefix));
    }

    /// Works changes into every group's Adj-RIB-Out and encodes them, once for each group.
    pub(super) fn flush(&mut self, learned: impl Fn(&IpNet) -> Option<Learned>) {
        for group in self
            .groups
            .values_mut()
            .filter(|group| !group.dirty.is_empty())
        {
            let dirty = std::mem::take(&mut group.dirty);
            let mut changed = Vec::new();
            for prefix in dirty {
                let wanted = if group.key.hop(family_of(&prefix)).is_none() {
                    None
                } else if let Some(told) = group.view.get(&prefix) {
                    Some(
                        group
                            .key
                            .encode(local_attributes(told, &group.key, self.local_asn)),
                    )
                } else if self.transit {
                    learned(&prefix)
                        .and_then(|route| passed_on(route, &group.key, self.local_asn))
                        .map(|attributes| group.key.encode(attributes))
                } else {
                    None
                };
                let differs = match wanted {
                    Some(bytes) => match group.adj_out.get(&prefix) {
                        Some(sent) if *sent == bytes => false,
                        Some(_) | None => {
                            group.adj_out.insert(prefix, bytes);
                            true
                        }
                    },
                    None => group.adj_out.remove(&prefix).is_some(),
                };
                if differs {
                    changed.push(prefix);
                }
            }
            if changed.is_empty() {
                continue;
            }
            let segments = group.segments(&changed);
            for id in &group.members {
                let Some(member) = self.members.get_mut(id) else {
                    continue;
                };
                if member.behind.is_empty() && member.queued_bytes < QUEUE_LIMIT {
                    segments
                        .iter()
                        .cloned()
                        .for_each(|segment| member.push(segment));
                } else {
                    member.behind.extend(changed.iter().copied());
                }
            }
        }
    }

    pub(super) fn poll_transmit(&mut self, id: PeerId) -> Option<Transmit> {
        let member = self.members.get_mut(&id)?;
        let group = self.groups.get(&member.group)?;
        if member.queue.is_empty() && !member.behind.is_empty() {
            let mut part = Vec::new();
            while part.len() < CHUNK
                && let Some(prefix) = member.behind.pop_first()
            {
                part.push(prefix);
            }
            group
                .segments(&part)
                .into_iter()
                .for_each(|segment| member.push(segment));
        }
        if self.locals_known && member.queue.is_empty() && member.behind.is_empty() {
            let mut bytes = Vec::new();
            let due = std::mem::take(&mut member.end_of_rib);
            let updates = due.len() as u32;
            due.into_iter()
                .for_each(|family| bgp_wire::end_of_rib(&mut bytes, family));
            if updates > 0 {
                member.push(Transmit {
                    bytes: bytes.into(),
                    updates,
                });
            }
        }
        let next = member.queue.pop_front()?;
        member.queued_bytes -= next.bytes.len();
        Some(next)
    }

    /// How many routes of a family a neighbour is sent.
    pub(super) fn advertised(&self, id: PeerId, family: Family) -> u64 {
        let group = self
            .members
            .get(&id)
            .and_then(|member| self.groups.get(&member.group));
        group.map_or(0, |group| group.adj_out.len_of(family) as u64)
    }

    /// What a neighbour is sent, in order, with the next hop.
    pub(super) fn sent(
        &self,
        id: PeerId,
        family: Family,
        after: Option<IpNet>,
    ) -> impl Iterator<Item = (IpNet, PathAttributes, IpAddr)> + '_ {
        let group = self
            .members
            .get(&id)
            .and_then(|member| self.groups.get(&member.group));
        group.into_iter().flat_map(move |group| {
            group
                .adj_out
                .after(family, after)
                .filter_map(move |(prefix, bytes)| {
                    let hop = group.key.hop(family)?;
                    Some((prefix, group.key.decode(bytes), hop.1.address()))
                })
        })
    }

    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    fn leave_group(&mut self, id: PeerId, number: u32) {
        if let Some(group) = self.groups.get_mut(&number) {
            group.members.remove(&id);
            if group.members.is_empty() {
                self.groups.remove(&number);
            }
        }
    }

    fn split(&mut self, number: u32, view: Arc<View>, members: Vec<PeerId>) {
        let Some(group) = self.groups.get_mut(&number) else {
            return;
        };
        group.members.retain(|member| !members.contains(member));
        let mut part = Group {
            key: group.key.clone(),
            view: group.view.clone(),
            adj_out: group.adj_out.clone(),
            dirty: group.dirty.clone(),
            members: members.iter().copied().collect(),
        };
        part.set_view(view);
        self.next_group += 1;
        self.groups.insert(self.next_group, part);
        for member in members {
            if let Some(member) = self.members.get_mut(&member) {
                member.group = self.next_group;
            }
        }
    }
}

impl Group {
    fn set_view(&mut self, view: Arc<View>) {
        let old = std::mem::replace(&mut self.view, view);
        let differs = |prefix: &&IpNet| old.get(*prefix) != self.view.get(*prefix);
        let differing: Vec<IpNet> = old
            .keys()
            .chain(self.view.keys())
            .filter(differs)
            .copied()
            .collect();
        self.dirty.extend(differing);
    }

    /// The state of some prefixes as messages: withdrawals first, then announcements, those with
    /// equal attributes together.
    fn segments(&self, prefixes: &[IpNet]) -> Vec<Transmit> {
        let mut segments = Vec::new();
        for (family, hop) in &self.key.families {
            let context = family.context();
            let mut withdrawn = Vec::new();
            let mut announced: BTreeMap<&Arc<[u8]>, Vec<IpNet>> = BTreeMap::new();
            for prefix in prefixes
                .iter()
                .filter(|prefix| family_of(prefix) == family.family)
            {
                match self.adj_out.get(prefix) {
                    Some(attributes) => announced.entry(attributes).or_default().push(*prefix),
                    None => withdrawn.push(*prefix),
                }
            }
            let entries = |chunk: &[IpNet]| chunk.iter().map(|p| NlriEntry::new(*p)).collect();
            for chunk in withdrawn.chunks(CHUNK) {
                let mut bytes = Vec::new();
                let entries: Vec<NlriEntry> = entries(chunk);
                let updates = bgp_wire::withdraw(&mut bytes, &context, self.key.max_len, entries);
                segments.push(Transmit {
                    bytes: bytes.into(),
                    updates: updates as u32,
                });
            }
            for (attributes, list) in announced {
                for chunk in list.chunks(CHUNK) {
                    let mut bytes = Vec::new();
                    let entries: Vec<NlriEntry> = entries(chunk);
                    let max_len = self.key.max_len;
                    match bgp_wire::announce(
                        &mut bytes, &context, max_len, attributes, *hop, entries,
                    ) {
                        Ok(updates) => segments.push(Transmit {
                            bytes: bytes.into(),
                            updates: updates as u32,
                        }),
                        // RFC 4271 §9.2: what does not fit a message is not announced.
                        Err(error) => {
                            tracing::warn!(%error, prefixes = chunk.len(), "routes not announced");
                        }
                    }
                }
            }
        }
        segments
    }
}

impl Member {
    fn push(&mut self, segment: Transmit) {
        self.queued_bytes += segment.bytes.len();
        self.queue.push_back(segment);
    }
}

impl GroupKey {
    fn hop(&self, family: Family) -> Option<&(SessionFamily, PathNextHop)> {
        self.families.iter().find(|(f, _)| f.family == family)
    }

    fn encode(&self, attributes: PathAttributes) -> Arc<[u8]> {
        let mut bytes = Vec::new();
        attributes.encode(self.four_octet_as, &mut bytes);
        bytes.into()
    }

    fn decode(&self, bytes: &[u8]) -> PathAttributes {
        let mut context = bgp_wire::SessionContext::plain(bgp_wire::PeerKind::Internal, &[]);
        context.four_octet_as = self.four_octet_as;
        context.as_sets = bgp_wire::AsSetPolicy::Accept;
        PathAttributes::decode(bytes, &context).attributes
    }
}

/// What each neighbour is told, neighbours that are told the same sharing it.
fn views(
    locals: &BTreeMap<IpNet, LocalRoute>,
    ids: &BTreeMap<PeerName, PeerId>,
) -> BTreeMap<PeerId, Arc<View>> {
    let mut distinct: Vec<Arc<View>> = Vec::new();
    let mut views = BTreeMap::new();
    for (name, &id) in ids {
        let told = |(prefix, route): (&IpNet, &LocalRoute)| {
            route
                .peers
                .get(name)
                .map(|attributes| (*prefix, attributes.clone()))
        };
        let view: View = locals.iter().filter_map(told).collect();
        let shared = match distinct.iter().find(|other| ***other == view) {
            Some(shared) => shared.clone(),
            None => {
                distinct.push(Arc::new(view));
                distinct[distinct.len() - 1].clone()
            }
        };
        views.insert(id, shared);
    }
    views
}

/// The next hop for a family: the configured one, else this end of the session or an address of
/// its link in the family that can be announced. `None` when there is no such address.
fn next_hop(
    family: &SessionFamily,
    session: &SessionInfo,
    wanted: Option<IpAddr>,
) -> Option<PathNextHop> {
    let addresses = &session.addresses;
    let v6 = |global: std::net::Ipv6Addr| {
        // RFC 2545 §3: the link-local address goes along where the neighbour shares the link.
        // A session on link-local addresses is where that is known.
        let local = match addresses.local.ip() {
            IpAddr::V6(local) if local.is_unicast_link_local() && local != global => Some(local),
            IpAddr::V6(_) | IpAddr::V4(_) => None,
        };
        PathNextHop::V6 {
            global,
            link_local: local,
        }
    };
    let ipv4 = family.family == Family::IPV4_UNICAST;
    let own_v6 = |local: std::net::Ipv6Addr| {
        if local.is_unicast_link_local() {
            addresses.link_ipv6.unwrap_or(local)
        } else {
            local
        }
    };
    match (wanted.unwrap_or(addresses.local.ip()), ipv4) {
        (IpAddr::V4(address), true) => Some(PathNextHop::V4(address)),
        (IpAddr::V6(address), true) if family.extended_next_hop => Some(v6(own_v6(address))),
        (IpAddr::V6(_), true) => addresses.link_ipv4.map(PathNextHop::V4),
        (IpAddr::V6(address), false) => Some(v6(own_v6(address))),
        (IpAddr::V4(_), false) => addresses.link_ipv6.map(v6),
    }
}

fn local_attributes(told: &ExportAttributes, key: &GroupKey, local_asn: Asn) -> PathAttributes {
    let path: &[Asn] = if key.internal { &[] } else { &[local_asn] };
    PathAttributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::from_sequence(path.iter().copied())),
        // RFC 4271 §5.1.5: to internal neighbours always, to external ones never.
        local_pref: key.internal.then(|| told.local_pref.unwrap_or(100)),
        communities: told.communities.iter().copied().map(Community).collect(),
        large_communities: told
            .large_communities
            .iter()
            .map(|&(global, local_1, local_2)| LargeCommunity::new(global, local_1, local_2))
            .collect(),
        ..PathAttributes::default()
    }
}

/// A learned route as it is passed on, if it is (RFC 4271 §9.2, RFC 1997).
fn passed_on(route: Learned, key: &GroupKey, local_asn: Asn) -> Option<PathAttributes> {
    let Learned {
        mut attributes,
        external,
        no_advertise,
        no_export,
    } = route;
    let reflected = key.internal && !external;
    if reflected || no_advertise || (no_export && !key.internal) {
        return None;
    }
    if key.internal {
        attributes.local_pref = Some(attributes.local_pref.unwrap_or(100));
    } else {
        attributes.local_pref = None;
        // RFC 4271 §5.1.4: MED goes to the neighbour AS and no further.
        attributes.med = None;
        attributes.originator_id = None;
        attributes.cluster_list.clear();
        attributes
            .as_path
            .get_or_insert_default()
            .prepend(local_asn, 1);
    }
    Some(attributes)
}
