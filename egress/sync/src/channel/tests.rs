// SPDX-License-Identifier: Apache-2.0

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn keys(octets: &[u8]) -> Keys {
    Keys::new(
        octets
            .iter()
            .map(|o| Key::new(&[*o; 32]).unwrap())
            .collect(),
    )
    .unwrap()
}

fn config(node: &str, octets: &[u8]) -> Config {
    Config {
        name: name(node),
        timing: Timing::default(),
        keys: keys(octets),
    }
}

/// Takes everything an end has to write.
fn written(channel: &mut Channel) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !channel.pending().is_empty() {
        let some = channel.pending().to_vec();
        channel.handle_written(some.len());
        bytes.extend(some);
    }
    bytes
}

fn outputs(channel: &mut Channel) -> Vec<Output> {
    std::iter::from_fn(|| channel.poll_output()).collect()
}

fn failure(channel: &mut Channel) -> ChannelError {
    match outputs(channel).pop() {
        Some(Output::Ended(End::Failed(error))) => error,
        other => panic!("not failed: {other:?}"),
    }
}

/// A connection whose bytes the test carries.
struct Pair {
    now: Instant,
    a: Channel,
    b: Channel,
}

impl Pair {
    fn new(a: Config, b: Config) -> Pair {
        let now = Instant::now();
        Pair {
            now,
            a: Channel::initiator(a, None, [1; 32], now),
            b: Channel::responder(b, [2; 32], now),
        }
    }

    fn established() -> Pair {
        let mut pair = Pair::new(config("a", &[7]), config("b", &[7]));
        pair.carry();
        assert_eq!(pair.a.peer(), Some(&name("b")));
        assert_eq!(pair.b.peer(), Some(&name("a")));
        outputs(&mut pair.a);
        outputs(&mut pair.b);
        pair
    }

    fn carry(&mut self) {
        loop {
            let (there, back) = (written(&mut self.a), written(&mut self.b));
            if there.is_empty() && back.is_empty() {
                return;
            }
            self.b.handle_bytes(&there, self.now);
            self.a.handle_bytes(&back, self.now);
        }
    }

    /// The frame that a says this in.
    fn frame(&mut self, message: &[u8]) -> Vec<u8> {
        self.a.send(message, self.now).unwrap();
        written(&mut self.a)
    }
}

#[test]
fn two_ends_with_one_key_hear_each_other() {
    let mut pair = Pair::new(config("a", &[7]), config("b", &[7]));
    assert_eq!(
        pair.a.send(b"too early", pair.now),
        Err(SendError::NotEstablished)
    );
    pair.carry();
    let established = |peer: &str| Output::Established {
        peer: name(peer),
        version: VERSION,
    };
    assert_eq!(outputs(&mut pair.a), [established("b")]);
    assert_eq!(outputs(&mut pair.b), [established("a")]);
    pair.a.send(b"one", pair.now).unwrap();
    pair.a.send(b"", pair.now).unwrap();
    pair.b.send(&[9; MAX_MESSAGE], pair.now).unwrap();
    pair.carry();
    assert_eq!(
        outputs(&mut pair.b),
        [
            Output::Message(b"one".to_vec()),
            Output::Message(Vec::new())
        ]
    );
    assert_eq!(
        outputs(&mut pair.a),
        [Output::Message(vec![9; MAX_MESSAGE])]
    );
    pair.a.close();
    pair.carry();
    assert_eq!(outputs(&mut pair.a), [Output::Ended(End::Here)]);
    assert_eq!(outputs(&mut pair.b), [Output::Ended(End::There)]);
    pair.b.handle_end_of_stream();
    assert_eq!(outputs(&mut pair.b), [], "an end is said once");
}

#[test]
fn bytes_may_come_one_by_one() {
    let mut pair = Pair::new(config("a", &[7]), config("b", &[7]));
    for _ in 0..3 {
        for octet in written(&mut pair.a) {
            pair.b.handle_bytes(&[octet], pair.now);
        }
        for octet in written(&mut pair.b) {
            pair.a.handle_bytes(&[octet], pair.now);
        }
        if pair.a.peer().is_some() {
            let _ = pair.a.send(b"hello", pair.now);
        }
    }
    assert!(outputs(&mut pair.b).contains(&Output::Message(b"hello".to_vec())));
}

