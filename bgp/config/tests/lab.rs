// SPDX-License-Identifier: Apache-2.0
//! The resources and settings of the lab's topologies are read without a finding, and every peer
//! in them is run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bgp_config::{NodeFacts, Options, compile};
use router_resources::{Settings, check};

fn folders(of: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(of)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.retain(|path| path.is_dir());
    found.sort();
    found
}

#[test]
fn every_node_of_every_topology_runs_all_its_peers() {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../lab/containerlab");
    let mut nodes = 0;
    for topology in folders(&lab) {
        // Its peers are found on the running node: the interop suite does that.
        if topology.ends_with("discovery") {
            continue;
        }
        let report = check(&[topology.join("resources.d")]);
        let findings: Vec<String> = report.diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(findings, [""; 0]);
        let files = folders(&topology)
            .into_iter()
            .map(|node| node.join("causeway.yaml"));
        for file in files.filter(|file| file.exists()) {
            let effective = Settings::load(Some(&file), Vec::new()).unwrap();
            let settings = &effective.settings;
            let facts = NodeFacts::gather(
                &settings.node_name,
                &settings.node_addresses,
                &settings.pod_cidrs,
                &report.snapshot,
                BTreeMap::new(),
            );
            let compiled = compile(&report.snapshot, &facts, &Options::default());
            assert_eq!(compiled.skipped, [], "{}", file.display());
            assert!(
                compiled
                    .instances
                    .iter()
                    .any(|i| !i.config.peers().is_empty())
            );
            nodes += 1;
        }
    }
    assert!(
        nodes >= 5,
        "only {nodes} nodes found under {}",
        lab.display()
    );
}
