// SPDX-License-Identifier: Apache-2.0
//! An instance at work: its RIB's thread, its neighbours' tasks, its listening sockets.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bgp_core::config::{Change, Effect, InstanceConfig, InstanceName, PeerName};
use bgp_core::peer::{LocalSpeaker, PeerSnapshot, StopReason};
use bgp_core::rib::{FamilyCounts, RibInput, RibStats};
use router_types::{Asn, Family};
use tokio::sync::oneshot;

use crate::listener::{Callers, ListenStatus, Listeners};
use crate::peer_task::{self, PeerCommand, PeerSender, PeerStart};
use crate::recorder::Recorder;
use crate::rib_thread::{self, RibCommand, RibSender, RibStatus};
use crate::socket;
use crate::speaker::Options;

/// A neighbour in a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// The session.
    pub session: PeerSnapshot,
    /// Routes by family.
    pub families: BTreeMap<Family, FamilyCounts>,
}

/// An instance in a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InstanceSnapshot {
    /// Its name.
    pub name: InstanceName,
    /// Its AS number.
    pub local_asn: Asn,
    /// Its identifier.
    pub router_id: Ipv4Addr,
    /// Where it listens.
    pub listening: Vec<ListenStatus>,
    /// Calls from nobody's address, refused.
    pub unknown_calls: u64,
    /// Sizes of the RIB.
    pub rib: RibStats,
    /// The neighbours, by name.
    pub peers: Vec<PeerStatus>,
}

pub(crate) struct Instance {
    config: InstanceConfig,
    local: LocalSpeaker,
    seed: u64,
    recorder: Recorder,
    rib: RibSender,
    peers: BTreeMap<PeerName, PeerSender>,
    listeners: Option<Listeners>,
    unknown: Arc<AtomicU64>,
}

impl Instance {
    pub(crate) async fn start(
        config: InstanceConfig,
        options: &Options,
        recorder: Recorder,
    ) -> std::io::Result<Instance> {
        let rib = rib_thread::start(config.clone(), recorder.clone())?;
        let mut instance = Instance {
            local: LocalSpeaker {
                asn: config.local_asn(),
                router_id: config.router_id(),
                restarted: options.restarted,
                forwarding_preserved: options.forwarding_preserved,
            },
            seed: options.seed,
            recorder,
            rib,
            peers: BTreeMap::new(),
            listeners: None,
            unknown: Arc::default(),
            config,
        };
        for name in instance
            .config
            .peers()
            .keys()
            .cloned()
            .collect::<Vec<PeerName>>()
        {
            instance.add_peer(name);
        }
        instance.listen();
        for peer in instance.peers.values() {
            peer.send(PeerCommand::Start).await;
        }
        Ok(instance)
    }

    /// Whether a configuration needs a new instance: sessions, RIB and all.
    pub(crate) fn must_restart(&self, next: &InstanceConfig) -> bool {
        self.config.local_asn() != next.local_asn() || self.config.router_id() != next.router_id()
    }

    pub(crate) fn changes_to(&self, next: &InstanceConfig) -> Vec<Change> {
        self.config.changes_to(next)
    }

    /// Takes a configuration, with no more disturbance than it needs.
    pub(crate) async fn apply(&mut self, next: InstanceConfig) {
        let changes = self.config.changes_to(&next);
        if changes.is_empty() {
            return;
        }
        let before = std::mem::replace(&mut self.config, next);
        // Policies first, so that what is asked for again meets them.
        let config = Box::new(self.config.clone());
        self.rib
            .send(RibCommand::Input(RibInput::Configure(config)))
            .await;
        for change in &changes {
            let Some(name) = &change.peer else { continue };
            match change.effect {
                Effect::SessionRemoved => {
                    if let Some(peer) = self.peers.remove(name) {
                        quit(&peer, StopReason::Deconfigured).await;
                    }
                }
                Effect::SessionAdded => {
                    if let Some(peer) = self.add_peer(name.clone()) {
                        peer.send(PeerCommand::Start).await;
                    }
                }
                Effect::Live | Effect::RouteRefresh | Effect::SessionReset => {}
            }
        }
        for (name, sender) in &self.peers {
            let mine = |change: &&Change| change.peer.as_ref() == Some(name);
            let Some(strongest) = changes.iter().filter(mine).map(|c| c.effect).max() else {
                continue;
            };
            let Some(config) = self.config.peers().get(name) else {
                continue;
            };
            if strongest <= Effect::SessionReset {
                sender
                    .send(PeerCommand::Configure(Box::new(config.clone())))
                    .await;
            }
            if strongest == Effect::RouteRefresh {
                let old = before.peers().get(name);
                for (family, now) in config.families() {
                    let same = old.and_then(|old| old.families().get(family)) == Some(now);
                    let loops = old.is_some_and(|old| old.allow_own_as != config.allow_own_as);
                    if !same || loops {
                        sender.send(PeerCommand::AskForRoutes(*family)).await;
                    }
                }
            }
        }
        if before.listen == self.config.listen {
            if let Some(listeners) = &self.listeners {
                listeners.set_callers(self.callers());
            }
        } else {
            self.listen();
        }
    }

