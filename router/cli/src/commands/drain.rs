// SPDX-License-Identifier: Apache-2.0
//! `causeway drain` and `causeway undrain`: the node out of service, and back.

use std::time::Duration;

use router_api::Connection;
use router_api::v1alpha1::{BeginDrainRequest, DrainState, EndDrainRequest, GetDrainRequest};
use serde_json::json;

use crate::args::DrainArgs;
use crate::failure::Failure;
use crate::output::{Cell, Page, Tone, View, age, rfc3339};

/// Begins a drain.
pub(crate) async fn begin(
    connection: &Connection,
    args: &DrainArgs,
) -> Result<DrainState, Failure> {
    let request = BeginDrainRequest {
        wait_s: seconds(args.wait),
        reason: args.reason.clone().unwrap_or_default(),
    };
    let answer = connection.bgp().begin_drain(request).await;
    let answer = answer.map_err(|s| Failure::from_status("cannot drain the node", &s))?;
    Ok(answer.into_inner())
}

/// How far a drain is.
pub(crate) async fn look(connection: &Connection) -> Result<DrainState, Failure> {
    let answer = connection.bgp().get_drain(GetDrainRequest {}).await;
    let answer = answer.map_err(|s| Failure::from_status("cannot see how far the drain is", &s))?;
    Ok(answer.into_inner())
}

pub(crate) async fn end(connection: &Connection, now_unix_ns: i64) -> Result<View, Failure> {
    let answer = connection.bgp().end_drain(EndDrainRequest {}).await;
    let answer = answer.map_err(|s| Failure::from_status("cannot end the drain", &s))?;
    Ok(view(&answer.into_inner(), now_unix_ns))
}

/// Whether there is nothing left to wait for.
pub(crate) fn is_done(state: &DrainState) -> bool {
    state.phase != "announcing"
}

/// The page of a node's drain.
pub fn view(state: &DrainState, now_unix_ns: i64) -> View {
    let mut page = Page::new("Drain", state.node.as_str());
    page.set_json(json!({
        "node": state.node,
        "phase": state.phase,
        "since": rfc3339(state.since_unix_ns),
        "wait-seconds": state.wait_s,
        "reason": state.reason,
    }));
    let (tone, word, what) = match state.phase.as_str() {
        "in-service" => (Tone::Good, "in service", String::new()),
        "announcing" => (
            Tone::Notice,
            "draining",
            format!(
                ": everything is announced with GRACEFUL_SHUTDOWN for {} s, then withdrawn",
                state.wait_s
            ),
        ),
        _ => (
            Tone::Notice,
            "drained",
            ": nothing is announced; sessions stay".to_owned(),
        ),
    };
    page.lines.push(vec![
        Cell::plain("Node "),
        Cell::strong(format!("{}: ", state.node)),
        Cell::toned(tone, word),
        Cell::plain(what),
    ]);
    if state.since_unix_ns != 0 {
        let since = age(state.since_unix_ns, now_unix_ns);
        page.field("asked for", format!("{since} ago"));
        page.field("reason", state.reason.as_str());
        page.field("back into service", "causeway undrain");
    }
    page.into()
}

/// Whole seconds, rounded up.
fn seconds(wait: Duration) -> u32 {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX)
}
