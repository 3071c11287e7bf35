// SPDX-License-Identifier: Apache-2.0
//! The handle on all instances, and the thread of the sessions.

use std::collections::BTreeMap;
use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bgp_core::config::{InstanceConfig, InstanceName, LocalRoutes, PeerConfig, PeerName};
use bgp_core::peer::StopReason;
use bgp_core::rib::{NextHopState, Rib, RibInput};
use router_types::LinkIndex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use crate::handover::HandedSession;
use crate::instance::{Detail, Instance, InstanceSnapshot};
use crate::listener::Call;
use crate::recorder::Recorder;
use crate::rib_thread::{Question, RouteEvent};
use crate::session::{Departure, Partings, PeerCommand};

/// Commands that may wait.
const QUEUE: usize = 64;

/// Calls that may wait to be handed to their neighbours.
const CALLS: usize = 64;

/// How often sockets that could not be opened are tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How a speaker starts.
#[derive(Debug, Default)]
pub struct Options {
    /// Whether this is a restart over which forwarding went on: said in OPEN where graceful restart
    /// is configured (RFC 4724 §3, R and F bits).
    pub restarted: bool,
    /// Whether End-of-RIB is held back until [`Speaker::send_ends`]: neighbours that kept this end's
    /// routes drop then what was not announced again (RFC 4724 §4.1).
    pub hold_ends: bool,
    /// Sessions of the process before; each goes to the neighbour of its name, when its instance
    /// starts.
    pub adopted: Vec<HandedSession>,
    /// Where inputs are recorded.
    pub recorder: Recorder,
    /// Where BFD sessions are asked for; `None` runs BGP without, whatever is configured.
    pub bfd: Option<bgp_bfdd::client::Client>,
}

/// What is done with a session on an operator's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reset {
    /// End it; it comes back.
    Hard,
    /// Ask for the neighbour's routes again (RFC 2918).
    SoftIn,
}

enum Command {
    Apply(
        Vec<(InstanceConfig, LocalRoutes)>,
        oneshot::Sender<Vec<String>>,
    ),
    NextHops(Vec<NextHopState>),
    SendEnds,
    Snapshot(Detail, oneshot::Sender<Vec<InstanceSnapshot>>),
    Reset(InstanceName, PeerName, Reset, oneshot::Sender<bool>),
    LinkDown(LinkIndex, String),
    Ask(InstanceName, Question),
    Stop(StopReason, oneshot::Sender<()>),
    HandOver(oneshot::Sender<Vec<HandedSession>>),
}

/// The handle on the speaker. Cheap to clone.
#[derive(Clone)]
pub struct Speaker {
    commands: mpsc::Sender<Command>,
}

