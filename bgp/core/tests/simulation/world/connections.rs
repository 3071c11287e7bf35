// SPDX-License-Identifier: Apache-2.0
//! Connections between speakers: calls, answers, octets that arrive in pieces and late, and ends.

use super::tables::IN_FLIGHT;
use super::*;

impl World {
    pub(super) fn syn(
        &mut self,
        link: usize,
        end: usize,
        conn: ConnId,
        life: u32,
    ) -> Result<(), String> {
        let event = Event::Syn {
            link,
            end,
            conn,
            life,
        };
        if self.waits(link, event).is_none() {
            return Ok(());
        }
        let ends = self.topology.links[link];
        let (here, there) = (ends[end].node, ends[1 - end].node);
        let is_wanted = self.lives[here] == life
            && self
                .session(here, link)
                .is_some_and(|s| s.dials.contains(&conn));
        if !is_wanted {
            return Ok(());
        }
        let (now, serial) = (self.now, self.serial);
        let Some(callee) = self.session(there, link) else {
            if let Some(session) = self.session(here, link) {
                session.dials.remove(&conn);
            }
            let failure = failure(FailureKind::Refused);
            return self.tell(here, link, PeerInput::ConnectFailed { conn, failure });
        };
        callee.calls += 1;
        let call = ConnId {
            direction: Direction::Incoming,
            serial: callee.calls,
        };
        callee.wires.insert(call, serial);
        let conns = if end == 0 { [conn, call] } else { [call, conn] };
        self.wires.insert(serial, Wire::new(link, end, conns, now));
        let delay = self.delay_on(link);
        self.at(now + delay, Event::SynAck(serial));
        let addresses = addresses(&ends[1 - end], &ends[end]);
        self.tell(
            there,
            link,
            PeerInput::Called {
                conn: call,
                addresses,
            },
        )
    }

    pub(super) fn syn_ack(&mut self, serial: u64) -> Result<(), String> {
        let Some(wire) = self.wires.get(&serial) else {
            return Ok(());
        };
        let (link, end) = (wire.link, wire.dialler);
        if self.waits(link, Event::SynAck(serial)).is_none() {
            return Ok(());
        }
        let Some(wire) = self.wires.get_mut(&serial) else {
            return Ok(());
        };
        wire.is_known = true;
        let conn = wire.ends[end].conn;
        let ends = self.topology.links[link];
        let here = ends[end].node;
        let is_wanted = self.wires[&serial].ends[end].is_open
            && self
                .session(here, link)
                .is_some_and(|s| s.dials.remove(&conn));
        if !is_wanted {
            self.hang_up(serial, end, FailureKind::Reset);
            return Ok(());
        }
        if let Some(session) = self.session(here, link) {
            session.wires.insert(conn, serial);
        }
        let addresses = addresses(&ends[end], &ends[1 - end]);
        self.tell(here, link, PeerInput::Connected { conn, addresses })
    }

    pub(super) fn arrival(&mut self, serial: u64, end: usize) -> Result<(), String> {
        let Some(wire) = self.wires.get(&serial) else {
            return Ok(());
        };
        let link = wire.link;
        let sender = self.topology.links[link][1 - end].node;
        let Some(event) = self.waits(link, Event::Arrival(serial, end)) else {
            return Ok(());
        };
        let node = self.topology.links[link][end].node;
        let (now, together) = (self.now, self.random.below(3) == 0);
        let Some(wire) = self.wires.get_mut(&serial) else {
            return Ok(());
        };
        if !wire.is_known && wire.dialler == end {
            self.at(now + Duration::from_millis(5), event);
            return Ok(());
        }
        let mut item = wire.ends[end].coming.pop_front();
        // The tables of who sent may have waited for this.
        let has_room = wire.ends[end].backlog() < IN_FLIGHT;
        // A read may bring what came in several pieces.
        while together
            && let Some(Item::Bytes(bytes)) = &mut item
            && let Some(Item::Bytes(more)) = wire.ends[end].coming.front()
        {
            bytes.extend_from_slice(more);
            wire.ends[end].coming.pop_front();
        }
        let (conn, is_open) = (wire.ends[end].conn, wire.ends[end].is_open);
        if has_room {
            self.wake(sender);
        }
        let Some(wire) = self.wires.get_mut(&serial) else {
            return Ok(());
        };
        match item {
            None => Ok(()),
            Some(Item::Bytes(bytes)) if is_open => {
                let is_heard = wire.ends[end].completes(&bytes);
                if let Some(session) = self.session(node, link).filter(|_| is_heard) {
                    session.heard_at = now;
                }
                self.tell(node, link, PeerInput::Bytes { conn, bytes })
            }
            Some(Item::End(kind)) if is_open => {
                if let Some(wire) = self.wires.get_mut(&serial) {
                    wire.ends[end].is_open = false;
                }
                if let Some(session) = self.session(node, link) {
                    session.wires.remove(&conn);
                }
                let failure = failure(kind);
                self.tell(node, link, PeerInput::Closed { conn, failure })
            }
            Some(Item::Bytes(_)) => {
                // Nobody is there: a host that is up says so.
                if self.nodes[node].is_some() {
                    self.hang_up(serial, end, FailureKind::Reset);
                }
                Ok(())
            }
            Some(Item::End(_)) => Ok(()),
        }
    }

    /// One end of a wire ends it: the other one hears of it after what was sent before.
    pub(crate) fn hang_up(&mut self, serial: u64, end: usize, kind: FailureKind) {
        let now = self.now;
        let Some(link) = self.wires.get(&serial).map(|wire| wire.link) else {
            return;
        };
        let delay = self.delay_on(link);
        let Some(wire) = self.wires.get_mut(&serial) else {
            return;
        };
        wire.ends[end].is_open = false;
        let there = &mut wire.ends[1 - end];
        if there.is_open && !matches!(there.coming.back(), Some(Item::End(_))) {
            there.coming.push_back(Item::End(kind));
            there.last = there.last.max(now + delay);
            let at = there.last;
            self.at(at, Event::Arrival(serial, 1 - end));
        }
    }

    pub(super) fn send(&mut self, serial: u64, end: usize, bytes: &[u8]) {
        for piece in pieces(bytes, &mut self.random) {
            let Some(link) = self.wires.get(&serial).map(|wire| wire.link) else {
                return;
            };
            let at = self.now + self.delay_on(link);
            let Some(wire) = self.wires.get_mut(&serial) else {
                return;
            };
            let there = &mut wire.ends[1 - end];
            there.coming.push_back(Item::Bytes(piece));
            there.last = there.last.max(at);
            let at = there.last;
            self.at(at, Event::Arrival(serial, 1 - end));
        }
    }
}
