// SPDX-License-Identifier: Apache-2.0
//! The thread of an instance's RIB. It works through the messages of everybody else.
//!
//! One thing is done elsewhere: a few routes that come while the thread has nothing to do are
//! worked in by whoever has them ([`RibSender::at_once`]), on the thread of the sessions, where
//! what they lead to is written too. So a single change costs no wake-up of another thread, and a
//! full table delays no keepalive.

mod credit;
mod tables;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bgp_core::config::{InstanceConfig, InstanceName, PeerName};
use bgp_core::rib::{BestChange, Inheritance, Rib, RibInput, SessionInfo};
use bgp_core::routes::{RouteBatch, RouteItem};
use router_types::Family;
use tokio::sync::{Notify, mpsc, oneshot};

pub(crate) use self::credit::Credit;
use self::tables::Tables;
use crate::alarm::Alarm;
use crate::lines::Lines;
use crate::recorder::Recorder;
use crate::session::PeerCommand;

/// Messages that may wait. A message is one read of a connection at most, so this bounds what is
/// decoded and not yet in the tables to some tens of thousands of prefixes.
const QUEUE: usize = 16;

/// Messages taken in before outputs are looked at.
const TURN: usize = 32;

/// Routes that are worked in at once when there is nothing else to do: some dozens, which takes
/// less than to wake the thread. Twenty microseconds are lost on nobody's keepalive.
const AT_ONCE: usize = 4096;

/// Neighbours that are written to at once; others are when it is their tasks' turn, so that
/// somebody's keepalive comes in between.
const WRITES: usize = 16;

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
        credit: Arc<Credit>,
        inbox: mpsc::UnboundedSender<PeerCommand>,
        /// What the process before has left about it, where it is that one's session.
        left: Option<Box<Inheritance>>,
    },
    /// Send nothing more to a neighbour once everything is with the kernel, and say what the next
    /// process has to know of it.
    LetGo(PeerName, oneshot::Sender<Option<Inheritance>>),
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

/// The way to the RIB's thread, which ends when all of them are gone.
#[derive(Clone)]
pub(crate) struct RibSender {
    messages: mpsc::Sender<RibMessage>,
    shared: Arc<Shared>,
}

/// What the RIB's thread shares with those who send to it.
struct Shared {
    tables: Mutex<Tables>,
    /// Messages sent and not worked in. What comes behind them must not overtake them.
    pending: AtomicUsize,
    /// There is something to do beside messages.
    wake: Arc<Notify>,
}

/// Room for a message.
pub(crate) struct Permit<'a> {
    permit: mpsc::Permit<'a, RibMessage>,
    shared: &'a Shared,
}

impl Permit<'_> {
    /// Sends.
    pub(crate) fn send(self, message: RibMessage) {
        self.shared.pending.fetch_add(1, Ordering::SeqCst);
        self.permit.send(message);
    }
}

impl Shared {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Whoever panicked has ended the daemon.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RibSender {
    /// Waits for room. `None` when the thread has ended.
    pub(crate) async fn reserve(&self) -> Option<Permit<'_>> {
        let permit = self.messages.reserve().await.ok()?;
        let shared = &self.shared;
        Some(Permit { permit, shared })
    }

    /// Sends an input, waiting for room.
    pub(crate) async fn input(&self, input: RibInput) {
        if let Some(permit) = self.reserve().await {
            permit.send(RibMessage::Input(input));
        }
    }

