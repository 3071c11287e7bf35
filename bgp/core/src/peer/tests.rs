// SPDX-License-Identifier: Apache-2.0
use bgp_wire::{Capability, ErrorKind, MessageKind, Notification, Open, frame};
use proptest::prelude::*;

use super::timers::IDLE_HOLD_CAP;
use super::*;
use crate::config::{GracefulRestart, InstanceName, Md5Password, PeerAddress, Timers};
use crate::deliveries::Deliveries;
use crate::routes::RouteChange;

const LOCAL: &str = "10.0.0.1:179";
const REMOTE: &str = "10.0.0.2:40000";

fn config() -> PeerConfig {
    let mut config = PeerConfig::new(PeerAddress::new("10.0.0.2".parse().unwrap(), None).unwrap());
    config.asn = Some(Asn(65002));
    config.timers = Timers::new(5, 9, 3).unwrap();
    config
}

fn peer_with(config: PeerConfig, now: Instant) -> Peer {
    let local = LocalSpeaker {
        asn: Asn(65001),
        router_id: Ipv4Addr::new(10, 0, 0, 1),
        restarted: false,
        forwarding_preserved: false,
    };
    Peer::new("p".into(), config, local, 7, now)
}

fn addresses() -> SessionAddresses {
    SessionAddresses {
        local: LOCAL.parse().unwrap(),
        remote: REMOTE.parse().unwrap(),
        link: None,
        link_ipv4: None,
        link_ipv6: None,
        network: None,
    }
}

fn outputs(peer: &mut Peer) -> Vec<PeerOutput> {
    std::iter::from_fn(|| peer.poll_output()).collect()
}

fn open_from(id: [u8; 4], asn: u32) -> Open {
    Open {
        asn: Asn(asn),
        hold_time_s: 90,
        router_id: id.into(),
        capabilities: vec![
            Capability::Multiprotocol(Family::IPV4_UNICAST),
            Capability::RouteRefresh,
            Capability::FourOctetAs(Asn(asn)),
        ],
    }
}

fn encoded(open: &Open) -> Vec<u8> {
    let mut bytes = Vec::new();
    open.encode(&mut bytes);
    bytes
}

fn keepalive() -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode_keepalive(&mut bytes);
    bytes
}

fn notification(kind: ErrorKind) -> Vec<u8> {
    let mut bytes = Vec::new();
    Notification::new(kind).encode(&mut bytes);
    bytes
}

fn failure(kind: FailureKind) -> TransportFailure {
    TransportFailure {
        kind,
        text: "as the test says".into(),
    }
}

/// Starts a peer and gives it the connection it dials.
fn connected(peer: &mut Peer, now: Instant) -> ConnId {
    peer.handle(PeerInput::Start, now);
    dialled(peer, now)
}

fn dialled(peer: &mut Peer, now: Instant) -> ConnId {
    let conn = outputs(peer)
        .into_iter()
        .find_map(|output| match output {
            PeerOutput::Connect { conn } => Some(conn),
            _ => None,
        })
        .expect("it dials");
    peer.handle(
        PeerInput::Connected {
            conn,
            addresses: addresses(),
        },
        now,
    );
    conn
}

fn established(peer: &mut Peer, now: Instant) -> ConnId {
    let conn = connected(peer, now);
    let mut bytes = encoded(&open_from([10, 0, 0, 2], 65002));
    bytes.extend(keepalive());
    peer.handle(PeerInput::Bytes { conn, bytes }, now);
    assert_eq!(peer.state(), State::Established);
    outputs(peer);
    conn
}

fn notification_sent(outputs: &[PeerOutput]) -> Option<ErrorKind> {
    outputs.iter().find_map(|output| match output {
        PeerOutput::Send { bytes, .. } => {
            let message = frame::next(bytes, 4096).unwrap().unwrap();
            (message.kind == MessageKind::Notification)
                .then(|| Notification::decode(message.body).unwrap().kind)
        }
        _ => None,
    })
}

