// SPDX-License-Identifier: Apache-2.0
//! Replays the corpus of a fuzz target through its property, on any toolchain. Shared by the tests
//! of the crates concerned.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Runs a property over every file of a target's corpus: whole, cut short at each octet, and with
/// each octet set to each of the values that are telling for the format. Files the fuzzer named, by
/// their hash, are corrupted enough and run whole only.
///
/// `manifest` is the folder of the crate whose test this is.
pub(crate) fn replay(
    manifest: &str,
    target: &str,
    telling: impl Fn(u8) -> Vec<u8>,
    property: impl Fn(&[u8]),
) {
    let corpus = Path::new(manifest).join("../../tests/fuzz/corpus");
    let folder = corpus.join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is committed") {
        let path = entry.expect("readable folder").path();
        let mut data = fs::read(&path).expect("readable file");
        let holds = |data: &[u8]| {
            if catch_unwind(AssertUnwindSafe(|| property(data))).is_err() {
                let text = String::from_utf8_lossy(data);
                panic!(
                    "{target} fails on {} as {data:02x?} {text:?}",
                    path.display()
                );
            }
        };
        holds(&data);
        replayed += 1;
        if path.file_name().is_some_and(|name| name.len() == 40) {
            continue;
        }
        for at in 0..data.len() {
            holds(&data[..at]);
            let original = data[at];
            for value in telling(original) {
                data[at] = value;
                holds(&data);
            }
            data[at] = original;
        }
    }
    assert!(replayed > 0, "{} is empty", folder.display());
}
