// SPDX-License-Identifier: Apache-2.0
//! All instances of the node, and the handle by which the daemon holds them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use bgp_core::config::{Change, InstanceConfig, InstanceName, LocalRoutes, PeerName};
use bgp_core::peer::StopReason;
use bgp_core::rib::{BestChange, NextHopState, RibInput, RoutePage, RouteQuery};
use tokio::sync::{mpsc, oneshot};

use crate::instance::{Instance, InstanceSnapshot};
use crate::peer_task::PeerCommand;
use crate::recorder::Recorder;
use crate::rib_thread::{Changes, RibCommand};

/// Commands that may wait for the speaker.
const COMMANDS_WAITING: usize = 64;

/// Batches of best path changes that may wait for the subscriber.
const CHANGES_WAITING: usize = 16;

/// How a speaker begins.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Spreads timers; the same seed spreads them the same way.
    pub seed: u64,
    /// The daemon comes back after a restart: said to neighbours with graceful restart (R bit).
    pub restarted: bool,
    /// Forwarding went on meanwhile (F bit).
    pub forwarding_preserved: bool,
    /// Records every input from the start into this file.
    pub record_to: Option<PathBuf>,
}

/// Why a speaker does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum SpeakerError {
    /// The speaker was stopped.
    #[error("the BGP speaker was stopped")]
    Stopped,
    /// There is no such instance.
    #[error("no BGP instance {0}: see `causeway bgp peers` for those there are")]
    NoInstance(InstanceName),
    /// There is no such neighbour.
    #[error(
        "no peer {peer} in BGP instance {instance}: see `causeway bgp peers` for those there are"
    )]
    NoPeer {
        /// The instance.
        instance: InstanceName,
        /// The neighbour.
        peer: PeerName,
    },
    /// A thread or file could not be had.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: String,
        /// The system's answer.
        error: std::io::Error,
    },
}

/// What a reset does to a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResetKind {
    /// Ends it; it comes back at once.
    Hard,
    /// Has the neighbour send its routes again (RFC 2918).
    SoftIn,
    /// Sends the neighbour all routes again.
    SoftOut,
}

/// How the speaker ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StopKind {
    /// For good: neighbours are told, with these words (RFC 9003; may be empty).
    Shutdown(String),
    /// To be back soon: connections break without a word, so that neighbours with graceful
    /// restart keep the routes.
    PlannedRestart,
}

/// Everything there is to say at one time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// When, for ages of the times in it.
    pub taken: Instant,
    /// The same time on the wall clock.
    pub taken_wall: SystemTime,
    /// The instances, by name.
    pub instances: Vec<InstanceSnapshot>,
}

impl Snapshot {
    /// A time of the snapshot on the wall clock.
    pub fn wall(&self, at: Instant) -> SystemTime {
        match self.taken.checked_duration_since(at) {
            Some(ago) => self.taken_wall - ago,
            None => self.taken_wall + at.duration_since(self.taken),
        }
    }
}

/// What a new configuration changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// Instances that began.
    pub started: Vec<InstanceName>,
    /// Instances that ended.
    pub stopped: Vec<InstanceName>,
    /// What changed in the others.
    pub changes: Vec<(InstanceName, Change)>,
}

/// Best path changes of all instances.
///
/// Bounded: while nobody takes them, only the latest state of each destination is kept, in the
/// RIB. Begins with every destination there is.
pub struct BestChanges {
    receiver: mpsc::Receiver<Changes>,
    handle: Handle,
}

impl BestChanges {
    /// The next changes of an instance; `None` once the speaker was stopped.
    pub async fn next(&mut self) -> Option<(InstanceName, Vec<BestChange>)> {
        let changes = self.receiver.recv().await?;
        self.handle.wake();
        Some(changes)
    }
}

/// The way to the speaker. Clones are the same speaker.
#[derive(Clone)]
pub struct Handle(mpsc::Sender<Command>);

