// SPDX-License-Identifier: Apache-2.0
//! Our own echo packets, returned by a neighbour's kernel, or by its process where that does not
//! forward.

use std::net::IpAddr;

use bgp_bfd::profile::{Echo, Hops, Interval, Profile};
use bgp_bfd::session::EchoState;
use bgp_bfd::wire::Diagnostic;
use bgp_bfdd::client::{Client, Registration};
use bgp_bfdd::protocol::SessionReport;

use super::pair::{Pair, key, profile, until, until_reported, up};

/// The two ends: of IPv4, and of IPv6 as an unnumbered link has it.
const ENDS: [(&str, &str); 2] = [("10.9.0.1", "10.9.1.1"), ("fe80::1", "fe80::2")];

/// Echo packets as often as this, in milliseconds; 0 for none.
pub(crate) fn echoing(transmit: u64, receive: u64) -> Profile {
    let interval = |ms: u64| (ms != 0).then(|| Interval::from_ms(ms).unwrap());
    Profile {
        echo: Echo {
            transmit: interval(transmit),
            receive: interval(receive),
        },
        ..profile(300)
    }
}

/// Waits until what a client's process says of a session fits.
async fn reported(
    client: &Client,
    peer: &str,
    what: &str,
    fits: impl Fn(&SessionReport) -> bool,
) -> SessionReport {
    let peer: IpAddr = peer.parse().unwrap();
    until_reported(client, what, |report| {
        let session = report.sessions.iter().find(|s| s.key.peer == peer);
        session.filter(|session| fits(session)).cloned()
    })
    .await
}

fn returning(session: &SessionReport) -> bool {
    session.status.echo_state == EchoState::Returning
        && session.status.echoes_in > 20
        && !session.status.polling
}

/// Both sessions of both families; the left end sends echo packets.
async fn both(pair: &Pair) -> (Client, Client, Vec<Registration>) {
    let (left, right) = (pair.left.client(), pair.right.client());
    let mut sessions = Vec::new();
    for (ours, theirs) in ENDS {
        sessions.push(left.request(key(theirs, ours, Hops::Single), echoing(50, 0)));
        sessions.push(right.request(key(ours, theirs, Hops::Single), echoing(0, 50)));
    }
    for session in &mut sessions {
        up(session).await;
    }
    (left, right, sessions)
}

#[tokio::test]
async fn echo_packets_come_back_and_their_loss_alone_is_a_failure() {
    let pair = Pair::new(1);
    pair.right.run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    pair.right
        .run(&["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"]);
    let (left, right, mut sessions) = both(&pair).await;
    for (_, theirs) in ENDS {
        let found = reported(&left, theirs, "returned by the kernel", returning).await;
        assert_eq!(found.status.detection_time_us, 3_000_000, "{found:#?}");
        assert_eq!(found.status.echo.unwrap().detection_time_us, 150_000);
        assert_eq!(found.echo_failure, None);
    }
    for (ours, _) in ENDS {
        let found = reported(&right, ours, "relaxed", |s| {
            s.status.transmit_interval_us == 1_000_000
        });
        assert_eq!(found.await.echoes_reflected, 0, "the kernel does that");
    }
    // The neighbour's data plane fails, its control plane is well.
    for (number, family) in [(0, "-4"), (2, "-6")] {
        let rule = "pref 1 ipproto udp dport 3785 blackhole".split(' ');
        let all: Vec<&str> = ["ip", family, "rule", "add"]
            .into_iter()
            .chain(rule)
            .collect();
        pair.right.run(&all);
        let here = &mut sessions[number];
        let status = until(here, "down", |status| status.down_count == 1).await;
        assert_eq!(status.last_down, Some(Diagnostic::ECHO_FAILED));
        assert_eq!(status.failures, 1);
    }
    // Control packets alone bring it up, as fast as without echo, and keep it.
    for (number, (_, theirs)) in [0, 2].into_iter().zip(ENDS) {
        up(&mut sessions[number]).await;
        let found = reported(&left, theirs, "fast again", |s| {
            s.status.detection_time_us == 900_000
                && s.status.echo_state == EchoState::Unreturned
                && s.status.echoes_out > s.status.echoes_in + 30
        });
        assert_eq!(found.await.status.down_count, 1);
    }
    for family in ["-4", "-6"] {
        pair.right.run(&["ip", family, "rule", "del", "pref", "1"]);
    }
    for (_, theirs) in ENDS {
        let found = reported(&left, theirs, "returned again", returning).await;
        assert_eq!(found.status.down_count, 1);
    }
}

