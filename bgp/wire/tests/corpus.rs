// SPDX-License-Identifier: Apache-2.0
//! Replays the fuzz corpora through the properties they were found for, on any toolchain.

#[path = "../../../tests/fuzz/bodies/replay.rs"]
mod replay;
#[path = "../../../tests/fuzz/bodies/wire.rs"]
mod wire;

const MANIFEST: &str = env!("CARGO_MANIFEST_DIR");

/// Values that are telling for lengths, counts, flags and types.
fn telling(octet: u8) -> Vec<u8> {
    vec![
        0,
        1,
        octet ^ 0x10,
        octet ^ 0x80,
        octet.wrapping_add(1),
        0xff,
    ]
}

fn both(data: &[u8]) {
    wire::wire_decode_never_panics(data);
    wire::wire_reencode_is_stable(data);
}

#[test]
fn the_corpus_of_decoding_holds_both_properties() {
    replay::replay(MANIFEST, "wire_decode_never_panics", telling, both);
}

#[test]
fn the_corpus_of_reencoding_holds_both_properties() {
    replay::replay(MANIFEST, "wire_reencode_is_stable", telling, both);
}

proptest::proptest! {
    #[test]
    fn random_bytes_hold_both_properties(data in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        both(&data);
    }
}
