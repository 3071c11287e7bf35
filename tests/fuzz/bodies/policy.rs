// SPDX-License-Identifier: Apache-2.0
//! Properties of routing policies. The fuzz target and the replay of its corpus in
//! `bgp/core/tests/policy_corpus.rs` share this file.

use std::net::Ipv4Addr;

use bgp_core::config::PrefixRange;
use bgp_core::policy::{
    Action, AnyCommunity, Change, CommunityKind, CommunityPattern, Condition, Policy, PolicyConfig,
    Quantifier, RouteContext, RouteOrigin, Statement, Verdict,
};
use bgp_wire::{PathAttributes, PeerKind, SessionContext};
use ipnet::IpNet;
use router_types::{Asn, Family};

/// Any texts of conditions and any bytes of attributes: no panic, the compiled policy decides as
/// it reads, and what it changes can be encoded.
///
/// Lines up to one with `=` are statements of one condition each. The first character is the
/// action (`+` accept, `-` reject, `.` continue), the second the condition: `a` a pattern over AS
/// paths, `s`, `l`, `e` a pattern over communities, `p` a prefix with its shortest and longest
/// length. Behind the `=` come four octets of an address, one of a length, and path attributes.
pub(crate) fn policy_decides_as_it_reads(data: &[u8]) {
    let mut rest = data;
    let mut statements = Vec::new();
    loop {
        let end = rest.iter().position(|octet| *octet == b'\n');
        let (line, after) = match end {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, &[][..]),
        };
        rest = after;
        if line == b"=" || end.is_none() {
            break;
        }
        let number = statements.len();
        if let Ok(line) = std::str::from_utf8(line)
            && let Some(statement) = statement(line, number)
        {
            statements.push(statement);
        }
    }
    let Ok(config) = PolicyConfig::new("fuzz".into(), statements, Verdict::Reject) else {
        return;
    };
    let policy = Policy::compile(&config).expect("valid by construction");
    let [a, b, c, d, len, attributes @ ..] = rest else {
        return;
    };
    let address = Ipv4Addr::new(*a, *b, *c, *d);
    let prefix = IpNet::new(address.into(), len % 33).expect("a length of IPv4");
    let session = SessionContext::plain(PeerKind::Internal, &[Family::IPV4_UNICAST]);
    let attributes = PathAttributes::decode(attributes, &session).attributes;
    let context = RouteContext {
        family: Family::IPV4_UNICAST,
        next_hop: None,
        source: RouteOrigin::External,
        learned_from: None,
        peer_asn: Asn(1),
        local_asn: Asn(65000),
    };
    let (_, verdict) = policy.trace(&attributes, &context, &prefix.trunc());
    let judgement = policy.judge(&attributes, &context);
    let decision = judgement.decide(&prefix.trunc());
    assert_eq!(decision.is_accepted(), verdict == Verdict::Accept);
    let (changed, _) = judgement.apply(decision, attributes);
    changed.encode(true, &mut Vec::new());
}

fn statement(line: &str, number: usize) -> Option<Statement> {
    let mut chars = line.chars();
    let action = match chars.next()? {
        '+' => Action::Final(Verdict::Accept),
        '-' => Action::Final(Verdict::Reject),
        '.' => Action::Continue,
        _ => return None,
    };
    let kind = chars.next()?;
    let text = chars.as_str();
    let communities = |kind| {
        let pattern = CommunityPattern::parse(kind, text).ok()?;
        let again = CommunityPattern::parse(kind, &pattern.to_string());
        assert_eq!(
            again.as_ref(),
            Ok(&pattern),
            "a pattern is shown as it is read"
        );
        Some(Condition::Communities {
            quantifier: Quantifier::Any,
            patterns: vec![pattern],
        })
    };
    let condition = match kind {
        'a' => Condition::AsPaths(vec![text.parse().ok()?]),
        's' => communities(CommunityKind::Standard)?,
        'l' => communities(CommunityKind::Large)?,
        'e' => communities(CommunityKind::Extended)?,
        'p' => {
            let mut words = text.split(' ');
            let prefix = words.next()?.parse().ok()?;
            let mut length = || words.next().map(str::parse).transpose();
            let (min, max) = (length().ok()?, length().ok()?);
            Condition::Prefixes(vec![PrefixRange::new(prefix, min, max).ok()?])
        }
        _ => return None,
    };
    let added = AnyCommunity::parse(CommunityKind::Standard, "65000:1").ok()?;
    let changes = match action {
        Action::Final(Verdict::Reject) => Vec::new(),
        _ => vec![
            Change::PrependOwn(1),
            Change::AddMed(1),
            Change::AddCommunities(vec![added]),
        ],
    };
    Some(Statement {
        name: number.to_string(),
        conditions: vec![condition],
        changes,
        action,
    })
}