    pub(crate) fn rib(&self) -> &RibSender {
        &self.rib
    }

    pub(crate) fn peer(&self, name: &PeerName) -> Option<&PeerSender> {
        self.peers.get(name)
    }

    pub(crate) fn families_of(&self, name: &PeerName) -> Vec<Family> {
        let config = self.config.peers().get(name);
        config.map_or_else(Vec::new, |config| {
            config.families().keys().copied().collect()
        })
    }

    pub(crate) async fn snapshot(&self) -> InstanceSnapshot {
        let (reply, status) = oneshot::channel();
        self.rib.send(RibCommand::Status(reply)).await;
        let mut sessions = Vec::new();
        for sender in self.peers.values() {
            let (reply, session) = oneshot::channel();
            sender.send(PeerCommand::Snapshot(reply)).await;
            sessions.push(session);
        }
        let RibStatus { stats, mut counts } = status.await.unwrap_or_default();
        let mut peers = Vec::new();
        for session in sessions {
            // A task that is gone has nothing to say.
            let Ok(session) = session.await else { continue };
            let families = counts.remove(&session.name).unwrap_or_default();
            peers.push(PeerStatus { session, families });
        }
        InstanceSnapshot {
            name: self.config.name().clone(),
            local_asn: self.config.local_asn(),
            router_id: self.config.router_id(),
            listening: self
                .listeners
                .as_ref()
                .map_or_else(Vec::new, Listeners::status),
            unknown_calls: self.unknown.load(Ordering::Relaxed),
            rib: stats,
            peers,
        }
    }

    /// Ends all sessions for this reason, and the instance.
    pub(crate) async fn stop(mut self, reason: StopReason) {
        self.listeners = None;
        let mut endings = Vec::new();
        for sender in self.peers.values() {
            let (done, ended) = oneshot::channel();
            sender.send(PeerCommand::Quit(reason.clone(), done)).await;
            endings.push(ended);
        }
        for ended in endings {
            if ended.await.is_err() {
                tracing::debug!("a session's task was gone already");
            }
        }
    }

    fn add_peer(&mut self, name: PeerName) -> Option<&PeerSender> {
        let config = self.config.peers().get(&name)?.clone();
        let mut hasher = DefaultHasher::new();
        (self.seed, self.config.name(), &name).hash(&mut hasher);
        let sender = peer_task::spawn(PeerStart {
            instance: self.config.name().clone(),
            name: name.clone(),
            config,
            local: self.local.clone(),
            seed: hasher.finish(),
            rib: self.rib.clone(),
            recorder: self.recorder.clone(),
        });
        self.peers.insert(name.clone(), sender);
        self.peers.get(&name)
    }

    fn listen(&mut self) {
        // The old sockets first: they may have the same addresses.
        self.listeners = None;
        self.listeners = self
            .config
            .listen
            .as_ref()
            .map(|listen| Listeners::start(listen, self.callers(), self.unknown.clone()));
    }

    fn callers(&self) -> Callers {
        let mut callers = Callers::default();
        for (name, sender) in &self.peers {
            let Some(config) = self.config.peers().get(name) else {
                continue;
            };
            // Without its interface the neighbour cannot call either; the address alone is kept.
            let address =
                socket::remote_address(config).unwrap_or_else(|_| config.socket_address());
            callers.peers.push((address, sender.clone()));
            if let Some(password) = &config.password {
                callers.keys.push((address, password.clone()));
            }
        }
        callers
    }
}

async fn quit(peer: &PeerSender, reason: StopReason) {
    let (done, ended) = oneshot::channel();
    peer.send(PeerCommand::Quit(reason, done)).await;
    if ended.await.is_err() {
        tracing::debug!("the session's task was gone already");
    }
}
