// SPDX-License-Identifier: Apache-2.0
//! What our own echo packets say (RFC 5880 §6.4: "a local matter").
//!
//! 32 octets: four that name the format, the discriminator of the session, a sequence number, and
//! 16 octets of HMAC-SHA1 over these under a key that is drawn when the process starts. Nobody else
//! can make one, so that nobody else can keep a session up that has failed; that each counts once
//! is the session's business ([`crate::session::Session::handle_echo`]).

use std::fmt;

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha1::Sha1;

/// The length of an echo packet's payload.
pub const LENGTH: usize = 32;

/// The octets of the seal: HMAC-SHA1 cut to 128 bits.
const SEAL: usize = 16;

/// "Causeway echo, format 1".
const FORMAT: [u8; 4] = *b"CWE1";

/// Which echo packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Echo {
    /// Our number of the session.
    pub discriminator: u32,
    /// The number of the packet, counted up within the session.
    pub sequence: u64,
}

/// Why a payload is none of our echo packets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
pub enum EchoError {
    /// Another length or format: somebody else's.
    #[error("not an echo packet of ours")]
    Foreign,
    /// Our format under another key: forged, damaged, or from before a restart.
    #[error("echo packet with a wrong seal")]
    Seal,
}

/// The key of all echo packets of a process. Never shown.
#[derive(Clone)]
pub struct EchoKey(Hmac<Sha1>);

impl fmt::Debug for EchoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EchoKey(redacted)")
    }
}

impl EchoKey {
    /// Takes 32 octets that nobody can guess.
    pub fn new(secret: [u8; 32]) -> EchoKey {
        let mut block = [0; 64];
        block[..secret.len()].copy_from_slice(&secret);
        EchoKey(KeyInit::new(&block.into()))
    }

    /// The payload of an echo packet.
    pub fn encode(&self, echo: Echo) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(&FORMAT);
        bytes[4..8].copy_from_slice(&echo.discriminator.to_be_bytes());
        bytes[8..16].copy_from_slice(&echo.sequence.to_be_bytes());
        let seal = self.seal(&bytes[..LENGTH - SEAL]);
        bytes[LENGTH - SEAL..].copy_from_slice(&seal);
        bytes
    }

    /// Which echo packet a payload is.
    ///
    /// # Errors
    /// It is none of ours.
    pub fn decode(&self, bytes: &[u8]) -> Result<Echo, EchoError> {
        let bytes: &[u8; LENGTH] = bytes.try_into().map_err(|_| EchoError::Foreign)?;
        let (text, seal) = bytes.split_at(LENGTH - SEAL);
        if text[..4] != FORMAT {
            return Err(EchoError::Foreign);
        }
        let whole = self.0.clone().chain_update(text);
        whole
            .verify_truncated_left(seal)
            .map_err(|_| EchoError::Seal)?;
        let (mut discriminator, mut sequence) = ([0; 4], [0; 8]);
        discriminator.copy_from_slice(&text[4..8]);
        sequence.copy_from_slice(&text[8..16]);
        Ok(Echo {
            discriminator: u32::from_be_bytes(discriminator),
            sequence: u64::from_be_bytes(sequence),
        })
    }

    fn seal(&self, text: &[u8]) -> [u8; SEAL] {
        let whole = self.0.clone().chain_update(text).finalize().into_bytes();
        let mut seal = [0; SEAL];
        seal.copy_from_slice(&whole[..SEAL]);
        seal
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_seal_is_the_hmac_of_other_implementations() {
        // printf '%s' text | openssl dgst -sha1 -mac HMAC -macopt hexkey:0b0b... (32 octets)
        let key = EchoKey::new([0x0b; 32]);
        assert_eq!(
            hex(&key.seal(b"Hi There")),
            "68f9d1c65ae2dde43a134515c83813a9"
        );
    }

    #[test]
    fn an_echo_comes_back_as_it_went() {
        let key = EchoKey::new([7; 32]);
        let echo = Echo {
            discriminator: 0x0102_0304,
            sequence: 0x0506_0708_090a_0b0c,
        };
        let bytes = key.encode(echo);
        assert_eq!(&hex(&bytes)[..32], "435745310102030405060708090a0b0c");
        assert_eq!(key.decode(&bytes), Ok(echo));
        assert_eq!(
            EchoKey::new([8; 32]).decode(&bytes),
            Err(EchoError::Seal),
            "of another process"
        );
        assert!(!format!("{key:?}").contains('7'));
    }

    proptest! {
        #[test]
        fn whatever_is_changed_is_noticed(
            discriminator: u32,
            sequence: u64,
            at in 0..LENGTH,
            flipped in 1..=u8::MAX,
        ) {
            let key = EchoKey::new([9; 32]);
            let echo = Echo { discriminator, sequence };
            let mut bytes = key.encode(echo);
            prop_assert_eq!(key.decode(&bytes), Ok(echo));
            bytes[at] ^= flipped;
            prop_assert!(key.decode(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
            prop_assert!(EchoKey::new([9; 32]).decode(&bytes).is_err());
        }
    }
}
