// SPDX-License-Identifier: Apache-2.0
//! Virtual time, and everything that happens in it: what the caller of bgp-core does with sockets,
//! clocks and threads is done here by events in one queue.

mod connections;
mod stranger;
mod tables;
mod take_over;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bgp_core::peer::{
    CloseHow, ConnId, Direction, FailureKind, PeerInput, PeerOutput, SessionAddresses, StopReason,
    TransportFailure,
};
use bgp_core::rib::{RibInput, SessionInfo};
use bgp_wire::{FamilyContext, MessageKind};
use router_types::Family;

use crate::case::Case;
use crate::filter::{Filter, Way};
use crate::node::{Birth, ForRib, Node, Standing, local_routes};
use crate::random::Random;
use crate::told::Told;
use crate::topology::{End, Topology, name};
use crate::wire::{Item, Wire, pieces};

/// Something to come.
#[derive(Debug)]
pub(crate) enum Event {
    /// An attempt to connect arrives.
    Syn {
        link: usize,
        end: usize,
        conn: ConnId,
        life: u32,
    },
    /// The one who dialled hears that it is connected.
    SynAck(u64),
    /// The next thing under way to an end of a wire arrives.
    Arrival(u64, usize),
    /// The tables of a node look at what waits for them.
    Turn { node: usize, life: u32 },
    /// A node knows its own destinations.
    Locals { node: usize, life: u32 },
    /// A node is back.
    Back(usize),
    /// A shut down session is to start again.
    Unshut { link: usize, end: usize },
    /// A session whose ends dialled at once must be up by now, if nothing came between.
    Raced { link: usize, since: Instant },
    /// A new process takes the sessions of a node over.
    TakeOver { node: usize, life: u32 },
    /// What neighbours of a node that restarts had announced is known again.
    SendEnds { node: usize, life: u32 },
}

/// A delay from which on a link counts as disturbed.
const SLOW: Duration = Duration::from_millis(100);

/// Everything there is.
pub(crate) struct World {
    pub(crate) case: Case,
    pub(crate) topology: Topology,
    pub(crate) random: Random,
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Option<Node>>,
    pub(crate) standing: Vec<Standing>,
    /// How often a node has crashed.
    pub(crate) lives: Vec<u32>,
    /// How it comes back.
    pub(crate) births: Vec<Birth>,
    /// Until when nothing passes a link.
    pub(crate) frozen: Vec<Option<Instant>>,
    /// When something last happened to a link that sessions may be late for.
    pub(crate) disturbed: Vec<Instant>,
    pub(crate) wires: BTreeMap<u64, Wire>,
    /// When an UPDATE was sent last.
    pub(crate) last_update: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    serial: u64,
    /// What each session, and the tables of each node, wait for; and the same by time.
    armed: BTreeMap<Timer, Instant>,
    timers: BTreeSet<(Instant, Timer)>,
}

/// A node, and a link of it or its tables.
type Timer = (usize, Option<usize>);

impl World {
    pub(crate) fn new(case: &Case) -> World {
        let topology = Topology::of(case);
        let now = Instant::now();
        let mut world = World {
            case: case.clone(),
            random: Random::new(case.seed),
            now,
            nodes: topology.nodes.iter().map(|_| None).collect(),
            standing: topology.nodes.iter().map(|_| Standing::default()).collect(),
            lives: vec![0; topology.nodes.len()],
            births: vec![Birth::First; topology.nodes.len()],
            frozen: vec![None; topology.links.len()],
            disturbed: vec![now; topology.links.len()],
            wires: BTreeMap::new(),
            last_update: now,
            events: BTreeMap::new(),
            serial: 0,
            armed: BTreeMap::new(),
            timers: BTreeSet::new(),
            topology,
        };
        for node in 0..world.nodes.len() {
            let at = world.random.below(2_000);
            world.after(at, Event::Back(node));
        }
        world.give_policies();
        world
    }

    /// Has external sessions of speakers take and send everything, where they need a policy for it.
    fn give_policies(&mut self) {
        for node in 0..self.topology.speakers() {
            for (link, _) in self.topology.links_of(node) {
                if self.case.more.strict && !self.topology.is_internal(link) {
                    for way in [Way::In, Way::Out] {
                        let filters = &mut self.standing[node].filters;
                        filters.insert((link, way), Filter::Open);
                    }
                }
            }
        }
    }

    pub(crate) fn after(&mut self, ms: u64, event: Event) {
        self.at(self.now + Duration::from_millis(ms), event);
    }

    /// Something arrives at an end of a wire.
    pub(crate) fn arrives(&mut self, at: Instant, serial: u64, end: usize) {
        self.at(at, Event::Arrival(serial, end));
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.serial += 1;
        self.events.insert((at, self.serial), event);
    }

