// SPDX-License-Identifier: Apache-2.0
//! A speaker as bgp-core has it, or a scripted neighbour: the same sessions, but no tables.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use bgp_core::config::{
    ExportAttributes, FamilyConfig, GracefulRestart, ImportMode, ImportPolicy, InstanceConfig,
    LocalRoutes, PeerAddress, PeerConfig, Timers, Transit,
};
use bgp_core::peer::{ConnId, LocalSpeaker, Peer};
use bgp_core::rib::{BestRoute, Rib, RibInput, SessionInfo};
use bgp_wire::{
    AsPath, Community, FamilyContext, NlriEntry, Origin, PathAttributes, PathNextHop, announce,
    withdraw,
};
use ipnet::IpNet;
use router_types::{Asn, Family};

use crate::case::{Case, Said};
use crate::model::Routes;
use crate::topology::{End, STRANGER_ASN, Topology, name, prefix};

/// What is so about a node, crash or not: its configuration and what it originates.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    pub(crate) locals: BTreeSet<IpNet>,
    pub(crate) said: BTreeMap<u8, Said>,
    /// Links nothing is taken from.
    pub(crate) closed: BTreeSet<usize>,
    /// Links whose session is shut down.
    pub(crate) shut: BTreeSet<usize>,
    pub(crate) metrics: BTreeMap<IpAddr, Option<u32>>,
}

/// A node between two crashes.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) config: InstanceConfig,
    /// By link.
    pub(crate) sessions: BTreeMap<usize, Session>,
    pub(crate) tables: Option<Tables>,
}

/// A neighbour of a node.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) peer: Peer,
    /// The wire of each connection.
    pub(crate) wires: BTreeMap<ConnId, u64>,
    pub(crate) dials: BTreeSet<ConnId>,
    pub(crate) established: Option<ConnId>,
    pub(crate) epoch: u64,
    pub(crate) calls: u64,
    /// When something came last on the session's connection.
    pub(crate) heard_at: Instant,
    /// When a KEEPALIVE was sent last.
    pub(crate) said_at: Option<Instant>,
    /// What a scripted neighbour was told.
    pub(crate) told: Routes,
}

/// The tables and what waits for them.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) rib: Rib,
    pub(crate) queue: VecDeque<ForRib>,
    /// Whether they have a turn to come.
    pub(crate) is_due: bool,
    /// Whether some neighbour has to take what is under way first.
    pub(crate) is_blocked: bool,
    /// The session each neighbour has as the tables know it, by link.
    pub(crate) epochs: BTreeMap<usize, u64>,
    /// What the kernel would have by now.
    pub(crate) kernel: BTreeMap<IpNet, BestRoute>,
}

/// What the tables are told.
#[derive(Debug)]
pub(crate) enum ForRib {
    Input(RibInput),
    Up {
        link: usize,
        session: Box<SessionInfo>,
        epoch: u64,
    },
}

impl Node {
    pub(crate) fn new(
        case: &Case,
        topology: &Topology,
        number: usize,
        standing: &Standing,
        restarted: bool,
        now: Instant,
    ) -> Node {
        let plan = &topology.nodes[number];
        let config = config(case, topology, number, standing);
        let preserved = restarted && case.restart_s.is_some();
        let session = |link: usize| {
            let local = LocalSpeaker {
                asn: Asn(plan.asn),
                router_id: plan.router_id,
                restarted: preserved,
                forwarding_preserved: preserved,
            };
            let peer = config.peers()[&name(link)].clone();
            let seed = case.seed ^ (number as u64) << 8 ^ link as u64;
            Session {
                peer: Peer::new(name(link), peer, local, seed, now),
                wires: BTreeMap::new(),
                dials: BTreeSet::new(),
                established: None,
                epoch: 0,
                calls: 0,
                heard_at: now,
                said_at: None,
                told: Routes::new(),
            }
        };
        let links = topology.links_of(number);
        let sessions = links.map(|(link, _)| (link, session(link))).collect();
        let tables = plan.is_speaker.then(|| Tables {
            rib: Rib::new(config.clone(), now),
            queue: VecDeque::new(),
            is_due: false,
            is_blocked: false,
            epochs: BTreeMap::new(),
            kernel: BTreeMap::new(),
        });
        Node {
            config,
            sessions,
            tables,
        }
    }
}

