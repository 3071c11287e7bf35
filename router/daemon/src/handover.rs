// SPDX-License-Identifier: Apache-2.0
//! A planned restart that BGP neighbours do not notice: `causewayd --take-over` asks the daemon that
//! runs for its sessions, and the daemon that runs ends.
//!
//! Whoever may open the socket ends the daemon and gets its sessions: only the daemon's own user.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use bgp_bfdd::private_socket;
use bgp_io::{HandedSession, handover};
use tokio::net::UnixListener;

/// How long the daemon that runs may take for its next word. It lets go of one session after the
/// other, each in a second at most.
const PATIENCE: Duration = Duration::from_secs(120);

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
