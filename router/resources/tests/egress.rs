// SPDX-License-Identifier: Apache-2.0
//! The egress policies, pods and namespaces: every rule both ways. The manifests beside this file
//! are valid as they stand, and each change to one of them gives the finding that is written here.

use std::path::Path;
use std::time::SystemTime;

use router_resources::kinds::{
    EgressMode, EgressPolicySpec, EgressProbe, PoolAssignment, ProbeProtocol, ZonePreference,
};
use router_resources::parse::{ParsedFile, parse_file};
use router_resources::{Body, FileContent, FileEvent, Kind, Severity, Store, generate_crds};

const CILIUM: &str = include_str!("manifests/egress.yaml");
const OURS: &str = include_str!("manifests/causeway-egress.yaml");
const PODS: &str = include_str!("manifests/pods.yaml");

fn parse(text: &str) -> ParsedFile {
    parse_file(Path::new("f.yaml"), text.as_bytes())
}

fn errors(text: &str) -> Vec<String> {
    let errors = parse(text)
        .diagnostics
        .into_iter()
        .filter(|d| d.severity == Severity::Error);
    errors.map(|d| d.to_string()).collect()
}

/// Applies a change that must hit exactly one place.
fn changed(base: &str, from: &str, to: &str) -> String {
    let hits = base.matches(from).count();
    assert_eq!(hits, 1, "'{from}' is there {hits} times");
    base.replace(from, to)
}

