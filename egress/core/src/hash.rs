// SPDX-License-Identifier: Apache-2.0
//! Hashes every node computes alike: FNV-1a, and the weight of a pair for rendezvous hashing.
//!
//! None of them withstands somebody who looks for collisions: who may write policies or name pods
//! can do more than that.

/// FNV-1a of 64 bits, fed piece by piece. Pieces that may follow each other are ended by an octet
/// that occurs in no name.
#[derive(Clone, Copy)]
pub(crate) struct Fnv64(u64);

impl Fnv64 {
    /// The offset basis of FNV-1a with 64 bits (draft-eastlake-fnv).
    pub(crate) fn new() -> Self {
        Fnv64(0xcbf2_9ce4_8422_2325)
    }

    /// Adds octets.
    pub(crate) fn octets(mut self, octets: &[u8]) -> Self {
        for octet in octets {
            self.0 = (self.0 ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3);
        }
        self
    }

    /// Adds a name, and an end that is part of none: Kubernetes allows no NUL in them.
    pub(crate) fn name(self, name: &str) -> Self {
        self.octets(name.as_bytes()).octets(&[0])
    }

    /// The hash, its bits stirred once more: FNV alone hardly moves the high bits for a change in
    /// the last octet, and names differ there. The finish is that of SplitMix64.
    pub(crate) fn finish(self) -> u64 {
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

/// FNV-1a of 32 bits, by which upstream shares pods among `egressGateways`.
pub(crate) fn fnv1a_32(octets: &[u8]) -> u32 {
    octets.iter().fold(0x811c_9dc5, |hash, octet| {
        (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv1a_is_the_published_one() {
        assert_eq!(fnv1a_32(b""), 0x811c_9dc5);
        assert_eq!(fnv1a_32(b"a"), 0xe40c_292c);
        assert_eq!(fnv1a_32(b"foobar"), 0xbf9c_f968);
        assert_eq!(Fnv64::new().octets(b"a").0, 0xaf63_dc4c_8601_ec8c);
        assert_eq!(Fnv64::new().octets(b"foobar").0, 0x8594_4171_f739_67e8);
    }

    #[test]
    fn the_ends_of_names_count() {
        let one = Fnv64::new().name("ab").name("c").finish();
        let other = Fnv64::new().name("a").name("bc").finish();
        assert_ne!(one, other);
    }
}
