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

/// An Internet checksum after a 32-bit word it covers changed. All in host order (RFC 1624 §3).
#[must_use]
#[inline(always)]
pub const fn checksum_after_word(checksum: u16, old: u32, new: u32) -> u16 {
    let (old, new) = (!old, new);
    let sum =
        (!checksum as u32 & 0xffff) + (old >> 16) + (old & 0xffff) + (new >> 16) + (new & 0xffff);
    !fold(sum)
}

/// A one's complement sum in sixteen bits.
#[must_use]
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    extern crate std;

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
    fn a_checksum_stays_valid_when_a_word_changes() {
        let words = [
            0_u32,
            1,
            0xffff,
            0x1_0000,
            0xc0a8_0001,
            0x0a00_0001,
            u32::MAX,
        ];
        for old in words {
            for new in words {
                for other in [1_u16, 0x1234, 0xfffe] {
                    let halves = |word: u32| [(word >> 16) as u16, word as u16];
                    let before = [&halves(old)[..], &[other]].concat();
                    let after = [&halves(new)[..], &[other]].concat();
                    let updated = checksum_after_word(checksum(&before), old, new);
                    // Both zeroes of the one's complement are the same to a receiver.
                    let same = updated % 0xffff == checksum(&after) % 0xffff;
                    assert!(same, "{old:#x} {new:#x} {other:#x}");
                }
            }
        }
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
