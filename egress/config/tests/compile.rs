// SPDX-License-Identifier: Apache-2.0
//! What holds whatever the policies are, and what changes when something else does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use egress_config::{Compiled, Endpoint, Facts, compile, condition_type};
use egress_core::{Addresses, PolicyId, PolicyKind, Transport};
use router_resources::{FileContent, FileEvent, Snapshot, Store, check};

fn snapshot(text: &str) -> Snapshot {
    let mut store = Store::new();
    let event = FileEvent {
        path: PathBuf::from("a.yaml"),
        content: FileContent::Bytes(text.as_bytes().to_vec()),
    };
    let change = store.apply(vec![event], SystemTime::UNIX_EPOCH);
    assert_eq!(change.diagnostics, []);
    store.snapshot()
}

fn facts(node: &str, pods: &[(&str, &str)]) -> Facts {
    let endpoints = pods.iter().map(|(namespace, name)| Endpoint {
        namespace: namespace.to_string(),
        name: name.to_string(),
        uid: format!("uid-{name}"),
        addresses: vec!["10.244.1.2".parse().unwrap()],
        labels: None,
    });
    Facts {
        node: node.into(),
        endpoints: endpoints.collect(),
        ..Facts::default()
    }
}

fn pooled(name: &str, created: &str, cidr: &str) -> String {
    format!(
        "apiVersion: causeway.io/v1alpha1\nkind: EgressGatewayPolicy\n\
         metadata: {{name: {name}, creationTimestamp: \"{created}\"}}\n\
         spec:\n  selectors: [{{podSelector: {{}}}}]\n  destinationCIDRs: [0.0.0.0/0]\n  \
         egressGateway: {{nodeSelector: {{}}, addressPool: {{cidrs: [{cidr}]}}}}\n---\n"
    )
}

fn held(compiled: &Compiled, name: &str) -> Vec<String> {
    let mut policies = compiled.world.policies.iter();
    let policy = policies.find(|policy| policy.id.name == name).unwrap();
    match &policy.groups[0].addresses {
        Addresses::Held { addresses, .. } => addresses.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn policies_mean_the_same_on_every_node_and_every_one_is_told_whether_it_is_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for folder in fs::read_dir(&root).unwrap() {
        let input = folder.unwrap().path().join("input");
        let snapshot = check(std::slice::from_ref(&input)).snapshot;
        let here = compile(&snapshot, &facts("node-1", &[]));
        // A node without an object of its own adds itself; in these folders that changes no
        // group but those that match its name.
        let there = compile(&snapshot, &facts("node-2", &[("shop", "x")]));
        if snapshot.nodes().next().is_some() {
            assert_eq!(here.world.policies, there.world.policies, "{input:?}");
            assert_eq!(here.world.in_cluster, there.world.in_cluster, "{input:?}");
        }
        assert_eq!(compile(&snapshot, &facts("node-1", &[])), here);
        for policy in &here.world.policies {
            let of = |(key, s): &&(router_resources::ObjectKey, router_resources::Statement)| {
                key.to_string() == policy.id.to_string()
                    && s.condition_type == condition_type::IN_USE
            };
            assert_eq!(
                here.statements.iter().filter(of).count(),
                1,
                "{}",
                policy.id
            );
            assert!(!policy.groups.is_empty(), "{}", policy.id);
        }
    }
}

#[test]
fn precedence_is_by_age_then_kind_then_name() {
    let cilium = |name: &str, created: &str| {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumEgressGatewayPolicy\n\
             metadata: {{name: {name}{created}}}\n\
             spec: {{selectors: [], destinationCIDRs: [], egressGateway: {{nodeSelector: {{}}}}}}\n---\n"
        )
    };
    let ours = |name, created| pooled(name, created, "192.0.2.0/24");
    let text = cilium("b", ", creationTimestamp: \"2026-01-02T00:00:00Z\"")
        + &cilium("a", ", creationTimestamp: \"2026-01-02T00:00:00Z\"")
        + &cilium("z", "")
        + &ours("a", "2026-01-02T00:00:00Z")
        + &ours("old", "2026-01-01T00:00:00Z");
    let compiled = compile(&snapshot(&text), &facts("n", &[]));
    let order: Vec<String> = compiled
        .world
        .policies
        .iter()
        .map(|policy| policy.id.to_string())
        .collect();
    assert_eq!(
        order,
        [
            "CiliumEgressGatewayPolicy/z",
            "EgressGatewayPolicy/old",
            "CiliumEgressGatewayPolicy/a",
            "CiliumEgressGatewayPolicy/b",
            "EgressGatewayPolicy/a",
        ]
    );
}

