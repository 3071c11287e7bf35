// SPDX-License-Identifier: Apache-2.0
//! The tables against a slow model: whatever neighbours say, in whatever order, and however slowly
//! some of them read, what each of them was sent in the end is what RFC 4271 has it sent.

use std::collections::{BTreeMap, BTreeSet};

use bgp_wire::update::{Update, UpdateView};
use proptest::prelude::*;

use super::play::{nothing_is_left, play};
use super::*;

const PEERS: [(&str, u8, u32); 5] = [
    ("external a", 10, 65010),
    ("external b", 11, 65011),
    ("external c", 12, 65010),
    ("internal", 13, 65001),
    ("client", 14, 65001),
];

const PREFIXES: usize = 6;

/// Around the first four of them.
const AGGREGATE: &str = "10.0.0.0/14";
const WITHIN: std::ops::Range<usize> = 0..4;

#[derive(Clone, Debug)]
enum Step {
    Announce(usize, BTreeSet<usize>, Announced),
    Withdraw(usize, BTreeSet<usize>),
    Up(usize),
    Down(usize),
    /// Whether the next hop of a neighbour can be reached.
    NextHop(usize, bool),
    /// The prefixes that are the node's own.
    Local(BTreeSet<usize>),
    /// Messages taken by a neighbour.
    Read(usize, usize),
    Resend(usize),
    /// Whether nothing is announced.
    Drain(bool),
    /// A neighbour sends again these prefixes of what it said, and no others.
    Refresh(usize, BTreeSet<usize>),
    /// Whether there is an aggregate, and whether it stands for what is within.
    Aggregate(Option<bool>),
    /// Whether the client is one.
    Client(bool),
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Announced {
    path: Vec<u32>,
    med: Option<u32>,
    local_pref: u32,
    no_export: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let peer = || 0..PEERS.len();
    let prefixes = || prop::collection::btree_set(0..PREFIXES, 1..4);
    let announced = (
        prop::collection::vec(
            prop::sample::select(vec![65010u32, 65011, 65020, 65001]),
            0..3,
        ),
        prop::option::of(0u32..3),
        prop::sample::select(vec![90u32, 100, 100, 110]),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(path, med, local_pref, no_export)| Announced {
            path,
            med,
            local_pref,
            no_export,
        });
    prop_oneof![
        8 => (peer(), prefixes(), announced).prop_map(|(p, n, a)| Step::Announce(p, n, a)),
        3 => (peer(), prefixes()).prop_map(|(p, n)| Step::Withdraw(p, n)),
        2 => peer().prop_map(Step::Up),
        1 => peer().prop_map(Step::Down),
        1 => (peer(), any::<bool>()).prop_map(|(p, up)| Step::NextHop(p, up)),
        1 => prop::collection::btree_set(0..PREFIXES, 0..3).prop_map(Step::Local),
        4 => (peer(), 1usize..4).prop_map(|(p, n)| Step::Read(p, n)),
        1 => peer().prop_map(Step::Resend),
        1 => any::<bool>().prop_map(Step::Drain),
        1 => (peer(), prop::collection::btree_set(0..PREFIXES, 0..PREFIXES))
            .prop_map(|(p, n)| Step::Refresh(p, n)),
        1 => any::<Option<bool>>().prop_map(Step::Aggregate),
        1 => any::<bool>().prop_map(Step::Client),
    ]
}

/// What a neighbour was sent, in words; `None` for a prefix withdrawn.
type Seen = BTreeMap<(IpNet, Option<u32>), String>;

struct World {
    rib: Rib,
    now: Instant,
    up: BTreeSet<usize>,
    said: BTreeMap<(usize, usize), Announced>,
    reachable: BTreeSet<usize>,
    locals: BTreeSet<usize>,
    seen: BTreeMap<usize, Seen>,
    add_path: bool,
    drained: bool,
    /// How many destinations each neighbour is sent at most.
    limit: Option<usize>,
    config: InstanceConfig,
    aggregate: Option<bool>,
    client: bool,
}

impl World {
    fn new(add_path: bool, limit: Option<u32>) -> World {
        let now = Instant::now();
        let names: Vec<&str> = PEERS.iter().map(|(name, _, _)| *name).collect();
        let plain = all(&names);
        let mut config = InstanceConfig::new("i".into(), Asn(65001), plain.router_id()).unwrap();
        config.transit = Transit::Allowed;
        for (name, peer) in plain.peers() {
            let mut peer = peer.clone();
            peer.route_reflector_client = &*name.0 == "client";
            peer.enforce_first_as = false;
            let mut families = peer.families().clone();
            for family in families.values_mut() {
                family.next_hop_mode = crate::config::NextHopMode::ToSelf;
                family.limit_out = limit.and_then(std::num::NonZeroU32::new);
                family.add_path.send = add_path.then_some(std::num::NonZeroU8::new(2).unwrap());
            }
            config
                .add_peer(name.clone(), peer.with_families(families).unwrap())
                .unwrap();
        }
        let rib = ready(config.clone(), now);
        World {
            rib,
            now,
            up: BTreeSet::new(),
            said: BTreeMap::new(),
            reachable: (0..PEERS.len()).collect(),
            locals: BTreeSet::new(),
            seen: BTreeMap::new(),
            add_path,
            drained: false,
            limit: limit.map(|limit| limit as usize),
            config,
            aggregate: None,
            client: true,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Announce(peer, prefixes, announced) => {
                if self.up.contains(&peer) {
                    let (name, number, asn) = PEERS[peer];
                    let mut path = announced.path.clone();
                    let internal = asn == 65001;
                    if !internal {
                        path.insert(0, asn);
                    }
                    let attributes = PathAttributes {
                        origin: Some(Origin::Igp),
                        as_path: Some(AsPath::from_sequence(path.iter().copied().map(Asn))),
                        med: announced.med,
                        local_pref: internal.then_some(announced.local_pref),
                        communities: Vec::from_iter(
                            announced
                                .no_export
                                .then_some(bgp_wire::Community(0xffff_ff01)),
                        ),
                        ..PathAttributes::default()
                    };
                    let texts: Vec<String> = prefixes.iter().map(|n| prefix(*n)).collect();
                    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                    let hop = format!("10.0.0.{number}");
                    announce_with(&mut self.rib, name, &texts, &attributes, &hop, self.now);
                    for n in prefixes {
                        self.said.insert((peer, n), announced.clone());
                    }
                }
            }
            Step::Withdraw(peer, prefixes) => {
                for n in prefixes {
                    withdraw(&mut self.rib, PEERS[peer].0, &prefix(n), self.now);
                    self.said.remove(&(peer, n));
                }
            }
            Step::Up(peer) => {
                let (name, number, asn) = PEERS[peer];
                self.said
                    .retain(|(other, _), _| *other != peer || self.up.contains(&peer));
                if self.up.insert(peer) {
                    let mut info = session(number, asn);
                    info.families
                        .iter_mut()
                        .for_each(|f| f.add_path_send = self.add_path);
                    let up = RibInput::PeerUp {
                        peer: name.into(),
                        session: info,
                    };
                    self.rib.handle(up, self.now);
                    self.seen.insert(peer, Seen::new());
                }
            }
            Step::Down(peer) => {
                self.up.remove(&peer);
                self.said.retain(|(other, _), _| *other != peer);
                self.seen.remove(&peer);
                let down = RibInput::PeerDown {
                    peer: PEERS[peer].0.into(),
                    keep_routes: None,
                };
                self.rib.handle(down, self.now);
            }
            Step::NextHop(peer, reachable) => {
                if reachable {
                    self.reachable.insert(peer);
                } else {
                    self.reachable.remove(&peer);
                }
                let state = NextHopState {
                    address: Ipv4Addr::new(10, 0, 0, PEERS[peer].1).into(),
                    metric: reachable.then_some(0),
                };
                self.rib.handle(RibInput::NextHops(vec![state]), self.now);
            }
            Step::Local(prefixes) => {
                let mut routes = LocalRoutes::default();
                for n in &prefixes {
                    for (name, _, _) in PEERS {
                        let told = ExportAttributes::default();
                        routes.add(prefix(*n).parse().unwrap(), name.into(), told);
                    }
                }
                self.rib.handle(RibInput::LocalRoutes(routes), self.now);
                self.locals = prefixes;
            }
            Step::Read(peer, messages) => self.read(peer, messages),
            Step::Drain(drained) => {
                self.config.drained = drained;
                let configure = RibInput::Configure(Box::new(self.config.clone()));
                self.rib.handle(configure, self.now);
                self.drained = drained;
            }
            Step::Resend(peer) => {
                let resend = RibInput::Resend {
                    peer: PEERS[peer].0.into(),
                    family: Family::IPV4_UNICAST,
                };
                self.rib.handle(resend, self.now);
            }
            Step::Refresh(peer, prefixes) => {
                let (name, family) = (PEERS[peer].0, Family::IPV4_UNICAST);
                let marked = |begins: bool| {
                    let peer = name.into();
                    if begins {
                        RibInput::RefreshBegins { peer, family }
                    } else {
                        RibInput::RefreshEnds { peer, family }
                    }
                };
                if self.up.contains(&peer) {
                    self.rib.handle(marked(true), self.now);
                    for n in prefixes.clone() {
                        if let Some(said) = self.said.get(&(peer, n)).cloned() {
                            self.take(Step::Announce(peer, [n].into(), said));
                        }
                    }
                    self.rib.handle(marked(false), self.now);
                    self.said
                        .retain(|(other, n), _| *other != peer || prefixes.contains(n));
                }
            }
            Step::Client(is_client) => {
                self.client = is_client;
                let old = self.config.clone();
                let id = old.router_id();
                self.config = InstanceConfig::new("i".into(), Asn(65001), id).unwrap();
                self.config.transit = Transit::Allowed;
                self.config.aggregates = old.aggregates.clone();
                self.config.drained = old.drained;
                for (name, peer) in old.peers() {
                    let mut peer = peer.clone();
                    peer.route_reflector_client = &*name.0 == "client" && is_client;
                    self.config.add_peer(name.clone(), peer).unwrap();
                }
                let config = Box::new(self.config.clone());
                self.rib.handle(RibInput::Configure(config), self.now);
            }
            Step::Aggregate(aggregate) => {
                self.aggregate = aggregate;
                let one = aggregate.map(|summary_only| crate::config::Aggregate {
                    prefix: AGGREGATE.parse().unwrap(),
                    summary_only,
                });
                self.config.aggregates = Vec::from_iter(one);
                let config = Box::new(self.config.clone());
                self.rib.handle(RibInput::Configure(config), self.now);
            }
        }
    }

