// SPDX-License-Identifier: Apache-2.0
//! `causeway egress`.

use router_api::Connection;
use router_api::v1alpha1::{
    EgressGatewayPeer, EgressGatewayRule, EgressMapping, EgressPath, EgressPolicy, EgressTraffic,
    ExplainEgressRequest, ExplainEgressResponse, ListEgressGatewaysRequest,
    ListEgressGatewaysResponse, ListEgressMappingsRequest, ListEgressPoliciesRequest,
    ListEgressPoliciesResponse, ListEgressRulesRequest, ListEgressRulesResponse,
};
use serde_json::{Map, Value, json};
use tonic::Status;

use super::egress_trace;
use crate::args::{EgressCommand, NatArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Column, Item, Listing, Page, Tone, View};
use crate::run::Outcome;

pub(crate) async fn fetch(
    connection: &Connection,
    verb: &EgressCommand,
) -> Result<Outcome, Failure> {
    let view = match verb {
        EgressCommand::List => list(&rules_of(connection).await?),
        EgressCommand::Rules => rules(&rules_of(connection).await?),
        EgressCommand::Gateways => {
            let request = ListEgressGatewaysRequest {};
            let answer = connection.egress().list_egress_gateways(request).await;
            let answer = answer.map_err(|s| failed("cannot list the other gateways", &s))?;
            gateways(&answer.into_inner())
        }
        EgressCommand::Policies { policy } => {
            fetch_policies(connection, policy.as_deref().unwrap_or_default()).await?
        }
        EgressCommand::Nat(args) => fetch_nat(connection, args).await?,
        EgressCommand::Explain { pod, destination } => {
            let request = ExplainEgressRequest {
                pod: pod.clone(),
                destination: destination.to_string(),
            };
            let answer = connection.egress().explain_egress(request).await;
            let answer = answer
                .map_err(|s| failed("cannot explain what becomes of the packets", &s))?
                .into_inner();
            let exit = if answer.dropped {
                Exit::Found
            } else {
                Exit::Ok
            };
            return Ok((explain(&answer), exit));
        }
        EgressCommand::Trace(args) => return egress_trace::fetch(connection, args).await,
    };
    Ok((view, Exit::Ok))
}

fn failed(what: &str, status: &Status) -> Failure {
    Failure::from_status(what, status)
}

async fn rules_of(connection: &Connection) -> Result<ListEgressRulesResponse, Failure> {
    let answer = connection
        .egress()
        .list_egress_rules(ListEgressRulesRequest {})
        .await;
    let answer = answer.map_err(|s| failed("cannot list the egress rules", &s))?;
    Ok(answer.into_inner())
}

async fn fetch_policies(connection: &Connection, policy: &str) -> Result<View, Failure> {
    let request = ListEgressPoliciesRequest {
        policy: policy.to_owned(),
    };
    let answer = connection.egress().list_egress_policies(request).await;
    let answer = answer
        .map_err(|s| failed("cannot list the egress policies", &s))?
        .into_inner();
    if !policy.is_empty() && answer.policies.is_empty() {
        let what = format!("there is no egress policy {policy} in force");
        return Err(Failure::new("CW0002", Exit::NotFound, what).fix(
            "`causeway egress policies` lists those in force, `causeway resources` all that are \
             written and why one is not",
        ));
    }
    Ok(policies(&answer))
}

async fn fetch_nat(connection: &Connection, args: &NatArgs) -> Result<View, Failure> {
    let request = ListEgressMappingsRequest {
        rule: args.rule.unwrap_or(0),
        pod: args.pod.clone().unwrap_or_default(),
        remote: args.remote.clone().unwrap_or_default(),
        egress_ip: args.egress_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        protocol: args.protocol.clone().unwrap_or_default(),
        limit: args.limit,
    };
    let failed = |s: &Status| failed("cannot list the connections", s);
    let answer = connection.egress().list_egress_mappings(request).await;
    let mut batches = answer.map_err(|s| failed(&s))?.into_inner();
    let (mut node, mut matching, mut mappings) = (String::new(), 0, Vec::new());
    while let Some(batch) = batches.message().await.map_err(|s| failed(&s))? {
        (node, matching) = (batch.node, batch.matching);
        mappings.extend(batch.mappings);
    }
    Ok(nat(&node, &mappings, matching))
}