/// Begins a speaker without instances on the tokio runtime of the caller. It ends with
/// [`Handle::stop`], or when all handles are gone.
///
/// # Errors
/// The file to record to cannot be made.
pub fn spawn(options: Options) -> Result<Handle, SpeakerError> {
    let recorder = Recorder::default();
    if let Some(path) = &options.record_to {
        recorder
            .start(path)
            .map_err(|error| system(format!("record to {}", path.display()), error))?;
    }
    let (sender, commands) = mpsc::channel(COMMANDS_WAITING);
    let speaker = Speaker {
        options,
        recorder,
        instances: BTreeMap::new(),
        subscriber: None,
    };
    tokio::spawn(speaker.run(commands));
    Ok(Handle(sender))
}

impl Handle {
    /// Makes these the instances: begins, changes and ends what it takes, and no more. An instance
    /// whose AS number or router id changes ends and begins.
    ///
    /// # Errors
    /// A thread could not be had; the instances before it are in force.
    pub async fn apply(&self, configs: Vec<InstanceConfig>) -> Result<Applied, SpeakerError> {
        self.ask(|reply| Command::Apply(configs, reply)).await?
    }

    /// What [`Handle::apply`] would change.
    ///
    /// # Errors
    /// The speaker was stopped.
    pub async fn diff(&self, configs: Vec<InstanceConfig>) -> Result<Applied, SpeakerError> {
        self.ask(|reply| Command::Diff(configs, reply)).await
    }

    /// Makes these the local routes of an instance. To be called once at least, with none if there
    /// are none: before that no neighbour is sent End-of-RIB, so that one which kept our routes
    /// over a restart does not drop them early.
    ///
    /// # Errors
    /// There is no such instance.
    pub async fn set_local_routes(
        &self,
        instance: &InstanceName,
        routes: LocalRoutes,
    ) -> Result<(), SpeakerError> {
        let input = RibInput::LocalRoutes(routes);
        self.ask(|reply| Command::Rib(instance.clone(), input, reply))
            .await?
    }

    /// Tells all instances what is known about next hops.
    ///
    /// # Errors
    /// The speaker was stopped.
    pub async fn set_next_hops(&self, states: Vec<NextHopState>) -> Result<(), SpeakerError> {
        self.ask(|reply| Command::NextHops(states, reply)).await
    }

    /// Best path changes from now on, beginning with all that is there. Takes the place of an
    /// earlier subscription.
    ///
    /// # Errors
    /// The speaker was stopped.
    pub async fn subscribe(&self) -> Result<BestChanges, SpeakerError> {
        let (sender, receiver) = mpsc::channel(CHANGES_WAITING);
        self.ask(|reply| Command::Subscribe(sender, reply)).await?;
        Ok(BestChanges {
            receiver,
            handle: self.clone(),
        })
    }

    /// Everything there is to say about instances and neighbours.
    ///
    /// # Errors
    /// The speaker was stopped.
    pub async fn snapshot(&self) -> Result<Snapshot, SpeakerError> {
        self.ask(Command::Snapshot).await
    }

    /// A page of routes.
    ///
    /// # Errors
    /// There is no such instance.
    pub async fn routes(
        &self,
        instance: &InstanceName,
        query: RouteQuery,
    ) -> Result<RoutePage, SpeakerError> {
        self.ask(|reply| Command::Routes(instance.clone(), query, reply))
            .await?
    }

    /// Resets a session.
    ///
    /// # Errors
    /// There is no such instance or neighbour.
    pub async fn reset(
        &self,
        instance: &InstanceName,
        peer: &PeerName,
        kind: ResetKind,
    ) -> Result<(), SpeakerError> {
        self.ask(|reply| Command::Reset(instance.clone(), peer.clone(), kind, reply))
            .await?
    }

    /// Records every input of instances that begin from now on, or ends recording. A recording of
    /// running sessions cannot be replayed: it lacks their beginning.
    ///
    /// # Errors
    /// The file cannot be made or written.
    pub async fn record(&self, to: Option<PathBuf>) -> Result<(), SpeakerError> {
        self.ask(|reply| Command::Record(to, reply)).await?
    }

