// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checksum arithmetic, here so that the host can test what the programs run.

/// The checksum of an IPv4 header after its TTL went down by one, from the one before. Both in
/// host order.
///
/// TTL is the high byte of its 16-bit word, so the word shrinks by 0x0100 and the one's complement
/// sum grows by the same (RFC 1624 §4, RFC 1141).
#[must_use]
#[inline(always)]
pub const fn checksum_after_ttl_decrement(checksum: u16) -> u16 {
    let sum = checksum as u32 + 0x0100;
    // The carry wraps around; 0xffff itself is the other zero, which RFC 1624 §3 asks to avoid.
    (sum + (sum >= 0xffff) as u32) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 §1, plainly.
    fn checksum(words: &[u16]) -> u16 {
        let mut sum: u32 = words.iter().map(|word| u32::from(*word)).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn every_header_stays_valid_when_its_ttl_goes_down() {
        for other in 0..=0xffff_u16 {
            for ttl in [2_u16, 64, 128, 255] {
                // Version, TTL and protocol, and one word that stands for all others.
                let before = [0x4500, ttl << 8 | 17, other];
                let after = [0x4500, (ttl - 1) << 8 | 17, other];
                let updated = checksum_after_ttl_decrement(checksum(&before));
                let sum = u32::from(checksum(&after));
                assert_eq!(u32::from(updated), sum, "ttl {ttl} other {other:#06x}");
            }
        }
    }
}
