// SPDX-License-Identifier: Apache-2.0
//! The echo function between two sessions.

use super::*;

/// Intervals of 300 ms, multiplier 3, and echo packets as often as this; 0 for none.
fn echoing(transmit: u64, receive: u64) -> Profile {
    let interval = |ms: u64| (ms != 0).then(|| Interval::from_ms(ms).expect("in range"));
    Profile {
        echo: Echo {
            transmit: interval(transmit),
            receive: interval(receive),
        },
        ..profile(300, 300, 3)
    }
}

/// A link whose left end sends echo packets every 50 ms that come back.
fn returning(seed: u64) -> Link {
    let mut link = link(echoing(20, 0), echoing(0, 50), seed);
    link.run(Duration::from_secs(5));
    assert_eq!(link.left().echo_state, EchoState::Returning);
    link.went.clear();
    link
}

impl Link {
    fn left(&self) -> SessionStatus {
        self.ends[0].status(self.now)
    }

    fn right(&self) -> SessionStatus {
        self.ends[1].status(self.now)
    }
}

#[test]
fn echo_packets_go_as_often_as_both_ends_allow_and_control_packets_relax() {
    let mut link = returning(10);
    let (left, right) = (link.left(), link.right());
    let echo = left.echo.expect("it echoes");
    assert_eq!(echo.interval_us, 50_000, "as often as the neighbour allows");
    assert_eq!(echo.detection_time_us, 150_000);
    assert!(echo.returning && echo.round_trip_us <= 2_000, "{echo:?}");
    assert_eq!(left.required_min_rx_us, SLOW_US);
    assert_eq!(left.detection_time_us, 3_000_000);
    assert_eq!(right.transmit_interval_us, 1_000_000);
    assert_eq!(right.echo_state, EchoState::Off);
    assert!(!left.polling && !right.polling, "the change was asked for");

    let before = (left.echoes_out, link.packets[1]);
    link.run(Duration::from_secs(10));
    let sent = link.left().echoes_out - before.0;
    assert!((200..=267).contains(&sent), "{sent} in 10 s");
    let relaxed = link.packets[1] - before.1;
    assert!((10..=14).contains(&relaxed), "{relaxed} control packets");
    assert_eq!((link.left().echoes_lost, link.stale), (0, 0));
}

#[test]
fn lost_echo_packets_are_a_failure_once_some_came_back() {
    for seed in 0..50 {
        let mut link = returning(seed);
        link.returns_echo = false;
        let cut = link.now;
        link.run(160 * MS);
        let (at, end, state, diagnostic) = link.went[0];
        assert_eq!((end, state), (0, State::Down));
        assert_eq!(diagnostic, Diagnostic::ECHO_FAILED);
        let took = at - cut;
        assert!(took >= 95 * MS && took <= 153 * MS, "{took:?}");
        assert!(link.left().echoes_lost >= 2);
        link.run(50 * MS);
        assert_eq!(link.right().last_down, Some(Diagnostic::NEIGHBOR_DOWN));
        // Nothing comes back any more: control packets alone bring it up and keep it, fast.
        link.run(Duration::from_secs(30));
        let status = link.left();
        assert_eq!(link.states(), [State::Up, State::Up]);
        assert_eq!(status.down_count, 1);
        assert_eq!(status.echo_state, EchoState::Unreturned);
        assert_eq!(status.detection_time_us, 900_000);
        // The path is mended: echo packets guard it again.
        link.returns_echo = true;
        link.run(Duration::from_secs(2));
        assert_eq!(link.left().echo_state, EchoState::Returning);
        assert_eq!(link.left().down_count, 1);
    }
}

#[test]
fn a_neighbour_that_returns_nothing_is_guarded_by_control_packets() {
    let mut link = link(echoing(50, 0), echoing(0, 50), 3);
    link.returns_echo = false;
    link.run(Duration::from_secs(60));
    let status = link.left();
    assert_eq!((status.state, status.down_count), (State::Up, 0));
    assert_eq!(status.echo_state, EchoState::Unreturned);
    assert_eq!(status.detection_time_us, 900_000);
}

#[test]
fn no_echo_packet_goes_to_who_takes_none_is_not_up_or_is_hops_away() {
    let mut refused = link(echoing(50, 0), echoing(0, 0), 1);
    refused.run(Duration::from_secs(5));
    assert_eq!(refused.left().echo_state, EchoState::Refused);
    let mut silent = link(echoing(50, 0), echoing(0, 50), 1);
    silent.loss = [100, 0];
    silent.run(Duration::from_secs(5));
    assert_eq!(silent.left().echo_state, EchoState::Waiting);
    let mut distant = link(echoing(50, 50), echoing(50, 50), 1);
    let now = distant.now;
    distant.ends =
        [11, 22].map(|number| Session::new(number, Hops::Multi, echoing(50, 50), 5, now));
    distant.run(Duration::from_secs(5));
    assert_eq!(distant.states(), [State::Up, State::Up]);
    assert_eq!(distant.left().echo_state, EchoState::Off);
    assert_eq!(distant.right().remote_min_echo_rx_us, 0);
    for link in [refused, silent, distant] {
        assert_eq!(link.left().echoes_out, 0);
    }
}

