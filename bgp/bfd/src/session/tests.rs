// SPDX-License-Identifier: Apache-2.0
//! Two sessions against each other, over a link that loses and delays, with a virtual clock.

use std::num::NonZeroU8;

use proptest::prelude::*;

use super::*;
use crate::profile::{Auth, AuthType, Echo, Interval};
use crate::wire::{self, HEADER};

/// Two ends and what is under way between them.
struct Link {
    now: Instant,
    ends: [Session; 2],
    under_way: Vec<(Instant, usize, Encoded)>,
    echoes: Vec<(Instant, usize, u64)>,
    /// Loss in percent, by direction of the receiver.
    loss: [u32; 2],
    returns_echo: bool,
    random: Random,
    went: Vec<(Instant, usize, State, Diagnostic)>,
    packets: [u64; 2],
    polls: u64,
    discards: u64,
    stale: u64,
}

const MS: Duration = Duration::from_millis(1);

fn profile(transmit: u64, receive: u64, multiplier: u8) -> Profile {
    Profile {
        transmit: Interval::from_ms(transmit).expect("in range"),
        receive: Interval::from_ms(receive).expect("in range"),
        multiplier: NonZeroU8::new(multiplier).expect("not 0"),
        ..Profile::default()
    }
}

fn link(a: Profile, b: Profile, seed: u64) -> Link {
    let now = Instant::now();
    Link {
        now,
        ends: [
            Session::new(11, Hops::Single, a, seed, now),
            Session::new(22, Hops::Single, b, seed.wrapping_add(99), now),
        ],
        under_way: Vec::new(),
        echoes: Vec::new(),
        loss: [0, 0],
        returns_echo: true,
        random: Random::new(seed.wrapping_mul(31)),
        went: Vec::new(),
        packets: [0, 0],
        polls: 0,
        discards: 0,
        stale: 0,
    }
}

impl Link {
    fn states(&self) -> [State; 2] {
        [self.ends[0].state(), self.ends[1].state()]
    }

    fn drain(&mut self) {
        for end in 0..2 {
            while let Some(output) = self.ends[end].poll_output() {
                match output {
                    Output::Transmit(bytes) => {
                        self.packets[end] += 1;
                        let received = wire::decode(bytes.as_slice()).expect("own packets");
                        assert!(!(received.packet.poll && received.packet.last));
                        self.polls += u64::from(received.packet.poll);
                        let receiver = 1 - end;
                        if self.random.next() % 100 >= self.loss[receiver] {
                            // In order: a link delays, it does not reorder.
                            let last = self.under_way.iter().filter(|(_, to, _)| *to == receiver);
                            let last = last.map(|(at, ..)| *at).max().unwrap_or(self.now);
                            let delay = MS * (self.random.next() % 3);
                            let at = (self.now + delay).max(last);
                            self.under_way.push((at, receiver, bytes));
                        }
                    }
                    Output::TransmitEcho { sequence } => {
                        let is_lost = self.random.next() % 100 < self.loss[0] + self.loss[1];
                        if self.returns_echo && !is_lost {
                            let delay = MS * (self.random.next() % 3);
                            self.echoes.push((self.now + delay, end, sequence));
                        }
                    }
                    Output::State { to, diagnostic, .. } => {
                        self.went.push((self.now, end, to, diagnostic));
                    }
                }
            }
        }
    }

    /// Lets time pass.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.drain();
            let timers = self
                .ends
                .iter()
                .filter_map(|s| s.poll_timeout().map(|(at, _)| at));
            let packets = self.under_way.iter().map(|(at, ..)| *at);
            let echoes = self.echoes.iter().map(|(at, ..)| *at);
            let next = timers.chain(packets).chain(echoes).min();
            let Some(at) = next.filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            let now = self.now;
            let (due, rest) = self.under_way.drain(..).partition(|(at, ..)| *at <= now);
            self.under_way = rest;
            let due: Vec<(Instant, usize, Encoded)> = due;
            for (_, receiver, bytes) in due {
                let received = wire::decode(bytes.as_slice()).expect("own packets");
                if self.ends[receiver].handle_packet(&received, now).is_err() {
                    self.discards += 1;
                }
            }
            let (due, rest) = self.echoes.drain(..).partition(|(at, ..)| *at <= now);
            self.echoes = rest;
            let due: Vec<(Instant, usize, u64)> = due;
            for (_, sender, sequence) in due {
                if self.ends[sender].handle_echo(sequence, now).is_err() {
                    self.stale += 1;
                }
            }
            for session in &mut self.ends {
                if session.poll_timeout().is_some_and(|(at, _)| at <= now) {
                    session.handle_timeout(now);
                }
            }
        }
    }
}

