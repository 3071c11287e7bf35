// SPDX-License-Identifier: Apache-2.0
//! Egress policies, ways of pods and rules of this gateway, as messages.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use egress_core::{
    End, GatewayRule, Life, Policy, PolicyId, PolicyState, RuleNumber, Selection, Way,
    addresses_of, states_of,
};
use ipnet::IpNet;
use router_api::v1alpha1 as api;

use super::egress::transport;
use crate::egress::{EgressView, RuleReport};
use egress_io::node::{Heard, PeerView};

/// Texts of things, in their order.
pub(super) fn texts<T: ToString>(things: impl IntoIterator<Item = T>) -> Vec<String> {
    things.into_iter().map(|thing| thing.to_string()).collect()
}

/// The policies of a name, or all.
pub(super) fn policies(view: &EgressView, wanted: &str) -> api::ListEgressPoliciesResponse {
    let mut states = states_of(&view.world, &view.claims, &view.desired);
    let is_wanted = |policy: &&Policy| {
        wanted.is_empty() || policy.id.name == wanted || policy.id.to_string() == wanted
    };
    let policies = view.world.policies.iter().filter(is_wanted);
    let policies = policies.map(|policy| {
        let state = states.remove(&policy.id).unwrap_or_default();
        self::policy(view, policy, &state)
    });
    let unowned = view.desired.findings.iter();
    api::ListEgressPoliciesResponse {
        node: view.world.node.clone(),
        policies: policies.collect(),
        findings: texts(unowned.filter(|finding| finding.policies().is_empty())),
    }
}

fn policy(view: &EgressView, policy: &Policy, state: &PolicyState) -> api::EgressPolicy {
    // Some are about how it stands, some about what it does to pods of this node.
    let findings: BTreeSet<_> = view
        .desired
        .findings
        .iter()
        .filter(|finding| finding.policies().contains(&&policy.id))
        .chain(&state.findings)
        .collect();
    let (kind, name) = kind_and_name(&policy.id);
    let nodes: BTreeSet<&String> = policy.groups.iter().flat_map(|g| &g.nodes).collect();
    api::EgressPolicy {
        kind,
        name,
        mode: match policy.selection {
            Selection::FirstByName => "first-by-name",
            Selection::ByPodUid => "by-pod-uid",
            Selection::ActiveStandby => "active-standby",
            Selection::ActiveActive => "active-active",
        }
        .to_owned(),
        destinations: texts(&policy.destinations),
        excluded: texts(&policy.exclusions),
        pods: pods_of(view, |pod| &pod.policies, &policy.id),
        undecided: pods_of(view, |pod| &pod.undecided, &policy.id),
        active_gateways: texts(&state.active_gateways),
        healthy_gateways: texts(&state.healthy_gateways),
        gateways: texts(nodes),
        egress_ips: texts(&state.addresses),
        findings: texts(findings),
    }
}

/// The pods of this node that a policy selects, or may.
fn pods_of(
    view: &EgressView,
    of: fn(&egress_core::Pod) -> &BTreeSet<PolicyId>,
    policy: &PolicyId,
) -> Vec<String> {
    let pods = view.world.pods.iter();
    let keys: BTreeSet<_> = pods
        .filter(|pod| of(pod).contains(policy))
        .map(|pod| &pod.key)
        .collect();
    texts(keys)
}

fn kind_and_name(id: &PolicyId) -> (String, String) {
    let text = id.to_string();
    let (kind, name) = text.split_once('/').unwrap_or(("", &text));
    (kind.to_owned(), name.to_owned())
}

/// What this node does.
pub(super) fn rules(view: &EgressView) -> api::ListEgressRulesResponse {
    let list = |rules: &BTreeMap<RuleNumber, GatewayRule>| {
        let rules = rules.iter();
        rules
            .map(|(number, rule)| gateway_rule(view, *number, rule))
            .collect()
    };
    api::ListEgressRulesResponse {
        node: view.world.node.clone(),
        paths: paths(view),
        gateway: list(&view.desired.gateway),
        standby: list(&view.desired.standby),
    }
}

/// The other gateways.
pub(super) fn gateways(view: &EgressView) -> api::ListEgressGatewaysResponse {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let gateway = |peer: &PeerView| api::EgressGatewayPeer {
        name: peer.name.clone(),
        linked: peer.is_linked,
        problem: match (&peer.problem, peer.mismatch) {
            (None, Some((theirs, own))) => format!("its tunnel speaks {theirs}, this one {own}"),
            (problem, _) => problem.clone().unwrap_or_default(),
        },
        bfd: match peer.bfd {
            Some(Heard::Yes) => "up".to_owned(),
            Some(Heard::No) => "down".to_owned(),
            Some(Heard::Unknown) => "unknown".to_owned(),
            None => String::new(),
        },
        dead: peer.is_dead,
        copied_from: count(peer.standby_for.0),
        copied_from_complete: count(peer.standby_for.1),
        copied_to: count(peer.stood_by.0),
        copied_to_complete: count(peer.stood_by.1),
    };
    api::ListEgressGatewaysResponse {
        node: view.world.node.clone(),
        gateways: view.peers.iter().map(gateway).collect(),
    }
}

