// SPDX-License-Identifier: Apache-2.0
//! Routes of VPNs and memberships of route targets, as a reflector carries them.

use std::collections::{BTreeMap, BTreeSet};

use bgp_wire::update::{Update, UpdateView};
use bgp_wire::{
    Destination, ExtendedCommunity, Label, RouteTargetPrefix, SessionContext, VpnEntry, VpnPrefix,
};

use super::*;
use crate::config::NextHopMode;

/// Neighbours of the own AS, clients of this reflector, with all families and numbers from 10 on.
pub(super) fn reflector(names: &[&str]) -> InstanceConfig {
    let id = Ipv4Addr::new(10, 0, 0, 1);
    let mut config = InstanceConfig::new("i".into(), Asn(65001), id).unwrap();
    config.transit = Transit::Allowed;
    for (number, name) in names.iter().enumerate() {
        let ip = Ipv4Addr::new(10, 0, 0, 10 + number as u8);
        let family = FamilyConfig {
            import: ImportPolicy {
                mode: ImportMode::All,
            },
            ..FamilyConfig::default()
        };
        let families = PeerConfig::CARRIED.map(|f| (f, family.clone())).into();
        let address = PeerAddress::new(ip.into(), None).unwrap();
        let mut peer = PeerConfig::new(address).with_families(families).unwrap();
        peer.route_reflector_client = true;
        config.add_peer((*name).into(), peer).unwrap();
    }
    config
}

/// A session with these families.
pub(super) fn session_with(number: u8, asn: u32, families: &[Family]) -> Box<SessionInfo> {
    let mut info = session(number, asn);
    let plain = info.families[0];
    info.families = families
        .iter()
        .map(|&family| SessionFamily { family, ..plain })
        .collect();
    info
}

pub(super) fn up_with(rib: &mut Rib, peer: &str, session: Box<SessionInfo>, now: Instant) {
    let peer = peer.into();
    rib.handle(RibInput::PeerUp { peer, session }, now);
}

/// `65000:1 10.1.0.0/16 100` in a message: distinguisher, prefix, label.
fn entries(texts: &[&str]) -> (Family, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut family = Family::VPNV4;
    for text in texts {
        let mut words = text.split(' ');
        let mut word = || words.next().unwrap();
        let destination = VpnPrefix {
            rd: word().parse().unwrap(),
            prefix: word().parse().unwrap(),
        };
        if destination.prefix.addr().is_ipv6() {
            family = Family::VPNV6;
        }
        VpnEntry {
            path_id: None,
            label: Label::new(words.next().map_or(0, |label| label.parse().unwrap())),
            destination,
        }
        .encode(false, &mut bytes);
    }
    (family, bytes)
}

fn tell(rib: &mut Rib, peer: &str, change: RouteChange, now: Instant) {
    let (peer, changes) = (peer.into(), vec![change].into());
    rib.handle(RibInput::Routes { peer, changes }, now);
}

/// Announces routes of VPNs with route targets.
pub(super) fn offer(
    rib: &mut Rib,
    peer: &str,
    texts: &[&str],
    targets: &[&str],
    hop: &str,
    now: Instant,
) {
    let targets: BTreeSet<ExtendedCommunity> = targets.iter().map(|t| t.parse().unwrap()).collect();
    let mut attributes = Vec::new();
    PathAttributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::default()),
        local_pref: Some(100),
        extended_communities: targets.into_iter().collect(),
        ..PathAttributes::default()
    }
    .encode(true, &mut attributes);
    let (family, nlri) = entries(texts);
    let change = RouteChange::AnnounceNlri {
        family,
        attributes: attributes.into(),
        next_hop: NextHopAddress {
            address: hop.parse().unwrap(),
            link_local: None,
        },
        add_path: false,
        nlri,
    };
    tell(rib, peer, change, now);
}

pub(super) fn retract(rib: &mut Rib, peer: &str, texts: &[&str], now: Instant) {
    let (family, nlri) = entries(texts);
    let change = RouteChange::WithdrawNlri {
        family,
        add_path: false,
        nlri,
    };
    tell(rib, peer, change, now);
}

