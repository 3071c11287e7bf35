// SPDX-License-Identifier: Apache-2.0
//! Makes a failing case as short as it still fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::case::Case;
use crate::check;

/// What became of a case; a panic is a failure like others.
pub(crate) fn outcome(case: &Case) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(|| check::run(case))) {
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("panic: {}", text.unwrap_or_default()))
        }
    }
}

/// Leaves out steps, runs of them first, as long as the case fails; then pauses. The failure may be
/// another one in the end, which is as good.
pub(crate) fn shorten(mut case: Case, mut why: String) -> (Case, String) {
    let mut attempt = |shorter: Case, case: &mut Case| match outcome(&shorter) {
        Ok(()) => false,
        Err(failure) => {
            *case = shorter;
            why = failure;
            true
        }
    };
    let mut run = case.steps.len() / 2;
    while run > 0 {
        let mut at = 0;
        while at < case.steps.len() {
            let mut shorter = case.clone();
            let end = (at + run).min(shorter.steps.len());
            shorter.steps.drain(at..end);
            if !attempt(shorter, &mut case) {
                at += run;
            }
        }
        run /= 2;
    }
    for at in 0..case.steps.len() {
        let mut shorter = case.clone();
        shorter.steps[at].after_ms = 0;
        attempt(shorter, &mut case);
    }
    (case, why)
}