#[test]
fn a_session_comes_up_with_what_both_sides_offer() {
    let now = Instant::now();
    let mut peer = peer_with(config(), now);
    let conn = connected(&mut peer, now);
    assert_eq!(peer.state(), State::OpenSent);
    // Byte by byte: messages may be cut anywhere.
    let mut bytes = encoded(&open_from([10, 0, 0, 2], 65002));
    bytes.extend(keepalive());
    for byte in bytes {
        peer.handle(
            PeerInput::Bytes {
                conn,
                bytes: vec![byte],
            },
            now,
        );
    }
    let outputs = outputs(&mut peer);
    let up = outputs.iter().find_map(|output| match output {
        PeerOutput::Up { negotiated, .. } => Some(negotiated),
        _ => None,
    });
    let negotiated = up.expect("up");
    assert_eq!(
        negotiated.families().collect::<Vec<_>>(),
        [Family::IPV4_UNICAST]
    );
    assert_eq!(negotiated.hold_s, 9);
    assert_eq!(negotiated.keepalive, Some(Duration::from_secs(3)));
    assert!(negotiated.route_refresh && !negotiated.is_internal());
}

#[test]
fn keepalives_go_out_in_time_and_silence_ends_the_session() {
    let start = Instant::now();
    let mut peer = peer_with(config(), start);
    established(&mut peer, start);
    let mut keepalives = 0;
    let mut now = start;
    while peer.state() == State::Established {
        let (at, _) = peer.poll_timeout().unwrap();
        assert!(at >= now && at <= now + Duration::from_secs(9));
        now = at;
        peer.handle(PeerInput::Timeout, now);
        let outputs = outputs(&mut peer);
        if peer.state() == State::Established {
            keepalives += outputs.len();
        } else {
            assert_eq!(
                notification_sent(&outputs),
                Some(ErrorKind::HOLD_TIMER_EXPIRED)
            );
        }
    }
    assert_eq!(now - start, Duration::from_secs(9));
    assert!((3..=4).contains(&keepalives), "{keepalives}");
    let snapshot = peer.snapshot(now);
    assert_eq!(
        snapshot.down.unwrap().to_string(),
        "nothing was heard from the peer for the hold time of 9 s"
    );
}

#[test]
fn bytes_that_wait_keep_a_session_alive() {
    let start = Instant::now();
    let mut peer = peer_with(config(), start);
    let conn = established(&mut peer, start);
    let later = start + Duration::from_secs(8);
    peer.handle(PeerInput::Alive { conn }, later);
    peer.handle(PeerInput::Timeout, start + Duration::from_secs(10));
    assert_eq!(peer.state(), State::Established);
}

#[test]
fn of_two_connections_the_one_of_the_higher_identifier_stays() {
    for (id, winner) in [
        ([10, 0, 0, 2], Direction::Incoming),
        ([9, 0, 0, 2], Direction::Outgoing),
    ] {
        for first in [Direction::Outgoing, Direction::Incoming] {
            let now = Instant::now();
            let mut peer = peer_with(config(), now);
            let outgoing = connected(&mut peer, now);
            let incoming = ConnId {
                direction: Direction::Incoming,
                serial: 1,
            };
            peer.handle(
                PeerInput::Called {
                    conn: incoming,
                    addresses: addresses(),
                },
                now,
            );
            outputs(&mut peer);
            let open = encoded(&open_from(id, 65002));
            let order = match first {
                Direction::Outgoing => [outgoing, incoming],
                Direction::Incoming => [incoming, outgoing],
            };
            for conn in order {
                peer.handle(
                    PeerInput::Bytes {
                        conn,
                        bytes: open.clone(),
                    },
                    now,
                );
            }
            let outputs = outputs(&mut peer);
            assert_eq!(
                notification_sent(&outputs),
                Some(ErrorKind::CONNECTION_COLLISION)
            );
            for conn in [outgoing, incoming] {
                peer.handle(
                    PeerInput::Bytes {
                        conn,
                        bytes: keepalive(),
                    },
                    now,
                );
            }
            assert_eq!(peer.state(), State::Established, "{id:?} {first:?}");
            assert_eq!(
                peer.established().unwrap().conn.direction,
                winner,
                "{id:?} {first:?}"
            );
        }
    }
}

