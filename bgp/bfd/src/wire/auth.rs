// SPDX-License-Identifier: Apache-2.0
//! The authentication section (RFC 5880 §4.2 to §4.4) and its computation (§6.7).

use md5::{Digest, Md5};
use sha1::Sha1;

use super::{HEADER, MAX};
use crate::profile::{Auth, AuthType};

/// A sequence number of keyed authentication; they wrap around.
pub type SequenceNumber = u32;

/// Where the digest begins in a packet.
const DIGEST: usize = HEADER + 8;

/// The authentication section of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuthSection<'a> {
    /// The type.
    pub kind: AuthType,
    /// The number of the key.
    pub key_id: u8,
    /// The sequence number; 0 for a simple password.
    pub sequence: SequenceNumber,
    /// The password, or the digest.
    pub data: &'a [u8],
}

impl<'a> AuthSection<'a> {
    /// Takes the section apart; `None` for an unknown type or a wrong length.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<AuthSection<'a>> {
        let (&[code, length], _) = bytes.split_first_chunk::<2>()?;
        // The section is the last of the packet and fills it.
        if usize::from(length) != bytes.len() {
            return None;
        }
        let kind = AuthType::ALL.into_iter().find(|kind| kind.code() == code)?;
        let digest = kind.max_key();
        match kind {
            AuthType::SimplePassword => {
                let (&[_, _, key_id], data) = bytes.split_first_chunk::<3>()?;
                (1..=16).contains(&data.len()).then_some(AuthSection {
                    kind,
                    key_id,
                    sequence: 0,
                    data,
                })
            }
            AuthType::KeyedMd5
            | AuthType::MeticulousKeyedMd5
            | AuthType::KeyedSha1
            | AuthType::MeticulousKeyedSha1 => {
                let (&[_, _, key_id, _, a, b, c, d], data) = bytes.split_first_chunk::<8>()?;
                (data.len() == digest).then_some(AuthSection {
                    kind,
                    key_id,
                    sequence: u32::from_be_bytes([a, b, c, d]),
                    data,
                })
            }
        }
    }

    /// Whether the packet is the work of somebody who has the key. The sequence number is the
    /// session's to judge.
    pub fn is_genuine(&self, packet: &[u8], auth: &Auth) -> bool {
        if self.kind != auth.kind() || self.key_id != auth.key_id() {
            return false;
        }
        match self.kind {
            AuthType::SimplePassword => is_same(self.data, auth.reveal()),
            AuthType::KeyedMd5
            | AuthType::MeticulousKeyedMd5
            | AuthType::KeyedSha1
            | AuthType::MeticulousKeyedSha1 => {
                let mut copy = [0; MAX];
                let Some(copy) = copy.get_mut(..packet.len()) else {
                    return false;
                };
                copy.copy_from_slice(packet);
                seal(copy, auth);
                is_same(self.data, &copy[DIGEST..])
            }
        }
    }
}

impl AuthType {
    /// The code (RFC 5880 §4.1).
    const fn code(self) -> u8 {
        match self {
            AuthType::SimplePassword => 1,
            AuthType::KeyedMd5 => 2,
            AuthType::MeticulousKeyedMd5 => 3,
            AuthType::KeyedSha1 => 4,
            AuthType::MeticulousKeyedSha1 => 5,
        }
    }
}

/// Compares in a time that does not tell where the difference is.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
}

/// Writes the section without its digest, and returns the length of the packet.
pub(super) fn append(bytes: &mut [u8; MAX], auth: &Auth, sequence: SequenceNumber) -> usize {
    let key = auth.reveal();
    let section = match auth.kind() {
        AuthType::SimplePassword => {
            bytes[HEADER + 3..HEADER + 3 + key.len()].copy_from_slice(key);
            3 + key.len()
        }
        AuthType::KeyedMd5
        | AuthType::MeticulousKeyedMd5
        | AuthType::KeyedSha1
        | AuthType::MeticulousKeyedSha1 => {
            bytes[HEADER + 4..DIGEST].copy_from_slice(&sequence.to_be_bytes());
            8 + auth.kind().max_key()
        }
    };
    bytes[HEADER] = auth.kind().code();
    bytes[HEADER + 1] = section as u8;
    bytes[HEADER + 2] = auth.key_id();
    HEADER + section
}

/// Computes the digest over the whole packet with the key, padded with zeros, in its place.
pub(super) fn seal(packet: &mut [u8], auth: &Auth) {
    let length = auth.kind().max_key();
    let Some(place) = packet.get_mut(DIGEST..DIGEST + length) else {
        return;
    };
    match auth.kind() {
        AuthType::SimplePassword => {}
        AuthType::KeyedMd5 | AuthType::MeticulousKeyedMd5 => {
            pad(place, auth.reveal());
            let digest = Md5::digest(&*packet);
            packet[DIGEST..].copy_from_slice(&digest);
        }
        AuthType::KeyedSha1 | AuthType::MeticulousKeyedSha1 => {
            pad(place, auth.reveal());
            let digest = Sha1::digest(&*packet);
            packet[DIGEST..].copy_from_slice(&digest);
        }
    }
}

fn pad(place: &mut [u8], key: &[u8]) {
    place.fill(0);
    place[..key.len()].copy_from_slice(key);
}
