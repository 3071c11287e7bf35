// SPDX-License-Identifier: Apache-2.0
//! A `BGPPolicy` with every field does what it says.

use std::path::Path;

use bgp_config::policy_config;
use bgp_core::config::PeerName;
use bgp_core::policy::{
    Action, NextHopChange, Policy, RouteContext, RouteOrigin, StatementOutcome, Verdict,
};
use bgp_wire::{AsPath, Origin, PathAttributes};
use ipnet::IpNet;
use router_resources::kinds::PolicySpec;
use router_resources::{Body, parse::parse_file};
use router_types::{Asn, Family};

fn manifest() -> PolicySpec {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../router/resources/tests/manifests/policy.yaml");
    let parsed = parse_file(&path, &std::fs::read(&path).unwrap());
    match parsed.objects.into_iter().next().unwrap().object.body {
        Body::Policy(spec) => spec,
        other => panic!("{other:?}"),
    }
}

fn policy() -> Policy {
    Policy::compile(&policy_config("everything", &manifest()).unwrap()).unwrap()
}

/// A route that the first statement of the manifest matches.
fn route() -> PathAttributes {
    PathAttributes {
        origin: Some(Origin::Incomplete),
        as_path: Some(AsPath::from_sequence([65003, 64999, 65002].map(Asn))),
        med: Some(500),
        communities: vec!["65000:150".parse().unwrap(), "65000:300".parse().unwrap()],
        large_communities: vec!["65000:1:7".parse().unwrap()],
        extended_communities: vec!["rt:65000:1".parse().unwrap()],
        ..PathAttributes::default()
    }
}

fn context(peer: &PeerName) -> RouteContext<'_> {
    RouteContext {
        family: Family::IPV4_UNICAST,
        next_hop: Some("198.51.100.7".parse().unwrap()),
        source: RouteOrigin::External,
        learned_from: Some(peer),
        peer_asn: Asn(65004),
        local_asn: Asn(65000),
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn every_condition_is_looked_at_and_every_change_is_made() {
    let (policy, peer) = (policy(), PeerName::from("tor-1"));
    let context = context(&peer);
    let (verdicts, verdict) = policy.trace(&route(), &context, &net("10.1.0.0/16"));
    assert_eq!(verdict, Verdict::Accept);
    let outcomes: Vec<_> = verdicts.iter().map(|v| &v.outcome).collect();
    assert_eq!(outcomes[0], &StatementOutcome::Matched(Action::Continue));

    let judgement = policy.judge(&route(), &context);
    let decision = judgement.decide(&net("10.1.0.0/16"));
    let (changed, hop) = judgement.apply(decision, route());
    assert_eq!(changed.local_pref, Some(200));
    assert_eq!(changed.med, Some(510));
    assert_eq!(changed.origin, Some(Origin::Igp));
    let texts = |communities: &[&dyn ToString]| -> Vec<String> {
        communities.iter().map(|c| c.to_string()).collect()
    };
    let standard: Vec<&dyn ToString> = changed.communities.iter().map(|c| c as _).collect();
    assert_eq!(texts(&standard), ["65000:7", "65000:300", "no-advertise"]);
    let large: Vec<&dyn ToString> = changed.large_communities.iter().map(|c| c as _).collect();
    assert_eq!(texts(&large), ["65000:1:1"]);
    let extended: Vec<&dyn ToString> = changed
        .extended_communities
        .iter()
        .map(|c| c as _)
        .collect();
    assert_eq!(texts(&extended), ["rt:65000:1", "soo:192.0.2.1:7"]);
    // The second statement continues too, and its changes come after those of the first.
    assert_eq!(
        changed.as_path.unwrap().to_string(),
        "65000 65000 65010 65011 65003 64999 65002"
    );
    assert_eq!(
        hop,
        Some(NextHopChange::Address("192.0.2.9".parse().unwrap()))
    );
}

#[test]
fn one_condition_that_does_not_hold_is_enough() {
    let (policy, peer, other) = (policy(), PeerName::from("tor-1"), PeerName::from("tor-2"));
    let fails = |route: PathAttributes, context: RouteContext<'_>, prefix: &str| {
        let (verdicts, _) = policy.trace(&route, &context, &net(prefix));
        match verdicts.into_iter().next().unwrap().outcome {
            StatementOutcome::Failed(failures) => failures
                .into_iter()
                .map(|f| f.condition)
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    let base = || context(&peer);
    assert_eq!(fails(route(), base(), "10.1.1.0/25"), ["prefixes"]);
    let path = |asns: &[u32]| PathAttributes {
        as_path: Some(AsPath::from_sequence(asns.iter().copied().map(Asn))),
        ..route()
    };
    assert_eq!(
        fails(path(&[65003, 64999, 65535]), base(), "10.1.0.0/16"),
        ["originASNs"]
    );
    assert_eq!(
        fails(path(&[65001, 64999, 65002]), base(), "10.1.0.0/16"),
        ["neighborASNs"]
    );
    assert_eq!(
        fails(path(&[65003, 65002]), base(), "10.1.0.0/16"),
        ["asPaths"]
    );
    assert_eq!(
        fails(path(&[65003, 64999, 64999, 65002]), base(), "10.1.0.0/16"),
        ["asPathLength"]
    );
    let peer_asn = RouteContext {
        peer_asn: Asn(1),
        ..base()
    };
    assert_eq!(fails(route(), peer_asn, "10.1.0.0/16"), ["peerASNs"]);
    let hop = RouteContext {
        next_hop: None,
        ..base()
    };
    assert_eq!(fails(route(), hop, "10.1.0.0/16"), ["nextHops"]);
    let family = RouteContext {
        family: Family::IPV6_UNICAST,
        ..base()
    };
    assert_eq!(fails(route(), family, "2001:db8::/32"), ["families"]);
    let source = RouteContext {
        source: RouteOrigin::PodCidr,
        ..base()
    };
    assert_eq!(fails(route(), source, "10.1.0.0/16"), ["sources"]);
    assert_eq!(fails(route(), context(&other), "10.1.0.0/16"), ["peers"]);
    let with = |change: fn(&mut PathAttributes)| {
        let mut route = route();
        change(&mut route);
        route
    };
    for (changed, condition) in [
        (with(|r| r.med = Some(501)), "med"),
        (with(|r| r.local_pref = Some(49)), "localPreference"),
        (with(|r| r.origin = None), "origins"),
        (with(|r| r.extended_communities.clear()), "communities.all"),
        (
            with(|r| r.communities.push("planned-shut".parse().unwrap())),
            "communities.none",
        ),
        (
            with(|r| {
                r.communities.clear();
                r.large_communities.clear();
            }),
            "communities.any",
        ),
    ] {
        assert_eq!(fails(changed, base(), "10.1.0.0/16"), [condition]);
    }
}

#[test]
fn a_reject_rejects_and_the_rest_is_accepted() {
    let (policy, peer) = (policy(), PeerName::from("tor-1"));
    let judgement = policy.judge(&PathAttributes::default(), &context(&peer));
    assert!(!judgement.decide(&net("203.0.113.0/24")).is_accepted());
    assert!(judgement.decide(&net("203.0.113.0/25")).is_accepted());
}