#[test]
fn two_ends_come_up_and_negotiate() {
    let mut link = link(profile(50, 60, 3), profile(100, 300, 5), 1);
    link.run(Duration::from_secs(5));
    assert_eq!(link.states(), [State::Up, State::Up]);
    let [a, b] = [
        link.ends[0].status(Instant::now()),
        link.ends[1].status(Instant::now()),
    ];
    assert_eq!(a.transmit_interval_us, 300_000, "the slower of the two");
    assert_eq!(b.transmit_interval_us, 100_000);
    assert_eq!(a.detection_time_us, 500_000, "their multiplier");
    assert_eq!(b.detection_time_us, 900_000);
    assert!(!a.polling && !b.polling, "the polls are answered");
    assert!(link.polls >= 2, "each end asked when it came up");
    assert_eq!(a.up_count, 1);
}

#[test]
fn packets_are_a_second_apart_until_up() {
    let mut link = link(profile(10, 10, 3), profile(10, 10, 3), 2);
    link.loss = [100, 100];
    link.run(Duration::from_secs(20));
    for sent in link.packets {
        assert!((20..=28).contains(&sent), "{sent} packets in 20 s");
    }
    assert_eq!(link.states(), [State::Down, State::Down]);
}

#[test]
fn silence_is_detected_in_the_detection_time() {
    for seed in 0..50 {
        let mut link = link(profile(50, 50, 3), profile(50, 50, 3), seed);
        link.run(Duration::from_secs(5));
        link.went.clear();
        link.loss = [100, 100];
        let cut = link.now;
        link.run(Duration::from_secs(1));
        for end in 0..2 {
            let (at, _, state, diagnostic) = link.went.iter().find(|w| w.1 == end).expect("down");
            assert_eq!(*state, State::Down);
            assert_eq!(*diagnostic, Diagnostic::DETECTION_TIME_EXPIRED);
            let took = *at - cut;
            assert!(took >= 95 * MS && took <= 153 * MS, "{took:?}");
        }
        assert_eq!(link.ends[0].status(Instant::now()).remote_discriminator, 0);
        link.loss = [0, 0];
        link.run(Duration::from_secs(5));
        assert_eq!(link.states(), [State::Up, State::Up]);
    }
}

#[test]
fn loss_in_one_direction_takes_both_down() {
    let mut link = link(profile(50, 50, 3), profile(50, 50, 3), 3);
    link.run(Duration::from_secs(5));
    link.went.clear();
    link.loss = [100, 0];
    link.run(Duration::from_secs(1));
    assert_eq!(link.went[0].1, 0);
    assert_eq!(link.went[0].3, Diagnostic::DETECTION_TIME_EXPIRED);
    assert_eq!(link.went[1].1, 1);
    assert_eq!(link.went[1].3, Diagnostic::NEIGHBOR_DOWN);
    assert!(link.went[1].0 - link.went[0].0 <= 3 * MS, "told at once");
    // End 1 may come as far as Init: end 0 does not hear it.
    assert!(!link.states().contains(&State::Up));
}

#[test]
fn slower_intervals_wait_for_the_answer_and_faster_ones_do_not_flap() {
    let mut link = link(profile(50, 50, 3), profile(50, 50, 3), 4);
    link.run(Duration::from_secs(5));
    link.went.clear();
    let polls = link.polls;
    // Unanswered: the neighbour still detects by the old interval, so it is kept.
    link.loss = [100, 0];
    let now = link.now;
    link.ends[0].handle_profile(profile(1000, 50, 3), now);
    link.drain();
    assert_eq!(
        link.ends[0].status(Instant::now()).transmit_interval_us,
        50_000
    );
    assert!(link.ends[0].status(Instant::now()).polling);
    link.loss = [0, 0];
    link.run(Duration::from_secs(4));
    assert_eq!(
        link.ends[0].status(Instant::now()).transmit_interval_us,
        1_000_000
    );
    assert_eq!(
        link.ends[1].status(Instant::now()).detection_time_us,
        3_000_000
    );
    for (tx, rx) in [(10, 10), (2000, 3000), (10, 500), (50, 50)] {
        let now = link.now;
        link.ends[0].handle_profile(profile(tx, rx, 3), now);
        link.run(Duration::from_secs(15));
    }
    assert!(link.polls > polls);
    assert_eq!(link.went, [], "no flap by any change");
    assert_eq!(
        link.ends[1].status(Instant::now()).detection_time_us,
        150_000
    );
}