    /// Works routes in here and now, if they are few and nothing else is to be done.
    ///
    /// # Errors
    /// Otherwise; then they are to be sent.
    pub(crate) fn at_once(
        &self,
        peer: &PeerName,
        changes: RouteBatch,
        lines: &Lines,
    ) -> Result<(), RouteBatch> {
        // What an end leaves behind may be a table to sweep.
        let ends = |item| matches!(item, RouteItem::EndOfRib { .. });
        if changes.size() > AT_ONCE
            || self.shared.pending.load(Ordering::SeqCst) > 0
            || changes.iter().any(ends)
        {
            return Err(changes);
        }
        let Ok(mut tables) = self.shared.tables.try_lock() else {
            return Err(changes);
        };
        if !tables.is_quiet() {
            return Err(changes);
        }
        tables.message(RibMessage::Input(RibInput::Routes {
            peer: peer.clone(),
            changes,
        }));
        let mut writes = 0;
        tables.outputs(|peer, epoch, transmit| {
            writes += 1;
            if writes > WRITES {
                return Err(transmit);
            }
            lines.send(peer, epoch, transmit)
        });
        tables.tell_what_fits();
        if !tables.is_quiet() {
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// What counts the bytes under way to a neighbour, for one session.
    pub(crate) fn credit(&self) -> Arc<Credit> {
        Arc::new(Credit::new(self.shared.wake.clone()))
    }

    /// Has nothing more sent to a neighbour, once what there is has gone, and tells what the next
    /// process has to know. `None` when that takes too long, and when it is not up.
    pub(crate) async fn let_go(&self, peer: &PeerName, limit: Duration) -> Option<Inheritance> {
        let (reply, answer) = oneshot::channel();
        let permit = self.reserve().await?;
        permit.send(RibMessage::LetGo(peer.clone(), reply));
        tokio::time::timeout(limit, answer).await.ok()?.ok()?
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let name = format!("rib-{}", config.name());
    let wake = Arc::new(Notify::new());
    let shared = Arc::new(Shared {
        tables: Mutex::new(Tables::new(config, events.clone(), recorder)),
        pending: AtomicUsize::new(0),
        wake,
    });
    let thread = Thread {
        shared: shared.clone(),
        events,
    };
    std::thread::Builder::new()
        .name(name)
        .spawn(move || runtime.block_on(thread.run(inbox)))?;
    Ok(RibSender { messages, shared })
}

struct Thread {
    shared: Arc<Shared>,
    events: mpsc::Sender<RouteEvent>,
}

impl Thread {
    async fn run(self, mut inbox: mpsc::Receiver<RibMessage>) {
        let shared = &*self.shared;
        let mut alarm = Alarm::default();
        loop {
            let (timeout, has_events) = {
                let mut tables = shared.tables();
                tables.outputs(|_, _, transmit| Err(transmit));
                let timeout = tables.poll_timeout();
                if timeout.is_some_and(|at| at <= Instant::now()) {
                    tables.input(RibInput::Timeout);
                    continue;
                }
                (timeout, tables.has_events())
            };
            tokio::select! {
                biased;
                () = shared.wake.notified() => {}
                // Neighbours go on being read while whoever takes the best paths is behind: the
                // RIB keeps one change for each prefix, however often it changes.
                permit = self.events.reserve(), if has_events => match permit {
                    Ok(permit) => {
                        if let Some(event) = shared.tables().next_event() {
                            permit.send(event);
                        }
                    }
                    Err(_) => return,
                },
                message = inbox.recv() => match message {
                    Some(message) => {
                        if let Some(done) = self.work(message, &mut inbox) {
                            self.farewell().await;
                            // Nobody waits any more: it has ended all the same.
                            let _ = done.send(());
                            return;
                        }
                    }
                    None => return,
                },
                () = alarm.until(timeout) => shared.tables().input(RibInput::Timeout),
            }
        }
    }

    /// Works messages in, some of those that wait too. Returns whom to tell of the end, if one of
    /// them asks for it.
    fn work(
        &self,
        first: RibMessage,
        inbox: &mut mpsc::Receiver<RibMessage>,
    ) -> Option<oneshot::Sender<()>> {
        let mut tables = self.shared.tables();
        let mut next = Some(first);
        for turn in 1.. {
            match next {
                Some(RibMessage::End(done)) => return Some(done),
                Some(message) => tables.message(message),
                None => break,
            }
            self.shared.pending.fetch_sub(1, Ordering::SeqCst);
            if turn == TURN {
                break;
            }
            next = inbox.try_recv().ok();
        }
        None
    }

    async fn farewell(&self) {
        let instance = self.shared.tables().instance().clone();
        let gone = RouteEvent::InstanceGone(instance);
        // Whoever takes events may itself be waiting for this end.
        let told = self.events.send_timeout(gone, FAREWELL).await;
        if told.is_err() {
            tracing::debug!("nobody was told that the instance ended");
        }
    }
}
