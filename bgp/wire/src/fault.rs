// SPDX-License-Identifier: Apache-2.0
//! What can be wrong with an UPDATE, and what is done about it (RFC 7606).

use core::fmt;

use router_types::Family;

use crate::as_path::AsPathError;
use crate::attribute::{AttributeCode, AttributeFlags};
use crate::next_hop::PathNextHop;
use crate::nlri::NlriError;
use crate::notification::Notification;

/// One error in an UPDATE, as data for counters, logs and `causeway bgp decode`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The attribute concerned; `None` for the message as a whole.
    pub attribute: Option<AttributeCode>,
    /// What was found.
    pub finding: Finding,
    /// What is done about it.
    pub treatment: Treatment,
    /// The rule, such as `RFC 7606 §7.1`.
    pub rule: &'static str,
}

/// What is done about an error, mildest first (RFC 7606 §2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Treatment {
    /// The attribute is dropped, the routes are taken without it.
    AttributeDiscard,
    /// The routes announced in the message are taken as withdrawn.
    TreatAsWithdraw,
    /// The family's routes are deleted and nothing of it is taken for the rest of the session.
    /// Ending the session is the other permitted answer (RFC 4760 §7), and the notification for
    /// it is at hand.
    DisableFamily {
        /// The family whose prefixes could not be read.
        family: Family,
        /// What to send if the session is ended instead.
        notification: Notification,
    },
    /// The session ends with this notification.
    SessionReset(Notification),
}

/// What was found wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The withdrawn routes or path attributes run over the end of the message.
    MessageLengths,
    /// An attribute runs over the end of the path attributes.
    Overrun {
        /// Where it starts in the path attributes.
        offset: usize,
    },
    /// Optional and transitive bits contradict the type.
    Flags(AttributeFlags),
    /// The value's length is impossible.
    Length {
        /// Octets found.
        found: usize,
        /// What is allowed, in words.
        expected: &'static str,
    },
    /// The attribute came before.
    Duplicate,
    /// A mandatory attribute is not there.
    Missing,
    /// Not optional, and unknown.
    UnrecognizedWellKnown,
    /// ORIGIN has an undefined value.
    Origin(u8),
    /// The AS path cannot be read.
    AsPath(AsPathError),
    /// AS 0 (RFC 7607).
    AsZero,
    /// AS_SET or AS_CONFED_SET (RFC 9774).
    AsSet,
    /// Confederation segments from outside the confederation (RFC 5065 §5).
    ForeignConfederation,
    /// An attribute another AS has no business sending.
    FromExternalPeer,
    /// AS4_PATH or AS4_AGGREGATOR from a speaker that has four octets anyway.
    FromFourOctetSpeaker,
    /// A next hop no packet can be sent to.
    NextHop(PathNextHop),
    /// The next hop field has a length the family does not allow.
    NextHopLength {
        /// The family.
        family: Family,
        /// Octets found.
        found: usize,
    },
    /// A list of prefixes cannot be read.
    Nlri(NlriError),
    /// Routes of a family that was not negotiated.
    FamilyNotNegotiated(Family),
    /// A structure inside the value runs over its end.
    InnerLength,
    /// An error elsewhere in a message that announces nothing: its prefixes may have been lost.
    NoRoutes,
}

impl Fault {
    /// The strongest treatment among some faults; `None` if there are none (RFC 7606 §3 h).
    pub fn strongest<'a>(faults: impl IntoIterator<Item = &'a Fault>) -> Option<&'a Treatment> {
        faults
            .into_iter()
            .map(|f| &f.treatment)
            .reduce(|strongest, other| {
                if other.severity() > strongest.severity() {
                    other
                } else {
                    strongest
                }
            })
    }
}

impl Treatment {
    /// 0 for the mildest, 3 for the strongest.
    pub const fn severity(&self) -> u8 {
        match self {
            Treatment::AttributeDiscard => 0,
            Treatment::TreatAsWithdraw => 1,
            Treatment::DisableFamily { .. } => 2,
            Treatment::SessionReset(_) => 3,
        }
    }

    /// The name RFC 7606 §2 gives it.
    pub const fn name(&self) -> &'static str {
        match self {
            Treatment::AttributeDiscard => "attribute-discard",
            Treatment::TreatAsWithdraw => "treat-as-withdraw",
            Treatment::DisableFamily { .. } => "afi-safi-disable",
            Treatment::SessionReset(_) => "session-reset",
        }
    }

    /// What to send when the session is to end because of it.
    pub const fn notification(&self) -> Option<&Notification> {
        match self {
            Treatment::AttributeDiscard | Treatment::TreatAsWithdraw => None,
            Treatment::DisableFamily { notification, .. }
            | Treatment::SessionReset(notification) => Some(notification),
        }
    }
}

impl fmt::Display for Treatment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Treatment::AttributeDiscard | Treatment::TreatAsWithdraw => Ok(()),
            Treatment::DisableFamily { family, .. } => write!(f, " {family}"),
            Treatment::SessionReset(notification) => write!(f, ", {}", notification.kind),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::MessageLengths => f.write_str("the lengths exceed the message"),
            Finding::Overrun { offset } => {
                write!(
                    f,
                    "runs over the end of the path attributes, from octet {offset}"
                )
            }
            Finding::Flags(flags) => {
                write!(
                    f,
                    "flags {:#04x} contradict the attribute's type",
                    flags.bits()
                )
            }
            Finding::Length { found, expected } => {
                write!(f, "length {found}, expected {expected}")
            }
            Finding::Duplicate => f.write_str("appears more than once"),
            Finding::Missing => f.write_str("is mandatory and missing"),
            Finding::UnrecognizedWellKnown => f.write_str("is marked well-known and not known"),
            Finding::Origin(value) => write!(f, "value {value}, expected 0, 1 or 2"),
            Finding::AsPath(error) => error.fmt(f),
            Finding::AsZero => f.write_str("contains AS 0"),
            Finding::AsSet => f.write_str("contains an AS set"),
            Finding::ForeignConfederation => {
                f.write_str("has confederation segments of a confederation we are not in")
            }
            Finding::FromExternalPeer => f.write_str("is not for other ASes to send"),
            Finding::FromFourOctetSpeaker => {
                f.write_str("is not for speakers with four-octet AS numbers")
            }
            Finding::NextHop(address) => write!(f, "{address} is no host address"),
            Finding::NextHopLength { family, found } => {
                write!(f, "next hop of {found} octets is not possible for {family}")
            }
            Finding::Nlri(error) => error.fmt(f),
            Finding::FamilyNotNegotiated(family) => write!(f, "{family} was not negotiated"),
            Finding::InnerLength => f.write_str("an inner length runs over the end"),
            Finding::NoRoutes => {
                f.write_str("an error in a message without routes: they may have been lost")
            }
        }
    }
}

impl fmt::Display for Fault {
    /// `COMMUNITIES: length 3, expected a multiple of 4 (treat-as-withdraw, RFC 7606 §7.8)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attribute {
            Some(code) => write!(f, "{code}: ")?,
            None => f.write_str("UPDATE: ")?,
        }
        write!(f, "{} ({}, {})", self.finding, self.treatment, self.rule)
    }
}