#[test]
fn a_neighbour_that_falls_silent_was_what_it_said() {
    let mut link = link(profile(50, 50, 3), profile(50, 50, 3), 5);
    link.run(Duration::from_secs(5));
    link.loss = [100, 100];
    link.run(Duration::from_secs(5));
    let status = link.ends[0].status(Instant::now());
    assert_eq!(status.state, State::Down);
    assert_eq!(status.remote_discriminator, 0);
    // Whether this may be a restart is asked after the fact.
    assert!(status.remote_control_plane_independent);
}

#[test]
fn shut_is_told_and_not_mistaken_for_failure() {
    let mut link = link(profile(50, 50, 3), profile(50, 50, 3), 5);
    link.run(Duration::from_secs(5));
    link.went.clear();
    let now = link.now;
    link.ends[0].handle_admin(true, now);
    link.run(Duration::from_secs(5));
    assert_eq!(link.states(), [State::AdminDown, State::Down]);
    assert_eq!(
        link.ends[1].status(Instant::now()).remote_state,
        State::AdminDown
    );
    assert_eq!(link.ends[1].status(Instant::now()).failures, 0);
    assert_eq!(
        link.ends[1].status(Instant::now()).last_down,
        Some(Diagnostic::NEIGHBOR_DOWN)
    );
    let now = link.now;
    link.ends[0].handle_admin(false, now);
    link.run(Duration::from_secs(5));
    assert_eq!(link.states(), [State::Up, State::Up]);
}

#[test]
fn the_passive_end_waits() {
    let passive = Profile {
        passive: true,
        ..profile(50, 50, 3)
    };
    let mut link = link(passive.clone(), passive.clone(), 6);
    link.run(Duration::from_secs(10));
    assert_eq!(link.packets, [0, 0]);
    let now = link.now;
    link.ends[1].handle_profile(profile(50, 50, 3), now);
    link.run(Duration::from_secs(5));
    assert_eq!(link.states(), [State::Up, State::Up]);
}

#[test]
fn every_authentication_type_comes_up_and_a_wrong_key_does_not() {
    for kind in AuthType::ALL {
        let with = |key: &[u8]| Profile {
            auth: Some(Auth::new(kind, 1, key).expect("a key")),
            ..profile(50, 50, 3)
        };
        let mut right = link(with(b"one"), with(b"one"), 7);
        right.run(Duration::from_secs(20));
        assert_eq!(right.states(), [State::Up, State::Up], "{kind:?}");
        assert_eq!(right.ends[0].status(Instant::now()).up_count, 1);
        let mut wrong = link(with(b"one"), with(b"two"), 7);
        wrong.run(Duration::from_secs(20));
        assert_eq!(wrong.states(), [State::Down, State::Down], "{kind:?}");
        assert!(wrong.discards > 0);
        let mut none = link(with(b"one"), profile(50, 50, 3), 7);
        none.run(Duration::from_secs(20));
        assert_eq!(none.states(), [State::Down, State::Down], "{kind:?}");
    }
}

#[test]
fn a_packet_played_again_is_discarded() {
    let now = Instant::now();
    let auth = Auth::new(AuthType::MeticulousKeyedSha1, 1, *b"key").expect("a key");
    let profile = Profile {
        auth: Some(auth.clone()),
        ..profile(50, 50, 3)
    };
    let mut session = Session::new(1, Hops::Single, profile, 8, now);
    let packet = Packet {
        state: State::Down,
        multiplier: 3,
        my_discriminator: 9,
        desired_min_tx_us: SLOW_US,
        required_min_rx_us: SLOW_US,
        ..Packet::default()
    };
    let take = |session: &mut Session, sequence| {
        let bytes = packet.encode(Some((&auth, sequence)));
        let received = wire::decode(bytes.as_slice()).expect("well-formed");
        session.handle_packet(&received, now)
    };
    assert_eq!(take(&mut session, u32::MAX), Ok(()));
    assert_eq!(take(&mut session, u32::MAX), Err(Discard::Replayed));
    assert_eq!(take(&mut session, 0), Ok(()), "numbers wrap around");
    assert_eq!(take(&mut session, u32::MAX), Err(Discard::Replayed));
    assert_eq!(
        take(&mut session, 10),
        Err(Discard::Replayed),
        "too far ahead"
    );
    assert_eq!(take(&mut session, 9), Ok(()));
}

