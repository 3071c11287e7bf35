// SPDX-License-Identifier: Apache-2.0
//! Path attributes: the registry, and the frame every attribute stands in (RFC 4271 §4.3).

use alloc::vec::Vec;
use core::fmt;

use bitflags::bitflags;

use crate::cursor::Cursor;

bitflags! {
    /// Attribute flags (RFC 4271 §4.3). The low four bits are unused and ignored on receipt.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
    pub struct AttributeFlags: u8 {
        /// Not every speaker knows it.
        const OPTIONAL = 0x80;
        /// Handed on also by speakers that do not know it.
        const TRANSITIVE = 0x40;
        /// Some speaker on the way did not know it.
        const PARTIAL = 0x20;
        /// The length has two octets.
        const EXTENDED_LENGTH = 0x10;
        const _ = 0x0f;
    }
}

/// Type code of a path attribute (IANA "BGP Path Attributes").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AttributeCode(pub u8);

/// Class of an attribute: which flags it must have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AttributeClass {
    /// Known to every speaker: transitive, not optional.
    WellKnown,
    /// Optional and transitive.
    OptionalTransitive,
    /// Optional and not transitive.
    OptionalNonTransitive,
}

impl AttributeClass {
    /// The optional and transitive bits of the class.
    pub const fn flags(self) -> AttributeFlags {
        match self {
            AttributeClass::WellKnown => AttributeFlags::TRANSITIVE,
            AttributeClass::OptionalTransitive => {
                AttributeFlags::OPTIONAL.union(AttributeFlags::TRANSITIVE)
            }
            AttributeClass::OptionalNonTransitive => AttributeFlags::OPTIONAL,
        }
    }

    /// Whether received flags fit the class (RFC 7606 §3 c: only these two bits count).
    pub const fn fits(self, flags: AttributeFlags) -> bool {
        let both = AttributeFlags::OPTIONAL.union(AttributeFlags::TRANSITIVE);
        flags.intersection(both).bits() == self.flags().bits()
    }
}

macro_rules! attributes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal, $class:ident, $decoded:literal;)*) => {
        impl AttributeCode {
            $($(#[$doc])* pub const $name: AttributeCode = AttributeCode($code);)*
        }
        /// Code, name, class, whether this crate reads the value.
        const REGISTRY: &[(AttributeCode, &str, AttributeClass, bool)] =
            &[$((AttributeCode::$name, $text, AttributeClass::$class, $decoded),)*];
    };
}

// A macro because each row is both a constant and a table entry, and they must not drift apart.
attributes! {
    /// RFC 4271 §5.1.1.
    ORIGIN = 1, "ORIGIN", WellKnown, true;
    /// RFC 4271 §5.1.2.
    AS_PATH = 2, "AS_PATH", WellKnown, true;
    /// RFC 4271 §5.1.3.
    NEXT_HOP = 3, "NEXT_HOP", WellKnown, true;
    /// RFC 4271 §5.1.4.
    MULTI_EXIT_DISC = 4, "MULTI_EXIT_DISC", OptionalNonTransitive, true;
    /// RFC 4271 §5.1.5.
    LOCAL_PREF = 5, "LOCAL_PREF", WellKnown, true;
    /// RFC 4271 §5.1.6.
    ATOMIC_AGGREGATE = 6, "ATOMIC_AGGREGATE", WellKnown, true;
    /// RFC 4271 §5.1.7.
    AGGREGATOR = 7, "AGGREGATOR", OptionalTransitive, true;
    /// RFC 1997.
    COMMUNITIES = 8, "COMMUNITIES", OptionalTransitive, true;
    /// RFC 4456 §8.
    ORIGINATOR_ID = 9, "ORIGINATOR_ID", OptionalNonTransitive, true;
    /// RFC 4456 §8.
    CLUSTER_LIST = 10, "CLUSTER_LIST", OptionalNonTransitive, true;
    /// RFC 4760 §3.
    MP_REACH_NLRI = 14, "MP_REACH_NLRI", OptionalNonTransitive, true;
    /// RFC 4760 §4.
    MP_UNREACH_NLRI = 15, "MP_UNREACH_NLRI", OptionalNonTransitive, true;
    /// RFC 4360 §2.
    EXTENDED_COMMUNITIES = 16, "EXTENDED_COMMUNITIES", OptionalTransitive, true;
    /// RFC 6793 §3.
    AS4_PATH = 17, "AS4_PATH", OptionalTransitive, true;
    /// RFC 6793 §3.
    AS4_AGGREGATOR = 18, "AS4_AGGREGATOR", OptionalTransitive, true;
    /// RFC 6514 §5.
    PMSI_TUNNEL = 22, "PMSI_TUNNEL", OptionalTransitive, false;
    /// RFC 9012 §2.
    TUNNEL_ENCAPSULATION = 23, "TUNNEL_ENCAPSULATION", OptionalTransitive, false;
    /// RFC 5701 §2.
    IPV6_EXTENDED_COMMUNITIES = 25, "IPV6_EXTENDED_COMMUNITIES", OptionalTransitive, false;
    /// RFC 7311 §3.
    AIGP = 26, "AIGP", OptionalNonTransitive, false;
    /// RFC 9552 §5.3.
    BGP_LS = 29, "BGP_LS", OptionalNonTransitive, false;
    /// RFC 8092 §3.
    LARGE_COMMUNITIES = 32, "LARGE_COMMUNITIES", OptionalTransitive, true;
    /// RFC 9234 §5.
    ONLY_TO_CUSTOMER = 35, "ONLY_TO_CUSTOMER", OptionalTransitive, true;
    /// RFC 8669 §3.
    PREFIX_SID = 40, "PREFIX_SID", OptionalTransitive, true;
    /// RFC 6368 §5.
    ATTR_SET = 128, "ATTR_SET", OptionalTransitive, false;
}

impl AttributeCode {
    /// The registered name.
    pub fn name(self) -> Option<&'static str> {
        self.entry().map(|&(_, name, ..)| name)
    }

    /// The class the attribute is specified with; `None` for codes this crate does not know.
    pub fn class(self) -> Option<AttributeClass> {
        self.entry().map(|&(_, _, class, _)| class)
    }

    /// Whether this crate reads the value; others are kept as bytes if they are transitive.
    pub fn is_decoded(self) -> bool {
        self.entry().is_some_and(|&(.., decoded)| decoded)
    }

    fn entry(self) -> Option<&'static (AttributeCode, &'static str, AttributeClass, bool)> {
        REGISTRY.iter().find(|(code, ..)| *code == self)
    }
}

