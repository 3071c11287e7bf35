// SPDX-License-Identifier: Apache-2.0
//! Carries out what a reconciler asks for.

use std::time::Instant;

use crate::operations::Operations;
use crate::reconciler::{Output, Reconciler};

/// Carries out one output, if there is one, and feeds its outcome back. Returns whether there was
/// one: call again until `false`, taking other inputs in between as they come.
pub async fn step<O: Operations>(
    reconciler: &mut Reconciler<O>,
    operations: &mut O,
    now: impl Fn() -> Instant,
) -> bool {
    match reconciler.poll_output() {
        None => false,
        Some(Output::List) => {
            match operations.list().await {
                Ok(listing) => reconciler.handle_listing(listing),
                Err(error) => reconciler.handle_listing_failed(error.to_string(), now()),
            }
            true
        }
        Some(Output::Apply(batch)) => {
            let mut results = operations.apply(&batch).await.into_iter();
            for operation in &batch {
                let result = match results.next() {
                    Some(result) => result.map_err(|error| error.to_string()),
                    None => Err("the outcome was not reported".to_owned()),
                };
                reconciler.handle_result(operation.key(), result, now());
            }
            true
        }
    }
}
