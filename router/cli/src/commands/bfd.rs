// SPDX-License-Identifier: Apache-2.0
//! `causeway bfd`.

use router_api::Connection;
use router_api::v1alpha1::{BfdDrop, BfdSession, ListBfdSessionsRequest, ListBfdSessionsResponse};
use serde_json::{Map, Value, json};

use crate::args::BfdCommand;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Column, Item, Listing, Tone, View};

pub(crate) async fn fetch(connection: &Connection, verb: &BfdCommand) -> Result<View, Failure> {
    let peer = match verb {
        BfdCommand::Sessions => String::new(),
        BfdCommand::Session { peer } => peer.clone(),
    };
    let request = ListBfdSessionsRequest { peer: peer.clone() };
    let answer = connection.bfd().list_bfd_sessions(request).await;
    let answer = answer
        .map_err(|s| Failure::from_status("cannot list the BFD sessions", &s))?
        .into_inner();
    if !peer.is_empty() && answer.sessions.is_empty() {
        let what = format!("there is no BFD session with {peer}");
        return Err(Failure::new("CW0002", Exit::NotFound, what)
            .fix("`causeway bfd sessions` lists all peers"));
    }
    Ok(match verb {
        BfdCommand::Sessions => list(&answer),
        BfdCommand::Session { .. } => details(&answer),
    })
}

/// The listing of the sessions.
pub fn list(answer: &ListBfdSessionsResponse) -> View {
    Listing {
        kind: "BfdSessionList",
        fields: fields(answer),
        columns: vec![
            Column::new("Peer"),
            Column::new("Interface"),
            Column::new("State"),
            Column::new("For"),
            Column::new("Transmit").right(),
            Column::new("Detection").right(),
            Column::new("Flaps").right(),
            Column::new("Diagnostic").prose(),
            Column::new("Hops").wide(),
            Column::new("Echo").wide(),
            Column::new("Local").wide(),
            Column::new("Remote State").wide(),
            Column::new("In").wide().right(),
            Column::new("Out").wide().right(),
        ],
        items: answer.sessions.iter().map(item).collect(),
        empty: "no BFD sessions on this node".to_owned(),
        notes: answer.warnings.clone(),
    }
    .into()
}

/// Everything about some sessions, a line for each fact.
pub fn details(answer: &ListBfdSessionsResponse) -> View {
    let rows = |session: &BfdSession| -> Vec<Vec<Cell>> {
        let fact = |name: &str, value: String| -> Vec<Cell> { vec![name.into(), value.into()] };
        let or_dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
        let mut rows = vec![
            fact("Peer", session.peer.clone()),
            fact("Local address", or_dash(&session.local_address)),
            fact("Interface", or_dash(&session.interface)),
            fact("Hops", session.hops.clone()),
            vec!["State".into(), state(session)],
            fact("Since", ms_text(session.in_state_ms)),
            fact("Diagnostic", session.diagnostic.clone()),
            fact("Remote state", session.remote_state.clone()),
            fact("Remote diagnostic", session.remote_diagnostic.clone()),
            fact(
                "Discriminators",
                format!(
                    "local {}, remote {}",
                    session.local_discriminator, session.remote_discriminator
                ),
            ),
            fact(
                "In force",
                format!(
                    "transmit {}, detection {}{}{}",
                    us_text(session.transmit_interval_us),
                    us_text(detection_us(session)),
                    if is_guarded_by_echo(session) {
                        " by echo packets"
                    } else {
                        ""
                    },
                    if session.polling { ", polling" } else { "" }
                ),
            ),
            fact(
                "Ours",
                says(
                    session.desired_min_tx_us,
                    session.required_min_rx_us,
                    session.required_min_echo_rx_us,
                    session.multiplier,
                ),
            ),
            fact(
                "Theirs",
                says(
                    session.remote_min_tx_us,
                    session.remote_min_rx_us,
                    session.remote_min_echo_rx_us,
                    session.remote_multiplier,
                ),
            ),
            fact(
                "Their control plane",
                match session.remote_control_plane_independent {
                    true => "independent of their BFD (C bit)",
                    false => "shares the fate of their BFD",
                }
                .to_owned(),
            ),
            fact(
                "Packets",
                format!("{} in, {} out", session.packets_in, session.packets_out),
            ),
            fact("Echo packets", echo_text(session)),
            fact(
                "Transitions",
                format!(
                    "{} to up, {} from up; last down: {}",
                    session.up_count,
                    session.down_count,
                    or_dash(&session.last_down)
                ),
            ),
        ];
        for drop in &session.drops {
            let text = format!("{} ({})", drop.packets, drop.reason);
            rows.push(fact("Dropped", text));
        }
        if !session.failure.is_empty() {
            rows.push(fact("Failure", session.failure.clone()));
        }
        if !session.echo_failure.is_empty() {
            rows.push(fact("Echo failure", session.echo_failure.clone()));
        }
        rows
    };
    Listing {
        kind: "BfdSessionList",
        fields: fields(answer),
        columns: vec![Column::new("Fact"), Column::new("Value").prose()],
        items: answer
            .sessions
            .iter()
            .map(|session| Item {
                rows: rows(session),
                ..item(session)
            })
            .collect(),
        empty: "no BFD sessions on this node".to_owned(),
        notes: answer.warnings.clone(),
    }
    .into()
}

fn fields(answer: &ListBfdSessionsResponse) -> Map<String, Value> {
    Map::from_iter([
        ("node".to_owned(), answer.node.as_str().into()),
        ("pid".to_owned(), answer.pid.into()),
        ("warnings".to_owned(), answer.warnings.clone().into()),
        ("drops".to_owned(), drops_json(&answer.drops)),
        ("latenessMaxUs".to_owned(), answer.lateness_max_us.into()),
    ])
}

