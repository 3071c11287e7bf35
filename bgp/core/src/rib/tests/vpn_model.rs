// SPDX-License-Identifier: Apache-2.0
//! Routes of VPNs against a slow model: whatever clients of a reflector say, and whatever of route
//! targets they ask for, what each of them was sent in the end is what the RFCs have it sent.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::play::{nothing_is_left, play};
use super::vpn::*;
use super::*;

/// Clients by number; the first two take all routes, the others what they ask for.
const PEERS: [(&str, u8); 4] = [("a", 10), ("b", 11), ("c", 12), ("d", 13)];

const ASKING: std::ops::Range<usize> = 2..4;

const TARGETS: [&str; 3] = ["rt:65000:1", "rt:65000:2", "rt:65000:3"];

/// Destinations: distinguisher and prefix.
const PLACES: [&str; 4] = [
    "65000:1 10.1.0.0/16",
    "65000:2 10.1.0.0/16",
    "65000:1 10.2.0.0/16",
    "65000:1 2001:db8::/32",
];

#[derive(Clone, Debug)]
enum Step {
    /// Who, which destinations, the label, and which targets.
    Offer(usize, BTreeSet<usize>, u32, BTreeSet<usize>),
    Retract(usize, usize),
    Want(usize, usize),
    Unwant(usize, usize),
    /// Whether all is wanted.
    WantAll(usize, bool),
    Up(usize),
    Down(usize),
    Read(usize),
    Resend(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let peer = || 0..PEERS.len();
    let target = || 0..TARGETS.len();
    let places = prop::collection::btree_set(0..PLACES.len(), 1..3);
    let targets = prop::collection::btree_set(target(), 0..3);
    prop_oneof![
        6 => (peer(), places, 16u32..20, targets).prop_map(|(p, n, l, t)| Step::Offer(p, n, l, t)),
        3 => (peer(), 0..PLACES.len()).prop_map(|(p, n)| Step::Retract(p, n)),
        4 => (ASKING, target()).prop_map(|(p, t)| Step::Want(p, t)),
        2 => (ASKING, target()).prop_map(|(p, t)| Step::Unwant(p, t)),
        1 => (ASKING, any::<bool>()).prop_map(|(p, all)| Step::WantAll(p, all)),
        2 => peer().prop_map(Step::Up),
        1 => peer().prop_map(Step::Down),
        4 => peer().prop_map(Step::Read),
        1 => peer().prop_map(Step::Resend),
    ]
}

struct World {
    rib: Rib,
    now: Instant,
    up: BTreeSet<usize>,
    /// What was said of each destination: label and targets.
    said: BTreeMap<(usize, usize), (u32, BTreeSet<usize>)>,
    wanted: BTreeSet<(usize, usize)>,
    all_wanted: BTreeSet<usize>,
    heard: BTreeMap<usize, Heard>,
}

fn hop(peer: usize, place: usize) -> String {
    let v6 = PLACES[place].contains("::");
    let mapped = if v6 { "::ffff:" } else { "" };
    format!("{mapped}10.0.0.{}", PEERS[peer].1)
}

impl World {
    fn new() -> World {
        let now = Instant::now();
        let mut config = reflector(&PEERS.map(|(name, _)| name));
        // Nothing of its own, which the model would have to know.
        config.route_targets = Some(BTreeSet::new());
        let rib = ready(config, now);
        World {
            rib,
            now,
            up: BTreeSet::new(),
            said: BTreeMap::new(),
            wanted: BTreeSet::new(),
            all_wanted: BTreeSet::new(),
            heard: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: Step) {
        let (rib, now) = (&mut self.rib, self.now);
        let is_up = |peer: &usize| self.up.contains(peer);
        match step {
            Step::Offer(peer, places, label, targets) if is_up(&peer) => {
                let texts: Vec<&str> = targets.iter().map(|t| TARGETS[*t]).collect();
                for place in places {
                    let route = format!("{} {label}", PLACES[place]);
                    let hop = hop(peer, place);
                    offer(rib, PEERS[peer].0, &[&route], &texts, &hop, now);
                    self.said.insert((peer, place), (label, targets.clone()));
                }
            }
            Step::Retract(peer, place) => {
                retract(rib, PEERS[peer].0, &[PLACES[place]], now);
                self.said.remove(&(peer, place));
            }
            Step::Want(peer, target) if is_up(&peer) => {
                let hop = hop(peer, 0);
                want(rib, PEERS[peer].0, &[TARGETS[target]], &hop, now);
                self.wanted.insert((peer, target));
            }
            Step::Unwant(peer, target) => {
                unwant(rib, PEERS[peer].0, &[TARGETS[target]], now);
                self.wanted.remove(&(peer, target));
            }
            Step::WantAll(peer, true) if is_up(&peer) => {
                want(rib, PEERS[peer].0, &["default"], &hop(peer, 0), now);
                self.all_wanted.insert(peer);
            }
            Step::WantAll(peer, _) => {
                unwant(rib, PEERS[peer].0, &["default"], now);
                self.all_wanted.remove(&peer);
            }
            Step::Up(peer) => {
                if self.up.insert(peer) {
                    let (name, number) = PEERS[peer];
                    let mut families = vec![Family::VPNV4, Family::VPNV6];
                    if ASKING.contains(&peer) {
                        families.push(Family::ROUTE_TARGET);
                    }
                    up_with(rib, name, session_with(number, 65001, &families), now);
                    said_all(rib, name, Family::ROUTE_TARGET, now);
                    self.heard.insert(peer, Heard::default());
                }
            }
            Step::Down(peer) => {
                self.up.remove(&peer);
                self.said.retain(|(other, _), _| *other != peer);
                self.wanted.retain(|(other, _)| *other != peer);
                self.all_wanted.remove(&peer);
                self.heard.remove(&peer);
                let down = RibInput::PeerDown {
                    peer: PEERS[peer].0.into(),
                    keep_routes: None,
                };
                rib.handle(down, now);
            }
            Step::Read(peer) => {
                if let Some(heard) = self.heard.get_mut(&peer) {
                    heard.listen(rib, PEERS[peer].0);
                }
            }
            Step::Resend(peer) => {
                let resend = RibInput::Resend {
                    peer: PEERS[peer].0.into(),
                    family: Family::VPNV4,
                };
                rib.handle(resend, now);
            }
            Step::Offer(..) | Step::Want(..) => {}
        }
    }

    /// What a client has to have been sent: of equal routes the one of the lowest identifier is the
    /// best; its own are not sent to it, and memberships are, to all.
    fn expected(&self, to: usize) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for (place, text) in PLACES.iter().enumerate() {
            let best = (0..PEERS.len()).find(|from| self.said.contains_key(&(*from, place)));
            let Some(from) = best.filter(|from| *from != to) else {
                continue;
            };
            let (label, targets) = &self.said[&(from, place)];
            let asked = |target: &usize| self.wanted.contains(&(to, *target));
            let goes =
                !ASKING.contains(&to) || self.all_wanted.contains(&to) || targets.iter().any(asked);
            if !goes {
                continue;
            }
            let id = PEERS[from].1;
            let mut what = format!("via {} label {label} from 10.0.0.{id}", hop(from, place));
            for target in targets {
                what += &format!(" {}", TARGETS[*target]);
            }
            all.insert(text.replace(' ', ":"), what);
        }
        if ASKING.contains(&to) {
            let told = || "via 10.0.0.1 from 10.0.0.1".to_owned();
            for (_, target) in &self.wanted {
                all.insert(format!("65001:{}", TARGETS[*target]), told());
            }
            if !self.all_wanted.is_empty() {
                all.insert("default".to_owned(), told());
            }
        }
        all
    }

    fn settle_and_compare(&mut self) {
        for peer in self.up.clone() {
            self.take(Step::Read(peer));
            let routes = &self.heard[&peer].routes;
            assert_eq!(*routes, self.expected(peer), "{}", PEERS[peer].0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn clients_are_sent_the_vpn_routes_the_model_says(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new();
        let all = (0..PEERS.len()).map(Step::Up).chain(steps);
        play(&mut world, all, World::take, World::settle_and_compare);
        (0..PEERS.len()).for_each(|peer| world.take(Step::Down(peer)));
        nothing_is_left(&mut world.rib, world.now);
    }
}
