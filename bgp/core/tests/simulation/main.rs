// SPDX-License-Identifier: Apache-2.0
//! Several whole speakers and scripted neighbours in virtual time, against a slow model.
//!
//! A speaker is what bgp-core has: a [`Peer`](bgp_core::peer::Peer) for each neighbour and a
//! [`Rib`](bgp_core::rib::Rib), with the order of bgp-io between them. Links cut octet streams
//! anywhere, are slow, stand still and break; nodes crash with and without a word and come back
//! with and without graceful restart, some late and some never expected; a new process takes the
//! sessions over; operators reset, shut down and change policies, limits, ADD-PATH and what of VPNs
//! is asked for; both ends dial, so that connections collide. Whenever everything has settled:
//!
//! - every session is up, and nobody still sends UPDATEs,
//! - every table (what each neighbour was told, what was refused, what is used, what the kernel
//!   would have) is the one the model computes from what is originated ([`model`]), while a node is
//!   away also from what it said before, as long as that is kept,
//! - packets arrive and do not go round,
//! - nothing is kept once sessions and originations are gone.
//!
//! That is looked at as soon as nothing is under way any more: timers that make good in the end what
//! should have been right before have no time to. Meanwhile: timers fire within the bounds of RFC
//! 4271, nobody sends on a connection that is closed, no session ends by an error message, since
//! nobody said anything that deserves one, and what must be so at once is looked at at once
//! (`world/watch.rs`).
//!
//! A case is a seed and a script. One that fails is made as short as it still fails, printed, and
//! written to `regressions/`, whose files [`what_once_failed_holds`] replays.
//! `CAUSEWAY_SIMULATION_CASES=10000` runs more of them, `CAUSEWAY_SIMULATION_FIRST=42` others.

mod acts;
mod case;
mod check;
mod compare;
mod filter;
mod model;
mod node;
mod random;
mod shrink;
mod told;
mod topology;
mod wire;
mod world;

use std::fs;
use std::path::{Path, PathBuf};

use crate::case::Case;

/// Cases in every run of the tests: some twenty seconds without optimisation.
const CASES: u64 = 200;

fn regressions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/simulation/regressions")
}

fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => otherwise,
    }
}

#[test]
fn speakers_agree_with_the_model_whatever_happens_between_them() {
    let first = number("CAUSEWAY_SIMULATION_FIRST", 0);
    let cases = number("CAUSEWAY_SIMULATION_CASES", CASES);
    for seed in first..first + cases {
        let case = Case::random(seed);
        let Err(failure) = shrink::outcome(&case) else {
            continue;
        };
        let (case, why) = shrink::shorten(case, failure);
        let text = serde_json::to_string_pretty(&case).expect("a case is plain data");
        let path = regressions().join(format!("seed-{seed}.json"));
        fs::write(&path, format!("{text}\n")).expect("the folder of regressions is there");
        panic!("{why}\n{text}\nkept as {}", path.display());
    }
}

#[test]
fn what_once_failed_holds() {
    let mut replayed = 0;
    for entry in fs::read_dir(regressions()).expect("the folder is committed") {
        let path = entry.expect("a readable folder").path();
        let text = fs::read_to_string(&path).expect("a readable file");
        let case: Case = serde_json::from_str(&text).expect("a case");
        if let Err(why) = check::run(&case) {
            panic!("{}: {why}", path.display());
        }
        replayed += 1;
    }
    assert!(replayed > 0, "there is nothing to replay");
}