#[test]
fn a_call_on_a_session_that_is_up_is_refused() {
    let now = Instant::now();
    let mut peer = peer_with(config(), now);
    established(&mut peer, now);
    let conn = ConnId {
        direction: Direction::Incoming,
        serial: 1,
    };
    peer.handle(
        PeerInput::Called {
            conn,
            addresses: addresses(),
        },
        now,
    );
    assert_eq!(
        notification_sent(&outputs(&mut peer)),
        Some(ErrorKind::CONNECTION_COLLISION)
    );
    assert_eq!(peer.state(), State::Established);
}

#[test]
fn a_neighbour_that_refused_a_connection_may_call() {
    for kind in [
        ErrorKind::CONNECTION_REJECTED,
        ErrorKind::CONNECTION_COLLISION,
    ] {
        let now = Instant::now();
        let mut peer = peer_with(config(), now);
        let conn = connected(&mut peer, now);
        let bytes = notification(kind);
        peer.handle(PeerInput::Bytes { conn, bytes }, now);
        assert_eq!(peer.state(), State::Active);
        outputs(&mut peer);
        let conn = ConnId {
            direction: Direction::Incoming,
            serial: 1,
        };
        let addresses = addresses();
        peer.handle(PeerInput::Called { conn, addresses }, now);
        let sent = outputs(&mut peer);
        assert_eq!(notification_sent(&sent), None);
        assert_eq!(peer.state(), State::OpenSent);
    }
}

#[test]
fn all_routes_are_there_when_every_agreed_family_has_ended() {
    let now = Instant::now();
    let instance = InstanceName("fabric".to_owned());
    let mut deliveries = Deliveries::default();
    let up = gracefully_restarting(now).snapshot(now);
    let down = peer_with(config(), now).snapshot(now);
    assert!(!deliveries.are_complete([(&instance, &up)]));
    for family in up.negotiated.as_ref().unwrap().families() {
        deliveries.end_of_rib(instance.clone(), up.name.clone(), family);
        assert!(deliveries.has(&instance, &up.name, family));
    }
    assert!(deliveries.are_complete([(&instance, &up)]));
    assert!(!deliveries.are_complete([(&instance, &up), (&instance, &down)]));
}

/// Established, with graceful restart agreed.
fn gracefully_restarting(now: Instant) -> Peer {
    let mut with_restart = config();
    with_restart.graceful_restart = Some(GracefulRestart::new(120).unwrap());
    let mut peer = peer_with(with_restart, now);
    let conn = connected(&mut peer, now);
    let mut open = open_from([10, 0, 0, 2], 65002);
    open.capabilities
        .push(Capability::GracefulRestart(bgp_wire::GracefulRestart {
            restarted: false,
            notification: true,
            restart_time_s: 77,
            families: vec![bgp_wire::GracefulFamily {
                family: Family::IPV4_UNICAST,
                forwarding_preserved: true,
            }],
        }));
    let mut bytes = encoded(&open);
    bytes.extend(keepalive());
    peer.handle(PeerInput::Bytes { conn, bytes }, now);
    outputs(&mut peer);
    assert_eq!(peer.state(), State::Established);
    peer
}