fn ours(spec: &str) -> EgressPolicySpec {
    let text = format!(
        "apiVersion: causeway.io/v1alpha1\nkind: EgressGatewayPolicy\nmetadata: {{name: a}}\n{spec}"
    );
    assert_eq!(errors(&text), [""; 0]);
    match parse(&text).objects.remove(0).object.body {
        Body::EgressPolicy(spec) => *spec,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_manifests_are_valid_as_they_stand() {
    for (text, kinds) in [
        (CILIUM, &[Kind::CiliumEgressPolicy][..]),
        (OURS, &[Kind::EgressPolicy]),
        (PODS, &[Kind::Namespace, Kind::Pod]),
    ] {
        let parsed = parse(text);
        assert_eq!(parsed.diagnostics, []);
        let found: Vec<Kind> = parsed.objects.iter().map(|o| o.object.kind()).collect();
        assert_eq!(found, kinds);
    }
}

#[test]
fn what_is_written_is_read() {
    let objects = parse(&format!("{CILIUM}---\n{PODS}")).objects;
    let Body::CiliumEgressPolicy(policy) = &objects[0].object.body else {
        panic!("{objects:?}")
    };
    assert_eq!(policy.selectors.len(), 3);
    assert_eq!(
        policy.egress_gateway.address(),
        "192.168.60.100".parse().ok()
    );
    assert_eq!(policy.egress_gateways[0].device(), Some("eth1"));
    assert_eq!(policy.egress_gateways[1].address(), None);
    let Body::Pod(pod) = &objects[2].object.body else {
        panic!("{objects:?}")
    };
    let metadata = &objects[2].object.metadata;
    assert_eq!(
        metadata.uid.as_deref(),
        Some("6d0f8a52-0000-4000-8000-000000000002")
    );
    assert_eq!(pod.spec.node_name.as_deref(), Some("node-1"));
    assert!(!pod.spec.host_network);
    let addresses: Vec<String> = pod.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.244.1.7", "fd00:244:1::7"]);
    assert_eq!(objects[2].object.key().to_string(), "Pod/shop/web-0");
    let single = changed(
        PODS,
        "  podIPs:\n    - ip: 10.244.1.7\n    - ip: \"fd00:244:1::7\"\n",
        "",
    );
    let Body::Pod(pod) = &parse(&single).objects[1].object.body else {
        panic!("{single}")
    };
    assert_eq!(
        pod.addresses(),
        ["10.244.1.7".parse::<std::net::IpAddr>().unwrap()]
    );
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let spec =
        ours("spec: {selectors: [], destinationCIDRs: [], egressGateway: {nodeSelector: {}}}");
    assert_eq!(spec.mode, EgressMode::ActiveStandby);
    assert_eq!(spec.zone_preference, ZonePreference::None);
    assert_eq!(spec.health, None);
    assert!(spec.announce.arp);
    assert_eq!(spec.announce.bgp, None);
    assert!(spec.connections.survive);
    assert_eq!(spec.connections.drain_seconds, None);
    let ports = spec.connections.source_ports;
    assert_eq!((ports.first, ports.last), (1024, 65535));
    let t = spec.connections.timeouts;
    assert_eq!(
        [
            t.tcp_opening_seconds,
            t.tcp_established_seconds,
            t.tcp_closing_seconds,
            t.udp_unanswered_seconds,
            t.udp_seconds,
            t.icmp_seconds,
            t.other_seconds,
        ],
        [240, 7440, 240, 60, 300, 60, 600]
    );
    assert_eq!(spec.gateways().len(), 1);
    let spec = ours(
        "spec:\n  selectors: []\n  destinationCIDRs: []\n  egressGateway:\n    nodeSelector: {}\n    \
         addressPool: {cidrs: [192.0.2.0/24]}\n  health: {probe: {target: 192.0.2.1, port: 1}}\n  \
         connections: {sourcePorts: {first: 5}, timeouts: {icmpSeconds: 1}}\n  announce: {}\n",
    );
    let pool = spec.gateways()[0].address_pool.as_ref().unwrap();
    assert_eq!((pool.assign, pool.size()), (PoolAssignment::Policy, 256));
    assert_eq!(
        spec.health.unwrap().probe.unwrap(),
        EgressProbe {
            target: "192.0.2.1".into(),
            port: Some(1),
            protocol: ProbeProtocol::Tcp,
            interval_seconds: 5,
            timeout_seconds: 2,
            failure_threshold: 3,
        }
    );
    assert_eq!(spec.connections.source_ports.last, 65535);
    assert_eq!(spec.connections.timeouts.tcp_established_seconds, 7440);
    assert!(spec.announce.arp);
}

#[test]
fn values_at_the_ends_of_ranges_are_accepted() {
    for (base, from, to) in [
        (CILIUM, "192.168.60.13/24", "0.0.0.0/0"),
        (CILIUM, "192.168.60.13/24", "192.168.60.13/32"),
        (CILIUM, "2001:db8:60::/48", "2001:db8::1/128"),
        (CILIUM, "egressIP: 192.168.60.100", "egressIP: \"fd00::1\""),
        (CILIUM, "egressIP: 192.168.60.100", "interface: eth0"),
        (CILIUM, "    egressIP: 192.168.60.100\n", ""),
        (OURS, "203.0.113.64/27", "203.0.112.0/23"),
        (OURS, "port: 443", "port: 1"),
        (OURS, "port: 443", "port: 65535"),
        (OURS, "port: 443", "protocol: ICMP"),
        (OURS, "intervalSeconds: 10", "intervalSeconds: 3600"),
        (OURS, "intervalSeconds: 10", "intervalSeconds: 3"),
        (OURS, "failureThreshold: 5", "failureThreshold: 100"),
        (OURS, "standbyMED: 20", "standbyMED: 4294967295"),
        (OURS, "med: 10", "med: 0"),
        (
            OURS,
            "standbyMED: 20",
            "standbyCommunities: { standard: [\"65000:8\"] }",
        ),
        (OURS, "drainSeconds: 600", "drainSeconds: 604800"),
        (OURS, "port: 61000", "port: 60001"),
        (OURS, "- port: 65000", "- port: 65535"),
        (OURS, "first: 2000", "first: 60000"),
        (OURS, "first: 2000", "first: 1"),
        (OURS, "zonePreference: LocalFirst", "zonePreference: None"),
        (
            OURS,
            "zonePreference: LocalFirst",
            "zonePreference: LocalPriority",
        ),
        (OURS, "assign: Namespace", "assign: Pod"),
    ] {
        assert_eq!(errors(&changed(base, from, to)), [""; 0], "{to}");
    }
}

#[test]
fn each_broken_rule_of_upstreams_kind_gives_its_finding() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "    egressIP: 192.168.60.100\n",
            "    egressIP: 192.168.60.100\n    interface: eth0\n",
            "f.yaml:26:15: error[CW0113]: document 1, CiliumEgressGatewayPolicy/legacy, spec.egressGateway.egressIP: interface and egressIP are not allowed together; write one of them",
        ),
        (
            "egressIP: \"\"",
            "egressIP: 10.0.0.1\n      interface: eth0",
            "spec.egressGateways[1].egressIP: interface and egressIP are not allowed together",
        ),
        (
            "egressIP: 192.168.60.100",
            "egressIP: 192.168.60.300",
            "f.yaml:26:15: error[CW0112]: document 1, CiliumEgressGatewayPolicy/legacy, spec.egressGateway.egressIP: '192.168.60.300' is not an IP address; allowed: an IPv4 or IPv6 address such as 192.0.2.1 or 2001:db8::1",
        ),
        (
            "egressIP: 192.168.60.100",
            "egressIP: 0.0.0.0",
            "'0.0.0.0' is not an address of a node or pod",
        ),
        (
            "egressIP: 192.168.60.100",
            "egressIP: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "spec.egressGateway.egressIP: has 40 characters; allowed: at most 39 characters",
        ),
        (
            "egressIP: 192.168.60.100",
            "egressIPs: [192.168.60.100]",
            "spec.egressGateway.egressIPs: unknown field 'egressIPs'; did you mean 'egressIP'?",
        ),
        (
            "interface: eth1",
            "interface: a-name-of-16-chr",
            "'a-name-of-16-chr' is not the name of a device; allowed: 1 to 15 characters",
        ),
        (
            "    nodeSelector:\n      matchLabels: { egress: \"yes\" }\n",
            "",
            "spec.egressGateway.nodeSelector: the field 'nodeSelector' is required",
        ),
        (
            "  egressGateway:\n    nodeSelector:\n      matchLabels: { egress: \"yes\" }\n    egressIP: 192.168.60.100\n",
            "",
            "spec.egressGateway: the field 'egressGateway' is required",
        ),
        (
            "    - podSelector: {}\n      namespaceSelector: {}\n      nodeSelector:\n        matchLabels: { rack: r1 }\n",
            "    - {}\n",
            "spec.selectors[2]: one of podSelector and namespaceSelector is required; an empty one, {}, selects everything",
        ),
        (
            "    - podSelector: {}\n      namespaceSelector: {}\n",
            "    - namespaceSelector: {}\n",
            "spec.selectors[2].nodeSelector: nodeSelector needs podSelector; an empty one, {}, selects all pods",
        ),
        (
            "    - podSelector: {}\n      namespaceSelector: {}\n",
            "    -\n",
            "spec.selectors[2]: one of podSelector and namespaceSelector is required",
        ),
        (
            "values: [pay]",
            "values: []",
            "spec.selectors[1].namespaceSelector.matchExpressions[0].values: operators In and NotIn need",
        ),
        (
            "app: web",
            "app: a b",
            "spec.selectors[0].podSelector.matchLabels.app: 'a b' is not a label value",
        ),
        (
            "rack: r1",
            "-rack: r1",
            "spec.selectors[2].nodeSelector.matchLabels.-rack: '-rack' is not a label key",
        ),
        (
            "192.168.60.13/24",
            "192.168.60.13/33",
            "spec.destinationCIDRs[0]: '192.168.60.13/33' is not allowed; allowed: a prefix such as",
        ),
        (
            "\"2001:db8:60::/48\"",
            "\"2001:db8:60::1::/48\"",
            "spec.destinationCIDRs[1]: '2001:db8:60::1::/48' is not a prefix",
        ),
        (
            "- 192.168.60.128/25",
            "- 192.168.60.128",
            "spec.excludedCIDRs[0]: '192.168.60.128' is not allowed",
        ),
        (
            "  destinationCIDRs:\n",
            "  destinationCIDR:\n",
            "did you mean 'destinationCIDRs'?",
        ),
        (
            "  destinationCIDRs:\n",
            "  destinationCIDR:\n",
            "the field 'destinationCIDRs' is required",
        ),
        (
            "  selectors:\n",
            "  mode: ActiveStandby\n  selectors:\n",
            "spec.mode: unknown field 'mode'",
        ),
        (
            "name: legacy",
            "name: legacy\n  namespace: shop",
            "CiliumEgressGatewayPolicy objects have no namespace",
        ),
        (
            "egressGateways:\n",
            "egressGateways: {}\n  x:\n",
            "spec.egressGateways: must be a list, found a mapping; allowed: at most 64 entries",
        ),
    ];
    all_found(CILIUM, cases);
}

