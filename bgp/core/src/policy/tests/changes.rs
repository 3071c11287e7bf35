// SPDX-License-Identifier: Apache-2.0
//! What policies do to routes.

use bgp_wire::Origin;

use super::*;
use crate::config::PrefixRange;
use crate::policy::well_known;

/// What a policy of one statement with these changes makes of a route.
fn changed(changes: Vec<Change>, route: PathAttributes) -> (PathAttributes, Option<NextHopChange>) {
    let policy = policy(vec![Statement {
        changes,
        ..statement("all", Vec::new())
    }]);
    let judgement = policy.judge(&route, &context());
    let decision = judgement.settled().unwrap();
    assert!(decision.is_accepted());
    judgement.apply(decision, route)
}

#[test]
fn preferences_are_set_and_do_not_wrap() {
    let route = || attributes(&[65001], &[]);
    let (with, _) = changed(vec![Change::LocalPref(200), Change::Med(5)], route());
    assert_eq!((with.local_pref, with.med), (Some(200), Some(5)));
    let (with, _) = changed(vec![Change::AddMed(7)], with);
    assert_eq!(with.med, Some(12));
    let (with, _) = changed(vec![Change::SubtractMed(20)], with);
    assert_eq!(with.med, Some(0));
    let (with, _) = changed(vec![Change::AddMed(u32::MAX), Change::AddMed(1)], with);
    assert_eq!(with.med, Some(u32::MAX));
    let (with, _) = changed(vec![Change::RemoveMed], with);
    assert_eq!(with.med, None);
    let (with, _) = changed(vec![Change::Origin(Origin::Incomplete)], with);
    assert_eq!(with.origin, Some(Origin::Incomplete));
}

#[test]
fn communities_are_replaced_removed_and_added_as_sets() {
    let standard = |text| CommunityPattern::parse(CommunityKind::Standard, text).unwrap();
    let add =
        |low| Change::AddCommunities(vec![AnyCommunity::Standard(Community::new(65000, low))]);
    let route = || attributes(&[65001], &[(65000, 1), (65000, 2), (65001, 9)]);
    let lows = |(route, _): (PathAttributes, _)| -> Vec<(u16, u16)> {
        let pairs = route.communities.iter().map(|c| (c.high(), c.low()));
        pairs.collect()
    };
    assert_eq!(
        lows(changed(vec![add(3), add(2)], route())),
        [(65000, 1), (65000, 2), (65000, 3), (65001, 9)]
    );
    let remove = Change::RemoveCommunities(vec![standard("65000:*")]);
    assert_eq!(
        lows(changed(vec![remove, add(7)], route())),
        [(65000, 7), (65001, 9)]
    );
    let clear = Change::ClearCommunities(CommunityKind::Standard);
    assert_eq!(lows(changed(vec![clear, add(7)], route())), [(65000, 7)]);
    let other = Change::ClearCommunities(CommunityKind::Large);
    assert_eq!(lows(changed(vec![other], route())).len(), 3);
}

#[test]
fn paths_are_prepended_in_the_order_written() {
    let list = Change::Prepend(vec![Asn(1), Asn(2)]);
    let (route, _) = changed(vec![list, Change::PrependOwn(2)], attributes(&[65001], &[]));
    assert_eq!(route.as_path.unwrap().to_string(), "65000 65000 1 2 65001");
    let (route, _) = changed(vec![Change::PrependOwn(1)], PathAttributes::default());
    assert_eq!(route.as_path.unwrap().to_string(), "65000");
}

#[test]
fn the_last_next_hop_counts_and_none_leaves_the_rule_of_the_session() {
    let (_, hop) = changed(Vec::new(), attributes(&[], &[]));
    assert_eq!(hop, None);
    let changes = vec![
        Change::NextHop(NextHopChange::Unchanged),
        Change::NextHop(NextHopChange::Own),
    ];
    let (_, hop) = changed(changes, attributes(&[], &[]));
    assert_eq!(hop, Some(NextHopChange::Own));
}

