// SPDX-License-Identifier: Apache-2.0
//! Packet sockets on one link, with whole Ethernet frames.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};

use router_types::LinkIndex;
use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

use super::{ETHERTYPE_ARP, ETHERTYPE_IPV6};

/// One that only sends.
pub(super) struct Sender {
    socket: Packets,
}

impl Sender {
    /// Opens one in the calling thread's namespace.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`, and when the link is gone.
    pub(super) fn open(link: LinkIndex) -> io::Result<Sender> {
        let socket = open(link, 0, &REFUSE_ALL)?;
        Ok(Sender { socket })
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When the link is down or gone, or its queue is full.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.get()?.send(frame).map(drop)
    }
}

/// One that sends questions and receives answers. Frames this node sends by the link do not come
/// back by it: the kernel shows those only to sockets for every protocol.
pub(super) struct Asker {
    socket: AsyncFd<Packets>,
}

impl Asker {
    /// Opens one for ARP in the calling thread's namespace.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`, and when the link is gone.
    pub(super) fn arp(link: LinkIndex) -> io::Result<Asker> {
        Self::new(open(link, ETHERTYPE_ARP, &ACCEPT_ALL)?)
    }

    /// The same for neighbour advertisements.
    pub(super) fn advertisements(link: LinkIndex) -> io::Result<Asker> {
        Self::new(open(link, ETHERTYPE_IPV6, &ADVERTISEMENTS)?)
    }

    fn new(socket: Packets) -> io::Result<Asker> {
        // SAFETY: the socket owns its descriptor and always gives out the same one; nothing takes it
        // out of the `AsyncFd` or replaces it.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Asker { socket })
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.get_ref().get()?.send(frame).map(drop)
    }

    /// Takes the next frame; what does not fit the buffer is cut off.
    pub(super) async fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        loop {
            let mut ready = self.socket.readable().await?;
            let received = ready.try_io(|socket| {
                let mut bytes = [MaybeUninit::uninit(); 256];
                let length = socket.get_ref().get()?.recv(&mut bytes)?.min(buffer.len());
                // SAFETY: the kernel has written the first `length` octets.
                let bytes = unsafe { bytes[..length].assume_init_ref() };
                buffer[..length].copy_from_slice(bytes);
                Ok(length)
            });
            match received {
                Ok(Ok(length)) => return Ok(&buffer[..length]),
                Ok(Err(error)) => return Err(error),
                // Nothing waits after all.
                Err(_) => {}
            }
        }
    }
}

/// A packet socket that is closed by a thread of its own: the kernel lets all processors look away
/// first (`synchronize_net`), which takes 10 ms and more, and whoever announces an address has to
/// tell other nodes of it in that time.
struct Packets {
    fd: RawFd,
    /// Taken by `drop` alone.
    socket: Option<Socket>,
}

impl Packets {
    fn get(&self) -> io::Result<&Socket> {
        let closed = || io::Error::from_raw_os_error(libc::EBADF);
        self.socket.as_ref().ok_or_else(closed)
    }
}

impl AsRawFd for Packets {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        // Without a runtime nobody waits for anything else here.
        if let (Some(socket), Ok(runtime)) = (self.socket.take(), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(socket));
        }
    }
}

fn open(link: LinkIndex, ethertype: u16, filter: &'static [SockFilter]) -> io::Result<Packets> {
    // Protocol 0: nothing comes before the filter is there, and for a sender never.
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None)?;
    socket.attach_filter(filter)?;
    socket.bind(&address(link, ethertype))?;
    Ok(Packets {
        fd: socket.as_raw_fd(),
        socket: Some(socket),
    })
}

fn address(link: LinkIndex, ethertype: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is one of the address types, and zeros are a valid one.
    let to = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    to.sll_family = libc::AF_PACKET as libc::sa_family_t;
    to.sll_protocol = ethertype.to_be();
    to.sll_ifindex = link.0 as i32;
    // SAFETY: the storage holds a whole sockaddr_ll.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// One instruction: if it is a jump, how many to skip when true and when false.
const fn step(code: u32, k: u32, (yes, no): (u8, u8)) -> SockFilter {
    SockFilter::new(code as u16, yes, no, k)
}

static ACCEPT_ALL: [SockFilter; 1] = [step(RETURN, u32::MAX, (0, 0))];
static REFUSE_ALL: [SockFilter; 1] = [step(RETURN, 0, (0, 0))];

/// ICMPv6 of the type of neighbour advertisements, without extension headers, which RFC 4861 does
/// not use.
static ADVERTISEMENTS: [SockFilter; 6] = [
    step(LOAD_BYTE, 14 + 6, (0, 0)),
    step(EQUAL, libc::IPPROTO_ICMPV6 as u32, (0, 3)),
    step(LOAD_BYTE, 14 + 40, (0, 0)),
    step(EQUAL, 136, (0, 1)),
    step(RETURN, u32::MAX, (0, 0)),
    step(RETURN, 0, (0, 0)),
];
