// SPDX-License-Identifier: Apache-2.0
//! Two speakers that dial each other at the same time, with every message delayed at random: one
//! connection stays, the same at both ends, and no session that came up goes down again.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp_core::config::{PeerAddress, PeerConfig};
use bgp_core::fsm::State;
use bgp_core::peer::{
    CloseHow, ConnId, Direction, FailureKind, LocalSpeaker, Peer, PeerInput, PeerOutput,
    SessionAddresses, TransportFailure,
};
use router_types::Asn;

/// What travels on a connection towards one end.
#[derive(Debug)]
enum Packet {
    Bytes(Vec<u8>),
    Closed,
}

/// One TCP connection: who dialled, and what is under way to each end.
#[derive(Debug)]
struct Wire {
    dialler: usize,
    /// The ends' names of it; the called end has one once the call has arrived.
    ends: [Option<ConnId>; 2],
    towards: [VecDeque<Packet>; 2],
    /// Whether an end has closed it.
    closed: [bool; 2],
}

struct World {
    now: Instant,
    random: u64,
    peers: [Peer; 2],
    wires: Vec<Wire>,
    calls: u64,
    /// How often the session of each end came up and went down.
    ups: [u64; 2],
    downs: [u64; 2],
}

impl World {
    fn new(seed: u64, ids: [u8; 2]) -> World {
        let now = Instant::now();
        let peer = |own: u8, other: u8, seed| {
            let local = LocalSpeaker {
                asn: Asn(65000 + u32::from(own)),
                router_id: Ipv4Addr::new(10, 0, 0, own),
                restarted: false,
                forwarding_preserved: false,
            };
            let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, other));
            let config = PeerConfig::new(PeerAddress::new(ip, None).unwrap());
            Peer::new("other".into(), config, local, seed, now)
        };
        World {
            now,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            peers: [peer(ids[0], ids[1], seed), peer(ids[1], ids[0], seed + 1)],
            wires: Vec::new(),
            calls: 0,
            ups: [0; 2],
            downs: [0; 2],
        }
    }

    /// A number below `limit` (xorshift: a seed is a run).
    fn choose(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random >> 33).unwrap() % limit
    }

    fn tell(&mut self, end: usize, input: PeerInput) {
        self.peers[end].handle(input, self.now);
        while let Some(output) = self.peers[end].poll_output() {
            self.output(end, output);
        }
    }

    fn output(&mut self, end: usize, output: PeerOutput) {
        match output {
            PeerOutput::Connect { conn } => {
                let mut ends = [None, None];
                ends[end] = Some(conn);
                self.wires.push(Wire {
                    dialler: end,
                    ends,
                    towards: Default::default(),
                    closed: [false; 2],
                });
            }
            PeerOutput::Send { conn, bytes } => {
                if let Some(wire) = self.wire(end, conn) {
                    wire.towards[1 - end].push_back(Packet::Bytes(bytes));
                }
            }
            PeerOutput::Close { conn, how } => {
                if let Some(wire) = self.wire(end, conn) {
                    if how == CloseHow::Abort {
                        wire.towards[1 - end].clear();
                    }
                    wire.towards[1 - end].push_back(Packet::Closed);
                    wire.closed[end] = true;
                }
            }
            PeerOutput::Up { .. } => self.ups[end] += 1,
            PeerOutput::Down { .. } => self.downs[end] += 1,
            PeerOutput::Routes(_)
            | PeerOutput::Resend { .. }
            | PeerOutput::RefreshBegins { .. }
            | PeerOutput::RefreshEnds { .. } => {}
        }
    }

    fn wire(&mut self, end: usize, conn: ConnId) -> Option<&mut Wire> {
        self.wires
            .iter_mut()
            .find(|wire| wire.ends[end] == Some(conn))
    }

    /// Does one of the things that may happen next. `false` when nothing is left.
    fn step(&mut self) -> bool {
        let mut possible = Vec::new();
        for (number, wire) in self.wires.iter().enumerate() {
            let called = 1 - wire.dialler;
            if wire.ends[called].is_none() && !wire.closed[wire.dialler] {
                possible.push((number, None));
                continue;
            }
            for end in [0, 1] {
                if !wire.towards[end].is_empty() && wire.ends[end].is_some() {
                    possible.push((number, Some(end)));
                }
            }
        }
        if possible.is_empty() {
            return false;
        }
        let (number, end) = possible[self.choose(possible.len())];
        match end {
            None => self.answer(number),
            Some(end) => self.deliver(number, end),
        }
        true
    }

    /// The call arrives, and the dialler hears that it is connected.
    fn answer(&mut self, number: usize) {
        let dialler = self.wires[number].dialler;
        self.calls += 1;
        let incoming = ConnId {
            direction: Direction::Incoming,
            serial: self.calls,
        };
        self.wires[number].ends[1 - dialler] = Some(incoming);
        let outgoing = self.wires[number].ends[dialler].unwrap();
        let addresses = addresses();
        let events = [
            (
                1 - dialler,
                PeerInput::Called {
                    conn: incoming,
                    addresses: addresses.clone(),
                },
            ),
            (
                dialler,
                PeerInput::Connected {
                    conn: outgoing,
                    addresses,
                },
            ),
        ];
        for (end, input) in events {
            self.tell(end, input);
        }
    }

    fn deliver(&mut self, number: usize, end: usize) {
        let wire = &mut self.wires[number];
        let packet = wire.towards[end].pop_front().unwrap();
        if wire.closed[end] {
            return;
        }
        let conn = wire.ends[end].unwrap();
        let input = match packet {
            Packet::Bytes(bytes) => PeerInput::Bytes { conn, bytes },
            Packet::Closed => {
                wire.closed[end] = true;
                let failure = TransportFailure {
                    kind: FailureKind::Closed,
                    text: "closed".into(),
                };
                PeerInput::Closed { conn, failure }
            }
        };
        self.tell(end, input);
    }

    /// The next timer.
    fn tick(&mut self) {
        let due = self.peers.iter().filter_map(Peer::poll_timeout).min();
        let (at, _) = due.expect("a session has timers");
        self.now = self.now.max(at);
        for end in [0, 1] {
            self.tell(end, PeerInput::Timeout);
        }
    }

    fn are_up(&self) -> bool {
        self.peers
            .iter()
            .all(|peer| peer.state() == State::Established)
    }
}

