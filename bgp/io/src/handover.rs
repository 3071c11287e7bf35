// SPDX-License-Identifier: Apache-2.0
//! Sessions on their way from one process to the next, over a unix socket.
//!
//! One record for each session: the length of a JSON text in four bytes (network order), with the
//! TCP socket beside them (`SCM_RIGHTS`), then the text. The end of the stream is the end.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use bgp_core::config::{InstanceName, PeerName};
use bgp_core::peer::Handover;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

/// The longest text of a record: a message that is not complete and what waits to be written, in
/// hexadecimal digits, with room.
const MAX_LEN: usize = 64 << 20;

/// An established session with its connection.
#[derive(Debug)]
pub struct HandedSession {
    /// The connection.
    pub(crate) stream: TcpStream,
    pub(crate) record: HandoverRecord,
}

/// What is passed on beside the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandoverRecord {
    pub(crate) instance: InstanceName,
    pub(crate) peer: PeerName,
    pub(crate) session: Handover,
    /// The prefixes the neighbour was told. What the next process does not announce to it is
    /// withdrawn.
    pub(crate) announced: Vec<String>,
    /// What waits to be written; may begin in the middle of a message.
    pub(crate) unsent: Vec<u8>,
}

/// Sends sessions to the next process.
///
/// # Errors
/// When the other end is gone. Sessions that were not sent end with this process.
pub fn send(socket: &mut UnixStream, sessions: &[HandedSession]) -> io::Result<()> {
    for session in sessions {
        let text = serde_json::to_vec(&session.record)?;
        let len = u32::try_from(text.len()).map_err(|_| too_long(text.len()))?;
        let descriptors = [session.stream.as_raw_fd()];
        let sent = sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(&len.to_be_bytes())],
            &[ControlMessage::ScmRights(&descriptors)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        if sent != size_of::<u32>() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        socket.write_all(&text)?;
    }
    Ok(())
}

/// Receives sessions until the other end closes.
///
/// # Errors
/// When what comes is no record. Sessions received until then are lost with it: their neighbours
/// see the connection end, as they would have without a handover.
pub fn receive(socket: &mut UnixStream) -> io::Result<Vec<HandedSession>> {
    let mut sessions = Vec::new();
    while let Some((len, stream)) = head(socket)? {
        if len > MAX_LEN {
            return Err(too_long(len));
        }
        let mut text = vec![0; len];
        socket.read_exact(&mut text)?;
        let record = serde_json::from_slice(&text)?;
        sessions.push(HandedSession { stream, record });
    }
    Ok(sessions)
}

/// The length of the next record and its connection; `None` at the end.
fn head(socket: &UnixStream) -> io::Result<Option<(usize, TcpStream)>> {
    let mut len = [0; size_of::<u32>()];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let (bytes, stream) = {
        let mut slices = [IoSliceMut::new(&mut len)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_WAITALL;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
        let mut stream = None;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = control {
                for descriptor in descriptors {
                    // SAFETY: the kernel has just made this descriptor for this process, and
                    // nobody else knows of it.
                    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
                    stream = Some(TcpStream::from(owned));
                }
            }
        }
        (message.bytes, stream)
    };
    match (bytes, stream) {
        (0, _) => Ok(None),
        (4, Some(stream)) => Ok(Some((u32::from_be_bytes(len) as usize, stream))),
        (_, _) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a record without its length or its connection: is it the same version that hands over?",
        )),
    }
}

fn too_long(len: usize) -> io::Error {
    let text = format!("a session of {len} bytes: more than {MAX_LEN} are not handed over");
    io::Error::new(io::ErrorKind::InvalidData, text)
}
