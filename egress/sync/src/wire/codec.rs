// SPDX-License-Identifier: Apache-2.0
//! Encoding and decoding of messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Batch, Claim, MAX_CLAIMS, MAX_MISSED, MAX_REACHED, MAX_RECORDS, MAX_RULES, MAX_SEEN, Message,
    Reached, Record, SKIPPABLE, Seen, Tunnel,
};
use crate::mapping::{Endpoint, Key, Mapping};
use crate::name::{NameError, NodeName, Policy, Rule};

const CLAIM_LIST: u8 = 1;
const CLAIMED: u8 = 2;
const RELEASED: u8 = 3;
const SEEN: u8 = 4;
const HAND_OVER: u8 = 5;
const HAND_OVER_REFUSED: u8 = 6;
const SUBSCRIBE: u8 = 16;
const BATCH: u8 = 17;
const ACK: u8 = 18;
const ASK: u8 = 32;
const HEARD: u8 = 33;
const PING: u8 = 34;
const PONG: u8 = 35;
const STANDING: u8 = 36;
const REACHED: u8 = 37;
const MISSED: u8 = 38;
const TUNNEL: u8 = 39;

const SET: u8 = 1;
const REMOVE: u8 = 2;
const BEGIN: u8 = 3;
const END: u8 = 4;
const UNAVAILABLE: u8 = 5;

/// Why a message cannot be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A list is longer than its maximum.
    #[error("list of {count} entries: at most {max}")]
    Count {
        /// Its length.
        count: usize,
        /// The maximum.
        max: usize,
    },
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end before the message does.
    #[error("message is cut off")]
    Truncated,
    /// The message ends before they do.
    #[error("{0} octets behind the message")]
    Trailing(usize),
    /// A kind of a newer version that must not be skipped.
    #[error("unknown kind of message {0}")]
    Kind(u8),
    /// Flags of a newer version.
    #[error("unknown flags 0x{0:02x}")]
    Flags(u8),
    /// A list is longer than its maximum.
    #[error("list of {count} entries: at most {max}")]
    Count {
        /// Its length.
        count: usize,
        /// The maximum.
        max: usize,
    },
    /// A rule of more than 24 bits.
    #[error("rule {0} has more than 24 bits")]
    Rule(u32),
    /// A family that is neither 4 nor 6.
    #[error("address family {0}: 4 or 6")]
    Family(u8),
    /// A yes or no that is neither.
    #[error("octet {0} for yes or no")]
    Flag(u8),
    /// A record of a newer version.
    #[error("unknown record {0}")]
    Record(u8),
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// What bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A message.
    Message(Message),
    /// A message of a newer version that may be skipped.
    Skipped {
        /// Its kind.
        kind: u8,
    },
}

/// The bytes of a message, at most [`crate::channel::MAX_MESSAGE`].
///
/// # Errors
/// A list is too long.
pub fn encode(message: &Message) -> Result<Vec<u8>, EncodeError> {
    let mut out = Writer::default();
    match message {
        Message::ClaimList {
            is_first,
            is_last,
            claims,
        } => {
            out.head(CLAIM_LIST);
            out.u8(u8::from(*is_first));
            out.u8(u8::from(*is_last));
            out.list(claims, MAX_CLAIMS, Writer::claim)?;
        }
        Message::Claimed(claims) => {
            out.head(CLAIMED);
            out.list(claims, MAX_CLAIMS, Writer::claim)?;
        }
        Message::Released(claims) => {
            out.head(RELEASED);
            out.list(claims, MAX_CLAIMS, Writer::claim)?;
        }
        Message::Seen(seen) => {
            out.head(SEEN);
            out.list(seen, MAX_SEEN, Writer::seen)?;
        }
        Message::HandOver(claim) => {
            out.head(HAND_OVER);
            out.claim(claim);
        }
        Message::HandOverRefused(claim) => {
            out.head(HAND_OVER_REFUSED);
            out.claim(claim);
        }
        Message::Subscribe {
            epoch,
            is_restart,
            rules,
        } => {
            out.head(SUBSCRIBE);
            out.u32(*epoch);
            out.u8(u8::from(*is_restart));
            out.list(rules, MAX_RULES, |out, rule| out.u32(rule.get()))?;
        }
        Message::Batch(batch) => {
            out.head(BATCH);
            out.u32(batch.epoch);
            out.u64(batch.sequence);
            out.list(&batch.records, MAX_RECORDS, Writer::record)?;
        }
        Message::Ack { epoch, sequence } => {
            out.head(ACK);
            out.u32(*epoch);
            out.u64(*sequence);
        }
        Message::Ask { nonce, about } => {
            out.head(ASK);
            out.u64(*nonce);
            out.name(about);
        }
        Message::Heard { nonce } => {
            out.head(HEARD);
            out.u64(*nonce);
        }
        Message::Ping { nonce } => {
            out.head(PING);
            out.u64(*nonce);
        }
        Message::Pong { nonce } => {
            out.head(PONG);
            out.u64(*nonce);
        }
        Message::Standing { is_available } => {
            out.head(STANDING);
            out.u8(u8::from(*is_available));
        }
        Message::Reached(reached) => {
            out.head(REACHED);
            out.list(reached, MAX_REACHED, |out, reached| {
                out.u64(reached.policy.get());
                out.u8(u8::from(reached.is_answered));
            })?;
        }
        Message::Missed(nodes) => {
            out.head(MISSED);
            out.list(nodes, MAX_MISSED, Writer::name)?;
        }
        Message::Tunnel(tunnel) => {
            out.0.extend_from_slice(&[TUNNEL, SKIPPABLE]);
            out.u8(tunnel.protocol);
            out.u16(tunnel.port);
        }
    }
    Ok(out.0)
}

