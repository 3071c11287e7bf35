// SPDX-License-Identifier: Apache-2.0
//! The control socket: a thread for each client, and one that sends. They are ordinary threads;
//! the sessions' thread only takes commands from a queue.

use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use bgp_bfd::echo::EchoKey;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::engine::{Command, Engine, loopback_addresses};
use crate::link_socket::LinkSocket;
use crate::protocol::{self, Event, Request, VERSION};
use crate::{private_socket, realtime, socket};

/// Events that may wait for a client: a burst of all sessions changing at once, twice.
const QUEUE: usize = 8192;

/// How long a client may take to read.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// How a server starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// The control socket.
    pub socket: PathBuf,
    /// How long sessions go on without their owner.
    pub linger: Duration,
    /// Whether memory is locked. Off in tests, where many servers share a process limit.
    pub lock_memory: bool,
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    commands: Commands,
    engine: JoinHandle<io::Result<()>>,
    socket: PathBuf,
}

#[derive(Clone, Debug)]
struct Commands {
    queue: Sender<Command>,
    wake: Arc<EventFd>,
}

impl Commands {
    fn send(&self, command: Command) -> bool {
        self.queue.send(command).is_ok() && self.wake.write(1).is_ok()
    }
}

impl Server {
    /// Opens all sockets, in the calling thread's network namespace, and starts.
    ///
    /// # Errors
    /// When another server has the control socket or the UDP ports.
    pub fn start(options: Options) -> io::Result<Server> {
        // The ports first: of two processes that start at once one has them, and the other ends
        // before it puts a socket nobody serves in the place of the first one's.
        let receivers = socket::receivers()?;
        let listener = listen(&options.socket)?;
        let (queue, inbox) = mpsc::channel();
        let wake = Arc::new(EventFd::from_value_and_flags(
            0,
            EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
        )?);
        let commands = Commands {
            queue,
            wake: Arc::clone(&wake),
        };
        let mut warnings = Vec::new();
        if options.lock_memory
            && let Err(error) = realtime::lock_memory()
        {
            warnings.push(format!(
                "memory is not locked ({error}): under memory pressure sessions may flap; give the \
                 process CAP_IPC_LOCK"
            ));
        }
        let seed = seed();
        let echo_key = EchoKey::new(secret()?);
        let (closing, closed) = mpsc::channel();
        std::thread::Builder::new()
            .name("closing".to_owned())
            .spawn(move || closed.into_iter().for_each(drop::<LinkSocket>))?;
        let linger = options.linger;
        let engine = std::thread::Builder::new()
            .name("bfd".to_owned())
            .spawn(move || {
                if let Err(error) = realtime::become_fifo() {
                    warnings.push(format!(
                        "no real-time priority ({error}): under load sessions below 300 ms may \
                         flap; give the process CAP_SYS_NICE"
                    ));
                }
                for warning in &warnings {
                    tracing::warn!("{warning}");
                }
                let engine = Engine::new(receivers, linger, seed, echo_key, closing, warnings);
                engine.run(&inbox, &wake)
            })?;
        let accepting = commands.clone();
        std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || accept(&listener, &accepting))?;
        Ok(Server {
            commands,
            engine,
            socket: options.socket,
        })
    }

    /// Shuts all sessions, so that neighbours do not take the end for a failure, and ends.
    ///
    /// # Errors
    /// What ended the sessions' thread before.
    pub fn end(self) -> io::Result<()> {
        // While the ports are ours the path is: afterwards it may be another process's.
        if let Err(error) = fs::remove_file(&self.socket) {
            tracing::debug!(%error, "the control socket cannot be removed");
        }
        self.commands.send(Command::End);
        self.engine
            .join()
            .map_err(|_| io::Error::other("the sessions' thread panicked"))?
    }

    /// Whether the sessions' thread has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.engine.is_finished()
    }
}

/// Takes the path over from a server that is gone, never from one that answers.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let explain =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if UnixStream::connect(path).is_ok() {
        return Err(explain(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another causeway-bfdd serves it",
        )));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(explain)?;
    }
    // Keys go over it, and it can end sessions.
    private_socket::bind(path).map_err(explain)
}

fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// What nobody can guess.
fn secret() -> io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut secret)?;
    Ok(secret)
}

fn accept(listener: &UnixListener, commands: &Commands) {
    static CLIENTS: AtomicU64 = AtomicU64::new(1);
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a client cannot be taken");
                // Out of descriptors, most likely: they come back.
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let id = CLIENTS.fetch_add(1, Ordering::Relaxed);
        let commands = commands.clone();
        let thread = std::thread::Builder::new().name("client".to_owned());
        let started = thread.spawn(move || {
            if let Err(error) = serve(id, &stream, &commands) {
                tracing::info!(%error, "a client is gone");
            }
            commands.send(Command::Disconnected(id));
        });
        if let Err(error) = started {
            tracing::warn!(%error, "no thread for a client");
        }
    }
}

/// Reads what a client says until it is gone.
fn serve(id: u64, stream: &UnixStream, commands: &Commands) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream.try_clone()?;
    writer.set_write_timeout(Some(WRITE_LIMIT))?;
    let owner = match protocol::read_frame::<Request>(&mut reader)? {
        Some(Request::Hello { version, owner }) if version == VERSION => owner,
        Some(Request::Hello { version, .. }) => {
            let hello = Event::Hello {
                version: VERSION,
                pid: std::process::id(),
                warnings: Vec::new(),
            };
            protocol::write_frame(&mut writer, &hello)?;
            return Err(io::Error::other(format!(
                "it speaks version {version} of the protocol, not {VERSION}"
            )));
        }
        other => {
            return Err(io::Error::other(format!("expected Hello, found {other:?}")));
        }
    };
    let (events, outbox) = mpsc::sync_channel(QUEUE);
    let closing = stream.try_clone()?;
    std::thread::Builder::new()
        .name("client-out".to_owned())
        .spawn(move || {
            if let Err(error) = write(&outbox, writer) {
                tracing::debug!(%error, "a client does not read any more");
            }
            // Ends the reading thread, too. It may be gone already.
            let _ = closing.shutdown(std::net::Shutdown::Both);
        })?;
    commands.send(Command::Connected(id, owner, events));
    while let Some(request) = protocol::read_frame::<Request>(&mut reader)? {
        let command = match request {
            Request::Hello { .. } => return Err(io::Error::other("a second Hello")),
            Request::Want(wanted) => {
                let (key, profile) = wanted.open().map_err(io::Error::other)?;
                // Not on the sessions' thread: to list addresses takes the kernel a while.
                let addresses = match profile.echo.transmit {
                    Some(_) => loopback_addresses().ok(),
                    None => None,
                };
                Command::Want(id, key, Box::new(profile), addresses)
            }
            Request::Release { key } => Command::Release(id, key),
            Request::Retain => Command::Retain(id),
            Request::Report { id: question } => Command::Report(id, question),
        };
        if !commands.send(command) {
            return Err(io::Error::other("the sessions' thread has ended"));
        }
    }
    Ok(())
}

fn write(outbox: &Receiver<Event>, mut to: impl Write) -> io::Result<()> {
    // The engine drops its end when it lets the client go.
    while let Ok(event) = outbox.recv() {
        protocol::write_frame(&mut to, &event)?;
    }
    Ok(())
}
