// SPDX-License-Identifier: Apache-2.0
//! Egress policies on the pods' side, as desired state: which addresses belong to which set of
//! destinations, where those lead, and where the gateways are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{HashMap, LpmTrie, Map, MapData, MapError, lpm_trie::Key},
};
use bpf_abi::{
    egress::{
        EgressFlow, EgressFlowKey, EgressPrefix, MAX_CLUSTER_PREFIXES, MAX_EGRESS_PREFIXES,
        MAX_EGRESS_RULES, inside, source_flags, way,
    },
    map_names,
    nat::TunnelEnd,
};
use ipnet::IpNet;
use router_types::LinkIndex;

use crate::{
    Error, OpenError, Phase, Said, Timeouts,
    gateway::{duration_of, narrow, now, ticks_since, widen, words_v4, words_v6},
    kernel::{self, Position},
    native::{Native, NativeTables},
    tables::{Bytes, failed, gone_is_fine, insert_failed, typed},
};

/// Notes of connections read in one call.
const BATCH: usize = 4_096;

/// What the programs of pods know of egress policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressTables {
    /// The set of destinations of each address of a pod; others have [`Self::newcomers`].
    pub sources: BTreeMap<IpAddr, u32>,
    /// The set of pods nobody has decided about yet; `None` where there are no policies.
    pub newcomers: Option<u32>,
    /// What each set says, from 1 up.
    pub sets: BTreeMap<u32, BTreeMap<IpNet, EgressWay>>,
    /// Where each rule's gateway is.
    pub ends: BTreeMap<u32, EgressEnd>,
    /// What is inside the cluster and never leaves by a gateway.
    pub in_cluster: BTreeSet<IpNet>,
    /// The addresses of nodes: packets come through the tunnel from these alone.
    pub nodes: BTreeSet<IpAddr>,
    /// The address of each family by which gateways know this node; the routing table chooses where
    /// there is none.
    pub own: Vec<IpAddr>,
    /// What goes to gateways and comes to this one without a tunnel.
    pub native: NativeTables,
}

/// Where a destination leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EgressWay {
    /// As if there were no policy.
    Pass,
    /// Nowhere: no gateway can take it.
    NoGateway,
    /// Nowhere: whether a policy selects the pod is not known.
    Undecided,
    /// By a rule.
    Through(u32),
}

/// Where the gateway of a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressEnd {
    /// On another node.
    Remote {
        /// The node's address.
        address: IpAddr,
        /// Our tunnel device.
        tunnel: LinkIndex,
        /// Largest IP packet the tunnel takes whole, in bytes.
        mtu: u16,
    },
    /// On this node.
    Local {
        /// Our tunnel device.
        tunnel: LinkIndex,
    },
    /// At no address this node can send to: packets are refused.
    Nowhere,
}

/// Connections whose way is noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressFlows {
    /// How many go by each rule.
    pub live: BTreeMap<u32, u64>,
    /// How many were begun from outside, and are answered as if there were no policy.
    pub callers: u64,
    /// How many notes were removed, since nothing was heard for long.
    pub removed: u64,
}

/// A connection of a pod whose way is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotedFlow {
    /// Protocol number.
    pub protocol: u8,
    /// The pod's end; the port is 0 for fragments and protocols without ports.
    pub pod: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// The rule it goes by whatever the policies say by now; `None` where it was begun from outside
    /// and is answered as if there were no policy.
    pub rule: Option<u32>,
    /// Since when the pod has sent nothing.
    pub idle: Duration,
}

type Prefixes<const WORDS: usize> = LpmTrie<MapData, Bytes<EgressPrefix<WORDS>>, u32>;

/// The maps, and what is in them.
pub(crate) struct Egress {
    prefixes_v4: Prefixes<1>,
    prefixes_v6: Prefixes<4>,
    cluster_v4: LpmTrie<MapData, [u32; 1], u32>,
    cluster_v6: LpmTrie<MapData, [u32; 4], u32>,
    ends: HashMap<MapData, u32, Bytes<TunnelEnd>>,
    flows: HashMap<MapData, Bytes<EgressFlowKey>, Bytes<EgressFlow>>,
    flows_fd: OwnedFd,
    pub(crate) sources: BTreeMap<IpAddr, u32>,
    pub(crate) newcomers: Option<u32>,
    /// See [`NativeTables::known`].
    pub(crate) known: BTreeSet<IpAddr>,
    native: Native,
    /// How many entries maps have since the last [`Self::prune`].
    filled: BTreeMap<&'static str, usize>,
}

