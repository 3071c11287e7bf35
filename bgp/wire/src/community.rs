// SPDX-License-Identifier: Apache-2.0
//! Communities: tags on routes (RFC 1997, RFC 8092, RFC 4360).

mod extended;
mod large;
mod standard;

pub use extended::ExtendedCommunity;
pub use large::LargeCommunity;
pub use standard::Community;

use core::fmt;

/// Why a text is no community.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommunityParseError {
    expected: &'static str,
}

impl fmt::Display for CommunityParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a community: expected {}", self.expected)
    }
}

impl core::error::Error for CommunityParseError {}

/// Digits only: `u32::from_str` would take a sign.
fn decimal(text: &str) -> Option<u32> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}
