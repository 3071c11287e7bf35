// SPDX-License-Identifier: Apache-2.0
//! Properties of a whole speaker: sessions and tables together. The fuzz target and the replay of
//! its corpus in `bgp/core/tests/corpus.rs` share this file.

use std::net::Ipv4Addr;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use bgp_core::config::{
    ConnectMode, ExportAttributes, FamilyConfig, ImportMode, ImportPolicy, InstanceConfig,
    LocalRoutes, PeerAddress, PeerConfig, PeerName, Timers, Transit,
};
use bgp_core::fsm::State;
use bgp_core::peer::{
    ConnId, Direction, FailureKind, LocalSpeaker, Peer, PeerInput, PeerOutput, SessionAddresses,
    TransportFailure,
};
use bgp_core::rib::{Rib, RibInput, SessionInfo};
use bgp_wire::{
    AddPath, Capability, Fault, Open, PathAttributes, SessionContext, Treatment, Update,
    UpdateView, frame,
};
use router_types::{Asn, Family};

/// The AS of the speaker, and its neighbours': two outside, the second of which may send and is sent
/// several paths, and a client inside.
const OWN_ASN: u32 = 65_000;
const ASNS: [u32; 3] = [65_001, 65_002, OWN_ASN];

/// What the tables may take beside what was sent: they begin with some room.
const MEMORY: usize = 1 << 20;
/// What one octet that was received may cost at most. A prefix of one octet becomes a destination,
/// a path and an entry in each group.
const MEMORY_PER_OCTET: usize = 4096;

/// Any messages of several neighbours, sessions that come and go among them: no panic; a session
/// that RFC 7606 keeps is kept; all that is sent is without fault; memory is bounded by what came;
/// and nothing is left once all are gone.
///
/// An octet names the neighbour and what happens. UPDATEs take a length octet and so many bytes:
/// as they are, or as attributes before a prefix, or as changes (a place and a value each) to a good
/// message.
pub(crate) fn speaker_any_messages(data: &[u8]) {
    let mut speaker = Speaker::new();
    let mut rest = data;
    while let Some((&op, after)) = rest.split_first() {
        rest = after;
        let who = usize::from(op) % ASNS.len();
        match usize::from(op) / ASNS.len() % 8 {
            0 => speaker.come(who),
            1 => speaker.go(who),
            kind @ 2..=4 => {
                let (len, after) = take(rest, 1);
                let (bytes, after) = take(after, len.first().copied().unwrap_or(0).into());
                rest = after;
                speaker.update(
                    who,
                    &match kind {
                        2 => bytes.to_vec(),
                        3 => with_prefix(bytes),
                        _ => changed(who, bytes),
                    },
                );
            }
            5 => {
                let (prefix, after) = take(rest, 1);
                rest = after;
                let prefix = prefix.first().copied().unwrap_or(0);
                let id: &[u8] = if who == 1 {
                    &[0, 0, 0, prefix % 3]
                } else {
                    &[]
                };
                let len = id.len() as u8 + 2;
                speaker.update(who, &[&[0, len], id, &[8, prefix, 0, 0]].concat());
            }
            6 => {
                let (seconds, after) = take(rest, 1);
                rest = after;
                speaker.wait(seconds.first().copied().unwrap_or(0));
            }
            _ => speaker.receive(who, 5, &[0, 1, 0, 1]),
        }
        speaker.check(data.len());
    }
    for who in 0..ASNS.len() {
        speaker.go(who);
    }
    speaker
        .rib
        .handle(RibInput::LocalRoutes(LocalRoutes::default()), speaker.now);
    speaker.check(data.len());
    let stats = speaker.rib.stats();
    let left = (
        stats.routes,
        stats.rejected,
        stats.attribute_sets,
        stats.next_hops,
    );
    assert_eq!(left, (0, 0, 0, 0), "{stats:?}");
}

struct Speaker {
    now: Instant,
    rib: Rib,
    peers: Vec<Peer>,
    /// The connection of each session that is up.
    up: Vec<Option<ConnId>>,
    calls: u64,
}

impl Speaker {
    fn new() -> Speaker {
        let now = Instant::now();
        let router_id = Ipv4Addr::new(10, 0, 0, 1);
        let mut config = InstanceConfig::new("fuzz".into(), Asn(OWN_ASN), router_id)
            .expect("AS and identifier are not 0");
        config.transit = Transit::Allowed;
        config.keep_rejected = true;
        for who in 0..ASNS.len() {
            config
                .add_peer(name(who), peer_config(who))
                .expect("another name and address");
        }
        let local = LocalSpeaker {
            asn: Asn(OWN_ASN),
            router_id,
            restarted: false,
            forwarding_preserved: false,
        };
        let peer = |who| {
            let config = peer_config(who);
            let mut peer = Peer::new(name(who), config, local.clone(), 1, now);
            peer.handle(PeerInput::Start, now);
            peer
        };
        let mut speaker = Speaker {
            now,
            rib: Rib::new(config, now),
            peers: (0..ASNS.len()).map(peer).collect(),
            up: vec![None; ASNS.len()],
            calls: 0,
        };
        let mut routes = LocalRoutes::default();
        for who in 0..ASNS.len() {
            let own = "172.31.0.0/16".parse().expect("a prefix");
            routes.add(own, name(who), ExportAttributes::default());
        }
        speaker.rib.handle(RibInput::LocalRoutes(routes), now);
        speaker
    }

