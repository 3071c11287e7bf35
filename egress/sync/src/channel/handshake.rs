// SPDX-License-Identifier: Apache-2.0
//! Packets of the handshake: `"CWES" | kind u8 | length u16 | body`.

use std::time::Duration;

use super::{ChannelError, VERSION};
use crate::name::NodeName;

/// "Causeway egress sync".
const MAGIC: [u8; 4] = *b"CWES";

/// Magic, kind and length.
pub(super) const HEADER: usize = 7;

/// The longest body: an answer with the longest name has 323 octets; the rest is room for versions
/// to come, whose first packet must be read to be refused.
const MAX_BODY: usize = 512;

const HELLO: u8 = 1;
const ANSWER: u8 = 2;
const PROOF: u8 = 3;

/// What an end says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) lowest: u8,
    /// The same as the lowest in an answer.
    pub(super) highest: u8,
    pub(super) idle: Duration,
    pub(super) nonce: [u8; 32],
    pub(super) name: NodeName,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Hello(Hello),
    Answer(Hello, [u8; 32]),
    Proof([u8; 32]),
}

impl Packet {
    pub(super) fn kind(&self) -> u8 {
        match self {
            Packet::Hello(_) => HELLO,
            Packet::Answer(..) => ANSWER,
            Packet::Proof(_) => PROOF,
        }
    }
}

/// The length of the packet that begins so, if that much is known.
pub(super) fn length(begin: &[u8]) -> Result<Option<usize>, ChannelError> {
    let known = begin.len().min(MAGIC.len());
    if begin[..known] != MAGIC[..known] {
        return Err(ChannelError::Protocol);
    }
    let Some(&[_, _, _, _, _, high, low]) = begin.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    match usize::from(u16::from_be_bytes([high, low])) {
        body if body <= MAX_BODY => Ok(Some(HEADER + body)),
        _ => Err(ChannelError::Malformed),
    }
}

/// Packet 1.
pub(super) fn hello(name: &NodeName, idle: Duration, nonce: &[u8; 32]) -> Vec<u8> {
    packet(HELLO, &[VERSION, VERSION], name, idle, nonce, 0)
}

/// Packet 2 up to its proof.
pub(super) fn answer(name: &NodeName, idle: Duration, nonce: &[u8; 32]) -> Vec<u8> {
    packet(ANSWER, &[VERSION], name, idle, nonce, 32)
}

/// Packet 3.
pub(super) fn proof(proof: &[u8; 32]) -> Vec<u8> {
    let mut bytes = head(PROOF, proof.len());
    bytes.extend(proof);
    bytes
}

/// What proofs are about: packet 1, and packet 2 up to its proof. Both say their lengths, so that
/// no other two packets make the same bytes.
pub(super) fn transcript(hello: &[u8], answer: &[u8]) -> Vec<u8> {
    [hello, answer].concat()
}

/// The packet of these bytes, which are as many as its header says.
pub(super) fn parse(bytes: &[u8]) -> Result<Packet, ChannelError> {
    let (head, body) = bytes
        .split_first_chunk::<HEADER>()
        .ok_or(ChannelError::Malformed)?;
    match head[4] {
        HELLO => {
            let (&[lowest, highest], rest) =
                body.split_first_chunk().ok_or(ChannelError::Malformed)?;
            // A later version may say more in its first packet: that it is later counts.
            if !(lowest..=highest).contains(&VERSION) {
                return Err(ChannelError::Version { lowest, highest });
            }
            let (hello, rest) = parse_self(lowest, highest, rest)?;
            match rest {
                [] => Ok(Packet::Hello(hello)),
                _ => Err(ChannelError::Malformed),
            }
        }
        ANSWER => {
            let (&[version], rest) = body.split_first_chunk().ok_or(ChannelError::Malformed)?;
            let (hello, rest) = parse_self(version, version, rest)?;
            let proof = rest.try_into().map_err(|_| ChannelError::Malformed)?;
            Ok(Packet::Answer(hello, proof))
        }
        PROOF => {
            let proof = body.try_into().map_err(|_| ChannelError::Malformed)?;
            Ok(Packet::Proof(proof))
        }
        _ => Err(ChannelError::Malformed),
    }
}

fn parse_self(lowest: u8, highest: u8, body: &[u8]) -> Result<(Hello, &[u8]), ChannelError> {
    let (idle, rest) = body.split_first_chunk().ok_or(ChannelError::Malformed)?;
    let (nonce, rest) = rest.split_first_chunk().ok_or(ChannelError::Malformed)?;
    let (&[length], rest) = rest.split_first_chunk().ok_or(ChannelError::Malformed)?;
    let (name, rest) = rest
        .split_at_checked(usize::from(length))
        .ok_or(ChannelError::Malformed)?;
    let hello = Hello {
        lowest,
        highest,
        idle: Duration::from_millis(u64::from(u32::from_be_bytes(*idle))),
        nonce: *nonce,
        name: NodeName::from_octets(name).map_err(|_| ChannelError::Malformed)?,
    };
    Ok((hello, rest))
}

fn head(kind: u8, body: usize) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.push(kind);
    bytes.extend((body as u16).to_be_bytes());
    bytes
}

/// A packet with room for what is still to be added counted in its length.
fn packet(
    kind: u8,
    versions: &[u8],
    name: &NodeName,
    idle: Duration,
    nonce: &[u8; 32],
    added: usize,
) -> Vec<u8> {
    let name = name.as_str().as_bytes();
    let mut bytes = head(kind, versions.len() + 4 + 32 + 1 + name.len() + added);
    bytes.extend(versions);
    // At most 600 s.
    bytes.extend((idle.as_millis() as u32).to_be_bytes());
    bytes.extend(nonce);
    // At most 253 octets.
    bytes.push(name.len() as u8);
    bytes.extend(name);
    bytes
}