impl Egress {
    /// Takes the maps out of the loaded object. `sources` are the sets the addresses have already.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self, OpenError> {
        let mut take = |name: &'static str| {
            ebpf.take_map(name)
                .ok_or(OpenError::MissingPart { kind: "map", name })
        };
        let flows = take(map_names::EGRESS_FLOWS)?;
        let flows_fd = match &flows {
            Map::HashMap(data) => data.fd().as_fd().try_clone_to_owned(),
            _ => {
                return Err(OpenError::MissingPart {
                    kind: "hash",
                    name: map_names::EGRESS_FLOWS,
                });
            }
        };
        Ok(Self {
            prefixes_v4: typed(take(map_names::EGRESS_V4)?)?,
            prefixes_v6: typed(take(map_names::EGRESS_V6)?)?,
            cluster_v4: typed(take(map_names::CLUSTER_V4)?)?,
            cluster_v6: typed(take(map_names::CLUSTER_V6)?)?,
            ends: typed(take(map_names::EGRESS_ENDS)?)?,
            flows: typed(flows)?,
            flows_fd: flows_fd.map_err(|source| OpenError::System {
                call: "dup",
                source,
            })?,
            sources: BTreeMap::new(),
            newcomers: None,
            known: BTreeSet::new(),
            native: Native::take(ebpf)?,
            filled: BTreeMap::new(),
        })
    }

    /// The set of an address.
    pub(crate) fn set_of(&self, address: IpAddr) -> u32 {
        self.sources
            .get(&address)
            .copied()
            .or(self.newcomers)
            .unwrap_or_default()
    }

    /// The flags of an address.
    pub(crate) fn flags_of(&self, address: IpAddr) -> u32 {
        u32::from(self.known.contains(&address)) * source_flags::KNOWN_TO_GATEWAYS
    }

    /// Writes what the tables say that is new or different. Nothing is removed, so that whoever
    /// uses the old tables goes on.
    pub(crate) fn add(&mut self, wanted: &EgressTables) -> Result<(), Error> {
        for (prefix, what) in inside_cluster(wanted) {
            match prefix {
                IpNet::V4(net) => self.cluster_v4.insert(&cluster_v4(&net), what, 0),
                IpNet::V6(net) => self.cluster_v6.insert(&cluster_v6(&net), what, 0),
            }
            .map_err(insert_failed(
                if matches!(prefix, IpNet::V4(_)) {
                    map_names::CLUSTER_V4
                } else {
                    map_names::CLUSTER_V6
                },
                MAX_CLUSTER_PREFIXES,
            ))?;
        }
        for (rule, end) in ends(wanted) {
            self.ends
                .insert(rule, Bytes(end.encode(&wanted.own)), 0)
                .map_err(insert_failed(map_names::EGRESS_ENDS, MAX_EGRESS_RULES))?;
        }
        for (set, prefixes) in &wanted.sets {
            for (prefix, leads) in prefixes {
                let (map, outcome) = match prefix {
                    IpNet::V4(net) => {
                        let key = prefix_v4(*set, net);
                        let outcome = self.prefixes_v4.insert(&key, leads.encode(), 0);
                        (map_names::EGRESS_V4, outcome)
                    }
                    IpNet::V6(net) => {
                        let key = prefix_v6(*set, net);
                        let outcome = self.prefixes_v6.insert(&key, leads.encode(), 0);
                        (map_names::EGRESS_V6, outcome)
                    }
                };
                outcome.map_err(insert_failed(map, MAX_EGRESS_PREFIXES))?;
            }
        }
        self.native.add(&wanted.native)
    }

    /// Entries of a map by name, as the last tables left it; `None` before there were any, and of maps
    /// that packets fill.
    pub(crate) fn entries(&self, name: &str) -> Option<u32> {
        let entries = self.filled.get(name)?;
        u32::try_from(*entries).ok()
    }

    /// Removes what the tables do not say.
    pub(crate) fn prune(&mut self, wanted: &EgressTables) -> Result<(), Error> {
        self.native.prune(&wanted.native)?;
        let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
        for (set, prefixes) in &wanted.sets {
            for prefix in prefixes.keys() {
                match prefix {
                    IpNet::V4(net) => v4.insert(raw(&prefix_v4(*set, net))),
                    IpNet::V6(net) => v6.insert(raw(&prefix_v6(*set, net))),
                };
            }
        }
        prune(&mut self.prefixes_v4, map_names::EGRESS_V4, &v4)?;
        prune(&mut self.prefixes_v6, map_names::EGRESS_V6, &v6)?;
        self.filled.insert(map_names::EGRESS_V4, v4.len());
        self.filled.insert(map_names::EGRESS_V6, v6.len());
        let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
        for prefix in inside_cluster(wanted).into_keys() {
            match prefix {
                IpNet::V4(net) => v4.insert(raw(&cluster_v4(&net))),
                IpNet::V6(net) => v6.insert(raw(&cluster_v6(&net))),
            };
        }
        prune(&mut self.cluster_v4, map_names::CLUSTER_V4, &v4)?;
        prune(&mut self.cluster_v6, map_names::CLUSTER_V6, &v6)?;
        self.filled.insert(map_names::CLUSTER_V4, v4.len());
        self.filled.insert(map_names::CLUSTER_V6, v6.len());
        let kept: BTreeSet<u32> = self::ends(wanted).map(|(rule, _)| rule).collect();
        let ends: Vec<u32> = self
            .ends
            .keys()
            .collect::<Result<_, _>>()
            .map_err(failed("read", map_names::EGRESS_ENDS))?;
        for rule in ends.iter().filter(|rule| !kept.contains(rule)) {
            gone_is_fine(self.ends.remove(rule), map_names::EGRESS_ENDS)?;
        }
        self.filled.insert(map_names::EGRESS_ENDS, kept.len());
        Ok(())
    }

    /// Reads the next notes of connections, appending them.
    fn flows_at(
        &self,
        at: Position,
        entries: &mut Vec<(EgressFlowKey, EgressFlow)>,
    ) -> Result<Option<Position>, Error> {
        kernel::lookup_batch(self.flows_fd.as_fd(), at, BATCH, entries).map_err(|source| {
            Error::Map {
                action: "read",
                map: map_names::EGRESS_FLOWS,
                source: source.into(),
            }
        })
    }

    /// Calls `visit` with every connection whose way is noted, in no order.
    pub(crate) fn each_flow(&self, visit: &mut dyn FnMut(&NotedFlow)) -> Result<(), Error> {
        let mut position = Some(Position::default());
        let mut entries = Vec::with_capacity(BATCH);
        while let Some(at) = position {
            entries.clear();
            position = self.flows_at(at, &mut entries)?;
            let now = now();
            for (key, flow) in &entries {
                visit(&noted(key, flow, now));
            }
        }
        Ok(())
    }

    /// Forgets connections nothing was heard of for long, and those of rules that are gone; says
    /// what each rule has.
    pub(crate) fn sweep(
        &mut self,
        timeouts: &dyn Fn(u32) -> Option<Timeouts>,
    ) -> Result<EgressFlows, Error> {
        let mut found = EgressFlows::default();
        let mut position = Some(Position::default());
        let mut entries: Vec<(EgressFlowKey, EgressFlow)> = Vec::with_capacity(BATCH);
        while let Some(at) = position {
            entries.clear();
            position = self.flows_at(at, &mut entries)?;
            let now = now();
            for (key, flow) in &entries {
                let idle = duration_of(ticks_since(flow.last_seen, now));
                // What the world said is not known here; the gateway forgets by its own clock.
                let said = Said::from_bits(flow.said);
                let phase = Phase::of(key.protocol, said, said);
                let limit = timeouts(flow.way).map_or(Duration::ZERO, |all| all.of(phase));
                if idle >= limit {
                    let outcome = self.flows.remove(&Bytes(*key));
                    gone_is_fine(outcome, map_names::EGRESS_FLOWS)?;
                    found.removed += 1;
                } else if flow.way == way::PASS {
                    found.callers += 1;
                } else {
                    *found.live.entry(flow.way).or_default() += 1;
                }
            }
        }
        Ok(found)
    }
}

