// SPDX-License-Identifier: Apache-2.0
//! A planned restart that BGP neighbours do not notice: `causewayd --take-over` asks the daemon that
//! runs for its sessions, and the daemon that runs ends. On SIGUSR2 a daemon starts its successor
//! itself.
//!
//! Whoever may open the socket ends the daemon and gets its sessions: only the daemon's own user.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use bgp_bfdd::private_socket;
use bgp_io::{HandedSession, handover};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use tokio::net::UnixListener;

/// How long the daemon that runs may take for its next word. It lets go of one session after the
/// other, each in a second at most.
const PATIENCE: Duration = Duration::from_secs(120);

/// The flag of a daemon that takes sessions over.
const TAKE_OVER: &str = "--take-over";

/// The socket's name, beside that of the API.
const NAME: &str = "handover.sock";

/// Where the sessions are asked for.
fn path(api_socket: &Path) -> PathBuf {
    api_socket.with_file_name(NAME)
}

/// Takes the sessions of the daemon that runs, if one does, and makes it end.
///
/// # Errors
/// When there is one and it cannot hand over.
pub fn take_over(api_socket: &Path) -> anyhow::Result<Vec<HandedSession>> {
    let path = path(api_socket);
    let mut socket = match UnixStream::connect(&path) {
        Ok(socket) => socket,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            tracing::info!("no daemon runs: there are no sessions to take over");
            return Ok(Vec::new());
        }
        Err(error) => {
            return Err(error).with_context(|| format!("asking at {}", path.display()));
        }
    };
    socket.set_read_timeout(Some(PATIENCE))?;
    let sessions = handover::receive(&mut socket)
        .with_context(|| format!("taking sessions over from {}", path.display()))?;
    tracing::info!(sessions = sessions.len(), "took sessions over");
    Ok(sessions)
}

/// Waits for the next daemon to ask.
pub struct Heir {
    listener: UnixListener,
}

impl Heir {
    /// Opens the socket. A socket file that is there is of a daemon that is gone: this one has the
    /// node's state to itself.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn expect(api_socket: &Path) -> io::Result<Heir> {
        let path = path(api_socket);
        let listener = private_socket::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Heir {
            listener: UnixListener::from_std(listener)?,
        })
    }

    /// The connection of the next daemon.
    pub async fn asked(&self) -> UnixStream {
        loop {
            let accepted = self.listener.accept().await;
            let socket = accepted.and_then(|(socket, _)| {
                let socket = socket.into_std()?;
                socket.set_nonblocking(false)?;
                Ok(socket)
            });
            match socket {
                Ok(socket) => return socket,
                Err(error) => {
                    tracing::warn!(%error, "cannot hear who asks for the sessions");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Starts the next daemon as this one was started, with the program that lies there now: it asks for
/// the sessions once its settings are read. Where it does not come so far this one goes on.
pub fn start_successor() {
    let mut arguments = std::env::args_os();
    let Some(program) = arguments.next() else {
        tracing::error!("no successor: this daemon was started without a name");
        return;
    };
    let arguments: Vec<OsString> = arguments.filter(|one| one != TAKE_OVER).collect();
    let mut command = Command::new(&program);
    command.args(&arguments).arg(TAKE_OVER).stdin(Stdio::null());
    // The service manager's watch is on whoever is the daemon, not on this process alone.
    command.env_remove("WATCHDOG_PID");
    match command.spawn() {
        Ok(mut child) => {
            tracing::info!(pid = child.id(), program = %program.display(), "starting a successor");
            // Only if it ends before this process does.
            std::thread::spawn(move || match child.wait() {
                Ok(status) => tracing::error!(%status, "the successor has ended; going on"),
                Err(error) => tracing::error!(%error, "cannot hear of the successor's end"),
            });
        }
        Err(error) => {
            tracing::error!(%error, program = %program.display(), "no successor; going on");
        }
    }
}

/// The process at the other end of a socket.
pub fn pid_of(socket: &UnixStream) -> Option<u32> {
    let credentials = getsockopt(socket, PeerCredentials).ok()?;
    u32::try_from(credentials.pid()).ok()
}

/// How long the next daemon may take to read its sessions. This one ends all the same.
const READING: Duration = Duration::from_secs(30);

/// Passes sessions on. Those that do not arrive end with this process; their neighbours keep the
/// routes where graceful restart was agreed.
pub async fn pass_on(mut socket: UnixStream, sessions: Vec<HandedSession>) {
    let count = sessions.len();
    let sent =
        tokio::task::spawn_blocking(move || handover::send(&mut socket, &sessions, READING)).await;
    match sent {
        Ok(Ok(())) => tracing::info!(sessions = count, "handed sessions over"),
        Ok(Err(error)) => tracing::error!(%error, "cannot hand sessions over"),
        Err(error) => tracing::error!(%error, "handing sessions over failed"),
    }
}