#[test]
fn a_neighbour_that_restarts_gracefully_takes_over_its_own_session() {
    let now = Instant::now();
    let mut peer = gracefully_restarting(now);
    let early = ConnId {
        direction: Direction::Incoming,
        serial: 9,
    };
    peer.handle(
        PeerInput::Called {
            conn: early,
            addresses: addresses(),
        },
        now,
    );
    assert_eq!(
        notification_sent(&outputs(&mut peer)),
        Some(ErrorKind::CONNECTION_COLLISION)
    );
    let now = now + Duration::from_secs(60);
    let conn = ConnId {
        direction: Direction::Incoming,
        serial: 1,
    };
    peer.handle(
        PeerInput::Called {
            conn,
            addresses: addresses(),
        },
        now,
    );
    let down = outputs(&mut peer)
        .into_iter()
        .find_map(|output| match output {
            PeerOutput::Down { keep_routes, .. } => Some(keep_routes),
            _ => None,
        });
    let restart_time = down.flatten().map(|keep| keep.restart_time);
    assert_eq!(restart_time, Some(Duration::from_secs(77)));
    assert_eq!(peer.state(), State::OpenSent);
}

#[test]
fn silence_from_beyond_the_link_is_no_question_of_passwords() {
    let failed = |kind| DownReason::ConnectFailed {
        failure: TransportFailure {
            kind,
            text: String::new(),
        },
        password: true,
    };
    let told = failed(FailureKind::TimedOut).off_link();
    assert_eq!(told.code(), "CW0201");
    assert!(
        told.to_string().contains("on no network of this node"),
        "{told}"
    );
    let refused = failed(FailureKind::Refused);
    assert_eq!(refused.clone().off_link(), refused);
}

#[test]
fn what_is_wrong_is_said_in_words() {
    let now = Instant::now();
    let mut secret = config();
    secret.password = Some(Md5Password::new("x").unwrap());
    for (config, kind, wanted) in [
        (config(), FailureKind::Refused, "connection refused"),
        (
            secret,
            FailureKind::TimedOut,
            "no answer: is the MD5 password right?",
        ),
        (
            config(),
            FailureKind::TimedOut,
            "no answer: is the address right",
        ),
    ] {
        let mut peer = peer_with(config, now);
        peer.handle(PeerInput::Start, now);
        let Some(PeerOutput::Connect { conn }) = peer.poll_output() else {
            panic!("dials")
        };
        peer.handle(
            PeerInput::ConnectFailed {
                conn,
                failure: failure(kind),
            },
            now,
        );
        assert_eq!(peer.state(), State::Active);
        let down = peer.snapshot(now).down.unwrap().to_string();
        assert!(down.starts_with(wanted), "{down}");
    }
    let mut peer = peer_with(config(), now);
    let conn = connected(&mut peer, now);
    let bytes = encoded(&open_from([10, 0, 0, 2], 65009));
    peer.handle(PeerInput::Bytes { conn, bytes }, now);
    assert_eq!(
        notification_sent(&outputs(&mut peer)),
        Some(ErrorKind::BAD_PEER_AS)
    );
    let down = peer.snapshot(now).down.unwrap().to_string();
    assert_eq!(down, "peer AS is 65009, configured 65002");
}

#[test]
fn a_neighbour_that_refuses_capabilities_is_tried_without() {
    let start = Instant::now();
    let mut peer = peer_with(config(), start);
    let conn = connected(&mut peer, start);
    let bytes = notification(ErrorKind::UNSUPPORTED_OPTIONAL_PARAMETER);
    peer.handle(PeerInput::Bytes { conn, bytes }, start);
    let (at, _) = peer.poll_timeout().unwrap();
    outputs(&mut peer);
    peer.handle(PeerInput::Timeout, at);
    let conn = dialled(&mut peer, at);
    let sent = outputs(&mut peer);
    let PeerOutput::Send { bytes, .. } = &sent[0] else {
        panic!("{sent:?}")
    };
    let message = frame::next(bytes, 4096).unwrap().unwrap();
    assert!(Open::decode(message.body).unwrap().capabilities.is_empty());
    let mut old = open_from([10, 0, 0, 2], 65002);
    old.capabilities.clear();
    let mut bytes = encoded(&old);
    bytes.extend(keepalive());
    peer.handle(PeerInput::Bytes { conn, bytes }, at);
    assert_eq!(peer.state(), State::Established);
    let negotiated = peer.negotiated().unwrap();
    assert!(!negotiated.context.four_octet_as);
    assert_eq!(
        negotiated.families().collect::<Vec<_>>(),
        [Family::IPV4_UNICAST]
    );
    // An operator's reset tries everything again.
    peer.handle(PeerInput::Stop(StopReason::Reset), at);
    outputs(&mut peer);
    peer.handle(PeerInput::Timeout, at);
    dialled(&mut peer, at);
    let sent = outputs(&mut peer);
    let PeerOutput::Send { bytes, .. } = &sent[0] else {
        panic!("{sent:?}")
    };
    let message = frame::next(bytes, 4096).unwrap().unwrap();
    assert!(!Open::decode(message.body).unwrap().capabilities.is_empty());
}

