// SPDX-License-Identifier: Apache-2.0
use std::net::Ipv4Addr;
use std::time::Duration;

use bgp_wire::{AsPath, Origin, PathAttributes};
use router_types::Asn;

use super::*;
use crate::config::{
    ExportAttributes, FamilyConfig, ImportMode, ImportPolicy, PeerAddress, PeerConfig, PrefixLimit,
    Transit,
};
use crate::peer::SessionAddresses;
use crate::routes::{NextHopAddress, RouteChange};

mod explain;
mod inheritance;
mod limits;
mod model;
mod own;
mod play;
mod policy;
mod vpn;
mod vpn_model;

fn config(modes: &[(&str, ImportMode, Option<u32>)]) -> InstanceConfig {
    let id = Ipv4Addr::new(10, 0, 0, 1);
    let mut config = InstanceConfig::new("i".into(), Asn(65001), id).unwrap();
    for (number, (name, mode, max_routes)) in modes.iter().enumerate() {
        let ip = Ipv4Addr::new(10, 0, 0, 10 + number as u8);
        let family = FamilyConfig {
            import: ImportPolicy { mode: mode.clone() },
            limit: max_routes.map(|max| PrefixLimit::new(max).unwrap()),
            ..FamilyConfig::default()
        };
        let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
        let families = families.into_iter().map(|f| (f, family.clone())).collect();
        let address = PeerAddress::new(ip.into(), None).unwrap();
        let peer = PeerConfig::new(address).with_families(families).unwrap();
        config.add_peer((*name).into(), peer).unwrap();
    }
    config
}

fn all(names: &[&'static str]) -> InstanceConfig {
    let modes: Vec<_> = names
        .iter()
        .map(|name| (*name, ImportMode::All, None))
        .collect();
    config(&modes)
}

fn session(number: u8, asn: u32) -> Box<SessionInfo> {
    let family = |family| SessionFamily {
        family,
        extended_next_hop: false,
        graceful: true,
        forwarding_preserved: true,
        add_path_receive: false,
        add_path_send: false,
    };
    Box::new(SessionInfo {
        peer_asn: Asn(asn),
        peer_router_id: Ipv4Addr::new(10, 0, 0, number),
        internal: asn == 65001,
        four_octet_as: true,
        max_len: 4096,
        families: vec![family(Family::IPV4_UNICAST), family(Family::IPV6_UNICAST)],
        addresses: SessionAddresses {
            local: "10.0.0.1:179".parse().unwrap(),
            remote: std::net::SocketAddr::new(Ipv4Addr::new(10, 0, 0, number).into(), 179),
            link: None,
            link_ipv4: None,
            link_ipv6: Some("fd00::1".parse().unwrap()),
            network: None,
        },
        local_asn: None,
        role: None,
        long_lived: false,
        enhanced_refresh: false,
    })
}

fn up(rib: &mut Rib, peer: &str, number: u8, asn: u32, now: Instant) {
    rib.handle(
        RibInput::PeerUp {
            peer: peer.into(),
            session: session(number, asn),
        },
        now,
    );
}

fn announce(rib: &mut Rib, peer: &str, prefixes: &[&str], path: &[u32], hop: &str, now: Instant) {
    let attributes = PathAttributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::from_sequence(path.iter().map(|asn| Asn(*asn)))),
        ..PathAttributes::default()
    };
    announce_with(rib, peer, prefixes, &attributes, hop, now);
}

fn announce_with(
    rib: &mut Rib,
    peer: &str,
    prefixes: &[&str],
    attributes: &PathAttributes,
    hop: &str,
    now: Instant,
) {
    let mut bytes = Vec::new();
    attributes.encode(true, &mut bytes);
    let prefixes: Vec<IpNet> = prefixes
        .iter()
        .map(|prefix| prefix.parse().unwrap())
        .collect();
    let changes = vec![RouteChange::Announce {
        family: crate::config::family_of(&prefixes[0]),
        attributes: bytes.into(),
        next_hop: NextHopAddress {
            address: hop.parse().unwrap(),
            link_local: None,
        },
        prefixes,
        path_ids: Vec::new(),
    }];
    rib.handle(
        RibInput::Routes {
            peer: peer.into(),
            changes: changes.into(),
        },
        now,
    );
}