#[test]
fn who_knows_another_key_is_refused_by_both() {
    let mut pair = Pair::new(config("a", &[7]), config("b", &[8]));
    pair.carry();
    assert_eq!(failure(&mut pair.a), ChannelError::WrongKey);
    assert_eq!(pair.b.peer(), None);
    pair.b.handle_end_of_stream();
    assert_eq!(failure(&mut pair.b), ChannelError::EndOfStream);

    // An initiator that says it has checked the answer when it has not.
    let mut pair = Pair::new(config("a", &[7]), config("b", &[8]));
    written(&mut pair.a);
    pair.b.handle_bytes(
        &handshake::hello(&name("a"), Duration::from_secs(5), &[1; 32]),
        pair.now,
    );
    pair.b.handle_bytes(&handshake::proof(&[0; 32]), pair.now);
    assert_eq!(failure(&mut pair.b), ChannelError::WrongKey);
}

#[test]
fn keys_are_replaced_without_a_gap() {
    // Old everywhere; new added behind; new first; old removed. Any two neighbouring steps of one
    // rollout meet.
    let steps: [&[u8]; 4] = [&[1], &[1, 2], &[2, 1], &[2]];
    for (i, a) in steps.iter().enumerate() {
        for (j, b) in steps.iter().enumerate() {
            let mut pair = Pair::new(config("a", a), config("b", b));
            pair.carry();
            let is_up = pair.a.peer().is_some() && pair.b.peer().is_some();
            assert_eq!(is_up, i.abs_diff(j) <= 1, "{a:?} with {b:?}");
            if is_up {
                pair.a.send(b"there", pair.now).unwrap();
                pair.b.send(b"back", pair.now).unwrap();
                pair.carry();
                assert!(outputs(&mut pair.a).contains(&Output::Message(b"back".to_vec())));
                assert!(outputs(&mut pair.b).contains(&Output::Message(b"there".to_vec())));
            }
        }
    }
}

#[test]
fn an_end_whose_key_is_unknown_there_is_never_linked() {
    // It knows the responder's key, and the responder does not know its first one.
    let mut pair = Pair::new(config("a", &[2, 1]), config("b", &[1]));
    let hello = written(&mut pair.a);
    pair.b.handle_bytes(&hello, pair.now);
    let answer = written(&mut pair.b);
    pair.a.handle_bytes(&answer, pair.now);
    assert_eq!(outputs(&mut pair.a), []);
    assert_eq!((pair.a.peer(), pair.a.room()), (None, 0));
    assert_eq!(
        pair.a.send(b"too early", pair.now),
        Err(SendError::NotEstablished)
    );
    pair.carry();
    assert_eq!(failure(&mut pair.b), ChannelError::WrongKey);
    pair.a.handle_end_of_stream();
    assert_eq!(
        outputs(&mut pair.a),
        [Output::Ended(End::Failed(ChannelError::EndOfStream))]
    );
}

#[test]
fn an_end_that_sends_back_what_it_hears_is_refused() {
    let mut pair = Pair::new(config("a", &[7]), config("b", &[7]));
    let hello = written(&mut pair.a);
    pair.a.handle_bytes(&hello, pair.now);
    assert_eq!(failure(&mut pair.a), ChannelError::OutOfTurn(1));

    // The answer made of our own first packet, proved by nobody.
    let mut a = Channel::initiator(config("a", &[7]), None, [1; 32], pair.now);
    let mut answer = handshake::answer(&name("b"), Duration::from_secs(5), &[1; 32]);
    answer.extend([0; 32]);
    a.handle_bytes(&answer, pair.now);
    assert_eq!(failure(&mut a), ChannelError::Reflected);

    // A proof is worth nothing in the other role.
    let mut pair = Pair::new(config("a", &[7]), config("b", &[7]));
    let hello = written(&mut pair.a);
    pair.b.handle_bytes(&hello, pair.now);
    let answer = written(&mut pair.b);
    let proof = answer.last_chunk::<32>().unwrap();
    pair.b.handle_bytes(&handshake::proof(proof), pair.now);
    assert_eq!(failure(&mut pair.b), ChannelError::WrongKey);

    // A frame is worth nothing in the other direction.
    let mut pair = Pair::established();
    let frame = pair.frame(b"one");
    pair.a.handle_bytes(&frame, pair.now);
    assert_eq!(failure(&mut pair.a), ChannelError::Forged);
}