#[test]
fn either_end_stops_and_starts_it_without_a_flap() {
    let mut link = returning(4);
    let now = link.now;
    link.ends[0].handle_profile(echoing(0, 0), now);
    assert!(link.left().polling, "control packets shall be fast again");
    assert_eq!(
        link.left().detection_time_us,
        3_000_000,
        "until the neighbour has agreed they are waited for as before"
    );
    link.run(Duration::from_secs(2));
    assert_eq!(link.left().echo_state, EchoState::Off);
    assert_eq!(link.left().detection_time_us, 900_000);
    let now = link.now;
    link.ends[0].handle_profile(echoing(50, 0), now);
    link.run(Duration::from_secs(5));
    assert_eq!(link.left().echo_state, EchoState::Returning);
    assert_eq!(link.left().detection_time_us, 3_000_000);

    let now = link.now;
    link.ends[1].handle_profile(echoing(0, 0), now);
    link.run(Duration::from_secs(2));
    assert_eq!(link.left().echo_state, EchoState::Refused);
    assert_eq!(link.left().detection_time_us, 900_000);
    // From once a second to every 20 ms and back: what was awaited slowly is no failure.
    for receive in [1000, 20, 2000, 10] {
        let now = link.now;
        link.ends[1].handle_profile(echoing(0, receive), now);
        link.run(Duration::from_secs(7));
        assert_eq!(link.left().echo_state, EchoState::Returning);
        let interval_us = link.left().echo.expect("it echoes").interval_us;
        assert_eq!(interval_us, receive.max(50) * 1000);
    }
    assert_eq!((link.left().down_count, link.right().down_count), (0, 0));
}

#[test]
fn a_process_that_did_not_run_has_lost_no_echo_packet() {
    for seed in 0..50 {
        let mut link = returning(seed);
        for _ in 0..20 {
            // As a virtual machine that is migrated; control packets wait in the sockets.
            link.now += 400 * MS;
            link.run(700 * MS);
        }
        assert_eq!(link.left().down_count, 0, "{:?}", link.went);
    }
}

#[test]
fn an_echo_packet_counts_once_and_only_while_it_is_under_way() {
    let mut link = returning(6);
    let before = link.left().echoes_in;
    let now = link.now;
    for sequence in [0, before - 1, before + 100, u64::MAX] {
        assert_eq!(
            link.ends[0].handle_echo(sequence, now),
            Err(Discard::StaleEcho)
        );
    }
    assert_eq!(link.left().echoes_in, before);
    // Whoever plays old ones again does not keep the session up.
    link.returns_echo = false;
    let end = link.now + 160 * MS;
    while link.now < end {
        link.run(5 * MS);
        let now = link.now;
        assert!(link.ends[0].handle_echo(before - 1, now).is_err());
    }
    assert_eq!(link.went[0].3, Diagnostic::ECHO_FAILED);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever the ends ask for and whatever was lost before: on a clean link echo packets come
    /// back, never faster than the neighbour allows, and the session stays up.
    #[test]
    fn echo_packets_on_a_clean_link_keep_it_up(
        seed in any::<u64>(),
        transmit in (10u64..2000, 10u64..2000),
        receive in (10u64..2000, 10u64..2000),
        multiplier in 2u8..6,
        loss in 0u32..60,
    ) {
        let with = |echo: (u64, u64)| Profile {
            multiplier: NonZeroU8::new(multiplier).expect("not 0"),
            ..echoing(echo.0, echo.1)
        };
        let profiles = [(transmit.0, receive.0), (transmit.1, receive.1)].map(with);
        let mut link = link(profiles[0].clone(), profiles[1].clone(), seed);
        link.loss = [loss, loss];
        link.run(Duration::from_secs(20));
        link.loss = [0, 0];
        link.run(Duration::from_secs(30));
        link.went.clear();
        let before = [link.left().echoes_out, link.right().echoes_out];
        link.run(Duration::from_secs(60));
        prop_assert_eq!(&link.went, &Vec::new());
        for (end, status) in [link.left(), link.right()].iter().enumerate() {
            prop_assert_eq!(status.echo_state, EchoState::Returning);
            let allowed = [receive.1, receive.0][end];
            let most = 60_000 * 4 / (allowed * 3) + 1;
            prop_assert!(status.echoes_out - before[end] <= most);
        }
    }
}