fn withdraw(rib: &mut Rib, peer: &str, prefix: &str, now: Instant) {
    let prefix: IpNet = prefix.parse().unwrap();
    let family = crate::config::family_of(&prefix);
    let changes = vec![RouteChange::Withdraw {
        family,
        prefixes: vec![prefix],
        path_ids: Vec::new(),
    }];
    rib.handle(
        RibInput::Routes {
            peer: peer.into(),
            changes: changes.into(),
        },
        now,
    );
}

/// Tables that know that the node has no routes of its own.
fn ready(config: InstanceConfig, now: Instant) -> Rib {
    let mut rib = Rib::new(config, now);
    rib.handle(local(&[]), now);
    rib
}

fn local(prefixes: &[(&str, &[&str])]) -> RibInput {
    let mut routes = LocalRoutes::default();
    for (prefix, peers) in prefixes {
        for peer in *peers {
            routes.add(
                prefix.parse().unwrap(),
                (*peer).into(),
                ExportAttributes::default(),
            );
        }
    }
    RibInput::LocalRoutes(routes)
}

/// Everything waiting for a neighbour: announced, withdrawn, End-of-RIBs.
fn sent(rib: &mut Rib, peer: &str) -> (Vec<String>, Vec<String>, usize) {
    use bgp_wire::update::{Update, UpdateView};
    let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
    let context = bgp_wire::SessionContext::plain(bgp_wire::PeerKind::External, &families);
    let (mut announced, mut withdrawn, mut ends) = (Vec::new(), Vec::new(), 0);
    while let Some(transmit) = rib.poll_transmit(&peer.into()) {
        let mut rest = &transmit.bytes[..];
        let mut messages = 0;
        while let Some(frame) = bgp_wire::frame::next(rest, 4096).unwrap() {
            let view = UpdateView::split(frame.body).unwrap();
            let mut canonical = Vec::new();
            let update = Update::parse(&view, &context, &mut canonical);
            ends += usize::from(update.end_of_rib().is_some());
            let reach = update.mp_announced.map(|reach| reach.nlri);
            for nlri in [Some(update.announced), reach].into_iter().flatten() {
                announced.extend(nlri.iter().map(|entry| entry.prefix.to_string()));
            }
            for nlri in [Some(update.withdrawn), update.mp_withdrawn]
                .into_iter()
                .flatten()
            {
                withdrawn.extend(nlri.iter().map(|entry| entry.prefix.to_string()));
            }
            rest = &rest[frame.len..];
            messages += 1;
        }
        assert_eq!(messages, transmit.updates);
    }
    (announced, withdrawn, ends)
}

fn changes(rib: &mut Rib) -> Vec<(String, Option<Vec<String>>)> {
    std::iter::from_fn(|| rib.poll_best())
        .map(|change| {
            let hops = change.best.map(|best| {
                best.next_hops
                    .iter()
                    .filter_map(|hop| hop.via)
                    .map(|ip| ip.to_string())
                    .collect()
            });
            (change.prefix.to_string(), hops)
        })
        .collect()
}

#[test]
fn a_neighbour_gets_its_local_routes_then_end_of_rib_then_changes() {
    let now = Instant::now();
    let mut rib = Rib::new(all(&["a", "b"]), now);
    rib.handle(
        local(&[("10.1.0.0/24", &["a", "b"]), ("fd00:1::/64", &["a"])]),
        now,
    );
    up(&mut rib, "a", 10, 65002, now);
    up(&mut rib, "b", 11, 65003, now);
    let (mut announced, withdrawn, ends) = sent(&mut rib, "a");
    announced.sort();
    assert_eq!(announced, ["10.1.0.0/24", "fd00:1::/64"]);
    assert_eq!((withdrawn.len(), ends), (0, 2));
    assert_eq!(sent(&mut rib, "b").0, ["10.1.0.0/24"]);
    rib.handle(
        local(&[("10.2.0.0/24", &["a"]), ("10.1.0.0/24", &["b"])]),
        now,
    );
    let (announced, mut withdrawn, ends) = sent(&mut rib, "a");
    withdrawn.sort();
    assert_eq!(announced, ["10.2.0.0/24"]);
    assert_eq!(withdrawn, ["10.1.0.0/24", "fd00:1::/64"]);
    assert_eq!(ends, 0);
    assert_eq!(sent(&mut rib, "b"), (vec![], vec![], 0));
}