/// The configuration of a node as things stand.
pub(crate) fn config(
    case: &Case,
    topology: &Topology,
    number: usize,
    standing: &Standing,
) -> InstanceConfig {
    let plan = &topology.nodes[number];
    let mut config = InstanceConfig::new("simulated".into(), Asn(plan.asn), plan.router_id)
        .expect("AS and identifier are not 0");
    config.transit = Transit::Allowed;
    for (link, end) in topology.links_of(number) {
        let there = &topology.links[link][1 - end];
        let address = PeerAddress::new(there.v4.into(), None).expect("a unicast address");
        let family = FamilyConfig {
            import: ImportPolicy {
                mode: if standing.closed.contains(&link) {
                    ImportMode::None
                } else {
                    ImportMode::All
                },
            },
            ..FamilyConfig::default()
        };
        let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
        let families = families.map(|each| (each, family.clone())).into();
        let mut peer = PeerConfig::new(address)
            .with_families(families)
            .expect("two families");
        peer.asn = Some(Asn(topology.nodes[there.node].asn));
        peer.timers = Timers::new(5, case.hold_s, case.hold_s / 3).expect("timers in range");
        let restart = |seconds| GracefulRestart::new(seconds).expect("seconds in range");
        peer.graceful_restart = case.restart_s.map(restart);
        peer.route_reflector_client = topology.links[link][end].has_client;
        peer.shutdown = standing.shut.contains(&link).then(String::new);
        config
            .add_peer(name(link), peer)
            .expect("each link has its own name and addresses");
    }
    config
}

/// A speaker's own destinations, for all its neighbours.
pub(crate) fn local_routes(topology: &Topology, number: usize, standing: &Standing) -> LocalRoutes {
    let mut routes = LocalRoutes::default();
    for prefix in &standing.locals {
        for (link, _) in topology.links_of(number) {
            routes.add(*prefix, name(link), ExportAttributes::default());
        }
    }
    routes
}

/// The UPDATE in which a scripted neighbour says something, with more attributes at the end.
pub(crate) fn say(out: &mut Vec<u8>, here: &End, number: u8, said: &Said, more: &[u8]) {
    let prefix = prefix(number);
    let mut path = vec![Asn(STRANGER_ASN)];
    path.extend(said.path.iter().map(|asn| Asn(*asn)));
    let attributes = PathAttributes {
        origin: Origin::from_code(said.origin),
        as_path: Some(AsPath::from_sequence(path)),
        med: said.med,
        communities: said.communities.iter().copied().map(Community).collect(),
        ..PathAttributes::default()
    };
    let mut encoded = Vec::new();
    attributes.encode(true, &mut encoded);
    encoded.extend_from_slice(more);
    let hop = PathNextHop::from_address(here.next_hop(&prefix));
    announce(
        out,
        &context(&prefix),
        bgp_wire::frame::MAX_LEN,
        &encoded,
        hop,
        [entry(prefix)],
    )
    .expect("one prefix and a few attributes fit");
}

/// The UPDATE in which it takes something back.
pub(crate) fn unsay(out: &mut Vec<u8>, number: u8) {
    let prefix = prefix(number);
    let max_len = bgp_wire::frame::MAX_LEN;
    withdraw(out, &context(&prefix), max_len, [entry(prefix)]);
}

fn context(prefix: &IpNet) -> FamilyContext {
    FamilyContext::plain(match prefix {
        IpNet::V4(_) => Family::IPV4_UNICAST,
        IpNet::V6(_) => Family::IPV6_UNICAST,
    })
}

fn entry(prefix: IpNet) -> NlriEntry {
    NlriEntry {
        path_id: None,
        prefix,
    }
}
