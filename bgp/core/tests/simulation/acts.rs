// SPDX-License-Identifier: Apache-2.0
//! What the script has happen.

use std::collections::BTreeSet;
use std::time::Duration;

use bgp_core::config::Effect;
use bgp_core::peer::{FailureKind, PeerInput, StopReason};
use bgp_core::rib::{NextHopState, RibInput};

use crate::case::{Act, Said};
use crate::node::{ForRib, config, local_routes, say, unsay};
use crate::topology::{name, prefix};
use crate::wire::Item;
use crate::world::{Event, World};

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
                said,
            } => {
                self.say(speakers + stranger, prefix, said, &[]);
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
                    self.say(node, prefix, said, &DISCARDED);
                } else {
                    self.say(node, prefix, said, &WITHDRAWS);
                    self.standing[node].said.remove(&prefix);
                }
                Ok(())
            }
            Act::Unsay { stranger, prefix } => {
                let node = speakers + stranger;
                self.standing[node].said.remove(&prefix);
                let mut bytes = Vec::new();
                unsay(&mut bytes, prefix);
                self.tell_all(node, |_, _| bytes.clone());
                Ok(())
            }
            Act::Cut { link } => {
                self.cut(link % links);
                Ok(())
            }
            Act::Freeze { link, for_ms } => {
                self.frozen[link % links] = Some(self.now + Duration::from_millis(for_ms));
                Ok(())
            }
            Act::Crash {
                node,
                for_ms,
                silently,
            } => {
                self.crash(node % self.nodes.len(), for_ms, silently);
                Ok(())
            }
            Act::Reset { link, end } => {
                let node = self.topology.links[link % links][end].node;
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
                let family = router_types::Family::IPV4_UNICAST;
                self.tell(node, link, PeerInput::AskForRoutes { family })
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
            if before.peers()[&name] == peer {
                continue;
            }
            let asks = changes.iter().any(|change| {
                change.peer.as_ref() == Some(&name) && change.effect == Effect::RouteRefresh
            });
            let families: Vec<_> = peer.families().keys().copied().collect();
            self.tell(node, link, PeerInput::Configure(Box::new(peer)))?;
            for family in families.into_iter().filter(|_| asks) {
                self.tell(node, link, PeerInput::AskForRoutes { family })?;
            }
        }
        Ok(())
    }

    fn say(&mut self, node: usize, number: u8, said: Said, more: &[u8]) {
        self.standing[node].said.insert(number, said.clone());
        self.tell_all(node, |world, (link, end)| {
            let mut bytes = Vec::new();
            let here = world.topology.links[link][end];
            say(&mut bytes, &here, number, &said, more);
            bytes
        });
    }

    fn tell_all(&mut self, node: usize, bytes: impl Fn(&World, (usize, usize)) -> Vec<u8>) {
        let links: Vec<(usize, usize)> = self.topology.links_of(node).collect();
        for (link, end) in links {
            let bytes = bytes(self, (link, end));
            self.send_routes(node, link, &bytes);
        }
    }

    fn cut(&mut self, link: usize) {
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

    fn crash(&mut self, node: usize, for_ms: u64, silently: bool) {
        if self.nodes[node].take().is_none() {
            return;
        }
        self.lives[node] += 1;
        self.disarm(node);
        for (serial, end) in self.wires_of(node) {
            if silently {
                if let Some(wire) = self.wires.get_mut(&serial) {
                    wire.ends[end].is_open = false;
                    wire.ends[1 - end].lose(&mut self.random);
                }
            } else {
                self.hang_up(serial, end, FailureKind::Reset);
            }
        }
        self.after(for_ms, Event::Back(node));
    }

    /// Ends whatever hinders: links pass, nobody is shut down.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        self.frozen.iter_mut().for_each(|frozen| *frozen = None);
        for node in 0..self.nodes.len() {
            let shut: BTreeSet<usize> = std::mem::take(&mut self.standing[node].shut);
            if !shut.is_empty() {
                self.configure(node)?;
            }
        }
        Ok(())
    }
}
