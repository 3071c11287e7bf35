// SPDX-License-Identifier: Apache-2.0
//! Why a route a neighbour sent is not considered.

use std::fmt;
use std::num::NonZeroU8;

use crate::policy::MAX_STATEMENTS;

/// Why a route a neighbour sent is not considered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rejection {
    /// The neighbour's import mode takes other prefixes.
    Import,
    /// An external neighbour has no import policy, and needs one (RFC 8212).
    NoPolicy,
    /// The import policy that is named is not there.
    PolicyMissing,
    /// The import policy rejects it: by the statement at this place, from 0, or by its default.
    Policy(Option<u8>),
    /// The own AS is in its path more often than is allowed (RFC 4271 §9.1.2).
    OwnAs,
    /// This speaker brought it into the AS (RFC 4456 §8).
    OwnOriginator,
    /// It has passed this cluster before (RFC 4456 §8).
    OwnCluster,
    /// Its next hop is this end of the session (RFC 4271 §5.1.3).
    OwnNextHop,
    /// The neighbour has sent more routes than it may.
    Limit,
    /// The path does not begin with the neighbour's AS (RFC 4271 §6.3).
    FirstAs,
    /// It came from a provider or peer to a customer and back: a leak (RFC 9234 §5).
    Leak,
}

impl Rejection {
    /// The word for programs.
    pub fn name(self) -> &'static str {
        match self {
            Rejection::Import => "import",
            Rejection::NoPolicy => "no-policy",
            Rejection::PolicyMissing => "policy-missing",
            Rejection::Policy(_) => "policy",
            Rejection::OwnAs => "own-as",
            Rejection::OwnOriginator => "own-originator",
            Rejection::OwnCluster => "own-cluster",
            Rejection::OwnNextHop => "own-next-hop",
            Rejection::Limit => "limit",
            Rejection::FirstAs => "first-as",
            Rejection::Leak => "leak",
        }
    }

    /// Where it is written, where it is written in an RFC.
    pub fn rule(self) -> Option<&'static str> {
        match self {
            Rejection::Import | Rejection::PolicyMissing => None,
            Rejection::Policy(_) | Rejection::Limit => None,
            Rejection::NoPolicy => Some("RFC 8212 §3"),
            Rejection::OwnAs => Some("RFC 4271 §9.1.2"),
            Rejection::OwnOriginator | Rejection::OwnCluster => Some("RFC 4456 §8"),
            Rejection::OwnNextHop => Some("RFC 4271 §5.1.3"),
            Rejection::FirstAs => Some("RFC 4271 §6.3"),
            Rejection::Leak => Some("RFC 9234 §5"),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rejection::Import => "the import mode takes other prefixes",
            Rejection::NoPolicy => "an external neighbour without import policy",
            Rejection::PolicyMissing => "the import policy is not there",
            Rejection::Policy(Some(at)) => {
                return write!(f, "statement {} of the import policy", u32::from(*at) + 1);
            }
            Rejection::Policy(None) => "the import policy's default",
            Rejection::OwnAs => "the own AS is in its path",
            Rejection::OwnOriginator => "this speaker is its originator",
            Rejection::OwnCluster => "it has passed this cluster before",
            Rejection::OwnNextHop => "its next hop is this node",
            Rejection::Limit => "the neighbour has sent as many routes as it may",
            Rejection::FirstAs => "its path does not begin with the neighbour's AS",
            Rejection::Leak => "ONLY_TO_CUSTOMER says that it leaked",
        })
    }
}

/// A [`Rejection`] in an octet, as it lies in the table: a full table of rejected routes must not
/// cost more than one of accepted ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rejected(NonZeroU8);

/// Where the statements of a policy begin.
const STATEMENTS: u8 = 128;

const _: () = assert!(STATEMENTS as usize + MAX_STATEMENTS == 256);
const _: () = assert!(size_of::<Option<Rejected>>() == 1);

impl From<Rejection> for Rejected {
    fn from(rejection: Rejection) -> Rejected {
        let code = match rejection {
            Rejection::Import => 1,
            Rejection::NoPolicy => 2,
            Rejection::PolicyMissing => 3,
            Rejection::Policy(None) => 4,
            Rejection::Policy(Some(at)) => STATEMENTS | at,
            Rejection::OwnAs => 5,
            Rejection::OwnOriginator => 6,
            Rejection::OwnCluster => 7,
            Rejection::OwnNextHop => 8,
            Rejection::Limit => 9,
            Rejection::FirstAs => 10,
            Rejection::Leak => 11,
        };
        Rejected(NonZeroU8::new(code).unwrap_or(NonZeroU8::MIN))
    }
}

impl From<Rejected> for Rejection {
    fn from(Rejected(code): Rejected) -> Rejection {
        match code.get() {
            2 => Rejection::NoPolicy,
            3 => Rejection::PolicyMissing,
            4 => Rejection::Policy(None),
            5 => Rejection::OwnAs,
            6 => Rejection::OwnOriginator,
            7 => Rejection::OwnCluster,
            8 => Rejection::OwnNextHop,
            9 => Rejection::Limit,
            10 => Rejection::FirstAs,
            11 => Rejection::Leak,
            code if code >= STATEMENTS => Rejection::Policy(Some(code - STATEMENTS)),
            // 1; there is no other.
            _ => Rejection::Import,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rejection_fits_an_octet_and_comes_back() {
        let statements = (0..MAX_STATEMENTS).map(|at| Rejection::Policy(Some(at as u8)));
        let others = [
            Rejection::Import,
            Rejection::NoPolicy,
            Rejection::PolicyMissing,
            Rejection::Policy(None),
            Rejection::OwnAs,
            Rejection::OwnOriginator,
            Rejection::OwnCluster,
            Rejection::OwnNextHop,
            Rejection::Limit,
            Rejection::FirstAs,
            Rejection::Leak,
        ];
        for rejection in others.into_iter().chain(statements) {
            assert_eq!(Rejection::from(Rejected::from(rejection)), rejection);
        }
    }
}
