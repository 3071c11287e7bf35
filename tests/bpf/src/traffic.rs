// SPDX-License-Identifier: Apache-2.0
//! Traffic between pods, and waiting for conditions.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{namespace::Namespace, packet::checksum};

/// How long anything that should happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What became of a packet, as its sender learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The destination answered.
    Reached,
    /// A router said that the TTL or hop limit was used up.
    TimeExceeded,
    /// A router said that the packet is too big; the sender's kernel now believes in this MTU.
    TooBig(u32),
    /// Nobody said anything.
    Silence,
}

/// A packet to ask with: UDP to a closed port, to which a living destination answers by ICMP.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Source address; the kernel's choice when `None`.
    pub source: Option<IpAddr>,
    /// Bytes of UDP payload.
    pub bytes: usize,
    /// TTL or hop limit.
    pub ttl: i32,
    /// How long to wait for an answer.
    pub wait: Duration,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            source: None,
            bytes: 32,
            ttl: 64,
            wait: Duration::from_secs(10),
        }
    }
}

impl Probe {
    /// Sends one packet, never to be fragmented, and waits for what becomes of it.
    ///
    /// # Errors
    /// When the socket cannot be made, or the kernel says something unexpected.
    pub fn send(&self, from: &Namespace, to: IpAddr) -> Result<Fate> {
        Ok(self.ask(from, to)?.0)
    }

    /// The same, and who said so.
    ///
    /// # Errors
    /// When the socket cannot be made, or the kernel says something unexpected.
    pub fn ask(&self, from: &Namespace, to: IpAddr) -> Result<(Fate, Option<IpAddr>)> {
        /// Traceroute's first port, by convention closed.
        const CLOSED_PORT: u16 = 33434;
        let unspecified = if to.is_ipv4() { "0.0.0.0" } else { "::" };
        let source = self.source.map_or_else(|| unspecified.parse(), Ok)?;
        let socket = from.run(|| UdpSocket::bind((source, 0)))?;
        socket.set_read_timeout(Some(self.wait))?;
        never_cut(&socket)?;
        hear_errors(&socket)?;
        let (level, option) = if to.is_ipv4() {
            (libc::IPPROTO_IP, libc::IP_TTL)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS)
        };
        set_option(&socket, level, option, self.ttl)?;
        socket.connect((to, CLOSED_PORT))?;
        let sent = socket.send(&vec![0x5a; self.bytes]);
        let told = sent.and_then(|_| socket.recv(&mut [0; 1]));
        let Err(error) = told else {
            bail!("the closed port of {to} sent data")
        };
        let by = who_said(&socket);
        let fate = match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => Fate::Reached,
            Some(libc::EHOSTUNREACH) => Fate::TimeExceeded,
            Some(libc::EMSGSIZE) => Fate::TooBig(path_mtu(&socket)?),
            Some(libc::EAGAIN) => Fate::Silence,
            _ => return Err(error).with_context(|| format!("ask {to}")),
        };
        Ok((fate, by))
    }
}

/// Who sent the ICMP error a socket has in its queue of errors (ip(7), `IP_RECVERR`).
pub fn who_said(socket: &UdpSocket) -> Option<IpAddr> {
    let mut control = [0_u64; 64];
    // SAFETY: plain numbers and null pointers; all zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the message describes a live buffer.
    if unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_ERRQUEUE) } < 0 {
        return None;
    }
    // SAFETY: the kernel filled the message; the first header is in the buffer or null, and behind
    // this kind of it an error and the address of its sender follow.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        let kind = header.as_ref()?.cmsg_type;
        if kind != libc::IP_RECVERR && kind != libc::IPV6_RECVERR {
            return None;
        }
        let said: *const libc::sock_extended_err = libc::CMSG_DATA(header).cast();
        let sender = said.add(1);
        if kind == libc::IP_RECVERR {
            let address: libc::sockaddr_in = sender.cast::<libc::sockaddr_in>().read_unaligned();
            Some(IpAddr::from(address.sin_addr.s_addr.to_ne_bytes()))
        } else {
            let address: libc::sockaddr_in6 = sender.cast::<libc::sockaddr_in6>().read_unaligned();
            Some(IpAddr::from(address.sin6_addr.s6_addr))
        }
    }
}

/// Probes until the destination answers.
///
/// # Errors
/// When it does not in time.
pub fn reach(from: &Namespace, to: IpAddr) -> Result<()> {
    wait_for(&format!("an answer from {to}"), || {
        let fate = Probe {
            wait: Duration::from_secs(1),
            ..Probe::default()
        }
        .send(from, to)?;
        ensure!(fate == Fate::Reached, "{fate:?}");
        Ok(())
    })
}

/// Lets nobody cut what a socket sends.
///
/// # Errors
/// When the kernel refuses.
pub fn never_cut(socket: &UdpSocket) -> Result<()> {
    let (level, option, value) = if socket.local_addr()?.is_ipv4() {
        (
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_DO,
        )
    } else {
        (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_DO,
        )
    };
    set_option(socket, level, option, value)
}

