// SPDX-License-Identifier: Apache-2.0
//! What nodes say to each other, as bytes. [`decode`] takes any bytes and never panics.
//!
//! A message is one payload of a [`crate::channel::Channel`]: `kind u8 | flags u8 | body`. All
//! numbers are big-endian, all lists are `count u16 | entries`, a flag of the body is an octet of 0
//! or 1. Nothing may follow the body.
//!
//! | kind | message | body |
//! |---|---|---|
//! | 1 | [`Message::ClaimList`] | first, last, list of claims |
//! | 2 | [`Message::Claimed`] | list of claims |
//! | 3 | [`Message::Released`] | list of claims |
//! | 4 | [`Message::Seen`] | list of (claim, released, name length u8, name) |
//! | 5 | [`Message::HandOver`] | claim |
//! | 6 | [`Message::HandOverRefused`] | claim |
//! | 16 | [`Message::Subscribe`] | epoch u32, restart, list of rules u32 |
//! | 17 | [`Message::Batch`] | epoch u32, sequence u64, list of records |
//! | 18 | [`Message::Ack`] | epoch u32, sequence u64 |
//! | 32 | [`Message::Ask`] | nonce u64, name length u8, name |
//! | 33 | [`Message::Heard`] | nonce u64 |
//! | 34 | [`Message::Ping`] | nonce u64 |
//! | 35 | [`Message::Pong`] | nonce u64 |
//! | 36 | [`Message::Standing`] | available |
//! | 37 | [`Message::Reached`] | list of (policy u64, answered) |
//! | 38 | [`Message::Missed`] | list of (name length u8, name) |
//! | 39 | [`Message::Tunnel`], with flag 0x80 | protocol u8, port u16 |
//!
//! A claim is `rule u32 | term u64`. A record is a tag and, by tag: 1, a mapping: `rule u32, family
//! u8 (4 or 6), protocol u8, pod address, port u16, remote address, port, egress address, port,
//! state out u8, state in u8, family of the node u8, its address, age u64, idle u64`; 2, a removal:
//! `rule, family, protocol, pod address, port, remote address, port`; 3 begin, 4 end, 5
//! unavailable: `rule`.
//!
//! A later version may add kinds. Flag 0x80 ([`SKIPPABLE`]) says that a receiver that does not know
//! the kind may go on as if nothing had come; without it the kind is an error and the caller ends
//! the channel. Other flags are an error.

mod codec;

pub use codec::{DecodeError, Decoded, EncodeError, decode, encode};

use std::fmt;

use crate::mapping::{Key, Mapping};
use crate::name::{NodeName, Policy, Rule};

/// The flag of messages that may be skipped by who does not know their kind.
pub const SKIPPABLE: u8 = 0x80;

/// Most claims of a message: 48 KiB of them.
pub const MAX_CLAIMS: usize = 4096;
/// Most entries of a [`Message::Seen`]: 62 KiB with the longest names.
pub const MAX_SEEN: usize = 240;
/// Most rules of a subscription: 62 KiB of them.
pub const MAX_RULES: usize = 16_000;
/// Most entries of a [`Message::Reached`]: 36 KiB of them.
pub const MAX_REACHED: usize = 4096;
/// Most names of a [`Message::Missed`]: 16 KiB with the longest ones, more than may reasonably be
/// dead at once.
pub const MAX_MISSED: usize = 64;
/// Most records of a batch: 48 KiB of IPv6 mappings, 29 KiB of IPv4 ones.
pub const MAX_RECORDS: usize = 512;

/// That a node holds a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// The rule.
    pub rule: Rule,
    /// Counted up whenever the rule gets another holder. From 1.
    pub term: u64,
}

/// A claim of anybody, as the sender of the message knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seen {
    /// The claim.
    pub claim: Claim,
    /// Whose it is.
    pub holder: NodeName,
    /// Whether the holder has let go since.
    pub is_released: bool,
}

/// A part of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// The mapping is so.
    Set(Mapping),
    /// There is no such mapping.
    Remove {
        /// The rule it was of.
        rule: Rule,
        /// Its key.
        key: Key,
    },
    /// All mappings of the rule follow, among other things.
    Begin(Rule),
    /// That was all: what has not been set since the beginning is no more.
    End(Rule),
    /// The sender does not hold the rule, and says nothing about it until the next `Begin`.
    Unavailable(Rule),
}

