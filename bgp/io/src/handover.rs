// SPDX-License-Identifier: Apache-2.0
//! Sessions on their way from one process to the next, over a unix socket.
//!
//! One record for each session: the length of a JSON text in four bytes (network order), with the
//! TCP socket beside them (`SCM_RIGHTS`), then the text. The end of the stream is the end.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bgp_core::config::{InstanceName, PeerName};
use bgp_core::peer::Handover;
use bgp_core::rib::Inheritance;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

/// The longest text of a record, for the destinations a neighbour was told: a million of VPNs with
/// five paths each and their identifiers, in hexadecimal digits, with room.
const MAX_LEN: usize = 1 << 30;

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
    /// The listen range it is of; `None` for a configured neighbour.
    pub(crate) range: Option<PeerName>,
    pub(crate) session: Handover,
    /// What the tables leave to those of the next process.
    pub(crate) left: Inheritance,
    /// What waits to be written; may begin in the middle of a message.
    pub(crate) unsent: Vec<u8>,
}

/// Sends sessions to the next process, within a limit of time.
///
/// # Errors
/// When the other end is gone or does not read. Sessions that were not sent end with this process.
pub fn send(
    socket: &mut UnixStream,
    sessions: &[HandedSession],
    limit: Duration,
) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    for session in sessions {
        let text = serde_json::to_vec(&session.record)?;
        let len = u32::try_from(text.len()).map_err(|_| too_long(text.len()))?;
        let descriptors = [session.stream.as_raw_fd()];
        hurry(socket, deadline)?;
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
        let mut rest = &text[..];
        while !rest.is_empty() {
            hurry(socket, deadline)?;
            let written = socket.write(rest)?;
            rest = &rest[written..];
        }
    }
    Ok(())
}

/// Has the next write end by the deadline.
fn hurry(socket: &UnixStream, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    socket.set_write_timeout(Some(left))
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use bgp_core::rib::Announced;
    use router_types::Family;

    use super::*;

    fn session(unsent: usize) -> HandedSession {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        HandedSession {
            stream,
            record: HandoverRecord {
                instance: "i".into(),
                peer: "p".into(),
                session: Handover {
                    sent: vec![1],
                    received: vec![2],
                    unread: Vec::new(),
                },
                range: None,
                left: Inheritance {
                    number: 3,
                    announced: vec![Announced {
                        family: Family::IPV4_UNICAST,
                        add_path: true,
                        nlri: vec![0, 0, 0, 1, 8, 10],
                    }],
                    memberships: Some(vec![0]),
                },
                unsent: vec![7; unsent],
            },
        }
    }

    #[test]
    fn who_does_not_read_holds_nobody_up() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let began = Instant::now();
        let sessions = [session(4 << 20), session(4 << 20)];
        let limit = Duration::from_millis(300);
        let error = send(&mut here, &sessions, limit).unwrap_err();
        let waited = began.elapsed();
        assert!(
            matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ),
            "{error}"
        );
        // Generous: other tests run beside.
        assert!(waited < Duration::from_secs(20), "{waited:?}");
        drop(there);
    }

    #[test]
    fn who_reads_slowly_gets_all_within_the_limit() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let reader = std::thread::spawn(move || receive(&mut there).unwrap());
        let sessions = [session(1 << 20), session(0)];
        send(&mut here, &sessions, Duration::from_secs(60)).unwrap();
        drop(here);
        let received = reader.join().unwrap();
        let records: Vec<_> = received.iter().map(|session| &session.record).collect();
        assert_eq!(records, [&sessions[0].record, &sessions[1].record]);
    }
}
