// SPDX-License-Identifier: Apache-2.0
//! What the script has happen.

use std::collections::BTreeSet;
use std::time::Duration;

use bgp_core::config::{Effect, PeerName};
use bgp_core::peer::{FailureKind, PeerInput, StopReason};
use bgp_core::rib::{NextHopState, RibInput};

use crate::case::{Act, Said};
use crate::filter::{Filter, Way};
use crate::node::{Birth, ForRib, config, local_routes, say, unsay};
use crate::topology::{destination, name, prefix};
use crate::wire::Item;
use crate::world::{Event, World};

/// Until when a session is up whose ends have dialled at once, where nothing is slow: before one
/// that lost the comparison may be up after all.
const RACE_MS: u64 = 4_000;

/// EXTENDED_COMMUNITIES of 3 octets: treat-as-withdraw (RFC 7606 §7.14).
const WITHDRAWS: [u8; 6] = [0xc0, 16, 3, 1, 2, 3];
/// AGGREGATOR of 3 octets: attribute discard (RFC 7606 §7.7).
const DISCARDED: [u8; 6] = [0xc0, 7, 3, 1, 2, 3];

impl World {
    pub(crate) fn act(&mut self, act: Act) -> Result<(), String> {
        let (speakers, links) = (self.topology.speakers(), self.topology.links.len());
        match act {
            Act::Locals { speaker, prefixes } => {
                let speaker = speaker % speakers;
                self.standing[speaker].locals = prefixes.into_iter().map(prefix).collect();
                let routes = local_routes(&self.topology, speaker, &self.standing[speaker]);
                self.push(speaker, ForRib::Input(RibInput::LocalRoutes(routes)));
                Ok(())
            }
            Act::Say {
                stranger,
                prefix,
                id,
                said,
            } => {
                self.say(speakers + stranger, (prefix, id), said, &[]);
                Ok(())
            }
            Act::SayBroken {
                stranger,
                prefix,
                said,
                is_discarded,
            } => {
                let node = speakers + stranger;
                if is_discarded {
                    self.say(node, (prefix, 0), said, &DISCARDED);
                } else {
                    self.say(node, (prefix, 0), said, &WITHDRAWS);
                    self.standing[node].said.remove(&(prefix, 0));
                }
                Ok(())
            }
            Act::Unsay {
                stranger,
                prefix,
                id,
            } => {
                self.unsay(speakers + stranger, (prefix, id));
                Ok(())
            }
            Act::Cut { link } => {
                self.cut(link % links);
                Ok(())
            }
            Act::Freeze { link, for_ms } => {
                self.disturb(link % links);
                self.frozen[link % links] = Some(self.now + Duration::from_millis(for_ms));
                Ok(())
            }
            Act::Crash {
                node,
                for_ms,
                silently,
                forwards,
            } => {
                let node = node % self.nodes.len();
                if self.crash(node, silently, forwards) {
                    self.after(for_ms, Event::Back(node));
                }
                Ok(())
            }
            Act::Race { link } => self.race(link % links),
            Act::TakeOver { speaker } => self.prepare_take_over(speaker % speakers),
            Act::Filter {
                link,
                end,
                way,
                filter,
            } => {
                let link = link % links;
                let node = self.topology.links[link][end].node;
                if node >= speakers {
                    return Ok(());
                }
                // A preference within the AS, or for what another speaker passes on, makes routes
                // that never settle possible (RFC 4264 §1).
                let may_prefer = way == Way::In && self.topology.leads_outside(link);
                let filter = match filter {
                    Some(Filter::Prefer) if !may_prefer => Some(Filter::Mark),
                    filter => filter,
                };
                let filters = &mut self.standing[node].filters;
                match filter {
                    Some(filter) => filters.insert((link, way), filter),
                    None => filters.remove(&(link, way)),
                };
                self.configure(node)
            }
            Act::Forget {
                stranger,
                prefix,
                id,
            } => {
                let node = speakers + stranger;
                let down = self.down();
                if self
                    .topology
                    .links_of(node)
                    .any(|(link, _)| down.contains(&link))
                {
                    // Whoever is not up yet cannot ask, and may be told all the same.
                    self.unsay(node, (prefix, id));
                    return Ok(());
                }
                self.standing[node].said.remove(&(prefix, id));
                let family = destination(prefix).family();
                for (link, end) in self.topology.links_of(node).collect::<Vec<_>>() {
                    let there = self.topology.links[link][1 - end].node;
                    self.tell(there, link, PeerInput::AskForRoutes { family })?;
                }
                Ok(())
            }
            Act::Relabel { stranger } => {
                let node = speakers + stranger;
                let all = self.standing[node].said.clone();
                let of_vpn = |(number, _): &(u8, u8)| *number >= crate::case::PREFIXES;
                for (key, mut said) in all.into_iter().filter(|(key, _)| of_vpn(key)) {
                    said.label ^= 1;
                    self.say(node, key, said, &[]);
                }
                Ok(())
            }
            Act::Hide { link, end } => {
                let link = link % links;
                let node = self.topology.links[link][end].node;
                let hidden = &mut self.standing[node].hidden;
                if !hidden.remove(&link) {
                    hidden.insert(link);
                }
                let routes = local_routes(&self.topology, node, &self.standing[node]);
                self.push(node, ForRib::Input(RibInput::LocalRoutes(routes)));
                Ok(())
            }
            Act::Revise { link, end } => {
                let node = self.topology.links[link % links][end].node;
                self.standing[node].revision ^= 1;
                self.configure(node)
            }
            Act::Several { link } => {
                let link = link % links;
                let plan = &mut self.topology.plans[link];
                plan.takes_several = !plan.takes_several;
                self.disturb(link);
                for end in self.topology.links[link] {
                    self.configure(end.node)?;
                }
                Ok(())
            }
            Act::Limit { link, end, most } => {
                let link = link % links;
                let node = self.topology.links[link][end].node;
                self.standing[node].limits.insert(link, most);
                self.configure(node)
            }
            Act::Want { speaker, targets } => {
                let speaker = speaker % speakers;
                let targets = targets.map(|targets| targets.into_iter().collect());
                self.standing[speaker].targets = targets;
                self.configure(speaker)
            }
            // Everything settles first, which is not for the world to wait for.
            Act::Rest | Act::Away { .. } => Ok(()),
            Act::Reset { link, end } => {
                let node = self.topology.links[link % links][end].node;
                self.disturb(link % links);
                self.tell(node, link % links, PeerInput::Stop(StopReason::Reset))
            }
            Act::Shutdown { link, end, for_ms } => {
                let link = link % links;
                let node = self.topology.links[link][end].node;
                self.standing[node].shut.insert(link);
                self.after(for_ms, Event::Unshut { link, end });
                self.configure(node)
            }
            Act::Import { link, end, open } => {
                let link = link % links;
                let node = self.topology.links[link][end].node;
                if node >= speakers {
                    return Ok(());
                }
                if open {
                    self.standing[node].closed.remove(&link);
                } else {
                    self.standing[node].closed.insert(link);
                }
                self.configure(node)
            }
            Act::Metric {
                speaker,
                link,
                end,
                metric,
            } => {
                let speaker = speaker % speakers;
                let end = self.topology.links[link % links][end];
                for address in [end.v4.into(), end.v6.into()] {
                    self.standing[speaker].metrics.insert(address, metric);
                }
                self.tell_metrics(speaker);
                Ok(())
            }
            Act::Refresh { link, end } => {
                let link = link % links;
                let node = self.topology.links[link][end].node;
                for family in self.topology.plans[link].families() {
                    self.tell(node, link, PeerInput::AskForRoutes { family })?;
                }
                Ok(())
            }
        }
    }