fn node_field(node: &str) -> Map<String, Value> {
    Map::from_iter([("node".to_owned(), node.into())])
}

fn or_dash(text: impl AsRef<str>) -> Cell {
    match text.as_ref() {
        "" => Cell::plain("-"),
        text => Cell::plain(text),
    }
}

/// Where what the pods of the node send goes.
pub fn list(answer: &ListEgressRulesResponse) -> View {
    Listing {
        kind: "EgressPathList",
        fields: node_field(&answer.node),
        columns: vec![
            Column::new("Pod"),
            Column::new("Source IP"),
            Column::new("Destination CIDR"),
            Column::new("Egress IP"),
            Column::new("Gateway IP"),
            Column::new("Gateway"),
            Column::new("Policy"),
            Column::new("Action"),
            Column::new("Reason").prose(),
            Column::new("Rule").wide().right(),
            Column::new("Life").wide(),
            Column::new("Transport").wide(),
        ],
        items: answer.paths.iter().map(path).collect(),
        empty: "no policy selects a pod of this node".to_owned(),
        notes: Vec::new(),
    }
    .into()
}

fn path(path: &EgressPath) -> Item {
    let pod = format!("{}/{}", path.namespace, path.pod);
    let is_sent = path.action == "gateway";
    let tone = match path.action.as_str() {
        "gateway" => Tone::Good,
        "excluded" => Tone::Plain,
        _ => Tone::Bad,
    };
    let gateway_ip = match (path.local, is_sent) {
        (true, _) => "this node",
        (false, _) => path.gateway_ip.as_str(),
    };
    let egress_ip = match (path.egress_ips.as_slice(), is_sent) {
        ([], true) if !path.local => "known to the gateway".to_owned(),
        (ips, _) => ips.join(","),
    };
    let rule = match path.rule {
        0 => "-".to_owned(),
        rule => rule.to_string(),
    };
    Item {
        name: format!("{}/{}", path.source_ip, path.destination),
        json: json!({
            "namespace": path.namespace,
            "pod": path.pod,
            "sourceIP": path.source_ip,
            "destinationCIDR": path.destination,
            "egressIPs": path.egress_ips,
            "gatewayIP": path.gateway_ip,
            "gateway": path.gateway,
            "local": path.local,
            "policy": path.policy,
            "action": path.action,
            "reason": path.reason,
            "rule": path.rule,
            "draining": path.draining,
            "transport": path.transport,
        }),
        rows: vec![vec![
            pod.into(),
            path.source_ip.as_str().into(),
            path.destination.as_str().into(),
            or_dash(egress_ip),
            or_dash(gateway_ip),
            or_dash(&path.gateway),
            or_dash(&path.policy),
            Cell::toned(tone, path.action.as_str()),
            or_dash(&path.reason),
            rule.into(),
            match (is_sent, path.draining) {
                (true, true) => Cell::toned(Tone::Notice, "draining"),
                (true, false) => "active".into(),
                (false, _) => "-".into(),
            },
            or_dash(&path.transport),
        ]],
    }
}

/// The other gateways, as this node knows them.
pub fn gateways(answer: &ListEgressGatewaysResponse) -> View {
    Listing {
        kind: "EgressGatewayPeerList",
        fields: node_field(&answer.node),
        columns: vec![
            Column::new("Gateway"),
            Column::new("Link"),
            Column::new("BFD"),
            Column::new("Life"),
            Column::new("Copied From"),
            Column::new("Copied To"),
            Column::new("Problem").wide().prose(),
        ],
        items: answer.gateways.iter().map(gateway).collect(),
        empty: "this node shares no egress addresses with others".to_owned(),
        notes: Vec::new(),
    }
    .into()
}

