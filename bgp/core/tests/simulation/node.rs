// SPDX-License-Identifier: Apache-2.0
//! A speaker as bgp-core has it, or a scripted neighbour: the same sessions, but no tables.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Instant;

use bgp_core::config::{
    AddPathConfig, BeyondLimit, ExportAttributes, FamilyConfig, GracefulRestart, ImportMode,
    ImportPolicy, InstanceConfig, LocalRoutes, NextHopMode, PeerAddress, PeerConfig, PrefixLimit,
    StaleTime, Timers, Transit,
};
use bgp_core::peer::{ConnId, LocalSpeaker, Peer};
use bgp_core::rib::{BestRoute, Inheritance, Rib, RibInput, SessionInfo};
use bgp_wire::{
    AsPath, Community, Destination, FamilyContext, Label, NlriEntry, Origin, PathAttributes,
    PathNextHop, VpnEntry, announce_with, withdraw_with,
};
use ipnet::IpNet;
use router_types::{Asn, Family};

use crate::case::{Case, Said};
use crate::filter::{Filter, Way};
use crate::told::Told;
use crate::topology::{End, LONG_LIVED, Topology, destination, name, target};

/// The pause after too many routes, in seconds.
const LIMIT_PAUSE_S: u32 = 5;

/// What is so about a node, crash or not: its configuration and what it originates.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    pub(crate) locals: BTreeSet<IpNet>,
    /// By number of the destination, and of the route where there are several.
    pub(crate) said: BTreeMap<(u8, u8), Said>,
    /// Links nothing is taken from.
    pub(crate) closed: BTreeSet<usize>,
    /// Links whose session is shut down.
    pub(crate) shut: BTreeSet<usize>,
    pub(crate) metrics: BTreeMap<IpAddr, Option<u32>>,
    /// The policies of its neighbours, by link.
    pub(crate) filters: BTreeMap<(usize, Way), Filter>,
    /// How many routes of IPv4 unicast are taken, by link.
    pub(crate) limits: BTreeMap<usize, u32>,
    /// Which revision of its policies counts, 0 or 1.
    pub(crate) revision: usize,
    /// Links whose neighbours are told nothing of its own destinations.
    pub(crate) hidden: BTreeSet<usize>,
    /// The route targets it asks for; `None` is all.
    pub(crate) targets: Option<BTreeSet<u8>>,
}

/// How a node comes to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Birth {
    /// For the first time.
    First,
    /// After a crash.
    Restart {
        /// Whether it has forwarded meanwhile.
        forwards: bool,
    },
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
    /// What was told in the session, the last one where none is up.
    pub(crate) told: Told,
    /// What the process before has left, until the session is up.
    pub(crate) left: Option<Box<Inheritance>>,
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
    /// The links in whose session the tables have said that too many routes came.
    pub(crate) over_limit: BTreeSet<usize>,
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
        /// What the process before has left about the neighbour.
        left: Option<Box<Inheritance>>,
    },
}

