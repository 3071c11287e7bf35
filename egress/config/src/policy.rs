// SPDX-License-Identifier: Apache-2.0
//! The policies as the decision takes them, of either kind, in order of precedence.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use egress_core::{
    Addresses, Affinity, Group, Limits, Policy, PolicyId, PolicyKind, PortRange, Selection,
    Timeouts, Zones,
};
use ipnet::IpNet;
use router_resources::condition::Timestamp;
use router_resources::kinds::{
    CausewayEgressGateway, CiliumEgressPolicySpec, EgressConnections, EgressGateway, EgressMode,
    EgressPolicySpec, EgressSelector, EgressTimeouts, PoolAssignment, ZonePreference,
};
use router_resources::{Entry, Snapshot};

use crate::cluster::Cluster;
use crate::health::seconds;
use crate::pool;
use crate::statements::{Statements, condition_type, some_of};

/// A policy, and what selects its pods.
pub(crate) struct Read<'a> {
    pub(crate) policy: Policy,
    pub(crate) selectors: &'a [EgressSelector],
    /// The field of each group, `egressGateways[1]`.
    pub(crate) fields: Vec<String>,
}

/// Reads all policies, in order of precedence.
pub(crate) fn read<'a>(
    snapshot: &'a Snapshot,
    cluster: &Cluster,
    statements: &mut Statements,
) -> Vec<Read<'a>> {
    let cilium = snapshot.cilium_egress_policies().map(Spec::Cilium);
    let causeway = snapshot.egress_policies().map(Spec::Causeway);
    let mut specs: Vec<Spec<'a>> = cilium.chain(causeway).collect();
    specs.sort_by_cached_key(|spec| (spec.created(), spec.id()));
    let mut taken: BTreeSet<IpAddr> = specs.iter().flat_map(Spec::written_addresses).collect();
    let read = specs
        .iter()
        .map(|spec| spec.read(cluster, &mut taken, statements));
    let read: Vec<Read<'a>> = read.collect();
    report_shared(&read, statements);
    read
}

enum Spec<'a> {
    Cilium(Entry<'a, CiliumEgressPolicySpec>),
    Causeway(Entry<'a, EgressPolicySpec>),
}

impl<'a> Spec<'a> {
    fn id(&self) -> PolicyId {
        let (kind, name) = match self {
            Spec::Cilium(entry) => (PolicyKind::Cilium, entry.name()),
            Spec::Causeway(entry) => (PolicyKind::Causeway, entry.name()),
        };
        let name = name.to_owned();
        PolicyId { kind, name }
    }

    fn created(&self) -> Option<Timestamp> {
        match self {
            Spec::Cilium(entry) => entry.metadata.creation_timestamp,
            Spec::Causeway(entry) => entry.metadata.creation_timestamp,
        }
    }

    /// The addresses it says itself that Causeway holds.
    fn written_addresses(&self) -> Vec<IpAddr> {
        match self {
            Spec::Cilium(_) => Vec::new(),
            Spec::Causeway(entry) => {
                let gateways = entry.spec.gateways().iter();
                gateways.flat_map(|g| g.held_addresses()).collect()
            }
        }
    }

    fn read(
        &self,
        cluster: &Cluster,
        taken: &mut BTreeSet<IpAddr>,
        statements: &mut Statements,
    ) -> Read<'a> {
        let id = self.id();
        match self {
            Spec::Cilium(entry) => {
                let spec = entry.spec;
                let is_list = !spec.egress_gateways.is_empty();
                let gateways = if is_list {
                    spec.egress_gateways.as_slice()
                } else {
                    std::slice::from_ref(&spec.egress_gateway)
                };
                let groups = gateways.iter().map(|gateway| Group {
                    nodes: cluster.matching(&gateway.node_selector),
                    addresses: on_device(gateway),
                });
                Read {
                    selectors: &spec.selectors,
                    fields: fields(gateways.len(), is_list),
                    policy: Policy {
                        id,
                        destinations: prefixes(&spec.destination_cidrs),
                        exclusions: prefixes(&spec.excluded_cidrs),
                        groups: groups.collect(),
                        selection: if is_list {
                            Selection::ByPodUid
                        } else {
                            Selection::FirstByName
                        },
                        zones: Zones::Off,
                        limits: Limits::default(),
                        unanswered: BTreeSet::new(),
                    },
                }
            }
            Spec::Causeway(entry) => {
                let spec = entry.spec;
                let groups = spec.gateways().iter().map(|gateway| Group {
                    nodes: cluster.matching(&gateway.upstream.node_selector),
                    addresses: addresses(gateway, &id, taken, statements),
                });
                let groups = groups.collect();
                Read {
                    selectors: &spec.selectors,
                    fields: fields(spec.gateways().len(), !spec.egress_gateways.is_empty()),
                    policy: Policy {
                        id,
                        destinations: prefixes(&spec.destination_cidrs),
                        exclusions: prefixes(&spec.excluded_cidrs),
                        groups,
                        selection: match spec.mode {
                            EgressMode::ActiveStandby => Selection::ActiveStandby,
                            EgressMode::ActiveActive => Selection::ActiveActive,
                        },
                        zones: match spec.zone_preference {
                            ZonePreference::None => Zones::Off,
                            ZonePreference::LocalOnly => Zones::LocalOnly,
                            ZonePreference::LocalFirst => Zones::LocalFirst,
                            ZonePreference::LocalPriority => Zones::LocalPriority,
                        },
                        limits: limits(&spec.connections),
                        unanswered: BTreeSet::new(),
                    },
                }
            }
        }
    }
}

