// SPDX-License-Identifier: Apache-2.0
use std::net::UdpSocket;

use bgp_bfd::profile::{Auth, AuthType, Hops, Profile};
use bgp_bfd::wire::{Diagnostic, Packet, State};
use bgp_bfdd::client::{Connection, View};
use bgp_bfdd::protocol::SessionKey;

use super::pair::{LIMIT, Pair, key, profile, until, until_reported, up};

#[tokio::test]
async fn a_cut_link_is_detected_and_a_mended_one_used_again() {
    let pair = Pair::new(2);
    let (left, right) = (pair.left.client(), pair.right.client());
    // Detects after two to three seconds: what the others must be ahead of, on any machine.
    let slow_key = key("10.9.1.2", "10.9.0.2", Hops::Single);
    let mut slow = left.request(slow_key.clone(), profile(1000));
    let _slow_there = right.request(key("10.9.0.2", "10.9.1.2", Hops::Single), profile(1000));
    for (ours, theirs, hops) in [
        ("10.9.0.1", "10.9.1.1", Hops::Single),
        ("10.9.0.1", "10.9.1.1", Hops::Multi),
        ("fe80::1", "fe80::2", Hops::Single),
    ] {
        let wanted = Profile {
            minimum_ttl: 255,
            ..profile(50)
        };
        let mut here = left.request(key(theirs, ours, hops), wanted.clone());
        let mut there = right.request(key(ours, theirs, hops), wanted);
        up(&mut here).await;
        up(&mut there).await;
        up(&mut slow).await;
        // Poll and Final are through.
        until_reported(&left, "150 ms agreed", |report| {
            let mut sessions = report.sessions.iter();
            let session = sessions.find(|s| s.key == key(theirs, ours, hops))?;
            let status = &session.status;
            (status.detection_time_us == 150_000 && !status.polling).then_some(())
        })
        .await;
        pair.link(false);
        let status = until(&mut here, "down", |status| status.state == State::Down).await;
        assert_eq!(status.last_down, Some(Diagnostic::DETECTION_TIME_EXPIRED));
        assert_eq!(status.failures, 1);
        until(&mut slow, "down too", |status| status.state == State::Down).await;
        let report = left.report().await.unwrap();
        let down_for = |wanted: &SessionKey| {
            let session = report.sessions.iter().find(|s| s.key == *wanted);
            session.unwrap().status.in_state
        };
        let fast_key = key(theirs, ours, hops);
        assert!(down_for(&fast_key) > down_for(&slow_key), "{report:#?}");
        until(&mut there, "down", |status| status.state != State::Up).await;
        pair.link(true);
        up(&mut here).await;
        up(&mut there).await;
    }
}

#[tokio::test]
async fn sessions_outlive_their_owner_and_are_adopted_by_the_next() {
    let pair = Pair::new(2);
    let (first, right) = (pair.left.client(), pair.right.client());
    let kept = key("10.9.1.1", "10.9.0.1", Hops::Single);
    let forgotten = key("10.9.1.2", "10.9.0.2", Hops::Single);
    let mut here = first.request(kept.clone(), profile(50));
    let mut other = first.request(forgotten.clone(), profile(50));
    let mut there = right.request(key("10.9.0.1", "10.9.1.1", Hops::Single), profile(50));
    let mut there_too = right.request(key("10.9.0.2", "10.9.1.2", Hops::Single), profile(50));
    let before = up(&mut here).await;
    up(&mut other).await;
    up(&mut there).await;
    up(&mut there_too).await;

    // As a daemon that ends: nobody is connected any more.
    first.detach();
    drop((here, other, first));

    let second = pair.left.client();
    let mut here = second.request(kept.clone(), profile(50));
    let after = up(&mut here).await;
    assert_eq!(after.local_discriminator, before.local_discriminator);
    assert_eq!(after.up_count, 1);
    // What the next one does not want is shut, not dropped: the neighbour is told.
    second.retain();
    let status = until(&mut there_too, "told", |s| s.state == State::Down).await;
    assert_eq!(status.remote_state, State::AdminDown);
    assert_eq!(status.failures, 0, "an operator's word is no failure");
    let View::Known(status) = there.view() else {
        panic!("unknown");
    };
    assert_eq!((status.state, status.down_count), (State::Up, 0));

    // Nor is an orderly end of the process a failure; its loss is news of nobody.
    let mut pair = pair;
    pair.left.end();
    let status = until(&mut there, "down", |s| s.state == State::Down).await;
    assert_eq!(
        (status.remote_state, status.failures),
        (State::AdminDown, 0)
    );
    let mut connection = second.connection();
    let missing = connection.wait_for(|c| matches!(c, Connection::Missing(_)));
    tokio::time::timeout(LIMIT, missing).await.unwrap().unwrap();
    assert_eq!(here.view(), View::Unknown);
    pair.left.start();
    let status = up(&mut here).await;
    assert_ne!(status.local_discriminator, before.local_discriminator);
}

