// SPDX-License-Identifier: Apache-2.0
//! Base64 as Secrets use it (RFC 4648 §4, padded). White space between groups is accepted, since
//! folded YAML brings it along.

/// Why a text is not base64.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Base64Error {
    /// A character outside the alphabet.
    #[error("'{0}' is not a base64 character")]
    Character(char),
    /// A group is incomplete, or padding is missing or misplaced.
    #[error("length or padding is wrong")]
    Padding,
}

/// Decodes padded base64.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, Base64Error> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut digits, mut padding) = (0u32, 0u32, 0u32);
    for c in text.chars().filter(|c| !c.is_ascii_whitespace()) {
        let value = match c {
            'A'..='Z' => c as u32 - 'A' as u32,
            'a'..='z' => c as u32 - 'a' as u32 + 26,
            '0'..='9' => c as u32 - '0' as u32 + 52,
            '+' => 62,
            '/' => 63,
            '=' => {
                padding += 1;
                continue;
            }
            other => return Err(Base64Error::Character(other)),
        };
        if padding > 0 {
            return Err(Base64Error::Padding);
        }
        bits = bits << 6 | value;
        digits += 1;
        if digits.is_multiple_of(4) {
            out.extend_from_slice(&bits.to_be_bytes()[1..]);
            bits = 0;
        }
    }
    match (digits % 4, padding) {
        (0, 0) => {}
        (2, 2) => out.push((bits >> 4) as u8),
        (3, 1) => out.extend_from_slice(&((bits >> 2) as u16).to_be_bytes()),
        _ => return Err(Base64Error::Padding),
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_rfc_4648_section_10_decode() {
        for (text, plain) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9v\n YmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decode(text).unwrap(), plain.as_bytes(), "{text}");
        }
    }

    #[test]
    fn broken_texts_are_refused() {
        assert_eq!(decode("Zm9$"), Err(Base64Error::Character('$')));
        for text in ["Z", "Zg", "Zg=", "Zm8", "Zg==Zg==", "Zm9v=", "===="] {
            assert_eq!(decode(text), Err(Base64Error::Padding), "{text}");
        }
    }
}
