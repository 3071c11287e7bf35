// SPDX-License-Identifier: Apache-2.0
//! One flow, followed through this node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use bpf_loader::{Mapping, NotedFlow};
use egress_core::{End, Policy, RuleNumber, World};
use ipnet::IpNet;
use router_api::v1alpha1 as api;
use tonic::Status;

use super::egress::{Names, end_text, explained, find_pod, protocol_text, transport, unreadable};
use super::egress_list::gateway_rule;
use crate::egress::{EgressSource, EgressView};

/// Notes, and mappings of a rule, in one answer.
const MOST: usize = 100;

/// Calls a closure with every connection that is noted.
pub(super) type EachNote<'a> = &'a dyn Fn(&mut dyn FnMut(&NotedFlow)) -> anyhow::Result<()>;

/// Which flow is meant.
#[derive(Debug)]
struct Flow {
    pods: BTreeSet<IpAddr>,
    destination: IpAddr,
    protocol: Option<u8>,
    port: Option<u16>,
    source_port: Option<u16>,
}

impl Flow {
    fn new(view: &EgressView, request: &api::TraceEgressRequest) -> Result<Flow, Status> {
        let wrong = |text: String| Status::invalid_argument(text);
        let Ok(destination) = request.destination.parse::<IpAddr>() else {
            let destination = &request.destination;
            return Err(wrong(format!(
                "{destination:?} is no address: write 203.0.113.9"
            )));
        };
        let is_v4 = destination.is_ipv4();
        let pods = match request.pod.parse::<IpAddr>() {
            Ok(address) if address.is_ipv4() != is_v4 => {
                return Err(wrong(format!(
                    "{address} and {destination} are of different families: give the pod's other \
                     address, or its name"
                )));
            }
            Ok(address) => BTreeSet::from([address]),
            Err(_) => {
                let addresses = find_pod(view, &request.pod)?.addresses.iter();
                addresses
                    .filter(|one| one.is_ipv4() == is_v4)
                    .copied()
                    .collect()
            }
        };
        let protocol = match (request.protocol.to_ascii_lowercase().as_str(), is_v4) {
            ("", _) => None,
            ("tcp", _) => Some(6),
            ("udp", _) => Some(17),
            ("icmp", true) => Some(1),
            ("icmp", false) => Some(58),
            (other, _) => {
                return Err(wrong(format!(
                    "protocol {other:?}: expected tcp, udp or icmp"
                )));
            }
        };
        let port = |what: &str, port: u32| match (port, protocol) {
            (0, _) => Ok(None),
            (_, Some(1 | 58)) => Err(wrong(format!("echoes have no ports: leave the {what} out"))),
            (port, _) => match u16::try_from(port) {
                Ok(port) => Ok(Some(port)),
                Err(_) => Err(wrong(format!("{what} {port}: expected 1 to 65535"))),
            },
        };
        Ok(Flow {
            pods,
            destination,
            protocol,
            port: port("port", request.port)?,
            source_port: port("source port", request.source_port)?,
        })
    }

    /// Whether a connection between these ends is meant. A socket that keeps its mapping whomever it
    /// sends to has no other end.
    fn has(&self, protocol: u8, pod: SocketAddr, remote: Option<SocketAddr>) -> bool {
        self.pods.contains(&pod.ip())
            && self.protocol.is_none_or(|one| one == protocol)
            && self.source_port.is_none_or(|port| port == pod.port())
            && remote.is_none_or(|remote| {
                remote.ip() == self.destination
                    && self.port.is_none_or(|port| port == remote.port())
            })
    }

    /// What asks another node the same.
    fn command(&self, request: &api::TraceEgressRequest) -> String {
        let Some(pod) = self.pods.first() else {
            return String::new();
        };
        let mut command = format!("causeway egress trace {pod} {}", self.destination);
        if !request.protocol.is_empty() {
            command += &format!(" --protocol {}", request.protocol);
        }
        for (flag, port) in [("port", self.port), ("source-port", self.source_port)] {
            if let Some(port) = port {
                command += &format!(" --{flag} {port}");
            }
        }
        command
    }
}