impl fmt::Display for AttributeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "attribute {}", self.0),
        }
    }
}

/// One attribute as it stands in a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RawAttribute<'a> {
    /// Its flags.
    pub flags: AttributeFlags,
    /// Its type.
    pub code: AttributeCode,
    /// Its value.
    pub value: &'a [u8],
}

impl RawAttribute<'_> {
    /// Appends flags, type, length and value; the extended length is used exactly when the value
    /// needs it, and unused flag bits are cleared. A value over 65535 octets is cut, and then too
    /// long for any message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flags = self.flags.bits() & 0xe0;
        match u8::try_from(self.value.len()) {
            Ok(len) => out.extend_from_slice(&[flags, self.code.0, len]),
            Err(_) => {
                out.extend_from_slice(&[flags | 0x10, self.code.0]);
                let len = u16::try_from(self.value.len()).unwrap_or(u16::MAX);
                out.extend_from_slice(&len.to_be_bytes());
            }
        }
        out.extend_from_slice(&self.value[..self.value.len().min(u16::MAX.into())]);
    }
}

/// Iterator over the attributes in a byte string. Ends at the end of the bytes or with one
/// [`Overrun`].
#[derive(Clone)]
pub struct RawAttributes<'a> {
    cursor: Cursor<'a>,
    total: usize,
}

/// An attribute, or what is left in front of the end, is too short for its own header or length
/// (RFC 7606 §4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Overrun {
    /// Where the attribute starts in the path attributes.
    pub offset: usize,
    /// Its type, if that much is there.
    pub code: Option<AttributeCode>,
}

impl<'a> RawAttributes<'a> {
    /// Iterates over `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        RawAttributes {
            cursor: Cursor::new(bytes),
            total: bytes.len(),
        }
    }

    fn read(&mut self) -> Result<RawAttribute<'a>, Overrun> {
        let offset = self.total - self.cursor.len();
        let flags = self.cursor.u8().ok_or(Overrun { offset, code: None })?;
        let flags = AttributeFlags::from_bits_retain(flags);
        let code = self.cursor.u8().ok_or(Overrun { offset, code: None })?;
        let code = AttributeCode(code);
        let overrun = Overrun {
            offset,
            code: Some(code),
        };
        let len = if flags.contains(AttributeFlags::EXTENDED_LENGTH) {
            usize::from(self.cursor.u16().ok_or(overrun)?)
        } else {
            usize::from(self.cursor.u8().ok_or(overrun)?)
        };
        let value = self.cursor.take(len).ok_or(overrun)?;
        Ok(RawAttribute { flags, code, value })
    }
}

impl<'a> Iterator for RawAttributes<'a> {
    type Item = Result<RawAttribute<'a>, Overrun>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.cursor.is_empty() {
            return None;
        }
        let item = self.read();
        if item.is_err() {
            self.cursor = Cursor::new(&[]);
        }
        Some(item)
    }
}
