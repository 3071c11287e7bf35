// SPDX-License-Identifier: Apache-2.0
//! A speaker's inputs, recorded from life and replayed.

use bgp_core::peer::StopReason;
use bgp_core::record::replay;
use bgp_io::{Options, Recorder};

use crate::node::{Node, address};

#[tokio::test]
async fn a_recorded_session_replays_to_its_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording.jsonl");
    let options = Options {
        recorder: Recorder::to_file(&file).unwrap(),
        ..Options::default()
    };
    let mut left = Node::start_with(address(), 65001, options).await;
    let mut right = Node::start(65002).await;
    left.set("peer", left.towards(&right)).await;
    right.set("peer", right.towards(&left)).await;
    left.announce("peer", &["10.1.0.0/24"]).await;
    right.announce("peer", &["10.2.0.0/24", "0.0.0.0/0"]).await;
    left.until_accepted("peer", 2).await;
    right.until_accepted("peer", 1).await;
    right.announce("peer", &["0.0.0.0/0"]).await;
    left.until_accepted("peer", 1).await;
    let message = "the recording ends".to_owned();
    left.stop(StopReason::Shutdown { message }).await;

    let recording = std::fs::read_to_string(&file).unwrap();
    let outputs = replay(&recording).expect("a complete recording");
    assert_eq!(outputs, replay(&recording).unwrap());
    // What was seen from outside is in it: the session, the routes both ways, the goodbye.
    for what in [
        "peer: Up",
        "BestChange { prefix: 10.2.0.0/24, best: Some",
        "BestChange { prefix: 10.2.0.0/24, best: None",
        "rib: sends peer",
        "peer: Down",
    ] {
        assert!(outputs.contains(what), "{what} is not in\n{outputs}");
    }
    let goodbye: String = "the recording ends"
        .bytes()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert!(outputs.contains(&goodbye), "{outputs}");
}
