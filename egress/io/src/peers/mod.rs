// SPDX-License-Identifier: Apache-2.0
//! This node among the gateways: whom it hears, who holds which rule, and copies of connections.
//!
//! | module | what it is |
//! |---|---|
//! | [`connections`] | whom to call, who may call |
//! | [`strangers`] | those who call and do not prove themselves |
//! | [`link`] | sockets and the tasks that read and write them |
//! | [`sight`] | who lives, by BFD and by what others say |
//! | [`probes`] | which gateways reach what their policies ask for |
//! | [`roles`] | whom to speak to, from the decision |
//! | [`subscription`] | which copies this node asks for, and those it has already |
//! | [`tenure`] | rules this node takes, hands over and lets go |
//! | [`copies`] | mappings of the data plane as gateways tell each other of them |
//! | [`secret`] | the keys they prove themselves with |
//! | [`store`] | the etcd claims are written in, where there is one |
//!
//! What is said and how is in `egress-sync`; this puts its pieces together ([`Peers::pump`]), in the
//! order described there. Without a file of keys nobody is spoken to: then who holds what is
//! elected by each node for itself, and connections do not survive their gateway.

mod connections;
mod copies;
mod link;
mod probes;
mod pump;
mod roles;
mod secret;
mod sight;
mod store;
mod strangers;
mod subscription;
mod tenure;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bgp_bfdd::client::{Client, View};
use bpf_loader::{Cursor, Gateway, Mapping};
use egress_core::{Claim, Claims, Desired, RuleNumber, World};
use egress_sync::claims::ClaimTable;
use egress_sync::lease::{Lease, Segment};
use egress_sync::ledger::Ledger;
use egress_sync::name::{NodeName, Rule};
use egress_sync::replication::{Limits, Receiver, Sender};
use egress_sync::wire::{Message, Tunnel};
use egress_sync::witness::Witness;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use connections::DIAL_FIRST;
use link::{Link, LinkEvent};
use probes::{OwnAsked, Probes};
use roles::Roles;
use sight::Sights;
use store::{Said, Stored};
use strangers::Refusals;
use subscription::Walk;
use tenure::{GRACE, HAND_OVER_AGAIN};

pub(crate) use connections::nonce;
pub use sight::{Heard, Watch};
pub use store::StoreConfig;

/// Events of sockets and sessions that may wait.
const QUEUE: usize = 64;

/// What this node is among the gateways.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    /// TCP port gateways listen on.
    pub port: u16,
    /// The file with the keys. Without one nobody is spoken to.
    pub secret_file: Option<PathBuf>,
    /// Where BFD sessions are had from.
    pub bfd: Option<Client>,
    /// What they agree by where they do not hear each other.
    pub store: Option<StoreConfig>,
}

/// What happened outside of this thread.
#[derive(Debug)]
pub(crate) enum Event {
    Link(LinkEvent),
    Bfd {
        node: NodeName,
        view: View,
    },
    /// Who answers for addresses on the segments.
    Probed {
        node: NodeName,
        lease: Lease,
        segment: Segment,
    },
    /// What the store says.
    Store(Said),
    /// A policy's probe was answered or not.
    Asked(OwnAsked),
}

impl From<LinkEvent> for Event {
    fn from(event: LinkEvent) -> Event {
        Event::Link(event)
    }
}

/// Another node.
#[derive(Debug)]
struct Peer {
    sender: Sender,
    receiver: Receiver,
    /// What the receiver was told.
    subscribed: BTreeSet<Rule>,
    /// How far the snapshot of this number is read.
    cursor: (u64, Cursor),
    /// Whether it wants to hold rules.
    is_available: bool,
    /// Whom it takes for dead. It counts until it says otherwise, linked or not, or they speak.
    missed: BTreeSet<NodeName>,
    /// What its tunnel speaks, if it has said so.
    tunnel: Option<Tunnel>,
    is_dialling: bool,
    dial_at: Instant,
    pause: Duration,
    /// Why it is not linked.
    problem: Option<String>,
}

/// What a peer is to this node, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Its name.
    pub name: String,
    /// Whether it has proved itself on a connection that lasts.
    pub is_linked: bool,
    /// Whether it should have: it is a gateway of this node's pods, or both are gateways of a policy.
    pub is_wanted: bool,
    /// Why it has not, as far as is known.
    pub problem: Option<String>,
    /// Where they are linked and its tunnel speaks something else than this node's: both.
    pub mismatch: Option<(Tunnel, Tunnel)>,
    /// What BFD says of it; nothing where there is no session.
    pub bfd: Option<Heard>,
    /// Whether it is dead as far as is known.
    pub is_dead: bool,
    /// Rules it holds and this node has the connections of, and how many of them are complete.
    pub standby_for: (usize, usize),
    /// Rules this node holds and it has the connections of, and how many of them are complete.
    pub stood_by: (usize, usize),
}

