// SPDX-License-Identifier: Apache-2.0
//! Shared keys, and what is made of them.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The fewest octets of a key: 128 bits, what the seals of frames are worth.
pub const MIN_KEY: usize = 16;

/// The most keys of a list: a change takes two, and each wrong proof costs one HMAC of each.
pub const MAX_KEYS: usize = 8;

/// The labels keep what is made of one key for one use apart from all other uses.
const PROOF_INITIATOR: &[u8] = b"causeway egress-sync 1 proof of the initiator\0";
const PROOF_RESPONDER: &[u8] = b"causeway egress-sync 1 proof of the responder\0";
const FRAMES_INITIATOR: &[u8] = b"causeway egress-sync 1 frames of the initiator\0";
const FRAMES_RESPONDER: &[u8] = b"causeway egress-sync 1 frames of the responder\0";

/// Why something is no key, or no list of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is none.
    #[error("no key")]
    Missing,
    /// It is too short.
    #[error("key of {0} octets: at least {MIN_KEY}")]
    Short(usize),
    /// There are too many.
    #[error("{0} keys: at most {MAX_KEYS}")]
    TooMany(usize),
}

/// Which end of a connection.
#[derive(Clone, Copy)]
pub(super) enum Role {
    Initiator,
    Responder,
}

/// A shared key. Never shown.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(redacted)")
    }
}

impl Key {
    /// Takes at least [`MIN_KEY`] octets nobody can guess; 32 drawn at random are best.
    ///
    /// # Errors
    /// There are none, or too few.
    pub fn new(octets: &[u8]) -> Result<Key, KeyError> {
        match octets.len() {
            0 => Err(KeyError::Missing),
            short if short < MIN_KEY => Err(KeyError::Short(short)),
            _ => Ok(Key(hmac(octets))),
        }
    }

    /// What proves that who has this role knows the key.
    pub(super) fn proof(&self, role: Role, transcript: &[u8]) -> [u8; 32] {
        self.proof_of(role, transcript)
            .finalize()
            .into_bytes()
            .into()
    }

    /// What frames of who has this role are sealed with.
    pub(super) fn frames(&self, role: Role, transcript: &[u8]) -> Hmac<Sha256> {
        let label = match role {
            Role::Initiator => FRAMES_INITIATOR,
            Role::Responder => FRAMES_RESPONDER,
        };
        let key = self.0.clone().chain_update(label).chain_update(transcript);
        hmac(&key.finalize().into_bytes())
    }

    fn proof_of(&self, role: Role, transcript: &[u8]) -> Hmac<Sha256> {
        let label = match role {
            Role::Initiator => PROOF_INITIATOR,
            Role::Responder => PROOF_RESPONDER,
        };
        self.0.clone().chain_update(label).chain_update(transcript)
    }
}

/// Keys: the first is used, all are accepted.
#[derive(Clone, Debug)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// Takes 1 to [`MAX_KEYS`] keys.
    ///
    /// # Errors
    /// There are none, or too many.
    pub fn new(keys: Vec<Key>) -> Result<Keys, KeyError> {
        match keys.len() {
            0 => Err(KeyError::Missing),
            many if many > MAX_KEYS => Err(KeyError::TooMany(many)),
            _ => Ok(Keys(keys)),
        }
    }

    pub(super) fn first(&self) -> &Key {
        &self.0[0]
    }

    /// The key a proof is made with. Compared in constant time.
    pub(super) fn find(&self, role: Role, transcript: &[u8], proof: &[u8; 32]) -> Option<&Key> {
        self.0
            .iter()
            .find(|key| key.proof_of(role, transcript).verify_slice(proof).is_ok())
    }
}

fn hmac(octets: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as Mac>::new_from_slice(octets).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_missing_or_short_and_never_shown() {
        assert_eq!(Key::new(b"").unwrap_err(), KeyError::Missing);
        assert_eq!(Key::new(&[1; 15]).unwrap_err(), KeyError::Short(15));
        let key = Key::new(&[1; 16]).unwrap();
        assert_eq!(format!("{key:?}"), "Key(redacted)");
        assert_eq!(Keys::new(vec![]).unwrap_err(), KeyError::Missing);
        assert_eq!(
            Keys::new(vec![key.clone(); 9]).unwrap_err(),
            KeyError::TooMany(9)
        );
        assert!(Keys::new(vec![key; 8]).is_ok());
    }

    #[test]
    fn the_hmac_is_that_of_rfc_4231() {
        // RFC 4231 §4.2 (20 octets of 0x0b).
        let key = Key::new(&[0x0b; 20]).unwrap();
        let whole = key.0.chain_update(b"Hi There").finalize().into_bytes();
        let hex: String = whole.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
    }
}
