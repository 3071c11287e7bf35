// SPDX-License-Identifier: Apache-2.0
//! Listening: who is taken, who is refused, and sockets that cannot be opened yet.

use bgp_core::config::{InstanceConfig, Listen, LocalRoutes};
use bgp_core::peer::StopReason;
use bgp_io::{Options, Speaker};
use nix::sched::{CloneFlags, unshare};
use router_types::Asn;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::node::{Node, address, until};
use crate::raw::{Raw, open};

#[tokio::test]
async fn strangers_are_refused_and_counted() {
    let node = Node::start(65001).await;
    let stranger = address();
    for count in 1..=20 {
        let mut raw = Raw::call(stranger, node.socket()).await;
        // It talks first: what it says must not turn the refusal into a reset.
        raw.send(&open(65002, 90)).await;
        let refusal = raw.notification().await.expect("a reason");
        assert_eq!((refusal.kind.code, refusal.kind.subcode), (6, 5));
        drop(raw);
        until("counted", async || node.snapshot().await.strangers == count).await;
    }
    let last = node.snapshot().await.last_stranger.unwrap();
    assert_eq!(last.ip(), stranger);
}

#[tokio::test]
async fn strangers_that_stay_do_not_fill_the_house() {
    let node = Node::start(65001).await;
    let stranger = address();
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(Raw::call(stranger, node.socket()).await);
    }
    until("all were counted", async || {
        node.snapshot().await.strangers == 100
    })
    .await;
    // Every one of them is closed from the other end, though none of them reads or closes.
    for raw in &mut crowd {
        while raw.next().await.is_some() {}
    }
}

#[test]
fn an_address_that_appears_later_is_listened_on_then() {
    // A thread of its own: it leaves the network namespace of the others.
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .expect("a network namespace: run the tests as root or with CAP_SYS_ADMIN");
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(late_address());
        });
        inside.join().expect("the test");
    });
}

async fn late_address() {
    ip(&["link", "set", "lo", "up"]);
    let (events, _kept) = mpsc::channel(16);
    let (speaker, thread) = Speaker::start(Options::default(), events).unwrap();
    let mut config = InstanceConfig::new("test".into(), Asn(65001), [192, 0, 2, 1].into()).unwrap();
    config.listen = Some(Listen {
        port: 179,
        addresses: vec!["192.0.2.1".parse().unwrap(), "127.0.0.1".parse().unwrap()],
        device: None,
    });
    let failures = speaker
        .apply(vec![(config.clone(), LocalRoutes::default())])
        .await;
    assert_eq!(failures, [] as [String; 0]);
    let snapshot = speaker.snapshot().await.remove(0);
    assert_eq!(snapshot.listening, ["127.0.0.1:179".parse().unwrap()]);
    let (address, reason) = &snapshot.listen_failures[0];
    assert_eq!(address.to_string(), "192.0.2.1:179");
    assert!(
        reason.contains("Cannot assign requested address"),
        "{reason}"
    );

    ip(&["addr", "add", "192.0.2.1/32", "dev", "lo"]);
    until("it listens there", async || {
        let snapshot = speaker.snapshot().await.remove(0);
        snapshot.listening.len() == 2 && snapshot.listen_failures.is_empty()
    })
    .await;

    // From two addresses to every address, on the same port, and back: nothing is in the way.
    let listed = config.listen.clone();
    for addresses in [Vec::new(), listed.unwrap().addresses] {
        config.listen = Some(Listen {
            port: 179,
            addresses,
            device: None,
        });
        let wanted = vec![(config.clone(), LocalRoutes::default())];
        speaker.apply(wanted).await;
        let snapshot = speaker.snapshot().await.remove(0);
        assert_eq!(snapshot.listening.len(), 2);
        assert_eq!(snapshot.listen_failures, []);
    }

    by_a_device(&speaker, &mut config).await;
    let reason = StopReason::Other {
        text: "the test is over".to_owned(),
    };
    speaker.stop(reason).await;
    thread.join().unwrap();
}

/// Calls come by the device that is named, and by no other.
async fn by_a_device(speaker: &Speaker, config: &mut InstanceConfig) {
    let call = async || TcpStream::connect("127.0.0.1:179").await;
    assert!(call().await.is_ok());
    let mut listen_on = async |device: &str| {
        config.listen = Some(Listen {
            port: 179,
            addresses: Vec::new(),
            device: Some(device.to_owned()),
        });
        let wanted = vec![(config.clone(), LocalRoutes::default())];
        speaker.apply(wanted).await;
        speaker.snapshot().await.remove(0)
    };
    let snapshot = listen_on("v0").await;
    let (_, reason) = &snapshot.listen_failures[0];
    assert!(reason.contains("interface v0: No such device"), "{reason}");
    assert!(snapshot.listening.is_empty());

    ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
    ip(&["link", "set", "v0", "up"]);
    ip(&["link", "set", "v1", "up"]);
    until("it listens there", async || {
        let snapshot = speaker.snapshot().await.remove(0);
        snapshot.listening.len() == 2 && snapshot.listen_failures.is_empty()
    })
    .await;
    assert!(call().await.is_err(), "it comes by lo");
    ip(&["link", "delete", "v0"]);
    until("it listens there no more", async || {
        let snapshot = speaker.snapshot().await.remove(0);
        snapshot.listening.is_empty() && snapshot.listen_failures.len() == 2
    })
    .await;
    let snapshot = listen_on("lo").await;
    assert_eq!(snapshot.listening.len(), 2);
    assert!(call().await.is_ok());
}

fn ip(arguments: &[&str]) {
    let status = std::process::Command::new("ip").args(arguments).status();
    assert!(
        status.expect("ip of iproute2").success(),
        "ip {arguments:?}"
    );
}