    fn read(&mut self, peer: usize, transmits: usize) {
        let mut context =
            bgp_wire::SessionContext::plain(bgp_wire::PeerKind::Internal, &[Family::IPV4_UNICAST]);
        context.families[0].add_path_receive = self.add_path;
        for _ in 0..transmits {
            let Some(transmit) = self.rib.poll_transmit(&PEERS[peer].0.into()) else {
                return;
            };
            let seen = self
                .seen
                .get_mut(&peer)
                .expect("only who is up is sent anything");
            let mut rest = &transmit.bytes[..];
            while let Some(frame) = bgp_wire::frame::next(rest, 4096).unwrap() {
                let view = UpdateView::split(frame.body).unwrap();
                let mut canonical = Vec::new();
                let update = Update::parse(&view, &context, &mut canonical);
                let decoded = PathAttributes::decode(&canonical, &context);
                for entry in update.withdrawn.iter() {
                    seen.remove(&(entry.prefix, entry.path_id));
                }
                for entry in update.announced.iter() {
                    let what = describe(&decoded.attributes);
                    seen.insert((entry.prefix, entry.path_id), what);
                }
                rest = &rest[frame.len..];
            }
        }
    }

    /// The routes for a prefix that may be used, the best one first, by elimination among all.
    fn ranked(&self, n: usize) -> Vec<usize> {
        let mut left: Vec<usize> = (0..PEERS.len())
            .filter(|peer| self.reachable.contains(peer))
            .filter(|peer| {
                let said = self.said.get(&(*peer, n));
                said.is_some_and(|said| !said.path.contains(&65001))
            })
            .collect();
        let mut ranked = Vec::new();
        while !left.is_empty() {
            let best = self.best(&left, n);
            left.retain(|peer| *peer != best);
            ranked.push(best);
        }
        ranked
    }