fn memberships(targets: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for target in targets {
        match *target {
            "default" => RouteTargetPrefix::DEFAULT,
            text => RouteTargetPrefix::new(Asn(65001), text.parse().unwrap()),
        }
        .encode(&mut bytes);
    }
    bytes
}

/// Says which routes a neighbour wants.
pub(super) fn want(rib: &mut Rib, peer: &str, targets: &[&str], hop: &str, now: Instant) {
    let mut attributes = Vec::new();
    PathAttributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::default()),
        local_pref: Some(100),
        ..PathAttributes::default()
    }
    .encode(true, &mut attributes);
    let change = RouteChange::AnnounceNlri {
        family: Family::ROUTE_TARGET,
        attributes: attributes.into(),
        next_hop: NextHopAddress {
            address: hop.parse().unwrap(),
            link_local: None,
        },
        add_path: false,
        nlri: memberships(targets),
    };
    tell(rib, peer, change, now);
}

pub(super) fn unwant(rib: &mut Rib, peer: &str, targets: &[&str], now: Instant) {
    let change = RouteChange::WithdrawNlri {
        family: Family::ROUTE_TARGET,
        add_path: false,
        nlri: memberships(targets),
    };
    tell(rib, peer, change, now);
}

pub(super) fn said_all(rib: &mut Rib, peer: &str, family: Family, now: Instant) {
    tell(rib, peer, RouteChange::EndOfRib { family }, now);
}

/// What a neighbour has been sent: destinations with next hop, label, originator and route targets;
/// and End-of-RIBs.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) routes: BTreeMap<String, String>,
    pub(super) ends: BTreeSet<Family>,
}

impl Heard {
    pub(super) fn listen(&mut self, rib: &mut Rib, peer: &str) {
        let mut context = SessionContext::plain(bgp_wire::PeerKind::Internal, &PeerConfig::CARRIED);
        for family in &mut context.families {
            family.extended_next_hop = true;
        }
        while let Some(transmit) = rib.poll_transmit(&peer.into()) {
            let mut rest = &transmit.bytes[..];
            while let Some(frame) = bgp_wire::frame::next(rest, 4096).unwrap() {
                let view = UpdateView::split(frame.body).unwrap();
                let mut canonical = Vec::new();
                let update = Update::parse(&view, &context, &mut canonical);
                let decoded = PathAttributes::decode(&canonical, &context);
                assert_eq!(update.faults(&decoded), []);
                self.ends.extend(update.end_of_rib());
                for (_, gone) in update.mp_withdrawn.iter().flat_map(|n| n.destinations()) {
                    self.routes.remove(&gone.to_string());
                }
                if let Some(reach) = update.mp_announced {
                    let mut labels = reach.nlri.vpn().map(|entry| entry.label);
                    for (_, destination) in reach.nlri.destinations() {
                        let mut text = format!("via {}", reach.next_hop);
                        if let Some(label) = labels.next() {
                            text += &format!(" label {label}");
                        }
                        if let Some(id) = decoded.attributes.originator_id {
                            text += &format!(" from {id}");
                        }
                        for target in &decoded.attributes.extended_communities {
                            text += &format!(" {target}");
                        }
                        self.routes.insert(destination.to_string(), text);
                    }
                }
                rest = &rest[frame.len..];
            }
        }
    }

    fn texts(&self) -> Vec<String> {
        let text = |(destination, what): (&String, &String)| format!("{destination} {what}");
        self.routes.iter().map(text).collect()
    }
}

const VPN: [Family; 2] = [Family::VPNV4, Family::VPNV6];
const CONSTRAINED: [Family; 3] = [Family::VPNV4, Family::VPNV6, Family::ROUTE_TARGET];

fn heard(rib: &mut Rib, peer: &str) -> Vec<String> {
    let mut heard = Heard::default();
    heard.listen(rib, peer);
    heard.texts()
}