    /// Ends all sessions and the speaker, and returns when the last bytes are out.
    ///
    /// # Errors
    /// It was stopped already.
    pub async fn stop(&self, kind: StopKind) -> Result<(), SpeakerError> {
        self.ask(|reply| Command::Stop(kind, reply)).await
    }

    fn wake(&self) {
        if self.0.try_send(Command::Wake).is_err() {
            tracing::trace!("the speaker is busy or stopped");
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, SpeakerError> {
        let (reply, answer) = oneshot::channel();
        self.0
            .send(command(reply))
            .await
            .map_err(|_| SpeakerError::Stopped)?;
        answer.await.map_err(|_| SpeakerError::Stopped)
    }
}

type Reply<T> = oneshot::Sender<T>;

enum Command {
    Apply(Vec<InstanceConfig>, Reply<Result<Applied, SpeakerError>>),
    Diff(Vec<InstanceConfig>, Reply<Applied>),
    Rib(InstanceName, RibInput, Reply<Result<(), SpeakerError>>),
    NextHops(Vec<NextHopState>, Reply<()>),
    Subscribe(mpsc::Sender<Changes>, Reply<()>),
    Snapshot(Reply<Snapshot>),
    Routes(
        InstanceName,
        RouteQuery,
        Reply<Result<RoutePage, SpeakerError>>,
    ),
    Reset(
        InstanceName,
        PeerName,
        ResetKind,
        Reply<Result<(), SpeakerError>>,
    ),
    Record(Option<PathBuf>, Reply<Result<(), SpeakerError>>),
    Stop(StopKind, Reply<()>),
    Wake,
}

struct Speaker {
    options: Options,
    recorder: Recorder,
    instances: BTreeMap<InstanceName, Instance>,
    subscriber: Option<mpsc::Sender<Changes>>,
}

impl Speaker {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Apply(configs, reply) => answer(reply, self.apply(configs).await),
                Command::Diff(configs, reply) => answer(reply, self.diff(&configs)),
                Command::Rib(name, input, reply) => {
                    let done = match self.instance(&name) {
                        Ok(instance) => {
                            instance.rib().send(RibCommand::Input(input)).await;
                            Ok(())
                        }
                        Err(error) => Err(error),
                    };
                    answer(reply, done);
                }
                Command::NextHops(states, reply) => {
                    for instance in self.instances.values() {
                        let input = RibInput::NextHops(states.clone());
                        instance.rib().send(RibCommand::Input(input)).await;
                    }
                    answer(reply, ());
                }
                Command::Subscribe(subscriber, reply) => {
                    for instance in self.instances.values() {
                        instance
                            .rib()
                            .send(RibCommand::Subscribe(subscriber.clone()))
                            .await;
                    }
                    self.subscriber = Some(subscriber);
                    answer(reply, ());
                }
                Command::Snapshot(reply) => answer(reply, self.snapshot().await),
                Command::Routes(name, query, reply) => match self.instance(&name) {
                    Ok(instance) => {
                        let (page, answered) = oneshot::channel();
                        instance.rib().send(RibCommand::Routes(query, page)).await;
                        // Not waited for here: others may ask meanwhile.
                        tokio::spawn(async move {
                            answer(reply, answered.await.map_err(|_| SpeakerError::Stopped));
                        });
                    }
                    Err(error) => answer(reply, Err(error)),
                },
                Command::Reset(instance, peer, kind, reply) => {
                    answer(reply, self.reset(&instance, &peer, kind).await);
                }
                Command::Record(to, reply) => {
                    let done = match &to {
                        Some(path) => self.recorder.start(path),
                        None => self.recorder.stop(),
                    };
                    let what = "write the recording".to_owned();
                    answer(reply, done.map_err(|error| system(what, error)));
                }
                Command::Stop(kind, reply) => {
                    self.stop(kind).await;
                    answer(reply, ());
                    return;
                }
                Command::Wake => {
                    self.instances
                        .values()
                        .for_each(|instance| instance.rib().wake());
                }
            }
        }
        self.stop(StopKind::Shutdown(String::new())).await;
    }

    async fn apply(&mut self, configs: Vec<InstanceConfig>) -> Result<Applied, SpeakerError> {
        let applied = self.diff(&configs);
        for name in &applied.stopped {
            if let Some(instance) = self.instances.remove(name) {
                let kept = configs.iter().any(|config| config.name() == name);
                instance
                    .stop(if kept {
                        StopReason::ConfigurationChange
                    } else {
                        StopReason::Deconfigured
                    })
                    .await;
            }
        }
        for config in configs {
            let name = config.name().clone();
            if let Some(instance) = self.instances.get_mut(&name) {
                instance.apply(config).await;
                continue;
            }
            let instance = Instance::start(config, &self.options, self.recorder.clone())
                .await
                .map_err(|error| system(format!("start BGP instance {name}"), error))?;
            if let Some(subscriber) = &self.subscriber {
                instance
                    .rib()
                    .send(RibCommand::Subscribe(subscriber.clone()))
                    .await;
            }
            self.instances.insert(name, instance);
        }
        Ok(applied)
    }

    fn diff(&self, configs: &[InstanceConfig]) -> Applied {
        let mut applied = Applied::default();
        for (name, instance) in &self.instances {
            match configs.iter().find(|config| config.name() == name) {
                Some(next) if !instance.must_restart(next) => {
                    let changes = instance.changes_to(next).into_iter();
                    applied
                        .changes
                        .extend(changes.map(|change| (name.clone(), change)));
                }
                Some(_) => {
                    applied.stopped.push(name.clone());
                    applied.started.push(name.clone());
                }
                None => applied.stopped.push(name.clone()),
            }
        }
        let new = configs.iter().map(InstanceConfig::name);
        applied.started.extend(
            new.filter(|name| !self.instances.contains_key(*name))
                .cloned(),
        );
        applied
    }

    async fn reset(
        &self,
        name: &InstanceName,
        peer: &PeerName,
        kind: ResetKind,
    ) -> Result<(), SpeakerError> {
        let instance = self.instance(name)?;
        let Some(sender) = instance.peer(peer) else {
            return Err(SpeakerError::NoPeer {
                instance: name.clone(),
                peer: peer.clone(),
            });
        };
        match kind {
            ResetKind::Hard => sender.send(PeerCommand::Stop(StopReason::Reset)).await,
            ResetKind::SoftIn => {
                for family in instance.families_of(peer) {
                    sender.send(PeerCommand::AskForRoutes(family)).await;
                }
            }
            ResetKind::SoftOut => {
                for family in instance.families_of(peer) {
                    let input = RibInput::Resend {
                        peer: peer.clone(),
                        family,
                    };
                    instance.rib().send(RibCommand::Input(input)).await;
                }
            }
        }
        Ok(())
    }

    async fn snapshot(&self) -> Snapshot {
        let mut instances = Vec::new();
        for instance in self.instances.values() {
            instances.push(instance.snapshot().await);
        }
        Snapshot {
            taken: Instant::now(),
            taken_wall: SystemTime::now(),
            instances,
        }
    }

    async fn stop(&mut self, kind: StopKind) {
        let reason = match kind {
            StopKind::Shutdown(message) => StopReason::Shutdown { message },
            StopKind::PlannedRestart => StopReason::PlannedRestart,
        };
        while let Some((_, instance)) = self.instances.pop_first() {
            instance.stop(reason.clone()).await;
        }
        if let Err(error) = self.recorder.stop() {
            tracing::warn!(%error, "the recording may lack its end");
        }
    }

    fn instance(&self, name: &InstanceName) -> Result<&Instance, SpeakerError> {
        self.instances
            .get(name)
            .ok_or_else(|| SpeakerError::NoInstance(name.clone()))
    }
}

fn answer<T>(reply: Reply<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::debug!("nobody waits for the answer any more");
    }
}

fn system(what: String, error: std::io::Error) -> SpeakerError {
    SpeakerError::System { what, error }
}