#[test]
fn neighbours_that_are_sent_the_same_share_a_group_until_they_are_not() {
    let now = Instant::now();
    let mut rib = Rib::new(all(&["a", "b"]), now);
    rib.handle(local(&[("10.1.0.0/24", &["a", "b"])]), now);
    up(&mut rib, "a", 10, 65002, now);
    up(&mut rib, "b", 11, 65003, now);
    assert_eq!(rib.stats().update_groups, 1);
    assert_eq!(sent(&mut rib, "a").0, sent(&mut rib, "b").0);
    rib.handle(local(&[("10.1.0.0/24", &["a"])]), now);
    assert_eq!(rib.stats().update_groups, 2);
    assert_eq!(sent(&mut rib, "a"), (vec![], vec![], 0));
    assert_eq!(sent(&mut rib, "b").1, ["10.1.0.0/24"]);
}

#[test]
fn two_tors_in_different_ases_are_used_together() {
    let now = Instant::now();
    let mut rib = Rib::new(all(&["a", "b"]), now);
    up(&mut rib, "a", 10, 65002, now);
    up(&mut rib, "b", 11, 65003, now);
    announce(
        &mut rib,
        "a",
        &["0.0.0.0/0"],
        &[65002, 65100],
        "10.0.0.10",
        now,
    );
    announce(
        &mut rib,
        "b",
        &["0.0.0.0/0"],
        &[65003, 65100],
        "10.0.0.11",
        now,
    );
    let both = Some(vec!["10.0.0.10".to_owned(), "10.0.0.11".to_owned()]);
    assert_eq!(changes(&mut rib), [("0.0.0.0/0".to_owned(), both)]);
    withdraw(&mut rib, "a", "0.0.0.0/0", now);
    let one = Some(vec!["10.0.0.11".to_owned()]);
    assert_eq!(changes(&mut rib), [("0.0.0.0/0".to_owned(), one)]);
    rib.handle(
        RibInput::PeerDown {
            peer: "b".into(),
            keep_routes: None,
        },
        now,
    );
    assert_eq!(changes(&mut rib), [("0.0.0.0/0".to_owned(), None)]);
    assert_eq!(rib.stats().attribute_sets, 0);
    assert_eq!(rib.stats().next_hops, 0);
}

#[test]
fn rejected_routes_are_counted_and_stay_right_when_withdrawn() {
    let now = Instant::now();
    let mut rib = Rib::new(config(&[("a", ImportMode::DefaultRoute, None)]), now);
    up(&mut rib, "a", 10, 65002, now);
    announce(
        &mut rib,
        "a",
        &["0.0.0.0/0", "10.0.0.0/8"],
        &[65002],
        "10.0.0.10",
        now,
    );
    announce(
        &mut rib,
        "a",
        &["10.0.0.0/8"],
        &[65002, 7],
        "10.0.0.10",
        now,
    );
    let counts = rib.counts(&"a".into())[&Family::IPV4_UNICAST];
    assert_eq!(
        (counts.received, counts.accepted, counts.rejected),
        (2, 1, 1)
    );
    withdraw(&mut rib, "a", "10.0.0.0/8", now);
    assert_eq!(rib.counts(&"a".into())[&Family::IPV4_UNICAST].received, 1);
}

#[test]
fn paths_with_the_own_as_are_loops_unless_allowed() {
    let now = Instant::now();
    let mut rib = Rib::new(all(&["a"]), now);
    up(&mut rib, "a", 10, 65002, now);
    announce(
        &mut rib,
        "a",
        &["10.0.0.0/8"],
        &[65002, 65001],
        "10.0.0.10",
        now,
    );
    assert_eq!(changes(&mut rib), []);
    assert_eq!(rib.counts(&"a".into())[&Family::IPV4_UNICAST].rejected, 1);
    assert_eq!(
        rib.stats().attribute_sets,
        0,
        "what is rejected is not kept"
    );
}

