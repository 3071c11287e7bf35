// SPDX-License-Identifier: Apache-2.0
//! Control packets (RFC 5880 §4.1). [`decode`] takes any bytes and never panics.

mod auth;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use auth::{AuthSection, SequenceNumber};

use crate::profile::Auth;

/// The length of a packet without authentication.
pub const HEADER: usize = 24;

/// The longest packet there is, with SHA1.
pub const MAX: usize = HEADER + 28;

/// UDP port of sessions over one hop (RFC 5881 §4).
pub const PORT_SINGLE_HOP: u16 = 3784;
/// UDP port of echo packets (RFC 5881 §4).
pub const PORT_ECHO: u16 = 3785;
/// UDP port of sessions over several hops (RFC 5883 §5).
pub const PORT_MULTI_HOP: u16 = 4784;

/// A session state (RFC 5880 §4.1 `Sta`).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Shut by its operator.
    AdminDown,
    /// Nothing is heard, or the neighbour does not hear us.
    #[default]
    Down,
    /// The neighbour is heard, and does not know yet.
    Init,
    /// Both hear each other.
    Up,
}

impl State {
    const ALL: [State; 4] = [State::AdminDown, State::Down, State::Init, State::Up];

    /// The name as printed: `admin_down`, `down`, `init`, `up`.
    pub const fn name(self) -> &'static str {
        match self {
            State::AdminDown => "admin_down",
            State::Down => "down",
            State::Init => "init",
            State::Up => "up",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a session last went down (RFC 5880 §4.1 `Diag`). Codes beyond the registered are kept.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Diagnostic(u8);

impl Diagnostic {
    /// 0.
    pub const NONE: Diagnostic = Diagnostic(0);
    /// 1: nothing came for the detection time.
    pub const DETECTION_TIME_EXPIRED: Diagnostic = Diagnostic(1);
    /// 2: our echo packets did not come back.
    pub const ECHO_FAILED: Diagnostic = Diagnostic(2);
    /// 3: the neighbour said so.
    pub const NEIGHBOR_DOWN: Diagnostic = Diagnostic(3);
    /// 7: an operator did.
    pub const ADMIN_DOWN: Diagnostic = Diagnostic(7);

    /// Takes the five bits of a packet.
    pub const fn new(code: u8) -> Diagnostic {
        Diagnostic(code & 0x1f)
    }

    /// The code.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// What it means.
    pub const fn text(self) -> &'static str {
        match self.0 {
            0 => "no diagnostic",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbor signaled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            _ => "reserved for future use",
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// A control packet without its authentication.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Packet {
    /// Why the sender's session last went down.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// P: an answer is demanded.
    pub poll: bool,
    /// F: this is the answer.
    pub last: bool,
    /// C: the sender's BFD does not share the fate of its control plane.
    pub control_plane_independent: bool,
    /// D: the sender wants no periodic packets while up.
    pub demand: bool,
    /// Lost packets in a row that mean down. Not 0.
    pub multiplier: u8,
    /// The sender's number of the session. Not 0.
    pub my_discriminator: u32,
    /// The receiver's number of the session; 0 before it is known.
    pub your_discriminator: u32,
    /// Microseconds.
    pub desired_min_tx_us: u32,
    /// Microseconds; 0: send nothing periodically.
    pub required_min_rx_us: u32,
    /// Microseconds; 0: no echo packets.
    pub required_min_echo_rx_us: u32,
}

/// A packet taken apart, authentication unverified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received<'a> {
    /// The packet.
    pub packet: Packet,
    /// Its authentication section, where it has one.
    pub auth: Option<AuthSection<'a>>,
    /// All its bytes, as long as its length field says.
    pub bytes: &'a [u8],
}

/// Why a packet is discarded before its session is looked for (RFC 5880 §6.8.6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than a packet, or than its own length field.
    #[error("truncated")]
    Truncated,
    /// A version other than 1.
    #[error("version is not 1")]
    Version,
    /// A length field that leaves no place for what must be there.
    #[error("bad length field")]
    Length,
    /// The multiplier is 0.
    #[error("detect multiplier is 0")]
    Multiplier,
    /// The M bit, reserved for point-to-multipoint.
    #[error("multipoint bit is set")]
    Multipoint,
    /// The sender has no number for the session.
    #[error("my discriminator is 0")]
    Discriminator,
    /// No number of ours in a state that presumes one.
    #[error("your discriminator is 0 in state {0}")]
    NoDiscriminator(State),
    /// An authentication section of unknown type or of a wrong length.
    #[error("malformed authentication section")]
    Auth,
}

/// Takes a packet apart and checks what can be checked without its session.
///
/// # Errors
/// Why it is to be discarded.
pub fn decode(bytes: &[u8]) -> Result<Received<'_>, DecodeError> {
    let header: &[u8; HEADER] = bytes.first_chunk().ok_or(DecodeError::Truncated)?;
    if header[0] >> 5 != 1 {
        return Err(DecodeError::Version);
    }
    let flags = header[1];
    let authenticated = flags & 0x04 != 0;
    let length = usize::from(header[3]);
    if length < HEADER + if authenticated { 2 } else { 0 } {
        return Err(DecodeError::Length);
    }
    let bytes = bytes.get(..length).ok_or(DecodeError::Truncated)?;
    if header[2] == 0 {
        return Err(DecodeError::Multiplier);
    }
    if flags & 0x01 != 0 {
        return Err(DecodeError::Multipoint);
    }
    let word = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let packet = Packet {
        diagnostic: Diagnostic::new(header[0]),
        state: State::ALL[usize::from(flags >> 6)],
        poll: flags & 0x20 != 0,
        last: flags & 0x10 != 0,
        control_plane_independent: flags & 0x08 != 0,
        demand: flags & 0x02 != 0,
        multiplier: header[2],
        my_discriminator: word(4),
        your_discriminator: word(8),
        desired_min_tx_us: word(12),
        required_min_rx_us: word(16),
        required_min_echo_rx_us: word(20),
    };
    if packet.my_discriminator == 0 {
        return Err(DecodeError::Discriminator);
    }
    if packet.your_discriminator == 0 && matches!(packet.state, State::Init | State::Up) {
        return Err(DecodeError::NoDiscriminator(packet.state));
    }
    let auth = authenticated
        .then(|| AuthSection::decode(&bytes[HEADER..]).ok_or(DecodeError::Auth))
        .transpose()?;
    Ok(Received {
        packet,
        auth,
        bytes,
    })
}

