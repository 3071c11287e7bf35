// SPDX-License-Identifier: Apache-2.0
//! The task of a neighbour: carries bytes, time and routes to and from its session's machine.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bgp_core::config::{InstanceName, PeerConfig, PeerName};
use bgp_core::peer::{
    CloseHow, ConnId, Direction, FailureKind, LocalSpeaker, Peer, PeerInput, PeerOutput,
    PeerSnapshot, StopReason, TransportFailure,
};
use bgp_core::rib::RibInput;
use router_types::Family;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};

use crate::connection::{self, Connection, ConnectionEvent, Events, Written};
use crate::recorder::{RecordedPeer, Recorder};
use crate::rib_thread::{RibCommand, RibSender, SEGMENTS_WAITING};
use crate::socket;

/// Commands that may wait for a neighbour's task. They come from operators and configuration.
const COMMANDS_WAITING: usize = 256;

/// What a neighbour's task is told.
pub(crate) enum PeerCommand {
    Start,
    Stop(StopReason),
    Configure(Box<PeerConfig>),
    AskForRoutes(Family),
    Called(TcpStream),
    Snapshot(oneshot::Sender<PeerSnapshot>),
    /// End the session and the task; answered once the last bytes are out.
    Quit(StopReason, oneshot::Sender<()>),
}

/// The way to a neighbour's task.
#[derive(Clone)]
pub(crate) struct PeerSender(mpsc::Sender<PeerCommand>);

impl PeerSender {
    pub(crate) async fn send(&self, command: PeerCommand) {
        // Only gone when it was told to quit.
        if self.0.send(command).await.is_err() {
            tracing::trace!("the peer's task is gone");
        }
    }

    /// Told by the RIB's thread, which does not wait.
    pub(crate) fn limit_exceeded(&self, limit: u32) {
        let command = PeerCommand::Stop(StopReason::PrefixLimit { limit });
        if self.0.try_send(command).is_err() {
            tracing::warn!(
                limit,
                "the session over its prefix limit cannot be told to end"
            );
        }
    }
}

/// What a neighbour's task begins with.
pub(crate) struct PeerStart {
    pub(crate) instance: InstanceName,
    pub(crate) name: PeerName,
    pub(crate) config: PeerConfig,
    pub(crate) local: LocalSpeaker,
    pub(crate) seed: u64,
    pub(crate) rib: RibSender,
    pub(crate) recorder: Recorder,
}

/// Starts the task of a neighbour, which waits for [`PeerCommand::Start`].
pub(crate) fn spawn(start: PeerStart) -> PeerSender {
    let (sender, commands) = mpsc::channel(COMMANDS_WAITING);
    let sender = PeerSender(sender);
    let PeerStart {
        instance,
        name,
        config,
        local,
        seed,
        rib,
        recorder,
    } = start;
    let recorder = recorder.peer(&instance, &name, &config, &local, seed);
    let (events_sender, events) = connection::events();
    // One attempt at a time, and an aborted one may have answered already.
    let (dialled_sender, dialled) = mpsc::channel(2);
    let task = PeerTask {
        peer: Peer::new(name.clone(), config, local, seed, Instant::now()),
        name,
        recorder,
        rib,
        sender: sender.clone(),
        commands,
        events_sender,
        events,
        dialled_sender,
        dialled,
        dialling: None,
        connections: BTreeMap::new(),
        finishing: Vec::new(),
        for_rib: VecDeque::new(),
        calls: 0,
        written: Arc::default(),
        counted: (0, 0),
    };
    let span = tracing::info_span!("peer", %instance, name = %task.name);
    tokio::spawn(tracing::Instrument::instrument(task.run(), span));
    sender
}

type Dialled = (ConnId, Result<TcpStream, TransportFailure>);

struct PeerTask {
    peer: Peer,
    name: PeerName,
    recorder: RecordedPeer,
    rib: RibSender,
    /// The own address, for the RIB to answer to.
    sender: PeerSender,
    commands: mpsc::Receiver<PeerCommand>,
    events_sender: mpsc::Sender<ConnectionEvent>,
    events: Events,
    dialled_sender: mpsc::Sender<Dialled>,
    dialled: mpsc::Receiver<Dialled>,
    dialling: Option<(ConnId, AbortHandle)>,
    connections: BTreeMap<ConnId, Connection>,
    finishing: Vec<JoinHandle<()>>,
    /// What the RIB had no room for. Nothing is read while something is here, which bounds it by
    /// one read.
    for_rib: VecDeque<RibCommand>,
    calls: u64,
    written: Arc<Written>,
    counted: (u64, u64),
}