#[test]
fn learned_routes_are_passed_on_only_with_transit() {
    let now = Instant::now();
    let mut plain = all(&["a", "b"]);
    for transit in [Transit::Never, Transit::Allowed] {
        plain.transit = transit;
        let mut rib = Rib::new(plain.clone(), now);
        up(&mut rib, "a", 10, 65002, now);
        up(&mut rib, "b", 11, 65003, now);
        announce(&mut rib, "a", &["10.9.0.0/16"], &[65002], "10.0.0.10", now);
        let wanted: &[&str] = if transit == Transit::Allowed {
            &["10.9.0.0/16"]
        } else {
            &[]
        };
        assert_eq!(sent(&mut rib, "b").0, wanted, "{transit:?}");
    }
}

#[test]
fn a_local_prefix_is_never_routed_to_a_neighbour() {
    let now = Instant::now();
    let mut rib = Rib::new(all(&["a"]), now);
    rib.handle(local(&[("10.1.0.0/24", &[])]), now);
    let mut own = LocalRoutes::default();
    own.add(
        "10.1.0.0/24".parse().unwrap(),
        "a".into(),
        ExportAttributes::default(),
    );
    rib.handle(RibInput::LocalRoutes(own), now);
    up(&mut rib, "a", 10, 65002, now);
    announce(&mut rib, "a", &["10.1.0.0/24"], &[65002], "10.0.0.10", now);
    assert!(changes(&mut rib).iter().all(|(_, hops)| hops.is_none()));
}

#[test]
fn an_unreachable_next_hop_takes_its_routes_out_of_use_and_back() {
    let now = Instant::now();
    let mut rib = Rib::new(all(&["a"]), now);
    up(&mut rib, "a", 10, 65002, now);
    announce(&mut rib, "a", &["10.9.0.0/16"], &[65002], "10.0.0.10", now);
    assert_eq!(changes(&mut rib).len(), 1);
    let state = |metric| {
        RibInput::NextHops(vec![NextHopState {
            address: "10.0.0.10".parse().unwrap(),
            metric,
        }])
    };
    rib.handle(state(None), now);
    assert_eq!(changes(&mut rib), [("10.9.0.0/16".to_owned(), None)]);
    rib.handle(state(Some(5)), now);
    assert!(changes(&mut rib)[0].1.is_some());
}

#[test]
fn routes_of_a_restarting_neighbour_are_kept_then_renewed_or_dropped() {
    let now = Instant::now();
    let mut rib = Rib::new(all(&["a"]), now);
    let keep = Some(KeepRoutes {
        restart_time: Duration::from_secs(120),
        long_lived: BTreeMap::new(),
    });
    up(&mut rib, "a", 10, 65002, now);
    announce(
        &mut rib,
        "a",
        &["10.8.0.0/16", "10.9.0.0/16"],
        &[65002],
        "10.0.0.10",
        now,
    );
    rib.handle(
        RibInput::PeerDown {
            peer: "a".into(),
            keep_routes: keep.clone(),
        },
        now,
    );
    assert!(rib.best(&"10.8.0.0/16".parse().unwrap()).unwrap().stale);
    up(&mut rib, "a", 10, 65002, now);
    announce(&mut rib, "a", &["10.8.0.0/16"], &[65002], "10.0.0.10", now);
    let end = vec![RouteChange::EndOfRib {
        family: Family::IPV4_UNICAST,
    }];
    rib.handle(
        RibInput::Routes {
            peer: "a".into(),
            changes: end.into(),
        },
        now,
    );
    assert!(!rib.best(&"10.8.0.0/16".parse().unwrap()).unwrap().stale);
    assert_eq!(rib.best(&"10.9.0.0/16".parse().unwrap()), None);

    rib.handle(
        RibInput::PeerDown {
            peer: "a".into(),
            keep_routes: keep.clone(),
        },
        now,
    );
    let (at, _) = rib.poll_timeout().unwrap();
    assert_eq!(at, now + Duration::from_secs(120));
    rib.handle(RibInput::Timeout, at);
    assert_eq!(rib.stats().routes, 0);
    assert_eq!(rib.stats().attribute_sets, 0);
}

