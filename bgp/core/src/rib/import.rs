// SPDX-License-Identifier: Apache-2.0
//! From a neighbour's routes to the table: policy, loops, limits, sessions that come and go.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use router_types::Family;

use super::attributes::AttrId;
use super::best::{self, Candidate, Verdict};
use super::export::Learned;
use super::neighbour::{Neighbour, SessionInfo};
use super::next_hop::HopId;
use super::{Path, Paths, PeerId, Rib, RibOutput};
use crate::config::{BeyondLimit, InstanceConfig, PeerName, Transit};
use crate::routes::{NextHopAddress, RouteChange};

/// How long stale routes outlive the session's return without End-of-RIB. RFC 4724 §4.2 asks for
/// an upper bound and leaves it open; 300 s is what large fabrics use for it.
const STALE_LIMIT: Duration = Duration::from_secs(300);

/// What decides whether a destination is used differently: attributes, next hop, neighbour.
type Use = Vec<(AttrId, HopId, PeerId)>;

impl Rib {
    pub(super) fn configure(&mut self, config: InstanceConfig) {
        let gone: Vec<PeerName> = self
            .ids
            .keys()
            .filter(|name| !config.peers().contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            let Some(id) = self.ids.remove(&name) else {
                continue;
            };
            self.exports.leave(id);
            self.purge(id, None, Which::All);
            self.forget_rejected(id);
            self.neighbours.remove(&id);
        }
        for (name, peer) in config.peers() {
            let id = self.id_of(name);
            let Some(neighbour) = self.neighbours.get_mut(&id) else {
                continue;
            };
            let stricter = neighbour.families != *peer.families()
                || neighbour.allow_own_as > peer.allow_own_as;
            let next_hops_differ = peer.families().iter().any(|(family, new)| {
                let old = neighbour.families.get(family);
                old.is_some_and(|old| old.next_hop != new.next_hop)
            });
            neighbour.families = peer.families().clone();
            if next_hops_differ
                && neighbour.up
                && let Some(session) = &neighbour.session
            {
                self.exports.rejoin(id, session, &neighbour.families);
            }
            neighbour.allow_own_as = peer.allow_own_as;
            if stricter {
                neighbour.over_limit.clear();
                self.reconsider(id);
            }
        }
        let paths_differ = self.config.max_paths != config.max_paths;
        self.exports
            .configure(config.local_asn(), config.transit == Transit::Allowed);
        self.config = config;
        let all: Vec<IpNet> = if self.config.transit == Transit::Allowed || paths_differ {
            self.table.iter().map(|(prefix, _)| prefix).collect()
        } else {
            Vec::new()
        };
        for prefix in all {
            self.mark(prefix);
        }
        let locals = std::mem::take(&mut self.locals);
        self.exports.set_local_routes(&locals, &self.ids);
        self.locals = locals;
    }

    pub(super) fn peer_up(&mut self, peer: &PeerName, session: SessionInfo, now: Instant) {
        let Some(&id) = self.ids.get(peer) else {
            return;
        };
        let preserved = |family: Family| {
            session
                .families
                .iter()
                .any(|f| f.family == family && f.forwarding_preserved)
        };
        // RFC 4724 §4.2: without the F bit for a family its stale routes go at once.
        for family in [Family::IPV4_UNICAST, Family::IPV6_UNICAST] {
            if !preserved(family) {
                self.purge(id, Some(family), Which::Stale);
            }
        }
        self.forget_rejected(id);
        let Some(neighbour) = self.neighbours.get_mut(&id) else {
            return;
        };
        let stale = neighbour.stale.values().any(|&count| count > 0);
        neighbour.stale_until = stale.then(|| now + STALE_LIMIT);
        neighbour.over_limit.clear();
        neighbour.up = true;
        self.exports.join(id, &session, &neighbour.families);
        neighbour.session = Some(session);
    }

    pub(super) fn peer_down(&mut self, peer: &PeerName, keep: Option<Duration>, now: Instant) {
        let Some(&id) = self.ids.get(peer) else {
            return;
        };
        self.exports.leave(id);
        self.forget_rejected(id);
        let Some(neighbour) = self.neighbours.get_mut(&id) else {
            return;
        };
        neighbour.up = false;
        match keep {
            None => {
                neighbour.stale_until = None;
                self.purge(id, None, Which::All);
            }
            Some(keep) => {
                neighbour.stale_until = Some(now + keep);
                // What was stale before this session and not renewed in it is gone for good
                // (RFC 4724 §4.2).
                self.purge(id, None, Which::Stale);
                let session = self.neighbours.get(&id).and_then(|n| n.session.clone());
                let families = session.map_or_else(Vec::new, |session| session.families);
                for family in families.iter().filter(|family| !family.graceful) {
                    self.purge(id, Some(family.family), Which::All);
                }
                let mut stale = std::collections::BTreeMap::<Family, u64>::new();
                self.table.retain(None, |prefix, paths| {
                    for path in paths
                        .as_mut_slice()
                        .iter_mut()
                        .filter(|path| path.peer == id)
                    {
                        path.stale = true;
                        *stale.entry(crate::config::family_of(&prefix)).or_default() += 1;
                    }
                    true
                });
                if let Some(neighbour) = self.neighbours.get_mut(&id) {
                    neighbour.stale = stale;
                }
            }
        }
    }

