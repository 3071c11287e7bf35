// SPDX-License-Identifier: Apache-2.0
//! Four nodes with the whole stack between each two, links that are cut at any octet, nodes that
//! start again, rules claimed by whoever likes, mappings that come and go. Once all links are back
//! and nobody claims, each rule has one holder that all nodes agree on, and its standby has the
//! same mappings.
//!
//! A run is one seed. A failing run prints its own; `EGRESS_SYNC_SEED=<seed>` repeats it, and
//! `EGRESS_SYNC_RUNS=<count>` makes more runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use egress_sync::channel::{
    Channel, Config, Key as Secret, Keys, MAX_MESSAGE, Output as ChannelOutput, Timing,
};
use egress_sync::claims::{ClaimOutput, ClaimTable, HandOverEnd};
use egress_sync::mapping::{Change, Endpoint, Key, Mapping};
use egress_sync::name::{NodeName, Rule};
use egress_sync::replication::{
    Apply, Dropped, Limits, Page, PageError, Receiver, ReceiverOutput, Rest, Sender, SenderOutput,
};
use egress_sync::wire::{self, Decoded, Message};

const NODES: usize = 4;
const RULES: u32 = 5;
/// What a wire takes before it is full.
const WIRE: usize = 4096;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}

/// Says which seed it was.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with EGRESS_SYNC_SEED={}", self.0);
        }
    }
}

fn rule(number: usize) -> Rule {
    Rule::new(number as u32).unwrap()
}

fn key(number: usize) -> Key {
    let pod = Endpoint::new([10, 0, 0, number as u8].into(), 1000);
    Key::new(17, pod, Endpoint::new([192, 0, 2, 1].into(), 53)).unwrap()
}

type Table = BTreeMap<(Rule, Key), Mapping>;

/// One node's end of the way to another.
struct Peer {
    /// The connection of the moment.
    channel: Option<Channel>,
    is_up: bool,
    sender: Sender,
    receiver: Receiver,
    subscribed: BTreeSet<Rule>,
    cursor: Option<(u64, Option<(Rule, Key)>)>,
    page: Option<(Page, Vec<Mapping>, Rest)>,
}

impl Peer {
    fn new(name: &NodeName) -> Peer {
        Peer {
            channel: None,
            is_up: false,
            sender: Sender::new(name.clone(), Limits::new(2, 512).unwrap()),
            receiver: Receiver::new(),
            subscribed: BTreeSet::new(),
            cursor: None,
            page: None,
        }
    }
}

struct Node {
    name: NodeName,
    names: Vec<NodeName>,
    claims: ClaimTable,
    peers: BTreeMap<NodeName, Peer>,
    /// Mappings of rules it holds or stands by for. They outlive its process.
    table: Table,
    held: BTreeSet<Rule>,
    handed_over: usize,
}

impl Node {
    fn new(names: &[NodeName], number: usize, table: Table) -> Node {
        let name = names[number].clone();
        Node {
            claims: ClaimTable::new(name.clone()),
            peers: names
                .iter()
                .filter(|other| **other != name)
                .map(|other| (other.clone(), Peer::new(other)))
                .collect(),
            name,
            names: names.to_vec(),
            table,
            held: BTreeSet::new(),
            handed_over: 0,
        }
    }

    /// The node behind the holder.
    fn standby(&self, holder: &NodeName) -> &NodeName {
        let at = self.names.iter().position(|name| name == holder).unwrap();
        &self.names[(at + 1) % self.names.len()]
    }

    fn change(&mut self, change: Change) {
        let place = (change.rule(), *change.key());
        match change {
            Change::Set(mapping) => self.table.insert(place, mapping),
            Change::Remove { .. } => self.table.remove(&place),
        };
        for peer in self.peers.values_mut() {
            peer.sender.handle_change(&change);
        }
    }

