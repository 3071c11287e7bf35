// SPDX-License-Identifier: Apache-2.0
//! Packet sockets: BFD packets of one address family on one device, past the kernel's IP layer.
//!
//! They take echo packets, ours when they are back and the neighbour's where the kernel does not
//! forward, and control packets for the link address of their sender. The filter runs in the kernel
//! for each packet of the device that the kernel itself is to handle, so they are open only while a
//! session on the device needs them.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use bgp_bfd::wire::{PORT_ECHO, PORT_SINGLE_HOP};
use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

/// Bytes of received packets that may wait.
const RECEIVE_BUFFER: usize = 1 << 19;

/// `TC_PRIO_CONTROL`: before other traffic where the device's queues know priorities.
const PRIORITY: u32 = 7;

/// Whether packets are of IPv4 or IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn of(address: std::net::IpAddr) -> Family {
        match address {
            std::net::IpAddr::V4(_) => Family::V4,
            std::net::IpAddr::V6(_) => Family::V6,
        }
    }

    /// The EtherType, in network byte order as the kernel wants it.
    const fn protocol_be(self) -> u16 {
        let number = match self {
            Family::V4 => libc::ETH_P_IP,
            Family::V6 => libc::ETH_P_IPV6,
        };
        (number as u16).to_be()
    }
}

/// An address on the link, of whatever length the device has; none on a device without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LinkAddress {
    octets: [u8; 8],
    length: u8,
}

/// The socket.
#[derive(Debug)]
pub(crate) struct LinkSocket {
    socket: Socket,
    interface: u32,
    family: Family,
}

impl AsFd for LinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl LinkSocket {
    /// Opens one on a device.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`, and when the device is gone.
    pub(crate) fn open(interface: u32, family: Family) -> io::Result<LinkSocket> {
        // Protocol 0: nothing comes before the filter is there.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), None)?;
        socket.attach_filter(match family {
            Family::V4 => &FILTER_V4,
            Family::V6 => &FILTER_V6,
        })?;
        // More than rmem_max where we may; what there is where not.
        use nix::sys::socket::{setsockopt, sockopt};
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        setsockopt(&socket, sockopt::Priority, &(PRIORITY as i32))?;
        let here = LinkAddress {
            octets: [0; 8],
            length: 0,
        };
        socket.bind(&address(interface, family, here))?;
        Ok(LinkSocket {
            socket,
            interface,
            family,
        })
    }

    /// Takes one packet, from its IP header on; `None` when none waits. The link address is `None`
    /// for packets that are not for this host.
    pub(crate) fn receive<'a>(
        &self,
        buffer: &'a mut [MaybeUninit<u8>],
    ) -> io::Result<Option<(&'a [u8], Option<LinkAddress>)>> {
        let (length, from) = match self.socket.recv_from(buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        // SAFETY: the kernel has written the first `length` octets.
        let bytes = unsafe { buffer[..length].assume_init_ref() };
        // SAFETY: SockAddr's storage is larger than sockaddr_ll, aligned for every address, and
        // zeroed where the kernel wrote less.
        let from = unsafe { &*from.as_ptr().cast::<libc::sockaddr_ll>() };
        let is_ours = from.sll_pkttype == libc::PACKET_HOST;
        let address = LinkAddress {
            octets: from.sll_addr,
            length: from.sll_halen.min(8),
        };
        Ok(Some((bytes, is_ours.then_some(address))))
    }

    /// Sends an IP packet to an address on the link.
    ///
    /// # Errors
    /// When the device is down or gone, or its queue is full.
    pub(crate) fn send(&self, packet: &[u8], to: LinkAddress) -> io::Result<()> {
        let to = address(self.interface, self.family, to);
        self.socket.send_to(packet, &to).map(drop)
    }
}

fn address(interface: u32, family: Family, at: LinkAddress) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is one of the address types, and zeros are a valid one.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as libc::sa_family_t;
    link.sll_protocol = family.protocol_be();
    link.sll_ifindex = interface as i32;
    link.sll_halen = at.length;
    link.sll_addr = at.octets;
    // SAFETY: the storage holds a whole sockaddr_ll.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_HALF_INDEXED: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
const LOAD_HEADER_LENGTH: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// One instruction: if it is a jump, how many to skip when true and when false.
const fn step(code: u32, k: u32, (yes, no): (u8, u8)) -> SockFilter {
    SockFilter::new(code as u16, yes, no, k)
}

/// UDP to the ports of single-hop BFD and its echo, no fragment.
static FILTER_V4: [SockFilter; 10] = [
    step(LOAD_BYTE, 9, (0, 0)),
    step(EQUAL, 17, (0, 7)),
    step(LOAD_HALF, 6, (0, 0)),
    step(ANY_BIT, 0x1fff, (5, 0)),
    step(LOAD_HEADER_LENGTH, 0, (0, 0)),
    step(LOAD_HALF_INDEXED, 2, (0, 0)),
    step(EQUAL, PORT_ECHO as u32, (1, 0)),
    step(EQUAL, PORT_SINGLE_HOP as u32, (0, 1)),
    step(RETURN, u32::MAX, (0, 0)),
    step(RETURN, 0, (0, 0)),
];

/// The same, without extension headers.
static FILTER_V6: [SockFilter; 7] = [
    step(LOAD_BYTE, 6, (0, 0)),
    step(EQUAL, 17, (0, 4)),
    step(LOAD_HALF, 42, (0, 0)),
    step(EQUAL, PORT_ECHO as u32, (1, 0)),
    step(EQUAL, PORT_SINGLE_HOP as u32, (0, 1)),
    step(RETURN, u32::MAX, (0, 0)),
    step(RETURN, 0, (0, 0)),
];
