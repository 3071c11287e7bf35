// SPDX-License-Identifier: Apache-2.0
//! Ourselves: the daemon, and the speaker without it.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{SPEAKER_ASN, Setup, community};
use crate::table::Family;
use crate::world::{SPEAKER_V4, SPEAKER_V6, World};

/// What the program `bgp-bench-speaker` reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpeakerFile {
    /// Its AS.
    pub asn: u32,
    /// Where it listens, on port 179.
    pub address: IpAddr,
    /// All peers.
    pub peers: Vec<SpeakerPeer>,
}

/// A peer in [`SpeakerFile`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpeakerPeer {
    /// Where it calls from.
    pub address: IpAddr,
    /// Its AS.
    pub asn: u32,
    /// AFI and SAFI.
    pub family: (u16, u8),
    /// The community that is added to what it is told.
    pub adds: Option<u32>,
}

pub(super) fn speaker(world: &World, setup: &Setup, program: &Path) -> Result<Vec<String>> {
    let file = SpeakerFile {
        asn: SPEAKER_ASN,
        address: setup.address,
        peers: setup
            .neighbours
            .iter()
            .map(|neighbour| SpeakerPeer {
                address: neighbour.address,
                asn: neighbour.asn,
                family: neighbour.family.numbers(),
                adds: neighbour.adds,
            })
            .collect(),
    };
    let path = world.dir().join("speaker.json");
    fs::write(&path, serde_json::to_string(&file)?)?;
    Ok(vec![
        program.display().to_string(),
        path.display().to_string(),
    ])
}

pub(super) fn daemon(world: &World, setup: &Setup, program: &Path) -> Result<Vec<String>> {
    let dir = world.dir().join("causeway");
    let resources = dir.join("resources.d");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&resources)?;
    let settings = dir.join("causeway.yaml");
    let text = settings_yaml(&dir);
    fs::write(&settings, text).with_context(|| format!("cannot write {}", settings.display()))?;
    fs::write(resources.join("bench.yaml"), resources_yaml(setup)?)?;
    Ok(vec![
        program.display().to_string(),
        "--config".to_owned(),
        settings.display().to_string(),
    ])
}

fn settings_yaml(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "nodeName: bench\nnodeAddresses: [\"{SPEAKER_V4}\", \"{SPEAKER_V6}\"]\nresourcesDirectory: {dir}/resources.d\n\
         stateDirectory: {dir}/state\nsocket: {dir}/causeway.sock\nmetricsAddress: \"off\"\n"
    )
}

fn resources_yaml(setup: &Setup) -> Result<String> {
    let mut peers = String::new();
    let mut more = String::new();
    let mut families: Vec<Family> = Vec::new();
    for (number, neighbour) in setup.neighbours.iter().enumerate() {
        let family = neighbour.family;
        let config = match neighbour.adds {
            None => shared_name(family).to_owned(),
            Some(_) => format!("bench-{number}"),
        };
        if neighbour.adds.is_none() && !families.contains(&family) {
            families.push(family);
            more += &peer_config(&config, family, None);
        }
        writeln!(
            peers,
            "        - name: p{number}\n          peerAddress: \"{}\"\n          peerASN: {}\n\
             \x20         peerConfigRef: {{ group: causeway.io, kind: BGPPeerConfig, name: {config} }}",
            neighbour.address, neighbour.asn
        )?;
        if let Some((high, low)) = neighbour.adds.map(community) {
            write!(
                more,
                "---\napiVersion: causeway.io/v1alpha1\nkind: BGPPolicy\nmetadata: {{ name: {config} }}\n\
                 spec:\n  statements:\n    - name: mark\n      set:\n        communities: {{ standard: {{ add: \
                 [\"{high}:{low}\"] }} }}\n      action: Accept\n{}",
                peer_config(&config, family, Some(&config))
            )?;
        }
    }
    Ok(format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: bench\nspec: {{}}\n---\n\
         apiVersion: causeway.io/v1alpha1\nkind: BGPClusterConfig\nmetadata: {{ name: bench }}\n\
         spec:\n  bgpInstances:\n    - name: bench\n      localASN: {SPEAKER_ASN}\n      \
         localPort: 179\n      transit: true\n      \
         installRoutes: false\n      peers:\n{peers}{more}"
    ))
}

/// The name of the settings of all peers without a policy.
fn shared_name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "bench-ipv4",
        Family::Ipv6 => "bench-ipv6",
        Family::Vpnv4 => "bench-vpnv4",
    }
}

fn peer_config(name: &str, family: Family, export: Option<&str>) -> String {
    let (afi, safi) = match family {
        Family::Ipv4 => ("ipv4", "unicast"),
        Family::Ipv6 => ("ipv6", "unicast"),
        Family::Vpnv4 => ("ipv4", "mpls_vpn"),
    };
    let policy = export.map_or_else(String::new, |policy| {
        format!(", policyRef: {{ name: {policy} }}")
    });
    let next_hop = match family {
        Family::Ipv4 | Family::Ipv6 => "Self",
        Family::Vpnv4 => "Unchanged",
    };
    format!(
        "---\napiVersion: causeway.io/v1alpha1\nkind: BGPPeerConfig\nmetadata: {{ name: {name} }}\n\
         spec:\n  passive: true\n  families:\n    - afi: {afi}\n      safi: {safi}\n      \
         import: {{ mode: All }}\n      export: {{ nextHop: {next_hop}{policy} }}\n"
    )
}
