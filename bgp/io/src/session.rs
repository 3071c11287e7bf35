// SPDX-License-Identifier: Apache-2.0
//! The task of a neighbour: drives its [`Peer`] with connections, time and the RIB.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bgp_core::config::{InstanceName, PeerConfig, PeerName};
use bgp_core::fsm::State;
use bgp_core::peer::{
    ConnId, Direction, KeepRoutes, LocalSpeaker, Peer, PeerInput, PeerOutput, PeerSnapshot,
    StopReason,
};
use bgp_core::record::RecordedEvent;
use bgp_core::rib::{Inheritance, RibInput, SessionInfo, Transmit};
use router_types::{Family, LinkIndex};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};

use crate::alarm::Alarm;
use crate::bfd::{Bfd, Verdict};
use crate::connection::{ConnCommand, Connection, Report};
use crate::failure::transport_failure;
use crate::handover::{HandedSession, HandoverRecord};
use crate::interface::session_addresses;
use crate::lines::{Line, Lines};
use crate::recorder::Recorder;
use crate::rib_thread::{RibMessage, RibSender};
use crate::socket;

/// Connections that are being closed. Dropped, they close at once.
pub(crate) type Partings = JoinSet<()>;

/// A neighbour of a listen range is gone: no connection, and its routes are kept no longer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Departure {
    pub(crate) instance: InstanceName,
    pub(crate) peer: PeerName,
}

/// What the instance tells a neighbour's task.
#[derive(Debug)]
pub(crate) enum PeerCommand {
    /// Begin.
    Start,
    /// End the session for a reason.
    Stop(StopReason),
    /// Another configuration.
    Configure(Box<PeerConfig>),
    /// The neighbour called.
    Called(TcpStream, SocketAddr),
    /// A link is down.
    LinkDown(LinkIndex, String),
    /// Ask the neighbour for a family's routes again.
    AskForRoutes(Family),
    /// Whole messages with routes.
    Transmit {
        /// The session they are for: the count at its [`RibMessage::Up`].
        epoch: u64,
        /// The messages.
        transmit: Transmit,
    },
    /// The session brought more routes than it may.
    LimitExceeded {
        /// The session: the count at its [`RibMessage::Up`].
        epoch: u64,
        /// The family.
        family: Family,
        /// The limit.
        limit: u32,
        /// After how many seconds it may come back; 0 waits for an operator.
        restart_s: u32,
    },
    /// How are you?
    Snapshot(oneshot::Sender<PeerSnapshot>),
    /// Go on with a session of the process before. Comes before [`PeerCommand::Start`].
    Adopt(Box<HandedSession>),
    /// Pass the session that is up on, with what the tables leave to the next process, and stop;
    /// without one answer none.
    HandOver(Box<Inheritance>, oneshot::Sender<Option<HandedSession>>),
    /// Tell the neighbour and the RIB, and end. Returns the connections on which goodbye is still
    /// being said, each for some seconds at most.
    End(StopReason, oneshot::Sender<Partings>),
}

/// A neighbour's task and all it holds.
pub(crate) struct Session {
    instance: InstanceName,
    name: PeerName,
    peer: Peer,
    /// What the RIB takes next, in order; while something waits here nothing is read.
    for_rib: VecDeque<RibMessage>,
    rib: RibSender,
    /// Where the RIB sends what this neighbour is to be sent.
    inbox: mpsc::UnboundedSender<PeerCommand>,
    recorder: Recorder,
    bfd: Bfd,
    /// Whether the session is to start once BFD permits.
    held: bool,
    /// Sessions so far. Bytes of one must not get into the next.
    epoch: u64,
    /// What the tables of the process before left, until its session is up here.
    left: Option<Box<Inheritance>>,
    /// How routes are sent, while the session is up.
    line: Option<Rc<Line>>,
    /// Those of all neighbours.
    lines: Lines,
    dials: BTreeMap<ConnId, AbortHandle>,
    connections: BTreeMap<ConnId, Connection>,
    /// The tasks of connections, also of those that are being closed.
    tasks: JoinSet<()>,
    established: Option<ConnId>,
    calls: u64,
    /// Where to say that the neighbour is gone, for one of a listen range.
    departures: Option<mpsc::UnboundedSender<Departure>>,
    /// When it counts as gone, while there is no connection.
    departs_at: Option<Instant>,
    /// How long its routes are kept after the last session.
    kept_for: Duration,
    reports: mpsc::UnboundedReceiver<Report>,
    reports_of_others: mpsc::UnboundedSender<Report>,
}

