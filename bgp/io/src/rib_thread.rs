// SPDX-License-Identifier: Apache-2.0
//! The thread of an instance's RIB. It owns the tables; everybody else sends it messages.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use bgp_core::config::{InstanceConfig, InstanceName, PeerName};
use bgp_core::record::RecordedEvent;
use bgp_core::rib::{
    BestChange, PrefixFilter, Rib, RibInput, RibOutput, RouteQuery, RouteTable, SessionInfo,
};
use bgp_core::routes::RouteItem;
use ipnet::IpNet;
use router_types::Family;
use tokio::sync::{mpsc, oneshot};

use crate::recorder::Recorder;
use crate::session::PeerCommand;

/// Messages that may wait. A message is one read of a connection at most, so this bounds what is
/// decoded and not yet in the tables to some tens of thousands of prefixes.
const QUEUE: usize = 64;

/// Messages taken in before outputs are looked at.
const TURN: usize = 32;

/// Bytes under way to a neighbour before the RIB waits for the kernel to take some: several round
/// trips of a fast link, and little enough to be forgotten when the session ends.
const IN_FLIGHT: usize = 512 * 1024;

/// Best path changes in one batch.
const BEST_BATCH: usize = 4096;

/// How long whoever takes the events may take to take the last one.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the tables of the instances say, in order for each instance.
#[derive(Debug)]
pub enum RouteEvent {
    /// Best paths changed.
    Best {
        /// The instance.
        instance: InstanceName,
        /// The changes: each prefix once, in its latest state.
        changes: Vec<BestChange>,
    },
    /// A neighbour has sent all its routes of a family (RFC 4724 §2).
    EndOfRib {
        /// The instance.
        instance: InstanceName,
        /// The neighbour.
        peer: PeerName,
        /// The family.
        family: Family,
    },
    /// Routes lead to other next hops than before: [`Rib::next_hops`] has them.
    NextHops {
        /// The instance.
        instance: InstanceName,
    },
    /// An instance ended: nothing of it counts any more.
    InstanceGone(InstanceName),
}

/// A look at the tables, at a time.
pub(crate) type Question = Box<dyn FnOnce(&Rib, Instant) + Send>;

/// What the RIB's thread is told.
pub(crate) enum RibMessage {
    /// An input of the core.
    Input(RibInput),
    /// A session came up.
    Up {
        peer: PeerName,
        session: Box<SessionInfo>,
        epoch: u64,
        inbox: mpsc::UnboundedSender<PeerCommand>,
    },
    /// Send nothing more to a neighbour once everything is with the kernel, and say what it was told.
    LetGo(PeerName, oneshot::Sender<Announced>),
    /// A question about the tables.
    Ask(Question),
    /// The instance has ended.
    End(oneshot::Sender<()>),
}

impl fmt::Debug for RibMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RibMessage::Input(input) => f.debug_tuple("Input").field(input).finish(),
            RibMessage::Up { peer, .. } => f.debug_tuple("Up").field(peer).finish(),
            RibMessage::LetGo(peer, _) => f.debug_tuple("LetGo").field(peer).finish(),
            RibMessage::Ask(_) => f.write_str("Ask"),
            RibMessage::End(_) => f.write_str("End"),
        }
    }
}

/// The prefixes a neighbour was told, by family. Of unicast alone: sessions with other families are
/// not handed over.
pub(crate) type Announced = Vec<(Family, Vec<IpNet>)>;

/// What a neighbour was told. Looks at every destination.
pub(crate) fn announced(rib: &Rib, peer: &PeerName, now: Instant) -> Announced {
    let of_family = |family| {
        let mut prefixes = Vec::new();
        let mut query = RouteQuery {
            table: RouteTable::Advertised(peer.clone()),
            family,
            filter: PrefixFilter::All,
            after: None,
            limit: usize::MAX,
        };
        loop {
            let page = rib.routes(&query, now);
            prefixes.extend(page.routes.iter().filter_map(|route| route.prefix.prefix()));
            match page.next {
                Some(next) => query.after = Some(next),
                None => return (family, prefixes),
            }
        }
    };
    [Family::IPV4_UNICAST, Family::IPV6_UNICAST]
        .map(of_family)
        .into()
}

struct Written {
    peer: PeerName,
    epoch: u64,
    bytes: usize,
}