/// What the kernel believes the way of a connected socket takes.
///
/// # Errors
/// When the socket is not connected.
pub fn path_mtu(socket: &UdpSocket) -> Result<u32> {
    let (level, option) = if socket.local_addr()?.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_MTU)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU)
    };
    Ok(get_option(socket, level, option)? as u32)
}

/// Lets a socket send many datagrams of this size at once, which the kernel takes apart as late as it
/// can (udp(7), `UDP_SEGMENT`).
///
/// # Errors
/// When the kernel refuses.
pub fn send_in_segments(socket: &UdpSocket, bytes: i32) -> Result<()> {
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, bytes)
}

fn set_option(socket: &UdpSocket, level: i32, option: i32, value: i32) -> Result<()> {
    // SAFETY: pointer and size describe a live value.
    let code = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as u32,
        )
    };
    ensure!(
        code == 0,
        "socket option {option}: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}

fn get_option(socket: &UdpSocket, level: i32, option: i32) -> Result<i32> {
    let mut value = 0_i32;
    let mut length = size_of_val(&value) as u32;
    // SAFETY: pointers and size describe live values.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw mut value).cast(),
            &mut length,
        )
    };
    ensure!(
        code == 0,
        "socket option {option}: {}",
        std::io::Error::last_os_error()
    );
    Ok(value)
}

/// Asks for the echo of a host with this identifier, and waits for it (RFC 792, RFC 4443 §4.1).
///
/// # Errors
/// When it does not come in time.
pub fn ping(from: &Namespace, to: IpAddr, identifier: u16) -> Result<()> {
    let (family, protocol, request, reply) = if to.is_ipv4() {
        (libc::AF_INET, libc::IPPROTO_ICMP, 8, 0)
    } else {
        (libc::AF_INET6, libc::IPPROTO_ICMPV6, 128, 129)
    };
    // SAFETY: no pointers.
    let fd = from.run(|| unsafe { libc::socket(family, libc::SOCK_RAW, protocol) });
    ensure!(fd >= 0, "raw socket: {}", std::io::Error::last_os_error());
    // SAFETY: a descriptor this call made, owned by nobody else. Reading, writing and connecting
    // are the same calls for raw sockets.
    let socket = unsafe { UdpSocket::from_raw_fd(fd) };
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    socket.connect((to, 0))?;
    let [high, low] = identifier.to_be_bytes();
    let mut message = vec![request, 0, 0, 0, high, low, 0, 1];
    message.extend([0xa5; 48]);
    if to.is_ipv4() {
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
    }
    socket.send(&message)?;
    wait_for(&format!("the echo of {to}"), || {
        let mut buffer = [0; 256];
        let count = socket.recv(&mut buffer)?;
        // IPv4's raw sockets give the header as well.
        let got = &buffer[if to.is_ipv4() { 20 } else { 0 }..count];
        let mut expected = message.clone();
        expected[0] = reply;
        // The checksum was looked at by the kernel.
        expected[2..4].copy_from_slice(&got[2..4]);
        ensure!(got == expected, "{got:?}");
        Ok(())
    })
}

