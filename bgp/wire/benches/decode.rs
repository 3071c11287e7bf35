// SPDX-License-Identifier: Apache-2.0
//! Time per prefix and per message of reading and writing UPDATEs: full messages of /24 prefixes
//! (the bulk of a feed), messages with one prefix (churn), and attributes decoded afresh (a
//! set not seen before). Each line is the best of several runs, in nanoseconds.
//!
//! `cargo bench -p bgp-wire`; under `cargo test --benches` each measurement runs once.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bgp_wire::{
    AsPath, Community, FamilyContext, NlriEntry, Origin, PathAttributes, PathNextHop, PeerKind,
    SessionContext, Update, UpdateView, announce, frame,
};
use router_types::{Asn, Family, Ipv4Net};

const PREFIXES: u32 = 100_000;

fn main() {
    let context = SessionContext::plain(PeerKind::External, &[Family::IPV4_UNICAST]);
    let family = FamilyContext::plain(Family::IPV4_UNICAST);
    let hop = PathNextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
    let attributes = PathAttributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::from_sequence(
            [65001, 65002, 4_200_000_001].map(Asn),
        )),
        communities: [100, 200, 300].map(|n| Community::new(65001, n)).to_vec(),
        ..PathAttributes::default()
    };
    let mut encoded = Vec::new();
    attributes.encode(true, &mut encoded);
    let entries: Vec<NlriEntry> = (0..PREFIXES)
        .map(|n| Ipv4Addr::from_bits(0x0a00_0000 + (n << 8)))
        .map(|address| NlriEntry::new(Ipv4Net::new(address, 24).expect("24 is a length")))
        .collect();

    let mut packed = Vec::new();
    let pack = |out: &mut Vec<u8>| {
        out.clear();
        announce(
            out,
            &family,
            frame::MAX_LEN,
            &encoded,
            hop,
            entries.iter().copied(),
        )
    };
    let messages = pack(&mut packed).expect("the attributes are short");
    let mut singles = Vec::new();
    for entry in entries.iter().take(10_000) {
        announce(
            &mut singles,
            &family,
            frame::MAX_LEN,
            &encoded,
            hop,
            [*entry],
        )
        .expect("the attributes are short");
    }

    println!(
        "{PREFIXES} prefixes in {messages} messages, {} octets",
        packed.len()
    );
    report("encode, per prefix", PREFIXES, || {
        black_box(pack(black_box(&mut packed))).expect("the attributes are short");
    });
    report("decode, per prefix", PREFIXES, || {
        black_box(read(black_box(&packed), &context));
    });
    report("decode, per message of one prefix", 10_000, || {
        black_box(read(black_box(&singles), &context));
    });
    report("decode attributes, per set", 1, || {
        black_box(PathAttributes::decode(black_box(&encoded), &context));
    });
    let mut out = Vec::new();
    report("encode attributes, per set", 1, || {
        out.clear();
        black_box(&attributes).encode(true, black_box(&mut out));
    });
}

/// Reads messages as a speaker does that has seen their attributes before.
fn read(mut bytes: &[u8], context: &SessionContext) -> u64 {
    let mut canonical = Vec::new();
    let mut sum = 0;
    while let Ok(Some(frame)) = frame::next(bytes, frame::MAX_LEN) {
        let view = UpdateView::split(frame.body).expect("own message");
        canonical.clear();
        let update = Update::parse(&view, context, &mut canonical);
        for entry in update.announced {
            sum += u64::from(entry.prefix.prefix_len());
        }
        sum += canonical.len() as u64;
        bytes = &bytes[frame.len..];
    }
    sum
}

fn report(name: &str, units: u32, mut work: impl FnMut()) {
    let limit = if std::env::args().any(|a| a == "--bench") {
        Duration::from_millis(800)
    } else {
        Duration::ZERO
    };
    // Short work is repeated, so that the clock's own cost does not count.
    let repeat = (10_000 / units).max(1);
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    loop {
        let start = Instant::now();
        for _ in 0..repeat {
            work();
        }
        let elapsed = start.elapsed().as_nanos() as f64;
        best = best.min(elapsed / f64::from(repeat) / f64::from(units));
        if begin.elapsed() >= limit {
            break;
        }
    }
    println!("{best:>10.1} ns  {name}");
}