#[test]
fn pauses_grow_with_errors_up_to_a_cap() {
    let mut now = Instant::now();
    let mut peer = peer_with(config(), now);
    peer.handle(PeerInput::Start, now);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        let conn = dialled(&mut peer, now);
        peer.handle(
            PeerInput::Bytes {
                conn,
                bytes: vec![0; 19],
            },
            now,
        );
        assert_eq!(
            notification_sent(&outputs(&mut peer)),
            Some(ErrorKind::CONNECTION_NOT_SYNCHRONIZED)
        );
        let (at, why) = peer.poll_timeout().unwrap();
        assert_eq!(why, "idle hold");
        pauses.push(at - now);
        now = at;
        peer.handle(PeerInput::Timeout, now);
    }
    assert!(pauses[0] <= Duration::from_secs(1));
    assert!(
        pauses[8] > Duration::from_secs(22) && pauses[8] <= IDLE_HOLD_CAP,
        "{pauses:?}"
    );
}

#[test]
fn an_erroneous_attribute_does_not_end_the_session() {
    let now = Instant::now();
    let mut peer = peer_with(config(), now);
    let conn = established(&mut peer, now);
    // ORIGIN 9 in an otherwise good announcement of 10.0.0.0/8.
    let attributes = [
        &[0x40, 1, 1, 9][..],
        &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xea],
        &[0x40, 3, 4, 10, 0, 0, 2],
    ]
    .concat();
    let mut message = vec![0xff; 16];
    message.extend(((23 + attributes.len() + 2) as u16).to_be_bytes());
    message.extend([2, 0, 0]);
    message.extend((attributes.len() as u16).to_be_bytes());
    message.extend(&attributes);
    message.extend([8, 10]);
    peer.handle(
        PeerInput::Bytes {
            conn,
            bytes: message,
        },
        now,
    );
    assert_eq!(peer.state(), State::Established);
    assert_eq!(
        outputs(&mut peer),
        [PeerOutput::Routes(
            vec![RouteChange::Withdraw {
                family: Family::IPV4_UNICAST,
                prefixes: vec!["10.0.0.0/8".parse().unwrap()],
                path_ids: Vec::new(),
            }]
            .into()
        )]
    );
    let counters = peer.snapshot(now).counters;
    assert_eq!(
        counters.attribute_errors[&(1, ErrorTreatment::TreatAsWithdraw)],
        1
    );
}

#[test]
fn a_planned_restart_says_nothing_where_graceful_restart_was_agreed() {
    let now = Instant::now();
    let mut peer = gracefully_restarting(now);
    peer.handle(PeerInput::Stop(StopReason::PlannedRestart), now);
    let sent = outputs(&mut peer);
    assert_eq!(notification_sent(&sent), None);
    let is_abort = |output: &PeerOutput| {
        matches!(
            output,
            PeerOutput::Close {
                how: CloseHow::Abort,
                ..
            }
        )
    };
    assert!(sent.iter().any(is_abort));
    assert_eq!(peer.poll_timeout(), None);
}

