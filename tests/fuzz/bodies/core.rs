// SPDX-License-Identifier: Apache-2.0
//! Properties of a BGP session's machine. The fuzz target and the replay of its corpus in
//! `bgp/core/tests/corpus.rs` share this file.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bgp_core::config::{ConnectMode, PeerAddress, PeerConfig, Timers};
use bgp_core::fsm::State;
use bgp_core::peer::{
    ConnId, Direction, FailureKind, LocalSpeaker, Peer, PeerInput, PeerOutput, SessionAddresses,
    StopReason, TransportFailure,
};
use router_types::Asn;

/// Any sequence of events, messages of any bytes among them: no panic, Up and Down alternate with
/// the state, and nothing is sent on a connection that is closed.
///
/// An octet names the event; its low bit, where it matters, the connection. Messages take a length
/// octet and so many bytes, to which a right header is added for one of the events.
pub(crate) fn core_session_any_events(data: &[u8]) {
    let mut now = Instant::now();
    let ip = Ipv4Addr::new(10, 0, 0, 2).into();
    let address = PeerAddress::new(ip, None).expect("a unicast address");
    let mut config = PeerConfig::new(address);
    config.timers = Timers::new(5, 9, 3).expect("timers in range");
    let local = LocalSpeaker {
        asn: Asn(65001),
        router_id: Ipv4Addr::new(10, 0, 0, 1),
        restarted: false,
        forwarding_preserved: false,
    };
    let mut peer = Peer::new("p".into(), config.clone(), local, 1, now);
    let (mut up, mut attempt, mut calls) = (false, None, 0u64);
    let mut open: Vec<ConnId> = Vec::new();
    let mut rest = data;
    while let Some((&op, after)) = rest.split_first() {
        rest = after;
        let direction = if op & 1 == 0 {
            Direction::Outgoing
        } else {
            Direction::Incoming
        };
        let conn = open
            .iter()
            .rev()
            .copied()
            .find(|conn| conn.direction == direction);
        let input = match (op >> 1) % 10 {
            0 => Some(PeerInput::Start),
            1 => Some(PeerInput::Stop(match direction {
                Direction::Outgoing => StopReason::Reset,
                Direction::Incoming => StopReason::Deconfigured,
            })),
            2 => attempt.take().map(|conn| {
                open.push(conn);
                PeerInput::Connected {
                    conn,
                    addresses: addresses(),
                }
            }),
            3 => attempt.take().map(|conn| PeerInput::ConnectFailed {
                conn,
                failure: failure(),
            }),
            4 => {
                calls += 1;
                let conn = ConnId {
                    direction: Direction::Incoming,
                    serial: calls,
                };
                open.push(conn);
                Some(PeerInput::Called {
                    conn,
                    addresses: addresses(),
                })
            }
            5 => conn.map(|conn| {
                open.retain(|other| *other != conn);
                PeerInput::Closed {
                    conn,
                    failure: failure(),
                }
            }),
            6 => {
                let (seconds, after) = take(rest, 1);
                rest = after;
                now += Duration::from_secs(seconds.first().copied().unwrap_or(0).into());
                Some(PeerInput::Timeout)
            }
            7 => {
                config.connect = match direction {
                    Direction::Outgoing => ConnectMode::Both,
                    Direction::Incoming => ConnectMode::Passive,
                };
                Some(PeerInput::Configure(Box::new(config.clone())))
            }
            framed => {
                let (len, after) = take(rest, 1);
                let (body, after) = take(after, len.first().copied().unwrap_or(0).into());
                rest = after;
                let bytes = if framed == 8 {
                    message(body)
                } else {
                    body.to_vec()
                };
                conn.map(|conn| PeerInput::Bytes { conn, bytes })
            }
        };
        let Some(input) = input else { continue };
        peer.handle(input, now);
        while let Some(output) = peer.poll_output() {
            match output {
                PeerOutput::Connect { conn } => assert!(attempt.replace(conn).is_none()),
                PeerOutput::Close { conn, .. } => {
                    attempt.take_if(|attempt| *attempt == conn);
                    open.retain(|other| *other != conn);
                }
                PeerOutput::Send { conn, .. } => assert!(open.contains(&conn)),
                PeerOutput::Up { conn, .. } => {
                    assert!(!up && open.contains(&conn));
                    up = true;
                }
                PeerOutput::Down { .. } => assert!(std::mem::take(&mut up)),
                PeerOutput::Routes(_)
                | PeerOutput::Resend { .. }
                | PeerOutput::RefreshBegins { .. }
                | PeerOutput::RefreshEnds { .. } => {}
            }
        }
        assert_eq!(up, peer.state() == State::Established);
    }
    assert_eq!(peer.snapshot(now).state, peer.state());
}

fn take(bytes: &[u8], len: usize) -> (&[u8], &[u8]) {
    bytes.split_at(len.min(bytes.len()))
}

/// A message whose first octet is its type.
fn message(body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 16];
    bytes.extend((18 + body.len().max(1) as u16).to_be_bytes());
    bytes.extend(if body.is_empty() { &[4][..] } else { body });
    bytes
}

fn addresses() -> SessionAddresses {
    SessionAddresses {
        local: (Ipv4Addr::new(10, 0, 0, 1), 179).into(),
        remote: (Ipv4Addr::new(10, 0, 0, 2), 40000).into(),
        link: None,
        link_ipv4: None,
        link_ipv6: None,
        network: None,
    }
}

fn failure() -> TransportFailure {
    TransportFailure {
        kind: FailureKind::Reset,
        text: String::new(),
    }
}