impl Node {
    pub(crate) fn new(
        case: &Case,
        topology: &Topology,
        number: usize,
        standing: &Standing,
        birth: Birth,
        now: Instant,
    ) -> Node {
        let plan = &topology.nodes[number];
        let config = config(case, topology, number, standing);
        let graceful = case.restart_s.is_some();
        let (restarted, preserved) = match birth {
            Birth::First => (false, false),
            Birth::Restart { forwards } => (graceful, graceful && forwards),
        };
        let session = |link: usize| {
            let local = LocalSpeaker {
                asn: Asn(plan.asn),
                router_id: plan.router_id,
                restarted,
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
                told: Told::default(),
                left: None,
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
            over_limit: BTreeSet::new(),
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
    config.ebgp_requires_policy = case.more.strict && plan.is_speaker;
    config.policies = Filter::all(standing.revision);
    config.route_targets = standing
        .targets
        .as_ref()
        .map(|targets| targets.iter().map(|number| target(*number).0).collect());
    for (link, end) in topology.links_of(number) {
        let there = &topology.links[link][1 - end];
        let address = PeerAddress::new(there.v4.into(), None).expect("a unicast address");
        let families = topology.plans[link].families();
        let families = families.into_iter().map(|family| {
            (
                family,
                family_config(case, topology, (link, end), standing, family),
            )
        });
        let mut peer = PeerConfig::new(address)
            .with_families(families.collect())
            .expect("families that are carried");
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

/// A family of a neighbour as things stand.
fn family_config(
    case: &Case,
    topology: &Topology,
    (link, end): (usize, usize),
    standing: &Standing,
    family: Family,
) -> FamilyConfig {
    let plan = &topology.plans[link];
    let internal = topology.is_internal(link);
    let is_membership = family == Family::ROUTE_TARGET;
    let policy = |way| {
        // What is asked for is looked at by none of the policies, but has to pass.
        let filter = if is_membership {
            (case.more.strict && !internal).then_some(Filter::Open)
        } else {
            standing.filters.get(&(link, way)).copied()
        };
        filter.map(|filter| filter.name(internal))
    };
    let mode = if standing.closed.contains(&link) {
        ImportMode::None
    } else {
        ImportMode::All
    };
    let limit = standing.limits.get(&link);
    let limit = limit.filter(|_| family == Family::IPV4_UNICAST);
    let several = plan.takes_several && !is_membership;
    let sends = topology.links[link][end].sends_several;
    let stale_time = |seconds| StaleTime::new(seconds).expect("seconds in range");
    FamilyConfig {
        import: ImportPolicy { mode },
        import_policy: policy(Way::In),
        export_policy: policy(Way::Out),
        limit: limit.map(|most| {
            let mut limit = PrefixLimit::new(*most).expect("not 0");
            limit.beyond = BeyondLimit::Restart {
                after_s: LIMIT_PAUSE_S,
            };
            limit
        }),
        next_hop_mode: if family == Family::VPNV4 && !internal && topology.keeps_next_hops(link) {
            NextHopMode::Unchanged
        } else {
            NextHopMode::Auto
        },
        add_path: AddPathConfig {
            receive: several,
            send: sends.filter(|_| several).and_then(NonZeroU8::new),
        },
        long_lived: case
            .more
            .long_lived_s
            .filter(|_| plan.long_lived && LONG_LIVED.contains(&family))
            .map(stale_time),
        ..FamilyConfig::default()
    }
}

/// A speaker's own destinations, for the neighbours they are not hidden from.
pub(crate) fn local_routes(topology: &Topology, number: usize, standing: &Standing) -> LocalRoutes {
    let mut routes = LocalRoutes::default();
    for prefix in &standing.locals {
        let told = topology.links_of(number);
        for (link, _) in told.filter(|(link, _)| !standing.hidden.contains(link)) {
            routes.add(*prefix, name(link), ExportAttributes::default());
        }
    }
    routes
}

/// The label a scripted neighbour gives a route of a VPN.
pub(crate) fn label(said: &Said) -> u32 {
    16 + u32::from(said.label)
}

/// The UPDATE in which a scripted neighbour says something, with more attributes at the end. One of
/// several routes is said where several can be.
pub(crate) fn say(
    out: &mut Vec<u8>,
    (here, asn): (&End, u32),
    (number, id): (u8, u8),
    said: &Said,
    family: &FamilyContext,
    more: &[u8],
) {
    let Some(path_id) = path_id(id, family) else {
        return;
    };
    let destination = destination(number);
    let mut path = vec![Asn(asn)];
    path.extend(said.path.iter().map(|asn| Asn(*asn)));
    let mut attributes = PathAttributes {
        origin: Origin::from_code(said.origin),
        as_path: Some(AsPath::from_sequence(path)),
        med: said.med,
        communities: said.communities.iter().copied().map(Community).collect(),
        ..PathAttributes::default()
    };
    if let Destination::Vpn(_) = destination {
        attributes.extended_communities = said.targets.iter().map(|n| target(*n)).collect();
    }
    let mut encoded = Vec::new();
    attributes.encode(true, &mut encoded);
    encoded.extend_from_slice(more);
    let hop = PathNextHop::from_address(here.next_hop(&destination));
    let max_len = bgp_wire::frame::MAX_LEN;
    let mut fill = |out: &mut Vec<u8>, _| {
        let label = Label::new(label(said));
        put(
            out,
            &destination,
            path_id,
            family.add_path_send,
            Some(label),
        );
        false
    };
    announce_with(out, family, max_len, &encoded, hop, &mut fill)
        .expect("one prefix and a few attributes fit");
}

/// The UPDATE in which it takes something back.
pub(crate) fn unsay(out: &mut Vec<u8>, (number, id): (u8, u8), family: &FamilyContext) {
    let Some(path_id) = path_id(id, family) else {
        return;
    };
    let destination = destination(number);
    let max_len = bgp_wire::frame::MAX_LEN;
    withdraw_with(out, family, max_len, |out, _| {
        put(out, &destination, path_id, family.add_path_send, None);
        false
    });
}

/// The identifier of one of several routes; nothing where only the first one is said.
fn path_id(id: u8, family: &FamilyContext) -> Option<Option<u32>> {
    match (family.add_path_send, id) {
        (true, id) => Some(Some(1 + u32::from(id))),
        (false, 0) => Some(None),
        (false, _) => None,
    }
}

fn put(
    out: &mut Vec<u8>,
    destination: &Destination,
    path_id: Option<u32>,
    add_path: bool,
    label: Option<Label>,
) {
    match *destination {
        Destination::Ip(prefix) => NlriEntry { path_id, prefix }.encode(add_path, out),
        Destination::Vpn(destination) => {
            let entry = VpnEntry {
                path_id,
                label: label.unwrap_or(Label::new(0)),
                destination,
            };
            match label {
                Some(_) => entry.encode(add_path, out),
                None => entry.encode_withdrawn(add_path, out),
            }
        }
        Destination::RouteTarget(_) => unreachable!("scripted neighbours ask for nothing"),
    }
}