    /// A neighbour calls, and agrees.
    fn come(&mut self, who: usize) {
        if self.up[who].is_some() {
            return;
        }
        // After an error it pauses, and refuses calls.
        let waits = self.peers[who].state() == State::Active;
        self.calls += 1;
        let conn = ConnId {
            direction: Direction::Incoming,
            serial: self.calls,
        };
        let addresses = addresses(who);
        self.tell(who, PeerInput::Called { conn, addresses });
        let mut bytes = Vec::new();
        open(who).encode(&mut bytes);
        frame::encode_keepalive(&mut bytes);
        self.tell(who, PeerInput::Bytes { conn, bytes });
        assert!(self.up[who].is_some() || !waits);
    }

    fn go(&mut self, who: usize) {
        if let Some(conn) = self.up[who] {
            let failure = TransportFailure {
                kind: FailureKind::Reset,
                text: String::new(),
            };
            self.tell(who, PeerInput::Closed { conn, failure });
        }
    }

    /// Time passes in which neighbours are alive; what is overdue in the tables goes.
    fn wait(&mut self, seconds: u8) {
        self.now += Duration::from_secs(seconds.into());
        for who in 0..ASNS.len() {
            if let Some(conn) = self.up[who] {
                self.tell(who, PeerInput::Alive { conn });
            }
            self.tell(who, PeerInput::Timeout);
        }
        self.rib.handle(RibInput::Timeout, self.now);
    }

    fn update(&mut self, who: usize, body: &[u8]) {
        let Some(context) = self.peers[who]
            .negotiated()
            .map(|agreed| agreed.context.clone())
        else {
            return;
        };
        let ends = ends_a_session(body, &context);
        self.receive(who, 2, body);
        assert_eq!(self.up[who].is_none(), ends, "{body:02x?}");
    }

    fn receive(&mut self, who: usize, kind: u8, body: &[u8]) {
        let Some(conn) = self.up[who] else { return };
        let mut bytes = vec![0xff; 16];
        bytes.extend((19 + body.len() as u16).to_be_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(body);
        self.tell(who, PeerInput::Bytes { conn, bytes });
    }

    fn tell(&mut self, who: usize, input: PeerInput) {
        self.peers[who].handle(input, self.now);
        while let Some(output) = self.peers[who].poll_output() {
            let peer = name(who);
            let input = match output {
                PeerOutput::Up { conn, negotiated } => {
                    self.up[who] = Some(conn);
                    let session = Box::new(SessionInfo::from(&*negotiated));
                    RibInput::PeerUp { peer, session }
                }
                PeerOutput::Down { keep_routes, .. } => {
                    self.up[who] = None;
                    RibInput::PeerDown { peer, keep_routes }
                }
                PeerOutput::Routes(changes) => RibInput::Routes { peer, changes },
                PeerOutput::Resend { family } => RibInput::Resend { peer, family },
                PeerOutput::RefreshBegins { family } => RibInput::RefreshBegins { peer, family },
                PeerOutput::RefreshEnds { family } => RibInput::RefreshEnds { peer, family },
                PeerOutput::Connect { .. } | PeerOutput::Close { .. } | PeerOutput::Send { .. } => {
                    continue;
                }
            };
            self.rib.handle(input, self.now);
        }
        let is_up = self.peers[who].state() == State::Established;
        assert_eq!(self.up[who].is_some(), is_up);
    }

    fn check(&mut self, received: usize) {
        while self.rib.poll_output().is_some() {}
        while self.rib.poll_best().is_some() {}
        for who in 0..ASNS.len() {
            let context = self.peers[who].negotiated().map(|n| n.context.clone());
            while let Some(transmit) = self.rib.poll_transmit(&name(who)) {
                let context = context.as_ref().expect("only who is up is sent anything");
                is_without_fault(&transmit.bytes, context);
            }
        }
        let stats = self.rib.stats();
        let bound = MEMORY + received * MEMORY_PER_OCTET;
        assert!(
            stats.memory_bytes < bound,
            "{stats:?} after {received} octets"
        );
    }
}

/// Whether RFC 7606 ends the session for an UPDATE.
fn ends_a_session(body: &[u8], context: &SessionContext) -> bool {
    if body.len() < 4 {
        return true; // shorter than an UPDATE can be: its header says so
    }
    let Ok(view) = UpdateView::split(body) else {
        return true;
    };
    let mut canonical = Vec::new();
    let update = Update::parse(&view, context, &mut canonical);
    let decoded = PathAttributes::decode(&canonical, context);
    matches!(
        Fault::strongest(&update.faults(&decoded)),
        Some(Treatment::SessionReset(_) | Treatment::DisableFamily { .. })
    )
}

/// What a neighbour that is sent this finds wrong with it: nothing.
fn is_without_fault(mut bytes: &[u8], context: &SessionContext) {
    // The same session, seen from the other end.
    let mut theirs = context.clone();
    for family in &mut theirs.families {
        std::mem::swap(&mut family.add_path_receive, &mut family.add_path_send);
    }
    while !bytes.is_empty() {
        let mut canonical = Vec::new();
        let frame = frame::next(bytes, theirs.max_len())
            .expect("a message")
            .expect("whole");
        let view = UpdateView::split(frame.body).expect("an UPDATE");
        let update = Update::parse(&view, &theirs, &mut canonical);
        let decoded = PathAttributes::decode(&canonical, &theirs);
        assert_eq!(update.faults(&decoded), []);
        bytes = &bytes[frame.len..];
    }
}

fn take(bytes: &[u8], len: usize) -> (&[u8], &[u8]) {
    bytes.split_at(len.min(bytes.len()))
}

/// Attributes as they are, and 10.0.0.0/8.
fn with_prefix(attributes: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0, 0, attributes.len() as u8];
    body.extend_from_slice(attributes);
    body.extend([8, 10]);
    body
}