#[test]
fn long_lived_stale_routes_are_the_last_choice_until_they_go() {
    let now = Instant::now();
    let mut rib = Rib::new(all(&["a", "b"]), now);
    up(&mut rib, "a", 10, 65002, now);
    up(&mut rib, "b", 11, 65003, now);
    let leaves = PathAttributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::from_sequence([Asn(65002)])),
        communities: vec![bgp_wire::Community::NO_LLGR],
        ..PathAttributes::default()
    };
    announce(&mut rib, "a", &["10.8.0.0/16"], &[65002], "10.0.0.10", now);
    announce_with(&mut rib, "a", &["10.9.0.0/16"], &leaves, "10.0.0.10", now);
    announce(
        &mut rib,
        "b",
        &["10.8.0.0/16"],
        &[65003, 7, 8],
        "10.0.0.11",
        now,
    );
    let down = RibInput::PeerDown {
        peer: "a".into(),
        keep_routes: Some(KeepRoutes {
            restart_time: Duration::from_secs(60),
            long_lived: [(Family::IPV4_UNICAST, Duration::from_secs(3600))].into(),
        }),
    };
    rib.handle(down, now);
    let best = |rib: &Rib| {
        let best = rib.best(&"10.8.0.0/16".parse().unwrap());
        best.map(|best| best.peers[0].0.clone())
    };
    assert_eq!(best(&rib).as_deref(), Some("a"));
    let (at, _) = rib.poll_timeout().unwrap();
    rib.handle(RibInput::Timeout, at);
    assert_eq!(best(&rib).as_deref(), Some("b"));
    assert_eq!(rib.best(&"10.9.0.0/16".parse().unwrap()), None, "NO_LLGR");
    withdraw(&mut rib, "b", "10.8.0.0/16", at);
    assert_eq!(best(&rib).as_deref(), Some("a"), "better than none");
    let (end, _) = rib.poll_timeout().unwrap();
    assert_eq!(end, at + Duration::from_secs(3600));
    rib.handle(RibInput::Timeout, end);
    assert_eq!((best(&rib), rib.stats().attribute_sets), (None, 0));
}

#[test]
fn a_neighbour_that_does_not_read_costs_prefixes_not_changes() {
    let now = Instant::now();
    let mut rib = Rib::new(all(&["slow"]), now);
    up(&mut rib, "slow", 10, 65002, now);
    for round in 0..2000u32 {
        let mut routes = LocalRoutes::default();
        for third in 0..64 {
            let told = ExportAttributes {
                communities: [round].into(),
                ..Default::default()
            };
            let prefix = format!("10.0.{third}.0/24").parse().unwrap();
            routes.add(prefix, "slow".into(), told);
        }
        rib.handle(RibInput::LocalRoutes(routes), now);
        rib.flush_exports();
    }
    let mut bytes = 0;
    let mut last = None;
    while let Some(transmit) = rib.poll_transmit(&"slow".into()) {
        bytes += transmit.bytes.len();
        last = Some(transmit);
    }
    assert!(bytes < 2 * super::export::QUEUE_LIMIT, "{bytes}");
    assert!(last.is_some());
    let query = RouteQuery {
        table: RouteTable::Advertised("slow".into()),
        family: Family::IPV4_UNICAST,
        filter: PrefixFilter::All,
        after: None,
        limit: 1,
    };
    let page = rib.routes(&query, now);
    assert_eq!(
        page.routes[0].attributes.as_ref().unwrap().communities[0].0,
        1999
    );
}

#[test]
fn a_hundred_thousand_flaps_leave_nothing_behind() {
    let now = Instant::now();
    let mut rib = Rib::new(all(&["a", "b"]), now);
    up(&mut rib, "b", 11, 65003, now);
    for round in 0..100_000u32 {
        up(&mut rib, "a", 10, 65002, now);
        announce(
            &mut rib,
            "a",
            &["10.9.0.0/16"],
            &[65002, round + 1],
            "10.0.0.10",
            now,
        );
        rib.handle(
            RibInput::PeerDown {
                peer: "a".into(),
                keep_routes: None,
            },
            now,
        );
        while rib.poll_best().is_some() {}
    }
    let stats = rib.stats();
    assert_eq!(
        (stats.routes, stats.attribute_sets, stats.next_hops),
        (0, 0, 0)
    );
    assert_eq!(stats.update_groups, 1);
    assert!(stats.memory_bytes < 10_000, "{}", stats.memory_bytes);
}

