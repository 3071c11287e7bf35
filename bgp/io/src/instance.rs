// SPDX-License-Identifier: Apache-2.0
//! One running instance: its neighbours' tasks, its listeners and its RIB.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bgp_bfdd::client::Client;
use bgp_core::config::{Effect, InstanceConfig, LocalRoutes, PeerConfig, PeerName};
use bgp_core::peer::{LocalSpeaker, PeerSnapshot, StopReason};
use bgp_core::rib::{FamilyCounts, RibInput, RibStats};
use bgp_wire::{ErrorKind, Notification};
use router_types::{Family, LinkIndex};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::adopted::Adopted;
use crate::bfd::Bfd;
use crate::connection;
use crate::handover::HandedSession;
use crate::lines::Lines;
use crate::listener::{Call, Listeners};
use crate::members::{Admission, Members};
use crate::recorder::Recorder;
use crate::rib_thread::{self, RibSender, RouteEvent};
use crate::session::{Departure, Partings, PeerCommand, Session};
use crate::speaker::Options;

/// How long the RIB may take before it knows that neighbours' sessions ended.
const GOODBYE: Duration = Duration::from_secs(5);

/// How long a neighbour may take to be sent what it is to know before its session is handed over.
/// Sessions go on meanwhile.
const FLUSH: Duration = Duration::from_secs(5);

/// Calls of strangers that are told so at the same time; more are just closed. Arbitrary.
const REFUSALS: usize = 16;

/// How much a snapshot says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Detail {
    /// Nothing for which tables are walked.
    Sessions,
    /// Everything.
    All,
}

/// Everything there is to say about an instance.
#[derive(Clone, Debug)]
pub struct InstanceSnapshot {
    /// Its configuration, with the neighbours of listen ranges that are there.
    pub config: InstanceConfig,
    /// Where it takes calls.
    pub listening: Vec<SocketAddr>,
    /// Where it should and cannot, and why.
    pub listen_failures: Vec<(SocketAddr, String)>,
    /// Calls refused by each listen range that is full, since it is.
    pub refused_by_ranges: BTreeMap<PeerName, u64>,
    /// Calls of addresses that are no neighbours.
    pub strangers: u64,
    /// The last such address.
    pub last_stranger: Option<SocketAddr>,
    /// Its neighbours.
    pub peers: Vec<PeerReport>,
    /// The tables.
    pub rib: RibStats,
}

/// A neighbour's session and its routes.
#[derive(Clone, Debug)]
pub struct PeerReport {
    /// The session.
    pub session: PeerSnapshot,
    /// The listen range it is of; `None` for a configured neighbour.
    pub range: Option<PeerName>,
    /// The routes, by family.
    pub routes: BTreeMap<Family, FamilyCounts>,
    /// What waits to be sent to it.
    pub backlog: Backlog,
}

/// What waits to be sent to a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backlog {
    /// Bytes of messages.
    pub bytes: u64,
    /// Destinations whose state is not encoded yet.
    pub destinations: u64,
}

pub(crate) struct Instance {
    /// As it was given.
    config: InstanceConfig,
    /// With the neighbours of listen ranges.
    effective: InstanceConfig,
    members: Members,
    /// Sessions of the process before whose neighbours are not there yet.
    adopted: Adopted,
    routes: LocalRoutes,
    departures: mpsc::UnboundedSender<Departure>,
    local: LocalSpeaker,
    rib: RibSender,
    lines: Lines,
    recorder: Recorder,
    bfd: Option<Client>,
    peers: BTreeMap<PeerName, mpsc::UnboundedSender<PeerCommand>>,
    listeners: Listeners,
    strangers: u64,
    last_stranger: Option<SocketAddr>,
    refusals: JoinSet<()>,
}