impl PeerTask {
    async fn run(mut self) {
        loop {
            self.carry_out();
            let deadline = self.peer.poll_timeout();
            let timer = async {
                match deadline {
                    Some((at, _)) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let rib = self.rib.clone();
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(PeerCommand::Quit(reason, done)) => {
                        self.quit(reason).await;
                        if done.send(()).is_err() {
                            tracing::trace!("nobody waits for the end");
                        }
                        return;
                    }
                    Some(command) => self.command(command),
                    None => return,
                },
                () = timer => {
                    self.note_waiting_bytes();
                    self.input(PeerInput::Timeout);
                }
                permit = rib.reserve(), if !self.for_rib.is_empty() => {
                    match (permit, self.for_rib.pop_front()) {
                        (Some(permit), Some(command)) => permit.send(command),
                        // The speaker stops.
                        (None, _) => return,
                        (Some(_), None) => {}
                    }
                }
                Some((conn, result)) = self.dialled.recv() => self.dialled(conn, result),
                Some(event) = self.events.recv(), if self.for_rib.is_empty() => self.event(event),
            }
        }
    }

    fn input(&mut self, input: PeerInput) {
        self.recorder.input(&input);
        self.peer.handle(input, Instant::now());
    }

    fn command(&mut self, command: PeerCommand) {
        match command {
            PeerCommand::Start => self.input(PeerInput::Start),
            PeerCommand::Stop(reason) => self.input(PeerInput::Stop(reason)),
            PeerCommand::Configure(config) => {
                self.input(PeerInput::Configure(config));
                self.retune();
            }
            PeerCommand::AskForRoutes(family) => self.input(PeerInput::AskForRoutes { family }),
            PeerCommand::Called(stream) => {
                self.calls += 1;
                let conn = ConnId {
                    direction: Direction::Incoming,
                    serial: self.calls,
                };
                match self.adopt(conn, stream) {
                    Ok(addresses) => self.input(PeerInput::Called { conn, addresses }),
                    Err(error) => tracing::warn!(%error, "a call could not be taken"),
                }
            }
            PeerCommand::Snapshot(reply) => {
                let updates = self.written.updates.load(Ordering::Relaxed);
                let bytes = self.written.bytes.load(Ordering::Relaxed);
                let (updates_before, bytes_before) = self.counted;
                self.peer
                    .count_updates_sent(updates - updates_before, bytes - bytes_before);
                self.counted = (updates, bytes);
                if reply.send(self.peer.snapshot(Instant::now())).is_err() {
                    tracing::debug!("nobody waits for the snapshot any more");
                }
            }
            // Taken by the loop, which ends with it.
            PeerCommand::Quit(..) => {}
        }
    }

    fn event(&mut self, event: ConnectionEvent) {
        match event {
            ConnectionEvent::Bytes { conn, bytes } => {
                self.input(PeerInput::Bytes { conn, bytes });
            }
            ConnectionEvent::Closed { conn, failure } => {
                self.input(PeerInput::Closed { conn, failure });
                self.connections.remove(&conn);
            }
            ConnectionEvent::Stuck { conn } => {
                if self.connections.contains_key(&conn) {
                    self.input(PeerInput::Stop(StopReason::SendHoldTimer));
                }
            }
        }
    }

    fn dialled(&mut self, conn: ConnId, result: Result<TcpStream, TransportFailure>) {
        if self.dialling.as_ref().is_none_or(|(ours, _)| *ours != conn) {
            return;
        }
        self.dialling = None;
        let adopted = result.and_then(|stream| self.adopt(conn, stream).map_err(socket::failure));
        match adopted {
            Ok(addresses) => self.input(PeerInput::Connected { conn, addresses }),
            Err(failure) => self.input(PeerInput::ConnectFailed { conn, failure }),
        }
    }