#[test]
fn pages_show_every_route_once() {
    let now = Instant::now();
    let mut rib = Rib::new(all(&["a", "b"]), now);
    up(&mut rib, "a", 10, 65002, now);
    up(&mut rib, "b", 11, 65003, now);
    rib.handle(local(&[("10.5.0.0/24", &["a"])]), now);
    let prefixes: Vec<String> = (0..100).map(|n| format!("10.{n}.0.0/16")).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    announce(&mut rib, "a", &prefixes, &[65002], "10.0.0.10", now);
    announce(&mut rib, "b", &prefixes, &[65003, 7], "10.0.0.11", now);
    let mut query = RouteQuery {
        table: RouteTable::Available,
        family: Family::IPV4_UNICAST,
        filter: PrefixFilter::All,
        after: None,
        limit: 7,
    };
    let mut seen = Vec::new();
    loop {
        let page = rib.routes(&query, now);
        seen.extend(page.routes);
        query.after = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 201);
    assert_eq!(seen.iter().filter(|route| route.is_best()).count(), 101);
    let worse = seen
        .iter()
        .find(|route| route.peer == Some("b".into()))
        .unwrap();
    assert_eq!(worse.verdict.unwrap().to_string(), "longer AS path");
    query.filter = PrefixFilter::For("10.5.0.1".parse().unwrap());
    query.limit = 100;
    assert_eq!(rib.routes(&query, now).routes.len(), 3);
}

#[test]
fn end_of_rib_waits_for_local_routes_to_be_known() {
    let now = Instant::now();
    let mut rib = Rib::new(all(&["a"]), now);
    up(&mut rib, "a", 10, 65002, now);
    assert_eq!(sent(&mut rib, "a"), (vec![], vec![], 0));
    rib.handle(local(&[]), now);
    assert_eq!(sent(&mut rib, "a"), (vec![], vec![], 2));
}

#[test]
fn end_of_rib_of_a_restart_waits_for_what_others_have_to_say() {
    let now = Instant::now();
    let mut rib = Rib::new(all(&["a", "b"]), now);
    rib.handle(RibInput::HoldEnds, now);
    rib.handle(local(&[("10.1.0.0/24", &["a"])]), now);
    up(&mut rib, "a", 10, 65002, now);
    // Routes are not held back, only their end.
    assert_eq!(
        sent(&mut rib, "a"),
        (vec!["10.1.0.0/24".to_owned()], vec![], 0)
    );
    up(&mut rib, "b", 11, 65003, now);
    rib.handle(RibInput::SendEnds, now);
    assert_eq!(sent(&mut rib, "a"), (vec![], vec![], 2));
    assert_eq!(sent(&mut rib, "b"), (vec![], vec![], 2));
}

#[test]
fn another_next_hop_is_announced_live() {
    let now = Instant::now();
    let mut rib = Rib::new(all(&["a"]), now);
    rib.handle(
        local(&[("10.1.0.0/24", &["a"]), ("10.2.0.0/24", &["a"])]),
        now,
    );
    up(&mut rib, "a", 10, 65002, now);
    sent(&mut rib, "a");
    let mut next = all(&["a"]);
    let mut changed = InstanceConfig::new("i".into(), Asn(65001), next.router_id()).unwrap();
    let mut families = next.peers()[&PeerName::from("a")].families().clone();
    let family = families.get_mut(&Family::IPV4_UNICAST).unwrap();
    family.next_hop = Some("10.0.0.99".parse().unwrap());
    let peer = next.peers()[&PeerName::from("a")]
        .clone()
        .with_families(families)
        .unwrap();
    changed.add_peer("a".into(), peer).unwrap();
    next = changed;
    rib.handle(RibInput::Configure(Box::new(next)), now);
    assert_eq!(sent(&mut rib, "a").0, ["10.1.0.0/24", "10.2.0.0/24"]);
    let query = RouteQuery {
        table: RouteTable::Advertised("a".into()),
        family: Family::IPV4_UNICAST,
        filter: PrefixFilter::All,
        after: None,
        limit: 10,
    };
    let page = rib.routes(&query, now);
    assert!(
        page.routes
            .iter()
            .all(|r| r.next_hop == Some("10.0.0.99".parse().unwrap()))
    );
}