/// The other gateways.
#[derive(Debug)]
pub(crate) struct Peers {
    name: NodeName,
    config: PeersConfig,
    /// What this node's tunnel speaks.
    tunnel: Tunnel,
    /// The addresses others know this node by.
    own: Vec<IpAddr>,
    /// Where each node is.
    addresses: BTreeMap<NodeName, Vec<IpAddr>>,
    roles: Roles,
    table: ClaimTable,
    witness: Witness,
    sights: Sights,
    probes: Probes,
    peers: BTreeMap<NodeName, Peer>,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    linked: BTreeMap<NodeName, u64>,
    /// Those that ever were.
    known: BTreeSet<NodeName>,
    listeners: BTreeMap<IpAddr, AbortHandle>,
    listen_at: Option<Instant>,
    /// Connections of others that came to nothing.
    refusals: Refusals,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
    /// When this node began, or was cut off for the last time.
    unsure_since: Instant,
    /// Whether that is long ago.
    is_sure: bool,
    /// Whether this node wants to hold rules.
    is_available: bool,
    /// Whom this node takes for dead, as the others know.
    missed: BTreeSet<NodeName>,
    /// What the senders know to be held here.
    held: BTreeSet<Rule>,
    /// Since when held rules should be somebody else's, and when they were last offered.
    leaving: BTreeMap<Rule, (Instant, Instant)>,
    /// Copies that could not be put in: of rules or nodes not known yet.
    waiting: BTreeMap<(Rule, egress_sync::mapping::Key), Mapping>,
    /// Copies of before that are looked for.
    walk: Walk,
    /// How often each rule changed hands.
    moves: BTreeMap<Rule, u64>,
    last_holder: BTreeMap<Rule, NodeName>,
    /// Addresses the standbys' rules would have, to ask the segment about.
    probed: BTreeMap<NodeName, Vec<IpAddr>>,
    /// Addresses nobody but this node should answer for.
    probed_own: Vec<IpAddr>,
    /// Claims as they are written in the store; unused without one.
    ledger: Ledger,
    stored: Option<Stored>,
    /// Whether this node has just been found to be cut off.
    has_lost_all: bool,
    /// Whether the decision may be another now.
    is_stale: bool,
}

/// Most copies that wait for their rule or node.
const MAX_WAITING: usize = 65_536;

impl Peers {
    /// Within a runtime, in which a store is spoken to: not that of the thread.
    pub(crate) fn new(name: NodeName, config: PeersConfig, tunnel: Tunnel, now: Instant) -> Peers {
        let (events, inbox) = mpsc::channel(QUEUE);
        let stored = config.store.as_ref();
        let stored = stored.filter(|_| config.secret_file.is_some());
        Peers {
            stored: stored.map(|config| store::begin(config, &name, events.clone())),
            ledger: Ledger::new(name.clone()),
            probed_own: Vec::new(),
            has_lost_all: false,
            table: ClaimTable::new(name.clone()),
            probes: Probes::new(name.clone()),
            name,
            sights: Sights::new(config.bfd.clone()),
            config,
            tunnel,
            own: Vec::new(),
            addresses: BTreeMap::new(),
            roles: Roles::default(),
            witness: Witness::new(),
            peers: BTreeMap::new(),
            links: BTreeMap::new(),
            next_link: 0,
            linked: BTreeMap::new(),
            known: BTreeSet::new(),
            listeners: BTreeMap::new(),
            listen_at: None,
            refusals: Refusals::default(),
            events,
            inbox,
            unsure_since: now,
            is_sure: false,
            is_available: true,
            missed: BTreeSet::new(),
            held: BTreeSet::new(),
            leaving: BTreeMap::new(),
            waiting: BTreeMap::new(),
            walk: Walk::default(),
            moves: BTreeMap::new(),
            last_holder: BTreeMap::new(),
            probed: BTreeMap::new(),
            is_stale: false,
        }
    }

    /// Whether nodes speak to each other about who holds what.
    pub(crate) fn is_spoken(&self) -> bool {
        self.config.secret_file.is_some()
    }