#[test]
fn what_a_policy_draws_does_not_change_with_the_policies_after_it() {
    let pool = "192.0.2.0/29";
    let mut text = pooled("first", "2026-01-01T00:00:00Z", pool);
    let mut drawn = vec![held(&compile(&snapshot(&text), &facts("n", &[])), "first")];
    for n in 2..=8 {
        text += &pooled(&format!("p{n}"), &format!("2026-01-0{n}T00:00:00Z"), pool);
        let compiled = compile(&snapshot(&text), &facts("n", &[]));
        assert_eq!(held(&compiled, "first"), drawn[0]);
        let own = held(&compiled, &format!("p{n}"));
        assert!(!drawn.contains(&own), "{own:?} is drawn twice");
        drawn.push(own);
    }
}

#[test]
fn an_address_somebody_wrote_down_is_not_drawn() {
    let drawing = pooled("drawing", "2026-01-01T00:00:00Z", "192.0.2.0/31");
    let first = held(&compile(&snapshot(&drawing), &facts("n", &[])), "drawing");
    let writing = pooled("writing", "2026-02-01T00:00:00Z", "x").replace(
        "addressPool: {cidrs: [x]}",
        &format!("egressIPs: [{}]", first[0]),
    );
    let compiled = compile(&snapshot(&(drawing + &writing)), &facts("n", &[]));
    assert_eq!(held(&compiled, "writing"), first);
    assert_ne!(held(&compiled, "drawing"), first);
    let shared = |(_, s): &(_, router_resources::Statement)| {
        s.condition_type == condition_type::SHARED_ADDRESS
    };
    assert!(!compiled.statements.iter().any(shared));
}

#[test]
fn a_pod_is_decided_when_its_object_comes() {
    let policy = "apiVersion: cilium.io/v2\nkind: CiliumEgressGatewayPolicy\nmetadata: {name: web}\n\
                  spec:\n  selectors: [{podSelector: {matchLabels: {app: web}}}]\n  \
                  destinationCIDRs: [0.0.0.0/0]\n  egressGateway: {nodeSelector: {}}\n";
    let id = PolicyId {
        kind: PolicyKind::Cilium,
        name: "web".into(),
    };
    let facts = facts("n", &[("shop", "a")]);
    let pods = compile(&snapshot(policy), &facts).world.pods;
    assert!(pods[0].undecided.contains(&id) && pods[0].policies.is_empty());
    for (app, is_selected) in [("web", true), ("db", false)] {
        let pod = format!(
            "---\napiVersion: v1\nkind: Pod\n\
             metadata: {{name: a, namespace: shop, uid: uid-a, labels: {{app: {app}}}}}\n"
        );
        let pods = compile(&snapshot(&format!("{policy}{pod}")), &facts)
            .world
            .pods;
        assert_eq!(pods[0].policies.contains(&id), is_selected, "{app}");
        assert!(pods[0].undecided.is_empty(), "{app}");
    }
}

#[test]
fn nothing_makes_nothing() {
    let compiled = compile(&Snapshot::default(), &Facts::default());
    assert_eq!(compiled.world.policies, []);
    assert_eq!(compiled.world.pods, []);
    assert_eq!(compiled.statements, []);
}

/// A Pod object; its node is `nowhere` for one that is on none.
fn pod_object(name: &str, node: &str, address: &str, more: &str) -> String {
    let node = match node {
        "nowhere" => String::new(),
        node => format!("nodeName: {node}"),
    };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, uid: uid-{name}, \
         labels: {{app: web}}}}\nspec: {{{node}}}\nstatus: {{podIP: {address}{more}}}\n---\n"
    )
}