    /// Tells the tables of a speaker all it knows about next hops.
    pub(crate) fn tell_metrics(&mut self, speaker: usize) {
        let metrics = &self.standing[speaker].metrics;
        let state = |(address, metric): (&std::net::IpAddr, &Option<u32>)| NextHopState {
            address: *address,
            metric: *metric,
        };
        let states = metrics.iter().map(state).collect();
        self.push(speaker, ForRib::Input(RibInput::NextHops(states)));
    }

    /// Has a node be as it stands by now, the way bgp-io goes about it: the tables first, since
    /// routes that come again must meet what is new.
    pub(crate) fn configure(&mut self, node: usize) -> Result<(), String> {
        let next = config(&self.case, &self.topology, node, &self.standing[node]);
        let Some(there) = self.nodes[node].as_mut() else {
            return Ok(());
        };
        let before = std::mem::replace(&mut there.config, next.clone());
        let changes = before.changes_to(&next);
        self.push(
            node,
            ForRib::Input(RibInput::Configure(Box::new(next.clone()))),
        );
        let links: Vec<usize> = self.topology.links_of(node).map(|(link, _)| link).collect();
        for link in links {
            let (name, peer) = (name(link), next.peers()[&name(link)].clone());
            let concerns = |peer: &Option<PeerName>| peer.as_ref().is_none_or(|one| *one == name);
            let asks = changes
                .iter()
                .any(|change| concerns(&change.peer) && change.effect == Effect::RouteRefresh);
            let families: Vec<_> = peer.families().keys().copied().collect();
            if before.peers()[&name] != peer {
                self.disturb(link);
                self.tell(node, link, PeerInput::Configure(Box::new(peer)))?;
            }
            for family in families.into_iter().filter(|_| asks) {
                self.tell(node, link, PeerInput::AskForRoutes { family })?;
            }
        }
        Ok(())
    }

