// SPDX-License-Identifier: Apache-2.0
//! Recordings replay to the outputs they had. Each `recordings/<name>.jsonl` is a recording, and
//! `<name>.out` what its replay puts out. `UPDATE_GOLDEN=1` rewrites the latter; the difference is
//! for review.

use std::fs;
use std::path::Path;

#[test]
fn recordings_replay_to_the_same_outputs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut replayed = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_none_or(|extension| extension != "jsonl")
        {
            continue;
        }
        let recording = fs::read_to_string(&path).unwrap();
        let outputs = bgp_core::record::replay(&recording)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let golden = path.with_extension("out");
        if update {
            fs::write(&golden, &outputs).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap();
        assert!(
            expected == outputs,
            "{} replays differently; UPDATE_GOLDEN=1 rewrites {}:\n{outputs}",
            path.display(),
            golden.display()
        );
        replayed += 1;
    }
    assert!(replayed > 0, "no recordings in {}", folder.display());
}

#[test]
fn a_recording_without_its_beginning_is_refused_with_a_reason() {
    let line = r#"{"at_us":0,"instance":"i","event":{"Peer":{"peer":"p","input":"Start"}}}"#;
    let error = bgp_core::record::replay(line).unwrap_err().to_string();
    assert_eq!(
        error,
        "line 1: peer p has no beginning: record from the start of the speaker"
    );
    let error = bgp_core::record::replay("{}").unwrap_err().to_string();
    assert!(error.starts_with("line 1: "), "{error}");
}
