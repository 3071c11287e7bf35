// SPDX-License-Identifier: Apache-2.0
//! Why a session is down, as data and in an operator's words.

use std::fmt;

use bgp_wire::{ErrorKind, Notification};
use router_types::{Asn, Family};
use serde::{Deserialize, Serialize};

use crate::fsm::State;
use crate::serial;

/// What the transport reports about an attempt or a connection that failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TransportFailure {
    /// What happened.
    pub kind: FailureKind,
    /// The system's own words.
    pub text: String,
}

/// The sort of a transport failure, as far as it changes what to look for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FailureKind {
    /// Nobody listens there (`ECONNREFUSED`).
    Refused,
    /// Nobody answered (`ETIMEDOUT`).
    TimedOut,
    /// Nobody answered, and the neighbour is farther than the TTL reaches: one hop away, but on no
    /// network of this node.
    OffLink,
    /// No way to get there (`ENETUNREACH`, `EHOSTUNREACH`).
    Unreachable,
    /// The neighbour broke the connection (`ECONNRESET`, `EPIPE`).
    Reset,
    /// The neighbour closed the connection.
    Closed,
    /// The local address or interface to call from is not there (`EADDRNOTAVAIL`, `ENODEV`).
    NoLocalAddress,
    /// Anything else.
    Other,
}

/// Why the caller ends a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum StopReason {
    /// Shut down by an operator, with words for the neighbour's (RFC 9003).
    Shutdown {
        /// Up to 255 bytes; empty for none.
        message: String,
    },
    /// The neighbour is configured no more.
    Deconfigured,
    /// A configuration change that needs another session.
    ConfigurationChange,
    /// Reset by an operator; comes back at once.
    Reset,
    /// More routes than the import policy allows; comes back after a long pause.
    PrefixLimit {
        /// The limit.
        limit: u32,
        /// The family.
        #[serde(with = "serial::family")]
        family: Family,
        /// The pause in seconds; 0 waits for an operator.
        restart_s: u32,
    },
    /// Nothing could be sent for the send hold time (RFC 9687).
    SendHoldTimer,
    /// The link to the neighbour went down; comes back by itself.
    LinkDown {
        /// The device.
        interface: String,
    },
    /// BFD found the path to the neighbour broken (RFC 5882 §4.3).
    BfdDown {
        /// What BFD says, in words.
        text: String,
        /// Whether the neighbour's BFD shares the fate of its control plane (C bit clear): it may
        /// only be restarting, and its routes are then kept as graceful restart has it (RFC 5882
        /// §4.3.2).
        may_be_restart: bool,
        /// Whether the session waits for BFD, rather than for a pause.
        waits: bool,
    },
    /// This speaker restarts and will be back. Where graceful restart was agreed the connection is
    /// closed without a word, so that the neighbour keeps the routes (RFC 4724 §4); elsewhere the
    /// neighbour is told.
    PlannedRestart,
    /// The instance stops because of what is said here.
    Other {
        /// For logs and status.
        text: String,
    },
}

impl StopReason {
    /// Whether the session ends for good, or for so long that routes must not outlive it: said as a
    /// Hard Reset where the neighbour would keep them otherwise (RFC 8538 §5.1).
    pub fn is_final(&self) -> bool {
        match self {
            StopReason::Shutdown { .. }
            | StopReason::Deconfigured
            | StopReason::PrefixLimit { .. }
            | StopReason::LinkDown { .. }
            | StopReason::PlannedRestart
            | StopReason::Other { .. } => true,
            StopReason::BfdDown { may_be_restart, .. } => !may_be_restart,
            StopReason::ConfigurationChange | StopReason::Reset | StopReason::SendHoldTimer => {
                false
            }
        }
    }

