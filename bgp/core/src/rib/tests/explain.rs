// SPDX-License-Identifier: Apache-2.0
//! What is explained, in the words an operator reads.

use bgp_wire::{Community, Destination, VpnPrefix};

use super::*;
use crate::policy::{Action, Condition, PolicyConfig, Statement, Verdict as PolicyVerdict};

/// An instance that passes routes on: `a` and `b` external, `c` and `d` internal.
fn node() -> InstanceConfig {
    let mut config = all(&["a", "b", "c", "d"]);
    config.transit = Transit::Allowed;
    config
}

/// The same, with a neighbour's IPv4 configured otherwise.
fn change(config: &InstanceConfig, name: &str, edit: impl Fn(&mut FamilyConfig)) -> InstanceConfig {
    let mut next = InstanceConfig::new("i".into(), Asn(65001), config.router_id()).unwrap();
    next.transit = config.transit;
    next.policies = config.policies.clone();
    for (other, peer) in config.peers() {
        let mut families = peer.families().clone();
        if *other.0 == *name {
            families.values_mut().for_each(&edit);
        }
        let peer = peer.clone().with_families(families).unwrap();
        next.add_peer(other.clone(), peer).unwrap();
    }
    next
}

fn rib(config: InstanceConfig, now: Instant) -> Rib {
    let mut rib = ready(config, now);
    up(&mut rib, "a", 10, 65010, now);
    up(&mut rib, "b", 11, 65011, now);
    up(&mut rib, "c", 12, 65001, now);
    rib
}

/// `10.0.0.0/8`, and of a VPN `65000:1 10.0.0.0/8`.
fn destination(text: &str) -> Destination {
    match text.split_once(' ') {
        Some((rd, prefix)) => Destination::Vpn(VpnPrefix {
            rd: rd.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
        }),
        None => Destination::Ip(text.parse().unwrap()),
    }
}

/// An explanation, a line for each thing it says.
fn lines(rib: &Rib, prefix: &str, now: Instant) -> Vec<String> {
    let explained = rib.explain(destination(prefix), None, now);
    let name =
        |peer: &Option<PeerName>| peer.as_ref().map_or("own".to_owned(), |p| p.0.to_string());
    let by = |policy: &Option<PolicyStatement>| match policy {
        Some(policy) => format!(
            " ({} {})",
            policy.policy.0,
            policy.statement.as_deref().unwrap_or("default")
        ),
        None => String::new(),
    };
    let mut lines = Vec::new();
    for path in &explained.paths {
        let mut line = format!(
            "{}: {}",
            name(&path.route.peer),
            path.route.verdict.unwrap()
        );
        if let Some(lost) = &path.lost {
            let (step, other) = (lost.step.name(), &lost.other);
            line += &format!(
                "; {step} {} against {other} of {}",
                lost.value, lost.against
            );
        }
        lines.push(line + &by(&path.policy));
    }
    if let Some(covering) = explained.covering {
        lines.push(format!("within {covering}"));
    }
    for (peer, silence) in &explained.silent {
        lines.push(format!("{peer} silent: {silence}"));
    }
    for advert in &explained.adverts {
        let pending = if advert.is_pending { " (pending)" } else { "" };
        for route in &advert.routes {
            let said = match &route.outcome {
                Ok((_, hop)) => format!("{} via {hop}", name(&route.from)),
                Err(why) => format!("not, {why}"),
            };
            lines.push(format!(
                "to {}: {said}{}{pending}",
                advert.peer,
                by(&route.policy)
            ));
        }
    }
    lines
}

fn drain(rib: &mut Rib) {
    for peer in ["a", "b", "c", "d"] {
        while rib.poll_transmit(&peer.into()).is_some() {}
    }
}

#[test]
fn every_path_says_at_which_step_it_lost_and_every_neighbour_what_it_is_sent() {
    let now = Instant::now();
    let mut rib = rib(node(), now);
    announce(&mut rib, "a", &["10.1.0.0/16"], &[65010], "10.0.0.10", now);
    announce(
        &mut rib,
        "b",
        &["10.1.0.0/16"],
        &[65011, 65020],
        "10.0.0.11",
        now,
    );
    announce(&mut rib, "c", &["10.1.0.0/16"], &[65010], "10.0.0.12", now);
    assert_eq!(
        lines(&rib, "10.1.0.0/16", now),
        [
            "a: best",
            "c: an external route is preferred; external-over-internal internal against external of a",
            "b: longer AS path; as-path-length 2 against 1 of a",
            "d silent: the session is not established",
            "to a: not, it is the peer's own route (pending)",
            "to b: a via 10.0.0.1 (pending)",
            "to c: a via 10.0.0.10 (pending)",
            "to d: not, the session is not established",
        ]
    );
    drain(&mut rib);
    assert_eq!(lines(&rib, "10.1.0.0/16", now)[5], "to b: a via 10.0.0.1");

    // The node's own prefix hides what neighbours say.
    rib.handle(local(&[("10.1.0.0/16", &["b"])]), now);
    drain(&mut rib);
    let said = lines(&rib, "10.1.0.0/16", now);
    assert_eq!(said[0], "own: best");
    assert_eq!(said[1], "a: the node itself has this prefix");
    assert!(
        said.contains(&"to b: own via 10.0.0.1".to_owned()),
        "{said:#?}"
    );
}

