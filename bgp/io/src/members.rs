// SPDX-License-Identifier: Apache-2.0
//! Neighbours that are not configured: who called from a listen range and is still there.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bgp_core::config::{InstanceConfig, ListenRange, LocalRoutes, PeerConfig, PeerName};

use crate::handover::HandedSession;

/// The neighbours of an instance's listen ranges.
#[derive(Debug, Default)]
pub(crate) struct Members {
    by_name: BTreeMap<PeerName, Member>,
    /// Calls refused since a range was full, by range; only those of ranges that are full are
    /// counted on.
    refused: BTreeMap<PeerName, u64>,
}

#[derive(Debug)]
struct Member {
    range: PeerName,
    config: PeerConfig,
}

/// What becomes of a call from an address that no configured neighbour has.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It is a neighbour from here on.
    Joined(PeerName, Box<PeerConfig>),
    /// Its range is full.
    Full,
    /// It is in no range.
    Stranger,
}

impl Members {
    /// Takes a caller in, where a range has its address and has room.
    pub(crate) fn admit(&mut self, config: &InstanceConfig, remote: SocketAddr) -> Admission {
        let Some((name, range)) = config.range_of(remote.ip()) else {
            return Admission::Stranger;
        };
        if self.of_range(name) >= usize::from(range.max()) {
            let refused = self.refused.entry(name.clone()).or_default();
            *refused += 1;
            if *refused == 1 {
                tracing::warn!(
                    instance = %config.name(), range = %name, max = range.max(), %remote,
                    "the listen range is full: calls are refused until a neighbour leaves"
                );
            }
            return Admission::Full;
        }
        let Some(peer) = range.neighbour(remote.ip(), zone(remote)) else {
            return Admission::Stranger;
        };
        let neighbour = ListenRange::neighbour_name(name, &peer.address);
        let member = Member {
            range: name.clone(),
            config: peer.clone(),
        };
        self.by_name.insert(neighbour.clone(), member);
        Admission::Joined(neighbour, Box::new(peer))
    }

    /// Takes a neighbour of the process before in again. Where its range is gone or full it is left
    /// out.
    pub(crate) fn readmit(&mut self, config: &InstanceConfig, session: &HandedSession) {
        let HandedSession { stream, record } = session;
        if record.range.is_none() || config.peers().contains_key(&record.peer) {
            return;
        }
        // One that is gone has nothing to go on with.
        let Ok(remote) = stream.peer_addr() else {
            return;
        };
        let configured = config.peers().values();
        if configured
            .into_iter()
            .any(|peer| peer.address.ip() == remote.ip())
        {
            return;
        }
        match self.admit(config, remote) {
            Admission::Joined(name, _) if name != record.peer => {
                // Another range has its address by now: that is another neighbour.
                self.remove(&name);
            }
            Admission::Joined(..) | Admission::Full | Admission::Stranger => {}
        }
    }

    /// Forgets a neighbour that has left. `false` when it was none.
    pub(crate) fn remove(&mut self, name: &PeerName) -> bool {
        let Some(member) = self.by_name.remove(name) else {
            return false;
        };
        self.refused.remove(&member.range);
        true
    }

    /// Gives each neighbour what its range says by now, and forgets those that have no range any
    /// more or have become configured neighbours.
    pub(crate) fn follow(&mut self, config: &InstanceConfig) {
        self.by_name.retain(|_, member| {
            let address = &member.config.address;
            let configured = config.peers().values().any(|peer| peer.address == *address);
            let current = config
                .ranges()
                .get(&member.range)
                .and_then(|range| range.neighbour(address.ip(), address.zone().map(str::to_owned)));
            match current {
                Some(current) if !configured => {
                    member.config = current;
                    true
                }
                Some(_) | None => false,
            }
        });
        let mut refused = std::mem::take(&mut self.refused);
        refused.retain(|name, _| {
            let range = config.ranges().get(name);
            range.is_some_and(|range| self.of_range(name) >= usize::from(range.max()))
        });
        self.refused = refused;
    }

    /// The configuration with these neighbours beside the configured ones.
    pub(crate) fn beside(&self, config: &InstanceConfig) -> InstanceConfig {
        let mut all = config.clone();
        for (name, member) in &self.by_name {
            if let Err(error) = all.add_peer(name.clone(), member.config.clone()) {
                tracing::error!(peer = %name, %error, "a neighbour of a listen range is left out");
            }
        }
        all
    }

    /// What each neighbour is told, those of ranges included.
    pub(crate) fn routes(&self, routes: &LocalRoutes) -> LocalRoutes {
        routes.with_members(self.by_name.iter().map(|(name, m)| (name, &m.range)))
    }

    /// The range a neighbour is of.
    pub(crate) fn range(&self, name: &PeerName) -> Option<&PeerName> {
        self.by_name.get(name).map(|member| &member.range)
    }

    /// Calls refused by each range since it is full.
    pub(crate) fn refused(&self) -> &BTreeMap<PeerName, u64> {
        &self.refused
    }

    fn of_range(&self, range: &PeerName) -> usize {
        self.by_name
            .values()
            .filter(|member| member.range == *range)
            .count()
    }
}

/// The name of the link a link-local caller is on.
fn zone(remote: SocketAddr) -> Option<String> {
    match remote {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => nix::net::if_::if_indextoname(v6.scope_id())
            .ok()
            .and_then(|name| name.into_string().ok()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => None,
    }
}
