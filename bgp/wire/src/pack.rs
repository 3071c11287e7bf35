// SPDX-License-Identifier: Apache-2.0
//! Writing UPDATE messages: as many prefixes into each as fit.
//!
//! Messages are appended to one buffer, back to back, so that the bytes made once can be sent to
//! every peer with the same session parameters.

use alloc::vec::Vec;
use core::fmt;

use router_types::{Afi, Family};

use crate::attribute::{AttributeCode, AttributeFlags, RawAttributes};
use crate::context::FamilyContext;
use crate::frame::{self, MessageKind};
use crate::next_hop::PathNextHop;
use crate::nlri::{Nlri, NlriEntry};

/// Room for the largest prefix with path identifier, label and route distinguisher.
const MAX_ENTRY: usize = 4 + 1 + 3 + 8 + 16;

/// Why routes cannot be announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PackError {
    /// The attributes leave no room for a prefix. RFC 8654 §4 says what such a speaker does: it
    /// does not announce the routes, and withdraws them if it had.
    AttributesTooLong {
        /// Their length in octets.
        len: usize,
        /// The longest message on this session.
        max_len: usize,
    },
    /// The next hop's address family is not possible for the prefixes on this session.
    NextHopFamily(Family),
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PackError::AttributesTooLong { len, max_len } => write!(
                f,
                "path attributes of {len} octets leave no room for a prefix in a message of {max_len}"
            ),
            PackError::NextHopFamily(family) => write!(
                f,
                "the next hop's address family is not possible for {family} on this session"
            ),
        }
    }
}

impl core::error::Error for PackError {}

/// Appends UPDATE messages that announce `entries` and returns how many messages.
///
/// `attributes` is what [`PathAttributes::encode`](crate::PathAttributes::encode) wrote; the next
/// hop is added here. IPv4 unicast with an IPv4 next hop goes into the NLRI field, all else into
/// MP_REACH_NLRI, which comes first (RFC 7606 §5.1).
///
/// Entries of another address family than `family` are passed over.
///
/// # Errors
///
/// Nothing is appended then.
pub fn announce(
    out: &mut Vec<u8>,
    family: &FamilyContext,
    max_len: usize,
    attributes: &[u8],
    next_hop: PathNextHop,
    entries: impl IntoIterator<Item = NlriEntry>,
) -> Result<usize, PackError> {
    let mut entries = of_family(family.family, entries).peekable();
    if entries.peek().is_none() {
        check(family, max_len, attributes.len(), next_hop)?;
        return Ok(0);
    }
    announce_with(out, family, max_len, attributes, next_hop, |out, end| {
        fill(out, end, family.add_path_send, &mut entries);
        entries.peek().is_some()
    })
}

/// Appends UPDATE messages as [`announce`] does, with prefixes somebody else writes: `fill` appends
/// prefixes, at least one, while the buffer stays within the length it is given, and says whether
/// there are more.
///
/// # Errors
///
/// Nothing is appended then.
pub fn announce_with(
    out: &mut Vec<u8>,
    family: &FamilyContext,
    max_len: usize,
    attributes: &[u8],
    next_hop: PathNextHop,
    mut fill: impl FnMut(&mut Vec<u8>, usize) -> bool,
) -> Result<usize, PackError> {
    let classic = check(family, max_len, attributes.len(), next_hop)?;
    let mut messages = 0;
    // What stands before the prefixes is the same in every message.
    let mut front = 0..0;
    loop {
        let start = frame::begin(out, MessageKind::Update);
        let more = if classic {
            if front.is_empty() {
                let from = out.len();
                out.extend_from_slice(&[0, 0]);
                let attributes_at = out.len();
                out.extend_from_slice(&[0, 0]);
                push_with_next_hop(out, attributes, next_hop);
                set_len(out, attributes_at);
                front = from..out.len();
            } else {
                out.extend_from_within(front.clone());
            }
            fill(out, start + max_len)
        } else {
            out.extend_from_slice(&[0, 0]);
            let attributes_at = out.len();
            out.extend_from_slice(&[0, 0]);
            let value_at = begin_mp(out, AttributeCode::MP_REACH_NLRI, family.family);
            out.push(next_hop.encoded_len_for(family.family) as u8);
            next_hop.encode_for(family.family, out);
            out.push(0);
            let more = fill(out, start + max_len - attributes.len());
            finish_mp(out, value_at);
            out.extend_from_slice(attributes);
            set_len(out, attributes_at);
            more
        };
        frame::finish(out, start);
        messages += 1;
        if !more {
            return Ok(messages);
        }
    }
}

/// Whether a route of these attributes, given by their length as encoded, fits into a message.
pub fn fits(
    family: &FamilyContext,
    max_len: usize,
    attributes_len: usize,
    next_hop: PathNextHop,
) -> bool {
    check(family, max_len, attributes_len, next_hop).is_ok()
}

/// Whether the prefixes go into the NLRI field.
fn check(
    family: &FamilyContext,
    max_len: usize,
    attributes_len: usize,
    next_hop: PathNextHop,
) -> Result<bool, PackError> {
    if !next_hop.fits(family.family, family.extended_next_hop) {
        return Err(PackError::NextHopFamily(family.family));
    }
    let classic = family.family == Family::IPV4_UNICAST && next_hop.encoded_len() == 4;
    let overhead = frame::HEADER_LEN
        + 4
        + attributes_len
        + if classic {
            3 + 4
        } else {
            4 + 3 + 1 + next_hop.encoded_len_for(family.family) + 1
        };
    if overhead + MAX_ENTRY > max_len {
        return Err(PackError::AttributesTooLong {
            len: attributes_len,
            max_len,
        });
    }
    Ok(classic)
}