#[test]
fn each_broken_rule_of_our_kind_gives_its_finding() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "      egressIPs: [203.0.113.1, \"2001:db8::1\"]\n",
            "      egressIPs: [203.0.113.1]\n      egressIP: 203.0.113.9\n",
            "spec.egressGateways[0].egressIP: interface and egressIP are not allowed together",
        ),
        (
            "interface: eth1",
            "egressIP: 203.0.113.9",
            "spec.egressGateways[0].egressIPs: egressIP and egressIPs are not allowed together; write one of them",
        ),
        (
            "interface: eth1",
            "addressPool: { cidrs: [192.0.2.0/28] }",
            "spec.egressGateways[0].addressPool: egressIPs and addressPool are not allowed together",
        ),
        (
            "\"2001:db8::1\"]",
            "203.0.113.1]",
            "egressIPs[1]: the address is the same as in entry 0",
        ),
        (
            "203.0.113.1,",
            "203.0.113.0/24,",
            "'203.0.113.0/24' is not allowed; allowed: an address such as",
        ),
        (
            "203.0.113.1,",
            "127.0.0.1,",
            "'127.0.0.1' is not an address of a node or pod; unspecified, loopback",
        ),
        (
            "203.0.113.64/27",
            "203.0.112.0/22",
            "spec.egressGateways[1].addressPool.cidrs: the prefixes have 1152 addresses together, more than 1024",
        ),
        (
            "2001:db8:1::/121",
            "2001:db8:1::/64",
            "have 18446744073709551648 addresses together",
        ),
        (
            "2001:db8:1::/121",
            "::/0",
            "'::/0' is not an address of a node or pod",
        ),
        (
            "2001:db8:1::/121",
            "203.0.113.64/28",
            "203.0.113.64/28 and 203.0.113.64/27 of entry 0 overlap",
        ),
        (
            "203.0.113.64/27",
            "203.0.113.65/27",
            "'203.0.113.65/27' has host bits set; did you mean '203.0.113.64/27'?",
        ),
        (
            "[203.0.113.64/27, \"2001:db8:1::/121\"]",
            "[]",
            "has 0 entries; allowed: 1 to 16 entries",
        ),
        (
            "assign: Namespace",
            "assign: Namespaces",
            "did you mean 'Namespace'? allowed: Policy, Namespace, Pod",
        ),
        ("0.0.0.0/0,", "10.0.0.1/8,", "did you mean '10.0.0.0/8'?"),
        (
            "mode: ActiveActive",
            "mode: Active",
            "'Active' is not allowed",
        ),
        (
            "zonePreference: LocalFirst",
            "zonePreference: Off",
            "spec.zonePreference: 'Off' is not allowed; allowed: None, LocalOnly, LocalFirst, LocalPriority",
        ),
        (
            "bfdProfileRef: { name: fast }",
            "bfdProfileRef: fast",
            "must be a mapping, found 'fast'",
        ),
        (
            "target: 198.51.100.1",
            "target: example.org",
            "'example.org' is not allowed; allowed: an address",
        ),
        (
            "      port: 443\n",
            "",
            "spec.health.probe: port is required with protocol TCP",
        ),
        (
            "port: 443",
            "port: 443\n      protocol: ICMP",
            "spec.health.probe.port: port is allowed with protocol TCP only",
        ),
        ("port: 443", "port: 0", "0 is below 1; allowed: 1 to 65535"),
        (
            "port: 443",
            "port: 443\n      protocol: UDP",
            "'UDP' is not allowed; allowed: TCP, ICMP",
        ),
        (
            "intervalSeconds: 10",
            "intervalSeconds: 2",
            "timeoutSeconds 3 must not be larger than intervalSeconds 2",
        ),
        (
            "timeoutSeconds: 3",
            "timeoutSeconds: 0",
            "0 is below 1; allowed: 1 to 3600",
        ),
        (
            "intervalSeconds: 10",
            "intervalSeconds: 3601",
            "3601 is above 3600",
        ),
        (
            "failureThreshold: 5",
            "failureThreshold: 101",
            "101 is above 100; allowed: 1 to 100",
        ),
        (
            "arp: false",
            "arp: maybe",
            "spec.announce.arp: must be true or false, found 'maybe'",
        ),
        (
            "\"65000:7\"",
            "\"65536:7\"",
            "spec.announce.bgp.communities.standard[0]: '65536:7' is not allowed",
        ),
        (
            "localPreference: 200",
            "localPreference: -1",
            "-1 is below 0",
        ),
        (
            "med: 10",
            "med: 4294967296",
            "spec.announce.bgp.med: 4294967296 is above 4294967295",
        ),
        (
            "standbyMED: 20",
            "standbyCommunities: { standard: [\"65536:8\"] }",
            "spec.announce.bgp.standbyCommunities.standard[0]: '65536:8' is not allowed",
        ),
        (
            "standbyMED: 20",
            "standbyMED: 10",
            "standbyMED 10 must be larger than med 10",
        ),
        (
            "drainSeconds: 600",
            "drainSeconds: 0",
            "spec.connections.drainSeconds: 0 is below 1; allowed: 1 to 604800",
        ),
        (
            "survive: true",
            "survive: false",
            "spec.connections.drainSeconds: with survive false connections end at once",
        ),
        (
            "first: 2000, last: 60000",
            "first: 2000, last: 1999",
            "spec.connections.sourcePorts: first 2000 must not be larger than last 1999",
        ),
        (
            "port: 61000",
            "port: 60000",
            "spec.servedPorts[1].port: port 60000 is one of connections.sourcePorts 2000 to 60000",
        ),
        (
            "- port: 65000",
            "- port: 0",
            "spec.servedPorts[0].port: 0 is below 1; allowed: 1 to 65535",
        ),
        ("protocol: UDP", "protocol: SCTP", "allowed: TCP, UDP"),
        ("last: 60000", "last: 65536", "65536 is above 65535"),
        ("first: 2000", "first: 0", "0 is below 1"),
        (
            "udpSeconds: 120",
            "udpSeconds: 0",
            "spec.connections.timeouts.udpSeconds: 0 is below 1; allowed: 1 to 604800",
        ),
        (
            "udpSeconds: 120",
            "udpSecond: 120",
            "did you mean 'udpSeconds'?",
        ),
        (
            "udpEndpointIndependent",
            "udpEndpointindependent",
            "did you mean 'udpEndpointIndependent'?",
        ),
        (
            "    - podSelector: { matchLabels: { app: web } }\n",
            "    - {}\n",
            "one of podSelector and namespaceSelector",
        ),
        (
            "  mode: ActiveActive\n",
            "  modes: ActiveActive\n",
            "unknown field 'modes'; did you mean 'mode'?",
        ),
    ];
    all_found(OURS, cases);
}

