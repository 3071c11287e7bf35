// SPDX-License-Identifier: Apache-2.0
//! The one interface for those who want to know whether a neighbour is reachable.
//!
//! ```no_run
//! # async fn example() {
//! use bgp_bfdd::client::{Client, Options};
//! use bgp_bfdd::protocol::SessionKey;
//! let client = Client::start(Options::default());
//! let key = SessionKey {
//!     peer: "192.0.2.1".parse().unwrap(),
//!     local: None,
//!     interface: Some("eth0".into()),
//!     hops: Default::default(),
//! };
//! let mut session = client.request(key, Default::default());
//! session.changed().await;
//! println!("{:?}", session.view());
//! # }
//! ```
//!
//! The process may come, go and be replaced: the client keeps what is wanted, says it again after
//! every connection, and tells holders when nothing is known ([`View::Unknown`], never "down").

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bgp_bfd::profile::Profile;
use bgp_bfd::session::SessionStatus;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot, watch};

use crate::protocol::{self, Event, Report, Request, SessionKey, VERSION, Wanted};

/// The least pause between attempts to reach the process.
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// The longest pause.
const RETRY_LAST: Duration = Duration::from_secs(2);

/// How long a process that answers may take to say so.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// How a client finds the process.
#[derive(Clone, Debug)]
pub struct Options {
    /// The control socket.
    pub socket: PathBuf,
    /// Whose sessions these are: another run of the same owner adopts them.
    pub owner: String,
    /// The program to start when nobody serves the socket, as where no service manager does.
    /// `None` starts none.
    pub program: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            socket: "/run/causeway/bfd.sock".into(),
            owner: "causewayd".into(),
            program: None,
        }
    }
}

/// Whether the process is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Connection {
    /// It is.
    Connected {
        /// The process.
        pid: u32,
        /// What is not as it should be with it.
        warnings: Vec<String>,
    },
    /// It is not, for this reason.
    Missing(String),
}

/// What is known of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum View {
    /// Nothing: the process is not there, or has not answered yet.
    Unknown,
    /// This.
    Known(Box<SessionStatus>),
}

/// Why there is no report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("causeway-bfdd does not answer")]
pub struct Unavailable;

enum Command {
    Want(u64, SessionKey, Box<Profile>, watch::Sender<View>),
    Change(u64, Box<Profile>),
    Drop(u64),
    Retain,
    Report(oneshot::Sender<Report>),
}

/// The handle. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::UnboundedSender<Command>,
    connection: watch::Receiver<Connection>,
    next: Arc<AtomicU64>,
    detached: Arc<AtomicBool>,
}

/// A session that is wanted for as long as this is held.
#[derive(Debug)]
pub struct Registration {
    id: u64,
    view: watch::Receiver<View>,
    client: Client,
}

impl Client {
    /// Starts a task on the current runtime that reaches the process and keeps reaching it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(options: Options) -> Client {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (say, connection) = watch::channel(Connection::Missing("not reached yet".into()));
        let task = Task {
            options,
            wanted: BTreeMap::new(),
            say,
        };
        tokio::spawn(task.run(inbox));
        Client {
            commands,
            connection,
            next: Arc::default(),
            detached: Arc::default(),
        }
    }

    /// Asks for a session, and keeps asking until the registration is dropped. Registrations of the
    /// same session share it; the profile is the latest one's.
    pub fn request(&self, key: SessionKey, profile: Profile) -> Registration {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (say, view) = watch::channel(View::Unknown);
        self.send(Command::Want(id, key, Box::new(profile), say));
        Registration {
            id,
            view,
            client: self.clone(),
        }
    }

    /// Ends the sessions of this owner's earlier run that were not asked for in this one. To be
    /// called once everything was asked for.
    pub fn retain(&self) {
        self.send(Command::Retain);
    }

    /// From here on dropped registrations leave their sessions running: the owner is about to
    /// restart, and will ask again.
    pub fn detach(&self) {
        self.detached.store(true, Ordering::Release);
    }

    /// Whether the process is there, to be watched.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }

    /// Everything the process knows.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn report(&self) -> Result<Report, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Report(reply));
        match tokio::time::timeout(HELLO_LIMIT, answer).await {
            Ok(Ok(report)) => Ok(report),
            Ok(Err(_)) | Err(_) => Err(Unavailable),
        }
    }

    fn send(&self, command: Command) {
        // The runtime ends, and with it everybody who wants sessions.
        let _ = self.commands.send(command);
    }
}

