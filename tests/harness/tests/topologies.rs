// SPDX-License-Identifier: Apache-2.0
//! Every topology of `lab/containerlab`: valid to containerlab, to our runner, and with manifests
//! that the daemon takes.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use harness::root;
use lab_runner::{Topology, image::Image, topology::Bind};
use router_resources::{
    check,
    settings::{Effective, Inputs},
};

/// Containerlab's published schema, in a folder above the checkout where the project keeps one.
const SCHEMA: &str = "shared/reference/clab.schema.json";

fn topology_files() -> Result<Vec<PathBuf>> {
    let root = root()?;
    let mut files = Vec::new();
    for folder in [root.join("lab/containerlab"), root.join("lab/runner/tests")] {
        for entry in fs::read_dir(&folder)?
            .flatten()
            .filter(|entry| entry.path().is_dir())
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            let file = entry.path().join(format!("{name}.clab.yml"));
            ensure!(
                file.is_file(),
                "{} has no {name}.clab.yml",
                entry.path().display()
            );
            files.push(file);
        }
    }
    ensure!(files.len() >= 4, "only {} topologies found", files.len());
    Ok(files)
}

#[test]
fn topologies_are_valid_to_containerlab() -> Result<()> {
    let root = root()?;
    let Some(schema) = root
        .ancestors()
        .map(|dir| dir.join(SCHEMA))
        .find(|path| path.is_file())
    else {
        println!("not validated: no {SCHEMA} above this checkout");
        return Ok(());
    };
    let schema: serde_json::Value = serde_json::from_str(&fs::read_to_string(schema)?)?;
    let validator = jsonschema::validator_for(&schema).context("the schema itself")?;
    let mut complaints = Vec::new();
    for file in topology_files()? {
        let text = fs::read_to_string(&file)?;
        let value: serde_json::Value =
            serde_saphyr::from_str(&text).map_err(|error| anyhow::anyhow!("{error}"))?;
        for error in validator.iter_errors(&value) {
            complaints.push(format!(
                "{}: {}: {error}",
                file.display(),
                error.instance_path
            ));
        }
    }
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    let broken =
        serde_json::json!({ "name": "x", "topology": { "nodes": { "a": { "kind": 7 } } } });
    ensure!(!validator.is_valid(&broken), "the schema accepts anything");
    Ok(())
}

#[test]
fn the_runner_can_play_every_topology() -> Result<()> {
    for file in topology_files()? {
        let topology = Topology::read(&file)?;
        ensure!(
            !topology.links.is_empty(),
            "{} has no links",
            file.display()
        );
        ensure!(
            topology.notes.is_empty(),
            "{}: {:?}",
            file.display(),
            topology.notes
        );
    }
    Ok(())
}

#[test]
fn manifests_and_settings_of_our_nodes_are_accepted() -> Result<()> {
    let mut checked = 0;
    for file in topology_files()? {
        let topology = Topology::read(&file)?;
        for (name, node) in topology.nodes {
            if node.image() != Some(Image::Causeway) {
                continue;
            }
            let source = |target: &str| -> Result<&Bind> {
                let bind = node
                    .binds
                    .iter()
                    .find(|bind| bind.target.as_os_str() == target);
                bind.with_context(|| format!("{}: {name} lacks {target}", file.display()))
            };
            let report = check(&[source("/etc/causeway/resources.d")?.source.clone()]);
            ensure!(
                report.diagnostics.is_empty(),
                "{name}: {:#?}",
                report.diagnostics
            );
            // A node that runs systemd copies them to where a test may change them.
            let settings = source("/etc/causeway/causeway.yaml")
                .or_else(|missing| source("/etc/lab/causeway.yaml").map_err(|_| missing))?;
            let settings = &settings.source;
            let effective = Effective::resolve(Inputs {
                file: Some((settings.clone(), fs::read(settings)?)),
                host_name: "another".into(),
                ..Inputs::default()
            });
            let effective = effective.map_err(|findings| anyhow::anyhow!("{findings:#?}"))?;
            ensure!(
                effective.settings.node_name == name,
                "{} names {name}",
                settings.display()
            );
            checked += 1;
        }
    }
    ensure!(checked >= 5, "only {checked} nodes of ours were found");
    Ok(())
}