    fn best(&self, among: &[usize], n: usize) -> usize {
        let said = |peer: usize| &self.said[&(peer, n)];
        let internal = |peer: usize| PEERS[peer].2 == 65001;
        let pref = |peer| {
            if internal(peer) {
                said(peer).local_pref
            } else {
                100
            }
        };
        let len = |peer| said(peer).path.len() + usize::from(!internal(peer));
        let first = |peer: usize| {
            let own = (!internal(peer)).then_some(PEERS[peer].2);
            own.or(said(peer).path.first().copied()).unwrap_or(0)
        };
        let med = |peer: usize| said(peer).med.unwrap_or(0);
        let mut left = among.to_vec();
        let most = left.iter().map(|&p| pref(p)).max().unwrap();
        left.retain(|&p| pref(p) == most);
        let least = left.iter().map(|&p| len(p)).min().unwrap();
        left.retain(|&p| len(p) == least);
        let before = left.clone();
        left.retain(|&p| {
            !before
                .iter()
                .any(|&o| first(o) == first(p) && med(o) < med(p))
        });
        if left.iter().any(|&p| !internal(p)) {
            left.retain(|&p| !internal(p));
        }
        *left.iter().min_by_key(|&&p| PEERS[p].1).unwrap()
    }

    /// What a neighbour has to have been sent.
    fn expected(&self, to: usize) -> BTreeMap<IpNet, Vec<String>> {
        let mut all = BTreeMap::new();
        let (_, _, to_asn) = PEERS[to];
        let aggregated = self.aggregated(to_asn == 65001).filter(|_| !self.drained);
        if let Some(text) = aggregated {
            all.insert(AGGREGATE.parse().unwrap(), vec![text]);
        }
        for n in (0..PREFIXES).filter(|_| !self.drained) {
            let mut routes = Vec::new();
            if self.aggregate == Some(true) && WITHIN.contains(&n) {
                continue;
            }
            if self.locals.contains(&n) {
                routes.push(if to_asn == 65001 {
                    "lp 100 path ".to_owned()
                } else {
                    "path 65001".to_owned()
                });
            } else {
                let most = if self.add_path { 2 } else { 1 };
                let goes = |from: &usize| self.goes(*from, to, n);
                let ranked = self.ranked(n);
                let chosen: Vec<usize> = if self.add_path {
                    ranked.into_iter().filter(goes).take(most).collect()
                } else {
                    ranked.into_iter().take(1).filter(goes).collect()
                };
                let others = chosen.into_iter().filter(|from| *from != to);
                routes.extend(others.map(|from| self.sent(from, to, n)));
            }
            if !routes.is_empty() {
                routes.sort();
                all.insert(prefix(n).parse().unwrap(), routes);
            }
        }
        all
    }