fn gateway(peer: &EgressGatewayPeer) -> Item {
    let copied = |rules: u32, complete: u32| match (rules, complete) {
        (0, _) => "-".into(),
        (all, complete) if all == complete => Cell::toned(Tone::Good, all.to_string()),
        (all, complete) => Cell::toned(Tone::Notice, format!("{complete} of {all}")),
    };
    Item {
        name: peer.name.clone(),
        json: json!({
            "name": peer.name,
            "isLinked": peer.linked,
            "problem": peer.problem,
            "bfd": peer.bfd,
            "isDead": peer.dead,
            "copiedFrom": peer.copied_from,
            "copiedFromComplete": peer.copied_from_complete,
            "copiedTo": peer.copied_to,
            "copiedToComplete": peer.copied_to_complete,
        }),
        rows: vec![vec![
            peer.name.as_str().into(),
            match peer.linked {
                true => Cell::toned(Tone::Good, "up"),
                false => Cell::toned(Tone::Bad, "down"),
            },
            match peer.bfd.as_str() {
                "up" => Cell::toned(Tone::Good, "up"),
                "" => "-".into(),
                other => Cell::toned(Tone::Bad, other),
            },
            match peer.dead {
                true => Cell::toned(Tone::Bad, "dead"),
                false => "alive".into(),
            },
            copied(peer.copied_from, peer.copied_from_complete),
            copied(peer.copied_to, peer.copied_to_complete),
            or_dash(&peer.problem),
        ]],
    }
}

/// What the node is the gateway of, or stands by for.
pub fn rules(answer: &ListEgressRulesResponse) -> View {
    Listing {
        kind: "EgressGatewayRuleList",
        fields: node_field(&answer.node),
        columns: vec![
            Column::new("Rule").right(),
            Column::new("Policy"),
            Column::new("Egress IP"),
            Column::new("Life"),
            Column::new("Connections").right(),
            Column::new("Out Packets").right(),
            Column::new("Out Bytes").right(),
            Column::new("Back Packets").right(),
            Column::new("Back Bytes").right(),
            Column::new("Refused").right(),
            Column::new("Group").wide().right(),
            Column::new("Ports").wide(),
            Column::new("Interface").wide(),
            Column::new("Opened").wide().right(),
            Column::new("Addresses").wide(),
            Column::new("Holder").wide(),
            Column::new("Standbys").wide(),
            Column::new("Refusals").wide().prose(),
        ],
        items: {
            let gateway = answer.gateway.iter().map(|one| rule(one, Part::Gateway));
            let standby = answer.standby.iter().map(|one| rule(one, Part::Standby));
            gateway.chain(standby).collect()
        },
        empty: "this node is no egress gateway".to_owned(),
        notes: Vec::new(),
    }
    .into()
}

/// What a node is for a rule.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Its gateway.
    Gateway,
    /// Who takes over, with copies of the connections.
    Standby,
}

pub(super) fn rule(rule: &EgressGatewayRule, part: Part) -> Item {
    let traffic = rule.traffic.as_ref();
    let count = |of: fn(&EgressTraffic) -> u64| match traffic {
        Some(traffic) => Cell::from(of(traffic)),
        None => "-".into(),
    };
    let refusals = traffic.map_or(&[][..], |traffic| &traffic.refusals);
    let refused: u64 = refusals.iter().map(|one| one.packets).sum();
    let refusal_texts = refusals
        .iter()
        .map(|one| format!("{} {}", one.packets, one.reason));
    let traffic_json = traffic.map(|traffic| {
        let refusals = traffic.refusals.iter().map(|one| {
            json!({
                "reason": one.reason, "description": one.description,
                "packets": one.packets, "bytes": one.bytes,
            })
        });
        json!({
            "connections": traffic.connections,
            "opened": traffic.opened,
            "outPackets": traffic.out_packets,
            "outBytes": traffic.out_bytes,
            "backPackets": traffic.back_packets,
            "backBytes": traffic.back_bytes,
            "refusals": refusals.collect::<Vec<_>>(),
        })
    });
    Item {
        name: rule.rule.to_string(),
        json: json!({
            "rule": rule.rule,
            "policy": rule.policy,
            "group": rule.group,
            "egressIPs": rule.egress_ips,
            "held": rule.held,
            "interface": rule.interface,
            "firstPort": rule.first_port,
            "lastPort": rule.last_port,
            "draining": rule.draining,
            "term": rule.term,
            "holder": rule.holder,
            "standbys": rule.standbys,
            "standsBy": part == Part::Standby,
            "ready": rule.ready,
            "traffic": traffic_json,
        }),
        rows: vec![vec![
            rule.rule.into(),
            rule.policy.as_str().into(),
            match rule.egress_ips.as_slice() {
                [] => Cell::toned(Tone::Bad, "none"),
                ips => ips.join(",").into(),
            },
            match (part, rule.draining, rule.ready) {
                (Part::Gateway, true, _) => Cell::toned(Tone::Notice, "draining"),
                (Part::Gateway, false, _) => Cell::toned(Tone::Good, "active"),
                (Part::Standby, _, true) => Cell::toned(Tone::Good, "standby"),
                (Part::Standby, _, false) => Cell::toned(Tone::Notice, "copying"),
            },
            count(|t| t.connections),
            count(|t| t.out_packets),
            count(|t| t.out_bytes),
            count(|t| t.back_packets),
            count(|t| t.back_bytes),
            match (traffic, refused) {
                (None, _) => "-".into(),
                (Some(_), 0) => 0_u64.into(),
                (Some(_), n) => Cell::toned(Tone::Notice, n.to_string()),
            },
            rule.group.into(),
            format!("{}-{}", rule.first_port, rule.last_port).into(),
            or_dash(&rule.interface),
            count(|t| t.opened),
            match rule.held {
                true => format!("held, term {}", rule.term).into(),
                false => "of the node".into(),
            },
            or_dash(&rule.holder),
            or_dash(rule.standbys.join(",")),
            or_dash(refusal_texts.collect::<Vec<_>>().join(", ")),
        ]],
    }
}

