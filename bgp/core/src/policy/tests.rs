// SPDX-License-Identifier: Apache-2.0
//! The compiled policy against the policy as it reads, and what operators rely on.

mod agreement;
mod changes;
mod paths;
mod prefixes;

use bgp_wire::{AsPath, Community, PathAttributes};
use router_types::{Asn, Family};

use super::*;

/// A statement that takes what it matches.
fn statement(name: &str, conditions: Vec<Condition>) -> Statement {
    Statement {
        name: name.to_owned(),
        conditions,
        changes: Vec::new(),
        action: Action::Final(Verdict::Accept),
    }
}

fn policy(statements: Vec<Statement>) -> Policy {
    let config = PolicyConfig::new("test".into(), statements, Verdict::Reject).unwrap();
    Policy::compile(&config).unwrap()
}

fn context() -> RouteContext<'static> {
    RouteContext {
        family: Family::IPV4_UNICAST,
        next_hop: Some("192.0.2.1".parse().unwrap()),
        source: RouteOrigin::External,
        learned_from: None,
        peer_asn: Asn(65001),
        local_asn: Asn(65000),
    }
}

fn attributes(path: &[u32], communities: &[(u16, u16)]) -> PathAttributes {
    let mut communities: Vec<Community> = communities
        .iter()
        .map(|(high, low)| Community::new(*high, *low))
        .collect();
    communities.sort();
    communities.dedup();
    PathAttributes {
        as_path: Some(AsPath::from_sequence(path.iter().copied().map(Asn))),
        communities,
        ..PathAttributes::default()
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}
