// SPDX-License-Identifier: Apache-2.0
//! `causeway version`.

use router_api::Connection;
use router_api::v1alpha1::GetStatusRequest;
use serde_json::json;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Page;
use crate::run::Outcome;

/// The version of this command, and the daemon's when there is one to ask.
pub(crate) async fn fetch(connection: Option<Connection>) -> Result<Outcome, Failure> {
    let daemon = match connection {
        Some(connection) => connection
            .status()
            .get_status(GetStatusRequest {})
            .await
            .ok(),
        None => None,
    };
    let daemon = daemon.map(|answer| answer.into_inner().version);
    let own = env!("CARGO_PKG_VERSION");
    let mut page = Page::new("Version", own);
    page.set_json(json!({"causeway": own, "causewayd": daemon}));
    page.line(format!("causeway   {own}"));
    match &daemon {
        Some(version) => page.line(format!("causewayd  {version}")),
        None => page.notes.push("causewayd does not answer".to_owned()),
    }
    Ok((page.into(), Exit::Ok))
}
