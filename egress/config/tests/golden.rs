// SPDX-License-Identifier: Apache-2.0
//! Golden runs: each folder under `golden` has resources, facts about a node and the outcome.
//! `UPDATE_GOLDEN=1` rewrites the outcomes; the diff is the review.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use egress_config::{Compiled, Endpoint, Facts, compile};
use egress_core::{Addresses, Interface, Limits, Policy, Transport};
use router_resources::check;
use serde_json::{Map, Value, json};

#[test]
fn every_folder_compiles_to_its_outcome() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut folders: Vec<PathBuf> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    assert!(folders.len() >= 10, "{folders:?}");
    let mut wrong = Vec::new();
    for folder in folders {
        let outcome = format!("{:#}\n", render(&run(&folder)));
        let expected = folder.join("expected.json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &outcome).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != outcome {
            wrong.push(format!("{}:\n{outcome}", folder.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "run with UPDATE_GOLDEN=1 and look at the diff\n{}",
        wrong.join("\n")
    );
}

fn run(folder: &Path) -> Compiled {
    let report = check(&[folder.join("input")]);
    let findings: Vec<String> = report.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(findings, [""; 0]);
    compile(&report.snapshot, &facts(folder))
}

fn facts(folder: &Path) -> Facts {
    let text = fs::read_to_string(folder.join("node.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let addresses = |value| {
        let texts = texts(value).into_iter();
        texts.map(|text| text.parse().unwrap()).collect::<Vec<_>>()
    };
    let interfaces = json["interfaces"].as_object().into_iter().flatten();
    let interfaces = interfaces.map(|(name, interface)| {
        let default_routes = texts(&interface["default"]);
        let interface = Interface {
            index: interface["index"].as_u64().unwrap().try_into().unwrap(),
            is_up: interface["down"] != true,
            addresses: addresses(&interface["addresses"]),
            has_default_route_v4: default_routes.iter().any(|family| family == "v4"),
            has_default_route_v6: default_routes.iter().any(|family| family == "v6"),
        };
        (name.clone(), interface)
    });
    let endpoints = json["endpoints"].as_array().into_iter().flatten();
    let endpoints = endpoints.map(|endpoint| Endpoint {
        namespace: text(&endpoint["namespace"]),
        name: text(&endpoint["name"]),
        uid: text(&endpoint["uid"]),
        addresses: addresses(&endpoint["addresses"]),
        labels: endpoint["labels"].as_object().map(|labels| {
            let labels = labels.iter();
            labels
                .map(|(key, value)| (key.clone(), text(value)))
                .collect()
        }),
    });
    Facts {
        node: text(&json["node"]),
        addresses: addresses(&json["addresses"]),
        interfaces: interfaces.collect(),
        pod_cidrs: texts(&json["podCIDRs"])
            .iter()
            .map(|cidr| cidr.parse().unwrap())
            .collect(),
        transport: Transport::Tunnel,
        endpoints: endpoints.collect(),
    }
}

fn render(compiled: &Compiled) -> Value {
    let world = &compiled.world;
    let nodes: Map<String, Value> = world
        .nodes
        .iter()
        .map(|(name, node)| {
            let health = if node.is_healthy { "healthy" } else { "dead" };
            let zone = node.zone.as_deref().unwrap_or("no zone");
            let shown = format!("{} {zone} {health}", strings(&node.addresses).join(","));
            (name.clone(), shown.into())
        })
        .collect();
    let pods: Map<String, Value> = world
        .pods
        .iter()
        .map(|pod| {
            let shown = json!({
                "uid": pod.uid,
                "addresses": strings(&pod.addresses),
                "policies": strings(&pod.policies),
                "undecided": strings(&pod.undecided),
            });
            (pod.key.to_string(), shown)
        })
        .collect();
    let interfaces: BTreeMap<&String, Vec<String>> = world
        .interfaces
        .iter()
        .map(|(name, interface)| (name, strings(&interface.addresses)))
        .collect();
    let statements: Vec<String> = compiled
        .statements
        .iter()
        .map(|(key, s)| {
            format!(
                "{key} {}={:?} {}: {}",
                s.condition_type, s.status, s.reason, s.message
            )
        })
        .collect();
    let health = compiled.health.iter();
    let health: Map<String, Value> = health
        .map(|(id, health)| (id.to_string(), format!("{health:?}").into()))
        .collect();
    let served = compiled.served.iter();
    let served: Map<String, Value> = served
        .map(|(id, served)| (id.to_string(), json!(served)))
        .collect();
    let announce = compiled.announce.iter();
    let announce: Map<String, Value> = announce
        .map(|(id, announce)| (id.to_string(), json!(announce)))
        .collect();
    json!({
        "node": world.node,
        "nodes": nodes,
        "inCluster": strings(&world.in_cluster),
        "interfaces": interfaces,
        "policies": world.policies.iter().map(render_policy).collect::<Vec<_>>(),
        "pods": pods,
        "health": health,
        "announce": announce,
        "served": served,
        "statements": statements,
    })
}

fn render_policy(policy: &Policy) -> Value {
    let groups: Vec<Value> = policy
        .groups
        .iter()
        .map(|group| {
            let addresses = match &group.addresses {
                Addresses::Held {
                    addresses,
                    affinity,
                    interface,
                } => {
                    let ends = match addresses.as_slice() {
                        [first, .., last] if addresses.len() > 4 => {
                            format!("{first} .. {last} ({})", addresses.len())
                        }
                        _ => strings(addresses).join(","),
                    };
                    let device = interface.as_deref().unwrap_or("any device");
                    format!("held {ends} {affinity:?} {device}")
                }
                other => format!("{other:?}"),
            };
            json!({ "nodes": strings(&group.nodes), "addresses": addresses })
        })
        .collect();
    let limits = match policy.limits == Limits::default() {
        true => Value::from("default"),
        false => format!("{:?}", policy.limits).into(),
    };
    json!({
        "id": policy.id.to_string(),
        "destinations": strings(&policy.destinations),
        "exclusions": strings(&policy.exclusions),
        "groups": groups,
        "selection": format!("{:?} {:?}", policy.selection, policy.zones),
        "limits": limits,
    })
}

fn strings<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}
