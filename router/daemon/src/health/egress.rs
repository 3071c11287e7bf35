// SPDX-License-Identifier: Apache-2.0
//! How egress does: as a gateway, and for pods of this node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use bpf_loader::{DropReason, Gateway};
use egress_core::{Finding, PodKey, PolicyId, Refusal};
use egress_io::devices::TUNNEL_DEVICE;
use egress_io::node::PeerView;
use router_api::v1alpha1::Health;

use super::Report;
use crate::egress::recent::Refusals;
use crate::egress::{EgressSource, EgressView};
use crate::run::Parts;

/// Percent of an address' ports that are used from which on it is told.
const PORTS_PERCENT: u64 = 80;

/// Percent of the table of connections that are used from which on it is told, as for other maps.
const TABLE_PERCENT: u64 = 90;

/// Issues of one code that are told one by one.
const TOLD: usize = 10;

/// Pods named in one issue.
const PODS_NAMED: usize = 3;

/// What there is to judge.
struct Look {
    view: EgressView,
    /// Refused of late.
    refused: Refusals,
    /// Connections of each family the gateway can hold.
    capacity: u64,
    /// Connections of IPv4 and IPv6, where there are so many that one of them may be a problem.
    by_family: Option<[u64; 2]>,
}

/// Something that is wrong.
struct Problem {
    severity: Health,
    code: &'static str,
    object: String,
    message: String,
    next: String,
}

/// Shown where there are policies, or something of them is left.
pub(super) async fn egress(parts: &Parts, report: &mut Report) {
    let Some(source) = &parts.egress else {
        if parts.datapath.is_ok() {
            stopped("it did not start: the log says why".to_owned(), report);
        }
        return;
    };
    let (source, recent) = (Arc::clone(source), Arc::clone(&parts.refused));
    let settings = &parts.effective.settings;
    let (pins, configured) = (settings.pin_root.clone(), settings.egress.max_mappings);
    let looked = tokio::task::spawn_blocking(move || {
        let view = source.view()?;
        // Tables keep the size they were made with.
        let capacity = Gateway::capacity(&pins).unwrap_or(configured).into();
        anyhow::Ok(Look {
            refused: recent.refused(Instant::now(), &view),
            by_family: by_family(&*source, &view, capacity)?,
            capacity,
            view,
        })
    });
    match looked.await {
        Ok(Ok(look)) => fill(&look, report),
        Ok(Err(error)) => stopped(format!("{error:#}"), report),
        Err(error) => stopped(error.to_string(), report),
    }
}

fn stopped(why: String, report: &mut Report) {
    report.issue(
        Health::Error,
        ("egress", "CW0709"),
        String::new(),
        format!("policies are not carried out: {why}; what the kernel has stays as it is"),
        "journalctl -u causewayd".to_owned(),
    );
    report.component("egress", "stopped".to_owned(), "causeway egress list", &[]);
}

/// Connections of each family. All of them are looked at only where their sum is near what one
/// family may have.
fn by_family(
    source: &dyn EgressSource,
    view: &EgressView,
    capacity: u64,
) -> anyhow::Result<Option<[u64; 2]>> {
    let all: u64 = view.rules.values().map(|rule| rule.connections).sum();
    if !is_nearly(all, capacity, TABLE_PERCENT) {
        return Ok(None);
    }
    let mut counts = [0, 0];
    source.each_mapping(&mut |mapping| counts[usize::from(mapping.pod.is_ipv6())] += 1)?;
    Ok(Some(counts))
}

fn is_nearly(used: u64, all: u64, percent: u64) -> bool {
    all > 0 && used * 100 >= all * percent
}