#[test]
fn a_planned_restart_is_told_to_those_who_would_drop_the_routes_anyway() {
    let now = Instant::now();
    let mut peer = peer_with(config(), now);
    established(&mut peer, now);
    peer.handle(PeerInput::Stop(StopReason::PlannedRestart), now);
    assert_eq!(
        notification_sent(&outputs(&mut peer)),
        Some(ErrorKind::ADMINISTRATIVE_SHUTDOWN)
    );
    assert_eq!(peer.poll_timeout(), None);
}

#[test]
fn a_passive_neighbour_is_never_dialled() {
    let now = Instant::now();
    let mut passive = config();
    passive.connect = ConnectMode::Passive;
    let mut peer = peer_with(passive, now);
    peer.handle(PeerInput::Start, now);
    assert_eq!(outputs(&mut peer), []);
    assert_eq!((peer.state(), peer.poll_timeout()), (State::Active, None));
}

#[test]
fn a_hundred_thousand_flaps_leave_bounded_memory() {
    let mut now = Instant::now();
    let mut peer = peer_with(config(), now);
    peer.handle(PeerInput::Start, now);
    let mut hello = encoded(&open_from([10, 0, 0, 2], 65002));
    hello.extend(keepalive());
    for _ in 0..100_000 {
        let conn = dialled(&mut peer, now);
        peer.handle(
            PeerInput::Bytes {
                conn,
                bytes: hello.clone(),
            },
            now,
        );
        peer.handle(
            PeerInput::Closed {
                conn,
                failure: failure(FailureKind::Reset),
            },
            now,
        );
        outputs(&mut peer);
        let (at, _) = peer.poll_timeout().unwrap();
        now = at;
        peer.handle(PeerInput::Timeout, now);
    }
    let snapshot = peer.snapshot(now);
    assert_eq!(snapshot.counters.flaps, 100_000);
    assert!(snapshot.history.len() <= 32);
}

