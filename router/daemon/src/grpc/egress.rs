// SPDX-License-Identifier: Apache-2.0
//! Egress gateways: policies, ways, connections, and why packets go where they go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bpf_loader::{Mapping, PodNode};
use egress_core::{End, Explanation, PodKey, RuleNumber, Sender, Verdict, explain};
use ipnet::IpNet;
use router_api::v1alpha1 as api;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::STREAM;
use super::egress_list::{gateways, policies, rules, texts};
use super::egress_trace::traced;
use crate::egress::{EgressSource, EgressView};
use crate::intent::lock;
use crate::run::Parts;

/// Mappings in one message.
const BATCH: usize = 1024;

/// The name of a protocol, where it has one that people use; `other` else, for labels.
pub fn protocol_name(protocol: u8) -> &'static str {
    let found = PROTOCOLS.iter().find(|(_, number)| *number == protocol);
    found.map_or("other", |(name, _)| name)
}

/// The name of a protocol, or its number.
pub(super) fn protocol_text(protocol: u8) -> String {
    match protocol_name(protocol) {
        "other" => protocol.to_string(),
        name => name.to_owned(),
    }
}

/// <https://www.iana.org/assignments/protocol-numbers>
const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", 1),
    ("tcp", 6),
    ("udp", 17),
    ("esp", 50),
    ("icmpv6", 58),
    ("sctp", 132),
];

pub struct Service(pub Parts);

impl Service {
    /// Asks the egress part. The kernel may take its time, so that it is done on a thread of its
    /// own.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn EgressSource) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let source = self.0.egress.as_ref().ok_or_else(|| {
            Status::failed_precondition(
                "egress is off on this node: causewayd runs without its egress part",
            )
        })?;
        let source = Arc::clone(source);
        tokio::task::spawn_blocking(move || ask(&*source))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
    }
}

fn look(source: &dyn EgressSource) -> Result<EgressView, Status> {
    source.view().map_err(|error| unreadable(&error))
}

pub(super) fn unreadable(error: &anyhow::Error) -> Status {
    Status::internal(format!("egress cannot be looked at: {error:#}"))
}

#[tonic::async_trait]
impl api::egress_server::Egress for Service {
    async fn list_egress_policies(
        &self,
        request: Request<api::ListEgressPoliciesRequest>,
    ) -> Result<Response<api::ListEgressPoliciesResponse>, Status> {
        let wanted = request.into_inner().policy;
        self.ask(move |source| Ok(policies(&look(source)?, &wanted)))
            .await
            .map(Response::new)
    }

    async fn list_egress_rules(
        &self,
        _: Request<api::ListEgressRulesRequest>,
    ) -> Result<Response<api::ListEgressRulesResponse>, Status> {
        self.ask(|source| Ok(rules(&look(source)?)))
            .await
            .map(Response::new)
    }

    async fn list_egress_gateways(
        &self,
        _: Request<api::ListEgressGatewaysRequest>,
    ) -> Result<Response<api::ListEgressGatewaysResponse>, Status> {
        self.ask(|source| Ok(gateways(&look(source)?)))
            .await
            .map(Response::new)
    }

    type ListEgressMappingsStream = ReceiverStream<Result<api::EgressMappingBatch, Status>>;

