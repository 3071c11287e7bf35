// SPDX-License-Identifier: Apache-2.0
//! GoBGP.

use std::fmt::Write as _;

use anyhow::Result;

use super::{FOLDER, SPEAKER_ASN, Setup, community, write};
use crate::table::Family;
use crate::world::World;

pub(super) const PROGRAM: &str = "/usr/bin/gobgpd";

pub(super) fn prepare(world: &World, setup: &Setup) -> Result<Vec<String>> {
    let mut text = format!(
        "[global.config]\nas = {SPEAKER_ASN}\nrouter-id = \"10.99.255.1\"\n\
         local-address-list = [\"{}\"]\n",
        setup.address
    );
    let (mut policies, mut names) = (String::new(), Vec::new());
    let mut neighbours = String::new();
    for (number, neighbour) in setup.neighbours.iter().enumerate() {
        let (address, asn) = (neighbour.address, neighbour.asn);
        let family = match neighbour.family {
            Family::Ipv4 => "ipv4-unicast",
            Family::Ipv6 => "ipv6-unicast",
            Family::Vpnv4 => "l3vpn-ipv4-unicast",
        };
        writeln!(
            neighbours,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = {asn}\n\
             [neighbors.transport.config]\npassive-mode = true\n\
             [neighbors.timers.config]\nhold-time = 90\nkeepalive-interval = 30\n\
             [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{family}\""
        )?;
        if let Some((high, low)) = neighbour.adds.map(community) {
            names.push(format!("\"p{number}\""));
            let bits = if address.is_ipv4() { 32 } else { 128 };
            writeln!(
                policies,
                "[[defined-sets.neighbor-sets]]\nneighbor-set-name = \"n{number}\"\n\
                 neighbor-info-list = [\"{address}/{bits}\"]\n\
                 [[policy-definitions]]\nname = \"p{number}\"\n\
                 [[policy-definitions.statements]]\n\
                 [policy-definitions.statements.conditions.match-neighbor-set]\n\
                 neighbor-set = \"n{number}\"\n\
                 [policy-definitions.statements.actions.bgp-actions.set-community]\n\
                 options = \"add\"\n\
                 [policy-definitions.statements.actions.bgp-actions.set-community.\
                 set-community-method]\ncommunities-list = [\"{high}:{low}\"]"
            )?;
        }
    }
    if !names.is_empty() {
        writeln!(
            text,
            "[global.apply-policy.config]\nexport-policy-list = [{}]\n\
             default-export-policy = \"accept-route\"",
            names.join(", ")
        )?;
    }
    text += &neighbours;
    text += &policies;
    let file = format!("{FOLDER}/gobgpd.toml");
    write(world, &file, &text)?;
    Ok([
        PROGRAM,
        "-t",
        "toml",
        "-f",
        &file,
        "--api-hosts",
        "127.0.0.1:50051",
        "-l",
        "warn",
        "--pprof-disable",
    ]
    .map(str::to_owned)
    .to_vec())
}