    /// How the aggregate reads, if there is one: with NO_EXPORT where all within it have that.
    fn aggregated(&self, internal: bool) -> Option<String> {
        self.aggregate?;
        let no_export: Vec<bool> = WITHIN
            .filter_map(|n| {
                let best = self.ranked(n).first().copied();
                let learned = best.map(|peer| self.said[&(peer, n)].no_export);
                self.locals.contains(&n).then_some(false).or(learned)
            })
            .collect();
        let all = !no_export.contains(&false);
        match (no_export.is_empty(), all, internal) {
            (true, _, _) | (_, true, false) => None,
            (_, true, true) => Some("lp 100 no-export path ".to_owned()),
            (_, false, true) => Some("lp 100 path ".to_owned()),
            (_, false, false) => Some("path 65001".to_owned()),
        }
    }

    fn goes(&self, from: usize, to: usize, n: usize) -> bool {
        let internal = |peer: usize| PEERS[peer].2 == 65001;
        let client = |peer: usize| self.client && PEERS[peer].0 == "client";
        let said = &self.said[&(from, n)];
        if internal(to) {
            !internal(from) || client(from) || client(to)
        } else {
            !said.no_export
        }
    }

    fn sent(&self, from: usize, to: usize, n: usize) -> String {
        let internal = |peer: usize| PEERS[peer].2 == 65001;
        let said = &self.said[&(from, n)];
        let mut path = said.path.clone();
        if !internal(from) {
            path.insert(0, PEERS[from].2);
        }
        let mut text = String::new();
        if internal(to) {
            let pref = if internal(from) { said.local_pref } else { 100 };
            text += &format!("lp {pref} ");
            if let Some(med) = said.med {
                text += &format!("med {med} ");
            }
            if internal(from) {
                text += &format!("from 10.0.0.{} by 10.0.0.1 ", PEERS[from].1);
            }
            if said.no_export {
                text += "no-export ";
            }
        } else {
            path.insert(0, 65001);
        }
        let path: Vec<String> = path.iter().map(u32::to_string).collect();
        text + "path " + &path.join(" ")
    }

