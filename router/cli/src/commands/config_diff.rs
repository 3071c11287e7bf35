// SPDX-License-Identifier: Apache-2.0
//! `causeway config diff`.

use std::fs;
use std::path::{Path, PathBuf};

use router_api::Connection;
use router_api::v1alpha1::{
    DiffConfigRequest, DiffConfigResponse, ResourceFile, SessionDifference,
};
use serde_json::{Map, json};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Column, Item, Listing, Tone, View};
use crate::run::Outcome;

/// What the daemon reads of a directory.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Exit 1 when a session would end, or when a file has an error.
pub(crate) async fn fetch(connection: &Connection, paths: &[PathBuf]) -> Result<Outcome, Failure> {
    let request = match paths {
        [directory] if directory.is_dir() => DiffConfigRequest {
            files: directory_files(directory)?,
            replaces_all: true,
        },
        files => DiffConfigRequest {
            files: files
                .iter()
                .map(|path| file(path))
                .collect::<Result<_, _>>()?,
            replaces_all: false,
        },
    };
    let answer = connection.config().diff_config(request).await;
    let answer = answer.map_err(|s| Failure::from_status("cannot compare the resources", &s))?;
    let answer = answer.into_inner();
    let ends = answer.differences.iter().any(|found| found.ends_sessions);
    let exit = if ends || !answer.errors.is_empty() {
        Exit::Found
    } else {
        Exit::Ok
    };
    Ok((view(&answer), exit))
}

/// The differences, each with its effect.
pub fn view(answer: &DiffConfigResponse) -> View {
    let item = |found: &SessionDifference| {
        let tone = match (found.ends_sessions, found.effect.as_str()) {
            (true, _) => Tone::Bad,
            (false, "live" | "next-session") => Tone::Dim,
            (false, _) => Tone::Notice,
        };
        let peer = if found.peer.is_empty() {
            "(all)"
        } else {
            &found.peer
        };
        Item {
            name: format!("{}/{peer}", found.instance),
            json: json!({
                "instance": found.instance, "peer": found.peer, "what": found.what,
                "effect": found.effect, "endsSessions": found.ends_sessions,
            }),
            rows: vec![vec![
                found.instance.as_str().into(),
                peer.into(),
                found.what.as_str().into(),
                Cell::toned(tone, words(&found.effect)),
            ]],
        }
    };
    let errors = answer.errors.iter();
    Listing {
        kind: "ConfigDiff",
        fields: Map::from_iter([("errors".to_owned(), answer.errors.clone().into())]),
        columns: vec![
            Column::new("Instance"),
            Column::new("Peer"),
            Column::new("What differs"),
            Column::new("Effect").prose(),
        ],
        items: answer.differences.iter().map(item).collect(),
        empty: "no session would notice".to_owned(),
        notes: errors.map(|error| format!("not read: {error}")).collect(),
    }
    .into()
}

fn words(effect: &str) -> &str {
    match effect {
        "live" => "at once; the session goes on",
        "next-session" => "counts from the next session on; this one goes on",
        "route-refresh" => "routes are asked for again; the session goes on",
        "session-reset" => "the session is reset",
        "session-added" => "a new session",
        "session-removed" => "the session ends",
        other => other,
    }
}

fn directory_files(directory: &Path) -> Result<Vec<ResourceFile>, Failure> {
    let failed = |e: std::io::Error| Failure::file("cannot read the resources", directory, &e);
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let read = path
            .extension()
            .is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known));
        if read {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| file(path)).collect()
}

fn file(path: &Path) -> Result<ResourceFile, Failure> {
    let content =
        fs::read(path).map_err(|e| Failure::file("cannot read the resources", path, &e))?;
    let name = path.file_name().unwrap_or(path.as_os_str());
    Ok(ResourceFile {
        name: name.to_string_lossy().into_owned(),
        content,
    })
}
