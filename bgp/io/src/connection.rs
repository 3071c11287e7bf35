// SPDX-License-Identifier: Apache-2.0
//! One TCP connection: a task that reads into the peer's inbox and writes from its outbox.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bgp_core::peer::{CloseHow, ConnId, TransportFailure};
use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

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
    /// It is gone; everything that came before was told.
    Closed(ConnId, TransportFailure),
}

/// What a connection tells about its writing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WriteEvent {
    /// So many bytes of what [`ConnCommand::Routes`] gave are with the kernel.
    Written(ConnId, usize),
    /// The neighbour has taken nothing for the send hold time, while something waited.
    Stuck(ConnId),
}

/// What the peer tells a connection. The queue has no limit of its own: the session's messages
/// are few, and what the RIB may have under way is limited where it is asked for.
#[derive(Debug)]
pub(crate) enum ConnCommand {
    /// Send the session's own messages, before routes that wait.
    Send(Vec<u8>),
    /// Send routes.
    Routes(Bytes),
    /// Tell when nothing could be written for so long (RFC 9687 §4.3).
    SendHold(Option<Duration>),
    /// Let go: say what was not written, and end without a word.
    LetGo(oneshot::Sender<Vec<u8>>),
    /// Close.
    Close(CloseHow),
}

/// The peer's hold on a connection. Dropped without [`ConnCommand::Close`], it is reset.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Rc<TcpStream>,
    commands: mpsc::UnboundedSender<ConnCommand>,
}

impl Connection {
    /// A connection and the task that runs it, until one of both ends closes it.
    ///
    /// `events` may be full for long, when the RIB is: then nothing is read. Writing goes on, which
    /// is why `written` has a way of its own, bounded by what was given to write.
    pub(crate) fn new(
        conn: ConnId,
        stream: TcpStream,
        events: mpsc::Sender<ConnEvent>,
        written: mpsc::UnboundedSender<WriteEvent>,
    ) -> (Connection, impl Future<Output = ()> + 'static) {
        let (commands, inbox) = mpsc::unbounded_channel();
        let stream = Rc::new(stream);
        let task = run(conn, Rc::clone(&stream), inbox, events, written);
        (Connection { stream, commands }, task)
    }

    /// Tells the task. One that has ended has reported why.
    pub(crate) fn tell(&self, command: ConnCommand) {
        let _ = self.commands.send(command);
    }

    /// The connection itself, for its options.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether the kernel has bytes that were not read.
    pub(crate) fn has_unread_bytes(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        SockRef::from(&*self.stream)
            .peek(&mut byte)
            .is_ok_and(|len| len > 0)
    }
}

/// Sends last words, if the neighbour takes them within a few seconds, and closes.
pub(crate) async fn dismiss(stream: TcpStream, last_words: Vec<u8>) {
    let mut outbox = Outbox::default();
    outbox.session.push_back(last_words.into());
    part(&stream, outbox).await;
}

async fn run(
    conn: ConnId,
    stream: Rc<TcpStream>,
    mut commands: mpsc::UnboundedReceiver<ConnCommand>,
    events: mpsc::Sender<ConnEvent>,
    written: mpsc::UnboundedSender<WriteEvent>,
) {
    let mut outbox = Outbox::default();
    let mut reading = true;
    let mut send_hold: Option<Duration> = None;
    // Since when something waits and nothing is taken.
    let mut waiting_since: Option<Instant> = None;
    // What writing failed with. Reading goes on: the neighbour may have said why before it closed.
    let mut failure = None;
    loop {
        if outbox.is_empty() {
            waiting_since = None;
        } else if waiting_since.is_none() {
            waiting_since = Some(Instant::now());
        }
        let stuck_at = send_hold
            .zip(waiting_since)
            .map(|(hold, since)| since + hold);
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                Some(ConnCommand::SendHold(time)) => send_hold = time,
                Some(ConnCommand::Send(bytes)) if failure.is_none() => {
                    outbox.session.push_back(bytes.into());
                }
                Some(ConnCommand::Routes(bytes)) if failure.is_none() => {
                    outbox.routes.push_back(bytes);
                }
                Some(ConnCommand::Send(_) | ConnCommand::Routes(_)) => {}
                Some(ConnCommand::LetGo(reply)) => {
                    if failure.is_none() && reading {
                        // Who asked is gone: so is the need for an answer.
                        let _ = reply.send(outbox.into_bytes());
                    }
                    return;
                }
                Some(ConnCommand::Close(CloseHow::AfterSending)) => {
                    outbox.routes.clear();
                    part(&stream, outbox).await;
                    return;
                }
                Some(ConnCommand::Close(CloseHow::Abort)) | None => {
                    reset_on_close(&stream);
                    return;
                }
            },
            writable = stream.writable(), if !outbox.is_empty() => {
                match writable.and_then(|()| outbox.write(&stream)) {
                    Ok(progress) => {
                        if progress.all > 0 {
                            waiting_since = None;
                        }
                        if progress.routes > 0 {
                            // A session that has ended counts nothing any more.
                            let _ = written.send(WriteEvent::Written(conn, progress.routes));
                        }
                    }
                    Err(error) => {
                        outbox = Outbox::default();
                        failure = Some(transport_failure(&error));
                    }
                }
            },
            () = until(stuck_at), if stuck_at.is_some() => {
                send_hold = None;
                // A session that has ended has nobody to give up.
                let _ = written.send(WriteEvent::Stuck(conn));
            }
            // A peer that is behind with its work is not read from, and TCP tells the other end.
            permit = readable(&stream, &events), if reading => {
                let Some(permit) = permit else { return };
                let mut buffer = Vec::with_capacity(READ_SIZE);
                let gone = match stream.try_read_buf(&mut buffer) {
                    Ok(0) => closed(),
                    Ok(_) => {
                        permit.send(ConnEvent::Bytes(conn, buffer));
                        continue;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => transport_failure(&error),
                };
                reading = false;
                permit.send(ConnEvent::Closed(conn, failure.take().unwrap_or(gone)));
            }
        }
    }
}