    fn settle_and_compare(&mut self) {
        for peer in self.up.clone() {
            self.read(peer, usize::MAX);
            let mut seen: BTreeMap<IpNet, Vec<String>> = BTreeMap::new();
            for ((prefix, _), what) in &self.seen[&peer] {
                seen.entry(*prefix).or_default().push(what.clone());
            }
            seen.values_mut().for_each(|routes| routes.sort());
            let expected = self.expected(peer);
            match self.limit {
                None => assert_eq!(seen, expected, "{}", PEERS[peer].0),
                Some(limit) => self.is_within(peer, limit, &seen, &expected),
            }
            let counts = self.rib.counts(&PEERS[peer].0.into());
            let counts = counts[&Family::IPV4_UNICAST];
            assert_eq!(
                counts.advertised,
                self.seen[&peer].len() as u64,
                "{counts:?}"
            );
            assert_eq!(self.rib.backlog(&PEERS[peer].0.into()), (0, 0));
        }
        self.explanations_agree();
    }

    /// No more than the limit is sent, nothing that is not expected, and all room is used: what came
    /// from the neighbour itself takes none.
    fn is_within(
        &self,
        peer: usize,
        limit: usize,
        seen: &BTreeMap<IpNet, Vec<String>>,
        expected: &BTreeMap<IpNet, Vec<String>>,
    ) {
        let name = PEERS[peer].0;
        assert!(seen.len() <= limit, "{name}: {seen:#?}");
        for (prefix, routes) in seen {
            assert_eq!(Some(routes), expected.get(prefix), "{name} {prefix}");
        }
        let missing = expected.len() - seen.len();
        let held = self.rib.counts(&name.into())[&Family::IPV4_UNICAST].held as usize;
        assert_eq!(held, missing, "{name}: those that wait are those missing");
        assert!(missing == 0 || seen.len() == limit, "{name}: {seen:#?}");
    }

