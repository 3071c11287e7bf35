//! Autonomous system numbers.

use core::fmt;
use core::num::ParseIntError;
use core::str::FromStr;

/// A four-octet autonomous system number (RFC 6793).
///
/// 0 is reserved (RFC 7607) and [`Asn::TRANS`] stands for a number a two-octet speaker cannot
/// carry. Written in asplain (`4200000001`) and read in asplain or asdot (`64086.59905`, RFC 5396).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Asn(pub u32);

impl Asn {
    /// `AS_TRANS`, RFC 6793 §9.
    pub const TRANS: Asn = Asn(23456);

    /// Whether the number fits the two octets of an old speaker's `My Autonomous System`.
    pub const fn is_two_octet(self) -> bool {
        self.0 <= 0xffff
    }

    /// Whether the number is for private use: 64512–65534 and 4200000000–4294967294 (RFC 6996 §5).
    pub const fn is_private(self) -> bool {
        matches!(self.0, 64512..=65534 | 4_200_000_000..=4_294_967_294)
    }

    /// The value for a two-octet field: itself where it fits, else `AS_TRANS`.
    pub const fn to_two_octet(self) -> u16 {
        if self.is_two_octet() {
            self.0 as u16
        } else {
            Self::TRANS.0 as u16
        }
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AS{}", self.0)
    }
}

impl From<u32> for Asn {
    fn from(value: u32) -> Self {
        Asn(value)
    }
}

/// Why a text is no AS number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsnParseError;

impl fmt::Display for AsnParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an AS number: expected 0 to 4294967295, or asdot such as 64086.59905")
    }
}

impl core::error::Error for AsnParseError {}

impl From<ParseIntError> for AsnParseError {
    fn from(_: ParseIntError) -> Self {
        AsnParseError
    }
}

impl FromStr for Asn {
    type Err = AsnParseError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s.split_once('.') {
            None => Ok(Asn(s.parse()?)),
            Some((high, low)) => {
                let high: u16 = high.parse()?;
                let low: u16 = low.parse()?;
                Ok(Asn(u32::from(high) << 16 | u32::from(low)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn asplain_and_asdot_read_the_same() {
        assert_eq!(
            "4200000001".parse::<Asn>().unwrap(),
            "64086.59905".parse().unwrap()
        );
        assert_eq!(Asn(65000).to_string(), "65000");
    }

    #[test]
    fn nonsense_is_refused() {
        for s in ["", "-1", "4294967296", "1.65536", "1.2.3", "AS1"] {
            assert_eq!(s.parse::<Asn>(), Err(AsnParseError), "{s}");
        }
    }

    #[test]
    fn wide_numbers_become_as_trans() {
        assert_eq!(Asn(65535).to_two_octet(), 65535);
        assert_eq!(Asn(65536).to_two_octet(), 23456);
    }
}