fn fill(look: &Look, report: &mut Report) {
    let view = &look.view;
    let mut problems = ports(look);
    problems.extend(table(look));
    problems.extend(findings(view));
    problems.extend(unlinked(view));
    problems.extend(tunnel(view, report));
    problems.extend(mismatches(view));
    let (world, desired) = (&view.world, &view.desired);
    if world.policies.is_empty() && desired.gateway.is_empty() && problems.is_empty() {
        return;
    }
    let groups = world.policies.iter().flat_map(|policy| &policy.groups);
    let gateways: BTreeSet<&String> = groups.flat_map(|group| &group.nodes).collect();
    let is_healthy = |name: &&&String| world.nodes.get(**name).is_some_and(|node| node.is_healthy);
    let healthy = gateways.iter().filter(is_healthy).count();
    let (policies, rules) = (world.policies.len(), desired.gateway.len());
    let (refused, wrong) = (view.refused_sources().len(), problems.len());
    let mut message = format!(
        "{policies} policies, {healthy} of {} gateways healthy, gateway of {rules} rules",
        gateways.len()
    );
    if refused > 0 {
        message += &format!(", {refused} addresses of pods refused");
    }
    if wrong > 0 {
        message += &format!(", {wrong} problems");
    }
    tell(problems, report);
    report.component(
        "egress",
        message,
        "causeway egress policies",
        &[
            ("policies", policies as u64),
            ("healthy gateways", healthy as u64),
            ("gateways", gateways.len() as u64),
            ("rules", rules as u64),
            ("refused addresses", refused as u64),
            ("problems", wrong as u64),
        ],
    );
}

/// Makes issues of problems: the worst and first ones of each code, and how many more there are.
fn tell(mut problems: Vec<Problem>, report: &mut Report) {
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    let mut by_code: BTreeMap<&str, Vec<Problem>> = BTreeMap::new();
    for problem in problems {
        by_code.entry(problem.code).or_default().push(problem);
    }
    for (code, problems) in by_code {
        let more = problems.len().saturating_sub(TOLD);
        for (problem, number) in problems.into_iter().zip(1..=TOLD) {
            let mut message = problem.message;
            if number == TOLD && more > 0 {
                message += &format!("; and {more} more like this");
            }
            report.issue(
                problem.severity,
                ("egress", code),
                problem.object,
                message,
                problem.next,
            );
        }
    }
}

/// Ports that run out, and those that have.
fn ports(look: &Look) -> Vec<Problem> {
    let view = &look.view;
    let mut problems = Vec::new();
    let mut exhausted = BTreeSet::new();
    for (number, rule) in &view.desired.gateway {
        let key = (Some(*number), DropReason::NatPortsExhausted);
        let Some(packets) = look.refused.get(&key) else {
            continue;
        };
        exhausted.extend(rule.addresses());
        let ports = rule.ports;
        problems.push(Problem {
            severity: Health::Error,
            code: "CW0702",
            object: rule.key.policy.to_string(),
            message: format!(
                "{packets} packets refused in the last minute: no port of {} between {} and {} is \
                 free towards their destinations; give the policy more egressIPs, more \
                 connections.sourcePorts or shorter connections.timeouts",
                list(rule.addresses()),
                ports.first,
                ports.last
            ),
            next: format!("causeway egress nat --rule {number}"),
        });
    }
    let available = view.ports();
    for ((address, protocol), used) in &view.ports_used {
        let protocol = crate::grpc::protocol_name(*protocol);
        let has_ports = matches!(protocol, "tcp" | "udp" | "icmp" | "icmpv6");
        let all = available.get(address).copied().unwrap_or(0);
        if !has_ports || exhausted.contains(address) || !is_nearly(*used, all, PORTS_PERCENT) {
            continue;
        }
        let rules = view.desired.gateway.values();
        let with_it = rules.filter(|rule| rule.addresses().any(|one| one == *address));
        let policies: BTreeSet<&PolicyId> = with_it.map(|rule| &rule.key.policy).collect();
        problems.push(Problem {
            severity: Health::Warning,
            code: "CW0701",
            object: format!("address {address}"),
            message: format!(
                "{used} of {all} {protocol} ports are used; when they are, more connections to one \
                 server are refused: give {} more egressIPs, more connections.sourcePorts or \
                 shorter connections.timeouts",
                list(policies)
            ),
            next: format!("causeway egress nat --egress-ip {address} --protocol {protocol}"),
        });
    }
    problems
}

/// A table of connections that is nearly full, or was full of late.
fn table(look: &Look) -> Vec<Problem> {
    const REMEDY: &str = "raise egress.maxMappings, or let idle connections end sooner by \
                          connections.timeouts of the policies";
    let capacity = look.capacity;
    let mut problems = Vec::new();
    let mut problem = |severity, object: &str, message| {
        problems.push(Problem {
            severity,
            code: "CW0706",
            object: object.to_owned(),
            message,
            next: "causeway egress nat".to_owned(),
        });
    };
    if let Some(packets) = look.refused.get(&(None, DropReason::NatTableFull)) {
        let message = format!(
            "{packets} packets refused in the last minute: {capacity} connections of a family is all \
             the gateway can hold; {REMEDY}"
        );
        problem(Health::Error, "table of connections", message);
        return problems;
    }
    let counts = look.by_family.into_iter().flatten();
    for (family, used) in ["IPv4", "IPv6"].into_iter().zip(counts) {
        if is_nearly(used, capacity, TABLE_PERCENT) {
            let message = format!("{used} of {capacity} {family} connections are there; {REMEDY}");
            problem(Health::Warning, "table of connections", message);
        }
    }
    problems
}