fn fields(count: usize, is_list: bool) -> Vec<String> {
    let field = |index| match is_list {
        true => format!("egressGateways[{index}]"),
        false => "egressGateway".to_owned(),
    };
    (0..count).map(field).collect()
}

/// The prefixes without their host bits, as upstream reads them.
fn prefixes(texts: &[String]) -> BTreeSet<IpNet> {
    let prefixes = texts.iter().filter_map(|text| text.parse().ok());
    prefixes.map(|prefix: IpNet| prefix.trunc()).collect()
}

/// The addresses of a gateway that are on a device already.
fn on_device(gateway: &EgressGateway) -> Addresses {
    match (gateway.address(), gateway.device()) {
        (Some(address), _) => Addresses::OnDevice(address),
        (None, Some(device)) => Addresses::Interface(device.to_owned()),
        (None, None) => Addresses::DefaultRoute,
    }
}

fn addresses(
    gateway: &CausewayEgressGateway,
    id: &PolicyId,
    taken: &mut BTreeSet<IpAddr>,
    statements: &mut Statements,
) -> Addresses {
    let mut addresses = gateway.held_addresses();
    let mut affinity = Affinity::Policy;
    if let Some(pool) = &gateway.address_pool {
        (addresses, affinity) = match pool.assign {
            PoolAssignment::Policy => {
                let draw = pool::draw(pool, id, taken);
                if draw.is_exhausted {
                    let message = format!(
                        "all addresses of {} are drawn by other policies, and one is drawn twice",
                        pool.cidrs.join(", ")
                    );
                    let kind = condition_type::POOL_EXHAUSTED;
                    statements.problem(id, kind, "AllDrawn", message);
                }
                taken.extend(&draw.addresses);
                (draw.addresses, Affinity::Policy)
            }
            PoolAssignment::Namespace => (pool::pairs(pool), Affinity::Namespace),
            PoolAssignment::Pod => (pool::pairs(pool), Affinity::Pod),
        };
    }
    if addresses.is_empty() {
        return on_device(&gateway.upstream);
    }
    Addresses::Held {
        addresses,
        affinity,
        interface: gateway.upstream.device().map(str::to_owned),
    }
}

fn limits(spec: &EgressConnections) -> Limits {
    let port = |value: i32| u16::try_from(value).unwrap_or(u16::MAX);
    let EgressTimeouts {
        tcp_opening_seconds,
        tcp_established_seconds,
        tcp_closing_seconds,
        udp_unanswered_seconds,
        udp_seconds,
        icmp_seconds,
        other_seconds,
    } = spec.timeouts;
    Limits {
        ports: PortRange {
            first: port(spec.source_ports.first),
            last: port(spec.source_ports.last),
        },
        is_udp_endpoint_independent: spec.udp_endpoint_independent,
        timeouts: Timeouts {
            tcp_opening: seconds(tcp_opening_seconds),
            tcp_established: seconds(tcp_established_seconds),
            tcp_closing: seconds(tcp_closing_seconds),
            udp_unanswered: seconds(udp_unanswered_seconds),
            udp: seconds(udp_seconds),
            icmp: seconds(icmp_seconds),
            other: seconds(other_seconds),
        },
        drain: if spec.survive {
            spec.drain_seconds.map(seconds)
        } else {
            Some(Duration::ZERO)
        },
    }
}

/// Says which policies hold addresses that others hold too. Each would put them where it likes.
fn report_shared(read: &[Read<'_>], statements: &mut Statements) {
    let mut holders: BTreeMap<IpAddr, Vec<&PolicyId>> = BTreeMap::new();
    for policy in read.iter().map(|read| &read.policy) {
        for group in &policy.groups {
            let Addresses::Held { addresses, .. } = &group.addresses else {
                continue;
            };
            for address in addresses {
                let ids = holders.entry(*address).or_default();
                if !ids.contains(&&policy.id) {
                    ids.push(&policy.id);
                }
            }
        }
    }
    let mut shared: BTreeMap<(&PolicyId, &PolicyId), Vec<IpAddr>> = BTreeMap::new();
    for (address, ids) in &holders {
        for id in ids {
            for other in ids.iter().filter(|other| *other != id) {
                shared.entry((id, other)).or_default().push(*address);
            }
        }
    }
    for ((id, other), addresses) in shared {
        let message = format!("{other} holds {} too", some_of(addresses));
        statements.problem(id, condition_type::SHARED_ADDRESS, "HeldTwice", message);
    }
}