fn paths(view: &EgressView) -> Vec<api::EgressPath> {
    let mut known: BTreeMap<RuleNumber, BTreeSet<IpAddr>> = BTreeMap::new();
    let mut paths = Vec::new();
    for (address, source) in &view.desired.sources {
        let ways = view.desired.sets.get(&source.set);
        for (destination, way) in ways.into_iter().flatten() {
            let mut path = api::EgressPath {
                namespace: source.pod.namespace.clone(),
                pod: source.pod.name.clone(),
                source_ip: address.to_string(),
                destination: destination.to_string(),
                ..Default::default()
            };
            match way {
                Way::Through(rule) => {
                    let addresses = known
                        .entry(*rule)
                        .or_insert_with(|| addresses_of(&view.world, &view.desired, *rule));
                    let is_of_family =
                        |ip: &&IpAddr| ip.is_ipv4() == matches!(destination, IpNet::V4(_));
                    path.egress_ips = texts(addresses.iter().filter(is_of_family));
                    let neighbour = view.desired.neighbour(source, *rule, destination.addr());
                    through(view, *rule, neighbour, &mut path);
                }
                Way::Excluded => {
                    "excluded".clone_into(&mut path.action);
                    path.policy = author(view, &source.pod, *destination);
                }
                Way::Refused(why) => {
                    "dropped".clone_into(&mut path.action);
                    path.reason = why.to_string();
                    path.policy = author(view, &source.pod, *destination);
                }
            }
            paths.push(path);
        }
    }
    paths
}

fn through(
    view: &EgressView,
    rule: RuleNumber,
    neighbour: Option<IpAddr>,
    path: &mut api::EgressPath,
) {
    path.rule = rule.get();
    "gateway".clone_into(&mut path.action);
    let Some(end) = view.desired.ends.get(&rule) else {
        "dropped".clone_into(&mut path.action);
        "the rule has no end".clone_into(&mut path.reason);
        return;
    };
    path.policy = end.key.policy.to_string();
    path.gateway.clone_from(&end.gateway);
    path.draining = is_draining(end.life);
    transport(end.end, neighbour).clone_into(&mut path.transport);
    match end.end {
        End::Remote(address) => path.gateway_ip = address.to_string(),
        End::Local => path.local = true,
        End::Refused => {
            "dropped".clone_into(&mut path.action);
            "the gateway has no address this node can send to".clone_into(&mut path.reason);
        }
    }
}

/// The policy that names a prefix of a pod: the first one in order of precedence.
fn author(view: &EgressView, pod: &egress_core::PodKey, prefix: IpNet) -> String {
    let Some(pod) = view.world.pods.iter().find(|one| one.key == *pod) else {
        return String::new();
    };
    let concerns = |id: &PolicyId| pod.policies.contains(id) || pod.undecided.contains(id);
    let names = |policy: &&Policy| {
        concerns(&policy.id)
            && (policy.destinations.contains(&prefix) || policy.exclusions.contains(&prefix))
    };
    let found = view.world.policies.iter().find(names);
    found
        .map(|policy| policy.id.to_string())
        .unwrap_or_default()
}

fn is_draining(life: Life) -> bool {
    matches!(life, Life::Draining { .. })
}

pub(super) fn gateway_rule(
    view: &EgressView,
    number: RuleNumber,
    rule: &GatewayRule,
) -> api::EgressGatewayRule {
    let mut interfaces = view.world.interfaces.iter();
    let output = interfaces.find(|(_, device)| Some(device.index) == rule.output);
    let seat = view.desired.seats.get(&number);
    api::EgressGatewayRule {
        rule: number.get(),
        policy: rule.key.policy.to_string(),
        group: rule.key.group,
        egress_ips: texts(rule.addresses()),
        held: rule.is_held,
        interface: output.map(|(name, _)| name.clone()).unwrap_or_default(),
        first_port: rule.ports.first.into(),
        last_port: rule.ports.last.into(),
        draining: is_draining(rule.life),
        term: seat.map_or(0, |seat| seat.term),
        standbys: seat.map(|seat| seat.standbys.clone()).unwrap_or_default(),
        traffic: view.rules.get(&number).map(traffic),
        holder: seat
            .and_then(|seat| seat.holder.clone())
            .unwrap_or_default(),
        ready: view.ready.contains(&number),
    }
}