    /// How long something takes on a link: mostly little, sometimes a retransmission.
    fn delay_on(&mut self, link: usize) -> Duration {
        let delay = self.delay();
        if delay > SLOW {
            self.disturb(link);
        }
        delay
    }

    /// Something happens to a link.
    pub(crate) fn disturb(&mut self, link: usize) {
        self.disturbed[link] = self.now;
    }

    fn delay(&mut self) -> Duration {
        let ms = match self.random.below(30) {
            0 => 200 + self.random.below(3_000),
            _ => self.random.below(30),
        };
        // Never together with a timer.
        Duration::from_micros(ms * 1_000 + 1 + self.random.below(900))
    }

    /// Whether nobody is away, and nothing is to come that somebody decided before.
    pub(crate) fn is_through(&self) -> bool {
        !self.events.values().any(|event| match event {
            Event::Back(_)
            | Event::Unshut { .. }
            | Event::TakeOver { .. }
            | Event::SendEnds { .. } => true,
            Event::Raced { .. }
            | Event::Syn { .. }
            | Event::SynAck(_)
            | Event::Arrival(..)
            | Event::Turn { .. }
            | Event::Locals { .. } => false,
        })
    }

    /// Whether something is under way to somebody who is there.
    pub(crate) fn has_mail(&self) -> bool {
        let mut ends = self.wires.values().flat_map(|wire| &wire.ends);
        ends.any(|end| end.is_open && !end.coming.is_empty())
    }

    /// Lets everything happen until a time.
    pub(crate) fn run_until(&mut self, end: Instant) -> Result<(), String> {
        loop {
            let event = self.events.keys().next().map(|(at, _)| *at);
            let timer = self.timers.first().copied();
            let next = [event, timer.map(|(at, _)| at)].into_iter().flatten();
            let Some(at) = next.min().filter(|at| *at <= end) else {
                self.now = end;
                return Ok(());
            };
            // A timer may be due at once, never earlier.
            self.now = self.now.max(at);
            match timer {
                Some((due, (node, link))) if due <= at => self.fire(node, link)?,
                Some(_) | None => {
                    if let Some((_, event)) = self.events.pop_first() {
                        self.happen(event)?;
                    }
                }
            }
        }
    }

    /// Takes note of when a session, or the tables of a node, want to be woken.
    fn arm(&mut self, node: usize, link: Option<usize>) {
        let there = self.nodes[node].as_ref();
        let at = there.and_then(|there| match link {
            Some(link) => there.sessions.get(&link)?.peer.poll_timeout(),
            None => there.tables.as_ref()?.rib.poll_timeout(),
        });
        let timer = (node, link);
        let before = match at {
            Some((at, _)) => {
                self.timers.insert((at, timer));
                self.armed.insert(timer, at)
            }
            None => self.armed.remove(&timer),
        };
        if let Some(before) = before.filter(|before| at.is_none_or(|(at, _)| at != *before)) {
            self.timers.remove(&(before, timer));
        }
    }

    /// Nothing of a node waits for anything any more.
    pub(crate) fn disarm(&mut self, node: usize) {
        self.armed.retain(|(other, _), _| *other != node);
        self.timers.retain(|(_, (other, _))| *other != node);
    }

    fn fire(&mut self, node: usize, link: Option<usize>) -> Result<(), String> {
        match link {
            Some(link) => self.tell(node, link, PeerInput::Timeout),
            None => {
                self.push(node, ForRib::Input(RibInput::Timeout));
                // Its deadline passes only when it hears of it.
                self.turn(node, usize::MAX)
            }
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Syn {
                link,
                end,
                conn,
                life,
            } => self.syn(link, end, conn, life),
            Event::SynAck(wire) => self.syn_ack(wire),
            Event::Arrival(wire, end) => self.arrival(wire, end),
            Event::Turn { node, life } if self.lives[node] == life => {
                let most = 1 + self.random.below(4) as usize;
                self.turn(node, most)
            }
            Event::Locals { node, life } if self.lives[node] == life => {
                let routes = local_routes(&self.topology, node, &self.standing[node]);
                self.push(node, ForRib::Input(RibInput::LocalRoutes(routes)));
                Ok(())
            }
            Event::Turn { .. } | Event::Locals { .. } => Ok(()),
            Event::Back(node) => self.back(node),
            Event::Unshut { link, end } => {
                let node = self.topology.links[link][end].node;
                self.standing[node].shut.remove(&link);
                self.configure(node)
            }
            Event::Raced { link, since } => self.raced(link, since),
            Event::TakeOver { node, life } => match self.lives[node] == life {
                true => self.take_over(node),
                false => Ok(()),
            },
            Event::SendEnds { node, life } => {
                if self.lives[node] == life {
                    self.push(node, ForRib::Input(RibInput::SendEnds));
                }
                Ok(())
            }
        }
    }