#[test]
fn our_kind_needs_a_gateway_and_announces_only_what_it_holds() {
    let head = "apiVersion: causeway.io/v1alpha1\nkind: EgressGatewayPolicy\nmetadata: {name: a}\n\
                spec:\n  selectors: []\n  destinationCIDRs: []\n";
    for (rest, expected) in [
        (
            "",
            "spec: one of egressGateway and egressGateways is required",
        ),
        (
            "  egressGateways: []\n",
            "one of egressGateway and egressGateways is required",
        ),
        (
            "  egressGateway: {nodeSelector: {}, egressIP: 192.0.2.1}\n  announce: {bgp: {}}\n",
            "spec.announce.bgp: bgp needs a gateway with egressIPs or addressPool",
        ),
        (
            "  egressGateway: {nodeSelector: {}, egressIP: 192.0.2.1}\n  servedPorts: [{port: 443}]\n",
            "spec.servedPorts: servedPorts needs a gateway with egressIPs or addressPool",
        ),
    ] {
        let found = errors(&format!("{head}{rest}"));
        assert!(
            found.iter().any(|text| text.contains(expected)),
            "{rest}: {found:#?}"
        );
    }
    let list = |n: usize| {
        format!(
            "{head}  egressGateways:\n{}",
            "    - nodeSelector: {}\n".repeat(n)
        )
    };
    assert_eq!(errors(&list(64)), [""; 0]);
    assert!(errors(&list(65))[0].contains("has 65 entries; allowed: at most 64 entries"));
}