#[test]
fn routes_of_vpns_are_reflected_with_their_next_hops_and_labels() {
    let now = Instant::now();
    let mut rib = ready(reflector(&["a", "b"]), now);
    up_with(&mut rib, "a", session_with(10, 65001, &VPN), now);
    up_with(&mut rib, "b", session_with(11, 65001, &VPN), now);
    let both = ["65000:1 10.1.0.0/16 100", "65000:2 10.1.0.0/16 200"];
    offer(&mut rib, "a", &both, &["rt:65000:1"], "10.0.0.10", now);
    let sixes = ["65000:1 2001:db8::/32 300"];
    offer(
        &mut rib,
        "a",
        &sixes,
        &["rt:65000:1"],
        "::ffff:10.0.0.10",
        now,
    );
    let mut b = Heard::default();
    b.listen(&mut rib, "b");
    assert_eq!(
        b.texts(),
        [
            "65000:1:10.1.0.0/16 via 10.0.0.10 label 100 from 10.0.0.10 rt:65000:1",
            "65000:1:2001:db8::/32 via ::ffff:10.0.0.10 label 300 from 10.0.0.10 rt:65000:1",
            "65000:2:10.1.0.0/16 via 10.0.0.10 label 200 from 10.0.0.10 rt:65000:1",
        ]
    );
    assert_eq!(b.ends, BTreeSet::from(VPN));
    assert_eq!(heard(&mut rib, "a"), [""; 0], "nobody is sent what he said");
    // The label alone is another one.
    offer(
        &mut rib,
        "a",
        &["65000:1 10.1.0.0/16 101"],
        &["rt:65000:1"],
        "10.0.0.10",
        now,
    );
    assert_eq!(
        heard(&mut rib, "b"),
        ["65000:1:10.1.0.0/16 via 10.0.0.10 label 101 from 10.0.0.10 rt:65000:1"]
    );
    // Said again it is no news.
    offer(
        &mut rib,
        "a",
        &["65000:1 10.1.0.0/16 101"],
        &["rt:65000:1"],
        "10.0.0.10",
        now,
    );
    assert_eq!(heard(&mut rib, "b"), [""; 0]);
    assert_eq!(rib.poll_best(), None, "nothing of it is for the kernel");
    let page = rib.routes(
        &RouteQuery {
            table: RouteTable::Advertised("b".into()),
            family: Family::VPNV4,
            filter: PrefixFilter::Exact("10.1.0.0/16".parse().unwrap()),
            after: None,
            limit: 10,
        },
        now,
    );
    let shown: Vec<_> = page
        .routes
        .iter()
        .map(|r| (r.prefix.to_string(), r.label))
        .collect();
    let route = |text: &str, label| (text.to_owned(), Some(Label::new(label)));
    assert_eq!(
        shown,
        [
            route("65000:1:10.1.0.0/16", 101),
            route("65000:2:10.1.0.0/16", 200)
        ]
    );
    retract(&mut rib, "a", &both, now);
    b.listen(&mut rib, "b");
    assert_eq!(b.routes.len(), 1);
    let down = RibInput::PeerDown {
        peer: "a".into(),
        keep_routes: None,
    };
    rib.handle(down, now);
    b.listen(&mut rib, "b");
    assert_eq!(b.routes.len(), 0);
    let stats = rib.stats();
    assert_eq!(
        (stats.routes, stats.attribute_sets, stats.next_hops),
        (0, 0, 0)
    );
}

#[test]
fn another_as_is_sent_routes_of_vpns_with_unchanged_next_hops_only() {
    let now = Instant::now();
    let mut config = reflector(&["a", "b"]);
    let mut rib = ready(config.clone(), now);
    up_with(&mut rib, "a", session_with(10, 65001, &VPN), now);
    up_with(&mut rib, "b", session_with(11, 65002, &VPN), now);
    offer(
        &mut rib,
        "a",
        &["65000:1 10.1.0.0/16 100"],
        &["rt:65000:1"],
        "10.0.0.10",
        now,
    );
    assert_eq!(heard(&mut rib, "b"), [""; 0]);
    let counts = |rib: &Rib| rib.counts(&"b".into())[&Family::VPNV4].advertised;
    assert_eq!(counts(&rib), 0);
    let peers = config.peers().clone();
    config = reflector(&[]);
    for (name, peer) in peers {
        let mut families = peer.families().clone();
        for family in families.values_mut() {
            family.next_hop_mode = NextHopMode::Unchanged;
        }
        config
            .add_peer(name, peer.with_families(families).unwrap())
            .unwrap();
    }
    rib.handle(RibInput::Configure(Box::new(config)), now);
    assert_eq!(
        heard(&mut rib, "b"),
        ["65000:1:10.1.0.0/16 via 10.0.0.10 label 100 rt:65000:1"]
    );
    assert_eq!(counts(&rib), 1);
}

