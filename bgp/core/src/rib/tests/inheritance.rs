// SPDX-License-Identifier: Apache-2.0
//! A RIB that goes on with the sessions of the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;

use bgp_wire::SessionContext;
use bgp_wire::update::{Update, UpdateView};

use super::vpn::{offer, reflector, retract, said_all, session_with, up_with, want};
use super::*;
use crate::deliveries::SELECTION_DEFERRAL;

/// What a neighbour has: destination and path identifier, where there are any.
#[derive(Default, Clone, PartialEq, Eq, Debug)]
struct Held {
    routes: BTreeSet<(String, Option<u32>)>,
    /// Every withdrawal of something it had.
    gone: Vec<(String, Option<u32>)>,
}

impl Held {
    fn listen(&mut self, rib: &mut Rib, peer: &str, add_path: bool) {
        let mut context = SessionContext::plain(bgp_wire::PeerKind::Internal, &PeerConfig::CARRIED);
        for family in &mut context.families {
            family.add_path_receive = add_path;
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
                let withdrawn = update.mp_withdrawn.iter().flat_map(|n| n.destinations());
                for (path_id, gone) in withdrawn {
                    let gone = (gone.to_string(), path_id);
                    if self.routes.remove(&gone) {
                        self.gone.push(gone);
                    }
                }
                let reach = update.mp_announced.iter();
                for (path_id, route) in reach.flat_map(|reach| reach.nlri.destinations()) {
                    self.routes.insert((route.to_string(), path_id));
                }
                rest = &rest[frame.len..];
            }
        }
    }

    /// The routes of VPNs.
    fn texts(&self) -> Vec<String> {
        let all = self.routes.iter().map(|(route, _)| route.clone());
        let all = all.filter(|route| route.contains('/'));
        all.collect::<BTreeSet<String>>().into_iter().collect()
    }
}

const FAMILIES: [Family; 2] = [Family::VPNV4, Family::ROUTE_TARGET];

/// A reflector with neighbours that take two routes of VPNs for a destination.
fn several(names: &[&str]) -> InstanceConfig {
    let mut config = reflector(names);
    let mut changed = InstanceConfig::new("i".into(), Asn(65001), config.router_id()).unwrap();
    changed.transit = Transit::Allowed;
    for (name, peer) in config.peers() {
        let mut families = peer.families().clone();
        for family in families.values_mut() {
            family.add_path.send = NonZeroU8::new(2);
        }
        let peer = peer.clone().with_families(families).unwrap();
        changed.add_peer(name.clone(), peer).unwrap();
    }
    std::mem::swap(&mut config, &mut changed);
    config
}

fn with_path_ids(mut session: Box<SessionInfo>) -> Box<SessionInfo> {
    for family in &mut session.families {
        family.add_path_send = family.family == Family::VPNV4;
    }
    session
}

/// The RIB of the next process: neighbours with sessions go on with them.
fn succeed(
    rib: &Rib,
    config: InstanceConfig,
    sessions: &[(&str, Box<SessionInfo>)],
    now: Instant,
) -> Rib {
    let left: BTreeMap<PeerName, Inheritance> = sessions
        .iter()
        .map(|(name, _)| {
            let name = PeerName::from(*name);
            let left = rib.inheritance(&name).expect("it is up");
            let text = serde_json::to_string(&left).unwrap();
            (name, serde_json::from_str(&text).unwrap())
        })
        .collect();
    let mut next = Rib::new(config, now);
    let numbers = left.iter().map(|(name, left)| (name.clone(), left.number));
    next.handle(RibInput::Numbers(numbers.collect()), now);
    next.handle(local(&[]), now);
    for (name, session) in sessions {
        up_with(&mut next, name, session.clone(), now);
        let peer = PeerName::from(*name);
        let left = Box::new(left[&peer].clone());
        next.handle(RibInput::Inherit { peer, left }, now);
    }
    next
}

fn later(rib: &mut Rib, now: Instant) {
    assert!(rib.poll_timeout().is_some_and(|(at, _)| at <= now));
    rib.handle(RibInput::Timeout, now);
}

