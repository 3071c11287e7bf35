// SPDX-License-Identifier: Apache-2.0
//! Golden runs: each folder under `golden` has resources, facts about a node and the outcome.
//! `UPDATE_GOLDEN=1` rewrites the outcomes; the diff is the review.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bgp_config::{
    Compiled, DefaultGateway, InterfaceFacts, NodeFacts, OperState, Options, compile,
};
use bgp_core::config::{FamilyConfig, InstanceConfig, PeerConfig};
use router_resources::{Snapshot, check};
use serde_json::{Value, json};

#[test]
fn every_folder_compiles_to_its_outcome() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut folders: Vec<PathBuf> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    assert!(folders.len() >= 8, "{folders:?}");
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
    let facts = facts(folder, &report.snapshot);
    compile(&report.snapshot, &facts, &Options::default())
}

fn facts(folder: &Path, snapshot: &Snapshot) -> NodeFacts {
    let text = fs::read_to_string(folder.join("node.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let addresses = |value| {
        texts(value)
            .iter()
            .map(|t| t.parse().unwrap())
            .collect::<Vec<_>>()
    };
    let interfaces: BTreeMap<String, InterfaceFacts> = json["interfaces"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, interface)| {
            let oper_state = match interface["oper"].as_str().unwrap() {
                "up" => OperState::Up,
                "unknown" => OperState::Unknown,
                "down" => OperState::Down,
                other => panic!("{other}"),
            };
            let addresses = addresses(&interface["addresses"]);
            (
                name.clone(),
                InterfaceFacts {
                    is_admin_up: true,
                    oper_state,
                    addresses,
                },
            )
        })
        .collect();
    let pod_cidrs: Vec<_> = texts(&json["podCIDRs"])
        .iter()
        .map(|t| t.parse().unwrap())
        .collect();
    let name = json["name"].as_str().unwrap();
    let mut facts = NodeFacts::gather(
        name,
        &addresses(&json["addresses"]),
        &pod_cidrs,
        snapshot,
        interfaces,
    );
    for gateway in texts(&json["defaultGateways"]) {
        let (address, interface) = gateway.split_once('%').unwrap();
        facts.default_gateways.push(DefaultGateway {
            address: address.parse().unwrap(),
            interface: interface.to_owned(),
        });
    }
    for (interface, router) in json["linkRouters"].as_object().into_iter().flatten() {
        let router = router.as_str().unwrap().parse().unwrap();
        facts.link_routers.insert(interface.clone(), router);
    }
    facts
}

/// The fields that are not what they are without being written.
fn unlike(value: &Value, default: &Value, shown: &[&str]) -> Value {
    let fields = value.as_object().unwrap().iter();
    let unlike = fields.filter(|(name, value)| {
        default[name.as_str()] != **value && !shown.contains(&name.as_str())
    });
    Value::Object(unlike.map(|(k, v)| (k.clone(), v.clone())).collect())
}

fn render(compiled: &Compiled) -> Value {
    let instances: Vec<Value> = compiled
        .instances
        .iter()
        .map(|instance| {
            let config = &instance.config;
            let peers: serde_json::Map<String, Value> = config
                .peers()
                .iter()
                .map(|(name, peer)| (name.to_string(), render_peer(peer)))
                .collect();
            let routes: serde_json::Map<String, Value> = instance
                .routes
                .iter()
                .map(|route| {
                    let told = route.peers.iter().map(|(peer, attributes)| {
                        let attributes = serde_json::to_value(attributes).unwrap();
                        (peer.to_string(), attributes)
                    });
                    (route.prefix().to_string(), Value::Object(told.collect()))
                })
                .collect();
            let default = InstanceConfig::new(
                config.name().clone(),
                config.local_asn(),
                config.router_id(),
            );
            let shown = ["listen", "peers"];
            json!({
                "settings": unlike(&json!(config), &json!(default.unwrap()), &shown),
                "name": config.name().to_string(),
                "localAsn": config.local_asn().0,
                "routerId": config.router_id().to_string(),
                "listen": config.listen.as_ref().map(|listen| listen.port),
                "peers": peers,
                "routes": routes,
            })
        })
        .collect();
    let skipped: Vec<String> = compiled
        .skipped
        .iter()
        .map(|s| format!("{}/{} ({:?}): {}", s.instance, s.peer, s.address, s.why))
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
    json!({
        "instances": instances,
        "skipped": skipped,
        "statements": statements,
        "nodeConfig": compiled.node_config.as_ref().map(|c| {
            json!({ "owner": c.owner.to_string(), "spec": c.spec })
        }),
    })
}

fn render_peer(peer: &PeerConfig) -> Value {
    let families: serde_json::Map<String, Value> = peer
        .families()
        .iter()
        .map(|(family, config)| {
            let import = format!("{:?}", config.import);
            let settings = unlike(&json!(config), &json!(FamilyConfig::default()), &["import"]);
            let shown = match settings.as_object() {
                Some(none) if none.is_empty() => json!(import),
                _ => json!({ "import": import, "settings": settings }),
            };
            (family.to_string(), shown)
        })
        .collect();
    let shown = [
        "families",
        "timers",
        "graceful_restart",
        "connect",
        "password",
        "port",
        "asn",
        "ttl",
        "local_address",
    ];
    json!({
        "settings": unlike(&json!(peer), &json!(PeerConfig::new(peer.address.clone())), &shown),
        "address": peer.address.to_string(),
        "port": peer.port,
        "asn": peer.asn.map(|asn| asn.0),
        "localAddress": peer.local_address,
        "password": peer.password.as_ref().map(|p| String::from_utf8_lossy(p.reveal()).into_owned()),
        "timers": format!(
            "retry {} s, hold {} s, keepalive {} s",
            peer.timers.connect_retry().as_secs(),
            peer.timers.hold_s(),
            peer.timers.keepalive().as_secs()
        ),
        "ttl": peer.ttl(),
        "connect": format!("{:?}", peer.connect),
        "gracefulRestart": peer.graceful_restart.map(|g| g.restart_time_s()),
        "families": families,
    })
}
