// SPDX-License-Identifier: Apache-2.0
//! One TCP connection. The peer's task reads it and writes what the kernel takes; what it did not
//! take is written by a task beside, which also says goodbye.

mod outbox;

use std::cell::RefCell;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bgp_core::peer::{CloseHow, ConnId, TransportFailure};
use bytes::Bytes;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};

use self::outbox::Outbox;
use crate::alarm::Alarm;
use crate::failure::{closed, transport_failure};

/// Bytes taken from the kernel at once: enough to decode a full table in few turns, little enough
/// that one peer's turn does not delay another's keepalive.
const READ_SIZE: usize = 64 * 1024;

/// How long a closed connection may linger for the neighbour to read its last message.
const PARTING: Duration = Duration::from_secs(3);

/// What the peer is told beside bytes.
#[derive(Debug)]
pub(crate) enum Report {
    /// A call was answered, or failed.
    Dialled(ConnId, io::Result<TcpStream>),
    /// So many bytes of the routes that waited are with the kernel.
    Written(ConnId, usize),
    /// The neighbour has taken nothing for the send hold time, while something waited.
    Stuck(ConnId),
}

/// What the peer tells a connection's task.
#[derive(Debug)]
pub(crate) enum ConnCommand {
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
    writer: Writer,
    commands: mpsc::UnboundedSender<ConnCommand>,
}

/// Writes to a connection.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    stream: Rc<TcpStream>,
    /// Has no limit of its own: the session's messages are few, and what the RIB may have under way
    /// is limited where it is asked for.
    outbox: Rc<RefCell<Outbox>>,
    /// Tells the task that something waits.
    left_over: Rc<Notify>,
}

impl Writer {
    /// Sends the session's own message, before routes that wait.
    fn send(&self, message: Vec<u8>) {
        self.give(|outbox| outbox.push(message));
    }

    /// Sends routes. Returns how many bytes of them are with the kernel already; of the others
    /// [`Report::Written`] tells.
    pub(crate) fn send_routes(&self, messages: Bytes) -> usize {
        self.give(|outbox| outbox.push_routes(messages))
    }

    /// Writes here and now if nothing waited before. The rest is the task's.
    fn give(&self, message: impl FnOnce(&mut Outbox)) -> usize {
        let mut outbox = self.outbox.borrow_mut();
        let waited = !outbox.is_empty();
        message(&mut outbox);
        if waited {
            return 0;
        }
        let progress = outbox.write_what_goes(&self.stream);
        if !outbox.is_empty() {
            self.left_over.notify_one();
        }
        progress.routes
    }
}

impl Connection {
    /// A connection and the task that writes what waits, until one of both ends closes it.
    pub(crate) fn new(
        conn: ConnId,
        stream: TcpStream,
        reports: mpsc::UnboundedSender<Report>,
    ) -> (Connection, impl Future<Output = ()> + 'static) {
        let (commands, inbox) = mpsc::unbounded_channel();
        let writer = Writer {
            stream: Rc::new(stream),
            outbox: Rc::default(),
            left_over: Rc::default(),
        };
        let task = Task {
            conn,
            writer: writer.clone(),
            reports,
        };
        let connection = Connection { writer, commands };
        (connection, task.run(inbox))
    }

    /// Sends the session's own message, before routes that wait.
    pub(crate) fn send(&self, message: Vec<u8>) {
        self.writer.send(message);
    }

    /// What writes to it.
    pub(crate) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Tells the task. One that has ended has reported why.
    pub(crate) fn tell(&self, command: ConnCommand) {
        let _ = self.commands.send(command);
    }

