// SPDX-License-Identifier: Apache-2.0
//! Replays the fuzz corpus of policies, whole, cut short and corrupted.

#[path = "../../../tests/fuzz/bodies/policy.rs"]
mod policy;

use std::fs;
use std::path::Path;

#[test]
fn the_corpus_of_policies_decides_as_it_reads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fuzz/corpus/policy_decides_as_it_reads");
    let mut replayed = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is committed") {
        let path = entry.expect("readable folder").path();
        let data = fs::read(&path).expect("readable file");
        let mut inputs = vec![data.clone()];
        inputs.extend((0..data.len()).map(|end| data[..end].to_vec()));
        for at in 0..data.len() {
            for value in [0, b'\n', b'*', b'(', b'1', 0xff, data[at] ^ 1] {
                let mut corrupted = data.clone();
                corrupted[at] = value;
                inputs.push(corrupted);
            }
        }
        for input in inputs {
            let run = || policy::policy_decides_as_it_reads(&input);
            if std::panic::catch_unwind(run).is_err() {
                panic!(
                    "{} fails as {:?}",
                    path.display(),
                    String::from_utf8_lossy(&input)
                );
            }
        }
        replayed += 1;
    }
    assert!(replayed > 0, "{} is empty", folder.display());
}
