// SPDX-License-Identifier: Apache-2.0
//! Sessions that go from one process to the next, as bgp-io and the daemon pass them on.

use bgp_core::deliveries::SELECTION_DEFERRAL;
use bgp_core::peer::Handover;
use bgp_core::rib::{PrefixFilter, RouteQuery, RouteTable};
use bgp_wire::NlriEntry;

use super::*;
use crate::node::Tables;

/// What is passed on of a session beside its connection.
struct Passed {
    link: usize,
    wire: u64,
    /// The session in the form it is sent in.
    text: String,
    told: Vec<IpNet>,
}

impl World {
    /// A new process is to take over while much is under way, so that messages are cut by it.
    pub(crate) fn prepare_take_over(&mut self, node: usize) -> Result<(), String> {
        let life = self.lives[node];
        for (link, _) in self.topology.links_of(node).collect::<Vec<_>>() {
            for family in self.topology.plans[link].families() {
                self.tell(node, link, PeerInput::AskForRoutes { family })?;
            }
        }
        let at = 10 + self.random.below(60);
        self.after(at, Event::TakeOver { node, life });
        Ok(())
    }

    /// A new process goes on with the sessions of a speaker. Those it cannot go on with end, as
    /// before a planned restart.
    pub(super) fn take_over(&mut self, node: usize) -> Result<(), String> {
        // What the tables were told is sent before they let go.
        self.turn(node, usize::MAX)?;
        let Some(there) = &self.nodes[node] else {
            return Ok(());
        };
        let links: Vec<usize> = there.sessions.keys().copied().collect();
        let mut passed = Vec::new();
        for link in links {
            self.disturb(link);
            self.send_all(node, link);
            let told = self.nodes[node]
                .as_ref()
                .and_then(|node| node.tables.as_ref())
                .map_or_else(Vec::new, |tables| announced(tables, link, self.now));
            let now = self.now;
            let Some(session) = self.session(node, link) else {
                continue;
            };
            match session.peer.hand_over(now) {
                Some((conn, handover)) => {
                    session.established = None;
                    let Some(wire) = session.wires.remove(&conn) else {
                        return Err(format!("node {node}, link {link}: up without a wire"));
                    };
                    let text = serde_json::to_string(&handover).map_err(|e| e.to_string())?;
                    passed.push(Passed {
                        link,
                        wire,
                        text,
                        told,
                    });
                    self.outputs(node, link)?;
                }
                None => self.tell(node, link, PeerInput::Stop(StopReason::PlannedRestart))?,
            }
        }
        let handed: BTreeSet<u64> = passed.iter().map(|passed| passed.wire).collect();
        for (serial, end) in self.wires_of(node) {
            if !handed.contains(&serial) {
                self.hang_up(serial, end, FailureKind::Reset);
            }
        }
        self.lives[node] += 1;
        self.births[node] = Birth::Restart { forwards: true };
        self.disarm(node);
        let links = self.bear(node);
        for session in passed {
            self.adopt(node, session)?;
        }
        self.begin(node, links)
    }

    /// Goes on with a session of the process before.
    fn adopt(&mut self, node: usize, passed: Passed) -> Result<(), String> {
        let Passed {
            link,
            wire,
            text,
            told,
        } = passed;
        let handover: Handover = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let (end, life) = (self.end_of(node, link), self.lives[node]);
        let ends = self.topology.links[link];
        let Some(session) = self.session(node, link) else {
            return Ok(());
        };
        session.calls += 1;
        let conn = ConnId {
            direction: Direction::Incoming,
            serial: session.calls,
        };
        session.wires.insert(conn, wire);
        if let Some(wire) = self.wires.get_mut(&wire) {
            wire.ends[end].conn = conn;
        }
        let adopt = PeerInput::Adopt {
            conn,
            addresses: addresses(&ends[end], &ends[1 - end]),
            handover: Box::new(handover),
        };
        self.tell(node, link, adopt)?;
        let sweep = Event::Sweep {
            node,
            life,
            link,
            told,
        };
        self.at(self.now + SELECTION_DEFERRAL, sweep);
        Ok(())
    }

    /// Withdraws what the neighbour was told by the process before and is not told by this one.
    pub(super) fn sweep(&mut self, node: usize, link: usize, told: &[IpNet]) {
        let now = self.now;
        let Some(there) = &self.nodes[node] else {
            return;
        };
        let (session, tables) = (&there.sessions[&link], &there.tables);
        let (Some(tables), Some(agreed)) = (tables, session.peer.negotiated()) else {
            return;
        };
        if session.epoch != 1 {
            return; // the neighbour forgot it with the session
        }
        let kept = announced(tables, link, now);
        let gone = told.iter().filter(|prefix| !kept.contains(prefix));
        let gone = gone.map(|prefix| NlriEntry {
            path_id: None,
            prefix: *prefix,
        });
        let mut bytes = Vec::new();
        for family in &agreed.context.families {
            let max_len = agreed.context.max_len();
            bgp_wire::withdraw(&mut bytes, family, max_len, gone.clone());
        }
        if !bytes.is_empty() {
            self.send_routes(node, link, &bytes);
        }
    }

    /// Sends everything that waits for a neighbour, however much is under way to it.
    fn send_all(&mut self, node: usize, link: usize) {
        let mut all = Vec::new();
        if let Some(tables) = self.nodes[node].as_mut().and_then(|n| n.tables.as_mut()) {
            while let Some(transmit) = tables.rib.poll_transmit(&name(link)) {
                all.push(transmit.bytes);
            }
        }
        for bytes in all {
            self.send_routes(node, link, &bytes);
        }
    }
}

/// The prefixes a neighbour was told.
fn announced(tables: &Tables, link: usize, now: Instant) -> Vec<IpNet> {
    let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
    let of = |family| {
        let query = RouteQuery {
            table: RouteTable::Advertised(name(link)),
            family,
            filter: PrefixFilter::All,
            after: None,
            limit: usize::MAX,
        };
        tables.rib.routes(&query, now).routes
    };
    let routes = families.into_iter().flat_map(of);
    routes.filter_map(|route| route.prefix.prefix()).collect()
}