/// A note as the rest of the program knows it.
fn noted(key: &EgressFlowKey, flow: &EgressFlow, now: u32) -> NotedFlow {
    let end = |address, port| SocketAddr::new(narrow(address, key.ip_version), u16::from_be(port));
    NotedFlow {
        protocol: key.protocol,
        pod: end(key.pod, key.pod_port),
        remote: end(key.remote, key.remote_port),
        rule: (flow.way != way::PASS).then_some(flow.way),
        idle: duration_of(ticks_since(flow.last_seen, now)),
    }
}

/// The ends of rules, and where what came without a tunnel enters.
fn ends(tables: &EgressTables) -> impl Iterator<Item = (u32, EgressEnd)> {
    let rules = tables.ends.iter().map(|(rule, end)| (*rule, *end));
    rules.chain(tables.native.end())
}

/// What is inside the cluster; nodes count as nodes, whatever else has their address.
fn inside_cluster(tables: &EgressTables) -> BTreeMap<IpNet, u32> {
    let prefixes = tables.in_cluster.iter().map(|net| (*net, inside::PREFIX));
    let pods = tables.native.pods.iter().map(|net| (*net, inside::PODS));
    let nodes = tables
        .nodes
        .iter()
        .map(|node| (IpNet::from(*node), inside::NODE));
    prefixes.chain(pods).chain(nodes).collect()
}