impl Instance {
    /// Starts an instance: RIB, listeners, neighbours.
    pub(crate) async fn start(
        config: InstanceConfig,
        routes: LocalRoutes,
        options: &Options,
        events: mpsc::Sender<RouteEvent>,
        calls: mpsc::Sender<Call>,
        departures: mpsc::UnboundedSender<Departure>,
        adopted: Vec<HandedSession>,
    ) -> io::Result<Instance> {
        let mut members = Members::default();
        for session in &adopted {
            members.readmit(&config, session);
        }
        let effective = members.beside(&config);
        let rib = rib_thread::start(effective.clone(), events, options.recorder.clone())?;
        if options.hold_ends {
            rib.input(RibInput::HoldEnds).await;
        }
        if !adopted.is_empty() {
            let number =
                |session: &HandedSession| (session.record.peer.clone(), session.record.left.number);
            let numbers = adopted.iter().map(number).collect();
            rib.input(RibInput::Numbers(numbers)).await;
        }
        rib.input(RibInput::LocalRoutes(members.routes(&routes)))
            .await;
        let mut listeners = Listeners::new(config.name().clone(), calls);
        // Before the first neighbour is dialled: two ends that start together call each other.
        listeners.apply(&config).await;
        let mut instance = Instance {
            local: LocalSpeaker {
                asn: config.local_asn(),
                router_id: config.router_id(),
                restarted: options.restarted,
                forwarding_preserved: options.restarted,
            },
            rib,
            lines: Lines::default(),
            recorder: options.recorder.clone(),
            bfd: options.bfd.clone(),
            peers: BTreeMap::new(),
            listeners,
            strangers: 0,
            last_stranger: None,
            refusals: JoinSet::new(),
            adopted: Adopted::new(adopted),
            effective,
            members,
            routes,
            departures,
            config,
        };
        for (name, peer) in instance.effective.peers().clone() {
            instance.start_peer(name, peer);
        }
        // Neighbours that are added later saw no restart.
        instance.local.restarted = false;
        instance.local.forwarding_preserved = false;
        Ok(instance)
    }

    /// Whether a configuration needs another instance instead of a changed one: what it is to the
    /// world has changed.
    pub(crate) fn is_replaced_by(&self, config: &InstanceConfig) -> bool {
        self.local.asn != config.local_asn() || self.local.router_id != config.router_id()
    }

    /// Changes what is different, and nothing else.
    pub(crate) async fn apply(&mut self, config: InstanceConfig, routes: LocalRoutes) {
        self.members.follow(&config);
        if self.routes != routes {
            self.routes = routes;
            self.tell_routes().await;
        }
        let effective = self.members.beside(&config);
        let changes = self.effective.changes_to(&effective);
        if changes.is_empty() {
            return;
        }
        for change in &changes {
            let peer = change.peer.as_ref().map(tracing::field::display);
            tracing::info!(
                instance = %config.name(), peer, change = change.what, effect = ?change.effect,
                "configuration changed"
            );
        }
        self.listeners.apply(&config).await;
        self.config = config;
        let gone: Vec<PeerName> = self
            .peers
            .keys()
            .filter(|name| !effective.peers().contains_key(*name))
            .cloned()
            .collect();
        for mut parting in self.end_peers(&gone, &StopReason::Deconfigured).await {
            parting.detach_all();
        }
        // The RIB first: routes that come again must meet the new policy.
        self.rib
            .input(RibInput::Configure(Box::new(effective.clone())))
            .await;
        for (name, peer) in effective.peers() {
            match self.peers.get(name) {
                None => self.start_peer(name.clone(), peer.clone()),
                Some(inbox) => {
                    if self.effective.peers().get(name) != Some(peer) {
                        // A task ends only when it is told to.
                        let _ = inbox.send(PeerCommand::Configure(Box::new(peer.clone())));
                    }
                    let ask = changes.iter().any(|change| {
                        change
                            .peer
                            .as_ref()
                            .is_none_or(|concerned| concerned == name)
                            && change.effect == Effect::RouteRefresh
                    });
                    for family in peer.families().keys().filter(|_| ask) {
                        let _ = inbox.send(PeerCommand::AskForRoutes(*family));
                    }
                }
            }
        }
        self.effective = effective;
    }

    /// Says what is announced to whom.
    async fn tell_routes(&self) {
        let routes = self.members.routes(&self.routes);
        self.rib.input(RibInput::LocalRoutes(routes)).await;
    }

    /// Tells the tables who the neighbours are, after one of a listen range came or went.
    async fn tell_members(&mut self) {
        self.effective = self.members.beside(&self.config);
        let effective = Box::new(self.effective.clone());
        self.rib.input(RibInput::Configure(effective)).await;
        self.tell_routes().await;
    }

    /// A neighbour of a listen range is there no more.
    pub(crate) async fn departed(&mut self, name: &PeerName) {
        if !self.members.remove(name) {
            return;
        }
        tracing::info!(instance = %self.config.name(), peer = %name, "left its listen range");
        let reason = StopReason::Deconfigured;
        for mut parting in self.end_peers(std::slice::from_ref(name), &reason).await {
            parting.detach_all();
        }
        self.tell_members().await;
    }

    /// A link is down.
    pub(crate) fn link_down(&self, link: LinkIndex, interface: &str) {
        for inbox in self.peers.values() {
            // A task that has ended has no session on it.
            let _ = inbox.send(PeerCommand::LinkDown(link, interface.to_owned()));
        }
    }

