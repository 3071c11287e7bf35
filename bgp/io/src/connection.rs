// SPDX-License-Identifier: Apache-2.0
//! A TCP connection as two tasks: one reads, one writes.
//!
//! The writer takes messages of the session first and routes of the RIB between them, so that a
//! keepalive waits for one segment at most. The RIB's bytes go from its thread to the writer
//! without passing through the session.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bgp_core::peer::{ConnId, FailureKind, TransportFailure};
use bgp_core::rib::Transmit;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::rib_thread::RibSender;
use crate::socket::failure;

/// Bytes read at a time.
const READ_LEN: usize = 64 * 1024;

/// Reads that may wait for the session; more stay in the kernel, and the neighbour slows down.
const READS_WAITING: usize = 4;

/// Messages of the session that may wait for the writer. A session sends one keepalive in many
/// seconds: when these do not suffice nobody reads at the other end.
const CONTROLS_WAITING: usize = 64;

/// RFC 9687 §3: "the larger of 8 minutes or 2 times the negotiated HoldTime" without progress.
const SEND_HOLD_MIN: Duration = Duration::from_secs(480);

/// How long to wait for the neighbour to close after the last NOTIFICATION, so that unread bytes
/// do not turn our FIN into a reset that overtakes it.
const LINGER: Duration = Duration::from_secs(2);

/// What happens on connections, for the session's task.
#[derive(Debug)]
pub(crate) enum ConnectionEvent {
    Bytes {
        conn: ConnId,
        bytes: Vec<u8>,
    },
    Closed {
        conn: ConnId,
        failure: TransportFailure,
    },
    /// Nothing could be sent for too long.
    Stuck {
        conn: ConnId,
    },
}

/// The receiving end of a session's events.
pub(crate) type Events = mpsc::Receiver<ConnectionEvent>;

/// Makes the channel for a session's events.
pub(crate) fn events() -> (mpsc::Sender<ConnectionEvent>, Events) {
    mpsc::channel(READS_WAITING)
}

/// What the writer is told.
enum Control {
    Send(Vec<u8>),
    /// The session is up: the RIB's bytes come from here.
    Routes(mpsc::Receiver<Transmit>),
    Finish,
}

/// UPDATEs written for the RIB.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) updates: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// A connection. Dropping it aborts it with a TCP reset.
pub(crate) struct Connection {
    pub(crate) conn: ConnId,
    stream: Arc<TcpStream>,
    control: mpsc::Sender<Control>,
    reader: JoinHandle<()>,
    writer: Option<JoinHandle<()>>,
}

impl Connection {
    pub(crate) fn start(
        conn: ConnId,
        stream: TcpStream,
        hold: Duration,
        events: mpsc::Sender<ConnectionEvent>,
        written: Arc<Written>,
        rib: RibSender,
    ) -> Connection {
        let stream = Arc::new(stream);
        let (control, controls) = mpsc::channel(CONTROLS_WAITING);
        let reader = tokio::spawn(read(conn, stream.clone(), events.clone()));
        let writer = Writer {
            conn,
            stream: stream.clone(),
            patience: SEND_HOLD_MIN.max(hold * 2),
            events,
            written,
            rib,
        };
        let writer = Some(tokio::spawn(writer.run(controls)));
        Connection {
            conn,
            stream,
            control,
            reader,
            writer,
        }
    }

    /// The socket, for options.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends messages of the session.
    ///
    /// # Errors
    /// The writer is gone or does not keep up; the caller ends the connection.
    pub(crate) fn send(&self, bytes: Vec<u8>) -> Result<(), NotSent> {
        self.control
            .try_send(Control::Send(bytes))
            .map_err(|_| NotSent)
    }

    /// Sends the RIB's routes from now on.
    pub(crate) fn stream_routes(&self, routes: mpsc::Receiver<Transmit>) -> Result<(), NotSent> {
        self.control
            .try_send(Control::Routes(routes))
            .map_err(|_| NotSent)
    }

