// SPDX-License-Identifier: Apache-2.0
//! The tables of an instance with the ways to its neighbours.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bgp_core::config::{InstanceConfig, InstanceName, PeerName};
use bgp_core::record::RecordedEvent;
use bgp_core::rib::{BestChange, Inheritance, Rib, RibInput, RibOutput, Transmit};
use bgp_core::routes::RouteItem;
use router_types::Family;
use tokio::sync::{mpsc, oneshot};

use super::{Credit, RibMessage, RouteEvent};
use crate::recorder::Recorder;
use crate::session::PeerCommand;

/// Best path changes in one batch.
const BEST_BATCH: usize = 4096;

pub(super) struct Tables {
    instance: InstanceName,
    rib: Rib,
    events: mpsc::Sender<RouteEvent>,
    recorder: Recorder,
    sessions: BTreeMap<PeerName, Session>,
    /// Families whose end was reached; told after the best paths that came before.
    delivered: VecDeque<(PeerName, Family)>,
    /// The version of the next hops that was told.
    told_hops: u64,
    /// Neighbours to let go of, once everything they are to be told is with the kernel.
    letting_go: Vec<(PeerName, oneshot::Sender<Option<Inheritance>>)>,
    /// Whether everything was found done, and nothing came since.
    is_known_quiet: bool,
}

struct Session {
    epoch: u64,
    inbox: mpsc::UnboundedSender<PeerCommand>,
    credit: Arc<Credit>,
}

impl Tables {
    pub(super) fn new(
        config: InstanceConfig,
        events: mpsc::Sender<RouteEvent>,
        recorder: Recorder,
    ) -> Tables {
        let now = Instant::now();
        recorder.note(config.name(), now, || RecordedEvent::RibBegins {
            config: Box::new(config.clone()),
        });
        Tables {
            instance: config.name().clone(),
            rib: Rib::new(config, now),
            events,
            recorder,
            sessions: BTreeMap::new(),
            delivered: VecDeque::new(),
            told_hops: 0,
            letting_go: Vec::new(),
            is_known_quiet: false,
        }
    }

    pub(super) fn instance(&self) -> &InstanceName {
        &self.instance
    }

