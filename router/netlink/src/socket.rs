// SPDX-License-Identifier: Apache-2.0
//! The conversation with the kernel: requests, acknowledgements, dumps and batches.
//!
//! One request is outstanding at a time and each has its own sequence number, so an answer to an
//! abandoned request is recognised and skipped. `NETLINK_EXT_ACK` brings the kernel's sentence with
//! an error, `NETLINK_CAP_ACK` leaves our own request out of it, `NETLINK_GET_STRICT_CHK` makes it
//! filter dumps by what we ask for (Linux 4.20).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::error::Problem;

/// Messages sent with one system call. Each failing one costs about a kilobyte of receive buffer
/// (default 208 KiB) before we come to read it.
pub(crate) const BATCH: usize = 128;

/// How long the kernel may take to answer, in seconds. It answers before the send returns unless
/// something is very wrong.
const ANSWER_TIMEOUT_S: i64 = 10;

/// Large enough for the kernel's largest dump datagram (32 KiB) and a link with many functions.
const RECEIVE_BUFFER: usize = 128 * 1024;

/// How often an interrupted dump is started again before its inconsistent result is taken.
const DUMP_ATTEMPTS: u32 = 4;

const NLMSG_HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`: the kernel's sentence.
const ATTR_MSG: u16 = 1;

/// One message as it lies in the receive buffer.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) message_type: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// The socket whose request this answers or tells of; 0 for the kernel's own doing.
    pub(crate) port: u32,
    /// Header and payload.
    pub(crate) bytes: &'a [u8],
}

impl Frame<'_> {
    /// The routing message inside; `None` when it is something else or malformed.
    pub(crate) fn decode(&self) -> Option<RouteNetlinkMessage> {
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(self.bytes) {
            Ok(message) => match message.payload {
                NetlinkPayload::InnerMessage(inner) => Some(inner),
                _ => None,
            },
            Err(error) => {
                tracing::debug!(message_type = self.message_type, %error, "netlink message skipped");
                None
            }
        }
    }
}

/// Splits what was received into messages. Stops at the first malformed one.
pub(crate) fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..NLMSG_HEADER)?;
        let length = u32::from_ne_bytes(header[0..4].try_into().ok()?) as usize;
        if length < NLMSG_HEADER {
            return None;
        }
        let frame = Frame {
            message_type: u16::from_ne_bytes(header[4..6].try_into().ok()?),
            flags: u16::from_ne_bytes(header[6..8].try_into().ok()?),
            sequence: u32::from_ne_bytes(header[8..12].try_into().ok()?),
            port: u32::from_ne_bytes(header[12..16].try_into().ok()?),
            bytes: bytes.get(..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(frame)
    })
}

/// A request with its flags besides `NLM_F_REQUEST`.
pub(crate) struct Request {
    pub(crate) message: RouteNetlinkMessage,
    pub(crate) flags: u16,
}

/// A netlink socket in the namespace of the thread that opened it.
pub(crate) struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Socket {
    pub(crate) fn open() -> io::Result<Self> {
        let mut inner = netlink_sys::Socket::new(NETLINK_ROUTE)?;
        inner.bind_auto()?;
        inner.set_ext_ack(true)?;
        inner.set_cap_ack(true)?;
        inner.set_netlink_get_strict_chk(true)?;
        setsockopt(
            &inner,
            sockopt::ReceiveTimeout,
            &TimeVal::seconds(ANSWER_TIMEOUT_S),
        )?;
        Ok(Socket {
            inner,
            sequence: 0,
            outgoing: Vec::new(),
            incoming: Vec::with_capacity(RECEIVE_BUFFER),
        })
    }

    /// The address the kernel knows the socket by.
    pub(crate) fn port(&self) -> io::Result<u32> {
        let mut address = netlink_sys::SocketAddr::new(0, 0);
        self.inner.get_address(&mut address)?;
        Ok(address.port_number())
    }

    /// Asks for one change and waits for the kernel's word.
    pub(crate) fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), Problem> {
        let mut results = self.batch(vec![Request { message, flags }])?;
        results.pop().unwrap_or(Err(Problem::Silent))
    }

    /// Asks for many changes; one result for each, in order. The kernel carries all of them out,
    /// also those after a failing one. Only the last is acknowledged on success: errors are
    /// always reported.
    ///
    /// # Errors
    ///
    /// When the conversation itself failed: what was done is then unknown.
    pub(crate) fn batch(
        &mut self,
        requests: Vec<Request>,
    ) -> Result<Vec<Result<(), Problem>>, Problem> {
        let mut results = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            self.outgoing.clear();
            let first = self.sequence.wrapping_add(1);
            let mut count = 0u32;
            while let Some(request) = requests.next_if(|_| (count as usize) < BATCH) {
                count += 1;
                let last = count as usize == BATCH || requests.peek().is_none();
                self.push(
                    request.message,
                    request.flags | if last { NLM_F_ACK } else { 0 },
                );
            }
            self.send()?;
            let start = results.len();
            results.resize_with(start + count as usize, || Ok(()));
            self.collect(first, count, &mut results[start..])?;
        }
        Ok(results)
    }

    /// Asks for one object.
    pub(crate) fn get(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, Problem> {
        self.outgoing.clear();
        self.push(message, 0);
        self.send()?;
        loop {
            self.receive()?;
            for frame in frames(&self.incoming) {
                if frame.sequence != self.sequence {
                    continue;
                }
                return match answer(&frame) {
                    Some(result) => result.and(Err(Problem::NotFound)),
                    None => frame.decode().ok_or(Problem::Garbled),
                };
            }
        }
    }

    /// Asks for all objects of a kind, one datagram at a time.
    pub(crate) fn dump(
        &mut self,
        message: &RouteNetlinkMessage,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), Problem> {
        let mut collected = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            collected.clear();
            self.dump_start(message.clone())?;
            let mut consistent = true;
            while let Some(chunk) = self.dump_next(|message| collected.push(message))? {
                consistent &= chunk.consistent;
            }
            if consistent {
                break;
            }
            tracing::debug!("the objects changed while they were listed; listing again");
        }
        collected.into_iter().for_each(&mut each);
        Ok(())
    }

    pub(crate) fn dump_start(&mut self, message: RouteNetlinkMessage) -> Result<(), Problem> {
        self.outgoing.clear();
        self.push(message, NLM_F_DUMP);
        self.send()
    }

    /// Reads one datagram of a dump; `None` after the last.
    pub(crate) fn dump_next(
        &mut self,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<Option<Chunk>, Problem> {
        self.receive()?;
        let mut chunk = Chunk { consistent: true };
        for frame in frames(&self.incoming) {
            if frame.sequence != self.sequence {
                continue;
            }
            chunk.consistent &= frame.flags & NLM_F_DUMP_INTR == 0;
            match answer(&frame) {
                Some(result) => return result.map(|()| None),
                None => {
                    if let Some(message) = frame.decode() {
                        each(message);
                    }
                }
            }
        }
        Ok(Some(chunk))
    }

    fn push(&mut self, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let start = self.outgoing.len();
        self.outgoing
            .resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut self.outgoing[start..]);
    }

    fn send(&mut self) -> Result<(), Problem> {
        let sent = self.inner.send(&self.outgoing, 0)?;
        if sent != self.outgoing.len() {
            return Err(Problem::Lost);
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), Problem> {
        loop {
            self.incoming.clear();
            return match self.inner.recv(&mut self.incoming, 0) {
                Ok(_) => Ok(()),
                Err(error) => Err(match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EINTR) => continue,
                    Some(Errno::EAGAIN) => Problem::Silent,
                    Some(Errno::ENOBUFS) => Problem::Lost,
                    _ => Problem::System(error),
                }),
            };
        }
    }

    /// Reads answers until the one to the last request of a batch, whose first sequence number is
    /// `first`.
    fn collect(
        &mut self,
        first: u32,
        count: u32,
        results: &mut [Result<(), Problem>],
    ) -> Result<(), Problem> {
        loop {
            self.receive()?;
            for frame in frames(&self.incoming) {
                let position = frame.sequence.wrapping_sub(first);
                if position >= count {
                    continue;
                }
                if let Some(result) = answer(&frame) {
                    results[position as usize] = result;
                    if position == count - 1 {
                        return Ok(());
                    }
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// One datagram of a dump.
pub(crate) struct Chunk {
    /// False when the objects changed meanwhile, so that some may be missing or doubled.
    pub(crate) consistent: bool,
}

/// What an acknowledgement, an error or the end of a dump says; `None` for any other message.
fn answer(frame: &Frame<'_>) -> Option<Result<(), Problem>> {
    if !matches!(frame.message_type, NLMSG_ERROR | NLMSG_DONE) {
        return None;
    }
    let payload = &frame.bytes[NLMSG_HEADER..];
    let code = payload
        .get(..4)
        .and_then(|c| c.try_into().ok())
        .map_or(0, i32::from_ne_bytes);
    if code == 0 {
        return Some(Ok(()));
    }
    Some(Err(Problem::Refused {
        errno: Errno::from_raw(-code),
        kernel_text: extended_text(frame, payload),
    }))
}

/// The kernel's sentence in the attributes after an error (`struct nlmsgerr`), where there is one.
fn extended_text(frame: &Frame<'_>, payload: &[u8]) -> Option<String> {
    if frame.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let mut rest = match frame.message_type {
        NLMSG_DONE => payload.get(4..)?,
        // code, then our request's header, with its payload unless capped
        _ => {
            let echoed = if frame.flags & NLM_F_CAPPED != 0 {
                NLMSG_HEADER
            } else {
                u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?) as usize
            };
            payload.get(4 + echoed.next_multiple_of(4)..)?
        }
    };
    while let Some(header) = rest.get(..4) {
        let length = usize::from(u16::from_ne_bytes(header[0..2].try_into().ok()?));
        let kind = u16::from_ne_bytes(header[2..4].try_into().ok()?) & 0x3fff;
        let value = rest.get(4..length)?;
        if kind == ATTR_MSG {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_datagrams_end_the_iteration() {
        for bytes in [&[][..], &[0; 15], &[0; 16], &[255; 64]] {
            assert_eq!(frames(bytes).count(), 0, "{bytes:?}");
        }
    }

    #[test]
    fn a_refusal_carries_the_kernels_sentence() {
        let text = b"Nexthop has invalid gateway\0";
        let mut bytes = Vec::new();
        let total = NLMSG_HEADER + 4 + NLMSG_HEADER + 4 + text.len();
        bytes.extend((total as u32).to_ne_bytes());
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend((NLM_F_CAPPED | NLM_F_ACK_TLVS).to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend((-(Errno::ENETUNREACH as i32)).to_ne_bytes());
        bytes.extend([0; NLMSG_HEADER]);
        bytes.extend((4 + text.len() as u16).to_ne_bytes());
        bytes.extend(ATTR_MSG.to_ne_bytes());
        bytes.extend(text);
        let frame = frames(&bytes).next().unwrap();
        assert_eq!(frame.sequence, 7);
        let Some(Err(Problem::Refused { errno, kernel_text })) = answer(&frame) else {
            panic!("an error");
        };
        assert_eq!(errno, Errno::ENETUNREACH);
        assert_eq!(kernel_text.as_deref(), Some("Nexthop has invalid gateway"));
    }
}
