// SPDX-License-Identifier: Apache-2.0
//! Hexadecimal as people paste it.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Why a text is no bytes in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HexError {
    /// A character that is neither digit nor separator, and where it stands.
    Character(char, usize),
    /// The last byte has one digit only.
    OddDigits,
}

impl fmt::Display for HexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HexError::Character(c, at) => {
                write!(f, "{c:?} at position {at} is no hexadecimal digit")
            }
            HexError::OddDigits => f.write_str("the last byte has only one hexadecimal digit"),
        }
    }
}

impl core::error::Error for HexError {}

/// Reads bytes in hexadecimal. White space, `:`, `-`, `,` and `0x` in front of digits are passed
/// over.
///
/// # Errors
///
/// Any other character, or an odd number of digits.
pub fn parse_hex(text: &str) -> Result<Vec<u8>, HexError> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut high: Option<u8> = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '0' && high.is_none() && chars.next_if(|(_, c)| matches!(c, 'x' | 'X')).is_some() {
            continue;
        }
        if c.is_whitespace() || matches!(c, ':' | '-' | ',') {
            continue;
        }
        let digit = c.to_digit(16).ok_or(HexError::Character(c, at))? as u8;
        match high.take() {
            Some(high) => bytes.push(high << 4 | digit),
            None => high = Some(digit),
        }
    }
    if high.is_some() {
        Err(HexError::OddDigits)
    } else {
        Ok(bytes)
    }
}

pub(super) fn write(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n & 0xf)]);
    bytes
        .iter()
        .flat_map(|&b| [digit(b >> 4), digit(b)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_ways_of_writing_bytes_are_read() {
        for text in [
            "ff00a1",
            "FF 00\nA1",
            "ff:00:a1",
            "0xff, 0x00, 0xa1",
            "ff00 a1\n",
        ] {
            assert_eq!(parse_hex(text), Ok(alloc::vec![0xff, 0, 0xa1]), "{text}");
        }
        assert_eq!(write(&[0xff, 0, 0xa1]), "ff00a1");
    }

    #[test]
    fn other_texts_are_refused_with_the_place() {
        assert_eq!(parse_hex("ffg0"), Err(HexError::Character('g', 2)));
        assert_eq!(parse_hex("fff"), Err(HexError::OddDigits));
    }
}