fn drops_json(drops: &[BfdDrop]) -> Value {
    drops
        .iter()
        .map(|drop| (drop.reason.clone(), Value::from(drop.packets)))
        .collect::<Map<String, Value>>()
        .into()
}

fn state(session: &BfdSession) -> Cell {
    let tone = match session.state.as_str() {
        "up" => Tone::Good,
        "admin_down" => Tone::Notice,
        _ => Tone::Bad,
    };
    Cell::toned(tone, session.state.as_str())
}

fn item(session: &BfdSession) -> Item {
    let or_dash = |text: &str| Cell::plain(if text.is_empty() { "-" } else { text });
    Item {
        name: session.peer.clone(),
        json: json!({
            "peer": session.peer,
            "localAddress": session.local_address,
            "interface": session.interface,
            "hops": session.hops,
            "state": session.state,
            "diagnostic": session.diagnostic,
            "remoteState": session.remote_state,
            "remoteDiagnostic": session.remote_diagnostic,
            "inStateMs": session.in_state_ms,
            "localDiscriminator": session.local_discriminator,
            "remoteDiscriminator": session.remote_discriminator,
            "transmitIntervalUs": session.transmit_interval_us,
            "detectionTimeUs": session.detection_time_us,
            "multiplier": session.multiplier,
            "desiredMinTxUs": session.desired_min_tx_us,
            "requiredMinRxUs": session.required_min_rx_us,
            "requiredMinEchoRxUs": session.required_min_echo_rx_us,
            "remoteMultiplier": session.remote_multiplier,
            "remoteMinTxUs": session.remote_min_tx_us,
            "remoteMinRxUs": session.remote_min_rx_us,
            "remoteMinEchoRxUs": session.remote_min_echo_rx_us,
            "remoteControlPlaneIndependent": session.remote_control_plane_independent,
            "polling": session.polling,
            "packetsIn": session.packets_in,
            "packetsOut": session.packets_out,
            "upCount": session.up_count,
            "downCount": session.down_count,
            "lastDown": session.last_down,
            "failure": session.failure,
            "sendFailures": session.send_failures,
            "drops": drops_json(&session.drops),
            "echoState": session.echo_state,
            "echoIntervalUs": session.echo_interval_us,
            "echoDetectionTimeUs": session.echo_detection_time_us,
            "echoRoundTripUs": session.echo_round_trip_us,
            "echoesIn": session.echoes_in,
            "echoesOut": session.echoes_out,
            "echoesLost": session.echoes_lost,
            "echoesReflected": session.echoes_reflected,
            "echoSource": session.echo_source,
            "echoFailure": session.echo_failure,
        }),
        rows: vec![vec![
            session.peer.as_str().into(),
            or_dash(&session.interface),
            state(session),
            ms_text(session.in_state_ms).into(),
            us_text(session.transmit_interval_us).into(),
            us_text(detection_us(session)).into(),
            session.down_count.into(),
            if session.failure.is_empty() {
                session.diagnostic.as_str().into()
            } else {
                session.failure.as_str().into()
            },
            session.hops.as_str().into(),
            session.echo_state.as_str().into(),
            or_dash(&session.local_address),
            session.remote_state.as_str().into(),
            session.packets_in.into(),
            session.packets_out.into(),
        ]],
    }
}

fn is_guarded_by_echo(session: &BfdSession) -> bool {
    session.echo_state == "returning"
}

/// How soon a failure is found, by whatever finds it sooner.
fn detection_us(session: &BfdSession) -> u64 {
    match is_guarded_by_echo(session) {
        true => session
            .echo_detection_time_us
            .min(session.detection_time_us),
        false => session.detection_time_us,
    }
}

/// What becomes of echo packets, ours and theirs.
fn echo_text(session: &BfdSession) -> String {
    let ours = match session.echo_state.as_str() {
        "waiting" => "not sent: the session is not up".to_owned(),
        "refused" => "not sent: the peer takes none".to_owned(),
        "unreturned" => format!(
            "{} sent every {}, none comes back: does the peer forward, and has it a route to {}?",
            session.echoes_out,
            us_text(session.echo_interval_us),
            or_unknown(&session.echo_source)
        ),
        "returning" => format!(
            "every {} from {}, round trip {}; {} sent, {} returned, {} lost",
            us_text(session.echo_interval_us),
            or_unknown(&session.echo_source),
            us_text(session.echo_round_trip_us),
            session.echoes_out,
            session.echoes_in,
            session.echoes_lost
        ),
        _ => "none of ours".to_owned(),
    };
    match session.echoes_reflected {
        0 => ours,
        count => format!("{ours}; {count} of the peer's returned by causeway-bfdd"),
    }
}

fn or_unknown(address: &str) -> &str {
    if address.is_empty() { "?" } else { address }
}

/// What one end says in its packets.
fn says(tx_us: u32, rx_us: u32, echo_us: u32, multiplier: u32) -> String {
    format!(
        "transmit {}, receive {}, echo {}, multiplier {multiplier}",
        us_text(tx_us.into()),
        us_text(rx_us.into()),
        us_text(echo_us.into())
    )
}

/// Intervals as people write them; `-` for none.
fn us_text(us: u64) -> String {
    match us {
        0 => "-".to_owned(),
        us if us.is_multiple_of(1000) => format!("{} ms", us / 1000),
        us => format!("{}.{:03} ms", us / 1000, us % 1000),
    }
}

fn ms_text(ms: u64) -> String {
    match ms / 1000 {
        0 => format!("{ms}ms"),
        s @ 1..=59 => format!("{s}s"),
        s @ 60..=3599 => format!("{}m{}s", s / 60, s % 60),
        s => format!("{}h{}m", s / 3600, s % 3600 / 60),
    }
}
