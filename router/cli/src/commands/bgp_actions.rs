// SPDX-License-Identifier: Apache-2.0
//! `causeway bgp refresh|reset`: what changes something.

use std::io::{self, BufRead, IsTerminal, Write};

use router_api::Connection;
use router_api::v1alpha1::{PeerActionResponse, RefreshPeerRequest, ResetPeerRequest};
use serde_json::json;

use super::bgp_neighbor;
use crate::args::{RefreshArgs, ResetArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Page, View};

pub(crate) async fn refresh(connection: &Connection, args: &RefreshArgs) -> Result<View, Failure> {
    let peer = bgp_neighbor::find(connection, &args.peer).await?;
    let request = RefreshPeerRequest {
        instance: peer.instance,
        peer: peer.name,
    };
    let answer = connection.bgp().refresh_peer(request).await;
    let answer = answer.map_err(|s| Failure::from_status("cannot refresh the routes", &s))?;
    Ok(done(&answer.into_inner()))
}

pub(crate) async fn reset(connection: &Connection, args: &ResetArgs) -> Result<View, Failure> {
    let peer = bgp_neighbor::find(connection, &args.peer).await?;
    let name = format!("{}/{}", peer.instance, peer.name);
    if !args.yes {
        confirm(&format!(
            "End the session with {name} and withdraw its routes?"
        ))?;
    }
    let request = ResetPeerRequest {
        instance: peer.instance,
        peer: peer.name,
    };
    let answer = connection.bgp().reset_peer(request).await;
    let answer = answer.map_err(|s| Failure::from_status("cannot reset the session", &s))?;
    Ok(done(&answer.into_inner()))
}

/// Asks on the terminal. Without one nobody can answer, and the command is refused.
fn confirm(question: &str) -> Result<(), Failure> {
    let refused = |why: &str| {
        Failure::new("CW0003", Exit::Refused, "not confirmed")
            .why(why)
            .fix("give --yes")
    };
    if !io::stdin().is_terminal() {
        return Err(refused("standard input is no terminal to ask on"));
    }
    let _ = write!(io::stderr(), "{question} [y/N] ");
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    match read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes") {
        true => Ok(()),
        false => Err(refused("the answer was no")),
    }
}

fn done(answer: &PeerActionResponse) -> View {
    let mut page = Page::new("BGPAction", "done");
    page.set_json(json!({"done": answer.done}));
    for line in &answer.done {
        page.line(line.as_str());
    }
    page.into()
}