#[test]
fn a_handshake_of_before_is_worth_nothing() {
    let mut pair = Pair::new(config("a", &[7]), config("b", &[7]));
    let hello = written(&mut pair.a);
    pair.b.handle_bytes(&hello, pair.now);
    let answer = written(&mut pair.b);
    pair.a.handle_bytes(&answer, pair.now);
    let proof = written(&mut pair.a);
    pair.b.handle_bytes(&proof, pair.now);
    assert!(pair.b.peer().is_some());
    pair.carry();
    let frame = pair.frame(b"one");

    // To the responder, whose nonce is another.
    let mut b = Channel::responder(config("b", &[7]), [3; 32], pair.now);
    b.handle_bytes(&hello, pair.now);
    b.handle_bytes(&proof, pair.now);
    assert_eq!(failure(&mut b), ChannelError::WrongKey);
    // To the initiator.
    let mut a = Channel::initiator(config("a", &[7]), None, [4; 32], pair.now);
    a.handle_bytes(&answer, pair.now);
    assert_eq!(failure(&mut a), ChannelError::WrongKey);
    // A frame of that connection in another.
    let mut other = Pair::new(config("a", &[7]), config("b", &[7]));
    other.b = Channel::responder(config("b", &[7]), [5; 32], pair.now);
    other.carry();
    other.b.handle_bytes(&frame, pair.now);
    assert_eq!(failure(&mut other.b), ChannelError::Forged);
}

#[test]
fn names_are_who_they_should_be() {
    let mut pair = Pair::new(config("a", &[7]), config("a", &[7]));
    pair.carry();
    assert_eq!(failure(&mut pair.b), ChannelError::OwnName);

    let mut pair = Pair::new(config("a", &[7]), config("b", &[7]));
    pair.a = Channel::initiator(config("a", &[7]), Some(name("c")), [1; 32], pair.now);
    pair.carry();
    assert_eq!(
        failure(&mut pair.a),
        ChannelError::WrongPeer {
            expected: name("c"),
            found: name("b")
        }
    );
}

#[test]
fn whoever_speaks_something_else_is_refused_at_the_first_octet_that_differs() {
    let now = Instant::now();
    let refused = |bytes: &[u8]| {
        let mut b = Channel::responder(config("b", &[7]), [2; 32], now);
        b.handle_bytes(bytes, now);
        failure(&mut b)
    };
    assert_eq!(refused(b"GET /"), ChannelError::Protocol);
    assert_eq!(refused(b"CWESx\xff\xff"), ChannelError::Malformed);
    assert_eq!(refused(b"CWES\x09\0\0"), ChannelError::Malformed);
    assert_eq!(refused(b"CWES\x01\0\0"), ChannelError::Malformed);
    assert_eq!(
        refused(b"CWES\x01\0\x03\x02\x05?"),
        ChannelError::Version {
            lowest: 2,
            highest: 5
        }
    );
    assert_eq!(
        refused(&handshake::hello(
            &name("a"),
            Duration::from_millis(10),
            &[1; 32]
        )),
        ChannelError::Impatient(Duration::from_millis(10))
    );
}

#[test]
fn a_frame_counts_once_and_in_its_turn() {
    let mut pair = Pair::established();
    let (first, second) = (pair.frame(b"one"), pair.frame(b"two"));
    pair.b.handle_bytes(&first, pair.now);
    assert_eq!(outputs(&mut pair.b), [Output::Message(b"one".to_vec())]);
    pair.b.handle_bytes(&first, pair.now);
    assert_eq!(
        failure(&mut pair.b),
        ChannelError::Replayed {
            expected: 1,
            found: 0
        }
    );
    pair.b.handle_bytes(&second, pair.now);
    assert_eq!(outputs(&mut pair.b), [], "nothing is heard after an end");

    let mut pair = Pair::established();
    let (first, second) = (pair.frame(b"one"), pair.frame(b"two"));
    pair.b.handle_bytes(&[second, first].concat(), pair.now);
    assert_eq!(
        failure(&mut pair.b),
        ChannelError::Reordered {
            expected: 0,
            found: 1
        }
    );
}