impl Record {
    /// The rule that is concerned.
    pub const fn rule(&self) -> Rule {
        match self {
            Record::Set(mapping) => mapping.rule,
            Record::Remove { rule, .. } => *rule,
            Record::Begin(rule) | Record::End(rule) | Record::Unavailable(rule) => *rule,
        }
    }
}

/// What a node's tunnel to other nodes speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// [`Tunnel::VXLAN`], [`Tunnel::GENEVE`], or what a later version has.
    pub protocol: u8,
    /// UDP port.
    pub port: u16,
}

impl Tunnel {
    /// RFC 7348.
    pub const VXLAN: u8 = 1;
    /// RFC 8926.
    pub const GENEVE: u8 = 2;
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match self.protocol {
            Tunnel::VXLAN => write!(f, "VXLAN on UDP port {port}"),
            Tunnel::GENEVE => write!(f, "Geneve on UDP port {port}"),
            other => write!(f, "protocol number {other} on UDP port {port}"),
        }
    }
}

/// Whether a node reaches what a policy asks its gateways to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The policy.
    pub policy: Policy,
    /// Whether its probe is answered.
    pub is_answered: bool,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Everything the sender holds, in as many messages as it takes.
    ClaimList {
        /// A list begins.
        is_first: bool,
        /// A list ends.
        is_last: bool,
        /// At most [`MAX_CLAIMS`].
        claims: Vec<Claim>,
    },
    /// The sender holds these, besides what it has said before. At most [`MAX_CLAIMS`].
    Claimed(Vec<Claim>),
    /// The sender holds these no more. At most [`MAX_CLAIMS`].
    Released(Vec<Claim>),
    /// What the sender knows of others' claims. At most [`MAX_SEEN`].
    Seen(Vec<Seen>),
    /// The sender, who holds this, asks the receiver to claim it.
    HandOver(Claim),
    /// The sender will not.
    HandOverRefused(Claim),
    /// The sender wants the mappings of these rules.
    Subscribe {
        /// Counted up with each subscription of a link.
        epoch: u32,
        /// Everything anew, from sequence number 1; else only the rules that were not in the
        /// subscription before.
        is_restart: bool,
        /// At most [`MAX_RULES`].
        rules: Vec<Rule>,
    },
    /// Mappings and changes, in order.
    Batch(Batch),
    /// Everything up to this batch has been applied.
    Ack {
        /// The epoch of the batch.
        epoch: u32,
        /// Its number.
        sequence: u64,
    },
    /// Whether the receiver can hear this node ([`crate::witness`]).
    Ask {
        /// What the answers bring back.
        nonce: u64,
        /// Who is asked about.
        about: NodeName,
    },
    /// It can.
    Heard {
        /// The question's.
        nonce: u64,
    },
    /// Whether the receiver is there.
    Ping {
        /// What the answer brings back.
        nonce: u64,
    },
    /// It is.
    Pong {
        /// The question's.
        nonce: u64,
    },
    /// Whether the sender wants to hold rules: not while it is drained.
    Standing {
        /// Whether it does.
        is_available: bool,
    },
    /// What came of the sender's probes of these policies, besides what it has said before: when
    /// that has changed, and again when the receiver's own probe of a policy failed. At most
    /// [`MAX_REACHED`].
    Reached(Vec<Reached>),
    /// All those the sender watches and takes for dead ([`crate::witness`]): for nodes that watch
    /// nobody and choose among gateways. At most [`MAX_MISSED`].
    Missed(Vec<NodeName>),
    /// What the sender's tunnel speaks. Nothing is done by it: a node that hears
    /// something else than its own tells its operator.
    Tunnel(Tunnel),
}

/// Mappings and changes of mappings, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The last subscription the sender has seen.
    pub epoch: u32,
    /// The number of the batch, counted up from 1 since the last restart.
    pub sequence: u64,
    /// At most [`MAX_RECORDS`].
    pub records: Vec<Record>,
}
