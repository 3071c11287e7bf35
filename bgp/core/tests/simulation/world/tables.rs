// SPDX-License-Identifier: Apache-2.0
//! The tables of a node in their turns, as the thread of bgp-io has them.

use bgp_core::rib::RibOutput;

use super::*;

/// Octets under way to a neighbour before its tables wait, few enough to be reached.
pub(super) const IN_FLIGHT: usize = 300;

/// A turn of the tables may be this late.
const TURN_MS: u64 = 20;

impl World {
    /// Gives the tables of a node something to do; a scripted neighbour has none.
    pub(crate) fn push(&mut self, node: usize, message: ForRib) {
        if let Some(tables) = self.nodes[node].as_mut().and_then(|n| n.tables.as_mut()) {
            tables.queue.push_back(message);
            self.schedule_turn(node);
        }
    }

    /// The tables of a node waited for room, perhaps.
    pub(super) fn wake(&mut self, node: usize) {
        let tables = self.nodes[node].as_mut().and_then(|n| n.tables.as_mut());
        if tables.is_some_and(|tables| std::mem::take(&mut tables.is_blocked)) {
            self.schedule_turn(node);
        }
    }

    fn schedule_turn(&mut self, node: usize) {
        let late = self.random.below(TURN_MS);
        let life = self.lives[node];
        let tables = self.nodes[node].as_mut().and_then(|n| n.tables.as_mut());
        if let Some(tables) = tables.filter(|tables| !tables.is_due) {
            tables.is_due = true;
            self.after(late, Event::Turn { node, life });
        }
    }

    /// The tables take what waits, and send what they have for those that can take it.
    pub(super) fn turn(&mut self, node: usize, most: usize) -> Result<(), String> {
        let now = self.now;
        let Some(Node {
            config,
            sessions,
            tables: Some(tables),
        }) = &mut self.nodes[node]
        else {
            return Ok(());
        };
        tables.is_due = false;
        let mut over = Vec::new();
        let mut taken = 0;
        // What is inherited is told right behind the session it is about.
        let is_due = |next: &mut ForRib| matches!(next, ForRib::Input(RibInput::Inherit { .. }));
        while let Some(message) = match taken < most {
            true => tables.queue.pop_front(),
            false => tables.queue.pop_front_if(is_due),
        } {
            taken += 1;
            let input = match message {
                ForRib::Input(input) => input,
                ForRib::Up {
                    link,
                    session,
                    epoch,
                    left,
                } => {
                    tables.epochs.insert(link, epoch);
                    tables.over_limit.remove(&link);
                    if let Some(left) = left {
                        let peer = name(link);
                        let inherit = RibInput::Inherit { peer, left };
                        tables.queue.push_front(ForRib::Input(inherit));
                    }
                    let peer = name(link);
                    RibInput::PeerUp { peer, session }
                }
            };
            if let RibInput::PeerDown { peer, .. } = &input {
                tables.epochs.retain(|link, _| name(*link) != *peer);
            }
            let told = watch::Told::by(&input);
            tables.rib.handle(input, now);
            while let Some(output) = tables.rib.poll_output() {
                match output {
                    RibOutput::LimitNear { .. } => {}
                    RibOutput::LimitExceeded {
                        peer,
                        family,
                        limit,
                        restart_s,
                    } => {
                        let link = tables.epochs.keys().find(|link| name(**link) == peer);
                        let link = *link.ok_or("too many routes of a session that is not up")?;
                        tables.over_limit.insert(link);
                        over.push((link, tables.epochs[&link], (family, limit, restart_s)));
                    }
                    RibOutput::ExportLimit { .. } => {
                        return Err(format!("node {node}: {output:?} without a limit"));
                    }
                }
            }
            watch::tables(tables, config, told, now)
                .map_err(|why| format!("node {node}: {why}"))?;
        }
        while let Some(change) = tables.rib.poll_best() {
            match change.best {
                Some(best) => tables.kernel.insert(change.prefix, best),
                None => tables.kernel.remove(&change.prefix),
            };
        }
        let is_behind = !tables.queue.is_empty();
        let mut sends = Vec::new();
        for (link, epoch) in &tables.epochs {
            let Some(session) = sessions.get(link) else {
                continue;
            };
            let conn = session.established.filter(|_| session.epoch == *epoch);
            let wire = conn.and_then(|conn| session.wires.get(&conn));
            let end = usize::from(self.topology.links[*link][0].node != node);
            let mut backlog = match wire {
                Some(serial) => self.wires[serial].ends[1 - end].backlog(),
                None => 0,
            };
            while backlog < IN_FLIGHT {
                let Some(transmit) = tables.rib.poll_transmit(&name(*link)) else {
                    break;
                };
                backlog += transmit.bytes.len();
                watch::end_of_rib(&tables.rib, &name(*link), &transmit.bytes)
                    .map_err(|why| format!("node {node}: {why}"))?;
                // What a session that is down was to be sent is lost with it.
                if wire.is_some() {
                    sends.push((*link, transmit.bytes));
                }
            }
            tables.is_blocked |= backlog >= IN_FLIGHT;
        }
        for (link, bytes) in sends {
            self.send_routes(node, link, &bytes);
        }
        if is_behind {
            self.schedule_turn(node);
        }
        self.arm(node, None);
        for (link, epoch, limit) in over {
            self.end_session(node, link, epoch, limit)?;
        }
        Ok(())
    }

    /// Ends a session by which too many routes came.
    fn end_session(
        &mut self,
        node: usize,
        link: usize,
        epoch: u64,
        (family, limit, restart_s): (Family, u32, u32),
    ) -> Result<(), String> {
        if self.session(node, link).is_none_or(|s| s.epoch != epoch) {
            return Ok(());
        }
        self.disturb(link);
        let reason = StopReason::PrefixLimit {
            limit,
            family,
            restart_s,
        };
        self.tell(node, link, PeerInput::Stop(reason))
    }
}