#[test]
fn lengths_are_refused_before_anything_is_buffered_for_them() {
    let mut pair = Pair::established();
    let length = (MAX_FRAME - 3) as u32;
    pair.b.handle_bytes(&length.to_be_bytes(), pair.now);
    assert_eq!(failure(&mut pair.b), ChannelError::Oversized { length });

    let mut pair = Pair::established();
    pair.b.handle_bytes(&24u32.to_be_bytes(), pair.now);
    assert_eq!(
        failure(&mut pair.b),
        ChannelError::Undersized { length: 24 }
    );
}

#[test]
fn an_end_without_a_goodbye_is_noticed() {
    let mut pair = Pair::established();
    pair.b.handle_end_of_stream();
    assert_eq!(failure(&mut pair.b), ChannelError::EndOfStream);

    let mut pair = Pair::established();
    let frame = pair.frame(b"one");
    pair.b.handle_bytes(&frame[..frame.len() - 1], pair.now);
    pair.b.handle_end_of_stream();
    assert_eq!(failure(&mut pair.b), ChannelError::Truncated);
}

#[test]
fn a_silent_handshake_ends() {
    let mut pair = Pair::new(config("a", &[7]), config("b", &[7]));
    let at = pair.now + Duration::from_secs(5);
    for channel in [&mut pair.a, &mut pair.b] {
        assert_eq!(channel.poll_timeout(), Some((at, "handshake")));
        channel.handle_timeout(at - Duration::from_millis(1));
        assert!(!channel.is_ended());
        channel.handle_timeout(at);
        assert_eq!(failure(channel), ChannelError::HandshakeTimeout);
        assert_eq!(channel.poll_timeout(), None);
    }
}

#[test]
fn keepalives_keep_it_up_and_silence_ends_it() {
    let mut pair = Pair::established();
    let begin = pair.now;
    while pair.now < begin + Duration::from_secs(60) {
        pair.now = pair.a.poll_timeout().unwrap().0;
        pair.a.handle_timeout(pair.now);
        pair.b.handle_timeout(pair.now);
        pair.carry();
    }
    assert!(!pair.a.is_ended() && !pair.b.is_ended());
    assert_eq!(outputs(&mut pair.b), [], "keepalives are no messages");
    let silent = pair.now;
    while !pair.b.is_ended() {
        pair.now = pair.b.poll_timeout().unwrap().0;
        pair.b.handle_timeout(pair.now);
    }
    assert_eq!(pair.now - silent, Duration::from_secs(3));
    assert_eq!(failure(&mut pair.b), ChannelError::Idle);
}

#[test]
fn bytes_that_are_no_frame_do_not_keep_it_up() {
    let mut pair = Pair::established();
    let frame = pair.frame(&[1; 100]);
    for octet in &frame[..60] {
        pair.now += Duration::from_millis(100);
        pair.b.handle_bytes(&[*octet], pair.now);
        pair.b.handle_timeout(pair.now);
    }
    assert_eq!(failure(&mut pair.b), ChannelError::Idle);
}

#[test]
fn keepalives_are_as_fast_as_the_other_end_is_impatient() {
    let mut hasty = config("b", &[7]);
    let (fast, idle) = (Duration::from_millis(100), Duration::from_millis(600));
    hasty.timing = Timing::new(fast, idle, Duration::from_secs(5)).unwrap();
    let mut pair = Pair::new(config("a", &[7]), hasty);
    pair.carry();
    let keepalive = pair.now + Duration::from_millis(200);
    assert_eq!(pair.a.poll_timeout(), Some((keepalive, "keepalive")));
    assert_eq!(
        Timing::new(fast, fast * 2, fast),
        Err(TimingError::Idle(fast * 2))
    );
    assert!(Timing::new(fast / 2, idle, fast).is_err());
    assert!(Timing::new(fast, idle, fast / 2).is_err());
}

#[test]
fn what_waits_to_be_written_is_bounded() {
    let mut pair = Pair::established();
    let mut sent = 0;
    while pair.a.send(&[0; MAX_MESSAGE], pair.now).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 15, "1 MiB less what frames have besides");
    assert_eq!(
        pair.a.send(&[0; MAX_MESSAGE], pair.now),
        Err(SendError::Full)
    );
    assert!(pair.a.room() < MAX_MESSAGE);
    for _ in 0..1000 {
        pair.now += Duration::from_secs(1);
        pair.a.handle_timeout(pair.now);
        pair.a.handle_bytes(&[], pair.now);
    }
    pair.a.close();
    assert!(pair.a.pending.len() <= SEND_BUFFER);
    assert_eq!(
        pair.a.send(&[0; MAX_MESSAGE + 1], pair.now),
        Err(SendError::TooLong(MAX_MESSAGE + 1))
    );
}