    /// What is explained is what there is: the best route is the model's, every other one lost to
    /// one that is preferred, and neighbours are sent what the model says, now.
    fn explanations_agree(&self) {
        let expected: Vec<_> = (0..PEERS.len()).map(|peer| self.expected(peer)).collect();
        for n in 0..PREFIXES {
            let net: IpNet = prefix(n).parse().unwrap();
            let explained = self.rib.explain(net, None, self.now);
            let ranked = self.ranked(n);
            let is_local = self.locals.contains(&n);
            let best = explained.paths.first().filter(|path| path.route.is_best());
            match (is_local, ranked.first()) {
                (true, _) => assert_eq!(best.unwrap().route.peer, None),
                (false, Some(&best_peer)) => {
                    let name = best.unwrap().route.peer.as_ref().unwrap();
                    assert_eq!(&*name.0, PEERS[best_peer].0, "{explained:#?}");
                }
                (false, None) => assert_eq!(best, None, "{explained:#?}"),
            }
            for path in &explained.paths {
                let verdict = path.route.verdict.unwrap();
                let was_compared = matches!(
                    verdict,
                    Verdict::Lost(_) | Verdict::Multipath | Verdict::OtherAsPath
                );
                assert_eq!(path.lost.is_some(), was_compared, "{path:#?}");
                if let Some(lost) = &path.lost {
                    assert_ne!(lost.value, lost.other, "{path:#?}");
                }
            }
            let heard = explained.paths.iter().filter_map(|p| p.route.peer.as_ref());
            let silent = explained.silent.iter().map(|(name, _)| name);
            let all: BTreeSet<&PeerName> = heard.chain(silent).collect();
            assert_eq!(all.len(), PEERS.len(), "{explained:#?}");
            for advert in &explained.adverts {
                let peer = PEERS.iter().position(|p| *p.0 == *advert.peer.0).unwrap();
                let sent = advert.routes.iter().filter_map(|r| r.outcome.as_ref().ok());
                let mut sent: Vec<String> = sent.map(|(a, _)| describe(a)).collect();
                sent.sort();
                if self.up.contains(&peer) {
                    let held = advert
                        .routes
                        .iter()
                        .any(|r| r.outcome == Err(Withheld::Limit));
                    let wanted = match self.limit {
                        Some(_) if held => Vec::new(),
                        _ => expected[peer].get(&net).cloned().unwrap_or_default(),
                    };
                    assert_eq!(sent, wanted, "{} {explained:#?}", advert.peer);
                    assert!(!advert.is_pending, "{} {explained:#?}", advert.peer);
                    assert_eq!(advert.waiting_bytes, 0);
                } else {
                    let why = advert.routes[0].outcome.as_ref().unwrap_err();
                    assert_eq!(*why, Withheld::NotEstablished);
                }
            }
        }
    }
}

fn prefix(n: usize) -> String {
    format!("10.{n}.0.0/16")
}

fn describe(attributes: &PathAttributes) -> String {
    let mut text = String::new();
    if let Some(pref) = attributes.local_pref {
        text += &format!("lp {pref} ");
    }
    if let Some(med) = attributes.med {
        text += &format!("med {med} ");
    }
    if let (Some(from), [by]) = (attributes.originator_id, &attributes.cluster_list[..]) {
        text += &format!("from {from} by {by} ");
    }
    if !attributes.communities.is_empty() && attributes.local_pref.is_some() {
        text += "no-export ";
    }
    text + "path " + &attributes.as_path.as_ref().unwrap().to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn everybody_is_sent_what_the_model_says(
        steps in prop::collection::vec(step(), 1..60),
        add_path: bool,
        limit in prop::option::weighted(0.3, 1u32..5),
    ) {
        let mut world = World::new(add_path, limit);
        let all = (0..PEERS.len()).map(Step::Up).chain(steps);
        play(&mut world, all, World::take, World::settle_and_compare);
        (0..PEERS.len()).for_each(|peer| world.take(Step::Down(peer)));
        nothing_is_left(&mut world.rib, world.now);
        prop_assert!(world.rib.best(&AGGREGATE.parse().unwrap()).is_none());
    }
}
