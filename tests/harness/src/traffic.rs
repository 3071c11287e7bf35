// SPDX-License-Identifier: Apache-2.0
//! Traffic between pods whose every packet and byte is accounted for.
//!
//! [`Stream`] sends numbered datagrams at a steady rate; [`Transfer`] sends bytes by TCP whose
//! values follow from their places. Both run on threads of the test with sockets of the pods, from
//! `start` until `finish`, which says what arrived.

use std::{
    collections::BTreeSet,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use lab_runner::wait_for;

use crate::{CONVERGED, Family, pod::Pod};

/// How long after the last datagram was sent one may still be on its way.
const STRAGGLERS: Duration = Duration::from_secs(2);
/// Bytes of the pattern written at once.
const CHUNK: usize = 64 << 10;
/// Pause between two chunks: about 30 MB/s, so that the test leaves the processors to the daemons.
const CHUNK_PAUSE: Duration = Duration::from_millis(2);

/// Numbered datagrams from one pod to another.
pub struct Stream {
    name: String,
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
    sender: JoinHandle<io::Result<u64>>,
    receiver: JoinHandle<io::Result<Received>>,
}

/// What a [`Stream`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamReport {
    /// Datagrams sent.
    pub sent: u64,
    /// Numbers that never arrived.
    pub lost: Vec<u64>,
    /// Datagrams that arrived a second time.
    pub duplicates: u64,
    /// The longest time between two arrivals.
    pub longest_silence: Duration,
}

#[derive(Default)]
struct Received {
    numbers: BTreeSet<u64>,
    duplicates: u64,
    longest_silence: Duration,
}

impl Stream {
    /// Starts sending `per_second` datagrams and returns when the first ones have arrived.
    ///
    /// # Errors
    /// When a socket cannot be made, or nothing arrives.
    pub fn start(from: &Pod<'_>, to: &Pod<'_>, family: Family, per_second: u32) -> Result<Self> {
        let name = format!("{} → {}, {family:?}", from.name(), to.name());
        let target = SocketAddr::new(address(to, family), 0);
        let inbound = to.within(|| Ok(UdpSocket::bind(target)?))?;
        inbound.set_read_timeout(Some(Duration::from_millis(200)))?;
        let target = inbound.local_addr()?;
        let source = SocketAddr::new(address(from, family), 0);
        let outbound = from.within(|| Ok(UdpSocket::bind(source)?))?;
        outbound.connect(target)?;

        let (stop, arrived) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let sender = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || send_numbers(&outbound, per_second, &stop))
        };
        let receiver = {
            let (stop, arrived) = (Arc::clone(&stop), Arc::clone(&arrived));
            thread::spawn(move || receive_numbers(&inbound, &stop, &arrived))
        };
        let stream = Self {
            name,
            stop,
            arrived,
            sender,
            receiver,
        };
        stream.more(10)?;
        Ok(stream)
    }

    /// Waits until so many more datagrams have arrived.
    ///
    /// # Errors
    /// When they do not.
    pub fn more(&self, count: u64) -> Result<()> {
        let wanted = self.arrived.load(Ordering::Relaxed) + count;
        wait_for(&format!("datagrams {}", self.name), CONVERGED, || {
            let arrived = self.arrived.load(Ordering::Relaxed);
            ensure!(arrived >= wanted, "{arrived} of {wanted} have arrived");
            Ok(())
        })
    }

    /// Ends it, waits for stragglers and counts.
    ///
    /// # Errors
    /// When a socket failed.
    pub fn finish(self) -> Result<StreamReport> {
        self.stop.store(true, Ordering::Relaxed);
        let name = self.name;
        let sent = join(self.sender).with_context(|| format!("sender of {name}"))?;
        let received = join(self.receiver).with_context(|| format!("receiver of {name}"))?;
        let lost = (0..sent)
            .filter(|number| !received.numbers.contains(number))
            .collect();
        Ok(StreamReport {
            sent,
            lost,
            duplicates: received.duplicates,
            longest_silence: received.longest_silence,
        })
    }
}

/// A TCP connection that carries a known pattern.
pub struct Transfer {
    name: String,
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
    sender: JoinHandle<io::Result<u64>>,
    receiver: JoinHandle<io::Result<u64>>,
}

