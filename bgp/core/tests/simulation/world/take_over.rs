// SPDX-License-Identifier: Apache-2.0
//! Sessions that go from one process to the next, as bgp-io and the daemon pass them on.

use bgp_core::peer::Handover;
use bgp_core::rib::Inheritance;

use super::*;

/// What is passed on of a session beside its connection.
struct Passed {
    link: usize,
    wire: u64,
    /// The session and what the tables leave, in the form they are sent in.
    text: String,
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
        let (mut passed, mut numbers) = (Vec::new(), BTreeMap::new());
        for link in links {
            self.disturb(link);
            self.send_all(node, link);
            let there = self.nodes[node].as_ref();
            let tables = there.and_then(|node| node.tables.as_ref());
            let left = tables.and_then(|tables| tables.rib.inheritance(&name(link)));
            let now = self.now;
            let Some(session) = self.session(node, link) else {
                continue;
            };
            // A session the tables do not know yet ends with this process.
            let handed = left.and_then(|left| Some((left, session.peer.hand_over(now)?)));
            match handed {
                Some((left, (conn, handover))) => {
                    numbers.insert(name(link), left.number);
                    session.established = None;
                    let Some(wire) = session.wires.remove(&conn) else {
                        return Err(format!("node {node}, link {link}: up without a wire"));
                    };
                    let text =
                        serde_json::to_string(&(handover, left)).map_err(|e| e.to_string())?;
                    passed.push(Passed { link, wire, text });
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
        self.push(node, ForRib::Input(RibInput::Numbers(numbers)));
        for session in passed {
            self.adopt(node, session)?;
        }
        self.begin(node, links)
    }

    /// Goes on with a session of the process before.
    fn adopt(&mut self, node: usize, passed: Passed) -> Result<(), String> {
        let Passed { link, wire, text } = passed;
        let (handover, left): (Handover, Inheritance) =
            serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let end = self.end_of(node, link);
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
        session.left = Some(Box::new(left));
        if let Some(wire) = self.wires.get_mut(&wire) {
            wire.ends[end].conn = conn;
        }
        let adopt = PeerInput::Adopt {
            conn,
            addresses: addresses(&ends[end], &ends[1 - end]),
            handover: Box::new(handover),
        };
        self.tell(node, link, adopt)
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
