// SPDX-License-Identifier: Apache-2.0
//! The maps of a gateway, typed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{
        Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues, RingBuf,
    },
};
use bpf_abi::{
    DropCounter, DropKey, DropReason, map_names,
    nat::{
        MAX_HELD, MAX_NODES, MAX_RULES, MAX_SERVED, NATIVE_OUTER, NatEntry, NatEvent, NatKey,
        NatRule, RuleCounters, ServedPort, TunnelEnd, V4, V6, fold, said, side,
    },
};

use super::mapping::{self, Address, Mapping, PodNode, narrow, ticks_of, widen};
use crate::{
    DropCount, Error, OpenError,
    kernel::{self, Position},
    tables::{Bytes, cpus, failed, gone_is_fine, insert_failed, sum, typed},
};

/// The section of the programs' variables, which is a map: the generation of routes is the only
/// one. Not pinned, since each load has its own.
const GLOBALS: &str = ".bss";

/// A family's table of mappings.
pub(crate) struct Nat<A: Address> {
    map: HashMap<MapData, Bytes<NatKey<A>>, Bytes<NatEntry<A>>>,
    /// The same map, for calls aya does not have.
    fd: OwnedFd,
    max_entries: u32,
}

impl<A: Address> Nat<A> {
    fn take(map: Map) -> Result<Self, OpenError> {
        let refused = |error: MapError| OpenError::Load(error.into());
        let Map::HashMap(data) = &map else {
            return Err(refused(MapError::InvalidMapType { map_type: 0 }));
        };
        let fd = data.fd().as_fd().try_clone_to_owned();
        let fd = fd.map_err(|source| OpenError::System {
            call: "dup",
            source,
        })?;
        let max_entries = data.info().map_err(refused)?.max_entries();
        Ok(Self {
            map: typed(map)?,
            fd,
            max_entries,
        })
    }
}

/// Every map of a gateway.
pub(crate) struct Tables {
    rules: HashMap<MapData, u32, Bytes<NatRule>>,
    nat_v4: Nat<V4>,
    nat_v6: Nat<V6>,
    nodes: HashMap<MapData, [u32; 4], u32>,
    held: HashMap<MapData, [u32; 4], u32>,
    served: HashMap<MapData, Bytes<ServedPort>, u32>,
    ends: Array<MapData, Bytes<TunnelEnd>>,
    counters: PerCpuArray<MapData, Bytes<RuleCounters>>,
    rule_refusals: PerCpuHashMap<MapData, Bytes<DropKey>, Bytes<DropCounter>>,
    refusals: PerCpuArray<MapData, Bytes<DropCounter>>,
    route_generation: Array<MapData, u64>,
    events: RingBuf<MapData>,
    events_lost: PerCpuArray<MapData, u64>,
    owner: Array<MapData, u64>,
}

/// Traffic of a rule. Frames count with their Ethernet header, a GSO frame once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleTraffic {
    /// Frames of pods that left.
    pub out_packets: u64,
    /// Their bytes.
    pub out_bytes: u64,
    /// Answers that went back.
    pub back_packets: u64,
    /// Their bytes.
    pub back_bytes: u64,
    /// Mappings made.
    pub opened: u64,
}

/// A family and where its mappings are.
pub(crate) trait Family: Address {
    const MAP: &'static str;
    fn nat(tables: &Tables) -> &Nat<Self>;
    fn nat_mut(tables: &mut Tables) -> &mut Nat<Self>;
}

impl Family for V4 {
    const MAP: &'static str = map_names::NAT_V4;

    fn nat(tables: &Tables) -> &Nat<Self> {
        &tables.nat_v4
    }

    fn nat_mut(tables: &mut Tables) -> &mut Nat<Self> {
        &mut tables.nat_v4
    }
}

impl Family for V6 {
    const MAP: &'static str = map_names::NAT_V6;

    fn nat(tables: &Tables) -> &Nat<Self> {
        &tables.nat_v6
    }

    fn nat_mut(tables: &mut Tables) -> &mut Nat<Self> {
        &mut tables.nat_v6
    }
}

