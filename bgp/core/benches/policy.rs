// SPDX-License-Identifier: Apache-2.0
//! What a decision of a policy costs: the time for one prefix against sets of 10 and of 10 000
//! prefix ranges of the same lengths, and the time to judge one set of attributes against AS path
//! patterns and communities. Nanoseconds, the best of several rounds, and the ratio of the two
//! sets, which is the figure that counts.
//!
//! `cargo bench -p bgp-core --bench policy`; under `cargo test --benches` each runs once.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bgp_core::config::PrefixRange;
use bgp_core::policy::{
    Action, CommunityKind, CommunityPattern, Condition, Policy, PolicyConfig, Quantifier,
    RouteContext, RouteOrigin, Statement, Verdict,
};
use bgp_wire::{AsPath, Community, PathAttributes};
use ipnet::IpNet;
use router_types::{Asn, Family};

const ROUNDS: usize = 15;
const ASKED: usize = 100_000;

fn main() {
    let few = decisions(10);
    let many = decisions(10_000);
    println!("decide, 10 prefix ranges       {few:8.1} ns");
    println!("decide, 10 000 prefix ranges   {many:8.1} ns");
    println!("ratio                          {:8.2}", many / few);
    println!("judge, 4 patterns, communities {:8.1} ns", judgements());
}

/// Nanoseconds for one of `ASKED` decisions with `count` ranges. What is asked for is the same for
/// every count: prefixes around addresses of the list's first ten entries and elsewhere.
fn decisions(count: usize) -> f64 {
    let mut seed = 7;
    let list: Vec<IpNet> = (0..count)
        .map(|n| prefix(&mut seed, 15 + n as u8 % 10))
        .collect();
    let ranges = list
        .iter()
        .map(|net| PrefixRange::new(*net, None, Some(24)).expect("24 is not below any length"));
    let policy = policy(vec![Condition::Prefixes(ranges.collect())]);
    let mut seed = 99;
    let asked: Vec<IpNet> = (0..ASKED)
        .map(|n| match n % 2 {
            0 => prefix(&mut seed, 24),
            _ => list[n / 2 % 10],
        })
        .collect();
    let judgement = policy.judge(&attributes(), &context());
    best(ASKED, || {
        let accepted = asked
            .iter()
            .filter(|net| judgement.decide(net).is_accepted());
        black_box(accepted.count());
    })
}

fn judgements() -> f64 {
    let patterns = [
        "_65001_",
        "^6500[1-4]_",
        "_(6451[2-9]|645[2-9][0-9])$",
        "^[0-9]+( [0-9]+)?$",
    ];
    let mut conditions: Vec<Condition> = patterns
        .iter()
        .map(|text| Condition::AsPaths(vec![text.parse().expect("a pattern")]))
        .collect();
    let read = |text| CommunityPattern::parse(CommunityKind::Standard, text).expect("a pattern");
    conditions.push(Condition::Communities {
        quantifier: Quantifier::Any,
        patterns: vec![read("65000:*"), read("no-export")],
    });
    let statements = conditions
        .into_iter()
        .enumerate()
        .map(|(n, condition)| Statement {
            name: n.to_string(),
            conditions: vec![condition],
            changes: Vec::new(),
            action: Action::Continue,
        });
    let config = PolicyConfig::new("bench".into(), statements.collect(), Verdict::Accept);
    let policy = Policy::compile(&config.expect("a policy")).expect("a policy");
    let (attributes, context) = (attributes(), context());
    const TIMES: usize = 20_000;
    best(TIMES, || {
        for _ in 0..TIMES {
            black_box(policy.judge(black_box(&attributes), &context));
        }
    })
}

fn policy(conditions: Vec<Condition>) -> Policy {
    let statement = Statement {
        name: "only".into(),
        conditions,
        changes: Vec::new(),
        action: Action::Final(Verdict::Accept),
    };
    let config = PolicyConfig::new("bench".into(), vec![statement], Verdict::Reject);
    Policy::compile(&config.expect("a policy")).expect("a policy")
}

fn attributes() -> PathAttributes {
    PathAttributes {
        as_path: Some(AsPath::from_sequence([65100, 3356, 1299, 64600].map(Asn))),
        communities: vec![Community::new(3356, 3), Community::new(65000, 100)],
        ..PathAttributes::default()
    }
}

fn context() -> RouteContext<'static> {
    RouteContext {
        family: Family::IPV4_UNICAST,
        next_hop: None,
        source: RouteOrigin::External,
        learned_from: None,
        peer_asn: Asn(65100),
        local_asn: Asn(65000),
    }
}

/// A prefix of a sequence with nothing to see in it (xorshift).
fn prefix(seed: &mut u64, len: u8) -> IpNet {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    let address = Ipv4Addr::from_bits((*seed >> 16) as u32);
    IpNet::new(address.into(), len)
        .expect("a length of IPv4")
        .trunc()
}

/// Nanoseconds for one of `count` things that `work` does, in its best round.
fn best(count: usize, mut work: impl FnMut()) -> f64 {
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let rounds = (0..if is_bench { ROUNDS } else { 1 }).map(|_| {
        let begin = Instant::now();
        work();
        begin.elapsed()
    });
    let fastest = rounds.min().unwrap_or(Duration::ZERO);
    fastest.as_nanos() as f64 / count as f64
}