    /// Starts reading and writing on a connection.
    fn adopt(
        &mut self,
        conn: ConnId,
        stream: TcpStream,
    ) -> std::io::Result<bgp_core::peer::SessionAddresses> {
        let config = self.peer.config();
        socket::tune(&stream, config, self.peer.ttl())?;
        let addresses = socket::addresses(&stream)?;
        let connection = Connection::start(
            conn,
            stream,
            Duration::from_secs(config.timers.hold_s().into()),
            self.events_sender.clone(),
            self.written.clone(),
            self.rib.clone(),
        );
        self.connections.insert(conn, connection);
        Ok(addresses)
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.peer.poll_output() {
            match output {
                PeerOutput::Connect { conn } => self.dial(conn),
                PeerOutput::Close { conn, how } => self.close(conn, how),
                PeerOutput::Send { conn, bytes } => {
                    let sent = self.connections.get(&conn).map(|open| open.send(bytes));
                    if let Some(Err(connection::NotSent)) = sent {
                        let text = "the peer does not read".to_owned();
                        let failure = TransportFailure {
                            kind: FailureKind::Other,
                            text,
                        };
                        self.input(PeerInput::Closed { conn, failure });
                        self.connections.remove(&conn);
                    }
                }
                PeerOutput::Up { conn, negotiated } => {
                    let (transmit, routes) = mpsc::channel(SEGMENTS_WAITING);
                    if let Some(open) = self.connections.get(&conn) {
                        if open.stream_routes(routes).is_err() {
                            tracing::debug!("the writer went away as the session came up");
                        }
                        if negotiated.is_internal() {
                            set_ttl(open, 255);
                        }
                    }
                    let session = Box::new((&*negotiated).into());
                    let peer = self.name.clone();
                    let sender = self.sender.clone();
                    self.for_rib.push_back(RibCommand::Attach {
                        peer,
                        transmit,
                        session: sender,
                    });
                    let peer = self.name.clone();
                    self.for_rib
                        .push_back(RibCommand::Input(RibInput::PeerUp { peer, session }));
                }
                PeerOutput::Down { keep_routes, .. } => {
                    let peer = self.name.clone();
                    self.for_rib
                        .push_back(RibCommand::Detach { peer: peer.clone() });
                    let input = RibInput::PeerDown { peer, keep_routes };
                    self.for_rib.push_back(RibCommand::Input(input));
                }
                PeerOutput::Routes(changes) => {
                    let input = RibInput::Routes {
                        peer: self.name.clone(),
                        changes,
                    };
                    self.for_rib.push_back(RibCommand::Input(input));
                }
                PeerOutput::Resend { family } => {
                    let input = RibInput::Resend {
                        peer: self.name.clone(),
                        family,
                    };
                    self.for_rib.push_back(RibCommand::Input(input));
                }
            }
        }
    }

    fn dial(&mut self, conn: ConnId) {
        let (config, ttl) = (self.peer.config().clone(), self.peer.ttl());
        let answer = self.dialled_sender.clone();
        let attempt = tokio::spawn(async move {
            let result = socket::dial(&config, ttl).await;
            if answer.send((conn, result)).await.is_err() {
                tracing::trace!("connected after the session's end");
            }
        });
        self.dialling = Some((conn, attempt.abort_handle()));
    }

    fn close(&mut self, conn: ConnId, how: CloseHow) {
        if let Some((_, attempt)) = self.dialling.take_if(|(ours, _)| *ours == conn) {
            attempt.abort();
            return;
        }
        let Some(open) = self.connections.remove(&conn) else {
            return;
        };
        match how {
            CloseHow::AfterSending => {
                self.finishing.retain(|writer| !writer.is_finished());
                self.finishing.extend(open.finish());
            }
            CloseHow::Abort => drop(open),
        }
    }

    /// While the RIB is busy nothing is read; a neighbour whose bytes wait is alive all the same.
    fn note_waiting_bytes(&mut self) {
        if self.for_rib.is_empty() || self.events.is_empty() {
            return;
        }
        for conn in self.connections.keys().copied().collect::<Vec<ConnId>>() {
            self.input(PeerInput::Alive { conn });
        }
    }

    /// Brings open connections in line with a configuration that did not end them.
    fn retune(&mut self) {
        let (config, ttl) = (self.peer.config(), self.peer.ttl());
        for open in self.connections.values() {
            set_ttl(open, ttl);
            let Some(password) = &config.password else {
                continue;
            };
            let set = open
                .stream()
                .peer_addr()
                .and_then(|remote| socket::set_md5(open.stream(), remote, Some(password)));
            if let Err(error) = set {
                tracing::warn!(%error, "the new password counts from the next connection on");
            }
        }
    }

    async fn quit(&mut self, reason: StopReason) {
        self.input(PeerInput::Stop(reason));
        self.carry_out();
        for writer in self.finishing.drain(..) {
            if let Err(error) = writer.await {
                tracing::debug!(%error, "a connection ended early");
            }
        }
    }
}

fn set_ttl(open: &Connection, ttl: u8) {
    let set = open
        .stream()
        .peer_addr()
        .and_then(|remote| socket::set_ttl(&SockRef::from(open.stream()), remote.ip(), ttl));
    if let Err(error) = set {
        tracing::debug!(conn = ?open.conn, %error, ttl, "TTL not set");
    }
}