const NATIVE: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: a, labels: {egress: \"yes\"}}\n\
    spec: {podCIDRs: [10.244.1.0/24]}\n---\n\
    apiVersion: v1\nkind: Node\nmetadata: {name: b}\nspec: {podCIDRs: [10.244.2.0/24]}\n---\n\
    apiVersion: causeway.io/v1alpha1\nkind: EgressGatewayPolicy\nmetadata: {name: web}\n\
    spec:\n  selectors: [{podSelector: {matchLabels: {app: web}}}]\n  \
    destinationCIDRs: [0.0.0.0/0]\n  \
    egressGateway: {nodeSelector: {matchLabels: {egress: \"yes\"}}}\n---\n";

#[test]
fn gateways_know_other_nodes_pods_by_objects_that_nobody_contradicts() {
    let objects = [
        pod_object("good", "b", "10.244.2.1", ""),
        pod_object("here", "a", "10.244.1.1", ""),
        pod_object("nowhere", "nowhere", "10.244.2.2", ""),
        pod_object("ended", "b", "10.244.2.3", ", phase: Succeeded"),
        pod_object("heir", "b", "10.244.2.3", ", phase: Running"),
        pod_object("one", "b", "10.244.2.4", ""),
        pod_object("two", "b", "10.244.2.4", ""),
        pod_object("other", "b", "10.244.2.5", "").replace("app: web", "app: db"),
    ];
    let text = format!("{NATIVE}{}", objects.concat());
    let snapshot = snapshot(&text);
    let remote = |transport, node: &str| -> Vec<String> {
        let facts = Facts {
            transport,
            ..facts(node, &[])
        };
        let world = compile(&snapshot, &facts).world;
        let pods = world.remote_pods.iter().flat_map(|other| {
            let known = other.pod.is_known_to_all && other.node == "b";
            let addresses = other.pod.addresses.iter();
            addresses.map(move |at| format!("{} {at} {known}", other.pod.key))
        });
        pods.collect()
    };
    let known = ["shop/good 10.244.2.1 true", "shop/heir 10.244.2.3 true"];
    assert_eq!(remote(Transport::Native, "a"), known);
    assert_eq!(remote(Transport::Either, "a"), known);
    let none: [&str; 0] = [];
    assert_eq!(remote(Transport::Tunnel, "a"), none);
    assert_eq!(remote(Transport::Native, "b"), none, "it is no gateway");
}

#[test]
fn a_pod_is_known_to_all_where_its_object_says_what_its_node_does() {
    let is_known = |object: &str, address: &str| {
        let snapshot = snapshot(&format!("{NATIVE}{object}"));
        let mut facts = facts("b", &[("shop", "web")]);
        facts.transport = Transport::Native;
        facts.endpoints[0].addresses = vec![address.parse().unwrap()];
        facts.endpoints[0].labels = Some([("app".to_owned(), "web".to_owned())].into());
        let world = compile(&snapshot, &facts).world;
        assert_eq!(world.pods[0].policies.len(), 1, "it is selected anyway");
        assert_eq!(world.pod_prefixes.len(), 2);
        world.pods[0].is_known_to_all
    };
    let good = pod_object("web", "b", "10.244.2.1", "");
    assert!(is_known(&good, "10.244.2.1"));
    // Only its node knows it, or knows it otherwise.
    assert!(!is_known("", "10.244.2.1"));
    assert!(!is_known(&good, "10.244.2.9"));
    assert!(!is_known(
        &pod_object("web", "a", "10.244.2.1", ""),
        "10.244.2.1"
    ));
    let another = pod_object("thief", "a", "10.244.2.1", "");
    assert!(!is_known(&format!("{good}{another}"), "10.244.2.1"));
    let successor = good.replace("uid-web", "uid-other");
    assert!(!is_known(&successor, "10.244.2.1"));
    // A static pod's object has another UID, and says which one its node gave it.
    let mirror = successor.replace(
        "labels:",
        "annotations: {kubernetes.io/config.hash: uid-web}, labels:",
    );
    assert!(is_known(&mirror, "10.244.2.1"));
}