/// What the decision says is wrong.
fn findings(view: &EgressView) -> Vec<Problem> {
    let desired = &view.desired;
    let of_policies = desired.policies.values().flat_map(|state| &state.findings);
    let all: BTreeSet<&Finding> = desired.findings.iter().chain(of_policies).collect();
    // Who has pods that are dropped need not be told twice that there is no gateway.
    let dropped: BTreeSet<&PolicyId> = all
        .iter()
        .filter_map(|finding| match finding {
            Finding::Refused { policy, .. } => Some(policy),
            _ => None,
        })
        .collect();
    let mut undecided: BTreeMap<&PolicyId, BTreeSet<&PodKey>> = BTreeMap::new();
    let mut problems = Vec::new();
    for finding in all {
        let (severity, code, policy) = match finding {
            Finding::Undecided { policy, pod } => {
                undecided.entry(policy).or_default().insert(pod);
                continue;
            }
            // What one policy says and an older one overrules is no fault of anything, nor is a
            // number that is another than it might be.
            Finding::SamePrefix { .. } | Finding::NumberCollision { .. } => continue,
            Finding::NoGateway { policy, .. } if dropped.contains(policy) => continue,
            Finding::NoGateway { policy, .. } => (Health::Warning, "CW0703", Some(policy)),
            Finding::Unanswered { policy, .. } | Finding::NoneAnswered { policy } => {
                (Health::Warning, "CW0710", Some(policy))
            }
            Finding::Unreachable { policy, .. } => (Health::Error, "CW0703", Some(policy)),
            Finding::Refused { policy, why, .. } => match why {
                // Told with the names of the pods.
                Refusal::Undecided => continue,
                Refusal::NoGateway | Refusal::NoHealthyGateway | Refusal::NoGatewayInZone => {
                    (Health::Error, "CW0703", Some(policy))
                }
                Refusal::NoAddress => (Health::Error, "CW0704", Some(policy)),
                Refusal::NoNumber => (Health::Error, "CW0708", Some(policy)),
            },
            Finding::GatewayWithout { policy, .. } | Finding::InterfaceDown { policy, .. } => {
                (Health::Error, "CW0704", Some(policy))
            }
            Finding::AddressTaken { policy, .. } => (Health::Warning, "CW0705", Some(policy)),
            Finding::TooManyAddresses { policy, .. } => (Health::Warning, "CW0708", Some(policy)),
            Finding::AddressOfTwoPods { .. } => (Health::Warning, "CW0708", None),
        };
        problems.push(Problem {
            severity,
            code,
            object: policy.map(PolicyId::to_string).unwrap_or_default(),
            message: without_subject(finding, policy),
            next: command(policy),
        });
    }
    problems.extend(undecided.into_iter().map(|(policy, pods)| Problem {
        severity: Health::Warning,
        code: "CW0707",
        object: policy.to_string(),
        message: format!(
            "whether it selects {} is not known, since labels are not; what they send to its \
             destinations is dropped: give their Pod and Namespace objects",
            pod_names(&pods)
        ),
        next: command(Some(policy)),
    }));
    problems
}

/// Gateways that live and that this node should be linked with, and is not.
fn unlinked(view: &EgressView) -> Vec<Problem> {
    let peers = view.peers.iter();
    let apart = peers.filter(|peer| peer.is_wanted && !peer.is_linked && !peer.is_dead);
    let problem = |peer: &PeerView| {
        let why = peer.problem.as_ref()?;
        Some(Problem {
            severity: Health::Warning,
            code: "CW0711",
            object: format!("gateway {}", peer.name),
            message: format!(
                "no link: {why}; until there is one nothing is copied from or to it, and it hands \
                 nothing over"
            ),
            next: "causeway egress gateways -o wide".to_owned(),
        })
    };
    apart.filter_map(problem).collect()
}

