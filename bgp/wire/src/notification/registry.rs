// SPDX-License-Identifier: Apache-2.0
//! The registry of NOTIFICATION codes and subcodes, and what each one means to an operator.

use core::fmt;

/// Code and subcode of a NOTIFICATION (IANA "BGP Error (Notification) Codes").
///
/// Any pair can be expressed; the constants are those with a known name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ErrorKind {
    /// Error code.
    pub code: u8,
    /// Error subcode; 0 is "unspecific".
    pub subcode: u8,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal / $subcode:literal, $text:literal, $meaning:literal;)*) => {
        impl ErrorKind {
            $($(#[$doc])* pub const $name: ErrorKind = ErrorKind { code: $code, subcode: $subcode };)*
        }
        /// Kind, name of the subcode, meaning.
        const REGISTRY: &[(ErrorKind, &str, &str)] = &[$((ErrorKind::$name, $text, $meaning),)*];
    };
}

// A macro because each row is both a constant and a table entry, and they must not drift apart.
kinds! {
    /// RFC 4271 §6.1.
    HEADER = 1/0, "", "The other side could not read the header of a message.";
    /// RFC 4271 §6.1.
    CONNECTION_NOT_SYNCHRONIZED = 1/1, "Connection Not Synchronized",
        "A message did not start with the BGP marker: bytes were lost or added on the way, or the other end does not speak BGP.";
    /// RFC 4271 §6.1.
    BAD_MESSAGE_LENGTH = 1/2, "Bad Message Length",
        "A message was shorter or longer than its type allows. Messages over 4096 octets need the extended message capability on both sides.";
    /// RFC 4271 §6.1.
    BAD_MESSAGE_TYPE = 1/3, "Bad Message Type",
        "A message of a type the receiver does not know, for instance a route refresh it never offered.";
    /// RFC 4271 §6.2.
    OPEN = 2/0, "", "The OPEN message was malformed. Some old routers send this for any capability they do not know.";
    /// RFC 4271 §6.2.
    UNSUPPORTED_VERSION = 2/1, "Unsupported Version Number", "The peer does not speak BGP version 4.";
    /// RFC 4271 §6.2.
    BAD_PEER_AS = 2/2, "Bad Peer AS",
        "The AS number in the OPEN is not the one the receiver has configured for this neighbour: compare the peer AS and the local AS on both sides.";
    /// RFC 4271 §6.2.
    BAD_BGP_IDENTIFIER = 2/3, "Bad BGP Identifier",
        "The router ID is zero or the same on both sides: give each router its own.";
    /// RFC 4271 §6.2.
    UNSUPPORTED_OPTIONAL_PARAMETER = 2/4, "Unsupported Optional Parameter",
        "The receiver does not know an optional parameter of the OPEN, on very old routers the capabilities themselves.";
    /// RFC 4271 §6.2.
    UNACCEPTABLE_HOLD_TIME = 2/6, "Unacceptable Hold Time",
        "The offered hold time is refused: it must be 0 or at least 3 seconds, and some routers demand more.";
    /// RFC 5492 §5.
    UNSUPPORTED_CAPABILITY = 2/7, "Unsupported Capability",
        "The receiver demands a capability the other side did not offer, often an address family configured on one side only.";
    /// RFC 9234 §6.
    ROLE_MISMATCH = 2/11, "Role Mismatch",
        "The BGP roles of the two sides do not fit: provider goes with customer, route server with its client, peer with peer.";
    /// RFC 4271 §6.3.
    UPDATE = 3/0, "", "The receiver could not accept an UPDATE message.";
    /// RFC 4271 §6.3.
    MALFORMED_ATTRIBUTE_LIST = 3/1, "Malformed Attribute List",
        "The lengths inside an UPDATE contradict each other, or an attribute that must be unique came twice.";
    /// RFC 4271 §6.3.
    UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE = 3/2, "Unrecognized Well-known Attribute",
        "An UPDATE carried an attribute marked as one every router must know, and the receiver does not.";
    /// RFC 4271 §6.3.
    MISSING_WELL_KNOWN_ATTRIBUTE = 3/3, "Missing Well-known Attribute",
        "An UPDATE lacked a mandatory attribute: origin, AS path or next hop.";
    /// RFC 4271 §6.3.
    ATTRIBUTE_FLAGS = 3/4, "Attribute Flags Error",
        "An attribute's flags contradict its type.";
    /// RFC 4271 §6.3.
    ATTRIBUTE_LENGTH = 3/5, "Attribute Length Error",
        "An attribute's length is impossible for its type.";
    /// RFC 4271 §6.3.
    INVALID_ORIGIN = 3/6, "Invalid ORIGIN Attribute",
        "The origin of a route is none of IGP, EGP and incomplete.";
    /// RFC 4271 §6.3.
    INVALID_NEXT_HOP = 3/8, "Invalid NEXT_HOP Attribute",
        "The next hop is no address a packet could be sent to.";
    /// RFC 4271 §6.3.
    OPTIONAL_ATTRIBUTE = 3/9, "Optional Attribute Error",
        "An optional attribute, often the one that carries IPv6 routes, could not be read.";
    /// RFC 4271 §6.3.
    INVALID_NETWORK_FIELD = 3/10, "Invalid Network Field",
        "A prefix in an UPDATE could not be read. If add-path is in use, both sides may disagree about it.";
    /// RFC 4271 §6.3.
    MALFORMED_AS_PATH = 3/11, "Malformed AS_PATH",
        "An AS path could not be read; also sent by routers that insist on the neighbour's AS coming first.";
    /// RFC 4271 §6.5.
    HOLD_TIMER_EXPIRED = 4/0, "",
        "Nothing was heard for the whole hold time: the link, the other router's CPU or the path's MTU is in trouble.";
    /// RFC 4271 §6.6.
    FSM = 5/0, "", "A message came that is not allowed in the receiver's state.";
    /// RFC 6608 §3.
    UNEXPECTED_IN_OPEN_SENT = 5/1, "Receive Unexpected Message in OpenSent State",
        "Something else than an OPEN came as the first message.";
    /// RFC 6608 §3.
    UNEXPECTED_IN_OPEN_CONFIRM = 5/2, "Receive Unexpected Message in OpenConfirm State",
        "Something else than a keepalive came after the OPEN.";
    /// RFC 6608 §3.
    UNEXPECTED_IN_ESTABLISHED = 5/3, "Receive Unexpected Message in Established State",
        "An OPEN came on a session that was already up.";
    /// RFC 4271 §6.7.
    CEASE = 6/0, "", "The other side ended the session without giving a reason.";
    /// RFC 4486 §4.
    MAXIMUM_PREFIXES = 6/1, "Maximum Number of Prefixes Reached",
        "More prefixes were advertised than the receiver allows this neighbour. Many routers stay closed until their operator clears the session.";
    /// RFC 4486 §4.
    ADMINISTRATIVE_SHUTDOWN = 6/2, "Administrative Shutdown",
        "An operator shut the session down.";
    /// RFC 4486 §4.
    PEER_DECONFIGURED = 6/3, "Peer De-configured",
        "The neighbour was removed from the configuration.";
    /// RFC 4486 §4.
    ADMINISTRATIVE_RESET = 6/4, "Administrative Reset",
        "An operator reset the session; it may come back at once.";
    /// RFC 4486 §4.
    CONNECTION_REJECTED = 6/5, "Connection Rejected",
        "The connection was refused after it was accepted: the neighbour is not configured there, or not for this address.";
    /// RFC 4486 §4.
    OTHER_CONFIGURATION_CHANGE = 6/6, "Other Configuration Change",
        "A change of configuration forced a new session.";
    /// RFC 4486 §4.
    CONNECTION_COLLISION = 6/7, "Connection Collision Resolution",
        "Both sides connected at the same time and this connection lost: normal, the other one goes on.";
    /// RFC 4486 §4.
    OUT_OF_RESOURCES = 6/8, "Out of Resources",
        "The other router has run out of memory or another resource.";
    /// RFC 8538 §3.
    HARD_RESET = 6/9, "Hard Reset",
        "The session was ended for good: routes are not kept by graceful restart.";
    /// RFC 9384 §3.
    BFD_DOWN = 6/10, "BFD Down",
        "BFD found the path to the neighbour broken.";
    /// RFC 7313 §5.
    ROUTE_REFRESH = 7/0, "", "A route refresh could not be accepted.";
    /// RFC 7313 §5.
    REFRESH_INVALID_LENGTH = 7/1, "Invalid Message Length",
        "A route refresh had a wrong length.";
    /// RFC 9687 §6.
    SEND_HOLD_TIMER_EXPIRED = 8/0, "",
        "Nothing could be sent for the whole send hold time: the other side stopped reading.";
}

impl ErrorKind {
    /// The name of the code, `None` when it is not registered.
    pub const fn code_name(self) -> Option<&'static str> {
        match self.code {
            1 => Some("Message Header Error"),
            2 => Some("OPEN Message Error"),
            3 => Some("UPDATE Message Error"),
            4 => Some("Hold Timer Expired"),
            5 => Some("Finite State Machine Error"),
            6 => Some("Cease"),
            7 => Some("ROUTE-REFRESH Message Error"),
            8 => Some("Send Hold Timer Expired"),
            _ => None,
        }
    }

    /// The name of the subcode, `None` when it is 0 or not registered.
    pub fn subcode_name(self) -> Option<&'static str> {
        self.entry()
            .map(|&(_, name, _)| name)
            .filter(|name| !name.is_empty())
    }

    /// One sentence for an operator: what happened and where to look.
    pub fn meaning(self) -> &'static str {
        match self.entry() {
            Some(&(_, _, meaning)) => meaning,
            None => match (ErrorKind {
                code: self.code,
                subcode: 0,
            })
            .entry()
            {
                Some(&(_, _, meaning)) => meaning,
                None => "A reason this version does not know.",
            },
        }
    }

    /// Whether a Shutdown Communication may follow (RFC 9003 §2).
    pub fn carries_communication(self) -> bool {
        self == Self::ADMINISTRATIVE_SHUTDOWN || self == Self::ADMINISTRATIVE_RESET
    }

    fn entry(self) -> Option<&'static (ErrorKind, &'static str, &'static str)> {
        REGISTRY.iter().find(|(kind, ..)| *kind == self)
    }
}

impl fmt::Display for ErrorKind {
    /// `OPEN Message Error / Bad Peer AS (2/2)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code_name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "code {}", self.code)?,
        }
        match self.subcode_name() {
            Some(name) => write!(f, " / {name}")?,
            None if self.subcode != 0 => write!(f, " / subcode {}", self.subcode)?,
            None => {}
        }
        write!(f, " ({}/{})", self.code, self.subcode)
    }
}