/// Closes so that the last message arrives: a socket closed with unread bytes in it is reset, and a
/// reset throws away what the neighbour had not read.
async fn part(stream: &TcpStream, mut outbox: Outbox) {
    let drain = async {
        while !outbox.is_empty() {
            stream.writable().await?;
            outbox.write(stream)?;
        }
        SockRef::from(stream).shutdown(std::net::Shutdown::Write)?;
        let mut discarded = vec![0; READ_SIZE];
        loop {
            stream.readable().await?;
            match stream.try_read(&mut discarded) {
                Ok(0) => return Ok::<(), io::Error>(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    };
    if tokio::time::timeout(PARTING, drain).await.is_err() {
        // Nothing may stay behind in the kernel for a neighbour that neither reads nor closes.
        reset_on_close(stream);
    }
}

/// Makes the close a reset: the neighbour must not take what is lost for a proper end.
fn reset_on_close(stream: &TcpStream) {
    // Fails for a connection that is gone already, which needs no reset.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
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

/// Bytes the kernel took.
#[derive(Clone, Copy, Default, Debug)]
struct Progress {
    all: usize,
    /// Of these, routes.
    routes: usize,
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

    /// What is left, in the order it would go.
    fn into_bytes(self) -> Vec<u8> {
        let begun = self.begun.into_iter().map(|(bytes, _)| bytes);
        let all = begun.chain(self.session).chain(self.routes);
        all.fold(Vec::new(), |mut left, bytes| {
            left.extend_from_slice(&bytes);
            left
        })
    }

    /// Writes until the kernel takes no more or nothing is left. Returns how many bytes went.
    fn write(&mut self, stream: &TcpStream) -> io::Result<Progress> {
        let mut progress = Progress::default();
        loop {
            let next = self
                .begun
                .take()
                .or_else(|| self.session.pop_front().map(|bytes| (bytes, Kind::Session)))
                .or_else(|| self.routes.pop_front().map(|bytes| (bytes, Kind::Routes)));
            let Some((mut bytes, kind)) = next else {
                return Ok(progress);
            };
            if bytes.is_empty() {
                continue;
            }
            match stream.try_write(&bytes) {
                Ok(written) => {
                    bytes.advance(written);
                    progress.all += written;
                    if kind == Kind::Routes {
                        progress.routes += written;
                    }
                    if !bytes.is_empty() {
                        self.begun = Some((bytes, kind));
                    }
                }
                Err(error) => {
                    self.begun = Some((bytes, kind));
                    // What went before the kernel was full did go.
                    return if error.kind() == io::ErrorKind::WouldBlock {
                        Ok(progress)
                    } else {
                        Err(error)
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bgp_core::peer::Direction;
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;

    use super::*;

    #[test]
    fn who_takes_nothing_is_noticed_after_the_send_hold_time() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (stream, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            let (_neighbour, _) = accepted.unwrap();
            let conn = ConnId {
                direction: Direction::Outgoing,
                serial: 1,
            };
            let (events, _inbox) = mpsc::channel(1);
            let (written, mut progress) = mpsc::unbounded_channel();
            let (connection, task) = Connection::new(conn, stream.unwrap(), events, written);
            tokio::task::spawn_local(task);
            connection.tell(ConnCommand::SendHold(Some(Duration::from_millis(300))));
            // More than the kernel takes for a neighbour that reads nothing.
            connection.tell(ConnCommand::Routes(vec![0; 64 << 20].into()));
            let mut taken = 0;
            loop {
                match progress.recv().await.expect("the connection is there") {
                    WriteEvent::Written(_, bytes) => taken += bytes,
                    WriteEvent::Stuck(stuck) => {
                        assert_eq!(stuck, conn);
                        break;
                    }
                }
            }
            assert!(taken < 64 << 20, "the kernel took everything");
        });
    }
}