#[test]
fn a_neighbour_with_route_target_membership_is_sent_what_it_asks_for() {
    let now = Instant::now();
    let mut rib = ready(reflector(&["a", "b", "c"]), now);
    up_with(&mut rib, "a", session_with(10, 65001, &VPN), now);
    let offers = ["65000:1 10.1.0.0/16 100", "65000:1 10.2.0.0/16 100"];
    offer(
        &mut rib,
        "a",
        &offers[..1],
        &["rt:65000:1"],
        "10.0.0.10",
        now,
    );
    offer(
        &mut rib,
        "a",
        &offers[1..],
        &["rt:65000:2"],
        "10.0.0.10",
        now,
    );
    up_with(&mut rib, "b", session_with(11, 65001, &CONSTRAINED), now);
    up_with(&mut rib, "c", session_with(12, 65001, &CONSTRAINED), now);
    let (mut b, mut c) = (Heard::default(), Heard::default());
    b.listen(&mut rib, "b");
    c.listen(&mut rib, "c");
    // What this reflector wants itself, and nothing else yet.
    assert_eq!(b.texts(), ["default via 10.0.0.1"]);
    assert_eq!(b.ends, BTreeSet::from([Family::ROUTE_TARGET]));

    want(&mut rib, "b", &["rt:65000:1"], "10.0.0.11", now);
    b.listen(&mut rib, "b");
    assert_eq!(b.ends.len(), 1, "it may not have said all");
    said_all(&mut rib, "b", Family::ROUTE_TARGET, now);
    b.listen(&mut rib, "b");
    assert_eq!(b.ends, BTreeSet::from(CONSTRAINED));
    assert_eq!(
        b.texts()[..2],
        [
            "65000:1:10.1.0.0/16 via 10.0.0.10 label 100 from 10.0.0.10 rt:65000:1",
            // Told back, so that it knows when others want the same (RFC 4684 §3.2 i).
            "65001:rt:65000:1 via 10.0.0.1 from 10.0.0.1",
        ]
    );
    c.listen(&mut rib, "c");
    assert_eq!(c.texts()[0], "65001:rt:65000:1 via 10.0.0.1 from 10.0.0.1");

    // Another wish changes what changes, without anything sent again.
    want(&mut rib, "b", &["rt:65000:2"], "10.0.0.11", now);
    let news = heard(&mut rib, "b");
    assert_eq!(
        news,
        [
            "65000:1:10.2.0.0/16 via 10.0.0.10 label 100 from 10.0.0.10 rt:65000:2",
            "65001:rt:65000:2 via 10.0.0.1 from 10.0.0.1",
        ]
    );
    unwant(&mut rib, "b", &["rt:65000:1"], now);
    b.listen(&mut rib, "b");
    assert!(
        !b.routes.contains_key("65000:1:10.1.0.0/16"),
        "{:?}",
        b.routes
    );
    assert_eq!(rib.counts(&"b".into())[&Family::VPNV4].advertised, 1);

    // Who never says that it has said all is not waited for forever.
    let (at, what) = rib.poll_timeout().unwrap();
    assert_eq!(what, "route target membership");
    want(&mut rib, "c", &["default"], "10.0.0.12", now);
    assert!(
        !heard(&mut rib, "c")
            .iter()
            .any(|text| text.contains("label"))
    );
    rib.handle(RibInput::Timeout, at);
    c.listen(&mut rib, "c");
    assert_eq!(c.routes.len(), 2 + 2, "{:?}", c.routes);
    assert_eq!(c.ends, BTreeSet::from(CONSTRAINED));
    assert_eq!(rib.poll_timeout(), None);
}

