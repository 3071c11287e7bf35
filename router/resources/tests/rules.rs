// SPDX-License-Identifier: Apache-2.0
//! Every validation rule, both ways: the manifests beside this file are valid as they stand, and
//! each change to one of them gives exactly the finding that is written here.

use std::path::Path;

use router_resources::Severity;
use router_resources::parse::{ParsedFile, parse_file};

const CLUSTER: &str = include_str!("manifests/cluster-config.yaml");
const PEER: &str = include_str!("manifests/peer-config.yaml");
const OURS: &str = include_str!("manifests/causeway-peer-config.yaml");
const OUR_CLUSTER: &str = include_str!("manifests/causeway-cluster-config.yaml");
const ADVERT: &str = include_str!("manifests/advertisement.yaml");
const OVERRIDE: &str = include_str!("manifests/override.yaml");
const ALPHA: &str = include_str!("manifests/alpha.yaml");
const KUBERNETES: &str = include_str!("manifests/kubernetes.yaml");

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
    assert_eq!(
        base.matches(from).count(),
        1,
        "'{from}' is not there exactly once"
    );
    base.replace(from, to)
}

#[test]
fn the_manifests_are_valid_as_they_stand() {
    for (text, objects) in [
        (CLUSTER, 1),
        (PEER, 1),
        (OURS, 1),
        (OUR_CLUSTER, 2),
        (ADVERT, 1),
        (OVERRIDE, 1),
        (ALPHA, 2),
        (KUBERNETES, 2),
    ] {
        let parsed = parse(text);
        assert_eq!(errors(text), [""; 0]);
        assert_eq!(parsed.objects.len(), objects);
    }
}

#[test]
fn values_at_the_ends_of_ranges_are_accepted() {
    for (base, from, to) in [
        (CLUSTER, "localASN: 65001", "localASN: 1"),
        (CLUSTER, "localASN: 65001", "localASN: 4294967295"),
        (CLUSTER, "localPort: 179", "localPort: 1"),
        (CLUSTER, "localPort: 179", "localPort: 65535"),
        (CLUSTER, "peerASN: 65100", "peerASN: 0"),
        (CLUSTER, "peerASN: 65100", "peerASN: 4294967295"),
        (CLUSTER, "statisticsTimeout: 60", "statisticsTimeout: 15"),
        (CLUSTER, "statisticsTimeout: 60", "statisticsTimeout: 65535"),
        (PEER, "peerPort: 1790", "peerPort: 1"),
        (PEER, "peerPort: 1790", "peerPort: 65535"),
        (
            PEER,
            "connectRetryTimeSeconds: 12",
            "connectRetryTimeSeconds: 1",
        ),
        (
            PEER,
            "connectRetryTimeSeconds: 12",
            "connectRetryTimeSeconds: 2147483647",
        ),
        (PEER, "holdTimeSeconds: 9", "holdTimeSeconds: 3"),
        (PEER, "holdTimeSeconds: 9", "holdTimeSeconds: 65535"),
        (PEER, "keepAliveTimeSeconds: 3", "keepAliveTimeSeconds: 1"),
        (PEER, "keepAliveTimeSeconds: 3", "keepAliveTimeSeconds: 9"),
        (PEER, "restartTimeSeconds: 15", "restartTimeSeconds: 1"),
        (PEER, "restartTimeSeconds: 15", "restartTimeSeconds: 4095"),
        (PEER, "ebgpMultihop: 4", "ebgpMultihop: 1"),
        (PEER, "ebgpMultihop: 4", "ebgpMultihop: 255"),
        (
            ADVERT,
            "aggregationLengthIPv4: 24",
            "aggregationLengthIPv4: 0",
        ),
        (
            ADVERT,
            "aggregationLengthIPv4: 24",
            "aggregationLengthIPv4: 31",
        ),
        (
            ADVERT,
            "aggregationLengthIPv6: 120",
            "aggregationLengthIPv6: 127",
        ),
        (
            ADVERT,
            "localPreference: 200",
            "localPreference: 4294967295",
        ),
        (OURS, "maxRoutes: 1000", "maxRoutes: 4294967295"),
        (OURS, "minLength: 16", "minLength: 8"),
        (OURS, "maxLength: 24", "maxLength: 32"),
    ] {
        assert_eq!(errors(&changed(base, from, to)), [""; 0], "{to}");
    }
}

