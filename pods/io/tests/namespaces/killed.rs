// SPDX-License-Identifier: Apache-2.0
//! The manager killed with SIGKILL at any moment.
//!
//! The test runs itself a second time as the process to be killed: `works_until_killed` is that
//! process' part and does nothing on its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{LIMIT, Node, Pod, assert_same};
use bpf_loader::Datapath;
use pods_core::Attachment;
use pods_io::{Config, Manager, StateFolder};
use router_netlink::Netns;

const CIDRS: [&str; 2] = ["10.203.0.0/28", "fd00:203::/64"];
const ROUNDS: u32 = 12;
const NODE: &str = "CAUSEWAY_TEST_NODE";
const STATE: &str = "CAUSEWAY_TEST_STATE";
const PINS: &str = "CAUSEWAY_TEST_PINS";
const PODS: &str = "CAUSEWAY_TEST_PODS";

#[test]
fn no_moment_is_a_bad_one() {
    let mut node = Node::new(&CIDRS);
    let pods: Vec<Pod> = (0..6).map(|_| Pod::new()).collect();
    let names: Vec<&str> = pods.iter().map(|p| p.netns.name.as_str()).collect();
    node.start();
    let before = node.traces();
    node.stop();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "killed::works_until_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(NODE, &node.netns.name)
            .env(STATE, &node.state_directory)
            .env(PINS, &node.pin_root)
            .env(PODS, names.join(","))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = BTreeMap::new();
        let mut note = |line: String| match line.split_once(' ') {
            Some(("added", rest)) => {
                let (name, addresses) = rest.split_once(' ').unwrap();
                told.insert(name.to_owned(), Some(addresses.to_owned()));
            }
            // From here on either is right.
            Some(("deleting", name)) => drop(told.remove(name)),
            Some(("deleted", name)) => drop(told.insert(name.to_owned(), None)),
            Some(("adding", name)) => drop(told.remove(name)),
            _ => {}
        };
        for _ in 0..round * 5 {
            note(
                lines
                    .next()
                    .expect("the child works until it is killed")
                    .unwrap(),
            );
        }
        // Somewhere within the next operation, which takes a few milliseconds.
        let moment = Instant::now() + Duration::from_micros(u64::from(round) * 613);
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        lines.map_while(Result::ok).for_each(&mut note);

        let report = node.start();
        assert_eq!(report.resync.failed, [], "round {round}");
        assert_eq!(
            (report.damage.len(), report.contradicted.len()),
            (0, 0),
            "round {round}"
        );
        let views = node.wait(node.manager().list()).unwrap();
        let mut seen = BTreeSet::new();
        for view in &views {
            for address in &view.endpoint.addresses {
                assert!(seen.insert(*address), "round {round}: {address} twice");
            }
        }
        for pod in &pods {
            let view = views
                .iter()
                .find(|v| v.endpoint.attachment == pod.attachment);
            match told.get(&pod.netns.name) {
                Some(Some(addresses)) => {
                    let there = view.expect("the runtime was told of this pod");
                    assert_eq!(format!("{:?}", there.endpoint.addresses), *addresses);
                }
                Some(None) => assert!(view.is_none(), "round {round}: deleted and back again"),
                None => {}
            }
            if view.is_some() {
                node.check(pod).unwrap();
            }
        }
        let devices = node
            .traces()
            .iter()
            .filter(|t| t.starts_with("link cw"))
            .count();
        assert_eq!(devices, views.len(), "round {round}");
        node.stop();
    }
    node.start();
    for pod in &pods {
        node.del(pod);
    }
    assert_same(&node.traces(), &before);
}

#[test]
#[ignore = "the part of the process that no_moment_is_a_bad_one kills"]
fn works_until_killed() {
    let Ok(node) = std::env::var(NODE) else {
        return;
    };
    let variable = |name| std::env::var(name).expect("set by the parent");
    let config = Config {
        pod_cidrs: CIDRS.iter().map(|c| c.parse().unwrap()).collect(),
        ..Config::new().unwrap()
    };
    let pin_root = variable(PINS).into();
    let folder = StateFolder::take(Path::new(&variable(STATE)), LIMIT).unwrap();
    let (manager, _) = Netns::named(&node)
        .unwrap()
        .run(|| {
            let datapath = Datapath::open(bpf_loader::Config {
                pin_root,
                ..Default::default()
            })
            .unwrap();
            Manager::start(config, folder, Arc::new(Mutex::new(datapath))).unwrap()
        })
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let names = variable(PODS);
    let names: Vec<&str> = names.split(',').collect();
    loop {
        for name in &names {
            println!("adding {name}");
            let attachment = Attachment::new(name, "eth0").unwrap();
            let netns = format!("/run/netns/{name}").into();
            let adding = manager.add(attachment, "causeway".to_owned(), netns, None, Vec::new());
            let endpoint = runtime.block_on(adding).unwrap();
            println!("added {name} {:?}", endpoint.addresses);
        }
        for name in names.iter().rev() {
            println!("deleting {name}");
            let attachment = Attachment::new(name, "eth0").unwrap();
            runtime.block_on(manager.del(attachment)).unwrap();
            println!("deleted {name}");
        }
    }
}
