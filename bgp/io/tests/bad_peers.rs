// SPDX-License-Identifier: Apache-2.0
//! Neighbours that send too much, nonsense, or hang up.

mod support;

use std::net::Ipv4Addr;
use std::time::Duration;

use bgp_core::config::{
    ConnectMode, ImportMode, InstanceConfig, Listen, PeerAddress, PeerConfig, Timers,
};
use bgp_core::fsm::State;
use bgp_io::{Handle, Options, PeerStatus};
use bgp_wire::{
    AsPath, Capability, FamilyContext, MessageKind, NlriEntry, Open, Origin, PathAttributes,
    PathNextHop, frame,
};
use ipnet::Ipv4Net;
use router_types::{Asn, Family};
use support::{Side, free_port, importing, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A speaker that waits for calls from these neighbours.
async fn waiting(ip: &str, port: u16, peers: &[(&str, &str, ImportMode)]) -> Handle {
    let ip: Ipv4Addr = ip.parse().unwrap();
    let mut config = InstanceConfig::new("i".into(), Asn(65001), ip).unwrap();
    config.listen = Some(Listen {
        port,
        addresses: vec![ip.into()],
    });
    for (name, address, mode) in peers {
        let address = PeerAddress::new(address.parse().unwrap(), None).unwrap();
        let mut peer = importing(&PeerConfig::new(address), mode.clone());
        peer.connect = ConnectMode::Passive;
        peer.timers = Timers::new(1, 3, 1).unwrap();
        config.add_peer((*name).into(), peer).unwrap();
    }
    let handle = bgp_io::spawn(Options::default()).unwrap();
    handle.apply(vec![config]).await.unwrap();
    until("listening", || async {
        let snapshot = handle.snapshot().await.unwrap();
        snapshot.instances[0]
            .listening
            .iter()
            .all(|listening| listening.error.is_none())
    })
    .await;
    handle
}

async fn call(from: &str, to: &str, port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    socket
        .connect(format!("{to}:{port}").parse().unwrap())
        .await
        .unwrap()
}

fn open(asn: u32, hold_time_s: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let capabilities = vec![
        Capability::Multiprotocol(Family::IPV4_UNICAST),
        Capability::FourOctetAs(Asn(asn)),
    ];
    let router_id = Ipv4Addr::new(9, 9, 9, 9);
    Open {
        asn: Asn(asn),
        hold_time_s,
        router_id,
        capabilities,
    }
    .encode(&mut bytes);
    bytes
}

fn keepalive() -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode_keepalive(&mut bytes);
    bytes
}

async fn peer(handle: &Handle, name: &str) -> PeerStatus {
    let snapshot = handle.snapshot().await.unwrap();
    let mut peers = snapshot.instances[0].peers.iter();
    peers
        .find(|peer| peer.session.name == name.into())
        .unwrap()
        .clone()
}

