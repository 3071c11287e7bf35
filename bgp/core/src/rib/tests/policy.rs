// SPDX-License-Identifier: Apache-2.0
//! Policies at work: what comes in by them, what goes out by them, and what follows when they
//! change.

use super::*;
use crate::config::PrefixRange;
use crate::policy::{
    Action, AnyCommunity, Change, Condition, PolicyConfig, RouteOrigin, Statement,
    Verdict as PolicyVerdict,
};

const ACCEPT: Action = Action::Final(PolicyVerdict::Accept);

fn statement(conditions: Vec<Condition>, changes: Vec<Change>, action: Action) -> Statement {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Statement {
        name: number.to_string(),
        conditions,
        changes,
        action,
    }
}

fn policy(name: &str, statements: Vec<Statement>) -> PolicyConfig {
    PolicyConfig::new(name.into(), statements, PolicyVerdict::Reject).unwrap()
}

fn prefixes(list: &[&str]) -> Condition {
    let range = |text: &&str| PrefixRange::exact(text.parse().unwrap());
    Condition::Prefixes(list.iter().map(range).collect())
}

/// Two neighbours; `a` uses the policies named, one for each way.
fn with(import: Option<&str>, export: Option<&str>, policies: Vec<PolicyConfig>) -> InstanceConfig {
    let mut config =
        InstanceConfig::new("i".into(), Asn(65001), Ipv4Addr::new(10, 0, 0, 1)).unwrap();
    config.transit = Transit::Allowed;
    config.policies = policies;
    for (number, name) in ["a", "b"].into_iter().enumerate() {
        let is_a = name == "a";
        let family = FamilyConfig {
            import: ImportPolicy {
                mode: ImportMode::All,
            },
            import_policy: import.filter(|_| is_a).map(Into::into),
            export_policy: export.filter(|_| is_a).map(Into::into),
            ..FamilyConfig::default()
        };
        let families = [(Family::IPV4_UNICAST, family)].into();
        let ip = Ipv4Addr::new(10, 0, 0, 10 + number as u8);
        let address = PeerAddress::new(ip.into(), None).unwrap();
        let peer = PeerConfig::new(address).with_families(families).unwrap();
        config.add_peer(name.into(), peer).unwrap();
    }
    config
}

fn table(rib: &Rib, table: RouteTable, now: Instant) -> Vec<(String, Option<PathAttributes>)> {
    let query = RouteQuery {
        table,
        family: Family::IPV4_UNICAST,
        filter: PrefixFilter::All,
        after: None,
        limit: 100,
    };
    let routes = rib.routes(&query, now).routes.into_iter();
    routes
        .map(|route| (route.prefix.to_string(), route.attributes))
        .collect()
}

fn names(list: Vec<(String, Option<PathAttributes>)>) -> Vec<String> {
    list.into_iter().map(|(prefix, _)| prefix).collect()
}

#[test]
fn an_import_policy_takes_what_it_accepts_as_it_changes_it() {
    let now = Instant::now();
    let from_a = policy(
        "from-a",
        vec![
            statement(
                vec![Condition::AsPaths(vec!["_65099$".parse().unwrap()])],
                vec![],
                Action::Final(PolicyVerdict::Reject),
            ),
            statement(
                vec![prefixes(&["10.1.0.0/16"])],
                vec![Change::LocalPref(200)],
                ACCEPT,
            ),
            statement(vec![prefixes(&["10.2.0.0/16"])], vec![], ACCEPT),
        ],
    );
    let mut rib = Rib::new(with(Some("from-a"), None, vec![from_a]), now);
    up(&mut rib, "a", 10, 65010, now);
    let all = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"];
    announce(&mut rib, "a", &all, &[65010], "10.0.0.10", now);
    announce(
        &mut rib,
        "a",
        &["10.1.0.0/16"],
        &[65010, 65099],
        "10.0.0.10",
        now,
    );
    let received = table(&rib, RouteTable::Received("a".into()), now);
    assert_eq!(names(received), ["10.2.0.0/16"]);
    announce(&mut rib, "a", &["10.1.0.0/16"], &[65010], "10.0.0.10", now);
    let received = table(&rib, RouteTable::Received("a".into()), now);
    let prefs: Vec<_> = received
        .iter()
        .map(|(prefix, attributes)| (prefix.as_str(), attributes.as_ref().unwrap().local_pref))
        .collect();
    assert_eq!(prefs, [("10.1.0.0/16", Some(200)), ("10.2.0.0/16", None)]);
    let filtered = names(table(&rib, RouteTable::Filtered("a".into()), now));
    assert_eq!(filtered, ["10.3.0.0/16"]);
}

fn add(low: u16) -> Change {
    let community = bgp_wire::Community::new(65001, low);
    Change::AddCommunities(vec![AnyCommunity::Standard(community)])
}

