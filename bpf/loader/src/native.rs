// SPDX-License-Identifier: Apache-2.0
//! Egress gateways that are reached without a tunnel, as desired state: which packets go so from
//! here, and whose packets are taken here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
};
use bpf_abi::{
    CachedNextHop, Plain,
    egress::{
        EgressNativeKey, MAX_EGRESS_RULES, MAX_REMOTE_PODS, NATIVE_END, RemotePod, RemotePodKey,
    },
    map_names,
};
use ipnet::IpNet;
use router_types::LinkIndex;

use crate::{
    EgressEnd, Error, OpenError,
    gateway::widen,
    tables::{Bytes, failed, gone_is_fine, insert_failed, typed},
};

/// What the programs do without a tunnel. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NativeTables {
    /// Addresses of pods of this node whose gateways know them: packets of others take the tunnel,
    /// which says their rule.
    pub known: BTreeSet<IpAddr>,
    /// The neighbours that are gateways of rules, one of each family at most; packets of a family
    /// without one take the tunnel.
    pub gateways: BTreeMap<u32, Vec<EgressNeighbour>>,
    /// Where pods live: what comes from there as to a gateway is for the one here, or for nobody, and
    /// counted. Empty where packets come by the tunnel only.
    pub pods: BTreeSet<IpNet>,
    /// Addresses of pods of other nodes this node is the gateway of.
    pub remote: BTreeMap<IpAddr, RemoteSource>,
    /// The tunnel device, in which the gateway's programs get what came without a tunnel; `None`
    /// where this node is no gateway.
    pub gateway: Option<LinkIndex>,
}

/// A gateway on a link of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EgressNeighbour {
    /// Its address; packets of the same family go there.
    pub address: IpAddr,
    /// The device it is behind.
    pub link: LinkIndex,
    /// Largest IP packet on the way, in bytes; larger ones take the tunnel.
    pub mtu: u32,
}

/// A pod of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteSource {
    /// Its set of destinations.
    pub set: u32,
    /// The device its node is behind: it sends from nowhere else.
    pub link: LinkIndex,
}

/// The maps.
pub(crate) struct Native {
    gateways: HashMap<MapData, Bytes<EgressNativeKey>, Bytes<CachedNextHop>>,
    remote: HashMap<MapData, Bytes<RemotePodKey>, Bytes<RemotePod>>,
}

impl Native {
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self, OpenError> {
        let mut take = |name: &'static str| {
            ebpf.take_map(name)
                .ok_or(OpenError::MissingPart { kind: "map", name })
        };
        Ok(Self {
            gateways: typed(take(map_names::EGRESS_NATIVE)?)?,
            remote: typed(take(map_names::EGRESS_REMOTE)?)?,
        })
    }

    /// Writes what is new or different.
    pub(crate) fn add(&mut self, wanted: &NativeTables) -> Result<(), Error> {
        for (address, source) in &wanted.remote {
            let pod = RemotePod {
                set: source.set,
                ifindex: source.link.0,
            };
            self.remote
                .insert(Bytes(remote_key(*address)), Bytes(pod), 0)
                .map_err(insert_failed(map_names::EGRESS_REMOTE, MAX_REMOTE_PODS))?;
        }
        for (key, next_hop) in next_hops(wanted) {
            self.gateways
                .insert(Bytes(key), Bytes(next_hop), 0)
                .map_err(insert_failed(
                    map_names::EGRESS_NATIVE,
                    2 * MAX_EGRESS_RULES,
                ))?;
        }
        Ok(())
    }

    /// Removes the neighbours the tables do not say. Before the pods of others: a gateway that is
    /// not sent to any more misses nobody.
    pub(crate) fn prune(&mut self, wanted: &NativeTables) -> Result<(), Error> {
        let kept: BTreeSet<EgressNativeKey> = next_hops(wanted).map(|(key, _)| key).collect();
        prune(&mut self.gateways, map_names::EGRESS_NATIVE, |key| {
            kept.contains(key)
        })?;
        let kept: BTreeSet<RemotePodKey> = wanted.remote.keys().copied().map(remote_key).collect();
        prune(&mut self.remote, map_names::EGRESS_REMOTE, |key| {
            kept.contains(key)
        })
    }
}

impl NativeTables {
    /// The end that is none of a rule, where packets that came without a tunnel enter.
    pub(crate) fn end(&self) -> Option<(u32, EgressEnd)> {
        let end = |tunnel| (NATIVE_END, EgressEnd::Local { tunnel });
        self.gateway.map(end)
    }
}

fn next_hops(wanted: &NativeTables) -> impl Iterator<Item = (EgressNativeKey, CachedNextHop)> {
    let all = wanted.gateways.iter();
    let all = all.flat_map(|(rule, neighbours)| neighbours.iter().map(|one| (*rule, *one)));
    all.map(|(rule, neighbour)| {
        let is_ipv4 = neighbour.address.is_ipv4();
        let key = EgressNativeKey {
            rule,
            ip_version: if is_ipv4 { 4 } else { 6 },
        };
        let family = if is_ipv4 {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        let next_hop = CachedNextHop {
            ifindex: neighbour.link.0,
            family: family as u32,
            address: widen(neighbour.address),
            mtu: neighbour.mtu,
        };
        (key, next_hop)
    })
}

fn remote_key(address: IpAddr) -> RemotePodKey {
    RemotePodKey {
        address: widen(address),
        ip_version: if address.is_ipv4() { 4 } else { 6 },
    }
}

fn prune<K: Plain, V: Plain>(
    map: &mut HashMap<MapData, Bytes<K>, Bytes<V>>,
    name: &'static str,
    is_kept: impl Fn(&K) -> bool,
) -> Result<(), Error> {
    let keys: Vec<Bytes<K>> = map
        .keys()
        .collect::<Result<_, MapError>>()
        .map_err(failed("read", name))?;
    for key in keys.iter().filter(|Bytes(key)| !is_kept(key)) {
        gone_is_fine(map.remove(key), name)?;
    }
    Ok(())
}