    /// Drops the routes of neighbours that did not come back, or did not renew them, in time.
    pub(super) fn drop_overdue(&mut self, now: Instant) {
        let overdue: Vec<PeerId> = self
            .neighbours
            .iter_mut()
            .filter(|(_, neighbour)| neighbour.stale_until.is_some_and(|at| at <= now))
            .map(|(&id, neighbour)| {
                neighbour.stale_until = None;
                id
            })
            .collect();
        for id in overdue {
            self.purge(id, None, Which::Stale);
        }
    }

    pub(super) fn take_routes(&mut self, peer: &PeerName, changes: Vec<RouteChange>, now: Instant) {
        let Some(&id) = self.ids.get(peer) else {
            return;
        };
        // What was on its way when the session ended is not wanted.
        if !self
            .neighbours
            .get(&id)
            .is_some_and(|neighbour| neighbour.up)
        {
            return;
        }
        for change in changes {
            match change {
                RouteChange::Announce {
                    family,
                    attributes,
                    next_hop,
                    prefixes,
                } => {
                    self.announce_all(id, family, &attributes, next_hop, prefixes, now);
                }
                RouteChange::Withdraw { prefixes, .. } => {
                    for prefix in prefixes {
                        self.withdraw(id, prefix);
                        if let Some(neighbour) = self.neighbours.get_mut(&id)
                            && let Some(kept) = neighbour.rejected.remove(&prefix)
                        {
                            self.attributes.release(kept);
                        }
                    }
                }
                RouteChange::EndOfRib { family } => {
                    self.purge(id, Some(family), Which::Stale);
                }
            }
        }
    }

    fn announce_all(
        &mut self,
        id: PeerId,
        family: Family,
        bytes: &Arc<[u8]>,
        next_hop: NextHopAddress,
        prefixes: Vec<IpNet>,
        now: Instant,
    ) {
        let since_s = now
            .saturating_duration_since(self.began)
            .as_secs()
            .min(u32::MAX.into());
        let since_s = since_s as u32;
        let keep_rejected = self.config.keep_rejected;
        let Some(neighbour) = self.neighbours.get(&id) else {
            return;
        };
        let Some(config) = neighbour.families.get(&family) else {
            return;
        };
        let policy = config.import.clone();
        let max_routes = config
            .limit
            .filter(|limit| matches!(limit.beyond, BeyondLimit::Restart { .. }))
            .map(|limit| limit.limit());
        let allow_own_as = neighbour.allow_own_as;
        let session = neighbour.session.as_ref();
        let link = session.and_then(|session| session.addresses.link);
        // RFC 4271 §5.1.3: a route whose next hop is the receiver's own address is not for it.
        let own_hop = session.is_some_and(|s| s.addresses.local.ip() == next_hop.address);
        let mut interned: Option<(AttrId, bool)> = None;
        for prefix in prefixes {
            let wanted = !own_hop && policy.accepts(&prefix);
            // Attributes of what is not wanted are not even looked at, unless they are kept.
            let (attributes, loops) = if wanted || keep_rejected {
                *interned.get_or_insert_with(|| {
                    let attributes = self.attributes.intern(bytes);
                    let loops = self.attributes.hot(attributes).is_some_and(|hot| {
                        // RFC 4271 §9.1.2, RFC 4456 §8.
                        hot.own_as > allow_own_as || hot.originator == Some(self.config.router_id())
                    });
                    (attributes, loops)
                })
            } else {
                (AttrId::NONE, false)
            };
            let room = wanted && !loops && self.has_room(id, family, &prefix, max_routes);
            if room {
                let next_hop = self.next_hops.hold(next_hop, link);
                self.attributes.hold(attributes);
                let path = Path {
                    attributes,
                    next_hop,
                    since_s,
                    peer: id,
                    stale: false,
                };
                self.accept(prefix, path);
            } else {
                self.withdraw(id, prefix);
                let kept = if keep_rejected {
                    attributes
                } else {
                    AttrId::NONE
                };
                self.attributes.hold(kept);
                if let Some(neighbour) = self.neighbours.get_mut(&id)
                    && let Some(old) = neighbour.rejected.insert(prefix, kept)
                {
                    self.attributes.release(old);
                }
            }
        }
        if let Some((attributes, _)) = interned {
            self.attributes.settle(attributes);
        }
    }