/// Reads until the other side closes and returns the kinds of messages it sent.
async fn until_closed(stream: &mut TcpStream) -> Vec<MessageKind> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut bytes)).await;
    match read.expect("closed in time") {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    let mut kinds = Vec::new();
    let mut rest = &bytes[..];
    while let Ok(Some(message)) = frame::next(rest, 4096) {
        kinds.push(message.kind);
        rest = &rest[message.len..];
    }
    kinds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_routes_do_not_delay_another_neighbours_keepalives() {
    const ROUTES: u32 = 1_000_000;
    let port = free_port();
    let modes = [ImportMode::DefaultRoute, ImportMode::All];
    for (round, mode) in modes.into_iter().enumerate() {
        let ip = format!("127.0.6.{}", 10 * (round + 1));
        let feeder = format!("127.0.6.{}", 10 * (round + 1) + 1);
        let quiet = format!("127.0.6.{}", 10 * (round + 1) + 2);
        let all = mode == ImportMode::All;
        let neighbours = [
            ("feeder", &feeder[..], mode),
            ("quiet", &quiet[..], ImportMode::DefaultRoute),
        ];
        let handle = waiting(&ip, port, &neighbours).await;
        // The quiet neighbour is a speaker itself, with a hold time of 3 s.
        let other = Side::new(&quiet, 65003, port);
        let subject = Side::new(&ip, 65001, port);
        let other = other
            .start(&subject, |peer| peer.timers = Timers::new(1, 3, 1).unwrap())
            .await;
        until("the quiet session is up", || async {
            peer(&handle, "quiet").await.session.state == State::Established
        })
        .await;

        let mut stream = call(&feeder, &ip, port).await;
        let feed = tokio::task::spawn_blocking(|| {
            let mut bytes = open(65002, 0);
            bytes.extend(keepalive());
            let context = FamilyContext::plain(Family::IPV4_UNICAST);
            let hop = PathNextHop::V4(Ipv4Addr::new(192, 0, 2, 9));
            for chunk in 0..ROUTES / 100 {
                let attributes = PathAttributes {
                    origin: Some(Origin::Igp),
                    as_path: Some(AsPath::from_sequence([65002, 1 + chunk % 5000].map(Asn))),
                    ..PathAttributes::default()
                };
                let mut encoded = Vec::new();
                attributes.encode(true, &mut encoded);
                let entries = (chunk * 100..(chunk + 1) * 100).map(|n| {
                    let address = Ipv4Addr::from_bits(0x0100_0000 + (n << 8));
                    NlriEntry::new(Ipv4Net::new(address, 24).unwrap())
                });
                bgp_wire::announce(&mut bytes, &context, 4096, &encoded, hop, entries).unwrap();
            }
            bytes
        });
        let bytes = feed.await.unwrap();
        let began = std::time::Instant::now();
        stream.write_all(&bytes).await.unwrap();
        until("all routes are counted", || async {
            let status = peer(&handle, "feeder").await;
            status
                .families
                .get(&Family::IPV4_UNICAST)
                .is_some_and(|counts| {
                    let part = if all {
                        counts.accepted
                    } else {
                        counts.rejected
                    };
                    part == u64::from(ROUTES)
                })
        })
        .await;
        let stats = handle.snapshot().await.unwrap().instances[0].rib;
        println!(
            "{ROUTES} routes, {}: {:?}, {} bytes a route by the RIB's own count",
            if all { "accepted" } else { "rejected" },
            began.elapsed(),
            stats.memory_bytes / ROUTES as usize,
        );
        assert!(stats.memory_bytes / ROUTES as usize <= 100, "{stats:?}");
        for side in [&handle, &other] {
            let snapshot = side.snapshot().await.unwrap();
            let quiet = snapshot.instances[0]
                .peers
                .iter()
                .find(|peer| peer.session.name != "feeder".into())
                .unwrap();
            assert_eq!(quiet.session.state, State::Established);
            assert_eq!(quiet.session.counters.flaps, 0);
        }
        other.stop(bgp_io::StopKind::PlannedRestart).await.unwrap();
        handle.stop(bgp_io::StopKind::PlannedRestart).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_that_hangs_up_in_any_state_is_taken_back() {
    let port = free_port();
    let handle = waiting("127.0.7.1", port, &[("p", "127.0.7.2", ImportMode::All)]).await;
    let mut hello = open(65002, 9);
    let in_open_confirm = hello.len();
    hello.extend(keepalive());
    for cut in [
        0,
        1,
        18,
        19,
        in_open_confirm - 1,
        in_open_confirm,
        hello.len(),
    ] {
        let mut stream = call("127.0.7.2", "127.0.7.1", port).await;
        stream.write_all(&hello[..cut]).await.unwrap();
        if cut == hello.len() {
            until("up", || async {
                peer(&handle, "p").await.session.state == State::Established
            })
            .await;
        }
        drop(stream);
    }
    until("up after all of them", || async {
        let mut stream = call("127.0.7.2", "127.0.7.1", port).await;
        stream.write_all(&hello).await.unwrap();
        let limit = tokio::time::Instant::now() + Duration::from_millis(500);
        while tokio::time::Instant::now() < limit {
            if peer(&handle, "p").await.session.state == State::Established {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_answered_with_a_notification() {
    let port = free_port();
    for (number, nonsense) in [
        vec![0; 64],
        [&[0xff; 16][..], &[0xff, 0xff, 1]].concat(),
        [&[0xff; 16][..], &[0, 5, 1]].concat(),
        [&[0xff; 16][..], &[0, 19, 77]].concat(),
        keepalive(),
        open(0, 9),
        open(65002, 1),
    ]
    .into_iter()
    .enumerate()
    {
        let ip = format!("127.0.8.{}", 10 + number);
        let from = format!("127.0.8.{}", 100 + number);
        let handle = waiting(&ip, port, &[("p", &from, ImportMode::All)]).await;
        let mut stream = call(&from, &ip, port).await;
        stream.write_all(&nonsense).await.unwrap();
        let kinds = until_closed(&mut stream).await;
        assert_eq!(
            kinds.last(),
            Some(&MessageKind::Notification),
            "{nonsense:02x?}"
        );
        assert!(peer(&handle, "p").await.session.notification_sent.is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_and_counted() {
    let port = free_port();
    let handle = waiting("127.0.10.1", port, &[("p", "127.0.10.2", ImportMode::All)]).await;
    let mut stream = call("127.0.10.9", "127.0.10.1", port).await;
    assert_eq!(until_closed(&mut stream).await, [MessageKind::Notification]);
    assert_eq!(
        handle.snapshot().await.unwrap().instances[0].unknown_calls,
        1
    );
}