#[test]
fn each_broken_rule_of_pods_and_namespaces_gives_its_finding() {
    all_found(
        PODS,
        &[
            (
                "    - ip: 10.244.1.7\n",
                "    - ip: web\n",
                "status.podIPs[0].ip: 'web' is not an IP address",
            ),
            (
                "podIP: 10.244.1.7",
                "podIP: 10.244.1.700",
                "status.podIP: '10.244.1.700' is not an IP address",
            ),
            (
                "nodeName: node-1",
                "nodeName: [node-1]",
                "spec.nodeName: must be a text, found a list",
            ),
            (
                "nodeName: node-1",
                "nodeName: node-1\n  hostNetwork: 1",
                "spec.hostNetwork: must be true or false, found 1",
            ),
            (
                "app: web,",
                "app: 1,",
                "metadata.labels.app: must be a text, found 1; put it into quotes",
            ),
            ("team: pay", "-team: pay", "'-team' is not a label key"),
            (
                "uid: 6d0f8a52-0000-4000-8000-000000000001",
                "uid: 7",
                "f.yaml:5:8: error[CW0111]: document 1, Namespace/shop, metadata.uid: must be a text, found 7; put it into quotes",
            ),
            (
                "  name: shop\n",
                "  name: shop\n  namespace: shop\n",
                "Namespace objects have no namespace",
            ),
        ],
    );
}

