// SPDX-License-Identifier: Apache-2.0
//! Numbered datagrams from a pod to a server that sends them back, each with the times it was seen.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use harness::{CONVERGED, Node, pod::Pod, standby::EGRESS, wait_for};

/// Datagrams a second.
pub(crate) const RATE: u32 = 1000;
/// The server's port; its own echo (port 7) starts a process for each datagram.
const PORT: u16 = 5007;
/// How often a thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(200);

/// Datagrams of one family.
pub(crate) struct Stream {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

/// When each datagram was where. One has the place of its number in `sent`.
struct Seen {
    begun: Instant,
    is_over: AtomicBool,
    sent: Mutex<Vec<Duration>>,
    /// Those at the server, in order of arrival.
    received: Mutex<Vec<(usize, Duration)>>,
    /// Those back at the pod.
    answered: Mutex<Vec<(usize, Duration)>>,
    /// Who the server has seen.
    clients: Mutex<BTreeSet<SocketAddr>>,
    /// Errors of sockets: what ICMP says of datagrams on their way.
    errors: Mutex<Vec<(Duration, String)>>,
}

/// What became of the datagrams of some time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) sent: usize,
    /// Without an answer.
    pub(crate) lost: usize,
    /// That the server has not seen.
    pub(crate) lost_out: usize,
    /// The longest time between two answers, and when it began.
    pub(crate) silence: Duration,
    pub(crate) silent_since: Option<Instant>,
    /// The longest time between two datagrams at the server.
    pub(crate) silence_out: Duration,
    /// The longest time between two datagrams that were sent: what this machine adds.
    pub(crate) pause: Duration,
    /// The lost ones' times after the beginning, of those that arrived nowhere and of those whose
    /// answers were lost.
    pub(crate) lost_at: Vec<(Duration, bool)>,
    /// Errors of the pod's socket.
    pub(crate) errors: Vec<(Duration, String)>,
}

impl Stream {
    /// Starts it, and returns when answers come.
    pub(crate) fn start(pod: &Pod<'_>, server: &Node, target: IpAddr) -> Result<Self> {
        let target = SocketAddr::new(target, PORT);
        let echo = server.in_node(|| Ok(UdpSocket::bind(target)?))?;
        let own = match target {
            SocketAddr::V4(_) => pod.v4,
            SocketAddr::V6(_) => pod.v6,
        };
        let socket = pod.within(|| {
            let socket = UdpSocket::bind(SocketAddr::new(own, 0))?;
            socket.connect(target)?;
            Ok(socket)
        })?;
        for socket in [&echo, &socket] {
            socket.set_read_timeout(Some(LOOK))?;
        }
        let seen = Arc::new(Seen {
            begun: Instant::now(),
            is_over: AtomicBool::new(false),
            sent: Mutex::default(),
            received: Mutex::default(),
            answered: Mutex::default(),
            clients: Mutex::default(),
            errors: Mutex::default(),
        });
        let reader = socket.try_clone()?;
        let run = |run: fn(&Seen, &UdpSocket), socket: UdpSocket| {
            let seen = Arc::clone(&seen);
            thread::spawn(move || {
                before_others();
                run(&seen, &socket);
            })
        };
        let threads = vec![
            run(Seen::echo, echo),
            run(Seen::read, reader),
            run(Seen::send, socket),
        ];
        let stream = Self { seen, threads };
        wait_for("answers", CONVERGED, || {
            let answered = lock(&stream.seen.answered).len();
            ensure!(answered >= 100, "{answered} answers");
            Ok(())
        })?;
        Ok(stream)
    }