    /// The next event. May be dropped and called again.
    pub(crate) async fn event(&mut self) -> Event {
        match self.inbox.recv().await {
            Some(event) => event,
            // We hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    /// Who holds what, as far as is known.
    pub(crate) fn claims(&self) -> Claims {
        if !self.is_spoken() {
            return Claims::new();
        }
        let held = self.table.holders().filter(|(_, best)| !best.is_released);
        let claims = held.filter_map(|(rule, best)| {
            let claim = Claim {
                holder: best.node.as_str().to_owned(),
                term: best.term,
            };
            Some((RuleNumber::new(rule.get())?, claim))
        });
        claims.collect()
    }

    /// Adds to a world what is known of its nodes here.
    pub(crate) fn adjust(&self, world: &mut World) {
        for (name, node) in &mut world.nodes {
            let Ok(name) = NodeName::new(name) else {
                continue;
            };
            // Who speaks is not dead, whatever its object says; but it should leave.
            let is_own = name == self.name;
            if node.is_dead && self.is_spoken() && (is_own || self.linked.contains_key(&name)) {
                (node.is_dead, node.is_healthy) = (false, false);
            }
            if is_own {
                node.is_dead |= self.sights.is_isolated();
                node.is_healthy &= self.is_available;
            } else {
                let peer = self.peers.get(&name);
                node.is_dead |= self.sights.is_dead(&name);
                node.is_healthy &= peer.is_none_or(|peer| peer.is_available);
                // It holds what it holds until somebody has taken it over.
                node.is_healthy &= !self.is_missed(&name);
            }
        }
        self.probes.adjust(world);
    }

    /// Whether another gateway takes this one for dead. Who watches it itself knows better.
    fn is_missed(&self, node: &NodeName) -> bool {
        let is_watched = self.sights.heard(node).is_some();
        !is_watched && self.peers.values().any(|peer| peer.missed.contains(node))
    }

    /// Whether this node hears nobody.
    pub(crate) fn is_isolated(&self) -> bool {
        self.sights.is_isolated()
    }

    /// Whether this node may come to hold rules.
    pub(crate) fn is_candidate(&self) -> bool {
        self.roles.is_candidate
    }

    /// Whether this node may have the addresses of a rule it is elected for.
    pub(crate) fn may_hold(&self, number: RuleNumber) -> bool {
        !self.is_spoken() || Rule::new(number.get()).is_some_and(|rule| self.table.holds(rule))
    }

    /// Whether this node has all connections of a rule that another one holds.
    pub(crate) fn is_complete(&self, number: RuleNumber) -> bool {
        let Some(rule) = Rule::new(number.get()) else {
            return false;
        };
        let mut peers = self.peers.values();
        peers.any(|peer| peer.subscribed.contains(&rule) && peer.receiver.is_synchronised(rule))
    }

    /// Speaks to those the decision needs, and about what it needs. After the gateway's rules and
    /// nodes are set.
    pub(crate) fn set_roles(
        &mut self,
        world: &World,
        desired: &Desired,
        is_available: bool,
        watches: &BTreeMap<String, Watch>,
        gateway: Option<&mut Gateway>,
        now: Instant,
    ) {
        let watches: BTreeMap<NodeName, Watch> = watches
            .iter()
            .filter_map(|(node, watch)| Some((NodeName::new(node).ok()?, watch.clone())))
            .collect();
        self.sights.set(&watches, now, &self.events);
        let nodes = world.nodes.iter();
        self.addresses = nodes
            .filter_map(|(name, node)| Some((NodeName::new(name).ok()?, node.addresses.clone())))
            .collect();
        self.own = self.addresses.get(&self.name).cloned().unwrap_or_default();
        self.probed.clear();
        let held = desired.gateway.values().filter(|rule| rule.is_held);
        self.probed_own = held.filter_map(|rule| rule.addresses().next()).collect();
        for (number, rule) in &desired.standby {
            let holder = desired
                .seats
                .get(number)
                .and_then(|seat| seat.holder.clone());
            let holder = holder.and_then(|holder| NodeName::new(&holder).ok());
            let addresses = match holder.filter(|holder| *holder != self.name) {
                Some(holder) => self.probed.entry(holder).or_default(),
                None => &mut self.probed_own,
            };
            addresses.extend(rule.addresses().next());
        }
        if !self.is_spoken() {
            return;
        }
        if std::mem::replace(&mut self.is_available, is_available) != is_available {
            let linked: Vec<NodeName> = self.linked.keys().cloned().collect();
            for peer in linked {
                self.send(&peer, &Message::Standing { is_available }, now);
            }
            self.is_stale = true;
        }
        self.roles = Roles::of(world, desired, self.probes.policies());
        if let Some(stored) = &mut self.stored {
            stored.stand(self.roles.is_candidate);
        }
        for node in self.roles.dialled.clone() {
            self.peer(&node, now);
        }
        // Who is cut off keeps the copies it has.
        if !self.sights.is_isolated() {
            self.subscribe(gateway.is_some(), now);
        }
        self.retry_waiting(gateway);
        self.listen(now);
    }

    /// The peer of this name, made if there is none.
    fn peer(&mut self, node: &NodeName, now: Instant) -> &mut Peer {
        let held = &self.held;
        self.peers.entry(node.clone()).or_insert_with(|| {
            let mut sender = Sender::new(node.clone(), Limits::default());
            sender.handle_held(held);
            Peer {
                sender,
                receiver: Receiver::new(),
                subscribed: BTreeSet::new(),
                cursor: (0, Cursor::default()),
                is_available: true,
                missed: BTreeSet::new(),
                tunnel: None,
                is_dialling: false,
                dial_at: now,
                pause: DIAL_FIRST,
                problem: None,
            }
        })
    }

    /// Takes what happened outside.
    pub(crate) fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Link(event) => self.handle_link(event, now),
            Event::Bfd { node, view } => {
                if self.sights.handle_view(&node, &view, now) {
                    self.is_stale = true;
                    self.dial_soon(&node, now);
                }
            }
            Event::Probed {
                node,
                lease,
                segment,
            } => self.handle_probed(&node, lease, segment, now),
            Event::Store(said) => self.handle_said(said, now),
            Event::Asked(asked) => self.handle_asked(asked, now),
        }
    }