#[test]
fn who_marks_no_end_is_not_waited_for() {
    let now = Instant::now();
    let mut rib = ready(reflector(&["a", "b"]), now);
    up_with(&mut rib, "a", session_with(10, 65001, &VPN), now);
    offer(
        &mut rib,
        "a",
        &["65000:1 10.1.0.0/16 100"],
        &["rt:65000:1"],
        "10.0.0.10",
        now,
    );
    let mut session = session_with(11, 65001, &CONSTRAINED);
    session.families.iter_mut().for_each(|f| f.graceful = false);
    up_with(&mut rib, "b", session, now);
    let mut b = Heard::default();
    b.listen(&mut rib, "b");
    assert_eq!(b.ends, BTreeSet::from(CONSTRAINED));
    assert_eq!(b.texts(), ["default via 10.0.0.1"]);
    want(&mut rib, "b", &["rt:65000:1"], "10.0.0.11", now);
    b.listen(&mut rib, "b");
    assert!(b.routes.contains_key("65000:1:10.1.0.0/16"));
}

#[test]
fn what_this_speaker_asks_for_is_configured_and_changes_live() {
    let now = Instant::now();
    let mut config = reflector(&["a"]);
    let mut rib = ready(config.clone(), now);
    up_with(&mut rib, "a", session_with(10, 65001, &CONSTRAINED), now);
    let mut a = Heard::default();
    a.listen(&mut rib, "a");
    assert_eq!(a.texts(), ["default via 10.0.0.1"]);
    config.ask_for("rt:65000:1").unwrap();
    config.ask_for("rt:65000:2").unwrap();
    rib.handle(RibInput::Configure(Box::new(config.clone())), now);
    a.listen(&mut rib, "a");
    assert_eq!(
        a.texts(),
        [
            "65001:rt:65000:1 via 10.0.0.1",
            "65001:rt:65000:2 via 10.0.0.1"
        ]
    );
    config.route_targets = Some(BTreeSet::new());
    rib.handle(RibInput::Configure(Box::new(config.clone())), now);
    a.listen(&mut rib, "a");
    assert_eq!(a.texts(), [""; 0]);
    assert!(config.ask_for("soo:65000:2").is_err());
}

#[test]
fn a_membership_of_a_client_is_what_other_reflectors_are_told_of() {
    let now = Instant::now();
    let mut config = reflector(&["client"]);
    let mut other = reflector(&["other", "a", "b"]);
    for name in ["a", "b"] {
        let mut peer = other.peers()[&PeerName::from(name)].clone();
        peer.route_reflector_client = false;
        config.add_peer(name.into(), peer).unwrap();
    }
    other.route_targets = None;
    config.route_targets = Some(BTreeSet::new());
    let mut rib = ready(config, now);
    // The best one, by the lower identifier, is of one that is no client.
    for (name, number) in [("client", 13), ("a", 11), ("b", 12)] {
        up_with(
            &mut rib,
            name,
            session_with(number, 65001, &CONSTRAINED),
            now,
        );
    }
    want(&mut rib, "a", &["rt:65000:1"], "10.0.0.11", now);
    assert_eq!(heard(&mut rib, "b"), [""; 0], "not reflected between them");
    want(&mut rib, "client", &["rt:65000:1"], "10.0.0.13", now);
    let from_client = ["65001:rt:65000:1 via 10.0.0.13 from 10.0.0.13"];
    assert_eq!(heard(&mut rib, "b"), from_client);
    assert_eq!(heard(&mut rib, "a"), from_client);
    unwant(&mut rib, "client", &["rt:65000:1"], now);
    let mut a = Heard::default();
    a.routes.insert("65001:rt:65000:1".into(), String::new());
    a.listen(&mut rib, "a");
    assert_eq!(a.routes.len(), 0);
}

#[test]
fn destinations_of_every_kind_are_found_by_what_they_are_shown_as() {
    let now = Instant::now();
    let mut rib = Rib::new(reflector(&["a"]), now);
    up_with(&mut rib, "a", session_with(10, 65001, &CONSTRAINED), now);
    want(&mut rib, "a", &["rt:65000:7"], "10.0.0.10", now);
    let query = RouteQuery {
        table: RouteTable::Received("a".into()),
        family: Family::ROUTE_TARGET,
        filter: PrefixFilter::All,
        after: None,
        limit: 2,
    };
    let page = rib.routes(&query, now);
    let target = RouteTargetPrefix::new(Asn(65001), "rt:65000:7".parse().unwrap());
    assert_eq!(page.routes[0].prefix, Destination::RouteTarget(target));
    assert_eq!(page.next, None);
}