/// The message of bytes.
///
/// # Errors
/// They are none, or one of a newer version that must not be skipped.
pub fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut input = Reader(bytes);
    let (kind, flags) = (input.u8()?, input.u8()?);
    if flags & !SKIPPABLE != 0 {
        return Err(DecodeError::Flags(flags));
    }
    let message = match kind {
        CLAIM_LIST => Message::ClaimList {
            is_first: input.flag()?,
            is_last: input.flag()?,
            claims: input.list(MAX_CLAIMS, Reader::claim)?,
        },
        CLAIMED => Message::Claimed(input.list(MAX_CLAIMS, Reader::claim)?),
        RELEASED => Message::Released(input.list(MAX_CLAIMS, Reader::claim)?),
        SEEN => Message::Seen(input.list(MAX_SEEN, Reader::seen)?),
        HAND_OVER => Message::HandOver(input.claim()?),
        HAND_OVER_REFUSED => Message::HandOverRefused(input.claim()?),
        SUBSCRIBE => Message::Subscribe {
            epoch: input.u32()?,
            is_restart: input.flag()?,
            rules: input.list(MAX_RULES, Reader::rule)?,
        },
        BATCH => Message::Batch(Batch {
            epoch: input.u32()?,
            sequence: input.u64()?,
            records: input.list(MAX_RECORDS, Reader::record)?,
        }),
        ACK => Message::Ack {
            epoch: input.u32()?,
            sequence: input.u64()?,
        },
        ASK => Message::Ask {
            nonce: input.u64()?,
            about: input.name()?,
        },
        HEARD => Message::Heard {
            nonce: input.u64()?,
        },
        PING => Message::Ping {
            nonce: input.u64()?,
        },
        PONG => Message::Pong {
            nonce: input.u64()?,
        },
        STANDING => Message::Standing {
            is_available: input.flag()?,
        },
        REACHED => Message::Reached(input.list(MAX_REACHED, Reader::reached)?),
        MISSED => Message::Missed(input.list(MAX_MISSED, Reader::name)?),
        TUNNEL => Message::Tunnel(Tunnel {
            protocol: input.u8()?,
            port: input.u16()?,
        }),
        kind if flags & SKIPPABLE != 0 => return Ok(Decoded::Skipped { kind }),
        kind => return Err(DecodeError::Kind(kind)),
    };
    match input.0.len() {
        0 => Ok(Decoded::Message(message)),
        left => Err(DecodeError::Trailing(left)),
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn head(&mut self, kind: u8) {
        self.0.extend_from_slice(&[kind, 0]);
    }

    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn list<T>(
        &mut self,
        entries: &[T],
        max: usize,
        mut write: impl FnMut(&mut Writer, &T),
    ) -> Result<(), EncodeError> {
        let count = entries.len();
        let short = u16::try_from(count).ok().filter(|_| count <= max);
        self.u16(short.ok_or(EncodeError::Count { count, max })?);
        for entry in entries {
            write(self, entry);
        }
        Ok(())
    }

    fn claim(&mut self, claim: &Claim) {
        self.u32(claim.rule.get());
        self.u64(claim.term);
    }

    fn seen(&mut self, seen: &Seen) {
        self.claim(&seen.claim);
        self.u8(u8::from(seen.is_released));
        self.name(&seen.holder);
    }

    fn name(&mut self, name: &NodeName) {
        let name = name.as_str().as_bytes();
        // A name has at most 253 octets by construction.
        self.u8(name.len() as u8);
        self.0.extend_from_slice(name);
    }

    fn octets(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.0.extend_from_slice(&v4.octets()),
            IpAddr::V6(v6) => self.0.extend_from_slice(&v6.octets()),
        }
    }

    fn endpoint(&mut self, endpoint: Endpoint) {
        self.octets(endpoint.address);
        self.u16(endpoint.port);
    }

    fn family(&mut self, is_ipv4: bool) {
        self.u8(if is_ipv4 { 4 } else { 6 });
    }

    fn key(&mut self, key: &Key) {
        self.family(key.is_ipv4());
        self.u8(key.protocol());
        self.endpoint(key.pod());
        self.endpoint(key.remote());
    }

    fn record(&mut self, record: &Record) {
        match record {
            Record::Set(mapping) => {
                self.u8(SET);
                self.u32(mapping.rule.get());
                self.key(mapping.key());
                self.endpoint(mapping.egress());
                self.u8(mapping.state_out);
                self.u8(mapping.state_in);
                self.family(mapping.node.is_ipv4());
                self.octets(mapping.node);
                self.u64(mapping.age_ms);
                self.u64(mapping.idle_ms);
            }
            Record::Remove { rule, key } => {
                self.u8(REMOVE);
                self.u32(rule.get());
                self.key(key);
            }
            Record::Begin(rule) => {
                self.u8(BEGIN);
                self.u32(rule.get());
            }
            Record::End(rule) => {
                self.u8(END);
                self.u32(rule.get());
            }
            Record::Unavailable(rule) => {
                self.u8(UNAVAILABLE);
                self.u32(rule.get());
            }
        }
    }
}

