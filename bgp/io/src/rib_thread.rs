// SPDX-License-Identifier: Apache-2.0
//! The RIB of an instance on a thread of its own, fed by bounded batches.

use std::collections::BTreeMap;
use std::time::Instant;

use bgp_core::config::{InstanceConfig, InstanceName, PeerName};
use bgp_core::rib::{
    BestChange, FamilyCounts, Rib, RibInput, RibOutput, RibStats, RoutePage, RouteQuery, Transmit,
};
use router_types::Family;
use tokio::sync::{mpsc, oneshot};

use crate::peer_task::PeerSender;
use crate::recorder::{RecordedRib, Recorder};

/// Batches that may wait for the RIB. Sessions that find it full stop reading, not keeping alive.
const BATCHES_WAITING: usize = 64;

/// Segments that may wait for a writer.
pub(crate) const SEGMENTS_WAITING: usize = 16;

/// Best path changes handed over at a time.
const CHANGES_AT_ONCE: usize = 1024;

/// Commands taken before outputs are carried out.
const COMMANDS_AT_ONCE: usize = 16;

/// Best path changes with the instance they are from.
pub(crate) type Changes = (InstanceName, Vec<BestChange>);

/// What the RIB's thread is told.
pub(crate) enum RibCommand {
    Input(RibInput),
    /// A session came up; its routes go here, overflowing prefixes are told there.
    Attach {
        peer: PeerName,
        transmit: mpsc::Sender<Transmit>,
        session: PeerSender,
    },
    Detach {
        peer: PeerName,
    },
    Subscribe(mpsc::Sender<Changes>),
    Routes(RouteQuery, oneshot::Sender<RoutePage>),
    Status(oneshot::Sender<RibStatus>),
    Wake,
}

/// The RIB's share of a snapshot.
#[derive(Debug, Default)]
pub(crate) struct RibStatus {
    pub(crate) stats: RibStats,
    pub(crate) counts: BTreeMap<PeerName, BTreeMap<Family, FamilyCounts>>,
}

/// The way to a RIB's thread, which ends when all of these are gone.
#[derive(Clone)]
pub(crate) struct RibSender(mpsc::Sender<RibCommand>);

impl RibSender {
    pub(crate) async fn send(&self, command: RibCommand) {
        // Only gone when the speaker stops.
        if self.0.send(command).await.is_err() {
            tracing::trace!("the RIB is gone");
        }
    }

    /// Room for one batch, once there is some.
    pub(crate) async fn reserve(&self) -> Option<mpsc::Permit<'_, RibCommand>> {
        self.0.reserve().await.ok()
    }

    /// Has the RIB look for room in its outputs. Without effect when commands wait anyway.
    pub(crate) fn wake(&self) {
        if self.0.try_send(RibCommand::Wake).is_err() {
            tracing::trace!("the RIB is busy and will look by itself");
        }
    }
}

/// Starts the thread of an instance's RIB.
pub(crate) fn start(config: InstanceConfig, recorder: Recorder) -> std::io::Result<RibSender> {
    let (sender, commands) = mpsc::channel(BATCHES_WAITING);
    let name = format!("rib-{}", config.name());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    std::thread::Builder::new().name(name).spawn(move || {
        let thread = RibThread::new(config, recorder);
        runtime.block_on(thread.run(commands));
    })?;
    Ok(RibSender(sender))
}

struct RibThread {
    instance: InstanceName,
    rib: Rib,
    recorder: RecordedRib,
    peers: Vec<PeerName>,
    attached: BTreeMap<PeerName, (mpsc::Sender<Transmit>, PeerSender)>,
    subscriber: Option<mpsc::Sender<Changes>>,
}

impl RibThread {
    fn new(config: InstanceConfig, recorder: Recorder) -> RibThread {
        let instance = config.name().clone();
        RibThread {
            recorder: recorder.rib(&config),
            peers: config.peers().keys().cloned().collect(),
            rib: Rib::new(config, Instant::now()),
            instance,
            attached: BTreeMap::new(),
            subscriber: None,
        }
    }

    async fn run(mut self, mut commands: mpsc::Receiver<RibCommand>) {
        loop {
            let deadline = self.rib.poll_timeout();
            let timer = async {
                match deadline {
                    Some((at, _)) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.take(command),
                    None => return,
                },
                () = timer => self.input(RibInput::Timeout),
            }
            for _ in 0..COMMANDS_AT_ONCE {
                match commands.try_recv() {
                    Ok(command) => self.take(command),
                    Err(_) => break,
                }
            }
            self.carry_out();
        }
    }

    fn take(&mut self, command: RibCommand) {
        match command {
            RibCommand::Input(input) => self.input(input),
            RibCommand::Attach {
                peer,
                transmit,
                session,
            } => {
                self.attached.insert(peer, (transmit, session));
            }
            RibCommand::Detach { peer } => {
                self.attached.remove(&peer);
            }
            RibCommand::Subscribe(subscriber) => {
                self.subscriber = Some(subscriber);
                self.rib.report_all();
            }
            RibCommand::Routes(query, reply) => {
                let page = self.rib.routes(&query, Instant::now());
                if reply.send(page).is_err() {
                    tracing::debug!("nobody waits for the routes any more");
                }
            }
            RibCommand::Status(reply) => {
                let counts = self
                    .peers
                    .iter()
                    .map(|p| (p.clone(), self.rib.counts(p)))
                    .collect();
                let status = RibStatus {
                    stats: self.rib.stats(),
                    counts,
                };
                if reply.send(status).is_err() {
                    tracing::debug!("nobody waits for the status any more");
                }
            }
            RibCommand::Wake => {}
        }
    }

    fn input(&mut self, input: RibInput) {
        if let RibInput::Configure(config) = &input {
            self.peers = config.peers().keys().cloned().collect();
            self.attached
                .retain(|peer, _| config.peers().contains_key(peer));
        }
        self.recorder.input(&input);
        self.rib.handle(input, Instant::now());
    }

    fn carry_out(&mut self) {
        while let Some(RibOutput::LimitExceeded {
            peer,
            family,
            limit,
        }) = self.rib.poll_output()
        {
            tracing::warn!(%peer, %family, limit, "more routes than allowed");
            if let Some((_, session)) = self.attached.get(&peer) {
                session.limit_exceeded(limit);
            }
        }
        self.report_changes();
        for (peer, (transmit, _)) in &self.attached {
            while let Ok(permit) = transmit.try_reserve() {
                match self.rib.poll_transmit(peer) {
                    Some(segment) => permit.send(segment),
                    None => break,
                }
            }
        }
    }

    /// Hands changes over while the subscriber has room; what it has none for waits in the RIB,
    /// where a later change of the same destination takes its place.
    fn report_changes(&mut self) {
        let Some(subscriber) = self.subscriber.clone() else {
            while self.rib.poll_best().is_some() {}
            return;
        };
        while self.rib.pressure() > 0 {
            let permit = match subscriber.try_reserve() {
                Ok(permit) => permit,
                Err(mpsc::error::TrySendError::Full(())) => return,
                Err(mpsc::error::TrySendError::Closed(())) => {
                    self.subscriber = None;
                    return;
                }
            };
            let mut changes = Vec::new();
            while changes.len() < CHANGES_AT_ONCE
                && let Some(change) = self.rib.poll_best()
            {
                changes.push(change);
            }
            permit.send((self.instance.clone(), changes));
        }
    }
}
