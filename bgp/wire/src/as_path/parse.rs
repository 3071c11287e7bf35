// SPDX-License-Identifier: Apache-2.0
//! AS paths as people write them: what their `Display` shows.

use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use router_types::Asn;

use super::{AsPath, Segment, SegmentKind};

/// Why a text is no AS path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AsPathParseError;

impl fmt::Display for AsPathParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not an AS path: expected AS numbers with blanks between, an AS_SET in braces, such as \
             65001 65002 {65003,65004}",
        )
    }
}

impl core::error::Error for AsPathParseError {}

impl FromStr for AsPath {
    type Err = AsPathParseError;

    /// Reads `65001 65002 {65003,65004}`; confederation segments in `( )` and `[ ]`. Nothing is
    /// the empty path.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut segments: Vec<Segment> = Vec::new();
        let mut rest = text.trim();
        while let Some(first) = rest.chars().next() {
            let (kind, close) = match first {
                '{' => (SegmentKind::Set, Some('}')),
                '(' => (SegmentKind::ConfedSequence, Some(')')),
                '[' => (SegmentKind::ConfedSet, Some(']')),
                _ => (SegmentKind::Sequence, None),
            };
            let (inside, behind) = match close {
                Some(close) => rest[1..].split_once(close).ok_or(AsPathParseError)?,
                None => rest.split_at(rest.find(['{', '(', '[']).unwrap_or(rest.len())),
            };
            let numbers = inside.split([' ', ',']).filter(|number| !number.is_empty());
            let asns: Result<Vec<Asn>, _> = numbers.map(str::parse).collect();
            let asns = asns.map_err(|_| AsPathParseError)?;
            let follows = segments.last().map(|segment| segment.kind);
            let is_misplaced =
                kind.is_confederation() && follows.is_some_and(|kind| !kind.is_confederation());
            if asns.is_empty() || is_misplaced {
                return Err(AsPathParseError);
            }
            let chunks = asns.chunks(super::MAX_SEGMENT);
            segments.extend(chunks.map(|chunk| Segment {
                kind,
                asns: chunk.to_vec(),
            }));
            rest = behind.trim_start();
        }
        Ok(AsPath { segments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn what_is_shown_is_read() {
        for text in [
            "",
            "65001",
            "65001 65002 {65003,65004}",
            "{1,2} 3",
            "(65010 65011) [65012,65013] 65001",
        ] {
            let path: AsPath = text.parse().unwrap();
            assert_eq!(path.to_string(), text);
        }
        assert_eq!("  1   2 ".parse::<AsPath>().unwrap().to_string(), "1 2");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["AS1", "1 {2", "1}", "{}", "1 (2)", "4294967296", "1;2"] {
            assert!(text.parse::<AsPath>().is_err(), "{text}");
        }
    }
}
