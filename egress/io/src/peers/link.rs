// SPDX-License-Identifier: Apache-2.0
//! Connections to other nodes: sockets, and the tasks that read and write them.
//!
//! A task reads, another writes, one piece at a time each; what they have to say goes through one
//! bounded queue to the thread that owns everything else. A task that cannot hand on what it read
//! does not read more.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use egress_sync::channel::Channel;
use egress_sync::name::NodeName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::Event;

/// How long a connection may take to come about.
const DIAL_LIMIT: Duration = Duration::from_secs(2);

/// Octets read at once.
const READ: usize = 64 * 1024;

/// Octets given to the writer at once.
const WRITE: usize = 256 * 1024;

/// What happens to connections.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// There is a new one.
    Opened {
        stream: TcpStream,
        /// Who was dialled; nobody if the other end did.
        dialled: Option<NodeName>,
    },
    /// There is none.
    NotOpened { peer: NodeName, error: io::Error },
    /// Something came.
    Read { id: u64, bytes: Vec<u8> },
    /// The last piece is written.
    Written { id: u64 },
    /// The connection is over.
    Closed { id: u64 },
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) channel: Channel,
    /// Whom this end dialled.
    pub(super) dialled: Option<NodeName>,
    pub(super) remote: SocketAddr,
    writer: mpsc::Sender<Vec<u8>>,
    is_writing: bool,
    reader: AbortHandle,
}

impl Link {
    pub(super) fn start(
        id: u64,
        stream: TcpStream,
        remote: SocketAddr,
        channel: Channel,
        dialled: Option<NodeName>,
        events: &mpsc::Sender<Event>,
    ) -> Link {
        // Small messages decide how long a gap is.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%remote, %error, "TCP_NODELAY");
        }
        let (from, to) = stream.into_split();
        let (writer, pieces) = mpsc::channel(1);
        tokio::spawn(write(id, to, pieces, events.clone()));
        let reader = tokio::spawn(read(id, from, events.clone())).abort_handle();
        Link {
            channel,
            dialled,
            remote,
            writer,
            is_writing: false,
            reader,
        }
    }

    /// Hands what waits to the writer, if it is idle.
    pub(super) fn flush(&mut self) {
        if self.is_writing {
            return;
        }
        let mut piece = Vec::new();
        while piece.len() < WRITE && !self.channel.pending().is_empty() {
            let pending = self.channel.pending();
            piece.extend_from_slice(pending);
            let count = pending.len();
            self.channel.handle_written(count);
        }
        // The writer has ended only with the connection.
        self.is_writing = !piece.is_empty() && self.writer.try_send(piece).is_ok();
    }

    pub(super) fn handle_written(&mut self) {
        self.is_writing = false;
    }
}

impl Drop for Link {
    /// The writer ends by itself when it has written what it has.
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(id: u64, mut stream: OwnedReadHalf, events: mpsc::Sender<Event>) {
    let mut buffer = vec![0; READ];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let bytes = buffer[..count].to_vec();
        if events
            .send(LinkEvent::Read { id, bytes }.into())
            .await
            .is_err()
        {
            return;
        }
    }
    // Nobody listens: then nobody needs to know.
    let _ = events.send(LinkEvent::Closed { id }.into()).await;
}

async fn write(
    id: u64,
    mut stream: OwnedWriteHalf,
    mut pieces: mpsc::Receiver<Vec<u8>>,
    events: mpsc::Sender<Event>,
) {
    while let Some(piece) = pieces.recv().await {
        let event = match stream.write_all(&piece).await {
            Ok(()) => LinkEvent::Written { id },
            Err(_) => LinkEvent::Closed { id },
        };
        if events.send(event.into()).await.is_err() {
            return;
        }
    }
}

/// Connects to a peer, from an address of this node that the peer knows.
pub(super) fn dial(peer: NodeName, from: SocketAddr, to: SocketAddr, events: mpsc::Sender<Event>) {
    tokio::spawn(async move {
        let connecting = tokio::time::timeout(DIAL_LIMIT, connect(from, to));
        let event = match connecting.await {
            Ok(Ok(stream)) => LinkEvent::Opened {
                stream,
                dialled: Some(peer),
            },
            Ok(Err(error)) => LinkEvent::NotOpened { peer, error },
            Err(_) => LinkEvent::NotOpened {
                peer,
                error: io::ErrorKind::TimedOut.into(),
            },
        };
        let _ = events.send(event.into()).await;
    });
}

async fn connect(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(from)?;
    socket.connect(to).await
}

/// Listens on an address, until the handle is aborted.
///
/// # Errors
/// When the address cannot be listened on.
pub(super) fn listen(address: SocketAddr, events: mpsc::Sender<Event>) -> io::Result<AbortHandle> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(64)?;
    Ok(tokio::spawn(accept(listener, events)).abort_handle())
}

async fn accept(listener: TcpListener, events: mpsc::Sender<Event>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let dialled = None;
                let event = LinkEvent::Opened { stream, dialled };
                if events.send(event.into()).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "connections of other gateways cannot be taken");
                // Out of file descriptors, most likely: to ask again at once does not help.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