/// The policies, with a line for each finding.
pub fn policies(answer: &ListEgressPoliciesResponse) -> View {
    let mut fields = node_field(&answer.node);
    fields.insert("findings".to_owned(), answer.findings.clone().into());
    Listing {
        kind: "EgressPolicyList",
        fields,
        columns: vec![
            Column::new("Policy"),
            Column::new("Kind"),
            Column::new("Pods").right(),
            Column::new("Active"),
            Column::new("Healthy"),
            Column::new("Egress IP"),
            Column::new("Findings").prose(),
            Column::new("Mode").wide(),
            Column::new("Destinations").wide(),
            Column::new("Excluded").wide(),
            Column::new("Selected").wide(),
        ],
        items: answer.policies.iter().map(policy).collect(),
        empty: "no egress policies are in force".to_owned(),
        notes: answer.findings.clone(),
    }
    .into()
}

fn policy(policy: &EgressPolicy) -> Item {
    let pods = match (policy.pods.len(), policy.undecided.len()) {
        (pods, 0) => Cell::plain(pods.to_string()),
        (pods, undecided) => Cell::toned(Tone::Bad, format!("{pods} (+{undecided}?)")),
    };
    let active = match policy.active_gateways.as_slice() {
        [] => Cell::toned(Tone::Bad, "none"),
        nodes => nodes.join(",").into(),
    };
    let (healthy, all) = (policy.healthy_gateways.len(), policy.gateways.len());
    let tone = match healthy {
        0 => Tone::Bad,
        n if n < all => Tone::Notice,
        _ => Tone::Good,
    };
    let finding = |n: usize| -> Cell {
        match policy.findings.get(n) {
            Some(text) => Cell::toned(Tone::Notice, text.as_str()),
            None => "-".into(),
        }
    };
    let mut selected = policy.pods.clone();
    selected.extend(policy.undecided.iter().map(|pod| format!("{pod}?")));
    let mut rows = vec![vec![
        policy.name.as_str().into(),
        policy.kind.as_str().into(),
        pods,
        active,
        Cell::toned(tone, format!("{healthy} of {all}")),
        or_dash(policy.egress_ips.join(",")),
        finding(0),
        policy.mode.as_str().into(),
        or_dash(policy.destinations.join(",")),
        or_dash(policy.excluded.join(",")),
        or_dash(selected.join(",")),
    ]];
    for n in 1..policy.findings.len() {
        let mut row = vec![Cell::plain(""); rows[0].len()];
        row[6] = finding(n);
        rows.push(row);
    }
    Item {
        name: format!("{}/{}", policy.kind, policy.name),
        json: json!({
            "kind": policy.kind,
            "name": policy.name,
            "mode": policy.mode,
            "destinationCIDRs": policy.destinations,
            "excludedCIDRs": policy.excluded,
            "pods": policy.pods,
            "undecidedPods": policy.undecided,
            "activeGateways": policy.active_gateways,
            "healthyGateways": policy.healthy_gateways,
            "gateways": policy.gateways,
            "egressIPs": policy.egress_ips,
            "findings": policy.findings,
        }),
        rows,
    }
}