/// Follows a flow.
pub(super) fn traced(
    source: &dyn EgressSource,
    view: &EgressView,
    request: &api::TraceEgressRequest,
    each_note: EachNote<'_>,
) -> Result<api::TraceEgressResponse, Status> {
    let flow = Flow::new(view, request)?;
    let decision = decision(view, request)?;
    let (mut notes, mut matching_notes) = (Vec::new(), 0);
    let visited = each_note(&mut |note| {
        if flow.has(note.protocol, note.pod, Some(note.remote)) {
            matching_notes += 1;
            if notes.len() < MOST {
                notes.push(*note);
            }
        }
    });
    visited.map_err(|error| unreadable(&error))?;
    notes.sort_by_key(|note| (note.protocol, note.pod, note.remote));
    let mut mappings: BTreeMap<u32, (Vec<Mapping>, u64)> = BTreeMap::new();
    let visited = source.each_mapping(&mut |mapping| {
        if flow.has(mapping.protocol, mapping.pod, mapping.remote) {
            let (some, all) = mappings.entry(mapping.rule).or_default();
            *all += 1;
            if some.len() < MOST {
                some.push(*mapping);
            }
        }
    });
    visited.map_err(|error| unreadable(&error))?;

    let decided = decision.as_ref().map_or(0, |decision| decision.rule);
    let mut numbers: BTreeSet<u32> = notes.iter().filter_map(|note| note.rule).collect();
    numbers.extend(mappings.keys());
    numbers.extend((decided != 0).then_some(decided));
    if decision.is_none() {
        numbers.extend(covering(view, flow.destination));
        if numbers.is_empty() {
            return Err(Status::not_found(format!(
                "node {} has no pod with address {}, and is no gateway for {}: ask the node the pod \
                 runs on",
                view.world.node, request.pod, flow.destination
            )));
        }
    }
    let names = Names::new(view);
    let rules = numbers.into_iter().map(|number| {
        let (mut some, all) = mappings.remove(&number).unwrap_or_default();
        some.sort_by_key(|one| (one.protocol, one.pod, one.remote));
        let mut rule = rule(view, number, &flow.command(request));
        rule.decided = number == decided;
        rule.transport = transport_of(view, &flow, number).to_owned();
        rule.mappings = some.iter().map(|one| names.message(view, one)).collect();
        rule.matching = all;
        rule
    });
    let rules = rules.collect();
    let pod = decision.as_ref().map(|decision| decision.pod.clone());
    Ok(api::TraceEgressResponse {
        node: view.world.node.clone(),
        pod: pod.unwrap_or_else(|| request.pod.clone()),
        destination: flow.destination.to_string(),
        decision,
        notes: notes.iter().map(note).collect(),
        matching_notes,
        rules,
    })
}

/// What is decided for the flow; none for a pod of another node.
fn decision(
    view: &EgressView,
    request: &api::TraceEgressRequest,
) -> Result<Option<api::ExplainEgressResponse>, Status> {
    if let Ok(address) = request.pod.parse::<IpAddr>() {
        let mut pods = view.world.pods.iter();
        let is_here = view.desired.sources.contains_key(&address)
            || pods.any(|pod| pod.addresses.contains(&address));
        if !is_here {
            return Ok(None);
        }
    }
    let request = api::ExplainEgressRequest {
        pod: request.pod.clone(),
        destination: request.destination.clone(),
    };
    explained(view, &request).map(Some)
}

/// The rules this node is the gateway of whose policy covers a destination.
fn covering(view: &EgressView, destination: IpAddr) -> Vec<u32> {
    let World {
        policies,
        in_cluster,
        ..
    } = &*view.world;
    if in_cluster.iter().any(|net| net.contains(&destination)) {
        return Vec::new();
    }
    let longest = |nets: &BTreeSet<IpNet>| {
        let with_it = nets.iter().filter(|net| net.contains(&destination));
        with_it.map(IpNet::prefix_len).max()
    };
    let covers = |policy: &&Policy| longest(&policy.destinations) > longest(&policy.exclusions);
    let covering: BTreeSet<_> = policies.iter().filter(covers).map(|p| &p.id).collect();
    let rules = view.desired.gateway.iter();
    rules
        .filter(|(_, rule)| covering.contains(&rule.key.policy))
        .map(|(number, _)| number.get())
        .collect()
}