/// Nodes whose tunnel speaks something else than this node's.
fn mismatches(view: &EgressView) -> Vec<Problem> {
    let peers = view.peers.iter().filter(|peer| !peer.is_dead);
    let problem = |peer: &PeerView| {
        let (theirs, own) = peer.mismatch?;
        Some(Problem {
            severity: Health::Error,
            code: "CW0713",
            object: format!("node {}", peer.name),
            message: format!(
                "its tunnel speaks {theirs}, this node's {own}, and what they send to each other is \
                 lost: set egress.tunnelProtocol and egress.tunnelPort the same on every node"
            ),
            next: "causeway egress gateways -o wide".to_owned(),
        })
    };
    peers.filter_map(problem).collect()
}

/// A tunnel that is not as it should be. Applying resources may have told of it before, without a code.
fn tunnel(view: &EgressView, report: &mut Report) -> Option<Problem> {
    let problem = view.tunnel_problem.as_ref()?;
    let is_same = |message: &str| message.ends_with(problem.as_str());
    report
        .issues
        .retain(|issue| !issue.code.is_empty() || !is_same(&issue.message));
    Some(Problem {
        severity: Health::Error,
        code: "CW0712",
        object: format!("device {TUNNEL_DEVICE}"),
        message: format!(
            "{problem}; until then nothing goes to gateways on other nodes, or comes from their pods"
        ),
        next: "causeway config show --origin".to_owned(),
    })
}

fn command(policy: Option<&PolicyId>) -> String {
    match policy {
        Some(policy) => format!("causeway egress policies {policy}"),
        None => "causeway egress policies".to_owned(),
    }
}

/// A finding without the policy it begins with: an issue names that already.
fn without_subject(finding: &Finding, policy: Option<&PolicyId>) -> String {
    let text = finding.to_string();
    let rest = policy.and_then(|policy| text.strip_prefix(&policy.to_string()));
    let rest = rest.map(|rest| rest.trim_start_matches([':', ' ']).to_owned());
    rest.unwrap_or(text)
}

fn pod_names(pods: &BTreeSet<&PodKey>) -> String {
    let named = list(pods.iter().take(PODS_NAMED));
    match pods.len().saturating_sub(PODS_NAMED) {
        0 => format!("pod {named}"),
        more => format!("pods {named} and {more} more"),
    }
}