fn addresses() -> SessionAddresses {
    let any = SocketAddr::from(([10, 0, 0, 1], 179));
    SessionAddresses {
        local: any,
        remote: any,
        link: None,
        link_ipv4: None,
        link_ipv6: None,
        network: None,
    }
}

#[test]
fn whatever_is_late_one_connection_stays_and_no_session_goes_down() {
    let mut both_dialled = 0;
    for seed in 1..=4000 {
        let ids = if seed % 2 == 0 { [1, 2] } else { [2, 1] };
        let mut world = World::new(seed, ids);
        world.tell(0, PeerInput::Start);
        world.tell(1, PeerInput::Start);
        while world.step() {}
        // Timers are for what is lost; here nothing is, but a connection may wait for another.
        let begun = world.now;
        while !world.are_up() {
            world.tick();
            while world.step() {}
            assert!(
                world.now - begun < Duration::from_secs(60),
                "seed {seed}: {:?}",
                [world.peers[0].state(), world.peers[1].state()]
            );
        }
        assert_eq!(world.downs, [0, 0], "seed {seed}: a session went down");
        assert_eq!(world.ups, [1, 1], "seed {seed}");
        let open: Vec<&Wire> = world
            .wires
            .iter()
            .filter(|wire| wire.closed == [false; 2])
            .collect();
        assert_eq!(open.len(), 1, "seed {seed}: {open:?}");
        both_dialled += u64::from(world.wires.len() == 2);
    }
    assert!(both_dialled > 1000, "hardly any collision: {both_dialled}");
}