/// A good message with some octets changed: pairs of a place and a value.
fn changed(who: usize, changes: &[u8]) -> Vec<u8> {
    let [a, b, c, d] = ASNS[who].to_be_bytes();
    let path: &[u8] = if ASNS[who] == OWN_ASN {
        &[0x40, 2, 0]
    } else {
        &[0x40, 2, 6, 2, 1, a, b, c, d]
    };
    let attributes = [
        &[0x40, 1, 1, 0][..],
        path,
        &[0x40, 3, 4, 10, 0, 0, 10 + who as u8],
        &[0x80, 4, 4, 0, 0, 0, 1],
        &[0xc0, 8, 4, 0xfd, 0xe8, 0, 1],
        &[0xc0, 32, 12, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
        &[0xc0, 99, 2, 1, 2],
    ]
    .concat();
    let id: &[u8] = if who == 1 { &[0, 0, 0, 1] } else { &[] };
    let mut body = vec![0, 0, 0, attributes.len() as u8];
    body.extend(attributes);
    body.extend_from_slice(id);
    body.extend([8, 20 + who as u8]);
    let len = body.len();
    for change in changes.chunks_exact(2) {
        body[usize::from(change[0]) % len] = change[1];
    }
    body
}

fn name(who: usize) -> PeerName {
    PeerName::from(format!("peer {who}"))
}

fn peer_config(who: usize) -> PeerConfig {
    let ip = Ipv4Addr::new(10, 0, 0, 10 + who as u8);
    let mut family = FamilyConfig {
        import: ImportPolicy {
            mode: ImportMode::All,
        },
        ..FamilyConfig::default()
    };
    family.add_path.receive = who == 1;
    family.add_path.send = NonZeroU8::new(2).filter(|_| who == 1);
    let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
    let families = families.map(|each| (each, family.clone())).into();
    let address = PeerAddress::new(ip.into(), None).expect("a unicast address");
    let mut config = PeerConfig::new(address)
        .with_families(families)
        .expect("two families");
    config.asn = Some(Asn(ASNS[who]));
    config.connect = ConnectMode::Passive;
    config.timers = Timers::new(5, 90, 30).expect("timers in range");
    config.route_reflector_client = ASNS[who] == OWN_ASN;
    config
}

fn open(who: usize) -> Open {
    let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
    let mut capabilities: Vec<Capability> = families.map(Capability::Multiprotocol).into();
    capabilities.push(Capability::RouteRefresh);
    // The first one has two octets for an AS number, and short messages.
    if who > 0 {
        capabilities.push(Capability::FourOctetAs(Asn(ASNS[who])));
        capabilities.push(Capability::ExtendedMessages);
    }
    if who == 1 {
        let both = |family| AddPath {
            family,
            receive: true,
            send: true,
        };
        capabilities.push(Capability::AddPath(families.map(both).into()));
    }
    Open {
        asn: Asn(ASNS[who]),
        hold_time_s: 90,
        router_id: Ipv4Addr::new(10, 0, 0, 10 + who as u8),
        capabilities,
    }
}

fn addresses(who: usize) -> SessionAddresses {
    SessionAddresses {
        local: (Ipv4Addr::new(10, 0, 0, 1), 179).into(),
        remote: (Ipv4Addr::new(10, 0, 0, 10 + who as u8), 40000).into(),
        link: None,
        link_ipv4: None,
        link_ipv6: Some("fd00::1".parse().expect("an address")),
        network: None,
    }
}