/// Connections, and how many there are.
pub fn nat(node: &str, mappings: &[EgressMapping], matching: u64) -> View {
    let mut fields = node_field(node);
    fields.insert("matching".to_owned(), matching.into());
    let shown = mappings.len() as u64;
    let notes = (shown < matching).then(|| {
        format!("{shown} of {matching} connections are shown; filter them, or --limit 0 shows all")
    });
    Listing {
        kind: "EgressMappingList",
        fields,
        columns: vec![
            Column::new("Protocol"),
            Column::new("Pod"),
            Column::new("Egress"),
            Column::new("Remote"),
            Column::new("State"),
            Column::new("Idle").right(),
            Column::new("Policy"),
            Column::new("Node"),
            Column::new("Copy Of"),
            Column::new("Rule").wide().right(),
            Column::new("Pod Name").wide(),
            Column::new("Transport").wide(),
        ],
        items: mappings.iter().map(mapping).collect(),
        empty: "no connections go through this node".to_owned(),
        notes: notes.into_iter().collect(),
    }
    .into()
}

pub(super) fn mapping(mapping: &EgressMapping) -> Item {
    let tone = match mapping.state.as_str() {
        "established" | "active" => Tone::Good,
        _ => Tone::Plain,
    };
    let remote = match mapping.remote.as_str() {
        // One mapping for whoever the socket sends to.
        "" => "any",
        remote => remote,
    };
    Item {
        name: format!("{}/{}/{remote}", mapping.protocol, mapping.pod),
        json: json!({
            "protocol": mapping.protocol,
            "pod": mapping.pod,
            "egress": mapping.egress,
            "remote": mapping.remote,
            "state": mapping.state,
            "idleMs": mapping.idle_ms,
            "rule": mapping.rule,
            "policy": mapping.policy,
            "node": mapping.node,
            "podName": mapping.pod_name,
            "copyOf": mapping.copy_of,
            "transport": mapping.transport,
        }),
        rows: vec![vec![
            mapping.protocol.as_str().into(),
            mapping.pod.as_str().into(),
            mapping.egress.as_str().into(),
            remote.into(),
            Cell::toned(tone, mapping.state.as_str()),
            idle_text(mapping.idle_ms).into(),
            or_dash(&mapping.policy),
            or_dash(&mapping.node),
            or_dash(&mapping.copy_of),
            mapping.rule.into(),
            or_dash(&mapping.pod_name),
            or_dash(&mapping.transport),
        ]],
    }
}

pub(super) fn idle_text(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..=59 => format!("{s}s"),
        s @ 60..=3599 => format!("{}m{}s", s / 60, s % 60),
        s => format!("{}h{}m", s / 3600, s % 3600 / 60),
    }
}

/// An explanation, a line for each sentence.
pub fn explain(answer: &ExplainEgressResponse) -> View {
    let mut page = Page::new(
        "EgressExplanation",
        format!("{}/{}", answer.pod, answer.destination),
    );
    page.set_json(explain_json(answer));
    page.lines.push(vec![
        Cell::strong(format!("{} to {}: ", answer.pod, answer.destination)),
        verdict(answer),
    ]);
    for sentence in &answer.sentences {
        page.line(format!("  {sentence}"));
    }
    page.into()
}

pub(super) fn explain_json(answer: &ExplainEgressResponse) -> Value {
    json!({
        "node": answer.node,
        "pod": answer.pod,
        "destination": answer.destination,
        "selectedBy": answer.selected_by,
        "undecided": answer.undecided,
        "verdict": answer.verdict,
        "dropped": answer.dropped,
        "policy": answer.policy,
        "prefix": answer.prefix,
        "rule": answer.rule,
        "gateway": answer.gateway,
        "gatewayIP": answer.gateway_ip,
        "egressIPs": answer.egress_ips,
        "transport": answer.transport,
        "sentences": answer.sentences,
    })
}

/// What becomes of packets, in a few words.
pub(super) fn verdict(answer: &ExplainEgressResponse) -> Cell {
    let (tone, text) = match (answer.dropped, answer.verdict.as_str()) {
        (true, _) => (Tone::Bad, "dropped"),
        (false, "gateway") => (Tone::Good, "through a gateway"),
        (false, "pending") => (Tone::Notice, "about to change"),
        (false, _) => (Tone::Plain, "as if there were no gateway"),
    };
    Cell::toned(tone, text)
}
