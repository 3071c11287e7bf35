// SPDX-License-Identifier: Apache-2.0
//! Replays the fuzz corpus, and each file with each of its octets changed.

#[path = "../../../tests/fuzz/bodies/bfd.rs"]
mod bfd;
#[path = "../../../tests/fuzz/bodies/replay.rs"]
mod replay;

#[test]
fn the_corpus_of_any_packets_holds_and_so_does_it_corrupted() {
    replay::replay(
        env!("CARGO_MANIFEST_DIR"),
        "bfd_any_packets",
        |octet| vec![0, 1, octet ^ 0x20, octet ^ 0x80, 0xff],
        bfd::any_packets,
    );
}