    async fn list_egress_mappings(
        &self,
        request: Request<api::ListEgressMappingsRequest>,
    ) -> Result<Response<Self::ListEgressMappingsStream>, Status> {
        let request = request.into_inner();
        let (view, found) = self
            .ask(move |source| {
                let view = look(source)?;
                let found = mappings(source, &view, &request)?;
                Ok((view, found))
            })
            .await?;
        let (sender, receiver) = tokio::sync::mpsc::channel(STREAM);
        tokio::spawn(async move {
            let names = Names::new(&view);
            let mut chunks: Vec<_> = found.mappings.chunks(BATCH).collect();
            if chunks.is_empty() {
                // Who asks learns the node's name and that there is nothing.
                chunks.push(&[]);
            }
            for chunk in chunks {
                let batch = api::EgressMappingBatch {
                    node: view.world.node.clone(),
                    mappings: chunk.iter().map(|one| names.message(&view, one)).collect(),
                    matching: found.matching,
                };
                if sender.send(Ok(batch)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn explain_egress(
        &self,
        request: Request<api::ExplainEgressRequest>,
    ) -> Result<Response<api::ExplainEgressResponse>, Status> {
        let request = request.into_inner();
        self.ask(move |source| explained(&look(source)?, &request))
            .await
            .map(Response::new)
    }

    async fn trace_egress(
        &self,
        request: Request<api::TraceEgressRequest>,
    ) -> Result<Response<api::TraceEgressResponse>, Status> {
        let (request, datapath) = (request.into_inner(), self.0.datapath.clone());
        self.ask(move |source| {
            let view = look(source)?;
            traced(source, &view, &request, &|visit| match &datapath {
                Ok(datapath) => Ok(lock(datapath).each_egress_flow(visit)?),
                Err(why) => anyhow::bail!("no data plane: {why}"),
            })
        })
        .await
        .map(Response::new)
    }
}

/// The pod of this node that is meant by `namespace/name` or a name alone.
pub(super) fn find_pod<'a>(
    view: &'a EgressView,
    text: &str,
) -> Result<&'a egress_core::Pod, Status> {
    let is_meant = |pod: &&egress_core::Pod| match text.split_once('/') {
        Some((namespace, name)) => pod.key.namespace == namespace && pod.key.name == name,
        None => pod.key.name == text,
    };
    let found: Vec<_> = view.world.pods.iter().filter(is_meant).collect();
    let keys: BTreeSet<&PodKey> = found.iter().map(|pod| &pod.key).collect();
    match (found.first(), keys.len()) {
        (Some(pod), 1) => Ok(pod),
        (Some(_), _) => Err(Status::invalid_argument(format!(
            "pod {text} is one of {}: name its namespace",
            texts(keys).join(", ")
        ))),
        (None, _) => Err(Status::not_found(format!(
            "node {} has no pod {text}: ask the node it runs on, or give its address",
            view.world.node
        ))),
    }
}

/// Which mappings are wanted.
#[derive(Debug, Default)]
struct Filter {
    rule: Option<u32>,
    pod: Option<BTreeSet<IpAddr>>,
    remote: Option<IpNet>,
    egress: Option<IpAddr>,
    protocol: Option<u8>,
}

impl Filter {
    fn new(view: &EgressView, request: &api::ListEgressMappingsRequest) -> Result<Filter, Status> {
        let wrong = |what: &str, text: &str, expected: &str| {
            Status::invalid_argument(format!("{what} {text:?}: expected {expected}"))
        };
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let pod = given(&request.pod).map(|text| match text.parse::<IpAddr>() {
            Ok(address) => Ok(BTreeSet::from([address])),
            Err(_) => find_pod(view, &text).map(|pod| pod.addresses.iter().copied().collect()),
        });
        let remote = given(&request.remote).map(|text| {
            let net = text.parse::<IpNet>().map(|net| net.trunc());
            net.or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| wrong("remote", &text, "an address or a prefix"))
        });
        let egress = given(&request.egress_ip).map(|text| {
            text.parse()
                .map_err(|_| wrong("egress IP", &text, "an address"))
        });
        let protocol = given(&request.protocol).map(|text| {
            let name = text.to_ascii_lowercase();
            let named = PROTOCOLS.iter().find(|(known, _)| *known == name);
            named
                .map(|(_, number)| *number)
                .or_else(|| name.parse().ok())
                .ok_or_else(|| {
                    let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
                    wrong(
                        "protocol",
                        &text,
                        &format!("{} or a number", names.join(", ")),
                    )
                })
        });
        Ok(Filter {
            rule: (request.rule != 0).then_some(request.rule),
            pod: pod.transpose()?,
            remote: remote.transpose()?,
            egress: egress.transpose()?,
            protocol: protocol.transpose()?,
        })
    }

    fn takes(&self, mapping: &Mapping) -> bool {
        self.rule.is_none_or(|rule| mapping.rule == rule)
            && self
                .pod
                .as_ref()
                .is_none_or(|pod| pod.contains(&mapping.pod.ip()))
            && self
                .remote
                .is_none_or(|net| mapping.remote.is_some_and(|at| net.contains(&at.ip())))
            && self
                .egress
                .is_none_or(|address| mapping.egress.ip() == address)
            && self
                .protocol
                .is_none_or(|protocol| mapping.protocol == protocol)
    }
}

/// Some of the mappings that match, and how many do.
struct Found {
    mappings: Vec<Mapping>,
    matching: u64,
}

/// The mappings asked for. No more of them are held than are shown.
fn mappings(
    source: &dyn EgressSource,
    view: &EgressView,
    request: &api::ListEgressMappingsRequest,
) -> Result<Found, Status> {
    let filter = Filter::new(view, request)?;
    let limit = match request.limit {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let mut found = Found {
        mappings: Vec::new(),
        matching: 0,
    };
    source
        .each_mapping(&mut |mapping| {
            if filter.takes(mapping) {
                found.matching += 1;
                if found.mappings.len() < limit {
                    found.mappings.push(*mapping);
                }
            }
        })
        .map_err(|error| unreadable(&error))?;
    found
        .mappings
        .sort_by_key(|one| (one.rule, one.pod, one.protocol, one.remote, one.egress));
    Ok(found)
}

/// Names of what is in mappings, looked up once.
pub(super) struct Names {
    nodes: BTreeMap<IpAddr, String>,
    pods: BTreeMap<IpAddr, String>,
    /// Node and name of pods of other nodes.
    remote: BTreeMap<IpAddr, (String, String)>,
    policies: BTreeMap<u32, String>,
    /// The holders of rules this node has copies of.
    holders: BTreeMap<u32, String>,
}

impl Names {
    pub(super) fn new(view: &EgressView) -> Names {
        let nodes = view.world.nodes.iter();
        let pods = view.world.pods.iter();
        let remote = view.world.remote_pods.iter().flat_map(|other| {
            let (pod, node) = (&other.pod, &other.node);
            let name = move || (node.clone(), pod.key.to_string());
            pod.addresses.iter().map(move |at| (*at, name()))
        });
        let (gateway, standby) = (&view.desired.gateway, &view.desired.standby);
        let copied = standby.iter();
        let copied = copied.filter(|(number, _)| !gateway.contains_key(number));
        let holder = |number: &RuleNumber| {
            let seat = view.desired.seats.get(number);
            let holder = seat.and_then(|seat| seat.holder.clone());
            (number.get(), holder.unwrap_or_else(|| "nobody".to_owned()))
        };
        Names {
            remote: remote.collect(),
            holders: copied.map(|(number, _)| holder(number)).collect(),
            nodes: nodes
                .flat_map(|(name, node)| node.addresses.iter().map(|at| (*at, name.clone())))
                .collect(),
            pods: pods
                .flat_map(|pod| pod.addresses.iter().map(|at| (*at, pod.key.to_string())))
                .collect(),
            policies: gateway
                .iter()
                .chain(standby)
                .map(|(number, rule)| (number.get(), rule.key.policy.to_string()))
                .collect(),
        }
    }

    pub(super) fn message(&self, view: &EgressView, mapping: &Mapping) -> api::EgressMapping {
        let address = mapping.pod.ip();
        let (node, pod_name, transport) = match mapping.node {
            PodNode::Here => {
                let pod = self.pods.get(&address).cloned();
                (view.world.node.clone(), pod, "local")
            }
            PodNode::Tunnel(end) => {
                let node = self.nodes.get(&end).cloned().unwrap_or(end.to_string());
                (node, None, "tunnel")
            }
            PodNode::Native => match self.remote.get(&address) {
                Some((node, pod)) => (node.clone(), Some(pod.clone()), "native"),
                None => (String::new(), None, "native"),
            },
        };
        api::EgressMapping {
            protocol: protocol_text(mapping.protocol),
            pod: end_text(mapping.pod),
            egress: end_text(mapping.egress),
            remote: mapping.remote.map(end_text).unwrap_or_default(),
            state: mapping.phase().name().to_owned(),
            idle_ms: u64::try_from(mapping.idle.as_millis()).unwrap_or(u64::MAX),
            rule: mapping.rule,
            policy: self
                .policies
                .get(&mapping.rule)
                .cloned()
                .unwrap_or_default(),
            node,
            pod_name: pod_name.unwrap_or_default(),
            copy_of: self.holders.get(&mapping.rule).cloned().unwrap_or_default(),
            transport: transport.to_owned(),
        }
    }
}

/// An end of a connection; no port where the protocol has none.
pub(super) fn end_text(end: SocketAddr) -> String {
    match end.port() {
        0 => end.ip().to_string(),
        _ => end.to_string(),
    }
}

/// Explains what becomes of packets.
pub(super) fn explained(
    view: &EgressView,
    request: &api::ExplainEgressRequest,
) -> Result<api::ExplainEgressResponse, Status> {
    let destination: IpAddr = request.destination.parse().map_err(|_| {
        Status::invalid_argument(format!(
            "{:?} is no address: write 203.0.113.9",
            request.destination
        ))
    })?;
    let sender = match request.pod.parse() {
        Ok(address) => Sender::Address(address),
        Err(_) => {
            // Of a pod with both families the address counts that can reach the destination.
            let pod = find_pod(view, &request.pod)?;
            let mut addresses = pod.addresses.iter();
            match addresses.find(|address| address.is_ipv4() == destination.is_ipv4()) {
                Some(address) if view.desired.sources.contains_key(address) => {
                    Sender::Address(*address)
                }
                Some(_) | None => Sender::Pod(pod.key.clone()),
            }
        }
    };
    let explanation = explain(&view.world, &view.desired, sender, destination);
    let Some(pod) = &explanation.pod else {
        return Err(Status::not_found(format!(
            "node {} has no pod with address {}: ask the node it runs on",
            view.world.node, request.pod
        )));
    };
    let mut answer = api::ExplainEgressResponse {
        node: view.world.node.clone(),
        pod: pod.to_string(),
        destination: destination.to_string(),
        selected_by: texts(&explanation.selected_by),
        undecided: texts(&explanation.undecided),
        sentences: sentences(view, pod, &explanation),
        ..Default::default()
    };
    fill_verdict(&explanation.verdict, &mut answer);
    Ok(answer)
}

fn fill_verdict(verdict: &Verdict, answer: &mut api::ExplainEgressResponse) {
    let name = match verdict {
        Verdict::NotHere => "not-here",
        Verdict::InCluster { prefix } => {
            answer.prefix = prefix.to_string();
            "in-cluster"
        }
        Verdict::NoPolicy => "no-policy",
        Verdict::NotCovered => "not-covered",
        Verdict::Excluded { policy, prefix } => {
            (answer.policy, answer.prefix) = (policy.to_string(), prefix.to_string());
            "excluded"
        }
        Verdict::Through {
            policy,
            prefix,
            rule,
            end,
            neighbour,
            addresses,
        } => {
            (answer.policy, answer.prefix) = (policy.to_string(), prefix.to_string());
            answer.rule = rule.get();
            answer.egress_ips = texts(addresses);
            answer.dropped = match end.as_ref().map(|end| end.end) {
                None | Some(End::Refused) => true,
                // The gateway is here and has nothing to give.
                Some(End::Local) => addresses.is_empty(),
                Some(End::Remote(_)) => false,
            };
            if let Some(end) = end {
                answer.gateway.clone_from(&end.gateway);
                if let End::Remote(address) = end.end {
                    answer.gateway_ip = address.to_string();
                }
                transport(end.end, *neighbour).clone_into(&mut answer.transport);
            }
            "gateway"
        }
        Verdict::Refused { policy, prefix, .. } => {
            (answer.policy, answer.prefix) = (policy.to_string(), prefix.to_string());
            answer.dropped = true;
            "dropped"
        }
        Verdict::Pending { policy, prefix } => {
            (answer.policy, answer.prefix) = (policy.to_string(), prefix.to_string());
            "pending"
        }
    };
    name.clone_into(&mut answer.verdict);
}

/// How packets get to a gateway.
pub(super) fn transport(end: End, neighbour: Option<IpAddr>) -> &'static str {
    match (end, neighbour) {
        (End::Local, _) => "local",
        (End::Remote(_), Some(_)) => "native",
        (End::Remote(_), None) => "tunnel",
        (End::Refused, _) => "",
    }
}

/// The explanation as an operator reads it: who selects the pod, what becomes of its packets, and
/// what to do if they are dropped.
fn sentences(view: &EgressView, pod: &PodKey, explanation: &Explanation) -> Vec<String> {
    let selected_by = texts(&explanation.selected_by).join(", ");
    let undecided = texts(&explanation.undecided).join(", ");
    let unknown = "its labels or those of its namespace are not known";
    let mut sentences = match (selected_by.as_str(), undecided.as_str()) {
        ("", "") => vec![format!("No policy selects pod {pod}.")],
        ("", some) => vec![format!("Pod {pod} may be selected by {some}: {unknown}.")],
        (some, "") => vec![format!("Pod {pod} is selected by {some}.")],
        (some, more) => vec![
            format!("Pod {pod} is selected by {some}."),
            format!("It may be selected by {more}: {unknown}."),
        ],
    };
    let (verdict, to) = (&explanation.verdict, explanation.destination);
    sentences.push(match verdict {
        Verdict::Through { .. } => format!("What it sends to {to} is taken {verdict}."),
        Verdict::Pending { .. } => format!("What becomes of packets to {to} is {verdict}."),
        Verdict::NotHere
        | Verdict::InCluster { .. }
        | Verdict::NoPolicy
        | Verdict::NotCovered
        | Verdict::Excluded { .. }
        | Verdict::Refused { .. } => format!("What it sends to {to} is {verdict}."),
    });
    let policy = match &explanation.verdict {
        Verdict::Refused { policy, .. } | Verdict::Through { policy, .. } => Some(policy),
        Verdict::NotHere
        | Verdict::InCluster { .. }
        | Verdict::NoPolicy
        | Verdict::NotCovered
        | Verdict::Excluded { .. }
        | Verdict::Pending { .. } => None,
    };
    let findings = view.desired.findings.iter();
    let about =
        findings.filter(|finding| policy.is_some_and(|id| finding.policies().contains(&id)));
    sentences.extend(about.map(|finding| format!("Note: {finding}.")));
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::testing::{self, Fixture, mapping};

    fn explained(pod: &str, destination: &str) -> Result<api::ExplainEgressResponse, Status> {
        let request = api::ExplainEgressRequest {
            pod: pod.into(),
            destination: destination.into(),
        };
        super::explained(&testing::view(), &request)
    }

    #[test]
    fn a_pod_is_found_by_every_name_it_has() {
        for name in ["shop/web-0", "10.1.0.2"] {
            let answer = explained(name, "203.0.113.9").unwrap();
            assert_eq!(answer.pod, "shop/web-0");
            assert_eq!(
                (answer.verdict.as_str(), answer.dropped),
                ("gateway", false)
            );
            assert_eq!((answer.gateway.as_str(), answer.rule > 0), ("node-a", true));
            assert_eq!(answer.egress_ips, ["198.51.100.7"]);
            assert_eq!(
                answer.sentences[0],
                "Pod shop/web-0 is selected by EgressGatewayPolicy/web."
            );
        }
        assert_eq!(explained("api-0", "203.0.113.9").unwrap().pod, "shop/api-0");
        let ambiguous = explained("web-0", "203.0.113.9").unwrap_err();
        assert_eq!(ambiguous.code(), tonic::Code::InvalidArgument);
        assert!(ambiguous.message().contains("ops/web-0, shop/web-0"));
        for unknown in ["shop/none", "10.9.9.9"] {
            let status = explained(unknown, "203.0.113.9").unwrap_err();
            assert_eq!(status.code(), tonic::Code::NotFound, "{unknown}");
        }
        let wrong = explained("shop/web-0", "example.org").unwrap_err();
        assert_eq!(wrong.code(), tonic::Code::InvalidArgument);
    }

    #[test]
    fn what_is_dropped_says_so_and_what_to_do() {
        let lost = explained("api-0", "233.252.0.1").unwrap();
        assert_eq!((lost.verdict.as_str(), lost.dropped), ("dropped", true));
        assert!(lost.sentences.iter().any(|s| s.contains("label a node")));
        let unknown = explained("ops/web-0", "203.0.113.9").unwrap();
        assert!(unknown.dropped);
        assert_eq!(unknown.undecided, ["EgressGatewayPolicy/far"]);
        assert!(unknown.sentences[0].starts_with("Pod ops/web-0 may be selected by"));
        for (destination, verdict) in [
            ("10.1.0.9", "in-cluster"),
            ("192.0.2.1", "excluded"),
            ("203.0.113.9", "gateway"),
        ] {
            let answer = explained("shop/web-0", destination).unwrap();
            assert_eq!((answer.verdict.as_str(), answer.dropped), (verdict, false));
        }
        let beside = explained("api-0", "8.8.8.8").unwrap();
        assert_eq!(beside.verdict, "not-covered");
    }

    fn listed(request: &api::ListEgressMappingsRequest) -> Result<(Vec<String>, u64), Status> {
        let source = Fixture(vec![
            mapping(17, "10.1.0.2:5353", None, None),
            mapping(6, "10.1.0.2:40000", Some("203.0.113.9:443"), None),
            mapping(
                6,
                "10.2.0.9:40000",
                Some("203.0.113.9:80"),
                Some("10.0.0.2"),
            ),
            mapping(1, "10.2.0.9:7", Some("192.0.2.9:7"), Some("10.0.0.77")),
        ]);
        let view = testing::view();
        let found = mappings(&source, &view, request)?;
        let names = Names::new(&view);
        let texts = found.mappings.iter().map(|one| {
            let one = names.message(&view, one);
            format!(
                "{} {} {} {} {} {}",
                one.protocol, one.pod, one.remote, one.state, one.node, one.pod_name
            )
        });
        Ok((texts.collect(), found.matching))
    }

    #[test]
    fn mappings_are_filtered_sorted_named_and_bounded() {
        let all = api::ListEgressMappingsRequest::default();
        let (texts, matching) = listed(&all).unwrap();
        assert_eq!(matching, 4);
        assert_eq!(
            texts,
            [
                "udp 10.1.0.2:5353  active node-a shop/web-0",
                "tcp 10.1.0.2:40000 203.0.113.9:443 established node-a shop/web-0",
                "icmp 10.2.0.9:7 192.0.2.9:7 active 10.0.0.77 ",
                "tcp 10.2.0.9:40000 203.0.113.9:80 established node-b ",
            ]
        );
        let count = |change: fn(&mut api::ListEgressMappingsRequest)| {
            let mut request = all.clone();
            change(&mut request);
            let (texts, matching) = listed(&request).unwrap();
            (texts.len(), matching)
        };
        assert_eq!(count(|r| r.limit = 3), (3, 4));
        assert_eq!(count(|r| r.pod = "shop/web-0".into()), (2, 2));
        assert_eq!(count(|r| r.pod = "10.2.0.9".into()), (2, 2));
        assert_eq!(count(|r| r.remote = "203.0.113.0/24".into()), (2, 2));
        assert_eq!(count(|r| r.remote = "192.0.2.9".into()), (1, 1));
        assert_eq!(count(|r| r.protocol = "TCP".into()), (2, 2));
        assert_eq!(count(|r| r.protocol = "1".into()), (1, 1));
        assert_eq!(count(|r| r.egress_ip = "198.51.100.7".into()), (4, 4));
        assert_eq!(count(|r| r.rule = 1), (0, 0));
    }

    #[test]
    fn filters_that_make_no_sense_are_named() {
        let refused = |change: fn(&mut api::ListEgressMappingsRequest)| {
            let mut request = api::ListEgressMappingsRequest::default();
            change(&mut request);
            listed(&request).unwrap_err()
        };
        let status = refused(|r| r.remote = "there".into());
        assert!(status.message().contains("remote \"there\""), "{status}");
        let status = refused(|r| r.protocol = "carrier-pigeon".into());
        assert!(status.message().contains("tcp"), "{status}");
        let status = refused(|r| r.egress_ip = "10.0.0.0/8".into());
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        let status = refused(|r| r.pod = "other/pod".into());
        assert_eq!(status.code(), tonic::Code::NotFound);
        assert!(status.message().contains("give its address"), "{status}");
    }
}