    /// Whether one more route stays within the limit; says so once when it does not.
    fn has_room(&mut self, id: PeerId, family: Family, prefix: &IpNet, limit: Option<u32>) -> bool {
        let Some(limit) = limit else { return true };
        let Some(neighbour) = self.neighbours.get_mut(&id) else {
            return false;
        };
        let accepted = neighbour.accepted.get(&family).copied().unwrap_or(0);
        if accepted < limit.into() {
            return true;
        }
        let known = self
            .table
            .get(prefix)
            .is_some_and(|paths| paths.as_slice().iter().any(|path| path.peer == id));
        if !known && neighbour.over_limit.insert(family) {
            let peer = neighbour.name.clone();
            self.outputs.push_back(RibOutput::LimitExceeded {
                peer,
                family,
                limit,
            });
        }
        known
    }

    fn accept(&mut self, prefix: IpNet, path: Path) {
        let id = path.peer;
        let family = crate::config::family_of(&prefix);
        let before = self.use_of(&prefix);
        let replaced = match self.table.get_mut(&prefix) {
            None => {
                self.table.insert(prefix, Paths::One(path));
                None
            }
            Some(paths) => match paths.as_mut_slice().iter_mut().find(|old| old.peer == id) {
                Some(old) => Some(std::mem::replace(old, path)),
                None => {
                    let mut list = paths.as_slice().to_vec();
                    list.push(path);
                    // In the order of neighbours, so that the order of arrival leaves no trace.
                    list.sort_by_key(|path| path.peer);
                    *paths = Paths::Many(Box::new(list));
                    None
                }
            },
        };
        if let Some(neighbour) = self.neighbours.get_mut(&id) {
            if neighbour.rejected.len() > 0
                && let Some(kept) = neighbour.rejected.remove(&prefix)
            {
                self.attributes.release(kept);
            }
            match replaced {
                None => *neighbour.accepted.entry(family).or_default() += 1,
                Some(old) if old.stale => {
                    let stale = neighbour.stale.entry(family).or_default();
                    *stale = stale.saturating_sub(1);
                }
                Some(_) => {}
            }
        }
        match replaced {
            Some(old) => {
                self.attributes.release(old.attributes);
                self.next_hops.release(old.next_hop);
            }
            None => self.routes += 1,
        }
        if before != self.use_of(&prefix) {
            self.mark(prefix);
        }
    }

    /// Takes a neighbour's route out of the table, if it is there.
    fn withdraw(&mut self, id: PeerId, prefix: IpNet) {
        let Some(paths) = self.table.get(&prefix) else {
            return;
        };
        let Some(path) = paths
            .as_slice()
            .iter()
            .find(|path| path.peer == id)
            .copied()
        else {
            return;
        };
        let before = self.use_of(&prefix);
        let left: Vec<Path> = self
            .table
            .get(&prefix)
            .into_iter()
            .flat_map(|paths| paths.as_slice())
            .filter(|path| path.peer != id)
            .copied()
            .collect();
        match left.as_slice() {
            [] => {
                self.table.remove(&prefix);
            }
            [one] => {
                self.table.insert(prefix, Paths::One(*one));
            }
            _ => {
                self.table.insert(prefix, Paths::Many(Box::new(left)));
            }
        }
        self.routes -= 1;
        self.attributes.release(path.attributes);
        self.next_hops.release(path.next_hop);
        if let Some(neighbour) = self.neighbours.get_mut(&id) {
            let family = crate::config::family_of(&prefix);
            let accepted = neighbour.accepted.entry(family).or_default();
            *accepted = accepted.saturating_sub(1);
            if path.stale {
                let stale = neighbour.stale.entry(family).or_default();
                *stale = stale.saturating_sub(1);
            }
        }
        if before != self.use_of(&prefix) {
            self.mark(prefix);
        }
    }