proptest! {
    #[test]
    fn a_bit_flipped_anywhere_in_a_frame_is_refused(
        message in vec(any::<u8>(), 0..200),
        at: prop::sample::Index,
        bit in 0..8,
    ) {
        let mut pair = Pair::established();
        let mut frame = pair.frame(&message);
        let after = pair.frame(b"next");
        let at = at.index(frame.len());
        frame[at] ^= 1u8 << bit;
        pair.b.handle_bytes(&frame, pair.now);
        pair.b.handle_bytes(&after, pair.now);
        pair.b.handle_end_of_stream();
        let heard = outputs(&mut pair.b);
        prop_assert!(matches!(
            &heard[..],
            [Output::Ended(End::Failed(
                ChannelError::Forged
                    | ChannelError::Oversized { .. }
                    | ChannelError::Undersized { .. }
                    | ChannelError::Truncated
            ))]
        ), "{heard:?}");
    }

    #[test]
    fn a_bit_flipped_anywhere_in_a_handshake_is_refused(
        packet in 0..3,
        at: prop::sample::Index,
        bit in 0..8,
    ) {
        let mut pair = Pair::new(config("a", &[7]), config("b", &[7]));
        let flip = |mut bytes: Vec<u8>, number| {
            if packet == number {
                let at = at.index(bytes.len());
                bytes[at] ^= 1u8 << bit;
            }
            bytes
        };
        let hello = flip(written(&mut pair.a), 0);
        pair.b.handle_bytes(&hello, pair.now);
        let answer = flip(written(&mut pair.b), 1);
        pair.a.handle_bytes(&answer, pair.now);
        let proof = flip(written(&mut pair.a), 2);
        pair.b.handle_bytes(&proof, pair.now);
        prop_assert_eq!(pair.b.peer(), None);
        prop_assert!(packet == 2 || pair.a.peer().is_none());
    }

    #[test]
    fn frames_in_any_other_order_are_refused(
        order in Just((0..6).collect::<Vec<usize>>()).prop_shuffle(),
        again in proptest::option::of(0usize..6),
    ) {
        let mut pair = Pair::established();
        let frames: Vec<Vec<u8>> = (0..6).map(|i| pair.frame(&[i])).collect();
        let mut order = order;
        if let Some(again) = again {
            order.insert(again, order[again]);
        }
        let good = order.iter().enumerate().take_while(|(i, frame)| i == *frame).count();
        for frame in &order {
            pair.b.handle_bytes(&frames[*frame], pair.now);
        }
        let heard = outputs(&mut pair.b);
        let mut expected: Vec<Output> =
            (0..good).map(|i| Output::Message(vec![i as u8])).collect();
        if let Some(found) = order.get(good) {
            let (expected_number, found) = (good as u64, *found as u64);
            expected.push(Output::Ended(End::Failed(if found < expected_number {
                ChannelError::Replayed { expected: expected_number, found }
            } else {
                ChannelError::Reordered { expected: expected_number, found }
            })));
        }
        prop_assert_eq!(heard, expected);
    }

    #[test]
    fn any_bytes_at_any_time_do_not_panic(
        bytes in vec(any::<u8>(), 0..300),
        is_established: bool,
        is_ours: bool,
    ) {
        let mut pair = if is_established {
            Pair::established()
        } else {
            Pair::new(config("a", &[7]), config("b", &[7]))
        };
        let head: &[u8] = match (is_ours, is_established) {
            (false, _) => &[],
            (true, false) => b"CWES\x01\0",
            (true, true) => &[0, 0, 0],
        };
        let bytes = [head, &bytes].concat();
        pair.b.handle_bytes(&bytes, pair.now);
        pair.a.handle_bytes(&bytes, pair.now);
        prop_assert!(!outputs(&mut pair.b).iter().any(|o| matches!(o, Output::Message(_))));
        prop_assert!(pair.b.input.len() <= MAX_FRAME);
    }
}
