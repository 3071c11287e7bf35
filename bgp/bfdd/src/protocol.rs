// SPDX-License-Identifier: Apache-2.0
//! What is said on the socket between `causeway-bfdd` and those who want sessions.
//!
//! Frames: four octets of length, big endian, then JSON. A client says [`Request::Hello`] first.
//! Everything wanted is desired state: it may be said again at any time, on any connection, and a
//! session that is there already is adopted with its state. What a client does not say any more
//! stays until it says [`Request::Release`] or [`Request::Retain`], or has been away for long.

use std::io::{self, Read, Write};
use std::net::IpAddr;

use bgp_bfd::profile::{Auth, AuthType, Hops, Profile};
use bgp_bfd::session::SessionStatus;
use serde::{Deserialize, Serialize};

/// The version of this protocol. A server answers a client of another version with its own and
/// ends the connection; sessions go on.
pub const VERSION: u32 = 1;

/// The longest frame. A report of 4096 sessions fits in.
pub const MAX_FRAME: usize = 8 << 20;

/// Which session: the fields of RFC 5881 §3 and RFC 5883 §3 that a first packet is told by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionKey {
    /// The neighbour.
    pub peer: IpAddr,
    /// Our address; `None` leaves it to the kernel's routes.
    pub local: Option<IpAddr>,
    /// The device the neighbour is behind. Needed for a link-local address.
    pub interface: Option<String>,
    /// One hop or several.
    pub hops: Hops,
}

/// A session that is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    /// Which.
    pub key: SessionKey,
    /// How.
    pub profile: Profile,
    /// The authentication of the profile, whose serialised form has none.
    auth: Option<WireAuth>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireAuth {
    kind: AuthType,
    key_id: u8,
    key: Vec<u8>,
}

impl std::fmt::Debug for WireAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WireAuth(redacted)")
    }
}

impl Wanted {
    /// A session with its profile, secret included.
    pub fn new(key: SessionKey, profile: Profile) -> Wanted {
        let auth = profile.auth.as_ref().map(|auth| WireAuth {
            kind: auth.kind(),
            key_id: auth.key_id(),
            key: auth.reveal().to_vec(),
        });
        Wanted { key, profile, auth }
    }

    /// Which session, and the profile with its secret.
    ///
    /// # Errors
    /// A key of a length that no [`Auth`] has.
    pub fn open(self) -> Result<(SessionKey, Profile), bgp_bfd::profile::ProfileError> {
        let auth = self
            .auth
            .map(|auth| Auth::new(auth.kind, auth.key_id, auth.key))
            .transpose()?;
        Ok((
            self.key,
            Profile {
                auth,
                ..self.profile
            },
        ))
    }
}

/// What a client says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "request")]
pub enum Request {
    /// Who speaks. Sessions belong to owners, not to connections.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// The owner's name.
        owner: String,
    },
    /// This session shall be. Its state is told at once and whenever it changes.
    Want(Box<Wanted>),
    /// This session is not needed any more: shut with AdminDown, then removed.
    Release {
        /// Which.
        key: SessionKey,
    },
    /// Sessions of this owner that were not wanted on this connection are not needed any more.
    Retain,
    /// Everything there is to say, once.
    Report {
        /// Comes back in the answer.
        id: u64,
    },
}

/// What the server says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "event")]
pub enum Event {
    /// The first.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// The process.
        pid: u32,
        /// What is not as it should be, as missing priority; empty if all is well.
        warnings: Vec<String>,
    },
    /// A session as it is.
    State {
        /// Which.
        key: SessionKey,
        /// How it is.
        status: Box<SessionStatus>,
    },
    /// The answer to [`Request::Report`].
    Report {
        /// As asked.
        id: u64,
        /// Everything.
        report: Box<Report>,
    },
}

/// A session with all that is counted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionReport {
    /// Which.
    pub key: SessionKey,
    /// The address its packets come from, once a socket is open.
    pub source: Option<std::net::SocketAddr>,
    /// Who wants it.
    pub owners: Vec<String>,
    /// How it is.
    pub status: SessionStatus,
    /// Packets discarded, by reason.
    pub drops: Vec<(String, u64)>,
    /// Why nothing can be sent, where that is so.
    pub failure: Option<String>,
    /// Packets that could not be sent.
    pub send_failures: u64,
    /// Where the last echo packet of ours came from.
    #[serde(default)]
    pub echo_source: Option<IpAddr>,
    /// Why echo packets that are wanted are not sent or taken, where that is so.
    #[serde(default)]
    pub echo_failure: Option<String>,
    /// The neighbour's echo packets that this process has returned; the kernel's are not counted.
    #[serde(default)]
    pub echoes_reflected: u64,
}

/// Upper ends of the buckets of lateness, in microseconds.
pub const LATENESS_US: [u64; 6] = [100, 1_000, 5_000, 10_000, 50_000, 500_000];

/// Everything the server knows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The process.
    pub pid: u32,
    /// What is not as it should be.
    pub warnings: Vec<String>,
    /// All sessions.
    pub sessions: Vec<SessionReport>,
    /// Packets of no session, by reason.
    pub drops: Vec<(String, u64)>,
    /// How late timers were served: counts for [`LATENESS_US`] and above.
    pub lateness: [u64; 7],
    /// The sum of it, in microseconds.
    pub lateness_sum_us: u64,
    /// The worst, in microseconds.
    pub lateness_max_us: u64,
}

/// Writes one frame.
///
/// # Errors
/// As writing.
pub fn write_frame(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    to.write_all(&encode_frame(message)?)
}

/// One frame as bytes.
///
/// # Errors
/// A message that is too long.
pub fn encode_frame(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
    }
    frame[..4].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(frame)
}

/// Reads one frame; `None` at the end of the stream.
///
/// # Errors
/// As reading, and a frame that is too long or no message.
pub fn read_frame<T: for<'de> Deserialize<'de>>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = frame_length(length)?;
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// The length of a frame by its first four octets.
///
/// # Errors
/// A frame that is too long.
pub fn frame_length(octets: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(octets) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wanted_session_keeps_its_secret_on_the_way_and_shows_it_nowhere_else() {
        let key = SessionKey {
            peer: "192.0.2.1".parse().expect("an address"),
            local: None,
            interface: Some("eth0".into()),
            hops: Hops::Single,
        };
        let profile = Profile {
            auth: Some(Auth::new(AuthType::KeyedSha1, 3, *b"hush").expect("a key")),
            ..Profile::default()
        };
        let wanted = Wanted::new(key.clone(), profile.clone());
        assert!(!format!("{wanted:?}").contains("hush"));
        let mut frame = Vec::new();
        write_frame(&mut frame, &Request::Want(Box::new(wanted))).expect("written");
        let read = read_frame(&mut frame.as_slice()).expect("a frame");
        let Some(Request::Want(wanted)) = read else {
            panic!("another request: {read:?}");
        };
        assert_eq!(wanted.open().expect("valid"), (key, profile));
    }

    #[test]
    fn frames_that_are_too_long_are_refused() {
        let bytes = [0xff; 8];
        assert!(read_frame::<Request>(&mut bytes.as_slice()).is_err());
    }
}