/// A UDP server that answers every datagram with itself, as long as it lives.
#[derive(Debug)]
pub struct EchoServer {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl EchoServer {
    /// Starts one; port 0 is any.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(at: &Namespace, address: SocketAddr) -> Result<Self> {
        let socket = at.run(|| UdpSocket::bind(address))?;
        let address = socket.local_addr()?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut buffer = vec![0; 65_536];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((count, from)) = socket.recv_from(&mut buffer) {
                        // Who asks again is answered again.
                        let _ = socket.send_to(&buffer[..count], from);
                    }
                }
            })
        };
        Ok(Self {
            address,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

/// A UDP socket of a pod, connected to nobody.
///
/// # Errors
/// When it cannot be made.
pub fn udp_socket(at: &Namespace, is_ipv4: bool, port: u16) -> Result<UdpSocket> {
    let any = if is_ipv4 { "0.0.0.0" } else { "::" };
    let socket = at.run(|| UdpSocket::bind((any, port)))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    Ok(socket)
}

/// Lets routers cut what an IPv4 socket sends, and the socket forget what it is told of the path.
///
/// # Errors
/// When the kernel refuses.
pub fn leave_cutting_to_routers(socket: &UdpSocket) -> Result<()> {
    let (option, value) = (libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT);
    set_option(socket, libc::IPPROTO_IP, option, value)
}

/// Lets a socket hear of every ICMP error, also of those that may pass.
///
/// # Errors
/// When the kernel refuses.
pub fn hear_errors(socket: &UdpSocket) -> Result<()> {
    if socket.local_addr()?.is_ipv4() {
        set_option(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
    } else {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
    }
}

/// Sends a datagram until its echo comes.
///
/// # Errors
/// When it does not in time.
pub fn echo(socket: &UdpSocket, to: SocketAddr, bytes: usize) -> Result<()> {
    let data: Vec<u8> = (0..bytes).map(|index| index as u8).collect();
    wait_for(&format!("an echo of {bytes} bytes by {to}"), || {
        socket.send_to(&data, to)?;
        let mut buffer = vec![0; 65_536];
        let (count, from) = socket.recv_from(&mut buffer)?;
        ensure!(
            from == to && buffer[..count] == data,
            "{count} bytes of {from}"
        );
        Ok(())
    })
}

/// Tries until it works; the last reason otherwise.
///
/// # Errors
/// When it does not work in time.
pub fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let limit = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > limit => {
                return Err(error).with_context(|| format!("waited {PATIENCE:?} for {what}"));
            }
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Sends so many bytes over one TCP connection and checks that they arrive.
///
/// # Errors
/// When they do not.
pub fn transfer(from: &Namespace, to: &Namespace, address: IpAddr, bytes: usize) -> Result<()> {
    let listener = to.run(|| TcpListener::bind(SocketAddr::new(address, 0)))?;
    let target = listener.local_addr()?;
    thread::scope(|scope| {
        let receiver = scope.spawn(move || -> Result<usize> {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut buffer = vec![0; 1 << 16];
            let mut received = 0;
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(received),
                    count => received += count,
                }
            }
        });
        let mut stream = from.run(|| TcpStream::connect_timeout(&target, PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let chunk = vec![0x5a; 1 << 16];
        let mut left = bytes;
        while left > 0 {
            let count = left.min(chunk.len());
            stream.write_all(&chunk[..count])?;
            left -= count;
        }
        drop(stream);
        let received = receiver
            .join()
            .map_err(|_| anyhow::anyhow!("the receiver panicked"))??;
        ensure!(received == bytes, "{received} of {bytes} bytes arrived");
        Ok(())
    })
}

/// A steady stream of numbered packets from one pod to another, running in the background.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    sender: thread::JoinHandle<Result<()>>,
    receiver: thread::JoinHandle<Result<()>>,
}

impl Stream {
    /// Starts one with so many packets per second; returns when packets arrive.
    ///
    /// # Errors
    /// When sockets cannot be made or nothing arrives.
    pub fn start(from: &Namespace, to: &Namespace, address: IpAddr, rate: u64) -> Result<Self> {
        let inlet = to.run(|| UdpSocket::bind(SocketAddr::new(address, 0)))?;
        let target = inlet.local_addr()?;
        inlet.set_read_timeout(Some(Duration::from_millis(100)))?;
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let outlet = from.run(|| UdpSocket::bind(any))?;
        outlet.connect(target)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (sent, received) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let sender = {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            thread::spawn(move || send(&outlet, rate, &stop, &sent))
        };
        let receiver = {
            let (stop, sent, received) =
                (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&received));
            thread::spawn(move || receive(&inlet, &stop, &sent, &received))
        };
        let stream = Self {
            stop,
            sent,
            received,
            sender,
            receiver,
        };
        stream.wait_for_more(1)?;
        Ok(stream)
    }

    /// Waits until so many more packets have arrived.
    ///
    /// # Errors
    /// When they do not in time.
    pub fn wait_for_more(&self, packets: u64) -> Result<()> {
        let goal = self.received.load(Ordering::Relaxed) + packets;
        wait_for("packets of the stream", || {
            let received = self.received.load(Ordering::Relaxed);
            ensure!(received >= goal, "{received} arrived of {goal}");
            Ok(())
        })
    }

    /// Stops and returns how many packets were sent and how many arrived, in order and once.
    ///
    /// # Errors
    /// When a packet came twice or out of order.
    pub fn stop(self) -> Result<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in [self.sender, self.receiver] {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a stream thread panicked"))??;
        }
        Ok((
            self.sent.load(Ordering::Relaxed),
            self.received.load(Ordering::Relaxed),
        ))
    }
}

fn send(socket: &UdpSocket, rate: u64, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    let started = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let number = sent.load(Ordering::Relaxed);
        let due = started + Duration::from_nanos(number * 1_000_000_000 / rate);
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            thread::sleep(early);
        }
        socket.send(&number.to_be_bytes())?;
        sent.store(number + 1, Ordering::Relaxed);
    }
    Ok(())
}

fn receive(
    socket: &UdpSocket,
    stop: &AtomicBool,
    sent: &AtomicU64,
    received: &AtomicU64,
) -> Result<()> {
    let mut next = 0;
    let mut silence = 0;
    loop {
        let mut packet = [0; 64];
        match socket.recv(&mut packet) {
            Ok(8) => {
                let mut number = [0; 8];
                number.copy_from_slice(&packet[..8]);
                let number = u64::from_be_bytes(number);
                ensure!(number >= next, "packet {number} came after {}", next - 1);
                next = number + 1;
                received.fetch_add(1, Ordering::Relaxed);
                silence = 0;
            }
            Ok(other) => bail!("a packet of {other} bytes"),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => silence += 1,
            Err(error) => return Err(error.into()),
        }
        let all = received.load(Ordering::Relaxed) == sent.load(Ordering::Relaxed);
        // What is on its way when the sender stops arrives within a second or never.
        if stop.load(Ordering::Relaxed) && (all && silence > 0 || silence > 10) {
            return Ok(());
        }
    }
}