fn traffic(report: &RuleReport) -> api::EgressTraffic {
    let traffic = report.traffic;
    let refusals = report.refusals.iter().map(|count| api::EgressRefusal {
        reason: count.reason.name().to_owned(),
        description: count.reason.description().to_owned(),
        packets: count.packets,
        bytes: count.bytes,
    });
    api::EgressTraffic {
        connections: report.connections,
        opened: traffic.opened,
        out_packets: traffic.out_packets,
        out_bytes: traffic.out_bytes,
        back_packets: traffic.back_packets,
        back_bytes: traffic.back_bytes,
        refusals: refusals.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::testing;

    #[test]
    fn every_policy_is_listed_with_what_it_does_here() {
        let answer = policies(&testing::view(), "");
        let names: Vec<_> = answer.policies.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["web", "far", "lost", "idle"]);
        let web = &answer.policies[0];
        assert_eq!(web.kind, "EgressGatewayPolicy");
        assert_eq!(web.mode, "active-standby");
        assert_eq!(web.pods, ["shop/web-0"]);
        assert_eq!(web.active_gateways, ["node-a"]);
        assert_eq!(web.healthy_gateways, ["node-a", "node-b"]);
        assert_eq!(web.egress_ips, ["198.51.100.7"]);
        assert!(web.findings.is_empty(), "{:?}", web.findings);
        let far = &answer.policies[1];
        assert_eq!(far.undecided, ["ops/web-0"]);
        let lost = &answer.policies[2];
        assert!(lost.active_gateways.is_empty());
        assert!(lost.findings.iter().any(|f| f.contains("no node matches")));
        // It concerns no pod of this node, and is told of all the same.
        let idle = &answer.policies[3];
        assert_eq!(idle.active_gateways, ["node-b"]);
        assert_eq!(policies(&testing::view(), "far").policies.len(), 1);
        assert_eq!(
            policies(&testing::view(), "EgressGatewayPolicy/far")
                .policies
                .len(),
            1
        );
        assert!(policies(&testing::view(), "none").policies.is_empty());
    }

    #[test]
    fn ways_of_pods_name_gateway_address_and_policy() {
        let answer = rules(&testing::view());
        let find = |pod: &str, destination: &str| {
            let mut paths = answer.paths.iter();
            paths
                .find(|p| {
                    format!("{}/{}", p.namespace, p.pod) == pod && p.destination == destination
                })
                .unwrap_or_else(|| panic!("no way of {pod} to {destination}"))
        };
        let web = find("shop/web-0", "0.0.0.0/0");
        assert_eq!(
            (web.action.as_str(), web.gateway.as_str(), web.local),
            ("gateway", "node-a", true)
        );
        assert_eq!(web.egress_ips, ["198.51.100.7"]);
        assert_eq!(web.policy, "EgressGatewayPolicy/web");
        let excluded = find("shop/web-0", "192.0.2.0/24");
        assert_eq!(excluded.action, "excluded");
        assert_eq!(excluded.policy, "EgressGatewayPolicy/web");
        let far = find("shop/api-0", "203.0.113.0/24");
        assert_eq!(far.gateway_ip, "10.0.0.2");
        assert_eq!(far.egress_ips, ["198.51.100.8"]);
        let lost = find("shop/api-0", "233.252.0.0/24");
        assert_eq!(lost.action, "dropped");
        assert_eq!(lost.policy, "EgressGatewayPolicy/lost");
        assert!(lost.reason.contains("no node"), "{}", lost.reason);
        let unknown = find("ops/web-0", "203.0.113.0/24");
        assert_eq!(unknown.action, "dropped");
        assert!(unknown.reason.contains("labels"), "{}", unknown.reason);
    }

    #[test]
    fn rules_of_the_gateway_have_seat_and_traffic() {
        let answer = rules(&testing::view());
        let [rule] = answer.gateway.as_slice() else {
            panic!("{:?}", answer.gateway);
        };
        assert_eq!(rule.policy, "EgressGatewayPolicy/web");
        assert_eq!((rule.first_port, rule.last_port), (1024, 65535));
        assert!(rule.held && !rule.draining);
        assert_eq!(
            (rule.term, rule.standbys.as_slice()),
            (1, &["node-b".to_owned()][..])
        );
        let traffic = rule.traffic.as_ref().unwrap();
        assert_eq!((traffic.connections, traffic.opened), (3, 40));
        assert_eq!(traffic.refusals[0].reason, "nat-ports-exhausted");
        assert_eq!(rule.holder, "node-a");
        // The data plane does not have it yet: nothing is said, rather than zeros.
        let mut view = testing::view();
        view.rules.clear();
        assert_eq!(rules(&view).gateway[0].traffic, None);
    }
}