fn list(things: impl IntoIterator<Item = impl Display>) -> String {
    let texts: Vec<String> = things.into_iter().map(|thing| thing.to_string()).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use egress_io::node::Tunnel;
    use router_api::v1alpha1 as api;

    use super::*;
    use crate::egress::testing::{self, Fixture, ip, mapping};

    /// The node of the tests, whose gateway has room.
    fn look() -> Look {
        Look {
            view: testing::view(),
            refused: Refusals::new(),
            capacity: 262_144,
            by_family: None,
        }
    }

    fn codes(report: &Report) -> Vec<String> {
        let issues = report.issues.iter();
        issues.map(|issue| issue.code.clone()).collect()
    }

    fn report(look: &Look) -> Report {
        let mut report = Report::default();
        fill(look, &mut report);
        report
    }

    /// The only issue with this code.
    fn issue<'a>(report: &'a Report, code: &str) -> &'a api::Issue {
        let mut with_code = report.issues.iter().filter(|issue| issue.code == code);
        let found = with_code.next();
        assert_eq!(with_code.next(), None, "one {code}");
        found.unwrap_or_else(|| panic!("no {code} in {:#?}", report.issues))
    }

    #[test]
    fn pods_that_are_dropped_are_told_with_their_policy_and_what_to_do() {
        let report = report(&look());
        let [component] = report.components.as_slice() else {
            panic!("{:?}", report.components);
        };
        assert_eq!(
            component.message,
            "4 policies, 2 of 2 gateways healthy, gateway of 1 rules, 2 addresses of pods refused, \
             2 problems"
        );
        assert_eq!(component.health(), Health::Error);
        let lost = issue(&report, "CW0703");
        assert_eq!(lost.severity(), Health::Error);
        assert_eq!(lost.object, "EgressGatewayPolicy/lost");
        assert!(lost.message.starts_with("what pods of this node send"));
        assert!(lost.message.contains("label a node"), "{}", lost.message);
        assert_eq!(
            lost.next_command,
            "causeway egress policies EgressGatewayPolicy/lost"
        );
        let unknown = issue(&report, "CW0707");
        assert_eq!(unknown.severity(), Health::Warning);
        assert_eq!(unknown.object, "EgressGatewayPolicy/far");
        assert!(unknown.message.contains("selects pod ops/web-0 is not"));
        assert_eq!(report.issues.len(), 2, "{:#?}", report.issues);
    }

    #[test]
    fn ports_are_told_from_four_fifths_on_and_louder_when_connections_are_refused() {
        let mut look = look();
        let used = |look: &mut Look, count| {
            look.view.ports_used = [
                ((ip("198.51.100.7"), 6), count),
                ((ip("198.51.100.7"), 17), 5),
                ((ip("198.51.100.99"), 6), 64_512),
            ]
            .into();
        };
        used(&mut look, 51_609);
        assert!(!codes(&report(&look)).contains(&"CW0701".to_owned()));
        used(&mut look, 51_610);
        let nearly = report(&look);
        let nearly = issue(&nearly, "CW0701");
        assert_eq!(nearly.object, "address 198.51.100.7");
        assert!(nearly.message.starts_with("51610 of 64512 tcp ports"));
        assert!(nearly.message.contains("EgressGatewayPolicy/web"));
        assert_eq!(
            nearly.next_command,
            "causeway egress nat --egress-ip 198.51.100.7 --protocol tcp"
        );
        let rule = *look.view.desired.gateway.keys().next().unwrap();
        let key = (Some(rule), DropReason::NatPortsExhausted);
        look.refused.insert(key, 7);
        let out = report(&look);
        assert!(!codes(&out).contains(&"CW0701".to_owned()), "told once");
        let out = issue(&out, "CW0702");
        assert_eq!(out.severity(), Health::Error);
        assert_eq!(out.object, "EgressGatewayPolicy/web");
        assert!(out.message.starts_with("7 packets refused"));
        assert!(out.message.contains("198.51.100.7 between 1024 and 65535"));
    }

    #[test]
    fn a_table_is_told_by_family_and_louder_when_it_is_full() {
        let source = Fixture(vec![
            mapping(6, "10.1.0.2:1", None, None),
            mapping(6, "10.1.0.2:2", None, None),
            mapping(6, "[fd00::2]:1", None, None),
        ]);
        let mut look = look();
        assert_eq!(by_family(&source, &look.view, 4).unwrap(), None);
        look.by_family = by_family(&source, &look.view, 2).unwrap();
        assert_eq!(look.by_family, Some([2, 1]));
        look.capacity = 2;
        let nearly = report(&look);
        let nearly = issue(&nearly, "CW0706");
        assert_eq!(nearly.severity(), Health::Warning);
        assert!(nearly.message.starts_with("2 of 2 IPv4 connections"));
        look.refused.insert((None, DropReason::NatTableFull), 3);
        let full = report(&look);
        let full = issue(&full, "CW0706");
        assert_eq!(full.severity(), Health::Error);
        assert!(full.message.contains("egress.maxMappings"));
    }

    #[test]
    fn addresses_that_are_missing_or_taken_are_told() {
        let mut look = look();
        let policy = testing::id("web");
        let mut desired = (*look.view.desired).clone();
        desired.findings = [
            Finding::GatewayWithout {
                policy: policy.clone(),
                group: 0,
                node: "node-a".into(),
                family: egress_core::Family::V4,
                missing: egress_core::Missing::Address(ip("198.51.100.50")),
            },
            Finding::AddressTaken {
                address: ip("198.51.100.7"),
                owner: testing::id("far"),
                policy,
            },
        ]
        .into();
        desired.policies.clear();
        look.view.desired = Arc::new(desired);
        let report = report(&look);
        assert_eq!(
            issue(&report, "CW0704").message,
            "group 0: gateway node-a drops IPv4: 198.51.100.50 is on none of its interfaces; add \
             it, or correct the policy"
        );
        let taken = issue(&report, "CW0705");
        assert_eq!(taken.severity(), Health::Warning);
        assert!(taken.message.starts_with("does not get 198.51.100.7"));
    }

    #[test]
    fn a_tunnel_that_is_not_there_is_told_once() {
        let mut look = look();
        let why = "egress: cannot create tunnel cw-egress: this kernel has no driver for Geneve";
        look.view.tunnel_problem = Some(why.to_owned());
        let mut report = Report::default();
        for failure in [why, "fabric devices: another"] {
            report.issue(
                Health::Error,
                ("resources", ""),
                String::new(),
                failure.to_owned(),
                String::new(),
            );
        }
        fill(&look, &mut report);
        let told = issue(&report, "CW0712");
        assert_eq!(
            (told.severity(), told.object.as_str()),
            (Health::Error, "device cw-egress")
        );
        assert!(told.message.starts_with(why), "{}", told.message);
        let others = report.issues.iter().filter(|issue| issue.code.is_empty());
        let others: Vec<&str> = others.map(|issue| issue.message.as_str()).collect();
        assert_eq!(others, ["fabric devices: another"]);
    }

    #[test]
    fn a_node_whose_tunnel_speaks_otherwise_is_told() {
        let mut look = look();
        assert!(!codes(&report(&look)).contains(&"CW0713".to_owned()));
        let [theirs, own] = [(Tunnel::GENEVE, 6081), (Tunnel::VXLAN, 4789)]
            .map(|(protocol, port)| Tunnel { protocol, port });
        look.view.peers[0].mismatch = Some((theirs, own));
        let told = report(&look);
        let told = issue(&told, "CW0713");
        assert_eq!(told.object, "node node-b");
        let begin = "its tunnel speaks Geneve on UDP port 6081, this node's VXLAN on UDP port 4789";
        assert!(told.message.starts_with(begin), "{}", told.message);
        look.view.peers[0].is_dead = true;
        assert!(!codes(&report(&look)).contains(&"CW0713".to_owned()));
    }

    #[test]
    fn gateways_that_should_be_linked_and_are_not_are_told() {
        let mut look = look();
        assert!(!codes(&report(&look)).contains(&"CW0711".to_owned()));
        let peer = &mut look.view.peers[0];
        peer.is_linked = false;
        peer.problem = Some("other end knows none of the keys".to_owned());
        let apart = report(&look);
        let apart = issue(&apart, "CW0711");
        assert_eq!(apart.severity(), Health::Warning);
        assert_eq!(apart.object, "gateway node-b");
        assert!(
            apart
                .message
                .starts_with("no link: other end knows none of the keys;"),
            "{}",
            apart.message
        );
        // Who is dead cannot be linked, and one that need not be is no problem.
        for (is_dead, is_wanted) in [(true, true), (false, false)] {
            let mut look = self::look();
            let peer = &mut look.view.peers[0];
            (peer.is_linked, peer.is_dead, peer.is_wanted) = (false, is_dead, is_wanted);
            peer.problem = Some("timed out".to_owned());
            assert!(!codes(&report(&look)).contains(&"CW0711".to_owned()));
        }
    }

    #[test]
    fn probes_without_an_answer_are_told_by_policy() {
        let mut look = look();
        let mut world = (*look.view.world).clone();
        let policy = world
            .policies
            .iter_mut()
            .find(|p| p.id == testing::id("web"));
        let policy = policy.expect("the policy");
        let gateways = policy.groups.iter().flat_map(|group| &group.nodes);
        policy.unanswered = gateways.cloned().collect();
        let previous = egress_core::Previous::default();
        let desired = egress_core::decide(&world, &look.view.claims, &previous);
        (look.view.world, look.view.desired) = (Arc::new(world), Arc::new(desired));
        let report = report(&look);
        let none = issue(&report, "CW0710");
        assert_eq!(none.severity(), Health::Warning);
        assert_eq!(none.object, "EgressGatewayPolicy/web");
        assert!(
            none.message.starts_with("no gateway is known"),
            "{}",
            none.message
        );
    }

    #[test]
    fn of_many_alike_the_first_are_told_and_the_others_counted() {
        let problems = (0..25).map(|number| Problem {
            severity: Health::Warning,
            code: "CW0703",
            object: number.to_string(),
            message: "wrong".to_owned(),
            next: String::new(),
        });
        let mut report = Report::default();
        tell(problems.collect(), &mut report);
        assert_eq!(report.issues.len(), TOLD);
        let last = &report.issues[TOLD - 1].message;
        assert_eq!(last, "wrong; and 15 more like this");
    }

    #[test]
    fn a_node_without_policies_says_nothing_of_egress() {
        let mut look = look();
        look.view = EgressView::default();
        let report = report(&look);
        assert!(report.components.is_empty() && report.issues.is_empty());
    }
}