    /// The NOTIFICATION to say goodbye with.
    pub(super) fn notification(&self) -> Notification {
        match self {
            StopReason::Shutdown { message } => {
                Notification::with_communication(ErrorKind::ADMINISTRATIVE_SHUTDOWN, message)
            }
            StopReason::Deconfigured => Notification::new(ErrorKind::PEER_DECONFIGURED),
            StopReason::ConfigurationChange => {
                Notification::new(ErrorKind::OTHER_CONFIGURATION_CHANGE)
            }
            StopReason::Reset => Notification::new(ErrorKind::ADMINISTRATIVE_RESET),
            StopReason::PrefixLimit { limit, family, .. } => {
                Notification::maximum_prefixes(*family, *limit)
            }
            StopReason::SendHoldTimer => Notification::new(ErrorKind::SEND_HOLD_TIMER_EXPIRED),
            StopReason::BfdDown { .. } => Notification::new(ErrorKind::BFD_DOWN),
            // It may stay away: a restart is what the caller hopes for.
            StopReason::PlannedRestart => Notification::with_communication(
                ErrorKind::ADMINISTRATIVE_SHUTDOWN,
                "the speaker stops",
            ),
            // Nobody hears it: the link is down.
            StopReason::LinkDown { .. } | StopReason::Other { .. } => {
                Notification::new(ErrorKind::CEASE)
            }
        }
    }
}

/// A NOTIFICATION as it is remembered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NotificationText {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// Its data.
    #[serde(with = "serial::hex")]
    pub data: Vec<u8>,
    /// Code and subcode by name, with the shutdown communication where there is one.
    pub text: String,
    /// What it means to an operator.
    pub meaning: String,
}

impl From<&Notification> for NotificationText {
    fn from(notification: &Notification) -> Self {
        NotificationText {
            code: notification.kind.code,
            subcode: notification.kind.subcode,
            data: notification.data.clone(),
            text: notification.to_string(),
            meaning: notification.kind.meaning().to_string(),
        }
    }
}

/// Why a session is down or an attempt failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DownReason {
    /// Not started yet.
    NotStarted,
    /// Ended from this side.
    Stopped(StopReason),
    /// The attempt to connect failed.
    ConnectFailed {
        /// What the transport said.
        failure: TransportFailure,
        /// Whether an MD5 password is configured, which is a likely cause of silence.
        password: bool,
    },
    /// The connection broke.
    ConnectionLost {
        /// What the transport said.
        failure: TransportFailure,
        /// How far the session had come.
        state: State,
    },
    /// The neighbour was silent for the hold time.
    HoldTimerExpired {
        /// How far the session had come.
        state: State,
        /// The time that ran out, in seconds.
        hold_s: u16,
        /// Whether an MD5 password is configured: one that was replaced at one end only is silence.
        #[serde(default)]
        password: bool,
    },
    /// The neighbour ended it.
    NotificationReceived(NotificationText),
    /// This speaker ended it because of what it received.
    NotificationSent(NotificationText),
    /// The AS number in the neighbour's OPEN is another one.
    PeerAs {
        /// What it says it is.
        #[serde(with = "serial::asn")]
        found: Asn,
        /// What was configured.
        #[serde(with = "serial::asn")]
        configured: Asn,
    },
    /// The AS number in the OPEN of a neighbour of a listen range is none that the range takes.
    PeerAsNotInRange {
        /// What it says it is.
        #[serde(with = "serial::asn")]
        found: Asn,
    },
    /// The roles of the two ends do not fit (RFC 9234 §4.2).
    RoleMismatch {
        /// What this end is configured to be.
        ours: String,
        /// What the neighbour says it is; empty when it says nothing.
        theirs: String,
    },
    /// The neighbour's identifier is the own one.
    SameRouterId,
    /// There is no family that both ends carry.
    NoCommonFamily {
        /// What the neighbour offers.
        offered: Vec<String>,
        /// What is configured here.
        configured: Vec<String>,
    },
    /// A message came that the state does not allow.
    UnexpectedMessage {
        /// The state.
        state: State,
        /// The message.
        message: String,
    },
    /// The other one of two connections was kept (RFC 4271 §6.8). No error.
    Collision,
}