    /// Everything there is to do at once.
    fn drive(&mut self, now: Instant) {
        loop {
            let mut is_quiet = true;
            for name in self.names.clone() {
                if name != self.name {
                    is_quiet &= !self.drive_peer(&name, now);
                }
            }
            while let Some(output) = self.claims.poll_output() {
                is_quiet = false;
                match output {
                    ClaimOutput::Send { to, message } => self.send(&to, &message, now),
                    ClaimOutput::HandOverRequested { rule, .. } => {
                        self.claims.claim(rule).unwrap();
                        self.arrange();
                    }
                    ClaimOutput::HandOverEnded { end, .. } => {
                        self.handed_over += usize::from(end == HandOverEnd::Done);
                    }
                    ClaimOutput::Holder { .. } | ClaimOutput::StepDown { .. } => self.arrange(),
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    fn send(&mut self, to: &NodeName, message: &Message, now: Instant) {
        let bytes = wire::encode(message).unwrap();
        let channel = self.peers.get_mut(to).unwrap().channel.as_mut().unwrap();
        channel.send(&bytes, now).unwrap();
    }

    /// Whether anything happened.
    fn drive_peer(&mut self, name: &NodeName, now: Instant) -> bool {
        let mut is_busy = false;
        let peer = self.peers.get_mut(name).unwrap();
        let mut messages = Vec::new();
        let mut is_over = false;
        while let Some(output) = peer.channel.as_mut().and_then(Channel::poll_output) {
            is_busy = true;
            match output {
                ChannelOutput::Established { peer: found, .. } => {
                    assert_eq!(found, *name);
                    peer.is_up = true;
                    self.claims.handle_link_up(name);
                    peer.receiver.handle_link_up();
                }
                ChannelOutput::Message(bytes) => messages.push(bytes),
                ChannelOutput::Ended(_) => is_over = true,
            }
        }
        for bytes in messages {
            let Decoded::Message(message) = wire::decode(&bytes).unwrap() else {
                panic!("a message of another version");
            };
            if self.claims.handle_message(name, &message) {
                continue;
            }
            let peer = self.peers.get_mut(name).unwrap();
            match message {
                Message::Subscribe {
                    epoch,
                    is_restart,
                    rules,
                } => peer.sender.handle_subscribe(epoch, is_restart, &rules),
                Message::Ack { epoch, sequence } => peer.sender.handle_ack(epoch, sequence),
                Message::Batch(batch) => peer.receiver.handle_batch(batch),
                other => panic!("{other:?} is not about claims"),
            }
        }
        if is_over {
            self.link_down(name);
        }
        is_busy |= self.drive_receiver(name, now);
        loop {
            let peer = self.peers.get_mut(name).unwrap();
            let room = peer.channel.as_ref().map_or(0, Channel::room);
            if room < 4 * MAX_MESSAGE {
                return is_busy;
            }
            match peer.sender.poll_output() {
                Some(SenderOutput::Send(message)) => self.send(name, &message, now),
                Some(SenderOutput::NeedSnapshot { snapshot }) => {
                    peer.cursor = Some((snapshot, None));
                }
                Some(SenderOutput::Synchronised(_)) => {}
                None => return is_busy,
            }
            is_busy = true;
        }
    }

    fn drive_receiver(&mut self, name: &NodeName, now: Instant) -> bool {
        let mut is_busy = false;
        loop {
            let peer = self.peers.get_mut(name).unwrap();
            let Some(output) = peer.receiver.poll_output() else {
                return is_busy;
            };
            is_busy = true;
            match output {
                ReceiverOutput::Send(message) => self.send(name, &message, now),
                ReceiverOutput::Apply(Apply::Set(mapping)) => {
                    let place = (mapping.rule, *mapping.key());
                    if !self.claims.holds(mapping.rule) {
                        self.table.insert(place, mapping);
                    } else if !self.table.contains_key(&place) {
                        // The last words of the node that handed over.
                        self.change(Change::Set(mapping));
                    }
                }
                ReceiverOutput::Apply(Apply::Remove { rule, key }) => {
                    self.change(Change::Remove { rule, key });
                }
                ReceiverOutput::Synchronised(_) => {}
                ReceiverOutput::Ended(rule) => {
                    if self.claims.holds(rule) {
                        let peer = self.peers.get_mut(name).unwrap();
                        peer.subscribed.remove(&rule);
                        let rules = peer.subscribed.clone();
                        peer.receiver.handle_rules(&rules, Dropped::Keep).unwrap();
                    }
                }
            }
        }
    }

    fn link_down(&mut self, name: &NodeName) {
        let peer = self.peers.get_mut(name).unwrap();
        peer.channel = None;
        if std::mem::take(&mut peer.is_up) {
            peer.sender.handle_link_down();
            peer.receiver.handle_link_down();
            peer.page = None;
            self.claims.handle_link_down(name);
        }
    }

    /// Holders have changed: who sends what to whom.
    fn arrange(&mut self) {
        let held: BTreeSet<Rule> = self.claims.held().map(|claim| claim.rule).collect();
        let holders: Vec<(Rule, NodeName, bool)> = self
            .claims
            .holders()
            .map(|(rule, holder)| (rule, holder.node.clone(), holder.is_released))
            .collect();
        let mut needed = held.clone();
        for name in self.names.clone() {
            if name == self.name {
                continue;
            }
            let is_standby = *self.standby(&name) == self.name;
            let peer = self.peers.get_mut(&name).unwrap();
            peer.sender.handle_held(&held);
            let mut rules: BTreeSet<Rule> = holders
                .iter()
                .filter(|(_, holder, _)| is_standby && *holder == name)
                .map(|(rule, ..)| *rule)
                .collect();
            // Until the former holder has said everything.
            rules.extend(peer.subscribed.intersection(&held).filter(|_| peer.is_up));
            peer.receiver.handle_rules(&rules, Dropped::Keep).unwrap();
            let is_new = |rule: &&Rule| {
                !held.contains(rule)
                    && (self.held.contains(rule) || !peer.subscribed.contains(rule))
            };
            for rule in rules.iter().filter(is_new) {
                let keys = self.table.keys().filter(|(of, _)| of == rule);
                peer.receiver.adopt(*rule, keys.map(|(_, key)| *key));
            }
            needed.extend(&rules);
            peer.subscribed = rules;
        }
        self.table.retain(|(rule, _), _| needed.contains(rule));
        self.held = held;
    }

    /// A step of a snapshot, if one runs: a page is read, or one that was read is handed in.
    fn step_snapshot(&mut self, name: &NodeName, max: usize) {
        let peer = self.peers.get_mut(name).unwrap();
        if let Some((page, mappings, rest)) = peer.page.take() {
            match peer.sender.next_batch(&page, &mappings, rest) {
                Ok(()) => {
                    if let Some(last) = mappings.last() {
                        peer.cursor = Some((page.snapshot, Some((last.rule, *last.key()))));
                    }
                }
                Err(PageError::Void | PageError::Full) => {}
                Err(error) => panic!("{error}"),
            }
            return;
        }
        let Some(page) = peer.sender.poll_page() else {
            return;
        };
        let after = match peer.cursor {
            Some((snapshot, after)) if snapshot == page.snapshot => after,
            _ => None,
        };
        let mappings: Vec<Mapping> = self
            .table
            .iter()
            .filter(|(place, _)| {
                page.rules.contains(&place.0) && after.is_none_or(|after| **place > after)
            })
            .map(|(_, mapping)| *mapping)
            .take(max)
            .collect();
        let rest = if mappings.len() < max {
            Rest::End
        } else {
            Rest::More
        };
        peer.page = Some((page, mappings, rest));
    }
}

struct World {
    now: Instant,
    random: Random,
    names: Vec<NodeName>,
    nodes: Vec<Node>,
    /// Octets under way, by who sent them to whom.
    wires: BTreeMap<(usize, usize), VecDeque<u8>>,
    nonces: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let names: Vec<NodeName> = (0..NODES)
            .map(|i| NodeName::new(&format!("node-{i}")).unwrap())
            .collect();
        World {
            now: Instant::now(),
            random: Random(seed.wrapping_mul(2).wrapping_add(1)),
            nodes: (0..NODES)
                .map(|i| Node::new(&names, i, Table::new()))
                .collect(),
            names,
            wires: BTreeMap::new(),
            nonces: 0,
        }
    }

    fn config(&self, node: usize) -> Config {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        Config {
            name: self.names[node].clone(),
            // Steps are random: only silence of the simulation itself may end a channel.
            timing: Timing::new(second, minute * 10, minute).unwrap(),
            keys: Keys::new(vec![Secret::new(&[7; 32]).unwrap()]).unwrap(),
        }
    }

    fn nonce(&mut self) -> [u8; 32] {
        self.nonces += 1;
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&self.nonces.to_be_bytes());
        nonce
    }

    fn connect(&mut self, a: usize, b: usize) {
        if self.wires.contains_key(&(a, b)) {
            return;
        }
        let (one, other) = (self.nonce(), self.nonce());
        let expected = Some(self.names[b].clone());
        let initiator = Channel::initiator(self.config(a), expected, one, self.now);
        let responder = Channel::responder(self.config(b), other, self.now);
        let (name_a, name_b) = (self.names[a].clone(), self.names[b].clone());
        self.nodes[a].peers.get_mut(&name_b).unwrap().channel = Some(initiator);
        self.nodes[b].peers.get_mut(&name_a).unwrap().channel = Some(responder);
        self.wires.insert((a, b), VecDeque::new());
        self.wires.insert((b, a), VecDeque::new());
    }

    fn cut(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            self.wires.remove(&(from, to));
            let name = self.names[to].clone();
            let peer = self.nodes[from].peers.get_mut(&name).unwrap();
            if let Some(channel) = &mut peer.channel {
                channel.handle_end_of_stream();
            }
            self.nodes[from].drive(self.now);
        }
    }

    fn restart(&mut self, node: usize) {
        for other in 0..NODES {
            if other != node {
                self.cut(node, other);
            }
        }
        let table = std::mem::take(&mut self.nodes[node].table);
        self.nodes[node] = Node::new(&self.names, node, table);
    }

    /// Moves at most so many octets from one node towards another. Whether there were any.
    fn carry(&mut self, from: usize, to: usize, most: usize) -> bool {
        let Some(wire) = self.wires.get_mut(&(from, to)) else {
            return false;
        };
        let name = &self.names[to];
        if let Some(channel) = &mut self.nodes[from].peers.get_mut(name).unwrap().channel {
            while wire.len() < WIRE && !channel.pending().is_empty() {
                let count = channel.pending().len().min(WIRE - wire.len());
                wire.extend(&channel.pending()[..count]);
                channel.handle_written(count);
            }
        }
        let bytes: Vec<u8> = wire.drain(..most.min(wire.len())).collect();
        let name = &self.names[from];
        let peer = self.nodes[to].peers.get_mut(name).unwrap();
        if let Some(channel) = &mut peer.channel {
            channel.handle_bytes(&bytes, self.now);
        }
        self.nodes[to].drive(self.now);
        self.nodes[from].drive(self.now);
        !bytes.is_empty()
    }

    fn step(&mut self) {
        let a = self.random.below(NODES);
        let b = (a + 1 + self.random.below(NODES - 1)) % NODES;
        let of = rule(self.random.below(RULES as usize));
        match self.random.below(200) {
            0..120 => {
                let most = 1 + self.random.below(3000);
                self.carry(a, b, most);
            }
            120..124 => self.cut(a, b),
            124..134 => self.connect(a, b),
            134..138 => {
                self.nodes[a].claims.claim(of).unwrap();
                self.nodes[a].arrange();
            }
            138 => {
                self.nodes[a].claims.release(of);
                self.nodes[a].arrange();
            }
            139 => self.restart(a),
            140..145 => {
                let standby = self.nodes[a].standby(&self.names[a]).clone();
                let node = &mut self.nodes[a];
                if let Some(synchronised) = node.peers[&standby].sender.synchronised(of) {
                    // It may be handed over already.
                    let _ = node.claims.hand_over(synchronised, self.now);
                }
            }
            145..170 => {
                let key = key(self.random.below(40));
                let version = self.random.below(3);
                if self.nodes[a].claims.holds(of) {
                    self.nodes[a].change(if version == 0 {
                        Change::Remove { rule: of, key }
                    } else {
                        let port = self.random.below(60_000) as u16;
                        let egress = Endpoint::new([198, 51, 100, 1].into(), port);
                        Change::Set(Mapping::new(of, key, egress, [10, 9, 9, 9].into()).unwrap())
                    });
                }
            }
            170..190 => {
                let max = 1 + self.random.below(8);
                let name = self.names[b].clone();
                self.nodes[a].step_snapshot(&name, max);
            }
            _ => {
                self.now += Duration::from_millis(300);
                for node in &mut self.nodes {
                    node.claims.handle_timeout(self.now);
                    for peer in node.peers.values_mut() {
                        if let Some(channel) = &mut peer.channel {
                            channel.handle_timeout(self.now);
                        }
                    }
                }
            }
        }
        self.nodes[a].drive(self.now);
    }

    /// All links are back, and nobody wants anything.
    fn settle(&mut self) {
        for a in 0..NODES {
            for b in a + 1..NODES {
                self.connect(a, b);
            }
        }
        for round in 0.. {
            assert!(round < 10_000, "it never ends");
            let mut is_busy = false;
            for a in 0..NODES {
                for b in 0..NODES {
                    if a != b {
                        is_busy |= self.carry(a, b, WIRE);
                        let name = self.names[b].clone();
                        is_busy |= self.nodes[a].peers[&name].page.is_some();
                        self.nodes[a].step_snapshot(&name, 100);
                        is_busy |= self.nodes[a].peers[&name].page.is_some();
                        self.nodes[a].drive(self.now);
                    }
                }
            }
            if !is_busy {
                return;
            }
        }
    }

    fn check(&self) {
        for node in &self.nodes {
            assert!(node.peers.values().all(|peer| peer.is_up));
        }
        for number in 0..RULES as usize {
            let rule = rule(number);
            let holders: Vec<&Node> = self
                .nodes
                .iter()
                .filter(|node| node.claims.holds(rule))
                .collect();
            let [holder] = holders[..] else {
                assert!(holders.is_empty(), "rule {rule} has several holders");
                for node in &self.nodes {
                    let best = node.claims.holder(rule);
                    assert!(best.is_none_or(|best| best.is_released), "{}", node.name);
                }
                continue;
            };
            for node in &self.nodes {
                let best = node.claims.holder(rule);
                assert_eq!(best, holder.claims.holder(rule), "{}", node.name);
            }
            let standby = holder.standby(&holder.name);
            let node = self.nodes.iter().find(|node| node.name == *standby);
            let node = node.unwrap();
            let receiver = &node.peers[&holder.name].receiver;
            assert!(receiver.is_synchronised(rule), "rule {rule}");
            assert_eq!(receiver.counters().gaps, 0);
            let of = |table: &Table| -> Vec<Mapping> {
                let all = table.iter().filter(|((of, _), _)| *of == rule);
                all.map(|(_, mapping)| *mapping).collect()
            };
            assert_eq!(of(&node.table), of(&holder.table), "rule {rule}");
        }
    }
}

#[test]
fn nodes_agree_and_standbys_have_everything_once_links_are_back() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seeds = match number("EGRESS_SYNC_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("EGRESS_SYNC_RUNS").unwrap_or(60),
    };
    let (mut held, mut mappings, mut handed_over) = (0, 0, 0);
    for seed in seeds.clone() {
        let _seed = Seed(seed);
        let mut world = World::new(seed);
        for _ in 0..3 {
            for _ in 0..700 {
                world.step();
            }
            world.settle();
            world.check();
        }
        for node in &world.nodes {
            held += node.claims.held().count();
            mappings += node.table.len();
            handed_over += node.handed_over;
        }
    }
    // That the simulation does something.
    if seeds.end - seeds.start > 20 {
        assert!(
            held > 100 && mappings > 500 && handed_over > 5,
            "{held} {mappings} {handed_over}"
        );
    }
}