    /// When [`Peers::pump`] is to be called at the latest.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let channels = self
            .links
            .values()
            .filter_map(|link| link.channel.poll_timeout());
        let dials = self.roles.dialled.iter().filter_map(|node| {
            let peer = self.peers.get(node)?;
            let is_idle = !peer.is_dialling && !self.is_open(node);
            is_idle.then_some(peer.dial_at)
        });
        let leaving = self
            .leaving
            .values()
            .map(|(_, offered)| *offered + HAND_OVER_AGAIN);
        let grace = self.unsure_since + GRACE;
        channels
            .map(|(at, _)| at)
            .chain(dials)
            .chain(leaving)
            .chain(self.table.poll_timeout().map(|(at, _)| at))
            .chain(self.witness.poll_timeout().map(|(at, _)| at))
            .chain(self.ledger.poll_timeout().map(|(at, _)| at))
            .chain(self.sights.next_timeout())
            .chain(self.listen_at)
            .chain(self.refusals.next_timeout())
            .chain((Instant::now() < grace).then_some(grace))
            .min()
    }

    /// What is known of each peer.
    pub(crate) fn views(&self) -> Vec<PeerView> {
        let mut names: BTreeSet<&NodeName> = self.peers.keys().collect();
        names.extend(self.sights.names());
        let view = |name: &NodeName| {
            let peer = self.peers.get(name);
            let standby_for = peer.map_or((0, 0), |peer| {
                let complete = |rule: &&Rule| peer.receiver.is_synchronised(**rule);
                let rules = &peer.subscribed;
                (rules.len(), rules.iter().filter(complete).count())
            });
            let stood_by = peer.map_or((0, 0), |peer| {
                let held = |rule: &Rule| self.held.contains(rule);
                let complete = |rule: &Rule| peer.sender.synchronised(*rule).is_some();
                let rules = || peer.sender.subscribed().filter(held);
                (rules().count(), rules().filter(complete).count())
            });
            PeerView {
                name: name.as_str().to_owned(),
                is_linked: self.linked.contains_key(name),
                is_wanted: self.roles.dialled.contains(name) || self.roles.rivals.contains(name),
                problem: peer.and_then(|peer| peer.problem.clone()),
                mismatch: peer
                    .and_then(|peer| peer.tunnel)
                    .filter(|theirs| *theirs != self.tunnel && self.linked.contains_key(name))
                    .map(|theirs| (theirs, self.tunnel)),
                bfd: self.sights.heard(name),
                is_dead: self.sights.is_dead(name) || self.is_missed(name),
                standby_for,
                stood_by,
            }
        };
        names.into_iter().map(view).collect()
    }

    /// How often each rule changed hands, as far as this node saw.
    pub(crate) fn moves(&self) -> &BTreeMap<Rule, u64> {
        &self.moves
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for listener in self.listeners.values() {
            listener.abort();
        }
    }
}
