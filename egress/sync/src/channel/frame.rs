// SPDX-License-Identifier: Apache-2.0
//! Frames: `length u32 | kind u8 | sequence u64 | payload | seal (16)`.

use std::collections::VecDeque;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::ChannelError;

/// The octets of the length field, which counts what follows it.
pub(super) const HEADER: usize = 4;

/// The octets of a seal: HMAC-SHA256 cut to 128 bits.
const SEAL: usize = 16;

/// Kind, sequence number and seal.
const LEAST: usize = 1 + 8 + SEAL;

/// What a frame has besides its payload.
pub(super) const OVERHEAD: usize = HEADER + LEAST;

/// The longest message in octets: 64 KiB. What is longer is said in parts.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// The longest frame in octets.
pub const MAX_FRAME: usize = MAX_MESSAGE + OVERHEAD;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Message,
    Keepalive,
    Goodbye,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::Message => 0,
            Kind::Keepalive => 1,
            Kind::Goodbye => 2,
        }
    }

    fn new(code: u8) -> Result<Kind, ChannelError> {
        match code {
            0 => Ok(Kind::Message),
            1 => Ok(Kind::Keepalive),
            2 => Ok(Kind::Goodbye),
            other => Err(ChannelError::UnknownFrame(other)),
        }
    }
}

/// The length of the frame that begins so, if that much is known.
pub(super) fn length(begin: &[u8]) -> Result<Option<usize>, ChannelError> {
    let Some(field) = begin.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*field);
    match usize::try_from(length) {
        Ok(rest) if rest < LEAST => Err(ChannelError::Undersized { length }),
        Ok(rest) if rest <= MAX_FRAME - HEADER => Ok(Some(HEADER + rest)),
        Ok(_) | Err(_) => Err(ChannelError::Oversized { length }),
    }
}

/// Makes the frames of one direction.
pub(super) struct Sealer {
    key: Hmac<Sha256>,
    /// The number of the next frame. 2^64 frames are never sent.
    sequence: u64,
}

impl Sealer {
    pub(super) fn new(key: Hmac<Sha256>) -> Sealer {
        Sealer { key, sequence: 0 }
    }

    /// Adds a frame to what waits to be written. The payload has at most [`MAX_MESSAGE`] octets.
    pub(super) fn seal(&mut self, kind: Kind, payload: &[u8], out: &mut VecDeque<u8>) {
        let mut head = [0; HEADER + 9];
        head[..HEADER].copy_from_slice(&((LEAST + payload.len()) as u32).to_be_bytes());
        head[HEADER] = kind.code();
        head[HEADER + 1..].copy_from_slice(&self.sequence.to_be_bytes());
        self.sequence += 1;
        let seal = self.key.clone().chain_update(head).chain_update(payload);
        out.extend(head);
        out.extend(payload);
        out.extend(&seal.finalize().into_bytes()[..SEAL]);
    }
}

/// Checks the frames of one direction.
pub(super) struct Opener {
    key: Hmac<Sha256>,
    /// The number of the next frame.
    expected: u64,
}

impl Opener {
    pub(super) fn new(key: Hmac<Sha256>) -> Opener {
        Opener { key, expected: 0 }
    }

    /// The kind and the payload of a whole frame.
    pub(super) fn open<'a>(&mut self, frame: &'a [u8]) -> Result<(Kind, &'a [u8]), ChannelError> {
        let (text, seal) = frame
            .split_last_chunk::<SEAL>()
            .ok_or(ChannelError::Forged)?;
        self.key
            .clone()
            .chain_update(text)
            .verify_truncated_left(seal)
            .map_err(|_| ChannelError::Forged)?;
        let (&[_, _, _, _, kind], rest) = text.split_first_chunk().ok_or(ChannelError::Forged)?;
        let (sequence, payload) = rest.split_first_chunk().ok_or(ChannelError::Forged)?;
        let (expected, found) = (self.expected, u64::from_be_bytes(*sequence));
        if found < expected {
            return Err(ChannelError::Replayed { expected, found });
        }
        if found > expected {
            return Err(ChannelError::Reordered { expected, found });
        }
        self.expected += 1;
        Ok((Kind::new(kind)?, payload))
    }
}