    /// Gives up on sessions of the process before that nobody went on with.
    pub(crate) fn refuse_strays(&mut self) {
        for stray in self.adopted.take_overdue() {
            self.part(stray);
        }
    }

    /// Tries again to open what could not be opened.
    pub(crate) async fn retry_listeners(&mut self) {
        if self.listeners.have_to_be_looked_at() {
            self.listeners.apply(&self.config).await;
        }
    }

    pub(crate) fn rib(&self) -> &RibSender {
        &self.rib
    }

    pub(crate) fn peer(&self, name: &PeerName) -> Option<&mpsc::UnboundedSender<PeerCommand>> {
        self.peers.get(name)
    }

    /// Hands a call to the neighbour that has its address, or sends it away.
    pub(crate) async fn called(&mut self, call: Call) {
        let scope = match call.remote {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => Some(v6.scope_id()),
            _ => None,
        };
        let peer = self.effective.peers().iter().find(|(_, peer)| {
            peer.address.ip() == call.remote.ip()
                && match (peer.address.zone(), scope) {
                    (Some(zone), Some(scope)) => {
                        crate::socket::interface_index(zone).is_ok_and(|index| index == scope)
                    }
                    (None, None) => true,
                    (Some(_), None) | (None, Some(_)) => false,
                }
        });
        if let Some(inbox) = peer.and_then(|(name, _)| self.peers.get(name)) {
            // A task ends only when it is told to.
            let _ = inbox.send(PeerCommand::Called(call.stream, call.remote));
            return;
        }
        match self.members.admit(&self.config, call.remote) {
            Admission::Joined(name, config) => {
                tracing::info!(
                    instance = %self.config.name(), peer = %name, "joined by its listen range"
                );
                self.tell_members().await;
                self.start_peer(name.clone(), *config);
                if let Some(inbox) = self.peers.get(&name) {
                    let _ = inbox.send(PeerCommand::Called(call.stream, call.remote));
                }
            }
            Admission::Full => self.refuse(call.stream),
            Admission::Stranger => {
                self.strangers += 1;
                if self.last_stranger.map(|s| s.ip()) != Some(call.remote.ip()) {
                    tracing::warn!(
                        instance = %self.config.name(), remote = %call.remote,
                        "a call of an address that is no neighbour was refused"
                    );
                }
                self.last_stranger = Some(call.remote);
                self.refuse(call.stream);
            }
        }
    }

    fn refuse(&mut self, stream: TcpStream) {
        while self.refusals.try_join_next().is_some() {}
        if self.refusals.len() < REFUSALS {
            let mut goodbye = Vec::new();
            Notification::new(ErrorKind::CONNECTION_REJECTED).encode(&mut goodbye);
            self.refusals
                .spawn_local(connection::dismiss(stream, goodbye));
        }
    }

    /// Says goodbye on a session that no neighbour goes on with.
    fn part(&mut self, session: HandedSession) {
        let HandedSession { stream, record } = session;
        tracing::warn!(
            instance = %self.config.name(), peer = %record.peer,
            "a session of the process before has no neighbour here: it was ended"
        );
        let prepared = stream.set_nonblocking(true);
        if let Ok(stream) = prepared.and_then(|()| TcpStream::from_std(stream)) {
            // It may begin in the middle of a message.
            let mut goodbye = record.unsent;
            Notification::new(ErrorKind::PEER_DECONFIGURED).encode(&mut goodbye);
            self.refusals
                .spawn_local(connection::dismiss(stream, goodbye));
        }
    }