/// The bytes of one packet, without memory of their own to manage.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Encoded {
    bytes: [u8; MAX],
    length: u8,
}

impl Encoded {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({} octets)", self.length)
    }
}

impl Packet {
    /// The bytes, authenticated where a key is given.
    pub fn encode(&self, auth: Option<(&Auth, SequenceNumber)>) -> Encoded {
        let mut bytes = [0; MAX];
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        bytes[0] = 1 << 5 | self.diagnostic.code();
        bytes[1] = (self.state as u8) << 6
            | flag(self.poll, 0x20)
            | flag(self.last, 0x10)
            | flag(self.control_plane_independent, 0x08)
            | flag(auth.is_some(), 0x04)
            | flag(self.demand, 0x02);
        bytes[2] = self.multiplier;
        for (at, word) in [
            (4, self.my_discriminator),
            (8, self.your_discriminator),
            (12, self.desired_min_tx_us),
            (16, self.required_min_rx_us),
            (20, self.required_min_echo_rx_us),
        ] {
            bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
        }
        let length = match auth {
            None => HEADER,
            Some((auth, sequence)) => auth::append(&mut bytes, auth, sequence),
        };
        bytes[3] = length as u8;
        if let Some((auth, _)) = auth {
            auth::seal(&mut bytes[..length], auth);
        }
        Encoded {
            bytes,
            length: length as u8,
        }
    }
}

#[cfg(test)]
mod tests;
