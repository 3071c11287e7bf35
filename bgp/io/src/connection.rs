// SPDX-License-Identifier: Apache-2.0
//! One TCP connection. The peer's task reads it and writes what the kernel takes; what it did not
//! take is written by a task beside, which also says goodbye.

mod moderation;
mod outbox;

use std::cell::RefCell;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bgp_core::peer::{CloseHow, ConnId, TransportFailure};
use bytes::Bytes;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};

use self::moderation::Moderation;
use self::outbox::Outbox;
use crate::alarm::Alarm;
use crate::failure::{closed, transport_failure};
use crate::socket;

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
    moderation: Moderation,
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
        let connection = Connection {
            writer,
            moderation: Moderation::new(Instant::now()),
            commands,
        };
        // The process before may have left another on the socket.
        connection.gather(Some(Moderation::NONE));
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
    pub(crate) fn read(&mut self, now: Instant) -> Result<Option<Vec<u8>>, TransportFailure> {
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
            Ok(Some(bytes)) => {
                let mark = self.moderation.read(bytes.len(), now);
                self.gather(mark);
                return Ok(Some(bytes));
            }
            Ok(None) => return Ok(None),
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

    /// When [`Connection::hasten`] is due: bytes may have waited long enough for others.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.moderation.due()
    }

    /// Has the kernel wake the reader for every byte, those that wait included.
    pub(crate) fn hasten(&mut self, now: Instant) {
        let mark = self.moderation.hasten(self.has_unread_bytes(), now);
        self.gather(mark);
    }

    fn gather(&self, mark: Option<i32>) {
        if let Some(mark) = mark {
            // Fails for a connection that is gone already, which is read at once.
            let _ = socket::set_low_water(self.stream().as_fd(), mark);
        }
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
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use bgp_core::peer::Direction;
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;

    use super::*;

    const CONN: ConnId = ConnId {
        direction: Direction::Outgoing,
        serial: 1,
    };

    /// Whether a reader would be woken, or is within a time.
    fn is_woken(connection: &Connection, millis: i32) -> bool {
        let mut look = libc::pollfd {
            fd: connection.stream().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one live entry is passed, whose descriptor the connection keeps open.
        let found = unsafe { libc::poll(&raw mut look, 1, millis) };
        found > 0
    }

    #[tokio::test]
    async fn messages_in_quick_succession_are_read_together_and_the_last_one_is_read_too() {
        for is_handed_over in [false, true] {
            gather(is_handed_over).await;
        }
    }

    /// Has two messages gathered, and a last one that nothing follows.
    async fn gather(is_handed_over: bool) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (mut neighbour, _) = listener.accept().unwrap();
        neighbour.set_nodelay(true).unwrap();
        let (reports, _progress) = mpsc::unbounded_channel();
        let (mut connection, _task) = Connection::new(CONN, stream.unwrap(), reports);
        let mut now = Instant::now();
        let mut message = |connection: &mut Connection| {
            neighbour.write_all(&[7; 62]).unwrap();
            while !connection.has_unread_bytes() {
                std::thread::yield_now();
            }
        };
        while connection.due().is_none() {
            message(&mut connection);
            connection.stream().readable().await.unwrap();
            now += Duration::from_micros(500);
            assert_eq!(connection.read(now), Ok(Some(vec![7; 62])));
        }
        message(&mut connection);
        assert!(!is_woken(&connection, 0), "one of two");
        message(&mut connection);
        assert!(is_woken(&connection, 60_000));
        connection.stream().readable().await.unwrap();
        assert_eq!(connection.read(now), Ok(Some(vec![7; 124])));

        message(&mut connection);
        assert!(!is_woken(&connection, 0), "the last");
        let stream = connection.stream().as_fd().try_clone_to_owned().unwrap();
        if is_handed_over {
            let stream = TcpStream::from_std(stream.into()).unwrap();
            let (reports, _) = mpsc::unbounded_channel();
            (connection, _) = Connection::new(CONN, stream, reports);
        } else {
            connection.hasten(now);
        }
        assert!(is_woken(&connection, 60_000));
        connection.stream().readable().await.unwrap();
        assert_eq!(connection.read(now), Ok(Some(vec![7; 62])));
        assert_eq!(connection.due(), None);
    }

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
            let (reports, mut progress) = mpsc::unbounded_channel();
            let (connection, task) = Connection::new(CONN, stream.unwrap(), reports);
            tokio::task::spawn_local(task);
            connection.tell(ConnCommand::SendHold(Some(Duration::from_millis(300))));
            // More than the kernel takes for a neighbour that reads nothing.
            let at_once = connection.writer().send_routes(vec![0; 64 << 20].into());
            let mut taken = at_once;
            loop {
                match progress.recv().await.expect("the connection is there") {
                    Report::Written(_, bytes) => taken += bytes,
                    Report::Stuck(stuck) => {
                        assert_eq!(stuck, CONN);
                        break;
                    }
                    Report::Dialled(..) => unreachable!("nobody is called"),
                }
            }
            assert!(taken < 64 << 20, "the kernel took everything");
        });
    }
}