/// Appends UPDATE messages that withdraw `entries` and returns how many messages. IPv4 unicast
/// goes into the withdrawn routes field, all else into MP_UNREACH_NLRI.
///
/// Entries of another address family than `family` are passed over.
pub fn withdraw(
    out: &mut Vec<u8>,
    family: &FamilyContext,
    max_len: usize,
    entries: impl IntoIterator<Item = NlriEntry>,
) -> usize {
    let mut entries = of_family(family.family, entries).peekable();
    if entries.peek().is_none() {
        return 0;
    }
    withdraw_with(out, family, max_len, |out, end| {
        fill(out, end, family.add_path_send, &mut entries);
        entries.peek().is_some()
    })
}

/// Appends UPDATE messages that withdraw destinations of any family as they stand in a list, and
/// returns how many messages. Of VPNs the list has [`Label::WITHDRAWN`](crate::Label::WITHDRAWN).
pub fn withdraw_nlri(
    out: &mut Vec<u8>,
    family: &FamilyContext,
    max_len: usize,
    nlri: Nlri<'_>,
) -> usize {
    if nlri.is_empty() {
        return 0;
    }
    let mut left = nlri;
    withdraw_with(out, family, max_len, |out, end| {
        let (part, rest) = left.split_at_octets(end.saturating_sub(out.len()));
        out.extend_from_slice(part.as_bytes());
        left = rest;
        !left.is_empty()
    })
}

/// Appends UPDATE messages as [`withdraw`] does, with prefixes somebody else writes, as in
/// [`announce_with`].
pub fn withdraw_with(
    out: &mut Vec<u8>,
    family: &FamilyContext,
    max_len: usize,
    mut fill: impl FnMut(&mut Vec<u8>, usize) -> bool,
) -> usize {
    let mut messages = 0;
    loop {
        let start = frame::begin(out, MessageKind::Update);
        let withdrawn_at = out.len();
        out.extend_from_slice(&[0, 0]);
        let more = if family.family == Family::IPV4_UNICAST {
            let more = fill(out, start + max_len - 2);
            set_len(out, withdrawn_at);
            out.extend_from_slice(&[0, 0]);
            more
        } else {
            let attributes_at = out.len();
            out.extend_from_slice(&[0, 0]);
            let value_at = begin_mp(out, AttributeCode::MP_UNREACH_NLRI, family.family);
            let more = fill(out, start + max_len);
            finish_mp(out, value_at);
            set_len(out, attributes_at);
            more
        };
        frame::finish(out, start);
        messages += 1;
        if !more {
            return messages;
        }
    }
}

/// Appends the End-of-RIB marker of a family (RFC 4724 §2).
pub fn end_of_rib(out: &mut Vec<u8>, family: Family) {
    let start = frame::begin(out, MessageKind::Update);
    out.extend_from_slice(&[0, 0]);
    let attributes_at = out.len();
    out.extend_from_slice(&[0, 0]);
    if family != Family::IPV4_UNICAST {
        let value_at = begin_mp(out, AttributeCode::MP_UNREACH_NLRI, family);
        finish_mp(out, value_at);
        set_len(out, attributes_at);
    }
    frame::finish(out, start);
}

fn of_family(
    family: Family,
    entries: impl IntoIterator<Item = NlriEntry>,
) -> impl Iterator<Item = NlriEntry> {
    let v4 = family.afi == Afi::IPV4;
    entries
        .into_iter()
        .filter(move |entry| entry.prefix.addr().is_ipv4() == v4)
}

/// Appends entries while the buffer stays within `end`.
fn fill(
    out: &mut Vec<u8>,
    end: usize,
    add_path: bool,
    entries: &mut core::iter::Peekable<impl Iterator<Item = NlriEntry>>,
) {
    while let Some(entry) = entries.next_if(|e| out.len() + e.encoded_len(add_path) <= end) {
        entry.encode(add_path, out);
    }
}

/// Appends the attributes with NEXT_HOP in its place among the ascending types.
fn push_with_next_hop(out: &mut Vec<u8>, attributes: &[u8], next_hop: PathNextHop) {
    let mut list = RawAttributes::new(attributes).flatten().peekable();
    while let Some(raw) = list.next_if(|raw| raw.code < AttributeCode::NEXT_HOP) {
        raw.encode(out);
    }
    let flags = AttributeFlags::TRANSITIVE.bits();
    out.extend_from_slice(&[flags, AttributeCode::NEXT_HOP.0, 4]);
    next_hop.encode(out);
    list.for_each(|raw| raw.encode(out));
}

/// Starts an attribute with an extended length and returns where its value starts.
fn begin_mp(out: &mut Vec<u8>, code: AttributeCode, family: Family) -> usize {
    let flags = AttributeFlags::OPTIONAL | AttributeFlags::EXTENDED_LENGTH;
    out.extend_from_slice(&[flags.bits(), code.0, 0, 0]);
    let value_at = out.len();
    out.extend_from_slice(&family.afi.0.to_be_bytes());
    out.push(family.safi.0);
    value_at
}

/// Writes the length of the attribute, with one octet where that is enough (RFC 4271 §4.3).
fn finish_mp(out: &mut Vec<u8>, value_at: usize) {
    let len = out.len() - value_at;
    if let Ok(short) = u8::try_from(len) {
        out[value_at - 4] = AttributeFlags::OPTIONAL.bits();
        out[value_at - 2] = short;
        out.remove(value_at - 1);
    } else {
        out[value_at - 2..value_at].copy_from_slice(&(len as u16).to_be_bytes());
    }
}

/// Writes the length of all that follows the two octets at `at`.
fn set_len(out: &mut [u8], at: usize) {
    let len = out.len() - at - 2;
    out[at..at + 2].copy_from_slice(&(len as u16).to_be_bytes());
}