fn rule(view: &EgressView, number: u32, command: &str) -> api::EgressTraceRule {
    let mut found = api::EgressTraceRule {
        rule: number,
        ..Default::default()
    };
    let Some(number) = RuleNumber::new(number) else {
        return found;
    };
    if let Some(held) = view.desired.gateway.get(&number) {
        found.policy = held.key.policy.to_string();
        found.gateway.clone_from(&view.world.node);
        found.at_gateway = Some(gateway_rule(view, number, held));
    } else if let Some(end) = view.desired.ends.get(&number) {
        found.policy = end.key.policy.to_string();
        found.gateway.clone_from(&end.gateway);
        if let End::Remote(address) = end.end {
            found.gateway_ip = address.to_string();
            command.clone_into(&mut found.next_command);
        }
    }
    found
}

/// How packets of a flow get to the gateway of a rule; empty for a pod of another node.
fn transport_of(view: &EgressView, flow: &Flow, rule: u32) -> &'static str {
    let sources = &view.desired.sources;
    let source = flow.pods.iter().find_map(|address| sources.get(address));
    let number = RuleNumber::new(rule);
    let end = number.and_then(|number| view.desired.ends.get(&number));
    match (source, number, end) {
        (Some(source), Some(number), Some(end)) => {
            let neighbour = view.desired.neighbour(source, number, flow.destination);
            transport(end.end, neighbour)
        }
        _ => "",
    }
}