impl Speaker {
    /// Starts the thread, in the calling thread's network namespace, without instances. Route
    /// events go to `events`; when it is full the tables keep the latest state of each prefix.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(
        options: Options,
        events: mpsc::Sender<RouteEvent>,
    ) -> io::Result<(Speaker, JoinHandle<()>)> {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("bgp".to_owned())
            .spawn(move || {
                let local = LocalSet::new();
                let (calls, called) = mpsc::channel(CALLS);
                // At most one for each neighbour of a listen range.
                let (departures, departed) = mpsc::unbounded_channel();
                let worker = Worker {
                    options,
                    events,
                    calls,
                    departures,
                    instances: BTreeMap::new(),
                };
                // A task of its own, which is not looked at whenever another one has run.
                let worker = local.spawn_local(worker.run(inbox, called, departed));
                if let Err(error) = local.block_on(&runtime, worker)
                    && let Ok(panic) = error.try_into_panic()
                {
                    std::panic::resume_unwind(panic);
                }
            })?;
        Ok((Speaker { commands }, thread))
    }

    /// Makes the instances exactly these. Only what differs is touched.
    ///
    /// Returns what could not be done, in words. Sockets that cannot be opened are not among it:
    /// they are tried again, and shown in the snapshot.
    pub async fn apply(&self, instances: Vec<(InstanceConfig, LocalRoutes)>) -> Vec<String> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Apply(instances, reply)).await;
        answer
            .await
            .unwrap_or_else(|_| vec!["the speaker has stopped".to_owned()])
    }

    /// Says what is known about next hops.
    pub async fn set_next_hops(&self, states: Vec<NextHopState>) {
        self.send(Command::NextHops(states)).await;
    }

    /// Says that the tables are what they were before the restart, and the kernel has them: the End-of-RIB
    /// that [`Options::hold_ends`] held back is sent.
    pub async fn send_ends(&self) {
        self.send(Command::SendEnds).await;
    }

    /// Says that a link is down, for neighbours on it ("fast external fail-over").
    pub async fn link_down(&self, link: LinkIndex, interface: String) {
        self.send(Command::LinkDown(link, interface)).await;
    }

    /// Everything there is to say.
    pub async fn snapshot(&self) -> Vec<InstanceSnapshot> {
        self.look(Detail::All).await
    }

    /// As [`Speaker::snapshot`], without how many routes and bytes each neighbour has, for which the
    /// tables may have to be walked: those numbers are 0.
    pub async fn sessions(&self) -> Vec<InstanceSnapshot> {
        self.look(Detail::Sessions).await
    }

    async fn look(&self, detail: Detail) -> Vec<InstanceSnapshot> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Snapshot(detail, reply)).await;
        answer.await.unwrap_or_default()
    }

    /// Resets a session. `false` when there is no such neighbour.
    pub async fn reset(&self, instance: &InstanceName, peer: &PeerName, how: Reset) -> bool {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Reset(instance.clone(), peer.clone(), how, reply))
            .await;
        answer.await.unwrap_or(false)
    }

    /// Asks an instance's tables a question. It holds up routes while it is answered: ask for a
    /// page. `None` when there is no such instance.
    pub async fn ask<T: Send + 'static>(
        &self,
        instance: &InstanceName,
        question: impl FnOnce(&Rib, Instant) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let ask = move |rib: &Rib, now: Instant| {
            // Nobody waits any more: the answer is not needed.
            let _ = reply.send(question(rib, now));
        };
        self.send(Command::Ask(instance.clone(), Box::new(ask)))
            .await;
        answer.await.ok()
    }

    /// Ends like [`Speaker::stop`] with [`StopReason::PlannedRestart`], but for sessions that are up:
    /// they are returned for the next process, and their neighbours hear nothing.
    pub async fn hand_over(&self) -> Vec<HandedSession> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::HandOver(reply)).await;
        answer.await.unwrap_or_default()
    }

    /// Ends all sessions, telling neighbours why ([`StopReason::PlannedRestart`] tells nothing), and
    /// the threads.
    pub async fn stop(&self, reason: StopReason) {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Stop(reason, reply)).await;
        // A speaker that has stopped need not be stopped.
        let _ = answer.await;
    }

    async fn send(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::error!("the thread of the BGP sessions has ended");
        }
    }
}

struct Worker {
    options: Options,
    events: mpsc::Sender<RouteEvent>,
    calls: mpsc::Sender<Call>,
    departures: mpsc::UnboundedSender<Departure>,
    instances: BTreeMap<InstanceName, Instance>,
}