#[test]
fn near_misses_of_the_kinds_names_are_found() {
    for (base, from, to, help) in [
        (
            CILIUM,
            "CiliumEgressGatewayPolicy",
            "CiliumEgresGatewayPolicy",
            "did you mean 'CiliumEgressGatewayPolicy'?",
        ),
        (
            CILIUM,
            "cilium.io/v2",
            "cilium.io/v2alpha1",
            "did you mean 'cilium.io/v2'?",
        ),
        (
            OURS,
            "EgressGatewayPolicy",
            "EgressPolicy",
            "did you mean 'EgressGatewayPolicy'?",
        ),
    ] {
        let parsed = parse(&changed(base, from, to));
        let text = parsed.diagnostics[0].to_string();
        assert!(text.contains(help), "{text}");
        assert!(parsed.objects.is_empty());
    }
}

/// What upstream's generated definition says, taken down by hand.
#[test]
fn the_definition_of_upstreams_kind_is_upstreams() {
    let crds = generate_crds();
    let name = "cilium.io_ciliumegressgatewaypolicies.yaml";
    let (_, text) = crds.iter().find(|(n, _)| n == name).unwrap();
    for part in [
        "categories:\n      - cilium\n      - ciliumpolicy\n",
        "shortNames:\n      - cegp\n",
        "singular: ciliumegressgatewaypolicy",
        "scope: Cluster",
        "maxItems: 64",
        "maxLength: 39",
        "rule: \"self == '' || isIP(self)\"",
        "default: []",
        "required:\n- selectors\n- destinationCIDRs\n- egressGateway\n",
    ] {
        let sorted = |text: &str| text.replace(' ', "");
        assert!(sorted(text).contains(&sorted(part)), "{part}\n{text}");
    }
    for absent in ["status:", "mode:", "egressIPs", "addressPool"] {
        assert!(!text.contains(absent), "{absent}");
    }
}

fn all_found(base: &str, cases: &[(&str, &str, &str)]) {
    let mut wrong = Vec::new();
    for (from, to, expected) in cases {
        let errors = errors(&changed(base, from, to));
        if !errors.iter().any(|error| error.contains(expected)) {
            wrong.push(format!("{to}\nexpected: {expected}\nfound:    {errors:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_snapshot_gives_each_kind_by_name_and_pods_by_namespace_too() {
    let pod = |namespace: &str| {
        format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: a{namespace}}}\n")
    };
    let text = format!(
        "{CILIUM}---\n{OURS}---\n{PODS}{}{}{}",
        pod(""),
        pod(", namespace: shop"),
        pod(", namespace: lab")
    );
    let mut store = Store::new();
    let event = FileEvent {
        path: "a.yaml".into(),
        content: FileContent::Bytes(text.into_bytes()),
    };
    assert_eq!(
        store.apply(vec![event], SystemTime::UNIX_EPOCH).diagnostics,
        []
    );
    let snapshot = store.snapshot();
    let pods: Vec<String> = snapshot.pods().map(|pod| pod.key().to_string()).collect();
    let expected = ["Pod/default/a", "Pod/lab/a", "Pod/shop/a", "Pod/shop/web-0"];
    assert_eq!(pods, expected);
    assert!(snapshot.pod("shop", "web-0").is_some());
    assert!(snapshot.pod("lab", "web-0").is_none());
    assert_eq!(snapshot.namespaces().count(), 1);
    assert_eq!(
        snapshot.namespace("shop").unwrap().metadata.labels["team"],
        "pay"
    );
    assert!(snapshot.cilium_egress_policy("legacy").is_some());
    assert!(snapshot.egress_policy("legacy").is_none());
    assert_eq!(snapshot.egress_policies().count(), 1);
    assert_eq!(snapshot.nodes().count(), 0);
}