    /// Closes after everything was sent, without waiting for it.
    pub(crate) fn finish(mut self) -> Option<JoinHandle<()>> {
        self.reader.abort();
        if self.control.try_send(Control::Finish).is_err() {
            return None;
        }
        self.writer.take()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
        if let Some(writer) = self.writer.take() {
            writer.abort();
            // With the last reference the kernel sends RST instead of FIN.
            if let Err(error) = SockRef::from(&*self.stream).set_linger(Some(Duration::ZERO)) {
                tracing::debug!(%error, "no reset: the connection is closed with FIN");
            }
        }
    }
}

/// A message could not be handed to the writer.
#[derive(Debug)]
pub(crate) struct NotSent;

async fn read(conn: ConnId, stream: Arc<TcpStream>, events: mpsc::Sender<ConnectionEvent>) {
    let mut buffer = vec![0; READ_LEN];
    let failure = loop {
        if let Err(error) = stream.readable().await {
            break failure(error);
        }
        match stream.try_read(&mut buffer) {
            Ok(0) => {
                let text = "closed by the peer".to_owned();
                break TransportFailure {
                    kind: FailureKind::Closed,
                    text,
                };
            }
            Ok(len) => {
                let bytes = buffer[..len].to_vec();
                if events
                    .send(ConnectionEvent::Bytes { conn, bytes })
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => break failure(error),
        }
    };
    // The session may be gone, then nobody minds.
    if events
        .send(ConnectionEvent::Closed { conn, failure })
        .await
        .is_err()
    {
        tracing::trace!(?conn, "closed after its session");
    }
}

struct Writer {
    conn: ConnId,
    stream: Arc<TcpStream>,
    patience: Duration,
    events: mpsc::Sender<ConnectionEvent>,
    written: Arc<Written>,
    rib: RibSender,
}

impl Writer {
    async fn run(self, mut controls: mpsc::Receiver<Control>) {
        let mut routes: Option<mpsc::Receiver<Transmit>> = None;
        loop {
            let next_routes = async {
                match &mut routes {
                    Some(routes) => routes.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                control = controls.recv() => match control {
                    Some(Control::Send(bytes)) => {
                        if self.write(&bytes).await.is_err() {
                            return;
                        }
                    }
                    Some(Control::Routes(receiver)) => routes = Some(receiver),
                    Some(Control::Finish) => {
                        self.finish().await;
                        return;
                    }
                    None => return,
                },
                transmit = next_routes => match transmit {
                    Some(transmit) => {
                        // There is room again.
                        self.rib.wake();
                        if self.write(&transmit.bytes).await.is_err() {
                            return;
                        }
                        self.written.updates.fetch_add(transmit.updates.into(), Ordering::Relaxed);
                        let len = transmit.bytes.len() as u64;
                        self.written.bytes.fetch_add(len, Ordering::Relaxed);
                    }
                    None => routes = None,
                },
            }
        }
    }

    /// Writes everything. The reader reports a broken connection; only silence is reported here.
    async fn write(&self, mut bytes: &[u8]) -> Result<(), ()> {
        while !bytes.is_empty() {
            match timeout(self.patience, self.stream.writable()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(()),
                Err(_elapsed) => {
                    let stuck = ConnectionEvent::Stuck { conn: self.conn };
                    return self.events.send(stuck).await.map_err(|_| ()).and(Err(()));
                }
            }
            match self.stream.try_write(bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(()),
            }
        }
        Ok(())
    }

    async fn finish(&self) {
        let closed = async {
            SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write)?;
            let mut buffer = [0; 4096];
            loop {
                self.stream.readable().await?;
                match self.stream.try_read(&mut buffer) {
                    Ok(0) => return io::Result::Ok(()),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        };
        match timeout(LINGER, closed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::trace!(conn = ?self.conn, %error, "closed by the peer"),
            Err(_) => tracing::trace!(conn = ?self.conn, "the peer does not close"),
        }
    }
}