impl EgressWay {
    fn encode(self) -> u32 {
        match self {
            EgressWay::Pass => way::PASS,
            EgressWay::NoGateway => way::NO_GATEWAY,
            EgressWay::Undecided => way::UNDECIDED,
            EgressWay::Through(rule) => rule,
        }
    }
}

impl EgressEnd {
    fn encode(self, own: &[IpAddr]) -> TunnelEnd {
        match self {
            EgressEnd::Remote {
                address,
                tunnel,
                mtu,
            } => TunnelEnd {
                address: widen(address),
                source: source_for(address, own),
                ifindex: tunnel.0,
                ip_version: if address.is_ipv4() { 4 } else { 6 },
                is_local: 0,
                mtu,
            },
            EgressEnd::Local { tunnel } => TunnelEnd {
                ifindex: tunnel.0,
                is_local: 1,
                ..TunnelEnd::default()
            },
            EgressEnd::Nowhere => TunnelEnd::default(),
        }
    }
}

/// Our address of the family of another one, as the maps have it; zero where there is none.
pub(crate) fn source_for(address: IpAddr, own: &[IpAddr]) -> [u32; 4] {
    let same = own.iter().find(|own| own.is_ipv4() == address.is_ipv4());
    same.map_or([0; 4], |own| widen(*own))
}

fn prefix_v4(set: u32, net: &ipnet::Ipv4Net) -> Key<Bytes<EgressPrefix<1>>> {
    let key = EgressPrefix {
        set: set.to_be(),
        destination: words_v4(net.network()),
    };
    Key::new(32 + u32::from(net.prefix_len()), Bytes(key))
}

fn prefix_v6(set: u32, net: &ipnet::Ipv6Net) -> Key<Bytes<EgressPrefix<4>>> {
    let key = EgressPrefix {
        set: set.to_be(),
        destination: words_v6(net.network()),
    };
    Key::new(32 + u32::from(net.prefix_len()), Bytes(key))
}

fn cluster_v4(net: &ipnet::Ipv4Net) -> Key<[u32; 1]> {
    Key::new(u32::from(net.prefix_len()), words_v4(net.network()))
}

fn cluster_v6(net: &ipnet::Ipv6Net) -> Key<[u32; 4]> {
    Key::new(u32::from(net.prefix_len()), words_v6(net.network()))
}

/// A key as bytes, to compare.
fn raw<K: aya::Pod>(key: &Key<K>) -> Vec<u8> {
    let mut bytes = key.prefix_len().to_ne_bytes().to_vec();
    let data = key.data();
    // SAFETY: a plain type of this size, without padding, as `Pod` promises.
    bytes.extend_from_slice(unsafe {
        std::slice::from_raw_parts((&raw const data).cast::<u8>(), size_of::<K>())
    });
    bytes
}

fn prune<K: aya::Pod>(
    map: &mut LpmTrie<MapData, K, u32>,
    name: &'static str,
    wanted: &BTreeSet<Vec<u8>>,
) -> Result<(), Error> {
    let keys: Vec<Key<K>> = map
        .keys()
        .collect::<Result<_, MapError>>()
        .map_err(failed("read", name))?;
    for key in keys.iter().filter(|key| !wanted.contains(&raw(key))) {
        gone_is_fine(map.remove(key), name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_with_its_ends_and_its_rule() {
        let key = EgressFlowKey {
            pod: [u32::from_ne_bytes([10, 1, 0, 2]), 0, 0, 0],
            remote: [u32::from_ne_bytes([203, 0, 113, 9]), 0, 0, 0],
            pod_port: 40_000_u16.to_be(),
            remote_port: 443_u16.to_be(),
            protocol: 6,
            ip_version: 4,
            reserved: 0,
        };
        let flow = EgressFlow {
            way: 5_000,
            last_seen: 1_000,
            said: 0,
        };
        let read = noted(&key, &flow, 3_000);
        assert_eq!(read.pod.to_string(), "10.1.0.2:40000");
        assert_eq!(read.remote.to_string(), "203.0.113.9:443");
        assert_eq!((read.protocol, read.rule), (6, Some(5_000)));
        assert_eq!(read.idle, duration_of(2_000));

        let v6: std::net::Ipv6Addr = "fd00::9".parse().expect("an address");
        let key = EgressFlowKey {
            pod: words_v6(v6),
            remote: words_v6(v6),
            ip_version: 6,
            ..key
        };
        let caller = EgressFlow {
            way: way::PASS,
            ..flow
        };
        let read = noted(&key, &caller, 3_000);
        assert_eq!(read.pod.to_string(), "[fd00::9]:40000");
        assert_eq!(read.rule, None);
    }
}
