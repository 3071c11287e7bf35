// SPDX-License-Identifier: Apache-2.0
//! BIRD 2 and 3.

use std::fmt::Write as _;

use anyhow::Result;

use super::{FOLDER, SPEAKER_ASN, Setup, community, write};
use crate::table::Family;
use crate::world::World;

pub(super) const BIRD2: &str = "/opt/bird2/usr/sbin/bird";
pub(super) const BIRD3: &str = "/usr/sbin/bird";

pub(super) fn prepare(world: &World, setup: &Setup, program: &str) -> Result<Vec<String>> {
    let mut text =
        "log stderr { warning, error, fatal, bug };\nrouter id 10.99.255.1;\n".to_owned();
    if program == BIRD3 {
        let processors = std::thread::available_parallelism()?;
        writeln!(text, "threads {processors};")?;
    }
    text += "protocol device { scan time 60; }\n";
    if setup.neighbours.iter().any(|n| n.family == Family::Vpnv4) {
        text += "vpn4 table vpns;\n";
    }
    for (number, neighbour) in setup.neighbours.iter().enumerate() {
        let export = match neighbour.adds.map(community) {
            None => "export all;".to_owned(),
            Some((high, low)) => {
                format!("export filter {{ bgp_community.add(({high},{low})); accept; }};")
            }
        };
        let (channel, table) = match neighbour.family {
            Family::Ipv4 => ("ipv4", ""),
            Family::Ipv6 => ("ipv6", ""),
            Family::Vpnv4 => ("vpn4 mpls", "table vpns; "),
        };
        writeln!(
            text,
            "protocol bgp p{number} {{ local {} as {SPEAKER_ASN}; neighbor {} as {}; passive on; \
             hold time 90; {channel} {{ {table}import all; {export} next hop self; }}; }}",
            setup.address, neighbour.address, neighbour.asn
        )?;
    }
    let file = format!("{FOLDER}/bird.conf");
    write(world, &file, &text)?;
    let arguments = ["-f", "-c", &file, "-s", "/run/bench-bird.ctl"];
    Ok(std::iter::once(program)
        .chain(arguments)
        .map(str::to_owned)
        .collect())
}