/// The family of the addresses that follow.
#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn slice(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[octet]| octet)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Flag(other)),
        }
    }

    fn list<T>(
        &mut self,
        max: usize,
        mut read: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = usize::from(self.u16()?);
        if count > max {
            return Err(DecodeError::Count { count, max });
        }
        // No room is made in advance for what may not be there.
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(read(self)?);
        }
        Ok(entries)
    }

    fn rule(&mut self) -> Result<Rule, DecodeError> {
        let number = self.u32()?;
        Rule::new(number).ok_or(DecodeError::Rule(number))
    }

    fn claim(&mut self) -> Result<Claim, DecodeError> {
        Ok(Claim {
            rule: self.rule()?,
            term: self.u64()?,
        })
    }

    fn seen(&mut self) -> Result<Seen, DecodeError> {
        let claim = self.claim()?;
        let is_released = self.flag()?;
        Ok(Seen {
            claim,
            holder: self.name()?,
            is_released,
        })
    }

    fn reached(&mut self) -> Result<Reached, DecodeError> {
        Ok(Reached {
            policy: Policy::new(self.u64()?),
            is_answered: self.flag()?,
        })
    }

    fn name(&mut self) -> Result<NodeName, DecodeError> {
        let length = usize::from(self.u8()?);
        Ok(NodeName::from_octets(self.slice(length)?)?)
    }

    fn family(&mut self) -> Result<Family, DecodeError> {
        match self.u8()? {
            4 => Ok(Family::V4),
            6 => Ok(Family::V6),
            other => Err(DecodeError::Family(other)),
        }
    }

    fn address(&mut self, family: Family) -> Result<IpAddr, DecodeError> {
        match family {
            Family::V4 => self
                .array::<4>()
                .map(|octets| Ipv4Addr::from(octets).into()),
            Family::V6 => self
                .array::<16>()
                .map(|octets| Ipv6Addr::from(octets).into()),
        }
    }

    fn endpoint(&mut self, family: Family) -> Result<Endpoint, DecodeError> {
        Ok(Endpoint {
            address: self.address(family)?,
            port: self.u16()?,
        })
    }

    fn key(&mut self) -> Result<(Family, Key), DecodeError> {
        let family = self.family()?;
        let protocol = self.u8()?;
        let (pod, remote) = (self.endpoint(family)?, self.endpoint(family)?);
        let key = Key::new(protocol, pod, remote).expect("both ends are read as one family");
        Ok((family, key))
    }

    fn record(&mut self) -> Result<Record, DecodeError> {
        match self.u8()? {
            SET => {
                let rule = self.rule()?;
                let (family, key) = self.key()?;
                let egress = self.endpoint(family)?;
                let (state_out, state_in) = (self.u8()?, self.u8()?);
                let node_family = self.family()?;
                let node = self.address(node_family)?;
                let mut mapping = Mapping::new(rule, key, egress, node)
                    .expect("all addresses are read as one family");
                mapping.state_out = state_out;
                mapping.state_in = state_in;
                mapping.age_ms = self.u64()?;
                mapping.idle_ms = self.u64()?;
                Ok(Record::Set(mapping))
            }
            REMOVE => Ok(Record::Remove {
                rule: self.rule()?,
                key: self.key()?.1,
            }),
            BEGIN => Ok(Record::Begin(self.rule()?)),
            END => Ok(Record::End(self.rule()?)),
            UNAVAILABLE => Ok(Record::Unavailable(self.rule()?)),
            other => Err(DecodeError::Record(other)),
        }
    }
}

#[cfg(test)]
mod tests;
