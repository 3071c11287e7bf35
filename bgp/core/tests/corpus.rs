// SPDX-License-Identifier: Apache-2.0
//! Replays the fuzz corpora of sessions, policies and whole speakers, and random inputs beside them.

#[path = "../../../tests/fuzz/bodies/core.rs"]
mod core_session;
#[path = "../../../tests/fuzz/bodies/policy.rs"]
mod policy;
#[path = "../../../tests/fuzz/bodies/replay.rs"]
mod replay;
#[path = "../../../tests/fuzz/bodies/speaker.rs"]
mod speaker;

use std::fs;
use std::path::Path;

use proptest::prelude::*;

const MANIFEST: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_corpus_of_sessions_keeps_the_invariants() {
    replay::replay(
        MANIFEST,
        "core_session_any_events",
        |octet| vec![0, 1, 4, 0x7f, 0xff, octet ^ 1, octet.wrapping_add(2)],
        core_session::core_session_any_events,
    );
}

#[test]
fn the_corpus_of_policies_decides_as_it_reads() {
    replay::replay(
        MANIFEST,
        "policy_decides_as_it_reads",
        |octet| vec![0, b'\n', b'*', b'(', b'1', 0xff, octet ^ 1],
        policy::policy_decides_as_it_reads,
    );
}

#[test]
fn the_corpus_of_speakers_keeps_the_invariants() {
    replay::replay(
        MANIFEST,
        "speaker_any_messages",
        |octet| vec![0, 0xff, octet ^ 1, octet ^ 0x80],
        speaker::speaker_any_messages,
    );
}

/// A target whose corpus no test replays would rot.
#[test]
fn every_fuzz_target_has_a_corpus_that_a_test_replays() {
    let root = Path::new(MANIFEST).join("../..");
    let fuzz = root.join("tests/fuzz");
    let replays = ["bgp/wire", "bgp/core", "bgp/bfd"].map(|krate| {
        let path = root.join(krate).join("tests/corpus.rs");
        fs::read_to_string(&path).expect("each of them replays corpora")
    });
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("the targets' manifest");
    let mut targets = 0;
    for entry in fs::read_dir(fuzz.join("fuzz_targets")).expect("the targets") {
        let path = entry.expect("a readable folder").path();
        let target = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .expect("a name");
        let quoted = format!("\"{target}\"");
        assert!(manifest.contains(&quoted), "{target} is not in Cargo.toml");
        assert!(
            fuzz.join("corpus").join(target).is_dir(),
            "{target} has no corpus"
        );
        assert!(
            replays.iter().any(|test| test.contains(&quoted)),
            "no test replays the corpus of {target}"
        );
        targets += 1;
    }
    assert!(targets > 0, "there are no targets");
}

/// What happens to one of the three neighbours, as the body reads it.
fn happening() -> impl Strategy<Value = Vec<u8>> {
    let op = |kind: u8| (0u8..3).prop_map(move |who| kind * 3 + who);
    let with_len = |op: u8, bytes: Vec<u8>| {
        let mut all = vec![op, bytes.len() as u8];
        all.extend(bytes);
        all
    };
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    prop_oneof![
        3 => op(0).prop_map(|op| vec![op]),
        1 => op(1).prop_map(|op| vec![op]),
        1 => (op(2), bytes(60)).prop_map(move |(op, bytes)| with_len(op, bytes)),
        2 => (op(3), bytes(60)).prop_map(move |(op, bytes)| with_len(op, bytes)),
        6 => (op(4), bytes(5)).prop_map(move |(op, bytes)| with_len(op, bytes)),
        2 => (op(5), any::<u8>()).prop_map(|(op, prefix)| vec![op, prefix]),
        1 => (op(6), any::<u8>()).prop_map(|(op, seconds)| vec![op, seconds]),
        1 => op(7).prop_map(|op| vec![op]),
    ]
}

proptest! {
    #[test]
    fn any_messages_of_several_neighbours_keep_the_invariants(
        happenings in prop::collection::vec(happening(), 1..40),
    ) {
        let begins = [0, 1, 2].map(|who| vec![who]);
        let data: Vec<u8> = begins.into_iter().chain(happenings).flatten().collect();
        speaker::speaker_any_messages(&data);
    }
}
