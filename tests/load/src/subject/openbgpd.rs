// SPDX-License-Identifier: Apache-2.0
//! OpenBGPD: three processes.

use std::fmt::Write as _;

use anyhow::Result;

use super::{FOLDER, SPEAKER_ASN, Setup, community, write};
use crate::table::Family;
use crate::world::World;

pub(super) const PROGRAM: &str = "/usr/sbin/bgpd";

pub(super) fn prepare(world: &World, setup: &Setup) -> Result<Vec<String>> {
    let mut text = format!(
        "AS {SPEAKER_ASN}\nrouter-id 10.99.255.1\nlisten on {}\nfib-update no\n\
         socket \"/run/bench-bgpd.sock\"\n",
        setup.address
    );
    for neighbour in &setup.neighbours {
        let family = match neighbour.family {
            Family::Ipv4 => "IPv4 unicast",
            Family::Ipv6 => "IPv6 unicast",
            Family::Vpnv4 => "IPv4 vpn",
        };
        writeln!(
            text,
            "neighbor {} {{\n remote-as {}\n passive\n holdtime 90\n announce IPv4 none\n \
             announce IPv6 none\n announce {family}\n}}",
            neighbour.address, neighbour.asn
        )?;
    }
    text += "allow from any\nallow to any\nmatch to any set nexthop self\n";
    for neighbour in &setup.neighbours {
        if let Some((high, low)) = neighbour.adds.map(community) {
            let address = neighbour.address;
            writeln!(text, "match to {address} set community {high}:{low}")?;
        }
    }
    let file = format!("{FOLDER}/bgpd.conf");
    write(world, &file, &text)?;
    std::fs::create_dir_all(world.root().join("run/openbgpd"))?;
    Ok([PROGRAM, "-d", "-f", &file].map(str::to_owned).to_vec())
}