impl Worker {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        mut called: mpsc::Receiver<Call>,
        mut departed: mpsc::UnboundedReceiver<Departure>,
    ) {
        let mut retry = tokio::time::interval(RETRY);
        loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::Stop(reason, done)) => {
                        self.stop(&reason).await;
                        // Nobody waits any more: it has stopped all the same.
                        let _ = done.send(());
                        return;
                    }
                    Some(Command::HandOver(reply)) => {
                        let mut sessions = Vec::new();
                        for instance in self.instances.values_mut() {
                            sessions.extend(instance.hand_over().await);
                        }
                        self.stop(&StopReason::PlannedRestart).await;
                        // Nobody waits any more: the connections end here.
                        let _ = reply.send(sessions);
                        return;
                    }
                    Some(command) => self.command(command).await,
                    None => {
                        let text = "the daemon has dropped the speaker".to_owned();
                        self.stop(&StopReason::Other { text }).await;
                        return;
                    }
                },
                Some(call) = called.recv() => {
                    if let Some(instance) = self.instances.get_mut(&call.instance) {
                        instance.called(call).await;
                    }
                }
                Some(departure) = departed.recv() => {
                    if let Some(instance) = self.instances.get_mut(&departure.instance) {
                        instance.departed(&departure.peer).await;
                    }
                }
                _ = retry.tick() => {
                    for instance in self.instances.values_mut() {
                        instance.retry_listeners().await;
                        instance.refuse_strays();
                    }
                }
            }
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Apply(wanted, reply) => {
                // Nobody waits any more: it is done all the same.
                let _ = reply.send(self.apply(wanted).await);
            }
            Command::NextHops(states) => {
                for instance in self.instances.values() {
                    instance
                        .rib()
                        .input(RibInput::NextHops(states.clone()))
                        .await;
                }
            }
            Command::SendEnds => {
                self.options.hold_ends = false;
                for instance in self.instances.values() {
                    instance.rib().input(RibInput::SendEnds).await;
                }
            }
            Command::Snapshot(detail, reply) => {
                let instances = self.instances.values();
                let asked: Vec<_> = instances.map(|i| i.snapshot(detail)).collect();
                tokio::task::spawn_local(async move {
                    let mut all = Vec::new();
                    for snapshot in asked {
                        all.push(snapshot.await);
                    }
                    // Nobody waits any more: the answer is not needed.
                    let _ = reply.send(all);
                });
            }
            Command::Reset(instance, peer, how, reply) => {
                let done = self.reset(&instance, &peer, how);
                let _ = reply.send(done);
            }
            Command::LinkDown(link, interface) => {
                for instance in self.instances.values() {
                    instance.link_down(link, &interface);
                }
            }
            Command::Ask(instance, question) => {
                if let Some(instance) = self.instances.get(&instance) {
                    let rib = instance.rib().clone();
                    tokio::task::spawn_local(async move {
                        rib.ask(move |rib, now| question(rib, now)).await;
                    });
                }
            }
            Command::HandOver(_) | Command::Stop(..) => {
                unreachable!("taken care of where commands are received")
            }
        }
    }

    fn reset(&self, instance: &InstanceName, peer: &PeerName, how: Reset) -> bool {
        let Some(instance) = self.instances.get(instance) else {
            return false;
        };
        let Some(inbox) = instance.peer(peer) else {
            return false;
        };
        match how {
            Reset::Hard => inbox.send(PeerCommand::Stop(StopReason::Reset)).is_ok(),
            Reset::SoftIn => PeerConfig::CARRIED
                .into_iter()
                .all(|family| inbox.send(PeerCommand::AskForRoutes(family)).is_ok()),
        }
    }

    async fn apply(&mut self, wanted: Vec<(InstanceConfig, LocalRoutes)>) -> Vec<String> {
        let mut failures = Vec::new();
        let gone: Vec<InstanceName> = self
            .instances
            .keys()
            .filter(|name| !wanted.iter().any(|(config, _)| config.name() == *name))
            .cloned()
            .collect();
        for name in gone {
            self.retire(&name, &StopReason::Deconfigured).await;
        }
        for (config, routes) in wanted {
            let name = config.name().clone();
            if self
                .instances
                .get(&name)
                .is_some_and(|instance| instance.is_replaced_by(&config))
            {
                self.retire(&name, &StopReason::ConfigurationChange).await;
            }
            match self.instances.get_mut(&name) {
                Some(instance) => instance.apply(config, routes).await,
                None => {
                    let (adopted, others) = std::mem::take(&mut self.options.adopted)
                        .into_iter()
                        .partition(|session| session.record.instance == name);
                    self.options.adopted = others;
                    let started = Instance::start(
                        config,
                        routes,
                        &self.options,
                        self.events.clone(),
                        self.calls.clone(),
                        self.departures.clone(),
                        adopted,
                    )
                    .await;
                    match started {
                        Ok(instance) => {
                            tracing::info!(instance = %name, "instance started");
                            self.instances.insert(name, instance);
                        }
                        Err(error) => failures.push(format!("instance {name}: {error}")),
                    }
                }
            }
        }
        // Those of instances there are no more.
        for session in std::mem::take(&mut self.options.adopted) {
            let record = &session.record;
            tracing::warn!(
                instance = %record.instance, peer = %record.peer,
                "a session of the process before has no instance here: it ends"
            );
        }
        failures
    }

    async fn end(&mut self, name: &InstanceName, reason: &StopReason) -> Vec<Partings> {
        let Some(instance) = self.instances.remove(name) else {
            return Vec::new();
        };
        let partings = instance.end(reason).await;
        tracing::info!(instance = %name, %reason, "instance ended");
        partings
    }

    /// Ends an instance while others go on.
    async fn retire(&mut self, name: &InstanceName, reason: &StopReason) {
        for mut parting in self.end(name, reason).await {
            parting.detach_all();
        }
    }

    /// Ends everything, and waits until goodbye is said everywhere: with the thread the
    /// connections end.
    async fn stop(&mut self, reason: &StopReason) {
        let names: Vec<InstanceName> = self.instances.keys().cloned().collect();
        let mut partings = Vec::new();
        for name in names {
            partings.extend(self.end(&name, reason).await);
        }
        for parting in &mut partings {
            while parting.join_next().await.is_some() {}
        }
    }
}