impl Registration {
    /// What is known now.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Waits until something else is known than when last looked at by this. Never returns after
    /// the client has ended.
    pub async fn changed(&mut self) {
        if self.view.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Wants the session differently, without a flap.
    pub fn change(&self, profile: Profile) {
        self.client
            .send(Command::Change(self.id, Box::new(profile)));
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if !self.client.detached.load(Ordering::Acquire) {
            self.client.send(Command::Drop(self.id));
        }
    }
}

struct Want {
    key: SessionKey,
    profile: Profile,
    view: watch::Sender<View>,
}

struct Task {
    options: Options,
    wanted: BTreeMap<u64, Want>,
    say: watch::Sender<Connection>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        let mut pause = RETRY_FIRST;
        // Whether everything was asked for once, so that what is not asked for is not wanted.
        let mut settled = false;
        loop {
            match self.reach().await {
                Ok(stream) => {
                    pause = RETRY_FIRST;
                    let ended = self.talk(stream, &mut inbox, &mut settled).await;
                    let Err(error) = ended else { return };
                    tracing::warn!(%error, "causeway-bfdd is gone: BFD is not watched until it is back");
                    self.missing(error.to_string());
                }
                Err(error) => {
                    self.missing(error.to_string());
                    if self.spawn() {
                        pause = RETRY_FIRST;
                    }
                }
            }
            // Commands are taken meanwhile: they change what will be wanted.
            let until = tokio::time::Instant::now() + pause;
            pause = (pause * 2).min(RETRY_LAST);
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(until) => break,
                    command = inbox.recv() => match command {
                        Some(command) => {
                            self.apply(command, &mut settled, &mut BTreeMap::new());
                        }
                        None => return,
                    },
                }
            }
        }
    }

    fn missing(&self, why: String) {
        self.say.send_if_modified(|connection| {
            let now = Connection::Missing(why);
            let differs = *connection != now;
            *connection = now;
            differs
        });
        for want in self.wanted.values() {
            want.view.send_if_modified(|view| {
                let differs = *view != View::Unknown;
                *view = View::Unknown;
                differs
            });
        }
    }

    async fn reach(&self) -> std::io::Result<UnixStream> {
        let path = &self.options.socket;
        UnixStream::connect(path).await.map_err(|error| {
            let text = format!("{}: {error}", path.display());
            std::io::Error::new(error.kind(), text)
        })
    }

    /// Starts the program where there is one to start. It gets a session of its own, so that what
    /// ends the daemon does not end it.
    fn spawn(&self) -> bool {
        let Some(program) = &self.options.program else {
            return false;
        };
        // Only for sessions: a node without BFD needs no process.
        if self.wanted.is_empty() {
            return false;
        }
        let mut command = tokio::process::Command::new(program);
        command
            .arg("--socket")
            .arg(&self.options.socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // SAFETY: setsid is async-signal-safe and touches no memory of ours.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                Ok(())
            });
        }
        match command.spawn() {
            Ok(mut child) => {
                tracing::info!(program = %program.display(), "causeway-bfdd started");
                // Waited for, lest it stay as a zombie.
                tokio::spawn(async move {
                    match child.wait().await {
                        Ok(status) => tracing::info!(%status, "causeway-bfdd has ended"),
                        Err(error) => tracing::warn!(%error, "causeway-bfdd cannot be waited for"),
                    }
                });
                true
            }
            Err(error) => {
                tracing::error!(program = %program.display(), %error, "causeway-bfdd cannot be started");
                false
            }
        }
    }

    /// Talks until the connection breaks (`Err`) or nobody holds the client any more (`Ok`).
    async fn talk(
        &mut self,
        stream: UnixStream,
        inbox: &mut mpsc::UnboundedReceiver<Command>,
        settled: &mut bool,
    ) -> std::io::Result<()> {
        let (mut reader, mut writer) = stream.into_split();
        let hello = Request::Hello {
            version: VERSION,
            owner: self.options.owner.clone(),
        };
        say(&mut writer, &hello).await?;
        // Reading is a task of its own: a frame half read must not be given up.
        let (events, mut heard) = mpsc::channel(64);
        let reading = tokio::spawn(async move {
            loop {
                match hear(&mut reader).await {
                    Ok(event) => {
                        if events.send(Ok(event)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        // Nobody hears it when the client has ended.
                        let _ = events.send(Err(error)).await;
                        return;
                    }
                }
            }
        });
        let _guard = AbortOnDrop(reading.abort_handle());
        let first = tokio::time::timeout(HELLO_LIMIT, heard.recv()).await;
        match first.map_err(|_| std::io::Error::other("causeway-bfdd does not answer"))? {
            Some(Ok(Event::Hello {
                version: VERSION,
                pid,
                warnings,
            })) => {
                tracing::info!(pid, "causeway-bfdd reached");
                self.say
                    .send_replace(Connection::Connected { pid, warnings });
            }
            Some(Ok(Event::Hello { version, .. })) => {
                return Err(std::io::Error::other(format!(
                    "causeway-bfdd speaks version {version} of the protocol, not {VERSION}: restart \
                     it when its sessions may flap"
                )));
            }
            Some(Err(error)) => return Err(error),
            Some(Ok(_)) | None => return Err(std::io::Error::other("no greeting")),
        }
        for want in self.wanted.values() {
            let wanted = Wanted::new(want.key.clone(), want.profile.clone());
            say(&mut writer, &Request::Want(Box::new(wanted))).await?;
        }
        if *settled {
            say(&mut writer, &Request::Retain).await?;
        }
        let mut questions = BTreeMap::new();
        loop {
            tokio::select! {
                biased;
                event = heard.recv() => match event {
                    Some(Ok(event)) => self.event(event, &mut questions),
                    Some(Err(error)) => return Err(error),
                    None => return Err(std::io::Error::other("the connection has ended")),
                },
                command = inbox.recv() => {
                    let Some(command) = command else { return Ok(()) };
                    let request = self.apply(command, settled, &mut questions);
                    if let Some(request) = request {
                        say(&mut writer, &request).await?;
                    }
                }
            }
        }
    }

    fn event(&mut self, event: Event, questions: &mut BTreeMap<u64, oneshot::Sender<Report>>) {
        match event {
            Event::Hello { .. } => {}
            Event::State { key, status } => {
                for want in self.wanted.values().filter(|want| want.key == key) {
                    want.view.send_replace(View::Known(status.clone()));
                }
            }
            Event::Report { id, report } => {
                if let Some(question) = questions.remove(&id) {
                    // Whoever asked waits no longer.
                    let _ = question.send(*report);
                }
            }
        }
    }

    /// Notes a command; what is to be said because of it.
    fn apply(
        &mut self,
        command: Command,
        settled: &mut bool,
        questions: &mut BTreeMap<u64, oneshot::Sender<Report>>,
    ) -> Option<Request> {
        let want = |want: &Want| {
            Request::Want(Box::new(Wanted::new(
                want.key.clone(),
                want.profile.clone(),
            )))
        };
        match command {
            Command::Want(id, key, profile, view) => {
                let new = Want {
                    key,
                    profile: *profile,
                    view,
                };
                let request = want(&new);
                self.wanted.insert(id, new);
                Some(request)
            }
            Command::Change(id, profile) => {
                let changed = self.wanted.get_mut(&id)?;
                changed.profile = *profile;
                Some(want(changed))
            }
            Command::Drop(id) => {
                let gone = self.wanted.remove(&id)?;
                match self.wanted.values().find(|want| want.key == gone.key) {
                    Some(other) => Some(want(other)),
                    None => Some(Request::Release { key: gone.key }),
                }
            }
            Command::Retain => {
                *settled = true;
                Some(Request::Retain)
            }
            Command::Report(reply) => {
                questions.retain(|_, question| !question.is_closed());
                let id = questions.last_key_value().map_or(1, |(id, _)| id + 1);
                questions.insert(id, reply);
                Some(Request::Report { id })
            }
        }
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn say(writer: &mut OwnedWriteHalf, request: &Request) -> std::io::Result<()> {
    writer.write_all(&protocol::encode_frame(request)?).await
}

async fn hear(reader: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<Event> {
    let mut length = [0; 4];
    reader.read_exact(&mut length).await?;
    let mut body = vec![0; protocol::frame_length(length)?];
    reader.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}
