// SPDX-License-Identifier: Apache-2.0
//! The index over prefix ranges: right, and no dearer with many ranges than with few.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::config::PrefixRange;

/// A sequence of numbers with nothing to see in it (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 29
    }

    fn v4(&mut self, len: u8) -> IpNet {
        let address = Ipv4Addr::from_bits(self.next() as u32);
        IpNet::new(address.into(), len).unwrap().trunc()
    }

    fn v6(&mut self, len: u8) -> IpNet {
        let bits = u128::from(self.next()) << 64 | u128::from(self.next());
        IpNet::new(Ipv6Addr::from_bits(bits).into(), len)
            .unwrap()
            .trunc()
    }

    /// A length as they are in the Internet's table: most are 24, none is above.
    fn len(&mut self) -> u8 {
        match self.next() % 10 {
            0..=5 => 24,
            n => 24 - (self.next() % (n * 2)).min(16) as u8,
        }
    }
}

fn policy_of(prefixes: &[IpNet]) -> Policy {
    let range = |prefix: &IpNet| PrefixRange::new(*prefix, None, Some(prefix.prefix_len() + 4));
    let ranges = prefixes.iter().map(|prefix| range(prefix).unwrap());
    let few = PrefixRange::exact(net("10.0.0.0/8"));
    policy(vec![
        statement("few", vec![Condition::Prefixes(vec![few])]),
        statement("many", vec![Condition::Prefixes(ranges.collect())]),
    ])
}

/// The most steps of a decision for any of the prefixes.
fn most_steps(policy: &Policy, asked: &[IpNet]) -> u32 {
    let judgement = policy.judge(&attributes(&[65001], &[]), &context());
    let steps = asked.iter().map(|prefix| {
        let mut steps = 0;
        judgement.decide_counting(prefix, &mut steps);
        steps
    });
    steps.max().unwrap()
}

#[test]
fn ten_thousand_ranges_cost_no_more_than_ten() {
    let mut numbers = Numbers(1);
    let asked: Vec<IpNet> = (0..5000).map(|_| numbers.v4(24)).collect();
    // The same lengths, ten times and ten thousand times.
    let few: Vec<IpNet> = (15..25).map(|len| numbers.v4(len)).collect();
    let many: Vec<IpNet> = (0..10_000).map(|n| numbers.v4(15 + n as u8 % 10)).collect();
    let asked_of = |prefixes: &[IpNet]| {
        let asked: Vec<IpNet> = asked.iter().chain(prefixes).copied().collect();
        most_steps(&policy_of(prefixes), &asked)
    };
    let (few, many) = (asked_of(&few), asked_of(&many));
    // Nested ranges add comparisons of lengths: two more at most.
    assert!(
        many <= few + 2,
        "{few} steps for 10 ranges, {many} for 10 000"
    );
}

#[test]
fn no_policy_costs_more_than_its_lengths_have_digits() {
    let mut numbers = Numbers(2);
    let mut prefixes: Vec<IpNet> = Vec::new();
    for len in 0..=24 {
        prefixes.extend((0..400).map(|_| numbers.v4(len)));
    }
    for len in 0..=124 {
        prefixes.extend((0..400).map(|_| numbers.v6(len)));
    }
    let policy = policy_of(&prefixes);
    let v4: Vec<IpNet> = prefixes[..10_000].to_vec();
    let v6: Vec<IpNet> = prefixes[10_000..].to_vec();
    // Probes, and as many comparisons within the table of lengths.
    assert!(most_steps(&policy, &v4) <= 5 + 5);
    assert!(most_steps(&policy, &v6) <= 7 + 7);
}

#[test]
fn large_sets_hold_what_they_say() {
    let mut numbers = Numbers(3);
    let prefixes: Vec<IpNet> = (0..3000)
        .map(|_| {
            let len = numbers.len();
            numbers.v4(len)
        })
        .collect();
    let policy = policy_of(&prefixes);
    let judgement = policy.judge(&attributes(&[65001], &[]), &context());
    for n in 0..3000 {
        // Half of those asked for lie within one that is listed.
        let mut asked = numbers.v4(20 + n as u8 % 13);
        if n % 2 == 0 {
            let within = prefixes[n].addr();
            asked = IpNet::new(within, asked.prefix_len()).unwrap().trunc();
        }
        let expected = asked == net("10.0.0.0/8")
            || prefixes.iter().any(|prefix| {
                let longest = prefix.prefix_len() + 4;
                prefix.contains(&asked) && asked.prefix_len() <= longest
            });
        assert_eq!(judgement.decide(&asked).is_accepted(), expected, "{asked}");
    }
}