#[test]
fn a_neighbour_in_demand_mode_is_left_in_peace_and_polled_when_needed() {
    let mut link = link(profile(50, 50, 3), profile(50, 50, 3), 9);
    link.run(Duration::from_secs(5));
    let now = link.now;
    let demanding = |poll| Packet {
        state: State::Up,
        poll,
        demand: true,
        multiplier: 3,
        my_discriminator: 22,
        your_discriminator: 11,
        desired_min_tx_us: 50_000,
        required_min_rx_us: 50_000,
        ..Packet::default()
    };
    let session = &mut link.ends[0];
    let give = |session: &mut Session, packet: Packet| {
        let bytes = packet.encode(None);
        let received = wire::decode(bytes.as_slice()).expect("well-formed");
        session.handle_packet(&received, now).expect("taken");
    };
    give(session, demanding(false));
    while session.poll_output().is_some() {}
    assert_eq!(session.status(Instant::now()).transmit_interval_us, 0);
    assert_eq!(
        session.poll_timeout().map(|(_, why)| why),
        Some("detection")
    );
    give(session, demanding(true));
    let answer = session.poll_output();
    let Some(Output::Transmit(bytes)) = answer else {
        panic!("an answer, not {answer:?}");
    };
    let received = wire::decode(bytes.as_slice()).expect("own packets");
    assert!(received.packet.last && !received.packet.poll);
    assert_eq!(bytes.as_slice().len(), HEADER);
    // A change of ours is polled for even so.
    session.handle_profile(profile(80, 80, 3), now);
    let change = session.poll_output();
    let Some(Output::Transmit(bytes)) = change else {
        panic!("a poll, not {change:?}");
    };
    assert!(
        wire::decode(bytes.as_slice())
            .expect("own packets")
            .packet
            .poll
    );
}

#[test]
fn a_neighbour_that_restarts_is_met_again() {
    let mut link = link(profile(50, 50, 3), profile(50, 50, 3), 11);
    link.run(Duration::from_secs(5));
    let now = link.now;
    link.ends[1] = Session::new(23, Hops::Single, profile(50, 50, 3), 77, now);
    link.run(Duration::from_secs(5));
    assert_eq!(link.states(), [State::Up, State::Up]);
    assert_eq!(link.ends[0].status(Instant::now()).remote_discriminator, 23);
    assert_eq!(link.ends[0].status(Instant::now()).down_count, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever intervals and multipliers, whatever was lost: both ends are up some seconds after
    /// the link is clean, and stay so; they agree on the detection time of each other.
    #[test]
    fn a_clean_link_is_up_and_stays_up(
        seed in any::<u64>(),
        tx in (10u64..2000, 10u64..2000),
        rx in (10u64..2000, 10u64..2000),
        multiplier in (1u8..6, 1u8..6),
        loss in (0u32..100, 0u32..100),
    ) {
        // Reordering and delay of the link are 2 ms, which a multiplier of 1 does not survive at
        // 10 ms: jitter leaves 10 % of the interval.
        let floor = |ms: u64, multiplier: u8| if multiplier == 1 { ms.max(50) } else { ms };
        let a = profile(floor(tx.0, multiplier.0), rx.0, multiplier.0);
        let b = profile(floor(tx.1, multiplier.1), rx.1, multiplier.1);
        let mut link = link(a, b, seed);
        link.loss = [loss.0, loss.1];
        link.run(Duration::from_secs(20));
        link.loss = [0, 0];
        link.run(Duration::from_secs(30));
        prop_assert_eq!(link.states(), [State::Up, State::Up]);
        link.went.clear();
        link.run(Duration::from_secs(60));
        prop_assert_eq!(&link.went, &[]);
        for end in 0..2 {
            let (own, other) = (link.ends[end].status(Instant::now()), link.ends[1 - end].status(Instant::now()));
            let expected = other.transmit_interval_us * u64::from(other.multiplier);
            prop_assert_eq!(own.detection_time_us, expected);
        }
    }

    /// Any packets at all: no panic, and never Up without a neighbour that says Init or Up.
    #[test]
    fn any_packets_in_any_order(
        packets in proptest::collection::vec((any::<[u8; 24]>(), 0u64..500), 0..60),
    ) {
        let mut now = Instant::now();
        let mut session = Session::new(11, Hops::Single, profile(50, 50, 3), 1, now);
        for (mut bytes, later) in packets {
            now += MS * later as u32;
            bytes[0] = 0x20 | bytes[0] & 0x1f;
            bytes[1] &= 0xfa;
            bytes[3] = 24;
            if let Ok(received) = wire::decode(&bytes) {
                let before = session.state();
                session.handle_packet(&received, now).expect("no authentication to fail");
                if before != State::Up && session.state() == State::Up {
                    prop_assert!(matches!(received.packet.state, State::Init | State::Up));
                }
            }
            if session.poll_timeout().is_some_and(|(at, _)| at <= now) {
                session.handle_timeout(now);
            }
            let mut outputs = 0;
            while session.poll_output().is_some() {
                outputs += 1;
            }
            prop_assert!(outputs <= 6, "{outputs} outputs of one input");
        }
    }
}

mod echo;