fn note(note: &NotedFlow) -> api::EgressNote {
    api::EgressNote {
        protocol: protocol_text(note.protocol),
        pod: end_text(note.pod),
        remote: end_text(note.remote),
        rule: note.rule.unwrap_or(0),
        idle_ms: u64::try_from(note.idle.as_millis()).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::egress::testing::{self, Fixture, mapping};

    fn noted(protocol: u8, pod: &str, remote: &str, rule: Option<u32>) -> NotedFlow {
        NotedFlow {
            protocol,
            pod: pod.parse().expect("an end"),
            remote: remote.parse().expect("an end"),
            rule,
            idle: Duration::from_millis(1500),
        }
    }

    fn request(pod: &str, destination: &str) -> api::TraceEgressRequest {
        api::TraceEgressRequest {
            pod: pod.into(),
            destination: destination.into(),
            ..Default::default()
        }
    }

    fn traced(request: &api::TraceEgressRequest) -> Result<api::TraceEgressResponse, Status> {
        let source = Fixture(vec![
            mapping(17, "10.1.0.2:5353", None, None),
            mapping(6, "10.1.0.2:40000", Some("203.0.113.9:443"), None),
            mapping(6, "10.1.0.2:40001", Some("203.0.113.9:80"), None),
            mapping(6, "10.1.0.2:40002", Some("203.0.113.77:80"), None),
            mapping(
                6,
                "10.2.0.9:40000",
                Some("203.0.113.9:443"),
                Some("10.0.0.2"),
            ),
        ]);
        let view = testing::view();
        let web = view.desired.gateway.keys().next().map(|rule| rule.get());
        let far = view.desired.ends.iter();
        let mut far = far.filter(|(_, end)| end.key.policy == testing::id("far"));
        let far = far.next().map(|(number, _)| number.get());
        let notes = [
            noted(6, "10.1.0.2:40001", "203.0.113.9:80", web),
            noted(6, "10.1.0.2:40000", "203.0.113.9:443", web),
            noted(6, "10.1.0.2:22", "203.0.113.9:50000", None),
            noted(6, "10.1.0.3:40000", "203.0.113.9:443", far),
            // Of a rule that is gone.
            noted(17, "10.1.0.3:40000", "203.0.113.9:53", Some(5_000)),
        ];
        super::traced(&source, &view, request, &|visit| {
            notes.iter().for_each(visit);
            Ok(())
        })
    }

    #[test]
    fn a_flow_of_a_pod_here_has_decision_notes_and_mappings() {
        let all = traced(&request("shop/web-0", "203.0.113.9")).unwrap();
        assert_eq!((all.pod.as_str(), all.matching_notes), ("shop/web-0", 3));
        let [rule] = all.rules.as_slice() else {
            panic!("{:#?}", all.rules);
        };
        assert!(rule.decided && rule.next_command.is_empty());
        assert_eq!(rule.rule, all.decision.unwrap().rule);
        let held = rule.at_gateway.as_ref().unwrap();
        let refusals = &held.traffic.as_ref().unwrap().refusals;
        assert_eq!(refusals[0].reason, "nat-ports-exhausted");
        // Those to the destination, and the socket that has one mapping for all.
        assert_eq!(rule.matching, 3);

        let one = traced(&api::TraceEgressRequest {
            protocol: "tcp".into(),
            port: 443,
            source_port: 40000,
            ..request("10.1.0.2", "203.0.113.9")
        })
        .unwrap();
        let [note] = one.notes.as_slice() else {
            panic!("{:#?}", one.notes);
        };
        assert_eq!((note.protocol.as_str(), note.idle_ms), ("tcp", 1500));
        assert_eq!(
            (note.pod.as_str(), note.remote.as_str(), note.rule),
            ("10.1.0.2:40000", "203.0.113.9:443", one.rules[0].rule)
        );
        let [mapping] = one.rules[0].mappings.as_slice() else {
            panic!("{:#?}", one.rules);
        };
        assert_eq!(mapping.pod, "10.1.0.2:40000");
        assert_eq!(mapping.egress, "198.51.100.7:1024");
    }

    #[test]
    fn what_goes_by_another_gateway_says_what_to_run_there() {
        let trace = traced(&api::TraceEgressRequest {
            protocol: "tcp".into(),
            port: 443,
            ..request("shop/api-0", "203.0.113.9")
        })
        .unwrap();
        let [rule] = trace.rules.as_slice() else {
            panic!("{:#?}", trace.rules);
        };
        assert_eq!(
            (rule.gateway.as_str(), rule.gateway_ip.as_str()),
            ("node-b", "10.0.0.2")
        );
        assert_eq!(rule.at_gateway, None);
        assert_eq!(
            rule.next_command,
            "causeway egress trace 10.1.0.3 203.0.113.9 --protocol tcp --port 443"
        );
        // A connection whose rule is gone is told of all the same.
        let all = traced(&request("shop/api-0", "203.0.113.9")).unwrap();
        let gone = all.rules.iter().find(|rule| rule.rule == 5_000).unwrap();
        assert_eq!((gone.policy.as_str(), gone.gateway.as_str()), ("", ""));
        assert!(!gone.decided);
        let dropped = traced(&request("shop/api-0", "233.252.0.1")).unwrap();
        assert!(dropped.decision.unwrap().dropped && dropped.rules.is_empty());
    }

    #[test]
    fn a_gateway_follows_flows_of_other_nodes_by_address() {
        let there = traced(&request("10.2.0.9", "203.0.113.9")).unwrap();
        assert_eq!((there.pod.as_str(), there.decision), ("10.2.0.9", None));
        assert_eq!(there.rules[0].matching, 1);
        assert_eq!(there.rules[0].mappings[0].node, "node-b");
        // It has no connection, and the rule it would go by is told with what it refused.
        let none = traced(&request("10.2.0.10", "203.0.113.9")).unwrap();
        assert_eq!((none.rules.len(), none.rules[0].matching), (1, 0));
        assert!(none.rules[0].at_gateway.is_some());
        for outside in ["192.0.2.9", "10.1.0.9"] {
            let status = traced(&request("10.2.0.10", outside)).unwrap_err();
            assert_eq!(status.code(), tonic::Code::NotFound, "{outside}");
        }
    }

    #[test]
    fn questions_that_make_no_sense_are_refused() {
        let refused = |change: fn(&mut api::TraceEgressRequest)| {
            let mut request = request("10.1.0.2", "203.0.113.9");
            change(&mut request);
            traced(&request).unwrap_err().message().to_owned()
        };
        assert!(refused(|r| r.destination = "there".into()).contains("no address"));
        assert!(refused(|r| r.destination = "2001:db8::1".into()).contains("families"));
        assert!(refused(|r| r.protocol = "sctp".into()).contains("tcp, udp or icmp"));
        assert!(refused(|r| r.port = 70_000).contains("1 to 65535"));
        let echo = refused(|r| (r.protocol, r.port) = ("icmp".into(), 7));
        assert!(echo.contains("echoes have no ports"), "{echo}");
        assert!(refused(|r| r.pod = "shop/none".into()).contains("no pod shop/none"));
    }
}
