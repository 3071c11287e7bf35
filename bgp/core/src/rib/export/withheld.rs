// SPDX-License-Identifier: Apache-2.0
//! Why a neighbour is not sent a route.

use std::fmt;

/// Why a neighbour is not sent a route.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Withheld {
    /// The session is not established.
    NotEstablished,
    /// The session does not carry the family.
    FamilyNotNegotiated,
    /// The session has no address of the family to be the next hop (RFC 4271 §5.1.3).
    NoNextHop,
    /// The node is drained: it announces nothing.
    Drained,
    /// There is no route that can be used.
    NoRoute,
    /// The route is the node's own, and no advertisement names the neighbour.
    NotAdvertised,
    /// Learned routes are not passed on by this instance.
    NoTransit,
    /// It is the neighbour's own route.
    SplitHorizon,
    /// NO_ADVERTISE (RFC 1997).
    NoAdvertise,
    /// NO_EXPORT or NO_EXPORT_SUBCONFED (RFC 1997).
    NoExport,
    /// NO_PEER, and the neighbour is a bilateral peer (RFC 3765 §2).
    NoPeer,
    /// An aggregate is sent in its place (RFC 4271 §9.2.2.2).
    Suppressed,
    /// ONLY_TO_CUSTOMER, and the neighbour is none (RFC 9234 §5).
    OnlyToCustomer,
    /// LLGR_STALE, and the neighbour does not know it (RFC 9494 §4.3).
    LongLivedStale,
    /// It came from within the AS, and neither end of it is a client (RFC 4456 §6).
    NotReflected,
    /// An external neighbour has no export policy, and needs one (RFC 8212).
    NoPolicy,
    /// The export policy that is named is not there.
    PolicyMissing,
    /// The export policy rejects it: by the statement at this place, from 0, or by its default.
    Policy(Option<u8>),
    /// It is of a VPN, and would not go with its next hop unchanged: its label is no other router's
    /// (RFC 4364 §10).
    NoLabel,
    /// It is of a VPN, and the neighbour asks for none of its route targets (RFC 4684).
    NotWanted,
    /// The neighbour is sent as many routes as it may be: this one waits until others go.
    Limit,
    /// Better ones take all places there are for a destination (RFC 7911).
    PathsTaken,
    /// With its attributes it fits no message of the session (RFC 4271 §9.2, RFC 8654 §4).
    TooLong,
}

impl Withheld {
    /// The word for programs.
    pub fn name(self) -> &'static str {
        match self {
            Withheld::NotEstablished => "not-established",
            Withheld::FamilyNotNegotiated => "family-not-negotiated",
            Withheld::NoNextHop => "no-next-hop",
            Withheld::Drained => "drained",
            Withheld::NoRoute => "no-route",
            Withheld::NotAdvertised => "not-advertised",
            Withheld::NoTransit => "no-transit",
            Withheld::SplitHorizon => "split-horizon",
            Withheld::NoAdvertise => "no-advertise",
            Withheld::NoExport => "no-export",
            Withheld::NoPeer => "no-peer",
            Withheld::Suppressed => "suppressed",
            Withheld::OnlyToCustomer => "only-to-customer",
            Withheld::LongLivedStale => "long-lived-stale",
            Withheld::NotReflected => "not-reflected",
            Withheld::NoPolicy => "no-policy",
            Withheld::PolicyMissing => "policy-missing",
            Withheld::Policy(_) => "policy",
            Withheld::NoLabel => "no-label",
            Withheld::NotWanted => "not-wanted",
            Withheld::Limit => "limit",
            Withheld::PathsTaken => "paths-taken",
            Withheld::TooLong => "too-long",
        }
    }

    /// Where it is written, where it is written in an RFC.
    pub fn rule(self) -> Option<&'static str> {
        match self {
            Withheld::NotEstablished | Withheld::NoRoute | Withheld::NotAdvertised => None,
            Withheld::NoTransit | Withheld::SplitHorizon | Withheld::Drained => None,
            Withheld::PolicyMissing | Withheld::Policy(_) | Withheld::Limit => None,
            Withheld::FamilyNotNegotiated => Some("RFC 4760 §8"),
            Withheld::NoNextHop => Some("RFC 4271 §5.1.3"),
            Withheld::NoAdvertise | Withheld::NoExport => Some("RFC 1997"),
            Withheld::NoPeer => Some("RFC 3765 §2"),
            Withheld::Suppressed => Some("RFC 4271 §9.2.2.2"),
            Withheld::OnlyToCustomer => Some("RFC 9234 §5"),
            Withheld::LongLivedStale => Some("RFC 9494 §4.3"),
            Withheld::NotReflected => Some("RFC 4456 §6"),
            Withheld::NoPolicy => Some("RFC 8212 §3"),
            Withheld::NoLabel => Some("RFC 4364 §10"),
            Withheld::NotWanted => Some("RFC 4684 §6"),
            Withheld::PathsTaken => Some("RFC 7911"),
            Withheld::TooLong => Some("RFC 8654 §4"),
        }
    }
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Withheld::NotEstablished => "the session is not established",
            Withheld::FamilyNotNegotiated => "the session does not carry the family",
            Withheld::NoNextHop => "the session has no address of the family for the next hop",
            Withheld::Drained => "the node is drained (`causeway undrain` announces again)",
            Withheld::NoRoute => "there is no route that can be used",
            Withheld::NotAdvertised => "no advertisement of the node's own prefix names the peer",
            Withheld::NoTransit => "the instance does not pass learned routes on (transit: false)",
            Withheld::SplitHorizon => "it is the peer's own route",
            Withheld::NoAdvertise => "the route carries NO_ADVERTISE",
            Withheld::NoExport => "the route carries NO_EXPORT, and the peer is of another AS",
            Withheld::NoPeer => "the route carries NO_PEER, and the peer is a bilateral one",
            Withheld::Suppressed => "an aggregate is sent in its place",
            Withheld::OnlyToCustomer => "ONLY_TO_CUSTOMER, and the peer is no customer",
            Withheld::LongLivedStale => "LLGR_STALE, and the peer does not know it",
            Withheld::NotReflected => {
                "it came from within the AS, and neither peer is a reflector's client"
            }
            Withheld::NoPolicy => "an external peer without export policy",
            Withheld::PolicyMissing => "the export policy is not there",
            Withheld::Policy(Some(at)) => {
                return write!(f, "statement {} of the export policy", u32::from(*at) + 1);
            }
            Withheld::Policy(None) => "the export policy's default",
            Withheld::NoLabel => "with another next hop it would need a label of this node",
            Withheld::NotWanted => "the peer asks for none of its route targets",
            Withheld::Limit => "the peer is sent as many routes as it may be (export.maxRoutes)",
            Withheld::PathsTaken => "better routes take all places the peer has for a prefix",
            Withheld::TooLong => "its attributes leave no room for it in a message to the peer",
        })
    }
}