#[test]
fn an_export_policy_sends_what_it_accepts_as_it_changes_it() {
    let now = Instant::now();
    let source = |origin| Condition::Sources(vec![origin]);
    let to_a = policy(
        "to-a",
        vec![
            statement(vec![source(RouteOrigin::Service)], vec![add(7)], ACCEPT),
            statement(
                vec![
                    Condition::Peers(vec!["b".into()]),
                    prefixes(&["10.2.0.0/16"]),
                ],
                vec![Change::PrependOwn(2), Change::Med(5)],
                ACCEPT,
            ),
        ],
    );
    let mut rib = Rib::new(with(None, Some("to-a"), vec![to_a.clone()]), now);
    let mut own = LocalRoutes::default();
    for (prefix, source) in [
        ("10.8.0.1/32", RouteOrigin::Service),
        ("10.9.0.0/24", RouteOrigin::PodCidr),
    ] {
        let told = ExportAttributes {
            source,
            ..ExportAttributes::default()
        };
        for peer in ["a", "b"] {
            own.add(prefix.parse().unwrap(), peer.into(), told.clone());
        }
    }
    rib.handle(RibInput::LocalRoutes(own), now);
    up(&mut rib, "a", 10, 65010, now);
    up(&mut rib, "b", 11, 65011, now);
    let learned = ["10.2.0.0/16", "10.3.0.0/16"];
    announce(&mut rib, "b", &learned, &[65011], "10.0.0.11", now);
    let mut announced = sent(&mut rib, "a").0;
    announced.sort();
    assert_eq!(announced, ["10.2.0.0/16", "10.8.0.1/32"]);
    let mut others = sent(&mut rib, "b").0;
    others.sort();
    assert_eq!(others, ["10.8.0.1/32", "10.9.0.0/24"], "no policy there");
    let advertised = table(&rib, RouteTable::Advertised("a".into()), now);
    let learned = advertised[0].1.as_ref().unwrap();
    let path = learned.as_path.as_ref().unwrap().to_string();
    assert_eq!(
        (path.as_str(), learned.med),
        ("65001 65001 65001 65011", Some(5))
    );
    assert_eq!(advertised[1].1.as_ref().unwrap().communities.len(), 1);

    // The policy changes and nothing else does.
    let changed = policy(
        "to-a",
        vec![statement(vec![prefixes(&["10.3.0.0/16"])], vec![], ACCEPT)],
    );
    let config = with(None, Some("to-a"), vec![changed]);
    rib.handle(RibInput::Configure(Box::new(config)), now);
    let (announced, mut withdrawn, _) = sent(&mut rib, "a");
    withdrawn.sort();
    assert_eq!(announced, ["10.3.0.0/16"]);
    assert_eq!(withdrawn, ["10.2.0.0/16", "10.8.0.1/32"]);
    assert_eq!(sent(&mut rib, "b"), (vec![], vec![], 0));

    // It is gone, and still named: nothing goes out.
    let config = with(None, Some("to-a"), vec![]);
    rib.handle(RibInput::Configure(Box::new(config)), now);
    let (announced, withdrawn, _) = sent(&mut rib, "a");
    assert_eq!(
        (announced, withdrawn),
        (vec![], vec!["10.3.0.0/16".to_owned()])
    );

    // And there again.
    let config = with(None, Some("to-a"), vec![to_a]);
    rib.handle(RibInput::Configure(Box::new(config)), now);
    let mut announced = sent(&mut rib, "a").0;
    announced.sort();
    assert_eq!(announced, ["10.2.0.0/16", "10.8.0.1/32"]);
}

#[test]
fn a_policy_that_is_named_and_not_there_lets_nothing_in() {
    let now = Instant::now();
    let mut rib = Rib::new(with(Some("absent"), None, vec![]), now);
    up(&mut rib, "a", 10, 65010, now);
    announce(&mut rib, "a", &["10.1.0.0/16"], &[65010], "10.0.0.10", now);
    assert!(table(&rib, RouteTable::Received("a".into()), now).is_empty());
    let filtered = names(table(&rib, RouteTable::Filtered("a".into()), now));
    assert_eq!(filtered, ["10.1.0.0/16"]);
}

#[test]
fn routes_that_come_again_meet_the_changed_import_policy() {
    let now = Instant::now();
    let takes = |list: &[&str]| policy("p", vec![statement(vec![prefixes(list)], vec![], ACCEPT)]);
    let both = ["10.1.0.0/16", "10.2.0.0/16"];
    let mut rib = Rib::new(with(Some("p"), None, vec![takes(&both)]), now);
    up(&mut rib, "a", 10, 65010, now);
    announce(&mut rib, "a", &both, &[65010], "10.0.0.10", now);
    assert_eq!(table(&rib, RouteTable::Received("a".into()), now).len(), 2);
    let config = with(Some("p"), None, vec![takes(&["10.2.0.0/16"])]);
    rib.handle(RibInput::Configure(Box::new(config)), now);
    // The session asks for them again (RFC 2918).
    announce(&mut rib, "a", &both, &[65010], "10.0.0.10", now);
    let received = names(table(&rib, RouteTable::Received("a".into()), now));
    assert_eq!(received, ["10.2.0.0/16"]);
}

#[test]
fn only_a_changed_import_policy_has_routes_asked_for_again() {
    use crate::config::Effect;
    let takes = |list: &[&str]| policy("p", vec![statement(vec![prefixes(list)], vec![], ACCEPT)]);
    let (old, new) = (takes(&["10.1.0.0/16"]), takes(&["10.2.0.0/16"]));
    for (import, export, effect) in [
        (Some("p"), None, Effect::RouteRefresh),
        (None, Some("p"), Effect::Live),
        (None, None, Effect::Live),
    ] {
        let before = with(import, export, vec![old.clone()]);
        let changes = before.changes_to(&with(import, export, vec![new.clone()]));
        let effects: Vec<Effect> = changes.into_iter().map(|change| change.effect).collect();
        assert_eq!(effects, [effect], "{import:?} {export:?}");
    }
}