    /// Asks everybody for what there is to say. The instance need not wait for the answers.
    pub(crate) fn snapshot(
        &self,
        detail: Detail,
    ) -> impl Future<Output = InstanceSnapshot> + 'static {
        let mut answers = Vec::new();
        for (name, inbox) in &self.peers {
            let (reply, answer) = oneshot::channel();
            // A task that has ended has nothing to say.
            let _ = inbox.send(PeerCommand::Snapshot(reply));
            answers.push((name.clone(), self.members.range(name).cloned(), answer));
        }
        let mut snapshot = InstanceSnapshot {
            config: self.effective.clone(),
            refused_by_ranges: self.members.refused().clone(),
            listening: self.listeners.addresses().collect(),
            listen_failures: self
                .listeners
                .failures()
                .map(|(address, error)| (address, error.to_owned()))
                .collect(),
            strangers: self.strangers,
            last_stranger: self.last_stranger,
            peers: Vec::new(),
            rib: RibStats::default(),
        };
        let rib = self.rib.clone();
        async move {
            let (mut counts, stats) = rib
                .ask(move |rib, _| {
                    let counts = match detail {
                        Detail::Sessions => BTreeMap::new(),
                        Detail::All => rib.all_counts(),
                    };
                    let counts = counts.into_iter().map(|(name, counts)| {
                        let (bytes, destinations) = rib.backlog(&name);
                        let backlog = Backlog {
                            bytes: bytes as u64,
                            destinations: destinations as u64,
                        };
                        (name, (counts, backlog))
                    });
                    (counts.collect::<BTreeMap<_, _>>(), rib.stats())
                })
                .await
                .unwrap_or_default();
            snapshot.rib = stats;
            for (name, range, answer) in answers {
                let Ok(session) = answer.await else { continue };
                let (routes, backlog) = counts.remove(&name).unwrap_or_default();
                snapshot.peers.push(PeerReport {
                    session,
                    range,
                    routes,
                    backlog,
                });
            }
            snapshot
        }
    }

    /// Takes the sessions that are up from their tasks, for the next process, and passes on those
    /// that came from the process before and found no neighbour yet.
    pub(crate) async fn hand_over(&mut self) -> Vec<HandedSession> {
        // All at the same time: one that does not read must not take the others' time.
        let mut letting_go = JoinSet::new();
        for name in self.peers.keys().cloned() {
            let rib = self.rib.clone();
            letting_go.spawn_local(async move { (rib.let_go(&name, FLUSH).await, name) });
        }
        let mut waiting = Vec::new();
        while let Some(asked) = letting_go.join_next().await {
            // In this order: nothing comes from the tables for a session that was let go.
            let Ok((Some(left), name)) = asked else {
                continue;
            };
            let Some(inbox) = self.peers.get(&name) else {
                continue;
            };
            let (reply, answer) = oneshot::channel();
            // A task that has ended has no session.
            let _ = inbox.send(PeerCommand::HandOver(Box::new(left), reply));
            waiting.push(answer);
        }
        let mut sessions = self.adopted.take_all();
        for answer in waiting {
            sessions.extend(answer.await.ok().flatten());
        }
        for HandedSession { record, .. } in &mut sessions {
            if let Some(range) = self.members.range(&record.peer) {
                record.range = Some(range.clone());
            }
        }
        sessions
    }

    /// Says goodbye to every neighbour and ends. Its addresses are free when this returns; on the
    /// connections returned goodbye is still being said.
    pub(crate) async fn end(mut self, reason: &StopReason) -> Vec<Partings> {
        self.listeners.close().await;
        let names: Vec<PeerName> = self.peers.keys().cloned().collect();
        let mut partings = self.end_peers(&names, reason).await;
        self.rib.end().await;
        partings.push(self.refusals);
        partings
    }

    fn start_peer(&mut self, name: PeerName, config: PeerConfig) {
        let adopted = self.adopted.take(&name, &config);
        let (inbox, commands) = mpsc::unbounded_channel();
        // Spreads the timers of neighbours and nodes; nothing secret.
        let seed = RandomState::new().hash_one(&name.0);
        let departures = self.members.range(&name).map(|_| self.departures.clone());
        let session = Session::new(
            self.config.name().clone(),
            name.clone(),
            config,
            self.local.clone(),
            seed,
            self.rib.clone(),
            self.lines.clone(),
            inbox.clone(),
            self.recorder.clone(),
            Bfd::new(self.bfd.clone()),
            departures,
        );
        tokio::task::spawn_local(session.run(commands));
        // The task is there until it is told to end.
        if let Some(session) = adopted {
            let _ = inbox.send(PeerCommand::Adopt(Box::new(session)));
        }
        let _ = inbox.send(PeerCommand::Start);
        self.peers.insert(name, inbox);
    }

    async fn end_peers(&mut self, names: &[PeerName], reason: &StopReason) -> Vec<Partings> {
        let mut waiting = Vec::new();
        for name in names {
            let Some(inbox) = self.peers.remove(name) else {
                continue;
            };
            let (done, ended) = oneshot::channel();
            // A task that has ended has said what it had to say.
            let _ = inbox.send(PeerCommand::End(reason.clone(), done));
            waiting.push(ended);
        }
        let mut partings = Vec::new();
        let all = async {
            for ended in waiting {
                partings.extend(ended.await.ok());
            }
        };
        if tokio::time::timeout(GOODBYE, all).await.is_err() {
            tracing::warn!(instance = %self.config.name(), "the tables are too busy to end sessions");
        }
        partings
    }
}
