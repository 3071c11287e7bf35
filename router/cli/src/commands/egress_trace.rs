// SPDX-License-Identifier: Apache-2.0
//! `causeway egress trace`.

use router_api::Connection;
use router_api::v1alpha1::{
    EgressMapping, EgressNote, EgressTraceRule, TraceEgressRequest, TraceEgressResponse,
};
use serde_json::{Value, json};

use super::egress::{Part, explain_json, idle_text, mapping, rule, verdict};
use crate::args::{FlowProtocol, TraceArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Page, Tone, View};
use crate::run::Outcome;

pub(super) async fn fetch(connection: &Connection, args: &TraceArgs) -> Result<Outcome, Failure> {
    let protocol = args.protocol.map(FlowProtocol::name).unwrap_or_default();
    let request = TraceEgressRequest {
        pod: args.pod.clone(),
        destination: args.destination.to_string(),
        protocol: protocol.to_owned(),
        port: args.port.unwrap_or(0).into(),
        source_port: args.source_port.unwrap_or(0).into(),
    };
    let answer = connection.egress().trace_egress(request).await;
    let answer = answer
        .map_err(|s| Failure::from_status("cannot follow the flow", &s))?
        .into_inner();
    let is_dropped = answer.decision.as_ref().is_some_and(|one| one.dropped);
    let exit = if is_dropped { Exit::Found } else { Exit::Ok };
    Ok((view(&answer), exit))
}

/// A flow, in the order its packets take.
pub fn view(answer: &TraceEgressResponse) -> View {
    let name = format!("{}/{}", answer.pod, answer.destination);
    let mut page = Page::new("EgressTrace", name);
    page.set_json(json!({
        "node": answer.node,
        "pod": answer.pod,
        "destination": answer.destination,
        "decision": answer.decision.as_ref().map(explain_json),
        "notes": answer.notes.iter().map(note_json).collect::<Vec<_>>(),
        "matchingNotes": answer.matching_notes,
        "rules": answer.rules.iter().map(rule_json).collect::<Vec<_>>(),
    }));
    page.lines.push(vec![
        Cell::strong(format!("{} to {}: ", answer.pod, answer.destination)),
        match &answer.decision {
            Some(decision) => verdict(decision),
            None => Cell::plain(format!("as its gateway {} has it", answer.node)),
        },
    ]);
    if let Some(decision) = &answer.decision {
        page.heading("What begins now");
        for sentence in &decision.sentences {
            page.line(format!("  {sentence}"));
        }
        page.heading("Noted of connections");
        if answer.notes.is_empty() {
            page.line("  Nothing: none is there. Echoes are not noted.");
        }
        for note in &answer.notes {
            page.line(format!("  {}", note_text(note)));
        }
        more(&mut page, answer.notes.len(), answer.matching_notes);
    }
    for rule in &answer.rules {
        lines_of_rule(&mut page, rule);
    }
    page.into()
}

fn note_text(note: &EgressNote) -> String {
    let way = match note.rule {
        0 => "begun from outside, answered as if there were no policy".to_owned(),
        rule => format!("rule {rule}"),
    };
    format!(
        "{} {} to {}: {way}, idle {}",
        note.protocol,
        note.pod,
        note.remote,
        idle_text(note.idle_ms)
    )
}

/// Says how many are not shown.
fn more(page: &mut Page, shown: usize, matching: u64) {
    let more = matching.saturating_sub(shown as u64);
    if more > 0 {
        page.line(format!("  and {more} more"));
    }
}

fn lines_of_rule(page: &mut Page, rule: &EgressTraceRule) {
    let of_policy = match rule.policy.as_str() {
        "" => String::new(),
        policy => format!(" of {policy}"),
    };
    page.heading(&format!("Rule {}{of_policy}", rule.rule));
    if !rule.decided && !rule.policy.is_empty() && rule.at_gateway.is_none() {
        page.line("  For connections that began with it; new ones go another way.");
    }
    let Some(held) = &rule.at_gateway else {
        let gateway = match (rule.gateway.as_str(), rule.gateway_ip.as_str()) {
            ("", _) => "  This node has it no more: its connections end.".to_owned(),
            (node, "") => format!("  Gateway {node} cannot be reached: dropped."),
            (node, address) => {
                let how = match rule.transport.as_str() {
                    "native" => ", without a tunnel",
                    "tunnel" => ", by the tunnel",
                    _ => "",
                };
                format!("  To gateway {node} at {address}{how}. On {node}:")
            }
        };
        page.line(gateway);
        if !rule.next_command.is_empty() {
            page.lines.push(vec![Cell::toned(
                Tone::Dim,
                format!("    {}", rule.next_command),
            )]);
        }
        return;
    };
    let draining = match held.draining {
        true => "; new connections are refused",
        false => "",
    };
    page.line(match held.egress_ips.as_slice() {
        [] => "  This node is its gateway and has no address to give: dropped.".to_owned(),
        addresses => format!(
            "  This node is its gateway: as {}, ports {} to {}{draining}.",
            addresses.join(", "),
            held.first_port,
            held.last_port
        ),
    });
    if rule.mappings.is_empty() {
        page.line("  No mapping: no packet of the flow came, it was refused, or it is forgotten.");
    }
    for mapping in &rule.mappings {
        page.line(format!("  {}", mapping_text(mapping)));
    }
    more(page, rule.mappings.len(), rule.matching);
    let Some(traffic) = &held.traffic else {
        page.line("  The data plane does not have the rule yet.");
        return;
    };
    for refusal in &traffic.refusals {
        page.lines.push(vec![Cell::toned(
            Tone::Notice,
            format!(
                "  Refused so far, of all flows of the rule: {} packets, {}. {}",
                refusal.packets, refusal.reason, refusal.description
            ),
        )]);
    }
}

fn mapping_text(mapping: &EgressMapping) -> String {
    let remote = match mapping.remote.as_str() {
        "" => "any",
        remote => remote,
    };
    let from = match (mapping.transport.as_str(), mapping.node.as_str()) {
        ("native", "") => "without a tunnel".to_owned(),
        ("native", node) => format!("from node {node} without a tunnel"),
        (_, node) => format!("from node {node}"),
    };
    format!(
        "{} {} as {} to {remote}: {}, idle {}, {from}",
        mapping.protocol,
        mapping.pod,
        mapping.egress,
        mapping.state,
        idle_text(mapping.idle_ms),
    )
}

fn note_json(note: &EgressNote) -> Value {
    json!({
        "protocol": note.protocol,
        "pod": note.pod,
        "remote": note.remote,
        "rule": note.rule,
        "idleMs": note.idle_ms,
    })
}

fn rule_json(of: &EgressTraceRule) -> Value {
    let mappings = of.mappings.iter().map(|one| mapping(one).json);
    json!({
        "rule": of.rule,
        "policy": of.policy,
        "gateway": of.gateway,
        "gatewayIP": of.gateway_ip,
        "decided": of.decided,
        "atGateway": of.at_gateway.as_ref().map(|held| rule(held, Part::Gateway).json),
        "mappings": mappings.collect::<Vec<_>>(),
        "matching": of.matching,
        "nextCommand": of.next_command,
        "transport": of.transport,
    })
}