/// The way to the RIB's thread, which ends when all of them are gone.
#[derive(Clone)]
pub(crate) struct RibSender {
    messages: mpsc::Sender<RibMessage>,
    written: mpsc::UnboundedSender<Written>,
}

impl RibSender {
    /// Waits for room. `None` when the thread has ended.
    pub(crate) async fn reserve(&self) -> Option<mpsc::Permit<'_, RibMessage>> {
        self.messages.reserve().await.ok()
    }

    /// Sends an input, waiting for room.
    pub(crate) async fn input(&self, input: RibInput) {
        if let Some(permit) = self.reserve().await {
            permit.send(RibMessage::Input(input));
        }
    }

    /// Says that the kernel took bytes of a session. Never waits: what there can be is bounded by
    /// what the RIB sent.
    pub(crate) fn written(&self, peer: &PeerName, epoch: u64, bytes: usize) {
        let message = Written {
            peer: peer.clone(),
            epoch,
            bytes,
        };
        // A thread that has ended sends nothing any more.
        let _ = self.written.send(message);
    }

    /// Has nothing more sent to a neighbour, once what there is has gone, and tells what it was told.
    /// `None` when that takes too long.
    pub(crate) async fn let_go(&self, peer: &PeerName, limit: Duration) -> Option<Announced> {
        let (reply, answer) = oneshot::channel();
        let permit = self.reserve().await?;
        permit.send(RibMessage::LetGo(peer.clone(), reply));
        tokio::time::timeout(limit, answer).await.ok()?.ok()
    }

    /// Ends the thread, after everything sent before, and waits for it.
    pub(crate) async fn end(&self) {
        let (done, ended) = oneshot::channel();
        if let Some(permit) = self.reserve().await {
            permit.send(RibMessage::End(done));
            // A thread that has ended needs no ending.
            let _ = ended.await;
        }
    }

    /// Asks a question. `None` when the thread has ended.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Rib, Instant) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let ask = move |rib: &Rib, now: Instant| {
            // Nobody waits any more: the answer is not needed.
            let _ = reply.send(question(rib, now));
        };
        self.reserve().await?.send(RibMessage::Ask(Box::new(ask)));
        answer.await.ok()
    }
}

/// Starts the thread.
pub(crate) fn start(
    config: InstanceConfig,
    events: mpsc::Sender<RouteEvent>,
    recorder: Recorder,
) -> io::Result<RibSender> {
    let (messages, inbox) = mpsc::channel(QUEUE);
    let (written, acknowledged) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    std::thread::Builder::new()
        .name(format!("rib-{}", config.name()))
        .spawn(move || {
            let now = Instant::now();
            recorder.note(config.name(), now, || RecordedEvent::RibBegins {
                config: Box::new(config.clone()),
            });
            let worker = Worker {
                instance: config.name().clone(),
                rib: Rib::new(config, now),
                events,
                recorder,
                sessions: BTreeMap::new(),
                delivered: VecDeque::new(),
                told_hops: 0,
                letting_go: Vec::new(),
            };
            runtime.block_on(worker.run(inbox, acknowledged));
        })?;
    Ok(RibSender { messages, written })
}

struct Worker {
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
    letting_go: Vec<(PeerName, oneshot::Sender<Announced>)>,
}

struct Session {
    epoch: u64,
    inbox: mpsc::UnboundedSender<PeerCommand>,
    in_flight: usize,
}

