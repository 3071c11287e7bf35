// SPDX-License-Identifier: Apache-2.0
//! Nothing stays behind: alone in its process, since it counts the process's descriptors.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp_core::config::{ConnectMode, InstanceConfig, Listen, LocalRoutes, PeerAddress, PeerConfig};
use bgp_core::peer::StopReason;
use bgp_io::{Options, Speaker};
use router_types::Asn;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_secs(90);

#[tokio::test]
async fn five_hundred_calls_that_end_leave_no_descriptor() {
    let outside = descriptors();
    let (events, _kept) = mpsc::channel(16);
    let (speaker, thread) = Speaker::start(Options::default(), events).unwrap();
    let octet = std::process::id() as u8;
    let ours = IpAddr::V4(Ipv4Addr::new(127, 255, octet, 1));
    let neighbour = IpAddr::V4(Ipv4Addr::new(127, 255, octet, 2));
    let mut config = InstanceConfig::new("test".into(), Asn(65001), [10, 0, 0, 1].into()).unwrap();
    config.listen = Some(Listen {
        port: 0,
        addresses: vec![ours],
        device: None,
    });
    let mut peer = PeerConfig::new(PeerAddress::new(neighbour, None).unwrap());
    peer.connect = ConnectMode::Passive;
    config.add_peer("peer".into(), peer).unwrap();
    let failures = speaker.apply(vec![(config, LocalRoutes::default())]).await;
    assert_eq!(failures, [] as [String; 0]);
    let listening = speaker.snapshot().await[0].listening[0];

    let before = descriptors();
    for _ in 0..500 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(neighbour, 0)).unwrap();
        drop(socket.connect(listening).await.unwrap());
    }
    until(&speaker, before).await;
    let session = speaker.snapshot().await[0].peers[0].session.clone();
    let counters = session.counters;
    assert!(
        counters.sent.open + counters.calls_refused > 0,
        "calls were taken: {counters:?}"
    );

    let text = "the test is over".to_owned();
    speaker.stop(StopReason::Other { text }).await;
    thread.join().unwrap();
    // The threads of tables give back what they hold when they end, just after they said so.
    let limit = Instant::now() + LIMIT;
    while descriptors() > outside {
        assert!(Instant::now() < limit, "the speaker left something open");
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn until(speaker: &Speaker, wanted: usize) {
    let limit = Instant::now() + LIMIT;
    while descriptors() > wanted {
        assert!(
            Instant::now() < limit,
            "{} descriptors, {wanted} before: {:?}",
            descriptors(),
            speaker.snapshot().await
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
