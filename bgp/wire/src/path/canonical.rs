// SPDX-License-Identifier: Apache-2.0
//! Telling attributes that need no decoding: nearly all there are.

use super::{Origin, PathAttributes};
use crate::as_path::SegmentKind;
use crate::attribute::{AttributeCode, AttributeFlags, RawAttributes};
use crate::context::{PeerKind, SessionContext};

impl PathAttributes {
    /// Whether path attributes of [`Update::parse`](crate::Update::parse) are good as they stand:
    /// ORIGIN and AS_PATH are there, [`PathAttributes::decode`] would find no fault, and
    /// [`PathAttributes::encode`] would write the same bytes again, with AS numbers of four octets.
    ///
    /// `false` says nothing: what is rare is not looked at.
    pub fn are_canonical(bytes: &[u8], context: &SessionContext) -> bool {
        if !context.four_octet_as {
            return false;
        }
        let internal = context.peer != PeerKind::External;
        let mut last = AttributeCode(0);
        let mut mandatory = 0;
        for item in RawAttributes::new(bytes) {
            let Ok(raw) = item else { return false };
            let value = raw.value;
            let Some(class) = raw.code.class() else {
                return false;
            };
            let good = match raw.code {
                AttributeCode::ORIGIN => {
                    mandatory += 1;
                    matches!(value, [code] if Origin::from_code(*code).is_some())
                }
                AttributeCode::AS_PATH => {
                    mandatory += 1;
                    is_one_sequence(value)
                }
                AttributeCode::MULTI_EXIT_DISC => value.len() == 4,
                AttributeCode::LOCAL_PREF => internal && value.len() == 4,
                AttributeCode::ATOMIC_AGGREGATE => value.is_empty(),
                AttributeCode::AGGREGATOR => value.len() == 8 && value[..4] != [0; 4],
                AttributeCode::COMMUNITIES => is_set::<4>(value),
                AttributeCode::EXTENDED_COMMUNITIES => is_set::<8>(value),
                AttributeCode::LARGE_COMMUNITIES => is_set::<12>(value),
                _ => false,
            };
            let extended = if value.len() > usize::from(u8::MAX) {
                AttributeFlags::EXTENDED_LENGTH
            } else {
                AttributeFlags::empty()
            };
            let shortest = raw.flags.bits() == class.flags().union(extended).bits();
            if !good || !shortest || raw.code <= last {
                return false;
            }
            last = raw.code;
        }
        mandatory == 2
    }
}

/// Whether an AS_PATH is one AS_SEQUENCE, or empty, and the number 0 is not in it.
fn is_one_sequence(value: &[u8]) -> bool {
    const SEQUENCE: u8 = SegmentKind::Sequence as u8;
    match value.split_first_chunk::<2>() {
        Some((&[SEQUENCE, count], asns)) => {
            let (asns, rest) = asns.as_chunks::<4>();
            count > 0
                && rest.is_empty()
                && asns.len() == usize::from(count)
                && asns.iter().all(|asn| *asn != [0; 4])
        }
        Some(_) => false,
        None => value.is_empty(),
    }
}

/// Whether the value is groups of N octets, at least one, ascending.
fn is_set<const N: usize>(value: &[u8]) -> bool {
    let (groups, rest) = value.as_chunks::<N>();
    !groups.is_empty() && rest.is_empty() && groups.is_sorted_by(|a, b| a < b)
}
