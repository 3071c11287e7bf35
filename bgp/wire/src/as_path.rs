// SPDX-License-Identifier: Apache-2.0
//! AS_PATH (RFC 4271 §5.1.2, RFC 5065 §3) and its two widths of AS numbers (RFC 6793 §4).

mod parse;

use alloc::vec::Vec;
use core::fmt;

use router_types::Asn;

use crate::cursor::Cursor;

pub use parse::AsPathParseError;

/// Most AS numbers in one segment: the count has one octet.
const MAX_SEGMENT: usize = 255;

/// Kind of a path segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum SegmentKind {
    /// AS_SET: unordered, left by aggregation; deprecated by RFC 9774.
    Set = 1,
    /// AS_SEQUENCE: in the order the route came, nearest first.
    Sequence = 2,
    /// AS_CONFED_SEQUENCE: member ASes of our confederation.
    ConfedSequence = 3,
    /// AS_CONFED_SET.
    ConfedSet = 4,
}

impl SegmentKind {
    /// The kind of this code.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(SegmentKind::Set),
            2 => Some(SegmentKind::Sequence),
            3 => Some(SegmentKind::ConfedSequence),
            4 => Some(SegmentKind::ConfedSet),
            _ => None,
        }
    }

    /// Whether it holds member ASes of a confederation.
    pub const fn is_confederation(self) -> bool {
        matches!(self, SegmentKind::ConfedSequence | SegmentKind::ConfedSet)
    }

    /// Whether its AS numbers have no order.
    pub const fn is_set(self) -> bool {
        matches!(self, SegmentKind::Set | SegmentKind::ConfedSet)
    }
}

/// A run of AS numbers in a path; not empty when received.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Segment {
    /// What the numbers are.
    pub kind: SegmentKind,
    /// The numbers, nearest first.
    pub asns: Vec<Asn>,
}

/// The ASes a route has passed, nearest first. Empty for a route of the speaker's own AS.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct AsPath {
    /// Its segments; confederation segments stand in front of all others.
    pub segments: Vec<Segment>,
}

/// Why an AS path cannot be read (RFC 7606 §7.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AsPathError {
    /// A segment's kind is none of the four.
    UnknownSegment(u8),
    /// A segment says it has no AS number.
    EmptySegment,
    /// A segment's numbers, or its two-octet header, run over the end.
    Truncated,
    /// A confederation segment follows one of another kind (RFC 5065 §5).
    ConfederationBehindOthers,
}

impl AsPath {
    /// A path of one AS_SEQUENCE, or none for no numbers.
    pub fn from_sequence(asns: impl IntoIterator<Item = Asn>) -> Self {
        let asns: Vec<Asn> = asns.into_iter().collect();
        let segments = asns.chunks(MAX_SEGMENT).map(|chunk| Segment {
            kind: SegmentKind::Sequence,
            asns: chunk.to_vec(),
        });
        AsPath {
            segments: segments.collect(),
        }
    }

    /// Reads an attribute value with AS numbers of four octets, or of two.
    ///
    /// # Errors
    ///
    /// RFC 7606 §7.2, and confederation segments in a wrong place.
    pub fn decode(value: &[u8], four_octet_as: bool) -> Result<Self, AsPathError> {
        let mut segments: Vec<Segment> = Vec::new();
        let mut cursor = Cursor::new(value);
        while !cursor.is_empty() {
            let [code, count] = cursor.array().ok_or(AsPathError::Truncated)?;
            let kind = SegmentKind::from_code(code).ok_or(AsPathError::UnknownSegment(code))?;
            if count == 0 {
                return Err(AsPathError::EmptySegment);
            }
            if kind.is_confederation()
                && segments.last().is_some_and(|s| !s.kind.is_confederation())
            {
                return Err(AsPathError::ConfederationBehindOthers);
            }
            let width = if four_octet_as { 4 } else { 2 };
            let numbers = cursor
                .take(usize::from(count) * width)
                .ok_or(AsPathError::Truncated)?;
            let asns = numbers
                .chunks_exact(width)
                .map(|n| Asn(n.iter().fold(0, |asn, &octet| asn << 8 | u32::from(octet))))
                .collect();
            segments.push(Segment { kind, asns });
        }
        Ok(AsPath { segments })
    }

    /// Appends the attribute value. With two octets, numbers that do not fit become AS_TRANS.
    pub fn encode(&self, four_octet_as: bool, out: &mut Vec<u8>) {
        for segment in &self.segments {
            for chunk in segment.asns.chunks(MAX_SEGMENT) {
                out.extend_from_slice(&[segment.kind as u8, chunk.len() as u8]);
                for asn in chunk {
                    if four_octet_as {
                        out.extend_from_slice(&asn.0.to_be_bytes());
                    } else {
                        out.extend_from_slice(&asn.to_two_octet().to_be_bytes());
                    }
                }
            }
        }
    }

    /// Length for the decision process: a set counts one, confederation segments nothing
    /// (RFC 4271 §9.1.2.2, RFC 5065 §5.3).
    pub fn hop_count(&self) -> usize {
        self.segments.iter().map(Segment::hop_count).sum()
    }

