// SPDX-License-Identifier: Apache-2.0
//! Random numbers from a seed, so that a run can be repeated.

use std::time::Duration;

/// xorshift64*: small and good enough to keep packets apart.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        // The state must not be 0.
        Random(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// An interval less a random share of 0 to 25 %, or of 10 to 25 % where one lost packet is
    /// down (RFC 5880 §6.8.7).
    pub(crate) fn spread(&mut self, interval: Duration, multiplier: u8) -> Duration {
        let least: u64 = if multiplier == 1 { 100 } else { 0 };
        let off = least + u64::from(self.next()) % (251 - least);
        let us = interval.as_micros() as u64;
        Duration::from_micros(us - us * off / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_spread_as_the_rfc_says() {
        let mut random = Random::new(7);
        let second = Duration::from_secs(1);
        let all: Vec<Duration> = (0..10_000).map(|_| random.spread(second, 3)).collect();
        assert!(all.iter().all(|d| *d >= second * 3 / 4 && *d <= second));
        assert!(all.iter().any(|d| *d < Duration::from_millis(760)));
        assert!(all.iter().any(|d| *d > Duration::from_millis(990)));
        let all: Vec<Duration> = (0..10_000).map(|_| random.spread(second, 1)).collect();
        assert!(
            all.iter()
                .all(|d| *d >= second * 3 / 4 && *d <= second * 9 / 10)
        );
    }
}
