// SPDX-License-Identifier: Apache-2.0
//! How long the tables take for a million prefixes of one neighbour, passed on to another one, and
//! for their withdrawal; without sockets and threads.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use bgp_core::config::{
    FamilyConfig, ImportMode, ImportPolicy, InstanceConfig, PeerAddress, PeerConfig, PeerName,
    Transit,
};
use bgp_core::peer::SessionAddresses;
use bgp_core::rib::{Rib, RibInput, SessionFamily, SessionInfo};
use bgp_core::routes::{NextHopAddress, RouteBatch};
use bgp_wire::{AsPath, Community, Nlri, Origin, PathAttributes};
use router_types::{Asn, Family};

const PREFIXES: usize = 1_000_000;
const SETS: usize = 134_000;

fn main() {
    let now = Instant::now();
    let receivers: usize = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .next()
        .unwrap_or(1);
    let mut rib = Rib::new(config(receivers), now);
    for number in 0..=receivers {
        let peer = name(number);
        rib.handle(
            RibInput::PeerUp {
                peer,
                session: session(number),
            },
            now,
        );
    }
    rib.handle(RibInput::LocalRoutes(Default::default()), now);
    let batches = batches();
    let bytes: usize = batches.iter().map(RouteBatch::size).sum();
    println!(
        "{} batches, {bytes} bytes, {} MiB resident",
        batches.len(),
        resident() >> 20
    );

    let start = Instant::now();
    let (mut sent, mut updates) = (0, 0);
    for batch in batches {
        rib.handle(
            RibInput::Routes {
                peer: name(0),
                changes: batch,
            },
            now,
        );
        for number in 0..=receivers {
            while let Some(transmit) = rib.poll_transmit(&name(number)) {
                sent += transmit.bytes.len();
                updates += transmit.updates;
            }
        }
    }
    let stats = rib.stats();
    println!(
        "announced in {:?}: {} routes, {} sets, {sent} bytes in {updates} UPDATEs, {} MiB of tables, {} MiB resident",
        start.elapsed(),
        stats.routes,
        stats.attribute_sets,
        stats.memory_bytes >> 20,
        resident() >> 20
    );
    let start = Instant::now();
    rib.handle(
        RibInput::PeerDown {
            peer: name(0),
            keep_routes: None,
        },
        now,
    );
    let (mut sent, mut updates) = (0, 0);
    for number in 1..=receivers {
        while let Some(transmit) = rib.poll_transmit(&name(number)) {
            sent += transmit.bytes.len();
            updates += transmit.updates;
        }
    }
    println!(
        "withdrawn in {:?}: {sent} bytes in {updates} UPDATEs, {} routes, {} bytes of tables, {} MiB resident",
        start.elapsed(),
        rib.stats().routes,
        rib.stats().memory_bytes,
        resident() >> 20
    );
}

fn name(number: usize) -> PeerName {
    PeerName::from(format!("peer{number}").as_str())
}

fn config(receivers: usize) -> InstanceConfig {
    let id = Ipv4Addr::new(10, 0, 0, 1);
    let mut config = InstanceConfig::new("bench".into(), Asn(65_000), id).expect("valid");
    config.transit = Transit::Allowed;
    config.install_routes = false;
    for number in 0..=receivers {
        let ip = Ipv4Addr::new(10, 0, 1, number as u8);
        let family = FamilyConfig {
            import: ImportPolicy {
                mode: ImportMode::All,
            },
            ..FamilyConfig::default()
        };
        let families = [(Family::IPV4_UNICAST, family)].into();
        let peer = PeerConfig::new(PeerAddress::new(ip.into(), None).expect("valid"));
        let peer = peer.with_families(families).expect("valid");
        config.add_peer(name(number), peer).expect("valid");
    }
    config
}

fn session(number: usize) -> Box<SessionInfo> {
    let ip = Ipv4Addr::new(10, 0, 1, number as u8);
    Box::new(SessionInfo {
        peer_asn: Asn(65_001 + number as u32),
        peer_router_id: ip,
        internal: false,
        four_octet_as: true,
        max_len: 4096,
        families: vec![SessionFamily {
            family: Family::IPV4_UNICAST,
            extended_next_hop: false,
            graceful: false,
            forwarding_preserved: false,
            add_path_receive: false,
            add_path_send: false,
        }],
        addresses: SessionAddresses {
            local: "10.0.0.1:179".parse().expect("valid"),
            remote: SocketAddr::new(ip.into(), 179),
            link: None,
            link_ipv4: None,
            link_ipv6: None,
            network: None,
        },
        local_asn: None,
        role: None,
        long_lived: false,
        enhanced_refresh: false,
    })
}

/// Prefixes of /24 in no order, by sets of attributes, some sixty kilobytes a batch.
fn batches() -> Vec<RouteBatch> {
    let mut seed = 1u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut order: Vec<u32> = (0..PREFIXES as u32).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, (random() % (i as u64 + 1)) as usize);
    }
    let hop = NextHopAddress {
        address: Ipv4Addr::new(10, 0, 1, 0).into(),
        link_local: None,
    };
    let (mut batches, mut batch) = (Vec::new(), RouteBatch::new());
    for set in 0..SETS {
        let hops = (0..random() % 8).map(|_| Asn(1 + (random() % 60_000) as u32));
        let path = std::iter::once(Asn(65_001)).chain(hops);
        let attributes = PathAttributes {
            origin: Some(Origin::Igp),
            as_path: Some(AsPath::from_sequence(path)),
            communities: (0..random() % 4)
                .map(|_| Community(random() as u32 >> 1))
                .collect(),
            ..PathAttributes::default()
        };
        let (at, ()) = batch.push_attributes(|out| attributes.encode(true, out));
        let mine = &order[set * PREFIXES / SETS..(set + 1) * PREFIXES / SETS];
        let mut bytes = Vec::new();
        for &prefix in mine {
            bytes.push(24);
            bytes.extend_from_slice(&(0x0100_0000 + (prefix << 8)).to_be_bytes()[..3]);
        }
        let nlri = Nlri::parse(Family::IPV4_UNICAST, false, &bytes).expect("valid");
        batch.announce(at, hop, nlri);
        if batch.size() > 60_000 {
            batches.push(std::mem::take(&mut batch));
        }
    }
    batches.push(batch);
    batches
}

fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = text
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    pages * 4096
}