#[test]
fn next_hops_fit_the_family_and_the_session() {
    let now = Instant::now();
    type Ip = Option<&'static str>;
    let cases: [(&str, bool, Ip, Ip, Ip, Ip); 6] = [
        // local end, RFC 8950, the link's IPv4 and IPv6, next hop for IPv4 and for IPv6
        (
            "10.0.0.1",
            false,
            None,
            Some("fd00::1"),
            Some("10.0.0.1"),
            Some("fd00::1"),
        ),
        ("10.0.0.1", true, None, None, Some("10.0.0.1"), None),
        (
            "fd00::1",
            true,
            Some("10.0.0.1"),
            None,
            Some("fd00::1"),
            Some("fd00::1"),
        ),
        (
            "fd00::1",
            false,
            Some("10.0.0.1"),
            None,
            Some("10.0.0.1"),
            Some("fd00::1"),
        ),
        ("fd00::1", false, None, None, None, Some("fd00::1")),
        (
            "fe80::1",
            true,
            None,
            Some("fd00::1"),
            Some("fd00::1"),
            Some("fd00::1"),
        ),
    ];
    for (end, extended, link_ipv4, link_ipv6, for_v4, for_v6) in cases {
        let mut rib = Rib::new(all(&["a"]), now);
        rib.handle(
            local(&[("10.1.0.0/24", &["a"]), ("fd00:1::/64", &["a"])]),
            now,
        );
        let mut info = session(10, 65002);
        info.families[0].extended_next_hop = extended;
        info.addresses.local = std::net::SocketAddr::new(end.parse().unwrap(), 179);
        info.addresses.link_ipv4 = link_ipv4.map(|ip| ip.parse().unwrap());
        info.addresses.link_ipv6 = link_ipv6.map(|ip| ip.parse().unwrap());
        rib.handle(
            RibInput::PeerUp {
                peer: "a".into(),
                session: info,
            },
            now,
        );
        while rib.poll_transmit(&"a".into()).is_some() {}
        for (family, wanted) in [
            (Family::IPV4_UNICAST, for_v4),
            (Family::IPV6_UNICAST, for_v6),
        ] {
            let query = RouteQuery {
                table: RouteTable::Advertised("a".into()),
                family,
                filter: PrefixFilter::All,
                after: None,
                limit: 10,
            };
            let routes = rib.routes(&query, now).routes;
            let found = routes
                .first()
                .and_then(|route| route.next_hop)
                .map(|ip| ip.to_string());
            assert_eq!(found.as_deref(), wanted, "{end} {extended} {family}");
        }
    }
}

#[test]
fn internal_neighbours_get_local_preference_and_external_ones_the_own_as() {
    let now = Instant::now();
    for (asn, path, local_pref) in [(65001, "", Some(300)), (65002, "65001", None)] {
        let mut rib = Rib::new(all(&["a"]), now);
        let mut routes = LocalRoutes::default();
        let told = ExportAttributes {
            communities: [0xffff_ff01, 7].into(),
            large_communities: [(65001, 1, 2)].into(),
            local_pref: Some(300),
            ..ExportAttributes::default()
        };
        routes.add("10.1.0.0/24".parse().unwrap(), "a".into(), told);
        rib.handle(RibInput::LocalRoutes(routes), now);
        up(&mut rib, "a", 10, asn, now);
        assert_eq!(sent(&mut rib, "a").0, ["10.1.0.0/24"]);
        let query = RouteQuery {
            table: RouteTable::Advertised("a".into()),
            family: Family::IPV4_UNICAST,
            filter: PrefixFilter::All,
            after: None,
            limit: 10,
        };
        let attributes = rib.routes(&query, now).routes[0]
            .attributes
            .clone()
            .unwrap();
        assert_eq!(attributes.as_path.unwrap().to_string(), path);
        assert_eq!(attributes.local_pref, local_pref);
        assert_eq!(attributes.communities.len(), 2);
        assert_eq!(attributes.large_communities[0].to_string(), "65001:1:2");
    }
}