    fn say(&mut self, node: usize, key: (u8, u8), said: Said, more: &[u8]) {
        self.standing[node].said.insert(key, said.clone());
        let family = destination(key.0).family();
        for (link, end) in self.topology.links_of(node).collect::<Vec<_>>() {
            let here = self.topology.links[link][end];
            if let Some(context) = self.context(node, link, family) {
                let mut bytes = Vec::new();
                let asn = self.topology.nodes[node].asn;
                say(&mut bytes, (&here, asn), key, &said, &context, more);
                self.send_routes(node, link, &bytes);
            }
        }
    }

    pub(crate) fn unsay(&mut self, node: usize, key: (u8, u8)) {
        self.standing[node].said.remove(&key);
        let family = destination(key.0).family();
        for (link, _) in self.topology.links_of(node).collect::<Vec<_>>() {
            if let Some(context) = self.context(node, link, family) {
                let mut bytes = Vec::new();
                unsay(&mut bytes, key, &context);
                self.send_routes(node, link, &bytes);
            }
        }
    }

    /// Both ends reset their session, and dial at once.
    fn race(&mut self, link: usize) -> Result<(), String> {
        let ends = self.topology.links[link];
        let is_up = !self.down().contains(&link);
        let is_frozen = self.frozen[link].is_some_and(|until| until > self.now);
        if !is_up || is_frozen {
            return Ok(());
        }
        self.disturb(link);
        for end in ends {
            self.tell(end.node, link, PeerInput::Stop(StopReason::Reset))?;
        }
        let since = self.now;
        self.after(RACE_MS, Event::Raced { link, since });
        Ok(())
    }

    fn cut(&mut self, link: usize) {
        self.disturb(link);
        let on_link = |(serial, wire): (&u64, &crate::wire::Wire)| {
            (wire.link == link && wire.is_known).then_some(*serial)
        };
        let serials: Vec<u64> = self.wires.iter().filter_map(on_link).collect();
        for serial in serials {
            for end in 0..2 {
                let at = self.now + Duration::from_micros(self.random.below(50_000));
                let Some(wire) = self.wires.get_mut(&serial) else {
                    continue;
                };
                let there = &mut wire.ends[end];
                if there.is_open {
                    there.lose(&mut self.random);
                    there.coming.push_back(Item::End(FailureKind::Reset));
                    there.last = there.last.max(at);
                    let last = there.last;
                    self.arrives(last, serial, end);
                }
            }
        }
    }

    /// Ends a node in the middle of everything. Returns whether it was there.
    pub(crate) fn crash(&mut self, node: usize, silently: bool, forwards: bool) -> bool {
        if self.nodes[node].take().is_none() {
            return false;
        }
        self.lives[node] += 1;
        self.births[node] = Birth::Restart { forwards };
        self.disarm(node);
        for (serial, end) in self.wires_of(node) {
            self.disturb(self.wires[&serial].link);
            if silently {
                if let Some(wire) = self.wires.get_mut(&serial) {
                    wire.ends[end].is_open = false;
                    wire.ends[1 - end].lose(&mut self.random);
                }
            } else {
                self.hang_up(serial, end, FailureKind::Reset);
            }
        }
        true
    }

    /// Ends whatever hinders: links pass, nobody is shut down, everything is taken.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        self.frozen.iter_mut().for_each(|frozen| *frozen = None);
        for node in 0..self.nodes.len() {
            let shut: BTreeSet<usize> = std::mem::take(&mut self.standing[node].shut);
            let limits = std::mem::take(&mut self.standing[node].limits);
            if !shut.is_empty() || !limits.is_empty() {
                self.configure(node)?;
            }
        }
        Ok(())
    }
}
