// SPDX-License-Identifier: Apache-2.0
//! Random spread of timers (RFC 4271 §10), from a seed.

use std::time::Duration;

/// A generator of jitter. Splitmix64: it need not be unpredictable, only different between
/// neighbours and the same for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Jitter {
        Jitter(seed)
    }

    /// Three quarters to the whole of a time, as RFC 4271 §10 recommends.
    pub(crate) fn spread(&mut self, time: Duration) -> Duration {
        let quarter = time / 4;
        let share = u32::try_from(self.next() >> 32).expect("32 bits");
        time - quarter + quarter.mul_f64(f64::from(share) / f64::from(u32::MAX))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_between_three_quarters_and_the_whole() {
        let mut jitter = Jitter::new(7);
        let whole = Duration::from_secs(40);
        let times: Vec<Duration> = (0..1000).map(|_| jitter.spread(whole)).collect();
        assert!(
            times
                .iter()
                .all(|t| (Duration::from_secs(30)..=whole).contains(t))
        );
        assert!(times.iter().max().unwrap() > &Duration::from_secs(39));
        assert!(times.iter().min().unwrap() < &Duration::from_secs(31));
    }
}