impl Tables {
    /// Takes the maps out of the loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, OpenError> {
        let mut take = |name: &'static str| {
            ebpf.take_map(name)
                .ok_or(OpenError::MissingPart { kind: "map", name })
        };
        Ok(Self {
            rules: typed(take(map_names::RULES)?)?,
            nat_v4: Nat::take(take(map_names::NAT_V4)?)?,
            nat_v6: Nat::take(take(map_names::NAT_V6)?)?,
            nodes: typed(take(map_names::NODE_ADDRESSES)?)?,
            held: typed(take(map_names::HELD)?)?,
            served: typed(take(map_names::SERVED)?)?,
            ends: typed(take(map_names::TUNNEL_ENDS)?)?,
            counters: typed(take(map_names::RULE_COUNTERS)?)?,
            rule_refusals: typed(take(map_names::RULE_REFUSALS)?)?,
            refusals: typed(take(map_names::REFUSALS)?)?,
            route_generation: typed(take(GLOBALS)?)?,
            events: typed(take(map_names::NAT_EVENTS)?)?,
            events_lost: typed(take(map_names::EVENTS_LOST)?)?,
            owner: typed(take(map_names::OWNER)?)?,
        })
    }

    pub(super) fn owner(&self) -> Result<u64, Error> {
        self.owner
            .get(&0, 0)
            .map_err(failed("read", map_names::OWNER))
    }

    pub(super) fn set_owner(&mut self, cookie: u64) -> Result<(), Error> {
        self.owner
            .set(0, cookie, 0)
            .map_err(failed("write", map_names::OWNER))
    }

    pub(super) fn raise_route_generation(&mut self) -> Result<(), Error> {
        let name = GLOBALS;
        let generation = self
            .route_generation
            .get(&0, 0)
            .map_err(failed("read", name))?;
        self.route_generation
            .set(0, generation.wrapping_add(1), 0)
            .map_err(failed("write", name))
    }

    /// Numbers and places of the rules.
    pub(super) fn rules(&self) -> Result<Vec<(u32, u16)>, Error> {
        self.rules
            .iter()
            .map(|entry| entry.map(|(number, Bytes(rule))| (number, rule.slot)))
            .collect::<Result<_, _>>()
            .map_err(failed("read", map_names::RULES))
    }

    pub(super) fn set_rule(&mut self, number: u32, rule: &NatRule) -> Result<(), Error> {
        self.rules
            .insert(number, Bytes(*rule), 0)
            .map_err(insert_failed(map_names::RULES, MAX_RULES))
    }

    pub(super) fn remove_rule(&mut self, number: u32) -> Result<(), Error> {
        gone_is_fine(self.rules.remove(&number), map_names::RULES)
    }

    /// Outer addresses and indexes of the nodes.
    pub(super) fn nodes(&self) -> Result<BTreeMap<IpAddr, u16>, Error> {
        let mut nodes = BTreeMap::new();
        for entry in self.nodes.iter() {
            let (address, index) = entry.map_err(failed("read", map_names::NODE_ADDRESSES))?;
            let index = index as u16;
            let version = self.end(index)?.ip_version;
            nodes.insert(narrow(address, version), index);
        }
        Ok(nodes)
    }

    pub(super) fn set_node(&mut self, address: V6, index: u16) -> Result<(), Error> {
        self.nodes
            .insert(address, u32::from(index), 0)
            .map_err(insert_failed(map_names::NODE_ADDRESSES, 2 * MAX_NODES))
    }

    pub(super) fn remove_node(&mut self, address: V6) -> Result<(), Error> {
        gone_is_fine(self.nodes.remove(&address), map_names::NODE_ADDRESSES)
    }

    /// The addresses that are held.
    pub(super) fn held(&self) -> Result<BTreeSet<V6>, Error> {
        let held = self.held.keys().collect::<Result<_, _>>();
        held.map_err(failed("read", map_names::HELD))
    }

    pub(super) fn set_held(&mut self, address: V6) -> Result<(), Error> {
        self.held
            .insert(address, 1, 0)
            .map_err(insert_failed(map_names::HELD, MAX_HELD))
    }

    pub(super) fn remove_held(&mut self, address: V6) -> Result<(), Error> {
        gone_is_fine(self.held.remove(&address), map_names::HELD)
    }

    /// The ports at which something is served.
    pub(super) fn served(&self) -> Result<Vec<ServedPort>, Error> {
        let served = self.served.keys().map(|key| key.map(|Bytes(port)| port));
        let served = served.collect::<Result<_, _>>();
        served.map_err(failed("read", map_names::SERVED))
    }

    pub(super) fn set_served(&mut self, port: ServedPort) -> Result<(), Error> {
        self.served
            .insert(Bytes(port), 1, 0)
            .map_err(insert_failed(map_names::SERVED, MAX_SERVED))
    }

    pub(super) fn remove_served(&mut self, port: ServedPort) -> Result<(), Error> {
        gone_is_fine(self.served.remove(&Bytes(port)), map_names::SERVED)
    }

    pub(super) fn end(&self, index: u16) -> Result<TunnelEnd, Error> {
        self.ends
            .get(&u32::from(index), 0)
            .map(|Bytes(end)| end)
            .map_err(failed("read", map_names::TUNNEL_ENDS))
    }

    pub(super) fn set_end(&mut self, index: u16, end: TunnelEnd) -> Result<(), Error> {
        self.ends
            .set(u32::from(index), Bytes(end), 0)
            .map_err(failed("write", map_names::TUNNEL_ENDS))
    }

    /// Forgets the traffic of a place.
    pub(super) fn clear_rule(&mut self, slot: u16) -> Result<(), Error> {
        let zero = vec![Bytes(RuleCounters::default()); cpus()?];
        let zero = PerCpuValues::try_from(zero).map_err(|source| Error::Map {
            action: "write",
            map: map_names::RULE_COUNTERS,
            source: source.into(),
        })?;
        self.counters
            .set(u32::from(slot), zero, 0)
            .map_err(failed("write", map_names::RULE_COUNTERS))?;
        for reason in DropReason::ALL {
            let key = refusal_key(slot, *reason);
            gone_is_fine(self.rule_refusals.remove(&key), map_names::RULE_REFUSALS)?;
        }
        Ok(())
    }

    pub(super) fn traffic(&self, slot: u16) -> Result<RuleTraffic, Error> {
        let per_cpu = self
            .counters
            .get(&u32::from(slot), 0)
            .map_err(failed("read", map_names::RULE_COUNTERS))?;
        let mut traffic = RuleTraffic::default();
        for Bytes(counters) in per_cpu.iter() {
            traffic.out_packets += counters.out_packets;
            traffic.out_bytes += counters.out_bytes;
            traffic.back_packets += counters.back_packets;
            traffic.back_bytes += counters.back_bytes;
            traffic.opened += counters.opened;
        }
        Ok(traffic)
    }

    pub(super) fn refusals_of(&self, slot: u16) -> Result<Vec<DropCount>, Error> {
        let mut refusals = Vec::new();
        for reason in DropReason::ALL {
            match self.rule_refusals.get(&refusal_key(slot, *reason), 0) {
                Ok(per_cpu) => refusals.push(sum(*reason, &per_cpu)),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed("read", map_names::RULE_REFUSALS)(error)),
            }
        }
        Ok(refusals)
    }

    pub(super) fn refusals(&self) -> Result<Vec<DropCount>, Error> {
        DropReason::ALL
            .iter()
            .map(|reason| {
                let per_cpu = self
                    .refusals
                    .get(&u32::from(reason.number()), 0)
                    .map_err(failed("read", map_names::REFUSALS))?;
                Ok(sum(*reason, &per_cpu))
            })
            .collect()
    }

    /// How many events found the buffer full since it was made.
    pub(super) fn events_lost(&self) -> Result<u64, Error> {
        let per_cpu = self
            .events_lost
            .get(&0, 0)
            .map_err(failed("read", map_names::EVENTS_LOST))?;
        Ok(per_cpu.iter().sum())
    }

    /// Readable when there is an event.
    pub(super) fn events_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// The next event in the ring buffer.
    pub(super) fn next_event(&mut self) -> Option<NatEvent> {
        let item = self.events.next()?;
        if item.len() != size_of::<NatEvent>() {
            return None;
        }
        // SAFETY: as many bytes as the type has, and any bytes are a value of it.
        Some(unsafe { item.as_ptr().cast::<NatEvent>().read_unaligned() })
    }

    /// The next entries of a family's table.
    pub(super) fn batch<A: Family>(
        &self,
        at: Position,
        count: usize,
        entries: &mut Vec<(NatKey<A>, NatEntry<A>)>,
    ) -> Result<Option<Position>, Error> {
        let map = A::nat(self).fd.as_fd();
        kernel::lookup_batch(map, at, count, entries).map_err(|source| Error::Map {
            action: "read",
            map: A::MAP,
            source: source.into(),
        })
    }

    pub(super) fn half<A: Family>(&self, key: &NatKey<A>) -> Result<Option<NatEntry<A>>, Error> {
        match A::nat(self).map.get(&Bytes(*key), 0) {
            Ok(Bytes(entry)) => Ok(Some(entry)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed("read", A::MAP)(error)),
        }
    }

    pub(super) fn remove_half<A: Family>(&mut self, key: &NatKey<A>) -> Result<(), Error> {
        gone_is_fine(A::nat_mut(self).map.remove(&Bytes(*key)), A::MAP)
    }

    /// Writes both halves of a mapping: the back one first, as the programs do.
    pub(super) fn set_mapping(
        &mut self,
        mapping: &Mapping,
        slot: u16,
        node: u16,
        is_replicated: bool,
    ) -> Result<(), Error> {
        match mapping.pod.ip() {
            IpAddr::V4(_) => self.set_halves::<V4>(mapping, slot, node, is_replicated),
            IpAddr::V6(_) => self.set_halves::<V6>(mapping, slot, node, is_replicated),
        }
    }

    pub(super) fn remove_mapping(&mut self, mapping: &Mapping) -> Result<(), Error> {
        match mapping.pod.ip() {
            IpAddr::V4(_) => self.remove_halves::<V4>(mapping),
            IpAddr::V6(_) => self.remove_halves::<V6>(mapping),
        }
    }

    fn set_halves<A: Family>(
        &mut self,
        mapping: &Mapping,
        slot: u16,
        node: u16,
        is_replicated: bool,
    ) -> Result<(), Error> {
        let (out_key, back_key) = keys::<A>(mapping)?;
        let replicated = u32::from(is_replicated) * said::REPLICATED;
        let outer = match mapping.node {
            PodNode::Here => 0,
            PodNode::Tunnel(address) => fold(widen(address)),
            PodNode::Native => NATIVE_OUTER,
        };
        let entry = |address: A, port: u16, said: u32| NatEntry {
            last_seen: super::now().wrapping_sub(ticks_of(mapping.idle)),
            rule: mapping.rule,
            said: said | replicated,
            slot,
            node,
            outer,
            address,
            port,
            reserved: 0,
        };
        // Whoever has a half of it loses the other one as well: two mappings would share it.
        if let Some(other) = self.half::<A>(&out_key)? {
            let other = mapping::back_key(&out_key, &other);
            if other != back_key {
                self.remove_half::<A>(&other)?;
            }
        }
        if let Some(other) = self.half::<A>(&back_key)? {
            let other = mapping::out_key(&back_key, &other);
            if other != out_key {
                self.remove_half::<A>(&other)?;
            }
        }
        let back = entry(out_key.local, out_key.local_port, mapping.said_back.bits());
        let out = entry(back_key.local, back_key.local_port, mapping.said_out.bits());
        let nat = A::nat_mut(self);
        let max = nat.max_entries;
        for (key, entry) in [(back_key, back), (out_key, out)] {
            nat.map
                .insert(Bytes(key), Bytes(entry), 0)
                .map_err(insert_failed(A::MAP, max))?;
        }
        Ok(())
    }

    fn remove_halves<A: Family>(&mut self, mapping: &Mapping) -> Result<(), Error> {
        let (out, back) = keys::<A>(mapping)?;
        self.remove_half::<A>(&out)?;
        self.remove_half::<A>(&back)
    }
}

/// Both keys of a mapping.
pub(super) fn keys<A: Address>(mapping: &Mapping) -> Result<(NatKey<A>, NatKey<A>), Error> {
    let mixed = || Error::MixedFamilies(Box::new(*mapping));
    let address = |ip: IpAddr| A::from_ip(ip).ok_or_else(mixed);
    let (remote, remote_port) = match mapping.remote {
        Some(remote) => (address(remote.ip())?, remote.port().to_be()),
        None => (A::ANY, 0),
    };
    let key = |local: A, port: u16, side: u8| NatKey {
        remote,
        local,
        remote_port,
        local_port: port.to_be(),
        protocol: mapping.protocol,
        side,
        reserved: 0,
    };
    Ok((
        key(address(mapping.pod.ip())?, mapping.pod.port(), side::OUT),
        key(
            address(mapping.egress.ip())?,
            mapping.egress.port(),
            side::BACK,
        ),
    ))
}

fn refusal_key(slot: u16, reason: DropReason) -> Bytes<DropKey> {
    Bytes(DropKey {
        slot: u32::from(slot),
        reason: u32::from(reason.number()),
    })
}