#[test]
fn each_broken_rule_gives_its_finding() {
    let cases: &[(&str, &str, &str, &str)] = &[
        // CiliumBGPClusterConfig
        (
            CLUSTER,
            "localASN: 65001",
            "localASN: 0",
            "f.yaml:46:17: error[CW0112]: document 1, CiliumBGPClusterConfig/racks, spec.bgpInstances[1].localASN: 0 is below 1; allowed: 1 to 4294967295",
        ),
        (
            CLUSTER,
            "localASN: 65001",
            "localASN: 4294967296",
            "4294967296 is above 4294967295",
        ),
        (
            CLUSTER,
            "localASN: 65001",
            "localASN: x",
            "spec.bgpInstances[1].localASN: must be a whole number, found 'x'",
        ),
        (
            CLUSTER,
            "localPort: 179",
            "localPort: 0",
            "0 is below 1; allowed: 1 to 65535",
        ),
        (
            CLUSTER,
            "localPort: 179",
            "localPort: 65536",
            "65536 is above 65535",
        ),
        (CLUSTER, "peerASN: 65100", "peerASN: -1", "-1 is below 0"),
        (
            CLUSTER,
            "peerASN: 65100",
            "peerASN: 4294967296",
            "4294967296 is above",
        ),
        (
            CLUSTER,
            "peerAddress: 10.0.0.1\n",
            "peerAddress: 10.0.0.256\n",
            "spec.bgpInstances[0].peers[0].peerAddress: '10.0.0.256' is not allowed; allowed: an IPv4 or IPv6 address",
        ),
        (
            CLUSTER,
            "peerAddress: fd00:10::1",
            "peerAddress: fd00:10::1::2",
            "'fd00:10::1::2' is not an IP address",
        ),
        (
            CLUSTER,
            "peerAddress: fe80::1%eth0",
            "peerAddress: fd00::1%eth0",
            "has the zone 'eth0' and is not link-local",
        ),
        (
            CLUSTER,
            "name: tor-b",
            "name: tor-a",
            "spec.bgpInstances[0].peers[1].name: name 'tor-a' is already used by entry 0",
        ),
        (
            CLUSTER,
            "name: services",
            "name: fabric",
            "spec.bgpInstances[1].name: name 'fabric' is already used by entry 0",
        ),
        (
            CLUSTER,
            "name: services",
            "name: ''",
            "spec.bgpInstances[1].name: has 0 characters; allowed: 1 to 255 characters",
        ),
        (
            CLUSTER,
            "mode: DefaultGateway",
            "mode: DefaultRoute",
            "'DefaultRoute' is not allowed",
        ),
        (
            CLUSTER,
            "            defaultGateway:\n              addressFamily: ipv6\n",
            "",
            "defaultGateway is required with mode DefaultGateway",
        ),
        (
            CLUSTER,
            "            unnumbered:\n              interface: eth1\n",
            "",
            "unnumbered is required with mode Unnumbered",
        ),
        (
            CLUSTER,
            "addressFamily: ipv6",
            "addressFamily: v6",
            "allowed: ipv4, ipv6",
        ),
        (
            CLUSTER,
            "interface: eth1",
            "interface: ''",
            "has 0 characters",
        ),
        (
            CLUSTER,
            "monitoringPolicy: both",
            "monitoringPolicy: bot",
            "did you mean 'both'? allowed: pre, post, both, local, all",
        ),
        (
            CLUSTER,
            "statisticsTimeout: 60",
            "statisticsTimeout: 14",
            "14 is below 15",
        ),
        (
            CLUSTER,
            "operator: In,",
            "operator: in,",
            "'in' is not allowed; did you mean 'In'?",
        ),
        (
            CLUSTER,
            "values: [r1, r2]",
            "values: []",
            "operators In and NotIn need at least one value",
        ),
        (
            CLUSTER,
            "operator: DoesNotExist",
            "operator: DoesNotExist, values: [a]",
            "operators Exists and DoesNotExist take no values",
        ),
        (
            CLUSTER,
            "key: rack",
            "key: -rack",
            "'-rack' is not a label key",
        ),
        (
            CLUSTER,
            "bgp: \"65000\"",
            "bgp: 65000",
            "spec.nodeSelector.matchLabels.bgp: must be a text, found 65000; put it into quotes",
        ),
        (
            CLUSTER,
            "bgp: \"65000\"",
            "bgp: a b",
            "'a b' is not a label value",
        ),
        (
            CLUSTER,
            "  name: racks\n",
            "  name: Racks\n",
            "metadata.name: 'Racks' is not an object name",
        ),
        (
            CLUSTER,
            "  name: racks\n",
            "  name: racks\n  namespace: x\n",
            "CiliumBGPClusterConfig objects have no namespace",
        ),
        (
            CLUSTER,
            "  bgpInstances:\n",
            "  bgpInstance:\n",
            "unknown field 'bgpInstance'; did you mean 'bgpInstances'?",
        ),
        (
            CLUSTER,
            "  bgpInstances:\n",
            "  bgpInstance:\n",
            "the field 'bgpInstances' is required; allowed: 1 to 16 entries",
        ),
        // CiliumBGPPeerConfig
        (PEER, "peerPort: 1790", "peerPort: 0", "0 is below 1"),
        (
            PEER,
            "peerPort: 1790",
            "localPort: 1790",
            "spec.transport.localPort: unknown field 'localPort'",
        ),
        (
            PEER,
            "connectRetryTimeSeconds: 12",
            "connectRetryTimeSeconds: 0",
            "0 is below 1; allowed: 1 to 2147483647",
        ),
        (
            PEER,
            "holdTimeSeconds: 9",
            "holdTimeSeconds: 2",
            "f.yaml:11:22: error[CW0112]: document 1, CiliumBGPPeerConfig/tor, spec.timers.holdTimeSeconds: 2 is below 3; allowed: 3 to 65535",
        ),
        (
            PEER,
            "holdTimeSeconds: 9",
            "holdTimeSeconds: 65536",
            "65536 is above 65535",
        ),
        (
            PEER,
            "holdTimeSeconds: 9",
            "holdTimeSecond: 9",
            "f.yaml:11:5: error[CW0109]: document 1, CiliumBGPPeerConfig/tor, spec.timers.holdTimeSecond: unknown field 'holdTimeSecond'; did you mean 'holdTimeSeconds'?",
        ),
        (
            PEER,
            "keepAliveTimeSeconds: 3",
            "keepAliveTimeSeconds: 0",
            "0 is below 1",
        ),
        (
            PEER,
            "keepAliveTimeSeconds: 3",
            "keepAliveTimeSeconds: 10",
            "f.yaml:9:3: error[CW0113]: document 1, CiliumBGPPeerConfig/tor, spec.timers: keepAliveTimeSeconds 10 must not be larger than holdTimeSeconds 9 (absent fields are 30 and 90)",
        ),
        // Upstream fills in the default of 30 before it compares, and so do we.
        (
            PEER,
            "    keepAliveTimeSeconds: 3\n",
            "",
            "keepAliveTimeSeconds 30 must not be larger than holdTimeSeconds 9",
        ),
        (
            PEER,
            "    enabled: true\n",
            "",
            "spec.gracefulRestart.enabled: the field 'enabled' is required",
        ),
        (
            PEER,
            "enabled: true",
            "enabled: yes",
            "must be true or false, found 'yes'",
        ),
        (
            PEER,
            "restartTimeSeconds: 15",
            "restartTimeSeconds: 4096",
            "4096 is above 4095",
        ),
        (
            PEER,
            "restartTimeSeconds: 15",
            "restartTimeSeconds: 0",
            "0 is below 1",
        ),
        (
            PEER,
            "ebgpMultihop: 4",
            "ebgpMultihop: 256",
            "256 is above 255",
        ),
        (PEER, "ebgpMultihop: 4", "ebgpMultihop: 0", "0 is below 1"),
        (
            PEER,
            "ebgpMultihop: 4",
            "passive: true",
            "unknown field 'passive'",
        ),
        (
            PEER,
            "afi: ipv4",
            "afi: ip4",
            "did you mean 'ipv4'? allowed: ipv4, ipv6, l2vpn, ls, opaque",
        ),
        (
            PEER,
            "safi: evpn",
            "safi: vpn",
            "allowed: unicast, multicast, mpls_label, encapsulation, vpls, evpn, ls, sr_policy, mup, mpls_vpn, mpls_vpn_multicast, route_target_constraints, flowspec_unicast, flowspec_vpn, key_value",
        ),
        (
            PEER,
            "afi: ipv4",
            "afi: ipv6",
            "the family is the same as in entry 0",
        ),
        (
            PEER,
            "advertisements: {}",
            "import: {mode: All}",
            "unknown field 'import'",
        ),
        (
            PEER,
            "advertisements: {}",
            "advertisements: []",
            "must be a mapping, found a list",
        ),
        (
            PEER,
            "authSecretRef: bgp-auth",
            "authSecretRef: [a]",
            "must be a text, found a list",
        ),
        (
            PEER,
            "spec:\n",
            "spec: 7\nstatus:\n",
            "spec: must be a mapping, found 7",
        ),
        // BGPPeerConfig
        (
            OURS,
            "mode: Prefixes",
            "mode: Prefix",
            "did you mean 'Prefixes'? allowed: DefaultRoute, Prefixes, All, None",
        ),
        (
            OURS,
            "mode: Prefixes",
            "mode: None",
            "prefixes is allowed with mode Prefixes only",
        ),
        (
            OURS,
            "mode: All",
            "mode: Prefixes",
            "prefixes is required with mode Prefixes",
        ),
        (
            OURS,
            "prefix: 10.0.0.0/8",
            "prefix: 10.0.0.1/8",
            "'10.0.0.1/8' has host bits set; did you mean '10.0.0.0/8'?",
        ),
        (
            OURS,
            "prefix: 10.0.0.0/8",
            "prefix: 10.0.0.0",
            "'10.0.0.0' is not allowed; allowed: a prefix",
        ),
        (
            OURS,
            "prefix: 10.0.0.0/8",
            "prefix: fd00::/8",
            "fd00::/8 is not of the family it is listed under",
        ),
        (
            OURS,
            "minLength: 16",
            "minLength: 7",
            "must be in order between the prefix's own length 8 and 32",
        ),
        (
            OURS,
            "maxLength: 24",
            "maxLength: 15",
            "minLength 16 and maxLength 15 must be in order",
        ),
        (OURS, "maxLength: 24", "maxLength: 33", "must be in order"),
        (OURS, "maxLength: 24", "maxLength: 129", "129 is above 128"),
        (OURS, "maxRoutes: 1000", "maxRoutes: 0", "0 is below 1"),
        // CiliumBGPAdvertisement
        (
            ADVERT,
            "advertisementType: PodCIDR",
            "advertisementType: PodCidr",
            "did you mean 'PodCIDR'?",
        ),
        (
            ADVERT,
            "advertisementType: PodCIDR",
            "advertisementType: PodCIDR\n      selector: {}",
            "selector is not allowed for advertisementType PodCIDR",
        ),
        (
            ADVERT,
            "advertisementType: Interface\n      interface:\n        name: lo\n",
            "advertisementType: Interface\n",
            "interface is required for advertisementType Interface",
        ),
        (
            ADVERT,
            "advertisementType: Interface",
            "advertisementType: CiliumPodIPPool",
            "interface is allowed for advertisementType Interface only, found CiliumPodIPPool",
        ),
        (
            ADVERT,
            "advertisementType: CiliumPodIPPool",
            "advertisementType: Service",
            "service is required for advertisementType Service",
        ),
        (
            ADVERT,
            "advertisementType: Service",
            "advertisementType: CiliumPodIPPool",
            "service is allowed for advertisementType Service only, found CiliumPodIPPool",
        ),
        (
            ADVERT,
            "addresses: [LoadBalancerIP, ClusterIP, ExternalIP]",
            "addresses: []",
            "has 0 entries; allowed: 1 entries or more",
        ),
        (
            ADVERT,
            "addresses: [LoadBalancerIP, ClusterIP, ExternalIP]",
            "addresses: [LoadbalancerIP]",
            "did you mean 'LoadBalancerIP'?",
        ),
        (
            ADVERT,
            "aggregationLengthIPv4: 24",
            "aggregationLengthIPv4: 32",
            "32 is above 31",
        ),
        (
            ADVERT,
            "aggregationLengthIPv6: 120",
            "aggregationLengthIPv6: 128",
            "128 is above 127",
        ),
        (
            ADVERT,
            "\"65000:99\"",
            "\"65536:99\"",
            "spec.advertisements[0].attributes.communities.standard[0]: '65536:99' is not allowed; allowed: two numbers of 0 to 65535",
        ),
        (
            ADVERT,
            "\"4294967295\"",
            "4294967295",
            "must be a text, found 4294967295; put it into quotes",
        ),
        (
            ADVERT,
            "blackhole",
            "black-hole",
            "did you mean 'blackhole'?",
        ),
        (
            ADVERT,
            "\"65000:1:2\"",
            "\"65000:1\"",
            "'65000:1' is not allowed; allowed: three numbers",
        ),
        (
            ADVERT,
            "localPreference: 200",
            "localPreference: -1",
            "-1 is below 0",
        ),
        // CiliumBGPNodeConfigOverride
        (
            OVERRIDE,
            "routerID: 192.0.2.1",
            "routerID: fd00::1",
            "'fd00::1' is not allowed; allowed: an IPv4 address",
        ),
        (
            OVERRIDE,
            "routerID: 192.0.2.1",
            "routerID: 0.0.0.0",
            "0.0.0.0 is not a router identifier",
        ),
        (OVERRIDE, "localPort: 1179", "localPort: 0", "0 is below 1"),
        (OVERRIDE, "localASN: 65010", "localASN: 0", "0 is below 1"),
        (
            OVERRIDE,
            "localAddress: 10.0.0.11",
            "localAddress: eth0",
            "'eth0' is not allowed",
        ),
        (
            OVERRIDE,
            "    - name: fabric\n",
            "    - {}\n    - name: fabric\n",
            "the field 'name' is required",
        ),
        // v2alpha1
        (
            ALPHA,
            "kind: CiliumBGPPeerConfig\n            name: tor",
            "kind: PeerConfig\n            name: tor",
            "no peer configuration kind 'PeerConfig' in group 'cilium.io'",
        ),
        // Node and Secret
        (
            KUBERNETES,
            "creationTimestamp: \"2026-01-31T12:00:00Z\"",
            "creationTimestamp: yesterday",
            "metadata.creationTimestamp: 'yesterday' is not allowed; allowed: a time in UTC",
        ),
        (
            KUBERNETES,
            "podCIDR: 10.244.1.0/24",
            "podCIDR: 10.244.1.1/24",
            "'10.244.1.1/24' has host bits set",
        ),
        (
            KUBERNETES,
            "password: c2VjcmV0",
            "password: c2VjcmV",
            "data.password: the value is not base64: length or padding is wrong",
        ),
        (
            KUBERNETES,
            "password: c2VjcmV0",
            "password: 1234567",
            "data.password: must be a text, found a number; put it into quotes",
        ),
    ];
    let mut wrong = Vec::new();
    for (base, from, to, expected) in cases {
        let errors = errors(&changed(base, from, to));
        if !errors.iter().any(|error| error.contains(expected)) {
            wrong.push(format!("{to}\nexpected: {expected}\nfound:    {errors:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn list_sizes_are_bounded() {
    let instances = |n: usize| {
        let list: String = (0..n).map(|i| format!("    - name: i{i}\n")).collect();
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumBGPClusterConfig\nmetadata: {{name: a}}\n\
             spec:\n  bgpInstances:\n{list}"
        )
    };
    assert_eq!(errors(&instances(16)), [""; 0]);
    assert!(errors(&instances(17))[0].contains("has 17 entries; allowed: 1 to 16 entries"));
}

#[test]
fn defaults_are_those_of_upstream() {
    let text = "apiVersion: cilium.io/v2\nkind: CiliumBGPPeerConfig\nmetadata: {name: a}\n\
                spec: {transport: {}, timers: {}, gracefulRestart: {enabled: true}}\n";
    let parsed = parse(text);
    let router_resources::Body::PeerConfig(spec) = &parsed.objects[0].object.body else {
        panic!("not a peer configuration")
    };
    let timers = spec.timers.as_ref().unwrap();
    assert_eq!(timers.connect_retry_time_seconds, 120);
    assert_eq!(timers.hold_time_seconds, 90);
    assert_eq!(timers.keep_alive_time_seconds, 30);
    assert_eq!(spec.transport.as_ref().unwrap().peer_port, 179);
    assert_eq!(
        spec.graceful_restart.as_ref().unwrap().restart_time_seconds,
        120
    );
    assert_eq!(spec.ebgp_multihop, 1);
    assert_eq!(spec.families, None);
    assert_eq!(router_resources::kinds::Timers::default(), *timers);
}

#[test]
fn what_our_kinds_add_is_checked() {
    for (from, to, finding) in [
        ("      localPort: 179\n", "", "needs localPort"),
        (
            "name: servers",
            "name: tor",
            "a peer of the instance is named 'tor', too",
        ),
        (
            "10.20.0.0/16",
            "10.20.0.1/16",
            "did you mean '10.20.0.0/16'?",
        ),
        ("64512-65534", "65534-64512", "did you mean '64512-65534'?"),
        (
            "peerAddress: 10.0.0.1",
            "peerAddress: 10.0.0.1, interface: eth0",
            "write one of them",
        ),
        (
            "clusterID: 192.0.2.1",
            "clusterID: 0.0.0.0",
            "is not a router identifier",
        ),
        ("rt:65000:100", "65000:100", "such as rt:65000:100"),
        ("maxPaths: 4", "maxPaths: 0", "maxPaths"),
        ("transit: true", "transits: true", "did you mean 'transit'?"),
        ("maxRoutes: 10,", "", "onMaxRoutes needs maxRoutes"),
        (
            "onMaxRoutes: Warn",
            "onMaxRoutes: Warn, restartAfterSeconds: 5",
            "does not end",
        ),
        (
            "nextHop: Self",
            "nextHop: Unchanged",
            "no other next hop is sent",
        ),
        ("enabled: true", "enabled: false", "which is not enabled"),
        ("maxHops: 1", "maxHops: 255", "maxHops"),
        (
            "  ttlSecurity:",
            "  passive: true\n  active: true\n  ttlSecurity:",
            "write one of them",
        ),
        ("name: Customer", "name: Client", "Customer"),
        (
            "prefixes: [{ prefix: 10.0.0.0/8 }]",
            "prefixes: []",
            "prefixes is required",
        ),
    ] {
        let found = errors(&changed(OUR_CLUSTER, from, to));
        assert!(!found.is_empty(), "'{to}' is accepted");
        let is_said = found.iter().any(|text| text.contains(finding));
        assert!(is_said, "'{to}': {found:?}");
    }
}

#[test]
fn upstreams_kinds_have_none_of_it() {
    for (ours, theirs) in [
        (
            "apiVersion: causeway.io/v1alpha1\nkind: BGPClusterConfig",
            "kind: CiliumBGPClusterConfig",
        ),
        (
            "apiVersion: causeway.io/v1alpha1\nkind: BGPPeerConfig",
            "kind: CiliumBGPPeerConfig",
        ),
    ] {
        let theirs = format!("apiVersion: cilium.io/v2\n{theirs}");
        let found = errors(&changed(OUR_CLUSTER, ours, &theirs));
        let unknown = found.iter().filter(|text| text.contains("unknown field"));
        assert!(unknown.count() >= 4, "{found:?}");
    }
}