#[tokio::test]
async fn where_the_kernel_does_not_forward_the_process_returns_them() {
    let pair = Pair::new(1);
    // As hosts are by default: nothing is forwarded, and sources are checked strictly.
    for setting in [
        "net.ipv4.ip_forward=0",
        "net.ipv6.conf.all.forwarding=0",
        "net.ipv4.conf.all.rp_filter=1",
    ] {
        pair.left.run(&["sysctl", "-qw", setting]);
        pair.right.run(&["sysctl", "-qw", setting]);
    }
    let (left, right, sessions) = both(&pair).await;
    for (ours, theirs) in ENDS {
        let found = reported(&left, theirs, "returned by the process", returning).await;
        let reflected = reported(&right, ours, "counted", |s| s.echoes_reflected > 20);
        assert_eq!(reflected.await.status.required_min_echo_rx_us, 50_000);
        assert_eq!(found.status.down_count, 0);
    }
    // Either end stops and starts it by another profile, and nobody flaps.
    for (index, (ours, theirs)) in [0, 2].into_iter().zip(ENDS) {
        sessions[index].change(echoing(0, 0));
        reported(&left, theirs, "stopped", |s| {
            s.status.echo_state == EchoState::Off && s.status.detection_time_us == 900_000
        })
        .await;
        sessions[index].change(echoing(20, 0));
        reported(&left, theirs, "started", returning).await;
        sessions[index + 1].change(echoing(0, 0));
        reported(&left, theirs, "refused", |s| {
            s.status.echo_state == EchoState::Refused && s.status.detection_time_us == 900_000
        })
        .await;
        // Both ways at once.
        sessions[index].change(echoing(50, 50));
        sessions[index + 1].change(echoing(50, 50));
        let here = reported(&left, theirs, "both ways", returning).await;
        let there = reported(&right, ours, "both ways", returning).await;
        assert_eq!((here.status.down_count, there.status.down_count), (0, 0));
    }
}

#[tokio::test]
async fn a_source_that_the_neighbour_does_not_take_gives_way_to_one_it_does() {
    let pair = Pair::new(1);
    // Off the link, as RFC 5881 asks, but the neighbour has no route to it.
    for address in ["192.0.2.77/32", "2001:db8::77/128"] {
        pair.left
            .run(&["ip", "address", "add", address, "dev", "lo"]);
    }
    for setting in [
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
        "net.ipv4.conf.all.rp_filter=1",
    ] {
        pair.right.run(&["sysctl", "-qw", setting]);
    }
    let (left, _right, _sessions) = both(&pair).await;
    let source = |wanted: &'static str| {
        move |s: &SessionReport| returning(s) && s.echo_source == Some(wanted.parse().unwrap())
    };
    let found = reported(
        &left,
        ENDS[0].1,
        "the session's own address",
        source("10.9.0.1"),
    )
    .await;
    assert!(
        found.status.echoes_out > found.status.echoes_in,
        "{found:#?}"
    );
    reported(&left, ENDS[1].1, "off the link", source("2001:db8::77")).await;
}

#[tokio::test]
async fn nobody_elses_packets_count() {
    let pair = Pair::new(1);
    let (left, _right, _sessions) = both(&pair).await;
    reported(&left, ENDS[0].1, "returned", returning).await;
    // As one of ours would be back, but for its seal, and as somebody else's.
    for payload in ["CWE1000000000000000000000000000", "hello"] {
        let line = format!("printf %s {payload}0 > /dev/udp/10.9.0.1/3785");
        for _ in 0..3 {
            pair.right.run(&["bash", "-c", &line]);
        }
    }
    until_reported(&left, "counted", |report| {
        report.drops.contains(&("echo".to_owned(), 3)).then_some(())
    })
    .await;
    let found = reported(&left, ENDS[0].1, "still returned", returning).await;
    assert!(found.status.echoes_in <= found.status.echoes_out);
    assert_eq!(found.status.down_count, 0);
}
