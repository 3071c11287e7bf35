// SPDX-License-Identifier: Apache-2.0
//! One TCP connection: a task that reads into the peer's inbox and writes from its outbox.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bgp_core::peer::{CloseHow, ConnId, TransportFailure};
use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::failure::{closed, transport_failure};

/// Bytes taken from the kernel at once: enough to decode a full table in few turns, little enough
/// that one peer's turn does not delay another's keepalive.
const READ_SIZE: usize = 64 * 1024;

/// How long a closed connection may linger for the neighbour to read its last message.
const PARTING: Duration = Duration::from_secs(3);

/// What a connection tells the peer.
#[derive(Debug)]
pub(crate) enum ConnEvent {
    /// Bytes came.
    Bytes(ConnId, Vec<u8>),
    /// What [`ConnCommand::Routes`] gave was handed to the kernel, so many bytes of it.
    Written(ConnId, usize),
    /// It is gone.
    Closed(ConnId, TransportFailure),
}

/// What the peer tells a connection. The queue has no limit of its own: the session's messages
/// are few, and what the RIB may have under way is limited where it is asked for.
#[derive(Debug)]
pub(crate) enum ConnCommand {
    /// Send the session's own messages, before routes that wait.
    Send(Vec<u8>),
    /// Send routes.
    Routes(Bytes),
    /// Close.
    Close(CloseHow),
}

/// Runs a connection until one of both ends closes it. Returns when the socket is closed.
pub(crate) async fn run(
    conn: ConnId,
    stream: TcpStream,
    mut commands: mpsc::UnboundedReceiver<ConnCommand>,
    events: mpsc::Sender<ConnEvent>,
) {
    let mut outbox = Outbox::default();
    let mut reading = true;
    let mut closing = false;
    loop {
        if closing && outbox.is_empty() {
            part(stream).await;
            return;
        }
        // Room in the inbox comes first: a peer that is behind with its work is not read from, and
        // TCP tells the other end.
        tokio::select! {
            biased;
            command = commands.recv(), if !closing => match command {
                Some(ConnCommand::Send(bytes)) => outbox.session.push_back(bytes.into()),
                Some(ConnCommand::Routes(bytes)) => outbox.routes.push_back(bytes),
                Some(ConnCommand::Close(CloseHow::AfterSending)) => {
                    outbox.routes.clear();
                    closing = true;
                }
                Some(ConnCommand::Close(CloseHow::Abort)) | None => {
                    // The peer must not take what is lost for a proper end.
                    let _ = socket2::SockRef::from(&stream)
                        .set_linger(Some(Duration::ZERO));
                    return;
                }
            },
            writable = stream.writable(), if !outbox.is_empty() => {
                match writable.and_then(|()| outbox.write(&stream)) {
                    Ok(routes) => {
                        if routes > 0 && events.send(ConnEvent::Written(conn, routes)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => {
                        let _ = events.send(ConnEvent::Closed(conn, transport_failure(&error))).await;
                        return;
                    }
                }
            },
            permit = readable(&stream, &events), if reading && !closing => {
                let Some(permit) = permit else { return };
                let mut buffer = Vec::with_capacity(READ_SIZE);
                match stream.try_read_buf(&mut buffer) {
                    Ok(0) => {
                        reading = false;
                        permit.send(ConnEvent::Closed(conn, closed()));
                    }
                    Ok(_) => permit.send(ConnEvent::Bytes(conn, buffer)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => {
                        reading = false;
                        permit.send(ConnEvent::Closed(conn, transport_failure(&error)));
                    }
                }
            }
        }
    }
}

/// Closes so that the last message arrives: a socket closed with unread bytes in it is reset, and a
/// reset throws away what the neighbour had not read.
async fn part(mut stream: TcpStream) {
    let drain = async {
        stream.shutdown().await?;
        let mut discarded = vec![0; READ_SIZE];
        while stream.read(&mut discarded).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    // Nobody waits for the outcome, and a neighbour that does not close is reset after all.
    let _ = tokio::time::timeout(PARTING, drain).await;
}

/// Waits until there is something to read and room to pass it on.
async fn readable<'a>(
    stream: &TcpStream,
    events: &'a mpsc::Sender<ConnEvent>,
) -> Option<mpsc::Permit<'a, ConnEvent>> {
    // Errors of the socket show at the read that follows.
    let _ = stream.readable().await;
    events.reserve().await.ok()
}

/// What waits to be written, in whole messages.
#[derive(Debug, Default)]
struct Outbox {
    /// The chunk that was begun; it must be finished before another starts.
    begun: Option<(Bytes, Kind)>,
    session: VecDeque<Bytes>,
    routes: VecDeque<Bytes>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Session,
    Routes,
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.begun.is_none() && self.session.is_empty() && self.routes.is_empty()
    }

    /// Writes until the kernel takes no more or nothing is left. Returns how many bytes of routes
    /// went.
    fn write(&mut self, stream: &TcpStream) -> io::Result<usize> {
        let mut routes = 0;
        loop {
            let next = self
                .begun
                .take()
                .or_else(|| self.session.pop_front().map(|bytes| (bytes, Kind::Session)))
                .or_else(|| self.routes.pop_front().map(|bytes| (bytes, Kind::Routes)));
            let Some((mut bytes, kind)) = next else {
                return Ok(routes);
            };
            if bytes.is_empty() {
                continue;
            }
            match stream.try_write(&bytes) {
                Ok(written) => {
                    bytes.advance(written);
                    if kind == Kind::Routes {
                        routes += written;
                    }
                    if !bytes.is_empty() {
                        self.begun = Some((bytes, kind));
                    }
                }
                Err(error) => {
                    self.begun = Some((bytes, kind));
                    // What went before the kernel was full did go.
                    return if error.kind() == io::ErrorKind::WouldBlock {
                        Ok(routes)
                    } else {
                        Err(error)
                    };
                }
            }
        }
    }
}