#[test]
fn path_identifiers_stay_and_what_vanished_meanwhile_is_withdrawn_by_them() {
    let now = Instant::now();
    // The numbers follow who came first: "z" was there before "b".
    let mut rib = Rib::new(several(&["a", "z"]), now);
    let config = several(&["a", "b", "c", "z"]);
    rib.handle(RibInput::Configure(Box::new(config.clone())), now);
    rib.handle(local(&[]), now);
    let session = |number| with_path_ids(session_with(number, 65001, &[Family::VPNV4]));
    let sessions = [("a", 10), ("b", 11), ("c", 12), ("z", 13)].map(|(n, i)| (n, session(i)));
    for (name, session) in &sessions {
        up_with(&mut rib, name, session.clone(), now);
    }
    let both = ["65000:1 10.1.0.0/16 100", "65000:1 10.2.0.0/16 100"];
    for (name, hop) in [("z", "10.0.0.13"), ("b", "10.0.0.11")] {
        offer(&mut rib, name, &both, &["rt:65000:1"], hop, now);
    }
    let mut held = Held::default();
    held.listen(&mut rib, "c", true);
    assert_eq!(held.routes.len(), 4, "{held:?}");
    let before = held.clone();

    let mut rib = succeed(&rib, config, &sessions, now);
    offer(&mut rib, "z", &both, &["rt:65000:1"], "10.0.0.13", now);
    offer(&mut rib, "b", &both[..1], &["rt:65000:1"], "10.0.0.11", now);
    held.listen(&mut rib, "c", true);
    assert_eq!(
        held, before,
        "the same identifiers, and nothing is gone yet"
    );
    later(&mut rib, now + SELECTION_DEFERRAL);
    held.listen(&mut rib, "c", true);
    let [(gone, path_id)] = &held.gone[..] else {
        panic!("one is gone: {held:?}");
    };
    assert_eq!(gone, "65000:1:10.2.0.0/16");
    assert!(path_id.is_some());
    assert_eq!(held.routes.len(), 3);
    assert_eq!(rib.poll_timeout(), None, "all is settled");
}

#[test]
fn a_neighbour_goes_on_being_sent_what_it_asked_for() {
    let now = Instant::now();
    let config = reflector(&["a", "b"]);
    let mut rib = Rib::new(config.clone(), now);
    rib.handle(local(&[]), now);
    let session = |number| session_with(number, 65001, &FAMILIES);
    let sessions = [("a", session(10)), ("b", session(11))];
    for (name, session) in &sessions {
        up_with(&mut rib, name, session.clone(), now);
    }
    want(&mut rib, "b", &["rt:65000:1"], "10.0.0.11", now);
    said_all(&mut rib, "b", Family::ROUTE_TARGET, now);
    let red = ["65000:1 10.1.0.0/16 100", "65000:1 10.2.0.0/16 100"];
    offer(&mut rib, "a", &red, &["rt:65000:1"], "10.0.0.10", now);
    let mut held = Held::default();
    held.listen(&mut rib, "b", false);
    let vpn = ["65000:1:10.1.0.0/16", "65000:1:10.2.0.0/16"];
    assert!(
        vpn.iter()
            .all(|route| held.texts().contains(&(*route).to_owned())),
        "{held:?}"
    );

    // It does not say again what it wants.
    let mut rib = succeed(&rib, config.clone(), &sessions, now);
    offer(&mut rib, "a", &red[..1], &["rt:65000:1"], "10.0.0.10", now);
    offer(
        &mut rib,
        "a",
        &["65000:1 10.3.0.0/16 7"],
        &["rt:65000:2"],
        "10.0.0.10",
        now,
    );
    let mut next = Held::default();
    next.listen(&mut rib, "b", false);
    assert_eq!(
        next.texts().last().map(String::as_str),
        Some(vpn[0]),
        "not asked for: 10.3"
    );
    held.listen(&mut rib, "b", false);
    later(&mut rib, now + SELECTION_DEFERRAL);
    held.listen(&mut rib, "b", false);
    held.gone.retain(|(route, _)| route.contains('/'));
    assert_eq!(held.gone, [(vpn[1].to_owned(), None)]);
    offer(
        &mut rib,
        "a",
        &["65000:1 10.4.0.0/16 7"],
        &["rt:65000:1"],
        "10.0.0.10",
        now,
    );
    held.listen(&mut rib, "b", false);
    assert_eq!(held.texts().last().unwrap(), "65000:1:10.4.0.0/16");

    // Once it does, that counts alone.
    let mut rib = succeed(&rib, config, &sessions, now);
    offer(
        &mut rib,
        "a",
        &["65000:1 10.4.0.0/16 7"],
        &["rt:65000:1"],
        "10.0.0.10",
        now,
    );
    want(&mut rib, "b", &["rt:65000:2"], "10.0.0.11", now);
    offer(
        &mut rib,
        "a",
        &["65000:1 10.3.0.0/16 7"],
        &["rt:65000:2"],
        "10.0.0.10",
        now,
    );
    held.listen(&mut rib, "b", false);
    let routes = held.texts().join(", ");
    assert!(
        routes.contains("10.3") && routes.contains("10.4"),
        "{routes}"
    );
    later(&mut rib, now + SELECTION_DEFERRAL);
    held.listen(&mut rib, "b", false);
    let routes = held.texts().join(", ");
    assert!(
        routes.contains("10.3") && !routes.contains("10.4"),
        "{routes}"
    );
}

