// SPDX-License-Identifier: Apache-2.0
//! Replays the fuzz corpus of the session's machine, whole, cut short and corrupted.

#[path = "../../../tests/fuzz/bodies/core.rs"]
mod core_session;

use std::fs;
use std::path::Path;

#[test]
fn the_corpus_of_sessions_keeps_the_invariants() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fuzz/corpus/core_session_any_events");
    let mut replayed = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is committed") {
        let path = entry.expect("readable folder").path();
        let data = fs::read(&path).expect("readable file");
        let mut inputs = vec![data.clone()];
        inputs.extend((0..data.len()).map(|end| data[..end].to_vec()));
        for at in 0..data.len() {
            for value in [0, 1, 4, 0x7f, 0xff, data[at] ^ 1, data[at].wrapping_add(2)] {
                let mut corrupted = data.clone();
                corrupted[at] = value;
                inputs.push(corrupted);
            }
        }
        for input in inputs {
            let run = || core_session::core_session_any_events(&input);
            if std::panic::catch_unwind(run).is_err() {
                panic!("{} fails as {input:02x?}", path.display());
            }
        }
        replayed += 1;
    }
    assert!(replayed > 0, "{} is empty", folder.display());
}