impl Session {
    #[expect(
        clippy::too_many_arguments,
        reason = "called once, by the instance, with what it has"
    )]
    pub(crate) fn new(
        instance: InstanceName,
        name: PeerName,
        config: PeerConfig,
        local: LocalSpeaker,
        seed: u64,
        rib: RibSender,
        lines: Lines,
        inbox: mpsc::UnboundedSender<PeerCommand>,
        recorder: Recorder,
        bfd: Bfd,
        departures: Option<mpsc::UnboundedSender<Departure>>,
    ) -> Session {
        let (reports_of_others, reports) = mpsc::unbounded_channel();
        let now = Instant::now();
        recorder.note(&instance, now, || RecordedEvent::PeerBegins {
            peer: name.clone(),
            config: Box::new(config.clone()),
            local: local.clone(),
            seed,
        });
        Session {
            peer: Peer::new(name.clone(), config, local, seed, now),
            instance,
            name,
            recorder,
            bfd,
            held: false,
            for_rib: VecDeque::new(),
            rib,
            inbox,
            epoch: 0,
            left: None,
            line: None,
            lines,
            dials: BTreeMap::new(),
            connections: BTreeMap::new(),
            tasks: JoinSet::new(),
            established: None,
            calls: 0,
            departures,
            departs_at: None,
            kept_for: Duration::ZERO,
            reports,
            reports_of_others,
        }
    }

    /// Runs until told to end, or until the instance is gone.
    pub(crate) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<PeerCommand>) {
        let rib = self.rib.clone();
        let (mut alarm, mut patience) = (Alarm::default(), Alarm::default());
        loop {
            let timer = self.peer.poll_timeout().map(|(at, _)| at);
            if timer.is_some_and(|at| at <= Instant::now()) {
                self.timeout();
                continue;
            }
            let deadline = timer.into_iter().chain(self.departs_at).min();
            let due = self.connections.values().filter_map(Connection::due).min();
            let may_read = self.for_rib.is_empty();
            tokio::select! {
                biased;
                // First, as this is mostly why the task is woken; all else gets a look in between.
                // A peer that is behind with its work is not read from, and TCP tells the other end.
                conn = readable(&self.connections), if may_read => self.read(conn),
                () = alarm.until(deadline) => {
                    self.depart();
                    self.timeout();
                }
                () = patience.until(due) => self.hasten(),
                command = inbox.recv() => match command {
                    Some(PeerCommand::End(reason, done)) => {
                        self.end(reason).await;
                        if let Err(mut partings) = done.send(std::mem::take(&mut self.tasks)) {
                            // The instance waits no longer.
                            partings.detach_all();
                        }
                        return;
                    }
                    Some(PeerCommand::HandOver(left, reply)) => {
                        // Who asked is gone: the connection ends with this task.
                        let _ = reply.send(self.hand_over(*left).await);
                    }
                    Some(command) => self.command(command),
                    None => return,
                },
                () = self.bfd.changed() => self.heed_bfd(),
                permit = rib.reserve(), if !may_read => match permit {
                    Some(permit) => {
                        if let Some(message) = self.for_rib.pop_front() {
                            permit.send(message);
                        }
                    }
                    // The RIB's thread has ended, and the speaker with it.
                    None => return,
                },
                Some(report) = self.reports.recv() => match report {
                    Report::Dialled(conn, result) => self.dialled(conn, result),
                    Report::Written(conn, bytes) => self.written(conn, bytes),
                    Report::Stuck(conn) => self.stuck(conn),
                },
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(peer = %self.name, %error, "a connection's task failed");
                    }
                }
            }
        }
    }

    fn command(&mut self, command: PeerCommand) {
        match command {
            PeerCommand::Start => self.start(),
            PeerCommand::Stop(reason) => self.handle(PeerInput::Stop(reason)),
            PeerCommand::Configure(config) => self.configure(config),
            PeerCommand::Called(stream, remote) => self.called(stream, remote),
            PeerCommand::LinkDown(link, interface) => {
                self.handle(PeerInput::LinkDown { link, interface });
            }
            PeerCommand::AskForRoutes(family) => self.handle(PeerInput::AskForRoutes { family }),
            PeerCommand::Transmit { epoch, transmit } => {
                // What is for a session that is down is nothing.
                if let Some(line) = self.line.as_ref().filter(|_| epoch == self.epoch) {
                    line.send(transmit);
                }
            }
            PeerCommand::Snapshot(reply) => {
                self.count_sent();
                // Nobody waits any more: nothing is lost.
                let _ = reply.send(self.peer.snapshot(Instant::now()));
            }
            PeerCommand::LimitExceeded {
                epoch,
                family,
                limit,
                restart_s,
            } => {
                // The next session must not pay for the one before.
                if self.established.is_some() && epoch == self.epoch {
                    self.handle(PeerInput::Stop(StopReason::PrefixLimit {
                        limit,
                        family,
                        restart_s,
                    }));
                }
            }
            PeerCommand::Adopt(session) => self.adopt(*session),
            PeerCommand::HandOver(..) | PeerCommand::End(..) => {
                unreachable!("taken care of where commands are received")
            }
        }
    }

    fn start(&mut self) {
        self.bfd.configure(self.peer.config(), self.peer.ttl());
        self.held = !self.bfd.permits_start();
        if self.held {
            self.handle(PeerInput::Stop(self.bfd.waiting()));
        } else {
            self.handle(PeerInput::Start);
        }
    }

    /// Something is new about the BFD session.
    fn heed_bfd(&mut self) {
        match self.bfd.verdict() {
            Verdict::Fine => {}
            Verdict::MayStart => {
                if std::mem::take(&mut self.held) {
                    self.handle(PeerInput::Start);
                }
            }
            Verdict::Ends(reason) => {
                self.held = matches!(reason, StopReason::BfdDown { waits: true, .. });
                if self.established.is_some() || self.held {
                    self.handle(PeerInput::Stop(reason));
                } else if reason.is_final() {
                    // RFC 5882 §4.3.2.2: forwarding did not survive the neighbour's restart, so
                    // its routes are not kept any longer.
                    self.tell_rib(RibInput::PeerDown {
                        peer: self.name.clone(),
                        keep_routes: None,
                    });
                }
            }
        }
    }

    fn called(&mut self, stream: TcpStream, remote: SocketAddr) {
        let prepared = socket::adopt(&stream, self.peer.config(), self.peer.ttl())
            .and_then(|()| stream.local_addr());
        match prepared {
            Ok(local) => {
                self.calls += 1;
                let conn = ConnId {
                    direction: Direction::Incoming,
                    serial: self.calls,
                };
                self.connect(conn, stream);
                let addresses = session_addresses(local, remote);
                self.handle(PeerInput::Called { conn, addresses });
            }
            Err(error) => {
                tracing::debug!(peer = %self.name, %error, "a call ended before it was taken");
            }
        }
    }

    fn adopt(&mut self, session: HandedSession) {
        let HandedSession { stream, record } = session;
        let prepared = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream))
            .and_then(|stream| Ok((stream.local_addr()?, stream.peer_addr()?, stream)));
        let (local, remote, stream) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                tracing::warn!(peer = %self.name, %error, "a session was handed over dead");
                return;
            }
        };
        self.calls += 1;
        let conn = ConnId {
            direction: Direction::Incoming,
            serial: self.calls,
        };
        self.connect(conn, stream);
        if let Some(connection) = self.connections.get(&conn) {
            // Before anything else: it may begin in the middle of a message.
            connection.send(record.unsent);
        }
        self.left = Some(Box::new(record.left));
        self.handle(PeerInput::Adopt {
            conn,
            addresses: session_addresses(local, remote),
            handover: Box::new(record.session),
        });
        // What comes up later is another session.
        match self.left.take() {
            None => {
                tracing::info!(peer = %self.name, "went on with the session of the process before")
            }
            Some(_) => tracing::warn!(
                peer = %self.name,
                "the session of the process before is not what is configured: it was ended"
            ),
        }
    }

    /// Lets go of the session that is up, with everything that was received or is to be written.
    async fn hand_over(&mut self, left: Inheritance) -> Option<HandedSession> {
        let established = self.established?;
        self.hang_up();
        let connection = self.connections.get(&established)?;
        let stream = connection.stream().as_fd().try_clone_to_owned().ok()?;
        let (reply, unsent) = oneshot::channel();
        connection.tell(ConnCommand::LetGo(reply));
        let unsent = unsent.await.ok()?;
        let (conn, session) = self.peer.hand_over(Instant::now())?;
        while let Some(output) = self.peer.poll_output() {
            self.output(output);
        }
        self.connections.remove(&conn);
        self.established = None;
        Some(HandedSession {
            stream: stream.into(),
            record: HandoverRecord {
                instance: self.instance.clone(),
                peer: self.name.clone(),
                range: None,
                session,
                left,
                unsent,
            },
        })
    }

    fn dialled(&mut self, conn: ConnId, result: std::io::Result<TcpStream>) {
        if self.dials.remove(&conn).is_none() {
            return; // given up meanwhile
        }
        let connected = result.and_then(|stream| {
            let addresses = session_addresses(stream.local_addr()?, stream.peer_addr()?);
            Ok((stream, addresses))
        });
        match connected {
            Ok((stream, addresses)) => {
                self.connect(conn, stream);
                self.handle(PeerInput::Connected { conn, addresses });
            }
            Err(error) => {
                self.handle(PeerInput::ConnectFailed {
                    conn,
                    failure: transport_failure(&error),
                });
            }
        }
    }

    fn connect(&mut self, conn: ConnId, stream: TcpStream) {
        let (connection, task) = Connection::new(conn, stream, self.reports_of_others.clone());
        self.connections.insert(conn, connection);
        self.tasks.spawn_local(task);
    }

    /// Reads what came.
    fn read(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let now = Instant::now();
        match connection.read(now) {
            Ok(Some(bytes)) => self.handle_at(PeerInput::Bytes { conn, bytes }, now),
            Ok(None) => {}
            Err(failure) => {
                self.connections.remove(&conn);
                self.handle(PeerInput::Closed { conn, failure });
            }
        }
    }

    /// What waited for more has waited long enough.
    fn hasten(&mut self) {
        let now = Instant::now();
        for connection in self.connections.values_mut() {
            if connection.due().is_some_and(|due| due <= now) {
                connection.hasten(now);
            }
        }
    }

    /// The kernel took bytes of routes that waited.
    fn written(&mut self, conn: ConnId, bytes: usize) {
        if self.established == Some(conn)
            && let Some(line) = &self.line
        {
            line.written(bytes);
        }
    }

    fn stuck(&mut self, conn: ConnId) {
        if self.established == Some(conn) {
            self.handle(PeerInput::Stop(StopReason::SendHoldTimer));
        }
    }

    /// Has the connections be as the configuration says by now.
    fn configure(&mut self, config: Box<PeerConfig>) {
        self.handle(PeerInput::Configure(config));
        self.bfd.configure(self.peer.config(), self.peer.ttl());
        if self.held && self.bfd.permits_start() {
            self.held = false;
            self.handle(PeerInput::Start);
        }
        let (config, ttl) = (self.peer.config(), self.peer.ttl());
        for connection in self.connections.values() {
            if let Err(error) = socket::renew(connection.stream(), config, ttl) {
                tracing::warn!(peer = %self.name, %error, "a connection keeps its old settings");
            }
        }
        self.tell_send_hold();
    }

    /// Tells the session's connection how long nothing may leave.
    fn tell_send_hold(&self) {
        if let (Some(negotiated), Some(connection)) = (
            self.peer.negotiated(),
            self.established
                .and_then(|conn| self.connections.get(&conn)),
        ) {
            let time = self.peer.config().send_hold.under(negotiated.hold_s);
            connection.tell(ConnCommand::SendHold(time));
        }
    }

    /// No more routes are sent.
    fn hang_up(&mut self) {
        self.count_sent();
        if let Some(line) = self.line.take() {
            self.lines.close(&self.name, &line);
        }
    }

    /// Counts the routes that were sent.
    fn count_sent(&mut self) {
        if let Some(line) = &self.line {
            let sent = line.take_sent();
            self.peer
                .count_routes_sent(sent.updates, sent.refreshes, sent.bytes);
        }
    }

    /// A timer has come. A neighbour whose bytes wait in the kernel is alive, however long this end
    /// has not looked at them.
    fn timeout(&mut self) {
        let alive: Vec<ConnId> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.has_unread_bytes())
            .map(|(conn, _)| *conn)
            .collect();
        for conn in alive {
            self.handle(PeerInput::Alive { conn });
        }
        self.handle(PeerInput::Timeout);
    }

    fn handle(&mut self, input: PeerInput) {
        self.handle_at(input, Instant::now());
    }

    fn handle_at(&mut self, input: PeerInput, now: Instant) {
        self.recorder
            .note(&self.instance, now, || RecordedEvent::Peer {
                peer: self.name.clone(),
                input: input.clone(),
            });
        self.peer.handle(input, now);
        while let Some(output) = self.peer.poll_output() {
            self.output(output);
        }
        if self.departures.is_some() {
            // One that pauses after an error stays, lest it escape the pause by calling again.
            let alone = self.connections.is_empty() && self.peer.state() == State::Active;
            self.departs_at =
                (alone && self.calls > 0).then(|| self.departs_at.unwrap_or(now + self.kept_for));
        }
    }

    /// Says that the neighbour is gone, when it is time.
    fn depart(&mut self) {
        if self.departs_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        if let Some(departures) = self.departures.take() {
            // A speaker that has ended has nobody to forget.
            let _ = departures.send(Departure {
                instance: self.instance.clone(),
                peer: self.name.clone(),
            });
        }
        self.departs_at = None;
    }

    fn output(&mut self, output: PeerOutput) {
        match output {
            PeerOutput::Connect { conn } => self.dial(conn),
            PeerOutput::Close { conn, how } => {
                if let Some(dial) = self.dials.remove(&conn) {
                    dial.abort();
                }
                if let Some(connection) = self.connections.remove(&conn) {
                    connection.tell(ConnCommand::Close(how));
                }
            }
            PeerOutput::Send { conn, bytes } => {
                if let Some(connection) = self.connections.get(&conn) {
                    connection.send(bytes);
                }
            }
            PeerOutput::Up { conn, negotiated } => {
                self.established = Some(conn);
                // The device is known by now, if it was not before.
                self.bfd.configure(self.peer.config(), self.peer.ttl());
                self.tell_send_hold();
                self.epoch += 1;
                let credit = self.rib.credit();
                if let Some(connection) = self.connections.get(&conn) {
                    let writer = connection.writer().clone();
                    let line = Rc::new(Line::new(self.epoch, credit.clone(), writer));
                    self.line = Some(line.clone());
                    self.lines.open(self.name.clone(), line);
                }
                self.for_rib.push_back(RibMessage::Up {
                    peer: self.name.clone(),
                    session: Box::new(SessionInfo::from(&*negotiated)),
                    epoch: self.epoch,
                    credit,
                    inbox: self.inbox.clone(),
                    left: self.left.take(),
                });
            }
            PeerOutput::Down {
                reason: _,
                keep_routes,
            } => {
                self.established = None;
                self.hang_up();
                self.kept_for = keep_routes
                    .as_ref()
                    .map_or(Duration::ZERO, KeepRoutes::longest);
                self.tell_rib(RibInput::PeerDown {
                    peer: self.name.clone(),
                    keep_routes,
                });
            }
            PeerOutput::Routes(changes) => {
                // Behind nothing that waits here or there.
                let left = if self.for_rib.is_empty() {
                    self.rib.at_once(&self.name, changes, &self.lines).err()
                } else {
                    Some(changes)
                };
                if let Some(changes) = left {
                    self.tell_rib(RibInput::Routes {
                        peer: self.name.clone(),
                        changes,
                    });
                }
            }
            PeerOutput::Resend { family } => {
                self.tell_rib(RibInput::Resend {
                    peer: self.name.clone(),
                    family,
                });
            }
            PeerOutput::RefreshBegins { family } => {
                self.tell_rib(RibInput::RefreshBegins {
                    peer: self.name.clone(),
                    family,
                });
            }
            PeerOutput::RefreshEnds { family } => {
                self.tell_rib(RibInput::RefreshEnds {
                    peer: self.name.clone(),
                    family,
                });
            }
        }
    }

    fn tell_rib(&mut self, input: RibInput) {
        self.for_rib.push_back(RibMessage::Input(input));
    }

    fn dial(&mut self, conn: ConnId) {
        let config = self.peer.config().clone();
        let ttl = self.peer.ttl();
        let report = self.reports_of_others.clone();
        let task = tokio::task::spawn_local(async move {
            let result = socket::dial(&config, ttl).await;
            // The neighbour's task is gone: so is the need for the connection.
            let _ = report.send(Report::Dialled(conn, result));
        });
        self.dials.insert(conn, task.abort_handle());
    }

    /// Says goodbye and tells the RIB.
    async fn end(&mut self, reason: StopReason) {
        self.handle(PeerInput::Stop(reason));
        self.connections.clear();
        for message in std::mem::take(&mut self.for_rib) {
            match self.rib.reserve().await {
                Some(permit) => permit.send(message),
                None => return,
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.hang_up();
    }
}

/// Waits until there is something to read. If there is at once, it is the others' turn before: they
/// have keepalives to send.
async fn readable(connections: &BTreeMap<ConnId, Connection>) -> ConnId {
    let ready = |context: &mut Context<'_>| {
        let mut all = connections.iter();
        let found = all.find(|(_, connection)| connection.poll_readable(context).is_ready());
        found.map(|(conn, _)| *conn)
    };
    let at_once = std::future::poll_fn(|context| Poll::Ready(ready(context))).await;
    if at_once.is_some() {
        tokio::task::yield_now().await;
    }
    std::future::poll_fn(|context| ready(context).map_or(Poll::Pending, Poll::Ready)).await
}
