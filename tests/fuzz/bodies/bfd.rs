// SPDX-License-Identifier: Apache-2.0
//! Properties of BFD.

use std::time::{Duration, Instant};

use bgp_bfd::profile::{Auth, AuthType, Hops, Profile};
use bgp_bfd::session::{Output, Session};
use bgp_bfd::wire;

/// The input is a list of packets, each after an octet of length and one of milliseconds to wait;
/// its first octet chooses the authentication. Nothing panics, own packets are well-formed, timers
/// lie ahead once served, and one input has few outputs.
pub(crate) fn any_packets(data: &[u8]) {
    let Some((&choice, mut rest)) = data.split_first() else {
        return;
    };
    let auth = AuthType::ALL
        .get(usize::from(choice))
        .and_then(|kind| Auth::new(*kind, 1, *b"key").ok());
    let profile = Profile {
        auth,
        ..Profile::default()
    };
    let mut now = Instant::now();
    let mut session = Session::new(1, Hops::Single, profile, choice.into(), now);
    while let Some((&[length, pause], tail)) = rest.split_first_chunk::<2>() {
        let (packet, tail) = tail.split_at(usize::from(length).min(tail.len()));
        rest = tail;
        now += Duration::from_millis(u64::from(pause) * 8);
        if let Ok(received) = wire::decode(packet) {
            // A discarded packet is no finding.
            let _ = session.handle_packet(&received, now);
        }
        if session.poll_timeout().is_some_and(|(at, _)| at <= now) {
            session.handle_timeout(now);
        }
        let mut outputs = 0;
        while let Some(output) = session.poll_output() {
            outputs += 1;
            if let Output::Transmit(bytes) = output {
                let own = wire::decode(bytes.as_slice()).expect("own packets are well-formed");
                assert!(!(own.packet.poll && own.packet.last));
            }
        }
        assert!(outputs <= 6, "{outputs} outputs of one input");
    }
}