    /// A node is there, for the first time or again.
    fn back(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].is_some() {
            return Ok(());
        }
        let links = self.bear(node);
        self.begin(node, links)
    }

    /// Has a node tell its tables what it knows, and its sessions to begin.
    fn begin(&mut self, node: usize, links: Vec<usize>) -> Result<(), String> {
        if self.topology.nodes[node].is_speaker {
            self.tell_metrics(node);
            let life = self.lives[node];
            let at = self.random.below(3_000);
            self.after(at, Event::Locals { node, life });
            if matches!(self.births[node], Birth::Restart { .. }) {
                self.push(node, ForRib::Input(RibInput::HoldEnds));
                let at = self.random.below(10_000);
                self.after(at, Event::SendEnds { node, life });
            }
        }
        for link in links {
            self.tell(node, link, PeerInput::Start)?;
        }
        Ok(())
    }

    /// Makes a node of what stands. Returns its links.
    fn bear(&mut self, node: usize) -> Vec<usize> {
        let fresh = Node::new(
            &self.case,
            &self.topology,
            node,
            &self.standing[node],
            self.births[node],
            self.now,
        );
        let links: Vec<usize> = fresh.sessions.keys().copied().collect();
        for link in &links {
            self.disturb(*link);
        }
        self.nodes[node] = Some(fresh);
        links
    }

    /// What waits for a link that is frozen waits until then.
    fn waits(&mut self, link: usize, event: Event) -> Option<Event> {
        match self.frozen[link] {
            Some(until) if until > self.now => {
                let delay = self.delay_on(link);
                self.at(until + delay, event);
                None
            }
            Some(_) | None => Some(event),
        }
    }

    pub(crate) fn session(
        &mut self,
        node: usize,
        link: usize,
    ) -> Option<&mut crate::node::Session> {
        self.nodes[node].as_mut()?.sessions.get_mut(&link)
    }

    /// The end of a link a node has.
    fn end_of(&self, node: usize, link: usize) -> usize {
        usize::from(self.topology.links[link][0].node != node)
    }

    /// Tells a session, and does what it wants done.
    pub(crate) fn tell(
        &mut self,
        node: usize,
        link: usize,
        input: PeerInput,
    ) -> Result<(), String> {
        let now = self.now;
        let is_timeout = input == PeerInput::Timeout;
        let Some(session) = self.session(node, link) else {
            return Ok(());
        };
        session.peer.handle(input, now);
        let hold = session.peer.negotiated().map(|agreed| agreed.hold_s);
        if let (true, Some(hold_s), Some(_)) = (is_timeout, hold, session.established)
            && session.peer.negotiated().is_some()
            && now > session.heard_at + Duration::from_secs(hold_s.into())
        {
            return Err(format!(
                "node {node}, link {link}: up, and nothing was heard for the hold time"
            ));
        }
        self.outputs(node, link)
    }

    /// Does what a session wants done.
    fn outputs(&mut self, node: usize, link: usize) -> Result<(), String> {
        let Some(session) = self.session(node, link) else {
            return Ok(());
        };
        let mut outputs = Vec::new();
        while let Some(output) = session.peer.poll_output() {
            outputs.push(output);
        }
        for output in outputs {
            self.output(node, link, output)?;
        }
        self.arm(node, Some(link));
        Ok(())
    }

    fn output(&mut self, node: usize, link: usize, output: PeerOutput) -> Result<(), String> {
        let (now, end, life) = (self.now, self.end_of(node, link), self.lives[node]);
        let is_speaker = self.topology.nodes[node].is_speaker;
        let Some(session) = self.session(node, link) else {
            return Ok(());
        };
        match output {
            PeerOutput::Connect { conn } => {
                session.dials.insert(conn);
                let event = Event::Syn {
                    link,
                    end,
                    conn,
                    life,
                };
                let delay = self.delay_on(link);
                self.at(now + delay, event);
            }
            PeerOutput::Close { conn, how } => {
                session.dials.remove(&conn);
                if let Some(serial) = session.wires.remove(&conn) {
                    match how {
                        CloseHow::AfterSending => self.hang_up(serial, end, FailureKind::Closed),
                        CloseHow::Abort => {
                            if let Some(wire) = self.wires.get_mut(&serial) {
                                wire.ends[1 - end].lose(&mut self.random);
                            }
                            self.hang_up(serial, end, FailureKind::Reset);
                        }
                    }
                }
            }
            PeerOutput::Send { conn, bytes } => {
                let Some(serial) = session.wires.get(&conn).copied() else {
                    return Err(format!("node {node} sends on {conn:?}, which is not there"));
                };
                if session.established == Some(conn) && is_keepalive(&bytes) {
                    watch::keepalive(session, now).map_err(|e| format!("node {node}: {e}"))?;
                }
                let bytes = match self.case.more.partial && !is_speaker {
                    true => stranger::without_ipv6_restart(bytes),
                    false => bytes,
                };
                self.send(serial, end, &bytes);
            }
            PeerOutput::Up { conn, negotiated } => {
                session.established = Some(conn);
                session.epoch += 1;
                session.heard_at = now;
                session.said_at = None;
                session.told = Told::default();
                let (epoch, left) = (session.epoch, session.left.take());
                self.forwards(node, link, &negotiated)?;
                if is_speaker {
                    let up = ForRib::Up {
                        link,
                        session: Box::new(SessionInfo::from(&*negotiated)),
                        epoch,
                        left,
                    };
                    self.push(node, up);
                } else {
                    self.say_everything(node, link);
                }
            }
            PeerOutput::Down {
                reason,
                keep_routes,
            } => {
                session.established = None;
                watch::reason(session, &reason, now)
                    .map_err(|e| format!("node {node}, link {link}: {e}"))?;
                let peer = name(link);
                self.push(
                    node,
                    ForRib::Input(RibInput::PeerDown { peer, keep_routes }),
                );
            }
            PeerOutput::Routes(changes) => {
                session.told.note(&changes);
                let peer = name(link);
                self.push(node, ForRib::Input(RibInput::Routes { peer, changes }));
            }
            PeerOutput::Resend { family } => {
                if is_speaker {
                    let peer = name(link);
                    self.push(node, ForRib::Input(RibInput::Resend { peer, family }));
                } else {
                    self.say_again(node, link, family);
                }
            }
            PeerOutput::RefreshBegins { family } => {
                session.told.begin(family);
                let peer = name(link);
                self.push(
                    node,
                    ForRib::Input(RibInput::RefreshBegins { peer, family }),
                );
            }
            PeerOutput::RefreshEnds { family } => {
                session.told.end(family);
                let peer = name(link);
                self.push(node, ForRib::Input(RibInput::RefreshEnds { peer, family }));
            }
        }
        Ok(())
    }

    /// How a family goes over a session that is up.
    pub(crate) fn context(
        &self,
        node: usize,
        link: usize,
        family: Family,
    ) -> Option<FamilyContext> {
        let session = self.nodes[node].as_ref()?.sessions.get(&link)?;
        session.peer.negotiated()?.context.family(family).copied()
    }

    /// Sends UPDATEs in the session of a node, if it is up.
    pub(crate) fn send_routes(&mut self, node: usize, link: usize, bytes: &[u8]) {
        let end = self.end_of(node, link);
        let serial = self.session(node, link).and_then(|session| {
            let established = session.established?;
            session.wires.get(&established).copied()
        });
        if let Some(serial) = serial {
            self.last_update = self.now;
            self.send(serial, end, bytes);
        }
    }

    /// The wires with an end at a node, with that end.
    pub(crate) fn wires_of(&self, node: usize) -> Vec<(u64, usize)> {
        let of = |(serial, wire): (&u64, &Wire)| {
            let ends = self.topology.links[wire.link];
            let end = ends.iter().position(|end| end.node == node)?;
            Some((*serial, end))
        };
        self.wires.iter().filter_map(of).collect()
    }

    /// The links whose session is not up at one of its ends, or not on one connection.
    pub(crate) fn down(&self) -> BTreeSet<usize> {
        let up_on = |world: &World, link: usize, end: &End| {
            let session = world.nodes[end.node].as_ref()?.sessions.get(&link)?;
            session.wires.get(&session.established?).copied()
        };
        let mut down = BTreeSet::new();
        for (link, [one, other]) in self.topology.links.iter().enumerate() {
            let wire = up_on(self, link, one);
            if wire.is_none() || wire != up_on(self, link, other) {
                down.insert(link);
            }
        }
        down
    }
}

fn addresses(here: &End, there: &End) -> SessionAddresses {
    SessionAddresses {
        local: (here.v4, 179).into(),
        remote: (there.v4, 179).into(),
        link: None,
        link_ipv4: Some(here.v4),
        link_ipv6: Some(here.v6),
        network: None,
    }
}

fn failure(kind: FailureKind) -> TransportFailure {
    TransportFailure {
        kind,
        text: "simulated".into(),
    }
}

fn is_keepalive(message: &[u8]) -> bool {
    message.len() == 19 && message[18] == MessageKind::Keepalive as u8
}