    /// When [`RibInput::Timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.rib.poll_timeout().map(|(at, _)| at)
    }

    /// Whether there is something for whoever takes the events.
    pub(super) fn has_events(&self) -> bool {
        self.rib.pressure() > 0
            || !self.delivered.is_empty()
            || self.told_hops != self.rib.next_hops_version()
    }

    /// Whether everything that came before was worked in, sent and told.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.is_known_quiet = self.is_known_quiet
            || self.rib.is_quiet() && !self.has_events() && self.letting_go.is_empty();
        self.is_known_quiet
    }

    /// Tells events, as many as are taken.
    pub(super) fn tell_what_fits(&mut self) {
        let events = self.events.clone();
        while self.has_events() {
            let Ok(permit) = events.try_reserve() else {
                return;
            };
            if let Some(event) = self.next_event() {
                permit.send(event);
            }
        }
    }

    /// What is told next: best paths first, so that an end of routes is the end of them.
    pub(super) fn next_event(&mut self) -> Option<RouteEvent> {
        let instance = self.instance.clone();
        let hops = self.rib.next_hops_version();
        if self.told_hops != hops {
            self.told_hops = hops;
            return Some(RouteEvent::NextHops { instance });
        }
        let rib = &mut self.rib;
        let changes: Vec<BestChange> = std::iter::from_fn(|| rib.poll_best())
            .take(BEST_BATCH)
            .collect();
        if !changes.is_empty() {
            return Some(RouteEvent::Best { instance, changes });
        }
        let (peer, family) = self.delivered.pop_front()?;
        Some(RouteEvent::EndOfRib {
            instance,
            peer,
            family,
        })
    }

    /// Hands the core an input.
    pub(super) fn input(&mut self, input: RibInput) {
        self.is_known_quiet = false;
        let now = Instant::now();
        self.recorder
            .note(&self.instance, now, || RecordedEvent::Rib {
                input: input.clone(),
            });
        self.rib.handle(input, now);
    }

    /// Works a message in.
    pub(super) fn message(&mut self, message: RibMessage) {
        self.is_known_quiet = false;
        match message {
            RibMessage::Input(input) => {
                if let RibInput::PeerDown { peer, .. } = &input {
                    self.sessions.remove(peer);
                }
                if let RibInput::Routes { peer, changes } = &input {
                    for item in changes.iter() {
                        if let RouteItem::EndOfRib { family } = item {
                            self.delivered.push_back((peer.clone(), family));
                        }
                    }
                }
                self.input(input);
            }
            RibMessage::Up {
                peer,
                session,
                epoch,
                credit,
                inbox,
                left,
            } => {
                self.sessions.insert(
                    peer.clone(),
                    Session {
                        epoch,
                        credit,
                        inbox,
                    },
                );
                let of_peer = peer.clone();
                self.input(RibInput::PeerUp { peer, session });
                if let Some(left) = left {
                    self.input(RibInput::Inherit {
                        peer: of_peer,
                        left,
                    });
                }
            }
            RibMessage::LetGo(peer, reply) => self.letting_go.push((peer, reply)),
            RibMessage::Ask(question) => question(&self.rib, Instant::now()),
            RibMessage::End(_) => unreachable!("taken care of where messages are taken"),
        }
    }

    /// Does what the tables ask for, and sends neighbours what they have room for: by the short way,
    /// which returns what it does not take, or by the inboxes of their tasks.
    pub(super) fn outputs(
        &mut self,
        mut short: impl FnMut(&PeerName, u64, Transmit) -> Result<(), Transmit>,
    ) {
        while let Some(output) = self.rib.poll_output() {
            match output {
                RibOutput::LimitNear {
                    peer,
                    family,
                    routes,
                    limit,
                } => {
                    tracing::warn!(%peer, %family, routes, limit, "maxRoutes is near or passed");
                }
                RibOutput::ExportLimit {
                    peer,
                    family,
                    limit,
                } => {
                    tracing::warn!(
                        %peer, %family, limit, "export.maxRoutes is reached; other routes wait"
                    );
                }
                RibOutput::LimitExceeded {
                    peer,
                    family,
                    limit,
                    restart_s,
                } => {
                    tracing::warn!(%peer, %family, limit, "more routes than maxRoutes");
                    if let Some(session) = self.sessions.get(&peer) {
                        // A task that has ended has no session to end.
                        let _ = session.inbox.send(PeerCommand::LimitExceeded {
                            epoch: session.epoch,
                            family,
                            limit,
                            restart_s,
                        });
                    }
                }
            }
        }
        for peer in self.rib.waiting() {
            let Some(session) = self.sessions.get(&peer) else {
                continue;
            };
            while session.credit.has_room() || session.credit.has_room_at_last() {
                let Some(transmit) = self.rib.poll_transmit(&peer) else {
                    break;
                };
                let Err(transmit) = short(&peer, session.epoch, transmit) else {
                    continue;
                };
                session.credit.take(transmit.bytes.len());
                // A task that has ended has no session to send to.
                let _ = session.inbox.send(PeerCommand::Transmit {
                    epoch: session.epoch,
                    transmit,
                });
            }
        }
        self.let_go();
    }

    /// Lets go of neighbours that have everything.
    fn let_go(&mut self) {
        for (peer, reply) in std::mem::take(&mut self.letting_go) {
            let is_written = self
                .sessions
                .get(&peer)
                .is_none_or(|session| session.credit.is_all_written());
            if is_written && self.rib.backlog(&peer) == (0, 0) {
                self.sessions.remove(&peer);
                // Who asked waits no longer: the session ends with this process.
                let _ = reply.send(self.rib.inheritance(&peer));
            } else if !reply.is_closed() {
                self.letting_go.push((peer, reply));
            }
        }
    }
}
