// SPDX-License-Identifier: Apache-2.0
//! The thread of an instance's RIB. It owns the tables; everybody else sends it messages.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Instant;

use bgp_core::config::{InstanceConfig, InstanceName, PeerName};
use bgp_core::peer::StopReason;
use bgp_core::rib::{BestChange, Rib, RibInput, RibOutput, SessionInfo};
use tokio::sync::{mpsc, oneshot};

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

/// Changed best paths of an instance.
#[derive(Debug)]
pub struct BestChanges {
    /// The instance.
    pub instance: InstanceName,
    /// The changes: each prefix once, in its latest state.
    pub changes: Vec<BestChange>,
}

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
    /// A question about the tables.
    Ask(Box<dyn FnOnce(&Rib, Instant) + Send>),
}

impl fmt::Debug for RibMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RibMessage::Input(input) => f.debug_tuple("Input").field(input).finish(),
            RibMessage::Up { peer, .. } => f.debug_tuple("Up").field(peer).finish(),
            RibMessage::Ask(_) => f.write_str("Ask"),
        }
    }
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
        let message = Written { peer: peer.clone(), epoch, bytes };
        // A thread that has ended sends nothing any more.
        let _ = self.written.send(message);
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
    best: mpsc::Sender<BestChanges>,
) -> io::Result<RibSender> {
    let (messages, inbox) = mpsc::channel(QUEUE);
    let (written, acknowledged) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new()
        .name(format!("rib-{}", config.name()))
        .spawn(move || {
            let worker = Worker {
                instance: config.name().clone(),
                rib: Rib::new(config, Instant::now()),
                best,
                sessions: BTreeMap::new(),
            };
            runtime.block_on(worker.run(inbox, acknowledged));
        })?;
    Ok(RibSender { messages, written })
}

struct Worker {
    instance: InstanceName,
    rib: Rib,
    best: mpsc::Sender<BestChanges>,
    sessions: BTreeMap<PeerName, Session>,
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
        loop {
            self.outputs();
            let timeout = self.rib.poll_timeout().map(|(at, _)| at);
            let has_best = self.rib.pressure() > 0;
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
                permit = self.best.reserve(), if has_best => match permit {
                    Ok(permit) => {
                        let rib = &mut self.rib;
                        let changes =
                            std::iter::from_fn(|| rib.poll_best()).take(BEST_BATCH).collect();
                        permit.send(BestChanges { instance: self.instance.clone(), changes });
                    }
                    Err(_) => return,
                },
                message = inbox.recv() => {
                    let Some(message) = message else { return };
                    self.message(message);
                    for _ in 1..TURN {
                        match inbox.try_recv() {
                            Ok(message) => self.message(message),
                            Err(_) => break,
                        }
                    }
                }
                () = until(timeout) => self.rib.handle(RibInput::Timeout, Instant::now()),
            }
        }
    }

    fn message(&mut self, message: RibMessage) {
        let now = Instant::now();
        match message {
            RibMessage::Input(input) => {
                if let RibInput::PeerDown { peer, .. } = &input {
                    self.sessions.remove(peer);
                }
                self.rib.handle(input, now);
            }
            RibMessage::Up { peer, session, epoch, inbox } => {
                self.sessions.insert(peer.clone(), Session { epoch, inbox, in_flight: 0 });
                self.rib.handle(RibInput::PeerUp { peer, session }, now);
            }
            RibMessage::Ask(question) => question(&self.rib, now),
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
                RibOutput::LimitExceeded { peer, family, limit } => {
                    tracing::warn!(%peer, %family, limit, "more routes than maxRoutes");
                    if let Some(session) = self.sessions.get(&peer) {
                        // A task that has ended has no session to end.
                        let _ = session
                            .inbox
                            .send(PeerCommand::Stop(StopReason::PrefixLimit { limit }));
                    }
                }
            }
        }
        for (peer, session) in &mut self.sessions {
            while session.in_flight < IN_FLIGHT {
                let Some(transmit) = self.rib.poll_transmit(peer) else { break };
                session.in_flight += transmit.bytes.len();
                // A task that has ended has no session to send to.
                let _ = session.inbox.send(PeerCommand::Transmit {
                    epoch: session.epoch,
                    bytes: transmit.bytes,
                    updates: transmit.updates,
                });
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
