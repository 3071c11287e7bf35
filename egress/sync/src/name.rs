// SPDX-License-Identifier: Apache-2.0
//! Names of nodes, numbers of rules and of policies.

use std::fmt;
use std::sync::Arc;

/// The longest name of a node in octets: a DNS subdomain (RFC 1123 §2.1, RFC 1035 §2.3.4), as
/// Kubernetes names nodes.
pub const MAX_NAME: usize = 253;

/// Why a text is not the name of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or longer than [`MAX_NAME`].
    #[error("name of {0} octets: use 1 to {MAX_NAME}")]
    Length(usize),
    /// A space, a control character, or none of ASCII.
    #[error("name with an octet that is no printable ASCII: 0x{0:02x}")]
    Octet(u8),
}

/// The name of a node: 1 to [`MAX_NAME`] octets of printable ASCII. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Takes a name.
    ///
    /// # Errors
    /// It is empty, too long or not printable.
    pub fn new(name: &str) -> Result<NodeName, NameError> {
        NodeName::from_octets(name.as_bytes())
    }

    /// The same from the wire.
    pub(crate) fn from_octets(octets: &[u8]) -> Result<NodeName, NameError> {
        if octets.is_empty() || octets.len() > MAX_NAME {
            return Err(NameError::Length(octets.len()));
        }
        if let Some(octet) = octets.iter().find(|octet| !octet.is_ascii_graphic()) {
            return Err(NameError::Octet(*octet));
        }
        let name = str::from_utf8(octets).map_err(|_| NameError::Octet(octets[0]))?;
        Ok(NodeName(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A rule: the number of one way out, 0 to [`Rule::MAX`]; all nodes call it the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule(u32);

impl Rule {
    /// The highest number: 24 bits, what a tunnel header has room for (RFC 7348 §5).
    pub const MAX: u32 = 0x00ff_ffff;

    /// Takes a number; nothing if it has more than 24 bits.
    pub const fn new(number: u32) -> Option<Rule> {
        if number <= Rule::MAX {
            Some(Rule(number))
        } else {
            None
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A policy: 64 bits of a hash of its name (FNV-1a), so that all nodes call it the same. Two of one
/// number would take each other's probes for their own; among a million policies that has a chance
/// of 1 in 36 million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policy(u64);

impl Policy {
    /// The number of a policy of this name.
    pub fn named(name: &str) -> Policy {
        let octets = name.bytes();
        // Offset basis and prime of draft-eastlake-fnv-17 §5.
        Policy(octets.fold(0xcbf2_9ce4_8422_2325, |hash: u64, octet| {
            (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    /// Takes a number.
    pub const fn new(number: u64) -> Policy {
        Policy(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_printable_and_not_too_long() {
        assert_eq!(NodeName::new("node-1").unwrap().as_str(), "node-1");
        assert_eq!(NodeName::new(""), Err(NameError::Length(0)));
        assert_eq!(
            NodeName::new(&"a".repeat(254)),
            Err(NameError::Length(254)),
            "one more than DNS has"
        );
        assert!(NodeName::new(&"a".repeat(253)).is_ok());
        assert_eq!(NodeName::new("a b"), Err(NameError::Octet(b' ')));
        assert_eq!(NodeName::from_octets(&[0xff]), Err(NameError::Octet(0xff)));
    }

    #[test]
    fn a_policy_is_its_hash() {
        // Of the test vectors of the draft, "a" and "foobar".
        assert_eq!(Policy::named("a").get(), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(Policy::named("foobar").get(), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_rule_has_24_bits() {
        assert_eq!(Rule::new(0x00ff_ffff).unwrap().get(), 0x00ff_ffff);
        assert_eq!(Rule::new(0x0100_0000), None);
    }
}