#[test]
fn what_one_process_did_not_settle_the_next_one_does() {
    let now = Instant::now();
    let config = reflector(&["a", "b"]);
    let mut rib = Rib::new(config.clone(), now);
    rib.handle(local(&[]), now);
    let session = |number| session_with(number, 65001, &[Family::VPNV4]);
    let sessions = [("a", session(10)), ("b", session(11))];
    for (name, session) in &sessions {
        up_with(&mut rib, name, session.clone(), now);
    }
    let routes = ["65000:1 10.1.0.0/16 100", "65000:1 10.2.0.0/16 100"];
    offer(&mut rib, "a", &routes, &["rt:65000:1"], "10.0.0.10", now);
    let mut held = Held::default();
    held.listen(&mut rib, "b", false);
    for _ in 0..3 {
        rib = succeed(&rib, config.clone(), &sessions, now);
        offer(
            &mut rib,
            "a",
            &routes[..1],
            &["rt:65000:1"],
            "10.0.0.10",
            now,
        );
        held.listen(&mut rib, "b", false);
    }
    // Named once, however many processes there were.
    let left = rib.inheritance(&"b".into()).unwrap();
    assert_eq!(
        left.announced.iter().map(Announced::count).sum::<usize>(),
        2
    );
    assert_eq!(held.routes.len(), 2);
    later(&mut rib, now + SELECTION_DEFERRAL);
    held.listen(&mut rib, "b", false);
    assert_eq!(held.gone, [("65000:1:10.2.0.0/16".to_owned(), None)]);
    retract(&mut rib, "a", &routes[..1], now);
    held.listen(&mut rib, "b", false);
    assert!(held.routes.is_empty());
}

#[test]
fn a_session_that_ends_takes_what_was_left_with_it() {
    let now = Instant::now();
    let config = reflector(&["a", "b"]);
    let mut rib = Rib::new(config.clone(), now);
    rib.handle(local(&[]), now);
    let session = |number| session_with(number, 65001, &[Family::VPNV4]);
    let sessions = [("a", session(10)), ("b", session(11))];
    for (name, session) in &sessions {
        up_with(&mut rib, name, session.clone(), now);
    }
    offer(
        &mut rib,
        "a",
        &["65000:1 10.1.0.0/16 100"],
        &["rt:65000:1"],
        "10.0.0.10",
        now,
    );
    let mut rib = succeed(&rib, config, &sessions, now);
    for name in ["a", "b"] {
        let peer = name.into();
        rib.handle(
            RibInput::PeerDown {
                peer,
                keep_routes: None,
            },
            now,
        );
    }
    assert_eq!(rib.poll_timeout(), None);
    assert_eq!(rib.inheritance(&"b".into()), None);
    up_with(&mut rib, "b", session(11), now);
    let mut held = Held::default();
    held.listen(&mut rib, "b", false);
    assert_eq!(held, Held::default());
}