/// What may happen, in a form that shrinks.
#[derive(Clone, Debug)]
enum Step {
    Start,
    Stop,
    Reset,
    Dialled,
    DialFailed,
    Called,
    Open(u8, bool),
    Keepalive(bool),
    Notification(u8, u8, bool),
    Update(Vec<u8>, bool),
    Refresh(bool),
    Garbage(Vec<u8>, bool),
    Closed(bool),
    Wait(u16),
    Passive(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let side = any::<bool>();
    prop_oneof![
        1 => Just(Step::Start),
        1 => Just(Step::Stop),
        1 => Just(Step::Reset),
        3 => Just(Step::Dialled),
        1 => Just(Step::DialFailed),
        3 => Just(Step::Called),
        4 => (8u8..12, side).prop_map(|(id, side)| Step::Open(id, side)),
        4 => side.prop_map(Step::Keepalive),
        1 => (1u8..9, 0u8..12, side).prop_map(|(code, sub, side)| Step::Notification(code, sub, side)),
        1 => (prop::collection::vec(any::<u8>(), 4..60), side).prop_map(|(b, side)| Step::Update(b, side)),
        1 => side.prop_map(Step::Refresh),
        1 => (prop::collection::vec(any::<u8>(), 0..40), side).prop_map(|(b, side)| Step::Garbage(b, side)),
        1 => side.prop_map(Step::Closed),
        2 => (0u16..20_000).prop_map(Step::Wait),
        1 => side.prop_map(Step::Passive),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any sequence of events: no panic, Up and Down alternate, at most one session is up, nothing
    /// is sent on a connection that was closed, and a started peer always waits for something.
    #[test]
    fn any_sequence_of_events_keeps_the_invariants(steps in prop::collection::vec(step(), 0..60)) {
        let mut now = Instant::now();
        let mut peer = peer_with(config(), now);
        let (mut up, mut attempt, mut calls) = (false, None, 0);
        let mut open: Vec<ConnId> = Vec::new();
        for step in steps {
            let conn = |incoming: bool| {
                let direction = if incoming { Direction::Incoming } else { Direction::Outgoing };
                open.iter().rev().copied().find(|conn| conn.direction == direction)
            };
            let message = |kind: u8, body: &[u8]| {
                let mut bytes = vec![0xff; 16];
                bytes.extend(((19 + body.len()) as u16).to_be_bytes());
                bytes.push(kind);
                bytes.extend(body);
                bytes
            };
            let bytes = |side, bytes| conn(side).map(|conn| PeerInput::Bytes { conn, bytes });
            let input = match step {
                Step::Start => Some(PeerInput::Start),
                Step::Stop => Some(PeerInput::Stop(StopReason::Deconfigured)),
                Step::Reset => Some(PeerInput::Stop(StopReason::Reset)),
                Step::Dialled => attempt.take().map(|conn| {
                    open.push(conn);
                    PeerInput::Connected { conn, addresses: addresses() }
                }),
                Step::DialFailed => attempt.take().map(|conn| {
                    PeerInput::ConnectFailed { conn, failure: failure(FailureKind::Refused) }
                }),
                Step::Called => {
                    calls += 1;
                    let conn = ConnId { direction: Direction::Incoming, serial: calls };
                    open.push(conn);
                    Some(PeerInput::Called { conn, addresses: addresses() })
                }
                Step::Open(id, side) => bytes(side, encoded(&open_from([id, 0, 0, 1], 65002))),
                Step::Keepalive(side) => bytes(side, keepalive()),
                Step::Notification(code, sub, side) => bytes(side, message(3, &[code, sub])),
                Step::Update(body, side) => bytes(side, message(2, &body)),
                Step::Refresh(side) => bytes(side, message(5, &[0, 1, 0, 1])),
                Step::Garbage(body, side) => bytes(side, body),
                Step::Closed(side) => conn(side).map(|conn| {
                    open.retain(|other| *other != conn);
                    PeerInput::Closed { conn, failure: failure(FailureKind::Closed) }
                }),
                Step::Wait(ms) => {
                    now += Duration::from_millis(ms.into());
                    Some(PeerInput::Timeout)
                }
                Step::Passive(passive) => {
                    let mut config = config();
                    if passive {
                        config.connect = ConnectMode::Passive;
                    }
                    Some(PeerInput::Configure(Box::new(config)))
                }
            };
            let Some(input) = input else { continue };
            peer.handle(input, now);
            while let Some(output) = peer.poll_output() {
                match output {
                    PeerOutput::Connect { conn } => {
                        prop_assert!(attempt.is_none(), "one attempt at a time");
                        attempt = Some(conn);
                    }
                    PeerOutput::Close { conn, .. } => {
                        if attempt == Some(conn) {
                            attempt = None;
                        }
                        open.retain(|other| *other != conn);
                    }
                    PeerOutput::Send { conn, bytes } => {
                        prop_assert!(open.contains(&conn), "sent on a closed connection");
                        prop_assert!(matches!(frame::next(&bytes, 4096), Ok(Some(_))));
                    }
                    PeerOutput::Up { conn, .. } => {
                        prop_assert!(!up && open.contains(&conn));
                        up = true;
                    }
                    PeerOutput::Down { .. } => {
                        prop_assert!(up);
                        up = false;
                    }
                    PeerOutput::Routes(_) | PeerOutput::Resend { .. } | PeerOutput::RefreshBegins { .. } | PeerOutput::RefreshEnds { .. } => prop_assert!(up),
                }
            }
            prop_assert_eq!(up, peer.state() == State::Established);
            prop_assert_eq!(peer.snapshot(now).state, peer.state());
            let passive = peer.config().connect == ConnectMode::Passive;
            let stopped = peer.state() == State::Idle;
            let dialling = attempt.is_some();
            prop_assert!(peer.poll_timeout().is_some() || passive || stopped || dialling,
                "waits for nothing in {}", peer.state());
        }
    }
}