    /// Drops routes of a neighbour. Walks the whole table: what it costs is paid once a session.
    fn purge(&mut self, id: PeerId, family: Option<Family>, which: Which) {
        let Some(neighbour) = self.neighbours.get(&id) else {
            return;
        };
        let counts = match which {
            Which::All => &neighbour.accepted,
            Which::Stale => &neighbour.stale,
        };
        if counts.values().all(|&count| count == 0) {
            return;
        }
        let affected: Vec<IpNet> = self
            .table
            .iter()
            .filter(|(prefix, _)| family.is_none_or(|f| f == crate::config::family_of(prefix)))
            .filter(|(_, paths)| {
                paths
                    .as_slice()
                    .iter()
                    .any(|path| path.peer == id && (which == Which::All || path.stale))
            })
            .map(|(prefix, _)| prefix)
            .collect();
        for prefix in affected {
            self.withdraw(id, prefix);
        }
    }

    fn forget_rejected(&mut self, id: PeerId) {
        let Some(neighbour) = self.neighbours.get_mut(&id) else {
            return;
        };
        let rejected = std::mem::take(&mut neighbour.rejected);
        for (_, &kept) in rejected.iter() {
            self.attributes.release(kept);
        }
    }

    /// Applies a changed policy to what is there. Routes rejected before that it would take now
    /// have to be sent again; the session asks for them.
    fn reconsider(&mut self, id: PeerId) {
        let Some(neighbour) = self.neighbours.get(&id) else {
            return;
        };
        let (families, allow) = (neighbour.families.clone(), neighbour.allow_own_as);
        let refused: Vec<IpNet> = self
            .table
            .iter()
            .filter(|(prefix, paths)| {
                let policy = families.get(&crate::config::family_of(prefix));
                let wanted = policy.is_some_and(|policy| policy.import.accepts(prefix));
                paths
                    .as_slice()
                    .iter()
                    .filter(|path| path.peer == id)
                    .any(|path| {
                        let hot = self.attributes.hot(path.attributes);
                        !wanted || hot.is_some_and(|hot| hot.own_as > allow)
                    })
            })
            .map(|(prefix, _)| prefix)
            .collect();
        for prefix in refused {
            self.withdraw(id, prefix);
            if let Some(neighbour) = self.neighbours.get_mut(&id) {
                neighbour.rejected.insert(prefix, AttrId::NONE);
            }
        }
    }

    fn id_of(&mut self, name: &PeerName) -> PeerId {
        if let Some(&id) = self.ids.get(name) {
            return id;
        }
        let id = (0..PeerId::MAX)
            .find(|id| !self.neighbours.contains_key(id))
            .expect("an instance has fewer than 65535 neighbours");
        self.ids.insert(name.clone(), id);
        self.neighbours.insert(id, Neighbour::new(name.clone()));
        id
    }

    fn use_of(&self, prefix: &IpNet) -> Use {
        let Some(paths) = self.table.get(prefix) else {
            return Vec::new();
        };
        let paths = paths.as_slice();
        self.used(paths)
            .into_iter()
            .map(|i| (paths[i].attributes, paths[i].next_hop, paths[i].peer))
            .collect()
    }

    /// The routes in use, the best one first.
    pub(super) fn used(&self, paths: &[Path]) -> Vec<usize> {
        match paths {
            [] => Vec::new(),
            // The common case needs no comparing.
            [one] if self.next_hops.metric(one.next_hop).is_some() => vec![0],
            _ => self.judge(paths).1,
        }
    }

    /// A verdict for each route, and those in use.
    pub(super) fn judge(&self, paths: &[Path]) -> (Vec<Verdict>, Vec<usize>) {
        let candidates: Vec<Candidate> = paths
            .iter()
            .filter_map(|path| self.candidate(path))
            .collect();
        debug_assert_eq!(
            candidates.len(),
            paths.len(),
            "every route has attributes and neighbour"
        );
        best::select(&candidates, self.config.max_paths)
    }

    fn candidate(&self, path: &Path) -> Option<Candidate> {
        let session = self.neighbours.get(&path.peer)?.session.as_ref()?;
        let address: IpAddr = session.addresses.remote.ip();
        Some(Candidate {
            hot: *self.attributes.hot(path.attributes)?,
            external: !session.internal,
            metric: self.next_hops.metric(path.next_hop),
            router_id: session.peer_router_id,
            address,
            peer: path.peer,
        })
    }

    /// The best learned route as export sees it.
    pub(super) fn transit_route(&self, prefix: &IpNet) -> Option<Learned> {
        let paths = self.table.get(prefix)?.as_slice();
        let &best = self.used(paths).first()?;
        let path = &paths[best];
        let hot = self.attributes.hot(path.attributes)?;
        let external = self.neighbours.get(&path.peer)?.is_external();
        Some(Learned {
            attributes: self.attributes.attributes(path.attributes)?,
            external,
            no_advertise: hot.no_advertise,
            no_export: hot.no_export,
        })
    }
}

/// Which routes of a neighbour are dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Which {
    All,
    Stale,
}