#[test]
fn without_transit_nothing_learned_goes_on_and_own_routes_go_to_whom_they_name() {
    let now = Instant::now();
    let mut config = node();
    config.transit = Transit::Never;
    let mut rib = rib(config, now);
    announce(&mut rib, "a", &["10.1.0.0/16"], &[65010], "10.0.0.10", now);
    rib.handle(local(&[("10.9.0.0/24", &["b"])]), now);
    drain(&mut rib);
    let said = lines(&rib, "10.1.0.0/16", now);
    let no_transit = "to b: not, the instance does not pass learned routes on (transit: false)";
    assert!(said.contains(&no_transit.to_owned()), "{said:#?}");
    let said = lines(&rib, "10.9.0.0/24", now);
    let not_named = "to a: not, no advertisement of the node's own prefix names the peer";
    assert!(said.contains(&not_named.to_owned()), "{said:#?}");
    assert!(
        said.contains(&"to b: own via 10.0.0.1".to_owned()),
        "{said:#?}"
    );
}

#[test]
fn a_prefix_without_a_route_says_what_covers_it_and_who_could_have_sent_it() {
    let now = Instant::now();
    let mut rib = rib(node(), now);
    announce(&mut rib, "a", &["10.0.0.0/8"], &[65010], "10.0.0.10", now);
    let mut v4 = session(13, 65001);
    v4.families.retain(|f| f.family == Family::IPV6_UNICAST);
    let peer = "d".into();
    rib.handle(RibInput::PeerUp { peer, session: v4 }, now);
    drain(&mut rib);
    let said = lines(&rib, "10.1.2.0/24", now);
    assert_eq!(
        said,
        [
            "within 10.0.0.0/8",
            "a silent: it has sent no route for the prefix",
            "b silent: it has sent no route for the prefix",
            "c silent: it has sent no route for the prefix",
            "d silent: the session does not carry the family",
            "to a: not, there is no route that can be used",
            "to b: not, there is no route that can be used",
            "to c: not, there is no route that can be used",
            "to d: not, the session does not carry the family",
        ]
    );
    let longest = |address: &str| rib.longest_match(address.parse().unwrap(), None);
    assert_eq!(longest("10.1.2.3"), Some(destination("10.0.0.0/8")));
    assert_eq!(longest("11.1.2.3"), None);
}

#[test]
fn what_is_not_taken_says_which_rule_or_statement_it_was_although_it_was_not_kept() {
    let now = Instant::now();
    let statement = |name: &str, range: &str, verdict| Statement {
        name: name.to_owned(),
        conditions: vec![Condition::Prefixes(vec![
            crate::config::PrefixRange::exact(range.parse().unwrap()),
        ])],
        changes: vec![],
        action: Action::Final(verdict),
    };
    let statements = vec![
        statement("ours", "10.1.0.0/16", PolicyVerdict::Accept),
        statement("bogons", "10.2.0.0/16", PolicyVerdict::Reject),
    ];
    let policy = PolicyConfig::new("edge".into(), statements, PolicyVerdict::Reject).unwrap();
    let mut config = node();
    config.policies = vec![policy];
    let config = change(&config, "a", |family| {
        family.import_policy = Some("edge".into())
    });
    let config = change(&config, "b", |family| {
        family.export_policy = Some("edge".into())
    });
    let config = change(&config, "c", |family| {
        family.import.mode = ImportMode::DefaultRoute
    });
    let mut rib = rib(config, now);
    for prefix in ["10.2.0.0/16", "10.3.0.0/16"] {
        announce(&mut rib, "a", &[prefix], &[65010], "10.0.0.10", now);
        announce(&mut rib, "b", &[prefix], &[65999], "10.0.0.11", now);
        announce(&mut rib, "c", &[prefix], &[], "10.0.0.12", now);
    }
    assert_eq!(rib.stats().attribute_sets, 0, "nothing of it was kept");
    let said = lines(&rib, "10.2.0.0/16", now);
    assert_eq!(
        &said[..3],
        [
            "c: the import mode takes other prefixes",
            "a: statement 2 of the import policy (edge bogons)",
            "b: its path does not begin with the neighbour's AS",
        ]
    );
    let said = lines(&rib, "10.3.0.0/16", now);
    assert_eq!(said[1], "a: the import policy's default (edge default)");

    announce(&mut rib, "c", &["0.0.0.0/0"], &[], "10.0.0.12", now);
    drain(&mut rib);
    let said = lines(&rib, "0.0.0.0/0", now);
    let by_default = "to b: not, the export policy's default (edge default)";
    assert!(said.contains(&by_default.to_owned()), "{said:#?}");
}