    /// The connection itself, for its options.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.writer.stream
    }

    /// Registers for a wake-up when there is something to read, unless there is.
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        // Errors of the socket show at the read that follows.
        self.stream().poll_read_ready(context).map(drop)
    }

    /// Takes what the kernel has, up to [`READ_SIZE`]. `None` when it has nothing.
    ///
    /// # Errors
    /// Why nothing will come any more.
    pub(crate) fn read(&self) -> Result<Option<Vec<u8>>, TransportFailure> {
        let read = ARRIVING.with_borrow_mut(|arriving| {
            let mut bytes = None;
            let taken = self.stream().try_io(Interest::READABLE, || {
                let len = (&*SockRef::from(self.stream())).read(arriving)?;
                bytes = Some(arriving[..len].to_vec());
                if 0 < len && len < arriving.len() {
                    // The kernel has no more: without this it would be asked once more in vain.
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            match (bytes, taken) {
                (Some(bytes), _) => Ok(Some(bytes)),
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                (None, taken) => taken.map(|()| None),
            }
        });
        let gone = match read {
            Ok(Some(bytes)) if bytes.is_empty() => closed(),
            Ok(bytes) => return Ok(bytes),
            Err(error) => transport_failure(&error),
        };
        // What writing failed with came first.
        Err(self
            .writer
            .outbox
            .borrow()
            .failure()
            .cloned()
            .unwrap_or(gone))
    }

    /// Whether the kernel has bytes that were not read.
    pub(crate) fn has_unread_bytes(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        SockRef::from(self.stream())
            .peek(&mut byte)
            .is_ok_and(|len| len > 0)
    }
}

/// Sends last words, if the neighbour takes them within a few seconds, and closes.
pub(crate) async fn dismiss(stream: TcpStream, last_words: Vec<u8>) {
    let mut outbox = Outbox::default();
    outbox.push(last_words);
    part(&stream, outbox).await;
}

struct Task {
    conn: ConnId,
    writer: Writer,
    reports: mpsc::UnboundedSender<Report>,
}

impl Task {
    async fn run(self, mut commands: mpsc::UnboundedReceiver<ConnCommand>) {
        let Writer {
            stream,
            outbox,
            left_over,
        } = &self.writer;
        let mut send_hold: Option<Duration> = None;
        // Since when something waits and nothing is taken.
        let mut waiting_since: Option<Instant> = None;
        let mut alarm = Alarm::default();
        loop {
            let waits = !outbox.borrow().is_empty();
            waiting_since = waits.then(|| waiting_since.unwrap_or_else(Instant::now));
            let stuck_at = send_hold
                .zip(waiting_since)
                .map(|(hold, since)| since + hold);
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(ConnCommand::SendHold(time)) => send_hold = time,
                    Some(ConnCommand::LetGo(reply)) => {
                        let outbox = outbox.borrow_mut().close();
                        if outbox.failure().is_none() {
                            // Who asked is gone: so is the need for an answer.
                            let _ = reply.send(outbox.into_bytes());
                        }
                        return;
                    }
                    Some(ConnCommand::Close(CloseHow::AfterSending)) => {
                        let mut outbox = outbox.borrow_mut().close();
                        outbox.drop_routes();
                        part(stream, outbox).await;
                        return;
                    }
                    Some(ConnCommand::Close(CloseHow::Abort)) | None => {
                        reset_on_close(stream);
                        return;
                    }
                },
                writable = stream.writable(), if waits => {
                    // Errors of the socket show at the write that follows.
                    let _ = writable;
                    let progress = outbox.borrow_mut().write_what_goes(stream);
                    if progress.all > 0 {
                        waiting_since = None;
                    }
                    if progress.routes > 0 {
                        // A session that has ended counts nothing any more.
                        let _ = self.reports.send(Report::Written(self.conn, progress.routes));
                    }
                },
                () = left_over.notified() => {}
                () = alarm.until(stuck_at) => {
                    send_hold = None;
                    // A session that has ended has nobody to give up.
                    let _ = self.reports.send(Report::Stuck(self.conn));
                }
            }
        }
    }
}

thread_local! {
    /// Where bytes come to from the kernel. They are few mostly, and kept in no more than they need.
    static ARRIVING: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_SIZE]);
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
            let (reports, mut progress) = mpsc::unbounded_channel();
            let (connection, task) = Connection::new(conn, stream.unwrap(), reports);
            tokio::task::spawn_local(task);
            connection.tell(ConnCommand::SendHold(Some(Duration::from_millis(300))));
            // More than the kernel takes for a neighbour that reads nothing.
            let at_once = connection.writer().send_routes(vec![0; 64 << 20].into());
            let mut taken = at_once;
            loop {
                match progress.recv().await.expect("the connection is there") {
                    Report::Written(_, bytes) => taken += bytes,
                    Report::Stuck(stuck) => {
                        assert_eq!(stuck, conn);
                        break;
                    }
                    Report::Dialled(..) => unreachable!("nobody is called"),
                }
            }
            assert!(taken < 64 << 20, "the kernel took everything");
        });
    }
}