impl Worker {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<RibMessage>,
        mut acknowledged: mpsc::UnboundedReceiver<Written>,
    ) {
        let events = self.events.clone();
        loop {
            self.outputs();
            let timeout = self.rib.poll_timeout().map(|(at, _)| at);
            if timeout.is_some_and(|at| at <= Instant::now()) {
                self.input(RibInput::Timeout);
                continue;
            }
            let has_events = self.rib.pressure() > 0
                || !self.delivered.is_empty()
                || self.told_hops != self.rib.next_hops_version();
            tokio::select! {
                biased;
                Some(written) = acknowledged.recv() => {
                    self.written(&written);
                    while let Ok(written) = acknowledged.try_recv() {
                        self.written(&written);
                    }
                }
                // Neighbours go on being read while whoever takes the best paths is behind: the
                // RIB keeps one change for each prefix, however often it changes.
                permit = events.reserve(), if has_events => match permit {
                    Ok(permit) => permit.send(self.next_event()),
                    Err(_) => return,
                },
                message = inbox.recv() => {
                    let mut next = message;
                    for turn in 1.. {
                        match next {
                            Some(RibMessage::End(done)) => {
                                let gone = RouteEvent::InstanceGone(self.instance);
                                // Whoever takes events may itself be waiting for this end.
                                let told = self.events.send_timeout(gone, FAREWELL).await;
                                if told.is_err() {
                                    tracing::debug!("nobody was told that the instance ended");
                                }
                                // Nobody waits any more: it has ended all the same.
                                let _ = done.send(());
                                return;
                            }
                            Some(message) => self.message(message),
                            // All senders are gone, or the queue is empty.
                            None if turn == 1 => return,
                            None => break,
                        }
                        if turn == TURN {
                            break;
                        }
                        next = inbox.try_recv().ok();
                    }
                }
                () = until(timeout) => self.input(RibInput::Timeout),
            }
        }
    }

    /// What is told next: best paths first, so that an end of routes is the end of them.
    fn next_event(&mut self) -> RouteEvent {
        let hops = self.rib.next_hops_version();
        if self.told_hops != hops {
            self.told_hops = hops;
            let instance = self.instance.clone();
            return RouteEvent::NextHops { instance };
        }
        let rib = &mut self.rib;
        let changes: Vec<BestChange> = std::iter::from_fn(|| rib.poll_best())
            .take(BEST_BATCH)
            .collect();
        let instance = self.instance.clone();
        let end = if changes.is_empty() {
            self.delivered.pop_front()
        } else {
            None
        };
        match end {
            Some((peer, family)) => RouteEvent::EndOfRib {
                instance,
                peer,
                family,
            },
            None => RouteEvent::Best { instance, changes },
        }
    }

    fn input(&mut self, input: RibInput) {
        let now = Instant::now();
        self.recorder
            .note(&self.instance, now, || RecordedEvent::Rib {
                input: input.clone(),
            });
        self.rib.handle(input, now);
    }

    fn message(&mut self, message: RibMessage) {
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
                inbox,
            } => {
                self.sessions.insert(
                    peer.clone(),
                    Session {
                        epoch,
                        inbox,
                        in_flight: 0,
                    },
                );
                self.input(RibInput::PeerUp { peer, session });
            }
            RibMessage::LetGo(peer, reply) => self.letting_go.push((peer, reply)),
            RibMessage::Ask(question) => question(&self.rib, Instant::now()),
            RibMessage::End(_) => unreachable!("taken care of where messages are received"),
        }
    }

    fn written(&mut self, written: &Written) {
        if let Some(session) = self.sessions.get_mut(&written.peer)
            && session.epoch == written.epoch
        {
            session.in_flight = session.in_flight.saturating_sub(written.bytes);
        }
    }

    fn outputs(&mut self) {
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
                RibOutput::LimitExceeded {
                    peer,
                    family,
                    limit,
                } => {
                    tracing::warn!(%peer, %family, limit, "more routes than maxRoutes");
                    if let Some(session) = self.sessions.get(&peer) {
                        // A task that has ended has no session to end.
                        let _ = session.inbox.send(PeerCommand::LimitExceeded {
                            epoch: session.epoch,
                            family,
                            limit,
                        });
                    }
                }
            }
        }
        for (peer, session) in &mut self.sessions {
            while session.in_flight < IN_FLIGHT {
                let Some(transmit) = self.rib.poll_transmit(peer) else {
                    break;
                };
                session.in_flight += transmit.bytes.len();
                // A task that has ended has no session to send to.
                let _ = session.inbox.send(PeerCommand::Transmit {
                    epoch: session.epoch,
                    bytes: transmit.bytes,
                    updates: transmit.updates,
                });
            }
        }
        self.let_go();
    }

    /// Lets go of neighbours that have everything.
    fn let_go(&mut self) {
        let now = Instant::now();
        for (peer, reply) in std::mem::take(&mut self.letting_go) {
            let idle = self
                .sessions
                .get(&peer)
                .is_none_or(|session| session.in_flight == 0);
            if idle {
                self.sessions.remove(&peer);
                // Who asked waits no longer: the session ends with this process.
                let _ = reply.send(announced(&self.rib, &peer, now));
            } else if !reply.is_closed() {
                self.letting_go.push((peer, reply));
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
