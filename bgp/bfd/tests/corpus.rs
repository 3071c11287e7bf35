// SPDX-License-Identifier: Apache-2.0
//! Replays the fuzz corpus, and each file with each of its octets changed.

#[path = "../../../tests/fuzz/bodies/bfd.rs"]
mod bfd;

use std::fs;
use std::path::Path;

#[test]
fn the_corpus_of_any_packets_holds_and_so_does_it_corrupted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus");
    let mut replayed = 0;
    for entry in fs::read_dir(folder.join("bfd_any_packets")).expect("the corpus is committed") {
        let mut data = fs::read(entry.expect("readable folder").path()).expect("readable file");
        bfd::any_packets(&data);
        for at in 0..data.len() {
            let original = data[at];
            for value in [0, 1, original ^ 0x20, original ^ 0x80, 0xff] {
                data[at] = value;
                bfd::any_packets(&data);
            }
            data[at] = original;
        }
        replayed += 1;
    }
    assert!(replayed > 0, "the corpus is empty");
}