#[test]
fn communities_loops_limits_and_next_hops_are_named() {
    let now = Instant::now();
    let limited = change(&node(), "b", |family| {
        family.limit = Some(PrefixLimit::new(1).unwrap());
    });
    let mut rib = rib(limited, now);
    let tagged = |community| PathAttributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::from_sequence([Asn(65010)])),
        communities: vec![community],
        ..PathAttributes::default()
    };
    let no_export = tagged(Community(0xffff_ff01));
    announce_with(
        &mut rib,
        "a",
        &["10.1.0.0/16"],
        &no_export,
        "10.0.0.10",
        now,
    );
    let no_advertise = tagged(Community(0xffff_ff02));
    announce_with(
        &mut rib,
        "a",
        &["10.2.0.0/16"],
        &no_advertise,
        "10.0.0.10",
        now,
    );
    announce(
        &mut rib,
        "a",
        &["10.3.0.0/16"],
        &[65010, 65001],
        "10.0.0.10",
        now,
    );
    announce(&mut rib, "c", &["10.4.0.0/16"], &[], "10.0.0.12", now);
    announce(&mut rib, "b", &["10.5.0.0/16"], &[65011], "10.0.0.77", now);
    announce(&mut rib, "b", &["10.6.0.0/16"], &[65011], "10.0.0.11", now);
    let away = NextHopState {
        address: "10.0.0.77".parse().unwrap(),
        metric: None,
    };
    rib.handle(RibInput::NextHops(vec![away]), now);
    up(&mut rib, "d", 13, 65001, now);
    drain(&mut rib);
    let has = |prefix: &str, line: &str| {
        let said = lines(&rib, prefix, now);
        assert!(said.iter().any(|said| said == line), "{line}: {said:#?}");
    };
    has(
        "10.1.0.0/16",
        "to b: not, the route carries NO_EXPORT, and the peer is of another AS",
    );
    has("10.1.0.0/16", "to c: a via 10.0.0.10");
    has("10.2.0.0/16", "to c: not, the route carries NO_ADVERTISE");
    has("10.3.0.0/16", "a: the own AS is in its path");
    has(
        "10.4.0.0/16",
        "to d: not, it came from within the AS, and neither peer is a reflector's client",
    );
    has("10.5.0.0/16", "b: no way to the next hop");
    has(
        "10.5.0.0/16",
        "to a: not, there is no route that can be used",
    );
    has(
        "10.6.0.0/16",
        "b: the neighbour has sent as many routes as it may",
    );
}

#[test]
fn destinations_of_vpns_are_explained_by_distinguisher_and_prefix() {
    use super::vpn::{offer, reflector, said_all, session_with, up_with, want};

    let now = Instant::now();
    let mut rib = Rib::new(reflector(&["a", "b", "c"]), now);
    rib.handle(local(&[]), now);
    let vpn = [Family::VPNV4, Family::ROUTE_TARGET];
    up_with(&mut rib, "a", session_with(10, 65001, &vpn[..1]), now);
    up_with(&mut rib, "b", session_with(11, 65001, &vpn[..1]), now);
    up_with(&mut rib, "c", session_with(12, 65001, &vpn), now);
    want(&mut rib, "c", &["rt:65000:9"], "10.0.0.12", now);
    said_all(&mut rib, "c", Family::ROUTE_TARGET, now);
    for (peer, hop) in [("a", "10.0.0.10"), ("b", "10.0.0.11")] {
        let routes = ["65000:1 10.1.0.0/16 100", "65000:2 10.1.2.0/24 200"];
        offer(&mut rib, peer, &routes, &["rt:65000:1"], hop, now);
    }
    while ["a", "b", "c"]
        .iter()
        .any(|name| rib.poll_transmit(&(*name).into()).is_some())
    {}
    let said = lines(&rib, "65000:1 10.1.0.0/16", now).join("\n");
    for words in [
        "a: best",
        "b: ",
        "to a: not, it is the peer's own route",
        "to b: a via 10.0.0.10",
        "to c: not, the peer asks for none of its route targets",
    ] {
        assert!(said.contains(words), "no '{words}' in\n{said}");
    }
    // What lies around it counts within the distinguisher alone.
    let around = rib.explain(destination("65000:1 10.1.2.0/24"), None, now);
    assert_eq!(around.covering, Some("10.1.0.0/16".parse().unwrap()));
    assert_eq!(around.paths, []);
    let around = rib.explain(destination("65000:2 10.1.2.0/25"), None, now);
    assert_eq!(around.covering, Some("10.1.2.0/24".parse().unwrap()));
    assert_eq!(
        rib.explain(destination("10.1.2.0/24"), None, now).covering,
        None
    );
    let longest = |rd: &str| rib.longest_match("10.1.2.3".parse().unwrap(), rd.parse().ok());
    assert_eq!(longest("65000:1"), Some(destination("65000:1 10.1.0.0/16")));
    assert_eq!(longest("65000:2"), Some(destination("65000:2 10.1.2.0/24")));
    assert_eq!(longest("65000:3"), None);
}