#[tokio::test]
async fn what_must_not_be_taken_is_counted_and_changes_nothing() {
    let pair = Pair::new(1);
    let (left, right) = (pair.left.client(), pair.right.client());
    let with = |key: &[u8]| Profile {
        auth: Some(Auth::new(AuthType::MeticulousKeyedSha1, 5, key).unwrap()),
        ..profile(50)
    };
    let mut here = left.request(key("10.9.1.1", "10.9.0.1", Hops::Single), with(b"one"));
    let there = right.request(key("10.9.0.1", "10.9.1.1", Hops::Single), with(b"two"));
    let dropped = |reason: &'static str| {
        let left = left.clone();
        async move {
            until_reported(&left, reason, |report| {
                let of_sessions = report.sessions.iter().flat_map(|s| &s.drops);
                let mut all = of_sessions.chain(&report.drops);
                all.any(|(name, _)| name == reason).then_some(())
            })
            .await;
        }
    };
    dropped("authentication").await;
    assert!(matches!(here.view(), View::Known(status) if status.state == State::Down));
    // The same key at both ends.
    there.change(with(b"one"));
    up(&mut here).await;

    // From somebody else on the link, with a lower TTL, and as nonsense.
    let netns = std::fs::File::open(format!("/proc/{}/ns/net", std::process::id())).unwrap();
    let packet = Packet {
        state: State::AdminDown,
        multiplier: 3,
        my_discriminator: 77,
        ..Packet::default()
    };
    let bytes = packet.encode(None);
    let name = pair.right.namespace();
    let sent = std::thread::spawn(move || {
        let there = std::fs::File::open(format!("/run/netns/{name}")).unwrap();
        nix::sched::setns(&there, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let socket = UdpSocket::bind("10.9.1.1:0").unwrap();
        socket.set_ttl(254).unwrap();
        socket.send_to(bytes.as_slice(), "10.9.0.1:3784").unwrap();
        socket.set_ttl(255).unwrap();
        socket.send_to(b"nonsense", "10.9.0.1:3784").unwrap();
        socket.send_to(bytes.as_slice(), "10.9.0.1:4784").unwrap();
        nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    });
    sent.join().unwrap();
    for reason in ["ttl", "malformed", "no-session"] {
        dropped(reason).await;
    }
    assert!(matches!(here.view(), View::Known(status) if status.down_count == 0));
}

#[tokio::test]
async fn of_two_processes_the_second_leaves_the_first_ones_socket_alone() {
    let pair = Pair::new(1);
    let _there = pair
        .right
        .client()
        .request(key("10.9.0.1", "10.9.1.1", Hops::Single), profile(50));
    // As if the first had its ports and not yet its socket when the second looks for it.
    let aside = pair.left.socket.with_extension("aside");
    std::fs::rename(&pair.left.socket, &aside).unwrap();
    let second = pair
        .left
        .command(env!("CARGO_BIN_EXE_causeway-bfdd"))
        .arg("--socket")
        .arg(&pair.left.socket)
        .output()
        .unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another BFD daemon runs here"), "{said}");
    assert!(
        !pair.left.socket.exists(),
        "a socket nobody serves is in its place"
    );
    std::fs::rename(&aside, &pair.left.socket).unwrap();
    let client = pair.left.client();
    let mut here = client.request(key("10.9.1.1", "10.9.0.1", Hops::Single), profile(50));
    up(&mut here).await;
}