    /// What became of the datagrams between two times, the second of which is some time ago.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> Outcome {
        let seen = &self.seen;
        let (from, to) = (from - seen.begun, to - seen.begun);
        let within = |at: Duration| from <= at && at <= to;
        let sent = lock(&seen.sent);
        let numbers: Vec<usize> = (0..sent.len()).filter(|n| within(sent[*n])).collect();
        let (received, answered) = (lock(&seen.received), lock(&seen.answered));
        let all = |seen: &[(usize, Duration)]| -> BTreeSet<usize> {
            seen.iter().map(|(number, _)| *number).collect()
        };
        let (at_server, at_pod) = (all(&received), all(&answered));
        let silence = |times: &mut dyn Iterator<Item = Duration>| {
            let mut last = from;
            let mut longest = (Duration::ZERO, from);
            for at in times.filter(|at| within(*at)).chain([to]) {
                longest = longest.max((at.saturating_sub(last), last));
                last = at;
            }
            longest
        };
        let (silence_at_pod, since) = silence(&mut answered.iter().map(|(_, at)| *at));
        let lost = numbers.iter().filter(|number| !at_pod.contains(number));
        let lost_at: Vec<(Duration, bool)> = lost
            .map(|number| (sent[*number] - from, at_server.contains(number)))
            .collect();
        let errors = lock(&seen.errors);
        let errors = errors.iter().filter(|(at, _)| within(*at));
        Outcome {
            sent: numbers.len(),
            lost: lost_at.len(),
            lost_out: lost_at.iter().filter(|(_, arrived)| !arrived).count(),
            silence: silence_at_pod,
            silent_since: Some(seen.begun + since),
            silence_out: silence(&mut received.iter().map(|(_, at)| *at)).0,
            pause: silence(&mut sent.iter().copied()).0,
            lost_at,
            errors: errors
                .map(|(at, error)| (*at - from, error.clone()))
                .collect(),
        }
    }

    /// Ends it. The server must have seen one client, under the address of the policy.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.seen.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread
                .join()
                .ok()
                .context("a thread of a stream panicked")?;
        }
        let clients = lock(&self.seen.clients);
        let is_one = clients.len() == 1;
        let is_held = clients.iter().all(|client| EGRESS.contains(&client.ip()));
        ensure!(is_one && is_held, "the server has seen {clients:?}");
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.seen.is_over.store(true, Ordering::Relaxed);
    }
}

impl Seen {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn send(&self, socket: &UdpSocket) {
        let interval = Duration::from_secs(1) / RATE;
        let mut number = 0_u32;
        while !self.is_over() {
            let due = interval * number;
            thread::sleep(due.saturating_sub(self.begun.elapsed()));
            lock(&self.sent).push(self.begun.elapsed());
            let bytes = u64::from(number).to_be_bytes();
            // An error is that of one sent before: it is told once, and this one not sent.
            if let Err(error) = socket.send(&bytes) {
                self.failed(&error);
                if let Err(error) = socket.send(&bytes) {
                    self.failed(&error);
                }
            }
            number += 1;
        }
    }

    fn failed(&self, error: &io::Error) {
        lock(&self.errors).push((self.begun.elapsed(), error.to_string()));
    }

    fn read(&self, socket: &UdpSocket) {
        let mut bytes = [0; 8];
        while !self.is_over() {
            match socket.recv(&mut bytes) {
                Ok(8) => lock(&self.answered).push((number(bytes), self.begun.elapsed())),
                Ok(_) => {}
                Err(error) if is_timeout(&error) => {}
                Err(error) => self.failed(&error),
            }
        }
    }

    fn echo(&self, socket: &UdpSocket) {
        let mut bytes = [0; 8];
        while !self.is_over() {
            // Errors are those of answers on their way: the pod misses them.
            let Ok((8, client)) = socket.recv_from(&mut bytes) else {
                continue;
            };
            lock(&self.received).push((number(bytes), self.begun.elapsed()));
            lock(&self.clients).insert(client);
            let _ = socket.send_to(&bytes, client);
        }
    }
}

fn number(bytes: [u8; 8]) -> usize {
    usize::try_from(u64::from_be_bytes(bytes)).unwrap_or(usize::MAX)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts the calling thread before all others, as far as allowed: its pauses would be taken for
/// those of the gateways.
fn before_others() {
    let priority = libc::sched_param { sched_priority: 50 };
    // SAFETY: the call reads a number it is given.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
}
