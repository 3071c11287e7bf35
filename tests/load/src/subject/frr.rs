// SPDX-License-Identifier: Apache-2.0
//! FRR's bgpd without zebra: all next hops are reachable to it.

use std::fmt::Write as _;

use anyhow::Result;

use super::{FOLDER, SPEAKER_ASN, Setup, community, write};
use crate::table::Family;
use crate::world::World;

pub(super) const PROGRAM: &str = "/usr/lib/frr/bgpd";

pub(super) fn prepare(world: &World, setup: &Setup) -> Result<Vec<String>> {
    let mut text = format!(
        "router bgp {SPEAKER_ASN}\n bgp router-id 10.99.255.1\n no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n no bgp network import-check\n"
    );
    let (mut activated, mut policies) = (String::new(), String::new());
    for (number, neighbour) in setup.neighbours.iter().enumerate() {
        let address = neighbour.address;
        writeln!(text, " neighbor {address} remote-as {}", neighbour.asn)?;
        writeln!(text, " neighbor {address} passive")?;
        writeln!(text, " neighbor {address} advertisement-interval 0")?;
        writeln!(text, " neighbor {address} disable-connected-check")?;
        let family = match neighbour.family {
            Family::Ipv4 => "ipv4 unicast",
            Family::Ipv6 => "ipv6 unicast",
            Family::Vpnv4 => "ipv4 vpn",
        };
        writeln!(activated, " address-family {family}")?;
        writeln!(activated, "  neighbor {address} activate")?;
        writeln!(activated, "  neighbor {address} next-hop-self")?;
        if let Some((high, low)) = neighbour.adds.map(community) {
            writeln!(activated, "  neighbor {address} route-map m{number} out")?;
            writeln!(
                policies,
                "route-map m{number} permit 10\n set community {high}:{low} additive\nexit"
            )?;
        }
        activated += " exit-address-family\n";
    }
    writeln!(text, "{activated}exit\n{policies}")?;
    let file = format!("{FOLDER}/frr.conf");
    write(world, &file, &text)?;
    std::fs::create_dir_all(world.root().join("run/bench-frr"))?;
    let address = setup.address.to_string();
    Ok([
        PROGRAM,
        "-n",
        "-Z",
        "-S",
        "-f",
        &file,
        "-i",
        "/run/bench-frr/bgpd.pid",
        "--vty_socket",
        "/run/bench-frr",
        "-A",
        "127.0.0.1",
        "-P",
        "0",
        "-l",
        &address,
        "--log",
        "stdout",
    ]
    .map(str::to_owned)
    .to_vec())
}
