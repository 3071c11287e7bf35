// SPDX-License-Identifier: Apache-2.0
//! Why packets are discarded, counted.

use bgp_bfd::session::Discard;
use bgp_bfd::wire::DecodeError;

/// A reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Drop {
    /// The TTL says it comes from too far (RFC 5881 §5, RFC 5883 §5).
    Ttl,
    /// Not well-formed.
    Malformed,
    /// Of no session, or of one with another neighbour.
    NoSession,
    /// Authentication missing, unexpected or wrong.
    Authentication,
    /// Played again, or out of order.
    Replayed,
    /// The session is shut.
    AdminDown,
    /// An echo packet of ours that is forged, or that is back too late or again.
    Echo,
}

impl Drop {
    const ALL: [(Drop, &'static str); 7] = [
        (Drop::Ttl, "ttl"),
        (Drop::Malformed, "malformed"),
        (Drop::NoSession, "no-session"),
        (Drop::Authentication, "authentication"),
        (Drop::Replayed, "replayed"),
        (Drop::AdminDown, "admin-down"),
        (Drop::Echo, "echo"),
    ];

    pub(crate) fn of_session(discard: Discard) -> Drop {
        match discard {
            Discard::Unauthenticated | Discard::UnwantedAuthentication | Discard::WrongKey => {
                Drop::Authentication
            }
            Discard::Replayed => Drop::Replayed,
            Discard::AdminDown => Drop::AdminDown,
            Discard::StaleEcho => Drop::Echo,
        }
    }

    pub(crate) fn of_decoding(error: DecodeError) -> Drop {
        match error {
            DecodeError::Truncated
            | DecodeError::Version
            | DecodeError::Length
            | DecodeError::Multiplier
            | DecodeError::Multipoint
            | DecodeError::Discriminator
            | DecodeError::NoDiscriminator(_) => Drop::Malformed,
            DecodeError::Auth => Drop::Authentication,
        }
    }
}

/// Counts by reason.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drops([u64; Drop::ALL.len()]);

impl Drops {
    pub(crate) fn count(&mut self, reason: Drop) {
        let index = Drop::ALL.iter().position(|(drop, _)| *drop == reason);
        self.0[index.expect("every reason is in the table")] += 1;
    }

    /// What there is, by name.
    pub(crate) fn list(&self) -> Vec<(String, u64)> {
        Drop::ALL
            .iter()
            .zip(self.0)
            .filter(|(_, count)| *count != 0)
            .map(|((_, name), count)| ((*name).to_owned(), count))
            .collect()
    }
}