impl DownReason {
    /// The same, told by somebody who knows that the neighbour is on no network of this node, and
    /// that packets to it go one hop.
    #[must_use]
    pub fn off_link(mut self) -> DownReason {
        if let DownReason::ConnectFailed { failure, .. } = &mut self
            && failure.kind == FailureKind::TimedOut
        {
            failure.kind = FailureKind::OffLink;
        }
        self
    }

    /// The code under which `causeway explain` has more.
    pub fn code(&self) -> &'static str {
        match self {
            DownReason::ConnectFailed { failure, password } => match failure.kind {
                FailureKind::TimedOut if *password => "CW0202",
                FailureKind::Refused => "CW0205",
                FailureKind::TimedOut
                | FailureKind::OffLink
                | FailureKind::Unreachable
                | FailureKind::Reset
                | FailureKind::Closed
                | FailureKind::NoLocalAddress
                | FailureKind::Other => "CW0201",
            },
            DownReason::PeerAs { .. } | DownReason::PeerAsNotInRange { .. } => "CW0203",
            DownReason::HoldTimerExpired { .. } => "CW0204",
            DownReason::NotificationReceived(_) => "CW0207",
            DownReason::NotStarted
            | DownReason::Stopped(_)
            | DownReason::ConnectionLost { .. }
            | DownReason::NotificationSent(_)
            | DownReason::RoleMismatch { .. }
            | DownReason::SameRouterId
            | DownReason::NoCommonFamily { .. }
            | DownReason::UnexpectedMessage { .. }
            | DownReason::Collision => "CW0201",
        }
    }

    /// Whether routes are kept for a neighbour that does graceful restart: it went away without
    /// meaning to, or both ends speak RFC 8538 and nobody asked for a hard reset.
    pub fn keeps_routes(&self, notification_restart: bool) -> bool {
        match self {
            DownReason::ConnectionLost { .. } => true,
            DownReason::HoldTimerExpired { .. }
            | DownReason::NotificationSent(_)
            | DownReason::UnexpectedMessage { .. } => notification_restart,
            DownReason::NotificationReceived(text) => {
                notification_restart && (text.code, text.subcode) != (6, 9)
            }
            DownReason::Stopped(reason) => notification_restart && !reason.is_final(),
            DownReason::NotStarted
            | DownReason::ConnectFailed { .. }
            | DownReason::PeerAs { .. }
            | DownReason::PeerAsNotInRange { .. }
            | DownReason::RoleMismatch { .. }
            | DownReason::SameRouterId
            | DownReason::NoCommonFamily { .. }
            | DownReason::Collision => false,
        }
    }
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DownReason::NotStarted => f.write_str("not started"),
            DownReason::Stopped(reason) => write!(f, "{reason}"),
            DownReason::ConnectFailed { failure, password } => connect_failed(f, failure, *password),
            DownReason::ConnectionLost { failure, state } => match (failure.kind, state) {
                (FailureKind::Closed, State::OpenSent) => f.write_str(
                    "the peer closed the connection without a word after our OPEN: \
                     is this node's address configured there as a neighbour?",
                ),
                (FailureKind::Closed, _) => {
                    write!(f, "the peer closed the connection in {state} without a NOTIFICATION")
                }
                (FailureKind::TimedOut, _) => write!(
                    f,
                    "the connection died in {state}: what was sent was not acknowledged ({})",
                    failure.text
                ),
                _ => write!(f, "the connection broke in {state}: {}", failure.text),
            },
            DownReason::HoldTimerExpired { state: State::OpenSent, hold_s, .. } => write!(
                f,
                "connected, but the peer sent no OPEN for {hold_s} s: is it BGP that listens there?"
            ),
            DownReason::HoldTimerExpired { hold_s, password, .. } => {
                write!(f, "nothing was heard from the peer for the hold time of {hold_s} s")?;
                if *password {
                    f.write_str(": was the MD5 password replaced at one end only?")?;
                }
                Ok(())
            }
            DownReason::NotificationReceived(text) => {
                write!(f, "the peer sent {}. {}", text.text, text.meaning)
            }
            DownReason::NotificationSent(text) => {
                write!(f, "the peer was sent {}. {}", text.text, text.meaning)
            }
            DownReason::PeerAs { found, configured } => {
                write!(f, "peer AS is {found}, configured {configured}")
            }
            DownReason::PeerAsNotInRange { found } => {
                write!(f, "peer AS {found} is none of those its listen range takes")
            }
            DownReason::RoleMismatch { ours, theirs } if theirs.is_empty() => write!(
                f,
                "the peer names no BGP role, and strict mode asks for one that fits {ours}: \
                 configure its role there, or leave strict mode"
            ),
            DownReason::RoleMismatch { ours, theirs } => write!(
                f,
                "the BGP roles do not fit: this end is {ours}, the peer {theirs}; \
                 provider goes with customer, route-server with route-server-client, peer with peer"
            ),
            DownReason::SameRouterId => f.write_str(
                "the peer has the same router id and AS as this speaker: give one another router id",
            ),
            DownReason::NoCommonFamily { offered, configured } => write!(
                f,
                "no address family in common: the peer offers {}, configured {}",
                offered.join(", "),
                configured.join(", ")
            ),
            DownReason::UnexpectedMessage { state, message } => {
                write!(f, "the peer sent {message}, which is not allowed in {state}")
            }
            DownReason::Collision => f.write_str("both sides connected; the other connection goes on"),
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopReason::Shutdown { message } if message.is_empty() => {
                f.write_str("shut down by the operator")
            }
            StopReason::Shutdown { message } => write!(f, "shut down by the operator: {message}"),
            StopReason::Deconfigured => f.write_str("removed from the configuration"),
            StopReason::ConfigurationChange => {
                f.write_str("the configuration changed in a way that needs a new session")
            }
            StopReason::Reset => f.write_str("reset by the operator"),
            StopReason::PrefixLimit {
                limit,
                family,
                restart_s,
            } => {
                write!(
                    f,
                    "the peer sent more {family} routes than the limit of {limit}: raise it or \
                     have the peer send fewer"
                )?;
                if *restart_s == 0 {
                    f.write_str("; `causeway bgp reset` starts the session again")
                } else {
                    write!(f, "; the session is tried again after {restart_s} s")
                }
            }
            StopReason::SendHoldTimer => {
                f.write_str("the peer read nothing for the send hold time (RFC 9687)")
            }
            StopReason::LinkDown { interface } => write!(f, "the link {interface} is down"),
            StopReason::BfdDown { text, .. } => write!(f, "BFD: {text}"),
            StopReason::PlannedRestart => f.write_str("the speaker restarts"),
            StopReason::Other { text } => f.write_str(text),
        }
    }
}

fn connect_failed(
    f: &mut fmt::Formatter<'_>,
    failure: &TransportFailure,
    password: bool,
) -> fmt::Result {
    match failure.kind {
        FailureKind::Refused => {
            f.write_str("connection refused: does the peer run BGP on this address and port?")
        }
        FailureKind::TimedOut if password => f.write_str("no answer: is the MD5 password right?"),
        FailureKind::TimedOut => f.write_str(
            "no answer: is the address right, the path open, and does the peer want an MD5 password?",
        ),
        FailureKind::OffLink => f.write_str(
            "no answer, and the peer is on no network of this node: is the link up and its address \
             set, or does the session need ebgpMultihop?",
        ),
        FailureKind::Unreachable => {
            write!(f, "no way to the peer ({}): is there a route and a link?", failure.text)
        }
        FailureKind::NoLocalAddress => write!(
            f,
            "the local address or interface to call from is not there: {}",
            failure.text
        ),
        FailureKind::Reset | FailureKind::Closed | FailureKind::Other => {
            write!(f, "cannot connect: {}", failure.text)
        }
    }
}
