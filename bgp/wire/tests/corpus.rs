// SPDX-License-Identifier: Apache-2.0
//! Replays the fuzz corpora through the properties they were found for, on any toolchain.

#[path = "../../../tests/fuzz/bodies/wire.rs"]
mod wire;

use std::fs;
use std::path::Path;

fn replay(target: &str, property: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fuzz/corpus")
        .join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is committed") {
        let path = entry.expect("readable folder").path();
        let data = fs::read(&path).expect("readable file");
        if std::panic::catch_unwind(|| property(&data)).is_err() {
            panic!("{target} fails on {}", path.display());
        }
        replayed += 1;
    }
    assert!(replayed > 0, "{} is empty", folder.display());
}

#[test]
fn the_corpus_of_decoding_never_panics() {
    replay("wire_decode_never_panics", wire::wire_decode_never_panics);
}

#[test]
fn the_corpus_of_reencoding_is_stable() {
    replay("wire_reencode_is_stable", wire::wire_reencode_is_stable);
}

/// Each octet of each file set to values that are telling for lengths, counts, flags and types.
#[test]
fn the_corpus_corrupted_octet_by_octet_holds_both_properties() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus");
    for target in ["wire_decode_never_panics", "wire_reencode_is_stable"] {
        for entry in fs::read_dir(folder.join(target)).expect("the corpus is committed") {
            let entry = entry.expect("readable folder");
            // Files the fuzzer named, by their hash, are corrupted enough.
            if entry.file_name().len() == 40 {
                continue;
            }
            let mut data = fs::read(entry.path()).expect("readable file");
            for at in 0..data.len() {
                let original = data[at];
                for value in [
                    0,
                    1,
                    original ^ 0x10,
                    original ^ 0x80,
                    original.wrapping_add(1),
                    0xff,
                ] {
                    data[at] = value;
                    wire::wire_decode_never_panics(&data);
                    wire::wire_reencode_is_stable(&data);
                }
                data[at] = original;
                wire::wire_decode_never_panics(&data[..at]);
                wire::wire_reencode_is_stable(&data[..at]);
            }
        }
    }
}

proptest::proptest! {
    #[test]
    fn random_bytes_hold_both_properties(data in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        wire::wire_decode_never_panics(&data);
        wire::wire_reencode_is_stable(&data);
    }
}