impl Transfer {
    /// Connects, starts sending, and returns when the first bytes have arrived.
    ///
    /// # Errors
    /// When the connection cannot be made, or nothing arrives.
    pub fn start(from: &Pod<'_>, to: &Pod<'_>, family: Family) -> Result<Self> {
        let target = SocketAddr::new(address(to, family), 0);
        let listener = to.within(|| Ok(TcpListener::bind(target)?))?;
        let target = listener.local_addr()?;
        let outbound = from.within(|| {
            wait_for("a TCP connection", CONVERGED, || {
                Ok(TcpStream::connect_timeout(&target, Duration::from_secs(5))?)
            })
        })?;
        let (inbound, _) = listener.accept()?;
        // A dead way must fail the test, not hang it.
        outbound.set_write_timeout(Some(CONVERGED))?;
        inbound.set_read_timeout(Some(CONVERGED))?;

        let (stop, arrived) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let sender = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || send_pattern(outbound, &stop))
        };
        let receiver = {
            let arrived = Arc::clone(&arrived);
            thread::spawn(move || receive_pattern(inbound, &arrived))
        };
        let transfer = Self {
            name: format!("{} → {}, {family:?}", from.name(), to.name()),
            stop,
            arrived,
            sender,
            receiver,
        };
        transfer.more(1)?;
        Ok(transfer)
    }

    /// Waits until so many more bytes have arrived.
    ///
    /// # Errors
    /// When they do not.
    pub fn more(&self, bytes: u64) -> Result<()> {
        let wanted = self.arrived.load(Ordering::Relaxed) + bytes;
        wait_for(&format!("bytes {}", self.name), CONVERGED, || {
            let arrived = self.arrived.load(Ordering::Relaxed);
            ensure!(arrived >= wanted, "{arrived} of {wanted} have arrived");
            Ok(())
        })
    }

    /// Ends it and returns how many bytes arrived, each with its right value.
    ///
    /// # Errors
    /// When the connection broke, a byte was wrong, or fewer arrived than were sent.
    pub fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let name = self.name;
        let sent = join(self.sender).with_context(|| format!("sender of {name}"))?;
        let arrived = join(self.receiver).with_context(|| format!("receiver of {name}"))?;
        ensure!(
            arrived == sent,
            "{name}: {sent} bytes sent, {arrived} arrived"
        );
        Ok(arrived)
    }
}

fn address(pod: &Pod<'_>, family: Family) -> std::net::IpAddr {
    match family {
        Family::Ipv4 => pod.v4,
        Family::Ipv6 => pod.v6,
    }
}

fn send_numbers(socket: &UdpSocket, per_second: u32, stop: &AtomicBool) -> io::Result<u64> {
    let start = Instant::now();
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        // By the clock, not by pauses: a late wake-up is made up for, and the rate holds.
        let due = (start.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
        while number <= due {
            match socket.send(&number.to_be_bytes()) {
                // What a connected socket reports of an earlier datagram: that one was lost, and
                // the receiver's count says so. This one is still to be sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
                Ok(_) => number += 1,
            }
        }
        thread::sleep(Duration::from_secs(1) / per_second);
    }
    Ok(number)
}

fn receive_numbers(
    socket: &UdpSocket,
    stop: &AtomicBool,
    arrived: &AtomicU64,
) -> io::Result<Received> {
    let mut received = Received::default();
    let mut last: Option<Instant> = None;
    let mut idle_since = Instant::now();
    let mut datagram = [0; 8];
    loop {
        match socket.recv(&mut datagram) {
            Ok(_) => {
                let now = Instant::now();
                if let Some(last) = last {
                    received.longest_silence = received.longest_silence.max(now - last);
                }
                (last, idle_since) = (Some(now), now);
                if received.numbers.insert(u64::from_be_bytes(datagram)) {
                    arrived.fetch_add(1, Ordering::Relaxed);
                } else {
                    received.duplicates += 1;
                }
            }
            Err(error) if is_timeout(&error) => {
                if stop.load(Ordering::Relaxed) && idle_since.elapsed() >= STRAGGLERS {
                    return Ok(received);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// The byte at a place: differs from its neighbours, and from the one a chunk away.
fn pattern(place: u64) -> u8 {
    (place ^ (place >> 8) ^ (place >> 16) ^ (place >> 24)).to_le_bytes()[0]
}

fn send_pattern(mut connection: TcpStream, stop: &AtomicBool) -> io::Result<u64> {
    let mut place = 0_u64;
    let mut chunk = vec![0; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        for byte in &mut chunk {
            *byte = pattern(place);
            place += 1;
        }
        connection.write_all(&chunk)?;
        thread::sleep(CHUNK_PAUSE);
    }
    Ok(place)
}

fn receive_pattern(mut connection: TcpStream, arrived: &AtomicU64) -> io::Result<u64> {
    let mut place = 0_u64;
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = connection.read(&mut chunk)?;
        if length == 0 {
            return Ok(place);
        }
        for byte in &chunk[..length] {
            if *byte != pattern(place) {
                let text = format!("byte {place} is {byte}, not {}", pattern(place));
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            place += 1;
        }
        arrived.store(place, Ordering::Relaxed);
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

fn join<T>(thread: JoinHandle<io::Result<T>>) -> Result<T> {
    let result = thread.join().map_err(|_| anyhow!("the thread panicked"))?;
    Ok(result?)
}