    /// The first AS of the path, that of the neighbour that sent it; `None` for an empty path, or
    /// where a set comes first.
    pub fn neighbour(&self) -> Option<Asn> {
        let first = self.segments.iter().find(|s| !s.kind.is_confederation())?;
        if first.kind.is_set() {
            None
        } else {
            first.asns.first().copied()
        }
    }

    /// The AS the route began in: the last of the path, unless a set stands there.
    pub fn origin(&self) -> Option<Asn> {
        let last = self.segments.last()?;
        if last.kind == SegmentKind::Sequence {
            last.asns.last().copied()
        } else {
            None
        }
    }

    /// Whether an AS is anywhere in the path.
    pub fn contains(&self, asn: Asn) -> bool {
        self.iter().any(|a| a == asn)
    }

    /// Whether the path has a set of either kind (RFC 9774).
    pub fn has_set(&self) -> bool {
        self.segments.iter().any(|s| s.kind.is_set())
    }

    /// Whether the path has segments of a confederation.
    pub fn has_confederation(&self) -> bool {
        self.segments.iter().any(|s| s.kind.is_confederation())
    }

    /// All numbers in the order they stand, of segments of every kind.
    pub fn iter(&self) -> impl Iterator<Item = Asn> + '_ {
        self.segments.iter().flat_map(|s| s.asns.iter().copied())
    }

    /// Puts `asn` in front, `times` times, as a speaker does towards another AS
    /// (RFC 4271 §5.1.2 b); confederation segments are removed first (RFC 5065 §4.1 c).
    pub fn prepend(&mut self, asn: Asn, times: usize) {
        self.remove_confederation();
        for _ in 0..times {
            match self.segments.first_mut() {
                Some(first)
                    if first.kind == SegmentKind::Sequence && first.asns.len() < MAX_SEGMENT =>
                {
                    first.asns.insert(0, asn);
                }
                _ => {
                    let first = Segment {
                        kind: SegmentKind::Sequence,
                        asns: [asn].into(),
                    };
                    self.segments.insert(0, first);
                }
            }
        }
    }

    /// Removes the segments of a confederation.
    pub fn remove_confederation(&mut self) {
        self.segments.retain(|s| !s.kind.is_confederation());
    }

    /// Rebuilds the path of a two-octet speaker from its AS_PATH (`self`) and AS4_PATH
    /// (RFC 6793 §4.2.3): the front of the first, the rest of the second.
    pub fn merge_as4(self, mut as4: AsPath) -> AsPath {
        as4.remove_confederation();
        let (hops, as4_hops) = (self.hop_count(), as4.hop_count());
        let Some(mut missing) = hops.checked_sub(as4_hops) else {
            return self;
        };
        let mut segments: Vec<Segment> = Vec::new();
        for mut segment in self.segments {
            if segment.kind.is_confederation() {
                segments.push(segment);
            } else if missing == 0 {
                break;
            } else {
                if segment.kind == SegmentKind::Sequence {
                    segment.asns.truncate(missing);
                }
                missing -= segment.hop_count();
                segments.push(segment);
            }
        }
        // The cut may have gone through one sequence: its halves become one again.
        let mut rest = as4.segments.into_iter().peekable();
        if let Some(last) = segments.last_mut()
            && last.kind == SegmentKind::Sequence
            && let Some(next) = rest.next_if(|next| {
                next.kind == SegmentKind::Sequence
                    && last.asns.len() + next.asns.len() <= MAX_SEGMENT
            })
        {
            last.asns.extend(next.asns);
        }
        segments.extend(rest);
        AsPath { segments }
    }
}

impl Segment {
    fn hop_count(&self) -> usize {
        match self.kind {
            SegmentKind::Sequence => self.asns.len(),
            SegmentKind::Set => 1,
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
        }
    }
}

impl fmt::Display for AsPath {
    /// `65001 65002 {65003,65004}`, confederation segments in `( )` and `[ ]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            let (open, separator, close) = match segment.kind {
                SegmentKind::Sequence => ("", " ", ""),
                SegmentKind::Set => ("{", ",", "}"),
                SegmentKind::ConfedSequence => ("(", " ", ")"),
                SegmentKind::ConfedSet => ("[", ",", "]"),
            };
            f.write_str(open)?;
            for (index, asn) in segment.asns.iter().enumerate() {
                if index > 0 {
                    f.write_str(separator)?;
                }
                write!(f, "{asn}")?;
            }
            f.write_str(close)?;
        }
        Ok(())
    }
}

impl fmt::Display for AsPathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AsPathError::UnknownSegment(code) => write!(f, "segment type {code} is not defined"),
            AsPathError::EmptySegment => f.write_str("a segment without AS numbers"),
            AsPathError::Truncated => f.write_str("a segment runs over the end of the attribute"),
            AsPathError::ConfederationBehindOthers => {
                f.write_str("a confederation segment behind others")
            }
        }
    }
}

impl core::error::Error for AsPathError {}