#[test]
fn statements_see_the_route_as_it_came() {
    let added = Community::new(65000, 1);
    let pattern = CommunityPattern::parse(CommunityKind::Standard, "65000:1").unwrap();
    let any = Condition::Communities {
        quantifier: Quantifier::Any,
        patterns: vec![pattern],
    };
    let policy = policy(vec![
        Statement {
            changes: vec![Change::AddCommunities(vec![AnyCommunity::Standard(added)])],
            action: Action::Continue,
            ..statement("tag", Vec::new())
        },
        statement("tagged", vec![any]),
    ]);
    let untagged = policy.judge(&attributes(&[1], &[]), &context());
    assert_eq!(untagged.settled(), Some(Decision::Reject(None)));
    let tagged = policy.judge(&attributes(&[1], &[(65000, 1)]), &context());
    assert!(tagged.settled().unwrap().is_accepted());
}

#[test]
fn a_policy_that_cannot_be_meant_is_refused() {
    let of = |statements| PolicyConfig::new("p".into(), statements, Verdict::Reject);
    let accept = |name: &str| statement(name, Vec::new());
    assert!(matches!(
        of(vec![accept("a"), accept("a")]),
        Err(PolicyError::DuplicateStatement { .. })
    ));
    let many = (0..=MAX_STATEMENTS).map(|n| accept(&n.to_string()));
    assert!(matches!(
        of(many.collect()),
        Err(PolicyError::TooManyStatements { count: 129, .. })
    ));
    let change = |action, change| Statement {
        changes: vec![change],
        action,
        ..accept("s")
    };
    let reject = Action::Final(Verdict::Reject);
    assert!(matches!(
        of(vec![change(reject, Change::RemoveMed)]),
        Err(PolicyError::ChangesRejected { .. })
    ));
    assert!(matches!(
        of(vec![change(Action::Continue, Change::PrependOwn(65))]),
        Err(PolicyError::TooLongPrepend { count: 65, .. })
    ));
    let list = || Condition::Prefixes(vec![PrefixRange::exact(net("10.0.0.0/8"))]);
    assert!(matches!(
        of(vec![statement("s", vec![list(), list()])]),
        Err(PolicyError::SeveralPrefixLists { .. })
    ));
}

#[test]
fn a_trace_says_what_was_found_and_what_was_wanted() {
    let prefixes = Condition::Prefixes(vec![
        PrefixRange::new(net("10.0.0.0/8"), Some(16), Some(24)).unwrap(),
    ]);
    let path = Condition::AsPaths(vec!["^65002_".parse().unwrap()]);
    let policy = policy(vec![
        statement("both", vec![prefixes, path]),
        statement("rest", Vec::new()),
        statement("late", Vec::new()),
    ]);
    let route = attributes(&[65001], &[]);
    let (verdicts, verdict) = policy.trace(&route, &context(), &net("192.0.2.0/24"));
    assert_eq!(verdict, Verdict::Accept);
    let StatementOutcome::Failed(failures) = &verdicts[0].outcome else {
        panic!("{:?}", verdicts[0]);
    };
    let failure = |condition, found: &str, wanted: &str| ConditionFailure {
        condition,
        found: found.to_owned(),
        wanted: wanted.to_owned(),
    };
    assert_eq!(
        *failures,
        [
            failure("prefixes", "192.0.2.0/24", "10.0.0.0/8 length 16-24"),
            failure("asPaths", "\"65001\"", "^65002_")
        ]
    );
    assert_eq!(
        verdicts[1].outcome,
        StatementOutcome::Matched(Action::Final(Verdict::Accept))
    );
    assert_eq!(verdicts[2].outcome, StatementOutcome::NotReached);
}

#[test]
fn well_known_communities_change_what_they_must() {
    let with = |community: Community| PathAttributes {
        communities: vec![community],
        ..PathAttributes::default()
    };
    let mut leaving = with(Community::GRACEFUL_SHUTDOWN);
    leaving.local_pref = Some(300);
    assert!(well_known::lower_on_graceful_shutdown(&mut leaving));
    assert_eq!(leaving.local_pref, Some(0));

    let mut hole = with(Community::BLACKHOLE);
    well_known::contain_blackhole(&mut hole);
    assert_eq!(
        hole.communities,
        [Community::BLACKHOLE, Community::NO_EXPORT]
    );
}
